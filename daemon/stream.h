/* SPDX-License-Identifier: Apache-2.0 */
/**
 * stream.h - messages (wire.h) on a TCP connection, secured or plain, that never waits
 *
 * The owner polls the socket: for bytes always, for room when stream_wants_write() says so; then
 * stream_ready() until it is, then stream_next() until it says -EAGAIN, then stream_flush().
 *
 * Context: one thread.
 */
#ifndef WEFTD_STREAM_H
#define WEFTD_STREAM_H

#include <stdbool.h>

#include "secure.h"
#include "wire.h"

#define STREAM_OUT_MAX 65536u /* bytes that may wait for a peer that reads nothing */

struct stream {
	struct wfi_env *env;
	int fd; /* lent */
	bool dialled;
	bool connected, looked, ready;
	struct secure *secure; /* NULL: plain */
	struct secure_session *session;
	struct wire_in in;
	bool whole; /* .in holds what was handed out */
	char *out; /* NULL: nothing waits */
	size_t out_len, out_off;
	char why[SECURE_WHY]; /* why it is over: a sentence about the other side */
};

struct stream_msg {
	enum wire_kind type;
	const void *body; /* checked; lent until the next call */
	size_t len;
	const int *fds; /* beside one from a node of this host: the receiver's, lent to handlers */
	unsigned nr_fds;
};

/* @fd: not blocking, lent until stream_fini(); @secure: NULL: plain. Return: 0, -ENOMEM */
int stream_init(struct stream *s, struct wfi_env *env, int fd, bool dialled, struct secure *secure);
/* takes one that is zeroed */
void stream_fini(struct stream *s);
/* Return: 0 messages may go; -EAGAIN not yet; other -errno: over, see .why */
int stream_ready(struct stream *s);
/* Return: 1 and a message; -EAGAIN; other -errno: over, see .why */
int stream_next(struct stream *s, struct stream_msg *msg);
/* the message is on its way, or waits. Return: 0; -ENOBUFS too much waits, -ENOMEM, other -errno */
int stream_send(struct stream *s, enum wire_kind type, const void *body, size_t len);
/* Return: 0 nothing waits, or what does goes later; other -errno: over */
int stream_flush(struct stream *s);
bool stream_wants_write(const struct stream *s);
/* whom the other side has proved to be; NULL: nothing was proved */
const char *stream_proved(const struct stream *s);

#endif
