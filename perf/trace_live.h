/* SPDX-License-Identifier: Apache-2.0 */
/* trace_live.h - a trace on a running node, beside what the simulation makes of it */
#ifndef WFI_PERF_TRACE_LIVE_H
#define WFI_PERF_TRACE_LIVE_H

#include "perf/perf.h"
#include "perf/trace_sim.h"

/**
 * wfi_trace_live - play a trace's requests on the node, one after the other
 * @sim: has the requests of the file; it learns when they were made, and is played then
 * @path: the file
 * @name: of the rows
 *
 * In a space of its own, whose blocks are dropped afterwards. Each block that hits is got and
 * checked, the others are put; then the simulation plays the same requests, at the same times,
 * under the node's policy with the room that the node had in memory.
 *
 * Return: 0; -EIO the node is not there, fails, or gives wrong bytes; -ENOENT the simulation does
 * not know its policy; -ENOMEM (all said)
 */
int wfi_trace_live(const struct wfi_perf *p, struct wfi_env *env, struct wfi_tsim *sim,
		   const char *path, const char *name);

#endif
