/* SPDX-License-Identifier: Apache-2.0 */
/* metrics: histograms, the registry, readers of broken segments, the text */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "weft_internal/log.h"
#include "weft_internal/metrics.h"
#include "weft_internal/util.h"

#define SEG_BYTES (128u << 10)
#define TEXT_BYTES (64u << 10)
#define ENTRIES_OFF 64
#define ENTRY_BYTES 448

static void discard_line(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)line;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void test_hist_buckets(void **ctx)
{
	unsigned idx;

	(void)ctx;
	for (idx = 0; idx < WFI_HIST_NR_BUCKETS; idx++) {
		assert_int_equal(wfi_hist_idx(wfi_hist_lower(idx)), idx);
		if (idx)
			assert_int_equal(wfi_hist_idx(wfi_hist_lower(idx) - 1), idx - 1);
	}
	assert_int_equal(wfi_hist_idx(UINT64_MAX), WFI_HIST_NR_BUCKETS - 1);
	assert_int_equal(wfi_hist_idx(1ull << 49), WFI_HIST_NR_BUCKETS - 1);
	assert_int_equal(wfi_hist_lower(UINT32_MAX), wfi_hist_lower(WFI_HIST_NR_BUCKETS - 1));
}

static void test_hist_quantile(void **ctx)
{
	static const double qs[] = { 0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0 };
	struct wfi_hist *hist = calloc(1, sizeof(*hist));
	uint64_t got, want;
	unsigned idx;

	(void)ctx;
	assert_non_null(hist);
	assert_int_equal(wfi_hist_quantile(hist, 0.5), 0);
	for (idx = 1; idx <= 100000; idx++)
		wfi_hist_add(hist, (uint64_t)idx * 1000);
	assert_int_equal(hist->nr, 100000);
	assert_int_equal(hist->max, 100000000);
	for (idx = 0; idx < WFI_ARRAY_SIZE(qs); idx++) {
		got = wfi_hist_quantile(hist, qs[idx]);
		want = wfi_max(1, (uint64_t)(qs[idx] * 100000)) * 1000;
		assert_true(fabs((double)got - (double)want) <= 0.032 * (double)want);
	}
	assert_true(wfi_hist_quantile(hist, 1.0) <= hist->max);
	assert_int_equal(wfi_hist_quantile(hist, -1), wfi_hist_quantile(hist, 0));
	assert_int_equal(wfi_hist_quantile(hist, NAN), wfi_hist_quantile(hist, 0));
	assert_int_equal(wfi_hist_quantile(hist, INFINITY), wfi_hist_quantile(hist, 1));
	free(hist);
}

static void test_hist_small_values(void **ctx)
{
	struct wfi_hist *hist = calloc(1, sizeof(*hist));

	(void)ctx;
	assert_non_null(hist);
	wfi_hist_add(hist, 0);
	wfi_hist_add(hist, 1);
	wfi_hist_add(hist, 2);
	assert_int_equal(wfi_hist_quantile(hist, 0.3), 0);
	assert_int_equal(wfi_hist_quantile(hist, 0.5), 1);
	assert_int_equal(wfi_hist_quantile(hist, 1), 2);
	wfi_hist_add(hist, UINT64_MAX);
	assert_true(wfi_hist_quantile(hist, 1) == UINT64_MAX);
	free(hist);
}

/* what a hostile writer may leave: sums that wrap */
static void test_hist_garbage(void **ctx)
{
	struct wfi_hist *hist = malloc(sizeof(*hist));
	uint64_t state = 1;
	unsigned round, idx;

	(void)ctx;
	assert_non_null(hist);
	memset(hist, 0xff, sizeof(*hist));
	wfi_hist_quantile(hist, 0.999999999999);
	for (round = 0; round < 100; round++) {
		for (idx = 0; idx < WFI_HIST_NR_BUCKETS; idx++)
			hist->bucket[idx] = next_random(&state);
		hist->max = next_random(&state);
		wfi_hist_quantile(hist, (double)round / 99);
	}
	free(hist);
}

