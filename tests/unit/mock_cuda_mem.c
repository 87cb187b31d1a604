/* SPDX-License-Identifier: Apache-2.0 */
/* mock_cuda_mem.c - memory of GPUs that is the host's: malloc()'s, so that sanitizers see it, or in
 * files, which other processes map as they do GPU memory */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/unit/mock_cuda_private.h"

#define PAGE 4096u
#define GRANULARITY (2u << 20)

enum kind { OWN, OPENED, MAPPED, REGISTERED };

/* a range of addresses. @fd: -1: malloc()'s */
struct range {
	uint64_t base;
	size_t bytes;
	enum kind kind;
	int fd;
	int gpu;
	uint32_t serial;
	uint64_t handle; /* of MAPPED */
	struct range *next;
};

/* of cuMemCreate(); lives while it, or a mapping of it, does */
struct vmm {
	size_t bytes;
	int fd;
	int gpu;
	bool exports;
	int refs;
};

static struct range *ranges;
static uint32_t serials;
static int nr_handles;
static uint64_t vmm_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int mock_cuda_held(void)
{
	int nr = nr_handles;

	for (const struct range *r = ranges; r; r = r->next)
		nr++;
	return nr;
}

static struct range *add(struct range r)
{
	struct range *new = malloc(sizeof(*new));

	if (!new)
		abort();
	pthread_mutex_lock(&lock);
	r.serial = ++serials;
	r.next = ranges;
	*new = r;
	ranges = new;
	pthread_mutex_unlock(&lock);
	return new;
}

static bool is_gpu(const struct range *r)
{
	return r->kind != REGISTERED;
}

/* Return: the range that @mem lies in, or NULL */
static struct range *find(uint64_t mem, bool gpu)
{
	struct range *r;

	pthread_mutex_lock(&lock);
	for (r = ranges; r; r = r->next)
		if (is_gpu(r) == gpu && mem - r->base < r->bytes)
			break;
	pthread_mutex_unlock(&lock);
	return r;
}

/* out of the list */
static void take(struct range *r)
{
	struct range **link;

	pthread_mutex_lock(&lock);
	for (link = &ranges; *link != r; link = &(*link)->next)
		;
	*link = r->next;
	pthread_mutex_unlock(&lock);
}

