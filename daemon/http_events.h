/* SPDX-License-Identifier: Apache-2.0 */
/**
 * http_events.h - who listens to what comes and goes in this node's memory and SSD tier
 *
 * Server-sent events, in the format of the HTML standard, section 9.2:
 *
 *	event: cleared   forget what was said: all that is held follows
 *	event: stored    {"space": 4097, "tier": "dram", "parent": "32 hex digits" or null,
 *	                 "keys": ["32 hex digits", ...]}, a chain: each is the next one's parent
 *	event: removed   {"space": 4097, "tier": "dram", "keys": [...]}, in any order. The
 *	                 tier is "dram" or "ssd": blocks come to and go from each by itself
 *	event: synced    {}: that was all that is held, by now
 *	event: gap       {"why": "a sentence"}, before a cleared: events are missing
 *	event: slow      {"why": "a sentence"}, then the stream ends: it was read too slowly
 *	event: closed    {"why": "a sentence"}, then the stream ends: its tenant is closed
 *
 * Events that all before are known with have an id, from which a later request goes on. As long as
 * somebody listens, and for LINGER_NS after, the worker tells of what it does.
 */
#ifndef WEFTD_HTTP_EVENTS_H
#define WEFTD_HTTP_EVENTS_H

#include <sys/types.h>
#include "http_query.h"
#include "node.h"

struct http_feed;
struct http_listener;

struct http_feed_opts {
	struct wfi_env *env;
	struct node *node;
	/* of http_listener_create()'s @ctx: there is something to read again, or it ends */
	void (*resume)(void *ctx);
	/* it does not read: its connection is to be cut */
	void (*cut)(void *ctx);
};

/* Context: control thread, all of these. Return: 0, -ENOMEM */
int http_feed_create(const struct http_feed_opts *opts, struct http_feed **out);
/* it was stopped, or never listened to. Takes NULL */
void http_feed_destroy(struct http_feed *f);
/* Return: ms until it must be called again, -1: when the worker pokes */
int http_feed_turn(struct http_feed *f);
/* all that listen end; the worker is asked no more */
void http_feed_stop(struct http_feed *f);

/*
 * @last: id of the event that was seen last; NULL: none was. Return: 0; -EINVAL that is no id;
 * -EBUSY others listen; -ENOMEM; with a sentence in @why
 */
int http_listener_create(struct http_feed *f, const struct wfi_tenant *tenant, const char *last,
			 void *ctx, struct http_listener **out, char why[HTTP_WHY]);
/* takes NULL */
void http_listener_destroy(struct http_listener *l);
/* nothing is read of it any more */
void http_listener_end(struct http_listener *l);
/* Return: bytes written; 0: nothing now, .resume will be called; -1: it has ended */
ssize_t http_listener_read(struct http_listener *l, char *buf, size_t max);

#endif
