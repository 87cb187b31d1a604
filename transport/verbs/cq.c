/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "transport/verbs/cm.h"
#include "weft_internal/log.h"

#define DEPTH_DEFAULT 256u
#define DEPTH_MAX 65536u
#define CQES_MIN 1024u
#define TICK_POLLS 1024u
#define TICK_NS (10 * WFI_NSEC_PER_MSEC)

/* ---- from the NIC ---- */

void wfi_verbs_cq_ready(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep)
{
	if (ep->is_ready)
		return;
	ep->is_ready = true;
	ep->next_ready = cq->ready;
	cq->ready = ep;
}

static void on_sent(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep, const struct ibv_wc *wc)
{
	uint32_t at = (uint32_t)wc->wr_id + 1;

	ep->alive = true;
	if (wfi_unlikely(wc->status != IBV_WC_SUCCESS))
		wfi_verbs_ep_error(ep, at, wc->status);
	ep->sq_head = at;
	if (!ep->is_ready)
		wfi_verbs_cq_ready(cq, ep);
}

static void srq_post(struct wfi_verbs_cq *cq, const uint32_t *bufs, uint32_t nr)
{
	struct ibv_recv_wr wrs[WFI_VERBS_LENT], *bad;
	struct ibv_sge sges[WFI_VERBS_LENT];
	uint32_t i;

	for (i = 0; i < nr; i++) {
		sges[i].addr = (uintptr_t)cq->bufs[bufs[i]].mem;
		sges[i].length = WFI_VERBS_MSG_BYTES;
		sges[i].lkey = cq->bufs[bufs[i]].lkey;
		wrs[i].wr_id = bufs[i];
		wrs[i].sg_list = &sges[i];
		wrs[i].num_sge = 1;
		wrs[i].next = i + 1 < nr ? &wrs[i + 1] : NULL;
	}
	if (nr && wfi_unlikely(ibv_post_srq_recv(cq->srq, wrs, &bad)))
		wfi_err("verbs: a receive queue takes no buffers: its endpoints will fail");
}

static void on_received(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep, const struct ibv_wc *wc)
{
	uint32_t buf = (uint32_t)wc->wr_id;
	struct wfi_verbs_rx *rx;

	if (wfi_unlikely(!ep || wc->status != IBV_WC_SUCCESS || ep->fenced ||
			 (wc->opcode == IBV_WC_RECV && (wc->wc_flags & IBV_WC_WITH_IMM)))) {
		srq_post(cq, &buf, 1);
		if (ep && wc->status == IBV_WC_SUCCESS && !ep->fenced)
			wfi_verbs_ep_farewell(ep);
		return;
	}
	/* its first message can overtake the end of the handshake */
	if (wfi_unlikely(ep->state == WFI_EP_DIALING))
		wfi_verbs_cm_established(ep);
	ep->alive = true;
	ep->nr_staged++;
	rx = &cq->rx[cq->rx_tail++ & (WFI_VERBS_SRQ_BUFS - 1)];
	rx->ep = ep;
	rx->buf = buf;
	rx->len = wc->byte_len;
	rx->imm = be32toh(wc->imm_data);
	rx->op = wc->opcode == IBV_WC_RECV ? WEFT_WC_RECV : WEFT_WC_RECV_IMM;
}

/* wr_id of a send names the endpoint's generation, of a receive a buffer: the upper half is 0 */
bool wfi_verbs_cq_drain(struct wfi_verbs_cq *cq)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(cq->base.dev);
	struct ibv_wc wcs[WFI_VERBS_BATCH];
	struct wfi_verbs_ep *ep = NULL;
	uint32_t qpn = 0;
	int i, n;

	n = ibv_poll_cq(cq->cq, WFI_VERBS_BATCH, wcs);
	for (i = 0; i < n; i++) {
		if (!ep || wcs[i].qp_num != qpn) {
			qpn = wcs[i].qp_num;
			ep = wfi_verbs_ep_find(dev, qpn);
		}
		if (!(wcs[i].wr_id >> 32))
			on_received(cq, ep, &wcs[i]);
		else if (ep && wcs[i].wr_id >> 32 == ep->wr_base >> 32)
			on_sent(cq, ep, &wcs[i]);
	}
	return n == (int)WFI_VERBS_BATCH;
}

/* ---- to the owner ---- */

