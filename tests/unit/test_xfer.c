/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfer engine over loop, and over loop behind the fault injector, under a simulated clock:
 * one completion each, by the deadline plus grace, with the right result for each block. All of it
 * twice: everything posted, and with small pieces gathered in messages.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/rnd.h"
#include "weft_internal/copy.h"
#include "weft_internal/env.h"
#include "weft_internal/gather.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"
#include "weft_internal/xfer.h"

#define MEM (8u << 20)
#define SLICE (512u << 10) /* what one poll moves or sums up */
#define MS WFI_NSEC_PER_MSEC
#define PIECE_NS 2000u /* what a piece costs when they are gathered */

static bool gathering;

struct world {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct weft_transport *fault; /* NULL: bare loop */
	const struct weft_transport *t;
	struct weft_device *dev;
	struct weft_cq *send_cq, *recv_cq, *peer_cq;
	struct weft_ep *ep, *peer;
	struct weft_mr *mr;
	struct weft_rkey *rkey;
	struct wfi_xfer_engine *eng;
	uint8_t *local, *remote;
	struct wfi_xfer_engine *peer_eng; /* these when gathering */
	struct wfi_gather *link, *peer_link;
	struct wfi_gather_name name;
	bool peer_stopped;
	bool closed; /* .ep */
};

struct job {
	struct wfi_xfer *x;
	struct wfi_piece *pieces;
	int32_t *results;
	unsigned nr_done;
	int res;
	struct world *w;
	struct wfi_xfer_opts again; /* submitted from done() when .nr_pieces is not 0 */
};

static void ep_open(struct world *w)
{
	struct weft_ep_opts o = { .size = sizeof(o), .depth = 8 };
	struct weft_ep_peer p = { .size = sizeof(p) };
	struct weft_rkey_src src = { .size = sizeof(src), .fd = -1 };
	struct weft_ep_addr addr, peer_addr;
	struct weft_export ex;

	o.send_cq = w->send_cq;
	o.recv_cq = w->recv_cq;
	assert_int_equal(w->t->ep_create(w->dev, &o, &w->ep), 0);
	o.send_cq = w->peer_cq;
	o.recv_cq = w->peer_cq;
	assert_int_equal(w->t->ep_create(w->dev, &o, &w->peer), 0);
	assert_int_equal(w->t->ep_addr(w->peer, &peer_addr), 0);
	assert_int_equal(w->t->ep_addr(w->ep, &addr), 0);
	p.blob = peer_addr.blob;
	p.blob_len = peer_addr.blob_len;
	assert_int_equal(w->t->ep_connect(w->ep, &p), 0);
	p.blob = addr.blob;
	p.blob_len = addr.blob_len;
	assert_int_equal(w->t->ep_connect(w->peer, &p), 0);
	assert_int_equal(w->t->mr_export(w->mr, NULL, &ex), 0);
	src.blob = ex.blob;
	src.blob_len = ex.blob_len;
	assert_int_equal(w->t->rkey_import(w->ep, &src, &w->rkey), 0);
}

/* both ends of a link, and the peer's region in it */
static void link_open(struct world *w)
{
	struct wfi_xfer_engine_opts eng = { .env = w->env };

	assert_int_equal(wfi_xfer_engine_create(&eng, &w->peer_eng), 0);
	assert_int_equal(wfi_gather_open(w->eng, w->ep, 0, &w->link), 0);
	assert_int_equal(wfi_gather_open(w->peer_eng, w->peer, 0, &w->peer_link), 0);
	assert_true(wfi_gather_threshold(w->link) > 1024);
	assert_int_equal(wfi_gather_serve(w->peer_link, w->mr, NULL, &w->name), 0);
}

static void link_close(struct world *w)
{
	wfi_gather_close(w->link);
	wfi_gather_close(w->peer_link);
	wfi_xfer_engine_destroy(w->peer_eng);
}

static void ep_close(struct world *w)
{
	w->t->rkey_destroy(w->rkey);
	w->t->ep_destroy(w->ep);
	w->t->ep_destroy(w->peer);
}

