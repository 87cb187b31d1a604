/* SPDX-License-Identifier: Apache-2.0 */
/* sim_ops.c - what an engine asks for, and what it may be answered */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/sim/sim.h"

#define STRIDE_KEY sizeof(struct weft_key)
#define STRIDE_SLOT sizeof(struct weft_slot)

/* ---- what the engine holds ---- */

struct sim_run sim_pick_run(struct sim *sim)
{
	struct sim_run run = { .chain = (uint32_t)sim_rand(sim, SIM_CHAINS) };

	run.nr = 1 + (uint32_t)sim_rand(sim, SIM_RUN);
	/* prefixes are asked for more often than middles */
	if (sim_chance(sim, 50))
		run.first = (uint32_t)sim_rand(sim, SIM_CHAIN_LEN - run.nr + 1);
	return run;
}

static bool *seen(struct sim_engine *e, const struct sim_run *run, uint32_t i)
{
	return &e->sim->seen[e->tenant][e->space][run->chain][run->first + i];
}

static void mark_seen(struct sim_engine *e, const struct sim_run *run)
{
	uint32_t i;

	for (i = 0; i < run->nr; i++)
		*seen(e, run, i) = true;
}

static void check_seen(struct sim_engine *e, const struct sim_op *op, uint32_t i)
{
	if (!*seen(e, &op->run, i))
		sim_fail(e->sim, "engine %u: operation %u finds a block that nobody published",
			 e->idx, op->code);
}

static void check_bytes(struct sim_engine *e, const struct sim_op *op, uint32_t i, const void *buf,
			uint64_t off, uint64_t len)
{
	const struct weft_key key = sim_key(&op->run, i);

	e->sim->report->blocks_checked++;
	if (!sim_holds(e->tenant, &key, buf, off, len))
		sim_fail(e->sim, "engine %u: operation %u gives wrong bytes of chain %u block %u",
			 e->idx, op->code, op->run.chain, op->run.first + i);
}

/* one that is busy may be published or released by now */
static bool claimed_elsewhere(struct sim_engine *e, const struct weft_slot *slot)
{
	uint32_t i, k;

	for (i = 0; i < e->sim->nr_engines; i++) {
		const struct sim_engine *o = &e->sim->engines[i];

		for (k = 0; o->session && o->node == e->node && k < o->nr_claims; k++)
			if (!o->claims[k].busy && o->claims[k].slot.idx == slot->idx)
				return true;
	}
	return false;
}

static void claims_add(struct sim_engine *e, const struct weft_slot *slots, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		if (claimed_elsewhere(e, &slots[i]))
			sim_fail(e->sim, "engine %u: slot %u is claimed twice", e->idx,
				 slots[i].idx);
		engine_slot(e, &slots[i]);
		e->claims[e->nr_claims++] = (struct sim_claim){ .slot = slots[i] };
	}
}

bool claims_take(struct sim_engine *e, struct weft_slot *slots, uint32_t nr)
{
	uint32_t i, n = 0;

	for (i = 0; i < e->nr_claims; i++)
		n += !e->claims[i].busy;
	if (n < nr)
		return false;
	for (i = 0, n = 0; n < nr; i++) {
		if (e->claims[i].busy)
			continue;
		e->claims[i].busy = true;
		slots[n++] = e->claims[i].slot;
	}
	return true;
}

static uint32_t claim_find(struct sim_engine *e, const struct weft_slot *slot)
{
	uint32_t i;

	for (i = 0; memcmp(&e->claims[i].slot, slot, sizeof(*slot)); i++)
		;
	return i;
}

void claims_return(struct sim_engine *e, const struct weft_slot *slots, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		e->claims[claim_find(e, &slots[i])].busy = false;
}

void claim_remove(struct sim_engine *e, const struct weft_slot *slot)
{
	e->claims[claim_find(e, slot)] = e->claims[--e->nr_claims];
	e->was_mine = *slot;
}

