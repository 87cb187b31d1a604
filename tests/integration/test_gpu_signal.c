/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gets that a stream of the engine's waits for, through a weftd: as in test_gpu_node.c the driver
 * is mocked. The engine's host does nothing between the submission and the end of its stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/integration/gpu.h"
#include "tests/integration/raw.h"
#include "weft_internal/gpu.h"

#define BLOCK 4096u
#define NR 16u
#define BYTES (NR * BLOCK)
#define MINUTE_US 60000000u

static const char *const sets[] = { "arena_bytes=64M", NULL };

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "gpu",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

/* an engine, its memory on the GPU, and a stream that copies from there to .result */
struct rig {
	struct test_engine e;
	char *mem;
	char *result;
	uint32_t region;
	struct CUstream_st *stream;
	struct CUevent_st *event;
};

static void rig_open(struct rig *r, const struct test_node *n)
{
	r->mem = test_gpu_alloc(BYTES);
	r->result = malloc(BYTES);
	assert_non_null(r->result);
	assert_int_equal(cuda->cuStreamCreate(&r->stream, WFI_CUDA_STREAM_NON_BLOCKING), 0);
	assert_int_equal(cuda->cuEventCreate(&r->event, WFI_CUDA_EVENT_NO_TIMING), 0);
	test_engine_open(&r->e, n, NULL, &geometry);
	assert_int_equal(test_gpu_reg(&r->e, r->mem, BYTES, &r->region), 0);
}

static void rig_close(struct rig *r)
{
	test_engine_close(&r->e);
	cuda->cuEventDestroy(r->event);
	cuda->cuStreamDestroy(r->stream);
	test_gpu_free(r->mem);
	free(r->result);
}

static void put(struct rig *r, uint64_t name)
{
	static char blocks[NR][BLOCK];
	struct weft_key keys[NR];
	const void *bufs[NR];

	test_keys(&r->e, name, NR, keys);
	for (unsigned i = 0; i < NR; i++) {
		test_fill(blocks[i], BLOCK, name + i);
		bufs[i] = blocks[i];
	}
	assert_int_equal(weft_put(r->e.ring, r->e.space, NULL, keys, NR, bufs), NR);
}

/* a get, and in the stream behind its end a copy of what it brings */
static void get_behind(struct rig *r, uint64_t name, uint32_t timeout_us)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	struct weft_signal signal = { 0 };
	const struct weft_op op = {
		.op = WEFT_OP_GET,
		.flags = WEFT_F_VERIFY | WEFT_F_SIGNAL,
		.nr = NR,
		.space = r->e.space,
		.keys = keys,
		.places = places,
		.timeout_us = timeout_us,
		.signal = &signal,
	};

	memset(r->mem, 0, BYTES);
	memset(r->result, 0xff, BYTES);
	test_keys(&r->e, name, NR, keys);
	for (unsigned i = 0; i < NR; i++)
		places[i] = (struct weft_place){ .off = i * BLOCK, .region = r->region };
	assert_int_equal(weft_submit(r->e.ring, &op, 1), 1);
	if (weft_signal_wait(r->e.ring, &signal, r->stream))
		fail_msg("%s", weft_why());
	assert_int_equal(
		cuda->cuMemcpyAsync((uintptr_t)r->result, (uintptr_t)r->mem, BYTES, r->stream), 0);
	assert_int_equal(cuda->cuEventRecord(r->event, r->stream), 0);
}

static bool stream_done(void *arg)
{
	const struct rig *r = arg;

	return !cuda->cuEventQuery(r->event);
}

static void expect_bytes(const struct rig *r, uint64_t name)
{
	for (unsigned i = 0; i < NR; i++)
		assert_true(test_filled(r->result + i * BLOCK, BLOCK, name + i));
}

static void expect_end(struct rig *r, int res)
{
	struct weft_completion done;

	test_next(r->e.ring, &done);
	assert_int_equal(done.res, res);
}

/* the stream's work is done with the get's bytes, and no word with the node in between */
static void get_in_order(struct rig *r, uint64_t name)
{
	kill(node.pid, SIGSTOP);
	get_behind(r, name, MINUTE_US);
	assert_false(stream_done(r));
	kill(node.pid, SIGCONT);
	assert_true(test_until(30000, stream_done, r));
	expect_bytes(r, name);
	expect_end(r, NR);
}

static void test_order(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	put(&r, 1);
	put(&r, 100);
	for (unsigned i = 0; i < 20; i++)
		get_in_order(&r, i % 2 ? 1 : 100);
	/* what is not there ends, too */
	get_behind(&r, 5000, MINUTE_US);
	assert_true(test_until(30000, stream_done, &r));
	expect_end(&r, 0);
	rig_close(&r);
}

