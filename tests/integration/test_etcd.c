/* SPDX-License-Identifier: Apache-2.0 */
/* membership in a real etcd: members that come, go, die, stand still; a store that does the same */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/integration/etcd_members.h"
#include "weft_internal/log.h"

struct test_etcd etcd;

/* ---- tests ---- */

static void test_join_leave(void **ctx)
{
	struct one a, b, c;
	struct wfi_member m;

	(void)ctx;
	one_start(&a, "join", "a", 1);
	one_start(&b, "join", "b", 2);
	one_start(&c, "join", "c", 3);
	expect(&a, 3, .name = "c", .incarnation = 3, .state = OK);
	expect(&b, 3, .name = "a");
	expect(&c, 3, .name = "b");
	one_sees(&a, "c", &m);
	assert_string_equal(m.socket, "/tmp/c");
	c.self.flags = WFI_MEMBER_DRAINING;
	c.env.membership->publish(&c.env, &c.self);
	expect(&a, 3, .name = "c", .flags = WFI_MEMBER_DRAINING);
	wfi_members_close(c.m);
	expect(&a, 2);
	expect(&b, 2);
	b.env.membership->publish(&b.env, NULL);
	expect(&a, 1);
	wfi_members_close(b.m);
	wfi_members_close(a.m);
	/* another cluster of the same store */
	one_start(&a, "joined", "a", 1);
	expect(&a, 1, .name = "a");
	wfi_members_close(a.m);
}

static void test_killed(void **ctx)
{
	struct test_child child;
	struct one a;

	(void)ctx;
	child_start(&child, "killed");
	one_start(&a, "killed", "a", 1);
	expect(&a, 2, .name = "child");
	test_child_kill(&child);
	expect(&a, 1);
	assert_int_equal(status_of(&a).lost, 0);
	wfi_members_close(a.m);
}

/* who sleeps past its lease is gone, and comes back under a later epoch */
static void test_stopped(void **ctx)
{
	struct test_child child;
	struct wfi_member m;
	struct one a;

	(void)ctx;
	child_start(&child, "stopped");
	one_start(&a, "stopped", "a", 1);
	expect(&a, 2, .name = "child");
	one_sees(&a, "child", &m);
	kill(child.pid, SIGSTOP);
	expect(&a, 1);
	kill(child.pid, SIGCONT);
	expect(&a, 2, .name = "child", .after_epoch = m.epoch, .incarnation = 77);
	test_child_kill(&child);
	wfi_members_close(a.m);
}

/* one life has its name, at one epoch, for so long at least */
static bool record_stays(struct one *o, const struct wfi_member *was, unsigned ms)
{
	const uint64_t end_ms = test_now_ms() + ms;
	struct wfi_member m;

	do {
		if (one_sees(o, was->name, &m) != 1 || m.incarnation != was->incarnation ||
		    m.epoch != was->epoch)
			return false;
		usleep(2000);
	} while (test_now_ms() < end_ms);
	return true;
}

static void test_one_name(void **ctx)
{
	struct one a, b, c;
	struct wfi_member first, next;

	(void)ctx;
	one_start(&a, "names", "same", 1);
	expect(&a, 1, .name = "same");
	one_sees(&a, "same", &first);
	{
		const struct how how = { .cluster = "names" };

		one_open(&b, &how);
		one_publish(&b, "same", 2, "elsewhere");
	}
	expect(&b, 1, .state = REFUSED, .why = "another node is same in cluster names");
	expect(&a, 1, .name = "same", .incarnation = 1, .state = OK);
	/* the next life of the first: it listens where that did */
	{
		const struct how how = { .cluster = "names" };

		one_open(&c, &how);
		one_publish(&c, "same", 3, "same");
	}
	expect(&b, 1, .name = "same", .incarnation = 3, .after_epoch = first.epoch);
	one_sees(&b, "same", &next);
	/* the one whose place was taken knows, and does not take it back */
	expect(&a, 1, .state = REFUSED);
	assert_true(record_stays(&b, &next, 2 * LEASE_MS));
	/* what the next life changes in its record is no life of its own */
	c.self.flags = WFI_MEMBER_DRAINING;
	c.env.membership->publish(&c.env, &c.self);
	expect(&b, 1, .name = "same", .flags = WFI_MEMBER_DRAINING);
	assert_true(record_stays(&b, &next, 0));
	wfi_members_close(a.m);
	wfi_members_close(c.m);
	expect(&b, 1, .name = "same", .incarnation = 2, .state = OK);
	wfi_members_close(b.m);
}

