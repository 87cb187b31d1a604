/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node whose NIC is to read and write an engine's memory on a GPU itself, over a libibverbs and a
 * driver that do what they are told: when it does, when not and why, and that it is through before
 * the memory goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon/node.h"
#include "gpu/cuda.h"
#include "gpu/error.h"
#include "mock_cuda.h"
#include "mock_rdmacm.h"
#include "mock_verbs.h"
#include "verbs_rig.h"
#include "weft_internal/gpu.h"
#include "weft_internal/log.h"

#define MEM (1u << 16)
#define SKEW 512u /* the region begins there in its page, wherever malloc() put it */

struct rig {
	struct wfi_env env;
	struct node *node;
	struct session *s;
	pthread_t worker;
	struct CUctx_st *ctx;
	uint64_t mem;
	unsigned nr_mrs; /* without the region's */
	struct node_link away;
	char *status;
	int ret;
	uint32_t id;
};

/* for the node and its parts: the driver is the mock */
const struct wfi_cuda *wfi_cuda_load(const char **why)
{
	*why = "";
	return mock_cuda_table();
}

static void run_attach(struct node *node, void *arg)
{
	struct rig *r = arg;

	r->ret = session_attach(node, node->tenants[0], getpid(), -1, "e", &r->s);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	const struct wfi_cuda *cuda = mock_cuda_table();
	struct CUctx_st *ctx;

	assert_non_null(r);
	mock_reset();
	mock.dmabuf = true;
	mock_cm_reset();
	mock_cuda_reset();
	assert_int_equal(cuda->cuDevicePrimaryCtxRetain(&r->ctx, 0), 0);
	assert_int_equal(cuda->cuCtxPushCurrent(r->ctx), 0);
	assert_int_equal(cuda->cuMemAlloc(&r->mem, MEM), 0);
	cuda->cuCtxPopCurrent(&ctx);
	verbs_node_open(&r->env, &r->node);
	r->nr_mrs = mock.nr_mrs;
	assert_int_equal(pthread_create(&r->worker, NULL, verbs_node_run, r->node), 0);
	node_call(r->node, run_attach, r);
	assert_int_equal(r->ret, 0);
	*state = r;
	return 0;
}

static void run_detach(struct node *node, void *arg)
{
	(void)node;
	session_detach(((struct rig *)arg)->s, false);
}

static void run_ending(struct node *node, void *arg)
{
	((struct rig *)arg)->ret = (int)node->nr_ending;
}

static void engine_ends(struct rig *r)
{
	node_call(r->node, run_detach, r);
	do
		node_call(r->node, run_ending, r);
	while (r->ret);
	r->s = NULL;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	const struct wfi_cuda *cuda = mock_cuda_table();
	struct CUctx_st *ctx;

	if (r->s)
		engine_ends(r);
	node_stop(r->node);
	pthread_join(r->worker, NULL);
	verbs_node_close(r->node);
	assert_int_equal(cuda->cuCtxPushCurrent(r->ctx), 0);
	assert_int_equal(cuda->cuMemFree(r->mem), 0);
	cuda->cuCtxPopCurrent(&ctx);
	cuda->cuDevicePrimaryCtxRelease(0);
	assert_int_equal(mock_cuda_held(), 0);
	free(r);
	return 0;
}

/* as libweft asks. @dmabuf: of what, or -1; lent. Return: as gpu_region_reg() */
static int reg(struct rig *r, int dmabuf, uint64_t off)
{
	struct weft_ctl_req req = { .type = WEFT_CTL_REGION_REG };
	char why[sizeof(((struct weft_ctl_rep *)0)->why)], no[WFI_GPU_WHY_MAX];
	struct wfi_gpu_export e;
	int fd;

	assert_int_equal(wfi_gpu_export(mock_cuda_table(), r->mem + SKEW, MEM - SKEW, &e, &fd, no),
			 0);
	req.u.region.kind = e.kind;
	req.u.region.driver = e.driver;
	req.u.region.addr = e.addr;
	req.u.region.off = e.off;
	req.u.region.len = e.len;
	req.u.region.has_dmabuf = dmabuf >= 0;
	req.u.region.dmabuf_off = off;
	memcpy(req.u.region.gpu, e.uuid, sizeof(e.uuid));
	memcpy(req.u.region.handle, e.handle, sizeof(e.handle));
	return gpu_region_reg(r->s, &req, fd, dmabuf, &r->id, why);
}

