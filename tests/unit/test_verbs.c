/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RDMA provider over a libibverbs that does what it is told: accounting when things go wrong.
 *
 * test_verbs --posts N [PIECES]: posts 16 times and polls what was done, N times, and nothing else,
 * for counting instructions (tests/unit/verbs_cost).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "mock_rdmacm.h"
#include "mock_verbs.h"
#include "transport/verbs/cm.h"
#include "weft_internal/log.h"

#define MEM 65536u
#define BATCH 16

struct rig {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct weft_device *dev;
	struct weft_cq *cq;
	struct weft_ep *ep;
	struct weft_mr *mr;
	struct weft_rkey *rkey;
	uint8_t mem[MEM];
};

static const struct weft_transport *const t = &wfi_transport_verbs;
static char last_line[1024];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

/* connected to itself: nobody is there to notice */
static void connect_self(struct rig *r)
{
	struct weft_ep_opts ep = { .size = sizeof(ep), .send_cq = r->cq, .recv_cq = r->cq };
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	struct weft_rkey_src src = { .size = sizeof(src), .fd = -1 };
	struct weft_ep_addr addr;
	struct weft_export ex;

	assert_int_equal(t->ep_create(r->dev, &ep, &r->ep), 0);
	assert_int_equal(t->ep_addr(r->ep, &addr), 0);
	peer.blob = addr.blob;
	peer.blob_len = addr.blob_len;
	assert_int_equal(t->ep_connect(r->ep, &peer), 0);
	assert_int_equal(t->mr_export(r->mr, NULL, &ex), 0);
	src.blob = ex.blob;
	src.blob_len = ex.blob_len;
	assert_int_equal(t->rkey_import(r->ep, &src, &r->rkey), 0);
}

static int setup(void **state)
{
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = MEM, .fd = -1 };
	struct weft_cq_opts cq = { .size = sizeof(cq), .depth = 1024 };
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	mock_reset();
	mock_cm_reset();
	wfi_log_set_sink(sink, NULL);
	assert_int_equal(wfi_sim_create(7, &r->sim), 0);
	r->env = wfi_sim_node(r->sim, 0);
	assert_int_equal(t->device_open(t, r->env, NULL, &r->dev), 0);
	mr.addr = r->mem;
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(t->mr_reg(r->dev, &mr, &r->mr), 0);
	assert_int_equal(t->cq_create(r->dev, &cq, &r->cq), 0);
	connect_self(r);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	t->rkey_destroy(r->rkey);
	t->ep_destroy(r->ep);
	t->cq_destroy(r->cq);
	t->mr_dereg(r->mr);
	t->device_close(r->dev);
	assert_int_equal(mock.nr_mrs + mock.nr_qps + mock.nr_cqs + mock.nr_srqs, 0);
	assert_int_equal(mock_cm.nr_ids, 0);
	wfi_sim_destroy(r->sim);
	wfi_log_set_sink(NULL, NULL);
	free(r);
	return 0;
}

/* pieces that are not neighbours */
static int post(struct rig *r, uint32_t nr, uint64_t cookie, uint32_t flags)
{
	struct weft_piece pieces[WFI_VERBS_PIECES];
	struct weft_post p = { .pieces = pieces, .nr_pieces = nr, .cookie = cookie };
	uint32_t i;

	for (i = 0; i < nr; i++)
		pieces[i] = (struct weft_piece){ r->mem + i * 16, i * 32, 16, r->rkey };
	p.local_mr = r->mr;
	p.flags = flags;
	return weft_ep_post_write(r->ep, &p);
}

static struct weft_wc take(struct rig *r)
{
	struct weft_wc wc = { .status = 1 };

	assert_int_equal(weft_cq_poll(r->cq, &wc, 1), 1);
	return wc;
}

static void take_none(struct rig *r)
{
	struct weft_wc wc;

	assert_int_equal(weft_cq_poll(r->cq, &wc, 1), 0);
}

