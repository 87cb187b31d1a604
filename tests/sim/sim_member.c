/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_member.c - the store of members, its mishaps, and who may be connected
 *
 * Nodes publish their records and call each other by what they see, with the rule that weftd has
 * (daemon/roster.c). A life may begin under the name of another that still runs: in its place, and
 * then it takes the name, or elsewhere, and then it has it when the other's lease has ended.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

#define OBSERVER 60u /* a view that the store always reaches */
#define INTRUDER 61u
#define DELAY_NS (100 * WFI_NSEC_PER_MSEC)
#define LOST_PPM 300000u
#define HEALED_NS (5 * WFI_NSEC_PER_SEC) /* from when all is well until all know it */
#define TURN_NS (5 * WFI_NSEC_PER_MSEC)
#define HOSTS 2u

void members_begin(struct sim *sim)
{
	uint32_t i;

	sim->nr_nodes = 2 + (uint32_t)sim_rand(sim, SIM_SLOTS - 1);
	for (i = 0; i < sim->nr_nodes; i++)
		sim->nodes[i].host = (uint32_t)sim_rand(sim, HOSTS);
}

/* ---- lives ---- */

uint32_t member_name(struct sim *sim, uint32_t n)
{
	const bool twin = sim_chance(sim, 15);
	const uint32_t name = twin ? (uint32_t)sim_rand(sim, sim->nr_nodes) : n;

	snprintf(sim->nodes[n].name, sizeof(sim->nodes[n].name), "n%u", name);
	sim->report->twins += name != n;
	return name;
}

void member_join(struct sim *sim, uint32_t n)
{
	struct sim_node *sn = &sim->nodes[n];
	struct wfi_member *self = &sn->roster.self;
	char host[8];

	snprintf(host, sizeof(host), "h%u", sn->host);
	time_move(sim, 1); /* no two lives begin at one time */
	roster_init(&sn->roster, sn->node, host);
	/* some have it bare, and others behind faults */
	snprintf(self->transport, sizeof(self->transport), "loop");
	/* where its name's lives are, or where nobody is */
	if (sim_chance(sim, 70))
		snprintf(self->socket, sizeof(self->socket), "/run/%s", sn->node->name);
	else
		snprintf(self->socket, sizeof(self->socket), "/run/slot%u", n);
	snprintf(self->addr, sizeof(self->addr), "slot%u", n);
	sn->begin_ns = sn->well_ns = sn->ill_ns = sim->now_ns;
	if (sim->store_down)
		sn->well_ns = UINT64_MAX;
	roster_publish(&sn->roster, false);
}

/* nobody keeps its lease from now on */
void member_end(struct sim *sim, uint32_t n, bool in_order)
{
	struct sim_node *sn = &sim->nodes[n];

	if (in_order)
		(void)sn->env->membership->publish(sn->env, NULL);
	wfi_sim_store_reach(sim->world, sn->view, false);
	sn->cut = false;
}

static bool has_twin(const struct sim *sim, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < sim->nr_nodes; i++)
		if (i != n && !strcmp(sim->nodes[i].name, sim->nodes[n].name))
			return true;
	return sim->intruder;
}

/* ---- connections ---- */

/* who answers where @m is said to be: of two that listen at one socket the later one */
static uint32_t answers(const struct sim *sim, uint32_t from, const struct wfi_member *m)
{
	const bool near = roster_same_host(&sim->nodes[from].roster, m);
	uint32_t i, found = SIM_SLOTS;

	for (i = 0; i < sim->nr_nodes; i++) {
		const struct wfi_member *self = &sim->nodes[i].roster.self;

		if (near ? strcmp(self->host, m->host) || strcmp(self->socket, m->socket)
			 : strcmp(self->addr, m->addr))
			continue;
		if (found == SIM_SLOTS || sim->nodes[i].begin_ns > sim->nodes[found].begin_ns)
			found = i;
	}
	return found;
}

static bool calls(const struct sim *sim, uint32_t a, uint32_t b)
{
	const struct roster *r = &sim->nodes[a].roster;
	unsigned i;

	for (i = 0; i < r->nr; i++)
		if (roster_calls(r, &r->list[i]) && answers(sim, a, &r->list[i]) == b)
			return true;
	return false;
}

