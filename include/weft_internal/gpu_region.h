/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu_region.h - GPU memory of one process, used by another on the same GPU
 *
 * Memory of cudaMalloc() has handles that another process of this host opens (CUDA IPC), memory of
 * cuMemCreate() has file descriptors that it maps. What it has opened stays there when the owner
 * ends. What the owner frees meanwhile stays there too where it was mapped from a descriptor; by
 * the other way it means nothing any more, so owners tell before they free.
 */
#ifndef WFI_GPU_REGION_H
#define WFI_GPU_REGION_H

#include "weft_internal/gpu_kernels.h"

#define WFI_GPU_WHY_MAX 184u

struct CUevent_st; /* CUevent, cudaEvent_t */

enum wfi_gpu_export_kind {
	WFI_GPU_EXPORT_IPC = 1,
	WFI_GPU_EXPORT_VMM = 2, /* with a descriptor beside it */
	WFI_GPU_EXPORT_EVENT = 3, /* no memory: an event, by its CUDA IPC handle */
	WFI_GPU_EXPORT_OWN = 4, /* to nobody: of wfi_gpu_memory_open(), .max_len bytes */
};

/**
 * struct wfi_gpu_export - a region on its way to another process: bytes, whoever holds them (and
 * the descriptor) may read and write it
 * @kind: enum wfi_gpu_export_kind
 * @driver: as wfi_gpu_info.driver, of the library that made it
 * @uuid: of the GPU
 * @handle: IPC: of the allocation that it lies in; an event: its own
 * @addr: in the process that made it; an event: its CUevent there
 * @off, @len: where in the allocation
 * @size: VMM: of the allocation
 */
struct wfi_gpu_export {
	uint32_t kind;
	int32_t driver;
	uint8_t uuid[16];
	uint8_t handle[64];
	uint64_t addr;
	uint64_t off;
	uint64_t len;
	uint64_t size;
};

/**
 * struct wfi_gpu_shape - where blocks lie in a region whose bytes are counted block by block
 * @nr_segments: 0: bytes lie as they are counted, and the rest means nothing
 * @segment_bytes: a block is .nr_segments runs of so many
 * @segment_stride: from one to the next
 * @block_stride: from one block to the next
 */
struct wfi_gpu_shape {
	uint64_t segment_bytes;
	uint64_t segment_stride;
	uint64_t block_stride;
	uint32_t nr_segments;
	uint32_t reserved;
};

/* the run that begins @off counted bytes into a region. Return: its length, *@at: where it lies,
 * from the region's first byte on. Hot */
static inline uint64_t wfi_gpu_shape_run(const struct wfi_gpu_shape *s, uint64_t off, uint64_t *at)
{
	uint64_t block, in;

	*at = off;
	if (!s->nr_segments)
		return UINT64_MAX;
	block = s->segment_bytes * s->nr_segments;
	in = off % block;
	*at = off / block * s->block_stride + in / s->segment_bytes * s->segment_stride +
	      in % s->segment_bytes;
	return s->segment_bytes - in % s->segment_bytes;
}

/* what stands in weft_rkey_src.blob for WEFT_RKEY_GPU */
struct wfi_gpu_source {
	struct wfi_gpu_export memory;
	struct wfi_gpu_shape shape;
};

/* a region of another process, open. @addr: in this one */
struct wfi_gpu_region {
	struct wfi_gpu *gpu;
	uint32_t kind; /* 0: of this process, nothing was opened */
	uint64_t base;
	uint64_t size; /* VMM: what is mapped at .base */
	uint64_t addr;
	uint64_t len;
};

/**
 * struct wfi_gpu_memory - memory of a GPU's that is this process's own
 * @ordinal: the GPU's number
 * @len: what there is, from .addr on
 * @max_len: addresses that are kept for it, multiple of .part
 * @part: it grows and shrinks by so many bytes; 0: it can't
 */
struct wfi_gpu_memory {
	struct wfi_gpu *gpu; /* NULL: none */
	int ordinal;
	uint64_t addr;
	uint64_t len;
	uint64_t max_len;
	uint64_t part;
};

/**
 * wfi_gpu_memory_open - memory of the GPU of that name
 * @len: bytes, made whole parts of
 * @max_len: that it may grow to
 * @part: power of two: bytes to grow and shrink by, if the GPU takes so few
 *
 * Where kernels can be launched, too: who has bytes there wants to know what they are. A GPU that
 * maps no memory in parts gives it in one piece of @len bytes, for ever.
 * Context: any thread. Takes up to seconds.
 * Return: 0; -EOPNOTSUPP built without kernels; -ENODEV; as wfi_cuda_errno(); logged
 */
int wfi_gpu_memory_open(struct wfi_env *env, const struct wfi_cuda *cuda, const uint8_t uuid[16],
			uint64_t len, uint64_t max_len, uint64_t part, struct wfi_gpu_memory *out);
