/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.c - nodes and their connections, requests and answers, time */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"
#include "weft_internal/log.h"

#define PATIENCE_NS (250 * WFI_NSEC_PER_MSEC)
#define SLICE_BYTES (512u << 10)
#define COPY_AFTER 2u
#define RETRY_NS WFI_NSEC_PER_MSEC /* from one try to send to the next */
#define RELEASE_NS WFI_NSEC_PER_MSEC /* they go with the next request, if there is one */
#define RELEASE_BATCH 32u

/* ---- create, destroy ---- */

static const struct {
	const char *name, *labels, *unit, *help;
} counters[CL_NR_COUNTERS] = {
	[CL_C_SEEKS] = { "weft_directory_lookups", "", "", "Chains looked for at other nodes" },
	[CL_C_FETCHED] = { "weft_remote_blocks", "result=\"hit\"", "",
			   "Blocks wanted of other nodes" },
	[CL_C_MISSED] = { "weft_remote_blocks", "result=\"miss\"", "",
			  "Blocks wanted of other nodes" },
	[CL_C_SHARED] = { "weft_remote_shared", "", "",
			  "Blocks that one fetch brought to several who wanted them" },
	[CL_C_DIRECT] = { "weft_remote_direct", "", "",
			  "Blocks of other nodes that were read straight to the memory of a GPU" },
	[CL_C_KEPT] = { "weft_remote_kept", "", "", "Blocks of other nodes that are held here" },
	[CL_C_HEDGED] = { "weft_remote_hedged", "", "",
			  "Times that a second holder was asked, since the first was slow" },
	[CL_C_LATE] = { "weft_remote_late", "", "", "Requests to other nodes without an answer" },
	[CL_C_LENT] = { "weft_remote_lent", "", "", "Blocks lent to other nodes" },
	[CL_C_RAISED] = { "weft_remote_raised", "", "",
			  "Blocks lent to other nodes that came up from the SSD tier first" },
	[CL_C_LEFT] = { "weft_remote_left", "", "",
			"Blocks wanted by other nodes that stayed in the SSD tier: too slow, or no "
			"room in memory" },
	[CL_C_ANNOUNCED] = { "weft_directory_announced", "", "", "Changes told to shards" },
	[CL_C_HEARD] = { "weft_directory_heard", "", "", "Changes heard by the shard here" },
	[CL_C_NOT_OFFERED] = { "weft_replicas_dropped", "why=\"queue\"", "",
			       "Blocks that other nodes were to hold as well, and do not" },
	[CL_C_NOT_TAKEN] = { "weft_replicas_dropped", "why=\"refused\"", "",
			     "Blocks that other nodes were to hold as well, and do not" },
	[CL_C_AGAIN] = { "weft_directory_resyncs", "", "",
			 "Times that all blocks were announced anew" },
};

static void metrics_init(struct wfi_cluster *c)
{
	struct wfi_metrics *m = c->o.metrics;
	unsigned i;

	for (i = 0; i < CL_NR_COUNTERS; i++) {
		if (m)
			c->count[i] = wfi_metrics_counter(m, counters[i].name, counters[i].labels,
							  counters[i].unit, counters[i].help);
		if (!c->count[i])
			c->count[i] = &c->scratch[i];
	}
	if (m) {
		c->lease_time = wfi_metrics_hist(m, "weft_remote_lease", "", "seconds",
						 "From the request for a lease to its answer");
		c->pull_time =
			wfi_metrics_hist(m, "weft_remote_get", "", "seconds",
					 "From the wish for blocks of other nodes to its end");
	}
	if (!c->lease_time)
		c->lease_time = &c->scratch_hist;
	if (!c->pull_time)
		c->pull_time = &c->scratch_hist;
}

int wfi_cluster_create(const struct wfi_cluster_opts *opts, struct wfi_cluster **out)
{
	struct wfi_cluster *c = wfi_alloc(opts->env, sizeof(*c));
	uint32_t i;

	if (!c)
		return -ENOMEM;
	c->o = *opts;
	if (!c->o.patience_ns)
		c->o.patience_ns = PATIENCE_NS;
	if (!c->o.slice_bytes)
		c->o.slice_bytes = SLICE_BYTES;
	if (!c->o.copy_after)
		c->o.copy_after = COPY_AFTER;
	c->next_event_ns = UINT64_MAX;
	c->members_seen = UINT64_MAX;
	for (i = 0; i < NR_ASKS; i++)
		c->free_asks[c->nr_free_asks++] = NR_ASKS - 1 - i;
	c->members[c->nr_members++] =
		(struct member){ .peer = SELF, .seed = wfi_mix64(opts->node) };
	metrics_init(c);
	*out = c;
	return 0;
}

