/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer_copy_x86.c - loops with streaming stores
 *
 * They differ in how many pages they walk side by side (more DRAM rows and prefetchers at work) and
 * how far ahead they prefetch; which is best depends on the machine.
 */
#include <immintrin.h>
#include "perf/peers.h"

#define PAGE 4096u

static inline __attribute__((always_inline, target("avx512f"))) void
stream512(char *dst, const char *src, uint64_t len, unsigned nr_pages, unsigned ahead)
{
	uint64_t base, off;
	unsigned page;

	for (base = 0; base + nr_pages * PAGE <= len; base += nr_pages * PAGE) {
		for (off = 0; off < PAGE; off += 128) {
			for (page = 0; page < nr_pages; page++) {
				const char *s = src + base + page * PAGE + off;
				char *d = dst + base + page * PAGE + off;
				__m512i a, b;

				if (ahead) {
					_mm_prefetch(s + ahead, _MM_HINT_T0);
					_mm_prefetch(s + ahead + 64, _MM_HINT_T0);
				}
				a = _mm512_load_si512(s);
				b = _mm512_load_si512(s + 64);
				_mm512_stream_si512((__m512i *)d, a);
				_mm512_stream_si512((__m512i *)(d + 64), b);
			}
		}
	}
	for (off = base; off < len; off += 64)
		_mm512_stream_si512((__m512i *)(dst + off), _mm512_load_si512(src + off));
	_mm_sfence();
}

static inline __attribute__((always_inline, target("avx2"))) void
stream256(char *dst, const char *src, uint64_t len, unsigned nr_pages, unsigned ahead)
{
	uint64_t base, off;
	unsigned page;

	for (base = 0; base + nr_pages * PAGE <= len; base += nr_pages * PAGE) {
		for (off = 0; off < PAGE; off += 64) {
			for (page = 0; page < nr_pages; page++) {
				const char *s = src + base + page * PAGE + off;
				char *d = dst + base + page * PAGE + off;
				__m256i a, b;

				if (ahead)
					_mm_prefetch(s + ahead, _MM_HINT_T0);
				a = _mm256_load_si256((const __m256i *)s);
				b = _mm256_load_si256((const __m256i *)(s + 32));
				_mm256_stream_si256((__m256i *)d, a);
				_mm256_stream_si256((__m256i *)(d + 32), b);
			}
		}
	}
	for (off = base; off < len; off += 32)
		_mm256_stream_si256((__m256i *)(dst + off),
				    _mm256_load_si256((const __m256i *)(src + off)));
	_mm_sfence();
}

#define LOOP(bits, isa, pages, ahead)                                                              \
	static __attribute__((target(isa))) void copy##bits##_##pages##_##ahead(                   \
		void *dst, const void *src, uint64_t len)                                          \
	{                                                                                          \
		stream##bits(dst, src, len, pages, ahead);                                         \
	}

LOOP(512, "avx512f", 1, 0)
LOOP(512, "avx512f", 1, 1024)
LOOP(512, "avx512f", 2, 0)
LOOP(512, "avx512f", 2, 512)
LOOP(512, "avx512f", 4, 0)
LOOP(512, "avx512f", 4, 256)
LOOP(512, "avx512f", 4, 512)
LOOP(512, "avx512f", 8, 0)
LOOP(512, "avx512f", 8, 256)
LOOP(512, "avx512f", 8, 512)
LOOP(512, "avx512f", 16, 0)
LOOP(512, "avx512f", 16, 256)
LOOP(256, "avx2", 1, 0)
LOOP(256, "avx2", 1, 1024)
LOOP(256, "avx2", 4, 0)
LOOP(256, "avx2", 4, 256)
LOOP(256, "avx2", 8, 0)
LOOP(256, "avx2", 8, 256)

static void copy_rep_movsb(void *dst, const void *src, uint64_t len)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

static const struct wfi_peer_copy_loop loops[] = {
	{ "avx512 1 page", copy512_1_0 },
	{ "avx512 1 page, 1024 ahead", copy512_1_1024 },
	{ "avx512 2 pages", copy512_2_0 },
	{ "avx512 2 pages, 512 ahead", copy512_2_512 },
	{ "avx512 4 pages", copy512_4_0 },
	{ "avx512 4 pages, 256 ahead", copy512_4_256 },
	{ "avx512 4 pages, 512 ahead", copy512_4_512 },
	{ "avx512 8 pages", copy512_8_0 },
	{ "avx512 8 pages, 256 ahead", copy512_8_256 },
	{ "avx512 8 pages, 512 ahead", copy512_8_512 },
	{ "avx512 16 pages", copy512_16_0 },
	{ "avx512 16 pages, 256 ahead", copy512_16_256 },
	{ "avx2 1 page", copy256_1_0 },
	{ "avx2 1 page, 1024 ahead", copy256_1_1024 },
	{ "avx2 4 pages", copy256_4_0 },
	{ "avx2 4 pages, 256 ahead", copy256_4_256 },
	{ "avx2 8 pages", copy256_8_0 },
	{ "avx2 8 pages, 256 ahead", copy256_8_256 },
	{ "rep movsb", copy_rep_movsb },
	{ NULL, NULL },
};

#define FIRST_AVX2 12
#define FIRST_PLAIN 18

const struct wfi_peer_copy_loop *wfi_peer_copy_loops(void)
{
	if (__builtin_cpu_supports("avx512f"))
		return loops;
	if (__builtin_cpu_supports("avx2"))
		return &loops[FIRST_AVX2];
	return &loops[FIRST_PLAIN];
}
