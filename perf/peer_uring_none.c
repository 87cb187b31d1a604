/* SPDX-License-Identifier: Apache-2.0 */
/* peer_uring_none.c - stands in where weft-perf is built without liburing */
#include <errno.h>
#include "perf/peers.h"

int wfi_peer_uring_create(const struct wfi_peer_trips *trips, struct wfi_peer_uring **out)
{
	(void)trips;
	(void)out;
	return -EOPNOTSUPP;
}

void wfi_peer_uring_destroy(struct wfi_peer_uring *u)
{
	(void)u;
}

int wfi_peer_uring_nop_round(void *ctx, double *ns)
{
	(void)ctx;
	(void)ns;
	return -EOPNOTSUPP;
}

int wfi_peer_uring_batch_round(void *ctx, double *rate)
{
	(void)ctx;
	(void)rate;
	return -EOPNOTSUPP;
}
