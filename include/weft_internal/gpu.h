/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu.h - GPUs of this host: what they are, and what they can do
 *
 * All that is said to a driver goes through its table, struct wfi_cuda (gpu/cuda.h), which is
 * handed down: the real one is libcuda.so.1, tests have one of their own.
 *
 * A child made by fork() can't use a driver that its parent loaded.
 */
#ifndef WFI_GPU_H
#define WFI_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wfi_cuda;

/**
 * wfi_cuda_load - the driver of this host, initialised
 * @why: when there is none: a sentence that says why and what to do; valid for good
 *
 * Context: any thread. Takes up to seconds the first time.
 * Return: NULL when there is none that works, no GPU, or this was built without (-Dcuda)
 */
const struct wfi_cuda *wfi_cuda_load(const char **why);

/**
 * wfi_cuda_errno - what a driver's CUresult is to us
 *
 * Return: 0; -ENOMEM no memory; -ENODEV the GPU is gone or can't be used; -EIO it has failed and
 * its context with it; -ESTALE a handle or range that is gone; -EINVAL; -EOPNOTSUPP; -EPERM;
 * -EAGAIN not yet; -ENOEXEC no kernel for this GPU or driver; -EPROTO library and kernel module of
 * the driver do not fit
 */
int wfi_cuda_errno(int res);
/* what happened and what to do about it, for the log; never NULL */
const char *wfi_cuda_why(int res);
/* how far an error reaches */
enum wfi_cuda_reach {
	WFI_CUDA_CALL, /* the call has failed, and nothing else */
	WFI_CUDA_DOUBT, /* nobody knows: nothing more is to be asked for in this process */
	WFI_CUDA_CONTEXT, /* nothing in this context works any more: another one has to be made */
	WFI_CUDA_PROCESS, /* nor in another one that this process makes */
};
enum wfi_cuda_reach wfi_cuda_reach(int res);
/* Return: whether nothing that was asked for in the context moves any more. Of an error that is not
 * known, or whose description leaves that open, nobody can say */
bool wfi_cuda_fences(int res);

/**
 * struct wfi_gpu_info - one GPU
 * @pci: as in /sys/bus/pci/devices
 * @bytes: of its memory, all in all
 * @driver: version of the CUDA that the driver has, e.g. 13000 for 13.0
 * @sm: compute capability, e.g. 90 for 9.0
 * @nr_sm: multiprocessors
 * @dmabuf: its memory can be exported as a dma-buf, for NICs
 * @gpudirect: peers on the PCIe bus may read and write its memory at all
 * @vmm_fd: memory of cuMemCreate() can be exported as a file descriptor
 * @nic_ordered: what a NIC has written to its memory, kernels see that begin later
 * @nic_flush: they do after wfi_gpu_flush()
 */
struct wfi_gpu_info {
	char name[96];
	char pci[16];
	uint8_t uuid[16];
	uint64_t bytes;
	int driver;
	int sm;
	int nr_sm;
	bool dmabuf;
	bool gpudirect;
	bool vmm_fd;
	bool nic_ordered;
	bool nic_flush;
};

/* Return: number of GPUs, 0 or more; as wfi_cuda_errno() */
int wfi_gpu_count(const struct wfi_cuda *cuda);
/* Return: 0; as wfi_cuda_errno(), logged */
int wfi_gpu_info(const struct wfi_cuda *cuda, int ordinal, struct wfi_gpu_info *out);
/* Return: the driver's number of the GPU of that name, -ENODEV there is none, as wfi_cuda_errno();
 * logged but for -ENODEV */
int wfi_gpu_find(const struct wfi_cuda *cuda, const uint8_t uuid[16], struct wfi_gpu_info *out);
/**
 * wfi_gpu_peer - may the first read and write the second's memory?
 * @rank: of the link among those of this host: 0 is the best; written on success
 *
 * Return: 0; -EOPNOTSUPP it may not; as wfi_cuda_errno()
 */
int wfi_gpu_peer(const struct wfi_cuda *cuda, int ordinal, int peer, int *rank);

/* ---- where devices are on the PCIe bus (gpu/pci.c) ---- */

/* nearest first, so that devices can be put in order; the words of nvidia-smi topo in brackets */
enum wfi_pci_near {
	WFI_PCI_SWITCH, /* traffic turns around in a switch (PIX, PXB) */
	WFI_PCI_BRIDGE, /* it goes through one host bridge (PHB) */
	WFI_PCI_NUMA, /* through the bridges of one NUMA node (NODE) */
	WFI_PCI_FAR, /* from one NUMA node to another (SYS) */
	WFI_PCI_UNKNOWN, /* at least one of them is not on the bus */
};

struct wfi_pci_distance {
	enum wfi_pci_near near;
	unsigned hops; /* links from one to the other; 0 when UNKNOWN, or not under one bridge */
};

/**
 * wfi_pci_distance - between two devices
 * @a, @b: their folders, e.g. "/sys/bus/pci/devices/0000:17:00.0" or
 * "/sys/class/infiniband/mlx5_0/device"
 */
struct wfi_pci_distance wfi_pci_distance(const char *a, const char *b);
/* <0 when @a is nearer than @b */
int wfi_pci_compare(struct wfi_pci_distance a, struct wfi_pci_distance b);
/* e.g. "one PCIe switch, 2 links" */
const char *wfi_pci_text(struct wfi_pci_distance d, char *buf, size_t len);
/* between a GPU and an RDMA device, by its name */
struct wfi_pci_distance wfi_gpu_nic_distance(const struct wfi_gpu_info *gpu, const char *nic);
/**
 * wfi_gpu_nic_refused - the rule of which NICs read and write a GPU's memory themselves
 * @nic_dmabuf: it can register dma-bufs
 *
 * Where the distance is not known the registration will tell.
 * Return: NULL: it does; else why what goes between the two stops in host memory
 */
const char *wfi_gpu_nic_refused(const struct wfi_gpu_info *gpu, bool nic_dmabuf,
				struct wfi_pci_distance d);
/* Return: how many devices of NVIDIA that calculate or draw are on the bus, driver or not. @sysfs:
 * NULL: /sys */
unsigned wfi_pci_gpus(const char *sysfs);

#endif
