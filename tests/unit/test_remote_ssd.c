/* SPDX-License-Identifier: Apache-2.0 */
/* blocks of other nodes that lie in their SSD tiers, which fail, fill, and forget */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "tests/unit/remote_world.h"

#define SMALLEST_TIER 393216u
#define SETTLE_NS (10 * WFI_NSEC_PER_MSEC)

/* what a seek of .keys found */
struct found {
	bool done;
	uint32_t reached;
	uint32_t fetch_us;
	uint32_t nr_ssd;
	uint8_t peers[CHAIN];
};

static void on_found(void *ctx, const struct wfi_found *found)
{
	struct found *out = ctx;
	uint32_t i;

	out->done = true;
	out->reached = found->reached;
	out->fetch_us = found->fetch_us;
	memcpy(out->peers, found->peers, CHAIN);
	for (i = 0; i < CHAIN; i++)
		out->nr_ssd += found->peers[i] != WFI_PEER_NONE && found->peers[i] & WFI_PEER_SSD;
}

static struct found seek(struct fixture *f, uint32_t n)
{
	struct found out = { .done = false };
	const struct wfi_seek_opts o = { .space = f->nodes[n].space.id,
					 .nr = CHAIN,
					 .keys = f->keys,
					 .now_ns = now(f),
					 .deadline_ns = now(f) + DEADLINE_NS,
					 .done = on_found,
					 .ctx = &out };
	struct wfi_pull *pull;

	assert_int_equal(wfi_cluster_seek(f->nodes[n].cluster, &o, &pull), 0);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_true(out.done);
	return out;
}

/* .keys are in the SSD tier of node 1, and nowhere else */
static void put_below(struct fixture *f)
{
	put_chain(f, 1);
	flood(f, 1);
	assert_int_equal(held(f, 1), 0);
	assert_int_equal(below(f, 1), CHAIN);
}

static void faults(struct fixture *f, struct wfi_sim_faults with)
{
	wfi_sim_set_faults(f->sim, &with);
}

static void wait_open(struct fixture *f, uint32_t n)
{
	struct wfi_tier_stat st = { .state = WFI_TIER_OPENING };
	const char *name;

	while (st.state == WFI_TIER_OPENING) {
		turns(f, WFI_NSEC_PER_MSEC);
		assert_int_equal(wfi_kv_tier_stat(f->nodes[n].kv, &name, &st), 0);
	}
	assert_int_equal(st.state, WFI_TIER_OK);
}

/* ---- where it is ---- */

/* memory, both, the tier alone: each step is known to the others, and its bytes come from there */
static void test_down_and_up(void **state)
{
	struct fixture *f = *state;
	uint32_t round, n;

	put_chain(f, 1);
	for (round = 0; round < 3; round++) {
		for (n = 0; n < NODES; n += 2)
			assert_int_equal(seek(f, n).nr_ssd, 0);
		flood(f, 1);
		assert_int_equal(below(f, 1), CHAIN);
		for (n = 0; n < NODES; n += 2) {
			assert_int_equal(seek(f, n).reached, CHAIN);
			assert_int_equal(seek(f, n).nr_ssd, CHAIN);
		}
		assert_int_equal(get(f, 0), CHAIN);
		/* it lies in both, and memory is named */
		assert_int_equal(held(f, 1), CHAIN);
		assert_int_equal(below(f, 1), CHAIN);
		assert_int_equal(seek(f, 2).reached, CHAIN);
	}
	flood(f, 1);
	assert_int_equal(get(f, 2), CHAIN);
}

/* who has it in memory is asked, though another has it below */
static void test_memory_first(void **state)
{
	struct fixture *f = *state;
	struct found found;

	put_below(f);
	put_chain(f, 0);
	found = seek(f, 2);
	assert_int_equal(found.reached, CHAIN);
	assert_int_equal(found.nr_ssd, 0);
	assert_int_equal(get(f, 2), CHAIN);
	assert_int_equal(held(f, 1), 0);
}

