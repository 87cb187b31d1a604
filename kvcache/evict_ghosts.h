/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict_ghosts.h - blocks that were evicted: what they had done, should they come again
 *
 * A word for each slot, in sets of four, the latest first. What one block of a chain has done, its
 * neighbours have done: all leave a ghost in the first class of depths, and one in 2, 4 or 8 below.
 *
 * Context: the policy's thread. Hot.
 */
#ifndef WFI_EVICT_GHOSTS_H
#define WFI_EVICT_GHOSTS_H

#include <stdbool.h>
#include <stdint.h>
#include "kvcache/evict_class.h"
#include "weft_internal/util.h"

#define WFI_GHOST_WAYS 4u
#define WFI_GHOST_TICKS 0xfffu /* ticks are counted modulo one more than that */
#define WFI_GHOSTS_LEAVING 8u

#define WFI_GHOST_CODE_MASK 0xffu
#define WFI_GHOST_TICK_SHIFT 8
#define WFI_GHOST_TAG_SHIFT 20

/* a word: the code plus 1 (0: none), the tick of the last use, bits of the hash */
struct wfi_ghost_set {
	uint32_t words[WFI_GHOST_WAYS];
};

/* a ghost that is not written yet */
struct wfi_ghost_leaving {
	uint32_t hash;
	uint32_t word;
};

struct wfi_ghosts {
	struct wfi_ghost_set *sets;
	uint32_t nr_sets;
	uint32_t mask; /* the least 2^n - 1 that has all sets */
	uint32_t nr_leaving;
	struct wfi_ghost_leaving leaving[WFI_GHOSTS_LEAVING];
};

/* of the nth class of depths, one block in 2^n leaves a ghost: so many lie between two of them */
static inline uint32_t wfi_ghosts_between(uint32_t depth)
{
	return (1u << wfi_class_depth(depth)) - 1;
}

static inline bool wfi_ghosts_has(uint32_t depth)
{
	return !(depth & wfi_ghosts_between(depth));
}

/* Return: the least depth from @depth on at which a block leaves one */
static inline uint32_t wfi_ghosts_next(uint32_t depth)
{
	const uint32_t between = wfi_ghosts_between(depth);

	return (depth + between) & ~between;
}

static inline uint64_t wfi_ghosts_bytes(uint32_t nr_slots)
{
	return (nr_slots + WFI_GHOST_WAYS - 1ull) / WFI_GHOST_WAYS * sizeof(struct wfi_ghost_set);
}

/* there are @sets for @nr_slots from now on */
static inline void wfi_ghosts_use(struct wfi_ghosts *g, struct wfi_ghost_set *sets,
				  uint32_t nr_slots)
{
	g->sets = sets;
	g->nr_sets = (uint32_t)(wfi_ghosts_bytes(nr_slots) / sizeof(*sets));
	g->mask = g->nr_sets > 1 ? UINT32_MAX >> __builtin_clz(g->nr_sets - 1) : 0;
}

/* as linear hashing does: most stay where they are when sets are added */
static inline struct wfi_ghost_set *wfi_ghosts_set(const struct wfi_ghosts *g, uint32_t hash)
{
	uint32_t set = hash & g->mask;

	set = set >= g->nr_sets ? set & g->mask >> 1 : set;
	return &g->sets[set];
}

/* the multiplication's upper bits are of all bits of the hash */
static inline uint32_t wfi_ghost_word(uint32_t hash, unsigned code, uint32_t tick)
{
	const uint32_t tag = hash * 0x9e3779b1u >> WFI_GHOST_TAG_SHIFT;

	return tag << WFI_GHOST_TAG_SHIFT | (tick & WFI_GHOST_TICKS) << WFI_GHOST_TICK_SHIFT |
	       (code + 1);
}

/* written some evictions later, when its line has come */
static inline void wfi_ghosts_leave(struct wfi_ghosts *g, uint32_t hash, unsigned code,
				    uint32_t tick)
{
	struct wfi_ghost_leaving *at = &g->leaving[g->nr_leaving++ % WFI_GHOSTS_LEAVING];
	const struct wfi_ghost_leaving old = *at;
	struct wfi_ghost_set *set;

	__builtin_prefetch(wfi_ghosts_set(g, hash), 1);
	*at = (struct wfi_ghost_leaving){ hash, wfi_ghost_word(hash, code, tick) };
	if (wfi_unlikely(!old.word))
		return;
	set = wfi_ghosts_set(g, old.hash);
	set->words[3] = set->words[2];
	set->words[2] = set->words[1];
	set->words[1] = set->words[0];
	set->words[0] = old.word;
}

/* Return: whether the block may have a ghost: seldom wrong, and a few instructions */
static inline bool wfi_ghosts_there(const struct wfi_ghosts *g, uint32_t hash)
{
	const uint32_t *words = wfi_ghosts_set(g, hash)->words;
	const uint32_t tag = wfi_ghost_word(hash, 0, 0);
	uint32_t least = UINT32_MAX;

	/* no branch for each: where it lies cannot be foreseen */
	for (unsigned i = 0; i < WFI_GHOST_WAYS; i++)
		least = (words[i] ^ tag) < least ? words[i] ^ tag : least;
	return least < 1u << WFI_GHOST_TAG_SHIFT;
}

/* Return: the word of the block's ghost, which is gone then; 0: it has none */
static inline uint32_t wfi_ghosts_take(struct wfi_ghosts *g, uint32_t hash)
{
	struct wfi_ghost_set *set = wfi_ghosts_set(g, hash);
	const uint32_t tag = wfi_ghost_word(hash, 0, 0);

	for (unsigned i = 0; i < WFI_GHOST_WAYS; i++) {
		const uint32_t word = set->words[i];

		if (word && (word ^ tag) < 1u << WFI_GHOST_TAG_SHIFT) {
			set->words[i] = 0;
			return word;
		}
	}
	return 0;
}

static inline unsigned wfi_ghost_code(uint32_t word)
{
	return (word & WFI_GHOST_CODE_MASK) - 1;
}

static inline uint32_t wfi_ghost_age(uint32_t word, uint32_t tick)
{
	return (tick - (word >> WFI_GHOST_TICK_SHIFT)) & WFI_GHOST_TICKS;
}

#endif
