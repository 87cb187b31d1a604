/* SPDX-License-Identifier: Apache-2.0 */
/* tinylm: serves a small model whose KV cache lies in weft. engine.c is the part to copy */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "protocol.h"

static const char usage[] =
	"usage: tinylm [options]\n"
	"\n"
	"A small language model whose KV cache lies in weft.\n"
	"\n"
	"  -r, --role ROLE        both (default), prefill or decode\n"
	"  -p, --prompt TEXT      run this prompt\n"
	"  -f, --prompts FILE     run each line of the file\n"
	"                         without -p and -f: JSON lines on standard input (protocol.h)\n"
	"  -n, --max-tokens N     length of the answer (32)\n"
	"  -t, --temperature T    0 takes the likeliest token (0)\n"
	"      --sample-seed N    of the draws when T is not 0 (0)\n"
	"  -s, --size SIZE        tiny (default), small, or kv8b: the KV rows of an 8B model\n"
	"      --seed N           of the weights (1)\n"
	"  -S, --socket PATH      of the node (weft's default)\n"
	"  -e, --embedded         needs no node: runs one in this process\n"
	"      --no-reuse         look for no prefix in the cache\n"
	"  -j, --json             answer -p and -f with JSON lines too\n"
	"  -h, --help\n"
	"\n"
	"examples:\n"
	"  tinylm --embedded --prompt 'Once upon a time'\n"
	"  echo '{\"id\": 1, \"prompt\": \"Once upon a time\"}' | tinylm --role prefill\n";

enum {
	OPT_SAMPLE_SEED = 256,
	OPT_SEED,
	OPT_NO_REUSE,
};

static const struct option long_options[] = {
	{ "role", required_argument, NULL, 'r' },
	{ "prompt", required_argument, NULL, 'p' },
	{ "prompts", required_argument, NULL, 'f' },
	{ "max-tokens", required_argument, NULL, 'n' },
	{ "temperature", required_argument, NULL, 't' },
	{ "sample-seed", required_argument, NULL, OPT_SAMPLE_SEED },
	{ "size", required_argument, NULL, 's' },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "socket", required_argument, NULL, 'S' },
	{ "embedded", no_argument, NULL, 'e' },
	{ "no-reuse", no_argument, NULL, OPT_NO_REUSE },
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct app {
	struct engine engine;
	struct engine_opts opts;
	struct request defaults;
	const struct role *role;
	const char *prompt;
	const char *prompts;
	bool json;
	unsigned nr_failed;
};

/* ---- roles ---- */

struct role {
	const char *name;
	int (*run)(struct engine *e, const struct request *req, struct result *res, json_t *id);
};

static int run_both(struct engine *e, const struct request *req, struct result *res, json_t *id)
{
	(void)id;
	return engine_both(e, req, res);
}

static int run_prefill(struct engine *e, const struct request *req, struct result *res, json_t *id)
{
	(void)id;
	return engine_prefill(e, req, res);
}

static void ticket_ready(void *ctx, const struct weft_ticket *ticket, uint32_t first_block)
{
	answer_ticket(ctx, ticket, first_block);
}

static int run_decode(struct engine *e, const struct request *req, struct result *res, json_t *id)
{
	return engine_decode(e, req, res, ticket_ready, id);
}

static const struct role roles[] = {
	{ "both", run_both },
	{ "prefill", run_prefill },
	{ "decode", run_decode },
};

static const struct role *role_find(const char *name)
{
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (!strcmp(roles[i].name, name))
			return &roles[i];
	return NULL;
}

/* ---- requests ---- */

static void print_text(const struct result *res)
{
	printf("%u of %u prompt tokens from the cache, the first token after %.1f ms:",
	       res->prefix_tokens, res->prompt_tokens, (double)res->ttft_us / 1000);
	for (uint32_t i = 0; i < res->nr_tokens; i++)
		printf(" %u", res->tokens[i]);
	putchar('\n');
}

static void tell_error(struct app *app, json_t *id, const char *what)
{
	app->nr_failed++;
	if (app->json)
		answer_error(id, what);
	else
		fprintf(stderr, "tinylm: %s\n", what);
}

/* Return: 0, also when this request failed; negative errno when no other can succeed */
static int serve(struct app *app, const struct request *req, json_t *id)
{
	struct result res;
	int ret;

	ret = app->role->run(&app->engine, req, &res, id);
	if (ret == -E2BIG)
		tell_error(app, id, "prompt and answer are longer than the model's context");
	else if (ret < 0)
		tell_error(app, id, strerror(-ret));
	else if (app->json)
		answer_result(id, app->role->name, &res);
	else
		print_text(&res);
	return ret == -ECONNRESET ? weft_reattach(app->engine.weft) : 0;
}

