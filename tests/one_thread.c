/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loaded before the C library by tests of the suite one-thread (LD_PRELOAD), which ThreadSanitizer
 * does not run: the first thread that one begins, or a library of its, fails it
 */
#include <pthread.h>
#include <unistd.h>

__attribute__((visibility("default"))) int
pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	static const char why[] =
		"a thread begins in a test of the suite one-thread: leave it out of "
		"that suite, so that ThreadSanitizer runs it\n";

	(void)thread;
	(void)attr;
	(void)run;
	(void)arg;
	(void)!write(STDERR_FILENO, why, sizeof(why) - 1);
	_exit(1);
}
