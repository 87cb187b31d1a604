/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "tests/rnd.h"
#include "tests/unit/layouts.h"

uint32_t layouts_rnd(uint32_t n)
{
	return (uint32_t)(rnd() % n);
}

/* strides of a nested layout in a random order of dimensions, with gaps now and then */
static void random_strides(struct wfi_layout *l, uint32_t unit)
{
	unsigned order[] = { WFI_DIM_LAYER, WFI_DIM_KV, WFI_DIM_TOKEN, WFI_DIM_HEAD };
	uint64_t inner = l->extent[WFI_DIM_BYTE];
	unsigned i;

	for (i = 3; i > 0; i--) {
		unsigned j = layouts_rnd(i + 1), tmp = order[i];

		order[i] = order[j];
		order[j] = tmp;
	}
	l->stride[WFI_DIM_BYTE] = 1;
	for (i = 0; i < 4; i++) {
		if (!layouts_rnd(4))
			inner += unit * layouts_rnd(5);
		l->stride[order[i]] = inner;
		inner *= l->extent[order[i]];
	}
	l->base = layouts_rnd(3) ? 0 : unit * layouts_rnd(100);
}

void layouts_pair(struct wfi_layout *a, struct wfi_layout *b, uint32_t head_bytes, uint32_t unit)
{
	memset(a, 0, sizeof(*a));
	a->extent[WFI_DIM_LAYER] = 1 + layouts_rnd(3);
	a->extent[WFI_DIM_KV] = 1 + layouts_rnd(2);
	a->extent[WFI_DIM_BYTE] = head_bytes;
	*b = *a;
	a->extent[WFI_DIM_TOKEN] = 1 + layouts_rnd(6);
	b->extent[WFI_DIM_TOKEN] = layouts_rnd(2) ? a->extent[WFI_DIM_TOKEN] : 1 + layouts_rnd(6);
	a->extent[WFI_DIM_HEAD] = 1 + layouts_rnd(5);
	b->extent[WFI_DIM_HEAD] = layouts_rnd(2) ? a->extent[WFI_DIM_HEAD] : 1 + layouts_rnd(5);
	if (!layouts_rnd(2)) {
		a->first_token = layouts_rnd(6);
		b->first_token = layouts_rnd(6);
		a->first_head = layouts_rnd(4);
		b->first_head = layouts_rnd(4);
	}
	random_strides(a, unit);
	random_strides(b, unit);
}

static uint64_t offset(const struct wfi_layout *l, const uint32_t *at)
{
	uint64_t off = l->base;
	unsigned d;

	for (d = 0; d < WFI_DIM_NR; d++)
		off += at[d] * l->stride[d];
	return off;
}

/* the next element of a layout. Return: false behind the last */
static bool next_element(const struct wfi_layout *l, uint32_t *at)
{
	unsigned d;

	for (d = WFI_DIM_NR; d-- > 0; at[d] = 0)
		if (++at[d] < l->extent[d])
			return true;
	return false;
}

unsigned layouts_map(const struct wfi_layout *src, const struct wfi_layout *dst, uint32_t *from,
		     uint32_t max)
{
	uint32_t s[WFI_DIM_NR], d[WFI_DIM_NR] = { 0 };
	unsigned nr = 0;

	memset(from, 0, max * sizeof(*from));
	do {
		memcpy(s, d, sizeof(s));
		s[WFI_DIM_TOKEN] += dst->first_token - src->first_token;
		s[WFI_DIM_HEAD] += dst->first_head - src->first_head;
		if (s[WFI_DIM_TOKEN] >= src->extent[WFI_DIM_TOKEN] ||
		    s[WFI_DIM_HEAD] >= src->extent[WFI_DIM_HEAD])
			continue;
		assert_true(offset(dst, d) < max);
		from[offset(dst, d)] = (uint32_t)offset(src, s) + 1;
		nr++;
	} while (next_element(dst, d));
	return nr;
}
