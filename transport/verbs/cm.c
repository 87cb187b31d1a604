/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meeting a peer through librdmacm: it resolves addresses, finds the way and carries two hellos in
 * its private data; the queue pairs are ours.
 *
 * A line is one rdma_cm_id: of a port, of a peer that asks at one, or of an endpoint. It belongs to
 * what it was made for, and every event finds it as the id's context. All ids of a device share one
 * event channel, which is looked at while something is on its way, and now and then.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "transport/verbs/cm.h"
#include "weft_internal/log.h"

#define BACKLOG_DEFAULT 64u
#define DIAL_DEFAULT_MS 3000u
#define RESOLVE_MS 1000
/* reason of the connection manager: the other side's program said no */
#define REJ_CONSUMER 28
#define REJ_NO_SERVICE 8

enum refusal { REFUSED_OWNER = 1, REFUSED_GARBLED, REFUSED_VERSION, REFUSED_REPLAYED };

struct wfi_verbs_line {
	struct rdma_cm_id *id;
	struct wfi_verbs_device *dev;
	struct wfi_verbs_port_at *port; /* its own, or where it asks */
	struct wfi_verbs_ep *ep;
	struct wfi_verbs_line *next; /* of those that ask */
	struct wfi_verbs_hello hello; /* the peer's */
	uint64_t ask_id;
	uint64_t nonce; /* of ours */
	uint64_t limit_ns;
	bool told;
	uint8_t ticket[WEFT_TICKET_LEN];
};

struct wfi_verbs_port_at {
	struct weft_port base;
	struct wfi_verbs_line *line; /* NULL: the device took it away */
	struct wfi_verbs_line *asks; /* oldest first */
};

/* an event, after it was given back */
struct happened {
	enum rdma_cm_event_type type;
	int status;
	uint32_t qpn;
	uint8_t reads;
	uint8_t len;
	uint8_t data[sizeof(struct wfi_verbs_hello)];
};

static struct wfi_verbs_port_at *port_at(struct weft_port *port)
{
	return wfi_container_of(port, struct wfi_verbs_port_at, base);
}

/* ---- lines ---- */

static struct wfi_verbs_line *line_new(struct wfi_verbs_device *dev, struct rdma_cm_id *id)
{
	struct wfi_verbs_line *line = wfi_alloc(dev->base.env, sizeof(*line));

	if (!line)
		return NULL;
	line->dev = dev;
	line->id = id;
	if (!id && rdma_create_id(dev->cm, &line->id, line, RDMA_PS_TCP)) {
		wfi_err("verbs: no connection: %s", strerror(errno));
		wfi_free(dev->base.env, line, sizeof(*line));
		return NULL;
	}
	line->id->context = line;
	return line;
}

static void line_free(struct wfi_verbs_line *line)
{
	rdma_destroy_id(line->id);
	wfi_free(line->dev->base.env, line, sizeof(*line));
}

void wfi_verbs_cm_forget(struct wfi_verbs_ep *ep)
{
	struct wfi_verbs_line *line = ep->line;

	if (!line)
		return;
	if (ep->state == WFI_EP_DIALING)
		line->dev->nr_dialing--;
	ep->line = NULL;
	rdma_disconnect(line->id);
	line_free(line);
}

/* ---- hellos ---- */

static void hello_fill(struct wfi_verbs_hello *h, const struct wfi_verbs_line *line,
		       enum wfi_verbs_hello_kind kind, uint64_t nonce)
{
	const struct wfi_verbs_ep *ep = line->ep;

	*h = (struct wfi_verbs_hello){
		.magic = WFI_VERBS_HELLO_MAGIC,
		.version = WFI_VERBS_VERSION,
		.kind = (uint8_t)kind,
		.credits_log2 = (uint8_t)__builtin_ctz(ep->rx_credits),
		.incarnation = line->dev->incarnation,
		.nonce = nonce,
		.credit_addr = (uintptr_t)ep->credit,
		.credit_rkey = ep->credit_mr->rkey,
	};
	memcpy(h->ticket, line->ticket, sizeof(h->ticket));
	h->check = wfi_blob_check(h, sizeof(*h));
}

