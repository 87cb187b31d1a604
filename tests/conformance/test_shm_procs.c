/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm between two processes: the child is the other endpoint. Private memory is read and written
 * behind its back, it is stopped, it is killed, and it lies.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "conf.h"
#include "transport/shm/shm.h"
#include "weft_internal/xfer.h"

/* what the child tells the parent over the socket */
struct intro {
	struct weft_ep_addr addr;
	struct weft_export mem; /* memfd */
	struct weft_export heap; /* private */
	struct weft_export hole; /* private, its second page is gone */
	uint64_t heap_addr;
};

struct duo {
	struct wfi_env env;
	struct side a;
	pid_t pid;
	int sock;
	struct intro peer;
	int fds[5];
	struct weft_rkey *mem;
	struct weft_rkey *heap;
	struct weft_rkey *hole;
};

static struct weft_export export_of(struct weft_mr *mr, uint32_t access)
{
	struct weft_export_opts o = { .size = sizeof(o), .access = access };
	struct weft_export ex;

	assert_int_equal(mr->dev->transport->mr_export(mr, &o, &ex), 0);
	return ex;
}

/* the child's orders, one byte each; it answers with the same byte when done */
enum order {
	ORDER_DEREG = 'd', /* of its private memory */
	ORDER_ECHO = 'e', /* send back every message until one says "stop" */
	ORDER_SLEEP = 's', /* sleep on its queue until a message is there */
	ORDER_LIE = 'l', /* write nonsense over the ring that it sends to */
	ORDER_QUIT = 'q',
};

static struct weft_wc child_recv(struct side *s)
{
	struct weft_wc wc;

	while (weft_cq_poll(s->recv_cq, &wc, 1) != 1)
		;
	return wc;
}

static void child_echo(struct side *s)
{
	struct weft_wc wc;

	for (;;) {
		wc = child_recv(s);
		if (wc.op != WEFT_WC_RECV || !memcmp(wc.data, "stop", 4))
			return;
		while (weft_ep_post_send(s->ep, wc.data, (uint32_t)wc.len, 0, WEFT_POST_QUIET) ==
		       -EAGAIN)
			;
	}
}

static void child_sleep(struct side *s, int sock)
{
	char ready = ORDER_SLEEP;
	struct weft_wait wait;
	int n = s->t->cq_arm(s->recv_cq, &wait, 1);

	/* armed: what is sent from here on must wake us */
	if (write(sock, &ready, 1) != 1)
		_exit(3);
	if (n == 1)
		syscall(SYS_futex, wait.futex, FUTEX_WAIT, wait.val, NULL, NULL, 0);
	s->t->cq_disarm(s->recv_cq);
	child_recv(s);
}

static void child_lie(struct side *s)
{
	struct wfi_shm_ep *ep = wfi_shm_ep(s->ep);
	unsigned seed = 1;
	uint32_t i;

	for (i = 0; i < ep->tx.bytes; i++)
		ep->tx.data[i] = (uint8_t)rand_r(&seed);
	memset(&ep->tx.sh->producer, 0x55, sizeof(ep->tx.sh->producer));
	memset(&ep->rx.sh->consumer, 0x77, sizeof(ep->rx.sh->consumer));
}

