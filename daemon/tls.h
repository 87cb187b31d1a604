/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tls.h - connections over TLS 1.3, both sides with certificates (RFC 8446)
 *
 * Both sides prove to be a node (spiffe.h) whose certificate is of one of the authorities in
 * opts.ca and not expired; the names that are let in are those of opts.allow. Times are those of
 * the environment; random numbers are libcrypto's own. SIGPIPE is to be ignored: libssl writes to
 * sockets by write(2).
 */
#ifndef WEFTD_TLS_H
#define WEFTD_TLS_H

#include "secure.h"
#include "weft_internal/env.h"

#define TLS_ALLOW_MAX 16u

/* paths of PEM files; all texts are copied */
struct tls_opts {
	struct wfi_env *env;
	const char *cert; /* ours, then those between it and the authority's, if there are any */
	const char *key;
	const char *ca;
	const char *node; /* whom our certificate has to name */
	const char *const *allow; /* patterns; none: all nodes of our trust domain */
	unsigned nr_allow;
};

/* Return: 0; -EOPNOTSUPP built without TLS; -EINVAL, -ENOENT and others: @why has a sentence */
int tls_create(const struct tls_opts *opts, struct secure **out, char why[SECURE_WHY]);
/* no session is left. Takes NULL */
void tls_destroy(struct secure *s);

#endif
