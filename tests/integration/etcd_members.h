/* SPDX-License-Identifier: Apache-2.0 */
/* etcd_members.h - members in a real etcd, and what is expected of them */
#ifndef TESTS_ETCD_MEMBERS_H
#define TESTS_ETCD_MEMBERS_H

#include <stdint.h>
#include "tests/integration/etcd.h"
#include "weft_internal/env.h"
#include "weft_internal/members.h"

#define LEASE_NS WFI_NSEC_PER_SEC
#define LEASE_MS (LEASE_NS / WFI_NSEC_PER_MSEC)
#define SOON_MS 30000

/* the store, the test's own */
extern struct test_etcd etcd;

struct one {
	struct wfi_env env;
	struct wfi_members *m;
	struct wfi_member self;
};

struct how {
	const char *cluster, *endpoints[3], *user, *password, *ca, *cert, *key;
};

void one_open(struct one *o, const struct how *how);
/* lives with higher numbers began later */
void one_publish(struct one *o, const char *name, uint64_t incarnation, const char *place);
void one_start(struct one *o, const char *cluster, const char *name, uint64_t incarnation);
/* Return: how many members it sees; @out: the one of that name, if there is one */
int one_sees(struct one *o, const char *name, struct wfi_member *out);
struct wfi_members_status status_of(struct one *o);

struct want {
	struct one *o;
	int nr; /* -1: whatever */
	const char *name; /* is there, with these, if not 0 */
	uint64_t after_epoch, incarnation;
	uint32_t flags;
	int state; /* + 1 */
	const char *why;
};

void expect_at(struct want w, int line);

#define expect(who, count, ...)                                                                    \
	expect_at((struct want){ .o = (who), .nr = (count), ##__VA_ARGS__ }, __LINE__)
#define OK (WFI_MEMBERS_OK + 1)
#define REFUSED (WFI_MEMBERS_REFUSED + 1)
#define AWAY (WFI_MEMBERS_AWAY + 1)
#define CONNECTING (WFI_MEMBERS_CONNECTING + 1)

/* a member in a process of its own */
void child_start(struct test_child *c, const char *cluster);

#endif
