/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels against references that go byte by byte and number by number. Outputs are poisoned
 * before each run: what was not written shows, and what was written beside it.
 *
 * Built twice: test_gpu_kernels runs them on the CPU as they are, gpu_real on a GPU.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/device.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/crc.h"
#include "tests/unit/gpu_side.h"
#include "tests/unit/layouts.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/util.h"

#define POISON 0xa5
#define LAYOUTS 10000
#define MAX_BLOCK 262144u
#define MAX_ITEMS 65536u
#define BLOCKS 3u
#define PLACES 5u /* that blocks may have */

#define rnd layouts_rnd

struct rig {
	struct wfi_env env;
	struct wfi_gpu *gpu;
	struct wfi_gpu_item *items;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	assert_int_equal(wfi_env_real_init(&r->env), 0);
	assert_int_equal(gpu_side_open(&r->env, &r->gpu), 0);
	r->items = gpu_side_alloc(MAX_ITEMS * sizeof(*r->items));
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	gpu_side_reset(0);
	gpu_side_close(r->gpu);
	free(r);
	return 0;
}

static void fill(void *mem, size_t len)
{
	uint8_t *p = mem;

	while (len--)
		*p++ = (uint8_t)rnd(256);
}

static struct wfi_gpu_table table_of(struct rig *r)
{
	return (struct wfi_gpu_table){ .items = r->items, .max = MAX_ITEMS };
}

/* ---- gather, scatter, change of layout ---- */

/* blocks in memory: BLOCKS of them in PLACES, by numbers, or the first ones in order */
struct side {
	uint8_t *mem;
	size_t len;
	uint32_t *index;
	struct wfi_gpu_side at;
};

static void side_init(struct side *s, uint64_t bytes, uint32_t skew, uint32_t unit)
{
	unsigned i, k;

	s->at.stride = bytes + unit * rnd(4);
	s->len = (PLACES - 1) * s->at.stride + bytes + skew;
	s->mem = gpu_side_alloc(s->len);
	s->at.base = (uintptr_t)s->mem + skew;
	s->index = gpu_side_alloc(PLACES * sizeof(*s->index));
	for (i = 0; i < PLACES; i++)
		s->index[i] = i;
	for (i = PLACES - 1; i > 0; i--) {
		uint32_t tmp = s->index[i];

		k = rnd(i + 1);
		s->index[i] = s->index[k];
		s->index[k] = tmp;
	}
	s->at.index = rnd(2) ? (uintptr_t)s->index : 0;
}

static uint8_t *side_block(const struct side *s, unsigned block)
{
	return (uint8_t *)(uintptr_t)s->at.base +
	       (s->at.index ? s->index[block] : block) * s->at.stride;
}

static uint64_t layout_bytes(const struct wfi_layout *l)
{
	uint64_t end = l->base + 1;

	for (unsigned d = 0; d < WFI_DIM_NR; d++)
		end += (l->extent[d] - 1) * l->stride[d];
	return end;
}

static void check_layouts(struct rig *r, const struct wfi_layout *a, const struct wfi_layout *b,
			  uint32_t unit, struct wfi_run *runs, uint32_t *from)
{
	const size_t mark = gpu_side_mark();
	struct wfi_gpu_table t = table_of(r);
	const uint64_t bytes = layout_bytes(b);
	struct side src, dst;
	uint8_t *want, *out;
	int nr, i;

	assert_true(bytes <= MAX_BLOCK);
	layouts_map(a, b, from, (uint32_t)bytes);
	nr = wfi_layout_plan(a, b, runs, MAX_ITEMS);
	assert_true(nr >= 0 && nr <= (int)MAX_ITEMS);
	for (i = 0; i < nr; i++)
		assert_int_equal(wfi_gpu_table_add(&t, runs[i].src, runs[i].dst, runs[i].len), 0);
	side_init(&src, wfi_align_up(layout_bytes(a), unit), unit * rnd(2), unit);
	side_init(&dst, wfi_align_up(bytes, unit), unit * rnd(2), unit);
	fill(src.mem, src.len);
	memset(dst.mem, POISON, dst.len);
	want = malloc(dst.len);
	assert_non_null(want);
	memset(want, POISON, dst.len);
	for (i = 0; i < (int)BLOCKS; i++) {
		out = want + (side_block(&dst, (unsigned)i) - dst.mem);
		for (uint64_t k = 0; k < bytes; k++)
			if (from[k])
				out[k] = side_block(&src, (unsigned)i)[from[k] - 1];
	}
	assert_int_equal(wfi_gpu_move(r->gpu, &t, &src.at, &dst.at, BLOCKS, NULL), 0);
	assert_int_equal(gpu_side_sync(r->gpu), 0);
	assert_memory_equal(dst.mem, want, dst.len);
	free(want);
	gpu_side_reset(mark);
}

