/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/mock_rdmacm.h"
#include "tests/unit/mock_verbs.h"
#include "tests/unit/verbs_rig.h"
#include "weft_internal/transport_registry.h"

void verbs_node_open(struct wfi_env *env, struct node **out)
{
	static const struct wfi_tenant_opts tenant = {
		.name = "t", .token = "", .arena_bytes = 1 << 20, .salt = { 7 }
	};
	const struct node_opts opts = { .env = env,
					.name = "n",
					.node_id = 1,
					.transport = "verbs",
					.lease_ns = WFI_NSEC_PER_SEC,
					.op_timeout_ns = WFI_NSEC_PER_SEC,
					.tenants = &tenant,
					.nr_tenants = 1 };

	assert_int_equal(wfi_env_real_init(env), 0);
	env->transports = wfi_transports;
	assert_int_equal(node_create(&opts, out), 0);
}

void *verbs_node_run(void *arg)
{
	struct node *node = arg;

	while (!atomic_load(&node->stop))
		node_poll(node);
	return NULL;
}

void verbs_node_close(struct node *node)
{
	node_destroy(node);
	assert_int_equal(mock.nr_mrs + mock.nr_qps + mock.nr_cqs + mock.nr_srqs + mock.nr_mws, 0);
	assert_int_equal(mock_cm.nr_ids, 0);
}
