/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs between two processes, in one guest or in two: the other side echoes messages, and is
 * killed, stopped and cut off on demand. Run by ./run in each guest; the one with WEFT_VM_HOST=1 is
 * the other side when there are two.
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/conformance/conf.h"
#include "tests/vm/guest.h"
#include "transport/verbs/verbs.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/xfer.h"

#define PORT 7471
#define SILENT_MS 1200u /* a peer that is silent for so long is gone */
#define LIMIT_MS (SILENT_MS + 100) /* of an op that it leaves */
#define HEAL_MS 1000 /* to connect anew */
#define OUTAGE_US 400000
#define MSGS 1000
#define FAIL_AT 100

/* what the two tell each other first */
struct intro {
	struct weft_ep_addr addr;
	struct weft_export mem;
};

/* how the two meet */
enum way { WAY_NONE, WAY_RAW, WAY_CM, WAY_PATIENT /* raw, for a wire that loses packets */ };

enum order {
	ORDER_DIE = 'k',
	ORDER_STOP = 's',
	ORDER_LINK = 'l',
	ORDER_REBOOT = 'r',
	ORDER_HALT = 'h'
};

struct duo {
	struct wfi_env env;
	struct side a;
	int sock;
	struct intro peer;
	struct weft_rkey *mem;
	bool closed;
	bool halted; /* this guest has stood still: who hangs up is gone */
	uint8_t scope; /* of what closed it */
};

static bool fatal_due;
static const struct weft_transport *provider;
static char port_addr[64];
static const uint8_t good_ticket[WEFT_TICKET_LEN] = "peers may come";

/* a guest on a busy host is not silent, it is slow, and its patience has to be larger */
static void patience_set(enum way way)
{
	side_device_opts.silent_ms =
		(uint32_t)(way == WAY_PATIENT ? GUEST_SLOWEST : guest_slowness) * SILENT_MS;
}

/* at a port, until somebody with a good ticket comes */
static void accept_one(struct duo *d, struct weft_port *port)
{
	struct weft_ask ask;
	int ret;

	for (;;) {
		ret = provider->port_poll(port, &ask);
		assert_true(ret >= 0);
		if (!ret)
			continue;
		if (!memcmp(ask.ticket, good_ticket, sizeof(good_ticket)))
			break;
		assert_int_equal(provider->port_refuse(port, ask.id), 0);
	}
	assert_int_equal(provider->port_accept(port, ask.id, d->a.ep), 0);
	expect_wc(&d->a, d->a.recv_cq, WEFT_WC_OPEN, 0);
}

static void dial_port(struct duo *d, struct weft_ep *ep, const char *addr, const void *ticket)
{
	struct weft_dial_opts o = { .size = sizeof(o), .addr = addr };

	(void)d;
	memcpy(o.ticket, ticket, sizeof(o.ticket));
	assert_int_equal(provider->ep_dial(ep, &o), 0);
}

static void introduce(struct duo *d, enum way way, bool serves)
{
	struct weft_port_opts o = { .size = sizeof(o), .addr = port_addr };
	struct weft_port *port = NULL;
	struct intro mine;

	memset(&mine, 0, sizeof(mine));
	assert_int_equal(provider->ep_addr(d->a.ep, &mine.addr), 0);
	assert_int_equal(provider->mr_export(d->a.mr, NULL, &mine.mem), 0);
	if (way == WAY_CM && serves)
		assert_int_equal(provider->port_open(d->a.dev, &o, &port), 0);
	guest_move(d->sock, &mine, sizeof(mine), 1);
	guest_move(d->sock, &d->peer, sizeof(d->peer), 0);
	if (way != WAY_CM) {
		connect_to(d->a.ep, &d->peer.addr, 0);
	} else if (serves) {
		accept_one(d, port);
	} else {
		dial_port(d, d->a.ep, port_addr, good_ticket);
		expect_wc(&d->a, d->a.recv_cq, WEFT_WC_OPEN, 0);
	}
	provider->port_close(port);
	d->mem = import_export(d->a.ep, &d->peer.mem);
	/* neither posts before both are connected */
	guest_move(d->sock, &mine, 1, 1);
	guest_move(d->sock, &mine, 1, 0);
}

