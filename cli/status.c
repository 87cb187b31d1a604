/* SPDX-License-Identifier: Apache-2.0 */
/* status, drain: what the node says of itself */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"

#define CLEAN 48

static const char *clean(const json_t *obj, const char *key, char out[CLEAN])
{
	return wfi_text_clean(wfi_json_str(obj, key), out, CLEAN);
}

static void show_node(const json_t *node)
{
	char name[CLEAN], id[CLEAN], version[CLEAN], policy[CLEAN], age[WFI_TEXT];

	printf("node     %s%s\n", clean(node, "name", name),
	       wfi_json_bool(node, "draining") ? "  (draining)" : "");
	printf("id       %s\n", clean(node, "id", id));
	printf("version  %s, pid %" PRIu64 ", up %s\n", clean(node, "version", version),
	       wfi_json_u64(node, "pid"), wfi_text_age(wfi_json_u64(node, "uptime_s"), age));
	printf("policy   %s\n", clean(node, "policy", policy));
}

static void show_tenants(const json_t *tenants)
{
	char name[CLEAN], arena[WFI_TEXT], used[WFI_TEXT], low[WFI_TEXT], page[WFI_TEXT];
	size_t i;
	json_t *t;

	printf("\n%-16s %10s %10s %10s %6s %9s %10s %10s %9s %9s %11s\n", "TENANT", "ARENA", "USED",
	       "FLOOR", "WEIGHT", "PAGES", "BLOCKS", "SLOTS FREE", "FILLING", "LEASED",
	       "QUARANTINED");
	for (i = 0; i < json_array_size(tenants); i++) {
		t = json_array_get(tenants, i);
		wfi_text_bytes((double)wfi_json_u64(t, "arena_bytes"), arena);
		wfi_text_bytes((double)wfi_json_u64(t, "used_bytes"), used);
		wfi_text_bytes((double)wfi_json_u64(t, "floor_bytes"), low);
		wfi_text_bytes((double)wfi_json_u64(t, "page_bytes"), page);
		printf("%-16s %10s %10s %10s %6" PRIu64 " %9s %10" PRIu64 " %10" PRIu64 " %9" PRIu64
		       " %9" PRIu64 " %11" PRIu64 "\n",
		       clean(t, "name", name), arena, used, low, wfi_json_u64(t, "weight"), page,
		       wfi_json_u64(t, "blocks_held"), wfi_json_u64(t, "slots_free"),
		       wfi_json_u64(t, "slots_filling"), wfi_json_u64(t, "slots_leased"),
		       wfi_json_u64(t, "slots_quarantined"));
	}
}

static void show_tiers(const json_t *tiers)
{
	char name[CLEAN], state[CLEAN], why[256];
	char held[WFI_TEXT], size[WFI_TEXT], rd[WFI_TEXT], wr[WFI_TEXT];
	size_t i;
	json_t *t;

	if (!json_array_size(tiers))
		return;
	printf("\n%-8s %-8s %10s %10s %10s %8s %8s %10s %10s\n", "TIER", "STATE", "SIZE", "HELD",
	       "BLOCKS", "LEASED", "RETIRED", "READ/S", "WRITE/S");
	for (i = 0; i < json_array_size(tiers); i++) {
		t = json_array_get(tiers, i);
		wfi_text_bytes((double)wfi_json_u64(t, "bytes"), size);
		wfi_text_bytes((double)wfi_json_u64(t, "bytes_held"), held);
		wfi_text_bytes((double)wfi_json_u64(t, "read_bytes_per_s"), rd);
		wfi_text_bytes((double)wfi_json_u64(t, "write_bytes_per_s"), wr);
		printf("%-8s %-8s %10s %10s %10" PRIu64 " %8" PRIu64 " %8" PRIu64 " %10s %10s\n",
		       clean(t, "name", name), clean(t, "state", state), size, held,
		       wfi_json_u64(t, "blocks"), wfi_json_u64(t, "leased"),
		       wfi_json_u64(t, "retired"), rd, wr);
		wfi_text_clean(wfi_json_str(t, "why"), why, sizeof(why));
		if (*why)
			printf("  %s\n", why);
		if (wfi_json_u64(t, "file_bytes_wanted") != wfi_json_u64(t, "file_bytes"))
			printf("  the file gets smaller: %s now, %s in the end\n",
			       wfi_text_bytes((double)wfi_json_u64(t, "file_bytes"), size),
			       wfi_text_bytes((double)wfi_json_u64(t, "file_bytes_wanted"), held));
	}
}

