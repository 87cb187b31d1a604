/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handoffs from and into the memory of GPUs, inside a node, and what becomes of both sides when
 * something goes wrong meanwhile. As in test_gpu_node.c the driver is mocked. In a weftd events of
 * the engines' have always come, but where the node's driver is made to say that none ever does.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/integration/gpu_side.h"
#include "weft_internal/gpu.h"

static const char *const sets[] = { "arena_bytes=64M", NULL };

/* ---- bytes ---- */

static void test_ways(void **state)
{
	struct test_engine from, to;
	struct side a, b;

	(void)state;
	test_engine_open(&from, &node, NULL, &side_geometry);
	test_engine_open(&to, &node, NULL, &side_geometry);
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
	test_engine_close(&from);
	test_engine_close(&to);
}

/* between GPUs no byte goes through slots, not even of an arena that has none left */
static void test_straight(void **state)
{
	struct test_engine from, to;
	struct side a, b;
	uint64_t copied, summed;
	struct weft_slot slot;
	struct weft_op take = { .op = WEFT_OP_CLAIM, .nr = 1, .slots = &slot };

	(void)state;
	test_engine_open(&from, &node, NULL, &side_geometry);
	test_engine_open(&to, &node, NULL, &side_geometry);
	side_open(&a, &from, GPU_LAYERS, LAYER);
	side_open(&b, &to, GPU, LAYER);
	take.space = to.space;
	while (weft_call(to.ring, &take, NULL) == 1)
		;
	copied = test_counter(to.w, "weft_handoff_copied");
	summed = test_counter(to.w, "weft_xfer_summed");
	whole(&a, &b, WEFT_F_VERIFY);
	assert_int_equal(test_counter(to.w, "weft_handoff_copied"), copied + NB * BLOCK);
	/* held against each other in the device, and nobody asked for the sums */
	assert_int_equal(test_counter(to.w, "weft_xfer_summed"), summed);
	side_close(&a);
	side_close(&b);
	test_engine_close(&from);
	test_engine_close(&to);
}

/* a place of a push may have its layers alone; what comes in halves is told in halves */
static void test_parts(void **state)
{
	struct test_engine from, to;
	struct weft_completion cpl;
	struct handoff h;
	struct side a, b;
	struct weft_op op;

	(void)state;
	test_engine_open(&from, &node, NULL, &side_geometry);
	test_engine_open(&to, &node, NULL, &side_geometry);
	side_open(&a, &from, GPU, LAYER);
	side_open(&b, &to, GPU, LAYER);
	expect(&h, &b);
	for (unsigned half = 0; half < 2; half++)
		for (unsigned layer = 0; layer < NL; layer += 2) {
			struct weft_place places[NB / 2];

			for (unsigned i = 0; i < NB / 2; i++) {
				places[i] = (struct weft_place){ .off = i * 2 * LAYER,
								 .region = a.region,
								 .len = 2 * LAYER };
				for (unsigned l = 0; l < 2; l++)
					test_fill(a.mem + (2 * i + l) * LAYER, LAYER,
						  side_seed(&h, half * NB / 2 + i, layer + l));
			}
			op = push_of(&a, &h.ticket, layer);
			op.places = places;
			op.nr = NB / 2;
			op.nr_layers = 2;
			op.first_block = half * NB / 2;
			assert_int_equal(weft_call(from.ring, &op, NULL), NB / 2);
			test_next(to.ring, &cpl);
			assert_int_equal(cpl.layer, layer);
			assert_int_equal(cpl.nr_layers, 2);
			assert_int_equal(cpl.first_block, half * NB / 2);
			assert_int_equal(cpl.nr_blocks, NB / 2);
		}
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), NB);
	for (unsigned layer = 0; layer < NL; layer++)
		assert_filled(&h, layer);
	side_close(&a);
	side_close(&b);
	test_engine_close(&from);
	test_engine_close(&to);
}

