/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC32C by the crc32 instruction, and by folding lines with carry-less products (Gopal et al.,
 * "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", 2009)
 */
#include <immintrin.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include "kvcache/crc32c_private.h"

#define SSE42 __attribute__((target("sse4.2")))
#define AVX512 __attribute__((target("sse4.2,pclmul,avx512f,avx512vl,vpclmulqdq")))

#define AVX2 __attribute__((target("sse4.2,avx2")))
#define PCLMUL __attribute__((target("sse4.2,pclmul")))
#define FOLD256 __attribute__((target("sse4.2,pclmul,avx2,vpclmulqdq")))

#define STREAM_BYTES 1024 /* of each of three interleaved streams */
#define COPY_STREAM_BYTES 256 /* of each of four: what is written stays in order, nearly */
#define COPY_BYTES (4 * COPY_STREAM_BYTES)
#define FOLD_LINES 4
#define FOLD_BYTES (64 * FOLD_LINES)

/* what moves a register past one stream, and past two, per byte of the register */
static uint32_t past_one[4][256];
static uint32_t past_two[4][256];
static uint32_t past_copied[4][256];
static pthread_once_t past_once = PTHREAD_ONCE_INIT;

static void past_init(void)
{
	const uint32_t one = wfi_crc32c_power(STREAM_BYTES);
	const uint32_t two = wfi_crc32c_power(2 * STREAM_BYTES);
	const uint32_t copied = wfi_crc32c_power(COPY_STREAM_BYTES);

	for (unsigned byte = 0; byte < 4; byte++) {
		for (uint32_t v = 0; v < 256; v++) {
			past_one[byte][v] = wfi_crc32c_mul(v << 8 * byte, one);
			past_two[byte][v] = wfi_crc32c_mul(v << 8 * byte, two);
			past_copied[byte][v] = wfi_crc32c_mul(v << 8 * byte, copied);
		}
	}
}

static uint32_t past(const uint32_t table[4][256], uint32_t reg)
{
	return table[0][reg & 0xff] ^ table[1][reg >> 8 & 0xff] ^ table[2][reg >> 16 & 0xff] ^
	       table[3][reg >> 24];
}

static inline uint64_t load64(const uint8_t *buf)
{
	uint64_t word;

	memcpy(&word, buf, sizeof(word));
	return word;
}

SSE42 static inline uint32_t one_stream(uint32_t reg, const uint8_t *buf, size_t len)
{
	uint64_t wide = reg;

	for (; len >= 8; len -= 8, buf += 8)
		wide = _mm_crc32_u64(wide, load64(buf));
	reg = (uint32_t)wide;
	while (len--)
		reg = _mm_crc32_u8(reg, *buf++);
	return reg;
}

/* the instruction takes 3 cycles and one may start each cycle: three streams hide that */
SSE42 static uint32_t three_streams(uint32_t reg, const uint8_t *buf, size_t len)
{
	if (len >= 3 * STREAM_BYTES)
		pthread_once(&past_once, past_init);
	for (; len >= 3 * STREAM_BYTES; len -= 3 * STREAM_BYTES, buf += 3 * STREAM_BYTES) {
		uint64_t a = reg, b = 0, c = 0;

		for (size_t i = 0; i < STREAM_BYTES; i += 8) {
			a = _mm_crc32_u64(a, load64(buf + i));
			b = _mm_crc32_u64(b, load64(buf + STREAM_BYTES + i));
			c = _mm_crc32_u64(c, load64(buf + 2 * STREAM_BYTES + i));
		}
		reg = past(past_two, (uint32_t)a) ^ past(past_one, (uint32_t)b) ^ (uint32_t)c;
	}
	return one_stream(reg, buf, len);
}

/* bytes before and behind the lines */
SSE42 static uint32_t copy_ends(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	uint64_t word;

	for (; len >= sizeof(word); len -= sizeof(word), dst += sizeof(word), src += sizeof(word)) {
		word = load64(src);
		reg = (uint32_t)_mm_crc32_u64(reg, word);
		memcpy(dst, &word, sizeof(word));
	}
	for (; len; len--)
		reg = _mm_crc32_u8(reg, *dst++ = *src++);
	return reg;
}

