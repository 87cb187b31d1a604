/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "perf/gpu_rig.h"

#define TOTAL (1ull << 30)
#define TOTAL_QUICK (4ull << 20)
#define PEER_THREADS 1024
#define PEER_BLOCKS_SM 2 /* of each multiprocessor */

int wfi_gpu_rig_check(int res, const char *what)
{
	return res ? wfi_perf_fail(wfi_cuda_errno(res), "gpu: %s: %s", what, wfi_cuda_why(res)) : 0;
}

int wfi_gpu_rig_wait(struct wfi_gpu_rig *rig)
{
	int res = rig->cuda->cuEventRecord(rig->end, rig->stream);

	if (!res)
		res = rig->cuda->cuEventSynchronize(rig->end);
	return wfi_gpu_rig_check(res, "waiting");
}

int wfi_gpu_rig_launch(struct wfi_gpu_rig *rig, enum wfi_gpu_peer_kernel kernel, void **params)
{
	return wfi_gpu_rig_check(rig->cuda->cuLaunchKernel(rig->peers[kernel], rig->blocks, 1, 1,
							   PEER_THREADS, 1, 1, 0, rig->stream,
							   params, NULL),
				 "a peer's kernel");
}

/* Return: a CUresult */
static int open_peers(struct wfi_gpu_rig *rig)
{
	static const char *const names[] = {
		[WFI_GPU_PEER_EMPTY] = "peer_empty",
		[WFI_GPU_PEER_READ] = "peer_read",
		[WFI_GPU_PEER_HALVE] = "peer_halve",
		[WFI_GPU_PEER_DOUBLE] = "peer_double",
	};
	int nr_sm, res;
	unsigned i;

	res = rig->cuda->cuDeviceGetAttribute(&nr_sm, WFI_CUDA_ATTR_NR_SM, rig->gpu->dev);
	if (!res)
		res = rig->cuda->cuModuleLoadData(&rig->module, wfi_gpu_rig_image());
	for (i = 0; i < WFI_GPU_PEER_NR && !res; i++)
		res = rig->cuda->cuModuleGetFunction(&rig->peers[i], rig->module, names[i]);
	rig->blocks = (unsigned)(PEER_BLOCKS_SM * nr_sm);
	return res;
}

/* Return: a CUresult */
static int open_stream(struct wfi_gpu_rig *rig)
{
	int res = rig->cuda->cuStreamCreate(&rig->stream, WFI_CUDA_STREAM_NON_BLOCKING);

	if (!res)
		res = rig->cuda->cuEventCreate(&rig->start, 0);
	if (!res)
		res = rig->cuda->cuEventCreate(&rig->end, 0);
	return res;
}

static int open_memory(struct wfi_gpu_rig *rig)
{
	const uint64_t nr = rig->total / WFI_GPU_RIG_PIECE;
	void *host, *back, *index;
	int ret, res;

	ret = wfi_gpu_pin(rig->gpu, rig->total, &host);
	if (ret)
		return ret;
	rig->host = host;
	ret = wfi_gpu_pin(rig->gpu, rig->total, &back);
	if (ret)
		return ret;
	rig->back = back;
	ret = wfi_gpu_pin(rig->gpu, nr * sizeof(*rig->index), &index);
	if (ret)
		return ret;
	rig->index = index;
	res = rig->cuda->cuMemAlloc(&rig->src, rig->total);
	if (!res)
		res = rig->cuda->cuMemAlloc(&rig->dst, rig->total);
	if (res)
		return wfi_gpu_rig_check(res, "memory");
	/* bytes as of numbers about 1, and none like the other: what is all zeros may go faster */
	for (uint64_t i = 0; i < rig->total / 8; i++)
		((uint64_t *)rig->host)[i] = (wfi_perf_rand(i) & 0x81ff81ff81ff81ff) |
					     0x3c003c003c003c00;
	res = rig->cuda->cuMemcpyAsync(rig->src, (uintptr_t)rig->host, rig->total, rig->stream);
	return res ? wfi_gpu_rig_check(res, "filling memory") : wfi_gpu_rig_wait(rig);
}

int wfi_gpu_rig_open(struct wfi_gpu_rig *rig, const struct wfi_perf *p)
{
	const char *why;
	int ret;

	*rig = (struct wfi_gpu_rig){ .p = p, .total = p->quick ? TOTAL_QUICK : TOTAL };
	rig->cuda = wfi_cuda_load(&why);
	if (!rig->cuda)
		return wfi_perf_fail(-EOPNOTSUPP, "gpu: %s", why);
	ret = wfi_env_real_init(&rig->env);
	if (!ret)
		ret = wfi_gpu_open(&rig->env, rig->cuda, 0, &rig->gpu);
	if (ret)
		return ret;
	ret = wfi_gpu_rig_check(wfi_gpu_enter(rig->gpu), "its context");
	if (!ret)
		ret = wfi_gpu_rig_check(open_peers(rig), "peers' kernels");
	if (!ret)
		ret = wfi_gpu_rig_check(open_stream(rig), "a stream");
	return ret ? ret : open_memory(rig);
}

void wfi_gpu_rig_close(struct wfi_gpu_rig *rig)
{
	const struct wfi_cuda *cuda = rig->cuda;

	if (!rig->gpu)
		return;
	if (rig->src)
		cuda->cuMemFree(rig->src);
	if (rig->dst)
		cuda->cuMemFree(rig->dst);
	wfi_gpu_unpin(rig->gpu, rig->host);
	wfi_gpu_unpin(rig->gpu, rig->back);
	wfi_gpu_unpin(rig->gpu, rig->index);
	if (rig->start)
		cuda->cuEventDestroy(rig->start);
	if (rig->end)
		cuda->cuEventDestroy(rig->end);
	if (rig->stream)
		cuda->cuStreamDestroy(rig->stream);
	if (rig->module)
		cuda->cuModuleUnload(rig->module);
	wfi_gpu_leave(rig->gpu);
	wfi_gpu_close(rig->gpu);
}
