/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_member.c - peers that come and go with the membership
 *
 * Members are dialled as configured peers are, in places behind theirs. Whom, and who may stay,
 * says roster.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "control_private.h"
#include "roster.h"
#include "value.h"
#include "weft_internal/log.h"

/* where one member is dialled, over one rail; a place of c->peers */
struct member_dial {
	uint64_t node; /* 0: free */
	uint64_t incarnation;
	bool net;
	unsigned rail;
	char name[64];
	char addr[INET_TEXT];
};

struct control_members {
	struct roster roster;
	unsigned first; /* of c->peers: configured ones come before */
	struct member_dial dials[NODE_PEERS_MAX];
	const struct control_membership *opts;
};

/* where this node is reached */
static void self_places(const struct control *c, struct wfi_member *self)
{
	size_t used = 0;
	unsigned i;

	snprintf(self->socket, sizeof(self->socket), "%s", c->socket);
	for (i = 0; i < c->nr_net_fds && used < sizeof(self->addr); i++)
		used += (size_t)snprintf(self->addr + used, sizeof(self->addr) - used, "%s%s",
					 i ? "," : "", c->listens[i]);
	/* addresses that can't all be told */
	if (used >= sizeof(self->addr)) {
		wfi_warn("membership: the addresses of %u rails are longer than a record has room "
			 "for: only the first is told",
			 c->nr_net_fds);
		snprintf(self->addr, sizeof(self->addr), "%s", c->listens[0]);
	}
}

static int members_init(struct control *c, const struct control_opts *opts)
{
	c->members = wfi_alloc(c->env, sizeof(*c->members));
	if (!c->members)
		return -ENOMEM;
	c->members->opts = opts->membership;
	c->members->first = opts->nr_peers;
	roster_init(&c->members->roster, c->node, opts->membership->host);
	self_places(c, &c->members->roster.self);
	roster_publish(&c->members->roster, c->node->draining);
	return 0;
}

int peers_init(struct control *c, const struct control_opts *opts)
{
	unsigned i;

	c->peers_room = opts->nr_peers + (opts->membership ? NODE_PEERS_MAX : 0);
	c->peers = wfi_alloc(c->env, (c->peers_room + 1) * sizeof(*c->peers));
	c->dials = wfi_alloc(c->env, (c->peers_room + 1) * sizeof(*c->dials));
	if (!c->peers || !c->dials)
		return -ENOMEM;
	for (i = 0; i < opts->nr_peers; i++)
		c->peers[i] = opts->peers[i];
	c->nr_peers = opts->nr_peers;
	return opts->membership ? members_init(c, opts) : 0;
}

void peers_fini(struct control *c)
{
	if (c->peers)
		wfi_free(c->env, c->peers, (c->peers_room + 1) * sizeof(*c->peers));
	if (c->dials)
		wfi_free(c->env, c->dials, (c->peers_room + 1) * sizeof(*c->dials));
	if (c->members)
		wfi_free(c->env, c->members, sizeof(*c->members));
}

void members_drain(struct control *c)
{
	if (c->members)
		roster_publish(&c->members->roster, c->node->draining);
}

/* ---- whom to dial ---- */

static bool is_configured(const struct control *c, const char *name)
{
	unsigned i;

	for (i = 0; i < c->members->first; i++)
		if (!strcmp(c->peers[i].name, name))
			return true;
	return false;
}

static struct member_dial *dial_find(struct control_members *ms, const struct member_dial *want)
{
	unsigned i;

	for (i = 0; i < NODE_PEERS_MAX; i++) {
		const struct member_dial *d = &ms->dials[i];

		if (d->node == want->node && d->incarnation == want->incarnation &&
		    d->net == want->net && d->rail == want->rail && !strcmp(d->addr, want->addr))
			return &ms->dials[i];
	}
	return NULL;
}

static void dial_add(struct control *c, const struct member_dial *want, bool *kept)
{
	struct control_members *ms = c->members;
	struct member_dial *d = dial_find(ms, want);
	unsigned i;

	if (d) {
		kept[d - ms->dials] = true;
		return;
	}
	for (i = 0; i < NODE_PEERS_MAX && ms->dials[i].node; i++)
		;
	if (i == NODE_PEERS_MAX) {
		wfi_warn("membership: no room to connect to %s: a node has %u peers at most",
			 want->name, NODE_PEERS_MAX);
		return;
	}
	kept[i] = true;
	ms->dials[i] = *want;
	c->dials[ms->first + i] = (struct dial){ .open = false };
	c->peers[ms->first + i] = (struct control_peer){ .name = ms->dials[i].name,
							 .addr = ms->dials[i].addr,
							 .net = want->net,
							 .rail = want->rail };
	c->nr_peers = wfi_max(c->nr_peers, ms->first + i + 1);
}

