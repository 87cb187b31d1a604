/* SPDX-License-Identifier: Apache-2.0 */
/* sums that a GPU makes of what lies in its memory, and transfers that are checked by them */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "tests/unit/cuda_rig.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/xfer.h"

#define NR 8u

static const struct wfi_gpu_shape layers = {
	.segment_bytes = 4096, .segment_stride = 262144, .block_stride = 4096, .nr_segments = 4
};
static const struct wfi_gpu_shape holes = {
	.segment_bytes = 1000, .segment_stride = 1333, .block_stride = 40000, .nr_segments = 13
};
static const struct wfi_gpu_shape *const shapes[] = { NULL, &layers, &holes };

/* ---- posts ---- */

static const uint32_t *done(struct rig *r, uint64_t cookie, uint32_t nr)
{
	struct weft_wc wc;
	int n;

	do
		n = weft_cq_poll(r->cqs[0], &wc, 1);
	while (!n && wfi_cuda_ep(r->ep)->rest.open);
	assert_int_equal(n, 1);
	assert_int_equal(wc.cookie, cookie);
	assert_int_equal(wc.status, 0);
	assert_int_equal(wc.idx, nr);
	return wc.data;
}

static void test_posts(void **state)
{
	struct rig *r = *state;

	for (unsigned n = 0; n < 4 * WFI_ARRAY_SIZE(shapes); n++) {
		struct weft_rkey *rkey = import(r, shapes[n / 4]);
		const struct weft_piece pieces[] = {
			{ r->host, 3 * 16384, 16384, rkey },
			{ r->host + 100001, 777, 333, rkey }, /* nothing is aligned */
			{ r->host + 50, 0, 0, rkey },
			{ r->host + 200000, 90000, 65536 + n, rkey },
		};
		const bool write = n % 2;
		const uint32_t *sums;

		choose(r, n % 4 < 2 ? UINT64_MAX : 0);
		fill(r->host, HOST_BYTES, n);
		fill(at(r->mem), GPU_BYTES, 100 + n);
		assert_int_equal(post(r, write, pieces, 4, n, WEFT_POST_SUMS), 0);
		sums = done(r, n, 4);
		assert_non_null(sums);
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(sums[i], wfi_crc32c(0, pieces[i].local, pieces[i].len));
		assert_int_equal(wfi_cuda_ep(r->ep)->gpu->free_tables, UINT32_MAX);
		/* nobody asked */
		assert_int_equal(post(r, write, pieces, 4, n, 0), 0);
		assert_null(done(r, n, 4));
		r->t->rkey_destroy(rkey);
	}
}

/* more parts than a table has; and no table, or no kernel */
static void test_no_sums(void **state)
{
	const struct wfi_gpu_shape shape = {
		.segment_bytes = 16, .segment_stride = 32, .block_stride = 16384, .nr_segments = 512
	};
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, &shape);
	const struct weft_piece piece = { r->host, 0, 16 * 8192, rkey };
	struct wfi_cuda_gpu *g = wfi_cuda_ep(r->ep)->gpu;
	const uint32_t *sums;

	choose(r, 0);
	fill(at(r->mem), GPU_BYTES, 5);
	assert_int_equal(post(r, false, &piece, 1, 1, WEFT_POST_SUMS), 0);
	sums = done(r, 1, 1);
	assert_non_null(sums);
	assert_int_equal(*sums, wfi_crc32c(0, r->host, piece.len));
	for (unsigned left = 0; left < 4; left++) {
		g->free_tables = (1u << left) - 1;
		assert_int_equal(post(r, false, &piece, 1, 2, WEFT_POST_SUMS), 0);
		assert_null(done(r, 2, 1));
		assert_int_equal(g->free_tables, (1u << left) - 1);
	}
	g->free_tables = UINT32_MAX;
	mock_cuda.fail_call = "cuLaunchKernel";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_RESOURCES;
	assert_int_equal(post(r, false, &piece, 1, 3, WEFT_POST_SUMS), 0);
	assert_null(done(r, 3, 1));
	mock_cuda.fail_call = NULL;
	assert_int_equal(g->free_tables, UINT32_MAX);
	r->t->rkey_destroy(rkey);
}

