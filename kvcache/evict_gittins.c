/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicts the block that earns least for its place, by the curve of its class (evict_curve.h). What
 * was tried, and how it measures: docs/eviction.md.
 *
 * A use costs one word: the class and the tick of a block are written in place. Only leaves, which
 * alone may go, are in lists: one for each class and span of ages, so that all in a list are worth
 * the same. Where ages of two spans have come close, their lists become one. The victim is any of
 * the list that is worth least: a tree of minima over the classes leads to it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "kvcache/evict_curve.h"
#include "kvcache/evict_policies.h"
#include "weft_internal/util.h"

#define LINK_NONE UINT32_MAX
#define STAMP_BITS 22
#define STAMP_MASK ((1u << STAMP_BITS) - 1)

/* what is known of a block is in a code of 8 bits: what it is, and the logarithm of its depth */
#define LOGS 8u /* logarithms of lengths end here */
#define TOUCHES_MAX 4u
#define KIND_TAIL 0u /* the last block of its chain */
#define KIND_FRESH 1u /* by the number of new blocks */
#define KIND_CONTINUED (KIND_FRESH + LOGS)
#define NR_KINDS (KIND_CONTINUED + LOGS)
#define CODE_TOUCHED (NR_KINDS * LOGS) /* by how often it was used again */
#define NR_CODES (CODE_TOUCHED + TOUCHES_MAX * LOGS)
#define CODE_NONE 255u /* no ghost */
#define NR_CLASSES (NR_KINDS + TOUCHES_MAX * LOGS)

#define NR_LEAVES 64u /* of the tree over all classes */
#define LEAF_NONE UINT32_MAX
#define NR_SPANS 64u /* of ages: bits of a mask */
#define NEAR_AGES 64u /* ticks back whose span is in a table */
#define PENDING_MAX 32u

#define TICKS_LOG 4 /* ticks while as many blocks are published as there are slots */
#define WINDOW_LOG 4 /* the first measurement of that time takes 1/16 of it */
#define SHIFT_FIRST 28 /* until then: a quarter of a second a tick */
#define SHIFT_MAX 44

#define GHOST_TAG_BITS 12
#define GHOST_STAMP_BITS 12
#define GHOST_STAMP_MASK ((1u << GHOST_STAMP_BITS) - 1)
#define GHOST_ALL_LOG 3u /* blocks above depth 4 are remembered, and every second below: */
#define GHOST_EVERY 2u /* what one of a chain has done, its neighbours have done */
#define GHOST_WAYS 4u
#define HASH_NONE 0u /* of a block that leaves no ghost */
#define GHOSTS_PER_SLOT 1u

#define LEARN_EVERY 16u /* uses and blocks, until another class is looked at */
#define PREFETCH 8u /* blocks ahead */

enum state {
	ABSENT, /* zero, as memory comes */
	PRESENT,
	PENDING, /* a leaf that is not in its list yet */
	LEAF,
};

struct past {
	uint32_t stamp : STAMP_BITS; /* tick of the last use */
	uint32_t code : 8;
	uint32_t state : 2;
};

struct link {
	uint32_t next;
	uint32_t prev;
};

/* a block that was evicted: what it would have hit, and what it had done */
struct ghost {
	uint32_t tag : GHOST_TAG_BITS;
	uint32_t stamp : GHOST_STAMP_BITS;
	uint32_t code : 8;
};

static_assert(sizeof(struct past) == 4, "sixteen blocks a cache line");
static_assert(sizeof(struct past) + sizeof(struct link) + sizeof(uint32_t) +
			      GHOSTS_PER_SLOT * sizeof(struct ghost) ==
		      20,
	      "bytes a slot");
static_assert(NR_CODES <= CODE_NONE && NR_CLASSES <= NR_LEAVES, "eight bits, and one of 64");

/* the arrays, in one piece of memory */
struct tables {
	struct link *links; /* of leaves: a ring for each list */
	struct ghost *ghosts;
	struct past *past;
	uint32_t *hash; /* of the key */
};

