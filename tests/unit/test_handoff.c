/* SPDX-License-Identifier: Apache-2.0 */
/* handoffs between nodes, with peers that take no messages, lie, or go away */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/env.h"
#include "weft_internal/handoff.h"
#include "weft_internal/util.h"

#define BLOCK_BYTES 512u
#define LAYERS 4u
#define HERE 1u /* this node's id */
#define MANY 3000u /* more than any table of the handoffs has */

struct fake_peer {
	struct wfi_peer base;
	bool stuck; /* takes nothing */
	bool gone; /* its connection is closing */
	unsigned nr_done, nr_aborts;
	int last_res;
	uint64_t last_push;
	uint32_t last_crc; /* of the first piece */
	uint16_t layers[8]; /* in the order in which they were told */
	unsigned nr_layers;
};

struct fixture {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner decode, prefill, other;
	struct wfi_handoffs *hs;
	struct fake_peer far, third;
	int push_res, expect_res;
	unsigned nr_ends;
};

static int fake_send(struct wfi_peer *base, const void *msg, size_t len)
{
	struct fake_peer *p = wfi_container_of(base, struct fake_peer, base);
	struct wfi_msg_layers layers;
	struct wfi_msg_piece piece;
	struct wfi_msg_done done;
	uint32_t type;

	if (p->gone)
		return -ENOTCONN;
	if (p->stuck)
		return -EAGAIN;
	memcpy(&type, msg, sizeof(type));
	if (type == WFI_MSG_LAYERS || type == WFI_MSG_SHAPED) {
		memcpy(&layers, msg, sizeof(layers));
		memcpy(&piece, (const char *)msg + len - layers.nr * sizeof(piece), sizeof(piece));
		p->last_crc = piece.crc;
		p->last_push = layers.push;
		p->layers[p->nr_layers++ % WFI_ARRAY_SIZE(p->layers)] = (uint16_t)layers.layer;
	} else if (type == WFI_MSG_LAYERS_DONE) {
		memcpy(&done, msg, sizeof(done));
		p->nr_done++;
		p->last_res = done.res;
	} else {
		p->nr_aborts++;
	}
	return 0;
}

static const struct wfi_peer_arena *fake_arena(struct wfi_peer *base,
					       const struct wfi_tenant *tenant)
{
	(void)base;
	(void)tenant;
	return NULL;
}

static void peer_init(struct fake_peer *p, uint64_t node)
{
	*p = (struct fake_peer){ .base = { .node = node, .send = fake_send, .arena = fake_arena } };
}

static int setup(void **state)
{
	const struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = BLOCK_BYTES,
		.model = "handoff",
		.layout = "test",
		.tokens_per_block = 16,
		.nr_layers = LAYERS,
	};
	const struct wfi_tenant_opts tenant = { .name = "t", .token = "", .arena_bytes = 8 << 20 };
	struct fixture *f = calloc(1, sizeof(*f));
	struct wfi_handoffs_opts o = { .node = HERE, .lease_ns = WFI_NSEC_PER_SEC };
	struct wfi_kv_opts kv = { .extent_bytes = 4096, .max_slots = 16384 };

	assert_non_null(f);
	assert_int_equal(wfi_sim_create(7, &f->sim), 0);
	f->env = wfi_sim_node(f->sim, 0);
	kv.env = o.env = f->env;
	assert_int_equal(wfi_kv_create(&kv, &f->kv), 0);
	assert_int_equal(wfi_kv_tenant_add(f->kv, &tenant, &f->tenant), 0);
	assert_int_equal(wfi_kv_space_open(f->kv, f->tenant, &opts, &f->space, NULL), 0);
	assert_int_equal(wfi_owner_init(f->kv, &f->decode, f->tenant), 0);
	assert_int_equal(wfi_owner_init(f->kv, &f->prefill, f->tenant), 0);
	assert_int_equal(wfi_owner_init(f->kv, &f->other, f->tenant), 0);
	o.kv = f->kv;
	assert_int_equal(wfi_handoffs_create(&o, &f->hs), 0);
	peer_init(&f->far, 2);
	peer_init(&f->third, 3);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	wfi_handoffs_destroy(f->hs);
	wfi_kv_destroy(f->kv);
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

