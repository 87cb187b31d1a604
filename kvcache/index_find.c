/* SPDX-License-Identifier: Apache-2.0 */
/* index_find.c - looking up: by the owner, or by any thread between enter and leave */
#include "kvcache/index_line.h"

#define AHEAD 32u /* lines called for before they are looked at: more than a core has buffers for */
#define FAR 32u

uint32_t wfi_index_find(const struct wfi_index *ix, const struct index_tag *tag)
{
	const struct index_view v = wfi_index_view(ix);
	const struct index_table *t = index_table_of(&v, tag->hash);
	uint32_t l = index_home(t, tag->hash), slot;
	unsigned at;

	slot = index_line_find(&t->lines[l], tag->hash, &at);
	return slot != INDEX_SLOT_NONE ? slot : index_find_behind(t, &l, tag->hash, &at);
}

/* keys that are not at home, and may be behind: looked for when those lines had time to come */
struct far {
	uint64_t hash[FAR];
	uint32_t idx[FAR];
	uint32_t nr;
};

struct walk {
	struct index_view view;
	const struct index_salt *salt;
	const struct weft_key *keys;
	uint32_t *slots; /* may be NULL */
	uint64_t hash[AHEAD];
	const struct index_line *home[AHEAD];
	struct far far;
};

/* @moving, here and below: a constant, so that the common case is compiled without the other */
static inline __attribute__((always_inline)) const struct index_table *
table_of(const struct walk *w, uint64_t hash, bool moving)
{
	return moving ? index_table_of(&w->view, hash) : w->view.table;
}

static inline __attribute__((always_inline)) void call(struct walk *w, uint32_t i, bool moving)
{
	const uint64_t hash = index_tag(w->salt, &w->keys[i]).hash;
	const struct index_table *t = table_of(w, hash, moving);

	w->hash[i % AHEAD] = hash;
	w->home[i % AHEAD] = &t->lines[index_home(t, hash)];
	__builtin_prefetch(w->home[i % AHEAD]);
}

static inline __attribute__((always_inline)) void far_add(struct walk *w, uint32_t i, uint64_t hash,
							  bool moving)
{
	const struct index_table *t = table_of(w, hash, moving);

	__builtin_prefetch(&t->lines[index_next(t, index_home(t, hash), index_class(hash))]);
	w->far.hash[w->far.nr] = hash;
	w->far.idx[w->far.nr++] = i;
}

/* Return: the first key that is not there, or @nr; all are looked for if @each */
static uint32_t far_settle(struct walk *w, uint32_t nr, bool each)
{
	uint32_t slot, first = nr;

	for (uint32_t n = 0; n < w->far.nr && (each || first == nr); n++) {
		const uint64_t hash = w->far.hash[n];
		const struct index_table *t = index_table_of(&w->view, hash);
		uint32_t l = index_home(t, hash);
		unsigned at;

		slot = index_find_behind(t, &l, hash, &at);
		if (w->slots)
			w->slots[w->far.idx[n]] = slot;
		if (slot == INDEX_SLOT_NONE)
			first = (uint32_t)wfi_min(first, w->far.idx[n]);
	}
	w->far.nr = 0;
	return first;
}

/*
 * Lines are called for AHEAD keys before they are looked at, and those behind them as soon as they
 * are missed, so that loads are always under way.
 */
static inline __attribute__((always_inline)) uint32_t walk(struct walk *w, uint32_t nr, bool moving,
							   bool each)
{
	/* a match often ends at once: it goes ahead by two for one until it is as far ahead */
	const uint32_t start = each ? AHEAD : AHEAD / 2;
	uint32_t called, slot, i, n, first;
	unsigned at;

	for (called = 0; called < nr && called < start; called++)
		call(w, called, moving);
	for (i = 0; i < nr; i++) {
		const struct index_line *home = w->home[i % AHEAD];
		const uint64_t hash = w->hash[i % AHEAD];

		for (n = 0; n < 2 && called < nr && called <= i + AHEAD; n++)
			call(w, called++, moving);
		slot = index_line_find(home, hash, &at);
		if (w->slots)
			w->slots[i] = slot;
		if (wfi_likely(slot != INDEX_SLOT_NONE))
			continue;
		if (index_passed(home, index_class(hash))) {
			far_add(w, i, hash, moving);
			if (w->far.nr < FAR)
				continue;
			first = far_settle(w, nr, each);
			if (each || first == nr)
				continue;
			return first;
		}
		if (!each)
			break;
	}
	return far_settle(w, i, each);
}

static inline void walk_init(struct walk *w, const struct wfi_index *ix,
			     const struct index_salt *salt, const struct weft_key *keys,
			     uint32_t *slots)
{
	w->view = wfi_index_view(ix);
	w->salt = salt;
	w->keys = keys;
	w->slots = slots;
	w->far.nr = 0;
}

uint32_t wfi_index_lookup(const struct wfi_index *ix, const struct index_salt *salt,
			  const struct weft_key *keys, uint32_t nr, uint32_t *slots)
{
	struct walk w;
	uint32_t found = 0;

	walk_init(&w, ix, salt, keys, slots);
	if (wfi_unlikely(w.view.old != NULL))
		walk(&w, nr, true, true);
	else
		walk(&w, nr, false, true);
	for (uint32_t i = 0; i < nr; i++)
		found += slots[i] != INDEX_SLOT_NONE;
	return found;
}

uint32_t wfi_index_match(const struct wfi_index *ix, const struct index_salt *salt,
			 const struct weft_key *keys, uint32_t nr, uint32_t *slots)
{
	struct walk w;

	walk_init(&w, ix, salt, keys, slots);
	if (wfi_unlikely(w.view.old != NULL))
		return walk(&w, nr, true, false);
	if (slots)
		return walk(&w, nr, false, false);
	w.slots = NULL;
	return walk(&w, nr, false, false);
}
