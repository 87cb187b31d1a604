/* SPDX-License-Identifier: Apache-2.0 */
/**
 * http_query.h - the question of /route: input, as JSON or as arguments of a URL
 *
 *	{"space": "MODEL", "keys": ["32 hex digits", ...] or "tokens": [1, 2, ...],
 *	 "nodes": ["NAME" or "0xID", ...], "block_us": 1000}
 */
#ifndef WEFTD_HTTP_QUERY_H
#define WEFTD_HTTP_QUERY_H

#include <stddef.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft/ring.h"

#define HTTP_KEYS_MAX 8192u
#define HTTP_TOKENS_MAX (64u << 10)
#define HTTP_WHY 160

struct http_query {
	char space[2 * WEFT_NAME_MAX]; /* a model, MODEL:LAYOUT, or an id of weft ls --json */
	uint32_t block_us;
	uint32_t nr_keys, nr_tokens; /* one of them is 0 */
	uint32_t nr_nodes; /* 0: all that the node knows */
	char nodes[WEFT_ROUTES_MAX][64];
	struct weft_key keys[HTTP_KEYS_MAX]; /* of tokens, later made of them */
	uint32_t tokens[HTTP_TOKENS_MAX];
};

/* @q: zeros. Return: 0, -EINVAL with a sentence in @why */
int http_query_json(struct http_query *q, const char *text, size_t len, char why[HTTP_WHY]);
/* one argument of a URL; lists have commas between their items. Return: the same */
int http_query_arg(struct http_query *q, const char *key, const char *value, char why[HTTP_WHY]);
/* is it all there? Return: the same */
int http_query_check(const struct http_query *q, char why[HTTP_WHY]);

#endif
