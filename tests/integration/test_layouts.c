/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handoffs between layouts: other page sizes, other tensor-parallel degrees, other orders, keys and
 * values apart; from one to several, from several to one; in a node and between two
 */
#include <errno.h>
#include <unistd.h>
#include "tests/integration/ranks.h"

static struct test_node near, far;
static const struct ranks in_slots;

/* ---- what is refused ---- */

/* a layout that does not fit its blocks, has another number of layers, or lies on itself */
static void refused_layouts(struct rank *to)
{
	struct weft_layout l = to->layout;

	l.base = 8;
	assert_int_equal(expect_as(to, &l), -EINVAL);
	l.base = 0;
	l.nr_layers--;
	assert_int_equal(expect_as(to, &l), -EINVAL);
	l = to->layout;
	l.head_stride = 0;
	assert_int_equal(expect_as(to, &l), -EINVAL);
	l = to->layout;
	l.nr_tokens = UINT32_MAX;
	assert_int_equal(expect_as(to, &l), -EINVAL);
}

/* @l: what the receiver takes */
static void refused_pushes(struct rank *from, struct rank *to, struct weft_layout l)
{
	struct weft_ticket copy = to->ticket;
	struct weft_op plain = { .op = WEFT_OP_HANDOFF_PUSH,
				 .space = from->e.space,
				 .nr = 1,
				 .slots = from->slots,
				 .ticket = &copy,
				 .nr_layers = 1 };

	/* heads that the receiver does not have */
	assert_int_equal(push_as(from, &to->ticket, &from->layout, 0, 1, 0, 1), -EINVAL);
	l.head_bytes /= 2;
	assert_int_equal(push_as(from, &to->ticket, &l, 0, 1, 0, 1), -EINVAL);
	l.head_bytes *= 2;
	l.token_stride = HB / 2;
	assert_int_equal(push_as(from, &to->ticket, &l, 0, 1, 0, 1), -EINVAL);
	l.token_stride = from->layout.token_stride;
	/* blocks without a layout, where others are taken */
	assert_true(weft_call(from->e.ring, &plain, NULL) < 0);
	/* layers in order, each once, and no element from two sources */
	assert_int_equal(push_as(from, &to->ticket, &l, 1, 1, 0, 1), -EINVAL);
	assert_int_equal(push_as(from, &to->ticket, &l, 0, 1, 0, 2), 2);
	assert_int_equal(push_as(from, &to->ticket, &l, 0, 1, 1, 1), -EINVAL);
	assert_int_equal(push_as(from, &to->ticket, &l, 0, 1, from->nr_blocks, 1), -EINVAL);
	l.nr_heads--;
	assert_int_equal(push_as(from, &to->ticket, &l, 0, 1, 2, 1), -EINVAL);
}

static void refused(const struct test_node *at_from, const struct test_node *at_to)
{
	static struct rank from, to;
	static const struct ranks whole = { 1, 16, NHD, NULL, 0 }, half = { 2, 16, NHD, NULL, 0 };
	struct weft_completion cpl;
	struct weft_layout l;
	uint64_t name = ranks_name();

	rank_open(&from, at_from, &whole, 0);
	rank_open(&to, at_to, &half, 0);
	refused_layouts(&to);
	expect(&to, name, 0);
	claim(&from);
	each_element(&from, name, 0, 0, TOKENS, false);
	assert_true(part_for(&from.layout, &to.layout, &l));
	refused_pushes(&from, &to, l);
	test_next(to.e.ring, &cpl);
	assert_int_equal(cpl.flags, WEFT_CQE_MORE);
	assert_int_equal(cpl.nr_blocks, 2);
	test_engine_close(&to.e);
	/* the receiver is gone: so is its ticket, within a second */
	while (push_as(&from, &to.ticket, &l, 0, 1, 2, 1) == -ECANCELED)
		;
	assert_int_equal(push_as(&from, &to.ticket, &l, 0, 1, 2, 1), -ESTALE);
	unclaim(&from);
	test_engine_close(&from.e);
}

static void test_one_node(void **state)
{
	(void)state;
	ranks_all(&near, &in_slots, &near, &in_slots, 0, 1);
	refused(&near, &near);
}

static bool connected(void *ctx)
{
	(void)ctx;
	return test_node_logged(&near, "is connected over") > 0 &&
	       test_node_logged(&far, "is connected over") > 0;
}

static void test_two_nodes(void **state)
{
	(void)state;
	assert_true(test_until(10000, connected, NULL));
	ranks_all(&near, &in_slots, &far, &in_slots, 0, 1);
	refused(&near, &far);
}

static void members_write(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static bool late_is_new(void *ctx)
{
	return test_node_logged(ctx, "tenant late is new") > 0;
}

/* a tenant that comes when bytes have moved inside the node before */
static void test_late_tenant(void **state)
{
	const struct ranks a = { 1, 16, NHD, NULL, 0 }, b = { 2, 32, HND, NULL, 0 };
	char dir[64], path[96], membership[128];
	const char *const sets[] = { "arena_bytes=64M", "hugepages=false", membership, NULL };
	struct test_node n;

	(void)state;
	test_folder(dir, "late");
	snprintf(path, sizeof(path), "%s/members.json", dir);
	snprintf(membership, sizeof(membership), "membership=file:%s", path);
	members_write(path, "{}");
	test_node_init(&n, sets);
	test_node_start(&n);
	ranks_handoff(&n, &a, &n, &b, false);
	members_write(path, "{ \"tenants\": { \"late\": { \"token\": \"azure\", "
			    "\"arena_bytes\": \"64M\" } } }");
	assert_true(test_until(10000, late_is_new, &n));
	ranks_token = "azure";
	ranks_handoff(&n, &a, &n, &b, false);
	ranks_token = NULL;
	test_node_fini(&n);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

static int start_two(void **state)
{
	(void)state;
	test_pair_start(&near, &far);
	return 0;
}

static int stop_two(void **state)
{
	(void)state;
	test_pair_fini(&near, &far);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_node),
		cmocka_unit_test(test_two_nodes),
		cmocka_unit_test(test_late_tenant),
	};

	return cmocka_run_group_tests(tests, start_two, stop_two);
}
