/* SPDX-License-Identifier: Apache-2.0 */
/* chunks and slots of an SSD tier, its index, and the clock that evicts */
#include <errno.h>
#include <string.h>
#include "kvcache/tier_ssd.h"
#include "weft_internal/log.h"

#define CLOCK_STEPS 4096u /* slots that one allocation looks at, at most */
#define TAKE_AHEAD 4u /* headers called for before they are looked at */
#define CRC_OF_CRC 0x48674bc7u /* CRC32C of any bytes with their own behind them */

/* ---- headers ---- */

static uint32_t header_crc(const struct ssd_header *h)
{
	return wfi_crc32c(0, h, offsetof(struct ssd_header, crc));
}

void wfi_ssd_page_make(const struct ssd *s, uint32_t page, struct ssd_header *h)
{
	const uint32_t owner = s->owners[page];
	const struct ssd_chunk *c = owner ? &s->chunks[owner - 1] : NULL;

	memset(h, 0, SSD_PAGE);
	for (uint32_t i = 0; c && i < SSD_PAGE_SLOTS; i++) {
		const uint32_t slot = page * SSD_PAGE_SLOTS + i;
		const struct ssd_slot *st = &s->slots[slot];

		if (st->state != SSD_HELD)
			continue;
		h[i] = (struct ssd_header){
			.magic = SSD_SLOT_MAGIC,
			.version = SSD_VERSION,
			.slot = slot,
			.file = s->super.file,
			.node = s->super.node,
			.key = st->key,
			.parent = st->parent,
			.space_tag = st->space_tag,
			.seq = st->seq,
			.len = st->len,
			.gen = st->gen,
			.chunk = owner - 1,
			.idx = slot - c->first,
			.stride = s->classes[c->class].stride,
			.depth = st->depth,
			.chain = s->chains[slot],
			.body_crc = st->crc,
		};
		h[i].crc = header_crc(&h[i]);
	}
}

bool wfi_ssd_header_ok(const struct ssd *s, uint32_t slot, const struct ssd_header *h)
{
	return h->magic == SSD_SLOT_MAGIC && !(h->seq >> SSD_SEQ_BITS) && (h->key.lo | h->key.hi) &&
	       wfi_crc32c(0, h, sizeof(*h)) == CRC_OF_CRC && h->version == SSD_VERSION &&
	       h->slot == slot && h->file == s->super.file && h->node == s->super.node &&
	       h->chunk < s->super.nr_chunks && h->stride && !(h->stride % SSD_PAGE) &&
	       h->stride <= s->super.chunk_bytes && h->len && h->len <= h->stride &&
	       h->idx < s->super.chunk_bytes / h->stride && h->idx <= slot &&
	       !((slot - h->idx) % SSD_PAGE_SLOTS);
}

/* ---- classes and chunks ---- */

static uint32_t chunk_pages(uint32_t nr_slots)
{
	return (nr_slots + SSD_PAGE_SLOTS - 1) / SSD_PAGE_SLOTS;
}

/* Return: number of the class, or SSD_CLASSES when there are too many */
static uint32_t class_of(struct ssd *s, uint32_t stride)
{
	uint32_t unused = SSD_CLASSES;

	for (uint32_t i = 0; i < SSD_CLASSES; i++) {
		if (s->classes[i].stride == stride)
			return i;
		if (unused == SSD_CLASSES && !s->classes[i].nr_chunks)
			unused = i;
	}
	if (unused < SSD_CLASSES)
		s->classes[unused] = (struct ssd_class){ .stride = stride, .free = SSD_NONE };
	return unused;
}

static void chunk_claim(struct ssd *s, uint32_t chunk, uint32_t class, uint32_t first)
{
	struct ssd_chunk *c = &s->chunks[chunk];

	c->first = first;
	c->nr = (uint32_t)(s->super.chunk_bytes / s->classes[class].stride);
	c->class = class;
	c->nr_held = 0;
	c->max_seq = 0;
	s->classes[class].nr_chunks++;
	s->nr_free_chunks--;
	for (uint32_t i = 0; i < chunk_pages(c->nr); i++)
		s->owners[first / SSD_PAGE_SLOTS + i] = chunk + 1;
}

