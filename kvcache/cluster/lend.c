/* SPDX-License-Identifier: Apache-2.0 */
/* lend.c - leases for other nodes, which read the blocks meanwhile */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"

#define APART_MIN_NS (20 * WFI_NSEC_PER_USEC)
#define APART_MAX_NS WFI_NSEC_PER_MSEC /* what comes less often, waking hardly delays */

struct wfi_owner *wfi_cl_borrower(struct wfi_cluster *c, struct borrower **list,
				  struct wfi_tenant *tenant)
{
	struct borrower *b;

	for (b = *list; b; b = b->next)
		if (b->tenant == tenant)
			return &b->owner;
	/* of a space that has gone meanwhile */
	if (!tenant)
		return NULL;
	b = wfi_alloc(c->o.env, sizeof(*b));
	if (!b)
		return NULL;
	if (wfi_owner_init(c->o.kv, &b->owner, tenant)) {
		wfi_free(c->o.env, b, sizeof(*b));
		return NULL;
	}
	b->tenant = tenant;
	b->next = *list;
	*list = b;
	return &b->owner;
}

void wfi_cl_borrowers_fini(struct wfi_cluster *c, struct borrower **list)
{
	struct borrower *b;

	while ((b = *list)) {
		*list = b->next;
		wfi_owner_fini(c->o.kv, &b->owner, false);
		wfi_free(c->o.env, b, sizeof(*b));
	}
}

/* a request that waits for blocks of the SSD tier */
struct loan {
	struct loan *prev, *next; /* of the peer */
	struct wfi_cluster *c;
	struct wfi_peer *conn;
	struct wfi_fetch *fetch;
	uint64_t id;
	uint64_t begin_ns;
	uint64_t lease_ns;
	uint64_t space_tag;
	uint32_t space;
	uint32_t nr, nr_found; /* keys, and of them those that were in memory */
	uint8_t peer;
	bool over; /* nobody waits for it any more */
	struct weft_key keys[CLUSTER_LEASE_MAX];
	uint32_t slots[CLUSTER_LEASE_MAX];
};

/* of slots that are held. Return: blocks lent, with their proofs written, or negative errno */
static int lend(struct wfi_cluster *c, uint8_t peer, uint32_t space, const uint32_t *slots,
		uint32_t nr_slots, uint64_t lease_ns, struct cluster_leased *reply)
{
	uint32_t held[CLUSTER_LEASE_MAX], nr = 0, i;
	struct wfi_owner *owner =
		wfi_cl_borrower(c, &c->peers[peer].borrowers, wfi_kv_space_tenant(c->o.kv, space));
	int ret;

	if (!owner)
		return -ENOMEM;
	for (i = 0; i < nr_slots; i++) {
		struct cluster_proof *p = &reply->proofs[i];
		struct wfi_kv_proof proof;
		struct weft_slot ref;

		*p = (struct cluster_proof){ 0 };
		if (slots[i] == WFI_SLOT_NONE)
			continue;
		held[nr++] = slots[i];
		wfi_kv_slot_ref(c->o.kv, slots[i], &ref);
		wfi_kv_proof_make(c->o.kv, slots[i], &proof);
		*p = (struct cluster_proof){
			.off = ref.off, .gen = proof.gen, .born = proof.born, .crc = proof.crc
		};
	}
	if (!nr)
		return 0;
	reply->lease_us = (uint32_t)(lease_ns / WFI_NSEC_PER_USEC);
	ret = wfi_kv_lease(c->o.kv, owner, held, nr, c->now_ns + lease_ns, &reply->lease);
	return ret ? ret : (int)nr;
}

/* @nr: proofs */
static void lent_say(struct wfi_cluster *c, struct wfi_peer *conn, uint64_t id,
		     union cluster_msg *reply, int res, uint32_t nr)
{
	reply->leased.res = res;
	cluster_msg_head(reply, CLUSTER_LEASED, nr, id);
	if (res > 0)
		cl_count(c, CL_C_LENT, (uint64_t)res);
	wfi_cl_answer(c, conn, reply);
}

/* ---- blocks of the SSD tier, which are brought up first ---- */

