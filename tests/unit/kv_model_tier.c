/* SPDX-License-Identifier: Apache-2.0 */
/* kv_model_tier.c - the part of the model that lies between memory and the tier below */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "tests/unit/kv_model.h"

/* a claim of the mover's: it goes on, is a block now, or came to nothing */
static void mover_claim(struct model *m, uint32_t s)
{
	struct model_slot *sl = &m->slot[s];
	const struct kv_slot *st = kv_slot(m->kv, s);
	const struct weft_key *key = &m->kv->headers[s].key;

	if (st->gen != sl->gen) {
		model_make_free(m, s);
		return;
	}
	if (st->state == KV_QUARANTINED && sl->pins) {
		model_unclaim(m, s);
		return;
	}
	if (st->state == KV_FILLING)
		return;
	/* or gone again since, and on its way down: then the next look finds it */
	sl->key = (uint32_t)key->hi - 1;
	assert_true(sl->key < NR_KEYS && key->lo == model_key_of(sl->key).lo);
	assert_true(m->there[sl->space][sl->key]);
	assert_int_equal(m->held[sl->space][sl->key], NONE);
	assert_int_equal(*(uint64_t *)wfi_kv_slot_addr(m->kv, s),
			 model_content_of(sl->space, sl->key));
	sl->state = KV_SEALED;
	sl->indexed = true;
	sl->owner = NONE;
	sl->parent = st->parent == KV_NONE ? NONE : st->parent;
	m->held[sl->space][sl->key] = s;
	m->came_up++;
}

static void mover_claims(struct model *m)
{
	for (uint32_t i = 0; i < NR_SPACES; i++) {
		for (uint32_t s = m->tenant->mover.claims; m->tenant->has_mover && s != KV_NONE;
		     s = kv_slot(m->kv, s)->next) {
			if (m->slot[s].state != KV_FREE ||
			    kv_run(m->kv, s)->space->info.id != m->space[i].id)
				continue;
			m->slot[s] = (struct model_slot){
				.state = KV_FILLING,
				.gen = kv_slot(m->kv, s)->gen,
				.space = i,
				.owner = MOVER,
			};
			model_use(m, s);
		}
	}
}

/* what the mover did since, in any order */
void model_tier_moved(struct model *m)
{
	struct model_fetch *f = &m->fetch;

	model_leases_pass(m);
	for (uint32_t i = m->nr_used; i--;) {
		const uint32_t s = m->used[i];

		if (m->slot[s].state == KV_FILLING && m->slot[s].owner == MOVER)
			mover_claim(m, s);
	}
	for (uint32_t d = 0; f->fetch && d < DEPTH; d++) {
		if (f->pinned[d] || f->slots[d] == NONE)
			continue;
		f->pinned[d] = true;
		m->slot[f->slots[d]].pins++;
	}
	model_take_evicted(m);
	for (uint32_t i = m->nr_used; i--;) {
		const uint32_t s = m->used[i];
		const struct kv_slot *st = kv_slot(m->kv, s);

		if (!m->slot[s].leaving ||
		    (st->gen == m->slot[s].gen && st->pins == m->slot[s].pins))
			continue;
		m->slot[s].leaving = false;
		model_unpin(m, s);
	}
	mover_claims(m);
}

static void fetched(void *ctx, int res, uint32_t reached)
{
	struct model *m = ctx;
	struct model_fetch *f = &m->fetch;

	(void)res;
	(void)reached;
	model_tier_moved(m);
	f->fetch = NULL;
	for (uint32_t d = 0; d < DEPTH; d++) {
		if (f->slots[d] == NONE)
			continue;
		assert_int_equal(*(uint64_t *)wfi_kv_slot_addr(m->kv, f->slots[d]),
				 model_content_of(f->space, model_key_no(f->chain, d)));
		assert_int_equal(wfi_kv_verify(m->kv, f->slots[d]), 0);
		wfi_kv_unpin(m->kv, &f->slots[d], 1);
		model_unpin(m, f->slots[d]);
	}
}

void model_fetch(struct model *m)
{
	struct model_fetch *f = &m->fetch;
	struct wfi_fetch_opts o = {
		.nr = DEPTH,
		.keys = f->keys,
		.slots = f->slots,
		.now_ns = m->now,
		.deadline_ns = m->now + model_below(m, 3000) * m->tick_ns,
		.done = fetched,
		.ctx = m,
	};

	if (f->fetch)
		return;
	*f = (struct model_fetch){
		.space = model_below(m, NR_SPACES),
		.chain = model_below(m, NR_CHAINS),
	};
	o.space = m->space[f->space].id;
	for (uint32_t d = 0; d < DEPTH; d++)
		f->keys[d] = model_key_of(model_key_no(f->chain, d));
	wfi_kv_lookup(m->kv, o.space, f->keys, DEPTH, f->slots, m->now);
	assert_int_equal(wfi_kv_fetch(m->kv, &o, &f->fetch), 0);
	model_tier_moved(m);
}

void model_prefetch(struct model *m)
{
	const uint32_t space = model_below(m, NR_SPACES), chain = model_below(m, NR_CHAINS);
	struct weft_key keys[DEPTH];

	for (uint32_t d = 0; d < DEPTH; d++)
		keys[d] = model_key_of(model_key_no(chain, d));
	wfi_kv_prefetch(m->kv, m->space[space].id, keys, 1 + model_below(m, DEPTH));
	model_tier_moved(m);
}

/* nothing is found that was never put, or dropped since; and what is in memory is */
void model_match(struct model *m)
{
	const uint32_t space = model_below(m, NR_SPACES), chain = model_below(m, NR_CHAINS);
	uint32_t prefix = DEPTH, most = DEPTH, n;
	struct weft_key keys[DEPTH];

	for (uint32_t d = DEPTH; d--;) {
		const uint32_t no = model_key_no(chain, d);

		keys[d] = model_key_of(no);
		prefix = m->held[space][no] == NONE ? d : prefix;
		most = m->there[space][no] ? most : d;
	}
	n = (uint32_t)wfi_kv_match_tiers(m->kv, m->space[space].id, keys, DEPTH, 0, NULL, NULL);
	assert_in_range(n, prefix, most);
}