static bool lets_in(const struct sim *sim, uint32_t n, const struct wire_hello *who)
{
	char ours[SECURE_WHY], theirs[SECURE_WHY];

	return who->node != sim->nodes[n].node->id &&
	       !roster_check(&sim->nodes[n].roster, who, ours, theirs);
}

bool members_meet(struct sim *sim, struct sim_link *l, uint32_t a, uint32_t b)
{
	if (calls(sim, a, b))
		l->caller = 0;
	else if (calls(sim, b, a))
		l->caller = 1;
	else
		return false;
	peer_hello(sim->nodes[a].node, link_device(sim->nodes[a].node, l), &l->who[0]);
	peer_hello(sim->nodes[b].node, link_device(sim->nodes[b].node, l), &l->who[1]);
	return lets_in(sim, a, &l->who[1]) && lets_in(sim, b, &l->who[0]);
}

/* its caller has no reason to call any more */
static bool is_called_off(const struct sim *sim, uint32_t n, const struct wire_hello *who)
{
	const struct roster *r = &sim->nodes[n].roster;
	const struct wfi_member *m = roster_find(r, who->node);

	return !m || m->incarnation != who->incarnation || !roster_calls(r, m);
}

/* @n leaves @other: there must be a reason in the world */
static void left_check(struct sim *sim, uint32_t n, uint32_t other)
{
	const struct sim_node *p = &sim->nodes[n], *x = &sim->nodes[other];
	const uint64_t ago_ns = sim->now_ns - wfi_min(sim->now_ns, WFI_SIM_LEASE_NS + HEALED_NS);

	sim->report->unlinked++;
	if (p->cut || sim->store_down)
		sim_fail(sim, "node %u leaves node %u while it has no word of the store", n, other);
	if (has_twin(sim, other) || has_twin(sim, n) || sim->lossy_ns > ago_ns ||
	    wfi_max(p->begin_ns, p->ill_ns) > ago_ns || wfi_max(x->begin_ns, x->ill_ns) > ago_ns)
		return;
	sim_fail(sim, "node %u leaves node %u, which has its record", n, other);
}

static void link_check(struct sim *sim, struct sim_link *l, int side, uint32_t n, uint32_t other)
{
	const struct wire_hello *who = &l->who[!side];

	if (!l->end[side] ||
	    (lets_in(sim, n, who) && (l->caller != side || !is_called_off(sim, n, who))))
		return;
	/* of the life before, which is gone */
	if (who->incarnation == sim->nodes[other].roster.self.incarnation)
		left_check(sim, n, other);
	link_detach(sim, l, side);
	l->event_ns = sim->now_ns + sim_rand(sim, 3 * WFI_NSEC_PER_MSEC);
}

static struct sim_link *link_of(struct sim *sim, uint32_t n, uint32_t other, uint32_t rail,
				int *side)
{
	*side = n > other;
	return &sim->links[n < other ? n : other][n < other ? other : n][rail];
}

/* who lost its name to a later life is left by all who can know */
static void fence_check(struct sim *sim, uint32_t n)
{
	struct sim_node *sn = &sim->nodes[n];
	struct wfi_env *env = wfi_sim_node(sim->world, OBSERVER);
	struct wfi_member list[WFI_MEMBERS_MAX];
	uint32_t other, k;
	uint64_t epoch, since_ns;
	int i, nr, side;

	nr = env->membership->members(env, list, WFI_MEMBERS_MAX, &epoch);
	for (i = 0; i < nr && strcmp(list[i].name, sn->name) != 0; i++)
		;
	if (i == nr || list[i].incarnation == sn->roster.self.incarnation) {
		sn->fenced_ns = 0;
		return;
	}
	if (!sn->fenced_ns)
		sn->fenced_ns = sim->now_ns;
	sn->ill_ns = sim->now_ns;
	for (other = 0; other < sim->nr_nodes; other++)
		for (k = 0; k < SIM_RAILS; k++) {
			const struct sim_link *l = link_of(sim, other, n, k, &side);

			since_ns = wfi_max(sim->nodes[other].well_ns, sn->fenced_ns);
			if (other != n && l->end[side] && since_ns <= sim->now_ns &&
			    sim->now_ns - since_ns > HEALED_NS)
				sim_fail(sim, "node %u stays with node %u, whose name is another's",
					 other, n);
		}
	sim->report->fenced++;
}

