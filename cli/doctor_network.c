/* SPDX-License-Identifier: Apache-2.0 */
/* certificates and peers, tried as a node would */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/doctor.h"
#include "daemon/config.h"
#include "daemon/inet.h"
#include "daemon/stream.h"
#include "daemon/tls.h"
#include "daemon/value.h"

#define ANSWER_MS 3000

struct look {
	struct wfi_config cfg;
	struct wfi_env env;
	struct secure *secure;
	void (*found)(void *ctx, const char *name, const struct wfi_finding *f);
	void *ctx;
};

/* ---- peers ---- */

/* waits until something can be done. Return: false: it took too long */
static bool ready(struct look *l, const struct stream *s, uint64_t end_ns)
{
	struct pollfd pfd = { .fd = s->fd, .events = POLLIN };
	const uint64_t now_ns = wfi_now(&l->env);

	if (stream_wants_write(s))
		pfd.events |= POLLOUT;
	return now_ns < end_ns && poll(&pfd, 1, (int)((end_ns - now_ns) / WFI_NSEC_PER_MSEC) + 1);
}

/* what it says first. Return: 0, other -errno and s->why */
static int first_word(struct look *l, struct stream *s, struct stream_msg *msg)
{
	const uint64_t end_ns = wfi_now(&l->env) + ANSWER_MS * WFI_NSEC_PER_MSEC;
	int ret;

	do {
		ret = stream_ready(s);
		if (!ret)
			ret = stream_next(s, msg);
		if (ret == 1)
			return 0;
	} while (ret == -EAGAIN && ready(l, s, end_ns));
	if (ret == -EAGAIN) {
		snprintf(s->why, sizeof(s->why), "does not answer within %d s%s", ANSWER_MS / 1000,
			 l->secure ? "" : ": it may want certificates");
		ret = -ETIMEDOUT;
	}
	return ret;
}

static void judge(const struct look *l, const char *name, const char *addr, struct stream *s,
		  int err, const struct stream_msg *msg, struct wfi_finding *f)
{
	const struct wire_hello *hello = msg->body;
	const struct wire_refuse *refuse = msg->body;

	if (err)
		wfi_found(f, s->connected ? WFI_HEALTH_FAIL : WFI_HEALTH_WARN,
			  s->connected ? NULL : "start it, or correct its address", "%s %s", addr,
			  s->why);
	else if (msg->type == WIRE_REFUSE)
		wfi_found(f, WFI_HEALTH_FAIL, NULL, "%s refuses this node: %s", addr, refuse->why);
	else if (msg->type != WIRE_HELLO)
		wfi_found(f, WFI_HEALTH_FAIL, NULL, "%s does not say who it is", addr);
	else if (strcmp(hello->name, name))
		wfi_found(f, l->secure ? WFI_HEALTH_FAIL : WFI_HEALTH_WARN,
			  "correct the name or the address of this peer", "%s is node %s", addr,
			  hello->name);
	else if (strcmp(hello->transport, l->cfg.transport))
		wfi_found(f, WFI_HEALTH_FAIL, "set one transport on both",
			  "%s reaches others over %s", addr, hello->transport);
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "%s answers%s", addr,
			  l->secure ? ", and both certificates are good" : "");
}

static void check_peer(struct look *l, const char *name, const char *addr)
{
	struct stream s = { .env = NULL };
	struct stream_msg msg = { .body = NULL };
	struct wfi_finding f = { .todo = "" };
	char title[80];
	int fd = inet_dial(addr), ret = fd < 0 ? fd : 0;

	if (ret)
		snprintf(s.why, sizeof(s.why), "can't be reached: %s", strerror(-ret));
	else
		ret = stream_init(&s, &l->env, fd, true, l->secure);
	if (!ret)
		ret = first_word(l, &s, &msg);
	judge(l, name, addr, &s, ret, &msg, &f);
	stream_fini(&s);
	if (fd >= 0)
		close(fd);
	snprintf(title, sizeof(title), "peer %s", name);
	l->found(l->ctx, title, &f);
}

static void check_peers(struct look *l)
{
	const char *addrs[WFI_CONFIG_RAILS];
	char text[WFI_CONFIG_PATH];
	unsigned i, k, nr;

	for (i = 0; i < l->cfg.nr_peers; i++) {
		memcpy(text, l->cfg.peers[i].address, sizeof(text));
		nr = wfi_value_split(text, addrs, WFI_CONFIG_RAILS);
		for (k = 0; k < nr; k++)
			check_peer(l, l->cfg.peers[i].name, addrs[k]);
	}
}

/* ---- certificates ---- */

static void check_key(const struct look *l, struct wfi_finding *f)
{
	struct stat st;

	if (!stat(l->cfg.tls_key, &st) && st.st_mode & (S_IRWXG | S_IRWXO) & ~S_IRGRP)
		wfi_found(f, WFI_HEALTH_WARN, "chmod 600 it", "others may read %s", l->cfg.tls_key);
}