/* a bit that is another on its way from memory to memory */
static void test_flipped(void **state)
{
	/* so long that the copy engine has it */
	static const struct weft_space_opts large = {
		.size = sizeof(large),
		.block_bytes = 4u << 20,
		.model = "gpu-handoff-large",
		.layout = "test",
		.tokens_per_block = 16,
		.nr_layers = 1,
	};
	const uint64_t len = 8u << 20;
	struct weft_region_opts opts = {
		.size = sizeof(opts), .len = len, .fd = -1, .kind = WEFT_REGION_GPU
	};
	struct weft_place from = { .off = 0 }, to = { .off = 4u << 20 };
	struct weft_key key;
	struct weft_ticket ticket;
	struct test_engine e;
	struct weft_ring *other;
	struct weft_completion cpl;
	struct weft_op expects = { .op = WEFT_OP_HANDOFF_EXPECT,
				   .flags = WEFT_F_COPY | WEFT_F_VERIFY,
				   .nr = 1,
				   .nr_layers = 1,
				   .keys = &key,
				   .places = &to,
				   .ticket = &ticket };
	struct weft_op pushes = { .op = WEFT_OP_HANDOFF_PUSH,
				  .flags = WEFT_F_COPY,
				  .nr = 1,
				  .nr_layers = 1,
				  .places = &from,
				  .ticket = &ticket };
	uint64_t mem;
	int res;

	(void)state;
	test_engine_open(&e, NULL, NULL, &large);
	assert_int_equal(weft_ring_open(e.w, NULL, &other), 0);
	assert_int_equal(cuda->cuMemAlloc(&mem, len), 0);
	opts.addr = (void *)(uintptr_t)mem;
	assert_int_equal(weft_region_reg(e.w, &opts, &from.region), 0);
	to.region = from.region;
	expects.space = pushes.space = e.space;
	test_keys(&e, 1, 1, &key);
	for (unsigned bad = 0; bad < 2; bad++) {
		test_fill((char *)(uintptr_t)mem, 4u << 20, bad);
		assert_int_equal(weft_submit(e.ring, &expects, 1), 1);
		test_next(e.ring, &cpl);
		mock->flip = bad;
		res = weft_call(other, &pushes, NULL);
		if (bad && res == 1) {
			print_message("no kernels were built: nobody sums up\n");
			break;
		}
		assert_int_equal(res, bad ? -EBADMSG : 1);
		do
			test_next(e.ring, &cpl);
		while (cpl.flags & WEFT_CQE_MORE);
		assert_int_equal(cpl.res, bad ? -EBADMSG : 1);
	}
	mock->flip = false;
	test_engine_close(&e);
	cuda->cuMemFree(mem);
}

/* ---- order ---- */

/* an engine's stream, and the event behind what it computes */
struct computing {
	struct CUstream_st *stream;
	struct CUevent_st *event;
	uint32_t number;
	char *result;
};

/* layer 0, which waits for what is computed: until mock_release() */
static void push_behind(struct side *from, struct weft_ticket *ticket, const struct computing *c)
{
	mock->hold = true;
	assert_int_equal(
		cuda->cuMemcpyAsync((uintptr_t)from->mem, (uintptr_t)c->result, MEM, c->stream), 0);
	assert_int_equal(cuda->cuEventRecord(c->event, c->stream), 0);
	mock->hold = false;
	push_waits(from, ticket, c->number);
}

/* what the engine's stream still computes when the layer is pushed arrives all the same; and who
 * waits meanwhile waits for nobody else */
static void test_event(void **state)
{
	struct test_engine to, from;
	struct handoff h, other;
	struct computing c = { .result = calloc(1, MEM) };
	struct weft_completion cpl;
	struct side a, b;
	struct weft_op op;

	(void)state;
	assert_non_null(c.result);
	test_engine_open(&to, NULL, NULL, &side_geometry);
	from = to;
	assert_int_equal(weft_ring_open(to.w, NULL, &from.ring), 0);
	side_open(&a, &from, GPU, LAYER);
	side_open(&b, &to, GPU, LAYER);
	event_open(&a, &c.event, &c.number);
	assert_int_equal(cuda->cuStreamCreate(&c.stream, WFI_CUDA_STREAM_NON_BLOCKING), 0);
	expect(&h, &b);
	for (unsigned i = 0; i < NB; i++)
		test_fill(c.result + a.places[i].off, LAYER, side_seed(&h, i, 0));
	push_behind(&a, &h.ticket, &c);
	assert_int_equal(weft_poll(to.ring, &cpl, 1), 0);
	mock_release();
	hear_layer(&h, 0);
	test_next(from.ring, &cpl);
	assert_int_equal(cpl.res, NB);
	/* what is cancelled meanwhile costs the pusher no region */
	expect(&other, &b);
	push_behind(&a, &other.ticket, &c);
	op = (struct weft_op){ .op = WEFT_OP_HANDOFF_CANCEL, .handle = other.handle };
	assert_int_equal(weft_submit(to.ring, &op, 1), 1);
	test_next(from.ring, &cpl);
	assert_int_equal(cpl.res, -ECANCELED);
	for (unsigned i = 0; i < 2; i++) {
		test_next(to.ring, &cpl);
		assert_int_equal(cpl.res, cpl.op == WEFT_OP_HANDOFF_CANCEL ? 0 : -ECANCELED);
	}
	mock_release();
	for (unsigned layer = 1; layer < NL; layer++) {
		fill(&a, &h, layer);
		assert_int_equal(push(&a, &h, layer), NB);
		hear_layer(&h, layer);
	}
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), NB);
	assert_int_equal(weft_region_dereg(from.w, c.number), 0);
	side_close(&a);
	side_close(&b);
	test_engine_close(&to);
	cuda->cuStreamDestroy(c.stream);
	cuda->cuEventDestroy(c.event);
	free(c.result);
}

