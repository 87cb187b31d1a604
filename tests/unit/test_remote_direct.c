/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of other nodes that are read straight to the memory of a GPU: over a mocked driver, whose
 * memory the loop transport reaches as a NIC would.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "tests/unit/mock_cuda.h"
#include "tests/unit/remote_world.h"
#include "transport/cuda/cuda.h"

#define MEM (1u << 16)
#define AT 1024u /* where the first block is to lie */

/* of node 0 */
struct gpu {
	struct fixture *f;
	struct weft_device *dev;
	struct weft_cq *cqs[2];
	struct weft_ep *ep;
	struct CUctx_st *ctx;
	uint8_t *mem;
	struct weft_mr *mr; /* for the NIC */
	struct wfi_nic_memory memory;
	struct wish w;
};

static int setup_in(void **state, int (*setup)(void **state))
{
	struct gpu *g = calloc(1, sizeof(*g));
	const struct wfi_cuda *cuda = mock_cuda_table();
	const struct weft_transport *t = &wfi_transport_cuda;
	struct weft_ep_opts ep = { .size = sizeof(ep), .flags = WEFT_EP_MEM };
	struct CUctx_st *ctx;
	uint64_t mem;

	assert_non_null(g);
	mock_cuda_reset();
	setup((void **)&g->f);
	put_chain(g->f, 1);
	assert_int_equal(cuda->cuDevicePrimaryCtxRetain(&g->ctx, 0), 0);
	assert_int_equal(cuda->cuCtxPushCurrent(g->ctx), 0);
	assert_int_equal(cuda->cuMemAlloc(&mem, MEM), 0);
	cuda->cuCtxPopCurrent(&ctx);
	g->mem = (uint8_t *)(uintptr_t)mem;
	assert_int_equal(wfi_cuda_device_create(t, g->f->nodes[0].env, cuda, &g->dev), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(t->cq_create(g->dev, NULL, &g->cqs[i]), 0);
	ep.send_cq = g->cqs[0];
	ep.recv_cq = g->cqs[1];
	assert_int_equal(t->ep_create(g->dev, &ep, &g->ep), 0);
	*state = g;
	return 0;
}

static int setup(void **state)
{
	return setup_in(state, world_setup);
}

static int setup_faults(void **state)
{
	return setup_in(state, world_setup_faults);
}

static int teardown(void **state)
{
	struct gpu *g = *state;
	const struct weft_transport *nic = g->f->nodes[0].dev->transport;
	const struct wfi_cuda *cuda = mock_cuda_table();
	struct CUctx_st *ctx;

	nic->mr_dereg(g->mr);
	wfi_transport_cuda.rkey_destroy(g->memory.rkey);
	wfi_transport_cuda.ep_destroy(g->ep);
	for (unsigned i = 0; i < 2; i++)
		wfi_transport_cuda.cq_destroy(g->cqs[i]);
	wfi_transport_cuda.device_close(g->dev);
	assert_int_equal(cuda->cuCtxPushCurrent(g->ctx), 0);
	assert_int_equal(cuda->cuMemFree((uintptr_t)g->mem), 0);
	cuda->cuCtxPopCurrent(&ctx);
	cuda->cuDevicePrimaryCtxRelease(0);
	assert_int_equal(mock_cuda_held(), 0);
	world_teardown((void **)&g->f);
	free(g);
	return 0;
}

/* the region, for the GPU and for the NIC */
static void reg(struct gpu *g, const struct wfi_gpu_shape *shape)
{
	const struct weft_transport *nic = g->f->nodes[0].dev->transport;
	struct weft_mr_opts mr = {
		.size = sizeof(mr), .addr = g->mem, .len = MEM, .access = WEFT_ACCESS_LOCAL_WRITE
	};
	struct wfi_gpu_source from = { .shape = { .nr_segments = 0 } };
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_GPU,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
		.pid = getpid(),
		.blob = &from,
		.blob_len = sizeof(from),
	};
	char why[WFI_GPU_WHY_MAX];

	if (shape)
		from.shape = *shape;
	assert_int_equal(wfi_gpu_export(mock_cuda_table(), (uintptr_t)g->mem, MEM, &from.memory,
					&src.fd, why),
			 0);
	assert_int_equal(wfi_transport_cuda.rkey_import(g->ep, &src, &g->memory.rkey), 0);
	assert_int_equal(nic->mr_reg(g->f->nodes[0].dev, &mr, &g->mr), 0);
	g->memory.mrs[3] = g->mr;
	g->memory.base = (uintptr_t)g->mem;
	g->memory.shape = from.shape;
	memset(g->mem, 0xee, MEM);
}

static int late_res;

static void wish_late(void *ctx, int res)
{
	const struct wish *w = ctx;

	assert_false(w->done);
	assert_int_equal(late_res, 0);
	late_res = res;
}

