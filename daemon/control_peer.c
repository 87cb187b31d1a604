/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_peer.c - what nodes say to each other: hello, endpoint, and what may come later
 *
 * Nodes of one host meet on unix sockets, which carry the files of their arenas; nodes of two hosts
 * on TCP (control_net.c). Both sides say who they are first. Only who was let in by that, and by
 * what it has proved, gets an endpoint: strangers cost a connection and nothing else.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control_private.h"
#include "listen.h"
#include "weft_internal/ctl.h"
#include "weft_internal/log.h"

#define SAY_NS (60 * WFI_NSEC_PER_SEC) /* before the log has one failure again */
#define RETRY_DOUBLED_MAX 2 /* times that the wait is, for a peer that refuses: up to 1 s */

struct peer_call {
	struct conn *k;
	const char *addr;
	struct wire_endpoint ours;
	const struct stream_msg *theirs;
	int fds[WIRE_FDS_MAX];
	unsigned nr_fds, nr_lent;
	bool draining;
	int ret;
};

static struct node_link *link_of(struct node *node, const struct conn *k)
{
	return k->stream ? &node->nets[k->rail] : &node->host;
}

static const char *addr_of(const struct control *c, const struct conn *k)
{
	return k->dial ? c->peers[k->dial - 1].addr : "";
}

/* ---- failures ---- */

/* Return: the log is to have it: it is new, or was last said long ago */
static bool is_news(const char *was, const char *why, uint64_t now_ns, uint64_t *said_ns)
{
	if (*said_ns && !strcmp(was, why) && now_ns - *said_ns < SAY_NS)
		return false;
	*said_ns = now_ns;
	return true;
}

static void dial_failed(struct control *c, struct conn *k, const char *why)
{
	struct dial *d = &c->dials[k->dial - 1];
	const struct control_peer *p = &c->peers[k->dial - 1];
	uint64_t now_ns = wfi_now(c->env), wait_ms;

	if (is_news(d->why, why, now_ns, &d->said_ns))
		wfi_warn("peer %s (%s) %s", p->name, p->addr, why);
	memmove(d->why, why, strlen(why) + 1);
	/* a node that is not up yet is looked for often, one that refuses a little less so */
	wait_ms = REDIAL_MS;
	if (k->stream && k->stream->connected)
		wait_ms <<= wfi_min(d->failed, RETRY_DOUBLED_MAX);
	d->next_ns = now_ns + wait_ms * WFI_NSEC_PER_MSEC;
	d->failed++;
}

static void refused_add(struct control *c, const struct conn *k, const char *why)
{
	struct refused *r = c->refused, *oldest = r;
	uint64_t now_ns = wfi_now(c->env);
	char from[INET_TEXT];

	inet_peer(k->fd, from);
	for (; r < c->refused + REFUSED_MAX && strcmp(r->from, from); r++)
		if (r->last_ns < oldest->last_ns)
			oldest = r;
	if (r == c->refused + REFUSED_MAX) {
		r = oldest;
		*r = (struct refused){ .times = 0 };
		strcpy(r->from, from);
	}
	if (is_news(r->why, why, now_ns, &r->said_ns))
		wfi_warn("%s%s%s, who connects as a peer, %s", k->who.name,
			 k->who.name[0] ? " of " : "", from, why);
	snprintf(r->why, sizeof(r->why), "%s", why);
	r->last_ns = now_ns;
	r->times++;
}

void peer_note(struct control *c, struct conn *k, const char *why)
{
	if (k->dial)
		dial_failed(c, k, why);
	else if (k->kind == CONN_PEER)
		wfi_info("peer %s %s", k->who.name, why);
	else if (k->stream)
		refused_add(c, k, why);
	else
		wfi_warn("process %d, which connects as a peer, %s", (int)k->pid, why);
}

/* ---- what we say ---- */

static int say(struct control *c, struct conn *k, enum wire_kind type, const void *body, size_t len,
	       const int *fds, unsigned nr_fds)
{
	struct {
		struct wire_head head;
		unsigned char body[WIRE_BODY_MAX];
	} msg;

	if (k->stream)
		return net_send(c, k, type, body, len);
	wire_head_fill(&msg.head, type, len);
	memcpy(msg.body, body, len);
	return wfi_ctl_send(k->fd, &msg, sizeof(msg.head) + len, fds, nr_fds);
}

int peer_greet(struct control *c, struct conn *k)
{
	struct wire_hello who;

	peer_hello(c->node, link_of(c->node, k), &who);
	k->greeted = true;
	return say(c, k, WIRE_HELLO, &who, sizeof(who), NULL, 0);
}

