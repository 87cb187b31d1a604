/* SPDX-License-Identifier: Apache-2.0 */
/**
 * remote_world.h - three nodes' KV managers and clusters over the loop transport, in one thread
 *
 * Messages go through a queue, where a test may lose, delay, double and change them. In the world
 * of world_setup_faults() READs go through the fault injector; in that of world_setup_tiers() each
 * node has an SSD tier and room for few blocks in memory.
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
#define TIER_PATH "tier"
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
	struct wfi_tier *tier; /* NULL: it has none */
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
	struct weft_transport *fault; /* NULL: there is none */
	bool tiers;
	uint64_t nr_others;
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
	uint64_t budget_ns;
	bool done;
	struct wfi_pull *pull;
};

/* of cmocka */
int world_setup(void **state);
int world_setup_tiers(void **state);
int world_setup_faults(void **state);
/* nothing that is READ completes from here on, whatever is shut down; or no longer */
void hold(struct fixture *f, bool on);
/* the same, of what node @a READs of node @b alone */
void hold_link(struct fixture *f, uint32_t a, uint32_t b);
/* nothing is lent, claimed or pinned any more */
int world_teardown(void **state);

static inline uint64_t now(const struct fixture *f)
{
	return wfi_now(f->nodes[0].env);
}

/* what node @a knows of node @b, from here on and from here on no more */
void link_open(struct fixture *f, uint32_t a, uint32_t b);
void link_close(struct fixture *f, uint32_t a, uint32_t b);
/* node @n is not connected; what its files have stays */
void node_close(struct fixture *f, uint32_t n);
void node_open(struct fixture *f, uint32_t n);
/* a part of it, which node_open() begins with */
void node_open_space(struct fixture *f, uint32_t n);
/* letters that are due, and a turn of each node, until @ns have passed */
void turns(struct fixture *f, uint64_t ns);

/* .keys are node @n's */
void put_chain(struct fixture *f, uint32_t n);
/* blocks of no chain */
void put_others(struct fixture *f, uint32_t n, uint32_t nr);
/* the same, until node @n has none of .keys in its memory any more */
void flood(struct fixture *f, uint32_t n);
/* how many of .keys lie in the node's SSD tier */
uint32_t below(struct fixture *f, uint32_t n);
/* how many of .keys a node has in its memory, from the first on */
uint32_t held(struct fixture *f, uint32_t n);
/* a node wants .keys */
void want(struct fixture *f, uint32_t n, struct wish *w, uint64_t deadline_ns);
/* of its pull: .done */
void wish_done(void *ctx);
/* the same as want(), with a budget */
void want_within(struct fixture *f, uint32_t n, struct wish *w, uint64_t budget_ns,
		 uint64_t deadline_ns);
/* Return: how many have come; each of them is right */
uint32_t came(const struct wish *w);
/* both. Return: the same */
uint32_t get(struct fixture *f, uint32_t n);

#endif
