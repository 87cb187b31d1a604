/* SPDX-License-Identifier: Apache-2.0 */
/* GPUs: each alone, each pair, and each with each NIC */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/doctor.h"
#include "weft_internal/env.h"
#include "weft_internal/gpu.h"
#include "weft_internal/transport_registry.h"

#define NICS "/sys/class/infiniband"
#define GPUS_MAX 64
#define NICS_MAX 64

struct nic {
	char name[64];
	bool dmabuf;
};

struct look {
	const struct wfi_cuda *cuda;
	struct wfi_gpu_info gpus[GPUS_MAX];
	int ordinals[GPUS_MAX]; /* of those that say what they are */
	unsigned nr_gpus;
	struct nic nics[NICS_MAX];
	unsigned nr_nics;
	void (*found)(void *ctx, const char *name, const struct wfi_finding *f);
	void *ctx;
};

/* ---- each GPU ---- */

static const char *const kernel_side =
	"an open kernel module of NVIDIA's driver, 515 or newer, on Linux 5.12 or newer";

static void check_gpu(struct look *l, int ordinal)
{
	struct wfi_gpu_info *gpu = &l->gpus[l->nr_gpus];
	struct wfi_finding f = { .todo = "" };
	char title[80], bytes[WFI_TEXT];
	int ret = wfi_gpu_info(l->cuda, ordinal, gpu);

	snprintf(title, sizeof(title), "gpu %d", ordinal);
	if (ret) {
		wfi_found(&f, WFI_HEALTH_FAIL, "see nvidia-smi, and dmesg for Xid",
			  "it does not say what it is: %s", strerror(-ret));
	} else {
		wfi_found(&f, gpu->dmabuf ? WFI_HEALTH_OK : WFI_HEALTH_WARN,
			  gpu->dmabuf ? NULL : kernel_side,
			  "%s, %s, sm_%d, %d multiprocessors, driver of CUDA %d.%d, PCI %s; "
			  "dma-buf export: %s; GPUDirect: %s; memory as file descriptors: %s",
			  gpu->name, wfi_text_bytes((double)gpu->bytes, bytes), gpu->sm, gpu->nr_sm,
			  gpu->driver / 1000, gpu->driver % 1000 / 10, gpu->pci,
			  gpu->dmabuf ? "yes" : "no", gpu->gpudirect ? "yes" : "no",
			  gpu->vmm_fd ? "yes" : "no");
		l->ordinals[l->nr_gpus++] = ordinal;
	}
	l->found(l->ctx, title, &f);
}

static void pci_path(const struct wfi_gpu_info *gpu, char path[128])
{
	snprintf(path, 128, "/sys/bus/pci/devices/%s", gpu->pci);
}

/* ---- each pair of GPUs ---- */

static void check_pair(struct look *l, unsigned a, unsigned b)
{
	struct wfi_finding f = { .todo = "" };
	char title[80], path_a[128], path_b[128], near[64];
	int rank, ret = wfi_gpu_peer(l->cuda, l->ordinals[a], l->ordinals[b], &rank);

	pci_path(&l->gpus[a], path_a);
	pci_path(&l->gpus[b], path_b);
	wfi_pci_text(wfi_pci_distance(path_a, path_b), near, sizeof(near));
	if (!ret)
		wfi_found(&f, WFI_HEALTH_OK, NULL,
			  "peer access, links of rank %d (0 is this host's best); %s", rank, near);
	else if (ret == -EOPNOTSUPP)
		wfi_found(&f, WFI_HEALTH_WARN,
			  "see nvidia-smi topo -p2p r; IOMMU and ACS may stand between them",
			  "no peer access: copies go through host memory; %s", near);
	else
		wfi_found(&f, WFI_HEALTH_FAIL, "see nvidia-smi, and dmesg for Xid", "%s",
			  strerror(-ret));
	snprintf(title, sizeof(title), "gpu %d and gpu %d", l->ordinals[a], l->ordinals[b]);
	l->found(l->ctx, title, &f);
}

/* ---- each GPU with each NIC ---- */

