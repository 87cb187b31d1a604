/* SPDX-License-Identifier: Apache-2.0 */
/* pull.c - what is wanted here: looked for, waited for, shared, published */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"

static const uint32_t class_tags[PULL_CLASSES - 1] = { 64, 1024 };

/* ---- pulls ---- */

static size_t pull_bytes(uint32_t nr)
{
	return nr * (sizeof(uint64_t) + 2 + sizeof(struct pull_block));
}

/* small ones are used again and again */
static struct wfi_pull *pull_alloc(struct wfi_cluster *c, uint32_t nr)
{
	struct wfi_pull *pull;
	unsigned class = 0;
	size_t len;
	char *mem;

	while (class < PULL_CLASSES - 1 && nr > class_tags[class])
		class ++;
	pull = c->free_pulls[class];
	if (class < PULL_CLASSES - 1)
		nr = class_tags[class];
	len = sizeof(*pull) + pull_bytes(nr);
	if (pull)
		c->free_pulls[class] = pull->next;
	else
		pull = wfi_alloc(c->o.env, len);
	if (!pull)
		return NULL;
	memset(pull, 0, sizeof(*pull));
	mem = (char *)(pull + 1);
	pull->mem_class = class;
	pull->mem_len = len;
	pull->blocks = (struct pull_block *)mem;
	pull->tags = (uint64_t *)(pull->blocks + nr);
	pull->peers = (uint8_t *)(pull->tags + nr);
	pull->others = pull->peers + nr;
	return pull;
}

static void pull_free(struct wfi_cluster *c, struct wfi_pull *pull)
{
	if (pull->prev)
		pull->prev->next = pull->next;
	else
		c->pulls = pull->next;
	if (pull->next)
		pull->next->prev = pull->prev;
	if (pull->mem_class < PULL_CLASSES - 1) {
		pull->next = c->free_pulls[pull->mem_class];
		c->free_pulls[pull->mem_class] = pull;
	} else {
		wfi_free(c->o.env, pull, pull->mem_len);
	}
}

static void pull_list(struct wfi_cluster *c, struct wfi_pull *pull)
{
	pull->next = c->pulls;
	if (c->pulls)
		c->pulls->prev = pull;
	c->pulls = pull;
}

void wfi_cl_pulls_fini(struct wfi_cluster *c)
{
	struct wfi_pull *pull;
	unsigned class;

	for (class = 0; class < PULL_CLASSES; class ++)
		while ((pull = c->free_pulls[class])) {
			c->free_pulls[class] = pull->next;
			wfi_free(c->o.env, pull, pull->mem_len);
		}
}

/* ---- looking for holders ---- */

/* numbers of nodes: input */
static void runs_take(struct wfi_cluster *c, struct wfi_pull *pull, const union cluster_msg *m)
{
	uint32_t i;

	for (i = 0; i < m->head.nr; i++) {
		const struct cluster_run *r = &m->looked.runs[i];

		if (wfi_range_ok(r->first, r->nr, pull->nr_asked))
			wfi_cl_run_take(pull->peers + pull->at + r->first,
					pull->others + pull->at + r->first, r->nr,
					wfi_cl_run_peer(c, r->node, r->flags & CLUSTER_RUN_SSD),
					wfi_cl_run_peer(c, r->other,
							r->flags & CLUSTER_RUN_OTHER_SSD));
	}
}

/* a run of one holder among all: it goes on where that one's prefix ended, or is of no use there;
 * who has a block in memory is asked before who has to read it first */
static void held_take(struct wfi_cluster *c, struct wfi_pull *pull, const struct cluster_run *r)
{
	const bool ssd = r->flags & CLUSTER_RUN_SSD;
	const uint8_t peer = wfi_cl_run_peer(c, r->node, ssd);
	const uint32_t first = pull->at + r->first;
	struct tally *t;
	uint32_t i;

	if (peer == WFI_PEER_NONE || !wfi_range_ok(r->first, r->nr, pull->nr_asked))
		return;
	t = &pull->tally[cl_peer(peer)];
	if (t->memory + t->ssd == first) {
		t->memory += ssd ? 0 : r->nr;
		t->ssd += ssd ? r->nr : 0;
	}
	for (i = first; i < first + r->nr; i++)
		if (pull->peers[i] == WFI_PEER_NONE || (!ssd && pull->peers[i] & WFI_PEER_SSD))
			pull->peers[i] = peer;
}

