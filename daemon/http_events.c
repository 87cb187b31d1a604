/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_events.c - the node's ring of events, written out for each that listens
 *
 * A listener is a place in the ring and a buffer. Who lags behind what the ring keeps is told so,
 * and dropped. Who missed events is told all that is held, slice by slice, between events from
 * then on: a slice is as of when it was made, and what changes meanwhile is told by an event, too.
 * Events that are older than a slice may come after it, and in the end both agree.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_events.h"
#include "weft_internal/events.h"

#define LISTENERS_MAX 8u
#define KEPT (WFI_EVENTS_MAX / 2) /* events, for those who come back, and for the slow */
#define OUT_BYTES (8u << 10)
#define RUN_MAX 32u /* blocks of a message */
#define MESSAGE_MAX 1536u /* bytes: a key takes 35 */
#define SLICE 256u
#define SLICES_MAX 16u /* a turn: the control thread has others to serve */
#define POLL_MS 2 /* while events come: one poke for many */
#define BEAT_NS (15 * WFI_NSEC_PER_SEC) /* then something is sent: is anybody there? */
#define STALL_NS (10 * WFI_NSEC_PER_SEC)
#define LINGER_NS (60 * WFI_NSEC_PER_SEC)

struct http_listener {
	struct http_listener *prev, *next;
	struct http_feed *feed;
	const struct wfi_tenant *tenant;
	void *ctx;
	uint64_t seq; /* next event */
	uint64_t read_ns; /* it could be read from, or was */
	uint64_t said_ns; /* it got something */
	const char *gap; /* to be told; "": it is the beginning */
	bool waiting; /* has read all */
	bool slow, closed, ended;
	bool sweeping; /* what is held is being told */
	bool walked; /* .slice is the last one */
	unsigned nr_slices; /* in this turn */
	uint32_t at; /* of wfi_events_walk() */
	uint32_t slice_at, slice_nr;
	struct wfi_event slice[SLICE];
	size_t off, len; /* of .out */
	char out[OUT_BYTES];
};

struct http_feed {
	struct http_feed_opts o;
	struct wfi_events *events; /* NULL: nobody listens */
	struct http_listener *listeners;
	unsigned nr;
	bool stopped;
	uint64_t first; /* of the ring that is made next */
	uint64_t seen; /* number of the next event, a turn ago */
	uint64_t left_ns; /* the last one left */
};

/* ---- the ring ---- */

static void run_start(struct node *node, void *arg)
{
	wfi_events_start(arg, node->kv);
}

static void run_stop(struct node *node, void *arg)
{
	(void)node;
	wfi_events_stop(arg);
}

static void on_event(void *ctx)
{
	node_poke(ctx);
}

static int feed_begin(struct http_feed *f)
{
	const struct wfi_events_opts o = {
		.env = f->o.env,
		.first = f->first,
		.wake = on_event,
		.ctx = f->o.node,
	};
	int ret;

	if (f->events)
		return 0;
	ret = wfi_events_create(&o, &f->events);
	if (ret)
		return ret;
	f->seen = o.first;
	wfi_events_arm(f->events, o.first);
	node_call(f->o.node, run_start, f->events);
	return 0;
}

static void feed_end(struct http_feed *f)
{
	node_call(f->o.node, run_stop, f->events);
	/* what happens until the next one begins has no number: one is left out for it */
	f->first = wfi_events_next(f->events) + 1;
	wfi_events_destroy(f->events);
	f->events = NULL;
}

/* ---- what is said ---- */

__attribute__((format(printf, 2, 3))) static void say(struct http_listener *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	/* there is room for a whole message before it begins */
	l->len += (size_t)vsnprintf(l->out + l->len, sizeof(l->out) - l->len, fmt, ap);
	va_end(ap);
}

static void say_key(struct http_listener *l, const struct weft_key *key)
{
	say(l, "\"%016" PRIx64 "%016" PRIx64 "\"", key->hi, key->lo);
}

/* what was seen up to here is all that there was before, or will be known from what follows */
static void say_id(struct http_listener *l)
{
	say(l, "id: %016" PRIx64 "-%" PRIu64 "\n", wfi_kv_incarnation(l->feed->o.node->kv),
	    l->seq - 1);
}

static void say_blocks(struct http_listener *l, const struct wfi_event *const *run, unsigned nr)
{
	const struct wfi_event *ev = run[0];
	unsigned i;

	say(l, "event: %s\ndata: {\"space\":%" PRIu32 ",\"tier\":\"%s\",",
	    ev->gone ? "removed" : "stored", ev->space, ev->below ? "ssd" : "dram");
	if (!ev->gone) {
		say(l, "\"parent\":");
		if (ev->parent.lo || ev->parent.hi)
			say_key(l, &ev->parent);
		else
			say(l, "null");
		say(l, ",");
	}
	say(l, "\"keys\":");
	for (i = 0; i < nr; i++) {
		say(l, i ? "," : "[");
		say_key(l, &run[i]->key);
	}
	say(l, "]}\n\n");
}