static size_t pages(size_t bytes)
{
	return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void drop(struct range *r)
{
	take(r);
	if (r->fd < 0) {
		free((void *)(uintptr_t)r->base);
	} else {
		munmap((void *)(uintptr_t)r->base, pages(r->bytes));
		close(r->fd);
	}
	free(r);
}

static void *map(int fd, size_t bytes)
{
	void *mem = mmap(NULL, pages(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/* ---- the host's ---- */

int cuMemHostAlloc(void **mem, size_t bytes, unsigned flags)
{
	int res = no_context() ? no_context() : fault("cuMemHostAlloc");

	if (res || flags != (WFI_CUDA_HOST_PORTABLE | WFI_CUDA_HOST_MAPPED))
		return res ? res : WFI_CUDA_INVALID_VALUE;
	*mem = malloc(bytes);
	return *mem ? 0 : WFI_CUDA_OUT_OF_MEMORY;
}

int cuMemFreeHost(void *mem)
{
	free(mem);
	return no_context();
}

int cuMemHostRegister(void *mem, size_t bytes, unsigned flags)
{
	int res = no_context() ? no_context() : fault("cuMemHostRegister");

	if (res || !bytes || flags != (WFI_CUDA_HOST_PORTABLE | WFI_CUDA_HOST_MAPPED))
		return res ? res : WFI_CUDA_INVALID_VALUE;
	if (find((uintptr_t)mem, false))
		return WFI_CUDA_HOST_ALREADY;
	add((struct range){ .base = (uintptr_t)mem, .bytes = bytes, .kind = REGISTERED, .fd = -1 });
	return 0;
}

int cuMemHostGetDevicePointer(uint64_t *out, void *mem, unsigned flags)
{
	int res = no_context() ? no_context() : fault("cuMemHostGetDevicePointer");

	*out = (uintptr_t)mem;
	if (!res && (flags || !find((uintptr_t)mem, false)))
		res = WFI_CUDA_INVALID_VALUE;
	return res;
}

int cuMemHostUnregister(void *mem)
{
	struct range *r = find((uintptr_t)mem, false);

	if (no_context() || !r || r->base != (uintptr_t)mem)
		return WFI_CUDA_INVALID_VALUE;
	take(r);
	free(r);
	return 0;
}

/* ---- of cudaMalloc() ---- */

int cuMemAlloc(uint64_t *mem, size_t bytes)
{
	int res = no_context() ? no_context() : fault("cuMemAlloc");
	struct range r = { .bytes = bytes, .kind = OWN, .fd = -1 };
	char name[32];
	void *at;

	if (!res && bytes > MOCK_CUDA_BYTES)
		res = WFI_CUDA_OUT_OF_MEMORY;
	if (res)
		return res;
	r.gpu = current_gpu();
	if (mock_cuda.shared_memory) {
		snprintf(name, sizeof(name), "mock-gpu-%u", serials + 1);
		r.fd = memfd_create(name, MFD_CLOEXEC);
		if (r.fd < 0 || ftruncate(r.fd, (off_t)pages(bytes)))
			return WFI_CUDA_OUT_OF_MEMORY;
		at = map(r.fd, bytes);
	} else {
		at = malloc(bytes);
	}
	if (!at)
		return WFI_CUDA_OUT_OF_MEMORY;
	r.base = (uintptr_t)at;
	add(r);
	*mem = r.base;
	return 0;
}

int cuMemFree(uint64_t mem)
{
	struct range *r = find(mem, true);

	if (!r || r->base != mem || r->kind == MAPPED)
		return WFI_CUDA_INVALID_VALUE;
	drop(r);
	return no_context();
}

int cuMemGetAddressRange(uint64_t *base, size_t *bytes, uint64_t mem)
{
	const struct range *r = find(mem, true);

	if (no_context())
		return no_context();
	if (!r)
		return WFI_CUDA_NOT_FOUND;
	*base = r->base;
	*bytes = r->bytes;
	return fault("cuMemGetAddressRange");
}

int cuPointerGetAttribute(void *value, int attr, uint64_t mem)
{
	const struct range *r = find(mem, true);
	struct CUctx_st *ctx;

	if (!r)
		return WFI_CUDA_INVALID_VALUE;
	ctx = r->kind == MAPPED ? NULL : context_of(r->gpu);
	if (attr == WFI_CUDA_POINTER_ORDINAL)
		memcpy(value, &r->gpu, sizeof(r->gpu));
	else if (attr == WFI_CUDA_POINTER_CONTEXT)
		memcpy(value, &ctx, sizeof(ctx));
	else
		return WFI_CUDA_INVALID_VALUE;
	return fault("cuPointerGetAttribute");
}

struct ipc {
	uint64_t bytes;
	uint64_t mem;
	pid_t pid;
	int fd;
	int gpu;
	uint32_t serial;
};

int cuIpcGetMemHandle(struct wfi_cuda_ipc *handle, uint64_t mem)
{
	const struct range *r = find(mem, true);
	struct ipc ipc;

	if (no_context() || !r || r->kind == MAPPED)
		return no_context() ? no_context() : WFI_CUDA_INVALID_VALUE;
	ipc = (struct ipc){ r->bytes, r->base, getpid(), r->fd, r->gpu, r->serial };
	memset(handle, 0, sizeof(*handle));
	memcpy(handle, &ipc, sizeof(ipc));
	return fault("cuIpcGetMemHandle");
}

/* Return: the file that an allocation of another process lies in; -1 it has gone */
static int ipc_open(const struct ipc *ipc)
{
	char path[64], link[64] = "", name[32];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)ipc->pid, ipc->fd);
	snprintf(name, sizeof(name), "/memfd:mock-gpu-%u ", ipc->serial);
	if (readlink(path, link, sizeof(link) - 1) < 0 || strncmp(link, name, strlen(name)) != 0)
		return -1;
	return open(path, O_RDWR | O_CLOEXEC);
}

/* within one process, which no driver allows, it is a copy */
int cuIpcOpenMemHandle(uint64_t *mem, struct wfi_cuda_ipc handle, unsigned flags)
{
	struct range r = { .kind = OPENED, .fd = -1 };
	struct ipc ipc;
	void *at;

	memcpy(&ipc, &handle, sizeof(ipc));
	if (no_context() || flags != WFI_CUDA_IPC_LAZY_PEER)
		return WFI_CUDA_INVALID_VALUE;
	if (ipc.fd >= 0) {
		r.fd = ipc_open(&ipc);
		if (r.fd < 0)
			return WFI_CUDA_INVALID_HANDLE;
		at = map(r.fd, ipc.bytes);
	} else {
		if (ipc.pid != getpid() || !find(ipc.mem, true))
			return WFI_CUDA_INVALID_HANDLE;
		at = malloc(ipc.bytes);
		if (at)
			memcpy(at, (void *)(uintptr_t)ipc.mem, ipc.bytes);
	}
	if (!at)
		return WFI_CUDA_MAP_FAILED;
	r.base = (uintptr_t)at;
	r.bytes = ipc.bytes;
	r.gpu = ipc.gpu;
	if (fault("cuIpcOpenMemHandle")) {
		drop(add(r));
		return fault("cuIpcOpenMemHandle");
	}
	*mem = add(r)->base;
	return 0;
}

int cuIpcCloseMemHandle(uint64_t mem)
{
	return cuMemFree(mem);
}

/* the pages that a range lies in. Memory that no other process sees has an empty file: what a NIC
 * would do there, nobody does */
int cuMemGetHandleForAddressRange(void *out, uint64_t mem, size_t bytes, int kind,
				  unsigned long long flags)
{
	int res = no_context() ? no_context() : fault("cuMemGetHandleForAddressRange"), fd;
	const struct range *r = find(mem, true);

	/* what malloc() gave begins on no page: its first is that of what lies in it */
	if (!r)
		r = find(mem + PAGE - 1, true);
	if (res || !mock_cuda.dmabuf)
		return res ? res : WFI_CUDA_NOT_SUPPORTED;
	if (!r || kind != WFI_CUDA_RANGE_DMABUF || flags || !bytes || mem % PAGE || bytes % PAGE ||
	    mem + bytes >= r->base + pages(r->bytes) + PAGE)
		return WFI_CUDA_INVALID_VALUE;
	fd = r->fd < 0 ? memfd_create("mock-dmabuf", MFD_CLOEXEC)
		       : fcntl(r->fd, F_DUPFD_CLOEXEC, 3);
	memcpy(out, &fd, sizeof(fd));
	return fd < 0 ? WFI_CUDA_OPERATING_SYSTEM : 0;
}

/* ---- of cuMemCreate() ---- */

static struct vmm *vmm(uint64_t handle)
{
	return (void *)(uintptr_t)handle;
}

static uint64_t vmm_new(size_t bytes, int fd, int gpu, bool exports)
{
	struct vmm *v = malloc(sizeof(*v));

	if (!v)
		abort();
	*v = (struct vmm){ bytes, fd, gpu, exports, 1 };
	nr_handles++;
	vmm_bytes += bytes;
	return (uintptr_t)v;
}

int cuMemCreate(uint64_t *handle, size_t bytes, const struct wfi_cuda_vmm_prop *prop,
		unsigned long long flags)
{
	int res = no_context() ? no_context() : fault("cuMemCreate"), fd;
	char name[32];

	if (res)
		return res;
	if (flags || !bytes || bytes % GRANULARITY || prop->type != WFI_CUDA_VMM_PINNED ||
	    prop->location.type != WFI_CUDA_VMM_DEVICE || prop->location.id >= mock_cuda.nr_gpus)
		return WFI_CUDA_INVALID_VALUE;
	if (vmm_bytes + bytes > (mock_cuda.bytes ? mock_cuda.bytes : MOCK_CUDA_BYTES))
		return WFI_CUDA_OUT_OF_MEMORY;
	snprintf(name, sizeof(name), "mock-vmm-%d", prop->location.id);
	fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		return WFI_CUDA_OUT_OF_MEMORY;
	*handle = vmm_new(bytes, fd, prop->location.id, prop->handles & WFI_CUDA_VMM_FD);
	return 0;
}

int cuMemGetAllocationGranularity(size_t *bytes, const struct wfi_cuda_vmm_prop *prop, int kind)
{
	*bytes = GRANULARITY;
	if (prop->type != WFI_CUDA_VMM_PINNED || kind != WFI_CUDA_VMM_MINIMUM)
		return WFI_CUDA_INVALID_VALUE;
	return fault("cuMemGetAllocationGranularity");
}

int cuMemRelease(uint64_t handle)
{
	struct vmm *v = vmm(handle);

	if (--v->refs)
		return 0;
	close(v->fd);
	vmm_bytes -= v->bytes;
	free(v);
	nr_handles--;
	return 0;
}

int cuMemRetainAllocationHandle(uint64_t *handle, void *mem)
{
	const struct range *r = find((uintptr_t)mem, true);
	int res = fault("cuMemRetainAllocationHandle");

	if (res || !r || r->kind != MAPPED)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	vmm(r->handle)->refs++;
	*handle = r->handle;
	return 0;
}

int cuMemGetAllocationPropertiesFromHandle(struct wfi_cuda_vmm_prop *prop, uint64_t handle)
{
	*prop = (struct wfi_cuda_vmm_prop){
		.type = WFI_CUDA_VMM_PINNED,
		.handles = WFI_CUDA_VMM_FD,
		.location = { WFI_CUDA_VMM_DEVICE, vmm(handle)->gpu },
	};
	return fault("cuMemGetAllocationPropertiesFromHandle");
}

int cuMemExportToShareableHandle(void *out, uint64_t handle, int kind, unsigned long long flags)
{
	int res = fault("cuMemExportToShareableHandle"), fd;

	if (res || flags || kind != WFI_CUDA_VMM_FD || !vmm(handle)->exports)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	fd = fcntl(vmm(handle)->fd, F_DUPFD_CLOEXEC, 3);
	memcpy(out, &fd, sizeof(fd));
	return fd < 0 ? WFI_CUDA_OPERATING_SYSTEM : 0;
}

int cuMemImportFromShareableHandle(uint64_t *handle, void *in, int kind)
{
	int res = no_context() ? no_context() : fault("cuMemImportFromShareableHandle"), gpu;
	const int fd = (int)(uintptr_t)in;
	char path[64], link[64] = "";
	struct stat st;

	if (res || kind != WFI_CUDA_VMM_FD)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, link, sizeof(link) - 1) < 0 ||
	    sscanf(link, "/memfd:mock-vmm-%d", &gpu) != 1 || fstat(fd, &st))
		return WFI_CUDA_INVALID_VALUE;
	*handle = vmm_new((size_t)st.st_size, fcntl(fd, F_DUPFD_CLOEXEC, 3), gpu, false);
	return 0;
}

