/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of blocks in a GPU's memory, through a weftd, and through a node in this process, where
 * the mocked driver (tests/unit/mock_cuda.h) can be made to hold copies back and to fail
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "tests/integration/gpu.h"

#define BLOCK 4096u
#define NR 16u
#define MEM (1u << 20)
#define TIER (16u << 20)

static const char *const sets[] = { "arena_bytes=64M", "gpu_tier_bytes=16M",
				    "gpu_tier_write_bytes=0", NULL };

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "gpu tier",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

/* ---- an engine with memory on the GPU, and blocks ---- */

struct rig {
	struct test_engine e;
	char *mem;
	uint32_t region;
};

static void rig_memory(struct rig *r)
{
	if (test_gpu_reg(&r->e, r->mem, MEM, &r->region))
		fail_msg("%s", weft_why());
}

static void rig_open(struct rig *r, const struct test_node *n)
{
	test_engine_open(&r->e, n, NULL, &geometry);
	r->mem = test_gpu_alloc(MEM);
	rig_memory(r);
}

/* the node is in this process */
static void rig_open_here(struct rig *r)
{
	const struct weft_opts opts = { .size = sizeof(opts),
					.mode = WEFT_EMBEDDED,
					.gpu_tier_bytes = TIER };

	memset(r, 0, sizeof(*r));
	if (weft_open(&opts, &r->e.w) || weft_space_open(r->e.w, &geometry, &r->e.space) ||
	    weft_ring_open(r->e.w, NULL, &r->e.ring))
		fail_msg("%s", weft_why());
	r->mem = test_gpu_alloc(MEM);
	rig_memory(r);
}

static void rig_close(struct rig *r)
{
	test_engine_close(&r->e);
	test_gpu_free(r->mem);
}

static struct weft_op op_of(const struct rig *r, enum weft_opcode op, const struct weft_key *keys,
			    unsigned nr, struct weft_place *places, int32_t *results)
{
	for (unsigned i = 0; i < nr; i++)
		places[i] = (struct weft_place){ .off = 2ull * i * BLOCK, .region = r->region };
	return (struct weft_op){
		.op = (uint8_t)op,
		.flags = op == WEFT_OP_PUT ? WEFT_F_COPY : 0,
		.nr = nr,
		.space = r->e.space,
		.keys = keys,
		.places = places,
		.results = results,
	};
}

/* blocks @from and on of the chain @name, with bytes of @seed */
static void put(struct rig *r, uint64_t name, unsigned nr, uint64_t seed)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	int32_t results[NR];
	struct weft_op op;

	test_keys(&r->e, name, nr, keys);
	op = op_of(r, WEFT_OP_PUT, keys, nr, places, results);
	for (unsigned i = 0; i < nr; i++)
		test_fill(r->mem + places[i].off, BLOCK, seed + i);
	assert_int_equal(weft_call(r->e.ring, &op, NULL), nr);
}

static void get(struct rig *r, uint64_t name, unsigned nr, uint64_t seed)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	int32_t results[NR];
	struct weft_op op;

	test_keys(&r->e, name, nr, keys);
	op = op_of(r, WEFT_OP_GET, keys, nr, places, results);
	memset(r->mem, 0, MEM);
	assert_int_equal(weft_call(r->e.ring, &op, NULL), nr);
	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(results[i], 0);
		assert_true(test_filled(r->mem + places[i].off, BLOCK, seed + i));
	}
}

static void drop(struct rig *r, uint64_t name, unsigned nr)
{
	struct weft_key keys[NR];

	test_keys(&r->e, name, nr, keys);
	assert_int_equal(weft_drop(r->e.ring, r->e.space, keys, nr), nr);
}

/* ---- what the tier says ---- */

static uint64_t kept(struct rig *r)
{
	return test_counter(r->e.w, "weft_tier_put");
}

static uint64_t hits(struct rig *r)
{
	return test_counter(r->e.w, "weft_tier_get");
}

static uint64_t bad(struct rig *r)
{
	return test_counter(r->e.w, "weft_tier_bad");
}

