/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "kvcache/index_line.h"
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"
#include "weft_internal/log.h"

#define EVICT_BATCH 32u
#define EVICT_NEAR 8u /* of a batch: lines of the index that should have come by now */
#define TAKE_TRIES 8u /* runs that hold what the policy would have go next */
#define LOOK_NS WFI_NSEC_PER_MSEC
#define EMPTY_NS WFI_NSEC_PER_SEC /* in which nothing of a run goes that is to leave: it stays */

/* ---- free slots of a run ---- */

static void avail_add(struct kv_run *run)
{
	struct kv_space *space = run->space;

	run->prev_avail = NULL;
	run->next_avail = space->avail;
	if (space->avail)
		space->avail->prev_avail = run;
	space->avail = run;
}

static void avail_del(struct kv_run *run)
{
	if (run->prev_avail)
		run->prev_avail->next_avail = run->next_avail;
	else
		run->space->avail = run->next_avail;
	if (run->next_avail)
		run->next_avail->prev_avail = run->prev_avail;
}

void wfi_run_put(struct kv_run *run, struct kv_slot *st, uint32_t slot)
{
	kv_slot_links(st, run->free, KV_FREE, false);
	run->free = slot;
	run->nr_free++;
	if (wfi_unlikely(run->emptying))
		return;
	run->space->nr_free++;
	if (run->nr_free == 1)
		avail_add(run);
}

uint32_t wfi_space_take(struct wfi_kv *kv, struct kv_space *space, struct kv_run **out)
{
	struct kv_run *run = space->avail;
	uint32_t slot = run->free;

	if (slot != KV_NONE)
		run->free = kv_slot(kv, slot)->next;
	else
		slot = run->first + run->fresh++;
	if (!--run->nr_free)
		avail_del(run);
	space->nr_free--;
	*out = run;
	return slot;
}

/* ---- numbers: of the node, and of a space's policy ---- */

/* Return: first of @nr free neighbours in @table, or @len */
static uint32_t granules_find(struct kv_run *const *table, uint32_t len, uint32_t from, uint32_t nr)
{
	uint32_t found = 0;

	for (uint32_t i = from; i < len; i++) {
		found = table[i] ? 0 : found + 1;
		if (found == nr)
			return i + 1 - nr;
	}
	return len;
}

static void granules_set(struct kv_run **table, uint32_t first, uint32_t nr, struct kv_run *run)
{
	for (uint32_t i = 0; i < nr; i++)
		table[(first >> KV_GRANULE_BITS) + i] = run;
}

static int number_run(struct wfi_kv *kv, struct kv_run *run)
{
	const uint32_t nr = kv_run_granules(run->space);
	uint32_t at;

	at = granules_find(kv->granules, kv->nr_granules, kv->granule_hint, nr);
	if (at == kv->nr_granules)
		at = granules_find(kv->granules, kv->nr_granules, 0, nr);
	if (at == kv->nr_granules) {
		wfi_err("all %u slot numbers are in use: larger blocks, or a smaller arena",
			kv->nr_granules << KV_GRANULE_BITS);
		return -ENOSPC;
	}
	run->first = at << KV_GRANULE_BITS;
	return 0;
}

/* memory for what the run's slots and their policy take, and for as many behind them */
static int states_use(struct wfi_kv *kv, const struct kv_run *run)
{
	struct kv_space *space = run->space;
	const uint64_t slots = run->first + 2ull * run->nr, locals = run->local + 2ull * run->nr;

	wfi_table_use(kv->env, &kv->header_table, slots * sizeof(*kv->headers));
	wfi_table_use(kv->env, &kv->slot_table, slots * sizeof(*kv->slots));
	return space->policy->resize(space->evict,
				     (uint32_t)wfi_min(locals, (uint64_t)space->nr_granules
								       << KV_GRANULE_BITS));
}

/* there are as many as runs */
static void number_locals(struct kv_run *run)
{
	const struct kv_space *space = run->space;
	const uint32_t nr = kv_run_granules(space);
	uint32_t at;

	at = granules_find(space->granules, space->nr_granules, space->granule_hint, nr);
	if (at == space->nr_granules)
		at = granules_find(space->granules, space->nr_granules, 0, nr);
	run->local = at << KV_GRANULE_BITS;
}

