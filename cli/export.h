/* SPDX-License-Identifier: Apache-2.0 */
/**
 * export.h - the file of weft export, version 1, little-endian
 *
 *	header, then blocks, parents before their children: for each a header and its bytes
 *
 * The file is made under a temporary name, and has its own name when it is whole. The header is
 * written last: .nr_blocks says how many follow, so that a shorter file is known as one.
 */
#ifndef WFI_CLI_EXPORT_H
#define WFI_CLI_EXPORT_H

#include <stddef.h>
#include <stdint.h>
#include "weft/kv.h"

#define WFI_EXPORT_MAGIC 0x54524f5058544657ull /* "WFTXPORT" */
#define WFI_EXPORT_BLOCK_MAGIC 0x4b4c4258u /* "XBLK" */
#define WFI_EXPORT_VERSION 1u

/**
 * struct wfi_export_header - what the blocks are
 * @check: the key that the space makes of the text "weft export": equal where keys are, which is
 *         where tenants have one salt and the geometry is the same
 * @crc: CRC32C of what is before
 */
struct wfi_export_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes;
	uint64_t block_bytes;
	uint64_t nr_blocks;
	uint32_t tokens_per_block;
	uint32_t nr_layers;
	uint32_t dtype;
	uint32_t reserved;
	struct weft_key check;
	char model[WEFT_NAME_MAX]; /* zero-padded */
	char layout[WEFT_NAME_MAX];
	uint32_t reserved2[15];
	uint32_t crc;
};

/**
 * struct wfi_export_block - before the bytes of a block
 * @parent: zero: none
 * @body_crc: CRC32C of the bytes
 * @crc: of what is before
 */
struct wfi_export_block {
	uint32_t magic;
	uint32_t depth;
	struct weft_key key;
	struct weft_key parent;
	uint64_t idx; /* in the file, from 0 */
	uint32_t reserved[2];
	uint32_t body_crc;
	uint32_t crc;
};

WEFT_STATIC_ASSERT(sizeof(struct wfi_export_header) == 384, "format");
WEFT_STATIC_ASSERT(offsetof(struct wfi_export_header, model) == 64, "format");
WEFT_STATIC_ASSERT(offsetof(struct wfi_export_header, crc) == 380, "format");
WEFT_STATIC_ASSERT(sizeof(struct wfi_export_block) == 64, "format");
WEFT_STATIC_ASSERT(offsetof(struct wfi_export_block, crc) == 60, "format");

#endif
