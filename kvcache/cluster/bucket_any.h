/* SPDX-License-Identifier: Apache-2.0 */
/* bucket_any.h - eight comparisons, one after the other */
#ifndef WFI_CLUSTER_BUCKET_ANY_H
#define WFI_CLUSTER_BUCKET_ANY_H

#include <stdint.h>

/* Return: which of the eight, or 8. @tags: a line, aligned */
static inline unsigned bucket_find(const uint64_t *tags, uint64_t tag)
{
	unsigned i;

	for (i = 0; i < 8 && tags[i] != tag; i++)
		;
	return i;
}

#endif