static void world_open(struct world *w, const struct wfi_fault_opts *faults)
{
	struct weft_cq_opts cq = { .size = sizeof(cq), .depth = 64 };
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = MEM, .fd = -1 };
	struct wfi_xfer_engine_opts eng = { 0 };

	memset(w, 0, sizeof(*w));
	assert_int_equal(wfi_sim_create(1, &w->sim), 0);
	w->env = wfi_sim_node(w->sim, 0);
	w->t = wfi_transport_find(NULL, "loop");
	assert_non_null(w->t);
	if (faults) {
		struct wfi_fault_opts f = *faults;

		f.cost_per_piece_ns = gathering ? PIECE_NS : 0;
		assert_int_equal(wfi_fault_create(w->t, &f, &w->fault), 0);
		w->t = w->fault;
	}
	w->local = calloc(1, MEM);
	w->remote = calloc(1, MEM);
	assert_non_null(w->local);
	assert_non_null(w->remote);
	assert_int_equal(w->t->device_open(w->t, w->env, NULL, &w->dev), 0);
	w->dev->caps.cost_per_piece_ns = gathering ? PIECE_NS : 0;
	assert_int_equal(w->t->cq_create(w->dev, &cq, &w->send_cq), 0);
	assert_int_equal(w->t->cq_create(w->dev, &cq, &w->recv_cq), 0);
	assert_int_equal(w->t->cq_create(w->dev, &cq, &w->peer_cq), 0);
	mr.addr = w->remote;
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(w->t->mr_reg(w->dev, &mr, &w->mr), 0);
	ep_open(w);
	eng.env = w->env;
	eng.max_xfers = 64;
	eng.grace_ns = 10 * MS;
	assert_int_equal(wfi_xfer_engine_create(&eng, &w->eng), 0);
	if (gathering)
		link_open(w);
}

static void world_close(struct world *w)
{
	if (gathering)
		link_close(w);
	wfi_xfer_engine_destroy(w->eng);
	ep_close(w);
	w->t->mr_dereg(w->mr);
	w->t->cq_destroy(w->send_cq);
	w->t->cq_destroy(w->recv_cq);
	w->t->cq_destroy(w->peer_cq);
	w->t->device_close(w->dev);
	wfi_fault_destroy(w->fault);
	free(w->local);
	free(w->remote);
	wfi_sim_destroy(w->sim);
}

static int poll_link(struct world *w, struct weft_cq *cq, struct wfi_gather *link)
{
	struct weft_wc wcs[16];
	int i, n = weft_cq_poll(cq, wcs, 16);

	for (i = 0; i < n; i++) {
		assert_true(wfi_gather_event(link, &wcs[i]) >= 0);
		w->closed |= wcs[i].op == WEFT_WC_CLOSED && wcs[i].ep == w->ep;
	}
	return n;
}

static int poll_eng(struct world *w)
{
	int work = 0;

	if (gathering && !w->peer_stopped) {
		work += poll_link(w, w->peer_cq, w->peer_link);
		work += wfi_xfer_poll(w->peer_eng, wfi_now(w->env));
	}
	if (gathering)
		work += poll_link(w, w->recv_cq, w->link);
	return work + wfi_xfer_poll(w->eng, wfi_now(w->env));
}

static void on_done(void *ctx, int res)
{
	struct job *j = ctx;

	j->nr_done++;
	j->res = res;
	if (j->again.nr_pieces) {
		struct wfi_xfer_opts o = j->again;

		j->again.nr_pieces = 0;
		assert_int_equal(wfi_xfer_submit(j->w->eng, &o, &j->x), 0);
	}
}

