/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "tests/unit/kv_rig.h"

#define EXTENT_BYTES 4096u
#define BLOCK_BYTES 512u
#define ARENA_BYTES (16u * EXTENT_BYTES)
#define ARENA_SLOTS (ARENA_BYTES / BLOCK_BYTES)
#define MS 1000000ull

struct fixture {
	struct kv_rig r;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner owner;
};

static const struct wfi_evict_policy *lru(void)
{
	return wfi_evict_find("lru");
}

static void kv_start(struct fixture *f, const struct wfi_evict_policy *policy)
{
	const struct wfi_kv_opts opts = {
		.env = f->r.env,
		.policy = policy,
		.extent_bytes = EXTENT_BYTES,
		.lease_grace_ns = MS,
		.max_slots = 16384,
	};

	assert_int_equal(wfi_kv_create(&opts, &f->r.kv), 0);
	f->tenant = kv_rig_tenant(f->r.kv, "tenant", ARENA_BYTES);
	f->space = kv_rig_space(f->r.kv, f->tenant, "model", BLOCK_BYTES);
	assert_int_equal(wfi_owner_init(f->r.kv, &f->owner, f->tenant), 0);
	f->r.now = 1000;
}

static int setup(void **state)
{
	struct fixture *f = kv_rig_create(sizeof(*f), 7);

	kv_start(f, lru());
	*state = f;
	return 0;
}

static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ .lo = n + 1, .hi = n * 77 + 5 };
}

static struct weft_stat stat_of(const struct fixture *f)
{
	struct weft_stat st;

	wfi_kv_stat(f->r.kv, f->tenant, &st);
	return st;
}

static uint64_t counted(const struct fixture *f, enum kv_counter c)
{
	return f->r.kv->count[c]->value;
}

/* a chain of @nr keys from @first on, each block filled with what its key says */
static void put_chain(struct fixture *f, uint64_t first, uint32_t nr)
{
	struct weft_slot slots[ARENA_SLOTS];
	struct weft_key keys[ARENA_SLOTS];
	int32_t results[ARENA_SLOTS];

	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, nr, slots, ++f->r.now), nr);
	for (uint32_t i = 0; i < nr; i++) {
		keys[i] = key_of(first + i);
		memset(wfi_kv_slot_addr(f->r.kv, slots[i].idx), (int)(first + i), BLOCK_BYTES);
	}
	assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, NULL, keys, slots, nr, NULL,
				    results, ++f->r.now),
			 nr);
	for (uint32_t i = 0; i < nr; i++)
		assert_int_equal(results[i], 0);
}

static uint32_t slot_of(struct fixture *f, uint64_t n)
{
	const struct weft_key key = key_of(n);
	uint32_t slot;

	wfi_kv_lookup(f->r.kv, f->space.id, &key, 1, &slot, f->r.now);
	return slot;
}

static int drop(struct fixture *f, uint64_t n)
{
	const struct weft_key key = key_of(n);
	int32_t result;

	wfi_kv_drop(f->r.kv, f->space.id, &key, 1, &result);
	return result;
}

static int claim(struct fixture *f, uint32_t nr)
{
	struct weft_slot slots[ARENA_SLOTS + 1];
	int ret = wfi_kv_claim(f->r.kv, &f->owner, f->space.id, nr, slots, ++f->r.now);

	if (ret > 0)
		assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, slots, nr), nr);
	return ret;
}

/* ---- one thing at a time ---- */

static void put_then_find(void **state)
{
	struct fixture *f = *state;
	struct weft_key keys[20];
	uint32_t slots[20];

	for (uint32_t i = 0; i < 20; i++)
		keys[i] = key_of(i);
	assert_int_equal(wfi_kv_match(f->r.kv, f->space.id, keys, 20, NULL), 0);
	put_chain(f, 0, 10);
	assert_int_equal(wfi_kv_match(f->r.kv, f->space.id, keys, 20, NULL), 10);
	assert_int_equal(wfi_kv_lookup(f->r.kv, f->space.id, keys, 20, slots, f->r.now), 10);
	for (uint32_t i = 0; i < 10; i++) {
		const struct weft_block_header *h = wfi_kv_slot_header(f->r.kv, slots[i]);
		const uint8_t *bytes = wfi_kv_slot_addr(f->r.kv, slots[i]);
		struct weft_slot ref;

		assert_int_equal(wfi_kv_verify(f->r.kv, slots[i]), 0);
		assert_memory_equal(&h->key, &keys[i], sizeof(keys[i]));
		assert_int_equal(h->incarnation, wfi_kv_incarnation(f->r.kv));
		assert_int_equal(bytes[BLOCK_BYTES - 1], i);
		wfi_kv_slot_ref(f->r.kv, slots[i], &ref);
		assert_ptr_equal((uint8_t *)wfi_tenant_arena(f->tenant)->addr + ref.off, bytes);
		assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, f->space.id, &ref), 0);
		ref.gen++;
		assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, f->space.id, &ref), -ESTALE);
	}
	assert_int_equal(slots[10], WFI_SLOT_NONE);
	assert_int_equal(counted(f, KV_C_LOOKUP_HIT), 10);
	assert_int_equal(counted(f, KV_C_MATCH_MISS), 30);
}

