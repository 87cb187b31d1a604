/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "transport/core.h"

#define CQ_DEPTH_DEFAULT 256u
#define CQ_DEPTH_MAX 65536u
#define EP_DEPTH_DEFAULT 64u
#define CQ_ARENA_MSGS 16u
#define CQ_IDLE_CHECK 4096u /* empty polls between looks at peers: a system call per 100 us or so */

int wfi_opts_read(void *dst, size_t known, const void *src)
{
	const uint8_t *bytes = src;
	size_t size, i;

	memset(dst, 0, known);
	if (!src)
		return 0;
	memcpy(&size, src, sizeof(size));
	if (size < sizeof(size))
		return -EINVAL;
	for (i = known; i < size; i++)
		if (bytes[i])
			return -EINVAL;
	memcpy(dst, src, size < known ? size : known);
	return 0;
}

uint32_t wfi_blob_check(const void *blob, size_t len)
{
	const uint8_t *bytes = blob;
	uint32_t sum = 2166136261u;
	size_t i;

	for (i = 0; i < len; i++)
		sum = (sum ^ bytes[i]) * 16777619u;
	return sum;
}

/* ---- what exports carry ---- */

void wfi_rkey_write(struct wfi_rkey_head *head, size_t len, uint64_t id, struct weft_export *out)
{
	head->check = 0;
	head->check = wfi_blob_check(head, len);
	memset(out, 0, sizeof(*out));
	out->id = id;
	out->fd = -1;
	out->blob_len = (uint32_t)len;
	memcpy(out->blob, head, len);
}

int wfi_rkey_read(struct weft_rkey_src *s, const struct weft_rkey_src *src, enum wfi_ep_state state,
		  struct wfi_rkey_head *head, size_t len)
{
	const struct wfi_rkey_head want = *head;
	uint32_t check;

	if (wfi_opts_read(s, sizeof(*s), src) || (s->access & ~WFI_REMOTE_ACCESS))
		return -EINVAL;
	if (s->kind != WEFT_RKEY_BLOB)
		return -EOPNOTSUPP;
	if (!s->blob || s->blob_len != len)
		return -EINVAL;
	memcpy(head, s->blob, len);
	check = head->check;
	head->check = 0;
	if (head->magic != want.magic || wfi_blob_check(head, len) != check || !head->len ||
	    !head->access || (head->access & ~WFI_REMOTE_ACCESS))
		return -EINVAL;
	if (s->access & ~head->access)
		return -EACCES;
	if (state != WFI_EP_CONNECTED)
		return -ENOTCONN;
	/* our request would hit a stranger */
	if (head->incarnation != want.incarnation)
		return -ESTALE;
	if (!s->access)
		s->access = head->access;
	return 0;
}

/* ---- completion queue ---- */

static unsigned cq_take_posts(struct wfi_sync_cq *cq, struct weft_wc *wcs, unsigned max)
{
	unsigned n = 0;

	while (n < max && cq->head != cq->tail) {
		struct weft_wc *wc = &cq->wcs[cq->head++ & (cq->depth - 1)];

		wfi_container_of(wc->ep, struct wfi_sync_ep, base)->nr_open--;
		wcs[n++] = *wc;
	}
	return n;
}

static void ep_set_closed(struct wfi_sync_ep *ep, struct weft_wc *wc)
{
	ep->state = WFI_EP_CLOSED;
	ep->ops->closed(ep);
	memset(wc, 0, sizeof(*wc));
	wc->ep = &ep->base;
	wc->op = WEFT_WC_CLOSED;
	wc->status = ep->close_status;
	wc->scope = ep->close_status ? WEFT_SCOPE_EP : WEFT_SCOPE_NONE;
}