struct wait {
	struct rig *r;
	uint64_t kept;
};

static bool is_kept(void *ctx)
{
	struct wait *w = ctx;

	return kept(w->r) >= w->kept;
}

/* gets them until they have copies: the second get may find some that were gotten before */
static void keep(struct rig *r, uint64_t name, unsigned nr, uint64_t seed)
{
	struct wait w = { r, kept(r) + nr };

	get(r, name, nr, seed);
	get(r, name, nr, seed);
	assert_true(test_until(5000, is_kept, &w));
}

/* what weft shows of it */
static void show(const struct test_node *n, const char *what)
{
	struct test_run run = { .argv = { getenv("WEFT"), "status", "--socket", n->socket } };

	if (!run.argv[0])
		return;
	if (test_run(&run) || !strstr(run.out, what))
		fail_msg("%s", run.out);
}

static bool status_says(struct rig *r, const char *what)
{
	char *text;
	bool says;

	assert_int_equal(weft_status_json(r->e.w, &text), 0);
	says = strstr(text, what) != NULL;
	free(text);
	return says;
}

/* ---- served ---- */

static void test_served(void **state)
{
	struct weft_key keys[NR];
	uint32_t where[NR];
	struct weft_op match = { .op = WEFT_OP_MATCH, .flags = WEFT_F_WHERE, .nr = NR };
	uint32_t id;
	char *text;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	assert_int_equal(hits(&r), 0);
	for (unsigned i = 1; i <= 3; i++) {
		get(&r, 1, NR, 100);
		assert_int_equal(hits(&r), i * NR);
	}
	assert_int_equal(test_counter(r.e.w, "weft_tier_read"), 3 * NR * BLOCK);
	assert_int_equal(bad(&r), 0);
	assert_true(status_says(&r, "\"gpu_tiers\":[{\"name\":\"gpu\",\"gpu\":0,\"state\":\"ok\""));
	show(&node, "GPU TIER");
	/* where they are: on this engine's GPU, and in memory */
	put(&r, 2, NR, 500);
	test_keys(&r.e, 1, NR, keys);
	test_keys(&r.e, 2, 1, &keys[NR - 1]);
	match.space = r.e.space;
	match.keys = keys;
	match.where = where;
	assert_int_equal(weft_call(r.e.ring, &match, NULL), NR);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(where[i], i < NR - 1 ? WEFT_TIER_GPU : WEFT_TIER_DRAM);
	assert_int_equal(weft_ls_json(r.e.w, &text), 0);
	id = (uint32_t)strtoul(strstr(text, "\"id\":") + 5, NULL, 10);
	free(text);
	assert_int_equal(weft_blocks_json(r.e.w, id, 0, &text), 0);
	assert_non_null(strstr(text, "\"tier\":\"gpu\",\"state\":\"held\""));
	free(text);
	rig_close(&r);
}

/* some from copies, some from memory, some nowhere, in one get */
static void test_mixed(void **state)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	int32_t results[NR];
	uint64_t before;
	struct weft_op op;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1, NR, 100);
	put(&r, 2, NR, 300);
	keep(&r, 1, NR, 100);
	for (unsigned flags = 0; flags <= WEFT_F_VERIFY; flags += WEFT_F_VERIFY) {
		op = op_of(&r, WEFT_OP_GET, keys, NR, places, results);
		op.flags = (uint8_t)flags;
		for (unsigned i = 0; i < NR; i++) {
			struct weft_key chain[NR];

			test_keys(&r.e, i % 3 == 2 ? 77 : 1 + i % 3, NR, chain);
			keys[i] = chain[i];
		}
		before = hits(&r);
		memset(r.mem, 0, MEM);
		assert_int_equal(weft_call(r.e.ring, &op, NULL), NR - NR / 3);
		for (unsigned i = 0; i < NR; i++) {
			assert_int_equal(results[i], i % 3 == 2 ? -ENOENT : 0);
			assert_int_equal(test_filled(r.mem + places[i].off, BLOCK,
						     (i % 3 ? 300 : 100) + i),
					 i % 3 != 2);
		}
		assert_int_equal(hits(&r), before + (NR + 2) / 3);
	}
	rig_close(&r);
}

