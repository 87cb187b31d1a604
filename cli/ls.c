/* SPDX-License-Identifier: Apache-2.0 */
/* ls: the spaces, or the blocks of one */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "weft_internal/env.h"

#define CLEAN 48

struct ls_opts {
	struct wfi_cli_common common;
	const char *space;
};

static const struct wfi_cli_opt ls_opts[] = {
	{ "space", "NAME", WFI_CLI_STRING, offsetof(struct ls_opts, space),
	  "list its blocks: a model, MODEL:LAYOUT, or an id that ls --json shows" },
	{ 0 },
};

/* ---- spaces ---- */

static void show_space(const json_t *s)
{
	char tenant[CLEAN], model[CLEAN], layout[CLEAN], bytes[WFI_TEXT], held[WFI_TEXT];
	const uint64_t blocks = wfi_json_u64(s, "blocks"), slots = wfi_json_u64(s, "slots");
	const uint64_t block_bytes = wfi_json_u64(s, "block_bytes");

	wfi_text_bytes((double)block_bytes, bytes);
	wfi_text_bytes((double)blocks * (double)block_bytes, held);
	printf("%-12s %-28s %-20s %10s %6" PRIu64 " %6" PRIu64 " %10" PRIu64 " %10" PRIu64
	       " %5.1f%% %10s\n",
	       wfi_text_clean(wfi_json_str(s, "tenant"), tenant, CLEAN),
	       wfi_text_clean(wfi_json_str(s, "model"), model, CLEAN),
	       wfi_text_clean(wfi_json_str(s, "layout"), layout, CLEAN), bytes,
	       wfi_json_u64(s, "tokens_per_block"), wfi_json_u64(s, "layers"), blocks, slots,
	       slots ? 100.0 * (double)blocks / (double)slots : 0.0, held);
}

static int ls_spaces(const struct ls_opts *opts)
{
	json_t *root = NULL, *s;
	size_t i;
	int ret;

	ret = wfi_cli_fetch(&opts->common, weft_ls_json, "ls", &root);
	if (ret)
		return ret;
	if (opts->common.json)
		return wfi_cli_print_json(root, 2);
	printf("%-12s %-28s %-20s %10s %6s %6s %10s %10s %6s %10s\n", "TENANT", "MODEL", "LAYOUT",
	       "BLOCK", "TOKENS", "LAYERS", "BLOCKS", "SLOTS", "FULL", "HELD");
	for (i = 0; i < json_array_size(json_object_get(root, "spaces")); i++) {
		s = json_array_get(json_object_get(root, "spaces"), i);
		show_space(s);
	}
	json_decref(root);
	return wfi_cli_flushed();
}

/* ---- blocks of one ---- */

static const char *age(const json_t *block, const char *key, char out[WFI_TEXT])
{
	const json_t *ms = json_object_get(block, key);

	if (!ms)
		return "-";
	return wfi_json_u64(block, key) < 60000
		       ? wfi_text_ns(wfi_json_u64(block, key) * WFI_NSEC_PER_MSEC, out)
		       : wfi_text_age(wfi_json_u64(block, key) / 1000, out);
}

static void show_block(const json_t *b)
{
	char key[CLEAN], tier[CLEAN], state[CLEAN], old[WFI_TEXT], idle[WFI_TEXT];

	wfi_text_clean(wfi_json_str(b, "key"), key, CLEAN);
	printf("%-32s %6" PRIu64 " %-5s %-8s %6" PRIu64 " %9s %9s\n", *key ? key : "-",
	       wfi_json_u64(b, "depth"), wfi_text_clean(wfi_json_str(b, "tier"), tier, CLEAN),
	       wfi_text_clean(wfi_json_str(b, "state"), state, CLEAN), wfi_json_u64(b, "pins"),
	       age(b, "age_ms", old), age(b, "idle_ms", idle));
}

/* one page, as it comes: in JSON a line a block. Return: exit code, and where the next begins */
static int show_page(const struct ls_opts *opts, struct weft *w, uint32_t id, uint64_t *from)
{
	json_t *root, *blocks;
	size_t i;
	int ret;

	ret = wfi_cli_blocks(w, id, *from, &root);
	if (ret)
		return ret;
	blocks = json_object_get(root, "blocks");
	for (i = 0; i < json_array_size(blocks) && !ret; i++) {
		json_t *b = json_array_get(blocks, i);

		if (opts->common.json)
			ret = wfi_cli_print_json(json_incref(b), 0);
		else
			show_block(b);
	}
	*from = wfi_json_u64(root, "next");
	json_decref(root);
	return ret;
}

static int ls_blocks(const struct ls_opts *opts)
{
	struct weft *w = NULL;
	json_t *space = NULL;
	uint64_t from = 0;
	int ret;

	ret = wfi_cli_open(&opts->common, 0, &w);
	if (!ret)
		ret = wfi_cli_space_find(w, opts->space, &space);
	if (!ret && !opts->common.json)
		printf("%-32s %6s %-5s %-8s %6s %9s %9s\n", "KEY", "DEPTH", "TIER", "STATE", "PINS",
		       "AGE", "IDLE");
	do {
		if (!ret)
			ret = show_page(opts, w, (uint32_t)wfi_json_u64(space, "id"), &from);
	} while (!ret && from);
	json_decref(space);
	weft_close(w);
	return ret ? ret : wfi_cli_flushed();
}

static int run_ls(const void *arg, int argc, char **argv)
{
	const struct ls_opts *opts = arg;

	(void)argc;
	(void)argv;
	return opts->space ? ls_blocks(opts) : ls_spaces(opts);
}

const struct wfi_cli_cmd wfi_cmd_ls = {
	.name = "ls",
	.summary = "spaces, and how full they are; or the blocks of one",
	.opts = ls_opts,
	.opts_len = sizeof(struct ls_opts),
	.examples = "  weft ls\n"
		    "  weft ls --json | jq '.spaces[] | select(.blocks > 0)'\n"
		    "  weft ls --space llama-3-8b\n"
		    "  weft ls --space llama-3-8b:nhd --json | jq 'select(.pins > 0)'\n",
	.run = run_ls,
};
