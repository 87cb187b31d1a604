/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/replay.h"
#include "cli/trace.h"
#include "perf/trace_live.h"
#include "weft_internal/env.h"
#include "weft_internal/evict.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

struct live {
	const struct wfi_perf *p;
	struct wfi_tsim *sim;
	const char *name;
	char model[96];
	struct wfi_replay_opts opts;
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
	uint32_t space_id;
	const struct wfi_evict_policy *policy; /* of the node */
	uint32_t room; /* blocks that its memory has for the trace */
	uint64_t played; /* requests */
	struct wfi_replay_totals got;
	struct wfi_tsim_result simulated;
};

/* ---- the node ---- */

static int live_open(struct live *l)
{
	int ret = wfi_cli_open(&l->opts.common, 0, &l->w);

	if (!ret)
		ret = wfi_cli_space_open(l->w, &l->opts.space, "trace", &l->space);
	if (!ret && weft_ring_open(l->w, NULL, &l->ring))
		ret = wfi_cli_failed("opening a ring", -EIO);
	return ret ? -EIO : 0;
}

/* nothing is left behind, whatever @ret came before. Return: that, or what removing said */
static int live_close(struct live *l, int ret)
{
	int gone = 0;

	weft_space_close(l->space);
	if (l->space_id)
		gone = weft_space_remove(l->w, l->space_id);
	if (gone)
		wfi_perf_fail(gone, "trace: removing the space: %s", weft_why());
	weft_close(l->w);
	return ret ? ret : gone;
}

/* Return: the node's answer as an object, or NULL (said) */
static json_t *ask(struct live *l, int (*fn)(struct weft *w, char **out))
{
	json_t *root;
	char *text;

	if (fn(l->w, &text)) {
		wfi_perf_fail(0, "%s", weft_why());
		return NULL;
	}
	root = json_loads(text, 0, NULL);
	free(text);
	return root;
}

static int ask_policy(struct live *l)
{
	json_t *root = ask(l, weft_status_json);
	const char *name = wfi_json_str(json_object_get(root, "node"), "policy");

	l->policy = wfi_evict_find(name);
	if (root && !l->policy)
		wfi_perf_fail(0, "trace: the node's policy '%s' is none of this program's", name);
	json_decref(root);
	return l->policy ? 0 : root ? -ENOENT : -EIO;
}

static int ask_room(struct live *l)
{
	json_t *root = ask(l, weft_stat_json), *space;
	uint64_t room = 0;
	size_t i;

	json_array_foreach(json_object_get(root, "spaces"), i, space)
	{
		if (strcmp(wfi_json_str(space, "model"), l->opts.space.model) != 0)
			continue;
		room = wfi_json_u64(space, "slots_room");
		l->space_id = (uint32_t)wfi_json_u64(space, "id");
	}
	json_decref(root);
	l->room = (uint32_t)wfi_min(room, 1u << 29);
	return room ? 0
		    : wfi_perf_fail(-EIO, "trace: the node has no room for one block of %llu bytes",
				    (unsigned long long)l->opts.space.block_bytes);
}

/* ---- the requests ---- */

static int played(void *ctx, uint64_t now_ns)
{
	struct live *l = ctx;

	return wfi_tsim_set_time(l->sim, l->played++, now_ns);
}

static int play(struct live *l)
{
	int ret;

	l->opts.played = played;
	l->opts.ctx = l;
	/* broken lines were said when the simulation read them */
	wfi_log_init(WFI_LOG_ERR, "weft-perf");
	ret = wfi_replay_run(&l->opts, &l->got);
	wfi_log_init(WFI_LOG_WARN, "weft-perf");
	if (ret)
		return -EIO;
	if (l->got.wrong_bytes)
		return wfi_perf_fail(-EIO, "trace: %llu bytes that came back are wrong",
				     (unsigned long long)l->got.wrong_bytes);
	ret = wfi_tsim_play(l->sim, l->policy, l->room, 1, 0, l->played, &l->simulated);
	return ret ? wfi_perf_fail(ret, "a cache of %u blocks: %s", l->room, strerror(-ret)) : 0;
}

/* ---- what came of it ---- */

static double share(uint64_t hits, uint64_t all)
{
	return all ? (double)hits / (double)all : 0;
}

