/* SPDX-License-Identifier: Apache-2.0 */
/* handoff.c - the receiving half: tickets, pushes by reference, READs of a peer's layers */
#include <errno.h>
#include <string.h>

#include "handoff_private.h"
#include "place.h"
#include "shape.h"
#include "take.h"
#include "weft_internal/crc32c_poly.h"
#include "weft_internal/log.h"

#define RETRY_NS WFI_NSEC_PER_MSEC /* from one try to send to the next */
#define ERRNO_MAX 4095u
#define APART_MAX_NS (100 * WFI_NSEC_PER_MSEC) /* what comes less often, waking hardly delays */

static struct wfi_counter *counter(struct wfi_handoffs *hs, const char *name, const char *labels,
				   const char *unit, const char *help)
{
	struct wfi_counter *c = NULL;

	if (hs->opts.metrics)
		c = wfi_metrics_counter(hs->opts.metrics, name, labels, unit, help);
	return c ? c : &hs->scratch;
}

int wfi_handoffs_create(const struct wfi_handoffs_opts *opts, struct wfi_handoffs **out)
{
	struct wfi_handoffs *hs = wfi_alloc(opts->env, sizeof(*hs));
	unsigned i;

	if (!hs)
		return -ENOMEM;
	hs->opts = *opts;
	if (!hs->opts.slice_bytes)
		hs->opts.slice_bytes = 1u << 20;
	hs->next_event_ns = UINT64_MAX;
	for (i = 0; i < NR_READS; i++) {
		hs->reads[i].hs = hs;
		hs->reads[i].next_free = hs->free_reads;
		hs->free_reads = &hs->reads[i];
	}
	hs->bytes_read =
		counter(hs, "weft_handoff_read", "", "bytes", "Bytes read from other nodes");
	hs->bytes_straight =
		counter(hs, "weft_handoff_straight", "", "bytes",
			"Of the bytes read from other nodes, those straight to memory of GPUs");
	hs->bytes_by_ref = counter(hs, "weft_handoff_by_reference", "", "bytes",
				   "Bytes handed over inside the node without moving one");
	hs->bytes_copied = counter(hs, "weft_handoff_copied", "", "bytes",
				   "Bytes copied inside the node, from or to memory of engines");
	hs->pieces_bad = counter(hs, "weft_verify_failures", "kind=\"handoff\"", "",
				 "Blocks whose check failed");
	hs->nr_failed =
		counter(hs, "weft_handoff_failures", "", "", "Handoffs that did not complete");
	*out = hs;
	return 0;
}

void wfi_handoffs_destroy(struct wfi_handoffs *hs)
{
	if (!hs)
		return;
	wfi_pushes_fini(hs);
	wfi_shape_fini(hs);
	wfi_takes_fini(hs);
	wfi_free(hs->opts.env, hs, sizeof(*hs));
}

/* ---- the life of a handoff ---- */

static struct handoff *handoff_find(struct wfi_handoffs *hs, uint64_t name)
{
	uint32_t idx = (uint32_t)name;

	if (idx >= NR_HANDOFFS || hs->handoffs[idx].gen != name >> 32 ||
	    hs->handoffs[idx].state != HANDOFF_OPEN)
		return NULL;
	return &hs->handoffs[idx];
}

static int handoff_alloc(struct wfi_handoffs *hs, struct handoff *h, uint32_t nr)
{
	size_t each = sizeof(*h->keys) + sizeof(*h->refs) + sizeof(*h->slots) +
		      sizeof(*h->pushers) + sizeof(*h->copied) + sizeof(*h->crc) +
		      sizeof(*h->results) + sizeof(*h->named);
	char *p;

	h->mem_len = each * nr;
	h->mem = wfi_alloc(hs->opts.env, h->mem_len);
	if (!h->mem)
		return -ENOMEM;
	p = h->mem;
	h->keys = (struct weft_key *)p;
	h->refs = (struct weft_slot *)(h->keys + nr);
	h->slots = (uint32_t *)(h->refs + nr);
	h->pushers = h->slots + nr;
	h->copied = h->pushers + nr;
	h->crc = h->copied + nr;
	h->results = (int32_t *)(h->crc + nr);
	h->named = (uint16_t *)(h->results + nr);
	memset(h->slots, 0xff, nr * sizeof(*h->slots));
	return 0;
}