/* a stream of decode's waits for all of it */
static void test_signal(void **state)
{
	struct test_engine from, to;
	struct weft_signal signal = { 0 };
	struct CUstream_st *stream;
	struct CUevent_st *event;
	struct handoff h;
	struct side a, b;
	char *result = calloc(1, MEM);

	(void)state;
	assert_non_null(result);
	test_engine_open(&from, &node, NULL, &side_geometry);
	test_engine_open(&to, &node, NULL, &side_geometry);
	side_open(&a, &from, GPU_LAYERS, LAYER);
	side_open(&b, &to, GPU, LAYER);
	assert_int_equal(cuda->cuStreamCreate(&stream, WFI_CUDA_STREAM_NON_BLOCKING), 0);
	assert_int_equal(cuda->cuEventCreate(&event, WFI_CUDA_EVENT_NO_TIMING), 0);
	assert_int_equal(weft_signals_open(to.ring, b.region), 0);
	for (unsigned slots = 0; slots < 2; slots++) {
		struct side in = b;

		in.kind = slots ? SLOTS : GPU;
		expect_with(&h, &in, WEFT_F_SIGNAL, 0, &signal);
		assert_int_equal(weft_signal_wait(to.ring, &signal, stream), 0);
		assert_int_equal(
			cuda->cuMemcpyAsync((uintptr_t)result, (uintptr_t)b.mem, MEM, stream), 0);
		assert_int_equal(cuda->cuEventRecord(event, stream), 0);
		for (unsigned layer = 0; layer < NL; layer++) {
			assert_int_not_equal(cuda->cuEventQuery(event), 0);
			fill(&a, &h, layer);
			assert_int_equal(push(&a, &h, layer), NB);
		}
		assert_int_equal(cuda->cuEventSynchronize(event), 0);
		for (unsigned i = 0; i < NB && !slots; i++)
			assert_true(
				test_filled(result + b.places[i].off, LAYER, side_seed(&h, i, 0)));
		assert_int_equal(hear_end(&h, test_now_ms(), NULL), NB);
	}
	side_close(&a);
	side_close(&b);
	test_engine_close(&from);
	test_engine_close(&to);
	cuda->cuStreamDestroy(stream);
	cuda->cuEventDestroy(event);
	free(result);
}

/* ---- what is refused ---- */