static void show_gpu_tiers(const json_t *tiers)
{
	char number[WFI_TEXT], state[CLEAN], why[256];
	char held[WFI_TEXT], size[WFI_TEXT], given[WFI_TEXT];
	size_t i;
	json_t *t;

	if (!json_array_size(tiers))
		return;
	printf("\n%-8s %-8s %10s %10s %10s %10s %10s %10s %8s\n", "GPU TIER", "STATE", "SIZE",
	       "HELD", "BLOCKS", "HITS", "GIVEN", "EVICTED", "BAD");
	for (i = 0; i < json_array_size(tiers); i++) {
		t = json_array_get(tiers, i);
		snprintf(number, sizeof(number), "%" PRIu64, wfi_json_u64(t, "gpu"));
		wfi_text_bytes((double)wfi_json_u64(t, "bytes"), size);
		wfi_text_bytes((double)wfi_json_u64(t, "bytes_held"), held);
		wfi_text_bytes((double)wfi_json_u64(t, "hit_bytes"), given);
		printf("%-8s %-8s %10s %10s %10" PRIu64 " %10" PRIu64 " %10s %10" PRIu64
		       " %8" PRIu64 "\n",
		       json_object_get(t, "gpu") ? number : "-", clean(t, "state", state), size,
		       held, wfi_json_u64(t, "blocks"), wfi_json_u64(t, "hits"), given,
		       wfi_json_u64(t, "evicted"), wfi_json_u64(t, "bad"));
		wfi_text_clean(wfi_json_str(t, "why"), why, sizeof(why));
		if (*why)
			printf("  %s\n", why);
		if (wfi_json_u64(t, "memory_bytes_wanted") != wfi_json_u64(t, "memory_bytes"))
			printf("  it gets smaller: %s now, %s in the end\n",
			       wfi_text_bytes((double)wfi_json_u64(t, "memory_bytes"), size),
			       wfi_text_bytes((double)wfi_json_u64(t, "memory_bytes_wanted"),
					      held));
	}
}

static void show_gpus(const json_t *gpus)
{
	char pci[CLEAN], state[CLEAN], nic[80], why[256];
	const json_t *g, *n;
	size_t i, k;

	if (!json_array_size(gpus))
		return;
	printf("\n%-8s %-16s %-8s %8s %8s\n", "GPU", "PCI", "STATE", "REGIONS", "DIRECT");
	for (i = 0; i < json_array_size(gpus); i++) {
		g = json_array_get(gpus, i);
		printf("%-8" PRIu64 " %-16s %-8s %8" PRIu64 " %8" PRIu64 "\n",
		       wfi_json_u64(g, "gpu"), clean(g, "pci", pci), clean(g, "state", state),
		       wfi_json_u64(g, "regions"), wfi_json_u64(g, "direct"));
		for (k = 0; k < json_array_size(json_object_get(g, "nics")); k++) {
			n = json_array_get(json_object_get(g, "nics"), k);
			wfi_text_clean(wfi_json_str(n, "nic"), nic, sizeof(nic));
			wfi_text_clean(wfi_json_str(n, "why"), why, sizeof(why));
			printf("  %s: %s%s\n", nic,
			       *why ? "by host memory: " : "reads to its memory itself", why);
		}
	}
}

static void show_engines(const json_t *engines)
{
	char name[CLEAN], tenant[CLEAN];
	size_t i;
	json_t *e;

	printf("\n%-24s %8s %-16s %6s %8s %8s\n", "ENGINE", "PID", "TENANT", "RINGS", "REGIONS",
	       "CLAIMS");
	for (i = 0; i < json_array_size(engines); i++) {
		e = json_array_get(engines, i);
		printf("%-24s %8" PRIu64 " %-16s %6" PRIu64 " %8" PRIu64 " %8" PRIu64 "\n",
		       clean(e, "name", name), wfi_json_u64(e, "pid"), clean(e, "tenant", tenant),
		       wfi_json_u64(e, "rings"), wfi_json_u64(e, "regions"),
		       wfi_json_u64(e, "claims"));
	}
}

static void show_peers(const json_t *peers)
{
	char name[CLEAN], state[CLEAN], over[CLEAN], addr[128], why[256];
	size_t i;
	json_t *p;

	if (!json_array_size(peers))
		return;
	printf("\n%-24s %-12s %-10s %s\n", "PEER", "STATE", "TRANSPORT", "ADDRESS");
	for (i = 0; i < json_array_size(peers); i++) {
		p = json_array_get(peers, i);
		printf("%-24s %-12s %-10s %s\n", clean(p, "name", name), clean(p, "state", state),
		       clean(p, "transport", over),
		       wfi_text_clean(wfi_json_str(p, "address"), addr, sizeof(addr)));
		wfi_text_clean(wfi_json_str(p, "why"), why, sizeof(why));
		if (*why)
			printf("  %s\n", why);
	}
}

