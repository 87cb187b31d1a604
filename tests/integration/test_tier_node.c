/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weftd over an SSD tier: what memory has no room for comes back right, over restarts and kills;
 * files that are not fit to be used, or become so, cost their blocks and not the service.
 *
 * WEFT_TEST_KILLS sets how many kills, WEFT_TEST_SEED where the seeds begin.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include "kvcache/tier_ssd.h"
#include "tests/integration/node.h"

#define BLOCK 16384u
#define MEMORY (2u << 20)
#define TIER (16u << 20)
#define NR_MEMORY (MEMORY / BLOCK)
#define NR_NAMES (3 * NR_MEMORY)
#define BATCH 16u
#define KILLS 20u
#define KILL_US 30000u
#define WAIT_MS 60000

/* the folder, and a small file system in it where this process may mount one */
static char dir[64], small[80];
static bool have_small;

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "tier",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

/* ---- a node with a tier ---- */

struct tier_node {
	struct test_node node;
	char file[96];
	char path[112], bytes[48];
	const char *sets[10];
};

static void node_init(struct tier_node *t, const char *file, uint64_t bytes)
{
	snprintf(t->file, sizeof(t->file), "%s", file);
	snprintf(t->path, sizeof(t->path), "tier_path=%s", file);
	snprintf(t->bytes, sizeof(t->bytes), "tier_bytes=%llu", (unsigned long long)bytes);
	t->sets[0] = "arena_bytes=2M";
	t->sets[1] = "hugepages=false";
	t->sets[2] = "name=tier";
	t->sets[3] = "tier_write_bytes=0";
	t->sets[4] = "tier_scrub_bytes=64M";
	t->sets[5] = t->path;
	t->sets[6] = t->bytes;
	t->sets[7] = "policy=lru"; /* what was put last stays, though the tier takes nothing */
	t->sets[8] = NULL;
	test_node_init(&t->node, t->sets);
}

static void node_fini(struct tier_node *t)
{
	test_node_fini(&t->node);
	unlink(t->file);
}

/* ---- what its status says of the tier ---- */

struct tier_status {
	char state[16];
	char why[256];
	uint64_t bytes, file, want, blocks, leased, retired, recovered, evicted;
	uint64_t bad[WFI_TIER_NR_BAD];
};

static uint64_t integer(const json_t *tier, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(tier, name));
}

static struct tier_status tier_status(struct weft *w)
{
	static const char *const kinds[WFI_TIER_NR_BAD] = { "header", "body",  "read",
							    "write",  "short", "space" };
	struct tier_status st = { .state = "none" };
	json_t *root, *tier;
	char *text;

	if (weft_status_json(w, &text))
		fail_msg("status: %s", weft_why());
	root = json_loads(text, 0, NULL);
	free(text);
	tier = json_array_get(json_object_get(root, "tiers"), 0);
	if (tier) {
		snprintf(st.state, sizeof(st.state), "%s",
			 json_string_value(json_object_get(tier, "state")));
		snprintf(st.why, sizeof(st.why), "%s",
			 json_string_value(json_object_get(tier, "why")));
		st.bytes = integer(tier, "bytes");
		st.file = integer(tier, "file_bytes");
		st.want = integer(tier, "file_bytes_wanted");
		st.blocks = integer(tier, "blocks");
		st.leased = integer(tier, "leased");
		st.retired = integer(tier, "retired");
		st.recovered = integer(tier, "recovered");
		st.evicted = integer(tier, "evicted");
		for (unsigned i = 0; i < WFI_TIER_NR_BAD; i++)
			st.bad[i] = integer(json_object_get(tier, "bad"), kinds[i]);
	}
	json_decref(root);
	return st;
}

static bool opened(void *ctx)
{
	return strcmp(tier_status(ctx).state, "opening") != 0;
}

