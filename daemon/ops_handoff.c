/* SPDX-License-Identifier: Apache-2.0 */
/* ops_handoff.c - expectations and pushes of a handoff */
#include <errno.h>

#include "ops.h"

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
	off = slots_off(op) + first * sizeof(*slots);
	wfi_ring_args_write(op->ring->ring, off, slots, nr * sizeof(*slots));
	op_post(op->ring, &cqe);
}

static void expect_done(void *ctx, int res, uint64_t lease, const struct weft_slot *slots)
{
	struct node_op *op = ctx;

	if (res > 0 && op->ring)
		wfi_ring_args_write(op->ring->ring, slots_off(op), slots, op->nr * sizeof(*slots));
	op_complete(op, res, lease);
}

int op_expect(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off, more = layout_bytes(c->sqe);
	struct weft_layout layout;
	struct weft_arg_expect arg;
	struct weft_cqe cqe = { .flags = WEFT_CQE_MORE | WEFT_CQE_TICKET };
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
		.ctx = op,
	};
	ret = wfi_handoff_expect(c->node->handoffs, &o, &arg.ticket, &op->handoff);
	if (ret) {
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

static void push_done(void *ctx, int res)
{
	op_complete(ctx, res, 0);
}

int op_push(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off, more = layout_bytes(c->sqe);
	struct weft_layout layout;
	struct weft_arg_push arg;
	struct wfi_push_opts o;
	struct node_op *op;
	int ret;

	if (wfi_ring_args_read(c->r->ring, off, &arg, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg), &layout, more) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg) + more, c->node->slots, nr * 16ull))
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
		.ctx = op,
	};
	ret = wfi_handoff_push(c->node->handoffs, &o);
	if (!ret)
		return OP_OPEN;
	op_close(op);
	return ret;
}

int op_cancel_handoff(struct op_ctx *c)
{
	return wfi_handoff_cancel(c->node->handoffs, &c->s->owner, c->sqe->handle);
}
