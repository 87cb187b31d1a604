/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "perf/trace_sim.h"
#include "perf/trace_belady.h"
#include "weft_internal/util.h"

#define REFS_MAX (1ull << 31)

struct request {
	uint64_t now_ns;
	uint64_t first; /* in refs */
	uint64_t nr_tokens;
	uint32_t nr;
};

/* a growing array; nothing is freed but all at once */
struct vec {
	void *items;
	uint64_t nr;
	uint64_t room;
};

struct wfi_tsim {
	struct wfi_env *env;
	uint32_t block_tokens;
	struct vec requests; /* struct request */
	struct vec refs; /* uint32_t, block numbers: distinct ids in order of arrival */
	struct vec ids; /* uint64_t by block number */
	uint32_t *table; /* block number + 1 by hash of the id; a power of two, at most half full */
	uint64_t table_len;
};

/* splitmix64 */
static uint64_t mix(uint64_t v)
{
	v += 0x9e3779b97f4a7c15;
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9;
	v = (v ^ (v >> 27)) * 0x94d049bb133111eb;
	return v ^ (v >> 31);
}

static int vec_reserve(struct wfi_env *env, struct vec *vec, uint64_t more, size_t size)
{
	uint64_t room = vec->room ? vec->room : 1024;
	void *items;

	if (vec->nr + more <= vec->room)
		return 0;
	while (room < vec->nr + more)
		room *= 2;
	items = wfi_alloc(env, room * size);
	if (!items)
		return -ENOMEM;
	if (vec->items) {
		memcpy(items, vec->items, vec->nr * size);
		wfi_free(env, vec->items, vec->room * size);
	}
	vec->items = items;
	vec->room = room;
	return 0;
}

static void vec_fini(struct wfi_env *env, struct vec *vec, size_t size)
{
	if (vec->items)
		wfi_free(env, vec->items, vec->room * size);
}

int wfi_tsim_create(struct wfi_env *env, uint32_t block_tokens, struct wfi_tsim **out)
{
	struct wfi_tsim *sim = wfi_alloc(env, sizeof(*sim));

	if (!sim)
		return -ENOMEM;
	sim->env = env;
	sim->block_tokens = block_tokens;
	*out = sim;
	return 0;
}

void wfi_tsim_destroy(struct wfi_tsim *sim)
{
	struct wfi_env *env;

	if (!sim)
		return;
	env = sim->env;
	vec_fini(env, &sim->requests, sizeof(struct request));
	vec_fini(env, &sim->refs, sizeof(uint32_t));
	vec_fini(env, &sim->ids, sizeof(uint64_t));
	if (sim->table)
		wfi_free(env, sim->table, sim->table_len * sizeof(*sim->table));
	wfi_free(env, sim, sizeof(*sim));
}

static uint32_t *table_find(const struct wfi_tsim *sim, uint64_t id)
{
	const uint64_t *ids = sim->ids.items;
	uint64_t at = mix(id) & (sim->table_len - 1);

	while (sim->table[at] && ids[sim->table[at] - 1] != id)
		at = (at + 1) & (sim->table_len - 1);
	return &sim->table[at];
}

static int table_reserve(struct wfi_tsim *sim, uint64_t more)
{
	uint64_t old_len = sim->table_len;
	uint64_t len = old_len ? old_len : 4096;
	uint32_t *old = sim->table;
	uint32_t *table;

	while (len < 2 * (sim->ids.nr + more))
		len *= 2;
	if (len == old_len)
		return 0;
	table = wfi_alloc(sim->env, len * sizeof(*table));
	if (!table)
		return -ENOMEM;
	sim->table = table;
	sim->table_len = len;
	for (uint64_t i = 0; i < sim->ids.nr; i++)
		*table_find(sim, ((uint64_t *)sim->ids.items)[i]) = (uint32_t)i + 1;
	if (old)
		wfi_free(sim->env, old, old_len * sizeof(*old));
	return 0;
}

int wfi_tsim_add(struct wfi_tsim *sim, uint64_t now_ns, const uint64_t *ids, uint32_t nr,
		 uint64_t nr_tokens)
{
	const struct request *last = sim->requests.items;
	struct request *req;

	if (sim->requests.nr && now_ns < last[sim->requests.nr - 1].now_ns)
		return -EINVAL;
	if (sim->refs.nr + nr > REFS_MAX)
		return -EOVERFLOW;
	if (vec_reserve(sim->env, &sim->requests, 1, sizeof(struct request)) ||
	    vec_reserve(sim->env, &sim->refs, nr, sizeof(uint32_t)) ||
	    vec_reserve(sim->env, &sim->ids, nr, sizeof(uint64_t)) || table_reserve(sim, nr))
		return -ENOMEM;
	req = (struct request *)sim->requests.items + sim->requests.nr++;
	*req = (struct request){
		.now_ns = now_ns,
		.first = sim->refs.nr,
		.nr_tokens = nr_tokens,
		.nr = nr,
	};
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t *at = table_find(sim, ids[i]);

		if (!*at) {
			((uint64_t *)sim->ids.items)[sim->ids.nr++] = ids[i];
			*at = (uint32_t)sim->ids.nr;
		}
		((uint32_t *)sim->refs.items)[sim->refs.nr++] = *at - 1;
	}
	return 0;
}

