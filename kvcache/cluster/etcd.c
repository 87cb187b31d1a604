/* SPDX-License-Identifier: Apache-2.0 */
/*
 * etcd.c - membership from etcd: a lease, a record, a watch
 *
 * One thread, one request at a time, and the watch beside it. Each turn does what is due: get a
 * token, read all that there is, watch what changes from there on, keep the lease, put the record.
 * What fails ends the connection; the next turn begins again at the next endpoint, reads all anew,
 * and goes on under the lease that it had.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvcache/cluster/etcd_http.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define CALL_MIN_NS WFI_NSEC_PER_SEC
#define CALL_MAX_NS (5 * WFI_NSEC_PER_SEC)
#define CLOSE_NS WFI_NSEC_PER_SEC
#define PAUSE_MIN_NS (100 * WFI_NSEC_PER_MSEC)
#define PAUSE_MAX_NS (5 * WFI_NSEC_PER_SEC)
/* all is read anew now and then, whatever the watch has told */
#define REREAD_NS (300 * WFI_NSEC_PER_SEC)
#define ROOT "/weft/"
#define NODES "nodes/"

struct etcd {
	struct wfi_members *m;
	struct etcd_http http;
	struct wfi_members_opts opts;
	char *strings; /* of .opts */
	size_t strings_len;
	char prefix[ETCD_KEY_MAX / 2];
	char why[WFI_MEMBERS_WHY];
	unsigned endpoint;
	unsigned failures; /* one after the other */
	uint64_t retry_ns;
	bool has_token;

	bool loaded;
	uint64_t revision; /* all up to it is known */
	uint64_t base; /* of epochs: what they were when the store went back */
	uint64_t load_rev; /* it was known at a stroke */
	uint64_t load_ns; /* when to read all anew */
	bool created; /* the watch was confirmed */
	uint64_t watch_ns; /* by when it has to be */

	uint64_t lease; /* 0: none */
	uint64_t lease_ns; /* as granted */
	uint64_t keep_ns; /* when to renew it, or to ask for a sign of life */
	bool put; /* our record is there */
	uint64_t put_rev; /* it was made, or changed, then */
	uint64_t create_rev; /* that it has, of its own or an earlier life's */
	uint64_t over; /* as in struct member_record */
	uint64_t self_changes; /* that the record has */
	struct wfi_member self; /* that it has */
	bool wanted; /* there is to be one */
	bool clash; /* another node has our id, and had it first */
	bool refused; /* until .claim_ns */
	char refused_why[WFI_MEMBERS_WHY];
	uint64_t claim_ns;
};

static uint64_t now(const struct etcd *e)
{
	return wfi_now(e->m->env);
}

static json_t *ask(struct etcd *e, const char *path, char *body, int *err)
{
	json_t *answer = etcd_http_call(&e->http, path, body, err, e->why, sizeof(e->why));

	if (!answer)
		return NULL;
	/* a store that was restored or emptied counts from where it is */
	if (etcd_revision(answer) && etcd_revision(answer) < e->revision)
		e->loaded = false;
	return answer;
}

/* ---- what the store says ---- */

/* Context: locked */
static void record_bad(struct etcd *e, const char *key, const char *why)
{
	e->m->status.bad++;
	wfi_warn("membership: the record %s is left out: %s", key, why);
}

/* Return: 0 and @r, its epoch too; -EINVAL: logged */
static int record_decode(struct etcd *e, const struct etcd_kv *kv, struct member_record *r)
{
	const char *name = kv->key + strlen(e->prefix) + strlen(NODES);
	char why[WFI_MEMBERS_WHY];
	json_t *json = NULL;
	int ret = -EINVAL;

	if (kv->bad)
		member_complain(why, sizeof(why), "%s", kv->bad);
	else
		json = member_json(kv->value, kv->len, why, sizeof(why));
	if (json)
		ret = member_decode(json, r, why, sizeof(why));
	json_decref(json);
	if (!ret && strcmp(r->m.name, name) != 0)
		ret = member_complain(why, sizeof(why), "it names another node");
	if (ret) {
		record_bad(e, kv->key, why);
		return ret;
	}
	r->m.epoch = r->base + r->over + kv->create_rev;
	return 0;
}

