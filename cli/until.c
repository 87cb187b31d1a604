/* SPDX-License-Identifier: Apache-2.0 */
/* until.c - what goes on until somebody stops it */
#include <errno.h>
#include <signal.h>
#include <time.h>
#include "cli/cli.h"
#include "weft_internal/env.h"

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

void wfi_cli_stop_on(int sig)
{
	const struct sigaction sa = { .sa_handler = on_signal };

	sigaction(sig, &sa, NULL);
}

bool wfi_cli_stopped(void)
{
	return stopped;
}

uint64_t wfi_cli_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * WFI_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

void wfi_cli_sleep_until(uint64_t ns)
{
	const struct timespec ts = {
		.tv_sec = (time_t)(ns / WFI_NSEC_PER_SEC),
		.tv_nsec = (long)(ns % WFI_NSEC_PER_SEC),
	};

	while (!stopped && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}
