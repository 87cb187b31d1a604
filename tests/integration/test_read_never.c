/* SPDX-License-Identifier: Apache-2.0 */
/*
 * READs from another node that no shutdown ends: the engine that waits hears so in time, and what
 * they touch is nobody's before they have ended. Two nodes of this process, whose network is the
 * reference transport behind the fault injector.
 */
#include <errno.h>
#include <unistd.h>

#include "tests/integration/node.h"
#include "tests/integration/tls_node.h"
#include "weft_internal/transport_registry.h"

#define BLOCK 16384u
#define NR 4u
#define SOON_US 100000u
#define IN_TIME_MS (TEST_SANITIZED ? 20000 : 4000) /* others may run beside it */

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "read never",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 2,
};

/* of a, which has the blocks, and of b, which reads them. @other: a ring beside the engine's */
struct rig {
	struct side a, b;
	struct weft_transport *faults[2]; /* of a, and of b */
	const struct weft_transport *transports[2][3];
	struct test_node at_a, at_b;
	struct test_engine from, to;
	struct weft_ring *other;
	char *mem;
	uint32_t region;
	struct weft_key keys[NR];
	struct weft_place places[NR];
	struct weft_slot slots[NR];
	int32_t results[NR];
};

/* in the worker of the nodes, whose the fault injector is */
static void run_hold(struct node *node, void *arg)
{
	struct rig *r = arg;
	const struct wfi_fault_opts never = { .never = true };

	(void)node;
	wfi_fault_set(r->faults[1], &never);
}

static void run_go_on(struct node *node, void *arg)
{
	struct rig *r = arg;
	const struct wfi_fault_opts calm = { .seed = 1 };

	(void)node;
	wfi_fault_set(r->faults[1], &calm);
}

static void rig_nodes(struct rig *r)
{
	static const struct wfi_fault_opts calm = { .seed = 1 };
	const struct side_opts a = { .name = "a", .transports = r->transports[0] };
	struct side_opts b = { .name = "b", .peer = "a", .transports = r->transports[1] };
	const struct weft_transport *loop = wfi_transport_find(NULL, "loop");

	snprintf(dir, sizeof(dir), "/tmp/weft-never-XXXXXX");
	assert_non_null(mkdtemp(dir));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(wfi_fault_create(loop, &calm, &r->faults[i]), 0);
		r->transports[i][0] = r->faults[i];
		r->transports[i][1] = wfi_transport_find(NULL, "shm");
	}
	side_start(&r->a, &a);
	b.port = r->a.port;
	side_start(&r->b, &b);
	await_shown(&r->b, "peers", "state", "connected");
	memcpy(r->at_a.socket, r->a.socket, sizeof(r->at_a.socket));
	memcpy(r->at_b.socket, r->b.socket, sizeof(r->at_b.socket));
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct weft_region_opts region = { .size = sizeof(region), .len = NR * BLOCK, .fd = -1 };

	assert_non_null(r);
	rig_nodes(r);
	test_engine_open(&r->from, &r->at_a, NULL, &geometry);
	test_engine_open(&r->to, &r->at_b, NULL, &geometry);
	assert_int_equal(weft_ring_open(r->to.w, NULL, &r->other), 0);
	r->mem = calloc(NR, BLOCK);
	region.addr = r->mem;
	assert_int_equal(weft_region_reg(r->to.w, &region, &r->region), 0);
	for (unsigned i = 0; i < NR; i++)
		r->places[i] = (struct weft_place){ .off = i * BLOCK, .region = r->region };
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	char cmd[128];

	weft_ring_close(r->other);
	test_engine_close(&r->to);
	test_engine_close(&r->from);
	side_stop(&r->b);
	side_stop(&r->a);
	for (unsigned i = 0; i < 2; i++)
		wfi_fault_destroy(r->faults[i]);
	free(r->mem);
	free(r);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

static bool b_knows(void *ctx)
{
	struct rig *r = ctx;

	return weft_match(r->to.ring, r->to.space, r->keys, NR) == NR;
}

/* blocks that a has, and b has heard of */
static void put(struct rig *r, uint64_t name)
{
	static char blocks[NR][BLOCK];
	const void *in[NR];

	test_keys(&r->from, name, NR, r->keys);
	for (unsigned i = 0; i < NR; i++) {
		test_fill(blocks[i], BLOCK, name + i);
		in[i] = blocks[i];
	}
	assert_int_equal(weft_put(r->from.ring, r->from.space, NULL, r->keys, NR, in), NR);
	assert_true(test_until(10000, b_knows, r));
}

static struct weft_op op_of(struct rig *r, enum weft_opcode op)
{
	return (struct weft_op){
		.op = (uint8_t)op,
		.nr = NR,
		.space = r->to.space,
		.keys = r->keys,
		.places = r->places,
		.slots = r->slots,
		.results = r->results,
		.timeout_us = SOON_US,
	};
}

