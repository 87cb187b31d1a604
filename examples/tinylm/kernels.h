/* SPDX-License-Identifier: Apache-2.0 */
/**
 * kernels.h - the loops of tinylm, built once a vector width
 *
 * All builds give the same bits: lanes are 8 wide in the source, multiplications and additions are
 * never contracted, and every sum has one order.
 */
#ifndef TINYLM_KERNELS_H
#define TINYLM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define TLM_LANES 8u
#define TLM_PANEL 16u /* columns of a weight matrix that lie together */

struct tlm_kernels {
	/**
	 * y[t][col] = sum over k, in order, of x[t][k] * w(k, col)
	 * @w: panels of TLM_PANEL columns: [cols / TLM_PANEL][nr_k][TLM_PANEL]
	 * @cols: multiple of TLM_PANEL; rows of x and y lie @x_stride and @y_stride floats apart
	 */
	void (*matmul)(float *y, size_t y_stride, const float *x, size_t x_stride, const float *w,
		       uint32_t nr_tokens, uint32_t nr_k, uint32_t cols);
	/* y = x / rms(x); @nr: multiple of TLM_LANES, here and below */
	void (*rmsnorm)(float *y, const float *x, uint32_t nr);
	void (*add)(float *x, const float *y, uint32_t nr);
	/* rotate the pairs (x[i], x[i + dim / 2]) by the angles of one position */
	void (*rope)(float *x, const float *cos, const float *sin, uint32_t dim);
	void (*to_bf16)(uint16_t *dst, const float *src, uint32_t nr);
	/* rows of @nr values, @src_stride apart, to rows that follow one another */
	void (*from_bf16)(float *dst, const uint16_t *src, size_t src_stride, uint32_t rows,
			  uint32_t nr);
	/**
	 * one query against @nr keys: out = softmax(scale * q . k) . v
	 * @k, @v: rows of @dim floats, up to the next multiple of TLM_LANES rows readable
	 * @weights: scratch, as many floats
	 */
	void (*attend)(float *out, const float *q, const float *k, const float *v, float *weights,
		       float scale, uint32_t nr, uint32_t dim);
	/* gate = silu(gate) * up */
	void (*swiglu)(float *gate, const float *up, uint32_t nr);
	/* x = exp(x - max(x)); @x has room up to a multiple of TLM_LANES. Return: the sum */
	float (*exp_sum)(float *x, uint32_t nr);
};

extern const struct tlm_kernels tlm_kernels_base;
extern const struct tlm_kernels tlm_kernels_avx2; /* x86-64 only */

/* the widest that this machine runs (kernels_x86.c, kernels_any.c) */
const struct tlm_kernels *tlm_kernels_best(void);

#endif
