/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers over several rails, each a device behind a fault injector of its own, under a simulated
 * clock: all arrives over what is left, nothing lands late, fast rails get more, those that come
 * back begin gently.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/env.h"
#include "weft_internal/rail.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

#define MEM (16u << 20)
#define CHUNK (64u << 10)
#define BLOCK (16u << 10)
#define BLOCKS (MEM / BLOCK)
#define PER_BLOCK 4u /* pieces */
#define MS WFI_NSEC_PER_MSEC
#define PATIENCE (20 * MS)
#define GRACE (10 * MS)
#define RAILS 3u

struct line {
	struct weft_transport *fault;
	struct weft_device *dev;
	struct weft_cq *send_cq, *recv_cq, *peer_cq;
	struct weft_mr *mr;
	struct weft_ep *ep, *peer;
	struct weft_rkey *rkey;
	int rail; /* -1: removed */
	bool closed;
};

struct world {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_xfer_engine *eng;
	struct wfi_rails *rails;
	struct line lines[RAILS];
	unsigned nr;
	uint8_t *local, *remote;
};

struct job {
	struct wfi_rails_xfer *x;
	struct wfi_piece *pieces;
	int32_t *results;
	unsigned nr_blocks, nr_done, nr_late;
	int res, late_res;
};

static uint64_t rng;

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* ---- the world ---- */

static void line_connect(struct world *w, struct line *l)
{
	struct weft_ep_opts o = { .size = sizeof(o), .depth = 8 };
	struct weft_ep_peer p = { .size = sizeof(p) };
	struct weft_rkey_src src = { .size = sizeof(src), .fd = -1 };
	struct weft_transport *t = l->fault;
	struct weft_ep_addr addr, peer_addr;
	struct weft_export ex;

	o.send_cq = l->send_cq;
	o.recv_cq = l->recv_cq;
	assert_int_equal(t->ep_create(l->dev, &o, &l->ep), 0);
	o.send_cq = o.recv_cq = l->peer_cq;
	assert_int_equal(t->ep_create(l->dev, &o, &l->peer), 0);
	assert_int_equal(t->ep_addr(l->peer, &peer_addr), 0);
	assert_int_equal(t->ep_addr(l->ep, &addr), 0);
	p.blob = peer_addr.blob;
	p.blob_len = peer_addr.blob_len;
	assert_int_equal(t->ep_connect(l->ep, &p), 0);
	p.blob = addr.blob;
	p.blob_len = addr.blob_len;
	assert_int_equal(t->ep_connect(l->peer, &p), 0);
	assert_int_equal(t->mr_export(l->mr, NULL, &ex), 0);
	src.blob = ex.blob;
	src.blob_len = ex.blob_len;
	assert_int_equal(t->rkey_import(l->ep, &src, &l->rkey), 0);
	l->closed = false;
	l->rail = wfi_rails_add(w->rails, l->ep, NULL);
	assert_true(l->rail >= 0);
}

static void line_disconnect(struct line *l)
{
	l->fault->rkey_destroy(l->rkey);
	l->fault->ep_destroy(l->ep);
	l->fault->ep_destroy(l->peer);
	l->ep = NULL;
}

static void line_open(struct world *w, struct line *l, uint64_t seed)
{
	struct weft_cq_opts cq = { .size = sizeof(cq), .depth = 64 };
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = MEM, .fd = -1 };
	struct wfi_fault_opts f = { .seed = seed };

	assert_int_equal(wfi_fault_create(wfi_transport_find(NULL, "loop"), &f, &l->fault), 0);
	assert_int_equal(l->fault->device_open(l->fault, w->env, NULL, &l->dev), 0);
	assert_int_equal(l->fault->cq_create(l->dev, &cq, &l->send_cq), 0);
	assert_int_equal(l->fault->cq_create(l->dev, &cq, &l->recv_cq), 0);
	assert_int_equal(l->fault->cq_create(l->dev, &cq, &l->peer_cq), 0);
	mr.addr = w->remote;
	mr.access = WEFT_ACCESS_REMOTE_READ;
	assert_int_equal(l->fault->mr_reg(l->dev, &mr, &l->mr), 0);
	line_connect(w, l);
}

