/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node whose RDMA device breaks, over a libibverbs that does what it is told: it closes the
 * device, waits until there is one again, opens it anew with its arena, and keeps nothing of the
 * old.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/control.h"
#include "mock_rdmacm.h"
#include "mock_verbs.h"
#include "transport/verbs/verbs.h"
#include "verbs_rig.h"
#include "weft_internal/log.h"

#define WAIT_MS 20000u

struct rig {
	struct wfi_env env;
	struct node *node;
	struct control *control;
	struct node_peer *peer;
	pthread_t worker, controller;
	uint64_t incarnation; /* of the first device */
	bool lost;
};

/* lines that say what happened, counted as they come */
static const char *const told[] = { "open it anew", "is open again" };
static unsigned nr_told[WFI_ARRAY_SIZE(told)];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	unsigned i;

	(void)ctx;
	(void)level;
	for (i = 0; i < WFI_ARRAY_SIZE(told); i++)
		if (strstr(line, told[i]))
			__atomic_add_fetch(&nr_told[i], 1, __ATOMIC_RELEASE);
}

/* @count is at least @want, soon */
static void await(const unsigned *count, unsigned want)
{
	unsigned ms;

	for (ms = 0; __atomic_load_n(count, __ATOMIC_ACQUIRE) < want; ms++) {
		if (ms == WAIT_MS)
			fail_msg("what should happen %u times did so %u times", want, *count);
		poll(NULL, 0, 1);
	}
}

static void *control_main(void *arg)
{
	control_run(arg);
	return NULL;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	/* on this host, and never there: whoever has peers looks around now and then */
	static const struct control_peer peer = { .name = "p", .addr = "/nowhere/at/all" };
	struct control_opts control = { .peers = &peer, .nr_peers = 1 };

	assert_non_null(r);
	mock_reset();
	mock_cm_reset();
	wfi_log_set_sink(sink, NULL);
	wfi_log_init(WFI_LOG_INFO, "");
	verbs_node_open(&r->env, &r->node);
	control.node = r->node;
	assert_int_equal(control_create(&control, &r->control), 0);
	r->incarnation = wfi_verbs_device(r->node->nets[0].dev)->incarnation;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	control_destroy(r->control);
	verbs_node_close(r->node);
	wfi_log_set_sink(NULL, NULL);
	free(r);
	return 0;
}

/* ---- what the control thread does for a peer, and what happens to the device ---- */

static void run_break(struct node *node, void *arg)
{
	struct rig *r = arg;
	unsigned nr_fds = 0, nr_lent = 0;
	struct wire_endpoint ours;
	int fds[WIRE_FDS_MAX];

	assert_int_equal(peer_create(node, &node->nets[0], "peer", 0, &r->peer, &ours, fds, &nr_fds,
				     &nr_lent),
			 0);
	mock_event(IBV_EVENT_DEVICE_FATAL, NULL);
	__atomic_store_n(&mock.nr_devices, 0, __ATOMIC_RELEASE);
}

static void run_look(struct node *node, void *arg)
{
	((struct rig *)arg)->lost = node->nets[0].lost;
}

static void run_detach(struct node *node, void *arg)
{
	(void)node;
	peer_detach(((struct rig *)arg)->peer);
}

static void test_device_fatal(void **state)
{
	struct rig *r = *state;
	const struct node_link *net = &r->node->nets[0];

	assert_int_equal(pthread_create(&r->worker, NULL, verbs_node_run, r->node), 0);
	node_call(r->node, run_break, r);
	await(&nr_told[0], 1);
	while (!r->lost)
		node_call(r->node, run_look, r);
	node_call(r->node, run_detach, r);
	/* it is asked for again and again while it is away */
	mock.nr_lists = 0;
	assert_int_equal(pthread_create(&r->controller, NULL, control_main, r->control), 0);
	await(&mock.nr_lists, 2);
	assert_int_equal(__atomic_load_n(&nr_told[1], __ATOMIC_ACQUIRE), 0);
	__atomic_store_n(&mock.nr_devices, 1, __ATOMIC_RELEASE);
	await(&nr_told[1], 1);
	control_stop(r->control);
	pthread_join(r->controller, NULL);
	pthread_join(r->worker, NULL);
	assert_false(net->lost);
	assert_non_null(net->dev);
	assert_int_equal(net->nr_arenas, 1);
	/* what was exported by the first one is of no use at the second */
	assert_int_not_equal(wfi_verbs_device(net->dev)->incarnation, r->incarnation);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_device_fatal, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
