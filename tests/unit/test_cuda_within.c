/* SPDX-License-Identifier: Apache-2.0 */
/* copies from region to region of two endpoints, as of two engines: within a GPU and between two */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/unit/cuda_rig.h"

/* the other engine's memory */
struct far {
	uint64_t mem;
	struct weft_ep *ep;
	struct weft_rkey *rkey;
	struct weft_mr *mr;
};

static int far_mr(struct rig *r, const struct weft_rkey *rkey, struct weft_mr **out)
{
	const struct weft_mr_opts opts = {
		.size = sizeof(opts),
		.kind = WEFT_MR_RKEY,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.rkey = rkey,
	};

	return r->t->mr_reg(r->dev, &opts, out);
}

static void far_open(struct rig *r, struct far *f, int gpu, const struct wfi_gpu_shape *shape)
{
	f->mem = alloc_on(r, gpu, GPU_BYTES);
	f->ep = ep_new(r, 0);
	assert_int_equal(import_at(r, f->ep, f->mem, GPU_BYTES, shape, &f->rkey), 0);
	assert_int_equal(far_mr(r, f->rkey, &f->mr), 0);
	assert_int_equal(f->mr->len, f->rkey->len);
}

static void far_close(struct rig *r, struct far *f)
{
	struct CUctx_st *ctx;

	r->t->mr_dereg(f->mr);
	r->t->rkey_destroy(f->rkey);
	r->t->ep_destroy(f->ep);
	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[0]), 0);
	assert_int_equal(r->cuda->cuMemFree(f->mem), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
}

static int far_read(struct rig *r, const struct far *f, const struct weft_piece *pieces,
		    uint32_t nr, uint64_t cookie, uint32_t flags)
{
	const struct weft_post p = {
		.pieces = pieces,
		.nr_pieces = nr,
		.local_mr = f->mr,
		.cookie = cookie,
		.flags = flags,
	};

	return weft_ep_post_read(r->ep, &p);
}

static uint64_t place(const struct wfi_gpu_shape *s, uint64_t off)
{
	const uint64_t block = s->segment_bytes * s->nr_segments, in = off % (block ? block : 1);

	if (!block)
		return off;
	return off / block * s->block_stride + in / s->segment_bytes * s->segment_stride +
	       in % s->segment_bytes;
}

static const struct wfi_gpu_shape shapes[] = {
	{ .nr_segments = 0 },
	{ .segment_bytes = 512, .segment_stride = 65536, .block_stride = 512, .nr_segments = 8 },
	{ .segment_bytes = 48, .segment_stride = 64, .block_stride = 1000, .nr_segments = 3 },
};

/* whatever the segments of either side are, by the copy engine and by kernels, sums and all */
static void copy_all(struct rig *r, unsigned a, unsigned b, int gpu, bool kernels)
{
	const struct wfi_gpu_shape *from = &shapes[a], *to = &shapes[b];
	struct weft_rkey *rkey = import(r, from->nr_segments ? from : NULL);
	struct weft_piece pieces[3];
	unsigned launches;
	struct far f;

	far_open(r, &f, gpu, to->nr_segments ? to : NULL);
	launches = mock_cuda.launches;
	choose(r, kernels ? UINT64_MAX : 0);
	fill(at(r->mem), GPU_BYTES, a * 3 + b);
	memset(at(f.mem), 0xee, GPU_BYTES);
	pieces[0] = (struct weft_piece){ (char *)f.mr->addr + 8192, 4096, 12288, rkey };
	pieces[1] = (struct weft_piece){ (char *)f.mr->addr + 20501, 17003, 59, rkey };
	pieces[2] = (struct weft_piece){ f.mr->addr, 0, 144, rkey };
	assert_int_equal(far_read(r, &f, pieces, 3, 7, WEFT_POST_SUMS), 0);
	expect_wc(r, 7, 0, WEFT_SCOPE_NONE, 3);
	for (unsigned p = 0; p < 3; p++)
		for (uint64_t i = 0; i < pieces[p].len; i++) {
			const uint64_t off = (uintptr_t)pieces[p].local - (uintptr_t)f.mr->addr + i;

			assert_int_equal(at(f.mem)[place(to, off)],
					 at(r->mem)[place(from, pieces[p].remote + i)]);
		}
	/* sums of both sides, and the copies; between GPUs neither */
	assert_int_equal(mock_cuda.launches - launches, gpu ? 0 : kernels ? 3 : 2);
	far_close(r, &f);
	r->t->rkey_destroy(rkey);
}

