/* SPDX-License-Identifier: Apache-2.0 */
/* util.h - container_of, sizes, checked arithmetic; no state, no calls */
#ifndef WFI_UTIL_H
#define WFI_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define wfi_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define WFI_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define wfi_likely(x) __builtin_expect(!!(x), 1)
#define wfi_unlikely(x) __builtin_expect(!!(x), 0)
#define WFI_CACHELINE 64
#define WFI_MUST_CHECK __attribute__((warn_unused_result))

/* built for ThreadSanitizer, which has to see every access */
#if defined(__SANITIZE_THREAD__)
#define WFI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WFI_TSAN 1
#endif
#endif

/* Return: true when the sum or product does not fit; *out is then unchanged in meaning */
static inline WFI_MUST_CHECK bool wfi_add_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
	return __builtin_add_overflow(a, b, out);
}

static inline WFI_MUST_CHECK bool wfi_mul_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
	return __builtin_mul_overflow(a, b, out);
}

/* true when [off, off + len) lies inside [0, size); safe at the edges of 64 bits */
static inline WFI_MUST_CHECK bool wfi_range_ok(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline uint64_t wfi_align_up(uint64_t v, uint64_t pow2)
{
	return (v + pow2 - 1) & ~(pow2 - 1);
}

static inline bool wfi_is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

static inline uint64_t wfi_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t wfi_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* has a page made and changes nothing, whoever writes there meanwhile */
static inline void wfi_touch(void *addr)
{
#if defined(__x86_64__)
	/* in words of its own: to sanitizers an atomic beside plain writes is a race */
	__asm__ volatile("lock orb $0, %0" : "+m"(*(unsigned char *)addr));
#else
	__atomic_fetch_or((unsigned char *)addr, 0, __ATOMIC_RELAXED);
#endif
}

static inline void wfi_cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#endif
}

/* bytes that are few most of the time. Hot. The length is kept from the compiler: what it knows to
 * be at most a few KiB it copies by "rep movs", which takes long to begin */
static inline void wfi_copy_few(void *to, const void *from, size_t len)
{
	uint64_t first, last;

	if (len - sizeof(first) > sizeof(last)) {
		__asm__("" : "+r"(len));
		memcpy(to, from, len);
		return;
	}
	memcpy(&first, from, sizeof(first));
	memcpy(&last, (const uint8_t *)from + len - sizeof(last), sizeof(last));
	memcpy(to, &first, sizeof(first));
	memcpy((uint8_t *)to + len - sizeof(last), &last, sizeof(last));
}

#endif
