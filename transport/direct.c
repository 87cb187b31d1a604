/* SPDX-License-Identifier: Apache-2.0 */
/* direct.c - bytes between memory that the CPU reaches on both sides, without a post; and sums */
#include <string.h>
#include "transport/engine.h"

#define RUNS 64u

static void advance(struct wfi_plan_pos *at, uint64_t len, uint64_t piece_len)
{
	at->off += len;
	if (at->off < piece_len)
		return;
	at->off = 0;
	at->idx++;
}

static uint64_t piece_left(const struct wfi_plan_range *r, const struct wfi_piece *p, uint64_t left)
{
	const uint64_t end = r->at.idx == r->end.idx ? r->end.off : p->len;

	return wfi_min(end - r->at.off, left);
}

/* the next runs of a range, neighbours merged where nobody asks for the sums of blocks. Return: how
 * many; 0 nothing is left, or not within reach */
static unsigned runs_take(const struct wfi_xfer_opts *o, struct wfi_plan_range *range,
			  struct wfi_copy_run *runs, uint32_t *blocks, uint64_t *budget)
{
	const struct weft_transport *t = o->ep->dev->transport;
	const bool read = o->dir == WFI_XFER_READ, merge = !o->sums;
	const struct wfi_piece *pieces = o->pieces;
	/* copies, which no store to a run can be taken to change */
	struct wfi_plan_range r = *range;
	uint64_t left = *budget;
	const uint8_t *src_end = NULL, *dst_end = NULL; /* of the last run */
	uint32_t rkey = UINT32_MAX;
	uint8_t *base = NULL;
	unsigned n = 0;

	while (n < RUNS && left && !wfi_plan_empty(&r)) {
		const struct wfi_piece *p = &pieces[r.at.idx];
		const uint64_t piece_len = p->len, len = piece_left(&r, p, left);
		uint8_t *local = (uint8_t *)p->local + r.at.off, *remote, *dst;
		const uint8_t *src;

		if (wfi_unlikely(p->rkey != rkey)) {
			rkey = p->rkey;
			base = t->rkey_ptr(o->rkeys[rkey]);
			if (!base)
				break;
		}
		remote = base + p->remote + r.at.off;
		dst = read ? local : remote;
		src = read ? remote : local;
		if (merge && dst == dst_end && src == src_end) {
			runs[n - 1].len += len;
		} else {
			blocks[n] = p->block;
			runs[n++] = (struct wfi_copy_run){ dst, src, len };
		}
		dst_end = dst + len;
		src_end = src + len;
		left -= len;
		advance(&r.at, len, piece_len);
	}
	*range = r;
	*budget = left;
	return n;
}

/* Return: bytes of a run from which on it goes around the cache */
static uint64_t stream_from(const struct wfi_xfer *x)
{
	const uint64_t batch = wfi_max(x->bytes, x->o.batch_bytes);

	if (x->o.sum_ops->keeps && batch <= x->o.sum_ops->keeps())
		return UINT64_MAX;
	return batch >= WFI_COPY_STREAM_BATCH ? WFI_COPY_STREAM_PIECE : WFI_COPY_STREAM_BYTES;
}

/* Return: behind the last of the short runs of one block that begin at @i */
static unsigned short_end(const struct wfi_copy_run *runs, const uint32_t *blocks, unsigned i,
			  unsigned nr, uint64_t from)
{
	while (i + 1 < nr && blocks[i + 1] == blocks[i] && runs[i].len < from &&
	       runs[i + 1].len < from)
		i++;
	return i + 1;
}

static void sum_runs(const struct wfi_xfer_engine *eng, const struct wfi_xfer *x,
		     const struct wfi_copy_run *runs, const uint32_t *blocks, unsigned nr)
{
	const uint64_t from = stream_from(x);
	const struct wfi_sum_ops *ops = x->o.sum_ops;
	unsigned i, end;

	for (i = 0; i < nr; i = end) {
		uint32_t *sum = &x->o.sums[blocks[i]];

		end = short_end(runs, blocks, i, nr, from);
		if (end > i + 1)
			*sum = ops->copy_runs(*sum, &runs[i], end - i);
		else
			*sum = ops->copy(*sum, runs[i].dst, runs[i].src, runs[i].len,
					 runs[i].len >= from);
	}
	eng->copy->fence();
}

