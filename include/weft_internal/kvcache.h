/* SPDX-License-Identifier: Apache-2.0 */
/**
 * kvcache.h - one node's KV manager: tenants, spaces, index, pool, leases, eviction
 *
 * Context: everything here belongs to one worker thread, if nothing else is said.
 *
 * The arena of a tenant is one memfd, mapped by the node and by the tenant's engines. It is cut
 * into extents; a space takes extents as it grows, and cuts them into slots of one size. Where none
 * is left, it evicts its own blocks, unless another has more than its share: kvcache/share.c says
 * who that is, between the spaces of a tenant, and between tenants where arenas are more than
 * memory. Slot numbers are unique in the node.
 * The slots' headers (struct weft_block_header) lie in a memfd of their own, which engines do not
 * map, and peers map read-only.
 *
 * The slot automaton: free -> filling -> sealed -> quarantined -> free.
 *   filling      claimed by an owner (engine or handoff); never in the index
 *   sealed       published and immutable; in the index, unless dropped while children or pins
 *                hold it
 *   quarantined  on its way out, while somebody may still write to it or lawfully read it
 * The generation moves on when a slot becomes free.
 */
#ifndef WFI_KVCACHE_H
#define WFI_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft/ring.h"
#include "weft_internal/env.h"
#include "weft_internal/evict.h"
#include "weft_internal/metrics.h"
#include "weft_internal/tier.h"
#include "weft_internal/xfer.h"

struct wfi_kv;
struct wfi_tenant;

struct wfi_kv_opts {
	struct wfi_env *env;
	struct wfi_metrics *metrics; /* may be NULL: then figures go to a private scratch */
	uint64_t incarnation; /* 0: drawn from env->rng */
	const struct wfi_evict_policy *policy; /* NULL: the default */
	uint32_t extent_bytes; /* power of two, 0: 32 MiB; tests take small ones */
	uint64_t lease_grace_ns; /* from a lease's end until its slots may be rewritten; 0: 1 ms */
	uint64_t max_slots; /* of all spaces; 0: 16 Mi, at most 64 Mi */
	uint64_t memory_bytes; /* of all arenas together; 0: each has its own to itself */
	uint64_t idle_ns; /* a tenant that was not used for so long has no share; 0: 60 s */
};

int wfi_kv_create(const struct wfi_kv_opts *opts, struct wfi_kv **out);
void wfi_kv_destroy(struct wfi_kv *kv);
uint64_t wfi_kv_incarnation(const struct wfi_kv *kv);
/* the name of its eviction policy */
const char *wfi_kv_policy(const struct wfi_kv *kv);
/* ends leases that are past, frees slots whose quarantine is over. Return: work done */
int wfi_kv_poll(struct wfi_kv *kv, uint64_t now_ns);
/* when there is something to do: 0 now; the next lease end or quarantine end; UINT64_MAX nothing */
uint64_t wfi_kv_next_event_ns(const struct wfi_kv *kv);

/* ---- tenants and spaces (cold) ---- */

struct wfi_tenant_opts {
	const char *name;
	const char *token; /* up to WEFT_TOKEN_MAX bytes; "" for the default tenant */
	uint8_t salt[32]; /* equal on all nodes of a cluster; keys of two salts never meet */
	uint64_t arena_bytes; /* the quota: all blocks of the tenant lie in its arena */
	uint64_t floor_bytes; /* of memory_bytes: kept for it, whoever wants more */
	uint64_t tier_floor_bytes; /* the same in the tier below */
	uint32_t weight; /* of its share among those that want more; 0: 1 */
	unsigned map_flags; /* WFI_MAP_HUGE, WFI_MAP_PREFAULT */
};

/* Return: 0; -EEXIST name or token taken; -ENOMEM, -ENOSPC no shared memory (says how much);
 * -EINVAL, also when the floors are more than there is */
int wfi_kv_tenant_add(struct wfi_kv *kv, const struct wfi_tenant_opts *opts,
		      struct wfi_tenant **out);
/*
 * what may change while it has engines: its token, floor and weight; the rest of @opts is not
 * looked at. Return: 0; -EEXIST token taken; -EINVAL the floors are more than there is
 */
