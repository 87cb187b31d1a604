/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A region is registered for its own NIC without any right of others; each export is a registration
 * of its own, of that range with those rights, so that the peer's NIC is held to them by ours and
 * taking back one export is its deregistration. The NIC has let go when that returns.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "transport/verbs/verbs.h"
#include "weft_internal/log.h"

struct wfi_verbs_export {
	struct wfi_verbs_export *next;
	struct ibv_mr *mr;
	uint64_t id;
};

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

static void say_why(int err, uint64_t len)
{
	struct rlimit lim = { 0 };

	if (err == ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &lim) && lim.rlim_cur != RLIM_INFINITY)
		wfi_err("verbs: %llu KiB can't be pinned, RLIMIT_MEMLOCK is %llu KiB: set "
			"LimitMEMLOCK or ulimit -l to unlimited",
			(unsigned long long)len >> 10, (unsigned long long)lim.rlim_cur >> 10);
	else
		wfi_err("verbs: %llu KiB can't be registered: %s", (unsigned long long)len >> 10,
			strerror(err));
}

struct ibv_mr *wfi_verbs_pin(struct wfi_verbs_device *dev, void *mem, size_t len, int access)
{
	struct ibv_mr *mr = ibv_reg_mr(dev->pd, mem, len, access);

	if (!mr)
		say_why(errno, len);
	return mr;
}

static struct ibv_mr *reg_range(struct wfi_verbs_mr *mr, uint64_t off, uint64_t len, int access)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(mr->base.dev);
	uint8_t *addr = (uint8_t *)mr->base.addr + off;
	struct ibv_mr *out;

	if (mr->fd < 0)
		return wfi_verbs_pin(dev, addr, len, access);
	out = ibv_reg_dmabuf_mr(dev->pd, mr->fd_off + off, len, (uintptr_t)addr, mr->fd, access);
	if (!out)
		say_why(errno, len);
	return out;
}

int wfi_verbs_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out)
{
	struct weft_mr_opts o;
	struct wfi_verbs_mr *mr;
	int ret;

	ret = wfi_opts_read(&o, sizeof(o), opts);
	if (!ret)
		ret = wfi_mr_opts_check(&o);
	if (ret == -EOPNOTSUPP && (dev->caps.flags & WEFT_CAP_DMABUF))
		ret = 0;
	if (ret)
		return ret;
	mr = wfi_alloc(dev->env, sizeof(*mr));
	if (!mr)
		return -ENOMEM;
	mr->base.dev = dev;
	mr->base.addr = o.addr;
	mr->base.len = o.len;
	mr->base.access = o.access;
	mr->fd = -1;
	if (o.kind == WEFT_MR_DMABUF) {
		mr->fd = fcntl(o.fd, F_DUPFD_CLOEXEC, 0);
		mr->fd_off = o.fd_off;
		if (mr->fd < 0) {
			ret = -errno;
			goto err_mr;
		}
	}
	mr->mr = reg_range(mr, 0, o.len, ibv_access(o.access & WEFT_ACCESS_LOCAL_WRITE));
	if (!mr->mr) {
		ret = -errno;
		goto err_fd;
	}
	*out = &mr->base;
	return 0;

err_fd:
	if (mr->fd >= 0)
		close(mr->fd);
err_mr:
	wfi_free(dev->env, mr, sizeof(*mr));
	return ret;
}

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
		ibv_dereg_mr(exp->mr);
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
	ibv_dereg_mr(mr->mr);
	if (mr->fd >= 0)
		close(mr->fd);
	wfi_free(base->dev->env, mr, sizeof(*mr));
}

int wfi_verbs_mr_export(struct weft_mr *base, const struct weft_export_opts *opts,
			struct weft_export *out)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_mr *mr = wfi_container_of(base, struct wfi_verbs_mr, base);
	struct wfi_verbs_rkey_blob blob = { .magic = WFI_VERBS_RKEY_MAGIC };
	struct wfi_verbs_export *exp;
	struct weft_export_opts o;
	int ret;

	ret = wfi_export_opts_check(base, opts, &o);
	if (ret)
		return ret;
	exp = wfi_alloc(base->dev->env, sizeof(*exp));
	if (!exp)
		return -ENOMEM;
	exp->mr = reg_range(mr, o.off, o.len, ibv_access(o.access));
	if (!exp->mr) {
		ret = -errno;
		wfi_free(base->dev->env, exp, sizeof(*exp));
		return ret;
	}
	exp->id = ++dev->last_export;
	exp->next = mr->exports;
	mr->exports = exp;

	blob.incarnation = dev->incarnation;
	blob.addr = (uintptr_t)base->addr + o.off;
	blob.len = o.len;
	blob.rkey = exp->mr->rkey;
	blob.access = o.access;
	blob.check = wfi_verbs_check(&blob, sizeof(blob));
	memset(out, 0, sizeof(*out));
	out->id = exp->id;
	out->fd = -1;
	out->blob_len = sizeof(blob);
	memcpy(out->blob, &blob, sizeof(blob));
	return 0;
}

int wfi_verbs_mr_revoke(struct weft_mr *base, uint64_t id)
{
	if (!id)
		return -ENOENT;
	return exports_drop(wfi_container_of(base, struct wfi_verbs_mr, base), id) ? 0 : -ENOENT;
}

static int blob_read(const struct weft_rkey_src *src, struct wfi_verbs_rkey_blob *blob)
{
	uint32_t check;
	uint64_t end;

	if (!src->blob || src->blob_len != sizeof(*blob))
		return -EINVAL;
	memcpy(blob, src->blob, sizeof(*blob));
	check = blob->check;
	blob->check = 0;
	if (blob->magic != WFI_VERBS_RKEY_MAGIC || wfi_verbs_check(blob, sizeof(*blob)) != check ||
	    !blob->len || !blob->access || (blob->access & ~WFI_REMOTE_ACCESS) ||
	    wfi_add_overflows(blob->addr, blob->len, &end))
		return -EINVAL;
	return src->access & ~blob->access ? -EACCES : 0;
}

int wfi_verbs_rkey_import(struct weft_ep *base, const struct weft_rkey_src *src,
			  struct weft_rkey **out)
{
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct wfi_verbs_rkey_blob blob;
	struct wfi_verbs_rkey *rkey;
	struct weft_rkey_src s;
	int ret;

	if (wfi_opts_read(&s, sizeof(s), src) || (s.access & ~WFI_REMOTE_ACCESS))
		return -EINVAL;
	if (s.kind != WEFT_RKEY_BLOB)
		return -EOPNOTSUPP;
	ret = blob_read(&s, &blob);
	if (ret)
		return ret;
	if (ep->state != WFI_EP_CONNECTED)
		return -ENOTCONN;
	/* of an earlier life of the peer, or of another node: our request would hit a stranger */
	if (blob.incarnation != ep->peer_incarnation)
		return -ESTALE;
	rkey = wfi_alloc(base->dev->env, sizeof(*rkey));
	if (!rkey)
		return -ENOMEM;
	rkey->base.ep = base;
	rkey->base.len = blob.len;
	rkey->base.access = s.access ? s.access : blob.access;
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
