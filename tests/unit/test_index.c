/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/index_line.h"

#define NR_KEYS 20000u
#define NR_FIRST 131068u /* entries that the first table is made for */

static const struct index_salt salts[2] = {
	{ { 0x123456789abcdef0, 0xfedcba9876543210 } },
	{ { 0x432112341234abcd, 0x1029384756473829 } },
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
	assert_int_equal(wfi_index_init(&f->ix, wfi_sim_node(f->sim, 0), 0), 0);
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
	assert_int_equal(wfi_index_insert(&f->ix, &tag, n), 0);
}

/* until growth has come to its end */
static void settle(struct fixture *f)
{
	while (f->ix.busy)
		wfi_index_step(&f->ix, 1000);
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
	uint64_t nr = 0, room = NR_FIRST;

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
		/* a little ahead of what is moved with inserts */
		if (step % 100 == 0)
			wfi_index_step(&f->ix, 3);
		if (step % (5 * NR_KEYS) == 1)
			assert_int_equal(wfi_index_reserve(&f->ix, room *= 2, UINT64_MAX), 0);
	}
	check_all(f, held, NR_KEYS);
	for (uint32_t n = 0; n < NR_KEYS; n++) {
		const struct index_tag tag = tag_of(n);

		assert_int_equal(wfi_index_remove(&f->ix, &tag, n), held[n]);
	}
	assert_int_equal(f->ix.nr, 0);
	/* nothing is left that look-ups would have to pass */
	settle(f);
	for (uint32_t l = 0; l < f->ix.table->nr_lines; l++)
		assert_int_equal(f->ix.table->lines[l].more &
					 ((1u << INDEX_CLASSES * INDEX_PASSED_BITS) - 1),
				 0);
	free(held);
}

/* prefixes of all lengths, while the table is half moved too */
static void match_finds_prefixes(void **state)
{
	struct fixture *f = *state;
	struct weft_key keys[300];
	uint32_t slots[300];
	uint32_t lens[] = { 0, 1, 31, 32, 33, 63, 64, 65, 96, 200, 299, 300 };

	for (uint32_t i = 0; i < 300; i++) {
		keys[i] = key_of(i);
		insert(f, i);
	}
	for (uint32_t n = 1000; n < 6000; n++)
		insert(f, n);
	for (int moving = 0; moving < 2; moving++) {
		if (moving)
			assert_int_equal(wfi_index_reserve(&f->ix, 2 * NR_FIRST, UINT64_MAX), 0);
		while (moving && !f->ix.table->old)
			wfi_index_step(&f->ix, 10000);
		assert_int_equal(f->ix.table->old != NULL, moving);
		for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
			const struct weft_key kept = keys[lens[i] % 300];

			assert_int_equal(wfi_index_match(&f->ix, &salts[0], keys, lens[i], NULL),
					 lens[i]);
			keys[lens[i] % 300] = key_of(999999);
			assert_int_equal(wfi_index_match(&f->ix, &salts[0], keys, 300, slots),
					 lens[i] % 300);
			for (uint32_t n = 0; n < lens[i] % 300; n++)
				assert_int_equal(slots[n], n);
			keys[lens[i] % 300] = kept;
		}
	}
}

static void lookups_find_each(void **state)
{
	const uint32_t lens[] = { 1, 7, 32, 33, 100, 1000 };
	struct fixture *f = *state;
	struct weft_key keys[1000];
	uint32_t slots[1000];

	/* crowded: many live outside of their home */
	for (uint32_t n = 0; n < NR_FIRST; n += 2)
		insert(f, n);
	for (uint32_t n = 0; n < NR_FIRST; n += 2)
		insert(f, NR_FIRST + n);
	for (uint32_t first = 0, l = 0; first + 1000 < NR_FIRST;
	     first += lens[l], l = (l + 1) % 6) {
		for (uint32_t i = 0; i < lens[l]; i++)
			keys[i] = key_of(first + i);
		assert_int_equal(wfi_index_lookup(&f->ix, &salts[0], keys, lens[l], slots),
				 (lens[l] + (first % 2 == 0)) / 2);
		for (uint32_t i = 0; i < lens[l]; i++)
			assert_int_equal(slots[i], (first + i) % 2 ? INDEX_SLOT_NONE : first + i);
	}
}

