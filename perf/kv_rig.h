/* SPDX-License-Identifier: Apache-2.0 */
/* kv_rig.h - a KV manager without a node around it: one tenant, spaces of 64-byte blocks */
#ifndef WFI_PERF_KV_RIG_H
#define WFI_PERF_KV_RIG_H

#include "perf/peers.h"
#include "weft_internal/env.h"
#include "weft_internal/kvcache.h"

#define WFI_PERF_KV_PUT_MAX 1024u

struct wfi_perf_kv {
	struct wfi_env env;
	struct wfi_kv *kv;
	struct wfi_tenant *tenant;
	struct wfi_owner owner;
	struct wfi_space_info space;
	uint64_t empty_bytes; /* state before any block */
	bool owned;
};

/* room for @nr_blocks; blocks are never touched. Return: 0, -errno (said) */
int wfi_perf_kv_open(struct wfi_perf_kv *kv, uint64_t nr_blocks);
/* the same, with @policy (NULL: the default) */
int wfi_perf_kv_open_with(struct wfi_perf_kv *kv, const struct wfi_evict_policy *policy,
			  uint64_t nr_blocks);
/* takes one that wfi_perf_kv_open() left half made, too */
void wfi_perf_kv_close(struct wfi_perf_kv *kv);
/* one chain of up to WFI_PERF_KV_PUT_MAX new blocks: claimed and published, headers only */
int wfi_perf_kv_put(struct wfi_perf_kv *kv, const struct weft_key *keys, uint32_t nr);
/* another space, of @max_blocks at most (0: what there is room for), and the same in it */
int wfi_perf_kv_space(struct wfi_perf_kv *kv, const char *model, uint64_t max_blocks,
		      struct wfi_space_info *out);
int wfi_perf_kv_put_in(struct wfi_perf_kv *kv, uint32_t space, const struct weft_key *keys,
		       uint32_t nr);
/* what a prefill asks for: the prefix that is held is used, the rest published */
int wfi_perf_kv_request(struct wfi_perf_kv *kv, uint32_t space, const struct weft_key *keys,
			uint32_t nr);
/* bytes of index, slot and policy state a block */
double wfi_perf_kv_state(const struct wfi_perf_kv *kv, uint64_t nr_blocks);

/* the peer of look-ups: as many lines as an index has, on the same pages */
struct wfi_perf_kv_lines {
	struct wfi_peer_lines peer;
	struct wfi_map map;
};

/* @nr_reads: in one go, @nr_repeats times a round. Return: 0, -errno (said) */
int wfi_perf_kv_lines_open(struct wfi_perf_kv *kv, uint64_t nr_lines, uint32_t nr_reads,
			   uint32_t nr_repeats, struct wfi_perf_kv_lines *out);
/* takes one that is zero, too */
void wfi_perf_kv_lines_close(struct wfi_perf_kv *kv, struct wfi_perf_kv_lines *lines);

/* growth comes to its end, as it does in a node that polls */
void wfi_perf_kv_settle(struct wfi_perf_kv *kv);

#endif
