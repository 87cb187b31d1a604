/* SPDX-License-Identifier: Apache-2.0 */
/* mock_cuda.h - stands in for libcuda.so.1: GPUs that are host memory, with faults */
#ifndef MOCK_CUDA_H
#define MOCK_CUDA_H

#include <stdbool.h>
#include <stdint.h>

struct wfi_cuda;

#define MOCK_CUDA_GPUS 4
#define MOCK_CUDA_BYTES (80ull << 30) /* of memory that each has, as it says */

struct mock_cuda {
	int nr_gpus;
	bool dmabuf;
	int ordering; /* of what devices write: enum wfi_cuda_flush */
	bool flushes; /* it can be waited for: cuFlushGPUDirectRDMAWrites() and streams */
	unsigned flushed; /* how often it was */
	bool peers; /* GPUs reach each other */
	bool no_kernels; /* as built without nvcc */
	int shared; /* memory that a block of threads can have */
	bool no_vmm; /* GPUs have no memory that is mapped in parts */
	uint64_t bytes; /* of memory that cuMemCreate() gives, all in all; 0: MOCK_CUDA_BYTES */
	bool shared_memory; /* of other processes, too, by their handles */
	bool hold; /* copies wait for mock_cuda_release(), ... */
	unsigned pass; /* but for the next ones, so many */
	unsigned flip; /* so many copies, of kernels too, arrive with a bit that is another */
	unsigned launches; /* so far */
	unsigned copies; /* so far */
	unsigned waits; /* so far, of streams for events */
	/* by another thread than the one that calls, too; .fail_res first */
	const char *_Atomic fail_call; /* this call, by the name of its symbol, ... */
	_Atomic int fail_res; /* ... ends so */
};

extern struct mock_cuda mock_cuda;

/* as it is at the start: two GPUs that can do everything, no fault */
void mock_cuda_reset(void);
void mock_cuda_release(void);
/* Return: ranges of memory, handles of cuMemCreate(), and host memory that is registered */
int mock_cuda_held(void);
/* Return: contexts that are retained, and those that this thread entered and did not leave */
int mock_cuda_refs(void);
/* the table of it */
const struct wfi_cuda *mock_cuda_table(void);

#endif