static void test_shapes(void **state)
{
	struct rig *r = *state;

	for (unsigned n = 0; n < 36; n++)
		copy_all(r, n / 2 % 3, n / 6 % 3, n >= 18, n % 2);
}

/* what arrives is not what was there: the piece is named, and those before it are good */
static void test_flipped(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	struct weft_piece pieces[2];
	struct far f;

	far_open(r, &f, 0, NULL);
	choose(r, 0);
	fill(at(r->mem), GPU_BYTES, 1);
	for (unsigned i = 0; i < 2; i++)
		pieces[i] =
			(struct weft_piece){ (char *)f.mr->addr + i * 4096, i * 4096, 4096, rkey };
	for (unsigned sums = 0; sums < 2; sums++) {
		mock_cuda.flip = true;
		assert_int_equal(far_read(r, &f, pieces, 2, 1, sums ? WEFT_POST_SUMS : 0), 0);
		expect_wc(r, 1, sums ? -EBADMSG : 0, sums ? WEFT_SCOPE_OP : WEFT_SCOPE_NONE,
			  sums ? 0 : 2);
	}
	/* without a table nobody can say */
	wfi_cuda_ep(r->ep)->gpu->free_tables = 1;
	mock_cuda.flip = true;
	assert_int_equal(far_read(r, &f, pieces, 2, 1, WEFT_POST_SUMS), 0);
	expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 2);
	assert_int_equal(wfi_cuda_ep(r->ep)->gpu->free_tables, 1);
	wfi_cuda_ep(r->ep)->gpu->free_tables = UINT32_MAX;
	far_close(r, &f);
	r->t->rkey_destroy(rkey);
}

static void test_refused(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	struct weft_mr_opts opts = { .size = sizeof(opts),
				     .kind = WEFT_MR_RKEY,
				     .access = WEFT_ACCESS_LOCAL_WRITE };
	struct weft_piece piece;
	struct weft_mr *mr;
	struct far f;

	far_open(r, &f, 0, NULL);
	assert_int_equal(far_mr(r, NULL, &mr), -EINVAL);
	opts.rkey = f.rkey;
	opts.len = 5;
	assert_int_equal(r->t->mr_reg(r->dev, &opts, &mr), -EINVAL);
	opts.len = 0;
	opts.access |= WEFT_ACCESS_REMOTE_READ;
	assert_int_equal(r->t->mr_reg(r->dev, &opts, &mr), -EINVAL);
	/* one byte too many */
	piece = (struct weft_piece){ (char *)f.mr->addr + GPU_BYTES - 4095, 0, 4096, rkey };
	assert_int_equal(far_read(r, &f, &piece, 1, 3, 0), 0);
	expect_wc(r, 3, -EFAULT, WEFT_SCOPE_OP, 0);
	far_close(r, &f);
	r->t->rkey_destroy(rkey);
}

/* the other GPU is lost: nothing is asked of this one that might be lost with it */
static void test_far_lost(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	struct weft_piece piece;
	unsigned copies;
	struct far f;

	far_open(r, &f, 1, NULL);
	wfi_cuda_lose(wfi_cuda_ep(f.ep)->gpu);
	copies = mock_cuda.copies;
	piece = (struct weft_piece){ f.mr->addr, 0, 4096, rkey };
	assert_int_equal(far_read(r, &f, &piece, 1, 3, 0), 0);
	expect_wc(r, 3, -EIO, WEFT_SCOPE_OP, 0);
	assert_int_equal(mock_cuda.copies, copies);
	far_close(r, &f);
	r->t->rkey_destroy(rkey);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(shapes),
		TEST(flipped),
		TEST(refused),
		TEST(far_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
