/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer in a process of its own, that is killed, stopped, or lies: each post of ours ends, once,
 * and its endpoint with it, within the patience that the device was opened with. Run as:
 * test_served_procs PROVIDER [DEVICE [files]], for providers whose peers serve reads and writes;
 * with files, what they need to map each other's memory goes with addresses and rights.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "conf.h"
#include "transport/tcp/tcp.h"
#include "weft_internal/transport_registry.h"

#define SILENT_MS 1500u
#define LIMIT_NS (20 * WFI_NSEC_PER_SEC) /* for a slow machine: what is measured is below */

static const struct weft_transport *provider;
static bool with_files;
static struct weft_export earlier; /* of the peer that was there before */

enum { FDS_MAX = WFI_SRV_FD_NR + 1 };

struct intro {
	struct weft_ep_addr addr;
	struct weft_export right;
};

struct two {
	struct wfi_env env;
	struct side s;
	struct weft_rkey *rkey;
	struct weft_export theirs; /* what .rkey was made from; its file is closed */
	pid_t pid;
	int sock;
};

static void intro_tell(struct side *s, int sock)
{
	struct intro mine;
	int fds[FDS_MAX], file;

	assert_int_equal(provider->ep_addr(s->ep, &mine.addr), 0);
	assert_int_equal(provider->mr_export(s->mr, NULL, &mine.right), 0);
	file = mine.right.fd;
	memcpy(fds, mine.addr.fds, WFI_SRV_FD_NR * sizeof(int));
	fds[WFI_SRV_FD_NR] = file;
	if (!with_files) {
		mine.addr.nr_fds = 0;
		mine.right.fd = -1;
	}
	send_fds(sock, &mine, sizeof(mine), fds, with_files ? FDS_MAX : 0);
	if (file >= 0)
		close(file);
}

static struct weft_export intro_hear(struct side *s, int sock, struct weft_rkey **rkey)
{
	struct intro theirs;
	int fds[FDS_MAX], i;

	recv_fds(sock, &theirs, sizeof(theirs), fds, with_files ? FDS_MAX : 0);
	memcpy(theirs.addr.fds, fds, WFI_SRV_FD_NR * sizeof(int));
	if (with_files)
		theirs.right.fd = fds[WFI_SRV_FD_NR];
	connect_to(s->ep, &theirs.addr, 0);
	*rkey = import_export(s->ep, &theirs.right);
	assert_int_equal(provider->rkey_ptr(*rkey) != NULL, with_files);
	for (i = 0; with_files && i < FDS_MAX; i++)
		close(fds[i]);
	return theirs.right;
}

