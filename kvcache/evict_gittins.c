/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicts the block that earns least for its place, by the curve of its class (evict_curve.h). What
 * was tried, and how it measures: docs/eviction.md.
 *
 * A use costs one word: the class and the tick of a block are written in place. Leaves, which alone
 * may go, are put on stacks: one for each class and span of ages, so that all on a stack are worth
 * the same. A leaf that is used, or gets a child, stays where it is: it is looked at when it comes
 * up, and put where it belongs by then, or off the stacks. So each use moves it at most once. Where
 * ages of two spans have come close, their stacks become one. The victim is the top of the stack
 * that is worth least: a tree of minima over the classes leads to it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "kvcache/evict_curve.h"
#include "kvcache/evict_policies.h"
#include "weft_internal/table.h"
#include "weft_internal/util.h"

#define END UINT32_MAX /* of a stack */

/*
 * what is known of a block is in a code of 7 bits: what it is, or how often it was used again; and
 * two for its depth
 */
#define DEPTHS 4u /* to 3, 15, 63, and below */
#define LENGTHS 7u /* 1, to 3, 7, 15, 31, 63, and more */
#define KIND_TAIL 0u /* the last block of its chain */
#define KIND_FRESH 1u /* by the number of new blocks */
#define KIND_CONTINUED (KIND_FRESH + LENGTHS)
#define NR_KINDS (KIND_CONTINUED + LENGTHS)
#define TOUCHES_MAX 4u
#define CODE_TOUCHED (NR_KINDS * DEPTHS)
#define NR_CODES (CODE_TOUCHED + TOUCHES_MAX * DEPTHS)
#define NR_CLASSES (NR_KINDS + TOUCHES_MAX * DEPTHS)

/* the word of a block: its state, its code, the tick of its last use */
#define PRESENT 1u
#define LEAF 2u /* may go */
#define STACKED 4u /* on a stack, or waits to be put there, whether or not it is a leaf */
#define STATE_MASK 7u
#define CODE_SHIFT 3
#define CODE_MASK 0x7fu
#define STAMP_SHIFT 10
#define STAMP_MASK (UINT32_MAX >> STAMP_SHIFT)

#define NR_LEAVES 32u /* of the tree over all classes */
#define NOTHING UINT32_MAX /* no leaf of this class */
#define NR_SPANS 32u /* of ages: bits of a mask */
#define NEAR_AGES 64u /* ticks back whose span is in a table */
#define PENDING_MAX 32u
#define LOOKS 32u /* at stacks for one victim */

#define TICKS_LOG 3 /* ticks while as many blocks are published as there are slots */
#define WINDOW_LOG 4 /* the first measurement of that time takes 1/16 of it */
#define SHIFT_FIRST 28 /* until then: a quarter of a second a tick */
#define SHIFT_MAX 44

/* the word of a ghost: its code plus 1, the tick of its last use, and bits of the hash */
#define GHOST_WAYS 4u
#define GHOST_NONE 0u
#define GHOST_CODE_MASK 0xffu
#define GHOST_STAMP_SHIFT 8
#define GHOST_STAMP_MASK 0xfffu
#define GHOST_TAG_MASK 0xfff00000u
/* what one of a chain has done, its neighbours have done: all of the first class of depths are
 * remembered, and one in as many below */
#define GHOST_ALL 4u
#define GHOST_EVERY 3u
#define HASH_NONE 0u /* of a block that leaves no ghost */
#define NR_LEAVING 8u

#define LEARN_EVERY 16u /* uses and blocks, until another class is looked at */

struct block {
	uint32_t word;
	uint32_t next; /* below it on its stack */
};

/* blocks that were evicted: what they would have hit, and what they had done. The latest first */
struct ghosts {
	uint32_t words[GHOST_WAYS];
};

static_assert(sizeof(struct block) == 8, "eight blocks a cache line");
static_assert(NR_CODES <= CODE_MASK && NR_CLASSES <= NR_LEAVES, "seven bits, and one of 32");

struct stack {
	uint32_t top; /* END: empty */
	uint32_t bottom;
};