static void test_drop_is_told(void **state)
{
	struct fixture *f = *state;
	int32_t results[CHAIN];

	put_below(f);
	wfi_kv_drop(f->nodes[1].kv, f->nodes[1].space.id, &f->keys[3], 1, results);
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 0).reached, 3);
	assert_int_equal(get(f, 0), CHAIN - 1);
	wfi_kv_drop(f->nodes[1].kv, f->nodes[1].space.id, f->keys, CHAIN, results);
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 0).reached, 0);
	assert_int_equal(get(f, 0), 0);
}

/* the clock of the tier takes blocks: others hear of it */
static void test_evicted_from_the_tier(void **state)
{
	struct fixture *f = *state;
	uint32_t i, left = CHAIN;

	put_below(f);
	for (i = 0; i < 1000 && left; i++) {
		put_others(f, 1, 1);
		if (below(f, 1) == left)
			continue;
		left = below(f, 1);
		turns(f, SETTLE_NS);
		assert_true(seek(f, 0).nr_ssd <= left);
		assert_true(seek(f, 2).nr_ssd <= left);
	}
	assert_int_equal(left, 0);
	assert_int_equal(get(f, 0), 0);
}

/* a smaller tier has lost what lay behind its end */
static void test_resized_away(void **state)
{
	struct fixture *f = *state;

	/* the one chunk that stays is full of others */
	put_others(f, 1, 120);
	put_below(f);
	assert_int_equal(wfi_kv_tier_resize(f->nodes[1].kv, SMALLEST_TIER), 0);
	turns(f, 50 * WFI_NSEC_PER_MSEC);
	assert_int_equal(below(f, 1), 0);
	assert_int_equal(seek(f, 0).reached, 0);
	assert_int_equal(seek(f, 2).reached, 0);
	assert_int_equal(get(f, 0), 0);
}

/* a message lost makes a gap, and all is told anew: what lies below, too */
static bool lose_one_announcement(struct fixture *f, struct letter *l)
{
	return l->msg.head.type != CLUSTER_ANNOUNCE || !l->msg.head.nr || f->odd++ != 1;
}

static void test_lost_announcement(void **state)
{
	struct fixture *f = *state;

	f->tamper = lose_one_announcement;
	put_below(f);
	turns(f, 3 * WFI_NSEC_PER_SEC);
	assert_int_equal(seek(f, 0).nr_ssd, CHAIN);
	assert_int_equal(seek(f, 2).nr_ssd, CHAIN);
	assert_int_equal(get(f, 0), CHAIN);
}

/* who comes later is told as well */
static void test_peer_comes_late(void **state)
{
	struct fixture *f = *state;
	uint32_t n;

	for (n = 0; n < 2; n++) {
		link_close(f, n, 2);
		link_close(f, 2, n);
	}
	put_below(f);
	for (n = 0; n < 2; n++) {
		link_open(f, n, 2);
		link_open(f, 2, n);
	}
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 2).nr_ssd, CHAIN);
	assert_int_equal(get(f, 2), CHAIN);
	assert_int_equal(get(f, 0), CHAIN);
}

/* ---- another life ---- */

static void links_of(struct fixture *f, uint32_t n, bool open)
{
	uint32_t i;

	for (i = 0; i < NODES; i++) {
		if (i == n)
			continue;
		if (open) {
			link_open(f, i, n);
			link_open(f, n, i);
		} else {
			link_close(f, i, n);
			link_close(f, n, i);
		}
	}
}

static void end(struct fixture *f, uint32_t n)
{
	links_of(f, n, false);
	f->head = f->tail;
	node_close(f, n);
}

static void test_restart(void **state)
{
	struct fixture *f = *state;

	put_below(f);
	end(f, 1);
	node_open(f, 1);
	node_open_space(f, 1);
	links_of(f, 1, true);
	wait_open(f, 1);
	turns(f, SETTLE_NS);
	assert_int_equal(below(f, 1), CHAIN);
	assert_int_equal(seek(f, 0).nr_ssd, CHAIN);
	assert_int_equal(get(f, 0), CHAIN);
	assert_int_equal(get(f, 2), CHAIN);
}

