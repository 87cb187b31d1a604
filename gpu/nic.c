/* SPDX-License-Identifier: Apache-2.0 */
/* nic.c - which NICs are to read and write a GPU's memory themselves */
#include <stdio.h>
#include <unistd.h>
#include "weft_internal/gpu.h"

struct wfi_pci_distance wfi_gpu_nic_distance(const struct wfi_gpu_info *gpu, const char *nic)
{
	char path_gpu[64], path_nic[128];

	snprintf(path_gpu, sizeof(path_gpu), "/sys/bus/pci/devices/%s", gpu->pci);
	snprintf(path_nic, sizeof(path_nic), "/sys/class/infiniband/%s/device", nic);
	return wfi_pci_distance(path_gpu, path_nic);
}

const char *wfi_gpu_nic_refused(const struct wfi_gpu_info *gpu, bool nic_dmabuf,
				struct wfi_pci_distance d)
{
	if (!gpu->dmabuf)
		return "the GPU has no dma-buf";
	if (!gpu->nic_ordered && !gpu->nic_flush)
		return "nothing says when the GPU sees what a NIC has written";
	if (!nic_dmabuf)
		return "the NIC has no dma-buf";
	/* from socket to socket, reads and writes of devices are slower than a stop in memory */
	if (d.near == WFI_PCI_FAR)
		return "the NIC is at another NUMA node";
	return NULL;
}