/* the device says once that it is broken, when that is wanted. Linked over the library's */
int __real_ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *event);
int __wrap_ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *event);

int __wrap_ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *event)
{
	if (!fatal_due)
		return __real_ibv_get_async_event(ctx, event);
	fatal_due = false;
	event->event_type = IBV_EVENT_DEVICE_FATAL;
	return 0;
}

/* ---- the other side ---- */

static void link_flap(void)
{
	guest_run("ip link set eth0 down");
	usleep(OUTAGE_US);
	guest_run("ip link set eth0 up");
}

/* nothing is said to anybody, and no device is shut down first; ./run starts the guest anew */
static void reboot_now(void)
{
	guest_run("touch %s/again.%s", getenv("WEFT_VM_SCRATCH"), getenv("WEFT_VM_HOST"));
	guest_run("echo b >/proc/sysrq-trigger");
}

/* the whole machine stands still, by ./run. @ms: 0 for good */
static void halt(struct duo *d)
{
	const char *dir = getenv("WEFT_VM_SCRATCH"), *host = getenv("WEFT_VM_HOST");
	uint32_t ms;

	d->halted = true;
	guest_move(d->sock, &ms, sizeof(ms), 0);
	if (ms)
		guest_run("echo %u.%03u >%s/stop", ms / 1000, ms % 1000, dir);
	else
		guest_run("echo for good >%s/stop", dir);
	guest_run("mv %s/stop %s/stop.%s", dir, dir, host);
}

static void obey(struct duo *d)
{
	char order;
	ssize_t n = recv(d->sock, &order, 1, MSG_DONTWAIT);

	if (!n && d->halted)
		provider->ep_shutdown(d->a.ep);
	if (n != 1)
		return;
	if (order == ORDER_HALT)
		halt(d);
	if (order == ORDER_DIE)
		raise(SIGKILL);
	if (order == ORDER_STOP)
		raise(SIGSTOP);
	if (order == ORDER_LINK)
		link_flap();
	if (order == ORDER_REBOOT)
		reboot_now();
}

static void echo(struct duo *d, const struct weft_wc *wc)
{
	struct weft_post imm = { .imm = wc->imm + 1, .flags = WEFT_POST_QUIET };
	struct weft_wc wcs[16];
	int ret;

	do {
		ret = wc->op == WEFT_WC_RECV
			      ? weft_ep_post_send(d->a.ep, wc->data, (uint32_t)wc->len, 0,
						  WEFT_POST_QUIET)
			      : weft_ep_post_write_imm(d->a.ep, &imm);
		weft_cq_poll(d->a.send_cq, wcs, 16);
	} while (ret == -EAGAIN);
}

/* one connection: until it is closed */
static void serve(int sock, enum way way)
{
	struct duo d = { .sock = sock };
	struct weft_wc wc, rest[16];
	unsigned polls = 0;

	assert_int_equal(wfi_env_real_init(&d.env), 0);
	patience_set(way);
	side_open(&d.a, provider, &d.env, 256, 64);
	introduce(&d, way, true);
	for (wc.op = 0; wc.op != WEFT_WC_CLOSED;) {
		if (++polls % 64 == 0)
			obey(&d);
		weft_cq_poll(d.a.send_cq, rest, 16);
		if (weft_cq_poll(d.a.recv_cq, &wc, 1) == 1 && wc.op != WEFT_WC_CLOSED)
			echo(&d, &wc);
	}
	provider->rkey_destroy(d.mem);
	side_close(&d.a, &d.env);
}

