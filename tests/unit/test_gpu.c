/* SPDX-License-Identifier: Apache-2.0 */
/* what GPUs are asked, what their errors are to us, what a launch refuses, and where they are on
 * the bus */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "gpu/device.h"
#include "gpu/error.h"
#include "tests/unit/mock_cuda.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

static char said[1024];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	snprintf(said, sizeof(said), "%s", line);
}

static int setup(void **state)
{
	(void)state;
	mock_cuda_reset();
	said[0] = 0;
	wfi_log_set_sink(sink, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	wfi_log_set_sink(NULL, NULL);
	return 0;
}

/* ---- what they are ---- */

static void test_info(void **state)
{
	struct wfi_gpu_info info;

	(void)state;
	assert_int_equal(wfi_gpu_count(mock_cuda_table()), 2);
	assert_int_equal(wfi_gpu_info(mock_cuda_table(), 1, &info), 0);
	assert_string_equal(info.name, "Mock GPU");
	assert_string_equal(info.pci, "0000:a1:00.0"); /* as sysfs writes it */
	assert_int_equal(info.sm, 90);
	assert_int_equal(info.nr_sm, 132);
	assert_int_equal(info.driver, 13000);
	assert_int_equal(info.uuid[15], 2);
	assert_true(info.dmabuf && info.gpudirect && info.vmm_fd);
	assert_true(info.nic_flush && !info.nic_ordered);
	mock_cuda.dmabuf = false;
	mock_cuda.flushes = false;
	mock_cuda.ordering = WFI_CUDA_FLUSH_OWNER;
	assert_int_equal(wfi_gpu_info(mock_cuda_table(), 0, &info), 0);
	assert_false(info.dmabuf || info.nic_flush);
	assert_true(info.nic_ordered);
}

static void test_find(void **state)
{
	struct wfi_gpu_info info;
	uint8_t uuid[16];

	(void)state;
	memset(uuid, 2, sizeof(uuid));
	assert_int_equal(wfi_gpu_find(mock_cuda_table(), uuid, &info), 1);
	assert_string_equal(info.pci, "0000:a1:00.0");
	uuid[3] = 1;
	assert_int_equal(wfi_gpu_find(mock_cuda_table(), uuid, &info), -ENODEV);
	mock_cuda.fail_call = "cuDeviceGetCount";
	mock_cuda.fail_res = WFI_CUDA_NO_DEVICE;
	assert_int_equal(wfi_gpu_find(mock_cuda_table(), uuid, &info), -ENODEV);
}

/* who has to have what, for a NIC to read and write a GPU's memory */
static void test_nic(void **state)
{
	static const struct {
		bool dmabuf, ordered, flush, nic;
		enum wfi_pci_near near;
		const char *why; /* NULL: it may */
	} cases[] = {
		{ true, true, false, true, WFI_PCI_SWITCH, NULL },
		{ true, false, true, true, WFI_PCI_BRIDGE, NULL },
		{ true, true, true, true, WFI_PCI_NUMA, NULL },
		{ true, true, true, true, WFI_PCI_UNKNOWN, NULL },
		{ true, true, true, true, WFI_PCI_FAR, "the NIC is at another NUMA node" },
		{ false, true, true, true, WFI_PCI_SWITCH, "the GPU has no dma-buf" },
		{ true, true, true, false, WFI_PCI_SWITCH, "the NIC has no dma-buf" },
		{ true, false, false, true, WFI_PCI_SWITCH, "when the GPU sees" },
	};

	(void)state;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(cases); i++) {
		const struct wfi_gpu_info gpu = { .dmabuf = cases[i].dmabuf,
						  .nic_ordered = cases[i].ordered,
						  .nic_flush = cases[i].flush };
		const char *why = wfi_gpu_nic_refused(
			&gpu, cases[i].nic, (struct wfi_pci_distance){ .near = cases[i].near });

		if (cases[i].why)
			assert_non_null(strstr(why, cases[i].why));
		else
			assert_null(why);
	}
}

