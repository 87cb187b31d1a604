/* SPDX-License-Identifier: Apache-2.0 */
/* control_private.h - connections: what control.c and control_peer.c share */
#ifndef WEFTD_CONTROL_PRIVATE_H
#define WEFTD_CONTROL_PRIVATE_H

#include <sys/un.h>

#include "control.h"

#define REDIAL_MS 250

enum conn_kind {
	CONN_NEW, /* nothing said yet */
	CONN_ENGINE,
	CONN_DEAD_ENGINE, /* hung up, but its process lives and maps the arena */
	CONN_PEER_WAIT, /* the hello of the other side has not come, or not whole */
	CONN_PEER,
};

struct conn {
	struct conn *next;
	enum conn_kind kind;
	int fd; /* CONN_DEAD_ENGINE: -1 */
	pid_t pid; /* 0: of another host */
	uid_t uid;
	int pidfd; /* -1 once it is the session's */
	int watch; /* CONN_ENGINE: its process, which may end before its last copy of the socket */
	bool bye;
	bool closing;
	bool net; /* TCP: no fds travel, messages come in parts */
	unsigned rail; /* .net: the device */
	uint32_t owner_id;
	uint32_t dereg; /* region whose last operations are awaited, 0: none */
	struct session *session;
	struct node_peer *peer;
	unsigned dial; /* index of the configured peer + 1 */
	uint64_t since_ns; /* CONN_PEER_WAIT: when it began */
	struct peer_hello *hello; /* .net: what has come of it */
	size_t hello_len;
};

struct control {
	struct node *node;
	struct wfi_env *env;
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct control_peer *peers;
	bool *dialled; /* a connection to that peer exists */
	unsigned nr_peers;
	int epfd, listen_fd, stop_fd, signal_fd, inbox[2];
	int net_fds[NODE_NETS_MAX]; /* by rail */
	unsigned nr_net_fds;
	int spare_fd; /* given up for a moment when descriptors run out */
	struct conn *conns;
	unsigned nr_conns, nr_engines;
	bool stopping, had_engine;
	uint64_t redial_ns;
	uint64_t revive_ns;
	bool net_closed[NODE_NETS_MAX]; /* its device failed, and its next life is not open yet */
};

/* ---- control.c ---- */

/* takes @fd. Return: NULL: no room, and @fd is closed */
struct conn *conn_add(struct control *c, int fd);
/* the node's own user, or root: who may see all tenants, stop the node, and share its memory as
 * another node */
bool conn_is_keeper(const struct conn *k);

/* news of @link's device wake the worker. Context: no worker has it yet */
int link_watch(struct control *c, struct node_link *link);

/* ---- control_peer.c: connections to other nodes ---- */

/* devices that failed are closed, and opened anew once they are there */
void nets_revive(struct control *c);

/* a node of this host dialled: its request came, its hello follows; ours answers. Return: 0, why
 * it is to be closed */
int peer_accept(struct control *c, struct conn *k);
/* a node of another host dialled: takes @fd */
void peer_accept_net(struct control *c, int fd, unsigned rail);
/* something can be read of a CONN_PEER_WAIT. Return: 0, why it is to be closed */
int peer_hear_hello(struct control *c, struct conn *k);
/* dials those that there is no connection to, now and then */
void peers_redial(struct control *c);
/* Return: the hello takes too long */
bool peer_overdue(const struct control *c, const struct conn *k);

#endif
