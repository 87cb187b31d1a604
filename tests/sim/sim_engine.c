/* SPDX-License-Identifier: Apache-2.0 */
/* sim_engine.c - an engine: its ring as another process would see it, its coming and going */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/sim/sim.h"

#define ARGS_OF_OP 4096u
#define SQ_DEPTH 16u
#define CQ_DEPTH 32u

/* ---- coming ---- */

static bool ring_map(struct sim_ring *r, const struct wfi_ring *ring)
{
	struct weft_ring_hdr hdr;

	r->len = wfi_ring_len(ring);
	r->base = mmap(NULL, r->len, PROT_READ | PROT_WRITE, MAP_SHARED, wfi_ring_fd(ring), 0);
	if (r->base == MAP_FAILED)
		return false;
	memcpy(&hdr, r->base, sizeof(hdr));
	r->sq = (struct weft_sqe *)(r->base + hdr.sq_off);
	r->cq = (struct weft_cqe *)(r->base + hdr.cq_off);
	r->line = (struct weft_ring_line *)(r->base + WEFT_RING_ENGINE_OFF);
	r->arg = r->base + hdr.arg_off;
	r->sq_mask = hdr.sq_depth - 1;
	r->cq_mask = hdr.cq_depth - 1;
	r->sq_pos = 0;
	r->cq_pos = 0;
	return true;
}

static bool ring_open(struct sim_engine *e)
{
	const struct wfi_ring_opts opts = { .sq_depth = SQ_DEPTH,
					    .cq_depth = CQ_DEPTH,
					    .arg_bytes = SIM_OPS * ARGS_OF_OP };
	struct wfi_ring *ring;

	if (wfi_ring_create(e->session->node->env, &opts, &ring))
		return false;
	if (!ring_map(&e->ring, ring)) {
		wfi_ring_destroy(ring);
		return false;
	}
	if (session_ring_add(e->session, ring, &e->ring.id)) {
		munmap(e->ring.base, e->ring.len);
		e->ring.base = NULL;
		wfi_ring_destroy(ring);
		return false;
	}
	return true;
}

int sim_space_open(struct sim *sim, uint32_t n, uint32_t tenant, uint32_t space,
		   struct wfi_space_info *out)
{
	struct node *node = sim->nodes[n].node;
	const struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = sim->geometry[space].block_bytes,
		.model = space ? "second" : "first",
		.layout = "",
		.tokens_per_block = 16,
		.nr_layers = sim->geometry[space].nr_layers,
		.verify = space,
		.max_blocks = space ? 24 : 0,
		.replicas = sim->replicas,
	};
	char why[184];

	return wfi_kv_space_open(node->kv, node->tenants[tenant], &opts, out, why);
}

static bool fit_out(struct sim_engine *e)
{
	char why[184];

	e->polled_ns = e->sim->now_ns;
	e->mem_len = SIM_OPS * SIM_RUN * e->info.block_bytes;
	e->mem = calloc(1, e->mem_len);
	return e->mem && ring_open(e) &&
	       !session_region_reg(e->session, -1, (uintptr_t)e->mem, 0, e->mem_len, &e->region,
				   why);
}

bool engine_attach(struct sim_engine *e)
{
	struct sim *sim = e->sim;
	struct node *node = sim->nodes[e->node].node;
	char name[16];

	/* the place of a ghost is needed when it goes */
	if (node->draining || sim->nr_ghosts + SIM_ENGINES >= SIM_GHOSTS)
		return false;
	snprintf(name, sizeof(name), "engine %u", e->idx);
	if (session_attach(node, node->tenants[e->tenant], getpid(), -1, name, &e->session))
		return false;
	if (!sim_space_open(sim, e->node, e->tenant, e->space, &e->info) && fit_out(e))
		return true;
	engine_hang_up(e, false);
	return false;
}

/* ---- staying, with a new ring and other memory ---- */

void engine_refit(struct sim_engine *e)
{
	session_ring_close(e->session, e->ring.id);
	munmap(e->ring.base, e->ring.len);
	e->ring.base = NULL;
	/* what these have done is not known: their claims stay busy until the engine goes */
	memset(e->ops, 0, sizeof(e->ops));
	e->push.active = false;
	e->inbox = (struct sim_inbox){ 0 };
	e->outbox = (struct sim_outbox){ 0 };
	e->refit = true;
	e->sim->report->refits++;
}

void engine_refit_poll(struct sim_engine *e)
{
	const int ret = session_region_dereg(e->session, e->region);

	if (ret == -EBUSY)
		return;
	if (ret)
		sim_fail(e->sim, "engine %u: a region of its own goes with %d", e->idx, ret);
	/* nothing of the node touches it any more */
	free(e->mem);
	e->mem = NULL;
	e->refit = false;
	if (!fit_out(e))
		engine_hang_up(e, false);
}

/* ---- going ---- */

