/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/config.h"
#include "daemon/config_kind.h"
#include "daemon/value.h"
#include "weft_internal/env.h"
#include "weft_internal/evict.h"
#include "weft_internal/util.h"

#define SYSTEM_SOCKET "/run/weft/weftd.sock"
#define OVERRIDE_MAX 4096

/* ---- the tables ---- */

static const char *level_name(unsigned idx)
{
	static const char *const names[] = {
		[WFI_LOG_ERR] = "error",
		[WFI_LOG_WARN] = "warn",
		[WFI_LOG_INFO] = "info",
		[WFI_LOG_DEBUG] = "debug",
	};

	return idx < WFI_ARRAY_SIZE(names) ? names[idx] : NULL;
}

static const char *policy_name(unsigned idx)
{
	return wfi_evict_policies[idx] ? wfi_evict_policies[idx]->name : NULL;
}

/* those that reach other hosts */
static const char *transport_name(unsigned idx)
{
	static const char *const names[] = { "none", "auto", "verbs", "ucx", "tcp", NULL };

	return names[idx];
}

#define AT(type, member)                                                                           \
	.off = offsetof(struct type, member), .room = sizeof(((struct type *)0)->member)

static const struct wfi_config_setting tenant_settings[] = {
	{ .key = "name",
	  .kind = &wfi_config_kind_name,
	  AT(wfi_config_tenant, name),
	  .example = "\"blue\"",
	  .flags = WFI_CONFIG_REQUIRED | WFI_CONFIG_UNIQUE,
	  .help = "shown by weft status" },
	{ .key = "token",
	  .kind = &wfi_config_kind_token,
	  AT(wfi_config_tenant, token),
	  .flags = WFI_CONFIG_UNIQUE,
	  .help = "what its engines give as WEFT_TOKEN; one tenant may go without" },
	{ .key = "token_file",
	  .kind = &wfi_config_kind_token_file,
	  AT(wfi_config_tenant, token),
	  .example = "\"/etc/weft/blue.token\"",
	  .help = "the same, as the first line of a file" },
	{ .key = "salt",
	  .kind = &wfi_config_kind_salt,
	  AT(wfi_config_tenant, salt),
	  .help = "64 hex digits, equal on all nodes; goes into every key of the tenant.\n"
		  "Left out: made of name and token" },
	{ .key = "salt_file",
	  .kind = &wfi_config_kind_salt_file,
	  AT(wfi_config_tenant, salt),
	  .help = "the same, as the first line of a file" },
	{ .key = "arena_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config_tenant, arena_bytes),
	  .min = 1 << 20,
	  .max = 1ull << 46,
	  .example = "\"4G\"",
	  .help = "memory for its blocks; left out: arena_bytes above" },
	{ .key = "floor_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config_tenant, floor_bytes),
	  .max = 1ull << 46,
	  .example = "\"1G\"",
	  .help = "of memory_bytes, kept for it whatever others want; left out: none" },
	{ .key = "tier_floor_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config_tenant, tier_floor_bytes),
	  .max = 1ull << 46,
	  .example = "\"10G\"",
	  .help = "of the SSD tier, kept for it once it has used them; left out: none" },
	{ .key = "weight",
	  .kind = &wfi_config_kind_count,
	  AT(wfi_config_tenant, weight),
	  .min = 1,
	  .max = 1000,
	  .example = "2",
	  .help = "what it gets for 1 of the others where all want more; left out: 1" },
};

static const struct wfi_config_list tenant_list = {
	.settings = tenant_settings,
	.nr = WFI_ARRAY_SIZE(tenant_settings),
	.max = WFI_CONFIG_TENANTS,
	.entry_bytes = sizeof(struct wfi_config_tenant),
	.nr_off = offsetof(struct wfi_config, nr_tenants),
	.one = "tenant",
};

static const struct wfi_config_setting peer_settings[] = {
	{ .key = "name",
	  .kind = &wfi_config_kind_name,
	  AT(wfi_config_peer, name),
	  .example = "\"node-b\"",
	  .flags = WFI_CONFIG_REQUIRED | WFI_CONFIG_UNIQUE,
	  .help = "the other node's name" },
	{ .key = "socket",
	  .kind = &wfi_config_kind_path,
	  AT(wfi_config_peer, socket),
	  .example = "\"/run/weft-b/weftd.sock\"",
	  .flags = WFI_CONFIG_UNIQUE_SET,
	  .help = "its socket, when it is on this host" },
	{ .key = "address",
	  .kind = &wfi_config_kind_address,
	  AT(wfi_config_peer, address),
	  .example = "\"192.0.2.2:7470\"",
	  .flags = WFI_CONFIG_UNIQUE_SET,
	  .help = "what it listens on, when it is on another host" },
};