static void all_held_take(struct wfi_cluster *c, struct wfi_pull *pull, const union cluster_msg *m)
{
	uint32_t i;

	for (i = 0; i < m->head.nr; i++)
		held_take(c, pull, &m->looked.runs[i]);
}

static void seek_end(struct wfi_cluster *c, struct wfi_pull *pull)
{
	const struct wfi_seek_opts o = pull->seek;
	struct wfi_found found;

	wfi_cl_found(c, pull->peers, pull->nr, pull->space.block_bytes, &found);
	found.partial = pull->partial;
	pull->state = PULL_ENDED;
	o.done(o.ctx, &found);
	wfi_cl_hints_leave(c, pull);
	pull_free(c, pull);
}

/* what the blocks of a pull take, up to one of them */
struct bill {
	uint64_t ns; /* runs of other holders before */
	uint64_t bytes; /* of this one's */
	uint8_t peer;
};

/* Return: whether block @i would come within the budget */
static bool bill_pays(const struct wfi_cluster *c, const struct wfi_pull *pull, uint32_t i,
		      struct bill *bill)
{
	const uint8_t peer = pull->peers[i];
	uint64_t ns;

	if (peer == WFI_PEER_NONE)
		return true;
	if (peer != bill->peer) {
		if (bill->bytes)
			bill->ns += wfi_cl_expected_ns(c, bill->peer, bill->bytes);
		bill->bytes = 0;
		bill->peer = peer;
	}
	bill->bytes += pull->space.block_bytes;
	ns = bill->ns + wfi_cl_expected_ns(c, peer, bill->bytes);
	return c->now_ns + ns <= pull->o.now_ns + pull->o.budget_ns;
}

static uint8_t is_ssd(uint8_t peer)
{
	return peer != WFI_PEER_NONE && peer & WFI_PEER_SSD;
}

static void blocks_begin(struct wfi_cluster *c, struct wfi_pull *pull)
{
	struct bill bill = { .peer = WFI_PEER_NONE };
	bool pays = true;
	uint32_t i;

	pull->state = PULL_FETCH;
	for (i = 0; i < pull->nr; i++) {
		struct pull_block *b = &pull->blocks[pull->nr_blocks];

		if (pull->o.slots[i] != WFI_SLOT_NONE)
			continue;
		if (wfi_unlikely(pull->o.budget_ns))
			pays = pays && bill_pays(c, pull, i, &bill);
		if (!pays) {
			pull->o.results[i] = -ETIME;
			cl_count(c, CL_C_MISSED, 1);
			continue;
		}
		*b = (struct pull_block){
			.pull = pull,
			.idx = i,
			.slot = WFI_SLOT_NONE,
			.dst = pull->o.places ? pull->o.places[i] : NULL,
			.peer = cl_peer(pull->peers[i]),
			.other = cl_peer(pull->others[i]),
			.ssd = is_ssd(pull->peers[i]) | is_ssd(pull->others[i]) << 1,
		};
		pull->nr_blocks++;
	}
	pull->nr_left = pull->nr_idle = pull->nr_blocks;
	if (pull->nr_idle)
		c->nr_waiting++;
	wfi_cl_pull_settle(c, pull);
}

/* all that is to be known of holders is known */
static void seek_over(struct wfi_cluster *c, struct wfi_pull *pull)
{
	uint32_t i;

	if (pull->is_seek) {
		seek_end(c, pull);
		return;
	}
	wfi_cl_hints_leave(c, pull);
	for (i = 0; pull->o.prefix && i < pull->nr; i++)
		if (pull->o.slots[i] == WFI_SLOT_NONE && pull->peers[i] == WFI_PEER_NONE)
			break;
	if (pull->o.prefix) {
		memset(pull->peers + i, WFI_PEER_NONE, pull->nr - i);
		memset(pull->others + i, WFI_PEER_NONE, pull->nr - i);
	}
	blocks_begin(c, pull);
}

