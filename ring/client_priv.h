/* SPDX-License-Identifier: Apache-2.0 */
/* client_priv.h - what the client's files share; private to ring/ */
#ifndef WFI_RING_CLIENT_PRIV_H
#define WFI_RING_CLIENT_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "ring/args.h"
#include "weft/weft.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/client.h"
#include "weft_internal/spin.h"
#include "weft_internal/util.h"

#define WFI_REGIONS_MAX 4096u /* numbers of an engine's regions; 0 is the arena */

struct wfi_ctl_call {
	struct weft_ctl_req req; /* .type, .id and .u are the caller's */
	struct weft_ctl_rep rep;
	int fd_in; /* goes with the request; -1: none */
	int dmabuf; /* goes with it, too, if the request says that it has one */
	int fd_out; /* came with the answer, the caller's; -1: none */
	bool wants_fd; /* an answer without one is refused */
};

#define WFI_REGION_EVENT 2u /* .addr is a CUevent */

struct region {
	struct region *next;
	uint32_t number; /* the engine's */
	void *addr;
	uint64_t len;
	uint64_t fd_off;
	int fd; /* our own copy, or -1 */
	uint32_t kind; /* enum weft_region_kind, or WFI_REGION_EVENT */
	uint64_t beside; /* of an event: memory on its GPU */
	struct wfi_gpu_shape shape;
};

struct weft_space {
	struct weft *w;
	struct weft_space *next;
	uint32_t id; /* changes with weft_reattach() */
	uint32_t tokens_per_block;
	uint64_t block_bytes;
	uint8_t secret[16];
	struct weft_ctl_req req; /* to open it again */
};

/*
 * The session with one node. The lock guards the socket and the lists; the ring's threads read
 * .attached, .arena and .region_ids without it.
 */
struct weft {
	uint32_t attached; /* atomic */
	uint32_t regions_moved; /* atomic; some .region_ids[i] is not i */
	uint32_t nr_rings; /* atomic */
	int fd;
	void *arena;
	uint64_t arena_bytes;
	void *old_arena;
	uint64_t old_arena_bytes;

	pthread_mutex_t lock;
	struct wfi_connector *connector;
	struct weft_space *spaces;
	struct weft_ring *rings;
	struct region *regions;
	struct wfi_watch *watch; /* NULL: no ring has signals */
	uint64_t incarnation;
	pid_t node_pid;
	pid_t pid; /* of the process that attached: a child made by fork() is not the engine */
	unsigned stale; /* answers that were given up on, and are still to come */
	bool silent; /* the last request had no answer in its time */
	char token[WEFT_TOKEN_MAX];
	char name[WEFT_NAME_MAX];
	uint32_t region_ids[WFI_REGIONS_MAX]; /* atomic; the node's number for the engine's */
};

#define WFI_NO_FLIGHT UINT32_MAX

enum wfi_flight_state {
	WFI_FLIGHT_FREE = 0,
	WFI_FLIGHT_OPEN,
	WFI_FLIGHT_LOST, /* its node is gone: to be completed with -ECONNRESET */
};

/* an open operation. Its index and generation travel as weft_sqe.user_data */
struct wfi_flight {
	uint64_t user_data;
	void *out; /* slots, results, where or stat; NULL: not wanted */
	struct weft_ticket *ticket;
	struct weft_message *message;
	uint32_t gen;
	uint32_t next; /* when free */
	uint32_t nr;
	uint32_t arg_off;
	uint32_t out_off; /* of the out array, in the argument area */
	uint16_t out_kind; /* one of enum wfi_arg */
	uint8_t arg_class; /* WFI_ARGS_NONE: no arguments */
	uint8_t state;
	uint8_t op;
	uint8_t nr_routes;
	uint8_t reserved[6];
};

_Static_assert(sizeof(struct wfi_flight) == 64, "one cache line each");

/* what an operation has in its argument area, in this order */
enum wfi_arg {
	WFI_ARG_PARENT = 1u << 0,
	WFI_ARG_EXPECT = 1u << 1,
	WFI_ARG_PUSH = 1u << 2,
	WFI_ARG_KEYS = 1u << 3,
	WFI_ARG_PLACES = 1u << 4,
	WFI_ARG_SLOTS_IN = 1u << 5,
	WFI_ARG_SLOTS_OUT = 1u << 6,
	WFI_ARG_RESULTS = 1u << 7,
	WFI_ARG_WHERE = 1u << 8,
	WFI_ARG_STAT = 1u << 9,
	WFI_ARG_CHANNEL = 1u << 11,
	WFI_ARG_MESSAGE = 1u << 12,
	WFI_ARG_LAYOUT = 1u << 13, /* behind EXPECT or PUSH */
	WFI_ARG_ROUTE = 1u << 14, /* and as many routes as it says */
	WFI_ARG_SIGNAL = 1u << 15, /* behind an out array, at a multiple of 8 */
	WFI_ARG_SPACE = 1u << 10, /* not in the area: the operation needs a space */
};

