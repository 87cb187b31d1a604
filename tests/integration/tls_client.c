/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/integration/tls_client.h"

int client_dial(unsigned port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_port = htons((uint16_t)port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct timeval wait = { .tv_sec = CLIENT_WAIT_S };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		fail_msg("connect: %s", strerror(errno));
	return fd;
}

bool client_open(struct client *c, unsigned port, const struct client_opts *opts)
{
	char cert[256], key[256];

	memset(c, 0, sizeof(*c));
	c->ctx = SSL_CTX_new(TLS_client_method());
	assert_non_null(c->ctx);
	if (opts->max_version)
		SSL_CTX_set_max_proto_version(c->ctx, opts->max_version);
	if (opts->name) {
		snprintf(cert, sizeof(cert), "%s/%s.crt", opts->dir, opts->name);
		snprintf(key, sizeof(key), "%s/%s.key", opts->dir, opts->name);
		assert_int_equal(SSL_CTX_use_certificate_chain_file(c->ctx, cert), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey_file(c->ctx, key, SSL_FILETYPE_PEM), 1);
	}
	c->ssl = SSL_new(c->ctx);
	assert_non_null(c->ssl);
	c->fd = client_dial(port);
	SSL_set_fd(c->ssl, c->fd);
	return SSL_connect(c->ssl) == 1;
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	SSL_free(c->ssl);
	SSL_CTX_free(c->ctx);
	ERR_clear_error();
}

int client_read(struct client *c, void *buf, size_t len)
{
	size_t have = 0;
	int ret = 1;

	while (have < len && ret > 0) {
		ret = SSL_read(c->ssl, (char *)buf + have, (int)(len - have));
		have += ret > 0 ? (size_t)ret : 0;
	}
	if (have)
		return (int)have;
	return ret < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? -1 : 0;
}

unsigned client_hear(struct client *c, void *body)
{
	struct wire_head head;

	if (client_read(c, &head, sizeof(head)) != sizeof(head))
		return 0;
	assert_true(head.magic == WIRE_MAGIC && head.len <= WIRE_BODY_MAX);
	if (client_read(c, body, head.len) != (int)head.len)
		return 0;
	return head.type;
}

void client_say(struct client *c, enum wire_kind type, const void *body, size_t len)
{
	struct wire_head head;

	wire_head_fill(&head, type, len);
	SSL_write(c->ssl, &head, sizeof(head));
	SSL_write(c->ssl, body, (int)len);
}

void client_hello(struct client *c, const char *name, uint64_t id)
{
	struct wire_hello hello = { .node = id, .incarnation = 1, .transport = "loop" };

	snprintf(hello.name, sizeof(hello.name), "%s", name);
	client_say(c, WIRE_HELLO, &hello, sizeof(hello));
}

void client_serial(const struct client *c, char out[64])
{
	BIGNUM *bn =
		ASN1_INTEGER_to_BN(X509_get0_serialNumber(SSL_get0_peer_certificate(c->ssl)), NULL);
	char *hex = bn ? BN_bn2hex(bn) : NULL;

	snprintf(out, 64, "%s", hex ? hex : "?");
	OPENSSL_free(hex);
	BN_free(bn);
}