static void test_refused(void **state)
{
	static const struct weft_layout layout = { .nr_layers = NL };
	struct test_engine from, to;
	struct side a, b, host;
	struct weft_completion cpl;
	struct weft_place places[NB];
	struct CUevent_st *event;
	struct handoff h;
	struct weft_op op;
	uint32_t number;

	(void)state;
	test_engine_open(&from, &node, NULL, &side_geometry);
	test_engine_open(&to, &node, NULL, &side_geometry);
	side_open(&a, &from, GPU, LAYER);
	side_open(&host, &from, MEMORY, LAYER);
	side_open(&b, &to, GPU, LAYER);
	expect(&h, &b);
	op = push_of(&a, &h.ticket, 0);
	op.places = places;
	/* outside of the region; of a length that is neither the block's nor the layer's; in two
	 * memories; in none */
	memcpy(places, a.places, sizeof(places));
	places[NB - 1].off = MEM - BLOCK + 1;
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	places[NB - 1] = a.places[NB - 1];
	places[3].len = 2 * LAYER;
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	places[3] = host.places[3];
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	places[3].region = 77;
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	/* an event that is none; and one that has come, for a push that is refused all the same */
	op.places = a.places;
	op.handle = a.region;
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	event_open(&a, &event, &number);
	op.handle = number;
	op.layer = 2;
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	op.layer = 0;
	op.handle = 0;
	/* a layout, where none is taken */
	op.flags |= WEFT_F_LAYOUT;
	op.layout = &layout;
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	/* out of order, and of another node */
	assert_int_equal(push(&a, &h, 1), -EINVAL);
	h.ticket.node++;
	assert_int_equal(push(&a, &h, 0), -EHOSTUNREACH);
	h.ticket.node--;
	/* what was refused has changed nothing. A block comes from one engine, out of places */
	fill(&a, &h, 0);
	assert_int_equal(push(&a, &h, 0), NB);
	hear_layer(&h, 0);
	op = push_of(&b, &h.ticket, 1);
	assert_int_equal(weft_submit(to.ring, &op, 1), 1);
	test_next(to.ring, &cpl);
	assert_int_equal(cpl.res, -EINVAL);
	/* expectations */
	op = (struct weft_op){ .op = WEFT_OP_HANDOFF_EXPECT,
			       .flags = WEFT_F_COPY,
			       .space = to.space,
			       .nr = NB,
			       .nr_layers = NL,
			       .keys = h.keys,
			       .slots = b.slots,
			       .places = places };
	memcpy(places, b.places, sizeof(places));
	places[0].len = LAYER;
	assert_int_equal(weft_submit(to.ring, &op, 1), 1);
	test_next(to.ring, &cpl);
	assert_int_equal(cpl.res, -EINVAL);
	op.flags = WEFT_F_VERIFY;
	assert_int_equal(weft_submit(to.ring, &op, 1), 1);
	test_next(to.ring, &cpl);
	assert_int_equal(cpl.res, -EINVAL);
	/* a put that waits, and whose other places are elsewhere */
	op = (struct weft_op){ .op = WEFT_OP_PUT,
			       .flags = WEFT_F_COPY,
			       .space = from.space,
			       .nr = 2,
			       .keys = h.keys,
			       .places = places,
			       .handle = number };
	places[0] = a.places[0];
	places[1] = host.places[1];
	assert_int_equal(weft_call(from.ring, &op, NULL), -EINVAL);
	side_close(&a);
	side_close(&host);
	test_engine_close(&from);
	assert_true(test_alone(to.w, END_MS));
	cuda->cuEventDestroy(event);
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), -ECONNRESET);
	side_close(&b);
	test_engine_close(&to);
}

/* ---- ends ---- */

static bool fds_are(void *ctx)
{
	return test_node_fds(&node) == *(unsigned *)ctx;
}

static bool fds_fewer(void *ctx)
{
	return test_node_fds(&node) <= *(unsigned *)ctx;
}

static void test_prefill_dies(void **state)
{
	struct test_engine to;
	struct test_child c;
	struct handoff h;
	struct prefill p = { .nr_layers = 2 };
	struct side b;
	uint64_t ms;
	unsigned fds;
	char byte;

	(void)state;
	test_engine_open(&to, &node, NULL, &side_geometry);
	side_open(&b, &to, GPU, LAYER);
	fds = test_node_fds(&node);
	for (unsigned i = 0; i < 8; i++) {
		test_child_start(&c, prefill_run, &node);
		expect(&h, &b);
		p.ticket = h.ticket;
		p.name = h.name;
		assert_true(test_say(c.to, &p, sizeof(p)));
		for (unsigned layer = 0; layer < p.nr_layers; layer++)
			hear_layer(&h, layer);
		assert_true(test_hear(c.from, &byte, 1));
		ms = test_now_ms();
		test_child_kill(&c);
		assert_int_equal(hear_end(&h, ms, NULL), -ECONNRESET);
		assert_true(test_until(END_MS, fds_are, &fds));
	}
	side_close(&b);
	test_engine_close(&to);
}

static void test_decode_dies(void **state)
{
	struct test_engine from;
	struct test_child c;
	struct handoff h;
	struct side a;
	unsigned fds;
	uint64_t ms;
	int res = (int)NB;

	(void)state;
	test_engine_open(&from, &node, NULL, &side_geometry);
	side_open(&a, &from, GPU, LAYER);
	fds = test_node_fds(&node);
	for (unsigned i = 0; i < 8; i++) {
		test_child_start(&c, decode_run, &node);
		assert_true(test_hear(c.from, &h, sizeof(h)));
		for (unsigned layer = 0; layer < i % NL; layer++)
			assert_int_equal(push(&a, &h, layer), NB);
		test_child_kill(&c);
		ms = test_now_ms();
		for (unsigned layer = i % NL; layer < NL && res == (int)NB; layer++)
			res = push(&a, &h, layer);
		/* it may not have been known yet */
		assert_true(res == (int)NB || res == -ESTALE || res == -ECANCELED);
		assert_true(test_until(END_MS, fds_fewer, &fds));
		assert_in_range(test_now_ms() - ms, 0, END_MS);
		res = push(&a, &h, 0);
		assert_int_equal(res, -ESTALE);
		res = (int)NB;
	}
	side_close(&a);
	test_engine_close(&from);
}

