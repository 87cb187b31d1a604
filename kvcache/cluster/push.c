/* SPDX-License-Identifier: Apache-2.0 */
/* push.c - the sending half of handoffs: checksums of pieces, messages, answers, fences */
#include <errno.h>
#include <string.h>

#include "shape.h"
#include "stage.h"

/* after its deadline a receiver may still be in the middle of a READ for this long */
#define FENCE_GRACE_NS (100 * WFI_NSEC_PER_MSEC)
#define PART_SHIFT 16u

/* what its messages are called: one out of places has several parts on their way */
static uint64_t push_name(const struct wfi_handoffs *hs, const struct push *p, uint32_t part)
{
	return ((uint64_t)p->gen << 32) | part << PART_SHIFT | (uint32_t)(p - hs->pushes);
}

static struct push *push_find(struct wfi_handoffs *hs, uint64_t name, uint32_t *part)
{
	uint32_t idx = (uint32_t)name & ((1u << PART_SHIFT) - 1);

	if (idx >= NR_PUSHES || hs->pushes[idx].gen != name >> 32 ||
	    hs->pushes[idx].state == PUSH_FREE)
		return NULL;
	*part = (uint32_t)name >> PART_SHIFT;
	return &hs->pushes[idx];
}

static void push_free(struct wfi_handoffs *hs, struct push *p)
{
	if (p->opts.places) {
		wfi_stage_free(hs, p);
	} else {
		wfi_kv_unpin(hs->opts.kv, p->idx, p->opts.nr);
		wfi_free(hs->opts.env, p->mem, p->mem_len);
	}
	p->mem = NULL;
	p->state = PUSH_FREE;
}

/* ---- remote handoffs under way, so that the receiver hears when their engine is gone ---- */

static struct outbound *outbound_find(struct wfi_handoffs *hs, const struct wfi_push_opts *o)
{
	uint32_t i;

	for (i = 0; i < hs->hi_outbound; i++) {
		struct outbound *b = &hs->outbound[i];

		if (b->busy && b->handoff == o->ticket->handoff && b->peer == o->peer &&
		    b->secret[0] == o->ticket->secret[0])
			return b;
	}
	return NULL;
}

/* of the sender's, that the whole handoff is */
static uint32_t blocks_of(const struct wfi_push_opts *o)
{
	const struct weft_ticket *t = o->ticket;
	uint64_t per_block;

	if (!o->layout)
		return t->nr_blocks;
	per_block = o->layout->nr_tokens;
	return (uint32_t)wfi_min((t->nr_tokens + per_block - 1) / per_block, UINT32_MAX);
}

static struct outbound *outbound_get(struct wfi_handoffs *hs, const struct wfi_push_opts *o)
{
	struct outbound *b = outbound_find(hs, o);
	uint32_t i;

	if (b)
		return b;
	for (i = 0; i < hs->hi_outbound && hs->outbound[i].busy; i++)
		;
	if (i == NR_OUTBOUND)
		return NULL;
	if (i == hs->hi_outbound)
		hs->hi_outbound++;
	b = &hs->outbound[i];
	*b = (struct outbound){
		.busy = true,
		.owner = o->owner->id,
		.peer = o->peer,
		.handoff = o->ticket->handoff,
		.incarnation = o->ticket->incarnation,
		.secret = { o->ticket->secret[0], o->ticket->secret[1] },
		.left = (uint64_t)blocks_of(o) * o->ticket->nr_layers,
		.expires_ns = o->ticket->expires_ns,
	};
	return b;
}

/* a ticket that the receiver does not know leaves nothing to be told: or forged ones would take all
 * places */
static void outbound_count(struct wfi_handoffs *hs, const struct wfi_push_opts *o, int res)
{
	struct outbound *b = outbound_find(hs, o);
	uint64_t nr = (uint64_t)o->nr * o->nr_layers;

	if (!b)
		return;
	if (res > 0)
		b->left = b->left > nr ? b->left - nr : 0;
	if (!b->left || res == -EPERM || res == -ESTALE || res == -EXDEV)
		b->busy = false;
}

