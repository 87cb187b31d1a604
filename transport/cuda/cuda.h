/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cuda.h - the provider for memory of GPUs of this host, inside
 *
 * Memory endpoints only: an endpoint reaches memory of one GPU, that of the first region which is
 * imported there. A post is a batch of copies between that and host memory, in a stream of the
 * endpoint's own, with an event behind it: few large pieces go by the copy engine, many small ones
 * by one launch of a kernel that reads and writes host memory where it lies, if that is pinned.
 * An event of an engine's is imported as a region is, and has no bytes: a read of it, one a post,
 * makes the reads that follow on that endpoint wait for what was last recorded. They wait here and
 * not in the stream, which nobody could call back: an event may never come, or its process be gone.
 *
 * Context: posts, polls and endpoints belong to the device's thread. Regions are imported, and
 * their GPUs opened, by one other thread at a time if its owner likes: both take long.
 */
#ifndef WFI_TRANSPORT_CUDA_H
#define WFI_TRANSPORT_CUDA_H

#include <pthread.h>
#include "gpu/device.h"
#include "transport/core.h"
#include "transport/cuda/provider.h"
#include "weft_internal/gpu_region.h"

#define WFI_CUDA_GPUS_MAX 32u
#define WFI_CUDA_PIECES 512u /* of a post */
#define WFI_CUDA_TABLES 32u /* of one GPU: a bit each in wfi_cuda_post.tables */
#define WFI_CUDA_ITEMS 2048u /* of a table */
#define WFI_CUDA_NO_TABLE UINT32_MAX
#define WFI_CUDA_POST_BYTES (4ull << 20)
#define WFI_CUDA_BOUNCES 2u /* of one GPU: one is filled while another is emptied */

struct wfi_cuda_device;
struct wfi_cuda_ep;

/* streams of one endpoint, so that all ways are used at a time, and nobody waits for others */
enum wfi_cuda_way {
	WFI_CUDA_TO_GPU,
	WFI_CUDA_TO_HOST,
	WFI_CUDA_WITHIN, /* from one place in the GPU's memory to another, or another GPU's */
	WFI_CUDA_WAYS,
};

/**
 * struct wfi_cuda_gpu - a GPU that regions lie in
 * @small: pieces of fewer bytes than this on average go by a kernel, by way; measured at the start
 * @free_tables: those that no launch reads
 * @lost: its context is, and all regions with it: nothing in there moves any more. What is opened
 *        of that GPU afterwards is another one of these
 * @doubt: what failed may have ended its context, and nobody knows what still moves: what is under
 *         way is waited for, and this process opens no other
 * @users: endpoints that are for it, and host or local memory that is registered with it
 */
struct wfi_cuda_gpu {
	struct wfi_gpu *gpu;
	struct wfi_cuda_gpu *next; /* of those that were replaced */
	uint64_t opened_ns;
	_Atomic uint32_t users;
	uint8_t uuid[16];
	struct CUstream_st *streams[WFI_CUDA_WAYS]; /* of trials */
	uint64_t small[WFI_CUDA_WAYS];
	struct wfi_gpu_item *items;
	uint32_t free_tables;
	uint32_t nr_parts[WFI_CUDA_TABLES]; /* of those that are tables of sums */
	/* pinned, a post each, and .free_bounces before them; NULL: not needed, or not to be had */
	uint8_t *_Atomic bounces;
	uint32_t free_bounces;
	struct wfi_gpu_sums sums; /* .powers in the GPU's memory; NULL: there are no kernels */
	_Atomic bool lost;
	_Atomic bool doubt;
};

struct wfi_cuda_rkey;

/*
 * host memory. @pinned: a kernel may touch it, and copies of it need no other. @stops: it can't be
 * pinned, and bytes stop in memory that is. Pinning takes long: who imports the next region does
 * it, not who registers
 *
 * Or memory of a GPU, which nobody has to pin: @on, or a region of another endpoint's, @far, and
 * nothing else.
 *
 * With the context of its home it is no longer pinned, until the next region comes.
 */
struct wfi_cuda_mr {
	struct weft_mr base;
	struct wfi_cuda_mr *next;
	struct wfi_cuda_gpu *on; /* NULL: the host */
	const struct wfi_cuda_rkey *far;
	struct wfi_cuda_gpu *_Atomic home; /* in whose context it is pinned */
	bool tried;
	_Atomic bool pinned;
	_Atomic bool stops;
};

