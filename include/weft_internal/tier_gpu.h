/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tier_gpu.h - the tier above memory: copies of blocks in the memory of one GPU
 *
 * A copy is of a block that memory holds, and named by its slot and the slot's generation: when the
 * block goes from memory, by whatever way, its copy is of nothing any more, is never given again,
 * and its room goes to the next that wants it. So nothing has to be told to this tier, or written
 * back from it, and it is none of those that tier.h is about, which keep by key what memory has no
 * room for.
 *
 * Places on the same GPU are filled from there. Who does it holds what arrived against the block's
 * header, by sums that the GPU makes, and takes what fails from memory instead.
 *
 * Context: the KV manager's owner thread.
 */
#ifndef WFI_TIER_GPU_H
#define WFI_TIER_GPU_H

#include "weft_internal/kvcache.h"

struct wfi_tier_gpu;

#define WFI_TIER_GPU_BLOCK_MIN 4096u /* bytes from slot to slot: smaller blocks have no copies */

/**
 * struct wfi_tier_gpu_opts - a tier
 * @gpu: its number, for figures and the log
 * @ep: to its memory, and nobody else's; .ep, .rkey and .mr are lent until it is destroyed
 * @rkey: all of its memory, now or later, over .ep
 * @mr: the same as local memory of posts
 * @arena: the memory of a tenant as local memory of posts over .ep; NULL: there is none
 * @bytes: of that memory that there are
 * @chunk_bytes: of memory that blocks of one size share, power of two: wfi_tier_gpu_chunk()
 * @write_bps: bytes a second that may be copied there; 0: no bound
 * @timeout_ns: of one copy
 */
struct wfi_tier_gpu_opts {
	struct wfi_env *env;
	struct wfi_metrics *metrics; /* may be NULL */
	struct wfi_kv *kv;
	struct wfi_xfer_engine *xfer;
	int gpu;
	struct weft_ep *ep;
	struct weft_rkey *rkey;
	const struct weft_mr *mr;
	const struct weft_mr *(*arena)(void *ctx, const struct wfi_tenant *t);
	void *ctx;
	uint64_t bytes;
	uint64_t chunk_bytes;
	uint64_t write_bps;
	uint64_t timeout_ns;
};

struct wfi_tier_gpu_stat {
	enum wfi_tier_state state; /* OK; FAILED: it keeps and gives nothing any more */
	uint64_t bytes; /* that it has for copies */
	uint64_t want_bytes; /* that it is to have: less while it gets smaller */
	uint64_t bytes_held; /* by copies, those included whose blocks have gone from memory */
	uint64_t copies;
	uint64_t hits; /* blocks given */
	uint64_t hit_bytes;
	uint64_t kept; /* blocks copied there, and proved */
	uint64_t evicted;
	uint64_t bad; /* not what their headers say, there or where they arrived */
};

/* Return: .chunk_bytes for a tier of that size */
uint64_t wfi_tier_gpu_chunk(uint64_t bytes);
/* Return: 0, -ENOMEM */
int wfi_tier_gpu_create(const struct wfi_tier_gpu_opts *opts, struct wfi_tier_gpu **out);
/* takes NULL. It is over (wfi_tier_gpu_over()), or no transfer will ever be polled again */
void wfi_tier_gpu_destroy(struct wfi_tier_gpu *t);

/**
 * wfi_tier_gpu_take - is there a copy of the block in this slot, which a place on this GPU wants?
 * @slot: sealed, and found in this turn
 *
 * The second time that a block is wanted it is put down to be copied here, in the background.
 * Hot. Return: its number, pinned until wfi_tier_gpu_put(); WFI_SLOT_NONE
 */
uint32_t wfi_tier_gpu_take(struct wfi_tier_gpu *t, uint32_t slot);
void wfi_tier_gpu_put(struct wfi_tier_gpu *t, uint32_t copy);
/* where it lies, in .mr. Hot */
void *wfi_tier_gpu_addr(const struct wfi_tier_gpu *t, uint32_t copy);
const struct weft_mr *wfi_tier_gpu_mr(const struct wfi_tier_gpu *t);
/**
 * wfi_tier_gpu_check - is what has arrived of a copy the block?
 * @slot: pinned since wfi_tier_gpu_take()
 * @crc: of what has arrived
 *
 * Return: 0 counted as given; -EBADMSG counted, and the copy has gone: the place may have been
 * written to meanwhile, but who knows
 */
int wfi_tier_gpu_check(struct wfi_tier_gpu *t, uint32_t copy, uint32_t slot, uint32_t crc);
/* the same without a use: a hint. Hot */
bool wfi_tier_gpu_holds(const struct wfi_tier_gpu *t, uint32_t slot);
/* the GPU has failed. The first time it is logged */
void wfi_tier_gpu_lose(struct wfi_tier_gpu *t);
/**
 * wfi_tier_gpu_resize - its memory has @bytes from now on, whole chunks
 *
 * More is there already, and used at once. Less is when wfi_tier_gpu_shrinks() says so: until then
 * what lies behind may be read and written. It is not getting smaller already.
 */
void wfi_tier_gpu_resize(struct wfi_tier_gpu *t, uint64_t bytes);
/* Return: whether it is still getting smaller: copies there are pinned, or were not looked at */
bool wfi_tier_gpu_shrinks(const struct wfi_tier_gpu *t);
/* Return: whether it is lost, or of no bytes, no copy is pinned and none is under way: it may be
 * destroyed */
bool wfi_tier_gpu_over(const struct wfi_tier_gpu *t);
/* Return: whether a copy to it is under way: from the node's memory to the tier's */
bool wfi_tier_gpu_busy(const struct wfi_tier_gpu *t);
/* Return: work done */
int wfi_tier_gpu_poll(struct wfi_tier_gpu *t, uint64_t now_ns);
/* UINT64_MAX: nothing to wait for, but transfers */
uint64_t wfi_tier_gpu_next_event_ns(const struct wfi_tier_gpu *t);
void wfi_tier_gpu_stat(const struct wfi_tier_gpu *t, struct wfi_tier_gpu_stat *out);

#endif
