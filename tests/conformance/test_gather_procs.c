/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small pieces in messages between two processes: the child is an engine that serves its memory,
 * over shm that says it is costly. It is stopped, and it is killed, in the middle.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "conf.h"
#include "weft_internal/gather.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/xfer.h"

#define NR 300u
#define HALF (SIDE_MEM / 2)
#define LONG_NS (20 * WFI_NSEC_PER_SEC)

struct intro {
	struct weft_ep_addr addr;
	struct weft_export mem;
	struct wfi_gather_name name;
};

struct duo {
	struct wfi_env env;
	struct weft_transport *t;
	struct side s;
	struct wfi_xfer_engine *eng;
	struct wfi_gather *link;
	struct intro peer;
	struct weft_rkey *rkey;
	pid_t pid;
	int sock;
	int fds[4];
	bool closed;
	struct wfi_piece pieces[NR];
	int32_t results[NR];
	unsigned nr_done;
	int res;
};

/* either side */
static void duo_open(struct duo *d)
{
	struct wfi_fault_opts o = { .seed = 1, .cost_per_piece_ns = 3000 };
	struct wfi_xfer_engine_opts eo = { .env = &d->env };

	assert_int_equal(wfi_fault_create(wfi_transport_find(NULL, "shm"), &o, &d->t), 0);
	side_open(&d->s, d->t, &d->env, 256, 64);
	assert_int_equal(wfi_xfer_engine_create(&eo, &d->eng), 0);
	assert_int_equal(wfi_gather_open(d->eng, d->s.ep, 0, &d->link), 0);
}

static void duo_poll(struct duo *d)
{
	struct weft_wc wcs[16];
	int i, n = weft_cq_poll(d->s.recv_cq, wcs, 16);

	for (i = 0; i < n; i++) {
		assert_true(wfi_gather_event(d->link, &wcs[i]) >= 0);
		d->closed |= wcs[i].op == WEFT_WC_CLOSED;
	}
	wfi_xfer_poll(d->eng, wfi_now(&d->env));
}

static void child_main(struct duo *d)
{
	struct intro me = { 0 };
	struct weft_ep_addr addr;
	int fds[4];

	duo_open(d);
	assert_int_equal(wfi_gather_serve(d->link, d->s.mr, NULL, &me.name), 0);
	assert_int_equal(d->t->mr_export(d->s.mr, NULL, &me.mem), 0);
	assert_int_equal(d->t->ep_addr(d->s.ep, &me.addr), 0);
	memcpy(fds, me.addr.fds, 3 * sizeof(int));
	fds[3] = me.mem.fd;
	send_fds(d->sock, &me, sizeof(me), fds, 4);
	recv_fds(d->sock, &addr, sizeof(addr), addr.fds, 3);
	connect_to(d->s.ep, &addr, getppid());
	assert_int_equal(write(d->sock, "c", 1), 1);
	while (!d->closed)
		duo_poll(d);
	_exit(0);
}

