/* SPDX-License-Identifier: Apache-2.0 */
/*
 * offer.c - blocks that others are asked to hold as well
 *
 * Replicas of a space go to the nodes that rendezvous hashing of their chain's head names; a node
 * that leaves offers what was used of late to those that will have its chains: what it has in
 * memory, then what was asked for in its SSD tier. An offer names blocks in the order of a chain;
 * who takes it pulls them as any other, and says when it is over.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"
#include "weft_internal/log.h"

#define QUEUE 4096u /* blocks to be offered to one peer; more are not */
#define WINDOW 2u /* offers that a peer has not answered */
#define ANSWER_NS (5 * WFI_NSEC_PER_SEC)
#define TAKES_MAX 16u /* offers of others under way here; more are not taken */
#define TAKE_NS (4 * WFI_NSEC_PER_SEC)
#define RETRY_NS WFI_NSEC_PER_MSEC
#define DRAIN_NS (5 * WFI_NSEC_PER_SEC)
#define HOT_NS (60 * WFI_NSEC_PER_SEC) /* used within: worth to be handed on */
#define DRAIN_SLOTS 256u /* a poll */
#define BELOW_QUEUE 1024u
/* of the SSD tier: what takes its place in others' memory pushes out what is of use there */
#define DRAIN_BELOW_BYTES (4ull << 30)

/* slots of the tier are good for a moment only */
struct below {
	uint64_t space_tag;
	struct weft_key key;
};

struct offers {
	uint32_t slots[QUEUE];
	uint32_t gens[QUEUE];
	uint32_t head, tail;
	struct below below[BELOW_QUEUE];
	uint32_t below_head, below_tail;
	uint32_t nr_open;
	uint64_t answer_ns;
};

/* ---- what is to be offered ---- */

/* Return: NULL: no memory */
static struct offers *offers_of(struct wfi_cluster *c, uint8_t peer)
{
	struct cluster_peer *p = &c->peers[peer];

	if (!p->offers)
		p->offers = wfi_alloc(c->o.env, sizeof(*p->offers));
	return p->offers;
}

static void offer_add(struct wfi_cluster *c, uint8_t peer, uint32_t slot)
{
	struct offers *q = offers_of(c, peer);
	struct weft_slot ref;

	if (!q)
		return;
	if (q->tail - q->head == QUEUE) {
		cl_count(c, CL_C_NOT_OFFERED, 1);
		return;
	}
	wfi_kv_slot_ref(c->o.kv, slot, &ref);
	q->slots[q->tail % QUEUE] = slot;
	q->gens[q->tail++ % QUEUE] = ref.gen;
	cl_event(c, c->now_ns);
}

/* the @nth of the other nodes that a chain's blocks go to. Return: WFI_PEER_NONE: there are
 * fewer */
static uint8_t other_owner(const struct wfi_cluster *c, uint32_t head, uint32_t nth)
{
	uint64_t below = UINT64_MAX, best, weight;
	uint8_t owner;
	unsigned i;

	do {
		owner = WFI_PEER_NONE;
		best = 0;
		for (i = 0; i < c->nr_members; i++) {
			if (c->members[i].peer == SELF)
				continue;
			weight = wfi_mix64(c->members[i].seed ^ head);
			if (weight >= below || weight < best)
				continue;
			best = weight;
			owner = c->members[i].peer;
		}
		below = best;
	} while (nth-- && owner != WFI_PEER_NONE);
	return owner;
}

void wfi_cl_offer_replicas(struct wfi_cluster *c, uint32_t slot, uint32_t head)
{
	const uint32_t replicas = wfi_kv_slot_replicas(c->o.kv, slot);
	uint32_t i;
	uint8_t peer;

	/* those that came as replicas are none to be multiplied */
	for (i = 1; i < replicas && !c->keeping; i++) {
		peer = other_owner(c, head, i - 1);
		if (peer == WFI_PEER_NONE)
			return;
		offer_add(c, peer, slot);
	}
}

void wfi_cl_offers_free(struct wfi_cluster *c, struct cluster_peer *p)
{
	if (p->offers)
		wfi_free(c->o.env, p->offers, sizeof(*p->offers));
	p->offers = NULL;
}

