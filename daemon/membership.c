/* SPDX-License-Identifier: Apache-2.0 */
/* membership.c - the membership of weftd, and what it says while the node runs */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "membership.h"
#include "value.h"
#include "weft_internal/log.h"
#include "weft_internal/members.h"

#define SETTINGS "settings/"
#define TENANTS "tenants/"
#define PAIRS_MAX 16u

struct membership {
	struct node *node;
	struct wfi_members *members;
	struct control_membership control;
	char host[72];
	uint64_t changes; /* of the values */
	json_t *taken; /* values in force, by name */
	json_t *refused, *refused_before; /* list of {key, why} */
	struct wfi_config base; /* what file and command line say */
	struct wfi_config now; /* in force */
	struct wfi_config next, whole, tried;
};

/* ---- refusals ---- */

static bool is_among(const json_t *list, const json_t *item)
{
	size_t i;

	for (i = 0; i < json_array_size(list); i++)
		if (json_equal(json_array_get(list, i), item))
			return true;
	return false;
}

/* all values are looked at when one changes: the log is told of what it has not heard */
static void refuse(struct membership *ms, const char *key, const char *why)
{
	json_t *item = json_pack("{s:s, s:s}", "key", key, "why", why);

	if (!is_among(ms->refused_before, item))
		wfi_warn("membership: %s is refused, what was in force stays: %s", key, why);
	json_array_append_new(ms->refused, item);
}

/* ---- from values to settings ---- */

static const struct wfi_config_tenant *tenant_find(const struct wfi_config *cfg, const char *name)
{
	uint32_t i;

	for (i = 0; i < cfg->nr_tenants; i++)
		if (!strcmp(cfg->tenants[i].name, name))
			return &cfg->tenants[i];
	return NULL;
}

/* Return: why a tenant that runs can't become @t, or NULL */
static const char *tenant_fixed(const struct membership *ms, const struct wfi_config_tenant *t)
{
	const struct wfi_config_tenant *was = tenant_find(&ms->now, t->name);

	if (!was)
		return NULL;
	if (was->arena_bytes != t->arena_bytes)
		return "its arena_bytes can't change while the node runs";
	if (memcmp(was->salt, t->salt, sizeof(t->salt)) != 0)
		return "its salt can't change while the node runs; where none is given it is made "
		       "of name and token: give it one to change the token";
	if (was->tier_floor_bytes != t->tier_floor_bytes)
		return "its tier_floor_bytes can't change while the node runs";
	return NULL;
}

/* what was just changed in .tried, the tenant @name or a setting, is good together with all that is
 * in .next: it is the next one then. Return: 0, or -EINVAL and @why */
static int tried_finish(struct membership *ms, const char *tenant, char *why, size_t why_len)
{
	const bool shared = wfi_config_shares_memory(&ms->now);
	const char *fixed;

	ms->whole = ms->tried;
	if (wfi_config_finish(&ms->whole, why, why_len))
		return -EINVAL;
	fixed = tenant ? tenant_fixed(ms, tenant_find(&ms->whole, tenant)) : NULL;
	if (!fixed && wfi_config_shares_memory(&ms->whole) != shared)
		fixed = shared ? "without it tenants share memory_bytes: that takes a restart"
			       : "with it tenants would share memory_bytes: that takes a restart";
	if (fixed) {
		snprintf(why, why_len, "%s", fixed);
		return -EINVAL;
	}
	ms->next = ms->tried;
	return 0;
}

/* Return: 0; -EINVAL and @why */
static int setting_take(struct membership *ms, const char *key, const char *text, char *why,
			size_t why_len)
{
	const char *name = key + strlen(SETTINGS);
	char set[4200];

	ms->tried = ms->next;
	if (snprintf(set, sizeof(set), "%s=%s", name, text) >= (int)sizeof(set))
		snprintf(why, why_len, "it is too long");
	else if (wfi_config_set_at(&ms->tried, "the value", set, why, why_len))
		;
	else if (!wfi_config_may_change(name, &ms->now, &ms->tried))
		snprintf(why, why_len,
			 "%s can't change while the node runs: set it in the file, and restart",
			 name);
	else
		return tried_finish(ms, NULL, why, why_len);
	return -EINVAL;
}

