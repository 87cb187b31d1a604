/* SPDX-License-Identifier: Apache-2.0 */
/* every operation through the ring, with weftd and embedded; tenants, spaces, regions, batches */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/integration/node.h"

#define NR 24u
#define BLOCK 4096u

static struct test_node node;
static bool embedded;

static const char *const sets[] = {
	"arena_bytes=64M",
	"hugepages=false",
	"tenants=({ name = \"default\"; arena_bytes = \"512M\"; },"
	" { name = \"blue\"; token = \"azure\"; }, { name = \"red\"; token = \"crimson\"; })",
	NULL,
};

static struct weft_space_opts geometry(const char *model, uint64_t block_bytes)
{
	return (struct weft_space_opts){
		.size = sizeof(struct weft_space_opts),
		.block_bytes = block_bytes,
		.model = model,
		.layout = "test",
		.tokens_per_block = 4,
		.nr_layers = 4,
	};
}

static void open_engine(struct test_engine *e, const char *model, uint64_t block_bytes)
{
	const struct weft_space_opts space = geometry(model, block_bytes);

	test_engine_open(e, embedded ? NULL : &node, NULL, &space);
}

/* buffers of @nr blocks, one behind the other */
static void *buffers(void *bufs[], unsigned nr, uint64_t bytes)
{
	char *mem = calloc(nr, bytes);
	unsigned i;

	assert_non_null(mem);
	for (i = 0; i < nr; i++)
		bufs[i] = mem + i * bytes;
	return mem;
}

static void put_blocks(struct test_engine *e, uint64_t name, unsigned nr, struct weft_key *keys)
{
	const uint64_t bytes = weft_space_block_bytes(e->space);
	void *bufs[NR];
	void *mem = buffers(bufs, nr, bytes);
	unsigned i;

	test_keys(e, name, nr, keys);
	for (i = 0; i < nr; i++)
		test_fill(bufs[i], bytes, name + i);
	assert_int_equal(weft_put(e->ring, e->space, NULL, keys, nr, (const void *const *)bufs),
			 nr);
	free(mem);
}

/* Return: how many came, each right */
static int get_blocks(struct test_engine *e, uint64_t name, const struct weft_key *keys,
		      unsigned nr)
{
	const uint64_t bytes = weft_space_block_bytes(e->space);
	void *bufs[NR];
	void *mem = buffers(bufs, nr, bytes);
	int ret = weft_get(e->ring, e->space, keys, nr, bufs), i;

	for (i = 0; i < ret; i++)
		assert_true(test_filled(bufs[i], bytes, name + (uint64_t)i));
	free(mem);
	return ret;
}

/* ---- the simple calls ---- */

static void test_put_get(void **state)
{
	struct weft_key keys[NR];
	struct test_engine e;

	(void)state;
	open_engine(&e, "put-get", BLOCK);
	put_blocks(&e, 100, NR, keys);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), NR);
	assert_int_equal(get_blocks(&e, 100, keys, NR), NR);
	/* what is held already stays as it is */
	put_blocks(&e, 100, NR, keys);
	assert_int_equal(get_blocks(&e, 100, keys, NR), NR);
	assert_int_equal(test_stat(e.ring).slots_filling, 0);
	test_engine_close(&e);
}

static void test_chain(void **state)
{
	uint32_t tokens[4 * NR];
	struct weft_key keys[NR], other[NR], rest[NR];
	void *bufs[NR], *mem = buffers(bufs, NR, BLOCK);
	struct test_engine e;
	unsigned i;

	(void)state;
	open_engine(&e, "chain", BLOCK);
	for (i = 0; i < 4 * NR; i++)
		tokens[i] = i;
	/* half a block more than there is: only full ones have a key */
	assert_int_equal(weft_key_chain(e.space, NULL, tokens, 4 * NR - 2, keys, NR), NR - 1);
	assert_int_equal(weft_key_chain(e.space, NULL, tokens, 4 * NR, keys, NR), NR);
	assert_int_equal(weft_key_chain(e.space, &keys[9], tokens + 40, 4 * NR - 40, rest, NR),
			 NR - 10);
	assert_memory_equal(rest, keys + 10, (NR - 10) * sizeof(keys[0]));
	for (i = 0; i < NR; i++)
		test_fill(bufs[i], BLOCK, 7000 + i);
	assert_int_equal(weft_put(e.ring, e.space, NULL, keys, 10, (const void *const *)bufs), 10);
	assert_int_equal(weft_put(e.ring, e.space, &keys[9], rest, NR - 10,
				  (const void *const *)(bufs + 10)),
			 NR - 10);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), NR);
	/* another token in block 5, and all that follow are others */
	tokens[21] = 99999;
	assert_int_equal(weft_key_chain(e.space, NULL, tokens, 4 * NR, other, NR), NR);
	assert_int_equal(weft_match(e.ring, e.space, other, NR), 5);
	assert_int_equal(get_blocks(&e, 7000, other, NR), 5);
	free(mem);
	test_engine_close(&e);
}

