/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/http_query.h"
#include "daemon/value.h"

#define ARG_MAX 8192u /* bytes of a list in a URL */

__attribute__((format(printf, 2, 3))) static int wrong(char why[HTTP_WHY], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, HTTP_WHY, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- items ---- */

static int key_add(struct http_query *q, const char *text, char why[HTTP_WHY])
{
	uint8_t bytes[16];
	struct weft_key key = { 0, 0 };
	unsigned i;

	if (q->nr_keys == HTTP_KEYS_MAX)
		return wrong(why, "keys: more than %u", HTTP_KEYS_MAX);
	if (strlen(text) != 32 || wfi_value_hex(text, bytes, sizeof(bytes)) != 16)
		return wrong(why, "keys: number %u is not 32 hex digits", q->nr_keys + 1);
	for (i = 0; i < 8; i++) {
		key.hi = key.hi << 8 | bytes[i];
		key.lo = key.lo << 8 | bytes[8 + i];
	}
	q->keys[q->nr_keys++] = key;
	return 0;
}

static int token_add(struct http_query *q, uint64_t token, char why[HTTP_WHY])
{
	if (q->nr_tokens == HTTP_TOKENS_MAX)
		return wrong(why, "tokens: more than %u", HTTP_TOKENS_MAX);
	if (token > UINT32_MAX)
		return wrong(why, "tokens: number %u is not from 0 to %u", q->nr_tokens + 1,
			     UINT32_MAX);
	q->tokens[q->nr_tokens++] = (uint32_t)token;
	return 0;
}

static int node_add(struct http_query *q, const char *text, char why[HTTP_WHY])
{
	if (q->nr_nodes == WEFT_ROUTES_MAX)
		return wrong(why, "nodes: more than %u", WEFT_ROUTES_MAX);
	if (!*text || strlen(text) >= sizeof(q->nodes[0]))
		return wrong(why, "nodes: number %u is neither a name nor an id", q->nr_nodes + 1);
	strcpy(q->nodes[q->nr_nodes++], text);
	return 0;
}

static int space_set(struct http_query *q, const char *text, char why[HTTP_WHY])
{
	if (strlen(text) >= sizeof(q->space))
		return wrong(why, "space: a name has at most %zu bytes", sizeof(q->space) - 1);
	strcpy(q->space, text);
	return 0;
}

static int block_us_set(struct http_query *q, uint64_t us, char why[HTTP_WHY])
{
	if (!us || us > 3600u * 1000000u)
		return wrong(why, "block_us: not from 1 to 3600000000");
	q->block_us = (uint32_t)us;
	return 0;
}

/* ---- JSON ---- */

static int json_keys(struct http_query *q, const json_t *list, char why[HTTP_WHY])
{
	const json_t *item;
	size_t i;
	int ret = 0;

	if (!json_is_array(list))
		return wrong(why, "keys: not a list");
	for (i = 0; i < json_array_size(list) && !ret; i++) {
		item = json_array_get(list, i);
		ret = json_is_string(item) ? key_add(q, json_string_value(item), why)
					   : wrong(why, "keys: number %zu is not text", i + 1);
	}
	return ret;
}

static int json_tokens(struct http_query *q, const json_t *list, char why[HTTP_WHY])
{
	const json_t *item;
	size_t i;
	int ret = 0;

	if (!json_is_array(list))
		return wrong(why, "tokens: not a list");
	for (i = 0; i < json_array_size(list) && !ret; i++) {
		item = json_array_get(list, i);
		/* those below 0 are far above what a token can be */
		ret = json_is_integer(item)
			      ? token_add(q, (uint64_t)json_integer_value(item), why)
			      : wrong(why, "tokens: number %zu is not a whole number", i + 1);
	}
	return ret;
}

static int json_nodes(struct http_query *q, const json_t *list, char why[HTTP_WHY])
{
	const json_t *item;
	size_t i;
	int ret = 0;

	if (!json_is_array(list))
		return wrong(why, "nodes: not a list");
	for (i = 0; i < json_array_size(list) && !ret; i++) {
		item = json_array_get(list, i);
		ret = json_is_string(item) ? node_add(q, json_string_value(item), why)
					   : wrong(why, "nodes: number %zu is not text", i + 1);
	}
	return ret;
}

static int json_space(struct http_query *q, const json_t *value, char why[HTTP_WHY])
{
	return json_is_string(value) ? space_set(q, json_string_value(value), why)
				     : wrong(why, "space: not text");
}

static int json_block_us(struct http_query *q, const json_t *value, char why[HTTP_WHY])
{
	return json_is_integer(value) ? block_us_set(q, (uint64_t)json_integer_value(value), why)
				      : wrong(why, "block_us: not a whole number");
}

static const struct {
	const char *key;
	int (*take)(struct http_query *q, const json_t *value, char why[HTTP_WHY]);
} fields[] = {
	{ "space", json_space }, { "keys", json_keys },		{ "tokens", json_tokens },
	{ "nodes", json_nodes }, { "block_us", json_block_us },
};

static int field_take(struct http_query *q, const char *key, const json_t *value,
		      char why[HTTP_WHY])
{
	size_t i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (!strcmp(key, fields[i].key))
			return fields[i].take(q, value, why);
	return wrong(why, "\"%.40s\" is unknown: there are space, keys, tokens, nodes and block_us",
		     key);
}

int http_query_json(struct http_query *q, const char *text, size_t len, char why[HTTP_WHY])
{
	json_error_t err;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &err);
	const char *key;
	json_t *value;
	int ret = 0;

	if (!root)
		return wrong(why, "the body is no JSON: line %d: %.100s", err.line, err.text);
	if (!json_is_object(root))
		ret = wrong(why, "the body is no object");
	else
		json_object_foreach(root, key, value) if (!ret)
			ret = field_take(q, key, value, why);
	json_decref(root);
	return ret;
}