/* one doorbell and one completion, however many pieces */
static void test_batch(void **state)
{
	struct rig *r = *state;
	unsigned i, signalled = 0;

	mock.nr_doorbells = 0;
	assert_int_equal(post(r, 60, 5, 0), 0);
	assert_int_equal(mock.nr_doorbells, 1);
	assert_int_equal(mock.tail - mock.head, 60);
	for (i = mock.head; i != mock.tail; i++)
		signalled += !!(mock.wrs[i].flags & IBV_SEND_SIGNALED);
	/* one in 32, and the last */
	assert_int_equal(signalled, 2);
	mock_done(59);
	take_none(r);
	mock_done(1);
	assert_int_equal(take(r).idx, 60);
	take_none(r);
}

/* pieces that follow each other at the peer share a request, as far as it can carry them */
static void test_gather(void **state)
{
	struct rig *r = *state;
	struct weft_piece pieces[10];
	struct weft_post p = { .pieces = pieces, .nr_pieces = 10, .local_mr = r->mr };
	unsigned i;

	for (i = 0; i < 10; i++)
		pieces[i] = (struct weft_piece){ r->mem + i * 64, i * 16, 16, r->rkey };
	assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
	assert_int_equal(mock.tail - mock.head, 3);
	assert_int_equal(mock.wrs[mock.head].num_sge, 4);
	assert_int_equal(mock.wrs[mock.head].len, 64);
	assert_int_equal(weft_ep_post_read(r->ep, &p), 0);
	assert_int_equal(mock.tail - mock.head, 3 + 5);
	mock_done(8);
	take(r);
	take(r);
}

/* as many pieces of a message as the NIC takes stay where they are, the others are copied */
static void test_msg_pieces(void **state)
{
	struct rig *r = *state;
	struct weft_piece pieces[10];
	struct weft_msg msg = {
		.head = "head", .head_len = 4, .pieces = pieces, .nr_pieces = 10, .cookie = 7
	};
	unsigned i;

	for (i = 0; i < 10; i++)
		pieces[i] = (struct weft_piece){ .local = r->mem + i * 64, .len = i };
	assert_int_equal(weft_ep_post_msg(r->ep, &msg), 0);
	assert_int_equal(mock.wrs[mock.head].num_sge, 1);
	assert_int_equal(mock.wrs[mock.head].len, 4 + 45);
	mock_done(1);
	assert_int_equal(take(r).cookie, 7);
	msg.local_mr = r->mr;
	assert_int_equal(weft_ep_post_msg(r->ep, &msg), 0);
	assert_int_equal(mock.wrs[mock.head].num_sge, 4);
	assert_int_equal(mock.wrs[mock.head].len, 4 + 45);
	/* what is lent makes a fence short, as pieces of a write do */
	t->ep_shutdown(r->ep);
	assert_int_equal(wfi_verbs_ep(r->ep)->close_ns - wfi_now(r->env), 30 * WFI_NSEC_PER_MSEC);
	mock_done(2);
	assert_int_equal(take(r).cookie, 7);
}

static void test_quiet(void **state)
{
	struct rig *r = *state;
	unsigned i, signalled = 0;

	for (i = 0; i < 32; i++)
		assert_int_equal(post(r, 1, i, WEFT_POST_QUIET), 0);
	for (i = mock.head; i != mock.tail; i++)
		signalled += !!(mock.wrs[i].flags & IBV_SEND_SIGNALED);
	assert_int_equal(signalled, 1);
	mock_done(32);
	take_none(r);
	/* there is room again */
	for (i = 0; i < 63; i++)
		assert_int_equal(post(r, 1, i, WEFT_POST_QUIET), 0);
	mock_done(63);
}

/* what went before the failure is done, what it hit says why, what came after was cancelled */
static void test_error(void **state)
{
	struct rig *r = *state;
	struct weft_wc wc;

	assert_int_equal(post(r, 4, 1, WEFT_POST_QUIET), 0);
	assert_int_equal(post(r, 4, 2, 0), 0);
	assert_int_equal(post(r, 4, 3, WEFT_POST_QUIET), 0);
	assert_int_equal(post(r, 4, 4, 0), 0);
	mock.head += 6;
	mock_fail(IBV_WC_RETRY_EXC_ERR);
	wc = take(r);
	assert_int_equal(wc.cookie, 2);
	assert_int_equal(wc.status, -ETIMEDOUT);
	assert_int_equal(wc.scope, WEFT_SCOPE_EP);
	wc = take(r);
	assert_int_equal(wc.cookie, 3);
	assert_int_equal(wc.status, -ECANCELED);
	wc = take(r);
	assert_int_equal(wc.cookie, 4);
	wc = take(r);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, -ECONNRESET);
	assert_int_equal(mock.qp_state, IBV_QPS_RESET);
	assert_int_equal(post(r, 1, 5, 0), -ENOTCONN);
	take_none(r);
}

