/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transfer waits in .waiting while it has blocks to hand out: those from .next on, and chunks
 * that came back (.again). Each completion of a chunk hands out more; wfi_rails_poll() sees to what
 * no completion would: deadlines, rails that have rested, ends.
 */
#include <errno.h>
#include <string.h>
#include "transport/engine.h"
#include "weft_internal/rail.h"

#define NR_XFERS 256u
#define NR_CHUNKS 64u
#define CHUNK_PIECES 512u
#define CHUNK_MIN (256ull << 10)
#define CHUNK_STEPS 4u /* a rail that has proved itself gets chunks of up to 16 times the least */
#define DEPTH 2u /* chunks of that size under way on one rail */
#define PATIENCE_NS (200 * WFI_NSEC_PER_MSEC)
#define LATE 8u /* times its due */
#define REST_NS (10 * WFI_NSEC_PER_MSEC)
#define REST_STEPS 6u
#define TIMED_NS (20 * WFI_NSEC_PER_USEC)
#define LOOK_NS WFI_NSEC_PER_MSEC /* between looks at who could take more, without a completion */
#define SPEED_UNKNOWN 1000000u /* bytes a millisecond: one that is new is given a try */

struct chunk {
	struct chunk *next; /* free, or of a transfer's .again */
	struct wfi_rails *rails;
	struct wfi_rails_xfer *x;
	struct wfi_xfer *xfer; /* NULL: over, or not begun */
	struct weft_ep *ep; /* NULL: not under way */
	uint32_t rail;
	uint32_t tried; /* rails, a bit each */
	uint32_t nr_pieces, nr_blocks;
	bool late; /* it does not end */
	uint64_t bytes;
	uint32_t blocks[CHUNK_PIECES]; /* their numbers in the transfer */
	int32_t results[CHUNK_PIECES];
	uint32_t sums[CHUNK_PIECES];
	struct wfi_piece pieces[CHUNK_PIECES];
};

struct wfi_rails_xfer {
	struct wfi_link link; /* waiting, ended or free; else of none */
	struct wfi_rails *rails;
	struct wfi_xfer_opts o;
	struct wfi_rail_mem mem[WFI_RAILS_MAX]; /* .rkeys NULL from the start on, or of .gens' */
	uint32_t gens[WFI_RAILS_MAX];
	struct chunk *again;
	uint64_t left; /* bytes of the pieces from .next on */
	uint32_t next;
	uint32_t nr_open;
	int first_err;
	int end_status;
};

struct rail {
	struct weft_ep *ep; /* NULL: there is none */
	uint32_t gen; /* which of those that had this number */
	struct wfi_gather *gather;
	uint64_t free_ns; /* from then on what arrives is timed */
	uint64_t timed_bytes;
	uint64_t rest_ns; /* given nothing until then */
	uint32_t nr_open;
	uint32_t step; /* of its chunks' size: least << step */
	uint32_t nr_rests;
	struct wfi_rail_stat stat;
};

struct wfi_rails {
	struct wfi_rails_opts o;
	struct wfi_link waiting, ended, free;
	struct chunk *free_chunk;
	struct rail rails[WFI_RAILS_MAX];
	uint64_t now_ns, look_ns;
	uint32_t nr_late; /* chunks */
	bool busy; /* handing out: what ends meanwhile is seen to by who does */
	struct wfi_rails_xfer xfers[NR_XFERS];
	struct chunk chunks[NR_CHUNKS];
};

static void hand_out(struct wfi_rails *rails);

/* ---- the end of a transfer ---- */

static bool has_work(const struct wfi_rails_xfer *x)
{
	return x->again || x->next < x->o.nr_pieces;
}

static void block_fail(struct wfi_rails_xfer *x, uint32_t block, int status)
{
	if (!x->o.results[block])
		x->o.results[block] = status;
	if (!x->first_err)
		x->first_err = status;
}

static void chunk_put(struct wfi_rails *rails, struct chunk *c)
{
	c->next = rails->free_chunk;
	rails->free_chunk = c;
}

static void chunk_fail(struct chunk *c, int status)
{
	uint32_t i;

	for (i = 0; i < c->nr_blocks; i++)
		block_fail(c->x, c->blocks[i], status);
	chunk_put(c->rails, c);
}

