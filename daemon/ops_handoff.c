/* SPDX-License-Identifier: Apache-2.0 */
/* ops_handoff.c - expectations and pushes of a handoff */
#include <errno.h>

#include "ops.h"

/* ---- places, instead of slots ---- */

/* the other regions are the CPU's to reach, and need none */
static int region_mr(struct session *s, uint32_t id)
{
	const struct weft_rkey *rkey = s->rkeys[id];
	const struct weft_mr_opts opts = {
		.size = sizeof(opts),
		.kind = WEFT_MR_RKEY,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.rkey = rkey,
	};

	if (rkey->ep == s->ep || s->mrs[id])
		return 0;
	return rkey->ep->dev->transport->mr_reg(rkey->ep->dev, &opts, &s->mrs[id]);
}

/* nr places at @off of the arguments, to the op's pieces. @part: they may have as many bytes.
 * Return: 0, -EINVAL, -EFAULT */
static int places_read(struct op_ctx *c, struct node_op *op, uint64_t off, uint64_t block_bytes,
		       uint64_t part)
{
	const struct session *s = c->s;
	struct op_buf b = op_buf_of(op);
	uint32_t i;
	int ret;

	ret = wfi_ring_args_read(c->r->ring, off, c->node->places,
				 op->nr * sizeof(struct weft_place));
	for (i = 0; i < op->nr && !ret; i++) {
		const struct weft_place *p = &c->node->places[i];

		ret = p->len == part ? op_place_take(s, p, part, &b.pieces[i])
				     : op_place_check(s, p, block_bytes, &b.pieces[i]);
		/* no transfer moves bytes to several endpoints */
		if (!ret && s->rkeys[b.pieces[i].rkey]->ep != s->rkeys[b.pieces[0].rkey]->ep)
			ret = -EINVAL;
	}
	return ret;
}

/* from here on until places_let_go() the regions stay */
static void places_hold(struct node_op *op, struct wfi_handoff_places *out)
{
	struct session *s = op->session;
	struct op_buf b = op_buf_of(op);
	struct weft_ep *ep = s->rkeys[b.pieces[0].rkey]->ep;

	op->placed = true;
	op_regions_hold(s, b.pieces, op->nr, 1);
	s->regions[op->event].nr_ops++;
	*out = (struct wfi_handoff_places){
		.ep = ep,
		.rkeys = s->rkeys,
		.mrs = s->mrs,
		.nics = s->nics,
		.arena = gpu_mr(s, ep),
		.blocks = b.pieces,
		.nr_rkeys = SESSION_REGIONS_MAX,
		.gpu = s->regions[b.pieces[0].rkey].gpu,
	};
}

static void places_let_go(struct node_op *op)
{
	struct session *s = op->session;
	struct op_buf b = op_buf_of(op);

	if (!op->placed)
		return;
	op->placed = false;
	op_regions_hold(s, b.pieces, op->nr, -1);
	s->regions[op->event].nr_ops--;
}

static bool has_place_in(const struct node_op *op, uint32_t region)
{
	struct op_buf b = op_buf_of(op);
	uint32_t i = 0;

	if (op->sqe.op != WEFT_OP_HANDOFF_EXPECT || !op->placed)
		return false;
	while (i < op->nr && b.pieces[i].rkey != region)
		i++;
	return i < op->nr;
}

void ops_region_closing(struct session *s, uint32_t id)
{
	struct node_op *op = s->ops;

	/* one that is over in the call may take others along: so from the start each time. One that
	 * waits for its copies is there still, and is no handoff to be cancelled any more */
	while (op)
		op = has_place_in(op, id) &&
				     !wfi_handoff_cancel(s->node->handoffs, &s->owner, op->handoff)
			     ? s->ops
			     : op->next;
}

/* ---- expectations ---- */