static struct sim_ghost *ghost_add(const struct sim_engine *e, bool writes)
{
	struct sim *sim = e->sim;
	struct sim_ghost *g = &sim->ghosts[sim->nr_ghosts++];

	*g = (struct sim_ghost){
		.writes = writes,
		.gone_ns = sim->now_ns + sim_rand(sim, 30 * WFI_NSEC_PER_MSEC),
		.node = e->node,
		.owner_id = e->session->owner.id,
		.arena = wfi_tenant_arena(e->session->tenant)->addr,
		.block_bytes = sim->geometry[e->space].block_bytes,
		.mem = e->mem,
	};
	return g;
}

/* it comes again, to any node, and knows nothing of before */
static void engine_reset(struct sim_engine *e)
{
	struct sim *sim = e->sim;

	if (e->ring.base)
		munmap(e->ring.base, e->ring.len);
	*e = (struct sim_engine){
		.sim = sim,
		.idx = e->idx,
		.node = (uint32_t)sim_rand(sim, sim->nr_nodes),
		.tenant = e->tenant,
		.space = e->space,
		.serial = e->serial,
		.attach_ns = sim->now_ns + sim_rand(sim, 5 * WFI_NSEC_PER_MSEC),
	};
}

void engine_lose_node(struct sim_engine *e)
{
	ghost_add(e, false);
	engine_reset(e);
}

void engine_hang_up(struct sim_engine *e, bool lives)
{
	struct sim *sim = e->sim;
	struct sim_ghost *g = ghost_add(e, lives);
	uint32_t i;

	/* what an operation may have published meanwhile is not written any more */
	for (i = 0; i < e->nr_claims; i++)
		if (!e->claims[i].busy)
			g->slots[g->nr_slots++] = e->claims[i].slot;
	sim_trace(sim, e->session->owner.id);
	session_detach(e->session, lives);
	engine_reset(e);
	sim->report->hangups++;
}

static void ghost_scribble(struct sim *sim, struct sim_ghost *g)
{
	uint32_t i;

	for (i = 0; i < g->nr_slots; i++)
		memset(g->arena + g->slots[i].off, (int)sim_rand(sim, 256), g->block_bytes);
}

void ghosts_poll(struct sim *sim)
{
	uint32_t i;

	for (i = 0; i < sim->nr_ghosts; i++) {
		struct sim_ghost *g = &sim->ghosts[i];

		if (!g->writes)
			continue;
		if (sim_chance(sim, 30))
			ghost_scribble(sim, g);
		if (sim->now_ns < g->gone_ns)
			continue;
		g->writes = false;
		session_gone(sim->nodes[g->node].node, g->owner_id);
	}
}

/* ---- asking ---- */

struct sim_op *engine_op(struct sim_engine *e, uint8_t code, const struct sim_run *run)
{
	static const uint32_t timeouts_us[] = { 500, 5000, 50000, 200000, 0 };
	const uint64_t pick = sim_rand(e->sim, WFI_ARRAY_SIZE(timeouts_us));
	uint32_t i;

	for (i = 0; i < SIM_OPS; i++) {
		struct sim_op *op = &e->ops[i];

		if (op->open)
			continue;
		*op = (struct sim_op){
			.ours = true,
			.code = code,
			.serial = ++e->serial,
			.timeout_ns = timeouts_us[pick] * WFI_NSEC_PER_USEC,
		};
		if (run)
			op->run = *run;
		return op;
	}
	return NULL;
}

void *engine_args(struct sim_engine *e, const struct sim_op *op)
{
	return e->ring.arg + (size_t)(op - e->ops) * ARGS_OF_OP;
}

uint64_t engine_mem_off(const struct sim_engine *e, const struct sim_op *op, uint32_t i)
{
	return ((uint64_t)(op - e->ops) * SIM_RUN + i) * e->info.block_bytes;
}

uint8_t *engine_slot(const struct sim_engine *e, const struct weft_slot *slot)
{
	const struct wfi_map *arena = wfi_tenant_arena(e->session->tenant);

	if (!wfi_range_ok(slot->off, e->info.block_bytes, arena->len)) {
		sim_fail(e->sim, "engine %u: slot at %" PRIu64 " outside of the arena", e->idx,
			 slot->off);
		return arena->addr;
	}
	return (uint8_t *)arena->addr + slot->off;
}

void engine_submit(struct sim_engine *e, struct sim_op *op, uint32_t nr, uint64_t handle)
{
	const uint32_t idx = (uint32_t)(op - e->ops);
	struct weft_sqe *entry = &e->ring.sq[e->ring.sq_pos & e->ring.sq_mask];
	const struct weft_sqe sqe = {
		.op = op->code,
		.flags = op->flags,
		.user_data = (uint64_t)op->serial << 8 | idx,
		.space = e->info.id,
		.nr = nr,
		.arg_off = idx * ARGS_OF_OP,
		.timeout_us = (uint32_t)sim_us(op->timeout_ns),
		.handle = handle,
	};

	op->open = true;
	if (!op->timeout_ns)
		op->timeout_ns = SIM_OP_TIMEOUT_NS;
	memcpy((uint8_t *)entry + sizeof(sqe.seq), (const uint8_t *)&sqe + sizeof(sqe.seq),
	       sizeof(sqe) - sizeof(sqe.seq));
	/* pairs with the node's acquire */
	__atomic_store_n(&entry->seq, ++e->ring.sq_pos, __ATOMIC_RELEASE);
}

