/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "kvcache/kv_private.h"
#include "weft_internal/log.h"

#define PIN_AHEAD 8u

/* ---- a list through next and prev ---- */

static void list_add(struct wfi_kv *kv, uint32_t *head, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);

	st->prev = KV_NONE;
	st->next = *head;
	if (*head != KV_NONE)
		kv_slot(kv, *head)->prev = slot;
	*head = slot;
}

static void list_del(struct wfi_kv *kv, uint32_t *head, const struct kv_slot *st)
{
	if (st->prev != KV_NONE)
		kv_slot(kv, st->prev)->next = st->next;
	else
		*head = st->next;
	if (st->next != KV_NONE)
		kv_slot(kv, st->next)->prev = st->prev;
}

static void release(struct kv_run *run, struct kv_slot *st, uint32_t slot)
{
	assert(!st->pins);
	/* zero is no generation: a pair of zeros from an engine never is a slot */
	if (!++st->gen)
		st->gen = 1;
	wfi_run_put(run, st, slot);
}

/* ---- the tree ---- */

static inline bool is_candidate(const struct kv_slot *st)
{
	return st->indexed && !st->pins && st->child == KV_NONE;
}

void wfi_slot_offer(struct wfi_kv *kv, uint32_t slot)
{
	struct kv_run *run = kv_run(kv, slot);

	if (is_candidate(kv_slot(kv, slot)))
		run->space->policy->candidate_add(run->space->evict, kv_local(run, slot));
}

/* Return: the parent when nothing holds it any more but its own memory, else KV_NONE */
static uint32_t leave_parent(struct wfi_kv *kv, const struct kv_slot *st)
{
	const uint32_t parent = st->parent;
	struct kv_slot *up;
	uint32_t head;

	if (parent == KV_NONE)
		return KV_NONE;
	up = kv_slot(kv, parent);
	/* likely to go next, where the tail of a chain goes first */
	__builtin_prefetch(kv_slot(kv, up->parent), 1);
	head = up->child;
	list_del(kv, &head, st);
	up->child = head;
	if (head != KV_NONE)
		return KV_NONE;
	if (!up->indexed)
		return up->pins ? KV_NONE : parent;
	wfi_slot_offer(kv, parent);
	return KV_NONE;
}

/* frees a slot that is out of the index, then its dropped ancestors that waited for it alone */
static void bury(struct wfi_kv *kv, uint32_t slot)
{
	while (slot != KV_NONE) {
		struct kv_slot *st = kv_slot(kv, slot);
		const uint32_t parent = leave_parent(kv, st);

		release(kv_run(kv, slot), st, slot);
		slot = parent;
	}
}

/* the same, but memory and numbers stay good until the next poll */
static void bury_later(struct wfi_kv *kv, uint32_t slot)
{
	while (slot != KV_NONE) {
		struct kv_slot *st = kv_slot(kv, slot);
		const uint32_t parent = leave_parent(kv, st);
		struct kv_run *run = kv_run(kv, slot);

		st->state = KV_QUARANTINED;
		st->parent = KV_DOOMED;
		run->nr_busy++;
		run->space->nr_quarantined++;
		list_add(kv, &kv->doomed, slot);
		slot = parent;
	}
}

static void unindex(struct wfi_kv *kv, uint32_t slot, const struct index_tag *tag)
{
	if (wfi_likely(wfi_index_remove(&kv->index, tag, slot)))
		return;
	/* the header's key is not what it was: no entry may be left behind that leads here */
	wfi_err("header of slot %u has changed in memory: have the machine's memory tested", slot);
	wfi_index_remove_slot(&kv->index, slot);
}

static void leave_index(struct wfi_kv *kv, struct kv_space *space, uint32_t slot)
{
	kv_slot(kv, slot)->indexed = 0;
	space->nr_indexed--;
	if (wfi_unlikely(kv->watches != NULL))
		wfi_watch_gone(kv, slot);
}

void wfi_slot_evict_begin(struct wfi_kv *kv, struct kv_run *run, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);
	uint32_t parent;

	assert(is_candidate(st));
	parent = leave_parent(kv, st);
	leave_index(kv, run->space, slot);
	if (parent != KV_NONE)
		bury(kv, parent);
}

void wfi_slot_evict_end(struct wfi_kv *kv, struct kv_run *run, uint32_t slot,
			const struct index_tag *tag)
{
	unindex(kv, slot, tag);
	release(run, kv_slot(kv, slot), slot);
}

void wfi_slot_evict_hold(struct wfi_kv *kv, struct kv_run *run, uint32_t slot,
			 const struct index_tag *tag)
{
	struct kv_slot *st = kv_slot(kv, slot);

	unindex(kv, slot, tag);
	st->state = KV_QUARANTINED;
	st->parent = KV_NONE;
	run->nr_busy++;
	run->space->nr_quarantined++;
	wfi_slot_pin(kv, slot);
}

/* Return: true when its memory can go */
static bool forget(struct wfi_kv *kv, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);
	struct kv_run *run = kv_run(kv, slot);
	struct kv_space *space = run->space;
	const struct index_tag tag = kv_header_tag(kv, space, slot);

	space->policy->remove(space->evict, kv_local(run, slot));
	leave_index(kv, space, slot);
	unindex(kv, slot, &tag);
	return !st->pins && st->child == KV_NONE;
}

void wfi_slot_drop(struct wfi_kv *kv, uint32_t slot)
{
	if (forget(kv, slot))
		bury(kv, slot);
}

