/* SPDX-License-Identifier: Apache-2.0 */
/* route: which node is best for a chain */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "daemon/route_json.h"
#include "daemon/value.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define KEYS_MAX 8192u
#define NAMES_MAX 512u
#define CLEAN 48

struct route_opts {
	struct wfi_cli_common common;
	struct wfi_cli_space space;
	const char *name; /* instead of .space, or NULL */
	const char *nodes;
	uint64_t block_ns;
};

static const struct route_opts defaults = {
	.space = WFI_CLI_SPACE_DEFAULTS(1 << 20),
};

static const struct wfi_cli_opt route_opts[] = {
	{ "nodes", "NAME,...", WFI_CLI_STRING, offsetof(struct route_opts, nodes),
	  "candidates: names or ids (default: all that the node knows)" },
	{ "block-time", "TIME", WFI_CLI_DURATION, offsetof(struct route_opts, block_ns),
	  "what computing a block takes an engine (default 1ms)" },
	{ "space", "NAME", WFI_CLI_STRING, offsetof(struct route_opts, name),
	  "of one that is open: a model, MODEL:LAYOUT, or an id that ls --json shows" },
	WFI_CLI_SPACE_OPTS(route_opts, space),
	{ 0 },
};

/* ---- names of nodes ---- */

struct name {
	uint64_t id;
	char text[64];
};

struct names {
	struct name list[NAMES_MAX];
	unsigned nr;
};

static void names_add(struct names *n, const json_t *obj)
{
	struct name *to = &n->list[n->nr];

	if (n->nr == NAMES_MAX || wfi_value_u64(wfi_json_str(obj, "id"), &to->id))
		return;
	wfi_text_clean(wfi_json_str(obj, "name"), to->text, sizeof(to->text));
	n->nr++;
}

/* what the node says of itself, its peers, and the members of its cluster. Return: exit code */
static int names_fetch(const struct wfi_cli_common *common, struct names *n)
{
	json_t *root = NULL, *list;
	size_t i;
	int ret = wfi_cli_fetch(common, weft_status_json, "status", &root);

	if (ret)
		return ret;
	names_add(n, json_object_get(root, "node"));
	list = json_object_get(root, "peers");
	for (i = 0; i < json_array_size(list); i++)
		names_add(n, json_array_get(list, i));
	list = json_object_get(json_object_get(json_object_get(root, "network"), "membership"),
			       "members");
	for (i = 0; i < json_array_size(list); i++)
		names_add(n, json_array_get(list, i));
	json_decref(root);
	return WFI_EXIT_OK;
}

static const char *name_of(const struct names *n, uint64_t id)
{
	unsigned i;

	for (i = 0; i < n->nr; i++)
		if (n->list[i].id == id)
			return n->list[i].text;
	return "-";
}

static int id_of(const struct names *n, const char *text, uint64_t *out)
{
	struct wfi_nearest near;
	unsigned i;

	wfi_nearest_init(&near, text);
	for (i = 0; i < n->nr; i++) {
		if (!strcmp(n->list[i].text, text)) {
			*out = n->list[i].id;
			return WFI_EXIT_OK;
		}
		wfi_nearest_offer(&near, n->list[i].text);
	}
	if (!wfi_value_u64(text, out) && *out)
		return WFI_EXIT_OK;
	return wfi_cli_usage("route", "route: no node \"%s\" is known: %s%s%s", text,
			     near.best ? "did you mean \"" : "give its id",
			     near.best ? near.best : "", near.best ? "\"?" : "");
}

/* Return: exit code; *@nr candidates, or room for all */
static int candidates(const struct route_opts *opts, const struct names *n,
		      struct weft_route routes[WEFT_ROUTES_MAX], unsigned *nr)
{
	char text[4096];
	const char *items[WEFT_ROUTES_MAX];
	unsigned i;
	int ret = WFI_EXIT_OK;

	*nr = WEFT_ROUTES_MAX;
	if (!opts->nodes)
		return WFI_EXIT_OK;
	snprintf(text, sizeof(text), "%s", opts->nodes);
	*nr = wfi_value_split(text, items, WEFT_ROUTES_MAX);
	if (strlen(opts->nodes) >= sizeof(text) || !*nr || *nr > WEFT_ROUTES_MAX)
		return wfi_cli_usage("route", "route: --nodes wants 1 to %u names",
				     WEFT_ROUTES_MAX);
	for (i = 0; i < *nr && !ret; i++)
		ret = id_of(n, items[i], &routes[i].node);
	return ret;
}

/* ---- keys ---- */

/* 32 hex digits, as weft ls shows them */
static int key_parse(const char *text, struct weft_key *out)
{
	uint8_t bytes[16];
	unsigned i;

	if (strlen(text) != 32 || wfi_value_hex(text, bytes, sizeof(bytes)) != 16)
		return wfi_cli_usage("route",
				     "route: \"%s\" is no key: 32 hex digits, as weft ls --space "
				     "shows them",
				     text);
	*out = (struct weft_key){ 0, 0 };
	for (i = 0; i < 8; i++) {
		out->hi = out->hi << 8 | bytes[i];
		out->lo = out->lo << 8 | bytes[8 + i];
	}
	return WFI_EXIT_OK;
}