/* nothing moves, and what devices have written is seen first, where that takes a flush */
static void test_stay(void **state)
{
	struct rig *r = *state;

	for (unsigned n = 0; n < 2 * WFI_ARRAY_SIZE(shapes); n++) {
		struct weft_rkey *rkey = import(r, shapes[n / 2]);
		struct weft_piece pieces[] = {
			{ NULL, 3 * 16384, 16384, rkey },
			{ NULL, 777, 333, rkey },
			{ NULL, 0, 0, rkey },
			{ NULL, 90000, 65536 + n, rkey },
		};
		const uint32_t *sums;
		uint32_t seen[4];

		wfi_cuda_ep(r->ep)->gpu->gpu->flush = n % 2;
		fill(at(r->mem), GPU_BYTES, n);
		fill(r->host, HOST_BYTES, 200 + n);
		mock_cuda.flushed = mock_cuda.copies = 0;
		assert_int_equal(post(r, false, pieces, 4, n, WEFT_POST_SUMS | WEFT_POST_STAY), 0);
		assert_int_equal(mock_cuda.flushed, n % 2);
		assert_int_equal(mock_cuda.copies, 0);
		sums = done(r, n, 4);
		assert_non_null(sums);
		memcpy(seen, sums, sizeof(seen));
		/* as copies of the same bytes have it */
		for (unsigned i = 0; i < 4; i++)
			pieces[i].local = r->host + i * 100000;
		assert_int_equal(post(r, false, pieces, 4, n, WEFT_POST_SUMS), 0);
		assert_memory_equal(seen, done(r, n, 4), sizeof(seen));
		r->t->rkey_destroy(rkey);
	}
}

static void expect_refused(struct rig *r, uint64_t cookie, int status)
{
	struct weft_wc wc;

	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 1);
	assert_int_equal(wc.cookie, cookie);
	assert_int_equal(wc.status, status);
	assert_int_equal(wc.scope, WEFT_SCOPE_OP);
	assert_int_equal(wc.idx, 0);
	assert_null(wc.data);
}

/* what a call alone failed of loses no GPU: copies that were asked for before it go on */
static void test_launch_fails(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece piece = { r->host, 0, 4096, rkey };

	for (unsigned n = 0; n < 2; n++) {
		choose(r, n ? 0 : UINT64_MAX);
		mock_cuda.fail_res = WFI_CUDA_OPERATING_SYSTEM;
		mock_cuda.fail_call = "cuLaunchKernel";
		assert_int_equal(post(r, true, &piece, 1, n, WEFT_POST_SUMS), 0);
		mock_cuda.fail_call = NULL;
		/* who has no sums sums up himself */
		expect_wc(r, n, n ? 0 : -EIO, n ? WEFT_SCOPE_NONE : WEFT_SCOPE_OP, n);
		assert_false(wfi_cuda_ep(r->ep)->gpu->lost);
	}
	assert_int_equal(post(r, true, &piece, 1, 2, 0), 0);
	expect_wc(r, 2, 0, WEFT_SCOPE_NONE, 1);
	r->t->rkey_destroy(rkey);
}

/* nobody counts all the parts of segments that are as short as an engine likes */
static void test_short_segments(void **state)
{
	static const struct wfi_gpu_shape bytes = {
		.segment_bytes = 1, .segment_stride = 1, .block_stride = 1, .nr_segments = 1
	};
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, &bytes);
	struct weft_piece piece = { r->host, 0, WFI_CUDA_ITEMS, rkey };

	assert_int_equal(wfi_cuda_sums_tables(&piece, 1), 1);
	piece.len = WFI_CUDA_TABLES * WFI_CUDA_ITEMS;
	assert_int_equal(wfi_cuda_sums_tables(&piece, 1), WFI_CUDA_TABLES);
	piece.len = GPU_BYTES;
	assert_int_equal(wfi_cuda_sums_tables(&piece, 1), WFI_CUDA_TABLES + 1);
	piece.local = NULL;
	assert_int_equal(post(r, false, &piece, 1, 1, WEFT_POST_STAY | WEFT_POST_SUMS),
			 -EOPNOTSUPP);
	r->t->rkey_destroy(rkey);
}

