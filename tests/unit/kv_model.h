/* SPDX-License-Identifier: Apache-2.0 */
/* kv_model.h - what the model of a KV manager (test_kv_model.c) shares with its tier */
#ifndef WFI_TEST_KV_MODEL_H
#define WFI_TEST_KV_MODEL_H

#include "kvcache/kv_private.h"
#include "weft_internal/tier.h"

#define MAX_SLOTS 8192u
#define NR_SPACES 2u
#define NR_OWNERS 4u
#define NR_CHAINS 12u
#define DEPTH 10u
#define SHARED 4u /* first blocks that three chains have in common */
#define NR_KEYS (NR_CHAINS * DEPTH)
#define NR_LEASES 64u
#define NR_PINS 32u
#define NONE UINT32_MAX
#define MOVER NR_OWNERS /* as an owner of claims */
#define GRACE_NS 50u
#define MAX_NR 24u

struct model_slot {
	enum kv_state state;
	uint32_t gen; /* 0: not known yet */
	uint32_t pins;
	uint32_t space;
	uint32_t key;
	uint32_t parent;
	uint32_t owner; /* filling, quarantined: NONE or its number */
	bool indexed;
	bool leaving; /* its bytes are on their way to the tier: one of its pins */
};

struct model_lease {
	uint64_t handle; /* 0: unused, or ended */
	uint64_t end_ns;
	uint32_t owner;
	uint32_t nr;
	uint32_t slots[MAX_NR];
	bool pinned;
};

/* blocks that are wanted in memory */
struct model_fetch {
	struct wfi_fetch *fetch; /* NULL: none */
	uint32_t space, chain;
	struct weft_key keys[DEPTH];
	uint32_t slots[DEPTH];
	bool pinned[DEPTH];
};

struct model {
	struct wfi_sim *sim;
	struct wfi_kv *kv;
	struct wfi_tenant *tenant;
	struct wfi_space_info space[NR_SPACES];
	struct wfi_owner owner[NR_OWNERS];
	uint32_t dying[NR_OWNERS]; /* id that wfi_owner_gone() is owed, 0: none */
	struct model_slot slot[MAX_SLOTS];
	uint32_t used[MAX_SLOTS]; /* slots that are not free */
	uint32_t nr_used;
	uint32_t held[NR_SPACES][NR_KEYS]; /* slot or NONE */
	struct model_lease lease[NR_LEASES];
	uint32_t pin[NR_PINS]; /* slots pinned by transfers */
	uint64_t now;
	uint64_t polled_ns;
	uint64_t tick_ns; /* of each step of time */
	uint64_t evicted;
	const struct wfi_evict_policy *policy;
	/* with a tier */
	struct wfi_tier *tier;
	struct model_fetch fetch;
	bool put[NR_SPACES][NR_KEYS]; /* ever */
	bool there[NR_SPACES][NR_KEYS]; /* may be: put, and not dropped since */
	uint64_t gone_down, came_up, lives;
};

/* ---- test_kv_model.c ---- */

uint32_t model_below(struct model *m, uint32_t n);
/* chains in threes share their first blocks: one number for each block of a chain */
uint32_t model_key_no(uint32_t chain, uint32_t depth);
struct weft_key model_key_of(uint32_t no);
uint64_t model_content_of(uint32_t space, uint32_t no);
void model_use(struct model *m, uint32_t s);
void model_make_free(struct model *m, uint32_t s);
/* a claim that ends without a block */
void model_unclaim(struct model *m, uint32_t s);
void model_unpin(struct model *m, uint32_t s);
/* what the policy took since: only what it may, leaves first */
void model_take_evicted(struct model *m);
/* those that have ended by the last poll. Return: when the next one does, or its grace */
uint64_t model_leases_pass(struct model *m);

/* ---- kv_model_tier.c ---- */

/* what the mover did since, in any order */
void model_tier_moved(struct model *m);
void model_fetch(struct model *m);
void model_prefetch(struct model *m);
/* nothing is found that was never put, or dropped since; and what is in memory is */
void model_match(struct model *m);

#endif
