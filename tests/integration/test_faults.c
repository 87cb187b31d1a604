/* SPDX-License-Identifier: Apache-2.0 */
/* what fails: engines and nodes that die, blocks that rot, pools, rings and limits that are full */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "tests/integration/node.h"

#define BLOCK 4096u
#define NR 16u
#define KILLS 220u
#define KILLS_WARM 60u /* until tables of the node have their size */
#define BACK_MS 1000

static struct test_node node;
static uint64_t seed;

static const char *const sets[] = { "arena_bytes=64M", "hugepages=true", NULL };

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "faults",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

static void put_blocks(struct test_engine *e, uint64_t name, struct weft_key *keys)
{
	static uint64_t blocks[NR][BLOCK / 8];
	const void *bufs[NR];
	unsigned i;

	test_keys(e, name, NR, keys);
	for (i = 0; i < NR; i++) {
		test_fill(blocks[i], BLOCK, name + i);
		bufs[i] = blocks[i];
	}
	assert_int_equal(weft_put(e->ring, e->space, NULL, keys, NR, bufs), NR);
}

static int get_blocks(struct test_engine *e, uint64_t name, const struct weft_key *keys)
{
	static uint64_t blocks[NR][BLOCK / 8];
	void *bufs[NR];
	int ret, i;

	for (i = 0; i < (int)NR; i++)
		bufs[i] = blocks[i];
	ret = weft_get(e->ring, e->space, keys, NR, bufs);
	for (i = 0; i < ret; i++)
		assert_true(test_filled(blocks[i], BLOCK, name + (uint64_t)i));
	return ret;
}

/* ---- an engine that is killed anywhere ---- */

struct victim {
	struct test_engine e;
	struct weft_key keys[NR];
	struct weft_slot slots[NR];
	struct weft_place places[NR];
	struct weft_ring *ring;
	uint64_t rand;
	char *memory;
	uint32_t region;
};

static void victim_open(struct victim *v)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "" };
	struct weft_region_opts region = { .size = sizeof(region), .len = 1 << 20, .fd = -1 };
	unsigned i;

	test_must(!weft_open(&opts, &v->e.w));
	test_must(!weft_space_open(v->e.w, &geometry, &v->e.space));
	test_must(!weft_ring_open(v->e.w, NULL, &v->e.ring));
	test_must(!weft_ring_open(v->e.w, NULL, &v->ring));
	v->memory =
		mmap(NULL, region.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.addr = v->memory;
	test_must(!weft_region_reg(v->e.w, &region, &v->region));
	for (i = 0; i < NR; i++)
		v->places[i] = (struct weft_place){ .off = i * BLOCK, .region = v->region };
}

static void victim_claims(struct victim *v)
{
	struct weft_op op = {
		.op = WEFT_OP_CLAIM, .space = v->e.space, .nr = NR, .slots = v->slots
	};

	if (weft_call(v->e.ring, &op, NULL) != (int)NR)
		return;
	memset((char *)weft_arena(v->e.w) + v->slots[0].off, 1, BLOCK);
	op.op = WEFT_OP_PUT;
	op.keys = v->keys;
	op.nr = NR / 2;
	test_must(weft_call(v->e.ring, &op, NULL) >= 0);
}

static void victim_leases(struct victim *v)
{
	uint64_t lease;

	test_must(weft_map(v->e.ring, v->e.space, v->keys, NR, v->slots, &lease) >= 0);
	if (test_rand(&v->rand) % 2)
		test_must(weft_release(v->e.ring, lease) >= 0);
}

/* leaves them open: completions are for the next steps, or for nobody */
static void victim_posts(struct victim *v)
{
	struct weft_completion cpls[8];
	struct weft_op ops[4] = {
		{ .op = WEFT_OP_PUT, .flags = WEFT_F_COPY, .nr = NR },
		{ .op = WEFT_OP_GET, .flags = WEFT_F_VERIFY, .nr = NR },
		{ .op = WEFT_OP_MATCH, .flags = WEFT_F_LEASE, .nr = NR },
		{ .op = WEFT_OP_HANDOFF_EXPECT, .nr = NR, .nr_layers = 4, .slots = v->slots },
	};
	unsigned i;
	int ret;

	for (i = 0; i < 4; i++) {
		ops[i].space = v->e.space;
		ops[i].keys = v->keys;
		ops[i].places = v->places;
	}
	ret = weft_submit(v->ring, ops, 4);
	test_must(ret > 0 || ret == -EAGAIN);
	test_must(weft_poll(v->ring, cpls, 8) >= 0);
}

