/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include "kvcache/index.h"

#define SLOT_MASK ((1u << INDEX_SLOT_BITS) - 1)
#define PASSED_ONE (1u << INDEX_SLOT_BITS)
#define PASSED_MAX (UINT32_MAX >> INDEX_SLOT_BITS)
#define MIN_BUCKETS 64u
#define STEP_BUCKETS 8u /* moved with each insert: a table is empty long before the next is full */

/* entries that a table takes: 70 % of all, so that 13 % at most live outside of their bucket */
static uint64_t capacity(uint64_t nr_buckets)
{
	return nr_buckets * INDEX_BUCKET_ENTRIES * 7 / 10;
}

static uint64_t buckets_for(uint64_t nr)
{
	return wfi_max(MIN_BUCKETS,
		       (nr * 10 + 7 * INDEX_BUCKET_ENTRIES - 1) / (7 * INDEX_BUCKET_ENTRIES));
}

static inline uint32_t next_bucket(const struct index_table *t, uint32_t b)
{
	return b + 1 == t->nr_buckets ? 0 : b + 1;
}

static inline uint32_t *passed_word(struct index_table *t, uint32_t b)
{
	return &t->buckets[b].entry[0].ref;
}

static inline bool was_passed(const struct index_table *t, uint32_t b)
{
	return t->buckets[b].entry[0].ref >> INDEX_SLOT_BITS;
}

/* a count that is full stays so: look-ups then go on for longer than they need */
static inline void passed_add(uint32_t *word)
{
	if (*word >> INDEX_SLOT_BITS < PASSED_MAX)
		*word += PASSED_ONE;
}

static inline void passed_del(uint32_t *word)
{
	if (*word >> INDEX_SLOT_BITS < PASSED_MAX)
		*word -= PASSED_ONE;
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

/* the entry of @tag and its bucket in @b; bounded by the passed counts */
static struct index_entry *table_find(const struct index_table *t, const struct index_tag *tag,
				      uint32_t *b)
{
	uint32_t at = index_home(t, tag->lo);

	for (uint32_t n = 0; n < t->nr_buckets; n++) {
		struct index_bucket *bucket = &t->buckets[at];

		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			struct index_entry *e = &bucket->entry[i];

			if (e->lo == tag->lo && e->hi == tag->hi && e->ref & SLOT_MASK) {
				*b = at;
				return e;
			}
		}
		if (!was_passed(t, at))
			return NULL;
		at = next_bucket(t, at);
	}
	return NULL;
}

uint32_t wfi_index_find_far(const struct wfi_index *ix, const struct index_tag *tag)
{
	const struct index_entry *e;
	uint32_t b;

	e = table_find(&ix->table, tag, &b);
	if (!e && ix->old.nr_buckets)
		e = table_find(&ix->old, tag, &b);
	return e ? (e->ref & SLOT_MASK) - 1 : INDEX_SLOT_NONE;
}

static void table_insert(struct index_table *t, const struct index_tag *tag, uint32_t ref)
{
	uint32_t b = index_home(t, tag->lo);

	for (;; b = next_bucket(t, b)) {
		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			struct index_entry *e = &t->buckets[b].entry[i];

			if (e->ref & SLOT_MASK)
				continue;
			e->lo = tag->lo;
			e->hi = tag->hi;
			e->ref |= ref;
			return;
		}
		passed_add(passed_word(t, b));
	}
}

static void table_clear(struct index_table *t, struct index_entry *e, uint32_t b)
{
	uint32_t at = index_home(t, e->lo);

	for (; at != b; at = next_bucket(t, at))
		passed_del(passed_word(t, at));
	e->lo = 0;
	e->hi = 0;
	e->ref &= ~SLOT_MASK;
}

static void move_bucket(struct wfi_index *ix, uint32_t b)
{
	for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
		struct index_entry *e = &ix->old.buckets[b].entry[i];
		const struct index_tag tag = { .lo = e->lo, .hi = e->hi };

		if (!(e->ref & SLOT_MASK))
			continue;
		table_insert(&ix->table, &tag, e->ref & SLOT_MASK);
		table_clear(&ix->old, e, b);
	}
}

uint32_t wfi_index_step(struct wfi_index *ix, uint32_t nr)
{
	uint32_t n;

	if (!ix->old.nr_buckets)
		return 0;
	for (n = 0; n < nr && ix->moved < ix->old.nr_buckets; n++) {
		/* the order of both tables is that of the hash: this runs ahead in both */
		__builtin_prefetch(&ix->old.buckets[ix->moved] + 8);
		move_bucket(ix, ix->moved++);
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
	/* twice as much as asked, so that the next time is far away */
	ret = table_map(ix->env, &bigger, buckets_for(wfi_max(nr, wfi_min(2 * nr, bound))));
	if (ret)
		return ret;
	wfi_index_step(ix, UINT32_MAX);
	ix->old = ix->table;
	ix->table = bigger;
	ix->moved = 0;
	return 0;
}

void wfi_index_insert(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot)
{
	assert(slot <= INDEX_SLOT_MAX);
	assert(ix->nr < capacity(ix->table.nr_buckets));
	table_insert(&ix->table, tag, slot + 1);
	ix->nr++;
	if (wfi_unlikely(ix->old.nr_buckets))
		wfi_index_step(ix, STEP_BUCKETS);
}

bool wfi_index_remove(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot)
{
	struct index_table *t = &ix->table;
	struct index_entry *e;
	uint32_t b;

	e = table_find(t, tag, &b);
	if (!e && ix->old.nr_buckets) {
		t = &ix->old;
		e = table_find(t, tag, &b);
	}
	if (!e || (e->ref & SLOT_MASK) != slot + 1)
		return false;
	table_clear(t, e, b);
	ix->nr--;
	return true;
}

static bool table_remove_slot(struct index_table *t, uint32_t slot)
{
	for (uint32_t b = 0; b < t->nr_buckets; b++) {
		for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
			struct index_entry *e = &t->buckets[b].entry[i];

			if ((e->ref & SLOT_MASK) == slot + 1) {
				table_clear(t, e, b);
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
