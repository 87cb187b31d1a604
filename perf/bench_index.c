/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_index.c - chains of 64 among 10 million blocks: alone, and beside a core that writes
 *
 * The KV manager is called directly. One core looks up through a reader, as any thread may beside
 * the owner; the owner, on the other core, publishes into a second space that is full, so that
 * each block put evicts another and the chains looked up stay. Blocks are of 64 bytes and are never
 * touched: headers, index, tree and policy are all the work there is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "perf/kv_rig.h"
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"
#include "weft_internal/util.h"

#define CHAIN 64u
#define NR_CHAINS (10000000u / CHAIN)
#define NR_CHAINS_QUICK (500000u / CHAIN)
#define NR_CHURN (1u << 20) /* blocks of the space that is written */
#define NR_CHURN_QUICK (1u << 16)
#define SPARE (2u << 20) /* spaces take blocks in steps of half a million */
#define REPEATS 8000u
#define NR_TIMES 100000u
#define GROWTH_ROUNDS 5u
#define WINDOW 1024u /* puts, some 10 ms: so far apart the same step may be in two growths */
#define LOOP_PUT 8000u /* what bare_loop does for a put and for a match of a chain: about as long */
#define LOOP_MATCH 750u

/* of each window of puts: the longest that one took, in the growth where that was least */
struct growth {
	uint32_t *now_ns;
	uint32_t *least_ns;
	uint64_t nr;
};

struct index_bench {
	struct wfi_perf_kv kv;
	struct growth growth;
	struct wfi_space_info churn; /* the space that is written */
	struct wfi_kv_reader *reader;
	uint64_t nr_chains;
	uint64_t nr_churn;
	uint64_t turn; /* of the look-ups, and of the keys written */
	uint64_t written;
	struct wfi_peer_loop put_loop; /* as long as a put of a chain, and as all of them */
	struct wfi_peer_loop match_loop;
	uint32_t nr_repeats;
	int stop; /* atomic */
	int failed;
};

/* ---- the reader ---- */

static int match64_ns(void *ctx, double *ns)
{
	struct index_bench *b = ctx;
	struct weft_key keys[CHAIN];
	uint64_t sum_ns = 0, start_ns;
	uint32_t r;
	int ret;

	for (r = 0; r < b->nr_repeats; r++) {
		wfi_perf_keys(keys, wfi_perf_rand(b->turn++) % b->nr_chains * CHAIN, CHAIN);
		start_ns = wfi_perf_now_ns();
		ret = wfi_kv_reader_match(b->reader, keys, CHAIN, NULL);
		sum_ns += wfi_perf_now_ns() - start_ns;
		if (ret != (int)CHAIN)
			return ret < 0 ? ret : -EIO;
	}
	*ns = (double)sum_ns / b->nr_repeats / CHAIN;
	return 0;
}

static int match64_rate(void *ctx, double *rate)
{
	double ns;
	int ret = match64_ns(ctx, &ns);

	*rate = 1e3 / ns;
	return ret;
}

static int match64_p999_us(void *ctx, double *us)
{
	struct index_bench *b = ctx;
	const uint32_t nr = b->match_loop.nr_steps;
	uint32_t *times = calloc(nr, sizeof(*times)), i;
	struct weft_key keys[CHAIN];
	uint64_t start_ns;

	if (!times)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		wfi_perf_keys(keys, wfi_perf_rand(b->turn++) % b->nr_chains * CHAIN, CHAIN);
		start_ns = wfi_perf_now_ns();
		wfi_perf_use((uint64_t)wfi_kv_reader_match(b->reader, keys, CHAIN, NULL));
		times[i] = (uint32_t)(wfi_perf_now_ns() - start_ns);
	}
	*us = wfi_perf_p999(times, nr) / 1e3;
	free(times);
	return 0;
}

/* ---- the owner ---- */

static int write_chain(struct index_bench *b)
{
	struct weft_key keys[CHAIN];

	/* far from the keys that are looked up */
	wfi_perf_keys(keys, (1ull << 40) + b->written, CHAIN);
	b->written += CHAIN;
	return wfi_perf_kv_put_in(&b->kv, b->churn.id, keys, CHAIN);
}

