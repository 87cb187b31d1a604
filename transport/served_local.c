/* SPDX-License-Identifier: Apache-2.0 */
/* served_local.c - peers of this host: memory of theirs that can be mapped is */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "transport/served.h"
#include "weft_internal/log.h"

int wfi_srv_device_local(struct wfi_srv_device *dev)
{
	int ret = wfi_gens_init(&dev->gens, dev->base.env);

	if (ret)
		return ret;
	dev->pidfd = wfi_pidfd_open(getpid());
	if (dev->pidfd < 0) {
		wfi_err("%s: pidfd_open: %s; Linux 5.3 is needed", dev->base.transport->name,
			strerror(-dev->pidfd));
		wfi_gens_fini(&dev->gens, dev->base.env);
		return dev->pidfd;
	}
	dev->local = true;
	dev->base.caps.max_piece_bytes = WFI_SRV_LOCAL_POST;
	dev->base.caps.max_post_bytes = WFI_SRV_LOCAL_POST;
	return 0;
}

int wfi_srv_local_fd(const struct wfi_srv_device *dev, const struct weft_mr_opts *o)
{
	int ret;

	if (!dev->local || o->kind != WEFT_MR_MEMFD)
		return WFI_SRV_NO_FD;
	ret = wfi_view_check(o);
	if (ret)
		return ret;
	ret = fcntl(o->fd, F_DUPFD_CLOEXEC, 0);
	return ret < 0 ? -errno : ret;
}

int wfi_srv_local_meet(struct wfi_srv_ep *ep, const int *fds)
{
	int ret = wfi_pidfd_pid(fds[WFI_SRV_FD_PID]) == -EINVAL ? -EINVAL : 0;

	if (!ret)
		ret = wfi_gens_view(&ep->peer_gens, fds[WFI_SRV_FD_GENS]);
	if (ret)
		return ret;
	ep->peer_pidfd = fcntl(fds[WFI_SRV_FD_PID], F_DUPFD_CLOEXEC, 0);
	if (ep->peer_pidfd >= 0)
		return 0;
	ret = -errno;
	wfi_srv_local_leave(ep);
	return ret;
}

void wfi_srv_local_leave(struct wfi_srv_ep *ep)
{
	wfi_view_unmap(&ep->peer_gens);
	if (ep->peer_pidfd >= 0)
		close(ep->peer_pidfd);
	ep->peer_pidfd = -1;
}

int wfi_srv_local_map(struct wfi_srv_rkey *rkey, const struct wfi_srv_rkey_blob *blob, int fd)
{
	const struct wfi_view *gens = &wfi_srv_ep(rkey->base.ep)->peer_gens;

	if (fd < 0 || !gens->mem)
		return 0;
	if (blob->export_idx >= WFI_GENS)
		return -EINVAL;
	rkey->gen = blob->gen;
	rkey->live = wfi_gens_at(gens, blob->export_idx);
	return wfi_view_map(&rkey->view, fd, blob->off, blob->head.len,
			    rkey->base.access & WEFT_ACCESS_REMOTE_WRITE);
}

void *wfi_srv_rkey_ptr(const struct weft_rkey *base)
{
	const struct wfi_srv_rkey *rkey = wfi_container_of(base, struct wfi_srv_rkey, base);

	if (!rkey->view.mem || base->ep->fast == &wfi_ep_unconnected ||
	    wfi_gen_stale(rkey->live, rkey->gen))
		return NULL;
	return rkey->view.mem;
}

uint32_t wfi_srv_local_copy(const struct weft_piece *pieces, uint32_t nr, bool read)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		const struct weft_piece *p = &pieces[i];
		const struct wfi_srv_rkey *rkey =
			wfi_container_of(p->rkey, struct wfi_srv_rkey, base);
		uint8_t *remote = rkey->view.mem + p->remote;

		if (wfi_unlikely(wfi_gen_stale(rkey->live, rkey->gen)))
			break;
		if (p->len)
			memcpy(read ? p->local : remote, read ? remote : p->local, p->len);
	}
	/* before what is said of it: pairs with what the wire does when it takes a frame */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	return i;
}
