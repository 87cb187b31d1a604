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
/* pinned host memory, as long. NULL: none is left */
void *driver_host(size_t len);
/* a stream of the GPU's; NULL: none. Lives as long as the process */
void *driver_stream(void);
/* from the GPU to the host, behind what the stream has to do; done on return. Return: 0, a
 * CUresult */
int driver_read(void *dst, uint64_t src, size_t len, void *stream);
/* from the host to the GPU, in a stream: not done on return, but when *@event, which is behind it,
 * has come; other processes can wait for that. Return: 0, a CUresult */
int driver_write(uint64_t dst, const void *src, size_t len, void **event);

#endif
