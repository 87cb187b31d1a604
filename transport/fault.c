/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A provider around a provider. Each post has a record in a ring of its endpoint; the inner
 * provider gets the record's position as cookie and fills it in; records leave the ring in order of
 * posting, when they are complete and their delay is over. So nothing completes twice or out of
 * order, whatever is injected, and CLOSED is held back until the ring is empty. A late post is not
 * given to the inner provider yet, nor is any behind it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "transport/core.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

struct fault_transport {
	struct weft_transport base;
	const struct weft_transport *inner;
	struct wfi_fault_opts o;
	struct wfi_fault_stats stats;
	uint64_t rng;
};

struct fault_device {
	struct weft_device base;
	struct weft_device *inner;
	struct fault_transport *ft;
	struct fault_ep *eps;
	struct weft_piece *pieces; /* a post, translated */
};

struct fault_mr {
	struct weft_mr base;
	struct weft_mr *inner;
};

struct fault_rkey {
	struct weft_rkey base;
	struct weft_rkey *inner;
};

struct fault_cq {
	struct weft_cq base;
	struct weft_cq *inner;
};

enum fault_harm { HARM_NONE, HARM_CORRUPT, HARM_DUPLICATE };

struct fault_op {
	struct weft_wc wc; /* as it will be given */
	uint64_t due_ns;
	uint8_t *local; /* of the piece that is harmed */
	uint64_t len;
	enum fault_harm harm;
	/* late: what the inner provider is to be given, a post or a message; NULL: nothing */
	int (*post)(struct weft_ep *inner, const struct weft_post *post);
	void *msg;
	uint32_t msg_len;
	struct weft_post held; /* its pieces, and the message, are ours */
	uint64_t land_ns;
	bool forced; /* .wc stands, whatever the inner completion says */
	bool quiet;
	bool done;
	bool stopped;
};

struct fault_ep {
	struct weft_ep base;
	struct weft_ep *inner;
	struct fault_ep *next; /* on the device */
	struct fault_op *ops;
	uint32_t depth; /* power of two */
	uint32_t head;
	uint32_t land; /* from here to the tail the inner provider has nothing yet */
	uint32_t tail;
	uint32_t storm; /* posts that will still meet a full queue */
	bool stopped;
	bool closing;
	bool has_closed;
	int close_status; /* of our making, or 0 */
	struct weft_wc closed;
};

static struct fault_device *to_dev(struct weft_device *dev)
{
	return wfi_container_of(dev, struct fault_device, base);
}

static struct fault_ep *to_ep(struct weft_ep *ep)
{
	return wfi_container_of(ep, struct fault_ep, base);
}

static struct weft_mr *inner_mr(const struct weft_mr *mr)
{
	return mr ? wfi_container_of(mr, struct fault_mr, base)->inner : NULL;
}

