/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The references that order blocks in lists, each by its paper, where the cache has no tree:
 *
 *   s3fifo  Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction,
 *           SOSP 2023
 *   arc     Megiddo, Modha: ARC, a self-tuning, low overhead replacement cache, FAST 2003
 *   lfu     least frequently used, counts bounded and halved with time, as in Robinson,
 *           Devarakonda: Data cache management using frequency-based replacement, SIGMETRICS
 *           1990; among equal counts the least recently used
 *
 * What the tree adds is the same for all: a block that may not go is set aside when it is found at
 * the old end of its list, and comes back to that end once it may. That is at most once after each
 * use, so the work is bounded over time. Ghosts are tables of fingerprints with the time at which
 * they came, as in the authors' own code of S3-FIFO.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "kvcache/evict_policies.h"
#include "weft_internal/util.h"

#define LINK_END UINT32_MAX
#define NR_LISTS 16u
#define GHOST_WAYS 4u
#define AGE_USES 10ull /* a slot, after which counts are halved */

/* lists */
#define SMALL 0u
#define MAIN 1u
#define SEEN_ONCE 0u
#define SEEN_MORE 1u

enum state { ABSENT, PARKED, LISTED, CANDIDATE };

struct node {
	uint32_t newer;
	uint32_t older;
	uint32_t hash;
	uint8_t state;
	uint8_t list; /* as it was in the epoch below */
	uint8_t epoch;
	uint8_t freq;
};

struct ghost {
	uint32_t hash; /* 0: none */
	uint32_t stamp : 31;
	uint32_t list : 1;
};

static_assert(sizeof(struct node) == 16 && sizeof(struct ghost) == 8, "24 bytes a slot");

struct list {
	uint32_t newest;
	uint32_t oldest;
	uint32_t nr; /* parked ones as well */
	uint32_t nr_candidates;
};

struct wfi_evict {
	struct wfi_env *env;
	struct node *nodes;
	struct ghost *ghosts;
	uint32_t nr_slots;
	struct list lists[NR_LISTS];
	uint32_t clock[2]; /* ghosts that came, by the list they came from */
	uint32_t nr_ghosts[2];
	uint32_t target; /* arc: blocks of the first list */
	uint64_t uses; /* lfu: since counts were halved */
	uint8_t epoch;
};

/* ---- lists ---- */

/* lfu moves whole lists when counts are halved; in the others the epoch never changes */
static unsigned list_of(const struct wfi_evict *ev, const struct node *node)
{
	const unsigned epochs = (uint8_t)(ev->epoch - node->epoch);

	return epochs < 4 ? node->list >> epochs : 0;
}

static void list_set(struct wfi_evict *ev, struct node *node, unsigned list)
{
	node->list = (uint8_t)list;
	node->epoch = ev->epoch;
}

static void unlink_node(struct wfi_evict *ev, const struct node *node)
{
	struct list *list = &ev->lists[list_of(ev, node)];

	if (node->newer != LINK_END)
		ev->nodes[node->newer].older = node->older;
	else
		list->newest = node->older;
	if (node->older != LINK_END)
		ev->nodes[node->older].newer = node->newer;
	else
		list->oldest = node->newer;
}

static void link_newest(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];
	struct list *list = &ev->lists[list_of(ev, node)];

	node->older = list->newest;
	node->newer = LINK_END;
	if (list->newest != LINK_END)
		ev->nodes[list->newest].newer = slot;
	else
		list->oldest = slot;
	list->newest = slot;
}

static void link_oldest(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];
	struct list *list = &ev->lists[list_of(ev, node)];

	node->newer = list->oldest;
	node->older = LINK_END;
	if (list->oldest != LINK_END)
		ev->nodes[list->oldest].older = slot;
	else
		list->newest = slot;
	list->oldest = slot;
}

/* to the young end of @list, from wherever it is */
static void move(struct wfi_evict *ev, uint32_t slot, unsigned list)
{
	struct node *node = &ev->nodes[slot];
	const unsigned from = list_of(ev, node);
	const bool candidate = node->state == CANDIDATE;

	if (node->state == PARKED)
		node->state = LISTED;
	else
		unlink_node(ev, node);
	ev->lists[from].nr--;
	ev->lists[from].nr_candidates -= candidate;
	list_set(ev, node, list);
	ev->lists[list].nr++;
	ev->lists[list].nr_candidates += candidate;
	link_newest(ev, slot);
}

