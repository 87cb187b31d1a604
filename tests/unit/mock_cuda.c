/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "gpu/device.h"
#include "gpu/kernels/args.h"
#include "tests/unit/cpu_kernels.h"
#include "tests/unit/mock_cuda_private.h"

struct mock_cuda mock_cuda;

void mock_cuda_reset(void)
{
	mock_cuda = (struct mock_cuda){
		.nr_gpus = 2, .dmabuf = true, .flushes = true, .peers = true, .shared = 227 << 10
	};
}

const struct wfi_cuda *mock_cuda_table(void)
{
	static const struct wfi_cuda table = {
#define MEMBER(name, symbol, args) .name = name,
		WFI_CUDA_CALLS(MEMBER) WFI_CUDA_MAYBE(MEMBER)
#undef MEMBER
	};

	return &table;
}

int fault(const char *name)
{
	const char *call = mock_cuda.fail_call;

	return call && !strcmp(call, name) ? mock_cuda.fail_res : 0;
}

static int no_device(int dev)
{
	return dev >= 0 && dev < mock_cuda.nr_gpus ? 0 : WFI_CUDA_INVALID_DEVICE;
}

int cuInit(unsigned flags)
{
	return flags ? WFI_CUDA_INVALID_VALUE : fault("cuInit");
}

int cuDriverGetVersion(int *version)
{
	*version = 13000;
	return fault("cuDriverGetVersion");
}

int cuDeviceGetCount(int *nr)
{
	*nr = mock_cuda.nr_gpus;
	return fault("cuDeviceGetCount");
}

int cuDeviceGet(int *dev, int ordinal)
{
	*dev = ordinal;
	return no_device(ordinal);
}

int cuDeviceGetName(char *name, int len, int dev)
{
	snprintf(name, (size_t)len, "Mock GPU");
	return no_device(dev);
}

int cuDeviceGetUuid(struct wfi_cuda_uuid *uuid, int dev)
{
	memset(uuid, dev + 1, sizeof(*uuid));
	return no_device(dev);
}

int cuDeviceTotalMem(size_t *bytes, int dev)
{
	*bytes = MOCK_CUDA_BYTES;
	return no_device(dev);
}

int cuDeviceGetAttribute(int *value, int attr, int dev)
{
	switch (attr) {
	case WFI_CUDA_ATTR_NR_SM:
		*value = 132;
		break;
	case WFI_CUDA_ATTR_CC_MAJOR:
		*value = 9;
		break;
	case WFI_CUDA_ATTR_CC_MINOR:
		*value = 0;
		break;
	case WFI_CUDA_ATTR_SHARED:
		*value = mock_cuda.shared;
		break;
	case WFI_CUDA_ATTR_DMABUF:
		*value = mock_cuda.dmabuf;
		break;
	case WFI_CUDA_ATTR_ORDERING:
		*value = mock_cuda.ordering;
		break;
	case WFI_CUDA_ATTR_FLUSH:
	case WFI_CUDA_ATTR_WAIT_FLUSH:
		*value = mock_cuda.flushes;
		break;
	case WFI_CUDA_ATTR_HOST_POINTERS:
	case WFI_CUDA_ATTR_GPUDIRECT:
	case WFI_CUDA_ATTR_VMM_FD:
		*value = 1;
		break;
	case WFI_CUDA_ATTR_VMM:
		*value = !mock_cuda.no_vmm;
		break;
	default:
		return WFI_CUDA_INVALID_VALUE;
	}
	return no_device(dev) ? no_device(dev) : fault("cuDeviceGetAttribute");
}

int cuDeviceGetPCIBusId(char *id, int len, int dev)
{
	snprintf(id, (size_t)len, "0000:%02X:00.0", 0xa0 + dev);
	return no_device(dev);
}

int cuDeviceGetP2PAttribute(int *value, int attr, int src, int dst)
{
	*value = attr == WFI_CUDA_P2P_ACCESS ? mock_cuda.peers : 0;
	return no_device(src) || no_device(dst) || src == dst ? WFI_CUDA_INVALID_DEVICE
							      : fault("cuDeviceGetP2PAttribute");
}