static void test_layouts(void **state)
{
	static const uint32_t units[] = { 1, 2, 4, 8, 16, 16, 16 };
	struct rig *r = *state;
	struct wfi_run *runs = calloc(MAX_ITEMS, sizeof(*runs));
	uint32_t *from = calloc(MAX_BLOCK, sizeof(*from));
	struct wfi_layout a, b;

	assert_true(runs && from);
	for (unsigned i = 0; i < LAYOUTS; i++) {
		const uint32_t unit = units[rnd(WFI_ARRAY_SIZE(units))];

		layouts_pair(&a, &b, unit * (1 + rnd(8)), unit);
		check_layouts(r, &a, &b, unit, runs, from);
	}
	free(runs);
	free(from);
}

/* those that engines have, in full size, one per head of 128 numbers: bf16, then fp8 */
static void test_known_layouts(void **state)
{
	struct rig *r = *state;
	struct wfi_run *runs = calloc(MAX_ITEMS, sizeof(*runs));
	uint32_t *from = calloc(MAX_BLOCK, sizeof(*from));

	assert_true(runs && from);
	for (uint32_t bytes = 256; bytes >= 128; bytes /= 2) {
		struct wfi_layout nhd = {
			.extent = { 2, 2, 16, 8, bytes },
			.stride = { 256ull * bytes, 128ull * bytes, 8ull * bytes, bytes, 1 },
		};
		struct wfi_layout hnd = nhd, half = nhd, split = nhd, page = nhd;

		hnd.stride[WFI_DIM_HEAD] = 16ull * bytes;
		hnd.stride[WFI_DIM_TOKEN] = bytes;
		check_layouts(r, &nhd, &hnd, 16, runs, from);
		check_layouts(r, &hnd, &nhd, 16, runs, from);
		/* heads 4 to 7, as the second of two ranks has them */
		half.extent[WFI_DIM_HEAD] = 4;
		half.first_head = 4;
		half.stride[WFI_DIM_TOKEN] = 4ull * bytes;
		check_layouts(r, &nhd, &half, 16, runs, from);
		check_layouts(r, &half, &hnd, 16, runs, from);
		/* K of all layers, then V of all layers */
		split.stride[WFI_DIM_LAYER] = 128ull * bytes;
		split.stride[WFI_DIM_KV] = 256ull * bytes;
		check_layouts(r, &nhd, &split, 16, runs, from);
		/* into the second half of pages twice as long */
		page.extent[WFI_DIM_TOKEN] = 32;
		page.stride[WFI_DIM_KV] = 256ull * bytes;
		page.stride[WFI_DIM_LAYER] = 512ull * bytes;
		nhd.first_token = 16;
		check_layouts(r, &nhd, &page, 16, runs, from);
	}
	free(runs);
	free(from);
}