void wfi_cluster_destroy(struct wfi_cluster *c)
{
	struct wfi_env *env;

	if (!c)
		return;
	env = c->o.env;
	wfi_cl_pulls_fini(c);
	wfi_cl_flights_fini(c);
	wfi_cl_borrowers_fini(c, &c->keepers);
	wfi_cl_announce_fini(c);
	if (c->outbox)
		wfi_free(env, c->outbox, NR_OUTBOX * sizeof(*c->outbox));
	wfi_free(env, c, sizeof(*c));
}

void wfi_cluster_stat(const struct wfi_cluster *c, struct wfi_cluster_stat *out)
{
	struct wfi_directory_stat d = { 0 };

	if (c->active)
		wfi_directory_stat(c->directory, &d);
	*out = (struct wfi_cluster_stat){
		.fetched = c->count[CL_C_FETCHED]->value,
		.missed = c->count[CL_C_MISSED]->value,
		.shared = c->count[CL_C_SHARED]->value,
		.kept = c->count[CL_C_KEPT]->value,
		.direct = c->count[CL_C_DIRECT]->value,
		.hedged = c->count[CL_C_HEDGED]->value,
		.lent = c->count[CL_C_LENT]->value,
		.raised = c->count[CL_C_RAISED]->value,
		.resyncs = c->count[CL_C_AGAIN]->value,
		.known = d.blocks,
	};
}

/* ---- members ---- */

static bool may_hold_shards(const struct wfi_cluster *c, uint64_t node)
{
	unsigned i;

	for (i = 0; i < c->nr_allowed; i++)
		if (c->allowed[i] == node)
			return true;
	return !c->nr_allowed;
}

static void members_change(struct wfi_cluster *c)
{
	unsigned i;

	c->nr_members = 0;
	if (may_hold_shards(c, c->o.node))
		c->members[c->nr_members++] =
			(struct member){ .peer = SELF, .seed = wfi_mix64(c->o.node) };
	for (i = 0; i < c->hi_peers; i++)
		if (c->peers[i].node && !c->peers[i].leaves && may_hold_shards(c, c->peers[i].node))
			c->members[c->nr_members++] =
				(struct member){ .peer = (uint8_t)i,
						 .seed = wfi_mix64(c->peers[i].node) };
	if (c->active)
		wfi_cl_announce_all(c);
}

int wfi_cluster_shard(struct wfi_cluster *c, const struct wfi_map **map)
{
	const bool was_active = c->active;
	int ret = wfi_cl_activate(c);

	if (ret)
		return ret;
	if (!was_active)
		members_change(c);
	*map = wfi_directory_map(c->directory);
	return 0;
}

/* there is news of the members; those that leave hold no shards any more */
static __attribute__((cold, noinline)) void members_heard(struct wfi_cluster *c, uint64_t changes)
{
	const size_t len = WFI_MEMBERS_MAX * sizeof(struct wfi_member);
	struct wfi_env *env = c->o.env;
	struct wfi_member *m = wfi_alloc(env, len);
	uint64_t epoch;
	int i, nr;

	/* then it is asked again */
	if (!m)
		return;
	c->members_seen = changes;
	nr = env->membership->members(env, m, WFI_MEMBERS_MAX, &epoch);
	c->nr_allowed = 0;
	for (i = 0; i < nr; i++)
		if (!(m[i].flags & WFI_MEMBER_DRAINING))
			c->allowed[c->nr_allowed++] = m[i].node;
	wfi_free(env, m, len);
	members_change(c);
}

uint8_t wfi_cl_owner(const struct wfi_cluster *c, uint32_t head)
{
	uint64_t best = 0, weight;
	uint8_t owner = SELF;
	unsigned i;

	for (i = 0; i < c->nr_members; i++) {
		weight = wfi_mix64(c->members[i].seed ^ head);
		if (weight < best)
			continue;
		best = weight;
		owner = c->members[i].peer;
	}
	return owner;
}

bool wfi_cluster_alone(const struct wfi_cluster *c)
{
	return !c->nr_peers;
}

uint64_t wfi_cluster_node(const struct wfi_cluster *c, uint8_t peer)
{
	peer = cl_peer(peer);
	return peer < NR_PEERS ? c->peers[peer].node : 0;
}

