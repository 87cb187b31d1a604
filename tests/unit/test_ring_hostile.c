/* SPDX-License-Identifier: Apache-2.0 */
/* rings whose other side breaks every rule: the node's side first, then the engine's */
#include <errno.h>
#include <fcntl.h>
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
#include <unistd.h>
#include <cmocka.h>
#include "fake_node.h"
#include "ring/client_priv.h"
#include "weft_internal/log.h"
#include "weft_internal/ring_server.h"

#define DEPTH 8u
#define ARGS 65536u

struct fixture {
	struct wfi_env env;
	struct wfi_ring *ring;
	char *seg;
	struct weft_ring_hdr hdr;
	struct weft_ring_line *engine, *node;
	struct weft_sqe *sq;
	char *arg;
};

static char last_log[512];

static void keep_line(void *ctx, enum wfi_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	snprintf(last_log, sizeof(last_log), "%s", text);
}

static int setup(void **state)
{
	const struct wfi_ring_opts opts = { .sq_depth = DEPTH, .arg_bytes = ARGS };
	struct fixture *f = calloc(1, sizeof(*f));

	last_log[0] = 0;
	wfi_log_set_sink(keep_line, NULL);
	if (wfi_env_real_init(&f->env) || wfi_ring_create(&f->env, &opts, &f->ring))
		return -1;
	f->seg = mmap(NULL, wfi_ring_len(f->ring), PROT_READ | PROT_WRITE, MAP_SHARED,
		      wfi_ring_fd(f->ring), 0);
	if (f->seg == MAP_FAILED)
		return -1;
	memcpy(&f->hdr, f->seg, sizeof(f->hdr));
	f->engine = (struct weft_ring_line *)(f->seg + WEFT_RING_ENGINE_OFF);
	f->node = (struct weft_ring_line *)(f->seg + WEFT_RING_NODE_OFF);
	f->sq = (struct weft_sqe *)(f->seg + f->hdr.sq_off);
	f->arg = f->seg + f->hdr.arg_off;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	munmap(f->seg, f->hdr.len);
	wfi_ring_destroy(f->ring);
	wfi_log_set_sink(NULL, NULL);
	free(f);
	return 0;
}

static int complete(struct wfi_ring *ring, uint8_t flags)
{
	const struct weft_cqe cqe = { .flags = flags };

	return wfi_ring_complete(ring, &cqe);
}

static uint64_t rnd(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state ^ *state >> 29;
}

/* ---- hostile engines ---- */

static void assert_broken(struct fixture *f)
{
	struct weft_sqe sqe[DEPTH];
	const uint32_t *futex;
	uint32_t val;

	assert_int_equal(wfi_ring_take(f->ring, sqe, DEPTH), -EPROTO);
	assert_int_equal(complete(f->ring, WEFT_CQE_MORE), -EPROTO);
	assert_int_equal(complete(f->ring, 0), -EPROTO);
	assert_true(wfi_ring_sleep(f->ring, &futex, &val));
	wfi_ring_flush(f->ring);
	wfi_ring_kick(f->ring);
	assert_non_null(strstr(last_log, "broke the protocol"));
}

/* two operations taken and completed, then the head says @head */
static void head_says(struct fixture *f, uint32_t head, bool ok)
{
	struct weft_sqe sqes[4 * DEPTH];

	f->sq[0].seq = 1;
	f->sq[1].seq = 2;
	assert_int_equal(wfi_ring_take(f->ring, sqes, 2), 2);
	assert_int_equal(complete(f->ring, 0), 0);
	assert_int_equal(complete(f->ring, 0), 0);
	f->engine->head = 1;
	assert_int_equal(wfi_ring_take(f->ring, sqes, 4 * DEPTH), 0);
	f->engine->head = head;
	assert_int_equal(wfi_ring_take(f->ring, sqes, 4 * DEPTH), ok ? 0 : -EPROTO);
	if (ok)
		return;
	f->engine->head = 1; /* too late */
	assert_broken(f);
}

static void test_head(void **state)
{
	static const struct {
		uint32_t head;
		bool ok;
	} cases[] = {
		{ 1, true },	     { 2, true },
		{ 0, false },	     { 3, false },
		{ 1u << 31, false }, { UINT32_MAX, false },
		{ 1 + 16, false },   { UINT32_MAX - 15, false },
	};
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(cases); i++) {
		if (i) {
			teardown(state);
			assert_int_equal(setup(state), 0);
		}
		head_says(*state, cases[i].head, cases[i].ok);
	}
}

