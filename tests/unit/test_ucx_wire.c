/* SPDX-License-Identifier: Apache-2.0 */
/* frames over a UCX that is this test: it takes parts, refuses one, and gives back what it took */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "transport/ucx/ucx.h"

#define PART 4096u
#define PARTS 8u
#define MEM (PARTS * PART)
#define NEVER UINT32_MAX

struct rig {
	struct wfi_env env;
	struct wfi_ucx_device dev;
	struct weft_cq *cq;
	struct wfi_srv_ep *ep;
	struct weft_mr *mr;
	struct weft_rkey *rkey;
	uint8_t mem[MEM];
	uint32_t nr_sends;
	uint32_t refused; /* which of them, and all behind it */
	struct wfi_srv_tx *flying[PARTS]; /* of the parts that it has */
	ucp_send_nbx_callback_t told;
	uint32_t nr_flying;
	bool holds; /* what it has it keeps */
	uint32_t nr_closes;
	ucp_err_handler_t on_error;
};

static struct rig *rig;

/* ---- UCX ---- */

static ucs_status_ptr_t fake_send(ucp_ep_h ep, unsigned id, const void *header, size_t header_len,
				  const void *buf, size_t count, const ucp_request_param_t *param)
{
	(void)ep;
	(void)id;
	(void)header;
	(void)header_len;
	(void)buf;
	(void)count;
	if (rig->nr_sends++ >= rig->refused)
		return UCS_STATUS_PTR(UCS_ERR_CONNECTION_RESET);
	assert_true(rig->nr_flying < PARTS);
	rig->told = param->cb.send;
	rig->flying[rig->nr_flying] = param->user_data;
	return &rig->flying[rig->nr_flying++];
}

static unsigned fake_progress(ucp_worker_h worker)
{
	const uint32_t nr = rig->holds ? 0 : rig->nr_flying;

	(void)worker;
	if (!nr)
		return 0;
	for (rig->nr_flying = 0; rig->nr_flying < nr; rig->nr_flying++)
		rig->told(&rig->flying[rig->nr_flying], UCS_ERR_CONNECTION_RESET,
			  rig->flying[rig->nr_flying]);
	rig->nr_flying = 0;
	return nr;
}

static void fake_request_free(void *req)
{
	(void)req;
}

static ucs_status_t fake_ep_create(ucp_worker_h worker, const ucp_ep_params_t *params, ucp_ep_h *ep)
{
	(void)worker;
	rig->on_error = params->err_handler;
	*ep = (ucp_ep_h)(void *)rig;
	return UCS_OK;
}

static ucs_status_ptr_t fake_ep_close(ucp_ep_h ep, const ucp_request_param_t *param)
{
	(void)ep;
	(void)param;
	/* it gives up what it has */
	rig->nr_closes++;
	rig->holds = false;
	return NULL;
}

static ucs_status_t fake_get_address(ucp_worker_h worker, ucp_address_t **addr, size_t *len)
{
	static uint8_t one = 1;

	(void)worker;
	*addr = (ucp_address_t *)(void *)&one;
	*len = sizeof(one);
	return UCS_OK;
}

static void fake_release_address(ucp_worker_h worker, ucp_address_t *addr)
{
	(void)worker;
	(void)addr;
}

static const struct wfi_ucp fake = {
	.ucp_worker_progress = fake_progress,
	.ucp_worker_get_address = fake_get_address,
	.ucp_worker_release_address = fake_release_address,
	.ucp_am_send_nbx = fake_send,
	.ucp_request_free = fake_request_free,
	.ucp_ep_create = fake_ep_create,
	.ucp_ep_close_nbx = fake_ep_close,
};

/* ---- the rig: an endpoint that talks to itself, as far as it knows ---- */

static void meet(void)
{
	struct weft_rkey_src src = { .size = sizeof(src), .kind = WEFT_RKEY_BLOB, .fd = -1 };
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	struct weft_ep_addr addr;
	struct weft_export ex;

	assert_int_equal(wfi_srv_ep_addr(&rig->ep->base, &addr), 0);
	peer.blob = addr.blob;
	peer.blob_len = addr.blob_len;
	assert_int_equal(wfi_srv_ep_connect(&rig->ep->base, &peer), 0);
	assert_int_equal(wfi_srv_mr_export(rig->mr, NULL, &ex), 0);
	src.blob = ex.blob;
	src.blob_len = ex.blob_len;
	assert_int_equal(wfi_srv_rkey_import(&rig->ep->base, &src, &rig->rkey), 0);
}

