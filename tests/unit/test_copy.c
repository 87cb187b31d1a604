/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/copy.h"
#include "weft_internal/env.h"

#define LEN (600u << 10)
#define GUARD 64u

static uint8_t src[LEN + 2 * GUARD], dst[LEN + 2 * GUARD];

static void check_copy(const struct wfi_copy_ops *ops, bool stream, size_t len, size_t s, size_t d)
{
	const struct wfi_copy_run run = { dst + d, src + s, len };

	memset(dst, 0xee, len + 2 * GUARD);
	if (stream)
		ops->stream(dst + d, src + s, len, &ops->walk);
	else
		ops->plain(&run, &run);
	ops->fence();
	assert_memory_equal(dst + d, src + s, len);
	/* not one byte more */
	assert_true(d == 0 || dst[d - 1] == 0xee);
	assert_int_equal(dst[d + len], 0xee);
}

/* every way to copy, at all small sizes, at edges of large ones, at all alignments of a line */
static void test_every_way(void **state)
{
	static const size_t large[] = { 4095,  16383,  16384,  16385,  16447,
					65536, 131071, 262144, 360000, LEN };
	const struct wfi_copy_ops *const *ops;
	size_t len, i, skew;

	(void)state;
	for (i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(i * 131 + (i >> 8));
	for (ops = wfi_copy_all(); *ops; ops++) {
		for (len = 0; len <= 700; len++) {
			check_copy(*ops, false, len, len % 64, (len * 7) % 64);
			check_copy(*ops, true, len, (len * 5) % 64, len % 64);
		}
		for (i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
			for (skew = 0; skew < 64; skew += 21) {
				check_copy(*ops, false, large[i], skew, 63 - skew);
				check_copy(*ops, true, large[i], 63 - skew, skew);
			}
		}
	}
}

/* ---- the choice ---- */

/* a clock by which the way number .fast takes less time than the others, and each measure two
 * looks */
struct test_env {
	struct wfi_env env;
	uint64_t now_ns;
	unsigned nr_ways, fast, fast_ns;
	unsigned nr_looks;
};

static uint64_t test_now(struct wfi_env *env)
{
	struct test_env *t = (struct test_env *)env;
	unsigned look = t->nr_looks++;

	/* one at the start, one before each turn and one after, two a way: its second counts */
	if (!look)
		return t->now_ns;
	look = (look - 1) % (2 + 2 * t->nr_ways);
	if (look && look % 2 == 0)
		t->now_ns += look / 2 - 1 == t->fast ? t->fast_ns : 1000;
	return t->now_ns;
}

static const struct wfi_copy_ops *pick_when(unsigned fast, unsigned fast_ns, uint32_t *rate)
{
	static const struct wfi_clock_ops clock = { .now_ns = test_now };
	struct test_env t = { .fast = fast, .fast_ns = fast_ns };

	assert_int_equal(wfi_env_real_init(&t.env), 0);
	t.env.clock = &clock;
	while (wfi_copy_all()[t.nr_ways])
		t.nr_ways++;
	return wfi_copy_pick(&t.env, rate);
}

static void test_pick(void **state)
{
	const struct wfi_copy_ops *const *all = wfi_copy_all();
	uint32_t rate = 0;
	unsigned i;

	(void)state;
	for (i = 0; all[i]; i++) {
		assert_ptr_equal(pick_when(i, 500, &rate), all[i]);
		assert_int_equal(rate, 2000000);
		/* not for so little */
		assert_ptr_equal(pick_when(i, 960, &rate), all[0]);
	}
}

/* it is tried once: later calls don't look at the clock */
static void test_best(void **state)
{
	static const struct wfi_clock_ops clock = { .now_ns = test_now };
	struct test_env t = { .fast = 0, .fast_ns = 500 };
	const struct wfi_copy_ops *best;
	unsigned looks;

	(void)state;
	assert_int_equal(wfi_env_real_init(&t.env), 0);
	t.env.clock = &clock;
	while (wfi_copy_all()[t.nr_ways])
		t.nr_ways++;
	best = wfi_copy_best(&t.env);
	assert_ptr_equal(best, wfi_copy_all()[0]);
	looks = t.nr_looks;
	assert_true(looks > 0);
	assert_ptr_equal(wfi_copy_best(&t.env), best);
	assert_int_equal(t.nr_looks, looks);
}

/* by the real clock some way is taken */
static void test_pick_real(void **state)
{
	struct wfi_env env;
	uint32_t rate = 0;

	(void)state;
	assert_int_equal(wfi_env_real_init(&env), 0);
	assert_non_null(wfi_copy_pick(&env, &rate));
	assert_true(rate > 0);
}

/* a simulated node takes the same way each time: its clock stands still */
static void test_pick_sim(void **state)
{
	struct wfi_sim_faults faults = { .alloc_fail_nth = 1 };
	struct wfi_sim *sim;
	uint32_t rate = 1;

	(void)state;
	assert_int_equal(wfi_sim_create(1, &sim), 0);
	assert_ptr_equal(wfi_copy_pick(wfi_sim_node(sim, 0), &rate), wfi_copy_all()[0]);
	assert_int_equal(rate, 0);
	wfi_sim_set_faults(sim, &faults);
	assert_ptr_equal(wfi_copy_pick(wfi_sim_node(sim, 0), NULL), wfi_copy_all()[0]);
	wfi_sim_destroy(sim);
}

static void test_runs(void **state)
{
	const struct wfi_copy_ops *ops = wfi_copy_all()[0];
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
		wfi_copy_runs(ops, runs, 40, batch);
		for (i = 0; i < 40; i++) {
			assert_memory_equal(runs[i].dst, runs[i].src, runs[i].len);
			assert_int_equal(dst[i * 7000 + runs[i].len], 0);
		}
	}
	wfi_copy_runs(ops, runs, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_way), cmocka_unit_test(test_pick),
		cmocka_unit_test(test_pick_real), cmocka_unit_test(test_pick_sim),
		cmocka_unit_test(test_best),	  cmocka_unit_test(test_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
