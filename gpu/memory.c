/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - memory of a GPU that is this process's own */
#include "gpu/device.h"
#include "gpu/error.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"

int wfi_gpu_memory_open(struct wfi_env *env, const struct wfi_cuda *cuda, const uint8_t uuid[16],
			uint64_t len, struct wfi_gpu_memory *out)
{
	struct wfi_gpu_memory m = { .len = len };
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
		res = cuda->cuMemAlloc(&m.addr, len);
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
	/* a context that is lost takes all that was in it along */
	if (!wfi_gpu_enter(m->gpu)) {
		m->gpu->cuda->cuMemFree(m->addr);
		wfi_gpu_leave(m->gpu);
	}
	wfi_gpu_close(m->gpu);
	*m = (struct wfi_gpu_memory){ .gpu = NULL };
}
