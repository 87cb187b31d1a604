/* SPDX-License-Identifier: Apache-2.0 */
/* served.c - devices, exports, rkeys and queues of providers whose peers serve reads and writes */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "transport/served.h"
#include "weft_internal/log.h"

#define EXPORTS_FIRST 64u
#define EXPORTS_MAX (1u << 20)
#define CQ_DEPTH_DEFAULT 256u
#define CQ_DEPTH_MAX 65536u
#define SILENT_MS_DEFAULT 3000u
#define TICK_NS (2 * WFI_NSEC_PER_MSEC)
#define TICK_POLLS 64u
#define RETRACT_NS (100 * WFI_NSEC_PER_MSEC) /* for an answer with bytes of a region to leave */

/* ---- device ---- */

int wfi_srv_device_init(struct wfi_srv_device *dev, const struct weft_transport *t,
			struct wfi_env *env, const struct wfi_srv_wire *wire, uint32_t silent_ms)
{
	const uint64_t room = wire->head_max - sizeof(struct wfi_srv_frame);

	dev->base.transport = t;
	dev->base.env = env;
	dev->base.caps = (struct weft_caps){
		.flags = WEFT_CAP_EMU_READ | WEFT_CAP_EMU_WRITE | WEFT_CAP_REVOKE | WEFT_CAP_WAIT |
			 WEFT_CAP_PARTS,
		.max_pieces = (uint32_t)wfi_min(WFI_SRV_PIECES, room / sizeof(struct wfi_srv_desc)),
		.max_depth = WFI_SRV_DEPTH,
		.max_msg = (uint32_t)wfi_min(WFI_SRV_MSG, room),
		.max_inline = (uint32_t)wfi_min(WFI_SRV_MSG, room),
		.max_piece_bytes = WFI_MAX_POST_BYTES,
		.max_post_bytes = WFI_MAX_POST_BYTES,
	};
	dev->wire = wire;
	dev->silent_ns = (silent_ms ? silent_ms : SILENT_MS_DEFAULT) * WFI_NSEC_PER_MSEC;
	return env->rng->bytes(env, &dev->incarnation, sizeof(dev->incarnation));
}

void wfi_srv_device_fini(struct wfi_srv_device *dev)
{
	if (dev->local) {
		close(dev->pidfd);
		wfi_gens_fini(&dev->gens, dev->base.env);
	}
	if (dev->exports)
		wfi_free(dev->base.env, dev->exports, dev->nr_exports * sizeof(*dev->exports));
}

/* ---- regions and exports ---- */

static void fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

int wfi_srv_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out)
{
	struct wfi_srv_mr *mr;
	struct weft_mr_opts o;
	int ret, fd;

	ret = wfi_mr_opts_read(&o, opts);
	if (ret)
		return ret;
	fd = wfi_srv_local_fd(wfi_srv_device(dev), &o);
	if (fd < 0 && fd != WFI_SRV_NO_FD)
		return fd;
	mr = wfi_alloc(dev->env, sizeof(*mr));
	if (!mr) {
		fd_close(fd);
		return -ENOMEM;
	}
	mr->fd = fd;
	mr->fd_off = o.fd_off;
	wfi_mr_init(&mr->base, dev, &o);
	*out = &mr->base;
	return 0;
}

static bool lends(const struct wfi_srv_ep *ep, uint32_t export_idx)
{
	uint32_t i;

	for (i = 0; i < WFI_SRV_TX; i++)
		if (ep->tx_mem[i].used && ep->tx_mem[i].lends & wfi_srv_export_bit(export_idx))
			return true;
	return false;
}

static void debts_retract(struct wfi_srv_ep *ep, uint32_t export_idx)
{
	uint32_t i, k, read = ep->served_head;

	for (i = ep->debt_head; i != ep->debt_tail; i++) {
		struct wfi_srv_debt *debt = &ep->debts[i % WFI_SRV_DEPTH];
		const struct wfi_srv_piece *from = ep->served[read % WFI_SRV_READS];

		if (!debt->read)
			continue;
		read++;
		for (k = 0; k < debt->idx; k++)
			if (from[k].export_idx == export_idx)
				break;
		if (k == debt->idx)
			continue;
		debt->idx = k;
		debt->status = -ESTALE;
	}
}