/* one line; its words are loaded again: taking them out of the vectors costs a fifth of the rate */
AVX2 static inline __attribute__((always_inline)) uint64_t copy_line(uint64_t reg, uint8_t *dst,
								     const uint8_t *src)
{
	const __m256i a = _mm256_loadu_si256((const void *)src);
	const __m256i b = _mm256_loadu_si256((const void *)(src + 32));

	_mm_prefetch(src + COPY_BYTES, _MM_HINT_T0);
	reg = _mm_crc32_u64(reg, load64(src));
	reg = _mm_crc32_u64(reg, load64(src + 8));
	reg = _mm_crc32_u64(reg, load64(src + 16));
	reg = _mm_crc32_u64(reg, load64(src + 24));
	reg = _mm_crc32_u64(reg, load64(src + 32));
	reg = _mm_crc32_u64(reg, load64(src + 40));
	reg = _mm_crc32_u64(reg, load64(src + 48));
	reg = _mm_crc32_u64(reg, load64(src + 56));
	_mm256_stream_si256((void *)dst, a);
	_mm256_stream_si256((void *)(dst + 32), b);
	return reg;
}

/* four streams side by side, so close that memory sees one; the lines of the next turn are called
 * for, since the CPU's own prefetchers do not follow them */
AVX2 static uint32_t copy_streams(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	const size_t head = -(uintptr_t)dst & 63, step = COPY_STREAM_BYTES;

	if (len < head + COPY_BYTES)
		return copy_ends(reg, dst, src, len);
	pthread_once(&past_once, past_init);
	reg = copy_ends(reg, dst, src, head);
	dst += head;
	src += head;
	for (len -= head; len >= COPY_BYTES; len -= COPY_BYTES, dst += 3 * step, src += 3 * step) {
		uint64_t a = 0, b = 0, c = 0, d = 0;

		for (const uint8_t *end = src + step; src < end; src += 64, dst += 64) {
			a = copy_line(a, dst, src);
			b = copy_line(b, dst + step, src + step);
			c = copy_line(c, dst + 2 * step, src + 2 * step);
			d = copy_line(d, dst + 3 * step, src + 3 * step);
		}
		reg = past(past_copied, reg) ^ (uint32_t)a;
		reg = past(past_copied, reg) ^ (uint32_t)b;
		reg = past(past_copied, reg) ^ (uint32_t)c;
		reg = past(past_copied, reg) ^ (uint32_t)d;
	}
	return copy_ends(reg, dst, src, len);
}

/*
 * Moves each 128-bit lane of @x past n bits, onto @y. Bit 0 of a lane is the coefficient of x^127;
 * the product of two reflected 64-bit halves comes out one bit low. So @k holds, each in the upper
 * half of 64 bits, x^(n + 63) for the lane's low half and x^(n - 1) for its high half, modulo the
 * polynomial and reflected.
 */
AVX512 static inline __m512i fold(__m512i x, __m512i k, __m512i y)
{
	return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, k, 0x00),
					 _mm512_clmulepi64_epi128(x, k, 0x11), y, 0x96);
}

PCLMUL static inline __m128i fold_lane(__m128i x, __m128i k, __m128i y)
{
	return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00),
					   _mm_clmulepi64_si128(x, k, 0x11)),
			     y);
}

AVX512 static inline __m512i constant(uint64_t low_half, uint64_t high_half)
{
	return _mm512_broadcast_i32x4(_mm_set_epi64x((long long)high_half, (long long)low_half));
}