/* where no word fits, where some do, and one beside the other */
static void test_pieces(void **state)
{
	struct rig *r = *state;
	const size_t len = 200000;
	uint8_t *src = gpu_side_alloc(len), *dst = gpu_side_alloc(len), *want = malloc(len);

	assert_non_null(want);
	fill(src, len);
	for (unsigned round = 0; round < 2000; round++) {
		struct wfi_gpu_table t = table_of(r);
		const unsigned unit = 1u << rnd(5);
		size_t at = unit * rnd(20);

		memset(dst, POISON, len);
		memset(want, POISON, len);
		for (unsigned i = 0; i < 100; i++) {
			const size_t piece = unit * rnd(rnd(10) ? 300 / unit : 20000 / unit);
			const size_t from = unit * rnd((uint32_t)((len - piece) / unit) + 1);

			if (at + piece > len)
				break;
			memcpy(want + at, src + from, piece);
			assert_int_equal(wfi_gpu_table_add(&t, (uintptr_t)src + from,
							   (uintptr_t)dst + at, piece),
					 0);
			at += piece + unit * rnd(3);
		}
		assert_int_equal(wfi_gpu_move(r->gpu, &t, NULL, NULL, 0, NULL), 0);
		assert_int_equal(gpu_side_sync(r->gpu), 0);
		assert_memory_equal(dst, want, len);
	}
	free(want);
}

/* whole blocks, of lengths that are words and others */
static void test_blocks(void **state)
{
	struct rig *r = *state;

	for (uint32_t len = 1; len < 40000; len += 1 + rnd(300)) {
		const uint32_t unit = rnd(2) ? 16 : 1;
		const uint32_t bytes = unit == 16 ? (uint32_t)wfi_align_up(len, 16) : len;
		const size_t mark = gpu_side_mark();
		struct side src, dst;
		uint8_t *want;

		side_init(&src, bytes, unit * rnd(2), unit);
		side_init(&dst, bytes, unit * rnd(2), unit);
		fill(src.mem, src.len);
		memset(dst.mem, POISON, dst.len);
		want = malloc(dst.len);
		assert_non_null(want);
		memset(want, POISON, dst.len);
		for (unsigned i = 0; i < BLOCKS; i++)
			memcpy(want + (side_block(&dst, i) - dst.mem), side_block(&src, i), bytes);
		assert_int_equal(wfi_gpu_move_blocks(r->gpu, &src.at, &dst.at, bytes, BLOCKS, NULL),
				 0);
		assert_int_equal(gpu_side_sync(r->gpu), 0);
		assert_memory_equal(dst.mem, want, dst.len);
		free(want);
		gpu_side_reset(mark);
	}
}

/* through a stage to the host, and from there to other places; more than fits in it at a time */
static void test_stage(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_stage *stage;

	assert_int_equal(wfi_gpu_stage_create(r->gpu, 5000, &stage), 0);
	for (uint32_t len = 1; len <= 5000; len += 1 + rnd(200)) {
		const size_t mark = gpu_side_mark();
		uint8_t *host = gpu_side_alloc(BLOCKS * len);
		struct side src, dst;

		side_init(&src, len, 0, 1);
		side_init(&dst, len, 0, 1);
		fill(src.mem, src.len);
		memset(dst.mem, POISON, dst.len);
		memset(host, POISON, BLOCKS * len);
		assert_int_equal(wfi_gpu_to_host(stage, &src.at, len, BLOCKS, host, NULL), 0);
		/* in the order of the stream */
		assert_int_equal(wfi_gpu_from_host(stage, host, &dst.at, len, BLOCKS, NULL), 0);
		assert_int_equal(gpu_side_sync(r->gpu), 0);
		for (unsigned i = 0; i < BLOCKS; i++) {
			assert_memory_equal(host + i * len, side_block(&src, i), len);
			assert_memory_equal(side_block(&dst, i), side_block(&src, i), len);
		}
		gpu_side_reset(mark);
	}
	wfi_gpu_stage_destroy(stage);
}

