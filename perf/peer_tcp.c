/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer_tcp.c - bare TCP over loopback: bytes one way in one send, and a byte back
 *
 * Nothing is scattered and nothing is checked: the least that these bytes can cost on TCP.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "perf/peers.h"
#include "perf/perf.h"

#define BYTES_MAX (64u << 20) /* the order included */

/* before each exchange, from the side that begins */
struct order {
	uint32_t out; /* bytes that follow */
	uint32_t back; /* bytes to answer with */
};

struct wfi_peer_tcp {
	pid_t pid;
	int sock;
	uint8_t *mem;
};

static int move_all(int sock, uint8_t *mem, size_t len, bool out)
{
	ssize_t n;

	while (len) {
		n = out ? send(sock, mem, len, MSG_NOSIGNAL) : recv(sock, mem, len, 0);
		if (n <= 0)
			return -ECONNRESET;
		mem += n;
		len -= (size_t)n;
	}
	return 0;
}

static int serve(int sock, uint8_t *mem)
{
	struct order order;
	int ret = 0;

	while (!ret && !move_all(sock, (uint8_t *)&order, sizeof(order), false)) {
		ret = move_all(sock, mem, order.out, false);
		if (!ret)
			ret = move_all(sock, mem, order.back, true);
	}
	return ret;
}

static int connected(int listener, int *out)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int one = 1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&addr, len) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&addr, &len))
		return -errno;
	*out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*out < 0 || connect(*out, (struct sockaddr *)&addr, len))
		return -errno;
	setsockopt(*out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

static void child(int listener, uint8_t *mem)
{
	int one = 1, sock;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (wfi_perf_pin(WFI_PERF_NODE_CPU))
		_exit(1);
	sock = accept(listener, NULL, NULL);
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	_exit(serve(sock, mem) != 0);
}

int wfi_peer_tcp_open(struct wfi_peer_tcp **out)
{
	struct wfi_peer_tcp *t = calloc(1, sizeof(*t));
	int listener = -1, ret = t ? 0 : -ENOMEM;

	if (ret)
		return ret;
	t->sock = -1;
	t->mem = mmap(NULL, BYTES_MAX, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (t->mem == MAP_FAILED) {
		t->mem = NULL;
		ret = -errno;
	}
	if (!ret)
		listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!ret)
		ret = listener < 0 ? -errno : connected(listener, &t->sock);
	if (!ret) {
		t->pid = fork();
		if (!t->pid) {
			close(t->sock);
			child(listener, t->mem);
		}
		ret = t->pid < 0 ? -errno : 0;
	}
	if (listener >= 0)
		close(listener);
	if (ret) {
		wfi_peer_tcp_close(t);
		return wfi_perf_fail(ret, "no TCP on loopback: %s", strerror(-ret));
	}
	*out = t;
	return 0;
}

void wfi_peer_tcp_close(struct wfi_peer_tcp *t)
{
	if (!t)
		return;
	if (t->sock >= 0)
		close(t->sock);
	if (t->pid > 0)
		waitpid(t->pid, NULL, 0);
	if (t->mem)
		munmap(t->mem, BYTES_MAX);
	free(t);
}

int wfi_peer_tcp_move(struct wfi_peer_tcp *t, uint32_t out, uint32_t back)
{
	const struct order order = { out, back };
	int ret;

	if (out > BYTES_MAX - sizeof(order) || back > BYTES_MAX)
		return -EINVAL;
	/* one send: the order lies before the bytes, which nobody looks at */
	memcpy(t->mem, &order, sizeof(order));
	ret = move_all(t->sock, t->mem, sizeof(order) + out, true);
	return ret ? ret : move_all(t->sock, t->mem, back, false);
}
