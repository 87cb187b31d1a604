/* SPDX-License-Identifier: Apache-2.0 */
/* ops_put.c - blocks published: in place, or copied from a region of the engine */
#include <errno.h>

#include "ops.h"

#define SUM_AT_ONCE (64u << 10) /* bytes of a put in place that are summed up within it */

/* slots of blocks that did not arrive, or that nothing may name: the engine never knew of them */
static void put_refused(const struct node_op *op, const struct op_buf *b)
{
	struct session *s = op->session;
	uint32_t i;

	for (i = 0; i < op->nr; i++)
		if (b->results[i] && b->results[i] != -EEXIST)
			wfi_kv_unclaim(s->node->kv, &s->owner, &b->slots[i], 1);
}

/* publishes what is whole, run by run. Return: blocks held under their keys */
static int put_publish(const struct node_op *op, const struct op_buf *b)
{
	struct session *s = op->session;
	struct node *node = s->node;
	uint64_t now_ns = wfi_now(node->env);
	uint32_t nr = op->nr, i, end;
	int held = 0, n;

	for (i = 0; i < nr; i = wfi_max(end, i + 1)) {
		for (end = i; end < nr && !b->results[end]; end++)
			;
		if (end == i)
			continue;
		n = wfi_kv_put(node->kv, &s->owner, op->sqe.space, &b->keys[i], &b->keys[i + 1],
			       &b->slots[i], end - i, &b->sums[i], &b->results[i], now_ns);
		held += n > 0 ? n : 0;
	}
	return held;
}

static void put_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct node *node = op->session->node;
	struct op_buf b = op_buf_of(op);
	uint32_t i;
	int held;

	(void)res;
	op_let_go(op, &b);
	for (i = 0; op->late && i < op->nr; i++)
		b.results[i] = -ETIMEDOUT;
	held = put_publish(op, &b);
	if (op->sqe.flags & WEFT_F_COPY) {
		put_refused(op, &b);
		wfi_count(node->bytes_in, (uint64_t)held * b.pieces[0].len);
	}
	if (op->ring)
		wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + 16 + op->nr * 32ull,
				    b.results, op->nr * sizeof(int32_t));
	op_complete(op, held, 0);
}

/* the second array of the arguments, behind parent and keys, is the caller's */
static struct node_op *put_open(struct op_ctx *c, struct op_buf *b, void *second, int *ret)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off;
	struct node_op *op = op_open(c->node, c->r, c->sqe, c->now_ns);

	*ret = -ENOMEM;
	if (!op)
		return NULL;
	*b = op_buf_of(op);
	op->summed = true;
	*ret = wfi_ring_args_read(c->r->ring, off, b->keys, (nr + 1ull) * sizeof(struct weft_key));
	if (!*ret)
		*ret = wfi_ring_args_read(c->r->ring, off + 16 + nr * 16ull,
					  second ? second : b->slots, nr * 16ull);
	if (!*ret)
		return op;
	op_close(op);
	return NULL;
}

static int put_copied(struct op_ctx *c, const struct wfi_space_info *space)
{
	uint32_t nr = c->sqe->nr, i;
	struct node_op *op;
	struct op_buf b;
	int ret;

	op = put_open(c, &b, c->node->places, &ret);
	if (!op)
		return ret;
	for (i = 0; i < nr; i++) {
		ret = op_place_check(c->s, &c->node->places[i], space->block_bytes, &b.pieces[i]);
		if (ret)
			goto err_close;
	}
	ret = wfi_kv_claim(c->node->kv, &c->s->owner, c->sqe->space, nr, b.slots, c->now_ns);
	if (ret < 0)
		goto err_close;
	for (i = 0; i < nr; i++) {
		b.pieces[i].local = wfi_kv_slot_addr(c->node->kv, b.slots[i].idx);
		b.pieces[i].block = i;
		b.idx[i] = b.slots[i].idx;
	}
	op->nr_pieces = nr;
	if (c->sqe->handle) {
		ret = gpu_wait(c->s, c->sqe->handle, c->s->rkeys[b.pieces[0].rkey]->ep);
		if (ret)
			goto err_unclaim;
		op->event = (uint32_t)c->sqe->handle;
	}
	/* an engine may guess its slots and release them: they are kept while bytes land there */
	ret = op_transfer(op, WFI_XFER_READ, put_done);
	if (ret == OP_OPEN)
		return ret;
err_unclaim:
	wfi_kv_unclaim(c->node->kv, &c->s->owner, b.slots, nr);
err_close:
	op_close(op);
	return ret;
}

/* summed up in slices, so that others have their turns, then published */
static int put_long(struct op_ctx *c, const struct wfi_space_info *space)
{
	uint32_t nr = c->sqe->nr, i, n = 0;
	struct node_op *op;
	struct op_buf b;
	int ret;

	op = put_open(c, &b, NULL, &ret);
	if (!op)
		return ret;
	for (i = 0; i < nr; i++) {
		/* others are refused when they are to be published */
		if (wfi_kv_slot_check(c->node->kv, &c->s->owner, c->sqe->space, &b.slots[i]))
			continue;
		op_piece_local(c->node, b.slots[i].idx, i, space->block_bytes, &b.pieces[n]);
		b.idx[n++] = b.slots[i].idx;
	}
	op->nr_pieces = n;
	ret = op_transfer(op, WFI_XFER_SUM, put_done);
	if (ret != OP_OPEN)
		op_close(op);
	return ret;
}

static int put_in_place(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off;
	struct weft_key parent;
	struct wfi_ring *ring = c->r->ring;
	int n;

	if (wfi_ring_args_read(ring, off, &parent, sizeof(parent)) ||
	    wfi_ring_args_read(ring, off + 16, c->node->keys, nr * sizeof(struct weft_key)) ||
	    wfi_ring_args_read(ring, off + 16 + nr * 16ull, c->node->slots,
			       nr * sizeof(struct weft_slot)))
		return -EFAULT;
	n = wfi_kv_put(c->node->kv, &c->s->owner, c->sqe->space, &parent, c->node->keys,
		       c->node->slots, nr, NULL, c->node->results, c->now_ns);
	if (n >= 0)
		wfi_ring_args_write(ring, off + 16 + nr * 32ull, c->node->results,
				    nr * sizeof(int32_t));
	return n;
}

int op_put(struct op_ctx *c)
{
	struct wfi_space_info space;
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, 16 + c->sqe->nr * 36ull))
		return -EFAULT;
	if (c->sqe->flags & WEFT_F_COPY)
		return put_copied(c, &space);
	return c->sqe->nr * space.block_bytes > SUM_AT_ONCE ? put_long(c, &space) : put_in_place(c);
}