struct wfi_cuda_rkey {
	struct weft_rkey base;
	struct wfi_gpu_region region;
	struct CUevent_st *event; /* or this, and nothing else; of another process if .foreign */
	bool foreign;
	struct wfi_gpu_shape shape;
};

/* an open post: copies were asked for, and .event is behind them */
struct wfi_cuda_post {
	struct CUevent_st *event; /* made when it is first wanted */
	struct CUevent_st *gate; /* an engine's, or NULL: reads behind this post are held for it */
	const struct weft_mr *mr; /* of a held one */
	uint64_t bytes; /* of a held one */
	uint64_t cookie;
	uint32_t tables;
	uint32_t sum_tables;
	uint32_t far_tables; /* of sums of the other side, where that is a region, too */
	uint32_t flags;
	uint32_t idx;
	int32_t status;
	uint8_t op;
	uint8_t bounce; /* 1 for the first one of the GPU's; 0: none */
	uint8_t way; /* enum wfi_cuda_way */
	bool waits; /* for .event */
	bool rest; /* nor was all asked for yet: see wfi_cuda_rest */
	bool unmarked; /* and that could not be recorded yet */
	bool summed; /* by what .sum_tables say */
	bool held; /* nothing was asked for yet, and its pieces are in .held of the endpoint */
	bool apart; /* from local memory on the GPU: does not wait for others to end */
	bool told; /* it has ended, before others that it stands behind */
};

/* what of a post is still to be asked of the copy engine, in later turns: a call for each run takes
 * microseconds. Nothing else is posted meanwhile */
struct wfi_cuda_rest {
	struct weft_piece *pieces; /* room for a post's */
	const struct weft_mr *mr;
	uint32_t at; /* the post, in the ring */
	uint32_t nr;
	uint32_t idx; /* piece, and how much of it is asked for */
	uint64_t done;
	bool open; /* there is such a post */
};

#define WFI_CUDA_COPIES 128u /* that one endpoint asks for in a turn */

struct wfi_cuda_ep {
	struct weft_ep base;
	struct wfi_cuda_ep *next;
	struct wfi_cuda_gpu *_Atomic gpu; /* NULL: no region yet */
	struct CUstream_st *streams[WFI_CUDA_WAYS]; /* there before .gpu is */
	_Atomic enum wfi_ep_state state; /* written by the owner */
	int close_status;
	struct weft_piece *_Atomic held; /* of each post; there when an event is, or bytes stop */
	uint32_t *sums; /* of each post's pieces; or NULL */
	uint32_t nr_waiting; /* open posts that are held, or hold others */
	uint32_t nr_apart; /* open posts that end apart from the others */
	uint32_t copies_left; /* in this turn */
	struct wfi_cuda_rest rest;
	uint32_t depth;
	uint32_t head, tail; /* of .posts, a ring */
	struct wfi_cuda_post posts[];
};

#define WFI_CUDA_HELD_BYTES(ep)                                                                    \
	((uint64_t)(ep)->depth * (ep)->base.dev->caps.max_pieces * sizeof(*(ep)->held))
#define WFI_CUDA_REST_BYTES(ep) ((ep)->base.dev->caps.max_pieces * sizeof(*(ep)->rest.pieces))
#define WFI_CUDA_SUMS_BYTES(ep)                                                                    \
	((uint64_t)(ep)->depth * (ep)->base.dev->caps.max_pieces * sizeof(*(ep)->sums))
#define WFI_CUDA_POWERS 6u /* digits, in hex, of any place in a post */

/* a GPU of this host. @gpu: NULL: not open */
struct wfi_cuda_seat {
	struct wfi_cuda_gpu *gpu;
	uint64_t next_ns; /* one that was lost is not opened anew before this */
	uint64_t pause_ns; /* from one time to the next; 0: none was lost of late */
};

struct wfi_cuda_device {
	struct weft_device base;
	const struct wfi_cuda *cuda;
	struct wfi_cuda_ep *eps;
	uint32_t nr_open; /* posts */
	uint32_t nr_closing; /* endpoints */
	struct weft_piece bounced[WFI_CUDA_PIECES]; /* of the post that begins */
	uint32_t powers[WFI_CUDA_POWERS][16]; /* [i][n]: a sum moves past n * 16^i bytes */
	pthread_mutex_t lock; /* of what follows: cold */
	struct wfi_cuda_seat seats[WFI_CUDA_GPUS_MAX]; /* by the driver's number */
	struct wfi_cuda_gpu *replaced; /* lost ones that others still point to */
	struct wfi_cuda_mr *mrs;
};