static void test_map_release(void **state)
{
	const char *arena;
	struct weft_slot slots[NR];
	struct weft_key keys[NR];
	struct test_engine e;
	uint64_t lease = 0;
	unsigned i;

	(void)state;
	open_engine(&e, "map", BLOCK);
	put_blocks(&e, 200, NR, keys);
	assert_int_equal(weft_map(e.ring, e.space, keys, NR, slots, &lease), NR);
	assert_true(lease != 0);
	arena = weft_arena(e.w);
	for (i = 0; i < NR; i++) {
		assert_true(slots[i].off + BLOCK <= weft_arena_bytes(e.w));
		assert_true(test_filled(arena + slots[i].off, BLOCK, 200 + i));
	}
	assert_int_equal(test_stat(e.ring).slots_leased, NR);
	/* a lease keeps what is dropped */
	assert_int_equal(weft_drop(e.ring, e.space, keys, NR), NR);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), 0);
	for (i = 0; i < NR; i++)
		assert_true(test_filled(arena + slots[i].off, BLOCK, 200 + i));
	assert_int_equal(weft_release(e.ring, lease), NR);
	assert_int_equal(weft_release(e.ring, lease), -ENOENT);
	assert_int_equal(weft_release(e.ring, lease ^ (1ull << 40)), -ENOENT);
	assert_int_equal(test_stat(e.ring).slots_leased, 0);
	test_keys(&e, 201, NR, keys);
	assert_int_equal(weft_map(e.ring, e.space, keys, NR, slots, &lease), 0);
	test_engine_close(&e);
}

static void test_drop(void **state)
{
	struct weft_key keys[NR];
	struct test_engine e;

	(void)state;
	open_engine(&e, "drop", BLOCK);
	put_blocks(&e, 300, NR, keys);
	assert_int_equal(weft_drop(e.ring, e.space, keys + 8, 4), 4);
	assert_int_equal(weft_drop(e.ring, e.space, keys + 8, 4), 0);
	assert_int_equal(weft_match(e.ring, e.space, keys, NR), 8);
	assert_int_equal(get_blocks(&e, 300, keys, NR), 8);
	put_blocks(&e, 300, NR, keys);
	assert_int_equal(get_blocks(&e, 300, keys, NR), NR);
	test_engine_close(&e);
}

/* ---- operations by themselves ---- */

static int call(struct test_engine *e, struct weft_op op, struct weft_completion *out)
{
	op.space = e->space;
	return weft_call(e->ring, &op, out);
}

static void claim_put(const char *model, uint64_t bytes)
{
	struct weft_slot slots[NR];
	struct weft_key keys[NR];
	int32_t results[NR];
	struct test_engine e;
	struct weft_op put;
	unsigned i;

	open_engine(&e, model, bytes);
	test_keys(&e, 400, NR, keys);
	assert_int_equal(call(&e, (struct weft_op){ .op = WEFT_OP_CLAIM, .nr = NR, .slots = slots },
			      NULL),
			 NR);
	assert_int_equal(test_stat(e.ring).slots_filling, NR);
	for (i = 0; i < NR; i++)
		test_fill((char *)weft_arena(e.w) + slots[i].off, bytes, 400 + i);
	put = (struct weft_op){
		.op = WEFT_OP_PUT,
		.nr = NR - 4,
		.keys = keys,
		.slots = slots,
		.results = results,
	};
	assert_int_equal(call(&e, put, NULL), NR - 4);
	for (i = 0; i < NR - 4; i++)
		assert_int_equal(results[i], 0);
	/* the claims have ended: a second put names slots that are not ours any more */
	test_keys(&e, 401, NR, keys);
	assert_int_equal(call(&e, put, NULL), 0);
	for (i = 0; i < NR - 4; i++)
		assert_int_equal(results[i], -ESTALE);
	assert_int_equal(
		call(&e,
		     (struct weft_op){ .op = WEFT_OP_RELEASE, .nr = 4, .slots = slots + NR - 4 },
		     NULL),
		4);
	assert_int_equal(
		call(&e,
		     (struct weft_op){ .op = WEFT_OP_RELEASE, .nr = 4, .slots = slots + NR - 4 },
		     NULL),
		0);
	assert_int_equal(test_stat(e.ring).slots_filling, 0);
	test_keys(&e, 400, NR, keys);
	assert_int_equal(get_blocks(&e, 400, keys, NR), NR - 4);
	test_engine_close(&e);
}

/* long ones are summed up turn by turn */
static void test_claim_put(void **state)
{
	(void)state;
	claim_put("claim", BLOCK);
	claim_put("claim-long", 256u << 10);
}

