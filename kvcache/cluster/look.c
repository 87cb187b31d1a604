/* SPDX-License-Identifier: Apache-2.0 */
/* look.c - who has blocks, where nobody is asked: by the shard here, or one that is mapped */
#include <string.h>
#include "kvcache/cluster/cluster_private.h"

uint8_t wfi_cl_run_peer(const struct wfi_cluster *c, uint64_t node, bool ssd)
{
	const uint8_t peer = wfi_cl_peer_of(c, node);

	return ssd && peer != WFI_PEER_NONE ? peer | WFI_PEER_SSD : peer;
}

void wfi_cl_run_take(uint8_t *peers, uint8_t *others, uint32_t nr, uint8_t peer, uint8_t other)
{
	/* who is connected to the shard may not be so to us */
	if (peer == WFI_PEER_NONE) {
		peer = other;
		other = WFI_PEER_NONE;
	}
	memset(peers, peer, nr);
	memset(others, other, nr);
}

static void view_look(struct wfi_cluster *c, struct wfi_dir_view *view, const uint64_t *tags,
		      uint32_t nr, uint8_t *peers, uint8_t *others)
{
	struct wfi_dir_run runs[CLUSTER_RUNS_MAX];
	const uint32_t n = wfi_dir_view_find(view, tags, nr, c->turn++, runs, CLUSTER_RUNS_MAX);
	uint32_t i;

	for (i = 0; i < n; i++) {
		const struct wfi_dir_run *r = &runs[i];

		wfi_cl_run_take(peers + r->first, others + r->first, r->nr,
				wfi_cl_run_peer(c, wfi_dir_view_node(view, r->holder),
						r->holder & WFI_DIR_SSD),
				wfi_cl_run_peer(c, wfi_dir_view_node(view, r->other),
						r->other & WFI_DIR_SSD));
	}
}

bool wfi_cl_look(struct wfi_cluster *c, uint8_t owner, const uint64_t *tags, uint32_t nr,
		 uint8_t *peers, uint8_t *others)
{
	if (owner != SELF && !c->peers[owner].view.sh)
		return false;
	memset(peers, WFI_PEER_NONE, nr);
	memset(others, WFI_PEER_NONE, nr);
	if (owner == SELF)
		wfi_cl_find(c, tags, nr, peers, others);
	else
		view_look(c, &c->peers[owner].view, tags, nr, peers, others);
	return true;
}

/* Return: behind the last of those from @i on that are the same */
static uint32_t run_end(const uint8_t *peers, uint32_t i, uint32_t nr)
{
	/* all of them, most of the time */
	if (!memcmp(peers + i, peers + i + 1, nr - i - 1))
		return nr;
	while (++i < nr && peers[i] == peers[i - 1])
		;
	return i;
}

/* each holder's part as a transfer of its own, one after the other: what is told is no less than
 * it will be */
static uint32_t fetch_us(const struct wfi_cluster *c, const uint8_t *peers, uint32_t nr,
			 uint64_t block_bytes)
{
	uint64_t ns = 0;
	uint32_t i, end;

	for (i = 0; i < nr; i = end) {
		end = run_end(peers, i, nr);
		ns += wfi_cl_expected_ns(c, peers[i], (end - i) * block_bytes);
	}
	return (uint32_t)wfi_min((ns + WFI_NSEC_PER_USEC - 1) / WFI_NSEC_PER_USEC, UINT32_MAX);
}

void wfi_cl_found(const struct wfi_cluster *c, const uint8_t *peers, uint32_t nr,
		  uint64_t block_bytes, struct wfi_found *found)
{
	const uint8_t *end = memchr(peers, WFI_PEER_NONE, nr);

	found->partial = false;
	found->peers = peers;
	found->reached = end ? (uint32_t)(end - peers) : nr;
	found->fetch_us = fetch_us(c, peers, found->reached, block_bytes);
}

/* Chains are looked at again and again, so that most have been noted before: who finds the first
 * block so, the last, the last that anybody has, and two others, different ones each time, notes
 * none. What other chains have taken the places of meanwhile comes back with the next that is
 * missed. */
static void chain_leave(struct wfi_cluster *c, const uint64_t *tags, uint32_t nr, uint32_t reached,
			uint32_t head)
{
	const uint32_t any = (uint32_t)((uint64_t)(c->turn * 0x9e3779b9u) * nr >> 32);
	const uint32_t tried[] = { 0, nr - 1, reached ? reached - 1 : 0, any,
				   any < nr / 2 ? any + nr / 2 : any - nr / 2 };
	uint32_t i;

	for (i = 0; i < WFI_ARRAY_SIZE(tried); i++)
		if (cl_chain_seen(c, tags[tried[i]]) != head)
			break;
	if (i == WFI_ARRAY_SIZE(tried))
		return;
	for (i = 0; i < nr; i++)
		cl_chain_note(c, tags[i], head);
}

bool wfi_cluster_look(struct wfi_cluster *c, const struct wfi_seek_opts *o, struct wfi_found *out)
{
	const struct weft_key *keys = o->keys + o->from;
	const uint32_t nr = o->nr - o->from;
	struct wfi_space_info space;
	uint32_t head, i;
	uint8_t owner;

	if (!c->nr_peers || !nr || nr > LOOK_MAX || wfi_kv_space_any(c->o.kv, o->space, &space))
		return false;
	c->now_ns = o->now_ns;
	head = wfi_cl_chain_head(c, &space, o->keys, o->nr);
	owner = wfi_cl_owner(c, head);
	for (i = 0; i < nr; i++)
		c->look.tags[i] = wfi_block_tag(space.tag, &keys[i]);
	if (!wfi_cl_look(c, owner, c->look.tags, nr, c->look.peers, c->look.others))
		return false;
	cl_count(c, CL_C_SEEKS, 1);
	wfi_cl_found(c, c->look.peers, nr, space.block_bytes, out);
	chain_leave(c, c->look.tags, nr, out->reached, head);
	return true;
}
