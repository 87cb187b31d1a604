/* SPDX-License-Identifier: Apache-2.0 */
/**
 * value.h - values as people write them: sizes, durations, hex, and the word they meant
 *
 * Context: any thread; no state. Parsers accept the whole text or nothing, and write their output
 * on success only.
 */
#ifndef WFI_VALUE_H
#define WFI_VALUE_H

#include <stddef.h>
#include <stdint.h>

#define WFI_VALUE_TEXT 40 /* bytes for what the formatters write, their zero included */

/* digits, or 0x and hex digits. Return: 0, -EINVAL, -ERANGE does not fit */
int wfi_value_u64(const char *text, uint64_t *out);
/* "4096", "64K", "512M", "1G", "2GiB": powers of 1024. Return: 0, -EINVAL, -ERANGE */
int wfi_value_size(const char *text, uint64_t *out);
/**
 * wfi_value_duration - "5s", "100ms", "50us", "20ns", "2m", "1h"
 * @unit_ns: what a bare number counts, in ns; 0 refuses bare numbers (but "0")
 *
 * Return: 0, -EINVAL, -ERANGE
 */
int wfi_value_duration(const char *text, uint64_t unit_ns, uint64_t *out_ns);
/* pairs of hex digits. Return: bytes written, -EINVAL not hex, -ERANGE more than @max bytes */
int wfi_value_hex(const char *text, void *buf, size_t max);

/**
 * wfi_value_split - "a, b,c": what stands between commas, without blanks around it
 * @out: up to @max of them, in @text itself, which is cut
 *
 * Return: how many there are, perhaps more than @max; 0 for a blank text
 */
unsigned wfi_value_split(char *text, const char *out[], unsigned max);

/* shortest exact text: "1G", "1536M", "1000" */
void wfi_value_format_size(uint64_t bytes, char out[WFI_VALUE_TEXT]);
/* shortest exact text: "5s", "1500ms", "0" */
void wfi_value_format_duration(uint64_t ns, char out[WFI_VALUE_TEXT]);

/**
 * struct wfi_nearest - the word that somebody meant
 * @word: what was written
 * @best: the nearest of those offered, NULL when none resembles it
 */
struct wfi_nearest {
	const char *word;
	const char *best;
	unsigned distance;
};

/* @word is lent as long as @n is used */
void wfi_nearest_init(struct wfi_nearest *n, const char *word);
/* @candidate is lent as long as n->best is used */
void wfi_nearest_offer(struct wfi_nearest *n, const char *candidate);
/* insertions, deletions, changes and swaps of neighbours that make @a into @b; words over 63 bytes
 * are compared by their first 63 */
unsigned wfi_edit_distance(const char *a, const char *b);

#endif
