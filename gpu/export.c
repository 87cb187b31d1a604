/* SPDX-License-Identifier: Apache-2.0 */
/* export.c - memory of this process, on its way to another */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "gpu/cuda.h"
#include "gpu/error.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/util.h"

/* the context of a range. @dev: whose primary context is retained for it; -1: none */
struct home {
	const struct wfi_cuda *cuda;
	struct wfi_cuda_uuid uuid;
	int dev;
};

__attribute__((format(printf, 3, 4))) static int no(char *why, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, WFI_GPU_WHY_MAX, fmt, ap);
	va_end(ap);
	return ret;
}

/* what the driver calls an argument that is wrong is here the caller's memory */
static int refused(char *why, int res)
{
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_FOUND)
		return no(why, -ESTALE,
			  "there is no memory of a GPU's at this address, or no "
			  "longer");
	return no(why, wfi_cuda_errno(res), "%s", wfi_cuda_why(res));
}

/* into the context that the memory was made in; that of cuMemCreate() has none. Return: a CUresult
 */
static int enter(struct home *h, uint64_t addr)
{
	const struct wfi_cuda *cuda = h->cuda;
	struct CUctx_st *ctx = NULL;
	int ordinal, dev, res;

	h->dev = -1;
	res = cuda->cuPointerGetAttribute(&ordinal, WFI_CUDA_POINTER_ORDINAL, addr);
	if (!res)
		res = cuda->cuDeviceGet(&dev, ordinal);
	if (!res)
		res = cuda->cuDeviceGetUuid(&h->uuid, dev);
	if (res)
		return res;
	if (cuda->cuPointerGetAttribute(&ctx, WFI_CUDA_POINTER_CONTEXT, addr) || !ctx) {
		res = cuda->cuDevicePrimaryCtxRetain(&ctx, dev);
		if (res)
			return res;
		h->dev = dev;
	}
	res = cuda->cuCtxPushCurrent(ctx);
	if (res && h->dev >= 0)
		cuda->cuDevicePrimaryCtxRelease(h->dev);
	return res;
}

static void leave(struct home *h)
{
	struct CUctx_st *ctx;

	h->cuda->cuCtxPopCurrent(&ctx);
	if (h->dev >= 0)
		h->cuda->cuDevicePrimaryCtxRelease(h->dev);
}

/* memory of cuMemCreate(): a descriptor. Return: 0, -errno with @why */
static int export_vmm(const struct wfi_cuda *cuda, uint64_t base, int *fd, char *why)
{
	uint64_t handle;
	int res = cuda->cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)base);

	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_SUPPORTED)
		return no(why, -EOPNOTSUPP,
			  "memory of a pool can't be had by another process: use cudaMalloc(), or "
			  "cuMemCreate() with handles that are file descriptors");
	if (res)
		return refused(why, res);
	res = cuda->cuMemExportToShareableHandle(fd, handle, WFI_CUDA_VMM_FD, 0);
	cuda->cuMemRelease(handle);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_SUPPORTED)
		return no(why, -EOPNOTSUPP,
			  "this memory of cuMemCreate() has no file descriptor: create it with "
			  "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR");
	return res ? refused(why, res) : 0;
}

/* in the context of the memory */
static int export_range(struct home *h, struct wfi_gpu_export *e, int *fd, char *why)
{
	const struct wfi_cuda *cuda = h->cuda;
	struct wfi_cuda_ipc handle;
	uint64_t base;
	size_t size;
	int res = cuda->cuMemGetAddressRange(&base, &size, e->addr);

	if (!res)
		res = cuda->cuDriverGetVersion(&e->driver);
	if (res)
		return refused(why, res);
	e->off = e->addr - base;
	e->size = size;
	if (!e->len || !wfi_range_ok(e->off, e->len, size))
		return no(why, -EINVAL,
			  "%llu bytes from there on are more than the allocation, which ends after "
			  "%llu: register each allocation on its own",
			  (unsigned long long)e->len, (unsigned long long)(size - e->off));
	res = cuda->cuIpcGetMemHandle(&handle, base);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_SUPPORTED) {
		e->kind = WFI_GPU_EXPORT_VMM;
		return export_vmm(cuda, base, fd, why);
	}
	if (res)
		return refused(why, res);
	e->kind = WFI_GPU_EXPORT_IPC;
	memcpy(e->handle, handle.bytes, sizeof(e->handle));
	return 0;
}

int wfi_gpu_export(const struct wfi_cuda *cuda, uint64_t addr, uint64_t len,
		   struct wfi_gpu_export *out, int *fd, char *why)
{
	struct wfi_gpu_export e = { .addr = addr, .len = len };
	struct home home = { .cuda = cuda };
	int file = -1, res = enter(&home, addr), ret;

	if (res)
		return refused(why, res);
	ret = export_range(&home, &e, &file, why);
	leave(&home);
	if (ret)
		return ret;
	memcpy(e.uuid, home.uuid.bytes, sizeof(e.uuid));
	*out = e;
	*fd = file;
	return 0;
}

int wfi_gpu_dmabuf(const struct wfi_cuda *cuda, uint64_t addr, uint64_t len, int *fd, uint64_t *off,
		   char *why)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = addr & ~(page - 1);
	struct home home = { .cuda = cuda };
	uint64_t end;
	int res;

	if (!cuda->cuMemGetHandleForAddressRange)
		return no(why, -EOPNOTSUPP, "the driver is older than CUDA 11.7");
	if (!len || wfi_add_overflows(addr, len, &end) || wfi_add_overflows(end, page - 1, &end))
		return no(why, -EINVAL, "the range has no bytes, or ends behind the last");
	res = enter(&home, addr);
	if (res)
		return refused(why, res);
	res = cuda->cuMemGetHandleForAddressRange(fd, first, (end & ~(page - 1)) - first,
						  WFI_CUDA_RANGE_DMABUF, 0);
	leave(&home);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_NOT_SUPPORTED)
		return no(why, -EOPNOTSUPP, "the driver has no dma-buf of this memory");
	if (res)
		return refused(why, res);
	*off = addr - first;
	return 0;
}

int wfi_gpu_event_export(const struct wfi_cuda *cuda, struct CUevent_st *event, uint64_t addr,
			 struct wfi_gpu_export *out, char *why)
{
	struct wfi_gpu_export e = { .kind = WFI_GPU_EXPORT_EVENT, .addr = (uintptr_t)event };
	struct home home = { .cuda = cuda };
	struct wfi_cuda_ipc_event handle;
	int res = enter(&home, addr);

	if (res)
		return refused(why, res);
	res = cuda->cuIpcGetEventHandle(&handle, event);
	if (!res)
		res = cuda->cuDriverGetVersion(&e.driver);
	leave(&home);
	if (res == WFI_CUDA_INVALID_VALUE || res == WFI_CUDA_INVALID_HANDLE ||
	    res == WFI_CUDA_NOT_SUPPORTED)
		return no(why, -EOPNOTSUPP,
			  "no other process can have this event: create it with "
			  "CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING");
	if (res)
		return refused(why, res);
	memcpy(e.uuid, home.uuid.bytes, sizeof(e.uuid));
	memcpy(e.handle, handle.bytes, sizeof(e.handle));
	*out = e;
	return 0;
}
