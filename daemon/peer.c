/* SPDX-License-Identifier: Apache-2.0 */
/* peer.c - another node on this host: its endpoint, its arenas to read from, its messages */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/log.h"

#define WCS_MAX 16u

static int peer_send(struct wfi_peer *base, const void *msg, size_t len)
{
	struct node_peer *p = wfi_container_of(base, struct node_peer, base);

	if (!p->connected || p->ep_down)
		return -ENOTCONN;
	return weft_ep_post_send(base->ep, msg, (uint32_t)len, 0, WEFT_POST_QUIET);
}

static struct weft_rkey *peer_arena(struct wfi_peer *base, const struct wfi_tenant *tenant)
{
	struct node_peer *p = wfi_container_of(base, struct node_peer, base);
	unsigned i;

	for (i = 0; i < p->node->nr_tenants; i++)
		if (p->node->tenants[i] == tenant)
			return p->arenas[i];
	return NULL;
}

/* read-only rights to our arenas, each with the file that the peer maps */
static int hello_tenants(struct node *node, struct peer_hello *hello, int fds[PEER_FDS_MAX],
			 unsigned *nr_fds)
{
	struct weft_export_opts opts = { .size = sizeof(opts), .access = WEFT_ACCESS_REMOTE_READ };
	struct weft_export e;
	unsigned i;
	int ret;

	if (node->nr_tenants > PEER_TENANTS_MAX)
		wfi_warn_once("of %u tenants the first %u can hand blocks over to other nodes",
			      node->nr_tenants, PEER_TENANTS_MAX);
	for (i = 0; i < node->nr_tenants && i < PEER_TENANTS_MAX; i++) {
		ret = node->shm->transport->mr_export(node->arenas[i], &opts, &e);
		if (ret)
			return ret;
		hello->tenants[i].tag = node->tags[i];
		hello->tenants[i].blob_len = e.blob_len;
		hello->tenants[i].has_fd = e.fd >= 0;
		memcpy(hello->tenants[i].blob, e.blob, e.blob_len);
		if (e.fd >= 0)
			fds[(*nr_fds)++] = e.fd;
		hello->nr_tenants++;
	}
	return 0;
}

static int hello_fill(struct node_peer *p, struct peer_hello *hello, int fds[PEER_FDS_MAX],
		      unsigned *nr_fds, unsigned *nr_lent)
{
	struct node *node = p->node;
	struct weft_ep_addr addr;
	int ret;

	*hello = (struct peer_hello){
		.magic = PEER_MAGIC,
		.version = WEFT_ABI_VERSION,
		.node = node->id,
		.incarnation = wfi_kv_incarnation(node->kv),
	};
	snprintf(hello->name, sizeof(hello->name), "%s", node->name);
	ret = node->shm->transport->ep_addr(p->base.ep, &addr);
	if (ret)
		return ret;
	hello->addr_len = addr.blob_len;
	hello->addr_fds = addr.nr_fds;
	memcpy(hello->addr, addr.blob, addr.blob_len);
	memcpy(fds, addr.fds, addr.nr_fds * sizeof(*fds));
	*nr_fds = *nr_lent = addr.nr_fds;
	return hello_tenants(node, hello, fds, nr_fds);
}

int peer_create(struct node *node, const char *socket, pid_t pid, struct node_peer **out,
		struct peer_hello *hello, int fds[PEER_FDS_MAX], unsigned *nr_fds,
		unsigned *nr_lent)
{
	struct weft_ep_opts opts = {
		.size = sizeof(opts),
		.send_cq = node->send_cq,
		.recv_cq = node->recv_cq,
		.depth = 256,
		.recv_bytes = 2 * WFI_PEER_CREDITS * WFI_PEER_MSG_MAX,
	};
	struct node_peer *p;
	int ret;

	if (node->nr_peers == NODE_PEERS_MAX)
		return -EMFILE;
	p = wfi_alloc(node->env, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->node = node;
	p->pid = pid;
	p->ep_owner.kind = EP_PEER;
	p->base.send = peer_send;
	p->base.arena = peer_arena;
	snprintf(p->socket, sizeof(p->socket), "%s", socket);
	opts.ctx = &p->ep_owner;
	ret = node->shm->transport->ep_create(node->shm, &opts, &p->base.ep);
	if (ret)
		goto err_free;
	ret = hello_fill(p, hello, fds, nr_fds, nr_lent);
	if (ret)
		goto err_ep;
	node->peers[node->nr_peers++] = p;
	*out = p;
	return 0;

err_ep:
	while (*nr_fds > *nr_lent)
		close(fds[--*nr_fds]);
	node->shm->transport->ep_destroy(p->base.ep);
err_free:
	wfi_free(node->env, p, sizeof(*p));
	return ret;
}

static int hello_check(const struct peer_hello *h, unsigned nr_fds)
{
	unsigned i, need = h->addr_fds;

	if (h->magic != PEER_MAGIC || h->version != WEFT_ABI_VERSION ||
	    h->nr_tenants > PEER_TENANTS_MAX || h->addr_len > WEFT_EP_ADDR_MAX ||
	    h->addr_fds > WEFT_EP_FDS_MAX || memchr(h->name, 0, sizeof(h->name)) == NULL)
		return -EPROTO;
	for (i = 0; i < h->nr_tenants; i++) {
		if (h->tenants[i].blob_len > WEFT_RKEY_BLOB_MAX || h->tenants[i].has_fd > 1)
			return -EPROTO;
		need += h->tenants[i].has_fd;
	}
	return need == nr_fds ? 0 : -EPROTO;
}

static int peer_import(struct node_peer *p, unsigned tenant, const struct peer_hello *h, unsigned i,
		       int fd)
{
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_BLOB,
		.access = WEFT_ACCESS_REMOTE_READ,
		.fd = fd,
		.blob = h->tenants[i].blob,
		.blob_len = h->tenants[i].blob_len,
	};

	if (p->arenas[tenant])
		return -EPROTO;
	return p->node->shm->transport->rkey_import(p->base.ep, &src, &p->arenas[tenant]);
}

