/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "perf/peers.h"
#include "perf/perf.h"

#define PROGRAM "/usr/bin/ucx_perftest"
#define PORT_FIRST 13700u
#define PORTS 200u
/* what the provider set for itself (transport/ucx/lib.c): the peer runs as it would by itself */
#define PLAIN                                                                                      \
	"env -u UCX_HANDLE_ERRORS -u UCX_ERROR_SIGNALS -u UCX_MEM_EVENTS -u UCX_LOG_LEVEL "        \
	"-u UCX_WARN_UNUSED_ENV_VARS -u UCX_MM_ERROR_HANDLING -u UCX_TCP_TX_SEG_SIZE "
#define LISTEN_NS (5 * 1000000000ull)
#define COLUMN_LATENCY 3 /* overall, in us, behind the number of iterations */
#define COLUMN_BANDWIDTH 5 /* overall, in MB/s, which are MiB/s there */

const char *wfi_peer_ucx_perftest_skipped(void)
{
	return access(PROGRAM, X_OK) ? "no " PROGRAM " (Debian: ucx-utils)" : NULL;
}

/* Return: whether somebody listens at @port of any address: who asked it by connecting would be
 * taken for its client */
static bool listens(unsigned port)
{
	char line[256], want[16];
	bool found = false;
	unsigned i;
	FILE *f;

	snprintf(want, sizeof(want), ":%04X ", port);
	for (i = 0; i < 2 && !found; i++) {
		f = fopen(i ? "/proc/net/tcp6" : "/proc/net/tcp", "r");
		while (f && !found && fgets(line, sizeof(line), f))
			found = strstr(line, want) && strstr(line, " 0A ");
		if (f)
			fclose(f);
	}
	return found;
}

static pid_t server_start(const struct wfi_peer_ucx_perftest *t, unsigned port)
{
	uint64_t limit_ns = wfi_perf_now_ns() + LISTEN_NS;
	char command[320];
	pid_t pid;

	snprintf(command, sizeof(command),
		 "exec " PLAIN "UCX_TLS=%s " PROGRAM " -c %u -p %u >/dev/null 2>&1", t->tls,
		 WFI_PERF_NODE_CPU, port);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	while (pid > 0 && !listens(port) && wfi_perf_now_ns() < limit_ns)
		wfi_perf_sleep_ns(1000000);
	return pid;
}

/* the last line but for blanks has the figures. Return: 0, -EIO */
static int figure(FILE *f, const struct wfi_peer_ucx_perftest *t, double *out)
{
	const int column = t->latency ? COLUMN_LATENCY : COLUMN_BANDWIDTH;
	char line[256], *at, *end;
	double value = -1;
	int i;

	while (fgets(line, sizeof(line), f)) {
		strtoul(line, &end, 10);
		for (i = 0, at = end; i < column; i++, at = end) {
			*out = strtod(at, &end);
			if (end == at)
				break;
		}
		if (i == column)
			value = *out;
	}
	*out = value;
	return value > 0 ? 0 : -EIO;
}

int wfi_peer_ucx_perftest_round(void *ctx, double *out)
{
	const struct wfi_peer_ucx_perftest *t = ctx;
	static unsigned nr;
	unsigned port = PORT_FIRST + nr++ % PORTS;
	pid_t pid = server_start(t, port);
	char command[384];
	FILE *f;
	int ret;

	if (pid < 0)
		return -errno;
	snprintf(command, sizeof(command),
		 PLAIN "UCX_TLS=%s %s -c %u -p %u -t %s -s %u -n %u -w %u -O %u -f 127.0.0.1 2>&1",
		 t->tls, PROGRAM, WFI_PERF_ENGINE_CPU, port, t->test, t->bytes, t->iters,
		 t->iters / WFI_PEER_UCX_WARMUP + 1, t->window);
	f = popen(command, "r");
	ret = f ? figure(f, t, out) : -errno;
	if (f)
		pclose(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return ret ? wfi_perf_fail(ret, "no figure from: %s", command) : 0;
}
