/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KV manager against a model of plain arrays: random operations of several owners on two spaces
 * that share an arena too small for them, each followed by a comparison of all slots in use. What
 * the policy evicts is its own affair; that it may is not: never what is pinned, never a block
 * before its children, and the slot's generation moves on.
 *
 * Once more above an SSD tier whose drive fails, tears and forgets, with nodes that end in between.
 * What the tier keeps is its own affair as well; that it gives the right bytes of what was put and
 * not dropped since, or a miss, is not.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/unit/kv_model.h"
#include "weft_internal/log.h"

#define STEPS 500000u /* for each of two policies */
#define TIER_STEPS 60000u /* for each of some drives */
#define TIER_TICK_NS 20000u
#define TIER_BYTES (768u << 10)
#define EXTENT_BYTES 4096u
#define ARENA_BYTES (12u * EXTENT_BYTES)

uint32_t model_below(struct model *m, uint32_t n)
{
	return (uint32_t)(wfi_sim_rand(m->sim) % n);
}

/* chains in threes share their first blocks: one number for each block of a chain */
uint32_t model_key_no(uint32_t chain, uint32_t depth)
{
	return (depth < SHARED ? chain / 3 * 3 : chain) * DEPTH + depth;
}

struct weft_key model_key_of(uint32_t no)
{
	return (struct weft_key){ .lo = no * 0x9e3779b97f4a7c15ull, .hi = no + 1 };
}

uint64_t model_content_of(uint32_t space, uint32_t no)
{
	return space * 1000003ull + no * 7919ull;
}

/* ---- the model's own rules ---- */

void model_use(struct model *m, uint32_t s)
{
	m->used[m->nr_used++] = s;
}

void model_make_free(struct model *m, uint32_t s)
{
	uint32_t i = 0;

	m->slot[s].state = KV_FREE;
	m->slot[s].gen++;
	while (m->used[i] != s)
		i++;
	m->used[i] = m->used[--m->nr_used];
}

static bool has_children(const struct model *m, uint32_t s)
{
	for (uint32_t i = 0; i < m->nr_used; i++) {
		const struct model_slot *c = &m->slot[m->used[i]];

		if (c->state == KV_SEALED && c->parent == s)
			return true;
	}
	return false;
}

/* what is out of the index and held by nobody goes, and so on with its parent */
static void settle(struct model *m, uint32_t s)
{
	while (s != NONE) {
		struct model_slot *sl = &m->slot[s];
		const uint32_t parent = sl->parent;

		if (sl->state != KV_SEALED || sl->indexed || sl->pins || has_children(m, s))
			return;
		model_make_free(m, s);
		s = parent;
	}
}

static void unindex(struct model *m, uint32_t s)
{
	m->slot[s].indexed = false;
	m->held[m->slot[s].space][m->slot[s].key] = NONE;
}

void model_unpin(struct model *m, uint32_t s)
{
	struct model_slot *sl = &m->slot[s];

	assert_true(sl->pins > 0);
	if (--sl->pins)
		return;
	if (sl->state == KV_QUARANTINED && sl->owner == NONE)
		model_make_free(m, s);
	else
		settle(m, s);
}

/* a claim that ends without a block */
void model_unclaim(struct model *m, uint32_t s)
{
	if (!m->slot[s].pins) {
		model_make_free(m, s);
		return;
	}
	m->slot[s].state = KV_QUARANTINED;
	m->slot[s].owner = NONE;
}

/* ---- comparing ---- */

static bool still_there(const struct model *m, uint32_t s)
{
	const struct kv_slot *st = kv_slot(m->kv, s);

	return st->state == KV_SEALED && st->gen == m->slot[s].gen && st->indexed;
}

/* out of the index and free, or first to be written */
static void went(struct model *m, uint32_t s)
{
	const struct kv_slot *st = kv_slot(m->kv, s);

	unindex(m, s);
	m->evicted++;
	if (!m->tier || st->gen != m->slot[s].gen || st->state != KV_QUARANTINED) {
		model_make_free(m, s);
		return;
	}
	m->slot[s].state = KV_QUARANTINED;
	m->slot[s].owner = NONE;
	m->slot[s].pins = 1;
	m->slot[s].leaving = true;
	m->gone_down++;
}

