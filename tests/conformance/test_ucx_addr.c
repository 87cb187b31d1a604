/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of UCX workers with a few bytes changed and the right sum over them, as a peer could
 * make them: UCX aborts over some. They cost endpoints, never the process.
 * Run as: test_ucx_addr DEVICE.
 */
#include <stdio.h>
#include <string.h>
#include "conf.h"
#include "tests/rnd.h"
#include "transport/served.h"
#include "weft_internal/transport_registry.h"

#define ADDRESSES 60u

static const struct weft_transport *provider;
static void spoil(struct weft_ep_addr *addr)
{
	struct wfi_srv_ep_blob blob;
	unsigned n;

	memcpy(&blob, addr->blob, sizeof(blob));
	for (n = 1 + (unsigned)(rnd() % 4); n; n--) {
		uint8_t *at = addr->blob + sizeof(blob) + rnd() % blob.len;

		*at = rnd() % 2 ? (uint8_t)rnd() : (uint8_t)(*at ^ (1u << rnd() % 8));
	}
	blob.check = 0;
	memcpy(addr->blob, &blob, sizeof(blob));
	blob.check = wfi_blob_check(addr->blob, addr->blob_len);
	memcpy(addr->blob, &blob, sizeof(blob));
}

static void test_spoiled(void **state)
{
	struct weft_ep_opts opts = { .size = sizeof(opts) };
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	unsigned i, k, refused = 0;
	struct weft_ep_addr addr;
	struct weft_ep *ep;
	struct weft_wc wc;
	struct pair p;

	(void)state;
	pair_open(&p, provider, 16, 16);
	opts.send_cq = p.a.send_cq;
	opts.recv_cq = p.a.recv_cq;
	for (i = 0; i < ADDRESSES; i++) {
		assert_int_equal(provider->ep_create(p.a.dev, &opts, &ep), 0);
		assert_int_equal(provider->ep_addr(p.b.ep, &addr), 0);
		spoil(&addr);
		peer.blob = addr.blob;
		peer.blob_len = addr.blob_len;
		refused += provider->ep_connect(ep, &peer) != 0;
		for (k = 0; k < 20; k++)
			weft_cq_poll(p.a.recv_cq, &wc, 1);
		provider->ep_destroy(ep);
	}
	assert_true(refused > 0);
	pair_close(&p);
	/* this process goes on. Whose worker was misnamed may have lost its own endpoints by it */
	pair_open(&p, provider, 16, 16);
	assert_int_equal(weft_ep_post_send(p.a.ep, "on", 2, 0, WEFT_POST_QUIET), 0);
	expect_wc(&p.b, p.b.recv_cq, WEFT_WC_RECV, 0);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_spoiled) };
	struct weft_probe probe;
	struct wfi_env env;

	provider = wfi_transport_find(NULL, "ucx");
	side_device_opts.name = argc > 1 ? argv[1] : NULL;
	if (wfi_env_real_init(&env) || provider->probe(provider, &env, &probe)) {
		printf("ucx can't run here: %s\n", probe.why);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
