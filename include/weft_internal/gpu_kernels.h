/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu_kernels.h - what GPUs do for us: gather and scatter, change of layout, sums, casts
 *
 * Each call is one launch in the caller's stream: it starts when what is before it there is done,
 * and is done when what comes behind it starts. Nothing waits, nothing is allocated, and all that
 * the launch is told by value stays with it, so that calls can be captured in a CUDA graph. Tables
 * and blocks that it names are lent until it is done.
 *
 * Addresses are those of the GPU; that of pinned host memory is its own. What they name is the
 * caller's to know: a kernel that touches what is not there costs the whole context (-EIO from
 * then on).
 *
 * Context: any thread; a struct wfi_gpu is not changed by these calls.
 */
#ifndef WFI_GPU_KERNELS_H
#define WFI_GPU_KERNELS_H

#include <stdint.h>
#include "gpu/kernels/args.h"
#include "weft_internal/env.h"
#include "weft_internal/gpu.h"

struct wfi_gpu;
struct CUstream_st; /* CUstream, cudaStream_t */

/**
 * wfi_gpu_open - a GPU with our kernels, in its primary context, which CUDA's runtime uses as well
 *
 * Return: 0; -EOPNOTSUPP built without kernels (nvcc); else as wfi_cuda_errno(); logged
 */
int wfi_gpu_open(struct wfi_env *env, const struct wfi_cuda *cuda, int ordinal,
		 struct wfi_gpu **out);
/* the same without kernels, too, where this was built without: then launches are -EOPNOTSUPP */
int wfi_gpu_open_any(struct wfi_env *env, const struct wfi_cuda *cuda, int ordinal,
		     struct wfi_gpu **out);
bool wfi_gpu_has_kernels(const struct wfi_gpu *gpu);
/* takes NULL. No launch is under way */
void wfi_gpu_close(struct wfi_gpu *gpu);

/* pinned host memory, which every GPU reaches at the same address. Return: 0, -ENOMEM, -EIO;
 * logged */
int wfi_gpu_pin(struct wfi_gpu *gpu, size_t len, void **out);
/* takes NULL */
void wfi_gpu_unpin(struct wfi_gpu *gpu, void *mem);

/* ---- gather, scatter, change of layout ---- */

/**
 * struct wfi_gpu_table - runs or pieces for wfi_gpu_move()
 * @items: room for @max, in pinned memory; the caller's
 * @nr: how many there are
 * @bytes: in all of them
 * @len: of each, where they are alike
 * @odd: what addresses, offsets and lengths are not multiples of
 */
struct wfi_gpu_table {
	struct wfi_gpu_item *items;
	uint32_t max;
	uint32_t nr;
	uint64_t bytes;
	uint32_t len;
	uint32_t odd;
};

/**
 * wfi_gpu_table_add - @len bytes from @src to @dst: offsets within the blocks, or addresses
 *
 * As wfi_layout_plan() has them. Long ones are cut, and those that are some times as long as the
 * first: the launch is fastest where all are alike. Nothing is added of what does not fit.
 * Return: 0; -ENOSPC
 */
int wfi_gpu_table_add(struct wfi_gpu_table *table, uint64_t src, uint64_t dst, uint64_t len);

/**
 * wfi_gpu_move - the runs of each of @nr_blocks blocks, from @src to @dst
 * @src, @dst: lent for the call; what they name, until the launch is done. NULL: @table has pieces
 * @nr_blocks: not looked at where there are pieces
 *
 * What is written neither overlaps nor is read.
 * Return: 0, nothing to do included; -E2BIG more than 2^32 - 1 runs in all; as wfi_cuda_errno(),
 * logged
 */
int wfi_gpu_move(struct wfi_gpu *gpu, const struct wfi_gpu_table *table,
		 const struct wfi_gpu_side *src, const struct wfi_gpu_side *dst, uint32_t nr_blocks,
		 struct CUstream_st *stream);

/* the same of all @len bytes of each block: gather and scatter, without a table */
int wfi_gpu_move_blocks(struct wfi_gpu *gpu, const struct wfi_gpu_side *src,
			const struct wfi_gpu_side *dst, uint32_t len, uint32_t nr,
			struct CUstream_st *stream);

/* ---- CRC32C, as wfi_crc32c() ---- */

/**
 * struct wfi_gpu_sums - what there is to know to sum up blocks of one length
 * @powers: wfi_gpu_sums_len() numbers in pinned memory or the GPU's; the caller's
 */
struct wfi_gpu_sums {
	uint64_t len;
	const uint32_t *powers;
	uint32_t tail;
	uint32_t nr_strips;
};

