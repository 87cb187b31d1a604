/* SPDX-License-Identifier: Apache-2.0 */
/* the provider for GPU memory, over a mocked driver: reads that wait for an event of an engine */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/unit/cuda_rig.h"

/* one of the engine's, and a stream in which it is recorded behind a copy that is held back */
struct engine {
	struct CUstream_st *stream;
	struct CUevent_st *event;
	struct weft_rkey *rkey;
};

static int event_import(struct rig *r, struct CUevent_st *event, struct weft_rkey **out)
{
	char why[WFI_GPU_WHY_MAX];
	struct wfi_gpu_source from = { .shape = { .nr_segments = 0 } };
	const struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_GPU,
		.access = WEFT_ACCESS_REMOTE_READ,
		.fd = -1,
		.pid = getpid(),
		.blob = &from,
		.blob_len = sizeof(from),
	};

	assert_int_equal(wfi_gpu_event_export(r->cuda, event, r->mem, &from.memory, why), 0);
	return r->t->rkey_import(r->ep, &src, out);
}

static void engine_open(struct rig *r, struct engine *e)
{
	const unsigned flags = (unsigned)WFI_CUDA_EVENT_NO_TIMING | WFI_CUDA_EVENT_IPC;

	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[0]), 0);
	assert_int_equal(r->cuda->cuStreamCreate(&e->stream, WFI_CUDA_STREAM_NON_BLOCKING), 0);
	assert_int_equal(r->cuda->cuEventCreate(&e->event, flags), 0);
	assert_int_equal(event_import(r, e->event, &e->rkey), 0);
	assert_int_equal(e->rkey->len, 0);
}

static void engine_close(struct rig *r, struct engine *e)
{
	struct CUctx_st *ctx;

	r->t->rkey_destroy(e->rkey);
	r->cuda->cuEventDestroy(e->event);
	r->cuda->cuStreamDestroy(e->stream);
	r->cuda->cuCtxPopCurrent(&ctx);
}

static void engine_compute(struct rig *r, struct engine *e, const void *src)
{
	mock_cuda.hold = true;
	assert_int_equal(r->cuda->cuMemcpyAsync(r->mem, (uintptr_t)src, 4096, e->stream), 0);
	assert_int_equal(r->cuda->cuEventRecord(e->event, e->stream), 0);
	mock_cuda.hold = false;
}

static int ask(struct rig *r, const struct engine *e, uint32_t flags)
{
	const struct weft_piece piece = { r->host, 0, 0, e->rkey };

	return post(r, false, &piece, 1, UINT64_MAX, WEFT_POST_QUIET | flags);
}

static int wait_for(struct rig *r, const struct engine *e)
{
	return ask(r, e, 0);
}

/* reads wait, on that endpoint alone; writes do not */
static void test_event(void **state)
{
	static uint8_t computed[4096];
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL), *other;
	struct weft_piece piece = { r->host, 0, 4096, rkey };
	const struct weft_piece away = { r->host + 8192, 65536, 4096, rkey };
	struct weft_ep *first = r->ep, *second = ep_new(r, 0);
	struct engine e;
	struct weft_wc wc;

	assert_int_equal(import_at(r, second, r->mem, GPU_BYTES, NULL, &other), 0);
	choose(r, 0);
	engine_open(r, &e);
	/* nothing was recorded yet: nothing to wait for */
	assert_int_equal(wait_for(r, &e), 0);
	assert_int_equal(post(r, false, &piece, 1, 1, 0), 0);
	expect_wc(r, 1, 0, WEFT_SCOPE_NONE, 1);
	fill(computed, 4096, 11);
	memset(at(r->mem), 0, 4096);
	engine_compute(r, &e, computed);
	/* who only asks holds up nobody */
	assert_int_equal(ask(r, &e, WEFT_POST_TRY), -EAGAIN);
	assert_int_equal(post(r, false, &away, 1, 9, 0), 0);
	expect_wc(r, 9, 0, WEFT_SCOPE_NONE, 1);
	assert_int_equal(wait_for(r, &e), 0);
	assert_int_equal(post(r, false, &piece, 1, 2, 0), 0);
	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	fill(r->host + 8192, 4096, 12);
	assert_int_equal(post(r, true, &away, 1, 3, 0), 0);
	assert_memory_equal(at(r->mem) + 65536, r->host + 8192, 4096);
	/* posts of one endpoint complete in their order */
	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	r->ep = second;
	piece.rkey = other;
	assert_int_equal(post(r, false, &piece, 1, 4, 0), 0);
	expect_wc(r, 4, 0, WEFT_SCOPE_NONE, 1);
	assert_int_equal(r->host[0], 0);
	r->ep = first;
	mock_cuda_release();
	expect_wc(r, 2, 0, WEFT_SCOPE_NONE, 1);
	expect_wc(r, 3, 0, WEFT_SCOPE_NONE, 1);
	assert_memory_equal(r->host, computed, 4096);
	assert_int_equal(ask(r, &e, WEFT_POST_TRY), 0);
	engine_close(r, &e);
	r->t->rkey_destroy(rkey);
	r->t->rkey_destroy(other);
	r->t->ep_destroy(second);
}

