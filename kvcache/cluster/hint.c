/* SPDX-License-Identifier: Apache-2.0 */
/* hint.c - what was seen of blocks that are not here: their chain, their holders, how often */
#include "kvcache/cluster/cluster_private.h"

#define HINT_MS 100u /* for so long a hint is worth a try */
#define HEAD_TRIES 8u /* blocks of a chain that are looked for among those that were seen */

void wfi_cl_heads_leave(struct wfi_cluster *c, const struct wfi_pull *pull)
{
	uint32_t i;

	for (i = 0; i < pull->nr; i++)
		cl_chain_note(c, pull->tags[i], pull->head);
}

static uint32_t now_ms(const struct wfi_cluster *c)
{
	return (uint32_t)(c->now_ns / WFI_NSEC_PER_MSEC);
}

void wfi_cl_hints_leave(struct wfi_cluster *c, const struct wfi_pull *pull)
{
	const uint32_t seen_ms = now_ms(c);
	uint32_t i;

	wfi_cl_heads_leave(c, pull);
	for (i = 0; i < pull->nr; i++) {
		struct hint *h = cl_hint(c, pull->tags[i]);

		if (pull->peers[i] == WFI_PEER_NONE)
			continue;
		if (!cl_hint_is_of(h, pull->tags[i]))
			*h = (struct hint){ .tag = pull->tags[i] };
		h->peer = pull->peers[i];
		h->other = pull->others[i];
		h->seen_ms = seen_ms;
	}
}

bool wfi_cl_hints_suffice(struct wfi_cluster *c, struct wfi_pull *pull)
{
	const uint32_t at_ms = now_ms(c);
	uint32_t i;

	for (i = 0; i < pull->nr; i++) {
		const struct hint *h = cl_hint(c, pull->tags[i]);

		if (pull->o.slots[i] != WFI_SLOT_NONE)
			continue;
		if (!cl_hint_is_of(h, pull->tags[i]) || h->peer == WFI_PEER_NONE ||
		    at_ms - h->seen_ms > HINT_MS)
			return false;
		pull->peers[i] = h->peer;
		pull->others[i] = h->other;
	}
	return true;
}

/* the first block of a chain here, or a later one that was seen: not all of it need be known */
uint32_t wfi_cl_chain_head(struct wfi_cluster *c, const struct wfi_space_info *space,
			   const struct weft_key *keys, uint32_t nr)
{
	const uint64_t tag = wfi_block_tag(space->tag, keys);
	uint32_t head = cl_chain_seen(c, tag), slot, i;

	if (head)
		return head;
	if (wfi_kv_peek(c->o.kv, space->id, keys, 1, &slot) == 1) {
		head = wfi_cl_head_find(c, slot);
	} else if (wfi_kv_has_tier(c->o.kv)) {
		slot = wfi_kv_below_find(c->o.kv, space->tag, keys);
		if (slot != WFI_SLOT_NONE)
			return wfi_cl_head_below(c, slot);
	}
	for (i = 1; !head && i < nr && i < HEAD_TRIES; i++)
		head = cl_chain_seen(c, wfi_block_tag(space->tag, &keys[i]));
	return head ? head : cl_head(tag);
}

bool wfi_cluster_popular(const struct wfi_cluster *c, uint32_t space, const struct weft_key *key)
{
	struct wfi_space_info info;
	const struct hint *h;
	uint64_t tag;

	if (!c->active || c->o.copy_after == WFI_COPY_NEVER ||
	    wfi_kv_space_any(c->o.kv, space, &info))
		return false;
	tag = wfi_block_tag(info.tag, key);
	h = cl_hint(c, tag);
	return (cl_hint_is_of(h, tag) ? h->fetched : 0u) + 1 >= c->o.copy_after;
}