/* may @next be said in one message with those that end with @last? */
static bool goes_on(const struct wfi_event *last, const struct wfi_event *next)
{
	return next->space == last->space && next->gone == last->gone &&
	       next->below == last->below &&
	       (next->gone || (next->parent.lo == last->key.lo && next->parent.hi == last->key.hi));
}

/* ---- one listener ---- */

static void gap(struct http_listener *l, const char *why)
{
	l->gap = why;
}

static void say_gap(struct http_listener *l)
{
	if (*l->gap)
		say(l, "event: gap\nid:\ndata: {\"why\":\"%s\"}\n\n", l->gap);
	say(l, "event: cleared\ndata: {}\n\n");
	l->gap = NULL;
	l->sweeping = true;
	l->walked = false;
	l->at = l->slice_at = l->slice_nr = 0;
	l->seq = wfi_events_next(l->feed->events);
}

/* Return: whether anything came, of this tenant or another */
static bool say_events(struct http_listener *l)
{
	const struct wfi_events *e = l->feed->events;
	const uint64_t next = wfi_events_next(e);
	const struct wfi_event *run[RUN_MAX], *ev;
	unsigned nr = 0;

	if (l->seq == next)
		return false;
	for (; l->seq < next && nr < RUN_MAX; l->seq++) {
		ev = wfi_events_get(e, l->seq);
		if (!ev && !nr)
			gap(l, "events came faster than they could be taken");
		if (ev && ev->anew && !nr)
			gap(l, "blocks of an earlier life were found");
		if (!ev || ev->anew || (nr && ev->tenant == l->tenant && !goes_on(run[nr - 1], ev)))
			break;
		if (ev->tenant == l->tenant)
			run[nr++] = ev;
	}
	if (!nr)
		return true;
	if (!l->sweeping)
		say_id(l);
	say_blocks(l, run, nr);
	return true;
}

static void run_slice(struct node *node, void *arg)
{
	struct http_listener *l = arg;

	l->slice_nr = wfi_events_walk(node->kv, l->tenant, &l->at, SLICE, l->slice);
}

static void say_held(struct http_listener *l)
{
	const struct wfi_event *run[RUN_MAX];
	unsigned nr = 0;

	if (l->slice_at < l->slice_nr) {
		do
			run[nr++] = &l->slice[l->slice_at++];
		while (l->slice_at < l->slice_nr && nr < RUN_MAX &&
		       goes_on(run[nr - 1], &l->slice[l->slice_at]));
		say_blocks(l, run, nr);
		return;
	}
	if (!l->walked) {
		l->slice_at = 0;
		node_call(l->feed->o.node, run_slice, l);
		l->walked = !l->at;
		l->nr_slices++;
		return;
	}
	l->sweeping = false;
	say(l, "event: synced\n");
	say_id(l);
	say(l, "data: {}\n\n");
}

/* one message at most. Return: whether there may be more */
static bool say_next(struct http_listener *l)
{
	bool more = true;

	if (l->closed) {
		say(l,
		    "event: closed\ndata: {\"why\":\"this node has no such tenant any more\"}\n\n");
		l->ended = true;
	} else if (l->slow) {
		say(l, "event: slow\ndata: {\"why\":\"this was read more slowly than blocks came "
		       "and went: go on from the last id\"}\n\n");
		l->ended = true;
	} else if (l->gap) {
		say_gap(l);
	} else {
		more = say_events(l);
		if (l->sweeping && !l->gap && OUT_BYTES - l->len >= MESSAGE_MAX) {
			say_held(l);
			more = l->nr_slices < SLICES_MAX;
		}
	}
	return more && !l->ended;
}

static void fill(struct http_listener *l)
{
	l->off = l->len = 0;
	l->nr_slices = 0;
	while (!l->ended && OUT_BYTES - l->len >= MESSAGE_MAX && say_next(l))
		;
	if (!l->len && !l->ended && wfi_now(l->feed->o.env) - l->said_ns >= BEAT_NS)
		say(l, ":\n\n");
}

ssize_t http_listener_read(struct http_listener *l, char *buf, size_t max)
{
	size_t n;

	if (l->off == l->len)
		fill(l);
	l->read_ns = wfi_now(l->feed->o.env);
	n = wfi_min(max, l->len - l->off);
	memcpy(buf, l->out + l->off, n);
	l->off += n;
	if (n) {
		l->said_ns = l->read_ns;
		return (ssize_t)n;
	}
	l->waiting = !l->ended;
	return l->ended ? -1 : 0;
}

/* ---- turns ---- */

static void resume(struct http_listener *l)
{
	l->waiting = false;
	l->read_ns = wfi_now(l->feed->o.env);
	l->feed->o.resume(l->ctx);
}

void http_listener_end(struct http_listener *l)
{
	l->ended = true;
	l->off = l->len = 0;
	if (l->waiting)
		resume(l);
}

static void waiting_turn(struct http_listener *l, uint64_t next, uint64_t now_ns)
{
	if (next - l->seq > KEPT)
		gap(l, "events came faster than they could be taken");
	if (next != l->seq || l->sweeping || now_ns - l->said_ns >= BEAT_NS)
		resume(l);
}

