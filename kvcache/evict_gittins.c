/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicts the block that earns least for its place, by the curve of its class (evict_curve.h). What
 * was tried, and how it measures: docs/eviction.md.
 *
 * A use costs one word: the class and the tick of a block are written in place. Leaves, which
 * alone may go, are put on stacks by class and age (evict_stacks.h). A leaf that is used, or gets a
 * child, stays where it is: it is looked at when it comes up, and put where it belongs by then, or
 * off the stacks. So each use moves it at most once.
 *
 * What is published or used together mostly is alike. So all that is learned or counted is done
 * where that ends: between, a block costs a comparison or two, and its word.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "kvcache/evict_class.h"
#include "kvcache/evict_curve.h"
#include "kvcache/evict_ghosts.h"
#include "kvcache/evict_policies.h"
#include "kvcache/evict_stacks.h"
#include "weft_internal/table.h"
#include "weft_internal/util.h"

#define END WFI_STACK_END

/* the word of a block: its state, whether it leaves a ghost, its code, the tick of its last use */
#define PRESENT 1u
#define LEAF 2u /* may go */
#define STACKED 4u /* on a stack, or waits to be put there, whether or not it is a leaf */
#define LEAVES_GHOST 8u
#define OWN_MASK 15u /* what blocks that are alike may differ in */
#define CODE_SHIFT 4
#define TICK_SHIFT 11

#define PENDING_MAX 32u
#define USES_MAX 32u
#define LOOKS 32u /* at stacks for one victim */

#define TICKS_LOG 3 /* ticks while as many blocks are published as there are slots */
#define WINDOW_LOG 4 /* the first measurement of that time takes 1/16 of it */
#define SHIFT_FIRST 28 /* until then: a quarter of a second a tick */
#define SHIFT_MAX 44

#define KIN_EVERY 32u /* curves learned, until what they have in common is */

static_assert(WFI_CODE_MASK << CODE_SHIFT < 1u << TICK_SHIFT, "the code has its bits");
static_assert(WFI_STACK_TICKS == UINT32_MAX >> TICK_SHIFT, "and ticks have theirs");

/* blocks published one below the other by one request */
struct run {
	uint32_t slot; /* the last; END: none, or gone */
	uint32_t until; /* depth from which its blocks are of another class; 0: to be found */
	uint32_t next_ghost; /* depth of the next that leaves one */
	uint32_t chain_len;
	uint32_t word; /* of its blocks */
	uint64_t now_ns;
	uint32_t nr; /* blocks of that class that are not counted yet */
	unsigned cls;
	uint32_t first_depth;
	unsigned kind; /* of a parent that was itself just published; 0: none */
	unsigned touched; /* code of blocks that had a ghost; 0: the last had none */
	uint32_t resume; /* depth from which they have none; more than any: not known */
};

/* blocks that were alike until they were used */
struct used {
	uint32_t word;
	uint32_t nr;
};

/* what there is for each slot */
struct tables {
	struct wfi_table blocks; /* struct wfi_stack_block */
	struct wfi_table hashes; /* uint32_t: of the keys of blocks that leave a ghost */
	struct wfi_table ghosts; /* struct wfi_ghost_set: one for each four slots */
};

struct wfi_evict {
	struct wfi_stack_block *blocks;
	uint32_t *hashes;
	uint32_t nr_slots;
	uint32_t nr_used; /* of these, as resize says; 0: it says nothing, so all */

	/* the clock: real time, in ticks that follow how fast blocks come */
	uint64_t next_tick_ns; /* 0: not started */
	uint32_t tick;
	uint32_t window_left; /* blocks to come */
	uint64_t tick_ns;
	uint64_t window_ns;
	unsigned shift;
	unsigned window_log;

	struct run run;
	uint32_t victim; /* word of the last that came from a stack in this tick, or 0 */
	uint32_t alike; /* the bits in which its parent must be like it to go next */
	uint32_t nr_pending;
	uint32_t pending[PENDING_MAX];
	uint32_t nr_uses;
	struct used uses[USES_MAX]; /* in this tick, not counted yet */
	struct wfi_code codes[WFI_NR_CODES];

