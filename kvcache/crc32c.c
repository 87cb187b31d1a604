/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <string.h>
#include "kvcache/crc32c_private.h"
#include "weft_internal/kvcache.h"

#define NR_SLICES 8
#define BOUNCE_BYTES 6144u /* two turns of the three streams of crc32c_x86.c */
#define TRY_PIECE (64u << 10) /* of a trial, which has a multiple of it */
#define MAX_WAYS 8u /* to copy around the cache */
#define KEEP_BYTES (8ull << 20) /* what a cache of third level has room for beside other things */

static uint32_t slices[NR_SLICES][256];
static pthread_once_t slices_once = PTHREAD_ONCE_INIT;

static void slices_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t reg = i;

		for (unsigned bit = 0; bit < 8; bit++)
			reg = reg >> 1 ^ (reg & 1 ? WFI_CRC32C_POLY : 0);
		slices[0][i] = reg;
	}
	for (unsigned s = 1; s < NR_SLICES; s++)
		for (unsigned i = 0; i < 256; i++)
			slices[s][i] = slices[s - 1][i] >> 8 ^ slices[0][slices[s - 1][i] & 0xff];
}

uint32_t wfi_crc32c_portable(uint32_t reg, const uint8_t *buf, size_t len)
{
	uint64_t word;

	pthread_once(&slices_once, slices_init);
	for (; len >= sizeof(word); len -= sizeof(word), buf += sizeof(word)) {
		memcpy(&word, buf, sizeof(word));
		word ^= reg;
		reg = slices[7][word & 0xff] ^ slices[6][word >> 8 & 0xff] ^
		      slices[5][word >> 16 & 0xff] ^ slices[4][word >> 24 & 0xff] ^
		      slices[3][word >> 32 & 0xff] ^ slices[2][word >> 40 & 0xff] ^
		      slices[1][word >> 48 & 0xff] ^ slices[0][word >> 56];
	}
	while (len--)
		reg = reg >> 8 ^ slices[0][(reg ^ *buf++) & 0xff];
	return reg;
}

static wfi_crc32c_fn resolve;
static wfi_crc32c_fn *best = resolve;

/* all who come first find the same, so that it does not matter who stores it */
static uint32_t resolve(uint32_t reg, const uint8_t *buf, size_t len)
{
	wfi_crc32c_fn *fn = wfi_crc32c_machine(0);

	if (!fn)
		fn = wfi_crc32c_portable;
	__atomic_store_n(&best, fn, __ATOMIC_RELAXED);
	return fn(reg, buf, len);
}

uint32_t wfi_crc32c(uint32_t crc, const void *buf, size_t len)
{
	return ~__atomic_load_n(&best, __ATOMIC_RELAXED)(~crc, buf, len);
}

/* while it is in the cache of first level; what is summed up is what is written */
static uint32_t copy_bounced(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	wfi_crc32c_fn *fn = __atomic_load_n(&best, __ATOMIC_RELAXED);
	uint8_t buf[BOUNCE_BYTES];
	size_t n;

	for (; len; len -= n, dst += n, src += n) {
		n = len < sizeof(buf) ? len : sizeof(buf);
		memcpy(buf, src, n);
		reg = fn(reg, buf, n);
		memcpy(dst, buf, n);
	}
	return reg;
}

static wfi_crc32c_copy_fn resolve_stream;
static wfi_crc32c_copy_fn *best_stream = resolve_stream;

static uint32_t resolve_stream(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	wfi_crc32c_copy_fn *fn = wfi_crc32c_copy_machine(0);

	if (!fn)
		fn = copy_bounced;
	__atomic_store_n(&best_stream, fn, __ATOMIC_RELAXED);
	return fn(reg, dst, src, len);
}

static wfi_crc32c_copy_fn resolve_keep;
static wfi_crc32c_copy_fn *best_keep = resolve_keep;

static uint32_t resolve_keep(uint32_t reg, uint8_t *dst, const uint8_t *src, size_t len)
{
	wfi_crc32c_copy_fn *fn = wfi_crc32c_keep_machine(0);

	if (!fn)
		fn = copy_bounced;
	__atomic_store_n(&best_keep, fn, __ATOMIC_RELAXED);
	return fn(reg, dst, src, len);
}