static void second_put_is_the_first(void **state)
{
	struct fixture *f = *state;
	const struct weft_key keys[3] = { key_of(0), key_of(1), key_of(1) };
	struct weft_slot slots[3];
	int32_t results[3];
	uint32_t first;

	put_chain(f, 0, 1);
	first = slot_of(f, 0);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 3, slots, f->r.now), 3);
	assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, NULL, keys, slots, 3, NULL,
				    results, f->r.now),
			 3);
	assert_int_equal(results[0], -EEXIST);
	assert_int_equal(results[1], 0);
	assert_int_equal(results[2], -EEXIST);
	assert_int_equal(slot_of(f, 0), first);
	assert_int_equal(stat_of(f).blocks_held, 2);
	assert_int_equal(stat_of(f).slots_filling, 0);
	assert_int_equal(f->owner.nr_claims, 0);
}

/* given a CRC, no byte of the block is read; it is the same CRC */
static void put_takes_known_checksums(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(3);
	struct weft_slot slot;
	int32_t result;
	uint32_t crc;
	uint8_t *addr;

	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, &slot, f->r.now), 1);
	addr = wfi_kv_slot_addr(f->r.kv, slot.idx);
	memset(addr, 0x5a, BLOCK_BYTES);
	crc = wfi_crc32c(0, addr, BLOCK_BYTES);
	assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, NULL, &key, &slot, 1, &crc,
				    &result, f->r.now),
			 1);
	assert_int_equal(wfi_kv_verify(f->r.kv, slot.idx), 0);
	addr[17] ^= 1;
	assert_int_equal(wfi_kv_verify(f->r.kv, slot.idx), -EBADMSG);
}

static void oldest_leaf_goes_first(void **state)
{
	struct fixture *f = *state;

	put_chain(f, 0, 64);
	put_chain(f, 100, 64);
	assert_int_not_equal(slot_of(f, 0), WFI_SLOT_NONE);
	assert_int_equal(claim(f, 10), 10);
	/* the last of the first chain are gone, from the end, and nothing else */
	assert_int_equal(stat_of(f).blocks_held, 118);
	assert_int_equal(slot_of(f, 54), WFI_SLOT_NONE);
	assert_int_not_equal(slot_of(f, 53), WFI_SLOT_NONE);
	assert_int_equal(counted(f, KV_C_EVICTED), 10);
}

static void all_pinned_is_no_space(void **state)
{
	struct fixture *f = *state;
	uint32_t slot;

	put_chain(f, 0, ARENA_SLOTS);
	slot = slot_of(f, ARENA_SLOTS - 1);
	wfi_kv_pin(f->r.kv, &slot, 1);
	assert_int_equal(claim(f, 1), -ENOSPC);
	assert_int_equal(stat_of(f).blocks_held, ARENA_SLOTS);
	assert_int_equal(stat_of(f).slots_leased, 1);
	wfi_kv_unpin(f->r.kv, &slot, 1);
	assert_int_equal(claim(f, ARENA_SLOTS + 1), -ENOSPC);
	assert_int_equal(claim(f, ARENA_SLOTS), ARENA_SLOTS);
	assert_int_equal(stat_of(f).blocks_held, 0);
}

/* who reads in place while its node ends reads what was there */
static void nothing_is_rewritten_after_a_stop(void **state)
{
	struct fixture *f = *state;
	struct weft_slot slots[2];

	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, slots, f->r.now), 1);
	wfi_kv_stop(f->r.kv);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, slots + 1, f->r.now),
			 -ECONNRESET);
	assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, slots, 1), 1);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, slots, f->r.now),
			 -ECONNRESET);
}

static void max_blocks_bounds_a_space(void **state)
{
	struct fixture *f = *state;
	struct weft_space_opts opts = kv_rig_space_opts("bounded", BLOCK_BYTES);
	struct weft_slot slots[10];

	opts.max_blocks = 5;
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &opts, &f->space, NULL), 0);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 6, slots, f->r.now),
			 -ENOSPC);
	put_chain(f, 0, 5);
	put_chain(f, 100, 2);
	assert_int_equal(stat_of(f).blocks_held, 5);
}

/* ---- drop, leases, owners ---- */

static void dropped_parent_waits_for_children(void **state)
{
	struct fixture *f = *state;
	uint32_t slot, gen;

	put_chain(f, 0, 3);
	slot = slot_of(f, 0);
	gen = kv_slot(f->r.kv, slot)->gen;
	assert_int_equal(drop(f, 0), 0);
	assert_int_equal(drop(f, 0), -ENOENT);
	assert_int_equal(slot_of(f, 0), WFI_SLOT_NONE);
	assert_int_not_equal(slot_of(f, 1), WFI_SLOT_NONE);
	assert_int_equal(kv_slot(f->r.kv, slot)->state, KV_SEALED);
	assert_int_equal(stat_of(f).slots_quarantined, 1);
	assert_int_equal(drop(f, 1), 0);
	assert_int_equal(drop(f, 2), 0);
	assert_int_equal(kv_slot(f->r.kv, slot)->state, KV_FREE);
	assert_int_equal(kv_slot(f->r.kv, slot)->gen, gen + 1);
	assert_int_equal(stat_of(f).slots_free, stat_of(f).slots_total);
	assert_int_equal(counted(f, KV_C_DROPPED), 3);
}

