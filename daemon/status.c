/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - what weft status and weft ls show, as JSON */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/tier_gpu.h"

#define STAT_SLICE 4u /* spaces: some 10 us each */

static json_t *hex(uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)v);
	return json_string(text);
}

/* names come from engines and peers: in whatever bytes, of which JSON takes UTF-8 */
static json_t *text(const char *name)
{
	json_t *json = json_string(name);
	char plain[WEFT_NAME_MAX];
	size_t i;

	for (i = 0; !json && i < sizeof(plain) - 1 && name[i]; i++)
		plain[i] = name[i] < ' ' || name[i] > '~' ? '?' : name[i];
	plain[json ? 0 : i] = 0;
	return json ? json : json_string(plain);
}

static json_t *tenant_json(struct node *node, const struct wfi_tenant *t)
{
	const struct wfi_map *arena = wfi_tenant_arena(t);
	struct wfi_tenant_share share;
	struct weft_stat st;
	json_t *json;

	wfi_kv_stat(node->kv, t, &st);
	wfi_tenant_share(t, &share);
	json = json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "name", text(wfi_tenant_name(t)),
			 "arena_bytes", (json_int_t)st.arena_bytes, "used_bytes",
			 (json_int_t)share.used_bytes, "floor_bytes", (json_int_t)share.floor_bytes,
			 "weight", (json_int_t)share.weight, "page_bytes",
			 (json_int_t)arena->page_bytes);
	json_object_update_new(json, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "slots_total",
					       (json_int_t)st.slots_total, "slots_free",
					       (json_int_t)st.slots_free, "slots_filling",
					       (json_int_t)st.slots_filling, "slots_leased",
					       (json_int_t)st.slots_leased, "slots_quarantined",
					       (json_int_t)st.slots_quarantined, "blocks_held",
					       (json_int_t)st.blocks_held));
	return json;
}

static json_t *tenants_json(struct node *node, const struct wfi_tenant *only)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < node->nr_tenants; i++)
		if (!only || only == node->tenants[i])
			json_array_append_new(list, tenant_json(node, node->tenants[i]));
	return list;
}

static json_t *engines_json(struct node *node, const struct wfi_tenant *only)
{
	json_t *list = json_array();
	unsigned i, k, rings, regions;

	for (i = 0; i < node->nr_sessions; i++) {
		struct session *s = node->sessions[i];

		if (only && only != s->tenant)
			continue;
		rings = regions = 0;
		for (k = 0; k < SESSION_RINGS_MAX; k++)
			rings += s->rings[k] != NULL;
		for (k = 1; k < SESSION_REGIONS_MAX; k++)
			regions += s->regions[k].rkey != NULL;
		json_array_append_new(list, json_pack("{s:i, s:o, s:o, s:i, s:i, s:i}", "pid",
						      (int)s->pid, "name", text(s->name), "tenant",
						      text(wfi_tenant_name(s->tenant)), "rings",
						      (int)rings, "regions", (int)regions, "claims",
						      (int)s->owner.nr_claims));
	}
	return list;
}

static const char *peer_state(const struct node_peer *p)
{
	return p->draining ? "draining" : "connected";
}

/* those that are there; @dials: those that are not, handed over */
static json_t *peers_json(struct node *node, json_t *dials)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < node->nr_peers; i++) {
		struct node_peer *p = node->peers[i];

		if (!p->connected)
			continue;
		json_array_append_new(
			list, json_pack("{s:o, s:o, s:o, s:s, s:s}", "name", text(p->name), "id",
					hex(p->base.node), "address", text(p->addr), "transport",
					p->link->transport->name, "state", peer_state(p)));
	}
	json_array_extend(list, dials);
	json_decref(dials);
	return list;
}

