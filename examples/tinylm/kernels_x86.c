/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

const struct tlm_kernels *tlm_kernels_best(void)
{
	return __builtin_cpu_supports("avx2") ? &tlm_kernels_avx2 : &tlm_kernels_base;
}
