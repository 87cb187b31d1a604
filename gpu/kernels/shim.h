/* SPDX-License-Identifier: Apache-2.0 */
/**
 * shim.h - what kernels are written in: C that nvcc compiles for a GPU, and any compiler for a CPU
 *
 * A kernel is a function of one warp, made of phases. A phase does for each lane what stands in
 * its braces; between two, wfi_warp_sync(). On a GPU each lane is a thread and does its own; on a
 * CPU one thread does them in turn. What a lane keeps from one phase to the next stands in an
 * array of WFI_SLOTS elements, at [WFI_SLOT(lane)]: registers on a GPU. What lanes tell each other
 * goes through a struct in shared memory.
 */
#ifndef WFI_GPU_KERNELS_SHIM_H
#define WFI_GPU_KERNELS_SHIM_H

#include <stdint.h>
#include "gpu/kernels/args.h"

struct wfi_vec {
	uint32_t w[4];
};

#ifdef __CUDACC__

#define WFI_GPU_FN static __device__ __forceinline__
#define WFI_UNROLL _Pragma("unroll")
#define WFI_UNSET /* registers that are written before they are read cost nothing until then */
#define WFI_SLOTS 1
#define WFI_SLOT(lane) 0
#define WFI_EACH_LANE(lane)                                                                        \
	for (unsigned lane = threadIdx.x % WFI_GPU_WARP, once_ = 1; once_; once_ = 0)

WFI_GPU_FN void wfi_warp_sync(void)
{
	__syncwarp();
}

/* what is read or written once goes around the first cache */
WFI_GPU_FN struct wfi_vec wfi_load_vec(uint64_t at)
{
	const uint4 v = __ldcs((const uint4 *)at);
	const struct wfi_vec out = { { v.x, v.y, v.z, v.w } };

	return out;
}

WFI_GPU_FN void wfi_store_vec(uint64_t at, struct wfi_vec v)
{
	__stcs((uint4 *)at, make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]));
}

#define WFI_LOAD(type, at) __ldcs((const type *)(at))
#define WFI_STORE(type, at, v) __stcs((type *)(at), (type)(v))

/* of a table that others read as well */
#define WFI_LOOKUP(type, at) __ldg((const type *)(at))

WFI_GPU_FN uint32_t wfi_mul_high(uint32_t a, uint32_t b)
{
	return __umulhi(a, b);
}

WFI_GPU_FN void wfi_xor_shared(uint64_t at, uint32_t v)
{
	atomicXor((uint32_t *)at, v);
}

WFI_GPU_FN float wfi_float(uint32_t bits)
{
	return __uint_as_float(bits);
}

WFI_GPU_FN uint32_t wfi_bits(float f)
{
	return __float_as_uint(f);
}

#else

#include <stdlib.h>
#include <string.h>

#define WFI_GPU_FN static inline __attribute__((unused))
#define WFI_UNROLL
#define WFI_UNSET = { 0 } /* gcc doubts that */
#define WFI_SLOTS WFI_GPU_WARP
#define WFI_SLOT(lane) (lane)
#define WFI_EACH_LANE(lane) for (unsigned lane = 0; lane < WFI_GPU_WARP; lane++)

WFI_GPU_FN void wfi_warp_sync(void)
{
}

/* a GPU does not forgive it either */
WFI_GPU_FN void *wfi_aligned(uint64_t at, unsigned bytes)
{
	if (at % bytes)
		abort();
	return (void *)(uintptr_t)at;
}

WFI_GPU_FN struct wfi_vec wfi_load_vec(uint64_t at)
{
	struct wfi_vec v;

	memcpy(&v, wfi_aligned(at, sizeof(v)), sizeof(v));
	return v;
}

WFI_GPU_FN void wfi_store_vec(uint64_t at, struct wfi_vec v)
{
	memcpy(wfi_aligned(at, sizeof(v)), &v, sizeof(v));
}

#define WFI_LOAD(type, at) (*(const type *)wfi_aligned((at), sizeof(type)))
#define WFI_STORE(type, at, v) (*(type *)wfi_aligned((at), sizeof(type)) = (type)(v))
#define WFI_LOOKUP(type, at) WFI_LOAD(type, at)

WFI_GPU_FN uint32_t wfi_mul_high(uint32_t a, uint32_t b)
{
	return (uint32_t)((uint64_t)a * b >> 32);
}

WFI_GPU_FN void wfi_xor_shared(uint64_t at, uint32_t v)
{
	*(uint32_t *)wfi_aligned(at, sizeof(v)) ^= v;
}

WFI_GPU_FN float wfi_float(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

WFI_GPU_FN uint32_t wfi_bits(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

#endif

WFI_GPU_FN uint64_t wfi_side_at(const struct wfi_gpu_side *side, uint32_t block)
{
	const uint64_t nr = side->index ? WFI_LOOKUP(uint32_t, side->index + 4ull * block) : block;

	return side->base + nr * side->stride;
}

#endif
