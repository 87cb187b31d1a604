/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_handoff.c - prefill hands its blocks to decode, from GPU memory to GPU memory
 *
 *	gpu-handoff malloc|vmm [NR BYTES]
 *
 * Two engines attach to the node at WEFT_SOCKET, or decode to the one at DECODE_SOCKET, where that
 * is set: a peer of the first. Each has a cache in GPU memory: NR blocks of BYTES, prefill's layer
 * by layer, decode's in one run each. Decode says where the blocks are to lie and gets a ticket,
 * which goes to prefill by a pipe here, and by the router of requests elsewhere. Prefill pushes
 * each layer as soon as it has asked its stream for it: the node waits for the layer's event, and
 * copies it. Decode hears of each layer; what it does with the blocks is asked for before they are
 * there, behind a signal. Inside a node no byte goes through host memory. Exit status 77: there is
 * no GPU.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/weft.h>
#include "driver.h"
#include "engine.h"

static int ticket_pipe[2];

/* block i at the engine's place i; NULL: no memory */
static struct weft_place *places_of(const struct engine *e)
{
	struct weft_place *places = calloc(e->nr, sizeof(*places));

	for (uint32_t i = 0; places && i < e->nr; i++)
		places[i] = (struct weft_place){ .off = i * e->bytes, .region = e->region };
	return places;
}

/* ---- prefill ---- */

/* each layer as it is computed, with an event behind it. Return: 0, -errno */
static int push_all(struct engine *e, const struct weft_place *places, struct weft_ticket *ticket)
{
	const size_t part = e->bytes / LAYERS * e->nr;
	struct weft_op op = {
		.op = WEFT_OP_HANDOFF_PUSH,
		.flags = WEFT_F_COPY,
		.nr = e->nr,
		.nr_layers = 1,
		.space = e->space,
		.places = places,
		.ticket = ticket,
		.timeout_us = TIMEOUT_US,
	};
	void *event;
	int ret = 1;

	for (; op.layer < LAYERS && ret == 1; op.layer++) {
		if (driver_write(e->mem + op.layer * part, e->host + op.layer * part, part,
				 &event) ||
		    weft_event_reg(e->w, event, e->region, &e->event))
			return -EIO;
		op.handle = e->event;
		ret = weft_submit(e->ring, &op, 1);
	}
	return ret == 1 ? 0 : ret;
}

/* Return: 0 all layers are with decode, -errno */
static int pushed_all(struct engine *e)
{
	struct weft_completion done;

	for (unsigned layer = 0; layer < LAYERS; layer++) {
		int ret = weft_wait(e->ring, &done, 1, 0);

		if (ret < 0 || done.res < 0)
			return ret < 0 ? ret : done.res;
	}
	return 0;
}

static int prefill(struct engine *e, int vmm)
{
	struct weft_place *places;
	struct weft_ticket ticket;
	int ret;

	if (engine_open(e, "prefill") || engine_cache(e, vmm, 1))
		return -1;
	engine_compute(e);
	if (read(ticket_pipe[0], &ticket, sizeof(ticket)) != sizeof(ticket))
		return -1;
	places = places_of(e);
	ret = places ? push_all(e, places, &ticket) : -ENOMEM;
	if (!ret)
		ret = pushed_all(e);
	free(places);
	return ret;
}

/* ---- decode ---- */

/* names the places. Return: 1 it is under way, -errno */
static int expect(struct engine *e, struct weft_ticket *ticket, struct weft_signal *signal)
{
	uint32_t *prompt = calloc(e->nr, sizeof(*prompt));
	struct weft_key *keys = calloc(e->nr, sizeof(*keys));
	struct weft_place *places = places_of(e);
	const struct weft_op op = {
		.op = WEFT_OP_HANDOFF_EXPECT,
		.flags = WEFT_F_COPY | WEFT_F_VERIFY | WEFT_F_SIGNAL,
		.nr = e->nr,
		.nr_layers = LAYERS,
		.space = e->space,
		.keys = keys,
		.places = places,
		.ticket = ticket,
		.timeout_us = TIMEOUT_US,
		.signal = signal,
	};
	int ret = -ENOMEM;

	if (prompt && keys && places &&
	    weft_key_chain(e->space, NULL, prompt, e->nr, keys, e->nr) == (int)e->nr)
		ret = weft_submit(e->ring, &op, 1);
	free(places);
	free(keys);
	free(prompt);
	return ret;
}

/* Return: how many blocks came, each layer of them told; -errno */
static int arrived(struct engine *e)
{
	struct weft_completion done = { .flags = WEFT_CQE_MORE };
	uint64_t layers = 0; /* of all blocks: they may come in parts */

	while (done.flags & WEFT_CQE_MORE) {
		int ret = weft_wait(e->ring, &done, 1, 0);

		if (ret < 0)
			return ret;
		layers += (uint64_t)done.nr_layers * done.nr_blocks;
	}
	if (done.res >= 0 && layers != (uint64_t)LAYERS * e->nr)
		return -EPROTO;
	return done.res;
}

static int decode(struct engine *e, int vmm)
{
	void *stream = driver_stream();
	struct weft_completion done;
	struct weft_signal signal;
	struct weft_ticket ticket;

	if (!stream || engine_open(e, "decode") || engine_cache(e, vmm, 0) ||
	    weft_signals_open(e->ring, e->region))
		return -1;
	if (expect(e, &ticket, &signal) < 0 || weft_wait(e->ring, &done, 1, 0) < 0 ||
	    done.res < 0 || write(ticket_pipe[1], &ticket, sizeof(ticket)) != sizeof(ticket))
		return -1;
	if (weft_signal_wait(e->ring, &signal, stream) ||
	    driver_read(e->host, e->mem, e->nr * e->bytes, stream) || arrived(e) != (int)e->nr)
		return -1;
	return engine_check(e);
}

int main(int argc, char **argv)
{
	struct engine e = { .nr = 64, .bytes = 32768 };
	const int vmm = engine_args(&e, argc, argv);
	int status = 0, prefills;
	pid_t pid;

	if (vmm < 0)
		return 2;
	if (pipe(ticket_pipe))
		return 1;
	pid = fork();
	if (!pid) {
		/* it reads no ticket when there is no decode */
		close(ticket_pipe[1]);
		return engine_run(&e, "gpu-handoff", prefill, vmm);
	}
	if (getenv("DECODE_SOCKET"))
		setenv("WEFT_SOCKET", getenv("DECODE_SOCKET"), 1);
	status = pid < 0 ? 1 : engine_run(&e, "gpu-handoff", decode, vmm);
	close(ticket_pipe[1]);
	if (pid < 0 || waitpid(pid, &prefills, 0) != pid || !WIFEXITED(prefills))
		return 1;
	if (!status)
		status = WEXITSTATUS(prefills);
	if (!status)
		printf("%u blocks of %zu bytes handed over from one process's GPU memory to "
		       "another's: all right\n",
		       e.nr, e.bytes);
	return status;
}
