/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "perf/perf.h"
#include "weft_internal/util.h"

#define TIMED_MAX 2000u
#define TIMED_ROUND_NS 40000000ull /* about what a round of short ones takes */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

uint64_t wfi_perf_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t wfi_perf_busy_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int by_time(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

uint32_t wfi_perf_p999(uint32_t *times, uint32_t nr)
{
	qsort(times, nr, sizeof(*times), by_time);
	return times[nr - 1 - nr / 1000];
}

void wfi_perf_sleep_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000ull), (long)(ns % 1000000000ull) };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR)
		;
}

int wfi_perf_fail(int ret, const char *fmt, ...)
{
	va_list ap;

	fputs("weft-perf: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return ret;
}

static cpu_set_t only(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return set;
}

int wfi_perf_pin(unsigned cpu)
{
	cpu_set_t set = only(cpu);

	if (sched_setaffinity(0, sizeof(set), &set))
		return wfi_perf_fail(-errno,
				     "can't run on CPU %u: %s (the benchmarks need CPUs %u and %u)",
				     cpu, strerror(errno), WFI_PERF_ENGINE_CPU, WFI_PERF_NODE_CPU);
	return 0;
}

int wfi_perf_unpin(void)
{
	cpu_set_t set = only(WFI_PERF_ENGINE_CPU);

	CPU_SET(WFI_PERF_NODE_CPU, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return wfi_perf_fail(-errno, "can't run on two CPUs: %s", strerror(errno));
	return 0;
}

int wfi_perf_timed_us(void *ctx, double *us)
{
	static uint32_t times[TIMED_MAX];
	const struct wfi_perf_timed *t = ctx;
	uint64_t sum_ns = 0, start_ns;
	unsigned nr = 0;
	int ret = 0;

	while (!ret && nr < TIMED_MAX && (nr < t->ops || sum_ns < TIMED_ROUND_NS)) {
		ret = t->prepare ? t->prepare(t->ctx) : 0;
		start_ns = wfi_perf_now_ns();
		if (!ret)
			ret = t->op(t->ctx);
		times[nr] = (uint32_t)wfi_min(wfi_perf_now_ns() - start_ns, UINT32_MAX);
		sum_ns += times[nr++];
	}
	qsort(times, nr, sizeof(*times), by_time);
	*us = (double)times[nr / 2] / 1000;
	return ret;
}

bool wfi_perf_wanted(const char *name)
{
	const char *only = getenv("WEFT_PERF_CASE");

	return !only || !strncmp(name, only, strlen(only));
}

uint64_t wfi_perf_rand(uint64_t n)
{
	uint64_t v = (n + 1) * 0x9e3779b97f4a7c15;

	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9;
	v = (v ^ (v >> 27)) * 0x94d049bb133111eb;
	return v ^ (v >> 31);
}

void wfi_perf_shuffle(uint32_t *out, uint32_t nr)
{
	uint32_t i, at, other;

	for (i = 0; i < nr; i++)
		out[i] = i;
	for (i = nr; i > 1; i--) {
		at = (uint32_t)(wfi_perf_rand(i) % i);
		other = out[at];
		out[at] = out[i - 1];
		out[i - 1] = other;
	}
}

int wfi_perf_partner(pthread_t *out, void *(*fn)(void *), void *arg)
{
	cpu_set_t set = only(WFI_PERF_NODE_CPU);
	pthread_attr_t attr;
	int ret;

	pthread_attr_init(&attr);
	ret = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	if (!ret)
		ret = pthread_create(out, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	if (ret)
		return wfi_perf_fail(-ret, "no thread on CPU %u: %s", WFI_PERF_NODE_CPU,
				     strerror(ret));
	return 0;
}
