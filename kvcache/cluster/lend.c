/* SPDX-License-Identifier: Apache-2.0 */
/* lend.c - leases for other nodes, which read the blocks meanwhile */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"

struct wfi_owner *wfi_cl_borrower(struct wfi_cluster *c, struct borrower **list,
				  struct wfi_tenant *tenant)
{
	struct borrower *b;

	for (b = *list; b; b = b->next)
		if (b->tenant == tenant)
			return &b->owner;
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

/* Return: blocks lent, with their proofs written, or negative errno */
static int lend(struct wfi_cluster *c, uint8_t peer, const struct cluster_lease *m,
		struct cluster_leased *reply)
{
	uint32_t slots[CLUSTER_LEASE_MAX], held[CLUSTER_LEASE_MAX], nr = 0, i;
	const uint64_t lease_ns = wfi_min(c->o.lease_ns, m->lease_us * WFI_NSEC_PER_USEC);
	struct wfi_space_info space;
	struct wfi_owner *owner;
	int ret;

	if (m->incarnation != wfi_kv_incarnation(c->o.kv))
		return -ESTALE;
	if (c->left)
		return -ESHUTDOWN;
	ret = wfi_kv_space_by_tag(c->o.kv, m->space_tag, &space);
	if (ret)
		return ret;
	owner = wfi_cl_borrower(c, &c->peers[peer].borrowers,
				wfi_kv_space_tenant(c->o.kv, space.id));
	if (!owner)
		return -ENOMEM;
	wfi_kv_lookup(c->o.kv, space.id, m->keys, m->head.nr, slots, c->now_ns);
	for (i = 0; i < m->head.nr; i++) {
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

void wfi_cl_heard_lease(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m)
{
	union cluster_msg reply;
	int ret;

	reply.leased = (struct cluster_leased){ .incarnation = wfi_kv_incarnation(c->o.kv) };
	ret = lend(c, peer, &m->lease, &reply.leased);
	reply.leased.res = ret;
	cluster_msg_head(&reply, CLUSTER_LEASED, ret > 0 ? m->head.nr : 0, m->head.id);
	if (ret > 0)
		cl_count(c, CL_C_LENT, (uint64_t)ret);
	wfi_cl_answer(c, conn, &reply);
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