static void must_reg(struct rig *r)
{
	char why[WFI_GPU_WHY_MAX];
	uint64_t off;
	int fd;

	assert_int_equal(
		wfi_gpu_dmabuf(mock_cuda_table(), r->mem + SKEW, MEM - SKEW, &fd, &off, why), 0);
	assert_int_equal(reg(r, fd, off), 0);
	assert_int_equal(mock.dmabuf_off, off);
	close(fd);
}

static void run_dereg(struct node *node, void *arg)
{
	struct rig *r = arg;

	(void)node;
	r->ret = session_region_dereg(r->s, r->id);
}

static void dereg(struct rig *r, int want)
{
	node_call(r->node, run_dereg, r);
	assert_int_equal(r->ret, want);
}

static void run_status(struct node *node, void *arg)
{
	((struct rig *)arg)->status = node_status_json(node, NULL, json_array(), NULL);
}

static void expect_status(struct rig *r, const char *text)
{
	node_call(r->node, run_status, r);
	assert_non_null(r->status);
	if (!strstr(r->status, text))
		fail_msg("%s has no %s", r->status, text);
	free(r->status);
}

/* ---- by the NIC ---- */

static void test_direct(void **state)
{
	struct rig *r = *state;
	const struct region *g;
	const struct wfi_nic_memory *m;

	must_reg(r);
	g = &r->s->regions[r->id];
	m = gpu_direct_memory(g->direct);
	assert_non_null(m);
	assert_int_equal(mock.nr_mrs, r->nr_mrs + 1);
	/* reads land there, and no peer gets a right */
	assert_int_equal(mock.access, IBV_ACCESS_LOCAL_WRITE);
	assert_int_equal(m->base, r->mem + SKEW);
	assert_int_equal(m->mrs[0]->len, MEM - SKEW);
	assert_ptr_equal(m->mrs[0]->dev, r->node->nets[0].dev);
	assert_ptr_equal(m->rkey, g->rkey);
	/* handoffs find it by the region's number */
	assert_ptr_equal(r->s->nics[r->id], m);
	expect_status(r, "{\"gpu\":0,\"pci\":\"0000:a0:00.0\",\"state\":\"ok\",\"regions\":1,"
			 "\"direct\":1,\"nics\":[{\"nic\":\"mock0\",\"path\":\"direct\","
			 "\"why\":\"\"}]}");
	dereg(r, 0);
	assert_null(r->s->nics[r->id]);
	assert_int_equal(mock.nr_mrs, r->nr_mrs);
}

/* an operation begins to read there, or has ended */
static void run_op(struct node *node, void *arg)
{
	struct rig *r = arg;

	(void)node;
	r->s->regions[r->id].nr_ops ^= 1;
	r->s->nr_ops ^= 1;
}

/* a READ is under way: NIC and memory stay until it is over */
static void test_dereg_waits(void **state)
{
	struct rig *r = *state;

	must_reg(r);
	node_call(r->node, run_op, r);
	dereg(r, -EBUSY);
	assert_int_equal(mock.nr_mrs, r->nr_mrs + 1);
	node_call(r->node, run_op, r);
	dereg(r, 0);
	assert_int_equal(mock.nr_mrs, r->nr_mrs);
}

static void test_engine_dies(void **state)
{
	struct rig *r = *state;

	must_reg(r);
	must_reg(r);
	assert_int_equal(mock.nr_mrs, r->nr_mrs + 2);
	node_call(r->node, run_op, r);
	node_call(r->node, run_detach, r);
	node_call(r->node, run_ending, r);
	assert_int_equal(r->ret, 1);
	assert_int_equal(mock.nr_mrs, r->nr_mrs + 2);
	node_call(r->node, run_op, r);
	do
		node_call(r->node, run_ending, r);
	while (r->ret);
	r->s = NULL;
	assert_int_equal(mock.nr_mrs, r->nr_mrs);
}

static void run_take(struct node *node, void *arg)
{
	struct rig *r = arg;

	assert_true(link_take(node, &node->nets[0], &r->away));
}