/* the list has candidates */
static uint32_t oldest_candidate(struct wfi_evict *ev, unsigned list)
{
	uint32_t slot;

	while (ev->nodes[slot = ev->lists[list].oldest].state != CANDIDATE) {
		unlink_node(ev, &ev->nodes[slot]);
		ev->nodes[slot].state = PARKED;
	}
	return slot;
}

static void lists_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != ABSENT);
	if (node->state == CANDIDATE)
		return;
	if (node->state == PARKED)
		link_oldest(ev, slot);
	node->state = CANDIDATE;
	ev->lists[list_of(ev, node)].nr_candidates++;
}

static void lists_candidate_del(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != ABSENT);
	if (node->state != CANDIDATE)
		return;
	node->state = LISTED;
	ev->lists[list_of(ev, node)].nr_candidates--;
}

static void lists_remove(struct wfi_evict *ev, uint32_t slot)
{
	struct node *node = &ev->nodes[slot];

	lists_candidate_del(ev, slot);
	if (node->state != PARKED)
		unlink_node(ev, node);
	ev->lists[list_of(ev, node)].nr--;
	node->state = ABSENT;
}

static void insert(struct wfi_evict *ev, uint32_t slot, uint32_t hash, unsigned list)
{
	struct node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state == ABSENT);
	node->hash = hash;
	node->freq = 0;
	node->state = LISTED;
	list_set(ev, node, list);
	ev->lists[list].nr++;
	link_newest(ev, slot);
}

/* ---- ghosts ---- */

static uint32_t hash_of(const struct wfi_evict_info *info)
{
	return (uint32_t)info->key_hash | 1;
}

static struct ghost *ghost_set(const struct wfi_evict *ev, uint32_t hash)
{
	return &ev->ghosts[GHOST_WAYS * ((uint64_t)hash * (ev->nr_slots / GHOST_WAYS) >> 32)];
}

static uint32_t ghost_age(const struct wfi_evict *ev, const struct ghost *g)
{
	return g->hash ? (ev->clock[g->list] - g->stamp) & INT32_MAX : UINT32_MAX;
}

static void ghost_leave(struct wfi_evict *ev, uint32_t hash, unsigned list)
{
	struct ghost *set = ghost_set(ev, hash), *oldest = set;

	if (ev->nr_slots < GHOST_WAYS)
		return;
	for (unsigned i = 1; i < GHOST_WAYS; i++)
		if (ghost_age(ev, &set[i]) > ghost_age(ev, oldest))
			oldest = &set[i];
	*oldest = (struct ghost){ .hash = hash,
				  .stamp = ev->clock[list] & INT32_MAX,
				  .list = list & 1 };
	ev->clock[list]++;
	ev->nr_ghosts[list]++;
}

/* Return: the list that it came from, -1 when it is not remembered. @limits: of both lists */
static int ghost_take(struct wfi_evict *ev, uint32_t hash, const uint32_t limits[2])
{
	struct ghost *set = ghost_set(ev, hash);

	if (ev->nr_slots < GHOST_WAYS)
		return -1;
	for (unsigned i = 0; i < 2; i++)
		ev->nr_ghosts[i] = (uint32_t)wfi_min(ev->nr_ghosts[i], limits[i]);
	for (unsigned i = 0; i < GHOST_WAYS; i++) {
		const unsigned list = set[i].list;

		if (set[i].hash != hash || ghost_age(ev, &set[i]) >= limits[list])
			continue;
		set[i].hash = 0;
		ev->nr_ghosts[list] -= ev->nr_ghosts[list] > 0;
		return (int)list;
	}
	return -1;
}

static void lists_prefetch(struct wfi_evict *ev, uint32_t depth, uint64_t key_hash)
{
	const struct wfi_evict_info info = { .depth = depth, .key_hash = key_hash };

	__builtin_prefetch(ghost_set(ev, hash_of(&info)), 1);
}

/* ---- create, destroy ---- */

static void free_arrays(struct wfi_env *env, struct node *nodes, struct ghost *ghosts, uint32_t nr)
{
	if (nodes)
		wfi_free(env, nodes, nr * sizeof(*nodes));
	if (ghosts)
		wfi_free(env, ghosts, nr * sizeof(*ghosts));
}

