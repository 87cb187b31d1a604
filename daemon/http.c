/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.c - requests over HTTP, in the control thread
 *
 * libmicrohttpd reads, parses and writes, whenever its epoll says so. A connection that takes
 * longer than REQUEST_NS for a request, whatever it dribbles meanwhile, is shut down. A route waits
 * for the worker: its connection is suspended until the worker has poked this thread. One that
 * listens to events is suspended while there are none.
 */
#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"
#include "http_events.h"
#include "http_route.h"
#include "inet.h"
#include "weft_internal/log.h"

#define CONNS_MAX 64u
#define CONN_BYTES (32u << 10) /* of a connection: its head has to fit */
#define BODY_MAX (1u << 20)
#define REQUEST_NS (10 * WFI_NSEC_PER_SEC)
#define WATCH_MS 250
#define EVENTS_BYTES (64 << 10) /* that the kernel keeps for one that listens */

/* one connection, from accept to close */
struct visitor {
	struct visitor *prev, *next;
	int fd;
	uint64_t since_ns; /* its request began, or the one before ended */
	struct http_listener *listener; /* to events, for as long as it likes; or NULL */
};

struct request;

struct http {
	struct wfi_env *env;
	struct node *node;
	struct control *control; /* as of the last turn */
	struct control_guest guest;
	struct MHD_Daemon *d;
	struct visitor *visitors;
	struct request *waiting; /* for the worker */
	struct http_feed *feed;
};

struct endpoint {
	const char *path;
	bool post; /* it takes a body, too */
	enum MHD_Result (*answer)(struct request *r);
};

struct request {
	struct http *http;
	struct MHD_Connection *conn;
	const struct endpoint *endpoint;
	bool has_body;
	bool too_large;
	char *body;
	size_t len;
	struct http_route *route; /* NULL: none was asked for yet */
	struct request *next; /* waiting */
	struct http_listener *listener; /* NULL: it asks for no events */
};

/* ---- answers ---- */

/* takes @text, malloc'ed; NULL: no memory */
static enum MHD_Result answer(struct request *r, unsigned status, const char *type, char *text)
{
	struct MHD_Response *resp;
	enum MHD_Result ret;

	if (!text)
		return MHD_NO;
	resp = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!resp) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(resp, "Content-Type", type);
	MHD_add_response_header(resp, "Cache-Control", "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(resp, "Allow", r->endpoint->post ? "GET, POST" : "GET");
	ret = MHD_queue_response(r->conn, status, resp);
	MHD_destroy_response(resp);
	return ret;
}

/* takes @json */
static enum MHD_Result answer_json(struct request *r, unsigned status, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return answer(r, status, "application/json", text);
}

static enum MHD_Result answer_error(struct request *r, unsigned status, const char *why)
{
	return answer_json(r, status, json_pack("{s:s}", "error", why));
}

/* ---- /metrics ---- */

static char *metrics_text(struct http *h, enum wfi_metrics_text form)
{
	struct wfi_metrics_view *v;
	char *text = NULL;
	int len;

	if (wfi_metrics_view_open(wfi_metrics_fd(h->node->metrics), &v))
		return NULL;
	len = wfi_metrics_format(v, form, NULL, 0);
	/* numbers may have grown meanwhile */
	len += len / 8 + 1;
	text = malloc((size_t)len);
	if (text && wfi_metrics_format(v, form, text, (size_t)len) >= len) {
		free(text);
		text = NULL;
	}
	wfi_metrics_view_close(v);
	return text;
}

static enum MHD_Result on_metrics(struct request *r)
{
	const char *accept = MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, "Accept");
	const bool open = accept && strstr(accept, "application/openmetrics-text");

	return answer(r, MHD_HTTP_OK,
		      open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
			   : "text/plain; version=0.0.4; charset=utf-8",
		      metrics_text(r->http, open ? WFI_METRICS_OPEN : WFI_METRICS_PLAIN));
}

/* ---- whose question ---- */

struct tenant_call {
	char token[WEFT_TOKEN_MAX];
	struct wfi_tenant *tenant;
};

static void run_tenant(struct node *node, void *arg)
{
	struct tenant_call *call = arg;

	call->tenant = wfi_kv_tenant_find(node->kv, call->token);
}

