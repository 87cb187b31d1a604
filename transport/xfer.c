/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transfer is a range of bytes over its pieces that shrinks from the front: each turn gathers a
 * batch and posts it as one op. What fails in the middle of an op comes back as a range of its own,
 * to be posted again behind the block that failed. A transfer is done when nothing is left to post
 * and no op is open.
 *
 * Lists: every accepted transfer is on .all; those with something to post are on .run, served in
 * turn; those that ended outside of a poll wait on .ended for their done().
 */
#include <errno.h>
#include <string.h>
#include "transport/engine.h"
#include "transport/gather.h"
#include "weft_internal/guard.h"
#include "weft_internal/util.h"

#define OPS_PER_XFER 4u
#define TURNS_LOG2 2u /* slices are shared among so many turns a poll */
#define ASYNC_POSTS 16u /* posts a turn where the NIC copies */
#define AT_ONCE_BYTES (256u << 10) /* moved inside submit where the CPU copies */
#define SLICE_BYTES (512u << 10) /* some tens of microseconds */
#define OWING_NS WFI_NSEC_PER_MSEC /* between tries to send an answer to a peer that takes none */
#define WCS 32u

/* ---- ops ---- */

static struct wfi_xfer_op *op_get(struct wfi_xfer_engine *eng, struct wfi_xfer *x)
{
	struct wfi_xfer_op *op = eng->free_op;

	if (!op)
		return NULL;
	eng->free_op = op->next;
	op->x = x;
	op->next = NULL;
	return op;
}

static void op_put(struct wfi_xfer_engine *eng, struct wfi_xfer_op *op)
{
	op->x = NULL;
	op->gen++;
	op->next = eng->free_op;
	eng->free_op = op;
}

/* Return: the op that a completion speaks of, NULL when it is none of ours */
static struct wfi_xfer_op *op_of(struct wfi_xfer_engine *eng, const struct weft_wc *wc)
{
	struct wfi_xfer_op *op;

	if (wc->op > WEFT_WC_SEND && wc->op != WEFT_WC_PART)
		return NULL;
	op = wfi_xfer_op_of(eng, wc->cookie);
	if (!op || op->x->o.ep != wc->ep || (wc->op == WEFT_WC_SEND) != op->range.small)
		return NULL;
	return op;
}

/* ---- the end of a transfer ---- */

int wfi_xfer_cq_get(struct wfi_xfer_engine *eng, struct weft_cq *cq, uint32_t *out)
{
	uint32_t i, slot = WFI_XFER_CQS;

	for (i = 0; i < eng->nr_cqs; i++) {
		if (eng->cqs[i].nr_xfers && eng->cqs[i].cq == cq)
			break;
		if (!eng->cqs[i].nr_xfers)
			slot = i;
	}
	if (i == eng->nr_cqs && slot < WFI_XFER_CQS)
		i = slot;
	if (i == WFI_XFER_CQS)
		return -EAGAIN;
	if (i == eng->nr_cqs)
		eng->nr_cqs++;
	eng->cqs[i].cq = cq;
	eng->cqs[i].nr_xfers++;
	*out = i;
	return 0;
}

void wfi_xfer_cq_put(struct wfi_xfer_engine *eng, uint32_t idx)
{
	eng->cqs[idx].nr_xfers--;
	while (eng->nr_cqs && !eng->cqs[eng->nr_cqs - 1].nr_xfers)
		eng->nr_cqs--;
}

/* calls done() when all is over. Return: 1 when it was, else 0 */
static int xfer_finish(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t now_ns)
{
	void (*done)(void *ctx, int res) = x->o.done;
	void *ctx = x->o.ctx;
	int res = x->first_err;

	if (x->nr_open || wfi_xfer_has_work(x))
		return 0;
	wfi_list_del(&x->all);
	wfi_list_del(&x->run);
	wfi_xfer_cq_put(eng, x->cq_idx);
	wfi_list_add_tail(&eng->free, &x->run);
	x->serial++;
	wfi_count(eng->stats.transfers, 1);
	wfi_count(eng->stats.failed, res != 0);
	wfi_hist_add(eng->stats.time, now_ns - x->start_ns);
	done(ctx, res);
	return 1;
}

