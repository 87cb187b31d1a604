/* SPDX-License-Identifier: Apache-2.0 */
/* client_call.c - the blocking calls: one operation, or a few, and the wait for them */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include "ring/client_priv.h"

#define CHUNK 256u /* blocks a round of weft_put() and weft_get(): their slots lie on the stack */
#define KEYS_CHUNK 16384u

/* ---- one operation ---- */

static int submit_alone(struct weft_ring *ring, const struct weft_op *op)
{
	struct weft_completion none;
	int ret;

	/* nothing is open, so a full queue is one whose head the node shows in a moment */
	do
		ret = weft_submit(ring, op, 1);
	while (ret == -EAGAIN && !weft_poll(ring, &none, 1));
	return ret;
}

static int call_once(struct weft_ring *ring, const struct weft_op *op, struct weft_completion *out)
{
	int ret;

	if (ring->nr_open)
		return wfi_client_fail(-EBUSY, "other operations of this ring are open: take their "
					       "completions first, or open a ring for such calls");
	ret = submit_alone(ring, op);
	if (ret < 0)
		return ret;
	do {
		ret = weft_wait(ring, out, 1, 0);
		if (ret < 0)
			return ret;
	} while (out->flags & WEFT_CQE_MORE);
	/* a peer may be gone, too */
	if (out->res == -ECONNRESET && !wfi_client_alive(ring->w))
		return wfi_client_gone();
	return out->res < 0 ? wfi_client_fail(out->res, weft_completion_why(out)) : out->res;
}

/* Return: whether to try once more what ended with @ret */
static bool attached_again(struct weft_ring *ring, int ret)
{
	return ret == -ECONNRESET && __atomic_load_n(&ring->w->nr_rings, __ATOMIC_RELAXED) == 1 &&
	       !weft_reattach(ring->w);
}

/* slots, leases and tickets are of one life of the node: what names them is not said to another */
static bool names_a_life(const struct weft_op *op)
{
	return op->op == WEFT_OP_RELEASE ||
	       (op->op >= WEFT_OP_HANDOFF_EXPECT && op->op <= WEFT_OP_CHANNEL_CLOSE) ||
	       (op->op == WEFT_OP_PUT && !(op->flags & WEFT_F_COPY));
}

int weft_call(struct weft_ring *ring, const struct weft_op *op, struct weft_completion *out)
{
	struct weft_completion own;
	int ret;

	if (!out)
		out = &own;
	ret = call_once(ring, op, out);
	if (!names_a_life(op) && attached_again(ring, ret))
		ret = call_once(ring, op, out);
	return ret;
}

/* Return: 0, -EINVAL */
static int arrays_check(const void *array, unsigned nr)
{
	if (nr <= INT_MAX && (array || !nr))
		return 0;
	return wfi_client_fail(-EINVAL, "an array is NULL, or has more than INT_MAX elements");
}

/* ---- blocks in ---- */

/* a slot that the node names, as memory. NULL: not in the arena */
static void *slot_addr(const struct weft_space *space, const struct weft_slot *slot)
{
	const struct weft *w = space->w;

	if (!wfi_range_ok(slot->off, space->block_bytes, w->arena_bytes))
		return NULL;
	return (char *)weft_arena(w) + slot->off;
}

/* as many as can be had, at most @nr. Return: how many */
static int claim_some(struct weft_ring *ring, const struct weft_space *space, uint32_t nr,
		      struct weft_slot *slots)
{
	struct weft_op op = { .op = WEFT_OP_CLAIM, .space = space, .nr = nr, .slots = slots };
	struct weft_completion cpl;
	int ret = call_once(ring, &op, &cpl);

	while (ret == -ENOSPC && op.nr > 1) {
		op.nr = (op.nr + 1) / 2;
		ret = call_once(ring, &op, &cpl);
	}
	return ret < 0 ? ret : (int)op.nr;
}

static int unclaim(struct weft_ring *ring, const struct weft_space *space, uint32_t nr,
		   struct weft_slot *slots, int why)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .space = space, .nr = nr, .slots = slots };
	struct weft_completion cpl;
	int ret = call_once(ring, &op, &cpl);

	return ret == -ECONNRESET ? ret : why;
}