/* a span of ticks in which leaves were used last; the column of stacks that is theirs */
struct span {
	uint32_t first;
	uint32_t last;
	uint8_t column;
};

/* blocks published one below the other by one request */
struct run {
	uint32_t slot; /* the last; END: none, or gone */
	uint32_t first_depth;
	uint32_t chain_len;
	uint64_t now_ns;
	unsigned kind; /* of a parent that was itself just published; 0: none */
	unsigned code; /* of its blocks, but the last, at depth 0 */
	unsigned touched; /* code of blocks that had a ghost, at depth 0; 0: the last had none */
	uint32_t resume; /* depth from which they have none; more than any: not known */
};

/* a ghost that is not written yet */
struct leaving {
	uint32_t hash;
	uint32_t word; /* of the block */
};

/* what there is for each slot */
struct tables {
	struct wfi_table blocks; /* struct block */
	struct wfi_table hashes; /* uint32_t: of the key */
	struct wfi_table ghosts; /* struct ghosts: a set for each four slots */
};

struct wfi_evict {
	struct block *blocks;
	uint32_t *hashes;
	struct ghosts *ghosts;
	uint32_t nr_sets; /* of ghosts */
	uint32_t sets_mask; /* the least 2^n - 1 that has all sets */

	/* the clock: real time, in ticks that follow how fast blocks come */
	uint32_t tick;
	uint32_t nr_inserts;
	uint32_t seen_inserts; /* when a run began last */
	uint32_t window_left; /* blocks to come */
	uint64_t tick_ns;
	uint64_t next_tick_ns; /* 0: not started */
	uint64_t window_ns;
	unsigned shift;
	unsigned window_log;

	uint32_t nr_leaving;
	struct leaving leaving[NR_LEAVING];
	uint32_t victim; /* word of the last that came from a stack in this tick, or 0 */
	uint32_t nr_pending;
	uint32_t pending[PENDING_MAX];
	struct run run;

	uint32_t stale; /* classes whose leaf in the tree must be found anew */
	uint32_t filled[NR_CLASSES]; /* columns whose stack is not known to be empty */
	uint8_t best[NR_CLASSES]; /* the column with the least index */
	/*
	 * a tree of minima, the root at 1 and the leaves from NR_LEAVES. A leaf is the bits of its
	 * class's least index (not negative, so that they sort as integers do), with the class in
	 * the lowest five
	 */
	uint32_t tree[2 * NR_LEAVES];

	unsigned nr_spans;
	struct span spans[NR_SPANS]; /* the youngest first */
	uint32_t free_columns;
	uint8_t near[NEAR_AGES]; /* column by age */
	uint8_t column_age[NR_SPANS];
	uint8_t class_of[NR_CODES];
	uint8_t next_code[NR_CODES]; /* after another use */

	uint32_t learn_left;
	unsigned learn_next;
	float shape[WFI_CURVE_AGES];
	struct wfi_curve curves[NR_CLASSES];
	struct stack stacks[NR_CLASSES][NR_SPANS];

	struct wfi_env *env;
	struct tables t;
	uint32_t nr_slots;
	uint32_t nr_used; /* of these, as resize says; 0: it says nothing, so all */
};

/* slots that are to be used */
static uint32_t room(const struct wfi_evict *ev)
{
	return ev->nr_used ? ev->nr_used : ev->nr_slots;
}

static unsigned word_code(uint32_t word)
{
	return word >> CODE_SHIFT & CODE_MASK;
}

static uint32_t word_age(const struct wfi_evict *ev, uint32_t word)
{
	return (ev->tick - (word >> STAMP_SHIFT)) & STAMP_MASK;
}

static uint32_t word_now(const struct wfi_evict *ev, unsigned code)
{
	return ev->tick << STAMP_SHIFT | code << CODE_SHIFT;
}

static unsigned log_of(uint32_t v)
{
	return 31 - (unsigned)__builtin_clz(v);
}

static unsigned depth_class(uint32_t depth)
{
	const unsigned log = log_of(depth | 1) / 2;

	return log < DEPTHS ? log : DEPTHS - 1;
}