static void test_hist_merge(void **ctx)
{
	struct wfi_hist *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));

	(void)ctx;
	assert_non_null(a);
	assert_non_null(b);
	wfi_hist_add(a, 10);
	wfi_hist_add(b, 20);
	wfi_hist_add(b, 30);
	wfi_hist_merge(a, b);
	assert_int_equal(a->nr, 3);
	assert_int_equal(a->sum, 60);
	assert_int_equal(a->max, 30);
	assert_int_equal(wfi_hist_quantile(a, 0.5), 20);
	free(a);
	free(b);
}

struct fix {
	struct wfi_env env;
	struct wfi_metrics *m;
	struct wfi_counter *puts, *gets, *busy, *level;
	struct wfi_hist *lat, *size;
};

/* registered out of order, with a family in two pieces */
static int setup(void **ctx)
{
	static struct fix f;

	wfi_log_set_sink(discard_line, NULL);
	f = (struct fix){ 0 };
	if (wfi_env_real_init(&f.env) || wfi_metrics_create(&f.env, SEG_BYTES, &f.m))
		return -1;
	f.puts = wfi_metrics_counter(f.m, "weft_ops", "op=\"put\"", "", "operations done");
	f.lat = wfi_metrics_hist(f.m, "weft_op", "op=\"get\"", "seconds", "time of one \"op\"");
	f.level = wfi_metrics_gauge(f.m, "weft_held_bytes", "", "bytes", "held \\ now");
	f.gets = wfi_metrics_counter(f.m, "weft_ops", "op=\"get\"", "", "operations done");
	f.size = wfi_metrics_hist(f.m, "weft_batch", "", "", "keys in a batch");
	f.busy = wfi_metrics_counter(f.m, "weft_busy", "", "seconds", "time at work");
	*ctx = &f;
	return f.puts && f.lat && f.level && f.gets && f.size && f.busy ? 0 : -1;
}

static int teardown(void **ctx)
{
	struct fix *f = *ctx;

	wfi_metrics_destroy(f->m);
	wfi_metrics_destroy(NULL);
	return 0;
}

static struct wfi_metrics_view *view(const struct fix *f)
{
	struct wfi_metrics_view *v;

	assert_int_equal(wfi_metrics_view_open(wfi_metrics_fd(f->m), &v), 0);
	return v;
}

static void test_view(void **ctx)
{
	struct fix *f = *ctx;
	struct wfi_metrics_view *v;
	struct wfi_metric_info info;

	wfi_count(f->puts, 3);
	wfi_count(f->puts, 4);
	v = view(f);
	assert_int_equal(wfi_metrics_view_nr(v), 6);
	assert_int_equal(wfi_metrics_view_get(v, 6, &info), -ENOENT);
	assert_int_equal(wfi_metrics_view_get(v, 0, &info), 0);
	assert_string_equal(info.name, "weft_batch");
	assert_null(info.counter);
	assert_int_equal(info.hist->nr, 0);
	/* the view follows the writer */
	wfi_hist_add(f->size, 5);
	assert_int_equal(info.hist->nr, 1);
	assert_int_equal(wfi_metrics_view_get(v, 5, &info), 0);
	assert_string_equal(info.name, "weft_ops");
	assert_string_equal(info.labels, "op=\"put\"");
	assert_string_equal(info.help, "operations done");
	assert_int_equal(info.kind, WFI_METRIC_COUNTER);
	assert_int_equal(info.counter->value, 7);
	wfi_metrics_view_close(v);
	wfi_metrics_view_close(NULL);
}