/* marks those that others may wait for, or not: they are still there. Return: how many */
static uint32_t late_mark(const struct wfi_cluster *c, const struct loan *l,
			  struct cluster_leased *reply)
{
	uint32_t i, n = 0;

	for (i = 0; i < l->nr; i++) {
		if (l->slots[i] != WFI_SLOT_NONE ||
		    wfi_kv_below_find(c->o.kv, l->space_tag, &l->keys[i]) == WFI_SLOT_NONE)
			continue;
		reply->proofs[i].flags = CLUSTER_PROOF_LATE;
		n++;
	}
	return n;
}

static void loan_answer(struct wfi_cluster *c, const struct loan *l)
{
	const uint64_t took_ns = c->now_ns - l->begin_ns;
	union cluster_msg reply;
	struct wfi_space_info space;
	uint32_t nr = l->nr, late;
	int ret = -ESHUTDOWN;

	reply.leased = (struct cluster_leased){ .incarnation = wfi_kv_incarnation(c->o.kv) };
	/* it may be on its way out by now */
	if (!c->left)
		ret = wfi_kv_space_any(c->o.kv, l->space, &space);
	if (!ret)
		ret = lend(c, l->peer, l->space, l->slots, l->nr,
			   l->lease_ns - wfi_min(l->lease_ns, took_ns), &reply.leased);
	if (ret > 0)
		cl_count(c, CL_C_RAISED, (uint32_t)ret - l->nr_found);
	if (ret >= 0) {
		late = late_mark(c, l, &reply.leased);
		cl_count(c, CL_C_LEFT, late);
		nr = ret || late ? nr : 0;
	}
	lent_say(c, l->conn, l->id, &reply, ret, ret < 0 ? 0 : nr);
}

static void loan_fetched(void *ctx, int res, uint32_t reached)
{
	struct loan *l = ctx;
	struct wfi_cluster *c = l->c;
	struct cluster_peer *p = &c->peers[l->peer];
	uint32_t i;

	(void)res;
	(void)reached;
	c->now_ns = wfi_now(c->o.env);
	if (!l->over)
		loan_answer(c, l);
	for (i = 0; i < l->nr; i++)
		if (l->slots[i] != WFI_SLOT_NONE)
			wfi_kv_unpin(c->o.kv, &l->slots[i], 1);
	if (l->prev)
		l->prev->next = l->next;
	else
		p->loans = l->next;
	p->nr_loans--;
	if (l->next)
		l->next->prev = l->prev;
	wfi_free(c->o.env, l, sizeof(*l));
}

void wfi_cl_loans_lost(struct wfi_cluster *c, uint8_t peer, const struct wfi_peer *conn)
{
	struct loan *l, *next;

	for (l = c->peers[peer].loans; l; l = next) {
		next = l->next;
		if (l->conn != conn)
			continue;
		l->over = true;
		wfi_kv_fetch_cancel(c->o.kv, l->fetch, -ECANCELED);
	}
}

static bool any_below(const struct wfi_cluster *c, const struct cluster_lease *m,
		      const uint32_t *slots)
{
	uint32_t i;

	for (i = 0; i < m->head.nr; i++)
		if (slots[i] == WFI_SLOT_NONE &&
		    wfi_kv_below_find(c->o.kv, m->space_tag, &m->keys[i]) != WFI_SLOT_NONE)
			return true;
	return false;
}

