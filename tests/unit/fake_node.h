/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fake_node.h - as much of a node as libweft can tell apart from one: for tests of the client
 *
 * A control thread answers on a unix socket, a worker thread serves the rings with the real ring
 * server. Blocks lie in a small table. Faults are switched on by the test.
 */
#ifndef FAKE_NODE_H
#define FAKE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_ARENA_BYTES (1u << 20)
#define FAKE_TOKEN "let me in"

struct fake_node;

enum fake_fault {
	FAKE_HOLD = 1u << 0, /* operations are taken and not completed */
	FAKE_MUTE = 1u << 1, /* requests are answered only when it is off again */
	FAKE_GARBAGE = 1u << 2, /* completions of operations that nobody posted */
	FAKE_OTHER_SALT = 1u << 3, /* another secret of spaces */
	FAKE_OTHER_REGIONS = 1u << 4, /* other numbers of regions */
	FAKE_WILD_SLOTS = 1u << 5, /* slots outside of the arena */
	FAKE_LEASE_ENDS = 1u << 6, /* leases are over before they are released */
	FAKE_SHORT_RING = 1u << 7, /* a segment that is shorter than it says */
	FAKE_STRAY_FD = 1u << 8, /* a descriptor beside an answer that has none */
};

struct fake_node *fake_node_start(const char *path);
/* as killed: sockets hang up, nothing open is completed */
void fake_node_stop(struct fake_node *node);
void fake_node_fault(struct fake_node *node, unsigned faults);
/* returns when the worker sleeps on its rings */
void fake_node_await_sleep(struct fake_node *node);
/* operations taken so far, by FAKE_HOLD too */
void fake_node_await_taken(struct fake_node *node, uint64_t nr);

#endif
