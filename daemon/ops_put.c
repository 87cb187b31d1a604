/* SPDX-License-Identifier: Apache-2.0 */
/* ops_put.c - blocks published: in place, or copied from a region of the engine */
#include <errno.h>

#include "ops.h"

static int put_in_place(struct op_ctx *c, const struct wfi_space_info *space)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off;
	struct weft_key parent;
	struct wfi_ring *ring = c->r->ring;
	int n;

	(void)space;
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

/* slots of blocks that did not arrive, or that nothing may name: the engine never knew of them */
static void put_refused(const struct node_op *op, const struct op_buf *b)
{
	struct session *s = op->session;
	uint32_t i;

	for (i = 0; i < op->nr; i++)
		if (b->results[i] && b->results[i] != -EEXIST)
			wfi_kv_unclaim(s->node->kv, &s->owner, &b->slots[i], 1);
}

static void put_copy_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = op_buf_of(op);
	uint32_t nr = op->nr, i, end;
	int held = 0, n;

	(void)res;
	op_regions_hold(s, b.pieces, nr, -1);
	wfi_kv_unpin(node->kv, b.idx, nr);
	for (i = 0; i < nr; i = end) {
		for (end = i; end < nr && !b.results[end]; end++)
			;
		if (end > i) {
			n = wfi_kv_put(node->kv, &s->owner, op->sqe.space, &b.keys[i],
				       &b.keys[i + 1], &b.slots[i], end - i, NULL, &b.results[i],
				       wfi_now(node->env));
			held += n > 0 ? n : 0;
			continue;
		}
		end = i + 1;
	}
	put_refused(op, &b);
	wfi_count(node->bytes_in, (uint64_t)held * b.pieces[0].len);
	if (op->ring)
		wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + 16 + nr * 32ull, b.results,
				    nr * sizeof(int32_t));
	op_complete(op, held, 0);
}

static int put_copied(struct op_ctx *c, const struct wfi_space_info *space)
{
	uint32_t nr = c->sqe->nr, i;
	uint64_t off = c->sqe->arg_off;
	struct node_op *op;
	struct op_buf b;
	int ret;

	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	b = op_buf_of(op);
	ret = -EFAULT;
	if (wfi_ring_args_read(c->r->ring, off, b.keys, (nr + 1ull) * sizeof(struct weft_key)) ||
	    wfi_ring_args_read(c->r->ring, off + 16 + nr * 16ull, c->node->places,
			       nr * sizeof(struct weft_place)))
		goto err_close;
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
	/* an engine may guess its slots and release them: not while bytes land there */
	wfi_kv_pin(c->node->kv, b.idx, nr);
	ret = op_transfer(op, WFI_XFER_READ, put_copy_done, nr);
	if (ret == OP_OPEN)
		return ret;
	wfi_kv_unpin(c->node->kv, b.idx, nr);
	wfi_kv_unclaim(c->node->kv, &c->s->owner, b.slots, nr);
err_close:
	op_close(op);
	return ret;
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
	return put_in_place(c, &space);
}
