/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "roster.h"
#include "weft_internal/log.h"

static uint64_t arenas_bytes(const struct node *node)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < node->nr_tenants; i++)
		sum += wfi_tenant_arena(node->tenants[i])->len;
	return sum;
}

void roster_init(struct roster *r, const struct node *node, const char *host)
{
	struct wfi_member *self = &r->self;

	memset(r, 0, sizeof(*r));
	r->env = node->env;
	self->node = node->id;
	self->incarnation = wfi_kv_incarnation(node->kv);
	self->born_ns = wfi_now(node->env);
	self->capacity = arenas_bytes(node);
	snprintf(self->name, sizeof(self->name), "%s", node->name);
	snprintf(self->host, sizeof(self->host), "%s", host);
	snprintf(self->version, sizeof(self->version), "%s", WEFT_VERSION);
	if (node->nr_nets)
		snprintf(self->transport, sizeof(self->transport), "%s",
			 node->nets[0].transport->name);
}

void roster_publish(struct roster *r, bool draining)
{
	r->self.flags = draining ? WFI_MEMBER_DRAINING : 0;
	(void)r->env->membership->publish(r->env, &r->self);
}

/* of @nr_was in .was */
static void say_who_left(const struct roster *r, unsigned nr_was)
{
	const struct wfi_member *m;

	for (m = r->was; m < r->was + nr_was; m++)
		if (m->node != r->self.node && !roster_find(r, m->node))
			wfi_info("membership: node %s is no member any more%s", m->name,
				 m->flags & WFI_MEMBER_DRAINING ? ": it has drained" : "");
}

bool roster_poll(struct roster *r)
{
	const uint64_t changes = r->env->membership->changes(r->env);
	const unsigned nr_was = r->nr;
	int nr;

	if (changes == r->changes)
		return false;
	r->changes = changes;
	memcpy(r->was, r->list, nr_was * sizeof(r->list[0]));
	nr = r->env->membership->members(r->env, r->list, WFI_MEMBERS_MAX, &r->epoch);
	r->nr = nr < 0 ? 0 : (unsigned)nr;
	say_who_left(r, nr_was);
	return true;
}

const struct wfi_member *roster_find(const struct roster *r, uint64_t node)
{
	unsigned i;

	for (i = 0; i < r->nr; i++)
		if (r->list[i].node == node)
			return &r->list[i];
	return NULL;
}

/* ---- whom to call ---- */

static bool same_host(const struct wfi_member *a, const struct wfi_member *b)
{
	/* who names a socket and nothing else means this host */
	if (!a->host[0] || !b->host[0])
		return !b->addr[0];
	return !strcmp(a->host, b->host);
}

bool roster_same_host(const struct roster *r, const struct wfi_member *m)
{
	return same_host(&r->self, m);
}

/* who is called over a transport has one, which a file does not name: all take the same */
static bool speaks(const struct wfi_member *from, const struct wfi_member *to)
{
	if (!from->transport[0])
		return !from->incarnation && from->addr[0];
	return !to->transport[0] || !strcmp(from->transport, to->transport);
}

/* @from could dial @to */
static bool reaches(const struct wfi_member *from, const struct wfi_member *to)
{
	if (to->socket[0] && same_host(from, to))
		return true;
	return to->addr[0] && speaks(from, to);
}

/* this node is one, in this life: who is none would be sent away */
static bool is_member(const struct roster *r)
{
	const struct wfi_member *m = roster_find(r, r->self.node);

	return m && !strcmp(m->name, r->self.name) &&
	       (!m->incarnation || m->incarnation == r->self.incarnation);
}

bool roster_calls(const struct roster *r, const struct wfi_member *m)
{
	if (m->node == r->self.node || !is_member(r) || !reaches(&r->self, m))
		return false;
	return r->self.node < m->node || !reaches(m, &r->self);
}

/* ---- who may stay ---- */

int roster_check(const struct roster *r, const struct wire_hello *who, char ours[SECURE_WHY],
		 char theirs[SECURE_WHY])
{
	const struct wfi_member *m = roster_find(r, who->node);

	if (!m || strcmp(m->name, who->name) != 0) {
		snprintf(ours, SECURE_WHY, "is no member of this cluster, or not known yet");
		snprintf(theirs, SECURE_WHY, "it does not know node %s as a member of its cluster",
			 who->name);
		return -EACCES;
	}
	if (m->incarnation && m->incarnation != who->incarnation) {
		snprintf(ours, SECURE_WHY,
			 "is incarnation %#" PRIx64 " of a node whose record has %#" PRIx64,
			 who->incarnation, m->incarnation);
		snprintf(theirs, SECURE_WHY, "it knows another incarnation of node %s", who->name);
		return -EACCES;
	}
	return 0;
}