static void self_lost(struct etcd *e, const char *how)
{
	if (!e->put)
		return;
	e->put = false;
	e->lease = 0;
	e->claim_ns = 0;
	e->m->status.lost++;
	wfi_warn(
		"membership: this node's record was lost (%s): it is made anew, with a later epoch",
		how);
	wfi_member_view_keep(&e->m->view, now(e) + e->lease_ns);
}

static void self_refuse(struct etcd *e, const char *why)
{
	e->put = false;
	e->claim_ns = now(e) + e->opts.lease_ns / 3;
	if (e->refused && !strcmp(e->refused_why, why))
		return;
	e->refused = true;
	snprintf(e->refused_why, sizeof(e->refused_why), "%s", why);
	wfi_err("membership: %s", why);
}

static void refuse_name(struct etcd *e, const struct wfi_member *other)
{
	char why[WFI_MEMBERS_WHY];

	snprintf(why, sizeof(why),
		 "another node is %s in cluster %s (%s, incarnation %#" PRIx64 "): give each its "
		 "own name, or wait for its lease to end",
		 other->name, e->opts.cluster,
		 other->addr[0]	    ? other->addr
		 : other->socket[0] ? other->socket
				    : "nowhere to be reached",
		 other->incarnation);
	self_refuse(e, why);
}

/* our name may have gone to another node's record. Context: locked */
static void self_check(struct etcd *e, const struct member_record *r)
{
	if (!e->put || r->m.incarnation == e->self.incarnation ||
	    strcmp(r->m.name, e->self.name) != 0)
		return;
	e->lease = 0;
	refuse_name(e, &r->m);
}

/* Context: locked */
static void node_changed(struct etcd *e, const struct etcd_kv *kv)
{
	const char *name = kv->key + strlen(e->prefix) + strlen(NODES);
	const bool own = e->put && !strcmp(name, e->self.name);
	const uint64_t epoch = e->base + kv->mod_rev;
	const uint64_t until_ns = now(e) + WFI_MEMBER_HOLD_NS;
	struct member_record r;
	int ret;

	if (kv->deleted || record_decode(e, kv, &r)) {
		/* of an earlier one, when ours came later */
		if (own && kv->mod_rev <= e->put_rev)
			return;
		if (own)
			self_lost(e, kv->deleted ? "its lease has ended, or somebody took it away"
						 : "somebody wrote over it");
		wfi_member_view_del(&e->m->view, name, epoch, until_ns);
		/* perhaps that was what we wait for */
		e->claim_ns = 0;
		return;
	}
	e->base = wfi_max(e->base, r.base);
	self_check(e, &r);
	if (r.leaving) {
		wfi_member_view_del(&e->m->view, name, epoch, 0);
		return;
	}
	ret = wfi_member_view_put(&e->m->view, &r.m, epoch);
	/* of two that came at once, the later one goes */
	if (ret == -EEXIST && own)
		e->clash = true;
	if (ret)
		record_bad(e, kv->key,
			   ret == -EEXIST ? "another node has its id: give each its own node_id"
					  : "the cluster has as many nodes as can be");
}

/* the last good one stays, however often all is read. Context: locked */
static void value_bad(struct etcd *e, json_t *values, const struct etcd_kv *kv, const char *why)
{
	const char *key = kv->key + strlen(e->prefix);
	json_t *was = json_object_get(values, key);

	if (!was)
		was = json_object_get(e->m->values, key);
	if (!was) {
		record_bad(e, kv->key, why);
		return;
	}
	json_object_set(values, key, was);
	e->m->status.bad++;
	wfi_warn("membership: the value of %s is left out, what was in force stays: %s", kv->key,
		 why);
}

/* Context: locked */
static void value_changed(struct etcd *e, json_t *values, const struct etcd_kv *kv)
{
	const char *key = kv->key + strlen(e->prefix);

	if (kv->deleted)
		json_object_del(values, key);
	else if (kv->bad)
		value_bad(e, values, kv, kv->bad);
	else if (json_object_size(values) >= MEMBER_VALUES_MAX && !json_object_get(values, key))
		record_bad(e, kv->key, "there are too many");
	else if (json_object_set_new(values, key, json_string(kv->value)))
		value_bad(e, values, kv, "it is no UTF-8");
}