static unsigned ep_take(struct wfi_sync_cq *cq, struct wfi_sync_ep *ep, struct weft_wc *wcs,
			unsigned max, unsigned *nr_msgs)
{
	unsigned n = 0;
	int ret;

	if (ep->state == WFI_EP_CREATED || ep->state == WFI_EP_CLOSED)
		return 0;
	while (n < max && *nr_msgs < CQ_ARENA_MSGS &&
	       (ep->state == WFI_EP_CONNECTED || ep->rx_left)) {
		memset(&wcs[n], 0, sizeof(wcs[n]));
		wcs[n].ep = &ep->base;
		ret = ep->ops->recv(ep, &wcs[n], cq->arena + (size_t)*nr_msgs * WFI_MAX_MSG);
		if (ret < 0)
			wfi_sync_ep_close(ep, ret, 0);
		if (ret <= 0) {
			ep->rx_left = 0;
			break;
		}
		ep->rx_left -= ep->state == WFI_EP_CLOSING;
		*nr_msgs += wcs[n].op == WEFT_WC_RECV;
		n++;
	}
	if (n < max && ep->state == WFI_EP_CLOSING && !ep->rx_left && !ep->nr_open)
		ep_set_closed(ep, &wcs[n++]);
	return n;
}

static void cq_check_peers(struct wfi_sync_cq *cq)
{
	struct wfi_sync_ep *ep = cq->eps;
	int ret;

	cq->idle = 0;
	if (!ep)
		return;
	do {
		ret = ep->state == WFI_EP_CONNECTED ? ep->ops->check(ep) : 0;
		if (ret < 0)
			wfi_sync_ep_close(ep, ret, WFI_MAX_DEPTH);
		ep = ep->next;
	} while (ep != cq->eps);
}

static int cq_poll(struct weft_cq *base, struct weft_wc *wcs, unsigned max)
{
	struct wfi_sync_cq *cq = wfi_container_of(base, struct wfi_sync_cq, base);
	unsigned nr_msgs = 0, n = cq_take_posts(cq, wcs, max);
	struct wfi_sync_ep *ep = cq->eps;

	if (ep) {
		do {
			n += ep_take(cq, ep, wcs + n, max - n, &nr_msgs);
			ep = ep->next;
		} while (ep != cq->eps && n < max);
		/* another one is first next time: nobody starves behind a chatty peer */
		cq->eps = ep == cq->eps ? ep->next : ep;
	}
	if (n) {
		cq->idle = 0;
		return (int)n;
	}
	if (++cq->idle >= CQ_IDLE_CHECK)
		cq_check_peers(cq);
	return 0;
}

static const struct weft_cq_fast cq_fast = { .poll = cq_poll };

int wfi_sync_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		       struct weft_cq **out)
{
	struct weft_cq_opts o;
	struct wfi_sync_cq *cq;
	uint32_t depth = 1;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || o.depth > CQ_DEPTH_MAX)
		return -EINVAL;
	while (depth < (o.depth ? o.depth : CQ_DEPTH_DEFAULT))
		depth *= 2;
	cq = wfi_alloc(dev->env, sizeof(*cq));
	if (!cq)
		return -ENOMEM;
	cq->wcs = wfi_alloc(dev->env, depth * sizeof(*cq->wcs));
	if (!cq->wcs)
		goto err_cq;
	cq->arena = wfi_alloc(dev->env, CQ_ARENA_MSGS * WFI_MAX_MSG);
	if (!cq->arena)
		goto err_wcs;
	cq->base.fast = &cq_fast;
	cq->base.dev = dev;
	cq->depth = depth;
	*out = &cq->base;
	return 0;

err_wcs:
	wfi_free(dev->env, cq->wcs, depth * sizeof(*cq->wcs));
err_cq:
	wfi_free(dev->env, cq, sizeof(*cq));
	return -ENOMEM;
}

void wfi_sync_cq_destroy(struct weft_cq *base)
{
	struct wfi_sync_cq *cq;
	struct wfi_env *env;

	if (!base)
		return;
	cq = wfi_container_of(base, struct wfi_sync_cq, base);
	env = base->dev->env;
	wfi_free(env, cq->arena, CQ_ARENA_MSGS * WFI_MAX_MSG);
	wfi_free(env, cq->wcs, cq->depth * sizeof(*cq->wcs));
	wfi_free(env, cq, sizeof(*cq));
}

