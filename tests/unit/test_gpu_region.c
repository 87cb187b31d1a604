/* SPDX-License-Identifier: Apache-2.0 */
/* GPU memory from one process to another: what arrives, what is refused, and what stays behind */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "tests/unit/mock_cuda.h"
#include "weft_internal/ctl.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define VMM_BYTES (4u << 20)

struct rig {
	struct wfi_env env;
	struct wfi_gpu *gpu;
	const struct wfi_cuda *cuda;
	int held; /* by the GPU itself */
};

static char said[1024], why[WFI_GPU_WHY_MAX];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	snprintf(said, sizeof(said), "%s", line);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	mock_cuda_reset();
	mock_cuda.shared_memory = true;
	wfi_log_set_sink(sink, NULL);
	assert_int_equal(wfi_env_real_init(&r->env), 0);
	r->cuda = mock_cuda_table();
	assert_int_equal(wfi_gpu_open(&r->env, r->cuda, 0, &r->gpu), 0);
	r->held = mock_cuda_held();
	*state = r;
	return 0;
}

/* whatever failed, nothing is left */
static int teardown(void **state)
{
	struct rig *r = *state;

	mock_cuda.fail_call = NULL;
	assert_int_equal(mock_cuda_held(), r->held);
	wfi_gpu_close(r->gpu);
	assert_int_equal(mock_cuda_refs(), 0);
	wfi_log_set_sink(NULL, NULL);
	free(r);
	return 0;
}

static uint64_t malloc_on(const struct wfi_gpu *gpu, size_t bytes)
{
	uint64_t mem;

	assert_int_equal(wfi_gpu_enter(gpu), 0);
	assert_int_equal(gpu->cuda->cuMemAlloc(&mem, bytes), 0);
	wfi_gpu_leave(gpu);
	return mem;
}

static void free_mem(const struct rig *r, uint64_t mem)
{
	assert_int_equal(wfi_gpu_enter(r->gpu), 0);
	assert_int_equal(r->cuda->cuMemFree(mem), 0);
	wfi_gpu_leave(r->gpu);
}

/* memory of cuMemCreate(), mapped */
static uint64_t vmm_map(const struct rig *r, bool exports)
{
	const struct wfi_cuda_vmm_prop prop = {
		.type = WFI_CUDA_VMM_PINNED,
		.handles = exports ? WFI_CUDA_VMM_FD : 0,
		.location = { WFI_CUDA_VMM_DEVICE, 0 },
	};
	const struct wfi_cuda_vmm_access access = {
		.location = prop.location,
		.flags = WFI_CUDA_VMM_READ_WRITE,
	};
	uint64_t handle, mem;

	assert_int_equal(wfi_gpu_enter(r->gpu), 0);
	assert_int_equal(r->cuda->cuMemCreate(&handle, VMM_BYTES, &prop, 0), 0);
	assert_int_equal(r->cuda->cuMemAddressReserve(&mem, VMM_BYTES, 0, 0, 0), 0);
	assert_int_equal(r->cuda->cuMemMap(mem, VMM_BYTES, 0, handle, 0), 0);
	assert_int_equal(r->cuda->cuMemSetAccess(mem, VMM_BYTES, &access, 1), 0);
	assert_int_equal(r->cuda->cuMemRelease(handle), 0);
	wfi_gpu_leave(r->gpu);
	return mem;
}

static void vmm_unmap(const struct rig *r, uint64_t mem)
{
	assert_int_equal(r->cuda->cuMemUnmap(mem, VMM_BYTES), 0);
	assert_int_equal(r->cuda->cuMemAddressFree(mem, VMM_BYTES), 0);
}

/* ---- cudaMalloc() ---- */