/* ---- offering ---- */

/* blocks that hang below one another, from the front of the queue on. Return: how many */
static uint32_t offer_fill(struct wfi_cluster *c, struct offers *q, struct cluster_offer *m)
{
	uint32_t nr = 0, last = WFI_SLOT_NONE;

	for (; q->head != q->tail && nr < CLUSTER_OFFER_MAX; q->head++) {
		const uint32_t slot = q->slots[q->head % QUEUE];
		uint32_t parent;

		/* evicted or dropped meanwhile */
		if (!wfi_kv_slot_held(c->o.kv, slot, q->gens[q->head % QUEUE]))
			continue;
		parent = wfi_kv_slot_parent(c->o.kv, slot);
		if (nr && parent != last)
			break;
		if (!nr) {
			m->chain = wfi_cl_head_find(c, slot);
			/* who takes it tells a shard by that, where it is to be found */
			if (!m->chain)
				break;
			wfi_kv_space_geometry(c->o.kv, wfi_kv_slot_space(c->o.kv, slot),
					      &m->geometry);
			m->parent = parent == WFI_SLOT_NONE
					    ? (struct weft_key){ 0 }
					    : wfi_kv_slot_header(c->o.kv, parent)->key;
		}
		m->keys[nr++] = wfi_kv_slot_header(c->o.kv, slot)->key;
		last = slot;
	}
	return nr;
}

