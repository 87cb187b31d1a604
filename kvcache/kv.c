/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include "kvcache/index_line.h"
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"
#include "weft_internal/log.h"

#define HEADER_VERSION 2u
#define DEFAULT_GRACE_NS WFI_NSEC_PER_MSEC
#define DEFAULT_IDLE_NS (60 * WFI_NSEC_PER_SEC)
#define STEP_LINES 64u /* of the index, moved with each poll while it grows */
#define KV_BATCH 32u

/* ---- create, destroy ---- */

static const struct {
	const char *name;
	const char *labels;
	const char *help;
} counters[KV_NR_COUNTERS] = {
	[KV_C_PUT] = { "weft_blocks_put", "", "Blocks published" },
	[KV_C_EVICTED] = { "weft_blocks_evicted", "", "Blocks evicted to make room" },
	[KV_C_DROPPED] = { "weft_blocks_dropped", "", "Blocks dropped on request" },
	[KV_C_BAD_HEADER] = { "weft_verify_failures", "kind=\"header\"",
			      "Blocks whose check failed" },
	[KV_C_BAD_BODY] = { "weft_verify_failures", "kind=\"body\"", "Blocks whose check failed" },
	[KV_C_BAD_STALE] = { "weft_verify_failures", "kind=\"stale\"",
			     "Blocks whose check failed" },
	[KV_C_BAD_REMOTE] = { "weft_verify_failures", "kind=\"remote\"",
			      "Blocks whose check failed" },
	[KV_C_LOOKUP_HIT] = { "weft_lookups", "op=\"lookup\",result=\"hit\"", "Keys looked up" },
	[KV_C_LOOKUP_MISS] = { "weft_lookups", "op=\"lookup\",result=\"miss\"", "Keys looked up" },
	[KV_C_MATCH_HIT] = { "weft_lookups", "op=\"match\",result=\"hit\"", "Keys looked up" },
	[KV_C_MATCH_MISS] = { "weft_lookups", "op=\"match\",result=\"miss\"", "Keys looked up" },
	[KV_C_LEASE_EXPIRED] = { "weft_leases_expired", "",
				 "Leases that ended before they were released" },
	[KV_C_RUN_TAKEN] = { "weft_runs_taken", "",
			     "Runs of slots taken from one space for another" },
	[KV_G_FREE] = { "weft_slots", "state=\"free\"", "Slots of all spaces" },
	[KV_G_FILLING] = { "weft_slots", "state=\"filling\"", "Slots of all spaces" },
	[KV_G_SEALED] = { "weft_slots", "state=\"sealed\"", "Slots of all spaces" },
	[KV_G_QUARANTINED] = { "weft_slots", "state=\"quarantined\"", "Slots of all spaces" },
	[KV_G_PINNED] = { "weft_slots_pinned", "", "Slots held by leases and transfers" },
};

static void counters_init(struct wfi_kv *kv, struct wfi_metrics *m)
{
	for (unsigned i = 0; i < KV_NR_COUNTERS; i++) {
		struct wfi_counter *c = NULL;

		if (m && i < KV_G_FREE)
			c = wfi_metrics_counter(m, counters[i].name, counters[i].labels, "",
						counters[i].help);
		else if (m)
			c = wfi_metrics_gauge(m, counters[i].name, counters[i].labels, "",
					      counters[i].help);
		kv->count[i] = c ? c : &kv->scratch[i];
	}
}

static int opts_check(const struct wfi_kv_opts *opts)
{
	if (opts->extent_bytes && (!wfi_is_pow2(opts->extent_bytes) || opts->extent_bytes < 4096)) {
		wfi_err("extents of %u bytes: a power of two from 4096 on wanted",
			opts->extent_bytes);
		return -EINVAL;
	}
	if (sodium_init() < 0) {
		wfi_err("libsodium does not start: no source of random bytes?");
		return -EIO;
	}
	return 0;
}

