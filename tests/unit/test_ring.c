/* SPDX-License-Identifier: Apache-2.0 */
/* the node's side of a ring against an engine made of weft/ring.h alone, and what both sides use */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include "ring/args.h"
#include "ring/bell.h"
#include "weft_internal/ctl.h"
#include "weft_internal/ring_server.h"
#include "weft_internal/util.h"

#define DEPTH 8u
#define ARGS 8192u

/* an engine that knows only the ABI */
struct engine {
	struct weft_ring_hdr hdr;
	struct weft_ring_line *own, *node;
	struct weft_sqe *sq;
	struct weft_cqe *cq;
	char *arg;
	uint32_t sq_pos, cq_pos;
	void *map;
};

static struct wfi_env env;

static int setup(void **state)
{
	(void)state;
	return wfi_env_real_init(&env);
}

static void engine_map(struct engine *e, const struct wfi_ring *ring)
{
	char *base = mmap(NULL, wfi_ring_len(ring), PROT_READ | PROT_WRITE, MAP_SHARED,
			  wfi_ring_fd(ring), 0);

	assert_ptr_not_equal(base, MAP_FAILED);
	memset(e, 0, sizeof(*e));
	e->map = base;
	memcpy(&e->hdr, base, sizeof(e->hdr));
	e->own = (struct weft_ring_line *)(base + WEFT_RING_ENGINE_OFF);
	e->node = (struct weft_ring_line *)(base + WEFT_RING_NODE_OFF);
	e->sq = (struct weft_sqe *)(base + e->hdr.sq_off);
	e->cq = (struct weft_cqe *)(base + e->hdr.cq_off);
	e->arg = base + e->hdr.arg_off;
}

static void engine_unmap(struct engine *e)
{
	munmap(e->map, e->hdr.len);
}

static void engine_post(struct engine *e, uint64_t user_data)
{
	struct weft_sqe *sqe = &e->sq[e->sq_pos & (e->hdr.sq_depth - 1)];

	sqe->op = WEFT_OP_NOP;
	sqe->user_data = user_data;
	__atomic_store_n(&sqe->seq, ++e->sq_pos, __ATOMIC_RELEASE);
}

static bool engine_peek(struct engine *e)
{
	const struct weft_cqe *cqe = &e->cq[e->cq_pos & (e->hdr.cq_depth - 1)];

	return __atomic_load_n(&cqe->seq, __ATOMIC_ACQUIRE) == e->cq_pos + 1;
}

static bool engine_reap(struct engine *e, struct weft_cqe *out)
{
	if (!engine_peek(e))
		return false;
	*out = e->cq[e->cq_pos++ & (e->hdr.cq_depth - 1)];
	return true;
}

static void engine_show(struct engine *e)
{
	__atomic_store_n(&e->own->head, e->cq_pos, __ATOMIC_RELEASE);
}

static struct wfi_ring *ring_new(uint32_t sq, uint32_t cq, struct engine *e)
{
	const struct wfi_ring_opts opts = { .sq_depth = sq, .cq_depth = cq, .arg_bytes = ARGS };
	struct wfi_ring *ring;

	assert_int_equal(wfi_ring_create(&env, &opts, &ring), 0);
	engine_map(e, ring);
	return ring;
}

static int complete(struct wfi_ring *ring, uint64_t user_data, uint8_t flags)
{
	const struct weft_cqe cqe = { .user_data = user_data,
				      .res = -5,
				      .op = WEFT_OP_GET,
				      .flags = flags,
				      .layer = 0x1234,
				      .nr_layers = 0x5678,
				      .value = 0x1122334455667788 };

	return wfi_ring_complete(ring, &cqe);
}

/* ---- the server ---- */

