/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tls_client.h - a peer made of sockets and libssl alone, which keeps to no rule but its test's
 */
#ifndef TEST_TLS_CLIENT_H
#define TEST_TLS_CLIENT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include "daemon/wire.h"

#define CLIENT_WAIT_S 20 /* for an answer */

struct client {
	int fd;
	SSL_CTX *ctx;
	SSL *ssl;
};

struct client_opts {
	const char *dir; /* of the PEM files */
	const char *name; /* whose certificate it shows, and key it has; NULL: none */
	int max_version; /* 0: all */
};

/* a TCP connection; fails the test when there is none */
int client_dial(unsigned port);
/* Return: whether the handshake went well, as far as this side can tell */
bool client_open(struct client *c, unsigned port, const struct client_opts *opts);
void client_close(struct client *c);
/* Return: bytes, 0 at the end, -1 on an error or when it took too long */
int client_read(struct client *c, void *buf, size_t len);
/* the next message. Return: its type, 0 when there is none; @body: of WIRE_BODY_MAX bytes */
unsigned client_hear(struct client *c, void *body);
void client_say(struct client *c, enum wire_kind type, const void *body, size_t len);
/* says who it is, in good form */
void client_hello(struct client *c, const char *name, uint64_t id);
/* serial number of the other side's certificate, in hex */
void client_serial(const struct client *c, char out[64]);

#endif
