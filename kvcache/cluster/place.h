/* SPDX-License-Identifier: Apache-2.0 */
/* place.h - pushes inside the node out of, and into, memory of engines' own */
#ifndef WFI_PLACE_H
#define WFI_PLACE_H

#include "handoff_private.h"

/* a push that was found good but for its blocks: one side has places. Return: 0, done() comes; or
 * as wfi_handoff_push() */
int wfi_place_push(struct wfi_handoffs *hs, struct handoff *h, const struct wfi_push_opts *o);
/* whether a push with a layout can go straight to @h, which takes layouts: both sides have places,
 * on one GPU, @h's in one region */
bool wfi_place_can_shape(const struct handoff *h, const struct wfi_push_opts *o);
/* it does: as wfi_place_push() */
int wfi_place_shape(struct wfi_handoffs *hs, struct handoff *h, const struct wfi_push_opts *o);
/* those that wait for events. Return: work done */
int wfi_place_poll(struct wfi_handoffs *hs, uint64_t now_ns);
/* @h ends: so do its copies, perhaps within */
void wfi_place_cancel(struct wfi_handoffs *hs, struct handoff *h);
/* an engine whose memory is copied from is gone */
void wfi_place_owner_gone(struct wfi_handoffs *hs, uint32_t owner);

#endif