static void start(struct tier_node *t, struct test_engine *e)
{
	test_node_start(&t->node);
	test_engine_open(e, &t->node, NULL, &geometry);
	assert_true(test_until(WAIT_MS, opened, e->w));
}

static void stop(struct tier_node *t, struct test_engine *e)
{
	test_engine_close(e);
	test_node_stop(&t->node);
}

static void expect_state(struct weft *w, const char *state, const char *why)
{
	const struct tier_status st = tier_status(w);

	if (strcmp(st.state, state) != 0 || !strstr(st.why, why))
		fail_msg("the tier is %s (%s), not %s (%s)", st.state, st.why, state, why);
}

/* ---- blocks: named by a number, from which their bytes follow ---- */

static uint64_t blocks[BATCH][BLOCK / 8];

static struct weft_key key_of(const struct test_engine *e, uint64_t name)
{
	struct weft_key key;

	test_keys(e, name, 1, &key);
	return key;
}

/* Return: how many were taken; -ECONNRESET the node is gone */
static int put(struct test_engine *e, uint64_t first, unsigned nr)
{
	const void *bufs[BATCH];
	struct weft_key keys[BATCH];

	for (unsigned i = 0; i < nr; i++) {
		keys[i] = key_of(e, first + i);
		test_fill(blocks[i], BLOCK, first + i);
		bufs[i] = blocks[i];
	}
	return weft_put(e->ring, e->space, NULL, keys, nr, bufs);
}

/* each is right or a miss. Return: how many came */
static unsigned get(struct test_engine *e, uint64_t first, unsigned nr)
{
	unsigned came = 0;

	for (unsigned i = 0; i < nr; i++) {
		const struct weft_key key = key_of(e, first + i);
		void *buf = blocks[0];
		const int ret = weft_get(e->ring, e->space, &key, 1, &buf);

		if (ret < 0)
			fail_msg("get: %s", weft_why());
		if (ret && !test_filled(buf, BLOCK, first + i))
			fail_msg("wrong bytes of block %llu", (unsigned long long)(first + i));
		came += (unsigned)ret;
	}
	return came;
}

struct settle {
	struct test_engine *e;
	uint64_t blocks, want;
};

static bool written(void *ctx)
{
	struct settle *s = ctx;

	s->blocks = tier_status(s->e->w).blocks;
	return s->blocks >= s->want;
}

static bool has_room(void *ctx)
{
	const struct weft_stat st = test_stat(ctx);

	return st.slots_free || st.slots_total < NR_MEMORY;
}

/*
 * puts until the tier holds @want blocks, each once there is room for it, so that nothing is
 * dropped on the way there. Near the end the drive gets time, and more of it where it is slow: in a
 * tier that is full each put takes a block away until its own is written.
 * Return: the first name behind the last one
 */
static uint64_t put_until(struct test_engine *e, uint64_t first, uint64_t want)
{
	struct settle s = { .e = e, .want = want };
	uint64_t most = 0, end_ms = test_now_ms() + WAIT_MS;
	unsigned wait_ms = 0;

	while (!test_until(wait_ms, written, &s)) {
		if (s.blocks > most)
			end_ms = test_now_ms() + WAIT_MS;
		most = wfi_max(most, s.blocks);
		if (test_now_ms() >= end_ms)
			fail_msg("%llu of %llu blocks came to the tier", (unsigned long long)most,
				 (unsigned long long)want);
		assert_true(test_until(WAIT_MS, has_room, e->ring));
		assert_int_equal(put(e, first, 1), 1);
		first++;
		wait_ms += s.blocks + BATCH >= want;
	}
	return first;
}

/* the service, whatever became of the tier */
static void serves(struct test_engine *e)
{
	assert_int_equal(put(e, 1u << 30, BATCH), BATCH);
	assert_int_equal(get(e, 1u << 30, BATCH), BATCH);
}

static void path_in(char *out, size_t len, const char *folder, const char *name)
{
	snprintf(out, len, "%s/%s", folder, name);
}