static bool open_done(const struct wfi_verbs_ep *ep, const struct wfi_verbs_open *open)
{
	return (int32_t)(ep->sq_head - open->end) >= 0 ||
	       (ep->broken && ep->sq_head == ep->sq_tail);
}

/* Return: true when there is something to say of @open */
static bool open_wc(struct wfi_verbs_ep *ep, const struct wfi_verbs_open *open, struct weft_wc *wc)
{
	int status = open->status;
	uint8_t scope = open->scope;

	if (wfi_unlikely(ep->broken && (int32_t)(open->end - ep->err_at) >= 0)) {
		status = ep->err_said ? -ECANCELED : ep->err_status;
		scope = ep->scope;
		ep->err_said = true;
	}
	if (!status && (open->flags & WEFT_POST_QUIET))
		return false;
	*wc = (struct weft_wc){
		.cookie = open->cookie,
		.ep = &ep->base,
		.status = status,
		.op = open->op,
		.scope = scope,
		.idx = open->idx,
	};
	return true;
}

/* posts of an endpoint that broke. Return: how many more there were to tell. Cold */
static unsigned take_broken(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep, struct weft_wc *wcs,
			    unsigned max)
{
	unsigned n = 0;

	for (; ep->open_head != ep->open_tail && n < max; ep->open_head++) {
		const struct wfi_verbs_open *open = &ep->opens[ep->open_head & ep->open_mask];

		if (!open_done(ep, open))
			break;
		n += open_wc(ep, open, &wcs[n]);
		wfi_verbs_open_end(ep, open);
		cq->nr_open -= !(open->flags & WEFT_POST_QUIET);
	}
	return n;
}

static unsigned take_whole(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep, struct weft_wc *wcs,
			   unsigned max)
{
	const uint32_t done = ep->sq_head, tail = ep->open_tail, mask = ep->open_mask;
	const struct wfi_verbs_open *opens = ep->opens;
	uint32_t head = ep->open_head, loud = 0;
	unsigned n = 0;

	for (; head != tail && n < max; head++) {
		const struct wfi_verbs_open *open = &opens[head & mask];
		struct weft_wc *wc = &wcs[n];

		if ((int32_t)(done - open->end) < 0)
			break;
		wfi_verbs_open_end(ep, open);
		if (wfi_unlikely(open->flags & WEFT_POST_QUIET)) {
			if (open->status)
				open_wc(ep, open, &wcs[n++]);
			continue;
		}
		n++;
		loud++;
		wc->cookie = open->cookie;
		wc->ep = &ep->base;
		wc->status = open->status;
		wc->op = open->op;
		wc->scope = open->scope;
		wc->idx = open->idx;
	}
	ep->open_head = head;
	cq->nr_open -= loud;
	return n;
}

static unsigned take_posts(struct wfi_verbs_cq *cq, struct weft_wc *wcs, unsigned max)
{
	struct wfi_verbs_ep *ep;
	unsigned n = 0;

	while ((ep = cq->ready)) {
		n += wfi_unlikely(ep->broken) ? take_broken(cq, ep, wcs + n, max - n)
					      : take_whole(cq, ep, wcs + n, max - n);
		/* what was left over comes next time */
		if (n == max && ep->open_head != ep->open_tail)
			return n;
		cq->ready = ep->next_ready;
		ep->is_ready = false;
	}
	return n;
}

static unsigned take_messages(struct wfi_verbs_cq *cq, struct weft_wc *wcs, unsigned max)
{
	unsigned n = 0;

	while (n < max && cq->rx_head != cq->rx_tail && cq->nr_lent < WFI_VERBS_LENT) {
		struct wfi_verbs_rx *rx = &cq->rx[cq->rx_head++ & (WFI_VERBS_SRQ_BUFS - 1)];

		cq->lent[cq->nr_lent++] = *rx;
		if (!rx->ep)
			continue;
		rx->ep->nr_staged--;
		wcs[n] = (struct weft_wc){ .ep = &rx->ep->base, .op = rx->op };
		if (rx->op == WEFT_WC_RECV) {
			wcs[n].data = cq->bufs[rx->buf].mem;
			wcs[n].len = rx->len;
		} else {
			wcs[n].imm = rx->imm;
		}
		n++;
	}
	return n;
}

/* tells @ep's peer what was taken; later, while the last telling is under way */
static void tell(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep)
{
	if (2 * (ep->rx_taken - ep->rx_told) < ep->rx_credits || ep->state != WFI_EP_CONNECTED)
		return;
	if (wfi_verbs_post_credit(ep))
		cq->tell_later = true;
}