static struct handoff *handoff_claim(struct wfi_handoffs *hs)
{
	uint32_t i;

	for (i = 0; i < NR_HANDOFFS; i++)
		if (hs->handoffs[i].state == HANDOFF_FREE) {
			if (i >= hs->hi_handoffs)
				hs->hi_handoffs = i + 1;
			return &hs->handoffs[i];
		}
	return NULL;
}

static void ticket_fill(struct wfi_handoffs *hs, const struct handoff *h, struct weft_ticket *t)
{
	struct wfi_env *env = hs->opts.env;

	*t = (struct weft_ticket){
		.node = hs->opts.node,
		.incarnation = wfi_kv_incarnation(hs->opts.kv),
		.handoff = handoff_name(hs, h),
		.secret = { h->secret[0], h->secret[1] },
		.nr_blocks = h->opts.nr_blocks,
		.nr_layers = h->opts.nr_layers,
		.expires_ns = env->clock->wall_ns(env) + (h->opts.deadline_ns - h->opts.now_ns),
		.nr_tokens = wfi_shape_tokens(h),
	};
}

/* nothing reads into its slots any more: pins go, what was not published goes back */
static void handoff_release(struct wfi_handoffs *hs, struct handoff *h)
{
	uint32_t i;

	for (i = 0; i < h->opts.nr_blocks; i++)
		if (h->slots[i] != WFI_SLOT_NONE)
			wfi_kv_unpin(hs->opts.kv, &h->slots[i], 1);
	wfi_owner_fini(hs->opts.kv, &h->claims, false);
	wfi_shape_close(hs, h);
	wfi_free(hs->opts.env, h->mem, h->mem_len);
	h->mem = NULL;
	h->state = HANDOFF_FREE;
}

int wfi_handoff_expect(struct wfi_handoffs *hs, const struct wfi_expect_opts *opts,
		       struct weft_ticket *ticket, uint64_t *handle)
{
	struct wfi_space_info space;
	struct handoff *h;
	int ret;

	if (!opts->nr_blocks || opts->nr_blocks > WFI_HANDOFF_BLOCKS_MAX || !opts->nr_layers ||
	    opts->nr_layers > WFI_HANDOFF_LAYERS_MAX || opts->deadline_ns <= opts->now_ns)
		return -EINVAL;
	ret = wfi_kv_space_get(hs->opts.kv, opts->owner->tenant, opts->space, &space);
	if (ret)
		return ret;
	if (space.block_bytes % opts->nr_layers)
		return -EINVAL;
	h = handoff_claim(hs);
	if (!h)
		return -EAGAIN;
	ret = handoff_alloc(hs, h, opts->nr_blocks);
	if (ret)
		return ret;
	ret = hs->opts.env->rng->bytes(hs->opts.env, h->secret, sizeof(h->secret));
	if (ret)
		goto err_free;
	ret = wfi_owner_init(hs->opts.kv, &h->claims, opts->owner->tenant);
	if (ret)
		goto err_free;
	h->gen++;
	h->state = HANDOFF_OPEN;
	h->end_res = 0;
	h->late = false;
	h->nr_reads = 0;
	h->nr_feeders = 0;
	h->nr_takes = 0;
	h->pace = (struct layer_pace){ 0 };
	h->opts = *opts;
	memcpy(h->keys, opts->keys, opts->nr_blocks * sizeof(*h->keys));
	h->opts.keys = h->keys;
	if (opts->places) {
		h->places = *opts->places;
		h->opts.places = &h->places;
	}
	h->space = space;
	h->tenant = opts->owner->tenant;
	h->left = (uint64_t)opts->nr_blocks * opts->nr_layers;
	ret = opts->layout ? wfi_shape_open(hs, h, opts->layout) : 0;
	if (ret) {
		handoff_release(hs, h);
		return ret;
	}
	wfi_handoffs_note_event(hs, opts->deadline_ns);
	ticket_fill(hs, h, ticket);
	*handle = handoff_name(hs, h);
	return 0;

err_free:
	wfi_free(hs->opts.env, h->mem, h->mem_len);
	return ret;
}

static void handoff_end_now(struct wfi_handoffs *hs, struct handoff *h)
{
	struct wfi_expect_opts opts = h->opts;
	int res = h->end_res;

	if (res < 0)
		wfi_count(hs->nr_failed, 1);
	handoff_release(hs, h);
	opts.done(opts.ctx, res, 0, NULL);
}