static void show_certificate(const json_t *cert)
{
	const int64_t left_s = (int64_t)json_integer_value(json_object_get(cert, "expires_in_s"));
	char kind[CLEAN], id[256], why[256], age[WFI_TEXT];

	printf("%s as %s, ", clean(cert, "kind", kind),
	       wfi_text_clean(wfi_json_str(cert, "id"), id, sizeof(id)));
	if (left_s > 0)
		printf("which expires in %s%s\n", wfi_text_age((uint64_t)left_s, age),
		       wfi_json_bool(cert, "expires_soon") ? ": renew it" : "");
	else
		puts("which has expired: renew it");
	wfi_text_clean(wfi_json_str(cert, "why"), why, sizeof(why));
	if (*why)
		printf("  newer certificates are not in use: %s\n", why);
}

/* of connections to other hosts, where there are any */
static void show_network(const json_t *network)
{
	const json_t *cert = json_object_get(network, "certificate");
	const json_t *listens = json_object_get(network, "listen");
	const json_t *refused = json_object_get(network, "refused");
	char from[64], why[256], age[WFI_TEXT];
	size_t i;
	json_t *r;

	if (!json_array_size(listens) && !cert && !json_array_size(refused))
		return;
	printf("\nnetwork: ");
	if (cert)
		show_certificate(cert);
	else
		puts("plain text, nothing is proved");
	for (i = 0; i < json_array_size(listens); i++)
		printf("  listens on %s\n", json_string_value(json_array_get(listens, i)));
	for (i = 0; i < json_array_size(refused); i++) {
		r = json_array_get(refused, i);
		printf("  sent away: %s, %" PRIu64 " times, last %s ago: it %s\n",
		       wfi_text_clean(wfi_json_str(r, "from"), from, sizeof(from)),
		       wfi_json_u64(r, "times"), wfi_text_age(wfi_json_u64(r, "age_s"), age),
		       wfi_text_clean(wfi_json_str(r, "why"), why, sizeof(why)));
	}
}

static void show_slow_paths(const json_t *slow)
{
	char what[128], why[256];
	size_t i;
	json_t *s;

	printf("\nslow paths in use:%s\n", json_array_size(slow) ? "" : " none");
	for (i = 0; i < json_array_size(slow); i++) {
		s = json_array_get(slow, i);
		printf("  %s: %s\n", wfi_text_clean(wfi_json_str(s, "what"), what, sizeof(what)),
		       wfi_text_clean(wfi_json_str(s, "why"), why, sizeof(why)));
	}
}

static int run_status(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *common = opts;
	json_t *root = NULL;
	int ret;

	(void)argc;
	(void)argv;
	ret = wfi_cli_fetch(common, weft_status_json, "status", &root);
	if (ret)
		return ret;
	if (common->json)
		return wfi_cli_print_json(root, 2);
	show_node(json_object_get(root, "node"));
	wfi_cli_show_membership(json_object_get(json_object_get(root, "network"), "membership"));
	show_tenants(json_object_get(root, "tenants"));
	show_tiers(json_object_get(root, "tiers"));
	show_gpu_tiers(json_object_get(root, "gpu_tiers"));
	show_gpus(json_object_get(root, "gpus"));
	show_engines(json_object_get(root, "engines"));
	show_peers(json_object_get(root, "peers"));
	show_network(json_object_get(root, "network"));
	show_slow_paths(json_object_get(root, "slow_paths"));
	json_decref(root);
	return wfi_cli_flushed();
}

static int run_drain(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *common = opts;
	struct weft *w = NULL;
	int ret;

	(void)argc;
	(void)argv;
	ret = wfi_cli_open(common, 0, &w);
	if (ret)
		return ret;
	ret = weft_drain(w);
	if (ret < 0)
		ret = wfi_cli_failed("drain", ret);
	else if (common->json)
		ret = wfi_cli_print_json(json_pack("{s:b}", "draining", 1), 0);
	else
		puts("the node takes no new engine, and stops when the last has left");
	weft_close(w);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_status = {
	.name = "status",
	.summary = "the node, its tenants and engines, slow paths in use",
	.opts_len = sizeof(struct wfi_cli_common),
	.examples = "  weft status\n"
		    "  weft status --json | jq .slow_paths\n"
		    "  weft status --socket /run/weft-b/weftd.sock\n",
	.run = run_status,
};

const struct wfi_cli_cmd wfi_cmd_drain = {
	.name = "drain",
	.summary = "let the node take no new engine, and stop when the last has left",
	.opts_len = sizeof(struct wfi_cli_common),
	.examples = "  weft drain\n  weft drain --socket /run/weft-b/weftd.sock\n",
	.run = run_drain,
};
