/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference provider: peers are endpoints of the same process, bytes move by memcpy inside the
 * post, messages lie in a ring that the receiver owns. Read this one first.
 *
 * Addresses and exports carry numbers, not pointers; the numbers are looked up in one list a
 * process, which is the one place where devices of several threads meet, hence its lock. Endpoints
 * that talk to each other belong to one thread.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "transport/core.h"
#include "transport/loop/loop.h"
#include "transport/msgring.h"

#define LOOP_MAGIC 0x31504f4f4c544657ull /* "WFTLOOP1" */
#define RECV_DEFAULT (256u << 10)

struct loop_blob {
	uint64_t magic;
	uint64_t id;
};

/* one mr_export(): lives until the region is gone and the last rkey to it is destroyed */
struct loop_export {
	struct loop_export *next; /* in the world, while live */
	struct loop_mr *mr; /* NULL: taken back */
	struct wfi_env *env;
	uint64_t id;
	uint8_t *mem;
	uint64_t len;
	uint32_t access;
	uint32_t refs;
};

struct loop_mr {
	struct weft_mr base;
};

struct loop_rkey {
	struct wfi_sync_rkey sync;
	struct loop_export *exp; /* NULL: memory of ours, by WEFT_RKEY_PROCESS */
};

struct loop_ep {
	struct wfi_sync_ep sync;
	struct loop_ep *next; /* in the world */
	struct loop_ep *peer; /* whom we send to */
	struct loop_ep *from; /* who sends to us */
	uint64_t id;
	void *mem;
	uint32_t mem_bytes;
	struct wfi_msgring rx;
	struct wfi_msgring tx;
};

static struct {
	pthread_mutex_t lock;
	uint64_t last_id;
	struct loop_ep *eps;
	struct loop_export *exports;
} world = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct loop_ep *to_loop_ep(struct weft_ep *ep)
{
	return wfi_container_of(wfi_container_of(ep, struct wfi_sync_ep, base), struct loop_ep,
				sync);
}

static int loop_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	out->nr_devices = 1;
	return 0;
}

static int loop_device_open(const struct weft_transport *t, struct wfi_env *env,
			    const struct weft_device_opts *opts, struct weft_device **out)
{
	struct weft_device_opts o;
	struct weft_device *dev;

	if (wfi_opts_read(&o, sizeof(o), opts))
		return -EINVAL;
	if (o.name && strcmp(o.name, "loop") != 0)
		return -ENODEV;
	dev = wfi_alloc(env, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->transport = t;
	dev->env = env;
	dev->caps = (struct weft_caps){
		.flags = WEFT_CAP_SYNC | WEFT_CAP_MEM_EP | WEFT_CAP_REVOKE,
		.max_pieces = WFI_MAX_PIECES,
		.max_depth = WFI_MAX_DEPTH,
		.max_msg = WFI_MAX_MSG,
		.max_inline = WFI_MAX_MSG,
		.max_piece_bytes = WFI_MAX_POST_BYTES,
		.max_post_bytes = WFI_MAX_POST_BYTES,
	};
	*out = dev;
	return 0;
}

static void loop_device_close(struct weft_device *dev)
{
	if (dev)
		wfi_free(dev->env, dev, sizeof(*dev));
}

/* ---- memory regions and rkeys ---- */

static int loop_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts,
		       struct weft_mr **out)
{
	struct weft_mr_opts o;
	struct loop_mr *mr;
	int ret;

	ret = wfi_mr_opts_read(&o, opts);
	if (ret)
		return ret;
	mr = wfi_alloc(dev->env, sizeof(*mr));
	if (!mr)
		return -ENOMEM;
	wfi_mr_init(&mr->base, dev, &o);
	*out = &mr->base;
	return 0;
}

/* with the lock held */
static void export_put(struct loop_export *exp)
{
	if (!--exp->refs)
		wfi_free(exp->env, exp, sizeof(*exp));
}

/* Return: how many exports of @mr were taken back. @id 0: all */
static unsigned exports_drop(const struct loop_mr *mr, uint64_t id)
{
	struct loop_export **link, *exp;
	unsigned nr = 0;

	pthread_mutex_lock(&world.lock);
	link = &world.exports;
	while ((exp = *link)) {
		if (exp->mr != mr || (id && exp->id != id)) {
			link = &exp->next;
			continue;
		}
		*link = exp->next;
		exp->mr = NULL;
		export_put(exp);
		nr++;
	}
	pthread_mutex_unlock(&world.lock);
	return nr;
}

