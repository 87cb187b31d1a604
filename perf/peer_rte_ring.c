/* SPDX-License-Identifier: Apache-2.0 */
/* peer_rte_ring.c - DPDK's ring: a pair of them, one producer and one consumer, 64-byte elements */
#include <errno.h>
#include <rte_ring_elem.h>
#include <rte_ring.h>
#include <stdlib.h>
#include "perf/peers.h"
#include "perf/perf.h"

#define DEPTH 256u

struct element {
	uint64_t words[8];
};

struct pair {
	struct rte_ring *there;
	struct rte_ring *back;
	uint32_t nr;
};

static struct rte_ring *ring_create(void)
{
	ssize_t len = rte_ring_get_memsize_elem(sizeof(struct element), DEPTH);
	struct rte_ring *ring;

	if (len < 0)
		return NULL;
	ring = aligned_alloc(RTE_CACHE_LINE_SIZE, ((size_t)len + 127) & ~127ul);
	if (ring && rte_ring_init(ring, "weft-perf", DEPTH, RING_F_SP_ENQ | RING_F_SC_DEQ)) {
		free(ring);
		return NULL;
	}
	return ring;
}

static void *partner(void *arg)
{
	struct pair *pair = arg;
	struct element e;
	uint32_t i;

	for (i = 0; i < pair->nr; i++) {
		while (rte_ring_sc_dequeue_elem(pair->there, &e, sizeof(e)))
			;
		while (rte_ring_sp_enqueue_elem(pair->back, &e, sizeof(e)))
			;
	}
	return NULL;
}

static void play(struct pair *pair, uint32_t nr)
{
	struct element e = { { 0 } };
	uint32_t i;

	for (i = 0; i < nr; i++) {
		e.words[0] = i;
		while (rte_ring_sp_enqueue_elem(pair->there, &e, sizeof(e)))
			;
		while (rte_ring_sc_dequeue_elem(pair->back, &e, sizeof(e)))
			;
		wfi_perf_use(e.words[0]);
	}
}

int wfi_peer_rte_ring_round(void *ctx, double *ns)
{
	const struct wfi_peer_trips *trips = ctx;
	struct pair pair = { ring_create(), ring_create(), trips->nr + 1 };
	int ret = -ENOMEM;
	pthread_t thread;
	uint64_t start_ns;

	if (!pair.there || !pair.back)
		goto out_free;
	ret = wfi_perf_partner(&thread, partner, &pair);
	if (ret)
		goto out_free;
	play(&pair, 1); /* the partner is there */
	start_ns = wfi_perf_now_ns();
	play(&pair, trips->nr);
	*ns = (double)(wfi_perf_now_ns() - start_ns) / trips->nr;
	pthread_join(thread, NULL);
out_free:
	free(pair.there);
	free(pair.back);
	return ret;
}

const char *wfi_peer_rte_ring_skipped(void)
{
	return NULL;
}
