/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cluster.h - blocks of other nodes: who holds them, and how they come here
 *
 * Each node keeps a shard of the directory (directory.h) and tells the shards of the others what it
 * has. A chain is looked for in one shard, that of its head: rendezvous hashing of the head over
 * the nodes that are connected, and stay members where there is a membership, says which. Who does
 * not agree on them finds less, for as long. To get blocks, a node asks their holder to lend them
 * (one message for a run of them), READs them to where they are wanted, checks each against its
 * header, and gives the leases back in batches. What others say is input: wrong, late or missing
 * answers make misses.
 *
 * Leases and lookups are answered, or given up after wfi_cluster_opts.patience_ns; who has been
 * slow so far is given up for another holder sooner. Two that want one block at a time share one
 * fetch.
 *
 * Context: the node's worker thread.
 */
#ifndef WFI_CLUSTER_H
#define WFI_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "weft_internal/env.h"
#include "weft_internal/handoff.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/metrics.h"
#include "weft_internal/nic_memory.h"
#include "weft_internal/xfer.h"

#define WFI_CLUSTER_PEERS 64u
#define WFI_PEER_NONE 0xffu
#define WFI_PEER_SSD 0x80u /* beside the number of one that has it in its SSD tier */
/* messages of one peer that may lie in our queue: both sides' requests and answers */
#define WFI_CLUSTER_CREDITS 32u
#define WFI_COPY_NEVER UINT32_MAX
#define WFI_CLUSTER_MSG_FIRST 16u /* the first word of a message; below: handoffs */

struct wfi_cluster;
struct wfi_pull;
struct wfi_route;

struct wfi_cluster_load {
	uint32_t busy; /* of 1000: the part of the last second or so in which there was work */
	uint32_t nr_ops; /* open operations */
};

struct wfi_cluster_opts {
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_xfer_engine *xfer;
	struct wfi_metrics *metrics; /* may be NULL */
	uint64_t node; /* id */
	uint64_t lease_ns; /* the longest that blocks are lent for */
	uint64_t patience_ns; /* with a request that is not answered; 0: 250 ms */
	uint64_t directory_bytes; /* 0: its default */
	uint64_t slice_bytes; /* most that one poll copies; 0: 512 KiB */
	uint32_t copy_after; /* a block that was fetched so often is kept; 0: 2 */
	void (*load)(void *ctx, struct wfi_cluster_load *out); /* may be NULL: never busy */
	void *load_ctx;
};

int wfi_cluster_create(const struct wfi_cluster_opts *opts, struct wfi_cluster **out);
/* no pull is open, no peer connected. Takes NULL */
void wfi_cluster_destroy(struct wfi_cluster *c);
int wfi_cluster_poll(struct wfi_cluster *c, uint64_t now_ns);
uint64_t wfi_cluster_next_event_ns(const struct wfi_cluster *c);
/* until then a peer may ask for blocks at any moment: who sleeps meanwhile keeps it waiting */
uint64_t wfi_cluster_awaited_ns(const struct wfi_cluster *c);

/* ---- the other nodes ---- */

/* @conn: of a node that lives this life; one node may have several. Lent until _peer_lost().
 * Return: 0, -ENOSPC too many nodes, -ENOMEM */
int wfi_cluster_peer_add(struct wfi_cluster *c, struct wfi_peer *conn, uint64_t incarnation);
/* nothing more goes over it; pulls that used it go on elsewhere, or end. Takes one that was not
 * added */
void wfi_cluster_peer_lost(struct wfi_cluster *c, struct wfi_peer *conn);
/* READs over @ep that have not completed yet: it must not be destroyed before there are none */
uint32_t wfi_cluster_reads_of(const struct wfi_cluster *c, const struct weft_ep *ep);
/* a message whose first word is WFI_CLUSTER_MSG_FIRST or above: input. Return: 0, -EPROTO drop the
 * peer */
int wfi_cluster_message(struct wfi_cluster *c, struct wfi_peer *conn, const void *msg, size_t len,
			uint64_t now_ns);
/* what nodes of this host map to look for chains in the shard here: struct wfi_peer's .shard.
 * Return: 0 with *@map, lent while the cluster lives; -ENOMEM */
int wfi_cluster_shard(struct wfi_cluster *c, const struct wfi_map **map);
/* Return: no other node is there: nothing is to be found */
bool wfi_cluster_alone(const struct wfi_cluster *c);
/**
 * wfi_cluster_drain - this node is about to leave: hands on what was used of late
 *
 * Ask again until it is true: then nothing more is lent, or 5 s are over.
 */
bool wfi_cluster_drain(struct wfi_cluster *c, uint64_t now_ns);
/* a peer is about to leave, or stays after all: its shard goes to others */
void wfi_cluster_peer_leaves(struct wfi_cluster *c, const struct wfi_peer *conn, bool leaves);
/* since it was created; blocks, if nothing else is said */
struct wfi_cluster_stat {
	uint64_t fetched, missed; /* of those wanted of other nodes */
	uint64_t shared; /* of those fetched: brought by another's fetch */
	uint64_t kept; /* of those fetched: held here from then on */
	uint64_t direct; /* of those read: straight to the memory of a GPU */
	uint64_t hedged; /* times that a second holder was asked */
	uint64_t lent, raised; /* of them, brought up from the SSD tier first */
	uint64_t resyncs; /* times that everything was announced anew to one shard */
	uint64_t known; /* in the shard here, at the moment */
};
void wfi_cluster_stat(const struct wfi_cluster *c, struct wfi_cluster_stat *out);
/* the id of a node, by its number in answers, whatever the tier. Return: 0: it has gone */
uint64_t wfi_cluster_node(const struct wfi_cluster *c, uint8_t peer);

