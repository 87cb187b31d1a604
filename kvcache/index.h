/* SPDX-License-Identifier: Apache-2.0 */
/**
 * index.h - from keys to slots: a hash table of cache lines
 *
 * A bucket is one cache line of five entries. An entry holds 70 bits of a keyed universal hash of
 * the 128-bit key: two keys, of one space or of two, are taken for one with a probability of 2^-70,
 * whoever chose them, since the hash's salt is drawn for each space and never shown. So an entry is
 * a strong hint: who goes on to a block's bytes compares the whole key with the block's header.
 *
 * An entry that finds its bucket full goes to the next, and each bucket passed counts it: a look-up
 * ends at the first bucket that nobody passed. Most end in the first.
 *
 * Growth makes a second table and moves a few buckets with each insert and step. Both tables are in
 * the order of the hash, and what is moved is a prefix of it: a key's hash says which of the two
 * it is in, and the new one's pages are touched one after the other, not all at once.
 *
 * Context: owner thread.
 */
#ifndef WFI_INDEX_H
#define WFI_INDEX_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define INDEX_SLOT_BITS 26
#define INDEX_SLOT_NONE UINT32_MAX
#define INDEX_SLOT_MAX ((1u << INDEX_SLOT_BITS) - 2) /* one more is kept for "empty" */
#define INDEX_BUCKET_ENTRIES 5u

struct index_bucket {
	uint64_t lo[INDEX_BUCKET_ENTRIES];
	/* slot + 1, 0: empty. Above INDEX_SLOT_BITS: more of the hash */
	uint32_t ref[INDEX_BUCKET_ENTRIES];
	uint32_t passed; /* entries that wanted to be here or before and are behind */
};

WEFT_STATIC_ASSERT(sizeof(struct index_bucket) == WFI_CACHELINE, "one line a look-up");

struct index_table {
	struct wfi_map map;
	struct index_bucket *buckets;
	uint32_t nr_buckets;
};

struct wfi_index {
	struct wfi_env *env;
	struct index_table table;
	struct index_table old; /* being moved into table; nr_buckets 0: none */
	uint32_t moved; /* keys whose home in old is below this are in table, others in old */
	uint64_t nr; /* entries in both */
};

/* of one space; drawn at random */
struct index_salt {
	uint64_t word[4];
};

/* what an index knows of a key */
struct index_tag {
	uint64_t lo;
	uint32_t hi; /* none of its bits below INDEX_SLOT_BITS */
};

static inline struct index_tag index_tag(const struct index_salt *salt, const struct weft_key *key)
{
	const unsigned __int128 product =
		(unsigned __int128)(key->lo ^ salt->word[0]) * (key->hi ^ salt->word[1]);
	const uint64_t sum = key->lo * (salt->word[2] | 1) + key->hi * (salt->word[3] | 1);

	return (struct index_tag){
		.lo = (uint64_t)product ^ (uint64_t)(product >> 64),
		.hi = (uint32_t)(sum >> 32) & ~((1u << INDEX_SLOT_BITS) - 1),
	};
}

static inline uint32_t index_home(const struct index_table *t, uint64_t lo)
{
	return (uint32_t)((lo >> 32) * t->nr_buckets >> 32);
}

/* the one table that has this key, if there is any */
static inline const struct index_table *index_table_of(const struct wfi_index *ix, uint64_t lo)
{
	if (wfi_unlikely(ix->old.nr_buckets) && index_home(&ix->old, lo) >= ix->moved)
		return &ix->old;
	return &ix->table;
}

/* inlined by force: gcc takes a function that only prefetches for one without effect */
static inline __attribute__((always_inline)) void wfi_index_prefetch(const struct wfi_index *ix,
								     const struct index_tag *tag)
{
	const struct index_table *t = index_table_of(ix, tag->lo);

	__builtin_prefetch(&t->buckets[index_home(t, tag->lo)]);
}

/* Hot. Return: slot or INDEX_SLOT_NONE */
uint32_t wfi_index_find(const struct wfi_index *ix, const struct index_tag *tag);

#define INDEX_BATCH 32u

/* Hot. Up to INDEX_BATCH keys: makes their tags and calls for their buckets */
void wfi_index_begin(const struct wfi_index *ix, const struct index_salt *salt,
		     const struct weft_key *keys, uint32_t nr, struct index_tag *tags);
/* Hot. Finds them, when other work was done meanwhile. Return: how many there are */
uint32_t wfi_index_find_batch(const struct wfi_index *ix, const struct index_tag *tags, uint32_t nr,
			      uint32_t *slots);
/* Hot. Return: length of the longest prefix of @keys that is there */
uint32_t wfi_index_match(const struct wfi_index *ix, const struct index_salt *salt,
			 const struct weft_key *keys, uint32_t nr);

/* Return: 0, -ENOMEM */
int wfi_index_init(struct wfi_index *ix, struct wfi_env *env);
void wfi_index_fini(struct wfi_index *ix);
/**
 * wfi_index_reserve - room for @nr entries in all, from now on
 * @bound: more will never be needed
 *
 * Context: cold, but for a table that is still being moved, takes no longer than one mapping.
 * Return: 0, -ENOMEM
 */
int wfi_index_reserve(struct wfi_index *ix, uint64_t nr, uint64_t bound);
/* Hot. The tag must not be there, and room must be reserved */
void wfi_index_insert(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot);
/* Hot. Return: true when (tag, slot) was there */
bool wfi_index_remove(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot);
/* the same by looking everywhere, for a slot whose key cannot be trusted any more. Cold */
bool wfi_index_remove_slot(struct wfi_index *ix, uint32_t slot);
/* moves up to @nr buckets of the old table. Return: how many */
uint32_t wfi_index_step(struct wfi_index *ix, uint32_t nr);
uint64_t wfi_index_bytes(const struct wfi_index *ix);

#endif
