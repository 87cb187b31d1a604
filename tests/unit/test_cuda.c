/* SPDX-License-Identifier: Apache-2.0 */
/* the provider for GPU memory, over a mocked driver: what moves, what is refused, what is lost */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "tests/unit/cuda_rig.h"

/* ---- bytes ---- */

static void test_both_ways(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece pieces[] = {
		{ r->host, 4096, 8192, rkey },
		{ r->host + 100001, 33, 777, rkey }, /* nothing is aligned */
		{ r->host + 50, 0, 0, rkey },
		{ r->host + 200000, 300000, 65536, rkey },
	};

	for (unsigned kernels = 0; kernels < 2; kernels++) {
		const unsigned launches = mock_cuda.launches, copies = mock_cuda.copies;

		choose(r, kernels ? UINT64_MAX : 0);
		fill(r->host, HOST_BYTES, kernels);
		memset(at(r->mem), 0xee, GPU_BYTES);
		assert_int_equal(post(r, true, pieces, 4, 7, 0), 0);
		expect_wc(r, 7, 0, WEFT_SCOPE_NONE, 4);
		for (unsigned i = 0; i < 4; i++)
			assert_memory_equal(at(r->mem) + pieces[i].remote, pieces[i].local,
					    pieces[i].len);
		assert_int_equal(at(r->mem)[32], 0xee);
		assert_int_equal(at(r->mem)[33 + 777], 0xee);
		memset(r->host, 0, HOST_BYTES);
		assert_int_equal(post(r, false, pieces, 4, 8, 0), 0);
		expect_wc(r, 8, 0, WEFT_SCOPE_NONE, 4);
		for (unsigned i = 0; i < 4; i++)
			assert_memory_equal(at(r->mem) + pieces[i].remote, pieces[i].local,
					    pieces[i].len);
		assert_int_equal(mock_cuda.launches - launches, kernels ? 2 : 0);
		assert_int_equal(mock_cuda.copies - copies, kernels ? 0 : 6);
	}
	r->t->rkey_destroy(rkey);
}

/* blocks in segments, against a walk byte by byte */
static void test_segments(void **state)
{
	static const struct wfi_gpu_shape shapes[] = {
		{ .segment_bytes = 512,
		  .segment_stride = 65536,
		  .block_stride = 512,
		  .nr_segments = 8 }, /* layers apart */
		{ .segment_bytes = 48,
		  .segment_stride = 64,
		  .block_stride = 1000,
		  .nr_segments = 3 }, /* with holes */
		{ .segment_bytes = 4096,
		  .segment_stride = 0,
		  .block_stride = 4096,
		  .nr_segments = 1 },
	};
	struct rig *r = *state;

	for (unsigned n = 0; n < 2 * WFI_ARRAY_SIZE(shapes); n++) {
		const struct wfi_gpu_shape *s = &shapes[n / 2];
		const uint64_t block = s->segment_bytes * s->nr_segments;
		struct weft_rkey *rkey = import(r, s);
		struct weft_piece pieces[3];
		uint64_t last;

		choose(r, n % 2 ? UINT64_MAX : 0);
		assert_int_equal(rkey->len % block, 0);
		fill(r->host, HOST_BYTES, n);
		memset(at(r->mem), 0xee, GPU_BYTES);
		pieces[0] = (struct weft_piece){ r->host, 2 * block, 3 * block, rkey };
		pieces[1] = (struct weft_piece){ r->host + 100000, 7 * block + 13, 59, rkey };
		pieces[2] = (struct weft_piece){ r->host + 200000, rkey->len - block, block, rkey };
		assert_int_equal(post(r, true, pieces, 3, n, 0), 0);
		expect_wc(r, n, 0, WEFT_SCOPE_NONE, 3);
		for (unsigned p = 0; p < 3; p++)
			for (uint64_t i = 0; i < pieces[p].len; i++) {
				const uint64_t off = pieces[p].remote + i, in = off % block;

				assert_int_equal(
					at(r->mem)[off / block * s->block_stride +
						   in / s->segment_bytes * s->segment_stride +
						   in % s->segment_bytes],
					((uint8_t *)pieces[p].local)[i]);
			}
		memset(r->host, 0, HOST_BYTES);
		assert_int_equal(post(r, false, pieces, 3, n, 0), 0);
		expect_wc(r, n, 0, WEFT_SCOPE_NONE, 3);
		last = (rkey->len / block - 1) * s->block_stride +
		       (s->nr_segments - 1) * s->segment_stride + s->segment_bytes - 1;
		assert_int_equal(r->host[200000 + block - 1], at(r->mem)[last]);
		r->t->rkey_destroy(rkey);
	}
}