static void xfer_fail_range(struct wfi_xfer *x, const struct wfi_plan_range *r, int status)
{
	if (wfi_plan_fail(&x->o, r, status) && !x->first_err)
		x->first_err = status;
}

static void lane_fail(struct wfi_xfer_engine *eng, struct wfi_xfer *x, struct wfi_xfer_lane *lane,
		      int status)
{
	struct wfi_xfer_op *op;

	while ((op = lane->again)) {
		lane->again = op->next;
		xfer_fail_range(x, &op->range, status);
		op_put(eng, op);
	}
	xfer_fail_range(x, &lane->todo, status);
}

static void fence_later(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t now_ns)
{
	if (wfi_add_overflows(now_ns, eng->grace_ns, &x->fence_ns))
		x->fence_ns = UINT64_MAX;
}

/* nothing more is posted; what was not posted has this result. Open ops go on, but for messages
 * whose answers can be left to land nowhere */
static void xfer_end(struct wfi_xfer_engine *eng, struct wfi_xfer *x, int status, uint64_t now_ns)
{
	if (x->end_status)
		return;
	x->end_status = status;
	lane_fail(eng, x, &x->posts, status);
	lane_fail(eng, x, &x->msgs, status);
	xfer_fail_range(x, &x->unsummed, status);
	if (wfi_unlikely(x->o.gather))
		wfi_gather_forget(x);
	fence_later(eng, x, now_ns);
	eng->next_ns = wfi_min(eng->next_ns, x->fence_ns);
	wfi_list_del(&x->run);
	if (!x->nr_open)
		wfi_list_add_tail(&eng->ended, &x->run);
}

/* ---- completions ---- */

/* one piece failed, those behind it were not tried: they get another chance, but for its block */
static void op_failed(struct wfi_xfer_engine *eng, struct wfi_xfer *x, struct wfi_xfer_op *op,
		      const struct weft_wc *wc)
{
	struct wfi_xfer_lane *lane = op->range.small ? &x->msgs : &x->posts;
	struct wfi_plan_range r = op->range;
	uint64_t bytes;
	uint32_t block;
	unsigned n;

	n = wfi_plan_gather(&x->o, &r, UINT64_MAX, eng->batch,
			    (unsigned)wfi_min(wc->idx, WFI_XFER_BATCH), &bytes);
	if (n < wc->idx || wfi_plan_empty(&r)) {
		xfer_fail_range(x, &op->range, wc->status); /* a provider that miscounts */
		op_put(eng, op);
		return;
	}
	block = x->o.pieces[r.at.idx].block;
	if (!x->o.results[block])
		x->o.results[block] = wc->status;
	if (!x->first_err)
		x->first_err = wc->status;
	wfi_plan_skip_block(&x->o, &r, block);
	wfi_plan_skip_block(&x->o, &x->posts.todo, block);
	wfi_plan_skip_block(&x->o, &x->msgs.todo, block);
	if (x->end_status)
		xfer_fail_range(x, &r, x->end_status);
	if (x->end_status || wfi_plan_empty(&r)) {
		op_put(eng, op);
		return;
	}
	op->range = r;
	op->gen++;
	op->next = lane->again;
	lane->again = op;
	if (wfi_list_empty(&x->run))
		wfi_list_add_tail(&eng->run, &x->run);
}

/* without the sums that were wanted nothing of it is good, and none of it is tried again here */
static void op_unsummed(struct wfi_xfer_engine *eng, struct wfi_xfer *x, struct wfi_xfer_op *op,
			const struct weft_wc *wc, uint64_t now_ns)
{
	const int status = x->end_status ? x->end_status : wc->status ? wc->status : -EAGAIN;

	xfer_fail_range(x, &op->range, status);
	op_put(eng, op);
	if (wc->status && wc->scope > WEFT_SCOPE_OP)
		xfer_end(eng, x, status, now_ns);
}

