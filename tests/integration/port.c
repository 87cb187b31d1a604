/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/integration/port.h"

/* below those that Linux gives to who does not ask for one (ip_local_port_range) */
#define FIRST 20000u
#define NR 12000u
#define A_PROCESS 16u

static bool is_free(unsigned port)
{
	const struct sockaddr_in addr = { .sin_family = AF_INET,
					  .sin_port = htons((uint16_t)port),
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool is;

	assert_true(fd >= 0);
	is = !bind(fd, (const struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return is;
}

unsigned test_free_port(void)
{
	static unsigned asked;
	unsigned port;

	do {
		assert_true(asked < NR);
		port = FIRST + ((unsigned)getpid() * A_PROCESS + asked++) % NR;
	} while (!is_free(port));
	return port;
}
