/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flight.c - one lease of one holder, and the READs under it
 *
 * A flight asks, reads, and is over; its blocks came or failed one by one. When the holder does not
 * answer soon, a rival asks another one for the same blocks: who answers first is read from, and
 * nobody else writes to the places. READs that take far too long are ended, and fenced, before
 * another holder is tried.
 */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"
#include "weft_internal/log.h"

#define HURRY_MIN_NS (500 * WFI_NSEC_PER_USEC)
#define HURRY_NS (5 * WFI_NSEC_PER_MSEC) /* with a holder of whom nothing is known */
#define HURRY_READ_NS (5 * WFI_NSEC_PER_MSEC) /* beside four times what it should take */
#define GUESS_LEASE_NS (20 * WFI_NSEC_PER_USEC)
#define GUESS_BYTES_PER_MS (1u << 20)
#define GUESS_SSD_BYTES_PER_MS (512u << 10)
/* it gives nothing, or as good as that: what is told is not for ever */
#define NEVER_NS (3600 * WFI_NSEC_PER_SEC)

/* bytes that come so fast, or as fast as is usual where that is not known */
static uint64_t bytes_ns(uint64_t bytes, uint64_t bytes_per_ms, uint64_t guess)
{
	const uint64_t parts =
		bytes * (WFI_NSEC_PER_MSEC / 64) / (bytes_per_ms ? bytes_per_ms : guess);

	return wfi_min(parts, NEVER_NS / 64) * 64;
}

uint64_t wfi_cl_ssd_ns(const struct wfi_cluster *c, uint8_t peer, uint64_t bytes)
{
	const struct cluster_peer *p = &c->peers[peer];

	if (p->ssd_fails)
		return NEVER_NS;
	return p->ssd_latency_ns + wfi_max(p->ssd_free_ns, c->now_ns) - c->now_ns +
	       bytes_ns(bytes, p->ssd_bytes_per_ms, GUESS_SSD_BYTES_PER_MS);
}

uint64_t wfi_cl_expected_ns(const struct wfi_cluster *c, uint8_t peer, uint64_t bytes)
{
	const struct cluster_peer *p = &c->peers[cl_peer(peer)];
	const uint64_t ns = (p->lease_ns ? p->lease_ns : GUESS_LEASE_NS) +
			    bytes_ns(bytes, p->bytes_per_ms, GUESS_BYTES_PER_MS);

	/* it is read there before it is lent */
	return peer & WFI_PEER_SSD ? ns + wfi_cl_ssd_ns(c, cl_peer(peer), bytes) : ns;
}

/* ---- memory ---- */

static struct flight *flight_get(struct wfi_cluster *c)
{
	struct flight *f = c->free_flights;

	if (f) {
		c->free_flights = f->next;
	} else {
		if (c->nr_flights == NR_FLIGHTS)
			return NULL;
		f = wfi_alloc(c->o.env, sizeof(*f));
		if (!f)
			return NULL;
		c->flights[c->nr_flights++] = f;
	}
	f->c = c;
	f->rival = NULL;
	f->reading = false;
	f->given_up = false;
	f->ssd = false;
	f->direct = false;
	f->late = false;
	f->ep = NULL;
	f->xfer = NULL;
	f->over = NULL;
	f->lease = 0;
	f->nr_pieces = 0;
	return f;
}

void wfi_cl_flights_fini(struct wfi_cluster *c)
{
	while (c->nr_flights) {
		struct flight *f = c->flights[--c->nr_flights];

		if (f->runs)
			wfi_free(c->o.env, f->runs, FLIGHT_RUNS * sizeof(*f->runs));
		wfi_free(c->o.env, f, sizeof(*f));
	}
	c->free_flights = NULL;
}

static void flight_put(struct wfi_cluster *c, struct flight *f)
{
	struct wfi_pull *pull = f->pull;

	if (f->rival)
		f->rival->rival = NULL;
	f->pull = NULL;
	f->next = c->free_flights;
	c->free_flights = f;
	pull->nr_flights--;
	wfi_cl_pull_settle(c, pull);
}

/* ---- asking ---- */