/* a span of ticks in which leaves were used last; the column of lists that is theirs */
struct span {
	uint32_t first;
	uint32_t last;
	uint8_t column;
};

/* blocks published one below the other by one request */
struct run {
	uint32_t slot; /* the last; LINK_NONE: none, or gone */
	uint32_t first_depth;
	uint32_t chain_len;
	uint64_t now_ns;
	unsigned kind; /* of a parent that was itself just published; 0: none */
	unsigned code; /* of its blocks, but the last, at depth 0 */
	unsigned touches; /* as its last ghost had, plus 1; 0: it had none */
};

struct wfi_evict {
	struct wfi_env *env;
	struct tables t;
	uint32_t nr_slots;
	uint32_t nr_sets; /* of ghosts */

	/* the clock: real time, in ticks that follow how fast blocks come */
	uint32_t tick;
	unsigned shift;
	unsigned window_log;
	uint32_t window_left;
	uint64_t tick_ns;
	uint64_t window_ns;
	bool started;

	struct past victim; /* the last that came from a list */
	uint32_t victim_tick;
	uint32_t nr_pending;
	uint32_t pending[PENDING_MAX];
	struct run run;

	uint64_t stale; /* classes whose leaf in the tree must be found anew */
	uint64_t filled[NR_CLASSES]; /* columns with a leaf */
	uint8_t best[NR_CLASSES]; /* the column with the least index */
	/*
	 * a tree of minima, the root at 1 and the leaves from NR_LEAVES. A leaf is the bits of its
	 * class's least index (not negative, so that they sort as integers do), with the class in
	 * the lowest six
	 */
	uint32_t tree[2 * NR_LEAVES];

	unsigned nr_spans;
	struct span spans[NR_SPANS]; /* the youngest first */
	uint64_t free_columns;
	uint8_t near[NEAR_AGES]; /* column by age */
	uint8_t column_age[NR_SPANS];
	uint8_t class_of[NR_CODES];
	uint8_t next_code[NR_CODES]; /* after another use */

	unsigned learn_left;
	unsigned learn_next;
	float shape[WFI_CURVE_AGES];
	struct wfi_curve curves[NR_CLASSES];
	uint32_t heads[NR_CLASSES][NR_SPANS];
};

static bool past_is_same(struct past a, struct past b)
{
	return !memcmp(&a, &b, sizeof(a));
}

/* class and last use alike: worth the same, at any time */
static bool past_is_alike(struct past a, struct past b)
{
	return a.stamp == b.stamp && a.code == b.code;
}

static unsigned log_of(uint32_t v)
{
	unsigned log = v ? 32 - (unsigned)__builtin_clz(v) : 0;

	return log < LOGS - 1 ? log : LOGS - 1;
}

/* ---- learning ---- */

/*
 * Long first turns come back less often than short ones; a short addition to a chain that was held
 * is somebody's next turn, a long one a stranger under a shared prompt; what was used often is used
 * again; the last block of a chain is seldom full, and then never used again. A class takes its own
 * figures for these as soon as it has some.
 */
static float class_prior(unsigned cls)
{
	static const float continued[LOGS] = { .45f, .45f, .45f, .3f, .15f, .07f, .07f, .07f };

	if (cls == KIND_TAIL)
		return .03f;
	if (cls < KIND_CONTINUED)
		return .42f - .04f * (float)(cls - KIND_FRESH);
	if (cls < NR_KINDS)
		return continued[cls - KIND_CONTINUED];
	return 1 - 1.1f / (float)(2 + (cls - NR_KINDS) / LOGS);
}

static void learn_next(struct wfi_evict *ev)
{
	struct wfi_curve *curve = &ev->curves[ev->learn_next];

	ev->learn_left = LEARN_EVERY;
	if (wfi_unlikely(wfi_curve_is_due(curve))) {
		wfi_curve_learn(curve, ev->shape, ev->tick);
		ev->stale |= 1ull << ev->learn_next;
	}
	if (++ev->learn_next < NR_CLASSES)
		return;
	ev->learn_next = 0;
	wfi_curve_shape(ev->curves, NR_CLASSES, ev->shape);
}

