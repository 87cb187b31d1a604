/* SPDX-License-Identifier: Apache-2.0 */
/* driver.h - the little of CUDA's driver that the example needs, loaded at run time: it is built
 * without CUDA, as Weft is */
#ifndef EXAMPLE_DRIVER_H
#define EXAMPLE_DRIVER_H

#include <stddef.h>
#include <stdint.h>

/* Return: 0; 77 there is no GPU here, said */
int driver_load(void);
/* GPU 0's memory, as cudaMalloc() has it, or by cuMemCreate() with a file descriptor. 0: none is
 * left. Lives as long as the process */
uint64_t driver_alloc(size_t len, int vmm);
/* between host and GPU, either way; done on return. Return: 0, a CUresult */
int driver_copy(uint64_t dst, uint64_t src, size_t len);

#endif
