/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer_copy_x86.c - single-threaded loops that copy around the cache
 *
 * What differs: how many places are walked side by side, how far apart, in steps of how many bytes,
 * how far ahead of the loads lines are asked for. A walker is a share of a page behind the one
 * before it, so that no load waits for a store with the same low 12 bits.
 */
#include <immintrin.h>
#include "perf/peers.h"

#define PAGE 4096u
#define KIB(n) ((n) << 10)

struct shape {
	uint64_t nr;
	uint64_t apart;
	uint64_t step;
	uint64_t ahead;
};

#define INLINE static inline __attribute__((always_inline))

__attribute__((target("avx512f"))) INLINE void lines512(char *d, const char *s, uint64_t len)
{
	uint64_t i;

#pragma GCC unroll 16
	for (i = 0; i < len; i += 64)
		_mm512_stream_si512((__m512i *)(d + i), _mm512_load_si512(s + i));
}

__attribute__((target("avx2"))) INLINE void lines256(char *d, const char *s, uint64_t len)
{
	uint64_t i;

#pragma GCC unroll 32
	for (i = 0; i < len; i += 32)
		_mm256_stream_si256((__m256i *)(d + i),
				    _mm256_load_si256((const __m256i *)(s + i)));
}

INLINE void ask(const char *s, uint64_t len, uint64_t ahead)
{
	uint64_t i;

	for (i = 0; ahead && i < len; i += 64)
		_mm_prefetch(s + i + ahead, _MM_HINT_T0);
}

/* @len: a multiple of what all walkers walk, but for a rest that one walks */
#define STREAM(bits, isa)                                                                          \
	__attribute__((target(isa)))                                                               \
	INLINE void stream##bits(char *dst, const char *src, uint64_t len, struct shape shape)     \
	{                                                                                          \
		uint64_t all = shape.nr * shape.apart, base, off, w, at;                           \
                                                                                                   \
		for (base = 0; base + all <= len; base += all) {                                   \
			for (off = 0; off < shape.apart; off += shape.step) {                      \
				for (w = 0; w < shape.nr; w++) {                                   \
					at = (off + w * PAGE / shape.nr) & (shape.apart - 1);      \
					at += base + w * shape.apart;                              \
					ask(src + at, shape.step, shape.ahead);                    \
					lines##bits(dst + at, src + at, shape.step);               \
				}                                                                  \
			}                                                                          \
		}                                                                                  \
		for (off = base; off < len; off += 64)                                             \
			lines##bits(dst + off, src + off, 64);                                     \
		_mm_sfence();                                                                      \
	}

STREAM(512, "avx512f")
STREAM(256, "avx2")

#define LOOP(bits, isa, nr, kib, step, ahead)                                                      \
	static __attribute__((target(isa))) void copy##bits##_##nr##_##kib##_##step##_##ahead(     \
		void *dst, const void *src, uint64_t len)                                          \
	{                                                                                          \
		stream##bits(dst, src, len, (struct shape){ nr, KIB(kib), step, ahead });          \
	}
#define NAME(bits, isa, nr, kib, step, ahead)                                                      \
	{ #isa " " #nr " x " #kib " KiB, by " #step ", " #ahead " ahead",                          \
	  copy##bits##_##nr##_##kib##_##step##_##ahead },

/* what is tried, with each instruction set */
#define ALL(X, bits, isa)                                                                          \
	X(bits, isa, 1, 4, 128, 0)                                                                 \
	X(bits, isa, 1, 4, 128, 1024)                                                              \
	X(bits, isa, 1, 4, 512, 0)                                                                 \
	X(bits, isa, 1, 4, 512, 512)                                                               \
	X(bits, isa, 2, 4, 128, 512)                                                               \
	X(bits, isa, 2, 64, 128, 256)                                                              \
	X(bits, isa, 2, 64, 512, 0)                                                                \
	X(bits, isa, 2, 64, 512, 256)                                                              \
	X(bits, isa, 2, 512, 512, 256)                                                             \
	X(bits, isa, 4, 4, 128, 256)                                                               \
	X(bits, isa, 4, 16, 128, 256)                                                              \
	X(bits, isa, 4, 16, 512, 0)                                                                \
	X(bits, isa, 4, 16, 512, 256)                                                              \
	X(bits, isa, 4, 64, 128, 256)                                                              \
	X(bits, isa, 4, 64, 256, 256)                                                              \
	X(bits, isa, 4, 64, 512, 0)                                                                \
	X(bits, isa, 4, 64, 512, 256)                                                              \
	X(bits, isa, 4, 64, 512, 512)                                                              \
	X(bits, isa, 4, 256, 512, 0)                                                               \
	X(bits, isa, 4, 256, 512, 256)                                                             \
	X(bits, isa, 8, 4, 128, 0)                                                                 \
	X(bits, isa, 8, 4, 128, 256)                                                               \
	X(bits, isa, 8, 16, 64, 256)                                                               \
	X(bits, isa, 8, 16, 128, 256)                                                              \
	X(bits, isa, 8, 16, 512, 0)                                                                \
	X(bits, isa, 8, 64, 64, 256)                                                               \
	X(bits, isa, 8, 64, 128, 0)                                                                \
	X(bits, isa, 8, 64, 128, 256)                                                              \
	X(bits, isa, 8, 64, 512, 0)                                                                \
	X(bits, isa, 8, 256, 128, 256)                                                             \
	X(bits, isa, 16, 4, 128, 256)                                                              \
	X(bits, isa, 16, 64, 128, 256)

ALL(LOOP, 512, "avx512f")
ALL(LOOP, 256, "avx2")

static void copy_rep_movsb(void *dst, const void *src, uint64_t len)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

const struct wfi_peer_copy_loop *wfi_peer_copy_loops(void)
{
	static const struct wfi_peer_copy_loop with_avx512[] = {
		ALL(NAME, 512, "avx512f") ALL(NAME, 256, "avx2") /* */
		{ "rep movsb", copy_rep_movsb },
		{ NULL, NULL },
	};
	static const struct wfi_peer_copy_loop with_avx2[] = {
		ALL(NAME, 256, "avx2") /* */
		{ "rep movsb", copy_rep_movsb },
		{ NULL, NULL },
	};
	static const struct wfi_peer_copy_loop others[] = {
		{ "rep movsb", copy_rep_movsb },
		{ NULL, NULL },
	};

	if (__builtin_cpu_supports("avx512f"))
		return with_avx512;
	return __builtin_cpu_supports("avx2") ? with_avx2 : others;
}