bool wfi_sync_cq_pending(const struct wfi_sync_cq *cq)
{
	return cq->head != cq->tail;
}

/* ---- endpoint ---- */

static int unconnected_post(struct weft_ep *ep, const struct weft_post *post)
{
	(void)ep;
	(void)post;
	return -ENOTCONN;
}

static int unconnected_send(struct weft_ep *ep, const void *buf, uint32_t len, uint64_t cookie,
			    uint32_t flags)
{
	(void)ep;
	(void)buf;
	(void)len;
	(void)cookie;
	(void)flags;
	return -ENOTCONN;
}

static int unconnected_msg(struct weft_ep *ep, const struct weft_msg *msg)
{
	(void)ep;
	(void)msg;
	return -ENOTCONN;
}

const struct weft_ep_fast wfi_ep_unconnected = {
	.post_read = unconnected_post,
	.post_write = unconnected_post,
	.post_write_imm = unconnected_post,
	.post_send = unconnected_send,
	.post_msg = unconnected_msg,
};

int wfi_ep_no_imm(struct weft_ep *ep, const struct weft_post *post)
{
	(void)ep;
	(void)post;
	return -EOPNOTSUPP;
}

int wfi_ep_no_send(struct weft_ep *ep, const void *buf, uint32_t len, uint64_t cookie,
		   uint32_t flags)
{
	(void)ep;
	(void)buf;
	(void)len;
	(void)cookie;
	(void)flags;
	return -EOPNOTSUPP;
}

int wfi_ep_no_msg(struct weft_ep *ep, const struct weft_msg *msg)
{
	(void)ep;
	(void)msg;
	return -EOPNOTSUPP;
}

int wfi_msg_len(const struct weft_ep *ep, const struct weft_msg *msg)
{
	const uint64_t max = ep->dev->caps.max_msg;
	const struct weft_mr *mr = msg->local_mr;
	uint64_t sum = msg->head_len;
	uint32_t i;

	if (wfi_unlikely(mr && mr->dev != ep->dev))
		return -EINVAL;
	for (i = 0; i < msg->nr_pieces && sum <= max; i++) {
		const struct weft_piece *p = &msg->pieces[i];

		if (wfi_unlikely(wfi_add_overflows(sum, p->len, &sum) ||
				 (mr && !wfi_range_ok((uintptr_t)p->local - (uintptr_t)mr->addr,
						      p->len, mr->len))))
			return -EINVAL;
	}
	return sum && sum <= max ? (int)sum : -EINVAL;
}

uint8_t *wfi_pieces_copy(uint8_t *to, const struct weft_piece *pieces, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		memcpy(to, pieces[i].local, pieces[i].len);
		to += pieces[i].len;
	}
	return to;
}

int wfi_ep_flat_msg(struct weft_ep *ep, const struct weft_msg *msg)
{
	int len = wfi_msg_len(ep, msg), ret;
	uint8_t *buf;

	if (len < 0)
		return len;
	buf = wfi_alloc(ep->dev->env, (size_t)len);
	if (!buf)
		return -EAGAIN;
	memcpy(buf, msg->head, msg->head_len);
	wfi_pieces_copy(buf + msg->head_len, msg->pieces, msg->nr_pieces);
	ret = weft_ep_post_send(ep, buf, (uint32_t)len, msg->cookie, msg->flags);
	wfi_free(ep->dev->env, buf, (size_t)len);
	return ret;
}

int wfi_sync_ep_init(struct wfi_sync_ep *ep, struct weft_device *dev,
		     const struct weft_ep_opts *opts, const struct wfi_sync_ep_ops *ops)
{
	struct weft_ep_opts o;
	struct wfi_sync_cq *cq;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || !o.send_cq || !o.recv_cq)
		return -EINVAL;
	if (o.send_cq->dev != dev || o.recv_cq->dev != dev || o.depth > WFI_MAX_DEPTH ||
	    (o.flags & ~(uint32_t)WEFT_EP_MEM))
		return -EINVAL;
	ep->base.fast = &wfi_ep_unconnected;
	ep->base.dev = dev;
	ep->base.send_cq = o.send_cq;
	ep->base.recv_cq = o.recv_cq;
	ep->base.ctx = o.ctx;
	ep->ops = ops;
	ep->depth = o.depth ? o.depth : EP_DEPTH_DEFAULT;
	ep->state = WFI_EP_CREATED;

	cq = wfi_container_of(o.recv_cq, struct wfi_sync_cq, base);
	if (!cq->eps) {
		ep->next = ep;
		cq->eps = ep;
	} else {
		ep->next = cq->eps->next;
		cq->eps->next = ep;
	}
	return 0;
}

