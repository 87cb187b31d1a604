/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define THREADS 256
#define CRC_THREADS 1024
#define CRC_SHARED (128u << 10)
#define CRC_SHARED_SMALL (32u << 10)
#define CRC_SHARED_STATIC (4u << 10)

int wfi_gpu_failed(struct wfi_gpu *gpu, const char *what, int res)
{
	const enum wfi_cuda_reach reach = wfi_cuda_reach(res);

	if (reach > gpu->reach)
		gpu->reach = reach;
	wfi_err("gpu %d: %s: %s", gpu->ordinal, what, wfi_cuda_why(res));
	return wfi_cuda_errno(res);
}

/* ---- kernels ---- */

static void name_kernels(struct wfi_gpu *gpu, int max_shared)
{
	const bool small = max_shared < (int)(CRC_SHARED + CRC_SHARED_STATIC);

	gpu->kernels[WFI_GPU_MOVE] =
		(struct wfi_gpu_func){ .name = "weft_move", .threads = THREADS };
	gpu->kernels[WFI_GPU_NARROW] =
		(struct wfi_gpu_func){ .name = "weft_narrow", .threads = THREADS };
	gpu->kernels[WFI_GPU_WIDEN] =
		(struct wfi_gpu_func){ .name = "weft_widen", .threads = THREADS };
	gpu->kernels[WFI_GPU_CRC] = (struct wfi_gpu_func){
		.name = small ? "weft_crc32c_small" : "weft_crc32c",
		.threads = CRC_THREADS,
		.shared = small ? CRC_SHARED_SMALL : CRC_SHARED,
	};
	gpu->kernels[WFI_GPU_CRC_PARTS] = gpu->kernels[WFI_GPU_CRC];
	gpu->kernels[WFI_GPU_CRC_PARTS].name = small ? "weft_crc32c_parts_small"
						     : "weft_crc32c_parts";
}

/* Return: a CUresult */
static int find_kernel(struct wfi_gpu *gpu, struct wfi_gpu_func *f, int nr_sm)
{
	const struct wfi_cuda *cuda = gpu->cuda;
	int blocks = 0, res;

	res = cuda->cuModuleGetFunction(&f->func, gpu->module, f->name);
	if (!res && f->shared)
		res = cuda->cuFuncSetAttribute(f->func, WFI_CUDA_FUNC_SHARED, (int)f->shared);
	if (!res)
		res = cuda->cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f->func,
									(int)f->threads, f->shared);
	if (!res && blocks < 1)
		res = WFI_CUDA_LAUNCH_RESOURCES;
	f->max_blocks = (unsigned)(blocks * nr_sm);
	return res;
}

/* in our context. Return: a CUresult */
static int load_kernels(struct wfi_gpu *gpu)
{
	const struct wfi_cuda *cuda = gpu->cuda;
	int max_shared, nr_sm, res;
	unsigned i;

	res = cuda->cuDeviceGetAttribute(&max_shared, WFI_CUDA_ATTR_SHARED, gpu->dev);
	if (!res)
		res = cuda->cuDeviceGetAttribute(&nr_sm, WFI_CUDA_ATTR_NR_SM, gpu->dev);
	if (!res)
		res = cuda->cuModuleLoadData(&gpu->module, wfi_gpu_image());
	if (res)
		return res;
	name_kernels(gpu, max_shared);
	for (i = 0; i < WFI_GPU_KERNELS && !res; i++)
		res = find_kernel(gpu, &gpu->kernels[i], nr_sm);
	return res;
}

/* Return: a CUresult */
static int start(struct wfi_gpu *gpu)
{
	int res = gpu->cuda->cuDeviceGet(&gpu->dev, gpu->ordinal), ordering = 0;
	struct CUctx_st *ctx;

	if (!res)
		res = gpu->cuda->cuDeviceGetAttribute(&ordering, WFI_CUDA_ATTR_ORDERING, gpu->dev);
	gpu->flush = ordering < WFI_CUDA_FLUSH_OWNER && gpu->cuda->cuFlushGPUDirectRDMAWrites;
	if (!res)
		res = gpu->cuda->cuDevicePrimaryCtxRetain(&ctx, gpu->dev);
	if (res)
		return res;
	gpu->ctx = ctx;
	res = wfi_gpu_enter(gpu);
	if (res)
		return res;
	res = wfi_gpu_image() ? load_kernels(gpu) : 0;
	wfi_gpu_leave(gpu);
	return res;
}

