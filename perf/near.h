/* SPDX-License-Identifier: Apache-2.0 */
/**
 * near.h - a second node, which this process polls, beside the one of a rig
 *
 * There are two cores: the rig's node, "far", has one to itself; on the other the node here has its
 * turns between submissions and completions of the engines of this process.
 */
#ifndef WFI_PERF_NEAR_H
#define WFI_PERF_NEAR_H

#include <pthread.h>
#include <stdatomic.h>
#include "perf/rig.h"

struct node;
struct control;

struct wfi_perf_near {
	struct wfi_env env;
	struct node *node;
	struct control *control;
	pthread_t thread;
	char socket[64];
	pthread_t poller; /* while nobody measures */
	_Atomic bool polled_here;
};

/* starts it, and dials @far: over TCP where it listens at @net, over shared memory if that is NULL;
 * a thread polls it until wfi_perf_near_hold(). Return: 0, -errno (said) */
int wfi_perf_near_open(struct wfi_perf_near *n, const struct wfi_perf_rig *far, const char *net,
		       uint64_t arena_bytes, unsigned map_flags);
/* while a thread polls it, and after its engines */
void wfi_perf_near_close(struct wfi_perf_near *n);
/* an engine of it, while a thread polls it. Return: 0, -errno (said) */
int wfi_perf_near_engine(const struct wfi_perf_near *n, struct weft **w, struct weft_ring **ring);
/* from here on the caller polls it */
void wfi_perf_near_hold(struct wfi_perf_near *n);
/* and from here on a thread does again. Return: 0, -errno */
int wfi_perf_near_let(struct wfi_perf_near *n);
/* one turn of a node that is held */
void wfi_perf_near_poll(struct wfi_perf_near *n);
/* an operation on @ring, which may be of any node, while it is held. Return: its res, or -errno */
int wfi_perf_near_call(struct wfi_perf_near *n, struct weft_ring *ring, const struct weft_op *op);

#endif
