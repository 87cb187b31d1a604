/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mock as a library, for programs that load libcuda.so.1. MOCK_CUDA in the environment is
 * "GPUS DMABUF PEERS", and where more follows "CALL RESULT": what fails, and how; "flip COPIES";
 * "bytes MIB", that it has for cuMemCreate()
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/unit/mock_cuda.h"

static char call[64];

__attribute__((constructor)) static void start(void)
{
	const char *how = getenv("MOCK_CUDA");
	int dmabuf = 1, peers = 1, res;

	mock_cuda_reset();
	mock_cuda.shared_memory = true;
	if (!how)
		return;
	if (sscanf(how, "%d %d %d %63s %d", &mock_cuda.nr_gpus, &dmabuf, &peers, call, &res) == 5) {
		if (!strcmp(call, "flip"))
			mock_cuda.flip = (unsigned)res;
		if (!strcmp(call, "bytes"))
			mock_cuda.bytes = (uint64_t)res << 20;
		mock_cuda.fail_res = res;
		mock_cuda.fail_call = call;
	}
	mock_cuda.dmabuf = dmabuf;
	mock_cuda.peers = peers;
}