static void test_geometry(void **state)
{
	static const struct wfi_ring_opts bad[] = {
		{ .sq_depth = 3 },
		{ .sq_depth = 2 * WEFT_RING_DEPTH_MAX },
		{ .sq_depth = 8, .cq_depth = 4 },
		{ .sq_depth = 8, .cq_depth = 24 },
		{ .sq_depth = 8, .cq_depth = 4 * WEFT_RING_DEPTH_MAX },
		{ .arg_bytes = 100 },
		{ .arg_bytes = WEFT_ARG_BYTES_MAX + 4096 },
	};
	struct wfi_ring *ring = NULL;
	struct engine e;
	unsigned i;
	int seals;

	(void)state;
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++)
		assert_int_equal(wfi_ring_create(&env, &bad[i], &ring), -EINVAL);
	assert_null(ring);

	assert_int_equal(wfi_ring_create(&env, NULL, &ring), 0);
	engine_map(&e, ring);
	assert_int_equal(e.hdr.magic, WEFT_RING_MAGIC);
	assert_int_equal(e.hdr.version, WEFT_ABI_VERSION);
	assert_int_equal(e.hdr.sq_depth, 256);
	assert_int_equal(e.hdr.cq_depth, 512);
	assert_int_equal(e.hdr.arg_bytes, 4u << 20);
	assert_int_equal(e.hdr.len, wfi_ring_len(ring));
	assert_true(e.hdr.cq_off >= e.hdr.sq_off + 256 * sizeof(struct weft_sqe));
	assert_true(e.hdr.arg_off >= e.hdr.cq_off + 512 * sizeof(struct weft_cqe));
	assert_int_equal(e.hdr.arg_off % 4096, 0);
	seals = fcntl(wfi_ring_fd(ring), F_GET_SEALS);
	assert_int_equal(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
			 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(ftruncate(wfi_ring_fd(ring), 0), -1);
	engine_unmap(&e);
	wfi_ring_destroy(ring);
	wfi_ring_destroy(NULL);
}

static void test_order(void **state)
{
	struct weft_sqe sqes[DEPTH];
	struct weft_cqe cqe;
	struct wfi_ring *ring;
	struct engine e;
	unsigned lap, i;

	(void)state;
	ring = ring_new(DEPTH, DEPTH, &e);
	assert_int_equal(wfi_ring_take(ring, sqes, DEPTH), 0);
	for (lap = 0; lap < 100; lap++) {
		for (i = 0; i < 5; i++)
			engine_post(&e, lap * 5 + i);
		assert_int_equal(wfi_ring_take(ring, sqes, 3), 3);
		assert_int_equal(wfi_ring_take(ring, sqes + 3, DEPTH - 3), 2);
		for (i = 0; i < 5; i++) {
			assert_int_equal(sqes[i].user_data, lap * 5 + i);
			assert_int_equal(complete(ring, sqes[i].user_data, 0), 0);
		}
		wfi_ring_flush(ring);
		/* at most a quarter of the queue was copied and is not shown */
		assert_true(e.sq_pos - e.node->head < DEPTH / 4);
		for (i = 0; i < 5; i++) {
			assert_true(engine_reap(&e, &cqe));
			assert_int_equal(cqe.user_data, lap * 5 + i);
			assert_int_equal(cqe.res, -5);
			assert_int_equal(cqe.op, WEFT_OP_GET);
			assert_int_equal(cqe.layer, 0x1234);
			assert_int_equal(cqe.nr_layers, 0x5678);
			assert_int_equal(cqe.reserved, 0);
			assert_int_equal(cqe.value, 0x1122334455667788);
		}
		assert_false(engine_peek(&e));
		engine_show(&e);
	}
	engine_unmap(&e);
	wfi_ring_destroy(ring);
}

