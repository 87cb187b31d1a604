/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_layers.c - handoffs between two nodes of a host, over shared memory
 *
 * Prefill's node is a process on the other core; decode's is polled by this thread, which is both
 * engines, too. Layer by layer, while prefill computes, what counts is how long decode waits when
 * the last layer is pushed. Between layouts it is the whole handoff, beside one that changes
 * nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "perf/near.h"
#include "perf/pair.h"
#include "perf/perf.h"
#include "weft_internal/util.h"

#define NR_BLOCKS 64u
#define NR_LAYERS 32u
#define LAYER_BYTES (64ull << 10) /* of a block */
#define LAYERS_BYTES (NR_BLOCKS * NR_LAYERS * LAYER_BYTES)
#define COMPUTE_NS (4 * WFI_NSEC_PER_MSEC) /* of a layer; its transfer takes less */
#define RANKS 4u
#define TOKENS 16u /* of a block */
#define HEADS 8u
#define HEAD_BYTES 256u /* 128 numbers of bf16 */
#define SHAPED_LAYERS 4u
#define SHAPED_BYTES ((uint64_t)SHAPED_LAYERS * 2 * TOKENS * HEADS * HEAD_BYTES) /* of a block */
#define ARENA_BYTES (4 * LAYERS_BYTES)
#define SOON_NS (10 * WFI_NSEC_PER_SEC)

enum order { NHD, HND };

/* one pusher's slots, and which part of decode's blocks they are */
struct source {
	struct weft_space *space;
	struct weft_layout layout;
	struct weft_slot slots[NR_BLOCKS];
};

struct layers_bench {
	struct wfi_perf_rig far; /* prefill's */
	struct wfi_perf_near near; /* decode's */
	struct weft *w;
	struct weft_ring *ring;
	struct wfi_pair *pair;
};

/* a kind of handoff */
struct job {
	struct layers_bench *b;
	struct weft_space *space;
	struct weft_layout layout;
	struct source sources[RANKS];
	uint32_t nr_sources;
	uint32_t nr_layers;
	uint8_t flags; /* WEFT_F_LAYOUT or 0 */
	uint8_t fill; /* what prefill's bytes are */
	struct weft_key keys[NR_BLOCKS];
	struct weft_slot landed[NR_BLOCKS];
	struct weft_ticket ticket;
	uint32_t nr_pushes; /* under way */
	uint64_t lease;
	bool over;
	uint32_t nr_rounds;
};

/* ---- one handoff ---- */

static int expect(struct job *j)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .flags = j->flags,
				    .space = j->space,
				    .nr = NR_BLOCKS,
				    .nr_layers = j->nr_layers,
				    .keys = j->keys,
				    .slots = j->landed,
				    .ticket = &j->ticket,
				    .layout = j->flags ? &j->layout : NULL };
	int ret = wfi_perf_near_call(&j->b->near, j->b->ring, &op);

	j->over = false;
	j->nr_pushes = 0;
	return ret < 0 ? ret : 0;
}

static int push(struct job *j, const struct source *s, uint32_t layer, uint32_t nr_layers)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_PUSH,
				    .flags = j->flags,
				    .space = s->space,
				    .nr = NR_BLOCKS,
				    .slots = (struct weft_slot *)s->slots,
				    .ticket = &j->ticket,
				    .layer = (uint16_t)layer,
				    .nr_layers = (uint16_t)nr_layers,
				    .layout = j->flags ? &s->layout : NULL };
	const int ret = weft_submit(j->b->far.ring, &op, 1);

	j->nr_pushes += ret == 1;
	return ret < 0 ? ret : 0;
}

/* what both engines have heard meanwhile */
static int turn(struct job *j)
{
	struct weft_completion done;
	int ret;

	wfi_perf_near_poll(&j->b->near);
	ret = weft_poll(j->b->far.ring, &done, 1);
	if (ret > 0) {
		j->nr_pushes--;
		if (done.res != (int)NR_BLOCKS)
			return done.res < 0 ? done.res : -EIO;
	}
	if (ret >= 0)
		ret = weft_poll(j->b->ring, &done, 1);
	if (ret > 0 && !(done.flags & WEFT_CQE_MORE)) {
		j->over = true;
		j->lease = done.handle;
		if (done.res != (int)NR_BLOCKS)
			return done.res < 0 ? done.res : -EIO;
	}
	return ret < 0 ? ret : 0;
}