/* the places for one member */
static void member_dial(struct control *c, const struct wfi_member *m, bool *kept)
{
	struct member_dial want = { .node = m->node, .incarnation = m->incarnation };
	char text[sizeof(m->addr)];
	const char *addrs[NODE_NETS_MAX];
	unsigned nr, i;

	snprintf(want.name, sizeof(want.name), "%s", m->name);
	if (m->socket[0] && roster_same_host(&c->members->roster, m)) {
		snprintf(want.addr, sizeof(want.addr), "%s", m->socket);
		dial_add(c, &want, kept);
		return;
	}
	memcpy(text, m->addr, sizeof(text));
	nr = wfi_value_split(text, addrs, NODE_NETS_MAX);
	want.net = true;
	for (i = 0; i < nr && i < c->node->nr_nets; i++) {
		want.rail = i;
		snprintf(want.addr, sizeof(want.addr), "%s", addrs[i]);
		dial_add(c, &want, kept);
	}
}

static void dial_drop(struct control *c, unsigned i)
{
	const unsigned idx = c->members->first + i;
	struct conn *k;

	/* its text is shown until it is closed */
	for (k = c->conns; k; k = k->next) {
		if (k->dial != idx + 1)
			continue;
		k->dial = 0;
		k->closing = true;
	}
	c->members->dials[i].node = 0;
	c->peers[idx] = (struct control_peer){ .addr = NULL };
	c->dials[idx] = (struct dial){ .open = false };
}

static void dials_sync(struct control *c)
{
	struct control_members *ms = c->members;
	bool kept[NODE_PEERS_MAX] = { false };
	const struct roster *r = &ms->roster;
	const struct wfi_member *m;
	unsigned i;

	for (m = r->list; m < r->list + r->nr; m++)
		if (roster_calls(r, m) && !is_configured(c, m->name))
			member_dial(c, m, kept);
	for (i = 0; i < NODE_PEERS_MAX; i++)
		if (ms->dials[i].node && !kept[i])
			dial_drop(c, i);
}

/* ---- who may stay ---- */

int member_check(const struct control *c, const struct wire_hello *who, char ours[SECURE_WHY],
		 char theirs[SECURE_WHY])
{
	if (!c->members || is_configured(c, who->name))
		return 0;
	return roster_check(&c->members->roster, who, ours, theirs);
}

static void conns_check(struct control *c)
{
	char ours[SECURE_WHY], theirs[SECURE_WHY];
	struct conn *k;

	for (k = c->conns; k; k = k->next) {
		if ((k->kind != CONN_PEER && k->kind != CONN_PEER_WAIT) || k->closing ||
		    !k->who.name[0] || !member_check(c, &k->who, ours, theirs))
			continue;
		wfi_info("peer %s %s: dropped", k->who.name, ours);
		k->closing = true;
	}
}

static void conns_renew(struct control *c)
{
	struct conn *k;

	for (k = c->conns; k; k = k->next)
		if (k->kind == CONN_PEER || k->kind == CONN_PEER_WAIT)
			k->closing = true;
}

void members_poll(struct control *c)
{
	struct control_members *ms = c->members;

	if (!ms || !roster_poll(&ms->roster))
		return;
	dials_sync(c);
	conns_check(c);
	if (ms->opts->changed(ms->opts->ctx))
		conns_renew(c);
}

/* ---- weft status, weft members ---- */

static json_t *member_json(const struct roster *r, const struct wfi_member *m)
{
	char node[24], incarnation[24];

	snprintf(node, sizeof(node), "%#" PRIx64, m->node);
	snprintf(incarnation, sizeof(incarnation), "%#" PRIx64, m->incarnation);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:s, s:s, s:s, s:s}", "name", m->name,
			 "id", node, "incarnation", incarnation, "epoch", (json_int_t)m->epoch,
			 "capacity", (json_int_t)m->capacity, "draining",
			 !!(m->flags & WFI_MEMBER_DRAINING), "self", m->node == r->self.node,
			 "socket", m->socket, "address", m->addr, "transport", m->transport,
			 "version", m->version);
}

json_t *members_json(const struct control *c)
{
	const struct control_members *ms = c->members;
	json_t *root, *list;
	unsigned i;

	if (!ms)
		return NULL;
	root = ms->opts->status(ms->opts->ctx);
	list = json_array();
	for (i = 0; i < ms->roster.nr; i++)
		json_array_append_new(list, member_json(&ms->roster, &ms->roster.list[i]));
	json_object_set_new(root, "members", list);
	return root;
}
