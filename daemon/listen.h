/* SPDX-License-Identifier: Apache-2.0 */
/* listen.h - unix sockets by path */
#ifndef WEFTD_LISTEN_H
#define WEFTD_LISTEN_H

#include <sys/un.h>

/* Return: a new SOCK_SEQPACKET socket, which never waits, and @path in @addr; -ENAMETOOLONG, other
 * -errno */
int unix_socket(const char *path, struct sockaddr_un *addr);

/**
 * unix_listen - listen on @path, for the node's user and group
 *
 * A socket that nobody listens on is replaced; anything else that lies there is left alone.
 *
 * Return: fd; -EADDRINUSE a node listens there; -EEXIST another file is there; -ENAMETOOLONG; other
 * -errno. Logged
 */
int unix_listen(const char *path);

#endif
