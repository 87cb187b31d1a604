/* SPDX-License-Identifier: Apache-2.0 */
/* ops_move.c - places of engines, and the transfers to and from them */
#include <errno.h>

#include "ops.h"

#define MOVE_TRIES 4u /* the word is the engine's, which may write to it all the time */

void op_signal_move(const struct op_signal *signal)
{
	uint32_t now = __atomic_load_n(signal->word, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < MOVE_TRIES && (int32_t)(signal->value - now) > 0; i++)
		if (__atomic_compare_exchange_n(signal->word, &now, signal->value, false,
						__ATOMIC_RELEASE, __ATOMIC_RELAXED))
			return;
}

int op_signal_take(struct op_ctx *c, uint64_t args)
{
	const struct region *g;
	struct weft_arg_signal arg;
	char *mem;
	int ret;

	ret = wfi_ring_args_read(c->r->ring, c->sqe->arg_off + wfi_align_up(args, 8), &arg,
				 sizeof(arg));
	if (ret)
		return ret;
	if (arg.region == WEFT_REGION_ARENA || arg.region >= SESSION_REGIONS_MAX || arg.off % 4)
		return -EINVAL;
	g = &c->s->regions[arg.region];
	if (!g->rkey || g->closing || !wfi_range_ok(arg.off, sizeof(uint32_t), g->len))
		return -EINVAL;
	mem = g->rkey->ep->dev->transport->rkey_ptr(g->rkey);
	if (!mem)
		return -EINVAL;
	c->signal = (struct op_signal){ (uint32_t *)(mem + arg.off), arg.value, arg.region };
	return 0;
}

/* once for each run of pieces in one region */
void op_regions_hold(struct session *s, const struct wfi_piece *pieces, uint32_t nr, int by)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (!i || pieces[i].rkey != pieces[i - 1].rkey)
			s->regions[pieces[i].rkey].nr_ops += (uint32_t)by;
}

/* what goes on beyond this turn: neither slots nor regions may go meanwhile */
static void keep(struct node_op *op, const struct op_buf *b)
{
	op->kept = true;
	op_regions_hold(op->session, b->pieces, op->nr_pieces, 1);
	op->session->regions[op->event].nr_ops++;
	wfi_kv_pin(op->session->node->kv, b->idx, op->nr_pieces);
}

void op_let_go(struct node_op *op, const struct op_buf *b)
{
	if (!op->kept)
		return;
	op->kept = false;
	op_regions_hold(op->session, b->pieces, op->nr_pieces, -1);
	op->session->regions[op->event].nr_ops--;
	wfi_kv_unpin(op->session->node->kv, b->idx, op->nr_pieces);
}

void op_late(void *ctx, int res)
{
	struct node_op *op = ctx;
	const bool put = op->sqe.op == WEFT_OP_PUT;
	int32_t *results = op->session->node->results;
	uint32_t i, arrived = 0;

	for (i = 0; put && i < op->nr; i++)
		results[i] = res;
	if (!put)
		op_get_results(op, results, res);
	for (i = 0; i < op->nr; i++)
		arrived += !results[i];
	if (op->ring)
		wfi_ring_args_write(op->ring->ring,
				    op->sqe.arg_off + (put ? 16 : 0) + op->nr * 32ull, results,
				    op->nr * sizeof(int32_t));
	op_tell_late(op, (int)arrived);
}

int op_transfer(struct node_op *op, enum wfi_xfer_dir dir, void (*done)(void *ctx, int res))
{
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = op_buf_of(op);
	/* that of the first piece: a plan with pieces of another is refused */
	struct weft_ep *ep = op->nr_pieces ? s->rkeys[b.pieces[0].rkey]->ep : s->ep;
	struct wfi_xfer_opts x = {
		.ep = ep,
		.dir = dir,
		.local_mr = gpu_mr(s, ep),
		.rkeys = s->rkeys,
		.nr_rkeys = SESSION_REGIONS_MAX,
		.pieces = b.pieces,
		.nr_pieces = op->nr_pieces,
		.nr_blocks = op->nr,
		.results = b.results,
		.sum_ops = op->summed ? &wfi_crc32c_sums : NULL,
		.sums = op->summed ? b.sums : NULL,
		.deadline_ns = op_deadline(node, &op->sqe, op->start_ns),
		.done = done,
		.late = op_late,
		.ctx = op,
	};
	struct wfi_xfer *open;
	int ret;

	ret = wfi_xfer_submit(node->xfer, &x, &open);
	if (ret)
		return ret;
	/* when it is over already, so is the operation. Else nothing else ran since its slots were
	 * found, and nothing that could take them from it */
	if (open) {
		op->xfer = open;
		if (!op->kept)
			keep(op, &b);
	}
	return OP_OPEN;
}