/* the beginning of the chain is lost: what is behind it is where who asks for it looks, still */
static void test_restart_without_root(void **state)
{
	struct fixture *f = *state;
	int32_t result;

	put_below(f);
	assert_int_equal(wfi_kv_drop(f->nodes[1].kv, f->nodes[1].space.id, f->keys, 1, &result), 1);
	turns(f, SETTLE_NS);
	end(f, 1);
	node_open(f, 1);
	node_open_space(f, 1);
	wait_open(f, 1);
	links_of(f, 1, true);
	turns(f, SETTLE_NS);
	assert_int_equal(below(f, 1), CHAIN - 1);
	assert_int_equal(get(f, 0), CHAIN - 1);
	assert_int_equal(get(f, 2), CHAIN - 1);
}

/* nothing can be lent of a space that nobody has opened; once somebody does, all is told */
static void test_space_opens_late(void **state)
{
	struct fixture *f = *state;

	put_below(f);
	end(f, 1);
	node_open(f, 1);
	links_of(f, 1, true);
	wait_open(f, 1);
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 0).reached, 0);
	node_open_space(f, 1);
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 0).nr_ssd, CHAIN);
	assert_int_equal(get(f, 0), CHAIN);
}

struct heard {
	struct wfi_kv_watch watch;
	uint32_t nr_anew;
};

static void no_held(void *ctx, uint32_t slot, uint32_t parent, const struct weft_key *parent_key)
{
	(void)ctx;
	(void)slot;
	(void)parent;
	(void)parent_key;
}

static void no_gone(void *ctx, uint32_t slot)
{
	(void)ctx;
	(void)slot;
}

static void no_below(void *ctx, uint32_t slot)
{
	no_gone(ctx, slot);
}

static void on_anew(void *ctx)
{
	struct heard *h = ctx;

	h->nr_anew++;
}

/* all is told anew for a space that has left something, and for no other: who opens one after the
 * other would have everybody begin again and again */
static void test_new_space_tells_nothing(void **state)
{
	struct fixture *f = *state;
	struct heard h = { .watch = { .held = no_held,
				      .gone = no_gone,
				      .below_held = no_below,
				      .below_gone = no_below,
				      .below_anew = on_anew,
				      .ctx = &h } };
	struct weft_space_opts other = { .size = sizeof(other),
					 .block_bytes = BLOCK_BYTES,
					 .model = "other",
					 .layout = "test",
					 .tokens_per_block = 16 };
	struct wfi_space_info space;

	put_below(f);
	end(f, 1);
	node_open(f, 1);
	wait_open(f, 1);
	wfi_kv_watch(f->nodes[1].kv, &h.watch);
	assert_int_equal(
		wfi_kv_space_open(f->nodes[1].kv, f->nodes[1].tenant, &other, &space, NULL), 0);
	assert_int_equal(h.nr_anew, 0);
	node_open_space(f, 1);
	assert_int_equal(h.nr_anew, 1);
	wfi_kv_unwatch(f->nodes[1].kv, &h.watch);
	links_of(f, 1, true);
	turns(f, SETTLE_NS);
	assert_int_equal(get(f, 0), CHAIN);
}

/* a tail whose beginning another node has, and this one only passed on: in memory it was told where
 * who asks looks for it, and so it is once it has gone below */