static unsigned length_class(uint32_t len)
{
	const unsigned log = log_of(len | 1);

	return log < LENGTHS ? log : LENGTHS - 1;
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
	static const float continued[LENGTHS] = { .45f, .45f, .3f, .15f, .07f, .07f, .07f };

	if (cls == KIND_TAIL)
		return .03f;
	if (cls < KIND_CONTINUED)
		return .38f - .04f * (float)(cls - KIND_FRESH);
	if (cls < NR_KINDS)
		return continued[cls - KIND_CONTINUED];
	return 1 - 1.1f / (float)(2 + (cls - NR_KINDS) / DEPTHS);
}

static __attribute__((noinline)) void learn_next(struct wfi_evict *ev)
{
	struct wfi_curve *curve = &ev->curves[ev->learn_next];

	ev->learn_left = LEARN_EVERY;
	if (wfi_curve_is_due(curve)) {
		wfi_curve_learn(curve, ev->shape, ev->tick);
		ev->stale |= 1u << ev->learn_next;
	}
	if (++ev->learn_next < NR_CLASSES)
		return;
	ev->learn_next = 0;
	wfi_curve_shape(ev->curves, NR_CLASSES, ev->shape);
}

/* so many blocks were used or published */
static void learn_after(struct wfi_evict *ev, uint32_t nr)
{
	if (wfi_unlikely(ev->learn_left <= nr))
		learn_next(ev);
	else
		ev->learn_left -= nr;
}

/* ---- stacks of leaves ---- */

static unsigned column_of(const struct wfi_evict *ev, uint32_t word)
{
	const uint32_t age = word_age(ev, word);
	unsigned i = 0;

	if (wfi_likely(age < NEAR_AGES))
		return ev->near[age];
	while (i + 1 < ev->nr_spans && ((ev->tick - ev->spans[i].first) & STAMP_MASK) < age)
		i++;
	return ev->spans[i].column;
}

static void stack_push(struct wfi_evict *ev, uint32_t slot, uint32_t word)
{
	const unsigned cls = ev->class_of[word_code(word)];
	const unsigned column = column_of(ev, word);
	struct stack *stack = &ev->stacks[cls][column];

	ev->blocks[slot].next = stack->top;
	if (stack->top == END)
		stack->bottom = slot;
	stack->top = slot;
	if (!(ev->filled[cls] & 1u << column)) {
		ev->filled[cls] |= 1u << column;
		ev->stale |= 1u << cls;
	}
}

static void prefetch_block(const struct wfi_evict *ev, uint32_t slot)
{
	__builtin_prefetch(&ev->blocks[slot], 1);
	__builtin_prefetch(&ev->hashes[slot]);
}

/* Return: END when there is none. Only then is it known to be empty: often more is to come */
static uint32_t stack_pop(struct wfi_evict *ev, unsigned cls, unsigned column)
{
	struct stack *stack = &ev->stacks[cls][column];
	const uint32_t slot = stack->top;

	if (slot == END) {
		ev->filled[cls] &= ~(1u << column);
		ev->stale |= 1u << cls;
		return END;
	}
	stack->top = ev->blocks[slot].next;
	if (stack->top != END)
		prefetch_block(ev, stack->top);
	return slot;
}

/* puts what is on no stack where it belongs, if anywhere */
static void stack_place(struct wfi_evict *ev, uint32_t slot)
{
	const uint32_t word = ev->blocks[slot].word;

	if (word & LEAF)
		stack_push(ev, slot, word);
	else
		ev->blocks[slot].word = word & ~STACKED;
}

/* blocks often become leaves for a moment only: they are put on stacks when one has to go */
static __attribute__((noinline)) void pending_flush(struct wfi_evict *ev)
{
	for (uint32_t i = 0; i < ev->nr_pending; i++)
		stack_place(ev, ev->pending[i]);
	ev->nr_pending = 0;
}

/* ---- spans ---- */

static void stacks_join(struct wfi_evict *ev, struct stack *into, struct stack *from)
{
	if (from->top == END)
		return;
	if (into->top == END)
		into->top = from->top;
	else
		ev->blocks[into->bottom].next = from->top;
	into->bottom = from->bottom;
	from->top = END;
}

