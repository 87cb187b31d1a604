/* SPDX-License-Identifier: Apache-2.0 */
/* tier.h - what the KV manager asks of its mover (tier.c) */
#ifndef WFI_TIER_PRIVATE_H
#define WFI_TIER_PRIVATE_H

#include "kvcache/kv_private.h"
#include "weft_internal/tier.h"

/*
 * offers a block that was chosen for eviction, and is out of the tree already.
 * Return: true when its slot is to be held, by a pin, until it is written
 */
bool wfi_mover_take(struct kv_mover *m, struct kv_run *run, uint32_t slot,
		    const struct weft_key *parent);
/* a claim came before the room that was made for it: @nr blocks went unwritten */
void wfi_mover_short(struct kv_mover *m, struct kv_space *space, uint64_t nr);
/* Return: whether the tier had it */
bool wfi_mover_drop(struct kv_mover *m, const struct kv_space *space, const struct weft_key *key);
/* of slots that a tenant leases, those with WFI_SLOT_BELOW: all of them, or none. Return: 0,
 * -EDQUOT */
int wfi_mover_keep(struct kv_mover *m, const struct wfi_tenant *t, const uint32_t *slots,
		   uint32_t nr);
void wfi_mover_unkeep(struct kv_mover *m, const uint32_t *slots, uint32_t nr);
/* whose blocks those of a space are, and what that tenant has a right to.
 * Return: bytes of the space that may lie there */
uint64_t wfi_mover_share(struct kv_mover *m, const struct kv_space *space);
/* a space is open from here on: blocks that an earlier life has left may be its */
void wfi_mover_opened(struct kv_mover *m, const struct kv_space *space);
/* as the tier's each */
uint32_t wfi_mover_each(const struct kv_mover *m, const struct kv_space *space, uint32_t from,
			uint32_t nr, void (*fn)(void *ctx, const struct wfi_tier_block *b),
			void *ctx);
struct wfi_tier *wfi_mover_tier(const struct kv_mover *m);
enum weft_tier wfi_mover_kind(const struct kv_mover *m);
/* blocks of a space that are on their way: each @up has one claim, each @down one slot that is
 * pinned and in quarantine */
void wfi_mover_use(const struct kv_mover *m, const struct kv_space *space, uint32_t *up,
		   uint32_t *down);
/* Return: whether a slot of the tier that is leased has a block of the space, or had it */
bool wfi_mover_is_of(const struct kv_mover *m, const struct kv_space *space, uint32_t tier_slot);
/* a space leaves: what is on its way up is not published */
void wfi_mover_leave(struct kv_mover *m, const struct kv_space *space);
/* the tier still looks for what it has */
bool wfi_mover_opens(const struct kv_mover *m);
/* its blocks in the tier go, a slice from *@at (0 at first) on. Return: true when all have */
bool wfi_mover_clear(struct kv_mover *m, const struct kv_space *space, uint64_t *at);
/* slots of a space that are kept free ahead of who will want them */
uint64_t wfi_mover_low(const struct kv_space *space);
int wfi_mover_poll(struct kv_mover *m, uint64_t now_ns);
uint64_t wfi_mover_next_event_ns(const struct kv_mover *m);
/* closes the tier too. Takes NULL */
void wfi_mover_destroy(struct kv_mover *m);

#endif
