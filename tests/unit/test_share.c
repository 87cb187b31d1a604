/* SPDX-License-Identifier: Apache-2.0 */
/* memory that tenants share: floors, weights, what is idle, and pages that go back */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>
#include "tests/unit/kv_rig.h"
#include "weft_internal/tier.h"

#define EXTENT 4096u
#define BLOCK 512u
#define PER_EXTENT (EXTENT / BLOCK)
#define EXTENTS 64u /* of memory for all, and of each arena */
#define MEMORY (EXTENTS * EXTENT)
#define ALL (EXTENTS * PER_EXTENT)
#define IDLE_NS (10 * WFI_NSEC_PER_SEC)
#define STEP_NS (2 * WFI_NSEC_PER_MSEC)

struct user {
	struct wfi_tenant *t;
	struct wfi_owner owner;
	uint32_t space;
	uint64_t next; /* key that no block had yet */
};

struct fixture {
	struct kv_rig r;
	struct user a, b;
};

static void user_add(struct fixture *f, struct user *u, const char *name, uint32_t floor,
		     uint32_t weight)
{
	const struct wfi_tenant_opts opts = {
		.name = name,
		.token = name,
		.arena_bytes = MEMORY,
		.floor_bytes = floor * EXTENT,
		.weight = weight,
	};

	assert_int_equal(wfi_kv_tenant_add(f->r.kv, &opts, &u->t), 0);
	assert_int_equal(wfi_owner_init(f->r.kv, &u->owner, u->t), 0);
	u->space = kv_rig_space(f->r.kv, u->t, "model", BLOCK).id;
	u->next = 1;
}

static void start(struct fixture *f, uint32_t floor_b, uint32_t weight_b)
{
	const struct wfi_kv_opts opts = {
		.env = f->r.env,
		.policy = wfi_evict_find("lru"),
		.extent_bytes = EXTENT,
		.max_slots = 65536,
		.memory_bytes = MEMORY,
		.idle_ns = IDLE_NS,
	};

	assert_int_equal(wfi_kv_create(&opts, &f->r.kv), 0);
	user_add(f, &f->a, "a", 0, 1);
	user_add(f, &f->b, "b", floor_b, weight_b);
}

static int setup(void **state)
{
	*state = kv_rig_create(sizeof(struct fixture), 3);
	return 0;
}

static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ .lo = n * 0x9e3779b97f4a7c15ull, .hi = n };
}

/* @nr blocks without parents, in claims of eight. Return: 0, or why the first claim failed */
static int put(struct fixture *f, struct user *u, uint32_t space, uint64_t first, uint32_t nr)
{
	struct weft_slot slots[PER_EXTENT];
	int32_t result;
	int ret;

	for (uint32_t i = 0; i < nr; i += PER_EXTENT) {
		const uint32_t n = (uint32_t)wfi_min(PER_EXTENT, nr - i);

		ret = wfi_kv_claim(f->r.kv, &u->owner, space, n, slots, f->r.now);
		if (ret < 0)
			return ret;
		for (uint32_t k = 0; k < n; k++) {
			const struct weft_key key = key_of(first + i + k);

			memset(wfi_kv_slot_addr(f->r.kv, slots[k].idx), (int)key.hi | 1, BLOCK);
			wfi_kv_put(f->r.kv, &u->owner, space, NULL, &key, &slots[k], 1, NULL,
				   &result, f->r.now);
		}
	}
	return 0;
}

/* blocks that were never there before */
static void flood(struct fixture *f, struct user *u, uint32_t nr)
{
	assert_int_equal(put(f, u, u->space, u->next, nr), 0);
	u->next += nr;
}

static void turn(struct fixture *f)
{
	f->r.now += STEP_NS;
	while (wfi_kv_poll(f->r.kv, f->r.now))
		;
}

