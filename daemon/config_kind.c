/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/config.h"
#include "daemon/config_kind.h"
#include "daemon/inet.h"
#include "daemon/spiffe.h"
#include "daemon/value.h"
#include "weft_internal/util.h"

int wfi_config_complain(struct wfi_config_source *src, const char *key, const char *fmt, ...)
{
	size_t used = 0;
	va_list ap;
	int n;

	if (src->line)
		n = snprintf(src->why, src->why_len, "%s:%u: ", src->file, src->line);
	else
		n = snprintf(src->why, src->why_len, "%s: ", src->file);
	used = wfi_min((uint64_t)n, src->why_len);
	n = snprintf(src->why + used, src->why_len - used, "%s%s%s%s", src->list ? src->list : "",
		     src->list && key ? "." : "", key ? key : "", src->list || key ? ": " : "");
	used = wfi_min(used + (uint64_t)n, src->why_len);
	va_start(ap, fmt);
	vsnprintf(src->why + used, src->why_len - used, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int bool_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base)
{
	bool *at = wfi_config_field(s, base);

	if (!strcmp(text, "true") || !strcmp(text, "yes") || !strcmp(text, "on"))
		*at = true;
	else if (!strcmp(text, "false") || !strcmp(text, "no") || !strcmp(text, "off"))
		*at = false;
	else
		return wfi_config_complain(src, s->key, "\"%s\" is not true or false", text);
	return 0;
}

static void bool_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	fputs(*(const bool *)wfi_config_field_const(s, base) ? "true" : "false", out);
}

static void quote(const char *text, FILE *out)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static int text_store(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base)
{
	char *at = wfi_config_field(s, base);

	if (strlen(text) >= s->room)
		return wfi_config_complain(src, s->key, "longer than %zu bytes", s->room - 1);
	memset(at, 0, s->room);
	memcpy(at, text, strlen(text));
	return 0;
}

static void text_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	quote(wfi_config_field_const(s, base), out);
}

/* @text: not empty. Return: 0, or the setting's complaint */
/* Return: whether @text is letters, digits and those of @more */
static bool made_of(const char *text, const char *more)
{
	const char *p;

	for (p = text; isalnum((unsigned char)*p) || (*p && strchr(more, *p)); p++)
		;
	return !*p && p != text;
}

static int name_check(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text)
{
	if (made_of(text, "._-"))
		return 0;
	return wfi_config_complain(
		src, s->key, "\"%s\" is no name: letters, digits, '.', '_' and '-' make one", text);
}

/* a NIC and its port, addresses, transports of UCX, and where they are */
static int device_check(struct wfi_config_source *src, const struct wfi_config_setting *s,
			const char *text)
{
	if (made_of(text, "._-:+@"))
		return 0;
	return wfi_config_complain(
		src, s->key, "\"%s\" is no name: letters, digits and . _ - : + @ make one", text);
}

static int name_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base)
{
	const int ret = name_check(src, s, text);

	return ret ? ret : text_store(src, s, text, base);
}

static int path_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base)
{
	const char *p;

	if (text[0] != '/')
		return wfi_config_complain(src, s->key, "\"%s\" does not start with '/'", text);
	for (p = text; *p; p++)
		if (iscntrl((unsigned char)*p))
			return wfi_config_complain(src, s->key, "has a control character");
	return text_store(src, s, text, base);
}

static int address_check(struct wfi_config_source *src, const struct wfi_config_setting *s,
			 const char *text)
{
	struct sockaddr_storage addr;
	socklen_t len;

	if (!inet_parse(text, &addr, &len))
		return 0;
	return wfi_config_complain(src, s->key, "\"%s\" is no address: IP:PORT or [IPv6]:PORT",
				   text);
}

/* "" stands for none; else one for each rail at most */
static int list_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base,
		      int (*check)(struct wfi_config_source *, const struct wfi_config_setting *,
				   const char *))
{
	char copy[WFI_CONFIG_PATH];
	const char *items[WFI_CONFIG_RAILS];
	unsigned nr, i;
	int ret;

	if (strlen(text) >= sizeof(copy))
		return text_store(src, s, text, base); /* which complains */
	strcpy(copy, text);
	nr = wfi_value_split(copy, items, WFI_CONFIG_RAILS);
	if (nr > WFI_CONFIG_RAILS)
		return wfi_config_complain(src, s->key, "has %u entries: %d at most", nr,
					   WFI_CONFIG_RAILS);
	for (i = 0; i < nr; i++) {
		ret = check(src, s, items[i]);
		if (ret)
			return ret;
	}
	return text_store(src, s, text, base);
}