void member_poll(struct sim *sim, uint32_t n)
{
	struct sim_link *l;
	uint32_t other, k;
	int side;

	fence_check(sim, n);
	if (!roster_poll(&sim->nodes[n].roster))
		return;
	for (other = 0; other < sim->nr_nodes; other++)
		for (k = 0; k < SIM_RAILS && other != n; k++) {
			l = link_of(sim, n, other, k, &side);
			link_check(sim, l, side, n, other);
		}
}

/* ---- mishaps ---- */

/* @n has heard the last for a while, or hears again */
static void touch_set(struct sim *sim, uint32_t n)
{
	struct sim_node *sn = &sim->nodes[n];
	const bool well = !sn->cut && !sim->store_down;

	sn->ill_ns = sim->now_ns;
	if (!well)
		sn->well_ns = UINT64_MAX;
	else if (sn->well_ns == UINT64_MAX)
		sn->well_ns = sim->now_ns;
}

static void cut_set(struct sim *sim, uint32_t n, bool cut)
{
	/* what has come before is no news of later */
	member_poll(sim, n);
	wfi_sim_store_reach(sim->world, sim->nodes[n].view, !cut);
	sim->nodes[n].cut = cut;
	touch_set(sim, n);
}

static void down_set(struct sim *sim, bool down)
{
	uint32_t i;

	for (i = 0; i < sim->nr_nodes; i++)
		member_poll(sim, i);
	wfi_sim_store_down(sim->world, down);
	sim->store_down = down;
	for (i = 0; i < sim->nr_nodes; i++)
		touch_set(sim, i);
}

static void store_faults_set(struct sim *sim, uint64_t delay_ns, uint32_t lost_ppm)
{
	sim->store.store_delay_ns = delay_ns;
	sim->store.store_lost_ppm = lost_ppm;
	if (lost_ppm)
		sim->lossy_ns = UINT64_MAX;
	else if (sim->lossy_ns == UINT64_MAX)
		sim->lossy_ns = sim->now_ns;
	wfi_sim_set_faults(sim->world, &sim->store);
}

/* somebody else, who can be reached nowhere, wants a node's name */
static void intrude(struct sim *sim, bool on)
{
	struct wfi_env *env = wfi_sim_node(sim->world, INTRUDER);
	const struct sim_node *sn = &sim->nodes[sim_rand(sim, sim->nr_nodes)];
	struct wfi_member m = sn->roster.self;
	uint32_t i;

	m.incarnation = ~m.incarnation;
	snprintf(m.host, sizeof(m.host), "nowhere");
	(void)env->membership->publish(env, on ? &m : NULL);
	sim->intruder = on;
	for (i = 0; i < sim->nr_nodes; i++)
		sim->nodes[i].ill_ns = sim->now_ns;
}

void member_mishap(struct sim *sim)
{
	const uint32_t n = (uint32_t)sim_rand(sim, sim->nr_nodes);

	sim->report->store_mishaps++;
	switch (sim_rand(sim, 8)) {
	case 0:
		cut_set(sim, n, !sim->nodes[n].cut);
		break;
	case 1:
		down_set(sim, !sim->store_down);
		break;
	case 2:
		wfi_sim_store_wipe(sim->world);
		break;
	case 3:
		wfi_sim_store_lose(sim->world, sim->nodes[n].view);
		break;
	case 4:
		wfi_sim_store_compact(sim->world);
		break;
	case 5:
		store_faults_set(sim, sim_rand(sim, DELAY_NS), sim_chance(sim, 30) ? LOST_PPM : 0);
		break;
	case 6:
		intrude(sim, !sim->intruder);
		break;
	default:
		if (sim_chance(sim, 50))
			node_crash(sim, n);
		break;
	}
}

