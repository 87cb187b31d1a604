/* SPDX-License-Identifier: Apache-2.0 */
/* a space that goes: all that it held with it, and nothing that somebody uses */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/tier_ssd.h"
#include "tests/unit/kv_rig.h"
#include "weft_internal/log.h"

#define EXTENT 4096u
#define BLOCK 512u
#define EXTENTS 64u
#define ARENA (EXTENTS * EXTENT)
#define ALL (ARENA / BLOCK)
#define MS WFI_NSEC_PER_MSEC
#define PATH "tier"

struct fixture {
	struct kv_rig r;
	struct wfi_tenant *tenant;
	struct wfi_owner owner;
	struct wfi_space_info space, other;
	struct wfi_tier *tier;
	char why[184];
	/* as a watch sees it */
	struct wfi_kv_watch watch;
	uint64_t nr_held;
};

static void on_held(void *ctx, uint32_t slot, uint32_t parent, const struct weft_key *parent_key)
{
	struct fixture *f = ctx;

	(void)slot;
	(void)parent;
	(void)parent_key;
	f->nr_held++;
}

static void on_gone(void *ctx, uint32_t slot)
{
	struct fixture *f = ctx;

	(void)slot;
	f->nr_held--;
}

static void start(struct fixture *f, uint64_t memory_bytes)
{
	const struct wfi_kv_opts opts = {
		.env = f->r.env,
		.policy = wfi_evict_find("lru"),
		.extent_bytes = EXTENT,
		.lease_grace_ns = MS,
		.max_slots = 65536,
		.memory_bytes = memory_bytes,
	};

	assert_int_equal(wfi_kv_create(&opts, &f->r.kv), 0);
	f->watch = (struct wfi_kv_watch){ .held = on_held, .gone = on_gone, .ctx = f };
	wfi_kv_watch(f->r.kv, &f->watch);
	f->nr_held = 0;
	f->tenant = kv_rig_tenant(f->r.kv, "tenant", ARENA);
	assert_int_equal(wfi_owner_init(f->r.kv, &f->owner, f->tenant), 0);
}

static void spaces_open(struct fixture *f)
{
	f->space = kv_rig_space(f->r.kv, f->tenant, "model", BLOCK);
	f->other = kv_rig_space(f->r.kv, f->tenant, "other", 2 * BLOCK);
}

static int setup(void **state)
{
	struct fixture *f = kv_rig_create(sizeof(*f), 11);

	start(f, 0);
	spaces_open(f);
	*state = f;
	return 0;
}

static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ .lo = n + 1, .hi = n * 77 + 5 };
}

/* chains of eight, from key @first on */
static void put(struct fixture *f, uint32_t space, uint64_t first, uint32_t nr)
{
	struct weft_slot slots[8];
	struct weft_key keys[8];
	int32_t results[8];

	for (uint32_t at = 0; at < nr; at += 8) {
		assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, space, 8, slots, ++f->r.now), 8);
		for (uint32_t i = 0; i < 8; i++) {
			keys[i] = key_of(first + at + i);
			memset(wfi_kv_slot_addr(f->r.kv, slots[i].idx), (int)keys[i].lo, BLOCK);
		}
		assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, space, NULL, keys, slots, 8, NULL,
					    results, ++f->r.now),
				 8);
	}
}

static uint32_t found(struct fixture *f, uint32_t space, uint64_t first, uint32_t nr)
{
	uint32_t sum = 0, slot;

	for (uint64_t n = first; n < first + nr; n++) {
		const struct weft_key key = key_of(n);

		sum += (uint32_t)wfi_kv_peek(f->r.kv, space, &key, 1, &slot);
	}
	return sum;
}

static uint32_t slot_of(struct fixture *f, uint64_t n)
{
	const struct weft_key key = key_of(n);
	uint32_t slot;

	assert_int_equal(wfi_kv_peek(f->r.kv, f->space.id, &key, 1, &slot), 1);
	return slot;
}

