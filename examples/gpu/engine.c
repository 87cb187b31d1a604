/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "driver.h"
#include "engine.h"

int engine_args(struct engine *e, int argc, char **argv)
{
	const int vmm = argc > 1 && !strcmp(argv[1], "vmm");

	if (argc > 3) {
		e->nr = (uint32_t)strtoul(argv[2], NULL, 0);
		e->bytes = strtoul(argv[3], NULL, 0);
	}
	if (argc > 1 && (vmm || !strcmp(argv[1], "malloc")) && e->nr && e->bytes &&
	    e->bytes % LAYERS == 0)
		return vmm;
	fprintf(stderr, "usage: %s malloc|vmm [NR BYTES]; BYTES in %u layers\n", argv[0], LAYERS);
	return -1;
}

int engine_cache(struct engine *e, int vmm, int layered)
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

int engine_open(struct engine *e, const char *name)
{
	const struct weft_opts opts = { .size = sizeof(opts), .name = name };
	const struct weft_space_opts geometry = {
		.size = sizeof(geometry),
		.block_bytes = e->bytes,
		.model = "gpu-example",
		.layout = "layers",
		.tokens_per_block = 1,
		.nr_layers = LAYERS,
	};

	e->host = driver_host(e->nr * e->bytes);
	if (!e->host || weft_open(&opts, &e->w) || weft_space_open(e->w, &geometry, &e->space))
		return -1;
	return weft_ring_open(e->w, NULL, &e->ring);
}

static unsigned char byte_of(uint64_t block, uint64_t at)
{
	uint64_t x = (block << 32 | at) * 0x9e3779b97f4a7c15u;

	return (unsigned char)(x >> 56 ^ x >> 40);
}

void engine_compute(struct engine *e)
{
	const size_t part = e->bytes / LAYERS;

	for (size_t i = 0; i < e->nr; i++)
		for (size_t at = 0; at < e->bytes; at++)
			e->host[(at / part * e->nr + i) * part + at % part] = byte_of(i, at);
}

int engine_check(const struct engine *e)
{
	for (size_t i = 0; i < e->nr; i++)
		for (size_t at = 0; at < e->bytes; at++)
			if (e->host[i * e->bytes + at] != byte_of(i, at)) {
				printf("block %zu is wrong at byte %zu\n", i, at);
				return -1;
			}
	return 0;
}

int engine_run(struct engine *e, const char *name, int (*part)(struct engine *e, int vmm), int vmm)
{
	/* after fork(): a driver is of one process */
	int ret = driver_load();

	if (ret)
		return ret;
	if (part(e, vmm)) {
		fprintf(stderr, "%s: %s\n", name, weft_why());
		ret = 1;
	}
	weft_close(e->w);
	return ret;
}