/* a process a connection, whose ends are waited for; one that stops is continued */
static int server(int sock)
{
	int status;
	char more;

	for (;;) {
		int conn = accept(sock, NULL, NULL);
		pid_t pid;

		if (conn < 0 || recv(conn, &more, 1, 0) != 1 || !more)
			return 0;
		pid = fork();
		if (!pid) {
			serve(conn, (enum way)more);
			_exit(0);
		}
		close(conn);
		while (waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status)) {
			usleep(OUTAGE_US);
			kill(pid, SIGCONT);
		}
	}
}

/* ---- the side that looks ---- */

static struct sockaddr_in where;

/* whatever was before: once the other side is there, they meet within a second */
static int setup_way(void **state, enum way way)
{
	struct duo *d = calloc(1, sizeof(*d));
	uint64_t start_ns;
	char heard;

	assert_non_null(d);
	assert_int_equal(wfi_env_real_init(&d->env), 0);
	/* it may still wait for the end of the one before, or go down and come back */
	d->sock = guest_dial(&where, (char)way);
	if (recv(d->sock, &heard, 1, MSG_PEEK) != 1) {
		close(d->sock);
		d->sock = guest_dial(&where, (char)way);
		assert_int_equal(recv(d->sock, &heard, 1, MSG_PEEK), 1);
	}
	start_ns = wfi_now(&d->env);
	patience_set(way);
	side_open(&d->a, provider, &d->env, 256, 64);
	introduce(d, way, false);
	assert_true(guest_in_time(&d->env, start_ns, HEAL_MS));
	*state = d;
	return 0;
}

static int setup(void **state)
{
	return setup_way(state, WAY_RAW);
}

static int setup_patient(void **state)
{
	return setup_way(state, WAY_PATIENT);
}

static int setup_cm(void **state)
{
	return setup_way(state, WAY_CM);
}

static int teardown(void **state)
{
	struct duo *d = *state;
	struct weft_wc wc;

	provider->ep_shutdown(d->a.ep);
	while (!d->closed) {
		weft_cq_poll(d->a.send_cq, &wc, 1);
		if (weft_cq_poll(d->a.recv_cq, &wc, 1))
			d->closed = wc.op == WEFT_WC_CLOSED;
	}
	provider->rkey_destroy(d->mem);
	side_close(&d->a, &d->env);
	close(d->sock);
	free(d);
	return 0;
}

static struct weft_post post_of(struct duo *d, const struct weft_piece *pieces, uint32_t nr)
{
	return (struct weft_post){ .pieces = pieces, .nr_pieces = nr, .local_mr = d->a.mr };
}

static void send_order(struct duo *d, enum order order)
{
	char c = (char)order;

	guest_move(d->sock, &c, 1, 1);
}

/* pieces scattered at random, written, read back to another place, compared. Return: 0, or how the
 * endpoint ended */
static int try_pieces(struct duo *d)
{
	enum { NR = 64, SLOT = 16384, HALF = SIDE_MEM / 2 };
	struct weft_piece out[NR], in[NR];
	struct weft_post post;
	unsigned i, round;
	int status;

	for (round = 0; round < 4; round++) {
		for (i = 0; i < NR; i++) {
			uint64_t slot = (i * 167u + round * 31u) % NR;
			uint64_t len = (i * 977u + round * 131u) % SLOT;

			memset(d->a.mem + (size_t)i * SLOT, (int)(i + round), SLOT);
			out[i] = (struct weft_piece){ d->a.mem + (size_t)i * SLOT, slot * SLOT, len,
						      d->mem };
			in[i] = out[i];
			in[i].local = d->a.mem + HALF + (size_t)i * SLOT;
		}
		memset(d->a.mem + HALF, 0xee, HALF);
		post = post_of(d, out, NR);
		assert_int_equal(weft_ep_post_write(d->a.ep, &post), 0);
		status = wait_wc(&d->a, d->a.send_cq).status;
		post = post_of(d, in, NR);
		if (!status)
			status = weft_ep_post_read(d->a.ep, &post);
		if (!status)
			status = wait_wc(&d->a, d->a.send_cq).status;
		if (status)
			return status;
		for (i = 0; i < NR; i++) {
			const uint8_t *got = in[i].local;

			assert_memory_equal(got, out[i].local, in[i].len);
			assert_int_equal(got[in[i].len], 0xee);
		}
	}
	return 0;
}