static void learn_entries(struct wfi_evict *ev, unsigned cls, unsigned nr)
{
	ev->curves[cls].since += nr;
	if (wfi_unlikely(ev->learn_left <= nr))
		learn_next(ev);
	else
		ev->learn_left -= nr;
}

/* ---- lists of leaves ---- */

static unsigned column_of(const struct wfi_evict *ev, uint32_t stamp)
{
	const uint32_t age = (ev->tick - stamp) & STAMP_MASK;
	unsigned i = 0;

	if (wfi_likely(age < NEAR_AGES))
		return ev->near[age];
	while (i + 1 < ev->nr_spans && ((ev->tick - ev->spans[i].first) & STAMP_MASK) < age)
		i++;
	return ev->spans[i].column;
}

static void leaf_link(struct wfi_evict *ev, uint32_t slot)
{
	struct past *past = &ev->t.past[slot];
	const unsigned cls = ev->class_of[past->code];
	const unsigned column = column_of(ev, past->stamp);
	uint32_t *head = &ev->heads[cls][column];
	struct link *links = ev->t.links;

	past->state = LEAF;
	if (*head == LINK_NONE) {
		links[slot] = (struct link){ slot, slot };
		ev->filled[cls] |= 1ull << column;
		ev->stale |= 1ull << cls;
	} else {
		const uint32_t last = links[*head].prev;

		links[slot] = (struct link){ *head, last };
		links[*head].prev = slot;
		links[last].next = slot;
	}
	*head = slot;
}

static void leaf_unlink(struct wfi_evict *ev, uint32_t slot)
{
	const struct past past = ev->t.past[slot];
	const unsigned cls = ev->class_of[past.code];
	const unsigned column = column_of(ev, past.stamp);
	uint32_t *head = &ev->heads[cls][column];
	struct link *links = ev->t.links;
	const struct link link = links[slot];

	if (link.next == slot) {
		*head = LINK_NONE;
		ev->filled[cls] &= ~(1ull << column);
		ev->stale |= 1ull << cls;
		return;
	}
	links[link.prev].next = link.next;
	links[link.next].prev = link.prev;
	if (*head == slot)
		*head = link.next;
}

/* blocks often become leaves for a moment only: they are put into lists when one has to go */
static void pending_flush(struct wfi_evict *ev)
{
	for (uint32_t i = 0; i < ev->nr_pending; i++)
		if (ev->t.past[ev->pending[i]].state == PENDING)
			leaf_link(ev, ev->pending[i]);
	ev->nr_pending = 0;
}

static void prefetch_leaf(const struct wfi_evict *ev, uint32_t slot)
{
	__builtin_prefetch(&ev->t.links[slot], 1);
	__builtin_prefetch(&ev->t.past[slot], 1);
	__builtin_prefetch(&ev->t.hash[slot]);
}

static void leaf_begin(struct wfi_evict *ev, uint32_t slot)
{
	if (wfi_unlikely(ev->nr_pending == PENDING_MAX))
		pending_flush(ev);
	ev->t.past[slot].state = PENDING;
	ev->pending[ev->nr_pending++] = slot;
	prefetch_leaf(ev, slot);
}

/* ---- spans ---- */

static void rings_join(struct link *links, uint32_t *into, uint32_t *from)
{
	if (*into == LINK_NONE) {
		*into = *from;
	} else {
		const uint32_t last = links[*into].prev;
		const uint32_t end = links[*from].prev;

		links[last].next = *from;
		links[*from].prev = last;
		links[end].next = *into;
		links[*into].prev = end;
	}
	*from = LINK_NONE;
}

/* the span after @at becomes part of it */
static void span_merge(struct wfi_evict *ev, unsigned at)
{
	struct span *span = &ev->spans[at];
	const uint64_t old = 1ull << span[1].column;

	for (unsigned cls = 0; cls < NR_CLASSES; cls++) {
		if (!(ev->filled[cls] & old))
			continue;
		rings_join(ev->t.links, &ev->heads[cls][span->column],
			   &ev->heads[cls][span[1].column]);
		ev->filled[cls] = (ev->filled[cls] & ~old) | 1ull << span->column;
	}
	span->first = span[1].first;
	ev->free_columns |= old;
	ev->nr_spans--;
	memmove(span + 1, span + 2, (ev->nr_spans - at - 1) * sizeof(*span));
}

