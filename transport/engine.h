/* SPDX-License-Identifier: Apache-2.0 */
/**
 * engine.h - the transfer engine from inside: what xfer.c and gather.c share
 *
 * A transfer has two lanes: what is posted, and the small pieces that go in messages (gather.c),
 * which stays empty where there is no gathering. A lane is a range of bytes that shrinks from the
 * front, and ranges of ops that failed in the middle.
 */
#ifndef WFI_TRANSPORT_ENGINE_H
#define WFI_TRANSPORT_ENGINE_H

#include "transport/plan.h"
#include "weft_internal/copy.h"
#include "weft_internal/util.h"
#include "weft_internal/xfer.h"

#define WFI_XFER_BATCH 512u /* pieces a post; what one process_vm call takes */
#define WFI_XFER_CQS 64u

struct wfi_link {
	struct wfi_link *prev;
	struct wfi_link *next;
};

struct wfi_xfer_op {
	struct wfi_xfer *x; /* NULL: free */
	struct wfi_xfer_op *next; /* free, or on wfi_xfer_lane.again */
	struct wfi_plan_range range;
	uint32_t gen;
};

struct wfi_xfer_lane {
	struct wfi_plan_range todo;
	struct wfi_xfer_op *again; /* ranges to post anew */
};

struct wfi_xfer {
	struct wfi_link all;
	struct wfi_link run; /* or ended, or free, or wfi_gather.waiting */
	struct wfi_xfer_opts o;
	struct wfi_xfer_lane posts;
	struct wfi_xfer_lane msgs;
	struct wfi_plan_range unsummed; /* when it has landed, and was not moved by us */
	struct wfi_plan_pos landed; /* .sums_along: all before it has */
	uint64_t bytes;
	uint64_t fence_ns; /* ending: when the endpoint is reset; .fenced: when that is late */
	uint64_t start_ns;
	uint32_t nr_open;
	uint32_t cq_idx;
	uint32_t serial; /* moves on when it is done: is it still the one that I knew? */
	int first_err;
	int end_status; /* not 0: cancelled, timed out or broken; nothing more is posted */
	bool sync;
	bool direct; /* the CPU reaches all of it: nothing is posted */
	bool sums_come; /* completions bring the sums */
	bool sums_along; /* what has landed is summed up while the rest comes */
	bool fenced;
	bool late;
};

struct wfi_xfer_cq {
	struct weft_cq *cq;
	uint32_t nr_xfers;
};

struct wfi_xfer_stats {
	struct wfi_counter *transfers, *bytes, *posts, *failed, *timeouts, *fences, *late;
	struct wfi_counter *messages, *gathered, *summed;
	struct wfi_hist *time;
};

struct wfi_xfer_engine {
	struct wfi_env *env;
	const struct wfi_copy_ops *copy;
	struct wfi_link all;
	struct wfi_link run;
	struct wfi_link ended;
	struct wfi_link free;
	struct wfi_link owing; /* struct wfi_gather: answers that found the queue full */
	struct wfi_xfer *xfers;
	struct wfi_xfer_op *ops;
	struct wfi_xfer_op *free_op;
	uint32_t max_xfers;
	uint32_t nr_ops;
	uint64_t slice_bytes;
	uint64_t grace_ns;
	uint64_t next_ns; /* earliest deadline or fence, or earlier */
	bool busy; /* a done() may be running: what it submits waits for the next poll */
	uint32_t nr_cqs;
	struct wfi_xfer_cq cqs[WFI_XFER_CQS];
	struct wfi_xfer_stats stats;
	struct wfi_counter no_counter;
	struct wfi_hist no_hist;
	struct weft_piece batch[WFI_XFER_BATCH];
};

static inline bool wfi_xfer_lane_left(const struct wfi_xfer_lane *lane)
{
	return lane->again || !wfi_plan_empty(&lane->todo);
}

static inline bool wfi_xfer_moves(const struct wfi_xfer *x)
{
	return wfi_xfer_lane_left(&x->posts) || wfi_xfer_lane_left(&x->msgs);
}