void wfi_xfer_op_end(struct wfi_xfer_engine *eng, struct wfi_xfer_op *op, const struct weft_wc *wc,
		     uint64_t now_ns)
{
	struct wfi_xfer *x = op->x;
	int status;

	x->nr_open--;
	if (wfi_unlikely(x->o.device_sums) && (wc->status || !wc->data)) {
		op_unsummed(eng, x, op, wc, now_ns);
		return;
	}
	if (wfi_unlikely(x->sums_come)) {
		wfi_xfer_sums_take(eng, op, wc);
		/* nobody makes them any more */
		if (x->end_status)
			xfer_fail_range(x, &x->unsummed, x->end_status);
	}
	if (wfi_likely(!wc->status)) {
		if (x->sums_along)
			wfi_xfer_landed(x, op, UINT64_MAX);
		op_put(eng, op);
	} else if (wc->scope <= WEFT_SCOPE_OP) {
		op_failed(eng, x, op, wc);
	} else {
		status = x->end_status ? x->end_status : wc->status;
		xfer_fail_range(x, &op->range, status);
		op_put(eng, op);
		xfer_end(eng, x, status, now_ns);
	}
}

void wfi_xfer_op_drop(struct wfi_xfer_engine *eng, struct wfi_xfer_op *op)
{
	op->x->nr_open--;
	xfer_fail_range(op->x, &op->range, op->x->end_status);
	op_put(eng, op);
}

void wfi_xfer_settle(struct wfi_xfer_engine *eng, struct wfi_xfer *x)
{
	if (wfi_xfer_can_go(x) && wfi_list_empty(&x->run))
		wfi_list_add_tail(&eng->run, &x->run);
	if (x->nr_open || wfi_xfer_has_work(x))
		return;
	wfi_list_del(&x->run);
	wfi_list_add_tail(&eng->ended, &x->run);
}

static int xfer_complete(struct wfi_xfer_engine *eng, const struct weft_wc *wc, uint64_t now_ns)
{
	struct wfi_xfer_op *op = op_of(eng, wc);
	struct wfi_xfer *x;

	if (wfi_unlikely(!op))
		return 0;
	x = op->x;
	if (wc->op == WEFT_WC_PART) {
		wfi_xfer_landed(x, op, wc->len);
		if (wfi_xfer_can_go(x) && wfi_list_empty(&x->run))
			wfi_list_add_tail(&eng->run, &x->run);
		return 0;
	}
	/* a message that was sent is not over: its answer completes it */
	if (wfi_unlikely(op->range.small)) {
		wfi_gather_sent(x->o.gather, wc);
		return 0;
	}
	wfi_xfer_op_end(eng, op, wc, now_ns);
	if (wfi_unlikely(x->o.sums) && wfi_xfer_can_go(x) && wfi_list_empty(&x->run))
		wfi_list_add_tail(&eng->run, &x->run);
	return xfer_finish(eng, x, now_ns);
}

static int cq_drain(struct wfi_xfer_engine *eng, struct weft_cq *cq, uint64_t now_ns)
{
	struct weft_wc wcs[WCS];
	int i, n, work = 0;

	do {
		n = weft_cq_poll(cq, wcs, WCS);
		for (i = 0; i < n; i++)
			xfer_complete(eng, &wcs[i], now_ns);
		work += n > 0 ? n : 0;
	} while (n == (int)WCS && work < (int)(WCS * WCS));
	return work;
}

/* ---- posting ---- */

static int post_batch(struct wfi_xfer_engine *eng, struct wfi_xfer *x, unsigned nr, uint64_t cookie)
{
	struct weft_post post = {
		.pieces = eng->batch,
		.nr_pieces = nr,
		.flags = x->sums_come || x->o.check ? WEFT_POST_SUMS
			 : x->sums_along	    ? WEFT_POST_PARTS
						    : 0,
		.local_mr = x->o.local_mr,
		.cookie = cookie,
	};

	if (wfi_unlikely(x->o.dir == WFI_XFER_SUM_THERE))
		post.flags |= WEFT_POST_STAY;
	return x->o.dir == WFI_XFER_WRITE ? weft_ep_post_write(x->o.ep, &post)
					  : weft_ep_post_read(x->o.ep, &post);
}