/* an object of settings as pairs of texts. Return: how many; -EINVAL it is none */
static int pairs_of(json_t *obj, struct wfi_config_pair *pairs, char numbers[][24])
{
	const char *key;
	json_t *v;
	int nr = 0;

	if (!json_is_object(obj) || json_object_size(obj) > PAIRS_MAX)
		return -EINVAL;
	json_object_foreach(obj, key, v)
	{
		pairs[nr].key = key;
		pairs[nr].text = json_string_value(v);
		if (json_is_integer(v)) {
			snprintf(numbers[nr], sizeof(numbers[nr]), "%" JSON_INTEGER_FORMAT,
				 json_integer_value(v));
			pairs[nr].text = numbers[nr];
		}
		if (!pairs[nr++].text)
			return -EINVAL;
	}
	return nr;
}

/* Return: 0; -EINVAL and @why */
static int tenant_take(struct membership *ms, const char *key, const char *text, char *why,
		       size_t why_len)
{
	const char *name = key + strlen(TENANTS);
	struct wfi_config_pair pairs[PAIRS_MAX];
	char numbers[PAIRS_MAX][24];
	json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int nr = pairs_of(obj, pairs, numbers), ret = -EINVAL;

	ms->tried = ms->next;
	if (nr < 0)
		snprintf(why, why_len,
			 "a tenant is an object of settings, as {\"token\": \"...\", "
			 "\"arena_bytes\": \"4G\"}");
	else
		ret = wfi_config_tenant_set(&ms->tried, "the value", name, pairs, (unsigned)nr, why,
					    why_len);
	json_decref(obj);
	return ret ? ret : tried_finish(ms, name, why, why_len);
}

static int take(struct membership *ms, const char *key, const char *text, char *why, size_t why_len)
{
	return strncmp(key, SETTINGS, strlen(SETTINGS)) ? tenant_take(ms, key, text, why, why_len)
							: setting_take(ms, key, text, why, why_len);
}

/* what can't be taken leaves what was taken under that name before */
static void value_take(struct membership *ms, const char *key, json_t *value, json_t *taken)
{
	json_t *was = json_object_get(ms->taken, key);
	char why[WFI_CONFIG_WHY], again[WFI_CONFIG_WHY];

	if (!take(ms, key, json_string_value(value), why, sizeof(why))) {
		json_object_set_new(taken, key, json_copy(value));
		return;
	}
	refuse(ms, key, why);
	if (was && !take(ms, key, json_string_value(was), again, sizeof(again)))
		json_object_set_new(taken, key, json_copy(was));
}

/* ---- from settings to the node: Context of run_: worker ---- */

struct apply {
	struct membership *ms;
	struct wfi_tenant_opts opts;
	struct wfi_tenant *tenant;
	int ret;
};

static void run_settings(struct node *node, void *arg)
{
	const struct wfi_config *cfg = &((struct apply *)arg)->ms->whole;

	node->spin_ns = cfg->spin_us * WFI_NSEC_PER_USEC;
	node->lease_ns = cfg->lease_ms * WFI_NSEC_PER_MSEC;
	node->op_timeout_ns = cfg->op_timeout_ms * WFI_NSEC_PER_MSEC;
	node->ring_bytes = cfg->ring_bytes;
	node->memfds_only = !cfg->private_memory;
}

static void run_tenant(struct node *node, void *arg)
{
	struct apply *a = arg;

	if (!a->tenant) {
		a->ret = node_tenant_add(node, &a->opts);
		return;
	}
	a->ret = wfi_kv_tenant_set(a->tenant, &a->opts);
	if (!a->ret)
		wfi_kv_tenant_close(a->tenant, false);
}

static void run_close(struct node *node, void *arg)
{
	(void)node;
	wfi_kv_tenant_close(((struct apply *)arg)->tenant, true);
}