/* Return: 0, -EACCES with a sentence in @why */
static int tenant_of(const struct request *r, const struct wfi_tenant **out, char why[HTTP_WHY])
{
	const char *text = MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, "Authorization");
	const char *token = text && !strncasecmp(text, "Bearer ", 7) ? text + 7 : "";
	struct tenant_call call = { .tenant = NULL };

	/* as tokens are compared: padded, and one that is longer than any is nobody's */
	if (strlen(token) <= sizeof(call.token)) {
		memcpy(call.token, token, strlen(token));
		node_call(r->http->node, run_tenant, &call);
	}
	if (!call.tenant) {
		snprintf(why, HTTP_WHY,
			 "no tenant has this token: send it as \"Authorization: Bearer TOKEN\"");
		return -EACCES;
	}
	*out = call.tenant;
	return 0;
}

static enum MHD_Result answer_errno(struct request *r, int ret, const char *why)
{
	return answer_error(r,
			    ret == -EACCES   ? MHD_HTTP_FORBIDDEN
			    : ret == -ENOENT ? MHD_HTTP_NOT_FOUND
			    : ret == -EINVAL ? MHD_HTTP_BAD_REQUEST
					     : MHD_HTTP_SERVICE_UNAVAILABLE,
			    why);
}

/* ---- /healthz, /members ---- */

static void run_nothing(struct node *node, void *arg)
{
	(void)node;
	(void)arg;
}

static enum MHD_Result on_healthz(struct request *r)
{
	struct node *node = r->http->node;