static void test_pieces(void **state)
{
	assert_int_equal(try_pieces(*state), 0);
}

static uint32_t msg_len(struct duo *d, unsigned i)
{
	return 1 + i * 3271u % d->a.dev->caps.max_msg;
}

/* what comes back is what was sent, in order, while the window is kept full. Return: 0, or how the
 * endpoint ended */
static int try_messages(struct duo *d, unsigned nr)
{
	static uint8_t buf[WFI_VERBS_MSG_BYTES], want[WFI_VERBS_MSG_BYTES];
	unsigned sent = 0, got = 0;
	struct weft_wc wc;

	while (got < nr) {
		memset(buf, (int)sent, sizeof(buf));
		if (sent < nr && sent - got < 48 &&
		    !weft_ep_post_send(d->a.ep, buf, msg_len(d, sent), sent, WEFT_POST_QUIET))
			sent++;
		weft_cq_poll(d->a.send_cq, &wc, 1);
		if (!weft_cq_poll(d->a.recv_cq, &wc, 1))
			continue;
		d->closed = wc.op == WEFT_WC_CLOSED;
		if (d->closed)
			return wc.status;
		assert_int_equal(wc.op, WEFT_WC_RECV);
		assert_int_equal(wc.len, msg_len(d, got));
		memset(want, (int)got, sizeof(want));
		assert_memory_equal(wc.data, want, wc.len);
		got++;
	}
	return 0;
}

static void echo_messages(struct duo *d, unsigned nr)
{
	assert_int_equal(try_messages(d, nr), 0);
}

static void test_messages(void **state)
{
	echo_messages(*state, MSGS);
}

static void test_immediates(void **state)
{
	struct duo *d = *state;
	struct weft_post post = { .flags = WEFT_POST_QUIET };
	unsigned i;

	for (i = 0; i < 200; i++) {
		post.imm = i;
		assert_int_equal(weft_ep_post_write_imm(d->a.ep, &post), 0);
		assert_int_equal(expect_wc(&d->a, d->a.recv_cq, WEFT_WC_RECV_IMM, 0).imm, i + 1);
		weft_cq_poll(d->a.send_cq, &(struct weft_wc){ 0 }, 1);
	}
}

/* who dials in vain is told why, and in time */
static void expect_no(struct duo *d, const char *addr, const void *ticket, int status)
{
	struct weft_ep_opts o = { .size = sizeof(o) };
	struct weft_ep *ep = NULL;
	struct weft_wc wc;

	o.send_cq = d->a.send_cq;
	o.recv_cq = d->a.recv_cq;
	assert_int_equal(provider->ep_create(d->a.dev, &o, &ep), 0);
	dial_port(d, ep, addr, ticket);
	wc = wait_wc(&d->a, d->a.recv_cq);
	assert_ptr_equal(wc.ep, ep);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, status);
	provider->ep_destroy(ep);
}

/* through the connection manager: memory and messages go both ways; others are refused */
static void test_dialed(void **state)
{
	struct weft_port_opts o = { .size = sizeof(o) };
	struct weft_port *port = NULL;
	struct duo *d = *state;
	char addr[64], own[64];

	test_pieces(state);
	echo_messages(d, 100);
	expect_no(d, port_addr, good_ticket, -ECONNREFUSED);
	/* a port of ours, at which somebody shows another ticket */
	snprintf(own, sizeof(own), "%s:0",
		 !guest_is("WEFT_VM_HOST", "1") ? getenv("WEFT_VM_ADDR_2")
						: getenv("WEFT_VM_ADDR_1"));
	o.addr = own;
	assert_int_equal(provider->port_open(d->a.dev, &o, &port), 0);
	assert_int_equal(provider->port_addr(port, addr, sizeof(addr)), 0);
	assert_int_equal(provider->port_addr(port, addr, 4), -ENOSPC);
	provider->port_close(port);
	expect_no(d, addr, good_ticket, -ECONNREFUSED);
}