void membership_tenant(const struct wfi_config *cfg, const struct wfi_config_tenant *t,
		       struct wfi_tenant_opts *out)
{
	*out = (struct wfi_tenant_opts){
		.name = t->name,
		.token = t->token,
		.arena_bytes = t->arena_bytes,
		.floor_bytes = t->floor_bytes,
		.tier_floor_bytes = t->tier_floor_bytes,
		.weight = (uint32_t)t->weight,
		.map_flags = (cfg->hugepages ? WFI_MAP_HUGE : 0) |
			     (cfg->prefault ? WFI_MAP_PREFAULT : 0),
	};
	memcpy(out->salt, t->salt, sizeof(out->salt));
}

static struct wfi_tenant *node_tenant(const struct node *node, const char *name)
{
	unsigned i;

	for (i = 0; i < node->nr_tenants; i++)
		if (!strcmp(wfi_tenant_name(node->tenants[i]), name))
			return node->tenants[i];
	return NULL;
}

static bool tenant_same(const struct wfi_config_tenant *a, const struct wfi_config_tenant *b)
{
	return a && !memcmp(a->token, b->token, sizeof(a->token)) &&
	       a->floor_bytes == b->floor_bytes && a->weight == b->weight;
}

/* Return: 1 it is a new one, 0 it is what it should be, -errno: it is as it was */
static int tenant_apply(struct membership *ms, const struct wfi_config_tenant *t)
{
	struct apply a = { .ms = ms, .tenant = node_tenant(ms->node, t->name) };
	char key[WFI_CONFIG_NAME + sizeof(TENANTS)], why[128];

	if (a.tenant && tenant_same(tenant_find(&ms->now, t->name), t))
		return 0;
	membership_tenant(&ms->whole, t, &a.opts);
	/* the worker is not to wait for all of its pages */
	a.opts.map_flags &= ~(unsigned)WFI_MAP_PREFAULT;
	node_call(ms->node, run_tenant, &a);
	if (!a.ret) {
		wfi_info("membership: tenant %s %s", t->name, a.tenant ? "has changed" : "is new");
		return !a.tenant;
	}
	snprintf(key, sizeof(key), TENANTS "%s", t->name);
	snprintf(why, sizeof(why), "%s; the log says more", strerror(-a.ret));
	refuse(ms, key, why);
	return a.ret;
}

/* what is in force of the @i-th tenant of .whole is what was before, or nothing: a value that comes
 * later is held against that. Return: the tenant to go on with */
static uint32_t tenant_keep(struct membership *ms, uint32_t i)
{
	struct wfi_config_tenant *t = &ms->whole.tenants[i];
	const struct wfi_config_tenant *was = tenant_find(&ms->now, t->name);

	if (was) {
		*t = *was;
		return i + 1;
	}
	ms->whole.nr_tenants--;
	memmove(t, t + 1, (ms->whole.nr_tenants - i) * sizeof(*t));
	return i;
}

/* those that nobody names any more take no new engine; their memory goes when the node does */
static void tenants_close(struct membership *ms)
{
	struct apply a = { .ms = ms };
	unsigned i;

	for (i = 0; i < ms->now.nr_tenants; i++) {
		const char *name = ms->now.tenants[i].name;

		a.tenant = node_tenant(ms->node, name);
		if (!a.tenant || tenant_find(&ms->whole, name))
			continue;
		wfi_info("membership: tenant %s was taken away: it takes no new engine, and keeps "
			 "its memory until the node restarts",
			 name);
		node_call(ms->node, run_close, &a);
	}
}

/* Return: whether there is a tenant that peers do not know */
static bool apply(struct membership *ms)
{
	struct apply a = { .ms = ms };
	bool is_new = false;
	uint32_t i = 0;
	int ret;

	wfi_log_set_level(ms->whole.log_level);
	node_call(ms->node, run_settings, &a);
	tenants_close(ms);
	while (i < ms->whole.nr_tenants) {
		ret = tenant_apply(ms, &ms->whole.tenants[i]);
		is_new |= ret > 0;
		i = ret < 0 ? tenant_keep(ms, i) : i + 1;
	}
	ms->now = ms->whole;
	return is_new;
}

static void values_take(struct membership *ms, json_t *values)
{
	json_t *taken = json_object(), *v;
	const char *key;

	json_decref(ms->refused_before);
	ms->refused_before = ms->refused;
	ms->refused = json_array();
	ms->next = ms->base;
	json_object_foreach(values, key, v)
	{
		value_take(ms, key, v, taken);
	}
	json_decref(ms->taken);
	ms->taken = taken;
	/* each step was whole, so that this one is */
	ms->whole = ms->next;
}

