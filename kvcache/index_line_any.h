/* SPDX-License-Identifier: Apache-2.0 */
/* index_line_any.h - one comparison after the other, in atomic loads that sanitizers understand */
#ifndef WFI_INDEX_LINE_ANY_H
#define WFI_INDEX_LINE_ANY_H

#include "kvcache/index.h"

/* Return: bit 2 i: entry i has these low bits */
static inline unsigned index_line_candidates(const struct index_line *line, uint16_t low)
{
	unsigned c = 0;

	for (unsigned i = 0; i < INDEX_LINE_ENTRIES; i++)
		c |= (unsigned)(__atomic_load_n(&line->low[i], __ATOMIC_RELAXED) == low) << 2 * i;
	return c;
}

/* Return: bit i: entry i is empty. Context: owner thread */
static inline unsigned index_line_empty(const struct index_line *line)
{
	unsigned empty = 0;

	for (unsigned i = 0; i < INDEX_LINE_ENTRIES; i++)
		empty |= (unsigned)!line->word[i] << i;
	return empty;
}

#endif
