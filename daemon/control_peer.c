/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_peer.c - connections to other nodes: dialled, accepted, and the hello of both sides
 *
 * Nodes of one host meet on unix sockets, which carry the files of their arenas. Nodes of two hosts
 * meet on TCP: the one that was dialled speaks first. Each connection carries one hello a side, and
 * after that nothing but its end.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control_private.h"
#include "inet.h"
#include "listen.h"
#include "weft_internal/ctl.h"
#include "weft_internal/log.h"

#define DIAL_NS (500 * WFI_NSEC_PER_MSEC) /* to a host that does not answer */
#define HELLO_NS (5 * WFI_NSEC_PER_SEC)

struct peer_call {
	struct conn *k;
	const char *addr;
	struct peer_hello hello;
	int fds[PEER_FDS_MAX];
	unsigned nr_fds, nr_lent;
	int ret;
};

static void run_peer_create(struct node *node, void *arg)
{
	struct peer_call *p = arg;
	struct node_link *link = p->k->net ? &node->nets[p->k->rail] : &node->host;

	p->ret = peer_create(node, link, p->addr, p->k->pid, &p->k->peer, &p->hello, p->fds,
			     &p->nr_fds, &p->nr_lent);
}

static void run_peer_connect(struct node *node, void *arg)
{
	struct peer_call *p = arg;

	(void)node;
	p->ret = peer_connect(p->k->peer, &p->hello, p->fds, p->nr_fds);
}

static int hello_send(struct conn *k, const struct peer_call *p)
{
	ssize_t len;

	if (!k->net)
		return wfi_ctl_send(k->fd, &p->hello, sizeof(p->hello), p->fds, p->nr_fds);
	/* the first bytes of a connection: its buffer is larger */
	len = send(k->fd, &p->hello, sizeof(p->hello), MSG_NOSIGNAL | MSG_DONTWAIT);
	return len == sizeof(p->hello) ? 0 : -ECONNRESET;
}

/* our side's hello goes out */
static int peer_say_hello(struct control *c, struct conn *k)
{
	struct peer_call p = { .k = k, .addr = k->dial ? c->peers[k->dial - 1].addr : "" };
	int ret;

	node_call(c->node, run_peer_create, &p);
	if (p.ret) {
		wfi_warn("no endpoint for a peer: %s", strerror(-p.ret));
		return p.ret;
	}
	ret = hello_send(k, &p);
	while (p.nr_fds > p.nr_lent)
		close(p.fds[--p.nr_fds]);
	return ret;
}

/* Return: 0 it is whole, -EAGAIN more has to come, other -errno */
static int hello_recv(struct conn *k, struct peer_call *p)
{
	size_t left = sizeof(p->hello) - k->hello_len;
	ssize_t len;

	if (!k->net) {
		len = wfi_ctl_recv(k->fd, &p->hello, sizeof(p->hello), p->fds, PEER_FDS_MAX,
				   &p->nr_fds);
		if (len < 0)
			return (int)len;
		return len == sizeof(p->hello) ? 0 : -EPROTO;
	}
	len = recv(k->fd, (char *)k->hello + k->hello_len, left, MSG_DONTWAIT);
	if (len <= 0)
		return len < 0 ? -errno : -ECONNRESET;
	k->hello_len += (size_t)len;
	/* who is no node at all need not send all of it to be found out */
	if (k->hello_len >= sizeof(k->hello->magic) && k->hello->magic != PEER_MAGIC)
		return -EPROTO;
	if ((size_t)len < left)
		return -EAGAIN;
	p->hello = *k->hello;
	return 0;
}

int peer_hear_hello(struct control *c, struct conn *k)
{
	struct peer_call p = { .k = k };
	int ret = hello_recv(k, &p);

	/* whom we dialled over TCP speaks first */
	if (!ret && !k->peer)
		ret = peer_say_hello(c, k);
	if (!ret) {
		node_call(c->node, run_peer_connect, &p);
		ret = p.ret;
	}
	while (p.nr_fds)
		close(p.fds[--p.nr_fds]);
	if (!ret)
		k->kind = CONN_PEER;
	return ret == -EAGAIN && k->net ? 0 : ret;
}

static void peer_wait(struct control *c, struct conn *k)
{
	k->kind = CONN_PEER_WAIT;
	k->since_ns = wfi_now(c->env);
}

int peer_accept(struct control *c, struct conn *k)
{
	if (!conn_is_keeper(k)) {
		wfi_warn("user %u may not connect a node to this one: run both as one user",
			 (unsigned)k->uid);
		return -EACCES;
	}
	peer_wait(c, k);
	return peer_say_hello(c, k);
}

/* Return: NULL: no room, @fd is closed */
static struct conn *net_conn(struct control *c, int fd, unsigned rail)
{
	struct conn *k = conn_add(c, fd);

