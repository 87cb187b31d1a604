/* SPDX-License-Identifier: Apache-2.0 */
/* sim.c - the world: nodes, links, faults, time, and what must hold at the end */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define JUMP_NS (6 * WFI_NSEC_PER_MSEC) /* time moves by less */
#define ARENA_BYTES (256u << 10)
#define TIER_BYTES (2u << 20)
#define END_TURNS 160u
#define END_TURN_NS (5 * WFI_NSEC_PER_MSEC)
#define LAST_TURNS                                                                                 \
	2000u /* of a drain, and of what it has offered, over an endpoint that has stopped */
#define HOUSEKEEPING_POLLS 16u

/* ---- chance, trace, contents ---- */

uint64_t sim_rand(struct sim *sim, uint64_t below)
{
	return wfi_sim_rand(sim->world) % below;
}

bool sim_chance(struct sim *sim, unsigned percent)
{
	return sim_rand(sim, 100) < percent;
}

static uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void sim_trace(struct sim *sim, uint64_t word)
{
	sim->report->trace = mix(sim->report->trace ^ word);
}

void sim_fail(struct sim *sim, const char *fmt, ...)
{
	va_list args;

	if (sim->failed)
		return;
	sim->failed = true;
	fprintf(stderr, "sim: seed %" PRIu64 " step %u at %" PRIu64 " us: ", sim->opts.seed,
		sim->step, sim_us(sim->now_ns));
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
}

struct weft_key sim_key(const struct sim_run *run, uint32_t i)
{
	const uint64_t name = (uint64_t)run->chain << 32 | (run->first + i);

	return (struct weft_key){ .lo = mix(name), .hi = mix(~name) };
}

static uint64_t content_seed(uint32_t tenant, const struct weft_key *key)
{
	return mix(key->lo ^ mix(key->hi ^ tenant));
}

void sim_fill(uint32_t tenant, const struct weft_key *key, void *buf, uint64_t off, uint64_t len)
{
	const uint64_t seed = content_seed(tenant, key);
	uint64_t word, at;

	for (at = 0; at < len; at += sizeof(word)) {
		word = mix(seed + off + at);
		memcpy((uint8_t *)buf + at, &word, sizeof(word));
	}
}

bool sim_holds(uint32_t tenant, const struct weft_key *key, const void *buf, uint64_t off,
	       uint64_t len)
{
	const uint64_t seed = content_seed(tenant, key);
	uint64_t word, at;

	for (at = 0; at < len; at += sizeof(word)) {
		memcpy(&word, (const uint8_t *)buf + at, sizeof(word));
		if (word != mix(seed + off + at))
			return false;
	}
	return true;
}

/* ---- nodes ---- */

static void stat_check(struct sim *sim, uint32_t n)
{
	struct weft_stat st;
	uint32_t t;

	for (t = 0; t < SIM_TENANTS; t++) {
		wfi_kv_stat(sim->nodes[n].node->kv, sim->nodes[n].node->tenants[t], &st);
		if (st.slots_free + st.slots_filling + st.blocks_held + st.slots_quarantined !=
		    st.slots_total)
			sim_fail(sim,
				 "node %u tenant %u: %" PRIu64 " free + %" PRIu64
				 " filling + %" PRIu64 " held + %" PRIu64
				 " quarantined are not %" PRIu64 " slots",
				 n, t, st.slots_free, st.slots_filling, st.blocks_held,
				 st.slots_quarantined, st.slots_total);
	}
}

/* what the control thread does when it is poked */
static void control_poll(struct sim *sim, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < sim->nr_engines; i++) {
		struct sim_engine *e = &sim->engines[i];

		if (e->session && e->node == n && e->session->broken)
			engine_hang_up(e, sim_chance(sim, 50));
	}
}

static void drain_poll(struct sim *sim, uint32_t n);

static void node_turn(struct sim *sim, uint32_t n)
{
	/* what it hears from others it looks at now and then only, unless operations are open */
	uint32_t i = sim_chance(sim, 30) ? HOUSEKEEPING_POLLS : 1;

	while (i--)
		node_poll(sim->nodes[n].node);
	sim->nodes[n].polled_ns = sim->now_ns;
	for (i = 0; i < sim->nr_engines; i++)
		if (sim->engines[i].session && sim->engines[i].node == n)
			engine_mark_taken(&sim->engines[i]);
	stat_check(sim, n);
	if (sim->opts.members)
		member_poll(sim, n);
	control_poll(sim, n);
	if (sim->nodes[n].draining)
		drain_poll(sim, n);
}

