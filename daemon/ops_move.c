/* SPDX-License-Identifier: Apache-2.0 */
/* ops_move.c - places of engines, and the transfers to and from them */
#include <errno.h>

#include "ops.h"

/* once for each run of pieces in one region */
void op_regions_hold(struct session *s, const struct wfi_piece *pieces, uint32_t nr, int by)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (!i || pieces[i].rkey != pieces[i - 1].rkey)
			s->regions[pieces[i].rkey].nr_ops += (uint32_t)by;
}

/* a block's piece in the engine's memory; Return: 0, -EINVAL with nothing written */
int op_place_check(const struct session *s, const struct weft_place *p, uint64_t block_bytes,
		   struct wfi_piece *piece)
{
	const struct region *g;
	uint64_t len = p->len ? p->len : block_bytes;

	if (p->region >= SESSION_REGIONS_MAX || len != block_bytes)
		return -EINVAL;
	g = &s->regions[p->region];
	if (!g->rkey || g->closing || !wfi_range_ok(p->off, len, g->len))
		return -EINVAL;
	piece->remote = p->off;
	piece->rkey = p->region;
	piece->len = len;
	return 0;
}

/* starts the bytes of an operation. Return: OP_OPEN, or the error that ends it at once */
int op_transfer(struct node_op *op, enum wfi_xfer_dir dir, void (*done)(void *ctx, int res),
		uint32_t nr_pieces)
{
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = op_buf_of(op);
	struct wfi_xfer_opts x = {
		.ep = s->ep,
		.dir = dir,
		.rkeys = s->rkeys,
		.nr_rkeys = SESSION_REGIONS_MAX,
		.pieces = b.pieces,
		.nr_pieces = nr_pieces,
		.nr_blocks = op->nr,
		.results = b.results,
		.deadline_ns = op_deadline(node, &op->sqe, op->start_ns),
		.done = done,
		.ctx = op,
	};
	int ret;

	op_regions_hold(s, b.pieces, nr_pieces, 1);
	ret = wfi_xfer_submit(node->xfer, &x, &op->xfer);
	if (!ret)
		return OP_OPEN;
	op_regions_hold(s, b.pieces, nr_pieces, -1);
	return ret;
}