static uint64_t layout_bytes(const struct weft_sqe *sqe)
{
	return sqe->flags & WEFT_F_LAYOUT ? sizeof(struct weft_layout) : 0;
}

/* where an expectation's slots stand */
static uint64_t slots_off(const struct node_op *op)
{
	return op->sqe.arg_off + sizeof(struct weft_arg_expect) + layout_bytes(&op->sqe) +
	       op->nr * sizeof(struct weft_key);
}

static void expect_landed(void *ctx, uint32_t layer, uint32_t nr_layers, uint32_t first,
			  uint32_t nr, const struct weft_slot *slots)
{
	struct node_op *op = ctx;
	uint64_t off;
	struct weft_cqe cqe = {
		.res = (int32_t)nr,
		.user_data = op->sqe.user_data,
		.op = op->sqe.op,
		.flags = WEFT_CQE_MORE,
		.layer = (uint16_t)layer,
		.nr_layers = (uint16_t)nr_layers,
		.value = first | (uint64_t)nr << 32,
	};

	if (!op->ring)
		return;
	if (op->placed) {
		op_post(op->ring, &cqe);
		return;
	}
	off = slots_off(op) + first * sizeof(*slots);
	wfi_ring_args_write(op->ring->ring, off, slots, nr * sizeof(*slots));
	op_post(op->ring, &cqe);
}

static void expect_done(void *ctx, int res, uint64_t lease, const struct weft_slot *slots)
{
	struct node_op *op = ctx;

	if (res > 0 && op->ring && !op->placed)
		wfi_ring_args_write(op->ring->ring, slots_off(op), slots, op->nr * sizeof(*slots));
	places_let_go(op);
	op_complete(op, res, lease);
}

static void handoff_late(void *ctx, int res)
{
	op_tell_late(ctx, res);
}

/* where the bytes are to land. Return: 0, -errno */
static int expect_places(struct op_ctx *c, struct node_op *op, struct wfi_handoff_places *out,
			 struct wfi_expect_opts *o)
{
	struct wfi_space_info space;
	struct op_buf b = op_buf_of(op);
	uint32_t i;
	int ret;

	if (!(c->sqe->flags & WEFT_F_COPY))
		return c->sqe->flags & WEFT_F_VERIFY ? -EINVAL : 0;
	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (!ret)
		ret = places_read(c, op, slots_off(op), space.block_bytes, space.block_bytes);
	for (i = 0; i < op->nr && !ret; i++)
		if (!i || b.pieces[i].rkey != b.pieces[i - 1].rkey)
			ret = region_mr(c->s, b.pieces[i].rkey);
	if (ret)
		return ret;
	places_hold(op, out);
	o->places = out;
	o->verify = space.verify || c->sqe->flags & WEFT_F_VERIFY;
	return 0;
}

static int expect_signal(struct op_ctx *c, struct node_op *op)
{
	const uint64_t args = slots_off(op) - c->sqe->arg_off + op->nr * sizeof(struct weft_slot);
	int ret;

	if (wfi_likely(!(c->sqe->flags & WEFT_F_SIGNAL)))
		return 0;
	ret = op_signal_take(c, args);
	if (ret)
		return ret;
	op->signal = c->signal;
	c->s->regions[op->signal.region].nr_ops++;
	return 0;
}

