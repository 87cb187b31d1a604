/* SPDX-License-Identifier: Apache-2.0 */
/* host memory that can't be pinned: what becomes of copies to and from a GPU */
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

#define POSTS 6u

static struct weft_rkey *import_unpinned(struct rig *r)
{
	struct weft_rkey *rkey;

	mock_cuda.fail_call = "cuMemHostRegister";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	rkey = import(r, NULL);
	mock_cuda.fail_call = NULL;
	assert_true(wfi_container_of(r->mr, struct wfi_cuda_mr, base)->stops);
	return rkey;
}

/* both ways, by kernels and by copies; and as the driver does it, where no other memory can be had
 * either: by no kernel then */
static void test_bytes(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import_unpinned(r);
	struct wfi_cuda_mr *mr = wfi_container_of(r->mr, struct wfi_cuda_mr, base);
	const struct weft_piece pieces[] = {
		{ r->host, 4096, 8192, rkey },
		{ r->host + 100001, 33, 777, rkey }, /* nothing is aligned */
		{ r->host + 50, 0, 0, rkey },
		{ r->host + 200000, 65536, 300000, rkey },
	};

	for (unsigned n = 0; n < 8; n++) {
		const unsigned launches = mock_cuda.launches;
		const bool write = n % 2;

		mr->stops = n < 4;
		choose(r, n % 4 < 2 ? UINT64_MAX : 0);
		fill(r->host, HOST_BYTES, n);
		fill(at(r->mem), GPU_BYTES, 100 + n);
		assert_int_equal(post(r, write, pieces, 4, n, 0), 0);
		expect_wc(r, n, 0, WEFT_SCOPE_NONE, 4);
		for (unsigned i = 0; i < 4; i++)
			assert_memory_equal(at(r->mem) + pieces[i].remote, pieces[i].local,
					    pieces[i].len);
		assert_int_equal(mock_cuda.launches - launches, n < 2);
		assert_int_equal(wfi_cuda_ep(r->ep)->gpu->free_bounces,
				 (1u << WFI_CUDA_BOUNCES) - 1);
	}
	r->t->rkey_destroy(rkey);
}

/* one is emptied while the other is filled, and who finds none tries again */
static void test_turns(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import_unpinned(r);
	struct weft_piece piece = { r->host, 0, 4096, rkey };
	unsigned posted = 0, done = 0;
	struct weft_wc wc;

	choose(r, 0);
	memset(r->host, 0, HOST_BYTES);
	fill(at(r->mem), GPU_BYTES, 1);
	mock_cuda.hold = true;
	while (done < POSTS) {
		int ret = -EAGAIN;

		piece.local = r->host + posted * 8192;
		piece.remote = posted * 4096;
		if (posted < POSTS)
			ret = post(r, false, &piece, 1, posted, 0);
		if (!ret) {
			posted++;
			continue;
		}
		assert_int_equal(ret, -EAGAIN);
		assert_int_equal(posted - done, wfi_min(WFI_CUDA_BOUNCES, POSTS - done));
		assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
		/* nothing has come, and nothing was touched */
		assert_int_equal(r->host[done * 8192 + 1], 0);
		mock_cuda_release();
		for (; done < posted; done++) {
			expect_wc(r, done, 0, WEFT_SCOPE_NONE, 1);
			assert_memory_equal(r->host + done * 8192, at(r->mem) + done * 4096, 4096);
		}
	}
	r->t->rkey_destroy(rkey);
}

/* reads that an event holds back are as many as there may be */
static void test_behind_event(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import_unpinned(r);
	struct wfi_cuda_ep *ep = wfi_cuda_ep(r->ep);
	struct weft_piece piece = { r->host, 0, 4096, rkey };
	struct weft_wc wc;

	choose(r, 0);
	fill(at(r->mem), GPU_BYTES, 1);
	/* as behind an event: what is posted now is held */
	ep->nr_waiting++;
	for (unsigned i = 0; i < POSTS; i++) {
		piece.local = r->host + i * 4096;
		piece.remote = i * 4096;
		assert_int_equal(post(r, false, &piece, 1, i, WEFT_POST_SUMS), 0);
	}
	assert_int_equal(ep->nr_waiting, 1 + POSTS);
	ep->nr_waiting--;
	for (unsigned i = 0; i < POSTS; i++) {
		assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 1);
		assert_int_equal(wc.cookie, i);
		assert_int_equal(*(const uint32_t *)wc.data,
				 wfi_crc32c(0, r->host + i * 4096, 4096));
	}
	assert_int_equal(ep->nr_waiting, 0);
	assert_memory_equal(r->host, at(r->mem), POSTS * 4096);
	r->t->rkey_destroy(rkey);
}