/* splitmix64 */
static uint64_t draw(struct fault_transport *ft)
{
	uint64_t z = (ft->rng += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static bool hit(struct fault_transport *ft, uint32_t ppm, uint64_t *count)
{
	if (!ppm || draw(ft) % 1000000 >= ppm)
		return false;
	(*count)++;
	return true;
}

/* ---- device, regions, rkeys: passed on ---- */

static int fault_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	const struct fault_transport *ft = wfi_container_of(t, struct fault_transport, base);

	return ft->inner->probe(ft->inner, env, out);
}

static int fault_device_open(const struct weft_transport *t, struct wfi_env *env,
			     const struct weft_device_opts *opts, struct weft_device **out)
{
	struct fault_transport *ft = wfi_container_of(t, struct fault_transport, base);
	struct fault_device *dev = wfi_alloc(env, sizeof(*dev));
	int ret;

	if (!dev)
		return -ENOMEM;
	ret = ft->inner->device_open(ft->inner, env, opts, &dev->inner);
	if (ret)
		goto err_dev;
	dev->base.transport = t;
	dev->base.env = env;
	dev->base.caps = dev->inner->caps;
	/* completions may come late: nobody may think that bytes are final when the post returns */
	dev->base.caps.flags &= ~(uint32_t)(WEFT_CAP_SYNC | WEFT_CAP_PARTS);
	if (ft->o.cost_per_piece_ns)
		dev->base.caps.cost_per_piece_ns = ft->o.cost_per_piece_ns;
	if (ft->o.cost_per_mib_ns)
		dev->base.caps.cost_per_mib_ns = ft->o.cost_per_mib_ns;
	dev->ft = ft;
	dev->pieces = wfi_alloc(env, dev->base.caps.max_pieces * sizeof(*dev->pieces));
	if (!dev->pieces) {
		ret = -ENOMEM;
		goto err_inner;
	}
	*out = &dev->base;
	return 0;

err_inner:
	ft->inner->device_close(dev->inner);
err_dev:
	wfi_free(env, dev, sizeof(*dev));
	return ret;
}

static void fault_device_close(struct weft_device *base)
{
	struct fault_device *dev;

	if (!base)
		return;
	dev = to_dev(base);
	wfi_free(base->env, dev->pieces, base->caps.max_pieces * sizeof(*dev->pieces));
	dev->ft->inner->device_close(dev->inner);
	wfi_free(base->env, dev, sizeof(*dev));
}

static int fault_mr_reg(struct weft_device *base, const struct weft_mr_opts *opts,
			struct weft_mr **out)
{
	struct fault_device *dev = to_dev(base);
	struct fault_mr *mr = wfi_alloc(base->env, sizeof(*mr));
	int ret;

	if (!mr)
		return -ENOMEM;
	ret = dev->ft->inner->mr_reg(dev->inner, opts, &mr->inner);
	if (ret) {
		wfi_free(base->env, mr, sizeof(*mr));
		return ret;
	}
	mr->base = *mr->inner;
	mr->base.dev = base;
	*out = &mr->base;
	return 0;
}

static void fault_mr_dereg(struct weft_mr *base)
{
	if (!base)
		return;
	to_dev(base->dev)->ft->inner->mr_dereg(inner_mr(base));
	wfi_free(base->dev->env, wfi_container_of(base, struct fault_mr, base),
		 sizeof(struct fault_mr));
}

static int fault_mr_export(struct weft_mr *base, const struct weft_export_opts *opts,
			   struct weft_export *out)
{
	struct weft_export_opts o;

	if (!opts)
		return to_dev(base->dev)->ft->inner->mr_export(inner_mr(base), NULL, out);
	if (wfi_opts_read(&o, sizeof(o), opts))
		return -EINVAL;
	o.size = sizeof(o);
	o.ep = o.ep ? to_ep(o.ep)->inner : NULL;
	return to_dev(base->dev)->ft->inner->mr_export(inner_mr(base), &o, out);
}

static int fault_mr_revoke(struct weft_mr *base, uint64_t id)
{
	return to_dev(base->dev)->ft->inner->mr_revoke(inner_mr(base), id);
}

static int fault_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			     struct weft_rkey **out)
{
	struct fault_rkey *rkey = wfi_alloc(ep->dev->env, sizeof(*rkey));
	int ret;

	if (!rkey)
		return -ENOMEM;
	ret = to_dev(ep->dev)->ft->inner->rkey_import(to_ep(ep)->inner, src, &rkey->inner);
	if (ret) {
		wfi_free(ep->dev->env, rkey, sizeof(*rkey));
		return ret;
	}
	rkey->base = *rkey->inner;
	rkey->base.ep = ep;
	*out = &rkey->base;
	return 0;
}

static void fault_rkey_destroy(struct weft_rkey *base)
{
	struct fault_rkey *rkey;

	if (!base)
		return;
	rkey = wfi_container_of(base, struct fault_rkey, base);
	to_dev(base->ep->dev)->ft->inner->rkey_destroy(rkey->inner);
	wfi_free(base->ep->dev->env, rkey, sizeof(*rkey));
}

/* what is not posted meets no fault */
static void *fault_rkey_ptr(const struct weft_rkey *rkey)
{
	(void)rkey;
	return NULL;
}