static const struct wfi_config_list peer_list = {
	.settings = peer_settings,
	.nr = WFI_ARRAY_SIZE(peer_settings),
	.max = WFI_CONFIG_PEERS,
	.entry_bytes = sizeof(struct wfi_config_peer),
	.nr_off = offsetof(struct wfi_config, nr_peers),
	.one = "peer",
};

static const struct wfi_config_setting settings[] = {
	{ .key = "name",
	  .kind = &wfi_config_kind_name,
	  AT(wfi_config, name),
	  .example = "\"node-a\"",
	  .help = "Name of this node. Default: the host's name, up to its first dot." },
	{ .key = "socket",
	  .kind = &wfi_config_kind_path,
	  AT(wfi_config, socket),
	  .example = "\"" SYSTEM_SOCKET "\"",
	  .help = "Where engines attach. Default: WEFT_SOCKET of the environment; for users other\n"
		  "than root $XDG_RUNTIME_DIR/weft/weftd.sock; else what stands here." },
	{ .key = "node_id",
	  .kind = &wfi_config_kind_id,
	  AT(wfi_config, node_id),
	  .def = "0",
	  .help = "Number of this node among others. 0: made of the name." },
	{ .key = "arena_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, arena_bytes),
	  .def = "1G",
	  .min = 1 << 20,
	  .max = 1ull << 46,
	  .help = "Memory for blocks of each tenant that does not say its own. It is used as it\n"
		  "fills, unless prefault is set." },
	{ .key = "memory_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, memory_bytes),
	  .def = "0",
	  .max = 1ull << 46,
	  .help = "Memory for the blocks of all tenants together, where that is less than their\n"
		  "arenas: they share it by their floors and weights. 0: nobody shares." },
	{ .key = "tenant_idle_ms",
	  .kind = &wfi_config_kind_duration,
	  AT(wfi_config, tenant_idle_ms),
	  .def = "1m",
	  .unit_ns = WFI_NSEC_PER_MSEC,
	  .min = WFI_NSEC_PER_MSEC,
	  .max = 24 * 3600 * WFI_NSEC_PER_SEC,
	  .help = "A tenant whose blocks were not used for so long loses what it has above its\n"
		  "floor to those who want it." },
	{ .key = "ring_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, ring_bytes),
	  .def = "256M",
	  .min = 1 << 20,
	  .max = 1ull << 36,
	  .flags = WFI_CONFIG_LIVE,
	  .help = "Memory for all rings of one tenant's engines. A ring has 4 MiB unless its\n"
		  "engine asks for more; it is taken when the ring is opened." },
	{ .key = "hugepages",
	  .kind = &wfi_config_kind_bool,
	  AT(wfi_config, hugepages),
	  .def = "true",
	  .help = "Use huge pages where there are any. Where not, the log says so once." },
	{ .key = "prefault",
	  .kind = &wfi_config_kind_bool,
	  AT(wfi_config, prefault),
	  .def = "false",
	  .help = "Take all of the arenas' memory at the start, so that a lack of it shows then." },
	{ .key = "private_memory",
	  .kind = &wfi_config_kind_bool,
	  AT(wfi_config, private_memory),
	  .def = "true",
	  .flags = WFI_CONFIG_LIVE,
	  .help = "Let engines register memory that no memfd backs. The node waits for such\n"
		  "memory as long as it takes to come: an engine that has it served by FUSE,\n"
		  "or by a privileged userfaultfd, could hold up the others." },
	{ .key = "transport",
	  .kind = &wfi_config_kind_policy,
	  AT(wfi_config, transport),
	  .choice = transport_name,
	  .def = "none",
	  .help = "How bytes go to and from nodes on other hosts: none; verbs, which is RDMA;\n"
		  "tcp; ucx, what UCX makes of what is there; or auto, verbs where there is an\n"
		  "RDMA device and tcp where there is none. All nodes take the same." },
	{ .key = "device",
	  .kind = &wfi_config_kind_device,
	  AT(wfi_config, device),
	  .example = "\"mlx5_0\"",
	  .help = "Which device of that transport: a NIC for verbs; an address or a network\n"
		  "interface for tcp; names of UCX_TLS with + between them, and perhaps @ and\n"
		  "an interface, for ucx. Default: its first that can be used.\n"
		  "Several, with commas between them, are rails: what is read from a node goes\n"
		  "over all that lead to it." },
	{ .key = "silent_ms",
	  .kind = &wfi_config_kind_duration,
	  AT(wfi_config, silent_ms),
	  .def = "0",
	  .unit_ns = WFI_NSEC_PER_MSEC,
	  .max = 3600 * WFI_NSEC_PER_SEC,
	  .help = "A node on another host that does not answer for so long is gone: 500ms or\n"
		  "more. Hosts that are short of processors need more. 0: what the transport\n"
		  "takes, 1.2s for verbs, 3s for tcp and ucx." },
	{ .key = "listen",
	  .kind = &wfi_config_kind_address,
	  AT(wfi_config, listen),
	  .example = "\"127.0.0.1:7470\"",
	  .help = "Where nodes on other hosts connect; of several devices, an address each, in\n"
		  "the same order. Default: nowhere." },
	{ .key = "http_listen",
	  .kind = &wfi_config_kind_address,
	  AT(wfi_config, http_listen),
	  .example = "\"127.0.0.1:7471\"",
	  .help = "Where /metrics, /healthz, /members, /route and /events are answered over\n"
		  "HTTP, unencrypted: an address of loopback, or with insecure any.\n"
		  "Default: nowhere." },
	{ .key = "tls_cert",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, tls_cert),
	  .example = "\"/etc/weft/pki/node-a.crt\"",
	  .help = "Certificate of this node, in PEM form: nodes on other hosts connect over TLS\n"
		  "1.3 and show theirs. weft pki makes them. Files are read anew when they\n"
		  "change. Default: none." },
	{ .key = "tls_key",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, tls_key),
	  .example = "\"/etc/weft/pki/node-a.key\"",
	  .help = "Its key." },
	{ .key = "tls_ca",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, tls_ca),
	  .example = "\"/etc/weft/pki/ca.crt\"",
	  .help = "Certificates of those who may sign those of nodes." },
	{ .key = "tls_allow",
	  .kind = &wfi_config_kind_ids,
	  AT(wfi_config, tls_allow),
	  .example = "\"spiffe://weft/weft/node/node-*\"",
	  .help = "Names in certificates that are let in, with commas between them; * stands for\n"
		  "any letters but /. Default: all nodes of this node's trust domain." },
	{ .key = "membership",
	  .kind = &wfi_config_kind_membership,
	  AT(wfi_config, membership),
	  .def = "none",
	  .help = "Who else is in the cluster: none, for one node and its peers below; file:PATH,\n"
		  "a list in JSON that is read anew when it changes; or etcd:URL,URL, where nodes\n"
		  "find each other, e.g. \"etcd:https://10.0.0.1:2379,https://10.0.0.2:2379\"." },
	{ .key = "cluster",
	  .kind = &wfi_config_kind_name,
	  AT(wfi_config, cluster),
	  .def = "default",
	  .help = "Name of the cluster: its keys in etcd begin with /weft/NAME/." },
	{ .key = "member_lease_ms",
	  .kind = &wfi_config_kind_duration,
	  AT(wfi_config, member_lease_ms),
	  .def = "10s",
	  .unit_ns = WFI_NSEC_PER_MSEC,
	  .min = WFI_NSEC_PER_SEC,
	  .max = 3600 * WFI_NSEC_PER_SEC,
	  .help = "How long etcd takes this node for alive that does not answer. Whole seconds." },
	{ .key = "etcd_user",
	  .kind = &wfi_config_kind_device,
	  AT(wfi_config, etcd_user),
	  .example = "\"weft\"",
	  .help = "As whom this node speaks to etcd. Default: nobody." },
	{ .key = "etcd_password_file",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, etcd_password_file),
	  .example = "\"/etc/weft/etcd.password\"",
	  .help = "File whose first line is that user's password." },
	{ .key = "etcd_ca",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, etcd_ca),
	  .example = "\"/etc/weft/etcd-ca.pem\"",
	  .help = "Certificates of those that etcd's may be signed by. Default: the system's." },
	{ .key = "etcd_cert",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, etcd_cert),
	  .example = "\"/etc/weft/etcd-client.pem\"",
	  .help = "Certificate that this node shows to etcd. Default: none." },
	{ .key = "etcd_key",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, etcd_key),
	  .example = "\"/etc/weft/etcd-client.key\"",
	  .help = "Its key." },
	{ .key = "insecure",
	  .kind = &wfi_config_kind_bool,
	  AT(wfi_config, insecure),
	  .def = "false",
	  .help = "Connect to nodes on other hosts without encryption or proof of who they are:\n"
		  "only on a network whose every user may read every block." },
	{ .key = "policy",
	  .kind = &wfi_config_kind_policy,
	  AT(wfi_config, policy),
	  .choice = policy_name,
	  .def = WFI_EVICT_DEFAULT,
	  .help = "Which blocks go when an arena is full: gittins, which learns what is used\n"
		  "again; or lru, s3fifo, arc, lfu." },
	{ .key = "keep_after",
	  .kind = &wfi_config_kind_count,
	  AT(wfi_config, keep_after),
	  .def = "2",
	  .max = 255,
	  .help = "A block of another node is kept here, too, once engines have fetched it so\n"
		  "often: popular blocks spread. 1: at once; 0: never." },
	{ .key = "tier_path",
	  .kind = &wfi_config_kind_any_path,
	  AT(wfi_config, tier_path),
	  .example = "\"/var/lib/weft/tier\"",
	  .help = "File or block device for blocks that memory has no room for. Default: none." },
	{ .key = "tier_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, tier_bytes),
	  .def = "16G",
	  .min = 1 << 20,
	  .max = 1ull << 46,
	  .help = "What that file may take. One that there is keeps its size." },
	{ .key = "tier_write_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, tier_write_bytes),
	  .def = "256M",
	  .max = 1ull << 46,
	  .help = "Bytes a second that may be written there, for the drive's endurance. Blocks\n"
		  "that were read while in memory come first. 0: no bound." },
	{ .key = "tier_scrub_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, tier_scrub_bytes),
	  .def = "8M",
	  .max = 1ull << 46,
	  .help = "Bytes a second that are read there to find what has gone bad. 0: none." },
	{ .key = "gpu_tier_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, gpu_tier_bytes),
	  .def = "0",
	  .max = 1ull << 40,
	  .help = "Memory of each GPU that engines have regions on, for copies of the blocks that\n"
		  "they get there again and again. Engines have to leave it free. 0: none." },
	{ .key = "gpu_tier_write_bytes",
	  .kind = &wfi_config_kind_size,
	  AT(wfi_config, gpu_tier_write_bytes),
	  .def = "1G",
	  .max = 1ull << 46,
	  .help = "Bytes a second that may be copied there, over the bus that gets use as\n"
		  "well. 0: no bound." },
	{ .key = "spin_us",
	  .kind = &wfi_config_kind_duration,
	  AT(wfi_config, spin_us),
	  .def = "50us",
	  .unit_ns = WFI_NSEC_PER_USEC,
	  .max = WFI_NSEC_PER_SEC,
	  .flags = WFI_CONFIG_LIVE,
	  .help = "How long the worker looks for more work before it sleeps, at most. When some\n"
		  "looks were in vain, most of the next ones are left out." },
	{ .key = "lease_ms",
	  .kind = &wfi_config_kind_duration,
	  AT(wfi_config, lease_ms),
	  .def = "30s",
	  .unit_ns = WFI_NSEC_PER_MSEC,
	  .min = WFI_NSEC_PER_MSEC,
	  .max = 3600 * WFI_NSEC_PER_SEC,
	  .flags = WFI_CONFIG_LIVE,
	  .help = "How long a lease pins its blocks when the engine does not release it." },
	{ .key = "op_timeout_ms",
	  .kind = &wfi_config_kind_duration,
	  AT(wfi_config, op_timeout_ms),
	  .def = "5s",
	  .unit_ns = WFI_NSEC_PER_MSEC,
	  .min = WFI_NSEC_PER_MSEC,
	  .max = 3600 * WFI_NSEC_PER_SEC,
	  .flags = WFI_CONFIG_LIVE,
	  .help = "Deadline of operations that come without one." },
	{ .key = "log_level",
	  .kind = &wfi_config_kind_level,
	  AT(wfi_config, log_level),
	  .choice = level_name,
	  .def = "info",
	  .flags = WFI_CONFIG_LIVE,
	  .help = "error, warn, info or debug." },
	{ .key = "tenants",
	  .kind = &wfi_config_kind_list,
	  AT(wfi_config, tenants),
	  .list = &tenant_list,
	  .help = "Who may attach. Default: one tenant, \"default\", of engines without a token." },
	{ .key = "peers",
	  .kind = &wfi_config_kind_list,
	  AT(wfi_config, peers),
	  .list = &peer_list,
	  .help = "Other nodes, to hand blocks over to." },
};