/* Return: the register after what the vector stands for */
AVX512 static inline uint32_t reduce_vector(__m512i x)
{
	const __m128i k128 = _mm_set_epi64x(0x3171d43000000000ll, 0x3743f7bd00000000ll);
	__m128i lane = _mm512_castsi512_si128(x);
	uint64_t reg;

	lane = fold_lane(lane, k128, _mm512_extracti32x4_epi32(x, 1));
	lane = fold_lane(lane, k128, _mm512_extracti32x4_epi32(x, 2));
	lane = fold_lane(lane, k128, _mm512_extracti32x4_epi32(x, 3));
	reg = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));
	return (uint32_t)_mm_crc32_u64(reg, (uint64_t)_mm_extract_epi64(lane, 1));
}

/* the same of four, one behind the other */
AVX512 static inline uint32_t reduce(const __m512i x[4])
{
	const __m512i k512 = constant(0x1c19243b00000000ull, 0x75bba45b00000000ull);

	return reduce_vector(fold(fold(fold(x[0], k512, x[1]), k512, x[2]), k512, x[3]));
}

AVX512 static uint32_t folded(uint32_t reg, const uint8_t *buf, size_t len)
{
	const __m512i k2048 = constant(0xe9a5d8be00000000ull, 0x1426a81500000000ull);
	__m512i x[4];

	if (len < FOLD_BYTES)
		return one_stream(reg, buf, len);
	for (unsigned i = 0; i < 4; i++)
		x[i] = _mm512_loadu_si512(buf + 64 * i);
	x[0] = _mm512_xor_si512(x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)reg)));
	for (buf += FOLD_BYTES, len -= FOLD_BYTES; len >= FOLD_BYTES;
	     buf += FOLD_BYTES, len -= FOLD_BYTES)
		for (unsigned i = 0; i < 4; i++)
			x[i] = fold(x[i], k2048, _mm512_loadu_si512(buf + 64 * i));
	return one_stream(reduce(x), buf, len);
}

/* ---- a copy that folds ---- */

/*
 * Four places are walked side by side, as transport/copy_x86.c does and for its reasons: each a
 * quarter of a page behind the one before it, going round in its own part. Two products a vector
 * take less of the core than four crc32 instructions do, so that more loads are under way.
 */
#define WALKERS 4u
#define WALK_LAG (4096u / WALKERS)
#define WALK_STEP 256u
#define WALK_AHEAD 256u
#define WALK_STEP_512 128u
#define WALK_AHEAD_512 384u

struct walk {
	size_t apart; /* bytes of each walker's part: a power of two, at least a page */
	uint32_t past_part; /* moves a register past a part; see past_by() */
	uint32_t past_rest[WALKERS]; /* past what a walker sums up first */
};

typedef uint32_t walk_fn(uint32_t reg, uint8_t *dst, const uint8_t *src, const struct walk *walk);

static struct walk walks[] = { { .apart = 64u << 10 },
			       { .apart = 16u << 10 },
			       { .apart = 4u << 10 } };
static pthread_once_t walks_once = PTHREAD_ONCE_INIT;

/* the crc32 instruction multiplies by x^32, and a product of reflected words is one bit low */
static uint32_t past_constant(size_t len)
{
	return wfi_crc32c_mul(wfi_crc32c_power(len - 5), 1u << (31 - 7));
}

PCLMUL static inline uint32_t past_by(uint32_t reg, uint32_t constant)
{
	const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)reg),
						     _mm_cvtsi32_si128((int)constant), 0x00);

	return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static void walks_init(void)
{
	for (unsigned i = 0; i < sizeof(walks) / sizeof(walks[0]); i++) {
		struct walk *walk = &walks[i];

		walk->past_part = past_constant(walk->apart);
		for (unsigned w = 0; w < WALKERS; w++)
			walk->past_rest[w] = past_constant(walk->apart - w * WALK_LAG);
	}
}

/* @sums: of what each walker went over last, @rest: of what it went over before it went round */
PCLMUL static uint32_t walk_sum(uint32_t reg, const uint32_t sums[WALKERS],
				const uint32_t rest[WALKERS], const struct walk *walk)
{
	reg = past_by(reg, walk->past_part) ^ sums[0];
	for (unsigned w = 1; w < WALKERS; w++)
		reg = past_by(reg, walk->past_part) ^ past_by(sums[w], walk->past_rest[w]) ^
		      rest[w];
	return reg;
}