/* a span may be as long as half of the age at its young end */
static void spans_merge(struct wfi_evict *ev)
{
	for (unsigned at = 1; at + 1 < ev->nr_spans;) {
		const struct span *span = &ev->spans[at];
		const uint32_t age = (ev->tick - span->last) & STAMP_MASK;
		const uint32_t len = ((span->last - span[1].first) & STAMP_MASK) + 1;

		if (2 * len <= age)
			span_merge(ev, at);
		else
			at++;
	}
	if (ev->nr_spans == NR_SPANS)
		span_merge(ev, NR_SPANS - 2);
}

static void near_fill(struct wfi_evict *ev)
{
	uint32_t age = 0;

	for (unsigned i = 0; i < ev->nr_spans; i++) {
		const struct span *span = &ev->spans[i];
		const uint32_t end = (ev->tick - span->first) & STAMP_MASK;

		ev->column_age[span->column] =
			(uint8_t)wfi_curve_age((ev->tick - span->last) & STAMP_MASK);
		/* ticks in which nothing came are the older span's */
		for (; age <= end && age < NEAR_AGES; age++)
			ev->near[age] = span->column;
	}
	for (; age < NEAR_AGES; age++)
		ev->near[age] = ev->spans[ev->nr_spans - 1].column;
}

/* a tick has begun, and a span with it */
static void span_begin(struct wfi_evict *ev)
{
	const uint32_t now = ev->tick & STAMP_MASK;

	spans_merge(ev);
	memmove(ev->spans + 1, ev->spans, ev->nr_spans * sizeof(*ev->spans));
	ev->nr_spans++;
	ev->spans[0] = (struct span){
		.first = now,
		.last = now,
		.column = (uint8_t)__builtin_ctzll(ev->free_columns),
	};
	ev->free_columns &= ev->free_columns - 1;
	near_fill(ev);
	ev->stale = UINT64_MAX;
}

/* ---- clock ---- */

static void clock_advance(struct wfi_evict *ev, uint64_t now_ns)
{
	const uint64_t ticks = (now_ns - ev->tick_ns) >> ev->shift;

	if (wfi_likely(ev->started && !ticks))
		return;
	if (!ev->started) {
		ev->started = true;
		ev->tick_ns = now_ns;
		ev->window_ns = now_ns;
		return;
	}
	ev->tick += (uint32_t)ticks;
	ev->tick_ns += ticks << ev->shift;
	span_begin(ev);
}

/* the cold end of a window: as many blocks have come as it was set for */
static void clock_tune(struct wfi_evict *ev, uint64_t now_ns)
{
	const uint64_t elapsed = now_ns - ev->window_ns;
	const bool first = ev->window_log == WINDOW_LOG;
	unsigned shift = ev->window_log;

	shift += elapsed ? 63 - (unsigned)__builtin_clzll(elapsed) : 0;
	shift = shift > TICKS_LOG ? shift - TICKS_LOG : 0;
	if (shift > SHIFT_MAX)
		shift = SHIFT_MAX;
	if (elapsed && (first || shift > ev->shift + 1 || shift + 1 < ev->shift))
		ev->shift = shift;
	if (ev->window_log)
		ev->window_log--;
	ev->window_ns = now_ns;
	ev->window_left = ev->nr_slots >> ev->window_log;
}

/* ---- ghosts ---- */

static bool ghost_is_sampled(const struct wfi_evict *ev, uint32_t depth)
{
	return (depth < 1u << (GHOST_ALL_LOG - 1) || !(depth % GHOST_EVERY)) && ev->nr_sets;
}

static struct ghost *ghost_set(const struct wfi_evict *ev, uint32_t hash)
{
	return &ev->t.ghosts[GHOST_WAYS * ((uint64_t)hash * ev->nr_sets >> 32)];
}