static void lease_add(struct sim_engine *e, const struct sim_op *op, uint64_t handle, uint32_t nr,
		      const struct weft_slot *slots)
{
	struct sim_lease *l;

	if (!handle)
		sim_fail(e->sim, "engine %u: operation %u gives no lease", e->idx, op->code);
	if (e->nr_leases == SIM_LEASES)
		return; /* forgotten: it ends by itself */
	l = &e->leases[e->nr_leases++];
	*l = (struct sim_lease){ .handle = handle,
				 .end_ns = e->polled_ns + SIM_LEASE_NS,
				 .mapped = slots != NULL,
				 .run = op->run };
	l->run.nr = nr;
	if (slots)
		memcpy(l->slots, slots, nr * sizeof(*slots));
}

/* ---- putting things into the argument area ---- */

uint8_t *sim_put_keys(uint8_t *at, const struct sim_run *run)
{
	struct weft_key key;
	uint32_t i;

	for (i = 0; i < run->nr; i++, at += sizeof(key)) {
		key = sim_key(run, i);
		memcpy(at, &key, sizeof(key));
	}
	return at;
}

static struct weft_key parent_of(const struct sim_run *run)
{
	const struct sim_run before = { .chain = run->chain, .first = run->first - 1, .nr = 1 };

	return run->first ? sim_key(&before, 0) : (struct weft_key){ 0 };
}

static uint8_t *put_parent(uint8_t *at, const struct sim_run *run)
{
	const struct weft_key parent = parent_of(run);

	memcpy(at, &parent, sizeof(parent));
	return at + sizeof(parent);
}

static uint8_t *put_places(struct sim_engine *e, const struct sim_op *op, uint8_t *at)
{
	struct weft_place place = { .region = op->to_slots ? WEFT_REGION_ARENA : e->region };
	uint32_t i;

	for (i = 0; i < op->run.nr; i++, at += sizeof(place)) {
		place.off = op->to_slots ? op->slots[i].off : engine_mem_off(e, op, i);
		memcpy(at, &place, sizeof(place));
	}
	return at;
}

static void fill_block(struct sim_engine *e, const struct sim_run *run, uint32_t i, void *to)
{
	const struct weft_key key = sim_key(run, i);

	sim_fill(e->tenant, &key, to, 0, e->info.block_bytes);
}

/* ---- asking ---- */

static void ask_plain(struct sim_engine *e, uint8_t code, uint32_t nr)
{
	struct sim_op *op = engine_op(e, code, NULL);

	if (op)
		engine_submit(e, op, nr, 0);
}

static void ask_nop(struct sim_engine *e)
{
	ask_plain(e, WEFT_OP_NOP, 0);
}

static void ask_stat(struct sim_engine *e)
{
	ask_plain(e, WEFT_OP_STAT, 0);
}

static void ask_claim(struct sim_engine *e)
{
	const struct sim_run run = { .nr = 1 + (uint32_t)sim_rand(e->sim, SIM_RUN) };
	struct sim_op *op;

	/* every operation may be one that claims */
	if (e->nr_claims + SIM_OPS * SIM_RUN > SIM_CLAIMS)
		return;
	op = engine_op(e, WEFT_OP_CLAIM, &run);
	if (op)
		engine_submit(e, op, run.nr, 0);
}

static void ask_publish(struct sim_engine *e, const struct sim_run *run, bool filled,
			const struct weft_slot *slots)
{
	struct sim_op *op = engine_op(e, WEFT_OP_PUT, run);
	uint8_t *at;
	uint32_t i;

	if (!op)
		return;
	memcpy(op->slots, slots, run->nr * sizeof(*slots));
	for (i = 0; i < run->nr && !filled; i++)
		fill_block(e, run, i, engine_slot(e, &slots[i]));
	at = sim_put_keys(put_parent(engine_args(e, op), run), run);
	memcpy(at, slots, run->nr * sizeof(*slots));
	mark_seen(e, run);
	engine_submit(e, op, run->nr, 0);
}

static void ask_put(struct sim_engine *e)
{
	const struct sim_run run = sim_pick_run(e->sim);
	struct weft_slot slots[SIM_RUN];
	struct sim_op *room = engine_op(e, WEFT_OP_PUT, NULL);

	if (room && claims_take(e, slots, run.nr))
		ask_publish(e, &run, false, slots);
}

