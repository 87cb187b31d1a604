/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_trace.c - which share of a trace's blocks and tokens each policy finds, by capacity
 *
 * The policies are the node's own code. Beside them: Belady's rule, which knows the future. A file
 * is read once, and played for each policy and capacity.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/trace.h"
#include "perf/perf.h"
#include "perf/trace_live.h"
#include "perf/trace_plot.h"
#include "perf/trace_sim.h"
#include "weft_internal/util.h"

#define CAPACITIES "1000,5000,10000,20000,30000"

struct trace_bench {
	const struct wfi_perf *p;
	struct wfi_env env;
	struct wfi_tsim *sim;
	uint64_t nr_broken;
	uint32_t capacities[WFI_TRACE_COLUMNS];
	unsigned nr_capacities;
	/* NULL: Belady's rule, always the last */
	const struct wfi_evict_policy *policies[WFI_TRACE_SERIES];
	struct wfi_trace_shares shares; /* of blocks, and of tokens */
	struct wfi_trace_shares tokens;
};

/* ---- what is asked for ---- */

/* calls @fn for each part of a list with commas. Return: 0, or its first error */
static int for_each(struct trace_bench *b, const char *list,
		    int (*fn)(struct trace_bench *b, const char *word))
{
	char word[32];
	int ret = 0;

	for (; *list && !ret; list += *list == ',') {
		const size_t len = strcspn(list, ",");

		snprintf(word, sizeof(word), "%.*s", (int)len, list);
		ret = fn(b, word);
		list += len;
	}
	return ret;
}

static int add_capacity(struct trace_bench *b, const char *word)
{
	char *end;
	const unsigned long n = strtoul(word, &end, 10);

	if (*end || !n || n > 1u << 29)
		return wfi_perf_fail(-EINVAL, "trace: --capacity takes numbers of blocks, not '%s'",
				     word);
	if (b->nr_capacities == WFI_TRACE_COLUMNS)
		return wfi_perf_fail(-EINVAL, "trace: at most %u capacities at a time",
				     WFI_TRACE_COLUMNS);
	b->capacities[b->nr_capacities++] = (uint32_t)n;
	return 0;
}

static void add_series(struct trace_bench *b, const char *name,
		       const struct wfi_evict_policy *policy)
{
	b->policies[b->shares.nr] = policy;
	b->tokens.names[b->shares.nr] = name;
	b->shares.names[b->shares.nr++] = name;
	b->tokens.nr = b->shares.nr;
}

static int add_policy(struct trace_bench *b, const char *word)
{
	const struct wfi_evict_policy *policy = wfi_evict_find(word);

	if (!policy)
		return wfi_perf_fail(-EINVAL, "trace: there is no policy '%s'", word);
	if (b->shares.nr + 1 == WFI_TRACE_SERIES)
		return wfi_perf_fail(-EINVAL, "trace: at most %u policies at a time",
				     WFI_TRACE_SERIES - 1);
	add_series(b, policy->name, policy);
	return 0;
}

static int parse(struct trace_bench *b)
{
	int ret;

	ret = for_each(b, b->p->capacities ? b->p->capacities : CAPACITIES, add_capacity);
	if (ret)
		return ret;
	if (b->p->policies)
		ret = for_each(b, b->p->policies, add_policy);
	else
		for (unsigned i = 0; wfi_evict_policies[i] && !ret; i++)
			ret = add_policy(b, wfi_evict_policies[i]->name);
	add_series(b, "belady", NULL);
	b->shares.capacities = b->capacities;
	b->shares.nr_capacities = b->nr_capacities;
	b->tokens.capacities = b->capacities;
	b->tokens.nr_capacities = b->nr_capacities;
	return ret;
}

/* ---- one file ---- */

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
				   req.nr_ids, req.input_length);
		if (ret)
			break;
	}
	if (ret)
		ret = wfi_perf_fail(ret == -EINVAL ? -ENODATA : ret, "%s:%llu: %s", path,
				    (unsigned long long)wfi_trace_line(trace),
				    ret == -EINVAL ? "time goes back" : strerror(-ret));
	b->nr_broken = wfi_trace_broken(trace);
	wfi_trace_close(trace);
	if (!ret && !wfi_tsim_nr_requests(b->sim))
		ret = wfi_perf_fail(-ENODATA, "%s: no request in it", path);
	return ret;
}

static double share(uint64_t hits, uint64_t all)
{
	return all ? (double)hits / (double)all : 0;
}

