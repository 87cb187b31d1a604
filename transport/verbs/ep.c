/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "transport/verbs/verbs.h"
#include "weft_internal/log.h"

#define DEPTH_DEFAULT 64u
#define RECV_DEFAULT (32 * WFI_VERBS_MSG_BYTES)
#define RECV_MIN (4 * WFI_VERBS_MSG_BYTES)
#define PSN_MASK 0xffffffu
#define QPN_MASK 0xffffffu

/*
 * A lost packet is sent anew after 4.096 us * 2^14 = 67 ms. How often is no measure of a peer's
 * death: some NICs count a request that arrived out of order as a try, some take 7 as for ever. So
 * they try on (WFI_VERBS_RETRIES), and the end of patience is the device's (.silent_ns).
 */
#define ACK_TIMEOUT 14
/* a peer without a buffer, which credits rule out, is asked after 0.64 ms, not for ever */
#define RNR_TIMER 12
#define HOPS 64

/* quiet for so long, an endpoint asks for a sign of life */
#define ALIVE_NS (250 * WFI_NSEC_PER_MSEC)
/* requests are open, none was done for as long as the device's patience, nothing came: the peer is
 * gone. Large ones have more, enough for WFI_VERBS_REQUEST_BYTES on a bad day */
#define LARGE_PATIENCE(ns) (5 * (ns) / 2)
/* ep_shutdown(): messages may still go out for so long, pieces for so long, and what the NIC does
 * not flush after that is taken from it: all before the transfer engine calls it late */
#define CLOSE_NS (1000 * WFI_NSEC_PER_MSEC)
#define FENCE_NS (30 * WFI_NSEC_PER_MSEC)
#define FLUSH_NS (15 * WFI_NSEC_PER_MSEC)

/* ---- failing ---- */

/*
 * A request that is flushed says that all before it are through: those that were done without a
 * word leave no other trace. One is enough.
 */
static void move_to_error(struct wfi_verbs_ep *ep)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };
	struct ibv_send_wr marker = { .opcode = IBV_WR_RDMA_WRITE };

	if (ep->in_error)
		return;
	ep->in_error = true;
	ep->close_ns = wfi_now(ep->base.dev->env);
	ibv_modify_qp(ep->qp, &attr, IBV_QP_STATE);
	if (ep->sq_head != ep->sq_tail)
		wfi_verbs_post_ctl(ep, &marker);
}

/* pieces under way are what a fence is about: they get less time to finish than messages do that
 * were copied */
static bool has_pieces(const struct wfi_verbs_ep *ep)
{
	const struct wfi_verbs_open *open;
	uint32_t i;

	for (i = ep->open_head; i != ep->open_tail; i++) {
		open = &ep->opens[i & ep->open_mask];
		if (open->op != WEFT_WC_SEND || open->flags & WFI_VERBS_OPEN_LENT)
			return true;
	}
	return false;
}

static void start_closing(struct wfi_verbs_ep *ep, int status)
{
	struct wfi_env *env = ep->base.dev->env;

	if (ep->state == WFI_EP_DIALING)
		wfi_verbs_device(ep->base.dev)->nr_dialing--;
	ep->state = WFI_EP_CLOSING;
	ep->close_status = status;
	ep->close_ns = wfi_now(env) + (has_pieces(ep) ? FENCE_NS : CLOSE_NS);
	ep->base.fast = &wfi_ep_unconnected;
	wfi_verbs_cq(ep->base.recv_cq)->nr_closing++;
}

/* from request number @at - 1 on, nothing of this endpoint succeeds */
static void set_broken(struct wfi_verbs_ep *ep, uint32_t at, int status, enum weft_scope scope)
{
	if (ep->broken)
		return;
	ep->broken = true;
	ep->err_at = at;
	ep->err_status = status;
	if (ep->scope < scope)
		ep->scope = (uint8_t)scope;
}

void wfi_verbs_ep_break(struct wfi_verbs_ep *ep, int status, enum weft_scope scope)
{
	if (ep->state < WFI_EP_CLOSING) {
		start_closing(ep, status);
		ep->scope = (uint8_t)scope;
	}
	/* requests that the NIC has done by now will still say so */
	if (ep->state == WFI_EP_CLOSING)
		move_to_error(ep);
	if (ep->sq_head == ep->sq_tail)
		set_broken(ep, ep->sq_head + 1, status, scope);
	wfi_verbs_cq_ready(wfi_verbs_cq(ep->base.send_cq), ep);
}

