/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cli/pki.h"
#include "daemon/spiffe.h"
#include "daemon/tls_private.h"

#define SKEW_S 300 /* clocks of two hosts may differ so much */
#define DAY_S 86400
#define SERIAL_BYTES 16
#define PATH 512

__attribute__((format(printf, 3, 4))) static int say(char why[WFI_PKI_WHY], int ret,
						     const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, WFI_PKI_WHY, fmt, ap);
	va_end(ap);
	return ret;
}

/* of a call of libcrypto's that has no reason to fail */
static int crypto_failed(char why[WFI_PKI_WHY])
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	say(why, 0, "libcrypto: %s", reason ? reason : "out of memory");
	ERR_clear_error();
	return -EIO;
}

/* ---- files ---- */

static int join(const char *dir, const char *name, const char *ext, char out[PATH],
		char why[WFI_PKI_WHY])
{
	if (snprintf(out, PATH, "%s/%s%s", dir, name, ext) < PATH)
		return 0;
	return say(why, -ENAMETOOLONG, "%s/%s%s is too long a path", dir, name, ext);
}

/* Return: a new file that was not there, NULL and @why */
static FILE *create(const char *path, mode_t mode, char why[WFI_PKI_WHY])
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

	if (out)
		return out;
	if (errno == EEXIST)
		say(why, 0, "%s is there already: nothing is written over", path);
	else
		say(why, 0, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return NULL;
}

/* Return: 0, -EIO and @why */
static int finish(FILE *out, const char *path, int written, char why[WFI_PKI_WHY])
{
	int ok = written && !fflush(out) && !fsync(fileno(out));

	if (!ok)
		say(why, 0, "%s: %s", path, strerror(errno));
	ok = !fclose(out) && ok;
	return ok ? 0 : -EIO;
}

/* both or none */
static int write_pair(const char *dir, const char *name, X509 *cert, EVP_PKEY *key,
		      char why[WFI_PKI_WHY])
{
	char crt_path[PATH], key_path[PATH];
	FILE *crt_out, *key_out = NULL;
	int ret;

	if (join(dir, name, ".crt", crt_path, why) || join(dir, name, ".key", key_path, why))
		return -ENAMETOOLONG;
	crt_out = create(crt_path, 0644, why);
	if (!crt_out)
		return -EEXIST;
	key_out = create(key_path, 0600, why);
	if (!key_out) {
		fclose(crt_out);
		unlink(crt_path);
		return -EEXIST;
	}
	ret = finish(key_out, key_path,
		     PEM_write_PrivateKey(key_out, key, NULL, NULL, 0, NULL, NULL), why);
	if (finish(crt_out, crt_path, PEM_write_X509(crt_out, cert), why))
		ret = -EIO;
	if (ret) {
		unlink(crt_path);
		unlink(key_path);
	}
	return ret;
}

static X509 *read_cert(const char *path, char why[WFI_PKI_WHY])
{
	FILE *in = fopen(path, "re");
	X509 *cert = in ? PEM_read_X509(in, NULL, NULL, NULL) : NULL;

	if (!in)
		say(why, 0, "%s: %s", path, strerror(errno));
	else if (!cert)
		say(why, 0, "%s has no certificate in PEM form", path);
	if (in)
		fclose(in);
	ERR_clear_error();
	return cert;
}

static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static EVP_PKEY *read_key(const char *path, char why[WFI_PKI_WHY])
{
	FILE *in = fopen(path, "re");
	EVP_PKEY *key = in ? PEM_read_PrivateKey(in, NULL, no_passphrase, NULL) : NULL;

	if (!in)
		say(why, 0, "%s: %s", path, strerror(errno));
	else if (!key)
		say(why, 0, "%s has no key in PEM form without a passphrase", path);
	if (in)
		fclose(in);
	ERR_clear_error();
	return key;
}

/* ---- certificates ---- */

static int add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;
	int ok;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = ext && X509_add_ext(cert, ext, -1);
	X509_EXTENSION_free(ext);
	return ok;
}

