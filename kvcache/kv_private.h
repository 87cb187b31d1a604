/* SPDX-License-Identifier: Apache-2.0 */
/**
 * kv_private.h - what the files of kvcache/ share: slots, runs, spaces, tenants, leases
 *
 * kv.c      the operations
 * space.c   tenants, spaces, arenas
 * remove.c  how a space goes
 * pool.c    runs of slots: from the arena to a space and back; claiming; making room
 * share.c   who has more than its share, and what goes back of it
 * tree.c    one slot's life: chains, pins, candidates for eviction, the ways out
 * lease.c   owners and leases
 * stat.c    figures of spaces
 * index.c   from keys to slots
 * watch.c   who is told of blocks that come and go; events.c keeps them for another thread
 * tier.c    the mover, between the arena and the tier below; tier_ssd*.c are such a tier
 * tier_gpu.c, tier_gpu_slots.c  the tier above: copies in a GPU's memory
 *
 * A slot number is (granule, offset): a granule is 256 numbers of one run, and the table of
 * granules leads to the run, which knows the space and, without a division, the address. The
 * policy of a space sees numbers of its own, dense within the space, made in the same way.
 */
#ifndef WFI_KV_PRIVATE_H
#define WFI_KV_PRIVATE_H

#include <assert.h>
#include "kvcache/index.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/table.h"
#include "weft_internal/util.h"

#define KV_NONE ((1u << INDEX_SLOT_BITS) - 1) /* no slot, in fields of INDEX_SLOT_BITS */
#define KV_DEPTH_MAX ((1u << 12) - 1)
#define KV_GRANULE_BITS 8
#define KV_GRANULE (1u << KV_GRANULE_BITS)
#define KV_DEFAULT_SLOTS (16ull << 20)
#define KV_MAX_TENANTS 1024u
#define KV_MAX_SPACES 4096u
#define KV_SPACE_BUCKETS 512u
#define KV_OWNER_BITS 20
#define KV_NO_OWNER UINT32_MAX
#define KV_DOOMED (KV_NONE - 1) /* in place of an owner: until the next poll */
#define KV_EMPTY_BLOCKS 2048u /* of a run that leaves its space, in one turn */
#define KV_OWNER_LEASES (64u << 10) /* an engine's leases, and what they may pin in all */
#define KV_OWNER_REFS (4u << 20)

enum kv_state { KV_FREE, KV_FILLING, KV_SEALED, KV_QUARANTINED };

/*
 * one slot; 24 bytes. What a field means depends on the state:
 *   free         next: of the run's free list
 *   filling      parent: owner record; next, prev: the owner's claims
 *   sealed       parent, child (the first), next, prev (siblings): the tree
 *   quarantined  parent: owner record whose process may still write, and next, prev in its list; or
 *                KV_DOOMED, and in the list of those; or KV_NONE: waits for its pins alone
 */
struct kv_slot {
	uint32_t gen;
	uint32_t pins;
	union {
		struct {
			uint64_t parent : INDEX_SLOT_BITS;
			uint64_t child : INDEX_SLOT_BITS;
			uint64_t depth : 12;
		};
		uint64_t family; /* all of these */
	};
	union {
		struct {
			uint64_t next : INDEX_SLOT_BITS;
			uint64_t prev : INDEX_SLOT_BITS;
			uint64_t state : 2;
			uint64_t indexed : 1;
			uint64_t used : 1; /* somebody has pinned the block: read it, most likely */
			uint64_t spare : 8;
		};
		uint64_t links; /* all of these */
	};
};

/*
 * Two words with all that is in them. They are stored whole: they are read and written next, and a
 * load of what was stored in pieces waits until all stores before it are in the cache
 */
static inline void kv_slot_links(struct kv_slot *st, uint32_t next, enum kv_state state,
				 bool indexed)
{
	const struct kv_slot word = {
		.next = next, .prev = KV_NONE, .state = state, .indexed = indexed
	};

	st->links = word.links;
}

static inline void kv_slot_family(struct kv_slot *st, uint32_t parent, uint32_t depth)
{
	const struct kv_slot word = { .parent = parent, .child = KV_NONE, .depth = depth };

	st->family = word.family;
}

WEFT_STATIC_ASSERT(sizeof(struct kv_slot) == 24, "counted in bytes per block");