int peer_connect(struct node_peer *p, const struct peer_hello *hello, const int *fds,
		 unsigned nr_fds)
{
	struct node *node = p->node;
	struct weft_ep_peer peer = { .size = sizeof(peer), .pid = p->pid };
	unsigned i, t, fd;
	int ret;

	ret = hello_check(hello, nr_fds);
	if (ret)
		return ret;
	/* tickets name nodes by id: ours would be taken for the peer's, and the other way round */
	if (hello->node == node->id) {
		wfi_err("peer %s has this node's id, %#llx: give each node its own name or node_id",
			hello->name, (unsigned long long)node->id);
		return -EADDRINUSE;
	}
	peer.blob = hello->addr;
	peer.blob_len = hello->addr_len;
	peer.fds = fds;
	peer.nr_fds = hello->addr_fds;
	ret = node->shm->transport->ep_connect(p->base.ep, &peer);
	if (ret)
		return ret;
	fd = hello->addr_fds;
	for (i = 0; i < hello->nr_tenants; i++) {
		int has = hello->tenants[i].has_fd ? fds[fd++] : -1;

		for (t = 0; t < node->nr_tenants; t++)
			if (node->tags[t] == hello->tenants[i].tag)
				break;
		if (t == node->nr_tenants)
			continue;
		ret = peer_import(p, t, hello, i, has);
		if (ret)
			return ret;
	}
	memcpy(p->name, hello->name, sizeof(p->name));
	p->base.node = hello->node;
	p->connected = true;
	wfi_info("peer %s is connected over shared memory", p->name);
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
	wfi_handoffs_peer_lost(node->handoffs, &p->base);
	p->ep_down = true;
	node->shm->transport->ep_shutdown(p->base.ep);
	p->next_ending = node->ending_peers;
	node->ending_peers = p;
	node->nr_ending++;
}

bool peer_end_poll(struct node_peer *p)
{
	struct node *node = p->node;
	const struct weft_transport *t = node->shm->transport;
	unsigned i;

	/* transfers from this peer complete before WEFT_WC_CLOSED; their handoffs have ended with
	 * it */
	if (!p->ep_owner.closed || wfi_handoffs_reads_of(node->handoffs, p->base.ep))
		return false;
	for (i = 0; i < node->nr_tenants; i++)
		if (p->arenas[i])
			t->rkey_destroy(p->arenas[i]);
	t->ep_destroy(p->base.ep);
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
	uint64_t one = 1;

	p->broken = true;
	if (write(p->node->poke_fd, &one, sizeof(one)) < 0)
		wfi_warn("peer: the control thread can't be woken: %s", strerror(errno));
}

static void peer_event(struct node_peer *p, const struct weft_wc *wc)
{
	if (p->ep_down || p->broken)
		return;
	if (wc->op == WEFT_WC_CLOSED) {
		peer_break(p);
	} else if (wc->op == WEFT_WC_RECV &&
		   wfi_handoffs_message(p->node->handoffs, &p->base, wc->data, wc->len,
					wfi_now(p->node->env))) {
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

int peers_poll(struct node *node)
{
	struct weft_wc wcs[WCS_MAX];
	struct ep_owner *owner;
	int nr, i;

	nr = weft_cq_poll(node->recv_cq, wcs, WCS_MAX);
	for (i = 0; i < nr; i++) {
		owner = wcs[i].ep->ctx;
		if (wcs[i].op == WEFT_WC_CLOSED)
			owner->closed = true;
		if (owner->kind == EP_PEER)
			peer_event(wfi_container_of(owner, struct node_peer, ep_owner), &wcs[i]);
		else if (owner->closed)
			session_lost(wfi_container_of(owner, struct session, ep_owner));
	}
	return nr;
}
