/* SPDX-License-Identifier: Apache-2.0 */
/* the node's configuration: values, files with and without faults, overrides, printing */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/config.h"
#include "daemon/value.h"
#include "weft_internal/util.h"

struct fixture {
	char dir[64];
	char path[96];
	char why[WFI_CONFIG_WHY];
	struct wfi_config cfg;
};

static unsigned nr_warnings;
static char last_warning[512];

static void count_warning(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	if (level == WFI_LOG_WARN)
		nr_warnings++;
	snprintf(last_warning, sizeof(last_warning), "%s", line);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	strcpy(f->dir, "/tmp/weft-config-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/weftd.conf", f->dir);
	wfi_config_defaults(&f->cfg);
	nr_warnings = 0;
	wfi_log_set_sink(count_warning, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	wfi_log_set_sink(NULL, NULL);
	unlink(f->path);
	rmdir(f->dir);
	free(f);
	return 0;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(text, 1, strlen(text), out), strlen(text));
	fclose(out);
	assert_int_equal(chmod(path, mode), 0);
}

static int load(struct fixture *f, const char *text)
{
	write_file(f->path, text, 0600);
	f->why[0] = 0;
	return wfi_config_load(f->path, &f->cfg, f->why, sizeof(f->why));
}

static void assert_says(const struct fixture *f, const char *what)
{
	if (!strstr(f->why, what))
		fail_msg("\"%s\" does not say \"%s\"", f->why, what);
}

