/* SPDX-License-Identifier: Apache-2.0 */
/* two tenants' engines at one node whose memory is not enough for both */
#include <errno.h>
#include <sys/stat.h>
#include "tests/integration/node.h"

#define BLOCK (64u << 10)
#define CHAIN 16u
#define MIB (1u << 20)
#define MEMORY (32 * MIB)
#define FLOOR (12 * MIB)
#define SET (8 * MIB / BLOCK / CHAIN) /* chains that b works with */

static struct test_node node;
static uint8_t bytes[CHAIN][BLOCK];

static void engine_open(struct test_engine *e, const char *token)
{
	const struct weft_space_opts space = {
		.size = sizeof(space),
		.block_bytes = BLOCK,
		.model = "tenants",
		.layout = "test",
		.tokens_per_block = 16,
		.verify = 1,
	};

	test_engine_open(e, &node, token, &space);
}

static void chain_put(const struct test_engine *e, uint64_t name)
{
	struct weft_key keys[CHAIN];
	const void *bufs[CHAIN];

	test_keys(e, name, CHAIN, keys);
	for (unsigned i = 0; i < CHAIN; i++) {
		test_fill(bytes[i], BLOCK, name + i);
		bufs[i] = bytes[i];
	}
	assert_int_equal(weft_put(e->ring, e->space, NULL, keys, CHAIN, bufs), CHAIN);
}

/* Return: blocks of the chain that were held, from its start; all checked */
static unsigned chain_get(const struct test_engine *e, uint64_t name)
{
	struct weft_key keys[CHAIN];
	void *bufs[CHAIN];
	int got;

	test_keys(e, name, CHAIN, keys);
	for (unsigned i = 0; i < CHAIN; i++)
		bufs[i] = bytes[i];
	got = weft_get(e->ring, e->space, keys, CHAIN, bufs);
	assert_true(got >= 0);
	for (int i = 0; i < got; i++)
		assert_true(test_filled(bytes[i], BLOCK, name + (unsigned)i));
	return (unsigned)got;
}

/* Return: hits of all chains that b works with; what is missing is put */
static unsigned work(const struct test_engine *e)
{
	unsigned hits = 0, got;

	for (uint64_t i = 0; i < SET; i++) {
		got = chain_get(e, 1 + i * CHAIN);
		hits += got;
		if (got < CHAIN)
			chain_put(e, 1 + i * CHAIN);
	}
	return hits;
}

static void flood(const struct test_engine *e, uint64_t *next, unsigned chains)
{
	for (; chains--; *next += CHAIN)
		chain_put(e, *next);
}

/* pages that the node's arenas have, by what it has mapped */
static uint64_t resident(void)
{
	char path[64], line[256];
	unsigned long kib, sum = 0;
	bool arena = false;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)node.pid);
	in = fopen(path, "re");
	assert_non_null(in);
	while (fgets(line, sizeof(line), in)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			arena = strstr(line, "/memfd:weft") && end - start == MEMORY;
		else if (arena && sscanf(line, "Rss: %lu kB", &kib) == 1)
			sum += kib << 10;
	}
	fclose(in);
	return sum;
}

static bool has_room(void *ctx)
{
	(void)ctx;
	return resident() <= MEMORY;
}

static void test_flood(void **state)
{
	struct test_engine a, b;
	uint64_t next = 1000;
	char *text;

	(void)state;
	engine_open(&a, "a");
	engine_open(&b, "b");
	work(&b);
	for (unsigned i = 0; i < 8; i++) {
		flood(&a, &next, MEMORY / BLOCK / CHAIN);
		assert_int_equal(work(&b), SET * CHAIN);
	}
	assert_true(test_until(5000, has_room, NULL));
	assert_int_equal(weft_status_json(a.w, &text) < 0, 0);
	assert_non_null(strstr(text, "\"floor_bytes\":12582912,\"weight\":2"));
	free(text);
	test_engine_close(&a);
	test_engine_close(&b);
}

/* what nobody uses is there for who wants it, and comes back */
static void test_idle(void **state)
{
	struct test_engine a, b;
	uint64_t next = 1u << 20, next_b = 1u << 21;
	struct weft_stat st;

	(void)state;
	engine_open(&a, "a");
	engine_open(&b, "b");
	flood(&b, &next_b, 2 * MEMORY / BLOCK / CHAIN);
	st = test_stat(b.ring);
	assert_true(st.slots_total * BLOCK >= MEMORY / 2);
	/* idle after 50 ms */
	st = test_stat(a.ring);
	for (uint64_t end = test_now_ms() + 5000;
	     st.slots_total * BLOCK < MEMORY - FLOOR && test_now_ms() < end;) {
		flood(&a, &next, 1);
		st = test_stat(a.ring);
	}
	assert_int_equal(st.slots_total * BLOCK, MEMORY - FLOOR);
	st = test_stat(b.ring);
	assert_int_equal(st.slots_total * BLOCK, FLOOR);
	for (uint64_t end = test_now_ms() + 5000;
	     st.slots_total * BLOCK < 20 * MIB && test_now_ms() < end;) {
		flood(&a, &next, 1);
		flood(&b, &next_b, 1);
		st = test_stat(b.ring);
	}
	assert_true(st.slots_total * BLOCK >= 20 * MIB);
	assert_true(test_until(5000, has_room, NULL));
	test_engine_close(&a);
	test_engine_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_idle),
	};
	const char *const sets[] = {
		"arena_bytes=32M",
		"memory_bytes=32M",
		"hugepages=false",
		"tenant_idle_ms=50ms",
		"tenants=({ name = \"a\"; token = \"a\"; }, "
		"{ name = \"b\"; token = \"b\"; floor_bytes = \"12M\"; weight = 2; })",
		NULL,
	};
	int failed;

	test_node_init(&node, sets);
	test_node_start(&node);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	test_node_fini(&node);
	return failed;
}
