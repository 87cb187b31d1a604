/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"
#include "weft_internal/log.h"

#define SLAB_CHUNKS 4096u
#define LEAVE_LOOK_NS WFI_NSEC_PER_MSEC /* between looks at what a space that leaves waits for */
#define NO_LEASE UINT32_MAX
#define NO_CHUNK UINT32_MAX
#define MAX_LEASES (16u << 20)

/* ---- the heap: leases by what comes next ---- */

static void heap_set(struct kv_leases *l, uint32_t at, uint32_t lease)
{
	l->heap[at] = lease;
	l->leases[lease].heap = at;
}

static void heap_up(struct kv_leases *l, uint32_t at)
{
	const uint32_t lease = l->heap[at];
	const uint64_t event_ns = l->leases[lease].event_ns;

	while (at) {
		const uint32_t up = (at - 1) / 2;

		if (l->leases[l->heap[up]].event_ns <= event_ns)
			break;
		heap_set(l, at, l->heap[up]);
		at = up;
	}
	heap_set(l, at, lease);
}

static void heap_down(struct kv_leases *l, uint32_t at)
{
	const uint32_t lease = l->heap[at];
	const uint64_t event_ns = l->leases[lease].event_ns;

	for (;;) {
		uint32_t down = 2 * at + 1;

		if (down >= l->nr_heap)
			break;
		if (down + 1 < l->nr_heap &&
		    l->leases[l->heap[down + 1]].event_ns < l->leases[l->heap[down]].event_ns)
			down++;
		if (l->leases[l->heap[down]].event_ns >= event_ns)
			break;
		heap_set(l, at, l->heap[down]);
		at = down;
	}
	heap_set(l, at, lease);
}

static void heap_add(struct kv_leases *l, uint32_t lease)
{
	heap_set(l, l->nr_heap, lease);
	heap_up(l, l->nr_heap++);
}

static void heap_del(struct kv_leases *l, uint32_t lease)
{
	const uint32_t at = l->leases[lease].heap;
	const uint32_t last = l->heap[--l->nr_heap];

	if (last == lease)
		return;
	heap_set(l, at, last);
	heap_up(l, at);
	heap_down(l, l->leases[last].heap);
}

/* ---- memory ---- */

static int leases_grow(struct wfi_kv *kv)
{
	struct kv_leases *l = &kv->leases;
	const uint32_t nr = l->nr_leases ? 2 * l->nr_leases : 64;
	struct kv_lease *leases;
	uint32_t *heap;

	if (nr > MAX_LEASES)
		return -ENOMEM;
	leases = wfi_alloc(kv->env, nr * sizeof(*leases));
	heap = wfi_alloc(kv->env, nr * sizeof(*heap));
	if (!leases || !heap)
		goto err_free;
	if (l->nr_leases) {
		memcpy(leases, l->leases, l->nr_leases * sizeof(*leases));
		memcpy(heap, l->heap, l->nr_heap * sizeof(*heap));
		wfi_free(kv->env, l->leases, l->nr_leases * sizeof(*leases));
		wfi_free(kv->env, l->heap, l->nr_leases * sizeof(*heap));
	} else {
		l->free = NO_LEASE;
	}
	for (uint32_t i = nr; i-- > l->nr_leases;) {
		leases[i].next = l->free;
		l->free = i;
	}
	l->leases = leases;
	l->heap = heap;
	l->nr_leases = nr;
	return 0;

err_free:
	if (leases)
		wfi_free(kv->env, leases, nr * sizeof(*leases));
	if (heap)
		wfi_free(kv->env, heap, nr * sizeof(*heap));
	return -ENOMEM;
}

static struct lease_chunk *chunk_at(const struct kv_leases *l, uint32_t chunk)
{
	return &l->slabs[chunk / SLAB_CHUNKS][chunk % SLAB_CHUNKS];
}

static int slabs_grow(struct wfi_kv *kv)
{
	struct kv_leases *l = &kv->leases;
	struct lease_chunk **slabs;
	uint32_t max;

	if (l->nr_slabs == l->max_slabs) {
		max = l->max_slabs ? 2 * l->max_slabs : 16;
		slabs = wfi_alloc(kv->env, max * sizeof(struct lease_chunk *));
		if (!slabs)
			return -ENOMEM;
		if (l->slabs) {
			memcpy(slabs, l->slabs, l->nr_slabs * sizeof(struct lease_chunk *));
			wfi_free(kv->env, l->slabs, l->max_slabs * sizeof(struct lease_chunk *));
		}
		l->slabs = slabs;
		l->max_slabs = max;
	}
	l->slabs[l->nr_slabs] = wfi_alloc(kv->env, SLAB_CHUNKS * sizeof(struct lease_chunk));
	if (!l->slabs[l->nr_slabs])
		return -ENOMEM;
	if (!l->nr_free_chunks)
		l->free_chunk = NO_CHUNK;
	for (uint32_t i = SLAB_CHUNKS; i--;) {
		l->slabs[l->nr_slabs][i].next = l->free_chunk;
		l->free_chunk = l->nr_slabs * SLAB_CHUNKS + i;
	}
	l->nr_slabs++;
	l->nr_free_chunks += SLAB_CHUNKS;
	return 0;
}