static void turn(struct fixture *f)
{
	wfi_sim_advance(f->r.sim, MS / 20);
	f->r.now += MS / 20;
	wfi_kv_poll(f->r.kv, f->r.now);
}

static int removes(struct fixture *f, uint32_t space)
{
	f->why[0] = '\0';
	return wfi_kv_space_remove(f->r.kv, space, f->why);
}

/* Return: in how many turns */
static uint32_t gone(struct fixture *f, uint32_t space)
{
	uint32_t turns = 0;

	for (; wfi_kv_space_leaves(f->r.kv, space); turns++) {
		assert_in_range(turns, 0, 20000);
		turn(f);
	}
	return turns;
}

static uint32_t nr_spaces(struct fixture *f)
{
	struct wfi_space_stat st;
	uint32_t at = 0, nr = 0;

	while (!wfi_kv_space_stat(f->r.kv, &at, &st))
		nr++;
	return nr;
}

/* it stays, and is as it was */
static void stays(struct fixture *f, const char *why)
{
	assert_int_equal(removes(f, f->space.id), -EBUSY);
	assert_non_null(strstr(f->why, why));
	assert_false(wfi_kv_space_leaves(f->r.kv, f->space.id));
	assert_int_equal(found(f, f->space.id, 0, 16), 16);
}

/* ---- memory ---- */

static void goes_with_all(void **state)
{
	struct fixture *f = *state;
	const uint32_t id = f->space.id;
	struct wfi_space_info again;

	put(f, id, 0, ALL / 2);
	put(f, f->other.id, 0, 16);
	assert_int_equal(f->nr_held, ALL / 2 + 16);
	assert_int_equal(removes(f, id), 0);
	/* at once for who would use it */
	assert_true(wfi_kv_space_leaves(f->r.kv, id));
	assert_int_equal(wfi_kv_space_get(f->r.kv, f->tenant, id, &again), -ENOENT);
	assert_int_equal(wfi_kv_space_any(f->r.kv, id, &again), -ENOENT);
	assert_int_equal(wfi_kv_space_by_tag(f->r.kv, f->space.tag, &again), -ENOENT);
	assert_int_equal(found(f, id, 0, ALL / 2), 0);
	assert_int_equal(removes(f, id), -ENOENT);
	assert_int_equal(nr_spaces(f), 1);
	/* a slice of blocks in each turn */
	assert_true(gone(f, id) >= ALL / 2 / WFI_BLOCKS_SLICE);
	assert_int_equal(f->nr_held, 16);
	assert_int_equal(found(f, f->other.id, 0, 16), 16);
	assert_int_equal(f->r.kv->index.nr, 16);
	assert_int_equal(f->tenant->nr_free_extents, EXTENTS - 16 * 2 * BLOCK / EXTENT);
	/* its number is another's, its id nobody's */
	again = kv_rig_space(f->r.kv, f->tenant, "model", BLOCK);
	assert_int_not_equal(again.id, id);
	assert_int_equal(again.id & (KV_MAX_SPACES - 1), id & (KV_MAX_SPACES - 1));
	assert_int_equal(again.tag, f->space.tag);
	assert_int_equal(found(f, again.id, 0, ALL / 2), 0);
	assert_int_equal(found(f, id, 0, 1), 0);
	put(f, again.id, 0, 16);
	assert_int_equal(found(f, again.id, 0, 16), 16);
}

static void empty_and_unknown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(removes(f, 0), -ENOENT);
	assert_int_equal(removes(f, f->other.id + 1), -ENOENT);
	assert_int_equal(removes(f, f->other.id ^ KV_MAX_SPACES), -ENOENT);
	assert_int_equal(removes(f, f->space.id), 0);
	assert_int_equal(removes(f, f->other.id), 0);
	gone(f, f->other.id);
	assert_int_equal(nr_spaces(f), 0);
	spaces_open(f);
	assert_int_equal(nr_spaces(f), 2);
}

