/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_gpu.c - kernels beside the driver's copies and plain kernels. Rates count each byte that is
 * moved once; what Weft's side wrote is looked at before it is measured.
 */
#include <errno.h>
#include <string.h>
#include "perf/gpu_rig.h"
#include "weft_internal/util.h"
#include "weft_internal/xfer.h"

#define REPEATS 8u /* of a launch between two events */
#define SMALL_NR 256u
#define SMALL_BYTES 4096u
#define RUNS 4096u
#define RANKS 4u

/* tokens, heads, bytes of a head's numbers in bf16, K and V, of one layer */
#define TOKENS 16u
#define HEADS 8u
#define HEAD_BYTES 256u
#define PAGE_BYTES (2u * TOKENS * HEADS * HEAD_BYTES)

struct bench {
	struct wfi_gpu_rig rig;
	const char *only; /* cases whose names begin so, or NULL */
	struct wfi_gpu_ipc ipc;
	struct wfi_gpu_region theirs; /* memory of the second process */
	struct wfi_gpu_stage *stage;
	/* of a case */
	uint32_t len; /* of a piece */
	uint32_t nr; /* pieces */
	struct wfi_gpu_side src;
	struct wfi_gpu_side dst;
	struct wfi_gpu_table plans[RANKS]; /* items pinned, for good */
	uint32_t nr_plans;
	struct wfi_gpu_sums sums;
	struct wfi_gpu_cast cast;
	/* of the batch copy */
	uint64_t *batch_dst;
	uint64_t *batch_src;
	size_t *batch_len;
};

struct side {
	struct bench *b;
	int (*go)(struct bench *b);
	uint64_t bytes; /* that it moves */
	unsigned repeats;
};

/* ---- rounds ---- */

static int rate(void *ctx, double *out)
{
	const struct side *s = ctx;
	struct wfi_gpu_rig *rig = &s->b->rig;
	float ms = 0;
	int ret, res;

	ret = wfi_gpu_rig_check(rig->cuda->cuEventRecord(rig->start, rig->stream), "an event");
	for (unsigned i = 0; i < s->repeats && !ret; i++)
		ret = s->go(s->b);
	if (!ret)
		ret = wfi_gpu_rig_wait(rig);
	if (ret)
		return ret;
	res = rig->cuda->cuEventElapsedTime(&ms, rig->start, rig->end);
	*out = (double)s->bytes * s->repeats / 1e6 / (double)ms;
	return wfi_gpu_rig_check(res, "the time of two events");
}

static int launch_us(void *ctx, double *out)
{
	const struct side *s = ctx;
	uint64_t start_ns = wfi_perf_now_ns();
	int ret = 0;

	for (unsigned i = 0; i < s->repeats && !ret; i++) {
		ret = s->go(s->b);
		if (!ret)
			ret = wfi_gpu_rig_wait(&s->b->rig);
	}
	*out = (double)(wfi_perf_now_ns() - start_ns) / 1e3 / s->repeats;
	return ret;
}

static bool wanted(const struct bench *b, const char *name)
{
	return !b->only || !strncmp(name, b->only, strlen(b->only));
}

/* Weft's side, then peers, each with as many bytes as it moves in one go */
static int compare(struct bench *b, const char *name, struct wfi_perf_side *sides, unsigned nr)
{
	const struct wfi_perf_case c = { "gpu", name, "GB/s", true };

	return wfi_perf_compare(b->rig.p, &c, sides, nr);
}

/* ---- peers ---- */

static int d2d_copy(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;

	return wfi_gpu_rig_check(
		rig->cuda->cuMemcpyAsync(rig->dst, rig->src, rig->total, rig->stream), "d2d_copy");
}

static uint64_t piece_at(const struct wfi_gpu_side *side, uint32_t i)
{
	const uint32_t *index = (const uint32_t *)(uintptr_t)side->index;

	return side->base + (index ? index[i] : i) * side->stride;
}