/* more runs than a table has, and than all have */
static void test_many_runs(void **state)
{
	const struct wfi_gpu_shape shape = {
		.segment_bytes = 16, .segment_stride = 32, .block_stride = 16384, .nr_segments = 512
	};
	static const unsigned by_copies[] = { 32768, 32768 - 2048, 0 };
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, &shape);
	struct weft_piece pieces[64];
	struct wfi_cuda_gpu *g = wfi_cuda_ep(r->ep)->gpu;

	for (unsigned i = 0; i < 64; i++)
		pieces[i] = (struct weft_piece){ r->host + i * 8192, i * 8192, 8192, rkey };
	for (unsigned tables = 0; tables < 3; tables++) {
		const unsigned copies = mock_cuda.copies;

		choose(r, UINT64_MAX);
		fill(r->host, HOST_BYTES, tables);
		g->free_tables = tables == 2 ? UINT32_MAX : tables;
		assert_int_equal(post(r, true, pieces, 64, 1, 0), 0);
		expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 64);
		assert_int_equal(g->free_tables, tables == 2 ? UINT32_MAX : tables);
		memset(r->host, 0, HOST_BYTES);
		g->free_tables = UINT32_MAX;
		assert_int_equal(post(r, false, pieces, 64, 1, 0), 0);
		expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 64);
		assert_int_equal(mock_cuda.copies - copies, by_copies[tables]);
		for (unsigned i = 0; i < 64; i++)
			assert_memory_equal(at(r->mem) + i * 16384 + 511 * 32,
					    r->host + i * 8192 + 511 * 16, 16);
	}
	/* a block of more runs than a table has room for */
	pieces[0].len = 64 * 8192;
	mock_cuda.copies = mock_cuda.launches = 0;
	memset(r->host, 0, HOST_BYTES);
	assert_int_equal(post(r, false, pieces, 1, 1, 0), 0);
	expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 1);
	assert_int_equal(mock_cuda.copies, 0);
	assert_int_equal(mock_cuda.launches, 16);
	for (unsigned i = 0; i < 32768; i++)
		assert_memory_equal(at(r->mem + i / 512 * 16384 + i % 512 * 32), r->host + i * 16,
				    16);
	r->t->rkey_destroy(rkey);
}