static uint32_t ghost_tag(uint32_t hash)
{
	return hash >> 1 & ((1u << GHOST_TAG_BITS) - 1);
}

static uint32_t ghost_age(const struct wfi_evict *ev, const struct ghost *ghost)
{
	return (ev->tick - ghost->stamp) & GHOST_STAMP_MASK;
}

static void ghost_leave(struct wfi_evict *ev, uint32_t slot)
{
	const uint32_t hash = ev->t.hash[slot];
	struct ghost *set, *oldest;

	if (hash == HASH_NONE)
		return;
	set = ghost_set(ev, hash);
	oldest = set;
	for (unsigned i = 0; i < GHOST_WAYS && oldest->code != CODE_NONE; i++)
		if (set[i].code == CODE_NONE || ghost_age(ev, &set[i]) > ghost_age(ev, oldest))
			oldest = &set[i];
	*oldest = (struct ghost){
		.tag = ghost_tag(hash),
		.stamp = ev->t.past[slot].stamp & GHOST_STAMP_MASK,
		.code = ev->t.past[slot].code,
	};
}

static unsigned touches_of(unsigned code)
{
	return code < CODE_TOUCHED ? 0 : (code - CODE_TOUCHED) / LOGS + 1;
}

/* Return: how often the block had been used again before it was evicted, plus 1; 0: not known */
static unsigned ghost_take(struct wfi_evict *ev, uint32_t hash)
{
	struct ghost *set = ghost_set(ev, hash);

	for (unsigned i = 0; i < GHOST_WAYS; i++) {
		const unsigned code = set[i].code;

		if (code == CODE_NONE || set[i].tag != ghost_tag(hash))
			continue;
		wfi_curve_use(&ev->curves[ev->class_of[code]], ghost_age(ev, &set[i]),
			      code % LOGS < GHOST_ALL_LOG ? 1 : GHOST_EVERY);
		set[i].code = CODE_NONE;
		return touches_of(code) + 1;
	}
	return 0;
}

/* ---- the table ---- */

static uint32_t ghost_sets(uint32_t nr_slots)
{
	return nr_slots / (GHOST_WAYS / GHOSTS_PER_SLOT);
}

static uint64_t tables_bytes(uint32_t nr)
{
	return nr * (sizeof(struct link) + sizeof(struct past) + sizeof(uint32_t)) +
	       ghost_sets(nr) * GHOST_WAYS * sizeof(struct ghost);
}

static int tables_alloc(struct wfi_env *env, uint32_t nr, struct tables *out)
{
	const uint64_t ghost_bytes = ghost_sets(nr) * GHOST_WAYS * sizeof(struct ghost);
	uint8_t *mem;

	if (nr == LINK_NONE)
		return -ENOMEM;
	mem = nr ? wfi_alloc(env, tables_bytes(nr)) : NULL;
	if (!mem && nr)
		return -ENOMEM;
	out->links = (struct link *)mem;
	out->ghosts = (struct ghost *)(out->links + nr);
	out->past = (struct past *)((uint8_t *)out->ghosts + ghost_bytes);
	out->hash = (uint32_t *)(out->past + nr);
	if (ghost_bytes)
		memset(out->ghosts, 0xff, ghost_bytes);
	return 0;
}

static void tables_free(struct wfi_env *env, struct tables *t, uint32_t nr)
{
	if (t->links)
		wfi_free(env, t->links, tables_bytes(nr));
}

static void codes_init(struct wfi_evict *ev)
{
	for (unsigned code = 0; code < NR_CODES; code++) {
		unsigned touches = touches_of(code);

		ev->class_of[code] =
			(uint8_t)(touches ? code - CODE_TOUCHED + NR_KINDS : code / LOGS);
		if (touches == TOUCHES_MAX)
			touches--;
		ev->next_code[code] = (uint8_t)(CODE_TOUCHED + touches * LOGS + code % LOGS);
	}
}

static int gittins_create(struct wfi_env *env, uint32_t nr_slots, uint64_t seed,
			  struct wfi_evict **out)
{
	struct wfi_evict *ev;
	int ret;

