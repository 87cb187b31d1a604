/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "transport/verbs/verbs.h"
#include "weft_internal/log.h"
#include "weft_internal/memlock.h"

#define MEMLOCK_LOW (64ull << 20)
#define INLINE_WANTED 128u
#define READS_WANTED 16
#define SILENT_MS 1200u
#define TX_FIRST 16u
#define TX_MAX 2048u
#define CREDITS_FIRST 64u
#define CREDITS_MAX 65536u

int wfi_verbs_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	struct ibv_device **list = ibv_get_device_list(NULL), *none = NULL;
	const uint64_t limit = wfi_memlock_limit();
	struct wfi_verbs_port port;
	int ret;

	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	ret = wfi_verbs_port_find(NULL, &port, list ? list : &none, out->why);
	if (list)
		ibv_free_device_list(list);
	if (ret < 0)
		return ret;
	out->nr_devices = (uint32_t)ret;
	out->why[0] = '\0';
	if (limit < MEMLOCK_LOW) {
		out->slow = 1;
		snprintf(out->why, sizeof(out->why),
			 "RLIMIT_MEMLOCK is %llu KiB: NICs pin what they move; set LimitMEMLOCK or "
			 "ulimit -l to unlimited",
			 (unsigned long long)limit >> 10);
	}
	return 0;
}

/* what one queue pair can really have is known when it was made */
static int measure_qp(struct wfi_verbs_device *dev, uint32_t max_sge)
{
	static const uint32_t inlines[] = { INLINE_WANTED, 64, 0 };
	struct ibv_cq *cq = ibv_create_cq(dev->ctx, 1, NULL, NULL, 0);
	struct ibv_qp_init_attr attr;
	struct ibv_qp *qp = NULL;
	unsigned i;

	if (!cq)
		return -errno;
	for (i = 0; i < WFI_ARRAY_SIZE(inlines) && !qp; i++) {
		memset(&attr, 0, sizeof(attr));
		attr.send_cq = cq;
		attr.recv_cq = cq;
		attr.qp_type = IBV_QPT_RC;
		attr.cap.max_send_wr = 16;
		attr.cap.max_recv_wr = 1;
		attr.cap.max_recv_sge = 1;
		attr.cap.max_send_sge = (uint32_t)wfi_min(max_sge, WFI_VERBS_SGES);
		attr.cap.max_inline_data = inlines[i];
		qp = ibv_create_qp(dev->pd, &attr);
	}
	if (qp) {
		dev->write_sges = (uint32_t)wfi_min(attr.cap.max_send_sge, WFI_VERBS_SGES);
		dev->base.caps.max_inline = attr.cap.max_inline_data;
		ibv_destroy_qp(qp);
	}
	ibv_destroy_cq(cq);
	return qp ? 0 : -EOPNOTSUPP;
}

static bool has_dmabuf(struct wfi_verbs_device *dev)
{
	/* a device that can says that -1 is no descriptor */
	return !ibv_reg_dmabuf_mr(dev->pd, 0, 4096, 0, -1, 0) && errno != EOPNOTSUPP &&
	       errno != ENOSYS && errno != EPROTONOSUPPORT;
}

/* some devices say that they have them and give none */
static bool has_windows(struct wfi_verbs_device *dev, const struct ibv_device_attr *attr)
{
	struct ibv_mw *mw;

	if (!(attr->device_cap_flags &
	      (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)))
		return false;
	mw = ibv_alloc_mw(dev->pd, IBV_MW_TYPE_2);
	if (mw)
		ibv_dealloc_mw(mw);
	return mw;
}