static void loop_mr_dereg(struct weft_mr *base)
{
	struct loop_mr *mr;

	if (!base)
		return;
	mr = wfi_container_of(base, struct loop_mr, base);
	exports_drop(mr, 0);
	wfi_free(base->dev->env, mr, sizeof(*mr));
}

static int loop_mr_export(struct weft_mr *base, const struct weft_export_opts *opts,
			  struct weft_export *out)
{
	struct loop_blob blob = { .magic = LOOP_MAGIC };
	struct weft_export_opts o;
	struct loop_export *exp;
	int ret;

	ret = wfi_export_opts_check(base, opts, &o);
	if (ret)
		return ret;
	exp = wfi_alloc(base->dev->env, sizeof(*exp));
	if (!exp)
		return -ENOMEM;
	exp->mr = wfi_container_of(base, struct loop_mr, base);
	exp->env = base->dev->env;
	exp->mem = (uint8_t *)base->addr + o.off;
	exp->len = o.len;
	exp->access = o.access;
	exp->refs = 1;
	pthread_mutex_lock(&world.lock);
	exp->id = ++world.last_id;
	exp->next = world.exports;
	world.exports = exp;
	pthread_mutex_unlock(&world.lock);

	blob.id = exp->id;
	memset(out, 0, sizeof(*out));
	out->id = exp->id;
	out->fd = -1;
	out->blob_len = sizeof(blob);
	memcpy(out->blob, &blob, sizeof(blob));
	return 0;
}

static int loop_mr_revoke(struct weft_mr *base, uint64_t id)
{
	if (!id)
		return -ENOENT;
	return exports_drop(wfi_container_of(base, struct loop_mr, base), id) ? 0 : -ENOENT;
}

static int blob_id(const void *buf, uint64_t len, uint64_t *id)
{
	struct loop_blob blob;

	if (!buf || len != sizeof(blob))
		return -EINVAL;
	memcpy(&blob, buf, sizeof(blob));
	if (blob.magic != LOOP_MAGIC || !blob.id)
		return -EINVAL;
	*id = blob.id;
	return 0;
}

static int rkey_from_blob(struct loop_rkey *rkey, const struct weft_rkey_src *src)
{
	struct loop_export *exp;
	uint64_t id;
	int ret;

	ret = blob_id(src->blob, src->blob_len, &id);
	if (ret)
		return ret;
	pthread_mutex_lock(&world.lock);
	for (exp = world.exports; exp && exp->id != id; exp = exp->next)
		;
	if (!exp)
		ret = -ESTALE;
	else if (src->access & ~exp->access)
		ret = -EACCES;
	else
		exp->refs++;
	pthread_mutex_unlock(&world.lock);
	if (ret)
		return ret;
	rkey->exp = exp;
	rkey->sync.mem = exp->mem;
	rkey->sync.base.len = exp->len;
	rkey->sync.base.access = src->access ? src->access : exp->access;
	return 0;
}

static int rkey_from_self(struct loop_rkey *rkey, const struct weft_rkey_src *src)
{
	uint64_t end;

	if (!src->access || !src->addr || !src->len || wfi_add_overflows(src->addr, src->len, &end))
		return -EINVAL;
	if (src->pid != getpid())
		return -ESRCH;
	rkey->sync.mem = (uint8_t *)(uintptr_t)src->addr;
	rkey->sync.base.len = src->len;
	rkey->sync.base.access = src->access;
	return 0;
}

static int loop_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			    struct weft_rkey **out)
{
	struct weft_rkey_src s;
	struct loop_rkey *rkey;
	int ret;

	if (wfi_opts_read(&s, sizeof(s), src) || (s.access & ~WFI_REMOTE_ACCESS))
		return -EINVAL;
	rkey = wfi_alloc(ep->dev->env, sizeof(*rkey));
	if (!rkey)
		return -ENOMEM;
	rkey->sync.base.ep = ep;
	if (s.kind == WEFT_RKEY_BLOB)
		ret = rkey_from_blob(rkey, &s);
	else if (s.kind == WEFT_RKEY_PROCESS && to_loop_ep(ep)->mem == NULL)
		ret = rkey_from_self(rkey, &s);
	else
		ret = -EOPNOTSUPP;
	if (ret) {
		wfi_free(ep->dev->env, rkey, sizeof(*rkey));
		return ret;
	}
	*out = &rkey->sync.base;
	return 0;
}

