/* SPDX-License-Identifier: Apache-2.0 */
/* copy_private.h - what the machine adds to transport/copy.c */
#ifndef WFI_COPY_PRIVATE_H
#define WFI_COPY_PRIVATE_H

#include "weft_internal/copy.h"

/* memcpy(), for all that there is */
void wfi_copy_plain(const struct wfi_copy_run *run, const struct wfi_copy_run *next);
extern const struct wfi_copy_ops wfi_copy_libc;

/* out of all caches; does nothing where that can't be had. Cold */
void wfi_copy_flush(const void *buf, size_t len);

#endif