/* what a table was made for and a fourth more: the next one's pages may be late */
static void takes_more_while_growing(void **state)
{
	struct fixture *f = *state;
	const uint32_t nr = NR_FIRST / 4 * 5;
	bool *held = calloc(4 * NR_FIRST, sizeof(*held));

	assert_non_null(held);
	for (uint32_t n = 0; n < 4 * NR_FIRST; n++) {
		const struct index_tag tag = tag_of(n);

		assert_int_equal(wfi_index_reserve(&f->ix, n < nr ? nr : n + 1, UINT64_MAX), 0);
		assert_int_equal(wfi_index_insert(&f->ix, &tag, n), 0);
		held[n] = true;
		if (n % (NR_FIRST / 2) == 0)
			check_all(f, held, 4 * NR_FIRST);
	}
	settle(f);
	check_all(f, held, 4 * NR_FIRST);
	assert_true(wfi_index_bytes(&f->ix) < 2 * 17 * 4 * NR_FIRST);
	free(held);
}

/* as many equal homes as no keys have: refused, and all that is there stays in reach */
static void crowd_at_one_home(void **state)
{
	struct fixture *f = *state;
	uint32_t nr = 0;

	for (; nr < 4000; nr++) {
		const struct index_tag tag = { .hash = (0x123456780ull + nr % 16) << 28 | nr };

		if (wfi_index_insert(&f->ix, &tag, nr))
			break;
	}
	assert_in_range(nr, 500, 3999);
	assert_int_equal(f->ix.nr, nr);
	for (int round = 0; round < 2; round++) {
		for (uint32_t n = 0; n < nr; n++) {
			const struct index_tag tag = { .hash = (0x123456780ull + n % 16) << 28 |
							       n };

			assert_int_equal(wfi_index_find(&f->ix, &tag), n);
		}
		assert_int_equal(wfi_index_reserve(&f->ix, 2 * NR_FIRST, UINT64_MAX), 0);
		settle(f);
	}
	for (uint32_t n = 0; n < nr; n++)
		assert_true(wfi_index_remove_slot(&f->ix, n));
	assert_int_equal(f->ix.nr, 0);
}

/* a reader that is on its way keeps the memory of the table that it looks at, and nobody waits */
static void readers_hold_back_tables(void **state)
{
	struct fixture *f = *state;
	struct index_reader reader, other;

	wfi_index_reader_add(&f->ix, &reader);
	wfi_index_reader_add(&f->ix, &other);
	for (uint32_t n = 0; n < 1000; n++)
		insert(f, n);
	wfi_index_reader_enter(&f->ix, &reader);
	assert_int_equal(wfi_index_reserve(&f->ix, 2 * NR_FIRST, UINT64_MAX), 0);
	while (!f->ix.retired)
		wfi_index_step(&f->ix, 1000);
	wfi_index_reader_enter(&f->ix, &other); /* comes too late to see it */
	wfi_index_step(&f->ix, 1000);
	assert_non_null(f->ix.retired);
	assert_null(f->ix.table->old);
	/* the next growth doesn't wait for it */
	assert_int_equal(wfi_index_reserve(&f->ix, 6 * NR_FIRST, UINT64_MAX), 0);
	while (!f->ix.retired->next)
		wfi_index_step(&f->ix, 1000);
	wfi_index_reader_leave(&reader);
	wfi_index_step(&f->ix, 1000);
	assert_non_null(f->ix.retired);
	assert_null(f->ix.retired->next);
	wfi_index_reader_leave(&other);
	settle(f);
	assert_null(f->ix.retired);
	wfi_index_reader_del(&f->ix, &reader);
	wfi_index_reader_del(&f->ix, &other);
	assert_null(f->ix.readers);
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
	assert_int_equal(wfi_index_reserve(&f->ix, 200000, UINT64_MAX), -ENOMEM);
	check_all(f, held, 200);
	wfi_sim_set_faults(f->sim, &once);
	/* so few more go without */
	assert_int_equal(wfi_index_reserve(&f->ix, NR_FIRST + 1, UINT64_MAX), 0);
	assert_null(f->ix.coming);
	assert_int_equal(wfi_index_reserve(&f->ix, 200000, 200000), 0);
	settle(f);
	check_all(f, held, 200);
	assert_true(wfi_index_bytes(&f->ix) <= 200000 * 16 + 64);
}

/* ---- tables that come late ---- */

