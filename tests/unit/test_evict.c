/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/evict.h"
#include "weft_internal/util.h"

#define NR_SLOTS 256u
#define STEPS 40000u

/* counts what is taken, and refuses after @left allocations */
struct test_env {
	struct wfi_env env;
	size_t used;
	unsigned left;
};

static void *env_alloc(struct wfi_env *env, size_t len)
{
	struct test_env *te = wfi_container_of(env, struct test_env, env);

	if (!te->left)
		return NULL;
	te->left--;
	te->used += len;
	return calloc(1, len ? len : 1);
}

static void env_free(struct wfi_env *env, void *ptr, size_t len)
{
	struct test_env *te = wfi_container_of(env, struct test_env, env);

	te->used -= len;
	free(ptr);
}

static int env_map(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out)
{
	void *addr = env_alloc(env, len);

	(void)flags;
	if (!addr)
		return -ENOMEM;
	*out = (struct wfi_map){ .addr = addr, .len = len, .fd = -1 };
	return 0;
}

static void env_unmap(struct wfi_env *env, struct wfi_map *map)
{
	env_free(env, map->addr, map->len);
	*map = (struct wfi_map){ .fd = -1 };
}

static void env_populate(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len)
{
	(void)env;
	assert_true(wfi_range_ok(off, len, map->len));
}

static const struct wfi_alloc_ops env_mem = {
	.alloc = env_alloc,
	.free = env_free,
	.map = env_map,
	.unmap = env_unmap,
	.populate = env_populate,
	.unmap_begin = env_unmap,
};

static struct test_env env_make(void)
{
	return (struct test_env){ .env = { .mem = &env_mem }, .left = 1000 };
}

/* splitmix64 */
static uint64_t rand_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

enum model_state { GONE, RESIDENT, CANDIDATE };

/* what the policy must agree with: which slots there are, and which may go */
struct model {
	const struct wfi_evict_policy *policy;
	struct wfi_evict *ev;
	uint8_t state[4 * NR_SLOTS];
	uint32_t nr_slots;
	unsigned nr_candidates;
	uint64_t now_ns;
	uint64_t rng;
	uint64_t trail; /* hash over all evicted slots, in order */
};

static uint32_t pick(struct model *m, enum model_state want)
{
	uint32_t at = rand_next(&m->rng) % m->nr_slots;

	for (uint32_t i = 0; i < m->nr_slots; i++, at = (at + 1) % m->nr_slots) {
		if (m->state[at] == want)
			return at;
	}
	return WFI_SLOT_NONE;
}

static void model_insert(struct model *m)
{
	struct wfi_evict_info info = {
		.key_hash = rand_next(&m->rng) % (16 * NR_SLOTS),
		.depth = rand_next(&m->rng) % 40,
		.parent = WFI_SLOT_NONE,
	};
	uint32_t slot = pick(m, GONE);

	if (slot == WFI_SLOT_NONE)
		return;
	info.chain_len = info.depth + 1 + rand_next(&m->rng) % 10;
	if (rand_next(&m->rng) % 2)
		info.parent = pick(m, RESIDENT);
	m->policy->insert(m->ev, slot, &info, m->now_ns);
	m->state[slot] = RESIDENT;
}

static void model_touch(struct model *m)
{
	uint32_t slots[8];
	unsigned nr = 0;

	for (unsigned i = 0; i < WFI_ARRAY_SIZE(slots); i++) {
		uint32_t slot = pick(m, i % 2 ? RESIDENT : CANDIDATE);
		bool seen = slot == WFI_SLOT_NONE;

		for (unsigned j = 0; j < nr; j++)
			seen |= slots[j] == slot;
		if (!seen)
			slots[nr++] = slot;
	}
	m->policy->touch(m->ev, slots, nr, m->now_ns);
}

static void model_add(struct model *m)
{
	uint32_t slot = pick(m, RESIDENT);

	if (slot == WFI_SLOT_NONE)
		return;
	m->policy->candidate_add(m->ev, slot);
	m->state[slot] = CANDIDATE;
	m->nr_candidates++;
}

