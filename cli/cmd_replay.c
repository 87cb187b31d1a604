/* SPDX-License-Identifier: Apache-2.0 */
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
		shown = opts->common.json ? wfi_replay_show_json(t) : wfi_replay_show(t);
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
