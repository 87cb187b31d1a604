/* SPDX-License-Identifier: Apache-2.0 */
/* peer_read.h - READs from a peer's arena: over its connection, or all of its rails */
#ifndef WFI_PEER_READ_H
#define WFI_PEER_READ_H

#include "weft_internal/handoff.h"
#include "weft_internal/nic_memory.h"

/* one that is under way. Zero: none */
struct wfi_peer_read {
	struct weft_ep *ep; /* NULL: over rails, which know theirs */
	/* one of the two */
	struct wfi_xfer *xfer;
	struct wfi_rails_xfer *over;
};

/**
 * wfi_peer_read - starts one
 * @to: NULL: to our arena; else where it goes straight to, which no CPU sums up
 * @o: .pieces, .nr_pieces, .nr_blocks, .results, .sums, .sum_ops, .deadline_ns, .done, .late and
 *     .ctx; the rest is filled in
 *
 * Return: as wfi_xfer_submit(), wfi_rails_submit(); -EXDEV the peer shares no arena of that tenant
 */
int wfi_peer_read(struct wfi_xfer_engine *xfer, struct wfi_peer *peer,
		  const struct wfi_tenant *tenant, const struct wfi_nic_memory *to,
		  struct wfi_xfer_opts *o, struct wfi_peer_read *out);
/* its done() comes, perhaps from within. Takes one that is none */
void wfi_peer_read_cancel(struct wfi_xfer_engine *xfer, const struct wfi_peer_read *r);

/* ---- memory that NICs reach ---- */

/* Return: the region as that NIC has it; NULL: it does not reach it */
const struct weft_mr *wfi_nic_mr(const struct wfi_nic_memory *m, const struct weft_device *nic);
/* over the rails that reach it, and no other. Return: whether there are any */
bool wfi_nic_rails(const struct wfi_nic_memory *m, struct wfi_rail_mem mem[WFI_RAILS_MAX]);
/* is there a way that wfi_peer_read() could go? */
bool wfi_peer_reaches(struct wfi_peer *peer, const struct wfi_tenant *tenant,
		      const struct wfi_nic_memory *m);
/* a piece whose .local is an offset, as the region counts, as the runs that it is at NICs. Return:
 * how many; more than @max: there are more, of which @out has the first */
uint32_t wfi_nic_runs(const struct wfi_nic_memory *m, const struct wfi_piece *p,
		      struct wfi_piece *out, uint32_t max);

#endif
