/* SPDX-License-Identifier: Apache-2.0 */
/* layouts.h - random pairs of layouts, and a map of every byte between them */
#ifndef LAYOUTS_H
#define LAYOUTS_H

#include "weft_internal/xfer.h"

/* the same numbers in each run. Return: below @n */
uint32_t layouts_rnd(uint32_t n);
/* with something in common, mostly. @unit: what gaps and starts are multiples of */
void layouts_pair(struct wfi_layout *a, struct wfi_layout *b, uint32_t head_bytes, uint32_t unit);
/* from[byte of dst] = byte of src + 1, or 0; room for @max. Return: bytes in common */
unsigned layouts_map(const struct wfi_layout *src, const struct wfi_layout *dst, uint32_t *from,
		     uint32_t max);

#endif
