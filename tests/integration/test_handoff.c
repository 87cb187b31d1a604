/* SPDX-License-Identifier: Apache-2.0 */
/* handoffs: by reference inside a node, over shared memory between two, and when a side dies */
#include <errno.h>
#include <poll.h>
#include <unistd.h>
#include "tests/integration/node.h"

#define NB 8u /* blocks of a handoff */
#define NL 4u /* layers of a block */
#define LAYER 4096u
#define BLOCK ((uint64_t)NL * LAYER)
#define END_MS 1000 /* a death is known to the other side within this */

static struct test_node near, far; /* prefill's and decode's; near alone has far as a peer */

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "handoff",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = NL,
};

static const char *const tenants[] = {
	"arena_bytes=64M",
	"hugepages=false",
	"tenants=({ name = \"one\"; }, { name = \"two\"; token = \"two\"; })",
	NULL,
};

/* ---- one handoff ---- */

struct handoff {
	struct test_engine *to;
	struct weft_key keys[NB];
	struct weft_slot slots[NB];
	struct weft_ticket ticket;
	uint64_t handle;
	uint64_t name;
};

static uint64_t names = 1000;

static void expect(struct handoff *h, struct test_engine *to, uint32_t timeout_us)
{
	struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
			      .user_data = 77,
			      .space = to->space,
			      .nr = NB,
			      .nr_layers = NL,
			      .keys = h->keys,
			      .slots = h->slots,
			      .ticket = &h->ticket,
			      .timeout_us = timeout_us };
	struct weft_completion cpl;

	memset(h, 0, sizeof(*h));
	h->to = to;
	h->name = names += 100;
	test_keys(to, h->name, NB, h->keys);
	assert_int_equal(weft_submit(to->ring, &op, 1), 1);
	test_next(to->ring, &cpl);
	assert_int_equal(cpl.flags, WEFT_CQE_MORE | WEFT_CQE_TICKET);
	assert_int_equal(cpl.user_data, 77);
	assert_int_equal(h->ticket.nr_blocks, NB);
	assert_int_equal(h->ticket.nr_layers, NL);
	h->handle = cpl.handle;
}

static void claim(struct test_engine *from, struct weft_slot *slots)
{
	struct weft_op op = { .op = WEFT_OP_CLAIM, .space = from->space, .nr = NB, .slots = slots };

	assert_int_equal(weft_call(from->ring, &op, NULL), NB);
}

static int unclaim(struct test_engine *from, struct weft_slot *slots)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = NB, .slots = slots };

	return weft_call(from->ring, &op, NULL);
}

/* what stands in a layer of a block */
static uint64_t layer_seed(uint64_t name, unsigned block, unsigned layer)
{
	return name * 1000 + block * NL + layer;
}

static char *layer_addr(const struct test_engine *e, const struct weft_slot *slot, unsigned layer)
{
	return (char *)weft_arena(e->w) + slot->off + (size_t)layer * LAYER;
}

static void fill_layer(struct test_engine *e, const struct weft_slot *slots, uint64_t name,
		       unsigned layer)
{
	unsigned i;

	for (i = 0; i < NB; i++)
		test_fill(layer_addr(e, &slots[i], layer), LAYER, layer_seed(name, i, layer));
}

static int push_some(struct test_engine *from, const struct weft_ticket *ticket,
		     struct weft_slot *slots, unsigned layer, unsigned first, unsigned nr)
{
	struct weft_ticket copy = *ticket;
	struct weft_op op = { .op = WEFT_OP_HANDOFF_PUSH,
			      .space = from->space,
			      .nr = nr,
			      .slots = slots + first,
			      .ticket = &copy,
			      .layer = layer,
			      .nr_layers = 1,
			      .first_block = first };

	return weft_call(from->ring, &op, NULL);
}

static int push(struct test_engine *from, const struct weft_ticket *ticket, struct weft_slot *slots,
		unsigned layer)
{
	return push_some(from, ticket, slots, layer, 0, NB);
}

