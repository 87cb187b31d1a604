/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tier.h - the contract of a tier below the arena, and the SSD tier
 *
 * A tier keeps blocks by key: what evicts from one tier is offered to the next slower one, and what
 * is asked for again comes back. Tiers are ordered gpu, dram, ssd. The arena is the dram tier and
 * needs no table; those below are one const table each, so that the mover (kvcache/tier.c) does not
 * know what they are made of. The one above has copies of what the arena holds: tier_gpu.h.
 *
 * A tier proves each block that it gives: header and bytes are as they were when it was put, or the
 * answer is an error, and the block is forgotten.
 *
 * Context: the KV manager's owner thread, for all calls. Callbacks come from ->poll() only.
 */
#ifndef WFI_TIER_H
#define WFI_TIER_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft/ring.h"
#include "weft_internal/env.h"
#include "weft_internal/evict.h"
#include "weft_internal/metrics.h"

struct wfi_tier_ops;

struct wfi_tier {
	const struct wfi_tier_ops *ops;
};

/* what names a block and proves it */
struct wfi_tier_block {
	struct weft_key key;
	struct weft_key parent; /* zero: none, or not known */
	uint64_t space_tag;
	uint32_t len;
	uint32_t crc; /* CRC32C of the bytes */
	uint32_t depth;
	uint32_t chain; /* what its place in the directory follows from; 0: not known */
	uint32_t visits; /* of requests, of late; of what is found in a tier */
};

/*
 * who is told of blocks that are found from here on, and of those that are no more: what a block
 * was is still known then. It may come from any call, and must not call the tier but for block,
 * find and set_chain. A block that was never held may go
 */
struct wfi_tier_watch {
	void (*held)(void *ctx, uint32_t slot);
	void (*gone)(void *ctx, uint32_t slot);
	void (*anew)(void *ctx); /* more came than was told: walk */
	void *ctx;
};

/* what getting a block takes: .latency_ns, and all bytes that are queued before it, and its own */
struct wfi_tier_speed {
	uint64_t bps; /* bytes a second, as measured or guessed */
	uint64_t latency_ns;
	uint64_t queued_bytes;
};

/* ways in which a block or a request goes bad, counted each by itself */
enum wfi_tier_bad {
	WFI_TIER_BAD_HEADER, /* not what its checksum says, or of another file, slot or version */
	WFI_TIER_BAD_BODY, /* header whole, bytes not */
	WFI_TIER_BAD_READ, /* the device says so */
	WFI_TIER_BAD_WRITE,
	WFI_TIER_BAD_SHORT, /* the end of the file where there should be none */
	WFI_TIER_BAD_SPACE, /* no room on the device */
	WFI_TIER_NR_BAD,
};

enum wfi_tier_state {
	WFI_TIER_OPENING, /* reads what there is; holds nothing yet */
	WFI_TIER_OK,
	WFI_TIER_FULL, /* the device has no room: no block is written for a while */
	WFI_TIER_FAILED, /* the device answers errors: tried again now and then */
	WFI_TIER_REFUSED, /* another version's, another machine's: not touched */
};

/*
 * Spaces whose blocks share the tier as one: a tenant's. What is above the floors goes from the
 * group that has most for its weight to those that want more
 */
#define WFI_TIER_GROUPS 1025u
struct wfi_tier_share {
	uint32_t group; /* from 1 on; 0 has the spaces that nobody named */
	uint32_t weight; /* 0: idle, all above its floor is for others */
	uint64_t floor_bytes;
};

struct wfi_tier_stat {
	enum wfi_tier_state state;
	const char *why; /* one sentence when the state is not OK, else "" */
	uint64_t bytes; /* that it has for blocks */
	uint64_t file_bytes; /* all in all; and what it shall have, see resize */
	uint64_t want_bytes;
	uint64_t min_bytes, max_bytes; /* that resize takes; 0: not known yet */
	uint64_t bytes_held;
	uint64_t blocks;
	uint64_t leased; /* not to be evicted; and those that are gone but for their slots */
	uint64_t retired; /* slots that are used no more until the next start */
	uint64_t evicted;
	uint64_t queued; /* requests */
	uint64_t read_bps, write_bps; /* as measured; 0: not yet */
	uint64_t recovered, recover_ns; /* at the start: blocks, and how long it took */
	uint64_t scrubbed; /* blocks looked at by the scrubber */
	uint64_t bad[WFI_TIER_NR_BAD];
};

/* @res: 0; -EBADMSG the check failed; -EIO; -ENOSPC; -ENOENT forgotten meanwhile */
typedef void (*wfi_tier_done)(void *ctx, int res);