/* ---- extents ---- */

/* Return: first of the neighbours that a run takes, or -ENOSPC */
static int extents_find(struct wfi_tenant *t, uint32_t nr)
{
	uint32_t found = 0;

	if (t->nr_free_extents < nr)
		return -ENOSPC;
	while (t->extent_used[t->extent_hint])
		t->extent_hint++;
	for (uint32_t i = t->extent_hint; i < t->nr_extents; i++) {
		found = t->extent_used[i] ? 0 : found + 1;
		if (found == nr)
			return (int)(i + 1 - nr);
	}
	return -ENOSPC;
}

static void extents_mark(struct wfi_tenant *t, uint32_t first, uint32_t nr, bool used)
{
	memset(t->extent_used + first, used, nr);
	if (used)
		t->nr_free_extents -= nr;
	else
		t->nr_free_extents += nr;
	if (!used && first < t->extent_hint)
		t->extent_hint = first;
}

void wfi_extents_free(struct wfi_tenant *t, uint32_t first, uint32_t nr)
{
	extents_mark(t, first, nr, false);
}

uint64_t wfi_space_could_grow(const struct kv_space *space)
{
	const uint64_t fit = wfi_share_room(space->tenant) / kv_run_bytes(space);

	return wfi_min(fit, space->tenant->nr_free_extents / space->run_extents) * space->run_slots;
}

/* most entries that the index will ever need with the spaces that there are now */
static uint64_t slots_bound(const struct wfi_kv *kv)
{
	uint64_t sum = kv->nr_slots;

	for (uint32_t i = 0; i < kv->nr_tenants; i++) {
		const struct wfi_tenant *t = kv->tenants[i];
		uint64_t most = 0;

		for (const struct kv_space *s = t->spaces; s; s = s->next)
			most = wfi_max(most, (uint64_t)(t->nr_free_extents / s->run_extents) *
						     s->run_slots);
		sum += most;
	}
	return sum;
}

static void run_link(struct wfi_kv *kv, struct kv_run *run)
{
	struct kv_space *space = run->space;

	granules_set(kv->granules, run->first, kv_run_granules(space), run);
	kv->granule_hint = (run->first >> KV_GRANULE_BITS) + kv_run_granules(space);
	granules_set(space->granules, run->local, kv_run_granules(space), run);
	space->granule_hint = (run->local >> KV_GRANULE_BITS) + kv_run_granules(space);
	extents_mark(space->tenant, run->extent, space->run_extents, true);
	run->next = space->runs;
	if (run->next)
		run->next->prev = run;
	space->runs = run;
	space->nr_runs++;
	space->nr_slots += run->nr;
	space->nr_free += run->nr;
	kv->nr_slots += run->nr;
	wfi_share_gain(run);
	avail_add(run);
}

/* a run has no slot in use. Its generations stay where they are, in the states. @home: its memory
 * stays with the tenant */
static void run_unlink(struct wfi_kv *kv, struct kv_run *run, bool home)
{
	struct kv_space *space = run->space;

	assert(run->nr_free == run->nr && !run->emptying);
	avail_del(run);
	if (run->prev)
		run->prev->next = run->next;
	else
		space->runs = run->next;
	if (run->next)
		run->next->prev = run->prev;
	space->nr_runs--;
	space->nr_slots -= run->nr;
	space->nr_free -= run->nr;
	kv->nr_slots -= run->nr;
	wfi_share_lose(run);
	granules_set(space->granules, run->local, kv_run_granules(space), NULL);
	granules_set(kv->granules, run->first, kv_run_granules(space), NULL);
	if (!home) {
		wfi_share_leave(kv, run);
		return;
	}
	extents_mark(space->tenant, run->extent, space->run_extents, false);
	wfi_free(kv->env, run, sizeof(*run));
}

