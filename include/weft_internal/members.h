/* SPDX-License-Identifier: Apache-2.0 */
/**
 * members.h - the membership of a real node: records in etcd, or a file of them
 *
 * A thread of its own talks to the store, so that nobody else ever waits for it. The same store has
 * settings and tenants, as texts under names: "settings/KEY" and "tenants/NAME". What they mean is
 * not known here.
 *
 * In etcd (v3, through its JSON gateway) all keys begin with /weft/CLUSTER/. A node's record is
 * nodes/NAME, under a lease that is kept alive; a record that was lost is made anew, with a later
 * epoch. A name belongs to whoever has its record: the second one is refused until the record is
 * gone, unless it is the next life of the first, which listens on the same socket of the same
 * host. A store that can't be reached, or answers nonsense, is asked again, one endpoint after the
 * other, with growing pauses of random length; meanwhile what was known stays.
 */
#ifndef WFI_MEMBERS_H
#define WFI_MEMBERS_H

#include "weft_internal/env.h"

#define WFI_MEMBERS_ENDPOINTS 8u
#define WFI_MEMBERS_WHY 512

struct json_t;
struct wfi_members;

struct wfi_members_opts {
	struct wfi_env *env;
	const char *file; /* path; NULL: etcd */
	const char *cluster; /* letters, digits, '.', '_', '-' */
	/* "http://HOST:PORT" or "https://HOST:PORT", as curl takes them */
	const char *endpoints[WFI_MEMBERS_ENDPOINTS];
	unsigned nr_endpoints;
	const char *user; /* NULL or "": none */
	const char *password;
	const char *ca_file; /* NULL or "": those that the system trusts */
	const char *cert_file; /* of this node, for the store; NULL or "": none */
	const char *key_file;
	uint64_t lease_ns; /* whole seconds; a store may grant more */
	/* members or values have changed. Context: the membership's thread; must not call back */
	void (*notify)(void *ctx);
	void *ctx;
};

enum wfi_members_state {
	WFI_MEMBERS_CONNECTING, /* nothing was heard of the store yet */
	WFI_MEMBERS_OK, /* the store answers, this node's record is there if it has one */
	WFI_MEMBERS_REFUSED, /* the store answers, and somebody else has this node's name or id */
	WFI_MEMBERS_AWAY, /* the store does not answer any more: what was known is served */
	WFI_MEMBERS_NR_STATES
};
const char *wfi_members_state_name(enum wfi_members_state state);

struct wfi_members_status {
	const char *kind; /* "etcd", "file" */
	enum wfi_members_state state;
	uint64_t since_ns; /* the state began */
	uint64_t epoch;
	uint64_t reconnects;
	uint64_t lost; /* times that this node's record was lost */
	uint64_t bad; /* records that could not be read */
	int64_t clock_skew_ms; /* the store's clock less this node's, to a second; etcd only */
	char where[160]; /* endpoint, or file */
	char why[WFI_MEMBERS_WHY]; /* the last error, while it lasts; "": none */
};

/**
 * wfi_members_open - the membership of @opts->env, whose .membership it becomes
 *
 * The strings are copied. Does not wait for the store.
 *
 * Return: 0; -EOPNOTSUPP built without etcd; -EINVAL; -ENOMEM; what pthread_create() says. Logged
 */
int wfi_members_open(const struct wfi_members_opts *opts, struct wfi_members **out);
/* takes NULL. Takes this node's record away first, for which it waits 2 s at most */
void wfi_members_close(struct wfi_members *m);
void wfi_members_status(struct wfi_members *m, struct wfi_members_status *out);

/**
 * wfi_members_values - settings and tenants, as an object of name and text
 * @changes: in: those known; out: those of what is returned
 *
 * Return: an object of the caller's; NULL when nothing has changed, or nothing was heard yet
 */
struct json_t *wfi_members_values(struct wfi_members *m, uint64_t *changes);

/* the id of a node that has no other: a hash of its name, never 0 */
uint64_t wfi_member_id(const char *name);
/* where sockets of this host can be reached: its boot and its mounts. "" when not known */
void wfi_member_host(char out[72]);

#endif
