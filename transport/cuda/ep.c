/* SPDX-License-Identifier: Apache-2.0 */
/* ep.c - endpoints and queues: what is asked of a GPU ends when the event behind it has come */
#include <errno.h>
#include "gpu/error.h"
#include "transport/cuda/cuda.h"

#define DEPTH_DEFAULT 64u

/* ---- queues ---- */

/* both sides of a copy from region to region. Return: 0; -EBADMSG, with .idx of the first piece
 * that differs */
static int sums_compare(const struct wfi_cuda_ep *ep, struct wfi_cuda_post *p, const uint32_t *sums)
{
	uint32_t far[WFI_CUDA_PIECES], i;

	wfi_cuda_sums_end(ep->gpu, p->far_tables, far, p->idx);
	for (i = 0; i < p->idx; i++)
		if (sums[i] != far[i]) {
			p->idx = i;
			return -EBADMSG;
		}
	return 0;
}

/* what a post became goes to its queue. Return: whether there was something to say */
static bool post_end(struct wfi_cuda_ep *ep, uint32_t at, struct weft_wc *wc, int status,
		     enum weft_scope scope)
{
	struct wfi_cuda_post *p = &ep->posts[at % ep->depth];
	uint32_t *sums = NULL;

	if (!status && !p->status && p->summed) {
		sums = ep->sums + (uint64_t)(at % ep->depth) * WFI_CUDA_PIECES;
		wfi_cuda_sums_end(ep->gpu, p->sum_tables, sums, p->idx);
		if (p->far_tables)
			p->status = sums_compare(ep, p, sums);
	}
	if (wfi_unlikely(p->bounce))
		wfi_cuda_bounce_end(ep, at, status);
	if (p->tables | p->sum_tables | p->far_tables)
		wfi_cuda_tables_put(ep->gpu, p->tables | p->sum_tables | p->far_tables);
	ep->nr_waiting -= p->gate || p->held;
	ep->nr_apart -= p->apart;
	p->told = true;
	while (ep->head != ep->tail && ep->posts[ep->head % ep->depth].told)
		ep->head++;
	wfi_cuda_device(ep->base.dev)->nr_open--;
	if (!status)
		status = p->status;
	if (!status && (p->flags & WEFT_POST_QUIET))
		return false;
	*wc = (struct weft_wc){
		.cookie = p->cookie,
		.ep = &ep->base,
		.status = status,
		.op = p->op,
		.scope = (uint8_t)(status ? scope : WEFT_SCOPE_NONE),
		.idx = p->idx,
		.data = sums,
	};
	return true;
}

int wfi_cuda_event_look(struct wfi_cuda_gpu *g, struct CUevent_st *event, const char *what)
{
	int res;

	if (g->lost)
		return -EIO;
	res = wfi_gpu_enter(g->gpu);
	if (!res) {
		res = g->gpu->cuda->cuEventQuery(event);
		wfi_gpu_leave(g->gpu);
	}
	if (!res || res == WFI_CUDA_NOT_READY)
		return wfi_cuda_errno(res);
	return wfi_cuda_failed(g, what, res);
}

/* even where not all was asked for. Until it is recorded nobody can say when that ends */
void wfi_cuda_post_mark(const struct wfi_cuda_ep *ep, struct wfi_cuda_post *p)
{
	const int res = ep->gpu->gpu->cuda->cuEventRecord(p->event, ep->streams[p->way]);

	if (res)
		wfi_cuda_failed(ep->gpu, "an event", res);
	p->waits = true;
	p->unmarked = res;
}

static int mark_again(const struct wfi_cuda_ep *ep, struct wfi_cuda_post *p)
{
	const int res = wfi_gpu_enter(ep->gpu->gpu);

	if (res)
		return wfi_cuda_failed(ep->gpu, "an event", res);
	wfi_cuda_post_mark(ep, p);
	wfi_gpu_leave(ep->gpu->gpu);
	return ep->gpu->lost ? -EIO : -EAGAIN;
}

/* Return: 0 it is done, -EAGAIN, -ECANCELED it never began, or why its GPU is lost */
static int post_look(struct wfi_cuda_ep *ep, struct wfi_cuda_post *p)
{
	struct wfi_cuda_gpu *g = ep->gpu;
	int ret;

	if (!p->waits && !p->gate && !p->held)
		return 0;
	if (g->lost)
		return -EIO;
	if (p->gate || p->held) {
		if (ep->state == WFI_EP_CONNECTED)
			return -EAGAIN;
		return p->held ? -ECANCELED : 0;
	}
	if (p->rest)
		return -EAGAIN;
	ret = p->unmarked ? mark_again(ep, p) : wfi_cuda_event_look(g, p->event, "copies");
	if (!ret || ret == -EAGAIN)
		return ret;
	if (g->lost)
		return -EIO;
	/* of the call, and not of the GPU: the copies go on, and nobody can say now until when */
	wfi_cuda_ep_close(ep, 0);
	return -EAGAIN;
}