static void ask_put_copy(struct sim_engine *e)
{
	const struct sim_run run = sim_pick_run(e->sim);
	struct sim_op *op;
	uint32_t i;

	/* nothing could tell an engine's own bytes from harmed ones */
	if (e->sim->harm)
		return;
	op = engine_op(e, WEFT_OP_PUT, &run);
	if (!op)
		return;
	op->flags = WEFT_F_COPY;
	for (i = 0; i < run.nr; i++)
		fill_block(e, &run, i, e->mem + engine_mem_off(e, op, i));
	put_places(e, op, sim_put_keys(put_parent(engine_args(e, op), &run), &run));
	mark_seen(e, &run);
	engine_submit(e, op, run.nr, 0);
}

static void ask_keys(struct sim_engine *e, uint8_t code, uint8_t flags)
{
	const struct sim_run run = sim_pick_run(e->sim);
	struct sim_op *op = engine_op(e, code, &run);

	if (!op)
		return;
	op->flags = flags;
	sim_put_keys(engine_args(e, op), &run);
	engine_submit(e, op, run.nr, 0);
}

static void ask_match(struct sim_engine *e)
{
	ask_keys(e, WEFT_OP_MATCH, (uint8_t)(sim_rand(e->sim, 4) << 1)); /* LEASE, WHERE */
}

static void ask_map(struct sim_engine *e)
{
	ask_keys(e, WEFT_OP_MAP, sim_chance(e->sim, 50) ? WEFT_F_VERIFY : 0);
}

static void ask_prefetch(struct sim_engine *e)
{
	ask_keys(e, WEFT_OP_PREFETCH, 0);
}

static void ask_drop(struct sim_engine *e)
{
	ask_keys(e, WEFT_OP_DROP, 0);
}

static uint8_t *get_target(struct sim_engine *e, const struct sim_op *op, uint32_t i)
{
	return op->to_slots ? engine_slot(e, &op->slots[i]) : e->mem + engine_mem_off(e, op, i);
}

static void ask_get(struct sim_engine *e)
{
	const struct sim_run run = sim_pick_run(e->sim);
	struct sim_op *op = engine_op(e, WEFT_OP_GET, &run);
	uint32_t i;

	if (!op)
		return;
	op->flags = sim_chance(e->sim, 50) ? WEFT_F_VERIFY : 0;
	op->to_slots = sim_chance(e->sim, 20) && claims_take(e, op->slots, run.nr);
	for (i = 0; i < run.nr; i++)
		memset(get_target(e, op, i), 0xee, e->info.block_bytes);
	put_places(e, op, sim_put_keys(engine_args(e, op), &run));
	/* within a budget, or without one */
	engine_submit(e, op, run.nr, sim_chance(e->sim, 20) ? 1 + sim_rand(e->sim, 5000) : 0);
}

static void ask_release_lease(struct sim_engine *e)
{
	struct sim_op *op;
	struct sim_lease *l;
	uint32_t i;

	if (!e->nr_leases)
		return;
	l = &e->leases[sim_rand(e->sim, e->nr_leases)];
	op = engine_op(e, WEFT_OP_RELEASE, &l->run);
	if (!op)
		return;
	/* to the very end */
	for (i = 0; l->mapped && i < l->run.nr && e->sim->now_ns < l->end_ns; i++)
		check_bytes(e, op, i, engine_slot(e, &l->slots[i]), 0, e->info.block_bytes);
	op->lease_end_ns = l->end_ns;
	engine_submit(e, op, 0, l->handle);
	*l = e->leases[--e->nr_leases];
}

static void release_claims(struct sim_engine *e, const struct weft_slot *slots, uint32_t nr)
{
	const struct sim_run run = { .nr = nr };
	struct sim_op *op = engine_op(e, WEFT_OP_RELEASE, &run);

	if (!op)
		return;
	memcpy(op->slots, slots, nr * sizeof(*slots));
	memcpy(engine_args(e, op), slots, nr * sizeof(*slots));
	engine_submit(e, op, nr, 0);
}