static void qp_fail(struct duo *d)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	assert_int_equal(ibv_modify_qp(wfi_verbs_ep(d->a.ep)->qp, &attr, IBV_QP_STATE), 0);
}

static void device_fail(struct duo *d)
{
	(void)d;
	fatal_due = true;
}

/* posts until the endpoint ends, each completes in time; behind FAIL_AT posts @break_it happens,
 * when it is not NULL. Return: why it ended */
static int run_dry(struct duo *d, void (*break_it)(struct duo *d))
{
	struct weft_piece piece = { d->a.mem, 0, 16384, d->mem };
	struct weft_post post = post_of(d, &piece, 1);
	uint64_t at[64], done = 0, posted = 0;
	struct weft_wc wc;
	int ret = 0;

	for (;;) {
		if (posted - done < 16 && !ret) {
			post.cookie = posted;
			at[posted % 64] = wfi_now(&d->env);
			ret = weft_ep_post_write(d->a.ep, &post);
			posted += !ret;
			if (!ret && break_it && posted == FAIL_AT)
				break_it(d);
			ret = ret == -EAGAIN ? 0 : ret;
		}
		if (weft_cq_poll(d->a.send_cq, &wc, 1)) {
			assert_int_equal(wc.cookie, done);
			assert_true(guest_in_time(&d->env, at[done % 64], LIMIT_MS));
			done++;
		}
		if (weft_cq_poll(d->a.recv_cq, &wc, 1) && wc.op == WEFT_WC_CLOSED) {
			assert_int_equal(done, posted);
			d->closed = true;
			d->scope = wc.scope;
			return wc.status;
		}
	}
}

/* its process dies: the connection manager says so for it, and all ends at once */
static void test_dialed_killed(void **state)
{
	struct duo *d = *state;

	send_order(d, ORDER_DIE);
	assert_true(run_dry(d, NULL) < 0);
	teardown(state);
	setup_cm(state);
	echo_messages(*state, 16);
}

/* the peer dies under load: all ends in time, the next life is reached, the old keys are not
 * good */
static void test_killed(void **state)
{
	struct duo *d = *state;
	struct weft_export old = d->peer.mem;
	struct weft_rkey *rkey = NULL;
	struct weft_rkey_src src = { .size = sizeof(src), .blob = old.blob, .fd = -1 };
	int why;

	send_order(d, ORDER_DIE);
	/* its kernel takes back its memory first, and then its queue pair */
	why = run_dry(d, NULL);
	assert_true(why == -ECONNRESET || why == -ESTALE);
	teardown(state);
	setup(state);
	d = *state;
	src.blob_len = old.blob_len;
	assert_int_equal(provider->rkey_import(d->a.ep, &src, &rkey), -ESTALE);
	echo_messages(d, 16);
}

/* a stopped process answers no message, its memory is still read and written, and it goes on */
static void test_stopped(void **state)
{
	struct duo *d = *state;
	struct weft_piece piece = { d->a.mem, 0, 4096, d->mem };
	struct weft_post post = post_of(d, &piece, 1);
	unsigned i;

	send_order(d, ORDER_STOP);
	for (i = 0; i < 200; i++) {
		assert_int_equal(weft_ep_post_write(d->a.ep, &post), 0);
		expect_wc(&d->a, d->a.send_cq, WEFT_WC_WRITE, 0);
	}
	echo_messages(d, 300);
}

/* the queue pair breaks while posts are under way: all end in time. The other side is not told:
 * it has to see the silence, and takes the next connection then */
static void test_fault_qp(void **state)
{
	assert_true(run_dry(*state, qp_fail) < 0);
	teardown(state);
	setup(state);
	echo_messages(*state, 16);
}