static inline struct wfi_cuda_device *wfi_cuda_device(struct weft_device *dev)
{
	return wfi_container_of(dev, struct wfi_cuda_device, base);
}

static inline struct wfi_cuda_ep *wfi_cuda_ep(struct weft_ep *ep)
{
	return wfi_container_of(ep, struct wfi_cuda_ep, base);
}

static inline const struct wfi_cuda_rkey *wfi_cuda_rkey(const struct weft_rkey *rkey)
{
	return wfi_container_of(rkey, struct wfi_cuda_rkey, base);
}

static inline const struct wfi_cuda_mr *wfi_cuda_mr(const struct weft_mr *mr)
{
	return wfi_container_of(mr, struct wfi_cuda_mr, base);
}

/* device.c */

/* with the driver that is given, and not that of this host */
int wfi_cuda_device_create(const struct weft_transport *t, struct wfi_env *env,
			   const struct wfi_cuda *cuda, struct weft_device **out);
/* the GPU of that name, open; one that was lost is opened anew. Return: 0; -ENODEV; -EAGAIN it was
 * lost too often of late; -ENOTRECOVERABLE this process can't open it any more; as wfi_gpu_open();
 * logged */
int wfi_cuda_gpu_get(struct wfi_cuda_device *dev, const uint8_t uuid[16],
		     struct wfi_cuda_gpu **out);
/* Return: a CUresult. Context: the GPU's is entered */
int wfi_cuda_streams_create(struct wfi_gpu *gpu, struct CUstream_st *streams[WFI_CUDA_WAYS]);
void wfi_cuda_streams_destroy(struct wfi_gpu *gpu, struct CUstream_st *streams[WFI_CUDA_WAYS]);
/* a call of gpu/ that concerns this GPU has failed, and logged: is it lost, or in doubt? Return:
 * whether it can't be used any more */
bool wfi_cuda_look(struct wfi_cuda_gpu *g);
/* a call that concerns this GPU ended with @res: is it lost? Return: as wfi_cuda_errno(), logged */
int wfi_cuda_failed(struct wfi_cuda_gpu *g, const char *what, int res);
/* nothing more is asked of it. The first logs */
void wfi_cuda_lose(struct wfi_cuda_gpu *g);
/* Return: -EIO; -ENOTRECOVERABLE where nothing but another process helps */
int wfi_cuda_lost_errno(const struct wfi_cuda_gpu *g);

/* mem.c */
int wfi_cuda_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out);
void wfi_cuda_mr_dereg(struct weft_mr *mr);
/* what came since the last region, from any context that works. Context: .lock is held */
void wfi_cuda_mrs_pin(struct wfi_cuda_device *dev, struct wfi_cuda_gpu *g);
int wfi_cuda_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			 struct weft_rkey **out);
void wfi_cuda_rkey_destroy(struct weft_rkey *rkey);
/* the run that begins @off bytes into a region. Return: its length, *@addr: where it lies. Hot */
uint64_t wfi_cuda_run(const struct wfi_cuda_rkey *rkey, uint64_t off, uint64_t *addr);
/* the same of local memory */
static inline uint64_t wfi_cuda_local_run(const struct wfi_cuda_mr *mr, const void *local,
					  uint64_t *addr)
{
	if (wfi_unlikely(mr->far != NULL))
		return wfi_cuda_run(mr->far, (uintptr_t)local - (uintptr_t)mr->base.addr, addr);
	*addr = (uintptr_t)local;
	return UINT64_MAX;
}

/* whether kernels may touch it, and copies need no other. Hot */
static inline bool wfi_cuda_is_pinned(const struct wfi_cuda_mr *mr)
{
	return mr->pinned && !mr->home->lost;
}

/* ep.c */
int wfi_cuda_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		       struct weft_cq **out);
void wfi_cuda_cq_destroy(struct weft_cq *cq);
int wfi_cuda_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max);
void wfi_cuda_cq_disarm(struct weft_cq *cq);
int wfi_cuda_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
		       struct weft_ep **out);