static void test_tail_of_another(void **state)
{
	struct fixture *f = *state;
	struct test_node *n = &f->nodes[1];
	struct weft_slot slots[CHAIN - 1];
	struct found out = { .done = false };
	const struct wfi_seek_opts o = { .space = n->space.id,
					 .nr = 1,
					 .keys = f->keys,
					 .now_ns = now(f),
					 .deadline_ns = now(f) + DEADLINE_NS,
					 .done = on_found,
					 .ctx = &out };
	int32_t results[CHAIN];
	struct wfi_pull *pull;

	put_chain(f, 0);
	wfi_kv_drop(f->nodes[0].kv, f->nodes[0].space.id, &f->keys[1], CHAIN - 1, results);
	turns(f, SETTLE_NS);
	assert_int_equal(wfi_cluster_seek(n->cluster, &o, &pull), 0);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_true(out.done);
	assert_int_equal(wfi_kv_claim(n->kv, &n->engine, n->space.id, CHAIN - 1, slots, now(f)),
			 CHAIN - 1);
	for (uint32_t i = 0; i < CHAIN - 1; i++)
		memset(wfi_kv_slot_addr(n->kv, slots[i].idx), (int)i + 2, BLOCK_BYTES);
	assert_int_equal(wfi_kv_put(n->kv, &n->engine, n->space.id, f->keys, f->keys + 1, slots,
				    CHAIN - 1, NULL, results, now(f)),
			 CHAIN - 1);
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 2).reached, CHAIN);
	flood(f, 1);
	assert_int_equal(below(f, 1), CHAIN - 1);
	assert_int_equal(seek(f, 2).reached, CHAIN);
	assert_int_equal(seek(f, 2).nr_ssd, CHAIN - 1);
	assert_int_equal(get(f, 2), CHAIN);
}

static void put_under(struct fixture *f, const struct weft_key *parent, const struct weft_key *key)
{
	struct test_node *n = &f->nodes[1];
	struct weft_slot slot;
	int32_t result;

	assert_int_equal(wfi_kv_claim(n->kv, &n->engine, n->space.id, 1, &slot, now(f)), 1);
	memset(wfi_kv_slot_addr(n->kv, slot.idx), 7, BLOCK_BYTES);
	assert_int_equal(wfi_kv_put(n->kv, &n->engine, n->space.id, parent, key, &slot, 1, NULL,
				    &result, now(f)),
			 1);
}

/* an engine names what it likes as a block's parent, and so each of two is the other's in the end:
 * who looks for their chain's beginning gets done */
static void test_own_ancestor(void **state)
{
	struct fixture *f = *state;
	struct test_node *n = &f->nodes[1];
	int32_t result;

	put_under(f, NULL, &f->keys[0]);
	put_under(f, &f->keys[0], &f->keys[1]);
	flood(f, 1);
	assert_int_equal(below(f, 1), 2);
	wfi_kv_drop(n->kv, n->space.id, f->keys, 1, &result);
	assert_int_equal(wfi_kv_prefetch(n->kv, n->space.id, &f->keys[1], 1), 1);
	turns(f, SETTLE_NS);
	put_under(f, &f->keys[1], &f->keys[0]);
	flood(f, 1);
	assert_int_equal(below(f, 1), 2);
	/* as in a file of before */
	for (uint32_t i = 0; i < 2; i++)
		wfi_kv_below_set_chain(n->kv, wfi_kv_below_find(n->kv, n->space.tag, &f->keys[i]),
				       0);
	assert_int_equal(wfi_kv_prefetch(n->kv, n->space.id, f->keys, 2), 2);
	turns(f, SETTLE_NS);
	assert_int_equal(held(f, 1), 2);
}

/* nobody has looked anything up */
static void test_own_looks_count_nothing(void **state)
{
	struct fixture *f = *state;
	struct wfi_space_stat before, after;
	uint32_t at = 0;

	put_chain(f, 1);
	assert_int_equal(wfi_kv_space_stat(f->nodes[1].kv, &at, &before), 0);
	put_others(f, 1, 100);
	turns(f, SETTLE_NS);
	assert_int_equal(below(f, 1), CHAIN);
	at = 0;
	assert_int_equal(wfi_kv_space_stat(f->nodes[1].kv, &at, &after), 0);
	assert_int_equal(after.hits, before.hits);
	assert_int_equal(after.misses, before.misses);
}

/* ---- what goes wrong ---- */

/* named by the tier, told to all, and a miss for who asked */
static void test_read_error(void **state)
{
	struct fixture *f = *state;
	struct wfi_tier_stat st;
	const char *name;

	put_below(f);
	faults(f, (struct wfi_sim_faults){ .disk_error_ppm = 1000000 });
	assert_int_equal(get(f, 0), 0);
	faults(f, (struct wfi_sim_faults){ 0 });
	wfi_kv_tier_stat(f->nodes[1].kv, &name, &st);
	assert_true(st.bad[WFI_TIER_BAD_READ]);
	assert_int_equal(below(f, 1), 0);
	assert_int_equal(seek(f, 0).reached, 0);
	assert_int_equal(seek(f, 2).reached, 0);
}