/* the next batch of a range, into the engine's */
static unsigned batch_take(struct wfi_xfer_engine *eng, struct wfi_xfer *x, bool msg,
			   struct wfi_plan_range *next, uint64_t budget, uint64_t *bytes)
{
	const struct weft_caps *caps = &x->o.ep->dev->caps;

	if (wfi_unlikely(msg))
		return wfi_gather_batch(x, next, bytes);
	return wfi_plan_gather(&x->o, next, wfi_min(budget, caps->max_post_bytes), eng->batch,
			       (unsigned)wfi_min(caps->max_pieces, WFI_XFER_BATCH), bytes);
}

/* Return: bytes posted, 0 no more now (full, or nothing left, or it broke) */
static uint64_t lane_post(struct wfi_xfer_engine *eng, struct wfi_xfer *x,
			  struct wfi_xfer_lane *lane, uint64_t budget, uint64_t now_ns)
{
	struct wfi_xfer_op *op = lane->again;
	struct wfi_plan_range *from = op ? &op->range : &lane->todo;
	struct wfi_plan_range next = *from;
	bool msg = lane == &x->msgs;
	uint64_t bytes, cookie;
	unsigned nr;
	int ret;

	nr = batch_take(eng, x, msg, &next, budget, &bytes);
	if (!nr) {
		*from = next;
		if (op) {
			lane->again = op->next;
			op_put(eng, op);
		}
		return 0;
	}
	if (op && wfi_plan_empty(&next)) {
		lane->again = op->next;
	} else {
		op = op_get(eng, x);
		if (!op)
			return 0;
		op->range = *from;
		op->range.end = next.at;
	}
	cookie = wfi_xfer_op_cookie(eng, op);
	ret = wfi_unlikely(msg) ? wfi_gather_send(x, nr, cookie) : post_batch(eng, x, nr, cookie);
	if (wfi_unlikely(ret)) {
		if (from == &op->range) {
			op->next = lane->again;
			lane->again = op;
		} else {
			op_put(eng, op);
		}
		if (ret != -EAGAIN)
			xfer_end(eng, x, ret, now_ns);
		return 0;
	}
	if (from != &op->range)
		*from = next;
	x->nr_open++;
	wfi_count(eng->stats.posts, !msg);
	wfi_count(eng->stats.bytes, x->o.dir == WFI_XFER_SUM_THERE ? 0 : bytes);
	return bytes;
}

/* the CPU's share of a transfer. What it read or wrote while a mapping was taken from under it
 * counts for nothing. Return: bytes */
static uint64_t xfer_by_hand(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t budget,
			     uint64_t now_ns)
{
	const uint32_t hits = wfi_guard_hits();
	uint64_t bytes;

	bytes = x->direct ? wfi_xfer_move(eng, x, budget) : wfi_xfer_sum(x, budget);
	if (wfi_likely(hits == wfi_guard_hits()))
		return bytes;
	x->posts.todo = (struct wfi_plan_range){ .end = { .idx = x->o.nr_pieces } };
	xfer_end(eng, x, -EFAULT, now_ns);
	return 0;
}

/* moves, posts or sums up what comes next. Return: bytes.
 * Messages first: they wait for their answers while other pieces are posted */
static uint64_t xfer_step(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t quantum,
			  uint64_t now_ns)
{
	uint64_t bytes = 0, budget = x->sync ? quantum : UINT64_MAX;

	if (wfi_likely(x->direct)) {
		bytes = xfer_by_hand(eng, x, budget, now_ns);
		if (wfi_likely(bytes || wfi_plan_empty(&x->posts.todo)))
			return bytes;
		/* it was within reach at the start: posts will tell what is wrong with it now */
		x->direct = false;
		wfi_xfer_sum_later(x);
	}
	if (!wfi_xfer_moves(x))
		return xfer_by_hand(eng, x, quantum, now_ns);
	if (wfi_unlikely(wfi_xfer_lane_left(&x->msgs)) && !wfi_gather_full(x->o.gather))
		bytes = lane_post(eng, x, &x->msgs, budget, now_ns);
	if (!bytes && wfi_xfer_lane_left(&x->posts) && !x->end_status)
		bytes = lane_post(eng, x, &x->posts, budget, now_ns);
	return bytes;
}