static void hear_layer(struct handoff *h, unsigned layer)
{
	struct weft_completion cpl;
	unsigned i;

	test_next(h->to->ring, &cpl);
	assert_int_equal(cpl.res, NB);
	assert_int_equal(cpl.flags, WEFT_CQE_MORE);
	assert_int_equal(cpl.layer, layer);
	assert_int_equal(cpl.nr_layers, 1);
	assert_int_equal(cpl.first_block, 0);
	assert_int_equal(cpl.nr_blocks, NB);
	for (i = 0; i < NB; i++)
		assert_true(test_filled(layer_addr(h->to, &h->slots[i], layer), LAYER,
					layer_seed(h->name, i, layer)));
}

/* Return: res of the last completion; the time that it took is checked */
static int hear_end(struct handoff *h, uint64_t since_ms, uint64_t *lease)
{
	struct weft_completion cpl;

	do
		test_next(h->to->ring, &cpl);
	while (cpl.flags & WEFT_CQE_MORE);
	if (test_now_ms() - since_ms > END_MS)
		fail_msg("the end came after %u ms", (unsigned)(test_now_ms() - since_ms));
	if (lease)
		*lease = cpl.handle;
	return cpl.res;
}

static void whole_handoff(struct test_engine *from, struct test_engine *to, bool by_reference)
{
	const struct weft_stat from_was = test_stat(from->ring), to_was = test_stat(to->ring);
	struct weft_slot slots[NB];
	struct handoff h;
	uint64_t lease;
	unsigned layer, i;
	struct weft_op put = { .op = WEFT_OP_PUT, .space = from->space, .nr = NB };

	expect(&h, to, 0);
	claim(from, slots);
	for (layer = 0; layer < NL; layer++) {
		fill_layer(from, slots, h.name, layer);
		assert_int_equal(push(from, &h.ticket, slots, layer), NB);
		hear_layer(&h, layer);
	}
	assert_int_equal(hear_end(&h, test_now_ms(), &lease), NB);
	assert_true(lease != 0);
	for (i = 0; i < NB; i++) {
		if (by_reference)
			assert_int_equal(h.slots[i].off, slots[i].off);
		for (layer = 0; layer < NL; layer++)
			assert_true(test_filled(layer_addr(to, &h.slots[i], layer), LAYER,
						layer_seed(h.name, i, layer)));
	}
	/* both sides hold the blocks under their keys in the end */
	put.keys = h.keys;
	put.slots = slots;
	assert_int_equal(weft_call(from->ring, &put, NULL), NB);
	assert_int_equal(weft_match(to->ring, to->space, h.keys, NB), NB);
	assert_int_equal(weft_release(to->ring, lease), NB);
	assert_true(test_stat_settles(to->ring, &to_was, END_MS));
	assert_true(test_stat_settles(from->ring, &from_was, END_MS));
}

static void test_by_reference(void **state)
{
	struct test_engine from, to;
	uint64_t moved, handed;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &near, NULL, &geometry);
	moved = test_counter(to.w, "weft_handoff_read");
	handed = test_counter(to.w, "weft_handoff_by_reference");
	whole_handoff(&from, &to, true);
	assert_int_equal(test_counter(to.w, "weft_handoff_read"), moved);
	assert_int_equal(test_counter(to.w, "weft_handoff_by_reference"), handed + NB * BLOCK);
	test_engine_close(&from);
	test_engine_close(&to);
}

/* blocks in two halves, each with its layers in order, and none of the others' */
static void test_halves(void **state)
{
	struct test_engine from, to;
	struct weft_slot slots[NB];
	struct handoff h;
	unsigned layer;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &near, NULL, &geometry);
	expect(&h, &to, 0);
	claim(&from, slots);
	for (layer = 0; layer < NL; layer++)
		fill_layer(&from, slots, h.name, layer);
	for (layer = 0; layer < NL; layer++)
		assert_int_equal(push_some(&from, &h.ticket, slots, layer, NB / 2, NB / 2), NB / 2);
	for (layer = 0; layer < NL; layer++)
		assert_int_equal(push_some(&from, &h.ticket, slots, layer, 0, NB / 2), NB / 2);
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), NB);
	assert_int_equal(unclaim(&from, slots), NB);
	test_engine_close(&from);
	test_engine_close(&to);
}