/* what is in host memory never comes from there */
static void test_host_places(void **state)
{
	static char block[BLOCK];
	void *out = block;
	struct weft_key key;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	test_keys(&r.e, 1, 1, &key);
	assert_int_equal(weft_get(r.e.ring, r.e.space, &key, 1, &out), 1);
	assert_true(test_filled(block, BLOCK, 100));
	assert_int_equal(hits(&r), 0);
	rig_close(&r);
}

/* ---- never other bytes ---- */

/* all bytes of the node's own memory on the GPU are others from here on */
static void spoil(const struct test_node *n)
{
	static uint8_t bytes[1 << 20];
	unsigned long start, end;
	char path[64], line[512];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)n->pid);
	maps = fopen(path, "r");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "mock-vmm-") || sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		found = true;
		for (; start < end; start += sizeof(bytes)) {
			const struct iovec here = { bytes, sizeof(bytes) };
			const struct iovec there = { (void *)start, sizeof(bytes) };

			assert_int_equal(process_vm_readv(n->pid, &here, 1, &there, 1, 0),
					 sizeof(bytes));
			for (unsigned i = 0; i < sizeof(bytes); i++)
				bytes[i] ^= 0x20;
			assert_int_equal(process_vm_writev(n->pid, &here, 1, &there, 1, 0),
					 sizeof(bytes));
		}
	}
	fclose(maps);
	assert_true(found);
}

static void test_spoiled(void **state)
{
	uint64_t before;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	spoil(&node);
	/* they come from memory after all, and are copied anew when they are wanted again */
	get(&r, 1, NR, 100);
	assert_int_equal(bad(&r), NR);
	assert_int_equal(hits(&r), 0);
	keep(&r, 1, NR, 100);
	before = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(bad(&r), NR);
	assert_int_equal(hits(&r), before + NR);
	assert_int_equal(test_counter(r.e.w, "weft_verify_failures"), 0);
	rig_close(&r);
}

/* other blocks in the same slots, under the same keys */
static void test_other_life(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	for (unsigned i = 0; i < 5; i++) {
		put(&r, 1, NR, 1000 * i);
		keep(&r, 1, NR, 1000 * i);
		get(&r, 1, NR, 1000 * i);
		assert_int_equal(hits(&r), (i + 1) * NR);
		drop(&r, 1, NR);
	}
	assert_int_equal(bad(&r), 0);
	rig_close(&r);
}

/* two engines of one GPU have the same copies; one that ends takes none along */
static void gets(int in, int out, void *ctx)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	char byte = 0;
	struct rig r;
	struct weft_op op;

	(void)in;
	(void)ctx;
	rig_open(&r, &node);
	op = op_of(&r, WEFT_OP_GET, keys, NR, places, NULL);
	test_keys(&r.e, 1, NR, keys);
	for (unsigned i = 0;; i++) {
		test_must(weft_call(r.e.ring, &op, NULL) == (int)NR);
		if (i == 3)
			test_must(test_say(out, &byte, 1));
	}
}

static void test_engine_dies(void **state)
{
	struct weft_stat before;
	struct test_child c;
	struct rig r;
	char byte;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	before = test_stat(r.e.ring);
	for (unsigned i = 0; i < 10; i++) {
		test_child_start(&c, gets, NULL);
		assert_true(test_hear(c.from, &byte, 1));
		test_child_kill(&c);
		assert_true(test_alone(r.e.w, 1000));
		get(&r, 1, NR, 100);
	}
	assert_true(test_stat_settles(r.e.ring, &before, 1000));
	assert_true(hits(&r) >= 20 * NR);
	assert_int_equal(bad(&r), 0);
	drop(&r, 1, NR);
	rig_close(&r);
}

/* ---- no tier ---- */

