/* SPDX-License-Identifier: Apache-2.0 */
/**
 * spiffe.h - names of nodes in certificates: spiffe://TRUST-DOMAIN/weft/node/NAME
 *
 * The form is that of the SPIFFE ID standard (github.com/spiffe/spiffe, standards/SPIFFE-ID.md):
 * one URI among the certificate's alternative names, of lower-case scheme and trust domain, with
 * neither port, query nor fragment.
 *
 * Context: any thread; no state.
 */
#ifndef WEFTD_SPIFFE_H
#define WEFTD_SPIFFE_H

#include <stdbool.h>
#include <stddef.h>

#define SPIFFE_MAX 256 /* bytes of an id or a pattern, its zero included */
#define SPIFFE_PATH "/weft/node/"
#define SPIFFE_NODE_MAX 64

/* the name at the end of a node's id. Return: 0, -EINVAL it is none, @node is then as it was */
int spiffe_node(const char *id, char node[SPIFFE_NODE_MAX]);
/* of letters that a domain has: a-z, 0-9, '.', '-', '_' */
bool spiffe_domain_ok(const char *domain);
/* Return: 0, -ERANGE does not fit, -EINVAL no such domain or name */
int spiffe_make(const char *domain, const char *node, char id[SPIFFE_MAX]);
/* an id in which '*' may stand for any letters but '/' */
bool spiffe_pattern_ok(const char *pattern);
bool spiffe_match(const char *pattern, const char *id);
/* what lets in all nodes of the trust domain that a node's @id is of */
void spiffe_siblings(const char *id, char pattern[SPIFFE_MAX]);

#endif