/* Return: 0, -EPROTONOSUPPORT, -EBADMSG */
static int hello_read(struct wfi_verbs_hello *h, const struct happened *ev,
		      enum wfi_verbs_hello_kind kind)
{
	uint32_t check;

	/* the connection manager may hand over more than was sent, filled with zeros */
	if (ev->len < sizeof(*h))
		return -EBADMSG;
	memcpy(h, ev->data, sizeof(*h));
	if (h->magic != WFI_VERBS_HELLO_MAGIC)
		return -EBADMSG;
	if (h->version != WFI_VERBS_VERSION)
		return -EPROTONOSUPPORT;
	check = h->check;
	h->check = 0;
	if (wfi_blob_check(h, sizeof(*h)) != check || h->kind != kind || h->reserved ||
	    (1u << (h->credits_log2 & 31)) > WFI_VERBS_CREDITS_MAX)
		return -EBADMSG;
	return 0;
}

/* has @h been here? Remembers it */
static bool seen_before(struct wfi_verbs_device *dev, const struct wfi_verbs_hello *h)
{
	struct wfi_verbs_seen *seen = dev->seen;
	unsigned i;

	for (i = 0; i < WFI_VERBS_SEEN; i++)
		if (seen[i].incarnation == h->incarnation && seen[i].nonce == h->nonce)
			return true;
	seen += dev->last_seen++ % WFI_VERBS_SEEN;
	seen->incarnation = h->incarnation;
	seen->nonce = h->nonce;
	return false;
}

static int refusal_errno(const struct happened *ev)
{
	struct wfi_verbs_refusal r;

	if (ev->status != REJ_CONSUMER)
		return ev->status == REJ_NO_SERVICE ? -ECONNREFUSED : -ECONNRESET;
	if (ev->len < sizeof(r))
		return -ECONNRESET;
	memcpy(&r, ev->data, sizeof(r));
	if (r.magic != WFI_VERBS_HELLO_MAGIC)
		return -EBADMSG;
	switch (r.reason) {
	case REFUSED_OWNER:
		return -EACCES;
	case REFUSED_GARBLED:
		return -EBADMSG;
	case REFUSED_VERSION:
		wfi_err("verbs: the peer speaks version %u, this node %u: run one release on both",
			r.version, WFI_VERBS_VERSION);
		return -EPROTONOSUPPORT;
	case REFUSED_REPLAYED:
		return -ESTALE;
	default:
		return -ECONNRESET;
	}
}

static void refuse(struct wfi_verbs_line *line, enum refusal reason)
{
	struct wfi_verbs_refusal r = {
		.magic = WFI_VERBS_HELLO_MAGIC,
		.version = WFI_VERBS_VERSION,
		.kind = WFI_VERBS_HELLO_NO,
		.reason = (uint8_t)reason,
	};

	rdma_reject(line->id, &r, sizeof(r));
	line_free(line);
}

/* ---- queue pairs ---- */

static int qp_move(struct wfi_verbs_line *line, enum ibv_qp_state state, uint8_t reads)
{
	const struct wfi_verbs_device *dev = line->dev;
	struct ibv_qp_attr attr = { .qp_state = state };
	int mask = 0, ret;

	if (rdma_init_qp_attr(line->id, &attr, &mask))
		return -errno;
	wfi_verbs_qp_limits(dev, &attr, reads);
	ret = ibv_modify_qp(line->ep->qp, &attr, mask);
	if (ret)
		wfi_err("verbs: qp 0x%x: no way to the peer: %s", line->ep->qp->qp_num,
			strerror(ret));
	return -ret;
}

/* the peer's word is good: everything is ready but for the last handshake */
static int qp_ready(struct wfi_verbs_line *line, const struct wfi_verbs_hello *h, uint8_t reads)
{
	int ret;

	wfi_verbs_ep_meet(line->ep, 1u << h->credits_log2, h->credit_addr, h->credit_rkey,
			  h->incarnation);
	ret = qp_move(line, IBV_QPS_RTR, reads);
	return ret ? ret : qp_move(line, IBV_QPS_RTS, reads);
}