/* every second place of the region, as it counts them */
static void begin(struct gpu *g)
{
	const struct test_node *node = &g->f->nodes[0];
	struct wish *w = &g->w;
	const struct wfi_pull_opts o = { .tenant = node->tenant,
					 .space = node->space.id,
					 .nr = CHAIN,
					 .keys = g->f->keys,
					 .slots = w->slots,
					 .places = w->places,
					 .memory = &g->memory,
					 .results = w->results,
					 .now_ns = now(g->f),
					 .deadline_ns = now(g->f) + DEADLINE_NS,
					 .done = wish_done,
					 .late = wish_late,
					 .ctx = w };

	late_res = 0;
	*w = (struct wish){ .done = false };
	memset(w->slots, 0xff, sizeof(w->slots));
	for (uint32_t i = 0; i < CHAIN; i++)
		w->places[i] = (void *)(g->memory.base + AT + 2ull * i * BLOCK_BYTES);
	assert_int_equal(wfi_cluster_pull(node->cluster, &o, &w->pull), 0);
}

static void pull(struct gpu *g)
{
	begin(g);
	turns(g->f, DEADLINE_NS / 2);
	assert_true(g->w.done);
}

static uint64_t direct(const struct gpu *g)
{
	struct wfi_cluster_stat st;

	wfi_cluster_stat(g->f->nodes[0].cluster, &st);
	return st.direct;
}

/* byte @off of block @i, where the region has it */
static uint8_t byte(const struct gpu *g, uint32_t i, uint32_t off)
{
	uint64_t at;

	wfi_gpu_shape_run(&g->memory.shape, AT + 2ull * i * BLOCK_BYTES + off, &at);
	return g->mem[at];
}

static void expect_there(const struct gpu *g, uint32_t i)
{
	assert_int_equal(g->w.results[i], 0);
	assert_int_equal(g->w.slots[i], WFI_SLOT_NONE);
	for (uint32_t k = 0; k < BLOCK_BYTES; k++)
		assert_int_equal(byte(g, i, k), i + 1);
}

static void test_direct(void **state)
{
	struct gpu *g = *state;

	reg(g, NULL);
	assert_true(wfi_cluster_reaches(g->f->nodes[0].cluster, &g->memory, BLOCK_BYTES));
	mock_cuda.copies = 0;
	pull(g);
	for (uint32_t i = 0; i < CHAIN; i++)
		expect_there(g, i);
	/* and nothing beside them */
	assert_int_equal(g->mem[AT - 1], 0xee);
	assert_int_equal(g->mem[AT + BLOCK_BYTES], 0xee);
	assert_int_equal(direct(g), CHAIN);
	assert_int_equal(mock_cuda.copies, 0);
	assert_true(mock_cuda.flushed > 0);
}

/* segments that no block begins or ends with */
static void test_segments(void **state)
{
	static const struct wfi_gpu_shape shape = {
		.segment_bytes = 96, .segment_stride = 4096, .block_stride = 96, .nr_segments = 8
	};
	struct gpu *g = *state;

	reg(g, &shape);
	pull(g);
	for (uint32_t i = 0; i < CHAIN; i++)
		expect_there(g, i);
	assert_int_equal(direct(g), CHAIN);
	/* some blocks in as many runs as a flight has: then it has fewer blocks */
	g->memory.shape.segment_bytes = 1;
	assert_true(wfi_cluster_reaches(g->f->nodes[0].cluster, &g->memory, 1022));
	assert_false(wfi_cluster_reaches(g->f->nodes[0].cluster, &g->memory, 1023));
}

/* no NIC of these peers reaches it: the blocks lie in slots, as without places */
static void test_not_reached(void **state)
{
	struct gpu *g = *state;

	reg(g, NULL);
	g->memory.mrs[3] = NULL;
	assert_false(wfi_cluster_reaches(g->f->nodes[0].cluster, &g->memory, BLOCK_BYTES));
	pull(g);
	for (uint32_t i = 0; i < CHAIN; i++) {
		const struct test_node *node = &g->f->nodes[0];
		const uint8_t *slot;

		assert_int_equal(g->w.results[i], 0);
		assert_int_not_equal(g->w.slots[i], WFI_SLOT_NONE);
		slot = wfi_kv_slot_addr(node->kv, g->w.slots[i]);
		assert_int_equal(slot[BLOCK_BYTES - 1], i + 1);
		wfi_kv_unpin(node->kv, &g->w.slots[i], 1);
	}
	assert_int_equal(direct(g), 0);
	assert_int_equal(g->mem[AT], 0xee);
}