static uint64_t now(const struct fixture *f)
{
	return wfi_now(f->env);
}

/* ---- both halves of a handoff ---- */

static void on_landed(void *ctx, uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr,
		      const struct weft_slot *slots)
{
	(void)ctx;
	(void)layer;
	(void)nr_layers;
	(void)first;
	(void)nr;
	(void)slots;
}

static void on_expected(void *ctx, int res, uint64_t lease, const struct weft_slot *slots)
{
	struct fixture *f = ctx;

	(void)lease;
	(void)slots;
	f->expect_res = res;
	f->nr_ends++;
}

static void on_pushed(void *ctx, int res)
{
	((struct fixture *)ctx)->push_res = res;
}

static struct weft_ticket expect(struct fixture *f, uint32_t nr)
{
	const struct weft_key keys[4] = { { 1, 1 }, { 2, 2 }, { 3, 3 }, { 4, 4 } };
	const struct wfi_expect_opts o = {
		.owner = &f->decode,
		.space = f->space.id,
		.nr_blocks = nr,
		.nr_layers = LAYERS,
		.keys = keys,
		.now_ns = now(f),
		.deadline_ns = now(f) + WFI_NSEC_PER_SEC,
		.landed = on_landed,
		.done = on_expected,
		.ctx = f,
	};
	struct weft_ticket ticket;
	uint64_t handle;

	f->expect_res = 1;
	assert_int_equal(wfi_handoff_expect(f->hs, &o, &ticket, &handle), 0);
	return ticket;
}

static struct weft_slot claim(struct fixture *f, struct wfi_owner *owner)
{
	struct weft_slot slot;

	assert_int_equal(wfi_kv_claim(f->kv, owner, f->space.id, 1, &slot, now(f)), 1);
	return slot;
}

static int push(struct fixture *f, struct wfi_owner *owner, const struct weft_ticket *ticket,
		uint32_t layer, uint32_t block, const struct weft_slot *slot)
{
	const struct wfi_push_opts o = {
		.owner = owner,
		.space = f->space.id,
		.ticket = ticket,
		.layer = layer,
		.nr_layers = 1,
		.first_block = block,
		.nr = 1,
		.slots = slot,
		.peer = ticket->node == HERE ? NULL : &f->far.base,
		.now_ns = now(f),
		.deadline_ns = now(f) + WFI_NSEC_PER_SEC,
		.done = on_pushed,
		.ctx = f,
	};

	f->push_res = 77;
	return wfi_handoff_push(f->hs, &o);
}

/* a ticket of the other node's, or what looks like one */
static struct weft_ticket far_ticket(struct fixture *f, uint64_t name)
{
	return (struct weft_ticket){
		.node = f->far.base.node,
		.incarnation = 5,
		.handoff = name,
		.secret = { name, name },
		.nr_blocks = 4,
		.nr_layers = LAYERS,
		.expires_ns = UINT64_MAX,
	};
}

static void layers_message(struct fixture *f, struct fake_peer *from, const struct weft_ticket *t,
			   uint32_t layer)
{
	struct {
		struct wfi_msg_layers m;
		struct wfi_msg_piece piece;
	} msg = { .m = { .type = WFI_MSG_LAYERS,
			 .nr = 1,
			 .push = 9,
			 .handoff = t->handoff,
			 .incarnation = t->incarnation,
			 .secret = { t->secret[0], t->secret[1] },
			 .space_tag = f->space.tag,
			 .layer = layer,
			 .nr_layers = 1,
			 .timeout_us = 1000000 } };

	assert_int_equal(wfi_handoffs_message(f->hs, &from->base, &msg, sizeof(msg), now(f)), 0);
}