/* @nr blocks of @len bytes, cut in @cuts pieces each, at shuffled places */
static void job_init(struct world *w, struct job *j, uint32_t nr, uint64_t len, uint32_t cuts)
{
	uint32_t i, c;

	memset(j, 0, sizeof(*j));
	j->w = w;
	j->pieces = calloc((size_t)nr * cuts, sizeof(*j->pieces));
	j->results = calloc(nr, sizeof(*j->results));
	assert_non_null(j->pieces);
	assert_non_null(j->results);
	assert_true(nr * len <= MEM);
	for (i = 0; i < nr; i++) {
		uint64_t at = (uint64_t)(i * 7u % nr) * len;

		for (c = 0; c < cuts; c++) {
			uint64_t from = len * c / cuts, to = len * (c + 1) / cuts;

			j->pieces[i * cuts + c] = (struct wfi_piece){
				.local = w->local + (uint64_t)i * len + from,
				.remote = at + from,
				.block = i,
				.len = to - from,
			};
		}
	}
}

static void job_fini(struct job *j)
{
	free(j->pieces);
	free(j->results);
}

static struct wfi_xfer_opts job_opts(struct world *w, struct job *j, enum wfi_xfer_dir dir,
				     uint32_t nr_pieces, uint32_t nr_blocks)
{
	return (struct wfi_xfer_opts){
		.ep = w->ep,
		.dir = dir,
		.rkeys = &w->rkey,
		.nr_rkeys = 1,
		.pieces = j->pieces,
		.nr_pieces = nr_pieces,
		.nr_blocks = nr_blocks,
		.results = j->results,
		.deadline_ns = wfi_now(w->env) + 1000 * MS,
		.done = on_done,
		.ctx = j,
		.gather = w->link,
		.names = &w->name,
	};
}

static void fill(uint8_t *mem, size_t len)
{
	uint64_t word;
	size_t i;

	for (i = 0; i < len; i += sizeof(word)) {
		word = rnd();
		memcpy(mem + i, &word, wfi_min(sizeof(word), len - i));
	}
}

/* block @i as it is at the other side */
static bool block_equal(struct world *w, const struct wfi_piece *p)
{
	return !memcmp(p->local, w->remote + p->remote, p->len);
}

static void run_until_done(struct world *w, struct job *j)
{
	unsigned i;

	for (i = 0; i < 100000 && !j->nr_done; i++) {
		poll_eng(w);
		wfi_sim_advance(w->sim, 10000);
	}
	assert_int_equal(j->nr_done, 1);
}

static void test_moves(void **state)
{
	static const struct {
		uint32_t nr, cuts;
		uint64_t len;
	} shape[] = { { 1, 1, 1 },	{ 256, 1, 1024 }, { 4096, 1, 1024 }, { 3, 2, 2u << 20 },
		      { 1000, 3, 333 }, { 7, 100, 10 },	  { 1, 1, MEM } };
	struct wfi_fault_opts calm = { .seed = 1 };
	struct world w;
	struct job j;
	unsigned i, f, b;

	(void)state;
	for (f = 0; f < 2; f++) {
		world_open(&w, f ? &calm : NULL);
		for (i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
			enum wfi_xfer_dir dir = i & 1 ? WFI_XFER_READ : WFI_XFER_WRITE;
			struct wfi_xfer_opts o;

			job_init(&w, &j, shape[i].nr, shape[i].len, shape[i].cuts);
			fill(w.local, MEM);
			fill(w.remote, MEM);
			o = job_opts(&w, &j, dir, shape[i].nr * shape[i].cuts, shape[i].nr);
			assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
			run_until_done(&w, &j);
			assert_int_equal(j.res, 0);
			for (b = 0; b < o.nr_pieces; b++)
				assert_true(block_equal(&w, &j.pieces[b]));
			for (b = 0; b < o.nr_blocks; b++)
				assert_int_equal(j.results[b], 0);
			job_fini(&j);
		}
		assert_int_equal(poll_eng(&w), 0);
		assert_true(wfi_xfer_next_event_ns(w.eng) >= wfi_now(w.env));
		world_close(&w);
	}
}

