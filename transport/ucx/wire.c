/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - frames as active messages */
#include <errno.h>
#include <string.h>
#include "transport/ucx/ucx.h"
#include "weft_internal/log.h"

#define AM_ID 0u
#define PART_MAGIC 0x3154525058435557ull /* "WUCXPRT1" */
#define FLYING 32u /* parts of one endpoint that UCX has at once */
#define PART_MIN (1u << 10)
#define PART_MAX (60u << 10)
#define LEAVE_NS (30 * WFI_NSEC_PER_MSEC) /* for what is said last to leave, or to be lost */
#define CLOSE_NS (5 * WFI_NSEC_PER_SEC) /* for UCX to let go of an endpoint */

/* UCX's place of bytes and the kernel's are one */
_Static_assert(sizeof(struct iovec) == sizeof(ucp_dt_iov_t), "layout");
_Static_assert(offsetof(struct iovec, iov_base) == offsetof(ucp_dt_iov_t, buffer), "layout");
_Static_assert(offsetof(struct iovec, iov_len) == offsetof(ucp_dt_iov_t, length), "layout");

static struct wfi_ucx_ep *ucx_ep(struct wfi_srv_ep *ep)
{
	return wfi_container_of(ep, struct wfi_ucx_ep, srv);
}

static const struct wfi_ucp *ucp_of(const struct wfi_ucx_ep *ep)
{
	return wfi_ucx_device(ep->srv.base.dev)->ucp;
}

/* ---- what leaves ---- */

/* all parts of a frame were handed over, and UCX is done with them */
static void tx_end(struct wfi_ucx_ep *ep, struct wfi_srv_tx *tx)
{
	if (tx->at == tx->nr_iov && !tx->nr_busy)
		wfi_srv_tx_done(&ep->srv, tx);
}

static void on_sent(void *req, ucs_status_t status, void *user)
{
	struct wfi_srv_tx *tx = user;
	struct wfi_ucx_ep *ep = ucx_ep(tx->ep);

	ucp_of(ep)->ucp_request_free(req);
	ep->nr_flying--;
	tx->nr_busy--;
	if (wfi_unlikely(status != UCS_OK))
		wfi_srv_lost(&ep->srv, -ECONNRESET);
	tx_end(ep, tx);
}

/* what goes next. @entries: how many places it takes, whole or in part */
struct slice {
	const void *buf;
	size_t count;
	size_t bytes;
	uint32_t entries;
	bool list;
};

static struct slice slice_next(const struct wfi_ucx_ep *ep, const struct wfi_srv_tx *tx)
{
	const uint32_t part = wfi_ucx_device(ep->srv.base.dev)->part;
	const struct iovec *iov = tx->iov + tx->at;
	struct slice s = { 0 };

	if (tx->at == tx->nr_iov)
		return s;
	if (ep->off || iov->iov_len > part) {
		s.buf = (const uint8_t *)iov->iov_base + ep->off;
		s.bytes = (size_t)wfi_min(iov->iov_len - ep->off, part);
		s.count = s.bytes;
		return s;
	}
	for (; tx->at + s.entries < tx->nr_iov; s.entries++) {
		if (s.bytes + iov[s.entries].iov_len > part)
			break;
		s.bytes += iov[s.entries].iov_len;
	}
	s.list = s.entries > 1;
	s.buf = s.list ? (const void *)iov : iov->iov_base;
	s.count = s.list ? s.entries : s.bytes;
	return s;
}

static void slice_done(struct wfi_ucx_ep *ep, struct wfi_srv_tx *tx, const struct slice *s)
{
	if (s->entries || !s->bytes) {
		tx->at += s->entries;
		return;
	}
	ep->off += s->bytes;
	if (ep->off < tx->iov[tx->at].iov_len)
		return;
	tx->at++;
	ep->off = 0;
}

/* Return: false UCX refuses: the endpoint is lost, and the frame stays where it is */
static bool part_sent(struct wfi_ucx_ep *ep, struct wfi_srv_tx *tx, ucs_status_ptr_t req)
{
	if (wfi_unlikely(UCS_PTR_IS_ERR(req)))
		return false;
	if (req) {
		ep->nr_flying++;
		tx->nr_busy++;
	}
	return true;
}