static void find_nics(struct look *l)
{
	const struct weft_transport *t = wfi_transport_find(NULL, "verbs");
	struct weft_device_opts opts = { .size = sizeof(opts) };
	DIR *dir = opendir(NICS);
	struct weft_device *dev;
	const struct dirent *e;
	struct wfi_env env;

	if (wfi_env_real_init(&env))
		t = NULL;
	while (dir && l->nr_nics < NICS_MAX && (e = readdir(dir))) {
		struct nic *nic = &l->nics[l->nr_nics];

		if (e->d_name[0] == '.')
			continue;
		snprintf(nic->name, sizeof(nic->name), "%.63s", e->d_name);
		opts.name = nic->name;
		if (t && !t->device_open(t, &env, &opts, &dev)) {
			nic->dmabuf = dev->caps.flags & WEFT_CAP_DMABUF;
			t->device_close(dev);
		}
		l->nr_nics++;
	}
	if (dir)
		closedir(dir);
}

/* what to do about it, where something can be done */
static const char *nic_todo(const struct wfi_gpu_info *gpu, const struct nic *nic)
{
	if (!gpu->dmabuf)
		return kernel_side;
	if (!gpu->nic_ordered && !gpu->nic_flush)
		return "a newer driver of NVIDIA's";
	if (!nic->dmabuf)
		return "a NIC and rdma-core with ibv_reg_dmabuf_mr";
	return "another NIC, nearer to it";
}

static void check_nic(struct look *l, unsigned i, const struct nic *nic, bool nearest)
{
	const struct wfi_gpu_info *gpu = &l->gpus[i];
	const struct wfi_pci_distance d = wfi_gpu_nic_distance(gpu, nic->name);
	const char *why = wfi_gpu_nic_refused(gpu, nic->dmabuf, d);
	struct wfi_finding f = { .todo = "" };
	char title[128], near[64];

	wfi_pci_text(d, near, sizeof(near));
	if (!why)
		wfi_found(&f, WFI_HEALTH_OK, NULL,
			  "%s%s: the NIC reads and writes GPU memory itself, by dma-buf", near,
			  nearest ? ", the nearest" : ", and used where no nearer one is");
	else
		wfi_found(&f, WFI_HEALTH_WARN, nic_todo(gpu, nic),
			  "%s%s: blocks stop in pinned host memory, since %s%s", near,
			  nearest ? ", the nearest" : "", why,
			  access("/sys/module/nvidia_peermem", F_OK)
				  ? ""
				  : " (nvidia_peermem is loaded, and not used)");
	snprintf(title, sizeof(title), "gpu %d and %s", l->ordinals[i], nic->name);
	l->found(l->ctx, title, &f);
}

static void check_nics(struct look *l, unsigned i)
{
	unsigned k, best = 0;

	for (k = 1; k < l->nr_nics; k++)
		if (wfi_pci_compare(wfi_gpu_nic_distance(&l->gpus[i], l->nics[k].name),
				    wfi_gpu_nic_distance(&l->gpus[i], l->nics[best].name)) < 0)
			best = k;
	for (k = 0; k < l->nr_nics; k++)
		check_nic(l, i, &l->nics[k], k == best);
}

/* ---- none ---- */

static void check_none(struct look *l, const char *why)
{
	const unsigned nr = wfi_pci_gpus(NULL);
	struct wfi_finding f = { .todo = "" };

	if (nr)
		wfi_found(&f, WFI_HEALTH_WARN, why, "%u on the PCIe bus, and none can be used", nr);
	else
		wfi_found(&f, WFI_HEALTH_OK, NULL, "none (%s)", why);
	l->found(l->ctx, "gpu", &f);
}

void wfi_check_gpus(void (*found)(void *ctx, const char *name, const struct wfi_finding *f),
		    void *ctx)
{
	struct look *l = calloc(1, sizeof(*l));
	const char *why;
	unsigned i, k;
	int nr;

	if (!l)
		return;
	l->found = found;
	l->ctx = ctx;
	l->cuda = wfi_cuda_load(&why);
	nr = l->cuda ? wfi_gpu_count(l->cuda) : 0;
	for (i = 0; (int)i < nr && l->nr_gpus < GPUS_MAX; i++)
		check_gpu(l, (int)i);
	if (nr <= 0)
		check_none(l, l->cuda ? "the driver shows none: see nvidia-smi" : why);
	if (l->nr_gpus)
		find_nics(l);
	for (i = 0; i < l->nr_gpus; i++) {
		for (k = i + 1; k < l->nr_gpus; k++)
			check_pair(l, i, k);
		check_nics(l, i);
	}
	free(l);
}