/* ends it without success; waits for READs in flight to be fenced first */
static void handoff_fail(struct wfi_handoffs *hs, struct handoff *h, int res)
{
	uint32_t i;

	if (h->state != HANDOFF_OPEN)
		return;
	h->state = HANDOFF_ENDING;
	h->end_res = handoff_end_res(res);
	if (!h->nr_reads) {
		handoff_end_now(hs, h);
		return;
	}
	for (i = 0; i < NR_READS; i++)
		if (hs->reads[i].busy && hs->reads[i].h == h)
			wfi_peer_read_cancel(hs->opts.xfer, &hs->reads[i].read);
	if (h->shape)
		wfi_shape_cancel(hs, h);
	/* each may end it now */
	wfi_takes_cancel(hs, h);
	wfi_place_cancel(hs, h);
}

void wfi_handoff_whole(struct wfi_handoffs *hs, struct handoff *h, uint64_t now_ns)
{
	struct wfi_expect_opts opts = h->opts;
	uint64_t lease = 0;
	int res;

	if (opts.places) {
		handoff_release(hs, h);
		opts.done(opts.ctx, (int)opts.nr_blocks, 0, NULL);
		return;
	}
	/* what READs filled. Blocks that came by reference are their engine's to publish: they are
	 * refused */
	if (h->claims.nr_claims)
		wfi_kv_put(hs->opts.kv, &h->claims, opts.space, &opts.parent, h->keys, h->refs,
			   opts.nr_blocks, h->crc, h->results, now_ns);
	res = wfi_kv_lease(hs->opts.kv, opts.owner, h->slots, opts.nr_blocks,
			   now_ns + hs->opts.lease_ns, &lease);
	if (res < 0) {
		handoff_fail(hs, h, res);
		return;
	}
	opts.done(opts.ctx, (int)opts.nr_blocks, lease, h->refs);
	handoff_release(hs, h);
}

int wfi_handoff_cancel(struct wfi_handoffs *hs, const struct wfi_owner *owner, uint64_t handle)
{
	struct handoff *h = handoff_find(hs, handle);

	if (!h || h->opts.owner != owner)
		return -ENOENT;
	handoff_fail(hs, h, -ECANCELED);
	return 0;
}

/* ---- what comes ---- */

static int handoff_for(struct wfi_handoffs *hs, uint64_t name, uint64_t incarnation,
		       const uint64_t secret[2], struct handoff **out)
{
	struct handoff *h;

	if (incarnation != wfi_kv_incarnation(hs->opts.kv))
		return -ESTALE;
	h = handoff_find(hs, name);
	if (!h)
		return -ESTALE;
	/* both words in any case: no early exit that tells how much of a guess was right */
	if ((h->secret[0] ^ secret[0]) | (h->secret[1] ^ secret[1]))
		return -EPERM;
	*out = h;
	return 0;
}

static int handoff_range_check(const struct handoff *h, uint32_t layer, uint32_t nr_layers,
			       uint32_t first, uint32_t nr)
{
	uint32_t i;

	if (!nr || !nr_layers || !wfi_range_ok(first, nr, h->opts.nr_blocks) ||
	    !wfi_range_ok(layer, nr_layers, h->opts.nr_layers))
		return -EINVAL;
	for (i = first; i < first + nr; i++)
		if (h->named[i] != layer)
			return -EINVAL;
	return 0;
}

void wfi_handoff_landed(struct wfi_handoffs *hs, struct handoff *h, uint32_t layer,
			uint32_t nr_layers, uint32_t first, uint32_t nr, uint64_t now_ns)
{
	h->left -= (uint64_t)nr * nr_layers;
	h->opts.landed(h->opts.ctx, layer, nr_layers, first, nr, &h->refs[first]);
	if (!h->left && h->state == HANDOFF_OPEN)
		wfi_handoff_whole(hs, h, now_ns);
}

bool wfi_handoff_shapes_straight(struct wfi_handoffs *hs, const struct wfi_push_opts *o)
{
	const struct weft_ticket *t = o->ticket;
	struct handoff *h;

	return !handoff_for(hs, t->handoff, t->incarnation, t->secret, &h) && h->shape &&
	       h->tenant == o->owner->tenant && wfi_place_can_shape(h, o);
}