static void test_places(void **ctx)
{
	struct fix *f = *ctx;

	assert_ptr_equal(wfi_metrics_counter(f->m, "weft_ops", "op=\"put\"", "", "operations done"),
			 f->puts);
	assert_ptr_not_equal(f->puts, f->gets);
	assert_int_equal((uintptr_t)f->puts % WFI_CACHELINE, 0);
	assert_int_equal((uintptr_t)f->gets % WFI_CACHELINE, 0);
	assert_int_equal((uintptr_t)f->lat % WFI_CACHELINE, 0);
}

static void test_refused(void **ctx)
{
	static const struct {
		const char *name, *labels, *unit, *help;
	} bad[] = {
		{ "", "", "", "" },
		{ "1up", "", "", "" },
		{ "a-b", "", "", "" },
		{ "a\n", "", "", "" },
		{ "a_total", "", "", "" },
		{ "a_bucket", "", "", "" },
		{ "a", "", "9", "" },
		{ "a", "", "sum", "" },
		{ "a", "", "a_very_long_unit", "" },
		{ "a", "x", "", "" },
		{ "a", "x=", "", "" },
		{ "a", "x=1", "", "" },
		{ "a", "x=\"1", "", "" },
		{ "a", "x=\"1\\", "", "" },
		{ "a", "x=\"1\\\"", "", "" },
		{ "a", "x=\"\\q\"", "", "" },
		{ "a", "x=\"1\",", "", "" },
		{ "a", "x=\"1\"y=\"2\"", "", "" },
		{ "a", "le=\"1\"", "", "" },
		{ "a", "x=\"\n\"", "", "" },
		{ "a", "x=\"\xff\"", "", "" },
		{ "a", "", "", "two\nlines" },
		{ "weft_ops", "", "", "another help" },
		{ "weft_held_bytes", "", "", "held \\ now" },
	};
	struct fix *f = *ctx;
	char name[65];
	unsigned idx;

	for (idx = 0; idx < WFI_ARRAY_SIZE(bad); idx++)
		assert_null(wfi_metrics_counter(f->m, bad[idx].name, bad[idx].labels, bad[idx].unit,
						bad[idx].help));
	/* the other kind */
	assert_null(wfi_metrics_gauge(f->m, "weft_ops", "op=\"x\"", "", "operations done"));
	memset(name, 'a', 64);
	name[64] = 0;
	assert_null(wfi_metrics_gauge(f->m, name, "", "", ""));
	name[63] = 0;
	assert_non_null(wfi_metrics_gauge(f->m, name, "", "fifteen_letters", ""));
	assert_non_null(wfi_metrics_gauge(f->m, "a", "x=\"\\\"\\\\\\n\",le2=\"\"", "", ""));
	wfi_metrics_view_close(view(f));
}

static void test_full(void **ctx)
{
	struct fix *f = *ctx;
	struct wfi_metrics_view *v;
	char labels[32];
	unsigned nr = 6;

	for (;; nr++) {
		snprintf(labels, sizeof(labels), "x=\"%u\"", nr);
		if (!wfi_metrics_hist(f->m, "weft_h", labels, "bytes", ""))
			break;
		assert_true(nr < 100);
	}
	/* a counter may still fit where a histogram does not */
	for (;; nr++) {
		snprintf(labels, sizeof(labels), "x=\"%u\"", nr);
		if (!wfi_metrics_counter(f->m, "weft_c", labels, "", ""))
			break;
		assert_true(nr < SEG_BYTES / ENTRY_BYTES);
	}
	v = view(f);
	assert_int_equal(wfi_metrics_view_nr(v), nr);
	wfi_metrics_view_close(v);
}

/* the figures of a process that is killed at work */
static void test_after_crash(void **ctx)
{
	struct fix *f = *ctx;
	struct wfi_metrics_view *v;
	struct wfi_metric_info info;
	int status;
	pid_t pid;

	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		wfi_hist_add(f->size, 77);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	v = view(f);
	assert_int_equal(wfi_metrics_view_get(v, 0, &info), 0);
	assert_int_equal(info.hist->max, 77);
	wfi_metrics_view_close(v);
}