/* the device dies: all ends with that scope, it takes no endpoint more, and opened anew it works */
static void test_fault_device(void **state)
{
	struct duo *d = *state;
	struct weft_ep_opts o = { .size = sizeof(o),
				  .send_cq = d->a.send_cq,
				  .recv_cq = d->a.recv_cq };
	struct weft_ep *ep = NULL;

	assert_int_equal(run_dry(d, device_fail), -EIO);
	assert_int_equal(d->scope, WEFT_SCOPE_DEVICE);
	assert_int_equal(provider->ep_create(d->a.dev, &o, &ep), -ENODEV);
	teardown(state);
	setup(state);
	test_pieces(state);
	echo_messages(*state, 16);
}

/* more messages than the peer has buffers, which stands still: its NIC says so each time, the
 * endpoint ends, and the next one works */
static void test_fault_rnr(void **state)
{
	struct duo *d = *state;
	struct wfi_verbs_ep *ep = wfi_verbs_ep(d->a.ep);
	uint64_t start_ns = wfi_now(&d->env);
	struct weft_wc wc;
	int ret = 0;

	send_order(d, ORDER_STOP);
	while (!d->closed) {
		/* whatever it said of its room */
		ep->tx_limit = ep->tx_sent + 1;
		if (!ret || ret == -EAGAIN)
			ret = weft_ep_post_send(d->a.ep, "storm", 5, 0, WEFT_POST_QUIET);
		weft_cq_poll(d->a.send_cq, &wc, 1);
		d->closed = weft_cq_poll(d->a.recv_cq, &wc, 1) == 1 && wc.op == WEFT_WC_CLOSED;
		assert_true(guest_in_time(&d->env, start_ns, 4 * LIMIT_MS));
	}
	assert_int_equal(wc.status, -ECONNRESET);
	teardown(state);
	setup(state);
	echo_messages(*state, 16);
}

/* the peer's machine starts anew and has the same addresses: all ends in time, and the keys of its
 * earlier life are not good */
static void test_fault_reboot(void **state)
{
	struct duo *d = *state;
	struct weft_export old = d->peer.mem;
	struct weft_rkey *rkey = NULL;
	struct weft_rkey_src src = { .size = sizeof(src), .blob = old.blob, .fd = -1 };

	if (guest_is("WEFT_VM_HOSTS", "1"))
		skip();
	send_order(d, ORDER_REBOOT);
	assert_int_equal(run_dry(d, NULL), -ECONNRESET);
	teardown(state);
	setup(state);
	d = *state;
	src.blob_len = old.blob_len;
	assert_int_equal(provider->rkey_import(d->a.ep, &src, &rkey), -ESTALE);
	echo_messages(d, 16);
}

static void on_done(void *ctx, int res)
{
	*(int *)ctx = res;
}

/* one transfer of 8 KiB, cancelled under way when @cancelled counts that. Return: its result */
static int move_slot(struct duo *d, struct wfi_xfer_engine *eng, enum wfi_xfer_dir dir,
		     uint8_t *local, uint64_t deadline_ms, unsigned *cancelled)
{
	struct wfi_piece piece = { .local = local, .len = 8192 };
	struct wfi_xfer_opts o = { .ep = d->a.ep,
				   .dir = dir,
				   .local_mr = d->a.mr,
				   .rkeys = &d->mem,
				   .nr_rkeys = 1,
				   .pieces = &piece,
				   .nr_pieces = 1,
				   .nr_blocks = 1,
				   .done = on_done };
	struct wfi_xfer *x = NULL;
	int32_t result;
	int res = 1;

	o.results = &result;
	o.ctx = &res;
	o.deadline_ns = wfi_now(&d->env) + deadline_ms * WFI_NSEC_PER_MSEC;
	assert_int_equal(wfi_xfer_submit(eng, &o, &x), 0);
	wfi_xfer_poll(eng, wfi_now(&d->env));
	if (cancelled && res == 1) {
		wfi_xfer_cancel(eng, x);
		++*cancelled;
	}
	while (res == 1)
		wfi_xfer_poll(eng, wfi_now(&d->env));
	return res;
}

