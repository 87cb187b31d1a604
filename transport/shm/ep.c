/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "transport/shm/shm.h"

#define RECV_DEFAULT (256u << 10)

/* ---- sleeping ---- */

/* Return: 1 with @wait filled, 0 nothing comes here, -EAGAIN do not sleep */
static int ep_arm(struct wfi_shm_ep *ep, struct weft_wait *wait)
{
	struct wfi_msgring_shared *sh = ep->rx.sh;

	if (ep->sync.state == WFI_EP_CLOSING)
		return -EAGAIN;
	if (ep->sync.state != WFI_EP_CONNECTED || ep->mem_only)
		return 0;
	wait->fd = -1;
	wait->futex = &sh->producer.bell;
	wait->val = __atomic_load_n(&sh->producer.bell, __ATOMIC_ACQUIRE);
	__atomic_store_n(&sh->consumer.sleeping, 1, __ATOMIC_RELAXED);
	/* pairs with the fence in wfi_msgring_ring_bell() */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return wfi_msgring_empty(&ep->rx) && !ep->sync.ops->check(&ep->sync) ? 1 : -EAGAIN;
}

void wfi_shm_cq_disarm(struct weft_cq *base)
{
	struct wfi_sync_cq *cq = wfi_container_of(base, struct wfi_sync_cq, base);
	struct wfi_sync_ep *ep = cq->eps;

	if (!ep)
		return;
	do {
		struct wfi_shm_ep *shm = wfi_shm_ep(&ep->base);

		if (!shm->mem_only)
			__atomic_store_n(&shm->rx.sh->consumer.sleeping, 0, __ATOMIC_RELAXED);
		ep = ep->next;
	} while (ep != cq->eps);
}

int wfi_shm_cq_arm(struct weft_cq *base, struct weft_wait *waits, unsigned max)
{
	struct wfi_sync_cq *cq = wfi_container_of(base, struct wfi_sync_cq, base);
	struct wfi_sync_ep *ep = cq->eps;
	struct weft_wait wait;
	unsigned n = 0;
	int ret;

	if (wfi_sync_cq_pending(cq))
		return -EAGAIN;
	if (!ep)
		return 0;
	do {
		ret = ep_arm(wfi_shm_ep(&ep->base), &wait);
		if (ret > 0 && n == max)
			ret = -ENOSPC;
		if (ret > 0)
			waits[n++] = wait;
		ep = ep->next;
	} while (ret >= 0 && ep != cq->eps);
	if (ret < 0) {
		wfi_shm_cq_disarm(base);
		cq->idle = UINT32_MAX - 1; /* the next empty poll looks at the peers */
		return ret;
	}
	return (int)n;
}

/* ---- life ---- */

static int ep_recv(struct wfi_sync_ep *sync, struct weft_wc *wc, void *buf)
{
	struct wfi_shm_ep *ep = wfi_container_of(sync, struct wfi_shm_ep, sync);
	struct wfi_msgrec rec;
	int ret;

	if (ep->mem_only)
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
	struct wfi_shm_ep *ep = wfi_container_of(sync, struct wfi_shm_ep, sync);

	if (ep->mem_only)
		return 0;
	/* pairs with the release in say_closed() */
	if (__atomic_load_n(&ep->rx.sh->producer.closed, __ATOMIC_ACQUIRE))
		return -ECONNRESET;
	return wfi_pidfd_ended(ep->peer_pidfd) ? -ECONNRESET : 0;
}

static void say_closed(struct wfi_shm_ep *ep)
{
	if (!ep->tx.sh)
		return;
	/* pairs with the acquire in the peer's ep_check() */
	__atomic_store_n(&ep->tx.sh->producer.closed, 1, __ATOMIC_RELEASE);
	if (wfi_msgring_ring_bell(&ep->tx))
		wfi_shm_wake(&ep->tx);
}

static void ep_closed(struct wfi_sync_ep *sync)
{
	say_closed(wfi_container_of(sync, struct wfi_shm_ep, sync));
}

static const struct wfi_sync_ep_ops shm_ep_ops = {
	.recv = ep_recv,
	.check = ep_check,
	.closed = ep_closed,
};

static int ring_create(struct wfi_shm_ep *ep, struct wfi_env *env, uint32_t recv_bytes)
{
	uint32_t bytes = WFI_MSGRING_MIN;
	int ret;

	if (recv_bytes > WFI_MSGRING_MAX)
		return -EINVAL;
	while (bytes < (recv_bytes ? recv_bytes : RECV_DEFAULT))
		bytes *= 2;
	ret = env->mem->map(env, wfi_msgring_len(bytes), WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT,
			    &ep->ring);
	if (ret)
		return ret;
	wfi_msgring_init(&ep->rx, ep->ring.addr, bytes);
	return 0;
}

int wfi_shm_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
		      struct weft_ep **out)
{
	struct weft_ep_opts o;
	struct wfi_shm_ep *ep;
	int ret;