static void test_match_flags(void **state)
{
	struct weft_key keys[NR];
	struct weft_completion cpl;
	struct weft_slot slots[NR];
	struct test_engine e;
	uint32_t where[NR];
	unsigned i;

	(void)state;
	open_engine(&e, "match", BLOCK);
	put_blocks(&e, 500, 6, keys);
	test_keys(&e, 500, NR, keys);
	assert_int_equal(call(&e,
			      (struct weft_op){ .op = WEFT_OP_MATCH,
						.flags = WEFT_F_WHERE | WEFT_F_LEASE,
						.nr = NR,
						.keys = keys,
						.where = where },
			      &cpl),
			 6);
	for (i = 0; i < NR; i++)
		assert_int_equal(where[i], i < 6 ? WEFT_TIER_DRAM : WEFT_TIER_NONE);
	assert_int_equal(test_stat(e.ring).slots_leased, 6);
	assert_int_equal(weft_release(e.ring, cpl.handle), 6);
	assert_int_equal(
		call(&e, (struct weft_op){ .op = WEFT_OP_PREFETCH, .nr = NR, .keys = keys }, NULL),
		6);
	assert_int_equal(call(&e,
			      (struct weft_op){ .op = WEFT_OP_MAP,
						.flags = WEFT_F_PEEK | WEFT_F_VERIFY,
						.nr = NR,
						.keys = keys,
						.slots = slots },
			      &cpl),
			 6);
	assert_int_equal(weft_release(e.ring, cpl.handle), 6);
	assert_int_equal(
		call(&e,
		     (struct weft_op){
			     .op = WEFT_OP_PREFETCH, .flags = WEFT_F_PEEK, .nr = NR, .keys = keys },
		     NULL),
		-EINVAL);
	assert_int_equal(call(&e, (struct weft_op){ .op = WEFT_OP_NOP }, NULL), 0);
	/* flags that an operation does not know */
	assert_int_equal(call(&e, (struct weft_op){ .op = WEFT_OP_NOP, .flags = WEFT_F_COPY },
			      NULL),
			 -EINVAL);
	assert_int_equal(call(&e, (struct weft_op){ .op = WEFT_OP_NR }, NULL), -EINVAL);
	test_engine_close(&e);
}

/* ---- regions ---- */

struct memory {
	char *addr;
	uint64_t len;
	int fd;
	uint32_t region;
};

static void memory_open(struct memory *m, struct test_engine *e, bool shared, uint64_t len)
{
	struct weft_region_opts opts = { .size = sizeof(opts), .len = len, .fd = -1 };

	m->len = len;
	m->fd = -1;
	if (shared) {
		m->fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_true(m->fd >= 0);
		assert_false(ftruncate(m->fd, (off_t)len));
	}
	m->addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, m->fd, 0);
	assert_true(m->addr != MAP_FAILED);
	opts.addr = m->addr;
	opts.fd = m->fd;
	if (weft_region_reg(e->w, &opts, &m->region))
		fail_msg("%s", weft_why());
	assert_true(m->region != WEFT_REGION_ARENA);
}

static void memory_close(struct memory *m)
{
	munmap(m->addr, m->len);
	if (m->fd >= 0)
		close(m->fd);
}

static void places_fill(struct weft_place *places, const struct memory *m, uint64_t off,
			unsigned nr)
{
	unsigned i;

	/* not in order, and not full: as engines' pages lie */
	for (i = 0; i < nr; i++)
		places[i] = (struct weft_place){ .off = off + (nr - 1 - i) * (BLOCK + 64ull),
						 .region = m->region };
}

static void region_round(struct test_engine *e, struct memory *m, uint64_t name)
{
	const uint64_t half = m->len / 2;
	struct weft_place from[NR], to[NR];
	struct weft_key keys[NR];
	int32_t results[NR];
	unsigned i;

	test_keys(e, name, NR, keys);
	places_fill(from, m, 0, NR);
	places_fill(to, m, half, NR);
	for (i = 0; i < NR; i++)
		test_fill(m->addr + from[i].off, BLOCK, name + i);
	assert_int_equal(call(e,
			      (struct weft_op){ .op = WEFT_OP_PUT,
						.flags = WEFT_F_COPY,
						.nr = NR - 1,
						.keys = keys,
						.places = from,
						.results = results },
			      NULL),
			 NR - 1);
	assert_int_equal(call(e,
			      (struct weft_op){ .op = WEFT_OP_GET,
						.flags = WEFT_F_VERIFY,
						.nr = NR,
						.keys = keys,
						.places = to,
						.results = results },
			      NULL),
			 NR - 1);
	for (i = 0; i < NR - 1; i++) {
		assert_int_equal(results[i], 0);
		assert_true(test_filled(m->addr + to[i].off, BLOCK, name + i));
	}
	assert_int_equal(results[NR - 1], -ENOENT);
}

