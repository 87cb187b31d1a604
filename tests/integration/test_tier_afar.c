/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blocks in the SSD tier of another node: two of one host, and two that know each other over TCP.
 * What is found is said where it lies, what comes is right, and another life of the holder has it
 * still, whether it was stopped or killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/integration/node.h"

#define NB 24u /* blocks of a chain */
#define NR_CHAINS 12u /* more than twice what the holder's memory has room for */
#define BLOCK 16384u
#define MEMORY (2u << 20)
#define SOON_MS 20000

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "tier afar",
	.layout = "test",
	.tokens_per_block = 16,
};

struct pair {
	char dir[64];
	char file[96], tier[112], listen[48], peers[160];
	struct test_node holder, asker;
	struct test_engine he, ae;
	struct weft_key keys[NR_CHAINS][NB];
};

/* ---- nodes ---- */

/* a port that is free, most likely still so when the node wants it */
static void holder_start(struct pair *p)
{
	test_node_start(&p->holder);
	test_engine_open(&p->he, &p->holder, NULL, &geometry);
}

static void pair_start(struct pair *p, bool tcp)
{
	const char *transport = tcp ? "transport=tcp" : NULL;
	const char *holder[] = {
		"name=holder",	  "arena_bytes=2M",	"hugepages=false", "policy=lru", p->tier,
		"tier_bytes=32M", "tier_write_bytes=0", transport,	   p->listen,	 NULL
	};
	const char *asker[] = { "name=asker",
				"arena_bytes=64M",
				"hugepages=false",
				"keep_after=0",
				p->peers,
				transport,
				NULL };

	test_folder(p->dir, "tier_afar");
	snprintf(p->file, sizeof(p->file), "%s/tier", p->dir);
	snprintf(p->tier, sizeof(p->tier), "tier_path=%s", p->file);
	snprintf(p->listen, sizeof(p->listen), "listen=127.0.0.1:%u", test_free_port());
	test_node_init(&p->holder, holder);
	if (tcp)
		snprintf(p->peers, sizeof(p->peers),
			 "peers=({ name = \"holder\"; address = \"%s\"; })",
			 p->listen + strlen("listen="));
	else
		snprintf(p->peers, sizeof(p->peers),
			 "peers=({ name = \"holder\"; socket = \"%s\"; })", p->holder.socket);
	test_node_init(&p->asker, asker);
	holder_start(p);
	test_node_start(&p->asker);
	test_engine_open(&p->ae, &p->asker, NULL, &geometry);
}

static void pair_end(struct pair *p)
{
	test_engine_close(&p->he);
	test_engine_close(&p->ae);
	test_node_fini(&p->asker);
	test_node_fini(&p->holder);
	unlink(p->file);
	rmdir(p->dir);
}

/* ---- blocks ---- */

static uint64_t seed_of(unsigned chain, unsigned i)
{
	return 1000 * (chain + 1) + i;
}

static bool has_room(void *ctx)
{
	const struct weft_stat st = test_stat(ctx);

	return st.slots_free || st.slots_total < MEMORY / BLOCK;
}

/* one after the other, each once there is room for it: nothing is dropped on its way down */
static void chains_put(struct pair *p)
{
	static char bytes[BLOCK];
	const void *buf = bytes;
	unsigned c, i;

	for (c = 0; c < NR_CHAINS; c++) {
		test_keys(&p->he, 10 + c, NB, p->keys[c]);
		for (i = 0; i < NB; i++) {
			test_fill(bytes, BLOCK, seed_of(c, i));
			assert_true(test_until(SOON_MS, has_room, p->he.ring));
			assert_int_equal(weft_put(p->he.ring, p->he.space,
						  i ? &p->keys[c][i - 1] : NULL, &p->keys[c][i], 1,
						  &buf),
					 1);
		}
	}
}

struct finding {
	struct pair *p;
	unsigned chain;
	unsigned nr_ssd; /* out */
	uint64_t fetch_us; /* out */
	int found; /* out */
};

static bool finds(void *ctx)
{
	struct finding *f = ctx;
	uint32_t where[NB];
	const struct weft_op op = { .op = WEFT_OP_MATCH,
				    .flags = WEFT_F_WHERE,
				    .nr = NB,
				    .space = f->p->ae.space,
				    .keys = f->p->keys[f->chain],
				    .where = where };
	struct weft_completion done;
	unsigned i, tier;

	f->found = weft_call(f->p->ae.ring, &op, &done);
	f->fetch_us = done.handle;
	f->nr_ssd = 0;
	for (i = 0; i < NB && (int)i < f->found; i++) {
		tier = WEFT_WHERE_TIER(where[i]);
		assert_true(tier == WEFT_TIER_REMOTE || tier == WEFT_TIER_REMOTE_SSD);
		assert_true(WEFT_WHERE_NODE(where[i]) != 0);
		f->nr_ssd += tier == WEFT_TIER_REMOTE_SSD;
	}
	return f->found == (int)NB;
}