static void test_stay_refused(void **state)
{
	static const struct {
		const char *call;
		int res, status;
	} faults[] = {
		{ "cuLaunchKernel", WFI_CUDA_LAUNCH_RESOURCES, -EIO },
		{ "cuFlushGPUDirectRDMAWrites", WFI_CUDA_NOT_SUPPORTED, -EOPNOTSUPP },
		{ "cuEventCreate", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM },
	};
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece pieces[] = { { NULL, 0, 4096, rkey },
					     { NULL, GPU_BYTES - 1, 2, rkey } };
	struct wfi_cuda_gpu *g = wfi_cuda_ep(r->ep)->gpu;
	const uint32_t flags = WEFT_POST_SUMS | WEFT_POST_STAY;
	const uint32_t *powers = g->sums.powers;

	/* none is free yet; there are no kernels; nobody wants sums */
	g->free_tables = 0;
	assert_int_equal(post(r, false, pieces, 1, 1, flags), -EAGAIN);
	g->free_tables = UINT32_MAX;
	g->sums.powers = NULL;
	assert_int_equal(post(r, false, pieces, 1, 1, flags), -EOPNOTSUPP);
	g->sums.powers = powers;
	assert_int_equal(post(r, false, pieces, 1, 1, WEFT_POST_STAY), -EINVAL);
	/* the second one is outside: then there are no sums of the first either */
	assert_int_equal(post(r, false, pieces, 2, 2, flags), 0);
	expect_refused(r, 2, -ERANGE);
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(faults); i++) {
		mock_cuda.fail_call = faults[i].call;
		mock_cuda.fail_res = faults[i].res;
		assert_int_equal(post(r, false, pieces, 1, 3 + i, flags), 0);
		mock_cuda.fail_call = NULL;
		expect_refused(r, 3 + i, faults[i].status);
		assert_int_equal(g->free_tables, UINT32_MAX);
	}
	r->t->rkey_destroy(rkey);
}

/* ---- transfers ---- */

struct xfer {
	struct wfi_xfer_engine *eng;
	struct weft_rkey *rkey;
	struct wfi_piece pieces[4 * NR];
	uint32_t nr_pieces;
	int32_t results[NR];
	uint32_t sums[NR];
	const struct weft_mr *mr;
	bool device_sums;
	unsigned done;
	int res;
};

static void xfer_done(void *ctx, int res)
{
	struct xfer *x = ctx;

	x->done++;
	x->res = res;
}

/* blocks of @len, each in @cuts pieces, every second place on the GPU */
static void xfer_open(struct rig *r, struct xfer *x, const struct wfi_gpu_shape *shape,
		      uint64_t len, unsigned cuts)
{
	const struct wfi_xfer_engine_opts eng = { .env = &r->env, .send_cqs = { r->cqs[0] } };

	memset(x, 0, sizeof(*x));
	assert_int_equal(wfi_xfer_engine_create(&eng, &x->eng), 0);
	x->rkey = import(r, shape);
	x->mr = r->mr;
	for (unsigned i = 0; i < NR; i++)
		for (unsigned k = 0; k < cuts; k++) {
			const uint64_t off = len / cuts * k;

			/* a hole on the host's side, so that pieces are not merged */
			x->pieces[x->nr_pieces++] = (struct wfi_piece){
				.local = r->host + i * (len + 64) + off + 8 * k,
				.remote = 2 * i * len + off,
				.len = k + 1 == cuts ? len - off : len / cuts,
				.block = i,
			};
		}
}