/* completions that were not polled name an endpoint that is about to go */
static void cq_forget(struct wfi_sync_cq *cq, const struct weft_ep *ep)
{
	uint32_t from, to = cq->head;

	for (from = cq->head; from != cq->tail; from++) {
		const struct weft_wc *wc = &cq->wcs[from & (cq->depth - 1)];

		if (wc->ep != ep)
			cq->wcs[to++ & (cq->depth - 1)] = *wc;
	}
	cq->tail = to;
}

void wfi_sync_ep_fini(struct wfi_sync_ep *ep)
{
	struct wfi_sync_cq *cq = wfi_container_of(ep->base.recv_cq, struct wfi_sync_cq, base);
	struct wfi_sync_ep *prev = ep;

	while (prev->next != ep)
		prev = prev->next;
	prev->next = ep->next;
	if (cq->eps == ep)
		cq->eps = prev == ep ? NULL : prev;
	cq_forget(wfi_container_of(ep->base.send_cq, struct wfi_sync_cq, base), &ep->base);
}

void wfi_sync_ep_close(struct wfi_sync_ep *ep, int status, uint32_t rx_left)
{
	if (ep->state == WFI_EP_CLOSING || ep->state == WFI_EP_CLOSED)
		return;
	ep->state = WFI_EP_CLOSING;
	ep->close_status = status;
	ep->rx_left = rx_left;
	ep->base.fast = &wfi_ep_unconnected;
}

/* ---- posts ---- */

int wfi_piece_check(const struct weft_ep *ep, const struct weft_post *post,
		    const struct weft_piece *piece, uint32_t need)
{
	const struct weft_rkey *rkey = piece->rkey;
	const struct weft_mr *mr = post->local_mr;

	if (wfi_unlikely(!rkey || rkey->ep != ep || !(rkey->access & need)))
		return -EACCES;
	if (wfi_unlikely(!wfi_range_ok(piece->remote, piece->len, rkey->len)))
		return -ERANGE;
	if (!mr)
		return 0;
	if (wfi_unlikely(!wfi_range_ok((uintptr_t)piece->local - (uintptr_t)mr->addr, piece->len,
				       mr->len)))
		return -EFAULT;
	if (wfi_unlikely(need == WEFT_ACCESS_REMOTE_READ &&
			 !(mr->access & WEFT_ACCESS_LOCAL_WRITE)))
		return -EACCES;
	return 0;
}

int wfi_sync_post_begin(struct wfi_sync_ep *ep, const struct weft_post *post, uint32_t need,
			struct wfi_post_plan *plan)
{
	const struct wfi_sync_cq *cq = wfi_container_of(ep->base.send_cq, struct wfi_sync_cq, base);
	uint64_t bytes = 0;
	uint32_t i;
	int status = 0;

	if (wfi_unlikely(post->nr_pieces > WFI_MAX_PIECES))
		return -EINVAL;
	if (wfi_unlikely(ep->nr_open >= ep->depth || cq->tail - cq->head >= cq->depth))
		return -EAGAIN;
	for (i = 0; i < post->nr_pieces; i++) {
		status = wfi_piece_check(&ep->base, post, &post->pieces[i], need);
		if (wfi_unlikely(status))
			break;
		bytes += post->pieces[i].len;
		if (wfi_unlikely(post->pieces[i].len > WFI_MAX_POST_BYTES ||
				 bytes > WFI_MAX_POST_BYTES))
			return -EINVAL;
	}
	plan->bytes = bytes;
	plan->nr_good = i;
	plan->status = status;
	return 0;
}