static void victim_session(struct victim *v)
{
	struct weft_ring *ring;

	test_must(!weft_ring_open(v->e.w, NULL, &ring));
	weft_ring_close(ring);
}

static void run_victim(int in, int out, void *ctx)
{
	static struct victim v;
	uint32_t step;

	(void)in;
	v.rand = *(uint64_t *)ctx;
	for (step = 0;; step++) {
		test_must(test_say(out, &step, sizeof(step)));
		if (!step) {
			victim_open(&v);
			continue;
		}
		test_keys(&v.e, test_rand(&v.rand) % 64, NR, v.keys);
		switch (test_rand(&v.rand) % 4) {
		case 0:
			victim_claims(&v);
			break;
		case 1:
			victim_leases(&v);
			break;
		case 2:
			victim_posts(&v);
			break;
		default:
			victim_session(&v);
		}
	}
}

static void spin_us(uint64_t us)
{
	struct timespec now, start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((uint64_t)(now.tv_sec - start.tv_sec) * 1000000 +
		       (uint64_t)(now.tv_nsec - start.tv_nsec) / 1000 <
	       us);
}

static void kill_one(uint64_t *rand)
{
	uint32_t steps = (uint32_t)(test_rand(rand) % 24), step;
	uint64_t us = test_rand(rand) % 300, mine = test_rand(rand);
	struct test_child child;

	test_child_start(&child, run_victim, &mine);
	do
		assert_true(test_hear(child.from, &step, sizeof(step)));
	while (step < steps);
	spin_us(us);
	test_child_kill(&child);
}

static bool fds_back(void *ctx)
{
	return test_node_fds(&node) <= *(unsigned *)ctx;
}

static void test_engine_killed(void **state)
{
	struct weft_stat before, now;
	struct weft_key keys[NR];
	struct test_engine e;
	uint64_t rand = seed, rss = 0;
	unsigned fds = 0, i;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 1 << 20, keys);
	before = test_stat(e.ring);
	for (i = 0; i < KILLS; i++) {
		if (i == KILLS_WARM) {
			fds = test_node_fds(&node);
			rss = test_node_rss(&node);
		}
		kill_one(&rand);
		if (!test_alone(e.w, BACK_MS) || !test_stat_settles(e.ring, &before, BACK_MS))
			fail_msg("after kill %u, WEFT_TEST_SEED=%llu", i, (unsigned long long)seed);
		if (i % 16 == 0)
			assert_int_equal(get_blocks(&e, 1 << 20, keys), NR);
		now = test_stat(e.ring);
		assert_int_equal(now.slots_total, now.slots_free + now.blocks_held);
		assert_true(i < KILLS_WARM || test_until(BACK_MS, fds_back, &fds));
	}
	if (!TEST_SANITIZED)
		assert_in_range(test_node_rss(&node), 0, rss + (1 << 20));
	test_engine_close(&e);
}

/* ---- an engine that stands still ---- */

static void run_stopped(int in, int out, void *ctx)
{
	static struct victim v;
	unsigned i;

	v.rand = *(uint64_t *)ctx;
	victim_open(&v);
	test_keys(&v.e, 5, NR, v.keys);
	victim_claims(&v);
	for (i = 0; i < 400; i++)
		victim_posts(&v);
	test_must(test_say(out, &i, sizeof(i)));
	test_hear(in, &i, sizeof(i));
}