/* many runs by the copy engine are asked for over several turns */
static void test_sliced(void **state)
{
	const struct wfi_gpu_shape shape = {
		.segment_bytes = 16, .segment_stride = 32, .block_stride = 16384, .nr_segments = 512
	};
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, &shape);
	const struct weft_piece pieces[2] = { { r->host, 0, 8192, rkey },
					      { r->host + 8192, 8192, 1024, rkey } };
	struct weft_wc wc;

	choose(r, 0);
	fill(r->host, HOST_BYTES, 3);
	mock_cuda.copies = 0;
	assert_int_equal(post(r, true, pieces, 2, 1, 0), 0);
	for (unsigned i = 1; i < 5; i++) {
		assert_int_equal(mock_cuda.copies, i * WFI_CUDA_COPIES);
		/* what comes behind it waits */
		assert_int_equal(post(r, true, pieces, 1, 2, 0), -EAGAIN);
		if (i < 4)
			assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	}
	expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 2);
	assert_int_equal(mock_cuda.copies, 512 + 64);
	for (unsigned i = 0; i < 512 + 64; i++)
		assert_memory_equal(at(r->mem + i / 512 * 16384 + i % 512 * 32), r->host + i * 16,
				    16);
	/* a copy that fails on its way, and an endpoint that is closed: where that ends is known */
	assert_int_equal(post(r, true, pieces, 2, 3, 0), 0);
	mock_cuda.fail_call = "cuMemcpyAsync";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	expect_wc(r, 3, -ENOMEM, WEFT_SCOPE_OP, 0);
	mock_cuda.fail_call = NULL;
	mock_cuda.copies = 0;
	assert_int_equal(post(r, true, pieces, 2, 4, 0), 0);
	r->t->ep_shutdown(r->ep);
	expect_wc(r, 4, -ECANCELED, WEFT_SCOPE_OP, 0);
	/* one of this turn was the one that failed */
	assert_int_equal(mock_cuda.copies, WFI_CUDA_COPIES - 1);
	expect_closed(r, 0);
	r->t->rkey_destroy(rkey);
}

/* ---- order and fence ---- */

static void test_fence(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece piece = { r->host, 0, 4096, rkey };
	struct weft_wait wait;
	struct weft_wc wc;

	choose(r, 0);
	assert_int_equal(r->t->cq_arm(r->cqs[0], &wait, 1), 0);
	mock_cuda.hold = true;
	fill(r->host, 4096, 1);
	assert_int_equal(post(r, true, &piece, 1, 1, WEFT_POST_QUIET), 0);
	assert_int_equal(post(r, true, &piece, 1, 2, 0), 0);
	assert_int_equal(r->t->cq_arm(r->cqs[0], &wait, 1), -EAGAIN);
	r->t->ep_shutdown(r->ep);
	r->t->ep_shutdown(r->ep);
	assert_int_equal(post(r, true, &piece, 1, 3, 0), -ENOTCONN);
	/* the copy engine may still read our memory: nobody is told that it does not */
	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	assert_int_equal(weft_cq_poll(r->cqs[1], &wc, 1), 0);
	mock_cuda_release();
	expect_wc(r, 2, 0, WEFT_SCOPE_NONE, 1);
	expect_closed(r, 0);
	assert_memory_equal(at(r->mem), r->host, 4096);
	assert_int_equal(r->t->cq_arm(r->cqs[0], &wait, 1), 0);
	r->t->rkey_destroy(rkey);
}

static void test_depth(void **state)
{
	struct rig *r = *state;
	struct weft_ep *first = r->ep;
	struct weft_rkey *rkey;
	struct weft_piece piece = { r->host, 0, 64, NULL };

	r->ep = ep_new(r, 2);
	rkey = import(r, NULL);
	choose(r, 0);
	piece.rkey = rkey;
	mock_cuda.hold = true;
	assert_int_equal(post(r, true, &piece, 1, 1, 0), 0);
	assert_int_equal(post(r, false, &piece, 1, 2, 0), 0);
	assert_int_equal(post(r, true, &piece, 1, 3, 0), -EAGAIN);
	mock_cuda_release();
	expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 1);
	expect_wc(r, 2, 0, WEFT_SCOPE_NONE, 1);
	r->t->rkey_destroy(rkey);
	r->t->ep_destroy(r->ep);
	r->ep = first;
}

/* ---- bad posts ---- */

