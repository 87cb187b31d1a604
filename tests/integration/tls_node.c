/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/pki.h"
#include "tests/integration/port.h"
#include "tests/integration/tls_node.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"
#include "weft_internal/transport_registry.h"

char dir[64];
static struct {
	pthread_mutex_t lock;
	char text[1 << 18];
	size_t len;
} lines = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void keep_line(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	pthread_mutex_lock(&lines.lock);
	if (lines.len + strlen(line) + 2 < sizeof(lines.text))
		lines.len += (size_t)snprintf(lines.text + lines.len,
					      sizeof(lines.text) - lines.len, "%s\n", line);
	pthread_mutex_unlock(&lines.lock);
}

bool logged(const char *text)
{
	bool yes;

	pthread_mutex_lock(&lines.lock);
	yes = strstr(lines.text, text) != NULL;
	pthread_mutex_unlock(&lines.lock);
	return yes;
}

void log_forget(void)
{
	pthread_mutex_lock(&lines.lock);
	lines.len = 0;
	lines.text[0] = 0;
	pthread_mutex_unlock(&lines.lock);
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

unsigned fds_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned nr = 0;

	while (d && readdir(d))
		nr++;
	if (d)
		closedir(d);
	return nr;
}

/* some go in the background, with the memory of nodes that were stopped */
void await_fds(unsigned before)
{
	const uint64_t end_ms = now_ms() + WAIT_MS;

	while (fds_open() > before) {
		if (now_ms() > end_ms)
			fail_msg("%u descriptors are open, %u were before", fds_open(), before);
		poll(NULL, 0, 20);
	}
}

/* ---- certificates ---- */

const char *in_dir(const char *name)
{
	static char path[8][256];
	static unsigned turn;

	snprintf(path[++turn % 8], sizeof(path[0]), "%s/%s", dir, name);
	return path[turn % 8];
}

void dir_copy(const char *from, const char *to)
{
	char buf[8192], tmp[300];
	FILE *in = fopen(in_dir(from), "re"), *out;
	size_t len;

	assert_non_null(in);
	len = fread(buf, 1, sizeof(buf), in);
	fclose(in);
	snprintf(tmp, sizeof(tmp), "%s.new", in_dir(to));
	out = fopen(tmp, "we");
	assert_non_null(out);
	assert_int_equal(fwrite(buf, 1, len, out), len);
	fclose(out);
	assert_int_equal(chmod(tmp, 0600), 0);
	assert_int_equal(rename(tmp, in_dir(to)), 0);
}

static void pki(const char *ca, const char *name, uint64_t days)
{
	char why[WFI_PKI_WHY];

	if (wfi_pki_node(in_dir(ca), name, NULL, 0, days, why))
		fail_msg("%s", why);
}

int tls_setup(void **state)
{
	char why[WFI_PKI_WHY];

	(void)state;
	strcpy(dir, "/tmp/weft-tls-XXXXXX");
	if (!mkdtemp(dir) || wfi_pki_init(in_dir("pki"), "t.example", 10, why) ||
	    wfi_pki_init(in_dir("other"), "t.example", 10, why))
		return -1;
	pki("pki", "a", 10);
	pki("pki", "b", 10);
	pki("pki", "c", 10);
	pki("other", "b", 10);
	mkdir(in_dir("old"), 0700);
	mkdir(in_dir("live"), 0700);
	dir_copy("pki/ca.crt", "old/ca.crt");
	dir_copy("pki/ca.key", "old/ca.key");
	pki("old", "b", 0);
	pki("old", "a", 9);
	return 0;
}

int tls_cleanup(void **state)
{
	char cmd[96];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

/* ---- nodes ---- */

/* one thread is the worker of all nodes: ends of the reference transport belong to one */
static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	struct node *nodes[2];
	bool stop;
} workers = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *workers_main(void *arg)
{
	bool stop = false;
	unsigned i;
	int work;

	(void)arg;
	while (!stop) {
		work = 0;
		pthread_mutex_lock(&workers.lock);
		for (i = 0; i < WFI_ARRAY_SIZE(workers.nodes); i++)
			work += workers.nodes[i] ? node_poll(workers.nodes[i]) : 0;
		stop = workers.stop;
		pthread_mutex_unlock(&workers.lock);
		if (!work)
			poll(NULL, 0, 1);
	}
	return NULL;
}

void workers_start(void)
{
	signal(SIGPIPE, SIG_IGN);
	wfi_log_set_sink(keep_line, NULL);
	wfi_log_init(WFI_LOG_INFO, "");
	if (wfi_guard_install() || pthread_create(&workers.thread, NULL, workers_main, NULL))
		exit(1);
}

void workers_stop(void)
{
	pthread_mutex_lock(&workers.lock);
	workers.stop = true;
	pthread_mutex_unlock(&workers.lock);
	pthread_join(workers.thread, NULL);
}

static void workers_swap(struct node *out, struct node *in)
{
	unsigned i;

	pthread_mutex_lock(&workers.lock);
	for (i = 0; workers.nodes[i] != out; i++)
		;
	workers.nodes[i] = in;
	pthread_mutex_unlock(&workers.lock);
}

