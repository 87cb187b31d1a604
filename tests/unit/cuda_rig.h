/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_rig.h - the provider for GPU memory, over a mocked driver */
#ifndef TEST_CUDA_RIG_H
#define TEST_CUDA_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tests/unit/mock_cuda.h"
#include "transport/cuda/cuda.h"

#define HOST_BYTES (1u << 20)
#define GPU_BYTES (1u << 20)

struct rig {
	struct wfi_env env;
	const struct weft_transport *t;
	const struct wfi_cuda *cuda;
	struct CUctx_st *ctx[2]; /* the engine's: the same process here */
	struct weft_device *dev;
	struct weft_cq *cqs[2]; /* send, recv */
	struct weft_mr *mr;
	struct weft_ep *ep;
	uint8_t *host;
	uint64_t mem; /* of GPU 0 */
};

/* what was last said, if it was a warning or worse */
extern char said[1024];

/* cmocka's; at the end nothing may be left, whatever failed */
int setup(void **state);
int teardown(void **state);

uint64_t alloc_on(struct rig *r, int gpu, size_t bytes);
struct weft_ep *ep_new(struct rig *r, uint32_t depth);
int import_at(struct rig *r, struct weft_ep *ep, uint64_t mem, uint64_t len,
	      const struct wfi_gpu_shape *shape, struct weft_rkey **out);
/* all of .mem, over .ep */
struct weft_rkey *import(struct rig *r, const struct wfi_gpu_shape *shape);
/* all posts by kernels, or none */
void choose(struct rig *r, uint64_t small);
int post(struct rig *r, bool write, const struct weft_piece *pieces, uint32_t nr, uint64_t cookie,
	 uint32_t flags);
void expect_wc(struct rig *r, uint64_t cookie, int status, enum weft_scope scope, uint32_t idx);
void expect_closed(struct rig *r, int status);
void fill(uint8_t *buf, size_t len, unsigned seed);
uint8_t *at(uint64_t mem);

#endif
