/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "perf/trace_belady.h"
#include "weft_internal/util.h"

#define NEVER UINT32_MAX

struct wfi_evict {
	const struct wfi_tsim_future *future;
	uint32_t now;
	uint32_t nr_slots;
	uint32_t nr; /* in the heap */
	uint32_t *heap; /* candidates, the one used last on top */
	uint32_t *pos; /* in the heap, plus 1, by slot; 0: not a candidate */
	uint32_t *next; /* time of the next use, by slot */
	uint32_t *block; /* by slot */
	uint64_t *at; /* in uses, by block; only goes on */
};

static void belady_destroy(struct wfi_evict *ev)
{
	struct wfi_env *env;

	if (!ev)
		return;
	env = (struct wfi_env *)&ev->future->env;
	if (ev->heap)
		wfi_free(env, ev->heap, 4 * (uint64_t)ev->nr_slots * sizeof(*ev->heap));
	if (ev->at)
		wfi_free(env, ev->at, ev->future->nr_blocks * sizeof(*ev->at));
	wfi_free(env, ev, sizeof(*ev));
}

static int belady_create(struct wfi_env *env, uint32_t nr_slots, uint64_t seed,
			 struct wfi_evict **out)
{
	const struct wfi_tsim_future *future = wfi_container_of(env, struct wfi_tsim_future, env);
	struct wfi_evict *ev;

	(void)seed;
	ev = wfi_alloc(env, sizeof(*ev));
	if (!ev)
		return -ENOMEM;
	ev->future = future;
	ev->nr_slots = nr_slots;
	ev->heap = wfi_alloc(env, 4 * (uint64_t)nr_slots * sizeof(*ev->heap));
	ev->at = wfi_alloc(env, future->nr_blocks * sizeof(*ev->at));
	if (!ev->heap || !ev->at) {
		belady_destroy(ev);
		return -ENOMEM;
	}
	ev->pos = ev->heap + nr_slots;
	ev->next = ev->pos + nr_slots;
	ev->block = ev->next + nr_slots;
	memcpy(ev->at, future->first, future->nr_blocks * sizeof(*ev->at));
	*out = ev;
	return 0;
}

static int belady_resize(struct wfi_evict *ev, uint32_t nr_slots)
{
	return nr_slots <= ev->nr_slots ? 0 : -EOPNOTSUPP;
}

static void heap_put(struct wfi_evict *ev, uint32_t at, uint32_t slot)
{
	ev->heap[at] = slot;
	ev->pos[slot] = at + 1;
}

static void heap_up(struct wfi_evict *ev, uint32_t at, uint32_t slot)
{
	while (at && ev->next[ev->heap[(at - 1) / 2]] < ev->next[slot]) {
		heap_put(ev, at, ev->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(ev, at, slot);
}

static void heap_down(struct wfi_evict *ev, uint32_t at, uint32_t slot)
{
	uint32_t child;

	while ((child = 2 * at + 1) < ev->nr) {
		if (child + 1 < ev->nr && ev->next[ev->heap[child + 1]] > ev->next[ev->heap[child]])
			child++;
		if (ev->next[ev->heap[child]] <= ev->next[slot])
			break;
		heap_put(ev, at, ev->heap[child]);
		at = child;
	}
	heap_put(ev, at, slot);
}

static void belady_prefetch(struct wfi_evict *ev, uint32_t depth, uint64_t key_hash)
{
	(void)ev;
	(void)depth;
	(void)key_hash;
}

static void belady_insert(struct wfi_evict *ev, uint32_t slot, const struct wfi_evict_info *info,
			  uint64_t now_ns)
{
	ev->now = (uint32_t)now_ns;
	ev->block[slot] = (uint32_t)info->key_hash;
}

static void belady_touch(struct wfi_evict *ev, const uint32_t *slots, unsigned nr, uint64_t now_ns)
{
	(void)slots;
	(void)nr;
	ev->now = (uint32_t)now_ns;
}

static void belady_candidate_add(struct wfi_evict *ev, uint32_t slot)
{
	const struct wfi_tsim_future *future = ev->future;
	uint32_t block = ev->block[slot];
	uint64_t *at = &ev->at[block];

	if (ev->pos[slot])
		return;
	while (*at < future->first[block + 1] && future->uses[*at] <= ev->now)
		++*at;
	ev->next[slot] = *at < future->first[block + 1] ? future->uses[*at] : NEVER;
	heap_up(ev, ev->nr++, slot);
}

static void belady_candidate_del(struct wfi_evict *ev, uint32_t slot)
{
	uint32_t at, last;

	if (!ev->pos[slot])
		return;
	at = ev->pos[slot] - 1;
	ev->pos[slot] = 0;
	last = ev->heap[--ev->nr];
	if (last == slot)
		return;
	if (ev->next[last] > ev->next[slot])
		heap_up(ev, at, last);
	else
		heap_down(ev, at, last);
}

static uint32_t belady_evict(struct wfi_evict *ev, uint64_t now_ns)
{
	uint32_t slot;

	ev->now = (uint32_t)now_ns;
	if (!ev->nr)
		return WFI_SLOT_NONE;
	slot = ev->heap[0];
	belady_candidate_del(ev, slot);
	return slot;
}

static uint64_t belady_bytes(const struct wfi_evict *ev)
{
	return sizeof(*ev) + 4 * (uint64_t)ev->nr_slots * sizeof(*ev->heap) +
	       ev->future->nr_blocks * sizeof(*ev->at);
}

const struct wfi_evict_policy wfi_tsim_belady = {
	.name = "belady",
	.create = belady_create,
	.destroy = belady_destroy,
	.resize = belady_resize,
	.prefetch = belady_prefetch,
	.insert = belady_insert,
	.touch = belady_touch,
	.candidate_add = belady_candidate_add,
	.candidate_del = belady_candidate_del,
	.evict = belady_evict,
	.remove = belady_candidate_del,
	.bytes = belady_bytes,
};