/* what its holder's SSD tier takes for it */
static uint64_t flight_ssd_ns(const struct wfi_cluster *c, const struct flight *f,
			      const struct wfi_pull *pull, uint8_t peer)
{
	return f->ssd ? wfi_cl_ssd_ns(c, peer, f->nr * pull->space.block_bytes) : 0;
}

/* how long the holder may look for blocks in its SSD tier, so that its answer comes in time and
 * some of that is left for the READs. Never 0: it says then what it has left there */
static uint32_t fetch_us(const struct wfi_cluster *c, const struct wfi_pull *pull,
			 uint64_t answer_ns)
{
	uint64_t end_ns = c->now_ns + (answer_ns - c->now_ns) / 4 * 3;

	if (pull->o.budget_ns)
		end_ns = wfi_min(end_ns, pull->o.now_ns + pull->o.budget_ns);
	return (uint32_t)wfi_min((wfi_max(end_ns, c->now_ns) - c->now_ns) / WFI_NSEC_PER_USEC + 1,
				 UINT32_MAX);
}

/* @peer: without its tier, which f->ssd says */
static int flight_ask(struct wfi_cluster *c, struct flight *f, struct wfi_pull *pull, uint8_t peer)
{
	const uint64_t answer_ns =
		wfi_min(pull->o.deadline_ns,
			c->now_ns + c->o.patience_ns + 4 * flight_ssd_ns(c, f, pull, peer));
	union cluster_msg m;
	uint32_t i;
	int ret;

	/* also of a rival: ends of others may have taken their time meanwhile */
	if (pull->o.deadline_ns <= c->now_ns)
		return -EAGAIN;
	m.lease = (struct cluster_lease){
		.incarnation = c->peers[peer].incarnation,
		.space_tag = pull->space.tag,
		.lease_us = (uint32_t)wfi_min((pull->o.deadline_ns - c->now_ns) / WFI_NSEC_PER_USEC,
					      UINT32_MAX),
		.fetch_us = fetch_us(c, pull, answer_ns),
	};
	for (i = 0; i < f->nr; i++)
		m.lease.keys[i] = pull->o.keys[f->blocks[i]->idx];
	cluster_msg_head(&m, CLUSTER_LEASE, f->nr, 0);
	ret = wfi_cl_ask(c, ASK_LEASE, peer, &m, pull->o.deadline_ns, f, &f->ask);
	if (ret)
		return ret;
	c->asks[f->ask].deadline_ns = answer_ns;
	f->pull = pull;
	f->peer = peer;
	f->conn = c->asks[f->ask].conn;
	f->begin_ns = c->now_ns;
	f->incarnation = c->peers[peer].incarnation;
	pull->nr_flights++;
	return 0;
}

static uint64_t hurry_ns(const struct wfi_cluster *c, uint8_t peer)
{
	const uint64_t lease_ns = c->peers[peer].lease_ns;

	return lease_ns ? wfi_max(HURRY_MIN_NS, wfi_min(8 * lease_ns, HURRY_NS)) : HURRY_NS;
}

int wfi_cl_fly(struct wfi_cluster *c, struct wfi_pull *pull, uint8_t peer,
	       struct pull_block *const *blocks, uint32_t nr)
{
	struct flight *f;
	int ret;

	f = flight_get(c);
	if (!f)
		return -EAGAIN;
	f->nr = nr;
	f->ssd = peer & WFI_PEER_SSD;
	peer = cl_peer(peer);
	memcpy(f->blocks, blocks, nr * sizeof(struct pull_block *));
	ret = flight_ask(c, f, pull, peer);
	if (ret) {
		f->next = c->free_flights;
		c->free_flights = f;
		return ret;
	}
	f->hurry_ns = c->now_ns + hurry_ns(c, peer) + 4 * flight_ssd_ns(c, f, pull, peer);
	cl_event(c, f->hurry_ns);
	return 0;
}

/* Return: a second holder of the first block, or WFI_PEER_NONE */
static uint8_t second_holder(const struct wfi_cluster *c, const struct flight *f)
{
	const struct pull_block *b = f->blocks[0];
	const uint8_t peer = b->peer == f->peer ? b->other : b->peer;
	const uint8_t bit = b->peer == f->peer ? 2 : 1;

	if (peer >= NR_PEERS || peer == f->peer || b->tried & bit || !c->peers[peer].nr_conns)
		return WFI_PEER_NONE;
	return peer;
}