static void ask_release_claims(struct sim_engine *e)
{
	const uint32_t nr = 1 + (uint32_t)sim_rand(e->sim, 3);
	struct sim_op *room = engine_op(e, WEFT_OP_RELEASE, NULL);
	struct weft_slot slots[SIM_RUN];

	if (room && claims_take(e, slots, nr))
		release_claims(e, slots, nr);
}

static void ask_release_stale(struct sim_engine *e)
{
	const struct sim_run run = { .nr = 1 };
	struct sim_op *op = engine_op(e, WEFT_OP_RELEASE, &run);

	if (!op)
		return;
	op->stale = true;
	memcpy(engine_args(e, op), &e->was_mine, sizeof(e->was_mine));
	engine_submit(e, op, 1, 0);
}

/* bytes of no sense: they cost their sender an error at most */
static void ask_nonsense(struct sim_engine *e)
{
	const struct sim_run run = { .nr = 1 + (uint32_t)sim_rand(e->sim, SIM_RUN) };
	struct sim_op *op = engine_op(e, (uint8_t)sim_rand(e->sim, 256), &run);
	uint64_t *words;
	uint32_t i;

	if (!op)
		return;
	if (sim_chance(e->sim, 70))
		op->code %= WEFT_OP_NR;
	op->ours = false;
	op->flags = (uint8_t)sim_rand(e->sim, 32);
	/* it would be held under a key that nobody can drop in the end */
	if (op->code == WEFT_OP_PUT)
		op->flags &= (uint8_t)~WEFT_F_COPY;
	words = engine_args(e, op);
	for (i = 0; i < 64; i++)
		words[i] = sim_chance(e->sim, 50) ? sim_rand(e->sim, 8)
						  : sim_rand(e->sim, UINT64_MAX);
	/* in between lie the arguments of other operations, which are not nonsense */
	engine_submit(e, op,
		      sim_chance(e->sim, 70) ? run.nr : run.nr << (13 + sim_rand(e->sim, 16)),
		      sim_chance(e->sim, 50) ? 0 : sim_rand(e->sim, UINT64_MAX));
}

/* a completion head that was never there: the node is to hang up */
static void ask_break_ring(struct sim_engine *e)
{
	if (sim_chance(e->sim, 5))
		__atomic_store_n(&e->ring.line->head, e->ring.cq_pos + 1000, __ATOMIC_RELEASE);
}

/* ---- handoffs ---- */

/* whether a side of a handoff has its blocks there. Nothing could tell an engine's own bytes from
 * harmed ones */
static bool in_region(struct sim_engine *e)
{
	return !e->sim->harm && sim_chance(e->sim, 40);
}

static void ask_expect(struct sim_engine *e)
{
	struct weft_arg_expect arg = { .nr_layers = e->info.nr_layers };
	const struct sim_run run = sim_pick_run(e->sim);
	struct sim_op *op = engine_op(e, WEFT_OP_HANDOFF_EXPECT, &run);
	uint8_t *at;

	if (!op)
		return;
	if (sim_chance(e->sim, 80))
		op->timeout_ns = 0;
	op->placed = in_region(e);
	if (op->placed)
		op->flags = WEFT_F_COPY | (sim_chance(e->sim, 50) ? WEFT_F_VERIFY : 0);
	arg.parent = parent_of(&run);
	at = engine_args(e, op);
	memcpy(at, &arg, sizeof(arg));
	at = sim_put_keys(at + sizeof(arg), &run);
	if (op->placed)
		put_places(e, op, at);
	mark_seen(e, &run);
	engine_submit(e, op, run.nr, 0);
}

static void ask_cancel(struct sim_engine *e)
{
	struct sim_op *op;
	uint32_t i;

	for (i = 0; i < SIM_OPS; i++) {
		struct sim_op *x = &e->ops[i];

		if (!x->open || x->code != WEFT_OP_HANDOFF_EXPECT || !x->ticketed || !x->ours)
			continue;
		op = engine_op(e, WEFT_OP_HANDOFF_CANCEL, NULL);
		if (!op)
			return;
		x->cancelled = true;
		engine_submit(e, op, 0, x->handle);
		return;
	}
}

