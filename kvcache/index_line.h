/* SPDX-License-Identifier: Apache-2.0 */
/* index_line.h - one line of the index: its entries' bits, and looking through it. Any thread */
#ifndef WFI_INDEX_LINE_H
#define WFI_INDEX_LINE_H

#include "kvcache/index.h"

#if defined(__SSE2__) && !defined(WFI_TSAN)
#include "kvcache/index_line_sse2.h"
#else
#include "kvcache/index_line_any.h"
#endif

#define INDEX_SLOT_MASK ((1ull << INDEX_SLOT_BITS) - 1)

/* of .more: the counters of the classes, then bits of each entry */
#define INDEX_CLASSES 3u
#define INDEX_PASSED_BITS 4u
#define INDEX_PASSED_MAX ((1u << INDEX_PASSED_BITS) - 1)

/* the word of an entry without its slot: bits 16 to 53 of the hash, moved up */
static inline uint64_t index_word(uint64_t hash)
{
	return hash << 10 & ~INDEX_SLOT_MASK;
}

/* relaxed: a word stands for itself, and what it leads to is checked by other means */
static inline uint64_t index_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* of a hash, by its low bits alone */
static inline uint32_t index_class(uint64_t hash)
{
	return (uint32_t)(uint16_t)hash * INDEX_CLASSES >> 16;
}

/* Return: 0 when no entry of this class is behind */
static inline uint32_t index_passed(const struct index_line *line, uint32_t class)
{
	const uint32_t more = __atomic_load_n(&line->more, __ATOMIC_RELAXED);

	return more >> class * INDEX_PASSED_BITS & INDEX_PASSED_MAX;
}

/* Return: slot, or INDEX_SLOT_NONE when it is not in this line; its place in @at */
static inline __attribute__((always_inline)) uint32_t index_line_find(const struct index_line *line,
								      uint64_t hash, unsigned *at)
{
	/* one in ten thousand has a second candidate: the loop's branch is foreseen */
	for (unsigned c = index_line_candidates(line, (uint16_t)hash); c; c &= c - 1) {
		const unsigned i = (unsigned)__builtin_ctz(c) / 2;
		const uint64_t slot = index_load(&line->word[i]) - index_word(hash) - 1;

		if (wfi_likely(slot <= INDEX_SLOT_MAX)) {
			*at = i;
			return (uint32_t)slot;
		}
	}
	return INDEX_SLOT_NONE;
}

/* steps that an entry may be away from its home: so few that its line and the bits that are stored
 * leave one home only */
static inline uint32_t index_reach(const struct index_table *t)
{
	return t->nr_lines / (128 * INDEX_CLASSES) - 1;
}

/* where an entry goes that found @l full */
static inline uint32_t index_next(const struct index_table *t, uint32_t l, uint32_t class)
{
	l += class + 1;
	return l < t->nr_lines ? l : l - t->nr_lines;
}

/*
 * Some time after wfi_index_prefetch(): the two lines behind, where a look-up may have to go on to
 * them. Without this they are the longest wait of a put in a full cache. Inlined by force, as that
 * one is
 */
static inline __attribute__((always_inline)) void index_prefetch_behind(const struct wfi_index *ix,
									const struct index_tag *tag)
{
	const struct index_view v = wfi_index_view(ix);
	const struct index_table *t = index_table_of(&v, tag->hash);
	const uint32_t home = index_home(t, tag->hash), class = index_class(tag->hash);

	if (index_passed(&t->lines[home], class)) {
		const uint32_t next = index_next(t, home, class);

		__builtin_prefetch(&t->lines[next], 1);
		__builtin_prefetch(&t->lines[index_next(t, next, class)], 1);
	}
}

/* Return: slot, or INDEX_SLOT_NONE when it is not behind @l either; its line in @l, its place */
static inline uint32_t index_find_behind(const struct index_table *t, uint32_t *l, uint64_t hash,
					 unsigned *at)
{
	const uint32_t class = index_class(hash);
	uint32_t slot, n;

	for (n = index_reach(t); n && index_passed(&t->lines[*l], class); n--) {
		*l = index_next(t, *l, class);
		slot = index_line_find(&t->lines[*l], hash, at);
		if (slot != INDEX_SLOT_NONE)
			return slot;
	}
	return INDEX_SLOT_NONE;
}

#endif