	uint32_t due; /* classes that are to be learned */
	unsigned kin_left;
	struct wfi_curve_kin kin[WFI_NR_KIN];
	struct wfi_curve curves[WFI_NR_CLASSES];
	struct wfi_ghosts ghosts;
	struct wfi_stacks stacks;

	struct wfi_env *env;
	struct tables t;
};

/* slots that are to be used */
static uint32_t room(const struct wfi_evict *ev)
{
	return ev->nr_used ? ev->nr_used : ev->nr_slots;
}

static unsigned word_code(uint32_t word)
{
	return word >> CODE_SHIFT & WFI_CODE_MASK;
}

static uint32_t word_age(const struct wfi_evict *ev, uint32_t word)
{
	return (ev->tick - (word >> TICK_SHIFT)) & WFI_STACK_TICKS;
}

static uint32_t word_now(const struct wfi_evict *ev, unsigned code)
{
	return ev->tick << TICK_SHIFT | code << CODE_SHIFT;
}

static struct wfi_stack_at word_place(const struct wfi_evict *ev, uint32_t word)
{
	return (struct wfi_stack_at){
		.cls = ev->codes[word_code(word)].cls,
		.column = wfi_stacks_column(&ev->stacks, word_age(ev, word)),
	};
}

/* ---- learning ---- */

static void curve_learn(struct wfi_evict *ev, struct wfi_curve *curve)
{
	wfi_curve_learn(curve, &ev->kin[curve->prior.kin], ev->tick);
}

static void kin_learn(struct wfi_evict *ev)
{
	ev->kin_left = KIN_EVERY;
	wfi_curve_kin_learn(ev->curves, WFI_NR_CLASSES, ev->tick, ev->kin, WFI_NR_KIN,
			    WFI_KIN_PROMPT);
}

/* one class at a time: what is due meanwhile waits */
static __attribute__((noinline)) void learn(struct wfi_evict *ev)
{
	const unsigned cls = (unsigned)__builtin_ctz(ev->due);

	ev->due &= ev->due - 1;
	curve_learn(ev, &ev->curves[cls]);
	ev->stacks.stale |= 1u << cls;
	if (!--ev->kin_left)
		kin_learn(ev);
}

static void class_enter(struct wfi_evict *ev, unsigned cls, uint32_t nr)
{
	if (wfi_unlikely(wfi_curve_enter(&ev->curves[cls], nr)))
		ev->due |= 1u << cls;
}

/*
 * Where a use is counted follows from the block's word. Were it counted at once, the next use would
 * wait until that word has come from memory: a processor cannot know that it is counted elsewhere.
 */
static __attribute__((noinline)) void uses_count(struct wfi_evict *ev)
{
	for (uint32_t i = 0; i < ev->nr_uses; i++) {
		const struct used *used = &ev->uses[i];
		const struct wfi_code *code = &ev->codes[word_code(used->word)];

		wfi_curve_use(&ev->curves[code->cls], word_age(ev, used->word), used->nr);
		class_enter(ev, code->again_cls, used->nr);
	}
	ev->nr_uses = 0;
}

/* ---- clock ---- */

