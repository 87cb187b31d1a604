/* SPDX-License-Identifier: Apache-2.0 */
/* shape.h - what pushes of one layout into blocks of another take, on both sides */
#ifndef WFI_SHAPE_H
#define WFI_SHAPE_H

#include "handoff_private.h"

#define SHAPE_RUNS_MAX 16384u /* of a layer of a block */

/* elements lie inside the block, and none on another. Return: 0, -EINVAL */
int wfi_shape_check(const struct weft_layout *l, uint64_t block_bytes);
/* one layer of a block whose first token is @token of the handoff's, cut to @kv_first .. + @nr_kv,
 * and to tokens before @end */
struct wfi_layout wfi_shape_layer(const struct weft_layout *l, uint64_t token, uint64_t end,
				  uint32_t kv_first, uint32_t nr_kv);

/* ---- sender ---- */

/* of a block at @base whose first token is @token: the sum that a message says */
uint32_t wfi_shape_crc(const struct weft_layout *l, const void *base, uint64_t token, uint64_t end,
		       uint32_t layer, uint32_t nr_layers, struct wfi_run *runs);

/* ---- receiver: what a handoff keeps ---- */

struct shape;

int wfi_shape_open(struct wfi_handoffs *hs, struct handoff *h, const struct weft_layout *layout);
/* that all blocks of a handoff hold; 0: it has no shape */
uint64_t wfi_shape_tokens(const struct handoff *h);
void wfi_shape_close(struct wfi_handoffs *hs, struct handoff *h);
/* a message. Return: 0, it will be answered; or what to answer */
int wfi_shape_message(struct wfi_handoffs *hs, struct wfi_peer *peer, struct handoff *h,
		      const struct wfi_msg_shaped *m, const struct wfi_msg_piece *pieces,
		      uint64_t now_ns);
void wfi_shape_cancel(struct wfi_handoffs *hs, const struct handoff *h);
/* READs from it are answered to nobody */
void wfi_shape_peer_lost(struct wfi_handoffs *hs, const struct wfi_peer *peer);
bool wfi_shape_fed_by(const struct handoff *h, const struct wfi_peer *peer);
uint32_t wfi_shape_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep);
void wfi_shape_fini(struct wfi_handoffs *hs);

#endif
