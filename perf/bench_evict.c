/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_evict.c - what an eviction policy costs by itself, beside LRU
 *
 * A full cache without index or bytes: chains, whose prefixes are used again, and new ones that
 * evict old blocks, leaf first. One operation is a block used, or one published with the eviction
 * that makes its room. Each policy sees the same requests; what is evicted is its own choice.
 *
 * The cache around the policy would cost more than the policy. So its calls are recorded on one
 * instance, and a second one, which is equal and thus decides alike, takes them again for the time.
 *
 * The cases of `kv` are of the same requests to the KV manager, with each policy: index, tree,
 * headers and policy together, as a node meets them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "perf/kv_rig.h"
#include "perf/perf.h"
#include "perf/rig.h"
#include "weft_internal/env.h"
#include "weft_internal/evict.h"
#include "weft_internal/util.h"

#define CHAIN 24u
#define OPS (1u << 20) /* of a round */
#define KV_SPARE (1u << 20) /* spaces take blocks in steps of half a million */
#define OP_WORDS 13u /* of the record, at most */
#define AHEAD 16u /* blocks: what a policy remembers of them is asked for, as the KV manager does */
#define STEP_NS (100 * WFI_NSEC_PER_MSEC) /* of the policy's clock, from chain to chain */

enum call { CALL_TOUCH, CALL_PREFETCH, CALL_INSERT, CALL_ADD, CALL_DEL, CALL_EVICT, CALL_STEP };

struct cache {
	const struct wfi_evict_policy *policy;
	struct wfi_evict *first; /* decides */
	struct wfi_evict *second; /* is measured */
	uint32_t nr_slots;
	uint32_t chain; /* blocks of a chain */
	uint32_t nr_chains;
	uint32_t nr_used;
	uint32_t nr_ops;
	uint32_t *slots; /* chain * blocks of a chain + depth: its slot, while it is held */
	uint32_t *held; /* blocks of each chain that are held, from its head on */
	uint32_t *place; /* by slot, in slots */
	uint64_t turn;
	uint64_t now_ns;
	uint64_t replay_ns;
	uint32_t *record;
	uint32_t nr_record;
};

static void record(struct cache *c, uint32_t word)
{
	c->record[c->nr_record++] = word;
}

static void candidate(struct cache *c, enum call call, uint32_t slot)
{
	record(c, call);
	record(c, slot);
	if (call == CALL_ADD)
		c->policy->candidate_add(c->first, slot);
	else
		c->policy->candidate_del(c->first, slot);
}

static uint32_t make_room(struct cache *c)
{
	uint32_t slot, chain;

	if (c->nr_used < c->nr_slots)
		return c->nr_used++;
	record(c, CALL_EVICT);
	slot = c->policy->evict(c->first, c->now_ns);
	chain = c->place[slot] / c->chain;
	if (--c->held[chain])
		candidate(c, CALL_ADD, c->slots[c->place[slot] - 1]);
	return slot;
}

static void touch(struct cache *c, const uint32_t *slots, uint32_t nr)
{
	uint32_t deepest_first[CHAIN];

	record(c, CALL_TOUCH);
	record(c, nr);
	for (uint32_t i = 0; i < nr; i++) {
		deepest_first[i] = slots[nr - 1 - i];
		record(c, deepest_first[i]);
	}
	c->policy->touch(c->first, deepest_first, nr, c->now_ns);
	candidate(c, CALL_DEL, deepest_first[0]);
}

static uint32_t hash_of(uint32_t chain, uint32_t depth)
{
	return (uint32_t)wfi_perf_rand(((uint64_t)chain << 8) + depth);
}

static void prefetch(struct cache *c, uint32_t chain, uint32_t depth)
{
	record(c, CALL_PREFETCH);
	record(c, depth);
	record(c, hash_of(chain, depth));
}

static void insert(struct cache *c, uint32_t slot, const struct wfi_evict_info *info)
{
	record(c, CALL_INSERT);
	record(c, slot);
	record(c, (uint32_t)info->key_hash);
	record(c, info->depth);
	record(c, info->parent);
	c->policy->insert(c->first, slot, info, c->now_ns);
}