/* in one go: with a writer at work, two texts need not have one length */
static char *format(const struct wfi_metrics_view *v)
{
	char *text = malloc(TEXT_BYTES);
	int len;

	assert_non_null(text);
	len = wfi_metrics_format(v, WFI_METRICS_OPEN, text, TEXT_BYTES);
	assert_in_range(len, 1, TEXT_BYTES - 1);
	assert_int_equal(strlen(text), len);
	return text;
}

/* what the checker knows of the family that it is in */
struct checker {
	char family[96];
	char type[16];
	bool has_unit;
	unsigned nr_families;
	unsigned nr_samples;
	double last_le;
	double last_bucket;
	char seen[32][96];
};

static void check_meta(struct checker *c, const char *line)
{
	char word[16], family[96], rest[200];
	unsigned idx;

	assert_int_equal(sscanf(line, "# %15s %95s %199[^\n]", word, family, rest), 3);
	if (strcmp(word, "TYPE")) {
		assert_string_equal(family, c->family);
		assert_true(!strcmp(word, "HELP") || !strcmp(word, "UNIT"));
		if (!strcmp(word, "UNIT"))
			assert_string_equal(family + strlen(family) - strlen(rest), rest);
		return;
	}
	/* families come once */
	for (idx = 0; idx < c->nr_families; idx++)
		assert_string_not_equal(c->seen[idx], family);
	snprintf(c->seen[c->nr_families++], sizeof(c->seen[0]), "%s", family);
	snprintf(c->family, sizeof(c->family), "%s", family);
	snprintf(c->type, sizeof(c->type), "%.15s", rest);
}

static void check_bucket(struct checker *c, const char *labels, double value)
{
	const char *le = strstr(labels, "le=\"");
	double bound;

	assert_non_null(le);
	bound = strtod(le + 4, NULL);
	if (c->last_le < bound)
		assert_true(value >= c->last_bucket);
	else
		assert_true(isinf(c->last_le));
	c->last_le = bound;
	c->last_bucket = value;
}

static void check_sample(struct checker *c, const char *line)
{
	const size_t name_len = strcspn(line, "{ ");
	const char *suffix = line + strlen(c->family), *at = line + name_len;
	double value;
	char *end;

	assert_memory_equal(line, c->family, strlen(c->family));
	if (*at == '{')
		at = strstr(at, "\"} ") + 2;
	assert_int_equal(*at, ' ');
	value = strtod(at + 1, &end);
	assert_int_equal(*end, 0);
	if (!strcmp(c->type, "histogram")) {
		if (!strncmp(suffix, "_bucket{", 8)) {
			check_bucket(c, suffix, value);
		} else if (!strncmp(suffix, "_count", 6)) {
			assert_true(isinf(c->last_le));
			assert_true(value == c->last_bucket);
		} else {
			assert_int_equal(strncmp(suffix, "_sum", 4), 0);
		}
	} else if (!strcmp(c->type, "counter")) {
		assert_int_equal(strncmp(suffix, "_total", 6), 0);
	} else {
		assert_string_equal(c->type, "gauge");
		assert_true(*suffix == ' ' || *suffix == '{');
	}
	c->nr_samples++;
}

static struct checker check_text(const char *all)
{
	struct checker c = { .last_le = INFINITY };
	char *text = strdup(all), *save = NULL, *line, *last = NULL;

	assert_non_null(text);
	assert_null(strstr(text, "\n\n"));
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		last = line;
		if (!strcmp(line, "# EOF"))
			break;
		if (*line == '#')
			check_meta(&c, line);
		else
			check_sample(&c, line);
	}
	assert_non_null(last);
	assert_string_equal(last, "# EOF");
	assert_null(strtok_r(NULL, "\n", &save));
	assert_int_equal(all[strlen(all) - 1], '\n');
	free(text);
	return c;
}

