/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/unit/cuda_rig.h"
#include "weft_internal/log.h"

char said[1024];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	if (level <= WFI_LOG_WARN)
		snprintf(said, sizeof(said), "%s", line);
}

uint64_t alloc_on(struct rig *r, int gpu, size_t bytes)
{
	struct CUctx_st *ctx;
	uint64_t mem;

	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[gpu]), 0);
	assert_int_equal(r->cuda->cuMemAlloc(&mem, bytes), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
	return mem;
}

struct weft_ep *ep_new(struct rig *r, uint32_t depth)
{
	const struct weft_ep_opts opts = {
		.size = sizeof(opts),
		.send_cq = r->cqs[0],
		.recv_cq = r->cqs[1],
		.flags = WEFT_EP_MEM,
		.depth = depth,
	};
	struct weft_ep *ep;

	assert_int_equal(r->t->ep_create(r->dev, &opts, &ep), 0);
	return ep;
}

int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct weft_mr_opts mr = { .size = sizeof(mr),
				   .len = HOST_BYTES,
				   .access = WEFT_ACCESS_LOCAL_WRITE };

	assert_non_null(r);
	mock_cuda_reset();
	wfi_log_set_sink(sink, NULL);
	*said = 0;
	assert_int_equal(wfi_env_real_init(&r->env), 0);
	r->t = &wfi_transport_cuda;
	r->cuda = mock_cuda_table();
	assert_int_equal(r->cuda->cuDevicePrimaryCtxRetain(&r->ctx[0], 0), 0);
	assert_int_equal(r->cuda->cuDevicePrimaryCtxRetain(&r->ctx[1], 1), 0);
	r->mem = alloc_on(r, 0, GPU_BYTES);
	r->host = malloc(HOST_BYTES);
	assert_non_null(r->host);
	assert_int_equal(wfi_cuda_device_create(r->t, &r->env, r->cuda, &r->dev), 0);
	assert_int_equal(r->t->cq_create(r->dev, NULL, &r->cqs[0]), 0);
	assert_int_equal(r->t->cq_create(r->dev, NULL, &r->cqs[1]), 0);
	mr.addr = r->host;
	assert_int_equal(r->t->mr_reg(r->dev, &mr, &r->mr), 0);
	r->ep = ep_new(r, 0);
	*state = r;
	return 0;
}

int teardown(void **state)
{
	struct rig *r = *state;
	struct CUctx_st *ctx;

	mock_cuda.fail_call = NULL;
	mock_cuda_release();
	r->t->ep_destroy(r->ep);
	r->t->mr_dereg(r->mr);
	r->t->cq_destroy(r->cqs[0]);
	r->t->cq_destroy(r->cqs[1]);
	r->t->device_close(r->dev);
	assert_int_equal(r->cuda->cuCtxPushCurrent(r->ctx[0]), 0);
	assert_int_equal(r->cuda->cuMemFree(r->mem), 0);
	r->cuda->cuCtxPopCurrent(&ctx);
	assert_int_equal(mock_cuda_held(), 0);
	assert_int_equal(mock_cuda_refs(), 2);
	r->cuda->cuDevicePrimaryCtxRelease(0);
	r->cuda->cuDevicePrimaryCtxRelease(1);
	wfi_log_set_sink(NULL, NULL);
	free(r->host);
	free(r);
	return 0;
}

int import_at(struct rig *r, struct weft_ep *ep, uint64_t mem, uint64_t len,
	      const struct wfi_gpu_shape *shape, struct weft_rkey **out)
{
	char why[WFI_GPU_WHY_MAX];
	struct wfi_gpu_source from = { .shape = { .nr_segments = 0 } };
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_GPU,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
		.pid = getpid(),
		.blob = &from,
		.blob_len = sizeof(from),
	};

	assert_int_equal(wfi_gpu_export(r->cuda, mem, len, &from.memory, &src.fd, why), 0);
	if (shape)
		from.shape = *shape;
	return r->t->rkey_import(ep, &src, out);
}

struct weft_rkey *import(struct rig *r, const struct wfi_gpu_shape *shape)
{
	struct weft_rkey *rkey;

	assert_int_equal(import_at(r, r->ep, r->mem, GPU_BYTES, shape, &rkey), 0);
	return rkey;
}

void choose(struct rig *r, uint64_t small)
{
	struct wfi_cuda_gpu *g = wfi_cuda_ep(r->ep)->gpu;

	for (unsigned way = 0; way < WFI_CUDA_WAYS; way++)
		g->small[way] = small;
}

int post(struct rig *r, bool write, const struct weft_piece *pieces, uint32_t nr, uint64_t cookie,
	 uint32_t flags)
{
	const struct weft_post p = {
		.pieces = pieces,
		.nr_pieces = nr,
		.local_mr = r->mr,
		.cookie = cookie,
		.flags = flags,
	};

	return write ? weft_ep_post_write(r->ep, &p) : weft_ep_post_read(r->ep, &p);
}

void expect_wc(struct rig *r, uint64_t cookie, int status, enum weft_scope scope, uint32_t idx)
{
	struct weft_wc wc;
	int nr;

	do
		nr = weft_cq_poll(r->cqs[0], &wc, 1);
	while (!nr && wfi_cuda_ep(r->ep)->rest.open);
	assert_int_equal(nr, 1);
	assert_int_equal(wc.cookie, cookie);
	assert_int_equal(wc.status, status);
	assert_int_equal(wc.scope, scope);
	assert_int_equal(wc.idx, idx);
	assert_ptr_equal(wc.ep, r->ep);
}

void expect_closed(struct rig *r, int status)
{
	struct weft_wc wc;

	assert_int_equal(weft_cq_poll(r->cqs[1], &wc, 1), 1);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, status);
	assert_int_equal(weft_cq_poll(r->cqs[0], &wc, 1), 0);
	assert_int_equal(weft_cq_poll(r->cqs[1], &wc, 1), 0);
}

void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

uint8_t *at(uint64_t mem)
{
	return (uint8_t *)(uintptr_t)mem;
}
