/* SPDX-License-Identifier: Apache-2.0 */
/* peer_rte_ring_none.c - stands in where weft-perf is built without DPDK */
#include <errno.h>
#include "perf/peers.h"

int wfi_peer_rte_ring_round(void *ctx, double *ns)
{
	(void)ctx;
	(void)ns;
	return -EOPNOTSUPP;
}

const char *wfi_peer_rte_ring_skipped(void)
{
	return "built without DPDK";
}