static void tell_rest(struct wfi_verbs_cq *cq)
{
	struct wfi_verbs_ep *ep;

	cq->tell_later = false;
	for (ep = cq->eps; ep; ep = ep->next) {
		/* its owner may be busy with this queue alone */
		wfi_verbs_cq_drain(wfi_verbs_cq(ep->base.send_cq));
		tell(cq, ep);
	}
}

/* messages of the last poll were read: their buffers go back, and then the credits */
static void give_back(struct wfi_verbs_cq *cq)
{
	uint32_t bufs[WFI_VERBS_LENT], i, nr = cq->nr_lent;

	i = 0;
	do
		bufs[i] = cq->lent[i].buf;
	while (++i < nr);
	cq->nr_lent = 0;
	srq_post(cq, bufs, nr);
	for (i = 0; i < nr; i++) {
		struct wfi_verbs_ep *ep = cq->lent[i].ep;

		if (!ep)
			continue;
		ep->rx_taken++;
		tell(cq, ep);
	}
}

static unsigned take_opened(struct wfi_verbs_cq *cq, struct weft_wc *wcs, unsigned max)
{
	struct wfi_verbs_ep *ep;
	unsigned n = 0;

	for (ep = cq->eps; ep && n < max; ep = ep->next) {
		if (!ep->say_open)
			continue;
		ep->say_open = false;
		cq->nr_opening--;
		wcs[n++] = (struct weft_wc){ .ep = &ep->base, .op = WEFT_WC_OPEN };
	}
	return n;
}

static unsigned take_closed(struct wfi_verbs_cq *cq, struct weft_wc *wcs, unsigned max)
{
	struct wfi_verbs_ep *ep;
	unsigned n = 0;

	for (ep = cq->eps; ep && n < max; ep = ep->next) {
		if (ep->state != WFI_EP_CLOSING || !wfi_verbs_ep_close_step(ep))
			continue;
		ep->state = WFI_EP_CLOSED;
		cq->nr_closing--;
		wcs[n++] = (struct weft_wc){
			.ep = &ep->base,
			.op = WEFT_WC_CLOSED,
			.status = ep->close_status,
			.scope = ep->close_status ? ep->scope : WEFT_SCOPE_NONE,
		};
	}
	return n;
}

/* whichever queue its owner looks at, every endpoint has its turn */
static void tick(struct wfi_verbs_device *dev)
{
	uint64_t now = wfi_now(dev->base.env);
	struct wfi_verbs_ep *ep;
	unsigned i;

	if (now - dev->tick_ns < TICK_NS)
		return;
	dev->tick_ns = now;
	wfi_verbs_device_events(dev);
	for (i = 0; i < WFI_VERBS_BUCKETS; i++) {
		for (ep = dev->buckets[i]; ep; ep = ep->next_qpn) {
			wfi_verbs_cq_drain(wfi_verbs_cq(ep->base.send_cq));
			wfi_verbs_ep_tick(ep, now);
		}
	}
}

static int cq_poll(struct weft_cq *base, struct weft_wc *wcs, unsigned max)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_cq *cq = wfi_verbs_cq(base);
	unsigned n;

	if (cq->nr_lent)
		give_back(cq);
	wfi_verbs_cq_drain(cq);
	n = take_posts(cq, wcs, max);
	if (wfi_unlikely(cq->nr_opening))
		n += take_opened(cq, wcs + n, max - n);
	n += take_messages(cq, wcs + n, max - n);
	if (wfi_unlikely(cq->tell_later))
		tell_rest(cq);
	if (wfi_unlikely(cq->nr_closing))
		n += take_closed(cq, wcs + n, max - n);
	if (wfi_unlikely(dev->nr_dialing) && cq->polls % WFI_VERBS_CM_POLLS == 0)
		wfi_verbs_cm_events(dev);
	if (wfi_unlikely(++cq->polls % TICK_POLLS == 0))
		tick(dev);
	return (int)n;
}

static const struct weft_cq_fast cq_fast = { .poll = cq_poll };

/* ---- sleeping ---- */

static void channel_clear(struct wfi_verbs_cq *cq)
{
	struct ibv_cq *which;
	void *ctx;
	unsigned nr = 0;

	while (!ibv_get_cq_event(cq->chan, &which, &ctx))
		nr++;
	if (nr)
		ibv_ack_cq_events(cq->cq, nr);
}

