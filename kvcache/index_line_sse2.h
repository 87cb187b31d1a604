/* SPDX-License-Identifier: Apache-2.0 */
/* index_line_sse2.h - six comparisons at once */
#ifndef WFI_INDEX_LINE_SSE2_H
#define WFI_INDEX_LINE_SSE2_H

#include <emmintrin.h>
#include "kvcache/index.h"

/*
 * Return: bit 2 i: entry i has these low bits. The owner may write meanwhile: an aligned load is
 * whole for each 2 bytes, on every CPU that has it, and no more is asked for
 */
static inline unsigned index_line_candidates(const struct index_line *line, uint16_t low)
{
	const __m128i all = _mm_load_si128((const __m128i *)(const void *)line->low);
	const __m128i same = _mm_cmpeq_epi16(all, _mm_set1_epi16((short)low));

	return (unsigned)_mm_movemask_epi8(same) & 0x555;
}

#endif
