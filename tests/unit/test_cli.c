/* SPDX-License-Identifier: Apache-2.0 */
/* what weft's subcommands share: options, and how figures are written */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "cli/cli.h"

struct test_opts {
	struct wfi_cli_common common;
	const char *text;
	uint64_t size;
	uint64_t number;
	uint64_t time_ns;
	double factor;
	bool flag;
};

static const struct wfi_cli_opt table[] = {
	{ "text", "TEXT", WFI_CLI_STRING, offsetof(struct test_opts, text), "" },
	{ "size", "SIZE", WFI_CLI_SIZE, offsetof(struct test_opts, size), "" },
	{ "number", "N", WFI_CLI_NUMBER, offsetof(struct test_opts, number), "" },
	{ "time", "TIME", WFI_CLI_DURATION, offsetof(struct test_opts, time_ns), "" },
	{ "factor", "X", WFI_CLI_FACTOR, offsetof(struct test_opts, factor), "" },
	{ "flag", NULL, WFI_CLI_FLAG, offsetof(struct test_opts, flag), "a flag of the test" },
	{ 0 },
};

static const struct wfi_cli_cmd cmd = {
	.name = "try",
	.summary = "a command of the test",
	.opts = table,
	.opts_len = sizeof(struct test_opts),
	.args = "[A] [B]",
	.max_args = 2,
	.examples = "  weft try --flag\n",
};

#define ARGS_MAX 16

/* splits @line at its blanks and parses it */
static int parse(const char *line, struct test_opts *o, char **args)
{
	static char copy[512];
	char *word, *save;
	int n = 0;

	memset(o, 0, sizeof(*o));
	snprintf(copy, sizeof(copy), "%s", line);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		assert_true(n < ARGS_MAX);
		args[n++] = word;
	}
	return wfi_cli_parse(&cmd, o, n, args);
}

static void test_kinds(void **state)
{
	struct test_opts o;
	char *args[ARGS_MAX];

	(void)state;
	assert_int_equal(parse("--text=a=b --size 4M --number 0x10 --time 5ms --factor 1.5 --flag",
			       &o, args),
			 0);
	assert_string_equal(o.text, "a=b");
	assert_int_equal(o.size, 4 << 20);
	assert_int_equal(o.number, 16);
	assert_int_equal(o.time_ns, 5000000);
	assert_true(o.factor > 1.49 && o.factor < 1.51);
	assert_true(o.flag);
}

static void test_common_and_arguments(void **state)
{
	struct test_opts o;
	char *args[ARGS_MAX];

	(void)state;
	assert_int_equal(parse("one --json --socket /a --socket=/b --token t -", &o, args), 2);
	assert_string_equal(args[0], "one");
	assert_string_equal(args[1], "-");
	assert_true(o.common.json);
	assert_int_equal(o.common.nr_sockets, 2);
	assert_string_equal(o.common.sockets[1], "/b");
	assert_string_equal(o.common.token, "t");
	assert_int_equal(parse("-- --flag", &o, args), 1);
	assert_string_equal(args[0], "--flag");
	assert_false(o.flag);
	assert_int_equal(parse("-h", &o, args), 0);
	assert_true(o.common.help);
}

static void test_refused(void **state)
{
	static const char *const lines[] = {
		"--nonsense",	 "--flag=1",	 "--text",	"--size 4Q",
		"--number -1",	 "--number 1x",	 "--time 5",	"--factor -1",
		"--factor inf",	 "--factor nan", "--factor 1e", "-x",
		"one two three", "--fla",	 "--",		"--size 99999999999999999999",
		"--socket",
	};
	struct test_opts o;
	char *args[ARGS_MAX];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		const int want = strcmp(lines[i], "--") ? -1 : 0;

		if (parse(lines[i], &o, args) != want)
			fail_msg("%s", lines[i]);
	}
}

static void test_too_many_sockets(void **state)
{
	struct test_opts o = { 0 };
	char words[WFI_CLI_SOCKETS + 1][16];
	char *args[WFI_CLI_SOCKETS + 1];
	unsigned i;

	(void)state;
	for (i = 0; i <= WFI_CLI_SOCKETS; i++) {
		snprintf(words[i], sizeof(words[i]), "--socket=/%u", i);
		args[i] = words[i];
	}
	assert_int_equal(wfi_cli_parse(&cmd, &o, WFI_CLI_SOCKETS + 1, args), -1);
}

static void test_help_names_all(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	assert_non_null(out);
	wfi_cli_help(&cmd, out);
	fclose(out);
	assert_non_null(strstr(text, "--size SIZE"));
	assert_non_null(strstr(text, "--flag "));
	assert_non_null(strstr(text, "--json"));
	assert_non_null(strstr(text, "Examples:\n  weft try --flag\n"));
	free(text);
}

static void test_texts(void **state)
{
	char t[WFI_TEXT], clean[8];

	(void)state;
	assert_string_equal(wfi_text_bytes(0, t), "0 B");
	assert_string_equal(wfi_text_bytes(1023, t), "1.0 KiB");
	assert_string_equal(wfi_text_bytes(1610612736.0, t), "1.5 GiB");
	assert_string_equal(wfi_text_count(999, t), "999");
	assert_string_equal(wfi_text_count(23400000, t), "23.4M");
	assert_string_equal(wfi_text_ns(850, t), "850ns");
	assert_string_equal(wfi_text_ns(1250000, t), "1.2ms");
	assert_string_equal(wfi_text_age(59, t), "59s");
	assert_string_equal(wfi_text_age(90061, t), "1d 1h");
	assert_string_equal(wfi_text_clean("a\033[2Jbcdefgh", clean, sizeof(clean)), "a?[2Jbc");
}

static void test_json_of_any_shape(void **state)
{
	json_t *obj = json_loads(
		"{\"n\": 5, \"neg\": -5, \"big\": 1e300, \"s\": \"x\", \"b\": true}", 0, NULL);

	(void)state;
	assert_non_null(obj);
	assert_int_equal(wfi_json_u64(obj, "n"), 5);
	assert_int_equal(wfi_json_u64(obj, "neg"), 0);
	assert_int_equal(wfi_json_u64(obj, "big"), 0);
	assert_int_equal(wfi_json_u64(obj, "s"), 0);
	assert_int_equal(wfi_json_u64(obj, "none"), 0);
	assert_int_equal(wfi_json_u64(NULL, "n"), 0);
	assert_string_equal(wfi_json_str(obj, "s"), "x");
	assert_string_equal(wfi_json_str(obj, "n"), "");
	assert_true(wfi_json_bool(obj, "b"));
	assert_false(wfi_json_bool(obj, "n"));
	json_decref(obj);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_common_and_arguments),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_many_sockets),
		cmocka_unit_test(test_help_names_all),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_json_of_any_shape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