/* more than a GPU has: said once, and the engine is served as if nobody had asked for it */
static void test_too_large(void **state)
{
	static const char *const huge[] = { "gpu_tier_bytes=1T", NULL };
	struct test_node n;
	struct rig r;

	(void)state;
	test_node_init(&n, huge);
	test_node_start(&n);
	rig_open(&r, &n);
	rig_memory(&r);
	put(&r, 1, NR, 100);
	for (unsigned i = 0; i < 3; i++)
		get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), 0);
	assert_true(status_says(&r, "\"gpu_tiers\":[{\"name\":\"gpu\",\"state\":\"off\""));
	assert_int_equal(test_node_logged(&n, "serves a GPU without a tier"), 1);
	show(&n, "has no memory left for it");
	rig_close(&r);
	test_node_fini(&n);
}

/* ---- another size, while in use ---- */

struct says {
	struct rig *r;
	const char *what;
};

static bool status_has(void *ctx)
{
	const struct says *s = ctx;

	return status_says(s->r, s->what);
}

static void await(struct rig *r, const char *what)
{
	struct says w = { r, what };

	if (!test_until(5000, status_has, &w))
		fail_msg("no %s", what);
}

static int weft_tier(const struct test_node *n, const char *size, const char *says)
{
	struct test_run run = { .argv = { getenv("WEFT"), "tier", "resize", "--gpu", size,
					  "--socket", n->socket } };
	int ret;

	if (!run.argv[0])
		return -1;
	ret = test_run(&run);
	if (!strstr(run.out, says))
		fail_msg("%s", run.out);
	return ret;
}

static void test_resize(void **state)
{
	struct rig r;
	uint64_t before;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER - 5), 0);
	assert_true(status_says(&r, "\"memory_bytes\":33554432,\"memory_bytes_wanted\":33554432"));
	assert_int_equal(test_counter(r.e.w, "weft_tier_size"), 2 * TIER);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), NR);
	/* more than it can grow to; and no size at all */
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 4 * TIER + 1), -EINVAL);
	assert_non_null(strstr(weft_why(), "64 MiB"));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, UINT64_MAX), -EINVAL);
	/* as small as it gets: what lay in front is still there */
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 1), 0);
	await(&r, "\"memory_bytes\":2097152,\"memory_bytes_wanted\":2097152");
	before = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + NR);
	/* none, and back, larger than it could have grown */
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 0), 0);
	await(&r, "\"gpu_tiers\":[]");
	for (unsigned i = 0; i < 3; i++)
		get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + NR);
	rig_memory(&r);
	assert_true(status_says(&r, "\"gpu_tiers\":[]"));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 8 * TIER), 0);
	keep(&r, 1, NR, 100);
	before = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + NR);
	assert_int_equal(bad(&r), 0);
	show(&node, " 128 MiB ");
	rig_close(&r);
}

/* as a user does it, on a node that began without one */
static void test_resize_cli(void **state)
{
	static const char *const none[] = { "gpu_tier_write_bytes=0", NULL };
	struct test_node n;
	struct rig r;

	(void)state;
	test_node_init(&n, none);
	test_node_start(&n);
	/* before there is a region, too */
	if (weft_tier(&n, "16M", "the tier of each GPU has 16.0 MiB now, or soon") < 0)
		skip();
	rig_open(&r, &n);
	show(&n, "16.0 MiB");
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), NR);
	assert_int_equal(weft_tier(&n, "2T", "at most 1048576 MiB"), 1);
	assert_int_equal(weft_tier(&n, "65M", "may grow to 64 MiB"), 1);
	assert_int_equal(weft_tier(&n, "0", "has"), 0);
	await(&r, "\"gpu_tiers\":[]");
	assert_int_equal(weft_tier(&n, "65M", "has 65.0 MiB"), 0);
	show(&n, "66.0 MiB");
	rig_close(&r);
	test_node_fini(&n);
}

