/* SPDX-License-Identifier: Apache-2.0 */
/* peer_line.c - one cache line that two cores pass to each other: the floor of any round trip */
#include <stdatomic.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "weft_internal/util.h"

struct pingpong {
	_Alignas(2 * WFI_CACHELINE) _Atomic uint32_t ball; /* odd: the partner's turn */
	_Alignas(2 * WFI_CACHELINE) uint32_t nr;
};

static void *partner(void *arg)
{
	struct pingpong *pp = arg;
	uint32_t i;

	for (i = 0; i < pp->nr; i++) {
		while (atomic_load_explicit(&pp->ball, memory_order_acquire) != 2 * i + 1)
			;
		atomic_store_explicit(&pp->ball, 2 * i + 2, memory_order_release);
	}
	return NULL;
}

static void play(struct pingpong *pp, uint32_t first, uint32_t end)
{
	uint32_t i;

	for (i = first; i < end; i++) {
		atomic_store_explicit(&pp->ball, 2 * i + 1, memory_order_release);
		while (atomic_load_explicit(&pp->ball, memory_order_acquire) != 2 * i + 2)
			;
	}
}

int wfi_peer_line_round(void *ctx, double *ns)
{
	const struct wfi_peer_trips *trips = ctx;
	struct pingpong pp = { .nr = trips->nr + 1 };
	pthread_t thread;
	uint64_t start_ns;
	int ret;

	ret = wfi_perf_partner(&thread, partner, &pp);
	if (ret)
		return ret;
	play(&pp, 0, 1); /* the partner is there */
	start_ns = wfi_perf_now_ns();
	play(&pp, 1, pp.nr);
	*ns = (double)(wfi_perf_now_ns() - start_ns) / trips->nr;
	pthread_join(thread, NULL);
	return 0;
}