void wfi_slot_doom(struct wfi_kv *kv, uint32_t slot)
{
	if (forget(kv, slot))
		bury_later(kv, slot);
}

/* ---- claims ---- */

void wfi_slot_claim(struct wfi_kv *kv, struct wfi_owner *owner, struct kv_run *run, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);

	if (!st->gen)
		st->gen = 1;
	kv_slot_family(st, kv_owner_idx(owner->id), 0);
	kv_slot_links(st, owner->claims, KV_FILLING, false);
	if (owner->claims != KV_NONE)
		kv_slot(kv, owner->claims)->prev = slot;
	owner->claims = slot;
	owner->nr_claims++;
	run->nr_busy++;
	run->space->nr_filling++;
}

void wfi_slot_give(struct wfi_kv *kv, struct wfi_owner *from, struct wfi_owner *to, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);

	list_del(kv, &from->claims, st);
	from->nr_claims--;
	st->parent = kv_owner_idx(to->id);
	list_add(kv, &to->claims, slot);
	to->nr_claims++;
}

static void end_claim(struct wfi_kv *kv, struct wfi_owner *owner, struct kv_run *run,
		      const struct kv_slot *st)
{
	list_del(kv, &owner->claims, st);
	owner->nr_claims--;
	run->space->nr_filling--;
}

void wfi_slot_seal(struct wfi_kv *kv, struct wfi_owner *owner, struct kv_run *run, uint32_t slot,
		   uint32_t parent)
{
	struct kv_slot *st = kv_slot(kv, slot), *up;
	uint32_t depth = 0, sibling = KV_NONE;

	end_claim(kv, owner, run, st);
	if (parent != KV_NONE) {
		up = kv_slot(kv, parent);
		depth = up->depth < KV_DEPTH_MAX ? up->depth + 1u : KV_DEPTH_MAX;
		sibling = up->child;
		up->child = slot;
		if (sibling != KV_NONE)
			kv_slot(kv, sibling)->prev = slot;
	}
	kv_slot_family(st, parent, depth);
	kv_slot_links(st, sibling, KV_SEALED, true);
	run->space->nr_indexed++;
	if (!st->pins)
		run->nr_busy--;
}

void wfi_slot_unclaim(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);
	struct kv_run *run = kv_run(kv, slot);

	end_claim(kv, owner, run, st);
	if (st->pins) {
		st->state = KV_QUARANTINED;
		st->parent = KV_NONE;
		run->space->nr_quarantined++;
		return;
	}
	run->nr_busy--;
	release(run, st, slot);
}

void wfi_slot_condemn(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);
	struct kv_run *run = kv_run(kv, slot);

	end_claim(kv, owner, run, st);
	st->state = KV_QUARANTINED;
	run->space->nr_quarantined++;
	list_add(kv, &kv->owners[st->parent].quarantined, slot);
}

static void end_quarantine(struct kv_run *run, struct kv_slot *st, uint32_t slot)
{
	run->space->nr_quarantined--;
	run->nr_busy--;
	release(run, st, slot);
}

void wfi_slot_pardon(struct wfi_kv *kv, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);

	list_del(kv, st->parent == KV_DOOMED ? &kv->doomed : &kv->owners[st->parent].quarantined,
		 st);
	st->parent = KV_NONE;
	if (!st->pins)
		end_quarantine(kv_run(kv, slot), st, slot);
}

/* ---- pins ---- */

static inline void pin(struct wfi_kv *kv, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);
	struct kv_run *run;

	assert(st->state != KV_FREE && st->pins != UINT32_MAX);
	if (st->pins++)
		return;
	run = kv_run(kv, slot);
	run->space->nr_pinned++;
	if (st->state != KV_SEALED)
		return;
	st->used = 1;
	run->nr_busy++;
	if (st->indexed && st->child == KV_NONE)
		run->space->policy->candidate_del(run->space->evict, kv_local(run, slot));
}

static inline void unpin(struct wfi_kv *kv, uint32_t slot)
{
	struct kv_slot *st = kv_slot(kv, slot);
	struct kv_run *run;

	assert(st->state != KV_FREE && st->pins);
	if (--st->pins)
		return;
	run = kv_run(kv, slot);
	run->space->nr_pinned--;
	switch (st->state) {
	case KV_SEALED:
		run->nr_busy--;
		if (st->indexed)
			wfi_slot_offer(kv, slot);
		else if (st->child == KV_NONE)
			bury(kv, slot);
		break;
	case KV_QUARANTINED:
		if (st->parent == KV_NONE)
			end_quarantine(run, st, slot);
		break;
	default:
		break;
	}
}

void wfi_slot_pin(struct wfi_kv *kv, uint32_t slot)
{
	pin(kv, slot);
}

void wfi_slot_unpin(struct wfi_kv *kv, uint32_t slot)
{
	unpin(kv, slot);
}

void wfi_kv_pin(struct wfi_kv *kv, const uint32_t *slots, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		if (i + PIN_AHEAD < nr)
			__builtin_prefetch(kv_slot(kv, slots[i + PIN_AHEAD]), 1);
		pin(kv, slots[i]);
	}
}

void wfi_kv_unpin(struct wfi_kv *kv, const uint32_t *slots, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		if (i + PIN_AHEAD < nr)
			__builtin_prefetch(kv_slot(kv, slots[i + PIN_AHEAD]), 1);
		unpin(kv, slots[i]);
	}
}
