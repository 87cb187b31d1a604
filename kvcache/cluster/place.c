/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.c - pushes inside the node out of, and into, memory of engines' own
 *
 * A push becomes a job of one part or several, which are copied for themselves: straight from
 * memory to memory where one device reaches both, else out of places into slots, or out of slots
 * into places. What has places on both sides and no way between them stops in slots that are
 * claimed for that, some at a time, so that one part goes while the next one comes. Layouts are
 * changed here where both sides are on one GPU, whose kernel moves the runs; all others go as those
 * of other nodes do. An engine's
 * event is waited for here, with nothing posted yet: who is cancelled then costs nobody his
 * endpoint.
 */
#include <errno.h>
#include <string.h>

#include "place.h"
#include "shape.h"
#include "weft_internal/crc32c_poly.h"
#include "weft_internal/log.h"

#define PARTS 2u
#define LOOK_NS (50 * WFI_NSEC_PER_USEC) /* between looks at events */

enum way {
	WAY_STRAIGHT, /* from places to places, in one copy */
	WAY_STAGED, /* the same in two */
	WAY_IN, /* from places to the handoff's slots */
	WAY_OUT, /* from slots to places */
};

struct part {
	struct place_job *job;
	struct wfi_xfer *xfer;
	uint32_t first, nr; /* blocks of the push */
	bool busy;
	bool leaving; /* its last copy */
	uint32_t nr_staged;
	struct weft_slot staged[MSG_PIECES_MAX];
	struct shape_list list; /* of a job with a source */
};

/* one push */
struct place_job {
	struct wfi_handoffs *hs;
	struct handoff *h; /* stays until its copies are over */
	struct place_job *next;
	struct wfi_push_opts o; /* .slots is not used; .places is .from */
	struct wfi_handoff_places from;
	enum way way;
	struct source *source; /* of the layout that it has; NULL: none */
	bool whole; /* with that: all of the handoff's layers are there */
	int res;
	bool waits; /* for the engine's event */
	bool pumping;
	bool late; /* and told so */
	uint32_t looked;
	uint32_t begun, ended; /* blocks */
	uint64_t piece_bytes; /* of each block */
	struct wfi_owner stage; /* claims of WAY_STAGED */
	struct part parts[PARTS];
	void *mem;
	size_t mem_len;
	/* of each block of the push */
	struct wfi_piece *pieces;
	uint32_t *idx; /* of WAY_OUT: its slots, which are pinned */
	int32_t *results;
	uint32_t *sums;
	uint32_t *crc; /* of what came, where it is to be held against what arrives */
};

static void part_done(void *ctx, int res);
static void part_late(void *ctx, int res);

static bool has_sums(const struct place_job *j)
{
	return j->way == WAY_IN || (j->h->opts.verify && j->way != WAY_STRAIGHT);
}

/* ---- the end ---- */

static void job_free(struct place_job *j)
{
	struct wfi_handoffs *hs = j->hs;
	struct place_job **link;
	uint32_t i;

	for (link = &hs->copies; *link != j; link = &(*link)->next)
		;
	*link = j->next;
	hs->nr_copies--;
	hs->nr_waiting -= j->waits;
	for (i = 0; i < PARTS; i++)
		wfi_shape_list_fini(hs->opts.env, &j->parts[i].list);
	if (j->way == WAY_OUT)
		wfi_kv_unpin(hs->opts.kv, j->idx, j->o.nr);
	if (j->way == WAY_STAGED)
		wfi_owner_fini(hs->opts.kv, &j->stage, false);
	wfi_free(hs->opts.env, j->mem, j->mem_len);
	wfi_free(hs->opts.env, j, sizeof(*j));
}

/* the sums of what came into slots, moved past what is behind it */
static void job_sums(const struct place_job *j)
{
	const struct handoff *h = j->h;
	const uint64_t layer_bytes = h->space.block_bytes / h->opts.nr_layers;
	const uint32_t behind = h->opts.nr_layers - j->o.layer - j->o.nr_layers;
	const uint32_t past = wfi_crc32c_power(behind * layer_bytes);
	uint32_t i;

	for (i = 0; i < j->o.nr; i++)
		h->crc[j->o.first_block + i] ^= wfi_crc32c_mul(j->sums[i], past);
}

