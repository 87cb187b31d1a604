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
	WFI_CUDA_ATTR_HOST_POINTERS = 91, /* registered memory has one address, the host's */
	WFI_CUDA_ATTR_SHARED = 97,
	WFI_CUDA_ATTR_WAIT_FLUSH = 98, /* WFI_CUDA_WAIT_FLUSH */
	WFI_CUDA_ATTR_VMM = 102,
	WFI_CUDA_ATTR_VMM_FD = 103,
	WFI_CUDA_ATTR_GPUDIRECT = 116,
	WFI_CUDA_ATTR_FLUSH = 117, /* bits: enum wfi_cuda_flush_options */
	WFI_CUDA_ATTR_ORDERING = 118, /* enum wfi_cuda_flush: who needs none */
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

enum wfi_cuda_vmm {
	WFI_CUDA_VMM_PINNED = 1, /* .type */
	WFI_CUDA_VMM_DEVICE = 1, /* .location.type */
	WFI_CUDA_VMM_FD = 1, /* kind of handle */
	WFI_CUDA_VMM_READ_WRITE = 3,
	WFI_CUDA_VMM_MINIMUM = 0, /* kind of granularity */
};

enum wfi_cuda_stream_flags {
	WFI_CUDA_STREAM_NON_BLOCKING = 1, /* does not wait for stream 0 */
};

enum wfi_cuda_event_flags {
	WFI_CUDA_EVENT_NO_TIMING = 2,
	WFI_CUDA_EVENT_IPC = 4,
};

enum wfi_cuda_wait_flags {
	WFI_CUDA_WAIT_GEQ = 0, /* until (int32_t)(word - value) >= 0 */
	WFI_CUDA_WAIT_FLUSH = 1 << 30, /* what devices have written by then is seen behind it */
};

enum wfi_cuda_range_kind {
	WFI_CUDA_RANGE_DMABUF = 1,
};

enum wfi_cuda_flush_options {
	WFI_CUDA_FLUSH_HOST = 1, /* cuFlushGPUDirectRDMAWrites() */
};

/* what devices have written to a GPU's memory is seen by: */
enum wfi_cuda_flush {
	WFI_CUDA_FLUSH_NONE = 0,
	WFI_CUDA_FLUSH_OWNER = 100, /* that GPU */
	WFI_CUDA_FLUSH_ALL = 200,
	WFI_CUDA_FLUSH_CURRENT_CTX = 0, /* of whose memory */
};

enum wfi_cuda_ipc_flags {
	WFI_CUDA_IPC_LAZY_PEER = 1,
};

enum wfi_cuda_pointer_attr {
	WFI_CUDA_POINTER_CONTEXT = 1,
	WFI_CUDA_POINTER_ORDINAL = 9,
};

enum wfi_cuda_func_attr {
	WFI_CUDA_FUNC_SHARED = 8,
};

/* names of the driver's own */
struct CUctx_st;
struct CUstream_st;
struct CUevent_st;
struct CUmod_st;
struct CUfunc_st;

struct wfi_cuda_uuid {
	uint8_t bytes[16];
};

struct wfi_cuda_ipc {
	char bytes[64];
};

/* of an event */
struct wfi_cuda_ipc_event {
	char bytes[64];
};

struct wfi_cuda_copy_attrs {
	int order; /* of reading the sources */
	int hints[4]; /* for managed memory */
	unsigned flags;
};

#define WFI_CUDA_ORDER_STREAM 1

struct wfi_cuda_location {
	int type;
	int id;
};

/* an allocation of cuMemCreate() */
struct wfi_cuda_vmm_prop {
	int type;
	int handles; /* kinds that it can be exported as */
	struct wfi_cuda_location location;
	void *reserved;
	uint8_t flags[8];
};

