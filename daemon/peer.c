/* SPDX-License-Identifier: Apache-2.0 */
/* peer.c - another node: its endpoint, its arenas to read from, its messages */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define WCS_MAX 16u
/* messages of handoffs, of small pieces, and of blocks: a request and an answer each */
#define RECV_MSGS (2 * (WFI_PEER_CREDITS + WFI_GATHER_WINDOW + WFI_CLUSTER_CREDITS))
/* of a peer, however large a message may be: who finds no room is told so, and tries again */
#define RECV_BYTES_MAX (4u << 20)

static int peer_send(struct wfi_peer *base, const void *msg, size_t len)
{
	struct node_peer *p = wfi_container_of(base, struct node_peer, base);

	if (!p->connected || p->ep_down)
		return -ENOTCONN;
	return weft_ep_post_send(base->ep, msg, (uint32_t)len, 0, WEFT_POST_QUIET);
}

static const struct wfi_peer_arena *peer_arena(struct wfi_peer *base,
					       const struct wfi_tenant *tenant)
{
	struct node_peer *p = wfi_container_of(base, struct node_peer, base);
	unsigned i;

	for (i = 0; i < p->node->nr_tenants; i++)
		if (p->node->tenants[i] == tenant && p->arenas[i].rkey)
			return &p->arenas[i];
	return NULL;
}

/* files go to nodes that are spoken to over a socket of this host, and to no other */
static bool takes_files(const struct node_peer *p)
{
	return p->link == &p->node->host;
}

/* read-only rights to our arenas, each with the file that a peer of this host maps */
static int fill_arenas(struct node_peer *p, struct wire_endpoint *ours, int fds[WIRE_FDS_MAX],
		       unsigned *nr_fds)
{
	struct node *node = p->node;
	struct weft_export_opts opts = { .size = sizeof(opts), .access = WEFT_ACCESS_REMOTE_READ };
	struct wire_arena *arena;
	struct weft_export e;
	unsigned i;
	int ret;

	for (i = 0; i < node->nr_tenants && i < WIRE_TENANTS_MAX; i++) {
		arena = &ours->arenas[i];
		ret = p->link->dev->transport->mr_export(p->link->arenas[i], &opts, &e);
		if (ret)
			return ret;
		if (p->base.gather)
			ret = wfi_gather_serve(p->base.gather, p->link->arenas[i], &opts,
					       &arena->gather);
		if (ret)
			return ret;
		arena->tag = node->tags[i];
		arena->blob_len = e.blob_len;
		arena->has_fd = e.fd >= 0 && takes_files(p);
		memcpy(arena->blob, e.blob, e.blob_len);
		if (arena->has_fd)
			fds[(*nr_fds)++] = e.fd;
		else if (e.fd >= 0)
			close(e.fd);
		ours->nr_arenas++;
	}
	return 0;
}

static int shard_reg(struct node *node)
{
	const struct wfi_map *map;
	struct weft_mr_opts mr = {
		.size = sizeof(mr),
		.access = WEFT_ACCESS_REMOTE_READ,
		.kind = WEFT_MR_MEMFD,
	};
	int ret;

	if (node->shard)
		return 0;
	ret = wfi_cluster_shard(node->cluster, &map);
	if (ret)
		return ret;
	mr.addr = map->addr;
	mr.len = map->len;
	mr.fd = map->fd;
	return node->host.transport->mr_reg(node->host.dev, &mr, &node->shard);
}

/* a node of this host may look into our shard of the directory. Return: 0, told or not; -errno */
static int fill_shard(struct node_peer *p, struct wire_endpoint *ours, int fds[WIRE_FDS_MAX],
		      unsigned *nr_fds)
{
	const struct weft_export_opts opts = { .size = sizeof(opts),
					       .access = WEFT_ACCESS_REMOTE_READ };
	struct wire_arena *shard = &ours->arenas[ours->nr_arenas];
	struct weft_export e;
	int ret;

	if (!takes_files(p) || ours->nr_arenas == WIRE_TENANTS_MAX)
		return 0;
	ret = shard_reg(p->node);
	if (!ret)
		ret = p->link->dev->transport->mr_export(p->node->shard, &opts, &e);
	/* memory that can't be mapped is asked for */
	if (ret || e.fd < 0)
		return ret;
	shard->tag = WIRE_SHARD_TAG;
	shard->blob_len = e.blob_len;
	shard->has_fd = 1;
	memcpy(shard->blob, e.blob, e.blob_len);
	fds[(*nr_fds)++] = e.fd;
	ours->nr_arenas++;
	return 0;
}