static inline bool wfi_xfer_has_work(const struct wfi_xfer *x)
{
	return !x->end_status && (wfi_xfer_moves(x) || !wfi_plan_empty(&x->unsummed));
}

/* what can be summed up by now: sums wait for all that is under way, or for what comes before it */
static inline struct wfi_plan_range wfi_xfer_summable(const struct wfi_xfer *x)
{
	struct wfi_plan_range r = x->unsummed;

	if (x->nr_open || wfi_xfer_moves(x))
		r.end = x->sums_along ? x->landed : r.at;
	return r;
}

/* of what is to be done, something can be */
static inline bool wfi_xfer_can_go(const struct wfi_xfer *x)
{
	struct wfi_plan_range sums;

	if (!wfi_xfer_has_work(x))
		return false;
	if (!x->nr_open || wfi_xfer_moves(x))
		return true;
	sums = wfi_xfer_summable(x);
	return !wfi_plan_empty(&sums);
}

static inline uint64_t wfi_xfer_op_cookie(const struct wfi_xfer_engine *eng,
					  const struct wfi_xfer_op *op)
{
	return ((uint64_t)op->gen << 32) | (uint64_t)(op - eng->ops);
}

/* Return: the op of that cookie, NULL when it is over, or never was */
static inline struct wfi_xfer_op *wfi_xfer_op_of(struct wfi_xfer_engine *eng, uint64_t cookie)
{
	uint32_t idx = (uint32_t)cookie;
	struct wfi_xfer_op *op;

	if (idx >= eng->nr_ops)
		return NULL;
	op = &eng->ops[idx];
	return op->x && op->gen == (uint32_t)(cookie >> 32) ? op : NULL;
}

/* direct.c: the next bytes of a transfer without a post; with its sums, if they are wanted. Return:
 * bytes, 0 when the CPU does not reach the next piece (any more) */
uint64_t wfi_xfer_move(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t budget);
/* the next bytes that have landed, summed up. Return: bytes */
uint64_t wfi_xfer_sum(struct wfi_xfer *x, uint64_t budget);
/* of .sums_along: the first bytes of an open op are here */
void wfi_xfer_landed(struct wfi_xfer *x, const struct wfi_xfer_op *op, uint64_t bytes);
/* the sums that an op's completion has brought; or those of all its transfer come later */
void wfi_xfer_sums_take(struct wfi_xfer_engine *eng, const struct wfi_xfer_op *op,
			const struct weft_wc *wc);
/* all sums from the start, once what is left was posted */
void wfi_xfer_sum_later(struct wfi_xfer *x);

/* one open op is over: of @wc, status, scope and idx count. Calls no done() */
void wfi_xfer_op_end(struct wfi_xfer_engine *eng, struct wfi_xfer_op *op, const struct weft_wc *wc,
		     uint64_t now_ns);
/* outside of a poll: when this transfer is over now, the next poll calls its done() */
void wfi_xfer_settle(struct wfi_xfer_engine *eng, struct wfi_xfer *x);
/* an open op of a transfer that is ending is over, with the transfer's status */
void wfi_xfer_op_drop(struct wfi_xfer_engine *eng, struct wfi_xfer_op *op);

/* from here on @cq is polled. Return: 0 with *@out for the put, -EAGAIN too many */
int wfi_xfer_cq_get(struct wfi_xfer_engine *eng, struct weft_cq *cq, uint32_t *out);
void wfi_xfer_cq_put(struct wfi_xfer_engine *eng, uint32_t idx);

/* ---- lists ---- */

static inline void wfi_list_init(struct wfi_link *l)
{
	l->prev = l;
	l->next = l;
}

static inline bool wfi_list_empty(const struct wfi_link *l)
{
	return l->next == l;
}

static inline void wfi_list_del(struct wfi_link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	wfi_list_init(l);
}

static inline void wfi_list_add_tail(struct wfi_link *head, struct wfi_link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

/* all of @from go behind @to */
static inline void wfi_list_append(struct wfi_link *to, struct wfi_link *from)
{
	if (wfi_list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	wfi_list_init(from);
}

#endif