static void test_text(void **ctx)
{
	static const char *const lines[] = {
		"# TYPE weft_ops counter\n# HELP weft_ops operations done\n"
		"weft_ops_total{op=\"get\"} 0\nweft_ops_total{op=\"put\"} 3\n",
		"# UNIT weft_op_seconds seconds\n# HELP weft_op_seconds time of one \\\"op\\\"\n",
		"# UNIT weft_held_bytes bytes\n# HELP weft_held_bytes held \\\\ now\n"
		"weft_held_bytes 4096\n",
		"weft_busy_seconds_total 1.500000000\n",
		"weft_op_seconds_bucket{op=\"get\",le=\"0.000001024\"} 1\n"
		"weft_op_seconds_bucket{op=\"get\",le=\"0.000002048\"} 2\n",
		"weft_op_seconds_bucket{op=\"get\",le=\"68.719476736\"} 2\n"
		"weft_op_seconds_bucket{op=\"get\",le=\"+Inf\"} 3\n"
		"weft_op_seconds_count{op=\"get\"} 3\n"
		"weft_op_seconds_sum{op=\"get\"} 100.000002000\n",
		"weft_batch_bucket{le=\"1.0\"} 0\n",
		"weft_batch_bucket{le=\"+Inf\"} 0\nweft_batch_count 0\nweft_batch_sum 0\n",
	};
	struct fix *f = *ctx;
	struct wfi_metrics_view *v = view(f);
	struct checker zeros, c;
	char *text;
	unsigned idx;

	text = format(v);
	zeros = check_text(text);
	free(text);
	assert_int_equal(zeros.nr_families, 5);

	wfi_count(f->puts, 3);
	wfi_gauge_set(f->level, 4096);
	wfi_count(f->busy, 1500000000);
	wfi_hist_add(f->lat, 500);
	wfi_hist_add(f->lat, 1500);
	wfi_hist_add(f->lat, 100 * WFI_NSEC_PER_SEC);
	text = format(v);
	c = check_text(text);
	for (idx = 0; idx < WFI_ARRAY_SIZE(lines); idx++)
		assert_non_null(strstr(text, lines[idx]));
	/* the set of series is closed: the same before anything happened */
	assert_int_equal(c.nr_samples, zeros.nr_samples);
	free(text);
	wfi_metrics_view_close(v);
}

/* Prometheus' own form knows a counter's help by the name that its samples have, and no units */
static void test_text_plain(void **ctx)
{
	static const char *const lines[] = {
		"# TYPE weft_ops_total counter\n# HELP weft_ops_total operations done\n"
		"weft_ops_total{op=\"get\"} 0\n",
		"# TYPE weft_op_seconds histogram\n"
		"# HELP weft_op_seconds time of one \"op\"\n"
		"weft_op_seconds_bucket{op=\"get\",le=\"0.000001024\"} 0\n",
		"# TYPE weft_held_bytes gauge\n# HELP weft_held_bytes held \\\\ now\n"
		"weft_held_bytes 0\n",
	};
	struct wfi_metrics_view *v = view(*ctx);
	char *text = malloc(TEXT_BYTES);
	unsigned idx;

	assert_non_null(text);
	assert_in_range(wfi_metrics_format(v, WFI_METRICS_PLAIN, text, TEXT_BYTES), 1,
			TEXT_BYTES - 1);
	for (idx = 0; idx < WFI_ARRAY_SIZE(lines); idx++)
		assert_non_null(strstr(text, lines[idx]));
	assert_null(strstr(text, "# UNIT"));
	assert_null(strstr(text, "# EOF"));
	free(text);
	wfi_metrics_view_close(v);
}