int wfi_tsim_set_time(struct wfi_tsim *sim, uint64_t request, uint64_t now_ns)
{
	struct request *reqs = sim->requests.items;

	if (request >= sim->requests.nr)
		return -ERANGE;
	if (request && now_ns < reqs[request - 1].now_ns)
		return -EINVAL;
	reqs[request].now_ns = now_ns;
	return 0;
}

uint64_t wfi_tsim_nr_requests(const struct wfi_tsim *sim)
{
	return sim->requests.nr;
}

uint64_t wfi_tsim_nr_blocks(const struct wfi_tsim *sim)
{
	return sim->ids.nr;
}

/* ---- playing ---- */

struct slot {
	uint32_t block;
	uint32_t parent; /* slot; WFI_SLOT_NONE: a root, or nothing before it was kept */
	uint32_t nr_children;
	bool pinned;
};

struct cache {
	const struct wfi_tsim *sim;
	const struct wfi_evict_policy *policy;
	struct wfi_evict *ev;
	bool future; /* the policy is Belady's: time is the request's number, hashes are blocks */
	uint32_t nr_slots;
	uint32_t nr_used;
	uint32_t nr_free;
	struct slot *slots;
	uint32_t *free_slots;
	uint32_t *where; /* slot + 1 by block; 0: not held */
	uint32_t *chain; /* slots of the request, deepest first once it is matched */
	struct wfi_tsim_result res;
};

static uint32_t longest_chain(const struct wfi_tsim *sim)
{
	const struct request *reqs = sim->requests.items;
	uint32_t max = 1;

	for (uint64_t i = 0; i < sim->requests.nr; i++)
		max = reqs[i].nr > max ? reqs[i].nr : max;
	return max;
}

static void cache_fini(struct cache *c)
{
	struct wfi_env *env = c->sim->env;

	if (c->slots)
		wfi_free(env, c->slots, c->nr_slots * sizeof(*c->slots));
	if (c->free_slots)
		wfi_free(env, c->free_slots, c->nr_slots * sizeof(*c->free_slots));
	if (c->where)
		wfi_free(env, c->where, (c->sim->ids.nr + 1) * sizeof(*c->where));
	if (c->chain)
		wfi_free(env, c->chain, longest_chain(c->sim) * sizeof(*c->chain));
}

static int cache_init(struct cache *c, const struct wfi_tsim *sim, uint32_t nr_slots)
{
	struct wfi_env *env = sim->env;

	memset(c, 0, sizeof(*c));
	c->sim = sim;
	c->nr_slots = nr_slots;
	c->slots = wfi_alloc(env, nr_slots * sizeof(*c->slots));
	c->free_slots = wfi_alloc(env, nr_slots * sizeof(*c->free_slots));
	c->where = wfi_alloc(env, (sim->ids.nr + 1) * sizeof(*c->where));
	c->chain = wfi_alloc(env, longest_chain(sim) * sizeof(*c->chain));
	if (c->slots && c->free_slots && c->where && c->chain)
		return 0;
	cache_fini(c);
	return -ENOMEM;
}

static void candidate_update(struct cache *c, uint32_t slot)
{
	if (!c->slots[slot].nr_children && !c->slots[slot].pinned)
		c->policy->candidate_add(c->ev, slot);
}

static uint32_t slot_take(struct cache *c, uint64_t now_ns)
{
	uint32_t slot, parent;

	if (c->nr_used < c->nr_slots)
		return c->nr_used++;
	slot = c->policy->evict(c->ev, now_ns);
	if (slot == WFI_SLOT_NONE)
		return slot;
	c->res.nr_evicts++;
	c->where[c->slots[slot].block] = 0;
	parent = c->slots[slot].parent;
	if (parent != WFI_SLOT_NONE) {
		c->slots[parent].nr_children--;
		candidate_update(c, parent);
	}
	return slot;
}

/* pins the prefix that is held, and touches it. Return: its length */
static uint32_t match(struct cache *c, const uint32_t *blocks, uint32_t nr, uint64_t now_ns)
{
	uint32_t *chain = c->chain;
	uint32_t n = 0;

	while (n < nr && c->where[blocks[n]])
		n++;
	for (uint32_t i = 0; i < n; i++) {
		chain[i] = c->where[blocks[n - 1 - i]] - 1;
		c->slots[chain[i]].pinned = true;
	}
	if (!n)
		return 0;
	c->policy->touch(c->ev, chain, n, now_ns);
	if (!c->slots[chain[0]].nr_children)
		c->policy->candidate_del(c->ev, chain[0]);
	return n;
}

static uint64_t block_hash(const struct cache *c, uint32_t block)
{
	return c->future ? block : mix(((uint64_t *)c->sim->ids.items)[block]);
}