/* Return: 0 when a lease of @nr slots takes no more memory. Its slow branch is cold */
static int leases_reserve(struct wfi_kv *kv, uint32_t nr)
{
	const uint32_t chunks = (nr + LEASE_CHUNK_SLOTS - 1) / LEASE_CHUNK_SLOTS;
	struct kv_leases *l = &kv->leases;
	int ret = 0;

	if (!l->nr_leases || l->free == NO_LEASE)
		ret = leases_grow(kv);
	while (!ret && l->nr_free_chunks < chunks)
		ret = slabs_grow(kv);
	return ret;
}

void wfi_leases_fini(struct wfi_kv *kv)
{
	struct kv_leases *l = &kv->leases;

	for (uint32_t i = 0; i < l->nr_slabs; i++)
		wfi_free(kv->env, l->slabs[i], SLAB_CHUNKS * sizeof(struct lease_chunk));
	if (l->slabs)
		wfi_free(kv->env, l->slabs, l->max_slabs * sizeof(struct lease_chunk *));
	if (l->leases)
		wfi_free(kv->env, l->leases, l->nr_leases * sizeof(*l->leases));
	if (l->heap)
		wfi_free(kv->env, l->heap, l->nr_leases * sizeof(*l->heap));
	if (kv->owners)
		wfi_free(kv->env, kv->owners, kv->nr_owners * sizeof(*kv->owners));
}

/* ---- leases ---- */

static void fill_chunks(struct kv_leases *l, struct kv_lease *lease, const uint32_t *slots)
{
	uint32_t chunk = l->free_chunk;

	lease->chunks = chunk;
	for (uint32_t done = 0; done < lease->nr; done += LEASE_CHUNK_SLOTS) {
		const uint64_t n = wfi_min(LEASE_CHUNK_SLOTS, lease->nr - done);
		struct lease_chunk *c = chunk_at(l, chunk);

		memcpy(c->slot, slots + done, n * sizeof(*slots));
		l->nr_free_chunks--;
		chunk = c->next;
	}
	/* the last chunk's link is left alone: the number of slots says where the list ends */
	l->free_chunk = chunk;
}

static void refs_unpin(struct wfi_kv *kv, const uint32_t *slots, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		if (!(slots[i] & WFI_SLOT_BELOW))
			wfi_slot_unpin(kv, slots[i]);
	wfi_mover_unkeep(kv->mover, slots, nr);
}

/* pins and memory of a lease go back. Return: its slots */
static uint32_t lease_end(struct wfi_kv *kv, uint32_t idx)
{
	struct kv_leases *l = &kv->leases;
	struct kv_lease *lease = &l->leases[idx];
	uint32_t chunk = lease->chunks;

	for (uint32_t done = 0; done < lease->nr; done += LEASE_CHUNK_SLOTS) {
		const uint64_t n = wfi_min(LEASE_CHUNK_SLOTS, lease->nr - done);
		struct lease_chunk *c = chunk_at(l, chunk);
		const uint32_t next = c->next;

		if (wfi_likely(!lease->nr_below))
			wfi_kv_unpin(kv, c->slot, (uint32_t)n);
		else
			refs_unpin(kv, c->slot, (uint32_t)n);
		c->next = l->free_chunk;
		l->free_chunk = chunk;
		l->nr_free_chunks++;
		chunk = next;
	}
	heap_del(l, idx);
	lease->state = LEASE_FREE;
	lease->next = l->free;
	l->free = idx;
	return lease->nr;
}

/* takes a lease from its owner: its handle is none any more */
static void lease_disown(struct wfi_kv *kv, struct kv_lease *lease)
{
	struct kv_lease *leases = kv->leases.leases;
	struct kv_owner *rec = &kv->owners[lease->owner];

	if (lease->prev != NO_LEASE)
		leases[lease->prev].next = lease->next;
	else
		rec->live->leases = lease->next;
	if (lease->next != NO_LEASE)
		leases[lease->next].prev = lease->prev;
	rec->nr_leases--;
	rec->nr_refs -= lease->nr;
	lease->gen++;
}