static void job_end(struct place_job *j)
{
	struct wfi_handoffs *hs = j->hs;
	const struct wfi_push_opts o = j->o;
	struct handoff *h = j->h;
	const uint64_t bytes = j->piece_bytes * o.nr;
	const bool shaped = j->source, whole = j->whole;
	int res = j->res;

	if (!res && h->state != HANDOFF_OPEN)
		res = -ECANCELED;
	if (!res && j->way == WAY_IN)
		job_sums(j);
	job_free(j);
	h->nr_reads--;
	o.done(o.ctx, res ? handoff_end_res(res) : (int)o.nr);
	if (res) {
		wfi_handoff_read_failed(hs, h, res);
		return;
	}
	wfi_count(hs->bytes_copied, bytes);
	if (whole)
		wfi_handoff_whole(hs, h, wfi_now(hs->opts.env));
	if (shaped)
		return;
	wfi_handoff_landed(hs, h, o.layer, o.nr_layers, o.first_block, o.nr, wfi_now(hs->opts.env));
}

/* ---- parts ---- */

/* slots for its pieces to stop in, as many in one as fit. Return: 0, -errno */
static int part_stage(struct part *p)
{
	struct place_job *j = p->job;
	const uint32_t per_slot = (uint32_t)(j->h->space.block_bytes / j->piece_bytes);
	const uint32_t nr = (p->nr + per_slot - 1) / per_slot;
	int ret = wfi_kv_claim(j->hs->opts.kv, &j->stage, j->o.space, nr, p->staged,
			       wfi_now(j->hs->opts.env));

	if (ret < 0)
		return ret;
	p->nr_staged = nr;
	return 0;
}

static void part_unstage(struct part *p)
{
	if (p->nr_staged)
		wfi_kv_unclaim(p->job->hs->opts.kv, &p->job->stage, p->staged, p->nr_staged);
	p->nr_staged = 0;
}

/* where a block's layers lie in this process, or as the local side of a device's */
static void *local_of(const struct part *p, uint32_t i)
{
	const struct place_job *j = p->job;
	const struct handoff *h = j->h;
	const uint64_t off = j->piece_bytes / j->o.nr_layers * j->o.layer;
	const uint32_t b = j->o.first_block + i;
	const uint32_t per_slot = (uint32_t)(h->space.block_bytes / j->piece_bytes);
	const struct wfi_piece *to;
	uint32_t slot, k;

	switch (j->way) {
	case WAY_STRAIGHT:
		to = &h->places.blocks[b];
		return (char *)h->places.mrs[to->rkey]->addr + to->remote + off;
	case WAY_STAGED:
		k = i - p->first;
		slot = p->staged[k / per_slot].idx;
		return (char *)wfi_kv_slot_addr(j->hs->opts.kv, slot) +
		       k % per_slot * j->piece_bytes;
	case WAY_IN:
		return (char *)wfi_kv_slot_addr(j->hs->opts.kv, h->slots[b]) + off;
	default:
		return (char *)wfi_kv_slot_addr(j->hs->opts.kv, j->idx[i]) + off;
	}
}

/* where a block's layers lie in the pusher's memory; of a copy that leaves, in the receiver's */
static const struct wfi_piece *remote_of(const struct part *p, uint32_t i, uint64_t *off)
{
	const struct place_job *j = p->job;
	const uint64_t layers = j->piece_bytes / j->o.nr_layers * j->o.layer;

	if (p->leaving) {
		*off = layers;
		return &j->h->places.blocks[j->o.first_block + i];
	}
	*off = j->from.blocks[i].len == j->h->space.block_bytes ? layers : 0;
	return &j->from.blocks[i];
}