#define WFI_ARG_OUT                                                                                \
	((unsigned)WFI_ARG_SLOTS_OUT | WFI_ARG_RESULTS | WFI_ARG_WHERE | WFI_ARG_STAT |            \
	 WFI_ARG_ROUTE)

/* Context: the ring's thread */
struct weft_ring {
	struct weft *w;
	uint64_t *sq;
	const uint64_t *cq;
	struct weft_ring_line *engine;
	const struct weft_ring_line *node;
	char *arg;
	struct wfi_flight *flights;
	uint32_t sq_mask;
	uint32_t sq_pos;
	uint32_t sq_head; /* the node's head when last looked at */
	uint32_t cq_mask;
	uint32_t cq_pos;
	uint32_t cq_shown; /* what .engine->head says */
	uint32_t cq_quarter;
	uint32_t first_free; /* flight */
	uint32_t nr_open; /* lost ones included */
	uint32_t nr_lost;
	uint32_t nr_flights;
	uint32_t empties; /* polls without a completion, in a row */
	struct wfi_spin spin; /* of weft_wait() */
	uint64_t checked_ns; /* when the socket was last looked at */
	struct wfi_signals *signals; /* NULL: streams wait for nothing of this ring */
	struct wfi_args args;

	struct weft_ring *next;
	void *map;
	uint64_t map_len;
	uint32_t id;
	uint32_t depth; /* as asked for */
	uint32_t arg_bytes;
};

static inline bool wfi_client_alive(const struct weft *w)
{
	return __atomic_load_n(&w->attached, __ATOMIC_RELAXED);
}

/* client.c */

/* whether this process is the engine, and not a child that fork() copied it into */
bool wfi_client_ours(const struct weft *w);
/* arena and rings: a child that held them would be a second writer, which outlives the engine */
void wfi_client_keep(void *addr, uint64_t len);
/* a child has nothing there, or something of its own */
void wfi_client_unmap(const struct weft *w, void *addr, uint64_t len);

/* one request, one answer; -errno of either. Context: w->lock held; takes at most @timeout_ms */
int wfi_client_ctl(struct weft *w, struct wfi_ctl_call *call, int timeout_ms);
/* the same with the lock taken */
int wfi_client_ctl_locked(struct weft *w, struct wfi_ctl_call *call, int timeout_ms);
#define WFI_CTL_TIMEOUT_MS 5000
#define WFI_CTL_REMOVE_MS 60000 /* a space of many blocks */
#define WFI_CTL_DRIVER_MS 60000 /* a GPU's driver, asked for much memory */
#define WFI_CTL_END_TIMEOUT_MS 30000 /* answers that wait for the end of operations */
/* asks the kernel whether the socket hung up. Return: whether the session lives. Cold */
bool wfi_client_check(struct weft *w);
int wfi_client_gone(void); /* Return: -ECONNRESET, with the sentence */

/* client_space.c; with w->lock held */
int wfi_space_reopen(struct weft_space *space);
int wfi_region_reopen(struct weft *w, struct region *region);
void wfi_region_forget(struct weft *w, struct region *region);
struct region *wfi_region_find(struct weft *w, uint32_t number);
/* takes the lock: one of our own, which is there, goes */
void wfi_region_drop(struct weft *w, uint32_t number);

/* client_gpu.c: a region of a GPU in @req, and what goes beside it in *@fd, -1 or the caller's to
 * close. Return: 0, -errno with the sentence */
int wfi_region_export(const struct region *region, struct weft_ctl_req *req, int *fd, int *dmabuf);

/* client_signal.c. Context: the ring's thread; hot */

/* of a get that is about to be posted: its argument to @to, and the caller's struct weft_signal */
void wfi_signal_begin(struct weft_ring *ring, uint32_t flight, const struct weft_op *op, char *to);
/* the operation has ended: if it had a signal, that is given, whether or not the node has */
void wfi_signal_end(struct weft_ring *ring, uint32_t flight);
/* what the node is told where .timeout_us is 0: after which time nobody waits is known here */
#define WFI_SIGNAL_TIMEOUT_US 5000000u

/* no stream waits for the ring any more; its streams' GPU is idle on return. Cold */
void wfi_signals_close(struct weft_ring *ring);
/* the session has another socket, or, before that, none. Context: .lock is held */
void wfi_watch_socket(struct weft *w, int fd);
/* there are no signals any more. Cold */
void wfi_watch_stop(struct weft *w);

/* client_ring.c; the same */
int wfi_ring_reopen(struct weft_ring *ring);
/* every open operation is to complete with -ECONNRESET; their argument areas are free again */
void wfi_ring_lose(struct weft_ring *ring);

/* client_post.c, client_poll.c */

/* shows what was consumed, wakes the node if it sleeps */
void wfi_ring_show(struct weft_ring *ring);
/* the node broke the protocol: the session ends. Return: -ECONNRESET */
int wfi_ring_broken(struct weft_ring *ring);

#endif