static int keys_read(struct weft_key *keys, unsigned *nr)
{
	char line[128];
	int ret = WFI_EXIT_OK;

	while (!ret && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, " \t\r\n")] = 0;
		if (!line[0])
			continue;
		if (*nr == KEYS_MAX)
			return wfi_cli_usage("route", "route: more than %u keys", KEYS_MAX);
		ret = key_parse(line, &keys[(*nr)++]);
	}
	return ret;
}

static int keys_take(int argc, char **argv, struct weft_key *keys, unsigned *nr)
{
	int i, ret = WFI_EXIT_OK;

	if (argc == 1 && !strcmp(argv[0], "-"))
		ret = keys_read(keys, nr);
	else
		for (i = 0; i < argc && !ret; i++)
			ret = key_parse(argv[i], &keys[(*nr)++]);
	if (!ret && !*nr)
		return wfi_cli_usage("route", "route: wants the keys of a chain, in order");
	return ret;
}

/* ---- what came of it ---- */

static int print_json(const struct names *n, const struct weft_route *routes, int nr,
		      unsigned nr_keys)
{
	json_t *list = json_array();
	int i;

	for (i = 0; i < nr; i++)
		json_array_append_new(list, route_json(&routes[i], name_of(n, routes[i].node)));
	return wfi_cli_print_json(
		json_pack("{s:I,s:o}", "blocks", (json_int_t)nr_keys, "nodes", list), 2);
}

static const char *text_us(uint64_t us, char out[WFI_TEXT])
{
	return wfi_text_ns(us * WFI_NSEC_PER_USEC, out);
}

static int print_table(const struct names *n, const struct weft_route *routes, int nr)
{
	char fetch[WFI_TEXT], cost[WFI_TEXT], rtt[WFI_TEXT], speed[WFI_TEXT];
	int i;

	printf("%-20s %-10s %7s %7s %7s %9s %12s %6s %6s %9s %9s\n", "NODE", "STATE", "MEMORY",
	       "SSD", "FETCH", "TIME", "LINK/s", "LOAD", "OPS", "ANSWER", "COST");
	for (i = 0; i < nr; i++) {
		const struct weft_route *w = &routes[i];

		printf("%-20s %-10s %7u %7u %7u %9s %12s %5.1f%% %6u %9s %9s\n",
		       name_of(n, w->node), route_state(w), w->nr_memory, w->nr_ssd, w->nr_fetch,
		       text_us((uint64_t)w->ssd_us + w->fetch_us, fetch),
		       w->bytes_per_s ? wfi_text_bytes((double)w->bytes_per_s, speed) : "-",
		       w->load / 10.0, w->nr_ops, text_us(w->rtt_us, rtt),
		       w->flags & WEFT_ROUTE_DEAD ? "-" : text_us(w->cost_us, cost));
	}
	return wfi_cli_flushed();
}

static int ask(const struct route_opts *opts, const struct weft_key *keys, unsigned nr_keys,
	       struct weft_route *routes, unsigned *nr_routes)
{
	const uint64_t block_us = wfi_min(opts->block_ns / WFI_NSEC_PER_USEC, UINT32_MAX);
	struct weft_space *space;
	struct weft_ring *ring;
	struct weft *w = NULL;
	int ret;

	ret = wfi_cli_open(&opts->common, 0, &w);
	if (ret)
		return ret;
	ret = opts->name ? wfi_cli_space_open_named(w, opts->name, &space)
			 : wfi_cli_space_open(w, &opts->space, "route", &space);
	if (ret)
		goto out;
	ret = weft_ring_open(w, NULL, &ring);
	if (!ret)
		ret = weft_route(ring, space, keys, nr_keys, (uint32_t)block_us, routes,
				 *nr_routes);
	if (ret < 0) {
		ret = wfi_cli_failed("route", ret);
		goto out;
	}
	*nr_routes = (unsigned)ret;
	ret = WFI_EXIT_OK;
out:
	weft_close(w);
	return ret;
}

static int run_route(const void *arg, int argc, char **argv)
{
	static struct weft_route routes[WEFT_ROUTES_MAX];
	static struct weft_key keys[KEYS_MAX];
	static struct names names;
	const struct route_opts *opts = arg;
	unsigned nr_keys = 0, nr = 0;
	int ret;

	if (opts->name && memcmp(&opts->space, &defaults.space, sizeof(opts->space)))
		return wfi_cli_usage("route", "route: --space names one that is open, whole: no "
					      "--model, --layout, --block-bytes, "
					      "--tokens-per-block or --layers beside it");
	ret = keys_take(argc, argv, keys, &nr_keys);
	if (!ret)
		ret = names_fetch(&opts->common, &names);
	if (!ret)
		ret = candidates(opts, &names, routes, &nr);
	if (!ret)
		ret = ask(opts, keys, nr_keys, routes, &nr);
	if (ret)
		return ret;
	return opts->common.json ? print_json(&names, routes, (int)nr, nr_keys)
				 : print_table(&names, routes, (int)nr);
}

const struct wfi_cli_cmd wfi_cmd_route = {
	.name = "route",
	.summary = "which node is best for a chain: what it has, lacks, and how busy it is",
	.opts = route_opts,
	.defaults = &defaults,
	.opts_len = sizeof(defaults),
	.args = "KEY... | -",
	.max_args = KEYS_MAX,
	.examples = "  weft route 2f6c0d1be5a9476a90d5f0a7b3c81e44\n"
		    "  weft ls --space llama --json | jq -r .key | weft route --space llama -\n"
		    "  weft route --nodes node-a,node-b --block-time 4ms --json - <keys\n",
	.run = run_route,
};
