/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c_private.h - what the machine adds to kvcache/crc32c.c */
#ifndef WFI_CRC32C_PRIVATE_H
#define WFI_CRC32C_PRIVATE_H

#include <stddef.h>
#include <stdint.h>
#include "weft_internal/copy.h"
#include "weft_internal/crc32c_poly.h"

/* works on the register itself: without the complement at the start and at the end */
typedef uint32_t wfi_crc32c_fn(uint32_t reg, const uint8_t *buf, size_t len);

wfi_crc32c_fn wfi_crc32c_portable;
/* the same of @src, which goes to @dst, around the cache; a store fence is the caller's */
typedef uint32_t wfi_crc32c_copy_fn(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len);

/* the n-th fastest way that this machine has, from 0; NULL when there is none but the portable */
wfi_crc32c_fn *wfi_crc32c_machine(unsigned n);
/* the n-th of those, what is best unmeasured first */
wfi_crc32c_copy_fn *wfi_crc32c_copy_machine(unsigned n);
/* the same through the cache; NULL: there is none in one pass */
wfi_crc32c_copy_fn *wfi_crc32c_keep_machine(unsigned n);
typedef uint32_t wfi_crc32c_runs_fn(uint32_t reg, const struct wfi_copy_run *runs, unsigned nr);
/* the same of short runs; NULL: none but one by one */
wfi_crc32c_runs_fn *wfi_crc32c_runs_machine(void);

#endif