static void done_message(struct fixture *f, uint64_t name, int res)
{
	const struct wfi_msg_done done = { .type = WFI_MSG_LAYERS_DONE, .res = res, .push = name };

	assert_int_equal(wfi_handoffs_message(f->hs, &f->far.base, &done, sizeof(done), now(f)), 0);
}

/* ---- one block, one source ---- */

/* a READ would land in the slot that a local engine gave: a block that is published, perhaps */
static void test_no_read_into_given_slots(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = expect(f, 1);
	const struct weft_slot slot = claim(f, &f->prefill);

	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	layers_message(f, &f->far, &t, 1);
	assert_int_equal(f->far.last_res, -EINVAL);
	assert_int_equal(f->expect_res, 1); /* the handoff goes on */
	wfi_handoffs_owner_gone(f->hs, &f->decode);
	wfi_handoffs_peer_lost(f->hs, &f->far.base);
}

/* two engines push blocks of one handoff: the end of either ends it */
static void test_each_pusher_counts(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = expect(f, 2);
	const struct weft_slot a = claim(f, &f->prefill), b = claim(f, &f->other);

	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &a), 0);
	assert_int_equal(push(f, &f->other, &t, 0, 1, &b), 0);
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
	assert_int_equal(f->expect_res, -ECONNRESET);
	assert_int_equal(f->nr_ends, 1);
}

/* ---- peers that stand still ---- */

static void test_stuck_peer_holds_up_nobody(void **state)
{
	struct fixture *f = *state;
	struct weft_ticket t = expect(f, 1);

	t.secret[0] ^= 1;
	f->far.stuck = true;
	layers_message(f, &f->far, &t, 0);
	layers_message(f, &f->third, &t, 0);
	layers_message(f, &f->far, &t, 0);
	wfi_handoffs_poll(f->hs, now(f));
	assert_int_equal(f->third.nr_done, 1);
	assert_int_equal(f->third.last_res, -EPERM);
	/* what waits for a peer gives no reason to spin, but is tried again soon */
	assert_in_range(wfi_handoffs_next_event_ns(f->hs), now(f) + 1,
			now(f) + 10 * WFI_NSEC_PER_MSEC);
	f->far.stuck = false;
	wfi_handoffs_poll(f->hs, now(f));
	assert_int_equal(f->far.nr_done, 2);
	wfi_handoffs_owner_gone(f->hs, &f->decode);
}

/* an engine need not wait for a layer before it pushes the next one */
static void test_layers_keep_their_order(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = far_ticket(f, 6);
	struct weft_slot slot = claim(f, &f->prefill);
	struct wfi_msg_done done = { .type = WFI_MSG_LAYERS_DONE, .res = 1 };
	unsigned i;

	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	f->far.stuck = true;
	assert_int_equal(push(f, &f->prefill, &t, 1, 0, &slot), 0);
	/* the first one's place is free again, and before that of the second */
	done.push = f->far.last_push;
	wfi_handoffs_message(f->hs, &f->far.base, &done, sizeof(done), now(f));
	assert_int_equal(f->push_res, 1);
	assert_int_equal(push(f, &f->prefill, &t, 2, 0, &slot), 0);
	f->far.stuck = false;
	for (i = 0; i < 4; i++)
		wfi_handoffs_poll(f->hs, now(f));
	assert_int_equal(f->far.nr_layers, 3);
	for (i = 0; i < 3; i++)
		assert_int_equal(f->far.layers[i], i);
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
}