/* every length of equal pieces up to the longest: the division of words among them is exact */
static void test_even(void **state)
{
	struct rig *r = *state;
	const uint32_t nr = 37;
	uint8_t *src = gpu_side_alloc(nr * WFI_GPU_ITEM_MAX);
	uint8_t *dst = gpu_side_alloc(nr * WFI_GPU_ITEM_MAX);

	fill(src, nr * WFI_GPU_ITEM_MAX);
	for (uint32_t len = 16; len <= WFI_GPU_ITEM_MAX; len += 16) {
		struct wfi_gpu_table t = table_of(r);

		memset(dst, POISON, nr * len);
		for (uint32_t i = 0; i < nr; i++)
			assert_int_equal(wfi_gpu_table_add(&t, (uintptr_t)src + i * len,
							   (uintptr_t)dst + (nr - 1 - i) * len,
							   len),
					 0);
		assert_int_equal(t.nr, nr);
		assert_int_equal(wfi_gpu_move(r->gpu, &t, NULL, NULL, 0, NULL), 0);
		assert_int_equal(gpu_side_sync(r->gpu), 0);
		for (uint32_t i = 0; i < nr; i++)
			assert_memory_equal(src + i * len, dst + (nr - 1 - i) * len, len);
	}
}

/* ---- sums ---- */

static void check_sums(struct rig *r, uint64_t len, unsigned skew)
{
	const uint32_t nr_powers = wfi_gpu_sums_len(len);
	const size_t mark = gpu_side_mark();
	uint32_t *out = gpu_side_alloc((BLOCKS + 1) * sizeof(*out));
	uint32_t *powers = gpu_side_alloc(nr_powers * sizeof(*powers));
	struct wfi_gpu_sums sums;
	struct side src;

	side_init(&src, len, skew, skew ? 1 : 16);
	fill(src.mem, src.len);
	memset(out, POISON, (BLOCKS + 1) * sizeof(*out));
	wfi_gpu_sums_init(&sums, len, powers);
	assert_int_equal(wfi_gpu_crc32c(r->gpu, &sums, &src.at, BLOCKS, (uintptr_t)out, NULL), 0);
	assert_int_equal(gpu_side_sync(r->gpu), 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_int_equal(out[i], wfi_crc32c(0, side_block(&src, i), len));
	assert_int_equal(out[BLOCKS], 0xa5a5a5a5);
	gpu_side_reset(mark);
}

/* a block cut anywhere: its parts come in any order, and lie anywhere */
static void check_parts(struct rig *r, uint64_t len)
{
	const size_t mark = gpu_side_mark();
	uint32_t *powers = gpu_side_alloc(wfi_gpu_sums_len(WFI_GPU_ITEM_MAX) * sizeof(*powers));
	struct wfi_gpu_part *parts = gpu_side_alloc(64 * sizeof(*parts));
	uint8_t *mem = gpu_side_alloc(len);
	uint64_t left = len, part;
	struct wfi_gpu_sums sums;
	uint32_t nr = 0, sum;

	fill(mem, len);
	wfi_gpu_sums_init(&sums, WFI_GPU_ITEM_MAX, powers);
	for (; left; nr++, left -= part) {
		part = nr == 63 ? left : wfi_min(left, 1 + rnd(len / 16 + 1));
		parts[nr] = (struct wfi_gpu_part){
			.src = (uintptr_t)mem + left - part,
			.len = (uint32_t)part,
			.power = wfi_crc32c_power(len - left),
			.sum = POISON,
			.block = nr,
		};
	}
	assert_int_equal(wfi_gpu_crc32c_parts(r->gpu, &sums, parts, nr, NULL), 0);
	assert_int_equal(gpu_side_sync(r->gpu), 0);
	sum = wfi_gpu_sums_tail(len);
	for (uint32_t i = 0; i < nr; i++) {
		sum ^= parts[i].sum;
		assert_int_equal(parts[i].block, i);
	}
	assert_int_equal(sum, wfi_crc32c(0, mem, len));
	gpu_side_reset(mark);
}

static void check_sums_all(struct rig *r)
{
	static const uint64_t lens[] = {
		4096, 8191, 32768, 65535, 65536, 65537, 65552, 131072, 200000, 3 * 65536 + 512,
	};

	for (uint64_t len = 1; len < 1100; len += 1 + rnd(7))
		check_sums(r, len, rnd(16));
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(lens); i++) {
		check_sums(r, lens[i], 0);
		check_sums(r, lens[i], 1 + rnd(15));
		check_parts(r, lens[i]);
		check_parts(r, 1 + rnd(2000));
	}
	assert_int_equal(wfi_gpu_crc32c_parts(r->gpu, NULL, NULL, 0, NULL), 0);
}

