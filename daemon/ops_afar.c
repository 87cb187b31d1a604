/* SPDX-License-Identifier: Apache-2.0 */
/* ops_afar.c - the part of a match, a get or a map that other nodes have */
#include <errno.h>
#include <string.h>

#include "ops.h"

/* an engine that does not say for how long waits no longer to hear who has what */
#define SEEK_NS (50 * WFI_NSEC_PER_MSEC)

/* ---- match ---- */

/* one whose first @here blocks are here; @where: of each block, for the engine */
struct match {
	struct node *node;
	const struct weft_sqe *sqe;
	const struct weft_key *keys;
	uint32_t *where;
	uint32_t here;
};

/* what is held here in the middle, behind what others have. Return: how far it goes */
static uint32_t match_here(const struct match *m, uint32_t at)
{
	struct wfi_kv *kv = m->node->kv;
	const uint32_t nr = m->sqe->nr - at;
	uint32_t n, i;

	n = (uint32_t)wfi_kv_match(kv, m->sqe->space, &m->keys[at], nr, NULL);
	for (i = at; i < at + n; i++)
		m->where[i] = WEFT_TIER_DRAM;
	if (n < nr && wfi_kv_has_tier(kv))
		n = (uint32_t)wfi_kv_match_tiers(kv, m->sqe->space, &m->keys[at], nr, n,
						 &m->where[at], NULL);
	return at + n;
}

/* blocks of others, from @from on, up to @end */
static void match_others(const struct match *m, const struct wfi_found *found, uint32_t from,
			 uint32_t end)
{
	const struct wfi_cluster *c = m->node->cluster;
	uint32_t i;

	for (i = from; i < end; i++) {
		const uint8_t peer = found->peers[i - m->here];

		m->where[i] =
			WEFT_WHERE(peer & WFI_PEER_SSD ? WEFT_TIER_REMOTE_SSD : WEFT_TIER_REMOTE,
				   wfi_cluster_node(c, peer));
	}
}

/* behind what is here, others and this node in turns. Return: how far it goes */
static uint32_t match_on(const struct match *m, const struct wfi_found *found)
{
	const uint32_t nr = m->sqe->nr;
	uint32_t i = m->here, end = i + found->reached;
	const uint8_t *none;

	for (;;) {
		if (m->sqe->flags & WEFT_F_WHERE)
			match_others(m, found, i, end);
		if (end == nr)
			return end;
		i = match_here(m, end);
		if (i == end || i == nr)
			return i;
		none = memchr(found->peers + i - m->here, WFI_PEER_NONE, nr - i);
		end = none ? (uint32_t)(none - found->peers) + m->here : nr;
	}
}

/* for the engine: of the blocks from @end on nobody has any; the others are known */
static void match_where(const struct match *m, struct node_ring *r, uint32_t end)
{
	const uint32_t nr = m->sqe->nr;
	uint32_t i;

	for (i = end; i < nr; i++)
		m->where[i] = WEFT_TIER_NONE;
	wfi_ring_args_write(r->ring, m->sqe->arg_off + nr * sizeof(struct weft_key), m->where,
			    nr * sizeof(uint32_t));
}

static void match_found(void *ctx, const struct wfi_found *found)
{
	struct node_op *op = ctx;
	struct op_buf b = op_buf_of(op);
	const struct match m = { .node = op->session->node,
				 .sqe = &op->sqe,
				 .keys = b.keys,
				 .where = b.idx,
				 .here = op->nr_pieces };
	uint32_t end;

	op->pull = NULL;
	end = match_on(&m, found);
	if (op->ring && op->sqe.flags & WEFT_F_WHERE)
		match_where(&m, op->ring, end);
	if (found->partial)
		op->cqe_flags = WEFT_CQE_PARTIAL;
	op_complete(op, (int)end, found->fetch_us);
}