static void lease_outlives_drop(void **state)
{
	struct fixture *f = *state;
	uint64_t handle;
	uint32_t slot;

	put_chain(f, 0, 1);
	slot = slot_of(f, 0);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, &slot, 1, f->r.now + MS, &handle), 0);
	assert_true(handle != 0);
	assert_int_equal(drop(f, 0), 0);
	assert_int_equal(kv_slot(f->r.kv, slot)->state, KV_SEALED);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, handle), 1);
	assert_int_equal(kv_slot(f->r.kv, slot)->state, KV_FREE);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, handle), -ENOENT);
}

static void lease_ends_then_grace(void **state)
{
	struct fixture *f = *state;
	uint64_t handles[40];
	uint32_t slots[40], pinned = 0;

	put_chain(f, 0, 40);
	for (uint32_t i = 0; i < 40; i++) {
		slots[i] = slot_of(f, i);
		assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, slots, i + 1,
					      f->r.now + (i * 7 % 40 + 10) * 10 * MS, &handles[i]),
				 0);
	}
	/* ends are in no order: each comes when it is due, its slots a grace later */
	for (uint32_t n = 0; n < 40; n++) {
		const uint64_t end = wfi_kv_next_event_ns(f->r.kv);

		assert_int_equal(end, f->r.now + (n + 10) * 10 * MS);
		assert_int_equal(wfi_kv_poll(f->r.kv, end - 1), 0);
		assert_int_equal(counted(f, KV_C_LEASE_EXPIRED), n);
		assert_int_equal(wfi_kv_poll(f->r.kv, end), 1);
		assert_int_equal(counted(f, KV_C_LEASE_EXPIRED), n + 1);
		pinned = kv_slot(f->r.kv, slots[0])->pins;
		assert_int_equal(pinned, 40 - n);
		assert_int_equal(wfi_kv_next_event_ns(f->r.kv), end + MS);
		wfi_kv_poll(f->r.kv, end + MS);
		assert_int_equal(kv_slot(f->r.kv, slots[0])->pins, pinned - 1);
	}
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, handles[i]), -ENOENT);
	assert_true(wfi_kv_next_event_ns(f->r.kv) == UINT64_MAX);
	assert_int_equal(f->r.kv->owners[kv_owner_idx(f->owner.id)].nr_refs, 0);
}

static void leases_are_bounded(void **state)
{
	struct fixture *f = *state;
	uint64_t handle;
	uint32_t slot;

	put_chain(f, 0, 1);
	slot = slot_of(f, 0);
	for (uint32_t i = 0; i < KV_OWNER_LEASES; i++)
		assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, &slot, 1, 1 + i, &handle), 0);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, &slot, 1, 1, &handle), -EDQUOT);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, &slot, 0, 1, &handle), -EINVAL);
	wfi_owner_fini(f->r.kv, &f->owner, false);
	assert_int_equal(kv_slot(f->r.kv, slot)->pins, 0);
}

static void dead_writer_keeps_its_slots_until_gone(void **state)
{
	struct fixture *f = *state;
	struct weft_slot slots[4];
	struct wfi_owner other;
	uint32_t id;

	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 4, slots, f->r.now), 4);
	wfi_kv_pin(f->r.kv, &slots[0].idx, 1);
	id = f->owner.id;
	wfi_owner_fini(f->r.kv, &f->owner, true);
	assert_int_equal(stat_of(f).slots_quarantined, 4);
	assert_int_equal(stat_of(f).slots_filling, 0);
	assert_int_equal(wfi_owner_init(f->r.kv, &other, f->tenant), 0);
	wfi_owner_gone(f->r.kv, id + 1);
	wfi_owner_gone(f->r.kv, other.id);
	wfi_owner_gone(f->r.kv, UINT32_MAX);
	assert_int_equal(stat_of(f).slots_quarantined, 4);
	wfi_owner_gone(f->r.kv, id);
	assert_int_equal(stat_of(f).slots_quarantined, 1);
	wfi_kv_unpin(f->r.kv, &slots[0].idx, 1);
	assert_int_equal(stat_of(f).slots_free, stat_of(f).slots_total);
	wfi_owner_gone(f->r.kv, id);
}

static void pinned_claim_goes_through_quarantine(void **state)
{
	struct fixture *f = *state;
	struct weft_slot slot;

	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, &slot, f->r.now), 1);
	wfi_kv_pin(f->r.kv, &slot.idx, 1);
	assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, &slot, 1), 1);
	assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, &slot, 1), 0);
	assert_int_equal(kv_slot(f->r.kv, slot.idx)->state, KV_QUARANTINED);
	assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, f->space.id, &slot), -ESTALE);
	wfi_kv_unpin(f->r.kv, &slot.idx, 1);
	assert_int_equal(kv_slot(f->r.kv, slot.idx)->state, KV_FREE);
	assert_true(kv_slot(f->r.kv, slot.idx)->gen != slot.gen);
}

/* ---- bad input ---- */

