/* SPDX-License-Identifier: Apache-2.0 */
/* weftd.c - the daemon: configuration in, node and control thread up, until it is told to stop */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "http.h"
#include "inet.h"
#include "membership.h"
#include "node.h"
#include "tls.h"
#include "value.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"
#include "weft_internal/transport_registry.h"

static const char usage[] =
	"usage: weftd [-c FILE] [-o KEY=VALUE]...\n"
	"\n"
	"The node of one host: owns memory and network, serves the engines that attach.\n"
	"\n"
	"  -c, --config FILE   settings (default " WFI_CONFIG_DEFAULT_FILE " when it exists)\n"
	"  -o, --set KEY=VALUE override one setting, e.g. -o arena_bytes=4G\n"
	"      --insecure      as -o insecure=true: let nodes on other hosts connect unencrypted\n"
	"      --check         read the settings, print those in force, and exit\n"
	"      --help-config   print the default file with an explanation of each setting\n"
	"  -h, --help          this text\n"
	"  -V, --version       the version\n"
	"\n"
	"examples:\n"
	"  weftd -o socket=/tmp/weft.sock -o arena_bytes=1G\n"
	"  weftd --check -c ./weftd.conf\n";

struct arguments {
	const char *file;
	const char *sets[64];
	unsigned nr_sets;
	bool check;
};

static bool add_set(struct arguments *a, const char *text)
{
	if (a->nr_sets == WFI_ARRAY_SIZE(a->sets)) {
		fprintf(stderr, "weftd: too many -o: put settings into a file\n");
		return false;
	}
	a->sets[a->nr_sets++] = text;
	return true;
}

/* Return: -1 go on, else the exit status */
static int parse_arguments(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "set", required_argument, NULL, 'o' },
		{ "check", no_argument, NULL, 'k' },	    { "insecure", no_argument, NULL, 'i' },
		{ "help-config", no_argument, NULL, 'H' },  { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },	    { NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "c:o:hV", options, NULL)) >= 0) {
		switch (opt) {
		case 'c':
			a->file = optarg;
			break;
		case 'i':
			if (!add_set(a, "insecure=true"))
				return 2;
			break;
		case 'o':
			if (!add_set(a, optarg))
				return 2;
			break;
		case 'k':
			a->check = true;
			break;
		case 'H':
			wfi_config_print_help(stdout);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("weftd " WEFT_VERSION);
			return 0;
		default:
			fprintf(stderr, "try weftd --help\n");
			return 2;
		}
	}
	if (optind == argc)
		return -1;
	fprintf(stderr, "weftd: unexpected '%s': try weftd --help\n", argv[optind]);
	return 2;
}

static int load_config(const struct arguments *a, struct wfi_config *cfg)
{
	char why[WFI_CONFIG_WHY];
	const char *file = a->file;
	unsigned i;
	int ret = 0;

	wfi_config_defaults(cfg);
	if (!file && !access(WFI_CONFIG_DEFAULT_FILE, F_OK))
		file = WFI_CONFIG_DEFAULT_FILE;
	if (file)
		ret = wfi_config_load(file, cfg, why, sizeof(why));
	for (i = 0; !ret && i < a->nr_sets; i++)
		ret = wfi_config_set(cfg, a->sets[i], why, sizeof(why));
	if (!ret)
		ret = wfi_config_finish(cfg, why, sizeof(why));
	if (ret)
		fprintf(stderr, "weftd: %s\n", why);
	return ret;
}

/* where other nodes find this one, on the network of its rail: where it listens, else where it
 * would dial from. Return: whether that is known */
static bool own_addr(const struct wfi_config *cfg, unsigned rail, char host[INET_TEXT])
{
	char text[WFI_CONFIG_PATH];
	const char *items[NODE_NETS_MAX];
	unsigned i;

	memcpy(text, cfg->listen, sizeof(cfg->listen));
	if (wfi_value_split(text, items, NODE_NETS_MAX) > rail)
		return !inet_host(items[rail], host);
	for (i = 0; i < cfg->nr_peers; i++) {
		memcpy(text, cfg->peers[i].address, sizeof(text));
		if (text[0] && wfi_value_split(text, items, NODE_NETS_MAX) > rail)
			return !inet_source(items[rail], host);
	}
	return false;
}

