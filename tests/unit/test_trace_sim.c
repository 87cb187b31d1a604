/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "cli/trace.h"
#include "perf/trace_sim.h"
#include "weft_internal/util.h"

#define CHAIN_MAX 64u

static struct wfi_env env;

static uint64_t hits(const struct wfi_tsim *sim, const char *policy, uint32_t nr_slots)
{
	const uint64_t nr = wfi_tsim_nr_requests(sim);
	struct wfi_tsim_result res;

	if (strcmp(policy, "belady"))
		assert_int_equal(
			wfi_tsim_play(sim, wfi_evict_find(policy), nr_slots, 1, 0, nr, &res), 0);
	else
		assert_int_equal(wfi_tsim_play_belady(sim, nr_slots, 0, nr, &res), 0);
	assert_true(res.nr_inserts - res.nr_evicts <= nr_slots);
	assert_true(res.nr_hits + res.nr_inserts <= res.nr_refs);
	return res.nr_hits;
}

static void add(struct wfi_tsim *sim, uint64_t now_ms, uint64_t first, uint32_t nr)
{
	uint64_t ids[CHAIN_MAX];

	assert_true(nr <= CHAIN_MAX);
	for (uint32_t i = 0; i < nr; i++)
		ids[i] = first + i;
	assert_int_equal(wfi_tsim_add(sim, now_ms * WFI_NSEC_PER_MSEC, ids, nr,
				      nr * WFI_TRACE_BLOCK_TOKENS),
			 0);
}

static void test_rules(void **state)
{
	static const uint64_t twice[] = { 900, 901, 900, 902 };
	struct wfi_tsim_result res;
	struct wfi_tsim *sim;

	(void)state;
	assert_int_equal(wfi_tsim_create(&env, WFI_TRACE_BLOCK_TOKENS, &sim), 0);
	add(sim, 0, 100, 4);
	add(sim, 1, 200, 4);
	/* one place is missing: of the older chain the tail goes, and the rest still hits */
	add(sim, 2, 200, 6);
	add(sim, 3, 100, 4);
	assert_int_equal(wfi_tsim_nr_requests(sim), 4);
	assert_int_equal(wfi_tsim_nr_blocks(sim), 10);
	assert_int_equal(hits(sim, "lru", 9), 4 + 3);
	assert_int_equal(hits(sim, "lru", 10), 4 + 4);
	/* a chain longer than the cache, and one that bites its tail */
	assert_int_equal(hits(sim, "lru", 3), 3);
	assert_int_equal(wfi_tsim_add(sim, 4 * WFI_NSEC_PER_MSEC, twice, 4, 4), 0);
	for (uint32_t nr_slots = 1; nr_slots < 12; nr_slots++) {
		for (unsigned i = 0; wfi_evict_policies[i]; i++)
			hits(sim, wfi_evict_policies[i]->name, nr_slots);
	}
	assert_int_equal(wfi_tsim_add(sim, 0, twice, 4, 4), -EINVAL);
	assert_int_equal(wfi_tsim_play(sim, wfi_evict_policies[0], 0, 1, 0, 1, &res), -EINVAL);
	assert_int_equal(wfi_tsim_play(sim, wfi_evict_policies[0], 9, 1, 0, 6, &res), -ERANGE);
	assert_int_equal(wfi_tsim_play(sim, wfi_evict_policies[0], 9, 1, 2, 1, &res), -ERANGE);
	wfi_tsim_destroy(sim);
}

/* each for its reason: what LRU is known to be bad at */
static void test_loop(void **state)
{
	struct wfi_tsim *sim;

	(void)state;
	assert_int_equal(wfi_tsim_create(&env, WFI_TRACE_BLOCK_TOKENS, &sim), 0);
	for (unsigned i = 0; i < 4000; i++)
		add(sim, 100 * i, i % 100 * CHAIN_MAX, 20);
	assert_int_equal(hits(sim, "lru", 1000), 0);
	assert_true(hits(sim, "gittins", 1000) * 10 > hits(sim, "belady", 1000) * 8);
	wfi_tsim_destroy(sim);
}

static void test_scan(void **state)
{
	uint64_t fresh = 1000000, lru, ours;
	struct wfi_tsim *sim;

	(void)state;
	assert_int_equal(wfi_tsim_create(&env, WFI_TRACE_BLOCK_TOKENS, &sim), 0);
	for (unsigned i = 0; i < 6000; i++) {
		add(sim, 100 * i, i * 7 % 40 * CHAIN_MAX, 20);
		add(sim, 100 * i, fresh, 40);
		fresh += 40;
	}
	lru = hits(sim, "lru", 1000);
	ours = hits(sim, "gittins", 1000);
	assert_true(ours > 2 * lru);
	assert_true(ours * 10 > hits(sim, "belady", 1000) * 9);
	wfi_tsim_destroy(sim);
}

static int load(struct wfi_tsim *sim)
{
	const char *dir = getenv("WEFT_TRACES");
	struct wfi_trace_request req;
	struct wfi_trace *trace;
	char path[4096];
	int ret;

	if (dir)
		snprintf(path, sizeof(path), "%s/conversation_trace.jsonl", dir);
	else
		snprintf(path, sizeof(path), "%.*s/../../../shared/traces/conversation_trace.jsonl",
			 (int)(strrchr(__FILE__, '/') - __FILE__), __FILE__);
	ret = wfi_trace_open(path, &trace);
	if (ret)
		return ret;
	while ((ret = wfi_trace_next(trace, &req)) > 0)
		assert_int_equal(wfi_tsim_add(sim, req.timestamp_ms * WFI_NSEC_PER_MSEC,
					      req.hash_ids, req.nr_ids, req.input_length),
				 0);
	wfi_trace_close(trace);
	return ret;
}

/* hits in 10,000 blocks, as docs/eviction.md has them; ours is above every reference */
static void test_conversation(void **state)
{
	static const struct {
		uint32_t nr_slots;
		unsigned lru;
		unsigned least; /* of ours */
	} rows[] = {
		{ 1000, 445, 735 },    { 5000, 1118, 1710 },  { 10000, 2116, 2350 },
		{ 20000, 2878, 3040 }, { 30000, 3257, 3345 }, { 50000, 3546, 3550 },
	};
	const char *ours = wfi_evict_policies[0]->name;
	const uint64_t refs = 288500;
	struct wfi_tsim *sim;

	(void)state;
	assert_int_equal(wfi_tsim_create(&env, WFI_TRACE_BLOCK_TOKENS, &sim), 0);
	if (load(sim)) {
		wfi_tsim_destroy(sim);
		skip();
	}
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		const uint64_t lru = hits(sim, "lru", rows[i].nr_slots);
		const uint64_t best = hits(sim, ours, rows[i].nr_slots);

		assert_in_range(lru * 10000 / refs, rows[i].lru - 1, rows[i].lru + 1);
		assert_true(best * 10000 >= rows[i].least * refs);
		for (unsigned j = 1; wfi_evict_policies[j]; j++)
			assert_true(best >
				    hits(sim, wfi_evict_policies[j]->name, rows[i].nr_slots));
	}
	wfi_tsim_destroy(sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_loop),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_conversation),
	};

	if (wfi_env_real_init(&env))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