/* takes up a handoff that somebody, here or on another node, expects */
static void push_start(struct sim_engine *e)
{
	struct sim_push *p = &e->push;
	struct sim *sim = e->sim;
	uint32_t i;

	/* the freshest: others may have expired, which is tried often enough all the same */
	for (i = 1; i <= SIM_TICKETS; i++) {
		struct sim_ticket *t = &sim->tickets[(sim->next_ticket - i) % SIM_TICKETS];

		if (!t->used || t->tenant != e->tenant || t->space != e->space)
			continue;
		p->placed = in_region(e);
		if (!p->placed && !claims_take(e, p->slots, t->run.nr))
			return;
		t->used = false;
		p->active = true;
		p->failed = false;
		p->nr_open = 0;
		p->ticket = t->ticket;
		p->run = t->run;
		p->next_layer = 0;
		p->layers_at_once = 1 + (uint32_t)sim_rand(sim, e->info.nr_layers);
		return;
	}
}

/* published where it was made, or released; nobody writes what was handed over by reference */
static void push_finish(struct sim_engine *e)
{
	struct sim_push *p = &e->push;
	bool remote = p->ticket.node != e->session->node->id;

	if (p->placed) {
		p->active = false;
		return;
	}
	if (!engine_op(e, WEFT_OP_PUT, NULL))
		return;
	if (!p->failed)
		ask_publish(e, &p->run, true, p->slots);
	else if (remote && sim_chance(e->sim, 50))
		claims_return(e, p->slots, p->run.nr);
	else
		release_claims(e, p->slots, p->run.nr);
	p->active = false;
}

static void push_layers(struct sim_engine *e)
{
	struct sim_push *p = &e->push;
	const uint64_t layer_bytes = e->info.block_bytes / e->info.nr_layers;
	struct weft_arg_push arg = { .ticket = p->ticket, .layer = p->next_layer };
	struct sim_op *op = engine_op(e, WEFT_OP_HANDOFF_PUSH, &p->run);
	struct weft_key key;
	uint8_t *at, *block;
	uint32_t i;

	if (!op)
		return;
	op->flags = p->placed ? WEFT_F_COPY : 0;
	op->forged = sim_chance(e->sim, 3);
	/* once it is known that they were taken the first time */
	if (op->forged && p->next_layer && !p->nr_open)
		arg.layer = 0;
	else
		arg.ticket.secret[1] ^= op->forged;
	arg.nr_layers = (uint32_t)wfi_min(p->layers_at_once, e->info.nr_layers - arg.layer);
	for (i = 0; i < p->run.nr && arg.layer == p->next_layer; i++) {
		key = sim_key(&p->run, i);
		block = p->placed ? e->mem + engine_mem_off(e, op, i)
				  : engine_slot(e, &p->slots[i]);
		sim_fill(e->tenant, &key, block + arg.layer * layer_bytes, arg.layer * layer_bytes,
			 arg.nr_layers * layer_bytes);
	}
	at = engine_args(e, op);
	memcpy(at, &arg, sizeof(arg));
	if (p->placed)
		put_places(e, op, at + sizeof(arg));
	else
		memcpy(at + sizeof(arg), p->slots, p->run.nr * STRIDE_SLOT);
	p->nr_open++;
	p->next_layer = arg.layer + arg.nr_layers;
	engine_submit(e, op, p->run.nr, 0);
}

static void ask_push(struct sim_engine *e)
{
	struct sim_push *p = &e->push;

	if (!p->active)
		push_start(e);
	else if (!p->failed && p->next_layer < e->info.nr_layers && p->nr_open < SIM_PUSHES)
		push_layers(e);
	else if (!p->nr_open)
		push_finish(e);
}

