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
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/weft.h>
#include "driver.h"

#define LAYERS 8u

struct engine {
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
	uint64_t mem; /* on the GPU */
	uint32_t region;
	uint32_t event; /* that puts wait for; 0: none */
	uint32_t nr;
	size_t bytes; /* of a block */
	unsigned char *host; /* pinned, room for all blocks */
};

/* in LAYERS segments of a block, each in a part of its own of the memory; or in one run */
static int cache_open(struct engine *e, int vmm, int layered)
{
	struct weft_region_opts opts = {
		.size = sizeof(opts),
		.len = e->nr * e->bytes,
		.fd = -1,
		.kind = WEFT_REGION_GPU,
	};

	e->mem = driver_alloc(opts.len, vmm);
	if (!e->mem)
		return -1;
	if (layered) {
		opts.nr_segments = LAYERS;
		opts.segment_bytes = e->bytes / LAYERS;
		opts.segment_stride = e->nr * opts.segment_bytes;
		opts.block_stride = opts.segment_bytes;
	}
	opts.addr = (void *)(uintptr_t)e->mem;
	return weft_region_reg(e->w, &opts, &e->region);
}

static int engine_open(struct engine *e, const char *name)
{
	const struct weft_opts opts = { .size = sizeof(opts), .name = name };
	const struct weft_space_opts geometry = {
		.size = sizeof(geometry),
		.block_bytes = e->bytes,
		.model = "gpu-share",
		.layout = "layers",
		.tokens_per_block = 1,
		.nr_layers = LAYERS,
	};

	e->host = driver_host(e->nr * e->bytes);
	if (!e->host || weft_open(&opts, &e->w) || weft_space_open(e->w, &geometry, &e->space))
		return -1;
	return weft_ring_open(e->w, NULL, &e->ring);
}

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

static unsigned char byte_of(uint64_t block, uint64_t at)
{
	uint64_t x = (block << 32 | at) * 0x9e3779b97f4a7c15u;

	return (unsigned char)(x >> 56 ^ x >> 40);
}

/* computes: block i's byte at lies in layer at / part */
static int prefill(struct engine *e, int vmm)
{
	const size_t part = e->bytes / LAYERS;
	void *event;

	if (engine_open(e, "prefill") || cache_open(e, vmm, 1))
		return -1;
	for (size_t i = 0; i < e->nr; i++)
		for (size_t at = 0; at < e->bytes; at++)
			e->host[(at / part * e->nr + i) * part + at % part] = byte_of(i, at);
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

	if (!stream || engine_open(e, "decode") || cache_open(e, vmm, 0) ||
	    weft_signals_open(e->ring, e->region))
		return -1;
	if (move(e, WEFT_OP_GET, &signal) < 0 || weft_signal_wait(e->ring, &signal, stream) ||
	    driver_read(e->host, e->mem, e->nr * e->bytes, stream) || moved(e) != (int)e->nr)
		return -1;
	for (size_t i = 0; i < e->nr; i++)
		for (size_t at = 0; at < e->bytes; at++)
			if (e->host[i * e->bytes + at] != byte_of(i, at)) {
				printf("block %zu is wrong at byte %zu\n", i, at);
				return -1;
			}
	return 0;
}

/* Return: exit status */
static int run(struct engine *e, int (*part)(struct engine *e, int vmm), int vmm)
{
	/* after fork(): a driver is of one process */
	int ret = driver_load();

	if (ret)
		return ret;
	if (part(e, vmm)) {
		fprintf(stderr, "gpu-share: %s\n", weft_why());
		ret = 1;
	}
	weft_close(e->w);
	return ret;
}

int main(int argc, char **argv)
{
	struct engine e = { .nr = 64, .bytes = 32768 };
	const int vmm = argc > 1 && !strcmp(argv[1], "vmm");
	int status = 0;
	pid_t pid;

	if (argc > 3) {
		e.nr = (uint32_t)strtoul(argv[2], NULL, 0);
		e.bytes = strtoul(argv[3], NULL, 0);
	}
	if (argc < 2 || (!vmm && strcmp(argv[1], "malloc") != 0) || !e.nr || !e.bytes ||
	    e.bytes % LAYERS) {
		fprintf(stderr, "usage: gpu-share malloc|vmm [NR BYTES]; BYTES in %u layers\n",
			LAYERS);
		return 2;
	}
	fflush(stdout);
	pid = fork();
	if (!pid)
		return run(&e, prefill, vmm);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 1;
	/* its memory is gone, its blocks are not */
	if (!WEXITSTATUS(status))
		status = run(&e, decode, vmm);
	else
		return WEXITSTATUS(status);
	if (!status)
		printf("%u blocks of %zu bytes from one process's GPU memory to another's: all "
		       "right\n",
		       e.nr, e.bytes);
	return status;
}