static const struct wfi_config_setting *setting_find(const struct wfi_config_setting *table,
						     unsigned nr, const char *key)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		if (!strcmp(table[i].key, key))
			return &table[i];
	return NULL;
}

static int unknown_key(struct wfi_config_source *src, const struct wfi_config_setting *table,
		       unsigned nr, const char *key)
{
	struct wfi_nearest near;
	char all[WFI_CONFIG_WHY - 192] = "";
	size_t used = 0;
	unsigned i;

	wfi_nearest_init(&near, key);
	for (i = 0; i < nr; i++) {
		wfi_nearest_offer(&near, table[i].key);
		if (used < sizeof(all))
			used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s",
						 i ? ", " : "", table[i].key);
	}
	if (near.best)
		return wfi_config_complain(
			src, NULL, "unknown setting \"%s\"; did you mean \"%s\"?", key, near.best);
	return wfi_config_complain(src, NULL, "unknown setting \"%s\"; known are: %s", key, all);
}

/* ---- reading ---- */

static int scalar_apply(struct wfi_config_source *src, const struct wfi_config_setting *s,
			config_setting_t *cs, void *base)
{
	const char *text = NULL;
	char number[32];
	unsigned type;

	switch (config_setting_type(cs)) {
	case CONFIG_TYPE_BOOL:
		type = WFI_CONFIG_TAKES_BOOL;
		text = config_setting_get_bool(cs) ? "true" : "false";
		break;
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		type = WFI_CONFIG_TAKES_NUMBER;
		snprintf(number, sizeof(number), "%lld", config_setting_get_int64(cs));
		text = number;
		break;
	case CONFIG_TYPE_STRING:
		type = WFI_CONFIG_TAKES_STRING;
		text = config_setting_get_string(cs);
		break;
	default:
		type = 0;
	}
	if (!(type & s->kind->takes))
		return wfi_config_complain(src, s->key, "wrong type: wants %s", s->kind->expects);
	if (text[0] == '-' && type == WFI_CONFIG_TAKES_NUMBER)
		return wfi_config_complain(src, s->key, "%s is out of range: not below 0", text);
	return s->kind->parse(src, s, text, base);
}

