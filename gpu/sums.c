/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/device.h"
#include "weft_internal/crc32c_poly.h"
#include "weft_internal/util.h"

#define PLACES (WFI_GPU_CRC_STRIDE / 4)

static uint64_t strips_of(uint64_t len)
{
	return (len + WFI_GPU_CRC_STRIP - 1) / WFI_GPU_CRC_STRIP;
}

uint32_t wfi_gpu_sums_len(uint64_t len)
{
	const uint64_t nr = PLACES + strips_of(len);

	return len && len < UINT64_MAX / 2 && nr <= UINT32_MAX ? (uint32_t)nr : 0;
}

void wfi_gpu_sums_init(struct wfi_gpu_sums *sums, uint64_t len, uint32_t *powers)
{
	const uint32_t strip = wfi_crc32c_power(WFI_GPU_CRC_STRIP);
	uint32_t nr = (uint32_t)strips_of(len), i;

	for (i = 0; i < PLACES; i++)
		powers[i] = wfi_crc32c_power(4ull * (i + 1));
	powers[PLACES] = wfi_crc32c_power(0);
	for (i = 1; i < nr; i++)
		powers[PLACES + i] = wfi_crc32c_mul(powers[PLACES + i - 1], strip);
	*sums = (struct wfi_gpu_sums){
		.len = len,
		.powers = powers,
		.tail = wfi_gpu_sums_tail(len),
		.nr_strips = nr,
	};
}

uint32_t wfi_gpu_sums_tail(uint64_t len)
{
	return ~wfi_crc32c_mul(UINT32_MAX, wfi_crc32c_power(len));
}

/* strips of a block add up in place, from zero on. Return: as wfi_cuda_errno() */
static int clear(struct wfi_gpu *gpu, uint64_t out, uint32_t nr, struct CUstream_st *stream)
{
	int res = wfi_gpu_enter(gpu);

	if (!res) {
		res = gpu->cuda->cuMemsetD32Async(out, 0, nr, stream);
		wfi_gpu_leave(gpu);
	}
	return res ? wfi_gpu_failed(gpu, "sums can't be cleared", res) : 0;
}

int wfi_gpu_crc32c(struct wfi_gpu *gpu, const struct wfi_gpu_sums *sums,
		   const struct wfi_gpu_side *src, uint32_t nr, uint64_t out,
		   struct CUstream_st *stream)
{
	struct wfi_gpu_crc_args args = {
		.src = *src,
		.len = sums->len,
		.out = out,
		.powers = (uintptr_t)sums->powers,
		.tail = sums->tail,
		.nr = nr,
		.nr_strips = sums->nr_strips,
	};
	int ret = 0;

	if (!nr)
		return 0;
	if (sums->nr_strips > 1)
		ret = clear(gpu, out, nr, stream);
	return ret ? ret
		   : wfi_gpu_launch(gpu, WFI_GPU_CRC, (uint64_t)nr * sums->nr_strips, &args,
				    stream);
}

int wfi_gpu_crc32c_parts(struct wfi_gpu *gpu, const struct wfi_gpu_sums *sums,
			 struct wfi_gpu_part *parts, uint32_t nr, struct CUstream_st *stream)
{
	struct wfi_gpu_parts_args args = { .parts = (uintptr_t)parts, .nr = nr };

	if (!nr)
		return 0;
	args.powers = (uintptr_t)sums->powers;
	return wfi_gpu_launch(gpu, WFI_GPU_CRC_PARTS, nr, &args, stream);
}
