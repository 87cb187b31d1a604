/* SPDX-License-Identifier: Apache-2.0 */
/* control_private.h - connections: what control.c and control_peer.c share */
#ifndef WEFTD_CONTROL_PRIVATE_H
#define WEFTD_CONTROL_PRIVATE_H

#include <sys/un.h>

#include "control.h"
#include "inet.h"
#include "stream.h"

#define REDIAL_MS 250

enum conn_kind {
	CONN_NEW, /* nothing said yet */
	CONN_ENGINE,
	CONN_DEAD_ENGINE, /* hung up, but its process lives and maps the arena */
	CONN_PEER_WAIT, /* proofs, hello and endpoint of the other side have not all come */
	CONN_PEER,
	CONN_REFUSED, /* it was told why, and is to hang up */
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
	struct stream *stream; /* TCP: no fds travel, messages come in parts; NULL: of this host */
	unsigned rail; /* .stream: the device */
	uint32_t owner_id;
	uint32_t dereg; /* region whose last operations are awaited, 0: none */
	uint32_t removes; /* space that is being removed, 0: none */
	uint32_t closes; /* ring whose last operations are awaited, counted from 1; 0: none */
	struct session *session;
	struct node_peer *peer;
	unsigned dial; /* index of the configured peer + 1 */
	uint64_t since_ns; /* CONN_NEW, CONN_PEER_WAIT, CONN_REFUSED: when it began */
	bool greeted; /* our hello is on its way */
	bool more; /* it was stopped in the middle, so that others have their turns */
	uint32_t events; /* .stream: that are waited for */
	struct wire_hello who; /* .name "": the other side's has not come */
};

/* a configured peer, and what became of calling it */
struct dial {
	bool open; /* a connection exists */
	unsigned failed; /* times in a row */
	uint64_t next_ns; /* not called before */
	uint64_t said_ns; /* when the log had .why */
	char why[SECURE_WHY]; /* of the last failure; "": none since it was connected */
};

/* who came and was sent away: shown by weft status, for those who look on this side */
#define REFUSED_MAX 16u
struct refused {
	char from[INET_TEXT];
	char why[SECURE_WHY];
	uint64_t times, last_ns, said_ns;
};

struct control {
	struct node *node;
	struct wfi_env *env;
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct control_peer *peers; /* .addr NULL: a free place */
	struct dial *dials; /* of .peers */
	unsigned nr_peers, peers_room;
	struct control_members *members; /* NULL: none */
	int epfd, listen_fd, stop_fd, signal_fd, inbox[2];
	int net_fds[NODE_NETS_MAX]; /* by rail */
	unsigned nr_net_fds;
	int spare_fd; /* given up for a moment when descriptors run out */
	struct conn *conns;
	unsigned nr_conns, nr_engines;
	bool stopping, had_engine, stuck;
	bool certificates; /* are configured; .secure NULL: and nothing uses them */
	uint64_t redial_ns;
	uint64_t revive_ns;
	bool net_closed[NODE_NETS_MAX]; /* its device failed, and its next life is not open yet */
	struct secure *secure; /* of TCP connections; NULL: they are plain */
	const struct control_guest *guest; /* or NULL */
	char listens[NODE_NETS_MAX][INET_TEXT];
	struct refused refused[REFUSED_MAX];
	uint64_t refresh_ns;
};

/* ---- control.c ---- */

/* takes @fd. Return: NULL: no room, and @fd is closed */
struct conn *conn_add(struct control *c, int fd);
/* one more is about to come, of other hosts when @net: the oldest of those who have not said who
 * they are makes room when they are too many */
void strangers_bound(struct control *c, bool net);
/* the node's own user, or root: who may see all tenants, stop the node, and share its memory as
 * another node */
bool conn_is_keeper(const struct conn *k);

/* the end of its process is seen, too */
void process_watch(struct control *c, struct conn *k);

/* ---- control_engine.c: what engines ask ---- */

#define ENGINE_POLL_MS 1 /* while an answer waits for the worker */

/* one request of an engine, or the first of a peer of this host. Return: 0, why it is to be
 * closed */
int engine_hear(struct control *c, struct conn *k);
/* an answer waits for the worker */
static inline bool engine_waits(const struct conn *k)
{
	return k->dereg || k->removes || k->closes;
}
/* what it waits for has come to its end, perhaps */
void engine_poll(struct control *c, struct conn *k);

/* ---- control_peer.c: what nodes say to each other ---- */

/* a node of this host dialled: its request came, its hello follows; ours answers. Return: 0, why
 * it is to be closed */
int peer_accept(struct control *c, struct conn *k);
/* our hello goes out. Return: 0, -errno */
int peer_greet(struct control *c, struct conn *k);
/* a message that wire.h lets pass. Return: 0, why it is to be closed */
int peer_message(struct control *c, struct conn *k, const struct stream_msg *msg);
/* something can be read of a peer of this host. Return: 0, why it is to be closed */
int peer_hear(struct control *c, struct conn *k);
/* a node of this host is dialled */
void peer_dial_host(struct control *c, unsigned idx);
/* all who are connected hear that this node drains */
void peers_tell_state(struct control *c);
/* it hears why, and hangs up; this side does, when that takes long. Return: 0, -errno */
int peer_refuse(struct control *c, struct conn *k, const char *why);
/* why @k comes to nothing, a sentence about the other side: logged, now and then, and shown */
void peer_note(struct control *c, struct conn *k, const char *why);
/* peers that are not connected, for node_status_json() */
struct json_t *peer_dials_json(const struct control *c);

/* ---- control_member.c: whom to call, and who may call ---- */

/* configured peers, and room for members; this node tells the membership of itself. Return: 0,
 * -ENOMEM */
int peers_init(struct control *c, const struct control_opts *opts);
void peers_fini(struct control *c);
/* the membership is to know that this node drains */
void members_drain(struct control *c);
/* what has changed among the members */
void members_poll(struct control *c);
/* Return: 0; -EACCES: it is no peer, and @ours, @theirs say why, as in peer_note() and
 * peer_refuse() */
int member_check(const struct control *c, const struct wire_hello *who, char ours[SECURE_WHY],
		 char theirs[SECURE_WHY]);
/* for net_json(); NULL: there is no membership */
struct json_t *members_json(const struct control *c);

/* ---- control_net.c: TCP connections of nodes on other hosts ---- */

int nets_listen(struct control *c, const struct control_opts *opts);
/* somebody has dialled at @listen_fd: takes @fd */
void net_accept(struct control *c, int fd, int listen_fd);
void net_event(struct control *c, struct conn *k, uint32_t events);
/* message goes to @k. Return: 0, -errno */
int net_send(struct control *c, struct conn *k, enum wire_kind type, const void *body, size_t len);
/* now and then: calls those that there is no connection to, opens anew devices that failed, looks
 * for new certificates */
void nets_poll(struct control *c);
/* SIGHUP. Return: false: there is nothing to be read anew */
bool nets_reload(struct control *c);
/* for node_status_json(); NULL: there is none */
struct json_t *net_json(const struct control *c);

#endif
