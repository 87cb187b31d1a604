/* SPDX-License-Identifier: Apache-2.0 */
/**
 * events.h - what comes and goes in a node's memory and in its SSD tier, for one other thread
 *
 * A ring of fixed size, which the worker fills and one reader empties. Neither waits for the other:
 * what finds no room is lost, and its number tells that it was. What the reader has read stays for
 * those that come later, until it lets it go.
 */
#ifndef WFI_EVENTS_H
#define WFI_EVENTS_H

#include "weft_internal/kvcache.h"
#include "weft_internal/util.h"

#define WFI_EVENTS_MAX (1u << 15) /* of 64 bytes: 2 MiB */

struct wfi_events;

struct wfi_event {
	uint64_t seq;
	const struct wfi_tenant *tenant; /* to compare with */
	struct weft_key key;
	struct weft_key parent; /* of a block that came; zero: none */
	uint32_t space;
	bool gone; /* it went */
	bool below; /* of the SSD tier, not of memory */
	bool anew; /* no block: far more lies there than was told, of whichever tenant */
	uint8_t reserved[9];
};
WEFT_STATIC_ASSERT(sizeof(struct wfi_event) == WFI_CACHELINE, "one line each");

struct wfi_events_opts {
	struct wfi_env *env;
	uint64_t first; /* number of the first event, not 0 */
	void (*wake)(void *ctx); /* as wfi_events_arm() says. Context: worker */
	void *ctx;
};

/* Context: any thread. Return: 0, -ENOMEM */
int wfi_events_create(const struct wfi_events_opts *opts, struct wfi_events **out);
/* it is neither filled nor read any more. Takes NULL */
void wfi_events_destroy(struct wfi_events *e);

/* the ring is filled from here on, until wfi_events_stop(). Context: worker */
void wfi_events_start(struct wfi_events *e, struct wfi_kv *kv);
void wfi_events_stop(struct wfi_events *e);

/**
 * wfi_events_walk - what of a tenant's is held now, as if it came
 * @at: 0, then as it was left; 0 again when that was all
 * @out: .seq is 0
 *
 * Looks at up to @max slots, of memory, then of the SSD tier. Who has read no event beyond the
 * number that wfi_events_next() said before the first slice knows all after the last slice and the
 * events from that number on. Context: worker. Return: how many were written
 */
uint32_t wfi_events_walk(struct wfi_kv *kv, const struct wfi_tenant *tenant, uint32_t *at,
			 uint32_t max, struct wfi_event *out);

/* Context of all below: the reader's thread */

/* Return: the number of the event that comes next */
uint64_t wfi_events_next(const struct wfi_events *e);
/* Return: the lowest number that is still kept, if it was not lost */
uint64_t wfi_events_first(const struct wfi_events *e);
/* good until it is let go. Return: NULL: it was lost, was let go, or has not come */
const struct wfi_event *wfi_events_get(const struct wfi_events *e, uint64_t seq);
/* all but the latest @nr are let go, and make room */
void wfi_events_keep(struct wfi_events *e, uint64_t nr);
/* .wake is called once, with the first event from number @seq on. Return: false: that is there */
bool wfi_events_arm(struct wfi_events *e, uint64_t seq);

#endif
