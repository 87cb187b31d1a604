/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include "kvcache/index.h"

#define SLOT_MASK ((1u << INDEX_SLOT_BITS) - 1)
#define MIN_BUCKETS 64u
#define STEP_BUCKETS 8u /* moved with each insert: a table is empty long before the next is full */

/* entries that a table takes: 82 % of all. One in six then lives outside of its bucket */
#define LOAD_NUM 82u
#define LOAD_DEN 100u

static uint64_t capacity(uint64_t nr_buckets)
{
	return nr_buckets * INDEX_BUCKET_ENTRIES * LOAD_NUM / LOAD_DEN;
}

static uint64_t buckets_for(uint64_t nr)
{
	const uint64_t per = INDEX_BUCKET_ENTRIES * LOAD_NUM;

	return wfi_max(MIN_BUCKETS, (nr * LOAD_DEN + per - 1) / per);
}

static inline uint32_t next_bucket(const struct index_table *t, uint32_t b)
{
	return b + 1 == t->nr_buckets ? 0 : b + 1;
}

static int table_map(struct wfi_env *env, struct index_table *t, uint64_t nr_buckets)
{
	int ret;

	if (nr_buckets > UINT32_MAX)
		return -ENOMEM;
	ret = env->mem->map(env, nr_buckets * sizeof(struct index_bucket), WFI_MAP_HUGE, &t->map);
	if (ret)
		return ret;
	t->buckets = t->map.addr;
	t->nr_buckets = (uint32_t)nr_buckets;
	return 0;
}

static void table_unmap(struct wfi_env *env, struct index_table *t)
{
	if (t->nr_buckets)
		env->mem->unmap(env, &t->map);
	t->buckets = NULL;
	t->nr_buckets = 0;
}

int wfi_index_init(struct wfi_index *ix, struct wfi_env *env)
{
	*ix = (struct wfi_index){ .env = env };
	return table_map(env, &ix->table, MIN_BUCKETS);
}

void wfi_index_fini(struct wfi_index *ix)
{
	table_unmap(ix->env, &ix->old);
	table_unmap(ix->env, &ix->table);
}

static inline bool holds(const struct index_bucket *b, unsigned i, const struct index_tag *tag)
{
	const uint32_t ref = b->ref[i];

	return b->lo[i] == tag->lo && (ref & ~SLOT_MASK) == tag->hi && ref & SLOT_MASK;
}

/* Return: the entry of @tag, and its bucket in @at; or NULL. Bounded by the passed counts */
static uint32_t *table_find(const struct index_table *t, const struct index_tag *tag, uint32_t *at)
{
	uint32_t b = index_home(t, tag->lo);

	for (uint32_t n = 0; n < t->nr_buckets; n++) {
		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			if (holds(&t->buckets[b], i, tag)) {
				*at = b;
				return &t->buckets[b].ref[i];
			}
		}
		if (!t->buckets[b].passed)
			return NULL;
		b = next_bucket(t, b);
	}
	return NULL;
}

uint32_t wfi_index_find(const struct wfi_index *ix, const struct index_tag *tag)
{
	const uint32_t *ref;
	uint32_t b;

	ref = table_find(index_table_of(ix, tag->lo), tag, &b);
	return ref ? (*ref & SLOT_MASK) - 1 : INDEX_SLOT_NONE;
}

void wfi_index_begin(const struct wfi_index *ix, const struct index_salt *salt,
		     const struct weft_key *keys, uint32_t nr, struct index_tag *tags)
{
	for (uint32_t i = 0; i < nr; i++) {
		tags[i] = index_tag(salt, &keys[i]);
		wfi_index_prefetch(ix, &tags[i]);
	}
}

/* Return: slot, or INDEX_SLOT_NONE when not in its home. Which entry it is cannot be foreseen: no
 * branch depends on it */
static inline uint32_t find_home(const struct index_table *t, const struct index_tag *tag)
{
	const struct index_bucket *b = &t->buckets[index_home(t, tag->lo)];
	uint32_t ref = 0;

	for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++)
		ref |= b->ref[i] &
		       -(uint32_t)((b->lo[i] == tag->lo) & ((b->ref[i] & ~SLOT_MASK) == tag->hi));
	return (ref & SLOT_MASK) - 1;
}

