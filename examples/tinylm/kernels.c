/* SPDX-License-Identifier: Apache-2.0 */
/* built once for each instruction set; TLM_KERNELS names the table that this build makes */
#include "kernels.h"

#include <math.h>
#include <string.h>

typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(32)));
typedef uint32_t uvec __attribute__((vector_size(32)));
typedef uint16_t hvec __attribute__((vector_size(16), aligned(2), may_alias));

/* rows of x that share each load of w: with 16 columns, half of AVX2's registers */
#define ROWS 4u

static inline vec load(const float *p)
{
	return *(const vec *)p;
}

static inline void store(float *p, vec v)
{
	*(vec *)p = v;
}

/* the one order in which lanes are summed */
static inline float sum_lanes(vec v)
{
	return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* sum_lanes() of eight vectors at once: transposes while it adds, in that same order */
static inline vec sum_lanes8(const vec *v)
{
	vec s[4], t[2];

	for (unsigned i = 0; i < 4; i++)
		s[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11) +
		       __builtin_shufflevector(v[2 * i], v[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15);
	for (unsigned i = 0; i < 2; i++)
		t[i] = __builtin_shufflevector(s[2 * i], s[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13) +
		       __builtin_shufflevector(s[2 * i], s[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15);
	return __builtin_shufflevector(t[0], t[1], 0, 2, 4, 6, 8, 10, 12, 14) +
	       __builtin_shufflevector(t[0], t[1], 1, 3, 5, 7, 9, 11, 13, 15);
}

/*
 * Cephes' expf: our own, because libm's may differ from machine to machine. Relative error 2e-7;
 * arguments beyond +-87 count as +-87.
 */
static inline vec exp_lanes(vec x)
{
	const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
	const vec hi = { 87, 87, 87, 87, 87, 87, 87, 87 };
	ivec below = (x < -hi);
	ivec above = (x > hi);
	vec n, r, p;

	x = (vec)(((ivec)x & ~below) | ((ivec)-hi & below));
	x = (vec)(((ivec)x & ~above) | ((ivec)hi & above));
	n = (x * 1.44269504f + round) - round;
	r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
	p = r * 1.9875691500e-4f + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	p = (p * (r * r) + r) + 1.0f;
	return (vec)((uvec)p + ((uvec) __builtin_convertvector(n, ivec) << 23));
}

static inline __attribute__((always_inline)) void matmul_rows(float *y, size_t y_stride,
							      const float *x, size_t x_stride,
							      const float *w, uint32_t nr_k,
							      unsigned rows)
{
	vec lo[ROWS], hi[ROWS];

	for (unsigned t = 0; t < rows; t++)
		lo[t] = hi[t] = (vec){ 0 };
	for (uint32_t k = 0; k < nr_k; k++, w += TLM_PANEL) {
		vec w_lo = load(w), w_hi = load(w + TLM_LANES);

		for (unsigned t = 0; t < rows; t++) {
			lo[t] += w_lo * x[t * x_stride + k];
			hi[t] += w_hi * x[t * x_stride + k];
		}
	}
	for (unsigned t = 0; t < rows; t++) {
		store(y + t * y_stride, lo[t]);
		store(y + t * y_stride + TLM_LANES, hi[t]);
	}
}

static void matmul(float *y, size_t y_stride, const float *x, size_t x_stride, const float *w,
		   uint32_t nr_tokens, uint32_t nr_k, uint32_t cols)
{
	for (uint32_t col = 0; col < cols; col += TLM_PANEL, w += (size_t)nr_k * TLM_PANEL) {
		uint32_t t = 0;

		for (; t + ROWS <= nr_tokens; t += ROWS)
			matmul_rows(y + t * y_stride + col, y_stride, x + t * x_stride, x_stride, w,
				    nr_k, ROWS);
		for (; t < nr_tokens; t++)
			matmul_rows(y + t * y_stride + col, y_stride, x + t * x_stride, x_stride, w,
				    nr_k, 1);
	}
}

static void rmsnorm(float *y, const float *x, uint32_t nr)
{
	vec sum = { 0 };
	float scale;

	for (uint32_t i = 0; i < nr; i += TLM_LANES)
		sum += load(x + i) * load(x + i);
	scale = 1.0f / sqrtf(sum_lanes(sum) / (float)nr + 1e-5f);
	for (uint32_t i = 0; i < nr; i += TLM_LANES)
		store(y + i, load(x + i) * scale);
}

static void add(float *x, const float *y, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i += TLM_LANES)
		store(x + i, load(x + i) + load(y + i));
}

static void rope(float *x, const float *cos, const float *sin, uint32_t dim)
{
	for (uint32_t i = 0; i < dim / 2; i += TLM_LANES) {
		vec a = load(x + i), b = load(x + dim / 2 + i);
		vec c = load(cos + i), s = load(sin + i);

		store(x + i, a * c - b * s);
		store(x + dim / 2 + i, b * c + a * s);
	}
}

static void to_bf16(uint16_t *dst, const float *src, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i += TLM_LANES) {
		uvec bits = (uvec)load(src + i);

		bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
		*(hvec *)(dst + i) = __builtin_convertvector(bits, hvec);
	}
}

static void from_bf16(float *dst, const uint16_t *src, size_t src_stride, uint32_t rows,
		      uint32_t nr)
{
	for (; rows; rows--, src += src_stride, dst += nr)
		for (uint32_t i = 0; i < nr; i += TLM_LANES) {
			uvec bits = __builtin_convertvector(*(const hvec *)(src + i), uvec);

			store(dst + i, (vec)(bits << 16));
		}
}

static float exp_sum(float *x, uint32_t nr)
{
	float max = x[0];
	vec sum = { 0 };

	for (uint32_t i = 1; i < nr; i++)
		max = x[i] > max ? x[i] : max;
	for (uint32_t i = nr; i % TLM_LANES; i++)
		x[i] = max;
	for (uint32_t i = 0; i < nr; i += TLM_LANES)
		store(x + i, exp_lanes(load(x + i) - max));
	for (uint32_t i = nr; i % TLM_LANES; i++)
		x[i] = 0;
	for (uint32_t i = 0; i < nr; i += TLM_LANES)
		sum += load(x + i);
	return sum_lanes(sum);
}

static void attend_scores(float *scores, const float *q, const float *k, float scale, uint32_t nr,
			  uint32_t dim)
{
	for (uint32_t j = 0; j < nr; j += TLM_LANES, k += (size_t)TLM_LANES * dim) {
		vec acc[TLM_LANES];

		for (unsigned r = 0; r < TLM_LANES; r++)
			acc[r] = load(q) * load(k + (size_t)r * dim);
		for (uint32_t i = TLM_LANES; i < dim; i += TLM_LANES) {
			vec part = load(q + i);

			for (unsigned r = 0; r < TLM_LANES; r++)
				acc[r] += part * load(k + (size_t)r * dim + i);
		}
		store(scores + j, sum_lanes8(acc) * scale);
	}
}

static void attend(float *out, const float *q, const float *k, const float *v, float *weights,
		   float scale, uint32_t nr, uint32_t dim)
{
	float norm;

	attend_scores(weights, q, k, scale, nr, dim);
	norm = 1.0f / exp_sum(weights, nr);
	for (uint32_t i = 0; i < dim; i += 4 * TLM_LANES) {
		vec acc[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
		const float *row = v + i;

		for (uint32_t j = 0; j < nr; j++, row += dim)
			for (unsigned l = 0; l < 4; l++)
				acc[l] += load(row + l * TLM_LANES) * weights[j];
		for (unsigned l = 0; l < 4; l++)
			store(out + i + l * TLM_LANES, acc[l] * norm);
	}
}

static void swiglu(float *gate, const float *up, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i += TLM_LANES) {
		vec g = load(gate + i);

		store(gate + i, g / (exp_lanes(-g) + 1.0f) * load(up + i));
	}
}

const struct tlm_kernels TLM_KERNELS = {
	.matmul = matmul,
	.rmsnorm = rmsnorm,
	.add = add,
	.rope = rope,
	.to_bf16 = to_bf16,
	.from_bf16 = from_bf16,
	.attend = attend,
	.swiglu = swiglu,
	.exp_sum = exp_sum,
};