static void test_embedded(void **state)
{
	struct test_engine to, from;

	(void)state;
	test_engine_open(&to, NULL, NULL, &geometry);
	from = to;
	assert_int_equal(weft_ring_open(to.w, NULL, &from.ring), 0);
	whole_handoff(&from, &to, true);
	test_engine_close(&to);
}

/* ---- what is refused ---- */

static void test_refused(void **state)
{
	struct test_engine from, to, other;
	struct weft_slot slots[NB], theirs[NB];
	struct weft_ticket bad;
	struct handoff h;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &near, NULL, &geometry);
	test_engine_open(&other, &near, "two", &geometry);
	expect(&h, &to, 0);
	claim(&from, slots);
	claim(&other, theirs);
	bad = h.ticket;
	bad.secret[1] ^= 1;
	assert_int_equal(push(&from, &bad, slots, 0), -EPERM);
	bad = h.ticket;
	bad.incarnation++;
	assert_int_equal(push(&from, &bad, slots, 0), -ESTALE);
	bad = h.ticket;
	bad.handoff += 1ull << 32;
	assert_int_equal(push(&from, &bad, slots, 0), -ESTALE);
	bad = h.ticket;
	bad.handoff = UINT32_MAX;
	assert_int_equal(push(&from, &bad, slots, 0), -ESTALE);
	bad = h.ticket;
	bad.node++;
	assert_int_equal(push(&from, &bad, slots, 0), -EHOSTUNREACH);
	assert_int_equal(push(&from, &h.ticket, slots, 1), -EINVAL);
	assert_int_equal(push(&from, &h.ticket, slots, NL), -EINVAL);
	assert_int_equal(push(&other, &h.ticket, theirs, 0), -EXDEV);
	assert_int_equal(push(&from, &h.ticket, theirs, 0), -ESTALE);
	/* what was refused has changed nothing */
	assert_int_equal(push(&from, &h.ticket, slots, 0), NB);
	assert_int_equal(push(&from, &h.ticket, slots, 0), -EINVAL);
	assert_int_equal(push(&from, &h.ticket, slots, 2), -EINVAL);
	assert_int_equal(push(&from, &h.ticket, slots, 1), NB);
	test_engine_close(&to);
	assert_int_equal(push(&from, &h.ticket, slots, 2), -ESTALE);
	assert_int_equal(unclaim(&from, slots), NB);
	test_engine_close(&from);
	test_engine_close(&other);
}

static bool peers_connected(void *ctx)
{
	struct test_engine *e = ctx;
	bool yes;
	char *text;

	if (weft_status_json(e->w, &text))
		return false;
	yes = strstr(text, "\"state\":\"connected\"") != NULL;
	free(text);
	return yes;
}

static void wait_for_peer(struct test_engine *e)
{
	if (!test_until(10000, peers_connected, e))
		fail_msg("the nodes do not connect");
}

static bool twin_told(void *ctx)
{
	(void)ctx;
	return test_node_logged(&far, "has this node's id") > 0;
}

/* tickets name nodes by id: a second node of one id is told so, and not connected. It has more
 * tenants than one hello tells, too */
static void test_twins(void **state)
{
	char peer[192], many[1024] = "tenants=({ name = \"t\"; }";
	const char *sets[] = { "name=far", "arena_bytes=1M", "hugepages=false", peer, many, NULL };
	struct test_engine e;
	struct test_node twin;
	unsigned i;

	(void)state;
	snprintf(peer, sizeof(peer), "peers=({ name = \"other\"; socket = \"%s\"; })", far.socket);
	for (i = 1; i < 17; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many),
			 ", { name = \"t%u\"; token = \"t%u\"; }", i, i);
	strcat(many, ")");
	test_node_init(&twin, sets);
	test_node_start(&twin);
	assert_true(test_until(10000, twin_told, NULL));
	test_engine_open(&e, &twin, NULL, &geometry);
	assert_false(peers_connected(&e));
	test_engine_close(&e);
	assert_int_equal(test_node_logged(&twin, "of 17 tenants the first 16"), 1);
	test_node_fini(&twin);
}

