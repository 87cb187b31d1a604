/* SPDX-License-Identifier: Apache-2.0 */
/**
 * copy.h - copying by CPU: cached for small pieces, around the cache for large ones
 *
 * Streaming stores save the read of the target's lines and leave the cache to others. How a large
 * piece is best walked (how many places at a time, how far apart, how far ahead of the loads) is
 * nothing that a processor tells: it differs by a factor of four between two of them, so that a
 * few ways are tried at start.
 */
#ifndef WFI_COPY_H
#define WFI_COPY_H

#include <stddef.h>
#include <stdint.h>

struct wfi_env;

/* a piece of this size goes around the cache, whatever stands beside it */
#define WFI_COPY_STREAM_BYTES (256u << 10)
/* so does one of this size in a batch of that size */
#define WFI_COPY_STREAM_PIECE (16u << 10)
#define WFI_COPY_STREAM_BATCH (512u << 10)

/* how a large piece is walked */
struct wfi_copy_walk {
	uint32_t nr_walkers; /* places at a time: 1, 2, 4 or 8 */
	uint32_t apart; /* bytes between them: a power of two, at least a page */
	uint32_t ahead; /* bytes by which lines are asked for before their load; 0: not at all */
};

struct wfi_copy_run {
	void *dst;
	const void *src;
	uint64_t len;
};

struct wfi_copy_ops {
	const char *name;
	/* one run, through the cache; the lines of @next, which may be the same, are called for
	 * meanwhile */
	void (*plain)(const struct wfi_copy_run *run, const struct wfi_copy_run *next);
	/* needs a store fence before the bytes are shown to others: wfi_copy_runs() does it */
	void (*stream)(void *dst, const void *src, size_t len, const struct wfi_copy_walk *walk);
	void (*fence)(void);
	struct wfi_copy_walk walk;
};

/* NULL-terminated list of all that this CPU can run, what is best unmeasured first */
const struct wfi_copy_ops *const *wfi_copy_all(void);

/* one of several ways to copy, by its number; all bytes are visible on return */
typedef void wfi_copy_way_fn(void *ctx, unsigned way, void *dst, const void *src, size_t len);
/**
 * wfi_copy_race - which of @nr ways is fastest here, between places that are in no cache
 * @best_ns: what each made of a MiB, at best; 0: not measured
 *
 * Takes turns for 18 ms by the clock of @env, and fewer where there are few ways. Where that stands
 * still, or memory is short, it is the first; so it is unless another one is clearly better.
 *
 * Context: any thread. Cold.
 */
unsigned wfi_copy_race(struct wfi_env *env, unsigned nr, wfi_copy_way_fn *run, void *ctx,
		       uint64_t *best_ns);

/**
 * wfi_copy_pick - the way that is fastest here, between places that are in no cache
 * @mib_per_s: NULL, or is told what it made; 0: not measured
 *
 * As wfi_copy_race() finds it, of wfi_copy_all().
 *
 * Context: any thread. Cold.
 * Return: never NULL.
 */
const struct wfi_copy_ops *wfi_copy_pick(struct wfi_env *env, uint32_t *mib_per_s);
/* the same, tried once for all who share an environment. Context: any thread. Return: never NULL */
const struct wfi_copy_ops *wfi_copy_best(struct wfi_env *env);

/**
 * wfi_copy_runs - copy pieces that do not overlap
 * @batch_bytes: of the whole batch that these runs are part of
 *
 * On return all bytes are globally visible before later stores. Hot.
 */
void wfi_copy_runs(const struct wfi_copy_ops *ops, const struct wfi_copy_run *runs, unsigned nr,
		   uint64_t batch_bytes);

#endif