static void test_ipc(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_region region = { 0 };
	struct wfi_gpu_export e, bad;
	uint64_t mem = malloc_on(r->gpu, 8192);
	int fd = 7;

	strcpy((char *)(uintptr_t)mem + 1000, "prefill");
	/* in no context, and it leaves none behind */
	assert_int_equal(wfi_gpu_export(r->cuda, mem + 1000, 8192 - 1000, &e, &fd, why), 0);
	assert_int_equal(mock_cuda_refs(), 1);
	assert_int_equal(e.kind, WFI_GPU_EXPORT_IPC);
	assert_int_equal(e.off, 1000);
	assert_int_equal(fd, -1);
	assert_int_equal(wfi_gpu_export(r->cuda, mem + 1000, 8192 - 999, &bad, &fd, why), -EINVAL);
	assert_non_null(strstr(why, "ends after 7192: register each allocation"));
	assert_int_equal(wfi_gpu_export(r->cuda, mem, 0, &bad, &fd, why), -EINVAL);
	assert_int_equal(wfi_gpu_export(r->cuda, mem, UINT64_MAX, &bad, &fd, why), -EINVAL);
	assert_int_equal(wfi_gpu_import(r->gpu, &e, -1, &region), 0);
	assert_int_equal(region.len, 8192 - 1000);
	assert_string_equal((char *)(uintptr_t)region.addr, "prefill");
	/* one memory, not a copy */
	strcpy((char *)(uintptr_t)mem + 1000, "decode");
	assert_string_equal((char *)(uintptr_t)region.addr, "decode");
	wfi_gpu_region_close(&region);
	wfi_gpu_region_close(&region);
	/* what lies about its size, and what is another GPU's */
	bad = e;
	bad.off = UINT64_MAX - 5;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, -1, &region), -EINVAL);
	bad.off = 1001;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, -1, &region), -EINVAL);
	bad = e;
	bad.len = 0;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, -1, &region), -EINVAL);
	bad = e;
	bad.kind = 3;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, -1, &region), -EINVAL);
	bad = e;
	bad.uuid[3] ^= 1;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, -1, &region), -EXDEV);
	assert_non_null(strstr(said, "another GPU"));
	/* freed */
	free_mem(r, mem);
	assert_int_equal(wfi_gpu_export(r->cuda, mem, 16, &bad, &fd, why), -ESTALE);
	assert_non_null(strstr(why, "or no longer"));
	assert_int_equal(wfi_gpu_import(r->gpu, &e, -1, &region), -ESTALE);
	/* by a driver of another version: it can't know it, and says why */
	e.driver = 12040;
	assert_int_equal(wfi_gpu_import(r->gpu, &e, -1, &region), -EPROTO);
	assert_non_null(strstr(said, "is of a driver of CUDA 12.4, this one has 13.0"));
	assert_null(region.gpu);
}

static void test_other_gpu(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_region region = { 0 };
	struct wfi_gpu_export e;
	struct wfi_gpu *second;
	uint64_t mem;
	int fd;

	assert_int_equal(wfi_gpu_open(&r->env, r->cuda, 1, &second), 0);
	mem = malloc_on(second, 4096);
	assert_int_equal(wfi_gpu_export(r->cuda, mem, 4096, &e, &fd, why), 0);
	assert_int_equal(e.uuid[0], 2);
	assert_int_equal(wfi_gpu_import(r->gpu, &e, fd, &region), -EXDEV);
	assert_int_equal(wfi_gpu_region_here(r->gpu, &e, &region), -EXDEV);
	free_mem(r, mem);
	wfi_gpu_close(second);
}

static void test_here(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_region region = { 0 };
	struct wfi_gpu_export e;
	uint64_t mem = malloc_on(r->gpu, 4096);
	int fd;

	assert_int_equal(wfi_gpu_export(r->cuda, mem + 16, 4000, &e, &fd, why), 0);
	assert_int_equal(wfi_gpu_region_here(r->gpu, &e, &region), 0);
	assert_int_equal(region.addr, mem + 16);
	wfi_gpu_region_close(&region);
	e.len = 4090;
	assert_int_equal(wfi_gpu_region_here(r->gpu, &e, &region), -EINVAL);
	free_mem(r, mem);
	assert_int_equal(wfi_gpu_region_here(r->gpu, &e, &region), -ESTALE);
	assert_null(region.gpu);
}

/* ---- for NICs ---- */

/* whole pages, wherever the region begins; the mock takes nothing else */
static void test_dmabuf(void **state)
{
	struct rig *r = *state;
	uint64_t mem = malloc_on(r->gpu, 3 * 4096), off;
	char text[8];
	int fd;

	strcpy((char *)(uintptr_t)mem + 5000, "here");
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem + 5000, 4000, &fd, &off, why), 0);
	assert_int_equal(off, 5000 - 4096);
	/* this one is memory, and shows what a NIC would see */
	assert_int_equal(pread(fd, text, sizeof(text), 5000), sizeof(text));
	assert_string_equal(text, "here");
	close(fd);
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem, 3 * 4096, &fd, &off, why), 0);
	assert_int_equal(off, 0);
	close(fd);
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem, 0, &fd, &off, why), -EINVAL);
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem, UINT64_MAX - 10, &fd, &off, why), -EINVAL);
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem, 20 * 4096, &fd, &off, why), -EOPNOTSUPP);
	mock_cuda.dmabuf = false;
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem, 4096, &fd, &off, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "no dma-buf"));
	mock_cuda.dmabuf = true;
	free_mem(r, mem);
	assert_int_equal(wfi_gpu_dmabuf(r->cuda, mem, 4096, &fd, &off, why), -ESTALE);
	assert_int_equal(mock_cuda_refs(), 1);
}

