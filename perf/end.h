/* SPDX-License-Identifier: Apache-2.0 */
/* end.h - one end of a connection between two processes: device, queues, memory, endpoint */
#ifndef WFI_PERF_END_H
#define WFI_PERF_END_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "weft/transport.h"
#include "weft_internal/env.h"
#include "weft_internal/gather.h"

#define WFI_END_DEPTH 128u

struct wfi_end {
	struct wfi_env env;
	int sock; /* to the other side; whose it is, is its owner's business, as .env is */
	struct weft_device *dev; /* NULL: not open */
	struct weft_cq *send_cq, *recv_cq;
	struct weft_mr *mr;
	struct weft_export right; /* to all of .mr, for every peer */
	struct weft_ep *ep;
	struct weft_rkey *rkey; /* to the other's memory */
	struct wfi_gather *link; /* over .ep, for who opens one; hears of its end */
	bool is_closed; /* WEFT_WC_CLOSED of .ep was polled */
};

/* whole or not at all. Return: 0, -ECONNRESET; says nothing */
int wfi_end_tell(int sock, const void *buf, size_t len);
int wfi_end_hear(int sock, void *buf, size_t len);
/* Return: 0, -errno with what wfi_end_close() takes */
int wfi_end_open(struct wfi_end *e, const struct weft_transport *t,
		 const struct weft_device_opts *dev, const struct weft_mr_opts *mr);
void wfi_end_close(struct wfi_end *e);
/* @recv_bytes: 0: the provider's. Return: 0 with @mine, -errno */
int wfi_end_ep_open(struct wfi_end *e, uint32_t recv_bytes, struct weft_ep_addr *mine);
/* both at once, with what the other side is and has. @pid: of a peer on this host, or 0 */
int wfi_end_ep_join(struct wfi_end *e, const struct weft_ep_addr *addr,
		    const struct weft_export *right, pid_t pid);
/* ends it, and waits for that */
void wfi_end_ep_close(struct wfi_end *e);

#endif