	(void)seed;
	ev = wfi_alloc(env, sizeof(*ev));
	if (!ev)
		return -ENOMEM;
	ret = tables_alloc(env, nr_slots, &ev->t);
	if (ret < 0) {
		wfi_free(env, ev, sizeof(*ev));
		return ret;
	}
	ev->env = env;
	ev->nr_slots = nr_slots;
	ev->nr_sets = ghost_sets(nr_slots);
	ev->shift = SHIFT_FIRST;
	ev->window_log = WINDOW_LOG;
	ev->window_left = nr_slots >> WINDOW_LOG;
	ev->run.slot = LINK_NONE;
	ev->learn_left = LEARN_EVERY;
	ev->free_columns = UINT64_MAX;
	memset(ev->tree, 0xff, sizeof(ev->tree));
	memset(ev->heads, 0xff, sizeof(ev->heads));
	codes_init(ev);
	span_begin(ev);
	for (unsigned cls = 0; cls < NR_CLASSES; cls++) {
		ev->curves[cls].prior = class_prior(cls);
		wfi_curve_learn(&ev->curves[cls], ev->shape, 0);
	}
	*out = ev;
	return 0;
}

static void gittins_destroy(struct wfi_evict *ev)
{
	if (!ev)
		return;
	tables_free(ev->env, &ev->t, ev->nr_slots);
	wfi_free(ev->env, ev, sizeof(*ev));
}

static int gittins_resize(struct wfi_evict *ev, uint32_t nr_slots)
{
	struct tables t;
	int ret;

	if (nr_slots <= ev->nr_slots)
		return 0;
	ret = tables_alloc(ev->env, nr_slots, &t);
	if (ret < 0)
		return ret;
	/* where a ghost lies depends on how many there are: they start anew */
	if (ev->nr_slots) {
		memcpy(t.links, ev->t.links, ev->nr_slots * sizeof(*t.links));
		memcpy(t.past, ev->t.past, ev->nr_slots * sizeof(*t.past));
		memcpy(t.hash, ev->t.hash, ev->nr_slots * sizeof(*t.hash));
	}
	tables_free(ev->env, &ev->t, ev->nr_slots);
	ev->t = t;
	ev->nr_slots = nr_slots;
	ev->nr_sets = ghost_sets(nr_slots);
	return 0;
}

static unsigned kind_new(const struct run *run)
{
	if (run->kind)
		return run->kind;
	/* one block in common is a shared prompt rather than an earlier turn */
	return (run->first_depth > 1 ? KIND_CONTINUED : KIND_FRESH) +
	       log_of(run->chain_len - run->first_depth);
}

/* nobody has used @parent again: what comes below it belongs to the same request */
static void run_inherit(struct wfi_evict *ev, struct run *run, uint32_t parent)
{
	const unsigned code = ev->t.past[parent].code;

	if (code < CODE_TOUCHED && code / LOGS != KIND_TAIL)
		run->kind = code / LOGS;
}

static void run_extend(struct wfi_evict *ev, const struct wfi_evict_info *info)
{
	struct run *run = &ev->run;
	struct past *parent;

	if (run->slot == LINK_NONE || info->parent != run->slot) {
		*run = (struct run){ .first_depth = info->depth, .chain_len = info->chain_len };
		if (info->parent != WFI_SLOT_NONE)
			run_inherit(ev, run, info->parent);
	} else if (run->chain_len != info->chain_len) {
		/* a chain that is published in pieces: what looked like its end is none */
		run->chain_len = info->chain_len;
		parent = &ev->t.past[info->parent];
		if (parent->code / LOGS == KIND_TAIL && parent->state == PRESENT)
			parent->code = kind_new(run) * LOGS + parent->code % LOGS;
	}
}

/* Return: uses before it was evicted, as its own ghost or that of a neighbour in the run says */
static unsigned touches_before(struct wfi_evict *ev, uint32_t hash)
{
	unsigned touches;

	if (hash != HASH_NONE)
		ev->run.touches = ghost_take(ev, hash);
	touches = ev->run.touches;
	return touches < TOUCHES_MAX ? touches : TOUCHES_MAX;
}

