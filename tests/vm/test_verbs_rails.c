/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One plan over two rails between two guests, when a rail's link goes down and comes up, on either
 * side, and when a rail dies. Whatever happens to a rail, each plan ends in time and right over the
 * other, and its memory, used anew at once, is never sent. The guest with WEFT_VM_HOST=1 holds the
 * memory.
 */
#include <errno.h>
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
#include "weft_internal/rail.h"
#include "weft_internal/transport_registry.h"

#define PORT 7473
#define RAILS 2u
#define NR 48u
#define BLOCK (16u << 10)
#define CHUNK (64u << 10)
#define SILENT_MS 1200u
#define DEADLINE_MS 6000u
#define LIMIT_MS (DEADLINE_MS + 100)
#define PATIENCE_MS                                                                                \
	1600u /* with a chunk: a guest that waits for its host is not a rail that died */
#define OUTAGE_S 2
#define AGAIN_MS 10000 /* within this a rail that is there again carries something */
#define CLOSE_MS 5000 /* after a shutdown */
#define FOREIGN 0xcc

enum order { ORDER_LINK = 'l', ORDER_ANEW = 'a', ORDER_END = 'e' };

/* what the two tell each other of a rail */
struct intro {
	struct weft_ep_addr addr;
	struct weft_export mem;
};

struct rail {
	struct side s;
	struct weft_mr *mr; /* of the memory that all rails share */
	struct weft_rkey *rkey;
	int nr; /* among struct wfi_rails; -1: it ended */
	bool closed;
};

struct rig {
	struct wfi_env env;
	int sock;
	struct wfi_map map;
	uint8_t *mem;
	struct rail rails[RAILS];
	struct wfi_xfer_engine *eng;
	struct wfi_rails *plan;
	uint8_t round;
	void (*mid)(struct rig *r); /* what happens when the second rail next has a chunk, once */
};

static const struct weft_transport *provider;
static struct sockaddr_in where;

/* ---- rails ---- */

static void rail_open(struct rig *r, unsigned i)
{
	struct weft_mr_opts mr = { .size = sizeof(mr), .addr = r->mem, .len = SIDE_MEM, .fd = -1 };
	struct rail *rail = &r->rails[i];
	struct intro mine, theirs;
	char name[8];

	snprintf(name, sizeof(name), "rxe%u", i);
	side_device_opts.name = name;
	side_device_opts.silent_ms = (uint32_t)guest_slowness * SILENT_MS;
	side_open(&rail->s, provider, &r->env, 256, 64);
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(provider->mr_reg(rail->s.dev, &mr, &rail->mr), 0);
	memset(&mine, 0, sizeof(mine));
	assert_int_equal(provider->ep_addr(rail->s.ep, &mine.addr), 0);
	assert_int_equal(provider->mr_export(rail->mr, NULL, &mine.mem), 0);
	guest_move(r->sock, &mine, sizeof(mine), 1);
	guest_move(r->sock, &theirs, sizeof(theirs), 0);
	connect_to(rail->s.ep, &theirs.addr, 0);
	rail->rkey = import_export(rail->s.ep, &theirs.mem);
	rail->closed = false;
	/* neither posts before both are connected */
	guest_move(r->sock, &mine, 1, 1);
	guest_move(r->sock, &mine, 1, 0);
}

static void rail_close(struct rig *r, unsigned i)
{
	struct rail *rail = &r->rails[i];
	uint64_t start_ns = wfi_now(&r->env);
	struct weft_wc wc;

	provider->ep_shutdown(rail->s.ep);
	while (!rail->closed) {
		assert_true(guest_in_time(&r->env, start_ns, CLOSE_MS));
		weft_cq_poll(rail->s.send_cq, &wc, 1);
		if (weft_cq_poll(rail->s.recv_cq, &wc, 1))
			rail->closed = wc.op == WEFT_WC_CLOSED;
	}
	provider->rkey_destroy(rail->rkey);
	provider->mr_dereg(rail->mr);
	side_close(&rail->s, &r->env);
}

static void rig_open(struct rig *r)
{
	unsigned i;

	assert_int_equal(wfi_env_real_init(&r->env), 0);
	assert_int_equal(r->env.mem->map(&r->env, SIDE_MEM, 0, &r->map), 0);
	r->mem = r->map.addr;
	for (i = 0; i < RAILS; i++)
		rail_open(r, i);
}

static void rig_close(struct rig *r)
{
	unsigned i;

	for (i = 0; i < RAILS; i++)
		rail_close(r, i);
	r->env.mem->unmap(&r->env, &r->map);
}

static pid_t flaps; /* who takes the link down and up again; 0: nobody */

static void link_flap(void)
{
	flaps = fork();
	if (!flaps) {
		guest_run("ip link set eth1 down; sleep %d; ip link set eth1 up", OUTAGE_S);
		_exit(0);
	}
}

static void link_await(void)
{
	int status = -1;

	if (!flaps)
		return;
	assert_int_equal(waitpid(flaps, &status, 0), flaps);
	assert_int_equal(status, 0);
	flaps = 0;
}

/* ---- the side with the memory ---- */