/* ---- completions ---- */

static struct fault_op *op_at(const struct fault_ep *ep, uint32_t pos)
{
	return &ep->ops[pos & (ep->depth - 1)];
}

static void op_done(struct fault_ep *ep, const struct weft_wc *inner)
{
	struct fault_op *op = op_at(ep, (uint32_t)inner->cookie);

	op->done = true;
	if (!op->forced) {
		op->wc.status = inner->status;
		op->wc.scope = inner->scope;
		op->wc.idx = inner->idx;
	}
	if (op->harm == HARM_CORRUPT && !inner->status)
		op->local[op->wc.imm % op->len] ^= 0x10;
	if (op->harm == HARM_DUPLICATE && !inner->status)
		memmove(op->local + op->len / 2, op->local, op->len - op->len / 2);
	op->wc.imm = 0;
}

/* ---- bytes that land late ---- */

static void op_drop(struct fault_op *op, int status)
{
	op->forced = true;
	op->done = true;
	op->wc.status = status == -ENOTCONN ? -ECANCELED : status;
	op->wc.scope = status == -ENOTCONN ? WEFT_SCOPE_EP : WEFT_SCOPE_OP;
}

static void op_free_held(struct fault_ep *ep, struct fault_op *op)
{
	struct wfi_env *env = ep->base.dev->env;

	wfi_free(env, (void *)(uintptr_t)op->held.pieces,
		 op->held.nr_pieces * sizeof(*op->held.pieces));
	wfi_free(env, op->msg, op->msg_len);
	op->held.pieces = NULL;
	op->msg = NULL;
}

/* the first that is held goes to the inner provider. Return: 0, -EAGAIN its queue is full */
static int op_land(struct fault_ep *ep)
{
	struct fault_op *op = op_at(ep, ep->land);
	int ret = 0;

	op->held.cookie = ep->land;
	if (op->post)
		ret = op->post(ep->inner, &op->held);
	else if (op->msg)
		ret = weft_ep_post_send(ep->inner, op->msg, op->msg_len, ep->land, 0);
	if (ret == -EAGAIN)
		return ret;
	if (ret)
		op_drop(op, ret);
	op_free_held(ep, op);
	ep->land++;
	return 0;
}

static void land_due(struct fault_ep *ep, uint64_t now_ns)
{
	while (ep->land != ep->tail && now_ns >= op_at(ep, ep->land)->land_ns)
		if (op_land(ep))
			return;
}

/* the last occasion: some of what is held still lands, and then nothing */
static void land_last(struct fault_ep *ep)
{
	struct fault_transport *ft = to_dev(ep->base.dev)->ft;

	while (ep->land != ep->tail && draw(ft) % 2 && !op_land(ep))
		ft->stats.late_at_end++;
	for (; ep->land != ep->tail; ep->land++) {
		struct fault_op *op = op_at(ep, ep->land);

		if (!op->done)
			op_drop(op, -ENOTCONN);
		op_free_held(ep, op);
		ft->stats.late_lost++;
	}
}

/* a copy of what is lent for a call. Return: 0 with *@out, NULL of nothing; -EAGAIN no memory */
static int copy_lent(struct fault_ep *ep, const void *lent, size_t len, void **out)
{
	*out = len ? wfi_alloc(ep->base.dev->env, len) : NULL;
	if (!*out)
		return len ? -EAGAIN : 0;
	memcpy(*out, lent, len);
	return 0;
}

static void op_hold(struct fault_ep *ep, struct fault_op *op)
{
	struct fault_transport *ft = to_dev(ep->base.dev)->ft;

	op->land_ns = wfi_now(ep->base.dev->env);
	if (ft->o.late_max_ns)
		op->land_ns += draw(ft) % ft->o.late_max_ns;
}

static int op_hold_post(struct fault_ep *ep, struct fault_op *op, const struct weft_post *post,
			int (*inner)(struct weft_ep *ep, const struct weft_post *post))
{
	void *pieces;
	int ret = copy_lent(ep, post->pieces, post->nr_pieces * sizeof(*post->pieces), &pieces);

	if (ret)
		return ret;
	op->held = *post;
	op->held.pieces = pieces;
	op->post = inner;
	op_hold(ep, op);
	return 0;
}

