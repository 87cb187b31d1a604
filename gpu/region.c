/* SPDX-License-Identifier: Apache-2.0 */
/* region.c - memory of another process, opened here */
#include <errno.h>
#include <string.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define THEIRS "a region of another process"

/* what this driver does not know as one of its own. Return: -errno, logged */
static int unknown(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, int res)
{
	int driver;

	if (!gpu->cuda->cuDriverGetVersion(&driver) && driver != e->driver) {
		wfi_err("gpu %d: what another process has passed is of a driver of CUDA %d.%d, "
			"this one has %d.%d: give both the same libcuda.so.1",
			gpu->ordinal, e->driver / 1000, e->driver % 1000 / 10, driver / 1000,
			driver % 1000 / 10);
		return -EPROTO;
	}
	return wfi_gpu_failed(gpu, THEIRS, res);
}

static int check_range(const struct wfi_gpu *gpu, const struct wfi_gpu_export *e, uint64_t size)
{
	if (e->len && wfi_range_ok(e->off, e->len, size))
		return 0;
	wfi_err("gpu %d: " THEIRS " is more than its allocation, which has %llu bytes",
		gpu->ordinal, (unsigned long long)size);
	return -EINVAL;
}

static int elsewhere(const struct wfi_gpu *gpu)
{
	wfi_err("gpu %d: " THEIRS " is in the memory of another GPU", gpu->ordinal);
	return -EXDEV;
}

/* ---- of cudaMalloc() ---- */

/* what the peer says of its allocation is not believed */
static int open_ipc(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, struct wfi_gpu_region *r)
{
	const struct wfi_cuda *cuda = gpu->cuda;
	struct wfi_cuda_ipc handle;
	uint64_t start;
	size_t size;
	int res, ret;

	memcpy(handle.bytes, e->handle, sizeof(handle.bytes));
	res = cuda->cuIpcOpenMemHandle(&r->base, handle, WFI_CUDA_IPC_LAZY_PEER);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_INVALID_HANDLE)
		return unknown(gpu, e, WFI_CUDA_INVALID_HANDLE);
	if (res)
		return wfi_gpu_failed(gpu, THEIRS, res);
	res = cuda->cuMemGetAddressRange(&start, &size, r->base);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_FOUND)
		res = WFI_CUDA_MAP_FAILED;
	ret = res ? wfi_gpu_failed(gpu, THEIRS, res) : check_range(gpu, e, size);
	if (ret)
		cuda->cuIpcCloseMemHandle(r->base);
	return ret;
}

/* ---- of cuMemCreate() ---- */

/* Return: a CUresult; what is mapped is that and no more */
static int map_vmm(struct wfi_gpu *gpu, uint64_t handle, uint64_t size, uint64_t *out)
{
	const struct wfi_cuda *cuda = gpu->cuda;
	const struct wfi_cuda_vmm_access access = {
		.location = { WFI_CUDA_VMM_DEVICE, gpu->dev },
		.flags = WFI_CUDA_VMM_READ_WRITE,
	};
	uint64_t base;
	int res = cuda->cuMemAddressReserve(&base, size, 0, 0, 0);

	if (res)
		return res;
	res = cuda->cuMemMap(base, size, 0, handle, 0);
	if (res)
		goto err_reserved;
	res = cuda->cuMemSetAccess(base, size, &access, 1);
	if (res)
		goto err_mapped;
	*out = base;
	return 0;

err_mapped:
	cuda->cuMemUnmap(base, size);
err_reserved:
	cuda->cuMemAddressFree(base, size);
	return res;
}

static int open_handle(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, uint64_t handle,
		       struct wfi_gpu_region *r)
{
	struct wfi_cuda_vmm_prop prop;
	int res = gpu->cuda->cuMemGetAllocationPropertiesFromHandle(&prop, handle);

	if (!res && (prop.location.type != WFI_CUDA_VMM_DEVICE || prop.location.id != gpu->dev))
		return elsewhere(gpu);
	/* the driver maps no more than there is, so that a size that lies is refused here */
	if (!res)
		res = map_vmm(gpu, handle, e->size, &r->base);
	if (res == WFI_CUDA_INVALID_VALUE) {
		wfi_err("gpu %d: " THEIRS " is in an allocation that is not of %llu bytes, as it "
			"says",
			gpu->ordinal, (unsigned long long)e->size);
		return -EINVAL;
	}
	return res ? wfi_gpu_failed(gpu, THEIRS, res) : 0;
}

static int open_vmm(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, int fd,
		    struct wfi_gpu_region *r)
{
	const struct wfi_cuda *cuda = gpu->cuda;
	uint64_t handle;
	int res, ret = check_range(gpu, e, e->size);