static void test_engine_stopped(void **state)
{
	struct weft_stat before;
	struct weft_key keys[NR];
	struct test_engine e;
	struct test_child child;
	uint64_t mine = 1, slowest_ms = 0, start_ms;
	unsigned i;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	before = test_stat(e.ring);
	test_child_start(&child, run_stopped, &mine);
	assert_true(test_hear(child.from, &i, sizeof(i)));
	kill(child.pid, SIGSTOP);
	for (i = 0; i < 200; i++) {
		start_ms = test_now_ms();
		put_blocks(&e, (2 << 20) + i % 8 * NR, keys);
		assert_int_equal(get_blocks(&e, (2 << 20) + i % 8 * NR, keys), NR);
		slowest_ms = wfi_max(slowest_ms, test_now_ms() - start_ms);
	}
	assert_in_range(slowest_ms, 0, 500);
	test_child_kill(&child);
	assert_true(test_stat_settles(e.ring, &before, BACK_MS));
	test_engine_close(&e);
}

/* ---- a node that dies ---- */

static void run_waiter(int in, int out, void *ctx)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "" };
	struct weft_op ops[8];
	struct weft_completion cpl;
	struct weft_key keys[NR];
	struct weft_slot slots[8][NR];
	struct test_engine e;
	uint64_t end_ms;
	unsigned i, open = 8;

	(void)ctx;
	test_must(!weft_open(&opts, &e.w));
	test_must(!weft_space_open(e.w, &geometry, &e.space));
	test_must(!weft_ring_open(e.w, NULL, &e.ring));
	test_keys(&e, 9, NR, keys);
	for (i = 0; i < 8; i++)
		ops[i] = (struct weft_op){ .op = WEFT_OP_HANDOFF_EXPECT,
					   .nr = NR,
					   .nr_layers = 4,
					   .space = e.space,
					   .keys = keys,
					   .slots = slots[i],
					   .user_data = i };
	test_must(weft_submit(e.ring, ops, 8) == 8);
	for (i = 0; i < 8; i++)
		test_must(weft_wait(e.ring, &cpl, 1, 0) == 1 && cpl.flags & WEFT_CQE_TICKET);
	test_must(test_say(out, &i, sizeof(i)));
	while (open && weft_wait(e.ring, &cpl, 1, 0) == 1) {
		test_must(cpl.res == -ECONNRESET && !(cpl.flags & WEFT_CQE_MORE));
		test_must(ops[cpl.user_data].op != WEFT_OP_NR);
		ops[cpl.user_data].op = WEFT_OP_NR;
		open--;
	}
	end_ms = test_now_ms();
	test_must(!open && !weft_attached(e.w));
	test_must(weft_wait(e.ring, &cpl, 1, 1000) == -ECONNRESET);
	test_must(weft_submit(e.ring, ops, 1) == -ECONNRESET);
	test_must(test_say(out, &end_ms, sizeof(end_ms)));
	test_hear(in, &i, sizeof(i));
	weft_close(e.w);
}

static void test_node_killed_while_waiting(void **state)
{
	struct test_child children[3];
	uint64_t killed_ms, end_ms;
	unsigned i, ready;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(children); i++) {
		test_child_start(&children[i], run_waiter, NULL);
		assert_true(test_hear(children[i].from, &ready, sizeof(ready)));
	}
	killed_ms = test_now_ms();
	test_node_kill(&node);
	for (i = 0; i < WFI_ARRAY_SIZE(children); i++) {
		assert_true(test_hear(children[i].from, &end_ms, sizeof(end_ms)));
		assert_in_range(end_ms - killed_ms, 0, 500);
		assert_true(test_say(children[i].to, &i, sizeof(i)));
		test_child_join(&children[i]);
	}
	test_node_start(&node);
}

static void old_slots_refused(struct test_engine *e, struct weft_slot *slots,
			      const struct weft_key *keys, uint64_t lease)
{
	int32_t results[NR];
	struct weft_op op = { .op = WEFT_OP_PUT,
			      .space = e->space,
			      .nr = NR,
			      .keys = keys,
			      .slots = slots,
			      .results = results };
	unsigned i;

	assert_int_equal(weft_call(e->ring, &op, NULL), 0);
	for (i = 0; i < NR; i++)
		assert_int_equal(results[i], -ESTALE);
	op.op = WEFT_OP_RELEASE;
	assert_int_equal(weft_call(e->ring, &op, NULL), 0);
	assert_int_equal(weft_release(e->ring, lease), -ENOENT);
}

