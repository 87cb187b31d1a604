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

/* Return: bit i: entry i is empty, which the lower half of its word tells. Context: owner thread */
static inline unsigned index_line_empty(const struct index_line *line)
{
	const __m128i *words = (const __m128i *)(const void *)line->word;
	const __m128 a = _mm_castsi128_ps(_mm_load_si128(words));
	const __m128 b = _mm_castsi128_ps(_mm_load_si128(words + 1));
	const __m128 c = _mm_castsi128_ps(_mm_load_si128(words + 2));
	const __m128i none = _mm_setzero_si128();
	const __m128i first = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
	const __m128i last = _mm_castps_si128(_mm_shuffle_ps(c, c, _MM_SHUFFLE(2, 0, 2, 0)));
	const int head = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(first, none)));
	const int tail = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(last, none)));

	return (unsigned)head | ((unsigned)tail & 3) << 4;
}

#endif
