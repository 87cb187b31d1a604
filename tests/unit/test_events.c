/* SPDX-License-Identifier: Apache-2.0 */
/* what a KV manager tells of its blocks, read by the same thread and by another */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/events.h"

#define BLOCK_BYTES 64u
#define ARENA_BYTES (64u << 10)
#define NR_MAX 256u
#define NR_KEYS 64u /* that come and go before two threads */
#define NR_CHANGES 200000u

struct fixture {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_tenant *tenants[2];
	struct wfi_space_info spaces[2];
	struct wfi_owner owners[2];
	struct wfi_events *events;
	unsigned nr_wakes;
	_Atomic bool over;
};

static void tenant_add(struct fixture *f, unsigned i)
{
	const struct wfi_tenant_opts t = {
		.name = i ? "other" : "one",
		.token = i ? "other" : "one",
		.arena_bytes = ARENA_BYTES,
	};
	const struct weft_space_opts s = {
		.size = sizeof(s),
		.block_bytes = BLOCK_BYTES,
		.model = "model",
		.layout = "test",
		.tokens_per_block = 16,
	};

	assert_int_equal(wfi_kv_tenant_add(f->kv, &t, &f->tenants[i]), 0);
	assert_int_equal(wfi_kv_space_open(f->kv, f->tenants[i], &s, &f->spaces[i], NULL), 0);
	assert_int_equal(wfi_owner_init(f->kv, &f->owners[i], f->tenants[i]), 0);
}

static void on_wake(void *ctx)
{
	struct fixture *f = ctx;

	f->nr_wakes++;
}

