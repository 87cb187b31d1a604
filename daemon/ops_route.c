/* SPDX-License-Identifier: Apache-2.0 */
/* ops_route.c - which node is best for a chain */
#include <errno.h>

#include "ops.h"

/* Return: blocks of the SSD tier among those behind the first @n; *@end: of the prefix */
static uint32_t here_below(struct node *node, const struct wfi_route_opts *o, uint32_t n,
			   uint32_t *end)
{
	uint32_t i, nr = 0;

	*end = n;
	if (n == o->nr || !wfi_kv_has_tier(node->kv))
		return 0;
	*end = (uint32_t)wfi_kv_match_tiers(node->kv, o->space, o->keys, o->nr, n, node->where,
					    NULL);
	for (i = n; i < *end; i++)
		nr += WEFT_WHERE_TIER(node->where[i]) == WEFT_TIER_SSD;
	return nr;
}

int node_route(struct node *node, const struct wfi_route_opts *opts, struct wfi_route **out)
{
	struct wfi_route_opts o = *opts;
	uint32_t end;

	end = (uint32_t)wfi_kv_match(node->kv, o.space, o.keys, o.nr, NULL);
	o.here_ssd = here_below(node, &o, end, &end);
	o.here_memory = end - o.here_ssd;
	return wfi_cluster_route(node->cluster, &o, out);
}

static void op_routes_free(struct node_op *op)
{
	wfi_free(op->session->node->env, op->routes, op->nr_routes * sizeof(*op->routes));
}

static void route_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	const uint64_t off =
		op->sqe.arg_off + op->nr * sizeof(struct weft_key) + sizeof(struct weft_arg_route);

	op->route = NULL;
	if (op->ring && res > 0)
		wfi_ring_args_write(op->ring->ring, off, op->routes,
				    (uint32_t)res * sizeof(*op->routes));
	op_routes_free(op);
	op_complete(op, res, 0);
}

/* Return: 0 with .nr_routes and .routes, read; negative errno */
static int routes_take(struct op_ctx *c, const struct weft_arg_route *arg, struct node_op *op)
{
	const size_t len = arg->nr_routes * sizeof(*op->routes);
	const uint64_t off = op_after_keys(c) + sizeof(*arg);
	int ret;

	op->routes = wfi_alloc(c->node->env, len);
	if (!op->routes)
		return -ENOMEM;
	op->nr_routes = arg->nr_routes;
	ret = wfi_ring_args_read(c->r->ring, off, op->routes, len);
	if (ret)
		op_routes_free(op);
	return ret;
}

int op_route(struct op_ctx *c)
{
	struct weft_arg_route arg;
	struct wfi_space_info space;
	struct wfi_route_opts o = { .space = c->sqe->space,
				    .nr = c->sqe->nr,
				    .keys = c->node->keys,
				    .now_ns = c->now_ns,
				    .deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
				    .done = route_done };
	struct node_op *op;
	int ret;

	ret = op_take_keys(c, sizeof(arg), &space);
	if (!ret)
		ret = wfi_ring_args_read(c->r->ring, op_after_keys(c), &arg, sizeof(arg));
	if (ret)
		return ret;
	if (!arg.nr_routes || arg.nr_routes > WEFT_ROUTES_MAX)
		return -EINVAL;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	ret = routes_take(c, &arg, op);
	if (ret)
		goto err_close;
	o.block_us = arg.block_us;
	o.routes = op->routes;
	o.nr_routes = op->nr_routes;
	o.ctx = op;
	ret = node_route(c->node, &o, &op->route);
	if (!ret)
		return OP_OPEN;
	op_routes_free(op);
err_close:
	op_close(op);
	return ret;
}