/* it takes long: somebody else is asked as well */
static void flight_hedge(struct wfi_cluster *c, struct flight *f)
{
	const uint8_t peer = second_holder(c, f);
	struct flight *rival;

	f->hurry_ns = UINT64_MAX;
	if (f->rival || peer == WFI_PEER_NONE)
		return;
	rival = flight_get(c);
	if (!rival)
		return;
	rival->nr = f->nr;
	rival->ssd = f->blocks[0]->ssd & (f->blocks[0]->peer == peer ? 1 : 2);
	memcpy(rival->blocks, f->blocks, f->nr * sizeof(struct pull_block *));
	if (flight_ask(c, rival, f->pull, peer)) {
		rival->next = c->free_flights;
		c->free_flights = rival;
		return;
	}
	rival->hurry_ns = UINT64_MAX;
	rival->rival = f;
	f->rival = rival;
	cl_count(c, CL_C_HEDGED, 1);
}

/* ---- the end ---- */

static void block_failed(struct wfi_cluster *c, const struct flight *f, struct pull_block *b)
{
	b->tried |= (uint8_t)((b->peer == f->peer) | (b->other == f->peer) << 1);
	wfi_cl_block_failed(c, b);
}

/* nothing has come, and nothing will */
static void flight_fail(struct wfi_cluster *c, struct flight *f)
{
	uint32_t i;

	for (i = 0; i < f->nr && !f->rival; i++)
		block_failed(c, f, f->blocks[i]);
	/* else these are the rival's to bring */
	for (i = 0; i < f->nr && f->rival; i++)
		f->blocks[i]->tried |= (uint8_t)((f->blocks[i]->peer == f->peer) |
						 (f->blocks[i]->other == f->peer) << 1);
	flight_put(c, f);
}

/* how fast it came, if anything did. Its number may be another node's by now */
static void speed_take(struct wfi_cluster *c, const struct flight *f)
{
	struct cluster_peer *p = &c->peers[f->peer];
	const uint64_t took_ns = c->now_ns - f->begin_ns;
	uint64_t speed, bytes = 0;
	uint32_t i;

	for (i = 0; i < f->nr_pieces; i++)
		bytes += f->results[i] ? 0 : f->pull->space.block_bytes;
	if (p->incarnation != f->incarnation || !bytes || !took_ns)
		return;
	speed = bytes * 1000 / (took_ns / 1000 + 1);
	p->bytes_per_ms = p->bytes_per_ms ? p->bytes_per_ms - p->bytes_per_ms / 8 + speed / 8
					  : speed;
}

void wfi_cl_landed(struct flight *f)
{
	struct wfi_cluster *c = f->c;
	uint32_t i;

	c->now_ns = wfi_now(c->o.env);
	f->xfer = NULL;
	for (i = 0; i < f->nr_pieces; i++) {
		struct pull_block *b = f->lent[i];
		const struct wfi_kv_proof proof = { .incarnation = f->incarnation,
						    .gen = f->proofs[i].gen,
						    .born = f->proofs[i].born,
						    .crc = f->proofs[i].crc };

		if (f->results[i] ||
		    wfi_kv_proof_check(c->o.kv, f->pull->o.space, &f->pull->o.keys[b->idx], &proof,
				       f->sums[i]))
			block_failed(c, f, b);
		else
			wfi_cl_block_came(c, b, f->sums[i]);
	}
	/* the holder's number may be another's by now: then this lease is nobody's */
	if (c->peers[f->peer].incarnation == f->incarnation)
		wfi_cl_release(c, f->peer, f->lease);
	flight_put(c, f);
}

static void flight_read_done(void *ctx, int res)
{
	struct flight *f = ctx;
	struct wfi_cluster *c = f->c;

	(void)res;
	c->now_ns = wfi_now(c->o.env);
	f->xfer = NULL;
	f->over = NULL;
	speed_take(c, f);
	if (!f->direct || wfi_cl_direct_sum(c, f))
		wfi_cl_landed(f);
}

/* its pull's time is not up, or it was not cancelled: others may still bring what it can't */
static void late_tell(const struct flight *f)
{
	struct wfi_pull *pull = f->pull;

	if (!f->late || !pull->over || pull->late || !pull->o.late)
		return;
	pull->late = true;
	pull->o.late(pull->o.ctx, pull->end_res);
}