/* what the policy took since: only what it may, leaves first */
void model_take_evicted(struct model *m)
{
	bool again = true;

	while (again) {
		again = false;
		for (uint32_t i = 0; i < m->nr_used; i++) {
			const uint32_t s = m->used[i];
			const uint32_t parent = m->slot[s].parent;

			if (m->slot[s].state != KV_SEALED || !m->slot[s].indexed ||
			    still_there(m, s) || has_children(m, s))
				continue;
			assert_int_equal(m->slot[s].pins, 0);
			went(m, s);
			settle(m, parent);
			again = true;
		}
	}
	for (uint32_t i = 0; i < m->nr_used; i++)
		if (m->slot[m->used[i]].state == KV_SEALED && m->slot[m->used[i]].indexed)
			assert_true(still_there(m, m->used[i]));
}

static void compare(struct model *m)
{
	/* of a run that is being emptied: nobody's, on their way out */
	const uint32_t emptied = m->kv->emptying ? m->kv->emptying->nr_free : 0;
	struct weft_stat st, sum = { .slots_quarantined = emptied };

	for (uint32_t i = 0; i < m->nr_used; i++) {
		const uint32_t s = m->used[i];
		const struct model_slot *sl = &m->slot[s];
		const struct kv_slot *k = kv_slot(m->kv, s);

		assert_int_equal(k->state, sl->state);
		assert_int_equal(k->gen, sl->gen);
		assert_int_equal(k->pins, sl->pins);
		if (sl->state == KV_SEALED) {
			assert_int_equal(k->indexed, sl->indexed);
			assert_int_equal(k->parent, sl->parent == NONE ? KV_NONE : sl->parent);
		}
		sum.blocks_held += sl->state == KV_SEALED && sl->indexed;
		sum.slots_filling += sl->state == KV_FILLING;
		sum.slots_quarantined += sl->state == KV_QUARANTINED ||
					 (sl->state == KV_SEALED && !sl->indexed);
		sum.slots_leased += sl->pins > 0;
	}
	wfi_kv_stat(m->kv, m->tenant, &st);
	assert_int_equal(st.blocks_held, sum.blocks_held);
	assert_int_equal(st.slots_filling, sum.slots_filling);
	assert_int_equal(st.slots_quarantined, sum.slots_quarantined);
	assert_int_equal(st.slots_leased, sum.slots_leased);
	assert_int_equal(st.slots_total, st.slots_free + m->nr_used + emptied);
	assert_int_equal(m->kv->index.nr, sum.blocks_held);
	/* above a tier a block may come and go between two looks */
	if (!m->tier)
		assert_int_equal(m->kv->count[KV_C_EVICTED]->value, m->evicted);
}

/* lists and counts that the operations never look at as a whole */
static void compare_runs(const struct model *m)
{
	for (const struct kv_space *s = m->tenant->spaces; s; s = s->next) {
		uint64_t nr_free = 0, avail = 0;

		for (const struct kv_run *r = s->runs; r; r = r->next) {
			uint32_t busy = 0, in_use = 0;

			for (uint32_t i = 0; i < r->nr; i++) {
				const struct kv_slot *st = kv_slot(m->kv, r->first + i);
				const bool idle = i >= r->fresh || st->state == KV_FREE;

				in_use += !idle;
				busy += !idle && (st->state != KV_SEALED || st->pins);
			}
			assert_int_equal(r->nr_busy, busy);
			assert_int_equal(r->nr_free, r->nr - in_use);
			if (r->emptying)
				continue;
			nr_free += r->nr_free;
			avail += r->nr_free > 0;
		}
		for (const struct kv_run *r = s->avail; r; r = r->next_avail)
			avail--;
		assert_int_equal(avail, 0);
		assert_int_equal(s->nr_free, nr_free);
	}
}

/* ---- operations ---- */

/* claims of one owner in one space, or any */
static uint32_t claims_of(const struct model *m, uint32_t owner, uint32_t space, uint32_t max,
			  struct weft_slot *out)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->nr_used && n < max; i++) {
		const struct model_slot *sl = &m->slot[m->used[i]];

		if (sl->state == KV_FILLING && sl->owner == owner &&
		    (space == NONE || sl->space == space))
			out[n++] = (struct weft_slot){ .idx = m->used[i], .gen = sl->gen };
	}
	return n;
}

