/* SPDX-License-Identifier: Apache-2.0 */
/* figures of spaces: how full they are, and the ages of what is evicted and used */
#include <errno.h>
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"

#define SKIP 1024u /* granules without a run that one slice passes over */

void wfi_stat_init(struct wfi_kv *kv, struct wfi_metrics *m)
{
	static const struct {
		const char *name, *help;
	} table[KV_NR_HISTS] = {
		[KV_H_LIFETIME] = { "weft_block_lifetime",
				    "From publishing a block to evicting it" },
		[KV_H_IDLE] = { "weft_block_idle", "From a block's last use to evicting it" },
		[KV_H_REUSE] = { "weft_block_reuse_gap", "From one use of a block to the next" },
	};

	for (unsigned i = 0; i < KV_NR_HISTS; i++) {
		kv->hist[i] = m ? wfi_metrics_hist(m, table[i].name, "", "seconds", table[i].help)
				: NULL;
		if (!kv->hist[i])
			kv->hist[i] = &kv->scratch_hist;
	}
}

static void record(struct wfi_kv *kv, struct kv_space *space, enum kv_hist h, uint32_t ticks,
		   uint32_t nr)
{
	const uint64_t ns = (uint64_t)ticks << WFI_BLOCK_TICK_BITS;

	wfi_hist_add_nr(&space->hist[h], ns, nr);
	wfi_hist_add_nr(kv->hist[h], ns, nr);
}

void wfi_ages_evicted(struct wfi_kv *kv, struct kv_space *space, struct kv_ages *ages)
{
	if (!ages->nr)
		return;
	record(kv, space, KV_H_LIFETIME, ages->a, ages->nr);
	record(kv, space, KV_H_IDLE, ages->b, ages->nr);
	space->nr_evicted += ages->nr;
	ages->nr = 0;
}

void wfi_ages_used(struct wfi_kv *kv, struct kv_space *space, struct kv_ages *ages)
{
	if (!ages->nr)
		return;
	record(kv, space, KV_H_REUSE, ages->a, ages->nr);
	ages->nr = 0;
}

/* slots that the extents of its tenant's empty spaces would be */
static uint64_t room_of_empty(const struct kv_space *space)
{
	uint64_t extents = 0;

	for (const struct kv_space *s = space->tenant->spaces; s; s = s->next)
		if (s != space && s->nr_free == s->nr_slots)
			extents += (uint64_t)s->nr_runs * s->run_extents;
	return extents / space->run_extents * space->run_slots;
}

static uint64_t room(const struct wfi_kv *kv, const struct kv_space *s)
{
	const uint64_t used = s->nr_slots - s->nr_free;
	const uint64_t more = s->nr_free + wfi_space_could_grow(s) + room_of_empty(s);
	const uint64_t low = kv->mover ? wfi_mover_low(s) : 0;

	return wfi_min(more - wfi_min(more, low), s->max_blocks - wfi_min(s->max_blocks, used));
}

int wfi_kv_space_stat(const struct wfi_kv *kv, uint32_t *at, struct wfi_space_stat *out)
{
	const struct kv_space *s = NULL;

	while (*at < kv->nr_spaces && (!s || s->leaving))
		s = kv->spaces[(*at)++];
	if (!s || s->leaving)
		return -ENOENT;
	*out = (struct wfi_space_stat){
		.tenant = s->tenant,
		.model = s->model,
		.layout = s->layout,
		.block_bytes = s->info.block_bytes,
		.blocks = s->nr_indexed,
		.slots = s->nr_slots,
		.slots_free = s->nr_free,
		.slots_filling = s->nr_filling,
		.slots_quarantined = s->nr_quarantined,
		.slots_pinned = s->nr_pinned,
		.slots_room = room(kv, s),
		.puts = s->nr_put,
		.evicted = s->nr_evicted,
		.hits = s->nr_hit,
		.misses = s->nr_miss,
		.lifetime = &s->hist[KV_H_LIFETIME],
		.idle = &s->hist[KV_H_IDLE],
		.reuse = &s->hist[KV_H_REUSE],
		.id = s->info.id,
		.tokens_per_block = s->tokens_per_block,
		.nr_layers = s->info.nr_layers,
		.dtype = s->dtype,
	};
	return 0;
}

/* ---- what a space has ---- */