/* asks for the next part of the chain. Return: 0, or nothing was begun: -EAGAIN, -ENOTCONN */
static int seek_ask(struct wfi_cluster *c, struct wfi_pull *pull, uint8_t owner)
{
	union cluster_msg m;
	int ret;

	pull->nr_asked = (uint32_t)wfi_min(pull->nr - pull->at, CLUSTER_TAGS_MAX);
	memcpy(m.tags.tags, pull->tags + pull->at, pull->nr_asked * sizeof(uint64_t));
	cluster_msg_head(&m, pull->tally ? CLUSTER_WHO : CLUSTER_LOOKUP, pull->nr_asked, 0);
	ret = wfi_cl_ask(c, ASK_LOOKUP, owner, &m,
			 pull->is_seek ? pull->seek.deadline_ns : pull->o.deadline_ns, pull,
			 &pull->ask);
	if (ret)
		return ret;
	pull->state = PULL_ASKED;
	/* while the answer is on its way, which then finds all that it touches in the cache */
	if (!pull->at)
		wfi_cl_heads_leave(c, pull);
	return 0;
}

/* who has what of a chain whose shard is here */
static void seek_all_here(struct wfi_cluster *c, struct wfi_pull *pull)
{
	union cluster_msg m;

	for (; pull->at < pull->nr; pull->at += pull->nr_asked) {
		pull->nr_asked = (uint32_t)wfi_min(pull->nr - pull->at, CLUSTER_TAGS_MAX);
		wfi_cl_who(c, pull->tags + pull->at, pull->nr_asked, 0, &m);
		all_held_take(c, pull, &m);
	}
}

/* Return: whether nobody has to be asked */
static bool seek_at_once(struct wfi_cluster *c, struct wfi_pull *pull, uint8_t owner)
{
	if (!pull->tally)
		return wfi_cl_look(c, owner, pull->tags, pull->nr, pull->peers, pull->others);
	if (owner == SELF)
		seek_all_here(c, pull);
	return owner == SELF;
}

/* Return: true when it is known by now: a seek is gone then */
static bool seek_begin(struct wfi_cluster *c, struct wfi_pull *pull)
{
	const uint8_t owner = wfi_cl_owner(c, pull->head);
	const bool known = seek_at_once(c, pull, owner);
	const int ret = known ? 0 : seek_ask(c, pull, owner);

	if (known || (ret && ret != -EAGAIN)) {
		pull->partial = ret != 0;
		seek_over(c, pull);
		return true;
	}
	if (ret) {
		pull->state = PULL_SEEK;
		c->nr_waiting++;
	}
	return false;
}

void wfi_cl_looked(struct wfi_cluster *c, struct wfi_pull *pull, const union cluster_msg *m)
{
	uint32_t end = pull->at + pull->nr_asked, i;
	bool more;

	/* an answer to another question */
	if (m && m->head.type != (pull->tally ? CLUSTER_HELD : CLUSTER_LOOKED))
		m = NULL;
	more = m != NULL && end < pull->nr;
	pull->partial = !m;
	if (m && pull->tally)
		all_held_take(c, pull, m);
	else if (m)
		runs_take(c, pull, m);
	/* nobody has all of what was asked for: the chain has ended, most likely */
	for (i = pull->at; more && pull->is_seek && i < end && pull->peers[i] == WFI_PEER_NONE; i++)
		;
	more = more && (!pull->is_seek || i < end);
	if (!more) {
		seek_over(c, pull);
		return;
	}
	pull->at = end;
	seek_begin(c, pull);
}

/* Return: NULL: no memory */
static struct wfi_pull *pull_new(struct wfi_cluster *c, const struct wfi_space_info *space,
				 const struct weft_key *keys, uint32_t from, uint32_t nr,
				 uint32_t head)
{
	struct wfi_pull *pull = pull_alloc(c, nr - from);
	uint32_t i;

	if (!pull)
		return NULL;
	pull->space = *space;
	pull->nr = nr - from;
	pull->head = head;
	pull->state = PULL_ASKED;
	for (i = 0; i < pull->nr; i++)
		__builtin_prefetch(
			cl_hint(c, pull->tags[i] = wfi_block_tag(space->tag, &keys[from + i])), 1);
	memset(pull->peers, WFI_PEER_NONE, pull->nr);
	memset(pull->others, WFI_PEER_NONE, pull->nr);
	pull_list(c, pull);
	cl_count(c, CL_C_SEEKS, 1);
	return pull;
}

int wfi_cluster_seek(struct wfi_cluster *c, const struct wfi_seek_opts *o, struct wfi_pull **out)
{
	return wfi_cl_seek_all(c, o, NULL, out);
}

int wfi_cl_seek_all(struct wfi_cluster *c, const struct wfi_seek_opts *o, struct tally *tally,
		    struct wfi_pull **out)
{
	struct wfi_space_info space;
	struct wfi_pull *pull;

