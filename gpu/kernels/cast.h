/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cast.h - bf16 to fp8 (e4m3) with a scale per group, and back
 *
 * The scale is the largest magnitude of the group over 448, the largest of e4m3, so that all of
 * its codes are used; groups of zeros and of very small numbers have the least normal float. Each
 * number is divided by it and rounded to the nearest code, ties to even. Where x is the number and
 * s the scale, what comes back is off by at most max(|x| / 16, s / 1024), and |x| / 256 of being a
 * bf16 again. Infinities and NaNs come back as NaNs, and do not count for the scale.
 */
#ifndef WFI_GPU_KERNELS_CAST_H
#define WFI_GPU_KERNELS_CAST_H

#include "gpu/kernels/shim.h"

#define WFI_CAST_EACH 8u /* numbers that a lane takes: 16 bytes of bf16 */
#define WFI_CAST_DEEP 4u /* times, so that as many loads are on their way */
#define WFI_CAST_NUMBERS (WFI_GPU_WARP * WFI_CAST_EACH) /* a warp takes at a time, that often */
#define WFI_BF16_INF 0x7f80u
#define WFI_E4M3_NAN 0x7fu
#define WFI_E4M3_MAX 448.0f
#define WFI_FLOAT_LEAST 0x00800000u /* the least normal one */

/* of one warp: largest magnitude of each lane's numbers, as bits of a bf16 */
struct wfi_cast_shared {
	struct wfi_vec most[WFI_CAST_DEEP][WFI_GPU_WARP / 4];
};

/* ---- one number ---- */