static int setup(void **state)
{
	struct weft_rkey_src src = { .size = sizeof(src) };
	struct duo *d = calloc(1, sizeof(*d));
	struct weft_ep_addr addr;
	int socks[2];
	char c;

	assert_non_null(d);
	assert_int_equal(wfi_env_real_init(&d->env), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
	d->pid = fork();
	assert_true(d->pid >= 0);
	d->sock = socks[!d->pid];
	close(socks[!!d->pid]);
	if (!d->pid)
		child_main(d);
	duo_open(d);
	recv_fds(d->sock, &d->peer, sizeof(d->peer), d->fds, 4);
	memcpy(d->peer.addr.fds, d->fds, 3 * sizeof(int));
	connect_to(d->s.ep, &d->peer.addr, d->pid);
	assert_int_equal(d->t->ep_addr(d->s.ep, &addr), 0);
	send_fds(d->sock, &addr, sizeof(addr), addr.fds, addr.nr_fds);
	assert_int_equal(read(d->sock, &c, 1), 1);
	src.blob = d->peer.mem.blob;
	src.blob_len = d->peer.mem.blob_len;
	src.fd = d->fds[3];
	assert_int_equal(d->t->rkey_import(d->s.ep, &src, &d->rkey), 0);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct duo *d = *state;
	unsigned i;

	kill(d->pid, SIGKILL);
	waitpid(d->pid, NULL, 0);
	d->t->rkey_destroy(d->rkey);
	wfi_gather_close(d->link);
	wfi_xfer_engine_destroy(d->eng);
	side_close(&d->s, &d->env);
	wfi_fault_destroy(d->t);
	for (i = 0; i < 4; i++)
		close(d->fds[i]);
	close(d->sock);
	free(d);
	return 0;
}

static void on_done(void *ctx, int res)
{
	struct duo *d = ctx;

	d->nr_done++;
	d->res = res;
}

static void submit(struct duo *d, enum wfi_xfer_dir dir, uint64_t ns)
{
	struct wfi_xfer_opts o = {
		.ep = d->s.ep,
		.dir = dir,
		.rkeys = &d->rkey,
		.nr_rkeys = 1,
		.pieces = d->pieces,
		.nr_pieces = NR,
		.nr_blocks = NR,
		.results = d->results,
		.deadline_ns = wfi_now(&d->env) + ns,
		.done = on_done,
		.ctx = d,
		.gather = d->link,
		.names = &d->peer.name,
	};
	struct wfi_xfer *x;

	d->nr_done = 0;
	assert_int_equal(wfi_xfer_submit(d->eng, &o, &x), 0);
}

static void run(struct duo *d)
{
	while (!d->nr_done)
		duo_poll(d);
	assert_int_equal(d->nr_done, 1);
}

/* pieces of 0 .. 64 KiB; there they lie 8 bytes apart, so that none merge */
static void pieces_draw(struct duo *d, unsigned *seed, uint32_t max)
{
	uint64_t local = 0, remote = 0;
	unsigned i;

	for (i = 0; i < NR; i++) {
		uint64_t len = (uint64_t)rand_r(seed) % (rand_r(seed) % 8 ? 2000 : max + 1);

		if (remote + len > HALF - 65536)
			len = 0;
		d->pieces[i] = (struct wfi_piece){
			.local = d->s.heap + local, .remote = remote, .block = i, .len = len
		};
		local += len;
		remote += len + 8;
	}
}

/* what was written there comes back the same */
static void test_there_and_back(void **state)
{
	struct duo *d = *state;
	unsigned i, round, seed = 1;

	for (round = 0; round < 50; round++) {
		pieces_draw(d, &seed, 65536);
		for (i = 0; i < HALF; i++)
			d->s.heap[i] = (uint8_t)rand_r(&seed);
		memset(d->s.heap + HALF, 0, HALF);
		submit(d, WFI_XFER_WRITE, LONG_NS);
		run(d);
		assert_int_equal(d->res, 0);
		for (i = 0; i < NR; i++)
			d->pieces[i].local = (uint8_t *)d->pieces[i].local + HALF;
		submit(d, WFI_XFER_READ, LONG_NS);
		run(d);
		assert_int_equal(d->res, 0);
		for (i = 0; i < NR; i++)
			assert_memory_equal((uint8_t *)d->pieces[i].local - HALF,
					    d->pieces[i].local, d->pieces[i].len);
	}
}

/* a holder that stands still: the READ is over by its deadline; its answer then lands nowhere */
static void test_stopped(void **state)
{
	struct duo *d = *state;
	unsigned i, seed = 2, failed = 0;
	int status;

	pieces_draw(d, &seed, 1000);
	kill(d->pid, SIGSTOP);
	assert_int_equal(waitpid(d->pid, &status, WUNTRACED), d->pid);
	submit(d, WFI_XFER_READ, 20 * WFI_NSEC_PER_MSEC);
	run(d);
	assert_int_equal(d->res, -ETIMEDOUT);
	for (i = 0; i < NR; i++)
		failed += d->results[i] == -ETIMEDOUT;
	assert_true(failed > NR / 2);
	memset(d->s.heap, 0x77, SIDE_MEM);
	kill(d->pid, SIGCONT);
	for (i = 0; i < NR; i++)
		d->pieces[i].local = d->s.heap + HALF; /* all on one place, which tells nothing */
	submit(d, WFI_XFER_READ, LONG_NS);
	run(d);
	assert_int_equal(d->res, 0);
	for (i = 0; i < HALF; i++)
		assert_int_equal(d->s.heap[i], 0x77);
}

static void test_killed(void **state)
{
	struct duo *d = *state;
	unsigned i, seed = 3;
	int status;

	pieces_draw(d, &seed, 1000);
	submit(d, WFI_XFER_WRITE, LONG_NS);
	run(d);
	assert_int_equal(d->res, 0);
	kill(d->pid, SIGSTOP);
	assert_int_equal(waitpid(d->pid, &status, WUNTRACED), d->pid);
	submit(d, WFI_XFER_WRITE, LONG_NS);
	for (i = 0; i < 10; i++)
		duo_poll(d);
	assert_int_equal(d->nr_done, 0);
	kill(d->pid, SIGKILL);
	run(d);
	assert_int_equal(d->res, -ECONNRESET);
	assert_int_equal(d->results[NR - 1], -ECONNRESET);
	assert_true(d->closed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_there_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
