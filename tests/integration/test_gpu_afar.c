/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handoffs between two nodes, from and into memory of GPUs: every way, and what becomes of both
 * sides when something goes wrong meanwhile
 */
#include <errno.h>
#include <unistd.h>
#include "tests/integration/gpu_side.h"

static struct test_node near, far; /* prefill's and decode's */

static bool connected(void *ctx)
{
	struct test_engine *e = ctx;
	bool yes;
	char *text;

	if (weft_status_json(e->w, &text))
		return false;
	yes = strstr(text, "\"state\":\"connected\"") != NULL;
	free(text);
	return yes;
}

static void engines_open(struct test_engine *from, struct test_engine *to,
			 const struct weft_space_opts *geometry)
{
	test_engine_open(from, &near, NULL, geometry);
	test_engine_open(to, &far, NULL, geometry);
	assert_true(test_until(10000, connected, from));
}

static void engines_close(struct test_engine *from, struct test_engine *to)
{
	test_engine_close(from);
	test_engine_close(to);
}

/* both nodes, whose driver is as @with has it, in the form of MOCK_CUDA */
static void pair_start(const char *with)
{
	setenv("MOCK_CUDA", with, 1);
	test_pair_start(&near, &far);
	unsetenv("MOCK_CUDA");
}

static int setup(void **state)
{
	(void)state;
	test_pair_start(&near, &far);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_pair_fini(&near, &far);
	return 0;
}

/* ---- bytes ---- */

static void test_ways(void **state)
{
	struct test_engine from, to;
	struct side a, b;

	(void)state;
	engines_open(&from, &to, &side_geometry);
	for (unsigned x = 0; x < NR_KINDS; x++)
		for (unsigned y = 0; y < NR_KINDS; y++) {
			side_open(&a, &from, x, LAYER);
			side_open(&b, &to, y, LAYER);
			whole(&a, &b, 0);
			if (y != SLOTS)
				whole(&a, &b, WEFT_F_VERIFY);
			side_close(&a);
			side_close(&b);
		}
	assert_int_equal(test_counter(to.w, "weft_verify_failures"), 0);
	engines_close(&from, &to);
}

/* each layer in several messages; then all of them at once */
static void test_large(void **state)
{
	struct test_engine from, to;
	struct weft_completion cpl;
	struct handoff h;
	struct side a, b;
	struct weft_op op;

	(void)state;
	engines_open(&from, &to, &side_large);
	side_open(&a, &from, GPU_LAYERS, LARGE);
	side_open(&b, &to, GPU, LARGE);
	whole(&a, &b, WEFT_F_VERIFY);
	expect(&h, &b);
	for (unsigned layer = 0; layer < NL; layer++) {
		fill(&a, &h, layer);
		op = push_of(&a, &h.ticket, layer);
		assert_int_equal(weft_submit(from.ring, &op, 1), 1);
	}
	for (unsigned layer = 0; layer < NL; layer++) {
		test_next(from.ring, &cpl);
		assert_int_equal(cpl.res, NB);
	}
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), NB);
	for (unsigned layer = 0; layer < NL; layer++)
		assert_filled(&h, layer);
	side_close(&a);
	side_close(&b);
	engines_close(&from, &to);
}

/* ---- slots that bytes stop in ---- */

/* all slots of an engine's node but some. Return: where those are that were taken */
static struct weft_slot *take_slots(struct test_engine *e, unsigned but, unsigned *nr)
{
	struct weft_slot *slots = calloc(1u << 16, sizeof(*slots));
	struct weft_op op = { .op = WEFT_OP_CLAIM, .space = e->space, .nr = 1 };

	assert_non_null(slots);
	for (*nr = 0; *nr < 1u << 16; ++*nr) {
		op.slots = &slots[*nr];
		if (weft_call(e->ring, &op, NULL) != 1)
			break;
	}
	op.op = WEFT_OP_RELEASE;
	for (; but; but--) {
		op.slots = &slots[--*nr];
		assert_int_equal(weft_call(e->ring, &op, NULL), 1);
	}
	return slots;
}