static void test_sizes(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(wfi_value_size("4096", &v), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(wfi_value_size("512M", &v), 0);
	assert_int_equal(v, 512ull << 20);
	assert_int_equal(wfi_value_size("2GiB", &v), 0);
	assert_int_equal(v, 2ull << 30);
	assert_int_equal(wfi_value_size("0x10k", &v), 0);
	assert_int_equal(v, 16 << 10);
	v = 7;
	assert_int_equal(wfi_value_size("", &v), -EINVAL);
	assert_int_equal(wfi_value_size("M", &v), -EINVAL);
	assert_int_equal(wfi_value_size("1Q", &v), -EINVAL);
	assert_int_equal(wfi_value_size("1M ", &v), -EINVAL);
	assert_int_equal(wfi_value_size("-1", &v), -EINVAL);
	assert_int_equal(wfi_value_size("16777216T", &v), -ERANGE);
	assert_int_equal(wfi_value_size("18446744073709551616", &v), -ERANGE);
	assert_int_equal(v, 7);
}

static void test_durations(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(wfi_value_duration("5s", 0, &v), 0);
	assert_int_equal(v, 5000000000ull);
	assert_int_equal(wfi_value_duration("100ms", 0, &v), 0);
	assert_int_equal(v, 100000000ull);
	assert_int_equal(wfi_value_duration("3", 1000, &v), 0);
	assert_int_equal(v, 3000);
	assert_int_equal(wfi_value_duration("0", 0, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(wfi_value_duration("3", 0, &v), -EINVAL);
	assert_int_equal(wfi_value_duration("3 s", 0, &v), -EINVAL);
	assert_int_equal(wfi_value_duration("6000000h", 0, &v), -ERANGE);
	assert_int_equal(v, 0);
}

static void test_hex_and_distance(void **state)
{
	uint8_t buf[4] = { 0 };

	(void)state;
	assert_int_equal(wfi_value_hex("00ffA5", buf, sizeof(buf)), 3);
	assert_int_equal(buf[2], 0xa5);
	assert_int_equal(wfi_value_hex("0", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(wfi_value_hex("zz", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(wfi_value_hex("0011223344", buf, sizeof(buf)), -ERANGE);
	assert_int_equal(wfi_edit_distance("", "abc"), 3);
	assert_int_equal(wfi_edit_distance("socket", "sokcet"), 1);
	assert_int_equal(wfi_edit_distance("kitten", "sitting"), 3);
}

static void test_no_file(void **state)
{
	struct fixture *f = *state;
	struct wfi_config other;

	assert_int_equal(wfi_config_finish(&f->cfg, f->why, sizeof(f->why)), 0);
	assert_int_equal(f->cfg.nr_tenants, 1);
	assert_string_equal(f->cfg.tenants[0].name, "default");
	assert_string_equal(f->cfg.tenants[0].token, "");
	assert_true(f->cfg.tenants[0].has_salt);
	assert_int_equal(f->cfg.tenants[0].arena_bytes, 1ull << 30);
	assert_int_equal(f->cfg.op_timeout_ms, 5000);
	assert_int_equal(f->cfg.spin_us, 50);
	assert_int_equal(f->cfg.ring_bytes, 256u << 20);
	assert_int_equal(f->cfg.log_level, WFI_LOG_INFO);
	assert_true(f->cfg.hugepages);
	assert_int_not_equal(f->cfg.node_id, 0);
	assert_int_equal(f->cfg.socket[0], '/');

	wfi_config_defaults(&other);
	assert_int_equal(wfi_config_set(&other, "name=elsewhere", f->why, sizeof(f->why)), 0);
	assert_int_equal(wfi_config_finish(&other, f->why, sizeof(f->why)), 0);
	assert_int_not_equal(other.node_id, f->cfg.node_id);
	assert_memory_equal(other.tenants[0].salt, f->cfg.tenants[0].salt, WFI_CONFIG_SALT);
}

static void test_whole_file(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "name = \"node-a\"; // a comment\n"
				 "socket = \"/tmp/a.sock\";\n"
				 "node_id = 0x1234;\n"
				 "arena_bytes = 2097152;\n"
				 "hugepages = false;\nprefault = true;\n"
				 "spin_us = 10;\nlease_ms = \"2m\";\nop_timeout_ms = \"1500ms\";\n"
				 "log_level = \"debug\";\n"
				 "tenants = (\n"
				 "  { name = \"blue\"; token = \"b\"; arena_bytes = \"64M\"; },\n"
				 "  { name = \"green\"; salt = \"00112233445566778899aabbccddeeff"
				 "00112233445566778899aabbccddeeff\"; }\n"
				 ");\n"
				 "peers = ( { name = \"b\"; socket = \"/tmp/b.sock\"; } );\n"),
			 0);
	assert_int_equal(wfi_config_finish(&f->cfg, f->why, sizeof(f->why)), 0);
	assert_string_equal(f->cfg.name, "node-a");
	assert_int_equal(f->cfg.node_id, 0x1234);
	assert_int_equal(f->cfg.spin_us, 10);
	assert_int_equal(f->cfg.lease_ms, 120000);
	assert_int_equal(f->cfg.op_timeout_ms, 1500);
	assert_int_equal(f->cfg.log_level, WFI_LOG_DEBUG);
	assert_false(f->cfg.hugepages);
	assert_int_equal(f->cfg.nr_tenants, 2);
	assert_int_equal(f->cfg.tenants[0].arena_bytes, 64 << 20);
	assert_int_equal(f->cfg.tenants[1].arena_bytes, 2 << 20);
	assert_int_equal(f->cfg.tenants[1].salt[31], 0xff);
	assert_int_equal(f->cfg.nr_peers, 1);
	assert_string_equal(f->cfg.peers[0].socket, "/tmp/b.sock");
	assert_int_equal(nr_warnings, 0);
}

struct fault {
	const char *text;
	const char *says[3];
};

static const struct fault faults[] = {
	{ "name = \"a\";\narena_byts = 1;\n", { ":2: ", "\"arena_byts\"", "\"arena_bytes\"" } },
	{ "\n\nqqqqqqqqqqq = 1;\n", { ":3: ", "known are: ", "op_timeout_ms" } },
	{ "hugepages = \"yes\";\n", { ":1: ", "hugepages", "true or false" } },
	{ "arena_bytes = true;\n", { ":1: ", "arena_bytes", "wrong type" } },
	{ "arena_bytes = (1, 2);\n", { ":1: ", "arena_bytes", "wrong type" } },
	{ "arena_bytes = 1.5;\n", { ":1: ", "arena_bytes", "wrong type" } },
	{ "arena_bytes = \"12Q\";\n", { ":1: ", "12Q", "not a size" } },
	{ "arena_bytes = \"1K\";\n", { ":1: ", "out of range", "1M to 64T" } },
	{ "arena_bytes = -5;\n", { ":1: ", "arena_bytes", "out of range" } },
	{ "arena_bytes = \"99999999999999999999\";\n", { ":1: ", "out of range", "1M" } },
	{ "op_timeout_ms = \"2h\";\n", { ":1: ", "out of range", "1ms to 1h" } },
	{ "op_timeout_ms = \"5500us\";\n", { ":1: ", "5500us", "finer" } },
	{ "log_level = \"dbug\";\n", { ":1: ", "log_level", "\"debug\"" } },
	{ "policy = \"no such thing\";\n", { ":1: ", "policy", "unknown value" } },
	{ "name = \"a b\";\n", { ":1: ", "name", "is no name" } },
	{ "socket = \"relative\";\n", { ":1: ", "socket", "start with '/'" } },
	{ "name = \"a\"\nsocket = ;\n", { ":2: ", "syntax error", "" } },
	{ "name = \"a\";\nname = \"b\";\n", { ":2: ", "duplicate", "" } },
	{ "tenants = ( { name = \"a\"; },\n{ name = \"a\"; token = \"x\"; } );\n",
	  { ":2: ", "duplicate tenant", "\"a\"" } },
	{ "tenants = ( { name = \"a\"; token = \"t\"; },\n{ name = \"b\"; token = \"t\"; } );\n",
	  { ":2: ", "same token", "\"b\"" } },
	{ "tenants = ( { name = \"a\"; },\n{ name = \"b\"; } );\n",
	  { ":2: ", "same token", "none" } },
	{ "tenants = (\n{ token = \"a\"; } );\n", { ":2: ", "tenants.name", "missing" } },
	{ "tenants = (\n{\nname = \"a\";\ntokn = \"a\"; } );\n",
	  { ":4: ", "\"tokn\"", "\"token\"" } },
	{ "tenants = ( { name = \"a\"; token = \"b\";\ntoken_file = \"/x\"; } );\n",
	  { ":2: ", "token_file", "/x" } },
	{ "tenants = ( { name = \"a\"; salt = \"12\"; } );\n", { ":1: ", "salt", "64 hex" } },
	{ "tenants = ( 1 );\n", { ":1: ", "tenants", "group" } },
	{ "tenants = ( { name = \"a\"; wieght = 2; } );\n", { ":1: ", "wieght", "\"weight\"" } },
	{ "tenants = ( { name = \"a\"; weight = 0; } );\n", { ":1: ", "weight", "1 to 1000" } },
	{ "tenants = ( { name = \"a\"; weight = \"2\"; } );\n", { ":1: ", "weight", "a number" } },
	{ "tenants = ( { name = \"a\"; flor_bytes = 2; } );\n",
	  { ":1: ", "flor_bytes", "\"floor_bytes\"" } },
	{ "silent_ms = \"2h\";\n", { ":1: ", "silent_ms", "1h" } },
	{ "device = \"mlx5 0\";\n", { ":1: ", "device", "no name" } },
	{ "silence_ms = 700;\n", { ":1: ", "silence_ms", "\"silent_ms\"" } },
	{ "listen = \"example.org:7470\";\n", { ":1: ", "listen", "IP:PORT" } },
	{ "listen = \"127.0.0.1\";\n", { ":1: ", "listen", "IP:PORT" } },
	{ "listen = \"127.0.0.1:65536\";\n", { ":1: ", "listen", "IP:PORT" } },
	{ "name = a;\n", { ":1: ", "syntax error", "double quotes" } },
	{ "listen = \"127.0.0.1:+80\";\n", { ":1: ", "listen", "IP:PORT" } },
	{ "transport = \"verb\";\n", { ":1: ", "transport", "\"verbs\"" } },
	{ "peers = ( { name = \"b\"; socket = \"/b\"; },\n{ name = \"c\"; socket = \"/b\"; } );\n",
	  { ":2: ", "same socket", "\"c\"" } },
};

static void test_faults(void **state)
{
	struct fixture *f = *state;
	size_t i, j;

	for (i = 0; i < WFI_ARRAY_SIZE(faults); i++) {
		wfi_config_defaults(&f->cfg);
		assert_int_equal(load(f, faults[i].text), -EINVAL);
		for (j = 0; j < WFI_ARRAY_SIZE(faults[i].says); j++)
			assert_says(f, faults[i].says[j]);
		assert_says(f, f->path);
	}
}

#define SALT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_one_salt(void **state)
{
	struct fixture *f = *state;

	wfi_config_defaults(&f->cfg);
	assert_int_equal(load(f, "tenants = ( { name = \"a\"; salt = \"" SALT "\"; },"
				 "{ name = \"b\"; token = \"t\"; salt = \"" SALT "\"; } );"),
			 0);
	assert_int_equal(wfi_config_finish(&f->cfg, f->why, sizeof(f->why)), -EINVAL);
	assert_says(f, "\"a\" and \"b\" have the same salt");
}

/* what only the whole tells */
static const struct {
	const char *sets[6];
	const char *says; /* NULL: right */
} wholes[] = {
	{ { "peers=({ name = \"b\"; })" }, "needs a socket" },
	{ { "peers=({ name = \"b\"; socket = \"/b\"; address = \"127.0.0.1:1\"; })" }, "not both" },
	{ { "name=b", "peers=({ name = \"b\"; socket = \"/b\"; })" }, "of this node" },
	{ { "peers=({ name = \"b\"; address = \"127.0.0.1:1\"; })" }, "transport is not" },
	{ { "listen=127.0.0.1:7470" }, "transport is not" },
	{ { "transport=verbs", "listen=127.0.0.1:7470" }, NULL },
	{ { "transport=verbs", "listen=[::1]:7470" }, NULL },
	{ { "transport=verbs", "listen=10.0.0.1:7470" }, "--insecure" },
	{ { "transport=verbs", "peers=({ name = \"b\"; address = \"10.0.0.2:1\"; })" },
	  "--insecure" },
	{ { "transport=verbs", "listen=10.0.0.1:7470", "insecure=true" }, NULL },
	{ { "tls_cert=/a.crt", "tls_key=/a.key" }, "set all three" },
	{ { "tls_cert=/a.crt", "tls_ca=/ca.crt" }, "set all three" },
	{ { "tls_ca=/ca.crt" }, "set all three" },
	{ { "tls_allow=spiffe://d/weft/node/*" }, "tls_cert is not" },
	{ { "tls_cert=/a.crt", "tls_key=/a.key", "tls_ca=/ca.crt", "insecure=true" },
	  "leave one of the two out" },
	{ { "transport=verbs", "listen=10.0.0.1:7470", "tls_cert=/a.crt", "tls_key=/a.key",
	    "tls_ca=/ca.crt", "tls_allow=spiffe://d/weft/node/a, spiffe://*/weft/node/b*" },
	  NULL },
	{ { "memory_bytes=3G",
	    "tenants=({ name = \"a\"; token = \"a\"; floor_bytes = \"1G\"; weight = 3; }, "
	    "{ name = \"b\"; arena_bytes = \"4G\"; floor_bytes = \"2G\"; })" },
	  NULL },
	{ { "memory_bytes=3G", "tenants=({ name = \"a\"; token = \"a\"; floor_bytes = \"1G\"; }, "
			       "{ name = \"b\"; arena_bytes = \"4G\"; floor_bytes = \"3G\"; })" },
	  "\"b\" and those before it" },
	{ { "memory_bytes=3G", "tenants=({ name = \"a\"; floor_bytes = \"2G\"; })" },
	  "more than its arena_bytes" },
	{ { "tenants=({ name = \"a\"; floor_bytes = \"1G\"; })" }, "memory_bytes is not set" },
	{ { "tier_bytes=1G", "tenants=({ name = \"a\"; tier_floor_bytes = \"2G\"; })" },
	  "more than tier_bytes" },
	{ { "transport=verbs", "device=mlx5_0:2, mlx5_1" }, NULL },
	{ { "transport=ucx", "device=rc_verbs+ud_verbs@mlx5_0:1, tcp@eth0" }, NULL },
	{ { "transport=tcp", "device=fd00::1" }, NULL },
	{ { "transport=verbs", "silent_ms=5s" }, NULL },
	{ { "transport=verbs", "silent_ms=499" }, "less than 500 ms" },
	{ { "memory_bytes=512M", "prefault=true" }, "prefault is set" },
	{ { "memory_bytes=512M", "transport=verbs" }, "transport is set" },
	{ { "memory_bytes=1G", "prefault=true" }, NULL },
};

static void test_wholes(void **state)
{
	struct fixture *f = *state;
	size_t i, j;
	int ret;

	for (i = 0; i < WFI_ARRAY_SIZE(wholes); i++) {
		wfi_config_defaults(&f->cfg);
		for (j = 0; j < 6 && wholes[i].sets[j]; j++)
			assert_int_equal(wfi_config_set(&f->cfg, wholes[i].sets[j], f->why,
							sizeof(f->why)),
					 0);
		ret = wfi_config_finish(&f->cfg, f->why, sizeof(f->why));
		assert_int_equal(ret, wholes[i].says ? -EINVAL : 0);
		if (wholes[i].says)
			assert_says(f, wholes[i].says);
	}
}

static void test_no_such_file(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(wfi_config_load("/nonexistent/x", &f->cfg, f->why, sizeof(f->why)),
			 -ENOENT);
	assert_says(f, "/nonexistent/x");
	assert_int_equal(wfi_config_load(f->dir, &f->cfg, f->why, sizeof(f->why)), -EISDIR);
}

static void test_short_why(void **state)
{
	struct fixture *f = *state;
	char why[16];
	size_t len;

	write_file(f->path, "arena_byts = 1;\n", 0600);
	for (len = 1; len <= sizeof(why); len++) {
		memset(why, 'x', sizeof(why));
		assert_int_equal(wfi_config_load(f->path, &f->cfg, why, len), -EINVAL);
		assert_true(strlen(why) < len);
	}
}

static void test_overrides(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(wfi_config_set(&f->cfg, "arena_bytes=64M", f->why, sizeof(f->why)), 0);
	assert_int_equal(f->cfg.arena_bytes, 64 << 20);
	assert_int_equal(wfi_config_set(&f->cfg, "hugepages=off", f->why, sizeof(f->why)), 0);
	assert_false(f->cfg.hugepages);
	assert_int_equal(wfi_config_set(&f->cfg, "peers=({ name = \"b\"; socket = \"/b\"; })",
					f->why, sizeof(f->why)),
			 0);
	assert_int_equal(f->cfg.nr_peers, 1);
	assert_int_equal(wfi_config_set(&f->cfg, "peers=()", f->why, sizeof(f->why)), 0);
	assert_int_equal(f->cfg.nr_peers, 0);

	assert_int_equal(wfi_config_set(&f->cfg, "hugepages", f->why, sizeof(f->why)), -EINVAL);
	assert_says(f, "not key=value");
	assert_int_equal(wfi_config_set(&f->cfg, "hugepagse=on", f->why, sizeof(f->why)), -EINVAL);
	assert_says(f, "\"hugepages\"");
	assert_int_equal(wfi_config_set(&f->cfg, "spin_us=x", f->why, sizeof(f->why)), -EINVAL);
	assert_says(f, "-o: spin_us: \"x\" is not a duration");
	assert_int_equal(wfi_config_set(&f->cfg, "peers=(", f->why, sizeof(f->why)), -EINVAL);
	assert_int_equal(wfi_config_set(&f->cfg, "peers=({ nam = \"b\"; })", f->why,
					sizeof(f->why)),
			 -EINVAL);
	assert_says(f, "\"name\"");
}

static void test_secret_files(void **state)
{
	struct fixture *f = *state;
	char token[96], text[256];

	snprintf(token, sizeof(token), "%s/token", f->dir);
	snprintf(text, sizeof(text), "tenants = ( { name = \"a\"; token_file = \"%s\"; } );\n",
		 token);
	write_file(token, "hush\n", 0600);
	assert_int_equal(load(f, text), 0);
	assert_string_equal(f->cfg.tenants[0].token, "hush");
	assert_int_equal(nr_warnings, 0);
	assert_int_equal(chmod(token, 0644), 0);
	assert_int_equal(load(f, text), 0);
	assert_int_equal(nr_warnings, 1);
	assert_non_null(strstr(last_warning, token));
	write_file(token, "\n", 0600);
	assert_int_equal(load(f, text), -EINVAL);
	assert_says(f, "empty");
	unlink(token);
	assert_int_equal(load(f, text), -EINVAL);
	assert_says(f, token);

	nr_warnings = 0;
	write_file(f->path, "tenants = ( { name = \"a\"; token = \"s\"; } );\n", 0644);
	assert_int_equal(wfi_config_load(f->path, &f->cfg, f->why, sizeof(f->why)), 0);
	assert_int_equal(nr_warnings, 1);
}

static void test_print_reads_back(void **state)
{
	struct fixture *f = *state;
	struct wfi_config again;
	char *text = NULL;
	size_t len;
	FILE *out;

	assert_int_equal(load(f, "name = \"n\"; socket = \"/tmp/a\\\"b.sock\"; lease_ms = 1001;\n"
				 "tenants = ( { name = \"t\"; token = \"secret!\"; } );\n"
				 "peers = ( { name = \"b\"; socket = \"/b\"; } );\n"),
			 0);
	assert_int_equal(wfi_config_finish(&f->cfg, f->why, sizeof(f->why)), 0);
	out = open_memstream(&text, &len);
	wfi_config_print(&f->cfg, out);
	fclose(out);
	assert_null(strstr(text, "secret!"));
	assert_int_equal(load(f, text), 0);
	free(text);
	wfi_config_defaults(&again);
	assert_int_equal(wfi_config_load(f->path, &again, f->why, sizeof(f->why)), 0);
	assert_string_equal(again.socket, "/tmp/a\"b.sock");
	assert_int_equal(again.lease_ms, 1001);
	assert_int_equal(again.node_id, f->cfg.node_id);
	assert_string_equal(again.peers[0].name, "b");
}

/* the annotated file says nothing as it is; without its comment marks it says the defaults */
static void test_help_is_a_file(void **state)
{
	struct fixture *f = *state;
	char *text = NULL, *p;
	size_t len;
	FILE *out;

	out = open_memstream(&text, &len);
	wfi_config_print_help(out);
	fclose(out);
	assert_int_equal(load(f, text), 0);
	for (p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (p[0] == '#' && p[1] != ' ')
			p[0] = ' ';
	}
	if (load(f, text))
		fail_msg("%s\n%s", f->why, text);
	assert_int_equal(f->cfg.op_timeout_ms, 5000);
	assert_int_equal(f->cfg.arena_bytes, 1ull << 30);
	assert_string_equal(f->cfg.peers[0].name, "node-b");
	free(text);
}

/* the example that is shipped is the annotated file */
static void test_example_is_the_help(void **state)
{
	char path[1024], *help = NULL, *shipped;
	size_t len, got;
	FILE *f;

	(void)state;
	snprintf(path, sizeof(path), "%.*s/../../dist/weftd.conf.example",
		 (int)(strrchr(__FILE__, '/') - __FILE__), __FILE__);
	f = fopen(path, "r");
	if (!f) {
		print_message("no %s from here\n", path);
		skip();
	}
	shipped = calloc(1, 65536);
	assert_non_null(shipped);
	got = fread(shipped, 1, 65535, f);
	fclose(f);
	f = open_memstream(&help, &len);
	assert_non_null(f);
	wfi_config_print_help(f);
	fclose(f);
	if (got != len || memcmp(help, shipped, len))
		fail_msg("make it anew: weftd --help-config > dist/weftd.conf.example");
	free(help);
	free(shipped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_hex_and_distance),
		cmocka_unit_test_setup_teardown(test_no_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_whole_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_salt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wholes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_short_why, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overrides, setup, teardown),
		cmocka_unit_test_setup_teardown(test_secret_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_print_reads_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_help_is_a_file, setup, teardown),
		cmocka_unit_test(test_example_is_the_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