/* another request, or more of one: cold next to the blocks of a run */
static __attribute__((noinline)) void run_begin(struct wfi_evict *ev,
						const struct wfi_evict_info *info, uint64_t now_ns)
{
	clock_advance(ev, now_ns);
	run_extend(ev, info);
	ev->run.now_ns = now_ns;
	ev->run.code = kind_new(&ev->run) * LOGS;
}

static void gittins_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
			   uint64_t now_ns)
{
	struct run *run = &ev->run;
	unsigned touches, code;
	uint32_t hash;

	assert(slot < ev->nr_slots && ev->t.past[slot].state == ABSENT);
	if (wfi_unlikely(!ev->window_left--))
		clock_tune(ev, now_ns);
	if (wfi_unlikely(info->parent != run->slot || info->parent == WFI_SLOT_NONE ||
			 info->chain_len != run->chain_len || now_ns != run->now_ns))
		run_begin(ev, info, now_ns);
	run->slot = slot;
	hash = ghost_is_sampled(ev, info->depth) ? (uint32_t)info->key_hash | 1 : HASH_NONE;
	touches = touches_before(ev, hash);
	code = info->depth + 1 == info->chain_len ? KIND_TAIL * LOGS : run->code;
	if (touches)
		code = CODE_TOUCHED + (touches - 1) * LOGS;
	code += log_of(info->depth);
	ev->t.hash[slot] = hash;
	ev->t.past[slot] = (struct past){
		.stamp = ev->tick & STAMP_MASK,
		.code = (uint8_t)code,
		.state = PRESENT,
	};
	learn_entries(ev, ev->class_of[code], 1);
}

/* one leaf in its list, or blocks that are alike. Return: what they are from now on */
static struct past touch_alike(struct wfi_evict *ev, struct past past, unsigned nr)
{
	wfi_curve_use(&ev->curves[ev->class_of[past.code]], (ev->tick - past.stamp) & STAMP_MASK,
		      (float)nr);
	past.stamp = ev->tick & STAMP_MASK;
	past.code = ev->next_code[past.code];
	learn_entries(ev, ev->class_of[past.code], nr);
	return past;
}

static void touch_leaf(struct wfi_evict *ev, uint32_t slot)
{
	leaf_unlink(ev, slot);
	ev->t.past[slot] = touch_alike(ev, ev->t.past[slot], 1);
	leaf_begin(ev, slot);
}

/* blocks of a chain were mostly used together before: they are counted together */
static void gittins_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	struct past *past = ev->t.past;
	unsigned i, first;

	clock_advance(ev, now_ns);
	for (i = 0; i < nr && i < PREFETCH; i++)
		__builtin_prefetch(&past[slots[i]], 1);
	for (i = 0; i < nr;) {
		const struct past old = past[slots[i]];
		struct past new;

		assert(slots[i] < ev->nr_slots && old.state != ABSENT);
		if (old.state == LEAF) {
			touch_leaf(ev, slots[i++]);
			continue;
		}
		new = old;
		new.stamp = ev->tick &STAMP_MASK;
		new.code = ev->next_code[old.code];
		for (first = i; i < nr && past_is_same(past[slots[i]], old); i++) {
			if (i + PREFETCH < nr)
				__builtin_prefetch(&past[slots[i + PREFETCH]], 1);
			past[slots[i]] = new;
		}
		touch_alike(ev, old, i - first);
	}
}

static void gittins_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	assert(slot < ev->nr_slots && ev->t.past[slot].state != ABSENT);
	if (ev->t.past[slot].state == PRESENT)
		leaf_begin(ev, slot);
}

static void gittins_candidate_del(struct wfi_evict *ev, uint32_t slot)
{
	struct past *past = &ev->t.past[slot];

	assert(slot < ev->nr_slots && past->state != ABSENT);
	if (past->state == LEAF)
		leaf_unlink(ev, slot);
	past->state = PRESENT;
}

