/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_kernels.h - the kernels of gpu/kernels, run by the CPU: an access out of place shows */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include <stdint.h>

struct cpu_kernel {
	const char *name;
	int threads; /* of a block */
	/* one block of @grid. @shared: memory of the block, poisoned, of @bytes bytes */
	void (*block)(const void *args, void *shared, unsigned bytes, uint32_t block,
		      uint32_t grid);
};

#define CPU_KERNELS 11
extern const struct cpu_kernel cpu_kernels[CPU_KERNELS];

/* blocks one after the other, the last first: nobody may count on an order */
void cpu_kernel_run(const struct cpu_kernel *kernel, uint32_t grid, unsigned shared,
		    const void *args);

#endif
