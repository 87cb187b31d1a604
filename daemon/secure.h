/* SPDX-License-Identifier: Apache-2.0 */
/**
 * secure.h - what keeps connections to nodes of other hosts from everybody else
 *
 * One const table per kind; so far TLS 1.3 (tls.h). Engines' libraries have the node without it:
 * who wires a node hands it in, or hands in nothing and the connections are plain.
 *
 * Context: the thread that owns the sockets.
 */
#ifndef WEFTD_SECURE_H
#define WEFTD_SECURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SECURE_WHY 248
#define SECURE_ID_MAX 256

/* what is said of a peer that has no certificates */
#define SECURE_PLAIN                                                                               \
	"speaks plain text to this node, which has certificates: set tls_cert, tls_key and "       \
	"tls_ca there, too"

struct secure_session;

/* what weft status shows */
struct secure_info {
	const char *kind; /* "tls" */
	char id[SECURE_ID_MAX]; /* whom our certificate names */
	int64_t from_s, expires_s; /* seconds since 1970 */
	bool soon; /* it expires in less than a fifth of its life, and less than 30 days */
	uint64_t loads; /* how often files were taken into use */
	char why[SECURE_WHY]; /* why newer files are not in use, or "" */
};

struct secure {
	const struct secure_ops *ops;
};

/* bytes go in order and whole, or the session is over. None of these waits */
struct secure_ops {
	/* @fd: connected, not blocking, lent until end(). Return: 0, -ENOMEM */
	int (*start)(struct secure *s, int fd, bool dialled, struct secure_session **out);
	/* says goodbye if that needs no waiting. Takes NULL */
	void (*end)(struct secure_session *ss);
	/*
	 * proves both sides to each other; again and again until it is done.
	 * Return: 0 done; -EAGAIN when the socket is ready, see wants_write(); -EACCES, -EPROTO,
	 * -ECONNRESET: why() says more
	 */
	int (*shake)(struct secure_session *ss);
	/* after shake(). Return: bytes, at least 1; -EAGAIN; other -errno: over, and why() */
	ssize_t (*read)(struct secure_session *ss, void *buf, size_t len);
	/* Return: bytes, perhaps not all; -EAGAIN: again with the same bytes; other -errno */
	ssize_t (*write)(struct secure_session *ss, const void *buf, size_t len);
	/* the last -EAGAIN waits for room in the socket, not for bytes */
	bool (*wants_write)(const struct secure_session *ss);
	/* the node that the other side has proved to be; NULL: it has proved nothing. Lent until
	 * end(). Who is not let in is known, too: shake() has said -EACCES, and messages may go */
	const char *(*node)(const struct secure_session *ss);
	/* one sentence, without a subject: the other side is; lent until end() */
	const char *(*why)(const struct secure_session *ss);
	/*
	 * now and then: looks whether certificates have changed, @now: reads them in any case. New
	 * sessions use them. Errors are logged, and leave what is in use. Return: true new ones are
	 */
	bool (*refresh)(struct secure *s, bool now);
	void (*info)(const struct secure *s, struct secure_info *out);
};

#endif
