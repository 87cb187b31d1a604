/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_side.h - where the tests of kernels run them: gpu_side_mock.c, gpu_side_real.c */
#ifndef GPU_SIDE_H
#define GPU_SIDE_H

#include "weft_internal/gpu_kernels.h"

/* Return: NULL, or why there is none */
const char *gpu_side_missing(void);
int gpu_side_open(struct wfi_env *env, struct wfi_gpu **out);
void gpu_side_close(struct wfi_gpu *gpu);
/* waits until all is done. Return: 0, -errno */
int gpu_side_sync(struct wfi_gpu *gpu);

/* memory that both reach at one address, aligned to 16; an end beyond which nobody may touch */
void *gpu_side_alloc(size_t len);
size_t gpu_side_mark(void);
/* frees what came after the mark */
void gpu_side_reset(size_t mark);

#endif