/* Return: the same */
static bool part_send(struct wfi_ucx_ep *ep, struct wfi_srv_tx *tx)
{
	ucp_request_param_t param = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
				UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_AM_SEND_FLAG_EAGER,
		.cb.send = on_sent,
		.user_data = tx,
	};
	const bool is_first = !tx->at;
	const void *header = is_first ? (const void *)tx->head : &ep->part;
	const size_t len = is_first ? tx->iov[0].iov_len : sizeof(ep->part);
	ucs_status_ptr_t req;
	struct slice s;

	tx->at += is_first;
	s = slice_next(ep, tx);
	if (s.list) {
		param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
		param.datatype = UCP_DATATYPE_IOV;
	}
	req = ucp_of(ep)->ucp_am_send_nbx(ep->ep, AM_ID, header, len, s.buf, s.count, &param);
	if (wfi_unlikely(!part_sent(ep, tx, req)))
		return false;
	slice_done(ep, tx, &s);
	return true;
}

/* a frame that is all in its head. UCX has a short way for bytes alone. Return: the same */
static bool head_send(struct wfi_ucx_ep *ep, struct wfi_srv_tx *tx)
{
	const ucp_request_param_t param = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
				UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_AM_SEND_FLAG_EAGER,
		.cb.send = on_sent,
		.user_data = tx,
	};

	tx->at = 1;
	return part_sent(ep, tx,
			 ucp_of(ep)->ucp_am_send_nbx(ep->ep, AM_ID, NULL, 0, tx->head,
						     tx->iov[0].iov_len, &param));
}

/* the first of the queue leaves it */
static void tx_pop(struct wfi_ucx_ep *ep)
{
	ep->first = ep->first->next;
	if (!ep->first)
		ep->last = &ep->first;
	wfi_ucx_device(ep->srv.base.dev)->nr_queued--;
}

static void tx_run(struct wfi_ucx_ep *ep)
{
	struct wfi_srv_tx *tx;

	while ((tx = ep->first) && ep->nr_flying < FLYING && !ep->srv.stopping && !ep->srv.lost) {
		if (!(tx->nr_iov == 1 ? head_send(ep, tx) : part_send(ep, tx))) {
			wfi_srv_lost(&ep->srv, -ECONNRESET);
			return;
		}
		if (tx->at < tx->nr_iov)
			continue;
		tx_pop(ep);
		tx_end(ep, tx);
	}
}

/* what UCX copies at once, or else not at all: it needs no request, nor has to be kept for one */
static bool wire_dart(struct wfi_srv_ep *base, const void *head, size_t len)
{
	static const ucp_request_param_t param = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FLAG_FORCE_IMM_CMPL,
		.flags = UCP_AM_SEND_FLAG_EAGER,
	};
	struct wfi_ucx_ep *ep = ucx_ep(base);

	if (wfi_unlikely(ep->first || base->stopping))
		return false;
	return !ucp_of(ep)->ucp_am_send_nbx(ep->ep, AM_ID, NULL, 0, head, len, &param);
}

static void wire_push(struct wfi_srv_ep *base, struct wfi_srv_tx *tx)
{
	struct wfi_ucx_ep *ep = ucx_ep(base);

	if (wfi_likely(tx->nr_iov == 1 && !ep->first && ep->nr_flying < FLYING &&
		       !base->stopping)) {
		if (wfi_unlikely(!head_send(ep, tx)))
			wfi_srv_lost(base, -ECONNRESET);
		tx_end(ep, tx);
		return;
	}
	tx->next = NULL;
	*ep->last = tx;
	ep->last = &tx->next;
	wfi_ucx_device(base->base.dev)->nr_queued++;
	tx_run(ep);
}

/* ---- what arrives ---- */

/* the first part of a frame, with @len bytes beside its head */
static int rx_first(struct wfi_srv_ep *ep, const void *head, size_t head_len, const void *data,
		    size_t len)
{
	if (wfi_srv_rx_left(ep) || wfi_srv_rx_begin(ep, head, head_len) != (int)head_len ||
	    len > wfi_srv_rx_left(ep))
		return -EPROTO;
	if (len)
		wfi_srv_rx_bytes(ep, data, len);
	return 0;
}

static int rx_part(struct wfi_srv_ep *ep, const void *header, const void *data, size_t len)
{
	struct wfi_ucx_part part;

	memcpy(&part, header, sizeof(part));
	if (part.magic != PART_MAGIC || !len || len > wfi_srv_rx_left(ep))
		return -EPROTO;
	wfi_srv_rx_bytes(ep, data, len);
	return 0;
}

/* @rndv: its bytes are not here, as none of ours' are */
static __attribute__((noinline)) void on_part(struct wfi_ucx_device *dev, const void *header,
					      size_t header_len, const void *data, size_t len,
					      bool rndv)
{
	struct wfi_srv_ep *ep;
	uint64_t to;

	/* whoever finds our port can say something: to nobody, then */
	if (header_len < sizeof(to))
		return;
	memcpy(&to, header, sizeof(to));
	ep = wfi_srv_ep_find(&dev->srv, to);
	if (!ep || !wfi_srv_ep_hears(ep))
		return;
	if (rndv || (header_len == sizeof(struct wfi_ucx_part)
			     ? rx_part(ep, header, data, len)
			     : rx_first(ep, header, header_len, data, len)))
		wfi_srv_lost(ep, -EPROTO);
}