static int fill_endpoint(struct node_peer *p, struct wire_endpoint *ours, int fds[WIRE_FDS_MAX],
			 unsigned *nr_fds, unsigned *nr_lent)
{
	struct weft_ep_addr addr;
	int ret;

	memset(ours, 0, sizeof(*ours));
	ours->max_msg = p->link->dev->caps.max_msg;
	ret = p->link->dev->transport->ep_addr(p->base.ep, &addr);
	if (ret)
		return ret;
	ours->addr_len = addr.blob_len;
	ours->addr_fds = takes_files(p) ? addr.nr_fds : 0;
	memcpy(ours->addr, addr.blob, addr.blob_len);
	memcpy(fds, addr.fds, ours->addr_fds * sizeof(*fds));
	*nr_fds = *nr_lent = ours->addr_fds;
	ret = fill_arenas(p, ours, fds, nr_fds);
	return ret ? ret : fill_shard(p, ours, fds, nr_fds);
}

void peer_hello(const struct node *node, const struct node_link *link, struct wire_hello *out)
{
	*out = (struct wire_hello){
		.node = node->id,
		.incarnation = wfi_kv_incarnation(node->kv),
	};
	snprintf(out->name, sizeof(out->name), "%s", node->name);
	snprintf(out->transport, sizeof(out->transport), "%s", link->transport->name);
}

/* where pieces cost more than their bytes, small ones go in messages */
static int peer_gather(struct node_peer *p)
{
	int ret;

	if (!p->link->dev->caps.cost_per_piece_ns)
		return 0;
	ret = wfi_gather_open(p->node->xfer, p->base.ep, 0, &p->base.gather);
	return ret == -EOPNOTSUPP ? 0 : ret;
}

int peer_create(struct node *node, struct node_link *link, const char *addr, pid_t pid,
		struct node_peer **out, struct wire_endpoint *ours, int fds[WIRE_FDS_MAX],
		unsigned *nr_fds, unsigned *nr_lent)
{
	struct weft_ep_opts opts = {
		.size = sizeof(opts),
		.send_cq = link->send_cq,
		.recv_cq = link->recv_cq,
		.depth = 256,
		.recv_bytes =
			(uint32_t)wfi_min(RECV_MSGS * link->dev->caps.max_msg, RECV_BYTES_MAX),
	};
	struct node_peer *p;
	int ret;

	if (node->nr_peers == NODE_PEERS_MAX)
		return -EMFILE;
	if (!link->dev)
		return -ENODEV;
	p = wfi_alloc(node->env, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->node = node;
	p->link = link;
	p->pid = pid;
	p->ep_owner.kind = EP_PEER;
	p->base.send = peer_send;
	p->base.arena = peer_arena;
	snprintf(p->addr, sizeof(p->addr), "%s", addr);
	opts.ctx = &p->ep_owner;
	ret = link->dev->transport->ep_create(link->dev, &opts, &p->base.ep);
	if (ret == -ENODEV)
		link_lost(node, link);
	if (ret)
		goto err_free;
	ret = peer_gather(p);
	if (!ret)
		ret = fill_endpoint(p, ours, fds, nr_fds, nr_lent);
	if (ret)
		goto err_ep;
	node->peers[node->nr_peers++] = p;
	*out = p;
	return 0;

err_ep:
	while (*nr_fds > *nr_lent)
		close(fds[--*nr_fds]);
	wfi_gather_close(p->base.gather);
	link->dev->transport->ep_destroy(p->base.ep);
err_free:
	wfi_free(node->env, p, sizeof(*p));
	return ret;
}

static int rkey_take(struct node_peer *p, const struct wire_arena *arena, int fd,
		     struct weft_rkey **rkey)
{
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_BLOB,
		.access = WEFT_ACCESS_REMOTE_READ,
		.fd = fd,
		.blob = arena->blob,
		.blob_len = arena->blob_len,
	};

	if (*rkey)
		return -EPROTO;
	return p->link->dev->transport->rkey_import(p->base.ep, &src, rkey);
}

static int arena_import(struct node_peer *p, unsigned tenant, const struct wire_arena *arena,
			int fd)
{
	int ret = rkey_take(p, arena, fd, &p->arenas[tenant].rkey);

	if (ret)
		return ret;
	p->arenas[tenant].local = p->link->arenas[tenant];
	if (p->base.gather)
		p->arenas[tenant].name = arena->gather;
	return 0;
}

static int shard_import(struct node_peer *p, const struct wire_arena *arena, int fd)
{
	int ret = rkey_take(p, arena, fd, &p->shard);

	if (ret)
		return ret;
	p->base.shard = p->link->dev->transport->rkey_ptr(p->shard);
	p->base.shard_len = p->shard->len;
	return 0;
}