/* the NIC takes half of a chain: accepted whole, failed whole */
static void test_refused(void **state)
{
	struct rig *r = *state;
	struct weft_wc wc;

	mock.refuse_at = 3;
	assert_int_equal(post(r, 8, 9, 0), 0);
	mock_fail(IBV_WC_WR_FLUSH_ERR);
	wc = take(r);
	assert_int_equal(wc.cookie, 9);
	assert_int_equal(wc.scope, WEFT_SCOPE_EP);
	assert_true(wc.status < 0);
	wc = take(r);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, -EIO);
}

/* a bad piece: those before it move, the endpoint goes on */
static void test_bad_piece(void **state)
{
	struct rig *r = *state;
	struct weft_piece pieces[] = {
		{ r->mem, 0, 16, r->rkey },
		{ r->mem, MEM - 1, 16, r->rkey },
		{ r->mem, 64, 16, r->rkey },
	};
	struct weft_post p = { .pieces = pieces, .nr_pieces = 3, .local_mr = r->mr };
	struct weft_wc wc;

	assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
	assert_int_equal(mock.tail - mock.head, 1);
	mock_done(1);
	wc = take(r);
	assert_int_equal(wc.status, -ERANGE);
	assert_int_equal(wc.scope, WEFT_SCOPE_OP);
	assert_int_equal(wc.idx, 1);
	/* nothing to move at all, behind quiet posts that nobody hears of */
	assert_int_equal(post(r, 1, 0, WEFT_POST_QUIET), 0);
	p.pieces = pieces + 1;
	assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
	take_none(r);
	mock_done(2);
	wc = take(r);
	assert_int_equal(wc.status, -ERANGE);
	assert_int_equal(wc.idx, 0);
	p.local_mr = NULL;
	assert_int_equal(weft_ep_post_write(r->ep, &p), -EINVAL);
}

/* the device dies and says nothing more: all ends, in time, with that scope */
static void test_device_fatal(void **state)
{
	struct weft_ep_opts ep = { .size = sizeof(ep) };
	struct rig *r = *state;
	struct weft_ep *other = NULL;
	struct weft_wc wc;
	unsigned i;

	assert_int_equal(post(r, 4, 1, 0), 0);
	mock_event(IBV_EVENT_DEVICE_FATAL, NULL);
	for (i = 0; i < 400 && weft_cq_poll(r->cq, &wc, 1) == 0; i++) {
		wfi_sim_advance(r->sim, 10 * WFI_NSEC_PER_MSEC);
		t->cq_disarm(r->cq);
		t->cq_arm(r->cq, &(struct weft_wait){ 0 }, 1);
	}
	assert_true(i < 400);
	assert_int_equal(wc.cookie, 1);
	assert_int_equal(wc.status, -ECANCELED);
	assert_int_equal(wc.scope, WEFT_SCOPE_DEVICE);
	wc = take(r);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.scope, WEFT_SCOPE_DEVICE);
	ep.send_cq = r->cq;
	ep.recv_cq = r->cq;
	assert_int_equal(t->ep_create(r->dev, &ep, &other), -ENODEV);
}

/* broken on purpose, with requests that were done without a word: a marker tells */
static void test_marker(void **state)
{
	struct rig *r = *state;
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < 5; i++)
		assert_int_equal(post(r, 1, i, WEFT_POST_QUIET), 0);
	mock_done(5);
	mock_receive(wfi_verbs_ep(r->ep)->qp->qp_num, IBV_WC_RECV, 0, true, 0);
	take_none(r);
	assert_int_equal(mock.tail - mock.head, 1);
	mock_fail(IBV_WC_WR_FLUSH_ERR);
	wc = take(r);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, -ECONNRESET);
}

