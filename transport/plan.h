/* SPDX-License-Identifier: Apache-2.0 */
/**
 * plan.h - from the pieces of a transfer to the batches of posts
 */
#ifndef WFI_TRANSPORT_PLAN_H
#define WFI_TRANSPORT_PLAN_H

#include "weft_internal/xfer.h"

/* a place in a list of pieces: bytes before .off of piece .idx are behind it */
struct wfi_plan_pos {
	uint64_t off;
	uint32_t idx;
	uint32_t run_end; /* of a sorted range: the run that .idx lies in ends before this piece */
};

/**
 * struct wfi_plan_range - bytes of a list of pieces
 * @limit: 0: all of them. Else the range is sorted by runs, neighbours that would merge: it has
 * those that are served (wfi_xfer_opts.names) and shorter than this (@small), or all others
 */
struct wfi_plan_range {
	struct wfi_plan_pos at;
	struct wfi_plan_pos end;
	uint32_t limit;
	bool small;
};

static inline bool wfi_plan_empty(const struct wfi_plan_range *r)
{
	return r->at.idx > r->end.idx || (r->at.idx == r->end.idx && r->at.off >= r->end.off);
}

/* Return: 0, -EINVAL a piece outside its region, -EACCES without the right. *bytes: of all;
 * *direct: the CPU reaches all of their regions */
int wfi_plan_check(const struct wfi_xfer_opts *opts, uint64_t *bytes, bool *direct);

/**
 * wfi_plan_gather - the next batch of a range
 * @r: .at moves on by what was gathered
 * @budget: bytes at most
 * @out: @max entries; neighbours of one block come merged
 *
 * What it gives depends on nothing but its arguments: gathered again from the same place, the same
 * entries come. Return: entries, 0 when the range has no more bytes. *bytes: of these.
 */
unsigned wfi_plan_gather(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r,
			 uint64_t budget, struct weft_piece *out, unsigned max, uint64_t *bytes);
/* the same where each entry takes @cost bytes of the budget beside its own */
unsigned wfi_plan_pack(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r, uint64_t budget,
		       uint32_t cost, struct weft_piece *out, unsigned max, uint64_t *bytes);

/* .at of a sorted range moves to the next piece that is the range's; until then it may not be */
void wfi_plan_settle(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r);
/* .at moves behind what is left of block @block, if it stands in it */
void wfi_plan_skip_block(const struct wfi_xfer_opts *opts, struct wfi_plan_range *r,
			 uint32_t block);
/* blocks of a range that have no result yet get this one. Return: true when there was any */
bool wfi_plan_fail(const struct wfi_xfer_opts *opts, const struct wfi_plan_range *r, int status);

#endif
