/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_net.c - TCP connections to nodes of other hosts: dialled, accepted, secured, watched
 *
 * Nothing here waits for a peer. Who has not proved who it is, and said hello, is a stranger, as
 * those of this host are: it has its time, and few have a place.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "control_private.h"
#include "weft_internal/log.h"

#define REFRESH_NS (1 * WFI_NSEC_PER_SEC) /* between looks at certificates */
#define TURN_MSGS 16u

/* ---- one connection ---- */

static void net_watch(struct control *c, struct conn *k)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = k };

	if (stream_wants_write(k->stream))
		ev.events |= EPOLLOUT;
	if (ev.events != k->events && !epoll_ctl(c->epfd, EPOLL_CTL_MOD, k->fd, &ev))
		k->events = ev.events;
}

int net_send(struct control *c, struct conn *k, enum wire_kind type, const void *body, size_t len)
{
	int ret = stream_send(k->stream, type, body, len);

	net_watch(c, k);
	return ret;
}

/* some of what has come. Return: 0, why it is over */
static int net_hear(struct control *c, struct conn *k)
{
	struct stream_msg msg;
	unsigned nr = 0;
	int ret;

	do {
		ret = stream_next(k->stream, &msg);
		if (ret == -EAGAIN)
			return 0;
		if (ret < 0)
			return ret;
		ret = peer_message(c, k, &msg);
		if (ret == -EPROTO)
			snprintf(k->stream->why, sizeof(k->stream->why),
				 "sent a %s where none belongs", wire_types[msg.type].name);
	} while (!ret && !k->closing && ++nr < TURN_MSGS);
	k->more = nr == TURN_MSGS;
	return ret;
}

static int net_turn(struct control *c, struct conn *k)
{
	int ret = stream_ready(k->stream);

	/* its certificate is good, and its name is not */
	if (ret == -EACCES && k->stream->ready) {
		peer_note(c, k, k->stream->why);
		return peer_refuse(c, k,
				   "the name in this node's certificate is not among those that it "
				   "lets in (tls_allow)");
	}
	if (ret)
		return ret;
	if (!k->greeted && k->kind != CONN_REFUSED)
		ret = peer_greet(c, k);
	if (!ret)
		ret = stream_flush(k->stream);
	return ret ? ret : net_hear(c, k);
}

void net_event(struct control *c, struct conn *k, uint32_t events)
{
	int ret;

	k->more = false;
	ret = net_turn(c, k);
	if (ret == -EAGAIN)
		ret = 0;
	if (!ret && events & (EPOLLHUP | EPOLLERR))
		ret = -ECONNRESET;
	if (!ret) {
		net_watch(c, k);
		return;
	}
	k->closing = true;
	/* who comes and goes without a word, as those do that look whether a port is open, is no
	 * failure; nor is the end of a node */
	if (k->stream->why[0] && k->kind != CONN_REFUSED &&
	    (k->dial || k->kind == CONN_PEER || ret != -ECONNRESET || k->stream->in.have))
		peer_note(c, k, k->stream->why);
}

/* Return: NULL: no room, @fd is closed */
static struct conn *net_conn(struct control *c, int fd, unsigned rail, bool dialled)
{
	struct conn *k = conn_add(c, fd);

	if (!k)
		return NULL;
	inet_watchful(fd);
	k->rail = rail;
	k->kind = CONN_PEER_WAIT;
	k->stream = wfi_alloc(c->env, sizeof(*k->stream));
	if (k->stream && !stream_init(k->stream, c->env, fd, dialled, c->secure))
		return k;
	wfi_warn("control: no memory for a connection");
	k->closing = true;
	return k;
}

/* ---- those who come ---- */

void net_accept(struct control *c, int fd, int listen_fd)
{
	struct conn *k;
	unsigned rail;

	for (rail = 0; c->net_fds[rail] != listen_fd; rail++)
		;
	/* they try again */
	if (c->node->nets[rail].lost) {
		close(fd);
		return;
	}
	strangers_bound(c, true);
	k = net_conn(c, fd, rail, false);
	if (k && !k->closing)
		net_event(c, k, 0);
}

int nets_listen(struct control *c, const struct control_opts *opts)
{
	const unsigned nr_tenants = c->node->nr_tenants;
	struct epoll_event ev = { .events = EPOLLIN };
	unsigned i;
	int *fd;

	if ((opts->nr_peers || opts->nr_listens || opts->socket) && nr_tenants > WIRE_TENANTS_MAX)
		wfi_warn("of %u tenants the first %u can hand blocks over to other nodes",
			 nr_tenants, WIRE_TENANTS_MAX);
	for (i = 0; i < opts->nr_listens; i++) {
		fd = &c->net_fds[i];
		*fd = inet_listen(opts->listens[i], "listen");
		if (*fd < 0)
			return *fd;
		c->nr_net_fds++;
		snprintf(c->listens[i], sizeof(c->listens[i]), "%s", opts->listens[i]);
		ev.data.ptr = fd;
		if (epoll_ctl(c->epfd, EPOLL_CTL_ADD, *fd, &ev))
			return -errno;
	}
	return 0;
}