/* what does not concern the other node is served meanwhile */
static void still_serves(struct rig *r)
{
	static char block[BLOCK];
	static uint64_t name = 5000;
	const void *in = block;
	void *out = block;
	struct weft_key key;

	test_keys(&r->to, ++name, 1, &key);
	test_fill(block, BLOCK, name);
	assert_int_equal(weft_put(r->other, r->to.space, NULL, &key, 1, &in), 1);
	memset(block, 0, BLOCK);
	assert_int_equal(weft_get(r->other, r->to.space, &key, 1, &out), 1);
	assert_true(test_filled(block, BLOCK, name));
	assert_int_equal(weft_drop(r->other, r->to.space, &key, 1), 1);
}

/* the last completion of what was asked at @start, which says that it is not fenced */
static void hear_unfenced(struct rig *r, uint64_t start, int res)
{
	struct weft_completion done;

	do
		test_next(r->to.ring, &done);
	while (done.flags & WEFT_CQE_MORE);
	assert_in_range(test_now_ms() - start, SOON_US / 1000 / 2, IN_TIME_MS);
	assert_int_equal(done.res, res);
	assert_int_equal(done.flags, WEFT_CQE_UNFENCED);
	still_serves(r);
}

static void run_nothing(struct node *node, void *arg)
{
	(void)node;
	(void)arg;
}

/* what this thread and the worker do to one place is in order by the ring; ThreadSanitizer does not
 * see that, since each maps it at an address of its own */
static void in_order(struct rig *r)
{
	node_call(r->b.node, run_nothing, NULL);
}

/* nothing is left of it, and the nodes meet again */
static void goes_on(struct rig *r)
{
	const struct weft_stat none = { .slots_filling = 0 };
	struct weft_op op = op_of(r, WEFT_OP_GET);

	node_call(r->b.node, run_go_on, r);
	assert_true(test_stat_settles(r->other, &none, 5000));
	await_shown(&r->b, "peers", "state", "connected");
	put(r, 9000);
	op.timeout_us = 0;
	memset(r->mem, 0, NR * BLOCK);
	in_order(r);
	assert_int_equal(weft_call(r->to.ring, &op, NULL), NR);
	in_order(r);
	for (unsigned i = 0; i < NR; i++)
		assert_true(test_filled(r->mem + i * BLOCK, BLOCK, 9000 + i));
	assert_int_equal(weft_region_dereg(r->to.w, r->region), 0);
}

static void test_get(void **state)
{
	struct rig *r = *state;
	struct weft_op op;
	uint64_t start;

	put(r, 1);
	node_call(r->b.node, run_hold, r);
	op = op_of(r, WEFT_OP_GET);
	start = test_now_ms();
	assert_int_equal(weft_submit(r->to.ring, &op, 1), 1);
	hear_unfenced(r, start, 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(r->results[i], -ETIMEDOUT);
	goes_on(r);
}

static void test_map(void **state)
{
	struct rig *r = *state;
	struct weft_op op;
	uint64_t start;

	put(r, 1);
	node_call(r->b.node, run_hold, r);
	op = op_of(r, WEFT_OP_MAP);
	op.results = NULL;
	start = test_now_ms();
	assert_int_equal(weft_submit(r->to.ring, &op, 1), 1);
	hear_unfenced(r, start, -ETIMEDOUT);
	goes_on(r);
}

/* into slots, and into places */
static void handoff(struct rig *r, uint8_t flags)
{
	struct weft_op expects = op_of(r, WEFT_OP_HANDOFF_EXPECT), pushes, claim;
	struct weft_slot slots[NR];
	struct weft_completion done;
	struct weft_ticket ticket;
	uint64_t start;

	claim = op_of(r, WEFT_OP_CLAIM);
	claim.space = r->from.space;
	claim.slots = slots;
	assert_int_equal(weft_call(r->from.ring, &claim, NULL), NR);
	test_keys(&r->to, 77, NR, r->keys);
	expects.flags = flags;
	expects.nr_layers = 2;
	expects.ticket = &ticket;
	expects.results = NULL;
	start = test_now_ms();
	assert_int_equal(weft_submit(r->to.ring, &expects, 1), 1);
	test_next(r->to.ring, &done);
	assert_int_equal(done.flags, WEFT_CQE_MORE | WEFT_CQE_TICKET);
	node_call(r->b.node, run_hold, r);
	pushes = op_of(r, WEFT_OP_HANDOFF_PUSH);
	pushes.space = r->from.space;
	pushes.slots = slots;
	pushes.ticket = &ticket;
	pushes.nr_layers = 1;
	pushes.results = NULL;
	pushes.timeout_us = 2 * SOON_US;
	/* its slots are read until its own time is up */
	assert_int_equal(weft_submit(r->from.ring, &pushes, 1), 1);
	hear_unfenced(r, start, -ETIMEDOUT);
	test_next(r->from.ring, &done);
	assert_true(done.res == -ETIMEDOUT || done.res == -ECONNRESET);
	claim.op = WEFT_OP_RELEASE;
	assert_int_equal(weft_call(r->from.ring, &claim, NULL), NR);
	goes_on(r);
}

static void test_handoff(void **state)
{
	handoff(*state, 0);
}

static void test_handoff_to_places(void **state)
{
	handoff(*state, WEFT_F_COPY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(get), TEST(map), TEST(handoff),
					    TEST(handoff_to_places) };
	int ret;

	workers_start();
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	workers_stop();
	return ret;
}