static void test_bit_rot(void **state)
{
	struct fixture *f = *state;
	struct wfi_tier_stat st;
	uint8_t want_bytes[BLOCK_BYTES];
	const char *name;
	uint64_t len, at, nr = 0;
	unsigned char *file;

	put_below(f);
	memset(want_bytes, 3, sizeof(want_bytes));
	file = wfi_sim_file(f->sim, 1, TIER_PATH, &len);
	for (at = 0; at + BLOCK_BYTES <= len; at += BLOCK_BYTES)
		if (!memcmp(file + at, want_bytes, BLOCK_BYTES)) {
			file[at + 100] ^= 4;
			nr++;
		}
	assert_int_equal(nr, 1);
	assert_int_equal(get(f, 0), CHAIN - 1);
	wfi_kv_tier_stat(f->nodes[1].kv, &name, &st);
	assert_int_equal(st.bad[WFI_TIER_BAD_BODY], 1);
	assert_int_equal(seek(f, 0).reached, 2);
}

static void test_file_cut(void **state)
{
	struct fixture *f = *state;

	put_below(f);
	assert_int_equal(wfi_sim_truncate(f->sim, 1, TIER_PATH, 8192), 0);
	assert_int_equal(get(f, 0), 0);
	turns(f, SETTLE_NS);
	assert_int_equal(seek(f, 0).reached, 0);
}

/* what fails is tried nowhere again, and what another has comes from there */
static void test_other_holder(void **state)
{
	struct fixture *f = *state;

	put_below(f);
	put_chain(f, 0);
	flood(f, 0);
	assert_int_equal(below(f, 0), CHAIN);
	assert_int_equal(seek(f, 2).nr_ssd, CHAIN);
	assert_int_equal(wfi_sim_truncate(f->sim, 1, TIER_PATH, 8192), 0);
	assert_int_equal(get(f, 2), CHAIN);
	assert_int_equal(wfi_sim_truncate(f->sim, 0, TIER_PATH, 8192), 0);
	flood(f, 0);
	assert_int_equal(get(f, 2), 0);
}