/* whatever else lies under the prefix is nobody's here, keys that are too long among it */
static bool is_in(const struct etcd *e, const struct etcd_kv *kv, const char *folder)
{
	return kv->key[0] && !strncmp(kv->key + strlen(e->prefix), folder, strlen(folder));
}

static bool is_node(const struct etcd *e, const struct etcd_kv *kv)
{
	return is_in(e, kv, NODES);
}

static bool is_value(const struct etcd *e, const struct etcd_kv *kv)
{
	return is_in(e, kv, "settings/") || is_in(e, kv, "tenants/");
}

/* Return: 0, -EBADMSG it is not in what was asked for */
static int kv_take(struct etcd *e, const json_t *json, struct etcd_kv *kv)
{
	if (etcd_kv_decode(json, kv) ||
	    (kv->key[0] && strncmp(kv->key, e->prefix, strlen(e->prefix)) != 0)) {
		member_complain(e->why, sizeof(e->why), "what answers is no etcd: a malformed key");
		return -EBADMSG;
	}
	return 0;
}

/* ---- a full read ---- */

struct load {
	struct wfi_member list[WFI_MEMBERS_MAX];
	unsigned nr;
	bool own; /* our record is among them */
	json_t *values;
	struct etcd_kv kv;
};

/* Context: locked */
static void load_node(struct etcd *e, struct load *l)
{
	struct member_record r;

	if (record_decode(e, &l->kv, &r) || r.leaving)
		return;
	e->base = wfi_max(e->base, r.base);
	self_check(e, &r);
	if (e->put && !strcmp(r.m.name, e->self.name))
		l->own = true;
	if (l->nr == WFI_MEMBERS_MAX)
		record_bad(e, l->kv.key, "the cluster has as many nodes as can be");
	else
		l->list[l->nr++] = r.m;
}

static bool is_known(const struct etcd *e, const struct etcd_kv *kv)
{
	return json_object_get(e->m->values, kv->key + strlen(e->prefix));
}

/* values that were there before come first: where there are too many, none of them goes for one
 * that was left out until now */
static int load_kvs(struct etcd *e, struct load *l, const json_t *kvs, bool known)
{
	size_t i;

	for (i = 0; i < json_array_size(kvs); i++) {
		if (kv_take(e, json_array_get(kvs, i), &l->kv))
			return -EBADMSG;
		if (known && is_node(e, &l->kv))
			load_node(e, l);
		else if (is_value(e, &l->kv) && is_known(e, &l->kv) == known)
			value_changed(e, l->values, &l->kv);
	}
	return 0;
}

/* Context: locked */
static int load_answer(struct etcd *e, const json_t *answer, struct load *l)
{
	const uint64_t revision = etcd_revision(answer);
	struct wfi_members *m = e->m;
	int ret;

	if (!revision) {
		member_complain(e->why, sizeof(e->why), "what answers is no etcd: no revision");
		return -EBADMSG;
	}
	ret = load_kvs(e, l, json_object_get(answer, "kvs"), true);
	if (!ret)
		ret = load_kvs(e, l, json_object_get(answer, "kvs"), false);
	if (ret)
		return ret;
	if (revision < e->revision) {
		wfi_warn("membership: the store went back from revision %" PRIu64 " to %" PRIu64
			 ": it was emptied or restored",
			 e->revision, revision);
		e->base = wfi_max(e->base, m->view.epoch);
		etcd_http_unwatch(&e->http);
	}
	e->revision = e->load_rev = revision;
	ret = wfi_member_view_load(&m->view, l->list, l->nr, e->base + revision,
				   now(e) + WFI_MEMBER_HOLD_NS);
	if (ret)
		record_bad(e, e->prefix, "of two nodes with one id the later one");
	if (e->put && !l->own)
		self_lost(e, "the store has it no more");
	members_values_set(m, json_incref(l->values));
	e->loaded = true;
	e->load_ns = now(e) + REREAD_NS;
	return 0;
}