/* the span after @at becomes part of it */
static void span_merge(struct wfi_evict *ev, unsigned at)
{
	struct span *span = &ev->spans[at];
	const uint32_t old = 1u << span[1].column;

	for (unsigned cls = 0; cls < NR_CLASSES; cls++) {
		if (!(ev->filled[cls] & old))
			continue;
		stacks_join(ev, &ev->stacks[cls][span->column], &ev->stacks[cls][span[1].column]);
		ev->filled[cls] = (ev->filled[cls] & ~old) | 1u << span->column;
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
		.column = (uint8_t)__builtin_ctz(ev->free_columns),
	};
	ev->free_columns &= ev->free_columns - 1;
	near_fill(ev);
	ev->stale = (1ull << NR_CLASSES) - 1;
	ev->victim = 0;
}

/* ---- clock ---- */

static __attribute__((noinline)) void clock_tick(struct wfi_evict *ev, uint64_t now_ns)
{
	const uint64_t ticks = (now_ns - ev->tick_ns) >> ev->shift;

	if (ev->next_tick_ns) {
		ev->tick += (uint32_t)ticks;
		ev->tick_ns += ticks << ev->shift;
		span_begin(ev);
	} else {
		ev->tick_ns = now_ns;
		ev->window_ns = now_ns;
	}
	ev->next_tick_ns = ev->tick_ns + (1ull << ev->shift);
}

static void clock_advance(struct wfi_evict *ev, uint64_t now_ns)
{
	if (wfi_unlikely(now_ns >= ev->next_tick_ns))
		clock_tick(ev, now_ns);
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
	ev->next_tick_ns = ev->tick_ns + (1ull << ev->shift);
	if (ev->window_log)
		ev->window_log--;
	ev->window_ns = now_ns;
	ev->window_left = room(ev) >> ev->window_log;
}

/* ---- ghosts ---- */

static bool ghost_is_sampled(uint32_t depth)
{
	return depth < GHOST_ALL || !(depth % GHOST_EVERY);
}

/* as linear hashing does: most stay where they are when sets are added. Bit 0 is always set */
static struct ghosts *ghosts_of(const struct wfi_evict *ev, uint32_t hash)
{
	uint32_t set = hash >> 1 & ev->sets_mask;

	if (set >= ev->nr_sets)
		set &= ev->sets_mask >> 1;
	return &ev->ghosts[set];
}

/* the multiplication's upper bits are of all bits of the hash */
static uint32_t ghost_tag(uint32_t hash)
{
	return hash * 0x9e3779b1u & GHOST_TAG_MASK;
}

static void ghost_write(struct wfi_evict *ev, uint32_t hash, uint32_t word)
{
	struct ghosts *set = ghosts_of(ev, hash);

	set->words[3] = set->words[2];
	set->words[2] = set->words[1];
	set->words[1] = set->words[0];
	set->words[0] = ghost_tag(hash) |
			(word >> STAMP_SHIFT & GHOST_STAMP_MASK) << GHOST_STAMP_SHIFT |
			(word_code(word) + 1);
}

/* written some evictions later, when its line has come */
static void ghost_leave(struct wfi_evict *ev, uint32_t slot, uint32_t word)
{
	const uint32_t hash = ev->hashes[slot];
	struct leaving *at = &ev->leaving[ev->nr_leaving % NR_LEAVING];
	const struct leaving old = *at;

	if (hash == HASH_NONE)
		return;
	__builtin_prefetch(ghosts_of(ev, hash), 1);
	*at = (struct leaving){ hash, word };
	ev->nr_leaving++;
	if (wfi_likely(old.hash != HASH_NONE))
		ghost_write(ev, old.hash, old.word);
}

/* Return: the code of a block at depth 0 that is published again after it was @code */
static unsigned code_again(unsigned code)
{
	const unsigned touches = code < CODE_TOUCHED ? 0 : (code - CODE_TOUCHED) / DEPTHS + 1;

	return CODE_TOUCHED + (touches < TOUCHES_MAX ? touches : TOUCHES_MAX - 1) * DEPTHS;
}