static void test_refused(void **state)
{
	struct world w;
	struct job j;
	struct wfi_xfer_opts o;
	struct weft_ep bad;

	(void)state;
	world_open(&w, NULL);
	job_init(&w, &j, 4, 64, 1);
	o = job_opts(&w, &j, WFI_XFER_READ, 4, 4);
	j.pieces[2].remote = MEM - 63;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	j.pieces[2].remote = UINT64_MAX;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	j.pieces[2].remote = 0;
	j.pieces[2].rkey = 1;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	j.pieces[2].rkey = 0;
	j.pieces[2].block = 4;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	j.pieces[2].block = 2;
	bad = *w.ep;
	bad.recv_cq = bad.send_cq;
	o.ep = &bad;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	assert_int_equal(j.nr_done, 0);
	/* nothing to move is done at once */
	o = job_opts(&w, &j, WFI_XFER_READ, 0, 0);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
	assert_null(j.x);
	assert_int_equal(j.nr_done, 1);
	job_fini(&j);
	world_close(&w);
}

/* a small one behind many large ones does not wait for them; no more than max_xfers are accepted */
static void test_fair(void **state)
{
	struct world w;
	struct job big[63], small, more;
	struct wfi_xfer_opts o;
	unsigned i, done = 0;

	(void)state;
	world_open(&w, NULL);
	for (i = 0; i < 63; i++) {
		job_init(&w, &big[i], 1, MEM, 1);
		o = job_opts(&w, &big[i], WFI_XFER_READ, 1, 1);
		assert_int_equal(wfi_xfer_submit(w.eng, &o, &big[i].x), 0);
		assert_non_null(big[i].x);
	}
	job_init(&w, &small, 2, 200 << 10, 1);
	o = job_opts(&w, &small, WFI_XFER_READ, 2, 2);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &small.x), 0);
	job_init(&w, &more, 1, 1, 1);
	o = job_opts(&w, &more, WFI_XFER_READ, 1, 1);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &more.x), -EAGAIN);
	while (!small.nr_done)
		assert_true(poll_eng(&w) > 0);
	for (i = 0; i < 63; i++)
		done += big[i].nr_done;
	assert_int_equal(done, 0);
	while (poll_eng(&w) > 0)
		;
	for (i = 0; i < 63; i++) {
		assert_int_equal(big[i].nr_done, 1);
		assert_int_equal(big[i].res, 0);
		job_fini(&big[i]);
	}
	job_fini(&small);
	job_fini(&more);
	world_close(&w);
}

static void test_cancel(void **state)
{
	struct world w;
	struct job j, other;
	struct wfi_xfer_opts o;

	(void)state;
	world_open(&w, NULL);
	job_init(&w, &j, 2, MEM / 2, 1);
	o = job_opts(&w, &j, WFI_XFER_READ, 2, 2);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
	poll_eng(&w);
	wfi_xfer_cancel(w.eng, j.x);
	wfi_xfer_cancel(w.eng, j.x);
	assert_int_equal(j.nr_done, 0);
	fill(w.local, MEM);
	memcpy(w.remote, w.local, MEM);
	memset(w.local, 1, MEM);
	assert_true(poll_eng(&w) > 0);
	assert_int_equal(j.nr_done, 1);
	assert_int_equal(j.res, -ECANCELED);
	assert_int_equal(j.results[1], -ECANCELED);
	assert_int_equal(w.local[MEM - 1], 1);
	/* the endpoint was not hurt: a copy that is joined needs no reset */
	job_init(&w, &other, 1, 4096, 1);
	o = job_opts(&w, &other, WFI_XFER_READ, 1, 1);
	other.again = o;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &other.x), 0);
	poll_eng(&w);
	assert_int_equal(other.nr_done, 2);
	assert_int_equal(other.res, 0);
	job_fini(&j);
	job_fini(&other);
	world_close(&w);
}

/* one transfer, cancelled (or not, when @cancel_ns is more than it takes). Return: whether bytes
 * landed between that and its end */
