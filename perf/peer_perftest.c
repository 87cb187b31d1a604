/* SPDX-License-Identifier: Apache-2.0 */
/* peer_perftest.c - ib_write_bw and its kin: a server at the agent, a client here, its figure */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "perf/verbs_rig.h"

#define PORT_FIRST 18515u
#define LIMIT "30" /* seconds of one run */
#define TRIES 4u

const char *wfi_vrig_perftest_why(const char *program)
{
	static char path[64];

	snprintf(path, sizeof(path), "/usr/bin/%s", program);
	return access(path, X_OK) ? "no perftest on this machine (scripts/deps vm)" : NULL;
}

/* the last line that starts with the size holds the figures */
static int figure(FILE *f, const struct wfi_vrig_perftest *t, double *out)
{
	char line[256], *at, *end;
	double value = -1;
	unsigned i;

	while (fgets(line, sizeof(line), f)) {
		if (strtoul(line, &end, 10) != t->bytes || end == line)
			continue;
		for (i = 0, at = end; i < t->column; i++, at = end)
			value = strtod(at, &end);
		if (at == end && value <= 0)
			value = -1;
	}
	*out = value;
	return value > 0 ? 0 : -EIO;
}

static int run_once(const struct wfi_vrig_perftest *t, double *out)
{
	static unsigned port = PORT_FIRST;
	struct wfi_vrig_order order = { .op = WFI_VRIG_SPAWN, .port = port };
	char client[320], ready;
	FILE *f;
	int sock, ret;

	snprintf(order.text, sizeof(order.text), "exec %s -F -d %s -x %u -s %u -n %u -p %u",
		 t->program, t->place->device, t->place->gid, t->bytes, t->iters, port);
	snprintf(client, sizeof(client), "exec timeout -s KILL " LIMIT " %s %s 2>&1",
		 order.text + strlen("exec "), t->place->addr);
	port++; /* the last one may linger */
	sock = wfi_vrig_dial(t->place, &order);
	if (sock < 0)
		return sock;
	ret = wfi_end_hear(sock, &ready, 1);
	f = ret ? NULL : popen(client, "r");
	if (f) {
		ret = figure(f, t, out);
		pclose(f);
	}
	close(sock);
	return ret;
}

/* ib_write_lat by itself may come to no end over Soft-RoCE on two processors of a busy host: both
 * its sides run on, and no figure comes */
int wfi_vrig_perftest_round(void *ctx, double *out)
{
	const struct wfi_vrig_perftest *t = ctx;
	int ret = -EIO;
	unsigned i;

	for (i = 0; i < TRIES && ret; i++)
		ret = run_once(t, out);
	return ret ? wfi_perf_fail(ret, "%s ended %u times without a figure", t->program, TRIES)
		   : 0;
}