/* a record of another life in the place of "same", as one puts it who was first to come back to a
 * store that has lost all */
static void life_put(const char *incarnation, const char *born_ns)
{
	char text[300];

	snprintf(text, sizeof(text),
		 "{\"name\":\"same\",\"incarnation\":%s,\"born_ns\":\"%s\",\"host\":\"same\","
		 "\"socket\":\"/tmp/same\",\"base\":1000000}",
		 incarnation, born_ns);
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/lives/nodes/same", text, NULL));
}

/* of two lives in one place the later one has the name, whichever epochs they come to */
static void test_lives_of_a_place(void **ctx)
{
	struct wfi_member now;
	struct one a;

	(void)ctx;
	one_start(&a, "lives", "same", 20);
	expect(&a, 1, .name = "same", .incarnation = 20, .state = OK);
	life_put("10", "10");
	expect(&a, 1, .name = "same", .incarnation = 20, .after_epoch = 1000000, .state = OK);
	life_put("30", "30");
	expect(&a, 1, .name = "same", .incarnation = 30, .state = REFUSED);
	one_sees(&a, "same", &now);
	assert_true(record_stays(&a, &now, 2 * LEASE_MS));
	wfi_members_close(a.m);
}

static void test_one_id(void **ctx)
{
	struct one a, b;
	const struct how how = { .cluster = "ids" };

	(void)ctx;
	one_start(&a, "ids", "a", 1);
	expect(&a, 1, .name = "a");
	one_open(&b, &how);
	b.self = (struct wfi_member){ .node = a.self.node, .incarnation = 5, .name = "b" };
	b.env.membership->publish(&b.env, &b.self);
	expect(&b, 1, .state = REFUSED, .why = "has this node's id");
	wfi_members_close(a.m);
	expect(&b, 1, .name = "b", .state = OK);
	wfi_members_close(b.m);
}

/* garbage under our keys is left out, and hurts nobody */
static void test_bad_records(void **ctx)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{\"name\":\"x\",\"node\":\"0x1\",\"base\":\"18446744073709551615\"}",
		"{\"name\":\"other\"}",
		"{\"name\":\"x\",\"socket\":\"relative\"}",
		"{\"name\":\"x\",\"state\":\"dead\"}",
		"{\"name\":\"x\",\"address\":\"a\\u0001\"}",
		"{\"name\":\"x\",\"name\":\"x\"}",
		"{\"name\":\"x\\u0000y\"}"
	};
	char huge[9000];
	struct one a;
	unsigned i;

	(void)ctx;
	one_start(&a, "bad", "a", 1);
	expect(&a, 1, .name = "a");
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++)
		assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/bad/nodes/x", "--", bad[i],
					  NULL));
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = 0;
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/bad/nodes/x", huge, NULL));
	snprintf(huge, 500, "/weft/bad/settings/%0400d", 1);
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", huge, "1", NULL));
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/bad/nodes/y",
				  "{\"name\":\"y\",\"more\":[{}]}", NULL));
	expect(&a, 2, .name = "y", .state = OK);
	assert_int_equal(status_of(&a).bad, WFI_ARRAY_SIZE(bad) + 1);
	/* somebody writes over ours: that is not ours any more, and is made anew */
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/bad/nodes/a", "{}", NULL));
	expect(&a, 2, .name = "a", .incarnation = 1, .state = OK);
	assert_false(test_etcdctl(&etcd, NULL, 0, "del", "/weft/bad/nodes/a", NULL));
	expect(&a, 2, .name = "a", .incarnation = 1, .state = OK);
	wfi_members_close(a.m);
}

static bool has_value(void *ctx)
{
	struct one *o = ctx;
	uint64_t changes = 0;
	json_t *values = wfi_members_values(o->m, &changes);
	const char *text = json_string_value(json_object_get(values, "settings/lease_ms"));
	const bool ok = text && !strcmp(text, "10s") && json_object_size(values) == 2;

	json_decref(values);
	return ok;
}