static int load(struct etcd *e)
{
	struct load *l = calloc(1, sizeof(*l));
	json_t *answer;
	int ret = -ENOMEM;

	if (l)
		l->values = json_object();
	if (!l || !l->values)
		goto out;
	answer = ask(e, "/v3/kv/range", etcd_req_range(e->prefix, false), &ret);
	if (!answer)
		goto out;
	members_lock(e->m);
	ret = load_answer(e, answer, l);
	members_unlock(e->m);
	json_decref(answer);
out:
	if (l)
		json_decref(l->values);
	free(l);
	return ret;
}

/* ---- the watch ---- */

static int watch(struct etcd *e)
{
	e->created = false;
	e->watch_ns = now(e) + e->http.timeout_ns;
	return etcd_http_watch(&e->http, etcd_req_watch(e->prefix, e->revision + 1));
}

/* Context: locked */
static int watch_event(struct etcd *e, const json_t *event, json_t *values)
{
	const char *type = json_string_value(json_object_get(event, "type"));
	struct etcd_kv kv;

	if (kv_take(e, json_object_get(event, "kv"), &kv))
		return -EBADMSG;
	/* what a full read has brought meanwhile is newer */
	if (kv.mod_rev <= e->load_rev)
		return 0;
	kv.deleted = type && !strcmp(type, "DELETE");
	if (is_node(e, &kv))
		node_changed(e, &kv);
	else if (is_value(e, &kv))
		value_changed(e, values, &kv);
	e->revision = wfi_max(e->revision, kv.mod_rev);
	return 0;
}

static int watch_events(struct etcd *e, const json_t *events)
{
	json_t *values;
	size_t i;
	int ret = 0;

	members_lock(e->m);
	values = json_copy(e->m->values);
	for (i = 0; i < json_array_size(events) && !ret; i++)
		ret = watch_event(e, json_array_get(events, i), values);
	members_values_set(e->m, values);
	members_unlock(e->m);
	return ret;
}

static int watch_line(struct etcd *e, const char *line, size_t len)
{
	json_t *answer, *events;
	int ret = 0;

	answer = etcd_answer(line, len, &ret, e->why, sizeof(e->why));
	if (!answer)
		return ret;
	events = json_object_get(answer, "events");
	if (json_is_true(json_object_get(answer, "canceled"))) {
		/* what changed meanwhile is forgotten there, so that all has to be read */
		if (etcd_number(answer, "compact_revision"))
			wfi_info("membership: the store has compacted what came after revision "
				 "%" PRIu64 ": all is read anew",
				 e->revision);
		etcd_http_unwatch(&e->http);
		e->loaded = false;
		e->retry_ns = now(e) + PAUSE_MIN_NS;
		if (!etcd_number(answer, "compact_revision"))
			ret = -EREMOTEIO;
		member_complain(e->why, sizeof(e->why), "the store ended the watch");
	} else if (json_is_true(json_object_get(answer, "created"))) {
		e->created = true;
	} else if (events) {
		ret = watch_events(e, events);
	} else {
		e->revision = wfi_max(e->revision, etcd_revision(answer));
	}
	json_decref(answer);
	return ret;
}

static int watched(struct etcd *e)
{
	const char *line;
	long len;
	int ret = 0;

	while (!ret && e->http.watching) {
		len = etcd_http_watched(&e->http, &line, e->why, sizeof(e->why));
		if (len <= 0)
			ret = (int)len;
		if (len <= 0)
			break;
		ret = watch_line(e, line, (size_t)len);
	}
	if (!ret && e->http.watching && !e->created && now(e) > e->watch_ns) {
		member_complain(e->why, sizeof(e->why), "no answer to a watch");
		ret = -ENOTCONN;
	}
	return ret;
}

/* ---- our own record ---- */

static int authenticate(struct etcd *e)
{
	const uint64_t timeout_ns = e->http.timeout_ns;
	json_t *answer;
	const char *token;
	int ret;

	/* it hashes passwords slowly, by intent */
	e->http.timeout_ns = CALL_MAX_NS;
	answer = ask(e, "/v3/auth/authenticate", etcd_req_auth(e->opts.user, e->opts.password),
		     &ret);
	e->http.timeout_ns = timeout_ns;
	if (!answer)
		return ret;
	token = json_string_value(json_object_get(answer, "token"));
	/* it goes into a line of a header */
	if (!token || strlen(token) > 900 || strpbrk(token, "\r\n")) {
		member_complain(e->why, sizeof(e->why), "what answers is no etcd: no token");
		ret = -EBADMSG;
	} else {
		ret = etcd_http_token(&e->http, token);
		e->has_token = !ret;
	}
	json_decref(answer);
	return ret;
}