/* looks for keys first .. first + nr - 1, and puts what is missing. Return: hits */
static uint32_t work(struct fixture *f, struct user *u, uint64_t first, uint32_t nr)
{
	uint32_t hits = 0, slot;

	for (uint32_t i = 0; i < nr; i++) {
		const struct weft_key key = key_of(first + i);

		if (wfi_kv_lookup(f->r.kv, u->space, &key, 1, &slot, f->r.now)) {
			assert_int_equal(wfi_kv_verify(f->r.kv, slot), 0);
			hits++;
		} else {
			assert_int_equal(put(f, u, u->space, first + i, 1), 0);
		}
	}
	return hits;
}

static uint32_t extents(const struct user *u)
{
	return (uint32_t)(u->t->used_bytes / EXTENT);
}

static uint64_t pages(const struct user *u)
{
	struct stat st;

	assert_int_equal(fstat(wfi_tenant_arena(u->t)->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512 / EXTENT;
}

static void a_flood_leaves_the_floor(void **state)
{
	struct fixture *f = *state;
	const uint32_t set = 20 * PER_EXTENT;
	uint32_t hits = 0;

	start(f, 24, 1);
	work(f, &f->b, 1, set);
	for (unsigned i = 0; i < 300; i++) {
		flood(f, &f->a, ALL / 4);
		turn(f);
		if (i % 3 == 0)
			hits += work(f, &f->b, 1, set);
	}
	assert_int_equal(hits, 100 * set);
	/* all but the floor is the flood's */
	assert_int_equal(extents(&f->a), EXTENTS - 24);
	assert_true(pages(&f->a) + pages(&f->b) <= EXTENTS);
}

/* the share that its weight gives is safe as well, while it is in use */
static void a_flood_leaves_the_share(void **state)
{
	struct fixture *f = *state;
	const uint32_t set = 30 * PER_EXTENT;
	uint32_t hits = 0;

	start(f, 0, 1);
	for (unsigned i = 0; i < 300; i++) {
		flood(f, &f->a, ALL / 4);
		turn(f);
		hits += work(f, &f->b, 1, set);
		/* once it has what it needs */
		if (i < 100)
			hits = 0;
	}
	assert_int_equal(hits, 200 * set);
	assert_true(extents(&f->b) >= 30);
	assert_int_equal(extents(&f->a) + extents(&f->b), EXTENTS);
}

static void press(struct fixture *f, unsigned turns)
{
	for (unsigned i = 0; i < turns; i++) {
		flood(f, &f->a, 2 * PER_EXTENT);
		flood(f, &f->b, 2 * PER_EXTENT);
		turn(f);
		assert_true(pages(&f->a) + pages(&f->b) <= EXTENTS);
	}
}

static void equal_pressure_equal_shares(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 1);
	flood(f, &f->a, 2 * ALL);
	assert_int_equal(extents(&f->a), EXTENTS);
	press(f, 100);
	assert_int_equal(extents(&f->a), EXTENTS / 2);
	assert_int_equal(extents(&f->b), EXTENTS / 2);
	/* there they stay: nothing goes back and forth */
	const uint64_t taken = f->r.kv->count[KV_C_RUN_TAKEN]->value;

	press(f, 100);
	assert_int_equal(f->r.kv->count[KV_C_RUN_TAKEN]->value, taken);
}

static void weights_say_how_much(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 3);
	flood(f, &f->a, 2 * ALL);
	press(f, 100);
	assert_in_range(extents(&f->b), EXTENTS * 3 / 4 - 1, EXTENTS * 3 / 4);
}

