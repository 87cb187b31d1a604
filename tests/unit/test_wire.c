/* SPDX-License-Identifier: Apache-2.0 */
/* messages between nodes: what is let through, and what is not; streams that bring them */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/stream.h"
#include "weft_internal/util.h"

static struct wfi_env env;

struct message {
	struct wire_head head;
	union {
		struct wire_hello hello;
		struct wire_endpoint endpoint;
		struct wire_refuse refuse;
		struct wire_state state;
	} u;
};

static struct message hello(void)
{
	struct message m = { .u.hello = { .node = 1, .name = "a", .transport = "verbs" } };

	wire_head_fill(&m.head, WIRE_HELLO, sizeof(m.u.hello));
	return m;
}

static int check(const struct message *m)
{
	return wire_datagram(m, sizeof(m->head) + m->head.len);
}

static void test_heads(void **state)
{
	struct message m = hello();

	(void)state;
	assert_int_equal(check(&m), 0);
	assert_int_equal(wire_datagram(&m, sizeof(m.head) - 1), -EPROTO);
	assert_int_equal(wire_datagram(&m, sizeof(m.head) + m.head.len - 1), -EPROTO);
	assert_int_equal(wire_datagram(&m, sizeof(m.head) + m.head.len + 1), -EPROTO);
	m.head.version++;
	assert_int_equal(check(&m), -EPROTONOSUPPORT);
	m = hello();
	m.head.magic++;
	assert_int_equal(check(&m), -EPROTO);
	m = hello();
	m.head.reserved = 1;
	assert_int_equal(check(&m), -EPROTO);
	m = hello();
	m.head.type = 0;
	assert_int_equal(check(&m), -EPROTO);
	m.head.type = WIRE_NR;
	assert_int_equal(check(&m), -EPROTO);
	m = hello();
	m.head.len = UINT32_MAX;
	assert_int_equal(wire_datagram(&m, sizeof(m)), -EPROTO);
}

static void test_hello(void **state)
{
	static const char *const bad[] = { "", "a b", "a\n", "\x1b[2J", "a/b" };
	struct message m;
	unsigned i;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		m = hello();
		strcpy(m.u.hello.name, bad[i]);
		assert_int_equal(check(&m), -EPROTO);
		m = hello();
		strcpy(m.u.hello.transport, bad[i]);
		assert_int_equal(check(&m), -EPROTO);
	}
	m = hello();
	memset(m.u.hello.name, 'a', sizeof(m.u.hello.name));
	assert_int_equal(check(&m), -EPROTO);
}

static struct message endpoint(uint32_t nr_arenas)
{
	static struct message m;

	memset(&m, 0, sizeof(m));
	m.u.endpoint.nr_arenas = nr_arenas;
	m.u.endpoint.addr_len = WEFT_EP_ADDR_MAX;
	wire_head_fill(&m.head, WIRE_ENDPOINT, wire_endpoint_len(&m.u.endpoint));
	return m;
}

static void test_endpoint(void **state)
{
	struct message m;

	(void)state;
	m = endpoint(0);
	assert_int_equal(check(&m), 0);
	m = endpoint(WIRE_TENANTS_MAX);
	assert_int_equal(check(&m), 0);
	m.u.endpoint.nr_arenas = WIRE_TENANTS_MAX - 1;
	assert_int_equal(check(&m), -EPROTO);
	m.u.endpoint.nr_arenas = UINT32_MAX;
	assert_int_equal(check(&m), -EPROTO);
	m = endpoint(1);
	m.u.endpoint.addr_len++;
	assert_int_equal(check(&m), -EPROTO);
	m = endpoint(1);
	m.u.endpoint.addr_fds = WEFT_EP_FDS_MAX + 1;
	assert_int_equal(check(&m), -EPROTO);
	m = endpoint(2);
	m.u.endpoint.arenas[1].blob_len = WEFT_RKEY_BLOB_MAX + 1;
	assert_int_equal(check(&m), -EPROTO);
	m = endpoint(2);
	m.u.endpoint.arenas[1].has_fd = 2;
	assert_int_equal(check(&m), -EPROTO);
	m = endpoint(2);
	m.u.endpoint.arenas[0].reserved = 1;
	assert_int_equal(check(&m), -EPROTO);
}