void wfi_cl_flight_late(void *ctx, int res)
{
	struct flight *f = ctx;
	uint32_t i;

	(void)res;
	f->late = true;
	for (i = 0; i < f->nr_pieces; i++)
		wfi_cl_block_hangs(f->c, f->lent[i]);
	late_tell(f);
}

/* ---- reading ---- */

static bool over_rails(const struct wfi_peer *conn)
{
	return conn->rails && wfi_rails_nr(conn->rails) > 1;
}

static int flight_read(struct wfi_cluster *c, struct flight *f, const struct wfi_peer_arena *arena,
		       uint64_t deadline_ns)
{
	struct wfi_rail_mem mem[WFI_RAILS_MAX];
	struct wfi_xfer_opts x = {
		.ep = f->conn->ep,
		.dir = WFI_XFER_READ,
		.local_mr = arena->local,
		.rkeys = &arena->rkey,
		.nr_rkeys = 1,
		.gather = f->conn->gather,
		.names = &arena->name,
		.pieces = f->pieces,
		.nr_pieces = f->nr_pieces,
		.nr_blocks = f->nr_pieces,
		.results = f->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = f->sums,
		.deadline_ns = deadline_ns,
		.done = flight_read_done,
		.late = wfi_cl_flight_late,
		.ctx = f,
	};
	unsigned i;

	if (f->pull->o.places && !f->pull->o.in_arena && !f->pull->o.memory)
		x.local_mr = NULL;
	f->reading = true;
	f->begin_ns = c->now_ns;
	f->hurry_ns = c->now_ns + HURRY_READ_NS +
		      4 * wfi_cl_expected_ns(c, f->peer, f->nr_pieces * f->pull->space.block_bytes);
	cl_event(c, f->hurry_ns);
	if (f->direct)
		return wfi_cl_direct_read(c, f, &x);
	if (!over_rails(f->conn)) {
		f->ep = x.ep;
		return wfi_xfer_submit(c->o.xfer, &x, &f->xfer);
	}
	f->ep = NULL;
	f->conn->arenas(f->conn, f->pull->o.tenant, mem);
	for (i = 0; i < WFI_RAILS_MAX && !x.local_mr; i++)
		mem[i].local_mr = NULL;
	return wfi_rails_submit(f->conn->rails, &x, mem, &f->over);
}

/* places for blocks that were lent. Return: whether there are any */
static bool flight_place(struct wfi_cluster *c, struct flight *f)
{
	const struct wfi_pull_opts *o = &f->pull->o;
	uint32_t i, n = 0;

	f->direct = o->memory && wfi_cl_direct_can(f);
	/* where it lay before, with another holder, is of no use any more */
	for (i = 0; o->memory && i < f->nr_pieces; i++)
		f->lent[i]->dst = f->direct ? o->places[f->lent[i]->idx] : NULL;
	if (!o->places || (o->memory && !f->direct))
		wfi_cl_keep(c, f->pull, f->lent, f->nr_pieces);
	for (i = 0; i < f->nr_pieces; i++) {
		if (!f->lent[i]->dst) {
			block_failed(c, f, f->lent[i]);
			continue;
		}
		f->lent[n] = f->lent[i];
		f->proofs[n] = f->proofs[i];
		f->pieces[n] = (struct wfi_piece){
			.local = f->lent[i]->dst,
			.remote = f->proofs[i].off,
			.block = n,
			.len = f->pull->space.block_bytes,
		};
		n++;
	}
	f->nr_pieces = n;
	return n != 0;
}

/* what the holder says is input. Return: the arena to read from, or NULL: nothing is lent */
static const struct wfi_peer_arena *lent_take(struct wfi_cluster *c, struct flight *f,
					      const union cluster_msg *m)
{
	const uint64_t len = f->pull->space.block_bytes;
	const struct wfi_peer_arena *arena;
	uint32_t i;

	if (!m || m->leased.res <= 0 || m->head.nr != f->nr || !m->leased.lease || !f->conn ||
	    m->leased.incarnation != f->incarnation)
		return NULL;
	f->lease = m->leased.lease;
	arena = f->conn->arena(f->conn, f->pull->o.tenant);
	for (i = 0; arena && i < f->nr; i++) {
		const struct cluster_proof *p = &m->leased.proofs[i];

		if (!p->gen || !wfi_range_ok(p->off, len, arena->rkey->len))
			continue;
		f->proofs[f->nr_pieces] = *p;
		f->lent[f->nr_pieces++] = f->blocks[i];
	}
	if (f->nr_pieces)
		return arena;
	wfi_cl_release(c, f->peer, f->lease);
	return NULL;
}

