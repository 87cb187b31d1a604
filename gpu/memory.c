/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - memory of a GPU that is this process's own
 *
 * Addresses are kept for as much as it may grow to, and memory is mapped there part by part, each
 * of an allocation of its own: the driver unmaps none but whole ones. So what is there stays where
 * it is, whatever comes or goes behind it.
 */
#include <errno.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

static struct wfi_cuda_vmm_prop prop_of(const struct wfi_gpu *gpu)
{
	return (struct wfi_cuda_vmm_prop){
		.type = WFI_CUDA_VMM_PINNED,
		.location = { WFI_CUDA_VMM_DEVICE, gpu->dev },
	};
}

/* in the GPU's context. Return: a CUresult */
static int part_map(struct wfi_gpu_memory *m)
{
	const struct wfi_cuda *cuda = m->gpu->cuda;
	const struct wfi_cuda_vmm_prop prop = prop_of(m->gpu);
	const struct wfi_cuda_vmm_access access = {
		.location = prop.location,
		.flags = WFI_CUDA_VMM_READ_WRITE,
	};
	const uint64_t at = m->addr + m->len;
	uint64_t handle;
	int res = cuda->cuMemCreate(&handle, m->part, &prop, 0);

	if (res)
		return res;
	res = cuda->cuMemMap(at, m->part, 0, handle, 0);
	/* what is mapped holds on to it */
	cuda->cuMemRelease(handle);
	if (res)
		return res;
	res = cuda->cuMemSetAccess(at, m->part, &access, 1);
	if (res)
		cuda->cuMemUnmap(at, m->part);
	else
		m->len += m->part;
	return res;
}

void wfi_gpu_memory_trim(struct wfi_gpu_memory *m, uint64_t len)
{
	/* a mapping is the process's, and outlives a context that is lost */
	while (m->part && m->len > len) {
		m->len -= m->part;
		m->gpu->cuda->cuMemUnmap(m->addr + m->len, m->part);
	}
}

/* in the GPU's context. Return: a CUresult, with nothing changed */
static int grow(struct wfi_gpu_memory *m, uint64_t len)
{
	const uint64_t was = m->len;
	int res = 0;

	while (!res && m->len < len)
		res = part_map(m);
	if (res)
		wfi_gpu_memory_trim(m, was);
	return res;
}

int wfi_gpu_memory_grow(struct wfi_gpu_memory *m, uint64_t len)
{
	int res;

	if (!m->part)
		return -EOPNOTSUPP;
	if (len > m->max_len)
		return -EINVAL;
	res = wfi_gpu_enter(m->gpu);
	if (!res) {
		res = grow(m, wfi_align_up(len, m->part));
		wfi_gpu_leave(m->gpu);
	}
	return res ? wfi_gpu_failed(m->gpu, "no more memory for ourselves", res) : 0;
}

/* in the GPU's context. Return: a CUresult */
static int take_parts(struct wfi_gpu_memory *m, uint64_t len, uint64_t max_len, uint64_t part)
{
	const struct wfi_cuda *cuda = m->gpu->cuda;
	const struct wfi_cuda_vmm_prop prop = prop_of(m->gpu);
	size_t least;
	int res = cuda->cuMemGetAllocationGranularity(&least, &prop, WFI_CUDA_VMM_MINIMUM);

	if (res)
		return res;
	m->part = wfi_max(part, least);
	m->max_len = wfi_align_up(wfi_max(len, max_len), m->part);
	res = cuda->cuMemAddressReserve(&m->addr, m->max_len, 0, 0, 0);
	if (res)
		return res;
	res = grow(m, wfi_align_up(len, m->part));
	if (res)
		cuda->cuMemAddressFree(m->addr, m->max_len);
	return res;
}

/* the same, for ever */
static int take_whole(struct wfi_gpu_memory *m, uint64_t len)
{
	m->len = m->max_len = len;
	return m->gpu->cuda->cuMemAlloc(&m->addr, len);
}

static int take(struct wfi_gpu_memory *m, uint64_t len, uint64_t max_len, uint64_t part)
{
	int vmm, res = m->gpu->cuda->cuDeviceGetAttribute(&vmm, WFI_CUDA_ATTR_VMM, m->gpu->dev);

	if (res)
		return res;
	return vmm ? take_parts(m, len, max_len, part) : take_whole(m, len);
}

int wfi_gpu_memory_open(struct wfi_env *env, const struct wfi_cuda *cuda, const uint8_t uuid[16],
			uint64_t len, uint64_t max_len, uint64_t part, struct wfi_gpu_memory *out)
{
	struct wfi_gpu_memory m = { .gpu = NULL };
	struct wfi_gpu_info info;
	int res, ret;

	m.ordinal = wfi_gpu_find(cuda, uuid, &info);
	if (m.ordinal < 0)
		return m.ordinal;
	ret = wfi_gpu_open(env, cuda, m.ordinal, &m.gpu);
	if (ret)
		return ret;
	res = wfi_gpu_enter(m.gpu);
	if (!res) {
		res = take(&m, len, max_len, part);
		wfi_gpu_leave(m.gpu);
	}
	if (res) {
		ret = wfi_gpu_failed(m.gpu, "no memory for ourselves", res);
		wfi_gpu_close(m.gpu);
		return ret;
	}
	*out = m;
	return 0;
}

void wfi_gpu_memory_close(struct wfi_gpu_memory *m)
{
	if (!m->gpu)
		return;
	if (m->part) {
		wfi_gpu_memory_trim(m, 0);
		m->gpu->cuda->cuMemAddressFree(m->addr, m->max_len);
	} else if (!wfi_gpu_enter(m->gpu)) {
		/* a context that is lost takes all that was in it along */
		m->gpu->cuda->cuMemFree(m->addr);
		wfi_gpu_leave(m->gpu);
	}
	wfi_gpu_close(m->gpu);
	*m = (struct wfi_gpu_memory){ .gpu = NULL };
}