/* Return: how many are in the tier below; -ESTALE the block of one has failed a check since it was
 * found; -EDQUOT */
static int pin_all(struct wfi_kv *kv, const struct wfi_tenant *t, const uint32_t *slots,
		   uint32_t nr)
{
	uint32_t below = 0;
	int ret;

	for (uint32_t i = 0; i < nr; i++) {
		if (slots[i] & WFI_SLOT_BELOW)
			below++;
		else if (!kv_run_checked(kv, slots[i]) || kv_slot(kv, slots[i])->state == KV_FREE)
			return -ESTALE;
	}
	if (wfi_likely(!below)) {
		wfi_kv_pin(kv, slots, nr);
		return 0;
	}
	ret = wfi_mover_keep(kv->mover, t, slots, nr);
	if (ret)
		return ret;
	for (uint32_t i = 0; i < nr; i++)
		if (!(slots[i] & WFI_SLOT_BELOW))
			wfi_slot_pin(kv, slots[i]);
	return (int)below;
}

int wfi_kv_lease(struct wfi_kv *kv, struct wfi_owner *owner, const uint32_t *slots, uint32_t nr,
		 uint64_t end_ns, uint64_t *handle)
{
	struct kv_owner *rec = kv_owner(kv, owner);
	struct kv_leases *l = &kv->leases;
	struct kv_lease *lease;
	uint32_t idx;
	int ret;

	if (!nr || !rec)
		return -EINVAL;
	if (rec->nr_leases >= KV_OWNER_LEASES || nr > KV_OWNER_REFS - rec->nr_refs)
		return -EDQUOT;
	ret = leases_reserve(kv, nr);
	if (ret)
		return ret;
	ret = pin_all(kv, owner->tenant, slots, nr);
	if (ret < 0)
		return ret;
	idx = l->free;
	lease = &l->leases[idx];
	l->free = lease->next;
	lease->state = LEASE_LIVE;
	lease->event_ns = end_ns;
	lease->owner = kv_owner_idx(owner->id);
	lease->nr = nr;
	lease->nr_below = (uint32_t)ret;
	fill_chunks(l, lease, slots);
	lease->prev = NO_LEASE;
	lease->next = owner->leases;
	if (owner->leases != NO_LEASE)
		l->leases[owner->leases].prev = idx;
	owner->leases = idx;
	rec->nr_leases++;
	rec->nr_refs += nr;
	heap_add(l, idx);
	*handle = (uint64_t)lease->gen << 32 | (idx + 1);
	return 0;
}

int wfi_kv_release(struct wfi_kv *kv, struct wfi_owner *owner, uint64_t handle)
{
	const uint32_t idx = (uint32_t)handle - 1;
	struct kv_lease *lease;

	if (idx >= kv->leases.nr_leases || !kv_owner(kv, owner))
		return -ENOENT;
	lease = &kv->leases.leases[idx];
	if (lease->state != LEASE_LIVE || lease->gen != handle >> 32 ||
	    lease->owner != kv_owner_idx(owner->id))
		return -ENOENT;
	lease_disown(kv, lease);
	return (int)lease_end(kv, idx);
}

/* a lease is of one space's blocks */
static uint32_t first_below(const struct kv_leases *l, const struct kv_lease *lease)
{
	uint32_t chunk = lease->chunks;

	for (uint32_t i = 0;; i++) {
		const uint32_t at = i % LEASE_CHUNK_SLOTS;
		const struct lease_chunk *c = chunk_at(l, chunk);

		if (c->slot[at] & WFI_SLOT_BELOW)
			return c->slot[at] & ~WFI_SLOT_BELOW;
		if (at == LEASE_CHUNK_SLOTS - 1)
			chunk = c->next;
	}
}

uint64_t wfi_leases_below(const struct wfi_kv *kv, const struct kv_space *space)
{
	const struct kv_leases *l = &kv->leases;
	uint64_t nr = 0;

	for (uint32_t i = 0; i < l->nr_heap; i++) {
		const struct kv_lease *lease = &l->leases[l->heap[i]];

		if (lease->nr_below && wfi_mover_is_of(kv->mover, space, first_below(l, lease)))
			nr += lease->nr_below;
	}
	return nr;
}

