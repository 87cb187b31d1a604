/* SPDX-License-Identifier: Apache-2.0 */
/* members: who is in the cluster, as the node has heard */
#include <inttypes.h>
#include <string.h>
#include "cli/cli.h"

#define CLEAN 48

static const char *clean(const json_t *obj, const char *key, char *out, size_t len)
{
	return wfi_text_clean(wfi_json_str(obj, key), out, len);
}

/* how this node is connected to the member of that name */
static const char *peer_state(const json_t *peers, const json_t *member, char out[CLEAN])
{
	const char *name = wfi_json_str(member, "name");
	size_t i;

	if (wfi_json_bool(member, "self"))
		return "this node";
	for (i = 0; i < json_array_size(peers); i++)
		if (!strcmp(wfi_json_str(json_array_get(peers, i), "name"), name))
			return clean(json_array_get(peers, i), "state", out, CLEAN);
	return "-";
}

static void show_refused(const json_t *refused)
{
	char key[128], why[512];
	size_t i;

	for (i = 0; i < json_array_size(refused); i++)
		printf("  refused: %s: %s\n",
		       clean(json_array_get(refused, i), "key", key, sizeof(key)),
		       clean(json_array_get(refused, i), "why", why, sizeof(why)));
}

void wfi_cli_show_membership(const json_t *m)
{
	char cluster[CLEAN], kind[CLEAN], state[CLEAN], where[192], why[512], age[WFI_TEXT];

	if (!m)
		return;
	printf("cluster  %s: %s for %s, %zu members, epoch %" PRIu64 " (%s %s)\n",
	       clean(m, "cluster", cluster, CLEAN), clean(m, "state", state, CLEAN),
	       wfi_text_age(wfi_json_u64(m, "since_s"), age),
	       json_array_size(json_object_get(m, "members")), wfi_json_u64(m, "epoch"),
	       clean(m, "kind", kind, CLEAN), clean(m, "where", where, sizeof(where)));
	if (*clean(m, "why", why, sizeof(why)))
		printf("  %s\n", why);
	show_refused(json_object_get(m, "refused"));
}

static void show_members(const json_t *list, const json_t *peers)
{
	char name[CLEAN], id[CLEAN], version[CLEAN], state[CLEAN], addr[128], size[WFI_TEXT];
	char epoch[24];
	const json_t *m;
	bool known;
	size_t i;

	printf("\n%-20s %-18s %-10s %-12s %10s %8s %-8s %s\n", "MEMBER", "ID", "STATE", "PEER",
	       "CAPACITY", "EPOCH", "VERSION", "ADDRESS");
	for (i = 0; i < json_array_size(list); i++) {
		m = json_array_get(list, i);
		/* a file names members and knows no more of them */
		known = *wfi_json_str(m, "version");
		clean(m, *wfi_json_str(m, "address") ? "address" : "socket", addr, sizeof(addr));
		snprintf(epoch, sizeof(epoch), "%" PRIu64, wfi_json_u64(m, "epoch"));
		printf("%-20s %-18s %-10s %-12s %10s %8s %-8s %s\n", clean(m, "name", name, CLEAN),
		       clean(m, "id", id, CLEAN), wfi_json_bool(m, "draining") ? "draining" : "up",
		       peer_state(peers, m, state),
		       known ? wfi_text_bytes((double)wfi_json_u64(m, "capacity"), size) : "-",
		       known ? epoch : "-", known ? clean(m, "version", version, CLEAN) : "-",
		       addr);
	}
}

static int run_members(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *common = opts;
	json_t *root = NULL, *m;
	int ret;

	(void)argc;
	(void)argv;
	ret = wfi_cli_fetch(common, weft_status_json, "status", &root);
	if (ret)
		return ret;
	m = json_object_get(json_object_get(root, "network"), "membership");
	if (!m) {
		fputs("weft: this node has no membership: set membership in its configuration, or "
		      "ask as its own user\n",
		      stderr);
		json_decref(root);
		return WFI_EXIT_FAILED;
	}
	if (common->json) {
		ret = wfi_cli_print_json(json_incref(m), 2);
		json_decref(root);
		return ret;
	}
	wfi_cli_show_membership(m);
	show_members(json_object_get(m, "members"), json_object_get(root, "peers"));
	json_decref(root);
	return wfi_cli_flushed();
}

const struct wfi_cli_cmd wfi_cmd_members = {
	.name = "members",
	.summary = "who is in the cluster, as the node has heard",
	.opts_len = sizeof(struct wfi_cli_common),
	.examples = "  weft members\n"
		    "  weft members --json | jq '.members[].name'\n",
	.run = run_members,
};
