/* SPDX-License-Identifier: Apache-2.0 */
/**
 * peers.h - what Weft is measured against; each needs nothing of Weft
 *
 * A peer's round is a wfi_perf_side.round, its ctx the struct that stands before it.
 */
#ifndef WFI_PERF_PEERS_H
#define WFI_PERF_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- between two cores ---- */

struct wfi_peer_trips {
	uint32_t nr; /* round trips, or batches, in a round */
	uint64_t idle_ns; /* futex_wake: sleep before each */
};

/* nanoseconds of a round trip */
int wfi_peer_line_round(void *ctx, double *ns);
int wfi_peer_rte_ring_round(void *ctx, double *ns);
int wfi_peer_futex_round(void *ctx, double *ns);
/* why it can't run, or NULL */
const char *wfi_peer_rte_ring_skipped(void);

/* ---- io_uring, on one core ---- */

struct wfi_peer_uring;

#define WFI_PEER_URING_BATCH 32u
#define WFI_PEER_URING_OPEN 4u /* batches under way at a time */
/* Return: 0, -EOPNOTSUPP built without, -ENOSYS or -EPERM of the system */
int wfi_peer_uring_create(const struct wfi_peer_trips *trips, struct wfi_peer_uring **out);
void wfi_peer_uring_destroy(struct wfi_peer_uring *u);
int wfi_peer_uring_nop_round(void *ctx, double *ns);
/* million operations a second */
int wfi_peer_uring_batch_round(void *ctx, double *rate);

/* ---- copying ---- */

/* pieces of one size, each with its place */
struct wfi_peer_copy {
	void *const *dst;
	const void *const *src;
	uint32_t nr;
	uint32_t nr_repeats; /* of all pieces, in a round */
	uint64_t len;
	pid_t pid; /* process_vm_writev: whose memory @dst is */
	void (*best)(void *dst, const void *src, uint64_t len); /* best_copy: what was found best */
};

/* microseconds for all pieces */
int wfi_peer_memcpy_us(void *ctx, double *us);
int wfi_peer_vm_writev_us(void *ctx, double *us);
/* 10^9 bytes a second */
int wfi_peer_memcpy_rate(void *ctx, double *rate);
int wfi_peer_best_copy_rate(void *ctx, double *rate);
/* tries all loops on these pieces; the fastest becomes .best */
void wfi_peer_best_copy_find(struct wfi_peer_copy *copy);

/* one way to copy; @len is a multiple of 4096, both sides are aligned to 64 */
struct wfi_peer_copy_loop {
	const char *name;
	void (*copy)(void *dst, const void *src, uint64_t len);
};
/* those that this CPU can run, the last has no name */
const struct wfi_peer_copy_loop *wfi_peer_copy_loops(void);

/* ---- a thread and nothing else: bare_loop ---- */

struct wfi_peer_loop {
	uint32_t nr_ops; /* of a step: about 1.6 ns each */
	uint64_t total_ns; /* longest: time to run */
	uint32_t nr_steps; /* p999: how often */
};

/* microseconds of the thread's own time that the longest step took */
int wfi_peer_loop_longest_us(void *ctx, double *us);
/* microseconds that one step in a thousand takes longer than */
int wfi_peer_loop_p999_us(void *ctx, double *us);

/* ---- other processes ---- */

struct wfi_peer_tcp;

/* a child on the node's core at the other end of a loopback connection. Return: 0, -errno (said) */
int wfi_peer_tcp_open(struct wfi_peer_tcp **out);
/* takes NULL */
void wfi_peer_tcp_close(struct wfi_peer_tcp *t);
/* @out bytes there in one send, then @back bytes from there. Return: 0, -EINVAL, -ECONNRESET */
int wfi_peer_tcp_move(struct wfi_peer_tcp *t, uint32_t out, uint32_t back);

struct wfi_peer_program;

/* runs @command by the shell; it answers as perf/compare/side.py says. Return: 0, -errno */
int wfi_peer_program_open(const char *command, struct wfi_peer_program **out);
/* takes NULL */
void wfi_peer_program_close(struct wfi_peer_program *g);
/* median of @ops operations of the case @name in @us. Return: 0, -errno (said) */
int wfi_peer_program_ask(struct wfi_peer_program *g, const char *name, unsigned ops, double *us);

/* ---- tables ---- */

struct wfi_peer_lines {
	const void *table;
	uint64_t nr_lines; /* below 2^32 */
	uint32_t *order; /* scratch for nr_reads */
	uint32_t nr_reads; /* independent ones, like the blocks of a chain */
	uint32_t nr_repeats;
	uint64_t turn;
};

/* nanoseconds a line */
int wfi_peer_lines_round(void *ctx, double *ns);

struct wfi_peer_lru;

/* Return: 0, -ENOMEM; full of @nr_blocks */
int wfi_peer_lru_create(uint32_t nr_blocks, uint32_t nr_puts, struct wfi_peer_lru **out);
void wfi_peer_lru_destroy(struct wfi_peer_lru *lru);
/* nanoseconds a put with its eviction */
int wfi_peer_lru_round(void *ctx, double *ns);

/* ---- ucx_perftest, a server and a client of it (peer_ucx_perftest.c) ---- */

#define WFI_PEER_UCX_WARMUP 10u /* one turn in so many goes before, and does not count */

struct wfi_peer_ucx_perftest {
	const char *tls; /* UCX_TLS */
	const char *test; /* its -t */
	uint32_t bytes;
	uint32_t iters;
	uint32_t window; /* operations under way */
	bool latency; /* in us; else bandwidth in MiB/s */
};

/* why it can't run here, or NULL */
const char *wfi_peer_ucx_perftest_skipped(void);
int wfi_peer_ucx_perftest_round(void *ctx, double *out);

#endif
