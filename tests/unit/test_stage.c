/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is pushed out of places to nodes that are made up: what they are told, what they would read,
 * and every end that it can have
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "tests/unit/handoff_world.h"

#define MS WFI_NSEC_PER_MSEC
#define LATE_NS (100 * MS)
#define NBL (NB / 4) /* blocks, with layouts */
#define FENCE_NS (100 * MS) /* from a push's deadline to when nobody reads its slots any more */

/* keys and values, tokens within heads; with room between the heads */
static const struct weft_layout hnd = {
	.nr_layers = NL,
	.nr_kv = 2,
	.nr_tokens = 16,
	.nr_heads = 2,
	.head_bytes = 32,
	.base = 64,
	.layer_stride = LAYER,
	.kv_stride = 2048,
	.token_stride = 32,
	.head_stride = 640,
};
/* the same without the room, as it is told */
static const struct weft_layout packed = {
	.nr_layers = NL,
	.nr_kv = 2,
	.nr_tokens = 16,
	.nr_heads = 2,
	.head_bytes = 32,
	.layer_stride = 2048,
	.kv_stride = 1024,
	.token_stride = 32,
	.head_stride = 512,
};

static const char *arena(const struct world *w)
{
	return wfi_tenant_arena(w->tenant)->addr;
}

static void fill(struct place_memory *m, const struct weft_layout *l)
{
	memset(m->mem, 0xee, MEM);
	if (l)
		shaped_fill(m, l, NBL);
	else
		place_fill(m);
}

/* what the peer would read of a message, and the sum that it would make. Return: whether that is
 * the one that it was told */
static bool sum_is_right(const struct world *w, const struct peer *p, unsigned msg, uint32_t i)
{
	const struct wfi_msg_shaped *m = &p->msgs[msg];
	const uint64_t before = m->m.type == WFI_MSG_SHAPED ? m->m.layer * packed.layer_stride : 0;
	const uint64_t len = m->m.type == WFI_MSG_SHAPED ? packed.layer_stride : LAYER;

	return wfi_crc32c(0, arena(w) + p->pieces[msg][i].off + before, len) ==
	       p->pieces[msg][i].crc;
}

static void expect_piece(const struct world *w, const struct peer *p, unsigned msg, uint32_t i)
{
	const struct wfi_msg_shaped *m = &p->msgs[msg];
	const uint32_t block = m->m.first_block + i, layer = m->m.layer;
	const uint8_t *at = (const uint8_t *)arena(w) + p->pieces[msg][i].off;

	assert_true(sum_is_right(w, p, msg, i));
	if (m->m.type == WFI_MSG_LAYERS) {
		for (uint32_t k = 0; k < LAYER; k++)
			assert_int_equal(at[k], byte_of(block, layer, k));
		return;
	}
	assert_memory_equal(&m->layout, &packed, sizeof(packed));
	for (uint32_t kv = 0; kv < 2; kv++)
		for (uint32_t t = 0; t < 16; t++)
			for (uint32_t h = 0; h < 2; h++)
				for (uint32_t k = 0; k < 32; k++)
					assert_int_equal(
						at[layer * packed.layer_stride +
						   kv * packed.kv_stride + t * packed.token_stride +
						   h * packed.head_stride + k],
						byte_at(layer, kv, block * 16ull + t, h, k));
}

/* all messages from @first on name the blocks of a layer in turn, and where they are right. Return:
 * how many blocks */
static uint32_t expect_told(const struct world *w, const struct peer *p, unsigned first,
			    uint32_t layer)
{
	uint32_t nr = 0;

	for (unsigned msg = first; msg < p->nr_msgs; msg++) {
		const struct wfi_msg_layers *m = &p->msgs[msg].m;

		assert_int_equal(m->layer, layer);
		assert_int_equal(m->nr_layers, 1);
		assert_int_equal(m->first_block, nr);
		for (uint32_t i = 0; i < m->nr; i++)
			expect_piece(w, p, msg, i);
		nr += m->nr;
	}
	return nr;
}