static void child_main(int sock, struct wfi_env *env)
{
	struct intro me = { 0 };
	struct weft_ep_addr addr;
	struct weft_mr_opts mr = { .size = sizeof(mr), .fd = -1 };
	struct weft_mr *hole_mr = NULL;
	struct side s;
	uint8_t *hole;
	char order;
	int fds[8];

	side_open(&s, &wfi_transport_shm, env, 256, 64);
	hole = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(hole, 0x33, 3 * 4096);
	munmap(hole + 4096, 4096);
	mr.addr = hole;
	mr.len = 3 * 4096;
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(s.t->mr_reg(s.dev, &mr, &hole_mr), 0);
	memset(s.heap, 0x11, SIDE_MEM);
	memset(s.mem, 0x22, SIDE_MEM);

	assert_int_equal(s.t->ep_addr(s.ep, &me.addr), 0);
	me.mem = export_of(s.mr, WEFT_ACCESS_REMOTE_READ);
	me.heap = export_of(s.heap_mr, WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE);
	me.hole = export_of(hole_mr, WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE);
	me.heap_addr = (uintptr_t)s.heap;
	memcpy(fds, me.addr.fds, sizeof(int) * me.addr.nr_fds);
	fds[me.addr.nr_fds] = me.mem.fd;
	send_fds(sock, &me, sizeof(me), fds, me.addr.nr_fds + 1);
	recv_fds(sock, &addr, sizeof(addr), addr.fds, 3);
	connect_to(s.ep, &addr, getppid());
	assert_int_equal(write(sock, "c", 1), 1);

	while (read(sock, &order, 1) == 1 && order != ORDER_QUIT) {
		if (order == ORDER_DEREG)
			s.t->mr_dereg(s.heap_mr);
		else if (order == ORDER_LIE)
			child_lie(&s);
		else if (order == ORDER_SLEEP)
			child_sleep(&s, sock);
		if (order == ORDER_ECHO)
			child_echo(&s);
		if (write(sock, &order, 1) != 1)
			break;
	}
	_exit(0);
}

static struct weft_rkey *duo_import(struct duo *d, struct weft_export *ex, int fd)
{
	struct weft_rkey_src src = { .size = sizeof(src), .fd = fd };
	struct weft_rkey *rkey = NULL;

	src.blob = ex->blob;
	src.blob_len = ex->blob_len;
	assert_int_equal(d->a.t->rkey_import(d->a.ep, &src, &rkey), 0);
	return rkey;
}

