/* SPDX-License-Identifier: Apache-2.0 */
/* kv_rig.h - the KV manager by itself, on a simulated machine */
#ifndef TEST_KV_RIG_H
#define TEST_KV_RIG_H

#include "kvcache/kv_private.h"

/* a fixture begins with it */
struct kv_rig {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_kv *kv; /* the test's to create */
	uint64_t now;
};

/* a fixture of @len bytes, zeroed but for its rig */
void *kv_rig_create(size_t len, uint64_t seed);
/* cmocka's teardown: @state is the fixture */
int kv_rig_teardown(void **state);

struct wfi_tenant *kv_rig_tenant(struct wfi_kv *kv, const char *name, uint64_t arena_bytes);
struct weft_space_opts kv_rig_space_opts(const char *model, uint64_t block_bytes);
struct wfi_space_info kv_rig_space(struct wfi_kv *kv, struct wfi_tenant *t, const char *model,
				   uint64_t block_bytes);

#endif