/* Return: whether it went well. @ca_cert: NULL: it signs itself */
static int fill(X509 *cert, EVP_PKEY *key, X509 *ca_cert, const char *name, int64_t until_s)
{
	unsigned char serial[SERIAL_BYTES];
	X509_NAME *subject = X509_get_subject_name(cert);
	BIGNUM *bn;
	int ok;

	/* random, so that two authorities of one name do not make the same; positive (RFC 5280) */
	if (RAND_bytes(serial, sizeof(serial)) != 1)
		return 0;
	serial[0] = (serial[0] & 0x7f) | 0x40;
	bn = BN_bin2bn(serial, sizeof(serial), NULL);
	ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert));
	BN_free(bn);
	return ok && X509_set_version(cert, X509_VERSION_3) &&
	       X509_gmtime_adj(X509_getm_notBefore(cert), -SKEW_S) &&
	       ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)until_s) &&
	       X509_set_pubkey(cert, key) &&
	       X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"weft",
					  -1, -1, 0) &&
	       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name,
					  -1, -1, 0) &&
	       X509_set_issuer_name(cert, ca_cert ? X509_get_subject_name(ca_cert) : subject) &&
	       add_ext(cert, ca_cert ? ca_cert : cert, NID_subject_key_identifier, "hash") &&
	       add_ext(cert, ca_cert ? ca_cert : cert, NID_authority_key_identifier,
		       "keyid:always");
}

int wfi_pki_init(const char *dir, const char *domain, uint64_t days, char why[WFI_PKI_WHY])
{
	char uri[SPIFFE_MAX + 32], name[64];
	EVP_PKEY *key = NULL;
	X509 *cert = NULL;
	int ret = -EIO;

	if (!spiffe_domain_ok(domain))
		return say(why, -EINVAL,
			   "\"%s\" is no trust domain: a-z, 0-9, '.', '-' and '_' make one",
			   domain);
	if (mkdir(dir, 0700) && errno != EEXIST)
		return say(why, -errno, "%s: %s", dir, strerror(errno));
	key = EVP_EC_gen("P-256");
	cert = X509_new();
	snprintf(uri, sizeof(uri), "URI:spiffe://%s", domain);
	snprintf(name, sizeof(name), "CA of %.48s", domain);
	if (!key || !cert ||
	    !fill(cert, key, NULL, name, (int64_t)time(NULL) + (int64_t)days * DAY_S) ||
	    !add_ext(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
	    !add_ext(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") ||
	    !add_ext(cert, cert, NID_subject_alt_name, uri) || !X509_sign(cert, key, EVP_sha256()))
		ret = crypto_failed(why);
	else
		ret = write_pair(dir, "ca", cert, key, why);
	X509_free(cert);
	EVP_PKEY_free(key);
	return ret;
}

/* "URI:spiffe://..., IP:192.0.2.1, DNS:host.example". Return: 0, -errno and @why */
static int alt_names(const char *id, const char *const *hosts, unsigned nr, char *out, size_t room,
		     char why[WFI_PKI_WHY])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-";
	unsigned char addr[16];
	const char *kind;
	size_t used = (size_t)snprintf(out, room, "URI:%s", id);
	unsigned i;

	for (i = 0; i < nr; i++) {
		kind = "IP";
		if (inet_pton(AF_INET, hosts[i], addr) != 1 &&
		    inet_pton(AF_INET6, hosts[i], addr) != 1) {
			kind = "DNS";
			if (!hosts[i][0] || hosts[i][strspn(hosts[i], letters)])
				return say(why, -EINVAL,
					   "\"%s\" is neither an IP address nor a host name",
					   hosts[i]);
		}
		used += (size_t)snprintf(out + used, room - used, ",%s:%s", kind, hosts[i]);
		if (used >= room)
			return say(why, -ERANGE, "too many hosts for one certificate");
	}
	return 0;
}

/* Return: 0, the trust domain of an authority; -EINVAL and @why */
static int ca_domain(const X509 *ca, const char *path, char domain[SPIFFE_MAX],
		     char why[WFI_PKI_WHY])
{
	char id[SPIFFE_MAX];

	if (!tls_cert_id(ca, id) && !strncmp(id, "spiffe://", 9) && spiffe_domain_ok(id + 9)) {
		snprintf(domain, SPIFFE_MAX, "%s", id + 9);
		return 0;
	}
	return say(why, -EINVAL, "%s is not of weft pki init: it names no trust domain", path);
}

static int sign_node(const char *dir, const char *name, X509 *ca, EVP_PKEY *ca_key,
		     const char *names, int64_t until_s, char why[WFI_PKI_WHY])
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	int ret;

	if (!key || !cert || !fill(cert, key, ca, name, until_s) ||
	    !add_ext(cert, ca, NID_basic_constraints, "critical,CA:FALSE") ||
	    !add_ext(cert, ca, NID_key_usage, "critical,digitalSignature") ||
	    !add_ext(cert, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
	    !add_ext(cert, ca, NID_subject_alt_name, names) ||
	    !X509_sign(cert, ca_key, EVP_sha256()))
		ret = crypto_failed(why);
	else
		ret = write_pair(dir, name, cert, key, why);
	X509_free(cert);
	EVP_PKEY_free(key);
	return ret;
}

int wfi_pki_node(const char *dir, const char *name, const char *const *hosts, unsigned nr,
		 uint64_t days, char why[WFI_PKI_WHY])
{
	char crt_path[PATH], key_path[PATH], domain[SPIFFE_MAX], id[SPIFFE_MAX], names[2048];
	int64_t until_s = (int64_t)time(NULL) + (int64_t)days * DAY_S, ca_until_s;
	EVP_PKEY *ca_key = NULL;
	X509 *ca = NULL;
	int ret;

	if (!strcmp(name, "ca"))
		return say(why, -EINVAL,
			   "a node can't be called ca here: those are the CA's files");
	if (join(dir, "ca", ".crt", crt_path, why) || join(dir, "ca", ".key", key_path, why))
		return -ENAMETOOLONG;
	ca = read_cert(crt_path, why);
	ca_key = ca ? read_key(key_path, why) : NULL;
	if (!ca_key) {
		ret = -ENOENT;
		goto out;
	}
	ret = ca_domain(ca, crt_path, domain, why);
	if (ret)
		goto out;
	ret = spiffe_make(domain, name, id);
	if (ret) {
		say(why, ret,
		    "\"%s\" is no name: letters, digits, '.', '_' and '-' make one, 63 at "
		    "most",
		    name);
		goto out;
	}
	ca_until_s = tls_cert_time(X509_get0_notAfter(ca));
	if (until_s > ca_until_s)
		until_s = ca_until_s;
	if (X509_check_private_key(ca, ca_key) != 1)
		ret = say(why, -EINVAL, "%s is not the key of %s", key_path, crt_path);
	else if (ca_until_s <= (int64_t)time(NULL))
		ret = say(why, -EINVAL, "%s has expired: make another CA", crt_path);
	else
		ret = alt_names(id, hosts, nr, names, sizeof(names), why);
	if (!ret)
		ret = sign_node(dir, name, ca, ca_key, names, until_s, why);
out:
	ERR_clear_error();
	EVP_PKEY_free(ca_key);
	X509_free(ca);
	return ret;
}

/* ---- show ---- */

static void show_hosts(const X509 *cert, char *out, size_t room)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	char text[INET6_ADDRSTRLEN + 256];
	size_t used = 0;
	int i;

	*out = 0;
	for (i = 0; i < sk_GENERAL_NAME_num(names) && used < room; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *s = name->d.ia5;

		if (name->type == GEN_DNS)
			snprintf(text, sizeof(text), "%.*s", ASN1_STRING_length(s),
				 (const char *)ASN1_STRING_get0_data(s));
		else if (name->type != GEN_IPADD ||
			 !inet_ntop(ASN1_STRING_length(s) == 4 ? AF_INET : AF_INET6,
				    ASN1_STRING_get0_data(s), text, sizeof(text)))
			continue;
		used += (size_t)snprintf(out + used, room - used, "%s%s", used ? ", " : "", text);
	}
	GENERAL_NAMES_free(names);
}