static int land(struct job *j)
{
	int ret = 0;

	while (!ret && !(j->over && !j->nr_pushes))
		ret = turn(j);
	return ret;
}

static int compute(struct job *j)
{
	const uint64_t end_ns = wfi_perf_now_ns() + COMPUTE_NS;
	int ret = 0;

	while (!ret && wfi_perf_now_ns() < end_ns)
		ret = turn(j);
	return ret;
}

/* what landed is looked at, and leaves again */
static int clear(struct job *j)
{
	const uint8_t *bytes = weft_arena(j->b->w);
	const struct weft_op release = { .op = WEFT_OP_RELEASE, .handle = j->lease };
	const struct weft_op drop = {
		.op = WEFT_OP_DROP, .space = j->space, .nr = NR_BLOCKS, .keys = j->keys
	};
	const uint64_t last = j->flags ? SHAPED_BYTES : NR_LAYERS * LAYER_BYTES;
	uint32_t i;
	int ret;

	for (i = 0; i < NR_BLOCKS; i++)
		if (bytes[j->landed[i].off] != j->fill ||
		    bytes[j->landed[i].off + last - 1] != j->fill + j->nr_sources - 1)
			return wfi_perf_fail(-EBADMSG, "handoff: block %u has other bytes", i);
	ret = wfi_perf_near_call(&j->b->near, j->b->ring, &release);
	if (ret >= 0)
		ret = wfi_perf_near_call(&j->b->near, j->b->ring, &drop);
	return ret < 0 ? ret : 0;
}

/* ---- sides ---- */

/* handoffs, one after the other, fed by @feed, which says since when time counts. @ns: in all */
static int handoffs(struct job *j, int (*feed)(struct job *j, uint64_t *since_ns), double *ns)
{
	uint64_t since_ns = 0;
	int ret = 0;

	*ns = 0;
	for (uint32_t i = 0; i < j->nr_rounds && !ret; i++) {
		ret = expect(j);
		if (!ret)
			ret = feed(j, &since_ns);
		if (!ret)
			ret = land(j);
		*ns += (double)(wfi_perf_now_ns() - since_ns);
		if (!ret)
			ret = clear(j);
	}
	return ret;
}

static int feed_layers(struct job *j, uint64_t *since_ns)
{
	uint32_t l;
	int ret = 0;

	for (l = 0; l + 1 < NR_LAYERS && !ret; l++) {
		ret = push(j, &j->sources[0], l, 1);
		if (!ret)
			ret = compute(j);
	}
	*since_ns = wfi_perf_now_ns();
	return ret ? ret : push(j, &j->sources[0], l, 1);
}

static int feed_whole(struct job *j, uint64_t *since_ns)
{
	int ret = 0;

	*since_ns = wfi_perf_now_ns();
	for (uint32_t s = 0; s < j->nr_sources && !ret; s++)
		ret = push(j, &j->sources[s], 0, SHAPED_LAYERS);
	return ret;
}

/* from the last push to the last layer, in us */
static int last_layer_us(void *ctx, double *us)
{
	struct job *j = ctx;
	double ns;
	const int ret = handoffs(j, feed_layers, &ns);

	*us = ns / 1e3 / j->nr_rounds;
	return ret;
}

/* from the first push to the end */
static int whole_rate(void *ctx, double *rate)
{
	struct job *j = ctx;
	double ns;
	const int ret = handoffs(j, feed_whole, &ns);

	*rate = (double)j->nr_rounds * NR_BLOCKS * SHAPED_BYTES / ns;
	return ret;
}

/* one layer's bytes, from and to memory like that of the nodes, nothing else */
static int bare_us(void *ctx, double *us)
{
	static struct wfi_piece pieces[NR_BLOCKS];
	static uint32_t layer;
	const struct job *j = ctx;
	struct wfi_pair *pair = j->b->pair;
	uint64_t start_ns, sum_ns = 0;
	uint32_t i, b;
	int ret;

	ret = wfi_pair_begin(pair);
	for (i = 0; i < 8 * j->nr_rounds && !ret; i++) {
		layer = (layer + 1) % NR_LAYERS;
		for (b = 0; b < NR_BLOCKS; b++) {
			const uint64_t off = (b * NR_LAYERS + layer) * LAYER_BYTES;

			pieces[b] = (struct wfi_piece){ .local = wfi_pair_here(pair) + off,
							.remote = off,
							.len = LAYER_BYTES };
		}
		start_ns = wfi_perf_now_ns();
		ret = wfi_pair_move(pair, WFI_XFER_READ, pieces, NR_BLOCKS);
		sum_ns += wfi_perf_now_ns() - start_ns;
	}
	*us = (double)sum_ns / 1e3 / (8 * j->nr_rounds);
	return ret ? ret : wfi_pair_end(pair);
}

