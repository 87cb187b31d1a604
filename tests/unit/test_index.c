/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/index.h"

#define NR_KEYS 20000u

static const struct index_salt salts[2] = {
	{ { 0x1234, 0x9876543210, 0xabcdef, 0x777 } },
	{ { 0x4321, 0x1029384756, 0xfedcba, 0x999 } },
};

struct fixture {
	struct wfi_sim *sim;
	struct wfi_index ix;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(wfi_sim_create(1, &f->sim), 0);
	assert_int_equal(wfi_index_init(&f->ix, wfi_sim_node(f->sim, 0)), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	wfi_index_fini(&f->ix);
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

static struct weft_key key_of(uint32_t n)
{
	return (struct weft_key){ .lo = n * 0x9e3779b97f4a7c15ull, .hi = n };
}

static struct index_tag tag_of(uint32_t n)
{
	const struct weft_key key = key_of(n);

	return index_tag(&salts[0], &key);
}

static void insert(struct fixture *f, uint32_t n)
{
	const struct index_tag tag = tag_of(n);

	assert_int_equal(wfi_index_find(&f->ix, &tag), INDEX_SLOT_NONE);
	assert_int_equal(wfi_index_reserve(&f->ix, f->ix.nr + 1, UINT64_MAX), 0);
	wfi_index_insert(&f->ix, &tag, n);
}

static void check_all(struct fixture *f, const bool *held, uint32_t nr)
{
	for (uint32_t n = 0; n < nr; n++) {
		const struct index_tag tag = tag_of(n);

		assert_int_equal(wfi_index_find(&f->ix, &tag), held[n] ? n : INDEX_SLOT_NONE);
	}
}

/* against an array, through growth at any moment */
static void random_against_model(void **state)
{
	struct fixture *f = *state;
	bool *held = calloc(NR_KEYS, sizeof(*held));
	uint64_t nr = 0;

	assert_non_null(held);
	for (uint32_t step = 0; step < 20 * NR_KEYS; step++) {
		const uint32_t span = step < 5 * NR_KEYS ? NR_KEYS / 10 : NR_KEYS;
		const uint32_t n = (uint32_t)(wfi_sim_rand(f->sim) % span);
		const struct index_tag tag = tag_of(n);

		if (!held[n])
			insert(f, n);
		else
			assert_true(wfi_index_remove(&f->ix, &tag, n));
		held[n] = !held[n];
		nr = held[n] ? nr + 1 : nr - 1;
		assert_int_equal(f->ix.nr, nr);
		if (step % (2 * NR_KEYS) == 0)
			check_all(f, held, NR_KEYS);
		if (step % 100 == 0)
			wfi_index_step(&f->ix, 3);
	}
	check_all(f, held, NR_KEYS);
	for (uint32_t n = 0; n < NR_KEYS; n++) {
		const struct index_tag tag = tag_of(n);

		assert_int_equal(wfi_index_remove(&f->ix, &tag, n), held[n]);
	}
	assert_int_equal(f->ix.nr, 0);
	/* nothing is left that look-ups would have to pass */
	while (wfi_index_step(&f->ix, 1000))
		;
	for (uint32_t b = 0; b < f->ix.table.nr_buckets; b++)
		assert_int_equal(f->ix.table.buckets[b].passed, 0);
	free(held);
}

/* prefixes of all lengths, while the table is half moved too */
static void match_finds_prefixes(void **state)
{
	struct fixture *f = *state;
	struct weft_key keys[300];
	uint32_t lens[] = { 0, 1, 31, 32, 33, 63, 64, 65, 96, 200, 299, 300 };

	for (uint32_t i = 0; i < 300; i++) {
		keys[i] = key_of(i);
		insert(f, i);
	}
	for (uint32_t n = 1000; n < 6000; n++)
		insert(f, n);
	for (int moving = 0; moving < 2; moving++) {
		if (moving)
			assert_int_equal(wfi_index_reserve(&f->ix, 40000, UINT64_MAX), 0);
		assert_int_equal(f->ix.old.nr_buckets != 0, moving);
		wfi_index_step(&f->ix, 300);
		for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
			const struct weft_key kept = keys[lens[i] % 300];

			assert_int_equal(wfi_index_match(&f->ix, &salts[0], keys, lens[i]),
					 lens[i]);
			keys[lens[i] % 300] = key_of(999999);
			assert_int_equal(wfi_index_match(&f->ix, &salts[0], keys, 300),
					 lens[i] % 300);
			keys[lens[i] % 300] = kept;
		}
	}
}

static void batches_find_each(void **state)
{
	struct fixture *f = *state;
	struct index_tag tags[INDEX_BATCH];
	struct weft_key keys[INDEX_BATCH];
	uint32_t slots[INDEX_BATCH];

	for (uint32_t n = 0; n < 4000; n += 2)
		insert(f, n);
	for (uint32_t first = 0; first < 4000; first += INDEX_BATCH) {
		for (uint32_t i = 0; i < INDEX_BATCH; i++)
			keys[i] = key_of(first + i);
		wfi_index_begin(&f->ix, &salts[0], keys, INDEX_BATCH, tags);
		assert_int_equal(wfi_index_find_batch(&f->ix, tags, INDEX_BATCH, slots),
				 INDEX_BATCH / 2);
		for (uint32_t i = 0; i < INDEX_BATCH; i++)
			assert_int_equal(slots[i], (first + i) % 2 ? INDEX_SLOT_NONE : first + i);
	}
}

static void spaces_do_not_meet(void **state)
{
	struct fixture *f = *state;

	for (uint32_t n = 0; n < 1000; n++)
		insert(f, n);
	for (uint32_t n = 0; n < 1000; n++) {
		const struct weft_key key = key_of(n);
		const struct index_tag tag = index_tag(&salts[1], &key);

		assert_int_equal(wfi_index_find(&f->ix, &tag), INDEX_SLOT_NONE);
	}
}

static void remove_wants_the_right_slot(void **state)
{
	struct fixture *f = *state;
	const struct index_tag tag = tag_of(5);

	insert(f, 5);
	assert_false(wfi_index_remove(&f->ix, &tag, 6));
	assert_int_equal(wfi_index_find(&f->ix, &tag), 5);
	assert_false(wfi_index_remove_slot(&f->ix, 6));
	assert_true(wfi_index_remove_slot(&f->ix, 5));
	assert_int_equal(wfi_index_find(&f->ix, &tag), INDEX_SLOT_NONE);
	assert_false(wfi_index_remove(&f->ix, &tag, 5));
}

/* no memory to grow: what is there stays, and the next try may go well */
static void growth_may_fail(void **state)
{
	struct fixture *f = *state;
	const struct wfi_sim_faults once = { .alloc_fail_nth = 1 };
	bool held[200];

	for (uint32_t n = 0; n < 200; n++) {
		insert(f, n);
		held[n] = true;
	}
	wfi_sim_set_faults(f->sim, &once);
	assert_int_equal(wfi_index_reserve(&f->ix, 100000, UINT64_MAX), -ENOMEM);
	check_all(f, held, 200);
	assert_int_equal(wfi_index_reserve(&f->ix, 100000, 100000), 0);
	check_all(f, held, 200);
	assert_true(wfi_index_bytes(&f->ix) < 100000 * 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_against_model, setup, teardown),
		cmocka_unit_test_setup_teardown(match_finds_prefixes, setup, teardown),
		cmocka_unit_test_setup_teardown(batches_find_each, setup, teardown),
		cmocka_unit_test_setup_teardown(spaces_do_not_meet, setup, teardown),
		cmocka_unit_test_setup_teardown(remove_wants_the_right_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(growth_may_fail, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