static void test_text_cut(void **ctx)
{
	struct wfi_metrics_view *v = view(*ctx);
	char *all = format(v), *part;
	const size_t full = strlen(all);
	size_t len;

	assert_int_equal(wfi_metrics_format(v, WFI_METRICS_OPEN, NULL, 0), full);
	for (len = 1; len < full; len = len * 3 / 2 + 1) {
		part = malloc(len);
		assert_non_null(part);
		assert_int_equal(wfi_metrics_format(v, WFI_METRICS_OPEN, part, len), full);
		assert_int_equal(strlen(part), len - 1);
		assert_memory_equal(part, all, len - 1);
		free(part);
	}
	free(all);
	wfi_metrics_view_close(v);
}

/* a memfd with these bytes, as a stranger could make it. Return: fd */
static int forge(const void *bytes, size_t len, size_t file_len, int seals)
{
	const int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)file_len), 0);
	assert_int_equal(pwrite(fd, bytes, len, 0), len);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* Return: what opening says; what opens must be readable in full */
static int open_forged(int fd)
{
	struct wfi_metrics_view *v;
	struct wfi_metric_info info;
	unsigned idx;
	int ret;

	ret = wfi_metrics_view_open(fd, &v);
	close(fd);
	if (ret)
		return ret;
	for (idx = 0; idx < wfi_metrics_view_nr(v); idx++) {
		assert_int_equal(wfi_metrics_view_get(v, idx, &info), 0);
		if (info.hist)
			wfi_hist_quantile(info.hist, 0.5);
	}
	free(format(v));
	wfi_metrics_view_close(v);
	return 0;
}

static unsigned char *segment_bytes(const struct fix *f)
{
	unsigned char *bytes = malloc(SEG_BYTES);

	assert_non_null(bytes);
	assert_int_equal(pread(wfi_metrics_fd(f->m), bytes, SEG_BYTES, 0), SEG_BYTES);
	return bytes;
}

