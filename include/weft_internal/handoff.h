/* SPDX-License-Identifier: Apache-2.0 */
/**
 * handoff.h - the push of one request's blocks from prefill to decode, layer by layer
 *
 * Decode's node keeps a handoff: the keys that will come, and who waits. Its ticket names it.
 * A push by an engine of the same node and tenant passes references: slots are pinned, no byte
 * moves. A push for another node goes there as a message with the places of the pieces and a
 * CRC32C of each; the receiver READs them into slots of its own, checks, answers. So no peer ever
 * writes into a node's memory.
 *
 * Instead of slots either side may name places in memory of its own, a GPU's above all (place.c).
 * Then bytes are copied: between memory of GPUs straight, else through slots. Between nodes they
 * stop in slots on each side that has places (stage.c, take.c), but where the receiver's NIC
 * reaches the places itself: then they are READ straight there, and summed up by the GPU.
 *
 * Context: the node's worker thread.
 */
#ifndef WFI_HANDOFF_H
#define WFI_HANDOFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "weft_internal/env.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/metrics.h"
#include "weft_internal/nic_memory.h"
#include "weft_internal/rail.h"
#include "weft_internal/xfer.h"

#define WFI_HANDOFF_BLOCKS_MAX 8192u
#define WFI_HANDOFF_LAYERS_MAX 1024u
#define WFI_PEER_MSG_MAX 4096u
#define WFI_PEER_CREDITS 64u /* LAYERS messages that a connection may have open */

/* one layer's pieces of some blocks, or the answer to it; little-endian, on the peers' message
 * path */
enum wfi_peer_msg_type {
	WFI_MSG_LAYERS = 1, /* sender to receiver: please READ these */
	WFI_MSG_LAYERS_DONE = 2, /* receiver to sender: they are here, or an error */
	/* sender to receiver: no more comes. .nr: why, a positive errno; 0: its engine is gone */
	WFI_MSG_ABORT = 3,
	WFI_MSG_SHAPED = 4, /* as LAYERS, in a layout of the sender's */
};

struct wfi_msg_piece {
	uint64_t off; /* in the sender's arena of that tenant */
	uint32_t crc; /* CRC32C of the piece */
	uint32_t reserved;
};

struct wfi_msg_layers {
	uint32_t type;
	uint32_t nr; /* pieces that follow */
	uint64_t push; /* sender's name for it, comes back in the answer */
	uint64_t handoff; /* from the ticket */
	uint64_t incarnation;
	uint64_t secret[2];
	uint64_t space_tag;
	uint32_t layer;
	uint32_t nr_layers;
	uint32_t first_block;
	uint32_t timeout_us;
};

/* .m counts blocks of the sender's; each piece is a block, .off its start, .crc over its elements
 * of these layers, layer by layer, in ascending order of where they lie */
struct wfi_msg_shaped {
	struct wfi_msg_layers m;
	struct weft_layout layout;
};

struct wfi_msg_done {
	uint32_t type;
	int32_t res;
	uint64_t push;
};

_Static_assert(sizeof(struct wfi_msg_piece) == 16, "wire");
_Static_assert(sizeof(struct wfi_msg_layers) == 72, "wire");
_Static_assert(sizeof(struct wfi_msg_shaped) == 152, "wire");
_Static_assert(sizeof(struct wfi_msg_done) == 16, "wire");

/* a peer's arena of one tenant, and ours that READs from it land in */
struct wfi_peer_arena {
	struct weft_rkey *rkey; /* NULL: the peer shares none */
	const struct weft_mr *local;
	struct wfi_gather_name name; /* zero: not served in messages */
};

/* a node at the other end of a connection; embedded by whoever owns the connection */
struct wfi_peer {
	uint64_t node;
	uint32_t open_msgs; /* private to the handoffs: sent and not answered */
	uint32_t reserved;
	struct weft_ep *ep; /* to READ from it */
	struct wfi_gather *gather; /* over .ep, or NULL */
	struct wfi_rails *rails; /* over all connections to that node, or NULL: .ep alone */
	/* Return: 0, -EAGAIN (kept by the caller, tried again), -ENOTCONN. @msg is lent for the
	 * call */
	int (*send)(struct wfi_peer *peer, const void *msg, size_t len);
	/* Return: the peer's arena of the tenant, valid while the connection is; NULL when it
	 * shares none */
	const struct wfi_peer_arena *(*arena)(struct wfi_peer *peer,
					      const struct wfi_tenant *tenant);
	/* the same over each of .rails */
	void (*arenas)(struct wfi_peer *peer, const struct wfi_tenant *tenant,
		       struct wfi_rail_mem mem[WFI_RAILS_MAX]);
	/* its shard of the directory (directory.h), mapped for reading while the connection is;
	 * NULL: it is asked */
	const void *shard;
	uint64_t shard_len;
};

struct wfi_handoffs;

struct wfi_handoffs_opts {
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_xfer_engine *xfer;
	struct wfi_metrics *metrics;
	uint64_t node; /* id that tickets carry */
	uint64_t lease_ns; /* of a handoff that arrived */
	uint64_t slice_bytes; /* most that one poll checksums; 0: 1 MiB */
};

int wfi_handoffs_create(const struct wfi_handoffs_opts *opts, struct wfi_handoffs **out);
/* every handoff and push must have ended (owner_gone, peer_lost) */
void wfi_handoffs_destroy(struct wfi_handoffs *hs);
int wfi_handoffs_poll(struct wfi_handoffs *hs, uint64_t now_ns);
uint64_t wfi_handoffs_next_event_ns(const struct wfi_handoffs *hs);
/* until then a layer may come at any moment: its worker should rather spin than sleep */
uint64_t wfi_handoffs_awaited_ns(const struct wfi_handoffs *hs);