static void hostile_slots_are_refused(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(1), none = { 0 };
	struct weft_slot mine, theirs, bad;
	struct wfi_owner other;
	int32_t result;

	assert_int_equal(wfi_owner_init(f->r.kv, &other, f->tenant), 0);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 1, &mine, f->r.now), 1);
	assert_int_equal(wfi_kv_claim(f->r.kv, &other, f->space.id, 1, &theirs, f->r.now), 1);
	for (uint32_t i = 0; i < 20000; i++) {
		bad.idx = i < 64 ? 1u << (i % 32) : (uint32_t)wfi_sim_rand(f->r.sim);
		if (i % 3 == 0)
			bad.idx %= 20000;
		bad.gen = i % 2 ? (uint32_t)wfi_sim_rand(f->r.sim) : i % 5;
		bad.off = wfi_sim_rand(f->r.sim);
		if (bad.idx == mine.idx && bad.gen == mine.gen)
			continue;
		assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, NULL, &key, &bad, 1,
					    NULL, &result, f->r.now),
				 0);
		assert_int_equal(result, -ESTALE);
		assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, &bad, 1), 0);
		assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, f->space.id, &bad), -ESTALE);
	}
	assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, NULL, &key, &theirs, 1, NULL,
				    &result, f->r.now),
			 0);
	assert_int_equal(result, -ESTALE);
	assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, f->space.id, &theirs), -ESTALE);
	assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, NULL, &none, &mine, 1, NULL,
				    &result, f->r.now),
			 0);
	assert_int_equal(result, -EINVAL);
	mine.off = 12345; /* an engine's word for where it is counts for nothing */
	assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, f->space.id, &mine), 0);
	assert_int_equal(wfi_kv_put(f->r.kv, &f->owner, f->space.id, &key, &key, &mine, 1, NULL,
				    &result, f->r.now),
			 1);
}

static void handles_of_others_are_refused(void **state)
{
	struct fixture *f = *state;
	struct wfi_owner other;
	uint64_t handle;
	uint32_t slot;

	put_chain(f, 0, 1);
	slot = slot_of(f, 0);
	assert_int_equal(wfi_owner_init(f->r.kv, &other, f->tenant), 0);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, 1), -ENOENT);
	assert_int_equal(wfi_kv_lease(f->r.kv, &f->owner, &slot, 1, 1, &handle), 0);
	assert_int_equal(wfi_kv_release(f->r.kv, &other, handle), -ENOENT);
	for (uint32_t i = 0; i < 64; i++)
		assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, handle ^ 1ull << i), -ENOENT);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, 0), -ENOENT);
	assert_int_equal(wfi_kv_release(f->r.kv, &f->owner, handle), 1);
}

/* keys and ids of one space or tenant are nothing in another */
static void spaces_and_tenants_are_apart(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(0);
	struct wfi_space_info other = kv_rig_space(f->r.kv, f->tenant, "other", BLOCK_BYTES), info;
	struct wfi_tenant *stranger = kv_rig_tenant(f->r.kv, "stranger", ARENA_BYTES);
	const struct weft_space_opts same = kv_rig_space_opts("model", BLOCK_BYTES);
	struct wfi_owner strange;
	struct weft_slot slot;
	uint32_t found;

	put_chain(f, 0, 1);
	wfi_kv_slot_ref(f->r.kv, slot_of(f, 0), &slot);
	assert_int_equal(wfi_kv_match(f->r.kv, other.id, &key, 1, NULL), 0);
	assert_int_equal(wfi_kv_lookup(f->r.kv, other.id, &key, 1, &found, f->r.now), 0);
	assert_int_equal(found, WFI_SLOT_NONE);
	assert_int_equal(wfi_kv_slot_check(f->r.kv, &f->owner, other.id, &slot), -ESTALE);
	assert_int_equal(wfi_owner_init(f->r.kv, &strange, stranger), 0);
	assert_int_equal(wfi_kv_slot_check(f->r.kv, &strange, f->space.id, &slot), -ESTALE);
	assert_int_equal(wfi_kv_claim(f->r.kv, &strange, f->space.id, 1, &slot, f->r.now), -ENOENT);
	assert_int_equal(wfi_kv_space_get(f->r.kv, stranger, f->space.id, &info), -ENOENT);
	assert_int_equal(wfi_kv_space_get(f->r.kv, f->tenant, f->space.id, &info), 0);
	for (uint32_t i = 0; i < 32; i++) {
		assert_int_equal(wfi_kv_space_get(f->r.kv, f->tenant, f->space.id ^ 1u << i, &info),
				 (f->space.id ^ 1u << i) == other.id ? 0 : -ENOENT);
		assert_int_equal(wfi_kv_match(f->r.kv, other.id ^ 1u << i, &key, 1, NULL),
				 (other.id ^ 1u << i) == f->space.id);
	}
	assert_int_equal(wfi_kv_space_by_tag(f->r.kv, other.tag, &info), 0);
	assert_int_equal(info.id, other.id);
	assert_int_equal(wfi_kv_space_by_tag(f->r.kv, other.tag + 1, &info), -ENOENT);
	/* equal options open the same space, but not for another tenant */
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &same, &info, NULL), 0);
	assert_int_equal(info.id, f->space.id);
	assert_int_equal(wfi_kv_space_open(f->r.kv, stranger, &same, &info, NULL), 0);
	assert_int_not_equal(info.id, f->space.id);
}