static void world_open(struct world *w, unsigned nr, uint64_t seed)
{
	struct wfi_xfer_engine_opts eng = { .grace_ns = GRACE };
	struct wfi_rails_opts opts = { .chunk_bytes = CHUNK, .patience_ns = PATIENCE };
	unsigned i;

	memset(w, 0, sizeof(*w));
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	assert_int_equal(wfi_sim_create(seed, &w->sim), 0);
	w->env = wfi_sim_node(w->sim, 0);
	w->local = calloc(1, MEM);
	w->remote = malloc(MEM);
	assert_true(w->local && w->remote);
	for (i = 0; i < MEM / 8; i++)
		((uint64_t *)w->remote)[i] = rnd();
	eng.env = opts.env = w->env;
	assert_int_equal(wfi_xfer_engine_create(&eng, &w->eng), 0);
	opts.xfer = w->eng;
	assert_int_equal(wfi_rails_create(&opts, &w->rails), 0);
	w->nr = nr;
	for (i = 0; i < nr; i++)
		line_open(w, &w->lines[i], seed + i);
}

static void world_close(struct world *w)
{
	unsigned i;

	for (i = 0; i < w->nr; i++) {
		struct line *l = &w->lines[i];

		if (l->ep)
			line_disconnect(l);
		l->fault->mr_dereg(l->mr);
		l->fault->cq_destroy(l->send_cq);
		l->fault->cq_destroy(l->recv_cq);
		l->fault->cq_destroy(l->peer_cq);
		l->fault->device_close(l->dev);
		wfi_fault_destroy(l->fault);
	}
	wfi_rails_destroy(w->rails);
	wfi_xfer_engine_destroy(w->eng);
	free(w->local);
	free(w->remote);
	wfi_sim_destroy(w->sim);
}

/* what the owner of endpoints does: one that is closed goes, and a new one comes if @again */
static void lines_poll(struct world *w, bool again)
{
	struct weft_wc wcs[16];
	unsigned i;
	int n, k;

	for (i = 0; i < w->nr; i++) {
		struct line *l = &w->lines[i];

		if (!l->ep)
			continue;
		n = weft_cq_poll(l->recv_cq, wcs, 16);
		for (k = 0; k < n; k++)
			l->closed |= wcs[k].op == WEFT_WC_CLOSED && wcs[k].ep == l->ep;
		weft_cq_poll(l->peer_cq, wcs, 16);
		if (l->closed && l->rail >= 0) {
			wfi_rails_remove(w->rails, (unsigned)l->rail);
			l->rail = -1;
		}
		if (l->rail >= 0 || wfi_rails_open(w->rails, l->ep))
			continue;
		line_disconnect(l);
		if (again)
			line_connect(w, l);
	}
}

static void turn(struct world *w, uint64_t ns, bool again)
{
	wfi_sim_advance(w->sim, ns);
	wfi_xfer_poll(w->eng, wfi_now(w->env));
	wfi_rails_poll(w->rails, wfi_now(w->env));
	lines_poll(w, again);
}

/* ---- transfers ---- */

static void job_done(void *ctx, int res)
{
	struct job *j = ctx;

	j->nr_done++;
	j->res = res;
}

static void job_late(void *ctx, int res)
{
	struct job *j = ctx;

	assert_int_equal(j->nr_done, 0);
	j->nr_late++;
	j->late_res = res;
}