static struct rdma_conn_param conn_param(const struct wfi_verbs_line *line,
					 const struct wfi_verbs_hello *h)
{
	return (struct rdma_conn_param){
		.private_data = h,
		.private_data_len = sizeof(*h),
		.responder_resources = line->dev->reads_in,
		.initiator_depth = line->dev->reads_out,
		.retry_count = WFI_VERBS_RETRIES,
		.rnr_retry_count = WFI_VERBS_RNR_RETRIES,
		.srq = 1,
		.qp_num = line->ep->qp->qp_num,
	};
}

/* ---- dialing ---- */

/* what two nodes can have against each other's words, in ours */
static const char *status_text(int status)
{
	switch (status) {
	case -EBADMSG:
		return "what was sent is garbled: is it a node of Weft's, and the network well?";
	case -ESTALE:
		return "what was sent has been seen before, or belongs to another asking";
	case -EPROTONOSUPPORT:
		return "of another version: run one release on both";
	case -EACCES:
		return "its ticket is not known there";
	default:
		return strerror(-status);
	}
}

static void dial_failed(struct wfi_verbs_line *line, int status, const char *what)
{
	struct wfi_verbs_ep *ep = line->ep;

	if (ep->state == WFI_EP_DIALING)
		wfi_err("verbs: qp 0x%x: %s: %s", ep->qp->qp_num, what, status_text(status));
	wfi_verbs_ep_break(ep, status, WEFT_SCOPE_EP);
}

void wfi_verbs_cm_tick(struct wfi_verbs_ep *ep, uint64_t now)
{
	if (now >= ep->line->limit_ns)
		dial_failed(ep->line, -ETIMEDOUT, "the peer does not answer");
}

void wfi_verbs_cm_established(struct wfi_verbs_ep *ep)
{
	ep->line->dev->nr_dialing--;
	wfi_verbs_ep_open(ep);
}

/* the way must lead through the port that the endpoint was made on */
static void on_addr(struct wfi_verbs_line *line)
{
	const char *ours = ibv_get_device_name(line->dev->ctx->device);
	const char *theirs = line->id->verbs ? ibv_get_device_name(line->id->verbs->device) : NULL;

	if (!theirs || strcmp(ours, theirs) || line->id->port_num != line->dev->port.num) {
		wfi_err("verbs: the way to the peer leads through %s, not %s:%u: open that device",
			theirs ? theirs : "no RDMA device", ours, line->dev->port.num);
		dial_failed(line, -EHOSTUNREACH, "not through this device");
	} else if (rdma_resolve_route(line->id, RESOLVE_MS)) {
		dial_failed(line, -errno, "no way to the peer");
	}
}

static void on_route(struct wfi_verbs_line *line)
{
	struct rdma_conn_param param;
	struct wfi_verbs_hello h;

	hello_fill(&h, line, WFI_VERBS_HELLO_ASK, line->nonce);
	param = conn_param(line, &h);
	if (rdma_connect(line->id, &param))
		dial_failed(line, -errno, "the peer can't be asked");
}

static void on_response(struct wfi_verbs_line *line, const struct happened *ev)
{
	int ret = hello_read(&line->hello, ev, WFI_VERBS_HELLO_ANSWER);

	/* an answer to another asking is as good as none */
	if (!ret && line->hello.nonce != line->nonce)
		ret = -ESTALE;
	if (ret) {
		dial_failed(line, ret, "the peer's answer is not one");
		return;
	}
	ret = qp_ready(line, &line->hello, ev->reads);
	if (!ret && rdma_establish(line->id))
		ret = -errno;
	if (ret)
		dial_failed(line, ret, "the connection can't be finished");
	else
		wfi_verbs_cm_established(line->ep);
}

static void on_gone(struct wfi_verbs_line *line)
{
	if (line->ep->state == WFI_EP_DIALING)
		dial_failed(line, -ECONNRESET, "the peer has given up");
	else
		wfi_verbs_ep_farewell(line->ep);
}

static void ep_event(struct wfi_verbs_line *line, const struct happened *ev)
{
	switch (ev->type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		on_addr(line);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		on_route(line);
		break;
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
		on_response(line, ev);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		if (line->ep->state == WFI_EP_DIALING)
			wfi_verbs_cm_established(line->ep);
		break;
	case RDMA_CM_EVENT_REJECTED:
		dial_failed(line, refusal_errno(ev), "refused");
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		dial_failed(line, ev->status == -ETIMEDOUT ? -ETIMEDOUT : -EHOSTUNREACH,
			    "no way to the peer");
		break;
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		dial_failed(line, ev->status == -ETIMEDOUT ? -ETIMEDOUT : -ECONNRESET,
			    "the peer does not answer");
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		on_gone(line);
		break;
	default:
		break;
	}
}

