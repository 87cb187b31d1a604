/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route.c - what each of some nodes would be worth for a chain
 *
 * The shard of the chain says who has how much of it. Then each candidate is asked, all at once,
 * for what only it knows: its load, and how long fetching the rest from those that have it would
 * take it. Who does not answer in time is said to be dead.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"

#define RETRY_NS WFI_NSEC_PER_MSEC
#define BLOCK_US 1000u /* of computing, where nobody says what a block takes */
#define LOAD_MAX 900u /* a full node is ten times as slow, and no slower than that */

enum cand_state { CAND_OVER, CAND_UNASKED, CAND_ASKED };

struct cand {
	struct wfi_route *route;
	struct weft_route *out;
	enum cand_state state;
	uint8_t peer; /* SELF; WFI_PEER_NONE: not connected */
	uint32_t ask;
	uint64_t begin_ns;
	uint8_t sources[NR_PEERS]; /* by their order in the question: peers, SELF */
};

struct wfi_route {
	struct wfi_route *prev, *next;
	struct wfi_cluster *c;
	struct wfi_route_opts o;
	struct wfi_pull *seek; /* who has what? */
	bool over; /* cancelled */
	uint64_t block_bytes;
	uint32_t reach; /* blocks from the first on that somebody has */
	uint32_t nr_cands;
	uint32_t nr_left; /* candidates that are not over */
	size_t len; /* of all of it */
	struct tally tally[NR_PEERS];
	struct cand cands[WEFT_ROUTES_MAX];
	uint8_t peers[]; /* of each key: who it would be fetched from */
};

/* ---- the order ---- */

static uint64_t cost_us(const struct wfi_route *r, const struct weft_route *w)
{
	const uint64_t block_us = r->o.block_us ? r->o.block_us : BLOCK_US;
	const uint64_t rest = r->o.nr - w->nr_memory - w->nr_ssd - w->nr_fetch;
	/* what takes longer to bring than to compute is computed */
	const uint64_t us = wfi_min(w->ssd_us, w->nr_ssd * block_us) +
			    wfi_min(w->fetch_us, w->nr_fetch * block_us) + rest * block_us;

	return us * 1000 / (1000 - wfi_min(w->load, LOAD_MAX));
}

/* those that are no choice come behind those that are */
static int rank(const struct weft_route *w)
{
	return w->flags & WEFT_ROUTE_DEAD ? 2 : w->flags & WEFT_ROUTE_DRAINING ? 1 : 0;
}

static int order(const void *pa, const void *pb)
{
	const struct weft_route *a = pa, *b = pb;

	if (rank(a) != rank(b))
		return rank(a) - rank(b);
	if (a->cost_us != b->cost_us)
		return a->cost_us < b->cost_us ? -1 : 1;
	if (a->load != b->load)
		return a->load < b->load ? -1 : 1;
	return a->node < b->node ? -1 : a->node > b->node;
}

static void route_end(struct wfi_cluster *c, struct wfi_route *r)
{
	const struct wfi_route_opts o = r->o;
	const int res = r->over ? -ECANCELED : (int)r->nr_cands;
	uint32_t i;

	for (i = 0; i < r->nr_cands; i++)
		if (!(o.routes[i].flags & WEFT_ROUTE_DEAD))
			o.routes[i].cost_us = cost_us(r, &o.routes[i]);
	qsort(o.routes, r->nr_cands, sizeof(*o.routes), order);
	if (!r->nr_left)
		c->nr_ended--;
	if (r->prev)
		r->prev->next = r->next;
	else
		c->routes = r->next;
	if (r->next)
		r->next->prev = r->prev;
	wfi_free(c->o.env, r, r->len);
	o.done(o.ctx, res);
}

/* ---- what a node says of itself ---- */

static uint64_t speed_of(const struct wfi_cluster *c, uint8_t peer)
{
	return c->peers[peer].bytes_per_ms * 1000;
}

/* of all its links that were measured, where it has nothing to fetch */
static uint64_t speed_any(const struct wfi_cluster *c)
{
	uint64_t sum = 0, n = 0;
	unsigned i;

	for (i = 0; i < c->hi_peers; i++)
		if (c->peers[i].node && c->peers[i].bytes_per_ms) {
			sum += speed_of(c, (uint8_t)i);
			n++;
		}
	return n ? sum / n : 0;
}

