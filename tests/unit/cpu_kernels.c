/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "gpu/kernels/cast.h"
#include "gpu/kernels/crc.h"
#include "gpu/kernels/move.h"
#include "tests/unit/cpu_kernels.h"

#define THREADS 256u
#define WARPS (THREADS / WFI_GPU_WARP)
#define CRC_THREADS 1024u
#define CRC_WARPS (CRC_THREADS / WFI_GPU_WARP)

static void run_move(const void *args, void *shared, unsigned bytes, uint32_t block, uint32_t grid)
{
	struct wfi_move_shared sh;

	(void)shared;
	(void)bytes;
	for (uint32_t warp = 0; warp < WARPS; warp++) {
		memset(&sh, 0xa5, sizeof(sh));
		wfi_move_warp(args, &sh, block * WARPS + warp, grid * WARPS);
	}
}

static void run_narrow(const void *args, void *shared, unsigned bytes, uint32_t block,
		       uint32_t grid)
{
	struct wfi_cast_shared sh;

	(void)shared;
	(void)bytes;
	for (uint32_t warp = 0; warp < WARPS; warp++) {
		memset(&sh, 0xa5, sizeof(sh));
		wfi_narrow_warp(args, &sh, block * WARPS + warp, grid * WARPS);
	}
}

static void run_widen(const void *args, void *shared, unsigned bytes, uint32_t block, uint32_t grid)
{
	(void)shared;
	(void)bytes;
	for (uint32_t warp = 0; warp < WARPS; warp++)
		wfi_widen_warp(args, block * WARPS + warp, grid * WARPS);
}

/* Return: copies of the table, as the bytes for it say */
static unsigned crc_fill(void *shared, unsigned bytes)
{
	const unsigned copies = bytes == WFI_CRC_TABLE * 4 << 5 ? 5 : 3;

	for (unsigned thread = 0; thread < CRC_THREADS; thread++)
		wfi_crc_fill(shared, copies, thread, CRC_THREADS);
	return copies;
}

static void run_crc(const void *args, void *shared, unsigned bytes, uint32_t block, uint32_t grid)
{
	const unsigned copies = crc_fill(shared, bytes);
	struct wfi_crc_shared sh;

	for (uint32_t warp = 0; warp < CRC_WARPS; warp++) {
		memset(&sh, 0xa5, sizeof(sh));
		wfi_crc_warp(args, shared, copies, &sh, block * CRC_WARPS + warp, grid * CRC_WARPS);
	}
}

static void run_crc_parts(const void *args, void *shared, unsigned bytes, uint32_t block,
			  uint32_t grid)
{
	const unsigned copies = crc_fill(shared, bytes);
	struct wfi_crc_shared sh;

	for (uint32_t warp = 0; warp < CRC_WARPS; warp++) {
		memset(&sh, 0xa5, sizeof(sh));
		wfi_crc_parts_warp(args, shared, copies, &sh, block * CRC_WARPS + warp,
				   grid * CRC_WARPS);
	}
}

/* a benchmark's: what it does is of no interest here */
static void run_nothing(const void *args, void *shared, unsigned bytes, uint32_t block,
			uint32_t grid)
{
	(void)args;
	(void)shared;
	(void)bytes;
	(void)block;
	(void)grid;
}

const struct cpu_kernel cpu_kernels[CPU_KERNELS] = {
	{ "weft_move", THREADS, run_move },
	{ "weft_narrow", THREADS, run_narrow },
	{ "weft_widen", THREADS, run_widen },
	{ "weft_crc32c", CRC_THREADS, run_crc },
	{ "weft_crc32c_small", CRC_THREADS, run_crc },
	{ "weft_crc32c_parts", CRC_THREADS, run_crc_parts },
	{ "weft_crc32c_parts_small", CRC_THREADS, run_crc_parts },
	{ "peer_empty", 32, run_nothing },
	{ "peer_read", 1024, run_nothing },
	{ "peer_halve", 1024, run_nothing },
	{ "peer_double", 1024, run_nothing },
};

void cpu_kernel_run(const struct cpu_kernel *kernel, uint32_t grid, unsigned shared,
		    const void *args)
{
	uint8_t *memory = malloc(shared);
	uint32_t block = grid;

	if (shared && !memory)
		abort();
	while (block-- > 0) {
		if (shared)
			memset(memory, 0xa5, shared);
		kernel->block(args, memory, shared, block, grid);
	}
	free(memory);
}
