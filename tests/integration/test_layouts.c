/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handoffs between layouts: other page sizes, other tensor-parallel degrees, other orders, keys and
 * values apart; from one to several, from several to one; in a node and between two
 */
#include <errno.h>
#include <unistd.h>
#include "tests/integration/node.h"

#define NL 3u /* layers */
#define HB 32u /* bytes of a head's vector */
#define HEADS 8u /* of the model */
#define TOKENS 192u /* of a handoff: pages of 8, 16, 24, 32, 48 and 64 fit */
#define RANKS_MAX 8u
#define BLOCKS_MAX (TOKENS / 8)
#define END_MS 1000

static struct test_node near, far;
static const char *tenant_token; /* of the engines' tenant; NULL: the default one */

enum order { NHD, HND };

/* one side's engine, with its share of the model's heads */
struct rank {
	struct test_engine e;
	struct weft_layout layout;
	uint32_t nr_blocks;
	struct weft_slot slots[BLOCKS_MAX];
	struct weft_key keys[BLOCKS_MAX];
	struct weft_ticket ticket; /* receivers */
	uint64_t lease;
	uint8_t landed[BLOCKS_MAX]; /* layers, a bit each */
};

/* how a side lays out what it has */
struct side {
	uint32_t tp;
	uint32_t page;
	enum order order;
};

static struct weft_layout layout_of(const struct side *s, uint32_t rank)
{
	const uint32_t heads = HEADS / s->tp;
	struct weft_layout l = { .nr_layers = NL,
				 .nr_kv = 2,
				 .nr_tokens = s->page,
				 .nr_heads = heads,
				 .head_bytes = HB,
				 .first_head = rank * heads };

	l.token_stride = s->order == NHD ? heads * HB : HB;
	l.head_stride = s->order == NHD ? HB : s->page * HB;
	l.kv_stride = (uint64_t)heads * s->page * HB;
	l.layer_stride = 2 * l.kv_stride;
	return l;
}

static void rank_open(struct rank *r, const struct test_node *n, const struct side *s,
		      uint32_t rank)
{
	struct weft_space_opts geometry = { .size = sizeof(geometry), .tokens_per_block = s->page };
	char layout[64];

	memset(r, 0, sizeof(*r));
	r->layout = layout_of(s, rank);
	r->nr_blocks = (TOKENS + s->page - 1) / s->page;
	snprintf(layout, sizeof(layout), "%s/tp%uof%u/page%u", s->order == NHD ? "nhd" : "hnd",
		 rank, s->tp, s->page);
	geometry.block_bytes = NL * r->layout.layer_stride;
	geometry.model = "layouts";
	geometry.layout = layout;
	geometry.nr_layers = NL;
	test_engine_open(&r->e, n, tenant_token, &geometry);
}

/* ---- bytes: what stands at an element follows from what it is ---- */

static char *element(struct rank *r, uint32_t layer, uint32_t kv, uint32_t token, uint32_t head)
{
	const struct weft_layout *l = &r->layout;

	return (char *)weft_arena(r->e.w) + r->slots[token / l->nr_tokens].off + l->base +
	       layer * l->layer_stride + (kv - l->first_kv) * l->kv_stride +
	       token % l->nr_tokens * l->token_stride + (head - l->first_head) * l->head_stride;
}

static uint64_t seed_of(uint64_t name, uint32_t layer, uint32_t kv, uint32_t token, uint32_t head)
{
	return (((name * NL + layer) * 2 + kv) * TOKENS + token) * HEADS + head;
}

/* Return: false when @check and some element of the layer has other bytes */
static bool each_element(struct rank *r, uint64_t name, uint32_t layer, uint32_t first_token,
			 uint32_t nr_tokens, bool check)
{
	const struct weft_layout *l = &r->layout;
	uint32_t kv, t, h;

	for (kv = l->first_kv; kv < l->first_kv + l->nr_kv; kv++)
		for (t = first_token; t < first_token + nr_tokens && t < TOKENS; t++)
			for (h = l->first_head; h < l->first_head + l->nr_heads; h++) {
				char *at = element(r, layer, kv, t, h);
				const uint64_t seed = seed_of(name, layer, kv, t, h);

				if (!check)
					test_fill(at, HB, seed);
				else if (!test_filled(at, HB, seed))
					return false;
			}
	return true;
}

/* ---- the two halves ---- */

