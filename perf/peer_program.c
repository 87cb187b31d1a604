/* SPDX-License-Identifier: Apache-2.0 */
/* peer_program.c - a peer that is a program of its own: perf/compare/side.py has the protocol */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "perf/peers.h"
#include "perf/perf.h"

#define LIMIT_S 120 /* the first answer waits for a library's start */

struct wfi_peer_program {
	pid_t pid;
	FILE *talk;
};

int wfi_peer_program_open(const char *command, struct wfi_peer_program **out)
{
	struct wfi_peer_program *g = calloc(1, sizeof(*g));
	const struct timeval limit = { .tv_sec = LIMIT_S };
	int socks[2], ret;

	if (!g)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks)) {
		free(g);
		return -errno;
	}
	g->pid = fork();
	if (!g->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(socks[1], 0);
		dup2(socks[1], 1);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	ret = -errno;
	close(socks[1]);
	setsockopt(socks[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	g->talk = g->pid < 0 ? NULL : fdopen(socks[0], "r+");
	if (!g->talk) {
		close(socks[0]);
		free(g);
		return ret;
	}
	*out = g;
	return 0;
}

void wfi_peer_program_close(struct wfi_peer_program *g)
{
	if (!g)
		return;
	fclose(g->talk);
	waitpid(g->pid, NULL, 0);
	free(g);
}

int wfi_peer_program_ask(struct wfi_peer_program *g, const char *name, unsigned ops, double *us)
{
	char line[512], *end;

	fprintf(g->talk, "%s %u\n", name, ops);
	fflush(g->talk);
	if (!fgets(line, sizeof(line), g->talk))
		return wfi_perf_fail(-ECONNRESET, "the peer's program does not answer");
	line[strcspn(line, "\n")] = 0;
	*us = strtod(line, &end);
	if (end == line || *end || *us <= 0)
		return wfi_perf_fail(-EPROTO, "the peer's program says: %s", line);
	return 0;
}
