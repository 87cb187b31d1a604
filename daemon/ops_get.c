/* SPDX-License-Identifier: Apache-2.0 */
/* ops_get.c - blocks copied to places of the engine */
#include <errno.h>

#include "ops.h"

#define CHUNK 64u /* places that are copied and looked at at a time */

/* of a block that has no piece: the transfer knows nothing of it, and calls it good */
static int get_missed(const struct node_op *op, const struct op_buf *b, uint32_t i)
{
	if (op->afar && b->places[i])
		return 0;
	return i < op->reached ? -ENOENT : -ETIME;
}

static void get_misses(const struct node_op *op, const struct op_buf *b)
{
	uint32_t i, n = 0;

	for (i = 0; i < op->nr; i++) {
		if (n < op->nr_pieces && b->pieces[n].block == i)
			n++;
		else
			b->results[i] = get_missed(op, b, i);
	}
}

void op_get_results(const struct node_op *op, int32_t *out, int res)
{
	const struct op_buf b = op_buf_of(op);
	uint32_t i;

	/* nothing is in its place yet */
	for (i = 0; i < op->nr; i++)
		out[i] = op->pull ? res : get_missed(op, &b, i);
	for (i = 0; i < op->nr_pieces; i++)
		out[b.pieces[i].block] = res;
	if (op->hot.buf)
		op_hot_results(op, out, res);
}

/* a block whose check fails is a miss; what arrived of it lies in its place. On a GPU sums are of
 * that place, which is the engine's to spoil */
static void get_check(const struct node_op *op, const struct op_buf *b)
{
	const struct session *s = op->session;
	struct wfi_kv *kv = s->node->kv;
	int (*verify)(struct wfi_kv * kv, uint32_t slot, uint32_t crc) = wfi_kv_verify_crc;
	uint32_t n;

	if (op->nr_pieces && s->rkeys[b->pieces[0].rkey]->ep != s->ep)
		verify = wfi_kv_verify_arrived;

	for (n = 0; n < op->nr_pieces; n++) {
		uint32_t block = b->pieces[n].block;

		if (!b->results[block] && verify(kv, b->idx[n], b->sums[block]))
			b->results[block] = -ENOENT;
	}
}

void op_get_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct node *node = op->session->node;
	struct op_buf b = op_buf_of(op);
	uint32_t i, arrived = op->nr_pieces;

	if (op->nr_pieces < op->nr)
		get_misses(op, &b);
	if (op->summed)
		get_check(op, &b);
	if (wfi_unlikely(op->hot.buf != NULL))
		op_hot_end(op, &b);
	if (res < 0 || op->summed || op->afar || op->hot.nr)
		for (i = 0, arrived = 0; i < op->nr; i++)
			arrived += b.results[i] == 0;
	op_let_go(op, &b);
	if (arrived)
		wfi_count(node->bytes_out, (uint64_t)arrived * b.pieces[0].len);
	if (op->ring)
		wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + op->nr * 32ull, b.results,
				    op->nr * sizeof(int32_t));
	op_complete(op, (int)arrived, 0);
}

/* pieces of the blocks that are here, and their slots without gaps; the others are misses.
 * Return: 0, -EINVAL, -EFAULT */
static int get_plan(struct op_ctx *c, struct node_op *op, const struct op_buf *b,
		    const struct wfi_space_info *space)
{
	const uint64_t block_bytes = space->block_bytes;
	const struct session *s = c->s;
	struct weft_place places[CHUNK];
	struct wfi_piece *p = b->pieces;
	uint64_t off = op_after_keys(c);
	uint32_t i, k, nr, *idx = b->idx;
	void *addrs[CHUNK];
	int ret;

	for (i = 0; i < op->nr; i += nr, off += sizeof(places)) {
		nr = wfi_min(op->nr - i, CHUNK);
		ret = wfi_ring_args_read(c->r->ring, off, places, nr * sizeof(*places));
		if (ret)
			return ret;
		wfi_kv_slot_addrs(c->node->kv, b->idx + i, nr, addrs);
		for (k = 0; k < nr; k++) {
			ret = op_place_check(s, &places[k], block_bytes, p);
			if (ret)
				return ret;
			p->local = addrs[k];
			p->block = i + k;
			*idx = b->idx[i + k];
			p += addrs[k] != NULL;
			idx += addrs[k] != NULL;
		}
	}
	op->nr_pieces = (uint32_t)(p - b->pieces);
	return 0;
}

int op_get(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	struct wfi_space_info space;
	struct node_op *op;
	struct op_buf b;
	int ret, found;

	ret = wfi_unlikely(c->sqe->flags & WEFT_F_SIGNAL) ? op_signal_take(c, nr * 36ull) : 0;
	if (!ret)
		ret = op_take_keys(c, nr * (sizeof(struct weft_place) + sizeof(int32_t)), &space);
	if (ret)
		return ret;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	b = op_buf_of(op);
	op->reached = nr;
	op->signal = c->signal;
	if (wfi_unlikely(op->signal.word != NULL))
		c->s->regions[op->signal.region].nr_ops++;
	found = wfi_kv_lookup(c->node->kv, c->sqe->space, c->node->keys, nr, b.idx, c->now_ns);
	if (found < (int)nr && wfi_kv_has_tier(c->node->kv)) {
		ret = op_get_fetch(c, op, &space);
		if (ret == OP_OPEN)
			return ret;
		goto err_close;
	}
	if (found < (int)nr && !wfi_cluster_alone(c->node->cluster)) {
		ret = op_get_places(c, op, &space);
		if (!ret && op_get_afar(op, c->now_ns) == OP_OPEN)
			return OP_OPEN;
		if (ret)
			goto err_close;
	}
	ret = get_plan(c, op, &b, &space);
	if (ret)
		goto err_close;
	op->summed = space.verify || c->sqe->flags & WEFT_F_VERIFY;
	if (!op->nr_pieces) {
		op_get_done(op, 0);
		return OP_OPEN;
	}
	ret = op_get_transfer(op);
	if (ret == OP_OPEN)
		return ret;
err_close:
	op_close(op);
	return ret;
}
