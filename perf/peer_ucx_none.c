/* SPDX-License-Identifier: Apache-2.0 */
/* peer_ucx_none.c - in place of peer_ucx.c where there is no libucp */
#include <errno.h>
#include "perf/verbs_rig.h"

const char *wfi_peer_ucx_why(void)
{
	return "built without UCX (libucx-dev)";
}

int wfi_peer_ucx_open(const struct wfi_vrig_place *place, uint32_t nr, uint32_t bytes,
		      uint32_t stride, const uint32_t *order, struct wfi_peer_ucx **out)
{
	(void)place;
	(void)nr;
	(void)bytes;
	(void)stride;
	(void)order;
	(void)out;
	return -EOPNOTSUPP;
}

void wfi_peer_ucx_close(struct wfi_peer_ucx *u)
{
	(void)u;
}

int wfi_peer_ucx_round(void *ctx, double *out)
{
	(void)ctx;
	(void)out;
	return -EOPNOTSUPP;
}

int wfi_peer_ucx_serve(const struct wfi_vrig_place *place, int sock)
{
	(void)place;
	(void)sock;
	return -EOPNOTSUPP;
}