static int node_start(struct sim *sim, uint32_t n)
{
	static const char *const names[SIM_TENANTS] = { "red", "blue" };
	struct sim_node *sn = &sim->nodes[n];
	struct wfi_fault_opts none = { .seed = sim_rand(sim, UINT64_MAX) };
	struct wfi_tenant_opts tenants[SIM_TENANTS];
	struct node_opts opts = {
		.name = "node",
		.node_id = 0x100 + n,
		.lease_ns = SIM_LEASE_NS,
		.op_timeout_ns = SIM_OP_TIMEOUT_NS,
		.nr_devices = SIM_RAILS,
		.directory_bytes = 4096u << sim_rand(sim, 6),
		.copy_after = sim_chance(sim, 50) ? WFI_COPY_NEVER : 0,
		.tenants = tenants,
		.nr_tenants = SIM_TENANTS,
		.tier_path = sn->tiered ? SIM_TIER : NULL,
		.tier_bytes = TIER_BYTES,
		.tier_scrub_bps = sim_chance(sim, 50) ? 1u << 20 : 0,
	};
	uint32_t t;
	int ret;

	for (t = 0; t < SIM_TENANTS; t++) {
		tenants[t] = (struct wfi_tenant_opts){ .name = names[t],
						       .token = names[t],
						       .arena_bytes = ARENA_BYTES };
		memset(tenants[t].salt, (int)t + 1, sizeof(tenants[t].salt));
	}
	/* each life has a view of its own: corpses keep theirs */
	sn->env = wfi_sim_node(sim->world, sn->view);
	sn->transports[0] = wfi_transport_find(NULL, "loop");
	/* the bare transport copies inside a post: other paths of the transfer engine */
	if (!sim_chance(sim, 25)) {
		if (wfi_fault_create(sn->transports[0], &none, &sn->fault))
			return -ENOMEM;
		sn->transports[0] = sn->fault;
	}
	sn->env->transports = sn->transports;
	opts.env = sn->env;
	opts.transport = sn->transports[0]->name;
	if (sim->opts.members) {
		opts.node_id = 0x100 + member_name(sim, n);
		opts.name = sn->name;
	}
	ret = node_create(&opts, &sn->node);
	if (!ret && sim->opts.members)
		member_join(sim, n);
	return ret;
}

/* ---- a node dies, and another life begins ---- */

static void faults_sum(struct sim *sim, const struct weft_transport *t)
{
	struct wfi_fault_stats *sum = &sim->report->faults, s;

	wfi_fault_stats(t, &s);
	sum->delayed += s.delayed;
	sum->eagain += s.eagain;
	sum->op += s.op;
	sum->ep += s.ep;
	sum->device += s.device;
	sum->dropped += s.dropped;
	sum->stopped += s.stopped;
	sum->late += s.late;
	sum->late_at_end += s.late_at_end;
	sum->late_lost += s.late_lost;
	sum->duplicated += s.duplicated;
	sum->truncated += s.truncated;
	sum->corrupted += s.corrupted;
}

static bool may_end(const struct sim *sim)
{
	return sim->nr_corpses < SIM_CORPSES && sim->nr_ghosts + SIM_ENGINES < SIM_GHOSTS;
}

/* what the drive holds is there for the next life */
static void tier_carry(struct sim *sim, uint32_t from, uint32_t to)
{
	struct wfi_env *env = wfi_sim_node(sim->world, to);
	const uint8_t *old;
	struct wfi_disk *disk;
	uint64_t len, new_len;

	old = wfi_sim_file(sim->world, from, SIM_TIER, &len);
	/* it died before it had one */
	if (!old || env->disk->open(env, SIM_TIER, WFI_DISK_ALIGN, &disk))
		return;
	if (!env->disk->resize(disk, len))
		memcpy(wfi_sim_file(sim->world, to, SIM_TIER, &new_len), old, len);
	env->disk->close(disk);
}

