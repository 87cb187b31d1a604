/* SPDX-License-Identifier: Apache-2.0 */
/**
 * http.h - what others than engines and nodes may ask: figures, members, routes, events
 *
 * An HTTP/1.1 server, libmicrohttpd's, in the control thread's loop. Requests are bounded in bytes
 * and time, connections in number. It speaks no TLS, and listens on loopback unless somebody said
 * that the network is trusted.
 *
 *	GET /metrics       counters and histograms: Prometheus text, or OpenMetrics where it is
 *	                   accepted
 *	GET /healthz       200 while the worker answers, 503 once the node drains
 *	GET /members       this node, its peers, and the members of its cluster
 *	GET, POST /route   which node is best for a chain: http_query.h. Of the tenant whose token
 *	                   is given as "Authorization: Bearer TOKEN"
 *	GET /events        what comes and goes in this node's memory, of that tenant, as it happens:
 *	                   http_events.h
 *
 * What goes wrong is answered by {"error": "a sentence"}.
 */
#ifndef WEFTD_HTTP_H
#define WEFTD_HTTP_H

#include "control.h"

struct http;

struct http_opts {
	struct wfi_env *env;
	struct node *node;
	const char *listen; /* IP:PORT */
};

/* Return: 0; -EADDRINUSE, other -errno: logged; -EOPNOTSUPP not built in, logged */
int http_create(const struct http_opts *opts, struct http **out);
/* after control_destroy(). Takes NULL */
void http_destroy(struct http *h);
/* for control_opts; NULL for NULL. Lives as long as @h */
const struct control_guest *http_guest(const struct http *h);

#endif