static int entry_check(struct wfi_config_source *src, const struct wfi_config_list *list,
		       const char *entries, unsigned idx)
{
	const char *entry = entries + idx * list->entry_bytes;
	const char *other;
	const struct wfi_config_setting *s;
	unsigned i, j;
	bool unique;

	for (i = 0; i < list->nr; i++) {
		s = &list->settings[i];
		if ((s->flags & WFI_CONFIG_REQUIRED) && !entry[s->off])
			return wfi_config_complain(src, s->key, "is missing in %s %u", list->one,
						   idx + 1);
		unique = s->flags & WFI_CONFIG_UNIQUE ||
			 (s->flags & WFI_CONFIG_UNIQUE_SET && entry[s->off]);
		for (j = 0; unique && j < idx; j++) {
			other = entries + j * list->entry_bytes;
			if (memcmp(entry + s->off, other + s->off, s->room))
				continue;
			if (s->off == 0)
				return wfi_config_complain(src, NULL, "duplicate %s \"%s\"",
							   list->one, entry);
			return wfi_config_complain(src, NULL,
						   "%s \"%s\" and \"%s\" have the same %s%s",
						   list->one, other, entry, s->key,
						   entry[s->off] ? "" : ": none");
		}
	}
	return 0;
}

static int entry_apply(struct wfi_config_source *src, const struct wfi_config_list *list,
		       config_setting_t *group, void *entry)
{
	const struct wfi_config_setting *s;
	config_setting_t *cs;
	int i, ret;

	for (i = 0; i < config_setting_length(group); i++) {
		cs = config_setting_get_elem(group, (unsigned)i);
		if (src->line)
			src->line = config_setting_source_line(cs);
		s = setting_find(list->settings, list->nr, config_setting_name(cs));
		if (!s)
			return unknown_key(src, list->settings, list->nr, config_setting_name(cs));
		ret = scalar_apply(src, s, cs, entry);
		if (ret)
			return ret;
	}
	return 0;
}

