/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.h - shared mappings that outlive their pages
 *
 * Who may write to a memfd may punch holes into it. On small pages a hole reads as zeros. On huge
 * ones it wants a page of those that were set aside, and when none is left, whoever touches it
 * gets SIGBUS: an engine could end a node so. So can memory that fails (hwpoison).
 *
 * A process that has installed the guard takes the whole mapping away instead, as soon as a page of
 * it is missed, puts zeros in its place, and goes on. Nobody is told but by guard_hits(): what was
 * read meanwhile may not be believed, and what was written is gone.
 */
#ifndef WEFT_INTERNAL_GUARD_H
#define WEFT_INTERNAL_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * from here on SIGBUS within guarded mappings is mended; elsewhere it ends the process as before.
 * For programs, never for a library: signals are the process's. Return: 0, -errno
 */
int wfi_guard_install(void);

/*
 * wfi_guard_add - guard a mapping, until wfi_guard_del() before it is unmapped
 *
 * Without wfi_guard_install() before, nothing is done. Context: any thread.
 * Return: 0, -ENOSPC too many mappings.
 */
int wfi_guard_add(void *addr, size_t len);
/* takes what was never added */
void wfi_guard_del(void *addr);

extern uint32_t wfi_guard_hits_; /* written by the signal's handler */

/* how many mappings were taken away so far. Hot */
static inline uint32_t wfi_guard_hits(void)
{
	return __atomic_load_n(&wfi_guard_hits_, __ATOMIC_RELAXED);
}

/* whether the mapping that @addr lies in was taken away */
bool wfi_guard_hit(const void *addr);

#endif