/* ---- contexts ---- */

struct CUctx_st {
	_Atomic int refs;
};

/* static: LeakSanitizer reads a block of dynamic thread memory as glibc's where it begins 16 bytes
 * into a page, and then crashes on what it takes for an address */
#define THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

static struct CUctx_st contexts[MOCK_CUDA_GPUS];
static THREAD_LOCAL struct CUctx_st *current[4];
static THREAD_LOCAL unsigned nr_current;

int mock_cuda_refs(void)
{
	int nr = (int)nr_current;

	for (unsigned i = 0; i < MOCK_CUDA_GPUS; i++)
		nr += contexts[i].refs;
	return nr;
}

int current_gpu(void)
{
	return (int)(current[nr_current - 1] - contexts);
}

struct CUctx_st *context_of(int gpu)
{
	return &contexts[gpu];
}

int no_context(void)
{
	return nr_current ? 0 : WFI_CUDA_INVALID_CONTEXT;
}

int cuDevicePrimaryCtxRetain(struct CUctx_st **ctx, int dev)
{
	int res = no_device(dev) ? no_device(dev) : fault("cuDevicePrimaryCtxRetain");

	if (res)
		return res;
	contexts[dev].refs++;
	*ctx = &contexts[dev];
	return 0;
}

int cuDevicePrimaryCtxRelease(int dev)
{
	if (no_device(dev) || !contexts[dev].refs)
		return WFI_CUDA_INVALID_CONTEXT;
	contexts[dev].refs--;
	return 0;
}

int cuCtxPushCurrent(struct CUctx_st *ctx)
{
	int res = fault("cuCtxPushCurrent");

	if (!res && (!ctx->refs || nr_current == 4))
		res = WFI_CUDA_INVALID_CONTEXT;
	if (!res)
		current[nr_current++] = ctx;
	return res;
}

int cuCtxPopCurrent(struct CUctx_st **ctx)
{
	if (no_context())
		return no_context();
	*ctx = current[--nr_current];
	return 0;
}

/* ---- streams: what is asked for is done at once, or, while they are held, on release ---- */

struct copy {
	uint64_t dst;
	uint64_t src;
	size_t bytes;
	const uint32_t *word; /* no copy, but a wait for this */
	uint32_t value;
};

#define STREAM_QUEUE 64u

/* @after: nothing that is asked for here happens before so many held copies are done
 * @queue: what waits for a word, and what is behind that */
struct CUstream_st {
	unsigned after;
	struct copy queue[STREAM_QUEUE];
	unsigned head, tail;
	struct CUstream_st *next;
};

struct CUevent_st {
	struct timespec at;
	unsigned after;
	struct CUstream_st *stream; /* whose queue is to be done up to .tail; NULL: none is */
	unsigned tail;
	bool ipc;
	struct CUevent_st *next;
};

static struct copy held[256];
/* who releases is another thread than the one that copies */
static atomic_uint nr_held, nr_released;

static bool pending(unsigned after)
{
	return (int)(after - nr_released) > 0;
}

static void do_copy(const struct copy *c)
{
	memcpy((void *)(uintptr_t)c->dst, (void *)(uintptr_t)c->src, c->bytes);
	if (mock_cuda.flip && c->bytes) {
		*(uint8_t *)(uintptr_t)c->dst ^= 1;
		mock_cuda.flip--;
	}
}

void mock_cuda_release(void)
{
	for (; nr_released < nr_held; nr_released++)
		do_copy(&held[nr_released % 256]);
}

/* those of a context that was lost stay here */
static struct CUstream_st *streams;
static struct CUevent_st *events;
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;

/* as far as words allow. Return: whether nothing is left */
static bool stream_run(struct CUstream_st *s)
{
	for (; s->head != s->tail; s->head++) {
		const struct copy *c = &s->queue[s->head % STREAM_QUEUE];

		if (!c->word)
			do_copy(c);
		else if ((int32_t)(__atomic_load_n(c->word, __ATOMIC_ACQUIRE) - c->value) < 0)
			return false;
	}
	return true;
}

