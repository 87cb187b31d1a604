/* SPDX-License-Identifier: Apache-2.0 */
/* index.c - the owner's side: inserting, removing, growing */
#include <assert.h>
#include <errno.h>
#include "kvcache/index_line.h"

/* just under a huge page, on small ones: what fits never grows */
#define MIN_LINES 32767u
#define STEP_LINES 2u /* moved with each insert: a table is empty long before the next is full */

/*
 * Entries that a table is made for, a line: 16 bytes each. One in twenty lives outside of its home
 * when it has just been filled, one in five when blocks have come and gone. While the next table
 * comes it takes half an entry more; and another half while that is moved into, so that the lines
 * moved last have five of six entries taken.
 */
#define LOAD 4u

/* of .more: the three bits of entry @i */
#define MORE_SHIFT(i) (INDEX_CLASSES * INDEX_PASSED_BITS + 3 * (i))

static uint64_t capacity(const struct index_table *t)
{
	return (uint64_t)t->nr_lines * LOAD;
}

static uint64_t hard_capacity(const struct index_table *t)
{
	return (uint64_t)t->nr_lines * LOAD + t->nr_lines / 2;
}

/* @now: not in the background. Else .lines are not known before wfi_index_step() finds them */
static int table_create(struct wfi_env *env, uint64_t nr, bool now, struct index_table **out)
{
	const uint64_t nr_lines = wfi_max(MIN_LINES, (nr + LOAD - 1) / LOAD);
	const uint64_t bytes = nr_lines * sizeof(struct index_line);
	struct index_table *t;
	int ret = 0;

	if (nr_lines > UINT32_MAX)
		return -ENOMEM;
	t = wfi_alloc(env, sizeof(*t));
	if (!t)
		return -ENOMEM;
	if (now)
		ret = env->mem->map(env, bytes, WFI_MAP_HUGE, &t->map);
	else
		env->mem->map_begin(env, bytes, WFI_MAP_HUGE, &t->map);
	if (ret) {
		wfi_free(env, t, sizeof(*t));
		return ret;
	}
	if (now)
		env->mem->populate(env, &t->map, 0, t->map.len);
	t->lines = t->map.addr;
	t->nr_lines = (uint32_t)nr_lines;
	*out = t;
	return 0;
}

static void table_destroy(struct wfi_env *env, struct index_table *t)
{
	if (!t)
		return;
	env->mem->unmap_begin(env, &t->map);
	wfi_free(env, t, sizeof(*t));
}

int wfi_index_init(struct wfi_index *ix, struct wfi_env *env, uint64_t nr)
{
	*ix = (struct wfi_index){ .env = env, .epoch = 1 };
	return table_create(env, nr, true, &ix->table);
}

void wfi_index_fini(struct wfi_index *ix)
{
	if (!ix->table)
		return;
	table_destroy(ix->env, ix->table->old);
	table_destroy(ix->env, ix->table);
	table_destroy(ix->env, ix->coming);
	while (ix->retired) {
		struct index_table *t = ix->retired;

		ix->retired = t->next;
		table_destroy(ix->env, t);
	}
	ix->table = NULL;
}

/* ---- entries ---- */

/* relaxed: see index_load() */
static inline void store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void store_more(struct index_line *line, uint32_t more)
{
	__atomic_store_n(&line->more, more, __ATOMIC_RELAXED);
}

static void entry_set(struct index_line *line, unsigned i, uint64_t hash, uint32_t slot)
{
	const uint32_t high = (uint32_t)(hash >> 54) & 7;

	__atomic_store_n(&line->low[i], (uint16_t)hash, __ATOMIC_RELAXED);
	store_more(line, (line->more & ~(7u << MORE_SHIFT(i))) | high << MORE_SHIFT(i));
	store(&line->word[i], index_word(hash) + slot + 1);
}

/* an entry of this class goes by, or comes back: counted unless it is too many to count */
static void passed_change(struct index_table *t, uint32_t from, uint32_t to, uint32_t class,
			  uint32_t change)
{
	for (uint32_t l = from; l != to; l = index_next(t, l, class)) {
		struct index_line *line = &t->lines[l];

		if (index_passed(line, class) != INDEX_PASSED_MAX)
			store_more(line, line->more + (change << class * INDEX_PASSED_BITS));
	}
}

