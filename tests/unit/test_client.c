/* SPDX-License-Identifier: Apache-2.0 */
/* libweft against a node that the test controls */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "fake_node.h"
#include "ring/client_priv.h"
#include "weft_internal/client.h"

#define BLOCK 1024u

struct fixture {
	char dir[64];
	char path[96];
	struct fake_node *node;
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
};

static int attach_as(const char *path, const struct weft_opts *opts, struct weft **out)
{
	struct wfi_connector *c;
	int ret = wfi_connector_unix(path, &c);

	return ret < 0 ? ret : wfi_client_attach(opts, c, out);
}

static const struct weft_space_opts geometry = { .size = sizeof(geometry),
						 .block_bytes = BLOCK,
						 .model = "test@1",
						 .layout = "nhd",
						 .tokens_per_block = 16,
						 .nr_layers = 4 };

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/weft-test-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	f->node = fake_node_start(f->path);
	if (attach_as(f->path, NULL, &f->w) || weft_space_open(f->w, &geometry, &f->space) ||
	    weft_ring_open(f->w, NULL, &f->ring))
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	weft_close(f->w);
	if (f->node)
		fake_node_stop(f->node);
	rmdir(f->dir);
	free(f);
	return 0;
}

static struct weft_key key_of(uint64_t i)
{
	return (struct weft_key){ .lo = i + 1, .hi = ~i };
}

static void make_keys(struct weft_key *keys, unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		keys[i] = key_of(i);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* takes exactly @nr completions */
static void wait_all(struct weft_ring *ring, struct weft_completion *out, unsigned nr)
{
	unsigned got = 0;

	while (got < nr) {
		int ret = weft_wait(ring, out + got, nr - got, 0);

		assert_true(ret > 0);
		got += (unsigned)ret;
	}
}

/* ---- attaching ---- */

static void test_attach(void **state)
{
	struct fixture *f = *state;
	struct weft_opts opts = { .size = sizeof(opts), .token = "wrong" };
	struct {
		struct weft_opts opts;
		uint64_t later;
	} newer = { .opts = { .size = sizeof(newer) }, .later = 0 };
	char longest[WEFT_TOKEN_MAX + 2];
	struct weft *w = NULL;

	assert_int_equal(weft_attached(f->w), 1);
	assert_non_null(weft_arena(f->w));
	assert_int_equal(weft_arena_bytes(f->w), FAKE_ARENA_BYTES);
	assert_non_null(strchr(weft_version(), '.'));

	assert_int_equal(attach_as(f->path, &opts, &w), -EACCES);
	assert_string_equal(weft_why(), "no tenant has this token");
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	opts.token = longest;
	assert_int_equal(attach_as(f->path, &opts, &w), -EINVAL);
	assert_int_equal(attach_as("/nowhere/at/all", NULL, &w), -ENOENT);
	assert_non_null(strstr(weft_why(), "/nowhere/at/all"));

	/* option structs of older and newer programs */
	opts.size = 4;
	assert_int_equal(attach_as(f->path, &opts, &w), -EINVAL);
	newer.later = 1;
	assert_int_equal(attach_as(f->path, &newer.opts, &w), -EINVAL);
	assert_null(w);
	newer.later = 0;
	newer.opts.token = FAKE_TOKEN;
	assert_int_equal(attach_as(f->path, &newer.opts, &w), 0);
	weft_close(w);
	weft_close(NULL);
}

static void test_paths(void **state)
{
	char longest[200];
	struct wfi_connector *c;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	assert_int_equal(wfi_connector_unix(longest, &c), -EINVAL);
	setenv("WEFT_SOCKET", "/from/the/environment", 1);
	assert_int_equal(wfi_connector_unix(NULL, &c), 0);
	assert_int_equal(c->connect(c), -ENOENT);
	assert_non_null(strstr(weft_why(), "/from/the/environment"));
	c->destroy(c);
	unsetenv("WEFT_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/from/nowhere", 1);
	assert_int_equal(wfi_connector_unix(NULL, &c), 0);
	c->destroy(c);
}

/* answers that make no sense end the session, with nothing left open */
static void test_bad_answers(void **state)
{
	struct fixture *f = *state;
	struct weft_space *space = NULL;
	struct weft_ring *ring = NULL;

	fake_node_fault(f->node, FAKE_SHORT_RING);
	assert_int_equal(weft_ring_open(f->w, NULL, &ring), -EPROTO);
	fake_node_fault(f->node, FAKE_STRAY_FD);
	assert_int_equal(weft_space_open(f->w, &geometry, &space), -EPROTO);
	assert_int_equal(weft_attached(f->w), 0);
	assert_null(ring);
	assert_null(space);
}

static void test_control(void **state)
{
	struct fixture *f = *state;
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_DRAIN, .fd_in = -1 };
	char *text;
	int fd;

	assert_int_equal(weft_status_json(f->w, &text), 0);
	assert_string_equal(text, "{\"status\":1}");
	free(text);
	assert_int_equal(weft_ls_json(f->w, &text), 0);
	assert_string_equal(text, "{\"ls\":1}");
	free(text);
	assert_int_equal(weft_stat_json(f->w, &text), 0);
	assert_string_equal(text, "{\"stat\":1}");
	free(text);
	assert_int_equal(weft_blocks_json(f->w, 7, 9, &text), 0);
	assert_string_equal(text, "{\"blocks\":1}");
	free(text);
	fd = weft_metrics_fd(f->w);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(weft_drain(f->w), 0);

	/* an answer that comes too late is not taken for the next one's */
	fake_node_fault(f->node, FAKE_MUTE);
	assert_int_equal(wfi_client_ctl_locked(f->w, &call, 20), -ETIMEDOUT);
	fake_node_fault(f->node, 0);
	assert_int_equal(weft_status_json(f->w, &text), 0);
	assert_string_equal(text, "{\"status\":1}");
	free(text);
	assert_int_equal(weft_attached(f->w), 1);
}