static unsigned ghost_use(struct wfi_evict *ev, uint32_t *ghost)
{
	const unsigned code = (*ghost & GHOST_CODE_MASK) - 1;
	const uint32_t age = (ev->tick - (*ghost >> GHOST_STAMP_SHIFT)) & GHOST_STAMP_MASK;

	wfi_curve_use(&ev->curves[ev->class_of[code]], age, code % DEPTHS ? GHOST_EVERY : 1);
	*ghost = GHOST_NONE;
	return code_again(code);
}

/* Return: as code_again(); 0: there is no ghost */
static unsigned ghost_take(struct wfi_evict *ev, uint32_t hash)
{
	struct ghosts *set = ghosts_of(ev, hash);
	const uint32_t tag = ghost_tag(hash);
	unsigned at = GHOST_WAYS;

	/* no branch for each: where it lies cannot be foreseen */
	for (unsigned i = 0; i < GHOST_WAYS; i++)
		at = (set->words[i] ^ tag) & GHOST_TAG_MASK ? at : i;
	if (at == GHOST_WAYS || set->words[at] == GHOST_NONE)
		return 0;
	return ghost_use(ev, &set->words[at]);
}

/* ---- tables ---- */

static uint64_t ghosts_bytes(uint32_t nr_slots)
{
	return (nr_slots + GHOST_WAYS - 1ull) / GHOST_WAYS * sizeof(struct ghosts);
}

static void tables_fini(struct wfi_env *env, struct tables *t)
{
	wfi_table_fini(env, &t->blocks);
	wfi_table_fini(env, &t->hashes);
	wfi_table_fini(env, &t->ghosts);
}

static int tables_init(struct wfi_env *env, struct tables *t, uint32_t nr_slots)
{
	int ret;

	if (nr_slots == END)
		return -ENOMEM;
	ret = wfi_table_init(env, &t->blocks, nr_slots * sizeof(struct block), 0);
	if (ret)
		return ret;
	ret = wfi_table_init(env, &t->hashes, nr_slots * sizeof(uint32_t), 0);
	if (ret)
		goto err_blocks;
	ret = wfi_table_init(env, &t->ghosts, ghosts_bytes(nr_slots), 0);
	if (ret)
		goto err_hashes;
	return 0;

err_hashes:
	wfi_table_fini(env, &t->hashes);
err_blocks:
	wfi_table_fini(env, &t->blocks);
	return ret;
}

static void ghosts_use(struct wfi_evict *ev)
{
	ev->nr_sets = (uint32_t)(ghosts_bytes(room(ev)) / sizeof(*ev->ghosts));
	ev->sets_mask = ev->nr_sets > 1 ? UINT32_MAX >> __builtin_clz(ev->nr_sets - 1) : 0;
}

static void tables_set(struct wfi_evict *ev, const struct tables *t, uint32_t nr_slots)
{
	ev->t = *t;
	ev->blocks = t->blocks.addr;
	ev->hashes = t->hashes.addr;
	ev->ghosts = t->ghosts.addr;
	ev->nr_slots = nr_slots;
	ghosts_use(ev);
}

static void codes_init(struct wfi_evict *ev)
{
	for (unsigned code = 0; code < NR_CODES; code++) {
		ev->class_of[code] = (uint8_t)(code < CODE_TOUCHED
						       ? code / DEPTHS
						       : code - CODE_TOUCHED + NR_KINDS);
		ev->next_code[code] = (uint8_t)(code_again(code) + code % DEPTHS);
	}
}

static int gittins_create(struct wfi_env *env, uint32_t nr_slots, uint64_t seed,
			  struct wfi_evict **out)
{
	struct wfi_evict *ev;
	struct tables t;
	int ret;