static void file_node(struct tier_node *t, const char *name, uint64_t bytes)
{
	char path[96];

	path_in(path, sizeof(path), dir, name);
	node_init(t, path, bytes);
}

/* ---- down, up, and the next life ---- */

static void test_more_than_memory(void **state)
{
	struct tier_node t;
	struct test_engine e;
	struct tier_status st;
	uint64_t nr;

	(void)state;
	file_node(&t, "more", TIER);
	start(&t, &e);
	expect_state(e.w, "ok", "");
	nr = put_until(&e, 0, 2 * NR_MEMORY);
	assert_true(nr > 2 * NR_MEMORY);
	assert_true(get(&e, 0, (unsigned)nr) >= 2 * NR_MEMORY);
	assert_true(test_counter(e.w, "weft_tier_promoted") >= NR_MEMORY);
	stop(&t, &e);

	start(&t, &e);
	st = tier_status(e.w);
	assert_true(st.recovered >= 2 * NR_MEMORY);
	/* memory is empty: what comes, comes from the file */
	assert_int_equal(get(&e, 0, (unsigned)nr), st.recovered);
	assert_int_equal(st.bad[WFI_TIER_BAD_HEADER], 0);
	stop(&t, &e);
	node_fini(&t);
}

/* ---- leases ---- */

/* Return: as the match does */
static int lease(struct test_engine *e, uint64_t first, unsigned nr, uint32_t *where,
		 uint64_t *handle)
{
	struct weft_key keys[2 * BATCH];
	struct weft_completion cpl;
	const struct weft_op op = {
		.op = WEFT_OP_MATCH,
		.flags = WEFT_F_LEASE | WEFT_F_WHERE,
		.nr = nr,
		.space = e->space,
		.keys = keys,
		.where = where,
	};
	int ret;

	for (unsigned i = 0; i < nr; i++)
		keys[i] = key_of(e, first + i);
	ret = weft_call(e->ring, &op, &cpl);
	*handle = cpl.handle;
	return ret;
}

static bool no_leases(void *ctx)
{
	return !tier_status(ctx).leased;
}

/* Return: behind the last name, when the tier has evicted @nr blocks */
static uint64_t put_over(struct test_engine *e, uint64_t first, uint64_t nr)
{
	const uint64_t end_ms = test_now_ms() + 2 * WAIT_MS;

	for (; tier_status(e->w).evicted < nr; first += 2) {
		assert_true(test_now_ms() < end_ms);
		assert_int_equal(put(e, first, 2), 2);
	}
	return first;
}

/* what a match has leased is there for the get, though the tier was written anew meanwhile */
/* hits and misses of all spaces so far, as weft stat has them */
static void uses(struct weft *w, uint64_t *hits, uint64_t *misses)
{
	json_t *root, *space;
	char *text;
	size_t i;

	*hits = *misses = 0;
	if (weft_stat_json(w, &text))
		fail_msg("stat: %s", weft_why());
	root = json_loads(text, 0, NULL);
	free(text);
	json_array_foreach(json_object_get(root, "spaces"), i, space)
	{
		*hits += integer(space, "hits");
		*misses += integer(space, "misses");
	}
	json_decref(root);
}

/* over a tier, too: wherever it has to look */
static void test_map_is_one_use(void **state)
{
	const unsigned nr = 8, held = 5;
	uint64_t lease, hits, misses;
	struct weft_slot slots[8];
	struct weft_key keys[8];
	struct tier_node t;
	struct test_engine e;

	(void)state;
	file_node(&t, "use", TIER);
	start(&t, &e);
	for (unsigned i = 0; i < nr; i++)
		keys[i] = key_of(&e, i);
	assert_int_equal(put(&e, 0, held), held);
	assert_int_equal(weft_map(e.ring, e.space, keys, nr, slots, &lease), held);
	uses(e.w, &hits, &misses);
	assert_int_equal(hits, held);
	assert_int_equal(misses, nr - held);
	assert_int_equal(weft_release(e.ring, lease), held);
	stop(&t, &e);
	node_fini(&t);
}