static void give_slots(struct test_engine *e, struct weft_slot *slots, unsigned nr)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = 1 };

	while (nr--) {
		op.slots = &slots[nr];
		assert_int_equal(weft_call(e->ring, &op, NULL), 1);
	}
	free(slots);
}

/* with few each part waits for those before it; with none both sides hear it */
static void test_no_slots(void **state)
{
	struct test_engine from, to, *e;
	struct weft_slot *slots;
	struct handoff h;
	struct side a, b;
	unsigned nr;

	(void)state;
	engines_open(&from, &to, &side_large);
	side_open(&a, &from, GPU, LARGE);
	side_open(&b, &to, GPU_LAYERS, LARGE);
	for (unsigned far_side = 0; far_side < 2; far_side++) {
		e = far_side ? &to : &from;
		slots = take_slots(e, 2, &nr);
		whole(&a, &b, 0);
		give_slots(e, slots, nr);
		slots = take_slots(e, 0, &nr);
		expect(&h, &b);
		assert_int_equal(push(&a, &h, 0), -ENOSPC);
		assert_int_equal(hear_end(&h, test_now_ms(), NULL), -ENOSPC);
		give_slots(e, slots, nr);
		whole(&a, &b, 0);
	}
	side_close(&a);
	side_close(&b);
	engines_close(&from, &to);
}

/* ---- ends ---- */

static void assert_nothing_staged(struct test_engine *e)
{
	const struct weft_stat none = { .slots_filling = 0 };

	assert_true(test_stat_settles(e->ring, &none, END_MS));
}

static void test_prefill_dies(void **state)
{
	struct prefill p = { .nr_layers = 2 };
	struct test_engine from, to;
	struct test_child c;
	struct handoff h;
	struct side b;
	uint64_t ms;
	char byte;

	(void)state;
	engines_open(&from, &to, &side_geometry);
	side_open(&b, &to, GPU, LAYER);
	for (unsigned i = 0; i < 4; i++) {
		test_child_start(&c, prefill_run, &near);
		expect(&h, &b);
		p.ticket = h.ticket;
		p.name = h.name;
		/* layers are pushed, or wait for events */
		p.event = i % 2;
		assert_true(test_say(c.to, &p, sizeof(p)));
		for (unsigned layer = 0; layer < p.nr_layers; layer++)
			hear_layer(&h, layer);
		assert_true(test_hear(c.from, &byte, 1));
		ms = test_now_ms();
		test_child_kill(&c);
		assert_int_equal(hear_end(&h, ms, NULL), -ECONNRESET);
		assert_nothing_staged(&from);
		assert_nothing_staged(&to);
	}
	side_close(&b);
	engines_close(&from, &to);
}

static void test_decode_dies(void **state)
{
	struct test_engine from, to;
	struct test_child c;
	struct handoff h;
	struct side a;
	int res;

	(void)state;
	engines_open(&from, &to, &side_geometry);
	side_open(&a, &from, GPU, LAYER);
	for (unsigned i = 0; i < 4; i++) {
		test_child_start(&c, decode_run, &far);
		assert_true(test_hear(c.from, &h, sizeof(h)));
		for (unsigned layer = 0; layer < i % NL; layer++)
			assert_int_equal(push(&a, &h, layer), NB);
		test_child_kill(&c);
		res = (int)NB;
		for (unsigned layer = i % NL; layer < NL && res == (int)NB; layer++)
			res = push(&a, &h, layer);
		/* it may not have been known yet */
		assert_true(res == (int)NB || res == -ESTALE || res == -ECANCELED ||
			    res == -ECONNRESET);
		assert_true(test_alone(to.w, END_MS));
		assert_int_equal(push(&a, &h, 0), -ESTALE);
		assert_nothing_staged(&from);
		assert_nothing_staged(&to);
	}
	side_close(&a);
	engines_close(&from, &to);
}

static int cancel(const struct handoff *h)
{
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_CANCEL, .handle = h->handle };
	struct weft_ring *ring;
	int ret;

	assert_int_equal(weft_ring_open(h->to->e->w, NULL, &ring), 0);
	ret = weft_call(ring, &op, NULL);
	weft_ring_close(ring);
	return ret;
}