/* nothing more is handed out; what was goes on to its end */
static void rest_fail(struct wfi_rails_xfer *x, int status)
{
	struct chunk *c;

	while ((c = x->again)) {
		x->again = c->next;
		chunk_fail(c, status);
	}
	for (; x->next < x->o.nr_pieces; x->next++)
		block_fail(x, x->o.pieces[x->next].block, status);
}

static void xfer_end(struct wfi_rails_xfer *x, int status)
{
	struct wfi_rails *rails = x->rails;
	uint32_t i;

	if (x->end_status)
		return;
	x->end_status = status;
	rest_fail(x, status);
	for (i = 0; i < NR_CHUNKS; i++)
		if (rails->chunks[i].x == x && rails->chunks[i].xfer)
			wfi_xfer_cancel(rails->o.xfer, rails->chunks[i].xfer);
	wfi_list_del(&x->link);
	if (!x->nr_open)
		wfi_list_add_tail(&rails->ended, &x->link);
}

/* nothing is left of it, or it waits for more */
static void xfer_settle(struct wfi_rails_xfer *x)
{
	struct wfi_rails *rails = x->rails;

	wfi_list_del(&x->link);
	if (has_work(x))
		wfi_list_add_tail(&rails->waiting, &x->link);
	else if (!x->nr_open)
		wfi_list_add_tail(&rails->ended, &x->link);
}

static int ended_tell(struct wfi_rails *rails)
{
	struct wfi_link *l;
	int work = 0;

	for (; (l = rails->ended.next) != &rails->ended; work++) {
		struct wfi_rails_xfer *x = wfi_container_of(l, struct wfi_rails_xfer, link);
		void (*done)(void *ctx, int res) = x->o.done;
		void *ctx = x->o.ctx;
		int res = x->first_err;

		wfi_list_del(&x->link);
		wfi_list_add_tail(&rails->free, &x->link);
		done(ctx, res);
	}
	return work;
}

/* ---- what a rail has shown ---- */

static uint64_t speed_of(const struct rail *r)
{
	return r->stat.speed ? r->stat.speed : SPEED_UNKNOWN;
}

/* until @bytes more would have arrived: one that has been silent is silent as long again */
static uint64_t due_ns(const struct rail *r, uint64_t bytes, uint64_t now_ns)
{
	const uint64_t due = (r->stat.open_bytes + bytes) * WFI_NSEC_PER_MSEC / speed_of(r);

	return r->nr_open ? wfi_max(due, now_ns - wfi_min(now_ns, r->free_ns)) : due;
}

static void rail_good(struct rail *r, uint64_t bytes, uint64_t now_ns)
{
	const uint64_t took_ns = now_ns - r->free_ns;
	uint64_t speed;

	r->stat.bytes += bytes;
	r->nr_rests = 0;
	r->step = wfi_min(r->step + 1, CHUNK_STEPS);
	/* some end at one time, and only together they have taken it */
	r->timed_bytes += bytes;
	if (took_ns < TIMED_NS)
		return;
	speed = wfi_max(r->timed_bytes * WFI_NSEC_PER_MSEC / took_ns, 1);
	r->stat.speed = r->stat.speed ? (3 * r->stat.speed + speed) / 4 : speed;
	r->timed_bytes = 0;
	r->free_ns = now_ns;
}

static void rail_bad(struct rail *r, uint64_t now_ns)
{
	r->stat.failures++;
	r->rest_ns = now_ns + (REST_NS << r->nr_rests);
	r->nr_rests = wfi_min(r->nr_rests + 1, REST_STEPS);
	r->step = 0;
}

/* it was there when the transfer began: its memory is known */
static bool rail_there(const struct wfi_rails *rails, unsigned i, const struct wfi_rails_xfer *x,
		       uint32_t tried)
{
	const struct rail *r = &rails->rails[i];

	return r->ep && x->mem[i].rkeys && r->gen == x->gens[i] && !(tried >> i & 1);
}

static bool rail_can(const struct wfi_rails *rails, unsigned i, const struct wfi_rails_xfer *x,
		     uint32_t tried)
{
	return rail_there(rails, i, x, tried) && rails->now_ns >= rails->rails[i].rest_ns;
}