bool wfi_cluster_takes_places(const struct wfi_cluster *c)
{
	unsigned i, k;

	for (i = 0; i < c->hi_peers; i++)
		for (k = 0; k < c->peers[i].nr_conns; k++)
			if (c->peers[i].conns[k]->ep->dev->caps.flags & WEFT_CAP_LOCAL_MR)
				return false;
	return true;
}

uint8_t wfi_cl_peer_of(const struct wfi_cluster *c, uint64_t node)
{
	unsigned i;

	for (i = 0; node && i < c->hi_peers; i++)
		if (c->peers[i].node == node)
			return (uint8_t)i;
	return WFI_PEER_NONE;
}

static uint8_t peer_by_conn(const struct wfi_cluster *c, const struct wfi_peer *conn)
{
	const uint8_t i = wfi_cl_peer_of(c, conn->node);
	unsigned k;

	for (k = 0; i != WFI_PEER_NONE && k < c->peers[i].nr_conns; k++)
		if (c->peers[i].conns[k] == conn)
			return i;
	return WFI_PEER_NONE;
}

bool wfi_cl_peer_has(const struct wfi_cluster *c, const struct wfi_peer *conn, uint64_t incarnation)
{
	unsigned i, k;

	for (i = 0; i < c->hi_peers; i++)
		for (k = 0; k < c->peers[i].nr_conns && c->peers[i].incarnation == incarnation; k++)
			if (c->peers[i].conns[k] == conn)
				return true;
	return false;
}

/* ---- coming and going ---- */

void wfi_cluster_peer_leaves(struct wfi_cluster *c, const struct wfi_peer *conn, bool leaves)
{
	const uint8_t i = peer_by_conn(c, conn);

	if (i == WFI_PEER_NONE || c->peers[i].leaves == leaves)
		return;
	c->peers[i].leaves = leaves;
	members_change(c);
}

static void peer_free(struct wfi_cluster *c, struct cluster_peer *p)
{
	if (p->holder) {
		c->holder_peers[wfi_dir_pair(p->holder)] = WFI_PEER_NONE;
		wfi_directory_leave(c->directory, p->holder);
	}
	wfi_cl_borrowers_fini(c, &p->borrowers);
	wfi_cl_offers_free(c, p);
	wfi_free(c->o.env, p->stream, sizeof(*p->stream));
	*p = (struct cluster_peer){ 0 };
	c->nr_peers--;
	while (c->hi_peers && !c->peers[c->hi_peers - 1].node)
		c->hi_peers--;
}

/* nobody answers for an earlier life */
static void peer_end(struct wfi_cluster *c, uint8_t i)
{
	while (c->peers[i].node && c->peers[i].nr_conns)
		wfi_cluster_peer_lost(c, c->peers[i].conns[0]);
}

static int peer_new(struct wfi_cluster *c, const struct wfi_peer *conn, uint64_t incarnation)
{
	struct cluster_peer *p;
	unsigned i;
	int ret;

	for (i = 0; i < NR_PEERS && c->peers[i].node; i++)
		;
	if (i == NR_PEERS)
		return -ENOSPC;
	ret = wfi_cl_activate(c);
	if (ret)
		return ret;
	if (!c->outbox)
		c->outbox = wfi_alloc(c->o.env, NR_OUTBOX * sizeof(*c->outbox));
	p = &c->peers[i];
	p->stream = wfi_alloc(c->o.env, sizeof(*p->stream));
	if (!c->outbox || !p->stream) {
		if (p->stream)
			wfi_free(c->o.env, p->stream, sizeof(*p->stream));
		p->stream = NULL;
		return -ENOMEM;
	}
	p->node = conn->node;
	p->incarnation = incarnation;
	c->nr_peers++;
	if (i == c->hi_peers)
		c->hi_peers++;
	members_change(c);
	return (int)i;
}

