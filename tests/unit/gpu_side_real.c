/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/device.h"
#include "tests/unit/gpu_side.h"
#include "weft_internal/util.h"

#define MAX 32u
#define POOL_BYTES (64u << 20)
#define GUARD 64u
#define GUARD_BYTE 0xc3

/* pinned host memory: pinning is slow, so it is done once */
static const struct wfi_cuda *cuda;
static uint8_t *pool;
static struct {
	size_t off;
	size_t len;
} blocks[MAX];
static size_t nr_blocks;

const char *gpu_side_missing(void)
{
	const char *why;

	cuda = wfi_cuda_load(&why);
	if (!cuda)
		return why;
	return wfi_gpu_image() ? NULL : "built without kernels: install nvcc, build anew";
}

int gpu_side_open(struct wfi_env *env, struct wfi_gpu **out)
{
	void *mem;
	int ret = wfi_gpu_open(env, cuda, 0, out);

	if (ret)
		return ret;
	ret = wfi_gpu_pin(*out, POOL_BYTES, &mem);
	if (ret)
		return ret;
	pool = mem;
	memset(pool, GUARD_BYTE, POOL_BYTES);
	return 0;
}

void gpu_side_close(struct wfi_gpu *gpu)
{
	wfi_gpu_unpin(gpu, pool);
	wfi_gpu_close(gpu);
}

int gpu_side_sync(struct wfi_gpu *gpu)
{
	int res = wfi_gpu_enter(gpu);

	if (!res) {
		res = cuda->cuCtxSynchronize();
		wfi_gpu_leave(gpu);
	}
	return res ? wfi_gpu_failed(gpu, "a kernel failed", res) : 0;
}

void *gpu_side_alloc(size_t len)
{
	const size_t off = nr_blocks ? wfi_align_up(blocks[nr_blocks - 1].off +
							    blocks[nr_blocks - 1].len + GUARD,
						    WFI_GPU_VEC)
				     : 0;

	assert_true(nr_blocks < MAX && off + len + GUARD <= POOL_BYTES);
	blocks[nr_blocks].off = off;
	blocks[nr_blocks++].len = len;
	return pool + off;
}

size_t gpu_side_mark(void)
{
	return nr_blocks;
}

void gpu_side_reset(size_t mark)
{
	uint8_t *end;

	while (nr_blocks > mark) {
		nr_blocks--;
		end = pool + blocks[nr_blocks].off + blocks[nr_blocks].len;
		for (unsigned i = 0; i < GUARD; i++)
			assert_int_equal(end[i], GUARD_BYTE);
		memset(pool + blocks[nr_blocks].off, GUARD_BYTE, blocks[nr_blocks].len);
	}
}
