/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "daemon/control.h"
#include "daemon/node.h"
#include "perf/near.h"
#include "perf/perf.h"
#include "weft_internal/transport_registry.h"

static void *control_main(void *arg)
{
	control_run(arg);
	return NULL;
}

static void *poller_main(void *arg)
{
	struct wfi_perf_near *n = arg;

	while (!atomic_load_explicit(&n->polled_here, memory_order_acquire))
		node_poll(n->node);
	return NULL;
}

int wfi_perf_near_let(struct wfi_perf_near *n)
{
	atomic_store_explicit(&n->polled_here, false, memory_order_release);
	return -pthread_create(&n->poller, NULL, poller_main, n);
}

void wfi_perf_near_hold(struct wfi_perf_near *n)
{
	atomic_store_explicit(&n->polled_here, true, memory_order_release);
	pthread_join(n->poller, NULL);
}

void wfi_perf_near_poll(struct wfi_perf_near *n)
{
	node_poll(n->node);
}

static int near_start(struct wfi_perf_near *n, const struct wfi_perf_rig *far, const char *net,
		      const struct wfi_tenant_opts *tenant)
{
	struct node_opts opts = {
		.env = &n->env,
		.name = "weft-perf-near",
		.node_id = 2,
		.transport = net ? "tcp" : NULL,
		.lease_ns = 10 * WFI_NSEC_PER_SEC,
		.op_timeout_ns = 5 * WFI_NSEC_PER_SEC,
		.copy_after = WFI_COPY_NEVER,
		.tenants = tenant,
		.nr_tenants = 1,
	};
	const struct control_peer peer = { .name = "far",
					   .addr = net ? net : far->socket,
					   .net = net != NULL };
	struct control_opts c = { .socket = n->socket, .peers = &peer, .nr_peers = 1 };
	int ret = wfi_env_real_init(&n->env);

	if (ret)
		return ret;
	n->env.transports = wfi_transports;
	snprintf(n->socket, sizeof(n->socket), "%s/near.sock", far->dir);
	ret = node_create(&opts, &n->node);
	if (ret)
		return ret;
	c.node = n->node;
	ret = control_create(&c, &n->control);
	if (!ret)
		ret = wfi_perf_near_let(n);
	if (!ret)
		ret = -pthread_create(&n->thread, NULL, control_main, n->control);
	return ret;
}

int wfi_perf_near_open(struct wfi_perf_near *n, const struct wfi_perf_rig *far, const char *net,
		       uint64_t arena_bytes, unsigned map_flags)
{
	const struct wfi_tenant_opts tenant = {
		.name = "default", .token = "", .arena_bytes = arena_bytes, .map_flags = map_flags
	};
	int ret = near_start(n, far, net, &tenant);

	return ret ? wfi_perf_fail(ret, "the second node does not start: %s", strerror(-ret)) : 0;
}

void wfi_perf_near_close(struct wfi_perf_near *n)
{
	control_stop(n->control);
	pthread_join(n->thread, NULL);
	wfi_perf_near_hold(n);
	control_destroy(n->control);
	node_destroy(n->node);
	unlink(n->socket);
}

int wfi_perf_near_engine(const struct wfi_perf_near *n, struct weft **w, struct weft_ring **ring)
{
	return wfi_perf_engine_at(n->socket, w, ring);
}

int wfi_perf_near_call(struct wfi_perf_near *n, struct weft_ring *ring, const struct weft_op *op)
{
	struct weft_completion done;
	int nr = weft_submit(ring, op, 1);

	if (nr < 0)
		return nr;
	do {
		node_poll(n->node);
		nr = weft_poll(ring, &done, 1);
	} while (!nr);
	return nr < 0 ? nr : done.res;
}
