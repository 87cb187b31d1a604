/* SPDX-License-Identifier: Apache-2.0 */
/**
 * metrics.h - T0 telemetry: counters, gauges and log-linear histograms in a memfd
 *
 * The segment describes itself (magic, version, an entry per metric with name, help, unit, labels,
 * kind and offset of its values), so that another process can map and read it while its writer
 * runs, and a crash leaves it readable. One writer a metric; readers tolerate tearing between
 * metrics, never within one 64-bit value.
 *
 * Registration is cold and complete before the segment is shown; names, label sets and the number
 * of metrics are then fixed (zeros are exported from the first second).
 *
 * Histograms: values are nanoseconds or bytes; 32 linear steps in each octave (error under 3.2 %),
 * as in HdrHistogram; the first octave has steps of 1. About a nanosecond a record.
 */
#ifndef WFI_METRICS_H
#define WFI_METRICS_H

#include <stdint.h>
#include <stddef.h>
#include "weft_internal/env.h"

#define WFI_HIST_STEPS_LOG2 5
#define WFI_HIST_OCTAVES 44 /* up to 2^49: 6 days in ns, 500 TB in bytes */
#define WFI_HIST_NR_BUCKETS ((WFI_HIST_OCTAVES + 1) << WFI_HIST_STEPS_LOG2)

struct wfi_counter {
	uint64_t value;
};

struct wfi_hist {
	uint64_t nr;
	uint64_t sum;
	uint64_t max;
	uint64_t bucket[WFI_HIST_NR_BUCKETS];
};

static inline unsigned wfi_hist_idx(uint64_t value)
{
	const unsigned steps = 1u << WFI_HIST_STEPS_LOG2;
	unsigned msb, idx;

	if (value < steps)
		return (unsigned)value;
	msb = 63u - (unsigned)__builtin_clzll(value);
	idx = ((msb - WFI_HIST_STEPS_LOG2 + 1) << WFI_HIST_STEPS_LOG2) +
	      (unsigned)((value >> (msb - WFI_HIST_STEPS_LOG2)) & (steps - 1));
	return idx < WFI_HIST_NR_BUCKETS ? idx : WFI_HIST_NR_BUCKETS - 1;
}

/* lowest value that falls into bucket @idx */
uint64_t wfi_hist_lower(unsigned idx);
/* value at quantile @q (0..1): middle of its bucket; 0 when empty */
uint64_t wfi_hist_quantile(const struct wfi_hist *hist, double q);
void wfi_hist_merge(struct wfi_hist *into, const struct wfi_hist *from);

/* Context: the metric's one writer. Hot. Relaxed stores: readers see whole values */
static inline void wfi_count(struct wfi_counter *c, uint64_t n)
{
	__atomic_store_n(&c->value, c->value + n, __ATOMIC_RELAXED);
}

static inline void wfi_gauge_set(struct wfi_counter *c, uint64_t v)
{
	__atomic_store_n(&c->value, v, __ATOMIC_RELAXED);
}

static inline void wfi_hist_add(struct wfi_hist *h, uint64_t value)
{
	uint64_t *b = &h->bucket[wfi_hist_idx(value)];

	__atomic_store_n(b, *b + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&h->sum, h->sum + value, __ATOMIC_RELAXED);
	__atomic_store_n(&h->nr, h->nr + 1, __ATOMIC_RELAXED);
	if (value > h->max)
		__atomic_store_n(&h->max, value, __ATOMIC_RELAXED);
}

enum wfi_metric_kind { WFI_METRIC_COUNTER, WFI_METRIC_GAUGE, WFI_METRIC_HIST };

struct wfi_metrics;
/* @max_bytes bounds the segment. Return: 0, -ENOMEM */
int wfi_metrics_create(struct wfi_env *env, size_t max_bytes, struct wfi_metrics **out);
void wfi_metrics_destroy(struct wfi_metrics *m);
/**
 * wfi_metrics_counter, _gauge, _hist - register one metric
 * @name: OpenMetrics name without suffix, e.g. "weft_blocks_put"
 * @labels: "" or `op="put",tier="dram"`: part of the identity
 * @unit: "", "bytes", "seconds" (histograms record ns and are exported in seconds)
 *
 * Return: the place to write, or NULL when the segment is full (logged): then callers use a
 * private scratch of theirs, so that a full registry costs figures, not the node.
 */
struct wfi_counter *wfi_metrics_counter(struct wfi_metrics *m, const char *name, const char *labels,
					const char *unit, const char *help);
struct wfi_counter *wfi_metrics_gauge(struct wfi_metrics *m, const char *name, const char *labels,
				      const char *unit, const char *help);
struct wfi_hist *wfi_metrics_hist(struct wfi_metrics *m, const char *name, const char *labels,
				  const char *unit, const char *help);
/* memfd to pass to a reader (borrowed) */
int wfi_metrics_fd(const struct wfi_metrics *m);

/* the reader's side: maps read-only and checks the whole description; never trusts it */
struct wfi_metrics_view;
struct wfi_metric_info {
	const char *name, *labels, *unit, *help;
	enum wfi_metric_kind kind;
	const struct wfi_counter *counter; /* counter or gauge */
	const struct wfi_hist *hist;
};
int wfi_metrics_view_open(int fd, struct wfi_metrics_view **out);
void wfi_metrics_view_close(struct wfi_metrics_view *v);
unsigned wfi_metrics_view_nr(const struct wfi_metrics_view *v);
int wfi_metrics_view_get(const struct wfi_metrics_view *v, unsigned idx, struct wfi_metric_info *out);
/* OpenMetrics text 1.0, "# EOF" included. Return: bytes that the text has (may exceed @len) */
int wfi_metrics_format(const struct wfi_metrics_view *v, char *buf, size_t len);

#endif
