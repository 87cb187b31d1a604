/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/copy.h"

#define LEN (300u << 10)
#define GUARD 64u

static uint8_t src[LEN + 2 * GUARD], dst[LEN + 2 * GUARD];

static void check_copy(void (*copy)(void *, const void *, size_t), void (*fence)(void), size_t len,
		       size_t s, size_t d)
{
	memset(dst, 0xee, len + 2 * GUARD);
	copy(dst + d, src + s, len);
	fence();
	assert_memory_equal(dst + d, src + s, len);
	/* not one byte more */
	assert_true(d == 0 || dst[d - 1] == 0xee);
	assert_int_equal(dst[d + len], 0xee);
}

/* every way to copy, at all small sizes, at edges of large ones, at all alignments of a line */
static void test_every_way(void **state)
{
	static const size_t large[] = { 4095, 16383, 16384, 16385, 16447, 65536, 262144, LEN };
	const struct wfi_copy_ops *const *ops;
	size_t len, i, skew;

	(void)state;
	for (i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(i * 131 + (i >> 8));
	for (ops = wfi_copy_all(); *ops; ops++) {
		for (len = 0; len <= 700; len++) {
			check_copy((*ops)->plain, (*ops)->fence, len, len % 64, (len * 7) % 64);
			check_copy((*ops)->stream, (*ops)->fence, len, (len * 5) % 64, len % 64);
		}
		for (i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
			for (skew = 0; skew < 64; skew += 7) {
				check_copy((*ops)->plain, (*ops)->fence, large[i], skew, 63 - skew);
				check_copy((*ops)->stream, (*ops)->fence, large[i], 63 - skew,
					   skew);
			}
		}
	}
	assert_ptr_equal(wfi_copy_pick(), wfi_copy_all()[0]);
}

static void test_runs(void **state)
{
	struct wfi_copy_run runs[40];
	uint64_t batch;
	unsigned i;

	(void)state;
	for (batch = 0; batch <= WFI_COPY_STREAM_BATCH; batch += WFI_COPY_STREAM_BATCH) {
		memset(dst, 0, sizeof(dst));
		for (i = 0; i < 40; i++) {
			runs[i].src = src + i * 7000 + i;
			runs[i].dst = dst + i * 7000;
			runs[i].len = i * 175;
		}
		wfi_copy_runs(wfi_copy_pick(), runs, 40, batch);
		for (i = 0; i < 40; i++) {
			assert_memory_equal(runs[i].dst, runs[i].src, runs[i].len);
			assert_int_equal(dst[i * 7000 + runs[i].len], 0);
		}
	}
	wfi_copy_runs(wfi_copy_pick(), runs, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way),
		cmocka_unit_test(test_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