/* a read that an event holds back. Return: the region's rkey */
static struct weft_rkey *event_pending(struct rig *r, struct engine *e)
{
	static uint8_t computed[4096];
	struct weft_rkey *rkey = import(r, NULL);
	const struct weft_piece piece = { r->host, 0, 4096, rkey };
	struct weft_wc wc;

	choose(r, 0);
	engine_open(r, e);
	memset(r->host, 0, 4096);
	memset(at(r->mem), 7, 4096);
	engine_compute(r, e, computed);
	assert_int_equal(wait_for(r, e), 0);
	assert_int_equal(post(r, false, &piece, 1, 2, 0), 0);
	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	return rkey;
}

/* one that never comes keeps nobody's memory; one that is given back lets go */
static void test_event_never(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *again, *rkey;
	struct engine e;

	rkey = event_pending(r, &e);
	assert_int_equal(event_import(r, e.event, &again), 0);
	r->t->rkey_destroy(e.rkey);
	e.rkey = again;
	expect_wc(r, 2, 0, WEFT_SCOPE_NONE, 1);
	assert_int_equal(r->host[0], 7);
	engine_close(r, &e);
	r->t->rkey_destroy(rkey);
	rkey = event_pending(r, &e);
	r->t->ep_shutdown(r->ep);
	expect_wc(r, 2, -ECANCELED, WEFT_SCOPE_EP, 1);
	expect_closed(r, 0);
	mock_cuda_release();
	assert_int_equal(r->host[0] | r->host[4095], 0);
	engine_close(r, &e);
	r->t->rkey_destroy(rkey);
}

/* what can't wait is refused, so that nothing is read too early */
static void test_event_fails(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL), *none = NULL;
	struct wfi_gpu_export x;
	struct CUevent_st *private;
	char why[WFI_GPU_WHY_MAX];
	struct engine e;
	struct weft_wc wc;

	engine_open(r, &e);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_INVALID_HANDLE;
	assert_int_equal(wait_for(r, &e), -ESTALE);
	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	mock_cuda.fail_call = NULL;
	assert_int_equal(wait_for(r, &e), 0);
	/* an event that is of one process alone, and none at all */
	assert_int_equal(r->cuda->cuEventCreate(&private, WFI_CUDA_EVENT_NO_TIMING), 0);
	assert_int_equal(wfi_gpu_event_export(r->cuda, private, r->mem, &x, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "CU_EVENT_INTERPROCESS"));
	r->cuda->cuEventDestroy(private);
	assert_int_equal(wfi_gpu_event_export(r->cuda, e.event, 64, &x, why), -ESTALE);
	wfi_cuda_lose(wfi_cuda_ep(r->ep)->gpu);
	assert_int_equal(wait_for(r, &e), -EIO);
	assert_int_equal(event_import(r, e.event, &none), -ENOTCONN);
	assert_null(none);
	engine_close(r, &e);
	r->t->rkey_destroy(rkey);
}
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(event),
		TEST(event_never),
		TEST(event_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