static void spaces_are_found_by_tag(void **state)
{
	struct fixture *f = *state;
	struct wfi_space_info spaces[WFI_TENANT_SPACES_MAX - 1], info;
	char model[16];
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(spaces); i++) {
		snprintf(model, sizeof(model), "m%u", i);
		spaces[i] = kv_rig_space(f->r.kv, f->tenant, model, BLOCK_BYTES);
	}
	for (i = 0; i < WFI_ARRAY_SIZE(spaces); i += 2) {
		assert_int_equal(wfi_kv_space_remove(f->r.kv, spaces[i].id, NULL), 0);
		assert_int_equal(wfi_kv_space_by_tag(f->r.kv, spaces[i].tag, &info), -ENOENT);
	}
	for (i = 0; i < 10000 && !wfi_kv_next_event_ns(f->r.kv); i++)
		wfi_kv_poll(f->r.kv, f->r.now);
	assert_true(i < 10000);
	spaces[0] = kv_rig_space(f->r.kv, f->tenant, "m0", BLOCK_BYTES);
	for (i = 0; i < WFI_ARRAY_SIZE(spaces); i++) {
		const bool gone = i && i % 2 == 0;

		assert_int_equal(wfi_kv_space_by_tag(f->r.kv, spaces[i].tag, &info),
				 gone ? -ENOENT : 0);
		assert_true(gone || info.id == spaces[i].id);
	}
}

static void bad_options_are_refused(void **state)
{
	struct fixture *f = *state;
	struct {
		struct weft_space_opts opts;
		uint64_t more;
	} wide = { .opts = kv_rig_space_opts("m", 512), .more = 1 };
	struct weft_space_opts o[9];
	char name[WEFT_NAME_MAX + 1], why[184];
	struct wfi_space_info info;
	struct wfi_tenant *t;
	struct wfi_tenant_opts to = { .name = "tenant", .token = "x", .arena_bytes = 1 << 20 };

	for (size_t i = 0; i < WFI_ARRAY_SIZE(o); i++)
		o[i] = kv_rig_space_opts("m", 512);
	memset(name, 'x', sizeof(name));
	o[0].size--;
	o[1].block_bytes = 63;
	o[2].block_bytes = (1ull << 30) + 64;
	o[3].nr_layers = 3;
	o[4].model = name;
	o[5].layout = "a\nb";
	o[6].dtype = 99;
	o[7].verify = 2;
	o[8].model = NULL;
	for (size_t i = 0; i < WFI_ARRAY_SIZE(o); i++) {
		memset(why, 0, sizeof(why));
		assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &o[i], &info, why), -EINVAL);
		assert_true(strlen(why) > 5);
	}
	wide.opts.size = sizeof(wide);
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &wide.opts, &info, why), -EINVAL);
	wide.more = 0;
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &wide.opts, &info, why), 0);
	o[0] = kv_rig_space_opts("big", 2 * ARENA_BYTES);
	assert_int_equal(wfi_kv_space_open(f->r.kv, f->tenant, &o[0], &info, why), -E2BIG);
	assert_int_equal(wfi_kv_tenant_add(f->r.kv, &to, &t), -EEXIST);
	to.name = "new";
	to.token = "tenant";
	assert_int_equal(wfi_kv_tenant_add(f->r.kv, &to, &t), -EEXIST);
	to.token = "";
	assert_int_equal(wfi_kv_tenant_add(f->r.kv, &to, &t), 0);
	assert_ptr_equal(wfi_kv_tenant_find(f->r.kv, (char[WEFT_TOKEN_MAX]){ "" }), t);
	assert_ptr_equal(wfi_kv_tenant_find(f->r.kv, (char[WEFT_TOKEN_MAX]){ "tenant" }),
			 f->tenant);
	assert_null(wfi_kv_tenant_find(f->r.kv, (char[WEFT_TOKEN_MAX]){ "tenan" }));
}

/* peers can read what they are given, and no more */
static void peers_map_for_reading_only(void **state)
{
	struct fixture *f = *state;
	const int fds[2] = { wfi_tenant_arena_ro_fd(f->tenant), wfi_kv_headers_ro_fd(f->r.kv) };

	for (unsigned i = 0; i < 2; i++) {
		void *addr = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fds[i], 0);

		assert_ptr_not_equal(addr, MAP_FAILED);
		munmap(addr, 4096);
		addr = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
		assert_ptr_equal(addr, MAP_FAILED);
	}
}

/* ---- readers ---- */

static void readers_find_what_is_held(void **state)
{
	struct fixture *f = *state;
	struct wfi_kv_reader *reader, *none = NULL;
	struct weft_key keys[20];
	uint32_t slots[20], held[20];

	for (uint32_t i = 0; i < 20; i++)
		keys[i] = key_of(i);
	assert_int_equal(wfi_kv_reader_create(f->r.kv, f->space.id + 1, &none), -ENOENT);
	assert_null(none);
	assert_int_equal(wfi_kv_reader_create(f->r.kv, f->space.id, &reader), 0);
	assert_int_equal(wfi_kv_reader_match(reader, keys, 20, NULL), 0);
	put_chain(f, 0, 10);
	put_chain(f, 15, 3);
	wfi_kv_lookup(f->r.kv, f->space.id, keys, 20, held, f->r.now);
	assert_int_equal(wfi_kv_reader_match(reader, keys, 20, slots), 10);
	assert_memory_equal(slots, held, 10 * sizeof(*slots));
	assert_int_equal(wfi_kv_reader_lookup(reader, keys, 20, slots), 13);
	assert_memory_equal(slots, held, sizeof(slots));
	wfi_kv_reader_destroy(reader);
	wfi_kv_reader_destroy(NULL);
}