static int memcpy_async(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;
	int res = 0;

	for (uint32_t i = 0; i < b->nr && !res; i++)
		res = rig->cuda->cuMemcpyAsync(piece_at(&b->dst, i), piece_at(&b->src, i), b->len,
					       rig->stream);
	return wfi_gpu_rig_check(res, "memcpy_async");
}

static int memcpy_batch(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;
	struct wfi_cuda_copy_attrs attrs = { .order = WFI_CUDA_ORDER_STREAM };
	size_t from = 0;

	for (uint32_t i = 0; i < b->nr; i++) {
		b->batch_dst[i] = piece_at(&b->dst, i);
		b->batch_src[i] = piece_at(&b->src, i);
		b->batch_len[i] = b->len;
	}
	return wfi_gpu_rig_check(rig->cuda->cuMemcpyBatchAsync(b->batch_dst, b->batch_src,
							       b->batch_len, b->nr, &attrs, &from,
							       1, rig->stream),
				 "memcpy_batch");
}

static int read_kernel(struct bench *b)
{
	uint64_t src = b->rig.src, nr = b->rig.total / 16, out = b->rig.dst;
	void *params[] = { &src, &nr, &out };

	return wfi_gpu_rig_launch(&b->rig, WFI_GPU_PEER_READ, params);
}

static int halve_kernel(struct bench *b)
{
	uint64_t src = b->rig.src, nr = b->rig.total / 16, dst = b->rig.dst;
	void *params[] = { &src, &dst, &nr };

	return wfi_gpu_rig_launch(&b->rig, WFI_GPU_PEER_HALVE, params);
}

static int double_kernel(struct bench *b)
{
	uint64_t src = b->rig.src, nr = b->rig.total / 16, dst = b->rig.dst;
	void *params[] = { &src, &dst, &nr };

	return wfi_gpu_rig_launch(&b->rig, WFI_GPU_PEER_DOUBLE, params);
}

static int empty_kernel(struct bench *b)
{
	return wfi_gpu_rig_check(b->rig.cuda->cuLaunchKernel(b->rig.peers[WFI_GPU_PEER_EMPTY], 1, 1,
							     1, 32, 1, 1, 0, b->rig.stream, NULL,
							     NULL),
				 "an empty kernel");
}

/* ---- gather and scatter ---- */

static int move_blocks(struct bench *b)
{
	return wfi_gpu_move_blocks(b->rig.gpu, &b->src, &b->dst, b->len, b->nr, b->rig.stream);
}

/* pieces of @len, scattered on one side */
static void pieces(struct bench *b, uint32_t len, bool gather)
{
	struct wfi_gpu_rig *rig = &b->rig;

	b->len = len;
	b->nr = (uint32_t)(rig->total / len);
	wfi_perf_shuffle(rig->index, b->nr);
	b->src = (struct wfi_gpu_side){ .base = rig->src, .stride = len };
	b->dst = (struct wfi_gpu_side){ .base = rig->dst, .stride = len };
	*(gather ? &b->src.index : &b->dst.index) = (uintptr_t)rig->index;
}

/* Return: 0; -EIO other bytes arrived (said) */
static int check_pieces(struct bench *b, bool gather)
{
	struct wfi_gpu_rig *rig = &b->rig;
	int ret, res;

	res = rig->cuda->cuMemsetD32Async(rig->dst, 0xa5a5a5a5, rig->total / 4, rig->stream);
	ret = res ? wfi_gpu_rig_check(res, "poison") : move_blocks(b);
	if (!ret)
		ret = wfi_gpu_rig_check(rig->cuda->cuMemcpyAsync((uintptr_t)rig->back, rig->dst,
								 rig->total, rig->stream),
					"reading back");
	if (!ret)
		ret = wfi_gpu_rig_wait(rig);
	for (uint32_t i = 0; i < b->nr && !ret; i++) {
		const uint64_t in = gather ? rig->index[i] : i, out = gather ? i : rig->index[i];

		if (memcmp(rig->host + in * b->len, rig->back + out * b->len, b->len))
			ret = wfi_perf_fail(-EIO, "gpu: piece %u has other bytes", i);
	}
	return ret;
}

