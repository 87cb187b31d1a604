/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_tls.c - nodes that meet over TLS: who is let in, who is not and hears why, what a stranger
 * costs, and certificates that change
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/integration/port.h"
#include "tests/integration/tls_client.h"
#include "tests/integration/tls_node.h"
#include "weft_internal/util.h"

#define STRANGERS 100

static const struct side_opts side_a = { .name = "a", .pki = "pki" };

static void test_meet(void **state)
{
	const unsigned before = fds_open();
	struct side_opts o = { .name = "b", .pki = "pki", .peer = "a" };
	struct side a, b;

	(void)state;
	side_start(&a, &side_a);
	o.port = a.port;
	side_start(&b, &o);
	await_shown(&a, "peers", "state", "connected");
	await_shown(&b, "peers", "state", "connected");
	side_stop(&b);
	/* and again, when it is back */
	side_start(&b, &o);
	await_shown(&b, "peers", "state", "connected");
	side_stop(&b);
	side_stop(&a);
	await_fds(before);
}

/* whoever is not let in is told apart in the log and in weft status */
static void test_refused(void **state)
{
	static const struct {
		struct client_opts opts;
		const char *calls_itself;
		const char *why;
	} bad[] = {
		{ { "old", "b", 0 }, "b", "has a certificate that expired" },
		{ { "other", "b", 0 }, "b", "no authority of tls_ca has signed" },
		{ { "pki", "c", 0 }, "b", "calls itself b, and its certificate is that of node c" },
		{ { "pki", NULL, 0 }, "b", "shows no certificate" },
		{ { "pki", "b", TLS1_2_VERSION }, "b", "speaks no TLS 1.3" },
	};
	char path[256], body[WIRE_BODY_MAX];
	struct client_opts opts;
	struct client c;
	struct side a;
	unsigned i, type;

	(void)state;
	side_start(&a, &side_a);
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		log_forget();
		opts = bad[i].opts;
		snprintf(path, sizeof(path), "%s/%s", dir, opts.dir);
		opts.dir = path;
		if (client_open(&c, a.port, &opts)) {
			client_hello(&c, bad[i].calls_itself, 77);
			while ((type = client_hear(&c, body)) == WIRE_HELLO)
				;
			assert_true(!type || type == WIRE_REFUSE);
		}
		client_close(&c);
		await_shown(&a, "refused", "why", bad[i].why);
		assert_true(logged(bad[i].why));
	}
	side_stop(&a);
}

/* a good certificate whose name is not wanted hears that it is so */
static void test_allow(void **state)
{
	const struct side_opts o = { .name = "a",
				     .pki = "pki",
				     .allow = "spiffe://t.example/weft/node/b*" };
	char path[256], body[WIRE_BODY_MAX];
	struct client_opts opts = { .dir = path, .name = "c" };
	struct wire_refuse *refuse = (struct wire_refuse *)body;
	struct client c;
	struct side a;

	(void)state;
	strcpy(path, in_dir("pki"));
	side_start(&a, &o);
	assert_true(client_open(&c, a.port, &opts));
	assert_int_equal(client_hear(&c, body), WIRE_REFUSE);
	assert_non_null(strstr(refuse->why, "tls_allow"));
	client_close(&c);
	await_shown(&a, "refused", "why", "is spiffe://t.example/weft/node/c, which is not let in");
	opts.name = "b";
	assert_true(client_open(&c, a.port, &opts));
	assert_int_equal(client_hear(&c, body), WIRE_HELLO);
	client_close(&c);
	side_stop(&a);
}