int cuMemAddressReserve(uint64_t *mem, size_t bytes, size_t align, uint64_t at,
			unsigned long long flags)
{
	int res = fault("cuMemAddressReserve");
	void *map;

	if (res || align || at || flags || !bytes || bytes % GRANULARITY)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	map = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return WFI_CUDA_OUT_OF_MEMORY;
	*mem = (uintptr_t)map;
	return 0;
}

int cuMemAddressFree(uint64_t mem, size_t bytes)
{
	return munmap((void *)(uintptr_t)mem, bytes) ? WFI_CUDA_INVALID_VALUE : 0;
}

int cuMemMap(uint64_t mem, size_t bytes, size_t off, uint64_t handle, unsigned long long flags)
{
	struct vmm *v = vmm(handle);
	int res = fault("cuMemMap");

	if (res || off || flags || bytes > v->bytes)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	if (mmap((void *)(uintptr_t)mem, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, v->fd, 0) ==
	    MAP_FAILED)
		return WFI_CUDA_OUT_OF_MEMORY;
	v->refs++;
	add((struct range){ .base = mem,
			    .bytes = bytes,
			    .kind = MAPPED,
			    .fd = -1,
			    .gpu = v->gpu,
			    .handle = handle });
	return 0;
}

int cuMemUnmap(uint64_t mem, size_t bytes)
{
	struct range *r = find(mem, true);

	if (!r || r->kind != MAPPED || r->base != mem || r->bytes != bytes)
		return WFI_CUDA_INVALID_VALUE;
	mmap((void *)(uintptr_t)mem, bytes, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	cuMemRelease(r->handle);
	take(r);
	free(r);
	return 0;
}

int cuMemSetAccess(uint64_t mem, size_t bytes, const struct wfi_cuda_vmm_access *access, size_t nr)
{
	int res = fault("cuMemSetAccess");

	if (res || nr != 1 || access->flags != WFI_CUDA_VMM_READ_WRITE)
		return res ? res : WFI_CUDA_INVALID_VALUE;
	return mprotect((void *)(uintptr_t)mem, bytes, PROT_READ | PROT_WRITE)
		       ? WFI_CUDA_INVALID_VALUE
		       : 0;
}
