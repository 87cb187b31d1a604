/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcp.h - the TCP provider, inside
 *
 * Frames (transport/served.h) on a stream: an endpoint is a connection. Bytes go from where they
 * lie by one sendmsg() for many pieces, and are read straight to where they belong.
 *
 * A device listens at one address. Of two endpoints that were given each other's addresses, the one
 * with the lesser incarnation dials; each says first for whom it comes, with the ticket that the
 * other's address carried. Who does not know it is hung up on.
 *
 * Plain calls on sockets that never block, and one epoll: when a connection is closed, the kernel
 * has let go of all memory, so there is nothing to wait for before it is used again.
 */
#ifndef WFI_TRANSPORT_TCP_H
#define WFI_TRANSPORT_TCP_H

#include <netinet/in.h>
#include <sys/socket.h>
#include "transport/served.h"
#include "transport/tcp/provider.h"

#define WFI_TCP_HELLO_MAGIC 0x314f4c4c48504354ull /* "TCPHLLO1" */
#define WFI_TCP_STAGE (16u << 10)
#define WFI_TCP_STRANGERS 64u

union wfi_tcp_sockaddr {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* an endpoint's address behind that of the core, little-endian but for .ip */
struct wfi_tcp_addr {
	uint8_t ip[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint8_t ticket[16];
	uint32_t scope; /* of link-local addresses */
	uint16_t port;
	uint16_t reserved;
};

/* the first bytes of each side */
struct wfi_tcp_hello {
	uint64_t magic;
	uint64_t to; /* the endpoint that is meant */
	uint8_t ticket[16]; /* of its address */
};

_Static_assert(sizeof(struct wfi_tcp_addr) == 40, "wire");
_Static_assert(sizeof(struct wfi_tcp_hello) == 32, "wire");

/* who connected and has not said for whom yet */
struct wfi_tcp_stranger {
	int fd; /* -1: none */
	uint32_t len;
	uint64_t since_ns;
	uint8_t hello[sizeof(struct wfi_tcp_hello)];
};

struct wfi_tcp_device {
	struct wfi_srv_device srv;
	union wfi_tcp_sockaddr at; /* where it listens */
	int listen_fd;
	int spare_fd; /* for wfi_accept() */
	int epoll_fd;
	uint32_t nr_strangers;
	struct wfi_tcp_stranger strangers[WFI_TCP_STRANGERS];
};

struct wfi_tcp_ep {
	struct wfi_srv_ep srv;
	int fd; /* -1: not yet, or no more */
	int lowat; /* bytes that are there before they are told of */
	bool dials;
	bool readable;
	bool writable;
	bool greeted; /* the peer's hello was here */
	uint8_t ticket[16]; /* ours */
	struct wfi_tcp_hello hello; /* to the peer, with its ticket */
	uint32_t hello_left; /* bytes of it that were not sent yet */
	struct wfi_srv_tx *first;
	struct wfi_srv_tx **last;
	uint32_t stage_at;
	uint32_t stage_len;
	uint8_t stage[WFI_TCP_STAGE]; /* heads, and what was read with them */
};

static inline struct wfi_tcp_device *wfi_tcp_device(struct wfi_srv_device *dev)
{
	return wfi_container_of(dev, struct wfi_tcp_device, srv);
}

static inline struct wfi_tcp_ep *wfi_tcp_ep(struct wfi_srv_ep *ep)
{
	return wfi_container_of(ep, struct wfi_tcp_ep, srv);
}

/* device.c */
int wfi_tcp_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out);
int wfi_tcp_device_open(const struct weft_transport *t, struct wfi_env *env,
			const struct weft_device_opts *opts, struct weft_device **out);
void wfi_tcp_device_close(struct weft_device *dev);

/* meet.c: how two endpoints find each other */

/* watches @fd; @ep NULL: the listener and strangers. Return: 0, -errno */
int wfi_tcp_watch(struct wfi_tcp_device *dev, int fd, struct wfi_tcp_ep *ep);
void wfi_tcp_accept(struct wfi_tcp_device *dev);
/* who is too slow is hung up on */
void wfi_tcp_strangers(struct wfi_tcp_device *dev);
int wfi_tcp_addr_write(struct wfi_srv_ep *ep, uint8_t *buf, size_t len);
int wfi_tcp_connect(struct wfi_srv_ep *ep, const uint8_t *addr, uint32_t len);
void wfi_tcp_hang_up(struct wfi_tcp_ep *ep);
/* the hello that begins what the peer of a dialled endpoint sends. Return: whether it is good */
bool wfi_tcp_hello_good(const struct wfi_tcp_ep *ep, const uint8_t *bytes);

/* wire.c */
extern const struct wfi_srv_wire wfi_tcp_wire;

#endif