static int xfer_submit(struct rig *r, struct xfer *x, enum wfi_xfer_dir dir)
{
	const struct wfi_xfer_opts o = {
		.ep = r->ep,
		.dir = dir,
		.local_mr = x->mr,
		.rkeys = &x->rkey,
		.nr_rkeys = 1,
		.pieces = x->pieces,
		.nr_pieces = x->nr_pieces,
		.nr_blocks = NR,
		.results = x->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = x->sums,
		.device_sums = x->device_sums,
		.deadline_ns = wfi_now(&r->env) + 60 * WFI_NSEC_PER_SEC,
		.done = xfer_done,
		.ctx = x,
	};
	struct wfi_xfer *open;

	x->done = 0;
	memset(x->sums, 0xee, sizeof(x->sums));
	return wfi_xfer_submit(x->eng, &o, &open);
}

static void xfer_run(struct rig *r, struct xfer *x, enum wfi_xfer_dir dir)
{
	assert_int_equal(xfer_submit(r, x, dir), 0);
	while (!x->done)
		wfi_xfer_poll(x->eng, wfi_now(&r->env));
	assert_int_equal(x->done, 1);
}

static void xfer_close(struct rig *r, struct xfer *x)
{
	wfi_xfer_engine_destroy(x->eng);
	r->t->rkey_destroy(x->rkey);
}

static uint32_t block_sum(const struct xfer *x, unsigned block)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < x->nr_pieces; i++)
		if (x->pieces[i].block == block)
			sum = wfi_crc32c(sum, x->pieces[i].local, x->pieces[i].len);
	return sum;
}

static void test_transfers(void **state)
{
	static const uint64_t lens[] = { 30000, 16384, 13000 };
	struct rig *r = *state;
	struct xfer x;

	for (unsigned n = 0; n < 3 * 4 * 2; n++) {
		const unsigned shape = n % 3, cuts = 1 + n / 3 % 4, launches = mock_cuda.launches;

		xfer_open(r, &x, shapes[shape], lens[shape], cuts);
		fill(r->host, HOST_BYTES, n);
		fill(at(r->mem), GPU_BYTES, 100 + n);
		choose(r, 0);
		xfer_run(r, &x, n < 12 ? WFI_XFER_READ : WFI_XFER_WRITE);
		assert_int_equal(x.res, 0);
		for (unsigned i = 0; i < NR; i++)
			assert_int_equal(x.sums[i], block_sum(&x, i));
		/* by the GPU alone */
		assert_true(mock_cuda.launches > launches);
		xfer_close(r, &x);
	}
}

/* what arrives is not what was sent, whichever way: sums are of the GPU's side */
static void test_flipped(void **state)
{
	struct rig *r = *state;
	struct xfer x;

	xfer_open(r, &x, NULL, 16384, 1);
	choose(r, 0);
	fill(at(r->mem), GPU_BYTES, 1);
	mock_cuda.flip = true;
	xfer_run(r, &x, WFI_XFER_READ);
	assert_int_equal(x.sums[0], wfi_crc32c(0, at(r->mem), 16384));
	assert_int_not_equal(x.sums[0], block_sum(&x, 0));
	assert_int_equal(x.sums[1], block_sum(&x, 1));
	mock_cuda.flip = true;
	xfer_run(r, &x, WFI_XFER_WRITE);
	assert_int_not_equal(x.sums[0], block_sum(&x, 0));
	assert_int_equal(x.sums[1], block_sum(&x, 1));
	xfer_close(r, &x);
}