static void show_digest(const X509 *cert, char out[65])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned len = 0, i;

	out[0] = 0;
	if (X509_digest(cert, EVP_sha256(), md, &len))
		for (i = 0; i < len && i < 32; i++)
			snprintf(out + 2 * i, 3, "%02x", md[i]);
}

static void show_key(X509 *cert, char *out, size_t room)
{
	const EVP_PKEY *key = X509_get0_pubkey(cert);
	char group[32] = "";

	if (!key) {
		snprintf(out, room, "?");
		return;
	}
	EVP_PKEY_get_group_name(key, group, sizeof(group), NULL);
	snprintf(out, room, "%s, %d bits%s%s", EVP_PKEY_get0_type_name(key), EVP_PKEY_get_bits(key),
		 *group ? ", " : "", group);
}

int wfi_pki_show(const char *path, struct wfi_pki_cert *out, char why[WFI_PKI_WHY])
{
	X509 *cert = read_cert(path, why);

	if (!cert)
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	X509_NAME_oneline(X509_get_subject_name(cert), out->subject, sizeof(out->subject));
	X509_NAME_oneline(X509_get_issuer_name(cert), out->issuer, sizeof(out->issuer));
	if (tls_cert_id(cert, out->id))
		out->id[0] = 0;
	show_hosts(cert, out->hosts, sizeof(out->hosts));
	show_key(cert, out->key, sizeof(out->key));
	show_digest(cert, out->sha256);
	out->from_s = tls_cert_time(X509_get0_notBefore(cert));
	out->until_s = tls_cert_time(X509_get0_notAfter(cert));
	out->is_ca = X509_check_ca(cert) == 1;
	X509_free(cert);
	ERR_clear_error();
	return 0;
}
