/* SPDX-License-Identifier: Apache-2.0 */
/**
 * xfer.h - the transfer engine: plans, deadlines, fenced cancel, one completion
 *
 * A transfer moves a list of pieces between local memory and one endpoint. It is accepted or
 * refused at once; accepted, it completes exactly once, by its deadline plus a bounded grace, with
 * a result per block. When it has completed, with whatever result, nothing of ours, of the NIC or
 * of the peer can touch its local memory any more (invariants 2 and 3). Where a device does not
 * give back what it was lent, as a GPU that hangs, late() comes in time and done() when it has.
 *
 * The engine takes the completions of the endpoints that it is given: their send_cq is its own to
 * poll while transfers are open, and is not their recv_cq. Successful posts of others on such a
 * queue are WEFT_POST_QUIET. To fence a transfer that does not end, the engine shuts its endpoint
 * down.
 *
 * Context: one worker thread for an engine and all of its endpoints.
 */
#ifndef WFI_XFER_H
#define WFI_XFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "weft/transport.h"
#include "weft_internal/env.h"
#include "weft_internal/gather.h"
#include "weft_internal/metrics.h"

struct wfi_xfer_engine;
struct wfi_xfer;

enum wfi_xfer_dir {
	WFI_XFER_READ, /* remote to local */
	WFI_XFER_WRITE, /* local to remote */
	WFI_XFER_SUM, /* nothing moves: .local is summed up, .remote and .rkey mean nothing */
	/* nothing moves: what lies at .remote is summed up there, by a device with WEFT_CAP_SUMS;
	 * .local is not touched */
	WFI_XFER_SUM_THERE,
};

struct wfi_copy_run;

/* how bytes are summed up. Sums chain from 0: of a, then of b from there, is that of a and b */
struct wfi_sum_ops {
	uint32_t (*sum)(uint32_t sum, const void *buf, size_t len);
	/* the same of @src, which goes to @dst in the same pass. @stream: around the cache; a store
	 * fence is the caller's. Nothing is promised of bytes that change meanwhile */
	uint32_t (*copy)(uint32_t sum, void *dst, const void *src, size_t len, bool stream);
	/* the same of several, one behind the other, through the cache */
	uint32_t (*copy_runs)(uint32_t sum, const struct wfi_copy_run *runs, unsigned nr);
	/* NULL, or a sum as it counts in the sum of what it is a part of, before @len bytes more:
	 * moved so, the sums of all parts add up by xor */
	uint32_t (*past)(uint32_t sum, uint64_t len);
	/* NULL, or: bytes up to which a batch is better left in the cache, for who asked for it */
	uint64_t (*keeps)(void);
};

/* one piece; pieces of one block are adjacent in the list and share .block */
struct wfi_piece {
	void *local;
	uint64_t remote; /* byte offset in the remote region */
	uint32_t rkey; /* index in wfi_xfer_opts.rkeys */
	uint32_t block; /* result goes to results[block] */
	uint64_t len;
};

struct wfi_xfer_opts {
	struct weft_ep *ep;
	enum wfi_xfer_dir dir;
	const struct weft_mr *local_mr; /* covers all local memory, or NULL where none is needed */
	struct weft_rkey *const *rkeys; /* lent until the completion */
	const struct wfi_piece *pieces; /* lent until the completion */
	uint32_t nr_pieces;
	uint32_t nr_blocks;
	uint32_t nr_rkeys;
	int32_t *results; /* per block, 0 or -errno; lent until the completion */
	/* both or neither: the local bytes of each block that arrived, summed up in slices as they
	 * are moved, in the order of its pieces. @sums: per block; lent until the completion */
	const struct wfi_sum_ops *sum_ops;
	uint32_t *sums;
	/* the remote bytes, summed up by the device, or nothing: .local is not for the CPU to read,
	 * or proves nothing. Blocks whose sums the device can't make now fail with -EAGAIN */
	bool device_sums;
	/* the provider holds both sides against each other where it can: -EBADMSG. For .local_mr of
	 * WEFT_MR_RKEY, which nobody else can sum up; without .sums */
	bool check;
	uint64_t batch_bytes; /* of all that is wanted, of which this is a part; 0: all of it */
	uint64_t deadline_ns; /* absolute, env clock */
	/* called once, from wfi_xfer_poll() or, for a transfer that is done at once, from
	 * wfi_xfer_submit() before it returns. @res: 0 when every block arrived, else the first
	 * error */
	void (*done)(void *ctx, int res);
	/* NULL, or called at most once, before done() and from wfi_xfer_poll(): the endpoint was
	 * reset, and what it was lent has not come back for a grace more. Who waits may hear @res
	 * now, negative; memory and .results stay lent until done() */
	void (*late)(void *ctx, int res);
	void *ctx;
	/* small pieces in messages, where both are given: the link over .ep, lent until the
	 * completion, and what the peer calls the regions of .rkeys (zero: not served), lent too */
	struct wfi_gather *gather;
	const struct wfi_gather_name *names;
};