static void expect(struct rank *r, uint64_t name)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .flags = WEFT_F_LAYOUT,
				    .space = r->e.space,
				    .nr = r->nr_blocks,
				    .nr_layers = NL,
				    .keys = r->keys,
				    .slots = r->slots,
				    .ticket = &r->ticket,
				    .layout = &r->layout };
	struct weft_completion cpl;

	memset(r->landed, 0, sizeof(r->landed));
	test_keys(&r->e, name, r->nr_blocks, r->keys);
	assert_int_equal(weft_submit(r->e.ring, &op, 1), 1);
	test_next(r->e.ring, &cpl);
	assert_int_equal(cpl.flags, WEFT_CQE_MORE | WEFT_CQE_TICKET);
	assert_int_equal(r->ticket.nr_tokens, (uint64_t)r->nr_blocks * r->layout.nr_tokens);
}

/* an expectation that is refused */
static int expect_as(struct rank *r, const struct weft_layout *l)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .flags = WEFT_F_LAYOUT,
				    .space = r->e.space,
				    .nr = r->nr_blocks,
				    .nr_layers = NL,
				    .keys = r->keys,
				    .slots = r->slots,
				    .ticket = &r->ticket,
				    .layout = l };

	return weft_call(r->e.ring, &op, NULL);
}

/* takes what has landed, until all has: bytes are right when a layer is told */
static void hear_all(struct rank *r, uint64_t name)
{
	struct weft_completion cpl;
	uint32_t b;

	for (;;) {
		test_next(r->e.ring, &cpl);
		if (!(cpl.flags & WEFT_CQE_MORE))
			break;
		assert_int_equal(cpl.nr_layers, 1);
		for (b = cpl.first_block; b < cpl.first_block + cpl.nr_blocks; b++) {
			assert_false(r->landed[b] & 1u << cpl.layer);
			r->landed[b] |= (uint8_t)(1u << cpl.layer);
			assert_true(each_element(r, name, cpl.layer, b * r->layout.nr_tokens,
						 r->layout.nr_tokens, true));
		}
	}
	assert_int_equal(cpl.res, r->nr_blocks);
	for (b = 0; b < r->nr_blocks; b++)
		assert_int_equal(r->landed[b], (1u << NL) - 1);
	r->lease = cpl.handle;
}

static int push_as(struct rank *r, const struct weft_ticket *ticket, const struct weft_layout *l,
		   uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr)
{
	struct weft_ticket copy = *ticket;
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_PUSH,
				    .flags = WEFT_F_LAYOUT,
				    .space = r->e.space,
				    .nr = nr,
				    .slots = r->slots + first,
				    .ticket = &copy,
				    .layer = layer,
				    .nr_layers = nr_layers,
				    .first_block = first,
				    .layout = l };

	return weft_call(r->e.ring, &op, NULL);
}

static void claim(struct rank *r)
{
	struct weft_op op = {
		.op = WEFT_OP_CLAIM, .space = r->e.space, .nr = r->nr_blocks, .slots = r->slots
	};

	assert_int_equal(weft_call(r->e.ring, &op, NULL), (int)r->nr_blocks);
}

static void unclaim(struct rank *r)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = r->nr_blocks, .slots = r->slots };

	assert_int_equal(weft_call(r->e.ring, &op, NULL), (int)r->nr_blocks);
}

/* of @from's heads those that @to has, as a layout. Return: false: none */
static bool part_for(const struct weft_layout *from, const struct weft_layout *to,
		     struct weft_layout *out)
{
	const uint32_t first = (uint32_t)wfi_max(from->first_head, to->first_head);
	const uint32_t end =
		(uint32_t)wfi_min(from->first_head + from->nr_heads, to->first_head + to->nr_heads);

	if (first >= end)
		return false;
	*out = *from;
	out->base += (first - from->first_head) * from->head_stride;
	out->first_head = first;
	out->nr_heads = end - first;
	return true;
}

static uint64_t names = 1000;