/* those that were not lent fail, once the flight knows which were */
static void unlent_fail(struct wfi_cluster *c, const struct flight *f)
{
	uint32_t i, n = 0;

	for (i = 0; i < f->nr; i++) {
		if (n < f->nr_pieces && f->lent[n] == f->blocks[i])
			n++;
		else
			block_failed(c, f, f->blocks[i]);
	}
}

/* those that the holder has, and can't bring in time */
static void late_take(struct flight *f, const union cluster_msg *m)
{
	uint32_t i;

	for (i = 0; m->head.nr == f->nr && i < f->nr; i++)
		f->blocks[i]->late |= m->leased.proofs[i].flags & CLUSTER_PROOF_LATE;
}

void wfi_cl_leased(struct wfi_cluster *c, struct flight *f, const union cluster_msg *m)
{
	const struct wfi_peer_arena *arena;
	uint64_t end_ns;

	if (m && wfi_unlikely(m->leased.res != (int)f->nr))
		late_take(f, m);
	arena = lent_take(c, f, m);
	if (!arena) {
		flight_fail(c, f);
		return;
	}
	if (f->rival) {
		wfi_cl_unask(c, f->rival->ask);
		flight_put(c, f->rival);
	}
	unlent_fail(c, f);
	end_ns =
		wfi_min(f->pull->o.deadline_ns, c->now_ns + m->leased.lease_us * WFI_NSEC_PER_USEC);
	if (flight_place(c, f) && !flight_read(c, f, arena, end_ns))
		return;
	for (uint32_t i = 0; i < f->nr_pieces; i++)
		block_failed(c, f, f->lent[i]);
	wfi_cl_release(c, f->peer, f->lease);
	f->reading = false;
	flight_put(c, f);
}

/* ---- ends from outside ---- */

static void flight_stop(struct wfi_cluster *c, struct flight *f)
{
	f->given_up = true;
	if (f->xfer)
		wfi_xfer_cancel(c->o.xfer, f->xfer);
	if (f->over)
		wfi_rails_cancel(f->over);
}

void wfi_cl_flights_end(struct wfi_cluster *c, struct wfi_pull *pull)
{
	uint32_t i;

	for (i = 0; i < c->nr_flights; i++) {
		struct flight *f = c->flights[i];

		if (f->pull != pull)
			continue;
		if (f->reading) {
			flight_stop(c, f);
			late_tell(f);
			continue;
		}
		wfi_cl_unask(c, f->ask);
		flight_fail(c, f);
	}
}

/* its transfers end with their endpoint */
void wfi_cl_flights_lost(struct wfi_cluster *c, const struct wfi_peer *conn)
{
	uint32_t i;

	for (i = 0; i < c->nr_flights; i++)
		if (c->flights[i]->pull && c->flights[i]->conn == conn)
			c->flights[i]->conn = NULL;
}

void wfi_cl_flights_expire(struct wfi_cluster *c)
{
	uint32_t i;

	for (i = 0; i < c->nr_flights; i++) {
		struct flight *f = c->flights[i];

		if (!f->pull)
			continue;
		if (f->hurry_ns > c->now_ns || f->given_up) {
			if (!f->given_up)
				cl_event(c, f->hurry_ns);
			continue;
		}
		if (!f->reading)
			flight_hedge(c, f);
		else if (second_holder(c, f) != WFI_PEER_NONE)
			flight_stop(c, f);
		else
			f->hurry_ns = UINT64_MAX;
	}
}

uint32_t wfi_cluster_reads_of(const struct wfi_cluster *c, const struct weft_ep *ep)
{
	uint32_t i, n = 0;

	for (i = 0; i < c->nr_flights; i++)
		n += c->flights[i]->pull && c->flights[i]->reading && c->flights[i]->ep == ep;
	return n;
}