/* to @len, no less than .len, made whole parts of; what was there stays where it is.
 * Return: 0; -EINVAL that is more than .max_len; -EOPNOTSUPP it can't grow; as wfi_cuda_errno(),
 * logged, with nothing changed */
int wfi_gpu_memory_grow(struct wfi_gpu_memory *memory, uint64_t len);
/* nothing touches what lies behind @len, whole parts: it is given back, if it can be */
void wfi_gpu_memory_trim(struct wfi_gpu_memory *memory, uint64_t len);
/* waits for what is under way there. Does nothing to memory that is zero */
void wfi_gpu_memory_close(struct wfi_gpu_memory *memory);

/**
 * wfi_gpu_export - @len bytes at @addr, in memory of this process
 * @fd: -1, or to be passed beside it; the caller's to close
 * @why: WFI_GPU_WHY_MAX bytes: on errors a sentence that says what to do
 *
 * Context: any thread, whatever context it is in.
 * Return: 0; -ESTALE there is no GPU memory, or it was freed; -EINVAL more than one allocation;
 * -EOPNOTSUPP memory that no other process can have; as wfi_cuda_errno(). Not logged
 */
int wfi_gpu_export(const struct wfi_cuda *cuda, uint64_t addr, uint64_t len,
		   struct wfi_gpu_export *out, int *fd, char *why);
/**
 * wfi_gpu_dmabuf - the same memory for NICs, as a dma-buf of the pages that it lies in
 * @fd: the caller's to close; it keeps the memory until then
 * @off: in there
 *
 * Context and errors as wfi_gpu_export(); -EOPNOTSUPP this driver, GPU or memory has none
 */
int wfi_gpu_dmabuf(const struct wfi_cuda *cuda, uint64_t addr, uint64_t len, int *fd, uint64_t *off,
		   char *why);
/**
 * wfi_gpu_event_export - an event that is recorded in streams of this process
 * @event: made with CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING
 * @addr: GPU memory of this process: on its GPU others will wait
 *
 * Context and errors as wfi_gpu_export(); -EOPNOTSUPP an event that is of this process alone
 */
int wfi_gpu_event_export(const struct wfi_cuda *cuda, struct CUevent_st *event, uint64_t addr,
			 struct wfi_gpu_export *out, char *why);
/* the event of another process. Return: 0; as wfi_gpu_import(), logged */
int wfi_gpu_event_import(struct wfi_gpu *gpu, const struct wfi_gpu_export *e,
			 struct CUevent_st **out);
void wfi_gpu_event_close(struct wfi_gpu *gpu, struct CUevent_st *event);

/* host memory of this process whose words streams wait for; .addr: where GPUs see it */
struct wfi_gpu_words {
	const struct wfi_cuda *cuda;
	struct CUctx_st *ctx;
	int dev;
	unsigned flags; /* of a wait: what NICs have written is seen behind it, where GPUs can */
	void *mem;
	uint64_t addr;
};

/**
 * wfi_gpu_words_open - let GPUs see @len bytes of host memory
 * @beside: GPU memory of this process, of whose GPU the context is that holds the pages
 * @mem: pages; the caller's until wfi_gpu_words_close()
 *
 * Context and errors as wfi_gpu_export(); -EOPNOTSUPP a driver whose streams can't wait for words
 */
int wfi_gpu_words_open(const struct wfi_cuda *cuda, uint64_t beside, void *mem, size_t len,
		       struct wfi_gpu_words *out, char *why);
/* no stream waits there for ever any more: returns when none waits at all */
void wfi_gpu_words_close(struct wfi_gpu_words *words);
/* what is asked of @stream from now on begins when (int32_t)(word - @value) >= 0. Context: as the
 * driver has it for @stream. Errors as wfi_gpu_export() */
int wfi_gpu_words_wait(const struct wfi_gpu_words *words, struct CUstream_st *stream, uint64_t word,
		       uint32_t value, char *why);

/**
 * wfi_gpu_import - open what another process has exported
 * @e: input: nothing in it is believed
 * @fd: what came beside it, or -1; lent for the call
 *
 * Return: 0; -EXDEV it is another GPU's; -ESTALE its process has ended or freed it; -EINVAL it is
 * more than the allocation; -EBADF there is no descriptor, or not one of the driver's; -EPROTO
 * another version of the driver made it, and this one can't open it; as wfi_cuda_errno(). Logged
 */
int wfi_gpu_import(struct wfi_gpu *gpu, const struct wfi_gpu_export *e, int fd,
		   struct wfi_gpu_region *out);
/* the same in the process that made it, where no handle can be opened. Return: 0; -EXDEV, -ESTALE,
 * -EINVAL, as wfi_cuda_errno(). Logged */
int wfi_gpu_region_here(struct wfi_gpu *gpu, const struct wfi_gpu_export *e,
			struct wfi_gpu_region *out);
/* nothing touches it any more. Does nothing to a region that is zero */
void wfi_gpu_region_close(struct wfi_gpu_region *region);

#endif
