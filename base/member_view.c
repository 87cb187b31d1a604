/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "weft_internal/member.h"
#include "weft_internal/util.h"

static void changed(struct wfi_member_view *v, uint64_t epoch)
{
	v->epoch = wfi_max(v->epoch, epoch);
	v->changes++;
}

static unsigned find(const struct wfi_member_view *v, const char *name)
{
	unsigned i;

	for (i = 0; i < v->nr && strcmp(v->members[i].name, name) != 0; i++)
		;
	return i;
}

static void cut(struct wfi_member_view *v, unsigned i)
{
	v->nr--;
	memmove(&v->members[i], &v->members[i + 1], (v->nr - i) * sizeof(*v->members));
	memmove(&v->until_ns[i], &v->until_ns[i + 1], (v->nr - i) * sizeof(*v->until_ns));
}

static void insert(struct wfi_member_view *v, const struct wfi_member *m)
{
	unsigned i = v->nr++;

	for (; i && v->members[i - 1].node > m->node; i--) {
		v->members[i] = v->members[i - 1];
		v->until_ns[i] = v->until_ns[i - 1];
	}
	v->members[i] = *m;
	v->until_ns[i] = 0;
}

/* Return: whether @m may have its id. Another name that had it later, or lost its record, goes */
static bool id_is_free(struct wfi_member_view *v, const struct wfi_member *m)
{
	unsigned i;

	for (i = 0; i < v->nr; i++)
		if (v->members[i].node == m->node && strcmp(v->members[i].name, m->name) != 0)
			break;
	if (i == v->nr)
		return true;
	if (!v->until_ns[i] && v->members[i].epoch <= m->epoch)
		return false;
	cut(v, i);
	return true;
}

int wfi_member_view_put(struct wfi_member_view *v, const struct wfi_member *m, uint64_t epoch)
{
	unsigned i;

	if (!id_is_free(v, m))
		return -EEXIST;
	i = find(v, m->name);
	if (i < v->nr && !v->until_ns[i] && !memcmp(&v->members[i], m, sizeof(*m)))
		return 0;
	if (i < v->nr)
		cut(v, i);
	else if (v->nr == WFI_MEMBERS_MAX)
		return -ENOSPC;
	insert(v, m);
	changed(v, epoch);
	return 0;
}

/* Return: whether it is gone at once */
static bool lose(struct wfi_member_view *v, unsigned i, uint64_t until_ns)
{
	until_ns = wfi_max(until_ns, v->keep_ns);
	if (until_ns) {
		if (!v->until_ns[i])
			v->until_ns[i] = until_ns;
		return false;
	}
	cut(v, i);
	return true;
}

void wfi_member_view_del(struct wfi_member_view *v, const char *name, uint64_t epoch,
			 uint64_t until_ns)
{
	const unsigned i = find(v, name);

	if (i < v->nr && lose(v, i, until_ns))
		changed(v, epoch);
	v->epoch = wfi_max(v->epoch, epoch);
}

int wfi_member_view_load(struct wfi_member_view *v, const struct wfi_member *list, unsigned nr,
			 uint64_t epoch, uint64_t until_ns)
{
	unsigned i, k;
	int ret = 0, one;

	for (i = v->nr; i--;) {
		for (k = 0; k < nr && strcmp(list[k].name, v->members[i].name) != 0; k++)
			;
		if (k == nr && lose(v, i, until_ns))
			changed(v, epoch);
	}
	for (k = 0; k < nr; k++) {
		one = wfi_member_view_put(v, &list[k], epoch);
		if (one)
			ret = one;
	}
	v->epoch = wfi_max(v->epoch, epoch);
	return ret;
}

void wfi_member_view_keep(struct wfi_member_view *v, uint64_t until_ns)
{
	unsigned i;

	v->keep_ns = until_ns;
	for (i = 0; i < v->nr; i++)
		if (v->until_ns[i])
			v->until_ns[i] = wfi_max(v->until_ns[i], until_ns);
}

uint64_t wfi_member_view_tick(struct wfi_member_view *v, uint64_t now_ns)
{
	uint64_t next_ns = UINT64_MAX;
	unsigned i;

	if (v->keep_ns <= now_ns)
		v->keep_ns = 0;
	for (i = v->nr; i--;) {
		if (!v->until_ns[i])
			continue;
		if (v->until_ns[i] > now_ns) {
			next_ns = wfi_min(next_ns, v->until_ns[i]);
			continue;
		}
		cut(v, i);
		changed(v, v->epoch);
	}
	return next_ns;
}

bool wfi_member_may_take(const struct wfi_member *self, const struct wfi_member *theirs)
{
	if (theirs->incarnation == self->incarnation)
		return true;
	return self->host[0] && self->socket[0] && !strcmp(theirs->host, self->host) &&
	       !strcmp(theirs->socket, self->socket) && self->born_ns > theirs->born_ns;
}

unsigned wfi_member_view_copy(const struct wfi_member_view *v, struct wfi_member *out, unsigned max)
{
	const unsigned nr = wfi_min(v->nr, max);

	if (nr)
		memcpy(out, v->members, nr * sizeof(*out));
	return nr;
}
