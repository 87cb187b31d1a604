/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/gpu.h"
#include "weft_internal/gpu.h"

#define LIBRARY_PATH "LD_LIBRARY_PATH"

const struct wfi_cuda *cuda;
struct mock_cuda *mock;
struct test_node node;

static void (*release)(void);

void mock_release(void)
{
	release();
}

int test_gpu_load(void)
{
	const char *why = "a real one was found";
	void *lib, *sym;

	cuda = wfi_cuda_load(&why);
	lib = cuda ? dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD) : NULL;
	sym = lib ? dlsym(lib, "mock_cuda_release") : NULL;
	mock = sym ? dlsym(lib, "mock_cuda") : NULL;
	if (!mock) {
		printf("no mocked driver: %s\n", why);
		return 77;
	}
	memcpy(&release, &sym, sizeof(sym));
	test_gpu_enter(0);
	return 0;
}

int test_gpu_setup(void **state)
{
	test_node_init(&node, *state);
	test_node_start(&node);
	return 0;
}

int test_gpu_teardown(void **state)
{
	(void)state;
	test_node_fini(&node);
	return 0;
}

void test_gpu_start(struct test_node *n, const char *const sets[], const char *with)
{
	const char *path = getenv(LIBRARY_PATH);
	char keep[512];

	snprintf(keep, sizeof(keep), "%s", path ? path : "");
	test_node_init(n, sets);
	if (with)
		setenv("MOCK_CUDA", with, 1);
	else
		unsetenv(LIBRARY_PATH);
	test_node_start(n);
	unsetenv("MOCK_CUDA");
	setenv(LIBRARY_PATH, keep, 1);
}

void test_gpu_enter(int gpu)
{
	struct CUctx_st *ctx;

	test_must(!cuda->cuDevicePrimaryCtxRetain(&ctx, gpu));
	test_must(!cuda->cuCtxPushCurrent(ctx));
}

void test_gpu_leave(int gpu)
{
	struct CUctx_st *ctx;

	test_must(!cuda->cuCtxPopCurrent(&ctx));
	test_must(!cuda->cuDevicePrimaryCtxRelease(gpu));
}

char *test_gpu_alloc(uint64_t len)
{
	uint64_t mem;

	test_must(!cuda->cuMemAlloc(&mem, len));
	return (char *)(uintptr_t)mem;
}

void test_gpu_free(char *mem)
{
	test_must(!cuda->cuMemFree((uintptr_t)mem));
}

int test_gpu_reg(struct test_engine *e, char *mem, uint64_t len, uint32_t *region)
{
	const struct weft_region_opts opts = {
		.size = sizeof(opts),
		.addr = mem,
		.len = len,
		.fd = -1,
		.kind = WEFT_REGION_GPU,
	};

	return weft_region_reg(e->w, &opts, region);
}
