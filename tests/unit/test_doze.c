/* SPDX-License-Identifier: Apache-2.0 */
/* test_doze.c - one thread waits for futexes and files together, and for none of an earlier wait */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/doze.h"
#include "weft_internal/env.h"

#define LONG_NS (20 * WFI_NSEC_PER_SEC)
#define SHORT_NS WFI_NSEC_PER_MSEC

static struct wfi_env env;
static struct doze *doze;
static _Atomic uint32_t bell;

static long futex_wake(int nr)
{
	return syscall(SYS_futex, &bell, FUTEX_WAKE_PRIVATE, nr, NULL, NULL, 0);
}

static int wait_bell(uint32_t val, const int *fds, unsigned nr_fds, uint64_t ns)
{
	const struct futex_waitv v = { .val = val,
				       .uaddr = (uintptr_t)&bell,
				       .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG };

	return doze_wait(doze, &v, 1, fds, nr_fds, ns);
}

static void *ring_main(void *arg)
{
	(void)arg;
	/* one that waits, whenever it begins to */
	while (!futex_wake(1))
		sched_yield();
	return NULL;
}

static void *write_main(void *arg)
{
	const uint64_t one = 1;

	assert_int_equal(write(*(int *)arg, &one, sizeof(one)), sizeof(one));
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	if (wfi_env_real_init(&env))
		return -1;
	doze = doze_open(&env);
	if (doze)
		return 0;
	print_message("no io_uring with futexes here (Linux 6.7), or built without liburing\n");
	exit(77);
}

static int teardown(void **state)
{
	(void)state;
	doze_close(doze);
	return 0;
}

static uint64_t took_ns(uint64_t since_ns)
{
	return wfi_now(&env) - since_ns;
}

static void test_time(void **state)
{
	const uint64_t start_ns = wfi_now(&env);

	(void)state;
	assert_int_equal(wait_bell(atomic_load(&bell), NULL, 0, SHORT_NS), 0);
	assert_true(took_ns(start_ns) >= SHORT_NS);
}

static void test_changed(void **state)
{
	const uint64_t start_ns = wfi_now(&env);

	(void)state;
	assert_int_equal(wait_bell(atomic_load(&bell) + 1, NULL, 0, LONG_NS), 0);
	assert_true(took_ns(start_ns) < LONG_NS);
}

/* waits that files ended leave none behind that takes the wake of the next */
static void test_bell_after_files(void **state)
{
	const int fd = eventfd(1, EFD_NONBLOCK);
	uint64_t start_ns = wfi_now(&env), n;
	pthread_t thread;
	unsigned i;

	(void)state;
	for (i = 0; i < 100; i++)
		assert_int_equal(wait_bell(atomic_load(&bell), &fd, 1, LONG_NS), 0);
	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	assert_int_equal(wait_bell(atomic_load(&bell), &fd, 1, SHORT_NS), 0);
	assert_int_equal(pthread_create(&thread, NULL, ring_main, NULL), 0);
	assert_int_equal(wait_bell(atomic_load(&bell), &fd, 1, LONG_NS), 0);
	pthread_join(thread, NULL);
	assert_true(took_ns(start_ns) < LONG_NS);
	close(fd);
}

static void test_file(void **state)
{
	int fds[2] = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) };
	const uint64_t start_ns = wfi_now(&env);
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, write_main, &fds[1]), 0);
	assert_int_equal(wait_bell(atomic_load(&bell), fds, 2, LONG_NS), 0);
	pthread_join(thread, NULL);
	assert_true(took_ns(start_ns) < LONG_NS);
	close(fds[0]);
	close(fds[1]);
}

/* nor does a wait that is over keep a file open */
static void test_leave(void **state)
{
	int ends[2];
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	assert_int_equal(wait_bell(atomic_load(&bell), ends, 1, SHORT_NS), 0);
	close(ends[0]);
	doze_leave(doze);
	assert_int_equal(recv(ends[1], &c, 1, 0), 0);
	close(ends[1]);
}

static void test_too_many(void **state)
{
	static const int fds[DOZE_FDS_MAX + 1];

	(void)state;
	assert_int_equal(wait_bell(0, fds, DOZE_FDS_MAX + 1, LONG_NS), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_bell_after_files),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_leave),
		cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
