/* SPDX-License-Identifier: Apache-2.0 */
/* the planner against a map of every byte, over random pairs of layouts */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/unit/layouts.h"

#define MAX_RUNS 65536
#define MAX_BYTES 65536

static void check_pair(const struct wfi_layout *a, const struct wfi_layout *b, struct wfi_run *runs,
		       uint32_t *from)
{
	unsigned bytes = layouts_map(a, b, from, MAX_BYTES), covered = 0;
	uint64_t last = 0, i;
	int nr, r;

	nr = wfi_layout_plan(a, b, runs, MAX_RUNS);
	assert_true(nr >= 0 && nr <= MAX_RUNS);
	for (r = 0; r < nr; r++) {
		assert_true(runs[r].len > 0);
		assert_true(r == 0 || runs[r].dst >= last);
		/* the shortest list: neighbours on both sides would be one run */
		if (r)
			assert_false(runs[r].dst == last &&
				     runs[r].src == runs[r - 1].src + runs[r - 1].len);
		last = runs[r].dst + runs[r].len;
		for (i = 0; i < runs[r].len; i++)
			assert_int_equal(from[runs[r].dst + i], runs[r].src + i + 1);
		covered += (unsigned)runs[r].len;
	}
	assert_int_equal(covered, bytes);
	/* a short array gets the beginning, and the count is the same */
	if (nr > 1) {
		struct wfi_run one[2] = { { 0 }, { .len = 77 } };

		assert_int_equal(wfi_layout_plan(a, b, one, 1), nr);
		assert_memory_equal(&one[0], &runs[0], sizeof(one[0]));
		assert_int_equal(one[1].len, 77);
	}
}

static void test_random(void **state)
{
	struct wfi_run *runs = calloc(MAX_RUNS, sizeof(*runs));
	uint32_t *from = calloc(MAX_BYTES, sizeof(*from));
	struct wfi_layout a, b;
	unsigned i;

	(void)state;
	assert_non_null(runs);
	assert_non_null(from);
	for (i = 0; i < 10000; i++) {
		layouts_pair(&a, &b, 1 + layouts_rnd(8), 1);
		check_pair(&a, &b, runs, from);
	}
	free(runs);
	free(from);
}

static struct wfi_layout nhd(uint32_t tokens, uint32_t heads)
{
	return (struct wfi_layout){
		.extent = { 2, 2, tokens, heads, 256 },
		.stride = { 2ull * tokens * heads * 256, 1ull * tokens * heads * 256,
			    heads * 256ull, 256, 1 },
	};
}

static void test_known(void **state)
{
	struct wfi_layout whole = nhd(16, 8), half = nhd(16, 4), page = nhd(32, 8),
			  hnd = nhd(16, 8);
	struct wfi_run run;

	(void)state;
	/* equal layouts are one run */
	assert_int_equal(wfi_layout_plan(&whole, &whole, &run, 1), 1);
	assert_int_equal(run.len, 2 * 2 * 16 * 8 * 256);
	/* tensor parallel 2: a run a token */
	half.first_head = 4;
	assert_int_equal(wfi_layout_plan(&whole, &half, &run, 1), 2 * 2 * 16);
	assert_int_equal(run.src, 4 * 256);
	assert_int_equal(run.len, 4 * 256);
	/* into the second half of a page twice as long: a run a layer and K or V */
	whole.first_token = 16;
	assert_int_equal(wfi_layout_plan(&whole, &page, &run, 1), 4);
	assert_int_equal(run.dst, 16 * 8 * 256);
	assert_int_equal(run.len, 16 * 8 * 256);
	/* NHD to HND: a run a head vector; the last of a plane touches the first of the next */
	hnd.stride[WFI_DIM_HEAD] = 16 * 256;
	hnd.stride[WFI_DIM_TOKEN] = 256;
	whole.first_token = 0;
	assert_int_equal(wfi_layout_plan(&whole, &hnd, &run, 1), 2 * 2 * 16 * 8 - 3);
	assert_int_equal(run.len, 256);
	/* nothing in common */
	half.first_head = 8;
	assert_int_equal(wfi_layout_plan(&whole, &half, &run, 1), 0);
}

static void test_refused(void **state)
{
	struct wfi_layout a = nhd(16, 8), b = a;
	struct wfi_run run;

	(void)state;
	b.extent[WFI_DIM_LAYER] = 3;
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
	b = a;
	b.extent[WFI_DIM_BYTE] = 128;
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
	b = a;
	b.stride[WFI_DIM_BYTE] = 2;
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
	b = a;
	b.extent[WFI_DIM_TOKEN] = 0;
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
	b = a;
	b.stride[WFI_DIM_TOKEN] = 255; /* tokens on top of heads */
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
	b = a;
	b.stride[WFI_DIM_LAYER] = UINT64_MAX;
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
	b = a;
	b.base = UINT64_MAX - 5;
	assert_int_equal(wfi_layout_plan(&a, &b, &run, 1), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
