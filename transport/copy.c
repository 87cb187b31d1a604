/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>
#include "transport/copy_private.h"
#include "weft_internal/env.h"
#include "weft_internal/log.h"

#define LINE 64u
#define TRY_BYTES (1u << 20) /* pages and rows enough to be like larger ones */
#define TRY_TURNS 6u
#define TRY_NS (18 * WFI_NSEC_PER_MSEC) /* no turn begins later */
#define BETTER_PERCENT 5u /* by which another way must beat the one before it: less is noise */
#define MAX_WAYS 32u

/* ---- memcpy ---- */

void wfi_copy_plain(const struct wfi_copy_run *run, const struct wfi_copy_run *next)
{
	__builtin_prefetch(next->src);
	__builtin_prefetch((const char *)next->src + LINE);
	__builtin_prefetch(next->dst, 1);
	memcpy(run->dst, run->src, run->len);
}

static void stream_libc(void *dst, const void *src, size_t len, const struct wfi_copy_walk *walk)
{
	(void)walk;
	memcpy(dst, src, len);
}

static void fence_none(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

const struct wfi_copy_ops wfi_copy_libc = {
	.name = "libc",
	.plain = wfi_copy_plain,
	.stream = stream_libc,
	.fence = fence_none,
};

/* ---- the choice ---- */

struct race {
	struct wfi_env *env;
	wfi_copy_way_fn *run;
	void *ctx;
	char *buf;
	unsigned nr;
	uint64_t *best_ns;
};

static uint64_t try_ns(const struct race *r, unsigned way)
{
	uint64_t start_ns;

	wfi_copy_flush(r->buf, 2 * TRY_BYTES);
	start_ns = wfi_now(r->env);
	r->run(r->ctx, way, r->buf + TRY_BYTES, r->buf, TRY_BYTES);
	return wfi_now(r->env) - start_ns;
}

/* by turns, so that what else goes on in the machine meets them all; the least of each counts */
static void try_all(const struct race *r)
{
	const uint64_t start_ns = wfi_now(r->env);
	unsigned turn, i;
	uint64_t ns;

	for (turn = 0; turn < TRY_TURNS && wfi_now(r->env) - start_ns < TRY_NS; turn++) {
		for (i = 0; i < r->nr; i++) {
			ns = try_ns(r, i);
			if (!turn || ns < r->best_ns[i])
				r->best_ns[i] = ns;
		}
		if (wfi_now(r->env) == start_ns)
			return; /* simulated: nothing takes time */
	}
}

unsigned wfi_copy_race(struct wfi_env *env, unsigned nr, wfi_copy_way_fn *run, void *ctx,
		       uint64_t *best_ns)
{
	struct race r = { .env = env, .run = run, .ctx = ctx, .nr = nr, .best_ns = best_ns };
	unsigned i, pick = 0;
	struct wfi_map map;

	memset(best_ns, 0, nr * sizeof(*best_ns));
	if (env->mem->map(env, 2 * TRY_BYTES, WFI_MAP_PREFAULT, &map))
		return 0;
	r.buf = map.addr;
	try_all(&r);
	env->mem->unmap(env, &map);
	for (i = 1; i < nr; i++)
		if (best_ns[i] * (100 + BETTER_PERCENT) < best_ns[pick] * 100)
			pick = i;
	return pick;
}

static void try_way(void *ctx, unsigned way, void *dst, const void *src, size_t len)
{
	const struct wfi_copy_ops *ops = ((const struct wfi_copy_ops *const *)ctx)[way];

	ops->stream(dst, src, len, &ops->walk);
	ops->fence();
}

const struct wfi_copy_ops *wfi_copy_pick(struct wfi_env *env, uint32_t *mib_per_s)
{
	const struct wfi_copy_ops *const *all = wfi_copy_all();
	uint64_t best_ns[MAX_WAYS];
	unsigned nr = 0, pick;

	if (mib_per_s)
		*mib_per_s = 0;
	while (nr < MAX_WAYS && all[nr])
		nr++;
	pick = wfi_copy_race(env, nr, try_way, (void *)all, best_ns);
	if (best_ns[pick]) {
		uint64_t rate = (TRY_BYTES * WFI_NSEC_PER_SEC / best_ns[pick]) >> 20;

		wfi_debug("copy: large pieces go by \"%s\", %u MiB/s", all[pick]->name,
			  (unsigned)rate);
		if (mib_per_s)
			*mib_per_s = (uint32_t)rate;
	}
	return all[pick];
}

const struct wfi_copy_ops *wfi_copy_best(struct wfi_env *env)
{
	const struct wfi_copy_ops *ops = __atomic_load_n(&env->copy, __ATOMIC_RELAXED);

	/* constants: it does not matter whose choice stays, nor is anything read through them */
	if (!ops) {
		ops = wfi_copy_pick(env, NULL);
		__atomic_store_n(&env->copy, ops, __ATOMIC_RELAXED);
	}
	return ops;
}

/* ---- the copying ---- */

void wfi_copy_runs(const struct wfi_copy_ops *ops, const struct wfi_copy_run *runs, unsigned nr,
		   uint64_t batch_bytes)
{
	uint64_t stream_from = batch_bytes >= WFI_COPY_STREAM_BATCH ? WFI_COPY_STREAM_PIECE
								    : WFI_COPY_STREAM_BYTES;
	bool streamed = false;
	unsigned i;

	for (i = 0; i < nr; i++) {
		if (runs[i].len < stream_from) {
			ops->plain(&runs[i], &runs[i + 1 < nr ? i + 1 : i]);
			continue;
		}
		ops->stream(runs[i].dst, runs[i].src, runs[i].len, &ops->walk);
		streamed = true;
	}
	if (streamed)
		ops->fence();
	else
		__atomic_thread_fence(__ATOMIC_RELEASE);
}