/* blocks [first, first + nr), each in pieces whose local places are turned round */
static int job_start(struct world *w, struct job *j, unsigned first, unsigned nr, uint64_t timeout)
{
	const uint64_t len = BLOCK / PER_BLOCK;
	struct wfi_rail_mem mem[WFI_RAILS_MAX] = { { .rkeys = NULL } };
	struct wfi_xfer_opts o = { .dir = WFI_XFER_READ };
	unsigned i, k;

	*j = (struct job){ .nr_blocks = nr };
	j->pieces = calloc((size_t)nr * PER_BLOCK, sizeof(*j->pieces));
	j->results = calloc(nr, sizeof(*j->results));
	assert_true(j->pieces && j->results);
	for (i = 0; i < nr; i++)
		for (k = 0; k < PER_BLOCK; k++)
			j->pieces[i * PER_BLOCK + k] = (struct wfi_piece){
				.local = w->local + (uint64_t)(first + i) * BLOCK +
					 (PER_BLOCK - 1 - k) * len,
				.remote = (uint64_t)(first + i) * BLOCK + k * len,
				.block = nr - 1 - i,
				.len = len,
			};
	for (i = 0; i < w->nr; i++)
		if (w->lines[i].rail >= 0)
			mem[w->lines[i].rail].rkeys = &w->lines[i].rkey;
	o.pieces = j->pieces;
	o.nr_pieces = nr * PER_BLOCK;
	o.nr_blocks = nr;
	o.nr_rkeys = 1;
	o.results = j->results;
	o.deadline_ns = wfi_now(w->env) + timeout;
	o.done = job_done;
	o.late = job_late;
	o.ctx = j;
	return wfi_rails_submit(w->rails, &o, mem, &j->x);
}

static bool block_right(const struct world *w, unsigned at)
{
	const uint64_t len = BLOCK / PER_BLOCK, base = (uint64_t)at * BLOCK;
	unsigned k;

	for (k = 0; k < PER_BLOCK; k++)
		if (memcmp(w->local + base + (PER_BLOCK - 1 - k) * len, w->remote + base + k * len,
			   len))
			return false;
	return true;
}

/* Return: how many blocks arrived; those that say so are right */
static unsigned job_check(const struct world *w, const struct job *j, unsigned first)
{
	unsigned i, nr = 0;

	for (i = 0; i < j->nr_blocks; i++) {
		if (j->results[j->nr_blocks - 1 - i])
			continue;
		assert_true(block_right(w, first + i));
		nr++;
	}
	assert_int_equal(j->res == 0, nr == j->nr_blocks);
	return nr;
}

static void job_free(struct job *j)
{
	free(j->pieces);
	free(j->results);
}

/* Return: how long it took */
static uint64_t job_wait(struct world *w, struct job *j, bool again)
{
	const uint64_t start = wfi_now(w->env);
	unsigned i;

	for (i = 0; i < 100000 && !j->nr_done; i++)
		turn(w, 20 * WFI_NSEC_PER_USEC, again);
	assert_int_equal(j->nr_done, 1);
	return wfi_now(w->env) - start;
}

static struct wfi_rail_stat line_stat(const struct world *w, unsigned i)
{
	struct wfi_rail_stat st;

	wfi_rails_stat(w->rails, (unsigned)w->lines[i].rail, &st);
	return st;
}

/* ---- tests ---- */

/* a completion takes up to this long */
static void slow(struct line *l, uint64_t ns)
{
	const struct wfi_fault_opts f = { .delay_ppm = 1000000, .delay_max_ns = ns };

	wfi_fault_set(l->fault, &f);
}

static void test_split(void **state)
{
	struct world w;
	struct job j;

	(void)state;
	world_open(&w, 2, 1);
	slow(&w.lines[0], MS);
	slow(&w.lines[1], MS);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	job_wait(&w, &j, false);
	assert_int_equal(job_check(&w, &j, 0), BLOCKS);
	assert_true(line_stat(&w, 0).bytes > MEM / 4);
	assert_true(line_stat(&w, 1).bytes > MEM / 4);
	assert_int_equal(line_stat(&w, 0).bytes + line_stat(&w, 1).bytes, MEM);
	job_free(&j);
	world_close(&w);
}