static bool late_turn(uint64_t seed, enum wfi_xfer_dir dir, uint64_t cancel_ns)
{
	enum { LEN = 256u << 10, NR = 16 };
	const struct wfi_fault_opts faults = {
		.seed = seed,
		.late_ppm = 700000,
		.late_max_ns = 12 * MS,
		.stop_ppm = seed % 3 ? 0 : 200000,
		.delay_ppm = seed % 2 ? 0 : 500000,
		.delay_max_ns = 5 * MS,
	};
	struct wfi_xfer_opts o;
	uint8_t *dst, *before;
	struct world w;
	struct job j;
	bool landed;
	unsigned i;

	world_open(&w, &faults);
	job_init(&w, &j, NR, LEN / NR, 2);
	fill(w.local, LEN);
	fill(w.remote, LEN);
	dst = dir == WFI_XFER_READ ? w.local : w.remote;
	before = malloc(LEN);
	assert_non_null(before);
	o = job_opts(&w, &j, dir, 2 * NR, NR);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
	poll_eng(&w);
	wfi_sim_advance(w.sim, cancel_ns);
	poll_eng(&w);
	memcpy(before, dst, LEN);
	if (!j.nr_done)
		wfi_xfer_cancel(w.eng, j.x);
	run_until_done(&w, &j);
	landed = memcmp(before, dst, LEN) != 0;

	/* both sides are somebody else's now */
	memset(w.local, 0xaa, LEN);
	memset(w.remote, 0xbb, LEN);
	for (i = 0; i < 100; i++) {
		poll_eng(&w);
		wfi_sim_advance(w.sim, MS);
	}
	for (i = 0; i < LEN; i++)
		assert_true(w.local[i] == 0xaa && w.remote[i] == 0xbb);
	free(before);
	job_fini(&j);
	world_close(&w);
	return landed;
}

/* a cancelled transfer is not over while its bytes can still land: afterwards none does */
static void test_late(void **state)
{
	unsigned nr_landed = 0;
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 120; seed++)
		nr_landed +=
			late_turn(seed, seed % 2 ? WFI_XFER_READ : WFI_XFER_WRITE, seed % 7 * MS);
	/* or nothing was tested */
	assert_true(nr_landed > 10);
}

/* a peer that stops for good: deadline, then the endpoint is reset, then done */
static void test_stopped_peer(void **state)
{
	struct wfi_fault_opts stop = { .seed = 1, .stop_ppm = 1000000 };
	/* of a READ in messages nothing can land late: no need to fence it */
	enum wfi_xfer_dir dir = gathering ? WFI_XFER_WRITE : WFI_XFER_READ;
	struct weft_wc wc;
	struct world w;
	struct job j;
	struct wfi_xfer_opts o;
	uint64_t start;

	(void)state;
	world_open(&w, &stop);
	w.peer_stopped = true;
	job_init(&w, &j, 2, 64, 1);
	o = job_opts(&w, &j, dir, 2, 2);
	start = wfi_now(w.env);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
	while (wfi_now(w.env) < start + 999 * MS) {
		poll_eng(&w);
		wfi_sim_advance(w.sim, MS);
	}
	assert_int_equal(j.nr_done, 0);
	assert_int_equal(wfi_xfer_next_event_ns(w.eng), o.deadline_ns);
	wfi_sim_advance(w.sim, 2 * MS);
	poll_eng(&w);
	assert_int_equal(j.nr_done, 0); /* not fenced yet */
	while (!j.nr_done && wfi_now(w.env) < start + 1100 * MS) {
		poll_eng(&w);
		wfi_sim_advance(w.sim, MS);
	}
	assert_int_equal(j.nr_done, 1);
	assert_int_equal(j.res, -ETIMEDOUT);
	assert_int_equal(j.results[0], -ETIMEDOUT);
	assert_int_equal(j.results[1], -ETIMEDOUT);
	assert_true(wfi_now(w.env) <= start + 1015 * MS);
	while (!w.closed) {
		poll_eng(&w);
		if (weft_cq_poll(w.recv_cq, &wc, 1) == 1)
			w.closed = wc.op == WEFT_WC_CLOSED;
	}
	/* what comes now is refused by the endpoint: a result, not a hang */
	o.deadline_ns = UINT64_MAX;
	j.nr_done = 0;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
	run_until_done(&w, &j);
	assert_int_equal(j.res, -ENOTCONN);
	job_fini(&j);
	world_close(&w);
}