static void idle_memory_is_for_others(void **state)
{
	struct fixture *f = *state;

	start(f, 10, 1);
	flood(f, &f->b, 2 * ALL);
	assert_int_equal(extents(&f->b), EXTENTS);
	for (unsigned i = 0; i < 50; i++) {
		flood(f, &f->a, 2 * PER_EXTENT);
		turn(f);
	}
	assert_int_equal(extents(&f->a), EXTENTS / 2);
	f->r.now += IDLE_NS;
	for (unsigned i = 0; i < 50; i++) {
		flood(f, &f->a, 2 * PER_EXTENT);
		turn(f);
	}
	assert_int_equal(extents(&f->a), EXTENTS - 10);
	assert_int_equal(extents(&f->b), 10);
	/* and it comes back to its own */
	press(f, 100);
	assert_int_equal(extents(&f->b), EXTENTS / 2);
}

/* above a tier: what goes with a run goes there, but for the run that a space begins with */
static void runs_go_to_the_tier_below(void **state)
{
	struct fixture *f = *state;
	struct wfi_env *env = wfi_sim_node(f->r.sim, 0);
	const struct wfi_tier_ssd_opts ssd = { .env = env, .path = "tier", .bytes = 32u << 20 };
	const struct wfi_kv_tier_opts o = { 0 };
	struct wfi_tier *tier;
	uint32_t lost = 0;

	start(f, 0, 1);
	assert_int_equal(wfi_tier_ssd_open(&ssd, &tier), 0);
	assert_int_equal(wfi_kv_tier_add(f->r.kv, tier, &o), 0);
	for (unsigned i = 0; i < 1000; i++)
		turn(f);
	for (unsigned i = 0; i < 2 * EXTENTS; i++) {
		flood(f, &f->a, PER_EXTENT);
		turn(f);
		turn(f);
	}
	/* the reserve of free slots is less than that */
	assert_true(extents(&f->a) >= EXTENTS - 4);
	for (unsigned i = 0; i < 400; i++) {
		flood(f, &f->b, PER_EXTENT);
		turn(f);
		turn(f);
	}
	assert_in_range(extents(&f->b), EXTENTS / 2 - 2, EXTENTS / 2);
	assert_true(f->r.kv->count[KV_C_RUN_TAKEN]->value > EXTENTS / 4);
	for (uint64_t n = 1; n < f->a.next; n++) {
		const struct weft_key key = key_of(n);

		lost += !wfi_kv_match_tiers(f->r.kv, f->a.space, &key, 1, 0, NULL, NULL);
	}
	assert_in_range(lost, 0, PER_EXTENT);
}

/* ---- a block that goes from the tier below while room for it is made ---- */

static const struct wfi_tier_ops *real_ops;
static uint64_t wanted_tag; /* 0: nothing is wanted yet */
static struct weft_key wanted_key;
static unsigned nr_gone;

/* evicts what is wanted, and takes its slot */
static int put_in_its_place(struct wfi_tier *t, const struct wfi_tier_block *b, const void *bytes,
			    wfi_tier_done done, void *ctx)
{
	nr_gone += wanted_tag && real_ops->drop(t, wanted_tag, &wanted_key);
	return real_ops->put(t, b, bytes, done, ctx);
}

static void on_written(void *ctx, int res)
{
	*(int *)ctx = res;
}

static void on_fetched(void *ctx, int res, uint32_t reached)
{
	(void)res;
	(void)reached;
	*(bool *)ctx = true;
}

static void below_put(struct fixture *f, struct wfi_tier *tier, uint64_t tag,
		      const struct weft_key *key, uint8_t byte)
{
	_Alignas(4096) static uint8_t bytes[4096];
	struct wfi_tier_block b = { .key = *key, .space_tag = tag, .len = BLOCK };
	int res = 1;

	memset(bytes, byte, BLOCK);
	b.crc = wfi_crc32c(0, bytes, BLOCK);
	assert_int_equal(real_ops->put(tier, &b, bytes, on_written, &res), 0);
	for (unsigned i = 0; i < 1000 && res; i++)
		turn(f);
	assert_int_equal(res, 0);
}

