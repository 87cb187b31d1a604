/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/kvcache.h"

#define NR_TOKENS 5000u

static const struct weft_key no_key;

static bool same(const struct weft_key *a, const struct weft_key *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

static struct wfi_keyer keyer(uint32_t tokens_per_block)
{
	struct wfi_keyer k = { .tokens_per_block = tokens_per_block };

	for (uint8_t i = 0; i < sizeof(k.secret); i++)
		k.secret[i] = i;
	return k;
}

/* keys travel between nodes and stay on disks: what they are may not change unnoticed */
static void keys_are_what_they_were(void **state)
{
	const struct wfi_keyer k = keyer(2);
	const uint32_t tokens[2] = { 1, 2 };
	struct weft_key key;

	(void)state;
	wfi_key_block(&k, &no_key, tokens, &key);
	assert_int_equal(key.lo, 0x97527f91ae53a163);
	assert_int_equal(key.hi, 0xf857fc04c83229ec);
	wfi_key_bytes(&k, "abc", 3, &key);
	assert_int_equal(key.lo, 0xa0552f9cecd44897);
	assert_int_equal(key.hi, 0x189789e059e4b64e);
}

static void a_key_names_a_prefix(void **state)
{
	const struct wfi_keyer k = keyer(4);
	uint32_t tokens[4] = { 7, 8, 9, 10 };
	struct weft_key root, again, child, other;

	(void)state;
	wfi_key_block(&k, &no_key, tokens, &root);
	wfi_key_block(&k, &no_key, tokens, &again);
	assert_true(same(&root, &again));
	wfi_key_block(&k, &root, tokens, &child);
	assert_false(same(&root, &child));
	tokens[3]++;
	wfi_key_block(&k, &no_key, tokens, &other);
	assert_false(same(&root, &other));
	wfi_key_block(&k, &other, tokens, &again);
	assert_false(same(&child, &again));
}

static void each_token_counts_in_long_blocks(void **state)
{
	const struct wfi_keyer k = keyer(NR_TOKENS);
	uint32_t *tokens = calloc(NR_TOKENS, sizeof(*tokens));
	struct weft_key key, other;

	(void)state;
	assert_non_null(tokens);
	wfi_key_block(&k, &no_key, tokens, &key);
	for (uint32_t i = 0; i < NR_TOKENS; i += 499) {
		tokens[i] ^= 1;
		wfi_key_block(&k, &no_key, tokens, &other);
		assert_false(same(&key, &other));
		tokens[i] ^= 1;
	}
	free(tokens);
}

/* the same bytes hashed as tokens, or as a name, are not one key */
static void domains_do_not_meet(void **state)
{
	const struct wfi_keyer k = keyer(4);
	const uint32_t tokens[4] = { 1, 2, 3, 4 };
	uint8_t name[sizeof(no_key) + sizeof(tokens)] = { 0 };
	struct weft_key block, bytes;

	(void)state;
	memcpy(name + sizeof(no_key), tokens, sizeof(tokens));
	wfi_key_block(&k, &no_key, tokens, &block);
	wfi_key_bytes(&k, name, sizeof(name), &bytes);
	assert_false(same(&block, &bytes));
}

static void each_byte_counts(void **state)
{
	static const size_t lens[] = { 0, 1, 32, 255, 256, 257, 4000 };
	const struct wfi_keyer k = keyer(16);
	uint8_t name[4001] = { 0 };
	struct weft_key key, other;

	(void)state;
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		wfi_key_bytes(&k, name, lens[i], &key);
		assert_true(key.lo || key.hi);
		wfi_key_bytes(&k, name, lens[i] + 1, &other);
		assert_false(same(&key, &other));
		if (!lens[i])
			continue;
		name[lens[i] - 1] = 1;
		wfi_key_bytes(&k, name, lens[i], &other);
		assert_false(same(&key, &other));
		name[lens[i] - 1] = 0;
	}
}

static struct weft_space_opts geometry(void)
{
	return (struct weft_space_opts){
		.size = sizeof(struct weft_space_opts),
		.block_bytes = 4096,
		.model = "model",
		.layout = "layout",
		.tokens_per_block = 16,
		.nr_layers = 1,
	};
}

static void check_differs(const uint8_t salt[32], const struct weft_space_opts *other)
{
	const struct weft_space_opts base = geometry();
	const uint8_t base_salt[32] = { 1 };
	uint8_t a[16], b[16];

	wfi_space_secret(base_salt, &base, a);
	wfi_space_secret(salt, other, b);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_true(wfi_space_tag(base_salt, &base) != wfi_space_tag(salt, other));
}

static void a_secret_is_of_one_geometry(void **state)
{
	const uint8_t salt[32] = { 1 }, salt2[32] = { 2 };
	struct weft_space_opts o = geometry();

	(void)state;
	check_differs(salt2, &o);
	o.block_bytes *= 2;
	check_differs(salt, &o);
	o = geometry();
	o.tokens_per_block = 32;
	check_differs(salt, &o);
	o = geometry();
	o.nr_layers = 2;
	check_differs(salt, &o);
	o = geometry();
	o.dtype = WEFT_DTYPE_BF16;
	check_differs(salt, &o);
	/* what one name loses, the other gains */
	o = geometry();
	o.model = "modell";
	o.layout = "ayout";
	check_differs(salt, &o);
	o.model = "";
	o.layout = "modellayout";
	check_differs(salt, &o);
}

static void how_a_space_is_used_is_no_geometry(void **state)
{
	const uint8_t salt[32] = { 1 };
	struct weft_space_opts a = geometry(), b = geometry();
	uint8_t secret_a[16], secret_b[16];

	(void)state;
	b.verify = 1;
	b.max_blocks = 7;
	b.nr_layers = 0; /* means 1 */
	wfi_space_secret(salt, &a, secret_a);
	wfi_space_secret(salt, &b, secret_b);
	assert_memory_equal(secret_a, secret_b, sizeof(secret_a));
	assert_true(wfi_space_tag(salt, &a) == wfi_space_tag(salt, &b));
	assert_true(memcmp(&(uint64_t){ wfi_space_tag(salt, &a) }, secret_a, 8) != 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_what_they_were),
		cmocka_unit_test(a_key_names_a_prefix),
		cmocka_unit_test(each_token_counts_in_long_blocks),
		cmocka_unit_test(domains_do_not_meet),
		cmocka_unit_test(each_byte_counts),
		cmocka_unit_test(a_secret_is_of_one_geometry),
		cmocka_unit_test(how_a_space_is_used_is_no_geometry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
