/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include "tests/unit/kv_rig.h"

void *kv_rig_create(size_t len, uint64_t seed)
{
	struct kv_rig *rig = calloc(1, len);

	assert_non_null(rig);
	assert_int_equal(wfi_sim_create(seed, &rig->sim), 0);
	rig->env = wfi_sim_node(rig->sim, 0);
	rig->now = 1000;
	return rig;
}

int kv_rig_teardown(void **state)
{
	struct kv_rig *rig = *state;

	wfi_kv_destroy(rig->kv);
	wfi_sim_destroy(rig->sim);
	free(rig);
	return 0;
}

struct wfi_tenant *kv_rig_tenant(struct wfi_kv *kv, const char *name, uint64_t arena_bytes)
{
	const struct wfi_tenant_opts opts = {
		.name = name,
		.token = name,
		.arena_bytes = arena_bytes,
	};
	struct wfi_tenant *t;

	assert_int_equal(wfi_kv_tenant_add(kv, &opts, &t), 0);
	return t;
}

struct weft_space_opts kv_rig_space_opts(const char *model, uint64_t block_bytes)
{
	return (struct weft_space_opts){
		.size = sizeof(struct weft_space_opts),
		.block_bytes = block_bytes,
		.model = model,
		.layout = "test",
		.tokens_per_block = 16,
	};
}

struct wfi_space_info kv_rig_space(struct wfi_kv *kv, struct wfi_tenant *t, const char *model,
				   uint64_t block_bytes)
{
	const struct weft_space_opts opts = kv_rig_space_opts(model, block_bytes);
	struct wfi_space_info info;

	assert_int_equal(wfi_kv_space_open(kv, t, &opts, &info, NULL), 0);
	return info;
}