/* as many blocks of it as a list has room for. Return: 0, -errno */
static int part_shape(struct part *p)
{
	struct place_job *j = p->job;
	struct shape_plan plan = {
		.hs = j->hs,
		.h = j->h,
		.source = j->source,
		.layer = j->o.layer,
		.nr_layers = j->o.nr_layers,
		.first = j->o.first_block + p->first,
		.nr = p->nr,
		.blocks = j->from.blocks + p->first,
		.straight = true,
		.list = &p->list,
	};
	int ret;

	while ((ret = wfi_shape_plan(&plan)) == -E2BIG && plan.nr > 1)
		plan.nr /= 2;
	j->begun -= p->nr - plan.nr;
	p->nr = plan.nr;
	return ret;
}

static void part_pieces(const struct part *p)
{
	struct place_job *j = p->job;
	const bool sum = j->way == WAY_OUT && !p->leaving;
	const struct wfi_piece *remote;
	uint64_t off;
	uint32_t i;

	for (i = p->first; i < p->first + p->nr; i++) {
		j->pieces[i] = (struct wfi_piece){
			.local = local_of(p, i),
			.block = i - p->first,
			.len = j->piece_bytes,
		};
		if (sum)
			continue;
		remote = remote_of(p, i, &off);
		j->pieces[i].rkey = remote->rkey;
		j->pieces[i].remote = remote->remote + off;
	}
}

/* one of the places that it goes straight to: they are in one region */
static const struct wfi_piece *target_of(const struct part *p)
{
	const struct place_job *j = p->job;

	return &j->h->places.blocks[j->source ? 0 : j->o.first_block + p->first];
}

/* its next copy, or a look at what is to be copied. Return: 0, -errno */
static int part_go(struct part *p)
{
	struct place_job *j = p->job;
	struct handoff *h = j->h;
	const bool sum = j->way == WAY_OUT && !p->leaving;
	const struct wfi_handoff_places *at = j->way == WAY_OUT || p->leaving ? &h->places
									      : &j->from;
	const bool sums = has_sums(j), straight = j->way == WAY_STRAIGHT;
	struct wfi_xfer_opts x = {
		.ep = at->ep,
		.local_mr = at->arena,
		.rkeys = at->rkeys,
		.nr_rkeys = at->nr_rkeys,
		.pieces = j->pieces + p->first,
		.nr_pieces = p->nr,
		.nr_blocks = p->nr,
		.results = j->results + p->first,
		.sum_ops = sums ? &wfi_crc32c_sums : NULL,
		.sums = sums ? j->sums + p->first : NULL,
		.check = straight && h->opts.verify,
		.batch_bytes = j->piece_bytes * j->o.nr,
		.deadline_ns = wfi_min(h->opts.deadline_ns, j->o.deadline_ns),
		.done = part_done,
		.late = part_late,
		.ctx = p,
	};
	struct wfi_xfer *xfer;
	int ret = 0;

	x.dir = p->leaving ? WFI_XFER_WRITE : WFI_XFER_READ;
	if (sum)
		x.dir = WFI_XFER_SUM;
	if (straight)
		x.local_mr = h->places.mrs[target_of(p)->rkey];
	if (j->source) {
		ret = part_shape(p);
		x.pieces = p->list.pieces;
		x.nr_pieces = p->list.nr;
		x.nr_blocks = p->nr;
	} else {
		part_pieces(p);
	}
	if (!ret)
		ret = wfi_xfer_submit(j->hs->opts.xfer, &x, &xfer);
	if (!ret && xfer)
		p->xfer = xfer;
	return ret;
}

/* the next blocks that can go together */
static uint32_t part_size(const struct place_job *j)
{
	const struct wfi_piece *to =
		j->h->places.blocks + (j->source ? 0 : j->o.first_block + j->begun);
	const uint32_t left = j->o.nr - j->begun;
	const uint64_t some = wfi_max(1, MSG_BYTES_MAX / j->piece_bytes);
	uint32_t nr = 1;

	if (j->way == WAY_STAGED)
		return (uint32_t)wfi_min(wfi_min(left, some), MSG_PIECES_MAX);
	if (j->way != WAY_STRAIGHT || j->source)
		return left;
	while (nr < left && to[nr].rkey == to->rkey)
		nr++;
	return nr;
}