/* as blocks come: a way that walks several places of a piece takes its time at both ends of each */
static uint32_t try_pieces(wfi_crc32c_copy_fn *fn, uint32_t sum, uint8_t *dst, const uint8_t *src,
			   size_t len)
{
	for (size_t at = 0; at < len; at += TRY_PIECE)
		sum = fn(sum, dst + at, src + at, TRY_PIECE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return sum;
}

static void try_way(void *ctx, unsigned way, void *dst, const void *src, size_t len)
{
	uint32_t *sum = ctx;

	*sum = try_pieces(wfi_crc32c_copy_machine(way), *sum, dst, src, len);
}

/* into the cache in one of several ways, or, behind those, around it; and then read, as who asked
 * for it will: to a target that was in no cache, and to the same one again */
static void try_landing(void *ctx, unsigned way, void *dst, const void *src, size_t len)
{
	wfi_crc32c_copy_fn *fn = wfi_crc32c_keep_machine(way);
	uint32_t *sum = ctx;

	if (!fn)
		fn = __atomic_load_n(&best_stream, __ATOMIC_RELAXED);
	for (size_t at = 0; at < len; at += len / 2) {
		*sum = try_pieces(fn, *sum, dst, (const uint8_t *)src + at, len / 2);
		*sum = wfi_crc32c(*sum, dst, len / 2);
	}
}

static uint64_t keeps_bytes;

static uint64_t keeps(void)
{
	return __atomic_load_n(&keeps_bytes, __ATOMIC_RELAXED);
}

/* Return: how many ways there are to @machine */
static unsigned ways(wfi_crc32c_copy_fn *(*machine)(unsigned n))
{
	unsigned nr = 0;

	while (nr < MAX_WAYS && machine(nr))
		nr++;
	return nr;
}

static void pick_keep(struct wfi_env *env)
{
	const unsigned nr = ways(wfi_crc32c_keep_machine);
	uint64_t best_ns[MAX_WAYS + 1];
	unsigned i, pick = 0;
	uint32_t sum = 0;

	if (!nr)
		return;
	if (wfi_copy_race(env, nr + 1, try_landing, &sum, best_ns) < nr)
		__atomic_store_n(&keeps_bytes, KEEP_BYTES, __ATOMIC_RELAXED);
	/* short pieces are kept in any case */
	for (i = 1; i < nr; i++)
		if (best_ns[i] < best_ns[pick])
			pick = i;
	__atomic_store_n(&best_keep, wfi_crc32c_keep_machine(pick), __ATOMIC_RELAXED);
}

void wfi_crc32c_pick(struct wfi_env *env)
{
	static bool picked;
	const unsigned nr = ways(wfi_crc32c_copy_machine);
	uint64_t best_ns[MAX_WAYS];
	uint32_t sum = 0;

	if (nr < 2 || __atomic_exchange_n(&picked, true, __ATOMIC_RELAXED))
		return;
	/* constants: it does not matter whose choice stays, nor is anything read through them */
	__atomic_store_n(&best_stream,
			 wfi_crc32c_copy_machine(wfi_copy_race(env, nr, try_way, &sum, best_ns)),
			 __ATOMIC_RELAXED);
	pick_keep(env);
}

uint32_t wfi_crc32c_copy(uint32_t crc, void *dst, const void *src, size_t len, bool stream)
{
	wfi_crc32c_copy_fn *const *fn = stream ? &best_stream : &best_keep;

	return ~__atomic_load_n(fn, __ATOMIC_RELAXED)(~crc, dst, src, len);
}

static uint32_t runs_one_by_one(uint32_t reg, const struct wfi_copy_run *runs, unsigned nr)
{
	for (; nr--; runs++)
		reg = ~wfi_crc32c_copy(~reg, runs->dst, runs->src, runs->len, false);
	return reg;
}

static wfi_crc32c_runs_fn resolve_runs;
static wfi_crc32c_runs_fn *best_runs = resolve_runs;

static uint32_t resolve_runs(uint32_t reg, const struct wfi_copy_run *runs, unsigned nr)
{
	wfi_crc32c_runs_fn *fn = wfi_crc32c_runs_machine();

	if (!fn)
		fn = runs_one_by_one;
	__atomic_store_n(&best_runs, fn, __ATOMIC_RELAXED);
	return fn(reg, runs, nr);
}

static uint32_t copy_runs(uint32_t crc, const struct wfi_copy_run *runs, unsigned nr)
{
	return ~__atomic_load_n(&best_runs, __ATOMIC_RELAXED)(~crc, runs, nr);
}

static uint32_t past(uint32_t sum, uint64_t len)
{
	return len ? wfi_crc32c_mul(sum, wfi_crc32c_power(len)) : sum;
}

const struct wfi_sum_ops wfi_crc32c_sums = {
	.sum = wfi_crc32c,
	.copy = wfi_crc32c_copy,
	.copy_runs = copy_runs,
	.past = past,
	.keeps = keeps,
};

uint32_t wfi_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
	return wfi_crc32c_mul(crc_a, wfi_crc32c_power(len_b)) ^ crc_b;
}
