/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include "weft_internal/util.h"
#include "weft_internal/xfer.h"

/* one dimension of the common part, as both sides stride through it */
struct axis {
	uint64_t src;
	uint64_t dst;
	uint32_t extent;
};

struct walk {
	struct axis axis[WFI_DIM_NR]; /* outermost of dst first */
	unsigned nr;
	uint64_t src; /* of the first element */
	uint64_t dst;
};

/* Return: true when the last byte lies outside 64 bits */
static bool layout_overflows(const struct wfi_layout *l)
{
	uint64_t end = l->base, span;
	unsigned d;

	for (d = 0; d < WFI_DIM_NR; d++) {
		if (!l->extent[d] || wfi_mul_overflows(l->extent[d], l->stride[d], &span) ||
		    wfi_add_overflows(end, span, &end))
			return true;
	}
	return l->stride[WFI_DIM_BYTE] != 1;
}

/* the part of [a, a + na) that lies in [b, b + nb). Return: how many */
static uint32_t overlap(uint32_t a, uint32_t na, uint32_t b, uint32_t nb, uint64_t *first)
{
	uint64_t from = wfi_max(a, b);
	uint64_t to = wfi_min((uint64_t)a + na, (uint64_t)b + nb);

	*first = from;
	return from < to ? (uint32_t)(to - from) : 0;
}

/* inserts by dst stride, largest first; a dimension of one element only shifts the start */
static void walk_add(struct walk *w, struct axis axis)
{
	unsigned i;

	if (axis.extent == 1)
		return;
	for (i = w->nr; i > 0 && w->axis[i - 1].dst < axis.dst; i--)
		w->axis[i] = w->axis[i - 1];
	w->axis[i] = axis;
	w->nr++;
}

/* Return: 1, 0 when there is nothing in common, -EINVAL */
static int walk_init(struct walk *w, const struct wfi_layout *src, const struct wfi_layout *dst)
{
	uint32_t nr_tokens, nr_heads, extent;
	uint64_t token, head;
	unsigned d;

	if (layout_overflows(src) || layout_overflows(dst) ||
	    src->extent[WFI_DIM_LAYER] != dst->extent[WFI_DIM_LAYER] ||
	    src->extent[WFI_DIM_KV] != dst->extent[WFI_DIM_KV] ||
	    src->extent[WFI_DIM_BYTE] != dst->extent[WFI_DIM_BYTE])
		return -EINVAL;
	nr_tokens = overlap(src->first_token, src->extent[WFI_DIM_TOKEN], dst->first_token,
			    dst->extent[WFI_DIM_TOKEN], &token);
	nr_heads = overlap(src->first_head, src->extent[WFI_DIM_HEAD], dst->first_head,
			   dst->extent[WFI_DIM_HEAD], &head);
	if (!nr_tokens || !nr_heads)
		return 0;
	w->nr = 0;
	w->src = src->base + (token - src->first_token) * src->stride[WFI_DIM_TOKEN] +
		 (head - src->first_head) * src->stride[WFI_DIM_HEAD];
	w->dst = dst->base + (token - dst->first_token) * dst->stride[WFI_DIM_TOKEN] +
		 (head - dst->first_head) * dst->stride[WFI_DIM_HEAD];
	for (d = 0; d < WFI_DIM_NR; d++) {
		extent = d == WFI_DIM_TOKEN  ? nr_tokens
			 : d == WFI_DIM_HEAD ? nr_heads
					     : src->extent[d];
		walk_add(w, (struct axis){ src->stride[d], dst->stride[d], extent });
	}
	return 1;
}

/* joins dimensions that both sides walk without a gap: what is left of the innermost is one run */
static int walk_collapse(struct walk *w, uint64_t *run_len)
{
	uint64_t inner = 1; /* bytes of dst that the dimensions inside span */
	unsigned i, out = 0;

	/* one element that lands inside another, or on it: not a layout to write to */
	for (i = w->nr; i-- > 0;) {
		if (w->axis[i].dst < inner)
			return -EINVAL;
		inner += (uint64_t)(w->axis[i].extent - 1) * w->axis[i].dst;
	}
	*run_len = 1;
	i = w->nr;
	while (i > 0 && w->axis[i - 1].src == *run_len && w->axis[i - 1].dst == *run_len)
		*run_len *= w->axis[--i].extent;
	w->nr = i;
	for (i = 0; i < w->nr; i++) {
		struct axis *a = &w->axis[i];

		if (i + 1 < w->nr && a->src == a[1].extent * a[1].src &&
		    a->dst == a[1].extent * a[1].dst &&
		    (uint64_t)a->extent * a[1].extent <= UINT32_MAX)
			a[1].extent *= a->extent;
		else
			w->axis[out++] = *a;
	}
	w->nr = out;
	return 0;
}

/* Return: number of runs; the first @max are written */
static int walk_emit(const struct walk *w, uint64_t run_len, uint64_t nr, struct wfi_run *runs,
		     unsigned max)
{
	uint32_t at[WFI_DIM_NR] = { 0 };
	struct wfi_run run = { .src = w->src, .dst = w->dst };
	uint64_t src = w->src, dst = w->dst;
	unsigned d, out = 0;

	for (; nr; nr--) {
		/* a gap inside a dimension, and none behind it: its end touches the next start */
		if (run.src + run.len != src || run.dst + run.len != dst) {
			if (out < max)
				runs[out] = run;
			out++;
			run = (struct wfi_run){ .src = src, .dst = dst };
		}
		run.len += run_len;
		for (d = w->nr; d-- > 0;) {
			src += w->axis[d].src;
			dst += w->axis[d].dst;
			if (++at[d] < w->axis[d].extent)
				break;
			src -= w->axis[d].extent * w->axis[d].src;
			dst -= w->axis[d].extent * w->axis[d].dst;
			at[d] = 0;
		}
	}
	if (out < max)
		runs[out] = run;
	return (int)out + 1;
}

int wfi_layout_plan(const struct wfi_layout *src, const struct wfi_layout *dst,
		    struct wfi_run *runs, unsigned max)
{
	uint64_t run_len, nr = 1;
	struct walk w;
	unsigned i;
	int ret;

	ret = walk_init(&w, src, dst);
	if (ret <= 0)
		return ret;
	ret = walk_collapse(&w, &run_len);
	if (ret)
		return ret;
	for (i = 0; i < w.nr; i++)
		if (wfi_mul_overflows(nr, w.axis[i].extent, &nr) || nr > INT_MAX)
			return -EINVAL;
	return walk_emit(&w, run_len, nr, runs, max);
}
