/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cli.h - what the subcommands of weft share: options, exit codes, output
 */
#ifndef WFI_CLI_H
#define WFI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "weft/weft.h"

enum wfi_cli_exit {
	WFI_EXIT_OK = 0,
	WFI_EXIT_FAILED = 1,
	WFI_EXIT_USAGE = 2,
	WFI_EXIT_MISS = 3,
	WFI_EXIT_NO_NODE = 4,
};

#define WFI_CLI_SOCKETS 16

/* options that every subcommand takes; the first member of each subcommand's own options */
struct wfi_cli_common {
	const char *sockets[WFI_CLI_SOCKETS];
	unsigned nr_sockets;
	const char *token;
	bool json;
	bool help;
};

enum wfi_cli_kind {
	WFI_CLI_FLAG, /* bool */
	WFI_CLI_STRING, /* const char * */
	WFI_CLI_SIZE, /* uint64_t, "4M" */
	WFI_CLI_NUMBER, /* uint64_t */
	WFI_CLI_DURATION, /* uint64_t, ns, "5s" */
	WFI_CLI_FACTOR, /* double, not below 0 */
	WFI_CLI_SOCKET, /* added to the list in struct wfi_cli_common */
};

/**
 * struct wfi_cli_opt - one option
 * @name: without its dashes
 * @arg: what its argument is called in the help, NULL for flags
 * @off: of its value in the subcommand's options
 */
struct wfi_cli_opt {
	const char *name;
	const char *arg;
	enum wfi_cli_kind kind;
	size_t off;
	const char *help;
};

/**
 * struct wfi_cli_cmd - one subcommand
 * @opts: ends with a zero name; NULL: only the common ones
 * @defaults: what the options start from, or NULL: zeros; opts_len bytes
 * @opts_len: size of the struct that holds the options
 * @args: of arguments that are no options, for the help; @max_args of them
 * @examples: lines, shown as they are
 * @run: Return: enum wfi_cli_exit. @argv has what are no options
 */
struct wfi_cli_cmd {
	const char *name;
	const char *summary;
	const struct wfi_cli_opt *opts;
	const void *defaults;
	size_t opts_len;
	const char *args;
	int max_args;
	const char *examples;
	int (*run)(const void *opts, int argc, char **argv);
};

extern const struct wfi_cli_cmd wfi_cmd_doctor;
extern const struct wfi_cli_cmd wfi_cmd_drain;
extern const struct wfi_cli_cmd wfi_cmd_drop;
extern const struct wfi_cli_cmd wfi_cmd_export;
extern const struct wfi_cli_cmd wfi_cmd_get;
extern const struct wfi_cli_cmd wfi_cmd_import;
extern const struct wfi_cli_cmd wfi_cmd_ls;
extern const struct wfi_cli_cmd wfi_cmd_members;
extern const struct wfi_cli_cmd wfi_cmd_pki;
extern const struct wfi_cli_cmd wfi_cmd_put;
extern const struct wfi_cli_cmd wfi_cmd_replay;
extern const struct wfi_cli_cmd wfi_cmd_route;
extern const struct wfi_cli_cmd wfi_cmd_space;
extern const struct wfi_cli_cmd wfi_cmd_stat;
extern const struct wfi_cli_cmd wfi_cmd_status;
extern const struct wfi_cli_cmd wfi_cmd_tier;
extern const struct wfi_cli_cmd wfi_cmd_top;

/* ---- options (options.c) ---- */

/**
 * wfi_cli_parse - read options into @out, which holds the defaults
 *
 * Options and arguments may be mixed; "--" ends the options. Arguments are moved to the front of
 * @argv, in order.
 *
 * Return: number of arguments, -1 after a message on stderr.
 */
