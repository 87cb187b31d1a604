/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "tests/unit/gpu_side.h"
#include "tests/unit/mock_cuda.h"

#define MAX 32u

static void *blocks[MAX]; /* each alone, so that sanitizers see its end */
static size_t nr_blocks;

const char *gpu_side_missing(void)
{
	return NULL;
}

int gpu_side_open(struct wfi_env *env, struct wfi_gpu **out)
{
	mock_cuda_reset();
	return wfi_gpu_open(env, mock_cuda_table(), 0, out);
}

void gpu_side_close(struct wfi_gpu *gpu)
{
	wfi_gpu_close(gpu);
	assert_int_equal(mock_cuda_refs(), 0);
}

int gpu_side_sync(struct wfi_gpu *gpu)
{
	(void)gpu;
	return 0;
}

void *gpu_side_alloc(size_t len)
{
	assert_true(nr_blocks < MAX);
	blocks[nr_blocks] = malloc(len);
	assert_non_null(blocks[nr_blocks]);
	return blocks[nr_blocks++];
}

size_t gpu_side_mark(void)
{
	return nr_blocks;
}

void gpu_side_reset(size_t mark)
{
	while (nr_blocks > mark)
		free(blocks[--nr_blocks]);
}
