/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sums.c - CRC32C of pieces in a GPU's memory, by the GPU
 *
 * Pieces are cut into parts of some KiB, a warp for each, and what lies in segments has its parts
 * there. A part is moved to its place in its piece by the power that stands beside it, so that the
 * host has nothing left to do but to add the parts' sums.
 */
#include <errno.h>
#include <string.h>
#include "gpu/error.h"
#include "transport/cuda/cuda.h"
#include "weft/kv.h"
#include "weft_internal/crc32c_poly.h"

WEFT_STATIC_ASSERT(sizeof(struct wfi_gpu_part) == sizeof(struct wfi_gpu_item), "one kind of table");

/* bytes of a post before this one are in tables */
struct place {
	uint32_t piece;
	uint64_t done;
};

void wfi_cuda_powers_init(struct wfi_cuda_device *dev)
{
	unsigned i, n;

	for (i = 0; i < WFI_CUDA_POWERS; i++)
		for (n = 0; n < 16; n++)
			dev->powers[i][n] = wfi_crc32c_power((uint64_t)n << 4 * i);
}

/* x^(8 * @bytes). Most are round numbers: one digit or two */
static uint32_t power(const struct wfi_cuda_device *dev, uint64_t bytes)
{
	const uint32_t one = dev->powers[0][0];
	uint32_t out = one;
	unsigned i;

	for (i = 0; bytes; i++, bytes >>= 4)
		if (bytes % 16)
			out = out == one ? dev->powers[i][bytes % 16]
					 : wfi_crc32c_mul(out, dev->powers[i][bytes % 16]);
	return out;
}

static struct wfi_gpu_part *parts_of(const struct wfi_cuda_gpu *g, uint32_t table)
{
	return (struct wfi_gpu_part *)(void *)(g->items + (uint64_t)table * WFI_CUDA_ITEMS);
}

int wfi_cuda_sums_open(struct wfi_cuda_gpu *g)
{
	const struct wfi_cuda *cuda = g->gpu->cuda;
	const uint64_t bytes = wfi_gpu_sums_len(WFI_GPU_ITEM_MAX) * sizeof(*g->sums.powers);
	/* tables are in nobody's use yet */
	uint32_t *powers = (uint32_t *)(void *)g->items;
	uint64_t mem;
	int res;

	if (!wfi_gpu_has_kernels(g->gpu))
		return 0;
	res = cuda->cuMemAlloc(&mem, bytes);
	if (res)
		return wfi_gpu_failed(g->gpu, "no sums", res);
	wfi_gpu_sums_init(&g->sums, WFI_GPU_ITEM_MAX, powers);
	g->sums.powers = (const uint32_t *)(uintptr_t)mem;
	res = cuda->cuMemcpyAsync(mem, (uintptr_t)powers, bytes, g->streams[WFI_CUDA_TO_GPU]);
	if (!res)
		res = cuda->cuCtxSynchronize();
	return res ? wfi_gpu_failed(g->gpu, "no sums", res) : 0;
}

void wfi_cuda_sums_close(struct wfi_cuda_gpu *g)
{
	if (!g->sums.powers || wfi_gpu_enter(g->gpu))
		return;
	g->gpu->cuda->cuMemFree((uintptr_t)g->sums.powers);
	wfi_gpu_leave(g->gpu);
}

/* the part that begins @done bytes into a piece, on @far's side where it is given. Return: its
 * length, *@addr: where it lies */
static uint64_t part_len(const struct weft_piece *p, const struct wfi_cuda_mr *far, uint64_t done,
			 uint64_t *addr)
{
	const uint64_t run = far ? wfi_cuda_local_run(far, (char *)p->local + done, addr)
				 : wfi_cuda_run(wfi_cuda_rkey(p->rkey), p->remote + done, addr);

	return wfi_min(wfi_min(run, p->len - done), WFI_GPU_ITEM_MAX);
}

/* as much as fits. Return: how many */
static uint32_t parts_fill(const struct wfi_cuda_device *dev, const struct weft_piece *pieces,
			   uint32_t nr, const struct wfi_cuda_mr *far, struct place *at,
			   struct wfi_gpu_part *parts)
{
	uint64_t addr, len;
	uint32_t n = 0;

	for (; at->piece < nr; at->piece++, at->done = 0) {
		const struct weft_piece *p = &pieces[at->piece];

		for (; at->done < p->len; at->done += len) {
			if (n == WFI_CUDA_ITEMS)
				return n;
			len = part_len(p, far, at->done, &addr);
			parts[n++] = (struct wfi_gpu_part){
				.src = addr,
				.len = (uint32_t)len,
				.power = power(dev, p->len - at->done - len),
				.block = at->piece,
			};
		}
	}
	return n;
}

uint64_t wfi_cuda_sums_tables(const struct weft_piece *pieces, uint32_t nr)
{
	/* an engine's segments may be as short as it likes */
	const uint64_t max = WFI_CUDA_TABLES * WFI_CUDA_ITEMS;
	uint64_t addr, done, len, n = 0;
	uint32_t i;

	for (i = 0; i < nr; i++)
		for (done = 0; done < pieces[i].len && n <= max; done += len, n++)
			len = part_len(&pieces[i], NULL, done, &addr);
	return (n + WFI_CUDA_ITEMS - 1) / WFI_CUDA_ITEMS;
}

int wfi_cuda_sums_start(struct wfi_cuda_gpu *g, const struct wfi_cuda_device *dev,
			const struct weft_piece *pieces, uint32_t nr, const struct wfi_cuda_mr *far,
			struct CUstream_st *stream, uint32_t *tables)
{
	struct place at = { .piece = 0 };
	uint32_t i;
	int ret;

	if (!g->sums.powers)
		return -EAGAIN;
	while (at.piece < nr) {
		i = wfi_cuda_table_get(g);
		if (i == WFI_CUDA_NO_TABLE)
			return -EAGAIN;
		*tables |= 1u << i;
		g->nr_parts[i] = parts_fill(dev, pieces, nr, far, &at, parts_of(g, i));
		ret = wfi_gpu_crc32c_parts(g->gpu, &g->sums, parts_of(g, i), g->nr_parts[i],
					   stream);
		if (ret)
			return ret;
	}
	return 0;
}

void wfi_cuda_sums_end(const struct wfi_cuda_gpu *g, uint32_t tables, uint32_t *sums, uint32_t nr)
{
	const struct wfi_gpu_part *parts;
	uint64_t lens[WFI_CUDA_PIECES], len = 0;
	uint32_t i, table, tail = 0;

	memset(sums, 0, nr * sizeof(*sums));
	memset(lens, 0, nr * sizeof(*lens));
	for (; tables; tables &= tables - 1) {
		table = (uint32_t)__builtin_ctz(tables);
		parts = parts_of(g, table);
		for (i = 0; i < g->nr_parts[table]; i++) {
			sums[parts[i].block] ^= parts[i].sum;
			lens[parts[i].block] += parts[i].len;
		}
	}
	for (i = 0; i < nr; i++) {
		/* most are as long as the one before */
		if (lens[i] != len)
			tail = wfi_gpu_sums_tail(lens[i]);
		len = lens[i];
		sums[i] ^= tail;
	}
}
