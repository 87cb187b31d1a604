/* SPDX-License-Identifier: Apache-2.0 */
/* tls_files.c - certificates: read, checked as a peer would check them, then taken into use */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tls_private.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define CHAIN_MAX 4 /* certificates between a node's and its authority's */
#define CHAIN_BYTES 16384 /* that a peer may send of its chain */

static const char *const settings[TLS_FILES] = {
	[TLS_CERT] = "tls_cert",
	[TLS_KEY] = "tls_key",
	[TLS_CA] = "tls_ca",
};

__attribute__((format(printf, 3, 4))) static int say(char why[SECURE_WHY], int ret, const char *fmt,
						     ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, SECURE_WHY, fmt, ap);
	va_end(ap);
	ERR_clear_error();
	return ret;
}

/* ---- what a certificate says ---- */

int tls_cert_id(const X509 *cert, char id[SPIFFE_MAX])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	const ASN1_STRING *uri = NULL;
	int i, nr = 0, len, ret = 0;

	for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type != GEN_URI)
			continue;
		uri = name->d.uniformResourceIdentifier;
		nr++;
	}
	if (!nr) {
		ret = -ENOENT;
	} else {
		len = ASN1_STRING_length(uri);
		if (nr > 1 || len >= SPIFFE_MAX ||
		    memchr(ASN1_STRING_get0_data(uri), 0, (size_t)len))
			ret = -EINVAL;
		else
			snprintf(id, SPIFFE_MAX, "%.*s", len,
				 (const char *)ASN1_STRING_get0_data(uri));
	}
	GENERAL_NAMES_free(names);
	return ret;
}

int64_t tls_cert_time(const ASN1_TIME *at)
{
	struct tm tm;

	return ASN1_TIME_to_tm(at, &tm) ? (int64_t)timegm(&tm) : 0;
}

void tls_date(int64_t s, char out[TLS_DATE])
{
	const time_t t = (time_t)s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, TLS_DATE, "%Y-%m-%d %H:%M UTC", &tm))
		strcpy(out, "?");
}

int64_t tls_now(const struct tls *t)
{
	return (int64_t)(t->env->clock->wall_ns(t->env) / WFI_NSEC_PER_SEC);
}

/* ---- files ---- */

void tls_marks(const struct tls *t, struct tls_mark out[TLS_FILES])
{
	struct stat st;
	unsigned i;

	memset(out, 0, TLS_FILES * sizeof(*out));
	for (i = 0; i < TLS_FILES; i++) {
		if (stat(t->path[i], &st))
			continue;
		out[i].dev = st.st_dev;
		out[i].ino = st.st_ino;
		out[i].size = st.st_size;
		out[i].mtime = st.st_mtim;
		out[i].ctime = st.st_ctim;
	}
}

/* what the library says of a file that is missing helps nobody. Return: 0, -errno and @why */
static int file_there(const struct tls *t, enum tls_file file, char why[SECURE_WHY])
{
	/* a pipe, which would be waited for, is none */
	int fd = open(t->path[file], O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		ret = -errno;
		say(why, ret, "%s: %s: %s", settings[file], t->path[file], strerror(errno));
	} else {
		ret = S_ISREG(st.st_mode) ? 0
					  : say(why, -EINVAL, "%s: %s is no file", settings[file],
						t->path[file]);
	}
	if (!ret && file == TLS_KEY && st.st_mode & (S_IRWXG | S_IRWXO) & ~S_IRGRP)
		wfi_warn("tls_key: others may read %s: chmod 600 it", t->path[file]);
	if (fd >= 0)
		close(fd);
	return ret;
}

static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static int ctx_files(const struct tls *t, SSL_CTX *ctx, char why[SECURE_WHY])
{
	unsigned i;
	int ret;

	for (i = 0; i < TLS_FILES; i++) {
		ret = file_there(t, (enum tls_file)i, why);
		if (ret)
			return ret;
	}
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (SSL_CTX_use_certificate_chain_file(ctx, t->path[TLS_CERT]) != 1)
		return say(why, -EINVAL, "tls_cert: %s has no certificate in PEM form",
			   t->path[TLS_CERT]);
	if (SSL_CTX_use_PrivateKey_file(ctx, t->path[TLS_KEY], SSL_FILETYPE_PEM) != 1) {
		if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH)
			return say(why, -EINVAL, "tls_key: %s is not the key of tls_cert",
				   t->path[TLS_KEY]);
		return say(why, -EINVAL, "tls_key: %s has no key in PEM form without a passphrase",
			   t->path[TLS_KEY]);
	}
	if (SSL_CTX_check_private_key(ctx) != 1)
		return say(why, -EINVAL, "tls_key: %s is not the key of tls_cert",
			   t->path[TLS_KEY]);
	if (SSL_CTX_load_verify_file(ctx, t->path[TLS_CA]) != 1)
		return say(why, -EINVAL, "tls_ca: %s has no certificate in PEM form",
			   t->path[TLS_CA]);
	return 0;
}