static void model_del(struct model *m)
{
	uint32_t slot = pick(m, CANDIDATE);

	if (slot == WFI_SLOT_NONE)
		return;
	m->policy->candidate_del(m->ev, slot);
	m->state[slot] = RESIDENT;
	m->nr_candidates--;
}

static void model_evict(struct model *m)
{
	uint32_t slot = m->policy->evict(m->ev, m->now_ns);

	if (!m->nr_candidates) {
		assert_int_equal(slot, WFI_SLOT_NONE);
		return;
	}
	assert_true(slot < m->nr_slots);
	assert_int_equal(m->state[slot], CANDIDATE);
	m->state[slot] = GONE;
	m->nr_candidates--;
	m->trail = (m->trail ^ slot) * 0x100000001b3;
}

static void model_remove(struct model *m)
{
	uint32_t slot = pick(m, rand_next(&m->rng) % 2 ? RESIDENT : CANDIDATE);

	if (slot == WFI_SLOT_NONE)
		return;
	m->policy->remove(m->ev, slot);
	m->nr_candidates -= m->state[slot] == CANDIDATE;
	m->state[slot] = GONE;
}

static void model_step(struct model *m)
{
	static void (*const ops[])(struct model *) = {
		model_insert, model_insert, model_touch, model_touch, model_add,
		model_add,    model_add,    model_del,	 model_evict, model_evict,
	};

	m->now_ns += rand_next(&m->rng) % 4 ? 0 : rand_next(&m->rng) % WFI_NSEC_PER_SEC;
	if (rand_next(&m->rng) % 64)
		ops[rand_next(&m->rng) % WFI_ARRAY_SIZE(ops)](m);
	else
		model_remove(m);
}

static void model_drain(struct model *m)
{
	while (m->nr_candidates)
		model_evict(m);
	model_evict(m);
}

static uint64_t play(const struct wfi_evict_policy *policy, uint64_t seed, bool grow)
{
	struct test_env te = env_make();
	struct model m = { .policy = policy, .nr_slots = NR_SLOTS, .rng = seed };

	assert_int_equal(policy->create(&te.env, NR_SLOTS, seed, &m.ev), 0);
	for (unsigned i = 0; i < STEPS; i++) {
		model_step(&m);
		if (grow && i % (STEPS / 4) == STEPS / 8 && m.nr_slots < 4 * NR_SLOTS) {
			m.nr_slots += NR_SLOTS;
			assert_int_equal(policy->resize(m.ev, m.nr_slots), 0);
		}
		if (i % 4096 == 4095)
			model_drain(&m);
	}
	for (uint32_t slot = 0; slot < m.nr_slots; slot++) {
		if (m.state[slot] == RESIDENT)
			model_add(&m);
	}
	model_drain(&m);
	assert_int_equal(policy->bytes(m.ev), te.used);
	policy->destroy(m.ev);
	assert_int_equal(te.used, 0);
	return m.trail;
}

static void test_find(void **state)
{
	(void)state;
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		assert_ptr_equal(wfi_evict_find(wfi_evict_policies[i]->name),
				 wfi_evict_policies[i]);
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(wfi_evict_policies[i]->name,
						wfi_evict_policies[j]->name);
	}
	assert_non_null(wfi_evict_find("lru"));
	assert_null(wfi_evict_find("lr"));
	assert_null(wfi_evict_find(""));
}

static void test_contract(void **state)
{
	(void)state;
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		for (uint64_t seed = 1; seed <= 4; seed++)
			play(wfi_evict_policies[i], seed, seed % 2);
	}
}