static void test_lease(void **state)
{
	struct tier_node t;
	struct test_engine e, other;
	uint32_t where[2 * BATCH];
	uint64_t nr, handle, second;

	(void)state;
	file_node(&t, "lease", TIER / 4);
	t.node.sets[8] = "lease_ms=1h";
	start(&t, &e);
	test_engine_open(&other, &t.node, NULL, &geometry);
	nr = put_until(&e, 0, NR_MEMORY);
	assert_int_equal(lease(&e, 0, BATCH, where, &handle), BATCH);
	for (unsigned i = 0; i < BATCH; i++)
		assert_int_equal(WEFT_WHERE_TIER(where[i]), WEFT_TIER_SSD);
	/* another engine's are its own */
	assert_int_equal(lease(&other, 0, 2 * BATCH, where, &second), 2 * BATCH);
	assert_int_equal(weft_release(e.ring, second), -ENOENT);
	assert_int_equal(tier_status(e.w).leased, 2 * BATCH);
	put_over(&e, nr, 2 * TIER / 4 / BLOCK);
	assert_int_equal(get(&e, 0, 2 * BATCH), 2 * BATCH);
	assert_true(get(&e, 2 * BATCH, BATCH) < BATCH);
	assert_int_equal(weft_release(e.ring, handle), BATCH);
	assert_int_equal(tier_status(e.w).leased, 2 * BATCH);
	test_engine_close(&other);
	assert_true(test_until(WAIT_MS, no_leases, e.w));
	stop(&t, &e);
	node_fini(&t);
}

/* ---- killed while an engine writes ---- */

static uint64_t number(const char *name, uint64_t other)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : other;
}

static volatile sig_atomic_t victim;

static void on_alarm(int sig)
{
	(void)sig;
	kill(victim, SIGKILL);
}

static void kill_in(pid_t pid, uint64_t us)
{
	const struct sigaction act = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	const struct itimerval when = { .it_value = { .tv_usec = (suseconds_t)us } };

	victim = pid;
	assert_false(sigaction(SIGALRM, &act, NULL));
	assert_false(setitimer(ITIMER_REAL, &when, NULL));
}

/*
 * writes, and reads what was written, until the node dies under it: soon after it has begun to
 * write to its tier, or before. Return: one behind the last
 */
static uint64_t write_and_die(struct tier_node *t, struct test_engine *e, uint64_t name,
			      uint64_t *rng)
{
	const uint64_t first = name, safe = first + test_rand(rng) % (2 * NR_MEMORY);
	bool doomed = false;

	while (true) {
		if (!doomed && name >= safe) {
			kill_in(t->node.pid, 1 + test_rand(rng) % KILL_US);
			doomed = true;
		}
		const unsigned nr = 1 + (unsigned)(test_rand(rng) % BATCH);
		const struct weft_key key = key_of(e, first + test_rand(rng) % (name - first + 1));
		void *buf = blocks[0];

		if (put(e, name, nr) < 0)
			break;
		name += nr;
		if (weft_get(e->ring, e->space, &key, 1, &buf) < 0)
			break;
	}
	assert_false(weft_attached(e->w));
	test_node_kill(&t->node);
	return name;
}

/* every slot is held in the end: none was lost on the way */
static void fill_whole(struct test_engine *e, uint64_t first)
{
	const uint64_t per_chunk = (TIER / SSD_MIN_CHUNKS) / BLOCK;
	const struct tier_status st = tier_status(e->w);

	assert_int_equal(st.retired, 0);
	put_until(e, first, st.bytes / (TIER / SSD_MIN_CHUNKS) * per_chunk);
}