static int table_insert(struct index_table *t, uint64_t hash, uint32_t slot)
{
	const uint32_t home = index_home(t, hash), class = index_class(hash);
	const uint32_t reach = index_reach(t);
	uint32_t l = home;

	for (uint32_t n = 0; n <= reach; n++, l = index_next(t, l, class)) {
		const unsigned empty = index_line_empty(&t->lines[l]);

		if (!empty)
			continue;
		passed_change(t, home, l, class, 1);
		entry_set(&t->lines[l], (unsigned)__builtin_ctz(empty), hash, slot);
		return 0;
	}
	return -ENOSPC;
}

static void table_clear(struct index_table *t, uint64_t hash, uint32_t l, unsigned i)
{
	store(&t->lines[l].word[i], 0);
	passed_change(t, index_home(t, hash), l, index_class(hash), UINT32_MAX);
}

static struct index_table *owner_table(struct wfi_index *ix, uint64_t hash)
{
	struct index_table *old = ix->table->old;

	return wfi_unlikely(old != NULL) && index_home(old, hash) >= old->moved ? old : ix->table;
}

/* ---- what an entry and its line tell of its hash ---- */

/* the lowest upper half that is at home in line @home */
static uint64_t lowest(const struct index_table *t, uint32_t home)
{
	return (((uint64_t)home << 32) + t->nr_lines - 1) / t->nr_lines;
}

/*
 * Return: true when entry @i is at home in the line whose lowest hash is @low, and that hash. Its
 * stored bits say all but the upper 7 of the upper half, and a table's reach is less than what
 * these tell apart
 */
static bool entry_hash(const struct index_table *t, const struct index_line *line, unsigned i,
		       uint32_t home, uint64_t low, uint64_t *hash)
{
	const uint64_t bits = (uint64_t)(line->more >> MORE_SHIFT(i) & 7) << 22 |
			      line->word[i] >> 42;
	const uint64_t span = 1ull << 25;
	uint64_t upper = (low & ~(span - 1)) | bits;

	if (upper < low)
		upper += span;
	*hash = upper << 32 | (line->word[i] >> 26 & 0xffff) << 16 | line->low[i];
	return upper >> 32 == 0 && upper * t->nr_lines >> 32 == home;
}

/* ---- growing ---- */

/* what is at home in line @home of the old table and lies in line @l. Return: how many of them
 * found no place */
static uint32_t move_line(struct index_table *t, const struct index_table *old, uint32_t home,
			  uint64_t low, uint32_t l, uint32_t classes)
{
	const struct index_line *line = &old->lines[l];
	uint32_t lost = 0;
	uint64_t hash;

	for (unsigned i = 0; i < INDEX_LINE_ENTRIES; i++) {
		const uint32_t ref = (uint32_t)(line->word[i] & INDEX_SLOT_MASK);

		if (ref && classes >> index_class(line->low[i]) & 1 &&
		    entry_hash(old, line, i, home, low, &hash))
			lost += table_insert(t, hash, ref - 1) != 0;
	}
	return lost;
}

/* all keys at home in line @home of the old table, wherever they ended up. Return: how many found
 * no place, which takes as many equal hashes as nothing but a test makes */
static uint32_t move_home(struct index_table *t, const struct index_table *old, uint32_t home)
{
	const uint64_t low = lowest(old, home);
	uint32_t lost, l;

	lost = move_line(t, old, home, low, home, (1u << INDEX_CLASSES) - 1);
	for (uint32_t class = 0; class < INDEX_CLASSES; class ++) {
		l = home;
		for (uint32_t n = index_reach(old); n; n--) {
			if (!index_passed(&old->lines[l], class))
				break;
			l = index_next(old, l, class);
			lost += move_line(t, old, home, low, l, 1u << class);
		}
	}
	return lost;
}

/* how far moving can go without waiting for pages; to the end, where waiting is all that is left */
static void look_ahead(struct wfi_index *ix)
{
	struct index_table *t = ix->table, *old = t->old;
	const uint64_t lines = ix->env->mem->populated(ix->env, &t->map) / sizeof(*t->lines);

	if (lines >= t->nr_lines || ix->nr >= hard_capacity(old))
		old->movable = old->nr_lines;
	else
		old->movable = (uint32_t)(lines * old->nr_lines / t->nr_lines);
}