int wfi_handoff_push_local(struct wfi_handoffs *hs, const struct wfi_push_opts *o)
{
	const struct weft_ticket *t = o->ticket;
	struct handoff *h;
	uint32_t i, b;
	int ret;

	ret = handoff_for(hs, t->handoff, t->incarnation, t->secret, &h);
	if (ret)
		return ret;
	if (o->layout)
		return wfi_place_shape(hs, h, o);
	if (h->tenant != o->owner->tenant || h->opts.space != o->space)
		return -EXDEV;
	if (h->shape)
		return -EINVAL;
	ret = handoff_range_check(h, o->layer, o->nr_layers, o->first_block, o->nr);
	if (ret)
		return ret;
	if (o->places || h->opts.places)
		return wfi_place_push(hs, h, o);
	for (i = 0; i < o->nr; i++) {
		b = o->first_block + i;
		ret = wfi_kv_slot_check(hs->opts.kv, o->owner, o->space, &o->slots[i]);
		if (ret)
			return ret;
		/* a block comes from one slot: all its layers, from the first one pushed on */
		if (h->copied[b] ||
		    (h->slots[b] != WFI_SLOT_NONE && h->slots[b] != o->slots[i].idx))
			return -EINVAL;
	}
	for (i = 0; i < o->nr; i++) {
		b = o->first_block + i;
		h->named[b] = (uint16_t)(o->layer + o->nr_layers);
		if (h->slots[b] != WFI_SLOT_NONE)
			continue;
		h->slots[b] = o->slots[i].idx;
		h->pushers[b] = o->owner->id;
		wfi_kv_slot_ref(hs->opts.kv, h->slots[b], &h->refs[b]);
		wfi_kv_pin(hs->opts.kv, &h->slots[b], 1);
	}
	wfi_count(hs->bytes_by_ref,
		  h->space.block_bytes / h->opts.nr_layers * o->nr_layers * o->nr);
	wfi_handoff_landed(hs, h, o->layer, o->nr_layers, o->first_block, o->nr, o->now_ns);
	o->done(o->ctx, (int)o->nr);
	return 0;
}

/* ---- when the next layer comes ---- */

void wfi_handoff_pace(struct wfi_handoffs *hs, struct layer_pace *pace, uint32_t layer,
		      uint64_t now_ns)
{
	/* of a layer that comes in parts, the first one counts */
	if (pace->pace.last_ns && pace->layer == layer)
		return;
	pace_take(&pace->pace, now_ns, APART_MAX_NS);
	pace->layer = layer;
	wfi_handoff_await(hs, &pace->pace, now_ns);
}

void wfi_handoff_await(struct wfi_handoffs *hs, const struct pace *pace, uint64_t now_ns)
{
	hs->awaited_ns = wfi_max(hs->awaited_ns, pace_awaited_ns(pace, now_ns, &hs->next_event_ns));
}

uint64_t wfi_handoffs_awaited_ns(const struct wfi_handoffs *hs)
{
	return hs->awaited_ns;
}

/* ---- READs ---- */

void wfi_handoffs_post(struct wfi_handoffs *hs, struct wfi_peer *peer, const struct outbox *msg)
{
	const void *body = msg->type == WFI_MSG_ABORT ? (const void *)&msg->abort
						      : (const void *)&msg->done;
	size_t len = msg->type == WFI_MSG_ABORT ? sizeof(msg->abort) : sizeof(msg->done);
	struct outbox *slot;

	/* nothing hangs on their order */
	if (peer->send(peer, body, len) != -EAGAIN)
		return;
	if (hs->outbox_tail - hs->outbox_head == NR_OUTBOX) {
		/* its deadline ends the operation on the other side */
		wfi_warn("handoff: answers to peer %#llx pile up; one is dropped",
			 (unsigned long long)peer->node);
		return;
	}
	slot = &hs->outbox[hs->outbox_tail++ % NR_OUTBOX];
	*slot = *msg;
	slot->peer = peer;
}