static void part_begin(struct part *p)
{
	struct place_job *j = p->job;
	int ret = 0;

	p->first = j->begun;
	p->nr = part_size(j);
	p->busy = true;
	p->leaving = j->way == WAY_OUT && !j->h->opts.verify;
	j->begun += p->nr;
	if (j->way == WAY_STAGED)
		ret = part_stage(p);
	if (!ret)
		ret = part_go(p);
	if (ret)
		part_done(p, ret);
}

/* ---- jobs ---- */

/* Return: false: it waits */
static bool job_ready(struct place_job *j)
{
	int ret;

	if (!j->waits)
		return true;
	ret = j->o.ready(j->o.ctx);
	if (ret == -EAGAIN)
		return false;
	j->waits = false;
	j->hs->nr_waiting--;
	if (ret)
		j->res = ret;
	return true;
}

/* parts begin while there is room; a job that has nothing more to do ends */
static void job_pump(struct place_job *j)
{
	uint32_t i, nr_busy = 0;

	/* a part may be over before its begin returns */
	if (j->pumping)
		return;
	j->pumping = true;
	if (!j->res && !job_ready(j)) {
		j->pumping = false;
		return;
	}
	for (i = 0; i < PARTS; i++) {
		while (!j->res && !j->parts[i].busy && j->begun < j->o.nr)
			part_begin(&j->parts[i]);
		nr_busy += j->parts[i].busy;
	}
	j->pumping = false;
	if (!nr_busy)
		job_end(j);
}

static int part_check(const struct part *p)
{
	const struct place_job *j = p->job;
	uint32_t i;

	for (i = p->first; i < p->first + p->nr; i++) {
		if (j->sums[i] == j->crc[i])
			continue;
		wfi_count(j->hs->pieces_bad, 1);
		wfi_warn("handoff: block %u layer %u fails its checksum in the memory of its "
			 "receiver",
			 j->o.first_block + i, j->o.layer);
		return -EBADMSG;
	}
	return 0;
}

/* one copy is over. Return: 0 there is another one; 1 it was the last; -errno */
static int part_next(struct part *p)
{
	struct place_job *j = p->job;
	int ret;

	if (j->source)
		j->whole = wfi_shape_landed(j->h, &p->list, j->o.layer, j->o.nr_layers);
	if (j->way == WAY_STRAIGHT || j->way == WAY_IN)
		return 1;
	if (p->leaving) {
		ret = has_sums(j) ? part_check(p) : 0;
		return ret ? ret : 1;
	}
	if (has_sums(j))
		memcpy(j->crc + p->first, j->sums + p->first, p->nr * sizeof(*j->crc));
	p->leaving = true;
	return part_go(p);
}

static void part_done(void *ctx, int res)
{
	struct part *p = ctx;
	struct place_job *j = p->job;

	p->xfer = NULL;
	if (!res && !j->res && j->h->state == HANDOFF_OPEN) {
		res = part_next(p);
		if (!res)
			return;
	}
	if (res == -EBADMSG && j->way == WAY_STRAIGHT)
		wfi_count(j->hs->pieces_bad, 1);
	part_unstage(p);
	p->busy = false;
	if (res < 0 && !j->res)
		j->res = res;
	job_pump(j);
}

/* one push of many, or all of a handoff's: what is under way ends, and the job with it */
static void job_cancel(struct place_job *j, int res)
{
	uint32_t i;

	if (j->res)
		return;
	j->res = res;
	for (i = 0; i < PARTS; i++)
		if (j->parts[i].xfer)
			wfi_xfer_cancel(j->hs->opts.xfer, j->parts[i].xfer);
	job_pump(j);
}

/* both engines hear so, and what the copy touches is kept until it has ended */
static void part_late(void *ctx, int res)
{
	const struct part *p = ctx;
	struct place_job *j = p->job;

	job_cancel(j, res);
	if (!j->late && j->o.late)
		j->o.late(j->o.ctx, handoff_end_res(j->res));
	j->late = true;
	wfi_handoff_late(j->hs, j->h, j->res);
}

/* ---- pushes ---- */