static uint32_t us_of(uint64_t ns)
{
	return (uint32_t)wfi_min(ns / WFI_NSEC_PER_USEC + (ns % WFI_NSEC_PER_USEC != 0),
				 UINT32_MAX - 1);
}

/* input: sums and products stay far from the end of 64 bits */
static uint64_t bytes_of(uint64_t told)
{
	return wfi_min(told, 1ull << 46);
}

/* bytes of other nodes, each node's as a transfer of its own */
static void sources_judge(const struct wfi_cluster *c, const struct cluster_source *sources,
			  uint32_t nr, struct cluster_probed *out)
{
	double bytes = 0, seconds = 0;
	uint64_t ns = 0, speed;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		const struct cluster_source *s = &sources[i];
		const uint8_t peer = wfi_cl_peer_of(c, s->node);
		const uint64_t all = bytes_of(s->bytes);

		if (peer == WFI_PEER_NONE)
			continue;
		out->reached |= 1ull << i;
		ns += wfi_cl_expected_ns(c, peer, all);
		if (s->ssd_bytes)
			ns += wfi_cl_ssd_ns(c, peer, bytes_of(s->ssd_bytes));
		speed = speed_of(c, peer);
		if (!speed)
			continue;
		bytes += (double)all;
		seconds += (double)all / (double)speed;
	}
	out->fetch_us = us_of(ns);
	if (!nr)
		out->bytes_per_s = speed_any(c);
	else if (seconds > 0)
		out->bytes_per_s = (uint64_t)(bytes / seconds);
}

static void probe_answer(struct wfi_cluster *c, const struct cluster_source *sources, uint32_t nr,
			 uint64_t ssd_bytes, struct cluster_probed *out)
{
	struct wfi_cluster_load load = { 0 };

	*out = (struct cluster_probed){ .flags = c->draining ? CLUSTER_PROBED_DRAINING : 0 };
	if (c->o.load)
		c->o.load(c->o.load_ctx, &load);
	out->load = load.busy;
	out->nr_ops = load.nr_ops;
	out->ssd_us = ssd_bytes ? us_of(wfi_kv_tier_fetch_ns(c->o.kv, bytes_of(ssd_bytes))) : 0;
	sources_judge(c, sources, nr, out);
}

void wfi_cl_heard_probe(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m)
{
	union cluster_msg reply;

	(void)peer;
	probe_answer(c, m->probe.sources, m->head.nr, m->probe.ssd_bytes, &reply.probed);
	cluster_msg_head(&reply, CLUSTER_PROBED, 0, m->head.id);
	wfi_cl_answer(c, conn, &reply);
}

/* ---- asking candidates ---- */

/* what a candidate lacks, by who has it. Return: how many sources */
static uint32_t sources_list(const struct wfi_cluster *c, struct cand *k,
			     struct cluster_source out[NR_PEERS])
{
	const struct wfi_route *r = k->route;
	uint8_t at[NR_PEERS + 1];
	uint32_t i, n = 0;

	memset(at, WFI_PEER_NONE, sizeof(at));
	for (i = k->out->nr_memory + k->out->nr_ssd; i < r->reach; i++) {
		const uint8_t peer = cl_peer(r->peers[i]);

		if (peer == k->peer)
			continue;
		if (at[peer] == WFI_PEER_NONE) {
			at[peer] = (uint8_t)n;
			k->sources[n] = peer;
			out[n++] = (struct cluster_source){
				.node = peer == SELF ? c->o.node : c->peers[peer].node,
			};
		}
		out[at[peer]].bytes += r->block_bytes;
		out[at[peer]].ssd_bytes += r->peers[i] & WFI_PEER_SSD ? r->block_bytes : 0;
	}
	return n;
}

/* how far it gets with those sources that it can reach */
static uint32_t fetched(const struct cand *k, uint64_t reached)
{
	const struct wfi_route *r = k->route;
	const uint32_t from = k->out->nr_memory + k->out->nr_ssd;
	bool ok[NR_PEERS + 1] = { false };
	uint32_t i, n;

	for (n = 0; n < NR_PEERS; n++)
		if (k->sources[n] <= SELF && reached >> n & 1)
			ok[k->sources[n]] = true;
	ok[k->peer] = true;
	for (i = from; i < r->reach && ok[cl_peer(r->peers[i])]; i++)
		;
	return i - from;
}

