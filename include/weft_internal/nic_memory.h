/* SPDX-License-Identifier: Apache-2.0 */
/* nic_memory.h - memory of engines' on GPUs, where what is READ of other nodes can go straight */
#ifndef WFI_NIC_MEMORY_H
#define WFI_NIC_MEMORY_H

#include <stdint.h>
#include "weft_internal/gpu_region.h"
#include "weft_internal/rail.h"

/**
 * struct wfi_nic_memory - memory of a GPU, which NICs reach and no CPU
 * @mrs: the region, as it is registered with each NIC that is to reach it; NULL between them
 * @rkey: the same, where what came is summed up: of a device with WEFT_CAP_SUMS
 * @base: its address at those NICs
 * @shape: how what is counted lies there
 */
struct wfi_nic_memory {
	struct weft_mr *mrs[WFI_RAILS_MAX];
	struct weft_rkey *rkey;
	uintptr_t base;
	struct wfi_gpu_shape shape;
};

#endif
