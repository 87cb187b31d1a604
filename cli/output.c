/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

int wfi_cli_print_json(json_t *value, size_t indent)
{
	int ret;

	ret = json_dumpf(value, stdout, JSON_INDENT(indent) | JSON_ENSURE_ASCII);
	json_decref(value);
	if (ret || putchar('\n') == EOF || fflush(stdout)) {
		fputs("weft: the output cannot be written\n", stderr);
		return WFI_EXIT_FAILED;
	}
	return WFI_EXIT_OK;
}

int wfi_cli_flushed(void)
{
	return fflush(stdout) || ferror(stdout) ? WFI_EXIT_FAILED : WFI_EXIT_OK;
}

int wfi_cli_write(int fd, const void *buf, size_t len)
{
	const uint8_t *at = buf;
	ssize_t n;

	while (len) {
		n = write(fd, at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int wfi_cli_file_failed(const char *path, int err)
{
	fprintf(stderr, "weft: %s: %s\n", path, strerror(-err));
	return WFI_EXIT_FAILED;
}

uint64_t wfi_json_u64(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);

	/* jansson makes integers of what fits 63 bits, and no integer of anything else */
	return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v)
							       : 0;
}

const char *wfi_json_str(const json_t *obj, const char *key)
{
	const char *text = json_string_value(json_object_get(obj, key));

	return text ? text : "";
}

bool wfi_json_bool(const json_t *obj, const char *key)
{
	return json_is_true(json_object_get(obj, key));
}

static const char *scaled(double v, double step, const char *const *units, unsigned nr, char *out)
{
	unsigned i = 0;

	while (v >= 999.5 && i + 1 < nr) {
		v /= step;
		i++;
	}
	snprintf(out, WFI_TEXT, "%.*f%s", i && v < 99.95 ? 1 : 0, v, units[i]);
	return out;
}

const char *wfi_text_bytes(double bytes, char out[WFI_TEXT])
{
	static const char *const units[] = { " B", " KiB", " MiB", " GiB", " TiB", " PiB" };

	return scaled(bytes, 1024, units, WFI_ARRAY_SIZE(units), out);
}

const char *wfi_text_count(double count, char out[WFI_TEXT])
{
	static const char *const units[] = { "", "k", "M", "G", "T" };

	return scaled(count, 1000, units, WFI_ARRAY_SIZE(units), out);
}

const char *wfi_text_ns(uint64_t ns, char out[WFI_TEXT])
{
	static const char *const units[] = { "ns", "us", "ms", "s" };

	return scaled((double)ns, 1000, units, WFI_ARRAY_SIZE(units), out);
}

const char *wfi_text_age(uint64_t seconds, char out[WFI_TEXT])
{
	if (seconds >= 86400)
		snprintf(out, WFI_TEXT, "%" PRIu64 "d %" PRIu64 "h", seconds / 86400,
			 seconds % 86400 / 3600);
	else if (seconds >= 3600)
		snprintf(out, WFI_TEXT, "%" PRIu64 "h %" PRIu64 "m", seconds / 3600,
			 seconds % 3600 / 60);
	else if (seconds >= 60)
		snprintf(out, WFI_TEXT, "%" PRIu64 "m %" PRIu64 "s", seconds / 60, seconds % 60);
	else
		snprintf(out, WFI_TEXT, "%" PRIu64 "s", seconds);
	return out;
}

const char *wfi_text_clean(const char *text, char *out, size_t len)
{
	size_t i;

	for (i = 0; i + 1 < len && text[i]; i++)
		out[i] = iscntrl((unsigned char)text[i]) ? '?' : text[i];
	out[i] = 0;
	return out;
}
