/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicts the block that earns least for its place. Blocks of one class (what they are known to have
 * done) share a curve, learned online: by age since the last use, the most uses to be hoped for per
 * tick that the block is kept, over all the times it could be kept for. That is the Gittins index
 * of keeping it. What was tried, and how it measures: docs/eviction.md.
 *
 * Each class keeps its blocks in order of last use, as evict_lru.c does for all. A curve may rise
 * with age (people need time to answer), so that the least is found at either end of a class: its
 * oldest candidate, or its youngest, which is known from a hint.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "kvcache/evict_policies.h"
#include "weft_internal/util.h"

#define LINK_END UINT32_MAX
#define HASH_BITS 30
#define STAMP_BITS 20
#define STAMP_MASK ((1u << STAMP_BITS) - 1)

#define TOUCHES_MAX 4
#define LOG_MAX 7 /* logarithms of lengths end here */
#define CLASS_TAIL 0
#define CLASS_FRESH 1
#define CLASS_CONTINUED (CLASS_FRESH + LOG_MAX + 1)
#define CLASS_TOUCHED (CLASS_CONTINUED + LOG_MAX + 1)
#define NR_CLASSES (CLASS_TOUCHED + TOUCHES_MAX * (LOG_MAX + 1))

#define NR_LEAVES 64u /* of the tree over all classes */
#define LEAF_NONE UINT32_MAX

#define NR_AGES 32 /* two an octave of ticks */
#define TICKS_LOG 4 /* ticks while as many blocks are published as there are slots */
#define WINDOW_LOG 4 /* the first measurement of that time takes 1/16 of it */
#define SHIFT_FIRST 28 /* until then: a quarter of a second a tick */
#define SHIFT_MAX 44

#define GHOST_TAG_BITS 11
#define GHOST_STAMP_BITS 12
#define GHOST_STAMP_MASK ((1u << GHOST_STAMP_BITS) - 1)
#define GHOSTS_PER_SLOT 2

#define MEMORY 16384.0f /* uses of a class after which old ones count half */
#define PRIOR_WEIGHT 128.0f /* uses' worth of belief before any is seen */
#define PRIOR_SHAPE 64.0f
#define RELEARN_MIN 16u
#define PREFETCH 8u /* blocks ahead */
#define WALK_MAX 16 /* steps to find the next youngest */

enum node_state {
	NODE_ABSENT,
	NODE_PARKED, /* found at the old end while it could not be chosen */
	NODE_LISTED,
	NODE_CANDIDATE,
};

/* what a block is known to have done; one word, written whole */
struct history {
	uint32_t stamp : STAMP_BITS; /* tick of the last use */
	uint32_t cls : 6;
	uint32_t touches : 3;
	uint32_t depth_log : 3;
};

struct node {
	uint32_t newer;
	uint32_t older;
	uint32_t hash : HASH_BITS;
	uint32_t state : 2;
	struct history past;
};

/* a block that was evicted: what it would have hit, and what it had done */
struct ghost {
	uint32_t tag : GHOST_TAG_BITS;
	uint32_t stamp : GHOST_STAMP_BITS;
	uint32_t cls : 6;
	uint32_t touches : 3; /* plus 1; 0: no ghost */
};

static_assert(sizeof(struct node) == 16, "four nodes a cache line");
static_assert(sizeof(struct ghost) == 4, "two ghosts a slot make 24 bytes a slot");
static_assert(NR_CLASSES <= NR_LEAVES, "a bit each in a mask");

struct curve {
	float index[NR_AGES];
	float uses[NR_AGES]; /* by age at the use */
	float nr; /* blocks that entered the class */
	float prior; /* chance of another use, before any is seen */
	uint32_t since; /* entered since the index was computed */
	uint32_t newest;
	uint32_t oldest;
	uint32_t youngest; /* hint: the youngest candidate, if it still is one of this class */
	uint32_t nr_candidates;
	uint32_t victim; /* its candidate with the least index, while the class is not stale */
};

/* blocks published one after the other, each the child of the one before */
struct run {
	uint64_t now_ns;
	uint32_t slot; /* the last; LINK_END: none, or gone */
	uint32_t depth;
	uint32_t first_depth;
	uint32_t chain_len;
};

