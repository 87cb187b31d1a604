/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc.h - CRC32C of blocks
 *
 * A CRC is linear: each word of a block adds its own product with a power of x, by how far it is
 * from the end. A warp reads WFI_GPU_CRC_STRIDE bytes a step, 16 of each lane, side by side; a
 * lane's four words are four sums, each multiplied by x^(8 * stride) before its next word comes.
 * That product is four lookups, as a step of an ordinary CRC is, in tables of which each lane has
 * a copy in a bank of its own: no lane waits for another. At the end each sum is moved to its
 * place, and all are added.
 */
#ifndef WFI_GPU_KERNELS_CRC_H
#define WFI_GPU_KERNELS_CRC_H

#include <stddef.h>
#include "gpu/kernels/shim.h"
#include "weft_internal/crc32c_poly.h"

#define WFI_CRC_TABLE (4u * 256u) /* numbers */
#define WFI_CRC_WORDS 4u /* of a lane */
#define WFI_CRC_DEEP 4u /* loads that a lane has on their way at a time */

/* of one warp */
struct wfi_crc_shared {
	uint32_t sums[WFI_GPU_WARP];
};

/* the tables, in (1 << @copies) copies, a part of them by each of @nr threads */
WFI_GPU_FN void wfi_crc_fill(uint32_t *table, unsigned copies, unsigned thread, unsigned nr)
{
	const uint32_t step = wfi_crc32c_power(WFI_GPU_CRC_STRIDE);
	uint32_t i, k, v;

	for (i = thread; i < WFI_CRC_TABLE; i += nr) {
		v = wfi_crc32c_mul((i % 256) << 8 * (i / 256), step);
		for (k = 0; k < 1u << copies; k++)
			table[i << copies | k] = v;
	}
}

/* @at may lie before @begin: what is not of the block counts as zero */
WFI_GPU_FN struct wfi_vec wfi_crc_load(uint64_t at, uint64_t begin)
{
	struct wfi_vec v = { { 0, 0, 0, 0 } };

	if (at + WFI_GPU_VEC <= begin)
		return v;
	if (at >= begin && !(at % WFI_GPU_VEC))
		return wfi_load_vec(at);
	for (unsigned i = 0; i < WFI_GPU_VEC; i++)
		if (at + i >= begin)
			v.w[i / 4] |= (uint32_t)WFI_LOAD(uint8_t, at + i) << 8 * (i % 4);
	return v;
}

/* the sum, moved past a stride, and the next word */
WFI_GPU_FN uint32_t wfi_crc_step(const uint32_t *table, unsigned copies, unsigned copy,
				 uint32_t sum, uint32_t word)
{
	return table[(sum & 0xff) << copies | copy] ^
	       table[(256 + (sum >> 8 & 0xff)) << copies | copy] ^
	       table[(512 + (sum >> 16 & 0xff)) << copies | copy] ^
	       table[(768 + (sum >> 24)) << copies | copy] ^ word;
}

/* what a lane's words of [@begin, @end) add to the strip's sum */
WFI_GPU_FN uint32_t wfi_crc_lane(const uint32_t *table, unsigned copies, uint64_t powers,
				 uint64_t begin, uint64_t end, unsigned lane)
{
	const unsigned copy = lane & ((1u << copies) - 1);
	const uint64_t steps = (end - begin + WFI_GPU_CRC_STRIDE - 1) / WFI_GPU_CRC_STRIDE;
	uint64_t at = end - steps * WFI_GPU_CRC_STRIDE + lane * WFI_GPU_VEC;
	uint32_t sums[WFI_CRC_WORDS] = { 0, 0, 0, 0 }, sum = 0, k, j;
	struct wfi_vec v[WFI_CRC_DEEP];

	for (; at < end; at += WFI_CRC_DEEP * WFI_GPU_CRC_STRIDE) {
		WFI_UNROLL
		for (k = 0; k < WFI_CRC_DEEP; k++)
			if (at + k * WFI_GPU_CRC_STRIDE < end)
				v[k] = wfi_crc_load(at + k * WFI_GPU_CRC_STRIDE, begin);
		WFI_UNROLL
		for (k = 0; k < WFI_CRC_DEEP; k++) {
			if (at + k * WFI_GPU_CRC_STRIDE >= end)
				continue;
			WFI_UNROLL
			for (j = 0; j < WFI_CRC_WORDS; j++)
				sums[j] = wfi_crc_step(table, copies, copy, sums[j], v[k].w[j]);
		}
	}
	for (j = 0; j < WFI_CRC_WORDS; j++) {
		const unsigned behind = WFI_GPU_CRC_STRIDE / 4 - 1 - lane * WFI_CRC_WORDS - j;

		sum ^= wfi_crc32c_mul(sums[j], WFI_LOOKUP(uint32_t, powers + 4ull * behind));
	}
	return sum;
}

