/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - an engine that uses its node as a cache */
#include <errno.h>
#include "tests/chaos/chaos.h"

#define TIMEOUT_MIN_US 20000u
#define TIMEOUT_MAX_US 300000u

/* some blocks of some chain, and an operation about them */
struct run {
	uint64_t name;
	unsigned first, nr;
	struct weft_key keys[CHAOS_CHAIN_LEN];
	struct weft_place places[CHAOS_RUN];
	int32_t results[CHAOS_RUN];
	uint32_t where[CHAOS_RUN];
	struct weft_slot slots[CHAOS_RUN];
};

static void run_pick(struct seat *s, struct run *r)
{
	unsigned i;

	r->name = 1 + seat_rand(s, CHAOS_CHAINS);
	r->first = seat_rand(s, CHAOS_CHAIN_LEN);
	r->nr = 1 + seat_rand(s, wfi_min(CHAOS_RUN, CHAOS_CHAIN_LEN - r->first));
	test_keys(&s->e, r->name, r->first + r->nr, r->keys);
	for (i = 0; i < r->nr; i++)
		r->places[i] = (struct weft_place){ .off = (uint64_t)i * CHAOS_BLOCK,
						    .region = s->region };
}

static struct weft_op run_op(struct seat *s, struct run *r, enum weft_opcode code)
{
	return (struct weft_op){ .op = (uint8_t)code,
				 .space = s->e.space,
				 .nr = r->nr,
				 .keys = &r->keys[r->first],
				 .timeout_us = TIMEOUT_MIN_US +
					       seat_rand(s, TIMEOUT_MAX_US - TIMEOUT_MIN_US) };
}

static void check(struct seat *s, const struct run *r, unsigned i, const void *bytes,
		  const char *how)
{
	if (test_filled(bytes, CHAOS_BLOCK, block_seed(r->name, r->first + i)))
		chaos_count(s->c, CHAOS_BLOCKS, 1);
	else
		chaos_breach(s->c, "%s at node-%u: %s gives wrong bytes of block %u of chain %u",
			     s->name, s->node, how, r->first + i, (unsigned)r->name);
}

static void do_put(struct seat *s, struct run *r)
{
	struct weft_op op = run_op(s, r, WEFT_OP_PUT);
	unsigned i;

	op.flags = WEFT_F_COPY;
	op.parent = r->first ? &r->keys[r->first - 1] : NULL;
	op.places = r->places;
	op.results = r->results;
	for (i = 0; i < r->nr; i++)
		test_fill(s->memory + i * CHAOS_BLOCK, CHAOS_BLOCK,
			  block_seed(r->name, r->first + i));
	seat_failed(s, "put", seat_call(s, &op, NULL), NULL);
}

static void do_put_in_place(struct seat *s, struct run *r)
{
	struct weft_op op = run_op(s, r, WEFT_OP_PUT);
	unsigned i;

	if (!seat_claim(s, r->slots, r->nr))
		return;
	if (!seat_rand(s, 3)) {
		seat_unclaim(s, r->slots, r->nr);
		return;
	}
	for (i = 0; i < r->nr; i++)
		test_fill(seat_slot(s, &r->slots[i]), CHAOS_BLOCK,
			  block_seed(r->name, r->first + i));
	op.parent = r->first ? &r->keys[r->first - 1] : NULL;
	op.slots = r->slots;
	seat_failed(s, "put in place", seat_call(s, &op, NULL), NULL);
}

static void do_match(struct seat *s, struct run *r)
{
	struct weft_op op = run_op(s, r, WEFT_OP_MATCH);

	op.flags = WEFT_F_WHERE;
	op.where = r->where;
	seat_failed(s, "match", seat_call(s, &op, NULL), NULL);
}

static void do_get(struct seat *s, struct run *r)
{
	struct weft_op op = run_op(s, r, WEFT_OP_GET), match = op;
	unsigned i;
	int held, ret;

	/* what is known to lie elsewhere, sometimes; else whatever there is */
	match.op = WEFT_OP_MATCH;
	match.flags = WEFT_F_WHERE;
	match.where = r->where;
	held = seat_rand(s, 2) ? seat_call(s, &match, NULL) : 0;
	if (seat_failed(s, "match", held, NULL))
		return;
	op.flags = seat_rand(s, 2) ? WEFT_F_VERIFY : 0;
	op.places = r->places;
	op.results = r->results;
	memset(s->memory, 0, r->nr * CHAOS_BLOCK);
	ret = seat_call(s, &op, NULL);
	if (seat_failed(s, "get", ret, NULL))
		return;
	for (i = 0; i < r->nr; i++) {
		if (r->results[i])
			continue;
		check(s, r, i, s->memory + i * CHAOS_BLOCK, "a get");
		if ((int)i < held && WEFT_WHERE_TIER(r->where[i]) == WEFT_TIER_REMOTE)
			chaos_count(s->c, CHAOS_REMOTE, 1);
	}
}