static int setup(void **state)
{
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = MEM, .fd = -1 };
	struct weft_ep_opts o = { .size = sizeof(o) };
	struct weft_ep *ep;

	rig = calloc(1, sizeof(*rig));
	assert_non_null(rig);
	rig->refused = NEVER;
	assert_int_equal(wfi_env_real_init(&rig->env), 0);
	rig->dev.ucp = &fake;
	rig->dev.part = PART;
	rig->dev.wire = wfi_ucx_wire;
	rig->dev.wire.head_max = WFI_SRV_HEAD_MAX;
	assert_int_equal(wfi_srv_device_init(&rig->dev.srv, &wfi_transport_ucx, &rig->env,
					     &rig->dev.wire, 0),
			 0);
	mr.addr = rig->mem;
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(wfi_srv_mr_reg(&rig->dev.srv.base, &mr, &rig->mr), 0);
	assert_int_equal(wfi_srv_cq_create(&rig->dev.srv.base, NULL, &rig->cq), 0);
	o.send_cq = o.recv_cq = rig->cq;
	assert_int_equal(wfi_srv_ep_create(&rig->dev.srv.base, &o, &ep), 0);
	rig->ep = wfi_srv_ep(ep);
	meet();
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	wfi_srv_rkey_destroy(rig->rkey);
	wfi_srv_ep_destroy(&rig->ep->base);
	wfi_srv_cq_destroy(rig->cq);
	wfi_srv_mr_dereg(rig->mr);
	wfi_srv_device_fini(&rig->dev.srv);
	free(rig);
	return 0;
}

/* each frame is back, once */
static void all_back(void)
{
	const struct wfi_srv_tx *tx = rig->ep->tx_free;
	unsigned nr = 0;

	assert_int_equal(rig->ep->nr_free, WFI_SRV_TX);
	for (; tx && nr <= WFI_SRV_TX; tx = tx->next)
		nr++;
	assert_int_equal(nr, WFI_SRV_TX);
	assert_int_equal(rig->dev.nr_queued, 0);
}

/* part @refused of a frame is refused while those before it are under way: they come back, then the
 * frame does, and nothing is sent behind what was not */
static void refuse(uint32_t refused)
{
	const struct weft_piece piece = { rig->mem, 0, MEM, rig->rkey };
	const struct weft_post post = { .pieces = &piece, .nr_pieces = 1, .cookie = 7 };
	struct weft_wc wcs[4];

	rig->refused = refused;
	assert_int_equal(weft_ep_post_write(&rig->ep->base, &post), 0);
	assert_int_equal(rig->nr_flying, refused);
	assert_int_equal(weft_cq_poll(rig->cq, wcs, 4), 0);
	assert_int_equal(rig->nr_sends, refused + 1);
	assert_int_equal(weft_cq_poll(rig->cq, wcs, 4), 2);
	assert_int_equal(wcs[0].cookie, 7);
	assert_int_equal(wcs[0].status, -ECONNRESET);
	assert_int_equal(wcs[1].op, WEFT_WC_CLOSED);
	all_back();
}

static void test_refused(void **state)
{
	uint32_t i;

	for (i = 0; i < PARTS; i++) {
		refuse(i);
		teardown(state);
		setup(state);
	}
}

static uint64_t slow_now_ns(struct wfi_env *env)
{
	static uint64_t now_ns;

	(void)env;
	return now_ns += WFI_NSEC_PER_USEC;
}

static void fly(void)
{
	const struct weft_piece piece = { rig->mem, 0, MEM, rig->rkey };
	const struct weft_post post = { .pieces = &piece, .nr_pieces = 1, .cookie = 7 };
	struct weft_wc wc;

	rig->holds = true;
	assert_int_equal(weft_ep_post_write(&rig->ep->base, &post), 0);
	assert_int_equal(rig->nr_flying, PARTS);
	wfi_srv_lost(rig->ep, -EPROTO);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	assert_int_equal(rig->nr_closes, 0);
}

/* an endpoint is not closed under what UCX has of it, for a while */
static void test_flying(void **state)
{
	static const struct wfi_clock_ops slow = { .now_ns = slow_now_ns };
	struct weft_wc wcs[4];
	unsigned i;

	/* it leaves */
	rig->env.clock = &slow;
	fly();
	rig->holds = false;
	weft_cq_poll(rig->cq, wcs, 4);
	assert_int_equal(rig->nr_closes, 1);
	all_back();
	teardown(state);

	/* the connection is lost, and UCX says so */
	setup(state);
	rig->env.clock = &slow;
	fly();
	rig->on_error.cb(rig->on_error.arg, NULL, UCS_ERR_CONNECTION_RESET);
	weft_cq_poll(rig->cq, wcs, 4);
	assert_int_equal(rig->nr_closes, 1);
	teardown(state);

	/* nothing happens */
	setup(state);
	rig->env.clock = &slow;
	fly();
	for (i = 0; i < 100000 && !rig->nr_closes; i++)
		weft_cq_poll(rig->cq, wcs, 4);
	assert_int_equal(rig->nr_closes, 1);
	weft_cq_poll(rig->cq, wcs, 4);
	all_back();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flying, setup, teardown),
	};

	return cmocka_run_group_tests_name("ucx_wire", tests, NULL, NULL);
}