static void run_give(struct node *node, void *arg)
{
	link_give(node, &node->nets[0], &((struct rig *)arg)->away);
}

/* the NIC goes, and the registration with it; it comes back, and so does that */
static void test_nic_goes(void **state)
{
	struct rig *r = *state;
	const struct wfi_nic_memory *m;

	must_reg(r);
	m = gpu_direct_memory(r->s->regions[r->id].direct);
	node_call(r->node, run_take, r);
	assert_null(m->mrs[0]);
	assert_int_equal(mock.nr_mrs, r->nr_mrs);
	/* another engine's would find none */
	assert_int_equal(reg(r, 0, 0), 0);
	assert_null(r->s->regions[r->id].direct);
	expect_status(r, "\"why\":\"the NIC is away\"");
	node_call(r->node, run_give, r);
	assert_non_null(m->mrs[0]);
	assert_int_equal(mock.nr_mrs, r->nr_mrs + 1);
	must_reg(r);
	assert_non_null(r->s->regions[r->id].direct);
}

/* ---- by host memory ---- */

static void expect_staged(struct rig *r, int dmabuf, uint64_t off, const char *why)
{
	assert_int_equal(reg(r, dmabuf, off), 0);
	assert_null(r->s->regions[r->id].direct);
	assert_int_equal(mock.nr_mrs, r->nr_mrs);
	expect_status(r, why);
}

static void test_no_dmabuf(void **state)
{
	struct rig *r = *state;

	expect_staged(r, -1, 0, "some regions have no dma-buf");
	/* one that ends behind the last byte that there is */
	expect_staged(r, 0, UINT64_MAX - 100, "some regions have no dma-buf");
}

static void test_refused(void **state)
{
	struct rig *r = *state;

	mock.reg_errno = ENOMEM;
	expect_staged(r, 0, SKEW, "some regions have no dma-buf, or it was refused");
	/* the next one has no less for it */
	must_reg(r);
	assert_int_equal(mock.nr_mrs, r->nr_mrs + 1);
}

static void test_gpu_has_none(void **state)
{
	mock_cuda.dmabuf = false;
	expect_staged(*state, 0, SKEW, "\"path\":\"staged\",\"why\":\"the GPU has no dma-buf\"");
}

static void test_nic_has_none(void **state)
{
	struct rig *r = *state;

	r->node->nets[0].dev->caps.flags &= ~(uint32_t)WEFT_CAP_DMABUF;
	expect_staged(r, 0, SKEW, "\"why\":\"the NIC has no dma-buf\"");
	expect_status(r, "\"what\":\"gpu 0 by host memory\"");
}

static void test_no_order(void **state)
{
	mock_cuda.flushes = false;
	expect_staged(*state, 0, SKEW, "nothing says when the GPU sees");
}

static void test_no_kernels(void **state)
{
	mock_cuda.no_kernels = true;
	expect_staged(*state, 0, SKEW, "built without kernels");
}

/* ---- what else status says ---- */

static void test_not_pinned(void **state)
{
	struct rig *r = *state;

	mock_cuda.fail_call = "cuMemHostRegister";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	must_reg(r);
	mock_cuda.fail_call = NULL;
	expect_status(r, "raise ulimit -l");
}

static void run_lose(struct node *node, void *arg)
{
	const struct rig *r = arg;

	gpu_ep_closed(node, &r->s->gpus[0].owner, -EIO);
	gpu_ep_closed(node, &r->s->gpus[0].owner, -EIO);
}

static void test_lost(void **state)
{
	struct rig *r = *state;

	must_reg(r);
	node_call(r->node, run_lose, r);
	assert_int_equal(r->node->gpus_lost->value, 1);
	expect_status(r, "\"what\":\"gpu 0 is lost\"");
	/* it works after all */
	must_reg(r);
	expect_status(r, "\"state\":\"ok\"");
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(direct),	 TEST(dereg_waits), TEST(engine_dies),	TEST(nic_goes),
		TEST(no_dmabuf), TEST(refused),	    TEST(gpu_has_none), TEST(nic_has_none),
		TEST(no_order),	 TEST(no_kernels),  TEST(not_pinned),	TEST(lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