/* Return: 0, -ENOSPC, -ENOMEM */
static int run_attach(struct wfi_kv *kv, struct kv_space *space)
{
	struct wfi_tenant *t = space->tenant;
	struct kv_run *run;
	int extent, ret;

	extent = extents_find(t, space->run_extents);
	if (extent < 0)
		return extent;
	if (wfi_share_room(t) < kv_run_bytes(space) ||
	    !wfi_share_numbers(t, kv_run_granules(space)))
		return -ENOSPC;
	run = wfi_alloc(kv->env, sizeof(*run));
	if (!run)
		return -ENOMEM;
	run->space = space;
	run->nr = space->run_slots;
	run->nr_free = run->nr;
	run->free = KV_NONE;
	run->extent = (uint32_t)extent;
	run->off = (uint64_t)extent << t->extent_shift;
	run->addr = (uint8_t *)t->arena.addr + run->off;
	ret = number_run(kv, run);
	number_locals(run);
	if (!ret)
		ret = states_use(kv, run);
	if (!ret)
		ret = wfi_index_reserve(&kv->index, kv->nr_slots + run->nr, slots_bound(kv));
	if (ret) {
		wfi_free(kv->env, run, sizeof(*run));
		return ret;
	}
	run_link(kv, run);
	return 0;
}

void wfi_space_free_runs(struct wfi_kv *kv, struct kv_space *space)
{
	while (space->runs) {
		struct kv_run *run = space->runs;

		space->runs = run->next;
		wfi_free(kv->env, run, sizeof(*run));
	}
	if (space->granules)
		wfi_free(kv->env, space->granules, space->nr_granules * sizeof(*space->granules));
}

/* ---- making room ---- */

struct victim {
	struct kv_run *run;
	uint32_t slot;
	struct index_tag tag;
	struct weft_key parent; /* where there is a tier below */
};

static void victim_parent(const struct wfi_kv *kv, struct victim *v)
{
	const uint32_t parent = kv_slot(kv, v->slot)->parent;

	v->parent = parent != KV_NONE ? kv->headers[parent].key : (struct weft_key){ 0 };
}

/* takes what the policy would have go next out of the tree. Return: how many, @nr at most */
static uint32_t choose(struct wfi_kv *kv, struct kv_space *space, struct victim *v, uint32_t nr)
{
	uint32_t n, local;

	for (n = 0; n < nr; n++) {
		local = space->policy->evict(space->evict, kv->now_ns);
		if (local == WFI_SLOT_NONE)
			break;
		assert(local >> KV_GRANULE_BITS < space->nr_granules);
		v[n].run = space->granules[local >> KV_GRANULE_BITS];
		v[n].slot = local - v[n].run->local + v[n].run->first;
		/* for writing: who takes the slot next fills its header */
		__builtin_prefetch(&kv->headers[v[n].slot], 1);
		if (kv->mover)
			victim_parent(kv, &v[n]);
		wfi_slot_evict_begin(kv, v[n].run, v[n].slot);
	}
	return n;
}

/* out of the tree already. @keep: what the tier below takes goes there, and its slot is free
 * later */
static void evict_end(struct wfi_kv *kv, const struct victim *v, bool keep)
{
	if (keep && wfi_mover_take(kv->mover, v->run, v->slot, &v->parent))
		wfi_slot_evict_hold(kv, v->run, v->slot, &v->tag);
	else
		wfi_slot_evict_end(kv, v->run, v->slot, &v->tag);
}

/* Return: how many went; fewer than @nr when the rest is held */
static uint64_t evict(struct wfi_kv *kv, struct kv_space *space, uint64_t nr, bool keep)
{
	struct victim v[EVICT_BATCH];
	struct kv_ages ages = { 0 };
	uint64_t done = 0;
	uint32_t n, i, near;

	while (done < nr) {
		n = choose(kv, space, v, (uint32_t)wfi_min(EVICT_BATCH, nr - done));
		if (!n)
			break;
		for (i = 0; i < n; i++) {
			v[i].tag = kv_header_tag(kv, space, v[i].slot);
			wfi_index_prefetch(&kv->index, &v[i].tag);
			kv_age_evicted(kv, space, &ages, v[i].slot);
		}
		for (i = 0, near = 0; i < n; i++) {
			for (; near < n && near <= i + EVICT_NEAR; near++)
				index_prefetch_behind(&kv->index, &v[near].tag);
			evict_end(kv, &v[i], keep);
		}
		done += n;
	}
	wfi_ages_evicted(kv, space, &ages);
	kv_count(kv, KV_C_EVICTED, done);
	return done;
}

