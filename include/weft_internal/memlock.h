/* SPDX-License-Identifier: Apache-2.0 */
/* memlock.h - what a process may have pinned for devices, and what to say when it is too little */
#ifndef WFI_MEMLOCK_H
#define WFI_MEMLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Return: RLIMIT_MEMLOCK in bytes; UINT64_MAX: none, or it does not hold for this process */
uint64_t wfi_memlock_limit(void);
/* that @len bytes are too many, and what to do. Return: as snprintf() */
int wfi_memlock_says(uint64_t len, uint64_t limit, char *out, size_t out_len);

#endif
