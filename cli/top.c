/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top: what a node does, second by second. It maps the node's metrics and takes differences; the
 * node does nothing for it. Shown is what the segment describes: a row for each histogram with an
 * op label, a line for each counter that moves.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "weft_internal/metrics.h"
#include "weft_internal/util.h"

#define OPS_MAX 64
#define COUNTERS_MAX 1024
#define OP_NAME 24

struct top_opts {
	struct wfi_cli_common common;
	uint64_t interval_ns;
	bool once;
	bool total;
};

static const struct top_opts defaults = { .interval_ns = WFI_NSEC_PER_SEC };

static const struct wfi_cli_opt opts_table[] = {
	{ "interval", "TIME", WFI_CLI_DURATION, offsetof(struct top_opts, interval_ns),
	  "time between two looks (default 1s)" },
	{ "once", NULL, WFI_CLI_FLAG, offsetof(struct top_opts, once), "one look, then end" },
	{ "total", NULL, WFI_CLI_FLAG, offsetof(struct top_opts, total),
	  "one look at all since the node started, then end" },
	{ 0 },
};

struct op_row {
	char name[OP_NAME];
	const struct wfi_hist *live; /* in the node's segment */
	struct wfi_hist before;
	struct wfi_hist delta;
};

struct counter_row {
	struct wfi_metric_info info;
	uint64_t before;
	uint64_t delta;
	enum { COUNTS_OTHER, COUNTS_HIT, COUNTS_MISS } counts;
};

struct top {
	const struct top_opts *opts;
	struct weft *w;
	struct wfi_metrics_view *view;
	struct op_row *ops;
	struct counter_row *counters;
	unsigned nr_ops;
	unsigned nr_counters;
	uint64_t before_ns;
	double seconds; /* between the last two looks */
	const char *eol; /* on a screen, what clears the rest of the line first */
};

/* value of label @key in `key="value",...`. Return: true when it is there */
static bool label_get(const char *labels, const char *key, char *out, size_t len)
{
	const char *at = strstr(labels, key);
	size_t n;

	if (!at || (at != labels && at[-1] != ',') || strncmp(at + strlen(key), "=\"", 2))
		return false;
	at += strlen(key) + 2;
	n = strcspn(at, "\"");
	snprintf(out, len, "%.*s", (int)wfi_min(n, len - 1), at);
	return true;
}

static bool ends_with(const char *text, const char *end)
{
	const size_t lt = strlen(text), le = strlen(end);

	return lt >= le && !strcmp(text + lt - le, end);
}

static void add_counter(struct top *t, const struct wfi_metric_info *info)
{
	struct counter_row *c = &t->counters[t->nr_counters];
	char result[8] = "";

	if (t->nr_counters == COUNTERS_MAX)
		return;
	t->nr_counters++;
	c->info = *info;
	label_get(info->labels, "result", result, sizeof(result));
	if (!strcmp(result, "hit") || ends_with(info->name, "_hits"))
		c->counts = COUNTS_HIT;
	else if (!strcmp(result, "miss") || ends_with(info->name, "_misses"))
		c->counts = COUNTS_MISS;
}

static void add_op(struct top *t, const struct wfi_metric_info *info)
{
	struct op_row *o = &t->ops[t->nr_ops];

	if (t->nr_ops == OPS_MAX || !label_get(info->labels, "op", o->name, sizeof(o->name)))
		return;
	t->nr_ops++;
	o->live = info->hist;
}

static int rows_create(struct top *t)
{
	struct wfi_metric_info info;
	unsigned i;

	t->ops = calloc(OPS_MAX, sizeof(t->ops[0]));
	t->counters = calloc(COUNTERS_MAX, sizeof(t->counters[0]));
	if (!t->ops || !t->counters)
		return -ENOMEM;
	for (i = 0; i < wfi_metrics_view_nr(t->view); i++) {
		if (wfi_metrics_view_get(t->view, i, &info))
			continue;
		if (info.kind == WFI_METRIC_HIST)
			add_op(t, &info);
		else if (info.kind == WFI_METRIC_COUNTER)
			add_counter(t, &info);
	}
	return 0;
}

/* the node's figures now, and what they have grown by since the last look. A figure that shrank is
 * torn or another life's: it counts as still */
static void hist_look(struct op_row *o)
{
	uint64_t v;
	unsigned i;

	o->delta.nr = 0;
	for (i = 0; i < WFI_HIST_NR_BUCKETS; i++) {
		v = __atomic_load_n(&o->live->bucket[i], __ATOMIC_RELAXED);
		o->delta.bucket[i] = v > o->before.bucket[i] ? v - o->before.bucket[i] : 0;
		o->delta.nr += o->delta.bucket[i];
		o->before.bucket[i] = v;
	}
	o->delta.max = __atomic_load_n(&o->live->max, __ATOMIC_RELAXED);
}

