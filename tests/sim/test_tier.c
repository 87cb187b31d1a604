/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV manager over an SSD tier, in the simulated world: blocks go down and come back, a node is
 * killed at each labelled point, its drive loses and tears what it had not written, and the next
 * life finds no wrong block and no slot lost.
 *
 * WEFT_TEST_KILLS sets how many kills, WEFT_TEST_SEED where the seeds begin.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kvcache/kv_private.h"
#include "kvcache/tier_ssd.h"
#include "weft_internal/log.h"

#define ARENA (128u << 10)
#define TIER_BYTES (1u << 20)
#define PATH "tier"
#define NR_KEYS 300u
#define CHAIN 12u
#define NR_LABELS 64u
#define NR_POINTS_MIN 40u
#define LEASE_NS (100 * WFI_NSEC_PER_SEC)

/* what kills: the @nth time that a label is met */
static struct {
	jmp_buf out;
	bool armed;
	const char *label;
	unsigned nth;
	const char *seen[NR_LABELS];
	uint64_t kills[NR_LABELS];
	unsigned nr_seen;
} killer;

static unsigned label_idx(const char *label)
{
	unsigned i = 0;

	while (i < killer.nr_seen && strcmp(killer.seen[i], label))
		i++;
	assert_true(i < NR_LABELS);
	if (i == killer.nr_seen)
		killer.seen[killer.nr_seen++] = label;
	return i;
}

static void at_point(struct wfi_env *env, const char *label)
{
	const unsigned idx = label_idx(label);

	(void)env;
	if (!killer.armed || strcmp(label, killer.label) || --killer.nth)
		return;
	killer.kills[idx]++;
	killer.armed = false;
	longjmp(killer.out, 1);
}

struct world {
	struct wfi_sim *sim;
	struct wfi_env *env;
	const struct wfi_evict_policy *policy; /* NULL: the default */
	struct wfi_kv *kv;
	struct wfi_tier *tier;
	struct wfi_tenant *tenant, *other;
	struct wfi_owner owner;
	struct wfi_space_info space;
	struct wfi_fetch *fetch;
	uint32_t block_bytes;
	uint32_t other_weight; /* of a second tenant, which does nothing; 0: there is none */
	uint64_t write_bps; /* 0: no bound */
	uint64_t lease; /* 0: none */
	uint64_t budget_ns;
	struct weft_key keys[CHAIN];
	uint32_t slots[CHAIN];
	uint64_t numbers[CHAIN];
	unsigned fetched;
	unsigned came;
	int fetch_res;
	uint32_t reached;
};

static uint64_t rnd(struct world *w, uint64_t below)
{
	return wfi_sim_rand(w->sim) % below;
}

/* chains: number n's parent is n - 1, but for the first of each CHAIN */
static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ .lo = (n + 1) * 0x9e3779b97f4a7c15ull, .hi = ~n };
}

static struct weft_key parent_of(uint64_t n)
{
	return n % CHAIN ? key_of(n - 1) : (struct weft_key){ 0 };
}

static void fill(uint8_t *buf, uint64_t n, uint32_t len)
{
	for (uint32_t i = 0; i < len; i += 8) {
		const uint64_t v = (n + 1) * 0xbf58476d1ce4e5b9ull ^ i * 0x94d049bb1331ull;

		memcpy(buf + i, &v, wfi_min(8, len - i));
	}
}

static void check_slot(struct world *w, uint64_t n, uint32_t slot)
{
	uint8_t want[16384];

	fill(want, n, w->block_bytes);
	assert_memory_equal(wfi_kv_slot_addr(w->kv, slot), want, w->block_bytes);
	assert_int_equal(wfi_kv_verify(w->kv, slot), 0);
}

static void turn(struct world *w)
{
	wfi_sim_advance(w->sim, 50000);
	wfi_kv_poll(w->kv, wfi_now(w->env));
}

static void space_open(struct world *w)
{
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = w->block_bytes,
					       .model = "m",
					       .layout = "",
					       .tokens_per_block = 16 };

	assert_int_equal(wfi_kv_space_open(w->kv, w->tenant, &space, &w->space, NULL), 0);
}

