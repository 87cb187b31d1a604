/* SPDX-License-Identifier: Apache-2.0 */
/**
 * config.h - the configuration of a node: defaults, one file, overrides
 *
 * One table in config.c names every setting with its type, range, default and help; files,
 * overrides, the annotated default file and the printed configuration are all read from it.
 *
 *	wfi_config_defaults(&cfg);
 *	wfi_config_load("/etc/weft/weftd.conf", &cfg, why, sizeof(why));    if there is a file
 *	wfi_config_set(&cfg, "arena_bytes=4G", why, sizeof(why));           each -o
 *	wfi_config_finish(&cfg, why, sizeof(why));
 *
 * Errors fill @why with one sentence: file and line (or the override), the key, what is wrong, and
 * for an unknown key the nearest valid one.
 *
 * Context: before threads start.
 */
#ifndef WFI_CONFIG_H
#define WFI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "weft/ring.h"
#include "weft_internal/log.h"

#define WFI_CONFIG_DEFAULT_FILE "/etc/weft/weftd.conf" /* read when it is there */
#define WFI_CONFIG_NAME 64
#define WFI_CONFIG_PATH 108 /* sun_path */
#define WFI_CONFIG_SALT 32
#define WFI_CONFIG_TENANTS 64
#define WFI_CONFIG_RAILS 4
#define WFI_CONFIG_PEERS 64
#define WFI_CONFIG_FILE 256 /* a path that is no socket's */
#define WFI_CONFIG_ALLOW 16
#define WFI_CONFIG_ALLOW_TEXT 1024
#define WFI_CONFIG_STORE 1024
#define WFI_CONFIG_ENDPOINTS 8
#define WFI_CONFIG_SECRET 128
#define WFI_CONFIG_WHY 1024 /* bytes that hold any @why */

struct wfi_config_tenant {
	char name[WFI_CONFIG_NAME];
	char token[WEFT_TOKEN_MAX + 1]; /* zero-padded; "": of engines that have none */
	uint8_t salt[WFI_CONFIG_SALT];
	uint64_t arena_bytes;
	uint64_t floor_bytes; /* of memory_bytes */
	uint64_t tier_floor_bytes;
	uint64_t weight; /* after wfi_config_finish() never 0 */
	bool has_token;
	bool has_salt; /* after wfi_config_finish() always */
};

struct wfi_config_peer {
	char name[WFI_CONFIG_NAME];
	char socket[WFI_CONFIG_PATH]; /* this one or .address, the other is "" */
	char address[WFI_CONFIG_PATH];
};

struct wfi_config {
	char name[WFI_CONFIG_NAME];
	char socket[WFI_CONFIG_PATH];
	char listen[WFI_CONFIG_PATH]; /* IP:PORT for each rail, or "" */
	char http_listen[WFI_CONFIG_PATH]; /* IP:PORT, or "" */
	char transport[16]; /* "none", or one that reaches other hosts */
	char device[WFI_CONFIG_PATH]; /* one for each rail, between commas */
	char tls_cert[WFI_CONFIG_FILE]; /* these three or none */
	char tls_key[WFI_CONFIG_FILE];
	char tls_ca[WFI_CONFIG_FILE];
	char tls_allow[WFI_CONFIG_ALLOW_TEXT]; /* patterns, between commas */
	char policy[32]; /* one that wfi_evict_find() knows */
	uint64_t node_id; /* after wfi_config_finish() never 0 */
	uint64_t arena_bytes; /* of each tenant that names none */
	uint64_t memory_bytes; /* of all arenas together; 0: not shared */
	uint64_t tenant_idle_ms;
	char tier_path[WFI_CONFIG_PATH]; /* "": no SSD tier */
	uint64_t keep_after; /* fetches of a block of another node; 0: never */
	uint64_t tier_bytes;
	uint64_t tier_write_bytes; /* a second; 0: no bound */
	uint64_t tier_scrub_bytes; /* a second; 0: none */
	uint64_t gpu_tier_bytes; /* on each GPU; 0: no tier there */
	uint64_t gpu_tier_write_bytes; /* a second; 0: no bound */
	uint64_t ring_bytes; /* of all rings of one tenant */
	uint64_t spin_us;
	uint64_t lease_ms;
	uint64_t op_timeout_ms;
	uint64_t silent_ms; /* 0: the transport's own */
	enum wfi_log_level log_level;
	char membership[WFI_CONFIG_STORE]; /* "none", "file:/PATH", "etcd:URL,URL" */
	char cluster[WFI_CONFIG_NAME];
	uint64_t member_lease_ms;
	char etcd_user[WFI_CONFIG_NAME]; /* "": none */
	char etcd_password_file[WFI_CONFIG_STORE];
	char etcd_ca[WFI_CONFIG_STORE]; /* "": those that the system trusts */
	char etcd_cert[WFI_CONFIG_STORE];
	char etcd_key[WFI_CONFIG_STORE];
	bool hugepages;
	bool prefault;
	bool private_memory;
	bool insecure;
	uint32_t nr_tenants;
	uint32_t nr_peers;
	struct wfi_config_tenant tenants[WFI_CONFIG_TENANTS];
	struct wfi_config_peer peers[WFI_CONFIG_PEERS];
};