static int play(struct trace_bench *b, unsigned series, unsigned column)
{
	const uint64_t nr = wfi_tsim_nr_requests(b->sim);
	const struct wfi_evict_policy *policy = b->policies[series];
	const uint32_t nr_slots = b->capacities[column];
	struct wfi_tsim_result res;
	int ret;

	if (policy)
		ret = wfi_tsim_play(b->sim, policy, nr_slots, 1, 0, nr, &res);
	else
		ret = wfi_tsim_play_belady(b->sim, nr_slots, 0, nr, &res);
	if (ret)
		return wfi_perf_fail(ret, "a cache of %u blocks: %s", nr_slots, strerror(-ret));
	b->shares.value[series][column] = share(res.nr_hits, res.nr_refs);
	b->tokens.value[series][column] = share(res.nr_hit_tokens, res.nr_tokens);
	return 0;
}

static void print_rows(const struct trace_bench *b, const struct wfi_trace_shares *shares,
		       const char *name, const char *unit)
{
	char label[128];

	for (unsigned i = 0; i < b->nr_capacities; i++) {
		snprintf(label, sizeof(label), "%s_%u", name, b->capacities[i]);
		for (unsigned s = 1; s < shares->nr; s++)
			wfi_perf_row(b->p, &(struct wfi_perf_case){ "trace", label, unit, true },
				     shares->value[0][i], shares->names[s], shares->value[s][i]);
	}
}

static void print_table(const struct trace_bench *b, const struct wfi_trace_shares *shares,
			const char *what)
{
	printf("%-16s", what);
	for (unsigned i = 0; i < b->nr_capacities; i++)
		printf(" %9u", b->capacities[i]);
	for (unsigned s = 0; s < shares->nr; s++) {
		printf("\n%-16s", shares->names[s]);
		for (unsigned i = 0; i < b->nr_capacities; i++)
			printf(" %9.4f", shares->value[s][i]);
	}
	printf("\n\n");
}

static void print(const struct trace_bench *b, const char *name)
{
	char tokens[96];

	if (b->p->json) {
		snprintf(tokens, sizeof(tokens), "%s_tokens", name);
		print_rows(b, &b->shares, name, "prefix-hit share");
		print_rows(b, &b->tokens, tokens, "prefix-hit share");
		return;
	}
	printf("%s: %llu requests, %llu distinct blocks, %llu broken lines\n"
	       "share of the prompts that is found, by blocks that the cache holds\n\n",
	       name, (unsigned long long)wfi_tsim_nr_requests(b->sim),
	       (unsigned long long)wfi_tsim_nr_blocks(b->sim), (unsigned long long)b->nr_broken);
	print_table(b, &b->shares, "blocks");
	print_table(b, &b->tokens, "tokens");
}

/* the file's name, without folder and ending */
static void name_of(const char *path, char *name, size_t len)
{
	const char *base = strrchr(path, '/');

	base = base ? base + 1 : path;
	snprintf(name, len, "%.*s", (int)strcspn(base, "."), base);
	/* it stands in JSON and in a plot's script */
	for (char *c = name; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", *c))
			*c = '_';
}

static int run_file(struct trace_bench *b, const char *path)
{
	char name[64];
	int ret;

	ret = wfi_tsim_create(&b->env, WFI_TRACE_BLOCK_TOKENS, &b->sim);
	if (ret)
		return wfi_perf_fail(ret, "no memory");
	name_of(path, name, sizeof(name));
	ret = load(b, path);
	if (b->p->live) {
		if (!ret)
			ret = wfi_trace_live(b->p, &b->env, b->sim, path, name);
		wfi_tsim_destroy(b->sim);
		return ret;
	}
	for (unsigned s = 0; s < b->shares.nr && !ret; s++)
		for (unsigned i = 0; i < b->nr_capacities && !ret; i++)
			ret = play(b, s, i);
	if (!ret)
		print(b, name);
	if (!ret && b->p->plot)
		ret = wfi_trace_plot(&b->shares, name, b->p->plot);
	wfi_tsim_destroy(b->sim);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct trace_bench b = { .p = p };
	int i, ret;

	if (!nr_args)
		return wfi_perf_fail(-EINVAL, "trace: which file? e.g. weft-perf trace FILE");
	if (p->live && (p->plot || p->capacities || p->policies))
		return wfi_perf_fail(-EINVAL, "trace: --live asks one node, which has a policy and "
					      "a size: no --policy, --capacity or --plot");
	if (p->plot && nr_args > 1)
		return wfi_perf_fail(-EINVAL, "trace: --plot takes one file at a time");
	ret = parse(&b);
	if (!ret)
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
