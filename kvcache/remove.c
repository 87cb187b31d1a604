/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remove.c - how a space goes: at once for who would use it, slice by slice for what it holds
 *
 * What is used is not taken away: claims, leases and transfers in the space, and leases of its
 * blocks in the tier below, keep it. From the moment that it begins to leave no id leads to it, so
 * that nothing new begins; what the mover has under way ends by itself. Then go its blocks in
 * memory, those in the tier, its runs, and when their pages are back, the space.
 */
#include <errno.h>
#include <inttypes.h>
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"

/* what others than the mover have of a space */
struct use {
	uint64_t claimed;
	uint64_t pinned; /* by leases and transfers */
	uint64_t quarantined;
	uint64_t below;
};

/* they wait for the next poll alone */
static uint32_t doomed_in(const struct wfi_kv *kv, const struct kv_space *space)
{
	uint32_t nr = 0;

	for (uint32_t slot = kv->doomed; slot != KV_NONE; slot = kv_slot(kv, slot)->next)
		nr += kv_run(kv, slot)->space == space;
	return nr;
}

static struct use use_of(const struct wfi_kv *kv, const struct kv_space *space)
{
	uint32_t up = 0, down = 0;
	struct use use = { 0 };

	if (kv->mover) {
		wfi_mover_use(kv->mover, space, &up, &down);
		use.below = wfi_leases_below(kv, space);
	}
	use.claimed = space->nr_filling - up;
	use.pinned = space->nr_pinned - down;
	use.quarantined = space->nr_quarantined - down - doomed_in(kv, space);
	return use;
}

int wfi_kv_space_remove(struct wfi_kv *kv, uint32_t id, char *why)
{
	struct kv_space *space = kv_space(kv, id), **last = &kv->leaving_spaces;
	struct use use;

	if (!space)
		return -ENOENT;
	use = use_of(kv, space);
	if (use.claimed || use.pinned || use.quarantined || use.below)
		return wfi_space_refuse(
			space->tenant, why, -EBUSY,
			"%" PRIu64 " slots are claimed, %" PRIu64 " leased or under way, %" PRIu64
			" held by who hung up, %" PRIu64 " leased below: try when they are back",
			use.claimed, use.pinned, use.quarantined, use.below);
	wfi_space_empty_stop(kv, space);
	if (kv->mover)
		wfi_mover_leave(kv->mover, space);
	space->leaving = true;
	kv->leave_waits = false;
	while (*last)
		last = &(*last)->next_leaving;
	*last = space;
	return 0;
}

bool wfi_kv_space_leaves(const struct wfi_kv *kv, uint32_t id)
{
	const struct kv_space *space = kv->leaving_spaces;

	while (space && space->info.id != id)
		space = space->next_leaving;
	return space;
}

/* ---- step by step ---- */

enum leave { LEAVE_DONE, LEAVE_GOES_ON, LEAVE_WAITS };

/* a slice of its slots */
static enum leave leave_memory(struct wfi_kv *kv, struct kv_space *space)
{
	uint32_t slots[WFI_BLOCKS_SLICE], dropped = 0;
	const uint32_t nr = wfi_space_walk(kv, space, &space->leave_at, slots);

	for (uint32_t i = 0; i < nr; i++) {
		/* it may have gone with one before */
		if (!kv_slot(kv, slots[i])->indexed)
			continue;
		wfi_slot_drop(kv, slots[i]);
		dropped++;
	}
	kv_count(kv, KV_C_DROPPED, dropped);
	if (space->leave_at != UINT64_MAX)
		return LEAVE_GOES_ON;
	space->leave_at = 0;
	return LEAVE_DONE;
}

/* what the mover had under way ends, and no slot is looked at any more */
static enum leave leave_mover(struct wfi_kv *kv, struct kv_space *space)
{
	uint32_t up = 0, down = 0;

	if (kv->mover)
		wfi_mover_use(kv->mover, space, &up, &down);
	return !up && !down && space->nr_free == space->nr_slots ? LEAVE_DONE : LEAVE_WAITS;
}

static enum leave leave_tier(struct wfi_kv *kv, struct kv_space *space)
{
	if (!kv->mover)
		return LEAVE_DONE;
	/* what is still to be found there would be left */
	if (wfi_mover_opens(kv->mover))
		return LEAVE_WAITS;
	return wfi_mover_clear(kv->mover, space, &space->leave_at) ? LEAVE_DONE : LEAVE_GOES_ON;
}

static enum leave leave_arena(struct wfi_kv *kv, struct kv_space *space)
{
	return wfi_space_shed(kv, space) ? LEAVE_GOES_ON : LEAVE_DONE;
}

static enum leave leave_pages(struct wfi_kv *kv, struct kv_space *space)
{
	if (wfi_share_leaves(kv, space))
		return LEAVE_WAITS;
	kv->leaving_spaces = space->next_leaving;
	wfi_space_delete(kv, space);
	return LEAVE_DONE;
}

void wfi_remove_poll(struct wfi_kv *kv)
{
	static enum leave (*const steps[])(struct wfi_kv * kv, struct kv_space * space) = {
		leave_memory, leave_mover, leave_tier, leave_arena, leave_pages,
	};
	struct kv_space *space = kv->leaving_spaces;
	const unsigned step = space->leave_step;
	enum leave ret;

	wfi_point(kv->env, "remove.step");
	ret = steps[step](kv, space);
	kv->leave_waits = ret == LEAVE_WAITS;
	if (ret == LEAVE_DONE && step + 1 < WFI_ARRAY_SIZE(steps))
		space->leave_step++;
}
