/* SPDX-License-Identifier: Apache-2.0 */
/* stub twin of copy_x86.c */
#include "transport/copy_private.h"

void wfi_copy_flush(const void *buf, size_t len)
{
	(void)buf;
	(void)len;
}

const struct wfi_copy_ops *const *wfi_copy_all(void)
{
	static const struct wfi_copy_ops *const list[] = { &wfi_copy_libc, NULL };

	return list;
}