static int measure(struct wfi_verbs_device *dev)
{
	struct weft_caps *caps = &dev->base.caps;
	struct ibv_device_attr attr;
	int ret;

	if (ibv_query_device(dev->ctx, &attr))
		return -EIO;
	ret = measure_qp(dev, (uint32_t)attr.max_sge);
	if (ret)
		return ret;
	if (attr.max_srq < 1 || attr.max_srq_wr < 16 ||
	    (uint32_t)attr.max_qp_wr < 2 * WFI_VERBS_SQ_CTL + 2 || attr.max_qp_init_rd_atom < 1)
		return -EOPNOTSUPP;
	dev->read_sges = (uint32_t)(attr.max_sge_rd > 0 ? attr.max_sge_rd : 1);
	if (dev->read_sges > dev->write_sges)
		dev->read_sges = dev->write_sges;
	dev->sq_max = (uint32_t)attr.max_qp_wr;
	dev->cqe_max = (uint32_t)attr.max_cqe;
	dev->srq_max = (uint32_t)wfi_min((uint64_t)attr.max_srq_wr, WFI_VERBS_SRQ_BUFS);
	dev->reads_out = (uint8_t)wfi_min((uint64_t)attr.max_qp_init_rd_atom, READS_WANTED);
	dev->reads_in = (uint8_t)wfi_min((uint64_t)attr.max_qp_rd_atom, READS_WANTED);

	dev->has_windows = has_windows(dev, &attr);
	caps->flags = WEFT_CAP_LOCAL_MR | WEFT_CAP_WAIT | WEFT_CAP_REVOKE;
	if (has_dmabuf(dev))
		caps->flags |= WEFT_CAP_DMABUF;
	caps->max_pieces = (uint32_t)wfi_min(WFI_VERBS_PIECES, dev->sq_max / 2 - WFI_VERBS_SQ_CTL);
	caps->max_depth = (uint32_t)wfi_min(WFI_MAX_DEPTH, dev->sq_max - WFI_VERBS_SQ_CTL);
	caps->max_msg = WFI_VERBS_MSG_BYTES;
	caps->max_piece_bytes = wfi_min(dev->port.max_msg, WFI_VERBS_REQUEST_BYTES);
	caps->max_post_bytes = WFI_MAX_POST_BYTES;
	return 0;
}

static int context_open(struct wfi_verbs_device *dev, const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL), *none = NULL;
	char why[WEFT_WHY_MAX];
	int ret;

	ret = wfi_verbs_port_find(name, &dev->port, list ? list : &none, why);
	if (ret < 0) {
		wfi_err("verbs: %s", why);
	} else {
		dev->ctx = ibv_open_device(dev->port.device);
		ret = dev->ctx ? 0 : -errno;
		if (ret)
			wfi_err("verbs: device does not open: %s", strerror(-ret));
	}
	if (list)
		ibv_free_device_list(list);
	return ret;
}

static int pools_open(struct wfi_verbs_device *dev)
{
	int ret = wfi_verbs_pool_init(&dev->tx, dev, WFI_VERBS_MSG_BYTES, TX_FIRST, TX_MAX, 0);

	/* read by the NIC; the half that a peer writes is registered for it when it comes */
	if (!ret)
		ret = wfi_verbs_pool_init(&dev->credits, dev, WFI_VERBS_CREDIT_BYTES, CREDITS_FIRST,
					  CREDITS_MAX, 0);
	return ret;
}

static void pools_close(struct wfi_verbs_device *dev)
{
	wfi_verbs_pool_fini(&dev->tx);
	wfi_verbs_pool_fini(&dev->credits);
}

static void link_chain(struct wfi_verbs_device *dev)
{
	unsigned i;

	for (i = 0; i < WFI_VERBS_PIECES; i++)
		dev->wrs[i].next = &dev->wrs[i + 1];
}

int wfi_verbs_device_open(const struct weft_transport *t, struct wfi_env *env,
			  const struct weft_device_opts *opts, struct weft_device **out)
{
	struct wfi_verbs_device *dev;
	struct weft_device_opts o;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved)
		return -EINVAL;
	dev = wfi_alloc(env, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->base.transport = t;
	dev->base.env = env;
	dev->silent_ns = (o.silent_ms ? o.silent_ms : SILENT_MS) * WFI_NSEC_PER_MSEC;
	link_chain(dev);
	pthread_mutex_init(&dev->pin_lock, NULL);
	ret = env->rng->bytes(env, &dev->incarnation, sizeof(dev->incarnation));
	if (!ret)
		ret = context_open(dev, o.name);
	if (ret)
		goto err_dev;
	snprintf(dev->base.name, sizeof(dev->base.name), "%s",
		 ibv_get_device_name(dev->ctx->device));
	dev->pd = ibv_alloc_pd(dev->ctx);
	if (!dev->pd) {
		ret = -ENOMEM;
		goto err_ctx;
	}
	ret = measure(dev);
	/* events are looked for, never waited for */
	if (!ret && fcntl(dev->ctx->async_fd, F_SETFL, O_NONBLOCK))
		ret = -errno;
	if (ret) {
		wfi_err("verbs: %s lacks what an endpoint needs: %s",
			ibv_get_device_name(dev->ctx->device), strerror(-ret));
		goto err_pd;
	}
	ret = pools_open(dev);
	if (ret)
		goto err_pools;
	wfi_verbs_cost_measure(dev);
	ret = wfi_verbs_cm_open(dev);
	if (ret)
		wfi_warn("verbs: no connection manager (%s): modprobe rdma_ucm; until then peers "
			 "meet through their control connections",
			 strerror(-ret));
	else
		dev->base.caps.flags |= WEFT_CAP_PORT;
	*out = &dev->base;
	return 0;

err_pools:
	pools_close(dev);
err_pd:
	ibv_dealloc_pd(dev->pd);
err_ctx:
	ibv_close_device(dev->ctx);
err_dev:
	pthread_mutex_destroy(&dev->pin_lock);
	wfi_free(env, dev, sizeof(*dev));
	return ret;
}