/* ---- the end of a push ---- */

/* the receiver has it to wait for nothing more. @res: why, 0: the engine is gone */
static void outbound_abort(struct wfi_handoffs *hs, struct outbound *b, int res)
{
	struct outbox m = { .type = WFI_MSG_ABORT };

	m.abort = (struct wfi_msg_layers){
		.type = WFI_MSG_ABORT,
		.nr = (uint32_t)-res,
		.handoff = b->handoff,
		.incarnation = b->incarnation,
		.secret = { b->secret[0], b->secret[1] },
	};
	wfi_handoffs_post(hs, b->peer, &m);
	b->busy = false;
}

/* tells the engine; its slots stay pinned while the receiver may lawfully read them */
static void push_over(struct wfi_handoffs *hs, struct push *p, int res, bool fenced)
{
	struct wfi_push_opts opts = p->opts;

	outbound_count(hs, &opts, res);
	opts.done(opts.ctx, handoff_end_res(res));
	if (p->opts.peer)
		p->opts.peer->open_msgs -= p->open_msgs;
	if (fenced || !p->open_msgs) {
		push_free(hs, p);
		return;
	}
	p->state = PUSH_FENCED;
	p->fence_ns = opts.deadline_ns + FENCE_GRACE_NS;
	wfi_handoffs_note_event(hs, p->fence_ns);
}

static void push_end(struct wfi_handoffs *hs, struct push *p, int res, bool fenced)
{
	const bool copies = p->nr_copies;

	if (p->state == PUSH_SENDING)
		hs->nr_sending--;
	hs->nr_waiting -= p->waits;
	p->waits = false;
	if (copies) {
		p->state = PUSH_ENDING;
		p->res = res;
	}
	if (p->opts.places)
		wfi_stage_cancel(hs, p);
	if (!copies)
		push_over(hs, p, res, fenced);
}

/* it ends for reasons that its receiver does not know. Layers of what is copied are lost with it,
 * as inside a node */
static void push_fail(struct wfi_handoffs *hs, struct push *p, int res)
{
	struct outbound *b = p->opts.places ? outbound_find(hs, &p->opts) : NULL;

	if (b)
		outbound_abort(hs, b, res);
	push_end(hs, p, res, false);
}

void wfi_push_copied(struct wfi_handoffs *hs, struct push *p)
{
	push_over(hs, p, p->res, false);
}

void wfi_push_late(struct wfi_handoffs *hs, struct push *p, int res)
{
	if (p->state != PUSH_ENDING)
		push_fail(hs, p, res);
	if (p->late)
		return;
	p->late = true;
	if (p->opts.late)
		p->opts.late(p->opts.ctx, handoff_end_res(p->res));
}

/* ---- posting ---- */

/* where the bytes are. Return: 0, -EINVAL, -ESTALE */
static int sources_check(struct wfi_handoffs *hs, const struct wfi_push_opts *o,
			 const struct wfi_space_info *space)
{
	const uint64_t part = space->block_bytes / o->ticket->nr_layers * o->nr_layers;
	uint32_t i;
	int ret;

	for (i = 0; i < o->nr && o->places; i++)
		if (o->places->blocks[i].len != space->block_bytes &&
		    (o->layout || o->places->blocks[i].len != part))
			return -EINVAL;
	for (i = 0; i < o->nr && !o->places; i++) {
		ret = wfi_kv_slot_check(hs->opts.kv, o->owner, o->space, &o->slots[i]);
		if (ret)
			return ret;
	}
	return 0;
}

static int push_check(struct wfi_handoffs *hs, const struct wfi_push_opts *o,
		      struct wfi_space_info *space)
{
	const struct weft_ticket *t = o->ticket;
	int ret;