/* before anybody has said that it is lost */
/* what comes evenly is waited for awake, and slept for in between */
static void test_next_layer_is_awaited(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = far_ticket(f, 6);
	const struct weft_slot slot = claim(f, &f->prefill);
	const uint64_t apart_ns = 4 * WFI_NSEC_PER_MSEC;
	uint64_t next_ns;

	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	done_message(f, f->far.last_push, 1);
	assert_in_range(wfi_handoffs_awaited_ns(f->hs), 0, now(f));
	wfi_sim_advance(f->sim, apart_ns);
	assert_int_equal(push(f, &f->prefill, &t, 1, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	done_message(f, f->far.last_push, 1);
	assert_in_range(wfi_handoffs_awaited_ns(f->hs), 0, now(f));
	next_ns = wfi_handoffs_next_event_ns(f->hs);
	assert_in_range(next_ns, now(f) + apart_ns / 2, now(f) + apart_ns - 1);
	wfi_sim_advance(f->sim, next_ns - now(f));
	wfi_handoffs_poll(f->hs, now(f));
	assert_in_range(wfi_handoffs_awaited_ns(f->hs), now(f) + apart_ns / 16,
			now(f) + apart_ns / 2);
	/* one that does not come is not waited for any longer */
	wfi_sim_advance(f->sim, apart_ns);
	wfi_handoffs_poll(f->hs, now(f));
	assert_in_range(wfi_handoffs_awaited_ns(f->hs), 0, now(f));
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
}

static void test_peer_that_goes_is_a_reset(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = far_ticket(f, 6);
	struct weft_slot slot = claim(f, &f->prefill);

	f->far.gone = true;
	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	assert_int_equal(f->push_res, -ECONNRESET);
}

/* answers to a peer that takes none are dropped at some point, those to others never */
static void test_stuck_peer_fills_no_table(void **state)
{
	struct fixture *f = *state;
	struct weft_ticket t = expect(f, 1);
	unsigned i;

	t.secret[0] ^= 1;
	f->far.stuck = true;
	for (i = 0; i < MANY; i++) {
		layers_message(f, &f->far, &t, 0);
		layers_message(f, &f->third, &t, 0);
	}
	assert_int_equal(f->third.nr_done, MANY);
	wfi_handoffs_peer_lost(f->hs, &f->far.base);
	wfi_handoffs_poll(f->hs, now(f));
	assert_int_equal(f->far.nr_done, 0);
	assert_int_equal(wfi_handoffs_poll(f->hs, now(f)), 0);
	wfi_handoffs_owner_gone(f->hs, &f->decode);
}

/* ---- tickets that nobody gave ---- */

static void test_forged_tickets_take_no_place(void **state)
{
	struct fixture *f = *state;
	const struct weft_slot slot = claim(f, &f->prefill);
	unsigned i;

	for (i = 0; i < MANY; i++) {
		const struct weft_ticket t = far_ticket(f, i);

		assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
		wfi_handoffs_poll(f->hs, now(f));
		done_message(f, f->far.last_push, i % 2 ? -EPERM : -ESTALE);
		assert_int_equal(f->push_res, i % 2 ? -EPERM : -ESTALE);
	}
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
	assert_int_equal(f->far.nr_aborts, 0);
}

/* ---- layouts ---- */

#define BIG_BLOCKS 8192u
#define BIG_TOKENS 4096u
#define HEAD_BYTES 4u

/* of @tokens to a block */
static struct weft_layout layout_of(uint32_t tokens)
{
	return (struct weft_layout){
		.nr_layers = LAYERS,
		.nr_kv = 1,
		.nr_tokens = tokens,
		.nr_heads = 1,
		.head_bytes = HEAD_BYTES,
		.layer_stride = tokens * HEAD_BYTES,
		.kv_stride = tokens * HEAD_BYTES,
		.token_stride = HEAD_BYTES,
		.head_stride = HEAD_BYTES,
	};
}

static int shaped_message(struct fixture *f, const struct weft_ticket *t, uint32_t tokens)
{
	struct {
		struct wfi_msg_shaped s;
		struct wfi_msg_piece piece;
	} msg = { .s = { .m = { .type = WFI_MSG_SHAPED,
				.nr = 1,
				.push = 9,
				.handoff = t->handoff,
				.incarnation = t->incarnation,
				.secret = { t->secret[0], t->secret[1] },
				.nr_layers = 1,
				.timeout_us = 1000000 },
			 .layout = layout_of(tokens) } };

	assert_int_equal(wfi_handoffs_message(f->hs, &f->far.base, &msg, sizeof(msg), now(f)), 0);
	return f->far.last_res;
}

/* what is kept of blocks that a pusher counts has an end, however small it says that they are */
static void test_small_blocks(void **state)
{
	struct fixture *f = *state;
	const struct weft_space_opts opts = { .size = sizeof(opts),
					      .block_bytes = BIG_TOKENS * HEAD_BYTES * LAYERS,
					      .model = "handoff",
					      .layout = "big",
					      .tokens_per_block = BIG_TOKENS,
					      .nr_layers = LAYERS };
	const struct weft_layout layout = layout_of(BIG_TOKENS);
	struct weft_key *keys = calloc(BIG_BLOCKS, sizeof(*keys));
	struct wfi_expect_opts o = { .owner = &f->decode,
				     .nr_blocks = BIG_BLOCKS,
				     .nr_layers = LAYERS,
				     .keys = keys,
				     .layout = &layout,
				     .now_ns = now(f),
				     .deadline_ns = now(f) + WFI_NSEC_PER_SEC,
				     .landed = on_landed,
				     .done = on_expected,
				     .ctx = f };
	struct wfi_space_info space;
	struct weft_ticket ticket;
	uint64_t handle;

	assert_int_equal(wfi_kv_space_open(f->kv, f->tenant, &opts, &space, NULL), 0);
	o.space = space.id;
	assert_int_equal(wfi_handoff_expect(f->hs, &o, &ticket, &handle), 0);
	free(keys);
	assert_int_equal(shaped_message(f, &ticket, 1), -E2BIG);
	/* taken, but for the arena that the peer does not share */
	assert_int_equal(shaped_message(f, &ticket, 2), -EXDEV);
	wfi_handoffs_owner_gone(f->hs, &f->decode);
}

#define HUGE_BYTES (4u << 20)

/* two of four layers of which @run bytes each @stride are of the layout */
static uint32_t huge_crc(const uint8_t *bytes, uint32_t run, uint32_t stride)
{
	uint32_t crc = 0, off;

	for (off = HUGE_BYTES / 4; off < HUGE_BYTES / 4 * 3; off += stride)
		crc = wfi_crc32c(crc, bytes + off, run);
	return crc;
}

/* the sum of a huge block takes several turns, in which others have theirs, and is the block's;
 * what a peer that takes nothing leaves is not summed again */
static void huge_push(struct fixture *f, const struct weft_layout *layout, uint32_t run,
		      uint32_t stride)
{
	const uint32_t nr_turns = HUGE_BYTES / 2 / stride * run / (512u << 10);
	struct weft_ticket t = far_ticket(f, 7);
	struct wfi_push_opts o = { .owner = &f->prefill,
				   .ticket = &t,
				   .layer = 1,
				   .nr_layers = 2,
				   .nr = 1,
				   .layout = layout,
				   .peer = &f->far.base,
				   .now_ns = now(f),
				   .deadline_ns = now(f) + WFI_NSEC_PER_SEC,
				   .done = on_pushed,
				   .ctx = f };
	struct wfi_space_info space;
	struct weft_slot slot;
	uint32_t turns, i;
	uint8_t *bytes;

	t.nr_tokens = BIG_TOKENS;
	assert_int_equal(
		wfi_kv_space_open(f->kv, f->tenant,
				  &(struct weft_space_opts){ .size = sizeof(struct weft_space_opts),
							     .block_bytes = HUGE_BYTES,
							     .model = "handoff",
							     .layout = "huge",
							     .tokens_per_block = BIG_TOKENS,
							     .nr_layers = LAYERS },
				  &space, NULL),
		0);
	o.space = space.id;
	o.slots = &slot;
	assert_int_equal(wfi_kv_claim(f->kv, &f->prefill, space.id, 1, &slot, now(f)), 1);
	bytes = wfi_kv_slot_addr(f->kv, slot.idx);
	for (i = 0; i < HUGE_BYTES; i++)
		bytes[i] = (uint8_t)(i >> 3 ^ i >> 13);
	assert_int_equal(wfi_handoff_push(f->hs, &o), 0);
	f->far.nr_layers = 0;
	f->far.stuck = true;
	for (i = 0; i < 8; i++)
		wfi_handoffs_poll(f->hs, now(f));
	f->far.stuck = false;
	for (turns = 0; !f->far.nr_layers && turns < 8; turns++)
		wfi_handoffs_poll(f->hs, now(f));
	assert_int_equal(turns, 1);
	assert_int_equal(f->far.last_crc, huge_crc(bytes, run, stride));
	done_message(f, f->far.last_push, 1);
	assert_int_equal(f->push_res, 1);
	/* and again, from the first turn on */
	f->far.nr_layers = 0;
	assert_int_equal(wfi_handoff_push(f->hs, &o), 0);
	for (turns = 0; !f->far.nr_layers && turns < 8; turns++)
		wfi_handoffs_poll(f->hs, now(f));
	assert_true(nr_turns > 1);
	assert_int_equal(turns, nr_turns);
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
}

static void test_huge_block(void **state)
{
	huge_push(*state, NULL, HUGE_BYTES / 2, HUGE_BYTES / 2);
}

static void test_huge_block_of_runs(void **state)
{
	const uint32_t stride = HUGE_BYTES / LAYERS / BIG_TOKENS, head = stride / 4 * 3;
	const struct weft_layout l = { .nr_layers = LAYERS,
				       .nr_kv = 1,
				       .nr_tokens = BIG_TOKENS,
				       .nr_heads = 1,
				       .head_bytes = head,
				       .layer_stride = HUGE_BYTES / LAYERS,
				       .kv_stride = HUGE_BYTES / LAYERS,
				       .token_stride = stride,
				       .head_stride = stride };

	huge_push(*state, &l, head, stride);
}

/* what was landed at a receiver is called off when its engine goes, once */
static void test_abort(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = far_ticket(f, 1);
	const struct weft_slot slot = claim(f, &f->prefill);

	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	done_message(f, f->far.last_push, 0);
	assert_int_equal(f->push_res, 1);
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
	assert_int_equal(f->far.nr_aborts, 1);
	wfi_handoffs_owner_gone(f->hs, &f->prefill);
	assert_int_equal(f->far.nr_aborts, 1);
}

/* a slot stays pinned while the receiver may read it, and no answer of another peer changes that */
static void test_fence_outlives_peer(void **state)
{
	struct fixture *f = *state;
	const struct weft_ticket t = far_ticket(f, 1);
	const struct weft_slot slot = claim(f, &f->prefill);
	struct weft_stat st;

	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	wfi_handoffs_peer_lost(f->hs, &f->far.base);
	assert_int_equal(f->push_res, -ECONNRESET);
	done_message(f, f->far.last_push, 0); /* the next connection, where the last one was */
	wfi_kv_stat(f->kv, f->tenant, &st);
	assert_int_equal(st.slots_leased, 1);
	wfi_handoffs_poll(f->hs, now(f) + 2 * WFI_NSEC_PER_SEC);
	wfi_kv_stat(f->kv, f->tenant, &st);
	assert_int_equal(st.slots_leased, 0);
	/* and one that is fenced still at the end of the node leaks nothing */
	assert_int_equal(push(f, &f->prefill, &t, 0, 0, &slot), 0);
	wfi_handoffs_poll(f->hs, now(f));
	wfi_handoffs_peer_lost(f->hs, &f->far.base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_no_read_into_given_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_pusher_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stuck_peer_holds_up_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_layers_keep_their_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_next_layer_is_awaited, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peer_that_goes_is_a_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stuck_peer_fills_no_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forged_tickets_take_no_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_huge_block, setup, teardown),
		cmocka_unit_test_setup_teardown(test_huge_block_of_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fence_outlives_peer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
