/* SPDX-License-Identifier: Apache-2.0 */
/* stat: how each space is used, and how long its blocks last */
#include <inttypes.h>
#include <string.h>
#include "cli/cli.h"
#include "weft_internal/env.h"

#define CLEAN 48

static const char *age(const json_t *hist, const char *key, char out[WFI_TEXT])
{
	const uint64_t ns = wfi_json_u64(hist, key);

	if (!wfi_json_u64(hist, "count"))
		return "-";
	return ns < 60 * WFI_NSEC_PER_SEC ? wfi_text_ns(ns, out)
					  : wfi_text_age(ns / WFI_NSEC_PER_SEC, out);
}

static void show_hist(const json_t *space, const char *key, const char *name)
{
	const json_t *h = json_object_get(space, key);
	char mean[WFI_TEXT], p50[WFI_TEXT], p90[WFI_TEXT], p99[WFI_TEXT], max[WFI_TEXT];

	printf("  %-22s %10" PRIu64 " %9s %9s %9s %9s %9s\n", name, wfi_json_u64(h, "count"),
	       age(h, "mean_ns", mean), age(h, "p50_ns", p50), age(h, "p90_ns", p90),
	       age(h, "p99_ns", p99), age(h, "max_ns", max));
}

static void show_space(const json_t *s)
{
	const uint64_t blocks = wfi_json_u64(s, "blocks"), slots = wfi_json_u64(s, "slots");
	const uint64_t hits = wfi_json_u64(s, "hits"), looked = hits + wfi_json_u64(s, "misses");
	const double bytes = (double)wfi_json_u64(s, "block_bytes");
	char tenant[CLEAN], model[CLEAN], layout[CLEAN], block[WFI_TEXT], held[WFI_TEXT];

	printf("%s %s %s, blocks of %s\n",
	       wfi_text_clean(wfi_json_str(s, "tenant"), tenant, sizeof(tenant)),
	       wfi_text_clean(wfi_json_str(s, "model"), model, sizeof(model)),
	       wfi_text_clean(wfi_json_str(s, "layout"), layout, sizeof(layout)),
	       wfi_text_bytes(bytes, block));
	printf("  held %" PRIu64 " of %" PRIu64 " slots (%.1f%%, %s): %" PRIu64 " free, %" PRIu64
	       " filling, %" PRIu64 " pinned, %" PRIu64 " on their way out\n",
	       blocks, slots, slots ? 100.0 * (double)blocks / (double)slots : 0.0,
	       wfi_text_bytes(bytes * (double)blocks, held), wfi_json_u64(s, "slots_free"),
	       wfi_json_u64(s, "slots_filling"), wfi_json_u64(s, "slots_pinned"),
	       wfi_json_u64(s, "slots_quarantined"));
	printf("  put %" PRIu64 ", evicted %" PRIu64 ", looked up %" PRIu64 " (%.1f%% held)\n",
	       wfi_json_u64(s, "puts"), wfi_json_u64(s, "evicted"), looked,
	       looked ? 100.0 * (double)hits / (double)looked : 0.0);
	printf("  %-22s %10s %9s %9s %9s %9s %9s\n", "", "COUNT", "MEAN", "P50", "P90", "P99",
	       "MAX");
	show_hist(s, "lifetime", "lifetime");
	show_hist(s, "idle_before_eviction", "idle before eviction");
	show_hist(s, "reuse_gap", "reuse gap");
}

static int run_stat(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *common = opts;
	const json_t *spaces;
	json_t *root = NULL;
	size_t i;
	int ret;

	(void)argc;
	(void)argv;
	ret = wfi_cli_fetch(common, weft_stat_json, "stat", &root);
	if (ret)
		return ret;
	if (common->json)
		return wfi_cli_print_json(root, 2);
	spaces = json_object_get(root, "spaces");
	for (i = 0; i < json_array_size(spaces); i++) {
		if (i)
			putchar('\n');
		show_space(json_array_get(spaces, i));
	}
	if (!i)
		puts("no space is open");
	json_decref(root);
	return wfi_cli_flushed();
}

const struct wfi_cli_cmd wfi_cmd_stat = {
	.name = "stat",
	.summary = "how each space is used, and how long its blocks last",
	.opts_len = sizeof(struct wfi_cli_common),
	.examples = "  weft stat\n  weft stat --json | jq '.spaces[].reuse_gap'\n",
	.run = run_stat,
};
