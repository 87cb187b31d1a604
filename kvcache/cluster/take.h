/* SPDX-License-Identifier: Apache-2.0 */
/* take.h - messages of peers for handoffs whose blocks are to lie in memory of an engine's */
#ifndef WFI_TAKE_H
#define WFI_TAKE_H

#include "shape.h"

/* a message for a handoff with places, whose ranges are good. @source: of the layout that it has;
 * NULL: none. Return: 0, it will be answered; or what to answer */
int wfi_take_message(struct wfi_handoffs *hs, struct wfi_peer *peer, struct handoff *h,
		     struct source *source, const struct wfi_msg_layers *m,
		     const struct wfi_msg_piece *pieces, uint64_t now_ns);
/* @h ends: so do its parts, perhaps within */
void wfi_takes_cancel(struct wfi_handoffs *hs, const struct handoff *h);
/* READs from it are answered to nobody */
void wfi_takes_peer_lost(struct wfi_handoffs *hs, const struct wfi_peer *peer);
uint32_t wfi_takes_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep);
void wfi_takes_fini(struct wfi_handoffs *hs);

#endif
