/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict.h - the contract of an eviction policy
 *
 * A policy is one const table. The node and `weft-perf` run the very same code: the policy sees
 * slot numbers, times and places in chains, never keys, memory or tenants.
 *
 * The pool's rule is leaf first: a block is never evicted before its children. The pool keeps the
 * tree; the policy is told which blocks are candidates (sealed, unpinned, childless) and chooses
 * among them only. A block that stops being a candidate keeps its history.
 *
 * Context: the pool's owner thread, for all calls. Hot: no system call, allocation, lock or
 * unbounded loop; work proportional to what is evicted.
 */
#ifndef WFI_EVICT_H
#define WFI_EVICT_H

#include <stdint.h>
#include "weft_internal/env.h"

#define WFI_SLOT_NONE UINT32_MAX

struct wfi_evict;

/* what is known of a block when it is published */
struct wfi_evict_info {
	uint64_t key_hash; /* 64 bits of the key: for ghosts (blocks remembered after eviction) */
	uint32_t depth; /* place in its chain, from 0 */
	uint32_t chain_len; /* length of the chain it was published with */
	uint32_t parent; /* slot of the block before it; WFI_SLOT_NONE: it is a root */
};

struct wfi_evict_policy {
	const char *name; /* as in the configuration: "lru" */
	/* @nr_slots bounds slot numbers: the pool gives what a space may ever have, so tables are
	 * those of table.h, which take no memory before it is used. Return: 0, -ENOMEM */
	int (*create)(struct wfi_env *env, uint32_t nr_slots, uint64_t seed,
		      struct wfi_evict **out);
	void (*destroy)(struct wfi_evict *ev);
	/* slots below @nr_slots are to be used soon: takes microseconds, if they are no more than
	 * there were. Else the bound moves, and what there is may be copied. Return: 0, -ENOMEM */
	int (*resize)(struct wfi_evict *ev, uint32_t nr_slots);
	/*
	 * a block with this key is likely to be published soon, at this depth: what is remembered
	 * of it may be asked for from memory. Decides nothing
	 */
	void (*prefetch)(struct wfi_evict *ev, uint32_t depth, uint64_t key_hash);
	/* a block was published in @slot (not yet a candidate); @now_ns never goes back */
	void (*insert)(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
		       uint64_t now_ns);
	/*
	 * a request used these blocks, given deepest first, so that equal times leave the tail of
	 * the chain the oldest
	 */
	void (*touch)(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns);
	/* the block may be chosen from now on / may not */
	void (*candidate_add)(struct wfi_evict *ev, uint32_t slot);
	void (*candidate_del)(struct wfi_evict *ev, uint32_t slot);
	/*
	 * chooses one candidate and forgets it (remembering a ghost if the policy keeps them).
	 * Return: the slot, WFI_SLOT_NONE when there is no candidate
	 */
	uint32_t (*evict)(struct wfi_evict *ev, uint64_t now_ns);
	/* the block goes for another reason (drop); it may be a candidate or not */
	void (*remove)(struct wfi_evict *ev, uint32_t slot);
	/* bytes of state, ghosts included */
	uint64_t (*bytes)(const struct wfi_evict *ev);
};

#define WFI_EVICT_DEFAULT "gittins"

/* the policies there are, NULL-terminated; the first is the one that finds most */
extern const struct wfi_evict_policy *const wfi_evict_policies[];
const struct wfi_evict_policy *wfi_evict_find(const char *name);

#endif