static int outbox_poll(struct wfi_handoffs *hs)
{
	uint32_t left = hs->outbox_tail - hs->outbox_head;
	int work = 0;

	while (left--) {
		struct outbox *m = &hs->outbox[hs->outbox_head++ % NR_OUTBOX];
		const void *body = m->type == WFI_MSG_ABORT ? (const void *)&m->abort
							    : (const void *)&m->done;
		size_t len = m->type == WFI_MSG_ABORT ? sizeof(m->abort) : sizeof(m->done);

		/* a peer that takes nothing holds up nobody else's */
		if (m->peer && m->peer->send(m->peer, body, len) == -EAGAIN)
			hs->outbox[hs->outbox_tail++ % NR_OUTBOX] = *m;
		else
			work++;
	}
	return work;
}

void wfi_handoffs_answer(struct wfi_handoffs *hs, struct wfi_peer *peer, uint64_t push, int res)
{
	struct outbox m = { .type = WFI_MSG_LAYERS_DONE };

	m.done = (struct wfi_msg_done){ .type = WFI_MSG_LAYERS_DONE, .res = res, .push = push };
	wfi_handoffs_post(hs, peer, &m);
}

static void read_job_put(struct wfi_handoffs *hs, struct read_job *r)
{
	r->busy = false;
	r->read = (struct wfi_peer_read){ 0 };
	r->next_free = hs->free_reads;
	hs->free_reads = r;
}

static int read_job_verify(struct wfi_handoffs *hs, struct read_job *r)
{
	struct handoff *h = r->h;
	const uint64_t layer_bytes = h->space.block_bytes / h->opts.nr_layers;
	const uint32_t behind = h->opts.nr_layers - r->layer - r->nr_layers;
	/* takes a microsecond, and is the same for all */
	const uint32_t past = wfi_crc32c_power(behind * layer_bytes);
	uint32_t i, b;

	for (i = 0; i < r->nr; i++) {
		b = r->first + i;
		if (r->sums[i] != r->crc[i]) {
			wfi_count(hs->pieces_bad, 1);
			wfi_warn("handoff: block %u layer %u from peer %#llx fails its checksum", b,
				 r->layer, (unsigned long long)(r->peer ? r->peer->node : 0));
			return -EBADMSG;
		}
		/* each part, moved past what is behind it: in any order */
		h->crc[b] ^= wfi_crc32c_mul(r->crc[i], past);
	}
	return 0;
}

void wfi_handoff_read_failed(struct wfi_handoffs *hs, struct handoff *h, int res)
{
	if (h->state == HANDOFF_OPEN)
		handoff_fail(hs, h, res);
	else if (!h->nr_reads)
		handoff_end_now(hs, h);
}

void wfi_handoff_late(struct wfi_handoffs *hs, struct handoff *h, int res)
{
	handoff_fail(hs, h, res);
	if (h->late)
		return;
	h->late = true;
	if (h->opts.late)
		h->opts.late(h->opts.ctx, h->end_res);
}

static void read_job_done(void *ctx, int res)
{
	struct read_job *r = ctx;
	struct wfi_handoffs *hs = r->hs;
	struct handoff *h = r->h;
	struct read_job done = {
		.first = r->first, .nr = r->nr, .layer = r->layer, .nr_layers = r->nr_layers
	};
	uint64_t len = r->nr ? r->pieces[0].len * r->nr : 0;

	if (!res && h->state == HANDOFF_OPEN)
		res = read_job_verify(hs, r);
	if (!res && h->state != HANDOFF_OPEN)
		res = -ECANCELED;
	if (r->peer)
		wfi_handoffs_answer(hs, r->peer, r->push, res);
	read_job_put(hs, r);
	h->nr_reads--;
	if (res) {
		wfi_handoff_read_failed(hs, h, res);
		return;
	}
	wfi_count(hs->bytes_read, len);
	wfi_handoff_landed(hs, h, done.layer, done.nr_layers, done.first, done.nr,
			   wfi_now(hs->opts.env));
}

/* who waits hears so. The pusher does not: its slots are read still */
static void read_job_late(void *ctx, int res)
{
	const struct read_job *r = ctx;

	wfi_handoff_late(r->hs, r->h, res);
}