static void test_killed(void **state)
{
	const uint64_t kills = number("WEFT_TEST_KILLS", KILLS);
	uint64_t rng = number("WEFT_TEST_SEED", 1), first = 0, next = 0, came = 0;
	struct tier_node t;
	struct test_engine e;

	(void)state;
	file_node(&t, "killed", TIER);
	for (uint64_t i = 0; i < kills; i++) {
		start(&t, &e);
		expect_state(e.w, "ok", "");
		/* of the life before; older ones were looked at then */
		came += get(&e, first, (unsigned)(next - first));
		first = next;
		next = write_and_die(&t, &e, next, &rng);
		test_engine_close(&e);
	}
	start(&t, &e);
	came += get(&e, 0, (unsigned)next);
	print_message("%llu kills, %llu blocks put, %llu found in later lives\n",
		      (unsigned long long)kills, (unsigned long long)next,
		      (unsigned long long)came);
	assert_true(came > 0);
	fill_whole(&e, next);
	stop(&t, &e);
	node_fini(&t);
}

/* ---- another size, while in use ---- */

struct sizes {
	struct weft *w;
	uint64_t file, want;
};

static bool sizes_are(void *ctx)
{
	const struct sizes *s = ctx;
	const struct tier_status st = tier_status(s->w);

	return st.file == s->file && st.want == s->want;
}

static void test_resize(void **state)
{
	struct tier_node t;
	struct test_engine e;
	struct tier_status st;
	struct sizes s;
	struct stat file;
	uint64_t nr;

	(void)state;
	file_node(&t, "resize", TIER);
	start(&t, &e);
	st = tier_status(e.w);
	assert_int_equal(st.file, st.want);
	assert_int_equal(weft_tier_resize(e.w, 1), -EINVAL);
	assert_non_null(strstr(weft_why(), "MiB"));
	assert_int_equal(weft_tier_resize(e.w, 64 * (uint64_t)TIER), -EINVAL);
	assert_int_equal(weft_tier_resize(e.w, 2 * TIER), 0);
	assert_true(tier_status(e.w).file > st.file);
	/* more than there was room for at first */
	nr = put_until(&e, 0, TIER / BLOCK + NR_MEMORY);
	assert_int_equal(weft_tier_resize(e.w, TIER), 0);
	s = (struct sizes){ .w = e.w, .file = st.file, .want = st.file };
	assert_true(test_until(WAIT_MS, sizes_are, &s));
	assert_false(stat(t.file, &file));
	assert_int_equal(file.st_size, st.file);
	assert_true(get(&e, 0, (unsigned)nr) > 0);
	fill_whole(&e, nr);
	stop(&t, &e);
	start(&t, &e);
	assert_true(sizes_are(&(struct sizes){ .w = e.w, .file = st.file, .want = st.file }));
	stop(&t, &e);
	node_fini(&t);
}

static void test_resize_nothing(void **state)
{
	struct test_engine e;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	assert_int_equal(weft_tier_resize(e.w, TIER), -ENOENT);
	assert_non_null(strstr(weft_why(), "no SSD tier"));
	test_engine_close(&e);
}

/* ---- files that are not this node's to use ---- */

static void test_two_nodes(void **state)
{
	struct tier_node one, two;
	struct test_engine e, other;
	uint64_t nr;

	(void)state;
	file_node(&one, "shared", TIER);
	file_node(&two, "shared", TIER);
	start(&one, &e);
	nr = put_until(&e, 0, NR_MEMORY);
	start(&two, &other);
	expect_state(other.w, "off", "another node has it");
	assert_true(test_node_logged(&two.node, "one node a file"));
	serves(&other);
	assert_true(get(&e, 0, (unsigned)nr) >= NR_MEMORY);
	stop(&one, &e);
	stop(&two, &other);
	/* the first one's blocks are as they were */
	start(&one, &e);
	assert_true(get(&e, 0, (unsigned)nr) >= NR_MEMORY);
	stop(&one, &e);
	node_fini(&two);
	node_fini(&one);
}