int wfi_verbs_cq_arm(struct weft_cq *base, struct weft_wait *waits, unsigned max)
{
	struct wfi_verbs_cq *cq = wfi_verbs_cq(base);
	const struct wfi_verbs_ep *ep;

	if (!max)
		return -ENOSPC;
	tick(wfi_verbs_device(base->dev));
	channel_clear(cq);
	if (ibv_req_notify_cq(cq->cq, 0))
		return -EAGAIN;
	/* what came before the request rings no bell */
	while (wfi_verbs_cq_drain(cq))
		;
	if (cq->rx_head != cq->rx_tail || cq->nr_closing || cq->nr_opening || cq->tell_later)
		return -EAGAIN;
	for (ep = cq->ready; ep; ep = ep->next_ready)
		if (ep->open_head != ep->open_tail &&
		    open_done(ep, &ep->opens[ep->open_head & ep->open_mask]))
			return -EAGAIN;
	waits[0] = (struct weft_wait){ .fd = cq->epoll_fd };
	return 1;
}

void wfi_verbs_cq_disarm(struct weft_cq *base)
{
	channel_clear(wfi_verbs_cq(base));
	wfi_verbs_device_events(wfi_verbs_device(base->dev));
}

/* ---- life ---- */

static int wait_open(struct wfi_verbs_cq *cq, struct wfi_verbs_device *dev)
{
	struct epoll_event event = { .events = EPOLLIN };
	int ret;

	cq->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (cq->epoll_fd < 0)
		return -errno;
	if (fcntl(cq->chan->fd, F_SETFL, O_NONBLOCK) ||
	    epoll_ctl(cq->epoll_fd, EPOLL_CTL_ADD, cq->chan->fd, &event) ||
	    epoll_ctl(cq->epoll_fd, EPOLL_CTL_ADD, dev->ctx->async_fd, &event) ||
	    (dev->cm && epoll_ctl(cq->epoll_fd, EPOLL_CTL_ADD, dev->cm->fd, &event))) {
		ret = -errno;
		close(cq->epoll_fd);
		return ret;
	}
	return 0;
}

int wfi_verbs_cq_create(struct weft_device *base, const struct weft_cq_opts *opts,
			struct weft_cq **out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base);
	struct weft_cq_opts o;
	struct wfi_verbs_cq *cq;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || o.depth > DEPTH_MAX)
		return -EINVAL;
	cq = wfi_alloc(base->env, sizeof(*cq));
	if (!cq)
		return -ENOMEM;
	cq->base.fast = &cq_fast;
	cq->base.dev = base;
	cq->depth = o.depth ? o.depth : DEPTH_DEFAULT;
	cq->chan = ibv_create_comp_channel(dev->ctx);
	if (!cq->chan) {
		ret = -errno;
		goto err_cq;
	}
	ret = wait_open(cq, dev);
	if (ret)
		goto err_chan;
	cq->cq = ibv_create_cq(dev->ctx, (int)wfi_min(CQES_MIN, dev->cqe_max), NULL, cq->chan, 0);
	if (!cq->cq) {
		ret = -errno;
		wfi_err("verbs: no completion queue: %s", strerror(-ret));
		goto err_epoll;
	}
	*out = &cq->base;
	return 0;

err_epoll:
	close(cq->epoll_fd);
err_chan:
	ibv_destroy_comp_channel(cq->chan);
err_cq:
	wfi_free(base->env, cq, sizeof(*cq));
	return ret;
}

static void slabs_free(struct wfi_verbs_cq *cq)
{
	struct wfi_verbs_slab *slab;

	while ((slab = cq->slabs)) {
		cq->slabs = slab->next;
		wfi_verbs_slab_close(wfi_verbs_device(cq->base.dev), slab);
	}
}

void wfi_verbs_cq_destroy(struct weft_cq *base)
{
	struct wfi_verbs_cq *cq;
	struct wfi_env *env;

	if (!base)
		return;
	cq = wfi_verbs_cq(base);
	env = base->dev->env;
	/* every event must be acknowledged, or this waits for ever */
	channel_clear(cq);
	if (cq->srq) {
		ibv_destroy_srq(cq->srq);
		slabs_free(cq);
		wfi_free(env, cq->bufs, WFI_VERBS_SRQ_BUFS * sizeof(*cq->bufs));
		wfi_free(env, cq->rx, WFI_VERBS_SRQ_BUFS * sizeof(*cq->rx));
	}
	ibv_destroy_cq(cq->cq);
	close(cq->epoll_fd);
	ibv_destroy_comp_channel(cq->chan);
	wfi_free(env, cq, sizeof(*cq));
}

