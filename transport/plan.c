/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "transport/plan.h"
#include "weft_internal/util.h"

static bool adjacent(const struct wfi_piece *a, const struct wfi_piece *b)
{
	return a->block == b->block && a->rkey == b->rkey && a->remote + a->len == b->remote &&
	       (const uint8_t *)a->local + a->len == (const uint8_t *)b->local;
}

unsigned wfi_pieces_merge(struct wfi_piece *pieces, unsigned nr)
{
	unsigned i, out = 0;

	for (i = 0; i < nr; i++) {
		if (out && adjacent(&pieces[out - 1], &pieces[i]))
			pieces[out - 1].len += pieces[i].len;
		else
			pieces[out++] = pieces[i];
	}
	return out;
}

/* Return: 0, -EINVAL, -EACCES: may pieces name this rkey? */
static int rkey_check(const struct wfi_xfer_opts *opts, uint32_t idx)
{
	const struct weft_rkey *rkey;

	if (wfi_unlikely(idx >= opts->nr_rkeys))
		return -EINVAL;
	rkey = opts->rkeys[idx];
	if (wfi_unlikely(!rkey || rkey->ep != opts->ep))
		return -EINVAL;
	return rkey->access & (opts->dir == WFI_XFER_WRITE ? WEFT_ACCESS_REMOTE_WRITE
							   : WEFT_ACCESS_REMOTE_READ)
		       ? 0
		       : -EACCES;
}

static int local_check(const struct wfi_xfer_opts *opts)
{
	const struct weft_mr *mr = opts->local_mr;
	uint32_t i;

	for (i = 0; i < opts->nr_pieces; i++) {
		const struct wfi_piece *p = &opts->pieces[i];

		if (!wfi_range_ok((uintptr_t)p->local - (uintptr_t)mr->addr, p->len, mr->len))
			return -EINVAL;
	}
	return 0;
}

int wfi_plan_check(const struct wfi_xfer_opts *opts, uint64_t *bytes, bool *direct)
{
	const struct weft_transport *t = opts->ep->dev->transport;
	const struct wfi_piece *p = opts->pieces, *const end = p + opts->nr_pieces;
	const bool moves = opts->dir != WFI_XFER_SUM;
	const uint32_t nr_blocks = opts->nr_blocks;
	uint64_t sum = 0, region_len = UINT64_MAX;
	uint32_t rkey = p < end ? ~p->rkey : 0;
	bool reached = true;
	int ret;

	for (; p < end; p++) {
		/* few regions, many pieces */
		if (moves && wfi_unlikely(p->rkey != rkey)) {
			rkey = p->rkey;
			ret = rkey_check(opts, rkey);
			if (ret)
				return ret;
			region_len = opts->rkeys[rkey]->len;
			reached = reached && t->rkey_ptr(opts->rkeys[rkey]);
		}
		if (wfi_unlikely(p->block >= nr_blocks || wfi_add_overflows(sum, p->len, &sum) ||
				 (moves && !wfi_range_ok(p->remote, p->len, region_len))))
			return -EINVAL;
	}
	*bytes = sum;
	*direct = reached;
	return opts->local_mr ? local_check(opts) : 0;
}

/*
 * A run is entered at its first piece and measured there, once; .run_end keeps what came out, for
 * all ranges that are copied from this one.
 */
void wfi_plan_settle(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r)
{
	while (!wfi_plan_empty(r) && r->at.idx >= r->at.run_end) {
		const struct wfi_piece *first = &opts->pieces[r->at.idx], *p = first;
		const struct wfi_piece *last = &opts->pieces[opts->nr_pieces - 1];
		uint64_t len = p->len;
		uint32_t end;

		for (; p < last && adjacent(p, p + 1); p++)
			len += p[1].len;
		end = (uint32_t)(p - opts->pieces) + 1;
		if ((len < r->limit && opts->names[first->rkey].gen) == r->small)
			r->at.run_end = end;
		else
			r->at.idx = end;
	}
}

static inline __attribute__((always_inline)) unsigned
gather(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r, uint64_t budget, uint32_t cost,
       struct weft_piece *out, unsigned max, uint64_t *bytes, bool sorted)
{
	const uint64_t max_piece = opts->ep->dev->caps.max_piece_bytes;
	uint64_t left = budget, len;
	uint32_t block = 0;
	unsigned n = 0;

	if (sorted)
		wfi_plan_settle(opts, r);
	while (!wfi_plan_empty(r) && left) {
		const struct wfi_piece *p = &opts->pieces[r->at.idx];
		uint8_t *local = (uint8_t *)p->local + r->at.off;
		uint64_t remote = p->remote + r->at.off;
		const struct weft_rkey *rkey = opts->rkeys[p->rkey];
		struct weft_piece *last = n ? &out[n - 1] : NULL;

		len = (r->at.idx == r->end.idx ? r->end.off : p->len) - r->at.off;
		len = wfi_min(wfi_min(len, left), max_piece);
		if (last && block == p->block && last->rkey == rkey &&
		    last->remote + last->len == remote &&
		    (uint8_t *)last->local + last->len == local && last->len < max_piece) {
			len = wfi_min(len, max_piece - last->len);
			last->len += len;
		} else if (len) {
			if (n == max || (cost && left <= cost))
				break;
			if (cost) {
				left -= cost;
				len = wfi_min(len, left);
			}
			out[n++] = (struct weft_piece){ local, remote, len, rkey };
			block = p->block;
		}
		left -= len;
		r->at.off += len;
		if (r->at.off >= p->len) {
			r->at.off = 0;
			r->at.idx++;
			if (sorted)
				wfi_plan_settle(opts, r);
		}
	}
	*bytes = budget - left - (uint64_t)n * cost;
	return n;
}

unsigned wfi_plan_gather(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r,
			 uint64_t budget, struct weft_piece *out, unsigned max, uint64_t *bytes)
{
	if (r->limit)
		return gather(opts, r, budget, 0, out, max, bytes, true);
	return gather(opts, r, budget, 0, out, max, bytes, false);
}

unsigned wfi_plan_pack(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r, uint64_t budget,
		       uint32_t cost, struct weft_piece *out, unsigned max, uint64_t *bytes)
{
	return gather(opts, r, budget, cost, out, max, bytes, true);
}

void wfi_plan_skip_block(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r, uint32_t block)
{
	while (!wfi_plan_empty(r) && opts->pieces[r->at.idx].block == block) {
		r->at.idx++;
		r->at.off = 0;
	}
	if (r->limit)
		wfi_plan_settle(opts, r);
}

bool wfi_plan_fail(const struct wfi_xfer_opts *opts, const struct wfi_plan_range *r, int status)
{
	struct wfi_plan_range left = *r;
	bool any = false;

	for (;; left.at.idx++, left.at.off = 0) {
		int32_t *res;

		if (left.limit)
			wfi_plan_settle(opts, &left);
		if (wfi_plan_empty(&left))
			break;
		res = &opts->results[opts->pieces[left.at.idx].block];
		if (!*res)
			*res = status;
		any = true;
	}
	return any;
}