static int tables_map(struct wfi_kv *kv, uint64_t max_slots)
{
	const struct wfi_alloc_ops *mem = kv->env->mem;
	uint64_t slots = max_slots ? max_slots : KV_DEFAULT_SLOTS;
	int ret;

	/* whole granules, and the last numbers mean "none" */
	slots = wfi_min(wfi_align_up(slots, KV_GRANULE), (1ull << INDEX_SLOT_BITS) - KV_GRANULE);
	kv->nr_granules = (uint32_t)(slots >> KV_GRANULE_BITS);
	ret = wfi_table_init(kv->env, &kv->header_table, slots * sizeof(*kv->headers),
			     WFI_MAP_SHARED_FD | WFI_MAP_FD_READERS);
	if (ret)
		return ret;
	ret = mem->map(kv->env, kv->nr_granules * sizeof(struct kv_run *), WFI_MAP_PREFAULT,
		       &kv->granule_map);
	if (ret)
		return ret;
	ret = wfi_table_init(kv->env, &kv->slot_table, slots * sizeof(*kv->slots), 0);
	if (ret)
		return ret;
	kv->headers = kv->header_table.addr;
	kv->slots = kv->slot_table.addr;
	kv->granules = kv->granule_map.addr;
	return wfi_index_init(&kv->index, kv->env, 0);
}

int wfi_kv_create(const struct wfi_kv_opts *opts, struct wfi_kv **out)
{
	struct wfi_env *env = opts->env;
	struct wfi_kv *kv;
	uint64_t rnd[2];
	int ret;

	ret = opts_check(opts);
	if (ret)
		return ret;
	ret = env->rng->bytes(env, rnd, sizeof(rnd));
	if (ret)
		return ret;
	kv = wfi_alloc(env, sizeof(*kv));
	if (!kv)
		return -ENOMEM;
	wfi_crc32c_pick(env);
	kv->env = env;
	kv->policy = opts->policy ? opts->policy : wfi_evict_find(WFI_EVICT_DEFAULT);
	kv->incarnation = opts->incarnation ? opts->incarnation : rnd[0] | 1;
	/* an id of an earlier life is refused, and no id is 0 */
	kv->space_gen = ((uint32_t)rnd[1] | KV_MAX_SPACES) & ~(KV_MAX_SPACES - 1);
	kv->grace_ns = opts->lease_grace_ns ? opts->lease_grace_ns : DEFAULT_GRACE_NS;
	kv->extent_bytes = opts->extent_bytes;
	kv->memory_bytes = opts->memory_bytes ? opts->memory_bytes : UINT64_MAX;
	kv->idle_ns = opts->idle_ns ? opts->idle_ns : DEFAULT_IDLE_NS;
	kv->last_leaving = &kv->leaving;
	kv->free_owner = KV_NO_OWNER;
	kv->doomed = KV_NONE;
	counters_init(kv, opts->metrics);
	wfi_stat_init(kv, opts->metrics);
	ret = tables_map(kv, opts->max_slots);
	if (ret) {
		wfi_kv_destroy(kv);
		return ret;
	}
	*out = kv;
	return 0;
}

void wfi_kv_destroy(struct wfi_kv *kv)
{
	struct wfi_env *env;

	if (!kv)
		return;
	env = kv->env;
	wfi_mover_destroy(kv->mover);
	wfi_share_fini(kv);
	for (uint32_t i = 0; i < kv->nr_tenants; i++)
		wfi_tenant_destroy(kv->tenants[i]);
	wfi_leases_fini(kv);
	wfi_index_fini(&kv->index);
	env->mem->unmap(env, &kv->granule_map);
	wfi_table_fini(env, &kv->slot_table);
	wfi_table_fini(env, &kv->header_table);
	wfi_free(env, kv, sizeof(*kv));
}

uint64_t wfi_kv_incarnation(const struct wfi_kv *kv)
{
	return kv->incarnation;
}

const char *wfi_kv_policy(const struct wfi_kv *kv)
{
	return kv->policy->name;
}

int wfi_kv_headers_ro_fd(const struct wfi_kv *kv)
{
	const int fd = kv->header_table.map.fd;

	return fd >= 0 ? fd : -EOPNOTSUPP;
}

/* ---- figures ---- */

static void stat_add(const struct kv_space *s, struct weft_stat *st)
{
	const uint64_t sealed = s->nr_slots - s->nr_free - s->nr_filling - s->nr_quarantined;

	st->blocks_held += s->nr_indexed;
	st->slots_total += s->nr_slots;
	st->slots_free += s->nr_free;
	st->slots_filling += s->nr_filling;
	/* what is dropped but held is on its way out as well */
	st->slots_quarantined += s->nr_quarantined + sealed - s->nr_indexed;
	st->slots_leased += s->nr_pinned;
}

void wfi_kv_stat(const struct wfi_kv *kv, const struct wfi_tenant *t, struct weft_stat *out)
{
	struct weft_stat st = { .arena_bytes = t->arena.len };

	(void)kv;
	for (const struct kv_space *s = t->spaces; s; s = s->next)
		stat_add(s, &st);
	*out = st;
}

