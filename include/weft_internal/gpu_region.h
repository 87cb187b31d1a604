/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu_region.h - GPU memory of one process, used by another on the same GPU
 *
 * Memory of cudaMalloc() has handles that another process of this host opens. What it has opened
 * stays there when the owner ends; what the owner frees while it is open means nothing any more,
 * so owners tell before they free.
 */
#ifndef WFI_GPU_REGION_H
#define WFI_GPU_REGION_H

#include "weft_internal/gpu_kernels.h"

/**
 * struct wfi_gpu_export - a region on its way to another process: bytes, whoever holds them may
 * read and write it
 * @uuid: of the GPU
 * @handle: of the allocation that it lies in
 * @off, @len: where in it
 */
struct wfi_gpu_export {
	uint8_t uuid[16];
	uint8_t handle[64];
	uint64_t off;
	uint64_t len;
};

/* a region of another process, open. @addr: in this one */
struct wfi_gpu_region {
	struct wfi_gpu *gpu;
	uint64_t base;
	uint64_t addr;
	uint64_t len;
};

/**
 * wfi_gpu_export - @len bytes at @addr, in memory of this process
 *
 * Context: a thread whose current context is that of the memory.
 * Return: 0; -ESTALE there is no GPU memory, or it was freed; -EINVAL more than one allocation;
 * -EOPNOTSUPP memory that has no handle; as wfi_cuda_errno(). Logged
 */
int wfi_gpu_export(const struct wfi_cuda *cuda, uint64_t addr, uint64_t len,
		   struct wfi_gpu_export *out);
/**
 * wfi_gpu_import - open what another process has exported
 * @e: input: nothing in it is believed
 *
 * Return: 0; -EXDEV it is another GPU's; -ESTALE its process has ended or freed it; -EINVAL it is
 * more than the allocation; as wfi_cuda_errno(). Logged
 */
int wfi_gpu_import(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, struct wfi_gpu_region *out);
/* nothing touches it any more. Does nothing to a region that is zero */
void wfi_gpu_region_close(struct wfi_gpu_region *region);

#endif