int wfi_cluster_peer_add(struct wfi_cluster *c, struct wfi_peer *conn, uint64_t incarnation)
{
	uint8_t at = wfi_cl_peer_of(c, conn->node);
	struct cluster_peer *p;
	int ret;

	if (!conn->node)
		return -EINVAL;
	if (at != WFI_PEER_NONE && c->peers[at].incarnation != incarnation) {
		peer_end(c, at);
		at = WFI_PEER_NONE;
	}
	if (at == WFI_PEER_NONE) {
		ret = peer_new(c, conn, incarnation);
		if (ret < 0)
			return ret;
		at = (uint8_t)ret;
	}
	p = &c->peers[at];
	if (p->nr_conns == WFI_RAILS_MAX)
		return -ENOSPC;
	p->conns[p->nr_conns++] = conn;
	if (conn->shard && !p->view.sh &&
	    wfi_dir_view_open(&p->view, conn->shard, conn->shard_len, c->o.node))
		wfi_warn("cluster: what peer %#llx gives for its shard is none: it is asked",
			 (unsigned long long)conn->node);
	return 0;
}

static void ask_end(struct wfi_cluster *c, uint32_t idx)
{
	struct ask *a = &c->asks[idx];

	a->kind = ASK_FREE;
	a->gen++;
	c->peers[a->peer].nr_asks--;
	c->free_asks[c->nr_free_asks++] = idx;
}

/* there will be no answer */
static void ask_fail(struct wfi_cluster *c, uint32_t idx)
{
	const struct ask a = c->asks[idx];

	ask_end(c, idx);
	if (a.kind == ASK_LOOKUP)
		wfi_cl_looked(c, a.ctx, NULL);
	else if (a.kind == ASK_LEASE)
		wfi_cl_leased(c, a.ctx, NULL);
	else
		wfi_cl_probed(c, a.ctx, NULL);
}

static void conn_remove(struct cluster_peer *p, const struct wfi_peer *conn)
{
	unsigned k;

	if (conn->shard && conn->shard == (const void *)p->view.sh)
		p->view = (struct wfi_dir_view){ 0 };
	for (k = 0; k < p->nr_conns && p->conns[k] != conn; k++)
		;
	for (p->nr_conns--; k < p->nr_conns; k++)
		p->conns[k] = p->conns[k + 1];
}

void wfi_cluster_peer_lost(struct wfi_cluster *c, struct wfi_peer *conn)
{
	const uint8_t at = peer_by_conn(c, conn);
	uint32_t i;

	if (at == WFI_PEER_NONE)
		return;
	for (i = c->outbox_head; i != c->outbox_tail; i++)
		if (c->outbox[i % NR_OUTBOX].conn == conn)
			c->outbox[i % NR_OUTBOX].conn = NULL;
	conn_remove(&c->peers[at], conn);
	wfi_cl_loans_lost(c, at, conn);
	wfi_cl_flights_lost(c, conn);
	for (i = 0; i < NR_ASKS; i++)
		if (c->asks[i].kind != ASK_FREE && c->asks[i].conn == conn)
			ask_fail(c, i);
	if (c->peers[at].nr_conns)
		return;
	peer_free(c, &c->peers[at]);
	members_change(c);
}

/* ---- requests and answers ---- */

/* Return: whether they went */
static bool releases_send(struct wfi_cluster *c, struct cluster_peer *p)
{
	union cluster_msg m;

	memcpy(m.release.leases, p->releases, p->nr_releases * sizeof(p->releases[0]));
	cluster_msg_head(&m, CLUSTER_RELEASE, p->nr_releases, 0);
	if (p->conns[0]->send(p->conns[0], &m, m.head.len) == -EAGAIN) {
		cl_event(c, c->now_ns + RETRY_NS);
		return false;
	}
	p->nr_releases = 0;
	return true;
}

int wfi_cl_ask(struct wfi_cluster *c, enum ask_kind kind, uint8_t peer, union cluster_msg *m,
	       uint64_t deadline_ns, void *ctx, uint32_t *id)
{
	struct cluster_peer *p = &c->peers[peer];
	struct wfi_peer *conn = p->nr_conns ? p->conns[0] : NULL;
	struct ask *a;
	uint32_t idx;
	int ret;

	if (!conn)
		return -ENOTCONN;
	if (!c->nr_free_asks || p->nr_asks == WFI_CLUSTER_CREDITS)
		return -EAGAIN;
	idx = c->free_asks[c->nr_free_asks - 1];
	a = &c->asks[idx];
	m->head.id = (uint64_t)a->gen << 32 | idx;
	ret = conn->send(conn, m, m->head.len);
	if (ret)
		return ret;
	c->nr_free_asks--;
	p->nr_asks++;
	a->kind = kind;
	a->peer = peer;
	a->conn = conn;
	a->begin_ns = c->now_ns;
	a->deadline_ns = wfi_min(deadline_ns, c->now_ns + c->o.patience_ns);
	a->ctx = ctx;
	cl_event(c, a->deadline_ns);
	*id = idx;
	/* it is awake for that */
	if (p->nr_releases)
		releases_send(c, p);
	return 0;
}