static void test_regions(void **state)
{
	struct weft_place place = { .off = 0 };
	struct memory shared, private;
	struct weft_key keys[2];
	struct test_engine e;
	struct weft_op get = { .op = WEFT_OP_GET, .nr = 1, .keys = keys, .places = &place };

	(void)state;
	open_engine(&e, "regions", BLOCK);
	memory_open(&shared, &e, true, 1 << 20);
	memory_open(&private, &e, false, 1 << 20);
	region_round(&e, &shared, 600);
	region_round(&e, &private, 650);
	/* at the edge, and over it */
	test_keys(&e, 600, 1, keys);
	place = (struct weft_place){ .off = shared.len - BLOCK, .region = shared.region };
	assert_int_equal(call(&e, get, NULL), 1);
	assert_true(test_filled(shared.addr + place.off, BLOCK, 600));
	place.off += 64;
	assert_int_equal(call(&e, get, NULL), -EINVAL);
	place.off = UINT64_MAX - 100;
	assert_int_equal(call(&e, get, NULL), -EINVAL);
	place = (struct weft_place){ .region = shared.region, .len = BLOCK / 2 };
	assert_int_equal(call(&e, get, NULL), -EINVAL);
	place = (struct weft_place){ .region = 77 };
	assert_int_equal(call(&e, get, NULL), -EINVAL);
	assert_int_equal(weft_region_dereg(e.w, shared.region), 0);
	assert_int_equal(weft_region_dereg(e.w, shared.region), -ENOENT);
	place = (struct weft_place){ .region = shared.region };
	assert_int_equal(call(&e, get, NULL), -EINVAL);
	memory_close(&shared);
	region_round(&e, &private, 650);
	assert_int_equal(weft_region_dereg(e.w, private.region), 0);
	memory_close(&private);
	test_engine_close(&e);
}

/* blocks of a copied put that can't be published: their slots are not the engine's to give back */
static void test_put_refused(void **state)
{
	struct weft_place places[3];
	struct weft_key keys[3];
	struct weft_stat was, now;
	int32_t results[3];
	struct memory m;
	struct test_engine e;
	unsigned i;

	(void)state;
	open_engine(&e, "refused", BLOCK);
	memory_open(&m, &e, true, 1 << 20);
	places_fill(places, &m, 0, 3);
	test_keys(&e, 690, 3, keys);
	keys[1] = (struct weft_key){ 0, 0 };
	was = test_stat(e.ring);
	for (i = 0; i < 3; i++) {
		assert_int_equal(call(&e,
				      (struct weft_op){ .op = WEFT_OP_PUT,
							.flags = WEFT_F_COPY,
							.nr = 3,
							.keys = keys,
							.places = places,
							.results = results },
				      NULL),
				 2);
		assert_int_equal(results[0], i ? -EEXIST : 0);
		assert_int_equal(results[1], -EINVAL);
		assert_int_equal(results[2], i ? -EEXIST : 0);
	}
	now = test_stat(e.ring);
	assert_int_equal(now.slots_filling, was.slots_filling);
	assert_int_equal(now.blocks_held, was.blocks_held + 2);
	memory_close(&m);
	test_engine_close(&e);
}

/* the simple call has claimed for the engine, which knows of no slot to give back */
static void test_put_no_key(void **state)
{
	struct weft_key keys[3];
	struct test_engine e;
	void *bufs[3];
	void *mem = buffers(bufs, 3, BLOCK);
	const void *const *from = (const void *const *)bufs;

	(void)state;
	open_engine(&e, "put-no-key", BLOCK);
	test_keys(&e, 710, 3, keys);
	keys[1] = (struct weft_key){ 0, 0 };
	assert_int_equal(weft_put(e.ring, e.space, NULL, keys, 3, from), 1);
	assert_int_equal(weft_put(e.ring, e.space, NULL, &keys[1], 2, from), -EINVAL);
	assert_int_equal(test_stat(e.ring).slots_filling, 0);
	free(mem);
	test_engine_close(&e);
}

/* memory that the engine registered and then unmapped: its own damage */
static void test_region_unmapped(void **state)
{
	struct weft_place places[2] = { { .off = 0 }, { .off = 1 << 19 } };
	struct weft_key keys[2];
	int32_t results[2];
	struct memory m;
	struct test_engine e;

	(void)state;
	if (embedded)
		return; /* one process: there is nobody else's memory to miss */
	open_engine(&e, "regions", BLOCK);
	put_blocks(&e, 680, 2, keys);
	memory_open(&m, &e, false, 1 << 20);
	places[0].region = places[1].region = m.region;
	munmap(m.addr + (1 << 19), 1 << 19);
	assert_true(call(&e,
			 (struct weft_op){ .op = WEFT_OP_GET,
					   .nr = 2,
					   .keys = keys,
					   .places = places,
					   .results = results },
			 NULL) <= 1);
	assert_true(results[1] < 0);
	assert_int_equal(get_blocks(&e, 680, keys, 2), 2);
	assert_int_equal(weft_region_dereg(e.w, m.region), 0);
	munmap(m.addr, 1 << 19);
	test_engine_close(&e);
}

/* ---- spaces, engines, tenants ---- */