static void do_claim(struct model *m)
{
	const uint32_t owner = model_below(m, NR_OWNERS), space = model_below(m, NR_SPACES);
	const uint32_t nr = model_below(m, MAX_NR);
	struct weft_slot slots[MAX_NR];
	int ret;

	ret = wfi_kv_claim(m->kv, &m->owner[owner], m->space[space].id, nr, slots, m->now);
	model_take_evicted(m);
	assert_true(ret == (int)nr || ret == -ENOSPC);
	for (int i = 0; i < ret; i++) {
		struct model_slot *sl = &m->slot[slots[i].idx];

		assert_true(slots[i].idx < MAX_SLOTS && sl->state == KV_FREE);
		assert_true(slots[i].gen && (!sl->gen || sl->gen == slots[i].gen));
		*sl = (struct model_slot){
			.state = KV_FILLING,
			.gen = slots[i].gen,
			.space = space,
			.owner = owner,
		};
		model_use(m, slots[i].idx);
	}
}

static void do_unclaim(struct model *m)
{
	const uint32_t owner = model_below(m, NR_OWNERS);
	struct weft_slot slots[MAX_NR];
	uint32_t nr = claims_of(m, owner, NONE, 1 + model_below(m, MAX_NR - 2), slots);

	/* and one that is nobody's */
	slots[nr] = (struct weft_slot){ .idx = model_below(m, MAX_SLOTS + 100), .gen = 0 };
	assert_int_equal(wfi_kv_unclaim(m->kv, &m->owner[owner], slots, nr + 1), nr);
	for (uint32_t i = 0; i < nr; i++)
		model_unclaim(m, slots[i].idx);
}

static void put_result(struct model *m, uint32_t space, uint32_t no, uint32_t parent,
		       const struct weft_slot *slot, bool mine, int32_t result)
{
	if (!mine) {
		assert_int_equal(result, -ESTALE);
	} else if (m->held[space][no] != NONE) {
		assert_int_equal(result, -EEXIST);
		model_unclaim(m, slot->idx);
	} else {
		struct model_slot *sl = &m->slot[slot->idx];

		assert_int_equal(result, 0);
		m->put[space][no] = m->there[space][no] = true;
		sl->state = KV_SEALED;
		sl->indexed = true;
		sl->key = no;
		sl->parent = parent;
		m->held[space][no] = slot->idx;
	}
}

/* part of a chain, from somewhere on, with the parent named or not; some slots are not ours */
static void do_put(struct model *m)
{
	const uint32_t owner = model_below(m, NR_OWNERS), space = model_below(m, NR_SPACES);
	const uint32_t chain = model_below(m, NR_CHAINS),
		       from = model_below(m, 2) ? 0 : model_below(m, DEPTH);
	const bool named = from && model_below(m, 8);
	const struct weft_key before = model_key_of(from ? model_key_no(chain, from - 1) : 0);
	struct weft_key keys[DEPTH];
	struct weft_slot slots[DEPTH];
	bool mine[DEPTH];
	int32_t results[DEPTH];
	uint32_t nr, parent, held = 0;
	int ret;

	nr = claims_of(m, owner, space, 1 + model_below(m, DEPTH - from), slots);
	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t no = model_key_no(chain, from + i);

		keys[i] = model_key_of(no);
		mine[i] = model_below(m, 50);
		if (mine[i])
			*(uint64_t *)wfi_kv_slot_addr(m->kv, slots[i].idx) =
				model_content_of(space, no);
		else
			slots[i].gen ^= 1u << model_below(m, 32);
	}
	ret = wfi_kv_put(m->kv, &m->owner[owner], m->space[space].id, named ? &before : NULL, keys,
			 slots, nr, NULL, results, m->now);
	parent = named ? m->held[space][model_key_no(chain, from - 1)] : NONE;
	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t no = model_key_no(chain, from + i);

		put_result(m, space, no, parent, &slots[i], mine[i], results[i]);
		held += !results[i] || results[i] == -EEXIST;
		parent = m->held[space][no];
	}
	assert_int_equal(ret, held);
}