/* with nothing left but messages, and no place for one, an answer calls it back */
static struct wfi_link *xfer_place(struct wfi_xfer_engine *eng, struct wfi_xfer *x)
{
	if (wfi_likely(wfi_xfer_lane_left(&x->posts) || !wfi_xfer_lane_left(&x->msgs)) ||
	    !wfi_gather_full(x->o.gather))
		return &eng->run;
	return &x->o.gather->waiting;
}

/* its turn costs the CPU what its bytes cost */
static bool xfer_by_cpu(const struct wfi_xfer *x)
{
	return x->sync || !wfi_xfer_moves(x);
}

/* a turn of one transfer, which is on no list to run. Return: bytes moved, posted or summed up */
static uint64_t xfer_turn(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t quantum,
			  uint64_t now_ns)
{
	struct weft_cq *cq = x->o.ep->send_cq;
	bool by_cpu = xfer_by_cpu(x);
	uint64_t bytes, sum = 0;
	unsigned posts = 0;

	do {
		bytes = xfer_step(eng, x, quantum - sum, now_ns);
		sum += bytes;
		posts++;
	} while (bytes && wfi_xfer_has_work(x) &&
		 (by_cpu ? sum < quantum : wfi_xfer_moves(x) && posts < ASYNC_POSTS));

	/* before done(): it may take x for something else */
	if (wfi_xfer_can_go(x))
		wfi_list_add_tail(xfer_place(eng, x), &x->run);
	if (x->sync && x->nr_open)
		cq_drain(eng, cq, now_ns);
	else if (!x->end_status)
		xfer_finish(eng, x, now_ns);
	return sum;
}

static int run_all(struct wfi_xfer_engine *eng, uint64_t now_ns)
{
	uint64_t quantum = eng->slice_bytes, left = eng->slice_bytes, used;
	struct wfi_link turn;
	int work = 0;

	wfi_list_init(&turn);
	wfi_list_append(&turn, &eng->run);
	if (turn.next != turn.prev)
		quantum >>= TURNS_LOG2;
	while (left && !wfi_list_empty(&turn)) {
		struct wfi_xfer *x = wfi_container_of(turn.next, struct wfi_xfer, run);
		bool by_cpu = xfer_by_cpu(x);

		wfi_list_del(&x->run);
		used = xfer_turn(eng, x, wfi_min(quantum, left), now_ns);
		work += used != 0;
		if (by_cpu)
			left -= wfi_min(used, left);
	}
	/* those that had no turn come first next time */
	wfi_list_append(&turn, &eng->run);
	wfi_list_append(&eng->run, &turn);
	return work;
}

/* ---- time ---- */

/* the provider flushes what is open, and nobody writes behind our back */
static void xfer_fence(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t now_ns)
{
	x->o.ep->dev->transport->ep_shutdown(x->o.ep);
	x->fenced = true;
	fence_later(eng, x, now_ns);
	if (x->o.gather)
		wfi_gather_lost(x->o.gather, -ECANCELED);
	wfi_count(eng->stats.fences, 1);
}

/* a device goes on all the same: nothing but its end is waited for from here on */
static void xfer_late(struct wfi_xfer_engine *eng, struct wfi_xfer *x)
{
	x->late = true;
	wfi_count(eng->stats.late, 1);
	if (x->o.late)
		x->o.late(x->o.ctx, x->end_status);
}