static void test_info_fails(void **state)
{
	struct wfi_gpu_info info = { .sm = 7 };

	(void)state;
	assert_int_equal(wfi_gpu_info(mock_cuda_table(), 2, &info), -ENODEV);
	assert_string_equal(said, "gpu 2: there is no GPU of that number");
	mock_cuda.fail_call = "cuDeviceGetAttribute";
	mock_cuda.fail_res = WFI_CUDA_ECC;
	assert_int_equal(wfi_gpu_info(mock_cuda_table(), 0, &info), -EIO);
	assert_non_null(strstr(said, "ECC"));
	assert_int_equal(info.sm, 7);
	mock_cuda.fail_call = "cuDeviceGetCount";
	mock_cuda.fail_res = WFI_CUDA_NO_DEVICE;
	assert_int_equal(wfi_gpu_count(mock_cuda_table()), -ENODEV);
}

static void test_peer(void **state)
{
	int rank = 7;

	(void)state;
	assert_int_equal(wfi_gpu_peer(mock_cuda_table(), 0, 1, &rank), 0);
	assert_int_equal(rank, 0);
	rank = 7;
	mock_cuda.peers = false;
	assert_int_equal(wfi_gpu_peer(mock_cuda_table(), 0, 1, &rank), -EOPNOTSUPP);
	assert_int_equal(wfi_gpu_peer(mock_cuda_table(), 0, 5, &rank), -ENODEV);
	assert_int_equal(rank, 7);
}

/* ---- errors ---- */

static void test_errors(void **state)
{
	static const struct {
		int res;
		int err;
		enum wfi_cuda_reach reach;
	} known[] = {
		{ WFI_CUDA_SUCCESS, 0, WFI_CUDA_CALL },
		{ WFI_CUDA_OUT_OF_MEMORY, -ENOMEM, WFI_CUDA_CALL },
		{ WFI_CUDA_INVALID_HANDLE, -ESTALE, WFI_CUDA_CALL },
		{ WFI_CUDA_MAP_FAILED, -ESTALE, WFI_CUDA_CALL },
		{ WFI_CUDA_NOT_SUPPORTED, -EOPNOTSUPP, WFI_CUDA_CALL },
		{ WFI_CUDA_DRIVER_MISMATCH, -EPROTO, WFI_CUDA_CALL },
		{ WFI_CUDA_NO_BINARY, -ENOEXEC, WFI_CUDA_CALL },
		{ WFI_CUDA_NOT_READY, -EAGAIN, WFI_CUDA_CALL },
		{ WFI_CUDA_INVALID_CONTEXT, -EIO, WFI_CUDA_CONTEXT },
		{ WFI_CUDA_CONTEXT_DESTROYED, -EIO, WFI_CUDA_CONTEXT },
		/* nobody says that copies end */
		{ WFI_CUDA_ECC, -EIO, WFI_CUDA_DOUBT },
		{ WFI_CUDA_NVLINK, -EIO, WFI_CUDA_DOUBT },
		{ WFI_CUDA_UNKNOWN, -EIO, WFI_CUDA_DOUBT },
		{ WFI_CUDA_DEINITIALIZED, -ENODEV, WFI_CUDA_DOUBT },
		{ WFI_CUDA_MPS_CONNECTION, -ENODEV, WFI_CUDA_CALL },
		{ WFI_CUDA_MPS_RPC, -EIO, WFI_CUDA_CALL },
		{ WFI_CUDA_MPS_NOT_READY, -ENODEV, WFI_CUDA_CALL },
		{ WFI_CUDA_MPS_CLIENTS, -EBUSY, WFI_CUDA_CALL },
		{ WFI_CUDA_MPS_CONNECTIONS, -EBUSY, WFI_CUDA_CALL },
		{ 12345, -EIO, WFI_CUDA_CALL },
		/* cuda.h: "the process must be terminated and relaunched" */
		{ WFI_CUDA_CONTAINED, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_ILLEGAL_ADDRESS, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_LAUNCH_TIMEOUT, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_HARDWARE_STACK, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_INVALID_PC, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_LAUNCH_FAILED, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_MPS_TERMINATED, -EIO, WFI_CUDA_PROCESS },
		{ WFI_CUDA_EXTERNAL_DEVICE, -EIO, WFI_CUDA_PROCESS },
	};
	int res;

	(void)state;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(known); i++) {
		assert_int_equal(wfi_cuda_errno(known[i].res), known[i].err);
		assert_int_equal(wfi_cuda_reach(known[i].res), known[i].reach);
		assert_int_equal(wfi_cuda_fences(known[i].res), known[i].reach >= WFI_CUDA_CONTEXT);
	}
	/* whatever a driver says, it is an error, and has a sentence */
	for (res = 1; res < 1200; res++) {
		assert_true(wfi_cuda_errno(res) < 0);
		assert_true(strlen(wfi_cuda_why(res)) > 10);
	}
	assert_true(wfi_cuda_errno(-5) < 0);
	assert_true(wfi_cuda_errno(INT_MAX) < 0);
}

