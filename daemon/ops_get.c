/* SPDX-License-Identifier: Apache-2.0 */
/* ops_get.c - blocks copied to places of the engine */
#include <errno.h>

#include "ops.h"

/* results of blocks that have no piece: the transfer knows nothing of them, and calls them good */
static void get_misses(const struct node_op *op, const struct op_buf *b)
{
	uint32_t i, n = 0;

	for (i = 0; i < op->nr; i++) {
		if (n < op->nr_pieces && b->pieces[n].block == i)
			n++;
		else
			b->results[i] = -ENOENT;
	}
}

static void get_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = op_buf_of(op);
	uint32_t i, arrived = op->nr_pieces;

	if (op->nr_pieces < op->nr)
		get_misses(op, &b);
	if (res < 0)
		for (i = 0, arrived = 0; i < op->nr; i++)
			arrived += b.results[i] == 0;
	op_regions_hold(s, b.pieces, op->nr_pieces, -1);
	wfi_kv_unpin(node->kv, b.idx, op->nr_pieces);
	if (arrived)
		wfi_count(node->bytes_out, (uint64_t)arrived * b.pieces[0].len);
	if (op->ring)
		wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + op->nr * 32ull, b.results,
				    op->nr * sizeof(int32_t));
	op_complete(op, (int)arrived, 0);
}

/* pieces of the blocks that are here, and their slots without gaps; the others are misses.
 * Return: 0 or -EINVAL */
static int get_plan(struct op_ctx *c, struct node_op *op, const struct op_buf *b,
		    const struct wfi_space_info *space)
{
	bool verify = op_wants_verify(c);
	uint32_t i, slot, n = 0;
	int ret;

	for (i = 0; i < op->nr; i++) {
		struct wfi_piece *p = &b->pieces[n];

		ret = op_place_check(c->s, &c->node->places[i], space->block_bytes, p);
		if (ret)
			return ret;
		slot = b->idx[i];
		if (slot == WFI_SLOT_NONE || (verify && wfi_kv_verify(c->node->kv, slot)))
			continue;
		p->local = wfi_kv_slot_addr(c->node->kv, slot);
		p->block = i;
		b->idx[n++] = slot;
	}
	op->nr_pieces = n;
	return 0;
}

int op_get(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	struct wfi_space_info space;
	struct node_op *op;
	struct op_buf b;
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	ret = op_take_keys(c, nr * (sizeof(struct weft_place) + sizeof(int32_t)));
	if (ret)
		return ret;
	ret = wfi_ring_args_read(c->r->ring, op_after_keys(c), c->node->places,
				 nr * sizeof(struct weft_place));
	if (ret)
		return ret;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	b = op_buf_of(op);
	wfi_kv_lookup(c->node->kv, c->sqe->space, c->node->keys, nr, b.idx, c->now_ns);
	ret = get_plan(c, op, &b, &space);
	if (ret)
		goto err_close;
	wfi_kv_pin(c->node->kv, b.idx, op->nr_pieces);
	if (!op->nr_pieces) {
		get_done(op, 0);
		return OP_OPEN;
	}
	ret = op_transfer(op, WFI_XFER_WRITE, get_done, op->nr_pieces);
	if (ret == OP_OPEN)
		return ret;
	wfi_kv_unpin(c->node->kv, b.idx, op->nr_pieces);
err_close:
	op_close(op);
	return ret;
}
