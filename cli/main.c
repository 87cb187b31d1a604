/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "daemon/value.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

static int run_version(const void *opts, int argc, char **argv);
static int run_help(const void *opts, int argc, char **argv);

static const struct wfi_cli_cmd cmd_version = {
	.name = "version",
	.summary = "the version of weft",
	.opts_len = sizeof(struct wfi_cli_common),
	.examples = "  weft version\n  weft version --json\n",
	.run = run_version,
};

static const struct wfi_cli_cmd cmd_help = {
	.name = "help",
	.summary = "what there is, or how one command is used",
	.opts_len = sizeof(struct wfi_cli_common),
	.args = "[COMMAND]",
	.max_args = 1,
	.examples = "  weft help\n  weft help replay\n",
	.run = run_help,
};

static const struct wfi_cli_cmd *const commands[] = {
	&wfi_cmd_status, &wfi_cmd_top,	  &wfi_cmd_ls,	    &wfi_cmd_stat,   &wfi_cmd_put,
	&wfi_cmd_get,	 &wfi_cmd_drop,	  &wfi_cmd_export,  &wfi_cmd_import, &wfi_cmd_replay,
	&wfi_cmd_space,	 &wfi_cmd_tier,	  &wfi_cmd_members, &wfi_cmd_route,  &wfi_cmd_drain,
	&wfi_cmd_pki,	 &wfi_cmd_doctor, &cmd_version,	    &cmd_help,
};

static const struct wfi_cli_cmd *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < WFI_ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static int unknown_command(const char *name)
{
	struct wfi_nearest near;
	size_t i;

	wfi_nearest_init(&near, name);
	for (i = 0; i < WFI_ARRAY_SIZE(commands); i++)
		wfi_nearest_offer(&near, commands[i]->name);
	if (near.best)
		return wfi_cli_usage(NULL, "unknown command \"%s\"; did you mean \"%s\"?", name,
				     near.best);
	return wfi_cli_usage(NULL, "unknown command \"%s\"", name);
}

static void overview(FILE *out)
{
	size_t i;

	fputs("weft - look after a node of Weft, put and get blocks\n\n"
	      "Usage: weft COMMAND [OPTION]... [ARGUMENT]...\n\nCommands:\n",
	      out);
	for (i = 0; i < WFI_ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\nEach takes --json, --socket PATH, --token TOKEN and --help.\n"
	      "Exit status: 0 done, 1 failed, 2 usage, 3 no such block, 4 no node.\n\n"
	      "Examples:\n"
	      "  weft doctor\n"
	      "  weft status\n"
	      "  weft put --key greeting hello.txt && weft get --key greeting\n",
	      out);
}

static int run_version(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_common *o = opts;

	(void)argc;
	(void)argv;
	if (o->json)
		return wfi_cli_print_json(json_pack("{s:s,s:i}", "version", weft_version(), "abi",
						    (int)WEFT_ABI_VERSION),
					  0);
	printf("weft %s\n", weft_version());
	return WFI_EXIT_OK;
}

static int run_help(const void *opts, int argc, char **argv)
{
	const struct wfi_cli_cmd *cmd;

	(void)opts;
	if (!argc) {
		overview(stdout);
		return WFI_EXIT_OK;
	}
	cmd = find_command(argv[0]);
	if (!cmd)
		return unknown_command(argv[0]);
	wfi_cli_help(cmd, stdout);
	return WFI_EXIT_OK;
}

static int run_command(const struct wfi_cli_cmd *cmd, int argc, char **argv)
{
	struct wfi_cli_common *common;
	void *opts;
	int ret, nr;

	opts = calloc(1, cmd->opts_len);
	if (!opts) {
		fputs("weft: out of memory\n", stderr);
		return WFI_EXIT_FAILED;
	}
	if (cmd->defaults)
		memcpy(opts, cmd->defaults, cmd->opts_len);
	common = opts;
	nr = wfi_cli_parse(cmd, opts, argc, argv);
	if (nr < 0) {
		ret = WFI_EXIT_USAGE;
	} else if (common->help) {
		wfi_cli_help(cmd, stdout);
		ret = WFI_EXIT_OK;
	} else if (common->nr_sockets > 1 && cmd != &wfi_cmd_replay) {
		ret = wfi_cli_usage(cmd->name, "%s: only one --socket", cmd->name);
	} else {
		ret = cmd->run(opts, nr, argv);
	}
	free(opts);
	return ret;
}

int main(int argc, char **argv)
{
	const struct wfi_cli_cmd *cmd;

	/* errors of the output, which says what it was, not the end of this process */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	wfi_log_init(WFI_LOG_WARN, "weft");
	if (argc < 2) {
		overview(stderr);
		return WFI_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		overview(stdout);
		return WFI_EXIT_OK;
	}
	if (!strcmp(argv[1], "--version"))
		argv[1] += 2;
	cmd = find_command(argv[1]);
	if (!cmd)
		return unknown_command(argv[1]);
	return run_command(cmd, argc - 2, argv + 2);
}