/* what is held of the chain is used, and the rest published. Return: operations */
static uint32_t request(struct cache *c, uint32_t chain)
{
	uint32_t *slots = &c->slots[chain * c->chain];
	uint32_t n = c->held[chain], ahead = n;

	if (n)
		touch(c, slots, n);
	for (; n < c->chain; n++) {
		const struct wfi_evict_info info = {
			.key_hash = hash_of(chain, n),
			.depth = n,
			.chain_len = c->chain,
			.parent = n ? slots[n - 1] : WFI_SLOT_NONE,
		};

		for (; ahead < c->chain && ahead < n + AHEAD; ahead++)
			prefetch(c, chain, ahead);
		slots[n] = make_room(c);
		c->place[slots[n]] = chain * c->chain + n;
		c->held[chain] = n + 1;
		insert(c, slots[n], &info);
	}
	candidate(c, CALL_ADD, slots[n - 1]);
	record(c, CALL_STEP);
	c->now_ns += STEP_NS;
	return c->chain;
}

static const uint32_t *replay_insert(struct cache *c, const uint32_t *at)
{
	const struct wfi_evict_info info = {
		.key_hash = at[1],
		.depth = at[2],
		.chain_len = c->chain,
		.parent = at[3],
	};

	c->policy->insert(c->second, at[0], &info, c->replay_ns);
	return at + 4;
}

static void replay(struct cache *c)
{
	const struct wfi_evict_policy *policy = c->policy;
	const uint32_t *at = c->record, *end = at + c->nr_record;

	while (at < end) {
		switch ((enum call) * at++) {
		case CALL_TOUCH:
			policy->touch(c->second, at + 1, at[0], c->replay_ns);
			at += 1 + at[0];
			break;
		case CALL_PREFETCH:
			policy->prefetch(c->second, at[0], at[1]);
			at += 2;
			break;
		case CALL_INSERT:
			at = replay_insert(c, at);
			break;
		case CALL_ADD:
			policy->candidate_add(c->second, *at++);
			break;
		case CALL_DEL:
			policy->candidate_del(c->second, *at++);
			break;
		case CALL_EVICT:
			wfi_perf_use(policy->evict(c->second, c->replay_ns));
			break;
		case CALL_STEP:
			c->replay_ns += STEP_NS;
			break;
		}
	}
}

/* two of three come from the third of the chains that are used most */
static uint32_t next_chain(uint64_t *turn, uint32_t many)
{
	const uint64_t r = wfi_perf_rand((*turn)++);
	const uint32_t few = many / 3 + 1;

	return (uint32_t)((r >> 32) % 3 ? (uint32_t)r % few : (uint32_t)r % many);
}

static int round_ns(void *ctx, double *ns)
{
	struct cache *c = ctx;
	uint64_t start_ns;
	uint32_t done = 0;

	c->nr_record = 0;
	while (done < c->nr_ops)
		done += request(c, next_chain(&c->turn, c->nr_chains));
	start_ns = wfi_perf_now_ns();
	replay(c);
	*ns = (double)(wfi_perf_now_ns() - start_ns) / done;
	return 0;
}

static void cache_close(struct cache *c)
{
	c->policy->destroy(c->first);
	c->policy->destroy(c->second);
	free(c->slots);
	free(c->held);
	free(c->place);
	free(c->record);
}

static int cache_open(struct cache *c, struct wfi_env *env, const struct wfi_evict_policy *policy,
		      uint32_t nr_slots, uint32_t chain)
{
	const uint32_t nr_chains = nr_slots / chain * 2;
	int ret = -ENOMEM;

	*c = (struct cache){
		.policy = policy,
		.nr_slots = nr_slots,
		.chain = chain,
		.nr_chains = nr_chains,
		.nr_ops = OPS,
		.slots = calloc((size_t)nr_chains * chain, sizeof(uint32_t)),
		.held = calloc(nr_chains, sizeof(uint32_t)),
		.place = calloc(nr_slots, sizeof(uint32_t)),
		.record = calloc((size_t)(OPS + CHAIN) * OP_WORDS + 64, sizeof(uint32_t)),
	};
	if (c->slots && c->held && c->place && c->record)
		ret = policy->create(env, nr_slots, 1, &c->first);
	if (!ret)
		ret = policy->create(env, nr_slots, 1, &c->second);
	if (ret) {
		cache_close(c);
		return wfi_perf_fail(ret, "evict: no memory for %u slots", nr_slots);
	}
	/* full, and the classes known */
	for (uint32_t done = 0; done < 3 * nr_slots; done += OPS) {
		double ns;

		round_ns(c, &ns);
	}
	return 0;
}

