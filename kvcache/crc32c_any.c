/* SPDX-License-Identifier: Apache-2.0 */
/* stub twin of crc32c_x86.c */
#include "kvcache/crc32c_private.h"

wfi_crc32c_fn *wfi_crc32c_machine(unsigned n)
{
	(void)n;
	return NULL;
}

wfi_crc32c_copy_fn *wfi_crc32c_copy_machine(unsigned n)
{
	(void)n;
	return NULL;
}

wfi_crc32c_copy_fn *wfi_crc32c_keep_machine(unsigned n)
{
	(void)n;
	return NULL;
}

wfi_crc32c_runs_fn *wfi_crc32c_runs_machine(void)
{
	return NULL;
}
