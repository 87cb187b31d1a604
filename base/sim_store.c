/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_store.c - the simulated store of members
 *
 * Nothing happens by itself: whoever asks or changes something first has happen what was due.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sim_store.h"
#include "weft_internal/util.h"

static uint64_t store_rand(struct sim_store *s)
{
	uint64_t z = s->seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t delay(struct sim_store *s)
{
	return s->delay_ns ? store_rand(s) % s->delay_ns : 0;
}

static bool reaches(const struct sim_store *s, const struct sim_member *n)
{
	return !s->down && !n->cut;
}

/* each node hears of it in its own time */
static void news(struct sim_store *s, uint64_t now_ns)
{
	uint64_t at_ns;
	unsigned i;

	s->epoch++;
	for (i = 0; i < WFI_SIM_MAX_NODES; i++) {
		if (!s->nodes[i].view)
			continue;
		at_ns = now_ns + delay(s);
		if (s->lost_ppm && store_rand(s) % 1000000 < s->lost_ppm)
			at_ns += WFI_SIM_REREAD_NS;
		if (!s->nodes[i].news_ns || at_ns < s->nodes[i].news_ns)
			s->nodes[i].news_ns = at_ns;
	}
}

static struct sim_record *record_of(struct sim_store *s, unsigned idx)
{
	unsigned i;

	for (i = 0; i < WFI_MEMBERS_MAX; i++)
		if (s->records[i].present && s->records[i].leased && s->records[i].owner == idx)
			return &s->records[i];
	return NULL;
}

/* Return: a place for a record of that name and id; NULL: somebody has one of them */
static struct sim_record *record_place(struct sim_store *s, const struct wfi_member *m)
{
	struct sim_record *r, *free_one = NULL;

	for (r = s->records; r < s->records + WFI_MEMBERS_MAX; r++) {
		if (!r->present)
			free_one = r;
		else if (r->m.node == m->node || !strcmp(r->m.name, m->name))
			return NULL;
	}
	return free_one;
}

static void record_publish(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	struct sim_record *r = record_of(s, idx);
	const bool same = r && r->m.incarnation == n->self.incarnation;

	if (!r)
		r = record_place(s, &n->self);
	if (!r) {
		n->publish_ns = now_ns + WFI_SIM_REREAD_NS;
		return;
	}
	n->publish_ns = 0;
	n->lease_end_ns = UINT64_MAX;
	news(s, now_ns);
	n->self.epoch = same ? r->m.epoch : s->epoch;
	*r = (struct sim_record){ .present = true, .leased = true, .owner = idx, .m = n->self };
}

static void record_drop(struct sim_store *s, struct sim_record *r, uint64_t now_ns)
{
	r->present = false;
	news(s, now_ns);
}

static void view_load(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	struct wfi_member list[WFI_MEMBERS_MAX];
	unsigned nr = 0, i;

	for (i = 0; i < WFI_MEMBERS_MAX; i++)
		if (s->records[i].present)
			list[nr++] = s->records[i].m;
	n->news_ns = 0;
	(void)wfi_member_view_load(n->view, list, nr, s->epoch, now_ns + WFI_MEMBER_HOLD_NS);
	if (n->wanted && !record_of(s, idx))
		wfi_member_view_keep(n->view, now_ns + WFI_SIM_LEASE_NS);
}

static void settle(struct sim_store *s, uint64_t now_ns)
{
	struct sim_record *r;
	struct sim_member *n;
	unsigned i;

	for (i = 0; i < WFI_MEMBERS_MAX && !s->down; i++) {
		r = &s->records[i];
		if (r->present && r->leased && s->nodes[r->owner].lease_end_ns <= now_ns)
			record_drop(s, r, now_ns);
	}
	for (i = 0; i < WFI_SIM_MAX_NODES; i++) {
		n = &s->nodes[i];
		if (n->publish_ns && n->publish_ns <= now_ns && reaches(s, n))
			record_publish(s, i, now_ns);
	}
	for (i = 0; i < WFI_SIM_MAX_NODES; i++) {
		n = &s->nodes[i];
		if (n->news_ns && n->news_ns <= now_ns && reaches(s, n))
			view_load(s, i, now_ns);
		if (n->view)
			(void)wfi_member_view_tick(n->view, now_ns);
	}
}

const struct wfi_member_view *sim_store_view(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	if (!n->view) {
		n->view = calloc(1, sizeof(*n->view));
		if (!n->view)
			return NULL;
		n->news_ns = now_ns;
	}
	settle(s, now_ns);
	return n->view;
}

void sim_store_publish(struct sim_store *s, unsigned idx, const struct wfi_member *self,
		       uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	struct sim_record *r;

	settle(s, now_ns);
	n->wanted = self;
	if (self) {
		n->self = *self;
		n->publish_ns = now_ns + delay(s);
		settle(s, now_ns);
		return;
	}
	n->publish_ns = 0;
	r = record_of(s, idx);
	if (r && reaches(s, n))
		record_drop(s, r, now_ns);
	else if (r)
		n->lease_end_ns = wfi_min(n->lease_end_ns, now_ns + WFI_SIM_LEASE_NS);
}

/* it renewed its lease a moment ago, and can't any more */
static void untouched(struct sim_member *n, uint64_t now_ns)
{
	if (n->lease_end_ns == UINT64_MAX)
		n->lease_end_ns = now_ns + WFI_SIM_LEASE_NS;
}

static void touched(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	if (n->wanted && record_of(s, idx))
		n->lease_end_ns = UINT64_MAX;
	else if (n->wanted && !n->publish_ns)
		n->publish_ns = now_ns + delay(s);
	if (n->view)
		n->news_ns = now_ns + delay(s);
}

void sim_store_reach(struct sim_store *s, unsigned idx, bool reached, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	settle(s, now_ns);
	if (n->cut == !reached)
		return;
	n->cut = !reached;
	if (reached)
		touched(s, idx, now_ns);
	else
		untouched(n, now_ns);
}

void sim_store_down(struct sim_store *s, bool down, uint64_t now_ns)
{
	struct sim_member *n;
	unsigned i;

	settle(s, now_ns);
	if (s->down == down)
		return;
	s->down = down;
	for (i = 0; i < WFI_SIM_MAX_NODES && !down; i++) {
		n = &s->nodes[i];
		/* a store that comes back starts all leases anew */
		if (n->cut && n->lease_end_ns != UINT64_MAX)
			n->lease_end_ns = now_ns + WFI_SIM_LEASE_NS;
		else if (!n->cut)
			touched(s, i, now_ns);
	}
}

void sim_store_wipe(struct sim_store *s, uint64_t now_ns)
{
	unsigned i;

	settle(s, now_ns);
	for (i = 0; i < WFI_MEMBERS_MAX; i++)
		s->records[i].present = false;
	news(s, now_ns);
	for (i = 0; i < WFI_SIM_MAX_NODES; i++)
		if (s->nodes[i].wanted && !s->nodes[i].publish_ns)
			s->nodes[i].publish_ns = now_ns + delay(s);
}

void sim_store_set(struct sim_store *s, const struct wfi_member *list, unsigned nr)
{
	unsigned i;

	for (i = 0; i < WFI_MEMBERS_MAX; i++) {
		s->records[i] = (struct sim_record){ .present = i < nr };
		if (i < nr)
			s->records[i].m = list[i];
	}
	s->epoch++;
	for (i = 0; i < WFI_SIM_MAX_NODES; i++)
		if (s->nodes[i].view)
			(void)wfi_member_view_load(s->nodes[i].view, list, nr, s->epoch, 0);
}

void sim_store_crash(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	settle(s, now_ns);
	n->wanted = false;
	n->publish_ns = 0;
	untouched(n, now_ns);
	free(n->view);
	n->view = NULL;
	n->news_ns = 0;
}

void sim_store_fini(struct sim_store *s)
{
	unsigned i;

	for (i = 0; i < WFI_SIM_MAX_NODES; i++)
		free(s->nodes[i].view);
}