static void start(struct world *w)
{
	const struct wfi_kv_opts kv = {
		.env = w->env, .policy = w->policy, .extent_bytes = 16384, .max_slots = 4096
	};
	const struct wfi_tenant_opts tenant = { .name = "t", .token = "", .arena_bytes = ARENA };
	const struct wfi_tenant_opts other = {
		.name = "o", .token = "o", .arena_bytes = ARENA, .weight = w->other_weight
	};
	const struct wfi_tier_ssd_opts ssd = { .env = w->env,
					       .path = PATH,
					       .bytes = TIER_BYTES,
					       .node = 7,
					       .scrub_bps = 1u << 20,
					       .chunk_bytes = 1u << 16 };
	const struct wfi_kv_tier_opts o = { .write_bps = w->write_bps };

	w->env->point = at_point;
	w->fetch = NULL;
	w->lease = 0;
	assert_int_equal(wfi_kv_create(&kv, &w->kv), 0);
	assert_int_equal(wfi_kv_tenant_add(w->kv, &tenant, &w->tenant), 0);
	if (w->other_weight)
		assert_int_equal(wfi_kv_tenant_add(w->kv, &other, &w->other), 0);
	assert_int_equal(wfi_tier_ssd_open(&ssd, &w->tier), 0);
	assert_int_equal(wfi_kv_tier_add(w->kv, w->tier, &o), 0);
	space_open(w);
	assert_int_equal(wfi_owner_init(w->kv, &w->owner, w->tenant), 0);
}

static void put(struct world *w, uint64_t first, unsigned nr)
{
	struct weft_key keys[CHAIN], parent = parent_of(first);
	struct weft_slot slots[CHAIN];
	int32_t results[CHAIN];
	unsigned i;

	if (wfi_kv_claim(w->kv, &w->owner, w->space.id, nr, slots, wfi_now(w->env)) < 0)
		return;
	for (i = 0; i < nr; i++) {
		keys[i] = key_of(first + i);
		fill(wfi_kv_slot_addr(w->kv, slots[i].idx), first + i, w->block_bytes);
	}
	wfi_kv_put(w->kv, &w->owner, w->space.id, &parent, keys, slots, nr, NULL, results,
		   wfi_now(w->env));
}

static void fetched(void *ctx, int res, uint32_t reached)
{
	struct world *w = ctx;

	w->fetch = NULL;
	w->fetch_res = res;
	w->reached = reached;
	w->came = 0;
	for (unsigned i = 0; i < w->fetched; i++) {
		if (w->slots[i] == WFI_SLOT_NONE)
			continue;
		check_slot(w, w->numbers[i], w->slots[i]);
		wfi_kv_unpin(w->kv, &w->slots[i], 1);
		w->came++;
	}
}

static void fetch(struct world *w, uint64_t first, unsigned nr)
{
	struct wfi_fetch_opts o = {
		.space = w->space.id,
		.nr = nr,
		.keys = w->keys,
		.slots = w->slots,
		.budget_ns = w->budget_ns,
		.now_ns = wfi_now(w->env),
		.deadline_ns = wfi_now(w->env) + WFI_NSEC_PER_SEC,
		.done = fetched,
		.ctx = w,
	};

	if (w->fetch)
		return;
	for (unsigned i = 0; i < nr; i++) {
		w->numbers[i] = first + i;
		w->keys[i] = key_of(first + i);
	}
	w->fetched = nr;
	wfi_kv_lookup(w->kv, w->space.id, w->keys, nr, w->slots, o.now_ns);
	for (unsigned i = 0; i < nr; i++)
		if (w->slots[i] != WFI_SLOT_NONE)
			check_slot(w, first + i, w->slots[i]);
	assert_int_equal(wfi_kv_fetch(w->kv, &o, &w->fetch), 0);
}

static struct wfi_tier_stat tier_stat(const struct world *w)
{
	struct wfi_tier_stat st;
	const char *name;

	assert_int_equal(wfi_kv_tier_stat(w->kv, &name, &st), 0);
	return st;
}

static void settle(struct world *w)
{
	struct wfi_tier_stat st;

	for (unsigned i = 0; i < 20000; i++) {
		turn(w);
		st = tier_stat(w);
		if (!w->fetch && !st.queued && st.state != WFI_TIER_OPENING)
			return;
	}
	fail_msg("the node does not come to rest");
}

/* as a match that leases: the longest prefix of a chain, wherever it is. Return: its length, or
 * why there is no lease */