/* calls for the second buckets of keys that are not at home */
static inline void call_far(const struct wfi_index *ix, const struct index_tag *tags, uint32_t far)
{
	for (; far; far &= far - 1) {
		const uint64_t lo = tags[__builtin_ctz(far)].lo;
		const struct index_table *t = index_table_of(ix, lo);

		__builtin_prefetch(&t->buckets[next_bucket(t, index_home(t, lo))]);
	}
}

uint32_t wfi_index_find_batch(const struct wfi_index *ix, const struct index_tag *tags, uint32_t nr,
			      uint32_t *slots)
{
	uint32_t far = 0, found = nr;

	for (uint32_t i = 0; i < nr; i++) {
		slots[i] = find_home(index_table_of(ix, tags[i].lo), &tags[i]);
		far |= (uint32_t)(slots[i] == INDEX_SLOT_NONE) << i;
	}
	call_far(ix, tags, far);
	for (; far; far &= far - 1) {
		const unsigned i = (unsigned)__builtin_ctz(far);

		slots[i] = wfi_index_find(ix, &tags[i]);
		found -= slots[i] == INDEX_SLOT_NONE;
	}
	return found;
}

/* looks at one batch and calls for the next. Return: which of the first are not at home */
static inline uint32_t home_batch(const struct wfi_index *ix, const struct index_salt *salt,
				  const struct index_tag *tags, uint32_t nr,
				  const struct weft_key *next_keys, uint32_t nr_next,
				  struct index_tag *next)
{
	uint32_t far = 0, slot;

	for (uint32_t i = 0; i < INDEX_BATCH && i < nr; i++) {
		if (i < nr_next) {
			next[i] = index_tag(salt, &next_keys[i]);
			wfi_index_prefetch(ix, &next[i]);
		}
		slot = find_home(index_table_of(ix, tags[i].lo), &tags[i]);
		far |= (uint32_t)(slot == INDEX_SLOT_NONE) << i;
	}
	return far;
}

/*
 * Three batches are under way at a time, each some work ahead of the next, so that no load waits:
 * buckets of one are called for while those of the one before are looked at, and what was not at
 * home in the one before that is looked for further on.
 */
uint32_t wfi_index_match(const struct wfi_index *ix, const struct index_salt *salt,
			 const struct weft_key *keys, uint32_t nr)
{
	struct index_tag tags[3][INDEX_BATCH];
	uint32_t far = 0, before, first, n;
	unsigned turn = 0;

	n = nr < INDEX_BATCH ? nr : INDEX_BATCH;
	wfi_index_begin(ix, salt, keys, n, tags[0]);
	for (first = 0; first < nr + INDEX_BATCH; first += INDEX_BATCH) {
		struct index_tag *now = tags[turn], *last = tags[(turn + 2) % 3];
		const uint32_t nr_now = first < nr ? nr - first : 0;
		const uint32_t nr_next = nr_now > INDEX_BATCH ? nr_now - INDEX_BATCH : 0;

		before = far;
		far = home_batch(ix, salt, now, nr_now, keys + first + INDEX_BATCH, nr_next,
				 tags[(turn + 1) % 3]);
		call_far(ix, now, far);
		for (; before; before &= before - 1) {
			const unsigned i = (unsigned)__builtin_ctz(before);

			if (wfi_index_find(ix, &last[i]) == INDEX_SLOT_NONE)
				return first - INDEX_BATCH + i;
		}
		turn = (turn + 1) % 3;
	}
	return nr;
}

static void table_insert(struct index_table *t, const struct index_tag *tag, uint32_t ref)
{
	uint32_t at = index_home(t, tag->lo);

	for (;; at = next_bucket(t, at)) {
		struct index_bucket *b = &t->buckets[at];

		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			if (b->ref[i])
				continue;
			b->lo[i] = tag->lo;
			b->ref[i] = tag->hi | ref;
			return;
		}
		b->passed++;
	}
}