static int run_pieces(struct bench *b, const char *name, uint32_t len, bool gather)
{
	const uint64_t bytes = b->rig.total;
	/* a call of the driver for each would take seconds a round */
	const char *many = len < 4096 ? "two million calls" : NULL;
	const char *old = b->rig.cuda->cuMemcpyBatchAsync ? NULL : "a driver before CUDA 13";
	struct side weft = { b, move_blocks, bytes, REPEATS };
	struct side copy = { b, d2d_copy, bytes, REPEATS };
	struct side each = { b, memcpy_async, bytes, 1 };
	struct side batch = { b, memcpy_batch, bytes, 1 };
	struct wfi_perf_side sides[] = {
		{ NULL, rate, &weft, NULL },
		{ "d2d_copy", rate, &copy, NULL },
		{ "memcpy_async", rate, &each, many },
		{ "memcpy_batch", rate, &batch, old ? old : many },
	};
	int ret;

	if (!wanted(b, name))
		return 0;
	pieces(b, len, gather);
	ret = check_pieces(b, gather);
	return ret ? ret : compare(b, name, sides, WFI_ARRAY_SIZE(sides));
}

/* ---- change of layout ---- */

static struct wfi_layout page_layout(uint32_t heads, uint32_t first_head, bool hnd)
{
	return (struct wfi_layout){
		.extent = { 1, 2, TOKENS, heads, HEAD_BYTES },
		.stride = { 2ull * TOKENS * heads * HEAD_BYTES, 1ull * TOKENS * heads * HEAD_BYTES,
			    hnd ? HEAD_BYTES : 1ull * heads * HEAD_BYTES,
			    hnd ? 1ull * TOKENS * HEAD_BYTES : HEAD_BYTES, 1 },
		.first_head = first_head,
	};
}

static int plan(struct wfi_gpu_table *t, const struct wfi_layout *src, const struct wfi_layout *dst)
{
	struct wfi_run runs[RUNS];
	int ret = 0, i, nr = wfi_layout_plan(src, dst, runs, RUNS);

	if (nr < 0 || nr > (int)RUNS)
		return -EINVAL;
	t->nr = 0;
	t->bytes = 0;
	t->odd = 0;
	for (i = 0; i < nr && !ret; i++)
		ret = wfi_gpu_table_add(t, runs[i].src, runs[i].dst, runs[i].len);
	return ret;
}

/* each rank's pages lie in a part of their own */
static int move_plans(struct bench *b)
{
	struct wfi_gpu_side src = b->src;
	int ret = 0;

	for (uint32_t i = 0; i < b->nr_plans && !ret; i++) {
		ret = wfi_gpu_move(b->rig.gpu, &b->plans[i], &src, &b->dst, b->nr, b->rig.stream);
		src.base += b->rig.total / b->nr_plans;
	}
	return ret;
}

static int run_layout(struct bench *b, const char *name, uint32_t nr_ranks, bool hnd)
{
	struct wfi_gpu_rig *rig = &b->rig;
	const struct wfi_layout dst = page_layout(HEADS, 0, hnd);
	struct side weft = { b, move_plans, rig->total, REPEATS };
	struct side copy = { b, d2d_copy, rig->total, REPEATS };
	struct wfi_perf_side sides[] = {
		{ NULL, rate, &weft, NULL },
		{ "d2d_copy", rate, &copy, NULL },
	};
	int ret = 0;

	if (!wanted(b, name))
		return 0;
	b->nr = (uint32_t)(rig->total / PAGE_BYTES);
	b->nr_plans = nr_ranks;
	wfi_perf_shuffle(rig->index, b->nr);
	b->src = (struct wfi_gpu_side){ rig->src, PAGE_BYTES / nr_ranks, (uintptr_t)rig->index };
	b->dst = (struct wfi_gpu_side){ .base = rig->dst, .stride = PAGE_BYTES };
	for (uint32_t i = 0; i < nr_ranks && !ret; i++) {
		const uint32_t heads = HEADS / nr_ranks;
		const struct wfi_layout src = page_layout(heads, i * heads, false);

		ret = plan(&b->plans[i], &src, &dst);
	}
	return ret ? ret : compare(b, name, sides, WFI_ARRAY_SIZE(sides));
}