struct wfi_evict {
	struct wfi_env *env;
	struct node *nodes;
	struct ghost *ghosts;
	uint32_t nr_slots;

	/* the clock: real time, in ticks that follow how fast blocks come */
	uint32_t tick;
	uint32_t first_tick;
	unsigned shift;
	unsigned window_log;
	uint32_t window_left;
	uint64_t tick_ns;
	uint64_t window_ns;
	bool started;

	/*
	 * the class to evict from: a tree of minima, the root at 1 and the leaves from NR_LEAVES. A
	 * leaf is the bits of its class's least index (not negative, so that they sort as integers
	 * do), with the class in the lowest six
	 */
	uint32_t tree[2 * NR_LEAVES];
	uint64_t stale; /* classes whose leaf and victim must be found anew */

	struct run run;
	float shape[NR_AGES]; /* uses of all classes by age */
	float shape_sum;
	struct curve curves[NR_CLASSES];
};

static unsigned log_of(uint32_t v)
{
	unsigned log = v ? 32 - (unsigned)__builtin_clz(v) : 0;

	return log < LOG_MAX ? log : LOG_MAX;
}

static unsigned age_bucket(uint32_t age)
{
	unsigned log, bucket;

	age += 2;
	log = 31 - (unsigned)__builtin_clz(age);
	bucket = 2 * log - 2 + (age >> (log - 1) & 1);
	return bucket < NR_AGES ? bucket : NR_AGES - 1;
}

static uint32_t bucket_start(unsigned bucket)
{
	return ((2u + (bucket & 1)) << (bucket / 2)) - 2;
}

static uint32_t node_age(const struct wfi_evict *ev, const struct node *node)
{
	return (ev->tick - node->past.stamp) & STAMP_MASK;
}

static float node_index(const struct wfi_evict *ev, const struct node *node)
{
	return ev->curves[node->past.cls].index[age_bucket(node_age(ev, node))];
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
	static const float continued[LOG_MAX + 1] = {
		.45f, .45f, .45f, .3f, .15f, .07f, .07f, .07f
	};

	if (cls == CLASS_TAIL)
		return .03f;
	if (cls < CLASS_CONTINUED)
		return .42f - .04f * (float)(cls - CLASS_FRESH);
	if (cls < CLASS_TOUCHED)
		return continued[cls - CLASS_CONTINUED];
	return 1 - 1.1f / (float)(2 + (cls - CLASS_TOUCHED) / (LOG_MAX + 1));
}

/* chance of a use in each span of ages, and of none before it */
static void curve_chances(const struct wfi_evict *ev, const struct curve *curve, float *use,
			  float *kept)
{
	float shape_unit = PRIOR_WEIGHT * curve->prior / (ev->shape_sum + PRIOR_SHAPE);
	float per_tick = 1 / (float)(ev->tick - ev->first_tick + 1);
	float used = 0;

	for (unsigned i = 0; i < NR_AGES; i++) {
		float seen = 1 - (float)bucket_start(i) * per_tick;
		float nr = PRIOR_WEIGHT;

		/* the younger the node, the fewer blocks can have reached this age */
		if (seen > 0)
			nr += curve->nr * seen;
		use[i] =
			(curve->uses[i] + shape_unit * (ev->shape[i] + PRIOR_SHAPE / NR_AGES)) / nr;
		kept[i] = used < .99f ? 1 - used : .01f;
		used += use[i];
	}
}

/* the steepest way on from each age: the upper hull of uses over time, from the last age back */
static void curve_learn(const struct wfi_evict *ev, struct curve *curve)
{
	float use[NR_AGES], kept[NR_AGES], hull_uses[NR_AGES], hull_time[NR_AGES];
	unsigned top = 0;

	curve_chances(ev, curve, use, kept);
	for (unsigned i = NR_AGES; i-- > 0;) {
		float span = (float)(bucket_start(i + 1) - bucket_start(i));
		float uses = use[i];
		float time = (kept[i] > use[i] ? kept[i] - use[i] / 2 : kept[i] / 2) * span;

		while (top && hull_uses[top - 1] * time > uses * hull_time[top - 1]) {
			uses += hull_uses[--top];
			time += hull_time[top];
		}
		hull_uses[top] = uses;
		hull_time[top++] = time;
		curve->index[i] = uses / time;
	}
	curve->since = 0;
}

