/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pair.h - two processes joined by a transport, one of which moves bytes of the other
 *
 * The initiator is this process, on the engine's CPU; the target is a child, on the node's. The
 * memory of both is known to both, so that what arrived can be looked at without asking. The target
 * sleeps but for the time between wfi_pair_begin() and wfi_pair_end().
 */
#ifndef WFI_PERF_PAIR_H
#define WFI_PERF_PAIR_H

#include <stdint.h>
#include "weft_internal/xfer.h"

struct wfi_pair;

/* @device: of that transport; NULL: its first. Return: 0, -EOPNOTSUPP no such transport in this
 * build, -errno (said) */
int wfi_pair_open(const char *transport, const char *device, uint64_t bytes, struct wfi_pair **out);
/* takes NULL */
void wfi_pair_close(struct wfi_pair *pair);
/* .bytes of each, zero at first */
uint8_t *wfi_pair_here(struct wfi_pair *pair);
uint8_t *wfi_pair_there(struct wfi_pair *pair);
/* the target polls. Return: 0, -errno */
int wfi_pair_begin(struct wfi_pair *pair);
int wfi_pair_end(struct wfi_pair *pair);
/* for posts without a transfer. The target sends messages back */
struct weft_ep *wfi_pair_ep(struct wfi_pair *pair);
/* the right to all of the other's memory */
const struct weft_rkey *wfi_pair_rkey(const struct wfi_pair *pair);
/* one transfer, until it is complete; .local of all lies in our memory. Return: its result */
int wfi_pair_move(struct wfi_pair *pair, enum wfi_xfer_dir dir, const struct wfi_piece *pieces,
		  uint32_t nr);

#endif
