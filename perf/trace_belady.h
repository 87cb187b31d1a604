/* SPDX-License-Identifier: Apache-2.0 */
/* trace_belady.h - the policy that knows the future; for trace_sim.c alone */
#ifndef WFI_PERF_TRACE_BELADY_H
#define WFI_PERF_TRACE_BELADY_H

#include "weft_internal/evict.h"

/*
 * Its environment carries the future: uses[first[b]] to uses[first[b + 1]] are the times at which
 * block b is used, ascending. Times are the caller's own count; key_hash is the block's number.
 */
struct wfi_tsim_future {
	struct wfi_env env;
	uint64_t nr_blocks;
	const uint64_t *first;
	const uint32_t *uses;
};

extern const struct wfi_evict_policy wfi_tsim_belady;

#endif
