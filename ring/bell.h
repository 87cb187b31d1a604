/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bell.h - one side's line: head, bell and sleeping flag (weft/ring.h, section 4); private to ring/
 *
 * Sleeper:    b = other.bell; own.sleeping = 1; fence; look at the ring; wait while other.bell == b
 * Publisher:  entries or head; fence; if other.sleeping: own.bell += 1, wake
 * The two fences pair: either the sleeper sees what was published, or the publisher sees the flag.
 */
#ifndef WFI_RING_BELL_H
#define WFI_RING_BELL_H

#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "weft/ring.h"

/* Context: the line's one writer */
static inline void wfi_bell_ring(struct weft_ring_line *own)
{
	__atomic_store_n(&own->bell, own->bell + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &own->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* the full fence of both sides. A locked add is cheaper than mfence, and orders the same here */
static inline void wfi_bell_fence(void)
{
#if defined(__x86_64__)
	__asm__ volatile("lock addl $0, -128(%%rsp)" ::: "memory", "cc");
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline uint32_t wfi_bell_read(const struct weft_ring_line *other)
{
	return __atomic_load_n(&other->bell, __ATOMIC_ACQUIRE);
}

/* Return: whether the other side wants to be woken; after wfi_bell_fence() */
static inline int wfi_bell_wanted(const struct weft_ring_line *other)
{
	return __atomic_load_n(&other->sleeping, __ATOMIC_RELAXED) != 0;
}

static inline void wfi_bell_sleeping(struct weft_ring_line *own, uint32_t sleeping)
{
	__atomic_store_n(&own->sleeping, sleeping, __ATOMIC_RELAXED);
}

/* returns when rung, after @timeout_ns, or for no reason */
static inline void wfi_bell_wait(const struct weft_ring_line *other, uint32_t val,
				 uint64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
			       .tv_nsec = (long)(timeout_ns % 1000000000u) };

	syscall(SYS_futex, &other->bell, FUTEX_WAIT, val, &ts, NULL, 0);
}

#endif