static int wc_errno(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_WR_FLUSH_ERR:
		return -ECANCELED;
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RNR_RETRY_EXC_ERR:
	case IBV_WC_RESP_TIMEOUT_ERR:
		return -ETIMEDOUT;
	/* range and rights were checked here: the peer has taken the memory back */
	case IBV_WC_REM_ACCESS_ERR:
		return -ESTALE;
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
		return -EFAULT;
	case IBV_WC_REM_ABORT_ERR:
		return -ECONNRESET;
	default:
		return -EIO;
	}
}

void wfi_verbs_ep_error(struct wfi_verbs_ep *ep, uint32_t at, enum ibv_wc_status status)
{
	int err = wc_errno(status);

	/* flushed because we end the endpoint: each post says so for itself */
	if (status == IBV_WC_WR_FLUSH_ERR) {
		if (ep->silent)
			err = -ETIMEDOUT;
		set_broken(ep, at, err, ep->scope ? ep->scope : WEFT_SCOPE_EP);
		if (ep->state == WFI_EP_CONNECTED)
			wfi_verbs_ep_break(ep, -EIO, WEFT_SCOPE_EP);
		return;
	}
	wfi_info("verbs: qp 0x%x: %s", ep->qp->qp_num, ibv_wc_status_str(status));
	set_broken(ep, at, err, WEFT_SCOPE_EP);
	if (ep->state == WFI_EP_CONNECTED)
		wfi_verbs_ep_break(ep, err == -ETIMEDOUT ? -ECONNRESET : err, WEFT_SCOPE_EP);
}

void wfi_verbs_ep_farewell(struct wfi_verbs_ep *ep)
{
	if (ep->state == WFI_EP_CONNECTED)
		wfi_verbs_ep_break(ep, -ECONNRESET, WEFT_SCOPE_EP);
}

static void fence(struct wfi_verbs_ep *ep)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	ibv_modify_qp(ep->qp, &attr, IBV_QP_STATE);
	/* messages that were received before are still to be read */
	while (wfi_verbs_cq_drain(wfi_verbs_cq(ep->base.recv_cq)))
		;
	attr.qp_state = IBV_QPS_RESET;
	ibv_modify_qp(ep->qp, &attr, IBV_QP_STATE);
	ep->fenced = true;
}

/* first the requests are flushed; should the NIC not even do that, it is reset */
static void lose_patience(struct wfi_verbs_ep *ep, uint64_t now)
{
	if (!ep->in_error || now < ep->close_ns + FLUSH_NS) {
		move_to_error(ep);
		return;
	}
	if (ep->sq_head != ep->sq_tail)
		wfi_warn("verbs: qp 0x%x: %u requests were lost", ep->qp->qp_num,
			 ep->sq_tail - ep->sq_head);
	fence(ep);
	set_broken(ep, ep->sq_head + 1, -ECANCELED, WEFT_SCOPE_EP);
	ep->sq_head = ep->sq_tail;
	wfi_verbs_cq_ready(wfi_verbs_cq(ep->base.send_cq), ep);
}

/* Return: true when the peer has been silent for too long */
static bool stalled(struct wfi_verbs_ep *ep, uint64_t now)
{
	const struct wfi_verbs_open *oldest = &ep->opens[ep->open_head & ep->open_mask];
	uint64_t limit = wfi_verbs_device(ep->base.dev)->silent_ns;

	if (ep->alive || ep->sq_head != ep->watch_head || ep->sq_head == ep->sq_tail) {
		ep->watch_head = ep->sq_head;
		ep->watch_ns = now;
		return false;
	}
	if (ep->open_head != ep->open_tail && oldest->large)
		limit = LARGE_PATIENCE(limit);
	return now - ep->watch_ns >= limit;
}

void wfi_verbs_ep_tick(struct wfi_verbs_ep *ep, uint64_t now)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE };

	if (ep->state == WFI_EP_CLOSING && !ep->fenced && now >= ep->close_ns)
		lose_patience(ep, now);
	if (ep->state == WFI_EP_DIALING)
		wfi_verbs_cm_tick(ep, now);
	if (ep->state != WFI_EP_CONNECTED)
		return;
	if (wfi_unlikely(stalled(ep, now))) {
		wfi_info("verbs: qp 0x%x: the peer is silent, %u requests are open", ep->qp->qp_num,
			 ep->sq_tail - ep->sq_head);
		ep->silent = true;
		wfi_verbs_ep_break(ep, -ECONNRESET, WEFT_SCOPE_EP);
		return;
	}
	if (ep->alive) {
		ep->alive = false;
		ep->alive_ns = now;
	}
	if (now - ep->alive_ns < ALIVE_NS)
		return;
	ep->alive_ns = now;
	/* requests that will answer are under way: they tell as well as this */
	if (ep->sq_head == ep->sq_tail || ep->unsignalled)
		wfi_verbs_post_ctl(ep, &wr);
}