static int alloc_arrays(struct wfi_env *env, uint32_t nr, struct node **nodes,
			struct ghost **ghosts)
{
	struct node *n = wfi_alloc(env, nr * sizeof(*n));
	struct ghost *g = wfi_alloc(env, nr * sizeof(*g));

	if (nr == LINK_END || !n || !g) {
		free_arrays(env, n, g, nr);
		return -ENOMEM;
	}
	*nodes = n;
	*ghosts = g;
	return 0;
}

static int lists_create(struct wfi_env *env, uint32_t nr_slots, uint64_t seed,
			struct wfi_evict **out)
{
	struct wfi_evict *ev = wfi_alloc(env, sizeof(*ev));
	int ret;

	(void)seed;
	if (!ev)
		return -ENOMEM;
	ret = alloc_arrays(env, nr_slots, &ev->nodes, &ev->ghosts);
	if (ret < 0) {
		wfi_free(env, ev, sizeof(*ev));
		return ret;
	}
	ev->env = env;
	ev->nr_slots = nr_slots;
	for (unsigned i = 0; i < NR_LISTS; i++)
		ev->lists[i] = (struct list){ .newest = LINK_END, .oldest = LINK_END };
	*out = ev;
	return 0;
}

static void lists_destroy(struct wfi_evict *ev)
{
	if (!ev)
		return;
	free_arrays(ev->env, ev->nodes, ev->ghosts, ev->nr_slots);
	wfi_free(ev->env, ev, sizeof(*ev));
}

static int lists_resize(struct wfi_evict *ev, uint32_t nr_slots)
{
	struct ghost *ghosts;
	struct node *nodes;
	int ret;

	if (nr_slots <= ev->nr_slots)
		return 0;
	ret = alloc_arrays(ev->env, nr_slots, &nodes, &ghosts);
	if (ret < 0)
		return ret;
	/* where a ghost lies depends on how many there are: they start anew */
	memcpy(nodes, ev->nodes, ev->nr_slots * sizeof(*nodes));
	free_arrays(ev->env, ev->nodes, ev->ghosts, ev->nr_slots);
	memset(ev->nr_ghosts, 0, sizeof(ev->nr_ghosts));
	ev->nodes = nodes;
	ev->ghosts = ghosts;
	ev->nr_slots = nr_slots;
	return 0;
}

static uint64_t lists_bytes(const struct wfi_evict *ev)
{
	return sizeof(*ev) + (uint64_t)ev->nr_slots * (sizeof(*ev->nodes) + sizeof(*ev->ghosts));
}

/* ---- s3fifo ---- */

static void s3fifo_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
			  uint64_t now_ns)
{
	const uint32_t limits[2] = { ev->nr_slots - ev->nr_slots / 10, 0 };
	const uint32_t hash = hash_of(info);

	(void)now_ns;
	insert(ev, slot, hash, ghost_take(ev, hash, limits) >= 0 ? MAIN : SMALL);
}

static void s3fifo_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	(void)now_ns;
	for (unsigned i = 0; i < nr; i++)
		if (ev->nodes[slots[i]].freq < 3)
			ev->nodes[slots[i]].freq++;
}

static uint32_t s3fifo_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	(void)now_ns;
	while (ev->lists[SMALL].nr_candidates || ev->lists[MAIN].nr_candidates) {
		const bool small = ev->lists[SMALL].nr_candidates &&
				   (ev->lists[SMALL].nr >= ev->nr_slots / 10 ||
				    !ev->lists[MAIN].nr_candidates);
		const uint32_t slot = oldest_candidate(ev, small ? SMALL : MAIN);
		struct node *node = &ev->nodes[slot];

		if (small && node->freq > 1) {
			node->freq = 0;
			move(ev, slot, MAIN);
			continue;
		}
		if (!small && node->freq) {
			node->freq--;
			move(ev, slot, MAIN);
			continue;
		}
		if (small)
			ghost_leave(ev, node->hash, SMALL);
		lists_remove(ev, slot);
		return slot;
	}
	return WFI_SLOT_NONE;
}

/* ---- arc ---- */

