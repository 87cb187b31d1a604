/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "gpu/device.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define BUFFERS 2u
#define BUFFER_BYTES (16ull << 20)

/* @filled, @empty: of the last use of this buffer; the copy engine and the kernel take turns */
struct buffer {
	uint64_t mem;
	struct CUevent_st *filled;
	struct CUevent_st *empty;
};

struct wfi_gpu_stage {
	struct wfi_gpu *gpu;
	uint64_t bytes;
	struct CUstream_st *copies;
	struct buffer buffers[BUFFERS];
};

/* blocks that go through a stage, in turns of as many as fit in a buffer */
struct pass {
	struct wfi_gpu_side blocks; /* in the GPU's memory */
	uint64_t host;
	uint32_t len;
	struct CUstream_st *stream;
	bool to_host;
};

/* in the GPU's context. Return: a CUresult */
static int start(struct wfi_gpu_stage *s)
{
	const struct wfi_cuda *cuda = s->gpu->cuda;
	int res = cuda->cuStreamCreate(&s->copies, WFI_CUDA_STREAM_NON_BLOCKING);
	unsigned i;

	for (i = 0; i < BUFFERS && !res; i++) {
		struct buffer *b = &s->buffers[i];

		res = cuda->cuMemAlloc(&b->mem, s->bytes);
		if (!res)
			res = cuda->cuEventCreate(&b->filled, WFI_CUDA_EVENT_NO_TIMING);
		if (!res)
			res = cuda->cuEventCreate(&b->empty, WFI_CUDA_EVENT_NO_TIMING);
	}
	return res;
}

int wfi_gpu_stage_create(struct wfi_gpu *gpu, uint64_t bytes, struct wfi_gpu_stage **out)
{
	struct wfi_gpu_stage *s = wfi_alloc(gpu->env, sizeof(*s));
	int res, ret;

	if (!s)
		return -ENOMEM;
	s->gpu = gpu;
	s->bytes = bytes ? bytes : BUFFER_BYTES;
	res = wfi_gpu_enter(gpu);
	if (!res) {
		res = start(s);
		wfi_gpu_leave(gpu);
	}
	if (res) {
		ret = wfi_gpu_failed(gpu, "no stage for copies", res);
		wfi_gpu_stage_destroy(s);
		return ret;
	}
	*out = s;
	return 0;
}

void wfi_gpu_stage_destroy(struct wfi_gpu_stage *s)
{
	const struct wfi_cuda *cuda;
	unsigned i;

	if (!s)
		return;
	cuda = s->gpu->cuda;
	/* a context that is lost takes all that was in it along */
	if (!wfi_gpu_enter(s->gpu)) {
		for (i = 0; i < BUFFERS; i++) {
			if (s->buffers[i].mem)
				cuda->cuMemFree(s->buffers[i].mem);
			if (s->buffers[i].filled)
				cuda->cuEventDestroy(s->buffers[i].filled);
			if (s->buffers[i].empty)
				cuda->cuEventDestroy(s->buffers[i].empty);
		}
		if (s->copies)
			cuda->cuStreamDestroy(s->copies);
		wfi_gpu_leave(s->gpu);
	}
	wfi_free(s->gpu->env, s, sizeof(*s));
}

/* what is next in @to waits for what was last in @from. Return: a CUresult */
static int after(const struct wfi_cuda *cuda, struct CUevent_st *event, struct CUstream_st *from,
		 struct CUstream_st *to)
{
	int res = cuda->cuEventRecord(event, from);

	return res ? res : cuda->cuStreamWaitEvent(to, event, 0);
}

/* between the blocks and a buffer, in the caller's stream. Return: as wfi_cuda_errno(), logged */
static int move(struct wfi_gpu_stage *s, const struct pass *p, const struct buffer *b, uint32_t nr)
{
	const struct wfi_gpu_side packed = { .base = b->mem, .stride = p->len };

	return wfi_gpu_move_blocks(s->gpu, p->to_host ? &p->blocks : &packed,
				   p->to_host ? &packed : &p->blocks, p->len, nr, p->stream);
}

