/* SPDX-License-Identifier: Apache-2.0 */
/* weft pki: a small CA, and certificates of nodes, for a first cluster */
#include <string.h>
#include <time.h>
#include "cli/cli.h"
#include "cli/pki.h"
#include "daemon/value.h"
#include "weft_internal/util.h"

#define CA_DAYS 3650
#define NODE_DAYS 365
#define DAYS_MAX 36500
#define DAYS_UNSET UINT64_MAX
#define HOSTS_MAX 16

struct pki_opts {
	struct wfi_cli_common common;
	const char *domain;
	const char *hosts;
	uint64_t days;
};

static const struct wfi_cli_opt pki_options[] = {
	{ "domain", "DOMAIN", WFI_CLI_STRING, offsetof(struct pki_opts, domain),
	  "init: trust domain in the names of nodes (default: weft)" },
	{ "host", "ADDR[,ADDR...]", WFI_CLI_STRING, offsetof(struct pki_opts, hosts),
	  "node: IP addresses and host names to put in, for programs that look at them" },
	{ "days", "N", WFI_CLI_NUMBER, offsetof(struct pki_opts, days),
	  "how long it is good (default: 3650 for a CA, 365 for a node)" },
	{ 0 },
};

static const struct pki_opts pki_defaults = { .domain = "weft", .days = DAYS_UNSET };

static int failed(const char *why)
{
	fprintf(stderr, "weft: pki: %s\n", why);
	return WFI_EXIT_FAILED;
}

static int made(const struct pki_opts *o, const char *dir, const char *name)
{
	char cert[1024], key[1024];

	snprintf(cert, sizeof(cert), "%s/%s.crt", dir, name);
	snprintf(key, sizeof(key), "%s/%s.key", dir, name);
	if (o->common.json)
		return wfi_cli_print_json(json_pack("{s:s,s:s}", "cert", cert, "key", key), 0);
	printf("made %s and %s\n", cert, key);
	return wfi_cli_flushed();
}

static int run_init(const struct pki_opts *o, int argc, char **argv)
{
	char why[WFI_PKI_WHY];

	if (argc != 1)
		return wfi_cli_usage("pki", "pki: wants \"init DIR\"");
	if (wfi_pki_init(argv[0], o->domain, o->days == DAYS_UNSET ? CA_DAYS : o->days, why))
		return failed(why);
	return made(o, argv[0], "ca");
}

static int run_node(const struct pki_opts *o, int argc, char **argv)
{
	const char *hosts[HOSTS_MAX];
	char why[WFI_PKI_WHY], text[1024] = "";
	unsigned nr;

	if (argc != 2)
		return wfi_cli_usage("pki", "pki: wants \"node DIR NAME\"");
	if (o->hosts && strlen(o->hosts) >= sizeof(text))
		return wfi_cli_usage("pki", "pki: --host is too long");
	if (o->hosts)
		strcpy(text, o->hosts);
	nr = wfi_value_split(text, hosts, HOSTS_MAX);
	if (nr > HOSTS_MAX)
		return wfi_cli_usage("pki", "pki: --host has %u entries: %d at most", nr,
				     HOSTS_MAX);
	if (wfi_pki_node(argv[0], argv[1], hosts, nr, o->days == DAYS_UNSET ? NODE_DAYS : o->days,
			 why))
		return failed(why);
	return made(o, argv[0], argv[1]);
}

static const char *when(int64_t s, char out[32])
{
	const time_t t = (time_t)s;
	struct tm tm;

	strftime(out, 32, "%Y-%m-%d %H:%M UTC", gmtime_r(&t, &tm));
	return out;
}

static int run_show(const struct pki_opts *o, int argc, char **argv)
{
	char why[WFI_PKI_WHY], from[32], until[32];
	const int64_t now_s = (int64_t)time(NULL);
	struct wfi_pki_cert c;

	if (argc != 1)
		return wfi_cli_usage("pki", "pki: wants \"show FILE\"");
	if (wfi_pki_show(argv[0], &c, why))
		return failed(why);
	if (o->common.json)
		return wfi_cli_print_json(
			json_pack("{s:s,s:b,s:s,s:s,s:s,s:I,s:I,s:s,s:s}", "id", c.id, "ca",
				  c.is_ca, "subject", c.subject, "issuer", c.issuer, "hosts",
				  c.hosts, "from", (json_int_t)c.from_s, "until",
				  (json_int_t)c.until_s, "key", c.key, "sha256", c.sha256),
			2);
	printf("%-8s %s\n%-8s %s\n%-8s %s\n%-8s %s\n", c.is_ca ? "ca" : "node",
	       c.id[0] ? c.id : "it has no single URI: no name of a node", "subject", c.subject,
	       "issuer", c.issuer, "hosts", c.hosts[0] ? c.hosts : "none");
	printf("%-8s %s\n%-8s %s%s\n%-8s %s\n%-8s %s\n", "from", when(c.from_s, from), "until",
	       when(c.until_s, until), c.until_s <= now_s ? ", it has expired" : "", "key", c.key,
	       "sha256", c.sha256);
	return wfi_cli_flushed();
}

static int run_pki(const void *opts, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct pki_opts *o, int argc, char **argv);
	} verbs[] = { { "init", run_init }, { "node", run_node }, { "show", run_show } };
	const struct pki_opts *o = opts;
	unsigned i;

	if (o->days != DAYS_UNSET && (!o->days || o->days > DAYS_MAX))
		return wfi_cli_usage("pki", "pki: --days takes 1 to %d", DAYS_MAX);
	for (i = 0; argc && i < WFI_ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[0], verbs[i].name))
			return verbs[i].run(o, argc - 1, argv + 1);
	return wfi_cli_usage("pki", "pki: wants \"init DIR\", \"node DIR NAME\" or \"show FILE\"");
}

const struct wfi_cli_cmd wfi_cmd_pki = {
	.name = "pki",
	.summary = "make a small CA and certificates for nodes, or look at one",
	.opts = pki_options,
	.defaults = &pki_defaults,
	.opts_len = sizeof(struct pki_opts),
	.args = "init DIR | node DIR NAME | show FILE",
	.max_args = 3,
	.examples = "  weft pki init ./pki --domain prod.example\n"
		    "  weft pki node ./pki node-a --host 192.0.2.1,node-a.example\n"
		    "  weft pki show ./pki/node-a.crt\n",
	.run = run_pki,
};