/* decode does not want it any more, at any moment */
static void test_cancelled(void **state)
{
	struct test_engine from, to;
	struct weft_completion cpl;
	struct handoff h;
	struct side a, b;
	struct weft_op op;
	uint64_t ms;

	(void)state;
	engines_open(&from, &to, &side_large);
	side_open(&a, &from, GPU_LAYERS, LARGE);
	side_open(&b, &to, GPU, LARGE);
	for (unsigned i = 0; i < 2 * NL; i++) {
		expect(&h, &b);
		for (unsigned layer = 0; layer < i / 2; layer++) {
			fill(&a, &h, layer);
			assert_int_equal(push(&a, &h, layer), NB);
		}
		op = push_of(&a, &h.ticket, i / 2);
		if (i % 2)
			assert_int_equal(weft_submit(from.ring, &op, 1), 1);
		ms = test_now_ms();
		/* it may be whole by now */
		if (cancel(&h) == -ENOENT)
			assert_int_equal(hear_end(&h, ms, NULL), NB);
		else
			assert_int_equal(hear_end(&h, ms, NULL), -ECANCELED);
		memset(b.mem, 7, 2 * NB * NL * LARGE);
		if (i % 2)
			test_next(from.ring, &cpl);
		assert_in_range(test_now_ms() - ms, 0, END_MS);
		assert_nothing_staged(&from);
		assert_nothing_staged(&to);
		/* nothing lands behind the end */
		for (uint64_t at = 0; at < 2 * NB * NL * LARGE; at++)
			assert_int_equal(b.mem[at], 7);
	}
	side_close(&a);
	side_close(&b);
	engines_close(&from, &to);
}

/* events that never come: whoever gives up, both sides are free */
static void test_event_never(void **state)
{
	struct test_engine from, to;
	struct CUevent_st *event;
	struct handoff h;
	struct side a, b;
	struct weft_op op;
	uint32_t number;
	uint64_t ms;

	(void)state;
	pair_start("2 1 1 cuEventQuery 600");
	engines_open(&from, &to, &side_geometry);
	side_open(&a, &from, GPU, LAYER);
	side_open(&b, &to, GPU, LAYER);
	event_open(&a, &event, &number);
	/* prefill's time is up, then decode's */
	for (unsigned i = 0; i < 2; i++) {
		expect_with(&h, &b, 0, i ? 100000 : 0, NULL);
		op = push_of(&a, &h.ticket, 0);
		op.handle = number;
		op.timeout_us = i ? 500000 : 100000;
		ms = test_now_ms();
		assert_int_equal(weft_call(from.ring, &op, NULL), -ETIMEDOUT);
		assert_int_equal(hear_end(&h, ms, NULL), -ETIMEDOUT);
	}
	/* prefill gives its event back */
	expect(&h, &b);
	push_waits(&a, &h.ticket, number);
	event_back(&a, &h, number);
	/* decode gives its region back */
	expect(&h, &b);
	ms = test_now_ms();
	side_close(&b);
	assert_int_equal(hear_end(&h, ms, NULL), -ECANCELED);
	side_close(&a);
	engines_close(&from, &to);
	test_pair_fini(&near, &far);
	cuda->cuEventDestroy(event);
}

/* a GPU falls off while it is used, on either side: both hear it */
static void test_gpu_lost(void **state)
{
	struct test_engine from, to;
	struct handoff h;
	struct side a, b;

	(void)state;
	pair_start("2 1 1 cuEventQuery 719");
	engines_open(&from, &to, &side_geometry);
	for (unsigned i = 0; i < 2; i++) {
		side_open(&a, &from, i ? MEMORY : GPU, LAYER);
		side_open(&b, &to, i ? GPU : MEMORY, LAYER);
		expect(&h, &b);
		assert_int_equal(push(&a, &h, 0), -EIO);
		assert_int_equal(hear_end(&h, test_now_ms(), NULL), -EIO);
		assert_nothing_staged(&from);
		assert_nothing_staged(&to);
		side_close(&a);
		side_close(&b);
	}
	engines_close(&from, &to);
	test_pair_fini(&near, &far);
}

