/* SPDX-License-Identifier: Apache-2.0 */
/* courier.c - both ends of a handoff, and of a channel, in one thread: what goes in comes out */
#include <errno.h>
#include "tests/chaos/chaos.h"

#define LAYER (CHAOS_BLOCK / CHAOS_LAYERS)
#define TIMEOUT_MIN_US 30000u
#define TIMEOUT_MAX_US 500000u
#define MESSAGE_SLOTS 3u
#define MESSAGES_MAX 6u
#define CREDIT 4u

static uint32_t some_time(struct seat *s)
{
	return TIMEOUT_MIN_US + seat_rand(s, TIMEOUT_MAX_US - TIMEOUT_MIN_US);
}

/* ---- handoffs ---- */

struct handoff {
	struct seat *from, *to;
	uint64_t name;
	unsigned nr;
	struct weft_key keys[CHAOS_RUN];
	struct weft_slot ours[CHAOS_RUN], theirs[CHAOS_RUN];
	struct weft_ticket ticket;
	uint64_t handle; /* of the receiver's */
	uint32_t timeout_us;
	struct moment begun;
	uint64_t pushed_ns; /* the last push began */
	/* a push has failed: its slots may have become others' while they were read */
	bool torn;
	/* a layer was, when it was said to have landed. Of a handoff that has failed since, slots
	 * may have been others' by then */
	bool wrong;
	bool over;
	int res; /* when it is */
	uint64_t lease;
};

static uint64_t layer_seed(const struct handoff *h, unsigned block, unsigned layer)
{
	return block_seed(h->name, block) * CHAOS_LAYERS + layer;
}

/* Return: whether these layers have come as they went */
static bool layers_right(struct handoff *h, unsigned first_layer, unsigned nr_layers,
			 unsigned first, unsigned nr)
{
	unsigned i, k;

	for (i = first; i < first + nr; i++)
		for (k = first_layer; k < first_layer + nr_layers; k++)
			if (!test_filled((char *)seat_slot(h->to, &h->theirs[i]) + k * LAYER, LAYER,
					 layer_seed(h, i, k)))
				return false;
	return true;
}

/* one completion of the expectation */
static void expect_next(struct handoff *h)
{
	struct weft_completion cpl;
	const int ret = seat_next(h->to, &h->begun, h->timeout_us, &cpl);

	/* of a cancellation */
	if (cpl.op != WEFT_OP_HANDOFF_EXPECT)
		return;
	if (cpl.flags & WEFT_CQE_TICKET) {
		h->handle = cpl.handle;
		return;
	}
	if (cpl.flags & WEFT_CQE_MORE) {
		h->wrong |=
			!layers_right(h, cpl.layer, cpl.nr_layers, cpl.first_block, cpl.nr_blocks);
		return;
	}
	h->over = true;
	h->res = ret;
	h->lease = cpl.handle;
}

static bool expect(struct handoff *h)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .space = h->to->e.space,
				    .nr = h->nr,
				    .nr_layers = CHAOS_LAYERS,
				    .keys = h->keys,
				    .slots = h->theirs,
				    .ticket = &h->ticket,
				    .timeout_us = h->timeout_us };

	h->begun = seat_moment(h->to);
	if (seat_post(h->to, &op) != 1)
		return false;
	expect_next(h);
	if (!h->over)
		return true;
	seat_failed(h->to, "handoff_expect", h->res, NULL);
	return false;
}

static bool push(struct handoff *h, unsigned layer)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_PUSH,
				    .space = h->from->e.space,
				    .nr = h->nr,
				    .slots = h->ours,
				    .ticket = &h->ticket,
				    .layer = layer,
				    .nr_layers = 1,
				    .timeout_us = some_time(h->from) };
	unsigned i;

	for (i = 0; i < h->nr; i++)
		test_fill((char *)seat_slot(h->from, &h->ours[i]) + layer * LAYER, LAYER,
			  layer_seed(h, i, layer));
	h->pushed_ns = chaos_now();
	/* who expects it is told of the end of its node before who pushes */
	h->torn = seat_failed(h->from, "handoff_push", seat_call(h->from, &op, NULL),
			      MAY(-ESTALE, -ECANCELED));
	return !h->torn;
}