/* ---- closing ---- */

bool wfi_verbs_ep_close_step(struct wfi_verbs_ep *ep)
{
	wfi_verbs_cq_drain(wfi_verbs_cq(ep->base.send_cq));
	if (ep->sq_head != ep->sq_tail)
		return false;
	if (!ep->fenced) {
		fence(ep);
		/* posts whose requests the NIC did not even take */
		set_broken(ep, ep->sq_head + 1, ep->close_status ? ep->close_status : -ECANCELED,
			   WEFT_SCOPE_EP);
		wfi_verbs_cq_ready(wfi_verbs_cq(ep->base.send_cq), ep);
	}
	return ep->open_head == ep->open_tail && !ep->nr_staged;
}

void wfi_verbs_ep_shutdown(struct weft_ep *base)
{
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND_WITH_IMM };
	bool connected = ep->state == WFI_EP_CONNECTED;

	if (ep->state == WFI_EP_CLOSING || ep->state == WFI_EP_CLOSED)
		return;
	start_closing(ep, 0);
	/* behind all that was posted, so that the last messages arrive */
	if (connected && wfi_verbs_post_ctl(ep, &wr))
		move_to_error(ep);
}

/* ---- making ---- */

static int qp_create(struct wfi_verbs_ep *ep, struct wfi_verbs_device *dev)
{
	struct ibv_qp_init_attr init = {
		.send_cq = wfi_verbs_cq(ep->base.send_cq)->cq,
		.recv_cq = wfi_verbs_cq(ep->base.recv_cq)->cq,
		.srq = wfi_verbs_cq(ep->base.recv_cq)->srq,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = ep->sq_size,
			.max_send_sge = dev->write_sges,
			.max_inline_data = dev->base.caps.max_inline,
		},
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = dev->port.num,
		.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
	};
	int ret;

	ep->qp = ibv_create_qp(dev->pd, &init);
	if (!ep->qp) {
		ret = -errno;
		wfi_err("verbs: no queue pair of %u requests: %s", ep->sq_size, strerror(-ret));
		return ret;
	}
	ret = ibv_modify_qp(ep->qp, &attr,
			    IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	if (ret)
		ibv_destroy_qp(ep->qp);
	return -ret;
}

/* room for its completions and messages in its queues */
static int queues_reserve(struct wfi_verbs_ep *ep)
{
	struct wfi_verbs_cq *tx = wfi_verbs_cq(ep->base.send_cq);
	struct wfi_verbs_cq *rx = wfi_verbs_cq(ep->base.recv_cq);
	uint32_t bufs = ep->rx_credits + 1;
	int ret;

	ret = wfi_verbs_cq_promise(rx, bufs);
	if (ret)
		return ret;
	ret = wfi_verbs_cq_reserve(rx, bufs);
	if (ret)
		goto err_promise;
	ret = wfi_verbs_cq_reserve(tx, ep->sq_size);
	if (ret)
		goto err_rx;
	return 0;

err_rx:
	rx->nr_cqes -= bufs;
err_promise:
	rx->nr_promised -= bufs;
	return ret;
}

static void queues_release(struct wfi_verbs_ep *ep)
{
	struct wfi_verbs_cq *rx = wfi_verbs_cq(ep->base.recv_cq);

	wfi_verbs_cq(ep->base.send_cq)->nr_cqes -= ep->sq_size;
	rx->nr_cqes -= ep->rx_credits + 1;
	rx->nr_promised -= ep->rx_credits + 1;
}