static bool same_key(const struct weft_key *a, const struct weft_key *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

/* the same of the SSD tier's */
static uint32_t offer_fill_below(struct wfi_cluster *c, struct offers *q, struct cluster_offer *m)
{
	struct wfi_tier_block b, last = { 0 };
	struct wfi_space_info space;
	uint32_t slot, nr = 0;

	for (; q->below_head != q->below_tail && nr < CLUSTER_OFFER_MAX; q->below_head++) {
		const struct below *at = &q->below[q->below_head % BELOW_QUEUE];

		slot = wfi_kv_below_find(c->o.kv, at->space_tag, &at->key);
		/* evicted or dropped meanwhile, or its space has gone */
		if (slot == WFI_SLOT_NONE || wfi_kv_space_by_tag(c->o.kv, at->space_tag, &space))
			continue;
		wfi_kv_below_block(c->o.kv, slot, &b);
		if (nr && (b.space_tag != last.space_tag || !same_key(&b.parent, &last.key)))
			break;
		if (!nr) {
			wfi_kv_space_geometry(c->o.kv, space.id, &m->geometry);
			m->chain = wfi_cl_head_below(c, slot);
			m->parent = b.parent;
		}
		m->keys[nr++] = b.key;
		last = b;
	}
	return nr;
}

static int offers_send(struct wfi_cluster *c, struct cluster_peer *p)
{
	struct offers *q = p->offers;
	const uint32_t head = q->head, below_head = q->below_head;
	union cluster_msg m;
	uint32_t nr;

	m.offer.flags = 0;
	nr = offer_fill(c, q, &m.offer);
	if (!nr) {
		m.offer.flags = CLUSTER_OFFER_SSD;
		nr = offer_fill_below(c, q, &m.offer);
	}
	if (!nr)
		return 0;
	cluster_msg_head(&m, CLUSTER_OFFER, nr, 0);
	if (p->conns[0]->send(p->conns[0], &m, m.head.len)) {
		q->head = head;
		q->below_head = below_head;
		cl_event(c, c->now_ns + RETRY_NS);
		return 0;
	}
	q->nr_open++;
	q->answer_ns = c->now_ns + ANSWER_NS;
	cl_event(c, q->answer_ns);
	return 1;
}

void wfi_cl_heard_taken(struct wfi_cluster *c, uint8_t peer)
{
	struct offers *q = c->peers[peer].offers;

	if (!q || !q->nr_open)
		return;
	q->nr_open--;
	cl_event(c, c->now_ns);
}

/* ---- taking ---- */

struct take {
	struct wfi_cluster *c;
	struct wfi_peer *conn;
	uint64_t incarnation;
	uint64_t id;
	uint32_t nr;
	struct weft_key keys[CLUSTER_OFFER_MAX + 1]; /* the parent first, or zero */
	uint32_t slots[CLUSTER_OFFER_MAX + 1];
	int32_t results[CLUSTER_OFFER_MAX + 1];
};

static void taken_say(struct wfi_cluster *c, struct wfi_peer *conn, uint64_t id)
{
	union cluster_msg m;

	cluster_msg_head(&m, CLUSTER_TAKEN, 0, id);
	wfi_cl_answer(c, conn, &m);
}

static void take_done(void *ctx)
{
	struct take *t = ctx;
	struct wfi_cluster *c = t->c;
	uint32_t i;

	for (i = 0; i < t->nr; i++)
		if (t->slots[i] != WFI_SLOT_NONE)
			wfi_kv_unpin(c->o.kv, &t->slots[i], 1);
	c->nr_takes--;
	if (wfi_cl_peer_has(c, t->conn, t->incarnation))
		taken_say(c, t->conn, t->id);
	wfi_free(c->o.env, t, sizeof(*t));
}

/* Return: 0 it is on its way, or why not */
static int take_begin(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
		      const struct cluster_offer *m)
{
	struct wfi_pull_opts o = { .done = take_done };
	struct wfi_space_info space;
	struct wfi_pull *pull;
	const uint8_t from = m->flags & CLUSTER_OFFER_SSD ? peer | WFI_PEER_SSD : peer;
	struct take *t;
	uint32_t i;
	int ret;

	if (c->nr_takes == TAKES_MAX || c->draining)
		return -EAGAIN;
	ret = wfi_kv_space_of_peer(c->o.kv, &m->geometry, &space);
	if (ret)
		return ret;
	t = wfi_alloc(c->o.env, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->c = c;
	t->conn = conn;
	t->incarnation = c->peers[peer].incarnation;
	t->id = m->head.id;
	t->nr = m->head.nr + 1u;
	t->keys[0] = m->parent;
	memcpy(t->keys + 1, m->keys, m->head.nr * sizeof(t->keys[0]));
	wfi_kv_lookup(c->o.kv, space.id, t->keys, t->nr, t->slots, c->now_ns);
	for (i = 0; i < t->nr; i++)
		if (t->slots[i] != WFI_SLOT_NONE)
			wfi_kv_pin(c->o.kv, &t->slots[i], 1);
	o.tenant = wfi_kv_space_tenant(c->o.kv, space.id);
	o.space = space.id;
	o.nr = t->nr;
	o.keys = t->keys;
	o.slots = t->slots;
	o.results = t->results;
	o.now_ns = c->now_ns;
	o.deadline_ns = c->now_ns + TAKE_NS;
	o.ctx = t;
	c->nr_takes++;
	ret = wfi_cl_pull_from(c, &o, from, m->chain, &pull);
	if (!ret)
		return 0;
	c->nr_takes--;
	for (i = 0; i < t->nr; i++)
		if (t->slots[i] != WFI_SLOT_NONE)
			wfi_kv_unpin(c->o.kv, &t->slots[i], 1);
	wfi_free(c->o.env, t, sizeof(*t));
	return ret;
}

void wfi_cl_heard_offer(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m)
{
	if (m->head.nr && !take_begin(c, peer, conn, &m->offer))
		return;
	cl_count(c, CL_C_NOT_TAKEN, m->head.nr);
	taken_say(c, conn, m->head.id);
}

/* ---- leaving ---- */

static bool is_queued(const struct offers *q)
{
	return q->head != q->tail || q->below_head != q->below_tail;
}

static bool offers_left(const struct wfi_cluster *c)
{
	unsigned i;

	for (i = 0; i < c->hi_peers; i++) {
		const struct offers *q = c->peers[i].offers;

		if (c->peers[i].node && q && (is_queued(q) || q->nr_open))
			return true;
	}
	return false;
}

static bool room_to_offer(const struct wfi_cluster *c)
{
	unsigned i;

	for (i = 0; i < c->hi_peers; i++) {
		const struct offers *q = c->peers[i].offers;

		if (q && (q->tail - q->head + DRAIN_SLOTS > QUEUE ||
			  q->below_tail - q->below_head + DRAIN_SLOTS > BELOW_QUEUE))
			return false;
	}
	return true;
}

/* Return: whether more of the SSD tier may be offered */
static bool below_add(struct wfi_cluster *c, uint32_t slot)
{
	struct wfi_tier_block b;
	struct offers *q = NULL;
	uint8_t peer;

	wfi_kv_below_block(c->o.kv, slot, &b);
	if (!b.visits)
		return true;
	if (b.len > c->drain_left)
		return false;
	peer = other_owner(c, wfi_cl_head_below(c, slot), 0);
	if (peer != WFI_PEER_NONE)
		q = offers_of(c, peer);
	if (!q)
		return true;
	q->below[q->below_tail++ % BELOW_QUEUE] =
		(struct below){ .space_tag = b.space_tag, .key = b.key };
	c->drain_left -= b.len;
	cl_event(c, c->now_ns);
	return true;
}

static void drain_below(struct wfi_cluster *c)
{
	uint32_t slots[DRAIN_SLOTS], n, i;
	bool more = true;

	n = wfi_kv_below_walk(c->o.kv, &c->drain_at, DRAIN_SLOTS, slots);
	for (i = 0; i < n && more; i++) {
		if (c->climbed >= CL_CLIMBS) {
			c->drain_at = slots[i];
			return;
		}
		more = below_add(c, slots[i]);
	}
	c->drain_walks_below = more && c->drain_at != 0;
}

static int drain_poll(struct wfi_cluster *c)
{
	uint32_t slots[DRAIN_SLOTS], n, i, head;
	uint8_t peer;

	cl_event(c, c->now_ns + RETRY_NS);
	if (c->now_ns >= c->drain_end_ns)
		c->drain_walks = c->drain_walks_below = false;
	if (!c->drain_walks && !c->drain_walks_below) {
		c->left |= !offers_left(c) || c->now_ns >= c->drain_end_ns;
		return 0;
	}
	if (!room_to_offer(c))
		return 0;
	if (!c->drain_walks) {
		drain_below(c);
		return 1;
	}
	n = wfi_kv_walk(c->o.kv, &c->drain_at, DRAIN_SLOTS, slots);
	for (i = 0; i < n; i++) {
		if (wfi_kv_slot_idle_ns(c->o.kv, slots[i], c->now_ns) > HOT_NS)
			continue;
		head = wfi_cl_head_find(c, slots[i]);
		if (!head) {
			c->drain_at = slots[i];
			return 1;
		}
		peer = other_owner(c, head, 0);
		if (peer != WFI_PEER_NONE)
			offer_add(c, peer, slots[i]);
	}
	c->drain_walks = c->drain_at != 0;
	return 1;
}

bool wfi_cluster_drain(struct wfi_cluster *c, uint64_t now_ns)
{
	if (!c->nr_peers)
		return true;
	if (!c->draining) {
		c->draining = true;
		c->drain_walks = true;
		c->drain_walks_below = wfi_kv_has_tier(c->o.kv);
		c->drain_at = 0;
		c->drain_left = DRAIN_BELOW_BYTES;
		c->drain_end_ns = now_ns + DRAIN_NS;
		cl_event(c, now_ns);
	}
	return c->left;
}

int wfi_cl_offers_poll(struct wfi_cluster *c)
{
	int work = 0;
	unsigned i;

	if (c->draining && !c->left)
		work += drain_poll(c);
	for (i = 0; i < c->hi_peers; i++) {
		struct cluster_peer *p = &c->peers[i];
		struct offers *q = p->offers;

		if (!p->node || !q)
			continue;
		if (q->nr_open && c->now_ns >= q->answer_ns)
			q->nr_open = 0;
		while (is_queued(q) && q->nr_open < WINDOW && p->nr_conns && offers_send(c, p))
			work++;
		if (q->nr_open)
			cl_event(c, q->answer_ns);
	}
	return work;
}