static int lease(struct world *w, uint64_t first, unsigned nr, uint64_t ns, uint64_t *handle)
{
	const uint64_t now_ns = wfi_now(w->env);
	struct weft_key keys[CHAIN];
	uint32_t slots[CHAIN];
	uint32_t here;
	int n, ret;

	for (unsigned i = 0; i < nr; i++)
		keys[i] = key_of(first + i);
	here = (uint32_t)wfi_kv_prefix(w->kv, w->space.id, keys, nr, slots, now_ns);
	n = wfi_kv_match_tiers(w->kv, w->space.id, keys, nr, here, NULL, slots);
	ret = n ? wfi_kv_lease(w->kv, &w->owner, slots, (uint32_t)n, now_ns + ns, handle) : 0;
	return ret ? ret : n;
}

/* it goes, unless it is in use, and is opened anew: nothing of it is there any more */
static void space_again(struct world *w)
{
	const uint32_t before = w->space.id;
	struct wfi_tier_stat st;

	if (wfi_kv_space_remove(w->kv, before, NULL))
		return;
	while (wfi_kv_space_leaves(w->kv, before))
		turn(w);
	st = tier_stat(w);
	assert_int_equal(st.blocks, 0);
	space_open(w);
	assert_int_not_equal(w->space.id, before);
}

/* one step of a life */
static void step(struct world *w)
{
	const uint64_t chain = rnd(w, NR_KEYS / CHAIN) * CHAIN;
	const unsigned nr = 1 + (unsigned)rnd(w, CHAIN);
	struct weft_key key;
	int32_t result;

	switch (rnd(w, 16)) {
	case 0 ... 5:
		put(w, chain, nr);
		break;
	case 6 ... 9:
		fetch(w, chain, nr);
		break;
	case 10:
		key = key_of(chain + nr - 1);
		wfi_kv_prefetch(w->kv, w->space.id, &key, 1);
		break;
	case 11:
		key = key_of(chain + nr - 1);
		wfi_kv_drop(w->kv, w->space.id, &key, 1, &result);
		break;
	case 12:
		if (!rnd(w, 8))
			wfi_kv_tier_resize(w->kv, TIER_BYTES * (1 + rnd(w, 4)) / 2);
		else if (!rnd(w, 16))
			space_again(w);
		break;
	case 13:
		/* some of them are past by then */
		if (w->lease)
			wfi_kv_release(w->kv, &w->owner, w->lease);
		w->lease = 0;
		lease(w, chain, nr, rnd(w, 4) * WFI_NSEC_PER_MSEC, &w->lease);
		break;
	default:
		turn(w);
		break;
	}
	turn(w);
}

/* each slot of the file is held, free, or on its way from one to the other */
static void check_slots(struct world *w)
{
	const struct ssd *s = to_ssd(w->tier);
	uint64_t all = 0, found = s->nr_held + s->nr_retired;

	for (uint32_t i = 0; i < s->super.nr_chunks; i++)
		all += s->chunks[i].nr;
	for (uint32_t i = 0; i < SSD_CLASSES; i++)
		for (uint32_t at = s->classes[i].free; at != SSD_NONE;
		     at = (uint32_t)s->slots[at].next_free) {
			assert_int_equal(s->slots[at].state, SSD_FREE);
			found++;
			assert_true(found <= all);
		}
	assert_int_equal(found, all);
}

static void crash(struct world *w)
{
	const int fd = w->kv ? wfi_tenant_arena_ro_fd(w->tenant) : -1;

	if (fd >= 0)
		close(fd);
	w->kv = NULL;
	wfi_sim_crash(w->sim, 0);
}

/* a life that ends at a point, or when its steps are over; then one that looks at what is left */
static void life(struct world *w, const char *label, unsigned nth)
{
	killer.label = label;
	killer.nth = nth;
	killer.armed = label != NULL;
	w->kv = NULL;
	if (!setjmp(killer.out)) {
		start(w);
		for (unsigned i = 0; i < 120; i++)
			step(w);
	}
	killer.armed = false;
	crash(w);
	start(w);
	settle(w);
	if (!to_ssd(w->tier)->limit_chunks)
		fail_msg("no chunk");
	check_slots(w);
	for (uint64_t n = 0; n < NR_KEYS; n += CHAIN) {
		fetch(w, n, CHAIN);
		settle(w);
	}
	check_slots(w);
	crash(w);
}

