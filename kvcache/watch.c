/* SPDX-License-Identifier: Apache-2.0 */
/* watch.c - who is told of blocks that come and go, and may look at those that are there */
#include <string.h>
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"

void wfi_kv_watch(struct wfi_kv *kv, struct wfi_kv_watch *watch)
{
	watch->next = kv->watches;
	kv->watches = watch;
}

void wfi_kv_unwatch(struct wfi_kv *kv, struct wfi_kv_watch *watch)
{
	struct wfi_kv_watch **at = &kv->watches;

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
}

void wfi_watch_held(struct wfi_kv *kv, uint32_t slot, uint32_t parent,
		    const struct weft_key *parent_key)
{
	const struct wfi_kv_watch *w;

	for (w = kv->watches; w; w = w->next)
		w->held(w->ctx, slot, parent == KV_NONE ? WFI_SLOT_NONE : parent, parent_key);
}

void wfi_watch_gone(struct wfi_kv *kv, uint32_t slot)
{
	const struct wfi_kv_watch *w;

	for (w = kv->watches; w; w = w->next)
		w->gone(w->ctx, slot);
}

void wfi_watch_below_held(void *ctx, uint32_t slot)
{
	const struct wfi_kv *kv = ctx;
	const struct wfi_kv_watch *w;

	for (w = kv->watches; w; w = w->next)
		if (w->below_held)
			w->below_held(w->ctx, slot);
}

void wfi_watch_below_gone(void *ctx, uint32_t slot)
{
	const struct wfi_kv *kv = ctx;
	const struct wfi_kv_watch *w;

	for (w = kv->watches; w; w = w->next)
		if (w->below_gone)
			w->below_gone(w->ctx, slot);
}

void wfi_watch_below_anew(void *ctx)
{
	const struct wfi_kv *kv = ctx;
	const struct wfi_kv_watch *w;

	for (w = kv->watches; w; w = w->next)
		if (w->below_anew)
			w->below_anew(w->ctx);
}

uint32_t wfi_watch_chain(const struct wfi_kv *kv, uint32_t slot)
{
	const struct wfi_kv_watch *w;

	for (w = kv->watches; w; w = w->next)
		if (w->chain)
			return w->chain(w->ctx, slot);
	return 0;
}

uint64_t wfi_kv_max_slots(const struct wfi_kv *kv)
{
	return (uint64_t)kv->nr_granules << KV_GRANULE_BITS;
}

uint64_t wfi_kv_slot_space_tag(const struct wfi_kv *kv, uint32_t slot)
{
	return kv_run(kv, slot)->space->info.tag;
}

uint32_t wfi_kv_slot_space(const struct wfi_kv *kv, uint32_t slot)
{
	return kv_run(kv, slot)->space->info.id;
}

void wfi_kv_space_geometry(const struct wfi_kv *kv, uint32_t id, struct wfi_geometry *out)
{
	const struct kv_space *space = kv_space(kv, id);

	*out = (struct wfi_geometry){
		.tag = space->info.tag,
		.block_bytes = space->info.block_bytes,
		.max_blocks = space->max_blocks == UINT64_MAX ? 0 : space->max_blocks,
		.tokens_per_block = space->tokens_per_block,
		.nr_layers = space->info.nr_layers,
		.dtype = space->dtype,
		.verify = space->info.verify,
		.replicas = space->info.replicas,
	};
	memcpy(out->model, space->model, sizeof(out->model));
	memcpy(out->layout, space->layout, sizeof(out->layout));
}

uint32_t wfi_kv_slot_replicas(const struct wfi_kv *kv, uint32_t slot)
{
	return kv_run(kv, slot)->space->info.replicas;
}

bool wfi_kv_slot_held(const struct wfi_kv *kv, uint32_t slot, uint32_t gen)
{
	const struct kv_slot *st = kv_run_checked(kv, slot) ? kv_slot(kv, slot) : NULL;

	return st && st->gen == gen && st->state == KV_SEALED && st->indexed;
}

uint64_t wfi_kv_slot_idle_ns(const struct wfi_kv *kv, uint32_t slot, uint64_t now_ns)
{
	const uint32_t now = (uint32_t)(now_ns >> WFI_BLOCK_TICK_BITS);

	return (uint64_t)(now - kv->headers[slot].used) << WFI_BLOCK_TICK_BITS;
}

uint32_t wfi_kv_slot_parent(const struct wfi_kv *kv, uint32_t slot)
{
	const uint32_t parent = kv_slot(kv, slot)->parent;

	return parent == KV_NONE ? WFI_SLOT_NONE : parent;
}

uint32_t wfi_kv_walk(const struct wfi_kv *kv, uint32_t *at, uint32_t max, uint32_t *out)
{
	uint32_t slot = *at, n = 0;

	for (uint32_t left = max; left && slot >> KV_GRANULE_BITS < kv->nr_granules; left--) {
		const struct kv_run *run = kv_run_checked(kv, slot);

		/* a granule that no run has counts as one number */
		if (!kv_run(kv, slot)) {
			slot = (slot | (KV_GRANULE - 1)) + 1;
			continue;
		}
		if (run && kv_slot(kv, slot)->state == KV_SEALED && kv_slot(kv, slot)->indexed)
			out[n++] = slot;
		slot++;
	}
	*at = slot >> KV_GRANULE_BITS < kv->nr_granules ? slot : 0;
	return n;
}

/* ---- blocks of the tier below ---- */

uint32_t wfi_kv_below_walk(const struct wfi_kv *kv, uint32_t *at, uint32_t max, uint32_t *out)
{
	struct wfi_tier *t;

	if (!kv->mover) {
		*at = 0;
		return 0;
	}
	t = wfi_mover_tier(kv->mover);
	return t->ops->walk(t, at, max, out);
}

uint32_t wfi_kv_below_find(const struct wfi_kv *kv, uint64_t space_tag, const struct weft_key *key)
{
	uint32_t slot = WFI_SLOT_NONE;
	struct wfi_tier *t;

	if (!kv->mover)
		return WFI_SLOT_NONE;
	t = wfi_mover_tier(kv->mover);
	t->ops->find(t, space_tag, key, 1, &slot);
	return slot;
}

void wfi_kv_below_block(const struct wfi_kv *kv, uint32_t slot, struct wfi_tier_block *out)
{
	const struct wfi_tier *t = wfi_mover_tier(kv->mover);

	t->ops->block(t, slot, out);
}

void wfi_kv_below_set_chain(struct wfi_kv *kv, uint32_t slot, uint32_t chain)
{
	struct wfi_tier *t = wfi_mover_tier(kv->mover);

	t->ops->set_chain(t, slot, chain);
}