	if (!c->nr_peers || o->from >= o->nr || wfi_kv_space_any(c->o.kv, o->space, &space))
		return -ENOENT;
	c->now_ns = o->now_ns;
	pull = pull_new(c, &space, o->keys, o->from, o->nr,
			wfi_cl_chain_head(c, &space, o->keys, o->nr));
	if (!pull)
		return -ENOMEM;
	pull->is_seek = true;
	pull->seek = *o;
	pull->seek.keys = NULL;
	pull->tally = tally;
	cl_event(c, o->deadline_ns);
	*out = seek_begin(c, pull) ? NULL : pull;
	return 0;
}

int wfi_cluster_pull(struct wfi_cluster *c, const struct wfi_pull_opts *o, struct wfi_pull **out)
{
	struct wfi_space_info space;
	struct wfi_pull *pull;

	if (!c->nr_peers || !o->nr || wfi_kv_space_any(c->o.kv, o->space, &space))
		return -ENOENT;
	c->now_ns = o->now_ns;
	pull = pull_new(c, &space, o->keys, 0, o->nr, wfi_cl_chain_head(c, &space, o->keys, o->nr));
	if (!pull)
		return -ENOMEM;
	pull->o = *o;
	*out = pull;
	cl_event(c, o->deadline_ns);
	if (wfi_cl_hints_suffice(c, pull))
		blocks_begin(c, pull);
	else
		seek_begin(c, pull);
	return 0;
}

int wfi_cl_pull_from(struct wfi_cluster *c, const struct wfi_pull_opts *o, uint8_t peer,
		     uint32_t head, struct wfi_pull **out)
{
	struct wfi_space_info space;
	struct wfi_pull *pull;

	if (wfi_kv_space_any(c->o.kv, o->space, &space))
		return -ENOENT;
	pull = pull_new(c, &space, o->keys, 0, o->nr, head | 1);
	if (!pull)
		return -ENOMEM;
	pull->o = *o;
	wfi_cl_hints_leave(c, pull);
	memset(pull->peers + 1, peer, pull->nr - 1);
	*out = pull;
	cl_event(c, o->deadline_ns);
	blocks_begin(c, pull);
	return 0;
}

/* ---- one fetch of one block ---- */

static struct pull_block **under_of(struct wfi_cluster *c, uint64_t tag)
{
	return &c->under[(tag >> 9) & (NR_UNDER - 1)];
}

static uint64_t block_tag(const struct pull_block *b)
{
	return b->pull->tags[b->idx];
}

static bool same_block(const struct pull_block *a, const struct pull_block *b)
{
	const struct weft_key *x = &a->pull->o.keys[a->idx], *y = &b->pull->o.keys[b->idx];

	return x->lo == y->lo && x->hi == y->hi && a->pull->o.space == b->pull->o.space;
}

/* Return: who fetches the same block already, or NULL */
static struct pull_block *under_find(struct wfi_cluster *c, const struct pull_block *b)
{
	struct pull_block *at;

	for (at = *under_of(c, block_tag(b)); at; at = at->under)
		if (same_block(at, b))
			return at;
	return NULL;
}

static void under_add(struct wfi_cluster *c, struct pull_block *b)
{
	struct pull_block **at = under_of(c, block_tag(b));

	b->under = *at;
	*at = b;
}

static void under_del(struct wfi_cluster *c, const struct pull_block *b)
{
	struct pull_block **at = under_of(c, block_tag(b));

	while (*at && *at != b)
		at = &(*at)->under;
	if (*at)
		*at = b->under;
}

static void block_idle(struct wfi_cluster *c, struct pull_block *b)
{
	b->state = BLOCK_IDLE;
	if (!b->pull->nr_idle++)
		c->nr_waiting++;
}

static void block_busy(struct wfi_cluster *c, struct pull_block *b, enum block_state state)
{
	b->state = (uint8_t)state;
	if (!--b->pull->nr_idle)
		c->nr_waiting--;
}

static void unkeep(struct wfi_cluster *c, struct pull_block *b)
{
	struct weft_slot ref = { .idx = b->slot, .gen = b->gen };

	if (b->slot == WFI_SLOT_NONE)
		return;
	wfi_kv_unpin(c->o.kv, &b->slot, 1);
	wfi_kv_unclaim(c->o.kv,
		       wfi_cl_borrower(c, &c->keepers,
				       wfi_kv_space_tenant(c->o.kv, b->pull->o.space)),
		       &ref, 1);
	b->slot = WFI_SLOT_NONE;
	/* the next try is to find a slot of its own: this one is somebody else's from now on */
	b->dst = NULL;
}

