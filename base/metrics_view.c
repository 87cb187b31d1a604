/* SPDX-License-Identifier: Apache-2.0 */
/* the reader's side of a metrics segment. Its writer may be broken, hostile or dead */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/metrics_seg.h"

#define MAX_BYTES (1ll << 30)

struct view_metric {
	struct wfi_seg_entry entry; /* a copy, checked */
	char family[WFI_SEG_FAMILY_BYTES];
};

struct wfi_metrics_view {
	const char *seg;
	size_t len;
	unsigned nr;
	struct view_metric metrics[];
};

/*
 * Only a memfd that cannot shrink: on anything else a later load may raise SIGBUS. Not one on huge
 * pages either, whose holes may find no page to read zeros from.
 *
 * Return: length, or -errno
 */
static int64_t seg_len(int fd)
{
	const int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return -EACCES;
	if (fstatfs(fd, &fs) || fs.f_type != TMPFS_MAGIC || fstat(fd, &st))
		return -EACCES;
	if (st.st_size > MAX_BYTES)
		return -EFBIG;
	return st.st_size >= (int64_t)sizeof(struct wfi_seg_header) ? st.st_size : -EINVAL;
}

/* Return: number of entries, or -EINVAL */
static int header_check(const char *seg, size_t len)
{
	struct wfi_seg_header header;
	uint32_t nr;

	/* pairs with the release in append(): entries that are counted are whole */
	nr = __atomic_load_n(&((const struct wfi_seg_header *)seg)->nr_entries, __ATOMIC_ACQUIRE);
	memcpy(&header, seg, sizeof(header));
	if (header.magic != WFI_SEG_MAGIC || header.version != WFI_SEG_VERSION ||
	    header.hist_steps_log2 != WFI_HIST_STEPS_LOG2 ||
	    header.hist_nr_buckets != WFI_HIST_NR_BUCKETS || header.len != len ||
	    nr > WFI_METRICS_MAX ||
	    !wfi_range_ok(sizeof(header), nr * sizeof(struct wfi_seg_entry), len))
		return -EINVAL;
	return (int)nr;
}

static bool metric_ok(const struct wfi_metrics_view *v, const struct view_metric *metric)
{
	const uint64_t values = sizeof(struct wfi_seg_header) + v->nr * sizeof(metric->entry);
	const struct wfi_seg_entry *entry = &metric->entry;

	return !wfi_seg_entry_fault(entry) && entry->value_off >= values &&
	       !(entry->value_off % WFI_CACHELINE) &&
	       wfi_range_ok(entry->value_off, wfi_seg_value_len(entry->kind), v->len);
}

static int metric_compare(const void *pa, const void *pb)
{
	const struct view_metric *a = pa, *b = pb;
	int order = strcmp(a->family, b->family);

	return order ? order : strcmp(a->entry.labels, b->entry.labels);
}

/* Return: true when neighbours in order are two metrics of one family, or of two */
static bool neighbours_ok(const struct view_metric *a, const struct view_metric *b)
{
	return strcmp(a->family, b->family) || (wfi_seg_same_family(&a->entry, &b->entry) &&
						strcmp(a->entry.labels, b->entry.labels));
}

/* Return: 0, or -EINVAL */
static int metrics_copy(struct wfi_metrics_view *v)
{
	const char *from = v->seg + sizeof(struct wfi_seg_header);
	unsigned idx;

	for (idx = 0; idx < v->nr; idx++) {
		memcpy(&v->metrics[idx].entry, from + idx * sizeof(struct wfi_seg_entry),
		       sizeof(struct wfi_seg_entry));
		if (!metric_ok(v, &v->metrics[idx]))
			return -EINVAL;
		wfi_seg_family(&v->metrics[idx].entry, v->metrics[idx].family);
	}
	qsort(v->metrics, v->nr, sizeof(v->metrics[0]), metric_compare);
	for (idx = 1; idx < v->nr; idx++)
		if (!neighbours_ok(&v->metrics[idx - 1], &v->metrics[idx]))
			return -EINVAL;
	return 0;
}

int wfi_metrics_view_open(int fd, struct wfi_metrics_view **out)
{
	const int64_t len = seg_len(fd);
	struct wfi_metrics_view *v;
	void *seg;
	int ret;

	if (len < 0)
		return (int)len;
	seg = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0);
	if (seg == MAP_FAILED)
		return -errno;
	ret = header_check(seg, (size_t)len);
	if (ret < 0)
		goto err_unmap;
	v = malloc(sizeof(*v) + (unsigned)ret * sizeof(v->metrics[0]));
	if (!v) {
		ret = -ENOMEM;
		goto err_unmap;
	}
	v->seg = seg;
	v->len = (size_t)len;
	v->nr = (unsigned)ret;
	ret = metrics_copy(v);
	if (ret)
		goto err_free;
	*out = v;
	return 0;

err_free:
	free(v);
err_unmap:
	munmap(seg, (size_t)len);
	return ret;
}

void wfi_metrics_view_close(struct wfi_metrics_view *v)
{
	if (!v)
		return;
	munmap((void *)(uintptr_t)v->seg, v->len);
	free(v);
}

unsigned wfi_metrics_view_nr(const struct wfi_metrics_view *v)
{
	return v->nr;
}

int wfi_metrics_view_get(const struct wfi_metrics_view *v, unsigned idx,
			 struct wfi_metric_info *out)
{
	const struct wfi_seg_entry *entry;
	const void *value;