/* bit by bit: the node's own sum is what is tested */
static uint32_t crc32c(const void *buf, size_t len)
{
	const uint8_t *at = buf;
	uint32_t crc = ~0u;

	while (len--) {
		crc ^= *at++;
		for (unsigned i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

/* both copies of the superblock */
static void super_change(const char *file, uint32_t version)
{
	struct ssd_super super;
	const int fd = open(file, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < SSD_SUPER_PAGES; i++) {
		assert_int_equal(pread(fd, &super, sizeof(super), i * SSD_PAGE), sizeof(super));
		if (super.magic != SSD_MAGIC)
			continue;
		super.version = version;
		super.crc = crc32c(&super, offsetof(struct ssd_super, crc));
		assert_int_equal(pwrite(fd, &super, sizeof(super), i * SSD_PAGE), sizeof(super));
	}
	close(fd);
}

static void test_other_version(void **state)
{
	struct tier_node t;
	struct test_engine e;
	uint64_t nr;

	(void)state;
	file_node(&t, "version", TIER);
	start(&t, &e);
	nr = put_until(&e, 0, NR_MEMORY);
	stop(&t, &e);
	super_change(t.file, SSD_VERSION + 1);
	start(&t, &e);
	expect_state(e.w, "refused", "format version 2");
	serves(&e);
	stop(&t, &e);
	/* it was not touched: for its own version it is as it was */
	super_change(t.file, SSD_VERSION);
	start(&t, &e);
	assert_true(get(&e, 0, (unsigned)nr) >= NR_MEMORY);
	stop(&t, &e);
	node_fini(&t);
}

static void test_other_node(void **state)
{
	struct tier_node t, other;
	struct test_engine e;
	uint64_t nr;

	(void)state;
	file_node(&t, "theirs", TIER);
	file_node(&other, "theirs", TIER);
	other.node.sets[2] = "name=other";
	start(&t, &e);
	nr = put_until(&e, 0, NR_MEMORY);
	stop(&t, &e);
	start(&other, &e);
	expect_state(e.w, "refused", "holds blocks of node");
	serves(&e);
	stop(&other, &e);
	start(&t, &e);
	assert_true(get(&e, 0, (unsigned)nr) >= NR_MEMORY);
	stop(&t, &e);
	node_fini(&other);
	node_fini(&t);
}

/* a node that has to do without, and says why */
static void without_tier(const char *file, const char *why)
{
	struct tier_node t;
	struct test_engine e;

	node_init(&t, file, TIER);
	start(&t, &e);
	expect_state(e.w, "off", why);
	assert_true(test_node_logged(&t.node, "serves without its SSD tier"));
	serves(&e);
	stop(&t, &e);
	test_node_fini(&t.node);
}

static void test_unwritable(void **state)
{
	char path[96];

	(void)state;
	path_in(path, sizeof(path), dir, "no/such/folder");
	without_tier(path, "No such file or directory");
	without_tier(dir, "Is a directory");
	without_tier("/dev/null", "Invalid argument");
	if (!have_small)
		return;
	path_in(path, sizeof(path), small, "tier");
	assert_false(mount(NULL, small, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	without_tier(path, "Read-only file system");
	assert_false(mount(NULL, small, NULL, MS_REMOUNT, NULL));
}

/* ---- files that are cut ---- */

/* on the same file once more: what comes is right (get() looks), and the service goes on */
static void last_life(struct tier_node *t, uint64_t nr)
{
	struct test_engine e;

	start(t, &e);
	expect_state(e.w, "ok", "");
	get(&e, 0, (unsigned)nr);
	serves(&e);
	stop(t, &e);
	node_fini(t);
}

static void test_cut_while_down(void **state)
{
	struct tier_node t;
	struct test_engine e;
	uint64_t nr;
	unsigned came;

	(void)state;
	file_node(&t, "cut-down", TIER);
	start(&t, &e);
	nr = put_until(&e, 0, NR_NAMES);
	stop(&t, &e);
	assert_false(truncate(t.file, TIER / 4));
	start(&t, &e);
	expect_state(e.w, "ok", "");
	/* the headers are there, the bytes of some are not */
	came = get(&e, 0, (unsigned)nr);
	assert_true(came > 0 && came < NR_NAMES);
	assert_true(tier_status(e.w).bad[WFI_TIER_BAD_BODY] > 0);
	fill_whole(&e, nr);
	stop(&t, &e);
	/* nothing is left but a part of the headers */
	assert_false(truncate(t.file, 3 * SSD_PAGE));
	last_life(&t, nr);
}

static void test_cut_while_up(void **state)
{
	struct tier_node t;
	struct test_engine e;
	struct tier_status st;
	uint64_t nr;

	(void)state;
	file_node(&t, "cut-up", TIER);
	start(&t, &e);
	nr = put_until(&e, 0, NR_NAMES);
	assert_false(truncate(t.file, TIER / 8));
	assert_true(get(&e, 0, (unsigned)nr) < NR_NAMES);
	st = tier_status(e.w);
	/* a write that was under way makes the file long again, with a hole in it */
	assert_true(st.bad[WFI_TIER_BAD_SHORT] + st.bad[WFI_TIER_BAD_BODY] > 0);
	serves(&e);
	stop(&t, &e);
	last_life(&t, nr);
}

/* ---- file systems without room ---- */

static void test_no_room_at_start(void **state)
{
	struct tier_node t;
	struct test_engine e;
	char path[96];

	(void)state;
	if (!have_small)
		skip();
	path_in(path, sizeof(path), small, "start");
	node_init(&t, path, TIER);
	start(&t, &e);
	expect_state(e.w, "refused", "No space left on device");
	serves(&e);
	stop(&t, &e);
	node_fini(&t);
}

/* a file with holes looks as if it had room, until they are written to */
static void test_no_room_later(void **state)
{
	struct tier_node t;
	struct test_engine e;
	struct tier_status st;
	char path[96];
	uint64_t name = 0, end_ms = test_now_ms() + WAIT_MS;
	int fd;

	(void)state;
	if (!have_small)
		skip();
	path_in(path, sizeof(path), small, "later");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && !ftruncate(fd, TIER));
	close(fd);
	node_init(&t, path, TIER);
	start(&t, &e);
	expect_state(e.w, "ok", "");
	do {
		assert_true(test_now_ms() < end_ms);
		assert_int_equal(put(&e, name, 1), 1);
		name++;
		st = tier_status(e.w);
	} while (strcmp(st.state, "full") != 0);
	assert_true(strstr(st.why, "no space left") != NULL);
	assert_true(st.bad[WFI_TIER_BAD_SPACE] > 0);
	assert_true(st.blocks > 0);
	/* reads go on */
	assert_true(get(&e, 0, (unsigned)name) >= st.blocks);
	serves(&e);
	stop(&t, &e);
	node_fini(&t);
}

/* ---- set-up ---- */

/* a view of the file systems of its own, in which a small one can be had */
static bool mount_small(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mkdir(small, 0700))
		return false;
	return !mount("weft-test", small, "tmpfs", 0, "size=6M");
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%s/weft-tier-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	path_in(small, sizeof(small), dir, "small");
	have_small = mount_small();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (have_small)
		umount2(small, MNT_DETACH); /* rings of nodes that ended let go of it later */
	rmdir(small);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map_is_one_use),
		cmocka_unit_test(test_more_than_memory),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_resize_nothing),
		cmocka_unit_test(test_two_nodes),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_other_node),
		cmocka_unit_test(test_unwritable),
		cmocka_unit_test(test_cut_while_down),
		cmocka_unit_test(test_cut_while_up),
		cmocka_unit_test(test_no_room_at_start),
		cmocka_unit_test(test_no_room_later),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