uint64_t wfi_xfer_move(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t budget)
{
	struct wfi_copy_run runs[RUNS];
	uint32_t blocks[RUNS];
	uint64_t left = budget;
	unsigned nr;

	while ((nr = runs_take(&x->o, &x->posts.todo, runs, blocks, &left))) {
		if (x->o.sums)
			sum_runs(eng, x, runs, blocks, nr);
		else
			wfi_copy_runs(eng->copy, runs, nr, x->bytes);
	}
	wfi_count(eng->stats.bytes, budget - left);
	return budget - left;
}

uint64_t wfi_xfer_sum(struct wfi_xfer *x, uint64_t budget)
{
	struct wfi_plan_range r = wfi_xfer_summable(x);
	uint64_t left = budget;

	while (left && !wfi_plan_empty(&r)) {
		const struct wfi_piece *p = &x->o.pieces[r.at.idx];
		const uint64_t len = piece_left(&r, p, left);
		uint32_t *sum = &x->o.sums[p->block];

		*sum = x->o.sum_ops->sum(*sum, (const uint8_t *)p->local + r.at.off, len);
		left -= len;
		advance(&r.at, len, p->len);
	}
	x->unsummed.at = r.at;
	return budget - left;
}

static bool is_before(const struct wfi_plan_pos *a, const struct wfi_plan_pos *b)
{
	return a->idx < b->idx || (a->idx == b->idx && a->off < b->off);
}

void wfi_xfer_landed(struct wfi_xfer *x, const struct wfi_xfer_op *op, uint64_t bytes)
{
	struct wfi_plan_range r = op->range;

	/* what overtakes others is summed up with the last of them */
	if (is_before(&x->landed, &r.at) || !is_before(&x->landed, &r.end))
		return;
	while (bytes && !wfi_plan_empty(&r)) {
		const struct wfi_piece *p = &x->o.pieces[r.at.idx];
		const uint64_t len = piece_left(&r, p, bytes);

		bytes -= len;
		advance(&r.at, len, p->len);
	}
	x->landed = r.at;
}

/* bytes from a place to the end of its block */
static uint64_t block_left(const struct wfi_xfer_opts *o, const struct wfi_plan_pos *at)
{
	const struct wfi_piece *p = &o->pieces[at->idx], *const end = o->pieces + o->nr_pieces;
	const uint32_t block = p->block;
	uint64_t left = 0;

	for (; p < end && p->block == block; p++)
		left += p->len;
	return left - at->off;
}

static void pass(const struct wfi_xfer_opts *o, struct wfi_plan_pos *at, uint64_t len)
{
	while (len || o->pieces[at->idx].len == at->off) {
		const uint64_t piece_len = o->pieces[at->idx].len;
		const uint64_t n = wfi_min(len, piece_len - at->off);

		advance(at, n, piece_len);
		len -= n;
		if (at->idx == o->nr_pieces)
			return;
	}
}

void wfi_xfer_sums_take(struct wfi_xfer_engine *eng, const struct wfi_xfer_op *op,
			const struct weft_wc *wc)
{
	struct wfi_xfer *x = op->x;
	const struct wfi_xfer_opts *o = &x->o;
	struct wfi_plan_range r = op->range;
	struct wfi_plan_pos at = r.at;
	const uint32_t *sums = wc->data;
	uint64_t bytes, left = 0;
	unsigned i, nr;

	if (wc->status || !sums) {
		/* the CPU does not reach them: they are the post's result, or come with another */
		if (o->dir == WFI_XFER_SUM_THERE)
			return;
		x->sums_come = false;
		wfi_xfer_sum_later(x);
		return;
	}
	/* as it was posted */
	nr = wfi_plan_gather(o, &r, UINT64_MAX, eng->batch, WFI_XFER_BATCH, &bytes);
	pass(o, &at, 0);
	for (i = 0; i < nr; i++) {
		if (!left)
			left = block_left(o, &at);
		left -= eng->batch[i].len;
		o->sums[o->pieces[at.idx].block] ^= o->sum_ops->past(sums[i], left);
		pass(o, &at, eng->batch[i].len);
	}
	wfi_count(eng->stats.summed, 1);
}

void wfi_xfer_sum_later(struct wfi_xfer *x)
{
	if (!x->o.sums)
		return;
	memset(x->o.sums, 0, x->o.nr_blocks * sizeof(*x->o.sums));
	x->unsummed = (struct wfi_plan_range){ .end = { .idx = x->o.nr_pieces } };
}
