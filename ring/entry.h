/* SPDX-License-Identifier: Apache-2.0 */
/**
 * entry.h - how entries go through a ring; both sides, private to ring/
 *
 * An entry in the segment is an array of 64-bit words, of which the first holds .seq in its low
 * half. The producer writes the rest, then stores the first word whole (release); the consumer
 * loads it (acquire), and has the rest when .seq is the one it waits for. The words lie in a
 * mapping that another process writes: nothing in it is ever read twice.
 */
#ifndef WFI_RING_ENTRY_H
#define WFI_RING_ENTRY_H

#include <stdint.h>
#include <string.h>
#include "weft/ring.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the ABI is little-endian");

#define WFI_SQE_WORDS (sizeof(struct weft_sqe) / sizeof(uint64_t))
#define WFI_CQE_WORDS (sizeof(struct weft_cqe) / sizeof(uint64_t))

/* the compiler may not go back to shared memory for what was copied before this line */
static inline void wfi_copied(void)
{
	__asm__ volatile("" ::: "memory");
}

/* pairs with wfi_entry_publish() of the other side */
static inline uint64_t wfi_entry_peek(const uint64_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

/* pairs with wfi_entry_peek() of the other side */
static inline void wfi_entry_publish(uint64_t *entry, uint64_t first)
{
	__atomic_store_n(entry, first, __ATOMIC_RELEASE);
}

/* after wfi_entry_peek() gave @first: the private copy */
static inline void wfi_entry_take(void *out, const uint64_t *entry, uint64_t first, size_t words)
{
	memcpy(out, &first, sizeof(first));
	memcpy((char *)out + sizeof(first), entry + 1, (words - 1) * sizeof(*entry));
	wfi_copied();
}

/* asks for a line that is going to be written: the other side has read it a lap ago */
static inline void wfi_prefetch_write(const void *addr)
{
#if defined(__x86_64__)
	/* __builtin_prefetch() for writing is one for reading, unless the compiler is told of a
	 * CPU */
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)addr));
#else
	__builtin_prefetch(addr, 1);
#endif
}

/* what the other side may show in a place where nothing new is: the lap before, or nothing yet */
static inline int wfi_entry_absent(uint32_t seq, uint32_t pos, uint32_t depth)
{
	return seq == pos + 1 - depth || seq == 0;
}

#endif