/* ---- launches ---- */

struct rig {
	struct wfi_env env;
	struct wfi_gpu *gpu;
	struct wfi_gpu_item items[8];
};

static int setup_gpu(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	setup(state);
	assert_int_equal(wfi_env_real_init(&r->env), 0);
	assert_int_equal(wfi_gpu_open(&r->env, mock_cuda_table(), 0, &r->gpu), 0);
	*state = r;
	return 0;
}

static int teardown_gpu(void **state)
{
	struct rig *r = *state;

	wfi_gpu_close(r->gpu);
	assert_int_equal(mock_cuda_refs(), 0);
	free(r);
	return teardown(state);
}

static struct wfi_gpu_table table_of(struct rig *r)
{
	return (struct wfi_gpu_table){ .items = r->items, .max = WFI_ARRAY_SIZE(r->items) };
}

static void test_table(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_item *items = r->items;
	struct wfi_gpu_table t = table_of(r);

	assert_int_equal(wfi_gpu_table_add(&t, 0, 0, 0), 0);
	assert_int_equal(t.nr, 0);
	/* evenly, in words */
	assert_int_equal(wfi_gpu_table_add(&t, 0, 100, 20000), 0);
	assert_int_equal(t.nr, 3);
	assert_int_equal(items[0].len, 6672);
	assert_int_equal(items[2].len, 20000 - 2 * 6672);
	assert_int_equal(items[2].dst, 100 + 2 * 6672);
	/* nothing of what does not fit */
	assert_int_equal(wfi_gpu_table_add(&t, 0, 0, 6 * WFI_GPU_ITEM_MAX), -ENOSPC);
	assert_int_equal(t.nr, 3);
	assert_int_equal(t.bytes, 20000);
	/* as long as the first */
	t = table_of(r);
	assert_int_equal(wfi_gpu_table_add(&t, 0, 0, 256), 0);
	assert_int_equal(wfi_gpu_table_add(&t, 512, 256, 768), 0);
	assert_int_equal(t.nr, 4);
	assert_int_equal(t.odd, 0);
	assert_int_equal(wfi_gpu_table_add(&t, 512, 256, 100), 0);
	assert_true(t.odd);
}

static void test_move_bounds(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_table t = table_of(r);
	struct wfi_gpu_side side = { 0 };

	assert_int_equal(wfi_gpu_move(r->gpu, &t, &side, &side, 5, NULL), 0);
	assert_int_equal(wfi_gpu_table_add(&t, 0, 0, 16), 0);
	assert_int_equal(wfi_gpu_table_add(&t, 32, 32, 16), 0);
	assert_int_equal(wfi_gpu_move(r->gpu, &t, &side, &side, 0, NULL), 0);
	assert_int_equal(wfi_gpu_move(r->gpu, &t, &side, &side, 1u << 31, NULL), -E2BIG);
	assert_int_equal(mock_cuda.launches, 0);
}

static void test_sums_bounds(void **state)
{
	(void)state;
	assert_int_equal(wfi_gpu_sums_len(0), 0);
	assert_int_equal(wfi_gpu_sums_len(UINT64_MAX), 0);
	assert_int_equal(wfi_gpu_sums_len(1ull << 62), 0);
	assert_int_equal(wfi_gpu_sums_len(1), 129);
}

