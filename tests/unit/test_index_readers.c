/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that look up while the owner inserts, removes and grows, for ThreadSanitizer too. Keys
 * are of three kinds: those that stay are always found, with their slot; those that never were are
 * never found; those that come and go are found or not, with a slot that was theirs.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/index.h"

#define NR_READERS 3u
#define NR_STAY 4096u
#define NR_CHURN 20000u
#define NR_ROUNDS 6u
#define NR_FIRST 131068u /* entries that the first table is made for */
#define NR_GROWTHS 3u
#define CHAIN 64u
#define SLOT_CHURN 1000000u /* slots of those that come and go: two each */
#define KEY_NEVER (1u << 30)

static const struct index_salt salt = { { 0x123456789abcdef0, 0xfedcba9876543210 } };

struct fixture {
	struct wfi_env env;
	struct wfi_index ix;
	int stop; /* atomic */
	uint64_t passes; /* atomic: of all readers */
};

struct reader {
	struct index_reader reader;
	struct fixture *f;
	pthread_t thread;
	uint64_t turn;
	uint64_t wrong;
};

static struct weft_key key_of(uint32_t n)
{
	return (struct weft_key){ .lo = n * 0x9e3779b97f4a7c15ull, .hi = n + 1 };
}

static struct index_tag tag_of(uint32_t n)
{
	const struct weft_key key = key_of(n);

	return index_tag(&salt, &key);
}

static uint32_t below(struct reader *r, uint32_t n)
{
	r->turn = r->turn * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((r->turn >> 32) * n >> 32);
}

/* ---- readers ---- */

static void check_stay(struct reader *r, const struct wfi_index *ix)
{
	const uint32_t first = below(r, NR_STAY - CHAIN);
	struct weft_key keys[CHAIN];
	uint32_t slots[CHAIN];

	for (uint32_t i = 0; i < CHAIN; i++)
		keys[i] = key_of(first + i);
	r->wrong += wfi_index_match(ix, &salt, keys, CHAIN, slots) != CHAIN;
	for (uint32_t i = 0; i < CHAIN; i++)
		r->wrong += slots[i] != first + i;
	/* the longest prefix, to the block */
	keys[first % CHAIN] = key_of(KEY_NEVER + first);
	r->wrong += wfi_index_match(ix, &salt, keys, CHAIN, NULL) != first % CHAIN;
}

static void check_churn(struct reader *r, const struct wfi_index *ix)
{
	struct weft_key keys[CHAIN];
	uint32_t nrs[CHAIN], slots[CHAIN], found = 0;

	for (uint32_t i = 0; i < CHAIN; i++) {
		nrs[i] = below(r, NR_CHURN);
		keys[i] = key_of(NR_STAY + nrs[i]);
	}
	found = wfi_index_lookup(ix, &salt, keys, CHAIN, slots);
	for (uint32_t i = 0; i < CHAIN; i++) {
		r->wrong += slots[i] != INDEX_SLOT_NONE && slots[i] != SLOT_CHURN + nrs[i] &&
			    slots[i] != SLOT_CHURN + NR_CHURN + nrs[i];
		found -= slots[i] != INDEX_SLOT_NONE;
	}
	r->wrong += found != 0;
}

static void *read_all_the_time(void *arg)
{
	struct reader *r = arg;
	struct fixture *f = r->f;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		wfi_index_reader_enter(&f->ix, &r->reader);
		check_stay(r, &f->ix);
		check_churn(r, &f->ix);
		wfi_index_reader_leave(&r->reader);
		__atomic_fetch_add(&f->passes, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* ---- the owner ---- */

/* until readers have been through again */
static void wait_passes(const struct fixture *f, uint64_t nr)
{
	const uint64_t passes = __atomic_load_n(&f->passes, __ATOMIC_RELAXED);

	while (__atomic_load_n(&f->passes, __ATOMIC_RELAXED) < passes + nr)
		sched_yield();
}

/* all that come and go, once out and in again with their other slot */
static void churn(struct fixture *f, uint32_t round)
{
	const uint32_t now = SLOT_CHURN + round % 2 * NR_CHURN;
	const uint32_t before = SLOT_CHURN + (round + 1) % 2 * NR_CHURN;

	for (uint32_t n = 0; n < NR_CHURN; n++) {
		const struct index_tag tag = tag_of(NR_STAY + n);

		if (round)
			assert_true(wfi_index_remove(&f->ix, &tag, before + n));
		assert_int_equal(wfi_index_insert(&f->ix, &tag, now + n), 0);
	}
}

static void run_owner(struct fixture *f)
{
	uint64_t room = NR_FIRST;
	uint32_t extra = 0, round = 0, g;

	for (g = 0; g < NR_GROWTHS; g++) {
		for (uint32_t i = 0; i < NR_ROUNDS; i++)
			churn(f, round++);
		/* all of the table is taken, so that what is moved is crowded */
		for (; NR_STAY + NR_CHURN + extra < room; extra++) {
			const struct index_tag tag = tag_of(2 * KEY_NEVER + extra);

			assert_int_equal(wfi_index_insert(&f->ix, &tag, 2 * SLOT_CHURN + extra), 0);
		}
		room *= 2;
		assert_int_equal(wfi_index_reserve(&f->ix, room, room), 0);
		while (!f->ix.table->old && f->ix.coming)
			wfi_index_step(&f->ix, 1);
		while (f->ix.busy) {
			wfi_index_step(&f->ix, f->ix.table->nr_lines / 16);
			churn(f, round++);
			wait_passes(f, 1);
		}
	}
}

static void look_up_while_writing(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct reader *readers = aligned_alloc(WFI_CACHELINE, NR_READERS * sizeof(*readers));

	(void)state;
	assert_non_null(f);
	assert_non_null(readers);
	wfi_env_real_init(&f->env);
	assert_int_equal(wfi_index_init(&f->ix, &f->env, 0), 0);
	for (uint32_t n = 0; n < NR_STAY; n++) {
		const struct index_tag tag = tag_of(n);

		assert_int_equal(wfi_index_insert(&f->ix, &tag, n), 0);
	}
	for (uint32_t i = 0; i < NR_READERS; i++) {
		readers[i] = (struct reader){ .f = f, .turn = i };
		wfi_index_reader_add(&f->ix, &readers[i].reader);
		assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all_the_time,
						&readers[i]),
				 0);
	}
	run_owner(f);
	__atomic_store_n(&f->stop, 1, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < NR_READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].wrong, 0);
		wfi_index_reader_del(&f->ix, &readers[i].reader);
	}
	while (f->ix.busy)
		wfi_index_step(&f->ix, 1000);
	assert_null(f->ix.retired);
	wfi_index_fini(&f->ix);
	free(readers);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(look_up_while_writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