/* a node has to be asked. Return: OP_OPEN, or how far it goes without */
static int match_ask(struct op_ctx *c, struct wfi_seek_opts *o)
{
	const uint32_t n = o->from;
	struct wfi_pull *pull;
	struct node_op *op = op_open(c->node, c->r, c->sqe, c->now_ns);
	struct op_buf b;

	if (!op)
		return (int)n;
	b = op_buf_of(op);
	memcpy(b.idx, c->node->where, n * sizeof(*b.idx));
	memcpy(b.keys + n, o->keys + n, (op->nr - n) * sizeof(*b.keys));
	op->nr_pieces = n;
	if (!c->sqe->timeout_us)
		o->deadline_ns = wfi_min(o->deadline_ns, c->now_ns + SEEK_NS);
	o->done = match_found;
	o->ctx = op;
	if (wfi_cluster_seek(c->node->cluster, o, &pull)) {
		op_close(op);
		return (int)n;
	}
	/* it may be over, and gone, by now */
	if (pull)
		op->pull = pull;
	return OP_OPEN;
}

int op_match_afar(struct op_ctx *c, uint32_t n)
{
	struct wfi_seek_opts o = {
		.space = c->sqe->space,
		.nr = c->sqe->nr,
		.from = n,
		.keys = c->node->keys,
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
	};
	const struct match m = { .node = c->node,
				 .sqe = c->sqe,
				 .keys = c->node->keys,
				 .where = c->node->where,
				 .here = n };
	struct wfi_found found;

	if (wfi_cluster_alone(c->node->cluster))
		return (int)n;
	if (!wfi_cluster_look(c->node->cluster, &o, &found))
		return match_ask(c, &o);
	c->value = found.fetch_us;
	return (int)match_on(&m, &found);
}

/* ---- get ---- */

/* what is here is copied or checked behind that, and needs some time too */
static uint64_t op_pull_end(const struct node_op *op)
{
	const uint64_t end_ns = op_deadline(op->session->node, &op->sqe, op->start_ns);

	return end_ns - (end_ns - op->start_ns) / 8;
}

/* what is left of it, if it has one: never 0 then */
static uint64_t op_budget(const struct node_op *op, uint64_t now_ns)
{
	const uint64_t end_ns =
		op->start_ns + wfi_min(op->sqe.handle, UINT32_MAX) * WFI_NSEC_PER_USEC;

	if (!op->sqe.handle)
		return 0;
	return end_ns > now_ns ? end_ns - now_ns : 1;
}

static void get_pulled(void *ctx)
{
	struct node_op *op = ctx;
	struct op_buf b = op_buf_of(op);
	uint32_t i;

	op->pull = NULL;
	for (i = 0; i < op->nr; i++) {
		if (b.idx[i] == WFI_SLOT_NONE && b.results[i] == -ETIME)
			op->reached = wfi_min(op->reached, i);
		if (b.idx[i] != WFI_SLOT_NONE || b.results[i] || op->kept_afar)
			b.places[i] = NULL;
	}
	op_get_fetched(op);
}

/* in one region of a GPU's memory, which the NICs of some peers reach. Return: NULL: they do not */
static const struct wfi_nic_memory *places_direct(const struct node_op *op, const struct op_buf *b)
{
	const struct session *s = op->session;
	const struct wfi_nic_memory *m;
	uint32_t i, rkey;

	for (i = 0; b->idx[i] != WFI_SLOT_NONE; i++)
		;
	rkey = b->pieces[i].rkey;
	m = gpu_direct_memory(s->regions[rkey].direct);
	if (!m || !wfi_cluster_reaches(s->node->cluster, m, b->pieces[i].len))
		return NULL;
	for (; i < op->nr; i++) {
		if (b->idx[i] != WFI_SLOT_NONE)
			continue;
		if (b->pieces[i].rkey != rkey)
			return NULL;
		b->places[i] = (void *)(m->base + b->pieces[i].remote);
	}
	return m;
}

/* addresses of all places that are wanted. Return: false when not all are within reach */
static bool places_reach(const struct node_op *op, const struct op_buf *b, bool *in_arena)
{
	const struct session *s = op->session;
	bool all_in = true;
	uint32_t i;

	for (i = 0; i < op->nr; i++) {
		const struct wfi_piece *p = &b->pieces[i];
		const struct weft_rkey *rkey = s->rkeys[p->rkey];
		char *base = p->rkey == WEFT_REGION_ARENA
				     ? wfi_tenant_arena(s->tenant)->addr
				     : rkey->ep->dev->transport->rkey_ptr(rkey);

		if (b->idx[i] != WFI_SLOT_NONE)
			continue;
		if (!base)
			return false;
		all_in &= p->rkey == WEFT_REGION_ARENA;
		b->places[i] = base + p->remote;
	}
	*in_arena = all_in;
	return all_in || wfi_cluster_takes_places(s->node->cluster);
}