static void look(struct top *t)
{
	const uint64_t now = wfi_cli_now_ns();
	struct counter_row *c;
	uint64_t v;
	unsigned i;

	t->seconds = (double)(now - t->before_ns) / (double)WFI_NSEC_PER_SEC;
	t->before_ns = now;
	for (i = 0; i < t->nr_ops; i++)
		hist_look(&t->ops[i]);
	for (i = 0; i < t->nr_counters; i++) {
		c = &t->counters[i];
		v = __atomic_load_n(&c->info.counter->value, __ATOMIC_RELAXED);
		c->delta = v > c->before ? v - c->before : 0;
		c->before = v;
	}
}

/* share of hits in [0, 1], negative when nothing was asked for */
static double hit_rate(const struct top *t)
{
	uint64_t hits = 0, misses = 0;
	unsigned i;

	for (i = 0; i < t->nr_counters; i++) {
		if (t->counters[i].counts == COUNTS_HIT)
			hits += t->counters[i].delta;
		else if (t->counters[i].counts == COUNTS_MISS)
			misses += t->counters[i].delta;
	}
	return hits + misses ? (double)hits / (double)(hits + misses) : -1;
}

static double bytes_per_s(const struct top *t)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < t->nr_counters; i++)
		if (!strcmp(t->counters[i].info.unit, "bytes"))
			sum += t->counters[i].delta;
	return (double)sum / t->seconds;
}

static double ops_per_s(const struct top *t)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < t->nr_ops; i++)
		sum += t->ops[i].delta.nr;
	return (double)sum / t->seconds;
}

/* ---- text ---- */

static void show_op(const struct top *t, const struct op_row *o)
{
	char rate[WFI_TEXT], p50[WFI_TEXT], p99[WFI_TEXT], p999[WFI_TEXT];

	wfi_text_count((double)o->delta.nr / t->seconds, rate);
	if (!o->delta.nr) {
		printf("%-16s %10s %10s %10s %10s%s", o->name, rate, "-", "-", "-", t->eol);
		return;
	}
	printf("%-16s %10s %10s %10s %10s%s", o->name, rate,
	       wfi_text_ns(wfi_hist_quantile(&o->delta, 0.50), p50),
	       wfi_text_ns(wfi_hist_quantile(&o->delta, 0.99), p99),
	       wfi_text_ns(wfi_hist_quantile(&o->delta, 0.999), p999), t->eol);
}

static void show_counter(const struct top *t, const struct counter_row *c)
{
	const double rate = (double)c->delta / t->seconds;
	char text[WFI_TEXT];

	if (!c->delta)
		return;
	if (!strcmp(c->info.unit, "bytes"))
		wfi_text_bytes(rate, text);
	else
		wfi_text_count(rate, text);
	printf("%-40s %-24s %12s/s%s", c->info.name, c->info.labels, text, t->eol);
}

static void show_text(const struct top *t)
{
	char ops[WFI_TEXT], bytes[WFI_TEXT];
	const double hits = hit_rate(t);
	unsigned i;

	printf("ops %s/s   bytes %s/s   hits ", wfi_text_count(ops_per_s(t), ops),
	       wfi_text_bytes(bytes_per_s(t), bytes));
	if (hits < 0)
		printf("-");
	else
		printf("%.1f%%", 100 * hits);
	printf("%s%s%-16s %10s %10s %10s %10s%s", t->eol, t->eol, "OPERATION", "OPS/S", "P50",
	       "P99", "P99.9", t->eol);
	for (i = 0; i < t->nr_ops; i++)
		show_op(t, &t->ops[i]);
	fputs(t->eol, stdout);
	for (i = 0; i < t->nr_counters; i++)
		show_counter(t, &t->counters[i]);
}

/* ---- JSON: one line a look ---- */

