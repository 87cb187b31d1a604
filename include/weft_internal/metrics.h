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

/* lowest value that falls into bucket @idx (from WFI_HIST_NR_BUCKETS on: into the last) */
uint64_t wfi_hist_lower(unsigned idx);
/* value at quantile @q (0..1): middle of its bucket, the maximum at most; 0 when empty */
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

static inline void wfi_hist_add_nr(struct wfi_hist *h, uint64_t value, uint64_t nr)
{
	uint64_t *b = &h->bucket[wfi_hist_idx(value)];

	__atomic_store_n(b, *b + nr, __ATOMIC_RELAXED);
	__atomic_store_n(&h->sum, h->sum + value * nr, __ATOMIC_RELAXED);
	__atomic_store_n(&h->nr, h->nr + nr, __ATOMIC_RELAXED);
	if (value > h->max)
		__atomic_store_n(&h->max, value, __ATOMIC_RELAXED);
}

static inline void wfi_hist_add(struct wfi_hist *h, uint64_t value)
{
	wfi_hist_add_nr(h, value, 1);
}

enum wfi_metric_kind { WFI_METRIC_COUNTER, WFI_METRIC_GAUGE, WFI_METRIC_HIST };

#define WFI_METRICS_MAX 4096 /* metrics in a segment; a reader refuses more */

struct wfi_metrics;
/* @max_bytes bounds the segment. Return: 0, or what env.h's map returns */
int wfi_metrics_create(struct wfi_env *env, size_t max_bytes, struct wfi_metrics **out);
void wfi_metrics_destroy(struct wfi_metrics *m);
/**
 * wfi_metrics_counter, _gauge, _hist - register one metric
 * @name: OpenMetrics name without suffix, e.g. "weft_blocks_put"
 * @labels: "" or `op="put",tier="dram"`: part of the identity
 * @unit: "", "bytes", "seconds" (recorded in ns and exported in seconds, whatever the kind); the
 *	text has the name with "_" and the unit behind it, unless it ends so already
 * @help: the same for all metrics of one name
 *
 * The strings are copied. The same name and labels give the same place again; it still has one
 * writer. Each place starts a cache line of its own.
 *
 * Return: the place to write, or NULL when the segment is full or a string is not as OpenMetrics
 * wants it (logged): then callers use a private scratch of theirs, so that a full registry costs
 * figures, not the node.
 */
struct wfi_counter *wfi_metrics_counter(struct wfi_metrics *m, const char *name, const char *labels,
					const char *unit, const char *help);
struct wfi_counter *wfi_metrics_gauge(struct wfi_metrics *m, const char *name, const char *labels,
				      const char *unit, const char *help);
struct wfi_hist *wfi_metrics_hist(struct wfi_metrics *m, const char *name, const char *labels,
				  const char *unit, const char *help);
/* memfd to pass to a reader (borrowed); whoever gets it can only read */
int wfi_metrics_fd(const struct wfi_metrics *m);

/* the reader's side: maps read-only and checks the whole description; never trusts it */
struct wfi_metrics_view;
struct wfi_metric_info {
	const char *name, *labels, *unit, *help; /* copies, valid as long as the view */
	enum wfi_metric_kind kind;
	const struct wfi_counter *counter; /* counter or gauge, else NULL */
	const struct wfi_hist *hist; /* histogram, else NULL */
};
/**
 * wfi_metrics_view_open - map a segment and check what it says of itself
 * @fd: borrowed for the call
 *
 * The description is copied, so that its writer cannot change it afterwards; metrics come sorted
 * by name, then labels. Values are what the writer puts there, whatever it is.
 *
 * Return: 0, -EACCES not a memfd that keeps its size, -EINVAL not a segment that we understand,
 * -EFBIG, -ENOMEM
 */
int wfi_metrics_view_open(int fd, struct wfi_metrics_view **out);
void wfi_metrics_view_close(struct wfi_metrics_view *v);
unsigned wfi_metrics_view_nr(const struct wfi_metrics_view *v);
int wfi_metrics_view_get(const struct wfi_metrics_view *v, unsigned idx,
			 struct wfi_metric_info *out);
enum wfi_metrics_text {
	WFI_METRICS_OPEN, /* OpenMetrics 1.0, "# EOF" included */
	WFI_METRICS_PLAIN, /* of Prometheus, 0.0.4: counters' families end in _total */
};
/**
 * wfi_metrics_format - all metrics as text
 *
 * Buckets of histograms are a closed set, empty or not: the powers of two of the recorded unit from
 * 2^10 to 2^36 ns (1 us to 69 s) for seconds, from 2^0 to 2^40 else.
 *
 * Return: bytes that the text has (may exceed @len: what fits was written, and a NUL)
 */
int wfi_metrics_format(const struct wfi_metrics_view *v, enum wfi_metrics_text form, char *buf,
		       size_t len);

#endif