static json_t *tiers_json(struct node *node)
{
	static const char *const kinds[WFI_TIER_NR_BAD] = { "header", "body",  "read",
							    "write",  "short", "space" };
	json_t *list = json_array(), *bad = json_object();
	struct wfi_tier_stat st;
	const char *name;

	if (wfi_kv_tier_stat(node->kv, &name, &st)) {
		if (*node->tier_why)
			json_array_append_new(list,
					      json_pack("{s:s, s:s, s:s}", "name", "ssd", "state",
							"off", "why", node->tier_why));
		json_decref(bad);
		return list;
	}
	for (unsigned i = 0; i < WFI_TIER_NR_BAD; i++)
		json_object_set_new(bad, kinds[i], json_integer((json_int_t)st.bad[i]));
	json_array_append_new(
		list,
		json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
			  "s:I, s:o}",
			  "name", name, "state", wfi_tier_state_name(st.state), "why", st.why,
			  "bytes", (json_int_t)st.bytes, "file_bytes", (json_int_t)st.file_bytes,
			  "file_bytes_wanted", (json_int_t)st.want_bytes, "bytes_held",
			  (json_int_t)st.bytes_held, "blocks", (json_int_t)st.blocks, "leased",
			  (json_int_t)st.leased, "retired", (json_int_t)st.retired, "evicted",
			  (json_int_t)st.evicted, "read_bytes_per_s", (json_int_t)st.read_bps,
			  "write_bytes_per_s", (json_int_t)st.write_bps, "recovered",
			  (json_int_t)st.recovered, "recover_us",
			  (json_int_t)(st.recover_ns / WFI_NSEC_PER_USEC), "bad", bad));
	return list;
}

static json_t *gpu_tier_json(const struct node_gpu_tier *t)
{
	struct wfi_tier_gpu_stat st;
	json_t *json;

	if (!t->tier)
		return json_pack("{s:s, s:s, s:s}", "name", "gpu", "state", "off", "why", t->why);
	wfi_tier_gpu_stat(t->tier, &st);
	json = json_pack("{s:s, s:i, s:s, s:s}", "name", "gpu", "gpu", t->memory.ordinal, "state",
			 wfi_tier_state_name(st.state), "why",
			 st.state == WFI_TIER_OK ? "" : "the GPU, or the way to it, has failed");
	json_object_update_new(
		json, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "bytes",
				(json_int_t)st.bytes, "memory_bytes", (json_int_t)t->memory.len,
				"memory_bytes_wanted", (json_int_t)t->want, "bytes_held",
				(json_int_t)st.bytes_held, "blocks", (json_int_t)st.copies, "hits",
				(json_int_t)st.hits, "hit_bytes", (json_int_t)st.hit_bytes, "kept",
				(json_int_t)st.kept, "evicted", (json_int_t)st.evicted, "bad",
				(json_int_t)st.bad));
	return json;
}

static json_t *gpu_tiers_json(struct node *node)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < node->nr_gpu_tiers; i++)
		if (node->gpu_tiers[i]->tier || node->gpu_tier_bytes)
			json_array_append_new(list, gpu_tier_json(node->gpu_tiers[i]));
	return list;
}

/* regions on a GPU, of engines that are there. Return: how many; *@direct: that a NIC reaches */
static unsigned gpu_regions(const struct node *node, unsigned gpu, unsigned *direct)
{
	unsigned i, k, nr = 0;

	*direct = 0;
	for (i = 0; i < node->nr_sessions; i++)
		for (k = 1; k < SESSION_REGIONS_MAX; k++) {
			const struct region *r = &node->sessions[i]->regions[k];

			if (!r->rkey || r->gpu != gpu + 1)
				continue;
			nr++;
			*direct += r->direct != NULL;
		}
	return nr;
}

static json_t *paths_json(const struct node *node, const struct node_gpu *g)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < node->nr_nets; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s}", "nic", g->paths[i].nic, "path",
						g->paths[i].direct ? "direct" : "staged", "why",
						g->paths[i].why));
	return list;
}

static json_t *gpus_json(const struct node *node)
{
	json_t *list = json_array();
	unsigned i, nr, direct;

	for (i = 0; i < node->nr_gpus; i++) {
		const struct node_gpu *g = &node->gpus[i];

		nr = gpu_regions(node, i, &direct);
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:i, s:i, s:o}", "gpu",
						      g->ordinal, "pci", g->pci, "state",
						      g->needs_restart ? "restart"
						      : g->lost	       ? "lost"
								       : "ok",
						      "regions", (int)nr, "direct", (int)direct,
						      "nics", paths_json(node, g)));
	}
	return list;
}