static int opts_check(struct weft_device *dev, const struct weft_ep_opts *in,
		      struct weft_ep_opts *o)
{
	if (wfi_opts_read(o, sizeof(*o), in) || o->reserved || !o->send_cq || !o->recv_cq ||
	    o->send_cq->dev != dev || o->recv_cq->dev != dev || o->depth > dev->caps.max_depth)
		return -EINVAL;
	if (o->flags)
		return o->flags == WEFT_EP_MEM ? -EOPNOTSUPP : -EINVAL;
	if (!o->depth)
		o->depth = DEPTH_DEFAULT;
	if (!o->recv_bytes)
		o->recv_bytes = RECV_DEFAULT;
	if (o->recv_bytes < RECV_MIN)
		o->recv_bytes = RECV_MIN;
	return 0;
}

static void sizes_set(struct wfi_verbs_ep *ep, const struct wfi_verbs_device *dev,
		      const struct weft_ep_opts *o)
{
	uint32_t need = (uint32_t)wfi_max(o->depth, WFI_VERBS_SQ_POSTS * dev->base.caps.max_pieces);
	uint32_t credits = 1, slots = 1, requests = 2;

	while (2 * credits * WFI_VERBS_MSG_BYTES <= o->recv_bytes &&
	       credits < WFI_VERBS_CREDITS_MAX)
		credits *= 2;
	while (slots < o->depth)
		slots *= 2;
	/* providers round up to one more than this, zero all of it and map it: most of what an
	 * endpoint costs */
	while (requests <= need + WFI_VERBS_SQ_CTL)
		requests *= 2;
	ep->base.send_cq = o->send_cq;
	ep->base.recv_cq = o->recv_cq;
	ep->base.ctx = o->ctx;
	ep->base.fast = &wfi_ep_unconnected;
	ep->rx_credits = credits;
	ep->depth = o->depth;
	ep->open_mask = slots - 1;
	ep->sq_size = (uint32_t)wfi_min(requests - 1, dev->sq_max);
}

static void ep_list(struct wfi_verbs_ep *ep, struct wfi_verbs_device *dev)
{
	struct wfi_verbs_ep **bucket = &dev->buckets[ep->qp->qp_num % WFI_VERBS_BUCKETS];
	struct wfi_verbs_cq *cq = wfi_verbs_cq(ep->base.recv_cq);

	ep->next_qpn = *bucket;
	*bucket = ep;
	ep->next = cq->eps;
	cq->eps = ep;
}

static void ep_unlist(struct wfi_verbs_ep *ep, struct wfi_verbs_device *dev)
{
	struct wfi_verbs_ep **link = &dev->buckets[ep->qp->qp_num % WFI_VERBS_BUCKETS];

	while (*link != ep)
		link = &(*link)->next_qpn;
	*link = ep->next_qpn;
	link = &wfi_verbs_cq(ep->base.recv_cq)->eps;
	while (*link != ep)
		link = &(*link)->next;
	*link = ep->next;
}