int wfi_kv_tenant_set(struct wfi_tenant *t, const struct wfi_tenant_opts *opts);
/* one that is closed is found by no token; those that have it go on */
void wfi_kv_tenant_close(struct wfi_tenant *t, bool closed);
bool wfi_tenant_closed(const struct wfi_tenant *t);
/* constant time in the token's bytes. Return: the tenant or NULL */
struct wfi_tenant *wfi_kv_tenant_find(struct wfi_kv *kv, const char token[WEFT_TOKEN_MAX]);
const struct wfi_map *wfi_tenant_arena(const struct wfi_tenant *t);
struct wfi_tenant_share {
	uint64_t used_bytes; /* of memory, by its spaces */
	uint64_t floor_bytes;
	uint32_t weight;
};
void wfi_tenant_share(const struct wfi_tenant *t, struct wfi_tenant_share *out);
const char *wfi_tenant_name(const struct wfi_tenant *t);

#define WFI_TENANT_SPACES_MAX 256u
struct wfi_space_info {
	uint32_t id; /* for weft_sqe.space; carries a generation */
	uint8_t secret[16]; /* for keys */
	uint64_t tag; /* names tenant and geometry between nodes */
	uint64_t stride; /* bytes from slot to slot: block_bytes rounded up to 64 */
	uint64_t block_bytes;
	uint32_t nr_layers;
	uint32_t verify; /* as in struct weft_space_opts of who opened it first */
	uint32_t replicas; /* the most that one of them asked for */
	uint32_t reserved;
};
/* what a space is, for a node where nobody has opened it. On the wire: little-endian, strings
 * zero-terminated */
struct wfi_geometry {
	uint64_t tag; /* names the tenant, too */
	uint64_t block_bytes;
	uint64_t max_blocks; /* as in struct weft_space_opts */
	uint32_t tokens_per_block;
	uint32_t nr_layers;
	uint32_t dtype;
	uint32_t verify;
	uint32_t replicas;
	uint32_t reserved;
	char model[WEFT_NAME_MAX];
	char layout[WEFT_NAME_MAX];
};
/* Return: 0; -EINVAL, -E2BIG, -EAGAIN it is being removed (logged, and one sentence into
 * @why[184]) */
int wfi_kv_space_open(struct wfi_kv *kv, struct wfi_tenant *t, const struct weft_space_opts *opts,
		      struct wfi_space_info *out, char *why);
/**
 * wfi_kv_space_remove - a space goes, with all that it holds in memory and in the tier below
 * @why: as for opening one
 *
 * From then on no id leads to it. Its memory is the tenant's again, and its number another's, some
 * polls later. What engines, peers and transfers hold of it is not taken away: it stays then, and
 * nothing has changed.
 * Return: 0; -ENOENT; -EBUSY slots are claimed, leased or under way (@why says how many)
 */
int wfi_kv_space_remove(struct wfi_kv *kv, uint32_t id, char *why);
/* Return: whether a space that is being removed has not gone yet */
bool wfi_kv_space_leaves(const struct wfi_kv *kv, uint32_t id);
/* Return: 0, -ENOENT when the id is not one of this tenant's spaces. Hot */
int wfi_kv_space_get(struct wfi_kv *kv, const struct wfi_tenant *t, uint32_t id,
		     struct wfi_space_info *out);
/* the same for whoever is no engine. Hot */
int wfi_kv_space_any(const struct wfi_kv *kv, uint32_t id, struct wfi_space_info *out);
/* by the tag that travels between nodes; the same errors */
int wfi_kv_space_by_tag(struct wfi_kv *kv, uint64_t tag, struct wfi_space_info *out);
/* opens it under the tenant that its tag is of, when nobody has: input. Return: 0; -ENOENT of no
 * tenant here; -EINVAL, -E2BIG */
int wfi_kv_space_of_peer(struct wfi_kv *kv, const struct wfi_geometry *g,
			 struct wfi_space_info *out);
uint64_t wfi_space_tag(const uint8_t salt[32], const struct weft_space_opts *opts);

/* ---- owners: who holds claims and leases ---- */

/* an engine's session, a handoff, a peer. Embedded by its owner; private to kvcache */
struct wfi_owner {
	struct wfi_tenant *tenant;
	uint32_t claims; /* head of a list of filling slots */
	uint32_t leases; /* head of a list of leases */
	uint32_t id;
	uint32_t nr_claims;
};