static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data,
			       size_t len, const ucp_am_recv_param_t *param)
{
	struct wfi_ucx_device *dev = arg;
	const bool rndv = param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV;

	/* a frame that is all in its head has none beside it */
	if (wfi_likely(!header_len && !rndv))
		wfi_srv_rx_frame(&dev->srv, data, len);
	else
		on_part(dev, header, header_len, data, len, rndv);
	return UCS_OK;
}

int wfi_ucx_worker_listen(struct wfi_ucx_device *dev)
{
	const ucp_am_handler_param_t handler = {
		.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
			      UCP_AM_HANDLER_PARAM_FIELD_ARG,
		.id = AM_ID,
		.cb = on_message,
		.arg = dev,
	};
	ucp_worker_attr_t attr = { .field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER };

	if (dev->ucp->ucp_worker_set_am_recv_handler(dev->worker, &handler) != UCS_OK ||
	    dev->ucp->ucp_worker_query(dev->worker, &attr) != UCS_OK)
		return -EOPNOTSUPP;
	dev->wire = wfi_ucx_wire;
	dev->wire.head_max = (uint32_t)wfi_min(attr.max_am_header, WFI_SRV_HEAD_MAX);
	/* the first part has a head, too */
	dev->part =
		(uint32_t)wfi_min(wfi_max(attr.max_am_header, 2 * PART_MIN) - PART_MIN, PART_MAX);
	if (dev->wire.head_max >= sizeof(struct wfi_srv_frame) + sizeof(struct wfi_srv_desc))
		return 0;
	wfi_err("ucx: these transports take headers of %u bytes: name others", dev->wire.head_max);
	return -EOPNOTSUPP;
}

/* ---- the end ---- */

/* what was not sent will not be */
static void tx_drop(struct wfi_ucx_ep *ep)
{
	struct wfi_srv_tx *tx;

	while ((tx = ep->first)) {
		tx_pop(ep);
		tx->at = tx->nr_iov;
		tx_end(ep, tx);
	}
}

static void close_begin(struct wfi_ucx_ep *ep)
{
	const ucp_request_param_t param = { .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
					    .flags = UCP_EP_CLOSE_FLAG_FORCE };

	if (ep->ep)
		ep->closing = ucp_of(ep)->ucp_ep_close_nbx(ep->ep, &param);
	ep->ep = NULL;
	ep->closed = !UCS_PTR_IS_PTR(ep->closing);
}

/*
 * One socket of UCX 1.13 may be both ways of a connection. When ours is closed with parts that wait
 * for room in it, and the peer closes its own, UCX frees what it goes on to write to. So those
 * parts leave first, or are lost: soon, unless a peer that has taken its leave is slow to go.
 */
static bool waits_for_parts(const struct wfi_ucx_ep *ep)
{
	const struct wfi_srv_device *dev = wfi_srv_device(ep->srv.base.dev);
	const uint64_t limit_ns = ep->srv.bye ? dev->silent_ns : LEAVE_NS;

	return ep->ep && !ep->failed && ep->nr_flying &&
	       wfi_now(dev->base.env) - ep->since_ns < limit_ns;
}

static void wire_stop(struct wfi_srv_ep *base)
{
	struct wfi_ucx_ep *ep = ucx_ep(base);

	ep->since_ns = wfi_now(base->base.dev->env);
	if (!waits_for_parts(ep))
		close_begin(ep);
	wfi_ucx_device(base->base.dev)->nr_stopping++;
}

static void close_poll(struct wfi_ucx_ep *ep)
{
	const struct wfi_ucp *ucp = ucp_of(ep);

	if (waits_for_parts(ep))
		return;
	if (ep->ep)
		close_begin(ep);
	if (!ep->closed && ucp->ucp_request_check_status(ep->closing) != UCS_INPROGRESS) {
		ucp->ucp_request_free(ep->closing);
		ep->closed = true;
	}
	if (!ep->closed || ep->nr_flying)
		return;
	tx_drop(ep);
	wfi_ucx_device(ep->srv.base.dev)->nr_stopping--;
	wfi_srv_stopped(&ep->srv);
}

static void wire_progress(struct wfi_srv_device *base)
{
	struct wfi_ucx_device *dev = wfi_container_of(base, struct wfi_ucx_device, srv);
	struct wfi_srv_ep *ep;

	dev->ucp->ucp_worker_progress(dev->worker);
	if (!(dev->nr_queued | dev->nr_stopping))
		return;
	for (ep = base->first; ep; ep = ep->next) {
		if (wfi_unlikely(ep->stopping && !ep->stopped))
			close_poll(ucx_ep(ep));
		else if (ucx_ep(ep)->first)
			tx_run(ucx_ep(ep));
	}
}

