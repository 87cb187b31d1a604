/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

/* what the driver calls an argument that is wrong is here the caller's memory */
static int refused(int res, const char *what)
{
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_FOUND) {
		wfi_err("gpu: %s: there is no memory of a GPU's, or no longer", what);
		return -ESTALE;
	}
	wfi_err("gpu: %s: %s", what, wfi_cuda_why(res));
	return wfi_cuda_errno(res);
}

/* Return: a CUresult */
static int uuid_of(const struct wfi_cuda *cuda, uint64_t mem, struct wfi_cuda_uuid *out)
{
	int ordinal, dev;
	int res = cuda->cuPointerGetAttribute(&ordinal, WFI_CUDA_POINTER_ORDINAL, mem);

	if (!res)
		res = cuda->cuDeviceGet(&dev, ordinal);
	return res ? res : cuda->cuDeviceGetUuid(out, dev);
}

int wfi_gpu_export(const struct wfi_cuda *cuda, uint64_t addr, uint64_t len,
		   struct wfi_gpu_export *out)
{
	struct wfi_gpu_export e = { .len = len };
	struct wfi_cuda_ipc handle;
	struct wfi_cuda_uuid uuid;
	uint64_t base;
	size_t size;
	int res = cuda->cuMemGetAddressRange(&base, &size, addr);

	if (res)
		return refused(res, "a region");
	e.off = addr - base;
	if (!len || !wfi_range_ok(e.off, len, size)) {
		wfi_err("gpu: a region of %llu bytes is more than its allocation, which has %zu",
			(unsigned long long)len, size);
		return -EINVAL;
	}
	res = uuid_of(cuda, addr, &uuid);
	if (res)
		return refused(res, "a region");
	res = cuda->cuIpcGetMemHandle(&handle, base);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_SUPPORTED) {
		wfi_err("gpu: a region is of memory that has no CUDA IPC handle: use cudaMalloc() "
			"for it, not a pool or cuMemCreate()");
		return -EOPNOTSUPP;
	}
	if (res)
		return refused(res, "a region");
	memcpy(e.uuid, uuid.bytes, sizeof(e.uuid));
	memcpy(e.handle, handle.bytes, sizeof(e.handle));
	*out = e;
	return 0;
}

/* what the peer says of its allocation is not believed. Return: 0, -errno, logged */
static int check_size(struct wfi_gpu *gpu, uint64_t base, const struct wfi_gpu_export *e)
{
	uint64_t start;
	size_t size;
	int res = gpu->cuda->cuMemGetAddressRange(&start, &size, base);

	if (res)
		return refused(res, "a region of another process");
	if (wfi_range_ok(e->off, e->len, size))
		return 0;
	wfi_err("gpu %d: a region of another process is more than its allocation, which has %zu",
		gpu->ordinal, size);
	return -EINVAL;
}

/* in the GPU's context */
static int open_handle(struct wfi_gpu *gpu, const struct wfi_gpu_export *e,
		       struct wfi_gpu_region *out)
{
	struct wfi_cuda_ipc handle;
	struct wfi_cuda_uuid uuid;
	uint64_t base;
	int res = gpu->cuda->cuDeviceGetUuid(&uuid, gpu->dev), ret;

	if (!res && memcmp(uuid.bytes, e->uuid, sizeof(uuid.bytes))) {
		wfi_err("gpu %d: a region of another process is in the memory of another GPU",
			gpu->ordinal);
		return -EXDEV;
	}
	memcpy(handle.bytes, e->handle, sizeof(handle.bytes));
	if (!res)
		res = gpu->cuda->cuIpcOpenMemHandle(&base, handle, WFI_CUDA_IPC_LAZY_PEER);
	if (res == WFI_CUDA_INVALID_VALUE)
		res = WFI_CUDA_INVALID_HANDLE;
	if (res)
		return wfi_gpu_failed(gpu, "a region of another process", res);
	ret = check_size(gpu, base, e);
	if (ret) {
		gpu->cuda->cuIpcCloseMemHandle(base);
		return ret;
	}
	*out = (struct wfi_gpu_region){
		.gpu = gpu,
		.base = base,
		.addr = base + e->off,
		.len = e->len,
	};
	return 0;
}

int wfi_gpu_import(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, struct wfi_gpu_region *out)
{
	int res = wfi_gpu_enter(gpu), ret;

	if (res)
		return wfi_gpu_failed(gpu, "a region of another process", res);
	ret = open_handle(gpu, e, out);
	wfi_gpu_leave(gpu);
	return ret;
}

void wfi_gpu_region_close(struct wfi_gpu_region *region)
{
	struct wfi_gpu *gpu = region->gpu;

	if (!gpu || wfi_gpu_enter(gpu))
		return;
	gpu->cuda->cuIpcCloseMemHandle(region->base);
	wfi_gpu_leave(gpu);
	region->gpu = NULL;
}