static void test_space_options(void **state)
{
	struct fixture *f = *state;
	struct weft_space_opts opts = geometry;
	struct weft_space *space = NULL;
	char longest[WEFT_NAME_MAX + 1];

	assert_int_equal(weft_space_block_bytes(f->space), BLOCK);
	assert_int_equal(wfi_space_tokens_per_block(f->space), 16);
	assert_int_equal(wfi_space_secret_bytes(f->space)[15], 's');
	assert_int_equal(weft_space_open(f->w, NULL, &space), -EINVAL);
	opts.model = NULL;
	assert_int_equal(weft_space_open(f->w, &opts, &space), -EINVAL);
	memset(longest, 'm', sizeof(longest));
	longest[WEFT_NAME_MAX] = 0;
	opts.model = longest;
	assert_int_equal(weft_space_open(f->w, &opts, &space), -EINVAL);
	opts = geometry;
	opts.block_bytes = FAKE_ARENA_BYTES * 2ull;
	assert_int_equal(weft_space_open(f->w, &opts, &space), -E2BIG);
	assert_null(space);
	opts = geometry;
	opts.layout = NULL;
	assert_int_equal(weft_space_open(f->w, &opts, &space), 0);
	weft_space_close(space);
	weft_space_close(NULL);
}

/* ---- the ring ---- */

static void test_nops(void **state)
{
	struct fixture *f = *state;
	struct weft_op ops[64] = { 0 };
	struct weft_completion cpl[64];
	uint64_t next = 0, seen = 0;
	unsigned i, round;

	assert_int_equal(weft_poll(f->ring, cpl, 64), 0);
	assert_int_equal(weft_wait(f->ring, cpl, 64, 1000), 0);
	assert_int_equal(weft_wait(f->ring, cpl, 64, 0), -EINVAL);
	assert_int_equal(weft_submit(f->ring, ops, 0), 0);
	for (round = 0; round < 200; round++) {
		for (i = 0; i < 64; i++)
			ops[i].user_data = next++;
		assert_int_equal(weft_submit(f->ring, ops, 64), 64);
		wait_all(f->ring, cpl, 64);
		for (i = 0; i < 64; i++)
			assert_int_equal(cpl[i].user_data, seen++);
		assert_int_equal(cpl[63].res, 0);
	}
	assert_int_equal(weft_call(f->ring, &ops[0], NULL), 0);
}

/* both sides asleep, each wakes the other */
static void test_wake(void **state)
{
	struct fixture *f = *state;
	const struct weft_op nop = { 0 };
	unsigned i;

	for (i = 0; i < 20; i++) {
		fake_node_await_sleep(f->node);
		assert_int_equal(weft_call(f->ring, &nop, NULL), 0);
	}
}