	ret = wfi_kv_space_get(hs->opts.kv, o->owner->tenant, o->space, space);
	if (ret)
		return ret;
	if (o->layout && (wfi_shape_check(o->layout, space->block_bytes) ||
			  o->layout->nr_layers != t->nr_layers || t->nr_tokens > INT32_MAX))
		return -EINVAL;
	if (!o->nr || !o->nr_layers || o->nr > WFI_HANDOFF_BLOCKS_MAX || !t->nr_layers ||
	    !wfi_range_ok(o->first_block, o->nr, blocks_of(o)) ||
	    !wfi_range_ok(o->layer, o->nr_layers, t->nr_layers) ||
	    (!o->layout && space->block_bytes % t->nr_layers))
		return -EINVAL;
	if (t->expires_ns <= hs->opts.env->clock->wall_ns(hs->opts.env))
		return -ESTALE;
	if (o->layout && !hs->runs)
		hs->runs = wfi_alloc(hs->opts.env, SHAPE_RUNS_MAX * sizeof(*hs->runs));
	if (o->layout && !hs->runs)
		return -ENOMEM;
	return sources_check(hs, o, space);
}

static int push_slots(struct wfi_handoffs *hs, struct push *p, const struct wfi_push_opts *o)
{
	uint32_t i;

	p->mem_len = o->nr * (sizeof(*p->slots) + sizeof(*p->idx));
	p->mem = wfi_alloc(hs->opts.env, p->mem_len);
	if (!p->mem)
		return -ENOMEM;
	p->slots = p->mem;
	p->idx = (uint32_t *)(p->slots + o->nr);
	for (i = 0; i < o->nr; i++) {
		p->idx[i] = o->slots[i].idx;
		wfi_kv_slot_ref(hs->opts.kv, p->idx[i], &p->slots[i]);
	}
	wfi_kv_pin(hs->opts.kv, p->idx, o->nr);
	return 0;
}

static int push_places(struct wfi_handoffs *hs, struct push *p, const struct wfi_push_opts *o)
{
	const int ret = wfi_owner_init(hs->opts.kv, &p->stage, o->owner->tenant);

	if (ret)
		return ret;
	p->from = *o->places;
	p->opts.places = &p->from;
	p->waits = o->ready;
	if (p->waits) {
		hs->nr_waiting++;
		hs->look_ns = wfi_min(hs->look_ns, o->now_ns);
	}
	return 0;
}

/* in no state yet. Return: 0, -errno */
static int push_claim(struct wfi_handoffs *hs, const struct wfi_push_opts *o, struct push **out)
{
	struct push *p = NULL;
	uint32_t i;
	int ret;

	for (i = 0; i < NR_PUSHES && !p; i++)
		if (hs->pushes[i].state == PUSH_FREE)
			p = &hs->pushes[i];
	if (!p)
		return -EAGAIN;
	*p = (struct push){ .gen = p->gen + 1, .opts = *o };
	p->opts.slots = NULL;
	ret = o->places ? push_places(hs, p, o) : push_slots(hs, p, o);
	if (ret)
		return ret;
	hs->hi_pushes = (uint32_t)wfi_max(hs->hi_pushes, i);
	*out = p;
	return 0;
}

/* layers go in the order in which they were pushed, whatever places the table has free */
static void push_line_up(struct wfi_handoffs *hs, struct push *p)
{
	uint32_t i;

	p->before_serial = 0;
	for (i = 0; i < hs->hi_pushes && hs->nr_sending; i++) {
		const struct push *q = &hs->pushes[i];

		if (q->state != PUSH_SENDING || q->opts.peer != p->opts.peer ||
		    q->ticket.handoff != p->ticket.handoff || q->serial < p->before_serial)
			continue;
		p->before = i;
		p->before_serial = q->serial;
	}
	p->serial = ++hs->push_serial;
}

static bool push_waits_in_line(const struct wfi_handoffs *hs, const struct push *p)
{
	const struct push *q = &hs->pushes[p->before];

	return p->before_serial && q->serial == p->before_serial && q->state == PUSH_SENDING;
}

