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
static void news(struct sim_store *s, const struct sim_change *change, uint64_t now_ns)
{
	uint64_t at_ns;
	unsigned i;

	s->epoch++;
	if (change)
		s->changes[s->epoch % SIM_CHANGES] = *change;
	else
		s->forgotten = s->epoch;
	for (i = 0; i < WFI_SIM_MAX_NODES; i++) {
		if (!s->nodes[i].view)
			continue;
		at_ns = now_ns + delay(s);
		if (s->lost_ppm && store_rand(s) % 1000000 < s->lost_ppm) {
			s->nodes[i].reads = true;
			at_ns += WFI_SIM_REREAD_NS;
		}
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
		else if (!strcmp(r->m.name, m->name) && wfi_member_may_take(m, &r->m))
			return r;
		else if (r->m.node == m->node || !strcmp(r->m.name, m->name))
			return NULL;
	}
	return free_one;
}

/* whose record is written over tries on: its name may be free again one day */
static void owner_lose(struct sim_store *s, const struct sim_record *r, unsigned idx,
		       uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[r->owner];

	if (!r->present || !r->leased || r->owner == idx)
		return;
	n->has = false;
	if (n->wanted)
		n->publish_ns = now_ns + WFI_SIM_REREAD_NS;
}

static void record_drop(struct sim_store *s, struct sim_record *r, bool left, uint64_t now_ns)
{
	r->present = false;
	news(s, &(struct sim_change){ .gone = true, .left = left, .m = r->m }, now_ns);
}

static void record_publish(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	struct sim_record *r = record_of(s, idx);
	const bool same = r && r->m.incarnation == n->self.incarnation;

	/* a life before this one had it: the name of now may be somebody else's */
	if (r && strcmp(r->m.name, n->self.name) != 0) {
		record_drop(s, r, true, now_ns);
		r = NULL;
	}
	if (!r)
		r = record_place(s, &n->self);
	if (!r) {
		n->publish_ns = now_ns + WFI_SIM_REREAD_NS;
		return;
	}
	n->publish_ns = 0;
	n->lease_end_ns = UINT64_MAX;
	n->has = true;
	owner_lose(s, r, idx, now_ns);
	n->self.epoch = same ? r->m.epoch : s->epoch + 1;
	*r = (struct sim_record){ .present = true, .leased = true, .owner = idx, .m = n->self };
	news(s, &(struct sim_change){ .m = n->self }, now_ns);
}

/* it hears that its own record is missing: others' may be as well */
static void self_lost(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	if (!n->has || record_of(s, idx))
		return;
	n->has = false;
	wfi_member_view_keep(n->view, now_ns + WFI_SIM_LEASE_NS);
}

static void view_load(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	struct wfi_member list[WFI_MEMBERS_MAX];
	unsigned nr = 0, i;

	for (i = 0; i < WFI_MEMBERS_MAX; i++)
		if (s->records[i].present)
			list[nr++] = s->records[i].m;
	n->heard = s->epoch;
	n->reads = false;
	(void)wfi_member_view_load(n->view, list, nr, s->epoch, now_ns + WFI_MEMBER_HOLD_NS);
	self_lost(s, idx, now_ns);
}

static void view_change(struct sim_store *s, unsigned idx, const struct sim_change *change,
			uint64_t epoch, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	if (!change->gone) {
		(void)wfi_member_view_put(n->view, &change->m, epoch);
		return;
	}
	if (change->m.incarnation == n->self.incarnation)
		self_lost(s, idx, now_ns);
	wfi_member_view_del(n->view, change->m.name, epoch,
			    change->left ? 0 : now_ns + WFI_MEMBER_HOLD_NS);
}

/* a watch tells in order, and not always all at once */
static void view_hear(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	uint64_t until = s->epoch;

	n->news_ns = 0;
	if (n->reads || n->heard < s->forgotten || s->epoch - n->heard > SIM_CHANGES) {
		view_load(s, idx, now_ns);
		return;
	}
	if (s->delay_ns && n->heard < until)
		until -= store_rand(s) % (until - n->heard);
	while (n->heard < until) {
		n->heard++;
		view_change(s, idx, &s->changes[n->heard % SIM_CHANGES], n->heard, now_ns);
	}
	if (n->heard < s->epoch)
		n->news_ns = now_ns + 1 + delay(s);
}

/* drops who is held no more in its view. Return: when something happens to it next */
static uint64_t member_tick(struct sim_member *n, uint64_t now_ns)
{
	uint64_t at_ns = UINT64_MAX;

	if (n->publish_ns)
		at_ns = n->publish_ns;
	if (n->news_ns)
		at_ns = wfi_min(at_ns, n->news_ns);
	if (!n->view)
		return at_ns;
	at_ns = wfi_min(at_ns, wfi_member_view_tick(n->view, now_ns));
	return n->view->keep_ns ? wfi_min(at_ns, n->view->keep_ns) : at_ns;
}

