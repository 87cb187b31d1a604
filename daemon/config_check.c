/* SPDX-License-Identifier: Apache-2.0 */
/* config_check.c - what follows from several settings, and what they must not be together */
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include "daemon/config.h"
#include "daemon/inet.h"
#include "daemon/value.h"
#include "weft_internal/members.h"
#include "weft_internal/util.h"

#define SILENT_MS_MIN 500u
#define SALT_KEY "weft tenant salt"

/* equal on all nodes that share a tenant's name and token, and on no others */
static void default_salt(struct wfi_config_tenant *t)
{
	unsigned char text[sizeof(t->name) + sizeof(t->token)];

	memcpy(text, t->name, sizeof(t->name));
	memcpy(text + sizeof(t->name), t->token, sizeof(t->token));
	crypto_generichash(t->salt, sizeof(t->salt), text, sizeof(text),
			   (const unsigned char *)SALT_KEY, sizeof(SALT_KEY) - 1);
	sodium_memzero(text, sizeof(text));
	t->has_salt = true;
}

/* keys are apart because salts are; and nodes know each other's tenants by them */
static int salts_check(const struct wfi_config *cfg, char *why, size_t why_len)
{
	const struct wfi_config_tenant *t = cfg->tenants;
	uint32_t i, j;

	for (i = 0; i < cfg->nr_tenants; i++) {
		for (j = 0; j < i; j++) {
			if (memcmp(t[i].salt, t[j].salt, sizeof(t->salt)))
				continue;
			snprintf(why, why_len,
				 "tenant \"%s\" and \"%s\" have the same salt: their keys would "
				 "meet; leave it out, or give each its own",
				 t[j].name, t[i].name);
			return -EINVAL;
		}
	}
	return 0;
}

bool wfi_config_has_net(const struct wfi_config *cfg)
{
	return strcmp(cfg->transport, "none") != 0;
}

bool wfi_config_has_tls(const struct wfi_config *cfg)
{
	return cfg->tls_cert[0];
}

static int tls_check(const struct wfi_config *cfg, char *why, size_t why_len)
{
	const char *what = NULL;

	if (!cfg->tls_cert[0] != !cfg->tls_key[0] || !cfg->tls_cert[0] != !cfg->tls_ca[0])
		what = "tls_cert, tls_key and tls_ca go together: set all three, or none";
	else if (cfg->tls_allow[0] && !cfg->tls_cert[0])
		what = "tls_allow is set and tls_cert is not: nobody shows a certificate";
	else if (cfg->tls_cert[0] && cfg->insecure)
		what = "tls_cert and insecure are set: leave one of the two out";
	if (!what)
		return 0;
	snprintf(why, why_len, "%s", what);
	return -EINVAL;
}

/* what is not encrypted stays on this host, unless somebody said so */
static int address_check(const struct wfi_config *cfg, const char *text, char *why, size_t why_len)
{
	struct sockaddr_storage addr;
	socklen_t len;

	if (cfg->insecure || wfi_config_has_tls(cfg) || inet_parse(text, &addr, &len) ||
	    inet_loopback(&addr))
		return 0;
	snprintf(why, why_len,
		 "%s is an address of a network: set tls_cert, tls_key and tls_ca (weft pki makes "
		 "them), or insecure = true (--insecure) if all of its users may read every block",
		 text);
	return -EINVAL;
}

/* addresses go with the devices at their places. Return: 0, -EINVAL */
static int addresses_check(const struct wfi_config *cfg, const char *list, char *why,
			   size_t why_len)
{
	char copy[WFI_CONFIG_PATH];
	const char *items[WFI_CONFIG_RAILS];
	unsigned nr, nr_devices, i;

	strcpy(copy, cfg->device);
	nr_devices = wfi_max(wfi_value_split(copy, items, WFI_CONFIG_RAILS), 1u);
	strcpy(copy, list);
	nr = wfi_value_split(copy, items, WFI_CONFIG_RAILS);
	if (nr > nr_devices) {
		snprintf(why, why_len,
			 "\"%s\" has %u addresses and device names %u: each address goes with the "
			 "device at its place",
			 list, nr, nr_devices);
		return -EINVAL;
	}
	for (i = 0; i < nr; i++)
		if (address_check(cfg, items[i], why, why_len))
			return -EINVAL;
	return 0;
}

