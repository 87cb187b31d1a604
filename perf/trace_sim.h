/* SPDX-License-Identifier: Apache-2.0 */
/**
 * trace_sim.h - plays request traces against eviction policies, outside the node
 *
 * A pure library: it reads no file and no clock. A trace is filled request by request, then played
 * any number of times: one cache of blocks, leaf first, with any policy of weft_internal/evict.h.
 *
 * A request is the chain of its blocks. Its longest prefix that is held hits, and is touched,
 * deepest block first; the rest is published, head first. Blocks of the request itself are never
 * evicted for it; what finds no room (a chain longer than the cache) is not kept.
 *
 * Context: any one thread for a trace being filled; any threads for one that is only played.
 */
#ifndef WFI_PERF_TRACE_SIM_H
#define WFI_PERF_TRACE_SIM_H

#include <stddef.h>
#include <stdint.h>
#include "weft_internal/env.h"
#include "weft_internal/evict.h"

struct wfi_tsim;

struct wfi_tsim_result {
	uint64_t nr_refs; /* blocks asked for */
	uint64_t nr_hits; /* of them, in a prefix that was held */
	uint64_t nr_tokens; /* asked for */
	uint64_t nr_hit_tokens; /* of them, in blocks that hit */
	uint64_t nr_inserts;
	uint64_t nr_evicts;
	uint64_t policy_bytes;
};

/* @block_tokens: of a full block */
int wfi_tsim_create(struct wfi_env *env, uint32_t block_tokens, struct wfi_tsim **out);
void wfi_tsim_destroy(struct wfi_tsim *sim);

/**
 * wfi_tsim_add - append a request
 * @ids: lent for the call; an id names its block and, with it, all before it in the chain
 * @now_ns: not before the request before it
 * @nr_tokens: of the prompt; the last block is seldom full
 *
 * Return: 0; -ENOMEM; -EINVAL when time goes back; -EOVERFLOW past 2^31 block references
 */
int wfi_tsim_add(struct wfi_tsim *sim, uint64_t now_ns, const uint64_t *ids, uint32_t nr,
		 uint64_t nr_tokens);
/* of a request that was added: when it came, instead. Not before the request before it.
 * Return: 0, -ERANGE there is no such request, -EINVAL time goes back */
int wfi_tsim_set_time(struct wfi_tsim *sim, uint64_t request, uint64_t now_ns);
uint64_t wfi_tsim_nr_requests(const struct wfi_tsim *sim);
uint64_t wfi_tsim_nr_blocks(const struct wfi_tsim *sim); /* distinct ones */

/**
 * wfi_tsim_play - play requests [first, end) into an empty cache of @nr_slots blocks
 *
 * Return: 0; -ENOMEM; -EINVAL no slots; -ERANGE when there are no such requests
 */
int wfi_tsim_play(const struct wfi_tsim *sim, const struct wfi_evict_policy *policy,
		  uint32_t nr_slots, uint64_t seed, uint64_t first, uint64_t end,
		  struct wfi_tsim_result *out);

/* what nobody can beat by much: evicts the block whose next use is farthest. Takes O(log n) a
 * step */
int wfi_tsim_play_belady(const struct wfi_tsim *sim, uint32_t nr_slots, uint64_t first,
			 uint64_t end, struct wfi_tsim_result *out);

#endif