static int grant(struct etcd *e)
{
	const uint64_t ttl_s = e->opts.lease_ns / WFI_NSEC_PER_SEC;
	json_t *answer;
	int ret;

	answer = ask(e, "/v3/lease/grant", etcd_req_grant(ttl_s), &ret);
	if (!answer)
		return ret;
	e->lease = etcd_number(answer, "ID");
	/* a store has a shortest lease of its own; what it says is not to keep us from renewing */
	e->lease_ns = wfi_min(etcd_number(answer, "TTL"), 10 * ttl_s) * WFI_NSEC_PER_SEC;
	json_decref(answer);
	if (!e->lease || !e->lease_ns) {
		member_complain(e->why, sizeof(e->why), "what answers is no etcd: no lease");
		return -EBADMSG;
	}
	e->keep_ns = now(e) + e->lease_ns / 3;
	return 0;
}

static int keep(struct etcd *e)
{
	const uint64_t lease = e->lease;
	json_t *answer;
	int ret;

	/* who has no lease asks for a sign of life */
	answer = lease ? ask(e, "/v3/lease/keepalive", etcd_req_lease(lease), &ret)
		       : ask(e, "/v3/kv/range", etcd_req_range(e->prefix, true), &ret);
	if (!answer)
		return ret;
	e->keep_ns = now(e) + (lease ? e->lease_ns : e->opts.lease_ns) / 3;
	if (lease && !etcd_number(answer, "TTL")) {
		members_lock(e->m);
		self_lost(e, "its lease has ended");
		members_unlock(e->m);
		e->lease = 0;
		e->loaded = false;
	}
	json_decref(answer);
	return 0;
}

/* Return: the answer to a put under our name; what is there, in its place, when it was not done */
static json_t *record_put(struct etcd *e, bool leaving, bool created, uint64_t rev, int *ret)
{
	struct member_record r = {
		.m = e->self, .base = e->base, .over = e->over, .leaving = leaving
	};
	char key[ETCD_KEY_MAX], *text = member_encode(&r), *body;

	snprintf(key, sizeof(key), "%s" NODES "%s", e->prefix, e->self.name);
	body = text ? etcd_req_put(key, text, e->lease, created, rev) : NULL;
	free(text);
	return ask(e, "/v3/kv/txn", body, ret);
}

/* what is put over @kv has a later epoch, unless @r in it is this life's own. @r: NULL: none */
static void claim_over(struct etcd *e, const struct etcd_kv *kv, const struct member_record *r)
{
	const bool own = r && r->m.incarnation == e->self.incarnation;

	if (r)
		e->base = wfi_max(e->base, r->base);
	e->create_rev = kv->create_rev;
	e->over = own ? r->over : kv->mod_rev + 1 - kv->create_rev;
}

/* somebody's record has our name: @rev is when it may be written over, 0 if not. Return: 0, error
 */
static int claim_taken(struct etcd *e, const json_t *answer, uint64_t *rev)
{
	const json_t *rep = json_array_get(json_object_get(answer, "responses"), 0);
	const json_t *kvs = json_object_get(json_object_get(rep, "response_range"), "kvs");
	struct member_record r;
	struct etcd_kv kv;
	int bad;

	*rev = 0;
	/* gone meanwhile */
	if (!json_array_size(kvs)) {
		e->claim_ns = now(e) + PAUSE_MIN_NS;
		return 0;
	}
	if (kv_take(e, json_array_get(kvs, 0), &kv) || !is_node(e, &kv) ||
	    kv.create_rev > kv.mod_rev)
		return -EBADMSG;
	members_lock(e->m);
	bad = record_decode(e, &kv, &r);
	if (bad || wfi_member_may_take(&e->self, &r.m)) {
		claim_over(e, &kv, bad ? NULL : &r);
		*rev = kv.mod_rev;
	} else {
		refuse_name(e, &r.m);
	}
	members_unlock(e->m);
	return 0;
}

