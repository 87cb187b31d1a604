/* SPDX-License-Identifier: Apache-2.0 */
/* figures of spaces: how full they are, and the ages of what is evicted and used */
#include <errno.h>
#include "kvcache/kv_private.h"

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

int wfi_kv_space_stat(const struct wfi_kv *kv, uint32_t idx, struct wfi_space_stat *out)
{
	const struct kv_space *s = idx < kv->nr_spaces ? kv->spaces[idx] : NULL;

	if (!s)
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
	};
	return 0;
}