static int setup(void **state)
{
	struct duo *d = calloc(1, sizeof(*d));
	struct weft_ep_addr addr;
	int socks[2];
	char c;

	assert_non_null(d);
	assert_int_equal(wfi_env_real_init(&d->env), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
	d->pid = fork();
	assert_true(d->pid >= 0);
	if (!d->pid) {
		close(socks[0]);
		child_main(socks[1], &d->env);
	}
	close(socks[1]);
	d->sock = socks[0];
	side_open(&d->a, &wfi_transport_shm, &d->env, 256, 64);
	recv_fds(d->sock, &d->peer, sizeof(d->peer), d->fds, 4);
	memcpy(d->peer.addr.fds, d->fds, 3 * sizeof(int));
	connect_to(d->a.ep, &d->peer.addr, d->pid);
	assert_int_equal(d->a.t->ep_addr(d->a.ep, &addr), 0);
	send_fds(d->sock, &addr, sizeof(addr), addr.fds, addr.nr_fds);
	assert_int_equal(read(d->sock, &c, 1), 1);
	d->mem = duo_import(d, &d->peer.mem, d->fds[3]);
	d->heap = duo_import(d, &d->peer.heap, -1);
	d->hole = duo_import(d, &d->peer.hole, -1);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct duo *d = *state;
	unsigned i;

	kill(d->pid, SIGKILL);
	waitpid(d->pid, NULL, 0);
	d->a.t->rkey_destroy(d->mem);
	d->a.t->rkey_destroy(d->heap);
	d->a.t->rkey_destroy(d->hole);
	side_close(&d->a, &d->env);
	for (i = 0; i < 4; i++)
		close(d->fds[i]);
	close(d->sock);
	free(d);
	return 0;
}

static void order(struct duo *d, char what)
{
	char c;

	assert_int_equal(write(d->sock, &what, 1), 1);
	assert_int_equal(read(d->sock, &c, 1), 1);
	assert_int_equal(c, what);
}

static struct weft_wc post_and_wait(struct duo *d, int write, struct weft_piece *pieces,
				    uint32_t nr)
{
	struct weft_post post = { .pieces = pieces, .nr_pieces = nr };

	assert_int_equal(
		write ? weft_ep_post_write(d->a.ep, &post) : weft_ep_post_read(d->a.ep, &post), 0);
	return wait_wc(&d->a, d->a.send_cq);
}

static bool all(const uint8_t *p, size_t len, uint8_t value)
{
	return !len || (p[0] == value && !memcmp(p, p + 1, len - 1));
}

/* 4,096 scattered pieces a post, into and out of memory that is not shared, and mapped beside it */
static void test_private(void **state)
{
	enum { NR = 4096, LEN = 513 };
	struct duo *d = *state;
	struct weft_piece *pieces = calloc(NR, sizeof(*pieces));
	uint8_t *back = calloc(NR, LEN);
	unsigned i;

	assert_non_null(pieces);
	assert_non_null(back);
	for (i = 0; i < SIDE_MEM; i++)
		d->a.heap[i] = (uint8_t)(i * 2654435761u >> 13);
	for (i = 0; i < NR; i++)
		pieces[i] = (struct weft_piece){ d->a.heap + (size_t)i * 1000,
						 (uint64_t)(i * 37 % NR) * 1001, LEN, d->heap };
	assert_int_equal(post_and_wait(d, 1, pieces, NR).status, 0);
	for (i = 0; i < NR; i++)
		pieces[i].local = back + (size_t)i * LEN;
	assert_int_equal(post_and_wait(d, 0, pieces, NR).status, 0);
	for (i = 0; i < NR; i++)
		assert_memory_equal(back + (size_t)i * LEN, d->a.heap + (size_t)i * 1000, LEN);
	for (i = 0; i < NR; i += 2)
		pieces[i].rkey = d->mem;
	assert_int_equal(post_and_wait(d, 0, pieces, NR).status, 0);
	for (i = 0; i < NR; i += 2)
		assert_true(all(back + (size_t)i * LEN, LEN, 0x22));
	free(pieces);
	free(back);
}

/* places side by side in the peer, met in another order: each piece in its own */
static void test_private_neighbours(void **state)
{
	enum { NR = 700, LEN = 96 };
	struct duo *d = *state;
	struct weft_piece pieces[NR];
	uint8_t *back = d->a.heap + SIDE_MEM / 2;
	unsigned i;

	for (i = 0; i < NR * LEN; i++)
		d->a.heap[i] = (uint8_t)(i * 2654435761u >> 11);
	for (i = 0; i < NR; i++)
		pieces[i] = (struct weft_piece){ d->a.heap + (size_t)i * LEN,
						 4000 + (uint64_t)(i * 333 % NR) * LEN, LEN,
						 d->heap };
	assert_int_equal(post_and_wait(d, 1, pieces, NR).status, 0);
	pieces[0] = (struct weft_piece){ back, 4000, NR * LEN, d->heap };
	assert_int_equal(post_and_wait(d, 0, pieces, 1).status, 0);
	for (i = 0; i < NR; i++)
		assert_memory_equal(back + (size_t)(i * 333 % NR) * LEN,
				    d->a.heap + (size_t)i * LEN, LEN);
}

/* a hole in the peer's memory: pieces before it arrive, the piece is named, the rest can go on */
static void test_hole(void **state)
{
	struct duo *d = *state;
	struct weft_piece pieces[] = {
		{ d->a.heap, 0, 4096, d->hole },
		{ d->a.heap + 4096, 8192, 100, d->hole },
		{ d->a.heap + 8192, 4000, 200, d->hole }, /* runs into it */
		{ d->a.heap + 12288, 8192, 4096, d->hole },
	};
	struct weft_wc wc;

	memset(d->a.heap, 0, 16384);
	wc = post_and_wait(d, 0, pieces, 4);
	assert_int_equal(wc.status, -EFAULT);
	assert_int_equal(wc.scope, WEFT_SCOPE_OP);
	assert_int_equal(wc.idx, 2);
	assert_true(all(d->a.heap, 4096, 0x33));
	assert_true(all(d->a.heap + 4096, 100, 0x33));
	assert_true(all(d->a.heap + 12288, 4096, 0));
	pieces[0].remote = 4096;
	wc = post_and_wait(d, 0, pieces, 1);
	assert_int_equal(wc.status, -EFAULT);
	assert_int_equal(wc.idx, 0);
	assert_int_equal(post_and_wait(d, 0, pieces + 3, 1).status, 0);
}

static void count_done(void *ctx, int res)
{
	int *out = ctx;

	out[0]++;
	out[1] = res;
}

/* the engine fails the block in the hole, and no other */
static void test_hole_blocks(void **state)
{
	struct duo *d = *state;
	struct wfi_xfer_engine_opts eo = { .env = &d->env };
	struct wfi_xfer_engine *eng = NULL;
	struct wfi_piece pieces[12];
	struct weft_rkey *rkeys[] = { d->hole };
	int32_t results[12];
	int done[2] = { 0 };
	struct wfi_xfer_opts o = {
		.ep = d->a.ep,
		.dir = WFI_XFER_READ,
		.rkeys = rkeys,
		.nr_rkeys = 1,
		.pieces = pieces,
		.nr_pieces = 12,
		.nr_blocks = 12,
		.results = results,
		.deadline_ns = UINT64_MAX,
		.done = count_done,
		.ctx = done,
	};
	struct wfi_xfer *x;
	unsigned i;

	memset(d->a.heap, 0, 12288);
	for (i = 0; i < 12; i++)
		pieces[i] = (struct wfi_piece){
			.local = d->a.heap + i * 1024u, .remote = i * 1024u, .block = i, .len = 1024
		};
	assert_int_equal(wfi_xfer_engine_create(&eo, &eng), 0);
	assert_int_equal(wfi_xfer_submit(eng, &o, &x), 0);
	while (!done[0])
		wfi_xfer_poll(eng, wfi_now(&d->env));
	assert_int_equal(done[1], -EFAULT);
	for (i = 0; i < 12; i++) {
		assert_int_equal(results[i], i >= 4 && i < 8 ? -EFAULT : 0);
		assert_true(results[i] || all(pieces[i].local, 1024, 0x33));
	}
	wfi_xfer_engine_destroy(eng);
}

static void test_read_only(void **state)
{
	struct duo *d = *state;
	struct weft_piece piece = { d->a.heap, 0, 64, d->mem };
	struct wfi_shm_rkey_blob blob;
	struct weft_rkey_src src = { .size = sizeof(src), .fd = d->fds[3] };
	struct weft_rkey *rkey = NULL;

	assert_int_equal(post_and_wait(d, 1, &piece, 1).status, -EACCES);
	/* a blob that claims more than its fd can */
	memcpy(&blob, d->peer.mem.blob, sizeof(blob));
	blob.access |= WEFT_ACCESS_REMOTE_WRITE;
	src.blob = &blob;
	src.blob_len = sizeof(blob);
	assert_int_equal(d->a.t->rkey_import(d->a.ep, &src, &rkey), -EACCES);
	blob.access = WEFT_ACCESS_REMOTE_READ;
	blob.len = UINT64_MAX - 4096;
	assert_int_equal(d->a.t->rkey_import(d->a.ep, &src, &rkey), -ERANGE);
	blob.len = 1ull << 40;
	assert_int_equal(d->a.t->rkey_import(d->a.ep, &src, &rkey), -ERANGE);
	/* files that could shrink are not mapped */
	src.fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(src.fd, SIDE_MEM), 0);
	memcpy(&blob, d->peer.mem.blob, sizeof(blob));
	assert_int_equal(d->a.t->rkey_import(d->a.ep, &src, &rkey), -EPERM);
	close(src.fd);
}