/* ---- figures ---- */

#define TICK (1ull << WFI_BLOCK_TICK_BITS)

static void figures_of_a_space(void **state)
{
	struct fixture *f = *state;
	struct wfi_space_stat st;
	struct weft_key key;
	uint32_t slot, at = 0;

	f->r.now = 100 * TICK;
	put_chain(f, 0, ARENA_SLOTS);
	f->r.now += 5 * TICK;
	assert_int_not_equal(slot_of(f, 0), WFI_SLOT_NONE);
	/* the same request again: one use */
	assert_int_not_equal(slot_of(f, 0), WFI_SLOT_NONE);
	f->r.now += 7 * TICK;
	key = key_of(0);
	assert_int_equal(wfi_kv_prefix(f->r.kv, f->space.id, &key, 1, &slot, f->r.now), 1);
	key = key_of(1000);
	assert_int_equal(wfi_kv_lookup(f->r.kv, f->space.id, &key, 1, &slot, f->r.now), 0);
	assert_int_equal(wfi_kv_space_stat(f->r.kv, &at, &st), 0);
	assert_int_equal(wfi_kv_space_stat(f->r.kv, &at, &st), -ENOENT);
	assert_int_equal(st.id, f->space.id);
	assert_int_equal(st.blocks, ARENA_SLOTS);
	assert_int_equal(st.puts, ARENA_SLOTS);
	assert_int_equal(st.hits, 3);
	assert_int_equal(st.misses, 1);
	assert_int_equal(st.reuse->nr, 2);
	assert_int_equal(st.reuse->sum, 12 * TICK);
	assert_int_equal(st.reuse->max, 7 * TICK);
	/* all go; the first block was used 12 ticks after it came, and 8 before it goes */
	f->r.now += 8 * TICK;
	assert_int_equal(claim(f, ARENA_SLOTS), ARENA_SLOTS);
	assert_int_equal(st.lifetime->nr, ARENA_SLOTS);
	assert_int_equal(st.lifetime->sum, ARENA_SLOTS * 20 * TICK);
	assert_int_equal(st.idle->sum, (ARENA_SLOTS * 20 - 12) * TICK);
	at = 0;
	assert_int_equal(wfi_kv_space_stat(f->r.kv, &at, &st), 0);
	assert_int_equal(st.evicted, ARENA_SLOTS);
	assert_int_equal(st.slots_free, ARENA_SLOTS);
}

static void blocks_of_a_space(void **state)
{
	struct fixture *f = *state;
	const struct wfi_space_info other = kv_rig_space(f->r.kv, f->tenant, "other", BLOCK_BYTES);
	struct wfi_block_stat b[WFI_BLOCKS_SLICE];
	uint32_t depths = 0, pinned = 0, filling = 0, dropped = 0, nr = 0, slot;
	struct weft_slot slots[3];
	uint64_t at = 0;
	int ret;

	put_chain(f, 0, 40);
	slot = slot_of(f, 39);
	wfi_kv_pin(f->r.kv, &slot, 1);
	assert_int_equal(drop(f, 39), 0);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, f->space.id, 3, slots, ++f->r.now), 3);
	do {
		ret = wfi_kv_blocks(f->r.kv, f->space.id, &at, f->r.now, b);
		assert_in_range(ret, 0, WFI_BLOCKS_SLICE);
		for (int i = 0; i < ret; i++, nr++) {
			depths += b[i].depth;
			pinned += b[i].pins;
			filling += !strcmp(b[i].state, "filling");
			dropped += !strcmp(b[i].state, "dropped");
			assert_int_equal(b[i].tier, WEFT_TIER_DRAM);
			assert_true(!strcmp(b[i].state, "filling") == !b[i].key.lo);
		}
	} while (at);
	assert_int_equal(nr, 43);
	assert_int_equal(depths, 39 * 40 / 2);
	assert_int_equal(pinned, 1);
	assert_int_equal(filling, 3);
	assert_int_equal(dropped, 1);
	assert_int_equal(wfi_kv_blocks(f->r.kv, other.id, &at, f->r.now, b), 0);
	assert_int_equal(at, 0);
	assert_int_equal(wfi_kv_blocks(f->r.kv, 0, &at, f->r.now, b), -ENOENT);
	/* what nobody gave us: it ends */
	for (unsigned bit = 0; bit < 64; bit++) {
		at = 1ull << bit;
		assert_true(wfi_kv_blocks(f->r.kv, f->space.id, &at, f->r.now, b) >= 0);
		assert_int_equal(at, 0);
	}
	wfi_kv_unpin(f->r.kv, &slot, 1);
}

/* ---- bits that flip ---- */