/* the process ends, the next life begins; others hear of it later */
static void node_end(struct sim *sim, uint32_t n, bool in_order)
{
	const struct wfi_sim_faults none = sim->store;
	struct sim_node *sn = &sim->nodes[n];
	const uint32_t view = sn->view;
	uint32_t i, k;

	sim_trace(sim, n);
	if (sim->opts.members)
		member_end(sim, n, in_order);
	for (i = 0; i < sim->nr_engines; i++)
		if (sim->engines[i].session && sim->engines[i].node == n)
			engine_lose_node(&sim->engines[i]);
	for (i = 0; i < sim->nr_ghosts; i++)
		if (sim->ghosts[i].node == n)
			sim->ghosts[i].writes = false;
	for (i = 0; i < sim->nr_nodes; i++)
		for (k = 0; k < SIM_RAILS; k++) {
			link_lose_end(sim, &sim->links[n][i][k], 0);
			link_lose_end(sim, &sim->links[i][n][k], 1);
		}
	sim->corpses[sim->nr_corpses++] =
		(struct sim_corpse){ .node = sn->node, .fault = sn->fault };
	*sn = (struct sim_node){ .polled_ns = sim->now_ns,
				 .tiered = sn->tiered,
				 .host = sn->host,
				 .view = n + SIM_SLOTS * sim->nr_corpses };
	wfi_sim_set_faults(sim->world, &none);
	if (sn->tiered)
		tier_carry(sim, view, sn->view);
	if (node_start(sim, n))
		sim_fail(sim, "node %u does not start again", n);
}

void node_crash(struct sim *sim, uint32_t n)
{
	if (!may_end(sim))
		return;
	node_end(sim, n, false);
	sim->report->crashes++;
}

/* ---- a node leaves in order ---- */

static void node_drain(struct sim *sim, uint32_t n)
{
	struct sim_node *sn = &sim->nodes[n];
	uint32_t a, b, k;

	if (sn->draining || sim->nr_nodes < 2)
		return;
	sim_trace(sim, n);
	sn->draining = true;
	sn->node->draining = true;
	if (sim->opts.members)
		roster_publish(&sn->roster, true);
	for (a = 0; a < sim->nr_nodes; a++)
		for (b = a + 1; b < sim->nr_nodes; b++)
			for (k = 0; k < SIM_RAILS && (a == n || b == n); k++) {
				struct sim_link *l = &sim->links[a][b][k];
				const int other = a == n;

				if (l->end[0] && l->end[1])
					peer_drains(link_node(sim, a, b, other), l->end[other]);
			}
	sim->report->drains++;
}

/* Return: engines that are left there; one may go */
static uint32_t engines_leave(struct sim *sim, uint32_t n)
{
	uint32_t i, left = 0;

	for (i = 0; i < sim->nr_engines; i++) {
		struct sim_engine *e = &sim->engines[i];

		if (!e->session || e->node != n)
			continue;
		left++;
		if (sim_chance(sim, 1))
			engine_hang_up(e, sim_chance(sim, 50));
	}
	return left;
}

/* what the control thread does in each turn, from when the node was told to leave */
static void drain_poll(struct sim *sim, uint32_t n)
{
	struct sim_node *sn = &sim->nodes[n];
	bool handed_on;

	if (sim->quiet || engines_leave(sim, n))
		return;
	if (!sn->alone_ns)
		sn->alone_ns = sim->now_ns;
	handed_on = wfi_cluster_drain(sn->node->cluster, sim->now_ns);
	if (!handed_on && sim->now_ns - sn->alone_ns > SIM_DRAIN_NS + SIM_STALL_NS)
		sim_fail(sim, "node %u drains for ever", n);
	if (!handed_on || !may_end(sim))
		return;
	sim->report->drained++;
	node_end(sim, n, true);
}

/* its resources go back as if it had ended in order: nothing else is left that could see it */
static void corpse_bury(struct sim *sim, struct sim_corpse *c)
{
	uint32_t turn;

	while (c->node->nr_sessions)
		session_detach(c->node->sessions[0], false);
	while (c->node->nr_peers)
		peer_detach(c->node->peers[0]);
	for (turn = 0; turn < END_TURNS && c->node->nr_ending; turn++) {
		wfi_sim_advance(sim->world, END_TURN_NS);
		node_poll(c->node);
	}
	node_destroy(c->node);
	if (!c->fault)
		return;
	faults_sum(sim, c->fault);
	wfi_fault_destroy(c->fault);
}

