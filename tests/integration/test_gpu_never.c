/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies that a GPU does not end: who waits for one hears so in time, and what it touches is
 * nobody's before it has ended. The node is in this process, so that its driver can be made to go
 * on in the end.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "tests/integration/gpu.h"

#define BLOCK 16384u
#define NL 4u /* layers of a block */
#define NR 8u
#define MEM (4u << 20)
#define TIER (16u << 20)
#define SOON_US 100000u
#define IN_TIME_MS (TEST_SANITIZED ? 20000 : 4000) /* others may run beside it */

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "gpu never",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = NL,
};

/* @other: a ring for what is asked while operations of the first one are open */
struct rig {
	struct test_engine e;
	struct weft_ring *other;
	char *mem;
	uint32_t region;
	struct weft_key keys[NR];
	struct weft_place places[NR];
	struct weft_slot slots[NR];
	int32_t results[NR];
};

/* from here on, or no longer */
static void hang(bool on)
{
	mock->fail_res = WFI_CUDA_NOT_READY;
	mock->fail_call = on ? "cuEventQuery" : NULL;
}

static void rig_memory(struct rig *r)
{
	if (test_gpu_reg(&r->e, r->mem, MEM, &r->region))
		fail_msg("%s", weft_why());
	for (unsigned i = 0; i < NR; i++)
		r->places[i] = (struct weft_place){ .off = 2ull * i * BLOCK, .region = r->region };
}

/* nothing of it concerns host memory */
static void still_serves(struct rig *r, uint64_t name)
{
	static char block[BLOCK];
	const void *in = block;
	void *out = block;
	struct weft_key key;

	test_keys(&r->e, name, 1, &key);
	test_fill(block, BLOCK, name);
	assert_int_equal(weft_put(r->e.ring, r->e.space, NULL, &key, 1, &in), 1);
	memset(block, 0, BLOCK);
	assert_int_equal(weft_get(r->e.ring, r->e.space, &key, 1, &out), 1);
	assert_true(test_filled(block, BLOCK, name));
}

static void rig_open_with(struct rig *r, uint64_t tier_bytes)
{
	const struct weft_opts opts = { .size = sizeof(opts),
					.mode = WEFT_EMBEDDED,
					.gpu_tier_bytes = tier_bytes };

	*r = (struct rig){ .mem = test_gpu_alloc(MEM) };
	if (weft_open(&opts, &r->e.w) || weft_space_open(r->e.w, &geometry, &r->e.space) ||
	    weft_ring_open(r->e.w, NULL, &r->e.ring))
		fail_msg("%s", weft_why());
	assert_int_equal(weft_ring_open(r->e.w, NULL, &r->other), 0);
	rig_memory(r);
	/* its space has slots from here on */
	still_serves(r, 8000);
}

static void rig_open(struct rig *r)
{
	rig_open_with(r, 0);
}

/* the engine's end, and the node's */
static void engine_close(struct rig *r)
{
	weft_ring_close(r->other);
	test_engine_close(&r->e);
}

static void rig_close(struct rig *r)
{
	engine_close(r);
	test_gpu_free(r->mem);
}

static struct weft_op op_of(struct rig *r, enum weft_opcode op, uint64_t name)
{
	test_keys(&r->e, name, NR, r->keys);
	return (struct weft_op){
		.op = (uint8_t)op,
		.flags = op == WEFT_OP_PUT ? WEFT_F_COPY : 0,
		.nr = NR,
		.space = r->e.space,
		.keys = r->keys,
		.places = r->places,
		.results = r->results,
		.timeout_us = SOON_US,
	};
}

static void put(struct rig *r, uint64_t name)
{
	struct weft_op op = op_of(r, WEFT_OP_PUT, name);

	op.timeout_us = 0;
	for (unsigned i = 0; i < NR; i++)
		test_fill(r->mem + r->places[i].off, BLOCK, name + i);
	assert_int_equal(weft_call(r->e.ring, &op, NULL), NR);
}

static void get(struct rig *r, uint64_t name)
{
	struct weft_op op = op_of(r, WEFT_OP_GET, name);

	op.timeout_us = 0;
	memset(r->mem, 0, MEM);
	assert_int_equal(weft_call(r->e.ring, &op, NULL), NR);
	for (unsigned i = 0; i < NR; i++)
		assert_true(test_filled(r->mem + r->places[i].off, BLOCK, name + i));
}