/* ---- asking ---- */

/* the id is new, and none of its memory is ours yet */
static void on_request(struct wfi_verbs_port_at *port, struct rdma_cm_id *id,
		       const struct happened *ev)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(port->base.dev);
	struct wfi_verbs_line *line = line_new(dev, id), **last;
	int ret;

	if (!line) {
		rdma_destroy_id(id);
		return;
	}
	line->port = port;
	ret = hello_read(&line->hello, ev, WFI_VERBS_HELLO_ASK);
	if (!ret && seen_before(dev, &line->hello))
		ret = -ESTALE;
	if (ret) {
		wfi_warn("verbs: a peer that asked was refused: %s", status_text(ret));
		refuse(line, ret == -EPROTONOSUPPORT ? REFUSED_VERSION
			     : ret == -ESTALE	     ? REFUSED_REPLAYED
						     : REFUSED_GARBLED);
		return;
	}
	line->hello.reads = ev->reads;
	line->ask_id = ++dev->last_ask;
	for (last = &port->asks; *last; last = &(*last)->next)
		;
	*last = line;
}

static struct wfi_verbs_line *ask_take(struct wfi_verbs_port_at *port, struct wfi_verbs_line *line,
				       uint64_t id)
{
	struct wfi_verbs_line **link = &port->asks, *found;

	while (*link && *link != line && (line || (*link)->ask_id != id))
		link = &(*link)->next;
	found = *link;
	if (found)
		*link = found->next;
	return found;
}

static void on_event(struct wfi_verbs_line *line, struct rdma_cm_id *id, const struct happened *ev)
{
	if (ev->type == RDMA_CM_EVENT_CONNECT_REQUEST) {
		on_request(line->port, id, ev);
	} else if (ev->type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
		wfi_verbs_device_lost(line->dev);
	} else if (line->ep) {
		ep_event(line, ev);
	} else if (line->port->line != line) {
		/* it has given up before it was answered */
		ask_take(line->port, line, 0);
		line_free(line);
	}
}

void wfi_verbs_cm_events(struct wfi_verbs_device *dev)
{
	struct rdma_cm_event *event;
	struct wfi_verbs_line *line;
	struct rdma_cm_id *id;
	struct happened ev;

	while (dev->cm && !rdma_get_cm_event(dev->cm, &event)) {
		const struct rdma_conn_param *conn = &event->param.conn;

		memset(&ev, 0, sizeof(ev));
		id = event->id;
		line = event->listen_id ? event->listen_id->context : id->context;
		ev.type = event->event;
		ev.status = event->status;
		/* only these carry something of the peer */
		if (ev.type == RDMA_CM_EVENT_CONNECT_REQUEST ||
		    ev.type == RDMA_CM_EVENT_CONNECT_RESPONSE ||
		    ev.type == RDMA_CM_EVENT_REJECTED) {
			ev.qpn = conn->qp_num;
			ev.reads = (uint8_t)wfi_min(conn->responder_resources, dev->reads_out);
			ev.len = conn->private_data
					 ? (uint8_t)wfi_min(conn->private_data_len, sizeof(ev.data))
					 : 0;
			if (ev.len)
				memcpy(ev.data, conn->private_data, ev.len);
		}
		/* before anything destroys the id */
		rdma_ack_cm_event(event);
		on_event(line, id, &ev);
	}
}

/* ---- addresses ---- */

union sock {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Return: 0, -EINVAL */
static int addr_read(const char *text, union sock *out)
{
	const char *colon = text ? strrchr(text, ':') : NULL;
	char host[WEFT_PORT_ADDR_MAX], *end;
	unsigned long port;
	size_t len;

	memset(out, 0, sizeof(*out));
	if (!colon || colon == text || !colon[1])
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	len = (size_t)(colon - text);
	if (*end || port > UINT16_MAX || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		out->v6.sin6_family = AF_INET6;
		out->v6.sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host + 1, &out->v6.sin6_addr) == 1 ? 0 : -EINVAL;
	}
	out->v4.sin_family = AF_INET;
	out->v4.sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &out->v4.sin_addr) == 1 ? 0 : -EINVAL;
}