void wfi_sync_complete(struct wfi_sync_ep *ep, uint64_t cookie, enum weft_wc_op op, uint32_t flags,
		       int status, uint32_t idx)
{
	struct wfi_sync_cq *cq = wfi_container_of(ep->base.send_cq, struct wfi_sync_cq, base);
	struct weft_wc *wc;

	if (!status && (flags & WEFT_POST_QUIET))
		return;
	wc = &cq->wcs[cq->tail++ & (cq->depth - 1)];
	memset(wc, 0, sizeof(*wc));
	wc->cookie = cookie;
	wc->ep = &ep->base;
	wc->status = status;
	wc->op = (uint8_t)op;
	wc->scope = status ? WEFT_SCOPE_OP : WEFT_SCOPE_NONE;
	wc->idx = idx;
	ep->nr_open++;
}

/* ---- memory regions ---- */

int wfi_mr_opts_check(const struct weft_mr_opts *opts)
{
	uint64_t end;

	if (!opts->addr || !opts->len || opts->reserved || opts->kind > WEFT_MR_DMABUF ||
	    (opts->access & ~(WFI_REMOTE_ACCESS | WEFT_ACCESS_LOCAL_WRITE)) ||
	    wfi_add_overflows((uintptr_t)opts->addr, opts->len, &end) ||
	    wfi_add_overflows(opts->fd_off, opts->len, &end))
		return -EINVAL;
	if ((opts->access & WEFT_ACCESS_REMOTE_WRITE) && !(opts->access & WEFT_ACCESS_LOCAL_WRITE))
		return -EINVAL;
	return opts->kind == WEFT_MR_DMABUF ? -EOPNOTSUPP : 0;
}

int wfi_mr_opts_read(struct weft_mr_opts *out, const struct weft_mr_opts *in)
{
	const int ret = wfi_opts_read(out, sizeof(*out), in);

	return ret ? ret : wfi_mr_opts_check(out);
}

void wfi_mr_init(struct weft_mr *mr, struct weft_device *dev, const struct weft_mr_opts *opts)
{
	mr->dev = dev;
	mr->addr = opts->addr;
	mr->len = opts->len;
	mr->access = opts->access;
}

int wfi_export_opts_check(const struct weft_mr *mr, const struct weft_export_opts *in,
			  struct weft_export_opts *out)
{
	if (wfi_opts_read(out, sizeof(*out), in) || out->reserved)
		return -EINVAL;
	if (!in)
		out->access = mr->access & WFI_REMOTE_ACCESS;
	if (!out->access || (out->access & ~WFI_REMOTE_ACCESS))
		return -EINVAL;
	if (out->access & ~mr->access)
		return -EACCES;
	if (!out->len && out->off < mr->len)
		out->len = mr->len - out->off;
	return out->len && wfi_range_ok(out->off, out->len, mr->len) ? 0 : -ERANGE;
}

/* ---- a provider without ports ---- */

int wfi_no_port_open(struct weft_device *dev, const struct weft_port_opts *opts,
		     struct weft_port **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

void wfi_no_port_close(struct weft_port *port)
{
	(void)port;
}

int wfi_no_port_addr(struct weft_port *port, char *buf, size_t len)
{
	(void)port;
	(void)buf;
	(void)len;
	return -EOPNOTSUPP;
}

int wfi_no_port_poll(struct weft_port *port, struct weft_ask *out)
{
	(void)port;
	(void)out;
	return -EOPNOTSUPP;
}

int wfi_no_port_accept(struct weft_port *port, uint64_t id, struct weft_ep *ep)
{
	(void)port;
	(void)id;
	(void)ep;
	return -EOPNOTSUPP;
}

int wfi_no_port_refuse(struct weft_port *port, uint64_t id)
{
	(void)port;
	(void)id;
	return -EOPNOTSUPP;
}

int wfi_no_ep_dial(struct weft_ep *ep, const struct weft_dial_opts *opts)
{
	(void)ep;
	(void)opts;
	return -EOPNOTSUPP;
}
