/* SPDX-License-Identifier: Apache-2.0 */
/* tls.c - connections by libssl, which is never let wait; and what went wrong, in words */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls_private.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define DAY_S 86400
#define ALERT(reason) ((reason)-SSL_AD_REASON_OFFSET)

struct secure_session {
	struct tls *t;
	SSL *ssl;
	bool dialled;
	bool proved; /* the handshake is over */
	bool wants_write;
	char node[SPIFFE_NODE_MAX];
	char why[SECURE_WHY];
};

static struct tls *to_tls(struct secure *s)
{
	return wfi_container_of(s, struct tls, base);
}

__attribute__((format(printf, 3, 4))) static int over(struct secure_session *ss, int ret,
						      const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ss->why, sizeof(ss->why), fmt, ap);
	va_end(ap);
	return ret;
}

/* ---- what went wrong ---- */

/* what we hold against the other side's certificate */
static int explain_verify(struct secure_session *ss)
{
	const long err = SSL_get_verify_result(ss->ssl);
	const X509 *cert = SSL_get0_peer_certificate(ss->ssl);
	char date[TLS_DATE] = "?";

	switch (err) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		if (cert)
			tls_date(tls_cert_time(X509_get0_notAfter(cert)), date);
		return over(ss, -EACCES,
			    "has a certificate that expired (%s): renew it there, or set this "
			    "host's clock",
			    date);
	case X509_V_ERR_CERT_NOT_YET_VALID:
		if (cert)
			tls_date(tls_cert_time(X509_get0_notBefore(cert)), date);
		return over(ss, -EACCES,
			    "has a certificate that is not valid yet (%s): set the clocks of both "
			    "hosts",
			    date);
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return over(ss, -EACCES,
			    "has a certificate that no authority of tls_ca has signed: use one CA "
			    "for all nodes");
	default:
		return over(ss, -EACCES, "has a certificate that is not accepted: %s",
			    X509_verify_cert_error_string(err));
	}
}

/* what the other side holds against ours */
static int explain_alert(struct secure_session *ss, int alert)
{
	static const struct {
		int alert;
		const char *what;
	} known[] = {
		{ SSL_AD_CERTIFICATE_EXPIRED,
		  "it has expired: renew it, or set that host's clock" },
		{ SSL_AD_UNKNOWN_CA, "no authority of its tls_ca has signed it" },
		{ SSL_AD_BAD_CERTIFICATE, "it is damaged, or not valid yet there" },
		{ SSL_AD_UNSUPPORTED_CERTIFICATE, "it is not made for this" },
		{ SSL_AD_CERTIFICATE_REVOKED, "it was revoked" },
		{ SSL_AD_CERTIFICATE_UNKNOWN, "something is wrong with it" },
		{ SSL_AD_DECRYPT_ERROR, "its signature is wrong" },
	};
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(known); i++)
		if (known[i].alert == alert)
			return over(ss, -EACCES, "refuses this node's certificate: %s",
				    known[i].what);
	if (alert == SSL_AD_PROTOCOL_VERSION)
		return over(ss, -EPROTO, "speaks no TLS 1.3");
	return over(ss, -EPROTO, "ends the handshake: %s", SSL_alert_desc_string_long(alert));
}

static int explain_library(struct secure_session *ss)
{
	const unsigned long err = ERR_peek_error();
	const int reason = ERR_GET_REASON(err);

	if (ERR_GET_LIB(err) != ERR_LIB_SSL)
		return over(ss, -EPROTO, "breaks TLS: %s", ERR_reason_error_string(err));
	if (reason > SSL_AD_REASON_OFFSET)
		return explain_alert(ss, ALERT(reason));
	switch (reason) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return explain_verify(ss);
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return over(ss, -EACCES, "shows no certificate: set tls_cert and tls_key there");
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
		return over(ss, -EPROTO, "%s", SECURE_PLAIN);
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_WRONG_SSL_VERSION:
		return over(ss, -EPROTO, "speaks no TLS 1.3");
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		return over(ss, -ECONNRESET, "hung up");
	default:
		return over(ss, -EPROTO, "breaks TLS: %s", ERR_reason_error_string(err));
	}
}