/* Return: how many of the first blocks are held; when none is, what became of it */
static int held_prefix(const int32_t *results, uint32_t nr)
{
	const struct weft_completion first = { .op = WEFT_OP_PUT, .res = results[0] };
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (results[i] < 0 && results[i] != -EEXIST)
			break;
	return i ? (int)i : wfi_client_fail(results[0], weft_completion_why(&first));
}

/* Return: how many of the first blocks are held now, at least 1 */
static int put_some(struct weft_ring *ring, const struct weft_space *space,
		    const struct weft_key *parent, const struct weft_key *keys, uint32_t nr,
		    const void *const *bufs)
{
	struct weft_slot slots[CHUNK];
	int32_t results[CHUNK];
	struct weft_op op = { .op = WEFT_OP_PUT,
			      .space = space,
			      .parent = parent,
			      .keys = keys,
			      .slots = slots,
			      .results = results };
	struct weft_completion cpl;
	uint32_t i;
	int ret = claim_some(ring, space, nr, slots);

	if (ret < 0)
		return ret;
	op.nr = (uint32_t)ret;
	for (i = 0; i < op.nr; i++) {
		void *to = slot_addr(space, &slots[i]);

		if (!to)
			return unclaim(ring, space, op.nr, slots,
				       wfi_client_fail(-EPROTO,
						       "the node gave a slot outside of the "
						       "arena"));
		memcpy(to, bufs[i], space->block_bytes);
	}
	ret = call_once(ring, &op, &cpl);
	if (ret >= 0)
		ret = held_prefix(results, op.nr);
	/* a claim goes with its block's publication, and with nothing else */
	if (ret != (int)op.nr && ret != -ECONNRESET)
		ret = unclaim(ring, space, op.nr, slots, ret);
	return ret;
}

static int put_all(struct weft_ring *ring, const struct weft_space *space,
		   const struct weft_key *parent, const struct weft_key *keys, unsigned nr,
		   const void *const *bufs)
{
	unsigned done = 0;

	while (done < nr) {
		unsigned want = nr - done < CHUNK ? nr - done : CHUNK;
		int ret = put_some(ring, space, done ? &keys[done - 1] : parent, keys + done, want,
				   bufs + done);

		if (ret < 0)
			return done && ret != -ECONNRESET ? (int)done : ret;
		done += (unsigned)ret;
	}
	return (int)done;
}

int weft_put(struct weft_ring *ring, const struct weft_space *space, const struct weft_key *parent,
	     const struct weft_key *keys, unsigned nr, const void *const *bufs)
{
	int ret = arrays_check(bufs, nr);

	if (!ret)
		ret = put_all(ring, space, parent, keys, nr, bufs);
	if (attached_again(ring, ret))
		ret = put_all(ring, space, parent, keys, nr, bufs);
	return ret;
}

/* ---- blocks out ---- */

static int map_once(struct weft_ring *ring, const struct weft_space *space,
		    const struct weft_key *keys, unsigned nr, struct weft_slot *slots,
		    uint64_t *lease, uint8_t flags)
{
	const struct weft_op op = { .op = WEFT_OP_MAP,
				    .flags = flags,
				    .space = space,
				    .keys = keys,
				    .nr = nr,
				    .slots = slots };
	struct weft_completion cpl;
	int ret = call_once(ring, &op, &cpl);

	if (ret >= 0)
		*lease = cpl.handle;
	return ret;
}

static int release_once(struct weft_ring *ring, uint64_t lease)
{
	const struct weft_op op = { .op = WEFT_OP_RELEASE, .handle = lease };
	struct weft_completion cpl;

	return call_once(ring, &op, &cpl);
}

/* the first @skip blocks were copied before. Return: how many of the first blocks are copied */
static int get_some(struct weft_ring *ring, const struct weft_space *space,
		    const struct weft_key *keys, uint32_t nr, uint32_t skip, void *const *bufs)
{
	struct weft_slot slots[CHUNK];
	uint64_t lease;
	bool bad = false;
	int held = map_once(ring, space, keys, nr, slots, &lease, WEFT_F_VERIFY);
	int i, ret;

	if (held <= 0)
		return held;
	for (i = (int)skip; i < held && !bad; i++) {
		const void *from = slot_addr(space, &slots[i]);

		bad = !from;
		if (from)
			memcpy(bufs[i], from, space->block_bytes);
	}
	ret = release_once(ring, lease);
	if (bad)
		return wfi_client_fail(-EPROTO, "the node gave a slot outside of the arena");
	/* the lease ended while we copied: the slots may have been written meanwhile */
	if (ret == -ENOENT)
		return 0;
	return ret < 0 ? ret : held;
}