static struct {
	const struct wfi_alloc_ops *sim;
	struct wfi_alloc_ops ops;
	size_t len;
	size_t come; /* SIZE_MAX: all; without @mapped: mapping fails */
	bool mapped;
} late;

static void late_map_begin(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out)
{
	(void)env;
	(void)flags;
	late.len = len;
	*out = (struct wfi_map){ .fd = -1 };
}

static size_t late_populated(struct wfi_env *env, struct wfi_map *map)
{
	if (late.mapped && !map->addr)
		assert_int_equal(late.sim->map(env, late.len, 0, map), 0);
	return late.come;
}

static int setup_late(void **state)
{
	struct fixture *f;

	setup(state);
	f = *state;
	late.sim = f->ix.env->mem;
	late.ops = *late.sim;
	late.ops.map_begin = late_map_begin;
	late.ops.populated = late_populated;
	late.come = 0;
	late.mapped = false;
	f->ix.env->mem = &late.ops;
	return 0;
}

static void insert_range(struct fixture *f, uint32_t from, uint32_t to)
{
	for (uint32_t n = from; n < to; n++)
		insert(f, n);
}

static void check_range(struct fixture *f, uint32_t nr)
{
	for (uint32_t n = 0; n < nr; n++) {
		const struct index_tag tag = tag_of(n);

		assert_int_equal(wfi_index_find(&f->ix, &tag), n);
	}
}

/* the next table is begun before this one is full, and moving follows its pages */
static void moves_behind_pages(void **state)
{
	struct fixture *f = *state;
	struct index_table *old;

	insert_range(f, 0, NR_FIRST);
	assert_non_null(f->ix.coming);
	assert_null(f->ix.table->old);
	late.mapped = true;
	late.come = late.len / 2;
	insert_range(f, NR_FIRST, NR_FIRST / 8 * 9);
	old = f->ix.table->old;
	assert_non_null(old);
	wfi_index_step(&f->ix, UINT32_MAX);
	assert_in_range(old->moved, old->nr_lines / 2 - 1, old->nr_lines / 2 + 1);
	check_range(f, NR_FIRST / 8 * 9);
	late.come = SIZE_MAX;
	settle(f);
	assert_null(f->ix.table->old);
	check_range(f, NR_FIRST / 8 * 9);
}

/* no page will have come when the old table has no room any more: then growth waits for them */
static void room_before_pages(void **state)
{
	struct fixture *f = *state;

	late.mapped = true;
	insert_range(f, 0, 2 * NR_FIRST);
	assert_true(f->ix.table->nr_lines > NR_FIRST / 4);
	check_range(f, 2 * NR_FIRST);
	late.come = SIZE_MAX;
	settle(f);
	check_range(f, 2 * NR_FIRST);
}

/* not even mapped by then: it is done on the spot */
static void room_before_mapping(void **state)
{
	struct fixture *f = *state;

	insert_range(f, 0, 2 * NR_FIRST);
	check_range(f, 2 * NR_FIRST);
}

/* mapping fails: so long as there is room nothing is lost, and the next call tries again */
static void mapping_may_fail(void **state)
{
	struct fixture *f = *state;

	late.come = SIZE_MAX;
	insert_range(f, 0, NR_FIRST);
	wfi_index_step(&f->ix, 1);
	assert_null(f->ix.coming);
	assert_false(f->ix.busy);
	check_range(f, NR_FIRST);
	late.mapped = true;
	insert(f, NR_FIRST);
	settle(f);
	assert_true(f->ix.table->nr_lines > NR_FIRST / 4);
	check_range(f, NR_FIRST + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_against_model, setup, teardown),
		cmocka_unit_test_setup_teardown(match_finds_prefixes, setup, teardown),
		cmocka_unit_test_setup_teardown(lookups_find_each, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_more_while_growing, setup, teardown),
		cmocka_unit_test_setup_teardown(crowd_at_one_home, setup, teardown),
		cmocka_unit_test_setup_teardown(readers_hold_back_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(spaces_do_not_meet, setup, teardown),
		cmocka_unit_test_setup_teardown(remove_wants_the_right_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(growth_may_fail, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_behind_pages, setup_late, teardown),
		cmocka_unit_test_setup_teardown(room_before_pages, setup_late, teardown),
		cmocka_unit_test_setup_teardown(room_before_mapping, setup_late, teardown),
		cmocka_unit_test_setup_teardown(mapping_may_fail, setup_late, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
