/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvcache/cluster/etcd_wire.h"

/* google.rpc.Code */
enum { CODE_NOT_FOUND = 5, CODE_PERMISSION = 7, CODE_UNAUTHENTICATED = 16 };

/* ---- answers ---- */

static int error_of(int64_t code, const char *text)
{
	if (code == CODE_UNAUTHENTICATED || strstr(text, "authentication failed") ||
	    strstr(text, "user name is empty"))
		return -EACCES;
	if (code == CODE_PERMISSION)
		return -EPERM;
	if (code == CODE_NOT_FOUND)
		return -ENOENT;
	return -EREMOTEIO;
}

/* unary answers have a text, streams an object */
static int error_answer(const json_t *root, const json_t *error, char *why, size_t why_len)
{
	const json_t *of = json_is_object(error) ? error : root;
	const char *text = json_string_value(json_object_get(of, "message"));
	const json_t *code = json_object_get(of, json_is_object(error) ? "grpc_code" : "code");

	if (!text)
		text = json_string_value(error);
	if (!text)
		text = "an error without a text";
	member_complain(why, why_len, "%.200s", text);
	return error_of(json_integer_value(code), text);
}

json_t *etcd_answer(const char *text, size_t len, int *err, char *why, size_t why_len)
{
	json_t *root, *error, *result;
	char what[160];

	root = member_json(text, len, what, sizeof(what));
	if (!json_is_object(root)) {
		*err = -EBADMSG;
		member_complain(why, why_len, "what answers is no etcd: %s",
				root ? "no object" : what);
		json_decref(root);
		return NULL;
	}
	error = json_object_get(root, "error");
	if (error) {
		*err = error_answer(root, error, why, why_len);
		json_decref(root);
		return NULL;
	}
	result = json_object_get(root, "result");
	if (!result)
		return root;
	json_incref(result);
	json_decref(root);
	return result;
}

uint64_t etcd_number(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);
	const char *text = json_string_value(v);
	char *end;
	uint64_t n;

	if (json_is_integer(v) && json_integer_value(v) > 0)
		return (uint64_t)json_integer_value(v);
	if (!text || *text < '0' || *text > '9')
		return 0;
	n = strtoull(text, &end, 10);
	/* etcd's are signed, and what is added to them is to fit as well */
	return *end || n > INT64_MAX ? 0 : n;
}

uint64_t etcd_revision(const json_t *answer)
{
	return etcd_number(json_object_get(answer, "header"), "revision");
}

/* Return: bytes, with a zero behind them; -EBADMSG no base64, -EMSGSIZE */
static int base64_get(const json_t *v, char *out, size_t len)
{
	const char *text = json_string_value(v), *end;
	size_t got;

	out[0] = 0;
	if (!text)
		return v ? -EBADMSG : 0;
	if (sodium_base642bin((unsigned char *)out, len - 1, text, json_string_length(v), NULL,
			      &got, &end, sodium_base64_VARIANT_ORIGINAL)) {
		out[0] = 0;
		return errno == ERANGE ? -EMSGSIZE : -EBADMSG;
	}
	if (*end) {
		out[0] = 0;
		return -EBADMSG;
	}
	out[got] = 0;
	return (int)got;
}

int etcd_kv_decode(const json_t *kv, struct etcd_kv *out)
{
	int len;

	memset(out, 0, sizeof(*out));
	if (!json_is_object(kv))
		return -EBADMSG;
	len = base64_get(json_object_get(kv, "key"), out->key, sizeof(out->key));
	if (len == -EMSGSIZE || (len > 0 && strlen(out->key) != (size_t)len))
		out->key[0] = 0;
	else if (len <= 0)
		return -EBADMSG;
	out->create_rev = etcd_number(kv, "create_revision");
	out->mod_rev = etcd_number(kv, "mod_revision");
	out->lease = etcd_number(kv, "lease");
	len = base64_get(json_object_get(kv, "value"), out->value, sizeof(out->value));
	if (len == -EMSGSIZE)
		out->bad = "too long";
	else if (len < 0)
		return -EBADMSG;
	else if (strlen(out->value) != (size_t)len)
		out->bad = "no text";
	else
		out->len = (size_t)len;
	return 0;
}

/* ---- requests ---- */

static json_t *base64(const char *text)
{
	const size_t len = strlen(text);
	const size_t room = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
	char *buf = malloc(room);
	json_t *out;

	if (!buf)
		return NULL;
	sodium_bin2base64(buf, room, (const unsigned char *)text, len,
			  sodium_base64_VARIANT_ORIGINAL);
	out = json_string(buf);
	free(buf);
	return out;
}

static json_t *number(uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, v);
	return json_string(text);
}

/* what comes right behind all that begins with @prefix */
static json_t *prefix_end(const char *prefix)
{
	char end[ETCD_KEY_MAX];
	size_t len = strlen(prefix);

	snprintf(end, sizeof(end), "%s", prefix);
	end[len - 1]++;
	return base64(end);
}

/* takes @req, which may be NULL */
static char *dump(json_t *req)
{
	char *text = req ? json_dumps(req, JSON_COMPACT) : NULL;

	json_decref(req);
	return text;
}

char *etcd_req_auth(const char *user, const char *password)
{
	return dump(json_pack("{s:s, s:s}", "name", user, "password", password));
}

char *etcd_req_range(const char *prefix, bool count_only)
{
	return dump(json_pack("{s:o, s:o, s:b}", "key", base64(prefix), "range_end",
			      prefix_end(prefix), "count_only", (int)count_only));
}

char *etcd_req_watch(const char *prefix, uint64_t start_rev)
{
	return dump(json_pack("{s:{s:o, s:o, s:o, s:b}}", "create_request", "key", base64(prefix),
			      "range_end", prefix_end(prefix), "start_revision", number(start_rev),
			      "progress_notify", 1));
}

char *etcd_req_grant(uint64_t ttl_s)
{
	return dump(json_pack("{s:o}", "TTL", number(ttl_s)));
}

char *etcd_req_lease(uint64_t lease)
{
	return dump(json_pack("{s:o}", "ID", number(lease)));
}

char *etcd_req_put(const char *key, const char *value, uint64_t lease, bool created, uint64_t rev)
{
	json_t *compare, *put, *get;

	compare = json_pack("{s:s, s:o, s:s, s:o}", "target", created ? "CREATE" : "MOD", "key",
			    base64(key), "result", "EQUAL",
			    created ? "create_revision" : "mod_revision", number(rev));
	put = json_pack("{s:{s:o, s:o, s:o}}", "request_put", "key", base64(key), "value",
			base64(value), "lease", number(lease));
	get = json_pack("{s:{s:o}}", "request_range", "key", base64(key));
	return dump(json_pack("{s:[o], s:[o], s:[o]}", "compare", compare, "success", put,
			      "failure", get));
}