static void release(struct seat *s, uint64_t lease, const struct moment *since, int nr)
{
	const struct weft_op op = { .op = WEFT_OP_RELEASE,
				    .handle = lease,
				    .timeout_us = TIMEOUT_MAX_US };
	const int ret = seat_call(s, &op, NULL);

	/* it may have ended */
	if (!seat_failed(s, "release", ret, MAY(-ENOENT)) && ret != nr)
		chaos_breach(s->c, "%s at node-%u: %d blocks of %d released %u ms after the lease",
			     s->name, s->node, ret, nr,
			     (unsigned)(seat_since(s, since) / WFI_NSEC_PER_MSEC));
}

static void do_map(struct seat *s, struct run *r)
{
	struct weft_op op = run_op(s, r, WEFT_OP_MAP);
	const struct moment m = seat_moment(s);
	struct weft_completion cpl;
	bool right[CHAOS_RUN];
	int ret, i;

	op.slots = r->slots;
	op.flags = seat_rand(s, 2) ? WEFT_F_VERIFY : 0;
	ret = seat_call(s, &op, &cpl);
	if (seat_failed(s, "map", ret, NULL) || !ret)
		return;
	for (i = 0; i < ret; i++)
		right[i] = test_filled(seat_slot(s, &r->slots[i]), CHAOS_BLOCK,
				       block_seed(r->name, r->first + (unsigned)i));
	/* afterwards the bytes may be others' */
	for (i = 0; i < ret && chaos_now() - m.at_ns < CHAOS_LEASE_SURE_NS; i++) {
		if (right[i])
			chaos_count(s->c, CHAOS_BLOCKS, 1);
		else
			chaos_breach(s->c, "%s at node-%u: a map gives wrong bytes", s->name,
				     s->node);
	}
	if (seat_rand(s, 8))
		release(s, cpl.handle, &m, ret);
}

static void do_lease(struct seat *s, struct run *r)
{
	struct weft_op op = run_op(s, r, WEFT_OP_MATCH);
	const struct moment m = seat_moment(s);
	struct weft_completion cpl;
	int ret;

	op.flags = WEFT_F_LEASE;
	ret = seat_call(s, &op, &cpl);
	if (!seat_failed(s, "match with a lease", ret, MAY(-EDQUOT)) && ret > 0)
		release(s, cpl.handle, &m, ret);
}

static void do_prefetch(struct seat *s, struct run *r)
{
	const struct weft_op op = run_op(s, r, WEFT_OP_PREFETCH);

	seat_failed(s, "prefetch", seat_call(s, &op, NULL), NULL);
}

/* to the end of the chain: a block that has others behind it keeps its slot until they go */
static void do_drop(struct seat *s, struct run *r)
{
	int32_t results[CHAOS_CHAIN_LEN];
	struct weft_op op = run_op(s, r, WEFT_OP_DROP);

	test_keys(&s->e, r->name, CHAOS_CHAIN_LEN, r->keys);
	op.nr = CHAOS_CHAIN_LEN - r->first;
	op.results = results;
	seat_failed(s, "drop", seat_call(s, &op, NULL), NULL);
}

/* what engines do, and how often in a hundred */
static const struct {
	unsigned weight;
	void (*turn)(struct seat *s, struct run *r);
} turns[] = {
	{ 40, do_get },		{ 22, do_put },	 { 10, do_match },   { 10, do_map },
	{ 8, do_put_in_place }, { 4, do_lease }, { 4, do_prefetch }, { 2, do_drop },
};

void worker_turn(struct seat *s)
{
	unsigned at = seat_rand(s, 100), i;
	struct run r;

	run_pick(s, &r);
	for (i = 0; at >= turns[i].weight; i++)
		at -= turns[i].weight;
	turns[i].turn(s, &r);
}