/* one ticket, an engine beside the receiver and one on another node: no READ lands in a block that
 * is published, though the first engine has given its slot */
static void test_two_sources(void **state)
{
	struct test_engine from, to, beside;
	struct weft_slot held[NB], slots[NB];
	struct weft_key keys[NB];
	struct weft_op put = { .op = WEFT_OP_PUT, .nr = NB, .keys = keys, .slots = held };
	struct handoff h;
	uint64_t lease;
	unsigned layer, i;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &far, NULL, &geometry);
	test_engine_open(&beside, &far, NULL, &geometry);
	claim(&beside, held);
	for (layer = 0; layer < NL; layer++)
		fill_layer(&beside, held, 5, layer);
	test_keys(&beside, 5, NB, keys);
	put.space = beside.space;
	assert_int_equal(weft_call(beside.ring, &put, NULL), NB);
	assert_int_equal(weft_map(beside.ring, beside.space, keys, NB, held, &lease), NB);
	expect(&h, &to, 0);
	assert_int_equal(push(&beside, &h.ticket, held, 0), NB);
	claim(&from, slots);
	fill_layer(&from, slots, 6, 1);
	assert_int_equal(push(&from, &h.ticket, slots, 1), -EINVAL);
	for (i = 0; i < NB; i++)
		assert_true(
			test_filled(layer_addr(&beside, &held[i], 1), LAYER, layer_seed(5, i, 1)));
	for (layer = 1; layer < NL; layer++)
		assert_int_equal(push(&beside, &h.ticket, held, layer), NB);
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), NB);
	test_engine_close(&from);
	test_engine_close(&to);
	test_engine_close(&beside);
}

static void test_cancel(void **state)
{
	struct weft_op cancel = { .op = WEFT_OP_HANDOFF_CANCEL };
	struct test_engine from, to;
	struct weft_slot slots[NB];
	struct weft_ring *ring;
	struct handoff h;
	unsigned layer;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &near, NULL, &geometry);
	assert_int_equal(weft_ring_open(to.w, NULL, &ring), 0);
	claim(&from, slots);
	for (layer = 0; layer < NL; layer++) {
		expect(&h, &to, 0);
		if (layer)
			assert_int_equal(push(&from, &h.ticket, slots, 0), NB);
		cancel.handle = h.handle;
		assert_int_equal(weft_call(from.ring, &cancel, NULL), -ENOENT);
		assert_int_equal(weft_call(ring, &cancel, NULL), 0);
		assert_int_equal(weft_call(ring, &cancel, NULL), -ENOENT);
		assert_int_equal(hear_end(&h, test_now_ms(), NULL), -ECANCELED);
		assert_int_equal(push(&from, &h.ticket, slots, layer ? 1 : 0), -ESTALE);
	}
	assert_int_equal(unclaim(&from, slots), NB);
	assert_int_equal(test_stat(to.ring).slots_filling, 0);
	test_engine_close(&from);
	test_engine_close(&to);
}

static void test_timeout(void **state)
{
	const uint64_t start_ms = test_now_ms();
	struct test_engine from, to;
	struct weft_slot slots[NB];
	struct handoff h;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &near, NULL, &geometry);
	claim(&from, slots);
	expect(&h, &to, 100000);
	assert_int_equal(push(&from, &h.ticket, slots, 0), NB);
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), -ETIMEDOUT);
	assert_true(test_now_ms() - start_ms >= 100);
	assert_int_equal(push(&from, &h.ticket, slots, 1), -ESTALE);
	assert_int_equal(unclaim(&from, slots), NB);
	assert_int_equal(test_stat(to.ring).slots_filling, 0);
	test_engine_close(&from);
	test_engine_close(&to);
}

/* ---- between two nodes ---- */

