/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "kvcache/cluster/peer_read.h"

static bool over_rails(const struct wfi_peer *peer)
{
	return peer->rails && wfi_rails_nr(peer->rails) > 1;
}

int wfi_peer_read(struct wfi_xfer_engine *xfer, struct wfi_peer *peer,
		  const struct wfi_tenant *tenant, struct wfi_xfer_opts *o,
		  struct wfi_peer_read *out)
{
	const struct wfi_peer_arena *arena = peer->arena(peer, tenant);
	struct wfi_rail_mem mem[WFI_RAILS_MAX];

	if (!arena)
		return -EXDEV;
	*out = (struct wfi_peer_read){ .ep = peer->ep };
	o->dir = WFI_XFER_READ;
	o->nr_rkeys = 1;
	if (over_rails(peer)) {
		out->ep = NULL;
		peer->arenas(peer, tenant, mem);
		return wfi_rails_submit(peer->rails, o, mem, &out->over);
	}
	o->ep = peer->ep;
	o->local_mr = arena->local;
	o->rkeys = &arena->rkey;
	o->gather = peer->gather;
	o->names = &arena->name;
	return wfi_xfer_submit(xfer, o, &out->xfer);
}

void wfi_peer_read_cancel(struct wfi_xfer_engine *xfer, const struct wfi_peer_read *r)
{
	if (r->xfer)
		wfi_xfer_cancel(xfer, r->xfer);
	if (r->over)
		wfi_rails_cancel(r->over);
}