struct wfi_tier_ops {
	const char *name;
	enum weft_tier kind;
	/* waits for what is under way; its callbacks never come. Takes NULL */
	void (*close)(struct wfi_tier *t);
	/* each by itself; WFI_SLOT_NONE: not held. Slots are good until the next call of poll or
	 * put. Hot. Return: how many are held */
	uint32_t (*find)(struct wfi_tier *t, uint64_t space_tag, const struct weft_key *keys,
			 uint32_t nr, uint32_t *slots);
	/* what the tier knows of a block that it found */
	void (*block)(const struct wfi_tier *t, uint32_t slot, struct wfi_tier_block *out);
	/* the block that follows in its chain, where it lies beside it; or WFI_SLOT_NONE */
	uint32_t (*next)(const struct wfi_tier *t, uint32_t slot);
	/* a request used it. Hot */
	void (*touch)(struct wfi_tier *t, uint32_t slot);
	/*
	 * keeps a block; evicts as needed. @bytes is lent until @done.
	 * Return: 0 accepted, -EAGAIN later, -EEXIST held already, -E2BIG, -ENOSPC, -EIO not now
	 */
	int (*put)(struct wfi_tier *t, const struct wfi_tier_block *b, const void *bytes,
		   wfi_tier_done done, void *ctx);
	/*
	 * brings a block that was found, checked. @bytes has room for it, rounded up to
	 * WFI_DISK_ALIGN where it is aligned to that; lent until @done.
	 * Return: 0 accepted, -EAGAIN later, -ENOENT, -EIO not now
	 */
	int (*get)(struct wfi_tier *t, uint32_t slot, void *bytes, wfi_tier_done done, void *ctx);
	/*
	 * leases: a block that was found is not evicted until unkeep was called as often as keep.
	 * It may still be dropped, turn out bad, or lie behind a new end of the tier: then its slot
	 * stays unused as long. @most: bytes that its group may keep in all; at least half of the
	 * room for blocks of one size can be evicted, whoever keeps the rest. Hot.
	 * Return: 0, -EDQUOT
	 */
	int (*keep)(struct wfi_tier *t, uint32_t slot, uint64_t most);
	void (*unkeep)(struct wfi_tier *t, uint32_t slot);
	/* from now on blocks of this space are a group's, those that are held as well. NULL: it has
	 * none here, and will have none. Return: bytes of it that may be held */
	uint64_t (*share)(struct wfi_tier *t, uint64_t space_tag,
			  const struct wfi_tier_share *share);
	/* forgets a block, also over a restart; while it opens, what it is about to find as well.
	 * Return: true when it was held */
	bool (*drop)(struct wfi_tier *t, uint64_t space_tag, const struct weft_key *key);
	/* Return: work done */
	int (*poll)(struct wfi_tier *t, uint64_t now_ns);
	/*
	 * a close comes next: what was put goes out at once, and what fails is not tried again.
	 * Return: 0 the next start finds what could be written; -EAGAIN poll, and call again
	 */
	int (*flush)(struct wfi_tier *t);
	/* UINT64_MAX: nothing to wait for */
	uint64_t (*next_event_ns)(const struct wfi_tier *t, uint64_t now_ns);
	/* until blocks of @bytes in all are here, if they were asked for now: from the measured
	 * bandwidth and what is queued. UINT64_MAX: the tier gives nothing now. Hot */
	uint64_t (*fetch_ns)(const struct wfi_tier *t, uint64_t bytes);
	/* the same, by what it follows from. Return: 0, -EIO: the tier gives nothing now */
	int (*speed)(const struct wfi_tier *t, struct wfi_tier_speed *out);
	/* looks at @nr slots from @from on, and calls @fn for each that has a block of the space.
	 * Return: where the next call goes on; 0 when that was all */
	uint32_t (*each)(const struct wfi_tier *t, uint64_t space_tag, uint32_t from, uint32_t nr,
			 void (*fn)(void *ctx, const struct wfi_tier_block *b), void *ctx);
	/* @watch is lent until close; NULL: none any more */
	void (*watch)(struct wfi_tier *t, const struct wfi_tier_watch *watch);
	/* looks at @max slots from *@at on. Return: how many in @out are found; *@at is 0 again
	 * when that was all */
	uint32_t (*walk)(const struct wfi_tier *t, uint32_t *at, uint32_t max, uint32_t *out);
	/* of a block that is found: its .chain in this life, and in others if its header is
	 * written again */
	void (*set_chain)(struct wfi_tier *t, uint32_t slot, uint32_t chain);
	/* memory that bytes mostly come from and go to; may do nothing. Cold */
	void (*lend)(struct wfi_tier *t, void *addr, uint64_t len);
	/* while in use. Return: 0 (done in the background), -EINVAL, -ENOSPC, -EBUSY; logged */
	int (*resize)(struct wfi_tier *t, uint64_t bytes);
	void (*stat)(const struct wfi_tier *t, struct wfi_tier_stat *out);
};

const char *wfi_tier_state_name(enum wfi_tier_state state);

/* ---- the SSD tier ---- */

struct wfi_tier_ssd_opts {
	struct wfi_env *env;
	struct wfi_metrics *metrics; /* may be NULL */
	const char *path; /* file or block device; copied */
	uint64_t bytes; /* what the file may take, all in all */
	uint64_t node; /* whose blocks these are: a file of another node is refused */
	uint64_t scrub_bps; /* bytes a second that the scrubber reads; 0: no scrubbing */
	uint32_t chunk_bytes; /* power of two; 0: 64 MiB, less in a small file */
};

/* what a node makes of a file */
enum wfi_tier_file {
	WFI_TIER_FILE_NEW, /* empty: a tier is made there */
	WFI_TIER_FILE_OURS,
	WFI_TIER_FILE_REFUSED, /* left alone */
};
#define WFI_TIER_HEAD 8192u

/**
 * wfi_tier_ssd_look - what a node will make of a file, or says of it when it opens it
 * @head: its first WFI_TIER_HEAD bytes, zeros behind its end; aligned to 8
 * @bytes: of one that is ours: what the file should have; else left alone
 * @why: of one that is refused: one sentence, which says what to do
 *
 * Context: any thread.
 */
enum wfi_tier_file wfi_tier_ssd_look(const void *head, uint64_t node, uint64_t *bytes, char *why,
				     size_t why_len);

/*
 * Opens and locks the file; what is in it is found by polling, and until then nothing is held.
 * Return: 0, -EBUSY another node has it, -ENOSPC, -EINVAL too small, others of open(2); logged
 */
int wfi_tier_ssd_open(const struct wfi_tier_ssd_opts *opts, struct wfi_tier **out);

#endif
