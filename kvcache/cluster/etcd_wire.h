/* SPDX-License-Identifier: Apache-2.0 */
/**
 * etcd_wire.h - requests and answers of etcd's JSON gateway (v3), as texts
 *
 * Keys and values travel as base64, 64-bit numbers as texts. Answers are input.
 * Source: etcd's "gRPC gateway" page and api/etcdserverpb/rpc.proto.
 */
#ifndef WFI_ETCD_WIRE_H
#define WFI_ETCD_WIRE_H

#include "kvcache/cluster/member_private.h"

#define ETCD_KEY_MAX 256u

struct etcd_kv {
	char key[ETCD_KEY_MAX]; /* "": too long, or no text */
	char value[MEMBER_RECORD_MAX + 1]; /* "" when it is none of ours: see .bad */
	size_t len;
	uint64_t create_rev, mod_rev, lease;
	bool deleted;
	const char *bad; /* why the value can't be used, or NULL */
};

/* Return: what was said, as an object of the caller's, a stream's "result" unwrapped; NULL and:
 * -EBADMSG no answer of etcd, -EACCES the token or user is not accepted, -EPERM it may not do this,
 * -ENOENT there is no such lease, -EREMOTEIO another error of etcd's; and @why */
json_t *etcd_answer(const char *text, size_t len, int *err, char *why, size_t why_len);
/* of the answer's header; 0: it has none */
uint64_t etcd_revision(const json_t *answer);
/* a number of an answer, 0 when it is not there */
uint64_t etcd_number(const json_t *obj, const char *key);
/* Return: 0; -EBADMSG: it is no key and value */
int etcd_kv_decode(const json_t *kv, struct etcd_kv *out);

/* texts of requests, of the caller's; NULL when out of memory */
char *etcd_req_auth(const char *user, const char *password);
/* all that begins with @prefix, which ends in '/' */
char *etcd_req_range(const char *prefix, bool count_only);
char *etcd_req_watch(const char *prefix, uint64_t start_rev);
char *etcd_req_grant(uint64_t ttl_s);
char *etcd_req_lease(uint64_t lease); /* keepalive, revoke */
/* put, if @key has @rev: of its creation (0: it is not there), or of its last change; else say what
 * is there */
char *etcd_req_put(const char *key, const char *value, uint64_t lease, bool created, uint64_t rev);

#endif
