/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "daemon/value.h"

static int exit_of(int err)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -ENOTCONN:
	case -EPIPE:
		return WFI_EXIT_NO_NODE;
	default:
		return WFI_EXIT_FAILED;
	}
}

int wfi_cli_open(const struct wfi_cli_common *common, unsigned idx, struct weft **out)
{
	struct weft_opts opts = {
		.size = sizeof(opts),
		.mode = WEFT_ATTACH,
		.socket = idx < common->nr_sockets ? common->sockets[idx] : NULL,
		.token = common->token,
		.name = "weft",
	};
	int ret;

	ret = weft_open(&opts, out);
	if (!ret)
		return WFI_EXIT_OK;
	fprintf(stderr, "weft: %s\n", weft_why());
	if (exit_of(ret) == WFI_EXIT_NO_NODE)
		fputs("weft: is weftd running? weft doctor tells more\n", stderr);
	return exit_of(ret);
}

int wfi_cli_failed(const char *what, int err)
{
	const char *why = weft_why();

	fprintf(stderr, "weft: %s: %s\n", what, why[0] ? why : strerror(-err));
	/* only weft_open() says -ENOENT of a node; elsewhere it is something else that is
	 * missing */
	return err == -ENOENT ? WFI_EXIT_FAILED : exit_of(err);
}

int wfi_cli_space_open(struct weft *w, const struct wfi_cli_space *opts, const char *cmd,
		       struct weft_space **out)
{
	const struct weft_space_opts so = {
		.size = sizeof(so),
		.block_bytes = opts->block_bytes,
		.model = opts->model,
		.layout = opts->layout,
		.tokens_per_block = (uint32_t)opts->tokens_per_block,
		.nr_layers = (uint32_t)opts->layers,
		.dtype = WEFT_DTYPE_OPAQUE,
		.verify = 1,
	};
	int ret;

	if (opts->tokens_per_block > UINT32_MAX || opts->layers > UINT32_MAX)
		return wfi_cli_usage(cmd, "%s: --tokens-per-block and --layers go to %u", cmd,
				     UINT32_MAX);
	ret = weft_space_open(w, &so, out);
	return ret ? wfi_cli_failed("opening the space", ret) : WFI_EXIT_OK;
}

/* takes @text. Return: exit code */
static int parse(char *text, const char *what, json_t **out)
{
	json_error_t err;

	*out = json_loads(text, 0, &err);
	free(text);
	if (*out)
		return WFI_EXIT_OK;
	fprintf(stderr, "weft: %s: the node's answer is no JSON: %s\n", what, err.text);
	return WFI_EXIT_FAILED;
}

int wfi_cli_fetch(const struct wfi_cli_common *common, int (*ask)(struct weft *, char **),
		  const char *what, json_t **out)
{
	struct weft *w = NULL;
	char *text = NULL;
	int ret;

	ret = wfi_cli_open(common, 0, &w);
	if (ret)
		return ret;
	ret = ask(w, &text);
	ret = ret < 0 ? wfi_cli_failed(what, ret) : parse(text, what, out);
	weft_close(w);
	return ret;
}

int wfi_cli_blocks(struct weft *w, uint32_t space_id, uint64_t from, json_t **out)
{
	char *text = NULL;
	const int ret = weft_blocks_json(w, space_id, from, &text);

	return ret < 0 ? wfi_cli_failed("blocks", ret) : parse(text, "blocks", out);
}

/* ---- spaces by name ---- */

static bool is_named(const json_t *space, const char *name)
{
	const char *model = wfi_json_str(space, "model");
	const size_t len = strlen(model);
	uint64_t id;

	if (!strcmp(name, model) || (!wfi_value_u64(name, &id) && id == wfi_json_u64(space, "id")))
		return true;
	return !strncmp(name, model, len) && name[len] == ':' &&
	       !strcmp(name + len + 1, wfi_json_str(space, "layout"));
}

static int no_such_space(const json_t *spaces, const char *name)
{
	struct wfi_nearest near;
	size_t i;

	wfi_nearest_init(&near, name);
	for (i = 0; i < json_array_size(spaces); i++)
		wfi_nearest_offer(&near, wfi_json_str(json_array_get(spaces, i), "model"));
	fprintf(stderr, "weft: no space is named \"%s\"", name);
	if (near.best)
		fprintf(stderr, "; did you mean \"%s\"?\n", near.best);
	else
		fputs(json_array_size(spaces) ? ": weft ls shows those that there are\n"
					      : ": no space is open\n",
		      stderr);
	return WFI_EXIT_FAILED;
}

int wfi_cli_space_find(struct weft *w, const char *name, json_t **out)
{
	json_t *root, *spaces, *found = NULL;
	char *text = NULL;
	unsigned nr = 0;
	size_t i;
	int ret;

	ret = weft_ls_json(w, &text);
	ret = ret < 0 ? wfi_cli_failed("ls", ret) : parse(text, "ls", &root);
	if (ret)
		return ret;
	spaces = json_object_get(root, "spaces");
	for (i = 0; i < json_array_size(spaces); i++) {
		if (!is_named(json_array_get(spaces, i), name))
			continue;
		found = json_array_get(spaces, i);
		nr++;
	}
	if (!nr) {
		ret = no_such_space(spaces, name);
	} else if (nr > 1) {
		fprintf(stderr,
			"weft: %u spaces are named \"%s\": say MODEL:LAYOUT, or the id that "
			"weft ls --json shows\n",
			nr, name);
		ret = WFI_EXIT_FAILED;
	} else {
		*out = json_incref(found);
	}
	json_decref(root);
	return ret;
}

int wfi_cli_space_open_named(struct weft *w, const char *name, struct weft_space **out)
{
	struct weft_space_opts so = {
		.size = sizeof(so),
		.verify = 1,
		/* the largest bound that anybody asked for holds */
		.max_blocks = 1,
	};
	json_t *space;
	int ret = wfi_cli_space_find(w, name, &space);

	if (ret)
		return ret;
	so.model = wfi_json_str(space, "model");
	so.layout = wfi_json_str(space, "layout");
	so.block_bytes = wfi_json_u64(space, "block_bytes");
	so.tokens_per_block = (uint32_t)wfi_json_u64(space, "tokens_per_block");
	so.nr_layers = (uint32_t)wfi_json_u64(space, "layers");
	so.dtype = (uint32_t)wfi_json_u64(space, "dtype");
	ret = weft_space_open(w, &so, out);
	json_decref(space);
	return ret ? wfi_cli_failed("opening the space", ret) : WFI_EXIT_OK;
}