static void do_find(struct model *m)
{
	const uint32_t space = model_below(m, NR_SPACES), chain = model_below(m, NR_CHAINS);
	struct weft_key keys[DEPTH];
	uint32_t slots[DEPTH], prefix = DEPTH, found = 0;

	for (uint32_t d = DEPTH; d--;) {
		keys[d] = model_key_of(model_key_no(chain, d));
		if (m->held[space][model_key_no(chain, d)] == NONE)
			prefix = d;
		else
			found++;
	}
	assert_int_equal(wfi_kv_match(m->kv, m->space[space].id, keys, DEPTH, NULL), prefix);
	assert_int_equal(wfi_kv_prefix(m->kv, m->space[space].id, keys, DEPTH, slots, m->now),
			 prefix);
	for (uint32_t d = 0; d < prefix; d++)
		assert_int_equal(slots[d], m->held[space][model_key_no(chain, d)]);
	assert_int_equal(wfi_kv_lookup(m->kv, m->space[space].id, keys, DEPTH, slots, m->now),
			 found);
	for (uint32_t d = 0; d < DEPTH; d++) {
		const uint32_t no = model_key_no(chain, d);

		assert_int_equal(slots[d], m->held[space][no]);
		if (slots[d] == NONE)
			continue;
		assert_true(*(uint64_t *)wfi_kv_slot_addr(m->kv, slots[d]) ==
			    model_content_of(space, no));
		if (!model_below(m, 16))
			assert_int_equal(wfi_kv_verify(m->kv, slots[d]), 0);
	}
}

static void do_drop(struct model *m)
{
	const uint32_t space = model_below(m, NR_SPACES), no = model_below(m, NR_KEYS);
	const uint32_t s = m->held[space][no];
	const struct weft_key key = model_key_of(no);
	int32_t result;

	const int ret = wfi_kv_drop(m->kv, m->space[space].id, &key, 1, &result);

	assert_int_equal(ret, !result);
	if (result) {
		assert_int_equal(result, -ENOENT);
		assert_true(s == NONE);
	} else {
		assert_true(s != NONE || (m->tier && m->there[space][no]));
	}
	m->there[space][no] = false;
	if (s == NONE)
		return;
	unindex(m, s);
	settle(m, s);
}

static uint32_t held_slots(struct model *m, uint32_t *slots)
{
	const uint32_t space = model_below(m, NR_SPACES), chain = model_below(m, NR_CHAINS);
	uint32_t nr = 0;

	for (uint32_t d = 0; d < DEPTH; d++)
		if (m->held[space][model_key_no(chain, d)] != NONE && model_below(m, 4))
			slots[nr++] = m->held[space][model_key_no(chain, d)];
	return nr;
}

static void do_lease(struct model *m)
{
	struct model_lease *l = &m->lease[model_below(m, NR_LEASES)];

	if (l->handle || l->pinned)
		return;
	l->nr = held_slots(m, l->slots);
	if (!l->nr)
		return;
	l->owner = model_below(m, NR_OWNERS);
	l->end_ns = m->now + model_below(m, 2000) * m->tick_ns;
	assert_int_equal(wfi_kv_lease(m->kv, &m->owner[l->owner], l->slots, l->nr, l->end_ns,
				      &l->handle),
			 0);
	l->pinned = true;
	for (uint32_t i = 0; i < l->nr; i++)
		m->slot[l->slots[i]].pins++;
}

static void lease_over(struct model *m, struct model_lease *l)
{
	l->handle = 0;
	l->pinned = false;
	for (uint32_t i = 0; i < l->nr; i++)
		model_unpin(m, l->slots[i]);
}

static void do_release(struct model *m)
{
	struct model_lease *l = &m->lease[model_below(m, NR_LEASES)];

	if (!l->handle)
		return;
	assert_int_equal(wfi_kv_release(m->kv, &m->owner[(l->owner + 1) % NR_OWNERS], l->handle),
			 -ENOENT);
	assert_int_equal(wfi_kv_release(m->kv, &m->owner[l->owner], l->handle), l->nr);
	lease_over(m, l);
}