/* Return: blocks of all chains that the asker knows to be in the holder's tier alone; *@lowest: a
 * chain that lies there, and nowhere else */
static unsigned find_all(struct pair *p, unsigned *lowest)
{
	struct finding f = { .p = p };
	unsigned nr = 0;

	for (f.chain = 0; f.chain < NR_CHAINS; f.chain++) {
		if (!test_until(SOON_MS, finds, &f))
			fail_msg("of chain %u %d blocks are found within %d ms", f.chain, f.found,
				 SOON_MS);
		assert_true(f.fetch_us > 0);
		nr += f.nr_ssd;
		if (f.nr_ssd == NB)
			*lowest = f.chain;
	}
	return nr;
}

static char bytes[NB][BLOCK];

/* what comes up takes room of others, and what was not written by then is gone: whatever a get
 * brings is right. Return: how many came */
static unsigned get_all(struct pair *p)
{
	void *bufs[NB];
	unsigned c, i, nr = 0;
	int n;

	for (c = 0; c < NR_CHAINS; c++) {
		memset(bytes, 0, sizeof(bytes));
		for (i = 0; i < NB; i++)
			bufs[i] = bytes[i];
		n = weft_get(p->ae.ring, p->ae.space, p->keys[c], NB, bufs);
		assert_true(n >= 0);
		for (i = 0; i < NB; i++)
			assert_true(test_filled(bytes[i], BLOCK, seed_of(c, i)) || n < (int)NB);
		nr += (unsigned)n;
	}
	return nr;
}

/* what can't come in time is left, and said to be */
static void get_within(struct pair *p, unsigned chain, uint64_t budget_us, int want)
{
	struct weft_slot slots[NB];
	struct weft_place places[NB];
	int32_t results[NB];
	const struct weft_op claim = {
		.op = WEFT_OP_CLAIM, .nr = NB, .space = p->ae.space, .slots = slots
	};
	const struct weft_op get = { .op = WEFT_OP_GET,
				     .nr = NB,
				     .space = p->ae.space,
				     .keys = p->keys[chain],
				     .places = places,
				     .results = results,
				     .handle = budget_us };
	const struct weft_op release = {
		.op = WEFT_OP_RELEASE, .nr = NB, .space = p->ae.space, .slots = slots
	};
	unsigned i;

	assert_int_equal(weft_call(p->ae.ring, &claim, NULL), NB);
	for (i = 0; i < NB; i++)
		places[i] = (struct weft_place){ .off = slots[i].off, .region = WEFT_REGION_ARENA };
	assert_int_equal(weft_call(p->ae.ring, &get, NULL), want);
	for (i = 0; i < NB; i++)
		assert_int_equal(results[i], want ? 0 : -ETIME);
	assert_int_equal(weft_call(p->ae.ring, &release, NULL), NB);
}

/* ---- tests ---- */

static void check(bool tcp)
{
	static struct pair p;
	unsigned lowest = NR_CHAINS, nr;
	uint64_t raised;

	pair_start(&p, tcp);
	chains_put(&p);
	nr = find_all(&p, &lowest);
	/* not all fits into memory, by far */
	assert_true(nr >= (NR_CHAINS * NB - MEMORY / BLOCK) / 2 && lowest < NR_CHAINS);
	get_within(&p, lowest, 1, 0);
	raised = test_counter(p.he.w, "weft_remote_raised");
	get_within(&p, lowest, 5000000, NB);
	assert_true(test_counter(p.he.w, "weft_remote_raised") >= raised + NB);
	assert_true(get_all(&p) >= nr / 2);

	/* what the asker itself has by now */
	for (unsigned c = 0; c < NR_CHAINS; c++)
		assert_true(weft_drop(p.ae.ring, p.ae.space, p.keys[c], NB) >= 0);
	/* another life: what was in the tier is told anew, once its space is open there */
	if (tcp)
		test_node_kill(&p.holder);
	else
		test_node_stop(&p.holder);
	test_engine_close(&p.he);
	holder_start(&p);
	lowest = NR_CHAINS;
	for (struct finding f = { .p = &p, .chain = 0 }; f.chain < NR_CHAINS; f.chain++) {
		if (!test_until(f.chain ? 100 : SOON_MS, finds, &f))
			continue;
		assert_int_equal(f.nr_ssd, NB);
		get_within(&p, f.chain, 5000000, NB);
		lowest = f.chain;
		break;
	}
	assert_true(lowest < NR_CHAINS);
	pair_end(&p);
}

static void test_one_host(void **state)
{
	(void)state;
	check(false);
}

static void test_tcp(void **state)
{
	(void)state;
	check(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_host),
		cmocka_unit_test(test_tcp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