static int list_apply(struct wfi_config_source *src, const struct wfi_config_setting *s,
		      config_setting_t *cs, struct wfi_config *cfg)
{
	const struct wfi_config_list *list = s->list;
	uint32_t *nr = (uint32_t *)((char *)cfg + list->nr_off);
	char *entries = wfi_config_field(s, cfg);
	config_setting_t *group;
	int i, ret;

	if (!config_setting_is_list(cs))
		return wfi_config_complain(src, s->key, "wrong type: wants %s", s->kind->expects);
	if (config_setting_length(cs) > (int)list->max)
		return wfi_config_complain(src, s->key, "more than %u entries", list->max);
	memset(entries, 0, s->room);
	*nr = 0;
	src->list = s->key;
	for (i = 0; i < config_setting_length(cs); i++) {
		group = config_setting_get_elem(cs, (unsigned)i);
		if (src->line)
			src->line = config_setting_source_line(group);
		if (!config_setting_is_group(group))
			return wfi_config_complain(
				src, NULL, "wrong type: each %s is a group: { ... }", list->one);
		ret = entry_apply(src, list, group, entries + (size_t)i * list->entry_bytes);
		if (ret)
			return ret;
		if (src->line)
			src->line = config_setting_source_line(group);
		ret = entry_check(src, list, entries, (unsigned)i);
		if (ret)
			return ret;
	}
	src->list = NULL;
	*nr = (uint32_t)i;
	return 0;
}

