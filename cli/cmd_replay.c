/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "cli/replay.h"
#include "cli/trace.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

static const struct wfi_replay_opts defaults = {
	.space = WFI_CLI_SPACE_DEFAULTS(64 << 10),
	.gap_ns = 300 * WFI_NSEC_PER_MSEC,
};

static const struct wfi_cli_opt opts_table[] = {
	{ "trace", "FILE", WFI_CLI_STRING, offsetof(struct wfi_replay_opts, trace),
	  "requests in Mooncake's JSONL form; - is the standard input" },
	{ "limit", "N", WFI_CLI_NUMBER, offsetof(struct wfi_replay_opts, limit),
	  "end after N requests" },
	{ "rate", "X", WFI_CLI_FACTOR, offsetof(struct wfi_replay_opts, rate),
	  "X times the speed of the trace's clock; 0: as fast as possible (default)" },
	{ "round-robin", NULL, WFI_CLI_FLAG, offsetof(struct wfi_replay_opts, round_robin),
	  "nodes in turn; else what begins with the same two blocks goes to the same node" },
	WFI_CLI_SPACE_OPTS(wfi_replay_opts, space),
	{ "generate", "N", WFI_CLI_NUMBER, offsetof(struct wfi_replay_opts, generate),
	  "play nothing: write a trace of N requests to the standard output" },
	{ "seed", "N", WFI_CLI_NUMBER, offsetof(struct wfi_replay_opts, seed),
	  "of --generate; equal seeds give equal traces" },
	{ "gap", "TIME", WFI_CLI_DURATION, offsetof(struct wfi_replay_opts, gap_ns),
	  "of --generate: mean time between requests (default 300ms)" },
	{ 0 },
};

double wfi_replay_hit_rate(const struct wfi_replay_totals *t)
{
	return t->blocks ? (double)t->hits / (double)t->blocks : 0;
}

double wfi_replay_gb_per_s(const struct wfi_replay_totals *t)
{
	return t->move_ns ? (double)(t->bytes_got + t->bytes_put) / (double)t->move_ns : 0;
}

static void show_hist(const char *name, const struct wfi_hist *h)
{
	char p50[WFI_TEXT], p99[WFI_TEXT], p999[WFI_TEXT];

	if (!h->nr) {
		printf("%-22s -\n", name);
		return;
	}
	printf("%-22s %s / %s / %s\n", name, wfi_text_ns(wfi_hist_quantile(h, 0.50), p50),
	       wfi_text_ns(wfi_hist_quantile(h, 0.99), p99),
	       wfi_text_ns(wfi_hist_quantile(h, 0.999), p999));
}

static void show_bytes(const char *name, uint64_t bytes)
{
	char text[WFI_TEXT];

	printf("%-22s %s\n", name, wfi_text_bytes((double)bytes, text));
}

static void show_count(const char *name, uint64_t count)
{
	printf("%-22s %" PRIu64 "\n", name, count);
}

static int show_table(const struct wfi_replay_totals *t)
{
	show_count("requests", t->requests);
	show_count("blocks", t->blocks);
	printf("%-22s %.2f%%\n", "prefix-hit rate", 100 * wfi_replay_hit_rate(t));
	printf("%-22s %" PRIu64 " of %" PRIu64 "\n", "prefill tokens saved", t->tokens_saved,
	       t->tokens);
	show_bytes("bytes got", t->bytes_got);
	show_bytes("bytes put", t->bytes_put);
	printf("%-22s %.2f (in get and put)\n", "GB/s", wfi_replay_gb_per_s(t));
	printf("%-22s %.2fs\n", "time", (double)t->wall_ns / (double)WFI_NSEC_PER_SEC);
	show_hist("match p50/p99/p99.9", &t->match);
	show_hist("get p50/p99/p99.9", &t->get);
	show_hist("put p50/p99/p99.9", &t->put);
	show_count("evicted before get", t->vanished);
	show_count("blocks without room", t->refused);
	show_count("wrong bytes", t->wrong_bytes);
	show_count("broken lines", t->broken_lines);
	return fflush(stdout) ? WFI_EXIT_FAILED : WFI_EXIT_OK;
}

