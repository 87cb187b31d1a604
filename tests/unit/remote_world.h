/* SPDX-License-Identifier: Apache-2.0 */
/**
 * remote_world.h - three nodes' KV managers and clusters over the loop transport, in one thread
 *
 * Messages go through a queue, where a test may lose, delay, double and change them.
 */
#ifndef REMOTE_WORLD_H
#define REMOTE_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include "kvcache/cluster/wire.h"
#include "weft_internal/cluster.h"
#include "weft_internal/directory.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define NODES 3u
#define BLOCK_BYTES 512u
#define CHAIN 6u
#define QUEUE 512u
#define PATIENCE_NS (20 * WFI_NSEC_PER_MSEC)
#define DEADLINE_NS (100 * WFI_NSEC_PER_MSEC)

struct fixture;

/* what one node knows of another */
struct link {
	struct wfi_peer base;
	struct fixture *f;
	uint32_t from, to;
	bool stuck; /* takes nothing */
	struct weft_ep *ep;
	struct weft_rkey *rkey;
	struct wfi_peer_arena arena;
};

struct test_node {
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner engine;
	struct wfi_xfer_engine *xfer;
	struct weft_device *dev;
	struct weft_cq *send_cq, *recv_cq;
	struct wfi_cluster *cluster;
	struct link links[NODES];
};

struct letter {
	uint32_t from, to;
	size_t len;
	uint64_t at_ns; /* delivered from then on */
	union cluster_msg msg;
};

struct fixture {
	struct wfi_sim *sim;
	struct test_node nodes[NODES];
	struct letter queue[QUEUE];
	uint32_t head, tail;
	/* changes a message on its way. Return: false: it gets lost */
	bool (*tamper)(struct fixture *f, struct letter *l);
	uint32_t nr_sent[CLUSTER_TYPE_END];
	uint32_t odd; /* of a tamper */
	struct weft_key keys[CHAIN];
};

struct wish {
	uint32_t slots[CHAIN];
	uint8_t bytes[CHAIN][BLOCK_BYTES];
	void *places[CHAIN];
	int32_t results[CHAIN];
	bool done;
	struct wfi_pull *pull;
};

/* of cmocka */
int world_setup(void **state);
/* nothing is lent, claimed or pinned any more */
int world_teardown(void **state);

static inline uint64_t now(const struct fixture *f)
{
	return wfi_now(f->nodes[0].env);
}

/* what node @a knows of node @b, from here on and from here on no more */
void link_open(struct fixture *f, uint32_t a, uint32_t b);
void link_close(struct fixture *f, uint32_t a, uint32_t b);
/* letters that are due, and a turn of each node, until @ns have passed */
void turns(struct fixture *f, uint64_t ns);

/* .keys are node @n's */
void put_chain(struct fixture *f, uint32_t n);
/* how many of .keys a node has in its memory, from the first on */
uint32_t held(struct fixture *f, uint32_t n);
/* a node wants .keys */
void want(struct fixture *f, uint32_t n, struct wish *w, uint64_t deadline_ns);
/* Return: how many have come; each of them is right */
uint32_t came(const struct wish *w);
/* both. Return: the same */
uint32_t get(struct fixture *f, uint32_t n);

#endif
