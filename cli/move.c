/* SPDX-License-Identifier: Apache-2.0 */
/* move.c - export and import: an engine that reads or fills one space */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/move.h"

static const char check_text[] = "weft export";

void wfi_move_geometry(const json_t *space, struct wfi_export_header *out)
{
	memset(out, 0, sizeof(*out));
	out->magic = WFI_EXPORT_MAGIC;
	out->version = WFI_EXPORT_VERSION;
	out->header_bytes = sizeof(*out);
	out->block_bytes = wfi_json_u64(space, "block_bytes");
	out->tokens_per_block = (uint32_t)wfi_json_u64(space, "tokens_per_block");
	out->nr_layers = (uint32_t)wfi_json_u64(space, "layers");
	out->dtype = (uint32_t)wfi_json_u64(space, "dtype");
	strncpy(out->model, wfi_json_str(space, "model"), sizeof(out->model) - 1);
	strncpy(out->layout, wfi_json_str(space, "layout"), sizeof(out->layout) - 1);
}

int wfi_move_open(struct wfi_move *m, bool exists)
{
	const struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = m->geometry.block_bytes,
		.model = m->geometry.model,
		.layout = m->geometry.layout,
		.tokens_per_block = m->geometry.tokens_per_block,
		.nr_layers = m->geometry.nr_layers,
		.dtype = m->geometry.dtype,
		.verify = 1,
		/* the largest bound that anybody asked for holds */
		.max_blocks = exists ? 1 : 0,
	};
	int ret;

	ret = weft_space_open(m->w, &opts, &m->space);
	if (ret)
		return wfi_cli_failed("opening the space", ret);
	ret = weft_ring_open(m->w, NULL, &m->ring);
	if (ret)
		return wfi_cli_failed("opening a ring", ret);
	m->bytes = malloc(m->geometry.block_bytes);
	ret = m->bytes ? weft_key_from_hash(m->space, check_text, sizeof(check_text) - 1,
					    &m->geometry.check)
		       : -ENOMEM;
	return ret ? wfi_cli_failed("a block", ret) : WFI_EXIT_OK;
}

void wfi_move_close(struct wfi_move *m)
{
	free(m->bytes);
	weft_close(m->w);
}
