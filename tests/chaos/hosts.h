/* SPDX-License-Identifier: Apache-2.0 */
/**
 * hosts.h - a few hosts on one wire, each of them namespaces of its own
 *
 * A host has a network namespace, joined to the others by a bridge, and a mount namespace, so that
 * nodes in two of them take each other for nodes of two hosts. Files are those of this process.
 * The bridge lies in the network namespace of this process, which hosts_init() makes: all of it is
 * gone when the process ends.
 *
 * What goes from one host to another can be lost: each wire has a BPF program that looks where a
 * packet comes from and throws a die, seeded, for it. Programs and map stay when this process ends
 * no longer than the wires.
 *
 * Context: one thread, that has forked none that live in other network namespaces.
 */
#ifndef CHAOS_HOSTS_H
#define CHAOS_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOSTS_MAX 6u
#define HOST_CUT 100u /* per cent: nothing arrives */

struct host {
	int net, mnt; /* descriptors of its namespaces */
	char addr[16];
};

struct hosts {
	struct host host[HOSTS_MAX];
	unsigned nr;
	const char *no_loss; /* why packets can't be lost here, or NULL */
	int loss_maps[HOSTS_MAX]; /* of the wire to each host */
	unsigned loss[HOSTS_MAX][HOSTS_MAX]; /* [to][from], per cent */
	bool down[HOSTS_MAX];
};

/* Return: 0, or -errno and @why has a sentence for who skips */
int hosts_init(struct hosts *h, unsigned nr, char *why, size_t why_len);
void hosts_fini(struct hosts *h);

/* in a child after fork(): the host becomes its own. Return: 0, -errno */
int host_enter(const struct host *host);

/* of what @from sends to @to, @percent are lost, by a die that @seed loads */
void hosts_lose(struct hosts *h, unsigned from, unsigned to, unsigned percent, uint32_t seed);
/* pulls the plug of a host, or puts it back */
void hosts_unplug(struct hosts *h, unsigned host, bool down);

/* ---- loss.c ---- */

/* a program that loses packets goes to the wire with index @ifindex. Return: its map, -errno */
int loss_attach(int ifindex);
int loss_set(int map, unsigned from, unsigned percent, uint32_t seed);

#endif