static int op_hold_msg(struct fault_ep *ep, struct fault_op *op, const void *msg, uint32_t len)
{
	int ret = copy_lent(ep, msg, len, &op->msg);

	if (ret)
		return ret;
	op->msg_len = len;
	op_hold(ep, op);
	return 0;
}

static bool op_is_late(struct fault_ep *ep)
{
	struct fault_transport *ft = to_dev(ep->base.dev)->ft;

	return ep->land != ep->tail || hit(ft, ft->o.late_ppm, &ft->stats.late);
}

/* ---- polling ---- */

static bool never(const struct fault_transport *ft, const struct fault_ep *ep)
{
	return ft->o.never && (!ft->o.never_ep || ft->o.never_ep == &ep->base);
}

/* completions that are due, of endpoints that post to @cq. Return: how many */
static unsigned take_due(struct fault_cq *cq, struct weft_wc *wcs, unsigned max)
{
	struct fault_device *dev = to_dev(cq->base.dev);
	uint64_t now_ns = wfi_now(dev->base.env);
	struct fault_ep *ep;
	unsigned n = 0;

	for (ep = dev->eps; ep && n < max; ep = ep->next) {
		if (never(dev->ft, ep))
			continue;
		while (ep->base.send_cq == &cq->base && ep->head != ep->tail && n < max) {
			struct fault_op *op = op_at(ep, ep->head);

			if (!op->done || (!ep->closing && (op->stopped || now_ns < op->due_ns)))
				break;
			if (op->stopped) {
				op->wc.status = -ECANCELED;
				op->wc.scope = WEFT_SCOPE_EP;
			}
			ep->head++;
			if (op->wc.status || !op->quiet)
				wcs[n++] = op->wc;
		}
	}
	return n;
}

static unsigned take_closed(struct fault_cq *cq, struct weft_wc *wcs, unsigned max)
{
	struct fault_ep *ep;
	unsigned n = 0;

	for (ep = to_dev(cq->base.dev)->eps; ep && n < max; ep = ep->next) {
		if (ep->base.recv_cq != &cq->base || !ep->has_closed || ep->head != ep->tail)
			continue;
		ep->has_closed = false;
		wcs[n] = ep->closed;
		wcs[n].ep = &ep->base;
		if (ep->close_status) {
			wcs[n].status = ep->close_status;
			wcs[n].scope = WEFT_SCOPE_EP;
		}
		n++;
	}
	return n;
}

static int fault_poll(struct weft_cq *base, struct weft_wc *wcs, unsigned max)
{
	struct fault_cq *cq = wfi_container_of(base, struct fault_cq, base);
	struct fault_device *dev = to_dev(base->dev);
	uint64_t now_ns = wfi_now(dev->base.env);
	struct fault_ep *late;
	unsigned n = 0;
	int i, nr;

	for (late = dev->eps; late; late = late->next)
		if (late->base.send_cq == base)
			land_due(late, now_ns);
	nr = weft_cq_poll(cq->inner, wcs, max);
	for (i = 0; i < nr; i++) {
		struct weft_wc wc = wcs[i];
		struct fault_ep *ep = wc.ep->ctx;

		if (wc.op == WEFT_WC_CLOSED) {
			ep->closed = wc;
			ep->has_closed = true;
			ep->closing = true;
			land_last(ep);
		} else if (wc.op == WEFT_WC_RECV || wc.op == WEFT_WC_RECV_IMM ||
			   wc.op == WEFT_WC_OPEN) {
			wcs[n] = wc;
			wcs[n++].ep = &ep->base;
		} else {
			op_done(ep, &wc);
		}
	}
	n += take_due(cq, wcs + n, max - n);
	n += take_closed(cq, wcs + n, max - n);
	return (int)n;
}

static const struct weft_cq_fast fault_cq_fast = { .poll = fault_poll };

