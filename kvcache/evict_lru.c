/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "kvcache/evict_policies.h"
#include "weft_internal/table.h"
#include "weft_internal/util.h"

#define LINK_BITS 30
#define LINK_END ((1u << LINK_BITS) - 1) /* the list's head and tail point here */

enum lru_state {
	LRU_ABSENT, /* zero, as memory comes */
	LRU_PARKED, /* found at the old end while it could not be chosen: older than all listed */
	LRU_LISTED,
	LRU_CANDIDATE, /* listed, and may be chosen */
};

struct lru_node {
	uint32_t newer;
	uint32_t older : LINK_BITS;
	uint32_t state : 32 - LINK_BITS;
};

static_assert(sizeof(struct lru_node) == 8, "eight nodes a cache line");

struct wfi_evict {
	struct wfi_env *env;
	struct wfi_table table;
	struct lru_node *nodes;
	uint32_t nr_slots;
	uint32_t nr_used; /* of these, as resize says; 0: it says nothing, so all */
	uint32_t nr_candidates;
	uint32_t newest;
	uint32_t oldest;
	/* the block published last: its child goes next to it, on the older side */
	uint32_t last_slot;
	uint32_t last_depth;
	uint64_t last_ns;
};

/* all from @from to @to, which is the newer end */
static void unlink_run(struct wfi_evict *ev, const struct lru_node *from, const struct lru_node *to)
{
	if (to->newer != LINK_END)
		ev->nodes[to->newer].older = from->older;
	else
		ev->newest = from->older;
	if (from->older != LINK_END)
		ev->nodes[from->older].newer = to->newer;
	else
		ev->oldest = to->newer;
}

static void unlink_node(struct wfi_evict *ev, const struct lru_node *node)
{
	unlink_run(ev, node, node);
}

/* between @older and the one newer than it; LINK_END as @older: at the old end */
static void link_after(struct wfi_evict *ev, uint32_t slot, uint32_t older)
{
	struct lru_node *node = &ev->nodes[slot];
	uint32_t newer = older != LINK_END ? ev->nodes[older].newer : ev->oldest;

	node->older = older;
	node->newer = newer;
	if (older != LINK_END)
		ev->nodes[older].newer = slot;
	else
		ev->oldest = slot;
	if (newer != LINK_END)
		ev->nodes[newer].older = slot;
	else
		ev->newest = slot;
}

static int lru_create(struct wfi_env *env, uint32_t nr_slots, uint64_t seed, struct wfi_evict **out)
{
	struct wfi_evict *ev;
	int ret;

	(void)seed;
	if (nr_slots >= LINK_END)
		return -ENOMEM;
	ev = wfi_alloc(env, sizeof(*ev));
	if (!ev)
		return -ENOMEM;
	ret = wfi_table_init(env, &ev->table, nr_slots * sizeof(*ev->nodes), 0);
	if (ret) {
		wfi_free(env, ev, sizeof(*ev));
		return ret;
	}
	ev->env = env;
	ev->nodes = ev->table.addr;
	ev->nr_slots = nr_slots;
	ev->newest = LINK_END;
	ev->oldest = LINK_END;
	ev->last_slot = LINK_END;
	*out = ev;
	return 0;
}

static void lru_destroy(struct wfi_evict *ev)
{
	if (!ev)
		return;
	wfi_table_fini(ev->env, &ev->table);
	wfi_free(ev->env, ev, sizeof(*ev));
}

static int lru_resize(struct wfi_evict *ev, uint32_t nr_slots)
{
	struct wfi_table table;
	int ret;

	if (nr_slots <= ev->nr_slots) {
		ev->nr_used = (uint32_t)wfi_max(ev->nr_used, nr_slots);
		wfi_table_use(ev->env, &ev->table, nr_slots * sizeof(*ev->nodes));
		return 0;
	}
	if (nr_slots >= LINK_END)
		return -ENOMEM;
	ret = wfi_table_init(ev->env, &table, nr_slots * sizeof(*ev->nodes), 0);
	if (ret)
		return ret;
	if (ev->nodes)
		memcpy(table.addr, ev->nodes, ev->nr_slots * sizeof(*ev->nodes));
	wfi_table_fini(ev->env, &ev->table);
	ev->table = table;
	ev->nodes = table.addr;
	ev->nr_slots = nr_slots;
	ev->nr_used = nr_slots;
	return 0;
}

