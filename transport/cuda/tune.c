/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune.c - how small pieces are that a kernel moves faster than the copy engine
 *
 * Some pieces of each size go all ways by both, host memory pinned, until the event behind them
 * has come: that is what a post takes, launches included. The GPU is the engine's, too, and may be
 * busy: the best of some rounds counts.
 */
#include <errno.h>
#include "gpu/error.h"
#include "transport/cuda/cuda.h"
#include "weft_internal/log.h"

#define BYTES (2u << 20) /* of a round */
#define ROUNDS 3u
#define SIZE_FIRST (1u << 10)
#define SIZE_LAST (512u << 10)
#define PIECES_MAX 512u /* of a post */

struct trial {
	struct wfi_env *env;
	struct wfi_cuda_gpu *g;
	uint8_t *host;
	uint64_t mem;
	struct CUevent_st *event;
	enum wfi_cuda_way way;
	uint32_t size;
	uint32_t nr;
};

static void places(const struct trial *t, uint32_t i, uint64_t *dst, uint64_t *src)
{
	/* every second one: no neighbours */
	const uint64_t off = 2ull * i * t->size, host = (uintptr_t)t->host + off;

	*dst = t->way == WFI_CUDA_TO_HOST ? host : t->mem + off;
	*src = t->way == WFI_CUDA_TO_GPU ? host : t->mem + off;
	if (t->way == WFI_CUDA_WITHIN)
		*src += BYTES;
}

/* Return: as wfi_cuda_errno(), logged */
static int by_copies(const struct trial *t)
{
	uint64_t dst, src;
	uint32_t i;
	int res = 0;

	for (i = 0; i < t->nr && !res; i++) {
		places(t, i, &dst, &src);
		res = t->g->gpu->cuda->cuMemcpyAsync(dst, src, t->size, t->g->streams[t->way]);
	}
	return res ? wfi_gpu_failed(t->g->gpu, "a trial of copies", res) : 0;
}

static int by_kernel(const struct trial *t)
{
	struct wfi_gpu_table table = {
		.items = t->g->items,
		.max = WFI_CUDA_TABLES * WFI_CUDA_ITEMS,
	};
	uint64_t dst, src;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < t->nr && !ret; i++) {
		places(t, i, &dst, &src);
		ret = wfi_gpu_table_add(&table, src, dst, t->size);
	}
	return ret ? ret : wfi_gpu_move(t->g->gpu, &table, NULL, NULL, 0, t->g->streams[t->way]);
}

/* the shortest of some rounds. Return: 0, -errno, logged */
static int best_of(const struct trial *t, int (*run)(const struct trial *t), uint64_t *ns)
{
	const struct wfi_cuda *cuda = t->g->gpu->cuda;
	uint64_t start;
	unsigned i;
	int ret, res;

	*ns = UINT64_MAX;
	for (i = 0; i < ROUNDS; i++) {
		start = wfi_now(t->env);
		ret = run(t);
		if (ret)
			return ret;
		res = cuda->cuEventRecord(t->event, t->g->streams[t->way]);
		if (!res)
			res = cuda->cuEventSynchronize(t->event);
		if (res)
			return wfi_gpu_failed(t->g->gpu, "a trial of copies", res);
		*ns = wfi_min(*ns, wfi_now(t->env) - start);
	}
	return 0;
}

/* the first size from which on copies win. Return: 0, -errno, logged */
static int one_way(struct trial *t)
{
	uint64_t copies, kernel;
	int ret;

	t->g->small[t->way] = 0;
	for (t->size = SIZE_FIRST; t->size <= SIZE_LAST; t->size *= 2) {
		t->nr = wfi_min(BYTES / 2 / t->size, PIECES_MAX);
		ret = best_of(t, by_copies, &copies);
		if (!ret)
			ret = best_of(t, by_kernel, &kernel);
		if (ret)
			return ret;
		if (copies <= kernel)
			break;
		t->g->small[t->way] = 2ull * t->size;
	}
	return 0;
}

/* in the GPU's context, but for the pinned memory */
static int all_ways(struct trial *t)
{
	const struct wfi_cuda *cuda = t->g->gpu->cuda;
	int res, ret = 0;

	res = cuda->cuMemAlloc(&t->mem, 2ull * BYTES);
	if (!res)
		res = cuda->cuEventCreate(&t->event, WFI_CUDA_EVENT_NO_TIMING);
	if (res)
		ret = wfi_gpu_failed(t->g->gpu, "no trial of copies", res);
	for (t->way = 0; t->way < WFI_CUDA_WAYS && !ret; t->way++)
		ret = one_way(t);
	if (t->event)
		cuda->cuEventDestroy(t->event);
	if (t->mem)
		cuda->cuMemFree(t->mem);
	return ret;
}

int wfi_cuda_tune(struct wfi_env *env, struct wfi_cuda_gpu *g)
{
	struct trial t = { .env = env, .g = g };
	void *host;
	int ret, res;

	if (!wfi_gpu_has_kernels(g->gpu)) {
		wfi_warn_once("cuda: built without kernels: small pieces go by the copy engine, "
			      "one by one; build with nvcc");
		return 0;
	}
	ret = wfi_gpu_pin(g->gpu, BYTES, &host);
	if (ret)
		return ret;
	t.host = host;
	res = wfi_gpu_enter(g->gpu);
	if (res) {
		ret = wfi_gpu_failed(g->gpu, "no trial of copies", res);
	} else {
		ret = all_ways(&t);
		wfi_gpu_leave(g->gpu);
	}
	wfi_gpu_unpin(g->gpu, host);
	if (!ret)
		wfi_info("gpu %d: pieces under %llu KiB go to it by a kernel, under %llu KiB from "
			 "it, under %llu KiB within it; all others by the copy engine",
			 g->gpu->ordinal, (unsigned long long)g->small[WFI_CUDA_TO_GPU] >> 10,
			 (unsigned long long)g->small[WFI_CUDA_TO_HOST] >> 10,
			 (unsigned long long)g->small[WFI_CUDA_WITHIN] >> 10);
	return ret;
}
