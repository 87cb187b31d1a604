/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handoffs between layouts whose blocks lie in memory of engines': on GPUs, on the host, in slots
 * on one side; inside a node and between two
 */
#include <errno.h>
#include <sys/mman.h>
#include "tests/integration/gpu.h"
#include "tests/integration/ranks.h"

static struct test_node near, far;

static void gpu_open(struct rank *r)
{
	r->mem = test_gpu_alloc(r->mem_len);
	assert_int_equal(test_gpu_reg(&r->e, r->mem, r->mem_len, &r->region), 0);
}

static void gpu_close(struct rank *r)
{
	assert_int_equal(weft_region_dereg(r->e.w, r->region), 0);
	test_gpu_free(r->mem);
}

static void other_open(struct rank *r)
{
	test_gpu_enter(1);
	gpu_open(r);
	test_gpu_leave(1);
}

static void host_open(struct rank *r)
{
	struct weft_region_opts opts = { .size = sizeof(opts), .len = r->mem_len, .fd = -1 };

	r->mem = mmap(NULL, r->mem_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(r->mem != MAP_FAILED);
	opts.addr = r->mem;
	assert_int_equal(weft_region_reg(r->e.w, &opts, &r->region), 0);
}

static void host_close(struct rank *r)
{
	assert_int_equal(weft_region_dereg(r->e.w, r->region), 0);
	munmap(r->mem, r->mem_len);
}

static const struct rank_memory gpu = { gpu_open, gpu_close };
static const struct rank_memory other_gpu = { other_open, gpu_close };
static const struct rank_memory host = { host_open, host_close };

static void ways(const struct test_node *at_from, const struct test_node *at_to)
{
	static const struct ranks sides[] = {
		{ .memory = NULL },
		{ .memory = &gpu },
		{ .memory = &gpu, .flags = WEFT_F_VERIFY },
		{ .memory = &other_gpu },
		{ .memory = &host, .flags = WEFT_F_VERIFY },
	};

	for (unsigned x = 0; x < WFI_ARRAY_SIZE(sides); x++)
		for (unsigned y = 0; y < WFI_ARRAY_SIZE(sides); y++)
			if (sides[x].memory || sides[y].memory)
				ranks_all(at_from, &sides[x], at_to, &sides[y], (x + y) % 5, 5);
}

static void test_one_node(void **state)
{
	(void)state;
	ways(&near, &near);
	assert_int_equal(test_node_logged(&near, "checksum"), 0);
}

/* within a GPU no byte goes through slots, not even of an arena that has none left */
static void test_straight(void **state)
{
	static const struct weft_space_opts large = {
		.size = sizeof(large),
		.block_bytes = 1u << 20,
		.model = "large",
		.layout = "test",
		.tokens_per_block = 16,
		.nr_layers = 1,
	};
	const struct ranks from = { 4, 16, HND, &gpu, 0 }, to = { 2, 64, NHD, &gpu, WEFT_F_VERIFY };
	struct weft_slot slot;
	struct weft_op take = { .op = WEFT_OP_CLAIM, .nr = 1, .slots = &slot };
	struct test_engine e;
	uint64_t copied;

	(void)state;
	test_engine_open(&e, &near, NULL, &large);
	take.space = e.space;
	while (weft_call(e.ring, &take, NULL) == 1)
		;
	copied = test_counter(e.w, "weft_handoff_copied");
	ranks_handoff(&near, &from, &near, &to, false);
	assert_int_equal(test_counter(e.w, "weft_handoff_copied"),
			 copied + 2ull * NL * HEADS * TOKENS * HB);
	test_engine_close(&e);
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
	ways(&near, &far);
	assert_int_equal(test_node_logged(&far, "checksum"), 0);
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
		cmocka_unit_test(test_straight),
		cmocka_unit_test(test_two_nodes),
	};
	const int ret = test_gpu_load();

	return ret ? ret : cmocka_run_group_tests(tests, start_two, stop_two);
}