static void forget_half(float *uses)
{
	for (unsigned i = 0; i < NR_AGES; i++)
		uses[i] /= 2;
}

static void learn_entry(struct wfi_evict *ev, struct curve *curve)
{
	curve->nr++;
	if (wfi_likely(++curve->since < RELEARN_MIN || (float)curve->since * 64 < curve->nr))
		return;
	if (curve->nr > MEMORY) {
		curve->nr /= 2;
		forget_half(curve->uses);
	}
	curve_learn(ev, curve);
	ev->stale |= 1ull << (curve - ev->curves);
}

static void learn_use(struct wfi_evict *ev, unsigned cls, uint32_t age)
{
	unsigned bucket = age_bucket(age);

	ev->curves[cls].uses[bucket]++;
	ev->shape[bucket]++;
	ev->shape_sum++;
	if (wfi_unlikely(ev->shape_sum > 16 * MEMORY)) {
		ev->shape_sum /= 2;
		forget_half(ev->shape);
	}
}

/* ---- clock ---- */

static void clock_advance(struct wfi_evict *ev, uint64_t now_ns)
{
	uint64_t ticks = (now_ns - ev->tick_ns) >> ev->shift;

	if (wfi_unlikely(!ev->started)) {
		ev->started = true;
		ev->tick_ns = now_ns;
		ev->window_ns = now_ns;
		return;
	}
	if (!ticks)
		return;
	ev->tick += (uint32_t)ticks;
	ev->tick_ns += ticks << ev->shift;
	ev->stale = UINT64_MAX;
}

/* the cold end of a window: as many blocks have come as it was set for */
static void clock_tune(struct wfi_evict *ev, uint64_t now_ns)
{
	uint64_t elapsed = now_ns - ev->window_ns;
	unsigned shift = ev->window_log;
	bool first = ev->window_log == WINDOW_LOG;

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

/* ---- lists ---- */

static void unlink_node(struct wfi_evict *ev, const struct node *node)
{
	struct curve *curve = &ev->curves[node->past.cls];

	if (node->newer != LINK_END)
		ev->nodes[node->newer].older = node->older;
	else
		curve->newest = node->older;
	if (node->older != LINK_END)
		ev->nodes[node->older].newer = node->newer;
	else
		curve->oldest = node->newer;
}

/* between @older and the one newer than it; LINK_END as @older: at the old end of its class */
static void link_after(struct wfi_evict *ev, uint32_t slot, unsigned cls, uint32_t older)
{
	struct node *node = &ev->nodes[slot];
	struct curve *curve = &ev->curves[cls];
	uint32_t newer = older != LINK_END ? ev->nodes[older].newer : curve->oldest;

	node->older = older;
	node->newer = newer;
	if (older != LINK_END)
		ev->nodes[older].newer = slot;
	else
		curve->oldest = slot;
	if (newer != LINK_END)
		ev->nodes[newer].older = slot;
	else
		curve->newest = slot;
}

static bool is_candidate_of(const struct wfi_evict *ev, uint32_t slot, unsigned cls)
{
	return slot != LINK_END && ev->nodes[slot].state == NODE_CANDIDATE &&
	       ev->nodes[slot].past.cls == cls;
}

static void candidate_begin(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];
	struct curve *curve = &ev->curves[node->past.cls];

	node->state = NODE_CANDIDATE;
	curve->nr_candidates++;
	ev->stale |= 1ull << node->past.cls;
	if (!is_candidate_of(ev, curve->youngest, node->past.cls) ||
	    node_age(ev, node) <= node_age(ev, &ev->nodes[curve->youngest]))
		curve->youngest = slot;
}

static void candidate_end(struct wfi_evict *ev, struct node *node)
{
	node->state = NODE_LISTED;
	ev->curves[node->past.cls].nr_candidates--;
	ev->stale |= 1ull << node->past.cls;
}

