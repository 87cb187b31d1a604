/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/integration/ranks.h"

const char *ranks_token;

static struct weft_layout layout_of(const struct ranks *s, uint32_t rank)
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

void rank_open(struct rank *r, const struct test_node *n, const struct ranks *s, uint32_t rank)
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
	test_engine_open(&r->e, n, ranks_token, &geometry);
	if (!s->memory)
		return;
	r->mem_len = 2 * r->nr_blocks * geometry.block_bytes;
	s->memory->open(r);
	/* every second one, the last first: as pages lie */
	for (uint32_t i = 0; i < r->nr_blocks; i++)
		r->places[i] = (struct weft_place){
			.off = 2 * (r->nr_blocks - 1 - i) * geometry.block_bytes,
			.region = r->region,
		};
}

void rank_close(struct rank *r, const struct ranks *s)
{
	if (s->memory)
		s->memory->close(r);
	test_engine_close(&r->e);
}

/* ---- bytes: what stands at an element follows from what it is ---- */

static char *element(struct rank *r, uint32_t layer, uint32_t kv, uint32_t token, uint32_t head)
{
	const struct weft_layout *l = &r->layout;
	const uint32_t block = token / l->nr_tokens;
	char *const start = r->mem ? r->mem + r->places[block].off
				   : (char *)weft_arena(r->e.w) + r->slots[block].off;

	return start + l->base + layer * l->layer_stride + (kv - l->first_kv) * l->kv_stride +
	       token % l->nr_tokens * l->token_stride + (head - l->first_head) * l->head_stride;
}

static uint64_t seed_of(uint64_t name, uint32_t layer, uint32_t kv, uint32_t token, uint32_t head)
{
	return (((name * NL + layer) * 2 + kv) * TOKENS + token) * HEADS + head;
}

bool each_element(struct rank *r, uint64_t name, uint32_t layer, uint32_t first_token,
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

void expect(struct rank *r, uint64_t name, uint8_t flags)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .flags = WEFT_F_LAYOUT | (r->mem ? WEFT_F_COPY : 0) | flags,
				    .space = r->e.space,
				    .nr = r->nr_blocks,
				    .nr_layers = NL,
				    .keys = r->keys,
				    .slots = r->slots,
				    .places = r->places,
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

int expect_as(struct rank *r, const struct weft_layout *l)
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

int push_as(struct rank *r, const struct weft_ticket *ticket, const struct weft_layout *l,
	    uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr)
{
	struct weft_ticket copy = *ticket;
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_PUSH,
				    .flags = WEFT_F_LAYOUT | (r->mem ? WEFT_F_COPY : 0),
				    .space = r->e.space,
				    .nr = nr,
				    .slots = r->slots + first,
				    .places = r->places + first,
				    .ticket = &copy,
				    .layer = layer,
				    .nr_layers = nr_layers,
				    .first_block = first,
				    .layout = l };

	return weft_call(r->e.ring, &op, NULL);
}

void claim(struct rank *r)
{
	struct weft_op op = {
		.op = WEFT_OP_CLAIM, .space = r->e.space, .nr = r->nr_blocks, .slots = r->slots
	};

	assert_int_equal(weft_call(r->e.ring, &op, NULL), (int)r->nr_blocks);
}

void unclaim(struct rank *r)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = r->nr_blocks, .slots = r->slots };

	assert_int_equal(weft_call(r->e.ring, &op, NULL), (int)r->nr_blocks);
}

bool part_for(const struct weft_layout *from, const struct weft_layout *to, struct weft_layout *out)
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

uint64_t ranks_name(void)
{
	static uint64_t names = 1000;

	return names += 10;
}

void ranks_handoff(const struct test_node *at_from, const struct ranks *from,
		   const struct test_node *at_to, const struct ranks *to, bool apart)
{
	static struct rank senders[RANKS_MAX], receivers[RANKS_MAX];
	const uint64_t name = ranks_name();
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
		expect(&receivers[i], name, to->flags);
	for (i = 0; i < from->tp; i++) {
		if (!from->memory)
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
		assert_int_equal(receivers[i].lease != 0, !to->memory);
		if (to->memory)
			continue;
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
	for (i = 0; i < from->tp && !from->memory; i++)
		unclaim(&senders[i]);
	assert_true(test_stat_settles(senders[0].e.ring, &was[0], END_MS));
	assert_true(test_stat_settles(receivers[0].e.ring, &was[1], END_MS));
	for (i = 0; i < from->tp; i++)
		rank_close(&senders[i], from);
	for (i = 0; i < to->tp; i++)
		rank_close(&receivers[i], to);
}

void ranks_all(const struct test_node *at_from, const struct ranks *from,
	       const struct test_node *at_to, const struct ranks *to, unsigned first, unsigned step)
{
	static const struct {
		struct ranks from, to;
		bool apart;
	} cases[] = {
		/* clang-format off */
		{ { 1, 16, NHD, NULL, 0 }, { 1, 16, NHD, NULL, 0 }, false },
		{ { 4, 16, NHD, NULL, 0 }, { 1, 16, NHD, NULL, 0 }, false },
		{ { 4, 16, HND, NULL, 0 }, { 1, 16, HND, NULL, 0 }, false },
		{ { 1, 16, NHD, NULL, 0 }, { 4, 16, NHD, NULL, 0 }, false },
		{ { 2, 16, NHD, NULL, 0 }, { 8, 16, HND, NULL, 0 }, false },
		{ { 1, 16, NHD, NULL, 0 }, { 1, 64, NHD, NULL, 0 }, false },
		{ { 1, 64, HND, NULL, 0 }, { 1, 16, HND, NULL, 0 }, false },
		{ { 1, 24, NHD, NULL, 0 }, { 2, 16, HND, NULL, 0 }, false },
		{ { 2, 48, HND, NULL, 0 }, { 1, 32, NHD, NULL, 0 }, false },
		{ { 4, 8, HND, NULL, 0 }, { 2, 64, NHD, NULL, 0 }, false },
		{ { 1, 16, HND, NULL, 0 }, { 1, 16, NHD, NULL, 0 }, true },
		{ { 2, 64, NHD, NULL, 0 }, { 1, 16, HND, NULL, 0 }, true },
		/* clang-format on */
	};
	struct ranks a, b;

	for (unsigned i = first; i < WFI_ARRAY_SIZE(cases); i += step) {
		a = cases[i].from;
		b = cases[i].to;
		a.memory = from->memory;
		b.memory = to->memory;
		b.flags = to->flags;
		ranks_handoff(at_from, &a, at_to, &b, cases[i].apart);
	}
}
