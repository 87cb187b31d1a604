/* SPDX-License-Identifier: Apache-2.0 */
/* memory of a GPU that is this process's own, and gets more or less */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "tests/unit/cuda_rig.h"
#include "weft_internal/gpu_region.h"

#define PART (2ull << 20)

static const uint8_t first[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };

static void test_memory(void **state)
{
	static const uint8_t none[16] = { 77 };
	struct rig *r = *state;
	struct wfi_env *env = &r->env;
	const struct wfi_cuda *driver = r->cuda;
	struct wfi_gpu_memory m = { .gpu = NULL };
	const int holds = mock_cuda_held(), refs = mock_cuda_refs();

	assert_int_equal(wfi_gpu_memory_open(env, driver, none, PART, PART, PART, &m), -ENODEV);
	assert_int_equal(wfi_gpu_memory_open(env, driver, first, MOCK_CUDA_BYTES + 1,
					     MOCK_CUDA_BYTES, 1ull << 30, &m),
			 -ENOMEM);
	mock_cuda.no_kernels = true;
	assert_int_equal(wfi_gpu_memory_open(env, driver, first, PART, PART, PART, &m),
			 -EOPNOTSUPP);
	assert_non_null(strstr(said, "built without kernels"));
	mock_cuda.no_kernels = false;
	mock_cuda.fail_call = "cuCtxPushCurrent";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_FAILED;
	assert_int_equal(wfi_gpu_memory_open(env, driver, first, PART, PART, PART, &m), -EIO);
	mock_cuda.fail_call = NULL;
	assert_null(m.gpu);
	assert_int_equal(mock_cuda_refs(), refs);
	assert_int_equal(mock_cuda_held(), holds);
	assert_int_equal(wfi_gpu_memory_open(env, driver, first, 1, 0, 4096, &m), 0);
	assert_int_equal(m.ordinal, 0);
	/* what a GPU gives at least */
	assert_int_equal(m.len, PART);
	assert_int_equal(m.max_len, PART);
	memset(at(m.addr), 1, m.len);
	wfi_gpu_memory_close(&m);
	wfi_gpu_memory_close(&m);
	assert_int_equal(mock_cuda_refs(), refs);
	assert_int_equal(mock_cuda_held(), holds);
}

/* it grows and shrinks behind what there is */
static void test_memory_parts(void **state)
{
	static const char *const calls[] = { "cuMemCreate", "cuMemMap", "cuMemSetAccess",
					     "cuCtxPushCurrent" };
	struct rig *r = *state;
	struct wfi_gpu_memory m;
	const int holds = mock_cuda_held();
	int parts;

	assert_int_equal(wfi_gpu_memory_open(&r->env, r->cuda, first, PART, 8 * PART, PART, &m), 0);
	memset(at(m.addr), 1, PART);
	assert_int_equal(wfi_gpu_memory_grow(&m, 4 * PART - 1), 0);
	assert_int_equal(m.len, 4 * PART);
	memset(at(m.addr + PART), 2, 3 * PART);
	assert_int_equal(*at(m.addr), 1);
	assert_memory_equal(at(m.addr), at(m.addr + 1), PART - 1);
	parts = mock_cuda_held();
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(calls); i++) {
		mock_cuda.fail_call = calls[i];
		mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
		assert_int_equal(wfi_gpu_memory_grow(&m, 8 * PART), -ENOMEM);
		mock_cuda.fail_call = NULL;
		assert_int_equal(m.len, 4 * PART);
		assert_int_equal(mock_cuda_held(), parts);
	}
	/* there is some, and not enough: that goes back */
	mock_cuda.bytes = 6 * PART;
	assert_int_equal(wfi_gpu_memory_grow(&m, 8 * PART), -ENOMEM);
	assert_int_equal(mock_cuda_held(), parts);
	mock_cuda.bytes = 0;
	assert_int_equal(wfi_gpu_memory_grow(&m, 8 * PART + 1), -EINVAL);
	assert_int_equal(wfi_gpu_memory_grow(&m, 8 * PART), 0);
	wfi_gpu_memory_trim(&m, PART);
	assert_int_equal(m.len, PART);
	assert_int_equal(*at(m.addr), 1);
	assert_memory_equal(at(m.addr), at(m.addr + 1), PART - 1);
	assert_int_equal(wfi_gpu_memory_grow(&m, 2 * PART), 0);
	wfi_gpu_memory_close(&m);
	assert_int_equal(mock_cuda_held(), holds);
	/* a GPU that can't */
	mock_cuda.no_vmm = true;
	assert_int_equal(wfi_gpu_memory_open(&r->env, r->cuda, first, 1000, 8 * PART, PART, &m), 0);
	assert_int_equal(m.len, 1000);
	assert_int_equal(wfi_gpu_memory_grow(&m, PART), -EOPNOTSUPP);
	wfi_gpu_memory_trim(&m, 0);
	memset(at(m.addr), 3, m.len);
	wfi_gpu_memory_close(&m);
	assert_int_equal(mock_cuda_held(), holds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_parts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
