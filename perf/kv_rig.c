/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "perf/kv_rig.h"
#include "perf/perf.h"
#include "weft_internal/util.h"

#define BLOCK_BYTES 64u

int wfi_perf_kv_space(struct wfi_perf_kv *kv, const char *model, uint64_t max_blocks,
		      struct wfi_space_info *out)
{
	const struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = BLOCK_BYTES,
		.model = model,
		.layout = "",
		.tokens_per_block = 16,
		.max_blocks = max_blocks,
	};
	char why[184];
	int ret = wfi_kv_space_open(kv->kv, kv->tenant, &opts, out, why);

	return ret ? wfi_perf_fail(ret, "%s", why) : 0;
}

int wfi_perf_kv_open(struct wfi_perf_kv *kv, uint64_t nr_blocks)
{
	return wfi_perf_kv_open_with(kv, NULL, nr_blocks);
}

int wfi_perf_kv_open_with(struct wfi_perf_kv *kv, const struct wfi_evict_policy *policy,
			  uint64_t nr_blocks)
{
	struct wfi_kv_opts opts = { .env = &kv->env, .policy = policy };
	struct wfi_tenant_opts tenant_opts = {
		.name = "default",
		.token = "",
		.arena_bytes = nr_blocks * BLOCK_BYTES,
		.map_flags = WFI_MAP_HUGE,
	};
	int ret;

	memset(kv, 0, sizeof(*kv));
	ret = wfi_env_real_init(&kv->env);
	if (!ret)
		ret = wfi_kv_create(&opts, &kv->kv);
	if (!ret)
		ret = wfi_kv_tenant_add(kv->kv, &tenant_opts, &kv->tenant);
	if (!ret)
		ret = wfi_owner_init(kv->kv, &kv->owner, kv->tenant);
	if (ret)
		return wfi_perf_fail(ret, "no KV manager: %s", strerror(-ret));
	kv->owned = true;
	kv->empty_bytes = wfi_kv_state_bytes(kv->kv);
	return wfi_perf_kv_space(kv, "weft-perf", 0, &kv->space);
}

void wfi_perf_kv_close(struct wfi_perf_kv *kv)
{
	if (kv->owned)
		wfi_owner_fini(kv->kv, &kv->owner, false);
	wfi_kv_destroy(kv->kv);
}

/* Return: 0, -errno */
static int put_below(struct wfi_perf_kv *kv, uint32_t space, const struct weft_key *parent,
		     const struct weft_key *keys, uint32_t nr)
{
	static const uint32_t crcs[WFI_PERF_KV_PUT_MAX];
	struct weft_slot slots[WFI_PERF_KV_PUT_MAX];
	int32_t results[WFI_PERF_KV_PUT_MAX];
	uint64_t now_ns = wfi_now(&kv->env);
	int ret;

	ret = wfi_kv_claim(kv->kv, &kv->owner, space, nr, slots, now_ns);
	if (ret < 0)
		return ret;
	ret = wfi_kv_put(kv->kv, &kv->owner, space, parent, keys, slots, nr, crcs, results, now_ns);
	return ret == (int)nr ? 0 : ret < 0 ? ret : -EIO;
}

int wfi_perf_kv_put_in(struct wfi_perf_kv *kv, uint32_t space, const struct weft_key *keys,
		       uint32_t nr)
{
	static const struct weft_key root;

	return put_below(kv, space, &root, keys, nr);
}

int wfi_perf_kv_request(struct wfi_perf_kv *kv, uint32_t space, const struct weft_key *keys,
			uint32_t nr)
{
	static const struct weft_key root;
	uint32_t slots[WFI_PERF_KV_PUT_MAX];
	int held = wfi_kv_prefix(kv->kv, space, keys, nr, slots, wfi_now(&kv->env));

	if (held < 0 || held == (int)nr)
		return held < 0 ? held : 0;
	return put_below(kv, space, held ? &keys[held - 1] : &root, keys + held,
			 nr - (uint32_t)held);
}

int wfi_perf_kv_put(struct wfi_perf_kv *kv, const struct weft_key *keys, uint32_t nr)
{
	return wfi_perf_kv_put_in(kv, kv->space.id, keys, nr);
}

double wfi_perf_kv_state(const struct wfi_perf_kv *kv, uint64_t nr_blocks)
{
	return (double)(wfi_kv_state_bytes(kv->kv) - kv->empty_bytes) / (double)nr_blocks;
}

int wfi_perf_kv_lines_open(struct wfi_perf_kv *kv, uint64_t nr_lines, uint32_t nr_reads,
			   uint32_t nr_repeats, struct wfi_perf_kv_lines *out)
{
	const unsigned flags = WFI_MAP_HUGE | WFI_MAP_PREFAULT;
	int ret;

	memset(out, 0, sizeof(*out));
	ret = kv->env.mem->map(&kv->env, nr_lines * WFI_CACHELINE, flags, &out->map);
	if (ret)
		return wfi_perf_fail(ret, "no memory for the peer's table");
	out->peer = (struct wfi_peer_lines){
		.table = out->map.addr,
		.nr_lines = nr_lines,
		.order = calloc(nr_reads, sizeof(*out->peer.order)),
		.nr_reads = nr_reads,
		.nr_repeats = nr_repeats,
	};
	return out->peer.order ? 0 : wfi_perf_fail(-ENOMEM, "no memory");
}

void wfi_perf_kv_lines_close(struct wfi_perf_kv *kv, struct wfi_perf_kv_lines *lines)
{
	free(lines->peer.order);
	kv->env.mem->unmap(&kv->env, &lines->map);
}

void wfi_perf_kv_settle(struct wfi_perf_kv *kv)
{
	uint32_t turn;

	for (turn = 0; turn < 1u << 20; turn++)
		if (!wfi_kv_poll(kv->kv, wfi_now(&kv->env)))
			break;
}