static int fault_cq_create(struct weft_device *base, const struct weft_cq_opts *opts,
			   struct weft_cq **out)
{
	struct fault_device *dev = to_dev(base);
	struct fault_cq *cq = wfi_alloc(base->env, sizeof(*cq));
	int ret;

	if (!cq)
		return -ENOMEM;
	ret = dev->ft->inner->cq_create(dev->inner, opts, &cq->inner);
	if (ret) {
		wfi_free(base->env, cq, sizeof(*cq));
		return ret;
	}
	cq->base.fast = &fault_cq_fast;
	cq->base.dev = base;
	*out = &cq->base;
	return 0;
}

static void fault_cq_destroy(struct weft_cq *base)
{
	struct fault_cq *cq;

	if (!base)
		return;
	cq = wfi_container_of(base, struct fault_cq, base);
	to_dev(base->dev)->ft->inner->cq_destroy(cq->inner);
	wfi_free(base->dev->env, cq, sizeof(*cq));
}

static int fault_cq_arm(struct weft_cq *base, struct weft_wait *waits, unsigned max)
{
	struct fault_cq *cq = wfi_container_of(base, struct fault_cq, base);
	struct fault_device *dev = to_dev(base->dev);
	struct fault_ep *ep;

	/* what is held back comes by the clock, and nothing would wake the sleeper */
	for (ep = dev->eps; ep; ep = ep->next)
		if ((ep->base.send_cq == base && ep->head != ep->tail &&
		     (!ep->stopped || ep->land != ep->tail)) ||
		    (ep->base.recv_cq == base && ep->has_closed))
			return -EAGAIN;
	return dev->ft->inner->cq_arm(cq->inner, waits, max);
}

static void fault_cq_disarm(struct weft_cq *base)
{
	struct fault_cq *cq = wfi_container_of(base, struct fault_cq, base);

	to_dev(base->dev)->ft->inner->cq_disarm(cq->inner);
}

/* ---- posts ---- */

static void ep_break(struct fault_ep *ep, int status)
{
	if (!ep->closing)
		ep->close_status = status;
	ep->closing = true;
	land_last(ep);
	to_dev(ep->base.dev)->ft->inner->ep_shutdown(ep->inner);
}

/* Return: 0 with a record, or what the post gives */
static int op_begin(struct fault_ep *ep, struct fault_op **out)
{
	struct fault_transport *ft = to_dev(ep->base.dev)->ft;

	if (ep->closing)
		return -ENOTCONN;
	if (!ep->storm && hit(ft, ft->o.eagain_ppm, &ft->stats.eagain))
		ep->storm = 1 + (ft->o.eagain_run ? (uint32_t)(draw(ft) % ft->o.eagain_run) : 0);
	if (ep->storm) {
		ep->storm--;
		return -EAGAIN;
	}
	if (ep->tail - ep->head == ep->depth)
		return -EAGAIN;
	*out = op_at(ep, ep->tail);
	memset(*out, 0, sizeof(**out));
	return 0;
}

/* the record counts. @given: to the inner provider */
static void op_accept(struct fault_ep *ep, bool given)
{
	if (given && ep->land == ep->tail)
		ep->land++;
	ep->tail++;
}

/* a failure that comes instead of the post. Return: true when it did */
static bool op_fails(struct fault_ep *ep, struct fault_op *op)
{
	struct fault_device *dev = to_dev(ep->base.dev);
	struct wfi_fault_stats *stats = &dev->ft->stats;
	struct fault_ep *other;

	op->wc.status = -EIO;
	op->wc.scope = WEFT_SCOPE_EP;
	if (hit(dev->ft, dev->ft->o.ep_ppm, &stats->ep)) {
		ep_break(ep, -EIO);
	} else if (hit(dev->ft, dev->ft->o.drop_ppm, &stats->dropped)) {
		op->wc.status = -ECONNRESET;
		ep_break(ep, -ECONNRESET);
	} else if (hit(dev->ft, dev->ft->o.device_ppm, &stats->device)) {
		op->wc.scope = WEFT_SCOPE_DEVICE;
		for (other = dev->eps; other; other = other->next)
			ep_break(other, -EIO);
	} else {
		op->wc.status = 0;
		op->wc.scope = WEFT_SCOPE_NONE;
		return false;
	}
	op->forced = true;
	op->done = true;
	return true;
}