/* slots for blocks that no push has named before */
int wfi_handoff_claim_slots(struct wfi_handoffs *hs, struct handoff *h, uint32_t first, uint32_t nr,
			    uint64_t now_ns)
{
	struct weft_slot fresh[MSG_PIECES_MAX];
	uint32_t need = 0, i, b;
	int ret;

	for (i = 0; i < nr; i++)
		need += h->slots[first + i] == WFI_SLOT_NONE;
	if (!need)
		return 0;
	ret = wfi_kv_claim(hs->opts.kv, &h->claims, h->opts.space, need, fresh, now_ns);
	if (ret < 0)
		return ret;
	for (i = 0; i < nr; i++) {
		b = first + i;
		if (h->slots[b] != WFI_SLOT_NONE)
			continue;
		h->refs[b] = fresh[--need];
		h->slots[b] = h->refs[b].idx;
		wfi_kv_pin(hs->opts.kv, &h->slots[b], 1);
	}
	return 0;
}

/* takes a free job for the layers that a message names; what it reads lands in @h's own slots */
static struct read_job *read_job_get(struct wfi_handoffs *hs, struct wfi_peer *peer,
				     struct handoff *h, const struct wfi_msg_layers *m,
				     const struct wfi_msg_piece *pieces)
{
	uint64_t layer_bytes = h->space.block_bytes / h->opts.nr_layers;
	struct read_job *r = hs->free_reads;
	uint32_t i;

	hs->free_reads = r->next_free;
	r->h = h;
	r->peer = peer;
	r->push = m->push;
	r->layer = m->layer;
	r->nr_layers = m->nr_layers;
	r->first = m->first_block;
	r->nr = m->nr;
	r->busy = true;
	for (i = 0; i < m->nr; i++) {
		char *base = wfi_kv_slot_addr(hs->opts.kv, h->slots[m->first_block + i]);

		r->pieces[i] = (struct wfi_piece){
			.local = base + m->layer * layer_bytes,
			.remote = pieces[i].off,
			.block = i,
			.len = m->nr_layers * layer_bytes,
		};
		r->crc[i] = pieces[i].crc;
		h->named[m->first_block + i] = (uint16_t)(m->layer + m->nr_layers);
	}
	return r;
}

static bool is_fed_by(const struct handoff *h, const struct wfi_peer *peer)
{
	uint32_t i;

	for (i = 0; i < h->nr_feeders && h->feeders[i] != peer; i++)
		;
	return i < h->nr_feeders;
}

static int feeder_add(struct handoff *h, struct wfi_peer *peer)
{
	if (is_fed_by(h, peer))
		return 0;
	if (h->nr_feeders == FEEDERS_MAX)
		return -EAGAIN;
	h->feeders[h->nr_feeders++] = peer;
	return 0;
}

static int layers_read(struct wfi_handoffs *hs, struct wfi_peer *peer, struct handoff *h,
		       const struct wfi_msg_layers *m, const struct wfi_msg_piece *pieces,
		       uint64_t now_ns)
{
	struct wfi_xfer_opts x;
	struct read_job *r;
	uint32_t i;
	int ret;

	ret = handoff_range_check(h, m->layer, m->nr_layers, m->first_block, m->nr);
	if (ret)
		return ret;
	/* a slot that a local engine gave may hold a block that others read: no READ lands there */
	for (i = 0; i < m->nr; i++)
		if (h->pushers[m->first_block + i] || h->copied[m->first_block + i])
			return -EINVAL;
	ret = feeder_add(h, peer);
	if (ret)
		return ret;
	if (h->opts.places)
		return wfi_take_message(hs, peer, h, NULL, m, pieces, now_ns);
	if (!hs->free_reads)
		return -EAGAIN;
	ret = wfi_handoff_claim_slots(hs, h, m->first_block, m->nr, now_ns);
	if (ret)
		return ret;
	if (!peer->arena(peer, h->tenant))
		return -EXDEV;
	r = read_job_get(hs, peer, h, m, pieces);
	x = (struct wfi_xfer_opts){
		.pieces = r->pieces,
		.nr_pieces = m->nr,
		.nr_blocks = m->nr,
		.results = r->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = r->sums,
		.batch_bytes = h->opts.nr_blocks * h->space.block_bytes,
		.deadline_ns =
			wfi_min(h->opts.deadline_ns, now_ns + m->timeout_us * WFI_NSEC_PER_USEC),
		.done = read_job_done,
		.late = read_job_late,
		.ctx = r,
	};
	h->nr_reads++;
	ret = wfi_peer_read(hs->opts.xfer, peer, h->tenant, NULL, &x, &r->read);
	if (ret) {
		/* layers of these blocks are now out of order: the handoff can't be completed */
		h->nr_reads--;
		read_job_put(hs, r);
		handoff_fail(hs, h, ret);
	}
	return ret;
}