static json_t *hist_json(const struct wfi_hist *h)
{
	return json_pack("{s:I,s:I,s:I,s:I}", "calls", (json_int_t)h->nr, "p50_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.50), "p99_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.99), "p999_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.999));
}

static int show_json(const struct wfi_replay_totals *t)
{
	json_t *root;

	root = json_pack("{s:I,s:I,s:I,s:f,s:I,s:I,s:I,s:I,s:f,s:f}", "requests",
			 (json_int_t)t->requests, "blocks", (json_int_t)t->blocks, "hits",
			 (json_int_t)t->hits, "hit_rate", wfi_replay_hit_rate(t), "tokens",
			 (json_int_t)t->tokens, "tokens_saved", (json_int_t)t->tokens_saved,
			 "bytes_got", (json_int_t)t->bytes_got, "bytes_put",
			 (json_int_t)t->bytes_put, "gb_per_s", wfi_replay_gb_per_s(t), "seconds",
			 (double)t->wall_ns / (double)WFI_NSEC_PER_SEC);
	json_object_set_new(root, "match", hist_json(&t->match));
	json_object_set_new(root, "get", hist_json(&t->get));
	json_object_set_new(root, "put", hist_json(&t->put));
	json_object_set_new(root, "vanished", json_integer((json_int_t)t->vanished));
	json_object_set_new(root, "refused", json_integer((json_int_t)t->refused));
	json_object_set_new(root, "wrong_bytes", json_integer((json_int_t)t->wrong_bytes));
	json_object_set_new(root, "broken_lines", json_integer((json_int_t)t->broken_lines));
	return wfi_cli_print_json(root, 0);
}

static int generate(const struct wfi_replay_opts *opts)
{
	const struct wfi_trace_gen gen = {
		.seed = opts->seed,
		.nr_requests = opts->generate,
		.mean_gap_ms = opts->gap_ns / WFI_NSEC_PER_MSEC,
	};
	int ret;

	if (opts->trace)
		return wfi_cli_usage("replay",
				     "replay: --generate writes, --trace plays; not both");
	ret = wfi_trace_generate(&gen, stdout);
	if (!ret)
		return WFI_EXIT_OK;
	fprintf(stderr, "weft: replay: %s\n", strerror(-ret));
	return WFI_EXIT_FAILED;
}

static int run_replay(const void *arg, int argc, char **argv)
{
	const struct wfi_replay_opts *opts = arg;
	struct wfi_replay_totals *t;
	int ret, shown;

	(void)argc;
	(void)argv;
	if (opts->generate)
		return generate(opts);
	if (!opts->trace)
		return wfi_cli_usage("replay", "replay: wants --trace FILE or --generate N");
	if (opts->space.block_bytes < 64 || opts->space.block_bytes > 1ull << 30)
		return wfi_cli_usage("replay", "replay: --block-bytes goes from 64 to 1G");
	t = malloc(sizeof(*t));
	if (!t) {
		fputs("weft: replay: out of memory\n", stderr);
		return WFI_EXIT_FAILED;
	}
	ret = wfi_replay_run(opts, t);
	/* what was done until a failure is worth its table, too */
	if (!ret || t->requests) {
		shown = opts->common.json ? show_json(t) : show_table(t);
		if (!ret)
			ret = shown;
	}
	if (!ret && !t->requests) {
		fprintf(stderr, "weft: %s: no request in it\n", opts->trace);
		ret = WFI_EXIT_FAILED;
	}
	if (!ret && t->wrong_bytes)
		ret = WFI_EXIT_FAILED;
	free(t);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_replay = {
	.name = "replay",
	.summary = "play a trace of requests against nodes, and check every byte",
	.opts = opts_table,
	.defaults = &defaults,
	.opts_len = sizeof(defaults),
	.args = "--trace FILE | --generate N",
	.examples =
		"  weft replay --generate 2000 --seed 7 > trace.jsonl\n"
		"  weft replay --trace trace.jsonl --block-bytes 128K\n"
		"  weft replay --trace trace.jsonl --rate 10 --json --socket /run/weft/weftd.sock"
		" \\\n        --socket /run/weft-b/weftd.sock\n",
	.run = run_replay,
};