/* ---- sums and casts ---- */

static int sum_up(struct bench *b)
{
	return wfi_gpu_crc32c(b->rig.gpu, &b->sums, &b->src, b->nr, b->rig.dst, b->rig.stream);
}

static int run_sums(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;
	struct side weft = { b, sum_up, rig->total, REPEATS };
	struct side peer = { b, read_kernel, rig->total, REPEATS };
	struct wfi_perf_side sides[] = {
		{ NULL, rate, &weft, NULL },
		{ "read_kernel", rate, &peer, NULL },
	};
	void *powers;
	int ret;

	if (!wanted(b, "crc32c"))
		return 0;
	pieces(b, 32768, true);
	ret = wfi_gpu_pin(rig->gpu, wfi_gpu_sums_len(b->len) * sizeof(uint32_t), &powers);
	if (ret)
		return ret;
	wfi_gpu_sums_init(&b->sums, b->len, powers);
	ret = compare(b, "crc32c", sides, WFI_ARRAY_SIZE(sides));
	wfi_gpu_unpin(rig->gpu, powers);
	return ret;
}

/* 4096 numbers a block, with scales; narrow blocks lie in @dst first, then wide ones do */
static int narrow(struct bench *b)
{
	return wfi_gpu_narrow(b->rig.gpu, &b->cast, &b->src, &b->dst, b->nr, b->rig.stream);
}

static int widen(struct bench *b)
{
	return wfi_gpu_widen(b->rig.gpu, &b->cast, &b->src, &b->dst, b->nr, b->rig.stream);
}

static int run_casts(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;
	const uint64_t narrow_bytes = 32 * (128 + 4), wide_bytes = 2 * 32 * 128;
	const uint64_t nr = rig->total / wide_bytes;
	/* what is read and what is written */
	struct side there = { b, narrow, nr * (narrow_bytes + wide_bytes), REPEATS };
	struct side back = { b, widen, nr * (narrow_bytes + wide_bytes), REPEATS };
	struct side halve = { b, halve_kernel, rig->total / 2 * 3, REPEATS };
	struct side twice = { b, double_kernel, rig->total / 2 * 3, REPEATS };
	struct wfi_perf_side there_sides[] = {
		{ NULL, rate, &there, NULL },
		{ "move_kernel", rate, &halve, NULL },
	};
	struct wfi_perf_side back_sides[] = {
		{ NULL, rate, &back, NULL },
		{ "move_kernel", rate, &twice, NULL },
	};
	int ret = 0;

	b->cast = (struct wfi_gpu_cast){ .nr_groups = 32, .group = 128 };
	b->nr = (uint32_t)nr;
	b->src = (struct wfi_gpu_side){ .base = rig->src, .stride = wide_bytes };
	b->dst = (struct wfi_gpu_side){ .base = rig->dst, .stride = narrow_bytes };
	if (wanted(b, "bf16_to_fp8"))
		ret = compare(b, "bf16_to_fp8", there_sides, WFI_ARRAY_SIZE(there_sides));
	if (ret || !wanted(b, "fp8_to_bf16"))
		return ret;
	b->src.stride = narrow_bytes;
	b->dst.stride = wide_bytes;
	return compare(b, "fp8_to_bf16", back_sides, WFI_ARRAY_SIZE(back_sides));
}

/* ---- the host ---- */

static int to_host(struct bench *b)
{
	return wfi_gpu_to_host(b->stage, &b->src, b->len, b->nr, b->rig.back, b->rig.stream);
}

static int from_host(struct bench *b)
{
	return wfi_gpu_from_host(b->stage, b->rig.host, &b->dst, b->len, b->nr, b->rig.stream);
}

static int d2h_copy(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;

	return wfi_gpu_rig_check(rig->cuda->cuMemcpyAsync((uintptr_t)rig->back, rig->src,
							  rig->total, rig->stream),
				 "d2h_copy");
}