static int import_all(struct node_peer *p, const struct wire_endpoint *theirs, const int *fds)
{
	struct node *node = p->node;
	unsigned i, t;
	int fd, ret;

	fds += theirs->addr_fds;
	for (i = 0; i < theirs->nr_arenas; i++) {
		fd = theirs->arenas[i].has_fd ? *fds++ : -1;
		if (theirs->arenas[i].tag == WIRE_SHARD_TAG && takes_files(p)) {
			ret = shard_import(p, &theirs->arenas[i], fd);
			if (ret)
				return ret;
			continue;
		}
		for (t = 0; t < node->nr_tenants; t++)
			if (node->tags[t] == theirs->arenas[i].tag)
				break;
		if (t == node->nr_tenants)
			continue;
		ret = arena_import(p, t, &theirs->arenas[i], fd);
		if (ret)
			return ret;
	}
	return 0;
}

/* tickets name nodes by id */
static int id_check(const struct node_peer *p, const struct wire_hello *who)
{
	const struct node_peer *other;
	unsigned i;

	for (i = 0; i < p->node->nr_peers; i++) {
		other = p->node->peers[i];
		if (!other->connected || other->base.node != who->node ||
		    !strcmp(other->name, who->name))
			continue;
		wfi_err("peers %s and %s have one node id, %#llx: give each node its own name or "
			"node_id",
			other->name, who->name, (unsigned long long)who->node);
		return -EADDRINUSE;
	}
	return 0;
}

static void peers_show(struct node *node)
{
	unsigned i, nr = 0;

	for (i = 0; i < node->nr_peers; i++)
		nr += node->peers[i]->connected;
	wfi_gauge_set(node->peers_up, nr);
}

int peer_connect(struct node_peer *p, const struct wire_hello *who,
		 const struct wire_endpoint *theirs, const int *fds, unsigned nr_fds)
{
	struct node *node = p->node;
	struct weft_ep_peer peer = {
		.size = sizeof(peer),
		.pid = p->pid,
		.blob = theirs->addr,
		.blob_len = theirs->addr_len,
		.fds = fds,
		.nr_fds = theirs->addr_fds,
	};
	unsigned i, need = theirs->addr_fds;
	int ret;

	for (i = 0; i < theirs->nr_arenas; i++)
		need += theirs->arenas[i].has_fd;
	if (need != nr_fds) {
		wfi_warn("peer %s tells of %u files and sends %u: hung up", who->name, need,
			 nr_fds);
		return -EPROTO;
	}
	ret = id_check(p, who);
	if (!ret)
		ret = p->link->dev->transport->ep_connect(p->base.ep, &peer);
	if (!ret)
		ret = import_all(p, theirs, fds);
	if (ret)
		return ret;
	memcpy(p->name, who->name, sizeof(p->name));
	p->base.node = who->node;
	if (node->nr_nets > 1 && p->link != &node->host) {
		ret = rails_join(p, who->incarnation);
		if (ret)
			return ret;
	}
	p->connected = true;
	peers_show(node);
	if (wfi_cluster_peer_add(node->cluster, &p->base, who->incarnation))
		wfi_warn("peer %s: one more than this node can share blocks with", p->name);
	wfi_info("peer %s is connected over %s", p->name, p->link->dev->transport->name);
	return 0;
}

void peer_detach(struct node_peer *p)
{
	struct node *node = p->node;
	unsigned i;

	for (i = 0; i < node->nr_peers; i++)
		if (node->peers[i] == p)
			node->peers[i] = node->peers[--node->nr_peers];
	p->connected = false;
	peers_show(node);
	rails_leave(p);
	wfi_handoffs_peer_lost(node->handoffs, &p->base);
	wfi_channels_peer_lost(node->channels, &p->base);
	wfi_cluster_peer_lost(node->cluster, &p->base);
	p->ep_down = true;
	p->link->dev->transport->ep_shutdown(p->base.ep);
	p->next_ending = node->ending_peers;
	node->ending_peers = p;
	node->nr_ending++;
}

bool peer_end_poll(struct node_peer *p)
{
	struct node *node = p->node;
	const struct weft_transport *t = p->link->dev->transport;
	unsigned i;

	/* transfers from this peer complete before WEFT_WC_CLOSED; their handoffs have ended with
	 * it */
	if (!p->ep_owner.closed || rails_open(p) ||
	    wfi_handoffs_reads_of(node->handoffs, p->base.ep) ||
	    wfi_channels_reads_of(node->channels, p->base.ep) ||
	    wfi_cluster_reads_of(node->cluster, p->base.ep))
		return false;
	for (i = 0; i < node->nr_tenants; i++)
		if (p->arenas[i].rkey)
			t->rkey_destroy(p->arenas[i].rkey);
	if (p->shard)
		t->rkey_destroy(p->shard);
	wfi_gather_close(p->base.gather);
	t->ep_destroy(p->base.ep);
	rails_put(p);
	wfi_free(node->env, p, sizeof(*p));
	node->nr_ending--;
	return true;
}

