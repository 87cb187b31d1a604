/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_put.c - publishing in a full cache: each block evicts another
 *
 * The KV manager is called directly, a chain of 64 blocks a call. Checksums are given, so that no
 * block is touched: headers, index, tree and policy are all the work there is.
 */
#include <stdio.h>
#include <string.h>
#include "perf/kv_rig.h"
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"

#define NR_BLOCKS (1u << 20)
#define CHAIN 64u
#define NR_PUTS (1u << 19)

struct put_bench {
	struct wfi_perf_kv kv;
	struct wfi_peer_lru *lru;
	uint64_t turn;
	uint32_t nr_puts;
};

static int put_blocks(struct put_bench *b, uint32_t nr)
{
	struct weft_key keys[CHAIN];
	uint32_t done;
	int ret = 0;

	for (done = 0; done < nr && !ret; done += CHAIN) {
		wfi_perf_keys(keys, b->turn, CHAIN);
		b->turn += CHAIN;
		ret = wfi_perf_kv_put(&b->kv, keys, CHAIN);
	}
	return ret;
}

static int put_ns(void *ctx, double *ns)
{
	struct put_bench *b = ctx;
	uint64_t start_ns = wfi_perf_now_ns();
	int ret = put_blocks(b, b->nr_puts);

	*ns = (double)(wfi_perf_now_ns() - start_ns) / b->nr_puts;
	return ret;
}

static int put_rate(void *ctx, double *rate)
{
	double ns;
	int ret = put_ns(ctx, &ns);

	*rate = 1e3 / ns;
	return ret;
}

/* how a full cache takes more, beside the textbook's. Return: 0, -errno (said) */
static int open_full(struct put_bench *b)
{
	int ret = wfi_perf_kv_open(&b->kv, NR_BLOCKS);

	if (ret)
		return ret;
	ret = wfi_peer_lru_create(NR_BLOCKS, b->nr_puts, &b->lru);
	if (ret)
		return wfi_perf_fail(ret, "no memory for the peer's table");
	ret = put_blocks(b, NR_BLOCKS);
	return ret ? wfi_perf_fail(ret, "put: the cache can't be filled: %s", strerror(-ret)) : 0;
}

int wfi_perf_put_evict(const struct wfi_perf *p, const char *bench, const char *name)
{
	struct put_bench b = { .nr_puts = p->quick ? NR_PUTS / 16 : NR_PUTS };
	const struct wfi_perf_case steady = { bench, name, "ns/block", false };
	struct wfi_perf_side sides[] = {
		{ NULL, put_ns, &b, NULL },
		{ "uthash_lru", wfi_peer_lru_round, NULL, NULL },
	};
	char rate_name[64];
	const struct wfi_perf_case rate = { bench, rate_name, "M/s", true };
	const struct wfi_perf_side weft_rate = { NULL, put_rate, &b, NULL };
	int ret;

	snprintf(rate_name, sizeof(rate_name), "%s_rate", name);
	ret = open_full(&b);
	sides[1].ctx = b.lru;
	if (!ret)
		ret = wfi_perf_compare(p, &steady, sides, 2);
	if (!ret)
		ret = wfi_perf_measure(p, &rate, &weft_rate);
	wfi_peer_lru_destroy(b.lru);
	wfi_perf_kv_close(&b.kv);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	(void)nr_args;
	(void)args;
	return wfi_perf_put_evict(p, "put", "steady");
}

const struct wfi_perf_bench wfi_perf_put = {
	.name = "put",
	.summary = "publishing into a cache of a million blocks that is full",
	.run = run,
};
