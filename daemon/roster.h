/* SPDX-License-Identifier: Apache-2.0 */
/**
 * roster.h - who is in the cluster, as this node's membership tells: whom to call, who may stay
 *
 * Of two members the one with the lower id calls, or the one that can. A connection lives as long
 * as the other side is a member, and in the life that its record names: who was dropped is let in
 * again when the membership shows it anew, with a later epoch, and not before.
 *
 * Context: one thread at a time. Nothing here has sockets: simulations run it.
 */
#ifndef WEFTD_ROSTER_H
#define WEFTD_ROSTER_H

#include "node.h"
#include "secure.h"

struct roster {
	struct wfi_env *env;
	struct wfi_member self;
	struct wfi_member list[WFI_MEMBERS_MAX];
	unsigned nr;
	struct wfi_member was[WFI_MEMBERS_MAX]; /* before the last news */
	uint64_t epoch;
	uint64_t changes; /* that .list has */
};

/* what @node is; where it is reached is filled in by the caller. @host: as in struct wfi_member */
void roster_init(struct roster *r, const struct node *node, const char *host);
/* the membership is told of .self */
void roster_publish(struct roster *r, bool draining);
/* Return: whether there was news; the log hears of those that are members no more */
bool roster_poll(struct roster *r);

/* Return: NULL: none has that id */
const struct wfi_member *roster_find(const struct roster *r, uint64_t node);
/* @m and this node reach each other's sockets */
bool roster_same_host(const struct roster *r, const struct wfi_member *m);
/* this node is to call @m, of .list: both are members, this one in this life */
bool roster_calls(const struct roster *r, const struct wfi_member *m);
/* Return: 0; -EACCES: @who is no member, or another life of one. @ours says why about them, for
 * the log, @theirs the same for them */
int roster_check(const struct roster *r, const struct wire_hello *who, char ours[SECURE_WHY],
		 char theirs[SECURE_WHY]);

#endif