static int create_node(const struct wfi_config *cfg, struct wfi_env *env, struct node **out)
{
	static struct wfi_tenant_opts tenants[WFI_CONFIG_TENANTS];
	struct node_opts opts = {
		.env = env,
		.name = cfg->name,
		.node_id = cfg->node_id,
		.tier_path = cfg->tier_path,
		.tier_bytes = cfg->tier_bytes,
		.tier_write_bps = cfg->tier_write_bytes,
		.tier_scrub_bps = cfg->tier_scrub_bytes,
		.gpu_tier_bytes = cfg->gpu_tier_bytes,
		.gpu_tier_write_bps = cfg->gpu_tier_write_bytes,
		.policy = cfg->policy[0] ? cfg->policy : NULL,
		.transport = wfi_config_has_net(cfg) ? cfg->transport : NULL,
		.silent_ms = (uint32_t)cfg->silent_ms,
		.memory_bytes = wfi_config_shares_memory(cfg) ? cfg->memory_bytes : 0,
		.tenant_idle_ns = cfg->tenant_idle_ms * WFI_NSEC_PER_MSEC,
		.spin_ns = cfg->spin_us * WFI_NSEC_PER_USEC,
		.lease_ns = cfg->lease_ms * WFI_NSEC_PER_MSEC,
		.op_timeout_ns = cfg->op_timeout_ms * WFI_NSEC_PER_MSEC,
		.ring_bytes = cfg->ring_bytes,
		.memfds_only = !cfg->private_memory,
		.copy_after = cfg->keep_after ? (uint32_t)cfg->keep_after : WFI_COPY_NEVER,
		.tenants = tenants,
		.nr_tenants = cfg->nr_tenants,
	};
	static char addrs[NODE_NETS_MAX][INET_TEXT];
	char devices[sizeof(cfg->device)];
	unsigned i;

	memcpy(devices, cfg->device, sizeof(devices));
	opts.nr_devices = wfi_value_split(devices, opts.devices, NODE_NETS_MAX);
	for (i = 0; i < NODE_NETS_MAX; i++)
		opts.addrs[i] = own_addr(cfg, i, addrs[i]) ? addrs[i] : NULL;
	for (i = 0; i < cfg->nr_tenants; i++)
		membership_tenant(cfg, &cfg->tenants[i], &tenants[i]);
	return node_create(&opts, out);
}

static void *control_main(void *arg)
{
	control_run(arg);
	return NULL;
}

/* one that is reached over several devices is several. Return: how many */
static unsigned peer_add(const struct wfi_config_peer *p, char text[WFI_CONFIG_PATH],
			 struct control_peer out[NODE_NETS_MAX])
{
	const char *addrs[NODE_NETS_MAX];
	unsigned nr, i;

	if (p->socket[0]) {
		out[0] = (struct control_peer){ .name = p->name, .addr = p->socket };
		return 1;
	}
	memcpy(text, p->address, WFI_CONFIG_PATH);
	nr = wfi_value_split(text, addrs, NODE_NETS_MAX);
	for (i = 0; i < nr; i++)
		out[i] = (struct control_peer){
			.name = p->name, .addr = addrs[i], .net = true, .rail = i
		};
	return nr;
}

/* Return: 0, and NULL where connections are plain; -errno: logged */
static int secure_open(const struct wfi_config *cfg, struct wfi_env *env, struct secure **out)
{
	const char *allow[WFI_CONFIG_ALLOW];
	char text[WFI_CONFIG_ALLOW_TEXT], why[SECURE_WHY];
	struct tls_opts opts = {
		.env = env,
		.cert = cfg->tls_cert,
		.key = cfg->tls_key,
		.ca = cfg->tls_ca,
		.node = cfg->name,
		.allow = allow,
	};
	int ret;

	*out = NULL;
	if (!wfi_config_has_net(cfg))
		return 0;
	if (cfg->insecure)
		wfi_warn("insecure: nodes on other hosts connect unencrypted and unproven; all who "
			 "reach this network may read every block");
	if (!wfi_config_has_tls(cfg))
		return 0;
	memcpy(text, cfg->tls_allow, sizeof(text));
	opts.nr_allow = wfi_value_split(text, allow, WFI_CONFIG_ALLOW);
	ret = tls_create(&opts, out, why);
	if (ret)
		wfi_err("%s", why);
	return ret;
}