	(void)seed;
	ev = wfi_alloc(env, sizeof(*ev));
	if (!ev)
		return -ENOMEM;
	ret = tables_init(env, &t, nr_slots);
	if (ret < 0) {
		wfi_free(env, ev, sizeof(*ev));
		return ret;
	}
	ev->env = env;
	tables_set(ev, &t, nr_slots);
	ev->shift = SHIFT_FIRST;
	ev->window_log = WINDOW_LOG;
	ev->window_left = nr_slots >> ev->window_log;
	ev->run.slot = END;
	ev->learn_left = LEARN_EVERY;
	ev->free_columns = UINT32_MAX;
	memset(ev->tree, 0xff, sizeof(ev->tree));
	memset(ev->stacks, 0xff, sizeof(ev->stacks));
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
	tables_fini(ev->env, &ev->t);
	wfi_free(ev->env, ev, sizeof(*ev));
}

static int gittins_resize(struct wfi_evict *ev, uint32_t nr_slots)
{
	struct tables t;
	int ret;

	if (nr_slots <= ev->nr_slots) {
		ev->nr_used = (uint32_t)wfi_max(ev->nr_used, nr_slots);
		wfi_table_use(ev->env, &ev->t.blocks, nr_slots * sizeof(*ev->blocks));
		wfi_table_use(ev->env, &ev->t.hashes, nr_slots * sizeof(*ev->hashes));
		wfi_table_use(ev->env, &ev->t.ghosts, ghosts_bytes(nr_slots));
		ghosts_use(ev);
		return 0;
	}
	ret = tables_init(ev->env, &t, nr_slots);
	if (ret < 0)
		return ret;
	if (ev->nr_slots) {
		memcpy(t.blocks.addr, ev->blocks, ev->nr_slots * sizeof(*ev->blocks));
		memcpy(t.hashes.addr, ev->hashes, ev->nr_slots * sizeof(*ev->hashes));
		memcpy(t.ghosts.addr, ev->ghosts, ghosts_bytes(ev->nr_slots));
	}
	tables_fini(ev->env, &ev->t);
	ev->nr_used = nr_slots;
	tables_set(ev, &t, nr_slots);
	return 0;
}

static unsigned kind_new(const struct run *run)
{
	if (run->kind)
		return run->kind;
	/* one block in common is a shared prompt rather than an earlier turn */
	return (run->first_depth > 1 ? KIND_CONTINUED : KIND_FRESH) +
	       length_class(run->chain_len - run->first_depth);
}

/* nobody has used @parent again: what comes below it belongs to the same request */
static void run_inherit(struct wfi_evict *ev, struct run *run, uint32_t parent)
{
	const unsigned code = word_code(ev->blocks[parent].word);

	if (code < CODE_TOUCHED && code / DEPTHS != KIND_TAIL)
		run->kind = code / DEPTHS;
}

static void run_extend(struct wfi_evict *ev, const struct wfi_evict_info *info)
{
	struct run *run = &ev->run;
	uint32_t *parent;
	unsigned code;

	if (run->slot == END || info->parent != run->slot) {
		*run = (struct run){ .first_depth = info->depth,
				     .chain_len = info->chain_len,
				     .resume = UINT32_MAX };
		if (info->parent != WFI_SLOT_NONE)
			run_inherit(ev, run, info->parent);
	} else if (run->chain_len != info->chain_len) {
		/* a chain that is published in pieces: what looked like its end is none */
		run->chain_len = info->chain_len;
		parent = &ev->blocks[info->parent].word;
		code = word_code(*parent);
		if (code / DEPTHS == KIND_TAIL)
			*parent += kind_new(run) * DEPTHS << CODE_SHIFT;
	}
}

/* another request, or more of one: cold next to the blocks of a run */
static __attribute__((noinline)) void run_begin(struct wfi_evict *ev,
						const struct wfi_evict_info *info, uint64_t now_ns)
{
	const uint32_t nr = ev->nr_inserts - ev->seen_inserts;

	clock_advance(ev, now_ns);
	ev->seen_inserts = ev->nr_inserts;
	if (wfi_unlikely(ev->window_left <= nr))
		clock_tune(ev, now_ns);
	else
		ev->window_left -= nr;
	learn_after(ev, nr);
	run_extend(ev, info);
	ev->run.now_ns = now_ns;
	ev->run.code = kind_new(&ev->run) * DEPTHS;
}