int wfi_owner_init(struct wfi_kv *kv, struct wfi_owner *owner, struct wfi_tenant *t);
/**
 * wfi_owner_fini - everything that the owner holds goes back, at once
 * @may_write: its process still maps the arena: claimed slots then stay in quarantine until
 *             wfi_owner_gone() is called with the same id
 */
void wfi_owner_fini(struct wfi_kv *kv, struct wfi_owner *owner, bool may_write);
void wfi_owner_gone(struct wfi_kv *kv, uint32_t owner_id);

/* ---- the operations (hot) ---- */

/* @slots written as in weft/ring.h. Evicts as needed.
 * Return: nr, -ENOSPC (nothing claimed), -ENOENT, -ECONNRESET after wfi_kv_stop() */
int wfi_kv_claim(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t space, uint32_t nr,
		 struct weft_slot *slots, uint64_t now_ns);
/* the node is about to end: no slot is given to anybody any more, so that engines whose sessions it
 * closes one by one can read on, in place, until they hear of it */
void wfi_kv_stop(struct wfi_kv *kv);
/* claimed slots go back unpublished. Slots that are pinned by a transfer go through quarantine.
 * Return: how many were the owner's claims */
int wfi_kv_unclaim(struct wfi_kv *kv, struct wfi_owner *owner, const struct weft_slot *slots,
		   uint32_t nr);
/* claims of one owner become another's, all or none. @to: NULL to ask whether they could.
 * Return: 0, -ESTALE one is not a claim of @from's in that space, or is given twice */
int wfi_kv_give(struct wfi_kv *kv, struct wfi_owner *from, struct wfi_owner *to, uint32_t space,
		const struct weft_slot *slots, uint32_t nr);
/**
 * wfi_kv_put - publish claimed slots: header with CRC32C made, indexed, claim ended
 * @parent: key before keys[0] in the chain (zero: none). Block i's parent is keys[i - 1]. A parent
 *          that is not held makes the block a root
 * @crcs: when not NULL, CRC32C of each block's bytes, known already; else computed here
 * @results: 0, -EEXIST (held already: slot freed), -ESTALE (not this owner's claim), -EINVAL,
 *           -ENOSPC (slot freed; no place in the index, which keys don't bring about)
 *
 * Return: blocks now held under their keys, -ENOENT unknown space
 */
int wfi_kv_put(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t space,
	       const struct weft_key *parent, const struct weft_key *keys,
	       const struct weft_slot *slots, uint32_t nr, const uint32_t *crcs, int32_t *results,
	       uint64_t now_ns);
/**
 * wfi_kv_match - the longest prefix held, as the index says. Touches nothing else
 * @slots: NULL, or room for @nr: hints at where the blocks of the prefix are
 *
 * Return: its length
 */
int wfi_kv_match(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr,
		 uint32_t *slots);
/**
 * wfi_kv_prefix - the longest prefix held, to be used: headers agree, blocks are touched
 * @slots: room for @nr; of the blocks of the prefix, as good as those of wfi_kv_lookup()
 *
 * Return: its length
 */
int wfi_kv_prefix(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr,
		  uint32_t *slots, uint64_t now_ns);
/**
 * wfi_kv_lookup - find blocks, each by itself
 * @slots: slot number or WFI_SLOT_NONE for each
 *
 * Found blocks are touched for the policy. The numbers are good until control returns to the worker
 * loop; wfi_kv_pin() or wfi_kv_lease() keep them longer.
 * Return: how many were found
 */
int wfi_kv_lookup(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr,
		  uint32_t *slots, uint64_t now_ns);
/* the same, but it is no use of the blocks: nothing is touched or counted */
int wfi_kv_peek(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr,
		uint32_t *slots);
/**
 * wfi_kv_lease - pin slots until @end_ns or wfi_kv_release()
 * @slots: of memory, as wfi_kv_lookup() found them, and of the tier, as wfi_kv_match_tiers() did
 *
 * Return: 0 and a handle that is never 0; -ENOMEM; -EDQUOT too many leases of this owner, or its
 * tenant keeps as much in the tier as it may: its part, by weight, of half the tier
 */
