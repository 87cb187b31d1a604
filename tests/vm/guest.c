/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/vm/guest.h"
#include "weft_internal/util.h"

#define SPINS (1u << 20)
#define SPINS_NS (8 * WFI_NSEC_PER_MSEC) /* of a guest whose host has nothing else to do */
#define WINDOWS 16

uint64_t guest_slowness = 1;

static uint64_t slowness_measure(struct wfi_env *env)
{
	uint64_t start_ns, worst_ns = 0;
	volatile unsigned spins;
	unsigned i;

	for (i = 0; i < WINDOWS; i++) {
		start_ns = wfi_now(env);
		for (spins = 0; spins < SPINS; spins++)
			;
		worst_ns = wfi_max(worst_ns, wfi_now(env) - start_ns);
	}
	return wfi_min(1 + worst_ns / (2 * SPINS_NS), GUEST_SLOWEST);
}

bool guest_begin(struct wfi_env *env, struct sockaddr_in *where, unsigned port)
{
	const char *addr = getenv("WEFT_VM_ADDR_1");

	*where = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	if (!addr || inet_pton(AF_INET, addr, &where->sin_addr) != 1) {
		printf("runs in a guest: see tests/vm/run\n");
		return false;
	}
	guest_slowness = slowness_measure(env);
	printf("patience is %ux\n", (unsigned)guest_slowness);
	return true;
}

bool guest_serves(const struct sockaddr_in *where, int (*server)(int sock), int *status)
{
	int sock;

	signal(SIGPIPE, SIG_IGN);
	if (guest_is("WEFT_VM_HOSTS", "2") && !guest_is("WEFT_VM_HOST", "1"))
		return false;
	sock = guest_listen(where);
	if (guest_is("WEFT_VM_HOSTS", "1")) {
		if (fork()) {
			close(sock);
			return false;
		}
		_exit(server(sock));
	}
	*status = server(sock);
	return true;
}

bool guest_in_time(struct wfi_env *env, uint64_t start_ns, uint64_t ms)
{
	uint64_t took_ns = wfi_now(env) - start_ns;

	if (took_ns < guest_slowness * ms * WFI_NSEC_PER_MSEC)
		return true;
	return took_ns < slowness_measure(env) * ms * WFI_NSEC_PER_MSEC;
}

bool guest_is(const char *name, const char *value)
{
	const char *set = getenv(name);

	return set && !strcmp(set, value);
}

void guest_move(int sock, void *buf, size_t len, int out)
{
	uint8_t *at = buf;
	ssize_t n;

	while (len) {
		n = out ? send(sock, at, len, MSG_NOSIGNAL) : recv(sock, at, len, 0);
		assert_true(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

int guest_listen(const struct sockaddr_in *where)
{
	int one = 1, sock = socket(AF_INET, SOCK_STREAM, 0);

	if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(sock, (const struct sockaddr *)where, sizeof(*where)) || listen(sock, 4)) {
		perror("listen");
		exit(1);
	}
	return sock;
}

static void tcp_set(int sock, int level, int name, int value)
{
	assert_int_equal(setsockopt(sock, level, name, &value, sizeof(value)), 0);
}

/* it is asked often, and asked again whether it still knows of the connection, which its kernel may
 * have taken just before */
int guest_dial(const struct sockaddr_in *where, char more)
{
	int sock = -1;

	do {
		if (sock >= 0)
			close(sock);
		sock = socket(AF_INET, SOCK_STREAM, 0);
		assert_true(sock >= 0);
		tcp_set(sock, IPPROTO_TCP, TCP_SYNCNT, 1);
		tcp_set(sock, SOL_SOCKET, SO_KEEPALIVE, 1);
		tcp_set(sock, IPPROTO_TCP, TCP_KEEPIDLE, 1);
		tcp_set(sock, IPPROTO_TCP, TCP_KEEPINTVL, 1);
		tcp_set(sock, IPPROTO_TCP, TCP_KEEPCNT, 60);
	} while (connect(sock, (const struct sockaddr *)where, sizeof(*where)));
	assert_int_equal(send(sock, &more, 1, MSG_NOSIGNAL), 1);
	return sock;
}

void guest_run(const char *format, ...)
{
	char command[160];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	assert_int_equal(system(command), 0);
}