static void room_is_made_of_what_is_wanted(void **state)
{
	struct fixture *f = *state;
	struct wfi_env *env = wfi_sim_node(f->r.sim, 0);
	const struct wfi_tier_ssd_opts ssd = { .env = env, .path = "tier", .bytes = 32u << 20 };
	const struct wfi_kv_tier_opts o = { 0 };
	const struct weft_key key = key_of(100000);
	uint32_t slot = WFI_SLOT_NONE;
	bool over = false;
	struct wfi_fetch_opts fetch = { .nr = 1,
					.keys = &key,
					.slots = &slot,
					.deadline_ns = UINT64_MAX,
					.done = on_fetched,
					.ctx = &over };
	static struct wfi_tier_ops ops;
	struct wfi_fetch *open;
	struct wfi_tier *tier;

	start(f, 0, 1);
	assert_int_equal(wfi_tier_ssd_open(&ssd, &tier), 0);
	real_ops = tier->ops;
	ops = *real_ops;
	ops.put = put_in_its_place;
	tier->ops = &ops;
	wanted_tag = 0;
	nr_gone = 0;
	assert_int_equal(wfi_kv_tier_add(f->r.kv, tier, &o), 0);
	for (unsigned i = 0; i < 1000; i++)
		turn(f);
	below_put(f, tier, kv_space(f->r.kv, f->b.space)->info.tag, &key, 'b');
	while (extents(&f->a) < EXTENTS)
		flood(f, &f->a, PER_EXTENT);
	wanted_tag = kv_space(f->r.kv, f->b.space)->info.tag;
	wanted_key = key;
	fetch.space = f->b.space;
	fetch.now_ns = f->r.now;
	assert_int_equal(wfi_kv_fetch(f->r.kv, &fetch, &open), 0);
	for (unsigned i = 0; i < 1000 && !over; i++)
		turn(f);
	assert_true(over);
	assert_int_equal(nr_gone, 1);
	/* another's bytes under this key would be wrong */
	if (slot != WFI_SLOT_NONE) {
		assert_int_equal(*(uint8_t *)wfi_kv_slot_addr(f->r.kv, slot), 'b');
		wfi_kv_unpin(f->r.kv, &slot, 1);
	}
	assert_int_equal(kv_space(f->r.kv, f->b.space)->nr_filling, 0);
	tier->ops = real_ops;
}

/* what is leased can't be taken, and the floor is there all the same: nobody else ever had it */
static void leases_of_others_leave_the_floor(void **state)
{
	struct fixture *f = *state;
	uint32_t slots[ALL], nr = 0;
	uint64_t lease;

	start(f, 16, 1);
	flood(f, &f->a, 2 * ALL);
	for (uint64_t n = 1; n < f->a.next; n++) {
		const struct weft_key key = key_of(n);

		nr += wfi_kv_lookup(f->r.kv, f->a.space, &key, 1, &slots[nr], f->r.now) == 1;
	}
	assert_int_equal(nr, (EXTENTS - 16) * PER_EXTENT);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->a.owner, slots, nr, UINT64_MAX, &lease), 0);
	assert_int_equal(put(f, &f->a, f->a.space, f->a.next, 1), -ENOSPC);
	flood(f, &f->b, 20 * PER_EXTENT);
	assert_int_equal(extents(&f->b), 16);
	/* with the lease's end the rest of its share is there to be had */
	assert_int_equal(wfi_kv_release(f->r.kv, &f->a.owner, lease), nr);
	press(f, 50);
	assert_int_equal(extents(&f->b), EXTENTS / 2);
}

static void pages_come_back_clean(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 1);
	flood(f, &f->a, ALL);
	assert_int_equal(pages(&f->a), EXTENTS);
	flood(f, &f->b, PER_EXTENT);
	assert_int_equal(wfi_kv_next_event_ns(f->r.kv), 0);
	turn(f);
	assert_int_equal(wfi_kv_next_event_ns(f->r.kv), UINT64_MAX);
	assert_int_equal(pages(&f->a), EXTENTS - 1);
	assert_int_equal(pages(&f->b), 1);
	/* gone while pages are on their way */
	flood(f, &f->b, PER_EXTENT);
	f->r.now += STEP_NS;
	flood(f, &f->b, PER_EXTENT);
	assert_non_null(f->r.kv->leaving);
}