static void op_delay(struct fault_ep *ep, struct fault_op *op)
{
	struct fault_transport *ft = to_dev(ep->base.dev)->ft;

	if (hit(ft, ft->o.stop_ppm, &ft->stats.stopped))
		ep->stopped = true;
	op->stopped = ep->stopped;
	if (ft->o.delay_max_ns && hit(ft, ft->o.delay_ppm, &ft->stats.delayed))
		op->due_ns = wfi_now(ep->base.dev->env) + draw(ft) % ft->o.delay_max_ns;
}

/* what goes wrong with the bytes of a read */
static void op_harm(struct fault_ep *ep, struct fault_op *op, struct weft_post *post)
{
	struct fault_transport *ft = to_dev(ep->base.dev)->ft;
	struct weft_piece *piece;

	if (!post->nr_pieces || op->forced)
		return;
	piece = (struct weft_piece *)(uintptr_t)&post->pieces[draw(ft) % post->nr_pieces];
	if (piece->len < 2)
		return;
	op->local = piece->local;
	op->len = piece->len;
	op->wc.imm = (uint32_t)draw(ft);
	if (hit(ft, ft->o.corrupt_ppm, &ft->stats.corrupted))
		op->harm = HARM_CORRUPT;
	else if (hit(ft, ft->o.dup_ppm, &ft->stats.duplicated))
		op->harm = HARM_DUPLICATE;
	else if (hit(ft, ft->o.truncate_ppm, &ft->stats.truncated))
		piece->len /= 2;
}

static void translate(struct fault_ep *ep, const struct weft_post *post, struct weft_post *out)
{
	struct fault_device *dev = to_dev(ep->base.dev);
	uint32_t i;

	*out = *post;
	out->flags = 0;
	out->local_mr = inner_mr(post->local_mr);
	out->pieces = dev->pieces;
	for (i = 0; i < post->nr_pieces; i++) {
		const struct weft_rkey *rkey = post->pieces[i].rkey;

		dev->pieces[i] = post->pieces[i];
		if (rkey)
			dev->pieces[i].rkey =
				wfi_container_of(rkey, struct fault_rkey, base)->inner;
	}
}

static int fault_post(struct weft_ep *base, const struct weft_post *post, enum weft_wc_op wc_op,
		      int (*inner)(struct weft_ep *ep, const struct weft_post *post))
{
	struct fault_ep *ep = to_ep(base);
	struct fault_device *dev = to_dev(base->dev);
	struct weft_post p;
	struct fault_op *op;
	bool late = false;
	int ret;

	if (post->nr_pieces > base->dev->caps.max_pieces)
		return -EINVAL;
	ret = op_begin(ep, &op);
	if (ret)
		return ret;
	op->wc.cookie = post->cookie;
	op->wc.ep = base;
	op->wc.op = (uint8_t)wc_op;
	op->quiet = post->flags & WEFT_POST_QUIET;
	translate(ep, post, &p);
	p.cookie = ep->tail;
	if (!op_fails(ep, op)) {
		if (post->nr_pieces && inner != ep->inner->fast->post_write_imm &&
		    hit(dev->ft, dev->ft->o.op_ppm, &dev->ft->stats.op)) {
			op->forced = true;
			op->wc.status = -EIO;
			op->wc.scope = WEFT_SCOPE_OP;
			p.nr_pieces = (uint32_t)(draw(dev->ft) % post->nr_pieces);
			op->wc.idx = p.nr_pieces;
		}
		if (wc_op == WEFT_WC_READ)
			op_harm(ep, op, &p);
		op_delay(ep, op);
		late = op_is_late(ep);
		ret = late ? op_hold_post(ep, op, &p, inner) : inner(ep->inner, &p);
		if (ret)
			return ret;
	}
	op_accept(ep, !late);
	return 0;
}