static void arc_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
		       uint64_t now_ns)
{
	const uint32_t room = ev->nr_slots;
	const uint32_t once = (uint32_t)wfi_min(ev->lists[SEEN_ONCE].nr, room);
	const uint32_t limits[2] = { room - once, once };
	const uint32_t hash = hash_of(info);
	const int list = ghost_take(ev, hash, limits);
	const uint32_t nr[2] = { (uint32_t)wfi_max(ev->nr_ghosts[0], 1),
				 (uint32_t)wfi_max(ev->nr_ghosts[1], 1) };
	uint32_t step;

	(void)now_ns;
	if (list == (int)SEEN_ONCE) {
		step = (uint32_t)wfi_max(nr[1] / nr[0], 1);
		ev->target = (uint32_t)wfi_min(ev->target + step, room);
	} else if (list == (int)SEEN_MORE) {
		step = (uint32_t)wfi_max(nr[0] / nr[1], 1);
		ev->target -= (uint32_t)wfi_min(ev->target, step);
	}
	insert(ev, slot, hash, list >= 0 ? SEEN_MORE : SEEN_ONCE);
}

static void arc_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	(void)now_ns;
	for (unsigned i = 0; i < nr; i++)
		move(ev, slots[i], SEEN_MORE);
}

static uint32_t arc_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	const struct list *once = &ev->lists[SEEN_ONCE], *more = &ev->lists[SEEN_MORE];
	unsigned list = SEEN_MORE;
	uint32_t slot;

	(void)now_ns;
	if (!once->nr_candidates && !more->nr_candidates)
		return WFI_SLOT_NONE;
	if (once->nr_candidates && (once->nr > ev->target || !more->nr_candidates))
		list = SEEN_ONCE;
	slot = oldest_candidate(ev, list);
	ghost_leave(ev, ev->nodes[slot].hash, list);
	lists_remove(ev, slot);
	return slot;
}

/* ---- lfu: a list for each count ---- */

static void list_append(struct wfi_evict *ev, struct list *to, const struct list *from)
{
	to->nr += from->nr;
	to->nr_candidates += from->nr_candidates;
	if (from->oldest == LINK_END)
		return;
	if (to->newest != LINK_END) {
		ev->nodes[to->newest].newer = from->oldest;
		ev->nodes[from->oldest].older = to->newest;
	} else {
		to->oldest = from->oldest;
	}
	to->newest = from->newest;
}

static void lfu_halve(struct wfi_evict *ev)
{
	const struct list none = { .newest = LINK_END, .oldest = LINK_END };

	for (unsigned i = 1; i < NR_LISTS; i++) {
		const struct list from = ev->lists[i];

		ev->lists[i] = none;
		list_append(ev, &ev->lists[i / 2], &from);
	}
	ev->epoch++;
	ev->uses = 0;
}

static void lfu_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
		       uint64_t now_ns)
{
	(void)now_ns;
	if (++ev->uses > AGE_USES * ev->nr_slots)
		lfu_halve(ev);
	insert(ev, slot, hash_of(info), 0);
}

static void lfu_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	(void)now_ns;
	ev->uses += nr;
	for (unsigned i = 0; i < nr; i++) {
		const unsigned list = list_of(ev, &ev->nodes[slots[i]]);

		move(ev, slots[i], list + 1 < NR_LISTS ? list + 1 : list);
	}
}

static uint32_t lfu_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	uint32_t slot;
	unsigned i;

	(void)now_ns;
	for (i = 0; i < NR_LISTS && !ev->lists[i].nr_candidates; i++)
		;
	if (i == NR_LISTS)
		return WFI_SLOT_NONE;
	slot = oldest_candidate(ev, i);
	lists_remove(ev, slot);
	return slot;
}

#define LISTS_POLICY(policy)                                                                       \
	const struct wfi_evict_policy wfi_evict_##policy = {                                       \
		.name = #policy,                                                                   \
		.create = lists_create,                                                            \
		.destroy = lists_destroy,                                                          \
		.resize = lists_resize,                                                            \
		.prefetch = lists_prefetch,                                                        \
		.insert = policy##_insert,                                                         \
		.touch = policy##_touch,                                                           \
		.candidate_add = lists_candidate_add,                                              \
		.candidate_del = lists_candidate_del,                                              \
		.evict = policy##_evict,                                                           \
		.remove = lists_remove,                                                            \
		.bytes = lists_bytes,                                                              \
	}

LISTS_POLICY(s3fifo);
LISTS_POLICY(arc);
LISTS_POLICY(lfu);
