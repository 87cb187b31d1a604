/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_route.h"
#include "route_json.h"
#include "value.h"

#define ROUTE_NS (2 * WFI_NSEC_PER_SEC)

struct http_route {
	struct node *node;
	struct wfi_route *route; /* the worker's; NULL: not under way */
	_Atomic bool over;
	int res;
	const struct wfi_tenant *tenant;
	struct wfi_space_info space;
	uint32_t tokens_per_block;
	unsigned nr_spaces; /* of that name */
	int ret;
	const char *unknown; /* node */
	struct weft_route routes[WEFT_ROUTES_MAX];
	char names[WEFT_ROUTES_MAX][64];
	struct http_query q;
};

struct http_route *http_route_create(struct node *node)
{
	struct http_route *r = calloc(1, sizeof(*r));

	if (r)
		r->node = node;
	return r;
}

void http_route_destroy(struct http_route *r)
{
	free(r);
}

struct http_query *http_route_query(struct http_route *r)
{
	return &r->q;
}

/* ---- in the worker ---- */

static bool is_named(const struct wfi_space_stat *st, const char *name)
{
	const size_t len = strlen(st->model);
	uint64_t id;

	if (!strcmp(name, st->model) || (!wfi_value_u64(name, &id) && id == st->id))
		return true;
	return !strncmp(name, st->model, len) && name[len] == ':' &&
	       !strcmp(name + len + 1, st->layout);
}

static void run_find(struct node *node, void *arg)
{
	struct http_route *r = arg;
	struct wfi_space_stat st;
	uint32_t at = 0, id = 0;

	while (!wfi_kv_space_stat(node->kv, &at, &st)) {
		if (st.tenant != r->tenant || !is_named(&st, r->q.space))
			continue;
		id = st.id;
		r->tokens_per_block = st.tokens_per_block;
		r->nr_spaces++;
	}
	if (r->nr_spaces == 1 && wfi_kv_space_get(node->kv, r->tenant, id, &r->space))
		r->nr_spaces = 0;
}

static void on_done(void *ctx, int res)
{
	struct http_route *r = ctx;

	r->res = res;
	r->route = NULL;
	/* pairs with the acquire in http_route_over() */
	atomic_store_explicit(&r->over, true, memory_order_release);
	node_poke(r->node);
}

/* Return: 0: nobody has that name */
static uint64_t node_id(const struct node *node, const char *name)
{
	uint64_t id;
	unsigned i;

	if (!strcmp(name, node->name))
		return node->id;
	for (i = 0; i < node->nr_peers; i++)
		if (node->peers[i]->connected && !strcmp(name, node->peers[i]->name))
			return node->peers[i]->base.node;
	return wfi_value_u64(name, &id) ? 0 : id;
}

static void run_begin(struct node *node, void *arg)
{
	struct http_route *r = arg;
	const struct wfi_route_opts o = {
		.space = r->space.id,
		.nr = r->q.nr_keys,
		.keys = r->q.keys,
		.block_us = r->q.block_us,
		.routes = r->routes,
		.nr_routes = r->q.nr_nodes ? r->q.nr_nodes : WEFT_ROUTES_MAX,
		.now_ns = wfi_now(node->env),
		.deadline_ns = wfi_now(node->env) + ROUTE_NS,
		.done = on_done,
		.ctx = r,
	};
	uint32_t i;

	for (i = 0; i < r->q.nr_nodes; i++) {
		r->routes[i].node = node_id(node, r->q.nodes[i]);
		if (!r->routes[i].node)
			r->unknown = r->q.nodes[i];
	}
	r->ret = r->unknown ? -EINVAL : node_route(node, &o, &r->route);
}

static void run_cancel(struct node *node, void *arg)
{
	struct http_route *r = arg;

	if (r->route)
		wfi_cluster_route_cancel(node->cluster, r->route);
}

static void run_names(struct node *node, void *arg)
{
	struct http_route *r = arg;
	unsigned k;
	int i;

	for (i = 0; i < r->res; i++) {
		if (r->routes[i].node == node->id)
			snprintf(r->names[i], sizeof(r->names[i]), "%s", node->name);
		for (k = 0; k < node->nr_peers; k++)
			if (node->peers[k]->base.node == r->routes[i].node)
				snprintf(r->names[i], sizeof(r->names[i]), "%s",
					 node->peers[k]->name);
	}
}

/* ---- in the control thread ---- */

/* Return: 0, -EINVAL */
static int keys_make(struct http_route *r, char why[HTTP_WHY])
{
	struct wfi_keyer keyer = { .tokens_per_block = r->tokens_per_block };
	const uint32_t per = r->tokens_per_block;
	const uint32_t nr = per ? r->q.nr_tokens / per : 0;
	uint32_t i;

	if (!nr || nr > HTTP_KEYS_MAX) {
		snprintf(why, HTTP_WHY,
			 "tokens: a block of this space has %u of them, and a chain 1 to %u blocks",
			 per, HTTP_KEYS_MAX);
		return -EINVAL;
	}
	memcpy(keyer.secret, r->space.secret, sizeof(keyer.secret));
	for (i = 0; i < nr; i++) {
		const struct weft_key none = { 0, 0 };

		wfi_key_block(&keyer, i ? &r->q.keys[i - 1] : &none, r->q.tokens + (size_t)i * per,
			      &r->q.keys[i]);
	}
	r->q.nr_keys = nr;
	return 0;
}

int http_route_begin(struct http_route *r, const struct wfi_tenant *tenant, char why[HTTP_WHY])
{
	r->tenant = tenant;
	node_call(r->node, run_find, r);
	if (r->nr_spaces != 1) {
		snprintf(why, HTTP_WHY,
			 r->nr_spaces
				 ? "%u spaces have this name: say MODEL:LAYOUT, or the id that "
				   "weft ls --json shows"
				 : "no space of this tenant has this name: weft ls shows them",
			 r->nr_spaces);
		return r->nr_spaces ? -EINVAL : -ENOENT;
	}
	if (r->q.nr_tokens && keys_make(r, why))
		return -EINVAL;
	node_call(r->node, run_begin, r);
	if (r->unknown)
		snprintf(why, HTTP_WHY, "nodes: \"%s\" is neither connected nor an id", r->unknown);
	else if (r->ret)
		snprintf(why, HTTP_WHY, "the node can't say: %s", strerror(-r->ret));
	return r->ret;
}

bool http_route_over(const struct http_route *r)
{
	/* pairs with the release in on_done() */
	return atomic_load_explicit(&r->over, memory_order_acquire);
}

void http_route_cancel(struct http_route *r)
{
	node_call(r->node, run_cancel, r);
}

json_t *http_route_json(struct http_route *r)
{
	json_t *list = json_array();
	int i;

	if (r->res < 0) {
		json_decref(list);
		return json_pack("{s:s}", "error", "the node stops");
	}
	node_call(r->node, run_names, r);
	for (i = 0; i < r->res; i++)
		json_array_append_new(list, route_json(&r->routes[i], r->names[i]));
	return json_pack("{s:I, s:o}", "blocks", (json_int_t)r->q.nr_keys, "nodes", list);
}