static int serve_prompt(struct app *app, const char *prompt, unsigned line_nr)
{
	struct request req = app->defaults;
	json_t *id = json_integer(line_nr);
	int ret;

	req.prompt = prompt;
	ret = serve(app, &req, id);
	json_decref(id);
	return ret;
}

static int serve_message(struct app *app, const char *line, unsigned line_nr)
{
	struct message msg;
	char why[256];
	int ret = 0;

	if (message_parse(line, line_nr, &app->defaults, &msg, why, sizeof(why)) < 0)
		tell_error(app, msg.id, why);
	else
		ret = serve(app, &msg.req, msg.id);
	message_fini(&msg);
	return ret;
}

static int serve_lines(struct app *app, FILE *file,
		       int (*serve_line)(struct app *app, const char *line, unsigned line_nr))
{
	unsigned line_nr = 0;
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	int ret = 0;

	while (!ret && (len = getline(&line, &room, file)) >= 0) {
		line_nr++;
		line[strcspn(line, "\r\n")] = '\0';
		if (*line)
			ret = serve_line(app, line, line_nr);
	}
	free(line);
	return ret;
}

static int serve_all(struct app *app)
{
	FILE *file;
	int ret;

	if (app->prompt)
		return serve_prompt(app, app->prompt, 1);
	if (!app->prompts)
		return serve_lines(app, stdin, serve_message);
	file = fopen(app->prompts, "re");
	if (!file) {
		ret = -errno;
		fprintf(stderr, "tinylm: %s: %s\n", app->prompts, strerror(errno));
		return ret;
	}
	ret = serve_lines(app, file, serve_prompt);
	fclose(file);
	return ret;
}

/* ---- options ---- */

static int parse_u64(const char *arg, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(arg, &end, 0);
	return *arg >= '0' && *arg <= '9' && !*end && !errno && *out <= max ? 0 : -EINVAL;
}

static int parse_number(struct app *app, int opt, const char *arg)
{
	uint64_t max_tokens;
	char *end;

	switch (opt) {
	case 'n':
		if (parse_u64(arg, TLM_TOKENS_MAX, &max_tokens) < 0 || !max_tokens)
			return -EINVAL;
		app->defaults.max_tokens = (uint32_t)max_tokens;
		return 0;
	case 't':
		app->defaults.temperature = strtof(arg, &end);
		return *arg && !*end && app->defaults.temperature >= 0 ? 0 : -EINVAL;
	case OPT_SAMPLE_SEED:
		return parse_u64(arg, INT64_MAX, &app->defaults.sample_seed);
	default:
		return parse_u64(arg, UINT64_MAX, &app->opts.seed);
	}
}

/* Return: 0, 1 when help was asked for, -EINVAL */
static int parse_option(struct app *app, int opt)
{
	switch (opt) {
	case 'r':
		app->role = role_find(optarg);
		return app->role ? 0 : -EINVAL;
	case 'p':
		app->prompt = optarg;
		return 0;
	case 'f':
		app->prompts = optarg;
		return 0;
	case 's':
		app->opts.size = optarg;
		return 0;
	case 'S':
		app->opts.socket = optarg;
		return 0;
	case 'e':
		app->opts.embedded = true;
		return 0;
	case OPT_NO_REUSE:
		app->opts.no_reuse = true;
		return 0;
	case 'j':
		app->json = true;
		return 0;
	case 'h':
		return 1;
	case '?':
		return -EINVAL;
	default:
		return parse_number(app, opt, optarg);
	}
}

static int parse_options(struct app *app, int argc, char **argv)
{
	int opt, ret;

	while ((opt = getopt_long(argc, argv, "r:p:f:n:t:s:S:ejh", long_options, NULL)) != -1) {
		ret = parse_option(app, opt);
		if (ret < 0 && opt != '?')
			fprintf(stderr, "tinylm: bad value '%s'\n", optarg);
		if (ret)
			return ret;
	}
	if (optind < argc) {
		fprintf(stderr, "tinylm: what is '%s'?\n", argv[optind]);
		return -EINVAL;
	}
	if (app->role != &roles[0] || (!app->prompt && !app->prompts))
		app->json = true;
	return 0;
}

int main(int argc, char **argv)
{
	struct app app = {
		.opts = { .size = "tiny", .seed = 1 },
		.defaults = { .max_tokens = 32 },
		.role = &roles[0],
	};
	int ret;

	ret = parse_options(&app, argc, argv);
	if (ret < 0) {
		fprintf(stderr, "tinylm: --help tells the options\n");
		return 2;
	}
	if (ret) {
		fputs(usage, stdout);
		return 0;
	}
	if (engine_open(&app.opts, &app.engine) < 0)
		return 1;
	ret = serve_all(&app);
	engine_close(&app.engine);
	return ret < 0 || app.nr_failed;
}