static uint32_t move_some(struct wfi_index *ix, uint32_t nr)
{
	struct index_table *old = ix->table->old;
	uint32_t moved = old->moved, n;

	if (wfi_unlikely(moved >= old->movable))
		look_ahead(ix);
	for (n = 0; n < nr && moved < old->movable; n++) {
		__builtin_prefetch(&old->lines[moved] + STEP_LINES);
		ix->nr -= move_home(ix->table, old, moved++);
		/* pairs with the load in wfi_index_view(): who sees the count sees the entries */
		__atomic_store_n(&old->moved, moved, __ATOMIC_RELEASE);
	}
	return n;
}

/* nobody that comes from now on finds @t */
static void retire(struct wfi_index *ix, struct index_table *t)
{
	/* pairs with the load in wfi_index_reader_enter(): who has this epoch has seen @t gone */
	t->retired = __atomic_add_fetch(&ix->epoch, 1, __ATOMIC_SEQ_CST);
	t->next = ix->retired;
	ix->retired = t;
}

static uint64_t oldest_reader(const struct wfi_index *ix)
{
	uint64_t oldest = UINT64_MAX, epoch;

	for (const struct index_reader *r = ix->readers; r; r = r->next) {
		/* acquire: pairs with wfi_index_reader_leave(). Sequential: see
		 * wfi_index_reader_enter() */
		epoch = __atomic_load_n(&r->epoch, __ATOMIC_SEQ_CST);
		if (epoch)
			oldest = wfi_min(oldest, epoch);
	}
	return oldest;
}

/* tables that no reader can look at any more go. Return: work done */
static uint32_t reclaim(struct wfi_index *ix)
{
	const uint64_t oldest = oldest_reader(ix);
	struct index_table **at = &ix->retired, *t;
	uint32_t work = 0;

	while ((t = *at)) {
		if (t->retired > oldest) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		table_destroy(ix->env, t);
		work++;
	}
	return work;
}

/* a larger table is asked for; its pages come while the one in use goes on. Return: 0, -ENOMEM */
static int begin(struct wfi_index *ix, bool now)
{
	/* twice as much as asked, so that the next time is far away, and moving over long before;
	 * all that there may be, rather than most of it and once more */
	uint64_t nr = 2 * ix->reserved;
	int ret;

	if (nr >= ix->bound - ix->bound / 4)
		nr = wfi_max(ix->reserved, ix->bound);
	ret = table_create(ix->env, nr, now, &ix->coming);
	ix->busy = !ret || ix->busy;
	return ret;
}

/* the next table is under way while there still is room in this one. If there is no memory for
 * it, this one goes as far as it can */
static void begin_early(struct wfi_index *ix)
{
	const uint64_t nr = capacity(ix->table);

	if (ix->coming || ix->table->old || nr >= ix->bound || ix->reserved <= nr - nr / 8)
		return;
	(void)!begin(ix, false);
}

static void use_coming(struct wfi_index *ix)
{
	struct index_table *t = ix->coming;

	t->old = ix->table;
	ix->coming = NULL;
	/* pairs with the load in wfi_index_view() */
	__atomic_store_n(&ix->table, t, __ATOMIC_SEQ_CST);
}

/* as soon as it is mapped; without waiting for that as long as there is room */
static void use_if_there(struct wfi_index *ix)
{
	struct index_table *t = ix->coming;
	const bool ended = ix->env->mem->populated(ix->env, &t->map) == SIZE_MAX;
	const bool full = ix->nr >= hard_capacity(ix->table);

	t->lines = t->map.addr;
	if (t->lines) {
		use_coming(ix);
	} else if (ended || full) {
		ix->coming = NULL;
		table_destroy(ix->env, t);
		if (full)
			(void)!begin(ix, true);
	}
}

static void finish(struct wfi_index *ix)
{
	struct index_table *old = ix->table->old;

	__atomic_store_n(&ix->table->old, NULL, __ATOMIC_SEQ_CST);
	retire(ix, old);
	begin_early(ix);
}

uint32_t wfi_index_step(struct wfi_index *ix, uint32_t nr)
{
	uint32_t work = 0;

	if (wfi_likely(!ix->busy))
		return 0;
	if (ix->coming && !ix->table->old)
		use_if_there(ix);
	if (ix->table->old) {
		work = move_some(ix, nr);
		if (ix->table->old->moved == ix->table->old->nr_lines)
			finish(ix);
	}
	if (ix->retired)
		work += reclaim(ix);
	ix->busy = ix->coming || ix->table->old || ix->retired;
	/* pages will come: who polls goes on to */
	return work + (ix->coming || ix->table->old);
}