static const struct {
	void (*ask)(struct sim_engine *e);
	uint32_t weight;
} asks[] = {
	{ ask_nop, 2 },		  { ask_stat, 2 },	     { ask_claim, 14 },
	{ ask_put, 12 },	  { ask_put_copy, 10 },	     { ask_match, 8 },
	{ ask_route, 3 },	  { ask_map, 10 },	     { ask_prefetch, 2 },
	{ ask_drop, 3 },	  { ask_get, 16 },	     { ask_release_lease, 9 },
	{ ask_nonsense, 2 },	  { ask_release_claims, 3 }, { ask_expect, 10 },
	{ ask_cancel, 1 },	  { ask_push, 40 },	     { ask_break_ring, 1 },
	{ ask_release_stale, 3 }, { ask_inbox, 16 },	     { ask_outbox, 16 },
};

void engine_act(struct sim_engine *e)
{
	uint64_t sum = 0, dice;
	uint32_t i;

	for (i = 0; i < WFI_ARRAY_SIZE(asks); i++)
		sum += asks[i].weight;
	dice = sim_rand(e->sim, sum);
	for (i = 0; dice >= asks[i].weight; i++)
		dice -= asks[i].weight;
	asks[i].ask(e);
}

/* ---- answers ---- */

static void odd(struct sim_engine *e, const struct sim_op *op, int64_t res)
{
	sim_fail(e->sim, "engine %u: operation %u on %u blocks has the result %" PRId64, e->idx,
		 op->code, op->run.nr, res);
}

static void done_claim(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct weft_slot slots[SIM_RUN];

	if (cqe->res < 0) {
		if (cqe->res != -ENOSPC && cqe->res != -ENOMEM)
			odd(e, op, cqe->res);
		return;
	}
	if (cqe->res != (int32_t)op->run.nr) {
		odd(e, op, cqe->res);
		return;
	}
	memcpy(slots, engine_args(e, op), op->run.nr * sizeof(*slots));
	claims_add(e, slots, op->run.nr);
}

/* Return: results that say that the block is held under its key */
static uint32_t count_held(const int32_t *results, uint32_t nr)
{
	uint32_t i, n = 0;

	for (i = 0; i < nr; i++)
		n += !results[i] || results[i] == -EEXIST;
	return n;
}

static void done_put(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	const uint32_t nr = op->run.nr;
	int32_t results[SIM_RUN];
	uint32_t i;

	if (cqe->res < 0) {
		if (!(op->flags & WEFT_F_COPY))
			odd(e, op, cqe->res);
		return;
	}
	memcpy(results, (uint8_t *)engine_args(e, op) + STRIDE_KEY + 2ull * nr * STRIDE_KEY,
	       nr * sizeof(*results));
	if (count_held(results, nr) != (uint32_t)cqe->res)
		odd(e, op, cqe->res);
	for (i = 0; i < nr && !(op->flags & WEFT_F_COPY); i++) {
		if (results[i] && results[i] != -EEXIST)
			odd(e, op, results[i]);
		else
			claim_remove(e, &op->slots[i]);
	}
}

/* somewhere, up to where nothing is */
static void check_where(struct sim_engine *e, const struct sim_op *op, int32_t reached)
{
	const uint8_t *at = (uint8_t *)engine_args(e, op) + op->run.nr * STRIDE_KEY;
	struct sim_report *r = e->sim->report;
	uint32_t where, i;
	bool afar = false;

	for (i = 0; op->flags & WEFT_F_WHERE && reached >= 0 && i < op->run.nr; i++) {
		memcpy(&where, at + i * sizeof(where), sizeof(where));
		where = WEFT_WHERE_TIER(where);
		if ((i < (uint32_t)reached) !=
		    (where >= WEFT_TIER_DRAM && where <= WEFT_TIER_REMOTE_SSD))
			odd(e, op, (int64_t)where);
		afar |= where == WEFT_TIER_REMOTE;
		r->matched_below += where == WEFT_TIER_SSD;
		r->matched_below_afar += where == WEFT_TIER_REMOTE_SSD;
	}
	r->matched_afar += afar;
}

static void done_match(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	int32_t i;

	if (cqe->res > (int32_t)op->run.nr ||
	    (cqe->res < 0 && (cqe->res != -ENOMEM || !(op->flags & WEFT_F_LEASE)))) {
		odd(e, op, cqe->res);
		return;
	}
	for (i = 0; i < cqe->res; i++)
		check_seen(e, op, (uint32_t)i);
	check_where(e, op, cqe->res);
	if (cqe->res > 0 && op->flags & WEFT_F_LEASE)
		lease_add(e, op, cqe->value, (uint32_t)cqe->res, NULL);
}