	ret = wfi_opts_read(&o, sizeof(o), opts);
	if (ret)
		return ret;
	ep = wfi_alloc(dev->env, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	ep->peer_pidfd = -1;
	ep->mem_only = o.flags & WEFT_EP_MEM;
	if (!ep->mem_only) {
		ret = ring_create(ep, dev->env, o.recv_bytes);
		if (ret)
			goto err_ep;
	}
	ret = wfi_sync_ep_init(&ep->sync, dev, opts, &shm_ep_ops);
	if (ret)
		goto err_ring;
	if (ep->mem_only) {
		ep->sync.state = WFI_EP_CONNECTED;
		ep->sync.base.fast = &wfi_shm_mem_fast;
	}
	*out = &ep->sync.base;
	return 0;

err_ring:
	if (!ep->mem_only)
		dev->env->mem->unmap(dev->env, &ep->ring);
err_ep:
	wfi_free(dev->env, ep, sizeof(*ep));
	return ret;
}

int wfi_shm_ep_addr(struct weft_ep *base, struct weft_ep_addr *out)
{
	struct wfi_shm_device *dev = wfi_shm_device(base->dev);
	struct wfi_shm_ep *ep = wfi_shm_ep(base);
	struct wfi_shm_ep_blob blob = { .magic = WFI_SHM_MAGIC, .device = dev->id };

	if (ep->mem_only)
		return -EOPNOTSUPP;
	memset(out, 0, sizeof(*out));
	out->blob_len = sizeof(blob);
	memcpy(out->blob, &blob, sizeof(blob));
	out->nr_fds = WFI_SHM_FD_NR;
	out->fds[WFI_SHM_FD_RING] = ep->ring.fd;
	out->fds[WFI_SHM_FD_TABLE] = dev->gens.ro_fd;
	out->fds[WFI_SHM_FD_PID] = dev->pidfd;
	return 0;
}

static int peer_ring_map(struct wfi_shm_ep *ep, int fd)
{
	uint64_t len = (uint64_t)lseek(fd, 0, SEEK_END);
	int ret;

	if (len > wfi_msgring_len(WFI_MSGRING_MAX) + 4096)
		return -EINVAL;
	ret = wfi_view_map(&ep->peer_ring, fd, 0, len, true);
	if (ret)
		return ret;
	return wfi_msgring_attach(&ep->tx, ep->peer_ring.mem, len) ? -EINVAL : 0;
}

int wfi_shm_ep_connect(struct weft_ep *base, const struct weft_ep_peer *peer)
{
	struct wfi_shm_ep *ep = wfi_shm_ep(base);
	struct wfi_shm_ep_blob blob;
	struct weft_ep_peer p;
	int ret;

	if (wfi_opts_read(&p, sizeof(p), peer) || p.reserved || !p.blob ||
	    p.blob_len != sizeof(blob) || !p.fds || p.nr_fds != WFI_SHM_FD_NR || p.pid < 0)
		return -EINVAL;
	if (ep->sync.state != WFI_EP_CREATED)
		return ep->sync.state == WFI_EP_CONNECTED ? -EISCONN : -ENOTCONN;
	memcpy(&blob, p.blob, sizeof(blob));
	if (blob.magic != WFI_SHM_MAGIC || wfi_pidfd_pid(p.fds[WFI_SHM_FD_PID]) == -EINVAL)
		return -EINVAL;

	ret = peer_ring_map(ep, p.fds[WFI_SHM_FD_RING]);
	if (!ret)
		ret = wfi_gens_view(&ep->peer_gens, p.fds[WFI_SHM_FD_TABLE]);
	if (ret)
		goto err_views;
	ep->peer_pidfd = fcntl(p.fds[WFI_SHM_FD_PID], F_DUPFD_CLOEXEC, 0);
	if (ep->peer_pidfd < 0) {
		ret = -errno;
		goto err_views;
	}
	ep->peer_device = blob.device;
	ep->peer_pid = p.pid;
	ep->sync.state = WFI_EP_CONNECTED;
	ep->sync.base.fast = &wfi_shm_fast;
	return 0;

err_views:
	memset(&ep->tx, 0, sizeof(ep->tx));
	wfi_view_unmap(&ep->peer_gens);
	wfi_view_unmap(&ep->peer_ring);
	return ret;
}

void wfi_shm_ep_shutdown(struct weft_ep *base)
{
	struct wfi_shm_ep *ep = wfi_shm_ep(base);

	wfi_sync_ep_close(&ep->sync, 0, 0);
	say_closed(ep);
}

void wfi_shm_ep_destroy(struct weft_ep *base)
{
	struct wfi_shm_ep *ep;

	if (!base)
		return;
	ep = wfi_shm_ep(base);
	say_closed(ep);
	wfi_sync_ep_fini(&ep->sync);
	wfi_view_unmap(&ep->peer_gens);
	wfi_view_unmap(&ep->peer_ring);
	if (ep->peer_pidfd >= 0)
		close(ep->peer_pidfd);
	if (!ep->mem_only)
		base->dev->env->mem->unmap(base->dev->env, &ep->ring);
	wfi_free(base->dev->env, ep, sizeof(*ep));
}