/* what is taken has room for its completion, whatever events come between */
static void test_room(void **state)
{
	struct weft_sqe sqes[2 * DEPTH];
	struct weft_cqe cqe;
	struct wfi_ring *ring;
	const uint32_t *futex;
	struct engine e;
	uint32_t val;
	unsigned i;

	(void)state;
	ring = ring_new(DEPTH, DEPTH, &e);
	for (i = 0; i < DEPTH; i++)
		engine_post(&e, i);
	assert_int_equal(wfi_ring_take(ring, sqes, 5), 5);
	/* three are free: events may have them */
	for (i = 0; i < 3; i++)
		assert_int_equal(complete(ring, 100 + i, WEFT_CQE_MORE), 0);
	assert_int_equal(complete(ring, 103, WEFT_CQE_MORE), -EAGAIN);
	/* nothing more is taken, and the node may sleep on it */
	assert_int_equal(wfi_ring_take(ring, sqes + 5, DEPTH), 0);
	assert_false(wfi_ring_sleep(ring, &futex, &val));
	wfi_ring_awake(ring);
	for (i = 0; i < 5; i++)
		assert_int_equal(complete(ring, i, 0), 0);
	assert_int_equal(wfi_ring_take(ring, sqes + 5, DEPTH), 0);
	assert_true(engine_reap(&e, &cqe));
	assert_int_equal(cqe.user_data, 100);
	engine_show(&e);
	/* the event that was refused is a reason to stay awake, once */
	assert_true(wfi_ring_sleep(ring, &futex, &val));
	assert_int_equal(complete(ring, 103, WEFT_CQE_MORE), 0);
	while (engine_reap(&e, &cqe))
		;
	assert_int_equal(e.cq_pos, 9);
	assert_int_equal(wfi_ring_take(ring, sqes + 5, 2 * DEPTH), 0);
	engine_show(&e);
	assert_int_equal(wfi_ring_take(ring, sqes + 5, 2 * DEPTH - 5), 3);
	assert_int_equal(sqes[7].user_data, 7);
	engine_unmap(&e);
	wfi_ring_destroy(ring);
}

static void test_arguments(void **state)
{
	struct wfi_ring *ring;
	struct engine e;
	char buf[64];

	(void)state;
	ring = ring_new(DEPTH, DEPTH, &e);
	memcpy(e.arg + ARGS - 4, "abcd", 4);
	assert_int_equal(wfi_ring_args_read(ring, ARGS - 4, buf, 4), 0);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(wfi_ring_args_read(ring, ARGS - 3, buf, 4), -EFAULT);
	assert_int_equal(wfi_ring_args_read(ring, UINT64_MAX, buf, 1), -EFAULT);
	assert_int_equal(wfi_ring_args_read(ring, UINT64_MAX - 3, buf, 4), -EFAULT);
	assert_int_equal(wfi_ring_args_read(ring, 4, buf, UINT64_MAX), -EFAULT);
	assert_int_equal(wfi_ring_args_read(ring, ARGS, buf, 0), 0);
	assert_int_equal(wfi_ring_args_write(ring, 0, "xy", 2), 0);
	assert_memory_equal(e.arg, "xy", 2);
	assert_int_equal(wfi_ring_args_write(ring, ARGS - 1, "xy", 2), -EFAULT);
	assert_int_equal(wfi_ring_args_write(ring, UINT64_MAX, "xy", 2), -EFAULT);
	assert_true(wfi_ring_args_ok(ring, 0, ARGS));
	assert_false(wfi_ring_args_ok(ring, 1, ARGS));
	assert_false(wfi_ring_args_ok(ring, UINT64_MAX, UINT64_MAX));
	engine_unmap(&e);
	wfi_ring_destroy(ring);
}

static void test_sleep(void **state)
{
	const uint32_t *futex;
	struct weft_sqe sqe;
	struct wfi_ring *ring;
	struct engine e;
	uint32_t val, bell;

	(void)state;
	ring = ring_new(DEPTH, DEPTH, &e);
	assert_false(wfi_ring_sleep(ring, &futex, &val));
	assert_int_equal(e.node->sleeping, 1);
	assert_int_equal(*futex, val);
	e.own->bell++; /* the engine rings: the sleeper would not sleep */
	assert_int_not_equal(*futex, val);
	wfi_ring_awake(ring);
	assert_int_equal(e.node->sleeping, 0);

	engine_post(&e, 1);
	assert_true(wfi_ring_sleep(ring, &futex, &val));
	assert_int_equal(e.node->sleeping, 0);
	assert_int_equal(wfi_ring_take(ring, &sqe, 1), 1);
	assert_false(wfi_ring_sleep(ring, &futex, &val));
	assert_int_equal(e.node->head, 1); /* shown before sleeping */
	wfi_ring_awake(ring);

	/* nobody sleeps: no bell. Somebody does: one */
	bell = e.node->bell;
	assert_int_equal(complete(ring, 1, 0), 0);
	wfi_ring_flush(ring);
	assert_int_equal(e.node->bell, bell);
	engine_post(&e, 2);
	assert_int_equal(wfi_ring_take(ring, &sqe, 1), 1);
	e.own->sleeping = 1;
	assert_int_equal(complete(ring, 2, 0), 0);
	wfi_ring_flush(ring);
	wfi_ring_flush(ring);
	assert_int_equal(e.node->bell, bell + 1);
	wfi_ring_kick(ring);
	assert_int_equal(e.node->bell, bell + 2);
	engine_unmap(&e);
	wfi_ring_destroy(ring);
}