static void region_still_works(struct test_engine *e, const struct weft_key *keys, char *memory,
			       uint32_t region)
{
	struct weft_place place = { .off = BLOCK, .region = region };
	struct weft_op op = { .op = WEFT_OP_GET,
			      .flags = WEFT_F_VERIFY,
			      .space = e->space,
			      .nr = 1,
			      .keys = keys,
			      .places = &place };

	memset(memory, 0, 4 * BLOCK);
	assert_int_equal(weft_call(e->ring, &op, NULL), 1);
	assert_true(test_filled(memory + BLOCK, BLOCK, 3 << 20));
}

static void test_node_restarts(void **state)
{
	struct weft_region_opts region = { .size = sizeof(region), .len = 4 * BLOCK, .fd = -1 };
	struct weft_slot slots[NR], leased[NR];
	struct weft_op claim = { .op = WEFT_OP_CLAIM, .nr = NR, .slots = slots };
	struct weft_key keys[NR], same[NR];
	char *memory = aligned_alloc(4096, 4 * BLOCK);
	struct test_engine e, other;
	uint64_t lease;
	uint32_t number;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	test_engine_open(&other, &node, NULL, &geometry);
	region.addr = memory;
	assert_int_equal(weft_region_reg(e.w, &region, &number), 0);
	put_blocks(&e, 3 << 20, keys);
	claim.space = e.space;
	assert_int_equal(weft_call(e.ring, &claim, NULL), NR);
	assert_int_equal(weft_map(e.ring, e.space, keys, NR, leased, &lease), NR);
	test_node_kill(&node);
	assert_int_equal(weft_release(e.ring, 1), -ECONNRESET);
	assert_int_equal(weft_attached(e.w), 0);
	assert_int_equal(weft_reattach(e.w), -ENOENT);
	assert_non_null(strstr(weft_why(), node.socket));
	/* what was leased can still be read, though it means nothing any more */
	assert_true(test_filled((char *)weft_arena(e.w) + leased[2].off, BLOCK, (3 << 20) + 2));
	test_node_start(&node);
	assert_int_equal(weft_reattach(e.w), 0);
	assert_int_equal(weft_attached(e.w), 1);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), 0);
	test_keys(&e, 3 << 20, NR, same);
	assert_memory_equal(keys, same, sizeof(keys));
	old_slots_refused(&e, slots, keys, lease);
	put_blocks(&e, 3 << 20, keys);
	assert_int_equal(get_blocks(&e, 3 << 20, keys), NR);
	region_still_works(&e, keys, memory, number);
	/* an engine with one ring attaches by itself, in the blocking calls */
	assert_int_equal(get_blocks(&other, 3 << 20, keys), NR);
	assert_int_equal(weft_attached(other.w), 1);
	test_engine_close(&e);
	test_engine_close(&other);
	free(memory);
}

static void test_node_stops(void **state)
{
	struct weft_key keys[NR];
	struct test_engine e;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 4 << 20, keys);
	test_node_stop(&node);
	assert_true(access(node.socket, F_OK) < 0);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), -ECONNRESET);
	test_node_start(&node);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), 0);
	test_engine_close(&e);
}

/* ---- blocks that rot ---- */

