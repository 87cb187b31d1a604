/* SPDX-License-Identifier: Apache-2.0 */
/* log: levels, names, lines that stay one line, rate limits, threads */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "weft_internal/log.h"

#define NR_THREADS 4
#define NSEC_PER_SEC 1000000000ull

struct heard {
	unsigned nr;
	enum wfi_log_level level;
	char first[1200];
	char last[1200];
};

static void hear(void *ctx, enum wfi_log_level level, const char *line)
{
	struct heard *heard = ctx;

	if (!heard->nr++)
		snprintf(heard->first, sizeof(heard->first), "%s", line);
	heard->level = level;
	snprintf(heard->last, sizeof(heard->last), "%s", line);
}

static int setup(void **ctx)
{
	static struct heard heard;

	heard = (struct heard){ 0 };
	wfi_log_init(WFI_LOG_INFO, "test[a]");
	wfi_log_set_sink(hear, &heard);
	*ctx = &heard;
	return 0;
}

static int teardown(void **ctx)
{
	(void)ctx;
	wfi_log_set_sink(NULL, NULL);
	return 0;
}

static void test_line(void **ctx)
{
	struct heard *heard = *ctx;

	wfi_warn("%s is %d", "answer", 42);
	assert_int_equal(heard->nr, 1);
	assert_int_equal(heard->level, WFI_LOG_WARN);
	assert_string_equal(heard->last, "test[a]: answer is 42");
}

static void test_level(void **ctx)
{
	struct heard *heard = *ctx;

	wfi_debug("nobody asked");
	assert_int_equal(heard->nr, 0);
	wfi_log_init(WFI_LOG_DEBUG, "test[a]");
	wfi_debug("somebody asked");
	assert_int_equal(heard->nr, 1);
}

static void test_stays_one_line(void **ctx)
{
	struct heard *heard = *ctx;
	char huge[5000];

	wfi_err("name '%s'", "a\nweftd: all is well\033[2J\x7f");
	assert_string_equal(heard->last, "test[a]: name 'a?weftd: all is well?[2J?'");
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = 0;
	wfi_err("%s", huge);
	assert_int_equal(strlen(heard->last), strlen("test[a]: ") + 1023);
}

static void test_keeps_errno(void **ctx)
{
	struct heard *heard = *ctx;

	errno = ENOSPC;
	wfi_err("%m");
	assert_int_equal(errno, ENOSPC);
	assert_non_null(strstr(heard->last, strerror(ENOSPC)));
}

static void test_once(void **ctx)
{
	struct heard *heard = *ctx;
	unsigned idx;

	for (idx = 0; idx < 3; idx++)
		wfi_warn_once("small pages");
	assert_int_equal(heard->nr, 1);
}

static void test_rate(void **ctx)
{
	struct heard *heard = *ctx;
	struct wfi_log_site site = { 0 };
	unsigned idx;

	for (idx = 0; idx < 1000; idx++)
		wfi_log_write(&site, WFI_LOG_INFO, "line %u", idx);
	assert_int_equal(heard->nr, WFI_LOG_BURST);
	assert_string_equal(heard->last, "test[a]: line 19");

	/* as if a second had passed */
	site.window_ns -= NSEC_PER_SEC;
	*heard = (struct heard){ 0 };
	wfi_log_write(&site, WFI_LOG_INFO, "line %u", idx);
	assert_int_equal(heard->nr, 2);
	assert_string_equal(heard->first, "test[a]: 980 more of the next line were not logged");
	assert_string_equal(heard->last, "test[a]: line 1000");

	site.window_ns -= NSEC_PER_SEC;
	*heard = (struct heard){ 0 };
	wfi_log_write(&site, WFI_LOG_INFO, "calm");
	assert_int_equal(heard->nr, 1);
}

static void *talk(void *arg)
{
	unsigned idx;

	for (idx = 0; idx < 100; idx++)
		wfi_log_write(arg, WFI_LOG_INFO, "line %u", idx);
	return NULL;
}

static void test_threads(void **ctx)
{
	struct heard *heard = *ctx;
	struct wfi_log_site site = { 0 };
	pthread_t threads[NR_THREADS];
	unsigned idx;

	for (idx = 0; idx < NR_THREADS; idx++)
		assert_int_equal(pthread_create(&threads[idx], NULL, talk, &site), 0);
	for (idx = 0; idx < NR_THREADS; idx++)
		pthread_join(threads[idx], NULL);
	/* each line was written, or held back and later owned up to, or is still counted */
	assert_in_range(heard->nr, WFI_LOG_BURST, NR_THREADS * 100);
	assert_in_range(site.count, 1, WFI_LOG_BURST);
}

/* stderr is replaced by a pipe for one line */
static void line_of_stderr(char *line, size_t room)
{
	int fds[2], saved;
	ssize_t len;

	assert_int_equal(pipe(fds), 0);
	saved = dup(STDERR_FILENO);
	assert_true(saved >= 0);
	wfi_log_set_sink(NULL, NULL);
	dup2(fds[1], STDERR_FILENO);
	wfi_err("disk on fire");
	dup2(saved, STDERR_FILENO);
	len = read(fds[0], line, room - 1);
	close(fds[0]);
	close(fds[1]);
	close(saved);
	assert_true(len > 0);
	line[len] = 0;
}

static void test_stderr(void **ctx)
{
	char line[128];

	(void)ctx;
	line_of_stderr(line, sizeof(line));
	assert_string_equal(line, "test[a]: error: disk on fire\n");
}

/* nothing takes the times away again: the last test */
static void test_times(void **ctx)
{
	unsigned year, month, day, hour, min, sec, ms;
	char line[128];
	int len = 0;

	(void)ctx;
	wfi_log_times();
	line_of_stderr(line, sizeof(line));
	assert_int_equal(sscanf(line, "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %n", &year, &month, &day, &hour,
				&min, &sec, &ms, &len),
			 7);
	assert_int_equal(len, strlen("2026-11-30T15:52:41.123Z "));
	assert_in_range(year, 1970, 9999);
	assert_string_equal(line + len, "test[a]: error: disk on fire\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_level, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stays_one_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeps_errno, setup, teardown),
		cmocka_unit_test_setup_teardown(test_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stderr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_times, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
