/* SPDX-License-Identifier: Apache-2.0 */
/* bucket_sse2.h - eight comparisons at once */
#ifndef WFI_CLUSTER_BUCKET_SSE2_H
#define WFI_CLUSTER_BUCKET_SSE2_H

#include <emmintrin.h>
#include <stdint.h>

/* Return: which of the eight, or 8. @tags: a line, aligned */
static inline unsigned bucket_find(const uint64_t *tags, uint64_t tag)
{
	const __m128i *at = (const __m128i *)(const void *)tags;
	const __m128i want = _mm_set1_epi64x((int64_t)tag);
	/* halves of a tag that are the same, as 16 bits each, then as 8 */
	const __m128i low = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_load_si128(at), want),
					    _mm_cmpeq_epi32(_mm_load_si128(at + 1), want));
	const __m128i high = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_load_si128(at + 2), want),
					     _mm_cmpeq_epi32(_mm_load_si128(at + 3), want));
	const unsigned halves = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(low, high));
	const unsigned both = halves & halves >> 1 & 0x5555;

	return (unsigned)__builtin_ctz(both | 1u << 16) / 2;
}

#endif