/* the class has candidates. Bounded over time: a block is parked at most once after each use */
static uint32_t oldest_candidate(struct wfi_evict *ev, struct curve *curve)
{
	uint32_t slot;

	while (ev->nodes[slot = curve->oldest].state != NODE_CANDIDATE) {
		unlink_node(ev, &ev->nodes[slot]);
		ev->nodes[slot].state = NODE_PARKED;
		if (ev->run.slot == slot)
			ev->run.slot = LINK_END;
	}
	return slot;
}

/* ---- ghosts ---- */

static struct ghost *ghost_at(const struct wfi_evict *ev, uint32_t hash)
{
	uint64_t len = (uint64_t)ev->nr_slots * GHOSTS_PER_SLOT;

	return &ev->ghosts[hash * len >> HASH_BITS];
}

static void ghost_leave(struct wfi_evict *ev, const struct node *node)
{
	*ghost_at(ev, (uint32_t)node->hash) = (struct ghost){
		.tag = node->hash,
		.stamp = node->past.stamp,
		.cls = node->past.cls,
		.touches = node->past.touches + 1,
	};
}

/* Return: how often the block had been used again before it was evicted, plus 1; 0: not known */
static unsigned ghost_take(struct wfi_evict *ev, uint32_t hash)
{
	struct ghost *ghost = ghost_at(ev, hash);
	unsigned touches = ghost->touches;

	if (!touches || ghost->tag != (hash & ((1u << GHOST_TAG_BITS) - 1)))
		return 0;
	learn_use(ev, ghost->cls, (ev->tick - ghost->stamp) & GHOST_STAMP_MASK);
	ghost->touches = 0;
	return touches;
}

/* ---- the table ---- */

static void free_arrays(struct wfi_env *env, struct node *nodes, struct ghost *ghosts, uint32_t nr)
{
	if (nodes)
		wfi_free(env, nodes, nr * sizeof(*nodes));
	if (ghosts)
		wfi_free(env, ghosts, (uint64_t)nr * GHOSTS_PER_SLOT * sizeof(*ghosts));
}

static int alloc_arrays(struct wfi_env *env, uint32_t nr, struct node **nodes,
			struct ghost **ghosts)
{
	struct node *n;
	struct ghost *g;

	if (nr >= LINK_END)
		return -ENOMEM;
	n = wfi_alloc(env, nr * sizeof(*n));
	g = wfi_alloc(env, (uint64_t)nr * GHOSTS_PER_SLOT * sizeof(*g));
	if (!n || !g) {
		free_arrays(env, n, g, nr);
		return -ENOMEM;
	}
	*nodes = n;
	*ghosts = g;
	return 0;
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
	ret = alloc_arrays(env, nr_slots, &ev->nodes, &ev->ghosts);
	if (ret < 0) {
		wfi_free(env, ev, sizeof(*ev));
		return ret;
	}
	ev->env = env;
	ev->nr_slots = nr_slots;
	ev->shift = SHIFT_FIRST;
	ev->window_log = WINDOW_LOG;
	ev->window_left = nr_slots >> WINDOW_LOG;
	ev->run.slot = LINK_END;
	memset(ev->tree, 0xff, sizeof(ev->tree));
	for (unsigned i = 0; i < NR_CLASSES; i++) {
		struct curve *curve = &ev->curves[i];

		curve->prior = class_prior(i);
		curve->newest = LINK_END;
		curve->oldest = LINK_END;
		curve->youngest = LINK_END;
		curve_learn(ev, curve);
	}
	*out = ev;
	return 0;
}

static void gittins_destroy(struct wfi_evict *ev)
{
	if (!ev)
		return;
	free_arrays(ev->env, ev->nodes, ev->ghosts, ev->nr_slots);
	wfi_free(ev->env, ev, sizeof(*ev));
}