static void claim_done(struct etcd *e, const json_t *answer, bool created)
{
	if (!e->put)
		wfi_info("membership: this node is %s in cluster %s", e->self.name,
			 e->opts.cluster);
	e->put = true;
	e->put_rev = etcd_revision(answer);
	if (created)
		e->create_rev = e->put_rev;
	e->refused = false;
}

/* Return: whether somebody else has our id under another name */
static bool id_taken(struct etcd *e)
{
	struct wfi_member_view *v = &e->m->view;
	char why[WFI_MEMBERS_WHY];
	unsigned i;

	members_lock(e->m);
	for (i = 0; i < v->nr; i++)
		if (v->members[i].node == e->self.node && !v->until_ns[i] &&
		    strcmp(v->members[i].name, e->self.name) != 0)
			break;
	if (i < v->nr) {
		snprintf(why, sizeof(why),
			 "node %s has this node's id, %#" PRIx64 ": give each its own node_id",
			 v->members[i].name, e->self.node);
		self_refuse(e, why);
	}
	members_unlock(e->m);
	return i < v->nr;
}

/* what this node says of itself goes to the store */
static int claim(struct etcd *e)
{
	const bool update = e->put;
	json_t *answer;
	uint64_t rev = update ? e->put_rev : 0;
	bool created;
	int ret = 0;

	if (id_taken(e))
		return 0;
	if (!e->lease)
		ret = grant(e);
	/* the second time over what may be written over */
	for (int tries = 0; !ret && tries < 2; tries++) {
		created = !update && !tries;
		if (created)
			e->over = 0;
		answer = record_put(e, false, created, rev, &ret);
		if (!answer)
			return ret;
		if (json_is_true(json_object_get(answer, "succeeded"))) {
			claim_done(e, answer, created);
			json_decref(answer);
			return 0;
		}
		ret = claim_taken(e, answer, &rev);
		json_decref(answer);
		if (!rev)
			break;
	}
	return ret;
}

static void leave(struct etcd *e)
{
	json_t *answer;
	int ret = 0;

	if (e->put) {
		answer = record_put(e, true, false, e->put_rev, &ret);
		json_decref(answer);
	}
	/* a store that does not answer is asked once: the lease ends by itself */
	if (e->lease && ret != -ENOTCONN) {
		answer = ask(e, "/v3/lease/revoke", etcd_req_lease(e->lease), &ret);
		json_decref(answer);
	}
	e->put = false;
	e->lease = 0;
}

/* Return: whether the record is to be put */
static bool claim_due(struct etcd *e)
{
	struct wfi_members *m = e->m;
	bool has, changed;

	members_lock(m);
	has = m->has_self;
	changed = m->self_changes != e->self_changes;
	e->self_changes = m->self_changes;
	if (changed && has)
		e->self = m->self;
	members_unlock(m);
	e->wanted = has;
	if (changed && !has)
		leave(e);
	if (changed)
		e->claim_ns = 0;
	return has && ((e->put && changed) || (!e->put && now(e) >= e->claim_ns));
}

/* ---- turns ---- */

static void clash_yield(struct etcd *e)
{
	e->clash = false;
	leave(e);
	(void)id_taken(e);
}

/* all that is due. Return: 0, or why the connection is of no more use */
static int step_once(struct etcd *e)
{
	int ret = 0;

	if (e->opts.user[0] && !e->has_token)
		ret = authenticate(e);
	if (!ret && (!e->loaded || now(e) >= e->load_ns))
		ret = load(e);
	if (!ret && !e->http.watching)
		ret = watch(e);
	if (!ret)
		ret = watched(e);
	if (!ret && now(e) >= e->keep_ns)
		ret = keep(e);
	if (!ret && e->loaded && claim_due(e)) {
		ret = claim(e);
		/* what was not done is due again */
		if (ret)
			e->self_changes = 0;
	}
	if (!ret && e->clash)
		clash_yield(e);
	return ret;
}