/* ---- faults ---- */

static void fault_pick(struct sim *sim, struct wfi_fault_opts *f)
{
	switch (sim_rand(sim, 16)) {
	case 0:
	case 1:
		f->delay_ppm = 300000;
		f->delay_max_ns = 1 + sim_rand(sim, 60 * WFI_NSEC_PER_MSEC);
		break;
	case 2:
		f->eagain_ppm = 200000;
		f->eagain_run = 20;
		break;
	case 3:
		f->op_ppm = 100000;
		break;
	case 4:
		f->ep_ppm = 20000;
		break;
	case 5:
		f->drop_ppm = 20000;
		break;
	case 6:
		f->stop_ppm = 20000;
		break;
	case 7:
		f->device_ppm = 5000;
		break;
	case 8:
		f->stop_ppm = 10000; /* and what had stopped lands when it is reset, or not */
		/* fallthrough */
	case 9:
		f->late_ppm = 300000;
		f->late_max_ns = 1 + sim_rand(sim, 60 * WFI_NSEC_PER_MSEC);
		break;
	case 10:
	case 11:
		if (!sim->harm)
			break;
		f->corrupt_ppm = 100000;
		f->truncate_ppm = 100000;
		f->dup_ppm = 100000;
		break;
	default:
		break;
	}
}

/* of all drives: slow, out of order, or at fault now and then */
static void drive_faults(struct sim *sim, struct wfi_sim_faults *f)
{
	if (sim_chance(sim, 50))
		f->disk_latency_ns = sim_rand(sim, 20 * WFI_NSEC_PER_MSEC);
	switch (sim_rand(sim, 8)) {
	case 0:
		f->disk_error_ppm = 50000;
		break;
	case 1:
		f->disk_short_ppm = 200000;
		break;
	case 2:
		f->disk_flip_ppm = 50000;
		break;
	case 3:
		f->disk_full_ppm = 50000;
		break;
	default:
		break;
	}
}

static void faults_change(struct sim *sim)
{
	struct wfi_sim_faults world = sim->store;
	struct wfi_fault_opts f = { 0 };
	uint32_t n = (uint32_t)sim_rand(sim, sim->nr_nodes);

	if (sim_chance(sim, 20))
		world.alloc_fail_ppm = 100000;
	drive_faults(sim, &world);
	wfi_sim_set_faults(sim->world, &world);
	fault_pick(sim, &f);
	if (sim->nodes[n].fault)
		wfi_fault_set(sim->nodes[n].fault, &f);
}

static void faults_end(struct sim *sim)
{
	struct wfi_sim_faults world = { 0 };
	struct wfi_fault_opts none = { 0 };
	uint32_t n;

	wfi_sim_set_faults(sim->world, &world);
	for (n = 0; n < sim->nr_nodes; n++)
		if (sim->nodes[n].fault)
			wfi_fault_set(sim->nodes[n].fault, &none);
}

/* ---- one step ---- */

void time_move(struct sim *sim, uint64_t ns)
{
	wfi_sim_advance(sim->world, ns);
	sim->now_ns += ns;
}

static void time_jump(struct sim *sim)
{
	const uint64_t dice = sim_rand(sim, 10);

	if (dice < 5)
		time_move(sim, sim_rand(sim, 20 * WFI_NSEC_PER_USEC));
	else if (dice < 9)
		time_move(sim, sim_rand(sim, WFI_NSEC_PER_MSEC));
	else
		time_move(sim, sim_rand(sim, JUMP_NS));
}

static void engine_turn(struct sim *sim, struct sim_engine *e)
{
	if (!e->session) {
		if (sim->now_ns >= e->attach_ns)
			engine_attach(e);
		return;
	}
	if (e->refit) {
		engine_refit_poll(e);
		return;
	}
	if (sim_chance(sim, 60))
		engine_poll(e);
	if (e->session && sim_chance(sim, 70))
		engine_act(e);
}