static void test_flipped_bit(void **state)
{
	struct weft_place places[NR];
	struct weft_slot slots[NR];
	struct weft_key keys[NR];
	int32_t results[NR];
	struct test_engine e;
	struct weft_op op = { .op = WEFT_OP_CLAIM, .nr = NR, .slots = slots };
	uint64_t lease, failures;
	unsigned i;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 5 << 20, keys);
	failures = test_counter(e.w, "weft_verify_failures");
	assert_int_equal(weft_map(e.ring, e.space, keys, NR, slots, &lease), NR);
	((char *)weft_arena(e.w))[slots[7].off + 1234] ^= 0x10;
	assert_int_equal(weft_release(e.ring, lease), NR);
	op.space = e.space;
	assert_int_equal(weft_call(e.ring, &op, NULL), NR);
	for (i = 0; i < NR; i++)
		places[i] = (struct weft_place){ .off = slots[i].off };
	op = (struct weft_op){ .op = WEFT_OP_GET,
			       .flags = WEFT_F_VERIFY,
			       .space = e.space,
			       .nr = NR,
			       .keys = keys,
			       .places = places,
			       .results = results };
	assert_int_equal(weft_call(e.ring, &op, NULL), NR - 1);
	for (i = 0; i < NR; i++) {
		assert_int_equal(results[i], i == 7 ? -ENOENT : 0);
		if (i != 7)
			assert_true(test_filled((char *)weft_arena(e.w) + slots[i].off, BLOCK,
						(5 << 20) + i));
	}
	assert_int_equal(test_counter(e.w, "weft_verify_failures"), failures + 1);
	/* it is gone, for those who do not verify too */
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), 7);
	assert_int_equal(get_blocks(&e, 5 << 20, keys), 7);
	put_blocks(&e, 5 << 20, keys);
	assert_int_equal(get_blocks(&e, 5 << 20, keys), NR);
	test_engine_close(&e);
	assert_int_equal(test_node_logged(&node, "ERROR: "), 0);
}

/* a checked mapping ends before the block that rots, which is a miss from then on */
static void test_flipped_bit_mapped(void **state)
{
	struct weft_slot slots[NR];
	struct weft_key keys[NR];
	struct weft_completion cpl;
	struct test_engine e;
	struct weft_op op = {
		.op = WEFT_OP_MAP, .flags = WEFT_F_VERIFY, .nr = NR, .keys = keys, .slots = slots
	};
	uint64_t failures;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 9 << 20, keys);
	failures = test_counter(e.w, "weft_verify_failures");
	op.space = e.space;
	assert_int_equal(weft_call(e.ring, &op, &cpl), NR);
	assert_int_equal(test_counter(e.w, "weft_verify_failures"), failures);
	((char *)weft_arena(e.w))[slots[5].off] ^= 1;
	assert_int_equal(weft_release(e.ring, cpl.handle), NR);
	assert_int_equal(weft_call(e.ring, &op, &cpl), 5);
	assert_true(test_filled((char *)weft_arena(e.w) + slots[4].off, BLOCK, (9 << 20) + 4));
	assert_int_equal(weft_release(e.ring, cpl.handle), 5);
	assert_int_equal(test_counter(e.w, "weft_verify_failures"), failures + 1);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), 5);
	/* nothing is held of a chain that does not begin */
	op.keys = keys + 5;
	op.nr = NR - 5;
	assert_int_equal(weft_call(e.ring, &op, &cpl), 0);
	assert_int_equal(cpl.handle, 0);
	test_engine_close(&e);
}

/* ---- what is full ---- */

static void fill_pool(struct test_engine *e, unsigned nr, struct weft_key *keys)
{
	void *block = calloc(1, weft_space_block_bytes(e->space));
	const void *buf = block;
	unsigned i;

	test_keys(e, 6 << 20, nr, keys);
	for (i = 0; i < nr; i++)
		assert_int_equal(
			weft_put(e->ring, e->space, i ? &keys[i - 1] : NULL, &keys[i], 1, &buf), 1);
	free(block);
}

static void test_full_pool(void **state)
{
	struct weft_space_opts opts = geometry;
	struct weft_key keys[256], other[NR];
	struct weft_slot slots[256];
	struct test_engine big, small;
	uint64_t lease;
	unsigned nr;

	(void)state;
	/* a node with an empty arena: extents of others do not go back while they hold blocks */
	test_node_kill(&node);
	test_node_start(&node);
	opts.block_bytes = 1 << 20;
	opts.model = "full";
	test_engine_open(&big, &node, NULL, &opts);
	test_engine_open(&small, &node, NULL, &opts);
	fill_pool(&big, 128, keys);
	nr = (unsigned)test_stat(big.ring).blocks_held;
	assert_in_range(nr, 16, 64);
	fill_pool(&big, nr, keys);
	assert_int_equal(weft_map(big.ring, big.space, keys, nr, slots, &lease), nr);
	test_keys(&small, 7 << 20, NR, other);
	{
		void *block = calloc(1, opts.block_bytes);
		const void *buf = block;

		assert_int_equal(weft_put(small.ring, small.space, NULL, other, 1, &buf), -ENOSPC);
		assert_non_null(strstr(weft_why(), "leased"));
		/* what is held is served all the same */
		assert_int_equal(weft_match(small.ring, small.space, keys, nr), nr);
		assert_int_equal(weft_release(big.ring, lease), nr);
		assert_int_equal(weft_put(small.ring, small.space, NULL, other, 1, &buf), 1);
		assert_int_equal(weft_match(small.ring, small.space, other, 1), 1);
		free(block);
	}
	test_engine_close(&big);
	test_engine_close(&small);
	test_node_kill(&node);
	test_node_start(&node);
}