/* its tenant was closed by this thread, and had its token when it began to listen */
static void closed_turn(struct http_listener *l)
{
	l->closed = true;
	if (l->waiting)
		resume(l);
}

static void reading_turn(struct http_listener *l, uint64_t next, uint64_t now_ns)
{
	const uint64_t still_ns = now_ns - l->read_ns;

	/* one that is to be told all anew has no place that could be lost */
	if ((!l->gap && next - l->seq > KEPT) || still_ns > STALL_NS)
		l->slow = true;
	if (still_ns > 2 * STALL_NS)
		l->feed->o.cut(l->ctx);
}

int http_feed_turn(struct http_feed *f)
{
	struct http_listener *l;
	uint64_t next, now_ns;
	bool sweeping = false;

	if (!f->events || f->stopped)
		return -1;
	next = wfi_events_next(f->events);
	now_ns = wfi_now(f->o.env);
	for (l = f->listeners; l; l = l->next) {
		sweeping |= l->sweeping;
		if (wfi_tenant_closed(l->tenant))
			closed_turn(l);
		if (l->waiting)
			waiting_turn(l, next, now_ns);
		else
			reading_turn(l, next, now_ns);
	}
	wfi_events_keep(f->events, KEPT);
	if (!f->listeners) {
		if (now_ns - f->left_ns < LINGER_NS)
			return (int)((f->left_ns + LINGER_NS - now_ns) / WFI_NSEC_PER_MSEC) + 1;
		feed_end(f);
		return -1;
	}
	if (sweeping || next != f->seen || !wfi_events_arm(f->events, next)) {
		f->seen = next;
		return POLL_MS;
	}
	return (int)(STALL_NS / WFI_NSEC_PER_MSEC);
}

void http_feed_stop(struct http_feed *f)
{
	struct http_listener *l;

	f->stopped = true;
	if (!f->events)
		return;
	node_call(f->o.node, run_stop, f->events);
	for (l = f->listeners; l; l = l->next)
		http_listener_end(l);
}

/* ---- beginning and end ---- */

/* Return: 0, -EINVAL */
static int place_find(struct http_listener *l, const char *last)
{
	uint64_t life, seq;
	int end = 0;

	if (!last || !*last) {
		gap(l, "");
		return 0;
	}
	if (strlen(last) > 37 || strspn(last, "0123456789abcdef") != 16 ||
	    sscanf(last, "%16" SCNx64 "-%20" SCNu64 "%n", &life, &seq, &end) != 2 || last[end])
		return -EINVAL;
	l->seq = seq + 1;
	if (life != wfi_kv_incarnation(l->feed->o.node->kv))
		gap(l, "the node has started anew");
	else if (l->seq < wfi_events_first(l->feed->events) ||
		 l->seq > wfi_events_next(l->feed->events))
		gap(l, "what came after this id is not kept any more");
	return 0;
}

int http_listener_create(struct http_feed *f, const struct wfi_tenant *tenant, const char *last,
			 void *ctx, struct http_listener **out, char why[HTTP_WHY])
{
	struct http_listener *l;
	int ret;

	if (f->nr == LISTENERS_MAX) {
		snprintf(why, HTTP_WHY, "%u listen already, which is as many as may",
			 LISTENERS_MAX);
		return -EBUSY;
	}
	l = wfi_alloc(f->o.env, sizeof(*l));
	ret = l ? feed_begin(f) : -ENOMEM;
	if (ret) {
		snprintf(why, HTTP_WHY, "no memory for events");
		goto err_free;
	}
	l->feed = f;
	l->tenant = tenant;
	l->ctx = ctx;
	l->read_ns = l->said_ns = wfi_now(f->o.env);
	ret = place_find(l, last);
	if (ret) {
		snprintf(why, HTTP_WHY, "Last-Event-ID: that is none of the ids that were sent");
		goto err_free;
	}
	l->next = f->listeners;
	if (l->next)
		l->next->prev = l;
	f->listeners = l;
	f->nr++;
	*out = l;
	return 0;

err_free:
	if (l)
		wfi_free(f->o.env, l, sizeof(*l));
	return ret;
}

void http_listener_destroy(struct http_listener *l)
{
	struct http_feed *f;

	if (!l)
		return;
	f = l->feed;
	if (l->prev)
		l->prev->next = l->next;
	else
		f->listeners = l->next;
	if (l->next)
		l->next->prev = l->prev;
	f->nr--;
	f->left_ns = wfi_now(f->o.env);
	wfi_free(f->o.env, l, sizeof(*l));
}

int http_feed_create(const struct http_feed_opts *opts, struct http_feed **out)
{
	struct http_feed *f = wfi_alloc(opts->env, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->o = *opts;
	f->first = 1;
	*out = f;
	return 0;
}

void http_feed_destroy(struct http_feed *f)
{
	if (!f)
		return;
	wfi_events_destroy(f->events);
	wfi_free(f->o.env, f, sizeof(*f));
}