static int say_state(struct control *c, struct conn *k)
{
	const struct wire_state state = { .draining = c->node->draining };

	return say(c, k, WIRE_STATE, &state, sizeof(state), NULL, 0);
}

void peers_tell_state(struct control *c)
{
	struct conn *k;

	members_drain(c);
	for (k = c->conns; k; k = k->next)
		if (k->kind == CONN_PEER && !k->closing && say_state(c, k))
			k->closing = true;
}

int peer_refuse(struct control *c, struct conn *k, const char *why)
{
	struct wire_refuse msg = { .why = "" };
	int ret;

	snprintf(msg.why, sizeof(msg.why), "%s", why);
	ret = say(c, k, WIRE_REFUSE, &msg, sizeof(msg), NULL, 0);
	k->kind = CONN_REFUSED;
	k->since_ns = wfi_now(c->env);
	return ret;
}

static void run_create(struct node *node, void *arg)
{
	struct peer_call *p = arg;

	p->ret = peer_create(node, link_of(node, p->k), p->addr, p->k->pid, &p->k->peer, &p->ours,
			     p->fds, &p->nr_fds, &p->nr_lent);
}

static int say_endpoint(struct control *c, struct conn *k)
{
	struct peer_call p = { .k = k, .addr = addr_of(c, k) };
	int ret;

	node_call(c->node, run_create, &p);
	if (p.ret) {
		wfi_warn("no endpoint for peer %s: %s", k->who.name, strerror(-p.ret));
		return p.ret;
	}
	ret = say(c, k, WIRE_ENDPOINT, &p.ours, wire_endpoint_len(&p.ours), p.fds, p.nr_fds);
	while (p.nr_fds > p.nr_lent)
		close(p.fds[--p.nr_fds]);
	return ret;
}

/* ---- what they say ---- */

/* Return: 0; else @ours has why it is not let in, for the log, and @theirs the same for them */
static int who_check(struct control *c, const struct conn *k, char ours[SECURE_WHY],
		     char theirs[SECURE_WHY])
{
	const char *transport = link_of(c->node, k)->transport->name, *proved = NULL;
	const struct wire_hello *who = &k->who;

	if (k->stream)
		proved = stream_proved(k->stream);
	if (strcmp(who->transport, transport)) {
		snprintf(ours, SECURE_WHY,
			 "reaches others over %s, this node over %s: set one transport on both",
			 who->transport, transport);
		snprintf(theirs, SECURE_WHY, "it reaches others over %s and not over %s", transport,
			 who->transport);
	} else if (proved && strcmp(who->name, proved)) {
		snprintf(ours, SECURE_WHY,
			 "calls itself %s, and its certificate is that of node %s: give it its own",
			 who->name, proved);
		snprintf(theirs, SECURE_WHY, "node %s has shown a certificate of node %s",
			 who->name, proved);
	} else if (proved && k->dial && strcmp(proved, c->peers[k->dial - 1].name)) {
		snprintf(ours, SECURE_WHY,
			 "is node %s: correct the name or the address of this peer", proved);
		snprintf(theirs, SECURE_WHY, "it looked for node %s at this address",
			 c->peers[k->dial - 1].name);
	} else if (who->node == c->node->id) {
		/* ours would be taken for the peer's, and the other way round */
		snprintf(ours, SECURE_WHY,
			 "has this node's id, %#llx: give each node its own name or node_id",
			 (unsigned long long)who->node);
		snprintf(theirs, SECURE_WHY, "it has the id of node %s, %#llx", who->name,
			 (unsigned long long)who->node);
	} else {
		return member_check(c, who, ours, theirs);
	}
	return -EACCES;
}

static int on_hello(struct control *c, struct conn *k, const struct stream_msg *msg)
{
	char ours[SECURE_WHY], theirs[SECURE_WHY];

	if (k->who.name[0])
		return -EPROTO;
	k->who = *(const struct wire_hello *)msg->body;
	if (who_check(c, k, ours, theirs)) {
		peer_note(c, k, ours);
		return peer_refuse(c, k, theirs);
	}
	return say_endpoint(c, k);
}

static int on_refuse(struct control *c, struct conn *k, const struct stream_msg *msg)
{
	const struct wire_refuse *r = msg->body;
	char why[SECURE_WHY + sizeof(r->why)];

	snprintf(why, sizeof(why), "refuses this node: %s", r->why);
	why[SECURE_WHY - 1] = 0;
	peer_note(c, k, why);
	k->closing = true;
	return 0;
}