static void world_init(struct world *w, uint64_t seed)
{
	const struct wfi_sim_faults faults = { .disk_lost_ppm = 300000, .disk_latency_ns = 400000 };

	memset(w, 0, sizeof(*w));
	assert_int_equal(wfi_sim_create(seed, &w->sim), 0);
	w->env = wfi_sim_node(w->sim, 0);
	w->block_bytes = seed & 1 ? 4096 : 3000;
	wfi_sim_set_faults(w->sim, &faults);
}

static uint64_t number(const char *name, uint64_t other)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : other;
}

static void test_kills(void **state)
{
	const uint64_t kills = number("WEFT_TEST_KILLS", 1000);
	uint64_t seed = number("WEFT_TEST_SEED", 1), done = 0, lives = 0;
	struct world w;
	unsigned at = 0, points = 0;

	(void)state;
	/* a life that nobody ends, to learn the labels */
	world_init(&w, seed);
	life(&w, NULL, 0);
	wfi_sim_destroy(w.sim);
	for (; done < kills; seed++) {
		assert_true(lives < 8 * kills + 100);
		world_init(&w, seed);
		/* the file has lives, too */
		for (unsigned i = 0; i < 4 && done < kills; i++, lives++) {
			const char *label = killer.seen[at++ % killer.nr_seen];

			life(&w, label, 1 + (unsigned)rnd(&w, 6));
			done = 0;
			for (unsigned k = 0; k < killer.nr_seen; k++)
				done += killer.kills[k];
		}
		wfi_sim_destroy(w.sim);
	}
	for (unsigned k = 0; k < killer.nr_seen; k++)
		points += killer.kills[k] > 0;
	print_message("%llu kills at %u points, %llu lives\n", (unsigned long long)done, points,
		      (unsigned long long)lives);
	assert_true(points >= wfi_min(NR_POINTS_MIN, kills / 4));
}

/* bad drives and kills together: service goes on, and what it serves is right */
static void test_bad_drive(void **state)
{
	struct world w;

	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		const struct wfi_sim_faults faults = {
			.disk_lost_ppm = 300000,
			.disk_latency_ns = 400000,
			.disk_error_ppm = seed % 2 ? 20000 : 0,
			.disk_short_ppm = seed % 3 ? 20000 : 0,
			.disk_flip_ppm = seed % 5 ? 50000 : 0,
			.disk_full_ppm = seed % 7 ? 0 : 20000,
		};

		world_init(&w, seed);
		wfi_sim_set_faults(w.sim, &faults);
		for (unsigned i = 0; i < 4; i++) {
			start(&w);
			for (unsigned k = 0; k < 300; k++)
				step(&w);
			crash(&w);
		}
		wfi_sim_destroy(w.sim);
	}
}

static void test_down_and_up(void **state)
{
	struct world w;
	struct weft_key keys[CHAIN];
	uint32_t where[CHAIN];

	(void)state;
	world_init(&w, 1);
	w.policy = wfi_evict_find("lru");
	start(&w);
	settle(&w);
	for (uint64_t n = 0; n < 8 * CHAIN; n += CHAIN / 2) {
		put(&w, n, CHAIN / 2);
		settle(&w);
	}
	/* memory holds 32 blocks, those used last: the first chain is below it */
	for (unsigned i = 0; i < CHAIN; i++)
		keys[i] = key_of(i);
	assert_int_equal(wfi_kv_match(w.kv, w.space.id, keys, CHAIN, NULL), 0);
	assert_int_equal(wfi_kv_match_tiers(w.kv, w.space.id, keys, CHAIN, 0, where, NULL), CHAIN);
	assert_int_equal(WEFT_WHERE_TIER(where[0]), WEFT_TIER_SSD);
	assert_true(WEFT_WHERE_US(where[0]) > 0);
	assert_true(WEFT_WHERE_US(where[CHAIN - 1]) > WEFT_WHERE_US(where[0]));
	/* a budget that nothing fits, then none */
	w.budget_ns = 1;
	fetch(&w, 0, CHAIN);
	settle(&w);
	assert_int_equal(w.fetch_res, -ETIME);
	assert_int_equal(w.came, 0);
	w.budget_ns = 0;
	fetch(&w, 0, CHAIN);
	settle(&w);
	assert_int_equal(w.fetch_res, 0);
	assert_int_equal(w.came, CHAIN);
	/* a prefetch brings what lies behind as well */
	assert_int_equal(wfi_kv_match(w.kv, w.space.id, keys, CHAIN, NULL), CHAIN);
	keys[0] = key_of(CHAIN);
	assert_int_equal(wfi_kv_prefetch(w.kv, w.space.id, keys, 1), 1);
	settle(&w);
	assert_int_equal(wfi_kv_match(w.kv, w.space.id, keys, 1, NULL), 1);
	/* the next life has them all */
	wfi_owner_fini(w.kv, &w.owner, false);
	wfi_kv_destroy(w.kv);
	start(&w);
	settle(&w);
	fetch(&w, 0, CHAIN);
	settle(&w);
	assert_int_equal(w.came, CHAIN);
	wfi_owner_fini(w.kv, &w.owner, false);
	wfi_kv_destroy(w.kv);
	wfi_sim_destroy(w.sim);
}