static void test_spaces(void **state)
{
	static const uint64_t bytes[] = { 64, 4096, 98304, 1 << 20 };
	struct weft_space_opts bad = geometry("geometry", BLOCK);
	struct weft_key keys[WFI_ARRAY_SIZE(bytes)][8];
	struct test_engine e[WFI_ARRAY_SIZE(bytes)];
	struct weft_space *space;
	unsigned i, k;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(bytes); i++) {
		open_engine(&e[i], "geometry", bytes[i]);
		assert_int_equal(weft_space_block_bytes(e[i].space), bytes[i]);
		put_blocks(&e[i], 800, 8, keys[i]);
	}
	for (i = 0; i < WFI_ARRAY_SIZE(bytes); i++) {
		assert_int_equal(get_blocks(&e[i], 800, keys[i], 8), 8);
		/* one hash, another space: another key */
		for (k = 0; k < i && !embedded; k++) {
			assert_memory_not_equal(keys[i], keys[k], sizeof(keys[0]));
			assert_int_equal(weft_match(e[i].ring, e[i].space, keys[k], 8), 0);
		}
	}
	bad.block_bytes = 1;
	assert_int_equal(weft_space_open(e[0].w, &bad, &space), -EINVAL);
	bad.block_bytes = 4099;
	assert_int_equal(weft_space_open(e[0].w, &bad, &space), -EINVAL);
	bad.block_bytes = 1ull << 31;
	assert_true(weft_space_open(e[0].w, &bad, &space) < 0);
	bad.block_bytes = BLOCK;
	bad.dtype = 1000;
	assert_int_equal(weft_space_open(e[0].w, &bad, &space), -EINVAL);
	bad.dtype = WEFT_DTYPE_OPAQUE;
	bad.replicas = 9;
	assert_int_equal(weft_space_open(e[0].w, &bad, &space), -EINVAL);
	bad.replicas = 0;
	bad.reserved = 1;
	assert_int_equal(weft_space_open(e[0].w, &bad, &space), -EINVAL);
	bad.reserved = 0;
	bad.model = "";
	assert_int_equal(weft_space_open(e[0].w, &bad, &space), -EINVAL);
	for (i = 0; i < WFI_ARRAY_SIZE(bytes); i++)
		test_engine_close(&e[i]);
}

static void test_shared(void **state)
{
	struct test_engine a, b;
	struct weft_key keys[NR], same[NR];

	(void)state;
	open_engine(&a, "shared", BLOCK);
	open_engine(&b, "shared", BLOCK);
	put_blocks(&a, 900, NR, keys);
	test_keys(&b, 900, NR, same);
	assert_memory_equal(keys, same, sizeof(keys));
	assert_int_equal(get_blocks(&b, 900, same, NR), NR);
	/* blocks stay when the engine that put them leaves */
	test_engine_close(&a);
	assert_int_equal(get_blocks(&b, 900, same, NR), NR);
	test_engine_close(&b);
}

static void test_tenants(void **state)
{
	const struct weft_space_opts space = geometry("tenants", BLOCK);
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "crimso" };
	struct test_engine red, blue;
	struct weft_key keys[NR], same[NR];
	struct weft *w = NULL;

	(void)state;
	test_engine_open(&red, &node, "crimson", &space);
	test_engine_open(&blue, &node, "azure", &space);
	put_blocks(&red, 1000, NR, keys);
	test_keys(&blue, 1000, NR, same);
	assert_memory_not_equal(keys, same, sizeof(keys));
	assert_int_equal(weft_match(blue.ring, blue.space, same, NR), 0);
	assert_int_equal(weft_match(blue.ring, blue.space, keys, NR), 0);
	assert_int_equal(test_stat(blue.ring).blocks_held, 0);
	assert_int_equal(test_stat(red.ring).blocks_held, NR);
	assert_int_equal(weft_drop(blue.ring, blue.space, keys, NR), 0);
	assert_int_equal(get_blocks(&red, 1000, keys, NR), NR);
	assert_int_equal(weft_open(&opts, &w), -EACCES);
	assert_non_null(strstr(weft_why(), "token"));
	assert_null(w);
	test_engine_close(&red);
	test_engine_close(&blue);
}

/* ---- rings ---- */

#define THREADS 4
#define ROUNDS 200

struct worker {
	struct test_engine *e;
	struct weft_ring *ring;
	uint64_t name;
	int bad;
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct weft_key key;
	uint64_t block[64], back[64];
	const void *from = block;
	void *to = back;
	unsigned i;

	for (i = 0; i < ROUNDS; i++) {
		const uint64_t hash[2] = { w->name, i };

		test_fill(block, sizeof(block), w->name + i);
		w->bad += weft_key_from_hash(w->e->space, hash, sizeof(hash), &key) != 0;
		w->bad += weft_put(w->ring, w->e->space, NULL, &key, 1, &from) != 1;
		w->bad += weft_get(w->ring, w->e->space, &key, 1, &to) != 1;
		w->bad += memcmp(block, back, sizeof(block)) != 0;
	}
	return NULL;
}

static void test_many_rings(void **state)
{
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	struct weft_ring *rings[20];
	struct test_engine e;
	unsigned i;

	(void)state;
	open_engine(&e, "rings", 512);
	for (i = 0; i < WFI_ARRAY_SIZE(rings); i++)
		assert_int_equal(weft_ring_open(e.w, NULL, &rings[i]), 0);
	for (i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .e = &e, .ring = rings[i], .name = 2000 + 1000 * i };
		assert_false(pthread_create(&threads[i], NULL, worker_main, &workers[i]));
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(workers[i].bad, 0);
	}
	for (i = 0; i < WFI_ARRAY_SIZE(rings); i += 2)
		weft_ring_close(rings[i]);
	test_engine_close(&e);
}

