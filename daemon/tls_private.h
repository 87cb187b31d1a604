/* SPDX-License-Identifier: Apache-2.0 */
/* tls_private.h - what tls.c (connections) and tls_files.c (certificates) share */
#ifndef WEFTD_TLS_PRIVATE_H
#define WEFTD_TLS_PRIVATE_H

#include <limits.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <time.h>

#include "spiffe.h"
#include "tls.h"

enum tls_file { TLS_CERT, TLS_KEY, TLS_CA, TLS_FILES };

/* tells one state of a file from the next */
struct tls_mark {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct tls {
	struct secure base;
	struct wfi_env *env;
	char path[TLS_FILES][PATH_MAX];
	char node[SPIFFE_NODE_MAX];
	char allow[TLS_ALLOW_MAX][SPIFFE_MAX]; /* none: .siblings */
	unsigned nr_allow;
	SSL_CTX *ctx; /* of new sessions; those from before have their own */
	char id[SPIFFE_MAX];
	char siblings[SPIFFE_MAX];
	int64_t from_s, expires_s;
	int64_t warned_s; /* when the log had that it expires soon */
	uint64_t loads;
	struct tls_mark tried[TLS_FILES]; /* when they were last read */
	struct tls_mark seen[TLS_FILES]; /* at the last look */
	char why[SECURE_WHY];
};

/* reads the files and takes them into use, or leaves @t as it was. Return: 0, -errno and @why */
int tls_load(struct tls *t, char why[SECURE_WHY]);
void tls_marks(const struct tls *t, struct tls_mark out[TLS_FILES]);
/* seconds since 1970 */
int64_t tls_now(const struct tls *t);

/* the one URI of a certificate. Return: 0, -ENOENT it has none, -EINVAL several, or a strange
 * one */
int tls_cert_id(const X509 *cert, char id[SPIFFE_MAX]);
int64_t tls_cert_time(const ASN1_TIME *at);
/* "2027-03-01 12:00 UTC" */
#define TLS_DATE 32
void tls_date(int64_t s, char out[TLS_DATE]);

#endif