static void done_get(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	const uint32_t nr = op->run.nr;
	int32_t results[SIM_RUN], arrived = 0;
	uint32_t i;

	if (op->to_slots)
		claims_return(e, op->slots, nr);
	if (cqe->res < 0)
		return;
	memcpy(results,
	       (uint8_t *)engine_args(e, op) + nr * (STRIDE_KEY + sizeof(struct weft_place)),
	       nr * sizeof(*results));
	for (i = 0; i < nr; i++) {
		if (results[i])
			continue;
		arrived++;
		check_seen(e, op, i);
		check_bytes(e, op, i, get_target(e, op, i), 0, e->info.block_bytes);
	}
	if (arrived != cqe->res)
		odd(e, op, cqe->res);
}

/* a lease on slots to be read in place, from its very beginning */
static void leased(struct sim_engine *e, const struct sim_op *op, const struct weft_cqe *cqe,
		   const uint8_t *at)
{
	struct weft_slot slots[SIM_RUN];
	uint32_t i;

	if (cqe->res <= 0)
		return;
	memcpy(slots, at, (size_t)cqe->res * sizeof(*slots));
	for (i = 0; i < (uint32_t)cqe->res; i++) {
		check_seen(e, op, i);
		if (e->sim->now_ns < e->polled_ns + SIM_LEASE_NS)
			check_bytes(e, op, i, engine_slot(e, &slots[i]), 0, e->info.block_bytes);
	}
	lease_add(e, op, cqe->value, (uint32_t)cqe->res, slots);
}

static void done_map(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	if (cqe->res > (int32_t)op->run.nr || (cqe->res < 0 && cqe->res != -ENOMEM))
		odd(e, op, cqe->res);
	else
		leased(e, op, cqe, (uint8_t *)engine_args(e, op) + op->run.nr * STRIDE_KEY);
}

static void done_release(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	const bool all = cqe->res == (int32_t)op->run.nr;
	uint32_t i;

	if (op->stale) {
		if (cqe->res)
			odd(e, op, cqe->res);
		return;
	}
	if (op->lease_end_ns) {
		if (!all && (cqe->res != -ENOENT || op->taken_ns < op->lease_end_ns))
			odd(e, op, cqe->res);
		return;
	}
	if (!all)
		odd(e, op, cqe->res);
	for (i = 0; all && i < op->run.nr; i++)
		claim_remove(e, &op->slots[i]);
}

/* all of it is where it was to be */
static void placed(struct sim_engine *e, const struct sim_op *op, int32_t nr)
{
	int32_t i;

	for (i = 0; i < nr; i++)
		check_bytes(e, op, (uint32_t)i, e->mem + engine_mem_off(e, op, (uint32_t)i), 0,
			    e->info.block_bytes);
	e->sim->report->handoffs_placed += nr > 0;
}

static void done_expect(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	const unsigned all = (1u << e->info.nr_layers) - 1;
	uint32_t i;

	for (i = 0; cqe->res > 0 && i < op->run.nr; i++)
		if (op->landed[i] != all)
			sim_fail(e->sim,
				 "engine %u: a handoff is over without all layers of block %u",
				 e->idx, i);
	if (cqe->res >= 0 && (cqe->res != (int32_t)op->run.nr || (op->placed && cqe->value)))
		odd(e, op, cqe->res);
	else if (op->placed)
		placed(e, op, cqe->res);
	else
		leased(e, op, cqe,
		       (uint8_t *)engine_args(e, op) + sizeof(struct weft_arg_expect) +
			       op->run.nr * STRIDE_KEY);
}

static void done_push(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct sim_push *p = &e->push;

	p->nr_open--;
	if (cqe->res < 0) {
		p->failed = true;
		return;
	}
	if (op->forged || cqe->res != (int32_t)op->run.nr)
		odd(e, op, cqe->res);
	if (p->ticket.node == e->session->node->id)
		e->sim->report->handoffs_local++;
	else
		e->sim->report->handoffs_remote++;
}