static void test_bad_pieces(void **state)
{
	struct rig *r = *state;
	struct weft_ep *other = ep_new(r, 0);
	struct weft_rkey *rkey = import(r, NULL), *foreign;
	struct weft_piece pieces[513];
	struct weft_post none = { .pieces = pieces, .nr_pieces = 1 };

	assert_int_equal(import_at(r, other, r->mem, 4096, NULL, &foreign), 0);
	for (unsigned i = 0; i < 513; i++)
		pieces[i] = (struct weft_piece){ r->host + i * 64, i * 64, 64, rkey };
	assert_int_equal(weft_ep_post_write(r->ep, &none), -EINVAL);
	assert_int_equal(post(r, true, pieces, 513, 1, 0), -EINVAL);
	pieces[1].remote = GPU_BYTES - 63;
	assert_int_equal(post(r, true, pieces, 3, 1, WEFT_POST_QUIET), 0);
	expect_wc(r, 1, -ERANGE, WEFT_SCOPE_OP, 1);
	pieces[1].remote = 64;
	pieces[2].rkey = foreign;
	assert_int_equal(post(r, true, pieces, 3, 2, 0), 0);
	expect_wc(r, 2, -EACCES, WEFT_SCOPE_OP, 2);
	pieces[0].local = r->host + HOST_BYTES - 63;
	assert_int_equal(post(r, true, pieces, 3, 3, 0), 0);
	expect_wc(r, 3, -EFAULT, WEFT_SCOPE_OP, 0);
	assert_int_equal(post(r, true, pieces, 0, 4, 0), 0);
	expect_wc(r, 4, 0, WEFT_SCOPE_NONE, 0);
	r->t->rkey_destroy(foreign);
	r->t->rkey_destroy(rkey);
	r->t->ep_destroy(other);
}

/* what one call fails with costs its piece, and no more */
static void test_copy_fails(void **state)
{
	static const struct {
		const char *call;
		uint64_t small;
	} rows[] = {
		{ "cuMemcpyAsync", 0 },
		{ "cuLaunchKernel", UINT64_MAX },
		{ "cuEventCreate", 0 },
	};
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece piece = { r->host, 0, 64, rkey };

	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		choose(r, rows[i].small);
		mock_cuda.fail_call = rows[i].call;
		mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
		assert_int_equal(post(r, true, &piece, 1, i, 0), 0);
		expect_wc(r, i, -ENOMEM, WEFT_SCOPE_OP, 0);
		assert_non_null(strstr(said, "no memory left"));
		mock_cuda.fail_call = NULL;
		assert_int_equal(post(r, true, &piece, 1, i, 0), 0);
		expect_wc(r, i, 0, WEFT_SCOPE_NONE, 1);
	}
	r->t->rkey_destroy(rkey);
}

/* ---- GPUs that fail ---- */

static uint64_t later_ns;

static uint64_t now_later(struct wfi_env *env)
{
	(void)env;
	return later_ns;
}

/* and @anew: whether another context is made for the next region */
static void lose_by(struct rig *r, const char *call, int res, bool anew)
{
	struct weft_rkey *rkey = import(r, NULL), *again = NULL;
	struct wfi_cuda_gpu *was = wfi_cuda_ep(r->ep)->gpu;
	const struct weft_piece piece = { r->host, 0, 64, rkey };
	struct weft_ep *fresh;
	struct weft_wc wc[4];
	int nr, status = 0;

	choose(r, 0);
	mock_cuda.fail_call = call;
	mock_cuda.fail_res = res;
	assert_int_equal(post(r, true, &piece, 1, 1, 0), 0);
	assert_int_equal(post(r, true, &piece, 1, 2, 0), 0);
	nr = weft_cq_poll(r->cqs[0], wc, 4);
	assert_int_equal(nr, 2);
	for (int i = 0; i < nr; i++) {
		assert_int_equal(wc[i].cookie, i + 1);
		assert_true(wc[i].status < 0);
		status = wc[i].scope == WEFT_SCOPE_EP && !status ? wc[i].status : status;
	}
	assert_int_equal(status, -EIO);
	mock_cuda.fail_call = NULL;
	assert_non_null(strstr(said, anew ? "the next one that is registered opens it anew"
					  : "restart the node to use it again"));
	assert_int_equal(post(r, true, &piece, 1, 3, 0), -ENOTCONN);
	expect_closed(r, anew ? -EIO : -ENOTRECOVERABLE);
	/* nothing more is asked of it */
	fresh = ep_new(r, 0);
	assert_int_equal(import_at(r, fresh, r->mem, 4096, NULL, &again),
			 anew ? 0 : -ENOTRECOVERABLE);
	assert_int_equal(again != NULL, anew);
	assert_true(was->lost);
	if (anew)
		assert_ptr_not_equal(wfi_cuda_ep(fresh)->gpu, was);
	r->t->rkey_destroy(again);
	if (anew) {
		r->t->ep_destroy(fresh);
		fresh = ep_new(r, 0);
	}
	r->t->rkey_destroy(rkey);
	r->t->ep_destroy(r->ep);
	r->ep = fresh;
}