/* a word that a later get of another session's has is not set back by the end of an earlier one */
static void test_forward(void **state)
{
	const struct weft_key key = { 1, 2 };
	struct weft_signal signal = { 0 };
	struct weft_place place = { 0 };
	struct weft_op op = { .op = WEFT_OP_GET, .flags = WEFT_F_SIGNAL, .nr = 1, .keys = &key };
	uint32_t *word;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	place.region = r.region;
	op.space = r.e.space;
	op.places = &place;
	op.signal = &signal;
	kill(node.pid, SIGSTOP);
	assert_int_equal(weft_submit(r.e.ring, &op, 1), 1);
	/* the mocked GPU has the host's addresses */
	word = (uint32_t *)(uintptr_t)signal.addr;
	__atomic_store_n(word, signal.value + 1, __ATOMIC_RELAXED);
	kill(node.pid, SIGCONT);
	expect_end(&r, 0);
	assert_int_equal(__atomic_load_n(word, __ATOMIC_ACQUIRE), signal.value + 1);
	rig_close(&r);
}

/* several gets are open, and each has a word of its own */
static void test_many(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	put(&r, 1);
	kill(node.pid, SIGSTOP);
	for (unsigned i = 0; i < 16; i++)
		get_behind(&r, 1, MINUTE_US);
	assert_false(stream_done(&r));
	kill(node.pid, SIGCONT);
	assert_true(test_until(30000, stream_done, &r));
	expect_bytes(&r, 1);
	for (unsigned i = 0; i < 16; i++)
		expect_end(&r, NR);
	rig_close(&r);
}

/* a node that does not answer keeps no stream beyond the deadline */
static void test_stopped(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	put(&r, 1);
	kill(node.pid, SIGSTOP);
	get_behind(&r, 1, 100000);
	assert_true(test_until(30000, stream_done, &r));
	kill(node.pid, SIGCONT);
	expect_end(&r, NR);
	get_in_order(&r, 1);
	rig_close(&r);
}

/* nor does a copy that never ends, and the get completes. A node that is told to stop goes without
 * it */
static void test_copy_never_ends(void **state)
{
	struct weft_completion done;
	struct test_node n;
	struct rig r;
	int status;

	(void)state;
	test_gpu_start(&n, sets, "2 1 1 cuEventQuery 600");
	rig_open(&r, &n);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	put(&r, 1);
	get_behind(&r, 1, 100000);
	assert_true(test_until(30000, stream_done, &r));
	test_next(r.e.ring, &done);
	assert_int_equal(done.res, 0);
	assert_int_equal(done.flags, WEFT_CQE_UNFENCED);
	kill(n.pid, SIGTERM);
	assert_int_equal(waitpid(n.pid, &status, 0), n.pid);
	n.pid = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	assert_int_equal(test_node_logged(&n, "do not end: the node goes without"), 1);
	rig_close(&r);
	test_node_fini(&n);
}

/* a node that dies keeps none at all; its next life serves the same ring */
static void test_node_dies(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	for (unsigned i = 0; i < 3; i++) {
		put(&r, 1);
		kill(node.pid, SIGSTOP);
		get_behind(&r, 1, 3 * MINUTE_US);
		assert_false(stream_done(&r));
		test_node_kill(&node);
		assert_true(test_until(30000, stream_done, &r));
		expect_end(&r, -ECONNRESET);
		test_node_start(&node);
		assert_int_equal(weft_reattach(r.e.w), 0);
		put(&r, 1);
		get_in_order(&r, 1);
	}
	rig_close(&r);
}

/* nor does a ring that is closed; the words outlast what waits for them */
static void test_ring_closed(void **state)
{
	struct weft_ring *ring;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	put(&r, 1);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
		get_behind(&r, 1, MINUTE_US);
		weft_ring_close(r.e.ring);
		assert_true(stream_done(&r));
		assert_int_equal(weft_ring_open(r.e.w, NULL, &ring), 0);
		r.e.ring = ring;
	}
	rig_close(&r);
}