static void lru_prefetch(struct wfi_evict *ev, uint32_t depth, uint64_t key_hash)
{
	(void)ev;
	(void)depth;
	(void)key_hash;
}

static void lru_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
		       uint64_t now_ns)
{
	struct lru_node *node = &ev->nodes[slot];
	bool child;

	assert(slot < ev->nr_slots && node->state == LRU_ABSENT);
	/* a chain is published head first, but its tail is to be the oldest of it */
	child = ev->last_slot != LINK_END && ev->last_ns == now_ns &&
		info->depth == ev->last_depth + 1;
	link_after(ev, slot, child ? ev->nodes[ev->last_slot].older : ev->newest);
	node->state = LRU_LISTED;
	ev->last_slot = slot;
	ev->last_depth = info->depth;
	ev->last_ns = now_ns;
}

/* Return: how many of them, from the first on, are listed side by side in this order */
static unsigned run_len(const struct wfi_evict *ev, const uint32_t *slots, unsigned nr)
{
	unsigned n = 1;

	if (ev->nodes[slots[0]].state == LRU_PARKED)
		return 1;
	/* who is listed has neighbours that are */
	while (n < nr && ev->nodes[slots[n - 1]].newer == slots[n])
		n++;
	return n;
}

/* a chain that was published or used as a whole is in order: it moves as one */
static void lru_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	struct lru_node *from, *to;
	unsigned n;

	(void)now_ns;
	for (; nr; slots += n, nr -= n) {
		assert(slots[0] < ev->nr_slots && ev->nodes[slots[0]].state != LRU_ABSENT);
		n = run_len(ev, slots, nr);
		from = &ev->nodes[slots[0]];
		to = &ev->nodes[slots[n - 1]];
		if (from->state == LRU_PARKED)
			from->state = LRU_LISTED;
		else
			unlink_run(ev, from, to);
		from->older = ev->newest;
		to->newer = LINK_END;
		if (ev->newest != LINK_END)
			ev->nodes[ev->newest].newer = slots[0];
		else
			ev->oldest = slots[0];
		ev->newest = slots[n - 1];
	}
}

static void lru_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	struct lru_node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != LRU_ABSENT);
	if (node->state == LRU_CANDIDATE)
		return;
	if (node->state == LRU_PARKED)
		link_after(ev, slot, LINK_END);
	node->state = LRU_CANDIDATE;
	ev->nr_candidates++;
}

static void lru_candidate_del(struct wfi_evict *ev, uint32_t slot)
{
	struct lru_node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != LRU_ABSENT);
	if (node->state != LRU_CANDIDATE)
		return;
	node->state = LRU_LISTED;
	ev->nr_candidates--;
}

static void lru_remove(struct wfi_evict *ev, uint32_t slot)
{
	struct lru_node *node = &ev->nodes[slot];

	assert(slot < ev->nr_slots && node->state != LRU_ABSENT);
	if (node->state == LRU_CANDIDATE)
		ev->nr_candidates--;
	if (node->state != LRU_PARKED)
		unlink_node(ev, node);
	node->state = LRU_ABSENT;
	if (ev->last_slot == slot)
		ev->last_slot = LINK_END;
}

static uint32_t lru_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	uint32_t slot;

	(void)now_ns;
	if (!ev->nr_candidates)
		return WFI_SLOT_NONE;
	/* bounded over time: a block is parked at most once after each touch */
	for (;;) {
		struct lru_node *node;

		slot = ev->oldest;
		node = &ev->nodes[slot];
		if (node->state == LRU_CANDIDATE)
			break;
		unlink_node(ev, node);
		node->state = LRU_PARKED;
		if (ev->last_slot == slot)
			ev->last_slot = LINK_END;
	}
	lru_remove(ev, slot);
	return slot;
}

static uint64_t lru_bytes(const struct wfi_evict *ev)
{
	const uint64_t nr = ev->nr_used ? ev->nr_used : ev->nr_slots;

	return sizeof(*ev) + nr * sizeof(*ev->nodes);
}

const struct wfi_evict_policy wfi_evict_lru = {
	.name = "lru",
	.create = lru_create,
	.destroy = lru_destroy,
	.resize = lru_resize,
	.prefetch = lru_prefetch,
	.insert = lru_insert,
	.touch = lru_touch,
	.candidate_add = lru_candidate_add,
	.candidate_del = lru_candidate_del,
	.evict = lru_evict,
	.remove = lru_remove,
	.bytes = lru_bytes,
};