static void free_push(struct ssd *s, uint32_t slot)
{
	const struct ssd_chunk *c = ssd_chunk_of(s, slot);
	struct ssd_class *k = &s->classes[c->class];
	struct ssd_slot *st = &s->slots[slot];

	st->prev_free = slot;
	/* all come at the end of the recovery; behind an end to come, none is given out again */
	if (s->phase != SSD_RUN || s->owners[slot / SSD_PAGE_SLOTS] > s->limit_chunks)
		return;
	st->next_free = k->free;
	st->prev_free = SSD_NONE;
	if (k->free != SSD_NONE)
		s->slots[k->free].prev_free = slot;
	k->free = slot;
}

/* off its list, if it is on one */
static void free_take(struct ssd *s, struct ssd_class *k, uint32_t slot)
{
	struct ssd_slot *st = &s->slots[slot];

	if (st->prev_free == slot)
		return;
	if (st->prev_free == SSD_NONE)
		k->free = st->next_free;
	else
		s->slots[st->prev_free].next_free = st->next_free;
	if (st->next_free != SSD_NONE)
		s->slots[st->next_free].prev_free = st->prev_free;
	st->prev_free = slot;
}

/* Return: first slot of @nr pages that belong to no chunk, or SSD_NONE */
static uint32_t pages_find(struct ssd *s, uint32_t nr)
{
	uint32_t found = 0;

	for (uint64_t n = 0; n < s->super.nr_pages; n++) {
		const uint64_t page = (s->page_hint + n) % s->super.nr_pages;

		if (!page)
			found = 0;
		found = s->owners[page] ? 0 : found + 1;
		if (found == nr)
			return (uint32_t)(page + 1 - nr) * SSD_PAGE_SLOTS;
	}
	return SSD_NONE;
}

static int chunk_attach(struct ssd *s, uint32_t class)
{
	const uint32_t nr = (uint32_t)(s->super.chunk_bytes / s->classes[class].stride);
	uint32_t chunk = 0, first;
	int ret;

	if (!s->nr_free_chunks)
		return -ENOSPC;
	while (chunk < s->limit_chunks && s->chunks[chunk].nr)
		chunk++;
	if (chunk == s->limit_chunks)
		return -ENOSPC;
	first = pages_find(s, chunk_pages(nr));
	if (first == SSD_NONE) {
		wfi_warn("tier %s: all slot headers are in use: blocks are too small for this file",
			 s->path);
		return -ENOSPC;
	}
	ret = wfi_index_reserve(&s->index, s->index.nr + nr, s->super.nr_pages * SSD_PAGE_SLOTS);
	if (ret)
		return ret;
	chunk_claim(s, chunk, class, first);
	wfi_point(s->env, "writeback.chunk.claimed");
	s->page_hint = first / SSD_PAGE_SLOTS + chunk_pages(nr);
	if (s->page_hint > s->super.used_pages) {
		/* in steps, so that the superblock is written rarely */
		s->super.used_pages =
			wfi_min(s->super.nr_pages, wfi_max(s->page_hint, 2 * s->super.used_pages));
		wfi_ssd_super_dirty(s);
	}
	/* so that they are given in order */
	for (uint32_t i = nr; i--;) {
		s->slots[first + i].state = SSD_FREE;
		free_push(s, first + i);
	}
	return 0;
}

int wfi_ssd_chunk_release(struct ssd *s, uint32_t chunk)
{
	struct ssd_chunk *c = &s->chunks[chunk];
	bool busy = false;

	if (!c->nr)
		return 0;
	for (uint32_t i = 0; i < c->nr; i++) {
		if (s->slots[c->first + i].state == SSD_HELD)
			wfi_ssd_slot_forget(s, c->first + i, false);
		busy |= s->slots[c->first + i].state == SSD_DYING ||
			s->slots[c->first + i].state == SSD_WRITING ||
			(s->slots[c->first + i].state == SSD_RETIRED &&
			 (s->slots[c->first + i].pins || s->slots[c->first + i].kept));
	}
	if (busy)
		return -EBUSY;
	for (uint32_t i = 0; i < c->nr; i++) {
		if (s->slots[c->first + i].state == SSD_FREE)
			free_take(s, &s->classes[c->class], c->first + i);
		if (s->slots[c->first + i].state == SSD_RETIRED)
			s->nr_retired--;
		s->slots[c->first + i].state = SSD_FREE;
	}
	for (uint32_t i = 0; i < chunk_pages(c->nr); i++) {
		s->owners[c->first / SSD_PAGE_SLOTS + i] = 0;
		wfi_ssd_page_dirty(s, c->first / SSD_PAGE_SLOTS + i);
	}
	s->classes[c->class].nr_chunks--;
	s->nr_free_chunks++;
	wfi_point(s->env, "writeback.chunk.released");
	s->page_hint = 0;
	*c = (struct ssd_chunk){ 0 };
	return 0;
}

