/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "gpu/device.h"
#include "weft_internal/util.h"

#define BATCH_BYTES 16384u /* that a warp is given at a time, when it takes more than one item */

#define ALIKE_PARTS                                                                                \
	8u /* that a run is cut into for no other reason than that others are so short */

static void add(struct wfi_gpu_table *t, uint64_t src, uint64_t dst, uint32_t len)
{
	if (t->nr && t->len != len)
		t->odd |= 1; /* not alike: no common number of words */
	t->len = len;
	t->odd |= (uint32_t)(src | dst | len) % WFI_GPU_VEC;
	t->items[t->nr++] = (struct wfi_gpu_item){ .src = src, .dst = dst, .len = len };
}

/* how a run of @len bytes is cut: as the others are, or evenly, and in words where it can be */
static uint64_t part_of(const struct wfi_gpu_table *t, uint64_t len)
{
	const uint64_t parts = (len + WFI_GPU_ITEM_MAX - 1) / WFI_GPU_ITEM_MAX;

	if (t->len && !(len % t->len) && len <= ALIKE_PARTS * (uint64_t)t->len)
		return t->len;
	return wfi_align_up((len + parts - 1) / parts, WFI_GPU_VEC);
}

int wfi_gpu_table_add(struct wfi_gpu_table *t, uint64_t src, uint64_t dst, uint64_t len)
{
	uint64_t part, off;

	if (!len)
		return 0;
	part = part_of(t, len);
	if ((len + part - 1) / part > t->max - t->nr)
		return -ENOSPC;
	for (off = 0; off < len; off += part)
		add(t, src + off, dst + off, (uint32_t)wfi_min(part, len - off));
	t->bytes += len;
	return 0;
}

/*
 * @nr items with @bytes in all; where @len is not 0 each is as long, and the blocks allow it, they
 * are moved in words
 */
static int launch(struct wfi_gpu *gpu, struct wfi_gpu_move_args *args, uint64_t nr, uint64_t bytes,
		  uint32_t len, struct CUstream_st *stream)
{
	if (nr > UINT32_MAX)
		return -E2BIG;
	args->nr = (uint32_t)nr;
	args->batch = (uint32_t)wfi_max(1, wfi_min(WFI_GPU_WARP, BATCH_BYTES * nr / bytes));
	if (len && wfi_gpu_side_even(&args->src) && wfi_gpu_side_even(&args->dst)) {
		args->vecs = len / WFI_GPU_VEC;
		args->vecs_magic = (uint32_t)(((1ull << 32) + args->vecs - 1) / args->vecs);
	}
	return wfi_gpu_launch(gpu, WFI_GPU_MOVE, (nr + args->batch - 1) / args->batch, args,
			      stream);
}

int wfi_gpu_move(struct wfi_gpu *gpu, const struct wfi_gpu_table *t, const struct wfi_gpu_side *src,
		 const struct wfi_gpu_side *dst, uint32_t nr_blocks, struct CUstream_st *stream)
{
	struct wfi_gpu_move_args args = { .items = (uintptr_t)t->items };
	uint64_t nr = 1;

	if (src) {
		args.src = *src;
		args.dst = *dst;
		args.nr_runs = t->nr;
		nr = nr_blocks;
	}
	if (!t->nr || !nr)
		return 0;
	return launch(gpu, &args, t->nr * nr, t->bytes * nr, t->odd ? 0 : t->len, stream);
}

int wfi_gpu_move_blocks(struct wfi_gpu *gpu, const struct wfi_gpu_side *src,
			const struct wfi_gpu_side *dst, uint32_t len, uint32_t nr,
			struct CUstream_st *stream)
{
	const uint32_t nr_runs =
		(uint32_t)(((uint64_t)len + WFI_GPU_ITEM_MAX - 1) / WFI_GPU_ITEM_MAX);
	struct wfi_gpu_move_args args = { .src = *src, .dst = *dst, .len = len };

	if (!len || !nr)
		return 0;
	args.nr_runs = nr_runs;
	args.part = (uint32_t)wfi_align_up((len + (uint64_t)nr_runs - 1) / nr_runs, WFI_GPU_VEC);
	return launch(gpu, &args, (uint64_t)nr_runs * nr, (uint64_t)len * nr,
		      len == args.part * nr_runs ? args.part : 0, stream);
}