/* what calls finds out as well, and says so beside the peer */
static void test_caller(void **state)
{
	static const struct {
		struct side_opts a, b;
		const char *a_says, *b_says;
	} pairs[] = {
		{ { .name = "a", .pki = "pki" },
		  { .name = "b", .pki = "other", .peer = "a" },
		  NULL,
		  "no authority of tls_ca has signed" },
		{ { .name = "a", .pki = "pki" },
		  { .name = "b", .pki = "old", .peer = "a" },
		  "has a certificate that expired",
		  "refuses this node's certificate: it has expired" },
		{ { .name = "a", .pki = "pki" },
		  { .name = "b", .pki = "pki", .peer = "c" },
		  "looked for node c",
		  "is node a: correct the name" },
		{ { .name = "a", .pki = "pki" },
		  { .name = "b", .peer = "a" },
		  "speaks plain text to this node",
		  "it speaks TLS only" },
		{ { .name = "a" },
		  { .name = "b", .pki = "pki", .peer = "a" },
		  "speaks TLS, and this node has no certificates",
		  "speaks plain text to this node" },
		{ { .name = "a", .pki = "pki", .allow = "spiffe://t.example/weft/node/x" },
		  { .name = "b", .pki = "pki", .peer = "a" },
		  "which is not let in",
		  "is not among those that it lets in" },
	};
	struct side_opts o;
	struct side a, b;
	unsigned i;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(pairs); i++) {
		side_start(&a, &pairs[i].a);
		o = pairs[i].b;
		o.port = a.port;
		side_start(&b, &o);
		await_shown(&b, "peers", "why", pairs[i].b_says);
		await_shown(&b, "peers", "state", "failing");
		if (pairs[i].a_says)
			await_shown(&a, "refused", "why", pairs[i].a_says);
		side_stop(&b);
		side_stop(&a);
	}
}

/* plain text that is no node's */
static void test_browser(void **state)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
	char buf[64];
	struct side a;
	int fd;

	(void)state;
	side_start(&a, &side_a);
	fd = client_dial(a.port);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	assert_true(read(fd, buf, sizeof(buf)) <= 0);
	close(fd);
	await_shown(&a, "refused", "why", "speaks neither TLS nor the language of nodes");
	side_stop(&a);
}

/* the beginning of a handshake, as libssl makes it. Return: bytes */
static size_t client_hello_bytes(unsigned char *out, size_t room)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	BIO *mem = BIO_new(BIO_s_mem());
	int len;

	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), mem);
	assert_int_equal(SSL_connect(ssl), -1);
	len = BIO_read(mem, out, (int)room);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	assert_true(len > 0);
	return (size_t)len;
}