static int device_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			const char *text, void *base)
{
	return list_parse(src, s, text, base, device_check);
}

static int address_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			 const char *text, void *base)
{
	return list_parse(src, s, text, base, address_check);
}

/* "" stands for none */
static int any_path_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			  const char *text, void *base)
{
	if (*text)
		return path_parse(src, s, text, base);
	*((char *)base + s->off) = '\0';
	return 0;
}

static int ids_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		     const char *text, void *base)
{
	char copy[WFI_CONFIG_ALLOW_TEXT];
	const char *items[WFI_CONFIG_ALLOW];
	unsigned nr, i;

	if (strlen(text) >= sizeof(copy))
		return text_store(src, s, text, base); /* which complains */
	strcpy(copy, text);
	nr = wfi_value_split(copy, items, WFI_CONFIG_ALLOW);
	if (nr > WFI_CONFIG_ALLOW)
		return wfi_config_complain(src, s->key, "has %u entries: %d at most", nr,
					   WFI_CONFIG_ALLOW);
	for (i = 0; i < nr; i++)
		if (!spiffe_pattern_ok(items[i]))
			return wfi_config_complain(
				src, s->key,
				"\"%s\" is not of the form spiffe://DOMAIN" SPIFFE_PATH "NAME",
				items[i]);
	return text_store(src, s, text, base);
}

static int choice_idx(const struct wfi_config_setting *s, const char *text)
{
	unsigned i;

	for (i = 0; s->choice(i); i++)
		if (!strcmp(s->choice(i), text))
			return (int)i;
	return -1;
}

static int choice_check(struct wfi_config_source *src, const struct wfi_config_setting *s,
			const char *text)
{
	struct wfi_nearest near;
	char all[160] = "";
	size_t used = 0;
	unsigned i;

	if (choice_idx(s, text) >= 0)
		return 0;
	wfi_nearest_init(&near, text);
	for (i = 0; s->choice(i); i++) {
		wfi_nearest_offer(&near, s->choice(i));
		if (used < sizeof(all))
			used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s",
						 i ? ", " : "", s->choice(i));
	}
	if (near.best)
		return wfi_config_complain(
			src, s->key, "unknown value \"%s\"; did you mean \"%s\"?", text, near.best);
	return wfi_config_complain(src, s->key, "unknown value \"%s\"; known are: %s", text, all);
}

static int policy_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			const char *text, void *base)
{
	const int ret = choice_check(src, s, text);

	return ret ? ret : text_store(src, s, text, base);
}

static int level_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		       const char *text, void *base)
{
	const int ret = choice_check(src, s, text);

	if (ret)
		return ret;
	*(enum wfi_log_level *)wfi_config_field(s, base) = (enum wfi_log_level)choice_idx(s, text);
	return 0;
}

static void level_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	quote(s->choice(*(const enum wfi_log_level *)wfi_config_field_const(s, base)), out);
}

static int range_store(struct wfi_config_source *src, const struct wfi_config_setting *s,
		       uint64_t v, const char *text, void (*format)(uint64_t, char *), void *base)
{
	char min[WFI_VALUE_TEXT], max[WFI_VALUE_TEXT];

	if (v < s->min || v > s->max) {
		format(s->min, min);
		format(s->max, max);
		return wfi_config_complain(src, s->key, "%s is out of range: %s to %s", text, min,
					   max);
	}
	*(uint64_t *)wfi_config_field(s, base) = s->unit_ns ? v / s->unit_ns : v;
	return 0;
}

static int size_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base)
{
	uint64_t v = 0;
	const int ret = wfi_value_size(text, &v);

	if (ret == -ERANGE)
		v = UINT64_MAX;
	else if (ret)
		return wfi_config_complain(src, s->key, "\"%s\" is not a size, as 512M or 4G are",
					   text);
	return range_store(src, s, v, text, wfi_value_format_size, base);
}

static void size_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	char text[WFI_VALUE_TEXT];

	wfi_value_format_size(*(const uint64_t *)wfi_config_field_const(s, base), text);
	quote(text, out);
}

static int duration_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			  const char *text, void *base)
{
	uint64_t v = 0;
	const int ret = wfi_value_duration(text, s->unit_ns, &v);

	if (ret == -ERANGE)
		v = UINT64_MAX;
	else if (ret)
		return wfi_config_complain(src, s->key,
					   "\"%s\" is not a duration, as 100ms or 5s are", text);
	if (v % s->unit_ns && v <= s->max)
		return wfi_config_complain(src, s->key, "%s is finer than the setting's unit",
					   text);
	return range_store(src, s, v, text, wfi_value_format_duration, base);
}

