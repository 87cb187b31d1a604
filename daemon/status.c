/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - what weft status and weft ls show, as JSON */
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "node.h"

static json_t *hex(uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)v);
	return json_string(text);
}

static json_t *tenants_json(struct node *node)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < node->nr_tenants; i++) {
		const struct wfi_map *arena = wfi_tenant_arena(node->tenants[i]);
		struct weft_stat st;

		wfi_kv_stat(node->kv, node->tenants[i], &st);
		json_array_append_new(
			list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name",
					wfi_tenant_name(node->tenants[i]), "arena_bytes",
					(json_int_t)st.arena_bytes, "page_bytes",
					(json_int_t)arena->page_bytes, "slots_total",
					(json_int_t)st.slots_total, "slots_free",
					(json_int_t)st.slots_free, "slots_filling",
					(json_int_t)st.slots_filling, "slots_leased",
					(json_int_t)st.slots_leased, "slots_quarantined",
					(json_int_t)st.slots_quarantined, "blocks_held",
					(json_int_t)st.blocks_held));
	}
	return list;
}

static json_t *engines_json(struct node *node)
{
	json_t *list = json_array();
	unsigned i, k, rings, regions;

	for (i = 0; i < node->nr_sessions; i++) {
		struct session *s = node->sessions[i];

		rings = regions = 0;
		for (k = 0; k < SESSION_RINGS_MAX; k++)
			rings += s->rings[k] != NULL;
		for (k = 1; k < SESSION_REGIONS_MAX; k++)
			regions += s->regions[k].rkey != NULL;
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:i, s:i, s:i}", "pid",
						      (int)s->pid, "name", s->name, "tenant",
						      wfi_tenant_name(s->tenant), "rings",
						      (int)rings, "regions", (int)regions, "claims",
						      (int)s->owner.nr_claims));
	}
	return list;
}

static json_t *peers_json(struct node *node)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < node->nr_peers; i++) {
		struct node_peer *p = node->peers[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", p->name, "socket",
						      p->socket, "state",
						      p->connected ? "connected" : "connecting"));
	}
	return list;
}

static json_t *slow_paths_json(struct node *node)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < node->nr_tenants; i++)
		if (wfi_tenant_arena(node->tenants[i])->page_bytes < (2u << 20)) {
			json_array_append_new(
				list,
				json_pack("{s:s, s:s}", "what", "small pages", "why",
					  "the arena has no huge pages: set prefault = true, or "
					  "reserve some (vm.nr_hugepages); weft doctor says how"));
			break;
		}
	return list;
}

char *node_status_json(struct node *node)
{
	json_t *root;
	char *text;

	root = json_pack("{s:{s:s, s:o, s:o, s:s, s:I, s:i, s:b}, s:o, s:o, s:o, s:o}", "node",
			 "name", node->name, "id", hex(node->id), "incarnation",
			 hex(wfi_kv_incarnation(node->kv)), "version", WEFT_VERSION, "uptime_s",
			 (json_int_t)((wfi_now(node->env) - node->start_ns) / WFI_NSEC_PER_SEC),
			 "pid", (int)getpid(), "draining", (int)node->draining, "slow_paths",
			 slow_paths_json(node), "tenants", tenants_json(node), "engines",
			 engines_json(node), "peers", peers_json(node));
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}

static void space_append(void *ctx, const struct wfi_space_stat *st)
{
	json_array_append_new(
		ctx, json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:I, s:I}", "tenant", st->tenant,
			       "model", st->model, "layout", st->layout, "block_bytes",
			       (json_int_t)st->block_bytes, "tokens_per_block",
			       (int)st->tokens_per_block, "layers", (int)st->nr_layers, "blocks",
			       (json_int_t)st->blocks, "slots", (json_int_t)st->slots));
}

char *node_ls_json(struct node *node)
{
	json_t *list = json_array(), *root;
	char *text;

	wfi_kv_for_each_space(node->kv, space_append, list);
	root = json_pack("{s:o}", "spaces", list);
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}