static int check_time(struct wfi_xfer_engine *eng, uint64_t now_ns)
{
	struct wfi_link *l;
	int work = 0;

	/* what ends or begins in a late() lowers it, too */
	eng->next_ns = UINT64_MAX;
	for (l = eng->all.next; l != &eng->all; l = l->next) {
		struct wfi_xfer *x = wfi_container_of(l, struct wfi_xfer, all);

		if (!x->nr_open && !wfi_xfer_has_work(x))
			continue; /* on .ended: its result stands */
		if (!x->end_status && now_ns >= x->o.deadline_ns) {
			xfer_end(eng, x, -ETIMEDOUT, now_ns);
			wfi_count(eng->stats.timeouts, 1);
			work++;
		}
		if (x->end_status && !x->late && x->nr_open && now_ns >= x->fence_ns) {
			if (x->fenced)
				xfer_late(eng, x);
			else
				xfer_fence(eng, x, now_ns);
			work++;
		}
		if (!x->end_status)
			eng->next_ns = wfi_min(eng->next_ns, x->o.deadline_ns);
		else if (!x->late)
			eng->next_ns = wfi_min(eng->next_ns, x->fence_ns);
	}
	return work;
}

/* ---- the engine ---- */

static struct wfi_counter *counter(struct wfi_xfer_engine *eng, struct wfi_metrics *m,
				   const char *name, const char *unit, const char *help)
{
	struct wfi_counter *c = m ? wfi_metrics_counter(m, name, "", unit, help) : NULL;

	return c ? c : &eng->no_counter;
}

static void stats_init(struct wfi_xfer_engine *eng, struct wfi_metrics *m)
{
	struct wfi_xfer_stats *s = &eng->stats;

	s->transfers = counter(eng, m, "weft_xfer_transfers", "", "Transfers completed");
	s->failed = counter(eng, m, "weft_xfer_failed", "",
			    "Transfers completed with a block that failed");
	s->bytes = counter(eng, m, "weft_xfer_bytes", "bytes", "Bytes posted");
	s->posts = counter(eng, m, "weft_xfer_posts", "", "Batches of pieces posted");
	s->timeouts = counter(eng, m, "weft_xfer_timeouts", "", "Transfers past their deadline");
	s->messages = counter(eng, m, "weft_xfer_messages", "", "Messages of small pieces");
	s->gathered = counter(eng, m, "weft_xfer_gathered", "", "Pieces that went in messages");
	s->summed =
		counter(eng, m, "weft_xfer_summed", "", "Batches whose checksums the device made");
	s->fences = counter(eng, m, "weft_xfer_fences", "", "Endpoints reset to end a transfer");
	s->late = counter(eng, m, "weft_xfer_late", "", "Transfers that no reset has ended");
	s->time = m ? wfi_metrics_hist(m, "weft_xfer_time", "", "seconds",
				       "From the submission of a transfer to its completion")
		    : NULL;
	if (!s->time)
		s->time = &eng->no_hist;
}

int wfi_xfer_queue_add(struct wfi_xfer_engine *eng, struct weft_cq *cq)
{
	uint32_t idx;

	return wfi_xfer_cq_get(eng, cq, &idx);
}

void wfi_xfer_queue_del(struct wfi_xfer_engine *eng, struct weft_cq *cq)
{
	uint32_t i;

	for (i = 0; i < eng->nr_cqs; i++)
		if (eng->cqs[i].cq == cq && eng->cqs[i].nr_xfers)
			break;
	wfi_xfer_cq_put(eng, i);
}

