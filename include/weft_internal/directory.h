/* SPDX-License-Identifier: Apache-2.0 */
/**
 * directory.h - one node's shard of the directory: who holds which blocks
 *
 * A table from tags of blocks to holders. It is soft state: filled by what holders say, of a fixed
 * size, and where it is full the new takes the place of the old. What it answers is a hint, which
 * costs its reader a round trip when it is wrong, and nothing more.
 *
 * A tag is 63 bits of a hash of key and space; bit 0 is for WFI_TAG_GONE. A bucket is two cache
 * lines: eight tags, and eight bytes of holders for each of them, which are packed to the front.
 *
 * Context: one owner thread.
 */
#ifndef WFI_DIRECTORY_H
#define WFI_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft_internal/env.h"

#define WFI_DIR_HOLDERS 255u /* numbers 1 to this */
#define WFI_DIR_NOBODY 0u
#define WFI_TAG_GONE 1ull /* in a change: it is held no more */

struct wfi_directory;

struct wfi_directory_opts {
	struct wfi_env *env;
	uint64_t bytes; /* of the table, for 16 bytes a block; 0: 128 MiB. Pages come with use */
};

struct wfi_directory_stat {
	uint64_t blocks; /* tags in the table */
	uint64_t pushed_out; /* of others, since there was no room */
};

/* some blocks of a chain, one after the other, that one holder has */
struct wfi_dir_run {
	uint32_t first;
	uint32_t nr;
	uint8_t holder;
	uint8_t other; /* one more that has all of them, or WFI_DIR_NOBODY */
};

/* what mixes well: splitmix64's finish */
static inline uint64_t wfi_mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* of a block. Keys are results of a keyed hash already */
static inline uint64_t wfi_block_tag(uint64_t space_tag, const struct weft_key *key)
{
	const uint64_t tag = wfi_mix64(key->lo + (key->hi ^ space_tag)) & ~WFI_TAG_GONE;

	return tag ? tag : 2;
}

/* Return: 0, -ENOMEM, -EINVAL */
int wfi_directory_create(const struct wfi_directory_opts *opts, struct wfi_directory **out);
/* takes NULL */
void wfi_directory_destroy(struct wfi_directory *d);
/* Return: the number of one more holder, which has nothing yet; -ENOSPC: poll, then retry */
int wfi_directory_join(struct wfi_directory *d);
/* forgets a holder: from here on it is in no answer. Its number comes back into use later */
void wfi_directory_leave(struct wfi_directory *d, uint8_t holder);
/* what a holder says, in order: tags that it has, or with WFI_TAG_GONE has no more. Hot */
void wfi_directory_update(struct wfi_directory *d, uint8_t holder, const uint64_t *changes,
			  uint32_t nr);
/**
 * wfi_directory_find - who has the blocks of a chain
 * @not: a holder that is not asked for (who asks), or WFI_DIR_NOBODY
 * @turn: which of several holders comes first; differs from asker to asker, so that all are used
 * @max: room in @runs; what does not fit is left out
 *
 * Blocks that nobody has are in no run. Hot. Return: runs, in order
 */
uint32_t wfi_directory_find(const struct wfi_directory *d, const uint64_t *tags, uint32_t nr,
			    uint8_t not, uint32_t turn, struct wfi_dir_run *runs, uint32_t max);
/* takes what is left of holders that are gone out of the table, slice by slice. Return: work */
int wfi_directory_poll(struct wfi_directory *d);
bool wfi_directory_busy(const struct wfi_directory *d);
void wfi_directory_stat(const struct wfi_directory *d, struct wfi_directory_stat *out);

#endif
