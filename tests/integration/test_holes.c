/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Engines that punch holes into memory on huge pages, and take all huge pages that are left: what
 * the node then finds under its feet costs the engine, or its tenant, and nobody else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <signal.h>
#include <unistd.h>
#include "tests/hugepages.h"
#include "tests/integration/node.h"

#define REGION_BYTES (2 * HUGE_BYTES)
#define ARENA_PAGES 4u /* of each tenant */
#define PAGES (2 * ARENA_PAGES + 2 + 2) /* arenas, a region, and two more */
#define BLOCK 4096u
#define NR 16u

static struct test_node node;
static struct test_engine witness;

static const char *const sets[] = {
	"hugepages=true",
	"tenants=({ name = \"good\"; arena_bytes = \"8M\"; },"
	" { name = \"bad\"; token = \"azure\"; arena_bytes = \"8M\"; })",
	NULL,
};

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "holes",
	.layout = "test",
	.tokens_per_block = 16,
};

/* Return: the memory, which has every huge page that was free */
static void *pages_take(size_t *len)
{
	void *mem;

	*len = test_huge_free() * HUGE_BYTES;
	if (!*len)
		return NULL;
	mem = mmap(NULL, *len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB | MAP_POPULATE, -1, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

static int put(struct test_engine *e, uint64_t name)
{
	static char bytes[NR][BLOCK];
	const void *from[NR];
	struct weft_key keys[NR];
	unsigned i;

	test_keys(e, name, NR, keys);
	for (i = 0; i < NR; i++) {
		test_fill(bytes[i], BLOCK, name + i);
		from[i] = bytes[i];
	}
	return weft_put(e->ring, e->space, NULL, keys, NR, from);
}

/* Return: blocks that came, with the right bytes; or -errno */
static int get(struct test_engine *e, uint64_t name)
{
	static char bytes[NR][BLOCK];
	void *to[NR];
	struct weft_key keys[NR];
	unsigned i;
	int nr;

	test_keys(e, name, NR, keys);
	for (i = 0; i < NR; i++)
		to[i] = bytes[i];
	nr = weft_get(e->ring, e->space, keys, NR, to);
	for (i = 0; nr == NR && i < NR; i++)
		assert_true(test_filled(bytes[i], BLOCK, name + i));
	return nr;
}

/* the other tenant sees nothing of it */
static void check_witness(uint64_t name)
{
	assert_int_equal(put(&witness, name), NR);
	assert_int_equal(get(&witness, name), NR);
	assert_int_equal(kill(node.pid, 0), 0);
}

static int get_into(struct test_engine *e, uint32_t region)
{
	struct weft_place places[NR];
	struct weft_key keys[NR];
	struct weft_op op = {
		.op = WEFT_OP_GET, .space = e->space, .nr = NR, .keys = keys, .places = places
	};
	unsigned i;

	test_keys(e, 100, NR, keys);
	for (i = 0; i < NR; i++)
		places[i] = (struct weft_place){ .off = i * (BLOCK + 64ul), .region = region };
	return weft_call(e->ring, &op, NULL);
}

static bool gone(void *ctx)
{
	return put(ctx, 300) == -ECONNRESET;
}

/* a region of its own: the operation that meets the hole fails, and the engine is detached */
static void test_region(void **state)
{
	struct weft_region_opts opts = { .size = sizeof(opts), .len = REGION_BYTES };
	struct test_engine e;
	uint32_t region;
	size_t taken;
	void *rest;

	(void)state;
	opts.fd = memfd_create("region",
			       MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);
	assert_true(opts.fd >= 0);
	assert_int_equal(ftruncate(opts.fd, REGION_BYTES), 0);
	opts.addr = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, opts.fd, 0);
	assert_true(opts.addr != MAP_FAILED);
	test_engine_open(&e, &node, "azure", &geometry);
	assert_int_equal(put(&e, 100), NR);
	assert_int_equal(weft_region_reg(e.w, &opts, &region), 0);
	assert_int_equal(get_into(&e, region), NR);

	assert_int_equal(
		fallocate(opts.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, REGION_BYTES), 0);
	rest = pages_take(&taken);
	assert_non_null(rest);
	assert_true(get_into(&e, region) <= 0);
	assert_true(test_until(1000, gone, &e));
	check_witness(1000);
	assert_int_equal(test_node_logged(&node, "pages of its memory are gone"), 1);

	munmap(rest, taken);
	munmap(opts.addr, REGION_BYTES);
	close(opts.fd);
	test_engine_close(&e);
	/* the tenant is well: only that engine was not */
	test_engine_open(&e, &node, "azure", &geometry);
	assert_int_equal(get(&e, 100), NR);
	test_engine_close(&e);
}

/* the tenant's arena: its engines are detached and no other may come; the other tenant goes on */
static void test_arena(void **state)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "azure" };
	struct test_engine e;
	struct weft *w;
	size_t taken;
	void *rest;

	(void)state;
	test_engine_open(&e, &node, "azure", &geometry);
	assert_int_equal(put(&e, 200), NR);
	assert_int_equal(madvise(weft_arena(e.w), ARENA_PAGES * HUGE_BYTES, MADV_REMOVE), 0);
	rest = pages_take(&taken);
	assert_non_null(rest);
	assert_true(get(&e, 200) <= 0);
	assert_true(test_until(1000, gone, &e));
	check_witness(2000);
	test_engine_close(&e);
	assert_int_equal(weft_open(&opts, &w), -EIO);
	assert_non_null(strstr(weft_why(), "Restart the node"));
	munmap(rest, taken);
	check_witness(3000);
}

static int start_all(void **state)
{
	(void)state;
	test_node_init(&node, sets);
	test_node_start(&node);
	test_engine_open(&witness, &node, "", &geometry);
	return 0;
}

static int end_all(void **state)
{
	(void)state;
	test_engine_close(&witness);
	test_node_fini(&node);
	return 0;
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_region),
		cmocka_unit_test(test_arena),
	};

	return cmocka_run_group_tests(tests, start_all, end_all);
}

int main(void)
{
	return test_huge_run(PAGES, run);
}