static void test_second_gpu(struct rig *r)
{
	const uint64_t mem = alloc_on(r, 1, 4096);
	struct weft_rkey *rkey;
	struct weft_piece piece = { r->host, 0, 4096, NULL };
	struct CUctx_st *ctx;

	assert_int_equal(import_at(r, r->ep, mem, 4096, NULL, &rkey), 0);
	piece.rkey = rkey;
	fill(r->host, 4096, 5);
	assert_int_equal(post(r, true, &piece, 1, 9, 0), 0);
	expect_wc(r, 9, 0, WEFT_SCOPE_NONE, 1);
	assert_memory_equal(at(mem), r->host, 4096);
	r->t->rkey_destroy(rkey);
	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[1]), 0);
	assert_int_equal(r->cuda->cuMemFree(mem), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
}

static void test_lost_in_query(void **state)
{
	lose_by(*state, "cuEventQuery", WFI_CUDA_ILLEGAL_ADDRESS, false);
	test_second_gpu(*state);
}

static void test_lost_in_record(void **state)
{
	lose_by(*state, "cuEventRecord", WFI_CUDA_CONTEXT_DESTROYED, true);
	test_second_gpu(*state);
}

/* as long as nobody knows when what was asked for ends, it has not; and the GPU is not lost */
static void test_unmarked(void **state)
{
	static const char *const calls[] = { "cuEventRecord", "cuEventQuery" };
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece piece = { r->host, 0, 64, rkey };
	struct weft_wc wc;

	for (unsigned i = 0; i < WFI_ARRAY_SIZE(calls); i++) {
		mock_cuda.fail_call = calls[i];
		mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
		assert_int_equal(post(r, true, &piece, 1, i, 0), 0);
		for (unsigned k = 0; k < 3; k++)
			assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
		assert_false(wfi_cuda_ep(r->ep)->gpu->lost);
		mock_cuda.fail_call = NULL;
		assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), i);
		if (!i)
			expect_wc(r, i, 0, WEFT_SCOPE_NONE, 1);
	}
	r->t->rkey_destroy(rkey);
}

static void test_lost_in_copy(void **state)
{
	lose_by(*state, "cuMemcpyAsync", WFI_CUDA_INVALID_CONTEXT, true);
	test_second_gpu(*state);
}

/* errors after which copies may go on: what is under way has not ended before it has, and others of
 * the process are asked for nothing more */