static void run_connect(struct node *node, void *arg)
{
	struct peer_call *p = arg;

	(void)node;
	p->ret = peer_connect(p->k->peer, &p->k->who, p->theirs->body, p->theirs->fds,
			      p->theirs->nr_fds);
}

static int on_endpoint(struct control *c, struct conn *k, const struct stream_msg *msg)
{
	struct peer_call p = { .k = k, .theirs = msg };

	if (!k->peer || k->kind != CONN_PEER_WAIT)
		return -EPROTO;
	node_call(c->node, run_connect, &p);
	if (p.ret)
		return p.ret;
	k->kind = CONN_PEER;
	if (k->dial) {
		c->dials[k->dial - 1].failed = 0;
		c->dials[k->dial - 1].why[0] = 0;
		c->dials[k->dial - 1].said_ns = 0;
	}
	return c->node->draining ? say_state(c, k) : 0;
}

static void run_state(struct node *node, void *arg)
{
	struct peer_call *p = arg;

	p->k->peer->draining = p->draining;
	wfi_cluster_peer_leaves(node->cluster, &p->k->peer->base, p->draining);
}

static int on_state(struct control *c, struct conn *k, const struct stream_msg *msg)
{
	const struct wire_state *s = msg->body;
	struct peer_call p = { .k = k, .draining = s->draining };

	if (k->kind != CONN_PEER)
		return -EPROTO;
	node_call(c->node, run_state, &p);
	wfi_info("peer %s %s", k->who.name, s->draining ? "drains: it is about to leave" : "stays");
	return 0;
}

/* by enum wire_kind. Context of all: the control thread; what concerns the worker goes there by
 * node_call(). Return: 0, -EPROTO it has no place here, other -errno: hang up */
static int (*const on_message[WIRE_NR])(struct control *c, struct conn *k,
					const struct stream_msg *msg) = {
	[WIRE_HELLO] = on_hello,
	[WIRE_REFUSE] = on_refuse,
	[WIRE_ENDPOINT] = on_endpoint,
	[WIRE_STATE] = on_state,
};

int peer_message(struct control *c, struct conn *k, const struct stream_msg *msg)
{
	/* what it says now is of no interest any more */
	if (k->kind == CONN_REFUSED)
		return 0;
	if (msg->nr_fds && msg->type != WIRE_ENDPOINT)
		return -EPROTO;
	return on_message[msg->type](c, k, msg);
}

/* ---- nodes of this host ---- */

int peer_hear(struct control *c, struct conn *k)
{
	struct {
		struct wire_head head;
		unsigned char body[WIRE_BODY_MAX];
	} in __attribute__((aligned(8)));
	int fds[WIRE_FDS_MAX], ret;
	struct stream_msg msg = { .body = in.body, .fds = fds };
	ssize_t len;

	len = wfi_ctl_recv(k->fd, &in, sizeof(in), fds, WIRE_FDS_MAX, &msg.nr_fds);
	if (len < 0)
		return (int)len;
	ret = wire_datagram(&in, (size_t)len);
	if (!ret) {
		msg.type = (enum wire_kind)in.head.type;
		msg.len = in.head.len;
		ret = peer_message(c, k, &msg);
	} else if (ret == -EPROTONOSUPPORT) {
		wfi_warn("a peer speaks version %u, this node %u: run one release on both",
			 in.head.version, WIRE_VERSION);
	}
	while (msg.nr_fds)
		close(fds[--msg.nr_fds]);
	return ret;
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
	return peer_greet(c, k);
}

void peer_dial_host(struct control *c, unsigned idx)
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
	c->dials[idx].open = true;
	peer_wait(c, k);
	if (!conn_is_keeper(k) || wfi_ctl_send(fd, &req, sizeof(req), NULL, 0) || peer_greet(c, k))
		k->closing = true;
}

/* ---- weft status ---- */

static bool is_connected(const struct control *c, unsigned idx)
{
	const struct conn *k;

	for (k = c->conns; k; k = k->next)
		if (k->dial == idx + 1 && k->kind == CONN_PEER)
			return true;
	return false;
}

json_t *peer_dials_json(const struct control *c)
{
	json_t *list = json_array();
	const struct control_peer *p;
	unsigned i;

	for (i = 0; i < c->nr_peers; i++) {
		p = &c->peers[i];
		if (!p->addr || is_connected(c, i))
			continue;
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", p->name, "address",
					p->addr, "transport",
					(p->net ? &c->node->nets[p->rail] : &c->node->host)
						->transport->name,
					"state", c->dials[i].why[0] ? "failing" : "connecting",
					"why", c->dials[i].why));
	}
	return list;
}