/* layer by layer, from all to all that share heads, then once more with keys and values apart */
static void handoff(const struct test_node *at_from, const struct side *from,
		    const struct test_node *at_to, const struct side *to, bool apart)
{
	static struct rank senders[RANKS_MAX], receivers[RANKS_MAX];
	const uint64_t name = names += 10;
	struct weft_layout part, plane;
	struct weft_stat was[2];
	uint32_t i, k, l, kv, half;

	for (i = 0; i < from->tp; i++)
		rank_open(&senders[i], at_from, from, i);
	for (i = 0; i < to->tp; i++)
		rank_open(&receivers[i], at_to, to, i);
	was[0] = test_stat(senders[0].e.ring);
	was[1] = test_stat(receivers[0].e.ring);
	for (i = 0; i < to->tp; i++)
		expect(&receivers[i], name);
	for (i = 0; i < from->tp; i++) {
		claim(&senders[i]);
		half = senders[i].nr_blocks / 2;
		for (l = 0; l < NL; l++) {
			each_element(&senders[i], name, l, 0, TOKENS, false);
			for (k = 0; k < to->tp; k++) {
				const struct weft_ticket *t = &receivers[k].ticket;

				if (!part_for(&senders[i].layout, &receivers[k].layout, &part))
					continue;
				for (kv = 0; apart && kv < 2; kv++) {
					plane = part;
					plane.nr_kv = 1;
					plane.first_kv = kv;
					plane.base += kv * part.kv_stride;
					assert_int_equal(push_as(&senders[i], t, &plane, l, 1, 0,
								 senders[i].nr_blocks),
							 senders[i].nr_blocks);
				}
				/* the later blocks first: blocks have no order among them */
				if (!apart && half)
					assert_int_equal(push_as(&senders[i], t, &part, l, 1, half,
								 senders[i].nr_blocks - half),
							 senders[i].nr_blocks - half);
				if (!apart)
					assert_int_equal(push_as(&senders[i], t, &part, l, 1, 0,
								 half ? half : 1),
							 half ? half : 1);
			}
		}
	}
	for (i = 0; i < to->tp; i++) {
		hear_all(&receivers[i], name);
		for (l = 0; l < NL; l++)
			assert_true(each_element(&receivers[i], name, l, 0, TOKENS, true));
		/* held under their keys, with checksums that agree */
		assert_int_equal(weft_match(receivers[i].e.ring, receivers[i].e.space,
					    receivers[i].keys, receivers[i].nr_blocks),
				 receivers[i].nr_blocks);
		assert_int_equal(weft_release(receivers[i].e.ring, receivers[i].lease),
				 receivers[i].nr_blocks);
		assert_int_equal(weft_drop(receivers[i].e.ring, receivers[i].e.space,
					   receivers[i].keys, receivers[i].nr_blocks),
				 receivers[i].nr_blocks);
	}
	for (i = 0; i < from->tp; i++)
		unclaim(&senders[i]);
	assert_true(test_stat_settles(senders[0].e.ring, &was[0], END_MS));
	assert_true(test_stat_settles(receivers[0].e.ring, &was[1], END_MS));
	for (i = 0; i < from->tp; i++)
		test_engine_close(&senders[i].e);
	for (i = 0; i < to->tp; i++)
		test_engine_close(&receivers[i].e);
}

static void all_layouts(const struct test_node *at_from, const struct test_node *at_to)
{
	static const struct {
		struct side from, to;
		bool apart;
	} cases[] = {
		/* clang-format off */
		{ { 1, 16, NHD }, { 1, 16, NHD }, false },
		{ { 4, 16, NHD }, { 1, 16, NHD }, false },
		{ { 4, 16, HND }, { 1, 16, HND }, false },
		{ { 1, 16, NHD }, { 4, 16, NHD }, false },
		{ { 2, 16, NHD }, { 8, 16, HND }, false },
		{ { 1, 16, NHD }, { 1, 64, NHD }, false },
		{ { 1, 64, HND }, { 1, 16, HND }, false },
		{ { 1, 24, NHD }, { 2, 16, HND }, false },
		{ { 2, 48, HND }, { 1, 32, NHD }, false },
		{ { 4, 8, HND }, { 2, 64, NHD }, false },
		{ { 1, 16, HND }, { 1, 16, NHD }, true },
		{ { 2, 64, NHD }, { 1, 16, HND }, true },
		/* clang-format on */
	};
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(cases); i++)
		handoff(at_from, &cases[i].from, at_to, &cases[i].to, cases[i].apart);
}

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
	static const struct side whole = { 1, 16, NHD }, half = { 2, 16, NHD };
	struct weft_completion cpl;
	struct weft_layout l;
	uint64_t name = names += 10;

	rank_open(&from, at_from, &whole, 0);
	rank_open(&to, at_to, &half, 0);
	refused_layouts(&to);
	expect(&to, name);
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
	all_layouts(&near, &near);
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
	all_layouts(&near, &far);
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
	const struct side a = { 1, 16, NHD }, b = { 2, 32, HND };
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
	handoff(&n, &a, &n, &b, false);
	members_write(path, "{ \"tenants\": { \"late\": { \"token\": \"azure\", "
			    "\"arena_bytes\": \"64M\" } } }");
	assert_true(test_until(10000, late_is_new, &n));
	tenant_token = "azure";
	handoff(&n, &a, &n, &b, false);
	tenant_token = NULL;
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
