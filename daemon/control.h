/* SPDX-License-Identifier: Apache-2.0 */
/* control.h - the thread that owns the sockets: engines attach, peers connect, both hang up */
#ifndef WEFTD_CONTROL_H
#define WEFTD_CONTROL_H

#include "node.h"

struct control;
struct secure;

struct control_peer {
	const char *name;
	const char *addr; /* socket, or host and port */
	bool net; /* it is host and port */
	unsigned rail; /* .net: over which of the node's devices */
};

/* the node is one of a cluster: environment's .membership tells of the others */
struct control_membership {
	const char *host; /* as in struct wfi_member */
	/*
	 * members or values have changed: node_poke() brought the news. Context: control thread.
	 * Return: whether peers are to connect anew, for what they do not know of this node
	 */
	bool (*changed)(void *ctx);
	/* for weft status: an object of the caller's. Context: control thread */
	struct json_t *(*status)(void *ctx);
	void *ctx;
};

/* who else is served by the control thread's loop. Context: control thread */
struct control_guest {
	int fd; /* becomes readable when there is something to do */
	/* in each turn. Return: ms until it must be called again, -1: when .fd says so */
	int (*run)(void *ctx, struct control *c);
	/* the worker is about to stop: nothing is to be asked of it any more */
	void (*stop)(void *ctx);
	void *ctx;
};

struct control_opts {
	struct node *node;
	const char *socket; /* path to listen on; NULL: none, engines come by control_add() */
	/* hosts and ports where nodes of other hosts connect, by the devices that they then use */
	const char *const *listens;
	unsigned nr_listens;
	const struct control_peer *peers; /* nodes to connect to, and to connect to again */
	unsigned nr_peers;
	const struct control_membership *membership; /* NULL: none. Lent */
	struct secure *secure; /* of connections to other hosts; NULL: they are plain. Lent */
	const struct control_guest *guest; /* NULL: there is none. Lent */
	/* SIGTERM, SIGINT and SIGHUP, which every thread blocks, stop the node; SIGHUP has
	 * certificates read anew where there are any */
	bool signals;
	bool certificates; /* are configured, in use or not */
};

/* Return: 0; -EADDRINUSE a node listens there; -EEXIST another file is there; -ENAMETOOLONG; other
 * errors of bind(2): logged */
int control_create(const struct control_opts *opts, struct control **out);
void control_destroy(struct control *c);
/* serves until control_stop(), a signal, or a drain that has come to its end; then hangs up on all
 * and stops the worker. Context: its own thread, while the worker runs */
void control_run(struct control *c);
/* Context: any thread */
void control_stop(struct control *c);
/* after control_run(). Return: whether copies may still be under way: then neither @c nor its node
 * may be destroyed, nor what they use */
bool control_is_stuck(const struct control *c);
/* a connected SOCK_SEQPACKET socket is handed over. Context: any thread */
int control_add(struct control *c, int fd);

/* all of the status, as for the node's own user. Context: control thread. Return: malloc'ed; NULL:
 * no memory */
char *control_status_json(struct control *c);

#endif
