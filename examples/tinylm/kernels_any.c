/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

const struct tlm_kernels *tlm_kernels_best(void)
{
	return &tlm_kernels_base;
}