static void mishap(struct sim *sim)
{
	struct sim_engine *e = &sim->engines[sim_rand(sim, sim->nr_engines)];
	struct sim_link *l;

	if (sim->opts.members && sim_chance(sim, 40)) {
		member_mishap(sim);
		return;
	}
	switch (sim_rand(sim, 9)) {
	case 0:
		if (e->session)
			engine_hang_up(e, sim_chance(sim, 50));
		break;
	case 1:
		if (e->session && !e->refit)
			engine_refit(e);
		break;
	case 2:
		l = &sim->links[sim_rand(sim, sim->nr_nodes)][sim_rand(sim, sim->nr_nodes)]
			       [sim_rand(sim, SIM_RAILS)];
		if (l->end[0] && l->end[1])
			link_down(sim, l);
		break;
	case 3:
		if (sim_chance(sim, 10))
			node_crash(sim, (uint32_t)sim_rand(sim, sim->nr_nodes));
		break;
	case 4:
		if (sim_chance(sim, 20))
			node_drain(sim, (uint32_t)sim_rand(sim, sim->nr_nodes));
		break;
	default:
		faults_change(sim);
		break;
	}
}

/* nobody is later than the world promises */
static void laggards(struct sim *sim)
{
	uint32_t i;

	for (i = 0; i < sim->nr_nodes; i++)
		if (sim->now_ns - sim->nodes[i].polled_ns > SIM_STALL_NS - JUMP_NS)
			node_turn(sim, i);
	for (i = 0; i < sim->nr_engines; i++)
		if (sim->engines[i].session)
			engine_check_overdue(&sim->engines[i]);
}

/* leases run out in times that are long for everything else */
static void days_pass(struct sim *sim)
{
	const uint64_t end_ns = sim->now_ns + sim_rand(sim, 5 * WFI_NSEC_PER_SEC / 2);
	uint32_t i;

	while (sim->now_ns < end_ns && !sim->failed) {
		time_move(sim, sim_rand(sim, 2 * JUMP_NS));
		polls(sim, 1);
		engine_turn(sim, &sim->engines[sim_rand(sim, sim->nr_engines)]);
		links_poll(sim);
		ghosts_poll(sim);
		for (i = 0; i < sim->nr_engines; i++)
			if (sim->engines[i].session)
				engine_check_overdue(&sim->engines[i]);
	}
}

static void step(struct sim *sim)
{
	const uint64_t dice = sim_rand(sim, 1000);

	if (dice < 450)
		node_turn(sim, (uint32_t)sim_rand(sim, sim->nr_nodes));
	else if (dice < 830)
		engine_turn(sim, &sim->engines[sim_rand(sim, sim->nr_engines)]);
	else if (dice < 985)
		time_jump(sim);
	else if (sim->opts.members && sim_chance(sim, 10))
		days_pass(sim);
	else
		mishap(sim);
	links_poll(sim);
	ghosts_poll(sim);
	laggards(sim);
}

/* ---- the end ---- */

void polls(struct sim *sim, uint32_t times)
{
	uint32_t n, i;

	for (i = 0; i < times; i++)
		for (n = 0; n < sim->nr_nodes; n++)
			node_turn(sim, n);
}

/* all operations that are open end, without faults, by their deadlines */
static void drain(struct sim *sim)
{
	uint32_t turn, i, busy = 1;

	sim->quiet = true;
	faults_end(sim);
	for (turn = 0; turn < END_TURNS && busy && !sim->failed; turn++) {
		time_move(sim, END_TURN_NS);
		polls(sim, 2);
		links_poll(sim);
		ghosts_poll(sim);
		for (i = 0, busy = 0; i < sim->nr_engines; i++) {
			if (!sim->engines[i].session)
				continue;
			busy += sim->engines[i].refit;
			if (sim->engines[i].refit) {
				engine_refit_poll(&sim->engines[i]);
				continue;
			}
			engine_poll(&sim->engines[i]);
			engine_check_overdue(&sim->engines[i]);
			busy += engine_busy(&sim->engines[i]);
		}
	}
	if (busy)
		sim_fail(sim, "%u engines still wait for completions", busy);
}