int wfi_xfer_engine_create(const struct wfi_xfer_engine_opts *opts, struct wfi_xfer_engine **out)
{
	struct wfi_xfer_engine *eng;
	uint32_t i;

	if (!opts->env || opts->max_xfers > (1u << 20))
		return -EINVAL;
	eng = wfi_alloc(opts->env, sizeof(*eng));
	if (!eng)
		return -ENOMEM;
	eng->env = opts->env;
	eng->copy = wfi_copy_best(opts->env);
	eng->max_xfers = opts->max_xfers ? opts->max_xfers : 1024;
	eng->nr_ops = eng->max_xfers * OPS_PER_XFER;
	eng->slice_bytes = opts->slice_bytes ? opts->slice_bytes : SLICE_BYTES;
	eng->grace_ns = opts->grace_ns ? opts->grace_ns : 50 * WFI_NSEC_PER_MSEC;
	eng->next_ns = UINT64_MAX;
	eng->xfers = wfi_alloc(opts->env, eng->max_xfers * sizeof(*eng->xfers));
	if (!eng->xfers)
		goto err_eng;
	eng->ops = wfi_alloc(opts->env, eng->nr_ops * sizeof(*eng->ops));
	if (!eng->ops)
		goto err_xfers;
	wfi_list_init(&eng->all);
	wfi_list_init(&eng->run);
	wfi_list_init(&eng->ended);
	wfi_list_init(&eng->free);
	wfi_list_init(&eng->owing);
	for (i = 0; i < eng->max_xfers; i++) {
		wfi_list_init(&eng->xfers[i].all);
		wfi_list_add_tail(&eng->free, &eng->xfers[i].run);
	}
	for (i = 0; i < eng->nr_ops; i++)
		op_put(eng, &eng->ops[i]);
	stats_init(eng, opts->metrics);
	for (i = 0; i < WFI_ARRAY_SIZE(opts->send_cqs); i++)
		if (opts->send_cqs[i]) /* the first ones: there is room */
			wfi_xfer_queue_add(eng, opts->send_cqs[i]);
	*out = eng;
	return 0;

err_xfers:
	wfi_free(opts->env, eng->xfers, eng->max_xfers * sizeof(*eng->xfers));
err_eng:
	wfi_free(opts->env, eng, sizeof(*eng));
	return -ENOMEM;
}

void wfi_xfer_engine_destroy(struct wfi_xfer_engine *eng)
{
	struct wfi_env *env;

	if (!eng)
		return;
	env = eng->env;
	wfi_free(env, eng->ops, eng->nr_ops * sizeof(*eng->ops));
	wfi_free(env, eng->xfers, eng->max_xfers * sizeof(*eng->xfers));
	wfi_free(env, eng, sizeof(*eng));
}

/* small ones that the CPU copies are over before anybody could poll */
static void xfer_start(struct wfi_xfer_engine *eng, struct wfi_xfer *x, uint64_t bytes,
		       struct wfi_xfer **out)
{
	uint32_t serial = x->serial;

	if (!xfer_by_cpu(x) || bytes > AT_ONCE_BYTES || eng->busy) {
		wfi_list_add_tail(&eng->run, &x->run);
		*out = x;
		return;
	}
	eng->busy = true;
	xfer_turn(eng, x, bytes ? bytes : 1, x->start_ns);
	eng->busy = false;
	*out = x->serial == serial ? x : NULL;
}

/* who goes where, for transfers over a link: small runs in messages, all others posted */
static void lanes_sort(struct wfi_xfer *x)
{
	const struct weft_mr *mr = x->o.local_mr;

	x->posts.todo.limit = x->o.gather->threshold;
	/* memory that may not be written: the provider says so */
	if (x->o.dir == WFI_XFER_READ && mr && !(mr->access & WEFT_ACCESS_LOCAL_WRITE))
		x->posts.todo.limit = 0;
	if (!x->posts.todo.limit)
		return;
	x->msgs.todo = x->posts.todo;
	x->msgs.todo.small = true;
	wfi_plan_settle(&x->o, &x->posts.todo);
	wfi_plan_settle(&x->o, &x->msgs.todo);
}

/* whether the device makes them, and brings them with its completions */
static bool can_sum_there(const struct wfi_xfer_opts *o)
{
	return o->sums && o->sum_ops->past && o->ep->dev->caps.flags & WEFT_CAP_SUMS;
}

static void sums_start(struct wfi_xfer *x)
{
	memset(x->o.sums, 0, x->o.nr_blocks * sizeof(*x->o.sums));
	if (x->o.dir == WFI_XFER_SUM)
		x->posts.todo.at = x->posts.todo.end;
	x->sums_come = !x->direct && x->o.dir != WFI_XFER_SUM && can_sum_there(&x->o);
	if (!x->direct && !x->sums_come)
		wfi_xfer_sum_later(x);
	x->landed = x->posts.todo.at;
	x->sums_along = !x->direct && !x->sums_come && x->o.dir == WFI_XFER_READ &&
			!x->posts.todo.limit && x->o.ep->dev->caps.flags & WEFT_CAP_PARTS;
}