/* what is behind events that have come begins */
static void ep_go_on(struct wfi_cuda_ep *ep)
{
	uint32_t i;
	int ret;

	if (wfi_likely(!ep->nr_waiting) || ep->state != WFI_EP_CONNECTED || ep->gpu->lost)
		return;
	for (i = ep->head; i != ep->tail; i++) {
		struct wfi_cuda_post *p = &ep->posts[i % ep->depth];

		ret = p->gate ? wfi_cuda_event_look(ep->gpu, p->gate, "an event of an engine's")
			      : 0;
		/* what can't wait does not begin either */
		if (ret && ret != -EAGAIN)
			wfi_cuda_ep_close(ep, 0);
		if (ret || (p->held && !wfi_cuda_post_can_start(ep, p)))
			return;
		ep->nr_waiting -= p->gate || p->held;
		p->gate = NULL;
		if (p->held)
			wfi_cuda_post_start(ep, i);
	}
}

void wfi_cuda_gates_open(struct wfi_cuda_ep *ep, const struct CUevent_st *event)
{
	uint32_t i;

	for (i = ep->head; ep->nr_waiting && i != ep->tail; i++) {
		struct wfi_cuda_post *p = &ep->posts[i % ep->depth];

		if (p->gate != event)
			continue;
		p->gate = NULL;
		ep->nr_waiting--;
	}
}

/* those that do not wait for the first of all: what comes from copies on the GPU is there long
 * before what came over the bus and was asked for earlier. They have a stream of their own, and end
 * in its order */
static unsigned ep_harvest_apart(struct wfi_cuda_ep *ep, struct weft_wc *wcs, unsigned max)
{
	uint32_t i;
	unsigned n = 0;

	for (i = ep->head; ep->nr_apart && n < max && i != ep->tail; i++) {
		struct wfi_cuda_post *p = &ep->posts[i % ep->depth];

		if (!p->apart || p->told)
			continue;
		if (post_look(ep, p))
			break;
		n += post_end(ep, i, &wcs[n], 0, WEFT_SCOPE_OP);
	}
	return n;
}

static unsigned ep_harvest(struct wfi_cuda_ep *ep, struct weft_wc *wcs, unsigned max)
{
	unsigned n = 0;
	int ret;

	ep->copies_left = WFI_CUDA_COPIES;
	if (wfi_unlikely(ep->rest.open))
		wfi_cuda_rest_go_on(ep);
	ep_go_on(ep);
	while (n < max && ep->head != ep->tail) {
		/* of a GPU that is lost nothing moves any more */
		ret = ep->close_status ? -ECANCELED
				       : post_look(ep, &ep->posts[ep->head % ep->depth]);
		if (ret == -EAGAIN)
			break;
		n += post_end(ep, ep->head, &wcs[n], ret, ret ? WEFT_SCOPE_EP : WEFT_SCOPE_OP);
		if (ret && ret != -ECANCELED)
			wfi_cuda_ep_close(ep, wfi_cuda_lost_errno(ep->gpu));
	}
	if (wfi_unlikely(ep->nr_apart))
		n += ep_harvest_apart(ep, wcs + n, max - n);
	return n;
}

static unsigned ep_closed(struct wfi_cuda_ep *ep, struct weft_wc *wc)
{
	if (ep->state != WFI_EP_CLOSING || ep->head != ep->tail)
		return 0;
	ep->state = WFI_EP_CLOSED;
	wfi_cuda_device(ep->base.dev)->nr_closing--;
	*wc = (struct weft_wc){
		.ep = &ep->base,
		.op = WEFT_WC_CLOSED,
		.status = ep->close_status,
		.scope = ep->close_status ? WEFT_SCOPE_EP : WEFT_SCOPE_NONE,
	};
	return 1;
}

static int cq_poll(struct weft_cq *cq, struct weft_wc *wcs, unsigned max)
{
	const struct wfi_cuda_device *dev = wfi_cuda_device(cq->dev);
	struct wfi_cuda_ep *ep;
	unsigned n = 0;

	if (!(dev->nr_open | dev->nr_closing))
		return 0;
	for (ep = dev->eps; ep && n < max; ep = ep->next) {
		if (ep->base.send_cq == cq)
			n += ep_harvest(ep, wcs + n, max - n);
		if (ep->base.recv_cq == cq && n < max)
			n += ep_closed(ep, &wcs[n]);
	}
	return (int)n;
}