/* a write that was cancelled reads its slot no more: what is put there next never arrives */
static void test_fault_reuse(void **state)
{
	enum { FOREIGN = 0xcc, ROUNDS = 1000, SLOT = 8192, DEADLINE_MS = 10000 };
	struct duo *d = *state;
	struct wfi_xfer_engine_opts o = { .env = &d->env, .grace_ns = WFI_NSEC_PER_SEC };
	uint8_t *slot = d->a.mem, *back = d->a.mem + SIDE_MEM / 2;
	struct wfi_xfer_engine *eng;
	unsigned i, cancelled = 0;
	int res;

	assert_int_equal(wfi_xfer_engine_create(&o, &eng), 0);
	for (i = 0; i < ROUNDS; i++) {
		memset(slot, (int)(1 + i % 200), SLOT);
		res = move_slot(d, eng, WFI_XFER_WRITE, slot, DEADLINE_MS, &cancelled);
		assert_true(!res || res == -ECANCELED);
		memset(slot, FOREIGN, SLOT);
		assert_int_equal(move_slot(d, eng, WFI_XFER_READ, back, DEADLINE_MS, NULL), 0);
		assert_null(memchr(back, FOREIGN, SLOT));
	}
	/* nearly all of them: some may be through before they are cancelled */
	assert_true(cancelled > ROUNDS / 2);
	wfi_xfer_engine_destroy(eng);
}

/* what a wire does to packets: all arrives, once, right, and in order */
static void test_fault_wire(void **state)
{
	static const char *const faults[] = {
		"loss 1%",   "loss 5%", "corrupt 1%", "duplicate 2%", "delay 2ms reorder 90% 50%",
		"delay 5ms",
	};
	unsigned i, lives = 3;
	int status;

	if (guest_is("WEFT_VM_HOSTS", "1"))
		skip();
	for (i = 0; i < WFI_ARRAY_SIZE(faults);) {
		guest_run("tc qdisc add dev eth0 root netem %s", faults[i]);
		status = try_pieces(*state);
		if (!status)
			status = try_messages(*state, 64);
		guest_run("tc qdisc del dev eth0 root");
		if (!status) {
			i++;
			continue;
		}
		/* Soft-RoCE on slow machines errs, too: once in a while it takes a request that it
		 * sends anew for a wrong one */
		assert_true(--lives > 0);
		teardown(state);
		setup_patient(state);
	}
}

/* a link goes and comes: nobody noticed, or the endpoint ended in time and a new one works */
static void link_outage(void **state, pid_t flaps)
{
	struct duo *d = *state;
	struct weft_piece piece = { d->a.mem, 0, 4096, d->mem };
	struct weft_post post = post_of(d, &piece, 1);
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < 400; i++) {
		uint64_t start = wfi_now(&d->env);

		if (weft_ep_post_write(d->a.ep, &post))
			break;
		wc = wait_wc(&d->a, d->a.send_cq);
		assert_true(guest_in_time(&d->env, start, LIMIT_MS));
		if (wc.status)
			break;
	}
	if (flaps)
		assert_int_equal(waitpid(flaps, NULL, 0), flaps);
	teardown(state);
	setup(state);
	echo_messages(*state, 16);
}

static void test_link(void **state)
{
	struct duo *d = *state;

	if (guest_is("WEFT_VM_HOSTS", "1"))
		skip();
	send_order(d, ORDER_LINK);
	link_outage(state, 0);
}

static void test_link_own(void **state)
{
	pid_t pid;

	if (guest_is("WEFT_VM_HOSTS", "1"))
		skip();
	pid = fork();
	if (!pid) {
		link_flap();
		_exit(0);
	}
	link_outage(state, pid);
}