int wfi_xfer_submit(struct wfi_xfer_engine *eng, const struct wfi_xfer_opts *opts,
		    struct wfi_xfer **out)
{
	struct wfi_xfer *x;
	uint64_t bytes;
	uint32_t cq_idx;
	bool direct;
	int ret;

	if (wfi_unlikely(opts->ep->send_cq == opts->ep->recv_cq || !opts->sums != !opts->sum_ops ||
			 (opts->dir == WFI_XFER_SUM && !opts->sums)))
		return -EINVAL;
	if (wfi_unlikely((opts->dir == WFI_XFER_SUM_THERE || opts->device_sums) &&
			 !can_sum_there(opts)))
		return -EOPNOTSUPP;
	ret = wfi_plan_check(opts, &bytes, &direct);
	if (wfi_unlikely(ret))
		return ret;
	if (wfi_unlikely(wfi_list_empty(&eng->free)))
		return -EAGAIN;
	ret = wfi_xfer_cq_get(eng, opts->ep->send_cq, &cq_idx);
	if (wfi_unlikely(ret))
		return ret;
	x = wfi_container_of(eng->free.next, struct wfi_xfer, run);
	wfi_list_del(&x->run);
	x->o = *opts;
	x->posts = (struct wfi_xfer_lane){ .todo = { .end = { .idx = opts->nr_pieces } } };
	x->msgs = (struct wfi_xfer_lane){ 0 };
	x->unsummed = (struct wfi_plan_range){ 0 };
	x->bytes = bytes;
	x->direct = direct && opts->dir < WFI_XFER_SUM;
	if (wfi_unlikely(!direct && opts->gather && opts->names))
		lanes_sort(x);
	x->start_ns = wfi_now(eng->env);
	x->nr_open = 0;
	x->cq_idx = cq_idx;
	x->first_err = 0;
	x->end_status = 0;
	x->sync = opts->ep->dev->caps.flags & WEFT_CAP_SYNC;
	x->fenced = false;
	x->late = false;
	x->sums_come = false;
	x->sums_along = false;
	memset(opts->results, 0, opts->nr_blocks * sizeof(*opts->results));
	if (wfi_unlikely(opts->sums))
		sums_start(x);
	wfi_list_add_tail(&eng->all, &x->all);
	eng->next_ns = wfi_min(eng->next_ns, opts->deadline_ns);
	xfer_start(eng, x, bytes, out);
	return 0;
}

void wfi_xfer_cancel(struct wfi_xfer_engine *eng, struct wfi_xfer *x)
{
	xfer_end(eng, x, -ECANCELED, wfi_now(eng->env));
}

int wfi_xfer_poll(struct wfi_xfer_engine *eng, uint64_t now_ns)
{
	struct wfi_link *l;
	int work = 0;
	uint32_t i;

	eng->busy = true;
	for (i = 0; i < eng->nr_cqs; i++)
		if (eng->cqs[i].nr_xfers)
			work += cq_drain(eng, eng->cqs[i].cq, now_ns);
	if (wfi_unlikely(now_ns >= eng->next_ns))
		work += check_time(eng, now_ns);
	if (wfi_unlikely(!wfi_list_empty(&eng->owing))) {
		work += wfi_gather_pay(eng);
		eng->next_ns = wfi_min(eng->next_ns, now_ns + OWING_NS);
	}
	work += run_all(eng, now_ns);
	while ((l = eng->ended.next) != &eng->ended)
		work += xfer_finish(eng, wfi_container_of(l, struct wfi_xfer, run), now_ns);
	eng->busy = false;
	return work;
}

uint64_t wfi_xfer_next_event_ns(const struct wfi_xfer_engine *eng)
{
	if (!wfi_list_empty(&eng->run) || !wfi_list_empty(&eng->ended))
		return 0;
	return eng->next_ns;
}
