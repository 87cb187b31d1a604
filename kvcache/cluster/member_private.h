/* SPDX-License-Identifier: Apache-2.0 */
/* member_private.h - what the sources of membership share */
#ifndef WFI_MEMBER_PRIVATE_H
#define WFI_MEMBER_PRIVATE_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "weft_internal/member.h"
#include "weft_internal/members.h"

#define MEMBER_RECORD_MAX 4096u /* bytes of one record, or of one value */
#define MEMBER_STORE_MAX (1u << 20) /* of all of them, and of one answer */
#define MEMBER_VALUES_MAX 256u

/* ---- member_record.c: records as JSON; input, all of it ---- */

/* @len bytes of text to a value. @why: one sentence. Return: NULL; it is not JSON, or too deep */
json_t *member_json(const char *text, size_t len, char *why, size_t why_len);
/* in @why, with @len bytes, whatever the text is. Return: -EINVAL */
int member_complain(char *why, size_t why_len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

struct member_record {
	struct wfi_member m;
	uint64_t base; /* what the store's revisions are added to */
	uint64_t over; /* how much later than its key it is: it was put over an earlier life's */
	bool leaving;
};

/* Return: 0 and @out, zero-padded; -EINVAL and @why */
int member_decode(const json_t *json, struct member_record *out, char *why, size_t why_len);
/* Return: JSON, of the caller's; NULL when out of memory */
char *member_encode(const struct member_record *r);
bool member_name_ok(const char *name);

/* a file: {"members": [...], "settings": {...}, "tenants": {...}} */
struct member_file {
	struct wfi_member members[WFI_MEMBERS_MAX];
	unsigned nr;
	json_t *values;
};
/* Return: 0, and .values is the caller's; -EINVAL and @why */
int member_file_decode(const char *text, size_t len, struct member_file *out, char *why,
		       size_t why_len);

/* ---- members.c ---- */

struct wfi_members {
	struct wfi_env *env;
	void (*run)(struct wfi_members *m);
	void *store; /* of .run: its own */
	void (*notify)(void *ctx);
	void *ctx;
	pthread_t thread;
	int wake_fd; /* stop, or .self has changed */
	_Atomic bool stop;
	_Atomic uint64_t changes;
	const struct wfi_membership_ops *unwired; /* what .membership was before */
	pthread_mutex_t lock; /* of the rest */
	struct wfi_member_view view;
	struct wfi_member self;
	bool has_self;
	uint64_t self_changes;
	json_t *values; /* NULL: not heard of yet */
	uint64_t values_changes;
	struct wfi_members_status status;
};

/* for the thread of .run: what it changes is seen by all when it unlocks */
void members_lock(struct wfi_members *m);
void members_unlock(struct wfi_members *m);
/* Context: locked */
void members_state(struct wfi_members *m, enum wfi_members_state state, const char *why);
/* takes @values. Context: locked */
void members_values_set(struct wfi_members *m, json_t *values);

/* ---- member_file.c; etcd.c, or its twin etcd_none.c ---- */

/* Return: 0, and .run and .store are set; -errno: logged */
int member_file_open(struct wfi_members *m, const struct wfi_members_opts *opts);
void member_file_close(struct wfi_members *m);
int member_etcd_open(struct wfi_members *m, const struct wfi_members_opts *opts);
void member_etcd_close(struct wfi_members *m);

#endif