	node_call(node, run_nothing, NULL);
	if (node->draining)
		return answer_json(r, MHD_HTTP_SERVICE_UNAVAILABLE,
				   json_pack("{s:s}", "status", "draining"));
	return answer_json(r, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

static enum MHD_Result on_members(struct request *r)
{
	char *text = control_status_json(r->http->control);
	json_t *all = text ? json_loads(text, 0, NULL) : NULL, *out = NULL;

	free(text);
	if (all)
		out = json_pack("{s:O?, s:O?, s:O?}", "node", json_object_get(all, "node"), "peers",
				json_object_get(all, "peers"), "network",
				json_object_get(all, "network"));
	json_decref(all);
	return answer_json(r, MHD_HTTP_OK, out);
}

/* ---- /route ---- */

struct arguments {
	struct http_query *q;
	char *why;
	int ret;
};

static enum MHD_Result on_argument(void *ctx, enum MHD_ValueKind kind, const char *key,
				   const char *value)
{
	struct arguments *a = ctx;

	(void)kind;
	a->ret = http_query_arg(a->q, key, value ? value : "", a->why);
	return a->ret ? MHD_NO : MHD_YES;
}

/* Return: 0, -EINVAL with a sentence in @why */
static int question(struct request *r, struct http_query *q, char why[HTTP_WHY])
{
	struct arguments a = { .q = q, .why = why };

	MHD_get_connection_values(r->conn, MHD_GET_ARGUMENT_KIND, on_argument, &a);
	if (!a.ret && r->has_body)
		a.ret = http_query_json(q, r->body ? r->body : "", r->len, why);
	return a.ret ? a.ret : http_query_check(q, why);
}

static enum MHD_Result on_route(struct request *r)
{
	struct http *h = r->http;
	const struct wfi_tenant *tenant;
	char why[HTTP_WHY] = "";
	int ret;

	if (r->route)
		return answer_json(r, MHD_HTTP_OK, http_route_json(r->route));
	r->route = http_route_create(h->node);
	if (!r->route)
		return answer_error(r, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory for the question");
	ret = question(r, http_route_query(r->route), why);
	if (!ret)
		ret = tenant_of(r, &tenant, why);
	if (!ret)
		ret = http_route_begin(r->route, tenant, why);
	if (ret)
		return answer_errno(r, ret, why);
	r->next = h->waiting;
	h->waiting = r;
	MHD_suspend_connection(r->conn);
	return MHD_YES;
}

/* ---- /events ---- */

static struct visitor *visitor_of(struct MHD_Connection *conn)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static ssize_t on_read(void *ctx, uint64_t off, char *buf, size_t max)
{
	struct request *r = ctx;
	const ssize_t n = http_listener_read(r->listener, buf, max);

	(void)off;
	if (!n)
		MHD_suspend_connection(r->conn);
	return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : n;
}

static void events_resume(void *ctx)
{
	struct request *r = ctx;

	MHD_resume_connection(r->conn);
}

static void events_cut(void *ctx)
{
	const struct request *r = ctx;

	shutdown(visitor_of(r->conn)->fd, SHUT_RDWR);
}

static enum MHD_Result answer_events(struct request *r)
{
	struct MHD_Response *resp = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, CONN_BYTES / 4, on_read, r, NULL);
	enum MHD_Result ret;

	if (!resp)
		return MHD_NO;
	MHD_add_response_header(resp, "Content-Type", "text/event-stream");
	MHD_add_response_header(resp, "Cache-Control", "no-store");
	ret = MHD_queue_response(r->conn, MHD_HTTP_OK, resp);
	MHD_destroy_response(resp);
	return ret;
}

static enum MHD_Result on_events(struct request *r)
{
	struct visitor *v = visitor_of(r->conn);
	const struct wfi_tenant *tenant;
	const int bytes = EVENTS_BYTES;
	char why[HTTP_WHY] = "";
	int ret = v ? tenant_of(r, &tenant, why) : -ENOMEM;

	if (!ret)
		ret = http_listener_create(r->http->feed, tenant,
					   MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND,
								       "Last-Event-ID"),
					   r, &r->listener, why);
	if (ret)
		return answer_errno(r, ret, why);
	v->listener = r->listener;
	setsockopt(v->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	MHD_set_connection_option(r->conn, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
	return answer_events(r);
}

/* ---- requests ---- */

static const struct endpoint endpoints[] = {
	{ "/metrics", false, on_metrics }, { "/healthz", false, on_healthz },
	{ "/members", false, on_members }, { "/route", true, on_route },
	{ "/events", false, on_events },
};

static const struct endpoint *endpoint_find(const char *path)
{
	size_t i;

	for (i = 0; i < WFI_ARRAY_SIZE(endpoints); i++)
		if (!strcmp(path, endpoints[i].path))
			return &endpoints[i];
	return NULL;
}

static struct request *request_new(struct http *h, struct MHD_Connection *conn, const char *path,
				   const char *method)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->http = h;
	r->conn = conn;
	r->endpoint = endpoint_find(path);
	r->has_body = !strcmp(method, "POST");
	return r;
}

static void body_add(struct request *r, const char *data, size_t len)
{
	char *grown;

	if (r->too_large || !r->has_body)
		return;
	r->too_large = len > BODY_MAX - r->len;
	grown = r->too_large ? NULL : realloc(r->body, r->len + len);
	if (!grown) {
		r->too_large = true;
		return;
	}
	memcpy(grown + r->len, data, len);
	r->body = grown;
	r->len += len;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *conn, const char *path,
				  const char *method, const char *version, const char *data,
				  size_t *len, void **own)
{
	struct request *r = *own;

	(void)version;
	if (!r) {
		r = *own = request_new(ctx, conn, path, method);
		return r ? MHD_YES : MHD_NO;
	}
	if (*len) {
		body_add(r, data, *len);
		*len = 0;
		return MHD_YES;
	}
	if (!r->endpoint)
		return answer_error(r, MHD_HTTP_NOT_FOUND,
				    "there are /metrics, /healthz, /members, /route and /events");
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 &&
	    !(r->has_body && r->endpoint->post))
		return answer_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, "that takes no such method");
	if (r->too_large)
		return answer_error(r, MHD_HTTP_CONTENT_TOO_LARGE, "the body is larger than 1 MiB");
	return r->endpoint->answer(r);
}

static void on_completed(void *ctx, struct MHD_Connection *conn, void **own,
			 enum MHD_RequestTerminationCode code)
{
	struct visitor *v = visitor_of(conn);
	struct http *h = ctx;
	struct request *r = *own;

	(void)code;
	if (v) {
		v->since_ns = wfi_now(h->env);
		v->listener = NULL;
	}
	if (!r)
		return;
	http_listener_destroy(r->listener);
	http_route_destroy(r->route);
	free(r->body);
	free(r);
	*own = NULL;
}

/* ---- connections ---- */

static void visitor_add(struct http *h, struct MHD_Connection *conn, void **own)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct visitor *v = info ? calloc(1, sizeof(*v)) : NULL;

	if (!v) {
		/* nobody would watch it */
		if (info)
			shutdown(info->connect_fd, SHUT_RDWR);
		return;
	}
	v->fd = info->connect_fd;
	v->since_ns = wfi_now(h->env);
	v->next = h->visitors;
	if (v->next)
		v->next->prev = v;
	h->visitors = v;
	*own = v;
}

static void visitor_del(struct http *h, struct visitor *v)
{
	if (v->prev)
		v->prev->next = v->next;
	else
		h->visitors = v->next;
	if (v->next)
		v->next->prev = v->prev;
	free(v);
}