/* ---- all is well ---- */

static bool owns_name(const struct sim *sim, uint32_t n)
{
	const struct roster *r = &sim->nodes[n].roster;
	const struct wfi_member *m = roster_find(r, r->self.node);

	return m && m->incarnation == r->self.incarnation;
}

/* over the first of the rails that have not failed for good, if there is one */
static bool is_linked(struct sim *sim, uint32_t n, uint32_t other, bool otherwise)
{
	uint32_t k;
	int side;

	for (k = 0; k < SIM_RAILS; k++) {
		const struct sim_link *l = link_of(sim, n, other, k, &side);

		if (l->used && !link_device(sim->nodes[n].node, l)->lost &&
		    !link_device(sim->nodes[other].node, l)->lost)
			return l->end[0] && l->end[1];
	}
	return otherwise;
}

static bool same_view(const struct roster *a, const struct roster *b)
{
	unsigned i;

	for (i = 0; i < a->nr && a->nr == b->nr; i++)
		if (a->list[i].node != b->list[i].node ||
		    a->list[i].incarnation != b->list[i].incarnation ||
		    a->list[i].epoch != b->list[i].epoch)
			return false;
	return a->nr == b->nr;
}

/* one life has the name of @n. Return: how many do */
static uint32_t owners(const struct sim *sim, uint32_t n)
{
	uint32_t i, nr = 0;

	for (i = 0; i < sim->nr_nodes; i++)
		nr += !strcmp(sim->nodes[i].name, sim->nodes[n].name) && owns_name(sim, i);
	return nr;
}

/* of the lives in one place the last one has the name, if any of them has */
static void place_check(struct sim *sim, uint32_t n, uint32_t other)
{
	const struct sim_node *a = &sim->nodes[n], *b = &sim->nodes[other];

	if (!strcmp(a->name, b->name) && a->host == b->host &&
	    !strcmp(a->roster.self.socket, b->roster.self.socket) &&
	    owns_name(sim, a->begin_ns < b->begin_ns ? n : other))
		sim_fail(sim,
			 "nodes %u and %u are lives of one place, and the earlier has the name", n,
			 other);
}

/* members are connected, others are not */
static void link_end_check(struct sim *sim, uint32_t n, uint32_t other)
{
	const bool want = owns_name(sim, n) && owns_name(sim, other);

	if (is_linked(sim, n, other, want) != want)
		sim_fail(sim, "nodes %u and %u are %s", n, other, want ? "apart" : "connected");
}

static void converged_check(struct sim *sim)
{
	uint32_t n, other, nr_names = 0;

	for (n = 0; n < sim->nr_nodes; n++) {
		if (owners(sim, n) != 1)
			sim_fail(sim, "%u lives have the name %s", owners(sim, n),
				 sim->nodes[n].name);
		nr_names += owns_name(sim, n);
		if (!same_view(&sim->nodes[0].roster, &sim->nodes[n].roster))
			sim_fail(sim, "nodes 0 and %u know different members", n);
		for (other = 0; other < n; other++) {
			place_check(sim, n, other);
			link_end_check(sim, n, other);
		}
	}
	if (sim->nodes[0].roster.nr != nr_names)
		sim_fail(sim, "%u members, of which %u are there", sim->nodes[0].roster.nr,
			 nr_names);
}

void members_converge(struct sim *sim)
{
	uint64_t end_ns;
	uint32_t n;

	if (sim->store_down)
		down_set(sim, false);
	for (n = 0; n < sim->nr_nodes; n++)
		if (sim->nodes[n].cut)
			cut_set(sim, n, false);
	if (sim->intruder)
		intrude(sim, false);
	store_faults_set(sim, 0, 0);
	for (end_ns = sim->now_ns + HEALED_NS; sim->now_ns < end_ns && !sim->failed;) {
		time_move(sim, TURN_NS);
		polls(sim, 1);
		links_poll(sim);
		ghosts_poll(sim);
	}
	if (!sim->failed)
		converged_check(sim);
}