/* Return: 0; -EINVAL, -ESTALE */
static int blocks_check(struct wfi_handoffs *hs, const struct handoff *h,
			const struct wfi_push_opts *o, uint64_t piece_bytes)
{
	uint32_t i, b;
	int ret;

	for (i = 0; i < o->nr; i++) {
		b = o->first_block + i;
		if (o->places && o->places->blocks[i].len != h->space.block_bytes &&
		    o->places->blocks[i].len != piece_bytes)
			return -EINVAL;
		/* whose slot it is may have sealed it */
		if (h->pushers[b] || (h->copied[b] && h->copied[b] != o->owner->id))
			return -EINVAL;
		/* READs land there */
		if (h->slots[b] != WFI_SLOT_NONE && !h->copied[b])
			return -EINVAL;
		ret = o->places ? 0
				: wfi_kv_slot_check(hs->opts.kv, o->owner, o->space, &o->slots[i]);
		if (ret)
			return ret;
	}
	return 0;
}

static enum way way_of(const struct handoff *h, const struct wfi_push_opts *o)
{
	if (!h->opts.places)
		return WAY_IN;
	if (!o->places)
		return WAY_OUT;
	if (h->places.ep->dev == o->places->ep->dev &&
	    h->places.mrs[h->places.blocks[o->first_block].rkey])
		return WAY_STRAIGHT;
	return WAY_STAGED;
}

