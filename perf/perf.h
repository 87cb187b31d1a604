/* SPDX-License-Identifier: Apache-2.0 */
/**
 * perf.h - what the benchmarks of weft-perf are made of: sides, cases, rows
 *
 * A case is measured on several sides, Weft first, then its peers. Rounds alternate between the
 * sides, so that what the machine does meanwhile meets all of them; medians are compared.
 *
 * Context: the main thread, pinned to WFI_PERF_ENGINE_CPU.
 */
#ifndef WFI_PERF_H
#define WFI_PERF_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WFI_PERF_ENGINE_CPU 0
#define WFI_PERF_NODE_CPU 1
#define WFI_PERF_SIDES_MAX 8
#define WFI_PERF_ROUNDS_MAX 1000

/* how a run was asked for */
struct wfi_perf {
	unsigned rounds;
	bool quick; /* sizes and repetitions that only show that it works */
	bool json;
	/* trace; NULL: the defaults */
	const char *capacities; /* blocks, with commas */
	const char *policies; /* names, with commas */
	const char *plot; /* a PNG file to write */
	bool live; /* on a running node: */
	const char *socket; /* NULL: the default one */
	uint64_t block_bytes;
	double speed; /* times that of the trace; 0: as fast as it goes */
};

struct wfi_perf_bench {
	const char *name;
	const char *summary;
	bool takes_files;
	/* Return: 0, or a negative errno that was said on stderr: -EINVAL wrong arguments */
	int (*run)(const struct wfi_perf *p, int nr_args, char **args);
};

extern const struct wfi_perf_bench wfi_perf_ring;
extern const struct wfi_perf_bench wfi_perf_copy;
extern const struct wfi_perf_bench wfi_perf_get;
extern const struct wfi_perf_bench wfi_perf_match;
extern const struct wfi_perf_bench wfi_perf_put;
extern const struct wfi_perf_bench wfi_perf_index;
extern const struct wfi_perf_bench wfi_perf_tier;
extern const struct wfi_perf_bench wfi_perf_handoff;
extern const struct wfi_perf_bench wfi_perf_directory;
extern const struct wfi_perf_bench wfi_perf_remote;
extern const struct wfi_perf_bench wfi_perf_evict;
extern const struct wfi_perf_bench wfi_perf_trace;
extern const struct wfi_perf_bench wfi_perf_verbs;
extern const struct wfi_perf_bench wfi_perf_ucx;
extern const struct wfi_perf_bench wfi_perf_gpu;
extern const struct wfi_perf_bench wfi_perf_compare_systems;

/* ---- rows ---- */

struct wfi_perf_case {
	const char *bench;
	const char *name;
	const char *unit;
	bool rate; /* more is better */
};

/**
 * struct wfi_perf_side - who is measured
 * @name: of the peer; Weft's own side has none
 * @round: one round, its figure in the case's unit. Return: 0 or negative errno
 * @skipped: why this side can't run here, or NULL
 */
struct wfi_perf_side {
	const char *name;
	int (*round)(void *ctx, double *out);
	void *ctx;
	const char *skipped;
};

/**
 * wfi_perf_compare - measure a case on all sides, print a row for each peer
 * @sides: Weft first. One round of each goes ahead and is not counted
 *
 * Return: 0; what the first failing round returned (said on stderr)
 */
int wfi_perf_compare(const struct wfi_perf *p, const struct wfi_perf_case *c,
		     const struct wfi_perf_side *sides, unsigned nr);
/* the same for a figure that has no peer */
int wfi_perf_measure(const struct wfi_perf *p, const struct wfi_perf_case *c,
		     const struct wfi_perf_side *side);
/* a row of figures that are known already; the second has no peer */
void wfi_perf_row(const struct wfi_perf *p, const struct wfi_perf_case *c, double weft,
		  const char *peer, double value);
void wfi_perf_fact(const struct wfi_perf *p, const struct wfi_perf_case *c, double value);

/* ---- cases that two benches have (bench_put.c) ---- */

/* publishing into a full cache beside uthash_lru, as @bench's case @name.
 * Return: 0, -errno (said) */
int wfi_perf_put_evict(const struct wfi_perf *p, const char *bench, const char *name);

/* ---- cases that would make a bench's file too long ---- */

/* handoff's between two nodes (bench_layers.c). Return: 0, -errno (said) */
int wfi_perf_handoff_nodes(const struct wfi_perf *p);

/* ---- tools (tools.c) ---- */

uint64_t wfi_perf_now_ns(void);
/* of this thread alone: what others do meanwhile is no time of ours, page faults are */
uint64_t wfi_perf_busy_ns(void);
void wfi_perf_sleep_ns(uint64_t ns);
/* sorts @times. Return: what one in a thousand exceeds */
uint32_t wfi_perf_p999(uint32_t *times, uint32_t nr);
/* said on stderr. Return: @ret */
int wfi_perf_fail(int ret, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* this thread. Return: 0, -errno (said) */
int wfi_perf_pin(unsigned cpu);
/* this thread, and those that it starts: on either of the two. Return: 0, -errno (said) */
int wfi_perf_unpin(void);
/**
 * struct wfi_perf_timed - operations that are timed one by one
 * @prepare: before each, and not timed; or NULL
 * @ops: at least so many, and more where they are short
 */
struct wfi_perf_timed {
	int (*prepare)(void *ctx);
	int (*op)(void *ctx);
	void *ctx;
	unsigned ops;
};
/* a round of @ctx, a struct wfi_perf_timed: the median time of its operations */
int wfi_perf_timed_us(void *ctx, double *us);
/* cases whose name starts with WEFT_PERF_CASE, if that is set */
bool wfi_perf_wanted(const char *name);
/* splitmix64: the nth number of a stream */
uint64_t wfi_perf_rand(uint64_t n);
/* a permutation of 0 .. @nr - 1, the same in each run */
void wfi_perf_shuffle(uint32_t *out, uint32_t nr);
/* keeps the compiler from leaving out what @value was computed by */
static inline void wfi_perf_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value) : "memory");
}

/* ---- a second thread, on the node's core ---- */

/* @fn runs once, on the node's core; pthread_join() ends it. Return: 0, -errno (said) */
int wfi_perf_partner(pthread_t *out, void *(*fn)(void *), void *arg);

#endif
