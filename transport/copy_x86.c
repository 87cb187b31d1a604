/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several places of a piece are walked side by side, so that several DRAM rows and prefetchers
 * work at a time. Where source and target lie alike in their pages, a walker's load has the low 12
 * bits of the store of the walker before it, and waits until that store has left the core: with
 * eight walkers a tenth of the speed was left of it on Zen 3. So each walker is a share of a page
 * behind the one before it, in its own pages: the same 12 bits come again after 4 KiB of stores.
 */
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include "transport/copy_private.h"
#include "weft_internal/util.h"

#define PAGE 4096u
#define LINE 64u
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f")))
#define INLINE static inline __attribute__((always_inline))

/* ---- one step of a walker ---- */

AVX2 INLINE void line_avx2(char *d, const char *s)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)(const void *)s);
	__m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(s + 32));

	_mm256_stream_si256((__m256i *)(void *)d, a);
	_mm256_stream_si256((__m256i *)(void *)(d + 32), b);
}

AVX512 INLINE void line_avx512(char *d, const char *s)
{
	_mm512_stream_si512((void *)d, _mm512_loadu_si512(s));
}

/* a line that stays in the cache */
AVX2 INLINE void keep_avx2(char *d, const char *s)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)(const void *)s);
	__m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(s + 32));

	_mm256_storeu_si256((__m256i *)(void *)d, a);
	_mm256_storeu_si256((__m256i *)(void *)(d + 32), b);
}

AVX512 INLINE void keep_avx512(char *d, const char *s)
{
	_mm512_storeu_si512(d, _mm512_loadu_si512(s));
}

INLINE void ask(const char *s, uint32_t len, uint32_t ahead)
{
	uint32_t i;

	for (i = 0; ahead && i < len; i += LINE)
		_mm_prefetch(s + i + ahead, _MM_HINT_T0);
}

/* ---- the walk ---- */

/* bytes of a walk that fits into @len, with walkers closer together if need be; 0: none does */
INLINE size_t walk_fit(size_t len, const struct wfi_copy_walk *walk, size_t *apart)
{
	if (len < walk->nr_walkers * PAGE)
		return 0;
	while (walk->nr_walkers * *apart > len)
		*apart /= 2;
	return walk->nr_walkers * *apart;
}

/* defines a stream in steps of so many bytes */
#define STREAM(isa, ISA, step)                                                                     \
	ISA static void walk_##isa##_##step(char *d, const char *s, size_t apart,                  \
					    const struct wfi_copy_walk *walk)                      \
	{                                                                                          \
		const uint32_t nr = walk->nr_walkers, ahead = walk->ahead, lag = PAGE / nr;        \
                                                                                                   \
		for (size_t i = 0; i < apart; i += (step)) {                                       \
			for (uint32_t w = 0; w < nr; w++) {                                        \
				size_t at = w * apart + ((i + w * lag) & (apart - 1));             \
                                                                                                   \
				ask(s + at, step, ahead);                                          \
				_Pragma("GCC unroll 8") for (size_t k = 0; k < (step); k += LINE)  \
					line_##isa(d + at + k, s + at + k);                        \
			}                                                                          \
		}                                                                                  \
	}                                                                                          \
                                                                                                   \
	ISA static void stream_##isa##_##step(void *dst, const void *src, size_t len,              \
					      const struct wfi_copy_walk *walk)                    \
	{                                                                                          \
		size_t head = -(uintptr_t)dst & (LINE - 1), apart = walk->apart, n;                \
		const char *s = src;                                                               \
		char *d = dst;                                                                     \
                                                                                                   \
		if (len < head + LINE) {                                                           \
			memcpy(dst, src, len);                                                     \
			return;                                                                    \
		}                                                                                  \
		memcpy(d, s, head);                                                                \
		d += head;                                                                         \
		s += head;                                                                         \
		len -= head;                                                                       \
		while ((n = walk_fit(len, walk, &apart))) {                                        \
			walk_##isa##_##step(d, s, apart, walk);                                    \
			d += n;                                                                    \
			s += n;                                                                    \
			len -= n;                                                                  \
		}                                                                                  \
		for (; len >= LINE; len -= LINE, d += LINE, s += LINE)                             \
			line_##isa(d, s);                                                          \
		memcpy(d, s, len);                                                                 \
	}

STREAM(avx2, AVX2, 128)
STREAM(avx2, AVX2, 512)
STREAM(avx512, AVX512, 128)
STREAM(avx512, AVX512, 512)

/* ---- the rest ---- */

/*
 * Runs of a page or less, one after the other: each line copied calls for one of the next run, at
 * both ends. The CPU's own prefetchers see too little of a run to be of use, and memcpy() has to
 * find out its length, alignment and loop each time.
 */