static int root_apply(struct wfi_config_source *src, const config_t *conf, struct wfi_config *cfg)
{
	config_setting_t *root = config_root_setting(conf);
	const char *file = src->file;
	const struct wfi_config_setting *s;
	config_setting_t *cs;
	int i, ret;

	for (i = 0; i < config_setting_length(root); i++) {
		cs = config_setting_get_elem(root, (unsigned)i);
		if (src->line) {
			src->line = config_setting_source_line(cs);
			src->file = config_setting_source_file(cs);
			if (!src->file)
				src->file = file;
		}
		s = setting_find(settings, WFI_ARRAY_SIZE(settings), config_setting_name(cs));
		if (!s)
			return unknown_key(src, settings, WFI_ARRAY_SIZE(settings),
					   config_setting_name(cs));
		ret = s->list ? list_apply(src, s, cs, cfg) : scalar_apply(src, s, cs, cfg);
		if (ret)
			return ret;
	}
	src->file = file;
	return 0;
}

static const char *syntax_why(const config_t *conf)
{
	const char *text = config_error_text(conf);

	return strcmp(text, "syntax error") ? text
					    : "syntax error: settings are name = value; and text "
					      "stands in double quotes";
}

int wfi_config_load(const char *path, struct wfi_config *cfg, char *why, size_t why_len)
{
	struct wfi_config_source src = { .file = path, .line = 1, .why = why, .why_len = why_len };
	struct stat st;
	config_t conf;
	FILE *in;
	int ret;

	in = fopen(path, "re");
	if (!in || fstat(fileno(in), &st)) {
		ret = -errno;
		goto err_open;
	}
	if (S_ISDIR(st.st_mode)) {
		ret = -EISDIR;
		goto err_open;
	}
	config_init(&conf);
	if (!config_read(&conf, in)) {
		src.line = (unsigned)config_error_line(&conf);
		if (config_error_file(&conf))
			src.file = config_error_file(&conf);
		ret = wfi_config_complain(&src, NULL, "%s", syntax_why(&conf));
	} else {
		ret = root_apply(&src, &conf, cfg);
	}
	if (!ret && src.inline_secret && (st.st_mode & S_IROTH))
		wfi_warn("%s holds a secret and everybody may read it; chmod o-r %s", path, path);
	config_destroy(&conf);
	fclose(in);
	return ret;

err_open:
	snprintf(why, why_len, "%s: %s", path, strerror(-ret));
	if (in)
		fclose(in);
	return ret;
}

static int override_list(struct wfi_config_source *src, const char *text, struct wfi_config *cfg)
{
	char buf[OVERRIDE_MAX];
	config_t conf;
	int ret;

	if (snprintf(buf, sizeof(buf), "%s;", text) >= (int)sizeof(buf))
		return wfi_config_complain(src, NULL, "longer than %d bytes", OVERRIDE_MAX);
	config_init(&conf);
	if (!config_read_string(&conf, buf))
		ret = wfi_config_complain(src, NULL, "%s", syntax_why(&conf));
	else
		ret = root_apply(src, &conf, cfg);
	config_destroy(&conf);
	return ret;
}

int wfi_config_set(struct wfi_config *cfg, const char *text, char *why, size_t why_len)
{
	return wfi_config_set_at(cfg, "-o", text, why, why_len);
}

int wfi_config_set_at(struct wfi_config *cfg, const char *where, const char *text, char *why,
		      size_t why_len)
{
	struct wfi_config_source src = { .file = where, .why = why, .why_len = why_len };
	const char *eq = strchr(text, '=');
	const struct wfi_config_setting *s;
	char key[64];

	if (!eq || eq == text || eq - text >= (int)sizeof(key))
		return wfi_config_complain(&src, NULL, "\"%s\" is not key=value", text);
	snprintf(key, sizeof(key), "%.*s", (int)(eq - text), text);
	s = setting_find(settings, WFI_ARRAY_SIZE(settings), key);
	if (!s)
		return unknown_key(&src, settings, WFI_ARRAY_SIZE(settings), key);
	if (s->list)
		return override_list(&src, text, cfg);
	return s->kind->parse(&src, s, eq + 1, cfg);
}

