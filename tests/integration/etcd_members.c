/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>
#include "tests/integration/etcd_members.h"

void one_open(struct one *o, const struct how *how)
{
	struct wfi_members_opts opts = {
		.env = &o->env,
		.cluster = how->cluster,
		.user = how->user,
		.password = how->password,
		.ca_file = how->ca,
		.cert_file = how->cert,
		.key_file = how->key,
		.lease_ns = LEASE_NS,
	};

	for (; opts.nr_endpoints < 3 && how->endpoints[opts.nr_endpoints]; opts.nr_endpoints++)
		opts.endpoints[opts.nr_endpoints] = how->endpoints[opts.nr_endpoints];
	if (!opts.nr_endpoints)
		opts.endpoints[opts.nr_endpoints++] = etcd.url;
	assert_false(wfi_env_real_init(&o->env));
	assert_false(wfi_members_open(&opts, &o->m));
}

void one_publish(struct one *o, const char *name, uint64_t incarnation, const char *place)
{
	o->self = (struct wfi_member){ .node = wfi_member_id(name),
				       .incarnation = incarnation,
				       .born_ns = incarnation };
	snprintf(o->self.name, sizeof(o->self.name), "%s", name);
	snprintf(o->self.host, sizeof(o->self.host), "%s", place);
	snprintf(o->self.socket, sizeof(o->self.socket), "/tmp/%s", place);
	assert_false(o->env.membership->publish(&o->env, &o->self));
}

void one_start(struct one *o, const char *cluster, const char *name, uint64_t incarnation)
{
	const struct how how = { .cluster = cluster };

	one_open(o, &how);
	one_publish(o, name, incarnation, name);
}

int one_sees(struct one *o, const char *name, struct wfi_member *out)
{
	struct wfi_member list[WFI_MEMBERS_MAX];
	uint64_t epoch;
	int nr, i;

	nr = o->env.membership->members(&o->env, list, WFI_MEMBERS_MAX, &epoch);
	for (i = 0; i < nr; i++)
		if (!strcmp(list[i].name, name))
			*out = list[i];
	return nr;
}

struct wfi_members_status status_of(struct one *o)
{
	struct wfi_members_status st;

	wfi_members_status(o->m, &st);
	return st;
}

static bool holds(void *ctx)
{
	const struct want *w = ctx;
	const struct wfi_members_status st = status_of(w->o);
	struct wfi_member m = { .epoch = 0 };
	int nr = one_sees(w->o, w->name ? w->name : "", &m);

	return (w->nr < 0 || nr == w->nr) && (!w->name || m.epoch > w->after_epoch) &&
	       (!w->incarnation || m.incarnation == w->incarnation) &&
	       (!w->flags || (m.flags & w->flags)) &&
	       (!w->state || st.state == (enum wfi_members_state)(w->state - 1)) &&
	       (!w->why || strstr(st.why, w->why));
}

void expect_at(struct want w, int line)
{
	struct wfi_members_status st;

	if (test_until(SOON_MS, holds, &w))
		return;
	st = status_of(w.o);
	fail_msg("line %d: %d members, %s: %s", line,
		 one_sees(w.o, "", &(struct wfi_member){ .node = 0 }),
		 wfi_members_state_name(st.state), st.why);
}

/* a member in a process of its own */
static void run_member(int in, int out, void *ctx)
{
	const char *cluster = ctx;
	struct one o;
	char c;

	one_start(&o, cluster, "child", 77);
	test_must(test_say(out, "s", 1));
	while (test_hear(in, &c, 1))
		;
	wfi_members_close(o.m);
}

void child_start(struct test_child *c, const char *cluster)
{
	char hello;

	test_child_start(c, run_member, (void *)(uintptr_t)cluster);
	assert_true(test_hear(c->from, &hello, 1));
}
