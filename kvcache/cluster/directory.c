/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "weft_internal/directory.h"
#include "weft_internal/util.h"
#ifdef __SSE2__
#include "kvcache/cluster/bucket_sse2.h"
#else
#include "kvcache/cluster/bucket_any.h"
#endif

#define BUCKET_TAGS 8u
#define DEFAULT_BYTES (128ull << 20)
#define SWEEP_BUCKETS 256u /* a poll */
#define GROUP 64u /* buckets that a sweep passes over together */
#define AHEAD 16u /* buckets whose lines are called for */
#define MAGIC 0x3252494454464557ull /* "WEFTDIR2" */

/* who looks for a block takes its first line alone, where the upper half of a tag and four holders
 * are, unless there are more; the owner goes by whole tags */
struct bucket {
	uint32_t tags[BUCKET_TAGS]; /* upper halves; 0: none */
	uint32_t holders[BUCKET_TAGS]; /* a byte each, from the lowest on; 0: none */
	uint32_t low[BUCKET_TAGS]; /* lower halves of the tags */
	uint32_t more[BUCKET_TAGS]; /* the fifth holder to the eighth */
};

_Static_assert(sizeof(struct bucket) == 2 * WFI_CACHELINE, "two lines");
_Static_assert(offsetof(struct bucket, low) == WFI_CACHELINE, "what is looked at comes first");

/* the shard as others on this host see it. Its owner alone writes, word by word; who reads
 * meanwhile may meet a tag with the holders of the one before it: a hint that is wrong */
struct wfi_dir_shared {
	uint64_t magic;
	uint64_t nr_buckets; /* a power of two */
	uint64_t changes; /* of .nodes */
	uint64_t nr_gone; /* HOLDER_GONE and HOLDER_SWEPT */
	uint64_t reserved[4];
	uint64_t nodes[WFI_DIR_HOLDERS + 1]; /* by pair; 0: in no answer */
	_Alignas(2 * WFI_CACHELINE) struct bucket buckets[];
};

_Static_assert(offsetof(struct wfi_dir_shared, nodes) == WFI_CACHELINE, "abi");
_Static_assert(offsetof(struct wfi_dir_shared, buckets) == 1152, "abi");

enum holder_state { HOLDER_FREE, HOLDER_LIVE, HOLDER_GONE, HOLDER_SWEPT };

struct wfi_directory {
	struct wfi_env *env;
	struct wfi_map map;
	struct wfi_dir_shared *sh;
	uint64_t mask;
	uint64_t sweep; /* next bucket */
	uint64_t *used; /* a bit for each group that has had a tag: a look at others makes pages */
	uint32_t victim; /* who is pushed out next, in a bucket */
	struct wfi_directory_stat stat;
	uint8_t state[WFI_DIR_HOLDERS + 1]; /* by pair */
};

static size_t used_bytes(uint64_t mask)
{
	return (mask / GROUP / 64 + 1) * sizeof(uint64_t);
}

static uint64_t shared_bytes(uint64_t nr_buckets)
{
	return sizeof(struct wfi_dir_shared) + nr_buckets * sizeof(struct bucket);
}

static void directory_free(struct wfi_directory *d)
{
	if (d->used)
		wfi_free(d->env, d->used, used_bytes(d->mask));
	wfi_free(d->env, d, sizeof(*d));
}