/* whatever a node says; and texts stay what they are */
static void test_whys(void **state)
{
	struct weft_completion cpl = { .op = WEFT_OP_RELEASE, .res = -ENOENT };
	const char *first;

	(void)state;
	assert_non_null(strstr(weft_completion_why(&cpl), "no such lease"));
	cpl.res = 3;
	assert_string_equal(weft_completion_why(&cpl), "no error");
	cpl.res = -ENOTTY;
	assert_string_equal(weft_completion_why(&cpl), strerror(ENOTTY));
	cpl.res = INT32_MIN;
	assert_non_null(weft_completion_why(&cpl));
	cpl.res = -10001;
	first = weft_completion_why(&cpl);
	cpl.res = -10002;
	(void)!weft_completion_why(&cpl);
	cpl.res = -10003;
	assert_string_equal(first, weft_completion_why(&cpl));
}

static void test_malformed(void **state)
{
	struct fixture *f = *state;
	struct weft_key key = key_of(1);
	struct weft_slot slot;
	struct weft_op op = { .op = WEFT_OP_NR }, two[2] = { 0 };
	struct weft_completion cpl[2];
	const struct weft_ring_opts tiny = { .size = sizeof(tiny), .depth = 4, .arg_bytes = 4096 };
	struct weft_key *many = calloc(1000, sizeof(*many));
	struct weft_ring *ring;

	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL);
	op = (struct weft_op){ .op = WEFT_OP_MATCH, .nr = 1, .keys = &key };
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL); /* no space */
	op.space = f->space;
	op.keys = NULL;
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL);
	op.keys = &key;
	op.nr = 0;
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL);
	op.nr = WEFT_OP_BLOCKS_MAX + 1;
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL);
	op = (struct weft_op){ .op = WEFT_OP_GET, .nr = 1, .keys = &key, .space = f->space };
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL); /* no places */
	op = (struct weft_op){ .op = WEFT_OP_CLAIM, .nr = 1, .space = f->space };
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL); /* no slots */
	op = (struct weft_op){
		.op = WEFT_OP_HANDOFF_PUSH, .nr = 1, .space = f->space, .slots = &slot
	};
	assert_int_equal(weft_submit(f->ring, &op, 1), -EINVAL); /* no ticket */

	/* more than the argument area holds, and the calls that go in rounds then */
	make_keys(many, 1000);
	assert_int_equal(weft_ring_open(f->w, &tiny, &ring), 0);
	op = (struct weft_op){ .op = WEFT_OP_MATCH, .nr = 1000, .keys = many, .space = f->space };
	assert_int_equal(weft_submit(ring, &op, 1), -EINVAL);
	assert_int_equal(weft_match(ring, f->space, many, 1000), 0);
	assert_int_equal(weft_drop(ring, f->space, many, 1000), 0);
	assert_int_equal(weft_match(ring, f->space, many, 0), 0);

	/* arrays that are not there, and such as nobody has */
	assert_int_equal(weft_put(ring, f->space, NULL, many, 1, NULL), -EINVAL);
	assert_int_equal(weft_get(ring, f->space, many, 1, NULL), -EINVAL);
	assert_int_equal(weft_match(ring, f->space, NULL, 1), -EINVAL);
	assert_int_equal(weft_drop(ring, f->space, NULL, 1), -EINVAL);
	assert_int_equal(weft_match(ring, f->space, many, 1u + INT_MAX), -EINVAL);
	assert_int_equal(weft_put(ring, NULL, NULL, NULL, 0, NULL), 0);
	assert_int_equal(weft_get(ring, NULL, NULL, 0, NULL), 0);

	/* one good, one bad: the good one is posted */
	two[1].op = WEFT_OP_NR;
	assert_int_equal(weft_submit(ring, two, 2), 1);
	assert_int_equal(weft_call(ring, &two[0], NULL), -EBUSY);
	wait_all(ring, cpl, 1);
	weft_ring_close(ring);
	weft_ring_close(NULL);
	free(many);
}

