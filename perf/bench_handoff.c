/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_handoff.c - 512 blocks from one engine to another of the same node, by reference
 *
 * Through two rings: decode's engine expects, prefill's pushes slots that it has claimed, decode's
 * sees them land and holds their lease. No byte of a block is touched, so the time must not depend
 * on their size.
 */
#include <errno.h>
#include <string.h>
#include "perf/perf.h"
#include "perf/rig.h"

#define NR_BLOCKS 512u
#define LARGE_BYTES (4ull << 20)
#define SMALL_BYTES (4ull << 10)
#define HANDOFFS 2000u

struct handoff_bench {
	struct weft_ring *decode;
	struct weft_ring *prefill;
	const struct weft_space *decode_space;
	const struct weft_space *prefill_space;
	struct weft_key keys[NR_BLOCKS];
	struct weft_slot claimed[NR_BLOCKS];
	struct weft_slot landed[NR_BLOCKS];
	uint32_t nr_handoffs;
};

static int expect(struct handoff_bench *b, struct weft_ticket *ticket)
{
	struct weft_op op = {
		.op = WEFT_OP_HANDOFF_EXPECT,
		.nr = NR_BLOCKS,
		.space = b->decode_space,
		.keys = b->keys,
		.slots = b->landed,
		.ticket = ticket,
		.nr_layers = 1,
	};
	struct weft_completion done;
	int ret = weft_submit(b->decode, &op, 1);

	if (ret < 0)
		return ret;
	ret = wfi_perf_spin(b->decode, &done);
	if (ret < 0)
		return ret;
	return done.flags & WEFT_CQE_TICKET ? 0 : -EPROTO;
}

static int push(struct handoff_bench *b, struct weft_ticket *ticket)
{
	struct weft_op op = {
		.op = WEFT_OP_HANDOFF_PUSH,
		.nr = NR_BLOCKS,
		.space = b->prefill_space,
		.slots = b->claimed,
		.ticket = ticket,
		.nr_layers = 1,
	};
	int ret = wfi_perf_call(b->prefill, &op);

	return ret == (int)NR_BLOCKS ? 0 : ret < 0 ? ret : -EIO;
}

/* first the layer, then the end with its lease */
static int land(struct handoff_bench *b, uint64_t *lease)
{
	struct weft_completion done;
	int ret;

	do {
		ret = wfi_perf_spin(b->decode, &done);
		if (ret != (int)NR_BLOCKS)
			return ret < 0 ? ret : -EIO;
	} while (done.flags & WEFT_CQE_MORE);
	*lease = done.handle;
	return 0;
}

static int handoff(struct handoff_bench *b, uint64_t *sum_ns)
{
	struct weft_op release = { .op = WEFT_OP_RELEASE };
	uint64_t start_ns = wfi_perf_now_ns();
	struct weft_ticket ticket;
	int ret;

	ret = expect(b, &ticket);
	if (!ret)
		ret = push(b, &ticket);
	if (!ret)
		ret = land(b, &release.handle);
	if (ret)
		return ret;
	*sum_ns += wfi_perf_now_ns() - start_ns;
	ret = wfi_perf_call(b->decode, &release);
	return ret < 0 ? ret : 0;
}

static int handoffs_us(void *ctx, double *us)
{
	struct handoff_bench *b = ctx;
	uint64_t sum_ns = 0;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < b->nr_handoffs && !ret; i++)
		ret = handoff(b, &sum_ns);
	*us = (double)sum_ns / 1e3 / b->nr_handoffs;
	return ret;
}

static int handoffs_ns_per_block(void *ctx, double *ns)
{
	double us;
	int ret = handoffs_us(ctx, &us);

	*ns = us * 1e3 / NR_BLOCKS;
	return ret;
}

/* ---- set-up ---- */

static int bench_open(struct handoff_bench *b, struct weft *decode, struct weft *prefill,
		      const char *model, uint64_t block_bytes)
{
	struct weft_op claim = { .op = WEFT_OP_CLAIM, .nr = NR_BLOCKS, .slots = b->claimed };
	struct weft_space *space;
	int ret;

	ret = wfi_perf_space_open(decode, model, block_bytes, &space);
	if (ret)
		return ret;
	b->decode_space = space;
	ret = wfi_perf_space_open(prefill, model, block_bytes, &space);
	if (ret)
		return ret;
	b->prefill_space = space;
	claim.space = space;
	wfi_perf_keys(b->keys, 0, NR_BLOCKS);
	ret = wfi_perf_call(b->prefill, &claim);
	if (ret != (int)NR_BLOCKS)
		return wfi_perf_fail(ret < 0 ? ret : -EIO, "handoff: no slots to push");
	return 0;
}

static int run_cases(const struct wfi_perf *p, struct wfi_perf_rig *rig, struct weft *prefill,
		     struct weft_ring *prefill_ring)
{
	static struct handoff_bench large, small;
	const struct wfi_perf_case c = { "handoff", "by_reference", "us", false };
	const struct wfi_perf_case each = { "handoff", "by_reference_each", "ns/block", false };
	const struct wfi_perf_side weft_each = { NULL, handoffs_ns_per_block, &large, NULL };
	const struct wfi_perf_side sides[] = {
		{ NULL, handoffs_us, &large, NULL },
		{ "by_reference_4KiB", handoffs_us, &small, NULL },
	};
	int ret;

	large.decode = small.decode = rig->ring;
	large.prefill = small.prefill = prefill_ring;
	large.nr_handoffs = small.nr_handoffs = p->quick ? HANDOFFS / 20 : HANDOFFS;
	ret = bench_open(&large, rig->w, prefill, "large", LARGE_BYTES);
	if (!ret)
		ret = bench_open(&small, rig->w, prefill, "small", SMALL_BYTES);
	if (!ret)
		ret = wfi_perf_compare(p, &c, sides, 2);
	return ret ? ret : wfi_perf_measure(p, &each, &weft_each);
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct weft_ring *prefill_ring;
	struct wfi_perf_rig rig;
	struct weft *prefill;
	int ret;

	(void)nr_args;
	(void)args;
	ret = wfi_perf_rig_open(&rig, NR_BLOCKS * LARGE_BYTES + (256ull << 20), WFI_MAP_HUGE);
	if (ret)
		return ret;
	ret = wfi_perf_engine_open(&rig, &prefill, &prefill_ring);
	if (!ret) {
		ret = run_cases(p, &rig, prefill, prefill_ring);
		weft_close(prefill);
	}
	wfi_perf_rig_close(&rig);
	return ret ? ret : wfi_perf_handoff_nodes(p);
}

const struct wfi_perf_bench wfi_perf_handoff = {
	.name = "handoff",
	.summary = "blocks from prefill's engine to decode's, in a node and between two",
	.run = run,
};