static void test_sequence(void **state)
{
	static const uint32_t bad[] = { 2, 3, 1 + DEPTH, UINT32_MAX, 1u << 31, 1 - DEPTH + 1 };
	struct weft_sqe sqe;
	struct fixture *f;
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		if (i) {
			teardown(state);
			assert_int_equal(setup(state), 0);
		}
		f = *state;
		assert_int_equal(wfi_ring_take(f->ring, &sqe, 1), 0);
		f->sq[0].seq = bad[i];
		assert_int_equal(wfi_ring_take(f->ring, &sqe, 1), -EPROTO);
		f->sq[0].seq = 1;
		assert_broken(f);
	}
}

/* later entries first, and an entry taken back: only the order of positions counts */
static void test_out_of_order(void **state)
{
	struct fixture *f = *state;
	struct weft_sqe sqes[DEPTH];

	f->sq[1].seq = 2;
	f->sq[2].seq = 3;
	assert_int_equal(wfi_ring_take(f->ring, sqes, DEPTH), 0);
	f->sq[0].seq = 1;
	f->sq[2].seq = 0;
	assert_int_equal(wfi_ring_take(f->ring, sqes, DEPTH), 2);
	f->sq[0].seq = 1; /* again */
	assert_int_equal(wfi_ring_take(f->ring, sqes, DEPTH), 0);
	f->sq[2].seq = 1; /* of another position */
	assert_int_equal(wfi_ring_take(f->ring, sqes, DEPTH), -EPROTO);
}

/* every field random: taken as it is, for the node to check; nothing of it is believed here */
static void test_random_entries(void **state)
{
	struct fixture *f = *state;
	uint64_t seed = 3;
	uint32_t pos;

	for (pos = 0; pos < 10000; pos++) {
		struct weft_sqe *sqe = &f->sq[pos % DEPTH], want, got;
		uint64_t *word = (uint64_t *)&want;
		unsigned i;

		for (i = 0; i < sizeof(want) / sizeof(*word); i++)
			word[i] = rnd(&seed);
		want.seq = pos + 1;
		memcpy(sqe, &want, sizeof(want));
		assert_int_equal(wfi_ring_take(f->ring, &got, 1), 1);
		memset(sqe, 0xff, sizeof(*sqe)); /* what changes now changes nothing */
		assert_memory_equal(&got, &want, sizeof(got));
		assert_int_equal(wfi_ring_args_ok(f->ring, got.arg_off, got.handle),
				 got.arg_off <= ARGS && got.handle <= ARGS - got.arg_off);
		sqe->seq = pos + 1;
		assert_int_equal(complete(f->ring, 0), 0);
		f->engine->head = pos + 1;
		wfi_ring_flush(f->ring);
	}
}

/* what the engine writes into the node's own line, and into the header, is its own loss */
static void test_other_lines(void **state)
{
	struct fixture *f = *state;
	struct weft_sqe sqe;
	const uint32_t *futex;
	uint32_t val, pos;

	memset(f->seg, 0xff, sizeof(f->hdr));
	for (pos = 0; pos < 100; pos++) {
		memset(f->node, (int)pos, sizeof(*f->node));
		f->engine->sleeping = pos;
		f->engine->bell = pos * 7;
		f->sq[pos % DEPTH].seq = pos + 1;
		assert_int_equal(wfi_ring_take(f->ring, &sqe, 1), 1);
		assert_int_equal(complete(f->ring, 0), 0);
		wfi_ring_flush(f->ring);
		f->engine->head = pos + 1;
		assert_false(wfi_ring_sleep(f->ring, &futex, &val));
		wfi_ring_awake(f->ring);
	}
}