static int push_remote(struct wfi_handoffs *hs, const struct wfi_push_opts *o)
{
	struct wfi_space_info space;
	struct outbound *b;
	struct push *p;
	int ret;

	if (!o->peer)
		return -EHOSTUNREACH;
	ret = push_check(hs, o, &space);
	if (ret)
		return ret;
	b = outbound_get(hs, o);
	if (!b)
		return -EAGAIN;
	ret = push_claim(hs, o, &p);
	if (ret)
		return ret;
	if (o->layout) {
		p->layout = *o->layout;
		p->opts.layout = &p->layout;
		p->told = o->places ? wfi_shape_packed(o->layout) : *o->layout;
	}
	p->ticket = *o->ticket;
	p->opts.ticket = &p->ticket;
	p->space = space;
	push_line_up(hs, p);
	wfi_handoff_pace(hs, &b->pace, o->layer, o->now_ns);
	p->state = PUSH_SENDING;
	hs->nr_sending++;
	wfi_handoffs_note_event(hs, o->deadline_ns);
	return 0;
}

int wfi_handoff_push(struct wfi_handoffs *hs, const struct wfi_push_opts *opts)
{
	/* of another layout, bytes have to move: by messages, where no device reaches both sides */
	if (opts->ticket->node == hs->opts.node &&
	    (!opts->layout || wfi_handoff_shapes_straight(hs, opts)))
		return wfi_handoff_push_local(hs, opts);
	return push_remote(hs, opts);
}

/* ---- sending ---- */

/* goes on with the sum of the @i-th block's part of a push, by up to *@budget bytes. Return:
 * whether it is whole */
static bool piece_sum(struct wfi_handoffs *hs, const struct push *p, uint32_t i,
		      struct part_sum *sum, uint64_t *budget)
{
	const struct wfi_push_opts *o = &p->opts;
	const uint64_t layer_bytes = p->space.block_bytes / p->ticket.nr_layers;
	const char *base = wfi_kv_slot_addr(hs->opts.kv, p->slots[i].idx);

	if (o->layout)
		return wfi_shape_sum(&(struct shape_part){ .layout = o->layout,
							   .base = base,
							   .token = (uint64_t)(o->first_block + i) *
								    o->layout->nr_tokens,
							   .end = p->ticket.nr_tokens,
							   .layer = o->layer,
							   .nr_layers = o->nr_layers },
				     hs->runs, sum, budget);
	return wfi_shape_run_sum(base + o->layer * layer_bytes, layer_bytes * o->nr_layers, sum,
				 budget);
}

int wfi_push_send(struct wfi_handoffs *hs, struct push *p, uint32_t part, uint32_t first,
		  uint32_t nr, const struct wfi_msg_piece *pieces)
{
	struct {
		struct wfi_msg_shaped m;
		struct wfi_msg_piece pieces[MSG_PIECES_MAX];
	} msg;
	const bool shaped = p->opts.layout != NULL;
	const uint64_t now_ns = wfi_now(hs->opts.env);
	struct wfi_peer *peer = p->opts.peer;
	/* a message without a layout begins at its second half */
	char *const start = (char *)&msg + (shaped ? 0 : sizeof(msg.m.layout));
	struct wfi_msg_layers m;
	int ret;

	if (now_ns >= p->opts.deadline_ns)
		return -ETIMEDOUT;
	m = (struct wfi_msg_layers){
		.type = shaped ? WFI_MSG_SHAPED : WFI_MSG_LAYERS,
		.nr = nr,
		.push = push_name(hs, p, part),
		.handoff = p->ticket.handoff,
		.incarnation = p->ticket.incarnation,
		.secret = { p->ticket.secret[0], p->ticket.secret[1] },
		.space_tag = p->space.tag,
		.layer = p->opts.layer,
		.nr_layers = p->opts.nr_layers,
		.first_block = p->opts.first_block + first,
		.timeout_us = (uint32_t)wfi_min((p->opts.deadline_ns - now_ns) / 1000, UINT32_MAX),
	};
	memcpy(start, &m, sizeof(m));
	if (shaped)
		msg.m.layout = p->told;
	memcpy(msg.pieces, pieces, nr * sizeof(*pieces));
	ret = peer->send(peer, start, (size_t)((char *)&msg.pieces[nr] - start));
	if (ret)
		return ret;
	p->sent += nr;
	p->open_msgs++;
	peer->open_msgs++;
	return 0;
}