/* of all lanes */
WFI_GPU_FN uint32_t wfi_crc_add(const struct wfi_crc_shared *sh)
{
	uint32_t sum = 0;

	WFI_UNROLL
	for (unsigned i = 0; i < WFI_GPU_WARP; i++)
		sum ^= sh->sums[i];
	return sum;
}

WFI_GPU_FN void wfi_crc_tell(const struct wfi_gpu_crc_args *a, const struct wfi_crc_shared *sh,
			     uint32_t block, uint32_t strip)
{
	const uint64_t out = a->out + 4ull * block;
	uint32_t sum = wfi_crc_add(sh);

	if (strip)
		sum = wfi_crc32c_mul(
			sum, WFI_LOOKUP(uint32_t, a->powers + WFI_GPU_CRC_STRIDE + 4ull * strip));
	else
		sum ^= a->tail;
	if (a->nr_strips == 1)
		WFI_STORE(uint32_t, out, sum);
	else
		wfi_xor_shared(out, sum);
}

/* @warp of @nr_warps; @table is filled. @copies: the same as there, of 0 to 5 */
WFI_GPU_FN void wfi_crc_warp(const struct wfi_gpu_crc_args *a, const uint32_t *table,
			     unsigned copies, struct wfi_crc_shared *sh, uint32_t warp,
			     uint32_t nr_warps)
{
	const uint64_t nr = (uint64_t)a->nr * a->nr_strips;

	for (uint64_t item = warp; item < nr; item += nr_warps) {
		const uint32_t block = (uint32_t)(item / a->nr_strips);
		const uint32_t strip = (uint32_t)(item - (uint64_t)block * a->nr_strips);
		const uint64_t start = wfi_side_at(&a->src, block);
		const uint64_t end = start + a->len - (uint64_t)strip * WFI_GPU_CRC_STRIP;
		const uint64_t begin = end - start > WFI_GPU_CRC_STRIP ? end - WFI_GPU_CRC_STRIP
								       : start;

		WFI_EACH_LANE(lane) {
			sh->sums[lane] = wfi_crc_lane(table, copies, a->powers, begin, end, lane);
		}
		wfi_warp_sync();
		WFI_EACH_LANE(lane) {
			if (!lane)
				wfi_crc_tell(a, sh, block, strip);
		}
		wfi_warp_sync();
	}
}

/* the same of parts, each by one warp */
WFI_GPU_FN void wfi_crc_parts_warp(const struct wfi_gpu_parts_args *a, const uint32_t *table,
				   unsigned copies, struct wfi_crc_shared *sh, uint32_t warp,
				   uint32_t nr_warps)
{
	for (uint64_t i = warp; i < a->nr; i += nr_warps) {
		const uint64_t part = a->parts + i * sizeof(struct wfi_gpu_part);
		const uint64_t begin = WFI_LOAD(uint64_t, part);
		const uint64_t end =
			begin + WFI_LOAD(uint32_t, part + offsetof(struct wfi_gpu_part, len));

		WFI_EACH_LANE(lane) {
			sh->sums[lane] = wfi_crc_lane(table, copies, a->powers, begin, end, lane);
		}
		wfi_warp_sync();
		WFI_EACH_LANE(lane) {
			if (!lane)
				WFI_STORE(
					uint32_t, part + offsetof(struct wfi_gpu_part, sum),
					wfi_crc32c_mul(wfi_crc_add(sh),
						       WFI_LOAD(uint32_t,
								part + offsetof(struct wfi_gpu_part,
										power))));
		}
		wfi_warp_sync();
	}
}

#endif