static int serve(int sock)
{
	struct rig r = { .sock = sock };
	struct weft_wc wc;
	char order = 0;
	unsigned i;

	rig_open(&r);
	while (order != ORDER_END) {
		for (i = 0; i < RAILS; i++) {
			weft_cq_poll(r.rails[i].s.send_cq, &wc, 1);
			if (weft_cq_poll(r.rails[i].s.recv_cq, &wc, 1))
				r.rails[i].closed |= wc.op == WEFT_WC_CLOSED;
		}
		if (recv(sock, &order, 1, MSG_DONTWAIT) != 1)
			continue;
		if (order == ORDER_LINK)
			link_flap();
		if (order == ORDER_ANEW) {
			link_await();
			rail_close(&r, 1);
			rail_open(&r, 1);
		}
	}
	rig_close(&r);
	return 0;
}

static int server(int sock)
{
	char more;

	for (;;) {
		int conn = accept(sock, NULL, NULL);

		if (conn < 0 || recv(conn, &more, 1, 0) != 1 || !more)
			return 0;
		serve(conn);
		close(conn);
	}
}

/* ---- plans ---- */

static void rail_add(struct rig *r, unsigned i)
{
	r->rails[i].nr = wfi_rails_add(r->plan, r->rails[i].s.ep, NULL);
	assert_true(r->rails[i].nr >= 0);
}

static void poll_all(struct rig *r)
{
	struct weft_wc wc;
	unsigned i;

	wfi_xfer_poll(r->eng, wfi_now(&r->env));
	wfi_rails_poll(r->plan, wfi_now(&r->env));
	for (i = 0; i < RAILS; i++) {
		struct rail *rail = &r->rails[i];

		if (!weft_cq_poll(rail->s.recv_cq, &wc, 1) || wc.op != WEFT_WC_CLOSED)
			continue;
		rail->closed = true;
		wfi_rails_remove(r->plan, (unsigned)rail->nr);
		rail->nr = -1;
	}
}

static void on_done(void *ctx, int res)
{
	*(int *)ctx = res;
}

/* all blocks, in a shuffled order at the other side. Return: the result, which came in time */
static int run_plan(struct rig *r, enum wfi_xfer_dir dir, uint8_t *local)
{
	struct wfi_rail_mem mem[WFI_RAILS_MAX] = { 0 };
	struct weft_rkey *rkeys[RAILS];
	struct wfi_piece pieces[NR];
	int32_t results[NR];
	struct wfi_xfer_opts o = { .dir = dir,
				   .nr_rkeys = 1,
				   .pieces = pieces,
				   .nr_pieces = NR,
				   .nr_blocks = NR,
				   .results = results,
				   .done = on_done };
	uint64_t start_ns = wfi_now(&r->env);
	struct wfi_rails_xfer *x;
	int res = 1;
	unsigned i;

	for (i = 0; i < NR; i++)
		pieces[i] = (struct wfi_piece){ .local = local + (size_t)i * BLOCK,
						.remote = (uint64_t)(i * 31 % NR) * BLOCK,
						.block = i,
						.len = BLOCK };
	for (i = 0; i < RAILS; i++) {
		rkeys[i] = r->rails[i].rkey;
		if (r->rails[i].nr < 0)
			continue;
		mem[r->rails[i].nr].local_mr = r->rails[i].mr;
		mem[r->rails[i].nr].rkeys = &rkeys[i];
	}
	o.ctx = &res;
	o.deadline_ns = start_ns + guest_slowness * DEADLINE_MS * WFI_NSEC_PER_MSEC;
	assert_int_equal(wfi_rails_submit(r->plan, &o, mem, &x), 0);
	while (res == 1) {
		poll_all(r);
		if (r->mid && wfi_rails_open(r->plan, r->rails[1].s.ep)) {
			r->mid(r);
			r->mid = NULL;
		}
	}
	assert_true(guest_in_time(&r->env, start_ns, LIMIT_MS));
	return res;
}

static void expect_round(struct rig *r, uint8_t round)
{
	uint8_t *back = r->mem + SIDE_MEM / 2;
	unsigned i;

	assert_int_equal(run_plan(r, WFI_XFER_READ, back), 0);
	for (i = 0; i < NR * BLOCK; i++)
		if (back[i] != (uint8_t)(round + i / BLOCK))
			fail_msg("byte %u is %#x, not %#x", i, back[i],
				 (unsigned)(uint8_t)(round + i / BLOCK));
}

/* writes what no round had, uses the memory anew as soon as that is over, and reads it back */
static void write_round(struct rig *r)
{
	unsigned i;

	/* nothing has come late */
	if (r->round)
		expect_round(r, r->round);
	/* never the foreign byte */
	r->round = (uint8_t)(r->round % 50 + 1);
	for (i = 0; i < NR; i++)
		memset(r->mem + (size_t)i * BLOCK, r->round + (int)i, BLOCK);
	assert_int_equal(run_plan(r, WFI_XFER_WRITE, r->mem), 0);
	memset(r->mem, FOREIGN, NR * BLOCK);
	expect_round(r, r->round);
}

