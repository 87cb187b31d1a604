/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - a GPU that is open */
#ifndef WFI_GPU_DEVICE_H
#define WFI_GPU_DEVICE_H

#include "gpu/cuda.h"
#include "gpu/error.h"
#include "weft_internal/gpu.h"
#include "weft_internal/gpu_kernels.h"

enum wfi_gpu_kernel {
	WFI_GPU_MOVE,
	WFI_GPU_NARROW,
	WFI_GPU_WIDEN,
	WFI_GPU_CRC,
	WFI_GPU_CRC_PARTS,
	WFI_GPU_KERNELS,
};

struct wfi_gpu_func {
	struct CUfunc_st *func;
	const char *name;
	unsigned threads; /* of a block */
	unsigned shared; /* bytes asked for at the launch */
	unsigned max_blocks; /* that run at a time */
};

struct wfi_gpu {
	struct wfi_env *env;
	const struct wfi_cuda *cuda;
	int ordinal;
	int dev;
	struct CUctx_st *_Atomic ctx; /* NULL: not there yet, or given up */
	_Atomic enum wfi_cuda_reach reach; /* the farthest of what failed so far */
	struct CUmod_st *module;
	bool flush; /* what devices have written is not seen before a flush */
	struct wfi_gpu_func kernels[WFI_GPU_KERNELS];
};

/* the first logs, once, what a call of the driver ended with. Return: as wfi_cuda_errno() */
int wfi_gpu_failed(struct wfi_gpu *gpu, const char *what, int res);
/* its context is lost, and nothing enters it any more: what was in there is left to its end, so
 * that the next wfi_gpu_open() gets another one. Context: as wfi_gpu_close() */
void wfi_gpu_give_up(struct wfi_gpu *gpu);

/* into the GPU's own context, which other code of this thread need not have. Return: a CUresult */
static inline int wfi_gpu_enter(const struct wfi_gpu *gpu)
{
	struct CUctx_st *ctx = gpu->ctx;

	return ctx ? gpu->cuda->cuCtxPushCurrent(ctx) : (int)WFI_CUDA_CONTEXT_DESTROYED;
}

static inline void wfi_gpu_leave(const struct wfi_gpu *gpu)
{
	struct CUctx_st *ctx;

	gpu->cuda->cuCtxPopCurrent(&ctx);
}

/* Return: whether each block can be moved in words of 16 bytes */
static inline bool wfi_gpu_side_even(const struct wfi_gpu_side *side)
{
	return !((side->base | side->stride) % WFI_GPU_VEC);
}

/**
 * wfi_gpu_launch - @nr_warps warps of a kernel, or as many as run at a time, which then take turns
 * @args: copied
 *
 * Return: 0; as wfi_cuda_errno(), logged
 */
int wfi_gpu_launch(struct wfi_gpu *gpu, enum wfi_gpu_kernel kernel, uint64_t nr_warps, void *args,
		   struct CUstream_st *stream);

/* what devices have written to its memory by now, kernels see that begin later. Context: .ctx is
 * entered. Return: a CUresult */
int wfi_gpu_flush(const struct wfi_gpu *gpu);

/* the kernels, as the driver loads them. Return: NULL: built without (gpu/kernels/none.c) */
const void *wfi_gpu_image(void);

#endif
