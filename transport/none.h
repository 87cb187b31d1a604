/* SPDX-License-Identifier: Apache-2.0 */
/* none.h - the table of a provider that was not built: all of it but name and probe */
#ifndef WFI_TRANSPORT_NONE_H
#define WFI_TRANSPORT_NONE_H

#include "transport/core.h"

int wfi_none_device_open(const struct weft_transport *t, struct wfi_env *env,
			 const struct weft_device_opts *opts, struct weft_device **out);
void wfi_none_device_close(struct weft_device *dev);
int wfi_none_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out);
void wfi_none_mr_dereg(struct weft_mr *mr);
int wfi_none_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
		       struct weft_export *out);
int wfi_none_mr_revoke(struct weft_mr *mr, uint64_t id);
int wfi_none_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			 struct weft_rkey **out);
void *wfi_none_rkey_ptr(const struct weft_rkey *rkey);
void wfi_none_rkey_destroy(struct weft_rkey *rkey);
int wfi_none_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		       struct weft_cq **out);
void wfi_none_cq_destroy(struct weft_cq *cq);
int wfi_none_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max);
void wfi_none_cq_disarm(struct weft_cq *cq);
int wfi_none_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
		       struct weft_ep **out);
int wfi_none_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out);
int wfi_none_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer);
void wfi_none_ep_shutdown(struct weft_ep *ep);
void wfi_none_ep_destroy(struct weft_ep *ep);

/* what follows .name and .probe in its table */
#define WFI_NONE_OPS                                                                               \
	.device_open = wfi_none_device_open, .device_close = wfi_none_device_close,                \
	.mr_reg = wfi_none_mr_reg, .mr_dereg = wfi_none_mr_dereg, .mr_export = wfi_none_mr_export, \
	.mr_revoke = wfi_none_mr_revoke, .rkey_import = wfi_none_rkey_import,                      \
	.rkey_destroy = wfi_none_rkey_destroy, .rkey_ptr = wfi_none_rkey_ptr,                      \
	.cq_create = wfi_none_cq_create, .cq_destroy = wfi_none_cq_destroy,                        \
	.cq_arm = wfi_none_cq_arm, .cq_disarm = wfi_none_cq_disarm,                                \
	.ep_create = wfi_none_ep_create, .ep_addr = wfi_none_ep_addr,                              \
	.ep_connect = wfi_none_ep_connect, .ep_shutdown = wfi_none_ep_shutdown,                    \
	.ep_destroy = wfi_none_ep_destroy, .port_open = wfi_no_port_open,                          \
	.port_close = wfi_no_port_close, .port_addr = wfi_no_port_addr,                            \
	.port_poll = wfi_no_port_poll, .port_accept = wfi_no_port_accept,                          \
	.port_refuse = wfi_no_port_refuse, .ep_dial = wfi_no_ep_dial

#endif