static void test_dereg_refused(void **state)
{
	struct duo *d = *state;
	struct weft_piece piece = { d->a.heap, 0, 64, d->heap };

	assert_int_equal(post_and_wait(d, 1, &piece, 1).status, 0);
	order(d, ORDER_DEREG);
	assert_int_equal(post_and_wait(d, 1, &piece, 1).status, -ESTALE);
}

static void test_echo(void **state)
{
	struct duo *d = *state;
	uint32_t sent = 0, got = 0, value;
	char go = ORDER_ECHO;
	uint8_t buf[4096];
	struct weft_wc wc;

	assert_int_equal(write(d->sock, &go, 1), 1);
	while (got < 20000) {
		uint32_t len = 4 + sent * 97 % 4093;

		memcpy(buf, &sent, 4);
		memset(buf + 4, (int)sent, len - 4);
		if (sent < 20000 && !weft_ep_post_send(d->a.ep, buf, len, 0, WEFT_POST_QUIET))
			sent++;
		if (weft_cq_poll(d->a.recv_cq, &wc, 1) == 1) {
			assert_int_equal(wc.op, WEFT_WC_RECV);
			assert_int_equal(wc.len, 4 + got * 97 % 4093);
			memcpy(&value, wc.data, 4);
			assert_int_equal(value, got);
			assert_true(all((const uint8_t *)wc.data + 4, wc.len - 4, (uint8_t)got));
			got++;
		}
	}
	while (weft_ep_post_send(d->a.ep, "stop", 4, 0, WEFT_POST_QUIET))
		;
	assert_int_equal(read(d->sock, &go, 1), 1);
}