static int job_alloc(struct wfi_handoffs *hs, uint32_t nr, struct place_job **out)
{
	struct wfi_env *env = hs->opts.env;
	struct place_job *j;

	if (hs->nr_copies == NR_PUSHES)
		return -EAGAIN;
	j = wfi_alloc(env, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->mem_len = nr * (sizeof(*j->pieces) + sizeof(*j->idx) + sizeof(*j->results) +
			   sizeof(*j->sums) + sizeof(*j->crc));
	j->mem = wfi_alloc(env, j->mem_len);
	if (!j->mem) {
		wfi_free(env, j, sizeof(*j));
		return -ENOMEM;
	}
	j->pieces = j->mem;
	j->idx = (uint32_t *)(j->pieces + nr);
	j->results = (int32_t *)(j->idx + nr);
	j->sums = (uint32_t *)(j->results + nr);
	j->crc = j->sums + nr;
	j->hs = hs;
	*out = j;
	return 0;
}

/* slots that the job's copies need. Return: 0, -errno */
static int job_slots(struct place_job *j, struct handoff *h, const struct wfi_push_opts *o)
{
	struct wfi_handoffs *hs = j->hs;
	uint32_t i, n;
	int ret;

	if (j->way == WAY_STAGED)
		return wfi_owner_init(hs->opts.kv, &j->stage, h->tenant);
	for (i = 0; j->way == WAY_IN && i < o->nr; i += n) {
		n = (uint32_t)wfi_min(o->nr - i, MSG_PIECES_MAX);
		ret = wfi_handoff_claim_slots(hs, h, o->first_block + i, n, o->now_ns);
		if (ret)
			return ret;
		for (uint32_t k = 0; k < n; k++)
			h->copied[o->first_block + i + k] = o->owner->id;
	}
	if (j->way != WAY_OUT)
		return 0;
	for (i = 0; i < o->nr; i++)
		j->idx[i] = o->slots[i].idx;
	wfi_kv_pin(hs->opts.kv, j->idx, o->nr);
	return 0;
}

static void job_start(struct place_job *j, struct handoff *h, const struct wfi_push_opts *o)
{
	struct wfi_handoffs *hs = j->hs;
	uint32_t i;

	j->h = h;
	j->o = *o;
	j->o.layout = NULL; /* lent for the call */
	if (o->places)
		j->from = *o->places;
	j->waits = o->ready;
	hs->nr_waiting += j->waits;
	hs->look_ns = wfi_min(hs->look_ns, o->now_ns);
	hs->nr_copies++;
	j->next = hs->copies;
	hs->copies = j;
	for (i = 0; i < PARTS; i++)
		j->parts[i].job = j;
	h->nr_reads++;
	job_pump(j);
}

int wfi_place_push(struct wfi_handoffs *hs, struct handoff *h, const struct wfi_push_opts *o)
{
	const uint64_t piece_bytes = h->space.block_bytes / h->opts.nr_layers * o->nr_layers;
	struct place_job *j;
	uint32_t i;
	int ret = blocks_check(hs, h, o, piece_bytes);

	if (!ret)
		ret = job_alloc(hs, o->nr, &j);
	if (ret)
		return ret;
	j->way = way_of(h, o);
	ret = job_slots(j, h, o);
	if (ret) {
		wfi_free(hs->opts.env, j->mem, j->mem_len);
		wfi_free(hs->opts.env, j, sizeof(*j));
		return ret;
	}
	j->piece_bytes = piece_bytes;
	for (i = 0; i < o->nr; i++) {
		h->named[o->first_block + i] = (uint16_t)(o->layer + o->nr_layers);
		h->copied[o->first_block + i] = o->owner->id;
	}
	job_start(j, h, o);
	return 0;
}

bool wfi_place_can_shape(const struct handoff *h, const struct wfi_push_opts *o)
{
	uint32_t i;

	if (!h->opts.places || !o->places || !o->places->gpu || o->places->gpu != h->places.gpu ||
	    !h->places.mrs[h->places.blocks[0].rkey])
		return false;
	for (i = 1; i < h->opts.nr_blocks; i++)
		if (h->places.blocks[i].rkey != h->places.blocks[0].rkey)
			return false;
	return true;
}

int wfi_place_shape(struct wfi_handoffs *hs, struct handoff *h, const struct wfi_push_opts *o)
{
	struct wfi_space_info space;
	struct source *s;
	struct place_job *j;
	uint32_t i;
	int ret = wfi_kv_space_get(hs->opts.kv, o->owner->tenant, o->space, &space);

	if (ret)
		return ret;
	for (i = 0; i < o->nr; i++)
		if (o->places->blocks[i].len != space.block_bytes)
			return -EINVAL;
	if (wfi_shape_check(o->layout, space.block_bytes))
		return -EINVAL;
	ret = wfi_shape_source(hs, h, o->layout, o->layer, o->nr_layers, o->first_block, o->nr, &s);
	if (!ret)
		ret = job_alloc(hs, o->nr, &j);
	if (ret)
		return ret;
	j->way = WAY_STRAIGHT;
	j->source = s;
	j->piece_bytes = s->packed.layer_stride * o->nr_layers;
	wfi_shape_named(s, o->layer, o->nr_layers, o->first_block, o->nr);
	s->owner = o->owner->id;
	job_start(j, h, o);
	return 0;
}

/* ---- what happens meanwhile ---- */

/* the first that was not looked at yet: each look may end any of them */
static struct place_job *next_waiting(const struct wfi_handoffs *hs)
{
	struct place_job *j = hs->copies;

	while (j && (!j->waits || j->looked == hs->look))
		j = j->next;
	return j;
}

int wfi_place_poll(struct wfi_handoffs *hs, uint64_t now_ns)
{
	const uint32_t nr = hs->nr_waiting;
	struct place_job *j;

	hs->look++;
	hs->look_ns = now_ns + LOOK_NS;
	while ((j = next_waiting(hs))) {
		j->looked = hs->look;
		if (now_ns >= j->o.deadline_ns)
			job_cancel(j, -ETIMEDOUT);
		else
			job_pump(j);
	}
	return (int)(nr - hs->nr_waiting);
}

void wfi_place_cancel(struct wfi_handoffs *hs, struct handoff *h)
{
	struct place_job *j, *next;

	for (j = hs->copies; j; j = next) {
		next = j->next;
		if (j->h == h)
			job_cancel(j, -ECANCELED);
	}
}

void wfi_place_owner_gone(struct wfi_handoffs *hs, uint32_t owner)
{
	struct place_job *j = hs->copies;

	/* the end of one is that of all of its handoff's */
	while (j) {
		if (j->res || j->o.owner->id != owner) {
			j = j->next;
			continue;
		}
		job_cancel(j, -ECONNRESET);
		j = hs->copies;
	}
}