/* an address of the device's own to come from: the one nearest to @to. Return: false none */
static bool addr_ours(const struct wfi_verbs_device *dev, const union sock *to, union sock *out)
{
	uint8_t raw[1][16] = { { 0 } };
	uint32_t ours = 0, theirs = 0;

	memset(out, 0, sizeof(*out));
	if (to->any.sa_family == AF_INET) {
		memset(&raw[0][10], 0xff, 2);
		memcpy(&raw[0][12], &to->v4.sin_addr, 4);
	} else {
		memcpy(raw[0], &to->v6.sin6_addr, 16);
	}
	/* a link's own address needs its interface named */
	if (wfi_verbs_gid_pair(&dev->port, raw, 1, &ours, &theirs) ||
	    dev->port.gids[ours].raw[0] == 0xfe)
		return false;
	out->any.sa_family = to->any.sa_family;
	if (to->any.sa_family == AF_INET)
		memcpy(&out->v4.sin_addr, &dev->port.gids[ours].raw[12], 4);
	else
		memcpy(&out->v6.sin6_addr, dev->port.gids[ours].raw, 16);
	return true;
}

/* ---- the ops ---- */

int wfi_verbs_ep_dial(struct weft_ep *base, const struct weft_dial_opts *opts)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_env *env = base->dev->env;
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct wfi_verbs_line *line;
	struct weft_dial_opts o;
	union sock to, from;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || addr_read(o.addr, &to))
		return -EINVAL;
	if (!dev->cm)
		return -EOPNOTSUPP;
	if (ep->state != WFI_EP_CREATED)
		return ep->state < WFI_EP_CLOSING ? -EISCONN : -ENOTCONN;
	line = line_new(dev, NULL);
	if (!line)
		return -ENOMEM;
	memcpy(line->ticket, o.ticket, sizeof(line->ticket));
	line->limit_ns =
		wfi_now(env) + (o.timeout_ms ? o.timeout_ms : DIAL_DEFAULT_MS) * WFI_NSEC_PER_MSEC;
	ret = env->rng->bytes(env, &line->nonce, sizeof(line->nonce));
	if (!ret && rdma_resolve_addr(line->id, addr_ours(dev, &to, &from) ? &from.any : NULL,
				      &to.any, RESOLVE_MS)) {
		ret = -errno;
		wfi_err("verbs: %s: %s", o.addr, strerror(-ret));
	}
	if (ret) {
		line_free(line);
		return ret;
	}
	line->ep = ep;
	ep->line = line;
	ep->state = WFI_EP_DIALING;
	dev->nr_dialing++;
	return 0;
}

int wfi_verbs_port_open(struct weft_device *base, const struct weft_port_opts *opts,
			struct weft_port **out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base);
	struct wfi_verbs_port_at *port;
	struct weft_port_opts o;
	union sock at;
	int ret = 0;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || addr_read(o.addr, &at))
		return -EINVAL;
	if (!dev->cm)
		return -EOPNOTSUPP;
	port = wfi_alloc(base->env, sizeof(*port));
	if (!port)
		return -ENOMEM;
	port->base.dev = base;
	port->base.ctx = o.ctx;
	port->line = line_new(dev, NULL);
	if (!port->line) {
		ret = -ENOMEM;
		goto err_port;
	}
	port->line->port = port;
	if (rdma_bind_addr(port->line->id, &at.any) ||
	    rdma_listen(port->line->id, o.backlog ? (int)o.backlog : (int)BACKLOG_DEFAULT)) {
		ret = errno == ENODEV ? -EADDRNOTAVAIL : -errno;
		wfi_err("verbs: can't listen on %s: %s", o.addr, strerror(-ret));
		goto err_line;
	}
	*out = &port->base;
	return 0;

err_line:
	line_free(port->line);
err_port:
	wfi_free(base->env, port, sizeof(*port));
	return ret;
}

