/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - frames on a stream */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "transport/tcp/tcp.h"

#define PLACES 1024u /* of one call: UIO_MAXIOV */
#define TURN (2u << 20) /* bytes that one endpoint may take of one progress() */
#define EVENTS 64
#define LOWAT (512u << 10) /* of a long frame: who reads less at a time keeps its sender waiting */
#define LEAVE_NS (30 * WFI_NSEC_PER_MSEC)

/* ---- what leaves ---- */

static bool would_block(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

static void tx_lost(struct wfi_tcp_ep *ep)
{
	ep->writable = false;
	if (!would_block(errno))
		wfi_srv_lost(&ep->srv, -ECONNRESET);
}

/* Return: whether it has left */
static bool hello_send(struct wfi_tcp_ep *ep)
{
	const uint8_t *from = (const uint8_t *)(&ep->hello + 1) - ep->hello_left;
	ssize_t n = send(ep->fd, from, ep->hello_left, MSG_NOSIGNAL);

	if (n > 0)
		ep->hello_left -= (uint32_t)n;
	else
		tx_lost(ep);
	return !ep->hello_left;
}

/* what the queue begins with. Return: places; their bytes in *@sum */
static unsigned tx_gather(const struct wfi_tcp_ep *ep, struct iovec *iov, size_t *sum)
{
	const struct wfi_srv_tx *tx;
	unsigned n = 0;
	uint32_t i;

	*sum = 0;
	for (tx = ep->first; tx; tx = tx->next)
		for (i = tx->at; i < tx->nr_iov; i++) {
			if (n == PLACES)
				return n;
			iov[n++] = tx->iov[i];
			*sum += tx->iov[i].iov_len;
		}
	return n;
}

static void tx_left(struct wfi_tcp_ep *ep, size_t bytes)
{
	struct wfi_srv_tx *tx;

	ep->srv.heard = true;
	while ((tx = ep->first)) {
		while (tx->at < tx->nr_iov && bytes >= tx->iov[tx->at].iov_len)
			bytes -= tx->iov[tx->at++].iov_len;
		if (tx->at < tx->nr_iov) {
			tx->iov[tx->at].iov_base = (uint8_t *)tx->iov[tx->at].iov_base + bytes;
			tx->iov[tx->at].iov_len -= bytes;
			return;
		}
		ep->first = tx->next;
		if (!ep->first)
			ep->last = &ep->first;
		wfi_srv_tx_done(&ep->srv, tx);
	}
}

static void tx_run(struct wfi_tcp_ep *ep)
{
	struct iovec iov[PLACES];
	struct msghdr msg = { .msg_iov = iov };
	size_t sum, turn = 0;
	ssize_t n;

	if (wfi_unlikely(ep->hello_left) && !hello_send(ep))
		return;
	while (ep->first && turn < TURN) {
		msg.msg_iovlen = tx_gather(ep, iov, &sum);
		n = sendmsg(ep->fd, &msg, MSG_NOSIGNAL);
		if (n < 0) {
			tx_lost(ep);
			return;
		}
		tx_left(ep, (size_t)n);
		turn += (size_t)n;
		if ((size_t)n < sum) {
			ep->writable = false;
			return;
		}
	}
}

static void wire_push(struct wfi_srv_ep *base, struct wfi_srv_tx *tx)
{
	struct wfi_tcp_ep *ep = wfi_tcp_ep(base);

	tx->next = NULL;
	*ep->last = tx;
	ep->last = &tx->next;
	if (ep->writable && ep->first == tx)
		tx_run(ep);
}

/* ---- what arrives ---- */

/* Return: false the peer is none of ours, or breaks the rules */
static bool stage_take(struct wfi_tcp_ep *ep)
{
	int ret;

	if (!ep->greeted) {
		if (ep->stage_len - ep->stage_at < sizeof(struct wfi_tcp_hello))
			return true;
		if (!wfi_tcp_hello_good(ep, ep->stage + ep->stage_at))
			return false;
		ep->greeted = true;
		ep->srv.meeting = false;
		ep->stage_at += sizeof(struct wfi_tcp_hello);
	}
	while (ep->stage_at < ep->stage_len && !ep->srv.lost) {
		const uint8_t *bytes = ep->stage + ep->stage_at;
		size_t len = ep->stage_len - ep->stage_at;

		if (wfi_srv_rx_left(&ep->srv)) {
			ep->stage_at += (uint32_t)wfi_srv_rx_bytes(&ep->srv, bytes, len);
			continue;
		}
		ret = wfi_srv_rx_begin(&ep->srv, bytes, len);
		if (ret <= 0)
			return !ret;
		ep->stage_at += (uint32_t)ret;
	}
	return true;
}

/* room for more behind what is staged */
static void stage_shift(struct wfi_tcp_ep *ep)
{
	ep->stage_len -= ep->stage_at;
	if (ep->stage_at)
		memmove(ep->stage, ep->stage + ep->stage_at, ep->stage_len);
	ep->stage_at = 0;
}

/* of a long frame news are told once there is much of it. A hint: without it there are more */
static void rx_lowat(struct wfi_tcp_ep *ep)
{
	const uint64_t left = wfi_srv_rx_left(&ep->srv);
	const int lowat = left < LOWAT / 2 ? 1 : (int)wfi_min(left, LOWAT);

	if (wfi_likely(lowat == ep->lowat))
		return;
	ep->lowat = lowat;
	setsockopt(ep->fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof(lowat));
}

/* one read, to where the bytes belong and, behind them, into the stage. Return: bytes, 0 no more
 * now */
static size_t rx_read(struct wfi_tcp_ep *ep)
{
	struct iovec iov[PLACES];
	uint64_t left = wfi_srv_rx_left(&ep->srv), direct = 0;
	unsigned i, nr = 0;
	size_t room;
	ssize_t n;

	stage_shift(ep);
	room = WFI_TCP_STAGE - ep->stage_len;
	if (left)
		nr = wfi_srv_rx_iov(&ep->srv, iov, PLACES - 1, left);
	for (i = 0; i < nr; i++)
		direct += iov[i].iov_len;
	if (direct == left || !nr) {
		iov[nr].iov_base = ep->stage + ep->stage_len;
		iov[nr++].iov_len = room;
	} else {
		room = 0;
	}
	n = readv(ep->fd, iov, (int)nr);
	if (n <= 0) {
		ep->readable = false;
		if (!n || !would_block(errno))
			wfi_srv_lost(&ep->srv, -ECONNRESET);
		return 0;
	}
	/* less than there was room for: that was all */
	ep->readable = (uint64_t)n == direct + room;
	direct = wfi_min(direct, (uint64_t)n);
	if (direct)
		wfi_srv_rx_moved(&ep->srv, direct);
	ep->stage_len += (uint32_t)((uint64_t)n - direct);
	return (size_t)n;
}

static void rx_run(struct wfi_tcp_ep *ep)
{
	size_t n, turn = 0;

	while (ep->readable && turn < TURN && !ep->srv.lost) {
		n = rx_read(ep);
		turn += n;
		if (n && !stage_take(ep))
			wfi_srv_lost(&ep->srv, -EPROTO);
	}
	if (!ep->srv.lost)
		rx_lowat(ep);
}

/* ---- progress ---- */

static void events_take(struct wfi_tcp_device *dev)
{
	struct epoll_event events[EVENTS];
	int i, nr = epoll_wait(dev->epoll_fd, events, EVENTS, 0);

	for (i = 0; i < nr; i++) {
		struct wfi_tcp_ep *ep = events[i].data.ptr;

		if (!ep) {
			wfi_tcp_accept(dev);
			wfi_tcp_strangers(dev);
			continue;
		}
		if (events[i].events & ~(uint32_t)EPOLLOUT)
			ep->readable = true;
		if (events[i].events & EPOLLOUT)
			ep->writable = true;
	}
}

static void wire_progress(struct wfi_srv_device *base)
{
	struct wfi_tcp_device *dev = wfi_tcp_device(base);
	struct wfi_srv_ep *srv;

	events_take(dev);
	if (wfi_unlikely(dev->nr_strangers))
		wfi_tcp_strangers(dev);
	for (srv = base->first; srv; srv = srv->next) {
		struct wfi_tcp_ep *ep = wfi_tcp_ep(srv);

		if (wfi_unlikely(srv->stopping && !srv->stopped)) {
			wfi_srv_stopped(srv);
			continue;
		}
		if (ep->fd < 0 || srv->state == WFI_EP_CREATED)
			continue;
		if (ep->readable)
			rx_run(ep);
		if (ep->writable && (ep->first || ep->hello_left) && !srv->lost)
			tx_run(ep);
	}
}

static int wire_arm(struct wfi_srv_device *base, struct weft_wait *wait)
{
	struct wfi_srv_ep *srv;

	for (srv = base->first; srv; srv = srv->next)
		if (wfi_tcp_ep(srv)->fd >= 0 && wfi_tcp_ep(srv)->readable &&
		    srv->state != WFI_EP_CREATED)
			return -EAGAIN;
	*wait = (struct weft_wait){ .fd = wfi_tcp_device(base)->epoll_fd };
	return 1;
}

/* ---- endpoints ---- */

static void wire_stop(struct wfi_srv_ep *base)
{
	struct wfi_tcp_ep *ep = wfi_tcp_ep(base);
	struct wfi_srv_tx *tx;

	wfi_tcp_hang_up(ep);
	while ((tx = ep->first)) {
		ep->first = tx->next;
		wfi_srv_tx_done(base, tx);
	}
	ep->last = &ep->first;
}

/* what is said last has a chance to leave, if the connection is there, or comes at once */
static void wire_fini(struct wfi_srv_ep *base)
{
	struct wfi_srv_device *dev = wfi_srv_device(base->base.dev);
	const uint64_t limit = wfi_now(dev->base.env) + LEAVE_NS;
	struct wfi_tcp_ep *ep = wfi_tcp_ep(base);

	while (ep->fd >= 0 && ep->first && !base->lost && !base->stopping &&
	       wfi_now(dev->base.env) < limit)
		wire_progress(dev);
	wire_stop(base);
}

static int wire_init(struct wfi_srv_ep *base)
{
	struct wfi_env *env = base->base.dev->env;
	struct wfi_tcp_ep *ep = wfi_tcp_ep(base);

	ep->fd = -1;
	ep->lowat = 1;
	ep->last = &ep->first;
	return env->rng->bytes(env, ep->ticket, sizeof(ep->ticket));
}

const struct wfi_srv_wire wfi_tcp_wire = {
	.name = "tcp",
	.ep_size = sizeof(struct wfi_tcp_ep),
	.head_max = WFI_SRV_HEAD_MAX,
	.progress = wire_progress,
	.arm = wire_arm,
	.init = wire_init,
	.fini = wire_fini,
	.addr = wfi_tcp_addr_write,
	.connect = wfi_tcp_connect,
	.push = wire_push,
	.stop = wire_stop,
};