static void test_cast_refused(void **state)
{
	static const uint32_t groups[] = { 0, 1, 16, 48, 96, 512, 1u << 31 };
	struct rig *r = *state;
	struct wfi_gpu_side even = { .stride = 256 }, odd = { .stride = 256, .base = 8 };
	struct wfi_gpu_cast cast = { .nr_groups = 1, .group = 128 };

	assert_int_equal(wfi_gpu_narrow(r->gpu, &cast, &odd, &even, 1, NULL), -EINVAL);
	assert_non_null(strstr(said, "multiples of 16"));
	odd.base = 0;
	odd.stride = 24;
	assert_int_equal(wfi_gpu_widen(r->gpu, &cast, &even, &odd, 1, NULL), -EINVAL);
	cast.nr_groups = 1u << 20;
	assert_int_equal(wfi_gpu_widen(r->gpu, &cast, &even, &even, 1u << 20, NULL), -E2BIG);
	assert_int_equal(wfi_gpu_widen(r->gpu, &cast, &even, &even, 0, NULL), 0);
	cast.nr_groups = 1;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(groups); i++) {
		cast.group = groups[i];
		assert_int_equal(wfi_gpu_narrow(r->gpu, &cast, &even, &even, 1, NULL), -EINVAL);
	}
	assert_non_null(strstr(said, "32, 64, 128 or 256"));
	assert_int_equal(mock_cuda.launches, 0);
}

static void test_less_shared(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu *gpu;

	assert_string_equal(r->gpu->kernels[WFI_GPU_CRC].name, "weft_crc32c");
	mock_cuda.shared = 99 << 10;
	assert_int_equal(wfi_gpu_open(&r->env, mock_cuda_table(), 1, &gpu), 0);
	assert_string_equal(gpu->kernels[WFI_GPU_CRC].name, "weft_crc32c_small");
	wfi_gpu_close(gpu);
}

static void test_open_fails(void **state)
{
	static const struct {
		const char *call;
		int res;
		int err;
		const char *says;
	} rows[] = {
		{ "cuDevicePrimaryCtxRetain", WFI_CUDA_OUT_OF_MEMORY, -ENOMEM, "no memory left" },
		{ "cuDevicePrimaryCtxRetain", WFI_CUDA_DEVICE_UNAVAILABLE, -ENODEV, "in use" },
		{ "cuCtxPushCurrent", WFI_CUDA_CONTEXT_DESTROYED, -EIO, "destroyed" },
		{ "cuModuleLoadData", WFI_CUDA_NO_BINARY, -ENOEXEC, "no kernel fits" },
		{ "cuModuleLoadData", WFI_CUDA_PTX_VERSION, -ENOEXEC, "install a newer one" },
		{ "cuModuleGetFunction", WFI_CUDA_NOT_FOUND, -ENOENT, "nothing of that name" },
		{ "cuOccupancyMaxActiveBlocksPerMultiprocessor", WFI_CUDA_ECC, -EIO, "ECC" },
	};
	struct rig *r = *state;
	const int refs = mock_cuda_refs();
	struct wfi_gpu *gpu = NULL;

	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		mock_cuda.fail_call = rows[i].call;
		mock_cuda.fail_res = rows[i].res;
		assert_int_equal(wfi_gpu_open(&r->env, mock_cuda_table(), 1, &gpu), rows[i].err);
		assert_non_null(strstr(said, rows[i].says));
		assert_null(gpu);
		assert_int_equal(mock_cuda_refs(), refs);
	}
	mock_cuda.fail_call = NULL;
	assert_int_equal(wfi_gpu_open(&r->env, mock_cuda_table(), 9, &gpu), -ENODEV);
}

