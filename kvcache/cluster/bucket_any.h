/* SPDX-License-Identifier: Apache-2.0 */
/* bucket_any.h - eight comparisons, one after the other */
#ifndef WFI_CLUSTER_BUCKET_ANY_H
#define WFI_CLUSTER_BUCKET_ANY_H

#include <stdint.h>

/* Return: bit i: the i-th of the eight. @tags: half a line, aligned */
static inline unsigned bucket_find(const uint32_t *tags, uint32_t tag)
{
	unsigned same = 0, i;

	for (i = 0; i < 8; i++)
		same |= (unsigned)(tags[i] == tag) << i;
	return same;
}

#endif
