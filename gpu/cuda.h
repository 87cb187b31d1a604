/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cuda.h - the CUDA driver, loaded when it is first wanted
 *
 * Neither its header nor its library is needed to build, and one program runs with and without a
 * GPU. What stands here is the ABI of libcuda.so.1 as cuda.h of CUDA 13.0 has it; the driver keeps
 * it, a call that changes gets a symbol with another suffix. Where cuda.h is installed,
 * tests/unit/test_cuda_abi.c holds each name and value against it.
 *
 * CUresult and CUdevice are int, CUdeviceptr is uint64_t, handles are pointers to structs that
 * nobody sees into.
 */
#ifndef WFI_GPU_CUDA_H
#define WFI_GPU_CUDA_H

#include <stddef.h>
#include <stdint.h>

enum wfi_cuda_attr {
	WFI_CUDA_ATTR_NR_SM = 16,
	WFI_CUDA_ATTR_CC_MAJOR = 75,
	WFI_CUDA_ATTR_CC_MINOR = 76,
	WFI_CUDA_ATTR_SHARED = 97,
	WFI_CUDA_ATTR_VMM = 102,
	WFI_CUDA_ATTR_VMM_FD = 103,
	WFI_CUDA_ATTR_GPUDIRECT = 116,
	WFI_CUDA_ATTR_DMABUF = 124,
};

enum wfi_cuda_p2p_attr {
	WFI_CUDA_P2P_RANK = 1,
	WFI_CUDA_P2P_ACCESS = 2,
};

enum wfi_cuda_flags {
	WFI_CUDA_HOST_PORTABLE = 1, /* pinned for all contexts */
	WFI_CUDA_HOST_MAPPED = 2,
};

enum wfi_cuda_func_attr {
	WFI_CUDA_FUNC_SHARED = 8,
};

/* names of the driver's own */
struct CUctx_st;
struct CUstream_st;
struct CUmod_st;
struct CUfunc_st;

struct wfi_cuda_uuid {
	uint8_t bytes[16];
};

/* member, symbol, arguments; each returns a CUresult */
#define WFI_CUDA_CALLS(X)                                                                          \
	X(cuInit, "cuInit", (unsigned flags))                                                      \
	X(cuDriverGetVersion, "cuDriverGetVersion", (int *version))                                \
	X(cuDeviceGetCount, "cuDeviceGetCount", (int *nr))                                         \
	X(cuDeviceGet, "cuDeviceGet", (int *dev, int ordinal))                                     \
	X(cuDeviceGetName, "cuDeviceGetName", (char *name, int len, int dev))                      \
	X(cuDeviceGetUuid, "cuDeviceGetUuid_v2", (struct wfi_cuda_uuid * uuid, int dev))           \
	X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t * bytes, int dev))                      \
	X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attr, int dev))           \
	X(cuDeviceGetPCIBusId, "cuDeviceGetPCIBusId", (char *id, int len, int dev))                \
	X(cuDeviceGetP2PAttribute, "cuDeviceGetP2PAttribute",                                      \
	  (int *value, int attr, int src, int dst))                                                \
	X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (struct CUctx_st * *ctx, int dev)) \
	X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (int dev))                    \
	X(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (struct CUctx_st * ctx))                        \
	X(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (struct CUctx_st * *ctx))                         \
	X(cuMemHostAlloc, "cuMemHostAlloc", (void **mem, size_t bytes, unsigned flags))            \
	X(cuMemFreeHost, "cuMemFreeHost", (void *mem))                                             \
	X(cuMemsetD32Async, "cuMemsetD32Async",                                                    \
	  (uint64_t dst, unsigned value, size_t nr, struct CUstream_st *stream))                   \
	X(cuModuleLoadData, "cuModuleLoadData", (struct CUmod_st * *module, const void *image))    \
	X(cuModuleUnload, "cuModuleUnload", (struct CUmod_st * module))                            \
	X(cuModuleGetFunction, "cuModuleGetFunction",                                              \
	  (struct CUfunc_st * *func, struct CUmod_st * module, const char *name))                  \
	X(cuFuncSetAttribute, "cuFuncSetAttribute",                                                \
	  (struct CUfunc_st * func, int attr, int value))                                          \
	X(cuOccupancyMaxActiveBlocksPerMultiprocessor,                                             \
	  "cuOccupancyMaxActiveBlocksPerMultiprocessor",                                           \
	  (int *blocks, struct CUfunc_st *func, int threads, size_t shared))                       \
	X(cuLaunchKernel, "cuLaunchKernel",                                                        \
	  (struct CUfunc_st * func, unsigned grid_x, unsigned grid_y, unsigned grid_z,             \
	   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,                  \
	   struct CUstream_st *stream, void **params, void **extra))

#define WFI_CUDA_MEMBER(name, symbol, args) int(*name) args;
struct wfi_cuda {
	WFI_CUDA_CALLS(WFI_CUDA_MEMBER)
};
#undef WFI_CUDA_MEMBER

#endif