static void on_connection(void *ctx, struct MHD_Connection *conn, void **own,
			  enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		visitor_add(ctx, conn, own);
	else if (*own)
		visitor_del(ctx, *own);
}

/* nobody looks at the socket of a suspended connection */
static bool hung_up(const struct visitor *v)
{
	char byte;
	const ssize_t n = recv(v->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return !n || (n < 0 && errno != EAGAIN);
}

/* a timeout of the library begins anew with each byte; this one does not */
static void visitors_watch(struct http *h)
{
	const uint64_t now_ns = wfi_now(h->env);
	struct visitor *v;

	for (v = h->visitors; v; v = v->next)
		if (v->listener && hung_up(v))
			http_listener_end(v->listener);
		else if (!v->listener && now_ns - v->since_ns > REQUEST_NS)
			shutdown(v->fd, SHUT_RDWR);
}

/* ---- the control thread's turns ---- */

static void waiting_resume(struct http *h)
{
	struct request **at = &h->waiting, *r;

	while ((r = *at)) {
		if (!http_route_over(r->route)) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		MHD_resume_connection(r->conn);
	}
}

/* of two times from now, -1: never */
static int sooner(int a_ms, int b_ms)
{
	return a_ms < 0 || (b_ms >= 0 && b_ms < a_ms) ? b_ms : a_ms;
}

static int http_run(void *ctx, struct control *control)
{
	struct http *h = ctx;
	unsigned long long ms;
	int next_ms;

	h->control = control;
	waiting_resume(h);
	next_ms = http_feed_turn(h->feed);
	MHD_run(h->d);
	visitors_watch(h);
	if (h->visitors)
		next_ms = sooner(next_ms, WATCH_MS);
	if (MHD_get_timeout(h->d, &ms) == MHD_YES && ms < WATCH_MS)
		next_ms = sooner(next_ms, (int)ms);
	return next_ms;
}

/* nothing is asked of the worker any more */
static void http_stop(void *ctx)
{
	struct http *h = ctx;
	struct request *r;

	for (r = h->waiting; r; r = r->next)
		http_route_cancel(r->route);
	waiting_resume(h);
	http_feed_stop(h->feed);
	MHD_stop_daemon(h->d);
	h->d = NULL;
}

/* ---- beginning and end ---- */

__attribute__((format(printf, 2, 0))) static void on_log(void *ctx, const char *fmt, va_list ap)
{
	char line[256];

	(void)ctx;
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = 0;
	wfi_debug("http: %s", line);
}

static int daemon_start(struct http *h, int fd)
{
	const union MHD_DaemonInfo *info;

	h->d = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
				NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, h,
				MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
				CONNS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONN_BYTES,
				MHD_OPTION_CONNECTION_TIMEOUT,
				(unsigned)(REQUEST_NS / WFI_NSEC_PER_SEC),
				MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_CONNECTION,
				on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
				MHD_OPTION_END);
	info = h->d ? MHD_get_daemon_info(h->d, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info) {
		wfi_err("http: libmicrohttpd does not start");
		return -ENOMEM;
	}
	h->guest.fd = info->epoll_fd;
	return 0;
}

int http_create(const struct http_opts *opts, struct http **out)
{
	struct http *h = wfi_alloc(opts->env, sizeof(*h));
	const struct http_feed_opts feed = {
		.env = opts->env,
		.node = opts->node,
		.resume = events_resume,
		.cut = events_cut,
	};
	int fd = -1, ret;

	if (!h)
		return -ENOMEM;
	h->env = opts->env;
	h->node = opts->node;
	h->guest = (struct control_guest){ .run = http_run, .stop = http_stop, .ctx = h };
	ret = http_feed_create(&feed, &h->feed);
	if (!ret)
		ret = fd = inet_listen(opts->listen, "http_listen");
	if (fd >= 0)
		ret = daemon_start(h, fd);
	if (ret) {
		if (fd >= 0 && !h->d)
			close(fd);
		http_destroy(h);
		return ret;
	}
	wfi_info("http: listens on %s", opts->listen);
	*out = h;
	return 0;
}

void http_destroy(struct http *h)
{
	if (!h)
		return;
	if (h->d)
		MHD_stop_daemon(h->d);
	http_feed_destroy(h->feed);
	wfi_free(h->env, h, sizeof(*h));
}

const struct control_guest *http_guest(const struct http *h)
{
	return h ? &h->guest : NULL;
}