/* ---- being answered ---- */

static struct sim_op *op_of(struct sim_engine *e, const struct weft_cqe *cqe)
{
	const uint64_t idx = cqe->user_data & 0xff;
	struct sim_op *op = idx < SIM_OPS ? &e->ops[idx] : NULL;

	if (op && op->open && op->serial == cqe->user_data >> 8)
		return op;
	sim_fail(e->sim, "engine %u: a completion for %#" PRIx64 ", which is not open", e->idx,
		 cqe->user_data);
	return NULL;
}

static uint32_t cq_take(struct sim_ring *r, struct weft_cqe out[CQ_DEPTH])
{
	uint32_t n;

	for (n = 0; n < CQ_DEPTH; n++) {
		const struct weft_cqe *entry = &r->cq[r->cq_pos & r->cq_mask];

		/* pairs with the node's release */
		if (__atomic_load_n(&entry->seq, __ATOMIC_ACQUIRE) != r->cq_pos + 1)
			break;
		out[n] = *entry;
		r->cq_pos++;
	}
	__atomic_store_n(&r->line->head, r->cq_pos, __ATOMIC_RELEASE);
	return n;
}

/* is the operation's end among these, or may it wait behind a full queue? */
static bool is_over(const struct weft_cqe *cqes, uint32_t nr, uint64_t user_data)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (cqes[i].user_data == user_data && !(cqes[i].flags & WEFT_CQE_MORE))
			return true;
	return nr == CQ_DEPTH;
}

static void answer(struct sim_engine *e, const struct weft_cqe *cqes, uint32_t nr, uint32_t i)
{
	const struct weft_cqe *cqe = &cqes[i];
	struct sim *sim = e->sim;
	struct sim_op *op = op_of(e, cqe);

	sim_trace(sim, cqe->user_data ^ (uint64_t)e->idx << 56);
	sim_trace(sim,
		  (uint64_t)(uint32_t)cqe->res << 32 | (uint32_t)cqe->flags << 16 | cqe->layer);
	sim_trace(sim, cqe->value ^ sim->now_ns);
	if (!op)
		return;
	if (op->ours && cqe->op != op->code) {
		sim_fail(sim, "engine %u: operation %u completes as %u", e->idx, op->code, cqe->op);
		return;
	}
	if (cqe->flags & WEFT_CQE_MORE) {
		op_event(e, op, cqe, is_over(cqes, nr, cqe->user_data));
		return;
	}
	sim->report->completions[cqe->op]++;
	sim->report->good[cqe->op] += cqe->res > 0;
	if (op->ours)
		op_done(e, op, cqe);
	op->open = false;
}

void engine_poll(struct sim_engine *e)
{
	struct weft_cqe cqes[CQ_DEPTH];
	uint32_t nr, i;

	nr = cq_take(&e->ring, cqes);
	for (i = 0; i < nr && !e->sim->failed; i++)
		answer(e, cqes, nr, i);
	e->polled_ns = e->sim->now_ns;
}

bool engine_busy(const struct sim_engine *e)
{
	uint32_t i;

	for (i = 0; i < SIM_OPS; i++)
		if (e->ops[i].open)
			return true;
	return false;
}

void engine_mark_taken(struct sim_engine *e)
{
	uint32_t i;

	for (i = 0; i < SIM_OPS; i++)
		if (e->ops[i].open && !e->ops[i].taken_ns)
			e->ops[i].taken_ns = e->sim->now_ns;
}

static const struct sim_op *overdue(const struct sim_engine *e)
{
	uint32_t i;

	for (i = 0; i < SIM_OPS; i++) {
		const struct sim_op *op = &e->ops[i];

		if (op->open && op->taken_ns &&
		    e->sim->now_ns > op->taken_ns + op->timeout_ns + SIM_GRACE_NS)
			return op;
	}
	return NULL;
}

void engine_check_overdue(struct sim_engine *e)
{
	const struct sim_op *op;

	if (e->refit)
		return;
	/* one that does not read its queue is none the node can answer */
	if (e->sim->now_ns - e->polled_ns > SIM_STALL_NS)
		engine_poll(e);
	if (e->session->broken || !overdue(e))
		return;
	engine_poll(e);
	op = overdue(e);
	if (op)
		sim_fail(e->sim,
			 "engine %u: operation %u, taken at %" PRIu64 " us for %" PRIu64
			 " us, is not complete",
			 e->idx, op->code, sim_us(op->taken_ns), sim_us(op->timeout_ns));
}
