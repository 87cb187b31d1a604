/* SPDX-License-Identifier: Apache-2.0 */
/**
 * client.h - the engine's side below weft_open(): attach over a connected socket
 *
 * weft_open() itself lives above (it may start an embedded node, and ring/ knows no node).
 */
#ifndef WFI_CLIENT_H
#define WFI_CLIENT_H

#include "weft/weft.h"

/* gives a connected SOCK_SEQPACKET socket; called again by weft_reattach(). Return: fd or -errno */
struct wfi_connector {
	int (*connect)(struct wfi_connector *c);
	void (*destroy)(struct wfi_connector *c); /* at weft_close(), after the session is over */
};

/* the connector is handed over, also on failure */
int wfi_client_attach(const struct weft_opts *opts, struct wfi_connector *c, struct weft **out);
/* connector for a socket path, resolved as weft_opts.socket says */
int wfi_connector_unix(const char *path, struct wfi_connector **out);
/* sets what weft_why() says on this thread */
void wfi_client_why(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