static void check_certificate(struct look *l, struct wfi_finding *f)
{
	const char *allow[WFI_CONFIG_ALLOW];
	char text[WFI_CONFIG_ALLOW_TEXT], why[SECURE_WHY], age[WFI_TEXT];
	struct tls_opts opts = {
		.env = &l->env,
		.cert = l->cfg.tls_cert,
		.key = l->cfg.tls_key,
		.ca = l->cfg.tls_ca,
		.node = l->cfg.name,
		.allow = allow,
	};
	struct secure_info info;
	int64_t left_s;
	int ret;

	memcpy(text, l->cfg.tls_allow, sizeof(text));
	opts.nr_allow = wfi_value_split(text, allow, WFI_CONFIG_ALLOW);
	ret = tls_create(&opts, &l->secure, why);
	if (ret) {
		wfi_found(f, WFI_HEALTH_FAIL,
			  ret == -EACCES ? "run weft doctor as the node's user, or root" : NULL,
			  "%s", why);
		return;
	}
	l->secure->ops->info(l->secure, &info);
	left_s = info.expires_s - (int64_t)(l->env.clock->wall_ns(&l->env) / WFI_NSEC_PER_SEC);
	if (left_s <= 0) {
		wfi_found(f, WFI_HEALTH_FAIL, "make another: weft pki node", "%s has expired",
			  info.id);
		return;
	}
	wfi_text_age((uint64_t)left_s, age);
	if (info.soon)
		wfi_found(f, WFI_HEALTH_WARN, "make another: weft pki node", "%s expires in %s",
			  info.id, age);
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "%s, good for %s", info.id, age);
	if (f->health == WFI_HEALTH_OK)
		check_key(l, f);
}

/* Return: 0, -errno of bind(2) */
static int try_address(const char *text)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd, on = 1, ret = inet_parse(text, &addr, &len);

	if (ret)
		return ret;
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&addr, len) || listen(fd, 1))
		ret = -errno;
	close(fd);
	return ret;
}

/* an address that weftd will want to itself */
static void check_http(struct look *l)
{
	const char *at = l->cfg.http_listen;
	struct wfi_finding f = { .todo = "" };
	int ret;

	if (!*at)
		return;
	ret = try_address(at);
	if (!ret)
		wfi_found(&f, WFI_HEALTH_OK, NULL, "%s is free", at);
	else if (ret == -EADDRINUSE)
		wfi_found(&f, WFI_HEALTH_WARN, "unless it is this node: choose another http_listen",
			  "%s is taken", at);
	else
		wfi_found(&f, WFI_HEALTH_FAIL, "choose another http_listen", "%s: %s", at,
			  strerror(-ret));
	l->found(l->ctx, "http", &f);
}

static void check_security(struct look *l)
{
	struct wfi_finding f = { .todo = "" };

	if (wfi_config_has_tls(&l->cfg))
		check_certificate(l, &f);
	else if (l->cfg.insecure)
		wfi_found(&f, WFI_HEALTH_WARN, "make certificates: weft pki",
			  "none: connections to other hosts are plain text, and nothing is proved");
	else
		wfi_found(&f, WFI_HEALTH_OK, NULL, "none, and no address but loopback needs any");
	l->found(l->ctx, "certificates", &f);
}

/* Return: whether there are settings to look at */
static bool settings(struct look *l, const char *file)
{
	char why[WFI_CONFIG_WHY];
	struct wfi_finding f;
	int ret = 0;

	wfi_config_defaults(&l->cfg);
	if (!file && !access(WFI_CONFIG_DEFAULT_FILE, F_OK))
		file = WFI_CONFIG_DEFAULT_FILE;
	if (!file)
		return false;
	ret = wfi_config_load(file, &l->cfg, why, sizeof(why));
	if (!ret)
		ret = wfi_config_finish(&l->cfg, why, sizeof(why));
	if (!ret)
		ret = wfi_env_real_init(&l->env);
	if (!ret)
		return true;
	memset(&f, 0, sizeof(f));
	wfi_found(&f, ret == -EACCES ? WFI_HEALTH_WARN : WFI_HEALTH_FAIL, NULL, "%s", why);
	l->found(l->ctx, "settings", &f);
	return false;
}

static void check_connections(struct look *l)
{
	if (!wfi_config_has_net(&l->cfg))
		return;
	wfi_check_devices(&l->cfg, &l->env, l->found, l->ctx);
	check_security(l);
	if (l->secure || !wfi_config_has_tls(&l->cfg))
		check_peers(l);
}

void wfi_check_network(const char *config,
		       void (*found)(void *ctx, const char *name, const struct wfi_finding *f),
		       void *ctx)
{
	struct look *l = calloc(1, sizeof(*l));

	if (!l)
		return;
	l->found = found;
	l->ctx = ctx;
	if (settings(l, config)) {
		check_http(l);
		check_connections(l);
	}
	tls_destroy(l->secure);
	free(l);
}
