/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ring_server.h - the node's side of one ring: takes submissions, gives completions
 *
 * Everything in the segment is input: copied once, then checked. A ring that breaks the protocol
 * gives -EPROTO from then on; the caller detaches the engine.
 *
 * Context: one worker thread, but create and destroy, which are cold and may run anywhere while no
 * worker has the ring.
 */
#ifndef WFI_RING_SERVER_H
#define WFI_RING_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/ring.h"
#include "weft_internal/env.h"

struct wfi_ring;

struct wfi_ring_opts {
	uint32_t sq_depth; /* power of two, 0: 256 */
	uint32_t cq_depth; /* power of two >= sq_depth, 0: twice sq_depth */
	uint32_t arg_bytes; /* multiple of 4096, 0: 4 MiB */
};

/* bytes of the segment that such a ring has. Return: 0 when an option is out of range */
uint64_t wfi_ring_need(const struct wfi_ring_opts *opts);
/* Return: 0, -EINVAL (out of range), -ENOMEM, -ENOSPC */
int wfi_ring_create(struct wfi_env *env, const struct wfi_ring_opts *opts, struct wfi_ring **out);
void wfi_ring_destroy(struct wfi_ring *ring);
int wfi_ring_fd(const struct wfi_ring *ring); /* borrowed; sealed */
uint64_t wfi_ring_len(const struct wfi_ring *ring);

/**
 * wfi_ring_take - private copies of the next submissions
 *
 * Takes no more than the completion queue has room for: each taken entry owes one completion.
 * Hot. Return: how many, 0 when there is none (or no room), -EPROTO.
 */
int wfi_ring_take(struct wfi_ring *ring, struct weft_sqe *out, unsigned max);
/* Hot. @dst gets a private copy of arguments. Return: 0, -EFAULT when outside the argument area */
int wfi_ring_args_read(const struct wfi_ring *ring, uint64_t off, void *dst, uint64_t len);
int wfi_ring_args_write(struct wfi_ring *ring, uint64_t off, const void *src, uint64_t len);
/* true when [off, off+len) lies in the argument area: outputs are checked at submission */
bool wfi_ring_args_ok(const struct wfi_ring *ring, uint64_t off, uint64_t len);
/**
 * wfi_ring_complete - write one completion; .seq is filled in here
 *
 * The last completion of an operation always has room. One with WEFT_CQE_MORE may meet a full
 * queue. Hot. Return: 0, -EAGAIN no room for an event: keep it, -EPROTO.
 */
int wfi_ring_complete(struct wfi_ring *ring, const struct weft_cqe *cqe);
/* once a batch: shows what was consumed, wakes the engine if it sleeps. Hot */
void wfi_ring_flush(struct wfi_ring *ring);

/* before the worker sleeps. Return: true when there is work: do not sleep. Else @futex and @val are
 * for FUTEX_WAITV (32 bits, shared) */
bool wfi_ring_sleep(struct wfi_ring *ring, const uint32_t **futex, uint32_t *val);
void wfi_ring_awake(struct wfi_ring *ring);
/* the node stops: wake whoever waits, so that it sees its socket hang up */
void wfi_ring_kick(struct wfi_ring *ring);

#endif
