/* SPDX-License-Identifier: Apache-2.0 */
/* sim_link.c - connections between nodes: over their hosts' link, or over rails */
#include <errno.h>
#include <unistd.h>

#include "tests/sim/sim.h"

struct node *link_node(struct sim *sim, uint32_t a, uint32_t b, int side)
{
	return sim->nodes[side ? b : a].node;
}

void link_detach(struct sim *sim, struct sim_link *l, int side)
{
	if (!l->end[side])
		return;
	if (l->end[side]->base.rails) {
		struct wfi_rail_stat st;

		wfi_rails_stat(l->end[side]->base.rails, l->end[side]->rail, &st);
		sim->report->railed_bytes += st.bytes;
	}
	peer_detach(l->end[side]);
	l->end[side] = NULL;
	sim_trace(sim, sim->now_ns);
}

struct node_link *link_device(struct node *node, const struct sim_link *l)
{
	return l->net ? &node->nets[l->rail] : &node->host;
}

void peer_drains(struct node *node, struct node_peer *peer)
{
	peer->draining = true;
	wfi_cluster_peer_leaves(node->cluster, &peer->base, true);
}

static int link_up(struct sim *sim, struct sim_link *l, uint32_t a, uint32_t b)
{
	struct node *node[2] = { link_node(sim, a, b, 0), link_node(sim, a, b, 1) };
	struct wire_endpoint ours[2];
	struct wire_hello who[2];
	int fds[2][WIRE_FDS_MAX];
	unsigned nr[2] = { 0 }, lent[2] = { 0 };
	int side, ret = 0;

	if (sim->opts.members && !members_meet(sim, l, a, b))
		return -EACCES;
	for (side = 0; side < 2 && !ret; side++)
		ret = peer_create(node[side], link_device(node[side], l), "", getpid(),
				  &l->end[side], &ours[side], fds[side], &nr[side], &lent[side]);
	for (side = 0; side < 2 && !ret; side++) {
		peer_hello(node[!side], link_device(node[!side], l), &who[!side]);
		ret = peer_connect(l->end[side], &who[!side], &ours[!side], fds[!side], nr[!side]);
	}
	for (side = 0; side < 2; side++)
		while (nr[side] > lent[side])
			close(fds[side][--nr[side]]);
	for (side = 0; side < 2 && !ret; side++)
		if (node[!side]->draining)
			peer_drains(node[side], l->end[side]);
	return ret;
}

void link_down(struct sim *sim, struct sim_link *l)
{
	/* one side notices, the other's socket hangs up a little later */
	link_detach(sim, l, (int)sim_rand(sim, 2));
	l->event_ns = sim->now_ns + sim_rand(sim, 3 * WFI_NSEC_PER_MSEC);
	sim->report->lost_links++;
}

static void link_poll(struct sim *sim, struct sim_link *l, uint32_t a, uint32_t b)
{
	if (!l->used)
		return;
	if (l->end[0] && l->end[1]) {
		if (l->end[0]->broken || l->end[1]->broken)
			link_down(sim, l);
		return;
	}
	if (sim->now_ns < l->event_ns)
		return;
	l->event_ns = sim->now_ns + sim_rand(sim, 10 * WFI_NSEC_PER_MSEC);
	if (l->end[0] || l->end[1]) {
		link_detach(sim, l, 0);
		link_detach(sim, l, 1);
	} else if (link_up(sim, l, a, b)) {
		link_detach(sim, l, 0);
		link_detach(sim, l, 1);
	}
}

void links_poll(struct sim *sim)
{
	uint32_t a, b, k;

	for (a = 0; a < sim->nr_nodes; a++)
		for (b = a + 1; b < sim->nr_nodes; b++)
			for (k = 0; k < SIM_RAILS; k++)
				link_poll(sim, &sim->links[a][b][k], a, b);
}

void links_place(struct sim *sim)
{
	uint32_t a, b, k;

	for (a = 0; a < sim->nr_nodes; a++)
		for (b = a + 1; b < sim->nr_nodes; b++) {
			const bool net = sim->opts.members
						 ? sim->nodes[a].host != sim->nodes[b].host
						 : sim_chance(sim, 50);

			for (k = 0; k < SIM_RAILS; k++)
				sim->links[a][b][k] = (struct sim_link){ .used = net || !k,
									 .net = net,
									 .rail = k };
		}
}

void link_lose_end(struct sim *sim, struct sim_link *l, int side)
{
	l->end[side] = NULL;
	if (l->end[!side])
		l->event_ns = sim->now_ns + sim_rand(sim, 3 * WFI_NSEC_PER_MSEC);
}