/* neighbouring extents of the arena, cut into slots for one space */
struct kv_run {
	struct kv_space *space;
	uint8_t *addr;
	uint64_t off; /* in the arena */
	uint32_t first; /* slot number */
	uint32_t nr;
	uint32_t local; /* the first slot's number for the policy */
	uint32_t fresh; /* slots from here on were not used since the run came to its space */
	uint32_t free; /* list of used ones */
	uint32_t nr_free; /* both kinds */
	uint32_t nr_busy; /* filling, quarantined or pinned: what cannot be evicted */
	uint32_t extent;
	bool emptying; /* kv->emptying: its free slots are nobody's */
	uint64_t discarded; /* once it has left its space: bytes whose pages went back */
	struct kv_run *next, *prev; /* of the space; next also of those that left */
	struct kv_run *next_avail, *prev_avail; /* of those with a free slot */
};

/* tables of what a space's block length does to a CRC: see wfi_crc32c_mul() */
struct kv_crc_shift {
	uint32_t table[4][256];
};

enum kv_hist { KV_H_LIFETIME, KV_H_IDLE, KV_H_REUSE, KV_NR_HISTS };

struct kv_space {
	struct kv_space *next; /* of the tenant */
	struct wfi_tenant *tenant;
	struct wfi_space_info info;
	char model[WEFT_NAME_MAX];
	char layout[WEFT_NAME_MAX];
	uint32_t tokens_per_block;
	uint32_t dtype;
	uint32_t layout_id;
	bool leaving; /* no id leads here any more: it is in kv->leaving_spaces, see remove.c */
	uint8_t leave_step;
	uint64_t leave_at; /* of the step: what was before has gone */
	struct kv_space *next_leaving;
	struct kv_space *same_bucket;
	uint64_t max_blocks; /* UINT64_MAX: no bound */
	struct index_salt salt;
	struct kv_crc_shift crc_shift;

	const struct wfi_evict_policy *policy;
	struct wfi_evict *evict;
	struct kv_run **granules; /* of the policy's numbers, all that there may come to be */
	uint32_t nr_granules;
	uint32_t granule_hint; /* likely free from here on */

	uint32_t run_slots; /* slots of one run, and the extents that they take */
	uint32_t run_extents;
	struct kv_run *runs;
	struct kv_run *avail;
	uint32_t nr_runs;
	uint32_t stamp; /* of the search that saw it last */
	uint64_t used_ns; /* last claim or use of a block */
	uint64_t look_ns; /* nobody has more than its share until then, likely */
	uint32_t demand; /* the most slots that were claimed at once */
	uint32_t short_of; /* slots that the reserve below a tier lacked of late */

	uint64_t nr_slots;
	uint64_t nr_free;
	uint64_t nr_filling;
	uint64_t nr_quarantined;
	uint64_t nr_indexed;
	uint64_t nr_pinned;
	uint64_t nr_put, nr_evicted, nr_hit, nr_miss; /* since it was opened */
	struct wfi_hist hist[KV_NR_HISTS];
};

struct wfi_tenant {
	struct wfi_kv *kv;
	char name[WEFT_NAME_MAX];
	char token[WEFT_TOKEN_MAX];
	uint8_t salt[32];
	struct wfi_map arena;
	int ro_fd; /* or -errno */
	uint32_t extent_shift;
	uint32_t nr_extents;
	uint32_t nr_free_extents;
	uint32_t extent_hint; /* none is free below */
	uint8_t *extent_used;
	struct kv_space *spaces;
	uint32_t nr_spaces;
	uint32_t idx; /* of kv->tenants */
	uint64_t floor_bytes, tier_floor_bytes;
	uint64_t used_bytes; /* of its runs */
	uint32_t nr_granules; /* of slot numbers */
	uint32_t weight;
	bool closed;
	bool has_mover;
	bool tier_idle; /* what the tier was told */
	uint64_t tier_tokens, tier_tokens_ns; /* of the budget for writes to the tier */
	struct wfi_owner mover; /* claims slots for what comes back from a tier */
};

struct kv_owner {
	struct wfi_owner *live; /* NULL: gone, or waits for wfi_owner_gone() */
	uint32_t id; /* 0: the record is free */
	uint32_t gen;
	uint32_t quarantined; /* list of slots */
	uint32_t nr_leases;
	uint32_t nr_refs;
	uint32_t next_free;
};