/* of an operation that gave @ret. Return: -EAGAIN, or why the session is over */
static int outcome(struct secure_session *ss, int ret)
{
	const int saved = errno, err = SSL_get_error(ss->ssl, ret);

	switch (err) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		ss->wants_write = err == SSL_ERROR_WANT_WRITE;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return over(ss, -ECONNRESET, "hung up");
	case SSL_ERROR_SYSCALL:
		if (!saved)
			return over(ss, -ECONNRESET, "hung up");
		return over(ss, -saved, "is gone: %s", strerror(saved));
	default:
		ret = explain_library(ss);
		ERR_clear_error();
		return ret;
	}
}

/* errors are found in a queue of the thread's: nothing old may be in it */
static void begin(struct secure_session *ss)
{
	ERR_clear_error();
	errno = 0;
	ss->wants_write = false;
}

/* ---- sessions ---- */

static void tls_end(struct secure_session *ss)
{
	if (!ss)
		return;
	if (ss->proved && !ss->why[0]) {
		begin(ss);
		SSL_shutdown(ss->ssl);
		ERR_clear_error();
	}
	SSL_free(ss->ssl);
	free(ss);
}

static int tls_start(struct secure *s, int fd, bool dialled, struct secure_session **out)
{
	struct tls *t = to_tls(s);
	struct secure_session *ss = calloc(1, sizeof(*ss));

	if (!ss)
		return -ENOMEM;
	ss->t = t;
	ss->dialled = dialled;
	ss->ssl = SSL_new(t->ctx);
	if (!ss->ssl || SSL_set_fd(ss->ssl, fd) != 1) {
		ERR_clear_error();
		tls_end(ss);
		return -ENOMEM;
	}
	X509_VERIFY_PARAM_set_time(SSL_get0_param(ss->ssl), (time_t)tls_now(t));
	if (dialled)
		SSL_set_connect_state(ss->ssl);
	else
		SSL_set_accept_state(ss->ssl);
	*out = ss;
	return 0;
}

static bool allowed(const struct tls *t, const char *id)
{
	unsigned i;

	if (!t->nr_allow)
		return spiffe_match(t->siblings, id);
	for (i = 0; i < t->nr_allow; i++)
		if (spiffe_match(t->allow[i], id))
			return true;
	return false;
}

/* a certificate is good: is it that of a node, and of one that is let in? */
static int admit(struct secure_session *ss)
{
	const X509 *cert = SSL_get0_peer_certificate(ss->ssl);
	char id[SPIFFE_MAX];
	int ret = cert ? tls_cert_id(cert, id) : -ENOENT;

	if (ret == -ENOENT)
		return over(ss, -EACCES, "has a certificate that names no node");
	if (ret || spiffe_node(id, ss->node))
		return over(ss, -EACCES,
			    "has a certificate whose name is not of the form "
			    "spiffe://DOMAIN" SPIFFE_PATH "NAME");
	if (!allowed(ss->t, id))
		return over(ss, -EACCES, "is %s, which is not let in: add it to tls_allow", id);
	return 0;
}

static int tls_shake(struct secure_session *ss)
{
	int ret;

	begin(ss);
	ret = SSL_do_handshake(ss->ssl);
	if (ret != 1)
		return outcome(ss, ret);
	ss->proved = true;
	return admit(ss);
}

static ssize_t tls_read(struct secure_session *ss, void *buf, size_t len)
{
	int ret;

	begin(ss);
	ret = SSL_read(ss->ssl, buf, (int)wfi_min(len, INT_MAX));
	return ret > 0 ? ret : outcome(ss, ret);
}

static ssize_t tls_write(struct secure_session *ss, const void *buf, size_t len)
{
	int ret;

	begin(ss);
	ret = SSL_write(ss->ssl, buf, (int)wfi_min(len, INT_MAX));
	return ret > 0 ? ret : outcome(ss, ret);
}