static void not_while_claimed(void **state)
{
	struct fixture *f = *state;
	struct weft_slot slot;

	put(f, f->space.id, 0, 16);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, &slot, f->r.now), 1);
	stays(f, "1 slots are claimed");
	assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, &slot, 1), 1);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
}

static void not_while_leased(void **state)
{
	struct fixture *f = *state;
	uint32_t slots[2];
	uint64_t lease;

	put(f, f->space.id, 0, 16);
	for (uint32_t i = 0; i < 2; i++)
		slots[i] = slot_of(f, i);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, slots, 2, f->r.now + 10 * MS, &lease), 0);
	stays(f, "2 leased");
	wfi_kv_pin(f->r.kv, slots, 2);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, lease), 2);
	stays(f, "2 leased or under way");
	wfi_kv_unpin(f->r.kv, slots, 2);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
}

/* an engine that hung up may still write to its claims */
static void not_before_a_process_is_gone(void **state)
{
	struct fixture *f = *state;
	struct wfi_owner engine;
	struct weft_slot slot;
	uint32_t id;

	put(f, f->space.id, 0, 16);
	assert_int_equal(wfi_owner_init(f->r.kv, &engine, f->tenant), 0);
	id = engine.id;
	assert_int_equal(wfi_kv_claim(f->r.kv, &engine, f->space.id, 1, &slot, f->r.now), 1);
	wfi_owner_fini(f->r.kv, &engine, true);
	stays(f, "1 held by who hung up");
	wfi_owner_gone(f->r.kv, id);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
}

/* a block that just failed its check waits for the next poll: it is nobody's */
static void with_a_bad_block(void **state)
{
	struct fixture *f = *state;
	uint32_t slot;

	put(f, f->space.id, 0, 16);
	slot = slot_of(f, 7);
	*(uint8_t *)wfi_kv_slot_addr(f->r.kv, slot) ^= 1;
	assert_int_equal(wfi_kv_verify(f->r.kv, slot), -EBADMSG);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
	assert_int_equal(f->tenant->nr_free_extents, EXTENTS);
}

static void open_while_it_goes(void **state)
{
	struct fixture *f = *state;
	const struct weft_space_opts opts = kv_rig_space_opts("model", BLOCK);
	struct wfi_space_info info;

	put(f, f->space.id, 0, ALL / 2);
	assert_int_equal(removes(f, f->space.id), 0);
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &opts, &info, f->why), -EAGAIN);
	assert_non_null(strstr(f->why, "try again"));
	/* others are served meanwhile, from what it gives back */
	for (uint64_t n = 0; n < ALL / 2; n += 8)
		put(f, f->other.id, n, 8);
	gone(f, f->space.id);
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &opts, &info, f->why), 0);
}

/* spaces come and go for longer than there are numbers */
static void again_and_again(void **state)
{
	struct fixture *f = *state;
	uint32_t before = f->space.id;

	for (unsigned i = 0; i < 3 * KV_MAX_SPACES; i++) {
		put(f, f->space.id, i, 8);
		assert_int_equal(removes(f, f->space.id), 0);
		gone(f, f->space.id);
		f->space = kv_rig_space(f->r.kv, f->tenant, "model", BLOCK);
		assert_int_not_equal(f->space.id, before);
		before = f->space.id;
	}
	assert_int_equal(f->nr_held, 0);
	assert_int_equal(nr_spaces(f), 2);
}