/* all are used after they became candidates; they go one by one, and slots are taken anew */
static void test_all_used(void **state)
{
	(void)state;
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		struct test_env te = env_make();
		struct model m = { .policy = wfi_evict_policies[i], .nr_slots = NR_SLOTS };

		assert_int_equal(m.policy->create(&te.env, NR_SLOTS, 1, &m.ev), 0);
		for (unsigned turn = 0; turn < 4; turn++) {
			for (unsigned n = 0; n < NR_SLOTS; n++)
				model_insert(&m);
			for (unsigned n = 0; n < NR_SLOTS; n++)
				model_add(&m);
			assert_int_equal(m.nr_candidates, NR_SLOTS);
			model_evict(&m);
			for (uint32_t slot = 0; slot < NR_SLOTS; slot++) {
				m.now_ns += WFI_NSEC_PER_SEC;
				if (m.state[slot] == CANDIDATE)
					m.policy->touch(m.ev, &slot, 1, m.now_ns);
			}
			while (m.nr_candidates > NR_SLOTS / 4)
				model_evict(&m);
		}
		model_drain(&m);
		m.policy->destroy(m.ev);
	}
}

/* a block becomes a candidate and is taken out: it does not go once more */
static void test_removed(void **state)
{
	(void)state;
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		const struct wfi_evict_policy *policy = wfi_evict_policies[i];
		const struct wfi_evict_info info = { .chain_len = 1, .parent = WFI_SLOT_NONE };
		struct test_env te = env_make();
		struct wfi_evict *ev;

		assert_int_equal(policy->create(&te.env, NR_SLOTS, 1, &ev), 0);
		policy->insert(ev, 3, &info, 1);
		policy->candidate_add(ev, 3);
		policy->remove(ev, 3);
		assert_int_equal(policy->evict(ev, 1), WFI_SLOT_NONE);
		policy->destroy(ev);
	}
}

static void test_deterministic(void **state)
{
	(void)state;
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		assert_int_equal(play(wfi_evict_policies[i], 7, true),
				 play(wfi_evict_policies[i], 7, true));
	}
}

static void test_no_memory(void **state)
{
	(void)state;
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		const struct wfi_evict_policy *policy = wfi_evict_policies[i];
		struct test_env te = env_make();
		struct wfi_evict *ev = NULL;
		size_t used;

		for (unsigned fail_at = 0; !ev; fail_at++) {
			te.left = fail_at;
			if (!policy->create(&te.env, NR_SLOTS, 1, &ev))
				break;
			assert_null(ev);
			assert_int_equal(te.used, 0);
		}
		used = te.used;
		te.left = 0;
		assert_true(policy->resize(ev, 2 * NR_SLOTS) < 0);
		assert_int_equal(te.used, used);
		policy->destroy(ev);
		assert_int_equal(te.used, 0);
		policy->destroy(NULL);
	}
}

static void test_lru_order(void **state)
{
	const struct wfi_evict_policy *lru = wfi_evict_find("lru");
	static const uint32_t order[] = { 5, 4, 3, 2, 1, 0 };
	static const uint32_t prefix[] = { 1, 0 };
	struct test_env te = env_make();
	struct wfi_evict *ev;

	(void)state;
	assert_int_equal(lru->create(&te.env, NR_SLOTS, 1, &ev), 0);
	/* two chains of three, the first touched in its two leading blocks later */
	for (uint32_t slot = 0; slot < 6; slot++) {
		struct wfi_evict_info info = { .depth = slot % 3, .chain_len = 3 };

		info.parent = info.depth ? slot - 1 : WFI_SLOT_NONE;
		lru->insert(ev, slot, &info, slot / 3);
	}
	lru->touch(ev, prefix, 2, 3);
	lru->candidate_add(ev, 2);
	lru->candidate_add(ev, 5);
	assert_int_equal(lru->evict(ev, 4), 2);
	lru->candidate_add(ev, 1);
	for (unsigned i = 0; i < 6; i++) {
		if (order[i] == 2)
			continue;
		assert_int_equal(lru->evict(ev, 4), order[i]);
		if (order[i] == 5 || order[i] == 4)
			lru->candidate_add(ev, order[i] - 1);
		if (order[i] == 1)
			lru->candidate_add(ev, 0);
	}
	assert_int_equal(lru->evict(ev, 4), WFI_SLOT_NONE);
	lru->destroy(ev);
}

