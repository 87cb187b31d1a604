/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two nodes in two guests, over RDMA, with an engine at each: blocks of the other node are found
 * and fetched, a channel carries messages, and a handoff changes its layout on the way. The guest
 * with WEFT_VM_HOST=1 has what the other one asks for.
 */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/integration/node.h"
#include "tests/vm/guest.h"

#define PORT 7474
#define NODE_PORT 7490
#define NR 24u /* blocks of a chain, and of a handoff */
#define MESSAGES 40u
#define CREDIT 4u
#define SOON_MS 30000

/* of a block: layers of keys and values of tokens with heads */
#define NL 2u
#define TOKENS 16u
#define HEADS 4u
#define HB 64u
#define PLANE (TOKENS * HEADS * HB)
#define BLOCK (NL * 2 * PLANE)

static struct test_node node;
static struct test_engine e;
static int sock; /* to the other guest's test */
static char peers[128], listens[64];

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "nodes",
	.layout = "test",
	.tokens_per_block = TOKENS,
	.nr_layers = NL,
};

static void say(const void *what, size_t len)
{
	guest_move(sock, (void *)what, len, 1);
}

static void hear(void *what, size_t len)
{
	guest_move(sock, what, len, 0);
}

/* both are here */
static void meet(void)
{
	char here = 0;

	say(&here, 1);
	hear(&here, 1);
}

/* ---- blocks of the other node ---- */

static void blocks_put(void)
{
	static char bytes[NR][BLOCK];
	struct weft_key keys[NR];
	const void *bufs[NR];
	unsigned i;

	test_keys(&e, 1, NR, keys);
	for (i = 0; i < NR; i++) {
		test_fill(bytes[i], BLOCK, i);
		bufs[i] = bytes[i];
	}
	assert_int_equal(weft_put(e.ring, e.space, NULL, keys, NR, bufs), NR);
	meet();
}

static bool all_match(void *ctx)
{
	return weft_match(e.ring, e.space, ctx, NR) == (int)NR;
}

static void test_blocks(void **state)
{
	static char bytes[NR][BLOCK];
	struct weft_key keys[NR];
	void *bufs[NR];
	unsigned i;

	(void)state;
	meet();
	test_keys(&e, 1, NR, keys);
	assert_true(test_until(SOON_MS, all_match, keys));
	for (i = 0; i < NR; i++)
		bufs[i] = bytes[i];
	assert_int_equal(weft_get(e.ring, e.space, keys, NR, bufs), NR);
	for (i = 0; i < NR; i++)
		assert_true(test_filled(bytes[i], BLOCK, i));
}

/* ---- a channel ---- */

static void claim(struct weft_slot *slots, unsigned nr)
{
	struct weft_op op = { .op = WEFT_OP_CLAIM, .space = e.space, .nr = nr, .slots = slots };

	assert_int_equal(weft_call(e.ring, &op, NULL), (int)nr);
}

static void channel_send(void)
{
	struct weft_ticket ticket;
	struct weft_slot slot;
	uint64_t out, next, i;

	hear(&ticket, sizeof(ticket));
	assert_int_equal(weft_channel_join(e.ring, e.space, &ticket, &out, &next), 0);
	for (i = 0; i < MESSAGES; i++) {
		claim(&slot, 1);
		test_fill((char *)weft_arena(e.w) + slot.off, BLOCK, 100 + i);
		assert_true(weft_channel_send(e.ring, out, &slot, 1, BLOCK, i) > 0);
	}
	assert_int_equal(weft_channel_close(e.ring, out), 0);
}

static void test_channel(void **state)
{
	struct weft_ticket ticket;
	struct weft_message m;
	struct weft_slot slot;
	uint64_t in, message, i;

	(void)state;
	assert_int_equal(weft_channel_open(e.ring, e.space, CREDIT, CREDIT * BLOCK, &ticket, &in),
			 0);
	say(&ticket, sizeof(ticket));
	for (i = 0; i < MESSAGES; i++) {
		assert_int_equal(weft_channel_recv(e.ring, in, &slot, 1, &m, &message), 1);
		assert_int_equal(m.seq, i);
		assert_true(test_filled((char *)weft_arena(e.w) + slot.off, BLOCK, 100 + i));
		assert_true(weft_channel_release(e.ring, message) > 0);
	}
	assert_int_equal(weft_channel_close(e.ring, in), 0);
}

/* ---- a handoff: heads within tokens there, tokens within heads here ---- */

static const struct weft_layout nhd = { .nr_layers = NL,
					.nr_kv = 2,
					.nr_tokens = TOKENS,
					.nr_heads = HEADS,
					.head_bytes = HB,
					.token_stride = HEADS * HB,
					.head_stride = HB,
					.kv_stride = PLANE,
					.layer_stride = 2 * PLANE };
static const struct weft_layout hnd = { .nr_layers = NL,
					.nr_kv = 2,
					.nr_tokens = TOKENS,
					.nr_heads = HEADS,
					.head_bytes = HB,
					.token_stride = HB,
					.head_stride = TOKENS * HB,
					.kv_stride = PLANE,
					.layer_stride = 2 * PLANE };

