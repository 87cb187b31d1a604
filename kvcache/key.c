/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <string.h>
#include "weft_internal/kvcache.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys are made of little-endian values");
static_assert(crypto_shorthash_siphashx24_BYTES == sizeof(struct weft_key), "a key is one hash");
static_assert(crypto_shorthash_siphashx24_KEYBYTES == 16, "a secret is one key");

/* first byte of all that is hashed: a key of one kind is never one of another */
enum key_domain {
	KEY_TOKENS = 1, /* the last tokens of a block, after what is before them */
	KEY_TOKENS_MORE = 2, /* tokens of a block that others of it follow */
	KEY_BYTES = 3,
	KEY_BYTES_LONG = 4,
};

#define PIECE_TOKENS 1024u
#define PIECE_BYTES 256u

static void hash(const struct wfi_keyer *k, const void *msg, size_t len, struct weft_key *out)
{
	unsigned char sum[crypto_shorthash_siphashx24_BYTES];

	crypto_shorthash_siphashx24(sum, msg, len, k->secret);
	memcpy(out, sum, sizeof(*out));
	/* zero is no key */
	if (!out->lo && !out->hi)
		out->lo = 1;
}

void wfi_key_block(const struct wfi_keyer *k, const struct weft_key *parent, const uint32_t *tokens,
		   struct weft_key *out)
{
	uint8_t msg[1 + sizeof(*parent) + PIECE_TOKENS * sizeof(*tokens)];
	uint32_t left = k->tokens_per_block;
	struct weft_key key = *parent;
	uint32_t nr;

	do {
		nr = left < PIECE_TOKENS ? left : PIECE_TOKENS;
		left -= nr;
		msg[0] = left ? KEY_TOKENS_MORE : KEY_TOKENS;
		memcpy(msg + 1, &key, sizeof(key));
		if (nr)
			memcpy(msg + 1 + sizeof(key), tokens, nr * sizeof(*tokens));
		tokens += nr;
		hash(k, msg, 1 + sizeof(key) + nr * sizeof(*tokens), &key);
	} while (left);
	*out = key;
}

void wfi_key_bytes(const struct wfi_keyer *k, const void *buf, size_t len, struct weft_key *out)
{
	uint8_t msg[1 + PIECE_BYTES];

	if (len <= PIECE_BYTES) {
		msg[0] = KEY_BYTES;
		if (len)
			memcpy(msg + 1, buf, len);
		hash(k, msg, 1 + len, out);
		return;
	}
	msg[0] = KEY_BYTES_LONG;
	crypto_generichash(msg + 1, crypto_generichash_BYTES, buf, len, k->secret,
			   sizeof(k->secret));
	hash(k, msg, 1 + crypto_generichash_BYTES, out);
}

static void add_u64(crypto_generichash_state *state, uint64_t value)
{
	crypto_generichash_update(state, (const uint8_t *)&value, sizeof(value));
}

/* its length first, so that what ends in one field never looks like the start of the next */
static void add_string(crypto_generichash_state *state, const char *s)
{
	const size_t len = s ? strlen(s) : 0;

	add_u64(state, len);
	if (len)
		crypto_generichash_update(state, (const uint8_t *)s, len);
}

static void hash_space(const uint8_t salt[32], const char *purpose,
		       const struct weft_space_opts *opts, uint8_t out[16])
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, salt, 32, 16);
	add_string(&state, purpose);
	add_u64(&state, opts->block_bytes);
	add_u64(&state, opts->tokens_per_block);
	add_u64(&state, opts->nr_layers ? opts->nr_layers : 1);
	add_u64(&state, opts->dtype);
	add_string(&state, opts->model);
	add_string(&state, opts->layout);
	crypto_generichash_final(&state, out, 16);
}

void wfi_space_secret(const uint8_t salt[32], const struct weft_space_opts *opts, uint8_t out[16])
{
	hash_space(salt, "weft space secret 1", opts, out);
}

uint64_t wfi_space_tag(const uint8_t salt[32], const struct weft_space_opts *opts)
{
	uint8_t sum[16];
	uint64_t tag;

	hash_space(salt, "weft space tag 1", opts, sum);
	memcpy(&tag, sum, sizeof(tag));
	return tag;
}
