/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "kvcache/cluster/peer_read.h"
#include "weft_internal/util.h"

/* ---- memory that NICs reach ---- */

const struct weft_mr *wfi_nic_mr(const struct wfi_nic_memory *m, const struct weft_device *nic)
{
	unsigned i;

	for (i = 0; i < WFI_RAILS_MAX; i++)
		if (m->mrs[i] && m->mrs[i]->dev == nic)
			return m->mrs[i];
	return NULL;
}

bool wfi_nic_rails(const struct wfi_nic_memory *m, struct wfi_rail_mem mem[WFI_RAILS_MAX])
{
	bool any = false;
	unsigned i;

	for (i = 0; i < WFI_RAILS_MAX; i++) {
		const struct weft_mr *mr = mem[i].local_mr;

		mem[i].local_mr = mr ? wfi_nic_mr(m, mr->dev) : NULL;
		if (!mem[i].local_mr)
			mem[i].rkeys = NULL;
		/* what comes in messages a CPU would have to put there */
		mem[i].names = NULL;
		any |= mem[i].rkeys != NULL;
	}
	return any;
}

uint32_t wfi_nic_runs(const struct wfi_nic_memory *m, const struct wfi_piece *p,
		      struct wfi_piece *out, uint32_t max)
{
	const uint64_t off = (uintptr_t)p->local;
	uint64_t done, at, len;
	uint32_t n = 0;

	for (done = 0; done < p->len; done += len, n++) {
		if (n == max)
			return max + 1;
		len = wfi_min(wfi_gpu_shape_run(&m->shape, off + done, &at), p->len - done);
		out[n] = *p;
		out[n].local = (void *)(m->base + at);
		out[n].remote = p->remote + done;
		out[n].len = len;
	}
	return n;
}

/* ---- READs ---- */

static bool over_rails(const struct wfi_peer *peer)
{
	return peer->rails && wfi_rails_nr(peer->rails) > 1;
}

bool wfi_peer_reaches(struct wfi_peer *peer, const struct wfi_tenant *tenant,
		      const struct wfi_nic_memory *m)
{
	struct wfi_rail_mem mem[WFI_RAILS_MAX];

	if (!over_rails(peer))
		return wfi_nic_mr(m, peer->ep->dev);
	peer->arenas(peer, tenant, mem);
	return wfi_nic_rails(m, mem);
}

int wfi_peer_read(struct wfi_xfer_engine *xfer, struct wfi_peer *peer,
		  const struct wfi_tenant *tenant, const struct wfi_nic_memory *to,
		  struct wfi_xfer_opts *o, struct wfi_peer_read *out)
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
		if (to)
			wfi_nic_rails(to, mem);
		return wfi_rails_submit(peer->rails, o, mem, &out->over);
	}
	o->ep = peer->ep;
	o->local_mr = to ? wfi_nic_mr(to, peer->ep->dev) : arena->local;
	o->rkeys = &arena->rkey;
	if (!to) {
		o->gather = peer->gather;
		o->names = &arena->name;
	}
	return wfi_xfer_submit(xfer, o, &out->xfer);
}

void wfi_peer_read_cancel(struct wfi_xfer_engine *xfer, const struct wfi_peer_read *r)
{
	if (r->xfer)
		wfi_xfer_cancel(xfer, r->xfer);
	if (r->over)
		wfi_rails_cancel(r->over);
}