/* who says nothing, little, or stops half way costs a connection for a while, and nobody else */
static void test_stall(void **state)
{
	const unsigned before = fds_open();
	unsigned char hello[2048];
	const size_t len = client_hello_bytes(hello, sizeof(hello));
	struct side_opts o = { .name = "b", .pki = "pki", .peer = "a" };
	uint64_t start_ms;
	struct side a, b;
	int fds[STRANGERS], drip;
	size_t i, at = 0;
	unsigned alive;
	char byte;

	(void)state;
	side_start(&a, &side_a);
	o.port = a.port;
	for (i = 0; i < STRANGERS; i++) {
		fds[i] = client_dial(a.port);
		/* some of them stop in the middle of it */
		if (i % 2)
			assert_int_equal(write(fds[i], hello, len / 2), len / 2);
	}
	drip = client_dial(a.port);
	side_start(&b, &o);
	start_ms = now_ms();
	await_shown(&b, "peers", "state", "connected");
	/* bytes that come one by one are not more than silence */
	do {
		if (at < len && send(drip, hello + at, 1, MSG_NOSIGNAL) == 1)
			at++;
		alive = 0;
		for (i = 0; i < STRANGERS; i++)
			alive += recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 &&
				 errno == EAGAIN;
		alive += recv(drip, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
		poll(NULL, 0, 100);
	} while (alive && now_ms() - start_ms < WAIT_MS);
	assert_int_equal(alive, 0);
	assert_true(shows(&b, "peers", "state", "connected"));
	assert_true(logged("have not said who they are"));
	for (i = 0; i < STRANGERS; i++)
		close(fds[i]);
	close(drip);
	side_stop(&b);
	side_stop(&a);
	await_fds(before);
}

/* Return: false: the node has hung up */
static bool still_there(struct client *c)
{
	char byte;
	int ret;

	do {
		ret = client_read(c, &byte, 1);
	} while (ret > 0);
	return ret < 0;
}

static void say_garbage(struct client *c)
{
	SSL_write(c->ssl, "this is no message at all, whatever else it may be", 50);
}

static void say_much(struct client *c)
{
	struct wire_head head = { WIRE_MAGIC, WIRE_VERSION, WIRE_HELLO, UINT32_MAX, 0 };

	SSL_write(c->ssl, &head, sizeof(head));
}

static void say_early(struct client *c)
{
	const struct wire_state body = { .draining = 1 };

	client_say(c, WIRE_STATE, &body, sizeof(body));
}

static void say_twice(struct client *c)
{
	client_hello(c, "b", 77);
	client_hello(c, "b", 77);
}

static void say_endpoint(struct client *c)
{
	static const struct wire_endpoint none = { .max_msg = 64 };

	client_hello(c, "b", 77);
	client_say(c, WIRE_ENDPOINT, &none, wire_endpoint_len(&none));
}

static void say_our_id(struct client *c)
{
	client_hello(c, "b", 'a');
}

/* keys change in the middle of it, again and again */
static void say_updates(struct client *c)
{
	unsigned i;

	for (i = 0; i < 200; i++) {
		SSL_key_update(c->ssl,
			       i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
		if (SSL_do_handshake(c->ssl) != 1 || SSL_write(c->ssl, "", 0) < 0)
			return;
	}
	say_garbage(c);
}

static void say_half(struct client *c)
{
	struct wire_head head;

	wire_head_fill(&head, WIRE_HELLO, sizeof(struct wire_hello));
	SSL_write(c->ssl, &head, sizeof(head));
	shutdown(c->fd, SHUT_WR);
}

static void break_record(struct client *c)
{
	static const char record[] = "\x17\x03\x03\x00\x20 this was never encrypted by anybody";

	assert_true(write(c->fd, record, 37) == 37);
}

/* nodes that are let in and break the rules are hung up on; another one is served meanwhile */
static void test_rude(void **state)
{
	static void (*const rude[])(struct client * c) = {
		say_garbage, say_much,	  say_early, say_twice,	   say_endpoint,
		say_our_id,  say_updates, say_half,  break_record,
	};
	const unsigned before = fds_open();
	struct side_opts o = { .name = "c", .pki = "pki", .peer = "a" };
	char path[256], body[WIRE_BODY_MAX];
	struct client_opts opts = { .dir = path, .name = "b" };
	struct client c;
	struct side a, b;
	unsigned i;

	(void)state;
	strcpy(path, in_dir("pki"));
	side_start(&a, &side_a);
	o.port = a.port;
	side_start(&b, &o);
	await_shown(&b, "peers", "state", "connected");
	log_forget();
	for (i = 0; i < WFI_ARRAY_SIZE(rude); i++) {
		assert_true(client_open(&c, a.port, &opts));
		assert_int_equal(client_hear(&c, body), WIRE_HELLO);
		rude[i](&c);
		assert_false(still_there(&c));
		client_close(&c);
	}
	assert_true(shows(&b, "peers", "state", "connected"));
	assert_false(logged("is connected over"));
	side_stop(&b);
	side_stop(&a);
	await_fds(before);
}

/* ---- certificates that change ---- */

struct storm {
	unsigned port;
	_Atomic bool stop;
	_Atomic unsigned good, bad;
};

static void *storm_main(void *arg)
{
	struct storm *s = arg;
	char path[256], body[WIRE_BODY_MAX];
	struct client_opts opts = { .dir = path, .name = "b" };
	struct client c;

	snprintf(path, sizeof(path), "%s/pki", dir);
	while (!s->stop) {
		if (client_open(&c, s->port, &opts) && client_hear(&c, body) == WIRE_HELLO)
			s->good++;
		else
			s->bad++;
		client_close(&c);
	}
	return NULL;
}

static void serial_of(const struct side *a, char out[64])
{
	char path[256];
	const struct client_opts opts = { .dir = path, .name = "b" };
	struct client c;

	strcpy(path, in_dir("pki"));
	assert_true(client_open(&c, a->port, &opts));
	client_serial(&c, out);
	client_close(&c);
}

/* handshakes go on while certificates change; connections that there are stay */
static void test_reload(void **state)
{
	const struct side_opts live = { .name = "a", .pki = "live" };
	struct side_opts o = { .name = "c", .pki = "pki", .peer = "a" };
	char first[64], second[64], again[64];
	struct storm storm = { .stop = false };
	const unsigned before = fds_open();
	pthread_t thread;
	struct side a, b;

	(void)state;
	dir_copy("pki/ca.crt", "live/ca.crt");
	dir_copy("pki/a.crt", "live/a.crt");
	dir_copy("pki/a.key", "live/a.key");
	side_start(&a, &live);
	o.port = a.port;
	side_start(&b, &o);
	await_shown(&b, "peers", "state", "connected");
	log_forget();
	storm.port = a.port;
	assert_int_equal(pthread_create(&thread, NULL, storm_main, &storm), 0);
	serial_of(&a, first);
	dir_copy("old/a.key", "live/a.key");
	dir_copy("old/a.crt", "live/a.crt");
	await_loads(&a, 2, false);
	serial_of(&a, second);
	assert_string_not_equal(first, second);

	/* a certificate of another key: what was there stays, and it is said */
	dir_copy("pki/a.crt", "live/a.crt");
	await_loads(&a, 2, true);
	serial_of(&a, again);
	assert_string_equal(second, again);
	assert_true(logged("not taken into use"));
	assert_true(logged("is not the key of tls_cert"));
	/* no file at all, and whose certificate */
	unlink(in_dir("live/a.crt"));
	await_loads(&a, 2, true);
	dir_copy("pki/c.crt", "live/a.crt");
	dir_copy("pki/c.key", "live/a.key");
	await_loads(&a, 2, true);
	dir_copy("pki/a.crt", "live/a.crt");
	dir_copy("pki/a.key", "live/a.key");
	await_loads(&a, 3, false);
	serial_of(&a, again);
	assert_string_equal(first, again);

	storm.stop = true;
	pthread_join(thread, NULL);
	assert_true(storm.good > 10);
	assert_int_equal(storm.bad, 0);
	assert_true(shows(&b, "peers", "state", "connected"));
	assert_false(logged("is connected over"));
	side_stop(&b);
	side_stop(&a);
	await_fds(before);
}

/* what is wrong with files is said before anything runs */
static void test_files(void **state)
{
	static const struct {
		const char *cert, *key, *ca, *node, *why;
	} bad[] = {
		{ "none.crt", "pki/a.key", "pki/ca.crt", "a", "tls_cert: " },
		{ "pki/a.key", "pki/a.key", "pki/ca.crt", "a", "no certificate in PEM form" },
		{ "pki/a.crt", "pki/b.key", "pki/ca.crt", "a", "is not the key of tls_cert" },
		{ "pki/a.crt", "pki/a.crt", "pki/ca.crt", "a", "no key in PEM form" },
		{ "pki/a.crt", "pki/a.key", "pki/a.key", "a", "tls_ca: " },
		{ "pki/a.crt", "pki/a.key", "other/ca.crt", "a", "not good for tls_ca" },
		{ "pki/a.crt", "pki/a.key", "pki/ca.crt", "b", "is that of node a" },
		{ "pki/ca.crt", "pki/ca.key", "pki/ca.crt", "a", "not of the form" },
		{ "pki", "pki/a.key", "pki/ca.crt", "a", "is no file" },
	};
	struct tls_opts opts;
	struct secure *secure;
	struct wfi_env env;
	char why[SECURE_WHY];
	unsigned i;

	(void)state;
	assert_int_equal(wfi_env_real_init(&env), 0);
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		opts = (struct tls_opts){ .env = &env,
					  .cert = in_dir(bad[i].cert),
					  .key = in_dir(bad[i].key),
					  .ca = in_dir(bad[i].ca),
					  .node = bad[i].node };
		assert_true(tls_create(&opts, &secure, why) < 0);
		if (!strstr(why, bad[i].why))
			fail_msg("\"%s\" has no \"%s\"", why, bad[i].why);
	}
}

/* ---- weft doctor ---- */

struct doctored {
	const char *pki; /* of node b; NULL: none */
	const char *peer;
	bool dead; /* nobody listens there */
	const char *check, *result, *says;
};

static void write_settings(const char *path, const struct doctored *d, unsigned port)
{
	FILE *out = fopen(path, "we");

	assert_non_null(out);
	fprintf(out,
		"name = \"b\";\ntransport = \"verbs\";\n"
		"peers = ({ name = \"%s\"; address = \"127.0.0.1:%u\"; });\n",
		d->peer, port);
	if (d->pki)
		fprintf(out,
			"tls_cert = \"%s/%s/b.crt\";\ntls_key = \"%s/%s/b.key\";\n"
			"tls_ca = \"%s/%s/ca.crt\";\n",
			dir, d->pki, dir, d->pki, dir, d->pki);
	assert_int_equal(fclose(out), 0);
}

static void check_doctor(const struct doctored *d, unsigned port)
{
	const char *settings = in_dir("weftd.conf");
	json_t *root, *checks, *one;
	bool found = false;
	char cmd[400];
	FILE *out;
	size_t i;

	write_settings(settings, d, port);
	snprintf(cmd, sizeof(cmd), "'%s' doctor --json --config '%s'", getenv("WEFT"), settings);
	out = popen(cmd, "re");
	assert_non_null(out);
	root = json_loadf(out, 0, NULL);
	pclose(out);
	checks = json_object_get(root, "checks");
	for (i = 0; i < json_array_size(checks); i++) {
		one = json_array_get(checks, i);
		if (strcmp(json_string_value(json_object_get(one, "check")), d->check))
			continue;
		found = true;
		assert_string_equal(json_string_value(json_object_get(one, "result")), d->result);
		if (!strstr(json_string_value(json_object_get(one, "found")), d->says))
			fail_msg("doctor: \"%s\" does not say \"%s\"",
				 json_string_value(json_object_get(one, "found")), d->says);
	}
	if (!found)
		fail_msg("doctor does not look at \"%s\"", d->check);
	json_decref(root);
}

/* the same is found beforehand, and nobody takes the doctor for a peer that failed */
static void test_doctor(void **state)
{
	static const struct doctored cases[] = {
		{ "pki", "a", false, "certificates", "ok", "spiffe://t.example/weft/node/b" },
		/* which it only says when both certificates are good */
		{ "pki", "a", false, "peer a", "fail", "reaches others over loop" },
		{ "pki", "c", false, "peer c", "fail", "is node a" },
		{ "pki", "a", true, "peer a", "warn", "can't be reached" },
		{ "other", "a", false, "peer a", "fail", "no authority of tls_ca" },
		{ "old", "a", false, "certificates", "fail", "has expired" },
		{ "old", "a", false, "peer a", "fail", "it has expired" },
		{ "none", "a", false, "certificates", "fail", "tls_cert: " },
		{ NULL, "a", false, "certificates", "ok", "none" },
		{ NULL, "a", false, "peer a", "fail", "it may want certificates" },
	};
	struct side a;
	unsigned i;

	(void)state;
	side_start(&a, &side_a);
	for (i = 0; i < WFI_ARRAY_SIZE(cases); i++)
		check_doctor(&cases[i], cases[i].dead ? test_free_port() : a.port);
	assert_false(logged("reaches others"));
	side_stop(&a);
}

/* ---- time ---- */

static const struct wfi_clock_ops *real_clock;
static _Atomic uint64_t ahead_ns;

static uint64_t ahead_now(struct wfi_env *env)
{
	return real_clock->now_ns(env);
}

static uint64_t ahead_wall(struct wfi_env *env)
{
	return real_clock->wall_ns(env) + ahead_ns;
}

/* what is about to expire is said before it has, and once a day */
static void test_expiry(void **state)
{
	static const struct wfi_clock_ops clock = { .now_ns = ahead_now, .wall_ns = ahead_wall };
	const uint64_t day_ns = 86400 * WFI_NSEC_PER_SEC;
	struct side s = { .control = NULL };
	struct secure_info info;

	(void)state;
	assert_int_equal(wfi_env_real_init(&s.env), 0);
	real_clock = s.env.clock;
	s.env.clock = &clock;
	log_forget();
	side_secure(&s, &side_a);
	s.secure->ops->info(s.secure, &info);
	assert_false(info.soon);
	ahead_ns = 9 * day_ns;
	assert_false(s.secure->ops->refresh(s.secure, false));
	s.secure->ops->info(s.secure, &info);
	assert_true(info.soon);
	assert_true(logged("tls_cert expires soon"));
	log_forget();
	assert_false(s.secure->ops->refresh(s.secure, false));
	assert_false(logged("tls_cert"));
	ahead_ns = 11 * day_ns;
	assert_false(s.secure->ops->refresh(s.secure, false));
	assert_true(logged("tls_cert expired"));
	/* a node that starts so is there for its host, at least */
	tls_destroy(s.secure);
	side_secure(&s, &side_a);
	tls_destroy(s.secure);
	ahead_ns = 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),	cmocka_unit_test(test_meet),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_allow),
		cmocka_unit_test(test_caller),	cmocka_unit_test(test_browser),
		cmocka_unit_test(test_stall),	cmocka_unit_test(test_rude),
		cmocka_unit_test(test_reload),	cmocka_unit_test(test_doctor),
		cmocka_unit_test(test_expiry),
	};
	int failed;

	if (!getenv("WEFT")) {
		fprintf(stderr, "WEFT names no weft\n");
		return 77;
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	workers_start();
	failed = cmocka_run_group_tests(tests, tls_setup, tls_cleanup);
	workers_stop();
	return failed;
}