static int wire_arm(struct wfi_srv_device *base, struct weft_wait *wait)
{
	struct wfi_ucx_device *dev = wfi_container_of(base, struct wfi_ucx_device, srv);
	ucs_status_t st = dev->ucp->ucp_worker_arm(dev->worker);

	if (st != UCS_OK)
		return st == UCS_ERR_BUSY ? -EAGAIN : -EIO;
	*wait = (struct weft_wait){ .fd = dev->efd };
	return 1;
}

/* ---- endpoints ---- */

static int wire_init(struct wfi_srv_ep *base)
{
	struct wfi_ucx_ep *ep = ucx_ep(base);

	ep->last = &ep->first;
	return 0;
}

static void wire_fini(struct wfi_srv_ep *base)
{
	struct wfi_srv_device *dev = wfi_srv_device(base->base.dev);
	struct wfi_env *env = dev->base.env;
	struct wfi_ucx_ep *ep = ucx_ep(base);
	uint64_t now = wfi_now(env);

	/* UCX 1.13 aborts when it closes what it has not even begun to connect */
	while (ep->ep && !base->lost && wfi_now(env) - now < LEAVE_NS &&
	       (base->nr_free < WFI_SRV_TX || wfi_now(env) - ep->since_ns < LEAVE_NS))
		wire_progress(dev);
	if (!ep->ep && !base->stopping)
		return;
	if (!base->stopping)
		wire_stop(base);
	base->stopping = true;
	now = wfi_now(env);
	while (!base->stopped && wfi_now(env) - now < CLOSE_NS)
		wire_progress(dev);
	if (!base->stopped)
		wfi_err("ucx: an endpoint does not close");
}

static int wire_addr(struct wfi_srv_ep *base, uint8_t *buf, size_t len)
{
	struct wfi_ucx_device *dev = wfi_ucx_device(base->base.dev);
	ucp_address_t *addr;
	size_t addr_len;

	if (dev->ucp->ucp_worker_get_address(dev->worker, &addr, &addr_len) != UCS_OK)
		return -ENOMEM;
	if (addr_len <= len)
		memcpy(buf, addr, addr_len);
	dev->ucp->ucp_worker_release_address(dev->worker, addr);
	if (addr_len <= len)
		return (int)addr_len;
	wfi_err("ucx: the address of %zu bytes is too long: name fewer transports or one network "
		"device",
		addr_len);
	return -EMSGSIZE;
}

static void on_error(void *arg, ucp_ep_h ucp_ep, ucs_status_t status)
{
	struct wfi_ucx_ep *ep = arg;

	(void)ucp_ep;
	(void)status;
	ep->failed = true;
	wfi_srv_lost(&ep->srv, -ECONNRESET);
}

static int wire_connect(struct wfi_srv_ep *base, const uint8_t *addr, uint32_t len)
{
	struct wfi_ucx_device *dev = wfi_ucx_device(base->base.dev);
	struct wfi_ucx_ep *ep = ucx_ep(base);
	ucp_ep_params_t params = {
		.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLER |
			      UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE,
		.err_mode = UCP_ERR_HANDLING_MODE_PEER,
		.err_handler = { .cb = on_error, .arg = ep },
	};
	ucs_status_t st;
	int ret;

	if (!len)
		return -EINVAL;
	params.address = (const ucp_address_t *)(const void *)addr;
	ret = wfi_ucx_trial(dev, &params);
	if (ret)
		return ret;
	ep->since_ns = wfi_now(base->base.dev->env);
	ep->part = (struct wfi_ucx_part){ .to = base->peer_id, .magic = PART_MAGIC };
	st = dev->ucp->ucp_ep_create(dev->worker, &params, &ep->ep);
	if (st == UCS_OK)
		return 0;
	ep->ep = NULL;
	wfi_warn("ucx: a peer can't be reached by the transports of this device: set the same on "
		 "both");
	return st == UCS_ERR_NO_MEMORY ? -ENOMEM : -EHOSTUNREACH;
}

const struct wfi_srv_wire wfi_ucx_wire = {
	.name = "ucx",
	.ep_size = sizeof(struct wfi_ucx_ep),
	.progress = wire_progress,
	.arm = wire_arm,
	.init = wire_init,
	.fini = wire_fini,
	.addr = wire_addr,
	.connect = wire_connect,
	.push = wire_push,
	.dart = wire_dart,
	.stop = wire_stop,
};