static void test_dmabuf_old(void **state)
{
	struct rig *r = *state;
	struct wfi_cuda old = *r->cuda;
	uint64_t mem = malloc_on(r->gpu, 4096), off;
	int fd;

	old.cuMemGetHandleForAddressRange = NULL;
	assert_int_equal(wfi_gpu_dmabuf(&old, mem, 4096, &fd, &off, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "CUDA 11.7"));
	free_mem(r, mem);
}

/* ---- cuMemCreate() ---- */

static void test_vmm(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_region region = { 0 };
	struct wfi_gpu_export e, bad;
	uint64_t mem = vmm_map(r, true);
	int fd, other;

	assert_int_equal(wfi_gpu_export(r->cuda, mem + 4096, VMM_BYTES - 4096, &e, &fd, why), 0);
	assert_int_equal(mock_cuda_refs(), 1);
	assert_int_equal(e.kind, WFI_GPU_EXPORT_VMM);
	assert_int_equal(wfi_gpu_import(r->gpu, &e, fd, &region), 0);
	strcpy((char *)(uintptr_t)mem + 4096, "prefill");
	assert_string_equal((char *)(uintptr_t)region.addr, "prefill");
	/* the owner unmaps it: what is mapped here lives on */
	vmm_unmap(r, mem);
	assert_string_equal((char *)(uintptr_t)region.addr, "prefill");
	wfi_gpu_region_close(&region);
	assert_int_equal(mock_cuda_held(), r->held);

	/* no descriptor, one of something else, and sizes that are not so */
	assert_int_equal(wfi_gpu_import(r->gpu, &e, -1, &region), -EBADF);
	assert_non_null(strstr(said, "without its descriptor"));
	other = memfd_create("no-gpu", MFD_CLOEXEC);
	assert_int_equal(wfi_gpu_import(r->gpu, &e, other, &region), -EBADF);
	close(other);
	bad = e;
	bad.size *= 2;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, fd, &region), -EINVAL);
	assert_non_null(strstr(said, "not of 8388608 bytes, as it says"));
	bad.size = 4096;
	bad.off = 0;
	bad.len = 4096;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, fd, &region), -EINVAL);
	bad = e;
	bad.off = 8192;
	assert_int_equal(wfi_gpu_import(r->gpu, &bad, fd, &region), -EINVAL);
	assert_null(region.gpu);
	close(fd);
}