#define PLAIN(isa, ISA)                                                                            \
	ISA static void plain_##isa(const struct wfi_copy_run *run,                                \
				    const struct wfi_copy_run *next)                               \
	{                                                                                          \
		const char *s = run->src, *s2 = next->src;                                         \
		const size_t len = run->len, ahead = wfi_min(len, next->len);                      \
		char *d = run->dst, *d2 = next->dst;                                               \
		size_t i = 0;                                                                      \
                                                                                                   \
		if (len < LINE || len > PAGE) {                                                    \
			wfi_copy_plain(run, next);                                                 \
			return;                                                                    \
		}                                                                                  \
		for (; i + LINE <= ahead; i += LINE) {                                             \
			_mm_prefetch(s2 + i, _MM_HINT_T0);                                         \
			__builtin_prefetch(d2 + i, 1);                                             \
			keep_##isa(d + i, s + i);                                                  \
		}                                                                                  \
		for (; i + LINE <= len; i += LINE)                                                 \
			keep_##isa(d + i, s + i);                                                  \
		/* the tail again, overlapping what is there */                                    \
		if (i < len)                                                                       \
			keep_##isa(d + len - LINE, s + len - LINE);                                \
	}

PLAIN(avx2, AVX2)
PLAIN(avx512, AVX512)

static void stream_movsb(void *dst, const void *src, size_t len, const struct wfi_copy_walk *walk)
{
	(void)walk;
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

static void fence_stores(void)
{
	_mm_sfence();
}

/* a tenth of the time of clflush, where there is it */
__attribute__((target("clflushopt"))) static void flush_opt(const char *at, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += LINE)
		_mm_clflushopt((void *)(uintptr_t)(at + i));
	_mm_mfence();
}

void wfi_copy_flush(const void *buf, size_t len)
{
	unsigned eax, ebx = 0, ecx, edx;
	const char *at = buf;
	size_t i;

	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & bit_CLFLUSHOPT) {
		flush_opt(at, len);
		return;
	}
	for (i = 0; i < len; i += LINE)
		_mm_clflush(at + i);
	_mm_mfence();
}

/* ---- the ways ---- */

/* defines one by name: walkers x distance in KiB, step, prefetch */
#define WAY(isa, nr, kib, step, far)                                                               \
	static const struct wfi_copy_ops isa##_##nr##_##kib##_##step##_##far = {                   \
		#isa " " #nr "x" #kib "KiB by " #step " ahead " #far,                              \
		plain_##isa,                                                                       \
		stream_##isa##_##step,                                                             \
		fence_stores,                                                                      \
		{ nr, (kib) << 10, far },                                                          \
	}

WAY(avx2, 1, 4, 512, 0);
WAY(avx2, 1, 4, 128, 1024);
WAY(avx2, 2, 64, 512, 256);
WAY(avx2, 4, 16, 512, 0);
WAY(avx2, 4, 64, 512, 0);
WAY(avx2, 4, 64, 512, 256);
WAY(avx2, 8, 4, 128, 256);
WAY(avx2, 8, 16, 512, 0);
WAY(avx2, 8, 64, 128, 256);
WAY(avx512, 1, 4, 512, 0);
WAY(avx512, 2, 64, 512, 256);
WAY(avx512, 4, 16, 512, 0);
WAY(avx512, 4, 64, 512, 256);
WAY(avx512, 8, 4, 128, 256);
WAY(avx512, 8, 16, 512, 0);
WAY(avx512, 8, 64, 128, 256);

static const struct wfi_copy_ops movsb = {
	.name = "rep movsb",
	.plain = plain_avx2,
	.stream = stream_movsb,
	.fence = fence_stores,
};

static const struct wfi_copy_ops movsb_avx512 = {
	.name = "rep movsb, avx512",
	.plain = plain_avx512,
	.stream = stream_movsb,
	.fence = fence_stores,
};

#define AVX2_WAYS                                                                                  \
	&avx2_4_64_512_256, &avx2_4_64_512_0, &avx2_4_16_512_0, &avx2_8_16_512_0,                  \
		&avx2_8_64_128_256, &avx2_8_4_128_256, &avx2_2_64_512_256, &avx2_1_4_512_0,        \
		&avx2_1_4_128_1024

const struct wfi_copy_ops *const *wfi_copy_all(void)
{
	static const struct wfi_copy_ops *const with_avx512[] = {
		&avx512_8_4_128_256,
		&avx512_8_16_512_0,
		&avx512_8_64_128_256,
		&avx512_4_64_512_256,
		&avx512_4_16_512_0,
		&avx512_2_64_512_256,
		&avx512_1_4_512_0,
		&movsb_avx512,
		AVX2_WAYS,
		&wfi_copy_libc,
		NULL,
	};
	static const struct wfi_copy_ops *const with_avx2[] = { AVX2_WAYS, &movsb, &wfi_copy_libc,
								NULL };
	static const struct wfi_copy_ops *const others[] = { &wfi_copy_libc, NULL };

	if (__builtin_cpu_supports("avx512f"))
		return with_avx512;
	return __builtin_cpu_supports("avx2") ? with_avx2 : others;
}