/* a bit that is another on its way out of one GPU, or into the other */
static void test_flipped(void **state)
{
	struct test_engine from, to;
	struct handoff h;
	struct side a, b;
	bool blind;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		pair_start("2 1 1 flip 1000000");
		engines_open(&from, &to, &side_large);
		side_open(&a, &from, i ? MEMORY : GPU, LARGE);
		side_open(&b, &to, i ? GPU : MEMORY, LARGE);
		expect_with(&h, &b, WEFT_F_VERIFY, 0, NULL);
		fill(&a, &h, 0);
		/* without kernels nobody sums up what lies on a GPU */
		blind = test_node_logged(i ? &far : &near, "built without kernels") > 0;
		assert_int_equal(push(&a, &h, 0), blind ? (int)NB : -EBADMSG);
		assert_int_equal(test_counter(to.w, "weft_verify_failures") > 0, !blind);
		if (!blind)
			assert_int_equal(hear_end(&h, test_now_ms(), NULL), -EBADMSG);
		side_close(&a);
		side_close(&b);
		engines_close(&from, &to);
		test_pair_fini(&near, &far);
	}
}

/* a copy that does not end, on either side: both hear so in time */
static void test_never_copied(void **state)
{
	struct test_engine from, to;
	struct handoff h;
	struct side a, b;
	struct weft_op op;
	uint64_t ms;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		pair_start("2 1 1 cuEventQuery 600");
		engines_open(&from, &to, &side_geometry);
		side_open(&a, &from, i ? MEMORY : GPU, LAYER);
		side_open(&b, &to, i ? GPU : MEMORY, LAYER);
		expect(&h, &b);
		op = push_of(&a, &h.ticket, 0);
		op.timeout_us = 100000;
		ms = test_now_ms();
		assert_int_equal(weft_call(from.ring, &op, NULL), -ETIMEDOUT);
		assert_int_equal(hear_end(&h, ms, NULL), -ETIMEDOUT);
		test_node_kill(&near);
		test_node_kill(&far);
		engines_close(&from, &to);
		test_pair_fini(&near, &far);
		test_gpu_free(i ? b.mem : a.mem);
	}
}

/* the nodes themselves: prefill's, then decode's, while layers are on their way */
static void test_node_dies(void **state)
{
	struct test_engine from, to;
	struct weft_completion cpl;
	struct handoff h;
	struct side a, b;
	struct weft_op op;
	uint64_t ms;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		test_pair_start(&near, &far);
		engines_open(&from, &to, &side_large);
		side_open(&a, &from, GPU, LARGE);
		side_open(&b, &to, GPU, LARGE);
		expect(&h, &b);
		for (unsigned layer = 0; layer < NL - 1; layer++) {
			op = push_of(&a, &h.ticket, layer);
			/* until then its slots are the receiver's to read, or of who was it */
			op.timeout_us = END_MS / 2 * 1000;
			assert_int_equal(weft_submit(from.ring, &op, 1), 1);
		}
		/* before its first message a node is not known to push */
		for (unsigned nr = 0; nr <= i / 2; nr++)
			test_next(to.ring, &cpl);
		ms = test_now_ms();
		test_node_kill(i % 2 ? &far : &near);
		if (i % 2) {
			for (unsigned layer = 0; layer < NL - 1; layer++) {
				test_next(from.ring, &cpl);
				assert_true(cpl.res == (int)NB || cpl.res == -ECONNRESET);
			}
			assert_in_range(test_now_ms() - ms, 0, END_MS);
			assert_nothing_staged(&from);
		} else {
			assert_int_equal(hear_end(&h, ms, NULL), -ECONNRESET);
			assert_nothing_staged(&to);
		}
		engines_close(&from, &to);
		test_pair_fini(&near, &far);
		test_gpu_free(a.mem);
		test_gpu_free(b.mem);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ways),
		TEST(large),
		TEST(no_slots),
		TEST(prefill_dies),
		TEST(decode_dies),
		TEST(cancelled),
		cmocka_unit_test(test_event_never),
		cmocka_unit_test(test_gpu_lost),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_never_copied),
		cmocka_unit_test(test_node_dies),
	};
	const int ret = test_gpu_load();

	return ret ? ret : cmocka_run_group_tests(tests, NULL, NULL);
}