static void stop(struct world *w)
{
	unsigned turns = 0;

	for (; wfi_kv_tier_flush(w->kv); turns++) {
		assert_true(turns < 20000);
		turn(w);
	}
	wfi_owner_fini(w->kv, &w->owner, false);
	wfi_kv_destroy(w->kv);
}

/* told to stop while blocks are on their way down: those that the tier took are there again */
static void test_stop(void **state)
{
	struct wfi_sim_faults faults = { .disk_latency_ns = 2 * WFI_NSEC_PER_MSEC };
	struct world w;
	uint64_t blocks;

	(void)state;
	world_init(&w, 1);
	wfi_sim_set_faults(w.sim, &faults);
	start(&w);
	settle(&w);
	for (uint64_t n = 0; n < 8 * CHAIN; n++) {
		put(&w, n, 1);
		turn(&w);
	}
	assert_true(tier_stat(&w).queued > 0);
	blocks = tier_stat(&w).blocks;
	stop(&w);
	start(&w);
	settle(&w);
	assert_true(tier_stat(&w).recovered > 0);
	assert_true(tier_stat(&w).recovered >= blocks);
	/* a drive that takes nothing any more holds up no stop */
	for (unsigned i = 0; i < 2; i++) {
		faults = (struct wfi_sim_faults){ .disk_latency_ns = 1 };
		wfi_sim_set_faults(w.sim, &faults);
		for (uint64_t n = 0; n < 4 * CHAIN; n++) {
			put(&w, (8 + 4 * i) * CHAIN + n, 1);
			turn(&w);
		}
		faults.disk_error_ppm = i ? 0 : 1000000;
		faults.disk_full_ppm = i ? 1000000 : 0;
		wfi_sim_set_faults(w.sim, &faults);
		put(&w, (9 + 4 * i) * CHAIN, 4);
		turn(&w);
		stop(&w);
		faults = (struct wfi_sim_faults){ 0 };
		wfi_sim_set_faults(w.sim, &faults);
		start(&w);
		settle(&w);
	}
	stop(&w);
	wfi_sim_destroy(w.sim);
}

/* ---- leases ---- */

/* what is kept adds up */
static void check_kept(struct world *w, uint64_t want)
{
	const struct ssd *s = to_ssd(w->tier);
	uint64_t nr = 0, of_class[SSD_CLASSES] = { 0 };

	for (uint32_t i = 0; i < s->super.nr_chunks; i++)
		for (uint32_t k = 0; k < s->chunks[i].nr; k++) {
			const struct ssd_slot *st = &s->slots[s->chunks[i].first + k];

			if (st->state == SSD_FREE || !st->kept)
				continue;
			of_class[s->chunks[i].class]++;
			nr++;
		}
	for (uint32_t i = 0; i < SSD_CLASSES; i++)
		assert_int_equal(s->classes[i].nr_kept, of_class[i]);
	assert_int_equal(s->nr_kept, nr);
	assert_int_equal(nr, want);
	assert_int_equal(tier_stat(w).leased, want);
}

/* Return: of @nr numbers, those that are nowhere */
static unsigned lost(struct world *w, uint64_t first, uint64_t nr)
{
	unsigned none = 0;

	for (uint64_t n = first; n < first + nr; n++) {
		const struct weft_key key = key_of(n);

		none += !wfi_kv_match(w->kv, w->space.id, &key, 1, NULL) &&
			!wfi_kv_match_tiers(w->kv, w->space.id, &key, 1, 0, NULL, NULL);
	}
	return none;
}