/* blocks whose piece is bad fail, all others arrive: op errors at random places */
static void test_op_errors(void **state)
{
	struct wfi_fault_opts faults = {
		.seed = 7,
		.op_ppm = 200000,
		.eagain_ppm = 100000,
		.eagain_run = 5,
		.delay_ppm = 300000,
		.delay_max_ns = MS,
	};
	const uint64_t max_len = gathering ? 4000 : 2000; /* with some above the threshold */
	struct wfi_fault_stats stats;
	struct world w;
	struct job j;
	struct wfi_xfer_opts o;
	unsigned round, b, failed = 0;

	(void)state;
	world_open(&w, &faults);
	for (round = 0; round < 50; round++) {
		uint32_t nr = 1 + (uint32_t)(rnd() % 2000), cuts = 1 + (uint32_t)(rnd() % 4);

		job_init(&w, &j, nr, 1 + rnd() % max_len, cuts);
		fill(w.remote, MEM);
		memset(w.local, 0, MEM);
		o = job_opts(&w, &j, WFI_XFER_READ, nr * cuts, nr);
		assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
		run_until_done(&w, &j);
		for (b = 0; b < nr * cuts; b++)
			if (!j.results[j.pieces[b].block])
				assert_true(block_equal(&w, &j.pieces[b]));
		for (b = 0; b < nr; b++) {
			failed += j.results[b] != 0;
			assert_true(j.results[b] == 0 || j.results[b] == -EIO);
			if (j.results[b])
				assert_int_equal(j.res, -EIO);
		}
		job_fini(&j);
	}
	wfi_fault_stats(w.fault, &stats);
	assert_true(stats.op > 0 && stats.eagain > 0 && stats.delayed > 0);
	assert_true(gathering ? failed && failed <= stats.op : failed == stats.op);
	world_close(&w);
}

/* everything at once, many transfers, cancels in between: each completes once, and in time */
static void storm(uint64_t seed)
{
	struct wfi_fault_opts faults = {
		.seed = seed,
		.op_ppm = 20000,
		.ep_ppm = 3000,
		.drop_ppm = 3000,
		.device_ppm = 1000,
		.stop_ppm = 2000,
		.eagain_ppm = 50000,
		.eagain_run = 10,
		.delay_ppm = 500000,
		.delay_max_ns = 30 * MS,
	};
	struct job jobs[40];
	struct wfi_xfer_opts o;
	struct world w;
	uint32_t nr_blocks[40], b;
	unsigned i, left = 40, failed;
	uint64_t limit;

	world_open(&w, &faults);
	fill(w.remote, MEM);
	for (i = 0; i < 40; i++) {
		uint32_t nr = nr_blocks[i] = 1 + (uint32_t)(rnd() % 50);

		job_init(&w, &jobs[i], nr, 1 + rnd() % 3000, 2);
		o = job_opts(&w, &jobs[i], WFI_XFER_READ, 2 * nr, nr);
		o.deadline_ns = wfi_now(w.env) + (1 + rnd() % 100) * MS;
		assert_int_equal(wfi_xfer_submit(w.eng, &o, &jobs[i].x), 0);
		if (!(rnd() % 8) && jobs[i].x && !jobs[i].nr_done)
			wfi_xfer_cancel(w.eng, jobs[i].x);
		poll_eng(&w);
	}
	limit = wfi_now(w.env) + 120 * MS;
	while (left && wfi_now(w.env) < limit) {
		poll_eng(&w);
		wfi_sim_advance(w.sim, MS / 4);
		for (i = 0, left = 0; i < 40; i++)
			left += !jobs[i].nr_done;
	}
	assert_int_equal(left, 0);
	for (i = 0; i < 10; i++)
		poll_eng(&w);
	for (i = 0; i < 40; i++) {
		assert_int_equal(jobs[i].nr_done, 1);
		for (b = 0, failed = 0; b < nr_blocks[i]; b++)
			failed += jobs[i].results[b] != 0;
		assert_int_equal(jobs[i].res != 0, failed != 0);
		job_fini(&jobs[i]);
	}
	world_close(&w);
}

