/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops_hot.c - gets into places on a GPU whose tier has copies of some of the blocks
 *
 * Those come from there, the rest from memory, beside each other: two transfers, and one end. What
 * has come of a copy is held against the block's header by a sum of the GPU's, always: nothing else
 * proves it. What fails, or finds nobody to sum it up, is taken from memory after all.
 *
 * The blocks that come from copies have a buffer of their own, as the operation has one, and are
 * out of that one's pieces.
 */
#include <errno.h>

#include "ops.h"
#include "weft_internal/tier_gpu.h"

/* in the room of .slots: the copies, then the numbers of their blocks */
static uint32_t *hot_copies(const struct op_buf *h)
{
	return (uint32_t *)(void *)h->slots;
}

static uint32_t *hot_blocks(const struct op_buf *h, const struct node_op *op)
{
	return hot_copies(h) + op->nr;
}

static struct op_buf hot_buf_of(const struct node_op *op)
{
	return op_buf_at(op, op->hot.buf);
}

/* Return: the tier of the GPU that all places are on; NULL */
static struct wfi_tier_gpu *tier_of(const struct node_op *op, const struct op_buf *b)
{
	const struct session *s = op->session;
	const struct weft_ep *ep = op->nr_pieces ? s->rkeys[b->pieces[0].rkey]->ep : s->ep;
	struct wfi_tier_gpu *tier = gpu_tier_of(s, ep);
	uint32_t i;

	for (i = 1; tier && i < op->nr_pieces; i++)
		if (s->rkeys[b->pieces[i].rkey]->ep != ep)
			return NULL;
	return tier;
}

/* ---- what comes from copies ---- */

/* those with a copy, which is pinned from here on. Return: how many */
static uint32_t hot_find(struct node_op *op, const struct op_buf *b)
{
	struct wfi_tier_gpu *tier = op->hot.tier;
	struct op_buf h = { .pieces = NULL };
	uint32_t i, copy, n = 0;

	for (i = 0; i < op->nr_pieces; i++) {
		copy = wfi_tier_gpu_take(tier, b->idx[i]);
		if (copy == WFI_SLOT_NONE)
			continue;
		if (!op->hot.buf)
			op->hot.buf = op_buf_get(op);
		if (!op->hot.buf) {
			wfi_tier_gpu_put(tier, copy);
			return 0;
		}
		h = hot_buf_of(op);
		h.pieces[n] = b->pieces[i];
		h.pieces[n].local = wfi_tier_gpu_addr(tier, copy);
		h.idx[n] = b->idx[i];
		hot_copies(&h)[n] = copy;
		hot_blocks(&h, op)[n++] = b->pieces[i].block;
	}
	return n;
}

static void copies_put(const struct node_op *op, const struct op_buf *h)
{
	uint32_t i;

	for (i = 0; i < op->hot.nr; i++)
		wfi_tier_gpu_put(op->hot.tier, hot_copies(h)[i]);
}

/* out of the operation's pieces; the others move up */
static void hot_leave(struct node_op *op, const struct op_buf *b, const struct op_buf *h)
{
	uint32_t i, n = 0, k = 0;

	for (i = 0; i < op->nr_pieces; i++) {
		if (k < op->hot.nr && b->pieces[i].block == h->pieces[k].block) {
			k++;
			continue;
		}
		b->pieces[n] = b->pieces[i];
		b->idx[n++] = b->idx[i];
	}
	op->nr_pieces = n;
}

/* their slots and regions are held apart from those of the others, and piece by piece: their order
 * may change */
static void hot_keep(struct node_op *op, const struct op_buf *b, const struct op_buf *h)
{
	struct session *s = op->session;
	uint32_t i;

	for (i = 0; i < op->hot.nr; i++)
		op_regions_hold(s, &h->pieces[i], 1, 1);
	if (!op->kept)
		wfi_kv_pin(s->node->kv, h->idx, op->hot.nr);
	else
		op_regions_hold(s, b->pieces, op->nr_pieces, -1);
	hot_leave(op, b, h);
	if (op->kept)
		op_regions_hold(s, b->pieces, op->nr_pieces, 1);
}

void op_hot_end(struct node_op *op, const struct op_buf *b)
{
	const struct op_buf h = hot_buf_of(op);
	uint32_t i;

	for (i = 0; i < op->hot.nr; i++) {
		const uint32_t block = hot_blocks(&h, op)[i];

		b->results[block] = h.results[block];
		op_regions_hold(op->session, &h.pieces[i], 1, -1);
	}
	wfi_kv_unpin(op->session->node->kv, h.idx, op->hot.nr);
	op_buf_put(op, op->hot.buf);
	op->hot.buf = NULL;
}

void op_hot_results(const struct node_op *op, int32_t *out, int res)
{
	const struct op_buf h = hot_buf_of(op);
	uint32_t i;

	for (i = 0; i < op->hot.nr; i++)
		out[h.pieces[i].block] = res;
}

/* ---- the transfers ---- */

