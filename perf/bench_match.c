/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_match.c - the longest prefix held of a chain, in an index of 10 million blocks
 *
 * The KV manager is called directly: what a look-up costs, no ring. Blocks are of 64 bytes and are
 * never touched, since a match reads the index alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "perf/kv_rig.h"
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"
#include "weft_internal/util.h"

#define NR_BLOCKS (10u << 20) /* a little over 10 million */
#define NR_BLOCKS_QUICK (1u << 20)
#define CHAIN 1000u
#define REPEATS 500u
#define RING_CHAINS 1000u /* through the ring: a million blocks */

struct match_bench {
	struct wfi_perf_kv kv;
	struct weft_key keys[CHAIN];
	uint64_t nr_chains;
	uint64_t turn;
	uint32_t nr_repeats;
};

static uint64_t any_chain(struct match_bench *b)
{
	return wfi_perf_rand(b->turn++) % b->nr_chains;
}

static int match_ns(void *ctx, double *ns)
{
	struct match_bench *b = ctx;
	uint64_t sum_ns = 0, start_ns;
	uint32_t r;
	int ret;

	for (r = 0; r < b->nr_repeats; r++) {
		wfi_perf_keys(b->keys, any_chain(b) * CHAIN, CHAIN);
		start_ns = wfi_perf_now_ns();
		ret = wfi_kv_match(b->kv.kv, b->kv.space.id, b->keys, CHAIN, NULL);
		sum_ns += wfi_perf_now_ns() - start_ns;
		if (ret != (int)CHAIN)
			return ret < 0 ? ret : -EIO;
	}
	*ns = (double)sum_ns / b->nr_repeats / CHAIN;
	return 0;
}

static int match_rate(void *ctx, double *rate)
{
	double ns;
	int ret = match_ns(ctx, &ns);

	*rate = 1e3 / ns;
	return ret;
}

static int fill(struct match_bench *b)
{
	uint64_t chain;
	int ret = 0;

	for (chain = 0; chain < b->nr_chains && !ret; chain++) {
		wfi_perf_keys(b->keys, chain * CHAIN, CHAIN);
		ret = wfi_perf_kv_put(&b->kv, b->keys, CHAIN);
	}
	return ret ? wfi_perf_fail(ret, "match: block %llu can't be put: %s",
				   (unsigned long long)(chain * CHAIN), strerror(-ret))
		   : 0;
}

static int run_direct(const struct wfi_perf *p, struct match_bench *b)
{
	const struct wfi_perf_case chain = { "match", "chain1000", "ns/block", false };
	const struct wfi_perf_case rate = { "match", "chain1000_rate", "M/s", true };
	const struct wfi_perf_case state = { "match", "state_per_block", "B", false };
	const struct wfi_perf_side weft_rate = { NULL, match_rate, b, NULL };
	/* of four entries a line, 70 % full */
	const uint64_t nr_lines = b->nr_chains * CHAIN * 10 / (4 * 7);
	struct wfi_perf_kv_lines lines;
	const struct wfi_perf_side sides[] = {
		{ NULL, match_ns, b, NULL },
		{ "random_line", wfi_peer_lines_round, &lines.peer, NULL },
	};
	int ret;

	ret = fill(b);
	if (ret)
		return ret;
	wfi_perf_kv_settle(&b->kv);
	ret = wfi_perf_kv_lines_open(&b->kv, nr_lines, CHAIN, b->nr_repeats, &lines);
	if (!ret)
		ret = wfi_perf_compare(p, &chain, sides, 2);
	if (!ret)
		ret = wfi_perf_measure(p, &rate, &weft_rate);
	if (!ret)
		wfi_perf_fact(p, &state, wfi_perf_kv_state(&b->kv, b->nr_chains * CHAIN));
	wfi_perf_kv_lines_close(&b->kv, &lines);
	return ret;
}

/* ---- through the ring ---- */

struct ring_match {
	struct wfi_perf_rig rig;
	struct weft_space *space;
	struct weft_key keys[CHAIN];
	uint64_t turn;
	uint32_t nr_repeats;
};

static int ring_match_ns(void *ctx, double *ns)
{
	struct ring_match *b = ctx;
	struct weft_op op = {
		.op = WEFT_OP_MATCH,
		.nr = CHAIN,
		.space = b->space,
		.keys = b->keys,
	};
	uint64_t sum_ns = 0, start_ns, chain;
	uint32_t r;
	int ret;

	for (r = 0; r < b->nr_repeats; r++) {
		chain = wfi_perf_rand(b->turn++) % RING_CHAINS;
		wfi_perf_keys(b->keys, chain * CHAIN, CHAIN);
		start_ns = wfi_perf_now_ns();
		ret = wfi_perf_call(b->rig.ring, &op);
		sum_ns += wfi_perf_now_ns() - start_ns;
		if (ret != (int)CHAIN)
			return ret < 0 ? ret : -EIO;
	}
	*ns = (double)sum_ns / b->nr_repeats / CHAIN;
	return 0;
}

static int ring_fill(struct ring_match *b)
{
	static const char block[64];
	const void *bufs[CHAIN];
	uint32_t i;
	int ret;

	for (i = 0; i < CHAIN; i++)
		bufs[i] = block;
	for (i = 0; i < RING_CHAINS; i++) {
		wfi_perf_keys(b->keys, (uint64_t)i * CHAIN, CHAIN);
		ret = weft_put(b->rig.ring, b->space, NULL, b->keys, CHAIN, bufs);
		if (ret != (int)CHAIN)
			return wfi_perf_fail(ret < 0 ? ret : -EIO, "match: put: %s", weft_why());
	}
	return 0;
}

static int run_ring(const struct wfi_perf *p)
{
	const struct wfi_perf_case c = { "match", "chain1000_ring", "ns/block", false };
	struct ring_match b = { .nr_repeats = p->quick ? REPEATS / 20 : REPEATS };
	const struct wfi_perf_side side = { NULL, ring_match_ns, &b, NULL };
	int ret = wfi_perf_rig_open(&b.rig, 128ull << 20, WFI_MAP_HUGE);

	if (ret)
		return ret;
	ret = wfi_perf_space_open(b.rig.w, "match", 64, &b.space);
	if (!ret)
		ret = ring_fill(&b);
	if (!ret)
		ret = wfi_perf_measure(p, &c, &side);
	wfi_perf_rig_close(&b.rig);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	static struct match_bench b;
	const uint64_t nr_blocks = p->quick ? NR_BLOCKS_QUICK : NR_BLOCKS;
	int ret;

	(void)nr_args;
	(void)args;
	ret = run_ring(p);
	if (ret)
		return ret;
	b.nr_chains = nr_blocks / CHAIN;
	b.nr_repeats = p->quick ? REPEATS / 20 : REPEATS;
	ret = wfi_perf_kv_open(&b.kv, nr_blocks);
	if (!ret)
		ret = run_direct(p, &b);
	wfi_perf_kv_close(&b.kv);
	return ret;
}

const struct wfi_perf_bench wfi_perf_match = {
	.name = "match",
	.summary = "the longest prefix held of 1000 blocks, among 10 million",
	.run = run,
};