int wfi_kv_lease(struct wfi_kv *kv, struct wfi_owner *owner, const uint32_t *slots, uint32_t nr,
		 uint64_t end_ns, uint64_t *handle);
/* Return: number of blocks released, -ENOENT not a lease of this owner */
int wfi_kv_release(struct wfi_kv *kv, struct wfi_owner *owner, uint64_t handle);
/* a transfer or a handoff uses these slots (filling or sealed): they are neither freed nor
 * rewritten meanwhile. A slot whose claim or index entry ends while it is pinned goes when the last
 * pin does */
void wfi_kv_pin(struct wfi_kv *kv, const uint32_t *slots, uint32_t nr);
void wfi_kv_unpin(struct wfi_kv *kv, const uint32_t *slots, uint32_t nr);
int wfi_kv_drop(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr,
		int32_t *results);
/* checks header and bytes. Return: 0, -EBADMSG (counted by kind; the block is dropped, but its
 * slot is not free before the next poll) */
int wfi_kv_verify(struct wfi_kv *kv, uint32_t slot);
/* the same where the bytes were read already: @crc is their CRC32C. A pinned block that fails goes
 * when its last pin does */
int wfi_kv_verify_crc(struct wfi_kv *kv, uint32_t slot, uint32_t crc);
/* the same of a copy: nothing is counted, and nothing becomes of what fails. Return: 0, -EBADMSG */
int wfi_kv_crc_check(const struct wfi_kv *kv, uint32_t slot, uint32_t crc);
/* as wfi_kv_verify_crc() of bytes as they arrived elsewhere. Where they are not the block's the
 * slot is looked at as well, and that alone decides what becomes of the block. Return: 0, -EBADMSG
 * (counted) */
int wfi_kv_verify_arrived(struct wfi_kv *kv, uint32_t slot, uint32_t crc);

/* ---- readers: other threads that look up while the owner works ---- */

/**
 * struct wfi_kv_reader - one thread's way to one space
 *
 * It looks up and matches at any time, waits for nobody, and nobody waits for it. What it gets are
 * hints: a block held from before until after the call is found, and the slot was that block's
 * during the call. It touches nothing for the policy and pins nothing; who wants the bytes asks the
 * owner for a lease, which looks again.
 */
struct wfi_kv_reader;

/* Context: owner thread, while the reader's is not in one of the calls below. Return: 0, -ENOENT,
 * -ENOMEM */
int wfi_kv_reader_create(struct wfi_kv *kv, uint32_t space, struct wfi_kv_reader **out);
/* takes NULL */
void wfi_kv_reader_destroy(struct wfi_kv_reader *r);
/*
 * as wfi_kv_match(), and each by itself. @slots: of the blocks found, and NULL where a match has no
 * use for them. Context: the reader's thread. Hot. Return: length of the prefix; how many found
 */
int wfi_kv_reader_match(struct wfi_kv_reader *r, const struct weft_key *keys, uint32_t nr,
			uint32_t *slots);
int wfi_kv_reader_lookup(struct wfi_kv_reader *r, const struct weft_key *keys, uint32_t nr,
			 uint32_t *slots);

/* ---- the tier below (kvcache/tier.c) ---- */

struct wfi_kv_tier_opts {
	struct wfi_metrics *metrics; /* may be NULL */
	uint64_t write_bps; /* bytes a second that may be written, over a second; 0: no bound */
	bool lend_arenas; /* the tenants' arenas are all memory by now: the tier may pin them */
};

/*
 * What is evicted from memory goes there, ahead of who wants the room, and comes back from there.
 * After the tenants are added. The tier is the KV manager's from then on, and closed with it.
 * Return: 0, -EEXIST there is one, -ENOMEM
 */
int wfi_kv_tier_add(struct wfi_kv *kv, struct wfi_tier *tier, const struct wfi_kv_tier_opts *o);
bool wfi_kv_has_tier(const struct wfi_kv *kv);

struct wfi_fetch;

