/* SPDX-License-Identifier: Apache-2.0 */
/* blocks of other nodes: three nodes of one host, and nodes that die while they lend */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/integration/node.h"

#define NB 24u /* blocks of a chain */
#define BLOCK 16384u
#define LARGE_BLOCK (2ul << 20)
#define NODES 3u
#define LATE_CHAINS 16u
#define SOON_MS 10000 /* what was put on one node is known to all */

static struct test_node nodes[NODES];
static char peer_sets[NODES][400];
static uint64_t names = 5000;

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "afar",
	.layout = "test",
	.tokens_per_block = 16,
};

struct chain {
	uint64_t name;
	struct weft_key keys[NB];
};

static void chain_begin(struct chain *c, const struct test_engine *e)
{
	c->name = names += 1000;
	test_keys(e, c->name, NB, c->keys);
}

static uint64_t seed_of(const struct chain *c, unsigned i)
{
	return c->name * 100 + i;
}

static void chain_put(const struct chain *c, struct test_engine *e, unsigned first, unsigned nr)
{
	static char bytes[NB][BLOCK];
	const void *bufs[NB];
	unsigned i;

	for (i = 0; i < nr; i++) {
		test_fill(bytes[i], BLOCK, seed_of(c, first + i));
		bufs[i] = bytes[i];
	}
	assert_int_equal(weft_put(e->ring, e->space, first ? &c->keys[first - 1] : NULL,
				  &c->keys[first], nr, bufs),
			 nr);
}

/* Return: blocks that came, each of which is right */
static unsigned chain_get(const struct chain *c, struct test_engine *e)
{
	static char bytes[NB][BLOCK];
	void *bufs[NB];
	unsigned i;
	int n;

	for (i = 0; i < NB; i++)
		bufs[i] = bytes[i];
	memset(bytes, 0, sizeof(bytes));
	n = weft_get(e->ring, e->space, c->keys, NB, bufs);
	assert_true(n >= 0);
	for (i = 0; i < (unsigned)n; i++)
		assert_true(test_filled(bytes[i], BLOCK, seed_of(c, i)));
	return (unsigned)n;
}

struct matching {
	struct test_engine *e;
	const struct chain *c;
	int want;
};

static bool matches(void *ctx)
{
	struct matching *m = ctx;

	return weft_match(m->e->ring, m->e->space, m->c->keys, NB) == m->want;
}

/* waits until @e's node finds @want blocks, here or elsewhere */
static void match_until(struct test_engine *e, const struct chain *c, int want)
{
	struct matching m = { e, c, want };

	if (!test_until(SOON_MS, matches, &m))
		fail_msg("a chain of %d is not found within %d ms: %d are", want, SOON_MS,
			 weft_match(e->ring, e->space, c->keys, NB));
}

static bool gets_all(void *ctx)
{
	struct matching *m = ctx;

	return chain_get(m->c, m->e) == NB;
}

static void open_all(struct test_engine e[NODES])
{
	unsigned i;

	for (i = 0; i < NODES; i++)
		test_engine_open(&e[i], &nodes[i], NULL, &geometry);
}

static void close_all(struct test_engine e[NODES])
{
	unsigned i;

	for (i = 0; i < NODES; i++)
		test_engine_close(&e[i]);
}

/* ---- tests ---- */

/* whoever holds it, whoever asks, whoever's shard it is */
static void test_any_to_any(void **state)
{
	struct test_engine e[NODES];
	struct chain c;
	unsigned i, k, round;

	(void)state;
	open_all(e);
	for (round = 0; round < 4; round++)
		for (i = 0; i < NODES; i++)
			for (k = 0; k < NODES; k++) {
				chain_begin(&c, &e[i]);
				chain_put(&c, &e[i], 0, NB);
				match_until(&e[k], &c, NB);
				assert_int_equal(chain_get(&c, &e[k]), NB);
			}
	close_all(e);
}

#define LONG 17000u /* blocks: several rounds of weft_get() and of weft_match() */
#define LONG_GET 600u
#define SMALL 64u

struct long_chain {
	struct test_engine *e;
	const struct weft_key *keys;
};

