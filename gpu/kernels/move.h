/* SPDX-License-Identifier: Apache-2.0 */
/* move.h - gather, scatter and change of layout: runs of blocks, or pieces, from here to there */
#ifndef WFI_GPU_KERNELS_MOVE_H
#define WFI_GPU_KERNELS_MOVE_H

#include "gpu/kernels/shim.h"

#define WFI_MOVE_DEEP 4u /* loads that a lane has on their way at a time */

/* of one warp */
struct wfi_move_shared {
	uint64_t src[WFI_GPU_WARP];
	uint64_t dst[WFI_GPU_WARP];
	uint32_t len[WFI_GPU_WARP];
};

/* the run of a block, or the piece, of that number */
WFI_GPU_FN struct wfi_gpu_item wfi_move_item(const struct wfi_gpu_move_args *a, uint32_t nr)
{
	struct wfi_gpu_item item;

	if (a->items) {
		const uint64_t at = a->items + (uint64_t)nr * sizeof(item);

		item.src = WFI_LOOKUP(uint64_t, at);
		item.dst = WFI_LOOKUP(uint64_t, at + 8);
		item.len = WFI_LOOKUP(uint32_t, at + 16);
	} else {
		item.src = (uint64_t)nr * a->part;
		item.dst = item.src;
		item.len = a->len - (uint32_t)item.src < a->part ? a->len - (uint32_t)item.src
								 : a->part;
	}
	return item;
}

/* one lane looks up one item */
WFI_GPU_FN void wfi_move_find(const struct wfi_gpu_move_args *a, struct wfi_move_shared *sh,
			      uint32_t nr, unsigned place)
{
	const uint32_t block = a->nr_runs ? nr / a->nr_runs : 0;
	struct wfi_gpu_item item = wfi_move_item(a, nr - block * a->nr_runs);

	if (a->nr_runs) {
		item.src += wfi_side_at(&a->src, block);
		item.dst += wfi_side_at(&a->dst, block);
	}
	sh->src[place] = item.src;
	sh->dst[place] = item.dst;
	sh->len[place] = item.len;
}

/* all words of a batch of equal items, one after the other: no lane is idle, however short they
 * are */
WFI_GPU_FN void wfi_move_even(const struct wfi_gpu_move_args *a, const struct wfi_move_shared *sh,
			      unsigned nr, unsigned lane)
{
	const uint32_t end = nr * a->vecs;
	struct wfi_vec v[WFI_MOVE_DEEP] WFI_UNSET;
	uint64_t dst[WFI_MOVE_DEEP] WFI_UNSET;
	uint32_t i, k, item, off;

	for (i = lane; i < end; i += WFI_MOVE_DEEP * WFI_GPU_WARP) {
		WFI_UNROLL
		for (k = 0; k < WFI_MOVE_DEEP; k++) {
			const uint32_t word = i + k * WFI_GPU_WARP;

			if (word >= end)
				continue;
			item = a->vecs == 1 ? word : wfi_mul_high(word, a->vecs_magic);
			off = (word - item * a->vecs) * WFI_GPU_VEC;
			v[k] = wfi_load_vec(sh->src[item] + off);
			dst[k] = sh->dst[item] + off;
		}
		WFI_UNROLL
		for (k = 0; k < WFI_MOVE_DEEP; k++)
			if (i + k * WFI_GPU_WARP < end)
				wfi_store_vec(dst[k], v[k]);
	}
}

/* a lane's part of a piece, in words of 16 bytes from @off to @end, both multiples of that */
WFI_GPU_FN void wfi_move_vecs(uint64_t dst, uint64_t src, uint32_t off, uint32_t end)
{
	struct wfi_vec v[WFI_MOVE_DEEP] WFI_UNSET;
	uint32_t k, at;

	for (; off < end; off += WFI_MOVE_DEEP * WFI_GPU_WARP * WFI_GPU_VEC) {
		WFI_UNROLL
		for (k = 0; k < WFI_MOVE_DEEP; k++) {
			at = off + k * WFI_GPU_WARP * WFI_GPU_VEC;
			if (at < end)
				v[k] = wfi_load_vec(src + at);
		}
		WFI_UNROLL
		for (k = 0; k < WFI_MOVE_DEEP; k++) {
			at = off + k * WFI_GPU_WARP * WFI_GPU_VEC;
			if (at < end)
				wfi_store_vec(dst + at, v[k]);
		}
	}
}

#define WFI_MOVE_WORDS(type)                                                                       \
	for (off = head + lane * sizeof(type); off < head + body;                                  \
	     off += WFI_GPU_WARP * sizeof(type))                                                   \
	WFI_STORE(type, dst + off, WFI_LOAD(type, src + off))

/* a lane's part of a piece that may lie anywhere: the widest words that both sides allow */
WFI_GPU_FN void wfi_move_any(uint64_t dst, uint64_t src, uint32_t len, unsigned lane)
{
	const uint32_t skew = (uint32_t)(src ^ dst) % WFI_GPU_VEC;
	const uint32_t width = skew ? skew & -skew : WFI_GPU_VEC;
	uint32_t head = (uint32_t)-dst & (width - 1), body, off;

	if (head > len)
		head = len;
	body = (len - head) & ~(width - 1);
	/* what is left before and behind is shorter than a word */
	if (lane < head)
		WFI_STORE(uint8_t, dst + lane, WFI_LOAD(uint8_t, src + lane));
	off = head + body + lane;
	if (off < len)
		WFI_STORE(uint8_t, dst + off, WFI_LOAD(uint8_t, src + off));
	switch (width) {
	case 16:
		wfi_move_vecs(dst, src, head + lane * WFI_GPU_VEC, head + body);
		break;
	case 8:
		WFI_MOVE_WORDS(uint64_t);
		break;
	case 4:
		WFI_MOVE_WORDS(uint32_t);
		break;
	case 2:
		WFI_MOVE_WORDS(uint16_t);
		break;
	default:
		WFI_MOVE_WORDS(uint8_t);
	}
}

/* @warp of @nr_warps. Items do not overlap in what they write, nor with what is read */
WFI_GPU_FN void wfi_move_warp(const struct wfi_gpu_move_args *a, struct wfi_move_shared *sh,
			      uint32_t warp, uint32_t nr_warps)
{
	uint64_t first;
	unsigned i, nr;

	for (first = (uint64_t)warp * a->batch; first < a->nr;
	     first += (uint64_t)nr_warps * a->batch) {
		nr = a->nr - first < a->batch ? (unsigned)(a->nr - first) : a->batch;
		WFI_EACH_LANE(lane) {
			if (lane < nr)
				wfi_move_find(a, sh, (uint32_t)first + lane, lane);
		}
		wfi_warp_sync();
		WFI_EACH_LANE(lane) {
			if (a->vecs)
				wfi_move_even(a, sh, nr, lane);
			for (i = 0; i < nr && !a->vecs; i++)
				wfi_move_any(sh->dst[i], sh->src[i], sh->len[i], lane);
		}
		wfi_warp_sync();
	}
}

#endif
