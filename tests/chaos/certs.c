/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certs.c - certificates by weft pki, of two authorities, each of which all nodes trust
 *
 * A node has one of either, good for another number of days: that tells which of them it uses.
 * Renewing puts the other one in its place.
 */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/chaos/chaos.h"

#define NR_CAS 2u

static const char *const days[NR_CAS] = { "10", "20" };

/* weft pki VERB DIR [NAME]. @host: to put in, or NULL. Return: exit status */
static int pki(struct test_run *r, const char *verb, const char *dir, const char *name,
	       const char *nr_days, const char *host)
{
	unsigned nr = 4;

	*r = (struct test_run){ .argv = { getenv("WEFT"), "pki", verb, dir } };
	if (name)
		r->argv[nr++] = name;
	r->argv[nr++] = "--days";
	r->argv[nr++] = nr_days;
	if (host) {
		r->argv[nr++] = "--host";
		r->argv[nr++] = host;
	}
	return test_run(r);
}

static bool append(FILE *out, const char *path)
{
	FILE *in = fopen(path, "re");
	char text[4096];
	size_t len;

	if (!in)
		return false;
	len = fread(text, 1, sizeof(text), in);
	fclose(in);
	return fwrite(text, 1, len, out) == len;
}

/* @to becomes what @from and, if it is not NULL, @also hold, whole at once */
static void file_make(const char *to, const char *from, const char *also)
{
	char tmp[160];
	FILE *out;

	snprintf(tmp, sizeof(tmp), "%s.new", to);
	out = fopen(tmp, "we");
	if (!out || !append(out, from) || (also && !append(out, also)) || fclose(out) ||
	    chmod(tmp, 0600) || rename(tmp, to))
		abort();
}

static void certs_show(struct chaos *c, unsigned node)
{
	static const char *const ends[] = { "crt", "key" };
	char from[128], to[128];
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(ends); i++) {
		snprintf(from, sizeof(from), "%s/pki/ca-%u/node-%u.%s", c->dir, c->nodes[node].cert,
			 node, ends[i]);
		snprintf(to, sizeof(to), "%s/pki/node-%u.%s", c->dir, node, ends[i]);
		file_make(to, from, NULL);
	}
}

static bool ca_make(struct chaos *c, unsigned ca, char *why, size_t why_len)
{
	char path[96], name[16];
	struct test_run r;
	unsigned i;
	int ret;

	snprintf(path, sizeof(path), "%s/pki/ca-%u", c->dir, ca);
	ret = pki(&r, "init", path, NULL, days[ca], NULL);
	for (i = 0; i < c->nr && !ret; i++) {
		snprintf(name, sizeof(name), "node-%u", i);
		ret = pki(&r, "node", path, name, days[ca], NULL);
	}
	if (!ret)
		ret = pki(&r, "node", path, "etcd", days[ca], c->hosts.host[c->nr].addr);
	if (ret)
		snprintf(why, why_len, "no certificates can be made: %s", r.out);
	return !ret;
}

/* it listens with a certificate of the first authority */
static void etcd_secure(struct chaos *c)
{
	static const char *const names[][2] = { { "ca.crt", "ca.pem" },
						{ "etcd.crt", "server.pem" },
						{ "etcd.key", "server.key" } };
	char from[96], to[96];
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(names); i++) {
		snprintf(from, sizeof(from), "%s/pki/ca-0/%s", c->dir, names[i][0]);
		snprintf(to, sizeof(to), "%s/%s", c->etcd.dir, names[i][1]);
		file_make(to, from, NULL);
	}
	c->etcd.tls = true;
}

bool certs_init(struct chaos *c, char *why, size_t why_len)
{
	char path[96], first[96], second[96];
	unsigned i;

	if (!getenv("WEFT")) {
		snprintf(why, why_len, "WEFT does not name the program that makes certificates");
		return false;
	}
	snprintf(path, sizeof(path), "%s/pki", c->dir);
	if (mkdir(path, 0700))
		abort();
	for (i = 0; i < NR_CAS; i++)
		if (!ca_make(c, i, why, why_len))
			return false;
	snprintf(path, sizeof(path), "%s/pki/ca.crt", c->dir);
	snprintf(first, sizeof(first), "%s/pki/ca-0/ca.crt", c->dir);
	snprintf(second, sizeof(second), "%s/pki/ca-1/ca.crt", c->dir);
	file_make(path, first, second);
	for (i = 0; i < c->nr; i++)
		certs_show(c, i);
	etcd_secure(c);
	c->tls = true;
	return true;
}

void certs_fini(struct chaos *c)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/pki", c->dir);
	test_tree_remove(path);
	c->tls = false;
}

void certs_renew(struct chaos *c, unsigned node, bool told)
{
	struct chaos_node *n = &c->nodes[node];

	n->cert = (n->cert + 1) % NR_CAS;
	certs_show(c, node);
	/* else it finds out by itself */
	if (told && n->proc.pid)
		kill(n->proc.pid, SIGHUP);
	chaos_count(c, CHAOS_RENEWED, 1);
}

int64_t certs_days(const struct chaos *c, unsigned node)
{
	return strtol(days[c->nodes[node].cert], NULL, 10);
}