static void test_storm(void **state)
{
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 200; seed++)
		storm(seed);
}

/* bytes that are wrong arrive with a good result: this is what checksums are for */
static void test_wrong_bytes(void **state)
{
	struct wfi_fault_opts faults = {
		.seed = 3,
		.corrupt_ppm = 100000,
		.dup_ppm = 100000,
		.truncate_ppm = 100000,
	};
	struct wfi_fault_stats stats;
	struct world w;
	struct job j;
	unsigned round, wrong = 0;

	(void)state;
	world_open(&w, &faults);
	for (round = 0; round < 200; round++) {
		struct wfi_xfer_opts o;

		job_init(&w, &j, 1, 4096, 1);
		fill(w.remote, 4096);
		o = job_opts(&w, &j, WFI_XFER_READ, 1, 1);
		assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
		run_until_done(&w, &j);
		assert_int_equal(j.res, 0);
		wrong += !block_equal(&w, &j.pieces[0]);
		job_fini(&j);
	}
	wfi_fault_stats(w.fault, &stats);
	assert_true(stats.corrupted && stats.duplicated && stats.truncated);
	assert_int_equal(wrong, stats.corrupted + stats.duplicated + stats.truncated);
	world_close(&w);
}

static void test_merge(void **state)
{
	struct wfi_piece p[] = {
		{ (void *)100, 10, 0, 0, 5 }, { (void *)105, 15, 0, 0, 5 },
		{ (void *)110, 20, 0, 1, 5 }, { (void *)115, 25, 1, 1, 5 },
		{ (void *)120, 31, 1, 1, 5 }, { (void *)125, 36, 1, 1, 5 },
	};

	(void)state;
	assert_int_equal(wfi_pieces_merge(p, 6), 4);
	assert_int_equal(p[0].len, 10);
	assert_int_equal(p[1].len, 5);
	assert_int_equal(p[3].len, 10);
	assert_int_equal(p[3].remote, 31);
	assert_int_equal(wfi_pieces_merge(p, 0), 0);
}

/* ---- sums ---- */

static uint64_t bytes_summed;
static unsigned nr_copies;

static uint32_t sum_bytes(uint32_t sum, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	size_t i;

	bytes_summed += len;
	for (i = 0; i < len; i++)
		sum = sum * 31 + p[i] + 1;
	return sum;
}

static uint32_t sum_copy(uint32_t sum, void *dst, const void *src, size_t len, bool stream)
{
	(void)stream;
	nr_copies++;
	memcpy(dst, src, len);
	return sum_bytes(sum, src, len);
}

static uint32_t sum_runs(uint32_t sum, const struct wfi_copy_run *runs, unsigned nr)
{
	for (; nr--; runs++)
		sum = sum_copy(sum, runs->dst, runs->src, runs->len, false);
	return sum;
}

static const struct wfi_sum_ops sum_ops = { .sum = sum_bytes,
					    .copy = sum_copy,
					    .copy_runs = sum_runs };

static void sums_checked(struct world *w, enum wfi_xfer_dir dir, uint32_t nr, uint64_t len,
			 uint32_t cuts)
{
	uint32_t *sums = calloc(nr, sizeof(*sums)), i;
	struct wfi_xfer_opts o;
	struct job j;

	assert_non_null(sums);
	fill(w->local, nr * len);
	fill(w->remote, nr * len);
	memset(sums, 0x77, nr * sizeof(*sums));
	job_init(w, &j, nr, len, cuts);
	o = job_opts(w, &j, dir, nr * cuts, nr);
	o.sum_ops = &sum_ops;
	o.sums = sums;
	assert_int_equal(wfi_xfer_submit(w->eng, &o, &j.x), 0);
	run_until_done(w, &j);
	assert_int_equal(j.res, 0);
	for (i = 0; i < nr; i++) {
		assert_int_equal(j.results[i], 0);
		assert_int_equal(sums[i], sum_bytes(0, w->local + i * len, len));
		if (dir != WFI_XFER_SUM)
			assert_true(block_equal(w, &j.pieces[i * cuts]));
	}
	job_fini(&j);
	free(sums);
}