/* @res: 0, -ENOENT, or -ETIME. The block is over for its pull */
static void block_over(struct wfi_cluster *c, struct pull_block *b, int res)
{
	struct wfi_pull *pull = b->pull;

	if (b->state == BLOCK_IDLE)
		block_busy(c, b, BLOCK_OVER);
	b->state = BLOCK_OVER;
	if (res)
		unkeep(c, b);
	else if (b->slot != WFI_SLOT_NONE)
		pull->o.slots[b->idx] = b->slot;
	pull->o.results[b->idx] = res;
	cl_count(c, res ? CL_C_MISSED : CL_C_FETCHED, 1);
	pull->nr_left--;
	wfi_cl_pull_settle(c, pull);
}

/* those that waited for it find their own way */
static void waiters_free(struct wfi_cluster *c, struct pull_block *b)
{
	struct pull_block *w;

	while ((w = b->same)) {
		b->same = w->same;
		w->same = NULL;
		w->leader = NULL;
		block_idle(c, w);
	}
}

static void waiter_leave(struct pull_block *b)
{
	struct pull_block **at = &b->leader->same;

	while (*at != b)
		at = &(*at)->same;
	*at = b->same;
	b->same = NULL;
	b->leader = NULL;
}

/* the holder that is to be asked next, with its tier, or WFI_PEER_NONE */
static uint8_t block_target(const struct wfi_cluster *c, const struct pull_block *b)
{
	if (!(b->tried & 1) && b->peer < NR_PEERS && c->peers[b->peer].nr_conns)
		return b->ssd & 1 ? b->peer | WFI_PEER_SSD : b->peer;
	if (!(b->tried & 2) && b->other < NR_PEERS && c->peers[b->other].nr_conns)
		return b->ssd & 2 ? b->other | WFI_PEER_SSD : b->other;
	return WFI_PEER_NONE;
}

void wfi_cl_block_failed(struct wfi_cluster *c, struct pull_block *b)
{
	struct hint *h = cl_hint(c, block_tag(b));

	if (cl_hint_is_of(h, block_tag(b)))
		h->peer = WFI_PEER_NONE;
	under_del(c, b);
	waiters_free(c, b);
	unkeep(c, b);
	if (b->pull->over || block_target(c, b) == WFI_PEER_NONE)
		block_over(c, b, b->late && b->pull->o.budget_ns ? -ETIME : -ENOENT);
	else
		block_idle(c, b);
}

/* it still comes or fails, some day: until then whoever else wants it has it of another */
void wfi_cl_block_hangs(struct wfi_cluster *c, struct pull_block *b)
{
	under_del(c, b);
	waiters_free(c, b);
}

/* under its key, for all here. Somebody may have put it meanwhile */
static void block_publish(struct wfi_cluster *c, struct pull_block *b)
{
	const struct wfi_pull *pull = b->pull;
	const struct weft_key *key = &pull->o.keys[b->idx];
	struct wfi_owner *owner =
		wfi_cl_borrower(c, &c->keepers, wfi_kv_space_tenant(c->o.kv, pull->o.space));
	const struct weft_slot ref = { .idx = b->slot, .gen = b->gen };
	int32_t res = -ENOMEM;

	c->keeping = true;
	wfi_kv_put(c->o.kv, owner, pull->o.space, b->idx ? key - 1 : NULL, key, &ref, 1, &b->crc,
		   &res, c->now_ns);
	c->keeping = false;
	if (!res) {
		cl_count(c, CL_C_KEPT, 1);
		return;
	}
	unkeep(c, b);
	wfi_kv_lookup(c->o.kv, pull->o.space, key, 1, &b->slot, c->now_ns);
	if (b->slot != WFI_SLOT_NONE)
		wfi_kv_pin(c->o.kv, &b->slot, 1);
}

static void block_done(struct wfi_cluster *c, struct pull_block *b)
{
	const bool kept = b->slot != WFI_SLOT_NONE;

	under_del(c, b);
	if (kept)
		block_publish(c, b);
	block_over(c, b, kept && b->slot == WFI_SLOT_NONE ? -ENOENT : 0);
}

