/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pace.h - how far apart comes what comes evenly, and when to be awake for the next
 *
 * Who sleeps meanwhile is late by what waking takes; who is awake all the time takes a core for it.
 */
#ifndef WFI_PACE_H
#define WFI_PACE_H

#include "weft_internal/env.h"
#include "weft_internal/util.h"

/* so long before it is due: what waking takes, and that it may be early */
#define PACE_EARLY_NS (100 * WFI_NSEC_PER_USEC)

/* zeros are one that nothing has come of */
struct pace {
	uint64_t last_ns; /* when it came */
	uint64_t apart_ns; /* 0: not known, or too long to wait for */
};

/* @max_ns: what comes less often, waking hardly delays */
static inline void pace_take(struct pace *p, uint64_t now_ns, uint64_t max_ns)
{
	const uint64_t apart_ns = now_ns - p->last_ns;

	p->apart_ns = p->last_ns && apart_ns <= max_ns ? apart_ns : 0;
	p->last_ns = now_ns;
}

/* Return: until when the next one may come at any moment, or 0, and then *@event_ns is no later
 * than when to look again */
static inline uint64_t pace_awaited_ns(const struct pace *p, uint64_t now_ns, uint64_t *event_ns)
{
	const uint64_t apart_ns = p->apart_ns, due_ns = p->last_ns + apart_ns;
	const uint64_t from_ns = due_ns - wfi_min(apart_ns, apart_ns / 16 + PACE_EARLY_NS);

	if (!apart_ns)
		return 0;
	if (now_ns >= from_ns)
		return due_ns + apart_ns / 8;
	*event_ns = wfi_min(*event_ns, from_ns);
	return 0;
}

#endif