static void play_request(struct cache *c, const struct request *req, uint64_t now_ns)
{
	const uint32_t *blocks = (uint32_t *)c->sim->refs.items + req->first;
	uint32_t held = match(c, blocks, req->nr, now_ns);
	uint32_t parent = held ? c->chain[0] : WFI_SLOT_NONE;
	uint32_t n;

	c->res.nr_refs += req->nr;
	c->res.nr_hits += held;
	c->res.nr_tokens += req->nr_tokens;
	c->res.nr_hit_tokens += wfi_min((uint64_t)held * c->sim->block_tokens, req->nr_tokens);
	for (n = held; n < req->nr; n++) {
		struct wfi_evict_info info = {
			.key_hash = block_hash(c, blocks[n]),
			.depth = n,
			.chain_len = req->nr,
			.parent = parent,
		};
		uint32_t slot;

		/* an id that comes twice in a chain, or under two parents */
		if (c->where[blocks[n]])
			break;
		slot = slot_take(c, now_ns);
		if (slot == WFI_SLOT_NONE)
			break;
		c->slots[slot] =
			(struct slot){ .block = blocks[n], .parent = parent, .pinned = true };
		if (parent != WFI_SLOT_NONE)
			c->slots[parent].nr_children++;
		c->where[blocks[n]] = slot + 1;
		c->policy->insert(c->ev, slot, &info, now_ns);
		c->res.nr_inserts++;
		parent = slot;
	}
	while (n--) {
		uint32_t slot = c->where[blocks[n]] - 1;

		c->slots[slot].pinned = false;
		candidate_update(c, slot);
	}
}

static int play(struct cache *c, struct wfi_env *env, uint64_t seed, uint64_t first, uint64_t end,
		struct wfi_tsim_result *out)
{
	const struct request *reqs = c->sim->requests.items;
	int ret;

	ret = c->policy->create(env, c->nr_slots, seed, &c->ev);
	if (ret < 0)
		return ret;
	for (uint64_t i = first; i < end; i++)
		play_request(c, &reqs[i], c->future ? i : reqs[i].now_ns);
	c->res.policy_bytes = c->policy->bytes(c->ev);
	c->policy->destroy(c->ev);
	*out = c->res;
	return 0;
}

static int play_any(const struct wfi_tsim *sim, const struct wfi_evict_policy *policy,
		    struct wfi_env *env, uint32_t nr_slots, uint64_t seed, uint64_t first,
		    uint64_t end, struct wfi_tsim_result *out)
{
	struct cache c;
	int ret;

	if (first > end || end > sim->requests.nr)
		return -ERANGE;
	if (!nr_slots)
		return -EINVAL;
	ret = cache_init(&c, sim, nr_slots);
	if (ret < 0)
		return ret;
	c.policy = policy;
	c.future = policy == &wfi_tsim_belady;
	ret = play(&c, env, seed, first, end, out);
	cache_fini(&c);
	return ret;
}

int wfi_tsim_play(const struct wfi_tsim *sim, const struct wfi_evict_policy *policy,
		  uint32_t nr_slots, uint64_t seed, uint64_t first, uint64_t end,
		  struct wfi_tsim_result *out)
{
	return play_any(sim, policy, sim->env, nr_slots, seed, first, end, out);
}

/* counting sort of the references by block; @first has a place more than there are blocks */
static void future_fill(const struct wfi_tsim *sim, uint64_t *first, uint32_t *uses)
{
	const struct request *reqs = sim->requests.items;
	const uint32_t *refs = sim->refs.items;

	for (uint64_t i = 0; i < sim->refs.nr; i++)
		first[refs[i] + 1]++;
	for (uint64_t b = 1; b <= sim->ids.nr; b++)
		first[b] += first[b - 1];
	for (uint64_t i = 0; i < sim->requests.nr; i++) {
		for (uint32_t n = 0; n < reqs[i].nr; n++)
			uses[first[refs[reqs[i].first + n]]++] = (uint32_t)i;
	}
	memmove(first + 1, first, sim->ids.nr * sizeof(*first));
	first[0] = 0;
}

int wfi_tsim_play_belady(const struct wfi_tsim *sim, uint32_t nr_slots, uint64_t first,
			 uint64_t end, struct wfi_tsim_result *out)
{
	struct wfi_tsim_future future = { .env = *sim->env, .nr_blocks = sim->ids.nr };
	uint64_t *starts = wfi_alloc(sim->env, (sim->ids.nr + 1) * sizeof(*starts));
	uint32_t *uses = wfi_alloc(sim->env, (sim->refs.nr + 1) * sizeof(*uses));
	int ret = -ENOMEM;

	if (starts && uses) {
		future_fill(sim, starts, uses);
		future.first = starts;
		future.uses = uses;
		ret = play_any(sim, &wfi_tsim_belady, &future.env, nr_slots, 0, first, end, out);
	}
	if (starts)
		wfi_free(sim->env, starts, (sim->ids.nr + 1) * sizeof(*starts));
	if (uses)
		wfi_free(sim->env, uses, (sim->refs.nr + 1) * sizeof(*uses));
	return ret;
}
