/* SPDX-License-Identifier: Apache-2.0 */
/* ops_find.c - operations that end at once: what is here, and who holds it */
#include <errno.h>
#include <string.h>

#include "ops.h"

int op_stat(struct op_ctx *c)
{
	struct weft_stat st;

	wfi_kv_stat(c->node->kv, c->s->tenant, &st);
	return wfi_ring_args_write(c->r->ring, c->sqe->arg_off, &st, sizeof(st));
}

int op_claim(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_slot);
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, len))
		return -EFAULT;
	ret = wfi_kv_claim(c->node->kv, &c->s->owner, c->sqe->space, c->sqe->nr, c->node->slots,
			   c->now_ns);
	if (ret < 0)
		return ret;
	wfi_ring_args_write(c->r->ring, c->sqe->arg_off, c->node->slots, len);
	return ret;
}

int op_take_keys(struct op_ctx *c, uint64_t out_len, struct wfi_space_info *space)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_key);
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, space);
	if (ret)
		return ret;
	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, len + out_len))
		return -EFAULT;
	return wfi_ring_args_read(c->r->ring, c->sqe->arg_off, c->node->keys, len);
}

/* blocks found one after the other, from the first on */
static uint32_t lookup_prefix(struct op_ctx *c, uint32_t nr, uint32_t *idx)
{
	uint32_t n;

	if (c->sqe->flags & WEFT_F_PEEK)
		wfi_kv_peek(c->node->kv, c->sqe->space, c->node->keys, nr, idx);
	else
		wfi_kv_lookup(c->node->kv, c->sqe->space, c->node->keys, nr, idx, c->now_ns);
	for (n = 0; n < nr && idx[n] != WFI_SLOT_NONE; n++)
		;
	return n;
}

static int lease_prefix(struct op_ctx *c, uint32_t nr)
{
	if (!nr)
		return 0;
	return wfi_kv_lease(c->node->kv, &c->s->owner, c->node->idx, nr,
			    c->now_ns + c->node->lease_ns, &c->value);
}

/* of the first @here keys of a match, which are in memory, at c->node->idx */
static void where_here(struct op_ctx *c, uint32_t here)
{
	const bool gpus = c->node->nr_gpu_tiers;

	for (uint32_t i = 0; i < here; i++)
		c->node->where[i] = gpus && gpu_tiers_near(c->s, c->node->idx[i]) ? WEFT_TIER_GPU
										  : WEFT_TIER_DRAM;
}

/* of each key of a match whose first @n are held: those are written already */
static void write_where(struct op_ctx *c, uint32_t n)
{
	const uint32_t nr = c->sqe->nr;

	for (uint32_t i = n; i < nr; i++)
		c->node->where[i] = WEFT_TIER_NONE;
	wfi_ring_args_write(c->r->ring, op_after_keys(c), c->node->where, nr * sizeof(uint32_t));
}

/* one pass: what is to be leased is found to be used, anything else in the index alone */
int op_match(struct op_ctx *c)
{
	struct wfi_space_info space;
	const bool lease = c->sqe->flags & WEFT_F_LEASE, where = c->sqe->flags & WEFT_F_WHERE;
	const uint32_t nr = c->sqe->nr;
	uint32_t here, n;
	int ret;

	ret = op_take_keys(c, where ? nr * sizeof(uint32_t) : 0, &space);
	if (ret)
		return ret;
	here = lease ? lookup_prefix(c, nr, c->node->idx)
		     : (uint32_t)wfi_kv_match(c->node->kv, c->sqe->space, c->node->keys, nr,
					      where && c->node->nr_gpu_tiers ? c->node->idx : NULL);
	if (where)
		where_here(c, here);
	n = here;
	if (here < nr && wfi_kv_has_tier(c->node->kv))
		n = (uint32_t)wfi_kv_match_tiers(c->node->kv, c->sqe->space, c->node->keys, nr,
						 here, c->node->where, lease ? c->node->idx : NULL);
	ret = lease ? lease_prefix(c, n) : 0;
	if (ret)
		return ret;
	ret = n < nr && !lease ? op_match_afar(c, n) : (int)n;
	if (where && ret != OP_OPEN)
		write_where(c, (uint32_t)ret);
	return ret;
}

/* the lease, and the slots where the engine looks for them. Return: @n, -ENOMEM, -EDQUOT */
static int map_answer(struct node *node, struct session *s, struct node_ring *r, uint64_t off,
		      const uint32_t *idx, uint32_t n, uint64_t *handle)
{
	uint32_t i;
	int ret;

	if (!n)
		return 0;
	ret = wfi_kv_lease(node->kv, &s->owner, idx, n, wfi_now(node->env) + node->lease_ns,
			   handle);
	if (ret)
		return ret;
	for (i = 0; i < n; i++)
		wfi_kv_slot_ref(node->kv, idx[i], &node->slots[i]);
	wfi_ring_args_write(r->ring, off, node->slots, (uint64_t)n * sizeof(struct weft_slot));
	return (int)n;
}