static void send_halt(struct duo *d, uint64_t ms)
{
	uint32_t span = (uint32_t)ms;

	if (guest_is("WEFT_VM_HOSTS", "1"))
		skip();
	send_order(d, ORDER_HALT);
	guest_move(d->sock, &span, sizeof(span), 1);
}

/* the peer's machine stands still for less than patience lasts: what is under way waits, in time,
 * and goes on, or, on a slow host, ended in time and a new endpoint works */
static void test_fault_halt(void **state)
{
	struct duo *d = *state;
	struct weft_piece piece = { d->a.mem, 0, 4096, d->mem };
	struct weft_post post = post_of(d, &piece, 1);
	uint64_t start_ns, took_ns = 0;
	struct weft_wc wc = { .status = 0 };

	send_halt(d, OUTAGE_US / 1000);
	while (!wc.status && took_ns < OUTAGE_US * WFI_NSEC_PER_USEC / 2) {
		start_ns = wfi_now(&d->env);
		if (weft_ep_post_write(d->a.ep, &post))
			break;
		wc = wait_wc(&d->a, d->a.send_cq);
		took_ns = wfi_now(&d->env) - start_ns;
		assert_true(guest_in_time(&d->env, start_ns, LIMIT_MS));
	}
	teardown(state);
	setup(state);
	echo_messages(*state, 16);
}

/* for longer than that: all ends in time, and they meet again when it goes on */
static void test_fault_halt_long(void **state)
{
	struct duo *d = *state;

	send_halt(d, 2 * guest_slowness * SILENT_MS + HEAL_MS);
	assert_int_equal(run_dry(d, NULL), -ECONNRESET);
	teardown(state);
	setup(state);
	test_pieces(state);
	echo_messages(*state, 16);
}

static bool other_gone;

/* for good: a transfer ends by its own deadline, what is left by patience */
static void test_fault_halt_for_good(void **state)
{
	enum { DEADLINE_MS = 500, GRACE_MS = 100 };
	struct duo *d = *state;
	struct wfi_xfer_engine_opts o = { .env = &d->env };
	struct wfi_xfer_engine *eng;
	uint64_t start_ns;
	int res = 0;

	send_halt(d, 0);
	other_gone = true;
	assert_int_equal(wfi_xfer_engine_create(&o, &eng), 0);
	while (!res) {
		start_ns = wfi_now(&d->env);
		res = move_slot(d, eng, WFI_XFER_WRITE, d->a.mem, guest_slowness * DEADLINE_MS,
				NULL);
		assert_true(guest_in_time(&d->env, start_ns, DEADLINE_MS + GRACE_MS));
	}
	assert_int_equal(res, -ETIMEDOUT);
	wfi_xfer_engine_destroy(eng);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_immediates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dialed, setup_cm, teardown),
		cmocka_unit_test_setup_teardown(test_dialed_killed, setup_cm, teardown),
		cmocka_unit_test_setup_teardown(test_fault_qp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_rnr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_reuse, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_wire, setup_patient, teardown),
		cmocka_unit_test_setup_teardown(test_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_own, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_halt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_halt_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fault_reboot, setup, teardown),
		/* the last: there is nobody left then */
		cmocka_unit_test_setup_teardown(test_fault_halt_for_good, setup, teardown),
	};
	struct wfi_env env;
	int ret;

	provider = wfi_transport_find(NULL, "verbs");
	assert_int_equal(wfi_env_real_init(&env), 0);
	if (!provider || !guest_begin(&env, &where, PORT))
		return 77;
	snprintf(port_addr, sizeof(port_addr), "%s:%d", getenv("WEFT_VM_ADDR_1"), PORT + 1);
	if (guest_serves(&where, server, &ret))
		return ret;
	/* faults that take their time have a run of their own */
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	else
		cmocka_set_skip_filter("test_fault_*");
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	if (!other_gone)
		close(guest_dial(&where, WAY_NONE));
	return ret;
}
