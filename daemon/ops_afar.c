/* SPDX-License-Identifier: Apache-2.0 */
/* ops_afar.c - the part of a match, a get or a map that other nodes have */
#include <errno.h>
#include <string.h>

#include "ops.h"

/* an engine that does not say for how long waits no longer to hear who has what */
#define SEEK_NS (50 * WFI_NSEC_PER_MSEC)

/* ---- match ---- */

/* what is held here in the middle, behind what others have. Return: how far it goes */
static uint32_t match_here(struct node_op *op, const struct op_buf *b, uint32_t at)
{
	struct wfi_kv *kv = op->session->node->kv;
	const uint32_t nr = op->nr - at;
	uint32_t n, i;

	n = (uint32_t)wfi_kv_match(kv, op->sqe.space, &b->keys[at], nr, NULL);
	for (i = at; i < at + n; i++)
		b->idx[i] = WEFT_TIER_DRAM;
	if (n < nr && wfi_kv_has_tier(kv))
		n = (uint32_t)wfi_kv_match_tiers(kv, op->sqe.space, &b->keys[at], nr, n,
						 &b->idx[at], NULL);
	return at + n;
}

/* blocks of others, from @from on, up to @end */
static void match_others(struct node_op *op, const struct op_buf *b, const struct wfi_found *found,
			 uint32_t from, uint32_t end)
{
	const struct wfi_cluster *c = op->session->node->cluster;
	uint32_t i;

	for (i = from; i < end; i++) {
		const uint8_t peer = found->peers[i - op->nr_pieces];

		b->idx[i] =
			WEFT_WHERE(peer & WFI_PEER_SSD ? WEFT_TIER_REMOTE_SSD : WEFT_TIER_REMOTE,
				   wfi_cluster_node(c, peer));
	}
}

/* behind .nr_pieces blocks that are here, others and this node in turns. Return: how far it goes */
static uint32_t match_on(struct node_op *op, const struct op_buf *b, const struct wfi_found *found)
{
	uint32_t i = op->nr_pieces, end;
	const uint8_t *none;

	for (;;) {
		none = memchr(found->peers + i - op->nr_pieces, WFI_PEER_NONE, op->nr - i);
		end = none ? (uint32_t)(none - found->peers) + op->nr_pieces : op->nr;
		if (op->sqe.flags & WEFT_F_WHERE)
			match_others(op, b, found, i, end);
		if (end == op->nr)
			return end;
		i = match_here(op, b, end);
		if (i == end || i == op->nr)
			return i;
	}
}

/* for the engine: of the blocks from @end on nobody has any; the others are known */
static void match_where(struct node_op *op, const struct op_buf *b, uint32_t end)
{
	uint32_t i;

	for (i = end; i < op->nr; i++)
		b->idx[i] = WEFT_TIER_NONE;
	wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + op->nr * sizeof(struct weft_key),
			    b->idx, op->nr * sizeof(uint32_t));
}

static void match_found(void *ctx, const struct wfi_found *found)
{
	struct node_op *op = ctx;
	struct op_buf b = op_buf_of(op);
	uint32_t end;

	op->pull = NULL;
	end = match_on(op, &b, found);
	if (op->ring && op->sqe.flags & WEFT_F_WHERE)
		match_where(op, &b, end);
	if (found->partial)
		op->cqe_flags = WEFT_CQE_PARTIAL;
	op_complete(op, (int)end, found->fetch_us);
}

int op_match_afar(struct op_ctx *c, uint32_t n)
{
	struct wfi_seek_opts o = {
		.space = c->sqe->space,
		.nr = c->sqe->nr,
		.from = n,
		.keys = c->node->keys,
		.now_ns = c->now_ns,
		.done = match_found,
	};
	struct wfi_pull *pull;
	struct node_op *op;
	struct op_buf b;

	if (wfi_cluster_alone(c->node->cluster))
		return 0;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return 0;
	b = op_buf_of(op);
	memcpy(b.idx, c->node->where, n * sizeof(*b.idx));
	memcpy(b.keys + n, c->node->keys + n, (op->nr - n) * sizeof(*b.keys));
	op->nr_pieces = n;
	o.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns);
	if (!c->sqe->timeout_us)
		o.deadline_ns = wfi_min(o.deadline_ns, c->now_ns + SEEK_NS);
	o.ctx = op;
	if (wfi_cluster_seek(c->node->cluster, &o, &pull)) {
		op_close(op);
		return 0;
	}
	/* it may be over, and gone, by now */
	if (pull)
		op->pull = pull;
	return OP_OPEN;
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
static const struct wfi_pull_memory *places_direct(const struct node_op *op, const struct op_buf *b)
{
	const struct session *s = op->session;
	const struct wfi_pull_memory *m;
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