/*
 * A ghost is missed after others: what comes below blocks that were evicted continues their chain,
 * as it would had they been held. Where it began lies at random between two that leave ghosts: were
 * it always taken for the second, its blocks would leave more ghosts than others do.
 */
static void run_miss(struct run *run, const struct wfi_evict_info *info)
{
	const uint32_t every = info->depth < GHOST_ALL ? 1 : GHOST_EVERY;

	run->resume = info->depth + (uint32_t)(info->key_hash >> 32) % every;
}

static void run_resume(struct run *run, uint32_t depth)
{
	run->touched = 0;
	run->resume = UINT32_MAX;
	run->kind = 0;
	run->first_depth = depth;
	run->code = kind_new(run) * DEPTHS;
}

static void gittins_prefetch(struct wfi_evict *ev, uint32_t depth, uint64_t key_hash)
{
	if (ghost_is_sampled(depth))
		__builtin_prefetch(ghosts_of(ev, (uint32_t)key_hash), 1);
}

static void gittins_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
			   uint64_t now_ns)
{
	struct run *run = &ev->run;
	uint32_t hash = HASH_NONE;
	unsigned code, touched;

	assert(slot < ev->nr_slots && !(ev->blocks[slot].word & PRESENT));
	if (wfi_unlikely(info->parent != run->slot || info->parent == WFI_SLOT_NONE ||
			 info->chain_len != run->chain_len || now_ns != run->now_ns))
		run_begin(ev, info, now_ns);
	run->slot = slot;
	/* the others are as the one before them was */
	if (ghost_is_sampled(info->depth)) {
		hash = (uint32_t)info->key_hash | 1;
		touched = ghost_take(ev, hash);
		if (touched || !run->touched)
			run->touched = touched;
		else
			run_miss(run, info);
	}
	if (wfi_unlikely(info->depth >= run->resume))
		run_resume(run, info->depth);
	code = info->depth + 1 == info->chain_len ? KIND_TAIL * DEPTHS : run->code;
	if (run->touched)
		code = run->touched;
	code += depth_class(info->depth);
	ev->hashes[slot] = hash;
	ev->blocks[slot].word = word_now(ev, code) | PRESENT | (ev->blocks[slot].word & STACKED);
	ev->curves[ev->class_of[code]].since++;
	ev->nr_inserts++;
}

/* blocks of a chain were mostly used together before: they are counted together */
static void gittins_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	struct block *blocks = ev->blocks;
	unsigned i = 0;

	clock_advance(ev, now_ns);
	while (i < nr) {
		const uint32_t old = blocks[slots[i]].word & ~STATE_MASK;
		const unsigned code = word_code(old), next = ev->next_code[code];
		const uint32_t flip = word_now(ev, next) ^ old;
		const unsigned first = i;

		do {
			assert(slots[i] < ev->nr_slots && blocks[slots[i]].word & PRESENT);
			blocks[slots[i++]].word ^= flip;
		} while (i < nr && (blocks[slots[i]].word ^ old) <= STATE_MASK);
		wfi_curve_use(&ev->curves[ev->class_of[code]], word_age(ev, old), i - first);
		ev->curves[ev->class_of[next]].since += i - first;
	}
	learn_after(ev, nr);
}

static void gittins_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	const uint32_t word = ev->blocks[slot].word;

	assert(slot < ev->nr_slots && word & PRESENT);
	ev->blocks[slot].word = word | LEAF | STACKED;
	if (word & STACKED)
		return;
	if (wfi_unlikely(ev->nr_pending == PENDING_MAX))
		pending_flush(ev);
	ev->pending[ev->nr_pending++] = slot;
	__builtin_prefetch(&ev->hashes[slot]);
}

static void gittins_candidate_del(struct wfi_evict *ev, uint32_t slot)
{
	assert(slot < ev->nr_slots && ev->blocks[slot].word & PRESENT);
	ev->blocks[slot].word &= ~LEAF;
}