int wfi_verbs_ep_create(struct weft_device *base, const struct weft_ep_opts *opts,
			struct weft_ep **out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base);
	struct weft_ep_opts o;
	struct wfi_verbs_ep *ep;
	size_t opens_len;
	int ret;

	ret = opts_check(base, opts, &o);
	if (!ret && dev->failed)
		ret = -ENODEV;
	if (ret)
		return ret;
	ep = wfi_alloc(base->env, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	ep->base.dev = base;
	sizes_set(ep, dev, &o);
	opens_len = ((size_t)ep->open_mask + 1) * sizeof(*ep->opens);
	ep->opens = wfi_alloc(base->env, opens_len);
	ret = ep->opens ? base->env->rng->bytes(base->env, &ep->psn, sizeof(ep->psn)) : -ENOMEM;
	if (ret)
		goto err_opens;
	ep->psn &= PSN_MASK;
	ep->credit_buf = wfi_verbs_buf_get(&dev->credits);
	ret = ep->credit_buf ? 0 : -ENOMEM;
	if (ret)
		goto err_opens;
	ep->credit = (uint32_t *)ep->credit_buf->mem;
	memset(ep->credit, 0, WFI_VERBS_CREDIT_BYTES);
	/* its own, so that a peer has the key of no other peer's word */
	ep->credit_mr = wfi_verbs_pin(dev, ep->credit, WFI_VERBS_CREDIT_BYTES / 2,
				      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	ret = ep->credit_mr ? 0 : -ENOMEM;
	if (ret)
		goto err_credit;
	ret = queues_reserve(ep);
	if (ret)
		goto err_mr;
	ret = qp_create(ep, dev);
	if (ret)
		goto err_queues;
	ep->wr_base = (uint64_t)++dev->last_gen << 32;
	ep_list(ep, dev);
	*out = &ep->base;
	return 0;

err_queues:
	queues_release(ep);
err_mr:
	ibv_dereg_mr(ep->credit_mr);
err_credit:
	wfi_verbs_buf_put(&dev->credits, ep->credit_buf);
err_opens:
	if (ep->opens)
		wfi_free(base->env, ep->opens, opens_len);
	wfi_free(base->env, ep, sizeof(*ep));
	return ret;
}

void wfi_verbs_ep_destroy(struct weft_ep *base)
{
	struct wfi_verbs_cq *tx, *rx;
	struct wfi_verbs_ep *ep;
	struct wfi_env *env;

	if (!base)
		return;
	ep = wfi_verbs_ep(base);
	env = base->dev->env;
	tx = wfi_verbs_cq(base->send_cq);
	rx = wfi_verbs_cq(base->recv_cq);
	if (!ep->fenced)
		fence(ep);
	wfi_verbs_cm_forget(ep);
	rx->nr_closing -= ep->state == WFI_EP_CLOSING;
	rx->nr_opening -= ep->say_open;
	for (; ep->open_head != ep->open_tail; ep->open_head++) {
		const struct wfi_verbs_open *open = &ep->opens[ep->open_head & ep->open_mask];

		wfi_verbs_open_end(ep, open);
		tx->nr_open -= !(open->flags & WEFT_POST_QUIET);
	}
	while (wfi_verbs_cq_drain(tx))
		;
	wfi_verbs_cq_forget(tx, ep);
	wfi_verbs_cq_forget(rx, ep);
	ep_unlist(ep, wfi_verbs_device(base->dev));
	wfi_verbs_windows_drop(ep);
	ibv_destroy_qp(ep->qp);
	queues_release(ep);
	ibv_dereg_mr(ep->credit_mr);
	wfi_verbs_buf_put(&wfi_verbs_device(base->dev)->credits, ep->credit_buf);
	wfi_free(env, ep->opens, ((size_t)ep->open_mask + 1) * sizeof(*ep->opens));
	wfi_free(env, ep, sizeof(*ep));
}

/* ---- connecting ---- */

int wfi_verbs_ep_addr(struct weft_ep *base, struct weft_ep_addr *out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct wfi_verbs_ep_blob blob = {
		.magic = WFI_VERBS_EP_MAGIC,
		.incarnation = dev->incarnation,
		.credit_addr = (uintptr_t)ep->credit,
		.credit_rkey = ep->credit_mr->rkey,
		.credits = ep->rx_credits,
		.version = WFI_VERBS_VERSION,
		.qpn = ep->qp->qp_num,
		.psn = ep->psn,
		.lid = dev->port.lid,
		.mtu = dev->port.mtu,
		.nr_gids = (uint8_t)dev->port.nr_gids,
		.reads = dev->reads_in,
	};
	uint32_t i;

	for (i = 0; i < dev->port.nr_gids; i++)
		memcpy(blob.gids[i], dev->port.gids[i].raw, 16);
	blob.check = wfi_blob_check(&blob, sizeof(blob));
	memset(out, 0, sizeof(*out));
	out->blob_len = sizeof(blob);
	memcpy(out->blob, &blob, sizeof(blob));
	return 0;
}

static int blob_read(const struct weft_ep_peer *p, struct wfi_verbs_ep_blob *blob)
{
	uint32_t check;

	if (!p->blob || p->blob_len != sizeof(*blob) || p->nr_fds)
		return -EINVAL;
	memcpy(blob, p->blob, sizeof(*blob));
	if (blob->magic != WFI_VERBS_EP_MAGIC)
		return -EINVAL;
	if (blob->version != WFI_VERBS_VERSION) {
		wfi_err("verbs: the peer speaks version %u, this node %u: run one release on both",
			blob->version, WFI_VERBS_VERSION);
		return -EINVAL;
	}
	check = blob->check;
	blob->check = 0;
	if (wfi_blob_check(blob, sizeof(*blob)) != check || blob->qpn > QPN_MASK ||
	    blob->psn > PSN_MASK || blob->mtu < IBV_MTU_256 || blob->mtu > IBV_MTU_4096 ||
	    !blob->nr_gids || blob->nr_gids > WFI_VERBS_GIDS || !wfi_is_pow2(blob->credits) ||
	    blob->credits > WFI_VERBS_CREDITS_MAX)
		return -EINVAL;
	return 0;
}

void wfi_verbs_qp_limits(const struct wfi_verbs_device *dev, struct ibv_qp_attr *attr,
			 uint8_t reads)
{
	attr->max_dest_rd_atomic = dev->reads_in;
	attr->min_rnr_timer = RNR_TIMER;
	attr->timeout = ACK_TIMEOUT;
	attr->retry_cnt = WFI_VERBS_RETRIES;
	attr->rnr_retry = WFI_VERBS_RNR_RETRIES;
	attr->max_rd_atomic = reads < dev->reads_out ? reads : dev->reads_out;
}

void wfi_verbs_gid_set(const struct wfi_verbs_port *port, uint32_t ours, const uint8_t *theirs,
		       struct ibv_qp_attr *attr)
{
	attr->ah_attr.is_global = port->ethernet;
	attr->ah_attr.grh.sgid_index = (uint8_t)port->gids[ours].idx;
	attr->ah_attr.grh.hop_limit = HOPS;
	memcpy(attr->ah_attr.grh.dgid.raw, theirs, 16);
}

int wfi_verbs_qp_start(const struct wfi_verbs_device *dev, struct ibv_qp *qp,
		       struct ibv_qp_attr *attr, uint8_t reads)
{
	int ret;

	attr->qp_state = IBV_QPS_RTR;
	wfi_verbs_qp_limits(dev, attr, reads);
	ret = ibv_modify_qp(qp, attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				    IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
				    IBV_QP_MIN_RNR_TIMER);
	if (ret)
		return -ret;
	attr->qp_state = IBV_QPS_RTS;
	return -ibv_modify_qp(qp, attr,
			      IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
				      IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

static int qp_connect(struct wfi_verbs_ep *ep, const struct wfi_verbs_ep_blob *peer)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(ep->base.dev);
	struct ibv_qp_attr attr = {
		.path_mtu = peer->mtu < dev->port.mtu ? peer->mtu : dev->port.mtu,
		.dest_qp_num = peer->qpn,
		.rq_psn = peer->psn,
		.sq_psn = ep->psn,
		.ah_attr = { .port_num = dev->port.num, .dlid = peer->lid },
	};
	uint32_t ours = 0, theirs = 0;
	int ret;

	if (wfi_verbs_gid_pair(&dev->port, peer->gids, peer->nr_gids, &ours, &theirs)) {
		wfi_err("verbs: no address of ours and of the peer's are of one kind");
		return -EINVAL;
	}
	wfi_verbs_gid_set(&dev->port, ours, peer->gids[theirs], &attr);
	ret = wfi_verbs_qp_start(dev, ep->qp, &attr, peer->reads);
	if (ret)
		wfi_err("verbs: no way to the peer's address: %s", strerror(-ret));
	return ret;
}

void wfi_verbs_ep_meet(struct wfi_verbs_ep *ep, uint32_t credits, uint64_t credit_addr,
		       uint32_t credit_rkey, uint64_t incarnation)
{
	ep->tx_credits = credits;
	ep->tx_limit = credits;
	ep->peer_credit_addr = credit_addr;
	ep->peer_credit_rkey = credit_rkey;
	ep->peer_incarnation = incarnation;
}

static void set_connected(struct wfi_verbs_ep *ep)
{
	ep->alive_ns = wfi_now(ep->base.dev->env);
	ep->watch_ns = ep->alive_ns;
	ep->state = WFI_EP_CONNECTED;
	ep->base.fast = &wfi_verbs_fast;
}

void wfi_verbs_ep_open(struct wfi_verbs_ep *ep)
{
	set_connected(ep);
	ep->say_open = true;
	wfi_verbs_cq(ep->base.recv_cq)->nr_opening++;
}

int wfi_verbs_ep_connect(struct weft_ep *base, const struct weft_ep_peer *peer)
{
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct wfi_verbs_ep_blob blob;
	struct weft_ep_peer p;
	int ret;

	if (wfi_opts_read(&p, sizeof(p), peer) || p.reserved || blob_read(&p, &blob))
		return -EINVAL;
	if (ep->state != WFI_EP_CREATED)
		return ep->state < WFI_EP_CLOSING ? -EISCONN : -ENOTCONN;
	wfi_verbs_ep_meet(ep, blob.credits, blob.credit_addr, blob.credit_rkey, blob.incarnation);
	ret = qp_connect(ep, &blob);
	if (!ret)
		set_connected(ep);
	return ret;
}