	if (idx >= v->nr)
		return -ENOENT;
	entry = &v->metrics[idx].entry;
	value = v->seg + entry->value_off;
	*out = (struct wfi_metric_info){
		.name = entry->name,
		.labels = entry->labels,
		.unit = entry->unit,
		.help = entry->help,
		.kind = (enum wfi_metric_kind)entry->kind,
		.counter = entry->kind == WFI_METRIC_HIST ? NULL : value,
		.hist = entry->kind == WFI_METRIC_HIST ? value : NULL,
	};
	return 0;
}

/* what does not fit is counted and not written */
struct text {
	char *buf;
	size_t len;
	size_t pos;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *text, const char *fmt, ...)
{
	const size_t left = text->pos < text->len ? text->len - text->pos : 0;
	va_list args;
	int ret;

	va_start(args, fmt);
	ret = vsnprintf(left ? text->buf + text->pos : NULL, left, fmt, args);
	va_end(args);
	text->pos += ret > 0 ? (size_t)ret : 0;
}

static bool in_seconds(const struct wfi_seg_entry *entry)
{
	return !strcmp(entry->unit, "seconds");
}

/* exact, where a double would round the sum of a long life */
static void say_value(struct text *text, const struct wfi_seg_entry *entry, uint64_t value)
{
	if (in_seconds(entry))
		say(text, "%llu.%09llu", (unsigned long long)(value / WFI_NSEC_PER_SEC),
		    (unsigned long long)(value % WFI_NSEC_PER_SEC));
	else
		say(text, "%llu", (unsigned long long)value);
}

static void say_sample(struct text *text, const struct view_metric *metric, const char *suffix,
		       uint64_t value)
{
	const char *labels = metric->entry.labels;

	say(text, "%s%s%s%s%s ", metric->family, suffix, *labels ? "{" : "", labels,
	    *labels ? "}" : "");
	say_value(text, &metric->entry, value);
	say(text, "\n");
}

/* a count of observations has no unit, whatever was observed */
static void say_nr(struct text *text, const struct view_metric *metric, uint64_t nr)
{
	const char *labels = metric->entry.labels;

	say(text, "%s_count%s%s%s %llu\n", metric->family, *labels ? "{" : "", labels,
	    *labels ? "}" : "", (unsigned long long)nr);
}

static void say_bucket(struct text *text, const struct view_metric *metric, unsigned log2,
		       uint64_t nr)
{
	const char *labels = metric->entry.labels;

	say(text, "%s_bucket{%s%sle=\"", metric->family, labels, *labels ? "," : "");
	say_value(text, &metric->entry, 1ull << log2);
	say(text, "%s\"} %llu\n", in_seconds(&metric->entry) ? "" : ".0", (unsigned long long)nr);
}

static uint64_t load(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

/*
 * A bound of 2^n counts values below it; one that is exactly 2^n comes in the next bucket, as our
 * own buckets start there. The count is that of the buckets, so that a scrape agrees with itself
 * while the writer is at work.
 */
static void say_hist(struct text *text, const struct view_metric *metric,
		     const struct wfi_hist *hist)
{
	const unsigned first = in_seconds(&metric->entry) ? 10 : 0;
	const unsigned last = in_seconds(&metric->entry) ? 36 : 40;
	const char *labels = metric->entry.labels;
	unsigned log2, idx = 0;
	uint64_t nr = 0;

	for (log2 = first; log2 <= last; log2++) {
		while (idx < wfi_hist_idx(1ull << log2))
			nr += load(&hist->bucket[idx++]);
		say_bucket(text, metric, log2, nr);
	}
	while (idx < WFI_HIST_NR_BUCKETS)
		nr += load(&hist->bucket[idx++]);
	say(text, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", metric->family, labels, *labels ? "," : "",
	    (unsigned long long)nr);
	say_nr(text, metric, nr);
	say_sample(text, metric, "_sum", load(&hist->sum));
}

static const char *suffix_of(const struct view_metric *metric)
{
	return metric->entry.kind == WFI_METRIC_COUNTER ? "_total" : "";
}

static void say_family(struct text *text, const struct view_metric *metric,
		       enum wfi_metrics_text form)
{
	static const char *const types[] = {
		[WFI_METRIC_COUNTER] = "counter",
		[WFI_METRIC_GAUGE] = "gauge",
		[WFI_METRIC_HIST] = "histogram",
	};
	const bool open = form == WFI_METRICS_OPEN;
	const char *suffix = open ? "" : suffix_of(metric);
	const char *help = metric->entry.help;

	say(text, "# TYPE %s%s %s\n", metric->family, suffix, types[metric->entry.kind]);
	if (open && metric->entry.unit[0])
		say(text, "# UNIT %s %s\n", metric->family, metric->entry.unit);
	say(text, "# HELP %s%s ", metric->family, suffix);
	for (; *help; help++)
		say(text, "%s%c", *help == '\\' || (open && *help == '"') ? "\\" : "", *help);
	say(text, "\n");
}

int wfi_metrics_format(const struct wfi_metrics_view *v, enum wfi_metrics_text form, char *buf,
		       size_t len)
{
	struct text text = { .buf = buf, .len = len };
	const struct view_metric *metric;
	unsigned idx;

	for (idx = 0; idx < v->nr; idx++) {
		metric = &v->metrics[idx];
		if (!idx || strcmp(metric->family, metric[-1].family))
			say_family(&text, metric, form);
		if (metric->entry.kind == WFI_METRIC_HIST)
			say_hist(&text, metric,
				 (const struct wfi_hist *)(v->seg + metric->entry.value_off));
		else
			say_sample(&text, metric, suffix_of(metric),
				   load((const uint64_t *)(v->seg + metric->entry.value_off)));
	}
	if (form == WFI_METRICS_OPEN)
		say(&text, "# EOF\n");
	return (int)text.pos;
}
