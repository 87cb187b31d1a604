/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take.c - messages of peers for handoffs whose blocks are to lie in memory of an engine's
 *
 * What a message names is READ into slots that are claimed for it, held against its sums there, and
 * copied to the places: one message's bytes are copied in while the next one's are on their way. A
 * handoff has TAKES_MAX of them under way, and those that come meanwhile wait in order. Where
 * slots are short they wait for what others have taken, which needs nobody else to go on; where
 * nobody has taken any the message is answered with -ENOSPC. What the node pushes to itself lies in
 * the arena already, and is copied from there.
 */
#include <errno.h>
#include <string.h>

#include "take.h"
#include "weft_internal/log.h"

#define TAKES_MAX 4u /* of one handoff, under way */

enum take_state { TAKE_WAITS, TAKE_READS, TAKE_COPIES };

/* one message */
struct take {
	struct take *next; /* of all, as they came; or free */
	struct wfi_handoffs *hs;
	struct handoff *h; /* stays until its parts are over */
	struct wfi_peer *peer; /* NULL: lost meanwhile, nobody to answer */
	enum take_state state;
	bool given_up;
	struct wfi_peer_read read;
	struct wfi_xfer *xfer;
	uint64_t push;
	uint64_t deadline_ns;
	uint64_t piece_bytes;
	uint32_t layer, nr_layers;
	uint32_t first, nr; /* blocks */
	uint32_t nr_slots;
	struct weft_slot slots[MSG_PIECES_MAX];
	uint64_t off[MSG_PIECES_MAX]; /* in the peer's arena */
	struct wfi_piece pieces[MSG_PIECES_MAX];
	uint32_t crc[MSG_PIECES_MAX];
	uint32_t sums[MSG_PIECES_MAX]; /* of what came */
	int32_t results[MSG_PIECES_MAX];
};

static void takes_pump(struct wfi_handoffs *hs);

static bool is_self(const struct take *t)
{
	return t->peer && t->peer->node == t->hs->opts.node;
}

/* ---- the end of one ---- */

static void take_put(struct take *t)
{
	struct wfi_handoffs *hs = t->hs;
	struct take **link = &hs->takes;

	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	hs->nr_takes--;
	if (t->nr_slots)
		wfi_kv_unclaim(hs->opts.kv, &t->h->claims, t->slots, t->nr_slots);
	hs->nr_taken -= t->nr_slots;
	t->h->nr_takes -= t->state != TAKE_WAITS;
	t->next = hs->free_takes;
	hs->free_takes = t;
}

static void take_end(struct take *t, int res)
{
	struct wfi_handoffs *hs = t->hs;
	const uint32_t layer = t->layer, nr_layers = t->nr_layers, first = t->first, nr = t->nr;
	const uint64_t bytes = t->piece_bytes * nr;
	struct handoff *h = t->h;

	if (!res && h->state != HANDOFF_OPEN)
		res = -ECANCELED;
	if (t->peer)
		wfi_handoffs_answer(hs, t->peer, t->push, res);
	wfi_count(is_self(t) ? hs->bytes_copied : hs->bytes_read, res ? 0 : bytes);
	take_put(t);
	h->nr_reads--;
	if (res)
		wfi_handoff_read_failed(hs, h, res);
	else
		wfi_handoff_landed(hs, h, layer, nr_layers, first, nr, wfi_now(hs->opts.env));
	takes_pump(hs);
}

/* ---- copies ---- */

/* where block @i of the message stops; NULL: it names what is not there */
static char *stop_of(const struct take *t, uint32_t i)
{
	const uint32_t per_slot = (uint32_t)(t->h->space.block_bytes / t->piece_bytes);
	const struct wfi_map *arena;

	if (t->nr_slots)
		return (char *)wfi_kv_slot_addr(t->hs->opts.kv, t->slots[i / per_slot].idx) +
		       i % per_slot * t->piece_bytes;
	arena = wfi_tenant_arena(t->h->tenant);
	if (!wfi_range_ok(t->off[i], t->piece_bytes, arena->len))
		return NULL;
	return (char *)arena->addr + t->off[i];
}

