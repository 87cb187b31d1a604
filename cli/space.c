/* SPDX-License-Identifier: Apache-2.0 */
/* space: what is done to a space as a whole */
#include <inttypes.h>
#include <string.h>
#include "cli/cli.h"

static int show(const struct wfi_cli_common *common, const json_t *space)
{
	const uint64_t blocks = wfi_json_u64(space, "blocks");
	char model[WFI_TEXT], layout[WFI_TEXT];

	if (common->json)
		return wfi_cli_print_json(json_pack("{s:O, s:I}", "id",
						    json_object_get(space, "id"), "blocks",
						    (json_int_t)blocks),
					  0);
	printf("the node has forgotten %s:%s, with %" PRIu64 " blocks in memory\n",
	       wfi_text_clean(wfi_json_str(space, "model"), model, WFI_TEXT),
	       wfi_text_clean(wfi_json_str(space, "layout"), layout, WFI_TEXT), blocks);
	return wfi_cli_flushed();
}

static int run_space(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *common = opts;
	struct weft *w = NULL;
	json_t *space = NULL;
	int ret;

	if (argc != 2 || strcmp(argv[0], "remove") != 0)
		return wfi_cli_usage("space", "space: wants \"remove NAME\"");
	ret = wfi_cli_open(common, 0, &w);
	if (ret)
		return ret;
	ret = wfi_cli_space_find(w, argv[1], &space);
	if (!ret) {
		ret = weft_space_remove(w, (uint32_t)wfi_json_u64(space, "id"));
		ret = ret < 0 ? wfi_cli_failed("space remove", ret) : show(common, space);
	}
	json_decref(space);
	weft_close(w);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_space = {
	.name = "space",
	.summary = "let the node forget a space that no engine uses, and its blocks",
	.opts_len = sizeof(struct wfi_cli_common),
	.args = "remove NAME",
	.max_args = 2,
	.examples = "  weft space remove llama-3-8b\n"
		    "  weft space remove llama-3-8b:nhd\n",
	.run = run_space,
};