static void gauges_set(struct wfi_kv *kv)
{
	struct weft_stat st = { 0 };

	for (uint32_t i = 0; i < kv->nr_spaces; i++)
		if (kv->spaces[i])
			stat_add(kv->spaces[i], &st);
	wfi_gauge_set(kv->count[KV_G_FREE], st.slots_free);
	wfi_gauge_set(kv->count[KV_G_FILLING], st.slots_filling);
	wfi_gauge_set(kv->count[KV_G_SEALED], st.blocks_held);
	wfi_gauge_set(kv->count[KV_G_QUARANTINED], st.slots_quarantined);
	wfi_gauge_set(kv->count[KV_G_PINNED], st.slots_leased);
}

int wfi_kv_poll(struct wfi_kv *kv, uint64_t now_ns)
{
	int work;

	work = wfi_leases_poll(kv, kv_now(kv, now_ns));
	for (; kv->doomed != KV_NONE; work++)
		wfi_slot_pardon(kv, kv->doomed);
	work += (int)wfi_index_step(&kv->index, STEP_LINES);
	if (wfi_unlikely(kv->leaving != NULL))
		work += wfi_share_poll(kv);
	if (kv->mover)
		work += wfi_mover_poll(kv->mover, kv->now_ns);
	else if (wfi_unlikely(kv->emptying != NULL))
		work += wfi_space_empty_step(kv, KV_EMPTY_BLOCKS);
	if (wfi_unlikely(kv->leaving_spaces != NULL))
		wfi_remove_poll(kv);
	gauges_set(kv);
	return work;
}

uint64_t wfi_kv_state_bytes(const struct wfi_kv *kv)
{
	uint64_t bytes = wfi_index_bytes(&kv->index) + kv->nr_slots * sizeof(struct kv_slot);

	for (uint32_t i = 0; i < kv->nr_spaces; i++)
		if (kv->spaces[i])
			bytes += kv->spaces[i]->policy->bytes(kv->spaces[i]->evict);
	return bytes;
}

/* ---- claims ---- */

void wfi_kv_stop(struct wfi_kv *kv)
{
	kv->stopped = true;
}

int wfi_kv_claim(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t space_id, uint32_t nr,
		 struct weft_slot *slots, uint64_t now_ns)
{
	struct kv_space *space = kv_space(kv, space_id);
	struct kv_run *run;
	int ret;

	if (!space || space->tenant != owner->tenant || !kv_owner(kv, owner))
		return -ENOENT;
	if (wfi_unlikely(kv->stopped))
		return -ECONNRESET;
	wfi_point(kv->env, "claim.begin");
	space->used_ns = kv_now(kv, now_ns);
	ret = wfi_space_make_room(kv, space, nr);
	if (ret)
		return ret;
	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t slot = wfi_space_take(kv, space, &run);

		wfi_slot_claim(kv, owner, run, slot);
		slots[i] = (struct weft_slot){
			.idx = slot,
			.gen = kv_slot(kv, slot)->gen,
			.off = run->off + (slot - run->first) * space->info.stride,
		};
	}
	wfi_point(kv->env, "claim.end");
	return (int)nr;
}

/* Return: the run of a slot that is this owner's claim, else NULL */
static struct kv_run *claimed(const struct wfi_kv *kv, const struct wfi_owner *owner,
			      const struct weft_slot *slot)
{
	struct kv_run *run = kv_run_checked(kv, slot->idx);
	const struct kv_slot *st;

	if (!run)
		return NULL;
	st = kv_slot(kv, slot->idx);
	return st->state == KV_FILLING && st->gen == slot->gen &&
			       st->parent == kv_owner_idx(owner->id)
		       ? run
		       : NULL;
}

int wfi_kv_unclaim(struct wfi_kv *kv, struct wfi_owner *owner, const struct weft_slot *slots,
		   uint32_t nr)
{
	int done = 0;

	if (!kv_owner(kv, owner))
		return 0;
	for (uint32_t i = 0; i < nr; i++) {
		if (!claimed(kv, owner, &slots[i]))
			continue;
		wfi_slot_unclaim(kv, owner, slots[i].idx);
		done++;
	}
	return done;
}

