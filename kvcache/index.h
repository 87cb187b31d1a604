/* SPDX-License-Identifier: Apache-2.0 */
/**
 * index.h - from keys to slots: a hash table of cache lines, read by any thread, written by one
 *
 * A line has six entries. Keys are hashed to 64 bits with a salt that is drawn for each space and
 * never shown: two keys, of one space or of two, are taken for one with a probability of about
 * 2^-64, whoever chose them. The upper half of the hash says which line a key is at home in; 57
 * bits are in the entry, and the line that it lies in tells the others. So an entry is a strong
 * hint: who goes on to a block's bytes compares the whole key with the block's header.
 *
 * An entry that finds its line full goes on in steps of one to three lines, as the class of its
 * hash says, and each line passed counts it, by class: a look-up ends at the first line that nobody
 * of its class passed. Where entries went to the next line whatever their hash, full lines made
 * those behind them full: once blocks had come and gone for a while, two in five look-ups in vain
 * went on, by three to four lines. Now it is one in four, by two.
 *
 * Growth makes a second table, whose pages come in the background, and moves a few lines with each
 * insert and step, behind the pages as they come. Both tables are in the order of the hash, and
 * what is moved is a prefix of it: a key's hash says which of the two it is in, and the new one is
 * filled from one end to the other.
 *
 * What a reader sees. Threads other than the owner may look up and match while it writes; neither
 * ever waits for the other, and there is nothing to retry:
 *   - a key that is there from before the look-up began until after it ended is found, and one that
 *     is not there in all that time is not (but for the 2^-64). Entries never move within a table,
 *     and what growth copies to the new table stays in the old one, which is not written any more
 *     but for keys that are not moved yet, until the last reader that may look at it has left.
 *   - a key that comes or goes meanwhile may be found or not, and each key of a batch for itself: a
 *     match may see one inserted late and miss one inserted early.
 *   - the slot was the key's at some time during the look-up. It may be another block's by now:
 *     header and checksum decide, as they do for everything that is read without a pin.
 * The hash bits and the slot of an entry change together, in one word of 8 bytes; the 16 bits that
 * lie apart can at worst be those of the entry before or after, which is a miss.
 *
 * Context: owner thread, if nothing else is said.
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
#define INDEX_LINE_ENTRIES 6u

/* all of it read by any thread; written by the owner, with atomic stores */
struct index_line {
	uint64_t word[INDEX_LINE_ENTRIES]; /* bits 16 to 53 of the hash, slot + 1. 0: empty */
	uint16_t low[INDEX_LINE_ENTRIES]; /* bits 0 to 15 */
	/* of each class: entries that wanted to be here or before and are behind, in 4 bits; 15:
	 * that or more, for good. Above: bits 54 to 56 of each entry's hash, which growth alone
	 * needs */
	uint32_t more;
};

WEFT_STATIC_ASSERT(sizeof(struct index_line) == WFI_CACHELINE, "one line a look-up");

struct index_table {
	struct index_line *lines;
	uint32_t nr_lines;
	uint32_t moved; /* keys at home below are in the newer table. Atomic */
	struct index_table *old; /* being moved into this one, or NULL. Atomic */
	/* the owner's */
	uint32_t movable; /* of the old one: there are pages for what is at home below */
	struct wfi_map map;
	struct index_table *next; /* of the retired */
	uint64_t retired; /* epoch from which on nobody comes to look at it */
};

/* a thread that looks up beside the owner. Embedded by its user; one line, since it writes it */
struct index_reader {
	_Alignas(WFI_CACHELINE) uint64_t epoch; /* when it came, 0: it is not looking. Atomic */
	struct index_reader *next;
};

struct wfi_index {
	/* read by all */
	_Alignas(WFI_CACHELINE) struct index_table *table; /* the newest in use. Atomic */
	uint64_t epoch; /* Atomic */
	/* the owner's */
	_Alignas(WFI_CACHELINE) uint64_t nr; /* entries */
	bool busy; /* wfi_index_step() has something to do */
	uint64_t reserved; /* room asked for last */
	uint64_t bound; /* more will never be asked for */
	struct wfi_env *env;
	struct index_table *coming; /* next to be used; its pages are on their way */
	struct index_table *retired;
	struct index_reader *readers;
};

/* of one space; drawn at random */
struct index_salt {
	uint64_t word[2];
};

/* what an index knows of a key */
struct index_tag {
	uint64_t hash;
};

static inline struct index_tag index_tag(const struct index_salt *salt, const struct weft_key *key)
{
	const unsigned __int128 product =
		(unsigned __int128)(key->lo ^ salt->word[0]) * (key->hi ^ salt->word[1]);

	return (struct index_tag){ .hash = (uint64_t)product ^ (uint64_t)(product >> 64) };
}

/* the tables that a look-up goes through: taken once, so that all its keys are seen alike */
struct index_view {
	const struct index_table *table;
	const struct index_table *old; /* NULL: nothing is being moved */
	uint32_t moved;
};