/* @rest: goes over what no walk fits into */
static uint32_t walk_all(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len, walk_fn *walk,
			 wfi_crc32c_copy_fn *rest)
{
	const size_t head = -(uintptr_t)dst & 63;

	if (len < head + WALKERS * 4096)
		return rest(reg, dst, src, len);
	pthread_once(&walks_once, walks_init);
	reg = copy_ends(reg, dst, src, head);
	dst += head;
	src += head;
	len -= head;
	for (unsigned i = 0; i < sizeof(walks) / sizeof(walks[0]); i++) {
		const size_t n = WALKERS * walks[i].apart;

		for (; len >= n; len -= n, dst += n, src += n)
			reg = walk(reg, dst, src, &walks[i]);
	}
	return rest(reg, dst, src, len);
}

/* defines a walk by its steps, whose sums are of a type that is none in @none */
#define WALK(name, ISA, sum_type, none, step, take_step, reduce_sum)                               \
	ISA static uint32_t name(uint32_t reg, uint8_t *dst, const uint8_t *src,                   \
				 const struct walk *walk)                                          \
	{                                                                                          \
		sum_type x[WALKERS] = { none, none, none, none };                                  \
		uint32_t rest[WALKERS] = { 0 }, sums[WALKERS];                                     \
		const size_t apart = walk->apart;                                                  \
                                                                                                   \
		for (size_t i = 0; i < apart; i += (step)) {                                       \
			_Pragma("GCC unroll 4") for (unsigned w = 0; w < WALKERS; w++)             \
			{                                                                          \
				const size_t in = (i + w * WALK_LAG) & (apart - 1);                \
                                                                                                   \
				if (w && __builtin_expect(!in, 0)) {                               \
					rest[w] = reduce_sum(x[w]);                                \
					x[w] = none;                                               \
				}                                                                  \
				x[w] = take_step(x[w], dst + w * apart + in,                       \
						 src + w * apart + in);                            \
			}                                                                          \
		}                                                                                  \
		for (unsigned w = 0; w < WALKERS; w++)                                             \
			sums[w] = reduce_sum(x[w]);                                                \
		return walk_sum(reg, sums, rest, walk);                                            \
	}

/* the line that one walker has folded all of its own into */
struct folded_line {
	__m256i a, b;
};

FOLD256 static inline __m256i fold256(__m256i x, __m256i y)
{
	const __m256i k512 = _mm256_broadcastsi128_si256(
		_mm_set_epi64x(0x75bba45b00000000ll, 0x1c19243b00000000ll));

	return _mm256_xor_si256(_mm256_xor_si256(_mm256_clmulepi64_epi128(x, k512, 0x00),
						 _mm256_clmulepi64_epi128(x, k512, 0x11)),
				y);
}

FOLD256 static inline uint32_t reduce_line(struct folded_line x)
{
	const __m128i k128 = _mm_set_epi64x(0x3171d43000000000ll, 0x3743f7bd00000000ll);
	__m128i lane = _mm256_castsi256_si128(x.a);
	uint64_t reg;

	lane = fold_lane(lane, k128, _mm256_extracti128_si256(x.a, 1));
	lane = fold_lane(lane, k128, _mm256_castsi256_si128(x.b));
	lane = fold_lane(lane, k128, _mm256_extracti128_si256(x.b, 1));
	reg = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));
	return (uint32_t)_mm_crc32_u64(reg, (uint64_t)_mm_extract_epi64(lane, 1));
}

FOLD256 static inline __attribute__((always_inline)) struct folded_line
step_256(struct folded_line x, uint8_t *dst, const uint8_t *src)
{
#pragma GCC unroll 4
	for (size_t i = 0; i < WALK_STEP; i += 64) {
		const __m256i a = _mm256_loadu_si256((const void *)(src + i));
		const __m256i b = _mm256_loadu_si256((const void *)(src + i + 32));

		_mm_prefetch(src + i + WALK_AHEAD, _MM_HINT_T0);
		x.a = fold256(x.a, a);
		x.b = fold256(x.b, b);
		_mm256_stream_si256((void *)(dst + i), a);
		_mm256_stream_si256((void *)(dst + i + 32), b);
	}
	return x;
}