/**
 * struct wfi_fetch_opts - blocks wanted in memory
 * @keys: lent until @done
 * @slots: as wfi_kv_lookup() wrote them, in the same turn; lent until @done. Those that are none
 *         are looked for in the tier
 * @budget_ns: 0: none; else blocks from the first on that would take longer, as the tier measures
 *             itself, are left where they are
 * @deadline_ns: then @done is called with what has come
 * @done: slots that are not none are pinned, and the caller's to unpin. @res: 0, -ETIME what is
 *        from key @reached on did not pay, -ETIMEDOUT, or what wfi_kv_fetch_cancel() was given.
 *        Called from wfi_kv_poll() and wfi_kv_fetch_cancel() only
 */
struct wfi_fetch_opts {
	uint32_t space;
	uint32_t nr;
	const struct weft_key *keys;
	uint32_t *slots;
	uint64_t budget_ns;
	uint64_t now_ns;
	uint64_t deadline_ns;
	void (*done)(void *ctx, int res, uint32_t reached);
	void *ctx;
};

/* Return: 0, @done will be called; -ENOMEM, -EOPNOTSUPP no tier */
int wfi_kv_fetch(struct wfi_kv *kv, const struct wfi_fetch_opts *o, struct wfi_fetch **out);
void wfi_kv_fetch_cancel(struct wfi_kv *kv, struct wfi_fetch *f, int res);
/* asks for blocks and waits for none. Return: of how many, from the first on, the node has them in
 * memory or on their way */
int wfi_kv_prefetch(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr);
#define WFI_SLOT_BELOW (1u << 31) /* in a slot number: of the tier below, for leases alone */

/**
 * wfi_kv_match_tiers - goes on with a match where memory ended
 * @from: length of the prefix that memory holds
 * @where: NULL, or of all @nr: those from @from on are written, as in weft/ring.h
 * @slots: NULL, or of all @nr, as @where: to be leased in this turn. The blocks are then touched
 *
 * Return: length of the prefix held anywhere
 */
int wfi_kv_match_tiers(struct wfi_kv *kv, uint32_t space, const struct weft_key *keys, uint32_t nr,
		       uint32_t from, uint32_t *where, uint32_t *slots);
/* until blocks of @bytes in all would be in memory, if they were asked for now. Return: UINT64_MAX
 * there is no tier, or it gives nothing now */
uint64_t wfi_kv_tier_fetch_ns(const struct wfi_kv *kv, uint64_t bytes);
/* as the tier's speed; -ENOENT there is none */
int wfi_kv_tier_speed(const struct wfi_kv *kv, struct wfi_tier_speed *out);
/* Return: 0, -ENOENT there is no tier */
int wfi_kv_tier_stat(const struct wfi_kv *kv, const char **name, struct wfi_tier_stat *out);
/* as the tier's resize; -ENOENT there is none */
int wfi_kv_tier_resize(struct wfi_kv *kv, uint64_t bytes);
/* as the tier's flush, before wfi_kv_destroy(); poll while it is -EAGAIN. Return: 0 too where there
 * is no tier */
int wfi_kv_tier_flush(struct wfi_kv *kv);

/* ---- for other nodes: what proves a block, and what comes and goes ---- */

/* of a block's header what a reader on another node can't know */
struct wfi_kv_proof {
	uint64_t incarnation; /* of the holder */
	uint32_t gen;
	uint32_t born;
	uint32_t crc;
};
/* of a sealed slot. Hot */
void wfi_kv_proof_make(const struct wfi_kv *kv, uint32_t slot, struct wfi_kv_proof *out);
/* are bytes with this CRC32C the block that the holder published under @key in a space that is
 * @space here? Hot. Return: 0, -EBADMSG (counted), -ENOENT no such space */
int wfi_kv_proof_check(struct wfi_kv *kv, uint32_t space, const struct weft_key *key,
		       const struct wfi_kv_proof *proof, uint32_t body_crc);

/**
 * struct wfi_kv_watch - told of blocks of memory as they come and go
 * @held: @slot was published. @parent: the slot that it hangs under, or WFI_SLOT_NONE, and then
 *        @parent_key may name one that is not held, or be NULL
 * @gone: @slot is found no more; its header is as it was
 * @below_held: the same of a slot of the tier below, of a space that may not be open here. NULL
 *              where nobody cares for the tier; then the other two are as well
 * @below_gone: it may never have been held
 * @below_anew: far more may lie there than was told: wfi_kv_below_walk()
 * @chain: NULL, or what a block that goes to the tier keeps as its .chain, as long as it lies
 *         there: @slot has gone
 *
 * All but below_anew are hot. They may not call the KV manager, but for what looks at slots and
 * blocks of the tier.
 */