static void test_launch_fails(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_table t = table_of(r);
	struct wfi_gpu_side side = { .stride = 1 << 20 };
	struct wfi_gpu_sums sums;
	uint32_t powers[256];
	void *mem = NULL;

	assert_int_equal(wfi_gpu_table_add(&t, 0, 0, 16), 0);
	mock_cuda.fail_call = "cuLaunchKernel";
	mock_cuda.fail_res = WFI_CUDA_ILLEGAL_ADDRESS;
	assert_int_equal(wfi_gpu_move(r->gpu, &t, &side, &side, 1, NULL), -EIO);
	assert_string_equal(said, "gpu 0: weft_move: a kernel or copy touched memory that is not, "
				  "or no longer, there; this process can't use the GPU any more: "
				  "start it anew");
	mock_cuda.fail_call = "cuMemsetD32Async";
	wfi_gpu_sums_init(&sums, 1 << 20, powers);
	assert_int_equal(wfi_gpu_crc32c(r->gpu, &sums, &side, 1, 0, NULL), -EIO);
	assert_int_equal(mock_cuda.launches, 0);
	mock_cuda.fail_call = "cuMemHostAlloc";
	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	assert_int_equal(wfi_gpu_pin(r->gpu, 4096, &mem), -ENOMEM);
	assert_null(mem);
	/* all contexts that were entered were left */
	assert_int_equal(mock_cuda_refs(), 1);
}

static void test_stage_fails(void **state)
{
	static const char *const at_start[] = { "cuStreamCreate", "cuMemAlloc", "cuEventCreate",
						"cuCtxPushCurrent" };
	static const char *const later[] = { "cuMemcpyAsync", "cuLaunchKernel", "cuEventRecord",
					     "cuStreamWaitEvent", "cuCtxPushCurrent" };
	struct rig *r = *state;
	struct wfi_gpu_stage *stage = NULL;
	uint8_t mem[256], host[256] = { 0 };
	struct wfi_gpu_side side = { .base = (uintptr_t)mem, .stride = 64 };

	mock_cuda.fail_res = WFI_CUDA_OUT_OF_MEMORY;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(at_start); i++) {
		mock_cuda.fail_call = at_start[i];
		assert_int_equal(wfi_gpu_stage_create(r->gpu, 128, &stage), -ENOMEM);
		assert_null(stage);
	}
	mock_cuda.fail_call = NULL;
	assert_int_equal(wfi_gpu_stage_create(r->gpu, 128, &stage), 0);
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(later); i++) {
		mock_cuda.fail_call = later[i];
		mock_cuda.fail_res = WFI_CUDA_LAUNCH_FAILED;
		assert_int_equal(wfi_gpu_to_host(stage, &side, 64, 4, host, NULL), -EIO);
		assert_int_equal(wfi_gpu_from_host(stage, host, &side, 64, 4, NULL), -EIO);
	}
	mock_cuda.fail_call = NULL;
	assert_int_equal(wfi_gpu_to_host(stage, &side, 129, 1, host, NULL), -EINVAL);
	assert_int_equal(wfi_gpu_to_host(stage, &side, 0, 1, host, NULL), -EINVAL);
	assert_int_equal(wfi_gpu_to_host(stage, &side, 64, 0, host, NULL), 0);
	wfi_gpu_stage_destroy(stage);
}

static void test_no_kernels(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu *gpu = NULL;

	mock_cuda.no_kernels = true;
	assert_int_equal(wfi_gpu_open(&r->env, mock_cuda_table(), 0, &gpu), -EOPNOTSUPP);
	assert_non_null(strstr(said, "built without kernels: install nvcc"));
	assert_null(gpu);
}

/* ---- the bus ---- */

static char root[] = "/tmp/weft-pci-XXXXXX";