static int gittins_resize(struct wfi_evict *ev, uint32_t nr_slots)
{
	struct node *nodes;
	struct ghost *ghosts;
	int ret;

	if (nr_slots <= ev->nr_slots)
		return 0;
	ret = alloc_arrays(ev->env, nr_slots, &nodes, &ghosts);
	if (ret < 0)
		return ret;
	/* where a ghost lies depends on how many there are: they start anew */
	memcpy(nodes, ev->nodes, ev->nr_slots * sizeof(*nodes));
	free_arrays(ev->env, ev->nodes, ev->ghosts, ev->nr_slots);
	ev->nodes = nodes;
	ev->ghosts = ghosts;
	ev->nr_slots = nr_slots;
	return 0;
}

static unsigned class_of(const struct run *run, const struct history *past, bool tail)
{
	if (past->touches)
		return CLASS_TOUCHED + (past->touches - 1u) * (LOG_MAX + 1) + past->depth_log;
	if (tail)
		return CLASS_TAIL;
	/* one block in common is a shared prompt rather than an earlier turn */
	return (run->first_depth > 1 ? CLASS_CONTINUED : CLASS_FRESH) +
	       log_of(run->chain_len - run->first_depth);
}

/* Return: whether the block is the child of the one before */
static bool run_extend(struct run *run, uint32_t slot, const struct wfi_evict_info *info,
		       uint64_t now_ns)
{
	bool child = run->slot != LINK_END && run->now_ns == now_ns &&
		     info->depth == run->depth + 1 && info->chain_len == run->chain_len;

	if (!child)
		run->first_depth = info->depth;
	run->now_ns = now_ns;
	run->depth = info->depth;
	run->chain_len = info->chain_len;
	run->slot = slot;
	return child;
}

static void gittins_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
			   uint64_t now_ns)
{
	struct node *node = &ev->nodes[slot];
	uint32_t hash = (uint32_t)info->key_hash & ((1u << HASH_BITS) - 1);
	uint32_t parent = ev->run.slot;
	struct history past;
	unsigned touches;
	bool child;

	assert(slot < ev->nr_slots && node->state == NODE_ABSENT);
	clock_advance(ev, now_ns);
	if (wfi_unlikely(!ev->window_left--))
		clock_tune(ev, now_ns);
	child = run_extend(&ev->run, slot, info, now_ns);
	touches = ghost_take(ev, hash);
	past.stamp = ev->tick;
	past.touches = touches < TOUCHES_MAX ? touches : TOUCHES_MAX;
	past.depth_log = log_of(info->depth);
	past.cls = class_of(&ev->run, &past, info->depth + 1 == info->chain_len);
	node->hash = hash;
	node->state = NODE_LISTED;
	node->past = past;
	/* a chain is published head first, but its tail is to be the oldest of it */
	if (child && ev->nodes[parent].past.cls == past.cls)
		link_after(ev, slot, past.cls, ev->nodes[parent].older);
	else
		link_after(ev, slot, past.cls, ev->curves[past.cls].newest);
	learn_entry(ev, &ev->curves[past.cls]);
}

static void touch_one(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];
	struct history past = node->past;
	bool candidate = node->state == NODE_CANDIDATE;

	assert(slot < ev->nr_slots && node->state != NODE_ABSENT);
	learn_use(ev, past.cls, node_age(ev, node));
	if (candidate)
		candidate_end(ev, node);
	if (node->state == NODE_PARKED)
		node->state = NODE_LISTED;
	else
		unlink_node(ev, node);
	if (past.touches < TOUCHES_MAX)
		past.touches++;
	past.stamp = ev->tick;
	past.cls = class_of(&ev->run, &past, false);
	node->past = past;
	link_after(ev, slot, past.cls, ev->curves[past.cls].newest);
	if (candidate)
		candidate_begin(ev, slot);
	learn_entry(ev, &ev->curves[past.cls]);
}

/* the neighbours of a block in its list are seldom those in its chain */
static void prefetch_links(const struct wfi_evict *ev, const struct node *node)
{
	if (node->newer != LINK_END)
		__builtin_prefetch(&ev->nodes[node->newer], 1);
	if (node->older != LINK_END)
		__builtin_prefetch(&ev->nodes[node->older], 1);
}