/* ---- while the node runs ---- */

/* Return: the place of @name, which is empty, at the end of the list; NULL: there is no room */
static struct wfi_config_tenant *tenant_renew(struct wfi_config *cfg, const char *name)
{
	struct wfi_config_tenant *t = cfg->tenants;
	uint32_t i;

	for (i = 0; i < cfg->nr_tenants && strcmp(t[i].name, name) != 0; i++)
		;
	if (i < cfg->nr_tenants) {
		cfg->nr_tenants--;
		memmove(&t[i], &t[i + 1], (cfg->nr_tenants - i) * sizeof(*t));
	}
	if (cfg->nr_tenants == WFI_CONFIG_TENANTS)
		return NULL;
	memset(&t[cfg->nr_tenants], 0, sizeof(*t));
	return &t[cfg->nr_tenants];
}

int wfi_config_tenant_set(struct wfi_config *cfg, const char *where, const char *name,
			  const struct wfi_config_pair *pairs, unsigned nr, char *why,
			  size_t why_len)
{
	struct wfi_config_source src = { .file = where, .why = why, .why_len = why_len };
	const struct wfi_config_pair *p, me = { "name", name };
	struct wfi_config_tenant *t = tenant_renew(cfg, name);
	const struct wfi_config_setting *s;
	int ret;

	if (!t)
		return wfi_config_complain(&src, NULL, "more than %d tenants", WFI_CONFIG_TENANTS);
	ret = tenant_settings[0].kind->parse(&src, &tenant_settings[0], me.text, t);
	for (p = pairs; p < pairs + nr && !ret; p++) {
		s = setting_find(tenant_settings, tenant_list.nr, p->key);
		if (!s)
			return unknown_key(&src, tenant_settings, tenant_list.nr, p->key);
		if (s == &tenant_settings[0])
			ret = strcmp(p->text, name)
				      ? wfi_config_complain(&src, s->key, "is another")
				      : 0;
		else
			ret = s->kind->parse(&src, s, p->text, t);
	}
	if (!ret)
		ret = entry_check(&src, &tenant_list, (const char *)cfg->tenants, cfg->nr_tenants);
	if (!ret)
		cfg->nr_tenants++;
	return ret;
}

bool wfi_config_may_change(const char *key, const struct wfi_config *a, const struct wfi_config *b)
{
	const struct wfi_config_setting *s = setting_find(settings, WFI_ARRAY_SIZE(settings), key);

	if (!s || s->list)
		return false;
	return s->flags & WFI_CONFIG_LIVE ||
	       !memcmp(wfi_config_field_const(s, a), wfi_config_field_const(s, b), s->room);
}

/* ---- defaults ---- */

static void default_name(struct wfi_config *cfg)
{
	char host[HOST_NAME_MAX + 1] = "";
	size_t i;

	if (gethostname(host, sizeof(host) - 1))
		host[0] = 0;
	for (i = 0; i + 1 < sizeof(cfg->name) && host[i] && host[i] != '.'; i++)
		cfg->name[i] = isalnum((unsigned char)host[i]) || host[i] == '_' ? host[i] : '-';
	if (!i)
		memcpy(cfg->name, "node", sizeof("node"));
}

static void default_socket(struct wfi_config *cfg)
{
	const char *from_env = getenv("WEFT_SOCKET");
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	if (from_env && from_env[0] == '/')
		n = snprintf(cfg->socket, sizeof(cfg->socket), "%s", from_env);
	else if (geteuid() && runtime && runtime[0] == '/')
		n = snprintf(cfg->socket, sizeof(cfg->socket), "%s/weft/weftd.sock", runtime);
	else
		n = snprintf(cfg->socket, sizeof(cfg->socket), SYSTEM_SOCKET);
	if (n < (int)sizeof(cfg->socket))
		return;
	wfi_warn("the socket's path from the environment is too long; using " SYSTEM_SOCKET);
	snprintf(cfg->socket, sizeof(cfg->socket), SYSTEM_SOCKET);
}