static void test_values(void **ctx)
{
	const struct how how = { .cluster = "values" };
	uint64_t changes = 0;
	struct one a;
	json_t *values;

	(void)ctx;
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/values/settings/lease_ms", "5s", NULL);
	one_open(&a, &how);
	expect(&a, 0, .state = OK);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/values/settings/gone", "5", NULL);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/values/tenants/blue", "{}", NULL);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/values/other/blue", "{}", NULL);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/values/settings/lease_ms", "10s", NULL);
	test_etcdctl(&etcd, NULL, 0, "del", "/weft/values/settings/gone", NULL);
	assert_true(test_until(SOON_MS, has_value, &a));
	values = wfi_members_values(a.m, &changes);
	assert_non_null(values);
	json_decref(values);
	assert_null(wfi_members_values(a.m, &changes));
	wfi_members_close(a.m);
}

/* 256 settings and tenants, in as many transactions as etcd needs for them */
static void values_fill(const char *cluster)
{
	const unsigned step = 64;
	char path[96], line[400];

	snprintf(path, sizeof(path), "%s/txn", etcd.dir);
	snprintf(line, sizeof(line), "etcdctl --endpoints %s txn < %s", etcd.url, path);
	for (unsigned from = 0; from < 256; from += step) {
		struct test_run r = { .argv = { "sh", "-c", line } };
		FILE *f = fopen(path, "w");

		assert_non_null(f);
		fputs("\n", f);
		for (unsigned i = from; i < from + step; i++)
			fprintf(f, "put /weft/%s/settings/v%u 0\n", cluster, i);
		fputs("\n\n", f);
		assert_false(fclose(f));
		assert_int_equal(test_run(&r), 0);
	}
}

static bool full_changed(void *ctx)
{
	struct one *o = ctx;
	uint64_t changes = 0;
	json_t *values = wfi_members_values(o->m, &changes);
	const char *text = json_string_value(json_object_get(values, "settings/v7"));
	const bool ok = text && !strcmp(text, "1") && json_object_size(values) == 256;

	json_decref(values);
	return ok;
}

/* as many as there may be: one more is left out, and one of them changes as ever */
static void test_values_full(void **ctx)
{
	const struct how how = { .cluster = "full" };
	struct one a;

	(void)ctx;
	values_fill("full");
	one_open(&a, &how);
	expect(&a, 0, .state = OK);
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/full/tenants/more", "{}", NULL));
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/full/settings/v7", "1", NULL));
	assert_true(test_until(SOON_MS, full_changed, &a));
	assert_int_equal(status_of(&a).bad, 1);
	wfi_members_close(a.m);
}

/* ---- the store's own troubles ---- */

struct trio {
	struct one a, b;
	struct wfi_member seen;
};

static void pair_start(struct trio *t, const char *cluster)
{
	one_start(&t->a, cluster, "a", 1);
	one_start(&t->b, cluster, "b", 2);
	expect(&t->a, 2, .name = "b", .state = OK);
	expect(&t->b, 2, .name = "a", .state = OK);
	one_sees(&t->a, "b", &t->seen);
}

/* nobody is missed while the store is away, and for a lease after it is back */
static bool both_stay(struct trio *t, unsigned ms)
{
	const uint64_t end_ms = test_now_ms() + ms;
	struct wfi_member m;

	while (test_now_ms() < end_ms) {
		if (one_sees(&t->a, "", &m) != 2 || one_sees(&t->b, "", &m) != 2)
			return false;
		usleep(2000);
	}
	return true;
}

static void pair_end(struct trio *t)
{
	wfi_members_close(t->b.m);
	wfi_members_close(t->a.m);
}

static void test_store_frozen(void **ctx)
{
	struct trio t;

	(void)ctx;
	pair_start(&t, "frozen");
	kill(etcd.pid, SIGSTOP);
	expect(&t.a, 2, .state = AWAY, .why = etcd.url);
	assert_true(both_stay(&t, 2500));
	kill(etcd.pid, SIGCONT);
	expect(&t.a, 2, .state = OK);
	expect(&t.b, 2, .state = OK);
	assert_true(both_stay(&t, 1500));
	pair_end(&t);
}

/* one that has just ceased to answer holds up nobody's end for longer than one question */
static void test_closed_while_frozen(void **ctx)
{
	uint64_t begin_ms, took_ms;
	struct one a;

	(void)ctx;
	one_start(&a, "closed", "a", 1);
	expect(&a, 1, .name = "a", .state = OK);
	kill(etcd.pid, SIGSTOP);
	begin_ms = test_now_ms();
	wfi_members_close(a.m);
	took_ms = test_now_ms() - begin_ms;
	kill(etcd.pid, SIGCONT);
	assert_in_range(took_ms, 0, 1800);
}