int wfi_cli_parse(const struct wfi_cli_cmd *cmd, void *out, int argc, char **argv);
void wfi_cli_help(const struct wfi_cli_cmd *cmd, FILE *out);
/* says what is wrong and where the help is. Return: WFI_EXIT_USAGE */
int wfi_cli_usage(const char *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- what goes on until somebody stops it (until.c) ---- */

/* this signal stops it */
void wfi_cli_stop_on(int sig);
bool wfi_cli_stopped(void);
/* monotonic */
uint64_t wfi_cli_now_ns(void);
/* or until it is stopped */
void wfi_cli_sleep_until(uint64_t ns);

/* ---- talking to a node (node.c) ---- */

/* attach to the only socket given, or the default; @idx names one of several.
 * Return: WFI_EXIT_OK and @out, or the exit code, after a message on stderr */
int wfi_cli_open(const struct wfi_cli_common *common, unsigned idx, struct weft **out);
/* says what a call of libweft gave. Return: WFI_EXIT_NO_NODE when the node is gone, else _FAILED */
int wfi_cli_failed(const char *what, int err);

/* asks the node for one of its texts. Return: exit code, and the object in @out */
int wfi_cli_fetch(const struct wfi_cli_common *common, int (*ask)(struct weft *, char **),
		  const char *what, json_t **out);

/* the space that a node knows as @name: a model, MODEL:LAYOUT, or an id.
 * Return: WFI_EXIT_OK and the node's object in @out; or the exit code, after a message that says
 * which name is nearest */
int wfi_cli_space_find(struct weft *w, const char *name, json_t **out);
/* a page of blocks. Return: the same */
int wfi_cli_blocks(struct weft *w, uint32_t space_id, uint64_t from, json_t **out);

/* options that name a space, for commands that put and get; within the command's own */
struct wfi_cli_space {
	const char *model;
	const char *layout;
	uint64_t block_bytes;
	uint64_t tokens_per_block;
	uint64_t layers;
};

#define WFI_CLI_SPACE_OPTS(type, member)                                                           \
	{ "model", "NAME", WFI_CLI_STRING, offsetof(struct type, member.model),                    \
	  "name of the model: part of each key" },                                                 \
		{ "layout", "NAME", WFI_CLI_STRING, offsetof(struct type, member.layout),          \
		  "name of the layout: part of each key" },                                        \
		{ "block-bytes", "SIZE", WFI_CLI_SIZE, offsetof(struct type, member.block_bytes),  \
		  "bytes of one block" },                                                          \
		{ "tokens-per-block", "N", WFI_CLI_NUMBER,                                         \
		  offsetof(struct type, member.tokens_per_block), "tokens of one block" },         \
	{                                                                                          \
		"layers", "N", WFI_CLI_NUMBER, offsetof(struct type, member.layers),               \
			"layers in a block"                                                        \
	}

#define WFI_CLI_SPACE_DEFAULTS(bytes)                                                              \
	{                                                                                          \
		.model = "weft-cli", .layout = "bytes", .block_bytes = (bytes),                    \
		.tokens_per_block = 16, .layers = 1                                                \
	}

/* Return: WFI_EXIT_OK and @out, or the exit code, after a message */
int wfi_cli_space_open(struct weft *w, const struct wfi_cli_space *opts, const char *cmd,
		       struct weft_space **out);
/* the same of one that is there, by its name as for wfi_cli_space_find() */
int wfi_cli_space_open_named(struct weft *w, const char *name, struct weft_space **out);

/* ---- members.c ---- */

/* lines of weft status; takes NULL */
void wfi_cli_show_membership(const json_t *membership);

/* ---- output (output.c) ---- */

/* takes @value. Return: WFI_EXIT_OK, WFI_EXIT_FAILED when the output cannot be written */
int wfi_cli_print_json(json_t *value, size_t indent);
/* after text. Return: the same */
int wfi_cli_flushed(void);
/* all of @buf. Return: 0, -errno */
int wfi_cli_write(int fd, const void *buf, size_t len);
/* says what became of a file. Return: WFI_EXIT_FAILED */
int wfi_cli_file_failed(const char *path, int err);
/* a member of an object as what it should be, or 0, "" and NULL when it is not */
uint64_t wfi_json_u64(const json_t *obj, const char *key);
const char *wfi_json_str(const json_t *obj, const char *key);
bool wfi_json_bool(const json_t *obj, const char *key);

#define WFI_TEXT 24 /* bytes for what these write */
/* "1.5 GiB" */
const char *wfi_text_bytes(double bytes, char out[WFI_TEXT]);
/* "1.5k", "23.4M" */
const char *wfi_text_count(double count, char out[WFI_TEXT]);
/* "850ns", "1.25ms" */
const char *wfi_text_ns(uint64_t ns, char out[WFI_TEXT]);
/* "3d 4h", "5m 12s" */
const char *wfi_text_age(uint64_t seconds, char out[WFI_TEXT]);
/* control characters of a text from outside, for the terminal: replaced by '?' in @out */
const char *wfi_text_clean(const char *text, char *out, size_t len);

#endif