/* blocks of a chain that a space holds: each as it was made, and then no more */
static void chain_check_and_drop(struct sim *sim, uint32_t n, uint32_t tenant, uint32_t space,
				 uint32_t chain)
{
	const struct sim_run run = { .chain = chain, .nr = SIM_CHAIN_LEN };
	struct wfi_space_info info;
	struct wfi_kv *kv = sim->nodes[n].node->kv;
	struct weft_key keys[SIM_CHAIN_LEN];
	uint32_t slots[SIM_CHAIN_LEN], i;
	int32_t results[SIM_CHAIN_LEN];

	/* other nodes may have opened it, for what they sent */
	if (sim_space_open(sim, n, tenant, space, &info))
		return;
	for (i = 0; i < SIM_CHAIN_LEN; i++)
		keys[i] = sim_key(&run, i);
	wfi_kv_lookup(kv, info.id, keys, SIM_CHAIN_LEN, slots, sim->now_ns);
	for (i = 0; i < SIM_CHAIN_LEN; i++) {
		if (slots[i] == WFI_SLOT_NONE)
			continue;
		if (wfi_kv_verify(kv, slots[i]) ||
		    !sim_holds(tenant, &keys[i], wfi_kv_slot_addr(kv, slots[i]), 0,
			       sim->geometry[space].block_bytes))
			sim_fail(sim, "node %u: chain %u block %u is held, but not what it was", n,
				 chain, i);
	}
	wfi_kv_drop(kv, info.id, keys, SIM_CHAIN_LEN, results);
}

static void drop_all(struct sim *sim, uint32_t n)
{
	uint32_t t, s, c;

	for (t = 0; t < SIM_TENANTS; t++)
		for (s = 0; s < SIM_SPACES; s++)
			for (c = 0; c < SIM_CHAINS; c++)
				chain_check_and_drop(sim, n, t, s, c);
}

/* what is dropped stays for the sake of children that are not: so those go before the count */
static void nothing_left(struct sim *sim, uint32_t n)
{
	const struct node *node = sim->nodes[n].node;
	struct weft_stat st;
	uint32_t t;

	if (node->nr_open || node->nr_ending || node->nr_sessions)
		sim_fail(sim, "node %u: %u operations, %u endings, %u sessions are left", n,
			 node->nr_open, node->nr_ending, node->nr_sessions);
	for (t = 0; t < SIM_TENANTS; t++) {
		wfi_kv_stat(node->kv, node->tenants[t], &st);
		sim_trace(sim, st.blocks_held);
	}
	drop_all(sim, n);
	for (t = 0; t < SIM_TENANTS; t++) {
		wfi_kv_stat(node->kv, node->tenants[t], &st);
		if (st.slots_free != st.slots_total || st.slots_leased)
			sim_fail(sim,
				 "node %u tenant %u: %" PRIu64 " slots filling, %" PRIu64
				 " leased, %" PRIu64 " held, %" PRIu64
				 " quarantined though nobody is there",
				 n, t, st.slots_filling, st.slots_leased, st.blocks_held,
				 st.slots_quarantined);
	}
}

/* Return: whether blocks are still on their way to a node that holds them as well from then on: an
 * endpoint that has stopped may hold that up */
static bool hands_on(struct sim *sim)
{
	struct weft_stat st;
	uint64_t leased = 0;
	uint32_t n, t;

	for (n = 0; n < sim->nr_nodes; n++)
		for (t = 0; t < SIM_TENANTS; t++) {
			wfi_kv_stat(sim->nodes[n].node->kv, sim->nodes[n].node->tenants[t], &st);
			leased += st.slots_leased;
		}
	return leased;
}

static void finish(struct sim *sim)
{
	uint32_t turn, i, a, b, k;

	drain(sim);
	if (sim->opts.members && !sim->failed)
		members_converge(sim);
	for (i = 0; i < sim->nr_engines; i++)
		if (sim->engines[i].session)
			engine_hang_up(&sim->engines[i], sim_chance(sim, 50));
	for (turn = 0; !sim->failed && (turn < END_TURNS || (turn < LAST_TURNS && hands_on(sim)));
	     turn++) {
		time_move(sim, END_TURN_NS);
		polls(sim, HOUSEKEEPING_POLLS);
		ghosts_poll(sim);
	}
	for (i = 0; i < sim->nr_nodes && !sim->failed; i++)
		nothing_left(sim, i);
	for (a = 0; a < sim->nr_nodes; a++)
		for (b = a + 1; b < sim->nr_nodes; b++)
			for (k = 0; k < SIM_RAILS; k++) {
				link_detach(sim, &sim->links[a][b][k], 0);
				link_detach(sim, &sim->links[a][b][k], 1);
			}
	for (turn = 0; turn < END_TURNS && !sim->failed; turn++) {
		time_move(sim, END_TURN_NS);
		polls(sim, HOUSEKEEPING_POLLS);
	}
	for (i = 0; i < sim->nr_nodes && !sim->failed; i++)
		nothing_left(sim, i);
}

