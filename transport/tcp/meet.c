/* SPDX-License-Identifier: Apache-2.0 */
/* meet.c - two endpoints find each other, and nobody else */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "transport/tcp/tcp.h"
#include "weft_internal/accept.h"
#include "weft_internal/log.h"

#define HELLO_NS (2 * WFI_NSEC_PER_SEC) /* for a stranger to say for whom it comes */

int wfi_tcp_watch(struct wfi_tcp_device *dev, int fd, struct wfi_tcp_ep *ep)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = ep };

	/* edges: what is read and written to the end rings again by itself */
	if (ep)
		event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	if (!epoll_ctl(dev->epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return 0;
	return errno == EEXIST && !epoll_ctl(dev->epoll_fd, EPOLL_CTL_MOD, fd, &event) ? 0 : -errno;
}

static void no_delay(int fd)
{
	const int on = 1;

	/* a hint: without it small frames are late, not wrong */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static bool is_loopback(const union wfi_tcp_sockaddr *a)
{
	return a->sa.sa_family == AF_INET ? ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
					  : IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

/* nothing is congested inside a host: who paces what leaves, as bbr does, only waits for timers */
static void no_pacing(int fd)
{
	static const char reno[] = "reno"; /* every kernel has it, and everybody may choose it */
	union wfi_tcp_sockaddr self;
	socklen_t len = sizeof(self);

	if (!getsockname(fd, &self.sa, &len) && is_loopback(&self))
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, reno, sizeof(reno) - 1);
}

void wfi_tcp_hang_up(struct wfi_tcp_ep *ep)
{
	if (ep->fd >= 0)
		close(ep->fd);
	ep->fd = -1;
}

/* the connection of an endpoint is here */
static int ep_take(struct wfi_tcp_device *dev, struct wfi_tcp_ep *ep, int fd)
{
	no_delay(fd);
	no_pacing(fd);
	ep->fd = fd;
	ep->readable = true;
	ep->writable = true;
	return wfi_tcp_watch(dev, fd, ep);
}

/* ---- those who dial ---- */

static void dial(struct wfi_tcp_device *dev, struct wfi_tcp_ep *ep,
		 const union wfi_tcp_sockaddr *to)
{
	socklen_t len = to->sa.sa_family == AF_INET ? sizeof(to->v4) : sizeof(to->v6);
	int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		wfi_warn("tcp: no socket for a peer: %s", strerror(errno));
		wfi_srv_lost(&ep->srv, -ECONNRESET);
		return;
	}
	/* what can't be dialled is a peer that is gone: reads and writes will say so */
	if ((connect(fd, &to->sa, len) && errno != EINPROGRESS) || ep_take(dev, ep, fd)) {
		close(fd);
		ep->fd = -1;
		wfi_srv_lost(&ep->srv, -ECONNRESET);
		return;
	}
	/* whether it came about, an event tells */
	ep->writable = false;
	ep->readable = false;
}

bool wfi_tcp_hello_good(const struct wfi_tcp_ep *ep, const uint8_t *bytes)
{
	struct wfi_tcp_hello hello;

	memcpy(&hello, bytes, sizeof(hello));
	return hello.magic == WFI_TCP_HELLO_MAGIC && hello.to == ep->srv.id &&
	       memcmp(hello.ticket, ep->ticket, sizeof(hello.ticket)) == 0;
}

/* ---- those who come ---- */

static void stranger_end(struct wfi_tcp_device *dev, struct wfi_tcp_stranger *s)
{
	s->fd = -1;
	dev->nr_strangers--;
}

/* it has said for whom it comes */
static void stranger_meet(struct wfi_tcp_device *dev, struct wfi_tcp_stranger *s)
{
	struct wfi_tcp_hello hello;
	struct wfi_srv_ep *base;
	struct wfi_tcp_ep *ep;
	int fd = s->fd;

	memcpy(&hello, s->hello, sizeof(hello));
	stranger_end(dev, s);
	base = wfi_srv_ep_find(&dev->srv, hello.to);
	ep = base ? wfi_tcp_ep(base) : NULL;
	if (!ep || ep->fd >= 0 || ep->dials || base->state > WFI_EP_CONNECTED || base->stopping ||
	    !wfi_tcp_hello_good(ep, s->hello) || ep_take(dev, ep, fd)) {
		close(fd);
		if (ep && ep->fd == fd)
			ep->fd = -1;
		return;
	}
	ep->greeted = true;
	base->meeting = false;
}

/* Return: whether there may be more of it later */
static bool stranger_read(struct wfi_tcp_device *dev, struct wfi_tcp_stranger *s, uint64_t now_ns)
{
	ssize_t len = recv(s->fd, s->hello + s->len, sizeof(s->hello) - s->len, 0);

	if (len > 0)
		s->len += (uint32_t)len;
	if (s->len == sizeof(s->hello)) {
		stranger_meet(dev, s);
		return true;
	}
	return len > 0 || (len < 0 && errno == EAGAIN && now_ns - s->since_ns < HELLO_NS);
}

void wfi_tcp_strangers(struct wfi_tcp_device *dev)
{
	uint64_t now_ns = wfi_now(dev->srv.base.env);
	unsigned i;

	for (i = 0; i < WFI_TCP_STRANGERS; i++) {
		struct wfi_tcp_stranger *s = &dev->strangers[i];

		if (s->fd < 0 || stranger_read(dev, s, now_ns))
			continue;
		close(s->fd);
		stranger_end(dev, s);
	}
}

/* a free place, or that of who has been silent for longest */
static struct wfi_tcp_stranger *stranger_place(struct wfi_tcp_device *dev)
{
	struct wfi_tcp_stranger *s, *oldest = dev->strangers;
	unsigned i;

	for (i = 0; i < WFI_TCP_STRANGERS; i++) {
		s = &dev->strangers[i];
		if (s->fd < 0)
			return s;
		if (s->since_ns < oldest->since_ns)
			oldest = s;
	}
	close(oldest->fd);
	stranger_end(dev, oldest);
	return oldest;
}

void wfi_tcp_accept(struct wfi_tcp_device *dev)
{
	unsigned i;
	int fd;

	/* the rest next time */
	for (i = 0; i < WFI_TCP_STRANGERS; i++) {
		fd = wfi_accept(dev->listen_fd, SOCK_NONBLOCK | SOCK_CLOEXEC, &dev->spare_fd);
		if (fd == -EMFILE || fd == -ENFILE)
			wfi_warn("tcp: no descriptor is left for another connection: raise "
				 "LimitNOFILE");
		if (fd < 0)
			return;
		if (wfi_tcp_watch(dev, fd, NULL)) {
			close(fd);
			continue;
		}
		*stranger_place(dev) =
			(struct wfi_tcp_stranger){ .fd = fd,
						   .since_ns = wfi_now(dev->srv.base.env) };
		dev->nr_strangers++;
	}
}

/* ---- addresses ---- */

int wfi_tcp_addr_write(struct wfi_srv_ep *base, uint8_t *buf, size_t len)
{
	const struct wfi_tcp_device *dev = wfi_tcp_device(wfi_srv_device(base->base.dev));
	struct wfi_tcp_addr addr = { .ip = { [10] = 0xff, [11] = 0xff } };
	const struct wfi_tcp_ep *ep = wfi_tcp_ep(base);

	if (len < sizeof(addr))
		return -EMSGSIZE;
	if (dev->at.sa.sa_family == AF_INET) {
		memcpy(addr.ip + 12, &dev->at.v4.sin_addr, 4);
		addr.port = ntohs(dev->at.v4.sin_port);
	} else {
		memcpy(addr.ip, &dev->at.v6.sin6_addr, 16);
		addr.port = ntohs(dev->at.v6.sin6_port);
		addr.scope = dev->at.v6.sin6_scope_id;
	}
	memcpy(addr.ticket, ep->ticket, sizeof(addr.ticket));
	memcpy(buf, &addr, sizeof(addr));
	return (int)sizeof(addr);
}

static void sockaddr_of(const struct wfi_tcp_addr *addr, const struct wfi_tcp_device *dev,
			union wfi_tcp_sockaddr *to)
{
	memset(to, 0, sizeof(*to));
	to->v6.sin6_family = AF_INET6;
	memcpy(&to->v6.sin6_addr, addr->ip, sizeof(addr->ip));
	if (IN6_IS_ADDR_V4MAPPED(&to->v6.sin6_addr)) {
		memset(to, 0, sizeof(*to));
		to->v4.sin_family = AF_INET;
		memcpy(&to->v4.sin_addr, addr->ip + 12, 4);
		to->v4.sin_port = htons(addr->port);
		return;
	}
	to->v6.sin6_port = htons(addr->port);
	/* which link it is, each host numbers for itself */
	if (IN6_IS_ADDR_LINKLOCAL(&to->v6.sin6_addr) && dev->at.sa.sa_family == AF_INET6)
		to->v6.sin6_scope_id = dev->at.v6.sin6_scope_id;
}

int wfi_tcp_connect(struct wfi_srv_ep *base, const uint8_t *buf, uint32_t len)
{
	struct wfi_tcp_device *dev = wfi_tcp_device(wfi_srv_device(base->base.dev));
	struct wfi_tcp_ep *ep = wfi_tcp_ep(base);
	union wfi_tcp_sockaddr to;
	struct wfi_tcp_addr addr;

	if (len != sizeof(addr))
		return -EINVAL;
	memcpy(&addr, buf, sizeof(addr));
	if (!addr.port || addr.reserved)
		return -EINVAL;
	ep->hello = (struct wfi_tcp_hello){ .magic = WFI_TCP_HELLO_MAGIC, .to = base->peer_id };
	memcpy(ep->hello.ticket, addr.ticket, sizeof(addr.ticket));
	ep->hello_left = sizeof(ep->hello);
	base->meeting = !ep->greeted;
	ep->dials = dev->srv.incarnation < base->peer_incarnation ||
		    (dev->srv.incarnation == base->peer_incarnation && base->id < base->peer_id);
	if (!ep->dials)
		return 0;
	if (ep->greeted)
		return -EINVAL;
	sockaddr_of(&addr, dev, &to);
	dial(dev, ep, &to);
	return 0;
}