/* pages go back to all, and a run that was on its way to another space does not matter */
static void memory_of_all(void **state)
{
	struct fixture *f = kv_rig_create(sizeof(*f), 12);
	struct wfi_tenant *second;
	struct wfi_owner owner;
	struct wfi_space_info theirs;
	struct weft_slot slots[8];

	(void)state;
	start(f, ARENA);
	second = kv_rig_tenant(f->r.kv, "second", ARENA);
	spaces_open(f);
	put(f, f->space.id, 0, ALL);
	assert_int_equal(f->tenant->used_bytes, ARENA);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
	assert_int_equal(f->tenant->used_bytes, 0);
	assert_null(f->r.kv->leaving);
	assert_int_equal(f->tenant->nr_free_extents, EXTENTS);
	theirs = kv_rig_space(f->r.kv, second, "model", BLOCK);
	assert_int_equal(wfi_owner_init(f->r.kv, &owner, second), 0);
	for (unsigned i = 0; i < ALL / 8; i++)
		assert_int_equal(wfi_kv_claim(f->r.kv, &owner, theirs.id, 8, slots, f->r.now), 8);
	kv_rig_teardown((void **)&f);
}

/* ---- and the tier below ---- */

static void tier_add(struct fixture *f)
{
	const struct wfi_tier_ssd_opts ssd = { .env = f->r.env,
					       .path = PATH,
					       .bytes = 16u << 20,
					       .node = 7,
					       .chunk_bytes = 1u << 18 };
	const struct wfi_kv_tier_opts o = { 0 };

	assert_int_equal(wfi_tier_ssd_open(&ssd, &f->tier), 0);
	assert_int_equal(wfi_kv_tier_add(f->r.kv, f->tier, &o), 0);
}

static int setup_tier(void **state)
{
	struct fixture *f = kv_rig_create(sizeof(*f), 13);

	f->r.now = wfi_now(f->r.env);
	start(f, 0);
	tier_add(f);
	spaces_open(f);
	for (unsigned i = 0; i < 100; i++)
		turn(f);
	*state = f;
	return 0;
}

static struct wfi_tier_stat tier_stat(const struct fixture *f)
{
	struct wfi_tier_stat st;

	f->tier->ops->stat(f->tier, &st);
	return st;
}

static void settle(struct fixture *f)
{
	for (unsigned i = 0; i < 20000; i++) {
		turn(f);
		if (!tier_stat(f).queued && tier_stat(f).state == WFI_TIER_OK)
			return;
	}
	fail_msg("the tier does not come to rest");
}

static uint32_t below(struct fixture *f, const struct wfi_space_info *space, uint64_t first,
		      uint32_t nr)
{
	uint32_t sum = 0, slot;

	for (uint64_t n = first; n < first + nr; n++) {
		const struct weft_key key = key_of(n);

		sum += f->tier->ops->find(f->tier, space->tag, &key, 1, &slot);
	}
	return sum;
}

/* four times as many blocks as memory holds, a few at a time so that all are written */
static void fill(struct fixture *f, uint32_t space)
{
	for (uint64_t n = 0; n < 4 * ALL; n += 8) {
		put(f, space, n, 8);
		settle(f);
	}
}

static void restart(struct fixture *f)
{
	wfi_kv_destroy(f->r.kv);
	start(f, 0);
	tier_add(f);
	settle(f);
}

static void goes_from_the_tier(void **state)
{
	struct fixture *f = *state;

	fill(f, f->space.id);
	assert_true(below(f, &f->space, 0, 4 * ALL) > 2 * ALL);
	for (uint64_t n = 0; n < ALL; n += 8) {
		put(f, f->other.id, n, 8);
		settle(f);
	}
	const uint32_t theirs = below(f, &f->other, 0, ALL);

	assert_true(theirs > 0);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
	assert_int_equal(below(f, &f->space, 0, 4 * ALL), 0);
	assert_int_equal(below(f, &f->other, 0, ALL), theirs);
	assert_int_equal(tier_stat(f).blocks, theirs);
	settle(f);
	/* also over a restart */
	restart(f);
	assert_int_equal(below(f, &f->space, 0, 4 * ALL), 0);
	assert_int_equal(below(f, &f->other, 0, ALL), theirs);
}