static int fault_post_read(struct weft_ep *ep, const struct weft_post *post)
{
	return fault_post(ep, post, WEFT_WC_READ, to_ep(ep)->inner->fast->post_read);
}

static int fault_post_write(struct weft_ep *ep, const struct weft_post *post)
{
	return fault_post(ep, post, WEFT_WC_WRITE, to_ep(ep)->inner->fast->post_write);
}

static int fault_post_write_imm(struct weft_ep *ep, const struct weft_post *post)
{
	return fault_post(ep, post, WEFT_WC_WRITE, to_ep(ep)->inner->fast->post_write_imm);
}

static int fault_post_send(struct weft_ep *base, const void *buf, uint32_t len, uint64_t cookie,
			   uint32_t flags)
{
	struct fault_ep *ep = to_ep(base);
	struct fault_op *op;
	bool late = false;
	int ret;

	ret = op_begin(ep, &op);
	if (ret)
		return ret;
	op->wc.cookie = cookie;
	op->wc.ep = base;
	op->wc.op = WEFT_WC_SEND;
	op->quiet = flags & WEFT_POST_QUIET;
	if (!op_fails(ep, op)) {
		op_delay(ep, op);
		late = op_is_late(ep);
		ret = late ? op_hold_msg(ep, op, buf, len)
			   : weft_ep_post_send(ep->inner, buf, len, ep->tail, 0);
		if (ret)
			return ret;
	}
	op_accept(ep, !late);
	return 0;
}

static const struct weft_ep_fast fault_ep_fast = {
	.post_read = fault_post_read,
	.post_write = fault_post_write,
	.post_write_imm = fault_post_write_imm,
	.post_send = fault_post_send,
	.post_msg = wfi_ep_flat_msg,
};

/* ---- endpoints ---- */

static int fault_ep_create(struct weft_device *base, const struct weft_ep_opts *opts,
			   struct weft_ep **out)
{
	struct fault_device *dev = to_dev(base);
	struct weft_ep_opts o;
	struct fault_ep *ep;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts) || !o.send_cq || !o.recv_cq ||
	    o.depth > base->caps.max_depth)
		return -EINVAL;
	ep = wfi_alloc(base->env, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	for (ep->depth = 1; ep->depth < (o.depth ? o.depth : 64);)
		ep->depth *= 2;
	ep->ops = wfi_alloc(base->env, ep->depth * sizeof(*ep->ops));
	if (!ep->ops) {
		ret = -ENOMEM;
		goto err_ep;
	}
	ep->base.fast = &fault_ep_fast;
	ep->base.dev = base;
	ep->base.send_cq = o.send_cq;
	ep->base.recv_cq = o.recv_cq;
	ep->base.ctx = o.ctx;
	o.size = sizeof(o);
	o.send_cq = wfi_container_of(o.send_cq, struct fault_cq, base)->inner;
	o.recv_cq = wfi_container_of(o.recv_cq, struct fault_cq, base)->inner;
	o.ctx = ep;
	ret = dev->ft->inner->ep_create(dev->inner, &o, &ep->inner);
	if (ret)
		goto err_ops;
	ep->next = dev->eps;
	dev->eps = ep;
	*out = &ep->base;
	return 0;

err_ops:
	wfi_free(base->env, ep->ops, ep->depth * sizeof(*ep->ops));
err_ep:
	wfi_free(base->env, ep, sizeof(*ep));
	return ret;
}

static int fault_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out)
{
	return to_dev(ep->dev)->ft->inner->ep_addr(to_ep(ep)->inner, out);
}

static int fault_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer)
{
	return to_dev(ep->dev)->ft->inner->ep_connect(to_ep(ep)->inner, peer);
}

static void fault_ep_shutdown(struct weft_ep *base)
{
	ep_break(to_ep(base), 0);
}