/* Return: 0, and NULL where nobody is to ask; -errno: logged */
static int http_open(const struct wfi_config *cfg, struct node *node, struct http **out)
{
	const struct http_opts opts = { .env = node->env,
					.node = node,
					.listen = cfg->http_listen };

	return *cfg->http_listen ? http_create(&opts, out) : 0;
}

static int serve(const struct wfi_config *cfg, struct node *node)
{
	static struct control_peer peers[WFI_CONFIG_PEERS * NODE_NETS_MAX];
	static char texts[WFI_CONFIG_PEERS + 1][WFI_CONFIG_PATH];
	const char *listens[NODE_NETS_MAX];
	struct control_opts opts = {
		.node = node,
		.socket = cfg->socket,
		.listens = listens,
		.peers = peers,
		.signals = true,
		.certificates = wfi_config_has_tls(cfg),
	};
	struct membership *membership;
	struct http *http = NULL;
	struct control *control;
	pthread_t thread;
	unsigned i;
	int ret;

	memcpy(texts[WFI_CONFIG_PEERS], cfg->listen, sizeof(cfg->listen));
	opts.nr_listens = wfi_value_split(texts[WFI_CONFIG_PEERS], listens, NODE_NETS_MAX);
	for (i = 0; i < cfg->nr_peers; i++)
		opts.nr_peers += peer_add(&cfg->peers[i], texts[i], &peers[opts.nr_peers]);
	ret = secure_open(cfg, node->env, &opts.secure);
	if (ret)
		return ret;
	ret = membership_open(cfg, node, &membership);
	if (ret)
		goto out_secure;
	opts.membership = membership_control(membership);
	ret = http_open(cfg, node, &http);
	if (ret)
		goto out;
	opts.guest = http_guest(http);
	ret = control_create(&opts, &control);
	if (ret)
		goto out;
	ret = -pthread_create(&thread, NULL, control_main, control);
	if (!ret) {
		wfi_info("node %s listens on %s", cfg->name, cfg->socket);
		node_run(node);
		pthread_join(thread, NULL);
		wfi_info("node %s stops", cfg->name);
		/* the driver takes down what this process leaves */
		if (control_is_stuck(control))
			_exit(1);
	}
	control_destroy(control);
out:
	http_destroy(http);
	membership_close(membership);
out_secure:
	tls_destroy(opts.secure);
	return ret;
}

int main(int argc, char **argv)
{
	static struct wfi_config cfg;
	struct arguments a = { .file = NULL };
	struct wfi_env env;
	struct node *node;
	char name[96];
	sigset_t set;
	int ret;

	ret = parse_arguments(argc, argv, &a);
	if (ret >= 0)
		return ret;
	if (load_config(&a, &cfg))
		return 2;
	if (a.check) {
		wfi_config_print(&cfg, stdout);
		return 0;
	}
	snprintf(name, sizeof(name), "weftd[%s]", cfg.name);
	wfi_log_init(cfg.log_level, name);
	wfi_log_times();
	/* every thread blocks them: the control thread reads them as events */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* errors of the calls that meet them, which say what to do */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	ret = wfi_guard_install();
	if (!ret)
		ret = wfi_env_real_init(&env);
	if (!ret) {
		env.transports = wfi_transports;
		ret = create_node(&cfg, &env, &node);
	}
	if (ret) {
		fprintf(stderr, "weftd: can't start: %s\n", strerror(-ret));
		return 1;
	}
	ret = serve(&cfg, node);
	node_destroy(node);
	return ret ? 1 : 0;
}