static void cand_over(struct cand *k, const struct cluster_probed *m)
{
	struct weft_route *w = k->out;

	k->state = CAND_OVER;
	if (!--k->route->nr_left)
		k->route->c->nr_ended++;
	if (!m) {
		w->flags |= WEFT_ROUTE_DEAD;
		return;
	}
	w->nr_fetch = fetched(k, m->reached);
	w->fetch_us = w->nr_fetch ? m->fetch_us : 0;
	w->ssd_us = w->nr_ssd ? m->ssd_us : 0;
	w->bytes_per_s = m->bytes_per_s;
	w->load = wfi_min(m->load, 1000u);
	w->nr_ops = m->nr_ops;
	w->flags |= m->flags & CLUSTER_PROBED_DRAINING ? WEFT_ROUTE_DRAINING : 0;
}

/* as an answer would, from this node itself */
static void cand_self(struct wfi_cluster *c, struct cand *k)
{
	struct cluster_source sources[NR_PEERS];
	struct cluster_probed m;
	const uint32_t nr = sources_list(c, k, sources);

	probe_answer(c, sources, nr, k->out->nr_ssd * k->route->block_bytes, &m);
	cand_over(k, &m);
}

/* Return: 0; -EAGAIN later; -ENOTCONN: it is gone */
static int cand_ask(struct wfi_cluster *c, struct cand *k)
{
	union cluster_msg m;
	uint32_t nr;
	int ret;

	nr = sources_list(c, k, m.probe.sources);
	m.probe.ssd_bytes = k->out->nr_ssd * k->route->block_bytes;
	cluster_msg_head(&m, CLUSTER_PROBE, nr, 0);
	ret = wfi_cl_ask(c, ASK_PROBE, k->peer, &m, k->route->o.deadline_ns, k, &k->ask);
	if (!ret) {
		k->state = CAND_ASKED;
		k->begin_ns = c->now_ns;
	}
	return ret;
}

void wfi_cl_probed(struct wfi_cluster *c, void *ctx, const union cluster_msg *m)
{
	struct cand *k = ctx;

	if (m)
		k->out->rtt_us = us_of(c->now_ns - k->begin_ns);
	cand_over(k, m ? &m->probed : NULL);
}

/* asks all that have not been */
static void cands_ask(struct wfi_cluster *c, struct wfi_route *r)
{
	const bool late = c->now_ns >= r->o.deadline_ns;
	uint32_t i;
	int ret;

	for (i = 0; i < r->nr_cands; i++) {
		struct cand *k = &r->cands[i];

		if (k->state != CAND_UNASKED)
			continue;
		ret = late ? -ETIMEDOUT : cand_ask(c, k);
		if (ret == -EAGAIN)
			cl_event(c, c->now_ns + RETRY_NS);
		else if (ret)
			cand_over(k, NULL);
	}
}

/* ---- who has what ---- */

/* this node knows best what it has itself */
static void here_take(struct wfi_route *r)
{
	const uint32_t here = r->o.here_memory + r->o.here_ssd;
	uint32_t i;

	for (i = 0; i < here; i++) {
		const bool ssd = i >= r->o.here_memory;

		if (r->peers[i] == WFI_PEER_NONE || (!ssd && r->peers[i] & WFI_PEER_SSD))
			r->peers[i] = ssd ? SELF | WFI_PEER_SSD : SELF;
	}
	while (r->reach < r->o.nr && r->peers[r->reach] != WFI_PEER_NONE)
		r->reach++;
}

static void cand_begin(struct wfi_cluster *c, struct cand *k)
{
	struct wfi_route *r = k->route;
	struct weft_route *w = k->out;

	memset(k->sources, WFI_PEER_NONE, sizeof(k->sources));
	/* it may have gone while the shard was asked */
	if (k->peer < NR_PEERS && c->peers[k->peer].node != w->node)
		k->peer = WFI_PEER_NONE;
	if (k->peer == WFI_PEER_NONE) {
		cand_over(k, NULL);
		return;
	}
	if (k->peer == SELF) {
		w->flags |= WEFT_ROUTE_SELF;
		w->nr_memory = r->o.here_memory;
		w->nr_ssd = r->o.here_ssd;
		cand_self(c, k);
		return;
	}
	w->nr_memory = r->tally[k->peer].memory;
	w->nr_ssd = r->tally[k->peer].ssd;
	k->state = CAND_UNASKED;
}