/* for a claim, which waits for no drive */
static uint64_t evict_now(struct wfi_kv *kv, struct kv_space *space, uint64_t nr)
{
	const uint64_t done = evict(kv, space, nr, false);

	if (kv->mover)
		wfi_mover_short(kv->mover, space, done);
	return done;
}

uint64_t wfi_space_write_back(struct wfi_kv *kv, struct kv_space *space, uint64_t nr)
{
	wfi_point(kv->env, "evict.begin");
	nr = evict(kv, space, nr, true);
	wfi_point(kv->env, "evict.end");
	return nr;
}

/* ---- a run leaves its space ---- */

/* a block without children, which the policy did not choose */
static void evict_leaf(struct wfi_kv *kv, uint32_t slot, struct kv_ages *ages, bool keep)
{
	struct victim v = { .run = kv_run(kv, slot), .slot = slot };
	struct kv_space *space = v.run->space;

	space->policy->remove(space->evict, kv_local(v.run, slot));
	if (kv->mover)
		victim_parent(kv, &v);
	v.tag = kv_header_tag(kv, space, slot);
	kv_age_evicted(kv, space, ages, slot);
	wfi_slot_evict_begin(kv, v.run, slot);
	evict_end(kv, &v, keep);
	kv_count(kv, KV_C_EVICTED, 1);
	if (kv->mover && !keep)
		wfi_mover_short(kv->mover, space, 1);
}

/* evicts @slot and all that hangs below it, leaves first, up to *@nr blocks.
 * Return: 0, -EBUSY something is pinned, -EAGAIN there is more */
static int evict_tree(struct wfi_kv *kv, uint32_t slot, uint64_t *nr, bool keep)
{
	struct kv_space *space = kv_run(kv, slot)->space;
	const struct kv_slot *st = kv_slot(kv, slot);
	struct kv_ages ages = { 0 };
	uint32_t at = slot, parent;
	int ret = 0;

	while (!ret && st->state == KV_SEALED) {
		while (kv_slot(kv, at)->child != KV_NONE)
			at = kv_slot(kv, at)->child;
		if (kv_slot(kv, at)->pins) {
			ret = -EBUSY;
		} else if (!*nr) {
			ret = -EAGAIN;
		} else {
			/* a childless slot out of the index is free already: this one is in it */
			parent = kv_slot(kv, at)->parent;
			evict_leaf(kv, at, &ages, keep);
			--*nr;
			/* dropped ancestors may have gone with it: then again from the top */
			at = at != slot && kv_slot(kv, parent)->state == KV_SEALED ? parent : slot;
		}
	}
	wfi_ages_evicted(kv, space, &ages);
	return ret;
}

/* Return: 0, -EBUSY with some of its blocks gone */
static int run_evacuate(struct wfi_kv *kv, struct kv_run *run, bool home)
{
	uint64_t nr = UINT64_MAX;
	int ret = 0;

	if (run->nr_busy)
		return -EBUSY;
	for (uint32_t i = 0; i < run->fresh && !ret; i++)
		if (kv_slot(kv, run->first + i)->state == KV_SEALED)
			ret = evict_tree(kv, run->first + i, &nr, false);
	if (ret)
		return ret;
	run_unlink(kv, run, home);
	kv_count(kv, KV_C_RUN_TAKEN, 1);
	return 0;
}

/* evicts one block. Return: its run, or NULL. What was put at one time mostly lies in one run, so
 * that it has more of what is to go next */
static struct kv_run *coldest(struct wfi_kv *kv, struct kv_space *space, bool keep)
{
	struct kv_ages ages = { 0 };
	struct victim v;