/* a GPU that has not so much keeps what it has, and the node says so */
static void test_resize_no_memory(void **state)
{
	static const char *const few[] = { "gpu_tier_bytes=16M", "gpu_tier_write_bytes=0", NULL };
	struct test_node n;
	uint64_t before;
	struct rig r;

	(void)state;
	test_gpu_start(&n, few, "1 1 1 bytes 24");
	rig_open(&r, &n);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), -ENOMEM);
	assert_non_null(strstr(weft_why(), "has no memory left for it"));
	assert_true(status_says(&r, "\"memory_bytes\":16777216,\"memory_bytes_wanted\":16777216"));
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), NR);
	/* what there is can be had */
	assert_int_equal(weft_gpu_tier_resize(r.e.w, TIER + TIER / 2), 0);
	/* from nothing, too */
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 0), 0);
	await(&r, "\"gpu_tiers\":[]");
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), -ENOMEM);
	assert_true(status_says(&r, "\"gpu_tiers\":[]"));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, TIER), 0);
	keep(&r, 1, NR, 100);
	before = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + NR);
	rig_close(&r);
	test_node_fini(&n);
}

/* ---- faults, in this process ---- */

/* a get that is on its way, and does not end before copies are released */
static void get_held(struct rig *r, struct weft_ring *ring, const struct weft_key *keys,
		     int32_t *results, uint32_t timeout_us)
{
	struct weft_place places[NR];
	struct weft_op op = op_of(r, WEFT_OP_GET, keys, NR, places, results);
	struct weft_completion done;

	op.timeout_us = timeout_us;
	mock->hold = true;
	assert_int_equal(weft_submit(ring, &op, 1), 1);
	assert_int_equal(weft_wait(ring, &done, 1, 20000), 0);
	mock->hold = false;
}

static void hot(struct rig *r, struct weft_key *keys)
{
	rig_open_here(r);
	put(r, 1, NR, 100);
	keep(r, 1, NR, 100);
	get(r, 1, NR, 100);
	assert_int_equal(hits(r), NR);
	test_keys(&r->e, 1, NR, keys);
}

static void test_gpu_lost(void **state)
{
	static char block[BLOCK];
	void *out = block;
	struct weft_key keys[NR];
	int32_t results[NR];
	struct weft_completion done;
	struct rig r;

	(void)state;
	hot(&r, keys);
	get_held(&r, r.e.ring, keys, results, 0);
	mock->fail_res = WFI_CUDA_LAUNCH_FAILED;
	mock->fail_call = "cuEventQuery";
	test_next(r.e.ring, &done);
	assert_int_equal(done.res, 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(results[i], -EIO);
	assert_true(status_says(&r, "\"gpu\":0,\"state\":\"failed\""));
	/* memory is as it was */
	assert_int_equal(weft_get(r.e.ring, r.e.space, keys, 1, &out), 1);
	assert_true(test_filled(block, BLOCK, 100));
	mock->fail_call = NULL;
	mock_release();
	drop(&r, 1, NR);
	assert_int_equal(test_stat(r.e.ring).slots_quarantined, 0);
	/* its tier can't be had anew, which is nothing against the others' */
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), 0);
	assert_true(status_says(&r, "\"state\":\"off\""));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 0), 0);
	assert_true(status_says(&r, "\"gpu_tiers\":[]"));
	rig_close(&r);
}

/* with another context the tier begins anew, and empty */
static void test_gpu_back(void **state)
{
	struct weft_key keys[NR];
	struct weft_completion done;
	int32_t results[NR];
	uint32_t region;
	uint64_t before;
	struct rig r;

	(void)state;
	hot(&r, keys);
	get_held(&r, r.e.ring, keys, results, 0);
	mock->fail_res = WFI_CUDA_CONTEXT_DESTROYED;
	mock->fail_call = "cuEventQuery";
	test_next(r.e.ring, &done);
	assert_int_equal(results[0], -EIO);
	mock->fail_call = NULL;
	mock_release();
	assert_true(status_says(&r, "\"gpu\":0,\"state\":\"failed\""));
	region = r.region;
	rig_memory(&r);
	assert_true(status_says(&r, "\"gpu\":0,\"state\":\"ok\""));
	before = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before);
	keep(&r, 1, NR, 100);
	before = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + NR);
	assert_int_equal(weft_region_dereg(r.e.w, region), 0);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + 2 * NR);
	rig_close(&r);
}