/* what is full says so, and goes on when completions are taken */
static void test_full(void **state)
{
	struct fixture *f = *state;
	const struct weft_ring_opts small = { .size = sizeof(small),
					      .depth = 4,
					      .arg_bytes = 4096 };
	struct weft_completion cpl[16];
	struct weft_key keys[100];
	struct weft_op ops[16] = { 0 };
	struct weft_ring *ring;
	unsigned i;
	int ret;

	make_keys(keys, 100);
	assert_int_equal(weft_ring_open(f->w, &small, &ring), 0);
	fake_node_fault(f->node, FAKE_HOLD);
	assert_int_equal(weft_submit(ring, ops, 16), 4);
	fake_node_await_taken(f->node, 4);
	/* the queue is empty again, but 8 operations are all that completions have room for */
	while ((ret = weft_submit(ring, ops, 16)) == -EAGAIN)
		assert_int_equal(weft_poll(ring, cpl, 1), 0);
	assert_int_equal(ret, 4);
	fake_node_await_taken(f->node, 8);
	assert_int_equal(weft_submit(ring, ops, 1), -EAGAIN);
	assert_int_equal(weft_poll(ring, cpl, 16), 0);
	weft_ring_close(ring);

	fake_node_fault(f->node, 0);
	assert_int_equal(weft_ring_open(f->w, &small, &ring), 0);
	for (i = 0; i < 16; i++)
		ops[i] = (struct weft_op){
			.op = WEFT_OP_MATCH, .nr = 100, .keys = keys, .space = f->space
		};
	/* 1600 bytes each, of 4096 */
	assert_int_equal(weft_submit(ring, ops, 16), 2);
	wait_all(ring, cpl, 2);
	assert_int_equal(weft_submit(ring, ops, 16), 2);
	wait_all(ring, cpl, 2);
	weft_ring_close(ring);
}

static void *submitter(void *arg)
{
	struct fixture *f = arg;
	struct weft_op ops[16] = { 0 };
	struct weft_completion cpl[16];
	struct weft_key keys[8];
	struct weft_ring *ring;
	unsigned i, round;

	make_keys(keys, 8);
	assert_int_equal(weft_ring_open(f->w, NULL, &ring), 0);
	for (round = 0; round < 300; round++) {
		for (i = 0; i < 16; i++)
			ops[i] = (struct weft_op){ .op = i & 1 ? WEFT_OP_NOP : WEFT_OP_MATCH,
						   .user_data = i,
						   .nr = 8,
						   .keys = keys,
						   .space = f->space };
		assert_int_equal(weft_submit(ring, ops, 16), 16);
		wait_all(ring, cpl, 16);
		for (i = 0; i < 16; i++)
			assert_int_equal(cpl[i].user_data, i);
	}
	weft_ring_close(ring);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[3];
	struct fixture *f = *state;
	char *text;
	unsigned i;

	for (i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, submitter, f), 0);
	for (i = 0; i < 10; i++) {
		assert_int_equal(weft_status_json(f->w, &text), 0);
		free(text);
		assert_int_equal(weft_attached(f->w), 1);
	}
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* ---- blocks ---- */