/* an export is no more: nothing of it is read or written when this returns */
static void retract(struct wfi_srv_ep *ep, uint32_t export_idx)
{
	struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);
	struct wfi_srv_rx *rx = &ep->rx;
	uint64_t limit;
	uint32_t i;

	for (i = rx->at; rx->busy && rx->f.h.kind == WFI_SRV_WRITE && i < rx->nr; i++) {
		if (rx->to[i].export_idx == export_idx && !rx->status) {
			rx->status = -ESTALE;
			rx->idx = i;
		}
		if (rx->status)
			rx->to[i].mem = NULL;
	}
	debts_retract(ep, export_idx);
	if (!lends(ep, export_idx))
		return;
	limit = wfi_now(dev->base.env) + RETRACT_NS;
	while (lends(ep, export_idx) && !ep->stopped && wfi_now(dev->base.env) < limit)
		dev->wire->progress(dev);
	if (!lends(ep, export_idx) || ep->stopped)
		return;
	wfi_warn("%s: a peer does not take the bytes that it asked for, and their memory is taken "
		 "back: its endpoint ends",
		 dev->base.transport->name);
	wfi_srv_lost(ep, -ETIMEDOUT);
	/* perhaps it ends already, and takes its time */
	if (!ep->stopping) {
		ep->stopping = true;
		dev->wire->stop(ep);
	}
	while (!ep->stopped)
		dev->wire->progress(dev);
}

static void export_drop(struct wfi_srv_device *dev, uint32_t idx)
{
	struct wfi_srv_ep *ep;

	memset(&dev->exports[idx], 0, sizeof(dev->exports[idx]));
	if (dev->local && idx < WFI_GENS)
		wfi_gens_end(&dev->gens, idx);
	for (ep = dev->first; ep; ep = ep->next)
		retract(ep, idx);
}

void wfi_srv_mr_dereg(struct weft_mr *base)
{
	struct wfi_srv_device *dev;
	struct wfi_srv_mr *mr;
	uint32_t i;

	if (!base)
		return;
	dev = wfi_srv_device(base->dev);
	mr = wfi_container_of(base, struct wfi_srv_mr, base);
	for (i = 0; i < dev->nr_exports; i++)
		if (dev->exports[i].mr == base)
			export_drop(dev, i);
	fd_close(mr->fd);
	wfi_free(base->dev->env, mr, sizeof(*mr));
}

/* Return: index of a free place, -ENOSPC, -ENOMEM */
static int export_place(struct wfi_srv_device *dev)
{
	struct wfi_srv_export *more;
	uint32_t i, nr;

	for (i = 0; i < dev->nr_exports; i++)
		if (!dev->exports[i].mr)
			return (int)i;
	nr = dev->nr_exports ? 2 * dev->nr_exports : EXPORTS_FIRST;
	if (nr > EXPORTS_MAX)
		return -ENOSPC;
	more = wfi_alloc(dev->base.env, nr * sizeof(*more));
	if (!more)
		return -ENOMEM;
	if (dev->exports) {
		memcpy(more, dev->exports, dev->nr_exports * sizeof(*more));
		wfi_free(dev->base.env, dev->exports, dev->nr_exports * sizeof(*more));
	}
	dev->exports = more;
	dev->nr_exports = nr;
	return (int)i;
}

int wfi_srv_mr_export(struct weft_mr *base, const struct weft_export_opts *opts,
		      struct weft_export *out)
{
	struct wfi_srv_rkey_blob blob = { .head = { .magic = WFI_SRV_RKEY_MAGIC } };
	const struct wfi_srv_mr *mr = wfi_container_of(base, struct wfi_srv_mr, base);
	struct wfi_srv_device *dev = wfi_srv_device(base->dev);
	struct wfi_env *env = base->dev->env;
	struct weft_export_opts o;
	int ret, idx, fd = WFI_SRV_NO_FD;

	ret = wfi_export_opts_check(base, opts, &o);
	if (!ret && o.ep && o.ep->dev != base->dev)
		ret = -EINVAL;
	if (!ret)
		ret = env->rng->bytes(env, &blob.secret, sizeof(blob.secret));
	if (ret)
		return ret;
	idx = export_place(dev);
	if (idx < 0)
		return idx;
	/* what one peer alone may have, and can have taken from it, nobody maps */
	if (mr->fd >= 0 && !o.ep && idx < (int)WFI_GENS) {
		fd = wfi_fd_grant(mr->fd, o.access);
		if (fd < 0)
			return fd;
		blob.off = mr->fd_off + o.off;
		blob.gen = wfi_gens_get(&dev->gens, (uint32_t)idx);
	}
	dev->exports[idx] = (struct wfi_srv_export){
		.mr = base,
		.ep = o.ep,
		.mem = (uint8_t *)base->addr + o.off,
		.len = o.len,
		.secret = blob.secret,
		.access = o.access,
	};
	blob.head.incarnation = dev->incarnation;
	blob.head.len = o.len;
	blob.head.access = o.access;
	blob.export_idx = (uint32_t)idx;
	wfi_rkey_write(&blob.head, sizeof(blob), blob.secret, out);
	out->fd = fd;
	return 0;
}