static void duration_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	char text[WFI_VALUE_TEXT];

	wfi_value_format_duration(*(const uint64_t *)wfi_config_field_const(s, base) * s->unit_ns,
				  text);
	quote(text, out);
}

static void count_format(uint64_t v, char *text)
{
	snprintf(text, WFI_VALUE_TEXT, "%" PRIu64, v);
}

static int count_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		       const char *text, void *base)
{
	uint64_t v;

	if (wfi_value_u64(text, &v))
		return wfi_config_complain(src, s->key, "\"%s\" is not a number", text);
	return range_store(src, s, v, text, count_format, base);
}

static void count_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	fprintf(out, "%" PRIu64, *(const uint64_t *)wfi_config_field_const(s, base));
}

static int id_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		    const char *text, void *base)
{
	uint64_t v;

	if (wfi_value_u64(text, &v))
		return wfi_config_complain(src, s->key, "\"%s\" is not a number of 64 bits", text);
	*(uint64_t *)wfi_config_field(s, base) = v;
	return 0;
}

static void id_print(const struct wfi_config_setting *s, const void *base, FILE *out)
{
	fprintf(out, "\"0x%" PRIx64 "\"", *(const uint64_t *)wfi_config_field_const(s, base));
}

static int token_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		       const char *text, void *base)
{
	struct wfi_config_tenant *t = base;

	if (t->has_token)
		return wfi_config_complain(src, s->key, "the token is given twice");
	if (!text[0])
		return wfi_config_complain(src, s->key,
					   "is empty; leave it out for engines without a token");
	t->has_token = true;
	src->inline_secret = true;
	return text_store(src, s, text, base);
}

static int salt_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      const char *text, void *base)
{
	struct wfi_config_tenant *t = base;

	if (t->has_salt)
		return wfi_config_complain(src, s->key, "the salt is given twice");
	if (wfi_value_hex(text, t->salt, sizeof(t->salt)) != (int)sizeof(t->salt))
		return wfi_config_complain(src, s->key, "is not %zu hex digits",
					   2 * sizeof(t->salt));
	t->has_salt = true;
	src->inline_secret = true;
	return 0;
}

int wfi_config_secret(const char *path, char *buf, size_t room)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t len;
	int ret;

	if (fd < 0)
		return -errno;
	len = read(fd, buf, room);
	ret = len < 0 || fstat(fd, &st) ? -errno : 0;
	close(fd);
	if (ret)
		return ret;
	if ((size_t)len == room)
		return -EFBIG;
	buf[len] = 0;
	buf[strcspn(buf, "\r\n")] = 0;
	if (st.st_mode & S_IROTH)
		wfi_warn("%s holds a secret and everybody may read it; chmod o-r %s", path, path);
	return 0;
}

static int secret_file_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			     const char *path, void *base,
			     int (*parse)(struct wfi_config_source *,
					  const struct wfi_config_setting *, const char *, void *))
{
	const bool inline_secret = src->inline_secret;
	char buf[128];
	int ret;

	if (path[0] != '/')
		return wfi_config_complain(src, s->key, "\"%s\" does not start with '/'", path);
	ret = wfi_config_secret(path, buf, sizeof(buf));
	if (ret == -EFBIG)
		ret = wfi_config_complain(src, s->key, "%s is longer than any secret", path);
	else if (ret)
		ret = wfi_config_complain(src, s->key, "%s: %s", path, strerror(-ret));
	else
		ret = parse(src, s, buf, base);
	src->inline_secret = inline_secret;
	sodium_memzero(buf, sizeof(buf));
	return ret;
}

static int token_file_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			    const char *path, void *base)
{
	return secret_file_parse(src, s, path, base, token_parse);
}

static int salt_file_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			   const char *path, void *base)
{
	return secret_file_parse(src, s, path, base, salt_parse);
}

static int endpoint_check(struct wfi_config_source *src, const struct wfi_config_setting *s,
			  const char *text)
{
	const char *p = strncmp(text, "http://", 7) ? text + 8 : text + 7;

	if (strncmp(text, "http://", 7) != 0 && strncmp(text, "https://", 8) != 0)
		return wfi_config_complain(
			src, s->key, "\"%s\" is no endpoint: http://HOST:PORT, or https://", text);
	for (; isalnum((unsigned char)*p) || (*p && strchr(".:-_[]", *p)); p++)
		;
	if (*p)
		return wfi_config_complain(src, s->key,
					   "\"%s\" has more than a host and its port; the user is "
					   "etcd_user",
					   text);
	return 0;
}