/* ---- set-up ---- */

static struct weft_layout layout_of(enum order order, uint32_t rank, uint32_t nr_ranks)
{
	const uint32_t heads = HEADS / nr_ranks;
	struct weft_layout l = { .nr_layers = SHAPED_LAYERS,
				 .nr_kv = 2,
				 .nr_tokens = TOKENS,
				 .nr_heads = heads,
				 .head_bytes = HEAD_BYTES,
				 .first_head = rank * heads };

	l.token_stride = order == NHD ? heads * HEAD_BYTES : HEAD_BYTES;
	l.head_stride = order == NHD ? HEAD_BYTES : TOKENS * HEAD_BYTES;
	l.kv_stride = (uint64_t)heads * TOKENS * HEAD_BYTES;
	l.layer_stride = 2 * l.kv_stride;
	return l;
}

static int space_open(struct weft *w, const char *layout, uint32_t rank, uint64_t block_bytes,
		      uint32_t nr_layers, struct weft_space **out)
{
	char name[64];
	const struct weft_space_opts opts = { .size = sizeof(opts),
					      .block_bytes = block_bytes,
					      .model = "layers",
					      .layout = name,
					      .tokens_per_block = TOKENS,
					      .nr_layers = nr_layers };
	int ret;

	snprintf(name, sizeof(name), "%s/%u", layout, rank);
	ret = weft_space_open(w, &opts, out);
	return ret ? wfi_perf_fail(ret, "%s", weft_why()) : 0;
}

/* claims the slots of a source, and fills them */
static int source_open(struct job *j, uint32_t s, const char *layout, uint64_t block_bytes)
{
	struct source *src = &j->sources[s];
	struct weft_op claim = { .op = WEFT_OP_CLAIM, .nr = NR_BLOCKS, .slots = src->slots };
	uint8_t *bytes = weft_arena(j->b->far.w);
	uint32_t i;
	int ret;

	ret = space_open(j->b->far.w, layout, s, block_bytes, j->nr_layers, &src->space);
	if (ret)
		return ret;
	claim.space = src->space;
	ret = wfi_perf_call(j->b->far.ring, &claim);
	if (ret != (int)NR_BLOCKS)
		return wfi_perf_fail(ret < 0 ? ret : -EIO, "handoff: no slots to push");
	for (i = 0; i < NR_BLOCKS; i++)
		memset(bytes + src->slots[i].off, (int)(j->fill + s), block_bytes);
	return 0;
}

static int job_open(struct layers_bench *b, struct job *j, const char *layout, uint32_t nr_sources,
		    uint64_t block_bytes)
{
	static uint8_t fill = 1;
	uint32_t s;
	int ret;

	j->b = b;
	j->nr_sources = nr_sources;
	j->fill = fill;
	fill += RANKS;
	wfi_perf_keys(j->keys, fill * 1000ull, NR_BLOCKS);
	/* of one that changes nothing the two are alike */
	ret = space_open(b->w, layout, nr_sources > 1 ? RANKS : 0, block_bytes, j->nr_layers,
			 &j->space);
	for (s = 0; s < nr_sources && !ret; s++)
		ret = source_open(j, s, layout, block_bytes / nr_sources);
	return ret;
}

static int shaped_open(struct layers_bench *b, struct job *j, enum order order, uint32_t nr_sources)
{
	static const char *const names[2][2] = { { "nhd", "nhd_tp4" }, { "hnd", "hnd_tp4" } };
	uint32_t s;

	j->flags = WEFT_F_LAYOUT;
	j->nr_layers = SHAPED_LAYERS;
	j->layout = layout_of(order, 0, 1);
	for (s = 0; s < nr_sources; s++)
		j->sources[s].layout = layout_of(order, s, nr_sources);
	return job_open(b, j, names[order][nr_sources > 1], nr_sources, SHAPED_BYTES);
}

