/* SPDX-License-Identifier: Apache-2.0 */
/* libweft beside a node that is stopped, or answers nothing: how long it waits */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "fake_node.h"
#include "ring/client_priv.h"
#include "weft_internal/client.h"
#include "weft_internal/ctl.h"

static char dir[] = "/tmp/weft-test-XXXXXX";

static int attach_to(const char *path, struct weft **out)
{
	struct wfi_connector *c;
	int ret = wfi_connector_unix(path, &c);

	return ret < 0 ? ret : wfi_client_attach(NULL, c, out);
}

/* ---- time that passes fast ---- */

static _Thread_local bool hurry;
static unsigned long_waits; /* so far */

int __real_poll(struct pollfd *fds, nfds_t nr, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms);

int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms)
{
	if (hurry && ms > 1000) {
		long_waits++;
		ms = 20;
	}
	return __real_poll(fds, nr, ms);
}

int __real_setsockopt(int fd, int level, int what, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int what, const void *value, socklen_t len);

int __wrap_setsockopt(int fd, int level, int what, const void *value, socklen_t len)
{
	const struct timeval soon = { .tv_usec = 20000 };

	if (hurry && what == SO_SNDTIMEO)
		value = &soon;
	return __real_setsockopt(fd, level, what, value, len);
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* a node that is stopped has no place for another call at last: nobody waits for one for ever */
static void test_queue_full(void **state)
{
	const struct itimerval once = { .it_value.tv_usec = 5000 };
	const struct sigaction alarm = { .sa_handler = on_alarm };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int other = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct weft *w = NULL;

	(void)state;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/stopped", dir);
	assert_false(bind(listener, (struct sockaddr *)&addr, sizeof(addr)));
	assert_false(listen(listener, 0));
	assert_false(connect(other, (struct sockaddr *)&addr, sizeof(addr)));
	hurry = true;
	assert_int_equal(attach_to(addr.sun_path, &w), -ETIMEDOUT);
	assert_non_null(strstr(weft_why(), "takes nobody"));
	/* nor is a signal of the engine's own an answer */
	assert_false(sigaction(SIGALRM, &alarm, NULL));
	assert_false(setitimer(ITIMER_REAL, &once, NULL));
	assert_int_equal(attach_to(addr.sun_path, &w), -ETIMEDOUT);
	hurry = false;
	close(other);
	close(listener);
	unlink(addr.sun_path);
}

/* one end of a pair of sockets */
struct pair_connector {
	struct wfi_connector base;
	int fd;
};

static int pair_connect(struct wfi_connector *base)
{
	return wfi_container_of(base, struct pair_connector, base)->fd;
}

static void pair_destroy(struct wfi_connector *base)
{
	(void)base;
}

/* nor for room for a request, where none is read; and what was not asked has no answer to come */
static void test_unread(void **state)
{
	struct pair_connector c = { .base = { pair_connect, pair_destroy } };
	struct weft_ctl_rep rep = { .magic = WEFT_CTL_MAGIC,
				    .type = WEFT_CTL_HELLO,
				    .len = FAKE_ARENA_BYTES };
	int arena = memfd_create("arena", MFD_CLOEXEC), fds[2];
	struct weft_ctl_req req;
	struct weft *w;
	unsigned sent, i;

	(void)state;
	assert_false(ftruncate(arena, FAKE_ARENA_BYTES));
	assert_false(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
	c.fd = fds[0];
	/* it is there before it is asked for */
	assert_false(wfi_ctl_send(fds[1], &rep, sizeof(rep), &arena, 1));
	close(arena);
	assert_int_equal(wfi_client_attach(NULL, &c.base, &w), 0);
	hurry = true;
	do {
		sent = w->stale;
		assert_int_equal(weft_drain(w), -ETIMEDOUT);
	} while (w->stale > sent);
	hurry = false;
	assert_in_range(sent, 1, 10000);
	rep.type = WEFT_CTL_DRAIN;
	for (i = 0; i < sent + 1; i++) {
		assert_int_equal(wfi_ctl_recv(fds[1], &req, sizeof(req), NULL, 0, NULL),
				 sizeof(req));
		if (i)
			assert_false(wfi_ctl_send(fds[1], &rep, sizeof(rep), NULL, 0));
	}
	assert_false(wfi_ctl_send(fds[1], &rep, sizeof(rep), NULL, 0));
	assert_int_equal(weft_drain(w), 0);
	assert_int_equal(w->stale, 0);
	close(fds[1]);
	weft_close(w);
}

/* a node that answers nothing is waited for once, not with each ring and region; it hears of the
 * end by the hang-up */
static void test_close_waits_once(void **state)
{
	struct weft_region_opts region = { .size = sizeof(region), .len = 4096, .fd = -1 };
	struct fake_node *node;
	struct weft_ring *ring;
	struct weft *w;
	uint32_t number;
	char buf[4096], path[96];
	unsigned i;

	(void)state;
	snprintf(path, sizeof(path), "%s/sock", dir);
	node = fake_node_start(path);
	assert_int_equal(attach_to(path, &w), 0);
	region.addr = buf;
	for (i = 0; i < 3; i++) {
		assert_int_equal(weft_ring_open(w, NULL, &ring), 0);
		assert_int_equal(weft_region_reg(w, &region, &number), 0);
	}
	fake_node_fault(node, FAKE_MUTE);
	long_waits = 0;
	hurry = true;
	weft_close(w);
	hurry = false;
	assert_int_equal(long_waits, 1);
	fake_node_stop(node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_queue_full),
		cmocka_unit_test(test_unread),
		cmocka_unit_test(test_close_waits_once),
	};
	int ret;

	if (!mkdtemp(dir))
		return 1;
	ret = cmocka_run_group_tests_name("client_hangs", tests, NULL, NULL);
	rmdir(dir);
	return ret;
}
