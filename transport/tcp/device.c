/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "transport/tcp/tcp.h"
#include "weft_internal/accept.h"
#include "weft_internal/log.h"

#define BACKLOG 64

int wfi_tcp_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	out->nr_devices = 1;
	out->slow = 1;
	snprintf(out->why, sizeof(out->why),
		 "works everywhere; where there are RDMA NICs, transport = \"verbs\" is faster");
	return 0;
}

/* the address of a network interface: IPv4 first, link-local last. Return: whether it has one */
static bool interface_addr(const char *name, union wfi_tcp_sockaddr *out)
{
	struct ifaddrs *all, *i;
	unsigned best = 0, rank;

	if (getifaddrs(&all))
		return false;
	for (i = all; i; i = i->ifa_next) {
		const union wfi_tcp_sockaddr *a = (const void *)i->ifa_addr;

		if (!a || strcmp(i->ifa_name, name) != 0)
			continue;
		rank = a->sa.sa_family == AF_INET		 ? 3
		       : a->sa.sa_family != AF_INET6		 ? 0
		       : IN6_IS_ADDR_LINKLOCAL(&a->v6.sin6_addr) ? 1
								 : 2;
		if (rank <= best)
			continue;
		best = rank;
		memset(out, 0, sizeof(*out));
		if (a->sa.sa_family == AF_INET)
			out->v4 = a->v4;
		else
			out->v6 = a->v6;
	}
	freeifaddrs(all);
	return best;
}

/* Return: 0, -ENODEV */
static int place_read(const char *name, union wfi_tcp_sockaddr *out)
{
	memset(out, 0, sizeof(*out));
	out->sa.sa_family = AF_INET;
	if (inet_pton(AF_INET, name, &out->v4.sin_addr) == 1)
		return 0;
	out->sa.sa_family = AF_INET6;
	if (inet_pton(AF_INET6, name, &out->v6.sin6_addr) == 1)
		return 0;
	if (interface_addr(name, out))
		return 0;
	wfi_err("tcp: %s is neither an address of this host nor a network interface with one",
		name);
	return -ENODEV;
}

static socklen_t sockaddr_len(const union wfi_tcp_sockaddr *a)
{
	return a->sa.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

/* at any port of the address; which one it is, is known then. Return: 0, -errno; logged */
static int listen_at(struct wfi_tcp_device *dev, const char *name)
{
	socklen_t len = sockaddr_len(&dev->at);
	int ret;

	dev->listen_fd =
		socket(dev->at.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dev->listen_fd < 0)
		return -errno;
	if (!bind(dev->listen_fd, &dev->at.sa, len) && !listen(dev->listen_fd, BACKLOG) &&
	    !getsockname(dev->listen_fd, &dev->at.sa, &len))
		return 0;
	ret = -errno;
	wfi_err("tcp: can't listen at %s: %s", name, strerror(-ret));
	close(dev->listen_fd);
	return ret;
}

static int sockets_open(struct wfi_tcp_device *dev, const char *name)
{
	unsigned i;
	int ret;

	for (i = 0; i < WFI_TCP_STRANGERS; i++)
		dev->strangers[i].fd = -1;
	ret = place_read(name, &dev->at);
	if (!ret)
		ret = listen_at(dev, name);
	if (ret)
		return ret;
	dev->spare_fd = wfi_accept_spare();
	dev->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = dev->epoll_fd < 0 ? -errno : wfi_tcp_watch(dev, dev->listen_fd, NULL);
	if (!ret)
		return 0;
	if (dev->epoll_fd >= 0)
		close(dev->epoll_fd);
	if (dev->spare_fd >= 0)
		close(dev->spare_fd);
	close(dev->listen_fd);
	return ret;
}

int wfi_tcp_device_open(const struct weft_transport *t, struct wfi_env *env,
			const struct weft_device_opts *opts, struct weft_device **out)
{
	struct weft_device_opts o;
	struct wfi_tcp_device *dev;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved)
		return -EINVAL;
	dev = wfi_alloc(env, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	ret = wfi_srv_device_init(&dev->srv, t, env, &wfi_tcp_wire, o.silent_ms);
	if (!ret)
		ret = sockets_open(dev, o.name ? o.name : o.addr ? o.addr : "127.0.0.1");
	if (ret) {
		wfi_free(env, dev, sizeof(*dev));
		return ret;
	}
	*out = &dev->srv.base;
	return 0;
}

void wfi_tcp_device_close(struct weft_device *base)
{
	struct wfi_tcp_device *dev;
	unsigned i;

	if (!base)
		return;
	dev = wfi_tcp_device(wfi_srv_device(base));
	for (i = 0; i < WFI_TCP_STRANGERS; i++)
		if (dev->strangers[i].fd >= 0)
			close(dev->strangers[i].fd);
	close(dev->epoll_fd);
	if (dev->spare_fd >= 0)
		close(dev->spare_fd);
	close(dev->listen_fd);
	wfi_srv_device_fini(&dev->srv);
	wfi_free(base->env, dev, sizeof(*dev));
}