/* no table is free: all is summed up here. Copies fail: so do their blocks */
static void test_by_cpu(void **state)
{
	struct rig *r = *state;
	struct wfi_cuda_gpu *g;
	struct xfer x;

	xfer_open(r, &x, NULL, 16384, 2);
	g = wfi_cuda_ep(r->ep)->gpu;
	choose(r, 0);
	fill(at(r->mem), GPU_BYTES, 1);
	g->free_tables = 0;
	xfer_run(r, &x, WFI_XFER_READ);
	g->free_tables = UINT32_MAX;
	assert_int_equal(x.res, 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(x.sums[i], block_sum(&x, i));
	mock_cuda.fail_call = "cuMemcpyAsync";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	xfer_run(r, &x, WFI_XFER_READ);
	mock_cuda.fail_call = NULL;
	assert_int_equal(x.res, -ENOMEM);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(x.results[i], -ENOMEM);
	xfer_run(r, &x, WFI_XFER_READ);
	assert_int_equal(x.res, 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(x.sums[i], block_sum(&x, i));
	xfer_close(r, &x);
}

/* what lies there already, in pieces or whole */
static void test_there(void **state)
{
	struct rig *r = *state;
	struct xfer x;
	uint32_t sums[NR];

	for (unsigned n = 0; n < 9; n++) {
		xfer_open(r, &x, shapes[n % 3], 13000, 1 + n / 3);
		fill(at(r->mem), GPU_BYTES, n);
		choose(r, 0);
		xfer_run(r, &x, WFI_XFER_READ);
		memcpy(sums, x.sums, sizeof(sums));
		mock_cuda.copies = 0;
		xfer_run(r, &x, WFI_XFER_SUM_THERE);
		assert_int_equal(x.res, 0);
		assert_memory_equal(x.sums, sums, sizeof(sums));
		assert_int_equal(mock_cuda.copies, 0);
		xfer_close(r, &x);
	}
}

/* a kernel fails: so do its blocks, and no CPU looks for their bytes */
static void test_there_fails(void **state)
{
	struct rig *r = *state;
	struct xfer x;

	xfer_open(r, &x, NULL, 16384, 2);
	fill(r->host, HOST_BYTES, 1);
	mock_cuda.fail_call = "cuLaunchKernel";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_RESOURCES;
	xfer_run(r, &x, WFI_XFER_SUM_THERE);
	mock_cuda.fail_call = NULL;
	assert_int_equal(x.res, -EIO);
	for (unsigned i = 0; i < NR; i++) {
		assert_int_equal(x.results[i], -EIO);
		assert_int_equal(x.sums[i], 0);
	}
	xfer_close(r, &x);
}

/* where the CPU makes the sums, nobody makes them there */
static void test_there_none(void **state)
{
	const struct wfi_xfer_opts o = { .dir = WFI_XFER_SUM_THERE };
	struct rig *r = *state;
	struct wfi_xfer_opts bare = o;
	struct wfi_xfer *open;
	struct xfer x;

	xfer_open(r, &x, NULL, 16384, 1);
	bare.ep = r->ep;
	assert_int_equal(wfi_xfer_submit(x.eng, &bare, &open), -EOPNOTSUPP);
	r->dev->caps.flags &= ~(uint32_t)WEFT_CAP_SUMS;
	bare.sum_ops = &wfi_crc32c_sums;
	bare.sums = x.sums;
	assert_int_equal(wfi_xfer_submit(x.eng, &bare, &open), -EOPNOTSUPP);
	bare.dir = WFI_XFER_READ;
	bare.device_sums = true;
	assert_int_equal(wfi_xfer_submit(x.eng, &bare, &open), -EOPNOTSUPP);
	xfer_close(r, &x);
}

/* ---- within a GPU ---- */

static int gpu_reg(struct rig *r, uint64_t mem, uint64_t len, struct weft_mr **out)
{
	const struct weft_mr_opts opts = {
		.size = sizeof(opts),
		.addr = at(mem),
		.len = len,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.kind = WEFT_MR_GPU,
	};

	return r->t->mr_reg(r->dev, &opts, out);
}

static void gpu_free(struct rig *r, int gpu, uint64_t mem)
{
	struct CUctx_st *ctx;

	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[gpu]), 0);
	assert_int_equal(r->cuda->cuMemFree(mem), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
}

/* what comes from the GPU's own memory does not wait for what came over the bus and was asked for
 * before */
static void test_apart(void **state)
{
	struct rig *r = *state;
	const uint64_t mem = alloc_on(r, 0, 8192);
	struct weft_rkey *rkey = import(r, NULL);
	struct weft_piece hot = { at(mem), 65536, 4096, rkey }, cold = { r->host, 0, 4096, rkey };
	struct weft_post p = { .pieces = &hot, .nr_pieces = 1 };
	struct weft_mr *mr;
	struct weft_wc wc;

	assert_int_equal(gpu_reg(r, mem, 8192, &mr), 0);
	choose(r, 0);
	p.local_mr = mr;
	for (unsigned round = 0; round < 40; round++) {
		fill(at(mem), 4096, round);
		fill(r->host, 4096, round + 100);
		mock_cuda.hold = true;
		assert_int_equal(post(r, true, &cold, 1, 1, 0), 0);
		assert_int_equal(post(r, true, &cold, 1, 2, 0), 0);
		mock_cuda.hold = false;
		for (p.cookie = 3; p.cookie < 5; p.cookie++)
			assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
		for (unsigned i = 3; i < 5; i++)
			expect_wc(r, i, 0, WEFT_SCOPE_NONE, 1);
		assert_memory_equal(at(r->mem) + 65536, at(mem), 4096);
		assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
		mock_cuda_release();
		for (unsigned i = 1; i < 3; i++)
			expect_wc(r, i, 0, WEFT_SCOPE_NONE, 1);
		assert_memory_equal(at(r->mem), r->host, 4096);
		assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	}
	/* one that is lost ends each once */
	mock_cuda.hold = true;
	assert_int_equal(post(r, true, &cold, 1, 1, 0), 0);
	mock_cuda.hold = false;
	p.cookie = 2;
	assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
	p.cookie = 3;
	assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
	expect_wc(r, 2, 0, WEFT_SCOPE_NONE, 1);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_CONTEXT_DESTROYED;
	expect_wc(r, 1, -EIO, WEFT_SCOPE_EP, 1);
	expect_wc(r, 3, -ECANCELED, WEFT_SCOPE_EP, 1);
	mock_cuda.fail_call = NULL;
	expect_closed(r, -EIO);
	mock_cuda_release();
	r->t->mr_dereg(mr);
	r->t->rkey_destroy(rkey);
	gpu_free(r, 0, mem);
}

static void test_gpu_mr(void **state)
{
	struct rig *r = *state;
	const uint64_t mem = alloc_on(r, 0, 8192), other = alloc_on(r, 1, 8192);
	struct weft_rkey *rkey, *there;
	struct weft_mr *mr = NULL;
	struct weft_ep *ep = ep_new(r, 0);
	struct weft_piece piece = { at(mem), 0, 4096, NULL };
	struct weft_post p = { .pieces = &piece, .nr_pieces = 1 };

	/* of a GPU that is in use, and no memory of the host's */
	assert_int_equal(gpu_reg(r, mem, 8192, &mr), -ENOTCONN);
	rkey = import(r, NULL);
	assert_int_equal(gpu_reg(r, other, 8192, &mr), -ENOTCONN);
	assert_int_equal(gpu_reg(r, (uintptr_t)r->host, 8192, &mr), -ENOTCONN);
	assert_null(mr);
	assert_int_equal(gpu_reg(r, mem, 8192, &mr), 0);
	/* nothing of it goes to another GPU, nor through an endpoint that is for none yet */
	p.local_mr = mr;
	assert_int_equal(weft_ep_post_write(ep, &p), -EINVAL);
	assert_int_equal(import_at(r, ep, other, 8192, NULL, &there), 0);
	piece.rkey = there;
	assert_int_equal(weft_ep_post_write(ep, &p), -EINVAL);
	assert_int_equal(weft_ep_post_read(ep, &p), -EINVAL);
	r->t->rkey_destroy(there);
	r->t->rkey_destroy(rkey);
	r->t->mr_dereg(mr);
	r->t->ep_destroy(ep);
	gpu_free(r, 0, mem);
	gpu_free(r, 1, other);
}

/* as test_transfers(), but the local side is the GPU's as well; in @mem */
static uint64_t within_open(struct rig *r, struct xfer *x, const struct wfi_gpu_shape *shape,
			    uint64_t len, unsigned cuts)
{
	const uint64_t mem = alloc_on(r, 0, GPU_BYTES);
	struct weft_mr *mr;

	xfer_open(r, x, shape, len, cuts);
	assert_int_equal(gpu_reg(r, mem, GPU_BYTES, &mr), 0);
	x->mr = mr;
	x->device_sums = true;
	for (unsigned i = 0; i < x->nr_pieces; i++)
		x->pieces[i].local = at(mem) + ((uint8_t *)x->pieces[i].local - r->host);
	return mem;
}

static void within_close(struct rig *r, struct xfer *x, uint64_t mem)
{
	r->t->mr_dereg((struct weft_mr *)x->mr);
	xfer_close(r, x);
	gpu_free(r, 0, mem);
}

static void test_within(void **state)
{
	static const uint64_t lens[] = { 30000, 16384, 13000 };
	struct rig *r = *state;
	uint64_t mem;
	struct xfer x;

	for (unsigned n = 0; n < 3 * 4 * 2; n++) {
		const unsigned shape = n % 3, cuts = 1 + n / 3 % 4;

		mem = within_open(r, &x, shapes[shape], lens[shape], cuts);
		fill(at(mem), GPU_BYTES, n);
		fill(at(r->mem), GPU_BYTES, 100 + n);
		choose(r, n % 2 ? UINT64_MAX : 0);
		xfer_run(r, &x, n < 12 ? WFI_XFER_READ : WFI_XFER_WRITE);
		assert_int_equal(x.res, 0);
		for (unsigned i = 0; i < NR; i++)
			assert_int_equal(x.sums[i], block_sum(&x, i));
		within_close(r, &x, mem);
	}
}

/* sums of the GPU's, or none: a block without is not good */
static void test_device_sums(void **state)
{
	struct rig *r = *state;
	struct wfi_cuda_gpu *g;
	uint64_t mem;
	struct xfer x;

	mem = within_open(r, &x, NULL, 16384, 2);
	g = wfi_cuda_ep(r->ep)->gpu;
	choose(r, 0);
	fill(at(mem), GPU_BYTES, 1);
	mock_cuda.flip = true;
	xfer_run(r, &x, WFI_XFER_WRITE);
	assert_int_equal(x.res, 0);
	assert_int_not_equal(x.sums[0], block_sum(&x, 0));
	for (unsigned i = 1; i < NR; i++)
		assert_int_equal(x.sums[i], block_sum(&x, i));
	g->free_tables = 0;
	xfer_run(r, &x, WFI_XFER_WRITE);
	g->free_tables = UINT32_MAX;
	assert_int_equal(x.res, -EAGAIN);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(x.results[i], -EAGAIN);
	mock_cuda.fail_call = "cuMemcpyAsync";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	xfer_run(r, &x, WFI_XFER_WRITE);
	assert_int_equal(x.res, -ENOMEM);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(x.results[i], -ENOMEM);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_FAILED;
	xfer_run(r, &x, WFI_XFER_WRITE);
	mock_cuda.fail_call = NULL;
	assert_int_equal(x.res, -EIO);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(x.results[i], -EIO);
	within_close(r, &x, mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_posts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_sums, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transfers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flipped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_by_cpu, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stay_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_launch_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_short_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_there_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_there_none, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gpu_mr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_within, setup, teardown),
		cmocka_unit_test_setup_teardown(test_device_sums, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