struct wfi_xfer_engine_opts {
	struct wfi_env *env;
	struct wfi_metrics *metrics; /* may be NULL */
	/* polled even when no transfer is open: others post there; NULL: none */
	struct weft_cq *send_cqs[8];
	uint32_t max_xfers; /* in flight; 0: 1024 */
	/* most that one poll copies or sums up by CPU before others' turn; 0: 512 KiB */
	uint64_t slice_bytes;
	uint64_t grace_ns; /* deadline to forced fence, and from there to late(); 0: 50 ms */
};

int wfi_xfer_engine_create(const struct wfi_xfer_engine_opts *opts, struct wfi_xfer_engine **out);
void wfi_xfer_engine_destroy(struct wfi_xfer_engine *eng);
/* a queue that is polled until _del(), as .send_cqs are. Return: 0, -EAGAIN too many */
int wfi_xfer_queue_add(struct wfi_xfer_engine *eng, struct weft_cq *cq);
/* one of those, or of .send_cqs; nothing is open there any more */
void wfi_xfer_queue_del(struct wfi_xfer_engine *eng, struct weft_cq *cq);
/* Hot. Return: 0 accepted (when done was called already, *out is NULL), -EAGAIN too many in flight,
 * -EINVAL a piece outside its region, an rkey of another endpoint, or send_cq is recv_cq; -EACCES
 * an rkey without the right, -EOPNOTSUPP no sums are made there, of .device_sums neither. Refused:
 * done is not called. An endpoint that is not connected is a result: -ENOTCONN */
int wfi_xfer_submit(struct wfi_xfer_engine *eng, const struct wfi_xfer_opts *opts,
		    struct wfi_xfer **out);
/* starts the end of a transfer: done comes with -ECANCELED once it is fenced (or with its real
 * result when it was quicker). @x is invalid after done */
void wfi_xfer_cancel(struct wfi_xfer_engine *eng, struct wfi_xfer *x);
/* Return: work done; 0 means idle. Hot */
int wfi_xfer_poll(struct wfi_xfer_engine *eng, uint64_t now_ns);
/* when to poll again at the latest: 0 at once, UINT64_MAX when nothing is in flight */
uint64_t wfi_xfer_next_event_ns(const struct wfi_xfer_engine *eng);

/**
 * The piece planner: block lists and layouts become pieces. A layout says where each element of a
 * block lies; a plan between two layouts is the shortest list of contiguous runs.
 */
enum wfi_layout_dim {
	WFI_DIM_LAYER,
	WFI_DIM_KV,
	WFI_DIM_TOKEN,
	WFI_DIM_HEAD,
	WFI_DIM_BYTE, /* bytes of one head vector; innermost, stride 1 */
	WFI_DIM_NR,
};

struct wfi_layout {
	uint32_t extent[WFI_DIM_NR]; /* how many in each dimension */
	uint64_t stride[WFI_DIM_NR]; /* bytes from one to the next */
	uint64_t base; /* of element 0 in the block */
	uint32_t first_token; /* this block's first token in the sequence: for other page sizes */
	uint32_t first_head; /* of the model, of this slice's first head: for other TP degrees */
};

/* a run: @len bytes from @src to @dst, offsets within the blocks */
struct wfi_run {
	uint64_t src;
	uint64_t dst;
	uint64_t len;
};

/* common part of two layouts, as runs in order of @dst, neighbours merged. Return: number of runs
 * that there are (may exceed @max; then only @max are written), -EINVAL when shapes do not fit, the
 * bytes of a head are not adjacent, or elements of @dst overlap */
int wfi_layout_plan(const struct wfi_layout *src, const struct wfi_layout *dst,
		    struct wfi_run *runs, unsigned max);
/* merges neighbours in place (equal block and rkey, both sides adjacent). Return: pieces left */
unsigned wfi_pieces_merge(struct wfi_piece *pieces, unsigned nr);

#endif