WFI_GPU_FN uint32_t wfi_e4m3_soft(float f)
{
	const uint32_t bits = wfi_bits(f), sign = bits >> 24 & 0x80, a = bits & 0x7fffffff;

	if (a >= 0x7f800000)
		return sign | WFI_E4M3_NAN;
	if (a >= 0x43e00000) /* 448 */
		return sign | 0x7e;
	/* below 2^-6 codes are 2^-9 apart, and so are floats from 2^14 on */
	if (a < 0x3c800000)
		return sign | (wfi_bits(wfi_float(a) + 16384.0f) - 0x46800000);
	return sign | (((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120 << 3));
}

WFI_GPU_FN float wfi_e4m3_value_soft(uint32_t code)
{
	const uint32_t a = code & 0x7f, sign = (code & 0x80) << 24;

	if (a == WFI_E4M3_NAN)
		return wfi_float(sign | 0x7fc00000);
	/* exponents are 120 apart; so small a code is a float without its leading one, too */
	return wfi_float(sign | a << 20) * wfi_float((120u + 127u) << 23);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890

/* two numbers to two codes; the first is the low byte */
WFI_GPU_FN uint32_t wfi_e4m3_pair(float low, float high)
{
	uint16_t codes;

	asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
	return codes;
}

WFI_GPU_FN void wfi_e4m3_values(uint32_t codes, float *low, float *high)
{
	asm("{ .reg .b32 both; .reg .f16 one, two;\n"
	    "cvt.rn.f16x2.e4m3x2 both, %2;\n"
	    "mov.b32 {one, two}, both;\n"
	    "cvt.f32.f16 %0, one;\n"
	    "cvt.f32.f16 %1, two; }"
	    : "=f"(*low), "=f"(*high)
	    : "h"((uint16_t)codes));
}

#else

WFI_GPU_FN uint32_t wfi_e4m3_pair(float low, float high)
{
	return wfi_e4m3_soft(low) | wfi_e4m3_soft(high) << 8;
}

WFI_GPU_FN void wfi_e4m3_values(uint32_t codes, float *low, float *high)
{
	*low = wfi_e4m3_value_soft(codes & 0xff);
	*high = wfi_e4m3_value_soft(codes >> 8 & 0xff);
}

#endif

/* to the nearest, ties to even */
WFI_GPU_FN uint32_t wfi_bf16(float f)
{
	const uint32_t bits = wfi_bits(f);

	if ((bits & 0x7fffffff) > 0x7f800000)
		return bits >> 16 | 0x40;
	return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* an infinity has no code: as a NaN it is at least not taken for a number */
WFI_GPU_FN float wfi_bf16_value(uint32_t bf16)
{
	const uint32_t inf = (bf16 & 0x7fff) == WFI_BF16_INF;

	return wfi_float((bf16 | (inf ? 0x40 : 0)) << 16);
}

/* ---- groups ---- */

WFI_GPU_FN uint32_t wfi_cast_most(uint32_t most, uint32_t bf16)
{
	const uint32_t a = bf16 & 0x7fff;

	return a < WFI_BF16_INF && a > most ? a : most;
}

WFI_GPU_FN float wfi_cast_scale(const struct wfi_vec *most, unsigned nr)
{
	const float least = wfi_float(WFI_FLOAT_LEAST);
	uint32_t all = 0;
	float scale;

	for (unsigned i = 0; i < nr; i++)
		for (unsigned k = 0; k < 4; k++)
			all = most[i].w[k] > all ? most[i].w[k] : all;
	scale = wfi_float(all << 16) / WFI_E4M3_MAX;
	return scale > least ? scale : least;
}

/* where numbers of a lane's lie on both sides */
struct wfi_cast_place {
	uint64_t wide;
	uint64_t narrow;
	uint64_t scale;
	uint32_t first; /* of their group */
};

/* Return: whether there are such numbers */
WFI_GPU_FN uint32_t wfi_cast_find(const struct wfi_gpu_cast_args *a, uint64_t number,
				  struct wfi_cast_place *out)
{
	const uint64_t group = number / a->group;
	const uint32_t within = (uint32_t)(number - group * a->group);
	uint32_t block, nr;
	uint64_t narrow, off;

	if (group >= a->nr)
		return 0;
	block = (uint32_t)group / a->nr_groups;
	nr = (uint32_t)group - block * a->nr_groups;
	narrow = wfi_side_at(&a->narrow, block);
	off = (uint64_t)nr * a->group + within;
	out->wide = wfi_side_at(&a->wide, block) + 2 * off;
	out->narrow = narrow + off;
	out->scale = narrow + (uint64_t)a->nr_groups * a->group + 4ull * nr;
	out->first = !within;
	return 1;
}

/* ---- there ---- */

/* what a lane keeps of some numbers */
struct wfi_narrow_kept {
	struct wfi_cast_place at;
	struct wfi_vec v;
	uint32_t there;
};

WFI_GPU_FN uint32_t wfi_narrow_most(struct wfi_vec v)
{
	uint32_t most = 0;

	WFI_UNROLL
	for (unsigned i = 0; i < 4; i++) {
		most = wfi_cast_most(most, v.w[i] & 0xffff);
		most = wfi_cast_most(most, v.w[i] >> 16);
	}
	return most;
}

WFI_GPU_FN void wfi_narrow_load(const struct wfi_gpu_cast_args *a, struct wfi_cast_shared *sh,
				uint64_t number, unsigned lane, struct wfi_narrow_kept *kept)
{
	WFI_UNROLL
	for (unsigned k = 0; k < WFI_CAST_DEEP; k++) {
		kept[k].there = wfi_cast_find(a, number + k * WFI_CAST_NUMBERS, &kept[k].at);
		if (kept[k].there)
			kept[k].v = wfi_load_vec(kept[k].at.wide);
	}
	WFI_UNROLL
	for (unsigned k = 0; k < WFI_CAST_DEEP; k++)
		sh->most[k][lane / 4].w[lane % 4] = kept[k].there ? wfi_narrow_most(kept[k].v) : 0;
}

WFI_GPU_FN void wfi_narrow_some(const struct wfi_narrow_kept *kept, float scale)
{
	const float inverse = 1.0f / scale;
	uint32_t codes[4];

	WFI_UNROLL
	for (unsigned i = 0; i < 4; i++)
		codes[i] = wfi_e4m3_pair(wfi_bf16_value(kept->v.w[i] & 0xffff) * inverse,
					 wfi_bf16_value(kept->v.w[i] >> 16) * inverse);
	WFI_STORE(uint64_t, kept->at.narrow,
		  codes[0] | codes[1] << 16 | (uint64_t)(codes[2] | codes[3] << 16) << 32);
	if (kept->at.first)
		WFI_STORE(uint32_t, kept->at.scale, wfi_bits(scale));
}

WFI_GPU_FN void wfi_narrow_store(const struct wfi_cast_shared *sh, unsigned mates, unsigned lane,
				 const struct wfi_narrow_kept *kept)
{
	const unsigned mine = lane / mates * mates / 4;

	WFI_UNROLL
	for (unsigned k = 0; k < WFI_CAST_DEEP; k++)
		if (kept[k].there)
			wfi_narrow_some(&kept[k], wfi_cast_scale(&sh->most[k][mine], mates / 4));
}

/* @warp of @nr_warps */
WFI_GPU_FN void wfi_narrow_warp(const struct wfi_gpu_cast_args *a, struct wfi_cast_shared *sh,
				uint32_t warp, uint32_t nr_warps)
{
	const uint64_t end = (uint64_t)a->nr * a->group;
	const uint64_t step = WFI_CAST_DEEP * WFI_CAST_NUMBERS;
	const unsigned mates = a->group / WFI_CAST_EACH; /* lanes of one group */
	struct wfi_narrow_kept kept[WFI_SLOTS][WFI_CAST_DEEP];

	for (uint64_t first = warp * step; first < end; first += nr_warps * step) {
		WFI_EACH_LANE(lane)
			wfi_narrow_load(a, sh, first + lane * WFI_CAST_EACH, lane,
					kept[WFI_SLOT(lane)]);
		wfi_warp_sync();
		WFI_EACH_LANE(lane)
			wfi_narrow_store(sh, mates, lane, kept[WFI_SLOT(lane)]);
		wfi_warp_sync();
	}
}

/* ---- and back ---- */

WFI_GPU_FN void wfi_widen_some(uint64_t wide, uint64_t codes, float scale)
{
	struct wfi_vec v;
	float low, high;

	WFI_UNROLL
	for (unsigned i = 0; i < 4; i++) {
		wfi_e4m3_values((uint32_t)(codes >> 16 * i), &low, &high);
		v.w[i] = wfi_bf16(low * scale) | wfi_bf16(high * scale) << 16;
	}
	wfi_store_vec(wide, v);
}

WFI_GPU_FN void wfi_widen_lane(const struct wfi_gpu_cast_args *a, uint64_t number)
{
	struct wfi_cast_place at[WFI_CAST_DEEP];
	uint64_t codes[WFI_CAST_DEEP];
	uint32_t scale[WFI_CAST_DEEP], there[WFI_CAST_DEEP];

	WFI_UNROLL
	for (unsigned k = 0; k < WFI_CAST_DEEP; k++) {
		there[k] = wfi_cast_find(a, number + k * WFI_CAST_NUMBERS, &at[k]);
		if (!there[k])
			continue;
		codes[k] = WFI_LOAD(uint64_t, at[k].narrow);
		scale[k] = WFI_LOOKUP(uint32_t, at[k].scale);
	}
	WFI_UNROLL
	for (unsigned k = 0; k < WFI_CAST_DEEP; k++)
		if (there[k])
			wfi_widen_some(at[k].wide, codes[k], wfi_float(scale[k]));
}

/* @warp of @nr_warps */
WFI_GPU_FN void wfi_widen_warp(const struct wfi_gpu_cast_args *a, uint32_t warp, uint32_t nr_warps)
{
	const uint64_t end = (uint64_t)a->nr * a->group;
	const uint64_t step = WFI_CAST_DEEP * WFI_CAST_NUMBERS;

	for (uint64_t first = warp * step; first < end; first += nr_warps * step)
		WFI_EACH_LANE(lane)
			wfi_widen_lane(a, first + lane * WFI_CAST_EACH);
}

#endif