static void test_two_nodes(void **state)
{
	struct test_engine from, to;
	uint64_t moved;
	unsigned i;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &far, NULL, &geometry);
	wait_for_peer(&from);
	moved = test_counter(to.w, "weft_handoff_read");
	whole_handoff(&from, &to, false);
	assert_int_equal(test_counter(to.w, "weft_handoff_read"), moved + NB * BLOCK);
	/* and the other way, over the same connection */
	for (i = 0; i < 10; i++)
		whole_handoff(i % 2 ? &from : &to, i % 2 ? &to : &from, false);
	assert_int_equal(test_counter(to.w, "weft_verify_failures"), 0);
	test_engine_close(&from);
	test_engine_close(&to);
}

static void test_two_nodes_refused(void **state)
{
	struct test_engine from, to;
	struct weft_slot slots[NB];
	struct weft_ticket bad;
	struct handoff h;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &far, NULL, &geometry);
	wait_for_peer(&from);
	expect(&h, &to, 0);
	claim(&from, slots);
	bad = h.ticket;
	bad.secret[0] ^= 1;
	assert_int_equal(push(&from, &bad, slots, 0), -EPERM);
	bad = h.ticket;
	bad.expires_ns = 1;
	assert_int_equal(push(&from, &bad, slots, 0), -ESTALE);
	assert_int_equal(push(&from, &h.ticket, slots, 1), -EINVAL);
	assert_int_equal(push(&from, &h.ticket, slots, 0), NB);
	assert_int_equal(push(&from, &h.ticket, slots, 0), -EINVAL);
	assert_int_equal(unclaim(&from, slots), NB);
	test_engine_close(&from);
	assert_true(hear_end(&h, test_now_ms(), NULL) < 0);
	assert_int_equal(test_stat(to.ring).slots_filling, 0);
	test_engine_close(&to);
}

/* ---- one side dies ---- */

struct role {
	const struct test_node *node;
	unsigned layers; /* pushed or heard before it says that it is ready to die */
	uint64_t name;
};

static void child_engine(struct test_engine *e, const struct test_node *node)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node->socket, .token = "" };

	test_must(!weft_open(&opts, &e->w));
	test_must(!weft_space_open(e->w, &geometry, &e->space));
	test_must(!weft_ring_open(e->w, NULL, &e->ring));
}

static void run_pusher(int in, int out, void *ctx)
{
	const struct role *r = ctx;
	struct weft_slot slots[NB];
	struct weft_ticket ticket;
	struct test_engine e;
	struct weft_op op = { .op = WEFT_OP_CLAIM, .nr = NB, .slots = slots };
	unsigned layer;

	child_engine(&e, r->node);
	op.space = e.space;
	test_must(weft_call(e.ring, &op, NULL) == NB);
	test_must(test_hear(in, &ticket, sizeof(ticket)));
	for (layer = 0; layer < r->layers; layer++) {
		fill_layer(&e, slots, r->name, layer);
		test_must(push(&e, &ticket, slots, layer) == NB);
	}
	test_must(test_say(out, &layer, sizeof(layer)));
	test_hear(in, &layer, sizeof(layer));
}

static void run_receiver(int in, int out, void *ctx)
{
	const struct role *r = ctx;
	struct weft_completion cpl;
	struct test_engine e;
	struct handoff h;
	struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT, .nr = NB, .nr_layers = NL };
	unsigned layer;

	child_engine(&e, r->node);
	test_keys(&e, r->name, NB, h.keys);
	op.space = e.space;
	op.keys = h.keys;
	op.slots = h.slots;
	op.ticket = &h.ticket;
	test_must(weft_submit(e.ring, &op, 1) == 1);
	test_must(weft_wait(e.ring, &cpl, 1, 5000000) == 1 && cpl.flags & WEFT_CQE_TICKET);
	test_must(test_say(out, &h.ticket, sizeof(h.ticket)));
	for (layer = 0; layer < r->layers; layer++)
		test_must(weft_wait(e.ring, &cpl, 1, 5000000) == 1 && cpl.res == NB);
	test_must(test_say(out, &layer, sizeof(layer)));
	test_hear(in, &layer, sizeof(layer));
}

static void pusher_dies(const struct test_node *at, struct test_engine *to,
			struct test_engine *watch, unsigned layers)
{
	const struct weft_stat from_was = test_stat(watch->ring), to_was = test_stat(to->ring);
	struct role role = { .node = at, .layers = layers };
	struct test_child child;
	struct handoff h;
	unsigned heard, i;
	uint64_t killed_ms;