/* a block that is another by now than its header says, which only the GPU can see */
static void test_garbled(void **state)
{
	struct gpu *g = *state;
	struct test_node *from = &g->f->nodes[1];
	uint32_t slots[CHAIN];

	reg(g, NULL);
	wfi_kv_lookup(from->kv, from->space.id, g->f->keys, CHAIN, slots, now(g->f));
	((uint8_t *)wfi_kv_slot_addr(from->kv, slots[2]))[77] ^= 4;
	pull(g);
	for (uint32_t i = 0; i < CHAIN; i++)
		if (i != 2)
			expect_there(g, i);
	assert_int_equal(g->w.results[2], -ENOENT);
	/* another node has it as it was */
	put_chain(g->f, 2);
	pull(g);
	for (uint32_t i = 0; i < CHAIN; i++)
		expect_there(g, i);
}

/* what can't be summed up did not come */
static void test_no_sums(void **state)
{
	struct gpu *g = *state;

	reg(g, NULL);
	mock_cuda.fail_call = "cuLaunchKernel";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_RESOURCES;
	pull(g);
	mock_cuda.fail_call = NULL;
	for (uint32_t i = 0; i < CHAIN; i++)
		assert_int_equal(g->w.results[i], -ENOENT);
	pull(g);
	for (uint32_t i = 0; i < CHAIN; i++)
		expect_there(g, i);
}

/* the end of a pull waits for its sums: until then the GPU reads there */
static void test_cancelled(void **state)
{
	struct gpu *g = *state;

	reg(g, NULL);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_NOT_READY;
	begin(g);
	turns(g->f, 0);
	assert_false(g->w.done);
	assert_int_equal(direct(g), CHAIN);
	wfi_cluster_cancel(g->f->nodes[0].cluster, g->w.pull);
	turns(g->f, WFI_NSEC_PER_MSEC);
	assert_false(g->w.done);
	assert_int_equal(late_res, 0);
	/* who waits hears so in time */
	turns(g->f, 200 * WFI_NSEC_PER_MSEC);
	assert_int_equal(late_res, -ECANCELED);
	assert_false(g->w.done);
	mock_cuda.fail_call = NULL;
	turns(g->f, WFI_NSEC_PER_MSEC);
	assert_true(g->w.done);
}

/* READs that no shutdown ends, by time and by who gives up: who waits hears so, and the memory is
 * the NIC's until they have ended */
static void never(struct gpu *g, bool cancelled)
{
	struct wfi_cluster *c = g->f->nodes[0].cluster;

	reg(g, NULL);
	begin(g);
	hold(g->f, true);
	turns(g->f, WFI_NSEC_PER_MSEC);
	assert_int_equal(wfi_cluster_reads_of(c, g->f->nodes[0].links[1].ep), 1);
	if (cancelled)
		wfi_cluster_cancel(c, g->w.pull);
	else
		turns(g->f, DEADLINE_NS);
	turns(g->f, 90 * WFI_NSEC_PER_MSEC);
	assert_int_equal(late_res, 0);
	turns(g->f, 15 * WFI_NSEC_PER_MSEC);
	assert_int_equal(late_res, cancelled ? -ECANCELED : -ETIMEDOUT);
	assert_false(g->w.done);
	assert_int_equal(wfi_cluster_reads_of(c, g->f->nodes[0].links[1].ep), 1);
	hold(g->f, false);
	turns(g->f, WFI_NSEC_PER_MSEC);
	assert_true(g->w.done);
}

static void test_read_never(void **state)
{
	never(*state, false);
}

static void test_read_cancelled(void **state)
{
	never(*state, true);
}

/* the same where another holder is known: it brings nothing before the first one's READs have
 * ended, and who waits hears so when its time is up, not before */
static void test_read_never_of_two(void **state)
{
	struct gpu *g = *state;

	put_chain(g->f, 2);
	reg(g, NULL);
	begin(g);
	hold(g->f, true);
	turns(g->f, DEADLINE_NS - WFI_NSEC_PER_MSEC);
	assert_int_equal(late_res, 0);
	turns(g->f, 105 * WFI_NSEC_PER_MSEC);
	assert_int_equal(late_res, -ETIMEDOUT);
	assert_false(g->w.done);
	hold(g->f, false);
	turns(g->f, WFI_NSEC_PER_MSEC);
	assert_true(g->w.done);
}

/* the GPU is lost while it sums up */
static void test_gpu_lost(void **state)
{
	struct gpu *g = *state;

	reg(g, NULL);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_CONTEXT_DESTROYED;
	pull(g);
	mock_cuda.fail_call = NULL;
	for (uint32_t i = 0; i < CHAIN; i++)
		assert_int_equal(g->w.results[i], -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define FAULTS(name) cmocka_unit_test_setup_teardown(test_##name, setup_faults, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(direct),		TEST(segments),
		TEST(not_reached),	TEST(garbled),
		TEST(no_sums),		TEST(cancelled),
		TEST(gpu_lost),		FAULTS(read_never),
		FAULTS(read_cancelled), FAULTS(read_never_of_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