/* all of the holder's memory is leased: there is no room for what is below, and that is said */
static void test_no_room(void **state)
{
	struct fixture *f = *state;
	struct test_node *n = &f->nodes[1];
	struct weft_slot slots[64];
	uint64_t begin_ns;
	struct wish w;
	int nr = 64, got = 0, ret;

	put_below(f);
	while (nr) {
		ret = wfi_kv_claim(n->kv, &n->engine, n->space.id, (uint32_t)nr, slots + got,
				   now(f));
		if (ret < 0)
			nr /= 2;
		else
			got += ret;
		assert_true(got <= 64);
		nr = (int)wfi_min(nr, 64 - got);
	}
	turns(f, SETTLE_NS);
	begin_ns = now(f);
	want(f, 0, &w, DEADLINE_NS);
	while (!w.done)
		turns(f, WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
	assert_true(now(f) - begin_ns < DEADLINE_NS / 2);
	assert_int_equal(wfi_kv_unclaim(n->kv, &n->engine, slots, (uint32_t)got), got);
	turns(f, SETTLE_NS);
	assert_int_equal(get(f, 0), CHAIN);
}

/* ---- how long it takes ---- */

static const struct wfi_sim_faults slow = { .disk_latency_ns = 40 * WFI_NSEC_PER_MSEC };

/* measures the drive of node 1 as it is by now */
static void measure(struct fixture *f)
{
	uint32_t i;

	for (i = 0; i < 12; i++) {
		get(f, 0);
		flood(f, 1);
	}
}

/* an estimate is what was measured there, and heard here */
static void test_estimate(void **state)
{
	struct fixture *f = *state;
	struct found fast, late;
	struct wish w;
	uint32_t i;

	put_below(f);
	fast = seek(f, 0);
	assert_int_equal(fast.nr_ssd, CHAIN);
	faults(f, slow);
	measure(f);
	late = seek(f, 0);
	assert_int_equal(late.nr_ssd, CHAIN);
	assert_true(late.fetch_us > 4 * fast.fetch_us);
	/* and a budget is held against it: nothing is asked for */
	i = f->nr_sent[CLUSTER_LEASE];
	want_within(f, 0, &w, fast.fetch_us * WFI_NSEC_PER_USEC, DEADLINE_NS);
	turns(f, SETTLE_NS);
	assert_int_equal(came(&w), 0);
	assert_int_equal(f->nr_sent[CLUSTER_LEASE], i);
	for (i = 0; i < CHAIN; i++)
		assert_int_equal(w.results[i], -ETIME);
	want_within(f, 0, &w, 8 * DEADLINE_NS, 8 * DEADLINE_NS);
	turns(f, 8 * DEADLINE_NS);
	assert_int_equal(came(&w), CHAIN);
}

static bool lose_speed(struct fixture *f, struct letter *l)
{
	(void)f;
	return l->msg.head.type != CLUSTER_SPEED;
}

/* who asks knows nothing of the drive: the holder says what is too slow */
static void test_holder_leaves(void **state)
{
	struct fixture *f = *state;
	struct wish w;
	uint32_t i;

	f->tamper = lose_speed;
	put_below(f);
	faults(f, slow);
	measure(f);
	want_within(f, 0, &w, WFI_NSEC_PER_MSEC, DEADLINE_NS);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
	for (i = 0; i < CHAIN; i++)
		assert_int_equal(w.results[i], -ETIME);
	assert_int_equal(below(f, 1), CHAIN);
}

/* a drive that hangs: what is there by the time that it matters comes, and nothing is late */
/* a node goes, whose memory was not used for a while */
static void drain_node(struct fixture *f, uint32_t n)
{
	uint32_t i;

	wfi_sim_advance(f->sim, 100 * WFI_NSEC_PER_SEC);
	turns(f, SETTLE_NS);
	f->nr_sent[CLUSTER_OFFER] = 0;
	for (i = 0; i < 1000 && !wfi_cluster_drain(f->nodes[n].cluster, now(f)); i++)
		turns(f, WFI_NSEC_PER_MSEC);
	assert_true(i < 1000);
	for (i = 0; i < NODES; i++)
		if (i != n)
			link_close(f, i, n);
	turns(f, SETTLE_NS);
}

/* what was asked for in the tier of one that goes is others' */
static void test_drain_hands_on(void **state)
{
	struct fixture *f = *state;
	uint32_t taker;

	put_below(f);
	assert_int_equal(get(f, 0), CHAIN);
	flood(f, 1);
	drain_node(f, 1);
	assert_in_range(f->nr_sent[CLUSTER_OFFER], 1, 2 * CHAIN);
	taker = held(f, 0) ? 0 : 2;
	assert_int_equal(held(f, taker), CHAIN);
	assert_int_equal(seek(f, 2 - taker).reached, CHAIN);
	assert_int_equal(get(f, 2 - taker), CHAIN);
}

/* what nobody wanted goes with it */
static void test_drain_leaves_the_rest(void **state)
{
	struct fixture *f = *state;

	put_below(f);
	drain_node(f, 1);
	assert_int_equal(f->nr_sent[CLUSTER_OFFER], 0);
	assert_int_equal(get(f, 0), 0);
}

/* a drive that gives nothing holds up nobody's end */
static void test_drain_at_fault(void **state)
{
	struct fixture *f = *state;

	put_below(f);
	assert_int_equal(get(f, 0), CHAIN);
	flood(f, 1);
	faults(f, (struct wfi_sim_faults){ .disk_error_ppm = 1000000 });
	drain_node(f, 1);
	assert_int_equal(get(f, 0), 0);
	faults(f, (struct wfi_sim_faults){ .disk_error_ppm = 0 });
}

static void test_deadline(void **state)
{
	const struct wfi_sim_faults hangs = { .disk_latency_ns = 20 * WFI_NSEC_PER_SEC };
	struct fixture *f = *state;
	struct wish w;

	put_below(f);
	faults(f, hangs);
	want(f, 0, &w, DEADLINE_NS);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	assert_true(came(&w) < CHAIN);
	faults(f, (struct wfi_sim_faults){ 0 });
	turns(f, 21 * WFI_NSEC_PER_SEC);
	assert_int_equal(get(f, 0), CHAIN);
}

/* a peer that asks for ever more, and has all the time in the world: what waits for it is bounded,
 * and what is pinned meanwhile */
static void test_greedy_peer(void **state)
{
	const struct wfi_sim_faults hangs = { .disk_latency_ns = 20 * WFI_NSEC_PER_SEC };
	struct fixture *f = *state;
	struct test_node *n = &f->nodes[1];
	union cluster_msg m;

	put_below(f);
	faults(f, hangs);
	m.lease = (struct cluster_lease){ .incarnation = wfi_kv_incarnation(n->kv),
					  .space_tag = n->space.tag,
					  .lease_us = UINT32_MAX,
					  .fetch_us = UINT32_MAX };
	memcpy(m.lease.keys, f->keys, sizeof(f->keys));
	f->nr_sent[CLUSTER_LEASED] = 0;
	for (uint32_t i = 0; i < 2 * WFI_CLUSTER_CREDITS; i++) {
		cluster_msg_head(&m, CLUSTER_LEASE, CHAIN, (uint64_t)7 << 32 | i);
		assert_int_equal(wfi_cluster_message(n->cluster, &n->links[0].base, &m, m.head.len,
						     now(f)),
				 0);
	}
	assert_int_equal(f->nr_sent[CLUSTER_LEASED], WFI_CLUSTER_CREDITS);
	/* no longer than a lease of it would be */
	turns(f, 2 * WFI_NSEC_PER_SEC);
	assert_int_equal(f->nr_sent[CLUSTER_LEASED], 2 * WFI_CLUSTER_CREDITS);
	faults(f, (struct wfi_sim_faults){ 0 });
	turns(f, 21 * WFI_NSEC_PER_SEC);
}

static void test_asker_lost(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	put_below(f);
	faults(f, slow);
	want(f, 0, &w, DEADLINE_NS);
	turns(f, WFI_NSEC_PER_MSEC);
	/* the holder hears of it while its drive works */
	link_close(f, 1, 0);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
}

static void test_holder_lost(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	put_below(f);
	faults(f, slow);
	want(f, 0, &w, DEADLINE_NS);
	turns(f, WFI_NSEC_PER_MSEC);
	link_close(f, 0, 1);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
}

static bool short_lease(struct fixture *f, struct letter *l)
{
	(void)f;
	if (l->msg.head.type == CLUSTER_LEASE)
		l->msg.lease.lease_us = 1;
	if (l->msg.head.type == CLUSTER_LEASED) {
		l->msg.leased.lease_us = 1000000;
		l->at_ns = now(f) + 60 * WFI_NSEC_PER_MSEC;
	}
	return true;
}

/* brought up, and evicted again before it is READ: the check finds it, whatever lies there */
static void test_evicted_before_read(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	put_below(f);
	f->tamper = short_lease;
	want(f, 0, &w, DEADLINE_NS);
	/* of 20 ms that a holder has to answer */
	turns(f, WFI_NSEC_PER_MSEC);
	flood(f, 1);
	turns(f, DEADLINE_NS);
	assert_int_equal(came(&w), 0);
}

/* numbers beyond reason, of a peer that is one */
static bool lie_of_speed(struct fixture *f, struct letter *l)
{
	(void)f;
	if (l->msg.head.type == CLUSTER_SPEED) {
		l->msg.speed.bytes_per_ms = f->odd ? UINT64_MAX : 1;
		l->msg.speed.queued_bytes = UINT64_MAX;
		l->msg.speed.latency_us = UINT32_MAX;
	}
	return true;
}

static void test_lies_of_speed(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	for (f->odd = 0; f->odd < 2; f->odd++) {
		f->tamper = lie_of_speed;
		links_of(f, 1, false);
		links_of(f, 1, true);
		turns(f, 50 * WFI_NSEC_PER_MSEC);
		put_below(f);
		assert_true(seek(f, 0).fetch_us > 1000000);
		want_within(f, 0, &w, WFI_NSEC_PER_MSEC, DEADLINE_NS);
		turns(f, SETTLE_NS);
		assert_int_equal(came(&w), 0);
		assert_int_equal(w.results[0], -ETIME);
		assert_int_equal(get(f, 0), CHAIN);
	}
}

/* ---- promotions ---- */

struct fetched {
	bool done;
	uint32_t slots[CHAIN];
};

static void on_fetched(void *ctx, int res, uint32_t reached)
{
	(void)reached;
	assert_int_equal(res, 0);
	((struct fetched *)ctx)->done = true;
}

/* how many of put_others() a node has in no tier */
static uint32_t others_lost(struct fixture *f, uint32_t n)
{
	const struct test_node *node = &f->nodes[n];
	uint32_t lost = 0, slot;
	uint64_t i;

	for (i = 1; i <= f->nr_others; i++) {
		const struct weft_key key = { .lo = wfi_mix64(i), .hi = 77 };

		lost += wfi_kv_peek(node->kv, node->space.id, &key, 1, &slot) != 1 &&
			wfi_kv_below_find(node->kv, node->space.tag, &key) == WFI_SLOT_NONE;
	}
	return lost;
}

/* what comes up waits for room rather than to push out what is not written yet */
static void test_promotions_lose_nothing(void **state)
{
	struct fixture *f = *state;
	const struct test_node *node = &f->nodes[1];
	struct fetched got = { .done = false };
	struct wfi_fetch_opts o = { .space = node->space.id,
				    .nr = CHAIN,
				    .keys = f->keys,
				    .slots = got.slots,
				    .done = on_fetched,
				    .ctx = &got };
	struct wfi_fetch *fetch;
	struct weft_stat st;
	uint32_t lost, i;

	put_below(f);
	/* what is kept free becomes less, and is taken */
	turns(f, 10 * WFI_NSEC_PER_SEC);
	put_others(f, 1, 16);
	wfi_kv_stat(node->kv, node->tenant, &st);
	assert_in_range(st.slots_free, 1, CHAIN - 1);
	lost = others_lost(f, 1);
	memset(got.slots, 0xff, sizeof(got.slots));
	o.now_ns = now(f);
	o.deadline_ns = now(f) + DEADLINE_NS;
	assert_int_equal(wfi_kv_fetch(node->kv, &o, &fetch), 0);
	turns(f, DEADLINE_NS / 2);
	assert_true(got.done);
	assert_int_equal(others_lost(f, 1), lost);
	for (i = 0; i < CHAIN; i++) {
		assert_int_not_equal(got.slots[i], WFI_SLOT_NONE);
		wfi_kv_unpin(node->kv, &got.slots[i], 1);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_tiers, world_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_down_and_up),
		TEST(test_memory_first),
		TEST(test_drop_is_told),
		TEST(test_evicted_from_the_tier),
		TEST(test_resized_away),
		TEST(test_lost_announcement),
		TEST(test_peer_comes_late),
		TEST(test_restart),
		TEST(test_restart_without_root),
		TEST(test_space_opens_late),
		TEST(test_new_space_tells_nothing),
		TEST(test_tail_of_another),
		TEST(test_own_ancestor),
		TEST(test_own_looks_count_nothing),
		TEST(test_read_error),
		TEST(test_bit_rot),
		TEST(test_file_cut),
		TEST(test_other_holder),
		TEST(test_no_room),
		TEST(test_estimate),
		TEST(test_holder_leaves),
		TEST(test_drain_hands_on),
		TEST(test_drain_leaves_the_rest),
		TEST(test_drain_at_fault),
		TEST(test_deadline),
		TEST(test_greedy_peer),
		TEST(test_asker_lost),
		TEST(test_holder_lost),
		TEST(test_evicted_before_read),
		TEST(test_lies_of_speed),
		TEST(test_promotions_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