/* as peers will look at it, but for the time: what has expired is told apart. Return: 0, -EINVAL */
static int cert_chain(SSL_CTX *ctx, X509 *cert, int purpose, char why[SECURE_WHY])
{
	X509_STORE_CTX *v = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;
	int ret = -EINVAL;

	SSL_CTX_get0_chain_certs(ctx, &chain);
	if (!v || !X509_STORE_CTX_init(v, SSL_CTX_get_cert_store(ctx), cert, chain)) {
		say(why, ret, "out of memory");
	} else {
		X509_STORE_CTX_set_purpose(v, purpose);
		X509_STORE_CTX_set_flags(v, X509_V_FLAG_NO_CHECK_TIME);
		if (X509_verify_cert(v) == 1)
			ret = 0;
		else
			say(why, ret, "tls_cert: not good for tls_ca: %s",
			    X509_verify_cert_error_string(X509_STORE_CTX_get_error(v)));
	}
	X509_STORE_CTX_free(v);
	return ret;
}

static int cert_names_us(const struct tls *t, const X509 *cert, char id[SPIFFE_MAX],
			 char why[SECURE_WHY])
{
	char node[SPIFFE_NODE_MAX];
	int ret = tls_cert_id(cert, id);

	if (ret == -ENOENT)
		return say(why, -EINVAL,
			   "tls_cert: %s names no node: it needs the URI "
			   "spiffe://DOMAIN" SPIFFE_PATH "%s",
			   t->path[TLS_CERT], t->node);
	if (ret || spiffe_node(id, node))
		return say(why, -EINVAL,
			   "tls_cert: %s has several URIs, or one that is not of the form "
			   "spiffe://DOMAIN" SPIFFE_PATH "NAME",
			   t->path[TLS_CERT]);
	if (strcmp(node, t->node))
		return say(why, -EINVAL,
			   "tls_cert: %s is that of node %s, and this node is %s: take the right "
			   "one, or set name",
			   t->path[TLS_CERT], node, t->node);
	return 0;
}

/* Return: false: it is not to be had */
static bool ctx_setup(SSL_CTX *ctx)
{
	if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION))
		return false;
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, CHAIN_MAX);
	SSL_CTX_set_max_cert_list(ctx, CHAIN_BYTES);
	/* each connection is proved anew: what is in memory is of no use to who gets hold of it */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	return true;
}

int tls_load(struct tls *t, char why[SECURE_WHY])
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	char id[SPIFFE_MAX], date[TLS_DATE];
	int64_t expires_s = 0;
	X509 *cert;
	int ret;

	/* before they are read, so that what changes meanwhile is seen as a change */
	tls_marks(t, t->tried);
	if (!ctx)
		return say(why, -ENOMEM, "TLS can't start: out of memory");
	ret = ctx_setup(ctx) ? ctx_files(t, ctx, why)
			     : say(why, -EOPNOTSUPP,
				   "TLS can't start: this libssl has no TLS 1.3, which is needed");
	cert = ret ? NULL : SSL_CTX_get0_certificate(ctx);
	if (!ret)
		ret = cert_names_us(t, cert, id, why);
	if (!ret)
		ret = cert_chain(ctx, cert, X509_PURPOSE_SSL_SERVER, why);
	if (!ret)
		ret = cert_chain(ctx, cert, X509_PURPOSE_SSL_CLIENT, why);
	if (!ret)
		expires_s = tls_cert_time(X509_get0_notAfter(cert));
	if (!ret && t->ctx && expires_s <= tls_now(t)) {
		tls_date(expires_s, date);
		ret = say(why, -EINVAL, "tls_cert: %s has expired (%s)", t->path[TLS_CERT], date);
	}
	if (ret) {
		SSL_CTX_free(ctx);
		return ret;
	}
	SSL_CTX_free(t->ctx);
	t->ctx = ctx;
	strcpy(t->id, id);
	spiffe_siblings(id, t->siblings);
	t->from_s = tls_cert_time(X509_get0_notBefore(cert));
	t->expires_s = expires_s;
	t->warned_s = 0;
	t->loads++;
	return 0;
}