static void fault_ep_destroy(struct weft_ep *base)
{
	struct fault_device *dev;
	struct fault_ep *ep, **link;

	if (!base)
		return;
	dev = to_dev(base->dev);
	ep = to_ep(base);
	for (link = &dev->eps; *link != ep; link = &(*link)->next)
		;
	*link = ep->next;
	for (; ep->land != ep->tail; ep->land++)
		op_free_held(ep, op_at(ep, ep->land));
	dev->ft->inner->ep_destroy(ep->inner);
	wfi_free(base->dev->env, ep->ops, ep->depth * sizeof(*ep->ops));
	wfi_free(base->dev->env, ep, sizeof(*ep));
}

/* ---- ports: the inner provider's, which accept endpoints of ours ---- */

static int fault_port_open(struct weft_device *base, const struct weft_port_opts *opts,
			   struct weft_port **out)
{
	struct fault_device *dev = to_dev(base);

	return dev->ft->inner->port_open(dev->inner, opts, out);
}

static void fault_port_close(struct weft_port *port)
{
	if (port)
		port->dev->transport->port_close(port);
}

static int fault_port_addr(struct weft_port *port, char *buf, size_t len)
{
	return port->dev->transport->port_addr(port, buf, len);
}

static int fault_port_poll(struct weft_port *port, struct weft_ask *out)
{
	return port->dev->transport->port_poll(port, out);
}

static int fault_port_accept(struct weft_port *port, uint64_t id, struct weft_ep *ep)
{
	return port->dev->transport->port_accept(port, id, to_ep(ep)->inner);
}

static int fault_port_refuse(struct weft_port *port, uint64_t id)
{
	return port->dev->transport->port_refuse(port, id);
}

static int fault_ep_dial(struct weft_ep *ep, const struct weft_dial_opts *opts)
{
	return to_dev(ep->dev)->ft->inner->ep_dial(to_ep(ep)->inner, opts);
}

/* ---- the wrapper itself ---- */

static const struct weft_transport fault_table = {
	.size = sizeof(struct weft_transport),
	.name = "fault",
	.probe = fault_probe,
	.device_open = fault_device_open,
	.device_close = fault_device_close,
	.mr_reg = fault_mr_reg,
	.mr_dereg = fault_mr_dereg,
	.mr_export = fault_mr_export,
	.mr_revoke = fault_mr_revoke,
	.rkey_import = fault_rkey_import,
	.rkey_destroy = fault_rkey_destroy,
	.rkey_ptr = fault_rkey_ptr,
	.cq_create = fault_cq_create,
	.cq_destroy = fault_cq_destroy,
	.cq_arm = fault_cq_arm,
	.cq_disarm = fault_cq_disarm,
	.ep_create = fault_ep_create,
	.ep_addr = fault_ep_addr,
	.ep_connect = fault_ep_connect,
	.ep_shutdown = fault_ep_shutdown,
	.ep_destroy = fault_ep_destroy,
	.port_open = fault_port_open,
	.port_close = fault_port_close,
	.port_addr = fault_port_addr,
	.port_poll = fault_port_poll,
	.port_accept = fault_port_accept,
	.port_refuse = fault_port_refuse,
	.ep_dial = fault_ep_dial,
};

int wfi_fault_create(const struct weft_transport *inner, const struct wfi_fault_opts *opts,
		     struct weft_transport **out)
{
	/* before there is a device there is no environment to ask */
	struct fault_transport *ft = calloc(1, sizeof(*ft));

	if (!ft)
		return -ENOMEM;
	ft->base = fault_table;
	ft->inner = inner;
	ft->o = *opts;
	ft->rng = opts->seed;
	*out = &ft->base;
	return 0;
}

void wfi_fault_destroy(struct weft_transport *t)
{
	if (t)
		free(wfi_container_of(t, struct fault_transport, base));
}

void wfi_fault_set(struct weft_transport *t, const struct wfi_fault_opts *opts)
{
	wfi_container_of(t, struct fault_transport, base)->o = *opts;
}

void wfi_fault_stats(const struct weft_transport *t, struct wfi_fault_stats *out)
{
	*out = wfi_container_of(t, struct fault_transport, base)->stats;
}