/* what a list of use is: each block touched goes to the end, one after the other */
static void order_touch(uint32_t *order, const uint32_t *slots, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		unsigned at = 0;

		while (order[at] != slots[i])
			at++;
		memmove(&order[at], &order[at + 1], (NR_SLOTS - 1 - at) * sizeof(*order));
		order[NR_SLOTS - 1] = slots[i];
	}
}

/* chains touched whole, in part, with holes, and with blocks that were parked meanwhile: what moves
 * as one ends where its blocks would have ended one by one */
static void test_lru_chains(void **state)
{
	const struct wfi_evict_policy *lru = wfi_evict_find("lru");
	const struct wfi_evict_info root = { .chain_len = 1, .parent = WFI_SLOT_NONE };
	uint32_t order[NR_SLOTS], slots[NR_SLOTS];
	struct test_env te = env_make();
	struct wfi_evict *ev;
	uint64_t rng = 7;

	(void)state;
	assert_int_equal(lru->create(&te.env, NR_SLOTS, 1, &ev), 0);
	for (uint32_t slot = 0; slot < NR_SLOTS; slot++) {
		lru->insert(ev, slot, &root, slot);
		order[slot] = slot;
	}
	for (unsigned step = 0; step < 2000; step++) {
		const uint32_t first = rand_next(&rng) % NR_SLOTS, by = 1 + rand_next(&rng) % 2;
		const uint32_t len = 1 + rand_next(&rng) % 64, where = rand_next(&rng) % 3;
		unsigned nr = 0;

		/* neighbours by number, or by age; one in eight is left out */
		for (uint32_t i = first; i < NR_SLOTS && nr < len; i += by)
			if (rand_next(&rng) % 8 || where)
				slots[nr++] = where == 2 ? order[i] : i;
		lru->touch(ev, slots, nr, NR_SLOTS + step);
		order_touch(order, slots, nr);
		if (step % 50)
			continue;
		/* the newest alone may go: all others are parked on the way to it */
		lru->candidate_add(ev, order[NR_SLOTS - 1]);
		assert_int_equal(lru->evict(ev, NR_SLOTS + step), order[NR_SLOTS - 1]);
		lru->insert(ev, order[NR_SLOTS - 1], &root, NR_SLOTS + step);
		/* and are touched in the order that they had */
		lru->touch(ev, order, NR_SLOTS, NR_SLOTS + step);
	}
	for (uint32_t slot = 0; slot < NR_SLOTS; slot++)
		lru->candidate_add(ev, slot);
	for (unsigned i = 0; i < NR_SLOTS; i++)
		assert_int_equal(lru->evict(ev, NR_SLOTS * 100), order[i]);
	lru->destroy(ev);
}

static uint64_t key_of(uint64_t seed, uint32_t nr)
{
	uint64_t state = seed << 32 | nr;

	return rand_next(&state);
}

/* a chain of @len in as many slots from @first on, and its end may go */
static void chain_insert(const struct wfi_evict_policy *policy, struct wfi_evict *ev, uint64_t seed,
			 uint32_t first, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		const struct wfi_evict_info info = {
			.key_hash = key_of(seed, first + i),
			.depth = i,
			.chain_len = len,
			.parent = i ? first + i - 1 : WFI_SLOT_NONE,
		};

		policy->insert(ev, first + i, &info, 1);
	}
	policy->candidate_add(ev, first + len - 1);
}

/* Return: the slot of the victim, whose parent, if above @first, may go next */
static uint32_t chain_evict(const struct wfi_evict_policy *policy, struct wfi_evict *ev,
			    uint32_t first)
{
	const uint32_t slot = policy->evict(ev, 1);

	if (slot > first)
		policy->candidate_add(ev, slot - 1);
	return slot;
}

/*
 * Eight blocks were evicted and come again, three new ones below them: these are the next turn of
 * someone, not the first one of eleven, and worth more than three blocks of a stranger
 */