/* Return: whether all that is in the chunk may go for blocks of a space */
static bool chunk_yields(struct ssd *s, const struct ssd_chunk *c, uint64_t space_tag)
{
	for (uint32_t i = 0; i < c->nr; i++) {
		const struct ssd_slot *st = &s->slots[c->first + i];

		if (st->state == SSD_HELD &&
		    (st->kept ||
		     !wfi_ssd_share_yields(s, st->space_tag, space_tag, s->super.chunk_bytes)))
			return false;
	}
	return true;
}

/* a chunk of the class that has far more of them, if the first that is looked at may go: the next
 * call looks at the next. Return: 0, -ENOSPC */
static int chunk_steal(struct ssd *s, uint32_t class, uint64_t space_tag)
{
	uint32_t from = class;

	for (uint32_t i = 0; i < SSD_CLASSES; i++)
		if (s->classes[i].nr_chunks > s->classes[from].nr_chunks)
			from = i;
	if (s->classes[from].nr_chunks < 2 * s->classes[class].nr_chunks + 1 || from == class)
		return -ENOSPC;
	for (uint32_t n = 0; n < s->limit_chunks; n++) {
		const uint32_t i = s->steal_at = (s->steal_at + 1) % s->limit_chunks;
		const struct ssd_chunk *c = &s->chunks[i];

		if (!c->nr || c->class != from)
			continue;
		if (!chunk_yields(s, c, space_tag) || wfi_ssd_chunk_release(s, i))
			return -ENOSPC;
		return chunk_attach(s, class);
	}
	return -ENOSPC;
}

/* ---- the clock ---- */

/* Return: false when the class has no chunk that blocks may go to */
static bool hand_step(struct ssd *s, struct ssd_class *k, uint32_t class)
{
	if (k->hand_chunk < s->limit_chunks && s->chunks[k->hand_chunk].nr &&
	    s->chunks[k->hand_chunk].class == class && ++k->hand < s->chunks[k->hand_chunk].nr)
		return true;
	k->hand = 0;
	for (uint32_t n = 0; n < s->limit_chunks; n++) {
		k->hand_chunk = k->hand_chunk + 1 < s->limit_chunks ? k->hand_chunk + 1 : 0;
		if (s->chunks[k->hand_chunk].nr && s->chunks[k->hand_chunk].class == class)
			return true;
	}
	return false;
}

/* it is somebody's: without a sequence, and kept by nobody */
static void slot_take(struct ssd *s, struct ssd_class *k, uint32_t slot)
{
	free_take(s, k, slot);
	s->slots[slot].seq = 0;
	s->slots[slot].kept = 0;
}

static uint32_t clock_evict(struct ssd *s, uint32_t class, uint64_t space_tag, uint32_t len)
{
	struct ssd_class *k = &s->classes[class];

	for (uint32_t n = 0; n < CLOCK_STEPS && hand_step(s, k, class); n++) {
		const uint32_t slot = s->chunks[k->hand_chunk].first + k->hand;
		struct ssd_slot *st = &s->slots[slot];

		if (st->state != SSD_HELD || st->pins || st->kept ||
		    !wfi_ssd_share_yields(s, st->space_tag, space_tag, len))
			continue;
		if (st->visits) {
			st->visits--;
			continue;
		}
		wfi_ssd_slot_forget(s, slot, false);
		ssd_count(s, SSD_C_EVICTED, 1);
		wfi_point(s->env, "evict.tier");
		slot_take(s, k, slot);
		return slot;
	}
	return SSD_NONE;
}

uint32_t wfi_ssd_slot_alloc(struct ssd *s, uint64_t space_tag, uint32_t len, int *ret)
{
	const uint32_t stride = (uint32_t)wfi_align_up(len, SSD_PAGE);
	uint32_t class, slot;

	*ret = -E2BIG;
	if (stride > s->super.chunk_bytes)
		return SSD_NONE;
	class = class_of(s, stride);
	*ret = -ENOSPC;
	if (class == SSD_CLASSES)
		return SSD_NONE;
	if (s->classes[class].free == SSD_NONE && chunk_attach(s, class))
		chunk_steal(s, class, space_tag);
	slot = s->classes[class].free;
	if (slot != SSD_NONE) {
		slot_take(s, &s->classes[class], slot);
		return slot;
	}
	*ret = -EAGAIN;
	return clock_evict(s, class, space_tag, len);
}