/* what has copies does not wait for what comes over the bus and was asked for before */
static void test_not_behind(void **state)
{
	struct weft_key keys[NR], cold[NR];
	struct weft_completion done;
	struct weft_ring *ring;
	uint64_t before;
	struct rig r;

	(void)state;
	hot(&r, keys);
	put(&r, 2, NR, 700);
	test_keys(&r.e, 2, NR, cold);
	assert_int_equal(weft_ring_open(r.e.w, NULL, &ring), 0);
	before = hits(&r);
	get_held(&r, ring, cold, NULL, 0);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), before + NR);
	assert_int_equal(weft_wait(ring, &done, 1, 1), 0);
	mock_release();
	test_next(ring, &done);
	assert_int_equal(done.res, NR);
	weft_ring_close(ring);
	rig_close(&r);
}

struct all_free {
	struct weft_ring *ring;
	uint64_t nr;
};

static bool is_free(void *ctx)
{
	const struct all_free *f = ctx;

	return test_stat(f->ring).slots_free == f->nr;
}

static void *close_ring(void *ring)
{
	weft_ring_close(ring);
	return NULL;
}

static bool is_late(void *ctx)
{
	return test_counter_in(*(int *)ctx, "weft_xfer_late") != 0;
}

/* a ring is closed, as when its engine has died, while copies are under way */
static void test_cancelled(void **state)
{
	struct weft_key keys[NR];
	int32_t results[NR];
	struct all_free free = { .nr = NR };
	struct weft_ring *ring;
	pthread_t closer;
	uint64_t before;
	struct rig r;
	int fd;

	(void)state;
	rig_open_here(&r);
	put(&r, 1, NR, 100);
	keep(&r, 1, NR, 100);
	test_keys(&r.e, 1, NR, keys);
	assert_int_equal(weft_ring_open(r.e.w, NULL, &ring), 0);
	get_held(&r, ring, keys, results, 0);
	fd = weft_metrics_fd(r.e.w);
	assert_true(fd >= 0);
	/* which waits for them: nothing else ends them */
	assert_int_equal(pthread_create(&closer, NULL, close_ring, ring), 0);
	assert_true(test_until(5000, is_late, &fd));
	close(fd);
	/* what they are of can go; its slots are nobody's before they end */
	free.ring = r.e.ring;
	free.nr += test_stat(r.e.ring).slots_free;
	drop(&r, 1, NR);
	assert_int_equal(test_stat(r.e.ring).slots_free, free.nr - NR);
	mock_release();
	assert_true(test_until(5000, is_free, &free));
	assert_int_equal(pthread_join(closer, NULL), 0);
	/* a late end may have cost the region, as it does without a tier */
	assert_int_equal(weft_region_dereg(r.e.w, r.region), 0);
	rig_memory(&r);
	put(&r, 1, NR, 900);
	keep(&r, 1, NR, 900);
	before = hits(&r);
	get(&r, 1, NR, 900);
	assert_int_equal(hits(&r), before + NR);
	rig_close(&r);
}

/* copies that end too late */
static void test_late(void **state)
{
	struct weft_key keys[NR];
	int32_t results[NR];
	struct weft_completion done;
	struct rig r;

	(void)state;
	hot(&r, keys);
	get_held(&r, r.e.ring, keys, results, 50000);
	test_next(r.e.ring, &done);
	assert_int_equal(done.flags, WEFT_CQE_UNFENCED);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(results[i], -ETIMEDOUT);
	mock_release();
	assert_int_equal(weft_match(r.e.ring, r.e.space, keys, NR), NR);
	rig_close(&r);
}