/* the nodes may not have met yet: the first handoff tells */
static int job_meet(struct job *j)
{
	const uint64_t end_ns = wfi_perf_now_ns() + SOON_NS;
	uint32_t s;
	int ret;

	do {
		ret = expect(j);
		for (s = 0; s < j->nr_sources && !ret; s++)
			ret = push(j, &j->sources[s], 0, j->nr_layers);
		if (!ret)
			ret = land(j);
		if (!ret)
			return clear(j);
		while (j->nr_pushes || !j->over)
			if (turn(j) && !j->nr_pushes)
				break;
	} while (ret == -EHOSTUNREACH && wfi_perf_now_ns() < end_ns);
	return wfi_perf_fail(ret, "handoff: the nodes do not meet: %s", strerror(-ret));
}

/* the sides of a case, with the node in this thread's hand */
static int run_sides(const struct wfi_perf *p, const struct wfi_perf_case *c,
		     const struct wfi_perf_side *sides, struct job *jobs, uint32_t nr_jobs)
{
	struct wfi_perf_near *near = &jobs->b->near;
	uint32_t i;
	int ret = 0;

	wfi_perf_near_hold(near);
	for (i = 0; i < nr_jobs && !ret; i++)
		ret = job_meet(&jobs[i]);
	if (!ret)
		ret = wfi_perf_compare(p, c, sides, 2);
	return wfi_perf_near_let(near) ? -EAGAIN : ret;
}

static int run_layers(const struct wfi_perf *p, struct layers_bench *b)
{
	const struct wfi_perf_case c = { "handoff", "layers_32x64x64KiB", "us", false };
	static struct job job = { .nr_layers = NR_LAYERS };
	const struct wfi_perf_side sides[] = {
		{ NULL, last_layer_us, &job, NULL },
		{ "bare_layer", bare_us, &job, NULL },
	};
	int ret;

	job.nr_rounds = p->quick ? 1 : 8;
	ret = job_open(b, &job, "layers", 1, NR_LAYERS * LAYER_BYTES);
	return ret ? ret : run_sides(p, &c, sides, &job, 1);
}

static int run_shaped(const struct wfi_perf *p, struct layers_bench *b, enum order order)
{
	const struct wfi_perf_case c = { "handoff", order == NHD ? "tp4to1_nhd" : "tp4to1_hnd",
					 "GB/s", true };
	static struct job jobs[2][2];
	struct job *changed = &jobs[order][0], *same = &jobs[order][1];
	const struct wfi_perf_side sides[] = {
		{ NULL, whole_rate, changed, NULL },
		{ "same_layout", whole_rate, same, NULL },
	};
	int ret;

	changed->nr_rounds = same->nr_rounds = p->quick ? 2 : 50;
	ret = shaped_open(b, changed, order, RANKS);
	if (!ret)
		ret = shaped_open(b, same, order, 1);
	return ret ? ret : run_sides(p, &c, sides, changed, 2);
}

static int run_cases(const struct wfi_perf *p, struct layers_bench *b)
{
	int ret = run_layers(p, b);

	if (!ret)
		ret = run_shaped(p, b, HND);
	return ret ? ret : run_shaped(p, b, NHD);
}

int wfi_perf_handoff_nodes(const struct wfi_perf *p)
{
	static struct layers_bench b;
	int ret;

	ret = wfi_perf_rig_open(&b.far, ARENA_BYTES, WFI_MAP_HUGE | WFI_MAP_PREFAULT);
	if (ret)
		return ret;
	ret = wfi_pair_open("shm", NULL, LAYERS_BYTES, &b.pair);
	if (!ret)
		ret = wfi_perf_near_open(&b.near, &b.far, NULL, ARENA_BYTES,
					 WFI_MAP_HUGE | WFI_MAP_PREFAULT);
	if (!ret) {
		ret = wfi_perf_near_engine(&b.near, &b.w, &b.ring);
		if (!ret)
			ret = run_cases(p, &b);
		weft_close(b.w);
		wfi_perf_near_close(&b.near);
	}
	wfi_pair_close(b.pair);
	wfi_perf_rig_close(&b.far);
	return ret;
}