enum lease_state { LEASE_FREE, LEASE_LIVE, LEASE_GRACE };

struct kv_lease {
	uint64_t event_ns; /* its end, then the end of its grace */
	uint32_t gen;
	uint32_t heap; /* place in the heap */
	uint32_t owner;
	uint32_t chunks; /* list of slot numbers */
	uint32_t nr;
	uint32_t nr_below; /* of them, in the tier below */
	uint32_t next, prev; /* owner's list; next: also the free list */
	enum lease_state state;
};

#define LEASE_CHUNK_SLOTS 15u
struct lease_chunk {
	uint32_t next;
	uint32_t slot[LEASE_CHUNK_SLOTS];
};

WEFT_STATIC_ASSERT(sizeof(struct lease_chunk) == WFI_CACHELINE, "one line");

struct kv_leases {
	struct kv_lease *leases;
	uint32_t *heap;
	uint32_t nr_leases; /* room in both */
	uint32_t nr_heap;
	uint32_t free; /* list of leases */
	struct lease_chunk **slabs;
	uint32_t nr_slabs;
	uint32_t max_slabs; /* room in slabs */
	uint32_t free_chunk;
	uint32_t nr_free_chunks;
};

enum kv_counter {
	KV_C_PUT,
	KV_C_EVICTED,
	KV_C_DROPPED,
	KV_C_BAD_HEADER,
	KV_C_BAD_BODY,
	KV_C_BAD_STALE,
	KV_C_BAD_REMOTE,
	KV_C_LOOKUP_HIT,
	KV_C_LOOKUP_MISS,
	KV_C_MATCH_HIT,
	KV_C_MATCH_MISS,
	KV_C_LEASE_EXPIRED,
	KV_C_RUN_TAKEN,
	KV_G_FREE,
	KV_G_FILLING,
	KV_G_SEALED,
	KV_G_QUARANTINED,
	KV_G_PINNED,
	KV_NR_COUNTERS,
};

struct wfi_kv {
	struct wfi_env *env;
	const struct wfi_evict_policy *policy;
	uint64_t incarnation;
	uint64_t grace_ns;
	bool stopped;
	uint64_t now_ns; /* the latest that a caller gave */
	uint32_t extent_bytes;

	struct weft_block_header *headers;
	struct kv_slot *slots;
	struct kv_run **granules;
	uint32_t nr_granules;
	uint32_t granule_hint;
	struct wfi_index index;
	uint64_t nr_slots; /* of all runs */

	uint64_t memory_bytes; /* UINT64_MAX: arenas are not shared */
	uint64_t charged_bytes; /* of each tenant what it uses, or its floor if that is more */
	uint64_t weights; /* of all tenants */
	uint32_t used_granules;
	uint64_t idle_ns;
	struct kv_run *leaving; /* runs whose pages go back, first to last */
	struct kv_run **last_leaving;
	struct kv_run *emptying; /* NULL, or leaves its space in steps */
	uint64_t emptying_end_ns;
	uint32_t emptying_at; /* slots before have been looked at */
	struct kv_space *emptying_for;
	bool emptying_home; /* its memory stays with its tenant */
	uint32_t stamp; /* of the latest search for a victim */

	struct kv_space *spaces[KV_MAX_SPACES]; /* NULL: that one has gone */
	uint32_t nr_spaces; /* with those that have gone */
	uint32_t space_gen; /* upper half of the next space's id */
	struct kv_space *spaces_by_tag[KV_SPACE_BUCKETS]; /* lists, by .same_bucket */
	struct kv_space *leaving_spaces; /* first to last */
	bool leave_waits; /* the first of them, for what goes on without it */
	struct wfi_tenant *tenants[KV_MAX_TENANTS];
	uint32_t nr_tenants;

	struct kv_owner *owners;
	uint32_t nr_owners;
	uint32_t free_owner;
	uint32_t doomed; /* list of slots that failed a check: somebody may hold the number */
	struct kv_leases leases;
	struct kv_mover *mover; /* NULL: there is no tier below */
	struct wfi_kv_watch *watches; /* list */