static void tier_open(struct fixture *f)
{
	const struct wfi_tier_ssd_opts ssd = {
		.env = f->env, .path = "tier", .bytes = 4 << 20, .node = 7, .chunk_bytes = 1 << 16
	};
	const struct wfi_kv_tier_opts o = { 0 };
	struct wfi_tier_stat st = { .state = WFI_TIER_OPENING };
	struct wfi_tier *tier;
	const char *name;

	assert_int_equal(wfi_tier_ssd_open(&ssd, &tier), 0);
	assert_int_equal(wfi_kv_tier_add(f->kv, tier, &o), 0);
	while (st.state == WFI_TIER_OPENING) {
		wfi_kv_poll(f->kv, 1);
		assert_int_equal(wfi_kv_tier_stat(f->kv, &name, &st), 0);
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct wfi_kv_opts kv = { .extent_bytes = 4096,
				  .max_slots = 16384,
				  .policy = wfi_evict_find("lru") };
	struct wfi_events_opts e = { .first = 7, .wake = on_wake, .ctx = f };

	assert_non_null(f);
	assert_int_equal(wfi_sim_create(7, &f->sim), 0);
	kv.env = e.env = f->env = wfi_sim_node(f->sim, 0);
	assert_int_equal(wfi_kv_create(&kv, &f->kv), 0);
	tenant_add(f, 0);
	tenant_add(f, 1);
	assert_int_equal(wfi_events_create(&e, &f->events), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	wfi_events_destroy(f->events);
	wfi_kv_destroy(f->kv);
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ .lo = n + 1, .hi = n * 77 + 5 };
}

static bool same(const struct weft_key *key, uint64_t n)
{
	const struct weft_key want = key_of(n);

	return !memcmp(key, &want, sizeof(want));
}

/* a chain of @nr keys from @first on, of tenant @i */
static void put(struct fixture *f, unsigned i, uint64_t first, uint32_t nr)
{
	struct weft_slot slots[NR_MAX];
	struct weft_key keys[NR_MAX];
	int32_t results[NR_MAX];
	uint32_t k;

	assert_int_equal(wfi_kv_claim(f->kv, &f->owners[i], f->spaces[i].id, nr, slots, 1), nr);
	for (k = 0; k < nr; k++)
		keys[k] = key_of(first + k);
	assert_int_equal(wfi_kv_put(f->kv, &f->owners[i], f->spaces[i].id, NULL, keys, slots, nr,
				    NULL, results, 1),
			 nr);
}

static void drop(struct fixture *f, unsigned i, uint64_t n)
{
	const struct weft_key key = key_of(n);
	int32_t result;

	assert_int_equal(wfi_kv_drop(f->kv, f->spaces[i].id, &key, 1, &result), 1);
}

static void one_after_the_other(void **state)
{
	struct fixture *f = *state;
	const struct wfi_event *ev;
	uint64_t i;

	put(f, 0, 100, 1); /* nobody listens yet */
	wfi_events_start(f->events, f->kv);
	assert_int_equal(wfi_events_next(f->events), 7);
	assert_null(wfi_events_get(f->events, 7));
	put(f, 0, 0, 3);
	put(f, 1, 0, 1);
	drop(f, 0, 2);
	assert_int_equal(wfi_events_next(f->events), 12);
	for (i = 0; i < 3; i++) {
		ev = wfi_events_get(f->events, 7 + i);
		assert_true(ev && !ev->gone && ev->tenant == f->tenants[0] &&
			    ev->space == f->spaces[0].id && same(&ev->key, i));
		assert_true(i ? same(&ev->parent, i - 1) : !ev->parent.lo && !ev->parent.hi);
	}
	assert_ptr_equal(wfi_events_get(f->events, 10)->tenant, f->tenants[1]);
	ev = wfi_events_get(f->events, 11);
	assert_true(ev->gone && ev->tenant == f->tenants[0] && same(&ev->key, 2));
	wfi_events_stop(f->events);
	drop(f, 0, 1);
	assert_int_equal(wfi_events_next(f->events), 12);
}

/* two that watch are both told, and one that stops does not take the other along */
static void several_watch(void **state)
{
	struct fixture *f = *state;
	const struct wfi_events_opts o = { .env = f->env, .first = 1 };
	struct wfi_events *more;

	assert_int_equal(wfi_events_create(&o, &more), 0);
	wfi_events_start(f->events, f->kv);
	wfi_events_start(more, f->kv);
	put(f, 0, 0, 1);
	wfi_events_stop(f->events);
	put(f, 0, 1, 1);
	wfi_events_start(f->events, f->kv);
	wfi_events_stop(more);
	put(f, 0, 2, 1);
	wfi_events_stop(f->events);
	assert_int_equal(wfi_events_next(more), 3);
	assert_int_equal(wfi_events_next(f->events), 9);
	wfi_events_destroy(more);
}

static void overrun(void **state)
{
	struct fixture *f = *state;
	const uint64_t nr = WFI_EVENTS_MAX + 10;
	uint64_t i;

	wfi_events_start(f->events, f->kv);
	for (i = 0; i < nr / 2; i++) {
		put(f, 0, i, 1);
		drop(f, 0, i);
	}
	/* the first are there, the last were lost, and numbers tell so */
	assert_int_equal(wfi_events_next(f->events), 7 + nr);
	assert_non_null(wfi_events_get(f->events, 7));
	assert_non_null(wfi_events_get(f->events, 7 + WFI_EVENTS_MAX - 1));
	for (i = WFI_EVENTS_MAX; i <= nr; i++)
		assert_null(wfi_events_get(f->events, 7 + i));

	wfi_events_keep(f->events, 100);
	assert_int_equal(wfi_events_first(f->events), 7 + nr - 100);
	assert_null(wfi_events_get(f->events, 7 + nr - 101));
	assert_non_null(wfi_events_get(f->events, 7 + nr - 100));
	put(f, 0, 5, 1);
	assert_null(wfi_events_get(f->events, 7 + nr - 1));
	assert_true(same(&wfi_events_get(f->events, 7 + nr)->key, 5));
	wfi_events_stop(f->events);
}

static void wakes_once(void **state)
{
	struct fixture *f = *state;

	wfi_events_start(f->events, f->kv);
	put(f, 0, 0, 2);
	assert_int_equal(f->nr_wakes, 0);
	assert_false(wfi_events_arm(f->events, 8));
	assert_true(wfi_events_arm(f->events, 9));
	put(f, 0, 2, 2);
	assert_int_equal(f->nr_wakes, 1);
	wfi_events_stop(f->events);
}

static void walk(void **state)
{
	struct fixture *f = *state;
	struct wfi_event out[NR_MAX];
	uint32_t at = 0, nr = 0, slices = 0, i;
	bool seen[200] = { false };

	put(f, 0, 0, 200);
	put(f, 1, 1000, 50);
	do {
		const uint32_t n = wfi_events_walk(f->kv, f->tenants[0], &at, 64, out);

		assert_true(n <= 64);
		for (i = 0; i < n; i++) {
			const uint64_t k = out[i].key.lo - 1;

			assert_true(k < 200 && !seen[k] && same(&out[i].key, k));
			assert_true(k ? same(&out[i].parent, k - 1) : !out[i].parent.lo);
			seen[k] = true;
		}
		nr += n;
		slices++;
	} while (at);
	assert_int_equal(nr, 200);
	assert_true(slices > 3);
}

/* ---- the tier below ---- */

/* Return: events from *@seq on that say of key @n what is wanted */
static unsigned told(struct fixture *f, uint64_t *seq, uint64_t n, bool below, bool gone)
{
	const struct wfi_event *ev;
	unsigned nr = 0;

	for (; *seq < wfi_events_next(f->events); (*seq)++) {
		ev = wfi_events_get(f->events, *seq);
		assert_non_null(ev);
		if (ev->anew || !same(&ev->key, n) || ev->below != below || ev->gone != gone)
			continue;
		assert_ptr_equal(ev->tenant, f->tenants[0]);
		assert_int_equal(ev->space, f->spaces[0].id);
		nr++;
	}
	return nr;
}

/* others come until key 0 is in memory no more */
static void push_down(struct fixture *f)
{
	const struct weft_key key = key_of(0);
	uint64_t n = 1000;

	while (wfi_kv_match(f->kv, f->spaces[0].id, &key, 1, NULL) == 1) {
		put(f, 0, n, 16);
		n += 16;
		wfi_kv_poll(f->kv, 1);
		assert_true(n < 4000);
	}
}

static void below_comes_and_goes(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(0);
	uint64_t from = 7, seq;
	int32_t result;

	tier_open(f);
	wfi_events_start(f->events, f->kv);
	put(f, 0, 0, 1);
	push_down(f);
	seq = from;
	assert_int_equal(told(f, &seq, 0, false, false), 1);
	seq = from;
	assert_int_equal(told(f, &seq, 0, true, false), 1);
	/* it was told to be below before it was told to be gone above: it was never nowhere */
	for (seq = from; !told(f, &(uint64_t){ seq }, 0, true, false); seq++)
		;
	assert_int_equal(told(f, &(uint64_t){ seq }, 0, false, true), 1);
	seq = wfi_events_next(f->events);
	assert_int_equal(wfi_kv_drop(f->kv, f->spaces[0].id, &key, 1, &result), 1);
	assert_int_equal(told(f, &seq, 0, true, true), 1);
	wfi_events_stop(f->events);
}

static void walk_below(void **state)
{
	struct fixture *f = *state;
	struct wfi_event out[NR_MAX];
	uint32_t at = 0, idx = 0, nr[2] = { 0 }, i, n;
	struct wfi_tier_stat st;
	struct wfi_space_stat space;
	const char *name;

	tier_open(f);
	put(f, 0, 0, 1);
	push_down(f);
	put(f, 1, 0, 3);
	do {
		n = wfi_events_walk(f->kv, f->tenants[0], &at, 64, out);
		for (i = 0; i < n; i++) {
			assert_ptr_equal(out[i].tenant, f->tenants[0]);
			nr[out[i].below]++;
		}
	} while (at);
	assert_int_equal(wfi_kv_space_stat(f->kv, &idx, &space), 0);
	assert_int_equal(nr[0], space.blocks);
	wfi_kv_poll(f->kv, 1);
	wfi_kv_tier_stat(f->kv, &name, &st);
	assert_true(nr[1] > 0 && nr[1] >= st.blocks);
}

/* what an earlier life has left is not told one by one */
static void anew(void **state)
{
	struct fixture *f = *state;
	const struct wfi_event *ev;
	uint64_t seq;
	bool found = false;

	tier_open(f);
	put(f, 0, 0, 1);
	push_down(f);
	while (wfi_kv_tier_flush(f->kv))
		wfi_kv_poll(f->kv, 1);
	wfi_kv_destroy(f->kv);
	assert_int_equal(wfi_kv_create(&(struct wfi_kv_opts){ .env = f->env,
							      .extent_bytes = 4096,
							      .max_slots = 16384 },
				       &f->kv),
			 0);
	wfi_events_start(f->events, f->kv);
	tier_open(f);
	tenant_add(f, 0);
	tenant_add(f, 1);
	for (seq = 7; seq < wfi_events_next(f->events); seq++) {
		ev = wfi_events_get(f->events, seq);
		assert_true(ev && ev->anew && !ev->tenant);
		found = true;
	}
	assert_true(found);
	wfi_events_stop(f->events);
}

/* ---- two threads ---- */

struct reading {
	struct fixture *f;
	uint64_t nr, lost, wrong;
};

/* of one key's events each tells the opposite of the one before, unless some were lost */
static void *read_all(void *arg)
{
	struct reading *r = arg;
	struct wfi_events *e = r->f->events;
	bool held[NR_KEYS] = { false }, known = true;
	const struct wfi_event *ev;
	uint64_t seq = 7;
	bool over;

	do {
		over = atomic_load(&r->f->over);
		for (; seq < wfi_events_next(e); seq++) {
			ev = wfi_events_get(e, seq);
			r->nr += ev != NULL;
			r->lost += !ev;
			known &= ev != NULL;
			if (!ev)
				continue;
			if (!same(&ev->key, ev->key.lo - 1) || ev->key.lo > NR_KEYS)
				r->wrong++;
			else if (known && held[ev->key.lo - 1] != !!ev->gone)
				r->wrong++;
			else
				held[ev->key.lo - 1] = !ev->gone;
		}
		wfi_events_keep(e, 16);
		if (wfi_events_arm(e, seq))
			sched_yield();
	} while (!over);
	return NULL;
}

static void beside_the_worker(void **state)
{
	struct fixture *f = *state;
	struct reading r = { .f = f };
	pthread_t thread;
	uint64_t i;

	wfi_events_start(f->events, f->kv);
	assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
	for (i = 0; i < NR_CHANGES / 2; i++) {
		put(f, 0, i % NR_KEYS, 1);
		drop(f, 0, i % NR_KEYS);
	}
	atomic_store(&f->over, true);
	pthread_join(thread, NULL);
	wfi_events_stop(f->events);
	assert_int_equal(r.nr + r.lost, NR_CHANGES);
	assert_int_equal(r.wrong, 0);
	assert_true(r.nr > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_after_the_other, setup, teardown),
		cmocka_unit_test_setup_teardown(several_watch, setup, teardown),
		cmocka_unit_test_setup_teardown(overrun, setup, teardown),
		cmocka_unit_test_setup_teardown(wakes_once, setup, teardown),
		cmocka_unit_test_setup_teardown(walk, setup, teardown),
		cmocka_unit_test_setup_teardown(below_comes_and_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(walk_below, setup, teardown),
		cmocka_unit_test_setup_teardown(anew, setup, teardown),
		cmocka_unit_test_setup_teardown(beside_the_worker, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
