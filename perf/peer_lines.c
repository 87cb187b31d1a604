/* SPDX-License-Identifier: Apache-2.0 */
/* peer_lines.c - one random cache line a block, prefetched: the floor of any index in DRAM */
#include "perf/peers.h"
#include "perf/perf.h"
#include "weft_internal/util.h"

#define AHEAD 24u

static uint64_t read_lines(const struct wfi_peer_lines *l)
{
	const char *table = l->table;
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < AHEAD && i < l->nr_reads; i++)
		__builtin_prefetch(table + (uint64_t)l->order[i] * WFI_CACHELINE);
	for (i = 0; i + AHEAD < l->nr_reads; i++) {
		__builtin_prefetch(table + (uint64_t)l->order[i + AHEAD] * WFI_CACHELINE);
		sum += *(const uint64_t *)(table + (uint64_t)l->order[i] * WFI_CACHELINE);
	}
	for (; i < l->nr_reads; i++)
		sum += *(const uint64_t *)(table + (uint64_t)l->order[i] * WFI_CACHELINE);
	return sum;
}

int wfi_peer_lines_round(void *ctx, double *ns)
{
	struct wfi_peer_lines *l = ctx;
	uint64_t sum_ns = 0, start_ns;
	uint32_t r, i;

	for (r = 0; r < l->nr_repeats; r++) {
		for (i = 0; i < l->nr_reads; i++)
			l->order[i] =
				(uint32_t)((wfi_perf_rand(l->turn++) >> 32) * l->nr_lines >> 32);
		start_ns = wfi_perf_now_ns();
		wfi_perf_use(read_lines(l));
		sum_ns += wfi_perf_now_ns() - start_ns;
	}
	*ns = (double)sum_ns / l->nr_repeats / l->nr_reads;
	return 0;
}