	if (!choose(kv, space, &v, 1))
		return NULL;
	kv_age_evicted(kv, space, &ages, v.slot);
	wfi_ages_evicted(kv, space, &ages);
	v.tag = kv_header_tag(kv, space, v.slot);
	evict_end(kv, &v, keep);
	kv_count(kv, KV_C_EVICTED, 1);
	return v.run;
}

/* a run leaves its space at once. Return: 0, -EBUSY something in each of them is pinned */
static int run_take(struct wfi_kv *kv, struct kv_space *space, bool home)
{
	struct kv_run *run, *next;

	for (unsigned i = 0; i < TAKE_TRIES; i++) {
		run = space->avail;
		if (!run || run->nr_free < run->nr)
			run = coldest(kv, space, false);
		if (!run)
			break;
		if (!run_evacuate(kv, run, home))
			return 0;
	}
	for (run = space->runs; run; run = next) {
		next = run->next;
		if (!run_evacuate(kv, run, home))
			return 0;
	}
	return -EBUSY;
}

/*
 * Above a tier, and where it has many slots, a run goes to another space in steps: nobody claims
 * its slots any more, its blocks are offered below as others are, and when the last is written it
 * goes. One run at a time.
 */
static void empty_end(struct wfi_kv *kv)
{
	struct kv_run *run = kv->emptying;

	kv->emptying = NULL;
	run->emptying = false;
	run->space->nr_free += run->nr_free;
	if (run->nr_free)
		avail_add(run);
}

/* a run that is to leave, or NULL. What is held in a run keeps all of it: above a tier that may be
 * a write, which ends; else nothing of it goes in vain */
static struct kv_run *empty_choose(struct wfi_kv *kv, struct kv_space *space)
{
	struct kv_run *idle = space->runs, *run;

	if (kv->mover)
		return coldest(kv, space, true);
	while (idle && idle->nr_busy)
		idle = idle->next;
	for (unsigned i = 0; idle && i < TAKE_TRIES; i++) {
		run = coldest(kv, space, false);
		if (!run)
			break;
		if (!run->nr_busy)
			return run;
	}
	return idle;
}

/* Return: 0 a run has left @space, -EAGAIN one will, for @to; -EBUSY */
static int empty_begin(struct wfi_kv *kv, struct kv_space *space, struct kv_space *to, bool home)
{
	struct kv_run *run = space->avail;

	if (kv->emptying)
		return -EAGAIN;
	if (run && run->nr_free == run->nr)
		return run_evacuate(kv, run, home);
	run = empty_choose(kv, space);
	if (!run)
		return -EBUSY;
	kv->emptying = run;
	kv->emptying_for = to;
	kv->emptying_at = 0;
	kv->emptying_home = home;
	kv->emptying_end_ns = kv->now_ns + EMPTY_NS;
	run->emptying = true;
	run->space->nr_free -= run->nr_free;
	if (run->nr_free)
		avail_del(run);
	return -EAGAIN;
}

/* Return: 0, -EAGAIN there is more to do, -EBUSY the slot is an engine's, or pinned */
static int empty_slot(struct wfi_kv *kv, uint32_t slot, uint64_t *room)
{
	const struct kv_slot *st = kv_slot(kv, slot);

	switch (st->state) {
	case KV_SEALED:
		return evict_tree(kv, slot, room, kv->mover);
	case KV_FILLING:
		return -EBUSY;
	case KV_QUARANTINED:
		return st->parent != KV_NONE ? -EBUSY : 0;
	default:
		return 0;
	}
}

void wfi_space_empty_stop(struct wfi_kv *kv, const struct kv_space *space)
{
	if (kv->emptying && (kv->emptying->space == space || kv->emptying_for == space))
		empty_end(kv);
}

bool wfi_space_shed(struct wfi_kv *kv, struct kv_space *space)
{
	if (!space->runs)
		return false;
	/* memory that tenants share goes back to all of them */
	run_unlink(kv, space->runs, kv->memory_bytes == UINT64_MAX);
	return true;
}