static int step(struct etcd *e)
{
	int ret = step_once(e);

	/* tokens end */
	if (ret != -EACCES || !e->has_token)
		return ret;
	e->has_token = false;
	ret = etcd_http_token(&e->http, NULL);
	return ret ? ret : step_once(e);
}

static uint64_t pause_ns(struct etcd *e, int err)
{
	const unsigned rounds = e->failures / e->opts.nr_endpoints;
	uint64_t ns = PAUSE_MIN_NS, random = 0;
	unsigned i;

	for (i = 1; i < rounds && ns < PAUSE_MAX_NS; i++)
		ns *= 2;
	ns = wfi_min(ns, PAUSE_MAX_NS);
	/* nor so long that a lease ends for want of trying, where trying may help */
	if (err != -EACCES && err != -EPERM)
		ns = wfi_min(ns, e->opts.lease_ns / 4);
	if (e->m->env->rng->bytes(e->m->env, &random, sizeof(random)))
		random = 0;
	return ns / 2 + random % (ns / 2 + 1);
}

static void failed(struct etcd *e, int err)
{
	const char *endpoint = e->opts.endpoints[e->endpoint];
	struct wfi_members *m = e->m;
	char why[WFI_MEMBERS_WHY];
	enum wfi_members_state state;

	snprintf(why, sizeof(why), "%.80s: %.150s%s", endpoint, e->why,
		 err == -EACCES || err == -EPERM ? ": see etcd_user and its role" : "");
	if (err == -EACCES) {
		e->has_token = false;
		(void)etcd_http_token(&e->http, NULL);
	}
	etcd_http_unwatch(&e->http);
	/* who answers next may be a store that was emptied meanwhile, at whatever revision */
	e->loaded = false;
	members_lock(m);
	state = e->revision ? WFI_MEMBERS_AWAY : WFI_MEMBERS_CONNECTING;
	/* said when it begins, not at each try */
	if (m->status.state != state || !m->status.why[0])
		wfi_warn("membership: %s%s", why,
			 e->revision ? "; what was known stays, and the store is asked again" : "");
	members_state(m, state, why);
	m->status.reconnects++;
	members_unlock(m);
	e->failures++;
	e->endpoint = (e->endpoint + 1) % e->opts.nr_endpoints;
	e->http.base = e->opts.endpoints[e->endpoint];
	e->retry_ns = now(e);
	/* each endpoint has its turn before it is waited */
	if (e->failures % e->opts.nr_endpoints == 0)
		e->retry_ns += pause_ns(e, err);
}

static void succeeded(struct etcd *e)
{
	struct wfi_members *m = e->m;

	/* it answers when it has confirmed the watch: a failure may still be on its way */
	if (!e->created)
		return;
	e->failures = 0;
	members_lock(m);
	if (m->status.state == WFI_MEMBERS_AWAY) {
		wfi_info("membership: %s answers again", e->http.base);
		wfi_member_view_keep(&m->view, now(e) + e->lease_ns);
	}
	members_state(m, e->refused ? WFI_MEMBERS_REFUSED : WFI_MEMBERS_OK,
		      e->refused ? e->refused_why : "");
	m->status.clock_skew_ms = e->http.skew_ms;
	snprintf(m->status.where, sizeof(m->status.where), "%s", e->http.base);
	members_unlock(m);
}

static uint64_t next_ns(struct etcd *e)
{
	uint64_t at_ns = UINT64_MAX;

	members_lock(e->m);
	/* nor does anybody's time run out who could not tell of himself */
	if (e->m->status.state != WFI_MEMBERS_AWAY)
		at_ns = wfi_member_view_tick(&e->m->view, now(e));
	members_unlock(e->m);
	if (e->retry_ns)
		return wfi_min(at_ns, e->retry_ns);
	if (!e->loaded || !e->http.watching)
		return 0;
	at_ns = wfi_min(at_ns, wfi_min(e->keep_ns, e->load_ns));
	if (!e->created)
		at_ns = wfi_min(at_ns, e->watch_ns);
	if (e->wanted && !e->put)
		at_ns = wfi_min(at_ns, e->claim_ns);
	return at_ns;
}