int wfi_srv_mr_revoke(struct weft_mr *base, uint64_t id)
{
	struct wfi_srv_device *dev = wfi_srv_device(base->dev);
	uint32_t i;

	for (i = 0; i < dev->nr_exports; i++) {
		if (dev->exports[i].mr != base || dev->exports[i].secret != id)
			continue;
		export_drop(dev, i);
		return 0;
	}
	return -ENOENT;
}

void wfi_srv_exports_end(struct wfi_srv_ep *ep)
{
	struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);
	uint32_t i;

	for (i = 0; i < dev->nr_exports; i++)
		if (dev->exports[i].ep == &ep->base)
			memset(&dev->exports[i], 0, sizeof(dev->exports[i]));
}

int wfi_srv_export_find(const struct wfi_srv_ep *ep, const struct wfi_srv_desc *desc, uint32_t need,
			uint8_t **mem)
{
	const struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);
	const struct wfi_srv_export *e = dev->exports + desc->export_idx;

	if (wfi_unlikely(desc->export_idx >= dev->nr_exports || !e->mr ||
			 e->secret != desc->secret || (e->ep && e->ep != &ep->base)))
		return -ESTALE;
	if (wfi_unlikely(!(e->access & need)))
		return -EACCES;
	if (wfi_unlikely(!wfi_range_ok(desc->off, desc->len, e->len)))
		return -ERANGE;
	*mem = e->mem + desc->off;
	return 0;
}

/* ---- rkeys ---- */

int wfi_srv_rkey_import(struct weft_ep *base, const struct weft_rkey_src *src,
			struct weft_rkey **out)
{
	const struct wfi_srv_ep *ep = wfi_srv_ep(base);
	struct wfi_srv_rkey_blob blob = { .head = { .magic = WFI_SRV_RKEY_MAGIC,
						    .incarnation = ep->peer_incarnation } };
	struct wfi_srv_rkey *rkey;
	struct weft_rkey_src s;
	int ret = wfi_rkey_read(&s, src, ep->state, &blob.head, sizeof(blob));

	if (ret)
		return ret;
	rkey = wfi_alloc(base->dev->env, sizeof(*rkey));
	if (!rkey)
		return -ENOMEM;
	rkey->base.ep = base;
	rkey->base.len = blob.head.len;
	rkey->base.access = s.access;
	rkey->secret = blob.secret;
	rkey->export_idx = blob.export_idx;
	ret = wfi_srv_local_map(rkey, &blob, s.fd);
	if (ret) {
		wfi_free(base->dev->env, rkey, sizeof(*rkey));
		return ret;
	}
	*out = &rkey->base;
	return 0;
}

void wfi_srv_rkey_destroy(struct weft_rkey *base)
{
	struct wfi_srv_rkey *rkey;

	if (!base)
		return;
	rkey = wfi_container_of(base, struct wfi_srv_rkey, base);
	wfi_view_unmap(&rkey->view);
	wfi_free(base->ep->dev->env, rkey, sizeof(*rkey));
}

/* ---- completion queues ---- */

static __attribute__((noinline)) void tick(struct wfi_srv_device *dev)
{
	uint64_t now = wfi_now(dev->base.env);
	struct wfi_srv_ep *ep;

	if (now - dev->tick_ns < TICK_NS)
		return;
	dev->tick_ns = now;
	for (ep = dev->first; ep; ep = ep->next)
		wfi_srv_ep_tick(ep, now);
}

static __attribute__((noinline)) void settle(struct wfi_srv_device *dev)
{
	struct wfi_srv_ep *ep;

	/* first: what settling stirs is for the next time */
	dev->due = false;
	for (ep = dev->first; ep; ep = ep->next)
		wfi_srv_ep_settle(ep);
}

static void progress(struct wfi_srv_device *dev)
{
	dev->wire->progress(dev);
	if (dev->due)
		settle(dev);
}