/**
 * struct wfi_handoff_places - blocks in memory of an engine's
 * @ep: reaches all of it
 * @rkeys: by the numbers that @blocks have
 * @mrs: by the same numbers, of an expectation: regions as local sides of posts of other endpoints
 *       of @ep's device, or NULL where the provider has no such thing
 * @nics: by the same numbers, of an expectation: regions that NICs reach, NULL of those that none
 *        does; or NULL where there are none
 * @arena: of the tenant, for transfers over @ep; NULL where none is needed
 * @blocks: .rkey, .remote and .len of each: the whole block, or, in a push without a layout, its
 *          layers alone
 *
 * The struct is lent for the call, what it names until done().
 */
struct wfi_handoff_places {
	struct weft_ep *ep;
	struct weft_rkey *const *rkeys;
	struct weft_mr *const *mrs;
	const struct wfi_nic_memory *const *nics;
	const struct weft_mr *arena;
	const struct wfi_piece *blocks;
	uint32_t nr_rkeys;
	uint32_t gpu; /* that all of it lies on, counted from 1; 0: not on one */
};

struct wfi_expect_opts {
	struct wfi_owner *owner; /* gets the lease */
	uint32_t space;
	uint32_t nr_blocks; /* 1 .. WFI_HANDOFF_BLOCKS_MAX */
	uint32_t nr_layers; /* divides the block size */
	const struct weft_key *keys; /* copied */
	const struct weft_layout *layout; /* NULL: blocks are bytes; copied */
	/* NULL: in slots. Else nothing is published, and there is no lease */
	const struct wfi_handoff_places *places;
	bool verify; /* copies to places are checked, as far as that can be had */
	struct weft_key parent;
	uint64_t now_ns;
	uint64_t deadline_ns;
	/* layers landed; @slots of those blocks, lent for the call; of no use with places */
	void (*landed)(void *ctx, uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr,
		       const struct weft_slot *slots);
	/* exactly once: @res nr_blocks and a lease, or negative errno. @slots: all, when res > 0 */
	void (*done)(void *ctx, int res, uint64_t lease, const struct weft_slot *slots);
	/* NULL, or at most once before a done() without success: copies, or READs, are not fenced
	 * in time.
	 * Who waits may hear so; what is lent stays so until done() */
	void (*late)(void *ctx, int res);
	void *ctx;
};
/* Return: 0; -EINVAL, -ENOENT (space), -ENOMEM, -EAGAIN too many handoffs */
int wfi_handoff_expect(struct wfi_handoffs *hs, const struct wfi_expect_opts *opts,
		       struct weft_ticket *ticket, uint64_t *handle);
/* done comes with -ECANCELED, perhaps later. Return: 0, -ENOENT not this owner's */
int wfi_handoff_cancel(struct wfi_handoffs *hs, const struct wfi_owner *owner, uint64_t handle);

struct wfi_push_opts {
	struct wfi_owner *owner;
	uint32_t space;
	const struct weft_ticket *ticket;
	uint32_t layer;
	uint32_t nr_layers;
	uint32_t first_block;
	uint32_t nr;
	const struct weft_slot *slots; /* copied */
	const struct wfi_handoff_places *places; /* instead of slots, or NULL */
	/* NULL, or, with places: may they be read? Return: 0, -EAGAIN ask again, or why not ever.
	 * Asked with .ctx, each 50 us */
	int (*ready)(void *ctx);
	const struct weft_layout *layout; /* of these blocks, as for the receiver; copied */
	/* of ticket->node, NULL when it is not connected. With a layout also for the node itself */
	struct wfi_peer *peer;
	uint64_t now_ns;
	uint64_t deadline_ns;
	void (*done)(void *ctx, int res); /* exactly once when 0 was returned */
	void (*late)(void *ctx, int res); /* as of an expectation */
	void *ctx;
};
/**
 * Return: 0; -EPERM wrong secret; -ESTALE ticket of an earlier life, ended or expired, or slots not
 * the owner's; -EHOSTUNREACH no connection to that node; -EINVAL out of range, or a block's layers
 * out of order; -EXDEV another space or tenant; -EAGAIN too many pushes; -ENOSPC no slots
 */
int wfi_handoff_push(struct wfi_handoffs *hs, const struct wfi_push_opts *opts);

/* an engine is gone: what it expected and pushed ends with -ECONNRESET, here and at receivers. Its
 * owner must live until each done has come */
void wfi_handoffs_owner_gone(struct wfi_handoffs *hs, const struct wfi_owner *owner);
/* a connection is gone: its pushes end with -ECONNRESET, handoffs that it fed too */
void wfi_handoffs_peer_lost(struct wfi_handoffs *hs, struct wfi_peer *peer);
/* Return: handoffs in a space, expected or being pushed */
uint32_t wfi_handoffs_in(const struct wfi_handoffs *hs, uint32_t space);
/* READs over @ep that have not completed yet: it must not be destroyed before there are none */
uint32_t wfi_handoffs_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep);
/* one message from a peer; input: copied by the caller, checked here. Return: 0, -EPROTO drop the
 * peer */
int wfi_handoffs_message(struct wfi_handoffs *hs, struct wfi_peer *peer, const void *msg,
			 size_t len, uint64_t now_ns);

#endif