void wfi_cl_block_came(struct wfi_cluster *c, struct pull_block *b, uint32_t crc)
{
	struct hint *h = cl_hint(c, block_tag(b));

	if (cl_hint_is_of(h, block_tag(b)) && h->fetched < UINT8_MAX)
		h->fetched++;
	b->crc = crc;
	if (!b->same) {
		block_done(c, b);
		return;
	}
	/* it stays in the table: who comes now has it as well */
	b->state = BLOCK_SHARED;
	c->nr_shared++;
}

void wfi_cl_keep(struct wfi_cluster *c, struct wfi_pull *pull, struct pull_block **blocks,
		 uint32_t nr)
{
	struct wfi_owner *owner =
		wfi_cl_borrower(c, &c->keepers, wfi_kv_space_tenant(c->o.kv, pull->o.space));
	struct weft_slot slots[CLUSTER_LEASE_MAX];
	uint32_t i;

	if (!owner || wfi_kv_claim(c->o.kv, owner, pull->o.space, nr, slots, c->now_ns) < 0)
		return;
	for (i = 0; i < nr; i++) {
		blocks[i]->slot = slots[i].idx;
		blocks[i]->gen = slots[i].gen;
		blocks[i]->dst = wfi_kv_slot_addr(c->o.kv, slots[i].idx);
		wfi_kv_pin(c->o.kv, &slots[i].idx, 1);
	}
}

/* ---- to those that waited ---- */

/* what lies in the memory of one engine is copied to another's: if it is no more what had come,
 * that one fetches it itself */
static void waiter_serve(struct wfi_cluster *c, struct pull_block *b, struct pull_block *w)
{
	const uint64_t len = b->pull->space.block_bytes;

	waiter_leave(w);
	if (!w->pull->o.places)
		wfi_cl_keep(c, w->pull, &w, 1);
	if (!w->dst) {
		block_idle(c, w);
		block_over(c, w, -ENOENT);
		return;
	}
	if (wfi_crc32c_copy(0, w->dst, b->dst, len, false) != b->crc) {
		unkeep(c, w);
		block_idle(c, w);
		return;
	}
	cl_count(c, CL_C_SHARED, 1);
	w->crc = b->crc;
	if (w->slot != WFI_SLOT_NONE)
		block_publish(c, w);
	block_over(c, w, !w->pull->o.places && w->slot == WFI_SLOT_NONE ? -ENOENT : 0);
}

/* Return: bytes copied of what other pulls wait for */
static uint64_t pull_share(struct wfi_cluster *c, struct wfi_pull *pull, uint64_t budget)
{
	uint64_t bytes = 0;
	uint32_t i;

	for (i = 0; i < pull->nr_blocks && bytes < budget; i++) {
		struct pull_block *b = &pull->blocks[i];

		if (b->state != BLOCK_SHARED)
			continue;
		while (b->same && bytes < budget) {
			waiter_serve(c, b, b->same);
			bytes += pull->space.block_bytes;
		}
		if (b->same)
			continue;
		c->nr_shared--;
		block_done(c, b);
	}
	return bytes;
}

/* ---- beginning what can be begun ---- */

/* Return: blocks that fly from here on, at the same place, one after the other */
static uint32_t launch_run(struct wfi_cluster *c, struct wfi_pull *pull, uint32_t at)
{
	struct pull_block *run[CLUSTER_LEASE_MAX], *leader;
	const uint8_t peer = block_target(c, &pull->blocks[at]);
	const uint64_t max = wfi_min(wfi_max(1, FLIGHT_BYTES / pull->space.block_bytes),
				     pull->o.memory ? wfi_cl_direct_max(pull) : UINT32_MAX);
	uint32_t n = 0, i;
	int ret;

	for (i = at; i < pull->nr_blocks && n < CLUSTER_LEASE_MAX && n < max; i++) {
		struct pull_block *b = &pull->blocks[i];

		if (b->state != BLOCK_IDLE)
			continue;
		/* bytes in memory of a device are copied to nobody */
		leader = pull->o.memory ? NULL : under_find(c, b);
		if (leader) {
			b->leader = leader;
			b->same = leader->same;
			leader->same = b;
			block_busy(c, b, BLOCK_WAIT);
			continue;
		}
		if (block_target(c, b) != peer)
			break;
		run[n++] = b;
		if (!pull->o.memory)
			under_add(c, b);
	}
	if (!n)
		return 1;
	ret = peer == WFI_PEER_NONE ? -ENOTCONN : wfi_cl_fly(c, pull, peer, run, n);
	for (i = 0; i < n; i++) {
		if (!ret) {
			block_busy(c, run[i], BLOCK_FLIES);
			continue;
		}
		under_del(c, run[i]);
		waiters_free(c, run[i]);
		if (ret == -EAGAIN)
			continue;
		run[i]->tried |= (uint8_t)((run[i]->peer == cl_peer(peer)) |
					   (run[i]->other == cl_peer(peer)) << 1);
		if (block_target(c, run[i]) == WFI_PEER_NONE)
			block_over(c, run[i], -ENOENT);
	}
	return ret == -EAGAIN ? 0 : n;
}