	role.name = names + 100;
	test_child_start(&child, run_pusher, &role);
	expect(&h, to, 0);
	assert_true(test_say(child.to, &h.ticket, sizeof(h.ticket)));
	assert_true(test_hear(child.from, &heard, sizeof(heard)));
	for (i = 0; i < layers; i++)
		hear_layer(&h, i);
	test_child_kill(&child);
	killed_ms = test_now_ms();
	assert_int_equal(hear_end(&h, killed_ms, NULL), -ECONNRESET);
	assert_true(test_stat_settles(to->ring, &to_was, END_MS));
	assert_true(test_stat_settles(watch->ring, &from_was, END_MS));
}

static bool push_fails(struct test_engine *from, const struct weft_ticket *ticket,
		       struct weft_slot *slots, unsigned layer)
{
	const uint64_t end_ms = test_now_ms() + END_MS;
	int ret = 0;

	/* until the node knows of the death, layers still land; there is no end to wait for */
	while (layer < NL && ret >= 0 && test_now_ms() < end_ms) {
		ret = push(from, ticket, slots, layer);
		layer += ret == (int)NB;
	}
	return layer == NL || ret == -ESTALE || ret == -ECONNRESET || ret == -ECANCELED;
}

static void receiver_dies(const struct test_node *at, struct test_engine *from,
			  struct test_engine *watch, unsigned layers)
{
	const struct weft_stat to_was = test_stat(watch->ring), from_was = test_stat(from->ring);
	struct role role = { .node = at, .layers = layers };
	struct weft_slot slots[NB];
	struct test_child child;
	struct weft_ticket ticket;
	unsigned layer;

	role.name = names += 100;
	test_child_start(&child, run_receiver, &role);
	assert_true(test_hear(child.from, &ticket, sizeof(ticket)));
	claim(from, slots);
	for (layer = 0; layer < layers; layer++) {
		fill_layer(from, slots, role.name, layer);
		assert_int_equal(push(from, &ticket, slots, layer), NB);
	}
	assert_true(test_hear(child.from, &layer, sizeof(layer)));
	test_child_kill(&child);
	assert_true(push_fails(from, &ticket, slots, layers));
	assert_int_equal(unclaim(from, slots), NB);
	assert_true(test_stat_settles(watch->ring, &to_was, END_MS));
	assert_true(test_stat_settles(from->ring, &from_was, END_MS));
}

static void test_deaths_in_one_node(void **state)
{
	struct test_engine e, watch;
	unsigned layers;

	(void)state;
	test_engine_open(&e, &near, NULL, &geometry);
	test_engine_open(&watch, &near, NULL, &geometry);
	for (layers = 0; layers <= NL; layers++) {
		/* who never pushed is not known to be the one who would */
		if (layers && layers < NL)
			pusher_dies(&near, &e, &watch, layers);
		receiver_dies(&near, &e, &watch, layers);
	}
	test_engine_close(&e);
	test_engine_close(&watch);
}

static void test_deaths_in_two_nodes(void **state)
{
	struct test_engine a, b;
	unsigned layers;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &far, NULL, &geometry);
	wait_for_peer(&a);
	for (layers = 0; layers <= NL; layers++) {
		if (layers && layers < NL)
			pusher_dies(&near, &b, &a, layers);
		receiver_dies(&far, &a, &b, layers);
	}
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_node_of_pusher_dies(void **state)
{
	struct weft_slot slots[NB];
	struct test_engine from, to;
	struct weft_stat to_was;
	struct handoff h;
	uint64_t killed_ms;
	unsigned layers, i;

	(void)state;
	for (layers = 1; layers < NL; layers++) {
		test_engine_open(&from, &near, NULL, &geometry);
		test_engine_open(&to, &far, NULL, &geometry);
		wait_for_peer(&from);
		to_was = test_stat(to.ring);
		expect(&h, &to, 0);
		claim(&from, slots);
		for (i = 0; i < layers; i++) {
			fill_layer(&from, slots, h.name, i);
			assert_int_equal(push(&from, &h.ticket, slots, i), NB);
			hear_layer(&h, i);
		}
		test_node_kill(&near);
		killed_ms = test_now_ms();
		assert_int_equal(hear_end(&h, killed_ms, NULL), -ECONNRESET);
		assert_true(test_stat_settles(to.ring, &to_was, END_MS));
		assert_int_equal(push(&from, &h.ticket, slots, layers), -ECONNRESET);
		test_engine_close(&from);
		test_engine_close(&to);
		test_node_start(&near);
	}
}