static void test_doubt(void **state)
{
	static const int errors[] = { WFI_CUDA_ECC, WFI_CUDA_NVLINK, WFI_CUDA_UNKNOWN };
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL), *again = NULL;
	const struct weft_piece piece = { r->host, 0, 64, rkey };
	struct weft_ep *fresh = ep_new(r, 0);
	struct weft_wc wc;

	choose(r, 0);
	assert_int_equal(post(r, true, &piece, 1, 1, 0), 0);
	assert_int_equal(post(r, true, &piece, 1, 2, 0), 0);
	mock_cuda.fail_call = "cuEventQuery";
	for (unsigned i = 0; i < 10; i++) {
		*said = 0;
		mock_cuda.fail_res = errors[i % WFI_ARRAY_SIZE(errors)];
		assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
		/* said once */
		assert_int_equal(!!strstr(said, "what is under way there may go on"), !i);
	}
	assert_false(wfi_cuda_ep(r->ep)->gpu->lost);
	mock_cuda.fail_call = NULL;
	assert_int_equal(import_at(r, fresh, r->mem, 4096, NULL, &again), -ENOTRECOVERABLE);
	expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 1);
	/* or until an error comes that does end them */
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_FAILED;
	expect_wc(r, 2, -EIO, WEFT_SCOPE_EP, 1);
	mock_cuda.fail_call = NULL;
	expect_closed(r, -ENOTRECOVERABLE);
	r->t->rkey_destroy(rkey);
	r->t->ep_destroy(r->ep);
	r->ep = fresh;
	test_second_gpu(r);
}

/* ---- and come back ---- */

/* memory moves, over an endpoint of its own, and then the context is gone. Return: as import */
static int serve_and_lose(struct rig *r)
{
	struct weft_rkey *rkey;
	struct weft_piece piece = { r->host, 0, 4096, NULL };
	struct weft_ep *was = r->ep;
	int ret;

	r->ep = ep_new(r, 0);
	ret = import_at(r, r->ep, r->mem, 4096, NULL, &rkey);
	if (!ret) {
		piece.rkey = rkey;
		fill(r->host, 4096, (unsigned)(later_ns / WFI_NSEC_PER_SEC));
		assert_int_equal(post(r, true, &piece, 1, 1, 0), 0);
		expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 1);
		assert_memory_equal(at(r->mem), r->host, 4096);
		assert_int_equal(post(r, true, &piece, 1, 2, 0), 0);
		mock_cuda.fail_call = "cuEventQuery";
		mock_cuda.fail_res = WFI_CUDA_CONTEXT_DESTROYED;
		expect_wc(r, 2, -EIO, WEFT_SCOPE_EP, 1);
		mock_cuda.fail_call = NULL;
		expect_closed(r, -EIO);
		r->t->rkey_destroy(rkey);
	}
	r->t->ep_destroy(r->ep);
	r->ep = was;
	return ret;
}

/* at once, then after pauses that grow; one that has served for long is as good as new */
static void test_paced(void **state)
{
	static const struct {
		unsigned at_s;
		int ret;
	} rows[] = {
		{ 100, 0 }, { 100, 0 },	      { 100, -EAGAIN }, { 101, 0 },	  { 102, -EAGAIN },
		{ 103, 0 }, { 106, -EAGAIN }, { 107, 0 },	{ 114, -EAGAIN }, { 115, 0 },
		{ 400, 0 }, { 400, -EAGAIN }, { 401, 0 },
	};
	struct rig *r = *state;
	struct wfi_clock_ops clock = *r->env.clock;
	const struct wfi_clock_ops *real = r->env.clock;

	clock.now_ns = now_later;
	r->env.clock = &clock;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		later_ns = rows[i].at_s * WFI_NSEC_PER_SEC;
		assert_int_equal(serve_and_lose(r), rows[i].ret);
	}
	r->env.clock = real;
}

/* an endpoint that nothing was posted to finds that its GPU has gone when something is; a region
 * there wants another endpoint; host memory is pinned anew */
