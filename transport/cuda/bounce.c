/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bounce.c - host memory that can't be pinned: bytes stop in memory that is
 *
 * The driver would do the same, but while it copies its caller waits. Here the worker copies a
 * post between slots and one of two buffers, and the GPU the other one meanwhile.
 */
#include <errno.h>
#include <string.h>
#include "transport/cuda/cuda.h"

int wfi_cuda_bounces_open(struct wfi_cuda_gpu *g)
{
	void *mem;
	int ret;

	if (g->bounces)
		return 0;
	ret = wfi_gpu_pin(g->gpu, WFI_CUDA_BOUNCES * WFI_CUDA_POST_BYTES, &mem);
	if (ret)
		return ret;
	g->free_bounces = (1u << WFI_CUDA_BOUNCES) - 1;
	g->bounces = mem;
	return 0;
}

int wfi_cuda_held_open(struct wfi_cuda_ep *ep)
{
	if (!ep->held)
		ep->held = wfi_alloc(ep->base.dev->env, WFI_CUDA_HELD_BYTES(ep));
	return ep->held ? 0 : -ENOMEM;
}

static uint8_t *bounce_of(const struct wfi_cuda_gpu *g, const struct wfi_cuda_post *p)
{
	return g->bounces + (p->bounce - 1u) * WFI_CUDA_POST_BYTES;
}

const struct weft_piece *wfi_cuda_bounce_begin(struct wfi_cuda_ep *ep, uint32_t at,
					       const struct weft_piece *pieces)
{
	struct weft_piece *kept = wfi_cuda_held(ep, at);
	struct weft_piece *out = wfi_cuda_device(ep->base.dev)->bounced;
	struct wfi_cuda_post *p = &ep->posts[at % ep->depth];
	struct wfi_cuda_gpu *g = ep->gpu;
	uint8_t *to;
	uint32_t i;

	p->bounce = (uint8_t)(__builtin_ctz(g->free_bounces) + 1);
	g->free_bounces &= g->free_bounces - 1;
	to = bounce_of(g, p);
	for (i = 0; i < p->idx; i++) {
		kept[i] = pieces[i];
		out[i] = pieces[i];
		out[i].local = to;
		if (p->op == WEFT_WC_WRITE)
			memcpy(to, pieces[i].local, pieces[i].len);
		to += pieces[i].len;
	}
	return out;
}

void wfi_cuda_bounce_end(struct wfi_cuda_ep *ep, uint32_t at, bool lost)
{
	const struct weft_piece *kept = wfi_cuda_held(ep, at);
	const struct wfi_cuda_post *p = &ep->posts[at % ep->depth];
	struct wfi_cuda_gpu *g = ep->gpu;
	const uint8_t *from = bounce_of(g, p);
	uint32_t i;

	for (i = 0; i < p->idx && p->op == WEFT_WC_READ && !lost; i++) {
		memcpy(kept[i].local, from, kept[i].len);
		from += kept[i].len;
	}
	g->free_bounces |= 1u << (p->bounce - 1);
}