static void test_gittins_returns(void **state)
{
	const struct wfi_evict_policy *gittins = wfi_evict_find("gittins");

	(void)state;
	for (uint64_t seed = 0; seed < 16; seed++) {
		struct test_env te = env_make();
		struct wfi_evict *ev;
		uint32_t ends;

		assert_int_equal(gittins->create(&te.env, NR_SLOTS, 1, &ev), 0);
		chain_insert(gittins, ev, seed, 0, 8);
		for (uint32_t i = 8; i-- > 0;)
			assert_int_equal(chain_evict(gittins, ev, 0), i);
		/* what is evicted is remembered some evictions later */
		for (uint32_t i = 100; i < 116; i++) {
			chain_insert(gittins, ev, seed, i, 1);
			assert_int_equal(chain_evict(gittins, ev, i), i);
		}
		chain_insert(gittins, ev, seed, 0, 11);
		chain_insert(gittins, ev, seed, 200, 3);
		ends = chain_evict(gittins, ev, 0);
		ends += chain_evict(gittins, ev, 0);
		assert_int_equal(ends, 10 + 202);
		assert_int_equal(chain_evict(gittins, ev, 0), 201);
		assert_int_equal(chain_evict(gittins, ev, 200), 200);
		assert_int_equal(chain_evict(gittins, ev, 0), 9);
		gittins->destroy(ev);
		assert_int_equal(te.used, 0);
	}
}

/* of chains of two blocks, the heads in slots that ten divides. Return: the victim's slot */
static uint32_t pair_evict(const struct wfi_evict_policy *policy, struct wfi_evict *ev)
{
	const uint32_t slot = policy->evict(ev, 1);

	assert_int_not_equal(slot, WFI_SLOT_NONE);
	if (slot % 10)
		policy->candidate_add(ev, slot - 1);
	return slot;
}

/*
 * Three pairs of blocks are used, evicted, and come again: the first once, the second three times,
 * of the third the head once and what is below it three times. No block is used more often than
 * its parent, so that the third pair is like the first, not like the second
 */
static void test_gittins_parent(void **state)
{
	static const uint32_t order[] = { 21, 20, 1, 0, 11, 10 };
	static const unsigned uses[] = { 1, 3, 3 };
	const struct wfi_evict_policy *gittins = wfi_evict_find("gittins");

	(void)state;
	for (uint64_t seed = 0; seed < 16; seed++) {
		struct test_env te = env_make();
		struct wfi_evict *ev;

		assert_int_equal(gittins->create(&te.env, NR_SLOTS, 1, &ev), 0);
		for (uint32_t i = 0; i < WFI_ARRAY_SIZE(uses); i++) {
			const uint32_t pair[] = { 10 * i + 1, 10 * i };

			chain_insert(gittins, ev, seed, 10 * i, 2);
			for (unsigned n = 0; n < uses[i]; n++)
				gittins->touch(ev, pair, i == 2 && n ? 1 : 2, 1);
		}
		for (unsigned i = 0; i < WFI_ARRAY_SIZE(order); i++)
			pair_evict(gittins, ev);
		/* what is evicted is remembered some evictions later */
		for (uint32_t i = 100; i < 116; i++) {
			chain_insert(gittins, ev, seed, i, 1);
			assert_int_equal(chain_evict(gittins, ev, i), i);
		}
		for (uint32_t i = 0; i < WFI_ARRAY_SIZE(uses); i++)
			chain_insert(gittins, ev, seed, 10 * i, 2);
		/* among equals the latest first */
		for (unsigned i = 0; i < WFI_ARRAY_SIZE(order); i++)
			assert_int_equal(pair_evict(gittins, ev), order[i]);
		gittins->destroy(ev);
		assert_int_equal(te.used, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_contract),
		cmocka_unit_test(test_all_used),
		cmocka_unit_test(test_removed),
		cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_lru_order),
		cmocka_unit_test(test_lru_chains),
		cmocka_unit_test(test_gittins_returns),
		cmocka_unit_test(test_gittins_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
