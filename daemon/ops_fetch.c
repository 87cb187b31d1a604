/* SPDX-License-Identifier: Apache-2.0 */
/* ops_fetch.c - the part of a get or a map that lies in a slower tier: it comes to memory first */
#include <errno.h>
#include <string.h>

#include "ops.h"

void op_unpin(struct node_op *op, uint32_t nr)
{
	struct op_buf b = op_buf_of(op);

	for (uint32_t i = 0; i < nr; i++)
		if (b.idx[i] != WFI_SLOT_NONE)
			wfi_kv_unpin(op->session->node->kv, &b.idx[i], 1);
}

/* pieces of the blocks that are here by now, and their slots, without gaps */
static void get_plan(struct node_op *op)
{
	struct op_buf b = op_buf_of(op);
	uint32_t i, n = 0;

	for (i = 0; i < op->nr; i++) {
		const uint32_t slot = b.idx[i];

		if (slot == WFI_SLOT_NONE)
			continue;
		b.pieces[n] = b.pieces[i];
		b.pieces[n].local = wfi_kv_slot_addr(op->session->node->kv, slot);
		b.idx[n++] = slot;
	}
	op->nr_pieces = n;
}

void op_get_fetched(struct node_op *op)
{
	struct op_buf b = op_buf_of(op);

	/* pins and regions pass to the transfer: what was dropped meanwhile has nothing else */
	op_regions_hold(op->session, b.pieces, op->nr, -1);
	get_plan(op);
	op_regions_hold(op->session, b.pieces, op->nr_pieces, 1);
	op->kept = true;
	op->summed = op->verify;
	if (op->ring && op->nr_pieces && op_get_transfer(op) == OP_OPEN)
		return;
	/* nobody is there any more, or nothing came, or nothing can be sent */
	op_let_go(op, &b);
	op->nr_pieces = 0;
	op->summed = false;
	op_get_done(op, 0);
}

/* what no tier here has, other nodes may have */
static void get_fetched(void *ctx, int res, uint32_t reached)
{
	struct node_op *op = ctx;
	struct op_buf b = op_buf_of(op);

	op->fetch = NULL;
	if (res == -ETIME)
		op->reached = reached;
	if (!res && op->ring && !wfi_cluster_alone(op->session->node->cluster)) {
		/* it pins and holds for itself */
		if (op_get_afar(op, wfi_now(op->session->node->env)) == OP_OPEN) {
			op_unpin(op, op->nr);
			op_regions_hold(op->session, b.pieces, op->nr, -1);
			return;
		}
	}
	op_get_fetched(op);
}

static int fetch_begin(struct op_ctx *c, struct node_op *op, uint32_t nr,
		       void (*done)(void *ctx, int res, uint32_t reached))
{
	struct op_buf b = op_buf_of(op);
	const struct wfi_fetch_opts o = {
		.space = c->sqe->space,
		.nr = nr,
		.keys = b.keys,
		.slots = b.idx,
		.budget_ns = wfi_min(c->sqe->handle, UINT32_MAX) * WFI_NSEC_PER_USEC,
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.done = done,
		.ctx = op,
	};

	return wfi_kv_fetch(c->node->kv, &o, &op->fetch);
}

int op_get_places(struct op_ctx *c, struct node_op *op, const struct wfi_space_info *space)
{
	struct op_buf b = op_buf_of(op);
	uint32_t i;
	int ret;

	ret = wfi_ring_args_read(c->r->ring, op_after_keys(c), c->node->places,
				 op->nr * sizeof(struct weft_place));
	if (ret)
		return ret;
	for (i = 0; i < op->nr; i++) {
		ret = op_place_check(c->s, &c->node->places[i], space->block_bytes, &b.pieces[i]);
		if (ret)
			return ret;
		b.pieces[i].block = i;
		/* no transfer moves bytes to several endpoints */
		if (wfi_unlikely(c->s->rkeys[b.pieces[i].rkey]->ep !=
				 c->s->rkeys[b.pieces[0].rkey]->ep))
			return -EINVAL;
	}
	op->verify = space->verify || c->sqe->flags & WEFT_F_VERIFY;
	memcpy(b.keys, c->node->keys, op->nr * sizeof(*b.keys));
	return 0;
}

int op_get_fetch(struct op_ctx *c, struct node_op *op, const struct wfi_space_info *space)
{
	struct op_buf b = op_buf_of(op);
	int ret;

	ret = op_get_places(c, op, space);
	if (ret)
		return ret;
	op_regions_hold(c->s, b.pieces, op->nr, 1);
	ret = fetch_begin(c, op, op->nr, get_fetched);
	if (!ret)
		return OP_OPEN;
	op_regions_hold(c->s, b.pieces, op->nr, -1);
	return ret;
}

/* ---- map ---- */

static void map_fetched(void *ctx, int res, uint32_t reached)
{
	struct node_op *op = ctx;
	uint32_t n;

	(void)res;
	(void)reached;
	op->fetch = NULL;
	n = op_map_unpin(op, op->nr_pieces);
	if (!op->ring || op_map_afar(op, n) != OP_OPEN)
		op_map_fetched(op, n);
}

int op_map_fetch(struct op_ctx *c, const struct wfi_space_info *space, uint32_t n)
{
	uint32_t nr = n;
	struct node_op *op;
	struct op_buf b;
	int ret;

	if (n < c->sqe->nr)
		nr = (uint32_t)wfi_kv_match_tiers(c->node->kv, c->sqe->space, c->node->keys,
						  c->sqe->nr, n, NULL, NULL);
	if (nr == n)
		return 0;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	b = op_buf_of(op);
	memcpy(b.idx, c->node->idx, n * sizeof(*b.idx));
	memset(b.idx + n, 0xff, (nr - n) * sizeof(*b.idx));
	op->nr_pieces = nr;
	op->verify = space->verify || c->sqe->flags & WEFT_F_VERIFY;
	memcpy(b.keys, c->node->keys, op->nr * sizeof(*b.keys));
	ret = fetch_begin(c, op, nr, map_fetched);
	if (!ret)
		return OP_OPEN;
	op_close(op);
	return ret;
}