static int stream_add(struct CUstream_st *s, const struct copy *c)
{
	if (s->tail - s->head == STREAM_QUEUE)
		return WFI_CUDA_OUT_OF_MEMORY;
	s->queue[s->tail++ % STREAM_QUEUE] = *c;
	return 0;
}

int cuStreamWaitValue32(struct CUstream_st *stream, uint64_t word, uint32_t value, unsigned flags)
{
	const struct copy c = { .word = (const uint32_t *)(uintptr_t)word, .value = value };
	int res = no_context() ? no_context() : fault("cuStreamWaitValue32");

	if (res || !stream || word % 4 ||
	    flags != (mock_cuda.flushes ? (unsigned)WFI_CUDA_WAIT_FLUSH : WFI_CUDA_WAIT_GEQ))
		return res ? res : WFI_CUDA_INVALID_VALUE;
	return stream_add(stream, &c);
}

int cuFlushGPUDirectRDMAWrites(int target, int scope)
{
	int res = no_context() ? no_context() : fault("cuFlushGPUDirectRDMAWrites");

	if (res || !mock_cuda.flushes)
		return res ? res : WFI_CUDA_NOT_SUPPORTED;
	mock_cuda.flushed++;
	return target == WFI_CUDA_FLUSH_CURRENT_CTX && scope == WFI_CUDA_FLUSH_ALL
		       ? 0
		       : WFI_CUDA_INVALID_VALUE;
}

int cuCtxSynchronize(void)
{
	const struct timespec moment = { .tv_nsec = 100000 };
	struct CUstream_st *s;

	pthread_mutex_lock(&streams_lock);
	for (s = streams; s; s = s->next)
		while (!stream_run(s))
			nanosleep(&moment, NULL);
	pthread_mutex_unlock(&streams_lock);
	return no_context() ? no_context() : fault("cuCtxSynchronize");
}

int cuMemcpyAsync(uint64_t dst, uint64_t src, size_t bytes, struct CUstream_st *stream)
{
	const struct copy c = { .dst = dst, .src = src, .bytes = bytes };
	int res = no_context() ? no_context() : fault("cuMemcpyAsync");

	mock_cuda.copies++;
	if (res)
		return res;
	if (stream && !stream_run(stream))
		return stream_add(stream, &c);
	if ((!mock_cuda.hold || mock_cuda.pass) && (!stream || !pending(stream->after))) {
		mock_cuda.pass -= mock_cuda.pass > 0;
		do_copy(&c);
		return 0;
	}
	if (nr_held - nr_released == 256)
		return WFI_CUDA_OUT_OF_MEMORY;
	held[nr_held % 256] = c;
	nr_held++;
	if (stream)
		stream->after = nr_held;
	return 0;
}

int cuMemcpyBatchAsync(uint64_t *dsts, uint64_t *srcs, size_t *lens, size_t nr,
		       struct wfi_cuda_copy_attrs *attrs, size_t *attrs_from, size_t nr_attrs,
		       struct CUstream_st *stream)
{
	int res = 0;

	if (attrs->order != WFI_CUDA_ORDER_STREAM || *attrs_from || nr_attrs != 1 || !stream)
		return WFI_CUDA_INVALID_VALUE;
	for (size_t i = 0; i < nr && !res; i++)
		res = cuMemcpyAsync(dsts[i], srcs[i], lens[i], stream);
	return res;
}

int cuStreamCreate(struct CUstream_st **stream, unsigned flags)
{
	int res = no_context() ? no_context() : fault("cuStreamCreate");

	if (res || flags != WFI_CUDA_STREAM_NON_BLOCKING)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	*stream = calloc(1, sizeof(**stream));
	if (!*stream)
		return WFI_CUDA_OUT_OF_MEMORY;
	pthread_mutex_lock(&streams_lock);
	(*stream)->next = streams;
	streams = *stream;
	pthread_mutex_unlock(&streams_lock);
	return 0;
}

