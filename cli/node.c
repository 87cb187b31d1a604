/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"

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

int wfi_cli_fetch(const struct wfi_cli_common *common, int (*ask)(struct weft *, char **),
		  const char *what, json_t **out)
{
	struct weft *w = NULL;
	char *text = NULL;
	json_error_t err;
	int ret;

	ret = wfi_cli_open(common, 0, &w);
	if (ret)
		return ret;
	ret = ask(w, &text);
	if (ret < 0) {
		ret = wfi_cli_failed(what, ret);
		goto out_close;
	}
	ret = WFI_EXIT_OK;
	*out = json_loads(text, 0, &err);
	if (!*out) {
		fprintf(stderr, "weft: %s: the node's answer is no JSON: %s\n", what, err.text);
		ret = WFI_EXIT_FAILED;
	}

out_close:
	free(text);
	weft_close(w);
	return ret;
}