struct wfi_peer *peer_find(struct node *node, uint64_t node_id)
{
	unsigned i;

	for (i = 0; i < node->nr_peers; i++)
		if (node->peers[i]->connected && node->peers[i]->base.node == node_id)
			return &node->peers[i]->base;
	return NULL;
}

static void peer_break(struct node_peer *p)
{
	p->broken = true;
	node_poke(p->node);
}

static bool pages_gone(const struct node_peer *p, const struct weft_rkey *rkey)
{
	return rkey && wfi_guard_hit(p->link->dev->transport->rkey_ptr(rkey));
}

void peers_guard(struct node *node)
{
	unsigned i, k;

	for (i = 0; i < node->nr_peers; i++) {
		struct node_peer *p = node->peers[i];
		bool gone = pages_gone(p, p->shard);

		for (k = 0; k < node->nr_tenants; k++)
			gone |= pages_gone(p, p->arenas[k].rkey);
		if (!gone || p->broken)
			continue;
		wfi_err("peer %s: pages of its memory are gone: dropped", p->name);
		peer_break(p);
	}
}

/* Return: 0, -EPROTO */
static int peer_message(struct node_peer *p, const struct weft_wc *wc)
{
	struct node *node = p->node;
	uint64_t now_ns = wfi_now(node->env);
	uint32_t type;

	if (wc->len < sizeof(type))
		return -EPROTO;
	memcpy(&type, wc->data, sizeof(type));
	if (type >= WFI_MSG_CHANNEL_JOIN && type <= WFI_MSG_CHANNEL_END)
		return wfi_channels_message(node->channels, &p->base, wc->data, wc->len, now_ns);
	if (type >= WFI_CLUSTER_MSG_FIRST)
		return wfi_cluster_message(node->cluster, &p->base, wc->data, wc->len, now_ns);
	return wfi_handoffs_message(node->handoffs, &p->base, wc->data, wc->len, now_ns);
}

static void peer_event(struct node_peer *p, const struct weft_wc *wc)
{
	/* the link of small pieces hears of the end, too, and of all that comes before it */
	int ret = p->base.gather ? wfi_gather_event(p->base.gather, wc) : 0;

	if (p->ep_down || p->broken || ret > 0)
		return;
	if (wc->op == WEFT_WC_CLOSED) {
		peer_break(p);
	} else if (ret < 0 || (wc->op == WEFT_WC_RECV && peer_message(p, wc))) {
		wfi_warn("peer %s sent what is no message of this version: dropped", p->name);
		peer_break(p);
	}
}

/* a transfer could only be fenced by shutting the endpoint down: the engine has to attach again */
static void session_lost(struct session *s)
{
	if (!s->ending)
		s->broken = true;
}

int peers_hear(struct node *node, struct node_link *link)
{
	struct weft_wc wcs[WCS_MAX];
	struct ep_owner *owner;
	int nr, i;

	nr = weft_cq_poll(link->recv_cq, wcs, WCS_MAX);
	for (i = 0; i < nr; i++) {
		owner = wcs[i].ep->ctx;
		if (wcs[i].op == WEFT_WC_CLOSED)
			owner->closed = true;
		if (owner->kind == EP_GPU)
			gpu_ep_closed(node, owner, wcs[i].status);
		if (owner->kind == EP_GPU || owner->kind == EP_TIER)
			continue;
		if (wcs[i].op == WEFT_WC_CLOSED && wcs[i].scope == WEFT_SCOPE_DEVICE)
			link_lost(node, link);
		if (owner->kind == EP_PEER)
			peer_event(wfi_container_of(owner, struct node_peer, ep_owner), &wcs[i]);
		else if (owner->kind == EP_SESSION && owner->closed)
			session_lost(wfi_container_of(owner, struct session, ep_owner));
	}
	return nr;
}

int peers_poll(struct node *node)
{
	int work = peers_hear(node, &node->host);
	unsigned i;

	if (node->gpu.dev)
		work += peers_hear(node, &node->gpu);
	for (i = 0; i < node->nr_nets; i++)
		if (node->nets[i].dev)
			work += peers_hear(node, &node->nets[i]);
	return work;
}