/* polls until it is told to end, or killed */
static void child(int sock)
{
	struct weft_rkey *rkey = NULL;
	struct weft_wc wc;
	struct wfi_env env;
	struct side s;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (wfi_env_real_init(&env))
		_exit(1);
	side_open(&s, provider, &env, 256, 64);
	intro_tell(&s, sock);
	intro_hear(&s, sock, &rkey);
	while (recv(sock, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
		weft_cq_poll(s.recv_cq, &wc, 1);
	provider->rkey_destroy(rkey);
	side_close(&s, &env);
	_exit(0);
}

static int setup(void **state)
{
	struct two *t = calloc(1, sizeof(*t));
	int socks[2];

	assert_non_null(t);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
	t->pid = fork();
	if (!t->pid) {
		close(socks[0]);
		child(socks[1]);
	}
	close(socks[1]);
	t->sock = socks[0];
	assert_int_equal(wfi_env_real_init(&t->env), 0);
	side_open(&t->s, provider, &t->env, 256, 64);
	intro_tell(&t->s, t->sock);
	t->theirs = intro_hear(&t->s, t->sock, &t->rkey);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct two *t = *state;

	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	earlier = t->theirs;
	provider->rkey_destroy(t->rkey);
	side_close(&t->s, &t->env);
	close(t->sock);
	free(t);
	return 0;
}

static int post(struct two *t, uint64_t len, uint64_t cookie, bool read)
{
	const struct weft_piece piece = { t->s.mem, 0, len, t->rkey };
	const struct weft_post p = { .pieces = &piece, .nr_pieces = 1, .cookie = cookie };

	return read ? weft_ep_post_read(t->s.ep, &p) : weft_ep_post_write(t->s.ep, &p);
}

static void one_of_each(struct two *t)
{
	assert_int_equal(post(t, 4096, 1, false), 0);
	expect_wc(&t->s, t->s.send_cq, WEFT_WC_WRITE, 0);
	assert_int_equal(post(t, 4096, 2, true), 0);
	expect_wc(&t->s, t->s.send_cq, WEFT_WC_READ, 0);
}

/* all that was posted ends, then the endpoint, with @status or what comes near it. Return: ns */
static uint64_t ends(struct two *t, unsigned posted)
{
	const uint64_t start_ns = wfi_now(&t->env);
	bool closed = false;
	struct weft_wc wc;
	unsigned nr = 0;

	while (!closed && wfi_now(&t->env) - start_ns < LIMIT_NS) {
		if (weft_cq_poll(t->s.send_cq, &wc, 1) == 1) {
			assert_int_equal(wc.cookie, 100 + nr);
			nr++;
			assert_true(!wc.status || wc.scope == WEFT_SCOPE_EP);
		}
		if (weft_cq_poll(t->s.recv_cq, &wc, 1) == 1) {
			assert_int_equal(wc.op, WEFT_WC_CLOSED);
			assert_true(wc.status == -ECONNRESET || wc.status == -ETIMEDOUT);
			closed = true;
		}
	}
	assert_true(closed);
	assert_int_equal(nr, posted);
	assert_int_equal(post(t, 1, 0, false), -ENOTCONN);
	return wfi_now(&t->env) - start_ns;
}

static unsigned fill_up(struct two *t)
{
	unsigned nr = 0;

	while (nr < 40 && !post(t, 1u << 20, 100 + nr, nr % 4 == 3))
		nr++;
	return nr;
}

static void test_killed(void **state)
{
	struct two *t = *state;

	one_of_each(t);
	kill(t->pid, SIGKILL);
	ends(t, fill_up(t));
}

/* what is under way when it stops ends by the patience, and not before half of it; memory that is
 * mapped needs nobody */
static void test_stopped(void **state)
{
	struct two *t = *state;
	int status;

	one_of_each(t);
	kill(t->pid, SIGSTOP);
	assert_int_equal(waitpid(t->pid, &status, WUNTRACED), t->pid);
	if (with_files)
		one_of_each(t);
	else
		assert_true(ends(t, fill_up(t)) > SILENT_MS / 2 * WFI_NSEC_PER_MSEC);
}

/* the right to memory of the peer's earlier life is refused by who has met the next */
static void test_next_life(void **state)
{
	struct two *t = *state;
	struct weft_rkey_src src = { .size = sizeof(src), .kind = WEFT_RKEY_BLOB, .fd = -1 };
	struct weft_rkey *rkey = NULL;

	src.blob = earlier.blob;
	src.blob_len = earlier.blob_len;
	assert_int_equal(provider->rkey_import(t->s.ep, &src, &rkey), -ESTALE);
	one_of_each(t);
}

/* silence when nothing is due is no reason to end: it may sleep */
static void test_idle(void **state)
{
	struct two *t = *state;
	uint64_t start_ns = wfi_now(&t->env);
	struct weft_wc wc;

	one_of_each(t);
	kill(t->pid, SIGSTOP);
	while (wfi_now(&t->env) - start_ns < 5 * SILENT_MS / 4 * WFI_NSEC_PER_MSEC)
		assert_int_equal(weft_cq_poll(t->s.recv_cq, &wc, 1), 0);
	kill(t->pid, SIGCONT);
	one_of_each(t);
	/* nor when we were the ones who slept */
	start_ns = wfi_now(&t->env);
	while (wfi_now(&t->env) - start_ns < 5 * SILENT_MS / 4 * WFI_NSEC_PER_MSEC)
		;
	one_of_each(t);
}

/* it leaves in order while it is asked for much */
static void test_leaves(void **state)
{
	struct two *t = *state;
	unsigned nr;

	one_of_each(t);
	nr = fill_up(t);
	assert_int_equal(send(t->sock, "", 1, 0), 1);
	ends(t, nr);
}

static int stranger(const struct weft_ep_addr *addr)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct wfi_tcp_addr at;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	memcpy(&at, addr->blob + sizeof(struct wfi_srv_ep_blob), sizeof(at));
	to.sin_port = htons(at.port);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* who connects to our port and says nothing, or anything, is in nobody's way */
static void test_strangers(void **state)
{
	enum { NR = 2 * WFI_TCP_STRANGERS };
	struct wfi_tcp_hello hello = { .magic = WFI_TCP_HELLO_MAGIC };
	struct two *t = *state;
	struct weft_ep_addr addr;
	int fds[NR], i;

	if (strcmp(provider->name, "tcp") != 0)
		skip();
	assert_int_equal(provider->ep_addr(t->s.ep, &addr), 0);
	memcpy(&hello.to, addr.blob + offsetof(struct wfi_srv_ep_blob, id), sizeof(hello.to));
	for (i = 0; i < NR; i++) {
		fds[i] = stranger(&addr);
		/* the right endpoint, and not its ticket; half of a hello; nothing */
		if (i % 3)
			assert_true(send(fds[i], &hello, i % 3 == 1 ? sizeof(hello) : 17,
					 MSG_NOSIGNAL) > 0);
		if (i % 16 == 0)
			one_of_each(t);
	}
	one_of_each(t);
	for (i = 0; i < NR; i++)
		close(fds[i]);
	one_of_each(t);
}

static void assert_unpaced(const struct side *s)
{
	const int fd = wfi_tcp_ep(wfi_srv_ep(s->ep))->fd;
	char name[16] = "";
	socklen_t len = sizeof(name);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len), 0);
	assert_string_equal(name, "reno");
}

/* inside a host neither who dials nor who is called paces what it sends */
static void test_unpaced(void **state)
{
	struct pair p;

	(void)state;
	if (strcmp(provider->name, "tcp") != 0)
		skip();
	pair_open(&p, provider, 256, 64);
	weft_ep_post_send(p.a.ep, "", 1, 0, 0);
	expect_wc(&p.b, p.b.recv_cq, WEFT_WC_RECV, 0);
	assert_unpaced(&p.a);
	assert_unpaced(&p.b);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leaves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_next_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strangers, setup, teardown),
		cmocka_unit_test(test_unpaced),
	};
	struct weft_probe probe;
	struct wfi_env env;

	provider = argc > 1 ? wfi_transport_find(NULL, argv[1]) : NULL;
	if (!provider) {
		fprintf(stderr, "usage: %s PROVIDER [DEVICE [files]]\n", argv[0]);
		return 2;
	}
	side_device_opts.name = argc > 2 ? argv[2] : NULL;
	with_files = argc > 3 && !strcmp(argv[3], "files");
	side_device_opts.silent_ms = SILENT_MS;
	if (wfi_env_real_init(&env) || provider->probe(provider, &env, &probe)) {
		printf("%s can't run here: %s\n", provider->name, probe.why);
		return 77;
	}
	return cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
}