static int get_all(struct weft_ring *ring, const struct weft_space *space,
		   const struct weft_key *keys, unsigned nr, void *const *bufs)
{
	unsigned done = 0;

	while (done < nr) {
		/* by the block before them the node knows where more of their chain is */
		const unsigned before = done ? 1 : 0;
		const unsigned from = done - before;
		const unsigned want = nr - from < CHUNK ? nr - from : CHUNK;
		int ret = get_some(ring, space, keys + from, want, before, bufs + from);

		if (ret < 0)
			return ret;
		if ((unsigned)ret > before)
			done = from + (unsigned)ret;
		if ((unsigned)ret < want)
			break;
	}
	return (int)done;
}

int weft_get(struct weft_ring *ring, const struct weft_space *space, const struct weft_key *keys,
	     unsigned nr, void *const *bufs)
{
	int ret = arrays_check(bufs, nr);

	if (!ret)
		ret = get_all(ring, space, keys, nr, bufs);
	if (attached_again(ring, ret))
		ret = get_all(ring, space, keys, nr, bufs);
	return ret;
}

int weft_map(struct weft_ring *ring, const struct weft_space *space, const struct weft_key *keys,
	     unsigned nr, struct weft_slot *slots, uint64_t *lease)
{
	int ret = map_once(ring, space, keys, nr, slots, lease, 0);

	if (attached_again(ring, ret))
		ret = map_once(ring, space, keys, nr, slots, lease, 0);
	return ret;
}

int weft_release(struct weft_ring *ring, uint64_t lease)
{
	int ret;

	if (!lease)
		return 0;
	ret = release_once(ring, lease);
	/* it went with its node */
	return attached_again(ring, ret) ? 0 : ret;
}

/* ---- keys only ---- */

/* MATCH or DROP in as many rounds as the argument area asks for. Return: the sum of their res */
static int keys_call(struct weft_ring *ring, const struct weft_op *proto, unsigned nr, bool prefix)
{
	uint32_t room = wfi_args_max(&ring->args) / (sizeof(struct weft_key) + sizeof(int32_t));
	uint32_t chunk = room < KEYS_CHUNK ? room : KEYS_CHUNK;
	unsigned done = 0;
	int sum = 0, ret = arrays_check(proto->keys, nr);

	if (ret)
		return ret;
	while (done < nr) {
		/* as in get_all() */
		const unsigned before = prefix && done ? 1 : 0;
		struct weft_op op = *proto;

		op.keys = proto->keys + done - before;
		op.nr = nr - done + before < chunk ? nr - done + before : chunk;
		ret = weft_call(ring, &op, NULL);
		if (ret < 0)
			return ret;
		sum += ret > (int)before ? ret - (int)before : 0;
		done += op.nr - before;
		if (prefix && (unsigned)ret < op.nr)
			break;
	}
	return sum;
}

int weft_match(struct weft_ring *ring, const struct weft_space *space, const struct weft_key *keys,
	       unsigned nr)
{
	const struct weft_op op = { .op = WEFT_OP_MATCH, .space = space, .keys = keys };

	return keys_call(ring, &op, nr, true);
}

int weft_route(struct weft_ring *ring, const struct weft_space *space, const struct weft_key *keys,
	       unsigned nr, uint32_t block_us, struct weft_route *routes, unsigned nr_routes)
{
	const struct weft_op op = { .op = WEFT_OP_ROUTE,
				    .space = space,
				    .keys = keys,
				    .nr = nr,
				    .block_us = block_us,
				    .routes = routes,
				    .nr_routes = nr_routes };

	return weft_call(ring, &op, NULL);
}

int weft_drop(struct weft_ring *ring, const struct weft_space *space, const struct weft_key *keys,
	      unsigned nr)
{
	const struct weft_op op = { .op = WEFT_OP_DROP, .space = space, .keys = keys };

	return keys_call(ring, &op, nr, false);
}