static void loop_rkey_destroy(struct weft_rkey *base)
{
	struct loop_rkey *rkey;

	if (!base)
		return;
	rkey = wfi_container_of(wfi_container_of(base, struct wfi_sync_rkey, base),
				struct loop_rkey, sync);
	if (rkey->exp) {
		pthread_mutex_lock(&world.lock);
		export_put(rkey->exp);
		pthread_mutex_unlock(&world.lock);
	}
	wfi_free(base->ep->dev->env, rkey, sizeof(*rkey));
}

/* ---- posts ---- */

static bool rkey_stale(const struct weft_rkey *base)
{
	const struct loop_rkey *rkey;

	rkey = wfi_container_of(wfi_sync_rkey(base), struct loop_rkey, sync);
	return rkey->exp && !rkey->exp->mr;
}

static void *loop_rkey_ptr(const struct weft_rkey *base)
{
	return base->ep->fast == &wfi_ep_unconnected || rkey_stale(base) ? NULL
									 : wfi_sync_rkey(base)->mem;
}

static void copy_pieces(const struct weft_post *post, enum weft_wc_op op,
			struct wfi_post_plan *plan)
{
	uint32_t i;

	for (i = 0; i < plan->nr_good; i++) {
		const struct weft_piece *piece = &post->pieces[i];
		uint8_t *remote = wfi_sync_rkey(piece->rkey)->mem + piece->remote;

		if (rkey_stale(piece->rkey)) {
			plan->nr_good = i;
			plan->status = -ESTALE;
		} else if (op == WEFT_WC_READ) {
			memcpy(piece->local, remote, piece->len);
		} else {
			memcpy(remote, piece->local, piece->len);
		}
	}
}

static int loop_post_read(struct weft_ep *base, const struct weft_post *post)
{
	struct wfi_sync_ep *ep = wfi_container_of(base, struct wfi_sync_ep, base);
	struct wfi_post_plan plan;
	int ret;

	ret = wfi_sync_post_begin(ep, post, WEFT_ACCESS_REMOTE_READ, &plan);
	if (ret)
		return ret;
	copy_pieces(post, WEFT_WC_READ, &plan);
	wfi_sync_complete(ep, post->cookie, WEFT_WC_READ, post->flags, plan.status, plan.nr_good);
	return 0;
}

static int loop_post_write(struct weft_ep *base, const struct weft_post *post)
{
	struct wfi_sync_ep *ep = wfi_container_of(base, struct wfi_sync_ep, base);
	struct wfi_post_plan plan;
	int ret;

	ret = wfi_sync_post_begin(ep, post, WEFT_ACCESS_REMOTE_WRITE, &plan);
	if (ret)
		return ret;
	copy_pieces(post, WEFT_WC_WRITE, &plan);
	wfi_sync_complete(ep, post->cookie, WEFT_WC_WRITE, post->flags, plan.status, plan.nr_good);
	return 0;
}

static int loop_post_write_imm(struct weft_ep *base, const struct weft_post *post)
{
	struct loop_ep *ep = to_loop_ep(base);
	struct wfi_post_plan plan;
	int ret;

	ret = wfi_msgring_room(&ep->tx, 0);
	if (ret)
		return ret;
	ret = wfi_sync_post_begin(&ep->sync, post, WEFT_ACCESS_REMOTE_WRITE, &plan);
	if (ret)
		return ret;
	copy_pieces(post, WEFT_WC_WRITE, &plan);
	/* there is room, and bytes that did not land are not announced */
	if (!plan.status)
		plan.status = wfi_msgring_put(&ep->tx, WFI_MSG_IMM, post->imm, NULL, 0);
	wfi_sync_complete(&ep->sync, post->cookie, WEFT_WC_WRITE, post->flags, plan.status,
			  plan.nr_good);
	return 0;
}

static int loop_post_send(struct weft_ep *base, const void *buf, uint32_t len, uint64_t cookie,
			  uint32_t flags)
{
	struct loop_ep *ep = to_loop_ep(base);
	const struct weft_post none = { .nr_pieces = 0 };
	struct wfi_post_plan plan;
	int ret;

	if (!len || len > WFI_MAX_MSG)
		return -EINVAL;
	ret = wfi_sync_post_begin(&ep->sync, &none, 0, &plan);
	if (!ret)
		ret = wfi_msgring_put(&ep->tx, WFI_MSG_SEND, 0, buf, len);
	if (ret)
		return ret;
	wfi_sync_complete(&ep->sync, cookie, WEFT_WC_SEND, flags, 0, 0);
	return 0;
}