int wfi_verbs_cq_reserve(struct wfi_verbs_cq *cq, uint32_t nr)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(cq->base.dev);
	uint64_t want = (uint64_t)cq->nr_cqes + nr;

	if (want > (uint64_t)cq->cq->cqe) {
		if (want > dev->cqe_max ||
		    ibv_resize_cq(cq->cq, (int)wfi_min(2 * want, dev->cqe_max))) {
			wfi_err("verbs: a completion queue of %d is full: use another queue, or "
				"endpoints of less depth",
				cq->cq->cqe);
			return -ENOSPC;
		}
	}
	cq->nr_cqes = (uint32_t)want;
	return 0;
}

static int srq_open(struct wfi_verbs_cq *cq)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(cq->base.dev);
	struct ibv_srq_init_attr attr = { .attr = { .max_wr = dev->srq_max, .max_sge = 1 } };
	struct wfi_env *env = cq->base.dev->env;

	cq->bufs = wfi_alloc(env, WFI_VERBS_SRQ_BUFS * sizeof(*cq->bufs));
	cq->rx = wfi_alloc(env, WFI_VERBS_SRQ_BUFS * sizeof(*cq->rx));
	if (!cq->bufs || !cq->rx)
		goto err_mem;
	cq->srq = ibv_create_srq(dev->pd, &attr);
	if (cq->srq)
		return 0;
	wfi_err("verbs: no shared receive queue: %s", strerror(errno));
err_mem:
	if (cq->bufs)
		wfi_free(env, cq->bufs, WFI_VERBS_SRQ_BUFS * sizeof(*cq->bufs));
	if (cq->rx)
		wfi_free(env, cq->rx, WFI_VERBS_SRQ_BUFS * sizeof(*cq->rx));
	cq->bufs = NULL;
	cq->rx = NULL;
	return -ENOMEM;
}

static int slab_add(struct wfi_verbs_cq *cq, uint32_t nr)
{
	struct wfi_verbs_slab *slab;
	uint32_t i;

	slab = wfi_verbs_slab_open(wfi_verbs_device(cq->base.dev), (size_t)nr * WFI_VERBS_MSG_BYTES,
				   IBV_ACCESS_LOCAL_WRITE);
	if (!slab)
		return -ENOMEM;
	slab->next = cq->slabs;
	cq->slabs = slab;
	for (i = 0; i < nr; i++) {
		uint32_t idx = cq->nr_bufs++;

		cq->bufs[idx].mem = slab->mem + (size_t)i * WFI_VERBS_MSG_BYTES;
		cq->bufs[idx].lkey = slab->mr->lkey;
		srq_post(cq, &idx, 1);
	}
	return 0;
}

int wfi_verbs_cq_promise(struct wfi_verbs_cq *cq, uint32_t nr)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(cq->base.dev);
	uint32_t want = cq->nr_promised + nr;
	int ret = 0;

	if (want > dev->srq_max) {
		wfi_err("verbs: a receive queue has %u buffers: use another queue, or endpoints "
			"with less room for messages",
			dev->srq_max);
		return -ENOSPC;
	}
	if (!cq->srq)
		ret = srq_open(cq);
	if (!ret && want > cq->nr_bufs)
		ret = slab_add(cq, want - cq->nr_bufs);
	if (ret)
		return ret;
	cq->nr_promised = want;
	return 0;
}

void wfi_verbs_cq_forget(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep)
{
	struct wfi_verbs_ep **link;
	uint32_t i;

	for (i = cq->rx_head; i != cq->rx_tail; i++)
		if (cq->rx[i & (WFI_VERBS_SRQ_BUFS - 1)].ep == ep)
			cq->rx[i & (WFI_VERBS_SRQ_BUFS - 1)].ep = NULL;
	for (i = 0; i < cq->nr_lent; i++)
		if (cq->lent[i].ep == ep)
			cq->lent[i].ep = NULL;
	for (link = &cq->ready; *link; link = &(*link)->next_ready) {
		if (*link != ep)
			continue;
		*link = ep->next_ready;
		ep->is_ready = false;
		break;
	}
}