/* operations that are open when their ring is closed touch no memory afterwards */
static void test_ring_close(void **state)
{
	struct weft_place places[NR];
	struct weft_key keys[NR];
	struct test_engine e;
	struct weft_ring *ring;
	struct weft_op op = { .op = WEFT_OP_GET, .nr = NR, .keys = keys, .places = places };
	struct memory m;
	unsigned round, i;

	(void)state;
	open_engine(&e, "close", 1 << 20);
	put_blocks(&e, 6000, NR, keys);
	for (round = 0; round < 8; round++) {
		memory_open(&m, &e, round % 2, (uint64_t)NR << 20);
		for (i = 0; i < NR; i++)
			places[i] =
				(struct weft_place){ .off = (uint64_t)i << 20, .region = m.region };
		op.space = e.space;
		assert_int_equal(weft_ring_open(e.w, NULL, &ring), 0);
		for (i = 0; i < 4; i++)
			assert_int_equal(weft_submit(ring, &op, 1), 1);
		weft_ring_close(ring);
		memset(m.addr, 0xaa, m.len);
		/* returns when no copy can be under way */
		assert_int_equal(weft_region_dereg(e.w, m.region), 0);
		for (i = 0; i < m.len; i++)
			if (m.addr[i] != (char)0xaa)
				fail_msg("byte %u was written after the ring was closed", i);
		memory_close(&m);
	}
	test_engine_close(&e);
}

/* puts, gets, matches and nops, all open at once, several rounds through the ring */
static void test_batches(void **state)
{
	struct weft_ring_opts ring_opts = { .size = sizeof(ring_opts), .depth = 64 };
	struct weft_completion cpls[16];
	struct weft_op ops[512];
	unsigned posted = 0, done = 0;
	int32_t results[512];
	struct test_engine e;
	struct weft_ring *ring;
	struct weft_key keys[NR];
	struct memory m;
	struct weft_place places[512];
	int ret, i;

	(void)state;
	open_engine(&e, "batch", BLOCK);
	assert_int_equal(weft_ring_open(e.w, &ring_opts, &ring), 0);
	memory_open(&m, &e, true, 512 * BLOCK);
	put_blocks(&e, 5000, NR, keys);
	for (i = 0; i < 512; i++) {
		places[i] = (struct weft_place){ .off = (uint64_t)i * BLOCK, .region = m.region };
		ops[i] = (struct weft_op){ .op = i % 4 ? WEFT_OP_GET : WEFT_OP_MATCH,
					   .nr = 1,
					   .user_data = (uint64_t)i,
					   .space = e.space,
					   .keys = &keys[i % (int)NR],
					   .places = &places[i],
					   .results = i % 4 ? &results[i] : NULL };
	}
	while (done < 512) {
		ret = posted < 512 ? weft_submit(ring, ops + posted, 512 - posted) : 0;
		assert_true(ret >= 0 || ret == -EAGAIN);
		posted += ret > 0 ? (unsigned)ret : 0;
		ret = weft_wait(ring, cpls, 16, 10000000);
		assert_true(ret > 0);
		for (i = 0; i < ret; i++) {
			const uint64_t at = cpls[i].user_data;

			assert_int_equal(cpls[i].res, 1);
			assert_true(at % 4 == 0 ||
				    test_filled(m.addr + at * BLOCK, BLOCK, 5000 + at % NR));
			ops[at].user_data = UINT64_MAX; /* each completes once */
			assert_true(at < 512);
		}
		done += (unsigned)ret;
	}
	for (i = 0; i < 512; i++)
		assert_true(ops[i].user_data == UINT64_MAX);
	assert_int_equal(weft_poll(ring, cpls, 16), 0);
	weft_ring_close(ring);
	test_engine_close(&e);
	memory_close(&m);
}

/* ---- options ---- */

static void test_options(void **state)
{
	struct {
		struct weft_opts opts;
		uint64_t tail[2];
	} newer = { .opts = { .size = sizeof(newer), .socket = node.socket, .token = "" } };
	struct weft_opts opts = newer.opts;
	struct {
		struct weft_ring_opts opts;
		uint64_t tail;
	} ring_opts = { .opts = { .size = sizeof(ring_opts) } };
	struct weft_ring *ring;
	struct weft *w;

	(void)state;
	newer.opts.mode = opts.mode = embedded ? WEFT_EMBEDDED : WEFT_ATTACH;
	assert_int_equal(weft_open(&newer.opts, &w), 0);
	assert_int_equal(weft_ring_open(w, &ring_opts.opts, &ring), 0);
	ring_opts.tail = 1;
	assert_int_equal(weft_ring_open(w, &ring_opts.opts, &ring), -EINVAL);
	ring_opts.opts = (struct weft_ring_opts){ .size = sizeof(ring_opts.opts), .depth = 100 };
	assert_int_equal(weft_ring_open(w, &ring_opts.opts, &ring), -EINVAL);
	weft_close(w);
	newer.tail[1] = 1;
	assert_int_equal(weft_open(&newer.opts, &w), -EINVAL);
	opts.size = 3;
	assert_int_equal(weft_open(&opts, &w), -EINVAL);
	opts.size = sizeof(opts);
	opts.mode = 9;
	assert_int_equal(weft_open(&opts, &w), -EINVAL);
	assert_non_null(strstr(weft_why(), "mode"));
	opts.mode = newer.opts.mode;
	opts.reserved = 1;
	assert_int_equal(weft_open(&opts, &w), -EINVAL);
	assert_non_null(strstr(weft_why(), "reserved"));
	opts.reserved = 0;
	if (embedded)
		return;
	opts.mode = WEFT_ATTACH;
	opts.socket = "/nonexistent/weft.sock";
	assert_int_equal(weft_open(&opts, &w), -ENOENT);
	assert_non_null(strstr(weft_why(), "/nonexistent/weft.sock"));
}