static bool long_matches(void *ctx)
{
	const struct long_chain *c = ctx;

	return weft_match(c->e->ring, c->e->space, c->keys, LONG) == (int)LONG;
}

/* a chain that takes several operations is found to its end by who never asked for all of it */
static void test_long(void **state)
{
	static const struct weft_space_opts small = {
		.size = sizeof(small),
		.block_bytes = SMALL,
		.model = "afar-long",
		.layout = "test",
		.tokens_per_block = 16,
	};
	static struct weft_key keys[LONG];
	static char bytes[LONG][SMALL], got[LONG_GET][SMALL];
	static void *bufs[LONG];
	struct test_engine e[NODES];
	struct long_chain c = { &e[2], keys };
	unsigned i, round;

	(void)state;
	for (i = 0; i < NODES; i++)
		test_engine_open(&e[i], &nodes[i], NULL, &small);
	for (round = 0; round < 4; round++) {
		test_keys(&e[0], names += 100000, LONG, keys);
		for (i = 0; i < LONG; i++) {
			test_fill(bytes[i], SMALL, names + i);
			bufs[i] = bytes[i];
		}
		assert_int_equal(weft_put(e[0].ring, e[0].space, NULL, keys, LONG,
					  (const void *const *)bufs),
				 LONG);
		assert_true(test_until(SOON_MS, long_matches, &c));
		for (i = 0; i < LONG_GET; i++)
			bufs[i] = got[i];
		assert_int_equal(weft_get(e[1].ring, e[1].space, keys, LONG_GET, bufs), LONG_GET);
		assert_memory_equal(got, bytes, sizeof(got));
	}
	for (i = 0; i < NODES; i++)
		test_engine_close(&e[i]);
}

/* a prompt whose beginning lies here, its middle there, and its end on a third node */
static void test_pieced_together(void **state)
{
	const unsigned part = NB / NODES;
	uint32_t where[NB];
	struct test_engine e[NODES];
	struct weft_completion done;
	struct chain c;
	struct weft_op op = { .op = WEFT_OP_MATCH, .flags = WEFT_F_WHERE, .nr = NB };
	unsigned i;

	(void)state;
	open_all(e);
	chain_begin(&c, &e[0]);
	for (i = 0; i < NODES; i++) {
		match_until(&e[i], &c, (int)(i * part));
		chain_put(&c, &e[i], i * part, part);
	}
	for (i = 0; i < NODES; i++)
		match_until(&e[i], &c, NB);
	op.space = e[0].space;
	op.keys = c.keys;
	op.where = where;
	assert_int_equal(weft_call(e[0].ring, &op, &done), NB);
	for (i = 0; i < NB; i++)
		assert_int_equal(WEFT_WHERE_TIER(where[i]),
				 i < part ? WEFT_TIER_DRAM : WEFT_TIER_REMOTE);
	assert_true(WEFT_WHERE_NODE(where[part]) != 0);
	assert_true(WEFT_WHERE_NODE(where[part]) != WEFT_WHERE_NODE(where[2 * part]));
	assert_true(done.handle > 0);
	for (i = 0; i < NODES; i++)
		assert_int_equal(chain_get(&c, &e[i]), NB);
	close_all(e);
}

static bool routed(void *ctx)
{
	const struct matching *m = ctx;
	struct weft_route routes[WEFT_ROUTES_MAX] = { 0 };
	const int n =
		weft_route(m->e->ring, m->e->space, m->c->keys, NB, 0, routes, WEFT_ROUTES_MAX);

	return n == (int)NODES && routes[0].nr_memory == NB && !routes[0].cost_us &&
	       routes[1].nr_fetch == NB && routes[1].fetch_us;
}

