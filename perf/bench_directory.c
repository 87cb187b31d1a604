/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_directory.c - what a shard of the directory takes of one core
 *
 * Messages as they come from other nodes: checked, and then done. Four holders announce a million
 * blocks each, in part the same ones; chains of 64 are looked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "kvcache/cluster/wire.h"
#include "perf/perf.h"
#include "weft_internal/directory.h"
#include "weft_internal/util.h"

#define HOLDERS 4u
#define BLOCKS (1u << 20) /* of each holder */
#define CHAIN 64u
#define OVERLAP 4u /* one in so many blocks is everybody's */

struct directory_bench {
	struct wfi_directory *d;
	uint8_t holders[HOLDERS];
	uint32_t nr_blocks; /* of each holder, in a round */
	uint32_t turn;
};

static uint64_t tag_of(unsigned holder, uint32_t i)
{
	const struct weft_key key = {
		.lo = wfi_perf_rand(i % OVERLAP ? (uint64_t)holder << 32 | i : i), .hi = i
	};

	return wfi_block_tag(1, &key);
}

static uint32_t message(const struct directory_bench *b, union cluster_msg *m, unsigned holder,
			enum cluster_type type, uint32_t at, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		m->tags.tags[i] = tag_of(holder, (at + i) % b->nr_blocks);
	return (uint32_t)cluster_msg_head(m, type, nr, 0);
}

/* Return: ns of all blocks of all holders, or 0: a message is not what it should be */
static uint64_t announce_ns(struct directory_bench *b)
{
	union cluster_msg m, in;
	uint64_t sum_ns = 0, start_ns;
	uint32_t at, len;
	unsigned h;

	for (at = 0; at < b->nr_blocks; at += CLUSTER_TAGS_MAX)
		for (h = 0; h < HOLDERS; h++) {
			len = message(b, &m, h, CLUSTER_ANNOUNCE, at, CLUSTER_TAGS_MAX);
			start_ns = wfi_perf_now_ns();
			if (cluster_msg_take(&in, &m, len))
				return 0;
			wfi_directory_update(b->d, b->holders[h], in.tags.tags, in.head.nr);
			sum_ns += wfi_perf_now_ns() - start_ns;
		}
	return sum_ns;
}

static uint64_t lookup_ns(struct directory_bench *b)
{
	struct wfi_dir_run runs[CHAIN];
	uint64_t sum_ns = 0, start_ns, found = 0;
	union cluster_msg m, in;
	uint32_t i, len;

	for (i = 0; i < HOLDERS * b->nr_blocks / CHAIN; i++) {
		const uint32_t at = (uint32_t)wfi_perf_rand(b->turn++) % b->nr_blocks;

		len = message(b, &m, i % HOLDERS, CLUSTER_LOOKUP, at, CHAIN);
		start_ns = wfi_perf_now_ns();
		if (cluster_msg_take(&in, &m, len))
			return 0;
		found += wfi_directory_find(b->d, in.tags.tags, in.head.nr, WFI_DIR_NOBODY, i, runs,
					    CHAIN);
		sum_ns += wfi_perf_now_ns() - start_ns;
	}
	wfi_perf_use(found);
	return found ? sum_ns : 0;
}

static int rate_of(const struct directory_bench *b, uint64_t ns, double *rate)
{
	*rate = ns ? (double)HOLDERS * b->nr_blocks * 1e3 / (double)ns : 0;
	return ns ? 0 : -EIO;
}

static int announce_rate(void *ctx, double *rate)
{
	return rate_of(ctx, announce_ns(ctx), rate);
}

static int lookup_rate(void *ctx, double *rate)
{
	return rate_of(ctx, lookup_ns(ctx), rate);
}

/* each block once announced and once looked up */
static int both_rate(void *ctx, double *rate)
{
	const uint64_t a = announce_ns(ctx), l = lookup_ns(ctx);

	return rate_of(ctx, a && l ? a + l : 0, rate);
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	static const struct {
		const char *name;
		int (*round)(void *ctx, double *out);
	} cases[] = {
		{ "announce", announce_rate },
		{ "lookup_chain64", lookup_rate },
		{ "announce_and_lookup", both_rate },
	};
	static struct directory_bench b;
	struct wfi_directory_opts o = { 0 };
	struct wfi_env env;
	unsigned i;
	int ret;

	(void)nr_args;
	(void)args;
	ret = wfi_env_real_init(&env);
	o.env = &env;
	if (!ret)
		ret = wfi_directory_create(&o, &b.d);
	if (ret)
		return wfi_perf_fail(ret, "directory: %s", strerror(-ret));
	b.nr_blocks = p->quick ? BLOCKS / 32 : BLOCKS;
	for (i = 0; i < HOLDERS; i++)
		b.holders[i] = (uint8_t)wfi_directory_join(b.d, i + 1);
	for (i = 0; i < WFI_ARRAY_SIZE(cases) && !ret; i++) {
		const struct wfi_perf_case c = { "directory", cases[i].name, "M blocks/s", true };
		const struct wfi_perf_side side = { NULL, cases[i].round, &b, NULL };

		ret = wfi_perf_measure(p, &c, &side);
	}
	wfi_directory_destroy(b.d);
	return ret;
}

const struct wfi_perf_bench wfi_perf_directory = {
	.name = "directory",
	.summary = "blocks announced to and looked up in a shard of the directory, on one core",
	.run = run,
};
