/* SPDX-License-Identifier: Apache-2.0 */
/* tier: what is done to the node's SSD tier while it is in use */
#include <string.h>
#include "cli/cli.h"
#include "daemon/value.h"

static int run_tier(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *common = opts;
	char text[WFI_TEXT];
	struct weft *w = NULL;
	uint64_t bytes;
	int ret;

	if (argc != 2 || strcmp(argv[0], "resize") != 0)
		return wfi_cli_usage("tier", "tier: wants \"resize SIZE\"");
	if (wfi_value_size(argv[1], &bytes) || !bytes)
		return wfi_cli_usage("tier", "tier: \"%s\" is no size: 16G, 512M", argv[1]);
	ret = wfi_cli_open(common, 0, &w);
	if (ret)
		return ret;
	ret = weft_tier_resize(w, bytes);
	if (ret < 0)
		ret = wfi_cli_failed("tier resize", ret);
	else if (common->json)
		ret = wfi_cli_print_json(json_pack("{s:I}", "bytes", (json_int_t)bytes), 0);
	else
		printf("the tier's file has %s now, or soon: weft status shows it\n",
		       wfi_text_bytes((double)bytes, text));
	weft_close(w);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_tier = {
	.name = "tier",
	.summary = "make the file of the node's SSD tier larger or smaller, while it is in use",
	.opts_len = sizeof(struct wfi_cli_common),
	.args = "resize SIZE",
	.max_args = 2,
	.examples = "  weft tier resize 64G\n  weft status --json | jq '.tiers[0].file_bytes'\n",
	.run = run_tier,
};