/* Return: 0, -EBADMSG */
static int take_check(const struct take *t, const char *where)
{
	uint32_t i;

	for (i = 0; i < t->nr; i++) {
		if (t->sums[i] == t->crc[i])
			continue;
		wfi_count(t->hs->pieces_bad, 1);
		wfi_warn("handoff: block %u layer %u from peer %#llx fails its checksum %s",
			 t->first + i, t->layer,
			 (unsigned long long)(t->peer ? t->peer->node : 0), where);
		return -EBADMSG;
	}
	return 0;
}

static void take_copied(void *ctx, int res)
{
	struct take *t = ctx;

	t->xfer = NULL;
	if (!res && t->h->opts.verify)
		res = take_check(t, "in the memory of its receiver");
	take_end(t, res);
}

static int take_copy(struct take *t)
{
	const struct handoff *h = t->h;
	const uint64_t off = t->piece_bytes / t->nr_layers * t->layer;
	const struct wfi_xfer_opts x = {
		.ep = h->places.ep,
		.dir = WFI_XFER_WRITE,
		.local_mr = h->places.arena,
		.rkeys = h->places.rkeys,
		.nr_rkeys = h->places.nr_rkeys,
		.pieces = t->pieces,
		.nr_pieces = t->nr,
		.nr_blocks = t->nr,
		.results = t->results,
		.sum_ops = h->opts.verify ? &wfi_crc32c_sums : NULL,
		.sums = h->opts.verify ? t->sums : NULL,
		.batch_bytes = h->opts.nr_blocks * h->space.block_bytes,
		.deadline_ns = t->deadline_ns,
		.done = take_copied,
		.ctx = t,
	};
	struct wfi_xfer *xfer;
	uint32_t i;
	int ret;

	for (i = 0; i < t->nr; i++) {
		const struct wfi_piece *to = &h->places.blocks[t->first + i];

		t->pieces[i] = (struct wfi_piece){
			.local = stop_of(t, i),
			.remote = to->remote + off,
			.rkey = to->rkey,
			.block = i,
			.len = t->piece_bytes,
		};
		if (!t->pieces[i].local)
			return -EINVAL;
	}
	ret = wfi_xfer_submit(t->hs->opts.xfer, &x, &xfer);
	if (!ret && xfer)
		t->xfer = xfer;
	return ret;
}

/* ---- READs ---- */

static void take_read_done(void *ctx, int res)
{
	struct take *t = ctx;

	t->read = (struct wfi_peer_read){ 0 };
	if (!res && t->given_up)
		res = -ECANCELED;
	if (!res)
		res = take_check(t, "on its way");
	t->state = TAKE_COPIES;
	if (!res)
		res = take_copy(t);
	if (res)
		take_end(t, res);
}

static int take_read(struct take *t)
{
	struct wfi_xfer_opts x = {
		.pieces = t->pieces,
		.nr_pieces = t->nr,
		.nr_blocks = t->nr,
		.results = t->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = t->sums,
		.batch_bytes = t->h->opts.nr_blocks * t->h->space.block_bytes,
		.deadline_ns = t->deadline_ns,
		.done = take_read_done,
		.ctx = t,
	};
	uint32_t i;

	for (i = 0; i < t->nr; i++)
		t->pieces[i] = (struct wfi_piece){
			.local = stop_of(t, i),
			.remote = t->off[i],
			.block = i,
			.len = t->piece_bytes,
		};
	return wfi_peer_read(t->hs->opts.xfer, t->peer, t->h->tenant, &x, &t->read);
}

/* Return: 0 it is under way, or over; -EAGAIN it waits for slots; or why it can't be */
static int take_begin(struct take *t)
{
	struct wfi_handoffs *hs = t->hs;
	const uint32_t per_slot = (uint32_t)(t->h->space.block_bytes / t->piece_bytes);
	const uint32_t nr = (t->nr + per_slot - 1) / per_slot;
	const uint64_t now_ns = wfi_now(hs->opts.env);
	int ret;

	if (now_ns >= t->deadline_ns)
		return -ETIMEDOUT;
	if (!t->peer || t->h->state != HANDOFF_OPEN)
		return -ECONNRESET;
	if (is_self(t)) {
		t->h->nr_takes++;
		t->state = TAKE_COPIES;
		return take_copy(t);
	}
	ret = wfi_kv_claim(hs->opts.kv, &t->h->claims, t->h->opts.space, nr, t->slots, now_ns);
	if (ret < 0)
		return ret == -ENOSPC && hs->nr_taken ? -EAGAIN : ret;
	t->nr_slots = nr;
	hs->nr_taken += nr;
	t->h->nr_takes++;
	t->state = TAKE_READS;
	return take_read(t);
}