int op_expect(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off, more = layout_bytes(c->sqe);
	struct weft_layout layout;
	struct weft_arg_expect arg;
	struct weft_cqe cqe = { .flags = WEFT_CQE_MORE | WEFT_CQE_TICKET };
	struct wfi_handoff_places places;
	struct wfi_expect_opts o;
	struct node_op *op;
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, off, sizeof(arg) + more + nr * 32ull) ||
	    wfi_ring_args_read(c->r->ring, off, &arg, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg), &layout, more) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg) + more, c->node->keys, nr * 16ull))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_expect_opts){
		.owner = &c->s->owner,
		.space = c->sqe->space,
		.nr_blocks = nr,
		.nr_layers = arg.nr_layers,
		.keys = c->node->keys,
		.layout = more ? &layout : NULL,
		.parent = arg.parent,
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.landed = expect_landed,
		.done = expect_done,
		.late = handoff_late,
		.ctx = op,
	};
	ret = expect_signal(c, op);
	if (!ret)
		ret = expect_places(c, op, &places, &o);
	if (!ret)
		ret = wfi_handoff_expect(c->node->handoffs, &o, &arg.ticket, &op->handoff);
	if (ret) {
		places_let_go(op);
		op_close(op);
		return ret;
	}
	wfi_ring_args_write(c->r->ring, off, &arg.ticket, sizeof(arg.ticket));
	cqe.user_data = c->sqe->user_data;
	cqe.op = c->sqe->op;
	cqe.value = op->handoff;
	op_post(c->r, &cqe);
	return OP_OPEN;
}

/* ---- pushes ---- */

static void push_done(void *ctx, int res)
{
	places_let_go(ctx);
	op_complete(ctx, res, 0);
}

static int push_ready(void *ctx)
{
	struct node_op *op = ctx;
	struct op_buf b = op_buf_of(op);

	return gpu_come(op->session, op->event, op->session->rkeys[b.pieces[0].rkey]->ep);
}

/* where the bytes are. Return: 0, -errno */
static int push_places(struct op_ctx *c, struct node_op *op, uint64_t off,
		       struct wfi_handoff_places *out, struct wfi_push_opts *o)
{
	const struct weft_ticket *t = o->ticket;
	struct wfi_space_info space;
	struct op_buf b = op_buf_of(op);
	uint64_t part;
	int ret;

	if (!(c->sqe->flags & WEFT_F_COPY))
		return 0;
	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	if (!t->nr_layers || !o->nr_layers)
		return -EINVAL;
	part = o->layout ? space.block_bytes : space.block_bytes / t->nr_layers * o->nr_layers;
	ret = places_read(c, op, off, space.block_bytes, part);
	if (!ret && c->sqe->handle) {
		ret = gpu_come(c->s, c->sqe->handle, c->s->rkeys[b.pieces[0].rkey]->ep);
		o->ready = push_ready;
		op->event = (uint32_t)c->sqe->handle;
	}
	if (ret && ret != -EAGAIN)
		return ret;
	places_hold(op, out);
	o->places = out;
	return 0;
}

int op_push(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off, more = layout_bytes(c->sqe);
	const bool copy = c->sqe->flags & WEFT_F_COPY;
	struct wfi_handoff_places places;
	struct weft_layout layout;
	struct weft_arg_push arg;
	struct wfi_push_opts o;
	struct node_op *op;
	int ret;

	if (wfi_ring_args_read(c->r->ring, off, &arg, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg), &layout, more) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg) + more, c->node->slots,
			       copy ? 0 : nr * 16ull))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_push_opts){
		.owner = &c->s->owner,
		.space = c->sqe->space,
		.ticket = &arg.ticket,
		.layer = arg.layer,
		.nr_layers = arg.nr_layers,
		.first_block = arg.first_block,
		.nr = nr,
		.slots = c->node->slots,
		.layout = more ? &layout : NULL,
		.peer = arg.ticket.node == c->node->id ? self_peer(c->node)
						       : peer_find(c->node, arg.ticket.node),
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.done = push_done,
		.late = handoff_late,
		.ctx = op,
	};
	ret = push_places(c, op, off + sizeof(arg) + more, &places, &o);
	if (!ret)
		ret = wfi_handoff_push(c->node->handoffs, &o);
	if (!ret)
		return OP_OPEN;
	places_let_go(op);
	op_close(op);
	return ret;
}

int op_cancel_handoff(struct op_ctx *c)
{
	return wfi_handoff_cancel(c->node->handoffs, &c->s->owner, c->sqe->handle);
}