	struct wfi_table header_table;
	struct wfi_table slot_table;
	struct wfi_map granule_map;
	struct wfi_counter *count[KV_NR_COUNTERS];
	struct wfi_counter scratch[KV_NR_COUNTERS];
	struct wfi_hist *hist[KV_NR_HISTS]; /* of all spaces */
	struct wfi_hist scratch_hist;
};

static inline struct kv_slot *kv_slot(const struct wfi_kv *kv, uint32_t slot)
{
	return &kv->slots[slot];
}

/* of a slot number that is known to be good */
static inline struct kv_run *kv_run(const struct wfi_kv *kv, uint32_t slot)
{
	return kv->granules[slot >> KV_GRANULE_BITS];
}

/* of any number. Return: NULL when no space has this slot */
static inline struct kv_run *kv_run_checked(const struct wfi_kv *kv, uint32_t slot)
{
	struct kv_run *run;

	if (slot >> KV_GRANULE_BITS >= kv->nr_granules)
		return NULL;
	run = kv_run(kv, slot);
	return run && slot - run->first < run->nr ? run : NULL;
}

static inline uint32_t kv_run_granules(const struct kv_space *space)
{
	return (space->run_slots + KV_GRANULE - 1) >> KV_GRANULE_BITS;
}

static inline uint32_t kv_local(const struct kv_run *run, uint32_t slot)
{
	return slot - run->first + run->local;
}

static inline struct kv_space *kv_space(const struct wfi_kv *kv, uint32_t id)
{
	const uint32_t idx = id & (KV_MAX_SPACES - 1);
	struct kv_space *space = idx < kv->nr_spaces ? kv->spaces[idx] : NULL;

	return space && space->info.id == id && !space->leaving ? space : NULL;
}

static inline uint64_t kv_now(struct wfi_kv *kv, uint64_t now_ns)
{
	if (now_ns > kv->now_ns)
		kv->now_ns = now_ns;
	return kv->now_ns;
}

/* as in headers: 52 days around */
static inline uint32_t kv_tick(const struct wfi_kv *kv)
{
	return (uint32_t)(kv->now_ns >> WFI_BLOCK_TICK_BITS);
}

/*
 * Ages that are to be recorded. Blocks of one request come, are used and go together, mostly: as
 * long as their ages are equal they are counted, and recorded at once.
 */
struct kv_ages {
	uint32_t a,
		b; /* in ticks; evicted: since publish and since use. Used: since the use before */
	uint32_t nr;
};

/* of stat.c: what was counted goes into the histograms */
void wfi_ages_evicted(struct wfi_kv *kv, struct kv_space *space, struct kv_ages *ages);
void wfi_ages_used(struct wfi_kv *kv, struct kv_space *space, struct kv_ages *ages);

/* a block is to be evicted. Its header is at hand, for its key */
static inline void kv_age_evicted(struct wfi_kv *kv, struct kv_space *space, struct kv_ages *ages,
				  uint32_t slot)
{
	const struct weft_block_header *h = &kv->headers[slot];
	const uint32_t a = kv_tick(kv) - h->born, b = kv_tick(kv) - h->used;

	if (wfi_unlikely(a != ages->a || b != ages->b)) {
		wfi_ages_evicted(kv, space, ages);
		ages->a = a;
		ages->b = b;
	}
	ages->nr++;
}

/* a block is used, after its key was compared with its header's */
static inline void kv_age_used(struct wfi_kv *kv, struct kv_space *space, struct kv_ages *ages,
			       uint32_t slot)
{
	struct weft_block_header *h = &kv->headers[slot];
	const uint32_t a = kv_tick(kv) - h->used;

	/* operations of one request mostly come within a tick, and are one use */
	if (!a)
		return;
	h->used += a;
	if (wfi_unlikely(a != ages->a)) {
		wfi_ages_used(kv, space, ages);
		ages->a = a;
	}
	ages->nr++;
}

static inline void kv_count(struct wfi_kv *kv, enum kv_counter c, uint64_t n)
{
	wfi_count(kv->count[c], n);
}

static inline uint32_t kv_owner_idx(uint32_t id)
{
	return id & ((1u << KV_OWNER_BITS) - 1);
}

/* Return: record of an owner that may hold something, or NULL */
static inline struct kv_owner *kv_owner(const struct wfi_kv *kv, const struct wfi_owner *owner)
{
	const uint32_t idx = kv_owner_idx(owner->id);
	struct kv_owner *rec = idx < kv->nr_owners ? &kv->owners[idx] : NULL;

	return rec && owner->id && rec->id == owner->id && rec->live == owner ? rec : NULL;
}