static void route_found(void *ctx, const struct wfi_found *found)
{
	struct wfi_route *r = ctx;
	struct wfi_cluster *c = r->c;
	uint32_t i;

	r->seek = NULL;
	if (r->over)
		return;
	if (found)
		memcpy(r->peers, found->peers, r->o.nr);
	here_take(r);
	for (i = 0; i < r->nr_cands; i++)
		cand_begin(c, &r->cands[i]);
	cands_ask(c, r);
}

/* ---- beginning and end ---- */

static void cand_add(struct wfi_cluster *c, struct wfi_route *r, uint64_t node)
{
	struct weft_route *w = &r->o.routes[r->nr_cands];
	struct cand *k = &r->cands[r->nr_cands++];

	*w = (struct weft_route){ .node = node };
	k->route = r;
	k->out = w;
	k->peer = node == c->o.node ? SELF : wfi_cl_peer_of(c, node);
}

/* this node, those that are connected, and members that are not */
static void cands_all(struct wfi_cluster *c, struct wfi_route *r)
{
	unsigned i;

	cand_add(c, r, c->o.node);
	for (i = 0; i < c->hi_peers && r->nr_cands < r->o.nr_routes; i++)
		if (c->peers[i].node)
			cand_add(c, r, c->peers[i].node);
	for (i = 0; i < c->nr_allowed && r->nr_cands < r->o.nr_routes; i++)
		if (c->allowed[i] != c->o.node && wfi_cl_peer_of(c, c->allowed[i]) == WFI_PEER_NONE)
			cand_add(c, r, c->allowed[i]);
}

int wfi_cluster_route(struct wfi_cluster *c, const struct wfi_route_opts *o, struct wfi_route **out)
{
	struct wfi_seek_opts seek = { .space = o->space,
				      .nr = o->nr,
				      .keys = o->keys,
				      .now_ns = o->now_ns,
				      .deadline_ns = o->deadline_ns,
				      .done = route_found };
	const size_t len = sizeof(struct wfi_route) + o->nr;
	struct wfi_space_info space;
	struct wfi_route *r;
	uint32_t i;
	int ret;

	if (!o->nr_routes || o->nr_routes > WEFT_ROUTES_MAX)
		return -EINVAL;
	ret = wfi_kv_space_any(c->o.kv, o->space, &space);
	if (ret)
		return ret;
	r = wfi_alloc(c->o.env, len);
	if (!r)
		return -ENOMEM;
	c->now_ns = o->now_ns;
	r->c = c;
	r->o = *o;
	r->len = len;
	r->block_bytes = space.block_bytes;
	memset(r->peers, WFI_PEER_NONE, o->nr);
	if (!o->routes[0].node)
		cands_all(c, r);
	else
		for (i = 0; i < o->nr_routes; i++)
			cand_add(c, r, o->routes[i].node);
	r->nr_left = r->nr_cands;
	r->next = c->routes;
	if (c->routes)
		c->routes->prev = r;
	c->routes = r;
	cl_event(c, o->deadline_ns);
	*out = r;
	seek.ctx = r;
	if (!c->nr_peers || wfi_cl_seek_all(c, &seek, r->tally, &r->seek))
		route_found(r, NULL);
	return 0;
}

void wfi_cluster_route_cancel(struct wfi_cluster *c, struct wfi_route *r)
{
	uint32_t i;

	r->over = true;
	if (r->seek)
		wfi_cluster_cancel(c, r->seek);
	for (i = 0; i < r->nr_cands; i++)
		if (r->cands[i].state == CAND_ASKED)
			wfi_cl_unask(c, r->cands[i].ask);
	route_end(c, r);
}

int wfi_cl_routes_poll(struct wfi_cluster *c)
{
	struct wfi_route *r, *next;
	int work = 0;

	for (r = c->routes; r; r = next) {
		next = r->next;
		if (!r->seek && r->nr_left)
			cands_ask(c, r);
		if (r->nr_left)
			continue;
		route_end(c, r);
		work++;
	}
	return work;
}
