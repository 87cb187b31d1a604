/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tier_gpu.h - which copy of which block lies where in a GPU's memory; private to tier_gpu*.c
 *
 * The memory is cut into chunks, and a chunk into places for blocks of one size, its class. From a
 * slot a table leads to what was last known of its block here: nothing, that it was wanted once,
 * that it is put down to be copied, or its copy. A copy says of which slot and generation it is, so
 * that nothing has to be undone in the table when it goes.
 *
 * What is wanted goes where there is room, then to a chunk that nobody has used since the hand that
 * goes around the chunks last came by, then to a place in the class' own chunks by a clock: a copy
 * that was used since its hand last came by stays, one whose block memory has no more goes at once.
 * All of it in a bounded number of steps: what finds no room is copied another time.
 *
 * Chunks are taken from the front on: when the memory gets smaller its last ones, which nobody has
 * used unless all were, leave one by one: what nobody pins there is gone at
 * once, and nothing there is found any more; where something is pinned the chunk waits for that.
 */
#ifndef WFI_KVCACHE_TIER_GPU_H
#define WFI_KVCACHE_TIER_GPU_H

#include "kvcache/kv_private.h"
#include "weft_internal/tier_gpu.h"

#define GPU_CLASSES 16u
#define GPU_NONE UINT32_MAX

enum gpu_copy_state {
	GPU_COPY_FREE,
	GPU_COPY_FILLING,
	GPU_COPY_GOOD,
	GPU_COPY_GONE, /* but for its pins */
};

/* @next: of those that are free in its chunk */
struct gpu_copy {
	uint32_t slot;
	uint32_t gen;
	uint32_t pins;
	uint32_t next;
	uint8_t state; /* enum gpu_copy_state */
	bool used;
};

/* of a ring of chunks */
struct gpu_link {
	uint32_t next;
	uint32_t prev;
};

/* @links: by enum gpu_ring. @fresh: places from here on have no copy */
struct gpu_chunk {
	uint32_t class; /* GPU_NONE: nobody's, or it has left and waits for pinned copies */
	struct gpu_link links[2];
	uint32_t stride; /* also of a chunk that has left */
	uint32_t nr;
	uint32_t fresh;
	uint32_t free; /* list of copies */
	uint32_t nr_copies; /* that are not free */
	uint32_t nr_pinned;
	bool used;
};

enum gpu_ring {
	GPU_RING, /* of its class, or of those that are nobody's */
	GPU_ROOM, /* of its class, those with a free place */
};

/* @chunk, @at: where the hand is */
struct gpu_class {
	uint64_t stride;
	uint32_t nr_chunks; /* 0: the class is free */
	uint32_t chunk;
	uint32_t at;
	uint32_t room; /* a chunk with a free place, or GPU_NONE */
};

struct gpu_slots {
	struct wfi_env *env;
	const struct wfi_kv *kv;
	struct wfi_table where_table;
	struct wfi_table copy_table;
	uint32_t *where; /* by slot */
	struct gpu_copy *copies;
	struct gpu_chunk *chunks;
	uint32_t max_chunks;
	uint32_t nr_chunks; /* that there are */
	uint32_t want_chunks; /* that there are to be: no more */
	uint32_t nr_left; /* that wait for pinned copies, behind those */
	uint32_t free; /* a chunk that is nobody's, or GPU_NONE */
	unsigned chunk_shift;
	uint32_t hand;
	struct gpu_class classes[GPU_CLASSES];
	uint64_t nr_copies, bytes_held, nr_evicted;
};

/* @chunk_bytes: power of two. Return: 0, -ENOMEM */
int wfi_gpu_slots_init(struct gpu_slots *s, const struct wfi_tier_gpu_opts *o);
/* takes what is zero */
void wfi_gpu_slots_fini(struct gpu_slots *s);
/* all copies are gone, but for those that are pinned */
void wfi_gpu_slots_clear(struct gpu_slots *s);
/* the memory has @bytes: more at once, less when wfi_gpu_slots_shrink() says so. It is not getting
 * smaller already */
void wfi_gpu_slots_resize(struct gpu_slots *s, uint64_t bytes);
/* Return: work done: nothing that could be done now is left */
int wfi_gpu_slots_shrink(struct gpu_slots *s);
/* Return: whether chunks, or pins in those that have left, are still to go */
static inline bool wfi_gpu_slots_shrinks(const struct gpu_slots *s)
{
	return s->nr_chunks != s->want_chunks || s->nr_left;
}
/* Return: a good copy of the block that the slot held when it had this generation; GPU_NONE. Hot */
uint32_t wfi_gpu_slots_find(const struct gpu_slots *s, uint32_t slot, uint32_t gen);
/* there is none, and it was wanted. Return: whether that was so before, and it is not put down */
bool wfi_gpu_slots_note(struct gpu_slots *s, uint32_t slot, uint32_t gen);
/* it is to be copied */
void wfi_gpu_slots_put_down(struct gpu_slots *s, uint32_t slot, uint32_t gen);
/* it is not, or that failed */
void wfi_gpu_slots_put_off(struct gpu_slots *s, uint32_t slot, uint32_t gen);
/* Return: a place for that, pinned, to be filled; GPU_NONE there is no room now */
uint32_t wfi_gpu_slots_take(struct gpu_slots *s, uint64_t stride, uint32_t slot, uint32_t gen);
/* it is filled, and is what it should be */
void wfi_gpu_slots_good(struct gpu_slots *s, uint32_t copy);
void wfi_gpu_slots_pin(struct gpu_slots *s, uint32_t copy);
void wfi_gpu_slots_unpin(struct gpu_slots *s, uint32_t copy);
/* it is found no more, and its place is free when nobody pins it; one that is no more is left
 * alone */
void wfi_gpu_slots_drop(struct gpu_slots *s, uint32_t copy);
/* of a copy's first byte, from the start of the memory. Hot */
uint64_t wfi_gpu_slots_off(const struct gpu_slots *s, uint32_t copy);

#endif