static void test_sums(void **state)
{
	check_sums_all(*state);
}

/* with a quarter of the tables, as GPUs with less shared memory have it */
static void test_sums_small(void **state)
{
	struct rig *r = *state;
	struct wfi_gpu_func *f = r->gpu->kernels;

	f[WFI_GPU_CRC].name = "weft_crc32c_small";
	f[WFI_GPU_CRC_PARTS].name = "weft_crc32c_parts_small";
	for (unsigned i = WFI_GPU_CRC; i <= WFI_GPU_CRC_PARTS; i++) {
		f[i].shared = WFI_CRC_TABLE * 4 << 3;
		assert_int_equal(r->gpu->cuda->cuModuleGetFunction(&f[i].func, r->gpu->module,
								   f[i].name),
				 0);
	}
	check_sums_all(r);
}

/* ---- casts ---- */

/* what a code of e4m3 says, by its definition */
static double e4m3_value(unsigned code)
{
	const double sign = code & 0x80 ? -1 : 1;
	const int exponent = code >> 3 & 15, mantissa = code & 7;

	if ((code & 0x7f) == 0x7f)
		return NAN;
	if (!exponent)
		return sign * ldexp(mantissa, -9);
	return sign * ldexp(8 + mantissa, exponent - 10);
}

/* the nearest code, the even one of two */
static unsigned e4m3_nearest(double x)
{
	unsigned best = 0, code;

	for (code = 0; code < 0x7f; code++) {
		const double off = fabs(e4m3_value(code) - fabs(x));
		const double least = fabs(e4m3_value(best) - fabs(x));

		if (off < least || (off == least && !(code & 1)))
			best = code;
	}
	return best | (signbit(x) ? 0x80 : 0);
}

static void test_e4m3(void **state)
{
	unsigned code, i;
	float x;

	(void)state;
	for (code = 0; code < 256; code++) {
		x = wfi_e4m3_value_soft(code);
		if (isnan(e4m3_value(code))) {
			assert_true(isnan(x));
			continue;
		}
		assert_true((double)x == e4m3_value(code) && !signbit(x) == !(code & 0x80));
		assert_int_equal(wfi_e4m3_soft(x), code);
	}
	/* half way between two codes, and a little on either side */
	for (code = 0; code < 0x7e; code++) {
		x = (float)(e4m3_value(code) + e4m3_value(code + 1)) / 2;
		assert_int_equal(wfi_e4m3_soft(x), e4m3_nearest(x));
		assert_int_equal(wfi_e4m3_soft(nextafterf(x, 0)), code);
		assert_int_equal(wfi_e4m3_soft(nextafterf(x, 500)), code + 1);
		assert_int_equal(wfi_e4m3_soft(-x), e4m3_nearest(-x));
	}
	for (i = 0; i < 20000; i++) {
		x = (float)(ldexp(rnd(1u << 24), (int)rnd(20) - 34) * 448);
		assert_int_equal(wfi_e4m3_soft(x), e4m3_nearest(x));
	}
	assert_int_equal(wfi_e4m3_soft(449), 0x7e);
	assert_int_equal(wfi_e4m3_soft(-1e30f), 0xfe);
	assert_int_equal(wfi_e4m3_soft(INFINITY), 0x7f);
	assert_int_equal(wfi_e4m3_soft(-0.0f), 0x80);
}

static float bf16_value(uint16_t bits)
{
	const uint32_t wide = (uint32_t)bits << 16;
	float f;

	memcpy(&f, &wide, sizeof(f));
	return f;
}