static void test_speed(void **state)
{
	struct world w;
	struct job j;
	uint64_t both, fast;

	(void)state;
	world_open(&w, 2, 2);
	slow(&w.lines[0], MS);
	slow(&w.lines[1], 10 * MS);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	both = job_wait(&w, &j, false);
	assert_int_equal(job_check(&w, &j, 0), BLOCKS);
	assert_true(line_stat(&w, 0).bytes > 4 * line_stat(&w, 1).bytes);
	assert_true(line_stat(&w, 1).bytes > 0);
	job_free(&j);
	wfi_rails_remove(w.rails, (unsigned)w.lines[1].rail);
	w.lines[1].rail = -1;
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	fast = job_wait(&w, &j, false);
	/* the slow one is no burden */
	assert_true(both < fast + 12 * MS);
	job_free(&j);
	world_close(&w);
}

/* one that becomes slow on the way is given less from then on */
static void test_slows(void **state)
{
	uint64_t before;
	struct world w;
	struct job j;
	unsigned i;

	(void)state;
	world_open(&w, 2, 3);
	slow(&w.lines[0], MS);
	slow(&w.lines[1], MS);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	for (i = 0; i < 1000 && line_stat(&w, 1).bytes < MEM / 8; i++)
		turn(&w, 20 * WFI_NSEC_PER_USEC, false);
	slow(&w.lines[1], 15 * MS);
	before = line_stat(&w, 1).bytes;
	job_wait(&w, &j, false);
	assert_int_equal(job_check(&w, &j, 0), BLOCKS);
	assert_true(line_stat(&w, 1).bytes - before < MEM / 4);
	job_free(&j);
	world_close(&w);
}

/* one is gone on the way: the rest goes over the other. It comes back, and begins with one chunk */
static void test_dies(void **state)
{
	const struct wfi_fault_opts drop = { .drop_ppm = 1000000 };
	struct wfi_rail_stat st;
	struct world w;
	struct job j;
	unsigned i;

	(void)state;
	world_open(&w, 2, 4);
	slow(&w.lines[0], MS);
	slow(&w.lines[1], MS);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	for (i = 0; i < 1000 && line_stat(&w, 1).bytes < MEM / 8; i++)
		turn(&w, 20 * WFI_NSEC_PER_USEC, false);
	wfi_fault_set(w.lines[1].fault, &drop);
	job_wait(&w, &j, false);
	assert_int_equal(job_check(&w, &j, 0), BLOCKS);
	for (i = 0; i < 100 && w.lines[1].ep; i++)
		turn(&w, MS, false);
	assert_null(w.lines[1].ep);
	assert_int_equal(wfi_rails_nr(w.rails), 1);
	job_free(&j);

	slow(&w.lines[1], MS);
	line_connect(&w, &w.lines[1]);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	do {
		st = line_stat(&w, 1);
		if (!st.bytes)
			assert_true(st.open_bytes <= CHUNK + BLOCK);
		turn(&w, 20 * WFI_NSEC_PER_USEC, false);
	} while (!j.nr_done);
	assert_int_equal(job_check(&w, &j, 0), BLOCKS);
	assert_true(line_stat(&w, 1).bytes > MEM / 16);
	job_free(&j);
	world_close(&w);
}

/* one says nothing any more: what it had goes elsewhere once that is fenced, long before the end */
static void test_silent(void **state)
{
	const struct wfi_fault_opts stop = { .stop_ppm = 1000000 };
	struct world w;
	struct job j;

	(void)state;
	world_open(&w, 2, 5);
	slow(&w.lines[0], MS);
	wfi_fault_set(w.lines[1].fault, &stop);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 10000 * MS), 0);
	assert_true(job_wait(&w, &j, false) < 100 * MS + PATIENCE + GRACE);
	assert_int_equal(job_check(&w, &j, 0), BLOCKS);
	job_free(&j);
	world_close(&w);
}

/* a chunk that no shutdown ends: it is told when the time of all is up, or who waits gives up, and
 * once; it is over when it has ended */