/* one address, and what it says is not encrypted */
static int http_check(const struct wfi_config *cfg, char *why, size_t why_len)
{
	const char *text = cfg->http_listen;
	struct sockaddr_storage addr;
	socklen_t len;

	if (!*text)
		return 0;
	if (inet_parse(text, &addr, &len)) {
		snprintf(why, why_len, "http_listen: \"%s\" is not one IP:PORT", text);
		return -EINVAL;
	}
	if (!cfg->insecure && !inet_loopback(&addr)) {
		snprintf(why, why_len,
			 "http_listen: %s is an address of a network, and HTTP is not encrypted: "
			 "take one of loopback, or set insecure = true (--insecure) if all users "
			 "of that network may read what it says",
			 text);
		return -EINVAL;
	}
	if (!strcmp(text, cfg->listen)) {
		snprintf(why, why_len, "http_listen and listen are the same: give each its port");
		return -EINVAL;
	}
	return 0;
}

static int net_check(const struct wfi_config *cfg, char *why, size_t why_len)
{
	if (cfg->listen[0] && !wfi_config_has_net(cfg)) {
		snprintf(why, why_len, "listen is set and transport is not: set it to \"auto\"");
		return -EINVAL;
	}
	if (cfg->silent_ms && cfg->silent_ms < SILENT_MS_MIN) {
		snprintf(why, why_len,
			 "silent_ms is less than %u ms: a peer that is well may be silent for "
			 "half of that; take more, or 0 for what the transport takes",
			 SILENT_MS_MIN);
		return -EINVAL;
	}
	return addresses_check(cfg, cfg->listen, why, why_len);
}

static int peer_check(const struct wfi_config *cfg, const struct wfi_config_peer *p, char *why,
		      size_t why_len)
{
	if (!p->socket[0] == !p->address[0]) {
		snprintf(why, why_len,
			 "peer \"%s\" needs a socket (this host) or an address "
			 "(another), and not both",
			 p->name);
		return -EINVAL;
	}
	if (!strcmp(p->name, cfg->name) || (p->socket[0] && !strcmp(p->socket, cfg->socket)) ||
	    (p->address[0] && !strcmp(p->address, cfg->listen))) {
		snprintf(why, why_len, "peer \"%s\" has the name, socket or address of this node",
			 p->name);
		return -EINVAL;
	}
	if (p->address[0] && !wfi_config_has_net(cfg)) {
		snprintf(why, why_len,
			 "peer \"%s\" is on another host and transport is not set: set it to "
			 "\"auto\"",
			 p->name);
		return -EINVAL;
	}
	return addresses_check(cfg, p->address, why, why_len);
}

/* what goes to etcd in the clear stays on this host, unless somebody said so */
static int endpoint_check(const struct wfi_config *cfg, const char *url, char *why, size_t why_len)
{
	struct sockaddr_storage addr;
	socklen_t len;

	if (cfg->insecure || !strncmp(url, "https:", 6) || !strncmp(url, "http://localhost:", 17) ||
	    (!inet_parse(url + 7, &addr, &len) && inet_loopback(&addr)))
		return 0;
	snprintf(why, why_len,
		 "membership: %s is not encrypted: use https://, or set insecure = true (or "
		 "--insecure) if all of that network may see and change who is in the cluster",
		 url);
	return -EINVAL;
}

static int membership_check(const struct wfi_config *cfg, char *why, size_t why_len)
{
	char copy[WFI_CONFIG_STORE];
	const char *urls[WFI_CONFIG_ENDPOINTS];
	unsigned nr, i;

	if (!cfg->etcd_user[0] != !cfg->etcd_password_file[0]) {
		snprintf(why, why_len,
			 "etcd_user and etcd_password_file go together: set both, or none");
		return -EINVAL;
	}
	if (!cfg->etcd_cert[0] != !cfg->etcd_key[0]) {
		snprintf(why, why_len, "etcd_cert and etcd_key go together: set both, or none");
		return -EINVAL;
	}
	if (strncmp(cfg->membership, "etcd:", 5) != 0)
		return 0;
	if (cfg->member_lease_ms % 1000) {
		snprintf(why, why_len, "member_lease_ms is not in whole seconds");
		return -EINVAL;
	}
	strcpy(copy, cfg->membership + 5);
	nr = wfi_value_split(copy, urls, WFI_CONFIG_ENDPOINTS);
	for (i = 0; i < nr; i++)
		if (endpoint_check(cfg, urls[i], why, why_len))
			return -EINVAL;
	return 0;
}