static bool on_changed(void *ctx)
{
	struct membership *ms = ctx;
	char why[WFI_CONFIG_WHY];
	json_t *values = wfi_members_values(ms->members, &ms->changes);

	if (!values)
		return false;
	values_take(ms, values);
	json_decref(values);
	if (wfi_config_finish(&ms->whole, why, sizeof(why))) {
		refuse(ms, "settings", why);
		return false;
	}
	return apply(ms);
}

/* ---- weft status ---- */

static json_t *on_status(void *ctx)
{
	struct membership *ms = ctx;
	struct wfi_members_status st;

	wfi_members_status(ms->members, &st);
	return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:O}", "kind",
			 st.kind, "cluster", ms->now.cluster, "state",
			 wfi_members_state_name(st.state), "since_s",
			 (json_int_t)((wfi_now(ms->node->env) - st.since_ns) / WFI_NSEC_PER_SEC),
			 "where", st.where, "why", st.why, "epoch", (json_int_t)st.epoch,
			 "reconnects", (json_int_t)st.reconnects, "lost", (json_int_t)st.lost,
			 "bad_records", (json_int_t)st.bad, "clock_skew_ms",
			 (json_int_t)st.clock_skew_ms, "refused", ms->refused);
}

/* ---- life ---- */

static void on_news(void *ctx)
{
	node_poke(ctx);
}

static int members_open(const struct wfi_config *cfg, struct membership *ms)
{
	char urls[WFI_CONFIG_STORE], password[WFI_CONFIG_SECRET] = "";
	struct wfi_members_opts opts = {
		.env = ms->node->env,
		.cluster = cfg->cluster,
		.user = cfg->etcd_user,
		.password = password,
		.ca_file = cfg->etcd_ca,
		.cert_file = cfg->etcd_cert,
		.key_file = cfg->etcd_key,
		.lease_ns = cfg->member_lease_ms * WFI_NSEC_PER_MSEC,
		.notify = on_news,
		.ctx = ms->node,
	};
	int ret = 0;

	_Static_assert(WFI_CONFIG_ENDPOINTS == WFI_MEMBERS_ENDPOINTS, "the same list");
	if (!strncmp(cfg->membership, "file:", 5)) {
		opts.file = cfg->membership + 5;
	} else {
		strcpy(urls, cfg->membership + 5);
		opts.nr_endpoints = wfi_value_split(urls, opts.endpoints, WFI_MEMBERS_ENDPOINTS);
	}
	if (cfg->etcd_password_file[0])
		ret = wfi_config_secret(cfg->etcd_password_file, password, sizeof(password));
	if (ret)
		wfi_err("etcd_password_file %s: %s", cfg->etcd_password_file, strerror(-ret));
	else
		ret = wfi_members_open(&opts, &ms->members);
	sodium_memzero(password, sizeof(password));
	return ret;
}

int membership_open(const struct wfi_config *cfg, struct node *node, struct membership **out)
{
	struct membership *ms;
	int ret;

	*out = NULL;
	if (!strcmp(cfg->membership, "none"))
		return 0;
	ms = wfi_alloc(node->env, sizeof(*ms));
	if (!ms)
		return -ENOMEM;
	ms->node = node;
	ms->base = ms->now = *cfg;
	ms->refused = json_array();
	wfi_member_host(ms->host);
	ms->control = (struct control_membership){
		.host = ms->host, .changed = on_changed, .status = on_status, .ctx = ms
	};
	ret = members_open(cfg, ms);
	if (ret) {
		membership_close(ms);
		return ret;
	}
	*out = ms;
	return 0;
}

const struct control_membership *membership_control(struct membership *ms)
{
	return ms ? &ms->control : NULL;
}

void membership_close(struct membership *ms)
{
	if (!ms)
		return;
	wfi_members_close(ms->members);
	json_decref(ms->taken);
	json_decref(ms->refused_before);
	json_decref(ms->refused);
	wfi_free(ms->node->env, ms, sizeof(*ms));
}