/* there and back, within what cast.h promises */
static void check_cast(struct rig *r, const struct wfi_gpu_cast *cast, uint16_t (*number)(unsigned))
{
	const unsigned numbers = cast->nr_groups * cast->group;
	const size_t mark = gpu_side_mark();
	struct side wide, narrow, back;
	unsigned b, i;

	side_init(&wide, 2 * numbers, 0, 16);
	side_init(&back, 2 * numbers, 0, 16);
	side_init(&narrow, wfi_align_up(wfi_gpu_narrow_bytes(cast), 16), 0, 16);
	memset(wide.mem, 0, wide.len);
	memset(narrow.mem, POISON, narrow.len);
	memset(back.mem, POISON, back.len);
	for (b = 0; b < BLOCKS; b++)
		for (i = 0; i < numbers; i++)
			((uint16_t *)side_block(&wide, b))[i] = number(b * numbers + i);
	assert_int_equal(wfi_gpu_narrow(r->gpu, cast, &wide.at, &narrow.at, BLOCKS, NULL), 0);
	assert_int_equal(gpu_side_sync(r->gpu), 0);
	assert_int_equal(wfi_gpu_widen(r->gpu, cast, &narrow.at, &back.at, BLOCKS, NULL), 0);
	assert_int_equal(gpu_side_sync(r->gpu), 0);
	for (b = 0; b < BLOCKS; b++) {
		const uint16_t *in = (uint16_t *)side_block(&wide, b);
		const uint16_t *out = (uint16_t *)side_block(&back, b);
		const float *scales = (float *)(side_block(&narrow, b) + numbers);

		for (i = 0; i < numbers; i++) {
			const float x = bf16_value(in[i]), y = bf16_value(out[i]);
			const double s = (double)scales[i / cast->group];
			const double bound = fmax(fabs((double)x) / 16, s / 1024);

			if (!isfinite(x)) {
				assert_true(isnan(y));
				continue;
			}
			assert_true(fabs((double)y - (double)x) <= bound + fabs((double)x) / 256);
			assert_true(s >= 1.17e-38 && s <= 8e35);
		}
	}
	/* nothing beside the blocks */
	for (i = 0; !narrow.at.index && i < narrow.at.stride - wfi_gpu_narrow_bytes(cast); i++)
		assert_int_equal(side_block(&narrow, 0)[wfi_gpu_narrow_bytes(cast) + i], POISON);
	gpu_side_reset(mark);
}

static uint16_t any_bf16(unsigned i)
{
	(void)i;
	return (uint16_t)rnd(65536);
}

static uint16_t all_bf16(unsigned i)
{
	return (uint16_t)(i * 40503u); /* odd: each of the 65536 once */
}

/* as KV caches have them */
static uint16_t usual_bf16(unsigned i)
{
	(void)i;
	return (uint16_t)(0x3c00 + rnd(0x500) + (rnd(2) << 15));
}

static uint16_t zero(unsigned i)
{
	return i & 1 ? 0x8000 : 0;
}

static uint16_t least(unsigned i)
{
	return (uint16_t)(i & 3);
}

static void test_cast(void **state)
{
	struct rig *r = *state;

	for (uint32_t group = 32; group <= 256; group *= 2) {
		const struct wfi_gpu_cast all = { .nr_groups = 65536 / group, .group = group };

		for (uint32_t nr_groups = 1; nr_groups < 70; nr_groups += 1 + rnd(9)) {
			const struct wfi_gpu_cast cast = { nr_groups, group };

			check_cast(r, &cast, any_bf16);
			check_cast(r, &cast, usual_bf16);
			check_cast(r, &cast, zero);
			check_cast(r, &cast, least);
		}
		check_cast(r, &all, all_bf16);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

/* gpu_real [TEST]: one of them, or those that a pattern with '*' and '?' fits */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(layouts), TEST(known_layouts), TEST(pieces),     TEST(blocks), TEST(stage),
		TEST(even),    TEST(sums),	    TEST(sums_small), TEST(e4m3),   TEST(cast),
	};
	const char *why = gpu_side_missing();

	if (why) {
		printf("%s\n", why);
		return 77;
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