/* a copy that fails, and a GPU that is lost: nothing more is touched */
static void test_fails(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import_unpinned(r);
	const struct weft_piece pieces[] = { { r->host, 0, 4096, rkey },
					     { r->host + 8192, 4096, 4096, rkey } };
	uint8_t want[16384];

	choose(r, 0);
	memset(r->host, 5, HOST_BYTES);
	mock_cuda.fail_call = "cuMemcpyAsync";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	assert_int_equal(post(r, false, pieces, 2, 1, 0), 0);
	mock_cuda.fail_call = NULL;
	expect_wc(r, 1, -ENOMEM, WEFT_SCOPE_OP, 0);
	assert_int_equal(post(r, false, pieces, 2, 2, 0), 0);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_ILLEGAL_ADDRESS;
	fill(r->host, HOST_BYTES, 9);
	expect_wc(r, 2, -EIO, WEFT_SCOPE_EP, 2);
	mock_cuda.fail_call = NULL;
	expect_closed(r, -ENOTRECOVERABLE);
	fill(want, sizeof(want), 9);
	assert_memory_equal(r->host, want, sizeof(want));
	r->t->rkey_destroy(rkey);
}

static void free_on(struct rig *r, int gpu, uint64_t mem)
{
	struct CUctx_st *ctx;

	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[gpu]), 0);
	assert_int_equal(r->cuda->cuMemFree(mem), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
}

/* each GPU has such memory of its own, the next one, and the first in its next life */
static void test_other_gpus(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkeys[] = { import_unpinned(r), NULL, NULL };
	struct wfi_cuda_mr *mr = wfi_container_of(r->mr, struct wfi_cuda_mr, base);
	struct weft_ep *next = ep_new(r, 0), *anew = ep_new(r, 0);
	const uint64_t mem = alloc_on(r, 1, 4096);

	assert_true(wfi_cuda_stops(wfi_cuda_ep(r->ep), mr));
	assert_int_equal(import_at(r, next, mem, 4096, NULL, &rkeys[1]), 0);
	assert_true(wfi_cuda_stops(wfi_cuda_ep(next), mr));
	wfi_cuda_lose(wfi_cuda_ep(r->ep)->gpu);
	assert_int_equal(import_at(r, anew, r->mem, 4096, NULL, &rkeys[2]), 0);
	assert_true(wfi_cuda_stops(wfi_cuda_ep(anew), mr));
	for (unsigned i = 0; i < 3; i++)
		r->t->rkey_destroy(rkeys[i]);
	r->t->ep_destroy(next);
	r->t->ep_destroy(anew);
	free_on(r, 1, mem);
}

/* what can be pinned at last stops no more */
static void test_pinned_again(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkeys[] = { import(r, NULL), NULL, NULL };
	struct wfi_cuda_mr *mr = wfi_container_of(r->mr, struct wfi_cuda_mr, base);
	struct weft_ep *next = ep_new(r, 0), *anew = ep_new(r, 0);
	const uint64_t mem = alloc_on(r, 1, 4096);

	assert_true(wfi_cuda_is_pinned(mr));
	wfi_cuda_lose(wfi_cuda_ep(r->ep)->gpu);
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	mock_cuda.fail_call = "cuMemHostRegister";
	assert_int_equal(import_at(r, next, mem, 4096, NULL, &rkeys[1]), 0);
	mock_cuda.fail_call = NULL;
	assert_true(wfi_cuda_stops(wfi_cuda_ep(next), mr));
	assert_int_equal(import_at(r, anew, r->mem, 4096, NULL, &rkeys[2]), 0);
	assert_true(wfi_cuda_is_pinned(mr));
	assert_false(wfi_cuda_stops(wfi_cuda_ep(next), mr));
	for (unsigned i = 0; i < 3; i++)
		r->t->rkey_destroy(rkeys[i]);
	r->t->ep_destroy(next);
	r->t->ep_destroy(anew);
	free_on(r, 1, mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(test_behind_event, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_gpus, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pinned_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