static void flipped_bits_are_misses(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(0);
	uint64_t bad = 0;

	for (uint32_t bit = 0; bit < 8 * sizeof(struct weft_block_header) + 800; bit++) {
		struct weft_block_header *h;
		uint32_t slot, i = bit;
		uint8_t *bytes;

		put_chain(f, 0, 2);
		slot = slot_of(f, 0);
		h = &f->r.kv->headers[slot];
		if (i < 8 * sizeof(*h)) {
			bytes = (uint8_t *)h;
		} else {
			bytes = wfi_kv_slot_addr(f->r.kv, slot);
			i = (uint32_t)(wfi_sim_rand(f->r.sim) % (8 * BLOCK_BYTES));
		}
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		/* when it was used says nothing of the block: another bit for that */
		if (bit / 8 - offsetof(struct weft_block_header, used) < sizeof(h->used)) {
			assert_int_equal(wfi_kv_verify(f->r.kv, slot), 0);
			h->crc ^= 1u << bit % 8;
		}
		assert_int_equal(wfi_kv_verify(f->r.kv, slot), -EBADMSG);
		assert_int_equal(wfi_kv_match(f->r.kv, f->space.id, &key, 1, NULL), 0);
		/* who has just looked it up may still hold its number */
		assert_int_not_equal(kv_slot(f->r.kv, slot)->state, KV_FREE);
		assert_int_equal(wfi_kv_verify(f->r.kv, slot), -EBADMSG);
		bad = counted(f, KV_C_BAD_HEADER) + counted(f, KV_C_BAD_BODY) +
		      counted(f, KV_C_BAD_STALE);
		assert_int_equal(bad, 2 * (bit + 1));
		assert_int_equal(drop(f, 1), 0);
		wfi_kv_poll(f->r.kv, f->r.now);
		assert_int_equal(stat_of(f).slots_free, stat_of(f).slots_total);
		assert_int_equal(f->r.kv->index.nr, 0);
	}
	assert_true(counted(f, KV_C_BAD_BODY) >= 800);
	assert_true(counted(f, KV_C_BAD_HEADER) > 0 && counted(f, KV_C_BAD_STALE) > 0);
	assert_int_equal(wfi_kv_verify(f->r.kv, UINT32_MAX), -EBADMSG);
}

/* a key that changed in memory: no entry may go on leading to the slot when it is evicted */
static void changed_key_is_evicted_cleanly(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(0);
	uint32_t slot, held;

	put_chain(f, 0, 1);
	slot = slot_of(f, 0);
	f->r.kv->headers[slot].key.lo ^= 4;
	assert_int_equal(slot_of(f, 0), WFI_SLOT_NONE);
	/* the index alone can't tell; who means to use it is told */
	assert_int_equal(wfi_kv_match(f->r.kv, f->space.id, &key, 1, NULL), 1);
	assert_int_equal(wfi_kv_prefix(f->r.kv, f->space.id, &key, 1, &held, f->r.now), 0);
	assert_int_equal(claim(f, ARENA_SLOTS), ARENA_SLOTS);
	assert_int_equal(wfi_kv_match(f->r.kv, f->space.id, &key, 1, NULL), 0);
	assert_int_equal(f->r.kv->index.nr, 0);
	/* and it does not keep the block from being published anew */
	put_chain(f, 0, 1);
	f->r.kv->headers[slot_of(f, 0)].key.hi ^= 4;
	put_chain(f, 0, 1);
	assert_int_not_equal(slot_of(f, 0), WFI_SLOT_NONE);
	assert_int_equal(f->r.kv->index.nr, 1);
}

/* ---- sharing an arena ---- */

static void spaces_take_from_each_other(void **state)
{
	struct fixture *f = *state;
	const struct wfi_space_info first = f->space,
				    big = kv_rig_space(f->r.kv, f->tenant, "big", 3 * EXTENT_BYTES);
	struct weft_slot slots[8];
	uint32_t slot;

	put_chain(f, 0, ARENA_SLOTS);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, big.id, 2, slots, ++f->r.now), 2);
	assert_int_equal(counted(f, KV_C_RUN_TAKEN) >= 6, 1);
	assert_true(slots[0].off % EXTENT_BYTES == 0 && slots[1].off % EXTENT_BYTES == 0);
	assert_int_equal(stat_of(f).slots_filling, 2);
	/* what is pinned stays, with the chain before it */
	slot = slot_of(f, 0);
	if (slot != WFI_SLOT_NONE)
		wfi_kv_pin(f->r.kv, &slot, 1);
	assert_int_equal(wfi_kv_claim(f->r.kv, &f->owner, big.id, 4, slots + 2, ++f->r.now),
			 -ENOSPC);
	if (slot != WFI_SLOT_NONE) {
		assert_int_equal(slot_of(f, 0), slot);
		wfi_kv_unpin(f->r.kv, &slot, 1);
	}
	/* and back again */
	assert_int_equal(wfi_kv_unclaim(f->r.kv, &f->owner, slots, 2), 2);
	f->space = first;
	assert_int_equal(claim(f, ARENA_SLOTS), ARENA_SLOTS);
}