static const struct weft_ep_fast loop_fast = {
	.post_read = loop_post_read,
	.post_write = loop_post_write,
	.post_write_imm = loop_post_write_imm,
	.post_send = loop_post_send,
	.post_msg = wfi_ep_flat_msg,
};

static const struct weft_ep_fast loop_mem_fast = {
	.post_read = loop_post_read,
	.post_write = loop_post_write,
	.post_write_imm = wfi_ep_no_imm,
	.post_send = wfi_ep_no_send,
	.post_msg = wfi_ep_no_msg,
};

/* ---- queues and endpoints ---- */

static int loop_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max)
{
	(void)cq;
	(void)waits;
	(void)max;
	return -EOPNOTSUPP;
}

static void loop_cq_disarm(struct weft_cq *cq)
{
	(void)cq;
}

static int ep_recv(struct wfi_sync_ep *sync, struct weft_wc *wc, void *buf)
{
	struct loop_ep *ep = wfi_container_of(sync, struct loop_ep, sync);
	struct wfi_msgrec rec;
	int ret;

	if (!ep->mem)
		return 0;
	ret = wfi_msgring_take(&ep->rx, &rec, buf, WFI_MAX_MSG);
	if (ret <= 0)
		return ret;
	wc->op = rec.kind == WFI_MSG_SEND ? WEFT_WC_RECV : WEFT_WC_RECV_IMM;
	wc->imm = rec.imm;
	wc->data = buf;
	wc->len = rec.len;
	return 1;
}

static int ep_check(struct wfi_sync_ep *sync)
{
	(void)sync;
	return 0;
}

/* both sides forget each other; what was sent to the peer can still be read there */
static void ep_sever(struct loop_ep *ep)
{
	pthread_mutex_lock(&world.lock);
	if (ep->peer) {
		ep->peer->from = NULL;
		wfi_sync_ep_close(&ep->peer->sync, -ECONNRESET, WFI_MAX_DEPTH);
	}
	if (ep->from) {
		ep->from->peer = NULL;
		wfi_sync_ep_close(&ep->from->sync, -ECONNRESET, WFI_MAX_DEPTH);
	}
	ep->peer = NULL;
	ep->from = NULL;
	pthread_mutex_unlock(&world.lock);
}

static void ep_closed(struct wfi_sync_ep *sync)
{
	ep_sever(wfi_container_of(sync, struct loop_ep, sync));
}

static const struct wfi_sync_ep_ops loop_ep_ops = {
	.recv = ep_recv,
	.check = ep_check,
	.closed = ep_closed,
};

/* Return: ring bytes for @recv_bytes, 0 when out of range */
static uint32_t ring_bytes(uint32_t recv_bytes)
{
	uint32_t bytes = WFI_MSGRING_MIN;

	if (recv_bytes > WFI_MSGRING_MAX)
		return 0;
	while (bytes < (recv_bytes ? recv_bytes : RECV_DEFAULT))
		bytes *= 2;
	return bytes;
}

static int loop_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
			  struct weft_ep **out)
{
	struct weft_ep_opts o;
	struct loop_ep *ep;
	uint32_t bytes;
	int ret;