/* ---- slots ---- */

uint32_t wfi_ssd_slot_find(const struct ssd *s, uint64_t space_tag, const struct weft_key *key,
			   const struct index_tag *tag)
{
	const uint32_t slot = wfi_index_find(&s->index, tag);
	const struct ssd_slot *st;

	if (slot == INDEX_SLOT_NONE)
		return SSD_NONE;
	st = &s->slots[slot];
	return st->key.lo == key->lo && st->key.hi == key->hi && st->space_tag == space_tag
		       ? slot
		       : SSD_NONE;
}

void wfi_ssd_slot_forget(struct ssd *s, uint32_t slot, bool retire)
{
	struct ssd_slot *st = &s->slots[slot];
	const struct index_tag tag = ssd_tag(s, st->space_tag, &st->key);

	wfi_index_remove(&s->index, &tag, slot);
	wfi_point(s->env, "evict.forgotten");
	if (s->watch && s->phase == SSD_RUN)
		s->watch->gone(s->watch->ctx, slot);
	if (st->state == SSD_HELD) {
		s->nr_held--;
		s->bytes_held -= st->len;
		wfi_ssd_share_count(s, st->space_tag, -(int64_t)st->len);
		ssd_chunk_of(s, slot)->nr_held--;
		wfi_ssd_page_dirty(s, slot / SSD_PAGE_SLOTS);
	}
	if (retire)
		s->nr_retired++;
	st->state = retire ? SSD_RETIRED : SSD_FREE;
	if (retire)
		return;
	if (st->pins || st->kept)
		st->state = SSD_DYING;
	else
		free_push(s, slot);
}

static void dying_free(struct ssd *s, uint32_t slot)
{
	struct ssd_slot *st = &s->slots[slot];

	if (st->pins || st->kept || st->state != SSD_DYING)
		return;
	st->state = SSD_FREE;
	free_push(s, slot);
}

void wfi_ssd_slot_unpin(struct ssd *s, uint32_t slot)
{
	s->slots[slot].pins--;
	dying_free(s, slot);
}

/* ---- leases ---- */

int wfi_ssd_slot_keep(struct wfi_tier *t, uint32_t slot, uint64_t most)
{
	struct ssd *s = to_ssd(t);
	struct ssd_slot *st = &s->slots[slot];
	struct ssd_class *k = &s->classes[ssd_chunk_of(s, slot)->class];
	const uint64_t room =
		(uint64_t)(k->nr_chunks + s->nr_free_chunks) * (s->super.chunk_bytes / k->stride);

	if (st->kept == SSD_KEPT_MAX)
		return -EDQUOT;
	if (!st->kept) {
		if (k->nr_kept >= room / 2)
			return -EDQUOT;
		if (wfi_ssd_share_keep(s, st->space_tag, st->len) > most) {
			wfi_ssd_share_keep(s, st->space_tag, -(int64_t)st->len);
			return -EDQUOT;
		}
		k->nr_kept++;
		s->nr_kept++;
	}
	st->kept++;
	wfi_point(s->env, "lease.kept");
	return 0;
}

void wfi_ssd_slot_unkeep(struct wfi_tier *t, uint32_t slot)
{
	struct ssd *s = to_ssd(t);
	struct ssd_slot *st = &s->slots[slot];

	if (--st->kept)
		return;
	s->classes[ssd_chunk_of(s, slot)->class].nr_kept--;
	s->nr_kept--;
	wfi_ssd_share_keep(s, st->space_tag, -(int64_t)st->len);
	wfi_point(s->env, "lease.unkept");
	dying_free(s, slot);
}

/* ---- what the file says, at the start ---- */

/* Return: whether the header's chunk is what the header says, when older claims have given way */
static bool claim_ok(struct ssd *s, uint32_t slot, const struct ssd_header *h)
{
	const uint32_t first = slot - h->idx;
	struct ssd_chunk *c = &s->chunks[h->chunk];
	uint32_t nr_pages, class;

	if (c->nr && c->first == first && s->classes[c->class].stride == h->stride)
		return true;
	nr_pages = chunk_pages((uint32_t)(s->super.chunk_bytes / h->stride));
	if (first / SSD_PAGE_SLOTS + nr_pages > s->super.nr_pages || (c->nr && c->max_seq > h->seq))
		return false;
	for (uint32_t i = 0; i < nr_pages; i++) {
		const uint32_t owner = s->owners[first / SSD_PAGE_SLOTS + i];

		if (owner && s->chunks[owner - 1].max_seq > h->seq)
			return false;
	}
	wfi_ssd_chunk_release(s, h->chunk);
	for (uint32_t i = 0; i < nr_pages; i++)
		if (s->owners[first / SSD_PAGE_SLOTS + i])
			wfi_ssd_chunk_release(s, s->owners[first / SSD_PAGE_SLOTS + i] - 1);
	class = class_of(s, h->stride);
	if (class == SSD_CLASSES)
		return false;
	chunk_claim(s, h->chunk, class, first);
	return true;
}