static bool has_lease(const struct sim_store *s, const struct sim_record *r)
{
	return !s->down && r->present && r->leased;
}

/* nodes ask in each of their turns: nearly always nothing is due */
static void settle(struct sim_store *s, uint64_t now_ns)
{
	struct sim_record *r;
	struct sim_member *n;

	if (now_ns < s->due_ns)
		return;
	for (r = s->records; r < s->records + WFI_MEMBERS_MAX; r++)
		if (has_lease(s, r) && s->nodes[r->owner].lease_end_ns <= now_ns)
			record_drop(s, r, false, now_ns);
	for (n = s->nodes; n < s->nodes + WFI_SIM_MAX_NODES; n++)
		if (n->publish_ns && n->publish_ns <= now_ns && reaches(s, n))
			record_publish(s, (unsigned)(n - s->nodes), now_ns);
	s->due_ns = UINT64_MAX;
	for (n = s->nodes; n < s->nodes + WFI_SIM_MAX_NODES; n++) {
		/* nobody's time runs out who could not tell of himself */
		if (!reaches(s, n))
			continue;
		if (n->news_ns && n->news_ns <= now_ns)
			view_hear(s, (unsigned)(n - s->nodes), now_ns);
		s->due_ns = wfi_min(s->due_ns, member_tick(n, now_ns));
	}
	for (r = s->records; r < s->records + WFI_MEMBERS_MAX; r++)
		if (has_lease(s, r))
			s->due_ns = wfi_min(s->due_ns, s->nodes[r->owner].lease_end_ns);
}

/* what was due comes first; what follows from the change is looked for next time */
static void change(struct sim_store *s, uint64_t now_ns)
{
	settle(s, now_ns);
	s->due_ns = 0;
}

const struct wfi_member_view *sim_store_view(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	if (!n->view) {
		n->view = calloc(1, sizeof(*n->view));
		if (!n->view)
			return NULL;
		n->news_ns = now_ns;
		n->reads = true;
		s->due_ns = 0;
	}
	settle(s, now_ns);
	return n->view;
}

void sim_store_publish(struct sim_store *s, unsigned idx, const struct wfi_member *self,
		       uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];
	struct sim_record *r;

	change(s, now_ns);
	n->wanted = self;
	if (self) {
		n->self = *self;
		n->publish_ns = now_ns + delay(s);
		settle(s, now_ns);
		return;
	}
	n->publish_ns = 0;
	n->has = false;
	r = record_of(s, idx);
	if (r && reaches(s, n))
		record_drop(s, r, true, now_ns);
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
	if (!n->view)
		return;
	n->news_ns = now_ns + delay(s);
	wfi_member_view_keep(n->view, now_ns + WFI_SIM_LEASE_NS);
}

void sim_store_reach(struct sim_store *s, unsigned idx, bool reached, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	change(s, now_ns);
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

	change(s, now_ns);
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

	change(s, now_ns);
	for (i = 0; i < WFI_MEMBERS_MAX; i++)
		s->records[i].present = false;
	news(s, NULL, now_ns);
	for (i = 0; i < WFI_SIM_MAX_NODES; i++)
		if (s->nodes[i].wanted && !s->nodes[i].publish_ns)
			s->nodes[i].publish_ns = now_ns + delay(s);
}

void sim_store_compact(struct sim_store *s)
{
	s->forgotten = s->epoch;
	s->due_ns = 0;
}

void sim_store_lose(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_record *r;

	change(s, now_ns);
	r = record_of(s, idx);
	if (!r || s->down)
		return;
	record_drop(s, r, false, now_ns);
	s->nodes[idx].publish_ns = now_ns + delay(s);
}

void sim_store_set(struct sim_store *s, const struct wfi_member *list, unsigned nr)
{
	unsigned i;

	for (i = 0; i < WFI_MEMBERS_MAX; i++) {
		s->records[i] = (struct sim_record){ .present = i < nr };
		if (i < nr)
			s->records[i].m = list[i];
	}
	s->forgotten = ++s->epoch;
	s->due_ns = 0;
	for (i = 0; i < WFI_SIM_MAX_NODES; i++) {
		if (!s->nodes[i].view)
			continue;
		s->nodes[i].heard = s->epoch;
		(void)wfi_member_view_load(s->nodes[i].view, list, nr, s->epoch, 0);
	}
}

void sim_store_crash(struct sim_store *s, unsigned idx, uint64_t now_ns)
{
	struct sim_member *n = &s->nodes[idx];

	change(s, now_ns);
	n->wanted = n->has = false;
	n->publish_ns = 0;
	untouched(n, now_ns);
	free(n->view);
	n->view = NULL;
	n->heard = 0;
	n->news_ns = 0;
}

void sim_store_fini(struct sim_store *s)
{
	unsigned i;

	for (i = 0; i < WFI_SIM_MAX_NODES; i++)
		free(s->nodes[i].view);
}