AVX512 static inline __attribute__((always_inline)) __m512i
step_512(__m512i x, uint8_t *dst, const uint8_t *src, bool stream)
{
	const __m512i k512 = constant(0x1c19243b00000000ull, 0x75bba45b00000000ull);

#pragma GCC unroll 2
	for (size_t i = 0; i < WALK_STEP_512; i += 64) {
		const __m512i line = _mm512_loadu_si512(src + i);

		_mm_prefetch(src + i + WALK_AHEAD_512, _MM_HINT_T0);
		if (stream)
			_mm512_stream_si512((void *)(dst + i), line);
		else
			_mm512_storeu_si512(dst + i, line);
		x = fold(x, k512, line);
	}
	return x;
}

#define NO_LINE ((struct folded_line){ _mm256_setzero_si256(), _mm256_setzero_si256() })
#define STEP_STREAMED(x, dst, src) step_512(x, dst, src, true)
#define STEP_KEPT(x, dst, src) step_512(x, dst, src, false)

WALK(walk_256, FOLD256, struct folded_line, NO_LINE, WALK_STEP, step_256, reduce_line)
WALK(walk_512, AVX512, __m512i, _mm512_setzero_si512(), WALK_STEP_512, STEP_STREAMED, reduce_vector)
WALK(walk_kept, AVX512, __m512i, _mm512_setzero_si512(), WALK_STEP_512, STEP_KEPT, reduce_vector)

static uint32_t walked_256(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	return walk_all(reg, dst, src, len, walk_256, copy_streams);
}

/* ---- a copy that folds, from one end to the other ---- */

#define LINES 8u /* folded side by side */
#define LINES_BYTES (64 * LINES)
#define LINES_AHEAD 4096u

/* one line of each step's eight, and the line of a page later called for */
AVX512 static inline __attribute__((always_inline)) __m512i
fold_line(__m512i x, uint8_t *dst, const uint8_t *src, bool stream)
{
	const __m512i k4096 = constant(0x75bda45400000000ull, 0xe986c14800000000ull);
	const __m512i line = _mm512_loadu_si512(src);

	_mm_prefetch(src + LINES_AHEAD, _MM_HINT_T0);
	if (stream)
		_mm512_stream_si512((void *)dst, line);
	else
		_mm512_storeu_si512(dst, line);
	return fold(x, k4096, line);
}

/* the first step's lines take the register in. @len: at least LINES_BYTES */
AVX512 static inline __attribute__((always_inline)) uint32_t
copy_lines(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len, bool stream)
{
	const __m512i k2048 = constant(0xe9a5d8be00000000ull, 0x1426a81500000000ull);
	__m512i x[LINES];

	for (unsigned i = 0; i < LINES; i++)
		x[i] = fold_line(_mm512_setzero_si512(), dst + 64 * i, src + 64 * i, stream);
	x[0] = _mm512_xor_si512(x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)reg)));
	for (size_t at = LINES_BYTES; at < len; at += LINES_BYTES)
#pragma GCC unroll 8
		for (unsigned i = 0; i < LINES; i++)
			x[i] = fold_line(x[i], dst + at + 64 * i, src + at + 64 * i, stream);
	for (unsigned i = 0; i < LINES / 2; i++)
		x[i] = fold(x[i], k2048, x[i + LINES / 2]);
	return reduce(x);
}

AVX512 static inline __attribute__((always_inline)) uint32_t
copy_straight(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len, bool stream)
{
	const size_t head = -(uintptr_t)dst & 63;
	size_t lines;

	if (len < head + LINES_BYTES)
		return copy_ends(reg, dst, src, len);
	reg = copy_ends(reg, dst, src, head);
	dst += head;
	src += head;
	len -= head;
	lines = len & ~(size_t)(LINES_BYTES - 1);
	reg = copy_lines(reg, dst, src, lines, stream);
	return copy_ends(reg, dst + lines, src + lines, len - lines);
}