/* one message: as many blocks as fit, checksums made here; of one that is larger than others are to
 * wait for, some of its sum. Return: bytes summed, or -errno */
static int64_t push_send_some(struct wfi_handoffs *hs, struct push *p)
{
	struct wfi_msg_piece pieces[MSG_PIECES_MAX];
	const uint64_t layer_bytes = p->space.block_bytes / p->ticket.nr_layers;
	const uint64_t piece_bytes = layer_bytes * p->opts.nr_layers;
	uint64_t budget = MSG_BYTES_MAX;
	uint32_t nr, i;
	int ret;

	nr = (uint32_t)wfi_min(MSG_PIECES_MAX, wfi_max(1, MSG_BYTES_MAX / piece_bytes));
	nr = wfi_min(nr, p->opts.nr - p->sent);
	for (i = 0; i < nr; i++) {
		struct part_sum one = { .crc = 0 }, *sum = nr > 1 ? &one : &p->sum;

		if (!piece_sum(hs, p, p->sent + i, sum, &budget))
			return MSG_BYTES_MAX;
		pieces[i] = (struct wfi_msg_piece){
			.off = p->slots[p->sent + i].off +
			       (p->opts.layout ? 0 : p->opts.layer * layer_bytes),
			.crc = sum->crc,
		};
	}
	ret = wfi_push_send(hs, p, 0, p->sent, nr, pieces);
	if (ret)
		return ret;
	p->sum = (struct part_sum){ .crc = 0 };
	return (int64_t)(MSG_BYTES_MAX - budget);
}

/* Return: bytes, -EAGAIN nothing goes now, or why it ends */
static int64_t push_go(struct wfi_handoffs *hs, struct push *p)
{
	if (p->waits || push_waits_in_line(hs, p))
		return -EAGAIN;
	if (p->opts.places)
		return wfi_stage_go(hs, p);
	if (p->opts.peer->open_msgs >= WFI_PEER_CREDITS)
		return -EAGAIN;
	return push_send_some(hs, p);
}

int wfi_pushes_poll(struct wfi_handoffs *hs)
{
	uint64_t budget = hs->opts.slice_bytes;
	int work = 0;
	uint32_t i;

	for (i = 0; i < hs->hi_pushes && hs->nr_sending && budget; i++) {
		struct push *p = &hs->pushes[i];
		int64_t ret;

		if (p->state != PUSH_SENDING)
			continue;
		ret = push_go(hs, p);
		if (ret == -EAGAIN)
			continue;
		work++;
		if (ret < 0) {
			push_fail(hs, p, (int)ret);
			continue;
		}
		budget -= wfi_min(budget, (uint64_t)ret);
		if (p->sent == p->opts.nr) {
			p->state = PUSH_WAITING;
			hs->nr_sending--;
		}
	}
	return work;
}

int wfi_pushes_look(struct wfi_handoffs *hs)
{
	int work = 0, ret;
	uint32_t i;

	for (i = 0; i < hs->hi_pushes && hs->nr_waiting; i++) {
		struct push *p = &hs->pushes[i];

		if (p->state != PUSH_SENDING || !p->waits)
			continue;
		ret = p->opts.ready(p->opts.ctx);
		if (ret == -EAGAIN)
			continue;
		work++;
		if (ret) {
			push_fail(hs, p, ret);
			continue;
		}
		p->waits = false;
		hs->nr_waiting--;
	}
	return work;
}

