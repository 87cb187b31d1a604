/* SPDX-License-Identifier: Apache-2.0 */
/* member_record.c - records of members as JSON */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kvcache/cluster/member_private.h"
#include "weft_internal/util.h"

#define NODE_ID_KEY "weft node id"
#define DEPTH_MAX 16

uint64_t wfi_member_id(const char *name)
{
	unsigned char id[crypto_generichash_BYTES_MIN];
	uint64_t out;

	crypto_generichash(id, sizeof(id), (const unsigned char *)name, strlen(name),
			   (const unsigned char *)NODE_ID_KEY, sizeof(NODE_ID_KEY) - 1);
	memcpy(&out, id, sizeof(out));
	return out | !out;
}

void wfi_member_host(char out[72])
{
	FILE *in = fopen("/proc/sys/kernel/random/boot_id", "re");
	char boot[40] = "";
	struct stat mounts;

	out[0] = 0;
	if (in && fgets(boot, sizeof(boot), in) && !stat("/proc/self/ns/mnt", &mounts)) {
		boot[strcspn(boot, "\n")] = 0;
		snprintf(out, 72, "%s.%" PRIu64, boot, (uint64_t)mounts.st_ino);
	}
	if (in)
		fclose(in);
}

int member_complain(char *why, size_t why_len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, why_len, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* the parser recurses: it is not shown what is deeper than anything of ours */
static bool too_deep(const char *text, size_t len)
{
	bool quoted = false;
	int depth = 0;
	size_t i;

	for (i = 0; i < len; i++) {
		if (quoted) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				quoted = false;
			continue;
		}
		if (text[i] == '"')
			quoted = true;
		else if (text[i] == '{' || text[i] == '[')
			depth++;
		else if (text[i] == '}' || text[i] == ']')
			depth--;
		if (depth > DEPTH_MAX)
			return true;
	}
	return false;
}

json_t *member_json(const char *text, size_t len, char *why, size_t why_len)
{
	json_error_t err;
	json_t *json;

	if (too_deep(text, len)) {
		member_complain(why, why_len, "its JSON is deeper than %d", DEPTH_MAX);
		return NULL;
	}
	json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &err);
	if (!json)
		member_complain(why, why_len, "no JSON: %s (line %d)", err.text, err.line);
	return json;
}

bool member_name_ok(const char *name)
{
	const char *p;

	for (p = name; isalnum((unsigned char)*p) || (*p && strchr("._-", *p)); p++)
		;
	return p != name && !*p && p - name < (long)sizeof(((struct wfi_member *)0)->name);
}

struct source {
	const json_t *json;
	char *why;
	size_t why_len;
};

/* a text of printable ASCII, "" when it is not there */
static int text_get(const struct source *s, const char *key, char *out, size_t len)
{
	const json_t *v = json_object_get(s->json, key);
	const char *text = json_string_value(v);
	size_t i;

	if (!v)
		return 0;
	if (!text || json_string_length(v) >= len)
		return member_complain(s->why, s->why_len, "%s is no text of up to %zu bytes", key,
				       len - 1);
	for (i = 0; text[i]; i++)
		if (text[i] < ' ' || text[i] > '~')
			return member_complain(s->why, s->why_len,
					       "%s has a character that none of its kind has", key);
	memcpy(out, text, i);
	return 0;
}

/* a number, or a text of one: 64 bits are more than JSON's numbers surely keep */
static int number_get(const struct source *s, const char *key, uint64_t *out)
{
	const json_t *v = json_object_get(s->json, key);
	const char *text = json_string_value(v);
	char *end;

	if (!v)
		return 0;
	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*out = (uint64_t)json_integer_value(v);
		return 0;
	}
	if (text && isxdigit((unsigned char)text[0])) {
		errno = 0;
		*out = strtoull(text, &end, 0);
		if (!*end && !errno)
			return 0;
	}
	return member_complain(s->why, s->why_len, "%s is no number of 64 bits", key);
}

static int state_get(const struct source *s, struct member_record *r)
{
	const json_t *v = json_object_get(s->json, "state");
	const char *text = json_string_value(v);

	if (!v || (text && !strcmp(text, "up")))
		return 0;
	if (text && !strcmp(text, "draining"))
		r->m.flags |= WFI_MEMBER_DRAINING;
	else if (text && !strcmp(text, "leaving"))
		r->leaving = true;
	else
		return member_complain(s->why, s->why_len,
				       "state is none of up, draining, leaving");
	return 0;
}