static void floors_are_no_more_than_there_is(void **state)
{
	struct fixture *f = *state;
	struct wfi_tenant_opts opts = {
		.name = "c",
		.token = "c",
		.arena_bytes = MEMORY,
		.floor_bytes = MEMORY - 10 * EXTENT + 1,
	};
	struct wfi_tenant *t;

	start(f, 10, 1);
	assert_int_equal(wfi_kv_tenant_add(f->r.kv, &opts, &t), -EINVAL);
	opts.floor_bytes--;
	assert_int_equal(wfi_kv_tenant_add(f->r.kv, &opts, &t), 0);
	/* all is spoken for: who has no floor has nothing */
	assert_int_equal(put(f, &f->a, f->a.space, 1, 1), -ENOSPC);
}

/* blocks of 64 bytes take as many slot numbers as there are, were it not for the others */
static void numbers_are_kept_for_others(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 1);
	wfi_kv_destroy(f->r.kv);
	const struct wfi_kv_opts opts = {
		.env = f->r.env,
		.policy = wfi_evict_find("lru"),
		.extent_bytes = EXTENT,
		.max_slots = 8 * KV_GRANULE,
	};

	assert_int_equal(wfi_kv_create(&opts, &f->r.kv), 0);
	user_add(f, &f->a, "a", 0, 1);
	user_add(f, &f->b, "b", 0, 1);
	flood(f, &f->a, ALL);
	assert_int_equal(extents(&f->a), 6);
	flood(f, &f->b, ALL);
	assert_int_equal(extents(&f->b), 2);
}

static void spaces_of_a_tenant_share_too(void **state)
{
	struct fixture *f = *state;
	uint32_t second;
	uint64_t key = 1;

	start(f, 0, 1);
	second = kv_rig_space(f->r.kv, f->a.t, "other", BLOCK).id;
	flood(f, &f->a, 2 * ALL);
	for (unsigned i = 0; i < 100; i++, key += 2 * PER_EXTENT) {
		flood(f, &f->a, 2 * PER_EXTENT);
		assert_int_equal(put(f, &f->a, second, key, 2 * PER_EXTENT), 0);
		turn(f);
	}
	assert_int_equal(f->a.t->spaces->nr_runs, EXTENTS / 2);
	/* a model that nobody asks for any more */
	f->r.now += IDLE_NS;
	for (unsigned i = 0; i < 100; i++, key += 2 * PER_EXTENT) {
		assert_int_equal(put(f, &f->a, second, key, 2 * PER_EXTENT), 0);
		turn(f);
	}
	assert_int_equal(f->a.t->spaces->nr_runs, EXTENTS);
}

/* a space without a block keeps no memory from one that has use for it, its tenant's or another's
 * beyond the floor */
static void empty_spaces_keep_nothing(void **state)
{
	struct fixture *f = *state;
	const uint32_t floor = 8;
	struct wfi_space_stat st;
	struct weft_key key;
	uint32_t second;
	int32_t result;

	start(f, floor, 1);
	second = kv_rig_space(f->r.kv, f->a.t, "second", BLOCK).id;
	flood(f, &f->b, (EXTENTS - 4) * PER_EXTENT);
	for (uint64_t n = 1; n < f->b.next; n++) {
		key = key_of(n);
		assert_int_equal(wfi_kv_drop(f->r.kv, f->b.space, &key, 1, &result), 1);
	}
	turn(f);
	assert_int_equal(put(f, &f->a, second, 1, (EXTENTS - floor - 1) * PER_EXTENT), 0);
	assert_int_equal(extents(&f->b), floor + 1);
	for (uint64_t n = 1; n <= (EXTENTS - floor - 1) * PER_EXTENT; n++) {
		key = key_of(n);
		assert_int_equal(wfi_kv_drop(f->r.kv, second, &key, 1, &result), 1);
	}
	turn(f);
	for (uint32_t at = 0; !wfi_kv_space_stat(f->r.kv, &at, &st);)
		if (st.id == f->a.space)
			assert_int_equal(st.slots_room, (EXTENTS - floor - 1) * PER_EXTENT);
	flood(f, &f->a, (EXTENTS - floor - 1) * PER_EXTENT);
	for (uint32_t at = 0; !wfi_kv_space_stat(f->r.kv, &at, &st);)
		assert_int_equal(st.evicted, 0);
}