static void test_store_killed(void **ctx)
{
	struct test_child child;
	struct trio t;

	(void)ctx;
	pair_start(&t, "killed-store");
	child_start(&child, "killed-store");
	expect(&t.a, 3, .name = "child");
	test_etcd_kill(&etcd);
	expect(&t.a, 3, .state = AWAY);
	/* who dies meanwhile is missed when the store is back */
	test_child_kill(&child);
	test_etcd_start(&etcd);
	expect(&t.a, 2, .state = OK);
	expect(&t.b, 2, .state = OK);
	one_sees(&t.a, "b", &t.seen);
	assert_int_equal(status_of(&t.a).lost, 0);
	pair_end(&t);
}

static int sees_count(struct one *o)
{
	return one_sees(o, "", &(struct wfi_member){ .node = 0 });
}

/* who has lost its record is not given up while nothing can be heard of its next one */
static void test_store_killed_in_the_moment(void **ctx)
{
	struct test_child child;
	uint64_t begin_ms, end_ms;
	struct one a;

	(void)ctx;
	child_start(&child, "moment");
	one_start(&a, "moment", "a", 1);
	do {
		expect(&a, 2, .name = "child", .state = OK);
		kill(child.pid, SIGSTOP);
		begin_ms = test_now_ms();
		test_etcdctl(&etcd, NULL, 0, "del", "/weft/moment/nodes/child", NULL);
		test_etcd_kill(&etcd);
		end_ms = test_now_ms() + 2 * LEASE_MS;
		/* a machine so slow that its moment was over before */
		if (test_now_ms() - begin_ms > 700)
			end_ms = 0;
		while (test_now_ms() < end_ms) {
			assert_int_equal(sees_count(&a), 2);
			usleep(2000);
		}
		test_etcd_start(&etcd);
		kill(child.pid, SIGCONT);
	} while (!end_ms);
	expect(&a, 2, .name = "child", .state = OK);
	assert_int_equal(status_of(&a).lost, 0);
	test_child_kill(&child);
	wfi_members_close(a.m);
}

static void test_store_emptied(void **ctx)
{
	struct trio t;

	(void)ctx;
	pair_start(&t, "emptied");
	test_etcd_kill(&etcd);
	test_etcd_wipe(&etcd);
	test_etcd_start(&etcd);
	assert_true(both_stay(&t, 1000));
	expect(&t.a, 2, .name = "b", .after_epoch = t.seen.epoch, .state = OK);
	expect(&t.b, 2, .name = "a", .after_epoch = t.seen.epoch - 1, .state = OK);
	assert_true(both_stay(&t, 2500));
	pair_end(&t);
}

static long revision(void)
{
	char out[256];
	const char *at;

	assert_false(test_etcdctl(&etcd, out, sizeof(out), "get", "x", "-w", "fields", NULL));
	at = strstr(out, "\"Revision\" : ");
	assert_non_null(at);
	return strtol(at + 13, NULL, 10);
}

/* what happens where nobody looks */
static void change_unseen(void (*change)(void *ctx), void *ctx)
{
	const unsigned port = etcd.port;

	test_etcd_kill(&etcd);
	etcd.port = test_port();
	change(ctx);
	test_etcd_kill(&etcd);
	etcd.port = port;
	test_etcd_start(&etcd);
}

static void empty_and_pass(void *ctx)
{
	const long *passed = ctx;

	test_etcd_wipe(&etcd);
	test_etcd_start(&etcd);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/passed/settings/lease_ms", "10s", NULL);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/passed/tenants/blue", "{}", NULL);
	while (revision() <= *passed)
		test_etcdctl(&etcd, NULL, 0, "put", "x", "", NULL);
}

/* nor does it show by its revision that it was emptied */
static void test_store_passed(void **ctx)
{
	struct trio t;
	long was;

	(void)ctx;
	pair_start(&t, "passed");
	was = revision();
	change_unseen(empty_and_pass, &was);
	assert_true(test_until(SOON_MS, has_value, &t.a));
	expect(&t.a, 2, .state = OK);
	pair_end(&t);
}