/* everything that allocates may fail: a named error, and all goes on */
static void no_memory_is_an_error_not_an_end(void **state)
{
	struct fixture *f = *state;
	struct wfi_sim_faults faults = { 0 };
	unsigned nth;

	for (nth = 1; nth < 60; nth++) {
		struct wfi_kv_opts opts = {
			.env = f->r.env,
			.policy = wfi_evict_policies[nth % 2],
			.extent_bytes = EXTENT_BYTES,
			.max_slots = 4096,
		};
		const struct wfi_tenant_opts to = { .name = "t",
						    .token = "",
						    .arena_bytes = 65536 };
		struct weft_space_opts so = kv_rig_space_opts("m", 512);
		struct wfi_space_info info;
		struct weft_slot slots[64];
		struct wfi_tenant *t;
		struct wfi_owner owner;
		struct wfi_kv *kv;
		uint64_t handle;

		if (!opts.policy)
			opts.policy = wfi_evict_policies[0];
		faults.alloc_fail_nth = (nth + 1) / 2;
		wfi_sim_set_faults(f->r.sim, &faults);
		if (wfi_kv_create(&opts, &kv))
			continue;
		if (wfi_kv_tenant_add(kv, &to, &t) || wfi_kv_space_open(kv, t, &so, &info, NULL) ||
		    wfi_owner_init(kv, &owner, t))
			goto next;
		if (wfi_kv_claim(kv, &owner, info.id, 64, slots, 1) == -ENOSPC)
			assert_int_equal(wfi_kv_claim(kv, &owner, info.id, 64, slots, 1), 64);
		if (wfi_kv_lease(kv, &owner, &slots[0].idx, 1, 1, &handle) == -ENOMEM)
			assert_int_equal(wfi_kv_lease(kv, &owner, &slots[0].idx, 1, 1, &handle), 0);
next:
		wfi_kv_destroy(kv);
	}
}

/* arenas of all sizes keep nearly all of their bytes usable */
static void runs_waste_little(void **state)
{
	struct fixture *f = *state;
	static const uint64_t blocks[] = { 64,	    4096,     4160,	(1 << 20) + 64, 3 << 20,
					   5 << 20, 17 << 20, 20 << 20, (7 << 20) + 64 };
	struct wfi_kv_opts opts = { .env = f->r.env, .policy = lru() };
	struct wfi_tenant_opts to = { .name = "t", .token = "", .arena_bytes = 1ull << 30 };
	struct wfi_tenant *t;
	struct wfi_kv *kv;

	assert_int_equal(wfi_kv_create(&opts, &kv), 0);
	assert_int_equal(wfi_kv_tenant_add(kv, &to, &t), 0);
	for (size_t i = 0; i < WFI_ARRAY_SIZE(blocks); i++) {
		const struct weft_space_opts so = kv_rig_space_opts("m", blocks[i]);
		const struct kv_space *space;
		struct wfi_space_info info;
		uint64_t slots;

		assert_int_equal(wfi_kv_space_open(kv, t, &so, &info, NULL), 0);
		space = kv_space(kv, info.id);
		slots = t->nr_extents / space->run_extents * space->run_slots;
		assert_true(slots * info.stride >= to.arena_bytes / 100 * 90);
	}
	wfi_kv_destroy(kv);
}

/* a look is no use: the oldest block stays the oldest, though a lookup would have saved it */
static void a_peek_touches_nothing(void **state)
{
	struct fixture *f = *state;
	const uint64_t hits = counted(f, KV_C_LOOKUP_HIT);
	struct weft_key keys[2] = { key_of(0), key_of(ARENA_SLOTS) };
	uint32_t slots[2];

	for (uint64_t n = 0; n < ARENA_SLOTS; n++)
		put_chain(f, n, 1);
	assert_int_equal(wfi_kv_peek(f->r.kv, f->space.id, keys, 2, slots), 1);
	assert_true(slots[0] != WFI_SLOT_NONE && slots[1] == WFI_SLOT_NONE);
	assert_int_equal(counted(f, KV_C_LOOKUP_HIT), hits);
	put_chain(f, ARENA_SLOTS, 1);
	assert_int_equal(wfi_kv_peek(f->r.kv, f->space.id, keys, 2, slots), 1);
	assert_true(slots[0] == WFI_SLOT_NONE && slots[1] != WFI_SLOT_NONE);
	/* the next oldest, saved by a lookup */
	keys[0] = key_of(1);
	assert_int_equal(wfi_kv_lookup(f->r.kv, f->space.id, keys, 1, slots, ++f->r.now), 1);
	put_chain(f, ARENA_SLOTS + 1, 1);
	assert_int_equal(wfi_kv_peek(f->r.kv, f->space.id, keys, 1, slots), 1);
	assert_int_equal(wfi_kv_peek(f->r.kv, f->space.id + 1, keys, 1, slots), 0);
	assert_int_equal(slots[0], WFI_SLOT_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(put_then_find, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(second_put_is_the_first, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(put_takes_known_checksums, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(oldest_leaf_goes_first, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(all_pinned_is_no_space, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(nothing_is_rewritten_after_a_stop, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(max_blocks_bounds_a_space, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(dropped_parent_waits_for_children, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(lease_outlives_drop, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(lease_ends_then_grace, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(leases_are_bounded, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(dead_writer_keeps_its_slots_until_gone, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(pinned_claim_goes_through_quarantine, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(hostile_slots_are_refused, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(handles_of_others_are_refused, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(spaces_and_tenants_are_apart, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(spaces_are_found_by_tag, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(bad_options_are_refused, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(peers_map_for_reading_only, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(readers_find_what_is_held, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(figures_of_a_space, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(blocks_of_a_space, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(flipped_bits_are_misses, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(changed_key_is_evicted_cleanly, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(spaces_take_from_each_other, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(no_memory_is_an_error_not_an_end, setup,
						kv_rig_teardown),
		cmocka_unit_test_setup_teardown(runs_waste_little, setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(a_peek_touches_nothing, setup, kv_rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