static void etcd_run(struct wfi_members *m)
{
	struct etcd *e = m->store;
	uint64_t at_ns;
	int ret;

	while (!atomic_load_explicit(&m->stop, memory_order_relaxed)) {
		if (now(e) >= e->retry_ns) {
			e->retry_ns = 0;
			ret = step(e);
			if (ret == -ECANCELED)
				break;
			if (ret)
				failed(e, ret);
			else
				succeeded(e);
		}
		at_ns = next_ns(e);
		if (at_ns > now(e))
			etcd_http_wait(&e->http, at_ns - now(e));
	}
	e->http.stop = NULL;
	e->http.timeout_ns = CLOSE_NS;
	etcd_http_unwatch(&e->http);
	/* one that did not answer before is not waited for */
	if (!e->failures)
		leave(e);
}

/* ---- life ---- */

static const char *keep_text(char **at, const char *text)
{
	const char *copy = *at;
	const size_t len = text ? strlen(text) : 0;

	if (len)
		memcpy(*at, text, len);
	(*at)[len] = 0;
	*at += len + 1;
	return copy;
}

/* Return: 0, -ENOMEM */
static int opts_copy(struct etcd *e, const struct wfi_members_opts *opts)
{
	const char *const texts[] = { opts->cluster, opts->user,      opts->password,
				      opts->ca_file, opts->cert_file, opts->key_file };
	size_t len = 0;
	unsigned i;
	char *at;

	for (i = 0; i < WFI_ARRAY_SIZE(texts); i++)
		len += (texts[i] ? strlen(texts[i]) : 0) + 1;
	for (i = 0; i < opts->nr_endpoints; i++)
		len += strlen(opts->endpoints[i]) + 1;
	e->strings_len = len;
	at = e->strings = malloc(len);
	if (!at)
		return -ENOMEM;
	e->opts = *opts;
	e->opts.cluster = keep_text(&at, opts->cluster);
	e->opts.user = keep_text(&at, opts->user);
	e->opts.password = keep_text(&at, opts->password);
	e->opts.ca_file = keep_text(&at, opts->ca_file);
	e->opts.cert_file = keep_text(&at, opts->cert_file);
	e->opts.key_file = keep_text(&at, opts->key_file);
	for (i = 0; i < opts->nr_endpoints; i++)
		e->opts.endpoints[i] = keep_text(&at, opts->endpoints[i]);
	return 0;
}

int member_etcd_open(struct wfi_members *m, const struct wfi_members_opts *opts)
{
	struct etcd *e;
	uint32_t random;
	int ret;

	if (!opts->nr_endpoints || opts->nr_endpoints > WFI_MEMBERS_ENDPOINTS ||
	    !member_name_ok(opts->cluster) || opts->lease_ns < WFI_NSEC_PER_SEC) {
		wfi_err("membership: no endpoint, no name of a cluster, or no lease");
		return -EINVAL;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		wfi_err("membership: libcurl does not start");
		return -ENOMEM;
	}
	e = wfi_alloc(m->env, sizeof(*e));
	if (!e)
		return -ENOMEM;
	m->store = e;
	m->run = etcd_run;
	e->m = m;
	ret = opts_copy(e, opts);
	if (!ret)
		ret = etcd_http_init(&e->http, m->env, opts, m->wake_fd, &m->stop);
	if (!ret)
		ret = m->env->rng->bytes(m->env, &random, sizeof(random));
	if (ret)
		return ret;
	snprintf(e->prefix, sizeof(e->prefix), ROOT "%s/", e->opts.cluster);
	e->lease_ns = opts->lease_ns;
	e->http.timeout_ns = wfi_min(wfi_max(opts->lease_ns / 3, CALL_MIN_NS), CALL_MAX_NS);
	/* not all nodes at the first one */
	e->endpoint = random % opts->nr_endpoints;
	e->http.base = e->opts.endpoints[e->endpoint];
	snprintf(m->status.where, sizeof(m->status.where), "%s", e->http.base);
	return 0;
}

void member_etcd_close(struct wfi_members *m)
{
	struct etcd *e = m->store;

	if (!e)
		return;
	etcd_http_fini(&e->http);
	if (e->strings)
		explicit_bzero(e->strings, e->strings_len);
	free(e->strings);
	wfi_free(m->env, e, sizeof(*e));
}