/* one chunk at a time until the first has arrived */
static bool rail_full(const struct wfi_rails *rails, const struct rail *r)
{
	const uint64_t most = r->step ? (rails->o.chunk_bytes << r->step) * DEPTH : 1;

	return r->stat.open_bytes >= most;
}

/* who would be done first with @bytes more. Return: WFI_RAILS_MAX: nobody now */
static unsigned rail_pick(const struct wfi_rails *rails, const struct wfi_rails_xfer *x,
			  uint32_t tried, uint64_t bytes)
{
	uint64_t least_ns = UINT64_MAX;
	unsigned i, best = WFI_RAILS_MAX;

	for (i = 0; i < WFI_RAILS_MAX; i++) {
		const uint64_t ns =
			rails->rails[i].ep ? due_ns(&rails->rails[i], bytes, rails->now_ns) : 0;

		if (!rail_can(rails, i, x, tried) || ns >= least_ns)
			continue;
		/* one that is on trial has no speed to go by: it is only not waited for */
		if (!rails->rails[i].step && rail_full(rails, &rails->rails[i]))
			continue;
		least_ns = ns;
		best = i;
	}
	if (best < WFI_RAILS_MAX && rail_full(rails, &rails->rails[best]))
		return WFI_RAILS_MAX;
	return best;
}

/* ---- chunks ---- */

/* errors of what was asked, which come the same over any rail */
static bool is_final(int status)
{
	return status == -EINVAL || status == -EACCES || status == -EPERM || status == -ERANGE ||
	       status == -EFAULT || status == -E2BIG;
}

/* what arrived is told; what failed for good, too. Return: blocks that are left in the chunk */
static uint32_t chunk_sift(struct chunk *c, bool retry)
{
	struct wfi_rails_xfer *x = c->x;
	uint32_t i, p, at = 0, nr = 0;

	for (i = 0, p = 0; i < c->nr_blocks; i++) {
		const int status = c->results[i];
		const bool keep = status && retry && !is_final(status);

		if (status && !keep)
			block_fail(x, c->blocks[i], status);
		if (!status && x->o.sums)
			x->o.sums[c->blocks[i]] = c->sums[i];
		for (; p < c->nr_pieces && c->pieces[p].block == i; p++) {
			if (!keep)
				continue;
			c->pieces[at] = c->pieces[p];
			c->pieces[at++].block = nr;
		}
		if (keep)
			c->blocks[nr++] = c->blocks[i];
	}
	c->nr_pieces = at;
	c->nr_blocks = nr;
	return nr;
}

static void chunk_done(void *ctx, int res)
{
	struct chunk *c = ctx;
	struct wfi_rails_xfer *x = c->x;
	struct wfi_rails *rails = c->rails;
	struct rail *r = &rails->rails[c->rail];
	const uint64_t now_ns = wfi_now(rails->o.env);
	const bool same = r->ep == c->ep && r->gen == x->gens[c->rail];

	rails->now_ns = now_ns;
	rails->nr_late -= c->late;
	c->late = false;
	c->xfer = NULL;
	c->ep = NULL;
	x->nr_open--;
	if (same) {
		r->stat.open_bytes -= c->bytes;
		r->nr_open--;
		if (!res)
			rail_good(r, c->bytes, now_ns);
		else if (!is_final(res) && !x->end_status && now_ns < x->o.deadline_ns)
			rail_bad(r, now_ns);
	}
	c->tried |= 1u << c->rail;
	if (chunk_sift(c, !x->end_status && now_ns < x->o.deadline_ns)) {
		c->next = x->again;
		x->again = c;
	} else {
		chunk_put(rails, c);
	}
	xfer_settle(x);
	hand_out(rails);
}

/* one that is past its own time may still be another rail's to bring, when it is fenced: so it is
 * told when the whole transfer's time is up, or it is cancelled */
static void late_tell(const struct chunk *c, uint64_t now_ns)
{
	struct wfi_rails_xfer *x = c->x;
	void (*late)(void *ctx, int res) = x->o.late;

	if (!late || (!x->end_status && now_ns < x->o.deadline_ns))
		return;
	x->o.late = NULL;
	late(x->o.ctx, x->end_status ? x->end_status : -ETIMEDOUT);
}