static void test_replaced(void **state)
{
	struct rig *r = *state;
	struct weft_ep *idle = ep_new(r, 0);
	struct weft_rkey *old, *none = NULL;
	struct weft_piece piece = { r->host, 0, 4096, NULL };
	struct wfi_cuda_gpu *was;

	assert_int_equal(import_at(r, idle, r->mem, 4096, NULL, &old), 0);
	was = wfi_cuda_ep(idle)->gpu;
	assert_ptr_equal(wfi_cuda_mr(r->mr)->home, was);
	assert_int_equal(serve_and_lose(r), 0);
	assert_int_equal(import_at(r, idle, r->mem, 4096, NULL, &none), -ENOTCONN);
	assert_ptr_not_equal(wfi_cuda_mr(r->mr)->home, was);
	assert_true(wfi_cuda_is_pinned(wfi_cuda_mr(r->mr)));
	assert_int_equal(serve_and_lose(r), 0);
	assert_false(wfi_cuda_is_pinned(wfi_cuda_mr(r->mr)));
	piece.rkey = old;
	r->t->ep_destroy(r->ep);
	r->ep = idle;
	assert_int_equal(post(r, true, &piece, 1, 5, 0), 0);
	expect_wc(r, 5, -EIO, WEFT_SCOPE_EP, 1);
	expect_closed(r, -EIO);
	r->t->rkey_destroy(old);
}

/* ---- imports ---- */

static void test_import(void **state)
{
	static const struct wfi_gpu_shape bad[] = {
		{ .nr_segments = 4, .segment_stride = 64, .block_stride = 64 },
		{ .nr_segments = 4, .segment_bytes = 64, .segment_stride = 64 },
		{ .nr_segments = 2,
		  .segment_bytes = 64,
		  .segment_stride = GPU_BYTES - 63,
		  .block_stride = 64 },
		{ .nr_segments = UINT32_MAX,
		  .segment_bytes = 64,
		  .segment_stride = UINT64_MAX / 2,
		  .block_stride = 64 },
		{ .nr_segments = 1, .segment_bytes = UINT64_MAX, .block_stride = 1 },
		{ .nr_segments = 1u << 31,
		  .segment_bytes = 1 << 19,
		  .segment_stride = 0,
		  .block_stride = 1 },
	};
	struct rig *r = *state;
	const uint64_t mem = alloc_on(r, 1, 4096);
	struct weft_rkey *rkey = NULL;
	struct CUctx_st *ctx;

	for (unsigned i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		assert_int_equal(import_at(r, r->ep, r->mem, GPU_BYTES, &bad[i], &rkey), -EINVAL);
		assert_non_null(strstr(said, "segments"));
	}
	/* an endpoint is for one GPU */
	assert_null(wfi_cuda_ep(r->ep)->gpu);
	assert_int_equal(import_at(r, r->ep, mem, 4096, NULL, &rkey), 0);
	r->t->rkey_destroy(rkey);
	*said = 0;
	assert_int_equal(import_at(r, r->ep, r->mem, 4096, NULL, &rkey), -EXDEV);
	assert_string_equal(said, "");
	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[1]), 0);
	assert_int_equal(r->cuda->cuMemFree(mem), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
}

static void test_import_malformed(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_source from = { .memory = { .len = 64, .uuid = { 9 } } };
	struct weft_rkey_src good = {
		.size = sizeof(good),
		.kind = WEFT_RKEY_GPU,
		.access = WEFT_ACCESS_REMOTE_READ,
		.fd = -1,
		.pid = getpid(),
		.blob = &from,
		.blob_len = sizeof(from),
	};
	struct weft_rkey_src src;
	struct weft_rkey *rkey;

	src = good;
	src.kind = WEFT_RKEY_PROCESS;
	assert_int_equal(r->t->rkey_import(r->ep, &src, &rkey), -EINVAL);
	src = good;
	src.blob_len--;
	assert_int_equal(r->t->rkey_import(r->ep, &src, &rkey), -EINVAL);
	src = good;
	src.access = 0;
	assert_int_equal(r->t->rkey_import(r->ep, &src, &rkey), -EINVAL);
	src = good;
	src.pid = 0;
	assert_int_equal(r->t->rkey_import(r->ep, &src, &rkey), -EINVAL);
	assert_int_equal(r->t->rkey_import(r->ep, &good, &rkey), -ENODEV);
	assert_non_null(strstr(said, "does not see (2 are): see CUDA_VISIBLE_DEVICES"));
}

