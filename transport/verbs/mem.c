/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A region is registered for its own NIC without any right of others. An export is a right of its
 * own, of that range with that access, so that the peer's NIC is held to it by ours, and each can
 * be taken back alone. For one endpoint it is a memory window of type 2, where the NIC has them:
 * nothing is pinned, and no other queue pair gets through. Else it is a registration. Either way
 * the NIC has let go when mr_revoke() returns.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "transport/verbs/verbs.h"

#define WINDOW_NS (100 * WFI_NSEC_PER_MSEC) /* for our own NIC to bind one */

static int ibv_access(uint32_t access)
{
	int flags = 0;

	if (access & WEFT_ACCESS_LOCAL_WRITE)
		flags |= IBV_ACCESS_LOCAL_WRITE;
	if (access & WEFT_ACCESS_REMOTE_READ)
		flags |= IBV_ACCESS_REMOTE_READ;
	/* the NIC asks for both */
	if (access & WEFT_ACCESS_REMOTE_WRITE)
		flags |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE;
	return flags;
}

/* a range of a region, with the rights of a peer */
static struct ibv_mr *reg_range(struct wfi_verbs_mr *mr, uint64_t off, uint64_t len, int access)
{
	struct weft_mr_opts o = {
		.addr = (uint8_t *)mr->base.addr + off,
		.len = len,
		.kind = mr->fd < 0 ? WEFT_MR_HOST : WEFT_MR_DMABUF,
		.fd = mr->fd,
		.fd_off = mr->fd_off + off,
	};

	return wfi_verbs_pin_opts(wfi_verbs_device(mr->base.dev), &o, access);
}

int wfi_verbs_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out)
{
	struct weft_mr_opts o;
	struct wfi_verbs_mr *mr;
	int ret, access;

	ret = wfi_mr_opts_read(&o, opts);
	if (ret == -EOPNOTSUPP && (dev->caps.flags & WEFT_CAP_DMABUF))
		ret = 0;
	if (ret)
		return ret;
	mr = wfi_alloc(dev->env, sizeof(*mr));
	if (!mr)
		return -ENOMEM;
	wfi_mr_init(&mr->base, dev, &o);
	mr->fd = -1;
	if (o.kind == WEFT_MR_DMABUF) {
		mr->fd = fcntl(o.fd, F_DUPFD_CLOEXEC, 0);
		mr->fd_off = o.fd_off;
		if (mr->fd < 0) {
			ret = -errno;
			goto err_mr;
		}
	}
	access = ibv_access(o.access & WEFT_ACCESS_LOCAL_WRITE);
	if (wfi_verbs_device(dev)->has_windows && (o.access & WFI_REMOTE_ACCESS))
		access |= IBV_ACCESS_MW_BIND;
	ret = wfi_verbs_pinned_get(wfi_verbs_device(dev), &o, access, &mr->pinned);
	if (ret)
		goto err_fd;
	mr->lkey = mr->pinned->mr->lkey;
	*out = &mr->base;
	return 0;

err_fd:
	if (mr->fd >= 0)
		close(mr->fd);
err_mr:
	wfi_free(dev->env, mr, sizeof(*mr));
	return ret;
}

/* ---- windows: a right for one endpoint, given and taken back without touching a page ---- */

/* Return: true when the request before number @end was done, and done well */
static bool ctl_wait(struct wfi_verbs_ep *ep, uint32_t end)
{
	struct wfi_env *env = ep->base.dev->env;
	const uint64_t limit = wfi_now(env) + WINDOW_NS;

	while ((int32_t)(ep->sq_head - end) < 0 && wfi_now(env) < limit)
		wfi_verbs_cq_drain(wfi_verbs_cq(ep->base.send_cq));
	return (int32_t)(ep->sq_head - end) >= 0 && !ep->broken;
}

static int window_begin(struct wfi_verbs_mr *mr, struct wfi_verbs_ep *ep,
			const struct weft_export_opts *o, struct wfi_verbs_export *exp)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(mr->base.dev);
	struct ibv_send_wr wr = { .opcode = IBV_WR_BIND_MW };
	struct ibv_mw *mw = ibv_alloc_mw(dev->pd, IBV_MW_TYPE_2);

	if (!mw)
		return -errno;
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){
		.mr = mr->pinned->mr,
		.addr = (uintptr_t)mr->base.addr + o->off,
		.length = o->len,
		.mw_access_flags = (unsigned)(ibv_access(o->access) & ~IBV_ACCESS_LOCAL_WRITE),
	};
	if (wfi_verbs_post_ctl(ep, &wr) || !ctl_wait(ep, ep->sq_tail)) {
		ibv_dealloc_mw(mw);
		return -EAGAIN;
	}
	mw->rkey = wr.bind_mw.rkey;
	exp->mw = mw;
	exp->ep = ep;
	exp->next_window = ep->windows;
	ep->windows = exp;
	return 0;
}

/* when this returns, the NIC lets nobody through any more */
static void window_end(struct wfi_verbs_export *exp)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_LOCAL_INV };
	struct wfi_verbs_export **link;

	if (!exp->ep)
		return;
	wr.invalidate_rkey = exp->mw->rkey;
	if (exp->ep->state == WFI_EP_CONNECTED && !wfi_verbs_post_ctl(exp->ep, &wr))
		ctl_wait(exp->ep, exp->ep->sq_tail);
	ibv_dealloc_mw(exp->mw);
	for (link = &exp->ep->windows; *link != exp; link = &(*link)->next_window)
		;
	*link = exp->next_window;
}