static __attribute__((noinline)) void clock_tick(struct wfi_evict *ev, uint64_t now_ns)
{
	const uint64_t ticks = (now_ns - ev->tick_ns) >> ev->shift;

	uses_count(ev);
	if (ev->next_tick_ns) {
		ev->tick += (uint32_t)ticks;
		ev->tick_ns += ticks << ev->shift;
		wfi_stacks_tick(&ev->stacks, ev->blocks, ev->tick);
		ev->victim = 0;
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

/* ---- what is published ---- */

static unsigned kind_new(const struct run *run)
{
	if (run->kind)
		return run->kind;
	/* one block in common is a shared prompt rather than an earlier turn */
	return (run->first_depth > 1 ? WFI_KIND_CONTINUED : WFI_KIND_FRESH) +
	       wfi_class_length(run->chain_len - run->first_depth);
}

/* nobody has used @parent again: what comes below it belongs to the same request */
static void run_inherit(struct wfi_evict *ev, struct run *run, uint32_t parent)
{
	const unsigned code = word_code(ev->blocks[parent].word);

	if (code < WFI_CODE_TOUCHED && code / WFI_CLASS_DEPTHS != WFI_KIND_TAIL)
		run->kind = code / WFI_CLASS_DEPTHS;
}

/* a chain that is published in pieces: what looked like its end is none */
static void run_extend(struct wfi_evict *ev, struct run *run, uint32_t chain_len)
{
	uint32_t *parent = &ev->blocks[run->slot].word;

	if (run->chain_len == chain_len)
		return;
	run->chain_len = chain_len;
	if (word_code(*parent) / WFI_CLASS_DEPTHS == WFI_KIND_TAIL)
		*parent += kind_new(run) * WFI_CLASS_DEPTHS << CODE_SHIFT;
}

static bool run_goes_on(const struct run *run, const struct wfi_evict_info *info, uint64_t now_ns)
{
	return info->parent == run->slot && info->parent != WFI_SLOT_NONE &&
	       info->chain_len == run->chain_len && now_ns == run->now_ns;
}

/* blocks of the run are counted: before anything of it changes */
static void run_count(struct wfi_evict *ev, uint64_t now_ns)
{
	struct run *run = &ev->run;

	class_enter(ev, run->cls, run->nr);
	if (wfi_unlikely(ev->window_left <= run->nr))
		clock_tune(ev, now_ns);
	else
		ev->window_left -= run->nr;
	run->nr = 0;
}

/* another request, or more of one: cold next to the blocks of a run */
static __attribute__((noinline)) void run_begin(struct wfi_evict *ev,
						const struct wfi_evict_info *info, uint64_t now_ns)
{
	struct run *run = &ev->run;

	clock_advance(ev, now_ns);
	uses_count(ev);
	run_count(ev, now_ns);
	if (ev->due)
		learn(ev);
	run->now_ns = now_ns;
	run->until = 0;
	if (run->slot != END && run->slot == info->parent) {
		run_extend(ev, run, info->chain_len);
		return;
	}
	run->kind = 0;
	run->first_depth = info->depth;
	run->chain_len = info->chain_len;
	run->touched = 0;
	run->resume = UINT32_MAX;
	run->next_ghost = wfi_ghosts_next(info->depth);
	if (info->parent != WFI_SLOT_NONE)
		run_inherit(ev, run, info->parent);
}

/* Return: the code of a block with this ghost, which is used up, at depth 0 */
static unsigned ghost_use(struct wfi_evict *ev, uint32_t ghost)
{
	const unsigned code = wfi_ghost_code(ghost);

	wfi_curve_use(&ev->curves[ev->codes[code].cls], wfi_ghost_age(ghost, ev->tick),
		      1u << (code & WFI_CODE_DEPTH_MASK));
	return ev->codes[code].again & ~WFI_CODE_DEPTH_MASK;
}

/*
 * Blocks that leave no ghost are as the one above them was that does. A ghost is missed after
 * others: what comes below blocks that were evicted continues their chain, as it would had they
 * been held. Where it began lies at random between two that leave ghosts: were it always taken for
 * the second, its blocks would leave more ghosts than others do.
 */
static __attribute__((noinline)) void run_look(struct wfi_evict *ev,
					       const struct wfi_evict_info *info, uint32_t *ghost)
{
	struct run *run = &ev->run;
	unsigned touched = 0;

	if (ghost) {
		touched = ghost_use(ev, *ghost);
		*ghost = 0;
	}
	/* no block was used more often than its parent: a ghost that says so is of another time */
	if (touched == run->touched || (run->touched && touched > run->touched))
		return;
	if (touched)
		run->touched = touched;
	else
		run->resume = info->depth +
			      ((uint32_t)(info->key_hash >> 32) & wfi_ghosts_between(info->depth));
	run->until = 0;
}

static void run_resume(struct run *run, uint32_t depth)
{
	run->touched = 0;
	run->resume = UINT32_MAX;
	run->kind = 0;
	run->first_depth = depth;
}

/* blocks from here on may be of another class */
static __attribute__((noinline)) void run_step(struct wfi_evict *ev,
					       const struct wfi_evict_info *info)
{
	struct run *run = &ev->run;
	const uint32_t depth = info->depth;
	unsigned code = WFI_KIND_TAIL * WFI_CLASS_DEPTHS;

	if (run->nr)
		run_count(ev, run->now_ns);
	if (depth >= run->resume)
		run_resume(run, depth);
	if (run->touched)
		code = run->touched;
	else if (depth + 1 < info->chain_len)
		code = kind_new(run) * WFI_CLASS_DEPTHS;
	code += wfi_class_depth(depth);
	run->cls = ev->codes[code].cls;
	run->word = word_now(ev, code) | PRESENT;
	run->until = (uint32_t)wfi_min(wfi_class_below(depth), run->resume);
	if (depth + 1 < info->chain_len)
		run->until = (uint32_t)wfi_min(run->until, info->chain_len - 1);
}

static void gittins_prefetch(struct wfi_evict *ev, uint32_t depth, uint64_t key_hash)
{
	if (wfi_ghosts_has(depth))
		wfi_ghosts_prefetch(&ev->ghosts, (uint32_t)key_hash);
}

static void gittins_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
			   uint64_t now_ns)
{
	const uint32_t hash = (uint32_t)info->key_hash;
	struct run *run = &ev->run;
	uint32_t word = ev->blocks[slot].word;
	uint32_t *ghost;

	assert(slot < ev->nr_slots && !(word & PRESENT));
	if (!run_goes_on(run, info, now_ns))
		run_begin(ev, info, now_ns);
	if (info->depth >= run->next_ghost) {
		ev->hashes[slot] = hash;
		word |= LEAVES_GHOST;
		run->next_ghost = wfi_ghosts_next(info->depth + 1);
		ghost = wfi_ghosts_find(&ev->ghosts, hash);
		if (ghost || run->touched)
			run_look(ev, info, ghost);
	}
	if (info->depth >= run->until)
		run_step(ev, info);
	ev->blocks[slot].word = word | run->word;
	run->slot = slot;
	run->nr++;
}

/* ---- what is used ---- */

static uint32_t word_again(const struct wfi_evict *ev, uint32_t word)
{
	return word_now(ev, ev->codes[word_code(word)].again);
}

/* blocks of a chain were mostly used together before: they are counted together */
static __attribute__((noinline)) void touch_chain(struct wfi_evict *ev, const uint32_t *slots,
						  unsigned nr, uint64_t now_ns)
{
	struct wfi_stack_block *blocks = ev->blocks;
	const uint32_t *const end = slots + nr;

	clock_advance(ev, now_ns);
	while (slots < end) {
		const uint32_t old = blocks[*slots].word & ~OWN_MASK;
		const uint32_t flip = old ^ word_again(ev, old);
		const uint32_t *const first = slots;

		assert(*slots < ev->nr_slots && blocks[*slots].word & PRESENT);
		do {
			blocks[*slots].word ^= flip;
		} while (++slots < end && (blocks[*slots].word ^ old) <= OWN_MASK);
		ev->uses[ev->nr_uses] = (struct used){ old, (uint32_t)(slots - first) };
		if (wfi_unlikely(++ev->nr_uses == USES_MAX))
			uses_count(ev);
	}
	if (wfi_unlikely(ev->due))
		learn(ev);
}

/* a block by itself that is of no chain: short enough to need no registers saved */
static void gittins_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	struct wfi_stack_block *block;
	uint32_t old;

	if (nr != 1 || now_ns >= ev->next_tick_ns || ev->due) {
		touch_chain(ev, slots, nr, now_ns);
		return;
	}
	block = &ev->blocks[*slots];
	old = block->word & ~OWN_MASK;
	assert(*slots < ev->nr_slots && block->word & PRESENT);
	block->word ^= old ^ word_again(ev, old);
	ev->uses[ev->nr_uses] = (struct used){ old, 1 };
	if (wfi_unlikely(++ev->nr_uses == USES_MAX))
		uses_count(ev);
}