static void test_wake(void **state)
{
	struct duo *d = *state;
	char c = ORDER_SLEEP;

	assert_int_equal(write(d->sock, &c, 1), 1);
	assert_int_equal(read(d->sock, &c, 1), 1); /* it is armed */
	assert_int_equal(weft_ep_post_send(d->a.ep, "up", 2, 0, WEFT_POST_QUIET), 0);
	assert_int_equal(read(d->sock, &c, 1), 1); /* it woke and read it */
	assert_int_equal(c, ORDER_SLEEP);
}

/* a peer that scribbles over its ring loses its connection; we lose nothing */
static void test_hostile_ring(void **state)
{
	struct duo *d = *state;
	struct weft_wc wc;
	unsigned i;
	int ret;

	order(d, ORDER_LIE);
	do {
		wc = wait_wc(&d->a, d->a.recv_cq);
	} while (wc.op != WEFT_WC_CLOSED);
	assert_true(wc.status == -EPROTO || wc.status == -ECONNRESET);
	for (i = 0; i < 1000; i++) {
		ret = weft_ep_post_send(d->a.ep, "x", 1, 0, WEFT_POST_QUIET);
		assert_int_equal(ret, -ENOTCONN);
	}
}

static void test_killed(void **state)
{
	struct duo *d = *state;
	struct weft_piece pieces[] = {
		{ d->a.heap, 0, 1u << 20, d->heap },
		{ d->a.heap, 0, 4096, d->mem },
	};
	struct weft_post post = { .pieces = pieces, .nr_pieces = 1 };
	struct weft_wc wc = { 0 };
	unsigned n = 0;

	assert_int_equal(post_and_wait(d, 1, pieces, 1).status, 0);
	kill(d->pid, SIGKILL);
	/* in the middle of transfers, until it shows: each completes once */
	while (!wc.status && weft_ep_post_write(d->a.ep, &post) == 0) {
		wc = wait_wc(&d->a, d->a.send_cq);
		n++;
	}
	assert_true(n > 0);
	assert_int_equal(wc.op, WEFT_WC_WRITE);
	assert_true(wc.status == -ECONNRESET || wc.status == -EFAULT);
	/* what is mapped outlives it: stale bytes perhaps, never a crash */
	assert_int_equal(post_and_wait(d, 0, pieces + 1, 1).status, 0);
	assert_true(all(d->a.heap, 4096, 0x22));
	expect_wc(&d->a, d->a.recv_cq, WEFT_WC_CLOSED, -ECONNRESET);
	expect_none(&d->a);
}