#define SMALL 64u

/* one block more of a space. Return: how many went for it */
static uint64_t put_small(struct fixture *f, uint32_t space, uint64_t n)
{
	const uint64_t before = f->r.kv->count[KV_C_EVICTED]->value;
	const struct weft_key key = key_of(n + 1);
	struct weft_slot slot;
	int32_t result;

	assert_int_equal(wfi_kv_claim(f->r.kv, &f->a.owner, space, 1, &slot, f->r.now), 1);
	assert_int_equal(wfi_kv_put(f->r.kv, &f->a.owner, space, NULL, &key, &slot, 1, NULL,
				    &result, f->r.now),
			 1);
	return f->r.kv->count[KV_C_EVICTED]->value - before;
}

/* two spaces, and memory for four runs of @run blocks */
static void start_large(struct fixture *f, uint32_t run, uint64_t max_first, uint32_t id[2])
{
	const struct wfi_kv_opts opts = { .env = f->r.env,
					  .policy = wfi_evict_find("lru"),
					  .extent_bytes = run * SMALL,
					  .max_slots = 16 * run };
	struct weft_space_opts first = kv_rig_space_opts("first", SMALL);
	struct wfi_space_info info;

	first.max_blocks = max_first;
	assert_int_equal(wfi_kv_create(&opts, &f->r.kv), 0);
	f->a.t = kv_rig_tenant(f->r.kv, "a", 4ull * run * SMALL);
	assert_int_equal(wfi_owner_init(f->r.kv, &f->a.owner, f->a.t), 0);
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->a.t, &first, &info, NULL), 0);
	id[0] = info.id;
	id[1] = kv_rig_space(f->r.kv, f->a.t, "second", SMALL).id;
}

/* three runs are the first one's, but for @less blocks, the fourth the second one's, and its next
 * claim makes a run of the first one leave. Return: the next key */
static uint64_t begin_emptying(struct fixture *f, uint32_t run, uint32_t less, const uint32_t id[2])
{
	uint64_t n = 0;

	while (n < 3ull * run - less)
		put_small(f, id[0], n++);
	for (uint32_t i = 0; i < run; i++)
		put_small(f, id[1], n++);
	f->r.now += STEP_NS;
	put_small(f, id[1], n++);
	return n;
}

static uint64_t evicted(const struct fixture *f)
{
	return f->r.kv->count[KV_C_EVICTED]->value;
}

static uint64_t taken(const struct fixture *f)
{
	return f->r.kv->count[KV_C_RUN_TAKEN]->value;
}

/* Return: a lease of block @n */
static uint64_t lease(struct fixture *f, uint32_t space, uint64_t n)
{
	const struct weft_key key = key_of(n + 1);
	uint64_t handle;
	uint32_t slot;

	assert_int_equal(wfi_kv_lookup(f->r.kv, space, &key, 1, &slot, f->r.now), 1);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->a.owner, &slot, 1, UINT64_MAX, &handle), 0);
	return handle;
}