static int show_json(const struct top *t)
{
	const double hits = hit_rate(t);
	json_t *ops = json_array(), *counters = json_array();
	const struct counter_row *c;
	const struct op_row *o;
	unsigned i;

	for (i = 0; i < t->nr_ops; i++) {
		o = &t->ops[i];
		json_array_append_new(
			ops, json_pack("{s:s,s:f,s:I,s:I,s:I}", "op", o->name, "per_s",
				       (double)o->delta.nr / t->seconds, "p50_ns",
				       (json_int_t)wfi_hist_quantile(&o->delta, 0.50), "p99_ns",
				       (json_int_t)wfi_hist_quantile(&o->delta, 0.99), "p999_ns",
				       (json_int_t)wfi_hist_quantile(&o->delta, 0.999)));
	}
	for (i = 0; i < t->nr_counters; i++) {
		c = &t->counters[i];
		json_array_append_new(counters,
				      json_pack("{s:s,s:s,s:s,s:I,s:f}", "name", c->info.name,
						"labels", c->info.labels, "unit", c->info.unit,
						"total", (json_int_t)c->before, "per_s",
						(double)c->delta / t->seconds));
	}
	return wfi_cli_print_json(json_pack("{s:f,s:f,s:f,s:o,s:o,s:o}", "seconds", t->seconds,
					    "ops_per_s", ops_per_s(t), "bytes_per_s",
					    bytes_per_s(t), "hit_rate",
					    hits < 0 ? json_null() : json_real(hits), "ops", ops,
					    "counters", counters),
				  0);
}

/* ---- running ---- */

static int node_gone(void)
{
	fputs("weft: the node is gone\n", stderr);
	return WFI_EXIT_NO_NODE;
}

static int show(struct top *t)
{
	const bool json = t->opts->common.json;

	if (json)
		return show_json(t);
	show_text(t);
	return fflush(stdout) ? WFI_EXIT_FAILED : WFI_EXIT_OK;
}

/* all that was counted since the node started is one long look */
static int show_total(struct top *t)
{
	json_t *status, *node;
	char *text = NULL;
	int ret;

	ret = weft_status_json(t->w, &text);
	if (ret)
		return wfi_cli_failed("status", ret);
	status = json_loads(text, 0, NULL);
	node = json_object_get(status, "node");
	t->before_ns = wfi_cli_now_ns() -
		       WFI_NSEC_PER_MSEC *
			       (uint64_t)json_integer_value(json_object_get(node, "uptime_ms"));
	json_decref(status);
	free(text);
	t->eol = "\n";
	look(t);
	return show(t);
}

static int watch(struct top *t)
{
	const bool screen = !t->opts->common.json && !t->opts->once && isatty(STDOUT_FILENO);
	const struct timespec interval = {
		.tv_sec = (time_t)(t->opts->interval_ns / WFI_NSEC_PER_SEC),
		.tv_nsec = (long)(t->opts->interval_ns % WFI_NSEC_PER_SEC),
	};
	int ret = WFI_EXIT_OK;

	t->eol = screen ? "\033[K\n" : "\n";
	look(t);
	while (!ret) {
		ppoll(NULL, 0, &interval, NULL);
		if (wfi_cli_stopped())
			break;
		if (weft_attached(t->w) != 1)
			return node_gone();
		look(t);
		if (!t->opts->common.json)
			fputs(screen ? "\033[H" : "", stdout);
		ret = show(t);
		if (!t->opts->common.json)
			fputs(screen ? "\033[J" : "\n", stdout);
		if (t->opts->once)
			break;
	}
	return ret;
}

static int top_open(struct top *t)
{
	int ret, fd;

	ret = wfi_cli_open(&t->opts->common, 0, &t->w);
	if (ret)
		return ret;
	fd = weft_metrics_fd(t->w);
	if (fd < 0)
		return wfi_cli_failed("metrics", fd);
	ret = wfi_metrics_view_open(fd, &t->view);
	close(fd);
	if (!ret)
		ret = rows_create(t);
	if (ret) {
		fprintf(stderr, "weft: the node's metrics: %s\n", strerror(-ret));
		return WFI_EXIT_FAILED;
	}
	return WFI_EXIT_OK;
}

static int run_top(const void *arg, int argc, char **argv)
{
	struct top t = { .opts = arg };
	int ret;

	(void)argc;
	(void)argv;
	if (t.opts->interval_ns < 10 * WFI_NSEC_PER_MSEC)
		return wfi_cli_usage("top", "top: --interval is at least 10ms");
	wfi_cli_stop_on(SIGINT);
	wfi_cli_stop_on(SIGTERM);
	ret = top_open(&t);
	if (!ret)
		ret = t.opts->total ? show_total(&t) : watch(&t);
	if (t.view)
		wfi_metrics_view_close(t.view);
	free(t.ops);
	free(t.counters);
	weft_close(t.w);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_top = {
	.name = "top",
	.summary = "operations, hit rate, bytes and latencies, live",
	.opts = opts_table,
	.defaults = &defaults,
	.opts_len = sizeof(defaults),
	.examples = "  weft top\n"
		    "  weft top --once --interval 10s\n"
		    "  weft top --total\n"
		    "  weft top --json | jq -c '[.ops_per_s, .hit_rate]'\n",
	.run = run_top,
};