static void row(const struct live *l, const char *what, double live, double simulated)
{
	char label[128], peer[64];

	snprintf(label, sizeof(label), "%s_live%s", l->name, what);
	snprintf(peer, sizeof(peer), "%s_simulated", l->policy->name);
	wfi_perf_row(l->p, &(struct wfi_perf_case){ "trace", label, "prefix-hit share", true },
		     live, peer, simulated);
}

static void fact(const struct live *l, const char *what, const char *unit, bool rate, double value)
{
	char label[128];

	snprintf(label, sizeof(label), "%s_live_%s", l->name, what);
	wfi_perf_fact(l->p, &(struct wfi_perf_case){ "trace", label, unit, rate }, value);
}

static void latencies(const struct live *l, const char *op, const struct wfi_hist *h)
{
	static const struct {
		const char *name;
		double q;
	} quantiles[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p999", 0.999 } };
	char what[32];

	for (unsigned i = 0; h->nr && i < WFI_ARRAY_SIZE(quantiles); i++) {
		snprintf(what, sizeof(what), "%s_%s", op, quantiles[i].name);
		fact(l, what, "us", false, (double)wfi_hist_quantile(h, quantiles[i].q) / 1e3);
	}
}

static void print_rows(const struct live *l, double live[2], double simulated[2])
{
	row(l, "", live[0], simulated[0]);
	row(l, "_tokens", live[1], simulated[1]);
	fact(l, "below", "share of hits", true, share(l->got.hits_below, l->got.hits));
	fact(l, "rate", "GB/s", true, wfi_replay_gb_per_s(&l->got));
	fact(l, "requests", "1/s", true,
	     (double)l->got.requests * 1e9 / (double)wfi_max(l->got.wall_ns, 1));
	latencies(l, "match", &l->got.match);
	latencies(l, "get", &l->got.get);
	latencies(l, "put", &l->got.put);
}

static void print(const struct live *l)
{
	double live[2] = { share(l->got.hits, l->got.blocks),
			   share(l->got.tokens_saved, l->got.tokens) };
	double simulated[2] = { share(l->simulated.nr_hits, l->simulated.nr_refs),
				share(l->simulated.nr_hit_tokens, l->simulated.nr_tokens) };

	if (l->p->json) {
		print_rows(l, live, simulated);
		return;
	}
	printf("%s: on a node whose memory has room for %u blocks of %llu bytes, policy %s\n\n"
	       "%-22s %9s %9s\n%-22s %9.4f %9.4f\n%-22s %9.4f %9.4f\n\n",
	       l->name, l->room, (unsigned long long)l->opts.space.block_bytes, l->policy->name,
	       "share that is found", "live", "simulated", "blocks", live[0], simulated[0],
	       "tokens", live[1], simulated[1]);
	wfi_replay_show(&l->got);
	putchar('\n');
}

/* a space that nobody has used, so that the policy there knows nothing yet */
static int live_opts(struct live *l, struct wfi_env *env, const char *path)
{
	const struct wfi_perf *p = l->p;
	uint64_t run;
	int ret = env->rng->bytes(env, &run, sizeof(run));

	if (ret)
		return wfi_perf_fail(ret, "no random bytes: %s", strerror(-ret));
	snprintf(l->model, sizeof(l->model), "weft-perf %.60s %016llx", l->name,
		 (unsigned long long)run);
	l->opts = (struct wfi_replay_opts){
		.common = { .sockets = { p->socket }, .nr_sockets = !!p->socket },
		.space = WFI_CLI_SPACE_DEFAULTS(p->block_bytes),
		.trace = path,
		.limit = p->quick ? 1000 : 0,
		.rate = p->speed,
	};
	l->opts.space.model = l->model;
	l->opts.space.tokens_per_block = WFI_TRACE_BLOCK_TOKENS;
	return 0;
}

int wfi_trace_live(const struct wfi_perf *p, struct wfi_env *env, struct wfi_tsim *sim,
		   const char *path, const char *name)
{
	struct live *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return wfi_perf_fail(-ENOMEM, "no memory");
	l->p = p;
	l->sim = sim;
	l->name = name;
	ret = live_opts(l, env, path);
	if (!ret)
		ret = live_open(l);
	if (!ret)
		ret = ask_policy(l);
	if (!ret)
		ret = ask_room(l);
	if (!ret)
		ret = play(l);
	ret = live_close(l, ret);
	if (!ret)
		print(l);
	free(l);
	return ret;
}
