/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h - playing a trace (replay.c), and what came of it (replay_show.c) */
#ifndef WFI_REPLAY_H
#define WFI_REPLAY_H

#include "cli/cli.h"
#include "weft_internal/metrics.h"

struct wfi_replay_opts {
	struct wfi_cli_common common;
	struct wfi_cli_space space;
	const char *trace;
	uint64_t limit; /* requests, 0: all */
	double rate; /* times the speed of the trace, 0: no waiting */
	bool round_robin;
	uint64_t generate; /* requests to write instead of playing */
	uint64_t seed;
	uint64_t gap_ns;
	/* after each request; NULL: nobody looks on. Return: 0, or -errno to end it */
	int (*played)(void *ctx, uint64_t now_ns);
	void *ctx;
};

struct wfi_replay_totals {
	uint64_t requests;
	uint64_t blocks;
	uint64_t hits;
	uint64_t hits_below; /* of them, in a tier below memory when they were matched */
	uint64_t vanished; /* matched, and gone when they were to be got */
	uint64_t refused; /* blocks for which the node had no room */
	uint64_t tokens;
	uint64_t tokens_saved;
	uint64_t bytes_got;
	uint64_t bytes_put;
	uint64_t wrong_bytes;
	uint64_t broken_lines;
	uint64_t wall_ns;
	uint64_t match_ns; /* in calls of match */
	uint64_t move_ns; /* in calls of get and put */
	struct wfi_hist match;
	struct wfi_hist get;
	struct wfi_hist put;
};

/* Return: exit code; @totals has what was done until then */
int wfi_replay_run(const struct wfi_replay_opts *opts, struct wfi_replay_totals *totals);
double wfi_replay_hit_rate(const struct wfi_replay_totals *t);
/* bytes got and put, over the time in those calls */
double wfi_replay_gb_per_s(const struct wfi_replay_totals *t);
/* on stdout. Return: exit code */
int wfi_replay_show(const struct wfi_replay_totals *t);
int wfi_replay_show_json(const struct wfi_replay_totals *t);

#endif