/* between a buffer and the host, by the copy engine. Return: as wfi_cuda_errno(), logged */
static int copy(struct wfi_gpu_stage *s, const struct pass *p, const struct buffer *b, uint32_t nr)
{
	const uint64_t to = p->to_host ? p->host : b->mem, from = p->to_host ? b->mem : p->host;
	int res = s->gpu->cuda->cuMemcpyAsync(to, from, (uint64_t)nr * p->len, s->copies);

	return res ? wfi_gpu_failed(s->gpu, "a copy through a stage", res) : 0;
}

/*
 * @nr blocks through one buffer. The one that fills it waits until it is empty, the one that
 * empties it until it is filled; what is on the other buffer meanwhile, neither waits for.
 */
static int turn(struct wfi_gpu_stage *s, const struct pass *p, struct buffer *b, uint32_t nr)
{
	const struct wfi_cuda *cuda = s->gpu->cuda;
	struct CUstream_st *fills = p->to_host ? p->stream : s->copies;
	struct CUstream_st *empties = p->to_host ? s->copies : p->stream;
	int res = cuda->cuStreamWaitEvent(fills, b->empty, 0), ret = 0;

	if (!res)
		ret = p->to_host ? move(s, p, b, nr) : copy(s, p, b, nr);
	if (!res && !ret)
		res = after(cuda, b->filled, fills, empties);
	if (!res && !ret)
		ret = p->to_host ? copy(s, p, b, nr) : move(s, p, b, nr);
	if (!res && !ret)
		res = cuda->cuEventRecord(b->empty, empties);
	return res ? wfi_gpu_failed(s->gpu, "a turn through a stage", res) : ret;
}

static void advance(struct pass *p, uint32_t nr)
{
	p->host += (uint64_t)nr * p->len;
	if (p->blocks.index)
		p->blocks.index += 4ull * nr;
	else
		p->blocks.base += nr * p->blocks.stride;
}

/* in the GPU's context */
static int turns(struct wfi_gpu_stage *s, struct pass *p, uint32_t nr)
{
	const struct wfi_cuda *cuda = s->gpu->cuda;
	const uint32_t fit = (uint32_t)wfi_min(s->bytes / p->len, UINT32_MAX);
	uint32_t n;
	unsigned i;
	int res, ret = 0;

	/* what is before all this in the caller's stream */
	res = after(cuda, s->buffers[0].empty, p->stream, s->copies);
	for (i = 1; i < BUFFERS && !res; i++)
		res = cuda->cuEventRecord(s->buffers[i].empty, p->stream);
	for (i = 0; nr && !res && !ret; i = (i + 1) % BUFFERS) {
		n = (uint32_t)wfi_min(nr, fit);
		ret = turn(s, p, &s->buffers[i], n);
		advance(p, n);
		nr -= n;
	}
	for (i = 0; i < BUFFERS && !res && !ret; i++)
		res = cuda->cuStreamWaitEvent(p->stream, s->buffers[i].empty, 0);
	return res ? wfi_gpu_failed(s->gpu, "copies through a stage", res) : ret;
}

static int pass(struct wfi_gpu_stage *s, struct pass *p, uint32_t nr)
{
	int res, ret;

	if (!p->len || p->len > s->bytes) {
		wfi_err("gpu %d: blocks of %u bytes do not go through a stage of %llu",
			s->gpu->ordinal, p->len, (unsigned long long)s->bytes);
		return -EINVAL;
	}
	res = wfi_gpu_enter(s->gpu);
	if (res)
		return wfi_gpu_failed(s->gpu, "copies through a stage", res);
	ret = turns(s, p, nr);
	wfi_gpu_leave(s->gpu);
	return ret;
}

int wfi_gpu_to_host(struct wfi_gpu_stage *stage, const struct wfi_gpu_side *src, uint32_t len,
		    uint32_t nr, void *host, struct CUstream_st *stream)
{
	struct pass p = { *src, (uintptr_t)host, len, stream, true };

	return pass(stage, &p, nr);
}

int wfi_gpu_from_host(struct wfi_gpu_stage *stage, const void *host, const struct wfi_gpu_side *dst,
		      uint32_t len, uint32_t nr, struct CUstream_st *stream)
{
	struct pass p = { *dst, (uintptr_t)host, len, stream, false };

	return pass(stage, &p, nr);
}