/* ---- those who are called ---- */

static void dial_net(struct control *c, unsigned idx)
{
	int fd = inet_dial(c->peers[idx].addr);
	struct conn *k = fd < 0 ? NULL : net_conn(c, fd, c->peers[idx].rail, true);

	if (!k)
		return;
	k->dial = idx + 1;
	c->dials[idx].open = true;
	if (!k->closing)
		net_watch(c, k);
}

static void peers_redial(struct control *c, uint64_t now_ns)
{
	unsigned i;

	if (c->stopping || now_ns < c->redial_ns)
		return;
	c->redial_ns = now_ns + REDIAL_MS * WFI_NSEC_PER_MSEC;
	for (i = 0; i < c->nr_peers; i++) {
		if (!c->peers[i].addr || c->dials[i].open || now_ns < c->dials[i].next_ns)
			continue;
		if (!c->peers[i].net)
			peer_dial_host(c, i);
		else if (!c->node->nets[c->peers[i].rail].lost)
			dial_net(c, i);
	}
}

/* ---- devices that failed ---- */

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
	const struct weft_device_opts dev = { .size = sizeof(dev),
					      .name = old->device[0] ? old->device : NULL,
					      .addr = old->addr[0] ? old->addr : NULL,
					      .silent_ms = old->silent_ms };
	const struct node *node = c->node;
	struct weft_probe probe;
	unsigned i;
	int ret;

	/* quietly first: this is asked until it is there */
	ret = t->probe(t, c->env, &probe);
	if (ret)
		return ret;
	ret = link_open(link, c->env, t, &dev);
	if (ret)
		return ret;
	for (i = 0; i < node->nr_tenants && !ret; i++)
		ret = link_arena_add(link, wfi_tenant_arena(node->tenants[i]));
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

static void nets_revive(struct control *c, uint64_t now_ns)
{
	unsigned i;

	if (now_ns < c->revive_ns)
		return;
	c->revive_ns = now_ns + REDIAL_MS * WFI_NSEC_PER_MSEC;
	for (i = 0; i < c->node->nr_nets; i++)
		if (c->node->nets[i].lost)
			net_revive(c, i);
}

/* ---- certificates ---- */

/* who refused the old ones is called at once */
static void refresh(struct control *c, bool now)
{
	unsigned i;

	if (!c->secure->ops->refresh(c->secure, now))
		return;
	for (i = 0; i < c->nr_peers; i++)
		c->dials[i].next_ns = c->dials[i].failed = 0;
}

bool nets_reload(struct control *c)
{
	if (!c->secure)
		return false;
	refresh(c, true);
	return true;
}

void nets_poll(struct control *c)
{
	uint64_t now_ns = wfi_now(c->env);

	members_poll(c);
	nets_revive(c, now_ns);
	if (c->secure && now_ns >= c->refresh_ns) {
		c->refresh_ns = now_ns + REFRESH_NS;
		refresh(c, false);
	}
	peers_redial(c, now_ns);
}

/* ---- weft status ---- */

static json_t *certificate_json(const struct control *c)
{
	const int64_t now_s = (int64_t)(c->env->clock->wall_ns(c->env) / WFI_NSEC_PER_SEC);
	struct secure_info info;

	c->secure->ops->info(c->secure, &info);
	return json_pack("{s:s, s:s, s:I, s:I, s:b, s:I, s:s}", "kind", info.kind, "id", info.id,
			 "expires", (json_int_t)info.expires_s, "expires_in_s",
			 (json_int_t)(info.expires_s - now_s), "expires_soon", (int)info.soon,
			 "loads", (json_int_t)info.loads, "why", info.why);
}

json_t *net_json(const struct control *c)
{
	json_t *root, *listens = json_array(), *refused = json_array();
	const struct refused *r;
	uint64_t now_ns = wfi_now(c->env);
	unsigned i;

	for (i = 0; i < c->nr_net_fds; i++)
		json_array_append_new(listens, json_string(c->listens[i]));
	for (r = c->refused; r < c->refused + REFUSED_MAX; r++)
		if (r->times)
			json_array_append_new(
				refused,
				json_pack("{s:s, s:s, s:I, s:I}", "from", r->from, "why", r->why,
					  "times", (json_int_t)r->times, "age_s",
					  (json_int_t)((now_ns - r->last_ns) / WFI_NSEC_PER_SEC)));
	root = json_pack("{s:o, s:o}", "listen", listens, "refused", refused);
	if (c->secure)
		json_object_set_new(root, "certificate", certificate_json(c));
	if (c->members)
		json_object_set_new(root, "membership", members_json(c));
	return root;
}