static void cluster_sum(struct sim *sim, const struct node *node)
{
	struct wfi_cluster_stat st;
	struct wfi_tier_stat tier;
	const char *name;

	wfi_cluster_stat(node->cluster, &st);
	sim->report->fetched += st.fetched;
	sim->report->missed += st.missed;
	sim->report->shared += st.shared;
	sim->report->kept += st.kept;
	sim->report->hedged += st.hedged;
	sim->report->resyncs += st.resyncs;
	sim->report->raised += st.raised;
	if (wfi_kv_tier_stat(node->kv, &name, &tier))
		return;
	sim->report->recovered += tier.recovered;
}

static void world_end(struct sim *sim)
{
	uint32_t i;

	for (i = 0; i < sim->nr_corpses; i++)
		corpse_bury(sim, &sim->corpses[i]);
	for (i = 0; i < sim->nr_nodes; i++) {
		cluster_sum(sim, sim->nodes[i].node);
		node_destroy(sim->nodes[i].node);
		if (!sim->nodes[i].fault)
			continue;
		faults_sum(sim, sim->nodes[i].fault);
		wfi_fault_destroy(sim->nodes[i].fault);
	}
	for (i = 0; i < sim->nr_ghosts; i++)
		free(sim->ghosts[i].mem);
	wfi_sim_destroy(sim->world);
}

/* ---- all of it ---- */

static void engines_place(struct sim *sim)
{
	uint32_t i;

	for (i = 0; i < sim->nr_engines; i++)
		sim->engines[i] = (struct sim_engine){
			.sim = sim,
			.idx = i,
			.node = (uint32_t)sim_rand(sim, sim->nr_nodes),
			.tenant = sim_chance(sim, 80) ? 0 : 1,
			.space = sim_chance(sim, 80) ? 0 : 1,
		};
}

static bool world_begin(struct sim *sim)
{
	static const uint64_t bytes[] = { 256, 1024, 4096 };
	static const uint32_t layers[] = { 1, 2, 4 };
	uint32_t i;

	if (wfi_sim_create(sim->opts.seed, &sim->world))
		return false;
	sim->now_ns = wfi_now(wfi_sim_node(sim->world, 0));
	sim->nr_nodes = sim_chance(sim, 10) ? 1 : 2 + (uint32_t)sim_rand(sim, SIM_NODES - 1);
	if (sim->opts.members)
		members_begin(sim);
	sim->nr_engines = 2 + (uint32_t)sim_rand(sim, SIM_ENGINES - 1);
	sim->harm = sim_chance(sim, 50);
	sim->replicas = (uint32_t)sim_rand(sim, 4);
	for (i = 0; i < SIM_SPACES; i++)
		sim->geometry[i] = (struct sim_geometry){
			.block_bytes = bytes[sim_rand(sim, WFI_ARRAY_SIZE(bytes))],
			.nr_layers = layers[sim_rand(sim, WFI_ARRAY_SIZE(layers))],
		};
	for (i = 0; i < sim->nr_nodes; i++) {
		sim->nodes[i].view = i;
		sim->nodes[i].tiered = sim_chance(sim, 60);
		if (node_start(sim, i))
			return false;
	}
	engines_place(sim);
	links_place(sim);
	return true;
}

bool sim_run(const struct sim_opts *opts, struct sim_report *out)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	bool ok;

	if (!sim)
		return false;
	sim->opts = *opts;
	sim->report = out;
	*out = (struct sim_report){ .trace = opts->seed };
	if (world_begin(sim)) {
		for (; sim->step < opts->steps && !sim->failed; sim->step++)
			step(sim);
		if (!sim->failed)
			finish(sim);
	} else {
		sim_fail(sim, "the world does not begin");
	}
	ok = !sim->failed;
	/* after a breach the world is as it is: nodes would trip over it */
	if (ok)
		world_end(sim);
	free(sim);
	return ok;
}
