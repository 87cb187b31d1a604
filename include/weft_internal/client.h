/* SPDX-License-Identifier: Apache-2.0 */
/**
 * client.h - the engine's side below weft_open(): attach over a connected socket
 *
 * weft_open() itself lives above (it may start an embedded node, and ring/ knows no node), and so
 * do weft_key_chain() and weft_key_from_hash() (ring/ knows no hash).
 */
#ifndef WFI_CLIENT_H
#define WFI_CLIENT_H

#include "weft/weft.h"

/* gives a connected SOCK_SEQPACKET socket; called again by weft_reattach(). Return: fd or -errno */
struct wfi_connector {
	int (*connect)(struct wfi_connector *c); /* says why when it fails: wfi_client_why() */
	void (*destroy)(struct wfi_connector *c); /* at weft_close(), after the session is over */
};

/* @opts: NULL for the defaults. The connector is handed over, also on failure */
int wfi_client_attach(const struct weft_opts *opts, struct wfi_connector *c, struct weft **out);
/* connector for a socket path, resolved as weft_opts.socket says */
int wfi_connector_unix(const char *path, struct wfi_connector **out);

/* sets what weft_why() says on this thread */
void wfi_client_why(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* the same with a text that lives for ever. Return: @ret, to fail in one line */
int wfi_client_fail(int ret, const char *text);
/* CLOCK_MONOTONIC */
uint64_t wfi_client_now_ms(void);

/* bytes that struct weft_opts had before it grew */
#define WFI_OPTS_LEAST offsetof(struct weft_opts, gpu_tier_bytes)

/**
 * wfi_client_opts - an option struct of a program that may be older or newer than this library
 * @out: @known bytes, filled with what the program gave and zeros
 * @in: starts with its size (size_t)
 * @least: bytes that the struct had in its first release
 *
 * Return: 0; -EINVAL when it is too short, or has a tail that is unknown here and not zero.
 */
int wfi_client_opts(void *out, size_t known, const void *in, size_t least, const char *name);

/* what keys are made with: 16 bytes, the same over weft_reattach() */
const uint8_t *wfi_space_secret_bytes(const struct weft_space *space);
uint32_t wfi_space_tokens_per_block(const struct weft_space *space);

#endif