static void expect_free(const struct world *w)
{
	assert_int_equal(wfi_handoffs_in(w->hs, w->space.id), 0);
	assert_int_equal(slots_free(w), w->nr_free);
}

/* ---- what goes where ---- */

static void test_ways(void **state)
{
	struct world *w = *state;
	struct peer *p = &w->peers[0];
	struct heard h;
	unsigned first;

	for (unsigned i = 0; i < 2 * KINDS; i++) {
		const struct weft_layout *l = i % 2 ? &hnd : NULL;
		struct place_memory *m = &w->memory[i / 2];

		fill(m, l);
		for (uint32_t layer = 0; layer < NL; layer++) {
			first = p->nr_msgs;
			assert_int_equal(push(w, &h, p, m, l, layer, DEADLINE_NS), 0);
			turns(w, MS);
			assert_int_equal(expect_told(w, p, first, layer), l ? NBL : NB);
			/* its slots are the peer's to read until it has answered */
			assert_true(slots_free(w) < w->nr_free);
			assert_false(h.done);
			for (unsigned msg = first; msg < p->nr_msgs; msg++)
				answers(w, p, msg, 0);
			assert_true(h.done);
			assert_int_equal(h.res, l ? NBL : NB);
			expect_free(w);
		}
	}
	assert_int_equal(p->nr_aborts, 0);
}

/* a part waits for slots that those before it have; with none it ends, and the peer hears so */
static void test_slots(void **state)
{
	struct world *w = *state;
	struct peer *p = &w->peers[0];
	uint32_t told = 0;
	struct heard h;

	for (unsigned k = 0; k < KINDS; k++) {
		struct place_memory *m = &w->memory[k];
		unsigned answered = p->nr_msgs;

		fill(m, NULL);
		slots_take(w, 0);
		assert_int_equal(push(w, &h, p, m, NULL, 0, DEADLINE_NS), 0);
		turns(w, MS);
		assert_int_equal(h.res, -ENOSPC);
		assert_int_equal(p->nr_aborts, k + 1);
		slots_give(w);
		expect_free(w);
		/* 24 pieces of a quarter of a slot */
		slots_take(w, NB / NL);
		assert_int_equal(push(w, &h, p, m, NULL, 0, DEADLINE_NS), 0);
		for (told = 0; !h.done; answered++) {
			turns(w, MS);
			assert_in_range(answered, 0, p->nr_msgs - 1);
			for (uint32_t i = 0; i < p->msgs[answered].m.nr; i++)
				expect_piece(w, p, answered, i);
			told += p->msgs[answered].m.nr;
			answers(w, p, answered, 0);
		}
		assert_int_equal(told, NB);
		slots_give(w);
		expect_free(w);
	}
}

/* layers to several nodes at a time: each hears its own, in order */
static void test_many(void **state)
{
	struct world *w = *state;
	struct heard h[PEERS];

	slots_take(w, 3 * NB / NL);
	for (uint32_t layer = 0; layer < NL; layer++) {
		for (uint32_t n = 0; n < PEERS; n++) {
			struct place_memory *m = &w->memory[n % KINDS];

			if (!layer)
				fill(m, NULL);
			assert_int_equal(push(w, &h[n], &w->peers[n], m, NULL, layer, DEADLINE_NS),
					 0);
		}
		for (unsigned turn = 0; turn < PEERS; turn++) {
			turns(w, MS);
			for (uint32_t n = 0; n < PEERS; n++) {
				struct peer *p = &w->peers[n];

				if (h[n].done || p->nr_msgs == layer)
					continue;
				assert_int_equal(expect_told(w, p, layer, layer), NB);
				answers(w, p, layer, 0);
			}
		}
		for (uint32_t n = 0; n < PEERS; n++)
			assert_true(h[n].done && h[n].res == NB);
	}
	slots_give(w);
	expect_free(w);
}