static void test_messages(void **state)
{
	struct rig *r = *state;
	uint32_t qpn = wfi_verbs_ep(r->ep)->qp->qp_num, before = mock.nr_srq;
	struct weft_wc wc;
	unsigned i, sent = 0;

	while (!weft_ep_post_send(r->ep, "hello", 5, 0, WEFT_POST_QUIET))
		sent++;
	/* neither more than the peer has room for, nor than may be open */
	assert_int_equal(sent, 32);
	mock_done(sent);
	for (i = 0; i < 20; i++) {
		mock_receive(qpn, IBV_WC_RECV, 5, false, 0);
		wc = take(r);
		assert_int_equal(wc.op, WEFT_WC_RECV);
		assert_int_equal(wc.len, 5);
	}
	take_none(r);
	assert_int_equal(mock.nr_srq - before, 20);
	/* the peer was told once half of its credits were taken */
	assert_int_equal(mock.tail - mock.head, 1);
	assert_int_equal(mock.wrs[mock.head].opcode, IBV_WR_RDMA_WRITE);
	assert_int_equal(mock.wrs[mock.head].len, 4);
	mock_done(1);
	/* what the peer says of its room is checked */
	wfi_verbs_ep(r->ep)->credit[0] = 1u << 30;
	assert_int_equal(weft_ep_post_send(r->ep, "x", 1, 0, 0), -ENOTCONN);
}

/* a peer has the key of its own word alone: whatever it writes there harms nobody else */
static void test_credit_key(void **state)
{
	struct weft_ep_opts o = { .size = sizeof(o) };
	struct wfi_verbs_ep_blob mine, other;
	struct rig *r = *state;
	struct weft_ep_addr addr;
	struct weft_ep *ep;
	unsigned before;

	o.send_cq = r->cq;
	o.recv_cq = r->cq;
	assert_int_equal(t->ep_create(r->dev, &o, &ep), 0);
	before = mock.nr_mrs;
	assert_int_equal(t->ep_addr(r->ep, &addr), 0);
	memcpy(&mine, addr.blob, sizeof(mine));
	assert_int_equal(t->ep_addr(ep, &addr), 0);
	memcpy(&other, addr.blob, sizeof(other));
	assert_int_not_equal(mine.credit_rkey, other.credit_rkey);
	assert_ptr_equal(wfi_verbs_ep(ep)->credit_mr->addr, wfi_verbs_ep(ep)->credit);
	/* and what we tell that peer is not there */
	assert_int_equal(wfi_verbs_ep(ep)->credit_mr->length, 16 * sizeof(uint32_t));
	t->ep_destroy(ep);
	assert_int_equal(mock.nr_mrs, before - 1);
	mock.reg_errno = ENOMEM;
	assert_int_equal(t->ep_create(r->dev, &o, &ep), -ENOMEM);
}

static void test_full(void **state)
{
	struct weft_ep_opts ep = { .size = sizeof(ep), .depth = 1024, .recv_bytes = 16384 };
	struct rig *r = *state;
	struct weft_ep *eps[8];
	unsigned nr = 0;
	int ret;

	wfi_verbs_device(r->dev)->cqe_max = 4096;
	ep.send_cq = r->cq;
	ep.recv_cq = r->cq;
	while (!(ret = t->ep_create(r->dev, &ep, &eps[nr])))
		assert_true(++nr < 8);
	assert_int_equal(ret, -ENOSPC);
	assert_true(nr >= 1);
	while (nr)
		t->ep_destroy(eps[--nr]);
}