static void test_blocks(void **state)
{
	struct fixture *f = *state;
	enum { NR = 60 };
	struct weft_key keys[NR], none = key_of(1u << 20);
	static char in[NR][BLOCK], out[NR][BLOCK];
	const void *src[NR];
	void *dst[NR];
	struct weft_slot slots[NR];
	struct weft_stat st;
	uint32_t where[NR];
	const struct weft_op match = { .op = WEFT_OP_MATCH,
				       .flags = WEFT_F_WHERE,
				       .space = f->space,
				       .keys = keys,
				       .nr = NR,
				       .where = where };
	const struct weft_op stat = { .op = WEFT_OP_STAT, .stat = &st };
	uint64_t lease;
	unsigned i;

	make_keys(keys, NR);
	for (i = 0; i < NR; i++) {
		memset(in[i], (int)i + 1, BLOCK);
		src[i] = in[i];
		dst[i] = out[i];
	}
	assert_int_equal(weft_get(f->ring, f->space, keys, NR, dst), 0);
	assert_int_equal(weft_put(f->ring, f->space, NULL, keys, NR - 10, src), NR - 10);
	assert_int_equal(weft_put(f->ring, f->space, &keys[0], keys + 1, NR - 11, src + 1),
			 NR - 11);
	assert_int_equal(weft_match(f->ring, f->space, keys, NR), NR - 10);
	assert_int_equal(weft_get(f->ring, f->space, keys, NR, dst), NR - 10);
	assert_memory_equal(in, out, sizeof(in[0]) * (NR - 10));
	assert_int_equal(weft_call(f->ring, &match, NULL), NR - 10);
	assert_int_equal(where[NR - 11], WEFT_TIER_DRAM);
	assert_int_equal(where[NR - 10], WEFT_TIER_NONE);
	assert_int_equal(weft_call(f->ring, &stat, NULL), 0);
	assert_int_equal(st.arena_bytes, FAKE_ARENA_BYTES);

	assert_int_equal(weft_map(f->ring, f->space, keys, 3, slots, &lease), 3);
	assert_memory_equal((char *)weft_arena(f->w) + slots[2].off, in[2], BLOCK);
	assert_int_equal(weft_release(f->ring, lease), 3);
	assert_int_equal(weft_map(f->ring, f->space, &none, 1, slots, &lease), 0);
	assert_int_equal(weft_release(f->ring, lease), 0);
	assert_int_equal(weft_drop(f->ring, f->space, keys, NR), NR - 10);
	assert_int_equal(weft_match(f->ring, f->space, keys, NR), 0);

	/* a lease that ended meanwhile proves nothing */
	assert_int_equal(weft_put(f->ring, f->space, NULL, keys, 2, src), 2);
	fake_node_fault(f->node, FAKE_LEASE_ENDS);
	assert_int_equal(weft_get(f->ring, f->space, keys, 2, dst), 0);
	fake_node_fault(f->node, FAKE_WILD_SLOTS);
	assert_int_equal(weft_get(f->ring, f->space, keys, 2, dst), -EPROTO);
	assert_int_equal(weft_put(f->ring, f->space, NULL, keys + 5, 2, src), -EPROTO);
	fake_node_fault(f->node, 0);
}

/* more blocks than a round, and more than the pool has: what fits is in */
static void test_chunks(void **state)
{
	struct fixture *f = *state;
	struct weft_space_opts opts = geometry;
	enum { NR = 400 };
	struct weft_key *keys = calloc(NR, sizeof(*keys));
	const void **src = calloc(NR, sizeof(*src));
	void **dst = calloc(NR, sizeof(*dst));
	char *in = calloc(NR, 64), *out = calloc(NR, 64);
	struct weft_space *space;
	unsigned i;

	opts.block_bytes = 64;
	assert_int_equal(weft_space_open(f->w, &opts, &space), 0);
	make_keys(keys, NR);
	for (i = 0; i < NR; i++) {
		memset(in + i * 64, (int)i, 64);
		src[i] = in + i * 64;
		dst[i] = out + i * 64;
	}
	/* the pool has 256 slots */
	assert_int_equal(weft_put(f->ring, space, NULL, keys, 100, src), 100);
	assert_int_equal(weft_put(f->ring, space, &keys[99], keys + 100, 300, src + 100), 156);
	assert_int_equal(weft_put(f->ring, space, NULL, keys + 300, 1, src), -ENOSPC);
	assert_int_equal(weft_get(f->ring, space, keys, NR, dst), 256);
	assert_memory_equal(in, out, 256 * 64);
	weft_space_close(space);
	free(keys);
	free(src);
	free(dst);
	free(in);
	free(out);
}

/* ---- regions ---- */

static int region_fd(size_t len, unsigned flags)
{
	int fd = memfd_create("region", MFD_CLOEXEC | flags);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	return fd;
}

static void put_and_get_by_copy(struct fixture *f, char *mem, uint32_t region, uint64_t nr)
{
	struct weft_key key = key_of(nr);
	struct weft_place from = { .off = BLOCK, .region = region };
	struct weft_place to = { .off = 3 * BLOCK, .region = region };
	struct weft_completion cpl;
	int32_t result = 1;
	struct weft_op op = { .op = WEFT_OP_PUT,
			      .flags = WEFT_F_COPY,
			      .space = f->space,
			      .keys = &key,
			      .places = &from,
			      .nr = 1,
			      .results = &result };

	memset(mem + BLOCK, (int)nr, BLOCK);
	assert_int_equal(weft_call(f->ring, &op, &cpl), 1);
	assert_int_equal(result, 0);
	op = (struct weft_op){ .op = WEFT_OP_GET,
			       .space = f->space,
			       .keys = &key,
			       .places = &to,
			       .nr = 1,
			       .results = &result };
	assert_int_equal(weft_call(f->ring, &op, &cpl), 1);
	assert_memory_equal(mem + BLOCK, mem + 3 * BLOCK, BLOCK);
}