/* a peer that takes no message holds up what is for it alone, until its time is up */
static void test_stuck(void **state)
{
	struct world *w = *state;
	struct heard h, other;

	w->peers[0].stuck = true;
	for (unsigned k = 0; k < KINDS; k++) {
		fill(&w->memory[k], NULL);
		assert_int_equal(push(w, &h, &w->peers[0], &w->memory[k], NULL, 0, DEADLINE_NS), 0);
		turns(w, MS);
		assert_int_equal(push(w, &other, &w->peers[1], &w->memory[k], NULL, 0, DEADLINE_NS),
				 0);
		turns(w, MS);
		assert_int_equal(expect_told(w, &w->peers[1], k, 0), NB);
		answers(w, &w->peers[1], k, 0);
		assert_int_equal(other.res, NB);
		turns(w, DEADLINE_NS);
		assert_int_equal(h.res, -ETIMEDOUT);
		assert_int_equal(w->peers[0].nr_msgs, 0);
		expect_free(w);
	}
}

/* ---- ends, with a layer that is on its way ---- */

static void test_ends(void **state)
{
	enum end { END_ANSWER, END_PEER, END_OWNER, END_TIME, ENDS };
	static const int res[] = { -EBADMSG, -ECONNRESET, -ECONNRESET, -ETIMEDOUT };
	struct world *w = *state;
	struct heard h;

	for (unsigned i = 0; i < 2 * KINDS * ENDS; i++) {
		const struct weft_layout *l = i % 2 ? &hnd : NULL;
		struct place_memory *m = &w->memory[i / 2 % KINDS];
		const enum end end = i / 2 / KINDS;
		struct peer *p = &w->peers[0];
		uint64_t held;

		fill(m, l);
		assert_int_equal(push(w, &h, p, m, l, 0, DEADLINE_NS), 0);
		turns(w, MS);
		held = w->nr_free - slots_free(w);
		assert_true(held > 0);
		if (end == END_ANSWER)
			answers(w, p, p->nr_msgs - 1, -EBADMSG);
		else if (end == END_PEER)
			peer_lose(w, p);
		else if (end == END_OWNER)
			wfi_handoffs_owner_gone(w->hs, &w->engine);
		else
			turns(w, DEADLINE_NS);
		assert_true(h.done);
		assert_int_equal(h.res, res[end]);
		assert_int_equal(h.late, 0);
		/* the peer may read them until that time: no answer has come, or can */
		assert_int_equal(w->nr_free - slots_free(w), end == END_ANSWER ? 0 : held);
		if (end != END_ANSWER)
			turns(w, DEADLINE_NS + FENCE_NS);
		expect_free(w);
		peer_again(w, p);
	}
}

/* answers that nobody has asked for change nothing */
static void test_forged(void **state)
{
	struct world *w = *state;
	struct peer *p = &w->peers[0];
	struct place_memory *m = &w->memory[GPU];
	struct wfi_msg_done msg = { .type = WFI_MSG_LAYERS_DONE };
	struct heard h;

	fill(m, NULL);
	assert_int_equal(push(w, &h, p, m, NULL, 0, DEADLINE_NS), 0);
	turns(w, MS);
	for (unsigned bit = 0; bit < 64; bit++) {
		msg.push = p->msgs[0].m.push ^ 1ull << bit;
		assert_int_equal(wfi_handoffs_message(w->hs, &p->base, &msg, sizeof(msg), now(w)),
				 0);
	}
	/* the right one, by another node */
	msg.push = p->msgs[0].m.push;
	assert_int_equal(wfi_handoffs_message(w->hs, &w->peers[1].base, &msg, sizeof(msg), now(w)),
			 0);
	assert_false(h.done);
	assert_true(slots_free(w) < w->nr_free);
	answers(w, p, 0, 0);
	assert_int_equal(h.res, NB);
	/* and the same again */
	answers(w, p, 0, -EBADMSG);
	expect_free(w);
}

/* ---- the GPU's part ---- */