static void test_node_of_receiver_dies(void **state)
{
	struct weft_slot slots[NB];
	struct test_engine from, to;
	struct handoff h;
	uint64_t killed_ms;
	int ret;

	(void)state;
	test_engine_open(&from, &near, NULL, &geometry);
	test_engine_open(&to, &far, NULL, &geometry);
	wait_for_peer(&from);
	expect(&h, &to, 0);
	claim(&from, slots);
	assert_int_equal(push(&from, &h.ticket, slots, 0), NB);
	test_node_kill(&far);
	killed_ms = test_now_ms();
	assert_int_equal(hear_end(&h, killed_ms, NULL), -ECONNRESET);
	ret = push(&from, &h.ticket, slots, 1);
	assert_true(ret == -ECONNRESET || ret == -EHOSTUNREACH);
	assert_true(test_now_ms() - killed_ms < 2 * END_MS);
	assert_int_equal(unclaim(&from, slots), NB);
	assert_int_equal(test_stat(from.ring).slots_filling, 0);
	test_engine_close(&to);
	test_node_start(&far);
	/* the next life of that node is found, and the ticket of the last one is worth nothing */
	test_engine_open(&to, &far, NULL, &geometry);
	wait_for_peer(&from);
	claim(&from, slots);
	assert_int_equal(push(&from, &h.ticket, slots, 1), -ESTALE);
	assert_int_equal(unclaim(&from, slots), NB);
	whole_handoff(&from, &to, false);
	test_engine_close(&from);
	test_engine_close(&to);
}

/* ---- set-up ---- */

static int start_one(void **state)
{
	(void)state;
	test_node_init(&near, tenants);
	test_node_start(&near);
	return 0;
}

static int start_two(void **state)
{
	(void)state;
	test_pair_start(&near, &far);
	return 0;
}

static bool peer_drains(void *ctx)
{
	struct test_engine *e = ctx;
	bool yes;
	char *text;

	if (weft_status_json(e->w, &text))
		return false;
	yes = strstr(text, "\"state\":\"draining\"") != NULL;
	free(text);
	return yes;
}

/* a node that is to leave tells its peers; the last test of its group: it leaves */
static void test_draining(void **state)
{
	struct test_engine here, there;

	(void)state;
	test_engine_open(&here, &near, NULL, &geometry);
	test_engine_open(&there, &far, NULL, &geometry);
	wait_for_peer(&here);
	assert_int_equal(weft_drain(there.w), 0);
	if (!test_until(10000, peer_drains, &here))
		fail_msg("the peer does not hear that the node drains");
	test_engine_close(&there);
	test_engine_close(&here);
}

static int stop_nodes(void **state)
{
	(void)state;
	test_pair_fini(&near, &far);
	return 0;
}

int main(void)
{
	const struct CMUnitTest one[] = {
		cmocka_unit_test(test_by_reference),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_embedded),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_deaths_in_one_node),
	};
	const struct CMUnitTest two[] = {
		cmocka_unit_test(test_two_nodes),
		cmocka_unit_test(test_two_nodes_refused),
		cmocka_unit_test(test_two_sources),
		cmocka_unit_test(test_twins),
		cmocka_unit_test(test_deaths_in_two_nodes),
		cmocka_unit_test(test_node_of_pusher_dies),
		cmocka_unit_test(test_node_of_receiver_dies),
		cmocka_unit_test(test_draining),
	};
	int ret = cmocka_run_group_tests_name("one node", one, start_one, stop_nodes);

	return ret + cmocka_run_group_tests_name("two nodes", two, start_two, stop_nodes);
}
