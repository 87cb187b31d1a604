/* SPDX-License-Identifier: Apache-2.0 */
/* test_accept.c - connections while no descriptor is left */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "weft_internal/accept.h"

static struct sockaddr_in at;

static int listener(void)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(at);

	at = (struct sockaddr_in){ .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_return_code(bind(fd, (struct sockaddr *)&at, sizeof(at)), errno);
	assert_return_code(listen(fd, 8), errno);
	assert_return_code(getsockname(fd, (struct sockaddr *)&at, &len), errno);
	return fd;
}

static int caller(void)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_return_code(connect(fd, (struct sockaddr *)&at, sizeof(at)), errno);
	return fd;
}

static bool is_ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void test_taken(void **state)
{
	int spare = wfi_accept_spare(), fd = listener(), who, taken;

	(void)state;
	assert_int_equal(wfi_accept(fd, SOCK_CLOEXEC, &spare), -EAGAIN);
	who = caller();
	taken = wfi_accept(fd, SOCK_CLOEXEC, &spare);
	assert_return_code(taken, errno);
	close(taken);
	close(who);
	close(fd);
	close(spare);
}

/* nobody waits on, so that the listener is quiet */
static void test_no_descriptors(void **state)
{
	int spare = wfi_accept_spare(), fd = listener(), who[2] = { caller(), caller() }, i;
	struct rlimit old, few;
	int last;
	char byte;

	(void)state;
	/* none is free below the limit */
	do
		last = dup(fd);
	while (last < who[1]);
	assert_return_code(getrlimit(RLIMIT_NOFILE, &old), errno);
	few = (struct rlimit){ .rlim_cur = (rlim_t)last + 1, .rlim_max = old.rlim_max };
	assert_return_code(setrlimit(RLIMIT_NOFILE, &few), errno);
	for (i = 0; i < 2; i++) {
		assert_true(is_ready(fd));
		assert_int_equal(wfi_accept(fd, SOCK_CLOEXEC, &spare), -EMFILE);
		assert_true(spare >= 0);
		assert_true(read(who[i], &byte, 1) <= 0);
	}
	assert_false(is_ready(fd));
	assert_return_code(setrlimit(RLIMIT_NOFILE, &old), errno);
	close(who[0]);
	close(who[1]);
	close(last);
	close(fd);
	close(spare);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_no_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