/* so that nothing is dropped on the way down. Return: behind the last */
static uint64_t put_slowly(struct world *w, uint64_t first, uint64_t nr)
{
	const uint64_t end = first + nr;

	for (; first < end; first += CHAIN / 2) {
		put(w, first, CHAIN / 2);
		settle(w);
	}
	return end;
}

/* chains that nobody asks for again, more than twice what the tier holds. Return: behind the last
 */
static uint64_t flood(struct world *w, uint64_t first)
{
	return put_slowly(w, first, wfi_align_up(2 * TIER_BYTES / w->block_bytes, CHAIN));
}

static void lease_world(struct world *w, uint32_t other_weight)
{
	world_init(w, 1);
	w->policy = wfi_evict_find("lru");
	w->other_weight = other_weight;
	start(w);
	settle(w);
}

static void by_release(struct world *w, uint64_t handle)
{
	assert_int_equal(wfi_kv_release(w->kv, &w->owner, handle), CHAIN);
}

static void by_time(struct world *w, uint64_t handle)
{
	wfi_sim_advance(w->sim, 2 * LEASE_NS);
	turn(w);
	assert_int_equal(wfi_kv_release(w->kv, &w->owner, handle), -ENOENT);
}

static void by_death(struct world *w, uint64_t handle)
{
	(void)handle;
	wfi_owner_fini(w->kv, &w->owner, false);
	assert_int_equal(wfi_owner_init(w->kv, &w->owner, w->tenant), 0);
}

/* a chain below memory stays there while it is leased, whatever comes; and no longer */
static void test_lease(void **state)
{
	void (*const ends[])(struct world * w, uint64_t handle) = { by_release, by_time, by_death };
	uint64_t n = 0, chain, handle, second;
	struct weft_stat st;
	struct world w;

	(void)state;
	lease_world(&w, 0);
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(ends); i++) {
		chain = n;
		n = put_slowly(&w, n, 6 * CHAIN);
		assert_int_equal(lease(&w, chain, CHAIN, LEASE_NS, &handle), CHAIN);
		check_kept(&w, CHAIN);
		assert_int_equal(lease(&w, chain, CHAIN / 2, LEASE_NS, &second), CHAIN / 2);
		check_kept(&w, CHAIN);
		assert_int_equal(wfi_kv_release(w.kv, &w.owner, second), CHAIN / 2);
		check_kept(&w, CHAIN);
		n = flood(&w, n);
		assert_int_equal(lost(&w, chain, CHAIN), 0);
		assert_int_equal(lost(&w, chain + CHAIN, CHAIN), CHAIN);
		fetch(&w, chain, CHAIN);
		settle(&w);
		assert_int_equal(w.came, CHAIN);
		ends[i](&w, handle);
		turn(&w);
		check_kept(&w, 0);
		n = flood(&w, n);
		n = flood(&w, n);
		assert_int_equal(lost(&w, chain, CHAIN), CHAIN);
	}
	wfi_kv_stat(w.kv, w.tenant, &st);
	assert_int_equal(st.slots_leased, 0);
	check_slots(&w);
	stop(&w);
	wfi_sim_destroy(w.sim);
}

/* what is in memory is pinned there, what is not in the tier; a lease can't keep what is dropped,
 * but its slot */
static void test_lease_both(void **state)
{
	const uint64_t chain = 3 * CHAIN;
	const struct weft_key key = key_of(chain);
	struct weft_stat st;
	struct world w;
	uint64_t handle;
	int32_t result;

	(void)state;
	lease_world(&w, 0);
	put_slowly(&w, 0, 8 * CHAIN);
	fetch(&w, chain + 3, 2);
	settle(&w);
	assert_int_equal(w.came, 2);
	assert_int_equal(lease(&w, chain, CHAIN, LEASE_NS, &handle), CHAIN);
	wfi_kv_stat(w.kv, w.tenant, &st);
	assert_true(st.slots_leased >= 2 && st.slots_leased < CHAIN);
	check_kept(&w, CHAIN - st.slots_leased);
	assert_int_equal(wfi_kv_drop(w.kv, w.space.id, &key, 1, &result), 1);
	assert_int_equal(lost(&w, chain, 1), 1);
	check_kept(&w, CHAIN - st.slots_leased);
	/* a tier that gets smaller over them waits for the lease */
	assert_int_equal(wfi_kv_tier_resize(w.kv, tier_stat(&w).min_bytes), 0);
	settle(&w);
	assert_true(tier_stat(&w).file_bytes > tier_stat(&w).want_bytes);
	check_kept(&w, CHAIN - st.slots_leased);
	assert_int_equal(wfi_kv_release(w.kv, &w.owner, handle), CHAIN);
	for (unsigned i = 0; i < 100; i++)
		turn(&w);
	check_kept(&w, 0);
	assert_int_equal(tier_stat(&w).file_bytes, tier_stat(&w).want_bytes);
	check_slots(&w);
	stop(&w);
	wfi_sim_destroy(w.sim);
}