int wfi_space_empty_step(struct wfi_kv *kv, uint64_t room)
{
	struct kv_run *run = kv->emptying;
	const uint64_t before = room;
	int ret = 0;

	if (!kv->mover && run->nr_busy) {
		empty_end(kv);
		return 0;
	}
	while (kv->emptying_at < run->fresh) {
		ret = empty_slot(kv, run->first + kv->emptying_at, &room);
		if (ret)
			break;
		kv->emptying_at++;
	}
	if (room < before)
		kv->emptying_end_ns = kv->now_ns + EMPTY_NS;
	if (ret == -EAGAIN && kv->now_ns < kv->emptying_end_ns)
		return room < before;
	if (ret || run->nr_free == run->nr || kv->now_ns >= kv->emptying_end_ns)
		empty_end(kv);
	if (run->nr_free < run->nr)
		return room < before;
	run_unlink(kv, run, kv->emptying_home);
	kv_count(kv, KV_C_RUN_TAKEN, 1);
	/* before somebody else claims what it gave up */
	(void)!run_attach(kv, kv->emptying_for);
	kv->emptying_for->look_ns = 0;
	return 1;
}

/* a run more, from nobody or from who has more than its share. Its slow branch is cold.
 * @must: the space has nothing that could go. Return: 0, -ENOSPC, -ENOMEM */
static int grow(struct wfi_kv *kv, struct kv_space *space, bool must)
{
	struct wfi_tenant *t = space->tenant;
	struct kv_space *from;
	int ret;

	ret = run_attach(kv, space);
	if (ret != -ENOSPC || (!must && kv->now_ns < space->look_ns))
		return ret;
	space->look_ns = kv->now_ns + LOOK_NS;
	kv->stamp++;
	if (must && kv->emptying)
		empty_end(kv);
	while (ret == -ENOSPC) {
		const bool full = extents_find(t, space->run_extents) < 0;

		/* what is short is numbers: nobody's run would help */
		if (!full && wfi_share_room(t) >= kv_run_bytes(space))
			return ret;
		from = wfi_share_victim(kv, space, full, must);
		if (!from)
			return ret;
		ret = !must && (kv->mover || from->run_slots > KV_EMPTY_BLOCKS)
			      ? empty_begin(kv, from, space, full)
			      : run_take(kv, from, full);
		if (ret == -EAGAIN)
			return -ENOSPC;
		if (ret) {
			from->stamp = kv->stamp;
			ret = -ENOSPC;
			continue;
		}
		ret = run_attach(kv, space);
		/* there may be more where that came from */
		space->look_ns = 0;
	}
	return ret;
}

void wfi_space_ask(struct wfi_kv *kv, struct kv_space *space)
{
	if (kv->now_ns >= space->look_ns && space->nr_slots < space->max_blocks)
		(void)!grow(kv, space, false);
}

static bool empties(const struct wfi_kv *kv, const struct kv_space *space)
{
	return kv->emptying && kv->emptying->space == space;
}

int wfi_space_make_room(struct wfi_kv *kv, struct kv_space *space, uint32_t nr)
{
	const uint64_t hidden = empties(kv, space) ? kv->emptying->nr_free : 0;
	const uint64_t used = space->nr_slots - space->nr_free - hidden;
	uint64_t gone = 0, n;
	bool may_grow = true;

	space->demand = (uint32_t)wfi_max(space->demand, nr);
	if (nr > space->max_blocks)
		return -ENOSPC;
	if (used + nr > space->max_blocks) {
		const uint64_t over = used + nr - space->max_blocks;

		if (evict_now(kv, space, over) < over)
			return -ENOSPC;
	}
	while (space->nr_free < nr) {
		may_grow = may_grow && !grow(kv, space, false);
		n = may_grow ? 0 : evict_now(kv, space, nr - space->nr_free);
		gone += n;
		/* most of it lies in the run that leaves: one claim never clears all of that */
		if (gone >= KV_EMPTY_BLOCKS && empties(kv, space))
			empty_end(kv);
		if (may_grow || n)
			continue;
		if (grow(kv, space, true))
			return -ENOSPC;
		may_grow = true;
	}
	return 0;
}