static void *write_all_the_time(void *arg)
{
	struct index_bench *b = arg;

	while (!b->failed && !__atomic_load_n(&b->stop, __ATOMIC_RELAXED))
		b->failed = write_chain(b);
	return NULL;
}

static int while_writing_ns(void *ctx, double *ns)
{
	struct index_bench *b = ctx;
	pthread_t writer;
	int ret;

	b->stop = 0;
	ret = wfi_perf_partner(&writer, write_all_the_time, b);
	if (ret)
		return ret;
	ret = match64_ns(b, ns);
	__atomic_store_n(&b->stop, 1, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	return ret ? ret : b->failed;
}

static int open_empty(struct index_bench *b)
{
	int ret;

	wfi_perf_kv_close(&b->kv);
	ret = wfi_perf_kv_open(&b->kv, b->nr_chains * CHAIN + b->nr_churn + SPARE);
	if (!ret)
		ret = wfi_perf_kv_space(&b->kv, "churn", b->nr_churn, &b->churn);
	/* a node has its first pages long before it has blocks */
	wfi_perf_sleep_ns(100000000);
	return ret;
}

static int growth_init(struct growth *g, uint64_t nr_chains)
{
	g->nr = (nr_chains + WINDOW - 1) / WINDOW;
	g->now_ns = calloc(g->nr, sizeof(*g->now_ns));
	g->least_ns = malloc(g->nr * sizeof(*g->least_ns));
	if (!g->now_ns || !g->least_ns)
		return wfi_perf_fail(-ENOMEM, "no memory");
	memset(g->least_ns, 0xff, g->nr * sizeof(*g->least_ns));
	return 0;
}

static void growth_fini(struct growth *g)
{
	free(g->now_ns);
	free(g->least_ns);
}

/* a growth is over. Return: the longest that a put took */
static uint32_t growth_end(struct growth *g)
{
	uint32_t longest_ns = 0;

	for (uint64_t i = 0; i < g->nr; i++) {
		longest_ns = (uint32_t)wfi_max(longest_ns, g->now_ns[i]);
		g->least_ns[i] = (uint32_t)wfi_min(g->least_ns[i], g->now_ns[i]);
		g->now_ns[i] = 0;
	}
	return longest_ns;
}

/* what the machine does comes anywhere; a long step of ours comes again in the same window */
static double growth_again_us(const struct growth *g)
{
	uint32_t longest_ns = 0;

	for (uint64_t i = 0; i < g->nr; i++)
		longest_ns = (uint32_t)wfi_max(longest_ns, g->least_ns[i]);
	return (double)longest_ns / 1e3;
}

/* a new index each time, which is left full */
static int growth_pause_us(void *ctx, double *us)
{
	struct index_bench *b = ctx;
	struct weft_key keys[CHAIN];
	uint64_t chain, start_ns, begin_ns;
	uint32_t *ns;
	int ret = open_empty(b);

	begin_ns = wfi_perf_now_ns();
	for (chain = 0; chain < b->nr_chains && !ret; chain++) {
		ns = &b->growth.now_ns[chain / WINDOW];
		wfi_perf_keys(keys, chain * CHAIN, CHAIN);
		start_ns = wfi_perf_busy_ns();
		ret = wfi_perf_kv_put(&b->kv, keys, CHAIN);
		*ns = (uint32_t)wfi_max(*ns, wfi_perf_busy_ns() - start_ns);
	}
	b->put_loop.total_ns = wfi_perf_now_ns() - begin_ns;
	*us = (double)growth_end(&b->growth) / 1e3;
	return ret;
}

/* ---- cases ---- */

/* Return: 0 with both spaces full */
static int run_growth(const struct wfi_perf *p, struct index_bench *b)
{
	const struct wfi_perf_case pause = { "index", "growth_pause", "us", false };
	const struct wfi_perf_case again = { "index", "growth_pause_again", "us", false };
	const struct wfi_perf_side sides[] = {
		{ NULL, growth_pause_us, b, NULL },
		{ "bare_loop", wfi_peer_loop_longest_us, &b->put_loop, NULL },
	};
	struct wfi_perf few = *p;
	int ret;

	/* seconds each */
	few.rounds = (unsigned)wfi_min(p->rounds, GROWTH_ROUNDS);
	ret = growth_init(&b->growth, b->nr_chains);
	if (!ret)
		ret = wfi_perf_compare(&few, &pause, sides, 2);
	if (!ret)
		wfi_perf_fact(p, &again, growth_again_us(&b->growth));
	growth_fini(&b->growth);
	while (!ret && b->written < b->nr_churn)
		ret = write_chain(b);
	if (!ret)
		wfi_perf_kv_settle(&b->kv);
	return ret;
}

static int run_match(const struct wfi_perf *p, struct index_bench *b)
{
	const struct wfi_perf_case match = { "index", "match64", "ns/block", false };
	const struct wfi_perf_case writing = { "index", "match64_while_writing", "ns/block",
					       false };
	struct wfi_perf_kv_lines lines;
	const struct wfi_perf_side alone[] = {
		{ NULL, match64_ns, b, NULL },
		{ "random_line", wfi_peer_lines_round, &lines.peer, NULL },
	};
	const struct wfi_perf_side beside[] = {
		{ NULL, while_writing_ns, b, NULL },
		{ "match64", match64_ns, b, NULL },
	};
	int ret;

	/* of six entries a line, 2 in 3 taken */
	ret = wfi_perf_kv_lines_open(&b->kv, b->nr_chains * CHAIN / 4, CHAIN, b->nr_repeats,
				     &lines);
	if (!ret)
		ret = wfi_perf_compare(p, &match, alone, 2);
	if (!ret)
		ret = wfi_perf_compare(p, &writing, beside, 2);
	wfi_perf_kv_lines_close(&b->kv, &lines);
	return ret;
}

static int run_facts(const struct wfi_perf *p, struct index_bench *b)
{
	const struct wfi_perf_case rate = { "index", "match64_rate", "M/s", true };
	const struct wfi_perf_case slow = { "index", "match64_p999", "us", false };
	const struct wfi_perf_case state = { "index", "state_per_block", "B", false };
	const struct wfi_perf_side rate_side = { NULL, match64_rate, b, NULL };
	const struct wfi_perf_side slow_sides[] = {
		{ NULL, match64_p999_us, b, NULL },
		{ "bare_loop", wfi_peer_loop_p999_us, &b->match_loop, NULL },
	};
	int ret;

	ret = wfi_perf_measure(p, &rate, &rate_side);
	if (!ret)
		ret = wfi_perf_compare(p, &slow, slow_sides, 2);
	wfi_perf_fact(p, &state, wfi_perf_kv_state(&b->kv, b->nr_chains * CHAIN + b->nr_churn));
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	static struct index_bench b;
	int ret;

	(void)nr_args;
	(void)args;
	b.nr_chains = p->quick ? NR_CHAINS_QUICK : NR_CHAINS;
	b.nr_churn = p->quick ? NR_CHURN_QUICK : NR_CHURN;
	b.nr_repeats = p->quick ? REPEATS / 40 : REPEATS;
	b.put_loop.nr_ops = LOOP_PUT;
	b.match_loop.nr_ops = LOOP_MATCH;
	b.match_loop.nr_steps = p->quick ? NR_TIMES / 40 : NR_TIMES;
	ret = run_growth(p, &b);
	if (!ret)
		ret = wfi_kv_reader_create(b.kv.kv, b.kv.space.id, &b.reader);
	if (!ret)
		ret = run_match(p, &b);
	if (!ret)
		ret = run_facts(p, &b);
	wfi_kv_reader_destroy(b.reader);
	wfi_perf_kv_close(&b.kv);
	return ret ? ret : wfi_perf_put_evict(p, "index", "put_evict");
}

const struct wfi_perf_bench wfi_perf_index = {
	.name = "index",
	.summary = "chains of 64 among 10 million blocks, alone and beside a writer",
	.run = run,
};
