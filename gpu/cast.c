/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "gpu/device.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define NUMBERS_A_WARP 1024u

static int launch(struct wfi_gpu *gpu, enum wfi_gpu_kernel kernel, const struct wfi_gpu_cast *cast,
		  const struct wfi_gpu_side *wide, const struct wfi_gpu_side *narrow, uint32_t nr,
		  struct CUstream_st *stream)
{
	const uint64_t nr_groups = (uint64_t)cast->nr_groups * nr;
	struct wfi_gpu_cast_args args = {
		.wide = *wide,
		.narrow = *narrow,
		.nr_groups = cast->nr_groups,
		.group = cast->group,
		.nr = (uint32_t)nr_groups,
	};

	if (!wfi_is_pow2(cast->group) || cast->group < 32 || cast->group > 256) {
		wfi_err("gpu %d: groups of %u numbers can't be cast: 32, 64, 128 or 256 can",
			gpu->ordinal, cast->group);
		return -EINVAL;
	}
	if (!wfi_gpu_side_even(wide) || !wfi_gpu_side_even(narrow)) {
		wfi_err("gpu %d: blocks to be cast start at multiples of 16 bytes", gpu->ordinal);
		return -EINVAL;
	}
	if (nr_groups > UINT32_MAX)
		return -E2BIG;
	if (!nr_groups)
		return 0;
	return wfi_gpu_launch(gpu, kernel,
			      (nr_groups * cast->group + NUMBERS_A_WARP - 1) / NUMBERS_A_WARP,
			      &args, stream);
}

int wfi_gpu_narrow(struct wfi_gpu *gpu, const struct wfi_gpu_cast *cast,
		   const struct wfi_gpu_side *wide, const struct wfi_gpu_side *narrow, uint32_t nr,
		   struct CUstream_st *stream)
{
	return launch(gpu, WFI_GPU_NARROW, cast, wide, narrow, nr, stream);
}

int wfi_gpu_widen(struct wfi_gpu *gpu, const struct wfi_gpu_cast *cast,
		  const struct wfi_gpu_side *narrow, const struct wfi_gpu_side *wide, uint32_t nr,
		  struct CUstream_st *stream)
{
	return launch(gpu, WFI_GPU_WIDEN, cast, wide, narrow, nr, stream);
}