int wfi_leases_poll(struct wfi_kv *kv, uint64_t now_ns)
{
	struct kv_leases *l = &kv->leases;
	struct kv_lease *lease;
	int work = 0;

	for (; l->nr_heap; work++) {
		lease = &l->leases[l->heap[0]];
		if (lease->event_ns > now_ns)
			break;
		if (lease->state == LEASE_GRACE) {
			lease_end(kv, l->heap[0]);
			continue;
		}
		lease_disown(kv, lease);
		lease->state = LEASE_GRACE;
		if (wfi_add_overflows(lease->event_ns, kv->grace_ns, &lease->event_ns))
			lease->event_ns = UINT64_MAX;
		heap_down(l, 0);
		kv_count(kv, KV_C_LEASE_EXPIRED, 1);
	}
	return work;
}

uint64_t wfi_kv_next_event_ns(const struct wfi_kv *kv)
{
	const struct kv_leases *l = &kv->leases;

	uint64_t next = l->nr_heap ? l->leases[l->heap[0]].event_ns : UINT64_MAX;

	if (kv->leaving || (kv->leaving_spaces && !kv->leave_waits))
		return 0;
	/* each step brings it on. Above a tier it goes as fast as writes do */
	if (kv->emptying && !kv->mover)
		return 0;
	if (kv->leaving_spaces)
		next = wfi_min(next, kv->now_ns + LEAVE_LOOK_NS);
	return kv->mover ? wfi_min(next, wfi_mover_next_event_ns(kv->mover)) : next;
}

/* ---- owners ---- */

static int owners_grow(struct wfi_kv *kv)
{
	const uint32_t nr = kv->nr_owners ? 2 * kv->nr_owners : 64;
	struct kv_owner *owners;

	if (nr > 1u << KV_OWNER_BITS)
		return -ENOMEM;
	owners = wfi_alloc(kv->env, nr * sizeof(*owners));
	if (!owners)
		return -ENOMEM;
	if (kv->owners) {
		memcpy(owners, kv->owners, kv->nr_owners * sizeof(*owners));
		wfi_free(kv->env, kv->owners, kv->nr_owners * sizeof(*owners));
	}
	for (uint32_t i = nr; i-- > kv->nr_owners;) {
		owners[i].next_free = kv->free_owner;
		kv->free_owner = i;
	}
	kv->owners = owners;
	kv->nr_owners = nr;
	return 0;
}

int wfi_owner_init(struct wfi_kv *kv, struct wfi_owner *owner, struct wfi_tenant *t)
{
	struct kv_owner *rec;
	uint32_t idx;
	int ret;

	if (kv->free_owner == KV_NO_OWNER) {
		ret = owners_grow(kv);
		if (ret)
			return ret;
	}
	idx = kv->free_owner;
	rec = &kv->owners[idx];
	kv->free_owner = rec->next_free;
	/* generations from 1, so that no id is 0 */
	rec->gen = rec->gen % ((1u << (32 - KV_OWNER_BITS)) - 1) + 1;
	rec->id = rec->gen << KV_OWNER_BITS | idx;
	rec->live = owner;
	rec->quarantined = KV_NONE;
	*owner = (struct wfi_owner){
		.tenant = t,
		.claims = KV_NONE,
		.leases = NO_LEASE,
		.id = rec->id,
	};
	return 0;
}

static void owner_free(struct wfi_kv *kv, struct kv_owner *rec)
{
	rec->next_free = kv->free_owner;
	kv->free_owner = kv_owner_idx(rec->id);
	rec->id = 0;
}

void wfi_owner_fini(struct wfi_kv *kv, struct wfi_owner *owner, bool may_write)
{
	struct kv_owner *rec = kv_owner(kv, owner);

	if (!rec)
		return;
	while (owner->leases != NO_LEASE) {
		const uint32_t idx = owner->leases;

		lease_disown(kv, &kv->leases.leases[idx]);
		lease_end(kv, idx);
	}
	while (owner->claims != KV_NONE) {
		if (may_write)
			wfi_slot_condemn(kv, owner, owner->claims);
		else
			wfi_slot_unclaim(kv, owner, owner->claims);
	}
	rec->live = NULL;
	if (rec->quarantined == KV_NONE)
		owner_free(kv, rec);
}

void wfi_owner_gone(struct wfi_kv *kv, uint32_t owner_id)
{
	const uint32_t idx = kv_owner_idx(owner_id);
	struct kv_owner *rec;

	if (idx >= kv->nr_owners || !owner_id)
		return;
	rec = &kv->owners[idx];
	if (rec->id != owner_id || rec->live)
		return;
	while (rec->quarantined != KV_NONE)
		wfi_slot_pardon(kv, rec->quarantined);
	owner_free(kv, rec);
}