static void *control_main(void *arg)
{
	control_run(arg);
	return NULL;
}

static void side_node(struct side *s, const struct side_opts *o)
{
	const struct wfi_tenant_opts tenant = {
		.name = "t", .token = "", .arena_bytes = 1 << 20, .salt = { 7 }
	};
	const struct node_opts opts = {
		.env = &s->env,
		.name = o->name,
		.node_id = (unsigned char)o->name[0],
		.transport = o->transports ? o->transports[0]->name : "loop",
		.lease_ns = WFI_NSEC_PER_SEC,
		.op_timeout_ns = WFI_NSEC_PER_SEC,
		.tenants = &tenant,
		.nr_tenants = 1,
	};

	assert_int_equal(wfi_env_real_init(&s->env), 0);
	s->env.transports = o->transports ? o->transports : wfi_transports;
	assert_int_equal(node_create(&opts, &s->node), 0);
}

void side_secure(struct side *s, const struct side_opts *o)
{
	char cert[256], key[256], ca[256], why[SECURE_WHY];
	struct tls_opts opts = {
		.env = &s->env,
		.cert = cert,
		.key = key,
		.ca = ca,
		.node = o->name,
		.allow = &o->allow,
		.nr_allow = o->allow != NULL,
	};

	snprintf(cert, sizeof(cert), "%s/%s/%s.crt", dir, o->pki, o->name);
	snprintf(key, sizeof(key), "%s/%s/%s.key", dir, o->pki, o->name);
	snprintf(ca, sizeof(ca), "%s/%s/ca.crt", dir, o->pki);
	if (tls_create(&opts, &s->secure, why))
		fail_msg("%s", why);
}

void side_start(struct side *s, const struct side_opts *o)
{
	const struct control_peer peer = { .name = o->peer, .addr = s->peer, .net = true };
	const char *const listens[] = { s->listen };
	struct control_opts opts = {
		.socket = s->socket,
		.listens = listens,
		.nr_listens = 1,
		.peers = &peer,
		.nr_peers = o->peer != NULL,
	};

	memset(s, 0, sizeof(*s));
	side_node(s, o);
	if (o->pki)
		side_secure(s, o);
	snprintf(s->socket, sizeof(s->socket), "%s/%s.sock", dir, o->name);
	s->port = test_free_port();
	snprintf(s->listen, sizeof(s->listen), "127.0.0.1:%u", s->port);
	snprintf(s->peer, sizeof(s->peer), "127.0.0.1:%u", o->port);
	opts.node = s->node;
	opts.secure = s->secure;
	assert_int_equal(control_create(&opts, &s->control), 0);
	workers_swap(NULL, s->node);
	assert_int_equal(pthread_create(&s->thread, NULL, control_main, s->control), 0);
}

void side_stop(struct side *s)
{
	control_stop(s->control);
	pthread_join(s->thread, NULL);
	workers_swap(s->node, NULL);
	control_destroy(s->control);
	tls_destroy(s->secure);
	node_destroy(s->node);
}

/* ---- what a node shows ---- */

static json_t *status(const struct side *s)
{
	char cmd[400];
	json_t *root;
	FILE *out;

	snprintf(cmd, sizeof(cmd), "'%s' status --json --socket '%s'", getenv("WEFT"), s->socket);
	out = popen(cmd, "re");
	assert_non_null(out);
	root = json_loadf(out, 0, NULL);
	pclose(out);
	assert_non_null(root);
	return root;
}

/* some entry of a list has the text */
bool shows(const struct side *s, const char *list, const char *key, const char *text)
{
	json_t *root = status(s), *all, *one;
	const char *value;
	bool yes = false;
	size_t i;

	all = json_object_get(root, list);
	if (!all)
		all = json_object_get(json_object_get(root, "network"), list);
	for (i = 0; i < json_array_size(all) && !yes; i++) {
		one = json_array_get(all, i);
		value = json_string_value(json_object_get(one, key));
		yes = value && strstr(value, text);
	}
	json_decref(root);
	return yes;
}

void await_shown(const struct side *s, const char *list, const char *key, const char *text)
{
	const uint64_t end_ms = now_ms() + WAIT_MS;

	while (!shows(s, list, key, text)) {
		if (now_ms() > end_ms)
			fail_msg("no %s of %s has \"%s\"; the log:\n%s", key, list, text,
				 lines.text);
		poll(NULL, 0, 20);
	}
}

static json_int_t certificate_loads(const struct side *s, bool *complains)
{
	json_t *root = status(s), *cert;
	json_int_t loads;

	cert = json_object_get(json_object_get(root, "network"), "certificate");
	loads = json_integer_value(json_object_get(cert, "loads"));
	*complains = *json_string_value(json_object_get(cert, "why")) != 0;
	json_decref(root);
	return loads;
}

void await_loads(const struct side *s, int64_t loads, bool complains)
{
	const uint64_t end_ms = now_ms() + WAIT_MS;
	bool now;

	while (certificate_loads(s, &now) < loads || now != complains) {
		if (now_ms() > end_ms)
			fail_msg("the certificate is not loaded anew; the log:\n%s", lines.text);
		poll(NULL, 0, 20);
	}
}
