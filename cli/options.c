/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "daemon/value.h"
#include "weft_internal/util.h"

static const struct wfi_cli_opt common_opts[] = {
	{ "json", NULL, WFI_CLI_FLAG, offsetof(struct wfi_cli_common, json),
	  "print JSON instead of text" },
	{ "socket", "PATH", WFI_CLI_SOCKET, offsetof(struct wfi_cli_common, sockets),
	  "the node's socket (default: WEFT_SOCKET, else where weftd puts it)" },
	{ "token", "TOKEN", WFI_CLI_STRING, offsetof(struct wfi_cli_common, token),
	  "the tenant's token (default: WEFT_TOKEN; others see arguments, not the environment)" },
	{ "help", NULL, WFI_CLI_FLAG, offsetof(struct wfi_cli_common, help), "this text" },
	{ 0 },
};

int wfi_cli_usage(const char *cmd, const char *fmt, ...)
{
	va_list ap;

	fputs("weft: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry: weft help%s%s\n", cmd ? " " : "", cmd ? cmd : "");
	return WFI_EXIT_USAGE;
}

static const struct wfi_cli_opt *find_in(const struct wfi_cli_opt *opts, const char *name,
					 size_t len)
{
	for (; opts && opts->name; opts++)
		if (strlen(opts->name) == len && !memcmp(opts->name, name, len))
			return opts;
	return NULL;
}

static int unknown_option(const struct wfi_cli_cmd *cmd, const char *arg, size_t len)
{
	char name[64];
	struct wfi_nearest near;
	const struct wfi_cli_opt *o;

	snprintf(name, sizeof(name), "%.*s", (int)len, arg);
	wfi_nearest_init(&near, name);
	for (o = cmd->opts; o && o->name; o++)
		wfi_nearest_offer(&near, o->name);
	for (o = common_opts; o->name; o++)
		wfi_nearest_offer(&near, o->name);
	if (near.best)
		wfi_cli_usage(cmd->name, "%s: unknown option --%s; did you mean --%s?", cmd->name,
			      name, near.best);
	else
		wfi_cli_usage(cmd->name, "%s: unknown option --%s", cmd->name, name);
	return -1;
}

static int store_socket(struct wfi_cli_common *common, const char *path)
{
	if (common->nr_sockets == WFI_CLI_SOCKETS)
		return -ERANGE;
	common->sockets[common->nr_sockets++] = path;
	return 0;
}

static int store_factor(double *at, const char *text)
{
	char *end;
	double v;

	v = strtod(text, &end);
	if (end == text || *end || !isfinite(v) || v < 0)
		return -EINVAL;
	*at = v;
	return 0;
}

/* what store() takes */
static const char *wanted(const struct wfi_cli_opt *o)
{
	switch (o->kind) {
	case WFI_CLI_SIZE:
		return "a size, as 64K or 1G are";
	case WFI_CLI_DURATION:
		return "a duration, as 100ms or 5s are";
	case WFI_CLI_NUMBER:
	case WFI_CLI_FACTOR:
		return "a number that it takes";
	case WFI_CLI_SOCKET:
		return "taken: there are too many";
	default:
		return o->arg;
	}
}

static int store(const struct wfi_cli_opt *o, void *out, const char *text)
{
	void *at = (char *)out + o->off;

	switch (o->kind) {
	case WFI_CLI_FLAG:
		*(bool *)at = true;
		return 0;
	case WFI_CLI_STRING:
		*(const char **)at = text;
		return 0;
	case WFI_CLI_SIZE:
		return wfi_value_size(text, at);
	case WFI_CLI_NUMBER:
		return wfi_value_u64(text, at);
	case WFI_CLI_DURATION:
		return wfi_value_duration(text, 0, at);
	case WFI_CLI_FACTOR:
		return store_factor(at, text);
	case WFI_CLI_SOCKET:
		return store_socket(out, text);
	}
	return -EINVAL;
}

/* one option at argv[0]. Return: how many of argv it took, -1 after a message */
static int parse_one(const struct wfi_cli_cmd *cmd, void *out, int argc, char **argv)
{
	const char *name = argv[0] + 2;
	const size_t len = strcspn(name, "=");
	const struct wfi_cli_opt *o;
	const char *text = name[len] ? name + len + 1 : NULL;
	int used = 1;

	o = find_in(cmd->opts, name, len);
	if (!o)
		o = find_in(common_opts, name, len);
	if (!o)
		return unknown_option(cmd, name, len);
	if (!o->arg && text) {
		wfi_cli_usage(cmd->name, "%s: --%s takes no value", cmd->name, o->name);
		return -1;
	}
	if (o->arg && !text) {
		if (argc < 2) {
			wfi_cli_usage(cmd->name, "%s: --%s wants %s", cmd->name, o->name, o->arg);
			return -1;
		}
		text = argv[1];
		used = 2;
	}
	if (store(o, out, text)) {
		wfi_cli_usage(cmd->name, "%s: --%s: \"%s\" is not %s", cmd->name, o->name, text,
			      wanted(o));
		return -1;
	}
	return used;
}

int wfi_cli_parse(const struct wfi_cli_cmd *cmd, void *out, int argc, char **argv)
{
	struct wfi_cli_common *common = out;
	int i = 0, nr = 0, used;

	while (i < argc) {
		if (!strcmp(argv[i], "-h")) {
			common->help = true;
			i++;
		} else if (!strcmp(argv[i], "--")) {
			for (i++; i < argc; i++)
				argv[nr++] = argv[i];
		} else if (argv[i][0] == '-' && argv[i][1] == '-') {
			used = parse_one(cmd, out, argc - i, argv + i);
			if (used < 0)
				return -1;
			i += used;
		} else if (argv[i][0] == '-' && argv[i][1]) {
			wfi_cli_usage(cmd->name, "%s: unknown option %s", cmd->name, argv[i]);
			return -1;
		} else {
			argv[nr++] = argv[i++];
		}
	}
	if (nr > cmd->max_args && !common->help) {
		wfi_cli_usage(cmd->name, "%s: one argument too many: \"%s\"", cmd->name,
			      argv[cmd->max_args]);
		return -1;
	}
	return nr;
}

static void help_opts(const struct wfi_cli_opt *opts, FILE *out)
{
	char left[48];

	for (; opts && opts->name; opts++) {
		snprintf(left, sizeof(left), "--%s%s%s", opts->name, opts->arg ? " " : "",
			 opts->arg ? opts->arg : "");
		fprintf(out, "  %-24s %s\n", left, opts->help);
	}
}

void wfi_cli_help(const struct wfi_cli_cmd *cmd, FILE *out)
{
	fprintf(out, "weft %s - %s\n\nUsage: weft %s [OPTION]...%s%s\n\nOptions:\n", cmd->name,
		cmd->summary, cmd->name, cmd->args ? " " : "", cmd->args ? cmd->args : "");
	help_opts(cmd->opts, out);
	help_opts(common_opts, out);
	fprintf(out, "\nExamples:\n%s", cmd->examples);
}