int wfi_kv_give(struct wfi_kv *kv, struct wfi_owner *from, struct wfi_owner *to, uint32_t space,
		const struct weft_slot *slots, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		const struct kv_run *run = claimed(kv, from, &slots[i]);

		if (!run || run->space->info.id != space)
			break;
		if (to)
			wfi_slot_give(kv, from, to, slots[i].idx);
	}
	if (i == nr)
		return 0;
	while (to && i--)
		wfi_slot_give(kv, to, from, slots[i].idx);
	return -ESTALE;
}

/* ---- put ---- */

#define PUT_AHEAD 16u
#define PUT_NEAR 8u /* lines of the index that should have come by now */

struct put_ctx {
	struct wfi_kv *kv;
	struct kv_space *space;
	struct wfi_owner *owner;
	uint32_t nr;
	uint32_t prev; /* slot of the key before, KV_NONE: not held */
	uint32_t leaf; /* sealed last and not offered yet: the next block may hang below it */
	uint32_t depth; /* of the next block */
	const struct weft_key *parent; /* of the next block, as the caller says; NULL: none */
	struct index_tag tags[2 * PUT_AHEAD];
};

static inline bool same_key(const struct weft_key *a, const struct weft_key *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

static uint32_t crc_past_body(const struct kv_crc_shift *shift, uint32_t crc)
{
	return shift->table[0][crc & 0xff] ^ shift->table[1][crc >> 8 & 0xff] ^
	       shift->table[2][crc >> 16 & 0xff] ^ shift->table[3][crc >> 24];
}

static uint32_t header_crc(struct weft_block_header h)
{
	h.crc = 0;
	h.used = 0;
	return wfi_crc32c(0, &h, sizeof(h));
}

uint32_t wfi_kv_body_crc(const struct wfi_kv *kv, const struct kv_space *space, uint32_t slot)
{
	const struct weft_block_header *h = &kv->headers[slot];

	return crc_past_body(&space->crc_shift, header_crc(*h)) ^ h->crc;
}

/* two fields at once: the sum is made of words of 8 bytes, and a load of one that was stored in
 * pieces waits until all stores before are in the cache */
static inline void put_word(struct weft_block_header *h, size_t off, uint32_t low, uint32_t high)
{
	const uint64_t word = (uint64_t)high << 32 | low;

	memcpy((char *)h + off, &word, sizeof(word));
}

/* in its place: for the same reason it is not copied there */
static void header_write(struct put_ctx *c, const struct kv_run *run, uint32_t slot,
			 const struct weft_key *key, const uint32_t *body_crc)
{
	const struct kv_space *space = c->space;
	struct weft_block_header *h = &c->kv->headers[slot];
	const uint32_t born = kv_tick(c->kv);
	uint32_t crc;

	h->incarnation = c->kv->incarnation;
	h->key = *key;
	h->space_tag = space->info.tag;
	put_word(h, offsetof(struct weft_block_header, gen), kv_slot(c->kv, slot)->gen,
		 HEADER_VERSION);
	h->len = space->info.block_bytes;
	put_word(h, offsetof(struct weft_block_header, layout_id), space->layout_id, born);
	put_word(h, offsetof(struct weft_block_header, used), 0, 0);
	crc = wfi_crc32c(0, h, sizeof(*h));
	crc = body_crc ? crc_past_body(&space->crc_shift, crc) ^ *body_crc
		       : wfi_crc32c(crc, run->addr + (slot - run->first) * space->info.stride,
				    space->info.block_bytes);
	put_word(h, offsetof(struct weft_block_header, used), born, crc);
}

static void offer_leaf(struct put_ctx *c)
{
	if (c->leaf != KV_NONE)
		wfi_slot_offer(c->kv, c->leaf);
	c->leaf = KV_NONE;
}

/* Return: 0, -ENOSPC no room in the index */
static int seal(struct put_ctx *c, struct kv_run *run, uint32_t slot, const struct index_tag *tag)
{
	struct wfi_kv *kv = c->kv;
	struct kv_space *space = c->space;
	struct wfi_evict_info info = { .key_hash = tag->hash };
	int ret;

	ret = wfi_index_insert(&kv->index, tag, slot);
	if (wfi_unlikely(ret != 0))
		return ret;
	if (c->leaf != c->prev)
		offer_leaf(c);
	/* a parent that was a leaf until now was offered, unless this very call made it */
	if (c->prev != KV_NONE && c->leaf != c->prev) {
		const struct kv_slot *up = kv_slot(kv, c->prev);

		if (!up->pins && up->child == KV_NONE)
			space->policy->candidate_del(space->evict,
						     kv_local(kv_run(kv, c->prev), c->prev));
	}
	wfi_slot_seal(kv, c->owner, run, slot, c->prev);
	info.parent = WFI_SLOT_NONE;
	if (c->prev == KV_NONE)
		c->depth = 0;
	else
		info.parent = kv_local(kv_run(kv, c->prev), c->prev);
	info.depth = c->depth++;
	info.chain_len = wfi_max(info.depth + 1, c->nr);
	space->policy->insert(space->evict, kv_local(run, slot), &info, kv->now_ns);
	if (wfi_unlikely(kv->watches != NULL))
		wfi_watch_held(kv, slot, c->prev, c->parent);
	c->leaf = slot;
	c->prev = slot;
	return 0;
}

/*
 * Return: the slot that holds @key, or KV_NONE. A block whose header says otherwise can never be
 * found: it makes room for one that can
 */
static uint32_t put_held(struct put_ctx *c, const struct weft_key *key, const struct index_tag *tag)
{
	const uint32_t slot = wfi_index_find(&c->kv->index, tag);

	if (slot == INDEX_SLOT_NONE)
		return KV_NONE;
	if (wfi_likely(same_key(&c->kv->headers[slot].key, key)))
		return slot;
	kv_count(c->kv, KV_C_BAD_HEADER, 1);
	wfi_slot_drop(c->kv, slot);
	if (c->leaf == slot)
		c->leaf = KV_NONE;
	if (c->prev == slot)
		c->prev = KV_NONE;
	return KV_NONE;
}

/* Return: 0, -EEXIST, -ESTALE, -EINVAL, -ENOSPC: the block's result */
static int put_one(struct put_ctx *c, const struct weft_key *key, const struct weft_slot *slot,
		   const struct index_tag *tag, const uint32_t *crc)
{
	struct kv_run *run = claimed(c->kv, c->owner, slot);
	uint32_t held;
	int ret;

	if (!key->lo && !key->hi) {
		c->prev = KV_NONE;
		return -EINVAL;
	}
	held = put_held(c, key, tag);
	if (!run || run->space != c->space || held != KV_NONE) {
		c->prev = held;
		c->depth++;
		if (!run || run->space != c->space)
			return -ESTALE;
		wfi_slot_unclaim(c->kv, c->owner, slot->idx);
		return -EEXIST;
	}
	header_write(c, run, slot->idx, key, crc);
	ret = seal(c, run, slot->idx, tag);
	if (wfi_unlikely(ret != 0)) {
		c->prev = KV_NONE;
		wfi_slot_unclaim(c->kv, c->owner, slot->idx);
	}
	return ret;
}

static void put_prefetch(struct put_ctx *c, const struct weft_key *key,
			 const struct weft_slot *slot, uint32_t i, uint32_t depth)
{
	struct index_tag *tag = &c->tags[i % (2 * PUT_AHEAD)];

	*tag = index_tag(&c->space->salt, key);
	wfi_index_prefetch(&c->kv->index, tag);
	c->space->policy->prefetch(c->space->evict, depth, tag->hash);
	if (!kv_run_checked(c->kv, slot->idx))
		return;
	__builtin_prefetch(kv_slot(c->kv, slot->idx), 1);
	__builtin_prefetch(&c->kv->headers[slot->idx], 1);
}

static void put_parent(struct put_ctx *c, const struct weft_key *parent)
{
	struct index_tag tag;
	uint32_t slot;

	if (!parent || (!parent->lo && !parent->hi))
		return;
	tag = index_tag(&c->space->salt, parent);
	slot = wfi_index_find(&c->kv->index, &tag);
	if (slot == INDEX_SLOT_NONE)
		return;
	c->prev = slot;
	c->depth = kv_slot(c->kv, slot)->depth + 1u;
	c->nr += c->depth;
}

int wfi_kv_put(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t space_id,
	       const struct weft_key *parent, const struct weft_key *keys,
	       const struct weft_slot *slots, uint32_t nr, const uint32_t *crcs, int32_t *results,
	       uint64_t now_ns)
{
	struct put_ctx c = {
		.kv = kv,
		.space = kv_space(kv, space_id),
		.owner = owner,
		.nr = nr,
		.prev = KV_NONE,
		.leaf = KV_NONE,
	};
	uint32_t held = 0, sealed = 0, ahead = 0, near = 0;

	if (!c.space || c.space->tenant != owner->tenant || !kv_owner(kv, owner))
		return -ENOENT;
	wfi_point(kv->env, "put.begin");
	kv_now(kv, now_ns);
	put_parent(&c, parent);
	for (uint32_t i = 0; i < nr; i++) {
		for (; ahead < nr && ahead < i + PUT_AHEAD; ahead++)
			put_prefetch(&c, &keys[ahead], &slots[ahead], ahead, c.depth + ahead - i);
		for (; near < ahead && near <= i + PUT_NEAR; near++)
			index_prefetch_behind(&kv->index, &c.tags[near % (2 * PUT_AHEAD)]);
		c.parent = i ? &keys[i - 1] : parent;
		results[i] = put_one(&c, &keys[i], &slots[i], &c.tags[i % (2 * PUT_AHEAD)],
				     crcs ? &crcs[i] : NULL);
		sealed += !results[i];
		held += !results[i] || results[i] == -EEXIST;
	}
	offer_leaf(&c);
	wfi_point(kv->env, "put.end");
	c.space->nr_put += sealed;
	kv_count(kv, KV_C_PUT, sealed);
	return (int)held;
}

/* ---- match, lookup, drop ---- */

static inline uint32_t batch_of(uint32_t nr)
{
	return nr < KV_BATCH ? nr : KV_BATCH;
}

static inline void looked_up(struct kv_space *space, uint32_t found, uint32_t nr)
{
	if (!space)
		return;
	space->nr_hit += found;
	space->nr_miss += nr - found;
}

int wfi_kv_match(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys, uint32_t nr,
		 uint32_t *slots)
{
	struct kv_space *space = kv_space(kv, space_id);
	uint32_t done = 0;

	if (space && space->nr_indexed)
		done = wfi_index_match(&kv->index, &space->salt, keys, nr, slots);
	looked_up(space, done, nr);
	kv_count(kv, KV_C_MATCH_HIT, done);
	kv_count(kv, KV_C_MATCH_MISS, nr - done);
	return (int)done;
}

/* up to KV_BATCH slots of the index. Return: how many in a row are what their headers say, too */
static uint32_t headers_agree(const struct wfi_kv *kv, const struct weft_key *keys,
			      const uint32_t *slots, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		__builtin_prefetch(&kv->headers[slots[i]]);
		__builtin_prefetch(kv_slot(kv, slots[i]));
	}
	for (i = 0; i < nr && same_key(&kv->headers[slots[i]].key, &keys[i]); i++)
		;
	return i;
}