	if (!k)
		return NULL;
	inet_watchful(fd);
	k->net = true;
	k->rail = rail;
	peer_wait(c, k);
	k->hello = wfi_alloc(c->env, sizeof(*k->hello));
	k->closing = !k->hello;
	return k;
}

void peer_accept_net(struct control *c, int fd, unsigned rail)
{
	struct conn *k;

	/* they try again */
	if (c->node->nets[rail].lost) {
		close(fd);
		return;
	}
	k = net_conn(c, fd, rail);
	if (k && !k->closing && peer_say_hello(c, k))
		k->closing = true;
}

static void peer_dial_host(struct control *c, unsigned idx)
{
	struct weft_ctl_req req = { .magic = WEFT_CTL_MAGIC,
				    .version = WEFT_ABI_VERSION,
				    .type = WEFT_CTL_PEER_HELLO };
	struct sockaddr_un addr;
	int fd = unix_socket(c->peers[idx].addr, &addr);
	struct conn *k;

	if (fd < 0)
		return;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return;
	}
	k = conn_add(c, fd);
	if (!k)
		return;
	k->dial = idx + 1;
	c->dialled[idx] = true;
	peer_wait(c, k);
	if (!conn_is_keeper(k) || wfi_ctl_send(fd, &req, sizeof(req), NULL, 0) ||
	    peer_say_hello(c, k))
		k->closing = true;
}

static void peer_dial_net(struct control *c, unsigned idx)
{
	int fd = inet_dial(c->peers[idx].addr);
	struct conn *k = fd < 0 ? NULL : net_conn(c, fd, c->peers[idx].rail);

	if (!k)
		return;
	k->dial = idx + 1;
	c->dialled[idx] = true;
}

struct net_call {
	unsigned rail;
	bool taken;
	struct node_link link;
};

static void run_net_take(struct node *node, void *arg)
{
	struct net_call *n = arg;

	n->taken = link_take(node, &node->nets[n->rail], &n->link);
}

static void run_net_give(struct node *node, void *arg)
{
	struct net_call *n = arg;

	link_give(node, &node->nets[n->rail], &n->link);
}

/* Return: 0, or negative errno: it is not there yet */
static int net_open(struct control *c, const struct node_link *old, struct node_link *link)
{
	const struct weft_transport *t = old->transport;
	const struct node *node = c->node;
	struct weft_probe probe;
	unsigned i;
	int ret;

	/* quietly first: this is asked until it is there */
	ret = t->probe(t, c->env, &probe);
	if (ret)
		return ret;
	ret = link_open(link, c->env, t, old->device[0] ? old->device : NULL);
	if (ret)
		return ret;
	for (i = 0; i < node->nr_tenants && !ret; i++)
		ret = link_arena_add(link, wfi_tenant_arena(node->tenants[i]));
	if (!ret)
		ret = link_watch(c, link);
	if (ret)
		link_close(link);
	return ret;
}

static void net_revive(struct control *c, unsigned rail)
{
	struct net_call n = { .rail = rail };

	if (!c->net_closed[rail]) {
		node_call(c->node, run_net_take, &n);
		if (!n.taken)
			return;
		link_close(&n.link);
		c->net_closed[rail] = true;
	}
	if (net_open(c, &c->node->nets[rail], &n.link))
		return;
	wfi_info("transport %s is open again", n.link.transport->name);
	node_call(c->node, run_net_give, &n);
	c->net_closed[rail] = false;
}

void nets_revive(struct control *c)
{
	uint64_t now_ns = wfi_now(c->env);
	unsigned i;

	if (now_ns < c->revive_ns)
		return;
	c->revive_ns = now_ns + REDIAL_MS * WFI_NSEC_PER_MSEC;
	for (i = 0; i < c->node->nr_nets; i++)
		if (c->node->nets[i].lost)
			net_revive(c, i);
}

void peers_redial(struct control *c)
{
	uint64_t now_ns = wfi_now(c->env);
	unsigned i;

	if (c->stopping || now_ns < c->redial_ns)
		return;
	c->redial_ns = now_ns + REDIAL_MS * WFI_NSEC_PER_MSEC;
	for (i = 0; i < c->nr_peers; i++) {
		if (c->dialled[i] || (c->peers[i].net && c->node->nets[c->peers[i].rail].lost))
			continue;
		if (c->peers[i].net)
			peer_dial_net(c, i);
		else
			peer_dial_host(c, i);
	}
}

bool peer_overdue(const struct control *c, const struct conn *k)
{
	uint64_t age_ns;

	if (k->kind != CONN_PEER_WAIT)
		return false;
	age_ns = wfi_now(c->env) - k->since_ns;
	return age_ns > HELLO_NS || (k->net && k->dial && age_ns > DIAL_NS && inet_pending(k->fd));
}