static void test_vmm_kept(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_export e;
	uint64_t mem = vmm_map(r, false);
	int fd;

	assert_int_equal(wfi_gpu_export(r->cuda, mem, 4096, &e, &fd, why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR"));
	vmm_unmap(r, mem);
}

/* ---- faults ---- */

struct fault {
	const char *call;
	int res;
	int export_err; /* 0: it is not asked */
	int import_err;
};

static void run_faults(struct rig *r, uint64_t mem, const struct fault *rows, unsigned nr)
{
	struct wfi_gpu_region region = { 0 };
	struct wfi_gpu_export e, out;
	int fd, none = -1;

	assert_int_equal(wfi_gpu_export(r->cuda, mem, 8192, &e, &fd, why), 0);
	for (unsigned i = 0; i < nr; i++) {
		const int held = mock_cuda_held();

		mock_cuda.fail_call = rows[i].call;
		mock_cuda.fail_res = rows[i].res;
		*why = *said = 0;
		if (rows[i].export_err) {
			assert_int_equal(wfi_gpu_export(r->cuda, mem, 8192, &out, &none, why),
					 rows[i].export_err);
			assert_true(strlen(why) > 10);
		}
		if (rows[i].import_err) {
			assert_int_equal(wfi_gpu_import(r->gpu, &e, fd, &region),
					 rows[i].import_err);
			assert_true(strlen(said) > 10);
		}
		assert_int_equal(none, -1);
		assert_null(region.gpu);
		assert_int_equal(mock_cuda_held(), held);
		assert_int_equal(mock_cuda_refs(), 1);
	}
	mock_cuda.fail_call = NULL;
	if (fd >= 0)
		close(fd);
}

static void test_ipc_faults(void **state)
{
	static const struct fault rows[] = {
		{ "cuIpcGetMemHandle", WFI_CUDA_NOT_SUPPORTED, -EOPNOTSUPP, 0 },
		{ "cuIpcGetMemHandle", WFI_CUDA_INVALID_VALUE, -EOPNOTSUPP, 0 },
		{ "cuIpcGetMemHandle", WFI_CUDA_ECC, -EIO, 0 },
		{ "cuPointerGetAttribute", WFI_CUDA_INVALID_VALUE, -ESTALE, 0 },
		{ "cuPointerGetAttribute", WFI_CUDA_DEINITIALIZED, -ENODEV, 0 },
		{ "cuIpcOpenMemHandle", WFI_CUDA_INVALID_HANDLE, 0, -ESTALE },
		{ "cuIpcOpenMemHandle", WFI_CUDA_INVALID_VALUE, 0, -ESTALE },
		{ "cuIpcOpenMemHandle", WFI_CUDA_MAP_FAILED, 0, -ESTALE },
		{ "cuIpcOpenMemHandle", WFI_CUDA_OUT_OF_MEMORY, 0, -ENOMEM },
		{ "cuCtxPushCurrent", WFI_CUDA_CONTEXT_DESTROYED, -EIO, -EIO },
		{ "cuMemGetAddressRange", WFI_CUDA_INVALID_VALUE, -ESTALE, -ESTALE },
		{ "cuDriverGetVersion", WFI_CUDA_UNKNOWN, -EIO, 0 },
	};
	struct rig *r = *state;
	uint64_t mem = malloc_on(r->gpu, 8192);

	run_faults(r, mem, rows, WFI_ARRAY_SIZE(rows));
	free_mem(r, mem);
}

static void test_vmm_faults(void **state)
{
	static const struct fault rows[] = {
		{ "cuMemRetainAllocationHandle", WFI_CUDA_INVALID_VALUE, -EOPNOTSUPP, 0 },
		{ "cuMemRetainAllocationHandle", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM, 0 },
		{ "cuMemExportToShareableHandle", WFI_CUDA_INVALID_VALUE, -EOPNOTSUPP, 0 },
		{ "cuMemExportToShareableHandle", WFI_CUDA_OPERATING_SYSTEM, -EIO, 0 },
		{ "cuMemImportFromShareableHandle", WFI_CUDA_INVALID_VALUE, 0, -EBADF },
		{ "cuMemImportFromShareableHandle", WFI_CUDA_OUT_OF_MEMORY, 0, -ENOMEM },
		{ "cuMemGetAllocationPropertiesFromHandle", WFI_CUDA_ECC, 0, -EIO },
		{ "cuMemAddressReserve", WFI_CUDA_OUT_OF_MEMORY, 0, -ENOMEM },
		{ "cuMemMap", WFI_CUDA_OUT_OF_MEMORY, 0, -ENOMEM },
		{ "cuMemSetAccess", WFI_CUDA_OUT_OF_MEMORY, 0, -ENOMEM },
		{ "cuMemSetAccess", WFI_CUDA_DEVICE_UNAVAILABLE, 0, -ENODEV },
	};
	struct rig *r = *state;
	uint64_t mem = vmm_map(r, true);

	run_faults(r, mem, rows, WFI_ARRAY_SIZE(rows));
	vmm_unmap(r, mem);
}

/* ---- two processes ---- */

struct answer {
	struct wfi_gpu_export region;
	int has_fd;
};

/* exports one region of each kind, and lives until it is killed */
static void owner(int sock)
{
	struct rig r = { .cuda = mock_cuda_table() };
	struct answer a = { .has_fd = 0 };
	uint64_t mem;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	assert_int_equal(wfi_env_real_init(&r.env), 0);
	assert_int_equal(wfi_gpu_open(&r.env, r.cuda, 0, &r.gpu), 0);
	for (int i = 0; i < 2; i++) {
		mem = i ? vmm_map(&r, true) : malloc_on(r.gpu, 8192);
		strcpy((char *)(uintptr_t)mem, i ? "mapped" : "allocated");
		if (wfi_gpu_export(r.cuda, mem, 8192, &a.region, &fd, why))
			_exit(1);
		if (wfi_ctl_send(sock, &a, sizeof(a), &fd, fd >= 0))
			_exit(1);
	}
	pause();
}

static void test_processes(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_region region[2] = { { 0 } }, late = { 0 };
	struct answer a[2];
	int sv[2], fds[2] = { -1, -1 };
	unsigned nr;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	pid = fork();
	if (!pid)
		owner(sv[1]);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(wfi_ctl_recv(sv[0], &a[i], sizeof(a[i]), &fds[i], 1, &nr),
				 sizeof(a[i]));
		assert_int_equal(nr, i);
		assert_int_equal(wfi_gpu_import(r->gpu, &a[i].region, i ? fds[i] : -1, &region[i]),
				 0);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* what was opened stays; what was not can't be opened by its handle any more */
	assert_string_equal((char *)(uintptr_t)region[0].addr, "allocated");
	assert_string_equal((char *)(uintptr_t)region[1].addr, "mapped");
	assert_int_equal(wfi_gpu_import(r->gpu, &a[0].region, -1, &late), -ESTALE);
	wfi_gpu_region_close(&region[0]);
	wfi_gpu_region_close(&region[1]);
	close(fds[1]);
	close(sv[0]);
	close(sv[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ipc),	  TEST(other_gpu),  TEST(here),	    TEST(vmm),
		TEST(dmabuf),	  TEST(dmabuf_old), TEST(vmm_kept), TEST(ipc_faults),
		TEST(vmm_faults), TEST(processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