static void make(const char *path, const char *file, const char *text)
{
	char full[PATH_MAX], *p;
	FILE *out;

	snprintf(full, sizeof(full), "%s/%s/", root, path);
	for (p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		mkdir(full, 0700);
		*p = '/';
	}
	if (!file)
		return;
	snprintf(full, sizeof(full), "%s/%s/%s", root, path, file);
	out = fopen(full, "w");
	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

static struct wfi_pci_distance between(const char *a, const char *b)
{
	char path_a[PATH_MAX], path_b[PATH_MAX];

	snprintf(path_a, sizeof(path_a), "%s/%s", root, a);
	snprintf(path_b, sizeof(path_b), "%s/%s", root, b);
	return wfi_pci_distance(path_a, path_b);
}

static void test_distance(void **state)
{
	static const char gpu[] = "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0";
	static const char near[] = "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0";
	static const char bridge[] = "pci0000:10/0000:10:02.0/0000:15:00.0";
	static const char numa[] = "pci0000:20/0000:20:01.0";
	static const char far[] = "pci0000:80/0000:80:01.0";
	static const char soft[] = "virtual/net/eth0";
	static const struct {
		const char *path;
		enum wfi_pci_near near;
		unsigned hops;
		const char *text;
	} rows[] = {
		{ near, WFI_PCI_SWITCH, 4, "one PCIe switch, 4 links" },
		{ bridge, WFI_PCI_BRIDGE, 6, "one PCIe host bridge, 6 links" },
		{ numa, WFI_PCI_NUMA, 0, "two PCIe host bridges of one NUMA node" },
		{ far, WFI_PCI_FAR, 0, "PCIe host bridges of two NUMA nodes" },
		{ soft, WFI_PCI_UNKNOWN, 0, "not both on PCIe" },
		{ "pci0000:99/0000:99:00.0", WFI_PCI_UNKNOWN, 0, "not both on PCIe" },
	};
	char text[64];

	(void)state;
	assert_non_null(mkdtemp(root));
	make(gpu, "numa_node", "0\n");
	make(near, "numa_node", "0\n");
	make(bridge, "numa_node", "0\n");
	make(numa, "numa_node", "0\n");
	make(far, "numa_node", "1\n");
	make(soft, NULL, NULL);
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		struct wfi_pci_distance d = between(gpu, rows[i].path);

		assert_int_equal(d.near, rows[i].near);
		assert_int_equal(d.hops, rows[i].hops);
		assert_string_equal(wfi_pci_text(d, text, sizeof(text)), rows[i].text);
		d = between(rows[i].path, gpu);
		assert_int_equal(d.near, rows[i].near);
		if (i)
			assert_true(wfi_pci_compare(between(gpu, rows[i - 1].path), d) <= 0);
	}
	assert_true(wfi_pci_compare(between(gpu, near), between(gpu, bridge)) < 0);
	assert_true(wfi_pci_compare(between(gpu, bridge), between(gpu, near)) > 0);
	assert_int_equal(wfi_pci_compare(between(gpu, far), between(near, far)), 0);
}

static void test_on_bus(void **state)
{
	(void)state;
	assert_int_equal(wfi_pci_gpus(root), 0);
	make("bus/pci/devices/0000:13:00.0", "vendor", "0x10de\n");
	make("bus/pci/devices/0000:13:00.0", "class", "0x030200\n");
	make("bus/pci/devices/0000:13:00.1", "vendor", "0x10de\n");
	make("bus/pci/devices/0000:13:00.1", "class", "0x040300\n"); /* its sound */
	make("bus/pci/devices/0000:14:00.0", "vendor", "0x15b3\n");
	make("bus/pci/devices/0000:14:00.0", "class", "0x020000\n");
	assert_int_equal(wfi_pci_gpus(root), 1);
}

static int remove_root(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", root);
	return system(cmd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define TEST_GPU(name) cmocka_unit_test_setup_teardown(test_##name, setup_gpu, teardown_gpu)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(info),
		TEST(info_fails),
		TEST(find),
		TEST(nic),
		TEST(peer),
		TEST(errors),
		TEST(distance),
		TEST(on_bus),
		TEST_GPU(table),
		TEST_GPU(move_bounds),
		TEST_GPU(sums_bounds),
		TEST_GPU(cast_refused),
		TEST_GPU(less_shared),
		TEST_GPU(open_fails),
		TEST_GPU(launch_fails),
		TEST_GPU(stage_fails),
		TEST_GPU(no_kernels),
	};

	return cmocka_run_group_tests(tests, NULL, remove_root);
}
