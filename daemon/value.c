/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "daemon/value.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define WORD_MAX 63

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "T", 1ull << 40 },
	{ "G", 1ull << 30 },
	{ "M", 1ull << 20 },
	{ "K", 1ull << 10 },
};

static const struct unit time_units[] = {
	{ "h", 3600 * WFI_NSEC_PER_SEC }, { "m", 60 * WFI_NSEC_PER_SEC }, { "s", WFI_NSEC_PER_SEC },
	{ "ms", WFI_NSEC_PER_MSEC },	  { "us", WFI_NSEC_PER_USEC },	  { "ns", 1 },
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Return: 0, and the first byte after the number in @end */
static int read_number(const char *text, const char **end, uint64_t *out)
{
	unsigned base = 10;
	const char *p = text;
	uint64_t v = 0;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	if (hex_digit(*p) < 0 || hex_digit(*p) >= (int)base)
		return -EINVAL;
	for (; hex_digit(*p) >= 0 && hex_digit(*p) < (int)base; p++) {
		if (wfi_mul_overflows(v, base, &v) ||
		    wfi_add_overflows(v, (uint64_t)hex_digit(*p), &v))
			return -ERANGE;
	}
	*end = p;
	*out = v;
	return 0;
}

int wfi_value_u64(const char *text, uint64_t *out)
{
	const char *end;
	uint64_t v;
	int ret;

	ret = read_number(text, &end, &v);
	if (ret)
		return ret;
	if (*end)
		return -EINVAL;
	*out = v;
	return 0;
}

int wfi_value_size(const char *text, uint64_t *out)
{
	const char *end;
	unsigned i;
	uint64_t v;
	int ret;

	ret = read_number(text, &end, &v);
	if (ret)
		return ret;
	for (i = 0; *end && i < WFI_ARRAY_SIZE(size_units); i++) {
		if (toupper((unsigned char)*end) != size_units[i].suffix[0])
			continue;
		end++;
		if (end[0] == 'i' && end[1] == 'B')
			end += 2;
		if (wfi_mul_overflows(v, size_units[i].factor, &v))
			return -ERANGE;
		break;
	}
	if (*end)
		return -EINVAL;
	*out = v;
	return 0;
}

int wfi_value_duration(const char *text, uint64_t unit_ns, uint64_t *out_ns)
{
	uint64_t factor = unit_ns, v;
	const char *end;
	unsigned i;
	int ret;

	ret = read_number(text, &end, &v);
	if (ret)
		return ret;
	if (*end) {
		for (i = 0; i < WFI_ARRAY_SIZE(time_units); i++)
			if (!strcmp(end, time_units[i].suffix))
				break;
		if (i == WFI_ARRAY_SIZE(time_units))
			return -EINVAL;
		factor = time_units[i].factor;
	} else if (!unit_ns && v) {
		return -EINVAL;
	}
	if (wfi_mul_overflows(v, factor, &v))
		return -ERANGE;
	*out_ns = v;
	return 0;
}

int wfi_value_hex(const char *text, void *buf, size_t max)
{
	const size_t len = strlen(text);
	uint8_t *out = buf;
	size_t i;

	if (len % 2)
		return -EINVAL;
	for (i = 0; i < len; i++)
		if (hex_digit(text[i]) < 0)
			return -EINVAL;
	if (len / 2 > max)
		return -ERANGE;
	for (i = 0; i < len / 2; i++)
		out[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return (int)(len / 2);
}

static void format_units(uint64_t v, const struct unit *units, unsigned nr,
			 char out[WFI_VALUE_TEXT])
{
	unsigned i;

	for (i = 0; v && i < nr; i++) {
		if (v % units[i].factor)
			continue;
		snprintf(out, WFI_VALUE_TEXT, "%" PRIu64 "%s", v / units[i].factor,
			 units[i].suffix);
		return;
	}
	snprintf(out, WFI_VALUE_TEXT, "%" PRIu64, v);
}

unsigned wfi_value_split(char *text, const char *out[], unsigned max)
{
	unsigned nr = 0;
	char *end, *next;

	if (!text[strspn(text, " \t")])
		return 0;
	for (; text; text = next, nr++) {
		next = strchr(text, ',');
		if (next)
			*next++ = 0;
		text += strspn(text, " \t");
		for (end = text + strlen(text); end > text && strchr(" \t", end[-1]); end--)
			;
		*end = 0;
		if (nr < max)
			out[nr] = text;
	}
	return nr;
}

void wfi_value_format_size(uint64_t bytes, char out[WFI_VALUE_TEXT])
{
	format_units(bytes, size_units, WFI_ARRAY_SIZE(size_units), out);
}

void wfi_value_format_duration(uint64_t ns, char out[WFI_VALUE_TEXT])
{
	format_units(ns, time_units, WFI_ARRAY_SIZE(time_units), out);
}

unsigned wfi_edit_distance(const char *a, const char *b)
{
	const size_t la = strnlen(a, WORD_MAX), lb = strnlen(b, WORD_MAX);
	unsigned d[WORD_MAX + 1][WORD_MAX + 1];
	size_t i, j;

	for (i = 0; i <= la; i++)
		d[i][0] = (unsigned)i;
	for (j = 0; j <= lb; j++)
		d[0][j] = (unsigned)j;
	for (i = 1; i <= la; i++) {
		for (j = 1; j <= lb; j++) {
			const unsigned change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			const unsigned indel =
				1 + (d[i - 1][j] < d[i][j - 1] ? d[i - 1][j] : d[i][j - 1]);

			d[i][j] = change < indel ? change : indel;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < d[i][j])
				d[i][j] = d[i - 2][j - 2] + 1;
		}
	}
	return d[la][lb];
}

void wfi_nearest_init(struct wfi_nearest *n, const char *word)
{
	n->word = word;
	n->best = NULL;
	/* further away than half of its letters, a word is another word, not a typo */
	n->distance = (unsigned)strnlen(word, WORD_MAX) / 2 + 1;
}

void wfi_nearest_offer(struct wfi_nearest *n, const char *candidate)
{
	const unsigned d = wfi_edit_distance(n->word, candidate);

	if (d < n->distance) {
		n->distance = d;
		n->best = candidate;
	}
}
