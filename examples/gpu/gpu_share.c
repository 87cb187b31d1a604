/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_share.c - two processes on one GPU: what prefill has computed there, decode finds
 *
 *	gpu-share malloc|vmm [NR BYTES]
 *
 * Two engines attach to the node at WEFT_SOCKET. The first has a cache in GPU memory whose blocks
 * lie layer by layer, as those of paged attention do; it publishes NR blocks of BYTES out of it.
 * The second, in which they lie in one run each, gets them into its own. Both caches are memory of
 * cudaMalloc(), or of cuMemCreate(). What is published may still be on its way into that memory:
 * the node waits for an event, and no host does. Nor does one before it reads what it gets: its
 * stream waits for the get's signal. Exit status 77: there is no GPU.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/weft.h>
#include "driver.h"
#include "engine.h"

/* all blocks of the prompt, block i at the engine's place i. @signal: of a get; written here.
 * Return: 1 it is under way, -errno */
static int move(struct engine *e, enum weft_opcode opcode, struct weft_signal *signal)
{
	uint32_t *prompt = calloc(e->nr, sizeof(*prompt)), i;
	struct weft_key *keys = calloc(e->nr, sizeof(*keys));
	struct weft_place *places = calloc(e->nr, sizeof(*places));
	struct weft_op op = {
		.op = (uint8_t)opcode,
		.flags = opcode == WEFT_OP_PUT ? WEFT_F_COPY : WEFT_F_VERIFY | WEFT_F_SIGNAL,
		.nr = e->nr,
		.space = e->space,
		.keys = keys,
		.places = places,
		.handle = opcode == WEFT_OP_PUT ? e->event : 0,
		.timeout_us = TIMEOUT_US,
		.signal = signal,
	};
	int ret = -1;

	for (i = 0; prompt && places && i < e->nr; i++) {
		prompt[i] = (uint32_t)e->bytes + i;
		places[i] = (struct weft_place){ .off = i * e->bytes, .region = e->region };
	}
	if (keys && i == e->nr &&
	    weft_key_chain(e->space, NULL, prompt, e->nr, keys, e->nr) == (int)e->nr)
		ret = weft_submit(e->ring, &op, 1);
	free(places);
	free(keys);
	free(prompt);
	return ret;
}

/* Return: how many blocks moved, -errno */
static int moved(struct engine *e)
{
	struct weft_completion done;
	int ret = weft_wait(e->ring, &done, 1, 0);

	return ret < 0 ? ret : done.res;
}

static int prefill(struct engine *e, int vmm)
{
	void *event;

	if (engine_open(e, "prefill") || engine_cache(e, vmm, 1))
		return -1;
	engine_compute(e);
	if (driver_write(e->mem, e->host, e->nr * e->bytes, &event) ||
	    weft_event_reg(e->w, event, e->region, &e->event))
		return -1;
	if (move(e, WEFT_OP_PUT, NULL) < 0)
		return -1;
	return moved(e) == (int)e->nr ? 0 : -1;
}

/* what it does with the blocks is asked for before they are there */
static int decode(struct engine *e, int vmm)
{
	void *stream = driver_stream();
	struct weft_signal signal;

	if (!stream || engine_open(e, "decode") || engine_cache(e, vmm, 0) ||
	    weft_signals_open(e->ring, e->region))
		return -1;
	if (move(e, WEFT_OP_GET, &signal) < 0 || weft_signal_wait(e->ring, &signal, stream) ||
	    driver_read(e->host, e->mem, e->nr * e->bytes, stream) || moved(e) != (int)e->nr)
		return -1;
	return engine_check(e);
}

int main(int argc, char **argv)
{
	struct engine e = { .nr = 64, .bytes = 32768 };
	const int vmm = engine_args(&e, argc, argv);
	int status = 0;
	pid_t pid;

	if (vmm < 0)
		return 2;
	pid = fork();
	if (!pid)
		return engine_run(&e, "gpu-share", prefill, vmm);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 1;
	/* its memory is gone, its blocks are not */
	if (!WEXITSTATUS(status))
		status = engine_run(&e, "gpu-share", decode, vmm);
	else
		return WEXITSTATUS(status);
	if (!status)
		printf("%u blocks of %zu bytes from one process's GPU memory to another's: all "
		       "right\n",
		       e.nr, e.bytes);
	return status;
}