struct wfi_cuda_vmm_access {
	struct wfi_cuda_location location;
	int flags;
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
	X(cuCtxSynchronize, "cuCtxSynchronize", (void))                                            \
	X(cuMemHostAlloc, "cuMemHostAlloc", (void **mem, size_t bytes, unsigned flags))            \
	X(cuMemFreeHost, "cuMemFreeHost", (void *mem))                                             \
	X(cuMemHostRegister, "cuMemHostRegister_v2", (void *mem, size_t bytes, unsigned flags))    \
	X(cuMemHostUnregister, "cuMemHostUnregister", (void *mem))                                 \
	X(cuMemHostGetDevicePointer, "cuMemHostGetDevicePointer_v2",                               \
	  (uint64_t * out, void *mem, unsigned flags))                                             \
	X(cuMemAlloc, "cuMemAlloc_v2", (uint64_t * mem, size_t bytes))                             \
	X(cuMemFree, "cuMemFree_v2", (uint64_t mem))                                               \
	X(cuMemGetAddressRange, "cuMemGetAddressRange_v2",                                         \
	  (uint64_t * base, size_t * bytes, uint64_t mem))                                         \
	X(cuPointerGetAttribute, "cuPointerGetAttribute", (void *value, int attr, uint64_t mem))   \
	X(cuMemcpyAsync, "cuMemcpyAsync",                                                          \
	  (uint64_t dst, uint64_t src, size_t bytes, struct CUstream_st * stream))                 \
	X(cuMemsetD32Async, "cuMemsetD32Async",                                                    \
	  (uint64_t dst, unsigned value, size_t nr, struct CUstream_st *stream))                   \
	X(cuStreamCreate, "cuStreamCreate", (struct CUstream_st * *stream, unsigned flags))        \
	X(cuStreamDestroy, "cuStreamDestroy_v2", (struct CUstream_st * stream))                    \
	X(cuStreamWaitEvent, "cuStreamWaitEvent",                                                  \
	  (struct CUstream_st * stream, struct CUevent_st * event, unsigned flags))                \
	X(cuEventCreate, "cuEventCreate", (struct CUevent_st * *event, unsigned flags))            \
	X(cuEventDestroy, "cuEventDestroy_v2", (struct CUevent_st * event))                        \
	X(cuEventRecord, "cuEventRecord",                                                          \
	  (struct CUevent_st * event, struct CUstream_st * stream))                                \
	X(cuEventQuery, "cuEventQuery", (struct CUevent_st * event))                               \
	X(cuEventSynchronize, "cuEventSynchronize", (struct CUevent_st * event))                   \
	X(cuEventElapsedTime, "cuEventElapsedTime",                                                \
	  (float *ms, struct CUevent_st *start, struct CUevent_st *end))                           \
	X(cuIpcGetMemHandle, "cuIpcGetMemHandle", (struct wfi_cuda_ipc * handle, uint64_t mem))    \
	X(cuIpcOpenMemHandle, "cuIpcOpenMemHandle_v2",                                             \
	  (uint64_t * mem, struct wfi_cuda_ipc handle, unsigned flags))                            \
	X(cuIpcCloseMemHandle, "cuIpcCloseMemHandle", (uint64_t mem))                              \
	X(cuIpcGetEventHandle, "cuIpcGetEventHandle",                                              \
	  (struct wfi_cuda_ipc_event * handle, struct CUevent_st * event))                         \
	X(cuIpcOpenEventHandle, "cuIpcOpenEventHandle",                                            \
	  (struct CUevent_st * *event, struct wfi_cuda_ipc_event handle))                          \
	X(cuMemCreate, "cuMemCreate",                                                              \
	  (uint64_t * handle, size_t bytes, const struct wfi_cuda_vmm_prop *prop,                  \
	   unsigned long long flags))                                                              \
	X(cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity",                          \
	  (size_t * bytes, const struct wfi_cuda_vmm_prop *prop, int kind))                        \
	X(cuMemRelease, "cuMemRelease", (uint64_t handle))                                         \
	X(cuMemRetainAllocationHandle, "cuMemRetainAllocationHandle",                              \
	  (uint64_t * handle, void *mem))                                                          \
	X(cuMemGetAllocationPropertiesFromHandle, "cuMemGetAllocationPropertiesFromHandle",        \
	  (struct wfi_cuda_vmm_prop * prop, uint64_t handle))                                      \
	X(cuMemExportToShareableHandle, "cuMemExportToShareableHandle",                            \
	  (void *out, uint64_t handle, int kind, unsigned long long flags))                        \
	X(cuMemImportFromShareableHandle, "cuMemImportFromShareableHandle",                        \
	  (uint64_t * handle, void *in, int kind))                                                 \
	X(cuMemAddressReserve, "cuMemAddressReserve",                                              \
	  (uint64_t * mem, size_t bytes, size_t align, uint64_t at, unsigned long long flags))     \
	X(cuMemAddressFree, "cuMemAddressFree", (uint64_t mem, size_t bytes))                      \
	X(cuMemMap, "cuMemMap",                                                                    \
	  (uint64_t mem, size_t bytes, size_t off, uint64_t handle, unsigned long long flags))     \
	X(cuMemUnmap, "cuMemUnmap", (uint64_t mem, size_t bytes))                                  \
	X(cuMemSetAccess, "cuMemSetAccess",                                                        \
	  (uint64_t mem, size_t bytes, const struct wfi_cuda_vmm_access *access, size_t nr))       \
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

/* those that only newer drivers have: NULL where they are not */
#define WFI_CUDA_MAYBE(X)                                                                          \
	X(cuStreamWaitValue32, "cuStreamWaitValue32_v2",                                           \
	  (struct CUstream_st * stream, uint64_t word, uint32_t value, unsigned flags))            \
	X(cuMemGetHandleForAddressRange, "cuMemGetHandleForAddressRange",                          \
	  (void *handle, uint64_t mem, size_t bytes, int kind, unsigned long long flags))          \
	X(cuFlushGPUDirectRDMAWrites, "cuFlushGPUDirectRDMAWrites", (int target, int scope))       \
	X(cuMemcpyBatchAsync, "cuMemcpyBatchAsync_v2",                                             \
	  (uint64_t * dsts, uint64_t * srcs, size_t * lens, size_t nr,                             \
	   struct wfi_cuda_copy_attrs * attrs, size_t * attrs_from, size_t nr_attrs,               \
	   struct CUstream_st * stream))

#define WFI_CUDA_MEMBER(name, symbol, args) int(*name) args;
struct wfi_cuda {
	WFI_CUDA_CALLS(WFI_CUDA_MEMBER)
	WFI_CUDA_MAYBE(WFI_CUDA_MEMBER)
};
#undef WFI_CUDA_MEMBER

#endif