/* ---- leaves ---- */

static void push(struct wfi_evict *ev, uint32_t slot, struct wfi_stack_at at)
{
	wfi_stacks_push(&ev->stacks, ev->curves, ev->blocks, slot, at);
}

/* puts what is on no stack where it belongs, if anywhere */
static void place(struct wfi_evict *ev, uint32_t slot)
{
	const uint32_t word = ev->blocks[slot].word;

	if (word & LEAF)
		push(ev, slot, word_place(ev, word));
	else
		ev->blocks[slot].word = word & ~STACKED;
}

/* blocks often become leaves for a moment only: they are put on stacks when one has to go */
static __attribute__((noinline)) void pending_flush(struct wfi_evict *ev)
{
	for (uint32_t i = 0; i < ev->nr_pending; i++)
		place(ev, ev->pending[i]);
	ev->nr_pending = 0;
}

static void gittins_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	const uint32_t word = ev->blocks[slot].word;

	assert(slot < ev->nr_slots && word & PRESENT);
	ev->blocks[slot].word = word | LEAF | STACKED;
	if (word & STACKED)
		return;
	__builtin_prefetch(&ev->hashes[slot]);
	ev->pending[ev->nr_pending] = slot;
	if (wfi_unlikely(++ev->nr_pending == PENDING_MAX))
		pending_flush(ev);
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
	if (wfi_likely(ev->run.slot != slot))
		return;
	ev->run.slot = END;
}

