/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/crc32c_private.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/xfer.h"

#define RUNS 40u
#define BUF_BYTES (64u << 10)
#define WALK_BYTES (600u << 10) /* more than any way walks at once */

static uint64_t rnd_state = 20240607;

/* splitmix64 */
static uint64_t rnd(void)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static uint8_t *random_bytes(size_t len)
{
	uint8_t *buf = malloc(len);

	assert_non_null(buf);
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)rnd();
	return buf;
}

/* RFC 3720, appendix B.4, and the check value of the catalogues */
static void known_vectors(void **state)
{
	static const uint8_t read_pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,	   0, 0, 0, 0,
		0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
		0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,	   0, 0, 0, 0,
	};
	uint8_t buf[32];

	(void)state;
	assert_int_equal(wfi_crc32c(0, "123456789", 9), 0xe3069283);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(wfi_crc32c(0, buf, sizeof(buf)), 0x8a9136aa);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(wfi_crc32c(0, buf, sizeof(buf)), 0x62a8ab43);
	for (uint8_t i = 0; i < sizeof(buf); i++)
		buf[i] = i;
	assert_int_equal(wfi_crc32c(0, buf, sizeof(buf)), 0x46dd794e);
	for (uint8_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(31 - i);
	assert_int_equal(wfi_crc32c(0, buf, sizeof(buf)), 0x113fdb5c);
	assert_int_equal(wfi_crc32c(0, read_pdu, sizeof(read_pdu)), 0xd9963a56);
	assert_int_equal(wfi_crc32c(0, NULL, 0), 0);
}

static uint32_t bit_by_bit(uint32_t reg, const uint8_t *buf, size_t len)
{
	while (len--) {
		reg ^= *buf++;
		for (unsigned bit = 0; bit < 8; bit++)
			reg = reg >> 1 ^ (reg & 1 ? 0x82f63b78u : 0);
	}
	return reg;
}

/* each way that this machine has, at odd lengths and addresses, against the definition */
static void all_ways_agree(void **state)
{
	uint8_t *buf = random_bytes(BUF_BYTES);

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		const size_t off = rnd() % 200;
		const size_t len = rnd() % (round % 8 ? 1200 : BUF_BYTES - 200);
		const uint32_t reg = (uint32_t)rnd();
		const uint32_t expected = bit_by_bit(reg, buf + off, len);

		assert_int_equal(wfi_crc32c_portable(reg, buf + off, len), expected);
		for (unsigned n = 0; wfi_crc32c_machine(n); n++)
			assert_int_equal(wfi_crc32c_machine(n)(reg, buf + off, len), expected);
	}
	free(buf);
}

/* a copy gives the bytes and their CRC, and touches nothing beside them */
static void copies_are_summed(void **state)
{
	uint8_t *src = random_bytes(BUF_BYTES), *dst = malloc(BUF_BYTES);

	(void)state;
	assert_non_null(dst);
	for (unsigned round = 0; round < 400; round++) {
		const size_t from = rnd() % 200, to = 8 + rnd() % 200;
		const size_t len = rnd() % (round % 4 ? 3000 : BUF_BYTES - 300);
		const uint32_t crc = (uint32_t)rnd();

		memset(dst, 0x5a, BUF_BYTES);
		assert_int_equal(wfi_crc32c_copy(crc, dst + to, src + from, len, round & 1),
				 wfi_crc32c(crc, src + from, len));
		assert_memory_equal(dst + to, src + from, len);
		for (size_t i = 0; i < 8; i++) {
			assert_int_equal(dst[to - 8 + i], 0x5a);
			assert_int_equal(dst[to + len + i], 0x5a);
		}
	}
	free(src);
	free(dst);
}

/* runs that lie apart have the sum of the bytes that they are, whatever their lengths */
static void runs_are_summed(void **state)
{
	uint8_t *src = random_bytes(BUF_BYTES), *dst = malloc(BUF_BYTES);
	struct wfi_copy_run runs[RUNS];

	(void)state;
	assert_non_null(dst);
	for (unsigned round = 0; round < 400; round++) {
		const unsigned nr = 1 + rnd() % RUNS;
		const uint32_t crc = (uint32_t)rnd();
		uint32_t expected = crc;
		size_t at = 8;

		memset(dst, 0x5a, BUF_BYTES);
		for (unsigned i = 0; i < nr; i++) {
			const size_t len = round % 4 ? 256 * (rnd() % 5) : rnd() % 1200;

			runs[i] = (struct wfi_copy_run){ dst + at, src + rnd() % 4096, len };
			expected = wfi_crc32c(expected, runs[i].src, len);
			at += len + 8;
		}
		assert_true(at < BUF_BYTES);
		assert_int_equal(wfi_crc32c_sums.copy_runs(crc, runs, nr), expected);
		for (unsigned i = 0; i < nr; i++) {
			const uint8_t *end = (uint8_t *)runs[i].dst + runs[i].len;

			assert_memory_equal(runs[i].dst, runs[i].src, runs[i].len);
			for (size_t k = 0; k < 8; k++)
				assert_int_equal(end[k], 0x5a);
		}
	}
	free(src);
	free(dst);
}

/* each way to copy that this machine has, of lengths around those of its walks */
static void ways_agree(wfi_crc32c_copy_fn *(*machine)(unsigned n))
{
	uint8_t *src = random_bytes(WALK_BYTES), *dst = malloc(WALK_BYTES);

	assert_non_null(dst);
	for (unsigned round = 0; round < 120; round++) {
		const size_t from = rnd() % 64, to = rnd() % 64;
		const size_t len = rnd() % ((round % 2 ? WALK_BYTES : 40u << 10) - 64);
		const uint32_t reg = (uint32_t)rnd();
		const uint32_t expected = wfi_crc32c_portable(reg, src + from, len);

		for (unsigned n = 0; machine(n); n++) {
			memset(dst, 0x5a, WALK_BYTES);
			assert_int_equal(machine(n)(reg, dst + to, src + from, len), expected);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			assert_memory_equal(dst + to, src + from, len);
			assert_true(!to || dst[to - 1] == 0x5a);
			assert_int_equal(dst[to + len], 0x5a);
		}
	}
	free(src);
	free(dst);
}

static void streams_agree(void **state)
{
	(void)state;
	ways_agree(wfi_crc32c_copy_machine);
}

static void kept_copies_agree(void **state)
{
	(void)state;
	ways_agree(wfi_crc32c_keep_machine);
}

static void chains_and_combines(void **state)
{
	uint8_t *buf = random_bytes(BUF_BYTES);

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		const size_t len = rnd() % BUF_BYTES, cut = len ? rnd() % len : 0;
		const uint32_t a = wfi_crc32c(0, buf, cut);
		const uint32_t b = wfi_crc32c(0, buf + cut, len - cut);
		const uint32_t whole = wfi_crc32c(0, buf, len);

		assert_int_equal(wfi_crc32c(a, buf + cut, len - cut), whole);
		assert_int_equal(wfi_crc32c_combine(a, b, len - cut), whole);
	}
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_vectors),       cmocka_unit_test(all_ways_agree),
		cmocka_unit_test(copies_are_summed),   cmocka_unit_test(runs_are_summed),
		cmocka_unit_test(streams_agree),       cmocka_unit_test(kept_copies_agree),
		cmocka_unit_test(chains_and_combines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