static void header_take(struct ssd *s, uint32_t slot, const struct ssd_header *h,
			const struct index_tag *tag)
{
	struct ssd_slot *st = &s->slots[slot];
	struct ssd_chunk *c = &s->chunks[h->chunk];
	uint32_t other;

	if (!claim_ok(s, slot, h)) {
		ssd_count(s, SSD_C_BAD + WFI_TIER_BAD_HEADER, 1);
		return;
	}
	s->seq = wfi_max(s->seq, h->seq);
	other = wfi_ssd_slot_find(s, h->space_tag, &h->key, tag);
	/* two under one key: the block was written again, and the older header not yet wiped */
	if (other != SSD_NONE && s->slots[other].seq > h->seq)
		return;
	if (other != SSD_NONE)
		wfi_ssd_slot_forget(s, other, false);
	if (wfi_index_insert(&s->index, tag, slot))
		return;
	*st = (struct ssd_slot){
		.key = h->key,
		.parent = h->parent,
		.seq = h->seq,
		.space_tag = h->space_tag,
		.len = h->len,
		.crc = h->body_crc,
		.gen = h->gen,
		.depth = (uint32_t)wfi_min(h->depth, (1u << 12) - 1),
		.state = SSD_HELD,
	};
	s->chains[slot] = h->chain;
	c->max_seq = wfi_max(c->max_seq, h->seq);
	c->nr_held++;
	s->nr_held++;
	s->bytes_held += h->len;
	wfi_ssd_share_count(s, h->space_tag, h->len);
}

static bool header_empty(const struct ssd_header *h)
{
	const uint64_t *words = (const uint64_t *)h;
	uint64_t any = 0;

	for (size_t i = 0; i < sizeof(*h) / sizeof(*words); i++)
		any |= words[i];
	return !any;
}

void wfi_ssd_page_take(struct ssd *s, uint32_t page, const struct ssd_header *h)
{
	struct index_tag tags[SSD_PAGE_SLOTS];
	uint32_t slot = page * SSD_PAGE_SLOTS, good = 0;

	for (uint32_t i = 0; i < SSD_PAGE_SLOTS; i++) {
		/* the next page's first ones too, which the CPU's own prefetchers don't reach */
		__builtin_prefetch(&h[i + TAKE_AHEAD]);
		__builtin_prefetch(&h[i + TAKE_AHEAD].seq);
		if (!wfi_ssd_header_ok(s, slot + i, &h[i])) {
			if (!header_empty(&h[i]))
				ssd_count(s, SSD_C_BAD + WFI_TIER_BAD_HEADER, 1);
			continue;
		}
		good |= 1u << i;
		__builtin_prefetch(&s->slots[slot + i], 1);
		tags[i] = ssd_tag(s, h[i].space_tag, &h[i].key);
		wfi_index_prefetch(&s->index, &tags[i]);
	}
	for (; good; good &= good - 1) {
		const uint32_t i = (uint32_t)__builtin_ctz(good);

		header_take(s, slot + i, &h[i], &tags[i]);
	}
}

void wfi_ssd_slots_settle(struct ssd *s)
{
	for (uint32_t chunk = (uint32_t)s->super.nr_chunks; chunk--;) {
		const struct ssd_chunk *c = &s->chunks[chunk];

		if (!c->nr || c->nr_held == c->nr)
			continue;
		for (uint32_t i = c->nr; i--;)
			if (s->slots[c->first + i].state == SSD_FREE)
				free_push(s, c->first + i);
	}
}

/* ---- drops that come before what they drop ---- */

static int drops_grow(struct ssd *s)
{
	const uint32_t max = s->max_drops ? 2 * s->max_drops : 64;
	struct ssd_drop *drops = wfi_alloc(s->env, max * sizeof(*drops));

	if (!drops)
		return -ENOMEM;
	if (s->drops) {
		memcpy(drops, s->drops, s->nr_drops * sizeof(*drops));
		wfi_free(s->env, s->drops, s->max_drops * sizeof(*drops));
	}
	s->drops = drops;
	s->max_drops = max;
	return 0;
}

