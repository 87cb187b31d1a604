/* SPDX-License-Identifier: Apache-2.0 */
/**
 * directory.h - one node's shard of the directory: who holds which blocks
 *
 * A table from tags of blocks to holders. It is soft state: filled by what holders say, of a fixed
 * size, and where it is full the new takes the place of the old. What it answers is a hint, which
 * costs its reader a round trip when it is wrong, and nothing more.
 *
 * A holder has a pair of numbers: an even one for what lies in its memory, and the odd one behind
 * it for what lies in its SSD tier.
 *
 * A tag is 62 bits of a hash of key and space; the lowest two are WFI_TAG_GONE and WFI_TAG_SSD, and
 * the upper 32 are never all 0. A bucket is two cache lines: eight tags, and eight bytes of holders
 * for each of them, which are packed to the front. Who looks compares the place and the upper half:
 * one look in a thousand million finds another block's holders.
 *
 * It lies in a memfd that other nodes of its host may map for reading: who looks for a chain there
 * asks nobody, and wakes nobody.
 *
 * Context: one owner thread; a view has its own.
 */
#ifndef WFI_DIRECTORY_H
#define WFI_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft_internal/env.h"

#define WFI_DIR_HOLDERS 127u /* pairs of numbers */
#define WFI_DIR_NOBODY 0u
#define WFI_DIR_SSD 1u /* in a number: the holder has it in its SSD tier */
#define WFI_TAG_GONE 1ull /* in a change: it is held no more */
#define WFI_TAG_SSD 2ull /* in a change: of the SSD tier, not of memory */
#define WFI_TAG_MARKS (WFI_TAG_GONE | WFI_TAG_SSD)

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
	uint8_t holder; /* in memory, where there is one that has it there */
	uint8_t other; /* another one that has all of them, or WFI_DIR_NOBODY */
};

/* whose number that is, from 1 to WFI_DIR_HOLDERS */
static inline unsigned wfi_dir_pair(uint8_t holder)
{
	return holder >> 1;
}

/* what mixes well: splitmix64's finish */
static inline uint64_t wfi_mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* of a block. Keys are results of a keyed hash already: it is enough to take both halves */
static inline uint64_t wfi_block_tag(uint64_t space_tag, const struct weft_key *key)
{
	const uint64_t z = (key->lo + (key->hi ^ space_tag)) * 0x9e3779b97f4a7c15ull;
	const uint64_t tag = (z ^ (z >> 32)) & ~WFI_TAG_MARKS;

	return tag >> 32 ? tag : tag | 1ull << 32;
}

/* Return: 0, -ENOMEM, -EINVAL */
int wfi_directory_create(const struct wfi_directory_opts *opts, struct wfi_directory **out);
/* takes NULL */
void wfi_directory_destroy(struct wfi_directory *d);
/* what is lent to nodes of this host, as long as the directory lives */
const struct wfi_map *wfi_directory_map(const struct wfi_directory *d);
/* @node: its id. Return: the even number of one more holder, which has nothing yet; -ENOSPC: poll,
 * then retry */
int wfi_directory_join(struct wfi_directory *d, uint64_t node);
/* forgets a holder: from here on it is in no answer. Its numbers come back into use later */
void wfi_directory_leave(struct wfi_directory *d, uint8_t holder);
/* what a holder says, in order: tags with marks: that it has, or has no more. Hot */
void wfi_directory_update(struct wfi_directory *d, uint8_t holder, const uint64_t *changes,
			  uint32_t nr);
/**
 * wfi_directory_find - who has the blocks of a chain
 * @not: a holder that is not asked for (who asks), whatever the tier, or WFI_DIR_NOBODY
 * @turn: which of several holders comes first; differs from asker to asker, so that all are used
 * @max: room in @runs; what does not fit is left out
 *
 * Blocks that nobody has are in no run. Hot. Return: runs, in order
 */
uint32_t wfi_directory_find(const struct wfi_directory *d, const uint64_t *tags, uint32_t nr,
			    uint8_t not, uint32_t turn, struct wfi_dir_run *runs, uint32_t max);
/**
 * wfi_directory_holders - all who have blocks of a chain, each with its own runs
 *
 * A holder's runs come in order, with nothing twice: what it has in memory is not named as lying in
 * its SSD tier, too. .other is not used. What has no room in @runs is left out, from the first
 * block on that does not fit. Return: runs
 */
uint32_t wfi_directory_holders(const struct wfi_directory *d, const uint64_t *tags, uint32_t nr,
			       struct wfi_dir_run *runs, uint32_t max);
/* takes what is left of holders that are gone out of the table, slice by slice. Return: work */
int wfi_directory_poll(struct wfi_directory *d);
bool wfi_directory_busy(const struct wfi_directory *d);
void wfi_directory_stat(const struct wfi_directory *d, struct wfi_directory_stat *out);

/* another node's shard, mapped for reading: hints, as an answer of that node would be */
struct wfi_dir_view {
	const struct wfi_dir_shared *sh; /* NULL: there is none */
	uint64_t mask;
	uint64_t node; /* who looks: not asked for, whatever the tier */
	uint64_t changes; /* of the holders, when .self was looked up */
	uint8_t self;
};

/* @mem: of wfi_directory_map() there, lent until the view is not used any more. Return: 0, -EPROTO
 */
int wfi_dir_view_open(struct wfi_dir_view *view, const void *mem, uint64_t len, uint64_t node);
/* as wfi_directory_find(). Hot */
uint32_t wfi_dir_view_find(struct wfi_dir_view *view, const uint64_t *tags, uint32_t nr,
			   uint32_t turn, struct wfi_dir_run *runs, uint32_t max);
/* Return: the id of a holder's node, or 0. Input: any number */
uint64_t wfi_dir_view_node(const struct wfi_dir_view *view, uint8_t holder);

#endif