AVX512 static uint32_t straight_streamed(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	return copy_straight(reg, dst, src, len, true);
}

AVX512 static uint32_t straight_kept(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	return copy_straight(reg, dst, src, len, false);
}

static uint32_t walked_streamed(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	return walk_all(reg, dst, src, len, walk_512, straight_streamed);
}

static uint32_t walked_kept(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	return walk_all(reg, dst, src, len, walk_kept, straight_kept);
}

/* ---- runs that lie apart ---- */

/* runs of whole steps, as if they were one: putting a sum together takes as long as half a KiB */
AVX512 static inline __attribute__((always_inline)) uint32_t
fold_runs(uint32_t reg, const struct wfi_copy_run *runs, unsigned nr)
{
	const __m512i k2048 = constant(0xe9a5d8be00000000ull, 0x1426a81500000000ull);
	__m512i x[FOLD_LINES];

	for (unsigned i = 0; i < FOLD_LINES; i++)
		x[i] = _mm512_setzero_si512();
	for (; nr; nr--, runs++) {
		const uint8_t *src = runs->src, *next = nr > 1 ? runs[1].dst : runs->dst;
		uint8_t *dst = runs->dst;

		for (size_t at = 0; at < runs->len; at += FOLD_BYTES) {
#pragma GCC unroll 4
			for (size_t i = 0; i < FOLD_LINES; i++) {
				const __m512i line = _mm512_loadu_si512(src + at + 64 * i);

				__builtin_prefetch(next + at + 64 * i, 1);
				_mm512_storeu_si512(dst + at + 64 * i, line);
				x[i] = fold(x[i], k2048, line);
			}
			x[0] = _mm512_xor_si512(
				x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)reg)));
			reg = 0;
		}
	}
	return reduce(x);
}

AVX512 static uint32_t runs_straight(uint32_t reg, const struct wfi_copy_run *runs, unsigned nr)
{
	unsigned n;

	for (; nr; nr -= n, runs += n) {
		for (n = 0; n < nr && runs[n].len && !(runs[n].len % FOLD_BYTES); n++)
			;
		if (n) {
			reg = fold_runs(reg, runs, n);
			continue;
		}
		reg = straight_kept(reg, runs->dst, runs->src, runs->len);
		n = 1;
	}
	return reg;
}

/* ---- the ways ---- */

static bool folds_by_line(void)
{
	return __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.2");
}

wfi_crc32c_fn *wfi_crc32c_machine(unsigned n)
{
	wfi_crc32c_fn *found[2];
	unsigned nr = 0;

	__builtin_cpu_init();
	if (folds_by_line())
		found[nr++] = folded;
	if (__builtin_cpu_supports("sse4.2"))
		found[nr++] = three_streams;
	return n < nr ? found[n] : NULL;
}

wfi_crc32c_copy_fn *wfi_crc32c_copy_machine(unsigned n)
{
	wfi_crc32c_copy_fn *found[4];
	unsigned nr = 0;

	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("sse4.2")) {
		if (__builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("pclmul"))
			found[nr++] = walked_256;
		if (folds_by_line()) {
			found[nr++] = walked_streamed;
			found[nr++] = straight_streamed;
		}
		found[nr++] = copy_streams;
	}
	return n < nr ? found[n] : NULL;
}

wfi_crc32c_copy_fn *wfi_crc32c_keep_machine(unsigned n)
{
	wfi_crc32c_copy_fn *const found[] = { straight_kept, walked_kept };

	__builtin_cpu_init();
	return folds_by_line() && n < sizeof(found) / sizeof(found[0]) ? found[n] : NULL;
}

wfi_crc32c_runs_fn *wfi_crc32c_runs_machine(void)
{
	__builtin_cpu_init();
	return folds_by_line() ? runs_straight : NULL;
}
