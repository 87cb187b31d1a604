/* SPDX-License-Identifier: Apache-2.0 */
/* members.c - the membership of a real node: what its thread has heard, for everybody else */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kvcache/cluster/member_private.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

const char *wfi_members_state_name(enum wfi_members_state state)
{
	static const char *const names[WFI_MEMBERS_NR_STATES] = {
		[WFI_MEMBERS_CONNECTING] = "connecting",
		[WFI_MEMBERS_OK] = "ok",
		[WFI_MEMBERS_REFUSED] = "refused",
		[WFI_MEMBERS_AWAY] = "away",
	};

	return names[state];
}

/* ---- what others see ---- */

static int real_members(struct wfi_env *env, struct wfi_member *out, unsigned max, uint64_t *epoch)
{
	struct wfi_members *m = env->members;
	unsigned nr;

	pthread_mutex_lock(&m->lock);
	nr = wfi_member_view_copy(&m->view, out, max);
	*epoch = m->view.epoch;
	pthread_mutex_unlock(&m->lock);
	return (int)nr;
}

static uint64_t real_changes(struct wfi_env *env)
{
	/* what it counts is read under the lock */
	return atomic_load_explicit(&env->members->changes, memory_order_relaxed);
}

static void wake(struct wfi_members *m)
{
	uint64_t one = 1;

	if (write(m->wake_fd, &one, sizeof(one)) < 0)
		wfi_err("membership: its thread can't be woken: %s", strerror(errno));
}

static int real_publish(struct wfi_env *env, const struct wfi_member *self)
{
	struct wfi_members *m = env->members;

	pthread_mutex_lock(&m->lock);
	m->has_self = self;
	if (self)
		m->self = *self;
	m->self_changes++;
	pthread_mutex_unlock(&m->lock);
	wake(m);
	return 0;
}

static const struct wfi_membership_ops real_membership = {
	.members = real_members,
	.changes = real_changes,
	.publish = real_publish,
};

void wfi_members_status(struct wfi_members *m, struct wfi_members_status *out)
{
	pthread_mutex_lock(&m->lock);
	*out = m->status;
	out->epoch = m->view.epoch;
	pthread_mutex_unlock(&m->lock);
}

json_t *wfi_members_values(struct wfi_members *m, uint64_t *changes)
{
	json_t *out = NULL;

	pthread_mutex_lock(&m->lock);
	if (m->values && m->values_changes != *changes) {
		/* deep: nobody else may count references of what the thread has */
		out = json_deep_copy(m->values);
		if (out)
			*changes = m->values_changes;
	}
	pthread_mutex_unlock(&m->lock);
	return out;
}

/* ---- for the thread ---- */

void members_lock(struct wfi_members *m)
{
	pthread_mutex_lock(&m->lock);
}

void members_unlock(struct wfi_members *m)
{
	const uint64_t changes = m->view.changes + m->values_changes;
	const bool news = changes != atomic_load_explicit(&m->changes, memory_order_relaxed);

	atomic_store_explicit(&m->changes, changes, memory_order_relaxed);
	pthread_mutex_unlock(&m->lock);
	if (news && m->notify)
		m->notify(m->ctx);
}

void members_state(struct wfi_members *m, enum wfi_members_state state, const char *why)
{
	snprintf(m->status.why, sizeof(m->status.why), "%s", why);
	if (m->status.state == state)
		return;
	m->status.state = state;
	m->status.since_ns = wfi_now(m->env);
}

void members_values_set(struct wfi_members *m, json_t *values)
{
	if (json_equal(m->values, values)) {
		json_decref(values);
		return;
	}
	json_decref(m->values);
	m->values = values;
	m->values_changes++;
}

static void *members_main(void *arg)
{
	struct wfi_members *m = arg;

	m->run(m);
	return NULL;
}

/* ---- life ---- */

static void members_free(struct wfi_members *m)
{
	if (m->status.kind && !strcmp(m->status.kind, "etcd"))
		member_etcd_close(m);
	else
		member_file_close(m);
	if (m->wake_fd >= 0)
		close(m->wake_fd);
	json_decref(m->values);
	pthread_mutex_destroy(&m->lock);
	wfi_free(m->env, m, sizeof(*m));
}

int wfi_members_open(const struct wfi_members_opts *opts, struct wfi_members **out)
{
	struct wfi_members *m = wfi_alloc(opts->env, sizeof(*m));
	int ret;

	if (!m)
		return -ENOMEM;
	m->env = opts->env;
	m->notify = opts->notify;
	m->ctx = opts->ctx;
	m->unwired = opts->env->membership;
	m->status.kind = opts->file ? "file" : "etcd";
	m->status.since_ns = wfi_now(m->env);
	pthread_mutex_init(&m->lock, NULL);
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = m->wake_fd < 0 ? -errno : 0;
	if (!ret)
		ret = opts->file ? member_file_open(m, opts) : member_etcd_open(m, opts);
	if (!ret)
		ret = -pthread_create(&m->thread, NULL, members_main, m);
	if (ret) {
		members_free(m);
		return ret;
	}
	m->env->members = m;
	m->env->membership = &real_membership;
	*out = m;
	return 0;
}

void wfi_members_close(struct wfi_members *m)
{
	if (!m)
		return;
	atomic_store_explicit(&m->stop, true, memory_order_relaxed);
	wake(m);
	pthread_join(m->thread, NULL);
	m->env->membership = m->unwired;
	m->env->members = NULL;
	members_free(m);
}