int member_decode(const json_t *json, struct member_record *out, char *why, size_t why_len)
{
	const struct source s = { .json = json, .why = why, .why_len = why_len };
	struct member_record r;

	memset(&r, 0, sizeof(r));
	if (!json_is_object(json))
		return member_complain(why, why_len, "a record is an object");
	if (text_get(&s, "name", r.m.name, sizeof(r.m.name)) ||
	    text_get(&s, "host", r.m.host, sizeof(r.m.host)) ||
	    text_get(&s, "socket", r.m.socket, sizeof(r.m.socket)) ||
	    text_get(&s, "address", r.m.addr, sizeof(r.m.addr)) ||
	    text_get(&s, "transport", r.m.transport, sizeof(r.m.transport)) ||
	    text_get(&s, "version", r.m.version, sizeof(r.m.version)) ||
	    number_get(&s, "node", &r.m.node) || number_get(&s, "incarnation", &r.m.incarnation) ||
	    number_get(&s, "born_ns", &r.m.born_ns) || number_get(&s, "capacity", &r.m.capacity) ||
	    number_get(&s, "base", &r.base) || number_get(&s, "over", &r.over) || state_get(&s, &r))
		return -EINVAL;
	if (!member_name_ok(r.m.name))
		return member_complain(why, why_len, "name \"%s\" is none", r.m.name);
	if (r.m.socket[0] && r.m.socket[0] != '/')
		return member_complain(why, why_len, "socket does not start with '/'");
	if (r.base > UINT64_MAX / 4 || r.over > UINT64_MAX / 4)
		return member_complain(why, why_len, "base or over is out of range");
	if (!r.m.node)
		r.m.node = wfi_member_id(r.m.name);
	memcpy(out, &r, sizeof(r));
	return 0;
}

char *member_encode(const struct member_record *r)
{
	const char *state = r->leaving			       ? "leaving"
			    : r->m.flags & WFI_MEMBER_DRAINING ? "draining"
							       : "up";
	char node[24], incarnation[24], born[24];
	json_t *json;
	char *text;

	snprintf(node, sizeof(node), "0x%" PRIx64, r->m.node);
	snprintf(incarnation, sizeof(incarnation), "0x%" PRIx64, r->m.incarnation);
	snprintf(born, sizeof(born), "%" PRIu64, r->m.born_ns);
	json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s}",
			 "name", r->m.name, "node", node, "incarnation", incarnation, "born_ns",
			 born, "host", r->m.host, "socket", r->m.socket, "address", r->m.addr,
			 "transport", r->m.transport, "version", r->m.version, "capacity",
			 (json_int_t)r->m.capacity, "base", (json_int_t)r->base, "over",
			 (json_int_t)r->over, "state", state);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

/* ---- a file of them ---- */

static int members_get(const json_t *list, struct member_file *f, char *why, size_t why_len)
{
	struct member_record r;
	char what[160];
	unsigned i, k;

	if (list && !json_is_array(list))
		return member_complain(why, why_len, "members is no list");
	if (json_array_size(list) > WFI_MEMBERS_MAX)
		return member_complain(why, why_len, "more than %u members", WFI_MEMBERS_MAX);
	for (i = 0; i < json_array_size(list); i++) {
		if (member_decode(json_array_get(list, i), &r, what, sizeof(what)))
			return member_complain(why, why_len, "member %u: %s", i + 1, what);
		for (k = 0; k < i; k++)
			if (f->members[k].node == r.m.node || !strcmp(f->members[k].name, r.m.name))
				return member_complain(why, why_len,
						       "members \"%s\" and \"%s\" have one name or "
						       "id: give each its own",
						       f->members[k].name, r.m.name);
		f->members[f->nr++] = r.m;
	}
	return 0;
}

/* texts stay, numbers and truths become texts, an object becomes its own JSON */
static json_t *value_text(const json_t *v)
{
	char *text;
	json_t *out;

	if (json_is_string(v))
		return json_string(json_string_value(v));
	text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
	out = text ? json_string(text) : NULL;
	free(text);
	return out;
}

static int values_get(json_t *root, const char *kind, json_t *out, char *why, size_t why_len)
{
	json_t *group = json_object_get(root, kind), *v;
	const char *key;
	char name[96];

	if (group && !json_is_object(group))
		return member_complain(why, why_len, "%s is no object", kind);
	json_object_foreach(group, key, v)
	{
		if (!member_name_ok(key))
			return member_complain(why, why_len, "%s has a name that is none", kind);
		if (json_object_size(out) == MEMBER_VALUES_MAX)
			return member_complain(why, why_len, "more than %u settings and tenants",
					       MEMBER_VALUES_MAX);
		snprintf(name, sizeof(name), "%s/%s", kind, key);
		json_object_set_new(out, name, value_text(v));
	}
	return 0;
}

int member_file_decode(const char *text, size_t len, struct member_file *out, char *why,
		       size_t why_len)
{
	json_t *root = member_json(text, len, why, why_len);
	int ret = -EINVAL;

	memset(out, 0, sizeof(*out));
	if (!root)
		return -EINVAL;
	out->values = json_object();
	if (!json_is_object(root))
		member_complain(why, why_len, "it is no object");
	else if (!members_get(json_object_get(root, "members"), out, why, why_len) &&
		 !values_get(root, "settings", out->values, why, why_len) &&
		 !values_get(root, "tenants", out->values, why, why_len))
		ret = 0;
	json_decref(root);
	if (!ret)
		return 0;
	json_decref(out->values);
	out->values = NULL;
	return ret;
}