/* Return: how many numbers there are for blocks of @len bytes; 0: too long, or no bytes */
uint32_t wfi_gpu_sums_len(uint64_t len);
/* @powers: room for wfi_gpu_sums_len() numbers, written here */
void wfi_gpu_sums_init(struct wfi_gpu_sums *sums, uint64_t len, uint32_t *powers);
/**
 * wfi_gpu_crc32c - the sum of each of @nr blocks
 * @out: address of @nr numbers in the GPU's memory
 *
 * Return: 0; as wfi_cuda_errno(), logged
 */
int wfi_gpu_crc32c(struct wfi_gpu *gpu, const struct wfi_gpu_sums *sums,
		   const struct wfi_gpu_side *src, uint32_t nr, uint64_t out,
		   struct CUstream_st *stream);

/**
 * wfi_gpu_crc32c_parts - what parts of blocks add to their blocks' sums
 * @sums: for blocks of at least as many bytes as a part has; its .powers alone count
 * @parts: @nr of them, in pinned memory; all but .sum are the caller's to write. Each is summed up
 *         by one warp: long ones are better cut (WFI_GPU_ITEM_MAX)
 *
 * A block's sum is that of its parts, added by xor, and wfi_gpu_sums_tail() of its length.
 * Return: 0; as wfi_cuda_errno(), logged
 */
int wfi_gpu_crc32c_parts(struct wfi_gpu *gpu, const struct wfi_gpu_sums *sums,
			 struct wfi_gpu_part *parts, uint32_t nr, struct CUstream_st *stream);
uint32_t wfi_gpu_sums_tail(uint64_t len);

/* ---- bf16 to fp8 (e4m3), and back ---- */

/**
 * struct wfi_gpu_cast - the shape of a block
 * @nr_groups: of it
 * @group: numbers with one scale: 32, 64, 128 or 256
 *
 * Wide, a block is @nr_groups * @group bf16 numbers; narrow, as many e4m3 numbers, then @nr_groups
 * scales (IEEE single). A number is its code times the scale of its group. Error bounds stand in
 * gpu/kernels/cast.h.
 */
struct wfi_gpu_cast {
	uint32_t nr_groups;
	uint32_t group;
};

static inline uint64_t wfi_gpu_narrow_bytes(const struct wfi_gpu_cast *cast)
{
	return (uint64_t)cast->nr_groups * (cast->group + 4);
}

/* Return: 0; -EINVAL no such group, or an address or stride that is no multiple of 16; -E2BIG; as
 * wfi_cuda_errno(), logged */
int wfi_gpu_narrow(struct wfi_gpu *gpu, const struct wfi_gpu_cast *cast,
		   const struct wfi_gpu_side *wide, const struct wfi_gpu_side *narrow, uint32_t nr,
		   struct CUstream_st *stream);
int wfi_gpu_widen(struct wfi_gpu *gpu, const struct wfi_gpu_cast *cast,
		  const struct wfi_gpu_side *narrow, const struct wfi_gpu_side *wide, uint32_t nr,
		  struct CUstream_st *stream);

/* ---- between a GPU and its host, through a stage ---- */

/*
 * Blocks are gathered into one of two buffers of the GPU's while the copy engine empties the other,
 * so that it moves few large pieces: small ones cost it as much each. And the other way round.
 */
struct wfi_gpu_stage;

/**
 * wfi_gpu_stage_create - two buffers, and a stream of its own for the copy engine
 * @bytes: of each buffer; 0: 16 MiB
 *
 * Return: 0; as wfi_cuda_errno(), logged
 */
int wfi_gpu_stage_create(struct wfi_gpu *gpu, uint64_t bytes, struct wfi_gpu_stage **out);
/* takes NULL. Nothing is under way */
void wfi_gpu_stage_destroy(struct wfi_gpu_stage *stage);

/**
 * wfi_gpu_to_host - @nr blocks of @len bytes, one behind the other to @host
 * @src: blocks in the GPU's memory; lent for the call, its index until all is done
 * @host: pinned, or copies wait for the host
 *
 * Starts when what is before it in @stream is done; what comes behind it there waits for all of it.
 * One at a time for a stage, however many streams there are.
 * Return: 0; -EINVAL a block is larger than a buffer; as wfi_cuda_errno(), logged
 */
int wfi_gpu_to_host(struct wfi_gpu_stage *stage, const struct wfi_gpu_side *src, uint32_t len,
		    uint32_t nr, void *host, struct CUstream_st *stream);
int wfi_gpu_from_host(struct wfi_gpu_stage *stage, const void *host, const struct wfi_gpu_side *dst,
		      uint32_t len, uint32_t nr, struct CUstream_st *stream);

#endif
