/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - what the examples share: an engine with a cache in GPU memory, and what it computes */
#ifndef EXAMPLE_ENGINE_H
#define EXAMPLE_ENGINE_H

#include <stddef.h>
#include <stdint.h>
#include <weft/weft.h>

#define LAYERS 8u
#define TIMEOUT_US 60000000u

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

/* malloc|vmm [NR BYTES]. Return: 1 vmm, 0 malloc, -1 neither: said */
int engine_args(struct engine *e, int argc, char **argv);
/* attached to the node at WEFT_SOCKET. Return: 0, or weft_why() says what is wrong */
int engine_open(struct engine *e, const char *name);
/* .mem, registered: a block in LAYERS segments, each in a part of its own of the memory; or in one
 * run. Return: as above */
int engine_cache(struct engine *e, int vmm, int layered);
/* .host has all blocks, layer by layer: block i's byte at lies in layer at / (bytes / LAYERS) */
void engine_compute(struct engine *e);
/* .host has them all, block by block. Return: 0; -1 said */
int engine_check(const struct engine *e);
/* @part in a process that has no driver yet: after fork(), since a driver is of one process.
 * Return: exit status */
int engine_run(struct engine *e, const char *name, int (*part)(struct engine *e, int vmm), int vmm);

#endif