int cuStreamDestroy(struct CUstream_st *stream)
{
	struct CUstream_st **link;

	pthread_mutex_lock(&streams_lock);
	for (link = &streams; *link != stream; link = &(*link)->next)
		;
	*link = stream->next;
	pthread_mutex_unlock(&streams_lock);
	free(stream);
	return no_context();
}

int cuStreamWaitEvent(struct CUstream_st *stream, struct CUevent_st *event, unsigned flags)
{
	int res = no_context() ? no_context() : fault("cuStreamWaitEvent");

	if (!event || flags)
		return WFI_CUDA_INVALID_HANDLE;
	mock_cuda.waits++;
	if (!res && stream && pending(event->after))
		stream->after = event->after;
	return res;
}

int cuEventCreate(struct CUevent_st **event, unsigned flags)
{
	int res = no_context() ? no_context() : fault("cuEventCreate");

	if (res || flags & ~(unsigned)(WFI_CUDA_EVENT_NO_TIMING | WFI_CUDA_EVENT_IPC))
		return res ? res : WFI_CUDA_INVALID_VALUE;
	*event = calloc(1, sizeof(**event));
	if (!*event)
		return WFI_CUDA_OUT_OF_MEMORY;
	(*event)->after = nr_released;
	(*event)->ipc = flags & WFI_CUDA_EVENT_IPC;
	pthread_mutex_lock(&streams_lock);
	(*event)->next = events;
	events = *event;
	pthread_mutex_unlock(&streams_lock);
	return 0;
}

struct ipc_event {
	pid_t pid;
	uint32_t magic;
};

int cuIpcGetEventHandle(struct wfi_cuda_ipc_event *handle, struct CUevent_st *event)
{
	const struct ipc_event ipc = { getpid(), 0xe7e47 };

	memset(handle, 0, sizeof(*handle));
	memcpy(handle, &ipc, sizeof(ipc));
	if (no_context() || !event->ipc)
		return WFI_CUDA_INVALID_HANDLE;
	return fault("cuIpcGetEventHandle");
}

/* one that has come, since streams of other processes are not seen here */
int cuIpcOpenEventHandle(struct CUevent_st **event, struct wfi_cuda_ipc_event handle)
{
	struct ipc_event ipc;
	int res = fault("cuIpcOpenEventHandle");

	memcpy(&ipc, &handle, sizeof(ipc));
	if (!res && (ipc.magic != 0xe7e47 || ipc.pid == getpid() || kill(ipc.pid, 0)))
		res = WFI_CUDA_INVALID_HANDLE;
	return res ? res : cuEventCreate(event, WFI_CUDA_EVENT_NO_TIMING);
}

int cuEventDestroy(struct CUevent_st *event)
{
	struct CUevent_st **link;

	pthread_mutex_lock(&streams_lock);
	for (link = &events; *link != event; link = &(*link)->next)
		;
	*link = event->next;
	pthread_mutex_unlock(&streams_lock);
	free(event);
	return no_context();
}

int cuEventRecord(struct CUevent_st *event, struct CUstream_st *stream)
{
	int res = no_context() ? no_context() : fault("cuEventRecord");

	(void)stream;
	if (res)
		return res;
	clock_gettime(CLOCK_MONOTONIC, &event->at);
	event->after = stream ? stream->after : nr_held;
	event->stream = stream && !stream_run(stream) ? stream : NULL;
	event->tail = stream ? stream->tail : 0;
	return 0;
}

static bool behind_words(const struct CUevent_st *event)
{
	struct CUstream_st *s = event->stream;

	return s && !stream_run(s) && (int)(event->tail - s->head) > 0;
}

int cuEventQuery(struct CUevent_st *event)
{
	int res = no_context() ? no_context() : fault("cuEventQuery");

	if (!res && (pending(event->after) || behind_words(event)))
		return WFI_CUDA_NOT_READY;
	return res;
}

int cuEventSynchronize(struct CUevent_st *event)
{
	const struct timespec moment = { .tv_nsec = 100000 };

	mock_cuda_release();
	while (event && behind_words(event))
		nanosleep(&moment, NULL);
	return event ? fault("cuEventSynchronize") : WFI_CUDA_INVALID_HANDLE;
}