static void gittins_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	clock_advance(ev, now_ns);
	for (unsigned i = 0; i < nr && i < PREFETCH; i++)
		__builtin_prefetch(&ev->nodes[slots[i]], 1);
	for (unsigned i = 0; i < nr; i++) {
		if (i + PREFETCH < nr)
			__builtin_prefetch(&ev->nodes[slots[i + PREFETCH]], 1);
		if (i + PREFETCH / 2 < nr)
			prefetch_links(ev, &ev->nodes[slots[i + PREFETCH / 2]]);
		touch_one(ev, slots[i]);
	}
}

static void gittins_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != NODE_ABSENT);
	if (node->state == NODE_CANDIDATE)
		return;
	if (node->state == NODE_PARKED)
		link_after(ev, slot, node->past.cls, LINK_END);
	candidate_begin(ev, slot);
}

static void gittins_candidate_del(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != NODE_ABSENT);
	if (node->state == NODE_CANDIDATE)
		candidate_end(ev, node);
}

static void gittins_remove(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != NODE_ABSENT);
	if (node->state == NODE_CANDIDATE)
		candidate_end(ev, node);
	if (node->state != NODE_PARKED)
		unlink_node(ev, node);
	node->state = NODE_ABSENT;
	if (ev->run.slot == slot)
		ev->run.slot = LINK_END;
}

/* Return: the leaf of a class: how little its victim is worth */
static uint32_t class_victim(struct wfi_evict *ev, unsigned cls)
{
	struct curve *curve = &ev->curves[cls];
	float least, index;
	uint32_t bits;

	if (!curve->nr_candidates)
		return LEAF_NONE;
	curve->victim = oldest_candidate(ev, curve);
	least = node_index(ev, &ev->nodes[curve->victim]);
	if (is_candidate_of(ev, curve->youngest, cls)) {
		index = node_index(ev, &ev->nodes[curve->youngest]);
		if (index < least) {
			least = index;
			curve->victim = curve->youngest;
		}
	}
	memcpy(&bits, &least, sizeof(bits));
	return (bits & ~(NR_LEAVES - 1)) | cls;
}

static void tree_refresh(struct wfi_evict *ev)
{
	uint64_t stale = ev->stale & ((1ull << NR_CLASSES) - 1);
	uint32_t *tree = ev->tree;

	for (; stale; stale &= stale - 1) {
		unsigned cls = (unsigned)__builtin_ctzll(stale);
		uint32_t leaf = class_victim(ev, cls);

		if (tree[NR_LEAVES + cls] == leaf)
			continue;
		tree[NR_LEAVES + cls] = leaf;
		for (unsigned at = (NR_LEAVES + cls) / 2; at; at /= 2)
			tree[at] = tree[2 * at] < tree[2 * at + 1] ? tree[2 * at]
								   : tree[2 * at + 1];
	}
	ev->stale = 0;
}

/* the youngest goes: the next is near, on the older side, or its parent, which becomes one soon */
static void youngest_step(struct wfi_evict *ev, struct curve *curve, const struct node *node)
{
	uint32_t slot = node->older;
	unsigned steps = 0;

	while (slot != LINK_END && ev->nodes[slot].state != NODE_CANDIDATE && steps++ < WALK_MAX)
		slot = ev->nodes[slot].older;
	curve->youngest = slot;
}

static uint32_t gittins_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	struct curve *curve;
	struct node *node;
	uint32_t slot;

	clock_advance(ev, now_ns);
	tree_refresh(ev);
	if (ev->tree[1] == LEAF_NONE)
		return WFI_SLOT_NONE;
	curve = &ev->curves[ev->tree[1] & (NR_LEAVES - 1)];
	slot = curve->victim;
	node = &ev->nodes[slot];
	if (curve->youngest == slot)
		youngest_step(ev, curve, node);
	ghost_leave(ev, node);
	gittins_remove(ev, slot);
	return slot;
}

static uint64_t gittins_bytes(const struct wfi_evict *ev)
{
	return sizeof(*ev) + (uint64_t)ev->nr_slots *
				     (sizeof(*ev->nodes) + GHOSTS_PER_SLOT * sizeof(*ev->ghosts));
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
