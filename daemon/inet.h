/* SPDX-License-Identifier: Apache-2.0 */
/* inet.h - addresses of nodes on other hosts, as people write them: IP:PORT, [IPv6]:PORT */
#ifndef WEFTD_INET_H
#define WEFTD_INET_H

#include <stdbool.h>
#include <sys/socket.h>

#define INET_TEXT 108 /* bytes of such a text, its zero included */

/* Return: 0, -EINVAL: numbers only, no host names; the port is 1 .. 65535 */
int inet_parse(const char *text, struct sockaddr_storage *out, socklen_t *len);
/* its address alone, as a number. Return: 0, -EINVAL */
int inet_host(const char *text, char host[INET_TEXT]);
/* the address of this host that it would be dialled from. Return: 0, -errno */
int inet_source(const char *text, char host[INET_TEXT]);
/* nobody outside of this host reaches it */
bool inet_loopback(const struct sockaddr_storage *addr);
/* who is connected to @fd, without the port: "?" when nobody is */
void inet_peer(int fd, char out[INET_TEXT]);
/* @key: the setting that says so. Return: fd; -errno: logged */
int inet_listen(const char *text, const char *key);
/* starts to connect and does not wait. Return: fd, -errno */
int inet_dial(const char *text);
/* a connection whose other end is gone is noticed within two seconds; small messages go at once */
void inet_watchful(int fd);
/* the connection was never there, so far */
bool inet_pending(int fd);

#endif
