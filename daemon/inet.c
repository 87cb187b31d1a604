/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "inet.h"
#include "weft_internal/log.h"

#define GONE_MS 1000

/* digits alone, and not more than there are ports: the resolver takes more of both */
static bool port_ok(const char *text)
{
	unsigned port = 0;

	for (; *text >= '0' && *text <= '9' && port <= UINT16_MAX; text++)
		port = port * 10 + (unsigned)(*text - '0');
	return !*text && port && port <= UINT16_MAX;
}

int inet_parse(const char *text, struct sockaddr_storage *out, socklen_t *len)
{
	const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM,
	};
	const char *colon = strrchr(text, ':');
	size_t host_len = colon ? (size_t)(colon - text) : 0;
	char host[INET_TEXT];
	struct addrinfo *found;

	if (!host_len || host_len >= sizeof(host) || !port_ok(colon + 1))
		return -EINVAL;
	if (text[0] == '[' && text[host_len - 1] == ']') {
		text++;
		host_len -= 2;
	}
	memcpy(host, text, host_len);
	host[host_len] = 0;
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	memcpy(out, found->ai_addr, found->ai_addrlen);
	*len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

bool inet_loopback(const struct sockaddr_storage *addr)
{
	struct sockaddr_in6 in6;
	struct sockaddr_in in;

	if (addr->ss_family == AF_INET) {
		memcpy(&in, addr, sizeof(in));
		return ntohl(in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	}
	memcpy(&in6, addr, sizeof(in6));
	return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

void inet_peer(int fd, char out[INET_TEXT])
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (getpeername(fd, (struct sockaddr *)&addr, &len) ||
	    getnameinfo((struct sockaddr *)&addr, len, out, INET_TEXT, NULL, 0, NI_NUMERICHOST))
		strcpy(out, "?");
}

static int host_text(const struct sockaddr_storage *addr, socklen_t len, char host[INET_TEXT])
{
	return getnameinfo((const struct sockaddr *)addr, len, host, INET_TEXT, NULL, 0,
			   NI_NUMERICHOST)
		       ? -EINVAL
		       : 0;
}

int inet_host(const char *text, char host[INET_TEXT])
{
	struct sockaddr_storage addr;
	socklen_t len;

	return inet_parse(text, &addr, &len) ? -EINVAL : host_text(&addr, len, host);
}

int inet_source(const char *text, char host[INET_TEXT])
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd, ret = inet_parse(text, &addr, &len);

	if (ret)
		return ret;
	/* a datagram socket that connects sends nothing: the kernel looks up the route */
	fd = socket(addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, len) ||
	    getsockname(fd, (struct sockaddr *)&addr, &len))
		ret = -errno;
	close(fd);
	return ret ? ret : host_text(&addr, len, host);
}

static int inet_socket(const struct sockaddr_storage *addr)
{
	int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

int inet_listen(const char *text, const char *key)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd, one = 1, ret = inet_parse(text, &addr, &len);

	if (ret)
		return ret;
	fd = inet_socket(&addr);
	if (fd < 0)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&addr, len) || listen(fd, 128)) {
		ret = -errno;
		wfi_err("can't listen on %s: %s: set %s to an address of this host that no other "
			"program listens on",
			text, strerror(-ret), key);
		close(fd);
		return ret;
	}
	return fd;
}

int inet_dial(const char *text)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd, ret = inet_parse(text, &addr, &len);

	if (ret)
		return ret;
	fd = inet_socket(&addr);
	if (fd < 0 || !connect(fd, (struct sockaddr *)&addr, len) || errno == EINPROGRESS)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

void inet_watchful(int fd)
{
	const int one = 1, gone_ms = GONE_MS;

	/* none of these can fail on a TCP socket; where one did, an end is noticed later */
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof(one));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof(one));
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone_ms, sizeof(gone_ms));
}

bool inet_pending(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	       info.tcpi_state == TCP_SYN_SENT;
}