/* ---- arguments ---- */

static int list_take(struct http_query *q, const char *value,
		     int (*add)(struct http_query *q, const char *item, char why[HTTP_WHY]),
		     char why[HTTP_WHY])
{
	char text[ARG_MAX], *at = text, *item;
	int ret = 0;

	if (strlen(value) >= sizeof(text))
		return wrong(why, "a list in a URL has at most %u bytes: POST it as JSON",
			     ARG_MAX - 1);
	strcpy(text, value);
	while (!ret && (item = strsep(&at, ",")))
		ret = add(q, item, why);
	return ret;
}

static int token_text(struct http_query *q, const char *item, char why[HTTP_WHY])
{
	uint64_t token;

	if (wfi_value_u64(item, &token))
		return wrong(why, "tokens: number %u is not a number", q->nr_tokens + 1);
	return token_add(q, token, why);
}

int http_query_arg(struct http_query *q, const char *key, const char *value, char why[HTTP_WHY])
{
	uint64_t us;

	if (!strcmp(key, "space"))
		return space_set(q, value, why);
	if (!strcmp(key, "keys"))
		return list_take(q, value, key_add, why);
	if (!strcmp(key, "tokens"))
		return list_take(q, value, token_text, why);
	if (!strcmp(key, "nodes"))
		return list_take(q, value, node_add, why);
	if (strcmp(key, "block_us") != 0)
		return wrong(why,
			     "\"%.40s\" is unknown: there are space, keys, tokens, nodes and "
			     "block_us",
			     key);
	if (wfi_value_u64(value, &us))
		return wrong(why, "block_us: not a number");
	return block_us_set(q, us, why);
}

int http_query_check(const struct http_query *q, char why[HTTP_WHY])
{
	if (!q->space[0])
		return wrong(why, "space is missing: a model, MODEL:LAYOUT, or an id");
	if (!q->nr_keys == !q->nr_tokens)
		return wrong(why, "one of keys and tokens is needed");
	return 0;
}