/* then it can't be told any more: all has to be read */
static void compact(void)
{
	char text[24];

	snprintf(text, sizeof(text), "%ld", revision());
	assert_false(test_etcdctl(&etcd, NULL, 0, "compact", text, NULL));
}

static void put_compacted(void *ctx)
{
	(void)ctx;
	test_etcd_start(&etcd);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/compacted/settings/lease_ms", "9s", NULL);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/compacted/settings/lease_ms", "10s", NULL);
	test_etcdctl(&etcd, NULL, 0, "put", "/weft/compacted/tenants/blue", "{}", NULL);
	compact();
}

static void test_store_compacted(void **ctx)
{
	struct trio t;

	(void)ctx;
	pair_start(&t, "compacted");
	change_unseen(put_compacted, NULL);
	assert_true(test_until(SOON_MS, has_value, &t.a));
	expect(&t.a, 2, .state = OK);
	pair_end(&t);
}

static void put_bad_value(void *ctx)
{
	char huge[9000];

	(void)ctx;
	test_etcd_start(&etcd);
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = 0;
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/full/settings/v7", huge, NULL));
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/full/settings/a", "1", NULL));
	assert_false(test_etcdctl(&etcd, NULL, 0, "put", "/weft/full/settings/v9", "1", NULL));
	compact();
}

/* the last good value of 256, and no other one instead of one that was good, were all read anew */
static bool full_stays(void *ctx)
{
	struct one *o = ctx;
	uint64_t changes = 0;
	json_t *values = wfi_members_values(o->m, &changes);
	const char *v7 = json_string_value(json_object_get(values, "settings/v7"));
	const char *v9 = json_string_value(json_object_get(values, "settings/v9"));
	const bool read = v9 && !strcmp(v9, "1");

	if (read) {
		assert_non_null(v7);
		assert_string_equal(v7, "0");
		assert_int_equal(json_object_size(values), 256);
		assert_null(json_object_get(values, "settings/a"));
	}
	json_decref(values);
	return read;
}

static void test_bad_value_after_good(void **ctx)
{
	const struct how how = { .cluster = "full" };
	struct one a;

	(void)ctx;
	values_fill("full");
	one_open(&a, &how);
	expect(&a, 0, .state = OK);
	change_unseen(put_bad_value, NULL);
	assert_true(test_until(SOON_MS, full_stays, &a));
	expect(&a, 0, .state = OK);
	assert_int_equal(status_of(&a).bad, 2);
	wfi_members_close(a.m);
}

/* ---- who is let in ---- */

static void test_password(void **ctx)
{
	const struct how wrong = { .cluster = "auth", .user = "weft", .password = "wrong" };
	const struct how none = { .cluster = "auth" };
	const struct how elsewhere = { .cluster = "other", .user = "weft", .password = "secret" };
	const struct how right = { .cluster = "auth", .user = "weft", .password = "secret" };
	struct one a, b, c, d;

	(void)ctx;
	test_etcdctl(&etcd, NULL, 0, "user", "add", "root:rootpw", NULL);
	test_etcdctl(&etcd, NULL, 0, "user", "add", "weft:secret", NULL);
	test_etcdctl(&etcd, NULL, 0, "role", "add", "weft", NULL);
	test_etcdctl(&etcd, NULL, 0, "role", "grant-permission", "weft", "--prefix=true",
		     "readwrite", "/weft/auth/", NULL);
	test_etcdctl(&etcd, NULL, 0, "user", "grant-role", "root", "root", NULL);
	test_etcdctl(&etcd, NULL, 0, "user", "grant-role", "weft", "weft", NULL);
	assert_false(test_etcdctl(&etcd, NULL, 0, "auth", "enable", NULL));
	one_open(&a, &wrong);
	one_open(&b, &none);
	one_open(&c, &elsewhere);
	one_open(&d, &right);
	one_publish(&a, "a", 1, "a");
	one_publish(&d, "d", 4, "d");
	expect(&a, 0, .state = CONNECTING, .why = "authentication failed");
	expect(&b, 0, .state = CONNECTING, .why = "etcd_user");
	expect(&c, 0, .state = CONNECTING, .why = "permission denied");
	expect(&d, 1, .name = "d", .state = OK);
	/* its tokens end with it */
	test_etcd_kill(&etcd);
	expect(&d, 1, .state = AWAY);
	test_etcd_start(&etcd);
	expect(&d, 1, .name = "d", .state = OK);
	wfi_members_close(a.m);
	wfi_members_close(b.m);
	wfi_members_close(c.m);
	wfi_members_close(d.m);
	assert_false(
		test_etcdctl(&etcd, NULL, 0, "--user", "root:rootpw", "auth", "disable", NULL));
}

