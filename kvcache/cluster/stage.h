/* SPDX-License-Identifier: Apache-2.0 */
/* stage.h - pushes to other nodes out of memory of engines' own: by way of slots here */
#ifndef WFI_STAGE_H
#define WFI_STAGE_H

#include "shape.h"

/* of a push that is in PUSH_SENDING: parts are copied out and sent as there is room.
 * Return: bytes sent or copied; -EAGAIN nothing goes now; or why the push ends */
int64_t wfi_stage_go(struct wfi_handoffs *hs, struct push *p);
/* the receiver has answered for a part. Return: false: it was not asked */
bool wfi_stage_answered(struct push *p, uint32_t part);
/* of a push in PUSH_ENDING: what was not sent is given up, and copies end, perhaps within. Where
 * there are any, wfi_push_copied() comes with the last */
void wfi_stage_cancel(struct wfi_handoffs *hs, struct push *p);
/* nobody reads, and no copy fills, its slots any more */
void wfi_stage_free(struct wfi_handoffs *hs, struct push *p);
void wfi_stages_fini(struct wfi_handoffs *hs);

/* ---- push.c ---- */

/* one message of a push: @nr blocks from @first on, counted in the push. Return: 0, as .send() */
int wfi_push_send(struct wfi_handoffs *hs, struct push *p, uint32_t part, uint32_t first,
		  uint32_t nr, const struct wfi_msg_piece *pieces);
/* no copy of a push that is in PUSH_ENDING is under way any more */
void wfi_push_copied(struct wfi_handoffs *hs, struct push *p);
/* one does not end: the engine hears so, and what it touches is kept until it has */
void wfi_push_late(struct wfi_handoffs *hs, struct push *p, int res);

#endif
