/* SPDX-License-Identifier: Apache-2.0 */
/* peer_loop.c - arithmetic that touches no memory: what the machine takes from any thread */
#include <errno.h>
#include <stdlib.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "weft_internal/util.h"

static void step(uint32_t nr_ops)
{
	uint64_t v = nr_ops;

	while (nr_ops--) {
		v = v * 6364136223846793005 + 1;
		wfi_perf_use(v);
	}
}

int wfi_peer_loop_longest_us(void *ctx, double *us)
{
	const struct wfi_peer_loop *loop = ctx;
	const uint64_t end_ns = wfi_perf_now_ns() + loop->total_ns;
	uint64_t longest_ns = 0, start_ns;

	while (wfi_perf_now_ns() < end_ns) {
		start_ns = wfi_perf_busy_ns();
		step(loop->nr_ops);
		longest_ns = wfi_max(longest_ns, wfi_perf_busy_ns() - start_ns);
	}
	*us = (double)longest_ns / 1e3;
	return 0;
}

int wfi_peer_loop_p999_us(void *ctx, double *us)
{
	const struct wfi_peer_loop *loop = ctx;
	uint32_t *times = calloc(loop->nr_steps, sizeof(*times)), i;
	uint64_t start_ns;

	if (!times)
		return -ENOMEM;
	for (i = 0; i < loop->nr_steps; i++) {
		start_ns = wfi_perf_now_ns();
		step(loop->nr_ops);
		times[i] = (uint32_t)(wfi_perf_now_ns() - start_ns);
	}
	*us = wfi_perf_p999(times, loop->nr_steps) / 1e3;
	free(times);
	return 0;
}