void wfi_config_defaults(struct wfi_config *cfg)
{
	char why[WFI_CONFIG_WHY];
	struct wfi_config_source src = { .file = "defaults", .why = why, .why_len = sizeof(why) };
	unsigned i;

	memset(cfg, 0, sizeof(*cfg));
	for (i = 0; i < WFI_ARRAY_SIZE(settings); i++)
		if (settings[i].def)
			(void)settings[i].kind->parse(&src, &settings[i], settings[i].def, cfg);
	default_name(cfg);
	default_socket(cfg);
}

/* ---- printing ---- */

static void list_print(const struct wfi_config_setting *s, const struct wfi_config *cfg, FILE *out)
{
	const struct wfi_config_list *list = s->list;
	const uint32_t nr = *(const uint32_t *)((const char *)cfg + list->nr_off);
	const struct wfi_config_setting *es;
	const char *entry;
	unsigned i, j;

	fprintf(out, "%s = (", s->key);
	for (i = 0; i < nr; i++) {
		entry = (const char *)wfi_config_field_const(s, cfg) + i * list->entry_bytes;
		fprintf(out, "%s\n\t{\n", i ? "," : "");
		for (j = 0; j < list->nr; j++) {
			es = &list->settings[j];
			/* what may be left out, and was */
			if (!es->kind->print ||
			    (es->flags & WFI_CONFIG_UNIQUE_SET && !entry[es->off]))
				continue;
			fprintf(out, "\t\t%s = ", es->key);
			es->kind->print(es, entry, out);
			fputs(";\n", out);
		}
		fputs("\t}", out);
	}
	fputs(nr ? "\n);\n" : ");\n", out);
}

void wfi_config_print(const struct wfi_config *cfg, FILE *out)
{
	const struct wfi_config_setting *s;

	for (s = settings; s < settings + WFI_ARRAY_SIZE(settings); s++) {
		if (s->list) {
			list_print(s, cfg, out);
			continue;
		}
		if (!s->kind->print)
			continue;
		fprintf(out, "%s = ", s->key);
		s->kind->print(s, cfg, out);
		fputs(";\n", out);
	}
}

static void help_lines(const char *help, const char *indent, FILE *out)
{
	size_t len;

	for (; *help; help += len + (help[len] == '\n')) {
		len = strcspn(help, "\n");
		fprintf(out, "%s# %.*s\n", indent, (int)len, help);
	}
}

static void help_list(const struct wfi_config_setting *s, FILE *out)
{
	const struct wfi_config_setting *es;
	unsigned i;

	fprintf(out, "#%s = (\n#\t{\n", s->key);
	for (i = 0; i < s->list->nr; i++) {
		es = &s->list->settings[i];
		help_lines(es->help, "#\t\t", out);
		fprintf(out, "#\t\t%s%s = %s;\n", es->flags & WFI_CONFIG_REQUIRED ? "" : "#",
			es->key, es->example ? es->example : "\"...\"");
	}
	fputs("#\t}\n#);\n", out);
}

static void help_range(const struct wfi_config_setting *s, FILE *out)
{
	void (*const format)(uint64_t, char *) = s->unit_ns ? wfi_value_format_duration
							    : wfi_value_format_size;
	char min[WFI_VALUE_TEXT], max[WFI_VALUE_TEXT];
	unsigned i;

	if (s->max) {
		format(s->min, min);
		format(s->max, max);
		fprintf(out, "# From %s to %s.\n", min, max);
	}
	if (s->choice && !s->def) {
		fputs("# One of:", out);
		for (i = 0; s->choice(i); i++)
			fprintf(out, "%s %s", i ? "," : "", s->choice(i));
		fputs(".\n", out);
	}
}

void wfi_config_print_help(FILE *out)
{
	struct wfi_config cfg;
	const struct wfi_config_setting *s;

	wfi_config_defaults(&cfg);
	fputs("# weftd.conf - the configuration of a node; see weftd.conf(5).\n"
	      "# What stands here behind a # is the default. Sizes take K, M, G, T; durations\n"
	      "# take us, ms, s, m, h. Each setting can be overridden: weftd -o key=value.\n",
	      out);
	for (s = settings; s < settings + WFI_ARRAY_SIZE(settings); s++) {
		fputc('\n', out);
		help_lines(s->help, "", out);
		help_range(s, out);
		if (s->flags & WFI_CONFIG_LIVE)
			fputs("# May change while the node runs: see membership.\n", out);
		if (s->list) {
			help_list(s, out);
			continue;
		}
		fprintf(out, "#%s = ", s->key);
		if (s->example)
			fputs(s->example, out);
		else
			s->kind->print(s, &cfg, out);
		fputs(";\n", out);
	}
}