static int message_layers(struct wfi_handoffs *hs, struct wfi_peer *peer, const void *msg,
			  size_t len, uint64_t now_ns)
{
	struct wfi_msg_piece pieces[MSG_PIECES_MAX];
	struct wfi_msg_layers m;
	struct handoff *h;
	int ret;

	if (len < sizeof(m))
		return -EPROTO;
	memcpy(&m, msg, sizeof(m));
	if (!m.nr || m.nr > MSG_PIECES_MAX || len != sizeof(m) + m.nr * sizeof(pieces[0]))
		return -EPROTO;
	memcpy(pieces, (const char *)msg + sizeof(m), m.nr * sizeof(pieces[0]));
	ret = handoff_for(hs, m.handoff, m.incarnation, m.secret, &h);
	if (!ret && h->space.tag != m.space_tag)
		ret = -EXDEV;
	if (!ret)
		wfi_handoff_pace(hs, &h->pace, m.layer, now_ns);
	if (!ret)
		ret = h->shape ? -EINVAL : layers_read(hs, peer, h, &m, pieces, now_ns);
	if (ret)
		wfi_handoffs_answer(hs, peer, m.push, ret);
	return 0;
}

static int message_shaped(struct wfi_handoffs *hs, struct wfi_peer *peer, const void *msg,
			  size_t len, uint64_t now_ns)
{
	struct wfi_msg_piece pieces[MSG_PIECES_MAX];
	struct wfi_msg_shaped m;
	struct handoff *h;
	int ret;

	if (len < sizeof(m))
		return -EPROTO;
	memcpy(&m, msg, sizeof(m));
	if (!m.m.nr || m.m.nr > MSG_PIECES_MAX || len != sizeof(m) + m.m.nr * sizeof(pieces[0]))
		return -EPROTO;
	memcpy(pieces, (const char *)msg + sizeof(m), m.m.nr * sizeof(pieces[0]));
	ret = handoff_for(hs, m.m.handoff, m.m.incarnation, m.m.secret, &h);
	if (!ret)
		wfi_handoff_pace(hs, &h->pace, m.m.layer, now_ns);
	if (!ret)
		ret = wfi_shape_message(hs, peer, h, &m, pieces, now_ns);
	if (ret)
		wfi_handoffs_answer(hs, peer, m.m.push, ret);
	return 0;
}

static int message_abort(struct wfi_handoffs *hs, const void *msg, size_t len)
{
	struct wfi_msg_layers m;
	struct handoff *h;

	if (len != sizeof(m))
		return -EPROTO;
	memcpy(&m, msg, sizeof(m));
	if (m.nr > ERRNO_MAX)
		return -EPROTO;
	if (!handoff_for(hs, m.handoff, m.incarnation, m.secret, &h))
		handoff_fail(hs, h, m.nr ? -(int)m.nr : -ECONNRESET);
	return 0;
}

int wfi_handoffs_message(struct wfi_handoffs *hs, struct wfi_peer *peer, const void *msg,
			 size_t len, uint64_t now_ns)
{
	struct wfi_msg_done done;
	uint32_t type;

	if (len < sizeof(type))
		return -EPROTO;
	memcpy(&type, msg, sizeof(type));
	switch (type) {
	case WFI_MSG_LAYERS:
		return message_layers(hs, peer, msg, len, now_ns);
	case WFI_MSG_SHAPED:
		return message_shaped(hs, peer, msg, len, now_ns);
	case WFI_MSG_ABORT:
		return message_abort(hs, msg, len);
	case WFI_MSG_LAYERS_DONE:
		if (len != sizeof(done))
			return -EPROTO;
		memcpy(&done, msg, sizeof(done));
		wfi_pushes_answer(hs, peer, &done);
		return 0;
	default:
		return -EPROTO;
	}
}

/* ---- ends ---- */

static bool has_pushed(const struct handoff *h, uint32_t owner)
{
	uint32_t i;

	for (i = 0; i < h->opts.nr_blocks; i++)
		if (h->pushers[i] == owner || h->copied[i] == owner)
			return true;
	return wfi_shape_fed_from(h, owner);
}