static inline struct index_tag kv_header_tag(const struct wfi_kv *kv, const struct kv_space *space,
					     uint32_t slot)
{
	return index_tag(&space->salt, &kv->headers[slot].key);
}

/* ---- tree.c. Hot, but where it says otherwise ---- */

/* free -> filling: the slot is in no list of its run any more */
void wfi_slot_claim(struct wfi_kv *kv, struct wfi_owner *owner, struct kv_run *run, uint32_t slot);
/* a claim of @from's becomes one of @to's */
void wfi_slot_give(struct wfi_kv *kv, struct wfi_owner *from, struct wfi_owner *to, uint32_t slot);
/* filling -> sealed, out of the owner's claims and under @parent (KV_NONE: a root). Header and
 * index are the caller's */
void wfi_slot_seal(struct wfi_kv *kv, struct wfi_owner *owner, struct kv_run *run, uint32_t slot,
		   uint32_t parent);
/* filling -> free, or quarantined while pinned */
void wfi_slot_unclaim(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t slot);
/* filling -> quarantined until the owner's process is gone */
void wfi_slot_condemn(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t slot);
/* as wfi_slot_drop(), but a number that was just looked up stays good until the next poll */
void wfi_slot_doom(struct wfi_kv *kv, uint32_t slot);
/* the process is gone, or the poll came: free, or quarantined while pinned */
void wfi_slot_pardon(struct wfi_kv *kv, uint32_t slot);
/* the slot may be evicted from now on, if it is as it should be for that */
void wfi_slot_offer(struct wfi_kv *kv, uint32_t slot);
void wfi_slot_pin(struct wfi_kv *kv, uint32_t slot);
void wfi_slot_unpin(struct wfi_kv *kv, uint32_t slot);
/* out of the index, at once; its memory goes when nobody holds it */
void wfi_slot_drop(struct wfi_kv *kv, uint32_t slot);
/*
 * the policy has chosen: childless, unpinned. First out of the tree, so that the policy learns of
 * its parent before it chooses again; then, when the lines that it takes are there, out of the
 * index and free. @tag: of its key
 */
void wfi_slot_evict_begin(struct wfi_kv *kv, struct kv_run *run, uint32_t slot);
void wfi_slot_evict_end(struct wfi_kv *kv, struct kv_run *run, uint32_t slot,
			const struct index_tag *tag);
/* the same, but the slot is not free before it is unpinned: its bytes are on their way */
void wfi_slot_evict_hold(struct wfi_kv *kv, struct kv_run *run, uint32_t slot,
			 const struct index_tag *tag);

/* ---- watch.c, where somebody watches ---- */

/* @parent may be KV_NONE */
void wfi_watch_held(struct wfi_kv *kv, uint32_t slot, uint32_t parent,
		    const struct weft_key *parent_key);
void wfi_watch_gone(struct wfi_kv *kv, uint32_t slot);
/* of the tier below: told to all that watch. @ctx: the KV manager */
void wfi_watch_below_held(void *ctx, uint32_t slot);
void wfi_watch_below_gone(void *ctx, uint32_t slot);
void wfi_watch_below_anew(void *ctx);
/* Return: 0: nobody knows */
uint32_t wfi_watch_chain(const struct wfi_kv *kv, uint32_t slot);

/* ---- pool.c ---- */

/* a slot is free, and goes back to its run. Hot */
void wfi_run_put(struct kv_run *run, struct kv_slot *st, uint32_t slot);
/* Return: 0, -ENOSPC with what could be evicted gone */
int wfi_space_make_room(struct wfi_kv *kv, struct kv_space *space, uint32_t nr);
/* evicts up to @nr blocks, and offers them to the tier below. Return: how many went */
uint64_t wfi_space_write_back(struct wfi_kv *kv, struct kv_space *space, uint64_t nr);
/* a run more, if there is one, or who has more than its share is to give one up */
void wfi_space_ask(struct wfi_kv *kv, struct kv_space *space);
/* goes on with kv->emptying, by up to @room blocks. Return: work done */
int wfi_space_empty_step(struct wfi_kv *kv, uint64_t room);
/* takes one free slot; there is one. Hot */
uint32_t wfi_space_take(struct wfi_kv *kv, struct kv_space *space, struct kv_run **run);
void wfi_space_free_runs(struct wfi_kv *kv, struct kv_space *space);
/* no run is emptied for @space any more, or to leave it */
void wfi_space_empty_stop(struct wfi_kv *kv, const struct kv_space *space);
/* a run of a space that has no slot in use leaves it. Return: false when there is none */
bool wfi_space_shed(struct wfi_kv *kv, struct kv_space *space);

