/* SPDX-License-Identifier: Apache-2.0 */
/* the kernels as a GPU has them: what they do stands in the headers */
#include "gpu/kernels/cast.h"
#include "gpu/kernels/crc.h"
#include "gpu/kernels/move.h"

#define THREADS 256
#define WARPS (THREADS / WFI_GPU_WARP)
#define CRC_THREADS 1024
#define CRC_WARPS (CRC_THREADS / WFI_GPU_WARP)

extern "C" __global__ void __launch_bounds__(THREADS)
weft_move(const __grid_constant__ struct wfi_gpu_move_args a)
{
	__shared__ struct wfi_move_shared shared[WARPS];
	const uint32_t warp = threadIdx.x / WFI_GPU_WARP;

	wfi_move_warp(&a, &shared[warp], blockIdx.x * WARPS + warp, gridDim.x * WARPS);
}

extern "C" __global__ void __launch_bounds__(THREADS)
weft_narrow(const __grid_constant__ struct wfi_gpu_cast_args a)
{
	__shared__ struct wfi_cast_shared shared[WARPS];
	const uint32_t warp = threadIdx.x / WFI_GPU_WARP;

	wfi_narrow_warp(&a, &shared[warp], blockIdx.x * WARPS + warp, gridDim.x * WARPS);
}

extern "C" __global__ void __launch_bounds__(THREADS)
weft_widen(const __grid_constant__ struct wfi_gpu_cast_args a)
{
	const uint32_t warp = threadIdx.x / WFI_GPU_WARP;

	wfi_widen_warp(&a, blockIdx.x * WARPS + warp, gridDim.x * WARPS);
}

template <unsigned copies> __device__ void crc(const struct wfi_gpu_crc_args &a)
{
	extern __shared__ uint32_t table[];
	__shared__ struct wfi_crc_shared shared[CRC_WARPS];
	const uint32_t warp = threadIdx.x / WFI_GPU_WARP;

	wfi_crc_fill(table, copies, threadIdx.x, CRC_THREADS);
	__syncthreads();
	wfi_crc_warp(&a, table, copies, &shared[warp], blockIdx.x * CRC_WARPS + warp,
		     gridDim.x * CRC_WARPS);
}

template <unsigned copies> __device__ void crc_parts(const struct wfi_gpu_parts_args &a)
{
	extern __shared__ uint32_t table[];
	__shared__ struct wfi_crc_shared shared[CRC_WARPS];
	const uint32_t warp = threadIdx.x / WFI_GPU_WARP;

	wfi_crc_fill(table, copies, threadIdx.x, CRC_THREADS);
	__syncthreads();
	wfi_crc_parts_warp(&a, table, copies, &shared[warp], blockIdx.x * CRC_WARPS + warp,
			   gridDim.x * CRC_WARPS);
}

/* 128 KiB of tables: a copy in each bank */
extern "C" __global__ void __launch_bounds__(CRC_THREADS, 1)
weft_crc32c(const __grid_constant__ struct wfi_gpu_crc_args a)
{
	crc<5>(a);
}

extern "C" __global__ void __launch_bounds__(CRC_THREADS, 1)
weft_crc32c_parts(const __grid_constant__ struct wfi_gpu_parts_args a)
{
	crc_parts<5>(a);
}

/* 32 KiB, for GPUs with less shared memory: four lanes to a copy */
extern "C" __global__ void __launch_bounds__(CRC_THREADS, 1)
weft_crc32c_small(const __grid_constant__ struct wfi_gpu_crc_args a)
{
	crc<3>(a);
}

extern "C" __global__ void __launch_bounds__(CRC_THREADS, 1)
weft_crc32c_parts_small(const __grid_constant__ struct wfi_gpu_parts_args a)
{
	crc_parts<3>(a);
}
