/* SPDX-License-Identifier: Apache-2.0 */
/* tier: what is done to the node's tiers while they are in use */
#include <string.h>
#include "cli/cli.h"
#include "daemon/value.h"

struct tier_opts {
	struct wfi_cli_common common;
	bool gpu;
};

static const struct wfi_cli_opt tier_opts[] = {
	{ "gpu", NULL, WFI_CLI_FLAG, offsetof(struct tier_opts, gpu),
	  "the memory of each GPU that copies of blocks have, until the next start; 0: none" },
	{ .name = NULL },
};

static int resize(const struct tier_opts *opts, struct weft *w, uint64_t bytes)
{
	char text[WFI_TEXT];
	const int ret = opts->gpu ? weft_gpu_tier_resize(w, bytes) : weft_tier_resize(w, bytes);

	if (ret < 0)
		return wfi_cli_failed("tier resize", ret);
	if (opts->common.json)
		return wfi_cli_print_json(json_pack("{s:I}", "bytes", (json_int_t)bytes), 0);
	printf("%s %s now, or soon: weft status shows it\n",
	       opts->gpu ? "the tier of each GPU has" : "the tier's file has",
	       wfi_text_bytes((double)bytes, text));
	return 0;
}

static int run_tier(const void *arg, int argc, char **argv)
{
	const struct tier_opts *opts = arg;
	struct weft *w = NULL;
	uint64_t bytes;
	int ret;

	if (argc != 2 || strcmp(argv[0], "resize") != 0)
		return wfi_cli_usage("tier", "tier: wants \"resize SIZE\"");
	if (wfi_value_size(argv[1], &bytes) || (!bytes && !opts->gpu))
		return wfi_cli_usage("tier", "tier: \"%s\" is no size: 16G, 512M", argv[1]);
	ret = wfi_cli_open(&opts->common, 0, &w);
	if (ret)
		return ret;
	ret = resize(opts, w, bytes);
	weft_close(w);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_tier = {
	.name = "tier",
	.summary = "make the node's SSD tier, or its GPUs' tiers, larger or smaller while in use",
	.opts = tier_opts,
	.opts_len = sizeof(struct tier_opts),
	.args = "resize SIZE",
	.max_args = 2,
	.examples = "  weft tier resize 64G\n  weft tier resize --gpu 8G\n"
		    "  weft status --json | jq '.tiers[0].file_bytes'\n",
	.run = run_tier,
};