static void test_forged_fd(void **ctx)
{
	unsigned char *bytes = segment_bytes(*ctx);
	int fds[2], fd;

	assert_int_equal(open_forged(forge(bytes, SEG_BYTES, SEG_BYTES, F_SEAL_SHRINK)), 0);
	assert_int_equal(open_forged(forge(bytes, SEG_BYTES, SEG_BYTES, F_SEAL_GROW)), -EACCES);
	assert_int_equal(open_forged(forge(bytes, 0, 0, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(open_forged(forge(bytes, 63, 63, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(open_forged(forge(bytes, 4096, 4096, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(open_forged(forge(bytes, 4096, 2ul << 30, F_SEAL_SHRINK)), -EFBIG);
	assert_int_equal(open_forged(-1), -EACCES);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(open_forged(fds[0]), -EACCES);
	close(fds[1]);
	fd = open("/var/tmp", O_TMPFILE | O_RDWR, 0600);
	if (fd >= 0)
		assert_int_equal(open_forged(fd), -EACCES);
	free(bytes);
}

/* one field of the header or of the second entry, set to a value that no writer puts there */
static void test_forged_fields(void **ctx)
{
	enum { ENTRY = ENTRIES_OFF + ENTRY_BYTES };
	static const struct {
		unsigned off, len;
		uint64_t value;
	} fields[] = {
		{ 0, 8, 0 },
		{ 8, 4, 2 },
		{ 12, 4, UINT32_MAX },
		{ 12, 4, WFI_METRICS_MAX + 1 },
		{ 12, 4, SEG_BYTES / ENTRY_BYTES },
		{ 16, 4, 6 },
		{ 20, 4, 1 },
		{ 24, 8, SEG_BYTES + 4096 },
		{ ENTRY, 8, 0 },
		{ ENTRY + 432, 4, 3 },
		{ ENTRY + 440, 8, 0 },
		{ ENTRY + 440, 8, ENTRIES_OFF },
		{ ENTRY + 440, 8, SEG_BYTES - 64 },
		{ ENTRY + 440, 8, SEG_BYTES - 11544 + 8 },
		{ ENTRY + 440, 8, SEG_BYTES },
		{ ENTRY + 440, 8, 0 - (uint64_t)64 },
		{ ENTRY + 440, 8, SEG_BYTES / 2 + 1 },
	};
	static unsigned char bad[SEG_BYTES];
	unsigned char *good = segment_bytes(*ctx);
	unsigned idx;

	for (idx = 0; idx < WFI_ARRAY_SIZE(fields); idx++) {
		memcpy(bad, good, SEG_BYTES);
		memcpy(bad + fields[idx].off, &fields[idx].value, fields[idx].len);
		assert_int_equal(open_forged(forge(bad, SEG_BYTES, SEG_BYTES, F_SEAL_SHRINK)),
				 -EINVAL);
	}
	/* a string without an end, and the same metric twice */
	memcpy(bad, good, SEG_BYTES);
	memset(bad + ENTRY, 'a', 64);
	assert_int_equal(open_forged(forge(bad, SEG_BYTES, SEG_BYTES, F_SEAL_SHRINK)), -EINVAL);
	memcpy(bad, good, SEG_BYTES);
	memcpy(bad + ENTRY, bad + ENTRIES_OFF, ENTRY_BYTES);
	assert_int_equal(open_forged(forge(bad, SEG_BYTES, SEG_BYTES, F_SEAL_SHRINK)), -EINVAL);
	free(good);
}

static void test_forged_random(void **ctx)
{
	unsigned char *good = segment_bytes(*ctx), *bad = malloc(SEG_BYTES);
	const size_t described = ENTRIES_OFF + 6 * ENTRY_BYTES;
	uint64_t state = 88172645463325252ull;
	unsigned round, nr, opened = 0;
	size_t len;

	assert_non_null(bad);
	for (round = 0; round < 3000; round++) {
		memcpy(bad, good, SEG_BYTES);
		for (nr = 1 + round % 4; nr; nr--)
			bad[next_random(&state) % described] ^=
				(unsigned char)(1u << next_random(&state) % 8);
		/* one in four is also cut */
		len = round & 3 ? SEG_BYTES : next_random(&state) % SEG_BYTES;
		opened += !open_forged(forge(bad, len, len, F_SEAL_SHRINK));
	}
	/* flips in help texts and holes do no harm */
	assert_in_range(opened, 1, 2999);
	free(bad);
	free(good);
}

static void *count_on(void *arg)
{
	struct fix *f = arg;
	unsigned idx;

	for (idx = 0; idx < 200000; idx++) {
		wfi_count(f->gets, 1);
		wfi_hist_add(f->lat, idx);
	}
	return NULL;
}

static void test_writer_at_work(void **ctx)
{
	struct fix *f = *ctx;
	struct wfi_metrics_view *v = view(f);
	struct wfi_metric_info info;
	pthread_t thread;
	unsigned round;
	char *text;

	assert_int_equal(pthread_create(&thread, NULL, count_on, f), 0);
	for (round = 0; round < 20; round++) {
		text = format(v);
		check_text(text);
		free(text);
	}
	pthread_join(thread, NULL);
	assert_int_equal(wfi_metrics_view_get(v, 4, &info), 0);
	assert_int_equal(info.counter->value, 200000);
	wfi_metrics_view_close(v);
}

#define SEG_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hist_buckets),
		cmocka_unit_test(test_hist_quantile),
		cmocka_unit_test(test_hist_small_values),
		cmocka_unit_test(test_hist_garbage),
		cmocka_unit_test(test_hist_merge),
		SEG_TEST(test_view),
		SEG_TEST(test_places),
		SEG_TEST(test_refused),
		SEG_TEST(test_full),
		SEG_TEST(test_after_crash),
		SEG_TEST(test_text),
		SEG_TEST(test_text_plain),
		SEG_TEST(test_text_cut),
		SEG_TEST(test_forged_fd),
		SEG_TEST(test_forged_fields),
		SEG_TEST(test_forged_random),
		SEG_TEST(test_writer_at_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