static void test_full_ring(void **state)
{
	struct weft_ring_opts opts = { .size = sizeof(opts), .depth = 8, .arg_bytes = 4096 };
	struct weft_op nop = { .op = WEFT_OP_NOP }, big;
	struct weft_completion cpls[64];
	struct weft_key keys[NR];
	struct test_engine e;
	struct weft_ring *ring;
	int posted = 0, ret, done = 0;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	assert_int_equal(weft_ring_open(e.w, &opts, &ring), 0);
	while ((ret = weft_submit(ring, &nop, 1)) == 1)
		assert_in_range(++posted, 1, 64);
	assert_int_equal(ret, -EAGAIN);
	assert_non_null(strstr(weft_why(), "poll"));
	assert_in_range(posted, 8, 64);
	while (done < posted) {
		ret = weft_wait(ring, cpls, 64, 5000000);
		assert_true(ret > 0);
		done += ret;
	}
	assert_int_equal(weft_call(ring, &nop, NULL), 0);
	/* an operation that never fits is told from one that does not fit now */
	test_keys(&e, 1, NR, keys);
	big = (struct weft_op){ .op = WEFT_OP_MATCH, .space = e.space, .nr = 4096, .keys = keys };
	assert_int_equal(weft_submit(ring, &big, 1), -EINVAL);
	assert_non_null(strstr(weft_why(), "arg_bytes"));
	test_engine_close(&e);
}

/* ---- limits ---- */

static unsigned count(const char *text, const char *what)
{
	unsigned nr = 0;

	for (; (text = strstr(text, what)); text++)
		nr++;
	return nr;
}

static void test_small_pages(void **state)
{
	struct test_engine e;
	char *text;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	assert_int_equal(weft_status_json(e.w, &text), 0);
	/* said once where it is so, and not said where it is not */
	assert_int_equal(count(text, "\"small pages\""),
			 count(text, "\"page_bytes\":4096") ? 1 : 0);
	free(text);
	test_engine_close(&e);
}

static void check_run(struct test_run *r, int status, const char *const says[])
{
	const int got = test_run(r);
	unsigned i;

	if (got != status)
		fail_msg("exit status %d, not %d: %s", got, status, r->out);
	for (i = 0; says[i]; i++)
		if (!strstr(r->out, says[i]))
			fail_msg("\"%s\" is not in: %s", says[i], r->out);
}

static void test_no_memory(void **state)
{
	char socket[128];
	struct test_run huge = { .argv = { NULL, "-c", "/dev/null", "-o", socket, "-o",
					   "arena_bytes=50T", "-o", "prefault=true" } };
	struct test_run limited = { .argv = { NULL, "-c", "/dev/null", "-o", socket, "-o",
					      "arena_bytes=64M" },
				    .resource = RLIMIT_FSIZE,
				    .limit = 16 << 20 };

	(void)state;
	snprintf(socket, sizeof(socket), "socket=%s/none", node.dir);
	check_run(&huge, 1, (const char *const[]){ "52428800 MiB", "can't start", NULL });
	check_run(&limited, 1, (const char *const[]){ "MiB: File too large", "can't start", NULL });
}

