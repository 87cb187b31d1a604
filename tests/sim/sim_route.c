/* SPDX-License-Identifier: Apache-2.0 */
/* sim_route.c - an engine asks which node is best for a chain, while nodes and links come and go */
#include <errno.h>
#include <string.h>

#include "sim.h"

#define ROUTES 4u /* room for them: there are SIM_NODES */

void ask_route(struct sim_engine *e)
{
	const struct weft_arg_route arg = { .nr_routes = ROUTES };
	const struct sim_run run = sim_pick_run(e->sim);
	struct sim_op *op = engine_op(e, WEFT_OP_ROUTE, &run);
	struct weft_route routes[ROUTES] = { 0 };
	uint8_t *at;

	if (!op)
		return;
	at = sim_put_keys(engine_args(e, op), &run);
	memcpy(at, &arg, sizeof(arg));
	/* one that there never was, or all that there are */
	routes[0].node = sim_chance(e->sim, 10) ? 999 : 0;
	memcpy(at + sizeof(arg), routes, sizeof(routes));
	engine_submit(e, op, run.nr, 0);
}

/* each is said once, the asked one among them, and none has more than there is */
void route_done(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct weft_route routes[ROUTES];
	uint32_t i, self = 0, named = 0;

	memcpy(routes,
	       (uint8_t *)engine_args(e, op) + op->run.nr * sizeof(struct weft_key) +
		       sizeof(struct weft_arg_route),
	       sizeof(routes));
	if (cqe->res == -ENOMEM)
		return;
	if (cqe->res < 1 || cqe->res > (int32_t)ROUTES) {
		sim_fail(e->sim, "engine %u: a route has the result %d", e->idx, cqe->res);
		return;
	}
	for (i = 0; i < (uint32_t)cqe->res; i++) {
		const struct weft_route *w = &routes[i];

		self += w->node == e->session->node->id && w->flags & WEFT_ROUTE_SELF;
		named += w->node == 999;
		if ((uint64_t)w->nr_memory + w->nr_ssd + w->nr_fetch > op->run.nr ||
		    w->load > 1000 || (w->node == 999 && w->flags != WEFT_ROUTE_DEAD))
			sim_fail(e->sim, "engine %u: a route makes no sense", e->idx);
		if (w->nr_memory && w->node != e->session->node->id)
			e->sim->report->routed_afar++;
	}
	if (self != 1 && !named)
		sim_fail(e->sim, "engine %u: a route without its own node", e->idx);
}