#define BOUND_CHAINS 14u

/* a tenant keeps its part of half of the tier at most: the rest goes on evicting */
static void lease_bound(struct world *w, uint32_t other)
{
	int ret = 0, lens[BOUND_CHAINS] = { 0 };
	uint64_t kept, most, evicted, handle;

	lease_world(w, other);
	put_slowly(w, 0, (BOUND_CHAINS + 4) * CHAIN);
	for (unsigned i = 0; i < BOUND_CHAINS && ret >= 0; i++)
		lens[i] = ret = lease(w, i * CHAIN, CHAIN, LEASE_NS, &handle);
	assert_int_equal(ret, -EDQUOT);
	/* it is all or nothing */
	kept = tier_stat(w).leased;
	check_kept(w, kept);
	most = tier_stat(w).bytes / 2 / (1 + other) / w->block_bytes;
	assert_in_range(kept, most - CHAIN, most);
	evicted = tier_stat(w).evicted;
	flood(w, 1000 * CHAIN);
	assert_true(tier_stat(w).evicted > evicted + 200);
	assert_int_equal(lost(w, 1000 * CHAIN, 3), 3);
	for (unsigned i = 0; i < BOUND_CHAINS && lens[i] > 0; i++)
		assert_int_equal(lost(w, i * CHAIN, (uint64_t)lens[i]), 0);
	wfi_owner_fini(w->kv, &w->owner, false);
	check_kept(w, 0);
	wfi_kv_destroy(w->kv);
	wfi_sim_destroy(w->sim);
}

static void test_lease_bound(void **state)
{
	struct world w;

	(void)state;
	lease_bound(&w, 0);
	lease_bound(&w, 3);
}

/* ---- the budget ---- */

/* blocks that somebody reads, so that they are worth a write */
static void put_used(struct world *w, struct wfi_owner *owner, uint32_t space, uint64_t n)
{
	const struct weft_key key = key_of(n);
	struct weft_slot slot;
	int32_t result;

	if (wfi_kv_claim(w->kv, owner, space, 1, &slot, wfi_now(w->env)) < 0)
		return;
	fill(wfi_kv_slot_addr(w->kv, slot.idx), n, w->block_bytes);
	wfi_kv_put(w->kv, owner, space, NULL, &key, &slot, 1, NULL, &result, wfi_now(w->env));
	wfi_kv_pin(w->kv, &slot.idx, 1);
	wfi_kv_unpin(w->kv, &slot.idx, 1);
}

/* a tenant that floods the tier leaves another its part of what may be written */
static void test_budget(void **state)
{
	const struct weft_space_opts opts = { .size = sizeof(opts),
					      .block_bytes = 4096,
					      .model = "o",
					      .layout = "",
					      .tokens_per_block = 16 };
	struct wfi_space_info space;
	struct wfi_owner owner;
	struct world w;
	uint64_t n = 0, other = 1u << 20, kept = 0;
	uint32_t slot;

	(void)state;
	world_init(&w, 1);
	w.policy = wfi_evict_find("lru");
	w.other_weight = 1;
	w.write_bps = 100 * 4096;
	start(&w);
	settle(&w);
	assert_int_equal(wfi_kv_space_open(w.kv, w.other, &opts, &space, NULL), 0);
	assert_int_equal(wfi_owner_init(w.kv, &owner, w.other), 0);
	/* one writes four times the budget, the other, later, a third of its half */
	for (unsigned i = 0; i < 4 * 400; i++) {
		put_used(&w, &w.owner, w.space.id, n++);
		if (i >= 400 && i % 24 == 0)
			put_used(&w, &owner, space.id, other++);
		for (unsigned k = 0; k < 4; k++) {
			wfi_sim_advance(w.sim, WFI_NSEC_PER_SEC / 1600);
			wfi_kv_poll(w.kv, wfi_now(w.env));
		}
	}
	settle(&w);
	for (uint64_t i = 1u << 20; i < other; i++) {
		const struct weft_key key = key_of(i);

		kept += wfi_kv_peek(w.kv, space.id, &key, 1, &slot) ||
			wfi_kv_match_tiers(w.kv, space.id, &key, 1, 0, NULL, NULL);
	}
	assert_int_equal(kept, other - (1u << 20));
	/* all of the budget is used, and no more */
	assert_in_range(to_ssd(w.tier)->count[SSD_C_PUT]->value, 380, 520);
	wfi_owner_fini(w.kv, &owner, false);
	stop(&w);
	wfi_sim_destroy(w.sim);
}

