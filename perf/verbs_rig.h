/* SPDX-License-Identifier: Apache-2.0 */
/**
 * verbs_rig.h - the two sides of `weft-perf verbs`, and how one tells the other what to do
 *
 * One side measures; the other, the agent, serves it: a process for each connection, which begins
 * with an order. What comes then is the order's own business. Both may be on one host.
 */
#ifndef WFI_PERF_VERBS_RIG_H
#define WFI_PERF_VERBS_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include "perf/end.h"
#include "perf/perf.h"

#define WFI_VRIG_MEM (16u << 20)
#define WFI_VRIG_PORT 7472

enum wfi_vrig_op {
	WFI_VRIG_QUIT, /* the agent's end */
	WFI_VRIG_LOOK, /* connected; memory is there, nothing is done */
	WFI_VRIG_PINGPONG, /* answers each write by one */
	WFI_VRIG_ECHO, /* answers each message by one */
	WFI_VRIG_GATHER, /* serves its memory to a link */
	WFI_VRIG_CONNECT, /* an endpoint for each that asks */
	WFI_VRIG_RDMACM, /* peers: rdma_cm by hand, UCX, a program */
	WFI_VRIG_UCX,
	WFI_VRIG_SPAWN,
};

struct wfi_vrig_order {
	uint32_t op;
	uint32_t port; /* SPAWN: what it listens on */
	char text[248]; /* SPAWN: the command */
};

/* where the two meet */
struct wfi_vrig_place {
	const char *addr; /* of the agent, IPv4 */
	const char *device;
	unsigned gid;
};

/* one end of a connection of Weft's */
struct wfi_vrig_side {
	struct wfi_end end;
	uint8_t *mem; /* of its region */
};

/* ---- verbs_rig.c. Return: 0 or negative errno (said) unless said otherwise ---- */

int wfi_vrig_open(struct wfi_vrig_side *s, const struct wfi_vrig_place *place, int sock);
void wfi_vrig_close(struct wfi_vrig_side *s);
/* makes its endpoint and joins it with the other side's: both at once, over the socket */
int wfi_vrig_meet(struct wfi_vrig_side *s);
/* a connection to the agent, the order given. Return: socket */
int wfi_vrig_dial(const struct wfi_vrig_place *place, const struct wfi_vrig_order *order);
/* "do @nr"; 0 ends. Returns when the agent has begun */
int wfi_vrig_go(int sock, uint32_t nr);
/* polls until a post of ours is done. Return: its status */
int wfi_vrig_wait(struct wfi_vrig_side *s);
/* @nr round trips as the side that begins, or answers; @out (may be NULL): ns of each */
int wfi_vrig_pingpong(struct wfi_vrig_side *s, uint32_t nr, bool first, uint64_t *out);
int wfi_vrig_echo(struct wfi_vrig_side *s, uint32_t nr, bool first, uint64_t *out);

/* ---- verbs_agent.c ---- */

/* serves connections until one says QUIT */
int wfi_vrig_serve(const struct wfi_vrig_place *place);
/* the same in a process of its own, for this run. Return: 0, -errno (said) */
int wfi_vrig_fork(const struct wfi_vrig_place *place);

/* ---- peers: one round each, as in struct wfi_perf_side ---- */

struct wfi_vrig_perftest {
	const struct wfi_vrig_place *place;
	const char *program;
	uint32_t bytes;
	uint32_t iters;
	unsigned column; /* of its last line: 3 average MiB/s, 4 typical latency */
};

/* Return: NULL, or why it can't run here */
const char *wfi_vrig_perftest_why(const char *program);
int wfi_vrig_perftest_round(void *ctx, double *out);

struct wfi_peer_ucx;
struct wfi_peer_rdmacm;

const char *wfi_peer_ucx_why(void);
int wfi_peer_ucx_open(const struct wfi_vrig_place *place, uint32_t nr, uint32_t bytes,
		      uint32_t stride, const uint32_t *order, struct wfi_peer_ucx **out);
void wfi_peer_ucx_close(struct wfi_peer_ucx *u);
int wfi_peer_ucx_round(void *ctx, double *out);
/* the agent's side, until its socket says enough */
int wfi_peer_ucx_serve(const struct wfi_vrig_place *place, int sock);

int wfi_peer_rdmacm_open(const struct wfi_vrig_place *place, unsigned nr,
			 struct wfi_peer_rdmacm **out);
void wfi_peer_rdmacm_close(struct wfi_peer_rdmacm *r);
int wfi_peer_rdmacm_round(void *ctx, double *out);
int wfi_peer_rdmacm_serve(const struct wfi_vrig_place *place, int sock);

#endif