	if (ret)
		return ret;
	if (fd < 0) {
		wfi_err("gpu %d: " THEIRS " came without its descriptor", gpu->ordinal);
		return -EBADF;
	}
	res = cuda->cuMemImportFromShareableHandle(&handle, (void *)(uintptr_t)fd, WFI_CUDA_VMM_FD);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_INVALID_HANDLE ||
	    res == WFI_CUDA_OPERATING_SYSTEM) {
		ret = unknown(gpu, e, WFI_CUDA_INVALID_HANDLE);
		return ret == -ESTALE ? -EBADF : ret;
	}
	if (res)
		return wfi_gpu_failed(gpu, THEIRS, res);
	ret = open_handle(gpu, e, handle, r);
	/* what is mapped holds on to it */
	cuda->cuMemRelease(handle);
	r->size = e->size;
	return ret;
}

/* ---- both ---- */

/* in the GPU's context */
static int open_region(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, int fd,
		       struct wfi_gpu_region *out)
{
	struct wfi_gpu_region r = { .gpu = gpu, .kind = e->kind, .len = e->len };
	struct wfi_cuda_uuid uuid;
	int res = gpu->cuda->cuDeviceGetUuid(&uuid, gpu->dev), ret;

	if (res)
		return wfi_gpu_failed(gpu, THEIRS, res);
	if (memcmp(uuid.bytes, e->uuid, sizeof(uuid.bytes)))
		return elsewhere(gpu);
	if (e->kind == WFI_GPU_EXPORT_IPC) {
		ret = open_ipc(gpu, e, &r);
	} else if (e->kind == WFI_GPU_EXPORT_VMM) {
		ret = open_vmm(gpu, e, fd, &r);
	} else {
		wfi_err("gpu %d: " THEIRS " is of no known kind", gpu->ordinal);
		ret = -EINVAL;
	}
	if (ret)
		return ret;
	r.addr = r.base + e->off;
	*out = r;
	return 0;
}

int wfi_gpu_import(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, int fd,
		   struct wfi_gpu_region *out)
{
	int res = wfi_gpu_enter(gpu), ret;

	if (res)
		return wfi_gpu_failed(gpu, THEIRS, res);
	ret = open_region(gpu, e, fd, out);
	wfi_gpu_leave(gpu);
	return ret;
}

int wfi_gpu_region_here(struct wfi_gpu *gpu, const struct wfi_gpu_export *e,
			struct wfi_gpu_region *out)
{
	uint64_t base;
	size_t size;
	int ordinal, res = wfi_gpu_enter(gpu);

	if (res)
		return wfi_gpu_failed(gpu, "a region", res);
	res = gpu->cuda->cuMemGetAddressRange(&base, &size, e->addr);
	if (!res)
		res = gpu->cuda->cuPointerGetAttribute(&ordinal, WFI_CUDA_POINTER_ORDINAL, e->addr);
	wfi_gpu_leave(gpu);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_FOUND)
		res = WFI_CUDA_MAP_FAILED;
	if (res)
		return wfi_gpu_failed(gpu, "a region", res);
	if (ordinal != gpu->ordinal)
		return elsewhere(gpu);
	if (!e->len || !wfi_range_ok(e->addr - base, e->len, size)) {
		wfi_err("gpu %d: a region is more than its allocation", gpu->ordinal);
		return -EINVAL;
	}
	*out = (struct wfi_gpu_region){ .gpu = gpu, .addr = e->addr, .len = e->len };
	return 0;
}

void wfi_gpu_region_close(struct wfi_gpu_region *region)
{
	struct wfi_gpu *gpu = region->gpu;

	region->gpu = NULL;
	if (!gpu || !region->kind)
		return;
	/* a mapping is the process's, and outlives a context that is lost */
	if (region->kind == WFI_GPU_EXPORT_VMM) {
		gpu->cuda->cuMemUnmap(region->base, region->size);
		gpu->cuda->cuMemAddressFree(region->base, region->size);
	} else if (!wfi_gpu_enter(gpu)) {
		gpu->cuda->cuIpcCloseMemHandle(region->base);
		wfi_gpu_leave(gpu);
	}
}

/* ---- events ---- */

int wfi_gpu_event_import(struct wfi_gpu *gpu, const struct wfi_gpu_export *e,
			 struct CUevent_st **out)
{
	struct wfi_cuda_ipc_event handle;
	int res = wfi_gpu_enter(gpu);

	if (!res) {
		memcpy(handle.bytes, e->handle, sizeof(handle.bytes));
		res = gpu->cuda->cuIpcOpenEventHandle(out, handle);
		wfi_gpu_leave(gpu);
	}
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_INVALID_HANDLE ||
	    res == WFI_CUDA_MAP_FAILED)
		return unknown(gpu, e, WFI_CUDA_INVALID_HANDLE);
	return res ? wfi_gpu_failed(gpu, "an event of another process", res) : 0;
}

void wfi_gpu_event_close(struct wfi_gpu *gpu, struct CUevent_st *event)
{
	if (wfi_gpu_enter(gpu))
		return;
	gpu->cuda->cuEventDestroy(event);
	wfi_gpu_leave(gpu);
}