static void slot_forget(struct wfi_evict *ev, uint32_t slot)
{
	ev->t.past[slot].state = ABSENT;
	if (ev->run.slot == slot)
		ev->run.slot = LINK_NONE;
}

static void gittins_remove(struct wfi_evict *ev, uint32_t slot)
{
	gittins_candidate_del(ev, slot);
	slot_forget(ev, slot);
}

/* Return: the leaf of a class: how little its best candidate is worth */
static uint32_t class_least(struct wfi_evict *ev, unsigned cls)
{
	const float *index = ev->curves[cls].index;
	uint64_t columns = ev->filled[cls];
	float least = 0;
	uint32_t bits;

	if (!columns)
		return LEAF_NONE;
	ev->best[cls] = (uint8_t)__builtin_ctzll(columns);
	least = index[ev->column_age[ev->best[cls]]];
	for (columns &= columns - 1; columns; columns &= columns - 1) {
		const unsigned column = (unsigned)__builtin_ctzll(columns);

		if (index[ev->column_age[column]] >= least)
			continue;
		least = index[ev->column_age[column]];
		ev->best[cls] = (uint8_t)column;
	}
	memcpy(&bits, &least, sizeof(bits));
	return (bits & ~(NR_LEAVES - 1)) | cls;
}

static void tree_refresh(struct wfi_evict *ev)
{
	uint64_t stale = ev->stale & ((1ull << NR_CLASSES) - 1);
	uint32_t *tree = ev->tree;

	for (; stale; stale &= stale - 1) {
		const unsigned cls = (unsigned)__builtin_ctzll(stale);
		const uint32_t leaf = class_least(ev, cls);

		if (tree[NR_LEAVES + cls] == leaf)
			continue;
		tree[NR_LEAVES + cls] = leaf;
		for (unsigned at = (NR_LEAVES + cls) / 2; at; at /= 2)
			tree[at] = tree[2 * at] < tree[2 * at + 1] ? tree[2 * at]
								   : tree[2 * at + 1];
	}
	ev->stale = 0;
}

static uint32_t evict_from(struct wfi_evict *ev, uint32_t slot)
{
	prefetch_leaf(ev, ev->t.links[slot].next);
	ev->victim = ev->t.past[slot];
	ev->victim_tick = ev->tick;
	leaf_unlink(ev, slot);
	ghost_leave(ev, slot);
	slot_forget(ev, slot);
	return slot;
}

/* Return: a list with a leaf that is worth least; NULL when there is no leaf */
static uint32_t *least(struct wfi_evict *ev)
{
	unsigned cls;

	pending_flush(ev);
	if (ev->stale)
		tree_refresh(ev);
	if (ev->tree[1] == LEAF_NONE)
		return NULL;
	cls = ev->tree[1] & (NR_LEAVES - 1);
	return &ev->heads[cls][ev->best[cls]];
}

static uint32_t gittins_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	const uint32_t next = ev->pending[0];
	const uint32_t *head;

	clock_advance(ev, now_ns);
	/* the last victim's parent, and like it: no leaf was worth less, so no list is asked */
	if (ev->nr_pending == 1 && ev->t.past[next].state == PENDING &&
	    past_is_alike(ev->t.past[next], ev->victim) && ev->victim_tick == ev->tick) {
		ev->nr_pending = 0;
		ghost_leave(ev, next);
		slot_forget(ev, next);
		return next;
	}
	head = least(ev);
	return head ? evict_from(ev, *head) : WFI_SLOT_NONE;
}

static uint64_t gittins_bytes(const struct wfi_evict *ev)
{
	return sizeof(*ev) + tables_bytes(ev->nr_slots);
}

const struct wfi_evict_policy wfi_evict_gittins = {
	.name = "gittins",
	.create = gittins_create,
	.destroy = gittins_destroy,
	.resize = gittins_resize,
	.insert = gittins_insert,
	.touch = gittins_touch,
	.candidate_add = gittins_candidate_add,
	.candidate_del = gittins_candidate_del,
	.evict = gittins_evict,
	.remove = gittins_remove,
	.bytes = gittins_bytes,
};