void wfi_ssd_drop_later(struct ssd *s, uint64_t space_tag, const struct weft_key *key)
{
	if (s->nr_drops == s->max_drops && drops_grow(s)) {
		s->drop_all = true;
		return;
	}
	s->drops[s->nr_drops++] = (struct ssd_drop){ .space_tag = space_tag, .key = *key };
}

static void drop_all(struct ssd *s)
{
	const uint64_t nr = s->super.used_pages * SSD_PAGE_SLOTS;

	wfi_warn("tier %s: no memory to note what was dropped: all that is in it is", s->path);
	for (uint64_t slot = 0; slot < nr; slot++)
		if (s->slots[slot].state == SSD_HELD)
			wfi_ssd_slot_forget(s, (uint32_t)slot, false);
}

static void drops_free(struct ssd *s)
{
	if (s->drops)
		wfi_free(s->env, s->drops, s->max_drops * sizeof(*s->drops));
	s->drops = NULL;
	s->nr_drops = s->max_drops = 0;
}

void wfi_ssd_drops_settle(struct ssd *s)
{
	for (uint32_t i = 0; i < s->nr_drops; i++) {
		const struct ssd_drop *d = &s->drops[i];
		const struct index_tag tag = ssd_tag(s, d->space_tag, &d->key);
		const uint32_t slot = wfi_ssd_slot_find(s, d->space_tag, &d->key, &tag);

		if (slot != SSD_NONE)
			wfi_ssd_slot_forget(s, slot, false);
	}
	if (s->drop_all)
		drop_all(s);
	drops_free(s);
}

/* ---- set-up ---- */

int wfi_ssd_slots_init(struct ssd *s)
{
	const struct wfi_alloc_ops *mem = s->env->mem;
	const uint64_t nr_pages = s->super.nr_pages;
	int ret;

	/* pages come as they are used */
	ret = mem->map(s->env, nr_pages * SSD_PAGE_SLOTS * sizeof(struct ssd_slot), WFI_MAP_HUGE,
		       &s->slot_map);
	if (!ret)
		ret = mem->map(s->env, nr_pages * SSD_PAGE_SLOTS * sizeof(uint32_t), WFI_MAP_SPARSE,
			       &s->chain_map);
	if (!ret)
		ret = mem->map(s->env, nr_pages, 0, &s->page_map);
	if (!ret)
		ret = mem->map(s->env, nr_pages * sizeof(uint32_t), 0, &s->owner_map);
	if (!ret)
		ret = mem->map(s->env, nr_pages * sizeof(uint32_t), 0, &s->queue_map);
	if (!ret)
		ret = mem->map(s->env, s->super.max_chunks * sizeof(struct ssd_chunk), 0,
			       &s->chunk_map);
	if (!ret)
		ret = s->env->rng->bytes(s->env, &s->salt, sizeof(s->salt));
	if (!ret)
		ret = wfi_index_init(&s->index, s->env, s->super.used_pages * SSD_PAGE_SLOTS);
	if (ret)
		return ret;
	mem->populate(s->env, &s->slot_map, 0,
		      s->super.used_pages * SSD_PAGE_SLOTS * sizeof(*s->slots));
	s->slots = s->slot_map.addr;
	s->chains = s->chain_map.addr;
	s->pages = s->page_map.addr;
	s->owners = s->owner_map.addr;
	s->queue = s->queue_map.addr;
	s->chunks = s->chunk_map.addr;
	s->limit_chunks = (uint32_t)s->super.nr_chunks;
	s->nr_free_chunks = s->limit_chunks;
	for (uint32_t i = 0; i < SSD_CLASSES; i++)
		s->classes[i].free = SSD_NONE;
	return 0;
}

void wfi_ssd_slots_fini(struct ssd *s)
{
	const struct wfi_alloc_ops *mem = s->env->mem;

	drops_free(s);
	wfi_index_fini(&s->index);
	mem->unmap(s->env, &s->chunk_map);
	mem->unmap(s->env, &s->queue_map);
	mem->unmap(s->env, &s->owner_map);
	mem->unmap(s->env, &s->page_map);
	mem->unmap(s->env, &s->chain_map);
	/* its pages may still be coming */
	mem->unmap_begin(s->env, &s->slot_map);
}