/* Return: 0 it will be answered, -ENOENT there is nothing to wait for, -EAGAIN, -ENOMEM */
static int loan_begin(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
		      const struct cluster_lease *m, const struct wfi_space_info *space,
		      const uint32_t *slots, uint32_t nr_found)
{
	struct cluster_peer *p = &c->peers[peer];
	/* what is pinned meanwhile is so no longer than a lease of it would be */
	const uint64_t lease_ns = wfi_min(c->o.lease_ns, m->lease_us * WFI_NSEC_PER_USEC);
	const uint64_t fetch_ns = wfi_min(lease_ns, m->fetch_us * WFI_NSEC_PER_USEC);
	struct wfi_fetch_opts o = { .space = space->id,
				    .nr = m->head.nr,
				    .budget_ns = fetch_ns,
				    .now_ns = c->now_ns,
				    .deadline_ns = c->now_ns + fetch_ns,
				    .done = loan_fetched };
	struct loan *l;
	int ret;

	/* nobody asks for more than that at once */
	if (p->nr_loans == WFI_CLUSTER_CREDITS)
		return -EAGAIN;
	if (!fetch_ns || !wfi_kv_has_tier(c->o.kv) || !any_below(c, m, slots))
		return -ENOENT;
	l = wfi_alloc(c->o.env, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->c = c;
	l->conn = conn;
	l->peer = peer;
	l->id = m->head.id;
	l->begin_ns = c->now_ns;
	l->lease_ns = lease_ns;
	l->space = space->id;
	l->space_tag = m->space_tag;
	l->nr = m->head.nr;
	l->nr_found = nr_found;
	memcpy(l->keys, m->keys, l->nr * sizeof(l->keys[0]));
	memcpy(l->slots, slots, l->nr * sizeof(l->slots[0]));
	o.keys = l->keys;
	o.slots = l->slots;
	o.ctx = l;
	ret = wfi_kv_fetch(c->o.kv, &o, &l->fetch);
	if (ret) {
		wfi_free(c->o.env, l, sizeof(*l));
		return ret;
	}
	l->next = p->loans;
	if (l->next)
		l->next->prev = l;
	p->loans = l;
	p->nr_loans++;
	return 0;
}

/* ---- when the next request comes ---- */

static void ask_await(struct wfi_cluster *c, const struct cluster_peer *p)
{
	c->awaited_ns = wfi_max(c->awaited_ns,
				pace_awaited_ns(&p->asks_pace, c->now_ns, &c->next_event_ns));
}

void wfi_cl_borrowers_await(struct wfi_cluster *c)
{
	unsigned i;

	for (i = 0; i < c->hi_peers; i++)
		ask_await(c, &c->peers[i]);
}

/* who copies for itself asks again once it has done so: waking takes as long as copying 1 MiB */
static void ask_pace(struct wfi_cluster *c, struct cluster_peer *p, const struct wfi_peer *conn)
{
	/* what is asked for at one time comes in several requests */
	if (!(conn->ep->dev->caps.flags & WEFT_CAP_SYNC) ||
	    c->now_ns - p->asks_pace.last_ns < APART_MIN_NS)
		return;
	pace_take(&p->asks_pace, c->now_ns, APART_MAX_NS);
	ask_await(c, p);
}

/* ---- requests ---- */

/* Return: 0, or why nothing can be lent */
static int lease_check(struct wfi_cluster *c, const struct cluster_lease *m,
		       struct wfi_space_info *space)
{
	if (m->incarnation != wfi_kv_incarnation(c->o.kv))
		return -ESTALE;
	if (c->left)
		return -ESHUTDOWN;
	return wfi_kv_space_by_tag(c->o.kv, m->space_tag, space);
}

void wfi_cl_heard_lease(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m)
{
	const uint64_t lease_ns = wfi_min(c->o.lease_ns, m->lease.lease_us * WFI_NSEC_PER_USEC);
	uint32_t slots[CLUSTER_LEASE_MAX], nr;
	struct wfi_space_info space;
	union cluster_msg reply;
	int ret;

	ask_pace(c, &c->peers[peer], conn);
	reply.leased = (struct cluster_leased){ .incarnation = wfi_kv_incarnation(c->o.kv) };
	ret = lease_check(c, &m->lease, &space);
	if (!ret) {
		nr = (uint32_t)wfi_kv_lookup(c->o.kv, space.id, m->lease.keys, m->head.nr, slots,
					     c->now_ns);
		if (nr < m->head.nr && !loan_begin(c, peer, conn, &m->lease, &space, slots, nr))
			return;
		ret = lend(c, peer, space.id, slots, m->head.nr, lease_ns, &reply.leased);
	}
	lent_say(c, conn, m->head.id, &reply, ret, ret > 0 ? m->head.nr : 0);
}

void wfi_cl_heard_release(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m)
{
	struct borrower *b;
	uint32_t i;

	for (i = 0; i < m->head.nr; i++)
		for (b = c->peers[peer].borrowers; b; b = b->next)
			if (wfi_kv_release(c->o.kv, &b->owner, m->release.leases[i]) >= 0)
				break;
}