/* events that never come: whoever gives up, both sides are free */
static void test_event_never(void **state)
{
	struct test_engine to, from;
	struct CUevent_st *event;
	struct weft_completion cpl;
	struct test_child c;
	struct test_node n;
	struct handoff h;
	struct prefill p = { .nr_layers = 1, .event = true };
	struct side a, b;
	struct weft_op op;
	uint32_t number;
	uint64_t ms;
	char byte;

	(void)state;
	test_gpu_start(&n, sets, "2 1 1 cuEventQuery 600");
	test_engine_open(&to, &n, NULL, &side_geometry);
	test_engine_open(&from, &n, NULL, &side_geometry);
	side_open(&b, &to, GPU, LAYER);
	/* prefill dies */
	test_child_start(&c, prefill_run, &n);
	expect(&h, &b);
	p.ticket = h.ticket;
	p.name = h.name;
	assert_true(test_say(c.to, &p, sizeof(p)));
	assert_true(test_hear(c.from, &byte, 1));
	assert_int_equal(weft_wait(to.ring, &cpl, 1, 20000), 0);
	ms = test_now_ms();
	test_child_kill(&c);
	assert_int_equal(hear_end(&h, ms, NULL), -ECONNRESET);
	/* prefill's time is up, then decode's */
	side_open(&a, &from, GPU, LAYER);
	event_open(&a, &event, &number);
	for (unsigned i = 0; i < 2; i++) {
		expect_with(&h, &b, 0, i ? 100000 : 0, NULL);
		op = push_of(&a, &h.ticket, 0);
		op.handle = number;
		op.timeout_us = i ? 0 : 100000;
		ms = test_now_ms();
		assert_int_equal(weft_call(from.ring, &op, NULL), i ? -ECANCELED : -ETIMEDOUT);
		assert_int_equal(hear_end(&h, ms, NULL), -ETIMEDOUT);
	}
	/* prefill gives its event back */
	expect(&h, &b);
	push_waits(&a, &h.ticket, number);
	event_back(&a, &h, number);
	assert_int_equal(weft_event_reg(from.w, event, a.region, &number), 0);
	/* decode gives its region back: it waits for nobody */
	expect(&h, &b);
	push_waits(&a, &h.ticket, number);
	ms = test_now_ms();
	side_close(&b);
	assert_in_range(test_now_ms() - ms, 0, END_MS);
	assert_int_equal(hear_end(&h, ms, NULL), -ECANCELED);
	test_next(from.ring, &cpl);
	assert_int_equal(cpl.res, -ECANCELED);
	/* and one that nothing is pushed to yet */
	side_open(&b, &to, GPU, LAYER);
	expect(&h, &b);
	ms = test_now_ms();
	side_close(&b);
	assert_int_equal(hear_end(&h, ms, NULL), -ECANCELED);
	assert_int_equal(weft_region_dereg(from.w, number), 0);
	side_close(&a);
	test_engine_close(&from);
	test_engine_close(&to);
	test_node_fini(&n);
	cuda->cuEventDestroy(event);
}

/* it falls off while it is used: both sides hear it */
static void test_gpu_lost(void **state)
{
	struct test_engine from, to;
	struct test_node n;
	struct handoff h;
	struct side a, b;

	(void)state;
	test_gpu_start(&n, sets, "2 1 1 cuEventQuery 719");
	test_engine_open(&from, &n, NULL, &side_geometry);
	test_engine_open(&to, &n, NULL, &side_geometry);
	side_open(&a, &from, GPU, LAYER);
	side_open(&b, &to, GPU, LAYER);
	expect(&h, &b);
	assert_int_equal(push(&a, &h, 0), -EIO);
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), -EIO);
	expect(&h, &b);
	assert_int_equal(push(&a, &h, 0), -ECONNRESET);
	assert_int_equal(hear_end(&h, test_now_ms(), NULL), -ECONNRESET);
	assert_int_equal(test_stat(to.ring).slots_filling, 0);
	side_close(&a);
	side_close(&b);
	test_engine_close(&from);
	test_engine_close(&to);
	test_node_fini(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_GPU(ways, sets),
		TEST_GPU(straight, sets),
		TEST_GPU(parts, sets),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_event),
		TEST_GPU(signal, sets),
		TEST_GPU(refused, sets),
		TEST_GPU(prefill_dies, sets),
		TEST_GPU(decode_dies, sets),
		cmocka_unit_test(test_event_never),
		cmocka_unit_test(test_gpu_lost),
	};
	const int skip = test_gpu_load();

	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