/* who would be best for a chain; and what is asked wrongly */
static void test_route(void **state)
{
	struct test_engine e[NODES];
	struct weft_route none = { 0 };
	struct matching m;
	struct chain c;
	unsigned i;

	(void)state;
	open_all(e);
	chain_begin(&c, &e[1]);
	chain_put(&c, &e[1], 0, NB);
	for (i = 0; i < NODES; i++) {
		m = (struct matching){ &e[i], &c, 0 };
		assert_true(test_until(SOON_MS, routed, &m));
	}
	assert_int_equal(weft_route(e[0].ring, e[0].space, c.keys, NB, 0, NULL, 1), -EINVAL);
	assert_int_equal(weft_route(e[0].ring, e[0].space, c.keys, NB, 0, &none, 0), -EINVAL);
	assert_int_equal(weft_route(e[0].ring, e[0].space, c.keys, NB, 0, &none,
				    WEFT_ROUTES_MAX + 1),
			 -EINVAL);
	assert_int_equal(weft_route(e[0].ring, e[0].space, c.keys, 0, 0, &none, 1), -EINVAL);
	close_all(e);
}

/* what is asked for again and again is kept; then nobody else is needed for it */
static void test_popular_stays(void **state)
{
	struct test_engine e[NODES];
	struct weft_stat was;
	struct chain c;
	unsigned i;

	(void)state;
	open_all(e);
	chain_begin(&c, &e[0]);
	chain_put(&c, &e[0], 0, NB);
	match_until(&e[1], &c, NB);
	was = test_stat(e[1].ring);
	for (i = 0; i < 4; i++)
		assert_int_equal(chain_get(&c, &e[1]), NB);
	assert_int_equal(test_stat(e[1].ring).blocks_held, was.blocks_held + NB);
	assert_int_equal(test_counter(e[1].w, "weft_remote_kept") >= NB, 1);
	close_all(e);
}

/* straight into memory of the engine, where the node keeps nothing of it */
static void get_apart(const struct chain *c, struct test_engine *e)
{
	struct weft_slot slots[NB];
	struct weft_place places[NB];
	const struct weft_op claim = {
		.op = WEFT_OP_CLAIM, .nr = NB, .space = e->space, .slots = slots
	};
	const struct weft_op get = {
		.op = WEFT_OP_GET, .nr = NB, .space = e->space, .keys = c->keys, .places = places
	};
	const struct weft_op release = {
		.op = WEFT_OP_RELEASE, .nr = NB, .space = e->space, .slots = slots
	};
	unsigned i;

	assert_int_equal(weft_call(e->ring, &claim, NULL), NB);
	for (i = 0; i < NB; i++)
		places[i] = (struct weft_place){ .off = slots[i].off, .region = WEFT_REGION_ARENA };
	assert_int_equal(weft_call(e->ring, &get, NULL), NB);
	for (i = 0; i < NB; i++)
		assert_true(
			test_filled((char *)weft_arena(e->w) + slots[i].off, BLOCK, seed_of(c, i)));
	assert_int_equal(weft_call(e->ring, &release, NULL), NB);
}

/* from which fetch on a block stays is for the node's configuration to say */
static void test_keep_after(void **state)
{
	static const unsigned kept_by[NODES] = { 2, 1, UINT32_MAX };
	struct test_engine e[NODES];
	struct weft_stat was;
	struct chain c;
	unsigned i, n;

	(void)state;
	open_all(e);
	for (i = 0; i < NODES; i++) {
		chain_begin(&c, &e[i]);
		chain_put(&c, &e[(i + 1) % NODES], 0, NB);
		match_until(&e[i], &c, NB);
		was = test_stat(e[i].ring);
		for (n = 1; n <= 3; n++) {
			get_apart(&c, &e[i]);
			assert_int_equal(test_stat(e[i].ring).blocks_held,
					 was.blocks_held + (n >= kept_by[i] ? NB : 0));
		}
	}
	close_all(e);
}

static void test_drop_is_heard(void **state)
{
	struct test_engine e[NODES];
	struct chain c;

	(void)state;
	open_all(e);
	chain_begin(&c, &e[2]);
	chain_put(&c, &e[2], 0, NB);
	match_until(&e[0], &c, NB);
	assert_int_equal(weft_drop(e[2].ring, e[2].space, c.keys, NB), NB);
	match_until(&e[0], &c, 0);
	assert_int_equal(chain_get(&c, &e[0]), 0);
	close_all(e);
}