/* up to KV_BATCH keys, each by itself, in the index; what find_agree() looks at is called for */
static void find_begin(struct wfi_kv *kv, const struct kv_space *space, const struct weft_key *keys,
		       uint32_t nr, uint32_t *slots)
{
	wfi_index_lookup(&kv->index, &space->salt, keys, nr, slots);
	for (uint32_t i = 0; i < nr; i++) {
		if (slots[i] == INDEX_SLOT_NONE)
			continue;
		__builtin_prefetch(&kv->headers[slots[i]]);
		__builtin_prefetch(kv_slot(kv, slots[i]));
	}
}

/* found is what the header says as well. Return: how many */
static uint32_t find_agree(const struct wfi_kv *kv, const struct weft_key *keys, uint32_t nr,
			   uint32_t *slots)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < nr; i++) {
		if (slots[i] == INDEX_SLOT_NONE)
			continue;
		if (same_key(&kv->headers[slots[i]].key, &keys[i]))
			found++;
		else
			slots[i] = WFI_SLOT_NONE;
	}
	return found;
}

/* deepest first: the policy leaves the tail of a chain the oldest */
static void touch(struct wfi_kv *kv, struct kv_space *space, const uint32_t *slots, uint32_t nr)
{
	struct kv_ages ages = { 0 };
	uint32_t locals[KV_BATCH];
	unsigned n = 0;

	space->used_ns = kv->now_ns;
	while (nr--) {
		if (slots[nr] == WFI_SLOT_NONE)
			continue;
		kv_age_used(kv, space, &ages, slots[nr]);
		locals[n++] = kv_local(kv_run(kv, slots[nr]), slots[nr]);
		if (n == KV_BATCH) {
			space->policy->touch(space->evict, locals, n, kv->now_ns);
			n = 0;
		}
	}
	if (n)
		space->policy->touch(space->evict, locals, n, kv->now_ns);
	wfi_ages_used(kv, space, &ages);
}