static void cancel(struct handoff *h)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_CANCEL,
				    .handle = h->handle,
				    .timeout_us = h->timeout_us };
	const struct moment m = seat_moment(h->to);
	struct weft_completion cpl;
	bool heard = false;

	if (seat_post(h->to, &op) != 1)
		return;
	while (!heard) {
		seat_next(h->to, &m, h->timeout_us, &cpl);
		heard = cpl.op == WEFT_OP_HANDOFF_CANCEL;
		if (heard || cpl.flags & WEFT_CQE_MORE)
			continue;
		h->over = true;
		h->res = cpl.res;
		h->lease = cpl.handle;
	}
}

static void expect_end(struct handoff *h)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .timeout_us = TIMEOUT_MAX_US };

	while (!h->over)
		expect_next(h);
	if (seat_failed(h->to, "handoff", h->res, MAY(-ECANCELED, h->torn ? -EBADMSG : 0)))
		return;
	h->wrong |= !layers_right(h, 0, CHAOS_LAYERS, 0, h->nr) &&
		    chaos_now() - h->pushed_ns < CHAOS_LEASE_SURE_NS;
	if (h->wrong)
		chaos_breach(h->to->c, "handoff from node-%u to node-%u: a layer is wrong",
			     h->from->node, h->to->node);
	if (h->from->node != h->to->node)
		chaos_count(h->to->c, CHAOS_HANDOFFS, 1);
	op.handle = h->lease;
	seat_failed(h->to, "release", seat_call(h->to, &op, NULL), MAY(-ENOENT));
}

void handoff_turn(struct seat *from, struct seat *to)
{
	/* names of their own: what stands in their blocks is told by layers */
	struct handoff h = { .from = from,
			     .to = to,
			     .name = 1000000 + seat_rand(from, 1u << 30),
			     .nr = 1 + seat_rand(from, CHAOS_RUN),
			     .timeout_us = some_time(from) };
	unsigned layer, layers = seat_rand(from, 4) ? CHAOS_LAYERS : seat_rand(from, CHAOS_LAYERS);

	test_keys(&to->e, h.name, h.nr, h.keys);
	if (!expect(&h))
		return;
	if (seat_claim(from, h.ours, h.nr)) {
		for (layer = 0; layer < layers && push(&h, layer); layer++)
			;
		seat_unclaim(from, h.ours, h.nr);
	}
	if (layers < CHAOS_LAYERS && seat_rand(from, 2))
		cancel(&h);
	expect_end(&h);
}

/* ---- channels ---- */

struct stream {
	struct seat *from, *to;
	struct weft_ticket ticket;
	uint64_t out, in; /* handles; 0: not open */
	uint64_t sent; /* messages of which it is known that they arrived */
	uint64_t got;
	bool unsure; /* of the one after that it is not known */
};

static uint64_t message_bytes(uint64_t seq)
{
	uint64_t state = seq;

	return 1 + test_rand(&state) % (MESSAGE_SLOTS * CHAOS_BLOCK);
}

static uint64_t in_slot(uint64_t bytes, unsigned i)
{
	return wfi_min(bytes - (uint64_t)i * CHAOS_BLOCK, CHAOS_BLOCK);
}

static unsigned message_slots(uint64_t seq)
{
	return (unsigned)((message_bytes(seq) + CHAOS_BLOCK - 1) / CHAOS_BLOCK);
}

static bool stream_open(struct stream *st)
{
	struct weft_message info = { .bytes = CREDIT * MESSAGE_SLOTS * CHAOS_BLOCK };
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_OPEN,
				    .space = st->to->e.space,
				    .nr = CREDIT,
				    .ticket = &st->ticket,
				    .message = &info,
				    .timeout_us = some_time(st->to) };
	struct weft_completion cpl;

	if (seat_failed(st->to, "channel_open", seat_call(st->to, &op, &cpl), MAY(-EAGAIN)))
		return false;
	st->in = cpl.handle;
	return true;
}