/* ---- blocks ---- */

/* what a seek found. @peers: of each key that was looked for, perhaps with WFI_PEER_SSD, or
 * WFI_PEER_NONE; lent for the call */
struct wfi_found {
	uint32_t reached; /* how many from the first that was looked for on are held by others */
	uint32_t fetch_us; /* what fetching these would take, by what was measured so far */
	const uint8_t *peers;
	bool partial; /* a shard was not reached, or did not answer in time: there may be more */
};

/**
 * struct wfi_seek_opts - who has the rest of a chain?
 * @keys: of the whole chain, of which those from @from on are looked for; lent for the call
 * @done: once; may be called before wfi_cluster_seek() returns
 */
struct wfi_seek_opts {
	uint32_t space;
	uint32_t nr;
	uint32_t from;
	const struct weft_key *keys;
	uint64_t now_ns;
	uint64_t deadline_ns;
	void (*done)(void *ctx, const struct wfi_found *found);
	void *ctx;
};
/* what wfi_cluster_seek() would find, where nobody has to be asked; .deadline_ns, .done and .ctx
 * are not used. @out: .peers is lent until the next call. Hot. Return: false: nothing was done;
 * seek */
bool wfi_cluster_look(struct wfi_cluster *c, const struct wfi_seek_opts *o, struct wfi_found *out);
/* Return: 0, with *@out NULL when it is done already; -ENOENT no such space, or alone; -ENOMEM */
int wfi_cluster_seek(struct wfi_cluster *c, const struct wfi_seek_opts *o, struct wfi_pull **out);

/**
 * struct wfi_route_opts - which of some nodes is best for a chain?
 * @keys: of the whole chain; lent for the call
 * @here_memory, @here_ssd: of its blocks, from the first on, what this node has
 * @block_us: what computing a block takes an engine; 0: 1000
 * @routes: .node of each candidate, or .node 0 of the first: this node, those that are connected,
 *          and members that are not. Written, the best first; lent until @done
 * @nr_routes: candidates, or room for them; up to WEFT_ROUTES_MAX
 * @done: once, from wfi_cluster_poll() or wfi_cluster_route_cancel(). @res: how many @routes, or
 *        -ECANCELED
 */
struct wfi_route_opts {
	uint32_t space;
	uint32_t nr;
	const struct weft_key *keys;
	uint32_t here_memory, here_ssd;
	uint32_t block_us;
	uint32_t nr_routes;
	struct weft_route *routes;
	uint64_t now_ns;
	uint64_t deadline_ns;
	void (*done)(void *ctx, int res);
	void *ctx;
};
/* Return: 0; -EINVAL @nr_routes; -ENOENT no such space; -ENOMEM */
int wfi_cluster_route(struct wfi_cluster *c, const struct wfi_route_opts *o,
		      struct wfi_route **out);
void wfi_cluster_route_cancel(struct wfi_cluster *c, struct wfi_route *r);

/**
 * struct wfi_pull_opts - blocks of a chain that are not here are to come here
 * @keys: lent until @done
 * @slots: those that are WFI_SLOT_NONE are wanted; lent until @done. Blocks that are kept get
 *         theirs: pinned, and the caller's to unpin
 * @places: where the bytes are to lie, by block; lent until @done. NULL: into slots of the node,
 *          where they are published
 * @memory: NULL, or what the places lie in, each .base and its offset there, as .rkey counts; lent
 *          until @done. What comes over a NIC that does not reach it goes to a slot of the node, as
 *          without places
 * @in_arena: the places lie in the tenant's arena; else they are memory that transports reach
 *            without having it registered
 * @prefix: only those that, with what is here, have no gap before them
 * @budget_ns: 0: none; else blocks from the first on that would take longer, as it seems now, are
 *             left; and those that their holder can't bring from its SSD tier in that time
 * @results: of those wanted: 0, -ENOENT nobody has it (any more), or not in time, -ETIME left
 * @done: once, from wfi_cluster_poll(). A place whose block is a miss may have been written to
 * @late: NULL, or at most once before @done: READs, or what .memory's device was asked for, do not
 *        end in time. Who waits may hear @res; what is lent stays so until @done
 */
struct wfi_pull_opts {
	const struct wfi_tenant *tenant;
	uint32_t space;
	uint32_t nr;
	const struct weft_key *keys;
	uint32_t *slots;
	void *const *places;
	const struct wfi_nic_memory *memory;
	bool in_arena;
	bool prefix;
	int32_t *results;
	uint64_t budget_ns;
	uint64_t now_ns;
	uint64_t deadline_ns;
	void (*done)(void *ctx);
	void (*late)(void *ctx, int res);
	void *ctx;
};
/* Return: 0; -ENOENT no such space, or alone; -ENOMEM */
int wfi_cluster_pull(struct wfi_cluster *c, const struct wfi_pull_opts *o, struct wfi_pull **out);
/* may a place outside of the arena be named to wfi_cluster_pull()? */
bool wfi_cluster_takes_places(const struct wfi_cluster *c);
/* is there a peer whose blocks of that size can be read straight to this memory? */
bool wfi_cluster_reaches(const struct wfi_cluster *c, const struct wfi_nic_memory *m,
			 uint64_t block_bytes);
/* is this block fetched so often that it is to be kept? */
bool wfi_cluster_popular(const struct wfi_cluster *c, uint32_t space, const struct weft_key *key);
/* ends a seek at once, a pull once nothing writes to its places any more */
void wfi_cluster_cancel(struct wfi_cluster *c, struct wfi_pull *pull);

#endif