/* blocks on their way down, and on their way up */
static void moves_end(void **state)
{
	struct fixture *f = *state;
	struct weft_key keys[64];

	fill(f, f->space.id);
	/* these push others out: written in the next turns */
	put(f, f->space.id, 100000, 64);
	turn(f);
	for (uint64_t n = 0; n < 64; n++)
		keys[n] = key_of(n);
	assert_true(wfi_kv_prefetch(f->r.kv, f->space.id, keys, 64) > 0);
	assert_true(tier_stat(f).queued > 0);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
	assert_int_equal(tier_stat(f).blocks, 0);
	assert_int_equal(f->nr_held, 0);
	assert_int_equal(f->tenant->nr_free_extents, EXTENTS);
}

static void not_while_leased_below(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(1);
	uint32_t slot = WFI_SLOT_NONE;
	uint64_t lease;

	fill(f, f->space.id);
	assert_int_equal(below(f, &f->space, 1, 1), 1);
	assert_int_equal(found(f, f->space.id, 1, 1), 0);
	assert_int_equal(wfi_kv_match_tiers(f->r.kv, f->space.id, &key, 1, 0, NULL, &slot), 1);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, &slot, 1, f->r.now + 10000 * MS, &lease),
			 0);
	assert_int_equal(removes(f, f->space.id), -EBUSY);
	assert_non_null(strstr(f->why, "1 leased below"));
	/* it is not the other's */
	assert_int_equal(removes(f, f->other.id), 0);
	gone(f, f->other.id);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, lease), 1);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
	assert_int_equal(tier_stat(f).blocks, 0);
}

/* what the start has not found yet is waited for */
static void while_the_tier_opens(void **state)
{
	struct fixture *f = *state;
	uint32_t held;

	fill(f, f->space.id);
	settle(f);
	held = below(f, &f->space, 0, 4 * ALL);
	wfi_kv_destroy(f->r.kv);
	start(f, 0);
	tier_add(f);
	spaces_open(f);
	assert_int_equal(tier_stat(f).state, WFI_TIER_OPENING);
	assert_int_equal(removes(f, f->space.id), 0);
	/* nobody spins until it has opened: what it finds it says itself */
	for (unsigned i = 0; i < 8 && tier_stat(f).state == WFI_TIER_OPENING; i++)
		wfi_kv_poll(f->r.kv, f->r.now);
	if (tier_stat(f).state == WFI_TIER_OPENING)
		assert_true(wfi_kv_next_event_ns(f->r.kv) > f->r.now);
	gone(f, f->space.id);
	assert_int_equal(tier_stat(f).state, WFI_TIER_OK);
	assert_true(tier_stat(f).recovered >= held);
	assert_int_equal(tier_stat(f).blocks, 0);
}

/* the tier counts blocks by space, in a table that ends */
static void tags_go(void **state)
{
	struct fixture *f = *state;
	struct wfi_space_info info;
	char model[32];

	for (unsigned i = 0; i < 10000; i++) {
		snprintf(model, sizeof(model), "m%u", i);
		info = kv_rig_space(f->r.kv, f->tenant, model, BLOCK);
		assert_int_equal(removes(f, info.id), 0);
		gone(f, info.id);
	}
	/* those that are there are still told apart */
	fill(f, f->space.id);
	assert_true(below(f, &f->space, 0, 4 * ALL) > 2 * ALL);
	assert_int_equal(removes(f, f->space.id), 0);
	gone(f, f->space.id);
	assert_int_equal(tier_stat(f).blocks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, kv_rig_teardown)
#define B(name) cmocka_unit_test_setup_teardown(name, setup_tier, kv_rig_teardown)
		T(goes_with_all),
		T(empty_and_unknown),
		T(not_while_claimed),
		T(not_while_leased),
		T(not_before_a_process_is_gone),
		T(with_a_bad_block),
		T(open_while_it_goes),
		T(again_and_again),
		cmocka_unit_test(memory_of_all),
		B(goes_from_the_tier),
		B(moves_end),
		B(not_while_leased_below),
		B(while_the_tier_opens),
		B(tags_go),
#undef T
#undef B
	};

	wfi_log_init(WFI_LOG_ERR, "test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
