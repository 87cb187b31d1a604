/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take.c - messages of peers for handoffs whose blocks are to lie in memory of an engine's
 *
 * What a message names is READ straight to its places where the peer's NIC reaches them and its
 * pieces are few and long; then the GPU sums them up there. What fails on that way, and not by its
 * sums, goes the other one.
 *
 * Else it is READ into slots that are claimed for it, held against its sums there, and copied to
 * the places: one message's bytes are copied in while the next one's are on their way. A handoff
 * has TAKES_MAX of them under way, and those that come meanwhile wait in order. Where slots are
 * short they wait for what others have taken, which needs nobody else to go on; where nobody has
 * taken any the message is answered with -ENOSPC. What the node pushes to itself lies in the arena
 * already, and is copied from there.
 */
#include <errno.h>
#include <string.h>

#include "take.h"
#include "weft_internal/log.h"

#define TAKES_MAX 4u /* of one handoff, under way */
#define STRAIGHT_MAX 512u /* pieces of a message that go straight: a post of them */

/* TAKE_COPIES: or is summed up. Nothing of the peer's is READ any more */
enum take_state { TAKE_WAITS, TAKE_READS, TAKE_COPIES };

/* one message */
struct take {
	struct take *next; /* of all, as they came; or free */
	struct wfi_handoffs *hs;
	struct handoff *h; /* stays until its parts are over */
	struct wfi_peer *peer; /* NULL: lost meanwhile, nobody to answer */
	enum take_state state;
	bool given_up;
	bool straight; /* under way to its places; else by way of .slots, or from the arena */
	bool packed; /* by way of .slots: straight it can't go, or has failed to */
	int detour; /* why it failed to; 0: it did not */
	struct wfi_peer_read read;
	struct wfi_xfer *xfer;
	uint64_t push;
	uint64_t deadline_ns;
	uint64_t piece_bytes; /* of each block, packed */
	struct source *source; /* NULL: blocks are bytes */
	uint32_t layer, nr_layers;
	uint32_t first, nr; /* blocks */
	uint32_t nr_slots;
	struct weft_slot slots[MSG_PIECES_MAX];
	/* .remote: in the peer's arena; .local: where it is copied from, as .out has it */
	struct wfi_piece blocks[MSG_PIECES_MAX];
	struct shape_list in, out; /* pieces of the READ, and of the copy, or of the places */
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

static void take_landed(struct take *t)
{
	struct wfi_handoffs *hs = t->hs;
	const uint64_t now_ns = wfi_now(hs->opts.env);

	if (!t->source)
		wfi_handoff_landed(hs, t->h, t->layer, t->nr_layers, t->first, t->nr, now_ns);
	else if (wfi_shape_landed(t->h, &t->out, t->layer, t->nr_layers))
		wfi_handoff_whole(hs, t->h, now_ns);
}

static void take_end(struct take *t, int res)
{
	struct wfi_handoffs *hs = t->hs;
	const uint64_t bytes = t->piece_bytes * t->nr;
	struct handoff *h = t->h;

	if (!res && h->state != HANDOFF_OPEN)
		res = -ECANCELED;
	/* what was wrong first is why the other way did not help */
	if (res && res != -ECANCELED && res != -ETIMEDOUT && t->detour)
		res = t->detour;
	if (t->peer)
		wfi_handoffs_answer(hs, t->peer, t->push, res);
	wfi_count(is_self(t) ? hs->bytes_copied : hs->bytes_read, res ? 0 : bytes);
	wfi_count(hs->bytes_straight, t->straight && !res ? bytes : 0);
	take_put(t);
	h->nr_reads--;
	/* nobody takes it up before the next round */
	if (res)
		wfi_handoff_read_failed(hs, h, res);
	else
		take_landed(t);
	takes_pump(hs);
}

/* ---- where bytes stop ---- */

/* pieces whose .local is an offset in the slots of @t, one slot behind the other, to where these
 * lie: what reaches into the next one is cut there. Return: 0, -errno */
static int pieces_place(const struct take *t, struct shape_list *l)
{
	const uint64_t slot_bytes = t->h->space.block_bytes;
	uint32_t i, cuts = 0, at;
	int ret;

	for (i = 0; i < l->nr; i++)
		cuts += (uint32_t)(((uintptr_t)l->pieces[i].local + l->pieces[i].len - 1) /
					   slot_bytes -
				   (uintptr_t)l->pieces[i].local / slot_bytes);
	ret = wfi_shape_list_room(t->hs->opts.env, l, (uint64_t)l->nr + cuts);
	if (ret)
		return ret;
	at = l->nr + cuts;
	for (i = l->nr; i-- > 0;) {
		const struct wfi_piece p = l->pieces[i];
		const uint32_t to = l->to[i];
		uint64_t left = p.len;

		while (left) {
			const uint64_t end = (uintptr_t)p.local + left;
			const uint64_t slot = (end - 1) / slot_bytes;
			const uint64_t len = wfi_min(left, end - slot * slot_bytes);
			char *base = wfi_kv_slot_addr(t->hs->opts.kv, t->slots[slot].idx);

			left -= len;
			l->to[--at] = to;
			l->pieces[at] = p;
			l->pieces[at].local = base + (end - len - slot * slot_bytes);
			l->pieces[at].remote = p.remote + left;
			l->pieces[at].len = len;
		}
	}
	l->nr += cuts;
	return 0;
}

/* of what this node has pushed to itself. Return: 0, -EINVAL some lie outside of the arena */
static int pieces_check(const struct take *t, const struct shape_list *l)
{
	const struct wfi_map *arena = wfi_tenant_arena(t->h->tenant);
	uint32_t i;

	for (i = 0; i < l->nr; i++)
		if (!wfi_range_ok((uintptr_t)l->pieces[i].local - (uintptr_t)arena->addr,
				  l->pieces[i].len, arena->len))
			return -EINVAL;
	return 0;
}

/* where the blocks of a message lie for pieces_out(): packed in slots, one behind the other */
static void blocks_packed(struct take *t)
{
	uint32_t i;

	for (i = 0; i < t->nr; i++)
		t->blocks[i].local = (void *)(uintptr_t)(i * t->piece_bytes);
}

/* at @base of what the peer's offsets count in */
static void blocks_from(struct take *t, uintptr_t base)
{
	uint32_t i;

	for (i = 0; i < t->nr; i++)
		t->blocks[i].local = (void *)(base + t->blocks[i].remote);
}

/* what is copied to the places, and from where. Return: 0, -errno */
static int pieces_out(struct take *t)
{
	const struct handoff *h = t->h;
	const uint64_t off = t->piece_bytes / t->nr_layers * t->layer;
	const struct shape_plan plan = {
		.hs = t->hs,
		.h = t->h,
		.source = t->source,
		.layer = t->layer,
		.nr_layers = t->nr_layers,
		.first = t->first,
		.nr = t->nr,
		.blocks = t->blocks,
		.packed = t->nr_slots,
		.list = &t->out,
	};
	uint32_t i;
	int ret;

	if (t->source)
		return wfi_shape_plan(&plan);
	ret = wfi_shape_list_room(t->hs->opts.env, &t->out, t->nr);
	for (i = 0; i < t->nr && !ret; i++) {
		const struct wfi_piece *to = &h->places.blocks[t->first + i];

		t->out.pieces[i] = (struct wfi_piece){
			.local = t->blocks[i].local,
			.remote = to->remote + off,
			.rkey = to->rkey,
			.block = i,
			.len = t->piece_bytes,
		};
	}
	t->out.nr = ret ? 0 : t->nr;
	return ret;
}

/* what is READ, and to where. Return: 0, -errno */
static int pieces_in(struct take *t)
{
	const struct shape_pack pack = {
		.layout = t->source ? &t->source->layout : NULL,
		.layer = t->layer,
		.nr_layers = t->nr_layers,
		.first = t->first,
		.nr = t->nr,
		.end = wfi_shape_tokens(t->h),
		.blocks = t->blocks,
		.list = &t->in,
	};
	uint32_t i;
	int ret;

	if (t->source)
		return wfi_shape_pack(t->hs, &pack);
	ret = wfi_shape_list_room(t->hs->opts.env, &t->in, t->nr);
	for (i = 0; i < t->nr && !ret; i++) {
		t->in.pieces[i] = t->blocks[i];
		t->in.pieces[i].len = t->piece_bytes;
	}
	t->in.nr = ret ? 0 : t->nr;
	return ret;
}

/* ---- copies and sums ---- */

/* Return: 0, -EBADMSG */
static int take_check(const struct take *t, const char *where)
{
	uint32_t i;

	for (i = 0; i < t->nr; i++) {
		if (t->sums[i] == t->crc[i])
			continue;
		wfi_count(t->hs->pieces_bad, 1);
		wfi_warn("handoff: block %u layer %u from peer %#llx fails its checksum %s",
			 t->first + i, t->layer, (unsigned long long)(t->peer ? t->peer->node : 0),
			 where);
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

/* who waits hears so, here and at the pusher's node; what it touches is kept until it has ended */
static void take_late(void *ctx, int res)
{
	struct take *t = ctx;

	if (t->peer)
		wfi_handoffs_answer(t->hs, t->peer, t->push, res);
	t->peer = NULL;
	wfi_handoff_late(t->hs, t->h, res);
}

static int take_copy(struct take *t)
{
	const struct handoff *h = t->h;
	struct wfi_xfer_opts x = {
		.ep = h->places.ep,
		.dir = WFI_XFER_WRITE,
		.local_mr = h->places.arena,
		.rkeys = h->places.rkeys,
		.nr_rkeys = h->places.nr_rkeys,
		.nr_blocks = t->nr,
		.results = t->results,
		.sum_ops = h->opts.verify ? &wfi_crc32c_sums : NULL,
		.sums = h->opts.verify ? t->sums : NULL,
		.batch_bytes = h->opts.nr_blocks * h->space.block_bytes,
		.deadline_ns = t->deadline_ns,
		.done = take_copied,
		.late = take_late,
		.ctx = t,
	};
	struct wfi_xfer *xfer;
	int ret = pieces_out(t);

	if (!ret)
		ret = t->nr_slots ? pieces_place(t, &t->out) : pieces_check(t, &t->out);
	if (ret)
		return ret;
	x.pieces = t->out.pieces;
	x.nr_pieces = t->out.nr;
	ret = wfi_xfer_submit(t->hs->opts.xfer, &x, &xfer);
	if (!ret && xfer)
		t->xfer = xfer;
	return ret;
}

/* ---- READs ---- */

/* who waits hears so. The pusher does not: its slots are read still */
static void take_read_late(void *ctx, int res)
{
	const struct take *t = ctx;

	wfi_handoff_late(t->hs, t->h, res);
}

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

/* .in, to @to or, NULL, to slots; done() may come within. Return: 0, -errno */
static int take_read(struct take *t, const struct wfi_nic_memory *to,
		     void (*done)(void *ctx, int res))
{
	struct wfi_xfer_opts x = {
		.pieces = t->in.pieces,
		.nr_pieces = t->in.nr,
		.nr_blocks = t->nr,
		.results = t->results,
		.sum_ops = to ? NULL : &wfi_crc32c_sums,
		.sums = to ? NULL : t->sums,
		.batch_bytes = t->h->opts.nr_blocks * t->h->space.block_bytes,
		.deadline_ns = t->deadline_ns,
		.done = done,
		.late = take_read_late,
		.ctx = t,
	};

	return wfi_peer_read(t->hs->opts.xfer, t->peer, t->h->tenant, to, &x, &t->read);
}

static int take_read_packed(struct take *t)
{
	int ret = pieces_in(t);

	if (!ret)
		ret = pieces_place(t, &t->in);
	return ret ? ret : take_read(t, NULL, take_read_done);
}

/* ---- straight to the places ---- */

/* it did not go: by way of slots it may, unless it is over anyway */
static void straight_failed(struct take *t, int res)
{
	t->straight = false;
	t->packed = true;
	t->detour = res;
	if (t->given_up || !t->peer || res == -ECANCELED || res == -ETIMEDOUT) {
		take_end(t, res);
		return;
	}
	t->state = TAKE_WAITS;
	t->h->nr_takes--;
	takes_pump(t->hs);
}

static void straight_summed(void *ctx, int res)
{
	struct take *t = ctx;

	t->xfer = NULL;
	if (res)
		straight_failed(t, res);
	else
		take_end(t, take_check(t, "where it was read to"));
}

/* by the GPU, which sees what the NIC has brought from here on */
static int straight_sum(struct take *t)
{
	const struct handoff *h = t->h;
	const struct wfi_xfer_opts x = {
		.ep = h->places.ep,
		.dir = WFI_XFER_SUM_THERE,
		.rkeys = h->places.rkeys,
		.nr_rkeys = h->places.nr_rkeys,
		.pieces = t->out.pieces,
		.nr_pieces = t->out.nr,
		.nr_blocks = t->nr,
		.results = t->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = t->sums,
		.deadline_ns = t->deadline_ns,
		.done = straight_summed,
		.late = take_late,
		.ctx = t,
	};
	struct wfi_xfer *xfer;
	const int ret = wfi_xfer_submit(t->hs->opts.xfer, &x, &xfer);

	if (!ret && xfer)
		t->xfer = xfer;
	return ret;
}

static void straight_read(void *ctx, int res)
{
	struct take *t = ctx;

	t->read = (struct wfi_peer_read){ 0 };
	if (!res && t->given_up)
		res = -ECANCELED;
	t->state = TAKE_COPIES;
	if (!res)
		res = straight_sum(t);
	if (res)
		straight_failed(t, res);
}

/* the same pieces as NICs have them, into .in: where they are few, and so long that each costs its
 * NIC no more than its bytes do. Return: whether they are */
static bool straight_pieces(struct take *t, const struct wfi_nic_memory *to)
{
	const struct weft_caps *caps = &t->peer->ep->dev->caps;
	struct wfi_piece p;
	uint64_t bytes = 0;
	uint32_t i, n = 0;

	if (wfi_shape_list_room(t->hs->opts.env, &t->in, STRAIGHT_MAX))
		return false;
	for (i = 0; i < t->out.nr; i++) {
		p = t->out.pieces[i];
		if (p.rkey != t->out.pieces[0].rkey)
			return false;
		p.local = (void *)(uintptr_t)p.remote;
		p.remote = (uintptr_t)t->out.pieces[i].local;
		p.rkey = 0;
		bytes += p.len;
		n += wfi_nic_runs(to, &p, &t->in.pieces[n], STRAIGHT_MAX - n);
		if (n > STRAIGHT_MAX)
			return false;
	}
	t->in.nr = wfi_pieces_merge(t->in.pieces, n);
	return (bytes >> 10) * caps->cost_per_mib_ns >= (uint64_t)t->in.nr * caps->cost_per_piece_ns
								<< 10;
}

/* Return: where .in is to be READ to; NULL: not straight */
static const struct wfi_nic_memory *straight_plan(struct take *t)
{
	const struct wfi_handoff_places *places = &t->h->places;
	const struct wfi_nic_memory *to;

	if (!places->nics || !places->nics[places->blocks[0].rkey])
		return NULL;
	blocks_from(t, 0);
	if (pieces_out(t) || !t->out.nr)
		return NULL;
	to = places->nics[t->out.pieces[0].rkey];
	if (!to || !wfi_peer_reaches(t->peer, t->h->tenant, to) || !straight_pieces(t, to))
		return NULL;
	return to;
}

/* ---- which way ---- */

static void self_begin(struct take *t)
{
	int ret;

	blocks_from(t, (uintptr_t)wfi_tenant_arena(t->h->tenant)->addr);
	t->h->nr_takes++;
	t->state = TAKE_COPIES;
	ret = take_copy(t);
	if (ret)
		take_end(t, ret);
}

static void straight_begin(struct take *t, const struct wfi_nic_memory *to)
{
	int ret;

	t->straight = true;
	t->h->nr_takes++;
	t->state = TAKE_READS;
	ret = take_read(t, to, straight_read);
	if (ret)
		straight_failed(t, ret);
}

/* Return: 0 it is under way, or over; -EAGAIN it waits for slots; or why it can't be */
static int packed_begin(struct take *t)
{
	struct wfi_handoffs *hs = t->hs;
	const uint64_t slot_bytes = t->h->space.block_bytes;
	const uint32_t nr = (uint32_t)((t->piece_bytes * t->nr + slot_bytes - 1) / slot_bytes);
	int ret;

	if (nr > MSG_PIECES_MAX)
		return -E2BIG;
	ret = wfi_kv_claim(hs->opts.kv, &t->h->claims, t->h->opts.space, nr, t->slots,
			   wfi_now(hs->opts.env));
	if (ret < 0)
		return ret == -ENOSPC && hs->nr_taken ? -EAGAIN : ret;
	blocks_packed(t);
	t->nr_slots = nr;
	hs->nr_taken += nr;
	t->h->nr_takes++;
	t->state = TAKE_READS;
	ret = take_read_packed(t);
	/* it has its slots, and waits for nothing */
	if (ret)
		take_end(t, ret);
	return 0;
}

/* Return: as packed_begin() */
static int take_begin(struct take *t)
{
	const struct wfi_nic_memory *to;

	if (wfi_now(t->hs->opts.env) >= t->deadline_ns)
		return -ETIMEDOUT;
	if (!t->peer || t->h->state != HANDOFF_OPEN)
		return -ECONNRESET;
	if (is_self(t)) {
		self_begin(t);
		return 0;
	}
	/* planned once, however long it waits for slots */
	to = t->packed ? NULL : straight_plan(t);
	t->packed = !to;
	if (!to)
		return packed_begin(t);
	straight_begin(t, to);
	return 0;
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
		     struct source *source, const struct wfi_msg_layers *m,
		     const struct wfi_msg_piece *pieces, uint64_t now_ns)
{
	const uint64_t layer_bytes = source ? source->packed.layer_stride
					    : h->space.block_bytes / h->opts.nr_layers;
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
	t->straight = false;
	t->packed = false;
	t->detour = 0;
	t->read = (struct wfi_peer_read){ 0 };
	t->xfer = NULL;
	t->push = m->push;
	t->deadline_ns = wfi_min(h->opts.deadline_ns, now_ns + m->timeout_us * WFI_NSEC_PER_USEC);
	t->source = source;
	t->piece_bytes = layer_bytes * m->nr_layers;
	t->layer = m->layer;
	t->nr_layers = m->nr_layers;
	t->first = m->first_block;
	t->nr = m->nr;
	t->nr_slots = 0;
	for (i = 0; i < m->nr; i++) {
		t->blocks[i] = (struct wfi_piece){ .remote = pieces[i].off, .block = i };
		t->crc[i] = pieces[i].crc;
		if (!source)
			h->named[m->first_block + i] = (uint16_t)(m->layer + m->nr_layers);
	}
	if (source) {
		wfi_shape_named(source, m->layer, m->nr_layers, m->first_block, m->nr);
		source->peer = peer;
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
		wfi_shape_list_fini(hs->opts.env, &t->in);
		wfi_shape_list_fini(hs->opts.env, &t->out);
		wfi_free(hs->opts.env, t, sizeof(*t));
	}
}
