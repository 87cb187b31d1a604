/* SPDX-License-Identifier: Apache-2.0 */
/* peer_read.h - READs from a peer's arena: over its connection, or all of its rails */
#ifndef WFI_PEER_READ_H
#define WFI_PEER_READ_H

#include "weft_internal/handoff.h"

/* one that is under way. Zero: none */
struct wfi_peer_read {
	struct weft_ep *ep; /* NULL: over rails, which know theirs */
	/* one of the two */
	struct wfi_xfer *xfer;
	struct wfi_rails_xfer *over;
};

/**
 * wfi_peer_read - starts one
 * @o: .pieces, .nr_pieces, .nr_blocks, .results, .sums, .sum_ops, .deadline_ns, .done and .ctx;
 *     the rest is filled in
 *
 * Return: as wfi_xfer_submit(); -EXDEV the peer shares no arena of that tenant
 */
int wfi_peer_read(struct wfi_xfer_engine *xfer, struct wfi_peer *peer,
		  const struct wfi_tenant *tenant, struct wfi_xfer_opts *o,
		  struct wfi_peer_read *out);
/* its done() comes, perhaps from within. Takes one that is none */
void wfi_peer_read_cancel(struct wfi_xfer_engine *xfer, const struct wfi_peer_read *r);

#endif