static void chunk_late(void *ctx, int res)
{
	struct chunk *c = ctx;

	(void)res;
	c->late = true;
	c->rails->nr_late++;
	late_tell(c, wfi_now(c->rails->o.env));
}

/* blocks from .next on, up to @bytes, one at least. Return: NULL: no chunk is free */
static struct chunk *chunk_take(struct wfi_rails_xfer *x, uint64_t bytes)
{
	struct wfi_rails *rails = x->rails;
	struct chunk *c = rails->free_chunk;
	uint32_t end, i;

	if (!c)
		return NULL;
	rails->free_chunk = c->next;
	c->x = x;
	c->tried = 0;
	c->nr_pieces = 0;
	c->nr_blocks = 0;
	c->bytes = 0;
	while (x->next < x->o.nr_pieces && (!c->nr_blocks || c->bytes < bytes)) {
		const struct wfi_piece *p = &x->o.pieces[x->next];

		for (end = x->next; end < x->o.nr_pieces && x->o.pieces[end].block == p->block;
		     end++)
			;
		if (c->nr_pieces + (end - x->next) > CHUNK_PIECES)
			break;
		c->blocks[c->nr_blocks] = p->block;
		for (i = x->next; i < end; i++) {
			c->pieces[c->nr_pieces] = x->o.pieces[i];
			c->pieces[c->nr_pieces++].block = c->nr_blocks;
			c->bytes += x->o.pieces[i].len;
		}
		c->nr_blocks++;
		x->next = end;
	}
	x->left -= c->bytes;
	return c;
}

static void chunk_start(struct chunk *c, unsigned rail)
{
	struct wfi_rails *rails = c->rails;
	struct rail *r = &rails->rails[rail];
	const struct wfi_rails_xfer *x = c->x;
	const uint64_t limit_ns =
		rails->now_ns + rails->o.patience_ns + LATE * due_ns(r, c->bytes, rails->now_ns);
	struct wfi_xfer_opts o = x->o;
	struct wfi_xfer *xfer = NULL;
	int ret;

	o.ep = r->ep;
	o.gather = r->gather;
	o.local_mr = x->mem[rail].local_mr;
	o.rkeys = x->mem[rail].rkeys;
	o.names = r->gather ? x->mem[rail].names : NULL;
	o.pieces = c->pieces;
	o.nr_pieces = c->nr_pieces;
	o.nr_blocks = c->nr_blocks;
	o.results = c->results;
	o.sums = x->o.sums ? c->sums : NULL;
	o.deadline_ns = wfi_min(x->o.deadline_ns, limit_ns);
	o.done = chunk_done;
	o.late = chunk_late;
	o.ctx = c;
	c->rail = rail;
	c->ep = r->ep;
	if (!r->nr_open++) {
		r->free_ns = rails->now_ns;
		r->timed_bytes = 0;
	}
	r->stat.open_bytes += c->bytes;
	c->x->nr_open++;
	ret = wfi_xfer_submit(rails->o.xfer, &o, &xfer);
	if (ret) {
		for (uint32_t i = 0; i < c->nr_blocks; i++)
			c->results[i] = ret;
		chunk_done(c, ret);
	} else if (xfer) {
		c->xfer = xfer; /* else it is over, and may be another's by now */
	}
}

/* as much as keeps the rails busy, and less towards the end, so that they end together */
static uint64_t chunk_bytes(const struct wfi_rails *rails, const struct wfi_rails_xfer *x,
			    unsigned rail)
{
	const struct rail *r = &rails->rails[rail];
	uint64_t sum = 0, most = rails->o.chunk_bytes << r->step;
	unsigned i;

	for (i = 0; i < WFI_RAILS_MAX; i++)
		if (rail_can(rails, i, x, 0))
			sum += speed_of(&rails->rails[i]);
	/* in KiB: speeds times bytes need not fit */
	return wfi_max(wfi_min(((x->left >> 10) * speed_of(r) / sum / 2) << 10, most),
		       rails->o.chunk_bytes);
}