static void test_tiny_memlock(void **state)
{
	struct rlimit old, tiny = { 4096, 0 };
	struct weft_key keys[NR];
	struct test_engine e;

	(void)state;
	test_node_stop(&node);
	assert_false(getrlimit(RLIMIT_MEMLOCK, &old));
	tiny.rlim_max = old.rlim_max;
	assert_false(setrlimit(RLIMIT_MEMLOCK, &tiny));
	test_node_start(&node);
	assert_false(setrlimit(RLIMIT_MEMLOCK, &old));
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 8 << 20, keys);
	assert_int_equal(get_blocks(&e, 8 << 20, keys), NR);
	test_engine_close(&e);
}

static void test_no_descriptors(void **state)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "" };
	struct rlimit limit;
	struct weft_key keys[NR];
	struct test_engine e;
	struct weft *more[64];
	unsigned nr = 0, i;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 9 << 20, keys);
	limit.rlim_cur = limit.rlim_max = test_node_fds(&node) + 12;
	assert_false(prlimit(node.pid, RLIMIT_NOFILE, &limit, NULL));
	while (nr < WFI_ARRAY_SIZE(more) && !weft_open(&opts, &more[nr]))
		nr++;
	assert_in_range(nr, 1, WFI_ARRAY_SIZE(more) - 1);
	assert_int_equal(get_blocks(&e, 9 << 20, keys), NR);
	for (i = 0; i < nr; i++)
		weft_close(more[i]);
	assert_int_equal(weft_open(&opts, &more[0]), 0);
	weft_close(more[0]);
	assert_int_equal(get_blocks(&e, 9 << 20, keys), NR);
	assert_in_range(test_node_logged(&node, "no descriptor is left"), 1, 10);
	test_engine_close(&e);
	test_node_stop(&node);
	test_node_start(&node);
}

/* ---- sockets and settings ---- */

static void test_one_socket(void **state)
{
	char socket[128];
	struct test_run second = { .argv = { NULL, "-c", "/dev/null", "-o", socket, "-o",
					     "arena_bytes=4M" } };
	struct weft_key keys[NR];
	struct test_engine e;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	put_blocks(&e, 10 << 20, keys);
	snprintf(socket, sizeof(socket), "socket=%s", node.socket);
	check_run(&second, 1, (const char *const[]){ "a node listens on", node.socket, NULL });
	assert_int_equal(get_blocks(&e, 10 << 20, keys), NR);
	test_engine_close(&e);
	/* a killed node leaves its socket behind: the next one takes the place */
	test_node_kill(&node);
	assert_false(access(node.socket, F_OK));
	test_node_start(&node);
}

static void test_typo(void **state)
{
	char path[128], where[160];
	struct test_run check = { .argv = { NULL, "--check", "-c", path } };
	struct test_run set = { .argv = { NULL, "--check", "-c", "/dev/null", "-o",
					  "hugepage=true" } };
	FILE *out;

	(void)state;
	snprintf(path, sizeof(path), "%s/weftd.conf", node.dir);
	out = fopen(path, "we");
	assert_non_null(out);
	fputs("# a node\nname = \"a\";\narena_bites = \"4G\";\n", out);
	fclose(out);
	snprintf(where, sizeof(where), "%s:3", path);
	check_run(&check, 2,
		  (const char *const[]){ where, "arena_bites", "\"arena_bytes\"", NULL });
	check_run(&set, 2, (const char *const[]){ "hugepage", "\"hugepages\"", NULL });
	unlink(path);
}

/* ---- set-up ---- */

static int start_node(void **state)
{
	(void)state;
	seed = test_seed();
	test_node_init(&node, sets);
	test_node_start(&node);
	return 0;
}

static int stop_node(void **state)
{
	(void)state;
	test_node_fini(&node);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_engine_killed),
		cmocka_unit_test(test_engine_stopped),
		cmocka_unit_test(test_node_killed_while_waiting),
		cmocka_unit_test(test_node_restarts),
		cmocka_unit_test(test_node_stops),
		cmocka_unit_test(test_flipped_bit),
		cmocka_unit_test(test_flipped_bit_mapped),
		cmocka_unit_test(test_full_pool),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_small_pages),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_tiny_memlock),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_one_socket),
		cmocka_unit_test(test_typo),
	};

	return cmocka_run_group_tests(tests, start_node, stop_node);
}