bool wfi_config_shares_memory(const struct wfi_config *cfg)
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < cfg->nr_tenants; i++)
		sum += cfg->tenants[i].arena_bytes;
	return cfg->memory_bytes && sum > cfg->memory_bytes;
}

/* @left: of what all share. Return: 0, -EINVAL */
static int floor_check(const struct wfi_config_tenant *t, bool is_set, uint64_t left, char *why,
		       size_t why_len)
{
	const char *what = NULL;

	if (t->floor_bytes && !is_set)
		what = "has a floor, and memory_bytes is not set: nobody shares its arena";
	else if (t->floor_bytes > t->arena_bytes)
		what = "has a floor_bytes that is more than its arena_bytes";
	else if (t->floor_bytes > left)
		what = "and those before it have floors that are more than memory_bytes";
	if (!what)
		return 0;
	snprintf(why, why_len, "tenant \"%s\" %s", t->name, what);
	return -EINVAL;
}

static int share_check(const struct wfi_config *cfg, char *why, size_t why_len)
{
	uint64_t left = cfg->memory_bytes, tier_left = cfg->tier_bytes;
	uint32_t i;

	/* pages that a device holds, or that were taken for good, do not go from one to another */
	if (wfi_config_shares_memory(cfg) && (cfg->prefault || wfi_config_has_net(cfg))) {
		snprintf(why, why_len,
			 "memory_bytes is less than the arenas together, and %s is set: memory "
			 "that is pinned can't be shared; leave one of the two out",
			 cfg->prefault ? "prefault" : "transport");
		return -EINVAL;
	}
	for (i = 0; i < cfg->nr_tenants; i++) {
		if (floor_check(&cfg->tenants[i], cfg->memory_bytes, left, why, why_len))
			return -EINVAL;
		left -= cfg->tenants[i].floor_bytes;
		if (cfg->tenants[i].tier_floor_bytes > tier_left) {
			snprintf(
				why, why_len,
				"tenant \"%s\" and those before it have a tier_floor_bytes that is "
				"more than tier_bytes",
				cfg->tenants[i].name);
			return -EINVAL;
		}
		tier_left -= cfg->tenants[i].tier_floor_bytes;
	}
	return 0;
}

int wfi_config_finish(struct wfi_config *cfg, char *why, size_t why_len)
{
	struct wfi_config_tenant *t;
	uint32_t i;

	if (sodium_init() < 0) {
		snprintf(why, why_len, "libsodium does not start");
		return -EINVAL;
	}
	if (tls_check(cfg, why, why_len) || net_check(cfg, why, why_len) ||
	    http_check(cfg, why, why_len) || membership_check(cfg, why, why_len))
		return -EINVAL;
	for (i = 0; i < cfg->nr_peers; i++)
		if (peer_check(cfg, &cfg->peers[i], why, why_len))
			return -EINVAL;
	if (!cfg->nr_tenants) {
		memset(&cfg->tenants[0], 0, sizeof(cfg->tenants[0]));
		memcpy(cfg->tenants[0].name, "default", sizeof("default"));
		cfg->nr_tenants = 1;
	}
	for (i = 0; i < cfg->nr_tenants; i++) {
		t = &cfg->tenants[i];
		if (!t->arena_bytes)
			t->arena_bytes = cfg->arena_bytes;
		if (!t->weight)
			t->weight = 1;
		if (!t->has_salt)
			default_salt(t);
	}
	if (salts_check(cfg, why, why_len) || share_check(cfg, why, why_len))
		return -EINVAL;
	if (!cfg->node_id)
		cfg->node_id = wfi_member_id(cfg->name);
	return 0;
}
