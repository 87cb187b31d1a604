/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "driver.h"

#define VMM_GRANULARITY (2u << 20)

struct location {
	int type, id;
};

/* CUmemAllocationProp */
struct prop {
	int type, handles;
	struct location location;
	void *reserved;
	unsigned char flags[8];
};

/* CUmemAccessDesc */
struct access {
	struct location location;
	int flags;
};

static struct {
	int (*init)(unsigned flags);
	int (*device_get)(int *dev, int ordinal);
	int (*retain)(void **ctx, int dev);
	int (*push)(void *ctx);
	int (*sync)(void);
	int (*alloc)(uint64_t *mem, size_t len);
	int (*host_alloc)(void **mem, size_t len, unsigned flags);
	int (*copy)(uint64_t dst, uint64_t src, size_t len, void *stream);
	int (*stream_create)(void **stream, unsigned flags);
	int (*event_create)(void **event, unsigned flags);
	int (*event_record)(void *event, void *stream);
	int (*create)(uint64_t *handle, size_t len, const struct prop *prop, unsigned long long f);
	int (*reserve)(uint64_t *mem, size_t len, size_t align, uint64_t at, unsigned long long f);
	int (*map)(uint64_t mem, size_t len, size_t off, uint64_t handle, unsigned long long f);
	int (*set_access)(uint64_t mem, size_t len, const struct access *access, size_t nr);
} cuda;

static const struct {
	const char *name;
	void *to;
} symbols[] = {
	{ "cuInit", &cuda.init },
	{ "cuDeviceGet", &cuda.device_get },
	{ "cuDevicePrimaryCtxRetain", &cuda.retain },
	{ "cuCtxPushCurrent_v2", &cuda.push },
	{ "cuCtxSynchronize", &cuda.sync },
	{ "cuMemAlloc_v2", &cuda.alloc },
	{ "cuMemHostAlloc", &cuda.host_alloc },
	{ "cuMemcpyAsync", &cuda.copy },
	{ "cuStreamCreate", &cuda.stream_create },
	{ "cuEventCreate", &cuda.event_create },
	{ "cuEventRecord", &cuda.event_record },
	{ "cuMemCreate", &cuda.create },
	{ "cuMemAddressReserve", &cuda.reserve },
	{ "cuMemMap", &cuda.map },
	{ "cuMemSetAccess", &cuda.set_access },
};

int driver_load(void)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW), *ctx;
	int dev, res;

	for (size_t i = 0; lib && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *sym = dlsym(lib, symbols[i].name);

		if (!sym)
			lib = NULL;
		memcpy(symbols[i].to, &sym, sizeof(sym));
	}
	if (!lib) {
		printf("no GPU here: there is no libcuda.so.1, or an old one\n");
		return 77;
	}
	res = cuda.init(0);
	if (!res)
		res = cuda.device_get(&dev, 0);
	if (!res)
		res = cuda.retain(&ctx, dev);
	if (!res)
		res = cuda.push(ctx);
	if (res)
		printf("no GPU here: CUDA's driver says %d\n", res);
	return res ? 77 : 0;
}

uint64_t driver_alloc(size_t len, int vmm)
{
	const size_t bytes = (len + VMM_GRANULARITY - 1) / VMM_GRANULARITY * VMM_GRANULARITY;
	/* pinned memory of device 0, which file descriptors can stand for */
	const struct prop prop = { .type = 1, .handles = 1, .location = { 1, 0 } };
	const struct access access = { .location = { 1, 0 }, .flags = 3 };
	uint64_t mem = 0, handle;

	if (!vmm)
		return cuda.alloc(&mem, len) ? 0 : mem;
	if (cuda.create(&handle, bytes, &prop, 0) || cuda.reserve(&mem, bytes, 0, 0, 0) ||
	    cuda.map(mem, bytes, 0, handle, 0) || cuda.set_access(mem, bytes, &access, 1))
		return 0;
	return mem;
}

void *driver_host(size_t len)
{
	void *mem;

	/* for all contexts, and mapped */
	return cuda.host_alloc(&mem, len, 3) ? NULL : mem;
}

void *driver_stream(void)
{
	void *stream;

	/* one that stream 0 does not wait for */
	return cuda.stream_create(&stream, 1) ? NULL : stream;
}

int driver_read(void *dst, uint64_t src, size_t len, void *stream)
{
	int res = cuda.copy((uintptr_t)dst, src, len, stream);

	return res ? res : cuda.sync();
}

int driver_write(uint64_t dst, const void *src, size_t len, void **event)
{
	void *stream = driver_stream();
	/* without a time, and for other processes too */
	int res = stream ? cuda.event_create(event, 2 | 4) : 2;

	if (!res)
		res = cuda.copy(dst, (uintptr_t)src, len, stream);
	return res ? res : cuda.event_record(*event, stream);
}