/* ---- two threads, both of which sleep ---- */

#define ROUNDS 20000u

static void futex_wait(const uint32_t *addr, uint32_t val)
{
	syscall(SYS_futex, addr, FUTEX_WAIT, val, NULL, NULL, 0);
}

static void *node_main(void *arg)
{
	struct wfi_ring *ring = arg;
	unsigned done = 0;

	while (done < ROUNDS) {
		struct weft_sqe sqes[4];
		const uint32_t *futex;
		int nr = wfi_ring_take(ring, sqes, 4), i;
		uint32_t val;

		assert_true(nr >= 0);
		for (i = 0; i < nr; i++)
			assert_int_equal(complete(ring, sqes[i].user_data, 0), 0);
		wfi_ring_flush(ring);
		done += (unsigned)nr;
		if (nr || done == ROUNDS || wfi_ring_sleep(ring, &futex, &val))
			continue;
		futex_wait(futex, val);
		wfi_ring_awake(ring);
	}
	return NULL;
}

static void bell_after(struct engine *e)
{
	wfi_bell_fence();
	if (!__atomic_load_n(&e->node->sleeping, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&e->own->bell, e->own->bell + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &e->own->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void engine_sleep(struct engine *e)
{
	uint32_t bell = __atomic_load_n(&e->node->bell, __ATOMIC_ACQUIRE);

	engine_show(e);
	__atomic_store_n(&e->own->sleeping, 1, __ATOMIC_RELAXED);
	bell_after(e);
	if (!engine_peek(e))
		futex_wait(&e->node->bell, bell);
	__atomic_store_n(&e->own->sleeping, 0, __ATOMIC_RELAXED);
}

static void test_two_threads(void **state)
{
	struct weft_cqe cqe;
	struct wfi_ring *ring;
	struct engine e;
	pthread_t node;
	uint64_t posted = 0, reaped = 0;

	(void)state;
	ring = ring_new(DEPTH, DEPTH, &e);
	assert_int_equal(pthread_create(&node, NULL, node_main, ring), 0);
	while (reaped < ROUNDS) {
		while (posted < ROUNDS && posted - reaped < DEPTH - 1 &&
		       e.sq_pos - __atomic_load_n(&e.node->head, __ATOMIC_ACQUIRE) < DEPTH)
			engine_post(&e, posted++);
		bell_after(&e);
		if (!engine_peek(&e))
			engine_sleep(&e);
		while (engine_reap(&e, &cqe))
			assert_int_equal(cqe.user_data, reaped++);
		engine_show(&e);
		bell_after(&e);
	}
	pthread_join(node, NULL);
	engine_unmap(&e);
	wfi_ring_destroy(ring);
}

/* ---- the client's argument allocator ---- */

#define AREA (100u * 4096u) /* no power of two */

struct piece {
	uint32_t off, len;
	uint8_t cls;
};

static void area_mark(uint8_t *used, const struct piece *p, uint8_t from, uint8_t to)
{
	uint32_t i;

	for (i = 0; i < 64u << p->cls; i++) {
		assert_int_equal(used[p->off + i], from);
		used[p->off + i] = to;
	}
}

static void test_allocator(void **state)
{
	struct piece live[256];
	unsigned nr = 0, i, refused = 0;
	uint8_t *used = calloc(AREA, 1);
	struct wfi_args args;
	uint64_t rnd = 7;

	(void)state;
	assert_int_equal(wfi_args_init(&args, AREA), 0);
	assert_int_equal(wfi_args_max(&args), 64u * 4096u);
	for (i = 0; i < 200000; i++) {
		struct piece p;

		rnd = rnd * 6364136223846793005u + 1442695040888963407u;
		if (nr == 256 || (nr && rnd >> 63)) {
			unsigned k = (unsigned)(rnd >> 32) % nr;

			area_mark(used, &live[k], 1, 0);
			wfi_args_put(&args, live[k].off, live[k].cls);
			live[k] = live[--nr];
			continue;
		}
		p.len = 1 + (uint32_t)(rnd >> 40) % (1u << ((rnd >> 16) % 17));
		if (wfi_args_get(&args, p.len, &p.off, &p.cls)) {
			refused++;
			continue;
		}
		assert_true(p.len <= 64u << p.cls);
		assert_true(p.off + (64u << p.cls) <= AREA);
		assert_int_equal(p.off % (64u << p.cls), 0);
		area_mark(used, &p, 0, 1);
		live[nr++] = p;
	}
	assert_true(refused > 0);
	/* all of it comes together again */
	while (nr--)
		wfi_args_put(&args, live[nr].off, live[nr].cls);
	assert_int_equal(wfi_args_get(&args, wfi_args_max(&args), &live[0].off, &live[0].cls), 0);
	assert_int_equal(wfi_args_get(&args, wfi_args_max(&args), &live[1].off, &live[1].cls),
			 -EAGAIN);
	wfi_args_reset(&args);
	assert_int_equal(wfi_args_get(&args, wfi_args_max(&args), &live[0].off, &live[0].cls), 0);
	wfi_args_fini(&args);
	free(used);
}

/* ---- control messages ---- */

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned nr = 0;

	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

static void test_ctl(void **state)
{
	int sk[2], fds[WFI_CTL_FDS_MAX], sent[3] = { 0, 1, 2 };
	char buf[16];
	unsigned nr = 9, before, i;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sk), 0);
	before = count_fds();
	assert_int_equal(wfi_ctl_recv(sk[1], buf, sizeof(buf), NULL, 0, NULL), -EAGAIN);

	assert_int_equal(wfi_ctl_send(sk[0], "hello", 5, sent, 2), 0);
	assert_int_equal(wfi_ctl_recv(sk[1], buf, sizeof(buf), fds, 2, &nr), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(nr, 2);
	for (i = 0; i < nr; i++) {
		assert_int_equal(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		close(fds[i]);
	}
	/* more descriptors than asked for, a message too long, or both: nothing stays open */
	assert_int_equal(wfi_ctl_send(sk[0], "hello", 5, sent, 3), 0);
	assert_int_equal(wfi_ctl_recv(sk[1], buf, sizeof(buf), fds, 2, &nr), -EPROTO);
	assert_int_equal(wfi_ctl_send(sk[0], "hello", 5, sent, 1), 0);
	assert_int_equal(wfi_ctl_recv(sk[1], buf, sizeof(buf), NULL, 0, NULL), -EPROTO);
	assert_int_equal(wfi_ctl_send(sk[0], "hello", 5, sent, 1), 0);
	assert_int_equal(wfi_ctl_recv(sk[1], buf, 4, fds, 1, &nr), -EPROTO);
	assert_int_equal(count_fds(), before);

	assert_int_equal(wfi_ctl_send(sk[0], buf, 0, NULL, 0), -EINVAL);
	assert_int_equal(wfi_ctl_send(sk[0], "x", 1, sent, WFI_CTL_FDS_MAX + 1), -EINVAL);
	close(sk[0]);
	assert_int_equal(wfi_ctl_recv(sk[1], buf, sizeof(buf), NULL, 0, NULL), -ECONNRESET);
	assert_int_equal(wfi_ctl_send(sk[1], "x", 1, NULL, 0), -ECONNRESET);
	close(sk[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_geometry),  cmocka_unit_test(test_order),
		cmocka_unit_test(test_room),	  cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_sleep),	  cmocka_unit_test(test_two_threads),
		cmocka_unit_test(test_allocator), cmocka_unit_test(test_ctl),
	};

	return cmocka_run_group_tests_name("ring", tests, setup, NULL);
}
