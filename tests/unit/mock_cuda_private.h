/* SPDX-License-Identifier: Apache-2.0 */
/* mock_cuda_private.h - what the files of the mock share */
#ifndef MOCK_CUDA_PRIVATE_H
#define MOCK_CUDA_PRIVATE_H

#include "gpu/cuda.h"
#include "gpu/error.h"
#include "tests/unit/mock_cuda.h"

/* the driver's own names: the compiler sees here what the table expects of them */
#define DECLARE(name, symbol, args) int name args __asm__(symbol);
WFI_CUDA_CALLS(DECLARE)
WFI_CUDA_MAYBE(DECLARE)
#undef DECLARE

/* Return: what this call is to end with */
int fault(const char *name);
/* Return: 0, or that this thread is in no context */
int no_context(void);
/* this thread is in a context: of which GPU? */
int current_gpu(void);
struct CUctx_st *context_of(int gpu);

#endif