/* whether some rail that it has not failed on is there, or will be when it has rested */
static bool has_hope(const struct wfi_rails *rails, const struct wfi_rails_xfer *x, uint32_t tried)
{
	unsigned i;

	for (i = 0; i < WFI_RAILS_MAX; i++)
		if (rail_there(rails, i, x, tried))
			return true;
	return false;
}

/* Return: false when nothing of this transfer can be handed out now */
static bool hand_out_one(struct wfi_rails *rails, struct wfi_rails_xfer *x)
{
	struct chunk *c = x->again;
	unsigned rail;

	if (c && !has_hope(rails, x, c->tried)) {
		/* over all of them it failed: the last one's errors stand */
		x->again = c->next;
		for (uint32_t i = 0; i < c->nr_blocks; i++)
			block_fail(x, c->blocks[i], -ECONNRESET);
		chunk_put(rails, c);
		return true;
	}
	if (!c && !has_hope(rails, x, 0)) {
		rest_fail(x, -ENOTCONN);
		return true;
	}
	rail = rail_pick(rails, x, c ? c->tried : 0, c ? c->bytes : rails->o.chunk_bytes);
	if (rail == WFI_RAILS_MAX)
		return false;
	if (c)
		x->again = c->next;
	else
		c = chunk_take(x, chunk_bytes(rails, x, rail));
	if (!c)
		return false;
	chunk_start(c, rail);
	return true;
}

/* in turn, a chunk each */
static void hand_out(struct wfi_rails *rails)
{
	struct wfi_link turn;
	bool any = true;

	if (rails->busy)
		return;
	rails->busy = true;
	while (any) {
		any = false;
		wfi_list_init(&turn);
		wfi_list_append(&turn, &rails->waiting);
		while (!wfi_list_empty(&turn)) {
			struct wfi_rails_xfer *x =
				wfi_container_of(turn.next, struct wfi_rails_xfer, link);

			if (hand_out_one(rails, x))
				any = true;
			xfer_settle(x);
		}
	}
	rails->busy = false;
}

/* ---- rails ---- */

int wfi_rails_create(const struct wfi_rails_opts *opts, struct wfi_rails **out)
{
	struct wfi_rails *rails = wfi_alloc(opts->env, sizeof(*rails));
	unsigned i;

	if (!rails)
		return -ENOMEM;
	rails->o = *opts;
	if (!rails->o.chunk_bytes)
		rails->o.chunk_bytes = CHUNK_MIN;
	if (!rails->o.patience_ns)
		rails->o.patience_ns = PATIENCE_NS;
	wfi_list_init(&rails->waiting);
	wfi_list_init(&rails->ended);
	wfi_list_init(&rails->free);
	for (i = 0; i < NR_XFERS; i++) {
		rails->xfers[i].rails = rails;
		wfi_list_add_tail(&rails->free, &rails->xfers[i].link);
	}
	for (i = 0; i < NR_CHUNKS; i++) {
		rails->chunks[i].rails = rails;
		chunk_put(rails, &rails->chunks[i]);
	}
	*out = rails;
	return 0;
}

void wfi_rails_destroy(struct wfi_rails *rails)
{
	if (rails)
		wfi_free(rails->o.env, rails, sizeof(*rails));
}

int wfi_rails_add(struct wfi_rails *rails, struct weft_ep *ep, struct wfi_gather *gather)
{
	unsigned i;

	for (i = 0; i < WFI_RAILS_MAX && rails->rails[i].ep; i++)
		;
	if (i == WFI_RAILS_MAX)
		return -ENOSPC;
	rails->rails[i] =
		(struct rail){ .ep = ep, .gen = rails->rails[i].gen + 1, .gather = gather };
	return (int)i;
}

void wfi_rails_remove(struct wfi_rails *rails, unsigned rail)
{
	rails->rails[rail] = (struct rail){ .gen = rails->rails[rail].gen };
}

unsigned wfi_rails_open(const struct wfi_rails *rails, const struct weft_ep *ep)
{
	unsigned i, n = 0;

	for (i = 0; i < NR_CHUNKS; i++)
		n += rails->chunks[i].ep == ep;
	return n;
}

unsigned wfi_rails_nr(const struct wfi_rails *rails)
{
	unsigned i, n = 0;

	for (i = 0; i < WFI_RAILS_MAX; i++)
		n += rails->rails[i].ep != NULL;
	return n;
}