/* pages taken out of the segment, the fd closed, the mapping gone */
static void test_segment_goes(void **state)
{
	struct fixture *f = *state;
	int fd = fcntl(wfi_ring_fd(f->ring), F_DUPFD_CLOEXEC, 3);
	struct weft_sqe sqe;
	char buf[16];

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)f->hdr.len), 0);
	close(fd);
	munmap(f->seg, f->hdr.len);
	f->seg = mmap(NULL, f->hdr.len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(wfi_ring_take(f->ring, &sqe, 1), 0);
	assert_int_equal(complete(f->ring, WEFT_CQE_MORE), 0);
	assert_int_equal(wfi_ring_args_write(f->ring, ARGS - 16, "0123456789abcdef", 16), 0);
	assert_int_equal(wfi_ring_args_read(f->ring, ARGS - 16, buf, 16), 0);
	assert_memory_equal(buf, "0123456789abcdef", 16);
	wfi_ring_flush(f->ring);
}

/* ---- an engine that writes while the node reads ---- */

struct scribbler {
	struct fixture *f;
	uint32_t stop; /* atomic */
	uint64_t rounds; /* atomic */
};

static void *scribble_args(void *arg)
{
	struct scribbler *s = arg;
	unsigned i = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		memset(s->f->arg, i & 1 ? 0xff : 0, 4096);
		__atomic_store_n(&s->rounds, ++i, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *scribble_all(void *arg)
{
	struct scribbler *s = arg;
	uint64_t seed = 11, i = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		uint64_t off = rnd(&seed) % s->f->hdr.arg_off & ~3ull;
		uint32_t v = (uint32_t)rnd(&seed) & (rnd(&seed) & 1 ? 31 : UINT32_MAX);

		__atomic_store_n((uint32_t *)(s->f->seg + off), v, __ATOMIC_RELAXED);
		__atomic_store_n(&s->rounds, ++i, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void await_rounds(struct scribbler *s, uint64_t nr)
{
	while (__atomic_load_n(&s->rounds, __ATOMIC_ACQUIRE) < nr)
		sched_yield();
}

static void test_arguments_change(void **state)
{
	struct scribbler s = { .f = *state };
	static char buf[4096], again[4096];
	pthread_t thread;
	unsigned i;

	assert_int_equal(pthread_create(&thread, NULL, scribble_args, &s), 0);
	for (i = 0; i < 2000; i++) {
		await_rounds(&s, i / 10);
		assert_int_equal(wfi_ring_args_read(s.f->ring, 0, buf, sizeof(buf)), 0);
		memcpy(again, buf, sizeof(buf));
		await_rounds(&s, i / 10 + 1);
		assert_memory_equal(buf, again, sizeof(buf));
	}
	__atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

static void test_scribbler(void **state)
{
	struct scribbler s = { .f = *state };
	unsigned i, open = 0, ended = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, scribble_all, &s), 0);
	for (i = 0; i < 200; i++) {
		struct weft_sqe sqes[DEPTH];
		const uint32_t *futex;
		uint32_t val;
		int nr;

		await_rounds(&s, i * 50);
		nr = wfi_ring_take(s.f->ring, sqes, DEPTH);
		if (nr < 0) {
			assert_int_equal(nr, -EPROTO);
			ended++;
			continue;
		}
		open += (unsigned)nr;
		assert_true(open <= 2 * DEPTH);
		while (open && !complete(s.f->ring, 0))
			open--;
		wfi_ring_flush(s.f->ring);
		if (!wfi_ring_sleep(s.f->ring, &futex, &val))
			wfi_ring_awake(s.f->ring);
	}
	__atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_true(ended > 0);
}

/* ---- hostile nodes ---- */

static int attach(const char *path, struct weft **w)
{
	struct wfi_connector *c;
	int ret = wfi_connector_unix(path, &c);

	return ret < 0 ? ret : wfi_client_attach(NULL, c, w);
}

/* a completion as a broken node would write it: right in place, wrong in something */
static void forge(struct weft_ring *ring, uint64_t *seed)
{
	uint64_t *entry = (uint64_t *)ring->cq + (size_t)(ring->cq_pos & ring->cq_mask) * 4;
	bool near = rnd(seed) & 1;

	entry[1] = near ? (rnd(seed) % 3) << 32 | rnd(seed) % 600 : rnd(seed);
	entry[2] = rnd(seed);
	entry[3] = near ? (rnd(seed) % 6) << 32 | rnd(seed) % 6 : rnd(seed);
	__atomic_store_n(entry,
			 (uint64_t)(uint32_t)(rnd(seed) % 40 - 20) << 32 | (ring->cq_pos + 1),
			 __ATOMIC_RELEASE);
}

/* whatever the node writes: each operation completes once, in bounds, and the session may end */
static void test_forged_completions(void **state)
{
	char dir[] = "/tmp/weft-test-XXXXXX", path[64];
	const struct weft_space_opts geometry = {
		.size = sizeof(geometry), .block_bytes = 1024, .model = "m", .tokens_per_block = 1
	};
	struct weft_key keys[4] = { { 1, 1 }, { 2, 2 }, { 3, 3 }, { 4, 4 } };
	struct weft_slot slots[4];
	struct weft_ticket ticket;
	struct weft_completion cpl[8];
	struct weft_space *space;
	struct fake_node *node;
	struct weft_ring *ring;
	struct weft *w;
	uint64_t seed = 5;
	unsigned i, ended = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	node = fake_node_start(path);
	fake_node_fault(node, FAKE_HOLD);
	assert_int_equal(attach(path, &w), 0);
	assert_int_equal(weft_space_open(w, &geometry, &space), 0);
	assert_int_equal(weft_ring_open(w, NULL, &ring), 0);
	for (i = 0; i < 500; i++) {
		const struct weft_op ops[2] = {
			{
				.op = WEFT_OP_MAP,
				.space = space,
				.keys = keys,
				.nr = 4,
				.slots = slots,
			},
			{ .op = WEFT_OP_HANDOFF_EXPECT,
			  .space = space,
			  .keys = keys,
			  .nr = 4,
			  .slots = slots,
			  .ticket = &ticket,
			  .nr_layers = 1 },
		};
		int nr, k, finals = 0;

		assert_int_equal(weft_submit(ring, ops, 2), 2);
		while (finals < 2) {
			if (weft_attached(w))
				forge(ring, &seed);
			nr = weft_poll(ring, cpl, 8);
			for (k = 0; k < nr; k++)
				finals += !(cpl[k].flags & WEFT_CQE_MORE);
		}
		assert_int_equal(finals, 2);
		assert_int_equal(ring->nr_open, 0);
		ended += !weft_attached(w);
		assert_int_equal(weft_reattach(w), 0);
	}
	assert_true(ended > 0);
	weft_close(w);
	fake_node_stop(node);
	rmdir(dir);
}

/* the node's head runs ahead of what was submitted, or back */
static void test_forged_head(void **state)
{
	char dir[] = "/tmp/weft-test-XXXXXX", path[64];
	const struct weft_ring_opts small = { .size = sizeof(small),
					      .depth = 2,
					      .arg_bytes = 4096 };
	static const uint32_t heads[] = { 3, UINT32_MAX, 1u << 31 };
	const struct weft_op nops[3] = { 0 };
	struct weft_completion cpl[4];
	struct fake_node *node;
	struct weft_ring *ring;
	struct weft *w;
	unsigned i;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	node = fake_node_start(path);
	fake_node_fault(node, FAKE_HOLD);
	assert_int_equal(attach(path, &w), 0);
	assert_int_equal(weft_ring_open(w, &small, &ring), 0);
	for (i = 0; i < WFI_ARRAY_SIZE(heads); i++) {
		assert_int_equal(weft_submit(ring, nops, 2), 2);
		fake_node_await_sleep(node); /* it has shown its head, and writes no more */
		((struct weft_ring_line *)ring->node)->head = heads[i];
		assert_int_equal(weft_submit(ring, nops, 1), -ECONNRESET);
		assert_int_equal(weft_attached(w), 0);
		assert_int_equal(weft_poll(ring, cpl, 4), 2);
		assert_int_equal(cpl[1].res, -ECONNRESET);
		assert_int_equal(weft_reattach(w), 0);
	}
	weft_close(w);
	fake_node_stop(node);
	rmdir(dir);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_head),
		TEST(test_sequence),
		TEST(test_out_of_order),
		TEST(test_random_entries),
		TEST(test_other_lines),
		TEST(test_segment_goes),
		TEST(test_arguments_change),
		TEST(test_scribbler),
		cmocka_unit_test(test_forged_completions),
		cmocka_unit_test(test_forged_head),
	};

	return cmocka_run_group_tests_name("ring_hostile", tests, NULL, NULL);
}