static inline struct index_view wfi_index_view(const struct wfi_index *ix)
{
	struct index_view v;

	/* pairs with the owner's store when a table comes into use; sequential, since the reader's
	 * own epoch must be seen before it, see reader_enter() */
	v.table = __atomic_load_n(&ix->table, __ATOMIC_SEQ_CST);
	v.old = __atomic_load_n(&v.table->old, __ATOMIC_SEQ_CST);
	/* pairs with the store in move_some(): what is below is in the newer table */
	v.moved = v.old ? __atomic_load_n(&v.old->moved, __ATOMIC_ACQUIRE) : 0;
	return v;
}

static inline uint32_t index_home(const struct index_table *t, uint64_t hash)
{
	return (uint32_t)((hash >> 32) * t->nr_lines >> 32);
}

/* the one table that has this key, if there is any */
static inline const struct index_table *index_table_of(const struct index_view *v, uint64_t hash)
{
	if (wfi_unlikely(v->old != NULL) && index_home(v->old, hash) >= v->moved)
		return v->old;
	return v->table;
}

/* inlined by force: gcc takes a function that only prefetches for one without effect */
static inline __attribute__((always_inline)) void wfi_index_prefetch(const struct wfi_index *ix,
								     const struct index_tag *tag)
{
	const struct index_view v = wfi_index_view(ix);
	const struct index_table *t = index_table_of(&v, tag->hash);

	__builtin_prefetch(&t->lines[index_home(t, tag->hash)], 1);
}

/* ---- looking up (index_find.c). Hot ---- */

/* Return: slot or INDEX_SLOT_NONE */
uint32_t wfi_index_find(const struct wfi_index *ix, const struct index_tag *tag);
/* each key by itself. @slots: of each, or INDEX_SLOT_NONE. Return: how many there are */
uint32_t wfi_index_lookup(const struct wfi_index *ix, const struct index_salt *salt,
			  const struct weft_key *keys, uint32_t nr, uint32_t *slots);
/**
 * wfi_index_match - the longest prefix of @keys that is there
 * @slots: NULL, or of each key of the prefix; what is written behind that is nothing
 *
 * Return: its length
 */
uint32_t wfi_index_match(const struct wfi_index *ix, const struct index_salt *salt,
			 const struct weft_key *keys, uint32_t nr, uint32_t *slots);

/*
 * For any other thread: whatever it does between the two, with the three functions above, it does
 * by the rules at the top of this file. The owner never waits for it; it holds back the memory of
 * a table that was grown out of, so it doesn't stay. Hot
 */
static inline void wfi_index_reader_enter(const struct wfi_index *ix, struct index_reader *r)
{
	/* pairs with the owner's increment in retire(). The exchange is ordered before the loads of
	 * wfi_index_view(): either the owner sees this epoch, or those loads see its table */
	__atomic_exchange_n(&r->epoch, __atomic_load_n(&ix->epoch, __ATOMIC_ACQUIRE),
			    __ATOMIC_SEQ_CST);
}

static inline void wfi_index_reader_leave(struct index_reader *r)
{
	/* pairs with the load in reclaim(): all reads of the tables are done */
	__atomic_store_n(&r->epoch, 0, __ATOMIC_RELEASE);
}

/* before the thread begins, after it has ended. Context: owner thread */
void wfi_index_reader_add(struct wfi_index *ix, struct index_reader *r);
void wfi_index_reader_del(struct wfi_index *ix, struct index_reader *r);

/* ---- the owner's side (index.c) ---- */

/* with room for @nr entries at once. Return: 0, -ENOMEM */
int wfi_index_init(struct wfi_index *ix, struct wfi_env *env, uint64_t nr);
void wfi_index_fini(struct wfi_index *ix);
/**
 * wfi_index_reserve - room for @nr entries in all, from now on
 * @bound: more will never be needed
 *
 * Context: cold. Waits for nothing, but when more is asked for at once than the newest table
 * holds: then what is being moved is finished first, and the next one mapped.
 * Return: 0; -ENOMEM. When memory for a table that was begun ahead turns out not to be there, it is
 * tried again with the next call, and inserts may find no room meanwhile
 */
int wfi_index_reserve(struct wfi_index *ix, uint64_t nr, uint64_t bound);
/**
 * wfi_index_insert - the tag must not be there, and room must be reserved. Hot
 *
 * Return: 0; -ENOSPC no room within reach of its home, which hashes of keys don't bring about
 * where there is memory
 */
int wfi_index_insert(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot);
/* Hot. Return: true when (tag, slot) was there */
bool wfi_index_remove(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot);
/* the same by looking everywhere, for a slot whose key cannot be trusted any more. Cold */
bool wfi_index_remove_slot(struct wfi_index *ix, uint32_t slot);
/* goes on with growing, by up to @nr lines. Return: work done */
uint32_t wfi_index_step(struct wfi_index *ix, uint32_t nr);
uint64_t wfi_index_bytes(const struct wfi_index *ix);

#endif
