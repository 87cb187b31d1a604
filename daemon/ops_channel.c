/* SPDX-License-Identifier: Apache-2.0 */
/* ops_channel.c - both ends of channels */
#include <errno.h>

#include "ops.h"

int op_channel_open(struct op_ctx *c)
{
	struct weft_arg_channel arg;
	struct wfi_channel_opts o;
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, c->sqe->arg_off, &arg, sizeof(arg)))
		return -EFAULT;
	o = (struct wfi_channel_opts){
		.owner = &c->s->owner,
		.space = c->sqe->space,
		.nr_msgs = c->sqe->nr,
		.bytes = arg.bytes,
	};
	ret = wfi_channel_open(c->node->channels, &o, &arg.ticket, &c->value);
	if (!ret)
		wfi_ring_args_write(c->r->ring, c->sqe->arg_off, &arg, sizeof(arg));
	return ret;
}

static void join_done(void *ctx, int res, uint64_t handle, uint64_t next_seq)
{
	struct node_op *op = ctx;
	uint64_t off = op->sqe.arg_off + offsetof(struct weft_arg_channel, seq);

	if (!op->ring && !res)
		/* nobody knows of it */
		wfi_channel_close(op->session->node->channels, &op->session->owner, handle);
	else if (!res)
		wfi_ring_args_write(op->ring->ring, off, &next_seq, sizeof(next_seq));
	op_complete(op, res, handle);
}

int op_channel_join(struct op_ctx *c)
{
	struct wfi_channel_join_opts o;
	struct weft_arg_channel arg;
	struct node_op *op;
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, c->sqe->arg_off, &arg, sizeof(arg)))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_channel_join_opts){
		.owner = &c->s->owner,
		.space = c->sqe->space,
		.ticket = &arg.ticket,
		.peer = peer_find(c->node, arg.ticket.node),
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.done = join_done,
		.ctx = op,
	};
	ret = wfi_channel_join(c->node->channels, &o);
	if (!ret)
		return OP_OPEN;
	op_close(op);
	return ret;
}

static void send_done(void *ctx, int res)
{
	op_complete(ctx, res, 0);
}

int op_channel_send(struct op_ctx *c)
{
	uint64_t off = c->sqe->arg_off;
	struct wfi_channel_send_opts o;
	struct weft_arg_message arg;
	struct node_op *op;
	int ret;

	if (c->sqe->nr > WFI_MESSAGE_SLOTS)
		return -EINVAL;
	if (wfi_ring_args_read(c->r->ring, off, &arg, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg), c->node->slots, c->sqe->nr * 16ull))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_channel_send_opts){
		.owner = &c->s->owner,
		.handle = c->sqe->handle,
		.nr = c->sqe->nr,
		.slots = c->node->slots,
		.bytes = arg.bytes,
		.tag = arg.tag,
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.done = send_done,
		.ctx = op,
	};
	ret = wfi_channel_send(c->node->channels, &o);
	if (!ret)
		return OP_OPEN;
	op_close(op);
	return ret;
}

static void recv_done(void *ctx, int res, const struct wfi_message *msg)
{
	struct node_op *op = ctx;
	uint64_t off = op->sqe.arg_off;

	if (res > 0 && op->ring) {
		const struct weft_arg_message arg = { .seq = msg->seq,
						      .tag = msg->tag,
						      .bytes = msg->bytes };

		wfi_ring_args_write(op->ring->ring, off, &arg, sizeof(arg));
		wfi_ring_args_write(op->ring->ring, off + sizeof(arg), msg->slots,
				    msg->nr * sizeof(*msg->slots));
	}
	op_complete(op, res, res > 0 ? msg->handle : 0);
}

int op_channel_recv(struct op_ctx *c)
{
	struct wfi_channel_recv_opts o;
	struct node_op *op;
	int ret;

	if (c->sqe->nr > WFI_MESSAGE_SLOTS)
		return -EINVAL;
	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off,
			      sizeof(struct weft_arg_message) + c->sqe->nr * 16ull))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_channel_recv_opts){
		.owner = &c->s->owner,
		.handle = c->sqe->handle,
		.max = c->sqe->nr,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.done = recv_done,
		.ctx = op,
	};
	ret = wfi_channel_recv(c->node->channels, &o);
	if (!ret)
		return OP_OPEN;
	op_close(op);
	return ret;
}

int op_channel_release(struct op_ctx *c)
{
	return wfi_channel_release(c->node->channels, &c->s->owner, c->sqe->handle);
}

int op_channel_close(struct op_ctx *c)
{
	return wfi_channel_close(c->node->channels, &c->s->owner, c->sqe->handle);
}