static void test_regions(void **state)
{
	struct fixture *f = *state;
	struct weft_region_opts opts = { .size = sizeof(opts), .len = 4 * BLOCK, .fd = -1 };
	char *private = calloc(4, BLOCK), *shared;
	uint32_t a, b, none = 99;
	int fd = region_fd(4 * BLOCK, MFD_ALLOW_SEALING);
	int stiff = region_fd(4 * BLOCK, 0);
	int pipes[2];

	shared = mmap(NULL, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(weft_region_reg(f->w, NULL, &none), -EINVAL);
	assert_int_equal(weft_region_reg(f->w, &opts, &none), -EINVAL); /* no address */
	opts.addr = private;
	assert_int_equal(weft_region_reg(f->w, &opts, &a), 0);
	assert_int_not_equal(a, WEFT_REGION_ARENA);
	opts = (struct weft_region_opts){
		.size = sizeof(opts), .addr = shared, .len = 4 * BLOCK, .fd = fd
	};
	assert_int_equal(weft_region_reg(f->w, &opts, &b), 0);
	assert_int_equal(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW),
			 F_SEAL_SHRINK | F_SEAL_GROW);
	put_and_get_by_copy(f, private, a, 1);
	put_and_get_by_copy(f, shared, b, 2);

	opts.len++;
	assert_int_equal(weft_region_reg(f->w, &opts, &none), -EINVAL);
	opts.fd_off = UINT64_MAX;
	assert_int_equal(weft_region_reg(f->w, &opts, &none), -EINVAL);
	opts.fd_off = 0;
	opts.len = 0;
	assert_int_equal(weft_region_reg(f->w, &opts, &none), -EINVAL);
	opts.len = BLOCK;
	opts.fd = stiff;
	assert_int_equal(weft_region_reg(f->w, &opts, &none), -EINVAL);
	assert_non_null(strstr(weft_why(), "MFD_ALLOW_SEALING"));
	assert_int_equal(pipe(pipes), 0);
	opts.fd = pipes[0];
	assert_int_equal(weft_region_reg(f->w, &opts, &none), -EINVAL);
	assert_int_equal(none, 99);

	assert_int_equal(weft_region_dereg(f->w, a), 0);
	assert_int_equal(weft_region_dereg(f->w, a), -ENOENT);
	assert_int_equal(weft_region_dereg(f->w, WEFT_REGION_ARENA), -ENOENT);
	close(pipes[0]);
	close(pipes[1]);
	close(stiff);
	close(fd);
	munmap(shared, 4 * BLOCK);
	free(private);
}

/* ---- handoffs ---- */

static void test_expect(void **state)
{
	struct fixture *f = *state;
	struct weft_key keys[5];
	struct weft_slot slots[5] = { 0 };
	struct weft_ticket ticket = { 0 };
	struct weft_completion cpl[4];
	const struct weft_op op = { .op = WEFT_OP_HANDOFF_EXPECT,
				    .user_data = 42,
				    .space = f->space,
				    .keys = keys,
				    .nr = 5,
				    .slots = slots,
				    .ticket = &ticket,
				    .nr_layers = 4 };

	make_keys(keys, 5);
	assert_int_equal(weft_submit(f->ring, &op, 1), 1);
	wait_all(f->ring, cpl, 1);
	assert_int_equal(cpl[0].flags, WEFT_CQE_MORE | WEFT_CQE_TICKET);
	assert_int_equal(cpl[0].user_data, 42);
	assert_int_equal(cpl[0].handle, 77);
	assert_int_equal(ticket.node, 5);
	assert_int_equal(ticket.nr_blocks, 5);
	assert_int_equal(ticket.nr_layers, 4);
	wait_all(f->ring, cpl + 1, 3);
	assert_int_equal(cpl[1].flags, WEFT_CQE_MORE);
	assert_int_equal(cpl[1].layer, 3);
	assert_int_equal(cpl[1].nr_layers, 2);
	assert_int_equal(cpl[1].first_block, 0);
	assert_int_equal(cpl[1].nr_blocks, 2);
	assert_int_equal(cpl[2].first_block, 2);
	assert_int_equal(cpl[2].nr_blocks, 3);
	assert_int_equal(cpl[3].flags, 0);
	assert_int_equal(cpl[3].res, 5);
	assert_int_equal(slots[4].off, 4 * BLOCK);
}