static void test_refused(void **state)
{
	struct weft_signal signal = { 0 };
	struct weft_place place = { 0 };
	struct weft_key key;
	struct weft_op op = { .op = WEFT_OP_GET, .flags = WEFT_F_SIGNAL, .nr = 1 };
	struct test_engine embedded;
	struct rig r;

	(void)state;
	rig_open(&r, &node);
	test_keys(&r.e, 1, 1, &key);
	op.space = r.e.space;
	op.keys = &key;
	op.places = &place;
	op.signal = &signal;
	assert_int_equal(weft_submit(r.e.ring, &op, 1), -EINVAL);
	assert_int_equal(weft_signal_wait(r.e.ring, &signal, r.stream), -EINVAL);
	assert_int_equal(weft_signals_open(r.e.ring, 0), -EINVAL);
	assert_int_equal(weft_signals_open(r.e.ring, 77), -EINVAL);
	assert_non_null(strstr(weft_why(), "need a region"));
	mock->fail_call = "cuMemHostRegister";
	mock->fail_res = 2;
	assert_int_equal(weft_signals_open(r.e.ring, r.region), -ENOMEM);
	mock->fail_call = NULL;
	assert_int_equal(weft_signals_open(r.e.ring, r.region), 0);
	assert_int_equal(weft_signals_open(r.e.ring, r.region), -EALREADY);
	mock->fail_call = "cuStreamWaitValue32";
	mock->fail_res = 801;
	assert_int_equal(weft_signal_wait(r.e.ring, &signal, r.stream), -EOPNOTSUPP);
	mock->fail_call = NULL;
	op.signal = NULL;
	assert_int_equal(weft_submit(r.e.ring, &op, 1), -EINVAL);
	op.op = WEFT_OP_NOP;
	op.flags = 0;
	assert_int_equal(weft_call(r.e.ring, &op, NULL), 0);
	test_engine_open(&embedded, NULL, NULL, &geometry);
	assert_int_equal(weft_signals_open(embedded.ring, 1), -EOPNOTSUPP);
	assert_non_null(strstr(weft_why(), "attach to a weftd"));
	test_engine_close(&embedded);
	rig_close(&r);
}

static int get_raw(struct raw *r, uint32_t arg_off, const struct weft_arg_signal *signal)
{
	const struct weft_sqe sqe = {
		.op = WEFT_OP_GET,
		.flags = WEFT_F_SIGNAL,
		.nr = 1,
		.space = r->space,
		.arg_off = arg_off,
	};
	struct weft_cqe cqe;

	/* behind a key, a place and a result */
	if (signal)
		raw_store(r->seg + r->hdr.arg_off + arg_off + 40, signal, sizeof(*signal));
	assert_true(raw_submit(r, &sqe));
	raw_ring_bell(r);
	assert_true(raw_next(r, &cqe));
	return cqe.res;
}

/* words that are not the engine's to name, or nowhere: the node writes none of them */
static void test_hostile(void **state)
{
	const int fd = memfd_create("words", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct weft_ctl_req req = { .type = WEFT_CTL_REGION_REG };
	struct weft_arg_signal signal = { .value = 7 };
	struct weft_ctl_rep rep;
	uint32_t words[1024];
	struct raw r;

	(void)state;
	raw_attach(&r, node.socket, "");
	assert_int_equal(ftruncate(fd, sizeof(words)), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	req.u.region.len = sizeof(words);
	req.u.region.has_fd = 1;
	assert_int_equal(raw_request(&r, &req, fd, &rep, NULL), 0);
	assert_int_equal(get_raw(&r, 0, &signal), -EINVAL);
	signal.region = UINT32_MAX;
	assert_int_equal(get_raw(&r, 0, &signal), -EINVAL);
	signal.region = rep.id + 1;
	assert_int_equal(get_raw(&r, 0, &signal), -EINVAL);
	signal.region = rep.id;
	signal.off = 2;
	assert_int_equal(get_raw(&r, 0, &signal), -EINVAL);
	signal.off = sizeof(words);
	assert_int_equal(get_raw(&r, 0, &signal), -EINVAL);
	signal.off = UINT64_MAX - 3;
	assert_int_equal(get_raw(&r, 0, &signal), -EINVAL);
	assert_int_equal(get_raw(&r, r.hdr.arg_bytes, NULL), -EFAULT);
	assert_int_equal(pread(fd, words, sizeof(words), 0), sizeof(words));
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(words); i++)
		assert_int_equal(words[i], 0);
	/* and one that is */
	signal.off = sizeof(words) - 4;
	assert_int_equal(get_raw(&r, 0, &signal), 0);
	assert_int_equal(pread(fd, words, sizeof(words), 0), sizeof(words));
	assert_int_equal(words[WFI_ARRAY_SIZE(words) - 1], 7);
	/* nothing holds the region */
	req = (struct weft_ctl_req){ .type = WEFT_CTL_REGION_DEREG, .id = rep.id };
	assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), 0);
	raw_close(&r);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_GPU(order, sets),
		TEST_GPU(many, sets),
		TEST_GPU(forward, sets),
		TEST_GPU(stopped, sets),
		cmocka_unit_test(test_copy_never_ends),
		TEST_GPU(node_dies, sets),
		TEST_GPU(ring_closed, sets),
		TEST_GPU(refused, sets),
		TEST_GPU(hostile, sets),
	};
	const int skip = test_gpu_load();

	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