/* claims that come faster than the drive writes. Return: blocks that nobody wrote */
static unsigned burst(struct world *w, uint64_t *n)
{
	const unsigned before = lost(w, 0, *n);

	for (unsigned i = 0; i < 8; i++, ++*n)
		put(w, *n, 1);
	settle(w);
	return lost(w, 0, *n) - before;
}

/* what claims did not find makes the reserve larger, for a while */
static void test_reserve(void **state)
{
	struct world w;
	uint64_t n = 0;
	unsigned first;

	(void)state;
	world_init(&w, 1);
	start(&w);
	settle(&w);
	for (; n < 48; n++) {
		put(&w, n, 1);
		settle(&w);
	}
	assert_int_equal(lost(&w, 0, n), 0);
	first = burst(&w, &n);
	assert_true(first > 0);
	assert_true(burst(&w, &n) < first);
	for (unsigned i = 0; i < 60; i++) {
		wfi_sim_advance(w.sim, WFI_NSEC_PER_SEC);
		turn(&w);
	}
	for (unsigned i = 0; i < 16; i++, n++) {
		put(&w, n, 1);
		settle(&w);
	}
	/* it is forgotten */
	assert_true(burst(&w, &n) >= first);
	wfi_owner_fini(w.kv, &w.owner, false);
	wfi_kv_destroy(w.kv);
	wfi_sim_destroy(w.sim);
}

/* a fetch that is cancelled, and one whose drive never answers in time */
static void test_ends(void **state)
{
	struct wfi_sim_faults faults = { .disk_latency_ns = 1 };
	struct world w;

	(void)state;
	world_init(&w, 1);
	start(&w);
	settle(&w);
	for (uint64_t n = 0; n < 8 * CHAIN; n += CHAIN / 2) {
		put(&w, n, CHAIN / 2);
		settle(&w);
	}
	fetch(&w, 0, CHAIN);
	turn(&w);
	wfi_kv_fetch_cancel(w.kv, w.fetch, -ECANCELED);
	assert_int_equal(w.fetch_res, -ECANCELED);
	settle(&w);
	faults.disk_latency_ns = 100 * WFI_NSEC_PER_SEC;
	wfi_sim_set_faults(w.sim, &faults);
	fetch(&w, 2 * CHAIN, CHAIN);
	turn(&w);
	wfi_sim_advance(w.sim, 2 * WFI_NSEC_PER_SEC);
	turn(&w);
	assert_null(w.fetch);
	assert_int_equal(w.fetch_res, -ETIMEDOUT);
	faults.disk_latency_ns = 1;
	wfi_sim_set_faults(w.sim, &faults);
	wfi_sim_advance(w.sim, 200 * WFI_NSEC_PER_SEC);
	settle(&w);
	wfi_owner_fini(w.kv, &w.owner, false);
	wfi_kv_destroy(w.kv);
	wfi_sim_destroy(w.sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_down_and_up), cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_stop),	    cmocka_unit_test(test_lease),
		cmocka_unit_test(test_lease_both),  cmocka_unit_test(test_lease_bound),
		cmocka_unit_test(test_budget),	    cmocka_unit_test(test_ends),
		cmocka_unit_test(test_kills),	    cmocka_unit_test(test_bad_drive),
	};

	wfi_log_init(WFI_LOG_ERR, "test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