/* a run of many blocks leaves its space in steps: no turn evicts all of them */
static void large_runs_go_in_steps(void **state)
{
	const uint32_t run = 2 * KV_EMPTY_BLOCKS;
	struct fixture *f = *state;
	uint64_t n = 0, before, most = 0;
	uint32_t id[2];

	start_large(f, run, 0, id);
	while (n < 4 * run)
		put_small(f, id[0], n++);
	/* it has nothing that could go: a run is its at once */
	assert_true(put_small(f, id[1], n++) > 0);
	while (n < 5 * run)
		put_small(f, id[1], n++);
	assert_int_equal(taken(f), 1);
	/* it gets a second one, and nobody waits for that */
	for (uint32_t i = 0; i < 20; i++) {
		f->r.now += STEP_NS;
		most = wfi_max(most, put_small(f, id[1], n++));
		before = evicted(f);
		wfi_kv_poll(f->r.kv, f->r.now);
		most = wfi_max(most, evicted(f) - before);
	}
	assert_int_equal(taken(f), 2);
	assert_in_range(most, 1, KV_EMPTY_BLOCKS);
}

/* nor does a claim of who is to lose it; and it goes all the same */
static void claims_clear_no_large_run(void **state)
{
	const uint32_t run = 8 * KV_EMPTY_BLOCKS;
	struct fixture *f = *state;
	uint64_t n, most = 0;
	uint32_t id[2];

	start_large(f, run, 0, id);
	n = begin_emptying(f, run, 0, id);
	assert_non_null(f->r.kv->emptying);
	for (uint32_t i = 0; i < 100; i++) {
		most = wfi_max(most, put_small(f, id[0], n++));
		f->r.now += STEP_NS;
		put_small(f, id[1], n++);
		wfi_kv_poll(f->r.kv, f->r.now);
	}
	assert_in_range(most, 1, KV_EMPTY_BLOCKS);
	assert_int_equal(taken(f), 1);
}

/* its free slots hold no blocks: a bound of blocks is not reached for them */
static void bounds_leave_out_what_leaves(void **state)
{
	const uint32_t run = 8 * KV_EMPTY_BLOCKS, less = 10;
	struct fixture *f = *state;
	uint32_t id[2];
	uint64_t n;

	start_large(f, run, 3ull * run - less, id);
	n = begin_emptying(f, run, less, id);
	wfi_kv_poll(f->r.kv, f->r.now);
	assert_non_null(f->r.kv->emptying);
	for (uint32_t i = 0; i < less; i++)
		assert_int_equal(put_small(f, id[0], n++), 0);
}

/* where each run has a block that is leased none of them can go, and no block goes in vain */
static void leased_runs_lose_nothing(void **state)
{
	const uint32_t run = 2 * KV_EMPTY_BLOCKS;
	uint64_t n = 0, before, leases[3];
	struct fixture *f = *state;
	uint32_t id[2], i;

	start_large(f, run, 0, id);
	while (n < 3 * run)
		put_small(f, id[0], n++);
	for (i = 0; i < 3; i++)
		leases[i] = lease(f, id[0], (i + 1) * run - 2);
	for (i = 0; i < run; i++)
		put_small(f, id[1], n++);
	before = evicted(f);
	for (i = 0; i < 20; i++) {
		f->r.now += STEP_NS;
		put_small(f, id[1], n++);
		wfi_kv_poll(f->r.kv, f->r.now);
	}
	/* its own, for what it claimed */
	assert_int_equal(evicted(f) - before, 20);
	assert_int_equal(taken(f), 0);
	/* one of them is free to go, not the coldest */
	assert_int_equal(wfi_kv_release(f->r.kv, &f->a.owner, leases[2]), 1);
	for (i = 0; i < 20; i++) {
		f->r.now += STEP_NS;
		put_small(f, id[1], n++);
		wfi_kv_poll(f->r.kv, f->r.now);
	}
	assert_int_equal(taken(f), 1);
	assert_in_range(evicted(f) - before, run, run + 60);
}