static int h2d_copy(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;

	return wfi_gpu_rig_check(rig->cuda->cuMemcpyAsync(rig->dst, (uintptr_t)rig->host,
							  rig->total, rig->stream),
				 "h2d_copy");
}

/* what a node does with small pieces: one kernel, which reaches across */
static int kernel_to_host(struct bench *b)
{
	const struct wfi_gpu_side host = { .base = (uintptr_t)b->rig.back, .stride = b->len };

	return wfi_gpu_move_blocks(b->rig.gpu, &b->src, &host, b->len, b->nr, b->rig.stream);
}

static int kernel_from_host(struct bench *b)
{
	const struct wfi_gpu_side host = { .base = (uintptr_t)b->rig.host, .stride = b->len };

	return wfi_gpu_move_blocks(b->rig.gpu, &host, &b->dst, b->len, b->nr, b->rig.stream);
}

static int run_host(struct bench *b, const char *name, bool there)
{
	struct side weft = { b, there ? to_host : from_host, b->rig.total, 2 };
	struct side peer = { b, there ? d2h_copy : h2d_copy, b->rig.total, 2 };
	struct side kernel = { b, there ? kernel_to_host : kernel_from_host, b->rig.total, 2 };
	struct wfi_perf_side sides[] = {
		{ NULL, rate, &weft, NULL },
		{ there ? "d2h_copy" : "h2d_copy", rate, &peer, NULL },
		{ "move_across", rate, &kernel, NULL },
	};

	if (!wanted(b, name))
		return 0;
	pieces(b, 32768, there);
	return compare(b, name, sides, WFI_ARRAY_SIZE(sides));
}

/* ---- one launch, and two processes ---- */

static int run_small(struct bench *b)
{
	const struct wfi_perf_case c = { "gpu", "gather_256_small", "us", false };
	struct side weft = { b, move_blocks, 0, 100 };
	struct side peer = { b, empty_kernel, 0, 100 };
	const struct wfi_perf_side sides[] = {
		{ NULL, launch_us, &weft, NULL },
		{ "empty_kernel", launch_us, &peer, NULL },
	};

	if (!wanted(b, c.name))
		return 0;
	pieces(b, SMALL_BYTES, true);
	b->nr = SMALL_NR;
	return wfi_perf_compare(b->rig.p, &c, sides, WFI_ARRAY_SIZE(sides));
}

/* Return: 0; -EIO other bytes arrived (said) */
static int check_theirs(struct bench *b)
{
	struct wfi_gpu_rig *rig = &b->rig;
	int ret = move_blocks(b);

	if (!ret)
		ret = wfi_gpu_rig_check(rig->cuda->cuMemcpyAsync((uintptr_t)rig->back, rig->dst,
								 rig->total, rig->stream),
					"reading back");
	if (!ret)
		ret = wfi_gpu_rig_wait(rig);
	for (uint64_t i = 0; i < rig->total / 8 && !ret; i++) {
		const uint64_t piece = i * 8 / b->len, within = i * 8 % b->len;

		if (((uint64_t *)rig->back)[i] !=
		    wfi_gpu_ipc_word((rig->index[piece] * (uint64_t)b->len + within) / 8))
			ret = wfi_perf_fail(-EIO, "gpu: word %llu of the second process is another",
					    (unsigned long long)i);
	}
	return ret;
}

static int run_ipc(struct bench *b)
{
	struct side weft = { b, move_blocks, b->rig.total, REPEATS };
	struct side copy = { b, d2d_copy, b->rig.total, REPEATS };
	struct wfi_perf_side sides[] = {
		{ NULL, rate, &weft, NULL },
		{ "d2d_copy", rate, &copy, NULL },
	};
	int ret;

	if (!wanted(b, "ipc_handoff"))
		return 0;
	ret = wfi_gpu_ipc_open(&b->ipc, &b->rig, b->rig.total, &b->theirs);
	if (ret)
		return ret;
	pieces(b, 32768, true);
	b->src.base = b->theirs.addr;
	ret = check_theirs(b);
	if (!ret)
		ret = compare(b, "ipc_handoff", sides, WFI_ARRAY_SIZE(sides));
	wfi_gpu_region_close(&b->theirs);
	return ret;
}