#define BELOW (1ull << 32) /* where the tier's slots begin */

static const char *state_name(const struct kv_slot *st)
{
	switch (st->state) {
	case KV_FILLING:
		return "filling";
	case KV_QUARANTINED:
		return "leaving";
	default:
		return st->indexed ? "held" : "dropped";
	}
}

static void block_fill(const struct wfi_kv *kv, uint32_t slot, struct wfi_block_stat *out)
{
	const struct weft_block_header *h = &kv->headers[slot];
	const struct kv_slot *st = kv_slot(kv, slot);
	const uint32_t now = kv_tick(kv);

	*out = (struct wfi_block_stat){
		.pins = st->pins,
		.slot = st->state == KV_SEALED && st->indexed ? slot : WFI_SLOT_NONE,
		.tier = WEFT_TIER_DRAM,
		.state = state_name(st),
	};
	if (st->state != KV_SEALED)
		return;
	out->key = h->key;
	if (st->parent != KV_NONE)
		out->parent = kv->headers[st->parent].key;
	out->depth = st->depth;
	out->age_ns = (uint64_t)(now - h->born) << WFI_BLOCK_TICK_BITS;
	out->idle_ns = (uint64_t)(now - h->used) << WFI_BLOCK_TICK_BITS;
}

uint32_t wfi_space_walk(const struct wfi_kv *kv, const struct kv_space *space, uint64_t *at,
			uint32_t out[WFI_BLOCKS_SLICE])
{
	const uint64_t end = (uint64_t)space->nr_granules << KV_GRANULE_BITS;
	uint32_t nr = 0, seen = 0, skipped = 0;

	while (*at < end && seen < WFI_BLOCKS_SLICE && skipped < SKIP) {
		const struct kv_run *run = space->granules[*at >> KV_GRANULE_BITS];
		const uint64_t idx = run ? *at - run->local : 0;

		if (!run || idx >= run->fresh) {
			*at = (*at | (KV_GRANULE - 1)) + 1;
			skipped++;
			continue;
		}
		if (kv_slot(kv, run->first + (uint32_t)idx)->state != KV_FREE)
			out[nr++] = run->first + (uint32_t)idx;
		++*at;
		seen++;
	}
	if (*at >= end)
		*at = UINT64_MAX;
	return nr;
}

static uint32_t slots_slice(const struct wfi_kv *kv, const struct kv_space *space, uint64_t *at,
			    struct wfi_block_stat *out)
{
	uint32_t slots[WFI_BLOCKS_SLICE];
	const uint32_t nr = wfi_space_walk(kv, space, at, slots);

	for (uint32_t i = 0; i < nr; i++)
		block_fill(kv, slots[i], &out[i]);
	if (*at == UINT64_MAX)
		*at = kv->mover ? BELOW : 0;
	return nr;
}

struct below {
	struct wfi_block_stat *out;
	enum weft_tier tier;
	uint32_t nr;
};

static void below_fill(void *ctx, const struct wfi_tier_block *b)
{
	struct below *below = ctx;

	below->out[below->nr++] = (struct wfi_block_stat){
		.key = b->key,
		.parent = b->parent,
		.depth = b->depth,
		.slot = WFI_SLOT_NONE,
		.tier = below->tier,
		.state = "held",
	};
}

int wfi_kv_blocks(struct wfi_kv *kv, uint32_t space_id, uint64_t *at, uint64_t now_ns,
		  struct wfi_block_stat out[WFI_BLOCKS_SLICE])
{
	const struct kv_space *space = kv_space(kv, space_id);
	struct below below = { .out = out };
	uint32_t next;

	if (!space)
		return -ENOENT;
	kv_now(kv, now_ns);
	if (*at < BELOW)
		return (int)slots_slice(kv, space, at, out);
	below.tier = kv->mover ? wfi_mover_kind(kv->mover) : WEFT_TIER_SSD;
	next = kv->mover ? wfi_mover_each(kv->mover, space, (uint32_t)*at, WFI_BLOCKS_SLICE,
					  below_fill, &below)
			 : 0;
	*at = next ? BELOW + next : 0;
	return (int)below.nr;
}

struct wfi_tenant *wfi_kv_space_tenant(const struct wfi_kv *kv, uint32_t space_id)
{
	const struct kv_space *space = kv_space(kv, space_id);

	return space ? space->tenant : NULL;
}