void wfi_cl_unask(struct wfi_cluster *c, uint32_t id)
{
	ask_end(c, id);
}

void wfi_cl_answer(struct wfi_cluster *c, struct wfi_peer *conn, const union cluster_msg *m)
{
	struct outbox *slot;

	if (conn->send(conn, m, m->head.len) != -EAGAIN)
		return;
	if (c->outbox_tail - c->outbox_head == NR_OUTBOX) {
		/* who asked gives up in time */
		wfi_warn("cluster: answers to peer %#llx pile up; one is dropped",
			 (unsigned long long)conn->node);
		return;
	}
	slot = &c->outbox[c->outbox_tail++ % NR_OUTBOX];
	slot->conn = conn;
	slot->len = m->head.len;
	memcpy(&slot->msg, m, m->head.len);
}

static int outbox_poll(struct wfi_cluster *c)
{
	uint32_t left = c->outbox_tail - c->outbox_head;
	int work = 0;

	while (left--) {
		struct outbox *m = &c->outbox[c->outbox_head++ % NR_OUTBOX];
		struct outbox *to;

		if (!m->conn || m->conn->send(m->conn, &m->msg, m->len) != -EAGAIN) {
			work++;
			continue;
		}
		/* a peer that takes nothing holds up nobody else's */
		to = &c->outbox[c->outbox_tail++ % NR_OUTBOX];
		if (to == m)
			continue;
		to->conn = m->conn;
		to->len = m->len;
		memcpy(&to->msg, &m->msg, m->len);
	}
	return work;
}

/* an answer to one of ours. Return: its place, or NR_ASKS: it comes too late, or was invented */
static uint32_t ask_find(const struct wfi_cluster *c, uint8_t peer, uint64_t id, enum ask_kind kind)
{
	const uint32_t idx = (uint32_t)id;

	if (idx >= NR_ASKS || c->asks[idx].gen != id >> 32 || c->asks[idx].kind != kind ||
	    c->asks[idx].peer != peer)
		return NR_ASKS;
	return idx;
}

static void heard_leased(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m)
{
	const uint32_t idx = ask_find(c, peer, m->head.id, ASK_LEASE);
	struct cluster_peer *p = &c->peers[peer];
	uint64_t took_ns;
	void *ctx;

	if (idx == NR_ASKS) {
		wfi_cl_release(c, peer, m->leased.lease);
		return;
	}
	took_ns = c->now_ns - c->asks[idx].begin_ns;
	ctx = c->asks[idx].ctx;
	/* what a drive does is no measure of the way there */
	if (!((struct flight *)ctx)->ssd)
		p->lease_ns = p->lease_ns ? p->lease_ns - p->lease_ns / 8 + took_ns / 8 : took_ns;
	wfi_hist_add(c->lease_time, took_ns);
	ask_end(c, idx);
	wfi_cl_leased(c, ctx, m);
}

static void heard_looked(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m)
{
	const uint32_t idx = ask_find(c, peer, m->head.id, ASK_LOOKUP);
	void *ctx;

	if (idx == NR_ASKS)
		return;
	ctx = c->asks[idx].ctx;
	ask_end(c, idx);
	wfi_cl_looked(c, ctx, m);
}

static void heard_probed(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m)
{
	const uint32_t idx = ask_find(c, peer, m->head.id, ASK_PROBE);
	void *ctx;

	if (idx == NR_ASKS)
		return;
	ctx = c->asks[idx].ctx;
	ask_end(c, idx);
	wfi_cl_probed(c, ctx, m);
}