static void test_others(void **state)
{
	struct message m = { .u.refuse = { .why = "no" } };

	(void)state;
	wire_head_fill(&m.head, WIRE_REFUSE, sizeof(m.u.refuse));
	assert_int_equal(check(&m), 0);
	/* it is shown as it is */
	strcpy(m.u.refuse.why, "no\x1b[2J");
	assert_int_equal(check(&m), -EPROTO);
	strcpy(m.u.refuse.why, "no\xff");
	assert_int_equal(check(&m), -EPROTO);
	memset(m.u.refuse.why, 'x', sizeof(m.u.refuse.why));
	assert_int_equal(check(&m), -EPROTO);
	m.u.state = (struct wire_state){ .draining = 1 };
	wire_head_fill(&m.head, WIRE_STATE, sizeof(m.u.state));
	assert_int_equal(check(&m), 0);
	m.u.state.draining = 2;
	assert_int_equal(check(&m), -EPROTO);
}

/* each type has a row that can be used as the decoder does */
static void test_types(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < WIRE_NR; i++) {
		const struct wire_type *t = &wire_types[i];

		assert_int_equal(t->name != NULL, i > 0);
		assert_true(t->min_len <= t->max_len && t->max_len <= WIRE_BODY_MAX);
		assert_true(!t->name || t->min_len);
	}
}

/* ---- streams ---- */

struct pair {
	int fd[2];
	struct stream s;
};

static void pair_open(struct pair *p)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fd),
			 0);
	assert_int_equal(stream_init(&p->s, &env, p->fd[0], false, NULL), 0);
	assert_int_equal(stream_ready(&p->s), 0);
}

static void pair_close(struct pair *p)
{
	stream_fini(&p->s);
	close(p->fd[0]);
	close(p->fd[1]);
}

static void tell(struct pair *p, const void *bytes, size_t len)
{
	assert_int_equal(write(p->fd[1], bytes, len), len);
}

static void test_byte_by_byte(void **state)
{
	struct message m = hello();
	const size_t len = sizeof(m.head) + m.head.len;
	struct stream_msg got;
	struct pair p;
	unsigned nr;
	size_t i;

	(void)state;
	pair_open(&p);
	for (nr = 0; nr < 3; nr++) {
		for (i = 0; i < len; i++) {
			assert_int_equal(stream_next(&p.s, &got), -EAGAIN);
			tell(&p, (char *)&m + i, 1);
		}
		assert_int_equal(stream_next(&p.s, &got), 1);
		assert_int_equal(got.type, WIRE_HELLO);
		assert_memory_equal(got.body, &m.u.hello, got.len);
	}
	close(p.fd[1]);
	assert_int_equal(stream_next(&p.s, &got), -ECONNRESET);
	p.fd[1] = -1;
	pair_close(&p);
}

/* who is no node of this release is told apart by its first bytes */
static void test_strangers(void **state)
{
	static const struct {
		const char *says;
		int ret;
		const char *why;
	} strangers[] = {
		{ "\x16\x03\x01\x02", -EPROTO, "speaks TLS, and this node has no certificates" },
		{ "GET ", -EPROTO, "is no node of weft" },
		{ "WFTC\x09\0\1\0\0\0\0\0\0\0\0", -EPROTONOSUPPORT, "speaks version 9, this" },
		{ "WFTC\x02\0\7\0\0\0\0\0\0\0\0", -EPROTO, "no message of this version (type 7," },
	};
	struct stream_msg got;
	struct pair p;
	unsigned i;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(strangers); i++) {
		pair_open(&p);
		tell(&p, strangers[i].says, i < 2 ? 4 : sizeof(struct wire_head));
		assert_int_equal(stream_next(&p.s, &got), strangers[i].ret);
		assert_non_null(strstr(p.s.why, strangers[i].why));
		pair_close(&p);
	}
}

/* a peer that does not read is told as much as there is room for, and then given up */
static void test_deaf(void **state)
{
	const struct wire_state body = { .draining = 1 };
	unsigned sent = 0, got = 0;
	char buf[4096];
	struct pair p;
	ssize_t len;
	int ret;

	(void)state;
	pair_open(&p);
	do {
		ret = stream_send(&p.s, WIRE_STATE, &body, sizeof(body));
		sent += !ret;
	} while (!ret);
	assert_int_equal(ret, -ENOBUFS);
	assert_true(stream_wants_write(&p.s));
	/* nothing of it is lost */
	while ((len = read(p.fd[1], buf, sizeof(buf))) > 0 || stream_wants_write(&p.s)) {
		got += len > 0 ? (unsigned)len : 0;
		assert_int_equal(stream_flush(&p.s), 0);
	}
	assert_int_equal(got, sent * (sizeof(struct wire_head) + sizeof(body)));
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads),	  cmocka_unit_test(test_hello),
		cmocka_unit_test(test_endpoint),  cmocka_unit_test(test_others),
		cmocka_unit_test(test_types),	  cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_strangers), cmocka_unit_test(test_deaf),
	};

	if (wfi_env_real_init(&env))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