static void time_passes(struct model *m, uint64_t ticks)
{
	m->now += ticks * m->tick_ns;
	wfi_sim_advance(m->sim, ticks * m->tick_ns);
}

/* those that have ended by the last poll. Return: when the next one does, or its grace */
uint64_t model_leases_pass(struct model *m)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t i = 0; i < NR_LEASES; i++) {
		struct model_lease *l = &m->lease[i];

		if (l->handle && l->end_ns <= m->polled_ns)
			l->handle = 0;
		if (l->pinned && !l->handle && l->end_ns + GRACE_NS * m->tick_ns <= m->polled_ns)
			lease_over(m, l);
		if (l->pinned)
			next = wfi_min(next,
				       l->handle ? l->end_ns : l->end_ns + GRACE_NS * m->tick_ns);
	}
	return next;
}

static void do_poll(struct model *m)
{
	uint64_t next;

	time_passes(m, model_below(m, 300));
	m->polled_ns = m->now;
	wfi_kv_poll(m->kv, m->now);
	next = model_leases_pass(m);
	if (m->tier)
		model_tier_moved(m);
	else
		assert_true(wfi_kv_next_event_ns(m->kv) == next);
}

static void do_pin(struct model *m)
{
	uint32_t *p = &m->pin[model_below(m, NR_PINS)];

	if (*p != NONE) {
		wfi_kv_unpin(m->kv, p, 1);
		model_unpin(m, *p);
		*p = NONE;
	} else if (m->nr_used) {
		const uint32_t s = m->used[model_below(m, m->nr_used)];

		if (m->slot[s].state != KV_FILLING && !m->slot[s].indexed)
			return;
		*p = s;
		wfi_kv_pin(m->kv, p, 1);
		m->slot[s].pins++;
	}
}

static void do_death(struct model *m)
{
	const uint32_t owner = model_below(m, NR_OWNERS);
	const bool may_write = model_below(m, 2);

	if (m->dying[owner])
		return;
	if (may_write)
		m->dying[owner] = m->owner[owner].id;
	wfi_owner_fini(m->kv, &m->owner[owner], may_write);
	for (uint32_t i = 0; i < NR_LEASES; i++)
		if (m->lease[i].handle && m->lease[i].owner == owner)
			lease_over(m, &m->lease[i]);
	for (uint32_t i = m->nr_used; i--;) {
		const uint32_t s = m->used[i];

		if (m->slot[s].state != KV_FILLING || m->slot[s].owner != owner)
			continue;
		if (may_write)
			m->slot[s].state = KV_QUARANTINED;
		else
			model_unclaim(m, s);
	}
	assert_int_equal(wfi_owner_init(m->kv, &m->owner[owner], m->tenant), 0);
}

static void do_gone(struct model *m)
{
	const uint32_t owner = model_below(m, NR_OWNERS);

	if (!m->dying[owner])
		return;
	wfi_owner_gone(m->kv, m->dying[owner]);
	m->dying[owner] = 0;
	for (uint32_t i = m->nr_used; i--;) {
		const uint32_t s = m->used[i];

		if (m->slot[s].state != KV_QUARANTINED || m->slot[s].owner != owner)
			continue;
		m->slot[s].owner = NONE;
		if (!m->slot[s].pins)
			model_make_free(m, s);
	}
}

/* ---- running ---- */

static const struct op {
	void (*fn)(struct model *m);
	uint32_t weight;
} ops[] = {
	{ do_claim, 16 }, { do_unclaim, 2 }, { do_put, 24 },	{ do_find, 16 },
	{ do_drop, 6 },	  { do_lease, 8 },   { do_release, 4 }, { do_poll, 8 },
	{ do_pin, 12 },	  { do_death, 1 },   { do_gone, 2 },
}, tier_ops[] = {
	{ model_fetch, 12 }, { model_prefetch, 4 }, { model_match, 8 }, { do_poll, 60 },
};

static const struct op *choose(struct model *m, const struct op *table, size_t nr)
{
	uint32_t total = 0, at;

	for (size_t i = 0; i < nr; i++)
		total += table[i].weight;
	at = model_below(m, total);
	for (; at >= table->weight; table++)
		at -= table->weight;
	return table;
}