static void test_no_device(void **state)
{
	struct weft_device *dev = NULL;
	struct weft_device_opts opts = { .size = sizeof(opts), .name = "mlx9" };
	struct weft_probe probe;
	struct rig *r = *state;
	struct weft_mr_opts mr = { .size = sizeof(mr), .addr = r->mem, .len = MEM, .fd = -1 };
	struct weft_mr *region = NULL;

	assert_int_equal(t->device_open(t, r->env, &opts, &dev), -ENODEV);
	assert_non_null(strstr(last_line, "mlx9"));
	mock.no_gid = true;
	assert_int_equal(t->probe(t, r->env, &probe), -ENODEV);
	assert_non_null(strstr(probe.why, "RoCE v2"));
	mock.no_gid = false;
	mock.state = IBV_PORT_DOWN;
	assert_int_equal(t->probe(t, r->env, &probe), -ENODEV);
	assert_non_null(strstr(probe.why, "not active"));
	mock.nr_devices = 0;
	assert_int_equal(t->probe(t, r->env, &probe), -ENODEV);
	assert_non_null(strstr(probe.why, "no RDMA device"));
	mock.reg_errno = ENOMEM;
	assert_int_equal(t->mr_reg(r->dev, &mr, &region), -ENOMEM);
	assert_non_null(strstr(last_line, "64 KiB can't be"));
}

static void test_other_version(void **state)
{
	struct rig *r = *state;
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	struct wfi_verbs_ep_blob blob;
	struct weft_ep_addr addr;

	assert_int_equal(t->ep_addr(r->ep, &addr), 0);
	memcpy(&blob, addr.blob, sizeof(blob));
	blob.version++;
	peer.blob = &blob;
	peer.blob_len = sizeof(blob);
	assert_int_equal(t->ep_connect(r->ep, &peer), -EINVAL);
	assert_non_null(strstr(last_line, "version"));
	blob.version--;
	blob.qpn ^= 1;
	assert_int_equal(t->ep_connect(r->ep, &peer), -EINVAL);
	blob.qpn ^= 1;
	assert_int_equal(t->ep_connect(r->ep, &peer), -EISCONN);
}

/* both sides pick the same pair, in whatever order each lists its addresses */
static void test_gid_pair(void **state)
{
	static const uint8_t gids[4][16] = {
		{ 0xfe, 0x80, [15] = 1 },
		{ [10] = 0xff, [11] = 0xff, 10, 1, 0, 1 },
		{ [10] = 0xff, [11] = 0xff, 10, 2, 0, 2 },
		{ 0xfe, 0x80, [15] = 2 },
	};
	uint32_t a_ours = 9, a_theirs = 9, b_ours = 9, b_theirs = 9;
	struct wfi_verbs_port a = { .nr_gids = 2 }, b = { .nr_gids = 2 };
	uint8_t a_raw[2][16], b_raw[2][16];
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		memcpy(a.gids[i].raw, gids[i], 16);
		memcpy(a_raw[i], gids[i], 16);
		memcpy(b.gids[i].raw, gids[3 - i], 16);
		memcpy(b_raw[i], gids[3 - i], 16);
	}
	assert_int_equal(wfi_verbs_gid_pair(&a, b_raw, 2, &a_ours, &a_theirs), 0);
	assert_int_equal(wfi_verbs_gid_pair(&b, a_raw, 2, &b_ours, &b_theirs), 0);
	assert_int_equal(a_ours, b_theirs);
	assert_int_equal(a_theirs, b_ours);
	assert_int_equal(a_ours, 0);
	assert_int_equal(a_theirs, 0);
}

static int run_posts(unsigned nr, unsigned pieces)
{
	struct weft_wc wcs[BATCH];
	void *state = NULL;
	struct rig *r;
	unsigned i, k;

	setup(&state);
	r = state;
	mock.fast = true;
	for (i = 0; i < nr; i++) {
		for (k = 0; k < BATCH; k++)
			if (post(r, pieces, i, 0))
				return 1;
		if (weft_cq_poll(r->cq, wcs, BATCH) != BATCH)
			return 1;
	}
	teardown(&state);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gather, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msg_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_quiet, setup, teardown),
		cmocka_unit_test_setup_teardown(test_error, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_piece, setup, teardown),
		cmocka_unit_test_setup_teardown(test_device_fatal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_marker, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_credit_key, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_version, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gid_pair, setup, teardown),
	};

	if (argc > 2 && !strcmp(argv[1], "--posts"))
		return run_posts((unsigned)atoi(argv[2]), argc > 3 ? (unsigned)atoi(argv[3]) : 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
