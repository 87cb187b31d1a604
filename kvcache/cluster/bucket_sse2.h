/* SPDX-License-Identifier: Apache-2.0 */
/* bucket_sse2.h - eight comparisons at once */
#ifndef WFI_CLUSTER_BUCKET_SSE2_H
#define WFI_CLUSTER_BUCKET_SSE2_H

#include <emmintrin.h>
#include <stdint.h>

/* Return: bit i: the i-th of the eight. @tags: half a line, aligned */
static inline unsigned bucket_find(const uint32_t *tags, uint32_t tag)
{
	const __m128i *at = (const __m128i *)(const void *)tags;
	const __m128i want = _mm_set1_epi32((int32_t)tag);
	const __m128i same = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_load_si128(at), want),
					     _mm_cmpeq_epi32(_mm_load_si128(at + 1), want));

	return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()));
}

#endif