/* the first @nr of the hot pieces, from copies or from memory */
static int hot_submit(struct node_op *op, uint32_t nr, bool copies,
		      void (*done)(void *ctx, int res))
{
	struct session *s = op->session;
	struct op_buf h = hot_buf_of(op);
	struct weft_ep *ep = s->rkeys[h.pieces[0].rkey]->ep;
	const bool summed = copies || op->summed;
	const struct wfi_xfer_opts x = {
		.ep = ep,
		.dir = WFI_XFER_WRITE,
		.local_mr = copies ? wfi_tier_gpu_mr(op->hot.tier) : gpu_mr(s, ep),
		.rkeys = s->rkeys,
		.nr_rkeys = SESSION_REGIONS_MAX,
		.pieces = h.pieces,
		.nr_pieces = nr,
		.nr_blocks = op->nr,
		.results = h.results,
		.sum_ops = summed ? &wfi_crc32c_sums : NULL,
		.sums = summed ? h.sums : NULL,
		.device_sums = copies,
		.deadline_ns = op_deadline(s->node, &op->sqe, op->start_ns),
		.done = done,
		.late = op_late,
		.ctx = op,
	};

	return wfi_xfer_submit(s->node->xfer, &x, &op->hot.xfer);
}

/* one side has ended: both? */
static void hot_joined(struct node_op *op)
{
	if (!op->hot.xfer && !op->hot.cold_open)
		op_get_done(op, op->hot.res);
}

static void cold_done(void *ctx, int res)
{
	struct node_op *op = ctx;

	op->xfer = NULL;
	op->hot.cold_open = false;
	op->hot.res = res;
	hot_joined(op);
}

/* what came from memory in the place of copies */
static void again_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	const struct op_buf h = hot_buf_of(op);
	uint32_t i;

	(void)res;
	op->hot.xfer = NULL;
	for (i = 0; op->summed && i < op->hot.nr_again; i++) {
		int32_t *result = &h.results[h.pieces[i].block];

		if (!*result && wfi_kv_verify_arrived(op->session->node->kv, h.idx[i],
						      h.sums[h.pieces[i].block]))
			*result = -ENOENT;
	}
	hot_joined(op);
}

static void swap(uint32_t *a, uint32_t *b)
{
	const uint32_t was = *a;

	*a = *b;
	*b = was;
}

/* those that did not arrive as they should come first. Return: how many */
static uint32_t hot_sort(struct node_op *op, const struct op_buf *h)
{
	struct wfi_piece piece;
	uint32_t i, n = 0;

	for (i = 0; i < op->hot.nr; i++) {
		const uint32_t block = h->pieces[i].block;

		if (!h->results[block] &&
		    !wfi_tier_gpu_check(op->hot.tier, hot_copies(h)[i], h->idx[i], h->sums[block]))
			continue;
		piece = h->pieces[n];
		h->pieces[n] = h->pieces[i];
		h->pieces[i] = piece;
		swap(&h->idx[n], &h->idx[i]);
		swap(&hot_copies(h)[n], &hot_copies(h)[i]);
		swap(&hot_blocks(h, op)[n], &hot_blocks(h, op)[i]);
		n++;
	}
	return n;
}

/* what failed for a reason that is not the way's. Return: 0 it is on its way from memory */
static int hot_again(struct node_op *op, const struct op_buf *h, int res)
{
	uint32_t i;

	if (!op->ring || res == -EIO || res == -ENOTCONN || res == -ETIMEDOUT || res == -ECANCELED)
		return -ENOENT;
	for (i = 0; i < op->hot.nr_again; i++)
		h->pieces[i].local = wfi_kv_slot_addr(op->session->node->kv, h->idx[i]);
	return hot_submit(op, op->hot.nr_again, false, again_done);
}

static void hot_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	const struct op_buf h = hot_buf_of(op);
	uint32_t i;
	int ret;

	op->hot.xfer = NULL;
	op->hot.nr_again = hot_sort(op, &h);
	copies_put(op, &h);
	if (res == -EIO)
		wfi_tier_gpu_lose(op->hot.tier);
	ret = op->hot.nr_again ? hot_again(op, &h, res) : -ENOENT;
	if (!ret)
		return;
	for (i = 0; i < op->hot.nr_again; i++)
		if (!h.results[h.pieces[i].block])
			h.results[h.pieces[i].block] = ret;
	hot_joined(op);
}

/* the rest, from memory. What can't begin has failed */
static void cold_begin(struct node_op *op, const struct op_buf *b)
{
	uint32_t i;
	int ret;

	op->hot.cold_open = op->nr_pieces > 0;
	if (!op->nr_pieces)
		return;
	ret = op_transfer(op, WFI_XFER_WRITE, cold_done);
	if (ret == OP_OPEN)
		return;
	for (i = 0; i < op->nr_pieces; i++)
		b->results[b->pieces[i].block] = ret;
	op->hot.cold_open = false;
	op->hot.res = ret;
}

/* out of the way of nodes without GPUs */
static __attribute__((noinline)) int get_hot(struct node_op *op)
{
	struct op_buf b = op_buf_of(op), h;

	op->hot.tier = tier_of(op, &b);
	op->hot.nr = op->hot.tier ? hot_find(op, &b) : 0;
	if (!op->hot.nr)
		return op_transfer(op, WFI_XFER_WRITE, op_get_done);
	h = hot_buf_of(op);
	if (hot_submit(op, op->hot.nr, true, hot_done)) {
		copies_put(op, &h);
		op_buf_put(op, op->hot.buf);
		op->hot.buf = NULL;
		return op_transfer(op, WFI_XFER_WRITE, op_get_done);
	}
	hot_keep(op, &b, &h);
	cold_begin(op, &b);
	return OP_OPEN;
}

int op_get_transfer(struct node_op *op)
{
	return wfi_likely(!op->session->node->nr_gpu_tiers)
		       ? op_transfer(op, WFI_XFER_WRITE, op_get_done)
		       : get_hot(op);
}