static void test_never(void **state)
{
	const struct wfi_fault_opts never = { .never = true }, calm = { .seed = 1 };

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		const bool cancelled = i & 1, early = i & 4;
		const unsigned nr = i & 2 ? 2 : 1;
		struct world w;
		struct job j;
		uint64_t start;

		world_open(&w, 2, 5);
		start = wfi_now(w.env);
		for (unsigned k = 0; k < nr; k++)
			wfi_fault_set(w.lines[k].fault, &never);
		assert_int_equal(job_start(&w, &j, 0, BLOCKS, 500 * MS), 0);
		/* the patience with a chunk is over, or not */
		while (wfi_now(w.env) < start + (early ? 10 : 450) * MS)
			turn(&w, MS, false);
		assert_int_equal(j.nr_late, 0);
		if (cancelled)
			wfi_rails_cancel(j.x);
		while (wfi_now(w.env) < start + 500 * MS && !cancelled)
			turn(&w, MS, false);
		for (unsigned ms = 0; ms < 2 * GRACE / MS + 3; ms++)
			turn(&w, MS, false);
		assert_int_equal(j.nr_late, 1);
		assert_int_equal(j.late_res, cancelled ? -ECANCELED : -ETIMEDOUT);
		assert_int_equal(j.nr_done, 0);
		for (unsigned k = 0; k < nr; k++)
			wfi_fault_set(w.lines[k].fault, &calm);
		job_wait(&w, &j, false);
		assert_int_equal(j.nr_late, 1);
		job_check(&w, &j, 0);
		job_free(&j);
		world_close(&w);
	}
}

/* nothing is left: by the deadline, and with errors */
static void test_none(void **state)
{
	const struct wfi_fault_opts drop = { .drop_ppm = 1000000 };
	struct wfi_xfer_opts o = { .dir = WFI_XFER_READ };
	struct wfi_rail_mem mem[WFI_RAILS_MAX] = { { .rkeys = NULL } };
	struct wfi_rails_xfer *x;
	struct world w;
	struct job j;

	(void)state;
	world_open(&w, 2, 6);
	assert_int_equal(wfi_rails_submit(w.rails, &o, mem, &x), -ENOTCONN);
	wfi_fault_set(w.lines[0].fault, &drop);
	wfi_fault_set(w.lines[1].fault, &drop);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 500 * MS), 0);
	assert_true(job_wait(&w, &j, false) < 500 * MS + GRACE + MS);
	assert_int_equal(job_check(&w, &j, 0), 0);
	job_free(&j);
	world_close(&w);
}

/* what was asked is wrong: no other rail is tried */
static void test_final(void **state)
{
	struct world w;
	struct job j;

	(void)state;
	world_open(&w, 2, 7);
	assert_int_equal(job_start(&w, &j, 0, 4, 500 * MS), 0);
	job_wait(&w, &j, false);
	assert_int_equal(job_check(&w, &j, 0), 4);
	job_free(&j);
	w.lines[0].rkey->access = 0;
	w.lines[1].rkey->access = 0;
	assert_int_equal(job_start(&w, &j, 0, 4, 500 * MS), 0);
	job_wait(&w, &j, false);
	assert_int_equal(j.res, -EACCES);
	assert_int_equal(line_stat(&w, 0).failures + line_stat(&w, 1).failures, 0);
	job_free(&j);
	world_close(&w);
}

static void test_cancel(void **state)
{
	struct world w;
	struct job j;
	unsigned i;

	(void)state;
	world_open(&w, 2, 8);
	slow(&w.lines[0], 5 * MS);
	slow(&w.lines[1], 5 * MS);
	assert_int_equal(job_start(&w, &j, 0, BLOCKS, 1000 * MS), 0);
	for (i = 0; i < 100; i++)
		turn(&w, 20 * WFI_NSEC_PER_USEC, false);
	wfi_rails_cancel(j.x);
	assert_true(job_wait(&w, &j, false) < 2 * GRACE);
	assert_int_equal(j.res, -ECANCELED);
	assert_true(job_check(&w, &j, 0) < BLOCKS);
	job_free(&j);
	world_close(&w);
}

/* ---- all at once ---- */

#define JOBS 6u
#define JOB_BLOCKS (BLOCKS / JOBS)