	ret = wfi_opts_read(&o, sizeof(o), opts);
	bytes = ring_bytes(o.recv_bytes);
	if (ret || !bytes)
		return -EINVAL;
	ep = wfi_alloc(dev->env, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	if (!(o.flags & WEFT_EP_MEM)) {
		ep->mem_bytes = (uint32_t)wfi_msgring_len(bytes);
		ep->mem = wfi_alloc(dev->env, ep->mem_bytes);
		ret = ep->mem ? 0 : -ENOMEM;
		if (ret)
			goto err_ep;
		wfi_msgring_init(&ep->rx, ep->mem, bytes);
	}
	ret = wfi_sync_ep_init(&ep->sync, dev, opts, &loop_ep_ops);
	if (ret)
		goto err_mem;
	if (o.flags & WEFT_EP_MEM) {
		ep->sync.state = WFI_EP_CONNECTED;
		ep->sync.base.fast = &loop_mem_fast;
	}
	pthread_mutex_lock(&world.lock);
	ep->id = ++world.last_id;
	ep->next = world.eps;
	world.eps = ep;
	pthread_mutex_unlock(&world.lock);
	*out = &ep->sync.base;
	return 0;

err_mem:
	if (ep->mem)
		wfi_free(dev->env, ep->mem, ep->mem_bytes);
err_ep:
	wfi_free(dev->env, ep, sizeof(*ep));
	return ret;
}

static int loop_ep_addr(struct weft_ep *base, struct weft_ep_addr *out)
{
	struct loop_ep *ep = to_loop_ep(base);
	struct loop_blob blob = { .magic = LOOP_MAGIC, .id = ep->id };

	if (!ep->mem)
		return -EOPNOTSUPP;
	memset(out, 0, sizeof(*out));
	out->blob_len = sizeof(blob);
	memcpy(out->blob, &blob, sizeof(blob));
	return 0;
}

static int loop_ep_connect(struct weft_ep *base, const struct weft_ep_peer *peer)
{
	struct loop_ep *ep = to_loop_ep(base), *other;
	struct weft_ep_peer p;
	uint64_t id;
	int ret = 0;

	if (wfi_opts_read(&p, sizeof(p), peer) || p.reserved || blob_id(p.blob, p.blob_len, &id))
		return -EINVAL;
	if (ep->sync.state != WFI_EP_CREATED)
		return ep->sync.state == WFI_EP_CONNECTED ? -EISCONN : -ENOTCONN;
	pthread_mutex_lock(&world.lock);
	for (other = world.eps; other && other->id != id; other = other->next)
		;
	if (!other || !other->mem || other->sync.state > WFI_EP_CONNECTED)
		ret = -ECONNREFUSED;
	else if ((other->from && other->from != ep) || (ep->from && ep->from != other))
		ret = -EADDRINUSE;
	if (!ret) {
		ep->peer = other;
		other->from = ep;
	}
	pthread_mutex_unlock(&world.lock);
	if (ret)
		return ret;
	ret = wfi_msgring_attach(&ep->tx, other->mem, other->mem_bytes);
	if (ret)
		return ret;
	ep->sync.state = WFI_EP_CONNECTED;
	ep->sync.base.fast = &loop_fast;
	return 0;
}

static void loop_ep_shutdown(struct weft_ep *base)
{
	struct loop_ep *ep = to_loop_ep(base);

	wfi_sync_ep_close(&ep->sync, 0, 0);
	ep_sever(ep);
}

static void loop_ep_destroy(struct weft_ep *base)
{
	struct loop_ep *ep, **link;

	if (!base)
		return;
	ep = to_loop_ep(base);
	ep_sever(ep);
	pthread_mutex_lock(&world.lock);
	for (link = &world.eps; *link != ep; link = &(*link)->next)
		;
	*link = ep->next;
	pthread_mutex_unlock(&world.lock);
	wfi_sync_ep_fini(&ep->sync);
	if (ep->mem)
		wfi_free(base->dev->env, ep->mem, ep->mem_bytes);
	wfi_free(base->dev->env, ep, sizeof(*ep));
}

const struct weft_transport wfi_transport_loop = {
	.size = sizeof(struct weft_transport),
	.name = "loop",
	.probe = loop_probe,
	.device_open = loop_device_open,
	.device_close = loop_device_close,
	.mr_reg = loop_mr_reg,
	.mr_dereg = loop_mr_dereg,
	.mr_export = loop_mr_export,
	.mr_revoke = loop_mr_revoke,
	.rkey_import = loop_rkey_import,
	.rkey_destroy = loop_rkey_destroy,
	.rkey_ptr = loop_rkey_ptr,
	.cq_create = wfi_sync_cq_create,
	.cq_destroy = wfi_sync_cq_destroy,
	.cq_arm = loop_cq_arm,
	.cq_disarm = loop_cq_disarm,
	.ep_create = loop_ep_create,
	.ep_addr = loop_ep_addr,
	.ep_connect = loop_ep_connect,
	.ep_shutdown = loop_ep_shutdown,
	.ep_destroy = loop_ep_destroy,
	.port_open = wfi_no_port_open,
	.port_close = wfi_no_port_close,
	.port_addr = wfi_no_port_addr,
	.port_poll = wfi_no_port_poll,
	.port_accept = wfi_no_port_accept,
	.port_refuse = wfi_no_port_refuse,
	.ep_dial = wfi_no_ep_dial,
};