/* ---- the node's end ---- */

static void kill_node(struct fixture *f)
{
	fake_node_stop(f->node);
	f->node = NULL;
}

static void test_node_dies(void **state)
{
	struct fixture *f = *state;
	struct weft_op ops[8] = { 0 };
	struct weft_completion cpl[8];
	struct weft_key keys[8];
	int32_t results[8] = { 0 };
	uint64_t started;
	char *text;
	unsigned i;

	make_keys(keys, 8);
	for (i = 0; i < 7; i++)
		ops[i].user_data = i;
	ops[7] = (struct weft_op){ .op = WEFT_OP_DROP,
				   .user_data = 7,
				   .nr = 8,
				   .keys = keys,
				   .space = f->space,
				   .results = results };
	fake_node_fault(f->node, FAKE_HOLD);
	assert_int_equal(weft_submit(f->ring, ops, 8), 8);
	kill_node(f);
	started = now_ms();
	wait_all(f->ring, cpl, 8);
	assert_true(now_ms() - started < 1000);
	for (i = 0; i < 8; i++) {
		assert_int_equal(cpl[i].res, -ECONNRESET);
		assert_int_equal(cpl[i].user_data, i);
		assert_int_equal(results[i], -ECONNRESET);
	}
	assert_int_equal(weft_attached(f->w), 0);
	assert_int_equal(weft_submit(f->ring, ops, 1), -ECONNRESET);
	assert_int_equal(weft_poll(f->ring, cpl, 8), 0);
	assert_int_equal(weft_wait(f->ring, cpl, 8, 0), -ECONNRESET);
	assert_int_equal(weft_status_json(f->w, &text), -ECONNRESET);
	assert_int_equal(weft_call(f->ring, ops, NULL), -ECONNRESET);
	assert_int_equal(weft_reattach(f->w), -ENOENT);
	assert_int_equal(weft_reattach(f->w), -ENOENT);
	assert_non_null(weft_arena(f->w));
}

/* who only polls learns of it too */
static void test_node_dies_polling(void **state)
{
	struct fixture *f = *state;
	const struct weft_op nop = { 0 };
	struct weft_completion cpl;

	fake_node_fault(f->node, FAKE_HOLD);
	assert_int_equal(weft_submit(f->ring, &nop, 1), 1);
	kill_node(f);
	while (!weft_poll(f->ring, &cpl, 1))
		;
	assert_int_equal(cpl.res, -ECONNRESET);
	assert_int_equal(weft_attached(f->w), 0);
}

static void test_reattach(void **state)
{
	struct fixture *f = *state;
	struct weft_region_opts opts = { .size = sizeof(opts), .len = 4 * BLOCK, .fd = -1 };
	char *mem = calloc(4, BLOCK), *other = calloc(4, BLOCK);
	struct weft_key key = key_of(5);
	struct weft_place place = { 0 };
	int32_t result = 0;
	const struct weft_op get = { .op = WEFT_OP_GET,
				     .space = f->space,
				     .keys = &key,
				     .places = &place,
				     .nr = 1,
				     .results = &result };
	struct weft_op ops[3] = { { .user_data = 1 }, { .user_data = 2 }, { .user_data = 3 } };
	struct weft_completion cpl[4];
	void *arena = weft_arena(f->w);
	uint32_t region, second;

	opts.addr = mem;
	assert_int_equal(weft_region_reg(f->w, &opts, &region), 0);
	place.region = region;
	put_and_get_by_copy(f, mem, region, 1);
	fake_node_fault(f->node, FAKE_HOLD);
	assert_int_equal(weft_submit(f->ring, ops, 3), 3);
	kill_node(f);
	f->node = fake_node_start(f->path);
	fake_node_fault(f->node, FAKE_OTHER_REGIONS);
	assert_int_equal(weft_reattach(f->w), 0);
	assert_int_equal(weft_attached(f->w), 1);
	assert_ptr_not_equal(weft_arena(f->w), arena);
	*(volatile char *)arena = 1; /* still mapped */

	/* what was open is completed; the old number names the old region */
	assert_int_equal(weft_call(f->ring, ops, NULL), -EBUSY);
	wait_all(f->ring, cpl, 3);
	assert_int_equal(cpl[2].res, -ECONNRESET);
	put_and_get_by_copy(f, mem, region, 2);
	opts.addr = other;
	assert_int_equal(weft_region_reg(f->w, &opts, &second), 0);
	assert_int_not_equal(second, region);
	put_and_get_by_copy(f, other, second, 3);
	put_and_get_by_copy(f, mem, region, 4);
	assert_int_equal(weft_region_dereg(f->w, region), 0);
	put_and_get_by_copy(f, other, second, 5);
	/* a number that was given back is no arena */
	assert_int_equal(weft_call(f->ring, &get, NULL), 0);
	assert_int_equal(result, -EINVAL);
	/* while attached, it is nothing */
	assert_int_equal(weft_reattach(f->w), 0);
	weft_close(f->w);
	f->w = NULL;
	free(mem);
	free(other);
}