/* the first that may begin now */
static struct take *next_waiting(const struct wfi_handoffs *hs)
{
	struct take *t = hs->takes;

	while (t && (t->state != TAKE_WAITS || t->given_up || t->h->nr_takes >= TAKES_MAX))
		t = t->next;
	return t;
}

/* each may be over, and take others along, in the call: so from the start each time. One that finds
 * no slots holds up those behind it, or large ones would never have their turn */
static void takes_pump(struct wfi_handoffs *hs)
{
	struct take *t;
	int ret = 0;

	if (hs->taking)
		return;
	hs->taking = true;
	while (ret != -EAGAIN && (t = next_waiting(hs))) {
		ret = take_begin(t);
		if (ret && ret != -EAGAIN)
			take_end(t, ret);
	}
	hs->taking = false;
}

/* ---- messages ---- */

static struct take *take_get(struct wfi_handoffs *hs)
{
	struct take **link = &hs->takes, *t = hs->free_takes;

	if (hs->nr_takes == NR_READS)
		return NULL;
	if (t)
		hs->free_takes = t->next;
	else
		t = wfi_alloc(hs->opts.env, sizeof(*t));
	if (!t)
		return NULL;
	t->next = NULL;
	while (*link)
		link = &(*link)->next;
	*link = t;
	hs->nr_takes++;
	return t;
}

int wfi_take_message(struct wfi_handoffs *hs, struct wfi_peer *peer, struct handoff *h,
		     const struct wfi_msg_layers *m, const struct wfi_msg_piece *pieces,
		     uint64_t now_ns)
{
	struct take *t;
	uint32_t i;

	if (!peer->arena(peer, h->tenant))
		return -EXDEV;
	t = take_get(hs);
	if (!t)
		return -EAGAIN;
	t->hs = hs;
	t->h = h;
	t->peer = peer;
	t->state = TAKE_WAITS;
	t->given_up = false;
	t->read = (struct wfi_peer_read){ 0 };
	t->xfer = NULL;
	t->push = m->push;
	t->deadline_ns =
		wfi_min(h->opts.deadline_ns, now_ns + m->timeout_us * WFI_NSEC_PER_USEC);
	t->piece_bytes = h->space.block_bytes / h->opts.nr_layers * m->nr_layers;
	t->layer = m->layer;
	t->nr_layers = m->nr_layers;
	t->first = m->first_block;
	t->nr = m->nr;
	t->nr_slots = 0;
	for (i = 0; i < m->nr; i++) {
		t->off[i] = pieces[i].off;
		t->crc[i] = pieces[i].crc;
		h->named[m->first_block + i] = (uint16_t)(m->layer + m->nr_layers);
	}
	h->nr_reads++;
	takes_pump(hs);
	return 0;
}

/* ---- ends ---- */

void wfi_takes_cancel(struct wfi_handoffs *hs, const struct handoff *h)
{
	struct take *t = hs->takes;

	/* each may be over in the call, and the handoff with the last one */
	while (t) {
		if (t->h != h || t->given_up) {
			t = t->next;
			continue;
		}
		t->given_up = true;
		if (t->state == TAKE_WAITS)
			take_end(t, -ECANCELED);
		else if (t->state == TAKE_READS)
			wfi_peer_read_cancel(hs->opts.xfer, &t->read);
		else if (t->xfer)
			wfi_xfer_cancel(hs->opts.xfer, t->xfer);
		t = hs->takes;
	}
}

void wfi_takes_peer_lost(struct wfi_handoffs *hs, const struct wfi_peer *peer)
{
	struct take *t;

	for (t = hs->takes; t; t = t->next)
		if (t->peer == peer)
			t->peer = NULL;
}

uint32_t wfi_takes_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep)
{
	const struct take *t;
	uint32_t n = 0;

	for (t = hs->takes; t; t = t->next)
		n += t->state == TAKE_READS && t->read.ep == ep;
	return n;
}

void wfi_takes_fini(struct wfi_handoffs *hs)
{
	struct take *t;

	while ((t = hs->free_takes)) {
		hs->free_takes = t->next;
		wfi_free(hs->opts.env, t, sizeof(*t));
	}
}