__attribute__((format(printf, 3, 4))) static void slow(json_t *list, const char *why,
						       const char *fmt, ...)
{
	char what[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	json_array_append_new(list, json_pack("{s:s, s:s}", "what", what, "why", why));
}

/* those that NICs can't reach, though there is one, and those that are gone */
static void slow_gpus(const struct node *node, json_t *list)
{
	unsigned i, k, nr, direct;

	for (i = 0; i < node->nr_gpus; i++) {
		const struct node_gpu *g = &node->gpus[i];

		nr = gpu_regions(node, i, &direct);
		if (g->lost)
			slow(list,
			     g->needs_restart ? "it failed in a way that only a new process gets "
						"over: see the log, and dmesg for Xid; restart the "
						"node"
					      : "it failed, and so did all regions there: see the "
						"log, dmesg for Xid, and nvidia-smi; the next "
						"region that is registered opens it anew",
			     "gpu %d is lost", g->ordinal);
		for (k = 0; k < node->nr_nets && !g->paths[k].direct; k++)
			;
		if (k < node->nr_nets && direct < nr)
			slow(list,
			     "some regions have no dma-buf, or it was refused: see the log, and "
			     "weft doctor",
			     "gpu %d by host memory", g->ordinal);
		else if (k && k == node->nr_nets && nr)
			slow(list, g->paths[0].why, "gpu %d by host memory", g->ordinal);
	}
	for (i = 0; i < node->gpu.nr_arenas; i++)
		if (__atomic_load_n(&node->gpu.arenas[i]->slow, __ATOMIC_RELAXED)) {
			slow(list,
			     "the driver could not pin all arenas, so that what goes to and from "
			     "GPUs is copied once more: raise ulimit -l (LimitMEMLOCK=infinity), "
			     "restart the node",
			     "host memory that is not pinned");
			break;
		}
}

static json_t *slow_paths_json(struct node *node)
{
	json_t *list = json_array();
	unsigned i;

	slow_gpus(node, list);

	for (i = 0; i < node->nr_tenants; i++)
		if (wfi_tenant_arena(node->tenants[i])->page_bytes < (2u << 20)) {
			json_array_append_new(
				list,
				json_pack("{s:s, s:s}", "what", "small pages", "why",
					  "the arena has no huge pages: set prefault = true, or "
					  "reserve some (vm.nr_hugepages); weft doctor says how"));
			break;
		}
	for (i = 0; i < node->nr_nets; i++)
		if (node->net_fell_back ||
		    (node->nets[i].dev && node->nets[i].dev->caps.flags & WEFT_CAP_FELL_BACK)) {
			json_array_append_new(
				list, json_pack("{s:s, s:s}", "what", "TCP", "why",
						"nodes on other hosts are reached over TCP for "
						"want of RDMA: weft doctor says why"));
			break;
		}
	return list;
}

char *node_status_json(struct node *node, const struct wfi_tenant *only, json_t *dials,
		       json_t *network)
{
	const uint64_t up_ns = wfi_now(node->env) - node->start_ns;
	json_t *root;
	char *dump;

	root = json_pack(
		"{s:{s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:i, s:b}, s:o, s:o, s:o, s:o, s:o}",
		"node", "name", text(node->name), "id", hex(node->id), "incarnation",
		hex(wfi_kv_incarnation(node->kv)), "version", WEFT_VERSION, "policy",
		wfi_kv_policy(node->kv), "uptime_s", (json_int_t)(up_ns / WFI_NSEC_PER_SEC),
		"uptime_ms", (json_int_t)(up_ns / WFI_NSEC_PER_MSEC), "pid", (int)getpid(),
		"draining", (int)node->draining, "slow_paths", slow_paths_json(node), "tenants",
		tenants_json(node, only), "engines", engines_json(node, only), "peers",
		peers_json(node, dials), "tiers", only ? json_array() : tiers_json(node));
	if (root) {
		json_object_set_new(root, "gpu_tiers", only ? json_array() : gpu_tiers_json(node));
		json_object_set_new(root, "gpus", only ? json_array() : gpus_json(node));
	}
	if (network)
		json_object_set_new(root, "network", network);
	dump = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return dump;
}

/* what each list of spaces begins with */
static json_t *space_json(const struct wfi_space_stat *st)
{
	return json_pack("{s:I, s:o, s:o, s:o, s:I, s:i, s:i, s:i, s:I, s:I}", "id",
			 (json_int_t)st->id, "tenant", text(wfi_tenant_name(st->tenant)), "model",
			 text(st->model), "layout", text(st->layout), "block_bytes",
			 (json_int_t)st->block_bytes, "tokens_per_block", (int)st->tokens_per_block,
			 "layers", (int)st->nr_layers, "dtype", (int)st->dtype, "blocks",
			 (json_int_t)st->blocks, "slots", (json_int_t)st->slots);
}

char *node_ls_json(struct node *node, const struct wfi_tenant *only)
{
	json_t *list = json_array(), *root;
	struct wfi_space_stat st;
	char *dump;
	uint32_t at = 0;

	while (!wfi_kv_space_stat(node->kv, &at, &st))
		if (!only || only == st.tenant)
			json_array_append_new(list, space_json(&st));
	root = json_pack("{s:o}", "spaces", list);
	dump = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return dump;
}

/* ---- weft stat ---- */

static json_t *hist_json(const struct wfi_hist *h)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "count", (json_int_t)h->nr, "mean_ns",
			 (json_int_t)(h->nr ? h->sum / h->nr : 0), "p50_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.5), "p90_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.9), "p99_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.99), "max_ns", (json_int_t)h->max);
}

