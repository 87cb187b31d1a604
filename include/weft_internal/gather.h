/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gather.h - small pieces of transfers in messages, gathered here and scattered there
 *
 * A NIC takes as long for a piece of 64 bytes as for one of some kilobytes. Where a provider says
 * what a piece costs (weft_caps.cost_per_piece_ns), the transfer engine sends pieces below a
 * threshold as messages of many pieces each. The engine of the peer scatters them into regions that
 * it serves, and answers; for a READ it answers with the bytes. Rights and ranges are checked
 * there, piece by piece: a piece that is wrong fails as it would have failed posted by itself.
 *
 * Both sides open a link over their endpoint, give its events to wfi_gather_event(), and serve
 * regions; the names of these travel with the exports of the regions, and a transfer says link and
 * names in its options. Each message is answered by one, WFI_GATHER_WINDOW may be under way in each
 * direction: give the endpoint room for twice as many (weft_ep_opts.recv_bytes) beside its other
 * messages.
 *
 * Memory that a link reaches, at either side, is read and written by CPU: no device memory.
 *
 * Context: the thread of the engine.
 */
#ifndef WFI_GATHER_H
#define WFI_GATHER_H

#include <stdint.h>
#include "weft/transport.h"

#define WFI_GATHER_WINDOW 16u
#define WFI_GATHER_REGIONS 256u

struct wfi_gather;
struct wfi_xfer_engine;

/* a region, as the peer that serves it calls it. On the wire. Zero: none */
struct wfi_gather_name {
	uint16_t region;
	uint16_t gen; /* moves on when the region is taken back */
};

/**
 * wfi_gather_open - a link over an endpoint whose peer opens one too
 * @ep: not shut down yet; its provider has messages. Lent until wfi_gather_close()
 * @peer_max_msg: weft_caps.max_msg of the peer's device; 0: as ours. Both sides say the same
 *
 * From here to wfi_gather_close() the engine polls its send_cq. Measures what copies cost on this
 * machine when the device's pieces have a cost: cold, below 1 ms.
 * Return: 0, -EOPNOTSUPP messages are too short to carry pieces, -EAGAIN too many queues, -ENOMEM
 */
int wfi_gather_open(struct wfi_xfer_engine *eng, struct weft_ep *ep, uint32_t peer_max_msg,
		    struct wfi_gather **out);
/* takes NULL. After WEFT_WC_CLOSED was given to it and no transfer names it any more */
void wfi_gather_close(struct wfi_gather *g);
/* bytes below which pieces go in messages; 0: never */
uint32_t wfi_gather_threshold(const struct wfi_gather *g);

/**
 * wfi_gather_serve - let the peer reach a part of a region over this link
 * @mr: of the same device, host memory; lent until wfi_gather_unserve() or _close()
 * @opts: as for mr_export(); NULL: all of it, with all rights that it has
 * @name: for the peer, whose offset 0 is opts->off, as in the export
 *
 * Return: 0, -EINVAL, -EACCES, -ERANGE as mr_export(), -ENOSPC too many
 */
int wfi_gather_serve(struct wfi_gather *g, const struct weft_mr *mr,
		     const struct weft_export_opts *opts, struct wfi_gather_name *name);
/* when it returns, nothing that the peer sends, or has sent, touches the region any more */
void wfi_gather_unserve(struct wfi_gather *g, struct wfi_gather_name name);

/**
 * wfi_gather_event - an event of the endpoint's recv_cq, every one in its order
 *
 * Calls no done(): the next wfi_xfer_poll() does. Hot.
 * Return: 1 it was a message of the link's, 0 it is for others (WEFT_WC_CLOSED too), -EPROTO the
 * peer breaks the rules: end the endpoint
 */
int wfi_gather_event(struct wfi_gather *g, const struct weft_wc *wc);

#endif