void wfi_handoffs_owner_gone(struct wfi_handoffs *hs, const struct wfi_owner *owner)
{
	uint32_t i;

	wfi_pushes_owner_gone(hs, owner->id);
	wfi_place_owner_gone(hs, owner->id);
	for (i = 0; i < hs->hi_handoffs; i++) {
		struct handoff *h = &hs->handoffs[i];

		if (h->state == HANDOFF_OPEN &&
		    (h->opts.owner == owner || has_pushed(h, owner->id)))
			handoff_fail(hs, h, -ECONNRESET);
	}
}

uint32_t wfi_handoffs_in(const struct wfi_handoffs *hs, uint32_t space)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < hs->hi_handoffs; i++)
		nr += hs->handoffs[i].state != HANDOFF_FREE && hs->handoffs[i].space.id == space;
	for (uint32_t i = 0; i < hs->hi_pushes; i++)
		nr += hs->pushes[i].state != PUSH_FREE && hs->pushes[i].space.id == space;
	return nr;
}

void wfi_handoffs_peer_lost(struct wfi_handoffs *hs, struct wfi_peer *peer)
{
	uint32_t i;

	for (i = hs->outbox_head; i != hs->outbox_tail; i++)
		if (hs->outbox[i % NR_OUTBOX].peer == peer)
			hs->outbox[i % NR_OUTBOX].peer = NULL;
	wfi_pushes_peer_lost(hs, peer);
	for (i = 0; i < NR_READS; i++)
		if (hs->reads[i].busy && hs->reads[i].peer == peer)
			hs->reads[i].peer = NULL;
	wfi_takes_peer_lost(hs, peer);
	wfi_shape_peer_lost(hs, peer);
	for (i = 0; i < hs->hi_handoffs; i++)
		if (hs->handoffs[i].state != HANDOFF_FREE &&
		    (is_fed_by(&hs->handoffs[i], peer) || wfi_shape_fed_by(&hs->handoffs[i], peer)))
			handoff_fail(hs, &hs->handoffs[i], -ECONNRESET);
}

uint32_t wfi_handoffs_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep)
{
	uint32_t i, n = 0;

	for (i = 0; i < NR_READS; i++)
		n += hs->reads[i].busy && hs->reads[i].read.ep == ep;
	return n + wfi_shape_reads_of(hs, ep) + wfi_takes_reads_of(hs, ep);
}

static void handoffs_expire(struct wfi_handoffs *hs, uint64_t now_ns)
{
	uint32_t i;

	hs->next_event_ns = UINT64_MAX;
	wfi_pushes_expire(hs, now_ns);
	for (i = 0; i < hs->hi_handoffs; i++) {
		struct handoff *h = &hs->handoffs[i];

		if (h->state != HANDOFF_OPEN)
			continue;
		if (h->opts.deadline_ns <= now_ns) {
			handoff_fail(hs, h, -ETIMEDOUT);
			continue;
		}
		wfi_handoffs_note_event(hs, h->opts.deadline_ns);
		wfi_handoff_await(hs, &h->pace.pace, now_ns);
	}
}

int wfi_handoffs_poll(struct wfi_handoffs *hs, uint64_t now_ns)
{
	int work = 0;

	if (hs->nr_sending)
		work += wfi_pushes_poll(hs);
	if (hs->outbox_head != hs->outbox_tail)
		work += outbox_poll(hs);
	if (hs->nr_waiting && now_ns >= hs->look_ns)
		work += wfi_place_poll(hs, now_ns) + wfi_pushes_look(hs);
	if (now_ns >= hs->next_event_ns)
		handoffs_expire(hs, now_ns);
	return work;
}

uint64_t wfi_handoffs_next_event_ns(const struct wfi_handoffs *hs)
{
	const uint64_t at_ns = hs->nr_waiting ? wfi_min(hs->look_ns, hs->next_event_ns)
					      : hs->next_event_ns;

	/* what makes progress keeps the worker awake: the rest waits for a peer to take messages,
	 * and nobody rings when it does */
	if (hs->nr_sending || hs->outbox_head != hs->outbox_tail)
		return wfi_min(at_ns, wfi_now(hs->opts.env) + RETRY_NS);
	return at_ns;
}