struct wfi_kv_watch {
	void (*held)(void *ctx, uint32_t slot, uint32_t parent, const struct weft_key *parent_key);
	void (*gone)(void *ctx, uint32_t slot);
	void (*below_held)(void *ctx, uint32_t slot);
	void (*below_gone)(void *ctx, uint32_t slot);
	void (*below_anew)(void *ctx);
	uint32_t (*chain)(void *ctx, uint32_t slot);
	void *ctx;
	struct wfi_kv_watch *next; /* the KV manager's */
};
/* @watch is lent until wfi_kv_unwatch() */
void wfi_kv_watch(struct wfi_kv *kv, struct wfi_kv_watch *watch);
void wfi_kv_unwatch(struct wfi_kv *kv, struct wfi_kv_watch *watch);
uint64_t wfi_kv_max_slots(const struct wfi_kv *kv);
/* the tag by which other nodes know a slot's space */
uint64_t wfi_kv_slot_space_tag(const struct wfi_kv *kv, uint32_t slot);
/* of a sealed slot. Return: the one that it hangs under, WFI_SLOT_NONE: none */
uint32_t wfi_kv_slot_parent(const struct wfi_kv *kv, uint32_t slot);
/* of a space that is open */
void wfi_kv_space_geometry(const struct wfi_kv *kv, uint32_t id, struct wfi_geometry *out);
/* the id of a slot's space */
uint32_t wfi_kv_slot_space(const struct wfi_kv *kv, uint32_t slot);
uint32_t wfi_kv_slot_replicas(const struct wfi_kv *kv, uint32_t slot);
/* does a slot still hold, to be found, the block that it held when it had this generation? */
bool wfi_kv_slot_held(const struct wfi_kv *kv, uint32_t slot, uint32_t gen);
/* since its block was used; of a sealed slot */
uint64_t wfi_kv_slot_idle_ns(const struct wfi_kv *kv, uint32_t slot, uint64_t now_ns);
/* goes through slot numbers from *@at on, looking at up to @max. Return: how many in @out hold
 * blocks that are found; *@at is 0 again after the last number */
uint32_t wfi_kv_walk(const struct wfi_kv *kv, uint32_t *at, uint32_t max, uint32_t *out);
/* the same of the tier below: its walk, its find of one key, its block and its set_chain. There is
 * a tier, but where it is walked or looked into */
uint32_t wfi_kv_below_walk(const struct wfi_kv *kv, uint32_t *at, uint32_t max, uint32_t *out);
uint32_t wfi_kv_below_find(const struct wfi_kv *kv, uint64_t space_tag, const struct weft_key *key);
void wfi_kv_below_block(const struct wfi_kv *kv, uint32_t slot, struct wfi_tier_block *out);
void wfi_kv_below_set_chain(struct wfi_kv *kv, uint32_t slot, uint32_t chain);

/* ---- slots, for those who move bytes (hot) ---- */

void *wfi_kv_slot_addr(const struct wfi_kv *kv, uint32_t slot);
/* of many: those that lookup found; NULL for WFI_SLOT_NONE */
void wfi_kv_slot_addrs(const struct wfi_kv *kv, const uint32_t *slots, uint32_t nr, void **out);
void wfi_kv_slot_ref(const struct wfi_kv *kv, uint32_t slot, struct weft_slot *out);
const struct weft_block_header *wfi_kv_slot_header(const struct wfi_kv *kv, uint32_t slot);
/**
 * wfi_kv_slot_check - may this owner name this slot as a source?
 *
 * Return: 0 when (idx, gen) is a claim of this owner, or a sealed block, in this space; -ESTALE
 * otherwise. Never reads out of bounds, whatever the numbers are.
 */
int wfi_kv_slot_check(const struct wfi_kv *kv, const struct wfi_owner *owner, uint32_t space,
		      const struct weft_slot *slot);
/* the tenant's arena and the node's header table for peers: read-only memfds, borrowed; or -errno.
 */
int wfi_tenant_arena_ro_fd(const struct wfi_tenant *t);
int wfi_kv_headers_ro_fd(const struct wfi_kv *kv);