/* a GPU that can't be opened leaves nothing behind, and may be tried again */
static void test_open_fails(void **state)
{
	static const struct {
		const char *call;
		int res;
		int err;
	} rows[] = {
		{ "cuDevicePrimaryCtxRetain", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM },
		{ "cuDevicePrimaryCtxRetain", WFI_CUDA_DEVICE_UNAVAILABLE, -ENODEV },
		{ "cuStreamCreate", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM },
		{ "cuMemHostAlloc", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM },
		{ "cuMemAlloc", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM },
		{ "cuMemcpyAsync", WFI_CUDA_ECC, -EIO },
		{ "cuLaunchKernel", WFI_CUDA_LAUNCH_FAILED, -EIO },
		{ "cuEventSynchronize", WFI_CUDA_LAUNCH_TIMEOUT, -EIO },
		{ "cuModuleLoadData", WFI_CUDA_NO_BINARY, -ENOEXEC },
	};
	struct rig *r = *state;
	struct weft_rkey *rkey = NULL;
	struct wfi_clock_ops clock = *r->env.clock;
	const struct wfi_clock_ops *real = r->env.clock;

	clock.now_ns = now_later;
	r->env.clock = &clock;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		later_ns += 1000 * WFI_NSEC_PER_SEC;
		mock_cuda.fail_call = rows[i].call;
		mock_cuda.fail_res = rows[i].res;
		assert_int_equal(import_at(r, r->ep, r->mem, 4096, NULL, &rkey), rows[i].err);
		assert_int_equal(mock_cuda_refs(), 2);
		assert_int_equal(mock_cuda_held(), 1);
		assert_true(strlen(said) > 10);
		/* what may have taken long is not tried by each who asks */
		if (rows[i].err == -EIO)
			assert_int_equal(import_at(r, r->ep, r->mem, 4096, NULL, &rkey), -EAGAIN);
	}
	later_ns += 1000 * WFI_NSEC_PER_SEC;
	mock_cuda.fail_call = NULL;
	assert_int_equal(import_at(r, r->ep, r->mem, 4096, NULL, &rkey), 0);
	r->env.clock = real;
	r->t->rkey_destroy(rkey);
}

/* ---- host memory ---- */

static void test_pinned_later(void **state)
{
	struct rig *r = *state;
	struct weft_mr_opts opts = { .size = sizeof(opts),
				     .len = 4096,
				     .access = WEFT_ACCESS_LOCAL_WRITE };
	struct weft_rkey *rkey = import(r, NULL);
	struct weft_mr *mr;

	assert_true(wfi_container_of(r->mr, struct wfi_cuda_mr, base)->pinned);
	opts.addr = malloc(4096);
	assert_int_equal(r->t->mr_reg(r->dev, &opts, &mr), 0);
	assert_false(wfi_container_of(mr, struct wfi_cuda_mr, base)->pinned);
	r->t->rkey_destroy(import(r, NULL));
	assert_true(wfi_container_of(mr, struct wfi_cuda_mr, base)->pinned);
	r->t->mr_dereg(mr);
	free(opts.addr);
	opts.kind = WEFT_MR_DMABUF;
	opts.addr = r->host;
	assert_int_equal(r->t->mr_reg(r->dev, &opts, &mr), -EOPNOTSUPP);
	r->t->rkey_destroy(rkey);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_ways),      TEST(segments),	  TEST(many_runs),
		TEST(sliced),	      TEST(fence),	  TEST(depth),
		TEST(bad_pieces),     TEST(copy_fails),	  TEST(lost_in_query),
		TEST(lost_in_record), TEST(unmarked),	  TEST(lost_in_copy),
		TEST(doubt),	      TEST(import),	  TEST(import_malformed),
		TEST(open_fails),     TEST(pinned_later), TEST(paced),
		TEST(replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