/* as weft_match(), with its time limit. @partial: whether the node says that there may be more */
static int match_within(struct test_engine *e, const struct chain *c, uint32_t timeout_us,
			bool *partial)
{
	struct weft_op op = { .op = WEFT_OP_MATCH,
			      .nr = NB,
			      .space = e->space,
			      .keys = c->keys,
			      .timeout_us = timeout_us };
	struct weft_completion done;
	const int n = weft_call(e->ring, &op, &done);

	*partial = done.flags & WEFT_CQE_PARTIAL;
	return n;
}

static void late_put(struct chain chains[LATE_CHAINS], struct test_engine *at,
		     struct test_engine *from)
{
	bool partial;
	unsigned i;

	for (i = 0; i < LATE_CHAINS; i++) {
		chain_begin(&chains[i], at);
		chain_put(&chains[i], at, 0, NB);
		match_until(from, &chains[i], NB);
		assert_int_equal(match_within(from, &chains[i], 5000000, &partial), NB);
		assert_false(partial);
	}
}

/* nodes of one host look into each other's shards, whether anybody is awake there or not */
static void test_shard_sleeps(void **state)
{
	struct chain chains[LATE_CHAINS];
	struct test_engine e[NODES];
	bool partial;
	unsigned i;

	(void)state;
	open_all(e);
	late_put(chains, &e[0], &e[1]);
	kill(nodes[2].pid, SIGSTOP);
	for (i = 0; i < LATE_CHAINS; i++) {
		assert_int_equal(match_within(&e[1], &chains[i], 0, &partial), NB);
		assert_false(partial);
	}
	kill(nodes[2].pid, SIGCONT);
	close_all(e);
}

/* over TCP, as if on two hosts */
static void wired_pair_start(struct test_node *near, struct test_node *far)
{
	static char listen[40], peers[96];
	const char *const far_sets[] = {
		"name=far", "arena_bytes=64M", "hugepages=false", "transport=tcp", listen, NULL
	};
	const char *const near_sets[] = { "name=near",
					  "arena_bytes=64M",
					  "hugepages=false",
					  "transport=tcp",
					  "keep_after=0",
					  peers,
					  NULL };

	snprintf(listen, sizeof(listen), "listen=127.0.0.1:%u", test_free_port());
	snprintf(peers, sizeof(peers), "peers=({ name = \"far\"; address = \"%s\"; })",
		 listen + strlen("listen="));
	test_node_init(far, far_sets);
	test_node_start(far);
	test_node_init(near, near_sets);
	test_node_start(near);
}

/* a shard elsewhere that sleeps is not waited for for long, and is not left out in silence */
static void test_shard_is_late(void **state)
{
	struct chain chains[LATE_CHAINS];
	struct test_engine near_e, far_e;
	struct test_node near, far;
	unsigned i, nr_late = 0;
	uint64_t begin_ms;
	bool partial;
	int n;

	(void)state;
	wired_pair_start(&near, &far);
	test_engine_open(&far_e, &far, NULL, &geometry);
	test_engine_open(&near_e, &near, NULL, &geometry);
	late_put(chains, &far_e, &near_e);
	kill(far.pid, SIGSTOP);
	for (i = 0; i < LATE_CHAINS; i++) {
		begin_ms = test_now_ms();
		n = match_within(&near_e, &chains[i], 0, &partial);
		assert_int_equal(n, partial ? 0 : NB);
		assert_true(test_now_ms() - begin_ms < 50 + 100);
		nr_late += partial;
	}
	/* some of sixteen chains are in the shard of each of two nodes */
	assert_true(nr_late > 0 && nr_late < LATE_CHAINS);
	kill(far.pid, SIGCONT);
	for (i = 0; i < LATE_CHAINS; i++)
		assert_int_equal(match_within(&near_e, &chains[i], 5000000, &partial), NB);
	test_engine_close(&near_e);
	test_engine_close(&far_e);
	test_pair_fini(&near, &far);
}

