/* SPDX-License-Identifier: Apache-2.0 */
/* the driver of a build without CUDA */
#include "weft_internal/gpu.h"

const struct wfi_cuda *wfi_cuda_load(const char **why)
{
	*why = "built without CUDA: meson configure -Dcuda=enabled, build anew";
	return NULL;
}