void wfi_verbs_port_close(struct weft_port *base)
{
	struct wfi_verbs_line *line;
	struct wfi_verbs_port_at *port;

	if (!base)
		return;
	port = port_at(base);
	/* who is on the way here is refused with the others */
	wfi_verbs_cm_events(wfi_verbs_device(base->dev));
	while ((line = port->asks)) {
		port->asks = line->next;
		refuse(line, REFUSED_OWNER);
	}
	line_free(port->line);
	wfi_free(base->dev->env, port, sizeof(*port));
}

int wfi_verbs_port_addr(struct weft_port *base, char *buf, size_t len)
{
	const union sock *at = (const void *)rdma_get_local_addr(port_at(base)->line->id);
	char host[INET6_ADDRSTRLEN] = "", text[WEFT_PORT_ADDR_MAX];
	bool v6 = at->any.sa_family == AF_INET6;
	int n;

	inet_ntop(at->any.sa_family,
		  v6 ? (const void *)&at->v6.sin6_addr : (const void *)&at->v4.sin_addr, host,
		  sizeof(host));
	n = snprintf(text, sizeof(text), v6 ? "[%s]:%u" : "%s:%u", host,
		     ntohs(rdma_get_src_port(port_at(base)->line->id)));
	if (n <= 0 || (size_t)n >= len || (size_t)n >= sizeof(text))
		return -ENOSPC;
	memcpy(buf, text, (size_t)n + 1);
	return 0;
}

int wfi_verbs_port_poll(struct weft_port *base, struct weft_ask *out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_line *line;

	wfi_verbs_cm_events(dev);
	if (dev->failed)
		return -EIO;
	for (line = port_at(base)->asks; line && line->told; line = line->next)
		;
	if (!line)
		return 0;
	line->told = true;
	out->id = line->ask_id;
	out->incarnation = line->hello.incarnation;
	memcpy(out->ticket, line->hello.ticket, sizeof(out->ticket));
	return 1;
}

int wfi_verbs_port_accept(struct weft_port *base, uint64_t id, struct weft_ep *ep_base)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_ep *ep = wfi_verbs_ep(ep_base);
	struct rdma_conn_param param;
	struct wfi_verbs_line *line;
	struct wfi_verbs_hello h;
	int ret;

	if (ep_base->dev != base->dev)
		return -EINVAL;
	if (ep->state != WFI_EP_CREATED)
		return ep->state < WFI_EP_CLOSING ? -EISCONN : -ENOTCONN;
	line = ask_take(port_at(base), NULL, id);
	if (!line)
		return -ENOENT;
	line->ep = ep;
	line->limit_ns = wfi_now(dev->base.env) + DIAL_DEFAULT_MS * WFI_NSEC_PER_MSEC;
	ret = qp_ready(line, &line->hello, line->hello.reads);
	if (!ret) {
		hello_fill(&h, line, WFI_VERBS_HELLO_ANSWER, line->hello.nonce);
		param = conn_param(line, &h);
		param.initiator_depth = line->hello.reads;
		ret = rdma_accept(line->id, &param) ? -errno : 0;
	}
	if (ret) {
		refuse(line, REFUSED_OWNER);
		return ret;
	}
	ep->line = line;
	ep->state = WFI_EP_DIALING;
	dev->nr_dialing++;
	return 0;
}

int wfi_verbs_port_refuse(struct weft_port *base, uint64_t id)
{
	struct wfi_verbs_line *line = ask_take(port_at(base), NULL, id);

	if (!line)
		return -ENOENT;
	refuse(line, REFUSED_OWNER);
	return 0;
}

/* ---- with the device ---- */

int wfi_verbs_cm_open(struct wfi_verbs_device *dev)
{
	int ret;

	dev->cm = rdma_create_event_channel();
	if (!dev->cm)
		return -errno;
	if (!fcntl(dev->cm->fd, F_SETFL, O_NONBLOCK))
		return 0;
	ret = -errno;
	wfi_verbs_cm_close(dev);
	return ret;
}

void wfi_verbs_cm_close(struct wfi_verbs_device *dev)
{
	if (dev->cm)
		rdma_destroy_event_channel(dev->cm);
	dev->cm = NULL;
}