static void gittins_remove(struct wfi_evict *ev, uint32_t slot)
{
	assert(slot < ev->nr_slots && ev->blocks[slot].word & PRESENT);
	block_forget(ev, slot, ev->blocks[slot].word & STACKED);
}

static inline uint32_t evict_block(struct wfi_evict *ev, uint32_t slot, uint32_t word,
				   uint32_t stacked)
{
	if (word & LEAVES_GHOST)
		wfi_ghosts_leave(&ev->ghosts, ev->hashes[slot], word_code(word),
				 word >> TICK_SHIFT);
	block_forget(ev, slot, stacked);
	return slot;
}

/* its parent goes next, if it is of the same class and was used last in the same tick */
static uint32_t evict_top(struct wfi_evict *ev, uint32_t slot, uint32_t word)
{
	ev->victim = word;
	ev->alike = ~LEAVES_GHOST;
	if (word_code(word) < WFI_CODE_TOUCHED)
		ev->alike &= ~(WFI_CODE_DEPTH_MASK << CODE_SHIFT);
	return evict_block(ev, slot, word, 0);
}

static float worth(const struct wfi_evict *ev, uint32_t slot)
{
	const uint32_t word = ev->blocks[slot].word;

	return ev->curves[ev->codes[word_code(word)].cls].index[wfi_curve_age(word_age(ev, word))];
}

/* the cold end of a search. Their places on stacks are left to whoever has the slot next */
static uint32_t evict_looked(struct wfi_evict *ev, const uint32_t *slots, unsigned nr)
{
	uint32_t least = slots[0];

	for (unsigned i = 1; i < nr; i++) {
		if (worth(ev, slots[i]) < worth(ev, least))
			least = slots[i];
	}
	return evict_block(ev, least, ev->blocks[least].word, STACKED);
}

/*
 * What is on the stack that is worth least may belong elsewhere by now. So many are looked at, then
 * the least of them goes
 */
