/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu_rig.h - a GPU with two buffers, a stream, and peers' kernels
 *
 * Figures are by events of the GPU around several launches, but for those of one launch, which are
 * by the host's clock.
 */
#ifndef WFI_PERF_GPU_RIG_H
#define WFI_PERF_GPU_RIG_H

#include "gpu/device.h"
#include "perf/perf.h"
#include "weft_internal/gpu_region.h"

enum wfi_gpu_peer_kernel {
	WFI_GPU_PEER_EMPTY,
	WFI_GPU_PEER_READ,
	WFI_GPU_PEER_HALVE,
	WFI_GPU_PEER_DOUBLE,
	WFI_GPU_PEER_NR,
};

/**
 * struct wfi_gpu_rig
 * @total: bytes that a case moves; of each buffer and of @host, too
 * @src, @dst: in the GPU's memory
 * @host: pinned; what @src has been filled with
 * @back: pinned, of as many bytes
 * @index: pinned, a number for each piece of the smallest size
 */
struct wfi_gpu_rig {
	const struct wfi_perf *p;
	const struct wfi_cuda *cuda;
	struct wfi_env env;
	struct wfi_gpu *gpu;
	struct CUmod_st *module;
	struct CUfunc_st *peers[WFI_GPU_PEER_NR];
	unsigned blocks; /* of a peer's launch */
	struct CUstream_st *stream;
	struct CUevent_st *start;
	struct CUevent_st *end;
	uint64_t total;
	uint64_t src;
	uint64_t dst;
	uint8_t *host;
	uint8_t *back;
	uint32_t *index;
};

#define WFI_GPU_RIG_PIECE 512u /* the smallest */

/* leaves the GPU's context current in this thread. Return: 0; -EOPNOTSUPP no GPU; -errno (said) */
int wfi_gpu_rig_open(struct wfi_gpu_rig *rig, const struct wfi_perf *p);
void wfi_gpu_rig_close(struct wfi_gpu_rig *rig);
/* Return: 0, or as wfi_cuda_errno(), said with @what */
int wfi_gpu_rig_check(int res, const char *what);
/* a peer's kernel, as many blocks as run at a time. Return: 0, -errno (said) */
int wfi_gpu_rig_launch(struct wfi_gpu_rig *rig, enum wfi_gpu_peer_kernel kernel, void **params);
/* waits for all in the stream. Return: 0, -errno (said) */
int wfi_gpu_rig_wait(struct wfi_gpu_rig *rig);

/* of a build with nvcc: peer_gpu.cu */
const void *wfi_gpu_rig_image(void);

/* ---- memory of another process (gpu_ipc.c) ---- */

struct wfi_gpu_ipc {
	int pid;
	int fd; /* its end of a socket; closed, it ends */
};

/* a child, which does nothing yet: before anything of CUDA. Return: 0, -errno (said) */
int wfi_gpu_ipc_fork(struct wfi_gpu_ipc *ipc);
/*
 * has it fill @bytes of GPU memory of its own with bytes of its @seed, and opens them here
 * Return: 0, -errno (said)
 */
int wfi_gpu_ipc_open(struct wfi_gpu_ipc *ipc, struct wfi_gpu_rig *rig, uint64_t bytes,
		     struct wfi_gpu_region *region);
void wfi_gpu_ipc_end(struct wfi_gpu_ipc *ipc);
/* what it filled word @i with */
uint64_t wfi_gpu_ipc_word(uint64_t i);

#endif