static void step(struct model *m)
{
	if (m->tier && model_below(m, 2))
		choose(m, tier_ops, WFI_ARRAY_SIZE(tier_ops))->fn(m);
	else
		choose(m, ops, WFI_ARRAY_SIZE(ops))->fn(m);
}

static void tier_open(struct model *m)
{
	const struct wfi_tier_ssd_opts ssd = {
		.env = wfi_sim_node(m->sim, 0),
		.path = "tier",
		.bytes = TIER_BYTES,
		.node = 7,
		.scrub_bps = 1u << 20,
		.chunk_bytes = 1u << 16,
	};
	const struct wfi_kv_tier_opts o = { 0 };

	assert_int_equal(wfi_tier_ssd_open(&ssd, &m->tier), 0);
	assert_int_equal(wfi_kv_tier_add(m->kv, m->tier, &o), 0);
}

static void life_begin(struct model *m)
{
	static const uint64_t block_bytes[NR_SPACES] = { 512, 1088 };
	const struct wfi_tenant_opts tenant = {
		.name = "t",
		.token = "",
		.arena_bytes = ARENA_BYTES,
	};
	struct weft_space_opts space = {
		.size = sizeof(space),
		.model = "m",
		.layout = "l",
		.tokens_per_block = 16,
	};
	const struct wfi_kv_opts opts = {
		.env = wfi_sim_node(m->sim, 0),
		.policy = m->policy,
		.extent_bytes = EXTENT_BYTES,
		.lease_grace_ns = GRACE_NS * m->tick_ns,
		.max_slots = MAX_SLOTS,
	};

	assert_int_equal(wfi_kv_create(&opts, &m->kv), 0);
	assert_int_equal(wfi_kv_tenant_add(m->kv, &tenant, &m->tenant), 0);
	if (m->lives)
		tier_open(m);
	for (uint32_t i = 0; i < NR_SPACES; i++) {
		space.block_bytes = block_bytes[i];
		assert_int_equal(wfi_kv_space_open(m->kv, m->tenant, &space, &m->space[i], NULL),
				 0);
	}
	for (uint32_t i = 0; i < NR_OWNERS; i++)
		assert_int_equal(wfi_owner_init(m->kv, &m->owner[i], m->tenant), 0);
	memset(m->slot, 0, sizeof(m->slot));
	memset(m->lease, 0, sizeof(m->lease));
	memset(m->dying, 0, sizeof(m->dying));
	memset(m->held, 0xff, sizeof(m->held));
	memset(m->pin, 0xff, sizeof(m->pin));
	m->nr_used = 0;
}

static struct model *model_create(uint64_t seed, const struct wfi_evict_policy *policy,
				  uint64_t tick_ns)
{
	struct model *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	assert_int_equal(wfi_sim_create(seed, &m->sim), 0);
	m->policy = policy;
	m->tick_ns = tick_ns;
	m->lives = tick_ns > 1;
	life_begin(m);
	return m;
}

/* all that is held goes back */
static void let_go(struct model *m)
{
	if (m->fetch.fetch)
		wfi_kv_fetch_cancel(m->kv, m->fetch.fetch, -ECANCELED);
	for (uint32_t i = 0; i < NR_OWNERS; i++) {
		wfi_owner_fini(m->kv, &m->owner[i], false);
		if (m->dying[i])
			wfi_owner_gone(m->kv, m->dying[i]);
	}
	for (uint32_t i = 0; i < NR_PINS; i++)
		if (m->pin[i] != NONE)
			wfi_kv_unpin(m->kv, &m->pin[i], 1);
	m->now += 10000 * m->tick_ns;
	wfi_kv_poll(m->kv, m->now);
}

/* then every slot is free, and nothing is in the index */
static void model_finish(struct model *m)
{
	struct weft_stat st;
	int32_t result;

	let_go(m);
	for (uint32_t i = 0; i < NR_SPACES * NR_KEYS; i++) {
		const struct weft_key key = model_key_of(i % NR_KEYS);

		wfi_kv_drop(m->kv, m->space[i / NR_KEYS].id, &key, 1, &result);
	}
	for (uint32_t i = 0; m->tier && i < 1000; i++) {
		time_passes(m, 100);
		wfi_kv_poll(m->kv, m->now);
	}
	wfi_kv_stat(m->kv, m->tenant, &st);
	assert_int_equal(st.slots_free, st.slots_total);
	assert_int_equal(st.slots_leased, 0);
	assert_int_equal(m->kv->index.nr, 0);
	wfi_kv_destroy(m->kv);
	wfi_sim_destroy(m->sim);
	free(m);
}

