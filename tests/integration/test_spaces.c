/* SPDX-License-Identifier: Apache-2.0 */
/* spaces that are removed: what is in use stays; what has gone is gone for other nodes as well */
#include <errno.h>
#include "tests/integration/node.h"

#define BLOCK 65536u
#define CHAIN 16u

static struct test_node near, far;
static uint8_t bytes[BLOCK];

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "spaces",
	.layout = "test",
	.tokens_per_block = 16,
};

static void put(const struct test_engine *e, struct weft_key keys[CHAIN])
{
	const void *bufs[CHAIN];

	test_keys(e, 1, CHAIN, keys);
	test_fill(bytes, BLOCK, 1);
	for (unsigned i = 0; i < CHAIN; i++)
		bufs[i] = bytes;
	assert_int_equal(weft_put(e->ring, e->space, NULL, keys, CHAIN, bufs), CHAIN);
}

/* the id of the only space, as everybody can learn it */
static uint32_t id_of(struct weft *w)
{
	char *text, *at;
	uint32_t id;

	assert_int_equal(weft_ls_json(w, &text), 0);
	at = strstr(text, "\"id\":");
	assert_non_null(at);
	id = (uint32_t)strtoul(at + 5, NULL, 10);
	free(text);
	return id;
}

static unsigned nr_spaces(struct weft *w)
{
	char *text;
	unsigned nr = 0;

	assert_int_equal(weft_ls_json(w, &text), 0);
	for (const char *at = text; (at = strstr(at, "\"id\":")); at++)
		nr++;
	free(text);
	return nr;
}

static void stays(const struct test_engine *e, const char *why)
{
	const unsigned nr = nr_spaces(e->w);

	assert_int_equal(weft_space_remove(e->w, id_of(e->w)), -EBUSY);
	assert_non_null(strstr(weft_why(), why));
	assert_int_equal(nr_spaces(e->w), nr);
}

static void goes(const struct test_engine *e)
{
	assert_int_equal(weft_space_remove(e->w, id_of(e->w)), 0);
	assert_int_equal(nr_spaces(e->w), 0);
}

/* who has it open may be about to use it */
static void test_open_elsewhere(void **state)
{
	struct weft_key keys[CHAIN];
	struct test_engine a, b;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &near, NULL, &geometry);
	put(&a, keys);
	stays(&a, "has it open");
	assert_int_equal(weft_match(b.ring, b.space, keys, CHAIN), CHAIN);
	/* its session may last a little longer, but it has said that it is over */
	test_engine_close(&b);
	goes(&a);
	assert_int_equal(weft_space_remove(a.w, 12345), -ENOENT);
	test_engine_close(&a);
}

static void test_in_use(void **state)
{
	struct weft_slot slots[CHAIN];
	struct weft_key keys[CHAIN];
	struct weft_ticket ticket;
	struct weft_completion c;
	struct test_engine e;
	uint64_t lease, channel;

	(void)state;
	test_engine_open(&e, &near, NULL, &geometry);
	put(&e, keys);
	assert_int_equal(weft_map(e.ring, e.space, keys, CHAIN, slots, &lease), CHAIN);
	stays(&e, "16 leased");
	assert_true(test_filled(weft_arena(e.w) + slots[CHAIN - 1].off, BLOCK, 1));
	assert_int_equal(weft_release(e.ring, lease), CHAIN);

	struct weft_op claim = { .op = WEFT_OP_CLAIM, .space = e.space, .nr = 2, .slots = slots };
	struct weft_op unclaim = { .op = WEFT_OP_RELEASE, .nr = 2, .slots = slots };

	assert_int_equal(weft_call(e.ring, &claim, NULL), 2);
	stays(&e, "2 slots are claimed");
	assert_int_equal(weft_call(e.ring, &unclaim, NULL), 2);

	/* a handoff is expected: nobody has named a slot yet */
	struct weft_op expect = { .op = WEFT_OP_HANDOFF_EXPECT,
				  .space = e.space,
				  .nr = 4,
				  .nr_layers = 1,
				  .keys = keys,
				  .slots = slots,
				  .ticket = &ticket,
				  .user_data = 7 };
	struct weft_op cancel = { .op = WEFT_OP_HANDOFF_CANCEL };

	assert_int_equal(weft_submit(e.ring, &expect, 1), 1);
	test_next(e.ring, &c);
	assert_true(c.flags & WEFT_CQE_MORE);
	stays(&e, "1 handoffs");
	cancel.handle = c.handle;
	assert_int_equal(weft_submit(e.ring, &cancel, 1), 1);
	for (unsigned i = 0; i < 2; i++)
		test_next(e.ring, &c);
	assert_int_equal(weft_channel_open(e.ring, e.space, 1, BLOCK, &ticket, &channel), 0);
	stays(&e, "1 ends of channels");
	assert_int_equal(weft_channel_close(e.ring, channel), 0);
	goes(&e);
	/* a handle of before leads nowhere; another is another space */
	assert_int_equal(weft_match(e.ring, e.space, keys, CHAIN), -ENOENT);
	weft_space_close(e.space);
	assert_int_equal(weft_space_open(e.w, &geometry, &e.space), 0);
	assert_int_equal(weft_match(e.ring, e.space, keys, CHAIN), 0);
	put(&e, keys);
	assert_int_equal(weft_match(e.ring, e.space, keys, CHAIN), CHAIN);
	goes(&e);
	test_engine_close(&e);
}

struct asker {
	const struct test_engine *e;
	const struct weft_key *keys;
	int want;
};

static bool matches(void *ctx)
{
	const struct asker *a = ctx;

	return weft_match(a->e->ring, a->e->space, a->keys, CHAIN) == a->want;
}

/* the directory hears of each block that goes */
static void test_other_nodes(void **state)
{
	struct weft_key keys[CHAIN];
	struct test_engine a, b;
	struct asker asks = { .e = &b, .keys = keys, .want = CHAIN };

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &far, NULL, &geometry);
	put(&a, keys);
	assert_true(test_until(10000, matches, &asks));
	goes(&a);
	asks.want = 0;
	assert_true(test_until(10000, matches, &asks));
	assert_int_equal(nr_spaces(b.w), 1);
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_embedded(void **state)
{
	struct weft_key keys[CHAIN];
	struct test_engine e;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	put(&e, keys);
	goes(&e);
	test_engine_close(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open_elsewhere),
		cmocka_unit_test(test_in_use),
		cmocka_unit_test(test_other_nodes),
		cmocka_unit_test(test_embedded),
	};
	int failed;

	test_pair_start(&near, &far);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	test_pair_fini(&near, &far);
	return failed;
}