void wfi_pushes_answer(struct wfi_handoffs *hs, struct wfi_peer *peer,
		       const struct wfi_msg_done *msg)
{
	uint32_t part = 0;
	struct push *p = push_find(hs, msg->push, &part);

	/* an answer may come after the deadline has ended the push, or from a peer that invents
	 * one */
	if (!p || !p->open_msgs || p->opts.peer != peer)
		return;
	if (p->opts.places ? !wfi_stage_answered(p, part) : part)
		return;
	p->open_msgs--;
	if (p->state == PUSH_FENCED) {
		if (!p->open_msgs)
			push_free(hs, p);
		return;
	}
	peer->open_msgs--;
	if (p->state == PUSH_ENDING)
		return;
	if (msg->res < 0 && !p->res)
		p->res = msg->res;
	if (p->res < 0)
		push_end(hs, p, p->res, false);
	else if (p->state == PUSH_WAITING && !p->open_msgs)
		push_end(hs, p, (int)p->opts.nr, true);
}

/* ---- ends ---- */

void wfi_pushes_expire(struct wfi_handoffs *hs, uint64_t now_ns)
{
	uint64_t wall_ns = hs->opts.env->clock->wall_ns(hs->opts.env);
	uint32_t i;

	for (i = 0; i < hs->hi_pushes; i++) {
		struct push *p = &hs->pushes[i];

		if (p->state == PUSH_FENCED && p->fence_ns <= now_ns)
			push_free(hs, p);
		else if ((p->state == PUSH_SENDING || p->state == PUSH_WAITING) &&
			 p->opts.deadline_ns <= now_ns)
			push_fail(hs, p, -ETIMEDOUT);
		if (p->state == PUSH_FENCED)
			wfi_handoffs_note_event(hs, p->fence_ns);
		else if (p->state == PUSH_SENDING || p->state == PUSH_WAITING)
			wfi_handoffs_note_event(hs, p->opts.deadline_ns);
	}
	for (i = 0; i < hs->hi_outbound; i++) {
		struct outbound *b = &hs->outbound[i];

		if (b->busy && b->expires_ns <= wall_ns)
			b->busy = false;
		if (b->busy)
			wfi_handoff_await(hs, &b->pace.pace, now_ns);
	}
}

void wfi_pushes_owner_gone(struct wfi_handoffs *hs, uint32_t owner)
{
	uint32_t i;

	for (i = 0; i < hs->hi_pushes; i++) {
		struct push *p = &hs->pushes[i];

		if ((p->state == PUSH_SENDING || p->state == PUSH_WAITING) &&
		    p->opts.owner->id == owner)
			push_end(hs, p, -ECONNRESET, false);
	}
	for (i = 0; i < hs->hi_outbound; i++) {
		struct outbound *b = &hs->outbound[i];

		if (b->busy && b->owner == owner)
			outbound_abort(hs, b, 0);
	}
}

void wfi_pushes_peer_lost(struct wfi_handoffs *hs, struct wfi_peer *peer)
{
	uint32_t i;

	for (i = 0; i < hs->hi_pushes; i++) {
		struct push *p = &hs->pushes[i];

		if (p->state == PUSH_FREE || p->opts.peer != peer)
			continue;
		if (p->state == PUSH_SENDING || p->state == PUSH_WAITING)
			push_end(hs, p, -ECONNRESET, false);
		/* no answer comes for it; another peer may get this one's memory */
		p->opts.peer = NULL;
	}
	for (i = 0; i < hs->hi_outbound; i++)
		if (hs->outbound[i].peer == peer)
			hs->outbound[i].busy = false;
}

/* those whose receiver has not said that it reads no more: nobody can read from here on */
void wfi_pushes_fini(struct wfi_handoffs *hs)
{
	uint32_t i;

	for (i = 0; i < hs->hi_pushes; i++)
		if (hs->pushes[i].state == PUSH_FENCED)
			push_free(hs, &hs->pushes[i]);
	wfi_stages_fini(hs);
}
