/* SPDX-License-Identifier: Apache-2.0 */
/**
 * transport_registry.h - which providers this build has, and the fault injector that wraps them
 */
#ifndef WFI_TRANSPORT_REGISTRY_H
#define WFI_TRANSPORT_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/transport.h"
#include "weft_internal/env.h"

/* NULL-terminated, in order of preference; fits wfi_env.transports */
extern const struct weft_transport *const wfi_transports[];
/* Return: the provider of that name, or NULL. @list: NULL stands for wfi_transports */
const struct weft_transport *wfi_transport_find(const struct weft_transport *const *list,
						const char *name);

/**
 * struct wfi_fault_opts - what goes wrong, in parts per million of posts or completions
 * @seed: equal seeds and equal calls give equal faults
 * @delay_ppm: a completion is held back for up to @delay_max_ns of the device's env clock
 * @eagain_ppm: a post meets a full queue; a storm of up to @eagain_run posts follows
 * @op_ppm, @ep_ppm, @device_ppm: a post fails with -EIO and that scope
 * @drop_ppm: a post after which the connection is gone (-ECONNRESET)
 * @stop_ppm: a post after which nothing of this endpoint completes any more, until it is shut down
 * @never: nothing completes while this is set, whatever is shut down
 * @never_ep: of this endpoint alone; NULL: of all
 * @late_ppm: the bytes of a post, and all that is posted behind it, move up to @late_max_ns later,
 *	whatever became of their transfer meanwhile. An endpoint that is shut down lets some of them
 *	land on that occasion, and none afterwards
 * @dup_ppm: bytes of a read land twice, from the wrong place the second time
 * @truncate_ppm: the second half of a read piece does not land
 * @corrupt_ppm: one bit of a read piece is flipped
 * @cost_per_piece_ns, @cost_per_mib_ns: what devices that are opened then say in their caps, so
 * that any provider is one whose pieces cost; 0: what the inner one says
 */
struct wfi_fault_opts {
	uint64_t seed;
	uint64_t delay_max_ns;
	uint32_t delay_ppm;
	uint32_t eagain_ppm;
	uint32_t eagain_run;
	uint32_t op_ppm;
	uint32_t ep_ppm;
	uint32_t device_ppm;
	uint32_t drop_ppm;
	uint32_t stop_ppm;
	bool never;
	const struct weft_ep *never_ep;
	uint64_t late_max_ns;
	uint32_t late_ppm;
	uint32_t dup_ppm;
	uint32_t truncate_ppm;
	uint32_t corrupt_ppm;
	uint32_t cost_per_piece_ns;
	uint64_t cost_per_mib_ns;
};

/* how often each came; for tests that must see that it did */
struct wfi_fault_stats {
	uint64_t delayed;
	uint64_t eagain;
	uint64_t op;
	uint64_t ep;
	uint64_t device;
	uint64_t dropped;
	uint64_t stopped;
	uint64_t late;
	uint64_t late_at_end; /* landed in a shutdown */
	uint64_t late_lost; /* did not land at all */
	uint64_t duplicated;
	uint64_t truncated;
	uint64_t corrupted;
};

/**
 * wfi_fault_create - a transport that wraps another and makes it fail
 * @inner: must outlive the result
 * @opts: copied
 *
 * Context: the result, its devices and the calls below belong to one thread.
 */
int wfi_fault_create(const struct weft_transport *inner, const struct wfi_fault_opts *opts,
		     struct weft_transport **out);
/* all devices of it are closed */
void wfi_fault_destroy(struct weft_transport *t);
/* from now on; the seed is not touched */
void wfi_fault_set(struct weft_transport *t, const struct wfi_fault_opts *opts);
void wfi_fault_stats(const struct weft_transport *t, struct wfi_fault_stats *out);

#endif