static int membership_parse(struct wfi_config_source *src, const struct wfi_config_setting *s,
			    const char *text, void *base)
{
	char copy[WFI_CONFIG_STORE];
	const char *items[WFI_CONFIG_ENDPOINTS];
	unsigned nr, i;

	if (strlen(text) >= sizeof(copy) || !strcmp(text, "none"))
		return text_store(src, s, text, base);
	if (!strncmp(text, "file:", 5))
		return text[5] == '/'
			       ? text_store(src, s, text, base)
			       : wfi_config_complain(src, s->key, "\"%s\" does not start with '/'",
						     text + 5);
	if (strncmp(text, "etcd:", 5) != 0)
		return wfi_config_complain(src, s->key,
					   "\"%s\" is none of none, file:PATH, etcd:URL,URL", text);
	strcpy(copy, text + 5);
	nr = wfi_value_split(copy, items, WFI_CONFIG_ENDPOINTS);
	if (!nr || nr > WFI_CONFIG_ENDPOINTS)
		return wfi_config_complain(src, s->key, "has %u endpoints: 1 to %d", nr,
					   WFI_CONFIG_ENDPOINTS);
	for (i = 0; i < nr; i++)
		if (endpoint_check(src, s, items[i]))
			return -EINVAL;
	return text_store(src, s, text, base);
}

const struct wfi_config_kind wfi_config_kind_bool = { "true or false", WFI_CONFIG_TAKES_BOOL,
						      bool_parse, bool_print };
const struct wfi_config_kind wfi_config_kind_name = { "a name in quotes", WFI_CONFIG_TAKES_STRING,
						      name_parse, text_print };
const struct wfi_config_kind wfi_config_kind_path = { "a path in quotes", WFI_CONFIG_TAKES_STRING,
						      path_parse, text_print };
const struct wfi_config_kind wfi_config_kind_address = { "an address in quotes",
							 WFI_CONFIG_TAKES_STRING, address_parse,
							 text_print };
const struct wfi_config_kind wfi_config_kind_device = { "a name in quotes", WFI_CONFIG_TAKES_STRING,
							device_parse, text_print };
const struct wfi_config_kind wfi_config_kind_any_path = { "a path in quotes",
							  WFI_CONFIG_TAKES_STRING, any_path_parse,
							  text_print };
const struct wfi_config_kind wfi_config_kind_ids = { "names in quotes", WFI_CONFIG_TAKES_STRING,
						     ids_parse, text_print };
const struct wfi_config_kind wfi_config_kind_policy = { "a name in quotes", WFI_CONFIG_TAKES_STRING,
							policy_parse, text_print };
const struct wfi_config_kind wfi_config_kind_level = { "a level in quotes", WFI_CONFIG_TAKES_STRING,
						       level_parse, level_print };
const struct wfi_config_kind wfi_config_kind_size = { "bytes, or a size in quotes as \"512M\"",
						      WFI_CONFIG_TAKES_NUMBER |
							      WFI_CONFIG_TAKES_STRING,
						      size_parse, size_print };
const struct wfi_config_kind wfi_config_kind_duration = {
	"a number, or a duration in quotes as \"5s\"",
	WFI_CONFIG_TAKES_NUMBER | WFI_CONFIG_TAKES_STRING, duration_parse, duration_print
};
const struct wfi_config_kind wfi_config_kind_count = { "a number", WFI_CONFIG_TAKES_NUMBER,
						       count_parse, count_print };
const struct wfi_config_kind wfi_config_kind_id = { "a number, or one in quotes",
						    WFI_CONFIG_TAKES_NUMBER |
							    WFI_CONFIG_TAKES_STRING,
						    id_parse, id_print };
const struct wfi_config_kind wfi_config_kind_token = { "text in quotes", WFI_CONFIG_TAKES_STRING,
						       token_parse, NULL };
const struct wfi_config_kind wfi_config_kind_salt = { "hex digits in quotes",
						      WFI_CONFIG_TAKES_STRING, salt_parse, NULL };
const struct wfi_config_kind wfi_config_kind_token_file = { "a path in quotes",
							    WFI_CONFIG_TAKES_STRING,
							    token_file_parse, NULL };
const struct wfi_config_kind wfi_config_kind_salt_file = { "a path in quotes",
							   WFI_CONFIG_TAKES_STRING, salt_file_parse,
							   NULL };
const struct wfi_config_kind wfi_config_kind_membership = { "text in quotes",
							    WFI_CONFIG_TAKES_STRING,
							    membership_parse, text_print };
const struct wfi_config_kind wfi_config_kind_list = { "a list: ( { ... }, { ... } )", 0, NULL,
						      NULL };