/* it does not end, and is told so once */
static void never(struct rig *r, const struct weft_op *op)
{
	const uint64_t start = test_now_ms();
	struct weft_completion done;

	hang(true);
	assert_int_equal(weft_submit(r->e.ring, op, 1), 1);
	test_next(r->e.ring, &done);
	assert_in_range(test_now_ms() - start, SOON_US / 1000, IN_TIME_MS);
	assert_int_equal(done.res, 0);
	assert_int_equal(done.flags, WEFT_CQE_UNFENCED);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(r->results[i], -ETIMEDOUT);
	/* what is asked of that memory afterwards is refused, and other memory is as it was */
	assert_int_equal(weft_call(r->e.ring, op, NULL), 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(r->results[i], -ENOTCONN);
}

/* ---- the answer to dereg, which waits for the copy ---- */

struct dereg {
	struct rig *r;
	pthread_t thread;
	_Atomic bool answered;
	int ret;
};

static void *dereg_run(void *arg)
{
	struct dereg *d = arg;

	d->ret = weft_region_dereg(d->r->e.w, d->r->region);
	d->answered = true;
	return NULL;
}

static void dereg_begin(struct dereg *d, struct rig *r)
{
	d->r = r;
	d->answered = false;
	assert_int_equal(pthread_create(&d->thread, NULL, dereg_run, d), 0);
}

static void dereg_end(struct dereg *d)
{
	pthread_join(d->thread, NULL);
	assert_int_equal(d->ret, 0);
}

/* ---- slots ---- */

struct wait {
	struct weft_ring *ring;
	uint64_t nr_free;
};

static bool are_free(void *ctx)
{
	const struct wait *w = ctx;

	return test_stat(w->ring).slots_free >= w->nr_free;
}

/* what comes in the end changes nothing but who may have the memory */
static void goes_on(struct rig *r, uint64_t nr_free)
{
	struct wait w = { r->e.ring, nr_free };
	struct dereg d;

	dereg_begin(&d, r);
	still_serves(r, 5000);
	assert_false(d.answered);
	assert_int_equal(test_stat(r->e.ring).slots_free, nr_free - NR - 1);
	w.nr_free--;
	hang(false);
	assert_true(test_until(5000, are_free, &w));
	dereg_end(&d);
	assert_int_equal(test_stat(r->e.ring).slots_filling, 0);
	assert_int_equal(test_stat(r->e.ring).slots_quarantined, 0);
	rig_memory(r);
	put(r, 9000);
	get(r, 9000);
}

static void test_put(void **state)
{
	struct weft_op op;
	uint64_t nr_free;
	struct rig r;

	(void)state;
	rig_open(&r);
	nr_free = test_stat(r.e.ring).slots_free;
	op = op_of(&r, WEFT_OP_PUT, 1);
	never(&r, &op);
	goes_on(&r, nr_free);
	/* nothing of it was published */
	test_keys(&r.e, 1, NR, r.keys);
	assert_int_equal(weft_match(r.e.ring, r.e.space, r.keys, NR), 0);
	rig_close(&r);
}

static void test_get(void **state)
{
	struct weft_op op;
	uint64_t nr_free;
	struct rig r;

	(void)state;
	rig_open(&r);
	nr_free = test_stat(r.e.ring).slots_free;
	put(&r, 1);
	op = op_of(&r, WEFT_OP_GET, 1);
	never(&r, &op);
	/* they are read from still */
	assert_int_equal(weft_drop(r.e.ring, r.e.space, r.keys, NR), NR);
	goes_on(&r, nr_free);
	rig_close(&r);
}

/* the engine's end, and the node's, wait for it as they do for any copy */
static void test_ring_closed(void **state)
{
	struct weft_ring *ring;
	struct weft_op op;
	struct wait w;
	struct rig r;

	(void)state;
	rig_open(&r);
	w.nr_free = test_stat(r.e.ring).slots_free;
	op = op_of(&r, WEFT_OP_PUT, 1);
	never(&r, &op);
	weft_ring_close(r.e.ring);
	assert_int_equal(weft_ring_open(r.e.w, NULL, &ring), 0);
	r.e.ring = w.ring = ring;
	assert_int_equal(test_stat(ring).slots_free, w.nr_free - NR);
	hang(false);
	assert_true(test_until(5000, are_free, &w));
	rig_close(&r);
}

/* ---- handoffs ---- */

/* to places of this engine's, or to slots */
static uint64_t expect(struct rig *r, bool placed, struct weft_ticket *ticket)
{
	struct weft_op op = op_of(r, WEFT_OP_HANDOFF_EXPECT, 1);
	struct weft_completion done;

	op.flags = placed ? WEFT_F_COPY : 0;
	op.nr_layers = NL;
	op.slots = r->slots;
	op.ticket = ticket;
	op.timeout_us = 60000000;
	op.results = NULL;
	assert_int_equal(weft_submit(r->e.ring, &op, 1), 1);
	test_next(r->e.ring, &done);
	assert_int_equal(done.flags, WEFT_CQE_MORE | WEFT_CQE_TICKET);
	return done.handle;
}

static void hear_both(struct rig *r, int res)
{
	struct weft_completion done;

	for (unsigned i = 0; i < 2; i++) {
		test_next(r->e.ring, &done);
		assert_int_equal(done.res, res);
		assert_int_equal(done.flags, WEFT_CQE_UNFENCED);
	}
}

/* prefill and decode hear of it, once each; by time, or because decode gives up */
static void handoff(bool placed, bool cancelled)
{
	struct weft_ticket ticket;
	struct weft_op op, cancel = { .op = WEFT_OP_HANDOFF_CANCEL };
	const uint64_t start = test_now_ms();
	uint64_t nr_free;
	struct wait w;
	struct rig r;

	rig_open(&r);
	nr_free = test_stat(r.e.ring).slots_free;
	cancel.handle = expect(&r, placed, &ticket);
	op = op_of(&r, WEFT_OP_HANDOFF_PUSH, 1);
	op.flags = WEFT_F_COPY;
	op.ticket = &ticket;
	op.nr_layers = 1;
	op.results = NULL;
	op.timeout_us = cancelled ? 0 : SOON_US;
	/* what it has in places lies behind what is pushed */
	for (unsigned i = 0; placed && i < NR; i++)
		r.places[i].off += MEM / 2;
	hang(true);
	assert_int_equal(weft_submit(r.e.ring, &op, 1), 1);
	/* two turns of the node later its copy is under way */
	test_stat(r.other);
	test_stat(r.other);
	if (cancelled)
		assert_int_equal(weft_call(r.other, &cancel, NULL), 0);
	hear_both(&r, cancelled ? -ECANCELED : -ETIMEDOUT);
	assert_in_range(test_now_ms() - start, 0, IN_TIME_MS);
	still_serves(&r, 5000);
	assert_int_equal(test_stat(r.e.ring).slots_free, nr_free - 1 - (placed ? 0 : NR));
	hang(false);
	w = (struct wait){ r.e.ring, nr_free - 1 };
	assert_true(test_until(5000, are_free, &w));
	assert_int_equal(weft_region_dereg(r.e.w, r.region), 0);
	rig_memory(&r);
	put(&r, 9000);
	rig_close(&r);
}

static void test_handoff(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		handoff(i & 1, i & 2);
}

/* ---- copies to the GPU's tier ---- */

static void needs_kernels(void)
{
	if (!wfi_gpu_image())
		skip();
}

static bool is_copying(void *nr)
{
	return mock->copies != *(unsigned *)nr;
}

/* blocks that were gotten are on their way there, and do not come before copies are released */
static void fill_held(struct rig *r)
{
	unsigned nr;

	rig_open_with(r, TIER);
	put(r, 1);
	nr = mock->copies;
	get(r, 1);
	mock->pass = mock->copies - nr;
	nr = mock->copies + mock->pass;
	mock->hold = true;
	get(r, 1);
	assert_true(test_until(5000, is_copying, &nr));
	mock->hold = false;
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

static bool is_lost(void *r)
{
	return status_says(r, "\"gpu\":0,\"state\":\"failed\"");
}

static bool is_given_back(void *r)
{
	return !weft_gpu_tier_resize(((struct rig *)r)->e.w, 0);
}

static bool is_hit(void *r)
{
	get(r, 1);
	return test_counter(((struct rig *)r)->e.w, "weft_tier_get") >= NR;
}

/* it is lost, and is as large as it is to be when they have ended after all */
static void test_tier_resize(void **state)
{
	struct rig r;

	(void)state;
	needs_kernels();
	fill_held(&r);
	assert_true(test_until(30000, is_lost, &r));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, 0), -EBUSY);
	assert_non_null(strstr(weft_why(), "has failed"));
	assert_true(is_lost(&r));
	mock_release();
	assert_true(test_until(5000, is_given_back, &r));
	assert_true(status_says(&r, "\"gpu_tiers\":[]"));
	assert_int_equal(weft_gpu_tier_resize(r.e.w, TIER), 0);
	assert_true(test_until(5000, is_hit, &r));
	rig_close(&r);
}

