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

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
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

/* the words of a set, as compilers compare them at once */
typedef uint32_t wfi_ghost_lanes __attribute__((vector_size(16)));
static_assert(sizeof(wfi_ghost_lanes) == sizeof(struct wfi_ghost_set), "a lane for each word");

/* a ghost that is not written yet */
struct wfi_ghost_leaving {
	uint32_t set;
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
	/* they know their sets by number */
	memset(g->leaving, 0, sizeof(g->leaving));
}

/*
 * As linear hashing does: most stay where they are when sets are added. No branch: it would be
 * foreseen wrongly as often as there are sets yet to come
 */
static inline uint32_t wfi_ghosts_set(const struct wfi_ghosts *g, uint32_t hash)
{
	const uint32_t set = hash & g->mask;

	return set & ~(-(uint32_t)(set >= g->nr_sets) & (g->mask ^ g->mask >> 1));
}

/* inlined by force: gcc takes a function that only prefetches for one without effect */
static inline __attribute__((always_inline)) void wfi_ghosts_prefetch(const struct wfi_ghosts *g,
								      uint32_t hash)
{
	__builtin_prefetch(&g->sets[wfi_ghosts_set(g, hash)], 1);
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
	uint32_t *words = g->sets[old.set].words;

	at->set = wfi_ghosts_set(g, hash);
	at->word = wfi_ghost_word(hash, code, tick);
	__builtin_prefetch(&g->sets[at->set], 1);
	if (wfi_unlikely(!old.word))
		return;
	memmove(words + 1, words, (WFI_GHOST_WAYS - 1) * sizeof(*words));
	words[0] = old.word;
}

/*
 * Return: the place of the block's ghost; NULL: it has none. All words at once: a branch for each
 * would be foreseen wrongly, for where a ghost lies is chance
 */
static inline uint32_t *wfi_ghosts_find(const struct wfi_ghosts *g, uint32_t hash)
{
	static const wfi_ghost_lanes bits = { 1, 2, 4, 8 };
	struct wfi_ghost_set *set = &g->sets[wfi_ghosts_set(g, hash)];
	wfi_ghost_lanes words;
	uint64_t found[2];
	unsigned at;

	memcpy(&words, set->words, sizeof(words));
	words ^= wfi_ghost_word(hash, 0, 0);
	words = (wfi_ghost_lanes)(words >> WFI_GHOST_TAG_SHIFT == 0) & bits;
	memcpy(found, &words, sizeof(found));
	found[0] |= found[1];
	at = (unsigned)(found[0] | found[0] >> 32);
	/* where nothing was left is like a word whose bits of the hash are none */
	return at && set->words[__builtin_ctz(at)] ? &set->words[__builtin_ctz(at)] : NULL;
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