static __attribute__((noinline)) uint32_t evict_from_stacks(struct wfi_evict *ev)
{
	struct wfi_stack_at top, at;
	uint32_t looked[LOOKS];
	unsigned nr = 0;

	for (unsigned looks = 0; looks < LOOKS || !nr; looks++) {
		uint32_t slot, word;

		if (!wfi_stacks_least(&ev->stacks, ev->curves, &top))
			break;
		slot = wfi_stacks_pop(&ev->stacks, ev->blocks, top);
		if (slot == END)
			continue;
		__builtin_prefetch(&ev->hashes[slot]);
		word = ev->blocks[slot].word;
		if (!(word & LEAF)) {
			ev->blocks[slot].word = word & ~STACKED;
			continue;
		}
		at = word_place(ev, word);
		if (at.cls == top.cls && at.column == top.column)
			return evict_top(ev, slot, word);
		push(ev, slot, at);
		looked[nr++] = slot;
	}
	return nr ? evict_looked(ev, looked, nr) : WFI_SLOT_NONE;
}

static uint32_t gittins_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	clock_advance(ev, now_ns);
	if (wfi_likely(ev->nr_pending == 1)) {
		const uint32_t slot = ev->pending[0], word = ev->blocks[slot].word;

		ev->nr_pending = 0;
		/* no leaf was worth less than the last victim: its parent, if like it, goes next */
		if (wfi_likely(!((word ^ ev->victim) & ev->alike)))
			return evict_block(ev, slot, word, 0);
		place(ev, slot);
	} else if (ev->nr_pending) {
		pending_flush(ev);
	}
	return evict_from_stacks(ev);
}

/* ---- tables ---- */

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
	ret = wfi_table_init(env, &t->blocks, nr_slots * sizeof(struct wfi_stack_block), 0);
	if (ret)
		return ret;
	ret = wfi_table_init(env, &t->hashes, nr_slots * sizeof(uint32_t), 0);
	if (ret)
		goto err_blocks;
	ret = wfi_table_init(env, &t->ghosts, wfi_ghosts_bytes(nr_slots), 0);
	if (ret)
		goto err_hashes;
	return 0;

err_hashes:
	wfi_table_fini(env, &t->hashes);
err_blocks:
	wfi_table_fini(env, &t->blocks);
	return ret;
}

static void tables_set(struct wfi_evict *ev, const struct tables *t, uint32_t nr_slots)
{
	ev->t = *t;
	ev->blocks = t->blocks.addr;
	ev->hashes = t->hashes.addr;
	ev->nr_slots = nr_slots;
	wfi_ghosts_use(&ev->ghosts, t->ghosts.addr, room(ev));
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
	ev->alike = STACKED; /* what is pending is, so nothing is like no victim */
	wfi_codes_fill(ev->codes);
	wfi_stacks_init(&ev->stacks);
	for (unsigned cls = 0; cls < WFI_NR_CLASSES; cls++)
		ev->curves[cls].prior = wfi_class_prior(cls);
	kin_learn(ev);
	for (unsigned cls = 0; cls < WFI_NR_CLASSES; cls++)
		curve_learn(ev, &ev->curves[cls]);
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
		wfi_table_use(ev->env, &ev->t.ghosts, wfi_ghosts_bytes(nr_slots));
		wfi_ghosts_use(&ev->ghosts, ev->t.ghosts.addr, room(ev));
		return 0;
	}
	ret = tables_init(ev->env, &t, nr_slots);
	if (ret < 0)
		return ret;
	if (ev->nr_slots) {
		memcpy(t.blocks.addr, ev->blocks, ev->nr_slots * sizeof(*ev->blocks));
		memcpy(t.hashes.addr, ev->hashes, ev->nr_slots * sizeof(*ev->hashes));
		memcpy(t.ghosts.addr, ev->t.ghosts.addr, wfi_ghosts_bytes(ev->nr_slots));
	}
	tables_fini(ev->env, &ev->t);
	ev->nr_used = nr_slots;
	tables_set(ev, &t, nr_slots);
	return 0;
}

static uint64_t gittins_bytes(const struct wfi_evict *ev)
{
	const uint64_t nr = room(ev);

	return sizeof(*ev) + nr * (sizeof(*ev->blocks) + sizeof(*ev->hashes)) +
	       wfi_ghosts_bytes(room(ev));
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