int wfi_kv_prefix(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys, uint32_t nr,
		  uint32_t *slots, uint64_t now_ns)
{
	struct kv_space *space = kv_space(kv, space_id);
	uint32_t held = 0, done = 0;

	kv_now(kv, now_ns);
	if (space)
		held = wfi_index_match(&kv->index, &space->salt, keys, nr, slots);
	while (done < held) {
		const uint32_t n = batch_of(held - done);
		const uint32_t agree = headers_agree(kv, keys + done, slots + done, n);

		done += agree;
		if (agree < n)
			break;
	}
	if (done)
		touch(kv, space, slots, done);
	looked_up(space, done, nr);
	kv_count(kv, KV_C_MATCH_HIT, done);
	kv_count(kv, KV_C_MATCH_MISS, nr - done);
	return (int)done;
}

int wfi_kv_peek(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys, uint32_t nr,
		uint32_t *slots)
{
	const struct kv_space *space = kv_space(kv, space_id);
	uint32_t found = 0, i, last;

	if (!space)
		memset(slots, 0xff, nr * sizeof(*slots));
	/* headers are looked at a group later, when they had time to come */
	for (i = 0; space && i < nr + KV_BATCH; i += KV_BATCH) {
		if (i < nr)
			find_begin(kv, space, keys + i, batch_of(nr - i), slots + i);
		if (!i)
			continue;
		last = i - KV_BATCH;
		found += find_agree(kv, keys + last, batch_of(nr - last), slots + last);
	}
	return (int)found;
}

