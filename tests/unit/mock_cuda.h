/* SPDX-License-Identifier: Apache-2.0 */
/* mock_cuda.h - stands in for libcuda.so.1: GPUs that are host memory, with faults */
#ifndef MOCK_CUDA_H
#define MOCK_CUDA_H

#include <stdbool.h>

struct wfi_cuda;

#define MOCK_CUDA_GPUS 4

struct mock_cuda {
	int nr_gpus;
	bool dmabuf;
	bool peers; /* GPUs reach each other */
	const char *fail_call; /* this call, by the name of its symbol, ... */
	int fail_res; /* ... ends so */
};

extern struct mock_cuda mock_cuda;

/* as it is at the start: two GPUs that can do everything, no fault */
void mock_cuda_reset(void);
/* the table of it */
const struct wfi_cuda *mock_cuda_table(void);

#endif