/* a lease ends what has begun, and nothing more goes for it */
static void a_lease_keeps_a_run(void **state)
{
	const uint32_t run = 8 * KV_EMPTY_BLOCKS;
	struct fixture *f = *state;
	uint32_t id[2];
	uint64_t before;

	start_large(f, run, 0, id);
	begin_emptying(f, run, 0, id);
	wfi_kv_poll(f->r.kv, f->r.now);
	assert_non_null(f->r.kv->emptying);
	lease(f, id[0], run - 2);
	before = evicted(f);
	wfi_kv_poll(f->r.kv, f->r.now);
	assert_null(f->r.kv->emptying);
	assert_int_equal(evicted(f), before);
	assert_int_equal(kv_space(f->r.kv, id[0])->nr_free, 1 + KV_EMPTY_BLOCKS);
}

/* nobody sleeps while a run leaves: its slots are nobody's meanwhile */
static void nobody_sleeps_over_a_run(void **state)
{
	const uint32_t run = 2 * KV_EMPTY_BLOCKS;
	struct fixture *f = *state;
	uint32_t id[2];

	start_large(f, run, 0, id);
	begin_emptying(f, run, 0, id);
	assert_non_null(f->r.kv->emptying);
	for (unsigned i = 0; i < 5 && f->r.kv->emptying; i++) {
		assert_int_equal(wfi_kv_next_event_ns(f->r.kv), 0);
		wfi_kv_poll(f->r.kv, f->r.now);
	}
	assert_null(f->r.kv->emptying);
	assert_int_equal(wfi_kv_next_event_ns(f->r.kv), UINT64_MAX);
	assert_int_equal(taken(f), 1);
}

/* a drive that takes no more keeps no run on its way: its slots are nobody's for a second */
static void a_hung_drive_holds_no_run(void **state)
{
	const struct wfi_sim_faults hangs = { .disk_latency_ns = 20 * WFI_NSEC_PER_SEC };
	const struct wfi_kv_tier_opts o = { 0 };
	struct fixture *f = *state;
	const struct wfi_tier_ssd_opts ssd = { .env = f->r.env,
					       .path = "tier",
					       .bytes = 32u << 20 };
	const uint32_t run = KV_GRANULE;
	struct wfi_tier *tier;
	uint32_t id[2];
	unsigned i;

	start_large(f, run, 0, id);
	assert_int_equal(wfi_tier_ssd_open(&ssd, &tier), 0);
	assert_int_equal(wfi_kv_tier_add(f->r.kv, tier, &o), 0);
	for (i = 0; i < 1000; i++)
		turn(f);
	wfi_sim_set_faults(f->r.sim, &hangs);
	begin_emptying(f, run, 0, id);
	assert_non_null(f->r.kv->emptying);
	for (i = 0; i < 2 * WFI_NSEC_PER_SEC / STEP_NS; i++) {
		turn(f);
		assert_true(!f->r.kv->emptying || f->r.kv->emptying_end_ns > f->r.now);
	}
	assert_int_equal(taken(f), 0);
	wfi_sim_advance(f->r.sim, hangs.disk_latency_ns);
	turn(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_flood_leaves_the_floor, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(a_flood_leaves_the_share, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(equal_pressure_equal_shares, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(weights_say_how_much, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(idle_memory_is_for_others, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(runs_go_to_the_tier_below, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(room_is_made_of_what_is_wanted, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(leases_of_others_leave_the_floor, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(pages_come_back_clean, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(floors_are_no_more_than_there_is, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(numbers_are_kept_for_others, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(spaces_of_a_tenant_share_too, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(empty_spaces_keep_nothing, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(large_runs_go_in_steps, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(claims_clear_no_large_run, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(bounds_leave_out_what_leaves, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(leased_runs_lose_nothing, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(a_lease_keeps_a_run, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(nobody_sleeps_over_a_run, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(a_hung_drive_holds_no_run, setup, kv_rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