int wfi_kv_lookup(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys, uint32_t nr,
		  uint32_t *slots, uint64_t now_ns)
{
	const uint32_t found = (uint32_t)wfi_kv_peek(kv, space_id, keys, nr, slots);
	struct kv_space *space = kv_space(kv, space_id);

	kv_now(kv, now_ns);
	if (found)
		touch(kv, space, slots, nr);
	looked_up(space, found, nr);
	kv_count(kv, KV_C_LOOKUP_HIT, found);
	kv_count(kv, KV_C_LOOKUP_MISS, nr - found);
	return (int)found;
}

int wfi_kv_drop(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys, uint32_t nr,
		int32_t *results)
{
	struct kv_space *space = kv_space(kv, space_id);
	uint32_t slots[KV_BATCH], done = 0;

	if (!space)
		return -ENOENT;
	wfi_point(kv->env, "drop.begin");
	for (uint32_t i = 0; i < nr; i += KV_BATCH) {
		const uint32_t n = batch_of(nr - i);

		find_begin(kv, space, keys + i, n, slots);
		find_agree(kv, keys + i, n, slots);
		for (uint32_t j = 0; j < n; j++) {
			results[i + j] = -ENOENT;
			if (kv->mover && wfi_mover_drop(kv->mover, space, &keys[i + j]))
				results[i + j] = 0;
			/* a key that came twice went with the first */
			if (slots[j] != WFI_SLOT_NONE && kv_slot(kv, slots[j])->indexed) {
				wfi_slot_drop(kv, slots[j]);
				results[i + j] = 0;
			}
			done += !results[i + j];
		}
	}
	wfi_point(kv->env, "drop.end");
	kv_count(kv, KV_C_DROPPED, done);
	return (int)done;
}

/* ---- slots ---- */

void *wfi_kv_slot_addr(const struct wfi_kv *kv, uint32_t slot)
{
	const struct kv_run *run = kv_run(kv, slot);

	return run->addr + (slot - run->first) * run->space->info.stride;
}

void wfi_kv_slot_addrs(const struct wfi_kv *kv, const uint32_t *slots, uint32_t nr, void **out)
{
	for (uint32_t i = 0; i < nr; i++)
		out[i] = slots[i] != WFI_SLOT_NONE ? wfi_kv_slot_addr(kv, slots[i]) : NULL;
}

void wfi_kv_slot_ref(const struct wfi_kv *kv, uint32_t slot, struct weft_slot *out)
{
	const struct kv_run *run = kv_run(kv, slot);

	*out = (struct weft_slot){
		.idx = slot,
		.gen = kv_slot(kv, slot)->gen,
		.off = run->off + (slot - run->first) * run->space->info.stride,
	};
}

const struct weft_block_header *wfi_kv_slot_header(const struct wfi_kv *kv, uint32_t slot)
{
	return &kv->headers[slot];
}

