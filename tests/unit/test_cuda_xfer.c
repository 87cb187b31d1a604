/* SPDX-License-Identifier: Apache-2.0 */
/* the provider for GPU memory, over a mocked driver: transfers, and copies that never end */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "tests/unit/cuda_rig.h"
#include "weft_internal/xfer.h"

struct xfer {
	struct wfi_xfer_engine *eng;
	struct wfi_xfer *open;
	struct wfi_piece pieces[16];
	int32_t results[16];
	int done;
	int res;
	int late;
	int late_res;
	struct xfer *cancels; /* in its late() */
};

static void on_done(void *ctx, int res)
{
	struct xfer *x = ctx;

	x->done++;
	x->res = res;
}

static void on_late(void *ctx, int res)
{
	struct xfer *x = ctx;

	x->late++;
	x->late_res = res;
	if (x->cancels)
		wfi_xfer_cancel(x->eng, x->cancels->open);
}

static struct wfi_xfer_engine *engine_new(struct rig *r)
{
	const struct wfi_xfer_engine_opts o = { .env = &r->env, .send_cqs = { r->cqs[0] } };
	struct wfi_xfer_engine *eng;

	assert_int_equal(wfi_xfer_engine_create(&o, &eng), 0);
	return eng;
}

/* 16 blocks to the GPU, over .ep, within @ns */
static void xfer_start(struct rig *r, struct xfer *x, struct weft_rkey *const *rkey, uint64_t ns)
{
	const struct wfi_xfer_opts o = {
		.ep = r->ep,
		.dir = WFI_XFER_WRITE,
		.local_mr = r->mr,
		.rkeys = rkey,
		.pieces = x->pieces,
		.nr_pieces = 16,
		.nr_blocks = 16,
		.nr_rkeys = 1,
		.results = x->results,
		.deadline_ns = wfi_now(&r->env) + ns,
		.done = on_done,
		.late = on_late,
		.ctx = x,
	};

	for (uint32_t i = 0; i < 16; i++)
		x->pieces[i] = (struct wfi_piece){
			.local = r->host + i * 8192,
			.remote = i * 4096ull,
			.block = i,
			.len = 4096,
		};
	assert_int_equal(wfi_xfer_submit(x->eng, &o, &x->open), 0);
}

static void test_transfer(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	struct xfer x = { .eng = engine_new(r) };

	fill(r->host, HOST_BYTES, 4);
	xfer_start(r, &x, &rkey, WFI_NSEC_PER_SEC);
	while (!x.done)
		wfi_xfer_poll(x.eng, wfi_now(&r->env));
	assert_int_equal(x.res, 0);
	for (unsigned i = 0; i < 16; i++)
		assert_memory_equal(at(r->mem) + i * 4096, r->host + i * 8192, 4096);
	wfi_xfer_engine_destroy(x.eng);
	r->t->rkey_destroy(rkey);
}

/* past its deadline, and the GPU goes on: that is told in time. It is over when it has ended */
static void test_transfer_late(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	struct xfer x = { .eng = engine_new(r) };
	uint64_t now_ns, grace_ns = 50 * WFI_NSEC_PER_MSEC;

	choose(r, 0);
	mock_cuda.hold = true;
	xfer_start(r, &x, &rkey, WFI_NSEC_PER_SEC);
	wfi_xfer_poll(x.eng, wfi_now(&r->env));
	now_ns = wfi_now(&r->env) + WFI_NSEC_PER_SEC;
	wfi_xfer_poll(x.eng, now_ns);
	wfi_xfer_poll(x.eng, now_ns + grace_ns);
	assert_int_equal(wfi_cuda_ep(r->ep)->state, WFI_EP_CLOSING);
	wfi_xfer_poll(x.eng, now_ns + 2 * grace_ns - 1);
	assert_int_equal(x.late, 0);
	assert_int_equal(wfi_xfer_next_event_ns(x.eng), now_ns + 2 * grace_ns);
	for (unsigned i = 2; i < 100; i++)
		wfi_xfer_poll(x.eng, now_ns + i * grace_ns);
	assert_int_equal(x.late, 1);
	assert_int_equal(x.late_res, -ETIMEDOUT);
	assert_int_equal(wfi_xfer_next_event_ns(x.eng), UINT64_MAX);
	assert_int_equal(x.done, 0);
	mock_cuda_release();
	wfi_xfer_poll(x.eng, now_ns + 100 * WFI_NSEC_PER_SEC);
	assert_int_equal(x.done, 1);
	expect_closed(r, 0);
	wfi_xfer_engine_destroy(x.eng);
	r->t->rkey_destroy(rkey);
}

static uint64_t now_ns;

static uint64_t now_set(struct wfi_env *env)
{
	(void)env;
	return now_ns;
}

/* what late() makes due is due before what was due without it */
static void test_late_cancels(void **state)
{
	const uint64_t grace_ns = 50 * WFI_NSEC_PER_MSEC;
	struct rig *r = *state;
	struct wfi_clock_ops clock = *r->env.clock;
	const struct wfi_clock_ops *real = r->env.clock;
	struct weft_rkey *rkey = import(r, NULL), *other;
	struct weft_ep *first = r->ep, *second = ep_new(r, 0);
	struct xfer patient = { .eng = engine_new(r) };
	struct xfer hasty = { .eng = patient.eng, .cancels = &patient };

	assert_int_equal(import_at(r, second, r->mem, GPU_BYTES, NULL, &other), 0);
	clock.now_ns = now_set;
	r->env.clock = &clock;
	choose(r, 0);
	mock_cuda.hold = true;
	xfer_start(r, &patient, &rkey, 1000 * WFI_NSEC_PER_SEC);
	r->ep = second;
	xfer_start(r, &hasty, &other, WFI_NSEC_PER_SEC);
	wfi_xfer_poll(hasty.eng, now_ns);
	for (now_ns = WFI_NSEC_PER_SEC; !hasty.late; now_ns += grace_ns)
		wfi_xfer_poll(hasty.eng, now_ns);
	/* that look was a grace ago */
	assert_int_equal(wfi_xfer_next_event_ns(hasty.eng), now_ns);
	assert_int_not_equal(wfi_cuda_ep(first)->state, WFI_EP_CLOSING);
	wfi_xfer_poll(hasty.eng, now_ns);
	assert_int_equal(wfi_cuda_ep(first)->state, WFI_EP_CLOSING);
	mock_cuda_release();
	while (!hasty.done || !patient.done)
		wfi_xfer_poll(hasty.eng, now_ns);
	r->env.clock = real;
	wfi_xfer_engine_destroy(hasty.eng);
	r->t->rkey_destroy(other);
	r->t->rkey_destroy(rkey);
	r->t->ep_destroy(first);
}

static void test_transfer_lost(void **state)
{
	struct rig *r = *state;
	struct weft_rkey *rkey = import(r, NULL);
	struct xfer x = { .eng = engine_new(r) };

	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_CONTEXT_DESTROYED;
	xfer_start(r, &x, &rkey, WFI_NSEC_PER_SEC);
	while (!x.done)
		wfi_xfer_poll(x.eng, wfi_now(&r->env));
	assert_int_equal(x.res, -EIO);
	expect_closed(r, -EIO);
	wfi_xfer_engine_destroy(x.eng);
	r->t->rkey_destroy(rkey);
}
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(transfer),
		TEST(transfer_late),
		TEST(late_cancels),
		TEST(transfer_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