static bool is_popular(const struct node_op *op, const struct op_buf *b)
{
	uint32_t i;

	for (i = 0; b->idx[i] != WFI_SLOT_NONE; i++)
		;
	return wfi_cluster_popular(op->session->node->cluster, op->sqe.space, &b->keys[i]);
}

static uint32_t pin_found(struct node_op *op, const struct op_buf *b)
{
	uint32_t i, missing = 0;

	for (i = 0; i < op->nr; i++) {
		if (b->idx[i] == WFI_SLOT_NONE)
			missing++;
		else
			wfi_kv_pin(op->session->node->kv, &b->idx[i], 1);
	}
	return missing;
}

int op_get_afar(struct node_op *op, uint64_t now_ns)
{
	struct node *node = op->session->node;
	struct op_buf b = op_buf_of(op);
	struct wfi_pull_opts o = {
		.tenant = op->session->tenant,
		.space = op->sqe.space,
		.nr = op->nr,
		.keys = b.keys,
		.slots = b.idx,
		.results = b.results,
		.budget_ns = op_budget(op, now_ns),
		.now_ns = now_ns,
		.deadline_ns = op_pull_end(op),
		.done = get_pulled,
		.late = op_late,
		.ctx = op,
	};

	if (!pin_found(op, &b))
		goto none;
	/* copied from a slot of the node otherwise */
	if (!is_popular(op, &b)) {
		o.memory = places_direct(op, &b);
		if (o.memory || places_reach(op, &b, &o.in_arena))
			o.places = b.places;
	}
	op->kept_afar = !o.places;
	op->afar = true;
	if (!wfi_cluster_pull(node->cluster, &o, &op->pull)) {
		op_regions_hold(op->session, b.pieces, op->nr, 1);
		return OP_OPEN;
	}
	op->afar = false;
none:
	op_unpin(op, op->nr);
	return 0;
}

/* ---- map ---- */

uint32_t op_map_unpin(struct node_op *op, uint32_t nr)
{
	struct wfi_kv *kv = op->session->node->kv;
	struct op_buf b = op_buf_of(op);
	uint32_t came = 0, n = 0;

	while (came < nr && b.idx[came] != WFI_SLOT_NONE)
		came++;
	op_unpin(op, nr);
	/* what was dropped meanwhile has gone with its last pin */
	wfi_kv_peek(kv, op->sqe.space, b.keys, came, b.idx);
	while (n < came && b.idx[n] != WFI_SLOT_NONE)
		n++;
	return n;
}

static void map_pulled(void *ctx)
{
	struct node_op *op = ctx;

	op->pull = NULL;
	op_map_fetched(op, op_map_unpin(op, op->nr));
}

static void map_late(void *ctx, int res)
{
	op_tell_late(ctx, res);
}

int op_map_afar(struct node_op *op, uint32_t n)
{
	struct node *node = op->session->node;
	const uint64_t now_ns = wfi_now(node->env);
	struct op_buf b = op_buf_of(op);
	struct wfi_pull_opts o = {
		.tenant = op->session->tenant,
		.space = op->sqe.space,
		.nr = op->nr,
		.keys = b.keys,
		.slots = b.idx,
		.prefix = true,
		.results = b.results,
		.budget_ns = op_budget(op, now_ns),
		.now_ns = now_ns,
		.deadline_ns = op_pull_end(op),
		.done = map_pulled,
		.late = map_late,
		.ctx = op,
	};

	if (n == op->nr || wfi_cluster_alone(node->cluster))
		return 0;
	wfi_kv_peek(node->kv, op->sqe.space, b.keys, op->nr, b.idx);
	pin_found(op, &b);
	if (!wfi_cluster_pull(node->cluster, &o, &op->pull))
		return OP_OPEN;
	op_unpin(op, op->nr);
	return 0;
}
