/* SPDX-License-Identifier: Apache-2.0 */
/**
 * args.h - what kernels are told: by value at the launch, so that a CUDA graph keeps it
 *
 * Compiled by nvcc as well. Addresses are those of the device; memory that they name, tables too,
 * may be the GPU's or pinned host memory. It is lent until the launch is done.
 */
#ifndef WFI_GPU_KERNELS_ARGS_H
#define WFI_GPU_KERNELS_ARGS_H

#include <stdint.h>

#define WFI_GPU_WARP 32u /* lanes of a warp */
#define WFI_GPU_VEC 16u /* bytes of the widest access */

/**
 * struct wfi_gpu_side - where blocks lie: block i at @base + (@index ? @index[i] : i) * @stride
 * @index: address of 32-bit numbers, as block tables of paged attention have, or 0
 */
struct wfi_gpu_side {
	uint64_t base;
	uint64_t stride;
	uint64_t index;
};

/* @len bytes from @src to @dst: of a run offsets within each block, of a piece addresses */
struct wfi_gpu_item {
	uint64_t src;
	uint64_t dst;
	uint32_t len;
	uint32_t reserved;
};

/**
 * struct wfi_gpu_move_args - runs of each of many blocks, or pieces
 * @src, @dst: not read where there are pieces
 * @items: address of the runs, or pieces; 0: all @len bytes of each block, in runs of @part
 * @nr_runs: 0: pieces
 * @nr: runs of all blocks, or pieces; numbered block by block
 * @batch: that a warp takes at a time: 1 to 32
 * @vecs: 16-byte words of each, where all have as many, and all addresses are multiples of 16;
 *        else 0
 * @vecs_magic: ceil(2^32 / @vecs), to divide by it; not read when @vecs is 0 or 1
 */
struct wfi_gpu_move_args {
	struct wfi_gpu_side src;
	struct wfi_gpu_side dst;
	uint64_t items;
	uint32_t nr_runs;
	uint32_t nr;
	uint32_t batch;
	uint32_t vecs;
	uint32_t vecs_magic;
	uint32_t len;
	uint32_t part;
	uint32_t reserved;
};

/* no item is longer: @vecs_magic then divides exactly, and work is spread evenly */
#define WFI_GPU_ITEM_MAX 8192u

/**
 * struct wfi_gpu_crc_args - CRC32C of each block
 * @len: of a block
 * @out: address of a sum per block; zeros where @nr_strips is more than 1
 * @powers: address of WFI_GPU_CRC_STRIDE / 4 numbers, the i-th is x^(32 * (i + 1)), then of
 *          @nr_strips, the i-th moves a sum past i strips
 * @tail: what all blocks of this length have in common: the start value, moved past them, inverted
 * @nr: blocks
 * @nr_strips: that each is summed up in, from its end on; the last, at its start, may be short
 */
struct wfi_gpu_crc_args {
	struct wfi_gpu_side src;
	uint64_t len;
	uint64_t out;
	uint64_t powers;
	uint32_t tail;
	uint32_t nr;
	uint32_t nr_strips;
	uint32_t reserved;
};

/**
 * struct wfi_gpu_part - what a part of a block adds to the block's sum
 * @power: x^(8 * bytes of the block behind it)
 * @sum: told by the kernel
 * @block: the caller's
 */
struct wfi_gpu_part {
	uint64_t src;
	uint32_t len;
	uint32_t power;
	uint32_t sum;
	uint32_t block;
};

/**
 * struct wfi_gpu_parts_args - @nr parts, at the address @parts
 * @powers: as wfi_gpu_crc_args has them, but for the strips'
 */
struct wfi_gpu_parts_args {
	uint64_t parts;
	uint64_t powers;
	uint32_t nr;
	uint32_t reserved;
};

#define WFI_GPU_CRC_STRIDE 512u /* bytes that a warp takes in a step */
#define WFI_GPU_CRC_STRIP 65536u

/**
 * struct wfi_gpu_cast_args - bf16 to fp8 (e4m3) with a scale per group, and back
 * @wide: blocks of @nr_groups * @group bf16 numbers
 * @narrow: blocks of as many fp8 numbers, then @nr_groups scales of 32 bits
 * @nr_groups: in a block
 * @group: numbers of one: 32, 64, 128 or 256
 * @nr: groups in all blocks
 *
 * All addresses are multiples of 16.
 */
struct wfi_gpu_cast_args {
	struct wfi_gpu_side wide;
	struct wfi_gpu_side narrow;
	uint32_t nr_groups;
	uint32_t group;
	uint32_t nr;
	uint32_t reserved;
};

#endif