static void run(uint64_t seed, const struct wfi_evict_policy *policy)
{
	struct model *m = model_create(seed, policy, 1);

	for (uint32_t i = 0; i < STEPS; i++) {
		m->now += model_below(m, 3);
		step(m);
		compare(m);
		if (i % 64 == 0)
			compare_runs(m);
	}
	/* the run was worth it: arena and policy were both short of room */
	assert_true(m->evicted > STEPS / 20);
	assert_true(m->kv->count[KV_C_RUN_TAKEN]->value > STEPS / 1000);
	assert_true(m->kv->count[KV_C_LEASE_EXPIRED]->value > STEPS / 1000);
	model_finish(m);
}

/* killed, or told to stop: the next life has what the tier has */
static void next_life(struct model *m)
{
	if (model_below(m, 2)) {
		wfi_sim_crash(m->sim, 0);
		/* what was dropped may be back */
		memcpy(m->there, m->put, sizeof(m->there));
	} else {
		let_go(m);
		for (unsigned i = 0; i < 1000 && wfi_kv_tier_flush(m->kv); i++) {
			time_passes(m, 100);
			wfi_kv_poll(m->kv, m->now);
		}
		wfi_kv_destroy(m->kv);
		/* and what was not wiped, since the drive failed */
		memcpy(m->there, m->put, sizeof(m->there));
	}
	m->fetch.fetch = NULL;
	m->lives++;
	life_begin(m);
}

static void run_with_tier(uint64_t seed, const struct wfi_sim_faults *faults)
{
	struct model *m = model_create(seed, wfi_evict_policies[0], TIER_TICK_NS);

	wfi_log_init(WFI_LOG_ERR, "test");
	wfi_sim_set_faults(m->sim, faults);
	for (uint32_t i = 1; i <= TIER_STEPS; i++) {
		time_passes(m, model_below(m, 3));
		/* a drive that fails is tried again after a second, or more */
		if (!model_below(m, 2000))
			time_passes(m, 2 * WFI_NSEC_PER_SEC / m->tick_ns);
		step(m);
		compare(m);
		if (i % 64 == 0)
			compare_runs(m);
		if (i % 4096 == 0)
			next_life(m);
	}
	/* worth it: both ways were used, again and again */
	assert_true(m->gone_down > TIER_STEPS / 100);
	assert_true(m->came_up > TIER_STEPS / 100);
	wfi_sim_set_faults(m->sim, &(struct wfi_sim_faults){ 0 });
	model_finish(m);
}

static void as_the_model_with_lru(void **state)
{
	(void)state;
	run(1, wfi_evict_find("lru"));
}

static void as_the_model_with_the_default(void **state)
{
	(void)state;
	run(2, wfi_evict_policies[0]);
}

static void as_the_model_with_a_tier(void **state)
{
	const struct wfi_sim_faults faults = { .disk_latency_ns = 2 * WFI_NSEC_PER_MSEC };

	(void)state;
	run_with_tier(3, &faults);
}

static void as_the_model_with_a_bad_drive(void **state)
{
	const struct wfi_sim_faults faults = {
		.disk_error_ppm = 10000,
		.disk_short_ppm = 10000,
		.disk_flip_ppm = 20000,
		.disk_lost_ppm = 300000,
		.disk_full_ppm = 3000,
		.disk_latency_ns = 2 * WFI_NSEC_PER_MSEC,
	};

	(void)state;
	for (uint64_t seed = 4; seed < 8; seed++)
		run_with_tier(seed, &faults);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_the_model_with_lru),
		cmocka_unit_test(as_the_model_with_the_default),
		cmocka_unit_test(as_the_model_with_a_tier),
		cmocka_unit_test(as_the_model_with_a_bad_drive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