static void *close_run(void *r)
{
	engine_close(r);
	return NULL;
}

static bool is_left(void *fd)
{
	return !test_counter_in(*(int *)fd, "weft_engines");
}

/* a node that stops waits for them */
static void test_tier_stop(void **state)
{
	pthread_t closer;
	struct rig r;
	int fd;

	(void)state;
	needs_kernels();
	fill_held(&r);
	fd = weft_metrics_fd(r.e.w);
	assert_true(fd >= 0);
	assert_int_equal(pthread_create(&closer, NULL, close_run, &r), 0);
	assert_true(test_until(5000, is_left, &fd));
	close(fd);
	mock_release();
	assert_int_equal(pthread_join(closer, NULL), 0);
	test_gpu_free(r.mem);
}

static void stop_before(int in, int out, void *ctx)
{
	struct rig r;

	(void)in;
	(void)out;
	(void)ctx;
	fill_held(&r);
	engine_close(&r);
	mock_release();
}

/* and leaves what they read and write as it is, where they do not end */
static void test_tier_stop_before(void **state)
{
	struct test_child c;

	(void)state;
	needs_kernels();
	test_child_start(&c, stop_before, NULL);
	test_child_join(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* it forks: no thread was begun before */
		cmocka_unit_test(test_tier_stop_before),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_ring_closed),
		cmocka_unit_test(test_handoff),
		cmocka_unit_test(test_tier_resize),
		cmocka_unit_test(test_tier_stop),
	};
	const int skip = test_gpu_load();

	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
