/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rails.c - connections to one life of one node, over a device each: what is read from it goes over
 * all of them. What is said goes over the connection that said it first.
 */
#include <errno.h>

#include "node.h"
#include "weft_internal/rail.h"

struct node_rails {
	struct node_rails *next;
	uint64_t node;
	uint64_t incarnation;
	uint32_t nr_refs; /* peers that joined and are not freed yet */
	struct wfi_rails *rails;
	struct node_peer *peers[WFI_RAILS_MAX]; /* by their rails */
};

static void rails_arenas(struct wfi_peer *base, const struct wfi_tenant *tenant,
			 struct wfi_rail_mem mem[WFI_RAILS_MAX])
{
	struct node_rails *set = wfi_container_of(base, struct node_peer, base)->rails;
	unsigned i;

	for (i = 0; i < WFI_RAILS_MAX; i++) {
		struct node_peer *p = set->peers[i];
		const struct wfi_peer_arena *arena = p ? p->base.arena(&p->base, tenant) : NULL;

		mem[i] = (struct wfi_rail_mem){ 0 };
		if (arena)
			mem[i] = (struct wfi_rail_mem){ .local_mr = arena->local,
							.rkeys = &arena->rkey,
							.names = &arena->name };
	}
}

/* Return: NULL: there is no memory */
static struct node_rails *rails_get(struct node *node, uint64_t id, uint64_t incarnation)
{
	struct wfi_rails_opts opts = { .env = node->env, .xfer = node->xfer };
	struct node_rails *set;

	for (set = node->rails; set; set = set->next)
		if (set->node == id && set->incarnation == incarnation)
			return set;
	set = wfi_alloc(node->env, sizeof(*set));
	if (!set)
		return NULL;
	if (wfi_rails_create(&opts, &set->rails)) {
		wfi_free(node->env, set, sizeof(*set));
		return NULL;
	}
	set->node = id;
	set->incarnation = incarnation;
	set->next = node->rails;
	node->rails = set;
	return set;
}

int rails_join(struct node_peer *p, uint64_t incarnation)
{
	struct node_rails *set = rails_get(p->node, p->base.node, incarnation);
	int rail;

	if (!set)
		return -ENOMEM;
	rail = wfi_rails_add(set->rails, p->base.ep, p->base.gather);
	if (rail < 0)
		return rail;
	set->nr_refs++;
	set->peers[rail] = p;
	p->rails = set;
	p->rail = (unsigned)rail;
	p->base.rails = set->rails;
	p->base.arenas = rails_arenas;
	return 0;
}

void rails_leave(struct node_peer *p)
{
	if (!p->base.rails)
		return;
	wfi_rails_remove(p->rails->rails, p->rail);
	p->rails->peers[p->rail] = NULL;
	p->base.rails = NULL;
}

unsigned rails_open(const struct node_peer *p)
{
	return p->rails ? wfi_rails_open(p->rails->rails, p->base.ep) : 0;
}

void rails_put(struct node_peer *p)
{
	if (p->rails)
		p->rails->nr_refs--;
}

static void rails_free(struct node *node, struct node_rails *set)
{
	wfi_rails_destroy(set->rails);
	wfi_free(node->env, set, sizeof(*set));
}

int rails_poll(struct node *node, uint64_t now_ns)
{
	struct node_rails **at = &node->rails, *set;
	int work = 0;

	while ((set = *at)) {
		work += wfi_rails_poll(set->rails, now_ns);
		if (set->nr_refs || !wfi_rails_idle(set->rails)) {
			at = &set->next;
			continue;
		}
		*at = set->next;
		rails_free(node, set);
	}
	return work;
}

uint64_t rails_next_event_ns(const struct node *node)
{
	const struct node_rails *set;
	uint64_t next = UINT64_MAX;

	for (set = node->rails; set; set = set->next)
		next = wfi_min(next, wfi_rails_next_event_ns(set->rails));
	return next;
}

void rails_fini(struct node *node)
{
	struct node_rails *set;

	while ((set = node->rails)) {
		node->rails = set->next;
		rails_free(node, set);
	}
}