/* a stopped peer: memory is still reached, messages fill its ring and then wait */
static void test_stopped(void **state)
{
	struct duo *d = *state;
	struct weft_piece piece = { d->a.heap, 0, 1u << 20, d->heap };
	uint8_t msg[4096] = { 0 };
	unsigned sent = 0;
	int status;

	kill(d->pid, SIGSTOP);
	assert_int_equal(waitpid(d->pid, &status, WUNTRACED), d->pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(post_and_wait(d, 1, &piece, 1).status, 0);
	while (weft_ep_post_send(d->a.ep, msg, sizeof(msg), 0, WEFT_POST_QUIET) == 0)
		sent++;
	assert_int_equal(weft_ep_post_send(d->a.ep, msg, sizeof(msg), 0, 0), -EAGAIN);
	assert_true(sent > 16 && sent < 1000);
	d->a.t->ep_shutdown(d->a.ep);
	expect_wc(&d->a, d->a.recv_cq, WEFT_WC_CLOSED, 0);
	kill(d->pid, SIGCONT);
}

/* a node writes into a process that runs no endpoint; when that dies its pid is nobody's */
static void test_mem_ep(void **state)
{
	struct duo *d = *state;
	struct weft_ep_opts opts = { .size = sizeof(opts), .flags = WEFT_EP_MEM };
	struct weft_rkey_src src = { .size = sizeof(src), .kind = WEFT_RKEY_PROCESS, .fd = -1 };
	struct weft_piece piece = { d->a.heap, 5, 100000, NULL };
	struct weft_post post = { .pieces = &piece, .nr_pieces = 1 };
	struct weft_rkey *rkey = NULL;
	struct side s = d->a;
	int other = wfi_pidfd_open(getppid());

	opts.send_cq = s.send_cq;
	opts.recv_cq = s.recv_cq;
	assert_int_equal(s.t->ep_create(s.dev, &opts, &s.ep), 0);
	src.pid = d->pid;
	src.addr = d->peer.heap_addr;
	src.len = SIDE_MEM;
	src.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	/* a pidfd of somebody else */
	src.fd = other;
	assert_int_equal(s.t->rkey_import(s.ep, &src, &rkey), -EACCES);
	src.fd = d->sock;
	assert_int_equal(s.t->rkey_import(s.ep, &src, &rkey), -EINVAL);
	src.fd = d->fds[WFI_SHM_FD_PID];
	assert_int_equal(s.t->rkey_import(s.ep, &src, &rkey), 0);
	s.t->rkey_destroy(rkey);
	src.fd = -1;
	assert_int_equal(s.t->rkey_import(s.ep, &src, &rkey), 0);
	piece.rkey = rkey;
	assert_int_equal(weft_ep_post_read(s.ep, &post), 0);
	expect_wc(&s, s.send_cq, WEFT_WC_READ, 0);
	assert_true(all(d->a.heap, 100000, 0x11));
	assert_int_equal(weft_ep_post_write(s.ep, &post), 0);
	expect_wc(&s, s.send_cq, WEFT_WC_WRITE, 0);

	kill(d->pid, SIGKILL);
	waitpid(d->pid, NULL, 0);
	assert_int_equal(weft_ep_post_read(s.ep, &post), 0);
	expect_wc(&s, s.send_cq, WEFT_WC_READ, -ECONNRESET);
	s.t->rkey_destroy(rkey);
	assert_int_equal(s.t->rkey_import(s.ep, &src, &rkey), -ESRCH);
	s.t->ep_destroy(s.ep);
	close(other);
}

/* the kernel may forbid reaching into other processes: then there is nothing to test */
static bool can_reach(void)
{
	static char word = 1;
	struct iovec local, remote = { &word, 1 };
	char got = 0;
	int pipes[2];
	ssize_t n;
	pid_t pid;

	if (pipe(pipes))
		return false;
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		_exit(read(pipes[0], &got, 1) < 0);
	}
	local = (struct iovec){ &got, 1 };
	n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
	close(pipes[1]);
	close(pipes[0]);
	waitpid(pid, NULL, 0);
	return n == 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_private, setup, teardown),
		cmocka_unit_test_setup_teardown(test_private_neighbours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hole, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hole_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dereg_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_echo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wake, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mem_ep, setup, teardown),
	};

	if (!can_reach()) {
		printf("process_vm_readv of a child is refused here (ptrace scope or seccomp)\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