int cuEventElapsedTime(float *ms, struct CUevent_st *start, struct CUevent_st *end)
{
	*ms = (float)(end->at.tv_sec - start->at.tv_sec) * 1e3f +
	      (float)(end->at.tv_nsec - start->at.tv_nsec) / 1e6f;
	return fault("cuEventElapsedTime");
}

int cuMemsetD32Async(uint64_t dst, unsigned value, size_t nr, struct CUstream_st *stream)
{
	int res = no_context() ? no_context() : fault("cuMemsetD32Async");
	uint32_t *out = (void *)(uintptr_t)dst;

	(void)stream;
	for (size_t i = 0; i < nr && !res; i++)
		out[i] = value;
	return res;
}

/* ---- kernels: on the CPU, whether nvcc was there or not ---- */

const void *wfi_gpu_image(void)
{
	return mock_cuda.no_kernels ? NULL : "mock";
}

struct CUmod_st {
	int nr;
};

struct CUfunc_st {
	const struct cpu_kernel *kernel;
	int shared; /* that a launch may ask for */
};

int cuModuleLoadData(struct CUmod_st **module, const void *image)
{
	static struct CUmod_st only;
	int res = no_context() ? no_context() : fault("cuModuleLoadData");

	if (res)
		return res;
	only.nr++;
	*module = &only;
	return image ? 0 : WFI_CUDA_INVALID_IMAGE;
}

int cuModuleUnload(struct CUmod_st *module)
{
	module->nr--;
	return no_context();
}

int cuModuleGetFunction(struct CUfunc_st **func, struct CUmod_st *module, const char *name)
{
	static struct CUfunc_st funcs[CPU_KERNELS];
	unsigned i;

	for (i = 0; i < CPU_KERNELS; i++) {
		if (strcmp(cpu_kernels[i].name, name))
			continue;
		funcs[i] = (struct CUfunc_st){ &cpu_kernels[i], 48 << 10 };
		*func = &funcs[i];
		return module->nr > 0 ? fault("cuModuleGetFunction") : WFI_CUDA_INVALID_HANDLE;
	}
	return WFI_CUDA_NOT_FOUND;
}

int cuFuncSetAttribute(struct CUfunc_st *func, int attr, int value)
{
	if (attr != WFI_CUDA_FUNC_SHARED || value > mock_cuda.shared)
		return WFI_CUDA_INVALID_VALUE;
	func->shared = value;
	return 0;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, struct CUfunc_st *func, int threads,
						size_t shared)
{
	*blocks = 2048 / threads;
	if ((int)shared > func->shared || threads != func->kernel->threads)
		return WFI_CUDA_INVALID_VALUE;
	return fault("cuOccupancyMaxActiveBlocksPerMultiprocessor");
}

/* a bit of what was moved, where that is pieces at addresses of their own */
static void flip_moved(const struct wfi_gpu_move_args *args)
{
	const struct wfi_gpu_item *item = (const void *)(uintptr_t)args->items;

	if (!item || args->nr_runs || !item->len)
		return;
	*(uint8_t *)(uintptr_t)item->dst ^= 1;
	mock_cuda.flip--;
}

int cuLaunchKernel(struct CUfunc_st *func, unsigned grid_x, unsigned grid_y, unsigned grid_z,
		   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
		   struct CUstream_st *stream, void **params, void **extra)
{
	int res = no_context() ? no_context() : fault("cuLaunchKernel");

	(void)stream;
	if (res)
		return res;
	if (!grid_x || grid_y != 1 || grid_z != 1 || (int)block_x != func->kernel->threads ||
	    block_y != 1 || block_z != 1 || extra || (int)shared > func->shared)
		return WFI_CUDA_INVALID_VALUE;
	mock_cuda.launches++;
	cpu_kernel_run(func->kernel, grid_x, shared, params ? params[0] : NULL);
	if (mock_cuda.flip && !strcmp(func->kernel->name, "weft_move"))
		flip_moved(params[0]);
	return 0;
}