/* the blocking calls go on by themselves when there is one ring */
static void test_reattach_by_itself(void **state)
{
	struct fixture *f = *state;
	const struct weft_op nop = { 0 };
	struct weft_key key = key_of(1);
	char block[BLOCK] = "x";
	const void *src = block;
	void *dst = block;
	struct weft_ring *second;
	struct weft_completion cpl;

	assert_int_equal(weft_put(f->ring, f->space, NULL, &key, 1, &src), 1);
	kill_node(f);
	f->node = fake_node_start(f->path);
	assert_int_equal(weft_get(f->ring, f->space, &key, 1, &dst), 0);
	kill_node(f);
	f->node = fake_node_start(f->path);
	assert_int_equal(weft_put(f->ring, f->space, NULL, &key, 1, &src), 1);
	kill_node(f);
	f->node = fake_node_start(f->path);
	assert_int_equal(weft_release(f->ring, 1), 0);
	assert_int_equal(weft_match(f->ring, f->space, &key, 1), 0);

	assert_int_equal(weft_ring_open(f->w, NULL, &second), 0);
	kill_node(f);
	f->node = fake_node_start(f->path);
	assert_int_equal(weft_put(f->ring, f->space, NULL, &key, 1, &src), -ECONNRESET);
	assert_int_equal(weft_reattach(f->w), 0);
	assert_int_equal(weft_put(f->ring, f->space, NULL, &key, 1, &src), 1);
	assert_int_equal(weft_call(second, &nop, &cpl), 0);
}

static void test_other_salt(void **state)
{
	struct fixture *f = *state;
	struct weft_completion cpl;

	kill_node(f);
	assert_int_equal(weft_poll(f->ring, &cpl, 1), 0);
	f->node = fake_node_start(f->path);
	fake_node_fault(f->node, FAKE_OTHER_SALT);
	assert_int_equal(weft_reattach(f->w), -EPROTO);
	assert_non_null(strstr(weft_why(), "salt"));
	assert_int_equal(weft_attached(f->w), 0);
	fake_node_fault(f->node, 0);
	assert_int_equal(weft_reattach(f->w), 0);
}

static void test_garbage(void **state)
{
	struct fixture *f = *state;
	const struct weft_op nop = { .user_data = 8 };
	struct weft_completion cpl;

	fake_node_fault(f->node, FAKE_GARBAGE);
	assert_int_equal(weft_submit(f->ring, &nop, 1), 1);
	wait_all(f->ring, &cpl, 1);
	assert_int_equal(cpl.res, -ECONNRESET);
	assert_int_equal(cpl.user_data, 8);
	assert_int_equal(weft_attached(f->w), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_attach),
		cmocka_unit_test(test_paths),
		TEST(test_bad_answers),
		TEST(test_control),
		TEST(test_space_options),
		TEST(test_nops),
		TEST(test_wake),
		cmocka_unit_test(test_whys),
		TEST(test_malformed),
		TEST(test_full),
		TEST(test_threads),
		TEST(test_blocks),
		TEST(test_chunks),
		TEST(test_regions),
		TEST(test_expect),
		TEST(test_node_dies),
		TEST(test_node_dies_polling),
		TEST(test_reattach),
		TEST(test_reattach_by_itself),
		TEST(test_other_salt),
		TEST(test_garbage),
	};

	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