void wfi_extents_free(struct wfi_tenant *t, uint32_t first, uint32_t nr);
/* slots that a space could take beside those that it has, from nobody */
uint64_t wfi_space_could_grow(const struct kv_space *space);
static inline uint64_t kv_run_bytes(const struct kv_space *space)
{
	return (uint64_t)space->run_extents << space->tenant->extent_shift;
}

/* ---- share.c ---- */

/* Return: 0, -EINVAL the floors are more than the memory; logged */
int wfi_share_join(struct wfi_kv *kv, struct wfi_tenant *t, const struct wfi_tenant_opts *opts);
/* another floor and weight. Return: the same; nothing has changed then */
int wfi_share_change(struct wfi_tenant *t, const struct wfi_tenant_opts *opts);
/* a run came or went */
void wfi_share_gain(struct kv_run *run);
void wfi_share_lose(struct kv_run *run);
/* bytes that @t may use beside what it does, with nobody losing any */
uint64_t wfi_share_room(const struct wfi_tenant *t);
/* nobody has used it for idle_ns */
bool wfi_share_idle(const struct wfi_tenant *t);
/* whether @nr granules more leave the other tenants what they may count on: by their weights, half
 * of all slot numbers */
bool wfi_share_numbers(const struct wfi_tenant *t, uint32_t nr);
/*
 * who is to lose a run, so that @space may have one: never one that this search has seen before
 * (mark it with kv->stamp)
 * @own: among the spaces of the same tenant only, since its arena is full
 * @must: it has nothing of its own that could go
 *
 * Return: a space, or NULL: nobody has more than its share
 */
struct kv_space *wfi_share_victim(struct wfi_kv *kv, const struct kv_space *space, bool own,
				  bool must);
/* the pages of a run that is in no space any more go back, slice by slice */
void wfi_share_leave(struct wfi_kv *kv, struct kv_run *run);
/* Return: work done */
int wfi_share_poll(struct wfi_kv *kv);
/* Return: whether pages of runs that were the space's still go back */
bool wfi_share_leaves(const struct wfi_kv *kv, const struct kv_space *space);
void wfi_share_fini(struct wfi_kv *kv);

/* ---- kv.c ---- */
/* CRC32C of a sealed block's bytes alone, as they were when it was published */
uint32_t wfi_kv_body_crc(const struct wfi_kv *kv, const struct kv_space *space, uint32_t slot);

/* ---- stat.c ---- */

void wfi_stat_init(struct wfi_kv *kv, struct wfi_metrics *m);
/* a slice of a space's slots, from *@at on, as in wfi_kv_blocks(). Return: how many of @out are in
 * use; *@at is UINT64_MAX when that was all */
uint32_t wfi_space_walk(const struct wfi_kv *kv, const struct kv_space *space, uint64_t *at,
			uint32_t out[WFI_BLOCKS_SLICE]);

/* ---- space.c ---- */
void wfi_tenant_destroy(struct wfi_tenant *t);
/* it has no run any more: it leaves its tenant, and its number is another's to have */
void wfi_space_delete(struct wfi_kv *kv, struct kv_space *space);
__attribute__((format(printf, 4, 5))) int wfi_space_refuse(const struct wfi_tenant *t, char *why,
							   int ret, const char *fmt, ...);

/* ---- remove.c ---- */
/* goes on with the first of the spaces that leave */
void wfi_remove_poll(struct wfi_kv *kv);

/* ---- lease.c ---- */
/* Return: leases that ended or whose slots went free */
int wfi_leases_poll(struct wfi_kv *kv, uint64_t now_ns);
/* Return: blocks of a space in the tier below that leases keep there */
uint64_t wfi_leases_below(const struct wfi_kv *kv, const struct kv_space *space);
void wfi_leases_fini(struct wfi_kv *kv);

#endif
