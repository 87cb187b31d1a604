/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_seg.h - layout of the metrics segment, version 1, little-endian
 *
 *   0      header
 *   64     nr_entries entries of 448 bytes
 *   ...    zeros
 *   ...    values, each at a multiple of 64: a struct wfi_counter or a struct wfi_hist
 *
 * The writer fills an entry in and then counts it in nr_entries (release); a reader loads that
 * (acquire) first. Nothing moves and nothing goes away once it is counted.
 */
#ifndef WFI_METRICS_SEG_H
#define WFI_METRICS_SEG_H

#include <assert.h>

#include "weft_internal/metrics.h"
#include "weft_internal/util.h"

#define WFI_SEG_MAGIC 0x5354454d54464557ull /* "WEFTMETS" */
#define WFI_SEG_VERSION 1

struct wfi_seg_header {
	uint64_t magic;
	uint32_t version;
	uint32_t nr_entries;
	uint32_t hist_steps_log2;
	uint32_t hist_nr_buckets;
	uint64_t len; /* of the segment */
	uint64_t hole[4];
};

struct wfi_seg_entry {
	char name[64]; /* strings end with a NUL, and zeros */
	char labels[192];
	char unit[16];
	char help[160];
	uint32_t kind; /* enum wfi_metric_kind */
	uint32_t hole;
	uint64_t value_off; /* from the start of the segment */
};

static_assert(sizeof(struct wfi_seg_header) == 64, "wfi_seg_header");
static_assert(offsetof(struct wfi_seg_header, nr_entries) == 12, "wfi_seg_header.nr_entries");
static_assert(offsetof(struct wfi_seg_header, len) == 24, "wfi_seg_header.len");
static_assert(sizeof(struct wfi_seg_entry) == 448, "wfi_seg_entry");
static_assert(offsetof(struct wfi_seg_entry, kind) == 432, "wfi_seg_entry.kind");
static_assert(offsetof(struct wfi_seg_entry, value_off) == 440, "wfi_seg_entry.value_off");
static_assert(sizeof(struct wfi_counter) == 8, "wfi_counter");
static_assert(sizeof(struct wfi_hist) == 24 + 8 * WFI_HIST_NR_BUCKETS, "wfi_hist");

/* name, "_", unit, NUL */
#define WFI_SEG_FAMILY_BYTES (64 + 16)

/* what the text calls the metric: its name and unit */
void wfi_seg_family(const struct wfi_seg_entry *entry, char family[WFI_SEG_FAMILY_BYTES]);
/* Return: NULL, or what is wrong with the entry's strings or kind */
const char *wfi_seg_entry_fault(const struct wfi_seg_entry *entry);
/* Return: true when two metrics of one family agree on what a family has in common */
bool wfi_seg_same_family(const struct wfi_seg_entry *a, const struct wfi_seg_entry *b);

static inline uint64_t wfi_seg_value_len(uint32_t kind)
{
	const uint64_t len = kind == WFI_METRIC_HIST ? sizeof(struct wfi_hist)
						     : sizeof(struct wfi_counter);

	return wfi_align_up(len, WFI_CACHELINE);
}

#endif