static void test_tls(void **ctx)
{
	char ca[96], wrong[96], cert[96], key[96], other[96], other_key[96];
	static struct test_etcd tls;
	struct one a, b, c, d;

	(void)ctx;
	test_etcd_init(&tls);
	if (!test_etcd_certs(&tls)) {
		test_etcd_fini(&tls);
		skip();
	}
	snprintf(ca, sizeof(ca), "%s/ca.pem", tls.dir);
	snprintf(wrong, sizeof(wrong), "%s/wrong.pem", tls.dir);
	snprintf(cert, sizeof(cert), "%s/client.pem", tls.dir);
	snprintf(key, sizeof(key), "%s/client.key", tls.dir);
	snprintf(other, sizeof(other), "%s/other.pem", tls.dir);
	snprintf(other_key, sizeof(other_key), "%s/other.key", tls.dir);
	tls.tls = tls.client_certs = true;
	test_etcd_start(&tls);
	{
		const struct how bad_ca = {
			"tls", { tls.url }, .ca = wrong, .cert = cert, .key = key
		};
		const struct how no_cert = { .cluster = "tls", .endpoints = { tls.url }, .ca = ca };
		const struct how bad_cert = {
			"tls", { tls.url }, .ca = ca, .cert = other, .key = other_key
		};
		const struct how right = { .cluster = "tls",
					   .endpoints = { tls.url },
					   .ca = ca,
					   .cert = cert,
					   .key = key };

		one_open(&a, &bad_ca);
		one_open(&b, &no_cert);
		one_open(&c, &bad_cert);
		one_open(&d, &right);
	}
	one_publish(&a, "a", 1, "a");
	one_publish(&d, "d", 4, "d");
	expect(&a, 0, .state = CONNECTING, .why = "certificate");
	expect(&b, 0, .state = CONNECTING, .why = "ertificate");
	expect(&c, 0, .state = CONNECTING, .why = "ertificate");
	expect(&d, 1, .name = "d", .state = OK);
	wfi_members_close(a.m);
	wfi_members_close(b.m);
	wfi_members_close(c.m);
	wfi_members_close(d.m);
	test_etcd_fini(&tls);
}

/* ---- what answers is no etcd ---- */

struct liar {
	int fd;
	unsigned port;
	pthread_t thread;
	_Atomic bool stop;
	const char *body; /* NULL: nothing, ever */
	bool endless; /* again and again, without an end */
	char url[64];
};

static void lie(const struct liar *l, int fd)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
				   "Connection: close\r\n\r\n";
	char in[2048];

	if (recv(fd, in, sizeof(in), 0) <= 0 || !l->body)
		return;
	(void)!send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL);
	while (send(fd, l->body, strlen(l->body), MSG_NOSIGNAL) > 0 && l->endless && !l->stop)
		;
}

static void *liar_main(void *arg)
{
	struct liar *l = arg;
	int fds[64], nr = 0, fd;

	while ((fd = accept(l->fd, NULL, NULL)) >= 0 && !l->stop) {
		lie(l, fd);
		/* one that says nothing does not hang up either */
		if (!l->body && nr < 64)
			fds[nr++] = fd;
		else
			close(fd);
	}
	if (fd >= 0)
		close(fd);
	while (nr)
		close(fds[--nr]);
	return NULL;
}

static void liar_start(struct liar *l, const char *body, bool endless)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);

	memset(l, 0, sizeof(*l));
	l->body = body;
	l->endless = endless;
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_false(bind(l->fd, (struct sockaddr *)&addr, sizeof(addr)));
	assert_false(listen(l->fd, 64));
	assert_false(getsockname(l->fd, (struct sockaddr *)&addr, &len));
	snprintf(l->url, sizeof(l->url), "http://127.0.0.1:%u", ntohs(addr.sin_port));
	assert_false(pthread_create(&l->thread, NULL, liar_main, l));
}

static void liar_stop(struct liar *l)
{
	l->stop = true;
	shutdown(l->fd, SHUT_RDWR);
	pthread_join(l->thread, NULL);
	close(l->fd);
}

