/* SPDX-License-Identifier: Apache-2.0 */
/**
 * rail.h - one transfer over several endpoints to one peer
 *
 * A transfer is cut between blocks into chunks; each chunk is a transfer of the engine's over one
 * rail. A rail takes the next chunk when it has room for one, and only if no other would be done
 * with it sooner, by the speeds that were measured: so work goes where it is fastest, and the rails
 * end together. A chunk that fails with its rail, or takes far longer than it should, goes over
 * another one, and not before the engine has fenced it: nothing lands late in memory that was used
 * anew. A rail that failed rests, longer each time; it, and one that is new, begins with one small
 * chunk at a time and is given more as these arrive.
 *
 * Context: the engine's worker.
 */
#ifndef WFI_RAIL_H
#define WFI_RAIL_H

#include "weft_internal/xfer.h"

#define WFI_RAILS_MAX 8u

struct wfi_rails;
struct wfi_rails_xfer;

struct wfi_rails_opts {
	struct wfi_env *env;
	struct wfi_xfer_engine *xfer;
	uint64_t chunk_bytes; /* the least of one chunk; 0: 256 KiB */
	uint64_t patience_ns; /* what a chunk may take beside eight times its due; 0: 200 ms */
};

/* what a transfer needs of one rail; .rkeys NULL: it can't go there */
struct wfi_rail_mem {
	const struct weft_mr *local_mr;
	struct weft_rkey *const *rkeys; /* the same regions on each rail, lent */
	const struct wfi_gather_name *names; /* lent, or NULL */
};

/* what was seen of one rail */
struct wfi_rail_stat {
	uint64_t bytes; /* that arrived */
	uint64_t speed; /* bytes a millisecond; 0: not known yet */
	uint64_t failures; /* chunks that went elsewhere, or nowhere */
	uint64_t open_bytes; /* under way */
};

int wfi_rails_create(const struct wfi_rails_opts *opts, struct wfi_rails **out);
/* no transfer is open */
void wfi_rails_destroy(struct wfi_rails *rails);
/* @gather: the link over @ep, or NULL. Both are lent until wfi_rails_remove(). Return: the rail's
 * number, -ENOSPC */
int wfi_rails_add(struct wfi_rails *rails, struct weft_ep *ep, struct wfi_gather *gather);
/* nothing more goes over it; what is under way ends with its endpoint, which lives that long: see
 * wfi_rails_open() */
void wfi_rails_remove(struct wfi_rails *rails, unsigned rail);
/* how many chunks are under way over an endpoint, which was removed or not */
unsigned wfi_rails_open(const struct wfi_rails *rails, const struct weft_ep *ep);
/* no rail is left and no transfer is open */
bool wfi_rails_idle(const struct wfi_rails *rails);
unsigned wfi_rails_nr(const struct wfi_rails *rails);
void wfi_rails_stat(const struct wfi_rails *rails, unsigned rail, struct wfi_rail_stat *out);

/**
 * wfi_rails_submit - as wfi_xfer_submit(), over all rails
 * @o: .ep, .local_mr, .rkeys, .gather and .names are not used; not WFI_XFER_SUM
 * @mem: WFI_RAILS_MAX entries, by the numbers of rails; copied
 *
 * A block's pieces go together. done() comes from wfi_rails_poll() or wfi_xfer_poll(), never from
 * here; late() when the time of all is up, or it is cancelled, and a chunk is not fenced.
 *
 * Return: 0, -EAGAIN too many transfers, -ENOTCONN no rail, -E2BIG a block has more than 512
 * pieces. What the engine refuses of a chunk is the result of its blocks.
 */
int wfi_rails_submit(struct wfi_rails *rails, const struct wfi_xfer_opts *o,
		     const struct wfi_rail_mem mem[WFI_RAILS_MAX], struct wfi_rails_xfer **out);
/* as wfi_xfer_cancel() */
void wfi_rails_cancel(struct wfi_rails_xfer *x);
/* Return: work done */
int wfi_rails_poll(struct wfi_rails *rails, uint64_t now_ns);
/* 0 at once, UINT64_MAX when nothing waits here */
uint64_t wfi_rails_next_event_ns(const struct wfi_rails *rails);

#endif