/* it goes while copies there are read: they are what they were until that has ended */
static void test_resize_under_way(void **state)
{
	static char block[BLOCK];
	void *out = block;
	struct weft_key keys[NR];
	struct weft_place places[NR];
	int32_t results[NR];
	struct weft_completion done;
	struct weft_ring *ring;
	uint64_t had;
	struct rig r;

	(void)state;
	hot(&r, keys);
	had = hits(&r);
	assert_int_equal(weft_ring_open(r.e.w, NULL, &ring), 0);
	get_held(&r, ring, keys, results, 0);
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 0), 0);
	assert_true(status_says(&r, "\"memory_bytes\":16777216,\"memory_bytes_wanted\":0"));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, TIER), -EBUSY);
	/* everybody else is served meanwhile */
	assert_int_equal(weft_get(r.e.ring, r.e.space, keys, 1, &out), 1);
	assert_true(test_filled(block, BLOCK, 100));
	mock_release();
	test_next(ring, &done);
	assert_int_equal(done.res, NR);
	weft_ring_close(ring);
	(void)op_of(&r, WEFT_OP_GET, keys, NR, places, results);
	for (unsigned i = 0; i < NR; i++)
		assert_true(test_filled(r.mem + places[i].off, BLOCK, 100 + i));
	assert_int_equal(hits(&r), had + NR);
	await(&r, "\"gpu_tiers\":[]");
	assert_int_equal(weft_gpu_tier_resize(r.e.w, TIER), 0);
	keep(&r, 1, NR, 100);
	had = hits(&r);
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), had + NR);
	rig_close(&r);
}

/* GPUs that map no memory in parts */
static void test_resize_whole(void **state)
{
	struct weft_key keys[NR];
	struct rig r;

	(void)state;
	mock->no_vmm = true;
	hot(&r, keys);
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), -EOPNOTSUPP);
	assert_non_null(strstr(weft_why(), "make its tier 0"));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, TIER), 0);
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 0), 0);
	await(&r, "\"gpu_tiers\":[]");
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), 0);
	keep(&r, 1, NR, 100);
	rig_close(&r);
	mock->no_vmm = false;
}

/* the first GPU has the memory, the second has not: neither changes */
static void test_resize_two(void **state)
{
	struct weft_key keys[NR];
	uint32_t region;
	char *other;
	struct rig r;

	(void)state;
	hot(&r, keys);
	test_gpu_enter(1);
	other = test_gpu_alloc(MEM);
	assert_int_equal(test_gpu_reg(&r.e, other, MEM, &region), 0);
	assert_true(status_says(&r, "\"gpu\":1,\"state\":\"ok\""));
	mock->bytes = 2 * TIER + TIER / 2 * 3;
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), -ENOMEM);
	mock->bytes = 0;
	assert_false(status_says(&r, "\"memory_bytes\":33554432"));
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), 2 * NR);
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 2 * TIER), 0);
	assert_false(status_says(&r, "\"memory_bytes\":16777216"));
	rig_close(&r);
	test_gpu_free(other);
	test_gpu_leave(1);
}

/* no sums are to be had: what has a copy comes from memory */
static void test_no_sums(void **state)
{
	struct weft_key keys[NR];
	struct rig r;

	(void)state;
	hot(&r, keys);
	mock->fail_res = WFI_CUDA_LAUNCH_RESOURCES;
	mock->fail_call = "cuLaunchKernel";
	get(&r, 1, NR, 100);
	mock->fail_call = NULL;
	get(&r, 1, NR, 100);
	assert_int_equal(hits(&r), 2 * NR);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_GPU(served, sets),
		TEST_GPU(mixed, sets),
		TEST_GPU(host_places, sets),
		TEST_GPU(spoiled, sets),
		TEST_GPU(other_life, sets),
		TEST_GPU(engine_dies, sets),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_gpu_lost),
		cmocka_unit_test(test_gpu_back),
		cmocka_unit_test(test_not_behind),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_no_sums),
		TEST_GPU(resize, sets),
		cmocka_unit_test(test_resize_cli),
		cmocka_unit_test(test_resize_no_memory),
		cmocka_unit_test(test_resize_under_way),
		cmocka_unit_test(test_resize_whole),
		cmocka_unit_test(test_resize_two),
	};
	const int skip = test_gpu_load();

	if (!wfi_gpu_image()) {
		printf("no kernels were built: no tier\n");
		return 77;
	}
	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