static void test_liars(void **ctx)
{
	static const char *const bodies[] = {
		"",
		"<html>",
		"[1]",
		"{}",
		"{\"header\":{\"revision\":\"x\"}}",
		"{\"header\":{\"revision\":\"7\"},\"kvs\":[{\"key\":\"%%%\"}]}",
		"{\"header\":{\"revision\":\"7\"},\"kvs\":[5]}",
		"{\"header\":{\"revision\":\"7\"},\"kvs\":[{\"key\":\"b3RoZXI=\"}]}",
		"{\"error\":7}",
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	};
	struct liar l;
	struct one a;
	unsigned i;

	(void)ctx;
	for (i = 0; i < WFI_ARRAY_SIZE(bodies); i++) {
		liar_start(&l, bodies[i], false);
		{
			const struct how how = { .cluster = "liars", .endpoints = { l.url } };

			one_open(&a, &how);
		}
		expect(&a, 0, .state = CONNECTING, .why = i == 8 ? "an error" : "no etcd");
		wfi_members_close(a.m);
		liar_stop(&l);
	}
	liar_start(&l, "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true);
	{
		const struct how how = { .cluster = "liars", .endpoints = { l.url } };

		one_open(&a, &how);
	}
	expect(&a, 0, .state = CONNECTING, .why = "more than 1048576 bytes");
	wfi_members_close(a.m);
	liar_stop(&l);
}

/* of several endpoints the one that works is used; one that says nothing costs its time */
static void test_endpoints(void **ctx)
{
	struct liar silent, liar;
	char dead[64];
	struct one a;

	(void)ctx;
	liar_start(&silent, NULL, false);
	liar_start(&liar, "nonsense", false);
	snprintf(dead, sizeof(dead), "http://127.0.0.1:%u", test_port());
	{
		const struct how how = { .cluster = "ends",
					 .endpoints = { silent.url, liar.url, etcd.url } };
		const struct how how_dead = { .cluster = "ends", .endpoints = { dead, etcd.url } };
		struct one b;

		one_open(&a, &how);
		one_open(&b, &how_dead);
		one_publish(&a, "a", 1, "a");
		one_publish(&b, "b", 2, "b");
		expect(&a, 2, .name = "b", .state = OK);
		expect(&b, 2, .name = "a", .state = OK);
		assert_string_equal(status_of(&a).where, etcd.url);
		wfi_members_close(b.m);
	}
	wfi_members_close(a.m);
	liar_stop(&silent);
	liar_stop(&liar);
}

static int group_setup(void **ctx)
{
	(void)ctx;
	test_etcd_init(&etcd);
	test_etcd_start(&etcd);
	return 0;
}

static int group_teardown(void **ctx)
{
	(void)ctx;
	if (etcd.pid)
		kill(etcd.pid, SIGCONT);
	test_etcd_fini(&etcd);
	return 0;
}

/* "store": what the store itself goes through, which takes its time */
int main(int argc, char **argv)
{
	const struct CMUnitTest members[] = {
		cmocka_unit_test(test_join_leave),	 cmocka_unit_test(test_killed),
		cmocka_unit_test(test_stopped),		 cmocka_unit_test(test_one_name),
		cmocka_unit_test(test_lives_of_a_place), cmocka_unit_test(test_one_id),
		cmocka_unit_test(test_bad_records),	 cmocka_unit_test(test_values),
		cmocka_unit_test(test_values_full),	 cmocka_unit_test(test_liars),
		cmocka_unit_test(test_endpoints),
	};
	const struct CMUnitTest stores[] = {
		/* while the store counts few changes */
		cmocka_unit_test(test_store_passed),
		cmocka_unit_test(test_password),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_store_frozen),
		cmocka_unit_test(test_closed_while_frozen),
		cmocka_unit_test(test_store_killed),
		cmocka_unit_test(test_store_compacted),
		cmocka_unit_test(test_bad_value_after_good),
		cmocka_unit_test(test_store_killed_in_the_moment),
		cmocka_unit_test(test_store_emptied),
	};
	const char *missing = test_etcd_missing();

	if (missing) {
		puts(missing);
		return 77;
	}
	if (argc > 1 && !strcmp(argv[1], "store"))
		return cmocka_run_group_tests_name("store", stores, group_setup, group_teardown);
	return cmocka_run_group_tests_name("members", members, group_setup, group_teardown);
}