/* the prefix ends at the first block that failed its check, or was not reached in time */
static void map_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = op_buf_of(op);
	uint64_t off = op->sqe.arg_off + op->nr * sizeof(struct weft_key), handle = 0;
	uint32_t n;

	for (n = 0; n < op->nr_pieces; n++)
		if (b.results[n] || wfi_kv_verify_crc(node->kv, b.idx[n], b.sums[n]))
			break;
	res = op->ring ? map_answer(node, s, op->ring, off, b.idx, n, &handle) : res;
	op_let_go(op, &b);
	op_complete(op, res, handle);
}

void op_map_fetched(struct node_op *op, uint32_t n)
{
	struct session *s = op->session;
	struct op_buf b = op_buf_of(op);
	uint64_t off = op->sqe.arg_off + op->nr * sizeof(struct weft_key), handle = 0;
	uint32_t i;
	int res = 0;

	op->summed = op->verify;
	op->nr_pieces = n;
	for (i = 0; op->summed && i < n; i++)
		op_piece_local(s->node, b.idx[i], i, wfi_kv_slot_header(s->node->kv, b.idx[i])->len,
			       &b.pieces[i]);
	if (op->ring && op->summed && n && op_transfer(op, WFI_XFER_SUM, map_done) == OP_OPEN)
		return;
	if (op->ring && !op->summed)
		res = map_answer(s->node, s, op->ring, off, b.idx, n, &handle);
	op_complete(op, res, handle);
}

/* @n, here and below: length of the prefix that was found, in c->node->idx */
static int map_checked(struct op_ctx *c, const struct wfi_space_info *space, uint32_t n)
{
	struct node_op *op = op_open(c->node, c->r, c->sqe, c->now_ns);
	struct op_buf b;
	uint32_t i;
	int ret;

	if (!op)
		return -ENOMEM;
	b = op_buf_of(op);
	op->summed = true;
	op->nr_pieces = n;
	memcpy(b.idx, c->node->idx, n * sizeof(*b.idx));
	for (i = 0; i < n; i++)
		op_piece_local(c->node, b.idx[i], i, space->block_bytes, &b.pieces[i]);
	ret = op_transfer(op, WFI_XFER_SUM, map_done);
	if (ret != OP_OPEN)
		op_close(op);
	return ret;
}

/* Return: OP_OPEN, or 0: what there is is here */
static int map_afar(struct op_ctx *c, const struct wfi_space_info *space, uint32_t n)
{
	struct node_op *op;
	struct op_buf b;

	if (n == c->sqe->nr)
		return 0;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return 0;
	b = op_buf_of(op);
	memcpy(b.keys, c->node->keys, op->nr * sizeof(*b.keys));
	op->verify = space->verify || c->sqe->flags & WEFT_F_VERIFY;
	if (op_map_afar(op, n) == OP_OPEN)
		return OP_OPEN;
	op_close(op);
	return 0;
}

int op_map(struct op_ctx *c)
{
	struct wfi_space_info space;
	uint32_t n;
	int ret;

	ret = op_take_keys(c, c->sqe->nr * sizeof(struct weft_slot), &space);
	if (ret)
		return ret;
	/* the only use of what is here, whatever it waits for */
	n = lookup_prefix(c, c->sqe->nr, c->node->idx);
	if (wfi_kv_has_tier(c->node->kv)) {
		ret = op_map_fetch(c, &space, n);
		if (ret)
			return ret;
	}
	if (!wfi_cluster_alone(c->node->cluster)) {
		ret = map_afar(c, &space, n);
		if (ret)
			return ret;
	}
	if (space.verify || c->sqe->flags & WEFT_F_VERIFY)
		return map_checked(c, &space, n);
	return map_answer(c->node, c->s, c->r, op_after_keys(c), c->node->idx, n, &c->value);
}

int op_release(struct op_ctx *c)
{
	int ret;

	if (c->sqe->handle)
		return wfi_kv_release(c->node->kv, &c->s->owner, c->sqe->handle);
	ret = wfi_ring_args_read(c->r->ring, c->sqe->arg_off, c->node->slots,
				 c->sqe->nr * sizeof(struct weft_slot));
	if (ret)
		return ret;
	return wfi_kv_unclaim(c->node->kv, &c->s->owner, c->node->slots, c->sqe->nr);
}

/* a touch keeps what is in memory there; the rest is asked for, and nobody waits */
int op_prefetch(struct op_ctx *c)
{
	const uint32_t nr = c->sqe->nr;
	struct wfi_space_info space;
	int n = op_take_keys(c, 0, &space);

	if (!n)
		n = (int)lookup_prefix(c, nr, c->node->idx);
	if (n >= 0 && (uint32_t)n < nr && wfi_kv_has_tier(c->node->kv))
		n += wfi_kv_prefetch(c->node->kv, c->sqe->space, c->node->keys + n,
				     nr - (uint32_t)n);
	return n;
}

int op_drop(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(int32_t);
	struct wfi_space_info space;
	int n, ret;

	ret = op_take_keys(c, len, &space);
	if (ret)
		return ret;
	n = wfi_kv_drop(c->node->kv, c->sqe->space, c->node->keys, c->sqe->nr, c->node->results);
	if (n >= 0)
		wfi_ring_args_write(c->r->ring, op_after_keys(c), c->node->results, len);
	return n;
}