static int without_kernels(int ordinal)
{
	wfi_err("gpu %d: built without kernels: install nvcc, build anew with -Dnvcc=enabled",
		ordinal);
	return -EOPNOTSUPP;
}

int wfi_gpu_open(struct wfi_env *env, const struct wfi_cuda *cuda, int ordinal,
		 struct wfi_gpu **out)
{
	return wfi_gpu_image() ? wfi_gpu_open_any(env, cuda, ordinal, out)
			       : without_kernels(ordinal);
}

int wfi_gpu_open_any(struct wfi_env *env, const struct wfi_cuda *cuda, int ordinal,
		     struct wfi_gpu **out)
{
	struct wfi_gpu *gpu = wfi_alloc(env, sizeof(*gpu));
	int res, ret;

	if (!gpu)
		return -ENOMEM;
	gpu->env = env;
	gpu->cuda = cuda;
	gpu->ordinal = ordinal;
	res = start(gpu);
	if (res) {
		ret = wfi_gpu_failed(gpu, "can't be opened", res);
		wfi_gpu_close(gpu);
		return ret;
	}
	*out = gpu;
	return 0;
}

bool wfi_gpu_has_kernels(const struct wfi_gpu *gpu)
{
	return gpu->module;
}

void wfi_gpu_give_up(struct wfi_gpu *gpu)
{
	/* a context that is lost takes all that was in it along */
	if (gpu->module && !wfi_gpu_enter(gpu)) {
		gpu->cuda->cuModuleUnload(gpu->module);
		wfi_gpu_leave(gpu);
	}
	gpu->module = NULL;
	if (gpu->ctx)
		gpu->cuda->cuDevicePrimaryCtxRelease(gpu->dev);
	gpu->ctx = NULL;
}

void wfi_gpu_close(struct wfi_gpu *gpu)
{
	if (!gpu)
		return;
	wfi_gpu_give_up(gpu);
	wfi_free(gpu->env, gpu, sizeof(*gpu));
}

int wfi_gpu_launch(struct wfi_gpu *gpu, enum wfi_gpu_kernel kernel, uint64_t nr_warps, void *args,
		   struct CUstream_st *stream)
{
	const struct wfi_gpu_func *f = &gpu->kernels[kernel];
	const unsigned warps = f->threads / WFI_GPU_WARP;
	const unsigned grid = (unsigned)wfi_min((nr_warps + warps - 1) / warps, f->max_blocks);
	void *params[] = { args };
	int res;

	if (!gpu->module)
		return without_kernels(gpu->ordinal);
	res = wfi_gpu_enter(gpu);
	if (!res) {
		res = gpu->cuda->cuLaunchKernel(f->func, grid, 1, 1, f->threads, 1, 1, f->shared,
						stream, params, NULL);
		wfi_gpu_leave(gpu);
	}
	return res ? wfi_gpu_failed(gpu, f->name, res) : 0;
}

int wfi_gpu_flush(const struct wfi_gpu *gpu)
{
	return gpu->flush ? gpu->cuda->cuFlushGPUDirectRDMAWrites(WFI_CUDA_FLUSH_CURRENT_CTX,
								  WFI_CUDA_FLUSH_ALL)
			  : 0;
}

/* ---- pinned memory ---- */

int wfi_gpu_pin(struct wfi_gpu *gpu, size_t len, void **out)
{
	int res = wfi_gpu_enter(gpu);

	if (!res) {
		res = gpu->cuda->cuMemHostAlloc(out, len,
						WFI_CUDA_HOST_PORTABLE | WFI_CUDA_HOST_MAPPED);
		wfi_gpu_leave(gpu);
	}
	return res ? wfi_gpu_failed(gpu, "no pinned host memory", res) : 0;
}

void wfi_gpu_unpin(struct wfi_gpu *gpu, void *mem)
{
	if (!mem || wfi_gpu_enter(gpu))
		return;
	gpu->cuda->cuMemFreeHost(mem);
	wfi_gpu_leave(gpu);
}