/* ---- texts ---- */

static void says(int ret, int want, const char *text)
{
	assert_int_equal(ret, want);
	if (!strstr(weft_why(), text))
		fail_msg("\"%s\" does not say \"%s\"", weft_why(), text);
}

/* who gets an error hears what of the operation was wrong */
static void test_whys(void **state)
{
	struct weft_slot slots[4];
	struct weft_ticket ticket;
	struct weft_message message;
	struct weft_op op = { .op = WEFT_OP_CLAIM, .nr = 1, .slots = slots };
	const struct weft_key none = { 0, 0 };
	static const char bytes[BLOCK];
	const void *bufs[1] = { bytes };
	uint64_t channel, sender, msg;
	struct test_engine e;

	(void)state;
	open_engine(&e, "whys", BLOCK);
	says(weft_put(e.ring, e.space, NULL, &none, 1, bufs), -EINVAL, "names no block");
	says(weft_release(e.ring, 77), -ENOENT, "no such lease");
	op.space = e.space;
	assert_int_equal(weft_call(e.ring, &op, NULL), 1);
	op.op = WEFT_OP_RELEASE;
	assert_int_equal(weft_call(e.ring, &op, NULL), 1);
	says(weft_channel_open(e.ring, e.space, 0, BLOCK, &ticket, &channel), -EINVAL,
	     "1 to 1024 messages");
	assert_int_equal(weft_channel_open(e.ring, e.space, 1, BLOCK, &ticket, &channel), 0);
	ticket.secret[0]++;
	says(weft_channel_join(e.ring, e.space, &ticket, &sender, NULL), -EPERM, "secret");
	ticket.secret[0]--;
	ticket.node++;
	says(weft_channel_join(e.ring, e.space, &ticket, &sender, NULL), -EHOSTUNREACH,
	     "not connected");
	ticket.node--;
	assert_int_equal(weft_channel_join(e.ring, e.space, &ticket, &sender, NULL), 0);
	says(weft_channel_join(e.ring, e.space, &ticket, &msg, NULL), -EBUSY, "has a sender");
	says(weft_channel_send(e.ring, sender, slots, 1, BLOCK + 1, 0), -EINVAL, "fill all but");
	says(weft_channel_send(e.ring, sender, slots, 1, BLOCK, 0), -ESTALE,
	     "not claimed by this session");
	says(weft_channel_recv(e.ring, sender, slots, 4, &message, &msg), -ENOENT,
	     "no such channel");
	says(weft_channel_release(e.ring, 77), -ENOENT, "no such message");
	op = (struct weft_op){ .op = WEFT_OP_HANDOFF_CANCEL, .handle = 77 };
	says(weft_call(e.ring, &op, NULL), -ENOENT, "no such handoff");
	op = (struct weft_op){ .op = WEFT_OP_HANDOFF_PUSH,
			       .space = e.space,
			       .nr = 1,
			       .slots = slots,
			       .ticket = &ticket,
			       .nr_layers = 1 };
	says(weft_call(e.ring, &op, NULL), -ESTALE, "the handoff has ended");
	op = (struct weft_op){ .op = WEFT_OP_NOP, .flags = WEFT_F_WHERE };
	says(weft_call(e.ring, &op, NULL), -EINVAL, "weft/ring.h");
	test_engine_close(&e);
}