int wfi_directory_create(const struct wfi_directory_opts *opts, struct wfi_directory **out)
{
	const uint64_t bytes = opts->bytes ? opts->bytes : DEFAULT_BYTES;
	struct wfi_env *env = opts->env;
	struct wfi_directory *d;
	uint64_t nr;
	int ret;

	if (bytes < sizeof(struct bucket))
		return -EINVAL;
	d = wfi_alloc(env, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->env = env;
	nr = 1ull << (63 - __builtin_clzll(bytes / sizeof(struct bucket)));
	d->mask = nr - 1;
	d->used = wfi_alloc(env, used_bytes(d->mask));
	ret = d->used ? env->mem->map(env, shared_bytes(nr),
				      WFI_MAP_SPARSE | WFI_MAP_SHARED_FD | WFI_MAP_FD_READERS,
				      &d->map)
		      : -ENOMEM;
	if (ret) {
		directory_free(d);
		return ret;
	}
	d->sh = d->map.addr;
	d->sh->magic = MAGIC;
	d->sh->nr_buckets = nr;
	*out = d;
	return 0;
}

void wfi_directory_destroy(struct wfi_directory *d)
{
	if (!d)
		return;
	d->env->mem->unmap(d->env, &d->map);
	directory_free(d);
}

const struct wfi_map *wfi_directory_map(const struct wfi_directory *d)
{
	return &d->map;
}

/* ---- holders ---- */

/* words that others read meanwhile */
static inline uint64_t word_get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void word_set(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* the same of half a word */
static inline uint32_t half_get(const uint32_t *half)
{
	return __atomic_load_n(half, __ATOMIC_RELAXED);
}

static inline void half_set(uint32_t *half, uint32_t value)
{
	__atomic_store_n(half, value, __ATOMIC_RELAXED);
}

static void holder_name(struct wfi_directory *d, unsigned pair, uint64_t node)
{
	word_set(&d->sh->nodes[pair], node);
	/* pairs with the acquire in view_self() */
	__atomic_store_n(&d->sh->changes, d->sh->changes + 1, __ATOMIC_RELEASE);
}

int wfi_directory_join(struct wfi_directory *d, uint64_t node)
{
	unsigned i;

	for (i = 1; i <= WFI_DIR_HOLDERS; i++)
		if (d->state[i] == HOLDER_FREE) {
			d->state[i] = HOLDER_LIVE;
			holder_name(d, i, node);
			return (int)(2 * i);
		}
	return -ENOSPC;
}

void wfi_directory_leave(struct wfi_directory *d, uint8_t holder)
{
	const unsigned pair = wfi_dir_pair(holder);

	if (d->state[pair] != HOLDER_LIVE)
		return;
	d->state[pair] = HOLDER_GONE;
	word_set(&d->sh->nr_gone, d->sh->nr_gone + 1);
	holder_name(d, pair, 0);
}

/* ---- buckets ---- */

static inline uint64_t bucket_idx(uint64_t mask, uint64_t tag)
{
	return (tag >> 2) & mask;
}

static inline struct bucket *bucket_of(const struct wfi_directory *d, uint64_t tag)
{
	return &d->sh->buckets[bucket_idx(d->mask, tag)];
}

static inline uint32_t tag_upper(uint64_t tag)
{
	return (uint32_t)(tag >> 32);
}

/* the owner's. Return: the place of a tag, or BUCKET_TAGS */
static inline unsigned tag_find(const struct bucket *b, uint64_t tag)
{
	unsigned same = bucket_find(b->tags, tag_upper(tag)), i;

	for (; same; same &= same - 1) {
		i = (unsigned)__builtin_ctz(same);
		if (b->low[i] == (uint32_t)tag)
			return i;
	}
	return BUCKET_TAGS;
}

/* all eight holders of a place */
static inline uint64_t place_get(const struct bucket *b, unsigned i)
{
	const uint64_t more = half_get(&b->more[i]);

	return half_get(&b->holders[i]) | more << 32;
}

static inline void place_set(struct bucket *b, unsigned i, uint64_t word)
{
	half_set(&b->holders[i], (uint32_t)word);
	half_set(&b->more[i], (uint32_t)(word >> 32));
}

static void place_clear(struct wfi_directory *d, struct bucket *b, unsigned i)
{
	half_set(&b->tags[i], 0);
	d->stat.blocks--;
}

/* Return: bits below the lowest byte of @word that is @holder, or 64 */
static inline unsigned byte_find(uint64_t word, uint8_t holder)
{
	const uint64_t ones = 0x0101010101010101ull, other = word ^ (ones * holder);
	/* the top bit of each byte that is 0 there; of those above the lowest it may lie */
	const uint64_t zeros = (other - ones) & ~other & (ones << 7);

	return zeros ? (unsigned)__builtin_ctzll(zeros) & ~7u : 64;
}

static inline uint64_t byte_cut(uint64_t word, unsigned at)
{
	const uint64_t below = (1ull << at) - 1;

	return (word & below) | ((word >> 8) & ~below);
}

/* without those that are gone */
static uint64_t word_live(const struct wfi_dir_shared *sh, uint64_t word)
{
	unsigned at = 0;

	while (at < 64 && (word >> at)) {
		if (word_get(&sh->nodes[wfi_dir_pair((uint8_t)(word >> at))]))
			at += 8;
		else
			word = byte_cut(word, at);
	}
	return word;
}

static void group_use(struct wfi_directory *d, uint64_t idx)
{
	d->used[idx / GROUP / 64] |= 1ull << (idx / GROUP % 64);
}

static bool group_used(const struct wfi_directory *d, uint64_t idx)
{
	return d->used[idx / GROUP / 64] >> (idx / GROUP % 64) & 1;
}

/* a place for a tag that has none yet */
static void place_take(struct wfi_directory *d, struct bucket *b, uint64_t tag, uint8_t holder)
{
	const unsigned none = bucket_find(b->tags, 0);
	unsigned i;

	if (none) {
		i = (unsigned)__builtin_ctz(none);
		d->stat.blocks++;
	} else {
		i = d->victim++ % BUCKET_TAGS;
		d->stat.pushed_out++;
	}
	half_set(&b->tags[i], tag_upper(tag));
	half_set(&b->low[i], (uint32_t)tag);
	place_set(b, i, holder);
	group_use(d, bucket_idx(d->mask, tag));
}

static void holder_add(struct wfi_directory *d, struct bucket *b, uint64_t tag, uint8_t holder)
{
	const unsigned i = tag_find(b, tag);
	uint64_t word;
	unsigned at;

	if (i == BUCKET_TAGS) {
		place_take(d, b, tag, holder);
		return;
	}
	word = place_get(b, i);
	if (byte_find(word, holder) < 64)
		return;
	if (d->sh->nr_gone)
		word = word_live(d->sh, word);
	at = byte_find(word, WFI_DIR_NOBODY);
	/* eight are enough to get a block from */
	if (at < 64)
		word |= (uint64_t)holder << at;
	place_set(b, i, word);
}

static void holder_del(struct wfi_directory *d, struct bucket *b, uint64_t tag, uint8_t holder)
{
	const unsigned i = tag_find(b, tag);
	uint64_t word;
	unsigned at;

	if (i == BUCKET_TAGS)
		return;
	word = place_get(b, i);
	at = byte_find(word, holder);
	if (at == 64)
		return;
	word = byte_cut(word, at);
	place_set(b, i, word);
	if (!word)
		place_clear(d, b, i);
}

void wfi_directory_update(struct wfi_directory *d, uint8_t holder, const uint64_t *changes,
			  uint32_t nr)
{
	uint32_t i, ahead = 0;

	for (i = 0; i < nr; i++) {
		const uint64_t tag = changes[i] & ~WFI_TAG_MARKS;
		const uint8_t who = holder | (changes[i] & WFI_TAG_SSD ? WFI_DIR_SSD : 0);
		struct bucket *b = bucket_of(d, tag);

		for (; ahead < nr && ahead <= i + AHEAD; ahead++) {
			const struct bucket *next = bucket_of(d, changes[ahead]);

			__builtin_prefetch(next, 1);
			__builtin_prefetch(next->low, 1);
		}
		if (!tag_upper(tag))
			continue;
		if (changes[i] & WFI_TAG_GONE)
			holder_del(d, b, tag, who);
		else
			holder_add(d, b, tag, who);
	}
}

/* ---- answers ---- */

/* as they stand in the table */
static inline uint64_t holders_of(const struct wfi_dir_shared *sh, uint64_t mask, uint64_t tag)
{
	const struct bucket *b = &sh->buckets[bucket_idx(mask, tag)];
	const unsigned same = bucket_find(b->tags, tag_upper(tag));
	unsigned i;
	uint64_t first;

	if (!same)
		return 0;
	i = (unsigned)__builtin_ctz(same);
	first = half_get(&b->holders[i]);
	return wfi_likely(first >> 24 == 0) ? first : first | (uint64_t)half_get(&b->more[i]) << 32;
}

/* those that are asked for */
static uint64_t holders_asked(const struct wfi_dir_shared *sh, uint64_t word, uint8_t not )
{
	unsigned at;

	if (wfi_unlikely(word_get(&sh->nr_gone)))
		word = word_live(sh, word);
	for (at = 0; not &&at < 64 && word >> at;) {
		if (wfi_dir_pair((uint8_t)(word >> at)) == wfi_dir_pair(not ))
			word = byte_cut(word, at);
		else
			at += 8;
	}
	return word;
}

/* those of @a that are in @b as well, in the order of @a */
static inline uint64_t words_common(uint64_t a, uint64_t b)
{
	uint64_t both = 0;
	unsigned at, n = 0;

	if (wfi_likely(a == b))
		return a;
	for (at = 0; at < 64 && (a >> at); at += 8) {
		const uint8_t holder = (uint8_t)(a >> at);

		if (byte_find(b, holder) == 64)
			continue;
		both |= (uint64_t)holder << n;
		n += 8;
	}
	return both;
}

/* those of a tier in the order of @word, from the @turn-th on. Return: how many */
static unsigned tier_list(uint64_t word, unsigned ssd, uint32_t turn, uint8_t *out)
{
	uint8_t list[BUCKET_TAGS];
	unsigned n = 0, i;

	for (; word; word >>= 8)
		if ((word & WFI_DIR_SSD) == ssd)
			list[n++] = (uint8_t)word;
	turn = n > 1 ? turn % n : 0;
	for (i = 0; i < n; i++)
		out[i] = list[turn + i < n ? turn + i : turn + i - n];
	return n;
}

/* who has it in memory comes before who has to read it first */
static void run_name(struct wfi_dir_run *run, uint64_t word, uint32_t turn)
{
	uint8_t list[BUCKET_TAGS] = { WFI_DIR_NOBODY };
	unsigned n = tier_list(word, 0, turn, list), i = 1;

	n += tier_list(word, WFI_DIR_SSD, turn, list + n);
	while (i < n && wfi_dir_pair(list[i]) == wfi_dir_pair(list[0]))
		i++;
	run->holder = list[0];
	run->other = i < n ? list[i] : WFI_DIR_NOBODY;
}

/* a look at a chain, block by block */
struct walk {
	const struct wfi_dir_shared *sh;
	uint64_t mask;
	uint64_t last, last_asked; /* of the block before: all holders, and those asked for */
	uint64_t common; /* who has all of the run from .first on; 0: there is none */
	uint32_t first;
	uint32_t turn;
	uint32_t nr, max;
	struct wfi_dir_run *runs;
	uint8_t not ;
};

/* inlined by force: gcc takes a function that only prefetches for one without effect */
static inline __attribute__((always_inline)) void
walk_call(const struct walk *w, const uint64_t *tags, uint32_t i, uint32_t nr)
{
	if (i < nr)
		__builtin_prefetch(&w->sh->buckets[bucket_idx(w->mask, tags[i])]);
}

/* a run goes on for as long as somebody has all of it */
static void walk_end(struct walk *w, uint32_t i)
{
	struct wfi_dir_run *run;

	if (!w->common || w->nr == w->max)
		return;
	run = &w->runs[w->nr++];
	*run = (struct wfi_dir_run){ .first = w->first, .nr = i - w->first };
	run_name(run, w->common, w->turn);
}

/* @word: who has the block at @i */
static void walk_step(struct walk *w, uint32_t i, uint64_t word)
{
	uint64_t common;

	if (word != w->last) {
		w->last = word;
		w->last_asked = holders_asked(w->sh, word, w->not );
	}
	common = w->common ? words_common(w->common, w->last_asked) : 0;
	if (!common) {
		walk_end(w, i);
		w->first = i;
		common = w->last_asked;
	}
	w->common = common;
}

/* most blocks have the holders of the one before, which are those of the run. Return: behind the
 * last of these from @i on */
static inline uint32_t walk_same(const struct walk *w, const uint64_t *tags, uint32_t i,
				 uint32_t nr)
{
	const uint32_t word = (uint32_t)w->last;

	if (!w->last || w->last >> 24 || w->common != w->last_asked)
		return i;
	for (; i < nr; i++) {
		const struct bucket *b = &w->sh->buckets[bucket_idx(w->mask, tags[i])];
		const unsigned same = bucket_find(b->tags, tag_upper(tags[i]));

		walk_call(w, tags, i + AHEAD, nr);
		if (!same || half_get(&b->holders[__builtin_ctz(same)]) != word)
			break;
	}
	return i;
}

/* Return: how many runs there are */
static uint32_t walk(struct walk *w, const uint64_t *tags, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < AHEAD; i++)
		walk_call(w, tags, i, nr);
	for (i = 0; w->nr < w->max && (i = walk_same(w, tags, i, nr)) < nr; i++) {
		walk_call(w, tags, i + AHEAD, nr);
		walk_step(w, i, holders_of(w->sh, w->mask, tags[i]));
	}
	walk_end(w, i);
	return w->nr;
}

uint32_t wfi_directory_find(const struct wfi_directory *d, const uint64_t *tags, uint32_t nr,
			    uint8_t not, uint32_t turn, struct wfi_dir_run *runs, uint32_t max)
{
	struct walk w = {
		.sh = d->sh, .mask = d->mask, .not = not, .turn = turn, .runs = runs, .max = max
	};

	return walk(&w, tags, nr);
}

/* runs that have not ended yet, by pair */
struct open_runs {
	struct wfi_dir_run of[WFI_DIR_HOLDERS + 1]; /* .nr 0: none */
	uint32_t nr;
};

/* one block of one holder. Return: false: there is no room for it; *@n runs are written */
static bool run_extend(struct open_runs *open, uint8_t holder, uint32_t i, struct wfi_dir_run *runs,
		       uint32_t *n, uint32_t max)
{
	struct wfi_dir_run *at = &open->of[wfi_dir_pair(holder)];

	if (at->nr && at->holder == holder && at->first + at->nr == i) {
		at->nr++;
		return true;
	}
	/* each that is open will need its place in the end */
	if (*n + open->nr >= max)
		return false;
	if (at->nr)
		runs[(*n)++] = *at;
	else
		open->nr++;
	*at = (struct wfi_dir_run){ .first = i, .nr = 1, .holder = holder };
	return true;
}

uint32_t wfi_directory_holders(const struct wfi_directory *d, const uint64_t *tags, uint32_t nr,
			       struct wfi_dir_run *runs, uint32_t max)
{
	struct open_runs open = { .nr = 0 };
	uint32_t i, n = 0;
	uint64_t word, all;
	bool room = true;

	for (i = 0; i < nr && room; i++) {
		all = holders_asked(d->sh, holders_of(d->sh, d->mask, tags[i]), WFI_DIR_NOBODY);
		for (word = all; word && room; word >>= 8) {
			const uint8_t holder = (uint8_t)word;

			if (holder & WFI_DIR_SSD && byte_find(all, holder ^ WFI_DIR_SSD) < 64)
				continue;
			room = run_extend(&open, holder, i, runs, &n, max);
		}
	}
	for (i = 1; i <= WFI_DIR_HOLDERS; i++)
		if (open.of[i].nr)
			runs[n++] = open.of[i];
	return n;
}

/* ---- holders that are gone ---- */

static void bucket_sweep(struct wfi_directory *d, struct bucket *b)
{
	uint64_t word;
	unsigned i;

	for (i = 0; i < BUCKET_TAGS; i++) {
		if (!b->tags[i])
			continue;
		word = word_live(d->sh, place_get(b, i));
		place_set(b, i, word);
		if (!word)
			place_clear(d, b, i);
	}
}

/* a whole sweep that began when a holder was gone has found all of it: its number is free */
static void sweep_end(struct wfi_directory *d)
{
	unsigned i;

	for (i = 1; i <= WFI_DIR_HOLDERS; i++) {
		if (d->state[i] == HOLDER_SWEPT) {
			d->state[i] = HOLDER_FREE;
			word_set(&d->sh->nr_gone, d->sh->nr_gone - 1);
		} else if (d->state[i] == HOLDER_GONE) {
			d->state[i] = HOLDER_SWEPT;
		}
	}
}

bool wfi_directory_busy(const struct wfi_directory *d)
{
	return d->sh->nr_gone != 0;
}

int wfi_directory_poll(struct wfi_directory *d)
{
	unsigned i;

	if (wfi_likely(!d->sh->nr_gone))
		return 0;
	/* HOLDER_SWEPT: its sweep is under way. One that goes in the middle waits for the next */
	if (!d->sweep)
		sweep_end(d);
	for (i = 0; i < SWEEP_BUCKETS && d->sh->nr_gone; i++) {
		const bool used = group_used(d, d->sweep);

		if (used)
			bucket_sweep(d, &d->sh->buckets[d->sweep]);
		d->sweep = (d->sweep + (used ? 1 : GROUP)) & d->mask;
		if (!d->sweep)
			break;
	}
	return 1;
}

void wfi_directory_stat(const struct wfi_directory *d, struct wfi_directory_stat *out)
{
	*out = d->stat;
}

/* ---- the shard of another node of this host ---- */

int wfi_dir_view_open(struct wfi_dir_view *view, const void *mem, uint64_t len, uint64_t node)
{
	const struct wfi_dir_shared *sh = mem;
	uint64_t nr;

	if (len < sizeof(*sh))
		return -EPROTO;
	nr = word_get(&sh->nr_buckets);
	if (word_get(&sh->magic) != MAGIC || !wfi_is_pow2(nr) ||
	    nr > (len - sizeof(*sh)) / sizeof(struct bucket))
		return -EPROTO;
	*view = (struct wfi_dir_view){ .sh = sh, .mask = nr - 1, .node = node };
	return 0;
}

uint64_t wfi_dir_view_node(const struct wfi_dir_view *view, uint8_t holder)
{
	return holder == WFI_DIR_NOBODY ? 0 : word_get(&view->sh->nodes[wfi_dir_pair(holder)]);
}

/* Return: the number of who looks, or WFI_DIR_NOBODY */
static uint8_t view_self(struct wfi_dir_view *view)
{
	/* pairs with the release in holder_name() */
	const uint64_t changes = __atomic_load_n(&view->sh->changes, __ATOMIC_ACQUIRE);
	unsigned i = 1;

	if (wfi_likely(changes == view->changes))
		return view->self;
	while (i <= WFI_DIR_HOLDERS && word_get(&view->sh->nodes[i]) != view->node)
		i++;
	view->self = i > WFI_DIR_HOLDERS ? WFI_DIR_NOBODY : (uint8_t)(2 * i);
	view->changes = changes;
	return view->self;
}

uint32_t wfi_dir_view_find(struct wfi_dir_view *view, const uint64_t *tags, uint32_t nr,
			   uint32_t turn, struct wfi_dir_run *runs, uint32_t max)
{
	struct walk w = { .sh = view->sh,
			  .mask = view->mask,
			  .not = view_self(view),
			  .turn = turn,
			  .runs = runs,
			  .max = max };

	return walk(&w, tags, nr);
}