/* what the CPU reaches is summed up as it is copied; what is posted, afterwards; both in slices */
static void test_sums(void **state)
{
	const struct wfi_fault_opts posted = { .seed = 1 };
	struct world w;
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		world_open(&w, i ? &posted : NULL);
		nr_copies = 0;
		sums_checked(&w, WFI_XFER_WRITE, 100, 1000, 1);
		sums_checked(&w, WFI_XFER_READ, 100, 1000, 3);
		sums_checked(&w, WFI_XFER_READ, 2, SLICE - 1000, 2);
		sums_checked(&w, WFI_XFER_WRITE, 1, 2 * SLICE, 1);
		assert_true(i ? !nr_copies : nr_copies > 400);
		sums_checked(&w, WFI_XFER_SUM, 3, SLICE / 2, 2);
		world_close(&w);
	}
}

/* sums for nothing, or of nothing */
static void test_sums_refused(void **state)
{
	struct wfi_xfer_opts o;
	uint32_t sum;
	struct world w;
	struct job j;

	(void)state;
	world_open(&w, NULL);
	job_init(&w, &j, 1, 64, 1);
	o = job_opts(&w, &j, WFI_XFER_SUM, 1, 1);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	o.sums = &sum;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), -EINVAL);
	assert_int_equal(j.nr_done, 0);
	job_fini(&j);
	world_close(&w);
}

/* no poll sums up more than a slice, and who comes later has its turn in the next one */
static void test_sums_in_turns(void **state)
{
	const uint32_t nr = 8;
	struct wfi_xfer_opts o;
	uint32_t sums[8], i, polls = 0;
	struct world w;
	struct job j, other;

	(void)state;
	world_open(&w, NULL);
	job_init(&w, &j, nr, MEM / nr, 1);
	o = job_opts(&w, &j, WFI_XFER_SUM, nr, nr);
	o.sum_ops = &sum_ops;
	o.sums = sums;
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &j.x), 0);
	assert_non_null(j.x);
	bytes_summed = 0;
	poll_eng(&w);
	assert_in_range(bytes_summed, 1, SLICE);
	job_init(&w, &other, 1, 512 << 10, 1);
	o = job_opts(&w, &other, WFI_XFER_WRITE, 1, 1);
	assert_int_equal(wfi_xfer_submit(w.eng, &o, &other.x), 0);
	for (; !other.nr_done; polls++) {
		uint64_t before = bytes_summed;

		poll_eng(&w);
		assert_in_range(bytes_summed - before, 1, SLICE);
	}
	assert_in_range(polls, 1, 8);
	assert_int_equal(j.nr_done, 0);
	/* what was not reached has the status, what was is good */
	wfi_xfer_cancel(w.eng, j.x);
	run_until_done(&w, &j);
	assert_int_equal(j.res, -ECANCELED);
	for (i = 0; i < nr; i++)
		assert_int_equal(j.results[i],
				 (i + 1ull) * (MEM / nr) <= bytes_summed ? 0 : -ECANCELED);
	assert_int_equal(j.results[nr - 1], -ECANCELED);
	job_fini(&j);
	job_fini(&other);
	world_close(&w);
}

static int setup_gathering(void **state)
{
	(void)state;
	gathering = true;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),	      cmocka_unit_test(test_refused),
		cmocka_unit_test(test_fair),	      cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_stopped_peer),  cmocka_unit_test(test_late),
		cmocka_unit_test(test_op_errors),     cmocka_unit_test(test_storm),
		cmocka_unit_test(test_wrong_bytes),   cmocka_unit_test(test_merge),
		cmocka_unit_test(test_sums),	      cmocka_unit_test(test_sums_refused),
		cmocka_unit_test(test_sums_in_turns),
	};

	return cmocka_run_group_tests_name("posted", tests, NULL, NULL) |
	       cmocka_run_group_tests_name("gathered", tests, setup_gathering, NULL);
}