int wfi_kv_slot_check(const struct wfi_kv *kv, const struct wfi_owner *owner, uint32_t space,
		      const struct weft_slot *slot)
{
	const struct kv_run *run = kv_run_checked(kv, slot->idx);
	const struct kv_slot *st;

	if (!run || run->space->info.id != space || run->space->tenant != owner->tenant)
		return -ESTALE;
	st = kv_slot(kv, slot->idx);
	if (st->gen != slot->gen)
		return -ESTALE;
	if (st->state == KV_SEALED ||
	    (st->state == KV_FILLING && st->parent == kv_owner_idx(owner->id)))
		return 0;
	return -ESTALE;
}

/* @crc: of the block's bytes. Return: what is wrong with a sealed block, or KV_NR_COUNTERS */
static enum kv_counter verify(const struct wfi_kv *kv, const struct kv_run *run, uint32_t slot,
			      uint32_t crc)
{
	const struct kv_space *space = run->space;
	const struct weft_block_header h = kv->headers[slot];
	const struct index_tag tag = index_tag(&space->salt, &h.key);

	if (kv_slot(kv, slot)->indexed && wfi_index_find(&kv->index, &tag) != slot)
		return KV_C_BAD_HEADER;
	if (h.incarnation != kv->incarnation || h.gen != kv_slot(kv, slot)->gen)
		return KV_C_BAD_STALE;
	if (h.version != HEADER_VERSION || h.space_tag != space->info.tag ||
	    h.len != space->info.block_bytes || h.layout_id != space->layout_id)
		return KV_C_BAD_HEADER;
	crc ^= crc_past_body(&space->crc_shift, header_crc(h));
	return crc == h.crc ? KV_NR_COUNTERS : KV_C_BAD_BODY;
}

void wfi_kv_proof_make(const struct wfi_kv *kv, uint32_t slot, struct wfi_kv_proof *out)
{
	const struct weft_block_header *h = &kv->headers[slot];

	*out = (struct wfi_kv_proof){
		.incarnation = h->incarnation, .gen = h->gen, .born = h->born, .crc = h->crc
	};
}

int wfi_kv_proof_check(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *key,
		       const struct wfi_kv_proof *proof, uint32_t body_crc)
{
	const struct kv_space *space = kv_space(kv, space_id);
	struct weft_block_header h = {
		.incarnation = proof->incarnation,
		.key = *key,
		.gen = proof->gen,
		.version = HEADER_VERSION,
		.born = proof->born,
	};

	if (!space)
		return -ENOENT;
	h.space_tag = space->info.tag;
	h.len = space->info.block_bytes;
	h.layout_id = space->layout_id;
	if ((crc_past_body(&space->crc_shift, header_crc(h)) ^ body_crc) == proof->crc)
		return 0;
	kv_count(kv, KV_C_BAD_REMOTE, 1);
	return -EBADMSG;
}

int wfi_kv_verify_crc(struct wfi_kv *kv, uint32_t slot, uint32_t crc)
{
	const struct kv_run *run = kv_run_checked(kv, slot);
	enum kv_counter bad = KV_C_BAD_STALE;

	if (run && kv_slot(kv, slot)->state == KV_SEALED)
		bad = verify(kv, run, slot, crc);
	if (bad == KV_NR_COUNTERS)
		return 0;
	kv_count(kv, bad, 1);
	if (run && kv_slot(kv, slot)->indexed)
		wfi_slot_doom(kv, slot);
	return -EBADMSG;
}

int wfi_kv_verify(struct wfi_kv *kv, uint32_t slot)
{
	const struct kv_run *run = kv_run_checked(kv, slot);

	return wfi_kv_verify_crc(
		kv, slot,
		run ? wfi_crc32c(0, wfi_kv_slot_addr(kv, slot), run->space->info.block_bytes) : 0);
}

int wfi_kv_crc_check(const struct wfi_kv *kv, uint32_t slot, uint32_t crc)
{
	const struct kv_run *run = kv_run_checked(kv, slot);

	if (run && kv_slot(kv, slot)->state == KV_SEALED &&
	    verify(kv, run, slot, crc) == KV_NR_COUNTERS)
		return 0;
	return -EBADMSG;
}

int wfi_kv_verify_arrived(struct wfi_kv *kv, uint32_t slot, uint32_t crc)
{
	if (!wfi_kv_crc_check(kv, slot, crc))
		return 0;
	/* as what other nodes were sent: good there, and not where it was wanted */
	if (!wfi_kv_verify(kv, slot))
		kv_count(kv, KV_C_BAD_REMOTE, 1);
	return -EBADMSG;
}