/* NULL, nothing, and too much of it: an error, and never more than that */
static void test_odd_arguments(void **state)
{
	const uint32_t token = 1;
	struct weft_key key = { 1, 1 };
	struct weft_slot slot;
	struct weft_route routes[1] = { 0 };
	uint64_t out;
	struct test_engine e;

	(void)state;
	open_engine(&e, "odd", BLOCK);
	assert_int_equal(weft_key_chain(e.space, NULL, NULL, 0, NULL, 0), 0);
	assert_int_equal(weft_key_chain(e.space, NULL, &token, SIZE_MAX, NULL, 0), 0);
	assert_int_equal(weft_key_chain(e.space, NULL, NULL, 4, &key, 1), -EINVAL);
	assert_int_equal(weft_key_chain(e.space, NULL, &token, 4, NULL, 1), -EINVAL);
	assert_int_equal(weft_key_chain(e.space, NULL, &token, 0, &key, UINT_MAX), -EINVAL);
	assert_int_equal(weft_key_from_hash(e.space, NULL, 4, &key), -EINVAL);
	assert_int_equal(weft_map(e.ring, e.space, &key, 0, &slot, &out), -EINVAL);
	assert_int_equal(weft_map(e.ring, e.space, &key, UINT_MAX, &slot, &out), -EINVAL);
	assert_int_equal(weft_map(e.ring, e.space, &key, 1, NULL, &out), -EINVAL);
	assert_int_equal(weft_map(e.ring, NULL, &key, 1, &slot, &out), -EINVAL);
	assert_int_equal(weft_route(e.ring, e.space, &key, 1, 0, NULL, 1), -EINVAL);
	assert_int_equal(weft_route(e.ring, e.space, &key, 1, 0, routes, UINT_MAX), -EINVAL);
	assert_int_equal(weft_channel_open(e.ring, e.space, 1, BLOCK, NULL, &out), -EINVAL);
	assert_int_equal(weft_channel_join(e.ring, e.space, NULL, &out, NULL), -EINVAL);
	assert_int_equal(weft_channel_send(e.ring, 1, NULL, 1, 1, 0), -EINVAL);
	assert_int_equal(weft_channel_send(e.ring, 1, &slot, UINT_MAX, 1, 0), -EINVAL);
	assert_int_equal(weft_channel_recv(e.ring, 1, NULL, 1, NULL, &out), -EINVAL);
	assert_int_equal(weft_region_reg(e.w, NULL, (uint32_t *)&out), -EINVAL);
	assert_int_equal(weft_event_reg(e.w, NULL, UINT32_MAX, (uint32_t *)&out), -EINVAL);
	assert_int_equal(weft_region_dereg(e.w, UINT32_MAX), -ENOENT);
	assert_int_equal(weft_signals_open(e.ring, UINT32_MAX) < 0, 1);
	assert_int_equal(weft_signal_wait(e.ring, NULL, NULL), -EINVAL);
	assert_int_equal(weft_attached(e.w), 1);
	test_engine_close(&e);
}

static void test_texts(void **state)
{
	struct weft_key keys[4];
	struct test_engine e;
	char *text;

	(void)state;
	open_engine(&e, "texts", BLOCK);
	put_blocks(&e, 9000, 4, keys);
	assert_int_equal(weft_status_json(e.w, &text), 0);
	assert_non_null(strstr(text, "\"engines\""));
	free(text);
	assert_int_equal(weft_ls_json(e.w, &text), 0);
	assert_non_null(strstr(text, "\"texts\""));
	free(text);
	assert_true(test_counter(e.w, "weft_ops") > 0);
	assert_string_equal(weft_version(), "0.1.0");
	test_engine_close(&e);
}

static int start_node(void **state)
{
	(void)state;
	test_node_init(&node, sets);
	test_node_start(&node);
	return 0;
}

static int stop_node(void **state)
{
	(void)state;
	test_node_fini(&node);
	return 0;
}

static int go_embedded(void **state)
{
	(void)state;
	embedded = true;
	return 0;
}

int main(void)
{
	const struct CMUnitTest attached[] = {
		cmocka_unit_test(test_put_get),	    cmocka_unit_test(test_chain),
		cmocka_unit_test(test_map_release), cmocka_unit_test(test_drop),
		cmocka_unit_test(test_claim_put),   cmocka_unit_test(test_match_flags),
		cmocka_unit_test(test_regions),	    cmocka_unit_test(test_region_unmapped),
		cmocka_unit_test(test_spaces),	    cmocka_unit_test(test_shared),
		cmocka_unit_test(test_tenants),	    cmocka_unit_test(test_many_rings),
		cmocka_unit_test(test_ring_close),  cmocka_unit_test(test_batches),
		cmocka_unit_test(test_options),	    cmocka_unit_test(test_texts),
		cmocka_unit_test(test_put_refused), cmocka_unit_test(test_put_no_key),
		cmocka_unit_test(test_whys),	    cmocka_unit_test(test_odd_arguments),
	};
	const struct CMUnitTest in_process[] = {
		cmocka_unit_test(test_put_get),	    cmocka_unit_test(test_chain),
		cmocka_unit_test(test_map_release), cmocka_unit_test(test_drop),
		cmocka_unit_test(test_claim_put),   cmocka_unit_test(test_match_flags),
		cmocka_unit_test(test_regions),	    cmocka_unit_test(test_spaces),
		cmocka_unit_test(test_many_rings),  cmocka_unit_test(test_ring_close),
		cmocka_unit_test(test_batches),	    cmocka_unit_test(test_options),
		cmocka_unit_test(test_texts),	    cmocka_unit_test(test_put_refused),
		cmocka_unit_test(test_put_no_key),  cmocka_unit_test(test_whys),
	};
	int ret = cmocka_run_group_tests_name("weftd", attached, start_node, stop_node);

	return ret + cmocka_run_group_tests_name("embedded", in_process, go_embedded, NULL);
}