static bool tls_wants_write(const struct secure_session *ss)
{
	return ss->wants_write;
}

static const char *tls_node(const struct secure_session *ss)
{
	return ss->proved ? ss->node : NULL;
}

static const char *tls_why(const struct secure_session *ss)
{
	return ss->why;
}

/* ---- certificates ---- */

static bool expires_soon(const struct tls *t)
{
	const int64_t life_s = t->expires_s - t->from_s;

	return t->expires_s - tls_now(t) < (int64_t)wfi_min((uint64_t)life_s / 5, 30 * DAY_S);
}

/* once a day */
static void expiry_watch(struct tls *t)
{
	const int64_t now_s = tls_now(t);
	char date[TLS_DATE];

	if (!expires_soon(t) || (t->warned_s && now_s - t->warned_s < DAY_S))
		return;
	t->warned_s = now_s;
	tls_date(t->expires_s, date);
	if (t->expires_s <= now_s)
		wfi_err("tls_cert expired (%s): no peer lets this node in: renew it", date);
	else
		wfi_warn("tls_cert expires soon (%s): renew it", date);
}

static bool tls_refresh(struct secure *s, bool now)
{
	struct tls *t = to_tls(s);
	struct tls_mark marks[TLS_FILES];
	char date[TLS_DATE], why[SECURE_WHY];
	bool settled;

	expiry_watch(t);
	tls_marks(t, marks);
	/* files of one change come one after the other: all are to be as they were a look ago */
	settled = !memcmp(marks, t->seen, sizeof(marks));
	memcpy(t->seen, marks, sizeof(marks));
	if (!now && (!settled || !memcmp(marks, t->tried, sizeof(marks))))
		return false;
	if (tls_load(t, why)) {
		wfi_err("certificates are not taken into use, those from before stay: %s", why);
		strcpy(t->why, why);
		return false;
	}
	t->why[0] = 0;
	tls_date(t->expires_s, date);
	wfi_info("certificates are read anew: %s, good until %s", t->id, date);
	return true;
}

static void tls_info(const struct secure *s, struct secure_info *out)
{
	const struct tls *t = to_tls((struct secure *)s);

	*out = (struct secure_info){
		.kind = "TLS 1.3",
		.from_s = t->from_s,
		.expires_s = t->expires_s,
		.soon = expires_soon(t),
		.loads = t->loads,
	};
	strcpy(out->id, t->id);
	strcpy(out->why, t->why);
}

static const struct secure_ops tls_ops = {
	.start = tls_start,
	.end = tls_end,
	.shake = tls_shake,
	.read = tls_read,
	.write = tls_write,
	.wants_write = tls_wants_write,
	.node = tls_node,
	.why = tls_why,
	.refresh = tls_refresh,
	.info = tls_info,
};

int tls_create(const struct tls_opts *opts, struct secure **out, char why[SECURE_WHY])
{
	const char *const paths[TLS_FILES] = { opts->cert, opts->key, opts->ca };
	struct tls *t = calloc(1, sizeof(*t));
	unsigned i;
	int ret;

	if (!t) {
		strcpy(why, "out of memory");
		return -ENOMEM;
	}
	t->base.ops = &tls_ops;
	t->env = opts->env;
	for (i = 0; i < TLS_FILES; i++)
		snprintf(t->path[i], sizeof(t->path[i]), "%s", paths[i]);
	snprintf(t->node, sizeof(t->node), "%s", opts->node);
	for (i = 0; i < opts->nr_allow && i < TLS_ALLOW_MAX; i++)
		snprintf(t->allow[i], sizeof(t->allow[i]), "%s", opts->allow[i]);
	t->nr_allow = i;
	ret = tls_load(t, why);
	memcpy(t->seen, t->tried, sizeof(t->seen));
	if (ret) {
		free(t);
		return ret;
	}
	expiry_watch(t);
	*out = &t->base;
	return 0;
}

void tls_destroy(struct secure *s)
{
	if (!s)
		return;
	SSL_CTX_free(to_tls(s)->ctx);
	free(to_tls(s));
}
