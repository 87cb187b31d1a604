/* SPDX-License-Identifier: Apache-2.0 */
/**
 * rig.h - a real node in a child process, on its own core, and an engine of it in this one
 *
 * Context: while this process has one thread, since the node's process is forked from it.
 */
#ifndef WFI_PERF_RIG_H
#define WFI_PERF_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "weft/weft.h"
#include "weft_internal/env.h"

struct wfi_perf_rig {
	pid_t pid; /* the node's process */
	char dir[32];
	char socket[48];
	struct weft *w;
	struct weft_ring *ring;
};

/* a mapped memfd that the node maps too, or private memory */
struct wfi_perf_region {
	struct wfi_env env;
	struct wfi_map map;
	uint32_t id;
};

/**
 * struct wfi_perf_node - what the node of a rig is like
 * @map_flags: of the arena: enum wfi_map_flags
 * @name, @id: of nodes that meet others; NULL and 0 else
 * @transport: to nodes at other ports of this host, or NULL: none
 * @listen: host and port where these come, or NULL
 * @peer, @peer_name: host and port of one that it goes to, or NULL
 * @unpinned: the kernel says where it runs
 */
struct wfi_perf_node {
	uint64_t arena_bytes;
	unsigned map_flags;
	const char *name;
	uint64_t id;
	const char *transport;
	const char *listen;
	const char *peer, *peer_name;
	bool unpinned;
};

/* Return: 0, -errno (said) */
int wfi_perf_rig_open_node(struct wfi_perf_rig *rig, const struct wfi_perf_node *node);
/* one that meets nobody. Return: 0, -errno (said) */
int wfi_perf_rig_open(struct wfi_perf_rig *rig, uint64_t arena_bytes, unsigned map_flags);
/* "127.0.0.1:PORT", of a port that is free at the moment. Return: 0, -errno (said) */
int wfi_perf_free_port(char *out, size_t len);
/* does nothing to a rig that is zero */
void wfi_perf_rig_close(struct wfi_perf_rig *rig);
/* one more engine of the same node, in this process. Return: 0, -errno (said) */
int wfi_perf_engine_open(const struct wfi_perf_rig *rig, struct weft **w, struct weft_ring **ring);
/* the same, of the node at @socket */
int wfi_perf_engine_at(const char *socket, struct weft **w, struct weft_ring **ring);
/* Return: 0, -errno (said) */
int wfi_perf_space_open(struct weft *w, const char *model, uint64_t block_bytes,
			struct weft_space **out);
/* touched, and registered. Return: 0, -errno (said) */
int wfi_perf_region_open(struct weft *w, struct wfi_perf_region *r, uint64_t len, bool is_private);
/* before the engine is closed */
void wfi_perf_region_close(struct weft *w, struct wfi_perf_region *r);

/* takes one completion, spinning. Return: its res, or -errno */
int wfi_perf_spin(struct weft_ring *ring, struct weft_completion *out);
/* submits one operation and spins for its completion. Return: its res, or -errno */
int wfi_perf_call(struct weft_ring *ring, const struct weft_op *op);
/* keys first, first + 1, ... of a stream */
void wfi_perf_keys(struct weft_key *out, uint64_t first, uint32_t nr);

#endif