static void mishap(struct line *l)
{
	struct wfi_fault_opts f = { .delay_ppm = 500000, .delay_max_ns = 1 + rnd() % (4 * MS) };

	switch (rnd() % 8) {
	case 0:
		f.drop_ppm = 100000;
		break;
	case 1:
		f.stop_ppm = 50000;
		break;
	case 2:
		f.ep_ppm = 100000;
		break;
	case 3:
		f.op_ppm = 200000;
		break;
	case 4:
		f.eagain_ppm = 300000;
		f.eagain_run = 10;
		break;
	case 5:
		f.late_ppm = 300000;
		f.late_max_ns = 1 + rnd() % (60 * MS);
		f.stop_ppm = 20000;
		break;
	default:
		break;
	}
	wfi_fault_set(l->fault, &f);
}

struct late {
	struct job j;
	uint64_t end_ns; /* by when it has to be over; 0: none is open */
};

/* what is over is its owner's: written to here, and nothing else may change it */
static void reuse(struct world *w, struct late *l, unsigned first)
{
	job_check(w, &l->j, first);
	memset(w->local + (uint64_t)first * BLOCK, 0xee, JOB_BLOCKS * BLOCK);
	job_free(&l->j);
	l->end_ns = 0;
}

static bool untouched(const struct world *w, unsigned first)
{
	const uint8_t *at = w->local + (uint64_t)first * BLOCK;

	return at[0] == 0xee && !memcmp(at, at + 1, JOB_BLOCKS * BLOCK - 1);
}

static void seed_run(uint64_t seed, unsigned *arrived)
{
	struct late jobs[JOBS] = { 0 };
	struct world w;
	unsigned i, k;

	world_open(&w, 1 + seed % RAILS, seed);
	memset(w.local, 0xee, MEM);
	for (i = 0; i < 1500; i++) {
		if (!(i % 50))
			mishap(&w.lines[rnd() % w.nr]);
		k = (unsigned)(rnd() % JOBS);
		if (!jobs[k].end_ns && i < 1200) {
			const uint64_t timeout = 1 + rnd() % (80 * MS);

			assert_true(untouched(&w, k * JOB_BLOCKS));
			if (job_start(&w, &jobs[k].j, k * JOB_BLOCKS, JOB_BLOCKS, timeout))
				job_free(&jobs[k].j);
			else
				jobs[k].end_ns = wfi_now(w.env) + timeout + GRACE + 2 * MS;
		} else if (jobs[k].end_ns && !(rnd() % 64)) {
			wfi_rails_cancel(jobs[k].j.x);
		}
		turn(&w, rnd() % (i < 1200 ? MS / 2 : MS), true);
		for (k = 0; k < JOBS; k++) {
			if (!jobs[k].end_ns)
				continue;
			assert_true(jobs[k].j.nr_done || wfi_now(w.env) <= jobs[k].end_ns);
			if (!jobs[k].j.nr_done)
				continue;
			*arrived += !jobs[k].j.res;
			reuse(&w, &jobs[k], k * JOB_BLOCKS);
		}
	}
	for (k = 0; k < JOBS; k++) {
		assert_int_equal(jobs[k].end_ns, 0);
		assert_true(untouched(&w, k * JOB_BLOCKS));
	}
	world_close(&w);
}

static void test_seeds(void **state)
{
	const char *asked = getenv("WEFT_TEST_SEED");
	const uint64_t first = asked ? strtoull(asked, NULL, 10) : 1;
	const uint64_t nr = asked ? 1 : 24;
	unsigned arrived = 0;
	uint64_t seed;

	(void)state;
	for (seed = first; seed < first + nr; seed++) {
		fprintf(stderr, "WEFT_TEST_SEED=%llu\n", (unsigned long long)seed);
		seed_run(seed, &arrived);
	}
	assert_true(arrived);
	printf("%u transfers arrived whole\n", arrived);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),  cmocka_unit_test(test_speed),
		cmocka_unit_test(test_slows),  cmocka_unit_test(test_dies),
		cmocka_unit_test(test_silent), cmocka_unit_test(test_never),
		cmocka_unit_test(test_none),   cmocka_unit_test(test_final),
		cmocka_unit_test(test_cancel), cmocka_unit_test(test_seeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