int wfi_cluster_message(struct wfi_cluster *c, struct wfi_peer *conn, const void *msg, size_t len,
			uint64_t now_ns)
{
	const uint8_t peer = peer_by_conn(c, conn);
	union cluster_msg m;
	int ret = cluster_msg_take(&m, msg, len);

	if (ret)
		return ret;
	c->now_ns = now_ns;
	/* it has just gone, or there was no room for one more */
	if (peer == WFI_PEER_NONE)
		return 0;
	switch (m.head.type) {
	case CLUSTER_LEASE:
		wfi_cl_heard_lease(c, peer, conn, &m);
		break;
	case CLUSTER_LEASED:
		heard_leased(c, peer, &m);
		break;
	case CLUSTER_RELEASE:
		wfi_cl_heard_release(c, peer, &m);
		break;
	case CLUSTER_LOOKUP:
		wfi_cl_heard_lookup(c, peer, conn, &m);
		break;
	case CLUSTER_LOOKED:
	case CLUSTER_HELD:
		heard_looked(c, peer, &m);
		break;
	case CLUSTER_PROBE:
		wfi_cl_heard_probe(c, peer, conn, &m);
		break;
	case CLUSTER_PROBED:
		heard_probed(c, peer, &m);
		break;
	case CLUSTER_WHO:
		wfi_cl_heard_who(c, peer, conn, &m);
		break;
	case CLUSTER_ANNOUNCE:
		wfi_cl_heard_announce(c, peer, conn, &m);
		break;
	case CLUSTER_ANNOUNCED:
		wfi_cl_heard_announced(c, peer, &m);
		break;
	case CLUSTER_OFFER:
		wfi_cl_heard_offer(c, peer, conn, &m);
		break;
	case CLUSTER_SPEED:
		wfi_cl_heard_speed(c, peer, &m);
		break;
	case CLUSTER_TAKEN:
		wfi_cl_heard_taken(c, peer);
		break;
	default:
		return -EPROTO;
	}
	return 0;
}

/* ---- leases that go back ---- */

void wfi_cl_release(struct wfi_cluster *c, uint8_t peer, uint64_t lease)
{
	struct cluster_peer *p = &c->peers[peer];

	/* what finds no room ends by itself */
	if (!lease || !p->node || p->nr_releases == CLUSTER_RELEASES_MAX)
		return;
	if (!p->nr_releases)
		p->release_ns = c->now_ns + RELEASE_NS;
	p->releases[p->nr_releases++] = lease;
	cl_event(c, p->release_ns);
}

static int releases_poll(struct wfi_cluster *c)
{
	int work = 0;
	unsigned i;

	for (i = 0; i < c->hi_peers; i++) {
		struct cluster_peer *p = &c->peers[i];

		if (!p->nr_releases ||
		    (p->nr_releases < RELEASE_BATCH && c->now_ns < p->release_ns)) {
			if (p->nr_releases)
				cl_event(c, p->release_ns);
			continue;
		}
		work += releases_send(c, p);
	}
	return work;
}

/* ---- time ---- */

static void expire(struct wfi_cluster *c)
{
	uint32_t i;

	c->next_event_ns = UINT64_MAX;
	for (i = 0; i < NR_ASKS; i++) {
		if (c->asks[i].kind == ASK_FREE)
			continue;
		if (c->asks[i].deadline_ns <= c->now_ns) {
			cl_count(c, CL_C_LATE, 1);
			ask_fail(c, i);
		} else {
			cl_event(c, c->asks[i].deadline_ns);
		}
	}
	wfi_cl_pulls_expire(c);
	wfi_cl_flights_expire(c);
	wfi_cl_borrowers_await(c);
}

int wfi_cluster_poll(struct wfi_cluster *c, uint64_t now_ns)
{
	uint64_t changes;
	int work = 0;

	if (!c->active && !c->routes)
		return 0;
	c->now_ns = now_ns;
	if (c->routes)
		work += wfi_cl_routes_poll(c);
	if (!c->active)
		return work;
	changes = c->o.env->membership->changes(c->o.env);
	if (wfi_unlikely(changes != c->members_seen))
		members_heard(c, changes);
	if (c->outbox_head != c->outbox_tail)
		work += outbox_poll(c);
	if (now_ns >= c->next_event_ns)
		expire(c);
	work += wfi_cl_pulls_poll(c);
	work += releases_poll(c);
	work += wfi_cl_announce_poll(c);
	work += wfi_cl_offers_poll(c);
	work += wfi_directory_poll(c->directory);
	return work;
}

uint64_t wfi_cluster_next_event_ns(const struct wfi_cluster *c)
{
	if (!c->active)
		return c->routes ? 0 : UINT64_MAX;
	if (wfi_directory_busy(c->directory) || c->nr_ended || c->nr_shared)
		return 0;
	/* what waits for a peer to take messages: nobody rings when it does */
	if (c->outbox_head != c->outbox_tail || c->nr_waiting)
		return wfi_min(c->next_event_ns, c->now_ns + RETRY_NS);
	return c->next_event_ns;
}

uint64_t wfi_cluster_awaited_ns(const struct wfi_cluster *c)
{
	return c->awaited_ns;
}