void wfi_verbs_windows_drop(struct wfi_verbs_ep *ep)
{
	struct wfi_verbs_export *exp;

	while ((exp = ep->windows)) {
		ep->windows = exp->next_window;
		ibv_dealloc_mw(exp->mw);
		exp->ep = NULL;
	}
}

/* ---- exports ---- */

/* Return: how many were taken back. @id 0: all */
static unsigned exports_drop(struct wfi_verbs_mr *mr, uint64_t id)
{
	struct wfi_verbs_export **link = &mr->exports, *exp;
	unsigned nr = 0;

	while ((exp = *link)) {
		if (id && exp->id != id) {
			link = &exp->next;
			continue;
		}
		*link = exp->next;
		if (exp->mr)
			ibv_dereg_mr(exp->mr);
		else
			window_end(exp);
		wfi_free(mr->base.dev->env, exp, sizeof(*exp));
		nr++;
	}
	return nr;
}

void wfi_verbs_mr_dereg(struct weft_mr *base)
{
	struct wfi_verbs_mr *mr;

	if (!base)
		return;
	mr = wfi_container_of(base, struct wfi_verbs_mr, base);
	exports_drop(mr, 0);
	wfi_verbs_pinned_put(wfi_verbs_device(base->dev), mr->pinned);
	if (mr->fd >= 0)
		close(mr->fd);
	wfi_free(base->dev->env, mr, sizeof(*mr));
}

int wfi_verbs_mr_export(struct weft_mr *base, const struct weft_export_opts *opts,
			struct weft_export *out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_mr *mr = wfi_container_of(base, struct wfi_verbs_mr, base);
	struct wfi_verbs_rkey_blob blob = { .head = { .magic = WFI_VERBS_RKEY_MAGIC } };
	struct wfi_verbs_export *exp;
	struct weft_export_opts o;
	int ret;

	ret = wfi_export_opts_check(base, opts, &o);
	if (!ret && o.ep && o.ep->dev != base->dev)
		ret = -EINVAL;
	if (ret)
		return ret;
	exp = wfi_alloc(base->dev->env, sizeof(*exp));
	if (!exp)
		return -ENOMEM;
	ret = -EOPNOTSUPP;
	if (o.ep && dev->has_windows && wfi_verbs_ep(o.ep)->state == WFI_EP_CONNECTED)
		ret = window_begin(mr, wfi_verbs_ep(o.ep), &o, exp);
	if (ret) {
		exp->mr = reg_range(mr, o.off, o.len, ibv_access(o.access));
		ret = exp->mr ? 0 : -errno;
	}
	if (ret) {
		wfi_free(base->dev->env, exp, sizeof(*exp));
		return ret;
	}
	exp->id = ++dev->last_export;
	exp->next = mr->exports;
	mr->exports = exp;

	blob.head.incarnation = dev->incarnation;
	blob.head.len = o.len;
	blob.head.access = o.access;
	blob.addr = (uintptr_t)base->addr + o.off;
	blob.rkey = exp->mr ? exp->mr->rkey : exp->mw->rkey;
	wfi_rkey_write(&blob.head, sizeof(blob), exp->id, out);
	return 0;
}

int wfi_verbs_mr_revoke(struct weft_mr *base, uint64_t id)
{
	if (!id)
		return -ENOENT;
	return exports_drop(wfi_container_of(base, struct wfi_verbs_mr, base), id) ? 0 : -ENOENT;
}

int wfi_verbs_rkey_import(struct weft_ep *base, const struct weft_rkey_src *src,
			  struct weft_rkey **out)
{
	const struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct wfi_verbs_rkey_blob blob = { .head = { .magic = WFI_VERBS_RKEY_MAGIC,
						      .incarnation = ep->peer_incarnation } };
	struct wfi_verbs_rkey *rkey;
	struct weft_rkey_src s;
	uint64_t end;
	int ret = wfi_rkey_read(&s, src, ep->state, &blob.head, sizeof(blob));

	if (!ret && wfi_add_overflows(blob.addr, blob.head.len, &end))
		ret = -EINVAL;
	if (ret)
		return ret;
	rkey = wfi_alloc(base->dev->env, sizeof(*rkey));
	if (!rkey)
		return -ENOMEM;
	rkey->base.ep = base;
	rkey->base.len = blob.head.len;
	rkey->base.access = s.access;
	rkey->addr = blob.addr;
	rkey->rkey = blob.rkey;
	*out = &rkey->base;
	return 0;
}

/* a NIC reaches it, the CPU does not */
void *wfi_verbs_rkey_ptr(const struct weft_rkey *rkey)
{
	(void)rkey;
	return NULL;
}

void wfi_verbs_rkey_destroy(struct weft_rkey *base)
{
	if (base)
		wfi_free(base->ep->dev->env, wfi_container_of(base, struct wfi_verbs_rkey, base),
			 sizeof(struct wfi_verbs_rkey));
}