/* begins, or goes on with, what the receiver wants next */
static bool stream_join(struct stream *st)
{
	struct weft_message info = { .seq = UINT64_MAX };
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_JOIN,
				    .space = st->from->e.space,
				    .ticket = &st->ticket,
				    .message = &info,
				    .timeout_us = some_time(st->from) };
	struct weft_completion cpl;
	const int ret = seat_call(st->from, &op, &cpl);

	/* a sender that is not known to be lost yet, another life, a receiver that leaves */
	if (ret == -EBUSY || seat_failed(st->from, "channel_join", ret, MAY(-ESTALE, -EPIPE)))
		return false;
	if (info.seq != st->sent && !(st->unsure && info.seq == st->sent + 1))
		chaos_breach(st->from->c,
			     "channel from node-%u to node-%u: message %u is wanted, %u have "
			     "arrived",
			     st->from->node, st->to->node, (unsigned)info.seq, (unsigned)st->sent);
	st->sent = info.seq;
	st->unsure = false;
	st->out = cpl.handle;
	return true;
}

static bool stream_send(struct stream *st)
{
	struct weft_slot slots[MESSAGE_SLOTS];
	struct weft_message info = { .bytes = message_bytes(st->sent), .tag = ~st->sent };
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_SEND,
				    .handle = st->out,
				    .nr = message_slots(st->sent),
				    .slots = slots,
				    .message = &info,
				    .timeout_us = some_time(st->from) };
	unsigned i;
	int ret;

	if (!seat_claim(st->from, slots, op.nr))
		return false;
	for (i = 0; i < op.nr; i++)
		test_fill(seat_slot(st->from, &slots[i]), in_slot(info.bytes, i),
			  st->sent * MESSAGE_SLOTS + i);
	ret = seat_call(st->from, &op, NULL);
	if (!seat_failed(st->from, "channel_send", ret, MAY(-EPIPE))) {
		st->sent++;
		return true;
	}
	st->unsure = true;
	seat_unclaim(st->from, slots, op.nr);
	return false;
}

static bool stream_recv(struct stream *st)
{
	struct weft_slot slots[MESSAGE_SLOTS];
	struct weft_message info;
	struct weft_op op = { .op = WEFT_OP_CHANNEL_RECV,
			      .handle = st->in,
			      .nr = MESSAGE_SLOTS,
			      .slots = slots,
			      .message = &info,
			      .timeout_us = some_time(st->to) };
	struct weft_completion cpl;
	const int nr = seat_call(st->to, &op, &cpl);
	unsigned i;

	if (seat_failed(st->to, "channel_recv", nr, NULL) || !nr)
		return false;
	if (info.seq != st->got || info.tag != ~st->got || info.bytes != message_bytes(st->got))
		chaos_breach(st->to->c, "channel from node-%u to node-%u: message %u comes as %u",
			     st->from->node, st->to->node, (unsigned)st->got, (unsigned)info.seq);
	for (i = 0; i < (unsigned)nr; i++)
		if (!test_filled(seat_slot(st->to, &slots[i]), in_slot(info.bytes, i),
				 st->got * MESSAGE_SLOTS + i))
			chaos_breach(st->to->c, "channel from node-%u to node-%u: wrong bytes",
				     st->from->node, st->to->node);
	st->got++;
	if (st->from->node != st->to->node)
		chaos_count(st->to->c, CHAOS_MESSAGES, 1);
	op = (struct weft_op){ .op = WEFT_OP_CHANNEL_RELEASE,
			       .handle = cpl.handle,
			       .timeout_us = TIMEOUT_MAX_US };
	return !seat_failed(st->to, "channel_release", seat_call(st->to, &op, NULL), MAY(-ENOENT));
}

static void stream_close(struct seat *s, uint64_t *handle)
{
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_CLOSE,
				    .handle = *handle,
				    .timeout_us = some_time(s) };

	if (*handle)
		seat_failed(s, "channel_close", seat_call(s, &op, NULL), MAY(-ENOENT));
	*handle = 0;
}

void channel_turn(struct seat *from, struct seat *to)
{
	struct stream st = { .from = from, .to = to };
	unsigned i, nr = 1 + seat_rand(from, MESSAGES_MAX);
	bool sent;

	if (!stream_open(&st))
		return;
	for (i = 0; i < nr; i++) {
		if (!st.out && !stream_join(&st))
			break;
		sent = stream_send(&st);
		/* what its sender knows to have arrived is there, and perhaps one more */
		while (st.got < st.sent && stream_recv(&st))
			;
		if (!sent)
			stream_close(from, &st.out);
	}
	stream_close(from, &st.out);
	stream_close(to, &st.in);
}