static const struct weft_cq_fast cq_fast = { .poll = cq_poll };

int wfi_cuda_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		       struct weft_cq **out)
{
	struct weft_cq_opts o;
	struct weft_cq *cq;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved)
		return -EINVAL;
	cq = wfi_alloc(dev->env, sizeof(*cq));
	if (!cq)
		return -ENOMEM;
	cq->fast = &cq_fast;
	cq->dev = dev;
	*out = cq;
	return 0;
}

void wfi_cuda_cq_destroy(struct weft_cq *cq)
{
	if (cq)
		wfi_free(cq->dev->env, cq, sizeof(*cq));
}

/* no event of a GPU wakes anybody: while copies are under way, one polls */
int wfi_cuda_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max)
{
	const struct wfi_cuda_device *dev = wfi_cuda_device(cq->dev);

	(void)waits;
	(void)max;
	return dev->nr_open | dev->nr_closing ? -EAGAIN : 0;
}

void wfi_cuda_cq_disarm(struct weft_cq *cq)
{
	(void)cq;
}

/* ---- life ---- */

int wfi_cuda_ep_create(struct weft_device *base, const struct weft_ep_opts *opts,
		       struct weft_ep **out)
{
	struct wfi_cuda_device *dev = wfi_cuda_device(base);
	struct weft_ep_opts o;
	struct wfi_cuda_ep *ep;
	uint32_t depth;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || !o.send_cq || !o.recv_cq ||
	    o.send_cq->dev != base || o.recv_cq->dev != base || o.depth > WFI_MAX_DEPTH)
		return -EINVAL;
	if (o.flags != WEFT_EP_MEM)
		return o.flags ? -EINVAL : -EOPNOTSUPP;
	depth = o.depth ? o.depth : DEPTH_DEFAULT;
	ep = wfi_alloc(base->env, sizeof(*ep) + depth * sizeof(ep->posts[0]));
	if (!ep)
		return -ENOMEM;
	ep->base.fast = &wfi_cuda_fast;
	ep->base.dev = base;
	ep->base.send_cq = o.send_cq;
	ep->base.recv_cq = o.recv_cq;
	ep->base.ctx = o.ctx;
	ep->state = WFI_EP_CONNECTED;
	ep->depth = depth;
	ep->copies_left = WFI_CUDA_COPIES;
	ep->next = dev->eps;
	dev->eps = ep;
	*out = &ep->base;
	return 0;
}

void wfi_cuda_ep_close(struct wfi_cuda_ep *ep, int status)
{
	if (status && !ep->close_status)
		ep->close_status = status;
	if (ep->state != WFI_EP_CONNECTED)
		return;
	ep->state = WFI_EP_CLOSING;
	ep->base.fast = &wfi_ep_unconnected;
	wfi_cuda_device(ep->base.dev)->nr_closing++;
}

void wfi_cuda_ep_shutdown(struct weft_ep *ep)
{
	wfi_cuda_ep_close(wfi_cuda_ep(ep), 0);
}

static void events_destroy(struct wfi_cuda_ep *ep)
{
	struct wfi_cuda_gpu *g = ep->gpu;
	uint32_t i;

	if (!g)
		return;
	if (wfi_gpu_enter(g->gpu))
		goto out;
	for (i = 0; i < ep->depth; i++)
		if (ep->posts[i].event)
			g->gpu->cuda->cuEventDestroy(ep->posts[i].event);
	wfi_gpu_leave(g->gpu);
	wfi_cuda_streams_destroy(g->gpu, ep->streams);
out:
	g->users--;
}

void wfi_cuda_ep_destroy(struct weft_ep *base)
{
	struct wfi_cuda_device *dev;
	struct wfi_cuda_ep *ep, **link;

	if (!base)
		return;
	dev = wfi_cuda_device(base->dev);
	ep = wfi_cuda_ep(base);
	for (link = &dev->eps; *link != ep; link = &(*link)->next)
		;
	*link = ep->next;
	dev->nr_closing -= ep->state == WFI_EP_CLOSING;
	events_destroy(ep);
	if (ep->sums)
		wfi_free(base->dev->env, ep->sums, WFI_CUDA_SUMS_BYTES(ep));
	if (ep->held)
		wfi_free(base->dev->env, ep->held, WFI_CUDA_HELD_BYTES(ep));
	if (ep->rest.pieces)
		wfi_free(base->dev->env, ep->rest.pieces, WFI_CUDA_REST_BYTES(ep));
	wfi_free(base->dev->env, ep, sizeof(*ep) + ep->depth * sizeof(ep->posts[0]));
}
