/* SPDX-License-Identifier: Apache-2.0 */
/* words.c - words in host memory that streams of this process wait for */
#include <errno.h>
#include <stdio.h>
#include "gpu/cuda.h"
#include "gpu/error.h"
#include "weft_internal/gpu_region.h"

/* Return: as wfi_cuda_errno(), with @why */
static int refused(char *why, int res)
{
	snprintf(why, WFI_GPU_WHY_MAX, "%s", wfi_cuda_why(res));
	return wfi_cuda_errno(res);
}

/* in the context. Return: a CUresult */
static int map(struct wfi_gpu_words *w, size_t len)
{
	int res = w->cuda->cuMemHostRegister(w->mem, len,
					     WFI_CUDA_HOST_PORTABLE | WFI_CUDA_HOST_MAPPED);

	if (res)
		return res;
	res = w->cuda->cuMemHostGetDevicePointer(&w->addr, w->mem, 0);
	if (res)
		w->cuda->cuMemHostUnregister(w->mem);
	return res;
}

int wfi_gpu_words_open(const struct wfi_cuda *cuda, uint64_t beside, void *mem, size_t len,
		       struct wfi_gpu_words *out, char *why)
{
	struct wfi_gpu_words w = { .cuda = cuda, .mem = mem };
	struct CUctx_st *ctx;
	int ordinal, res;

	int flush = 0;

	if (!cuda->cuStreamWaitValue32)
		return refused(why, WFI_CUDA_NOT_SUPPORTED);
	res = cuda->cuPointerGetAttribute(&ordinal, WFI_CUDA_POINTER_ORDINAL, beside);
	if (!res)
		res = cuda->cuDeviceGet(&w.dev, ordinal);
	if (!res)
		res = cuda->cuDeviceGetAttribute(&flush, WFI_CUDA_ATTR_WAIT_FLUSH, w.dev);
	if (!res)
		res = cuda->cuDevicePrimaryCtxRetain(&w.ctx, w.dev);
	if (res)
		return refused(why, res);
	w.flags = WFI_CUDA_WAIT_GEQ | (flush ? WFI_CUDA_WAIT_FLUSH : 0);
	res = cuda->cuCtxPushCurrent(w.ctx);
	if (!res) {
		res = map(&w, len);
		cuda->cuCtxPopCurrent(&ctx);
	}
	if (res) {
		cuda->cuDevicePrimaryCtxRelease(w.dev);
		return refused(why, res);
	}
	*out = w;
	return 0;
}

void wfi_gpu_words_close(struct wfi_gpu_words *w)
{
	const struct wfi_cuda *cuda = w->cuda;
	struct CUctx_st *ctx;

	if (!cuda->cuCtxPushCurrent(w->ctx)) {
		/* a stream may still be on its way to a wait: it must find the word there */
		cuda->cuCtxSynchronize();
		cuda->cuMemHostUnregister(w->mem);
		cuda->cuCtxPopCurrent(&ctx);
	}
	cuda->cuDevicePrimaryCtxRelease(w->dev);
}

int wfi_gpu_words_wait(const struct wfi_gpu_words *w, struct CUstream_st *stream, uint64_t word,
		       uint32_t value, char *why)
{
	int res = w->cuda->cuStreamWaitValue32(stream, word, value, w->flags);

	return res ? refused(why, res) : 0;
}
