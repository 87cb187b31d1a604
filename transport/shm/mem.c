/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "transport/shm/shm.h"

/* ---- ours ---- */

int wfi_shm_mr_reg(struct weft_device *base, const struct weft_mr_opts *opts, struct weft_mr **out)
{
	struct wfi_shm_device *dev = wfi_shm_device(base);
	struct weft_mr_opts o;
	struct wfi_shm_mr *mr;
	uint32_t idx = 0;
	int ret, fd = -1;

	ret = wfi_mr_opts_read(&o, opts);
	if (!ret && o.kind == WEFT_MR_MEMFD)
		ret = wfi_view_check(&o);
	if (ret)
		return ret;
	while (idx < WFI_GENS && dev->mr_used[idx])
		idx++;
	if (idx == WFI_GENS)
		return -ENOSPC;
	if (o.kind == WEFT_MR_MEMFD) {
		fd = fcntl(o.fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
	}
	mr = wfi_alloc(base->env, sizeof(*mr));
	if (!mr)
		goto err_fd;
	wfi_mr_init(&mr->base, base, &o);
	mr->idx = idx;
	mr->gen = wfi_gens_get(&dev->gens, idx);
	mr->fd = fd;
	mr->fd_off = o.fd_off;
	dev->mr_used[idx] = true;
	*out = &mr->base;
	return 0;

err_fd:
	if (fd >= 0)
		close(fd);
	return -ENOMEM;
}

void wfi_shm_mr_dereg(struct weft_mr *base)
{
	struct wfi_shm_device *dev;
	struct wfi_shm_mr *mr;

	if (!base)
		return;
	dev = wfi_shm_device(base->dev);
	mr = wfi_container_of(base, struct wfi_shm_mr, base);
	wfi_gens_end(&dev->gens, mr->idx);
	dev->mr_used[mr->idx] = false;
	if (mr->fd >= 0)
		close(mr->fd);
	wfi_free(base->dev->env, mr, sizeof(*mr));
}

int wfi_shm_mr_export(struct weft_mr *base, const struct weft_export_opts *opts,
		      struct weft_export *out)
{
	struct wfi_shm_device *dev = wfi_shm_device(base->dev);
	struct wfi_shm_mr *mr = wfi_container_of(base, struct wfi_shm_mr, base);
	struct wfi_shm_rkey_blob blob = { .magic = WFI_SHM_MAGIC, .device = dev->id };
	struct weft_export_opts o;
	int ret, fd = -1;

	ret = wfi_export_opts_check(base, opts, &o);
	if (ret)
		return ret;
	blob.len = o.len;
	blob.access = o.access;
	blob.mr_idx = mr->idx;
	blob.mr_gen = mr->gen;
	if (mr->fd >= 0) {
		blob.kind = WFI_SHM_MAPPED;
		blob.addr = mr->fd_off + o.off;
		fd = wfi_fd_grant(mr->fd, o.access);
		if (fd < 0)
			return fd;
	} else {
		blob.kind = WFI_SHM_PRIVATE;
		blob.addr = (uintptr_t)base->addr + o.off;
	}
	memset(out, 0, sizeof(*out));
	out->id = ((uint64_t)mr->gen << 32) | mr->idx;
	out->fd = fd;
	out->blob_len = sizeof(blob);
	memcpy(out->blob, &blob, sizeof(blob));
	return 0;
}

int wfi_shm_mr_revoke(struct weft_mr *mr, uint64_t id)
{
	(void)mr;
	(void)id;
	return -EOPNOTSUPP; /* what a peer has mapped stays mapped */
}

/* ---- theirs ---- */

static int rkey_map(struct wfi_shm_rkey *rkey, int fd, uint64_t off, uint64_t len, uint32_t access)
{
	int ret = wfi_view_map(&rkey->view, fd, off, len, access & WEFT_ACCESS_REMOTE_WRITE);

	rkey->sync.mem = rkey->view.mem;
	return ret;
}

static int rkey_attach(struct wfi_shm_rkey *rkey, pid_t pid, int pidfd, uint64_t addr)
{
	uint64_t end;
	int ret;

	if (!addr || pid <= 0 || wfi_add_overflows(addr, rkey->sync.base.len, &end))
		return -EINVAL;
	if (pid == getpid()) {
		rkey->sync.mem = (uint8_t *)(uintptr_t)addr;
		return 0;
	}
	if (pidfd < 0) {
		rkey->pidfd = wfi_pidfd_open(pid);
		if (rkey->pidfd < 0)
			return rkey->pidfd == -EINVAL ? -ESRCH : rkey->pidfd;
	} else {
		ret = wfi_pidfd_pid(pidfd);
		if (ret < 0)
			return ret;
		if (ret != pid)
			return -EACCES;
		rkey->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
		if (rkey->pidfd < 0)
			return -errno;
	}
	rkey->pid = pid;
	rkey->addr = addr;
	return 0;
}

static int rkey_from_blob(struct wfi_shm_rkey *rkey, struct wfi_shm_ep *ep,
			  const struct weft_rkey_src *src)
{
	struct wfi_shm_rkey_blob blob;

	if (!src->blob || src->blob_len != sizeof(blob))
		return -EINVAL;
	memcpy(&blob, src->blob, sizeof(blob));
	if (blob.magic != WFI_SHM_MAGIC || !blob.len || !blob.access ||
	    (blob.access & ~WFI_REMOTE_ACCESS) || blob.mr_idx >= WFI_GENS)
		return -EINVAL;
	if (!ep->peer_gens.mem)
		return -ENOTCONN;
	if (blob.device != ep->peer_device || (src->access & ~blob.access))
		return -EACCES;
	rkey->live = wfi_gens_at(&ep->peer_gens, blob.mr_idx);
	rkey->gen = blob.mr_gen;
	rkey->sync.base.len = blob.len;
	rkey->sync.base.access = src->access ? src->access : blob.access;
	if (blob.kind == WFI_SHM_MAPPED && src->fd >= 0)
		return rkey_map(rkey, src->fd, blob.addr, blob.len, rkey->sync.base.access);
	if (blob.kind != WFI_SHM_PRIVATE)
		return -EINVAL;
	/* the process is the one that the kernel named, whatever the blob says */
	return ep->peer_pid ? rkey_attach(rkey, ep->peer_pid, -1, blob.addr) : -EACCES;
}

static int rkey_from_local(struct wfi_shm_rkey *rkey, struct wfi_shm_ep *ep,
			   const struct weft_rkey_src *src)
{
	if (!ep->mem_only)
		return -EOPNOTSUPP;
	if (!src->access || !src->len)
		return -EINVAL;
	rkey->sync.base.len = src->len;
	rkey->sync.base.access = src->access;
	if (src->kind == WEFT_RKEY_PROCESS)
		return rkey_attach(rkey, src->pid, src->fd, src->addr);
	return rkey_map(rkey, src->fd, src->addr, src->len, src->access);
}

int wfi_shm_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src, struct weft_rkey **out)
{
	struct weft_rkey_src s;
	struct wfi_shm_rkey *rkey;
	int ret;

	if (wfi_opts_read(&s, sizeof(s), src) || s.kind > WEFT_RKEY_MEMFD ||
	    (s.access & ~WFI_REMOTE_ACCESS))
		return -EINVAL;
	rkey = wfi_alloc(ep->dev->env, sizeof(*rkey));
	if (!rkey)
		return -ENOMEM;
	rkey->pidfd = -1;
	rkey->sync.base.ep = ep;
	if (s.kind == WEFT_RKEY_BLOB)
		ret = rkey_from_blob(rkey, wfi_shm_ep(ep), &s);
	else
		ret = rkey_from_local(rkey, wfi_shm_ep(ep), &s);
	if (ret) {
		wfi_free(ep->dev->env, rkey, sizeof(*rkey));
		return ret;
	}
	*out = &rkey->sync.base;
	return 0;
}

void wfi_shm_rkey_destroy(struct weft_rkey *base)
{
	struct wfi_shm_rkey *rkey;

	if (!base)
		return;
	rkey = wfi_shm_rkey(base);
	if (rkey->pidfd >= 0)
		close(rkey->pidfd);
	wfi_view_unmap(&rkey->view);
	wfi_free(base->ep->dev->env, rkey, sizeof(*rkey));
}

void *wfi_shm_rkey_ptr(const struct weft_rkey *base)
{
	const struct wfi_shm_rkey *rkey = wfi_shm_rkey(base);

	return base->ep->fast == &wfi_ep_unconnected || wfi_shm_rkey_stale(rkey) ? NULL
										 : rkey->sync.mem;
}
