/* SPDX-License-Identifier: Apache-2.0 */
/* ops_find.c - operations that end at once: what is here, and who holds it */
#include <errno.h>

#include "ops.h"

int op_stat(struct op_ctx *c)
{
	struct weft_stat st;

	wfi_kv_stat(c->node->kv, c->s->tenant, &st);
	return wfi_ring_args_write(c->r->ring, c->sqe->arg_off, &st, sizeof(st));
}

int op_claim(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_slot);
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, len))
		return -EFAULT;
	ret = wfi_kv_claim(c->node->kv, &c->s->owner, c->sqe->space, c->sqe->nr, c->node->slots,
			   c->now_ns);
	if (ret < 0)
		return ret;
	wfi_ring_args_write(c->r->ring, c->sqe->arg_off, c->node->slots, len);
	return ret;
}

/* private copy of keys that stand first in the arguments */
int op_take_keys(struct op_ctx *c, uint64_t out_len)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_key);
	struct wfi_space_info space;
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, len + out_len))
		return -EFAULT;
	return wfi_ring_args_read(c->r->ring, c->sqe->arg_off, c->node->keys, len);
}

uint64_t op_after_keys(const struct op_ctx *c)
{
	return c->sqe->arg_off + c->sqe->nr * sizeof(struct weft_key);
}

/* blocks found one after the other, from the first on; checked where asked */
static int lookup_prefix(struct op_ctx *c, uint32_t nr, bool verify)
{
	int found, n;

	found = wfi_kv_prefix(c->node->kv, c->sqe->space, c->node->keys, nr, c->node->idx,
			      c->now_ns);
	for (n = 0; verify && n < found; n++)
		if (wfi_kv_verify(c->node->kv, c->node->idx[n]))
			return n;
	return found;
}

bool op_wants_verify(const struct op_ctx *c)
{
	struct wfi_space_info space;

	if (c->sqe->flags & WEFT_F_VERIFY)
		return true;
	return !wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space) && space.verify;
}

static int lease_prefix(struct op_ctx *c, uint32_t nr)
{
	if (!nr)
		return 0;
	return wfi_kv_lease(c->node->kv, &c->s->owner, c->node->idx, nr,
			    c->now_ns + c->node->lease_ns, &c->value);
}

/* of each key of a match whose first @n are held */
static void write_where(struct op_ctx *c, uint32_t n)
{
	const uint32_t nr = c->sqe->nr;

	for (uint32_t i = 0; i < nr; i++)
		c->node->idx[i] = i < n ? WEFT_TIER_DRAM : WEFT_TIER_NONE;
	wfi_ring_args_write(c->r->ring, op_after_keys(c), c->node->idx, nr * sizeof(uint32_t));
}

/* one pass: what is to be leased is found to be used, anything else in the index alone */
int op_match(struct op_ctx *c)
{
	const uint32_t nr = c->sqe->nr;
	int n, ret;

	ret = op_take_keys(c, c->sqe->flags & WEFT_F_WHERE ? nr * sizeof(uint32_t) : 0);
	if (ret)
		return ret;
	if (c->sqe->flags & WEFT_F_LEASE) {
		n = lookup_prefix(c, nr, false);
		ret = lease_prefix(c, (uint32_t)n);
		if (ret)
			return ret;
	} else {
		n = wfi_kv_match(c->node->kv, c->sqe->space, c->node->keys, nr, NULL);
	}
	if (c->sqe->flags & WEFT_F_WHERE)
		write_where(c, (uint32_t)n);
	return n;
}

int op_map(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_slot);
	int n, i, ret;

	ret = op_take_keys(c, len);
	if (ret)
		return ret;
	n = lookup_prefix(c, c->sqe->nr, op_wants_verify(c));
	ret = lease_prefix(c, (uint32_t)n);
	if (ret)
		return ret;
	for (i = 0; i < n; i++)
		wfi_kv_slot_ref(c->node->kv, c->node->idx[i], &c->node->slots[i]);
	wfi_ring_args_write(c->r->ring, op_after_keys(c), c->node->slots,
			    (uint64_t)n * sizeof(struct weft_slot));
	return n;
}

int op_release(struct op_ctx *c)
{
	int ret;

	if (c->sqe->handle)
		return wfi_kv_release(c->node->kv, &c->s->owner, c->sqe->handle);
	ret = wfi_ring_args_read(c->r->ring, c->sqe->arg_off, c->node->slots,
				 c->sqe->nr * sizeof(struct weft_slot));
	if (ret)
		return ret;
	return wfi_kv_unclaim(c->node->kv, &c->s->owner, c->node->slots, c->sqe->nr);
}

/* one tier so far: what is there is in the fastest one, and a touch keeps it there */
int op_prefetch(struct op_ctx *c)
{
	int ret = op_take_keys(c, 0);

	return ret ? ret : lookup_prefix(c, c->sqe->nr, false);
}

int op_drop(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(int32_t);
	int n, ret;

	ret = op_take_keys(c, len);
	if (ret)
		return ret;
	n = wfi_kv_drop(c->node->kv, c->sqe->space, c->node->keys, c->sqe->nr, c->node->results);
	if (n >= 0)
		wfi_ring_args_write(c->r->ring, op_after_keys(c), c->node->results, len);
	return n;
}