/* what stands at each place follows from what it is. Return: false: @check says it is not so */
static bool elements(const struct weft_layout *l, const struct weft_slot *slots, bool check)
{
	uint32_t i, at, seed;

	for (i = 0; i < NR * NL * 2 * TOKENS * HEADS; i++) {
		const uint32_t head = i % HEADS, token = i / HEADS % TOKENS;
		const uint32_t plane = i / HEADS / TOKENS % (NL * 2);
		char *mem = (char *)weft_arena(e.w) + slots[i / HEADS / TOKENS / (NL * 2)].off;

		seed = 7000 + i;
		at = plane * PLANE + token * (uint32_t)l->token_stride +
		     head * (uint32_t)l->head_stride;
		if (!check)
			test_fill(mem + at, HB, seed);
		else if (!test_filled(mem + at, HB, seed))
			return false;
	}
	return true;
}

static void handoff_push(void)
{
	struct weft_slot slots[NR];
	struct weft_ticket ticket;
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_PUSH,
				    .flags = WEFT_F_LAYOUT,
				    .space = e.space,
				    .nr = NR,
				    .slots = slots,
				    .ticket = &ticket,
				    .nr_layers = NL,
				    .layout = &nhd };

	claim(slots, NR);
	elements(&nhd, slots, false);
	hear(&ticket, sizeof(ticket));
	assert_int_equal(weft_call(e.ring, &op, NULL), NR);
	meet();
}

static void test_handoff(void **state)
{
	struct weft_key keys[NR];
	struct weft_slot slots[NR];
	struct weft_ticket ticket;
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .flags = WEFT_F_LAYOUT,
				    .space = e.space,
				    .nr = NR,
				    .nr_layers = NL,
				    .keys = keys,
				    .slots = slots,
				    .ticket = &ticket,
				    .layout = &hnd };
	struct weft_completion cpl;

	(void)state;
	test_keys(&e, 2, NR, keys);
	assert_int_equal(weft_submit(e.ring, &op, 1), 1);
	test_next(e.ring, &cpl);
	assert_int_equal(cpl.flags, WEFT_CQE_MORE | WEFT_CQE_TICKET);
	say(&ticket, sizeof(ticket));
	do
		test_next(e.ring, &cpl);
	while (cpl.flags & WEFT_CQE_MORE);
	assert_int_equal(cpl.res, NR);
	assert_true(elements(&hnd, slots, true));
	meet();
}

/* ---- two nodes ---- */

static bool connected(void *ctx)
{
	(void)ctx;
	return test_node_logged(&node, "is connected over verbs");
}

static int nodes_start(void **state)
{
	const bool first = guest_is("WEFT_VM_HOST", "1");
	const char *const sets[] = { first ? "name=n1" : "name=n2",
				     "transport=verbs",
				     "insecure=true",
				     "arena_bytes=32M",
				     "hugepages=false",
				     listens,
				     peers,
				     NULL };

	(void)state;
	snprintf(listens, sizeof(listens), "listen=%s:%u",
		 getenv(first ? "WEFT_VM_ADDR_1" : "WEFT_VM_ADDR_2"), NODE_PORT);
	/* the second one calls */
	strcpy(peers, "peers=()");
	if (!first)
		snprintf(peers, sizeof(peers), "peers=({ name = \"n1\"; address = \"%s:%u\"; })",
			 getenv("WEFT_VM_ADDR_1"), NODE_PORT);
	test_node_init(&node, sets);
	test_node_start(&node);
	meet();
	if (!test_until(SOON_MS, connected, NULL))
		fail_msg("the nodes do not meet");
	test_engine_open(&e, &node, NULL, &geometry);
	return 0;
}

static int nodes_stop(void **state)
{
	(void)state;
	meet();
	test_engine_close(&e);
	test_node_fini(&node);
	return 0;
}

static void test_serve(void **state)
{
	(void)state;
	blocks_put();
	channel_send();
	handoff_push();
}

int main(void)
{
	const struct CMUnitTest serves[] = { cmocka_unit_test(test_serve) };
	const struct CMUnitTest asks[] = {
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_channel),
		cmocka_unit_test(test_handoff),
	};
	struct sockaddr_in where;
	struct wfi_env env;
	int listening;

	assert_int_equal(wfi_env_real_init(&env), 0);
	if (!guest_begin(&env, &where, PORT))
		return 77;
	if (!guest_is("WEFT_VM_HOSTS", "2")) {
		printf("needs two guests\n");
		return 77;
	}
	signal(SIGPIPE, SIG_IGN);
	if (guest_is("WEFT_VM_HOST", "2")) {
		sock = guest_dial(&where, 1);
		return cmocka_run_group_tests(asks, nodes_start, nodes_stop);
	}
	listening = guest_listen(&where);
	sock = accept(listening, NULL, NULL);
	hear(&(char){ 0 }, 1);
	return cmocka_run_group_tests(serves, nodes_start, nodes_stop);
}
