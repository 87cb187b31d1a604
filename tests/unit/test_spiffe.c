/* SPDX-License-Identifier: Apache-2.0 */
/* names of nodes in certificates, and the patterns that let them in */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/spiffe.h"
#include "weft_internal/util.h"

static void test_node(void **state)
{
	static const char *const bad[] = {
		"",
		"a",
		"http://d/weft/node/a",
		"SPIFFE://d/weft/node/a",
		"spiffe:/d/weft/node/a",
		"spiffe:///weft/node/a",
		"spiffe://D/weft/node/a",
		"spiffe://d:80/weft/node/a",
		"spiffe://u@d/weft/node/a",
		"spiffe://d/weft/node/",
		"spiffe://d/weft/node/.",
		"spiffe://d/weft/node/..",
		"spiffe://d/weft/node/a/",
		"spiffe://d/weft/node/a/b",
		"spiffe://d/weft/node/a?b",
		"spiffe://d/weft/node/a#b",
		"spiffe://d/weft/node/a%41",
		"spiffe://d/weft/node/\xc3\xa4",
		"spiffe://d/weft/nodes/a",
		"spiffe://d//weft/node/a",
	};
	char node[SPIFFE_NODE_MAX] = "untouched", id[SPIFFE_MAX], longer[2 * SPIFFE_MAX];
	unsigned i;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		if (!spiffe_node(bad[i], node))
			fail_msg("\"%s\" is taken for the id of a node", bad[i]);
		assert_string_equal(node, "untouched");
	}
	assert_int_equal(spiffe_node("spiffe://a-b.c_d.9/weft/node/N.o-d_e", node), 0);
	assert_string_equal(node, "N.o-d_e");
	assert_int_equal(spiffe_make("a-b.c_d.9", "N.o-d_e", id), 0);
	assert_string_equal(id, "spiffe://a-b.c_d.9/weft/node/N.o-d_e");
	assert_int_equal(spiffe_make("A", "n", id), -EINVAL);
	assert_int_equal(spiffe_make("a", "n/m", id), -EINVAL);
	/* the longest name, and one letter more */
	memset(longer, 'n', sizeof(longer));
	longer[SPIFFE_NODE_MAX - 1] = 0;
	assert_int_equal(spiffe_make("d", longer, id), 0);
	assert_int_equal(spiffe_node(id, node), 0);
	strcat(id, "n");
	assert_int_equal(spiffe_node(id, node), -EINVAL);
	memset(longer, 'a', sizeof(longer));
	longer[SPIFFE_MAX - 10] = 0;
	assert_int_equal(spiffe_make(longer, "n", id), -ERANGE);
	memcpy(longer, "spiffe://", 9);
	strcpy(longer + SPIFFE_MAX, "/weft/node/a");
	assert_int_equal(spiffe_node(longer, node), -EINVAL);
}

static void test_match(void **state)
{
	static const struct {
		const char *pattern, *id;
		bool yes;
	} cases[] = {
		{ "spiffe://d/weft/node/a", "spiffe://d/weft/node/a", true },
		{ "spiffe://d/weft/node/a", "spiffe://d/weft/node/ab", false },
		{ "spiffe://d/weft/node/ab", "spiffe://d/weft/node/a", false },
		{ "spiffe://d/weft/node/*", "spiffe://d/weft/node/a", true },
		{ "spiffe://d/weft/node/*", "spiffe://d/weft/node/a/b", false },
		{ "spiffe://d/weft/node/*", "spiffe://e/weft/node/a", false },
		{ "spiffe://*/weft/node/*", "spiffe://e/weft/node/a", true },
		{ "spiffe://*/node/*", "spiffe://e/weft/node/a", false },
		{ "spiffe://d/weft/node/a*b*c", "spiffe://d/weft/node/aXbbYc", true },
		{ "spiffe://d/weft/node/a*b*c", "spiffe://d/weft/node/abc", true },
		{ "spiffe://d/weft/node/a*b*c", "spiffe://d/weft/node/acb", false },
		{ "spiffe://d/weft/node/gpu-*-*", "spiffe://d/weft/node/gpu-1-2-3", true },
		{ "spiffe://d/weft/node/**", "spiffe://d/weft/node/a", true },
		{ "*", "spiffe://d/weft/node/a", false },
		{ "", "spiffe://d/weft/node/a", false },
	};
	char pattern[SPIFFE_MAX];
	unsigned i;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(cases); i++)
		if (spiffe_match(cases[i].pattern, cases[i].id) != cases[i].yes)
			fail_msg("%s, %s", cases[i].pattern, cases[i].id);
	spiffe_siblings("spiffe://d.example/weft/node/a", pattern);
	assert_string_equal(pattern, "spiffe://d.example/weft/node/*");
	assert_true(spiffe_match(pattern, "spiffe://d.example/weft/node/b"));
	assert_false(spiffe_match(pattern, "spiffe://d.example.org/weft/node/b"));
}

static void test_pattern(void **state)
{
	static const char *const good[] = { "spiffe://d/weft/node/a", "spiffe://*/weft/node/*",
					    "spiffe://d/*/x" };
	static const char *const bad[] = { "",
					   "*",
					   "d/weft",
					   "spiffe://",
					   "spiffe://d",
					   "spiffe:///a",
					   "spiffe://d/a b",
					   "spiffe://D/a",
					   "spiffe://d/[ab]" };
	unsigned i;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(good); i++)
		assert_true(spiffe_pattern_ok(good[i]));
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++)
		assert_false(spiffe_pattern_ok(bad[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_match),
		cmocka_unit_test(test_pattern),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