static void lent_end(struct wfi_srv_cq *cq)
{
	struct wfi_srv_ep *ep;

	for (ep = cq->lent; ep; ep = ep->lent_next)
		wfi_srv_give_back(ep);
	cq->lent = NULL;
}

/* of the endpoints from @ep to before @end. Return: completions written */
static unsigned cq_take(struct wfi_srv_cq *cq, struct wfi_srv_ep *ep, const struct wfi_srv_ep *end,
			struct weft_wc *wcs, unsigned max)
{
	unsigned n = 0;

	for (; ep && ep != end && n < max; ep = ep->next) {
		if (ep->open_head != ep->open_tail && ep->base.send_cq == &cq->base)
			n += wfi_srv_take_posts(ep, wcs + n, max - n);
		if ((ep->nr_msgs || ep->state == WFI_EP_CLOSING) && ep->base.recv_cq == &cq->base)
			n += wfi_srv_take_messages(ep, wcs + n, max - n);
	}
	return n;
}

/* Return: the same, of all */
static __attribute__((noinline)) unsigned cq_turn(struct wfi_srv_cq *cq, struct weft_wc *wcs,
						  unsigned max)
{
	struct wfi_srv_device *dev = wfi_srv_device(cq->base.dev);
	const uint32_t stirs = dev->stirs;
	unsigned n = cq_take(cq, cq->turn, NULL, wcs, max);

	if (cq->turn != dev->first)
		n += cq_take(cq, dev->first, cq->turn, wcs + n, max - n);
	if (n < max)
		cq->seen = stirs;
	/* another one is first next time: nobody starves behind a chatty peer */
	cq->turn = cq->turn && cq->turn->next ? cq->turn->next : dev->first;
	return n;
}

static int cq_poll(struct weft_cq *base, struct weft_wc *wcs, unsigned max)
{
	struct wfi_srv_cq *cq = wfi_container_of(base, struct wfi_srv_cq, base);
	struct wfi_srv_device *dev = wfi_srv_device(base->dev);
	unsigned n;

	if (cq->lent)
		lent_end(cq);
	/* who waits longer comes first */
	dev->poll = (struct wfi_srv_poll){ cq->seen == dev->stirs ? base : NULL, wcs, wcs + max };
	progress(dev);
	dev->poll.cq = NULL;
	if (wfi_unlikely(dev->nr_closing || ++dev->polls % TICK_POLLS == 0))
		tick(dev);
	n = (unsigned)(dev->poll.next - wcs);
	return (int)(cq->seen == dev->stirs ? n : n + cq_turn(cq, wcs + n, max - n));
}

static const struct weft_cq_fast cq_fast = { .poll = cq_poll };

int wfi_srv_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		      struct weft_cq **out)
{
	struct weft_cq_opts o;
	struct wfi_srv_cq *cq;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved || o.depth > CQ_DEPTH_MAX)
		return -EINVAL;
	cq = wfi_alloc(dev->env, sizeof(*cq));
	if (!cq)
		return -ENOMEM;
	cq->base.fast = &cq_fast;
	cq->base.dev = dev;
	cq->depth = o.depth ? o.depth : CQ_DEPTH_DEFAULT;
	cq->turn = wfi_srv_device(dev)->first;
	cq->seen = wfi_srv_device(dev)->stirs - 1;
	*out = &cq->base;
	return 0;
}

void wfi_srv_cq_destroy(struct weft_cq *cq)
{
	if (cq)
		wfi_free(cq->dev->env, wfi_container_of(cq, struct wfi_srv_cq, base),
			 sizeof(struct wfi_srv_cq));
}

static bool cq_has_some(const struct weft_cq *cq)
{
	const struct wfi_srv_device *dev = wfi_srv_device(cq->dev);
	const struct wfi_srv_ep *ep;

	for (ep = dev->first; ep; ep = ep->next) {
		if (ep->base.send_cq == cq && wfi_srv_has_posts(ep))
			return true;
		if (ep->base.recv_cq == cq && wfi_srv_has_messages(ep))
			return true;
	}
	return false;
}

int wfi_srv_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max)
{
	struct wfi_srv_device *dev = wfi_srv_device(cq->dev);

	if (!max)
		return -ENOSPC;
	tick(dev);
	progress(dev);
	if (cq_has_some(cq) || dev->nr_closing)
		return -EAGAIN;
	return dev->wire->arm(dev, waits);
}

/* what woke its owner may have woken it for nothing: the next time finds it gone */
void wfi_srv_cq_disarm(struct weft_cq *cq)
{
	progress(wfi_srv_device(cq->dev));
}