/* growth under way comes to its end at once: what has begun to move does, what has not goes */
static void finish_now(struct wfi_index *ix)
{
	ix->reserved = 0;
	if (ix->table->old) {
		ix->table->old->movable = ix->table->old->nr_lines;
		wfi_index_step(ix, UINT32_MAX);
	}
	table_destroy(ix->env, ix->coming);
	ix->coming = NULL;
}

int wfi_index_reserve(struct wfi_index *ix, uint64_t nr, uint64_t bound)
{
	const struct index_table *newest = ix->coming ? ix->coming : ix->table;
	const bool fits = nr <= hard_capacity(newest);

	if (!fits)
		finish_now(ix);
	ix->reserved = nr;
	ix->bound = bound;
	if (!fits)
		return begin(ix, true);
	begin_early(ix);
	return 0;
}

/* ---- the rest of the owner's side ---- */

int wfi_index_insert(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot)
{
	int ret;

	assert(slot <= INDEX_SLOT_MAX);
	if (wfi_unlikely(ix->busy))
		wfi_index_step(ix, STEP_LINES);
	ret = table_insert(owner_table(ix, tag->hash), tag->hash, slot);
	ix->nr += !ret;
	return ret;
}

bool wfi_index_remove(struct wfi_index *ix, const struct index_tag *tag, uint32_t slot)
{
	struct index_table *t = owner_table(ix, tag->hash);
	uint32_t l = index_home(t, tag->hash), found;
	unsigned i = 0;

	found = index_line_find(&t->lines[l], tag->hash, &i);
	if (found == INDEX_SLOT_NONE)
		found = index_find_behind(t, &l, tag->hash, &i);
	if (found == INDEX_SLOT_NONE || found != slot)
		return false;
	table_clear(t, tag->hash, l, i);
	ix->nr--;
	return true;
}

/* Return: the hash of entry @i of line @at: its home is not far before */
static uint64_t hash_of(const struct index_table *t, uint32_t at, unsigned i)
{
	uint32_t home = at;
	uint64_t hash = 0;

	for (uint32_t n = index_reach(t) * INDEX_CLASSES + 1; n; n--) {
		if (entry_hash(t, &t->lines[at], i, home, lowest(t, home), &hash))
			break;
		home = home ? home - 1 : t->nr_lines - 1;
	}
	return hash;
}

static bool table_remove_slot(struct index_table *t, uint32_t from, uint32_t slot)
{
	uint64_t hash;

	for (uint32_t l = 0; l < t->nr_lines; l++) {
		for (unsigned i = 0; i < INDEX_LINE_ENTRIES; i++) {
			if ((t->lines[l].word[i] & INDEX_SLOT_MASK) != slot + 1ull)
				continue;
			hash = hash_of(t, l, i);
			/* of an old table: what was moved stands there for readers alone */
			if (index_home(t, hash) < from)
				continue;
			table_clear(t, hash, l, i);
			return true;
		}
	}
	return false;
}

bool wfi_index_remove_slot(struct wfi_index *ix, uint32_t slot)
{
	struct index_table *old = ix->table->old;

	if (!table_remove_slot(ix->table, 0, slot) &&
	    (!old || !table_remove_slot(old, old->moved, slot)))
		return false;
	ix->nr--;
	return true;
}

void wfi_index_reader_add(struct wfi_index *ix, struct index_reader *r)
{
	r->epoch = 0;
	r->next = ix->readers;
	ix->readers = r;
}

void wfi_index_reader_del(struct wfi_index *ix, struct index_reader *r)
{
	struct index_reader **at = &ix->readers;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
}

uint64_t wfi_index_bytes(const struct wfi_index *ix)
{
	uint64_t lines = ix->table->nr_lines;

	if (ix->table->old)
		lines += ix->table->old->nr_lines;
	if (ix->coming)
		lines += ix->coming->nr_lines;
	for (const struct index_table *t = ix->retired; t; t = t->next)
		lines += t->nr_lines;
	return lines * sizeof(struct index_line);
}