void wfi_cuda_ep_shutdown(struct weft_ep *ep);
void wfi_cuda_ep_destroy(struct weft_ep *ep);
/* where its held pieces begin */
static inline struct weft_piece *wfi_cuda_held(const struct wfi_cuda_ep *ep, uint32_t post)
{
	return &ep->held[(uint64_t)(post % ep->depth) * ep->base.dev->caps.max_pieces];
}
/* Return: 0 it has come, -EAGAIN it has not; -EIO, as wfi_cuda_errno(), logged */
int wfi_cuda_event_look(struct wfi_cuda_gpu *g, struct CUevent_st *event, const char *what);
/* its event goes behind what was asked for so far; or is tried again. Context: the GPU's is
 * entered */
void wfi_cuda_post_mark(const struct wfi_cuda_ep *ep, struct wfi_cuda_post *p);
/* nobody waits for that event any more */
void wfi_cuda_gates_open(struct wfi_cuda_ep *ep, const struct CUevent_st *event);
/* connected -> closing; later calls change nothing */
void wfi_cuda_ep_close(struct wfi_cuda_ep *ep, int status);

/* post.c */
extern const struct weft_ep_fast wfi_cuda_fast;
/* a post that was held, by its place in the ring, and whether it has to wait for others to end */
bool wfi_cuda_post_can_start(const struct wfi_cuda_ep *ep, const struct wfi_cuda_post *p);
void wfi_cuda_post_start(struct wfi_cuda_ep *ep, uint32_t at);
/* goes on with .rest of an endpoint, or ends it where that is closed */
void wfi_cuda_rest_go_on(struct wfi_cuda_ep *ep);
/* Return: WFI_CUDA_NO_TABLE all are in use */
uint32_t wfi_cuda_table_get(struct wfi_cuda_gpu *g);
/* what a table was for is done */
void wfi_cuda_tables_put(struct wfi_cuda_gpu *g, uint32_t tables);

/* bounce.c: what can't be pinned goes through memory that is */
/* Context: .lock is held. Return: 0; as wfi_cuda_errno(), logged */
int wfi_cuda_bounces_open(struct wfi_cuda_gpu *g);
/* where its pieces are kept; Return: 0, -ENOMEM */
int wfi_cuda_held_open(struct wfi_cuda_ep *ep);
static inline bool wfi_cuda_stops(const struct wfi_cuda_ep *ep, const struct wfi_cuda_mr *mr)
{
	return wfi_unlikely(mr->stops) && ep->held && ep->gpu->bounces;
}
/* one is free. The first p->idx pieces of a post, which are @pieces: where they stop. What goes to
 * the GPU is there. Return: pieces for the copies, good until the next call */
const struct weft_piece *wfi_cuda_bounce_begin(struct wfi_cuda_ep *ep, uint32_t at,
					       const struct weft_piece *pieces);
/* the copies are done, or will never be (@lost) */
void wfi_cuda_bounce_end(struct wfi_cuda_ep *ep, uint32_t at, bool lost);

/* sums.c: of the GPU's memory, by the GPU */
void wfi_cuda_powers_init(struct wfi_cuda_device *dev);
/* Return: 0; as wfi_cuda_errno(), logged. Context: the GPU's is entered */
int wfi_cuda_sums_open(struct wfi_cuda_gpu *g);
void wfi_cuda_sums_close(struct wfi_cuda_gpu *g);
/* of the first @nr pieces, in a stream, on @far's side where it is given; *@tables: for the post,
 * whatever becomes of it. Return: 0, -EAGAIN no table is free; as wfi_cuda_errno(), logged */
int wfi_cuda_sums_start(struct wfi_cuda_gpu *g, const struct wfi_cuda_device *dev,
			const struct weft_piece *pieces, uint32_t nr, const struct wfi_cuda_mr *far,
			struct CUstream_st *stream, uint32_t *tables);
/* Return: how many tables that takes; of too many, some number above WFI_CUDA_TABLES */
uint64_t wfi_cuda_sums_tables(const struct weft_piece *pieces, uint32_t nr);
/* when that is done: of each piece */
void wfi_cuda_sums_end(const struct wfi_cuda_gpu *g, uint32_t tables, uint32_t *sums, uint32_t nr);

/* tune.c: how many bytes a piece has to have before the copy engine is faster. Return: 0; as
 * wfi_cuda_errno(), logged */
int wfi_cuda_tune(struct wfi_env *env, struct wfi_cuda_gpu *g);

#endif