static json_t *figures_json(const struct wfi_space_stat *st)
{
	json_t *json = space_json(st);

	json_object_update_new(json,
			       json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
					 "slots_free", (json_int_t)st->slots_free, "slots_room",
					 (json_int_t)st->slots_room, "slots_filling",
					 (json_int_t)st->slots_filling, "slots_quarantined",
					 (json_int_t)st->slots_quarantined, "slots_pinned",
					 (json_int_t)st->slots_pinned, "puts", (json_int_t)st->puts,
					 "evicted", (json_int_t)st->evicted, "hits",
					 (json_int_t)st->hits, "misses", (json_int_t)st->misses));
	json_object_set_new(json, "lifetime", hist_json(st->lifetime));
	json_object_set_new(json, "idle_before_eviction", hist_json(st->idle));
	json_object_set_new(json, "reuse_gap", hist_json(st->reuse));
	return json;
}

bool node_stat_slice(struct node *node, const struct wfi_tenant *only, struct node_slice *s)
{
	struct wfi_space_stat st;

	for (unsigned i = 0; i < STAT_SLICE; i++) {
		if (wfi_kv_space_stat(node->kv, &s->at, &st))
			return false;
		if (!only || only == st.tenant)
			json_array_append_new(s->list, figures_json(&st));
	}
	return true;
}

/* ---- weft ls --space ---- */

static json_t *key_json(const struct weft_key *key)
{
	char text[2 * sizeof(*key) + 1];

	snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long)key->hi,
		 (unsigned long long)key->lo);
	return json_string(text);
}

static json_t *block_json(const struct wfi_block_stat *st, enum weft_tier tier)
{
	static const char *const tiers[] = {
		[WEFT_TIER_GPU] = "gpu",
		[WEFT_TIER_DRAM] = "dram",
		[WEFT_TIER_SSD] = "ssd",
	};
	json_t *json = json_pack("{s:s, s:s}", "tier", tiers[tier], "state", st->state);

	if (!st->key.lo && !st->key.hi)
		return json;
	json_object_set_new(json, "key", key_json(&st->key));
	if (st->parent.lo || st->parent.hi)
		json_object_set_new(json, "parent", key_json(&st->parent));
	json_object_set_new(json, "depth", json_integer((json_int_t)st->depth));
	return json;
}

/* what lies in two tiers is there twice */
static void copies_json(const struct wfi_block_stat *st, uint32_t gpus, json_t *list)
{
	for (; gpus; gpus &= gpus - 1) {
		json_t *json = block_json(st, WEFT_TIER_GPU);

		json_object_set_new(json, "gpu", json_integer(__builtin_ctz(gpus)));
		json_array_append_new(list, json);
	}
}

void node_blocks_json(const struct node_blocks *b, json_t *list)
{
	for (int i = 0; i < b->nr; i++) {
		const struct wfi_block_stat *st = &b->blocks[i];
		json_t *json = block_json(st, st->tier);

		if (st->tier == WEFT_TIER_DRAM)
			json_object_update_new(
				json,
				json_pack("{s:I, s:I, s:I}", "pins", (json_int_t)st->pins, "age_ms",
					  (json_int_t)(st->age_ns / WFI_NSEC_PER_MSEC), "idle_ms",
					  (json_int_t)(st->idle_ns / WFI_NSEC_PER_MSEC)));
		json_array_append_new(list, json);
		copies_json(st, b->gpus[i], list);
	}
}