/* @stacked: STACKED, if something still leads there */
static void block_forget(struct wfi_evict *ev, uint32_t slot, uint32_t stacked)
{
	ev->blocks[slot].word = stacked;
	if (ev->run.slot == slot)
		ev->run.slot = END;
}

static void gittins_remove(struct wfi_evict *ev, uint32_t slot)
{
	assert(slot < ev->nr_slots && ev->blocks[slot].word & PRESENT);
	block_forget(ev, slot, ev->blocks[slot].word & STACKED);
}

/* Return: the leaf of a class: how little its best candidate is worth */
static uint32_t class_least(struct wfi_evict *ev, unsigned cls)
{
	const float *index = ev->curves[cls].index;
	uint32_t columns = ev->filled[cls], bits;
	float least;

	if (!columns)
		return NOTHING;
	ev->best[cls] = (uint8_t)__builtin_ctz(columns);
	least = index[ev->column_age[ev->best[cls]]];
	for (columns &= columns - 1; columns; columns &= columns - 1) {
		const unsigned column = (unsigned)__builtin_ctz(columns);

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
	uint32_t stale = ev->stale;
	uint32_t *tree = ev->tree;

	for (; stale; stale &= stale - 1) {
		const unsigned cls = (unsigned)__builtin_ctz(stale);
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

/* @stacked: as block_forget() */
static uint32_t evict_block(struct wfi_evict *ev, uint32_t slot, uint32_t stacked)
{
	ghost_leave(ev, slot, ev->blocks[slot].word);
	block_forget(ev, slot, stacked);
	return slot;
}

static float worth(const struct wfi_evict *ev, uint32_t word)
{
	return ev->curves[ev->class_of[word_code(word)]].index[wfi_curve_age(word_age(ev, word))];
}

/*
 * What is on the stack that is worth least may belong elsewhere by now. So many are looked at; then
 * the least of them goes, and its place on a stack is left to whoever has the slot next.
 */
static uint32_t evict_from_stacks(struct wfi_evict *ev)
{
	uint32_t slot, word, least = END;

	for (unsigned looks = 0; looks < LOOKS || least == END; looks++) {
		unsigned cls, column;

		if (ev->stale)
			tree_refresh(ev);
		if (ev->tree[1] == NOTHING)
			break;
		cls = ev->tree[1] & (NR_LEAVES - 1);
		column = ev->best[cls];
		slot = stack_pop(ev, cls, column);
		if (slot == END)
			continue;
		word = ev->blocks[slot].word;
		if (wfi_likely(word & LEAF && ev->class_of[word_code(word)] == cls &&
			       column_of(ev, word) == column)) {
			ev->victim = word;
			return evict_block(ev, slot, 0);
		}
		stack_place(ev, slot);
		if (word & LEAF &&
		    (least == END || worth(ev, word) < worth(ev, ev->blocks[least].word)))
			least = slot;
	}
	return least == END ? WFI_SLOT_NONE : evict_block(ev, least, STACKED);
}

static uint32_t gittins_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	const uint32_t next = ev->pending[0];

	clock_advance(ev, now_ns);
	/* the last victim's parent, and like it: no leaf was worth less, so no stack is asked */
	if (ev->nr_pending == 1 && ev->blocks[next].word == ev->victim) {
		ev->nr_pending = 0;
		return evict_block(ev, next, 0);
	}
	pending_flush(ev);
	return evict_from_stacks(ev);
}

static uint64_t gittins_bytes(const struct wfi_evict *ev)
{
	const uint64_t nr = room(ev);

	return sizeof(*ev) + nr * (sizeof(*ev->blocks) + sizeof(*ev->hashes)) +
	       ghosts_bytes(room(ev));
}

const struct wfi_evict_policy wfi_evict_gittins = {
	.name = "gittins",
	.create = gittins_create,
	.destroy = gittins_destroy,
	.resize = gittins_resize,
	.prefetch = gittins_prefetch,
	.insert = gittins_insert,
	.touch = gittins_touch,
	.candidate_add = gittins_candidate_add,
	.candidate_del = gittins_candidate_del,
	.evict = gittins_evict,
	.remove = gittins_remove,
	.bytes = gittins_bytes,
};