/* a bit that is another on its way out of the GPU: the sum is of what was there */
static void test_flipped(void **state)
{
	struct world *w = *state;
	struct peer *p = &w->peers[0];
	struct heard h;
	uint32_t bad = 0;

	for (unsigned k = GPU; k < KINDS; k++) {
		fill(&w->memory[k], NULL);
		mock_cuda.flip = 1;
		assert_int_equal(push(w, &h, p, &w->memory[k], NULL, 0, DEADLINE_NS), 0);
		turns(w, MS);
		assert_int_equal(mock_cuda.flip, 0);
		for (uint32_t i = 0, msg = p->nr_msgs - 1; i < p->msgs[msg].m.nr; i++)
			bad += !sum_is_right(w, p, msg, i);
		assert_int_equal(bad, k - GPU + 1);
		answers(w, p, p->nr_msgs - 1, -EBADMSG);
		assert_int_equal(h.res, -EBADMSG);
		expect_free(w);
	}
}

enum give_up { BY_TIME, BY_OWNER, BY_PEER, WAYS_TO_GIVE_UP };

/* copies that do not end: their slots are nobody's before they do, and nothing is told of them */
static void never(struct world *w, enum give_up why)
{
	struct place_memory *m = &w->memory[GPU];
	struct peer *p = &w->peers[0];
	struct heard h;
	uint64_t held;
	int res = -ECONNRESET;

	fill(m, NULL);
	cuda_fails("cuEventQuery", WFI_CUDA_NOT_READY);
	assert_int_equal(push(w, &h, p, m, NULL, 0, DEADLINE_NS), 0);
	turns(w, MS);
	held = w->nr_free - slots_free(w);
	assert_true(held > 0);
	if (why == BY_OWNER) {
		wfi_handoffs_owner_gone(w->hs, &w->engine);
	} else if (why == BY_PEER) {
		peer_lose(w, p);
	} else {
		turns(w, DEADLINE_NS);
		res = -ETIMEDOUT;
	}
	turns(w, LATE_NS - 10 * MS);
	assert_int_equal(h.late, 0);
	turns(w, 15 * MS);
	assert_int_equal(h.late, res);
	assert_false(h.done);
	assert_int_equal(p->nr_msgs, 0);
	assert_int_equal(w->nr_free - slots_free(w), held);
	cuda_fails(NULL, 0);
	turns(w, MS);
	assert_true(h.done);
	assert_int_equal(h.res, res);
	expect_free(w);
}

static void test_never_in_time(void **state)
{
	never(*state, BY_TIME);
}

static void test_never_and_dies(void **state)
{
	never(*state, BY_OWNER);
}

static void test_never_and_lost(void **state)
{
	never(*state, BY_PEER);
}

static void test_gpu_lost(void **state)
{
	struct world *w = *state;
	struct peer *p = &w->peers[0];
	struct heard h;

	fill(&w->memory[GPU], NULL);
	cuda_fails("cuEventQuery", WFI_CUDA_CONTEXT_DESTROYED);
	assert_int_equal(push(w, &h, p, &w->memory[GPU], NULL, 0, DEADLINE_NS), 0);
	turns(w, MS);
	cuda_fails(NULL, 0);
	assert_int_equal(h.res, -EIO);
	assert_int_equal(p->nr_msgs, 0);
	assert_int_equal(p->nr_aborts, 1);
	expect_free(w);
	/* what lies elsewhere goes on */
	fill(&w->memory[HOST], NULL);
	assert_int_equal(push(w, &h, p, &w->memory[HOST], NULL, 0, DEADLINE_NS), 0);
	turns(w, MS);
	assert_int_equal(expect_told(w, p, 0, 0), NB);
	answers(w, p, 0, 0);
	assert_int_equal(h.res, NB);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ways),	      TEST(slots),	    TEST(many),	    TEST(stuck),
		TEST(ends),	      TEST(forged),	    TEST(flipped),  TEST(never_in_time),
		TEST(never_and_dies), TEST(never_and_lost), TEST(gpu_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