/* Return: work */
static int pull_launch(struct wfi_cluster *c, struct wfi_pull *pull)
{
	uint32_t i;
	int work = 0;

	for (i = 0; i < pull->nr_blocks && pull->nr_idle; i++) {
		if (pull->blocks[i].state != BLOCK_IDLE)
			continue;
		if (pull->over) {
			block_over(c, &pull->blocks[i], -ENOENT);
			continue;
		}
		if (!launch_run(c, pull, i))
			break;
		work++;
	}
	return work;
}

/* ---- ends ---- */

void wfi_cl_pull_settle(struct wfi_cluster *c, struct wfi_pull *pull)
{
	if (pull->state != PULL_FETCH || pull->nr_left || pull->nr_flights)
		return;
	pull->state = PULL_ENDED;
	c->nr_ended++;
}

static void pull_end(struct wfi_cluster *c, struct wfi_pull *pull)
{
	const struct wfi_pull_opts o = pull->o;

	wfi_hist_add(c->pull_time, c->now_ns - o.now_ns);
	c->nr_ended--;
	pull_free(c, pull);
	o.done(o.ctx);
}

/* no more is begun; what is under way ends */
static void pull_stop(struct wfi_cluster *c, struct wfi_pull *pull, int res)
{
	uint32_t i;

	pull->over = true;
	pull->end_res = res;
	if (pull->state == PULL_ASKED)
		wfi_cl_unask(c, pull->ask);
	if (pull->state == PULL_SEEK)
		c->nr_waiting--;
	if (pull->is_seek) {
		pull->partial = true;
		seek_end(c, pull);
		return;
	}
	if (pull->state != PULL_FETCH)
		blocks_begin(c, pull);
	wfi_cl_flights_end(c, pull);
	for (i = 0; i < pull->nr_blocks; i++) {
		struct pull_block *b = &pull->blocks[i];

		if (b->state == BLOCK_WAIT)
			waiter_leave(b);
		if (b->state == BLOCK_WAIT || b->state == BLOCK_IDLE)
			block_over(c, b, -ENOENT);
	}
}

void wfi_cluster_cancel(struct wfi_cluster *c, struct wfi_pull *pull)
{
	if (!pull->over && pull->state != PULL_ENDED)
		pull_stop(c, pull, -ECANCELED);
}

void wfi_cl_pulls_expire(struct wfi_cluster *c)
{
	struct wfi_pull *pull, *next;

	for (pull = c->pulls; pull; pull = next) {
		const uint64_t deadline_ns = pull->is_seek ? pull->seek.deadline_ns
							   : pull->o.deadline_ns;

		next = pull->next;
		if (pull->over || pull->state == PULL_ENDED)
			continue;
		if (deadline_ns > c->now_ns)
			cl_event(c, deadline_ns);
		else
			pull_stop(c, pull, -ETIMEDOUT);
	}
}

int wfi_cl_pulls_poll(struct wfi_cluster *c)
{
	struct wfi_pull *pull, *next;
	uint64_t budget = c->o.slice_bytes, used;
	int work = 0;

	for (pull = c->pulls; pull; pull = next) {
		next = pull->next;
		if (pull->state == PULL_SEEK) {
			c->nr_waiting--;
			pull->state = PULL_ASKED;
			seek_begin(c, pull);
			work++;
			continue;
		}
		if (pull->state == PULL_FETCH && pull->nr_left && budget) {
			used = pull_share(c, pull, budget);
			budget -= wfi_min(used, budget);
			work += used != 0;
		}
		if (pull->nr_idle)
			work += pull_launch(c, pull);
		if (pull->state == PULL_ENDED) {
			pull_end(c, pull);
			work++;
		}
	}
	return work;
}