/* a rail that is slow just now may get nothing of a plan */
static void write_until(struct rig *r, void (*mid)(struct rig *r))
{
	uint64_t start_ns = wfi_now(&r->env);

	for (r->mid = mid; r->mid; assert_true(guest_in_time(&r->env, start_ns, AGAIN_MS)))
		write_round(r);
}

static uint64_t carried(const struct rig *r, unsigned i)
{
	struct wfi_rail_stat stat = { 0 };

	if (r->rails[i].nr >= 0)
		wfi_rails_stat(r->plan, (unsigned)r->rails[i].nr, &stat);
	return stat.bytes;
}

/* a chunk at a time goes over a rail that is new */
static void gently(struct rig *r)
{
	struct wfi_rail_stat stat;

	wfi_rails_stat(r->plan, (unsigned)r->rails[1].nr, &stat);
	if (!stat.bytes)
		assert_true(stat.open_bytes <= CHUNK);
}

/* the second rail, if it ended, is made anew, is given little until that has arrived, and then
 * carries its share */
static void comes_back(struct rig *r)
{
	uint64_t start_ns = wfi_now(&r->env), was = carried(r, 1);
	char order = ORDER_ANEW;

	while (r->rails[1].closed || carried(r, 1) <= was + CHUNK) {
		if (r->rails[1].closed) {
			assert_int_equal(wfi_rails_open(r->plan, r->rails[1].s.ep), 0);
			guest_move(r->sock, &order, 1, 1);
			rail_close(r, 1);
			rail_open(r, 1);
			rail_add(r, 1);
			was = 0;
		}
		r->mid = gently;
		write_round(r);
		assert_true(guest_in_time(&r->env, start_ns, AGAIN_MS));
	}
}

/* ---- tests ---- */

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct wfi_xfer_engine_opts o;
	struct wfi_rails_opts ro;
	unsigned i;

	assert_non_null(r);
	r->sock = guest_dial(&where, 1);
	rig_open(r);
	o = (struct wfi_xfer_engine_opts){ .env = &r->env };
	assert_int_equal(wfi_xfer_engine_create(&o, &r->eng), 0);
	ro = (struct wfi_rails_opts){ .env = &r->env,
				      .xfer = r->eng,
				      .chunk_bytes = CHUNK,
				      .patience_ns = PATIENCE_MS * WFI_NSEC_PER_MSEC };
	assert_int_equal(wfi_rails_create(&ro, &r->plan), 0);
	for (i = 0; i < RAILS; i++)
		rail_add(r, i);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	char order = ORDER_END;

	guest_move(r->sock, &order, 1, 1);
	rig_close(r);
	wfi_rails_destroy(r->plan);
	wfi_xfer_engine_destroy(r->eng);
	close(r->sock);
	free(r);
	return 0;
}

static void test_split(void **state)
{
	struct rig *r = *state;
	uint64_t start_ns = wfi_now(&r->env);

	write_until(r, gently);
	while (carried(r, 0) <= 4 * CHUNK || carried(r, 1) <= 4 * CHUNK) {
		write_round(r);
		assert_true(guest_in_time(&r->env, start_ns, AGAIN_MS));
	}
}

/* plans go on through an outage of the second rail, from the middle of one to its end */
static void outage(struct rig *r, void (*begin)(struct rig *r))
{
	uint64_t start_ns = wfi_now(&r->env);

	write_until(r, begin);
	while (wfi_now(&r->env) - start_ns < 2 * OUTAGE_S * WFI_NSEC_PER_SEC)
		write_round(r);
	link_await();
	comes_back(r);
}

static void link_there(struct rig *r)
{
	char order = ORDER_LINK;

	guest_move(r->sock, &order, 1, 1);
}

static void test_link(void **state)
{
	outage(*state, link_there);
}

static void link_here(struct rig *r)
{
	(void)r;
	link_flap();
}

static void test_link_own(void **state)
{
	outage(*state, link_here);
}

static void rail_break(struct rig *r)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	assert_int_equal(ibv_modify_qp(wfi_verbs_ep(r->rails[1].s.ep)->qp, &attr, IBV_QP_STATE), 0);
}

/* its queue pair breaks in the middle of a plan */
static void test_dies(void **state)
{
	struct rig *r = *state;
	uint64_t start_ns;

	write_until(r, rail_break);
	for (start_ns = wfi_now(&r->env); !r->rails[1].closed; poll_all(r))
		assert_true(guest_in_time(&r->env, start_ns, CLOSE_MS));
	comes_back(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_split, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_own, setup, teardown),
	};
	struct wfi_env env;
	int ret;

	provider = wfi_transport_find(NULL, "verbs");
	assert_int_equal(wfi_env_real_init(&env), 0);
	if (!provider || !guest_begin(&env, &where, PORT))
		return 77;
	if (!guest_is("WEFT_VM_HOSTS", "2") || !guest_is("WEFT_VM_NICS", "2")) {
		printf("needs two guests with two NICs each\n");
		return 77;
	}
	if (guest_serves(&where, server, &ret))
		return ret;
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	close(guest_dial(&where, 0));
	return ret;
}