void wfi_verbs_device_close(struct weft_device *base)
{
	struct wfi_verbs_device *dev;

	if (!base)
		return;
	dev = wfi_verbs_device(base);
	wfi_verbs_device_events(dev);
	wfi_verbs_cm_close(dev);
	pools_close(dev);
	ibv_dealloc_pd(dev->pd);
	ibv_close_device(dev->ctx);
	pthread_mutex_destroy(&dev->pin_lock);
	wfi_free(base->env, dev, sizeof(*dev));
}

struct wfi_verbs_ep *wfi_verbs_ep_find(struct wfi_verbs_device *dev, uint32_t qpn)
{
	struct wfi_verbs_ep *ep = dev->buckets[qpn % WFI_VERBS_BUCKETS];

	while (ep && ep->qp->qp_num != qpn)
		ep = ep->next_qpn;
	return ep;
}

/* ---- asynchronous events ---- */

static void break_all(struct wfi_verbs_device *dev, const struct ibv_cq *cq,
		      const struct ibv_srq *srq, enum weft_scope scope)
{
	struct wfi_verbs_ep *ep;
	unsigned i;

	for (i = 0; i < WFI_VERBS_BUCKETS; i++)
		for (ep = dev->buckets[i]; ep; ep = ep->next_qpn)
			if (scope == WEFT_SCOPE_DEVICE || ep->qp->send_cq == cq ||
			    ep->qp->recv_cq == cq || (srq && ep->qp->srq == srq))
				wfi_verbs_ep_break(ep, -EIO, scope);
}

void wfi_verbs_device_lost(struct wfi_verbs_device *dev)
{
	if (dev->failed)
		return;
	wfi_err("verbs: %s failed: open it anew", ibv_get_device_name(dev->ctx->device));
	dev->failed = true;
	break_all(dev, NULL, NULL, WEFT_SCOPE_DEVICE);
}

static void on_event(struct wfi_verbs_device *dev, const struct ibv_async_event *event)
{
	const char *name = ibv_get_device_name(dev->ctx->device);
	struct wfi_verbs_ep *ep;

	switch (event->event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_PATH_MIG_ERR:
		ep = wfi_verbs_ep_find(dev, event->element.qp->qp_num);
		if (ep)
			wfi_verbs_ep_break(ep, -EIO, WEFT_SCOPE_EP);
		break;
	case IBV_EVENT_CQ_ERR:
		wfi_err("verbs: %s: a completion queue failed", name);
		break_all(dev, event->element.cq, NULL, WEFT_SCOPE_EP);
		break;
	case IBV_EVENT_SRQ_ERR:
		wfi_err("verbs: %s: a receive queue failed", name);
		break_all(dev, NULL, event->element.srq, WEFT_SCOPE_EP);
		break;
	case IBV_EVENT_DEVICE_FATAL:
		wfi_verbs_device_lost(dev);
		break;
	case IBV_EVENT_PORT_ERR:
		wfi_warn("verbs: %s: port %d is down", name, event->element.port_num);
		break;
	case IBV_EVENT_PORT_ACTIVE:
		wfi_info("verbs: %s: port %d is up", name, event->element.port_num);
		break;
	default:
		wfi_debug("verbs: %s: %s", name, ibv_event_type_str(event->event_type));
		break;
	}
}

void wfi_verbs_device_events(struct wfi_verbs_device *dev)
{
	struct ibv_async_event event;

	while (!ibv_get_async_event(dev->ctx, &event)) {
		on_event(dev, &event);
		ibv_ack_async_event(&event);
	}
	wfi_verbs_cm_events(dev);
}