bool wfi_rails_idle(const struct wfi_rails *rails)
{
	unsigned i, n = 0;
	const struct wfi_link *l;

	for (l = rails->free.next; l != &rails->free; l = l->next)
		n++;
	for (i = 0; i < WFI_RAILS_MAX; i++)
		if (rails->rails[i].ep)
			return false;
	return n == NR_XFERS;
}

void wfi_rails_stat(const struct wfi_rails *rails, unsigned rail, struct wfi_rail_stat *out)
{
	*out = rails->rails[rail].stat;
}

/* ---- transfers ---- */

/* a chunk must have room for any block */
static bool blocks_fit(const struct wfi_xfer_opts *o, uint64_t *bytes)
{
	uint32_t i, run = 0;

	*bytes = 0;
	for (i = 0; i < o->nr_pieces; i++) {
		run = i && o->pieces[i].block == o->pieces[i - 1].block ? run + 1 : 1;
		if (run > CHUNK_PIECES)
			return false;
		*bytes += o->pieces[i].len;
	}
	return true;
}

int wfi_rails_submit(struct wfi_rails *rails, const struct wfi_xfer_opts *o,
		     const struct wfi_rail_mem mem[WFI_RAILS_MAX], struct wfi_rails_xfer **out)
{
	struct wfi_rails_xfer *x;
	uint64_t bytes;
	unsigned i;

	if (!blocks_fit(o, &bytes))
		return -E2BIG;
	if (wfi_list_empty(&rails->free))
		return -EAGAIN;
	x = wfi_container_of(rails->free.next, struct wfi_rails_xfer, link);
	x->o = *o;
	memcpy(x->mem, mem, sizeof(x->mem));
	for (i = 0; i < WFI_RAILS_MAX; i++)
		x->gens[i] = rails->rails[i].gen;
	if (!has_hope(rails, x, 0))
		return -ENOTCONN;
	wfi_list_del(&x->link);
	x->again = NULL;
	x->next = 0;
	x->left = bytes;
	x->nr_open = 0;
	x->first_err = 0;
	x->end_status = 0;
	memset(o->results, 0, o->nr_blocks * sizeof(*o->results));
	if (o->sums)
		memset(o->sums, 0, o->nr_blocks * sizeof(*o->sums));
	rails->now_ns = wfi_now(rails->o.env);
	xfer_settle(x);
	hand_out(rails);
	*out = x;
	return 0;
}

void wfi_rails_cancel(struct wfi_rails_xfer *x)
{
	xfer_end(x, -ECANCELED);
}

int wfi_rails_poll(struct wfi_rails *rails, uint64_t now_ns)
{
	struct wfi_link *l, *next;
	unsigned i;

	rails->now_ns = now_ns;
	for (l = rails->waiting.next; l != &rails->waiting; l = next) {
		struct wfi_rails_xfer *x = wfi_container_of(l, struct wfi_rails_xfer, link);

		next = l->next;
		/* chunks that are under way have the same deadline */
		if (now_ns >= x->o.deadline_ns) {
			rest_fail(x, -ETIMEDOUT);
			xfer_settle(x);
		}
	}
	for (i = 0; i < NR_CHUNKS && rails->nr_late; i++)
		if (rails->chunks[i].late)
			late_tell(&rails->chunks[i], now_ns);
	if (!wfi_list_empty(&rails->waiting) && now_ns >= rails->look_ns) {
		rails->look_ns = now_ns + LOOK_NS;
		hand_out(rails);
	}
	return ended_tell(rails);
}

uint64_t wfi_rails_next_event_ns(const struct wfi_rails *rails)
{
	uint64_t at_ns = wfi_list_empty(&rails->waiting) ? UINT64_MAX : rails->look_ns;
	unsigned i;

	if (!wfi_list_empty(&rails->ended))
		return 0;
	for (i = 0; i < NR_CHUNKS && rails->nr_late; i++)
		if (rails->chunks[i].late && rails->chunks[i].x->o.late)
			at_ns = wfi_min(at_ns, rails->chunks[i].x->o.deadline_ns);
	return at_ns;
}