void op_done(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	switch (op->code) {
	case WEFT_OP_CLAIM:
		done_claim(e, op, cqe);
		break;
	case WEFT_OP_PUT:
		done_put(e, op, cqe);
		break;
	case WEFT_OP_MATCH:
		done_match(e, op, cqe);
		break;
	case WEFT_OP_GET:
		done_get(e, op, cqe);
		break;
	case WEFT_OP_MAP:
		done_map(e, op, cqe);
		break;
	case WEFT_OP_RELEASE:
		done_release(e, op, cqe);
		break;
	case WEFT_OP_HANDOFF_EXPECT:
		done_expect(e, op, cqe);
		break;
	case WEFT_OP_HANDOFF_PUSH:
		done_push(e, op, cqe);
		break;
	case WEFT_OP_HANDOFF_CANCEL:
		if (cqe->res && cqe->res != -ENOENT)
			odd(e, op, cqe->res);
		break;
	case WEFT_OP_ROUTE:
		route_done(e, op, cqe);
		break;
	case WEFT_OP_CHANNEL_OPEN:
	case WEFT_OP_CHANNEL_JOIN:
	case WEFT_OP_CHANNEL_SEND:
	case WEFT_OP_CHANNEL_RECV:
	case WEFT_OP_CHANNEL_RELEASE:
	case WEFT_OP_CHANNEL_CLOSE:
		channel_done(e, op, cqe);
		break;
	default:
		if (cqe->res < 0 || cqe->res > (int32_t)op->run.nr)
			odd(e, op, cqe->res);
		break;
	}
}

static void ticket_came(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct sim *sim = e->sim;
	struct sim_ticket *t = &sim->tickets[sim->next_ticket++ % SIM_TICKETS];

	op->ticketed = true;
	op->handle = cqe->value;
	*t = (struct sim_ticket){
		.used = true, .tenant = e->tenant, .space = e->space, .run = op->run
	};
	memcpy(&t->ticket, engine_args(e, op), sizeof(t->ticket));
	if (t->ticket.node != e->session->node->id || t->ticket.nr_blocks != op->run.nr)
		sim_fail(sim, "engine %u: a ticket for another handoff", e->idx);
}

/* layers of some blocks are there: once each, and readable while the handoff is not over */
static void landed(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe, bool over)
{
	const unsigned bits = ((1u << cqe->nr_layers) - 1) << cqe->layer;
	const uint64_t layer_bytes = e->info.block_bytes / e->info.nr_layers;
	const uint32_t first = (uint32_t)cqe->value, nr = (uint32_t)(cqe->value >> 32);
	const uint8_t *at = (uint8_t *)engine_args(e, op) + sizeof(struct weft_arg_expect) +
			    op->run.nr * STRIDE_KEY;
	struct weft_slot slot;
	const uint8_t *block;
	uint32_t i;

	if (!wfi_range_ok(first, nr, op->run.nr) ||
	    !wfi_range_ok(cqe->layer, cqe->nr_layers, e->info.nr_layers)) {
		odd(e, op, cqe->res);
		return;
	}
	for (i = first; i < first + nr; i++) {
		if (op->landed[i] & bits)
			sim_fail(e->sim, "engine %u: a layer of block %u lands twice", e->idx, i);
		op->landed[i] |= (uint8_t)bits;
		memcpy(&slot, at + i * STRIDE_SLOT, sizeof(slot));
		if (over)
			continue;
		block = op->placed ? e->mem + engine_mem_off(e, op, i) : engine_slot(e, &slot);
		check_bytes(e, op, i, block + cqe->layer * layer_bytes, cqe->layer * layer_bytes,
			    cqe->nr_layers * layer_bytes);
	}
}

void op_event(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe, bool over)
{
	if (!op->ours)
		return;
	if (op->code != WEFT_OP_HANDOFF_EXPECT)
		odd(e, op, cqe->res);
	else if (cqe->flags & WEFT_CQE_TICKET)
		ticket_came(e, op, cqe);
	else
		landed(e, op, cqe, over);
}