void wfi_kv_stat(const struct wfi_kv *kv, const struct wfi_tenant *t, struct weft_stat *out);

/* units of born and used of block headers: 2 to this many ns */
#define WFI_BLOCK_TICK_BITS 20

struct wfi_space_stat {
	const struct wfi_tenant *tenant;
	const char *model;
	const char *layout;
	uint64_t block_bytes;
	uint64_t blocks;
	uint64_t slots;
	uint64_t slots_free, slots_filling, slots_quarantined, slots_pinned;
	uint64_t slots_room; /* for more blocks, with none evicted */
	uint64_t puts, evicted, hits, misses; /* blocks */
	const struct wfi_hist *lifetime; /* ns, from publish to eviction */
	const struct wfi_hist *idle; /* from the last use to eviction */
	const struct wfi_hist *reuse; /* from use to use */
	uint32_t id;
	uint32_t tokens_per_block;
	uint32_t nr_layers;
	uint32_t dtype;
};
/* of the next space. @at: 0, then as it was left. Return: 0, -ENOENT there are no more */
int wfi_kv_space_stat(const struct wfi_kv *kv, uint32_t *at, struct wfi_space_stat *out);
struct wfi_block_stat {
	struct weft_key key; /* zero: the slot has no block, or none that can be found */
	struct weft_key parent; /* zero: none, or not held any more */
	uint64_t age_ns; /* since it was published */
	uint64_t idle_ns; /* since it was used */
	uint32_t depth;
	uint32_t pins;
	uint32_t slot; /* of a block that is found in memory; else WFI_SLOT_NONE */
	enum weft_tier tier; /* of an ssd tier only what stands above this is known */
	const char *state;
};
#define WFI_BLOCKS_SLICE 128u
/**
 * wfi_kv_blocks - a slice of what a space has: slots in use, then blocks of the tier below
 * @at: 0, then as it was left; 0 again when that was all. Good over changes, which may then be seen
 *      or not
 *
 * Takes some 20 us. Return: how many of @out were written, -ENOENT there is no such space
 */
int wfi_kv_blocks(struct wfi_kv *kv, uint32_t space, uint64_t *at, uint64_t now_ns,
		  struct wfi_block_stat out[WFI_BLOCKS_SLICE]);
/* Return: whose space that is, or NULL */
struct wfi_tenant *wfi_kv_space_tenant(const struct wfi_kv *kv, uint32_t space);
/* bytes of index, slot state and policy, for the benchmark that reports them per block */
uint64_t wfi_kv_state_bytes(const struct wfi_kv *kv);

/* ---- CRC32C (kvcache/crc32c.c) ---- */

/* Castagnoli, reflected, as in RFC 3720: wfi_crc32c(0, "123456789", 9) == 0xe3069283. Chains:
 * wfi_crc32c(wfi_crc32c(0, a), b) is the CRC of a followed by b */
uint32_t wfi_crc32c(uint32_t crc, const void *buf, size_t len);
/* the CRC of @src, copied to @dst in the same pass. @stream: around the cache, and the caller
 * issues a store fence. Of bytes that change meanwhile, it may be that of others than were copied
 */
uint32_t wfi_crc32c_copy(uint32_t crc, void *dst, const void *src, size_t len, bool stream);
/* tries which way around the cache is fastest here, once for all of a process: some ms. Cold */
void wfi_crc32c_pick(struct wfi_env *env);
/* both, for transfers */
extern const struct wfi_sum_ops wfi_crc32c_sums;
/* CRC of a followed by b, from the CRCs of both and the length of b */
uint32_t wfi_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

/* ---- keys (kvcache/key.c; libweft uses it too) ---- */
struct wfi_keyer {
	uint8_t secret[16];
	uint32_t tokens_per_block;
};
void wfi_key_block(const struct wfi_keyer *k, const struct weft_key *parent, const uint32_t *tokens,
		   struct weft_key *out);
void wfi_key_bytes(const struct wfi_keyer *k, const void *buf, size_t len, struct weft_key *out);
/* secret of a space: BLAKE2b-128, keyed with the tenant's salt, over the geometry */
void wfi_space_secret(const uint8_t salt[32], const struct weft_space_opts *opts, uint8_t out[16]);

#endif