/* what a node does that was told nothing. Cannot fail: host name and environment have fallbacks */
void wfi_config_defaults(struct wfi_config *cfg);

/**
 * wfi_config_load - read a file over what @cfg has
 *
 * Lists (tenants, peers) replace those that @cfg had. Secrets that others may read are said in the
 * log. On an error @cfg is half changed, and of no more use.
 *
 * Return: 0; -ENOENT, -EACCES and others of open(2); -EINVAL the text is wrong.
 */
int wfi_config_load(const char *path, struct wfi_config *cfg, char *why, size_t why_len);

/**
 * wfi_config_set - one override, "key=value"
 *
 * Values stand without quotes: "policy=lru", "op_timeout_ms=2s". A list is written as in a file:
 * `peers=({ name = "b"; socket = "/run/weft/b.sock"; })`.
 *
 * Return: 0, -EINVAL.
 */
int wfi_config_set(struct wfi_config *cfg, const char *text, char *why, size_t why_len);

/* the same; @where stands in front of @why */
int wfi_config_set_at(struct wfi_config *cfg, const char *where, const char *text, char *why,
		      size_t why_len);

/**
 * wfi_config_finish - after the last change: what follows from other settings
 *
 * A default tenant when there is none, arenas and salts of tenants that name none, the node's id.
 *
 * Return: 0, -EINVAL.
 */
int wfi_config_finish(struct wfi_config *cfg, char *why, size_t why_len);

/* a key and its value, as in an override */
struct wfi_config_pair {
	const char *key, *text;
};

/**
 * wfi_config_tenant_set - a tenant as others than the file say it is
 * @where: stands in front of @why
 *
 * It takes the place of one of that name. Before wfi_config_finish(), for which this may be called
 * again after it.
 *
 * Return: 0, -EINVAL.
 */
int wfi_config_tenant_set(struct wfi_config *cfg, const char *where, const char *name,
			  const struct wfi_config_pair *pairs, unsigned nr, char *why,
			  size_t why_len);

/* Return: whether a running node can take it from @b in place of what @a has: it is one of those
 * settings that can be changed meanwhile, or it is the same */
bool wfi_config_may_change(const char *key, const struct wfi_config *a, const struct wfi_config *b);

/* the first line of a file that holds a secret, in @room bytes; warns when others may read it.
 * Return: 0, -EFBIG, other -errno */
int wfi_config_secret(const char *path, char *buf, size_t room);

/* nodes on other hosts can be reached */
bool wfi_config_has_net(const struct wfi_config *cfg);
/* connections to nodes on other hosts are secured by certificates */
bool wfi_config_has_tls(const struct wfi_config *cfg);
/* the tenants' arenas together are more than memory_bytes */
bool wfi_config_shares_memory(const struct wfi_config *cfg);
/* the settings in force, in the form of a file; secrets are left out */
void wfi_config_print(const struct wfi_config *cfg, FILE *out);
/* the default file with an explanation of each setting (weftd --help-config) */
void wfi_config_print_help(FILE *out);

#endif
