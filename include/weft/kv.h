/* SPDX-License-Identifier: Apache-2.0 */
/**
 * weft/kv.h - the nouns of the KV cache: keys, slots, places, spaces, block headers
 *
 * These structs lie in memory that two processes, or two nodes, share. All are little-endian,
 * have no padding, and their sizes and offsets are asserted. Nothing here does I/O.
 */
#ifndef WEFT_KV_H
#define WEFT_KV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define WEFT_STATIC_ASSERT static_assert
#else
#define WEFT_STATIC_ASSERT _Static_assert
#endif

/**
 * struct weft_key - 128-bit name of a block
 *
 * A key names a whole prefix: two blocks with one key hold the same tokens, after the same
 * tokens, in one space. Keys are made with a keyed hash (weft_key_chain(), weft_key_from_hash()),
 * so that they cannot be guessed outside the tenant. The all-zero key is no key (see
 * WEFT_KEY_NONE): it is the parent of the first block of a chain, and is refused elsewhere.
 */
struct weft_key {
	uint64_t lo;
	uint64_t hi;
};

/**
 * struct weft_slot - a place for one block in a space's pool, with its generation
 * @idx: number of the slot within its node; never an address
 * @gen: moves on each time the slot is reused; a stale pair is -ESTALE, never another block
 * @off: byte offset of the slot in the tenant's arena
 */
struct weft_slot {
	uint32_t idx;
	uint32_t gen;
	uint64_t off;
};

/**
 * struct weft_place - where bytes of one block lie in an engine's memory
 * @off: byte offset in the region
 * @region: number that weft_region_reg() gave; WEFT_REGION_ARENA is the arena itself
 * @len: bytes; 0 stands for the space's block size
 */
struct weft_place {
	uint64_t off;
	uint32_t region;
	uint32_t len;
};

#define WEFT_REGION_ARENA 0u

/**
 * struct weft_ticket - the right to push one handoff's blocks to the node that gave it
 * @node: id of the node that expects the blocks
 * @incarnation: of that node's life; a ticket dies with it
 * @handoff: index (low 32 bits) and generation (high 32 bits) of the handoff there
 * @secret: random; a push without it is refused with -EPERM
 * @nr_blocks: how many blocks are expected
 * @nr_layers: how many layers each block has
 * @expires_ns: wall-clock time (CLOCK_REALTIME) after which the ticket is refused
 * @nr_tokens: of a handoff that takes other layouts: how many its blocks hold; else 0
 *
 * Opaque to engines: decode's engine gets it, the router carries it to prefill's engine.
 */
struct weft_ticket {
	uint64_t node;
	uint64_t incarnation;
	uint64_t handoff;
	uint64_t secret[2];
	uint32_t nr_blocks;
	uint32_t nr_layers;
	uint64_t expires_ns;
	uint64_t nr_tokens;
};

/**
 * struct weft_layout - where the elements of a block lie in it
 * @nr_layers: layers of a block
 * @nr_kv: 2: keys and values; 1: one of them
 * @nr_tokens: tokens of a block
 * @nr_heads: KV heads
 * @head_bytes: of one token's vector of one head; contiguous
 * @first_kv: 0: keys, or both; 1: values alone
 * @first_head: which of the model's heads is the first here: of rank r of n, r * heads / n
 * @base: bytes from the start of the slot to the first element
 * @layer_stride, @kv_stride, @token_stride, @head_stride: bytes from one to the next
 *
 * E.g. NHD, both in one slot: token_stride = nr_heads * head_bytes, head_stride = head_bytes,
 * kv_stride = nr_tokens * token_stride, layer_stride = 2 * kv_stride. HND: head_stride = nr_tokens
 * * head_bytes, token_stride = head_bytes. A part of a block is a layout, too: some heads of one
 * that has more, say, with .base at the first of them.
 */
struct weft_layout {
	uint32_t nr_layers;
	uint32_t nr_kv;
	uint32_t nr_tokens;
	uint32_t nr_heads;
	uint32_t head_bytes;
	uint32_t first_kv;
	uint32_t first_head;
	uint32_t reserved;
	uint64_t base;
	uint64_t layer_stride;
	uint64_t kv_stride;
	uint64_t token_stride;
	uint64_t head_stride;
	uint64_t reserved2;
};

enum weft_dtype {
	WEFT_DTYPE_OPAQUE = 0, /* bytes, as the engine likes */
	WEFT_DTYPE_F32 = 1,
	WEFT_DTYPE_F16 = 2,
	WEFT_DTYPE_BF16 = 3,
	WEFT_DTYPE_FP8_E4M3 = 4,
	WEFT_DTYPE_FP8_E5M2 = 5,
	WEFT_DTYPE_INT8 = 6,
};

#define WEFT_NAME_MAX 128 /* bytes of a name, its terminating zero included */

/**
 * struct weft_space_opts - one KV geometry under one tenant
 * @size: sizeof(struct weft_space_opts)
 * @block_bytes: bytes of one block, all layers; 64 .. 1 GiB
 * @model: name and revision, e.g. "llama-3.1-8b@0e9e39f"; part of every key
 * @layout: layout slice and adapter, e.g. "nhd/tp0of4/lora=none"; part of every key
 * @tokens_per_block: e.g. 16
 * @nr_layers: layers in a block; block_bytes is a multiple of it; 0 means 1
 * @dtype: enum weft_dtype
 * @verify: 1: each get and map checks the block's CRC32C, 0: reads from other nodes and tiers do
 * @max_blocks: upper bound of blocks held, 0: what the tenant's arena gives
 * @replicas: nodes that are to hold a block that is put, this one included: others are asked to
 *            take it, and do as they have room. 0 and 1: this one alone. At most 8
 *
 * Two engines that open a space with equal options share its blocks.
 */
struct weft_space_opts {
	size_t size;
	uint64_t block_bytes;
	const char *model;
	const char *layout;
	uint32_t tokens_per_block;
	uint32_t nr_layers;
	uint32_t dtype;
	uint32_t verify;
	uint64_t max_blocks;
	uint32_t replicas;
	uint32_t reserved;
};

/**
 * struct weft_block_header - what proves a block
 * @incarnation: random at each start of the node that made it
 * @key: the block's key
 * @space_tag: the space's 64-bit tag: tenant, model, geometry (see wfi_space_tag())
 * @gen: the slot's generation at publish
 * @len: bytes of the block
 * @layout_id: low 32 bits of the hash of the space's layout name
 * @version: 2
 * @born: when it was published, in units of 2^20 ns (about a millisecond) of its node's clock
 * @used: when it was used last. Changes, so it proves nothing
 * @crc: CRC32C (Castagnoli, RFC 3720 appendix B.4) of this header with @crc = @used = 0, then the
 *       bytes
 *
 * Written once at publish, but for @used; checked by every read from another node or tier. It lies
 * beside the slots, in a table that engines do not map.
 */
struct weft_block_header {
	uint64_t incarnation;
	struct weft_key key;
	uint64_t space_tag;
	uint32_t gen;
	uint32_t version;
	uint64_t len;
	uint32_t layout_id;
	uint32_t born;
	uint32_t used;
	uint32_t crc;
};

WEFT_STATIC_ASSERT(sizeof(struct weft_key) == 16, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_slot) == 16, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_place) == 16, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_layout) == 80, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_ticket) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_block_header) == 64, "abi");
WEFT_STATIC_ASSERT(offsetof(struct weft_block_header, crc) == 60, "abi");

#ifdef __cplusplus
}
#endif
#endif