/* ---- all of them ---- */

/* Return: 0, -errno (said) */
static int prepare(struct bench *b)
{
	const uint64_t nr = b->rig.total / WFI_GPU_RIG_PIECE;
	void *items;
	int ret = wfi_gpu_stage_create(b->rig.gpu, 0, &b->stage);

	for (unsigned i = 0; i < RANKS && !ret; i++) {
		ret = wfi_gpu_pin(b->rig.gpu, RUNS * sizeof(struct wfi_gpu_item), &items);
		if (!ret)
			b->plans[i] = (struct wfi_gpu_table){ .items = items, .max = RUNS };
	}
	if (ret)
		return ret;
	b->batch_dst = wfi_alloc(&b->rig.env, nr * sizeof(*b->batch_dst));
	b->batch_src = wfi_alloc(&b->rig.env, nr * sizeof(*b->batch_src));
	b->batch_len = wfi_alloc(&b->rig.env, nr * sizeof(*b->batch_len));
	return b->batch_dst && b->batch_src && b->batch_len ? 0 : -ENOMEM;
}

static void clean_up(struct bench *b)
{
	const uint64_t nr = b->rig.total / WFI_GPU_RIG_PIECE;

	if (!b->rig.gpu)
		return;
	if (b->batch_dst)
		wfi_free(&b->rig.env, b->batch_dst, nr * sizeof(*b->batch_dst));
	if (b->batch_src)
		wfi_free(&b->rig.env, b->batch_src, nr * sizeof(*b->batch_src));
	if (b->batch_len)
		wfi_free(&b->rig.env, b->batch_len, nr * sizeof(*b->batch_len));
	for (unsigned i = 0; i < RANKS; i++)
		wfi_gpu_unpin(b->rig.gpu, b->plans[i].items);
	wfi_gpu_stage_destroy(b->stage);
}

static int run_cases(struct bench *b)
{
	static const struct {
		const char *name;
		uint32_t len;
		bool gather;
	} moves[] = {
		{ "gather_512B", 512, true },	 { "gather_8KiB", 8192, true },
		{ "gather_32KiB", 32768, true }, { "scatter_512B", 512, false },
		{ "scatter_8KiB", 8192, false }, { "scatter_32KiB", 32768, false },
	};
	int ret = 0;

	for (unsigned i = 0; i < WFI_ARRAY_SIZE(moves) && !ret; i++)
		ret = run_pieces(b, moves[i].name, moves[i].len, moves[i].gather);
	if (!ret)
		ret = run_layout(b, "nhd_to_hnd", 1, true);
	if (!ret)
		ret = run_layout(b, "tp4to1", RANKS, false);
	if (!ret)
		ret = run_sums(b);
	if (!ret)
		ret = run_casts(b);
	if (!ret)
		ret = run_host(b, "to_host_32KiB", true);
	if (!ret)
		ret = run_host(b, "from_host_32KiB", false);
	if (!ret)
		ret = run_small(b);
	return ret ? ret : run_ipc(b);
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct bench b = { .only = nr_args ? args[0] : NULL };
	int ret;

	if (nr_args > 1)
		return wfi_perf_fail(-EINVAL, "gpu: one beginning of names of cases, not %d",
				     nr_args);
	/* a child can't use a driver that its parent has loaded */
	ret = wfi_gpu_ipc_fork(&b.ipc);
	if (ret)
		return ret;
	ret = wfi_gpu_rig_open(&b.rig, p);
	if (!ret)
		ret = prepare(&b);
	if (!ret)
		ret = run_cases(&b);
	clean_up(&b);
	wfi_gpu_rig_close(&b.rig);
	wfi_gpu_ipc_end(&b.ipc);
	return ret;
}

const struct wfi_perf_bench wfi_perf_gpu = {
	.name = "gpu",
	.summary = "GPU memory: gather, scatter, layouts, sums, casts, the host, two processes",
	.takes_files = true,
	.run = run,
};