/* entry @i of bucket @b goes */
static void table_clear(struct index_table *t, uint32_t b, unsigned i)
{
	uint32_t at = index_home(t, t->buckets[b].lo[i]);

	for (; at != b; at = next_bucket(t, at))
		t->buckets[at].passed--;
	t->buckets[b].lo[i] = 0;
	t->buckets[b].ref[i] = 0;
}

/* all keys at home in bucket @home of the old table, wherever they ended up */
static void move_home(struct wfi_index *ix, uint32_t home)
{
	struct index_table *old = &ix->old;
	uint32_t b = home;
	bool more = true;

	for (uint32_t n = 0; more && n < old->nr_buckets; n++) {
		/* read first: the count goes down with what is moved */
		more = old->buckets[b].passed;
		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			const uint32_t ref = old->buckets[b].ref[i];
			const struct index_tag tag = {
				.lo = old->buckets[b].lo[i],
				.hi = ref & ~SLOT_MASK,
			};

			if (!ref || index_home(old, tag.lo) != home)
				continue;
			table_insert(&ix->table, &tag, ref & SLOT_MASK);
			table_clear(old, b, i);
		}
		b = next_bucket(old, b);
	}
}

uint32_t wfi_index_step(struct wfi_index *ix, uint32_t nr)
{
	uint32_t n;

	if (!ix->old.nr_buckets)
		return 0;
	for (n = 0; n < nr && ix->moved < ix->old.nr_buckets; n++) {
		__builtin_prefetch(&ix->old.buckets[ix->moved] + STEP_BUCKETS);
		move_home(ix, ix->moved);
		ix->moved++;
	}
	if (ix->moved == ix->old.nr_buckets)
		table_unmap(ix->env, &ix->old);
	return n;
}

int wfi_index_reserve(struct wfi_index *ix, uint64_t nr, uint64_t bound)
{
	struct index_table bigger = { 0 };
	int ret;

	if (nr <= capacity(ix->table.nr_buckets))
		return 0;
	/* twice as much as asked, so that the next time is far away, and moving over long before */
	ret = table_map(ix->env, &bigger, buckets_for(wfi_max(nr, wfi_min(2 * nr, bound))));
	if (ret)
		return ret;
	wfi_index_step(ix, UINT32_MAX);
	ix->old = ix->table;
	ix->table = bigger;
	ix->moved = 0;
	return 0;
}

static struct index_table *table_of(struct wfi_index *ix, uint64_t lo)
{
	return index_table_of(ix, lo) == &ix->old ? &ix->old : &ix->table;
}

void wfi_index_insert(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot)
{
	assert(slot <= INDEX_SLOT_MAX);
	assert(ix->nr < capacity(ix->table.nr_buckets));
	table_insert(table_of(ix, tag->lo), tag, slot + 1);
	ix->nr++;
	if (wfi_unlikely(ix->old.nr_buckets))
		wfi_index_step(ix, STEP_BUCKETS);
}

bool wfi_index_remove(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot)
{
	struct index_table *t = table_of(ix, tag->lo);
	uint32_t *ref, b;

	ref = table_find(t, tag, &b);
	if (!ref || (*ref & SLOT_MASK) != slot + 1)
		return false;
	table_clear(t, b, (unsigned)(ref - t->buckets[b].ref));
	ix->nr--;
	return true;
}

static bool table_remove_slot(struct index_table *t, uint32_t slot)
{
	for (uint32_t b = 0; b < t->nr_buckets; b++) {
		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			if ((t->buckets[b].ref[i] & SLOT_MASK) == slot + 1) {
				table_clear(t, b, i);
				return true;
			}
		}
	}
	return false;
}

bool wfi_index_remove_slot(struct wfi_index *ix, uint32_t slot)
{
	if (!table_remove_slot(&ix->table, slot) && !table_remove_slot(&ix->old, slot))
		return false;
	ix->nr--;
	return true;
}

uint64_t wfi_index_bytes(const struct wfi_index *ix)
{
	return ((uint64_t)ix->table.nr_buckets + ix->old.nr_buckets) * sizeof(struct index_bucket);
}
