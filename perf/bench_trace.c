/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_trace.c - which share of a trace's blocks each eviction policy finds, by capacity
 *
 * The policies are the node's own code. The references beside them: LRU, and Belady's rule, which
 * knows the future.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "cli/trace.h"
#include "perf/perf.h"
#include "perf/trace_sim.h"
#include "weft_internal/util.h"

static const uint32_t capacities[] = { 1000, 5000, 5859, 10000, 20000, 30000, 50000 };

struct trace_bench {
	const struct wfi_perf *p;
	struct wfi_env env;
	struct wfi_tsim *sim;
};

static int load(struct trace_bench *b, const char *path)
{
	struct wfi_trace_request req;
	struct wfi_trace *trace;
	int ret;

	ret = wfi_trace_open(path, &trace);
	if (ret)
		return wfi_perf_fail(ret, "%s: %s", path, strerror(-ret));
	while ((ret = wfi_trace_next(trace, &req)) > 0) {
		ret = wfi_tsim_add(b->sim, req.timestamp_ms * WFI_NSEC_PER_MSEC, req.hash_ids,
				   req.nr_ids);
		if (ret)
			break;
	}
	if (ret)
		wfi_perf_fail(ret, "%s:%llu: %s", path, (unsigned long long)wfi_trace_line(trace),
			      ret == -EINVAL ? "time goes back" : strerror(-ret));
	wfi_trace_close(trace);
	return ret;
}

static double share(const struct wfi_tsim_result *res)
{
	return res->nr_refs ? (double)res->nr_hits / (double)res->nr_refs : 0;
}

static void print(const struct trace_bench *b, uint32_t nr_slots, const char *name, double weft,
		  const struct wfi_tsim_result *lru, const struct wfi_tsim_result *belady)
{
	char label[64];

	snprintf(label, sizeof(label), "%s_%u", name, nr_slots);
	if (strcmp(name, "lru"))
		wfi_perf_row(b->p, &(struct wfi_perf_case){ "trace", label, "hit share", true },
			     weft, "lru", share(lru));
	wfi_perf_row(b->p, &(struct wfi_perf_case){ "trace", label, "hit share", true }, weft,
		     "belady", share(belady));
}

static int play(const struct trace_bench *b, uint32_t nr_slots)
{
	const uint64_t nr = wfi_tsim_nr_requests(b->sim);
	const struct wfi_evict_policy *const *policy;
	struct wfi_tsim_result lru, belady, res;
	int ret;

	ret = wfi_tsim_play(b->sim, wfi_evict_find("lru"), nr_slots, 1, 0, nr, &lru);
	if (!ret)
		ret = wfi_tsim_play_belady(b->sim, nr_slots, 0, nr, &belady);
	for (policy = wfi_evict_policies; *policy && !ret; policy++) {
		ret = wfi_tsim_play(b->sim, *policy, nr_slots, 1, 0, nr, &res);
		if (!ret)
			print(b, nr_slots, (*policy)->name, share(&res), &lru, &belady);
	}
	return ret ? wfi_perf_fail(ret, "a cache of %u blocks: %s", nr_slots, strerror(-ret)) : 0;
}

static int run_file(struct trace_bench *b, const char *path)
{
	size_t i;
	int ret;

	ret = wfi_tsim_create(&b->env, &b->sim);
	if (ret)
		return wfi_perf_fail(ret, "no memory");
	ret = load(b, path);
	for (i = 0; i < WFI_ARRAY_SIZE(capacities) && !ret; i++)
		ret = play(b, capacities[i]);
	wfi_tsim_destroy(b->sim);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct trace_bench b = { .p = p };
	int i, ret;

	if (!nr_args)
		return wfi_perf_fail(-EINVAL, "trace: which file? e.g. weft-perf trace FILE");
	ret = wfi_env_real_init(&b.env);
	for (i = 0; i < nr_args && !ret; i++)
		ret = run_file(&b, args[i]);
	return ret;
}

const struct wfi_perf_bench wfi_perf_trace = {
	.name = "trace",
	.summary = "hit shares of the eviction policies on a trace of requests",
	.takes_files = true,
	.run = run,
};