/* what is on its way when a ring is closed has ended, or lands nowhere, when that call returns */
static void close_in_the_middle(struct test_engine *e, const struct chain *c)
{
	struct weft_place places[NB];
	struct weft_op op = { .op = WEFT_OP_GET, .nr = NB, .keys = c->keys, .places = places };
	struct weft_region_opts region = { .size = sizeof(region), .len = NB * LARGE_BLOCK };
	volatile char *mem;
	struct weft_ring *ring;
	uint32_t id;
	size_t at;

	region.fd = memfd_create("places", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_false(region.fd < 0 || ftruncate(region.fd, (off_t)region.len));
	region.addr = mmap(NULL, region.len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			   region.fd, 0);
	assert_true(region.addr != MAP_FAILED);
	mem = region.addr;
	assert_int_equal(weft_region_reg(e->w, &region, &id), 0);
	for (unsigned i = 0; i < NB; i++)
		places[i] = (struct weft_place){ .off = i * LARGE_BLOCK, .region = id };
	op.space = e->space;
	assert_int_equal(weft_ring_open(e->w, NULL, &ring), 0);
	assert_int_equal(weft_submit(ring, &op, 1), 1);
	for (uint64_t end_ms = test_now_ms() + 10000; !mem[0];)
		assert_true(test_now_ms() < end_ms);
	weft_ring_close(ring);
	memset(region.addr, 0xaa, region.len);
	/* returns when no copy can be under way */
	assert_int_equal(weft_region_dereg(e->w, id), 0);
	for (at = 0; at < region.len && mem[at] == (char)0xaa; at++)
		;
	if (at < region.len)
		fail_msg("byte %zu was written after the ring was closed", at);
	munmap(region.addr, region.len);
	close(region.fd);
}

static void test_ring_closed_in_the_middle(void **state)
{
	const struct weft_space_opts large = { .size = sizeof(large),
					       .block_bytes = LARGE_BLOCK,
					       .model = "afar large",
					       .layout = "test",
					       .tokens_per_block = 16 };
	static char bytes[LARGE_BLOCK];
	const void *buf = bytes;
	struct test_engine near_e, far_e;
	struct test_node near, far;
	struct chain c;

	(void)state;
	wired_pair_start(&near, &far);
	test_engine_open(&far_e, &far, NULL, &large);
	test_engine_open(&near_e, &near, NULL, &large);
	chain_begin(&c, &far_e);
	memset(bytes, 1, sizeof(bytes));
	for (unsigned i = 0; i < NB; i++)
		assert_int_equal(weft_put(far_e.ring, far_e.space, i ? &c.keys[i - 1] : NULL,
					  &c.keys[i], 1, &buf),
				 1);
	/* what is given up may cost the nodes their connection: then they meet anew */
	for (unsigned round = 0; round < 8; round++) {
		match_until(&near_e, &c, NB);
		close_in_the_middle(&near_e, &c);
	}
	test_engine_close(&near_e);
	test_engine_close(&far_e);
	test_pair_fini(&near, &far);
}

/* neither a hang nor a wrong byte, and all is found again by who is left and who comes back */
static void test_holder_dies(void **state)
{
	struct test_engine e[NODES];
	struct chain c, kept;
	uint64_t begin_ms;
	unsigned n;

	(void)state;
	open_all(e);
	chain_begin(&c, &e[2]);
	chain_put(&c, &e[2], 0, NB);
	chain_begin(&kept, &e[0]);
	chain_put(&kept, &e[0], 0, NB);
	match_until(&e[1], &c, NB);
	match_until(&e[1], &kept, NB);
	kill(nodes[2].pid, SIGSTOP);
	begin_ms = test_now_ms();
	n = chain_get(&c, &e[1]);
	/* its memory is still there to be read, if it had lent it */
	assert_true(n == 0 || n == NB);
	assert_true(test_now_ms() - begin_ms < 5000 + 100);
	test_node_kill(&nodes[2]);
	match_until(&e[1], &c, 0);
	match_until(&e[1], &kept, NB);
	assert_int_equal(chain_get(&kept, &e[1]), NB);
	test_engine_close(&e[2]);
	test_node_start(&nodes[2]);
	test_engine_open(&e[2], &nodes[2], NULL, &geometry);
	match_until(&e[2], &kept, NB);
	assert_int_equal(chain_get(&kept, &e[2]), NB);
	close_all(e);
}

static bool has_ended(void *ctx)
{
	struct test_node *n = ctx;

	return waitpid(n->pid, NULL, WNOHANG) == n->pid;
}

/* a node that drains leaves what was used of late to the others */
static void test_drain_hands_on(void **state)
{
	struct test_engine e[NODES];
	struct chain c;
	struct matching m = { &e[0], &c, NB };

	(void)state;
	open_all(e);
	chain_begin(&c, &e[2]);
	chain_put(&c, &e[2], 0, NB);
	match_until(&e[0], &c, NB);
	assert_int_equal(weft_drain(e[2].w), 0);
	test_engine_close(&e[2]);
	assert_true(test_until(SOON_MS, has_ended, &nodes[2]));
	nodes[2].pid = 0;
	/* what was matched before they knew of its end may have been there */
	assert_true(test_until(SOON_MS, gets_all, &m));
	match_until(&e[1], &c, NB);
	test_node_start(&nodes[2]);
	test_engine_open(&e[2], &nodes[2], NULL, &geometry);
	match_until(&e[2], &c, NB);
	close_all(e);
}

/* a block of a space with replicas survives the node where it was put */
/* copies of others' blocks that a node has kept so far */
static uint64_t kept(const struct test_engine *e)
{
	return test_counter(e->w, "weft_remote_kept");
}

static void test_replicas(void **state)
{
	const struct weft_space_opts twice = {
		.size = sizeof(twice),
		.block_bytes = BLOCK,
		.model = "afar twice",
		.layout = "test",
		.tokens_per_block = 16,
		.replicas = 2,
	};
	struct test_engine e[NODES];
	struct chain c;
	uint64_t was;
	unsigned i;

	(void)state;
	for (i = 0; i < NODES; i++)
		test_engine_open(&e[i], &nodes[i], NULL, &twice);
	was = kept(&e[0]) + kept(&e[1]);
	chain_begin(&c, &e[2]);
	chain_put(&c, &e[2], 0, NB);
	match_until(&e[0], &c, NB);
	match_until(&e[1], &c, NB);
	while (kept(&e[0]) + kept(&e[1]) < was + NB)
		poll(NULL, 0, 1);
	test_node_kill(&nodes[2]);
	match_until(&e[0], &c, NB);
	assert_int_equal(chain_get(&c, &e[0]), NB);
	test_engine_close(&e[2]);
	test_node_start(&nodes[2]);
	test_engine_open(&e[2], &nodes[2], NULL, &twice);
	close_all(e);
}

static int start_nodes(void **state)
{
	static const char *const names_of[NODES] = { "name=one", "name=two", "name=three" };
	/* the default is 2 */
	static const char *const keep_of[NODES] = { "op_timeout_ms=5s", "keep_after=1",
						    "keep_after=0" };
	unsigned i;

	(void)state;
	for (i = 0; i < NODES; i++) {
		const char *sets[] = { names_of[i], "arena_bytes=64M",	     "hugepages=false",
				       keep_of[i],  i ? peer_sets[i] : NULL, NULL };

		if (i == 1)
			snprintf(peer_sets[i], sizeof(peer_sets[i]),
				 "peers=({ name = \"one\"; socket = \"%s\"; })", nodes[0].socket);
		if (i == 2)
			snprintf(peer_sets[i], sizeof(peer_sets[i]),
				 "peers=({ name = \"one\"; socket = \"%s\"; }, "
				 "{ name = \"two\"; socket = \"%s\"; })",
				 nodes[0].socket, nodes[1].socket);
		test_node_init(&nodes[i], sets);
		test_node_start(&nodes[i]);
	}
	return 0;
}

static int stop_nodes(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < NODES; i++)
		test_node_fini(&nodes[i]);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_to_any),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_pieced_together),
		cmocka_unit_test(test_route),
		cmocka_unit_test(test_popular_stays),
		cmocka_unit_test(test_keep_after),
		cmocka_unit_test(test_drop_is_heard),
		cmocka_unit_test(test_shard_sleeps),
		cmocka_unit_test(test_shard_is_late),
		cmocka_unit_test(test_ring_closed_in_the_middle),
		cmocka_unit_test(test_holder_dies),
		cmocka_unit_test(test_drain_hands_on),
		cmocka_unit_test(test_replicas),
	};

	return cmocka_run_group_tests(tests, start_nodes, stop_nodes);
}