static int compare(const struct wfi_perf *p, struct wfi_env *env, uint32_t nr_slots, uint32_t chain)
{
	const char *const names[] = { wfi_evict_policies[0]->name, "lru" };
	struct cache caches[WFI_ARRAY_SIZE(names)];
	struct wfi_perf_side sides[WFI_ARRAY_SIZE(names)];
	unsigned nr = 0;
	char label[64];
	int ret = 0;

	snprintf(label, sizeof(label), chain > 1 ? "touch_evict_%u" : "touch_evict_flat_%u",
		 nr_slots);
	for (; nr < WFI_ARRAY_SIZE(names) && !ret; nr++) {
		ret = cache_open(&caches[nr], env, wfi_evict_find(names[nr]), nr_slots, chain);
		if (ret)
			break;
		if (p->quick)
			caches[nr].nr_ops /= 16;
		sides[nr] = (struct wfi_perf_side){ nr ? names[nr] : NULL, round_ns, &caches[nr],
						    NULL };
	}
	if (!ret)
		ret = wfi_perf_compare(p, &(struct wfi_perf_case){ "evict", label, "ns", false },
				       sides, nr);
	while (nr--)
		cache_close(&caches[nr]);
	return ret;
}

/* ---- in the KV manager ---- */

struct node {
	struct wfi_perf_kv kv;
	struct wfi_space_info space;
	uint32_t chain;
	uint32_t nr_chains;
	uint32_t nr_ops;
	uint64_t turn;
};

static int node_round_ns(void *ctx, double *ns)
{
	struct node *n = ctx;
	struct weft_key keys[CHAIN];
	const uint64_t start_ns = wfi_perf_now_ns();
	uint32_t done;
	int ret = 0;

	for (done = 0; done < n->nr_ops && !ret; done += n->chain) {
		wfi_perf_keys(keys, (uint64_t)next_chain(&n->turn, n->nr_chains) * n->chain,
			      n->chain);
		ret = wfi_perf_kv_request(&n->kv, n->space.id, keys, n->chain);
	}
	*ns = (double)(wfi_perf_now_ns() - start_ns) / done;
	return ret;
}

/* Return: 0, -errno (said); to be closed in any case */
static int node_open(struct node *n, const struct wfi_evict_policy *policy, uint32_t nr_slots,
		     uint32_t chain)
{
	int ret = wfi_perf_kv_open_with(&n->kv, policy, nr_slots + KV_SPARE);
	double ns;

	n->chain = chain;
	n->nr_chains = nr_slots / chain * 2;
	n->nr_ops = OPS;
	if (!ret)
		ret = wfi_perf_kv_space(&n->kv, "evict", nr_slots, &n->space);
	/* full, and the classes known */
	for (uint32_t done = 0; done < 3 * nr_slots && !ret; done += OPS)
		ret = node_round_ns(n, &ns);
	wfi_perf_kv_settle(&n->kv);
	return ret;
}

static int compare_in_kv(const struct wfi_perf *p, uint32_t nr_slots, uint32_t chain)
{
	const char *const names[] = { wfi_evict_policies[0]->name, "lru" };
	static struct node nodes[WFI_ARRAY_SIZE(names)];
	struct wfi_perf_side sides[WFI_ARRAY_SIZE(names)];
	unsigned nr = 0;
	char label[64];
	int ret = 0;

	snprintf(label, sizeof(label), chain > 1 ? "kv_%u" : "kv_flat_%u", nr_slots);
	while (nr < WFI_ARRAY_SIZE(names) && !ret) {
		ret = node_open(&nodes[nr], wfi_evict_find(names[nr]), nr_slots, chain);
		if (p->quick)
			nodes[nr].nr_ops /= 16;
		sides[nr] = (struct wfi_perf_side){ nr ? names[nr] : NULL, node_round_ns,
						    &nodes[nr], NULL };
		nr++;
	}
	if (!ret)
		ret = wfi_perf_compare(p, &(struct wfi_perf_case){ "evict", label, "ns", false },
				       sides, nr);
	while (nr--)
		wfi_perf_kv_close(&nodes[nr].kv);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct wfi_env env;
	int ret;

	(void)nr_args;
	(void)args;
	ret = wfi_env_real_init(&env);
	if (!ret)
		ret = compare(p, &env, 10000, CHAIN);
	if (!ret)
		ret = compare(p, &env, 1000000, CHAIN);
	if (!ret)
		ret = compare(p, &env, 10000, 1);
	if (!ret)
		ret = compare(p, &env, 1000000, 1);
	if (!ret)
		ret = compare_in_kv(p, 10000, CHAIN);
	if (!ret)
		ret = compare_in_kv(p, 1000000, CHAIN);
	if (!ret)
		ret = compare_in_kv(p, 1000000, 1);
	return ret;
}

const struct wfi_perf_bench wfi_perf_evict = {
	.name = "evict",
	.summary = "what the eviction policy costs, by itself and in the KV manager, beside LRU",
	.run = run,
};
