/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu.h - what the tests of engines' memory on GPUs share
 *
 * The driver is mocked (tests/unit/mock_cuda.h), in this process and in each weftd, which has one
 * of its own: what this process holds back or makes fail, a weftd knows nothing of.
 */
#ifndef TEST_GPU_H
#define TEST_GPU_H

#include "gpu/cuda.h"
#include "tests/integration/node.h"
#include "tests/unit/mock_cuda.h"

/* of this process */
extern const struct wfi_cuda *cuda;
extern struct mock_cuda *mock;
void mock_release(void);

/* the weftd of tests that have no other */
extern struct test_node node;

/* before all else: loads the driver, and enters GPU 0. Return: 0; 77 it is not the mocked one */
int test_gpu_load(void);

/* a test with .node, which has the settings @sets */
#define TEST_GPU(name, sets)                                                                       \
	cmocka_unit_test_prestate_setup_teardown(test_##name, test_gpu_setup, test_gpu_teardown,   \
						 (void *)(uintptr_t)(sets))
int test_gpu_setup(void **state);
int test_gpu_teardown(void **state);

/* a node whose driver is as @with has it, in the form of MOCK_CUDA; NULL: there is none at all */
void test_gpu_start(struct test_node *n, const char *const sets[], const char *with);

/* what this thread allocates from here on lies there; and no more */
void test_gpu_enter(int gpu);
void test_gpu_leave(int gpu);
char *test_gpu_alloc(uint64_t len);
void test_gpu_free(char *mem);

/* Return: as weft_region_reg() */
int test_gpu_reg(struct test_engine *e, char *mem, uint64_t len, uint32_t *region);

#endif
