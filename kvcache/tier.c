/* SPDX-License-Identifier: Apache-2.0 */
/* the mover: blocks between the arena and the tier below it, off the path of every operation */
#include <errno.h>
#include <string.h>
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"
#include "weft_internal/log.h"

#define NR_MOVES 128u /* promotions under way */
#define NR_WRITES 64u /* blocks that are written back */
#define AHEAD 4u /* blocks behind the last one asked for */
#define SPACES_A_POLL 8u
#define BELOW_A_POLL 256u /* slots of the tier, while a space goes */
#define GHOSTS_LOG2 16
#define LOW_SHIFT 4 /* a sixteenth of the slots is kept free, and more for large claims */
#define SHORT_SHIFT 3 /* what claims lacked adds up to an eighth to that */
#define BURST_NS WFI_NSEC_PER_SEC
#define ROOM_NS (10 * WFI_NSEC_PER_MSEC) /* that a fetch waits for room, before others go for it */

struct waiter {
	struct waiter *next;
	struct wfi_fetch *fetch;
	uint32_t idx;
};

enum move_state { MOVE_FREE, MOVE_READING, MOVE_READ };

/* one block on its way up */
struct move {
	struct kv_mover *m;
	enum move_state state;
	bool dropped;
	struct kv_space *space;
	struct wfi_tier_block block;
	struct weft_slot slot;
	struct waiter *waiters;
};

/* one block on its way down */
struct writeback {
	struct kv_mover *m;
	struct writeback *next;
	uint32_t slot;
};

struct wfi_fetch {
	struct wfi_fetch *next, *prev;
	struct wfi_fetch_opts o;
	uint32_t at; /* keys before were looked at */
	uint32_t nr_pending;
	uint64_t room_ns; /* there is no room: others go from then on; 0: there is, or it was not
			   * looked for */
	int res;
};

enum mover_counter {
	C_REFUSED,
	C_LOST,
	C_PROMOTED,
	C_AHEAD,
	C_NOT_PAID,
	C_UNWRITTEN,
	NR_MOVER_COUNTERS
};

struct kv_mover {
	struct wfi_kv *kv;
	struct wfi_tier *tier;
	struct wfi_tier_watch watch;
	struct move moves[NR_MOVES];
	uint32_t nr_moves;
	struct writeback writes[NR_WRITES];
	struct writeback *free_write;
	uint32_t nr_writes;
	struct waiter *free_waiter;
	struct wfi_fetch *fetches;
	uint32_t space_at;
	uint64_t demand_ns; /* when the spaces' demand shrinks next */
	uint64_t write_bps; /* 0: no bound */
	uint64_t tokens, tokens_ns;
	uint32_t ghosts[1u << GHOSTS_LOG2]; /* of blocks that were not worth it the first time */
	struct wfi_counter *count[NR_MOVER_COUNTERS];
	struct wfi_counter scratch[NR_MOVER_COUNTERS];
};

/* ---- down ---- */

/* @tokens grow by @bps bytes a second, and a second of them is the most */
static void tokens_add(uint64_t *tokens, uint64_t *since_ns, uint64_t now_ns, uint64_t bps)
{
	const uint64_t ns = wfi_min(now_ns - *since_ns, BURST_NS);

	*tokens += (uint64_t)((double)bps * (double)ns / (double)WFI_NSEC_PER_SEC);
	*tokens = wfi_min(*tokens, bps);
	*since_ns = now_ns;
}

/*
 * What is worth a write. While half of the budget is unspent, all is. Then what somebody has read
 * while it was here, or what was refused once and has come again; of these each tenant may write
 * its part of the budget, by weight, whatever the others do
 */
static bool worth(struct kv_mover *m, struct wfi_tenant *t, const struct kv_slot *st,
		  const struct weft_key *key, uint64_t len)
{
	const uint32_t print = (uint32_t)(key->lo >> 32) | 1;
	uint32_t *ghost = &m->ghosts[key->hi >> (64 - GHOSTS_LOG2)];
	const uint64_t now_ns = m->kv->now_ns;
	const uint64_t part_bps = m->write_bps / m->kv->weights * t->weight;
	const bool likely = st->used || *ghost == print;

	if (!m->write_bps)
		return true;
	tokens_add(&m->tokens, &m->tokens_ns, now_ns, m->write_bps);
	tokens_add(&t->tier_tokens, &t->tier_tokens_ns, now_ns, part_bps);
	if (m->tokens >= len && (m->tokens > m->write_bps / 2 ||
				 (likely && t->tier_tokens >= wfi_min(len, part_bps)))) {
		m->tokens -= len;
		t->tier_tokens -= wfi_min(t->tier_tokens, len);
		return true;
	}
	*ghost = print;
	wfi_count(m->count[C_REFUSED], 1);
	return false;
}

static void written(void *ctx, int res)
{
	struct writeback *w = ctx;
	struct kv_mover *m = w->m;

	wfi_point(m->kv->env, "writeback.done");
	if (res)
		wfi_count(m->count[C_LOST], 1);
	wfi_slot_unpin(m->kv, w->slot);
	w->slot = WFI_SLOT_NONE;
	w->next = m->free_write;
	m->free_write = w;
	m->nr_writes--;
}

bool wfi_mover_take(struct kv_mover *m, struct kv_run *run, uint32_t slot,
		    const struct weft_key *parent)
{
	struct wfi_kv *kv = m->kv;
	const struct weft_block_header *h = &kv->headers[slot];
	struct writeback *w = m->free_write;
	struct wfi_tier_block b = {
		.key = h->key,
		.parent = *parent,
		.space_tag = h->space_tag,
		.len = (uint32_t)h->len,
		.depth = kv_slot(kv, slot)->depth,
	};

	if (!w || h->space_tag != run->space->info.tag || h->len != run->space->info.block_bytes ||
	    !worth(m, run->space->tenant, kv_slot(kv, slot), &h->key, h->len))
		return false;
	b.crc = wfi_kv_body_crc(kv, run->space, slot);
	b.chain = wfi_watch_chain(kv, slot);
	wfi_point(kv->env, "writeback.put");
	w->slot = slot;
	if (m->tier->ops->put(m->tier, &b, wfi_kv_slot_addr(kv, slot), written, w)) {
		w->slot = WFI_SLOT_NONE;
		return false;
	}
	m->free_write = w->next;
	m->nr_writes++;
	wfi_point(kv->env, "writeback.taken");
	return true;
}

uint64_t wfi_mover_low(const struct kv_space *space)
{
	return wfi_min(space->nr_slots / 2,
		       wfi_max(space->nr_slots >> LOW_SHIFT, 2ull * space->demand) +
			       wfi_min(space->nr_slots >> SHORT_SHIFT, space->short_of));
}

/* Return: how many blocks should go now, ahead of who will want the room */
static uint64_t wanted(const struct kv_mover *m, const struct kv_space *space)
{
	const uint64_t low = wfi_mover_low(space);
	const uint64_t grows =
		wfi_min(wfi_space_could_grow(space),
			space->max_blocks - wfi_min(space->nr_slots, space->max_blocks));
	const uint64_t coming = space->nr_free + m->nr_writes + grows;

	return coming < low ? wfi_min(low - coming, NR_WRITES - m->nr_writes) : 0;
}

void wfi_mover_short(struct kv_mover *m, struct kv_space *space, uint64_t nr)
{
	const uint64_t most = space->nr_slots >> SHORT_SHIFT;

	wfi_count(m->count[C_UNWRITTEN], nr);
	/* a larger reserve takes up a burst; where claims outrun the drive, none is large enough */
	space->short_of = (uint32_t)wfi_min(most, space->short_of + nr);
}

uint64_t wfi_mover_share(struct kv_mover *m, const struct kv_space *space)
{
	const struct wfi_tenant *t = space->tenant;
	const struct wfi_tier_share share = {
		.group = t->idx + 1,
		.weight = t->tier_idle ? 0 : t->weight,
		.floor_bytes = t->tier_floor_bytes,
	};

	return m->tier->ops->share(m->tier, space->info.tag, &share);
}

void wfi_mover_opened(struct kv_mover *m, const struct kv_space *space)
{
	/* of an earlier life */
	if (wfi_mover_share(m, space))
		wfi_watch_below_anew(m->kv);
}

static void tenant_share(struct kv_mover *m, struct wfi_tenant *t)
{
	const bool idle = wfi_share_idle(t);

	if (idle == t->tier_idle)
		return;
	t->tier_idle = idle;
	/* a group has one weight: any of its spaces tells it */
	if (t->spaces)
		wfi_mover_share(m, t->spaces);
}

static int reclaim(struct kv_mover *m)
{
	struct wfi_kv *kv = m->kv;
	const uint32_t nr = (uint32_t)wfi_min(SPACES_A_POLL, kv->nr_spaces);
	int work = 0;

	/* claims that were large once are forgotten in some seconds */
	for (uint32_t i = 0; kv->now_ns >= m->demand_ns && i < kv->nr_spaces; i++) {
		struct kv_space *space = kv->spaces[i];

		if (!space)
			continue;
		space->demand -= (space->demand + 3) / 4;
		space->short_of -= (space->short_of + 3) / 4;
	}
	for (uint32_t i = 0; kv->now_ns >= m->demand_ns && i < kv->nr_tenants; i++)
		tenant_share(m, kv->tenants[i]);
	if (kv->now_ns >= m->demand_ns)
		m->demand_ns = kv->now_ns + WFI_NSEC_PER_SEC;
	if (kv->emptying)
		work += wfi_space_empty_step(kv, NR_WRITES - m->nr_writes);
	for (uint32_t n = 0; n < nr && m->free_write; n++) {
		struct kv_space *space;
		uint64_t want;

		m->space_at = m->space_at + 1 < kv->nr_spaces ? m->space_at + 1 : 0;
		space = kv->spaces[m->space_at];
		want = space && !space->leaving ? wanted(m, space) : 0;
		if (!want)
			continue;
		/* claims that find free slots ask for nothing: those who keep them free do */
		wfi_space_ask(kv, space);
		want = wanted(m, space);
		if (want)
			work += (int)wfi_space_write_back(kv, space, want);
	}
	return work;
}

/* ---- up ---- */

static bool same(const struct weft_key *a, const struct weft_key *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

static struct move *move_find(struct kv_mover *m, const struct kv_space *space,
			      const struct weft_key *key)
{
	for (uint32_t i = 0, left = m->nr_moves; left; i++) {
		struct move *v = &m->moves[i];

		if (v->state == MOVE_FREE)
			continue;
		left--;
		if (v->space == space && same(&v->block.key, key))
			return v;
	}
	return NULL;
}

static struct waiter *waiter_get(struct kv_mover *m)
{
	struct waiter *w = m->free_waiter;

	if (w)
		m->free_waiter = w->next;
	else
		w = wfi_alloc(m->kv->env, sizeof(*w));
	return w;
}

static void fetch_end(struct kv_mover *m, struct wfi_fetch *f, int res)
{
	const struct wfi_fetch_opts o = f->o;
	const uint32_t reached = f->at;

	if (f->prev)
		f->prev->next = f->next;
	else
		m->fetches = f->next;
	if (f->next)
		f->next->prev = f->prev;
	wfi_free(m->kv->env, f, sizeof(*f));
	o.done(o.ctx, res, reached);
}

/* tells those who wait; @slot: WFI_SLOT_NONE when nothing came */
static void move_tell(struct kv_mover *m, struct move *v, uint32_t slot)
{
	struct waiter *w, *next;

	for (w = v->waiters; w; w = next) {
		struct wfi_fetch *f = w->fetch;

		next = w->next;
		if (f && slot != WFI_SLOT_NONE)
			wfi_slot_pin(m->kv, slot);
		if (f)
			f->o.slots[w->idx] = slot;
		if (f)
			f->nr_pending--;
		w->next = m->free_waiter;
		m->free_waiter = w;
	}
	v->waiters = NULL;
}

static uint32_t held_slot(struct wfi_kv *kv, const struct kv_space *space,
			  const struct weft_key *key)
{
	const struct index_tag tag = index_tag(&space->salt, key);
	const uint32_t slot = wfi_index_find(&kv->index, &tag);

	return slot != INDEX_SLOT_NONE && same(&kv->headers[slot].key, key) ? slot : WFI_SLOT_NONE;
}

static void move_end(struct kv_mover *m, struct move *v, uint32_t slot)
{
	move_tell(m, v, slot);
	wfi_point(m->kv->env, "promote.told");
	v->state = MOVE_FREE;
	m->nr_moves--;
}

/* the bytes are here and proved: under its key, and below its parent */
static void publish(struct kv_mover *m, struct move *v)
{
	struct wfi_kv *kv = m->kv;
	uint32_t slot = WFI_SLOT_NONE;
	int32_t result;

	wfi_point(kv->env, "promote.publish");
	if (v->dropped) {
		wfi_kv_unclaim(kv, &v->space->tenant->mover, &v->slot, 1);
	} else if (wfi_kv_put(kv, &v->space->tenant->mover, v->space->info.id, &v->block.parent,
			      &v->block.key, &v->slot, 1, &v->block.crc, &result,
			      kv->now_ns) == 1) {
		slot = held_slot(kv, v->space, &v->block.key);
		wfi_count(m->count[C_PROMOTED], 1);
	}
	wfi_point(kv->env, "promote.published");
	move_end(m, v, slot);
}

/* those that were read before their parents, too */
static void publish_chain(struct kv_mover *m, struct move *v)
{
	struct move *stack[NR_MOVES];
	uint32_t nr = 0;

	stack[nr++] = v;
	while (nr) {
		struct move *at = stack[--nr];
		const struct weft_key key = at->block.key;
		const struct kv_space *space = at->space;

		if (at->state == MOVE_READ)
			publish(m, at);
		for (uint32_t i = 0; i < NR_MOVES && nr < NR_MOVES; i++)
			if (m->moves[i].state == MOVE_READ && m->moves[i].space == space &&
			    same(&m->moves[i].block.parent, &key))
				stack[nr++] = &m->moves[i];
	}
}

static void read_done(void *ctx, int res)
{
	struct move *v = ctx;
	struct kv_mover *m = v->m;
	struct move *parent;

	wfi_point(m->kv->env, "promote.read");
	if (res) {
		wfi_kv_unclaim(m->kv, &v->space->tenant->mover, &v->slot, 1);
		move_end(m, v, WFI_SLOT_NONE);
		/* its children wait for nothing any more */
		publish_chain(m, v);
		return;
	}
	v->state = MOVE_READ;
	parent = move_find(m, v->space, &v->block.parent);
	if (!parent || parent == v || parent->state != MOVE_READING)
		publish_chain(m, v);
}

static uint32_t tier_find(const struct kv_mover *m, const struct kv_space *space,
			  const struct weft_key *key)
{
	uint32_t slot;

	m->tier->ops->find(m->tier, space->info.tag, key, 1, &slot);
	return slot;
}

/* Return: whether a claim evicts nothing, which would be before it is written */
static bool has_room(struct kv_mover *m, struct kv_space *space)
{
	if (!space->nr_free)
		wfi_space_ask(m->kv, space);
	return space->nr_free && space->nr_slots - space->nr_free < space->max_blocks;
}

/* @nr more blocks find none: those that are written below make some */
static void room_ask(struct kv_space *space, uint32_t nr)
{
	/* twice as much is kept free */
	space->demand = (uint32_t)wfi_max(space->demand, wfi_min(nr, NR_MOVES) / 2 + 1);
}

/* @may_evict: others that the tier has not taken yet go for it. Return: 0 and the move, -EAGAIN no
 * room for more now, others: it cannot come */
static int move_start(struct kv_mover *m, struct kv_space *space, uint32_t tier_slot,
		      bool may_evict, struct move **out)
{
	struct wfi_kv *kv = m->kv;
	struct wfi_tenant *t = space->tenant;
	struct move *v = m->moves;
	int ret = 0;

	if (m->nr_moves == NR_MOVES)
		return -EAGAIN;
	if (!t->has_mover)
		ret = wfi_owner_init(kv, &t->mover, t);
	if (ret)
		return ret;
	t->has_mover = true;
	while (v->state != MOVE_FREE)
		v++;
	v->m = m;
	v->space = space;
	v->dropped = false;
	m->tier->ops->block(m->tier, tier_slot, &v->block);
	if (v->block.len != space->info.block_bytes)
		return -EINVAL;
	if (!may_evict && !has_room(m, space))
		return -EAGAIN;
	ret = wfi_kv_claim(kv, &t->mover, space->info.id, 1, &v->slot, kv->now_ns);
	if (ret < 0)
		return ret;
	wfi_point(kv->env, "promote.claimed");
	/* what made room may have gone below, and what was found there may have gone for it */
	ret = -ENOENT;
	if (tier_find(m, space, &v->block.key) == tier_slot)
		ret = m->tier->ops->get(m->tier, tier_slot, wfi_kv_slot_addr(kv, v->slot.idx),
					read_done, v);
	if (ret) {
		wfi_kv_unclaim(kv, &t->mover, &v->slot, 1);
		return ret;
	}
	v->state = MOVE_READING;
	m->nr_moves++;
	wfi_point(kv->env, "promote.asked");
	*out = v;
	return 0;
}

/* blocks that lie behind the last one, where they belong to its chain: who read so far often goes
 * on */
static void read_ahead(struct kv_mover *m, struct kv_space *space, uint32_t tier_slot)
{
	struct wfi_tier_block b;
	struct move *v;

	for (uint32_t n = 0; n < AHEAD; n++) {
		tier_slot = m->tier->ops->next(m->tier, tier_slot);
		if (tier_slot == WFI_SLOT_NONE || space->nr_free <= space->nr_slots >> LOW_SHIFT)
			return;
		m->tier->ops->block(m->tier, tier_slot, &b);
		if (held_slot(m->kv, space, &b.key) != WFI_SLOT_NONE || move_find(m, space, &b.key))
			continue;
		if (move_start(m, space, tier_slot, false, &v))
			return;
		wfi_point(m->kv->env, "promote.ahead");
		wfi_count(m->count[C_AHEAD], 1);
	}
}

/* whether one more block would be here in time */
static bool pays(const struct kv_mover *m, const struct wfi_fetch *f, const struct kv_space *space)
{
	const uint64_t ns = m->tier->ops->fetch_ns(m->tier, space->info.block_bytes);

	return ns <= f->o.budget_ns && m->kv->now_ns + ns <= f->o.now_ns + f->o.budget_ns;
}

/* a key of a fetch. Return: 0 done with it, -EAGAIN later, -ETIME it does not pay from here on */
static int fetch_one(struct kv_mover *m, struct wfi_fetch *f, struct kv_space *space)
{
	const struct weft_key *key = &f->o.keys[f->at];
	uint32_t *out = &f->o.slots[f->at], tier_slot = WFI_SLOT_NONE;
	const bool may_evict = f->room_ns && m->kv->now_ns >= f->room_ns;
	struct waiter *w;
	struct move *v;
	int ret;

	if (*out != WFI_SLOT_NONE)
		return 0;
	*out = held_slot(m->kv, space, key);
	if (*out != WFI_SLOT_NONE) {
		wfi_slot_pin(m->kv, *out);
		return 0;
	}
	v = move_find(m, space, key);
	if (!v) {
		tier_slot = tier_find(m, space, key);
		if (tier_slot == WFI_SLOT_NONE)
			return 0;
		if (f->o.budget_ns && !pays(m, f, space))
			return -ETIME;
	}
	w = waiter_get(m);
	if (!w)
		return -ENOMEM;
	ret = v ? 0 : move_start(m, space, tier_slot, may_evict, &v);
	if (ret) {
		w->next = m->free_waiter;
		m->free_waiter = w;
		if (ret == -EAGAIN && m->nr_moves < NR_MOVES) {
			room_ask(space, f->o.nr - f->at);
			f->room_ns = f->room_ns ? f->room_ns : m->kv->now_ns + ROOM_NS;
		}
		return ret == -EAGAIN ? ret : 0;
	}
	/* where all are slow to be written, only the first one waits */
	if (!may_evict)
		f->room_ns = 0;
	if (tier_slot != WFI_SLOT_NONE) {
		m->tier->ops->touch(m->tier, tier_slot);
		if (f->at + 1 == f->o.nr)
			read_ahead(m, space, tier_slot);
	}
	w->fetch = f;
	w->idx = f->at;
	w->next = v->waiters;
	v->waiters = w;
	f->nr_pending++;
	return 0;
}

/* Return: true when it has ended */
static bool fetch_run(struct kv_mover *m, struct wfi_fetch *f)
{
	struct kv_space *space = kv_space(m->kv, f->o.space);
	int ret = 0;

	for (; space && f->at < f->o.nr; f->at++) {
		ret = fetch_one(m, f, space);
		if (ret)
			break;
	}
	if (ret == -EAGAIN && (f->nr_pending + m->nr_moves || m->kv->now_ns < f->room_ns))
		return false;
	if (ret == -ETIME) {
		wfi_count(m->count[C_NOT_PAID], f->o.nr - f->at);
		f->res = ret;
	}
	if (ret)
		f->o.nr = f->at;
	if (f->nr_pending)
		return false;
	fetch_end(m, f, f->res);
	return true;
}

int wfi_kv_fetch(struct wfi_kv *kv, const struct wfi_fetch_opts *o, struct wfi_fetch **out)
{
	struct kv_mover *m = kv->mover;
	struct wfi_fetch *f;

	if (!m)
		return -EOPNOTSUPP;
	f = wfi_alloc(kv->env, sizeof(*f));
	if (!f)
		return -ENOMEM;
	kv_now(kv, o->now_ns);
	f->o = *o;
	for (uint32_t i = 0; i < o->nr; i++)
		if (o->slots[i] != WFI_SLOT_NONE)
			wfi_slot_pin(kv, o->slots[i]);
	f->next = m->fetches;
	if (m->fetches)
		m->fetches->prev = f;
	m->fetches = f;
	*out = f;
	return 0;
}

void wfi_kv_fetch_cancel(struct wfi_kv *kv, struct wfi_fetch *f, int res)
{
	struct kv_mover *m = kv->mover;

	for (uint32_t i = 0; f->nr_pending && i < NR_MOVES; i++)
		for (struct waiter *w = m->moves[i].waiters; w; w = w->next) {
			if (w->fetch != f)
				continue;
			w->fetch = NULL;
			f->nr_pending--;
		}
	fetch_end(m, f, res);
}

static int fetches_run(struct kv_mover *m)
{
	struct wfi_fetch *f, *next;
	int work = 0;

	for (f = m->fetches; f; f = next) {
		next = f->next;
		if (fetch_run(m, f)) {
			work++;
		} else if (m->kv->now_ns >= f->o.deadline_ns) {
			wfi_kv_fetch_cancel(m->kv, f, -ETIMEDOUT);
			work++;
		}
	}
	return work;
}

int wfi_kv_prefetch(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys, uint32_t nr)
{
	struct kv_space *space = kv_space(kv, space_id);
	struct kv_mover *m = kv->mover;
	uint32_t i, slot = WFI_SLOT_NONE;
	struct move *v;

	for (i = 0; m && space && i < nr; i++) {
		if (held_slot(kv, space, &keys[i]) != WFI_SLOT_NONE ||
		    move_find(m, space, &keys[i]))
			continue;
		slot = tier_find(m, space, &keys[i]);
		/* it can't wait for room */
		if (slot == WFI_SLOT_NONE || move_start(m, space, slot, true, &v))
			break;
		m->tier->ops->touch(m->tier, slot);
	}
	if (i == nr && slot != WFI_SLOT_NONE)
		read_ahead(m, space, slot);
	return (int)i;
}

/* ---- what is where ---- */

/* a block of a prefix, which is used. Return: where it is, to be leased */
static uint32_t touch_found(struct kv_mover *m, const struct kv_space *space,
			    const struct weft_key *key, uint32_t tier_slot)
{
	uint32_t slot;

	if (tier_slot == WFI_SLOT_NONE) {
		wfi_kv_lookup(m->kv, space->info.id, key, 1, &slot, m->kv->now_ns);
		return slot;
	}
	m->tier->ops->touch(m->tier, tier_slot);
	return tier_slot | WFI_SLOT_BELOW;
}

int wfi_kv_match_tiers(struct wfi_kv *kv, uint32_t space_id, const struct weft_key *keys,
		       uint32_t nr, uint32_t from, uint32_t *where, uint32_t *slots)
{
	const struct kv_space *space = kv_space(kv, space_id);
	struct kv_mover *m = kv->mover;
	uint64_t bytes = 0, us;
	uint32_t i = from;

	for (; m && space && i < nr; i++) {
		uint32_t tier_slot = WFI_SLOT_NONE;

		us = 0;
		if (held_slot(kv, space, &keys[i]) == WFI_SLOT_NONE) {
			tier_slot = tier_find(m, space, &keys[i]);
			if (tier_slot == WFI_SLOT_NONE)
				break;
			bytes += space->info.block_bytes;
			us = m->tier->ops->fetch_ns(m->tier, bytes) / WFI_NSEC_PER_USEC;
			us = wfi_max(us, 1);
		}
		if (where)
			where[i] =
				us ? WEFT_WHERE(m->tier->ops->kind, wfi_min(us, WEFT_WHERE_US_MAX))
				   : WEFT_TIER_DRAM;
		if (!slots)
			continue;
		slots[i] = touch_found(m, space, &keys[i], tier_slot);
		if (slots[i] == WFI_SLOT_NONE)
			break;
	}
	return (int)i;
}

int wfi_mover_keep(struct kv_mover *m, const struct wfi_tenant *t, const uint32_t *slots,
		   uint32_t nr)
{
	struct wfi_tier_stat st;
	uint64_t most;
	int ret = 0;

	m->tier->ops->stat(m->tier, &st);
	most = st.bytes / 2 / m->kv->weights * t->weight;
	for (uint32_t i = 0; i < nr; i++) {
		if (slots[i] & WFI_SLOT_BELOW)
			ret = m->tier->ops->keep(m->tier, slots[i] & ~WFI_SLOT_BELOW, most);
		if (ret) {
			wfi_mover_unkeep(m, slots, i);
			return ret;
		}
	}
	return 0;
}

void wfi_mover_unkeep(struct kv_mover *m, const uint32_t *slots, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		if (slots[i] & WFI_SLOT_BELOW)
			m->tier->ops->unkeep(m->tier, slots[i] & ~WFI_SLOT_BELOW);
}

bool wfi_mover_drop(struct kv_mover *m, const struct kv_space *space, const struct weft_key *key)
{
	struct move *v = move_find(m, space, key);

	if (v)
		v->dropped = true;
	return m->tier->ops->drop(m->tier, space->info.tag, key);
}

/* ---- a space that goes ---- */

void wfi_mover_use(const struct kv_mover *m, const struct kv_space *space, uint32_t *up,
		   uint32_t *down)
{
	*up = *down = 0;
	for (uint32_t i = 0; i < NR_MOVES; i++)
		*up += m->moves[i].state != MOVE_FREE && m->moves[i].space == space;
	for (uint32_t i = 0; i < NR_WRITES; i++)
		*down += m->writes[i].slot != WFI_SLOT_NONE &&
			 kv_run(m->kv, m->writes[i].slot)->space == space;
}

bool wfi_mover_is_of(const struct kv_mover *m, const struct kv_space *space, uint32_t tier_slot)
{
	struct wfi_tier_block b;

	m->tier->ops->block(m->tier, tier_slot, &b);
	return b.space_tag == space->info.tag;
}

void wfi_mover_leave(struct kv_mover *m, const struct kv_space *space)
{
	for (uint32_t i = 0; i < NR_MOVES; i++)
		if (m->moves[i].space == space)
			m->moves[i].dropped = true;
}

struct keys_below {
	struct weft_key keys[BELOW_A_POLL];
	uint32_t nr;
};

static void below_add(void *ctx, const struct wfi_tier_block *b)
{
	struct keys_below *below = ctx;

	below->keys[below->nr++] = b->key;
}

bool wfi_mover_opens(const struct kv_mover *m)
{
	struct wfi_tier_stat st;

	m->tier->ops->stat(m->tier, &st);
	return st.state == WFI_TIER_OPENING;
}

bool wfi_mover_clear(struct kv_mover *m, const struct kv_space *space, uint64_t *at)
{
	struct keys_below below = { .nr = 0 };

	*at = wfi_mover_each(m, space, (uint32_t)*at, BELOW_A_POLL, below_add, &below);
	for (uint32_t i = 0; i < below.nr; i++)
		m->tier->ops->drop(m->tier, space->info.tag, &below.keys[i]);
	if (*at)
		return false;
	m->tier->ops->share(m->tier, space->info.tag, NULL);
	return true;
}

/* ---- polling ---- */

int wfi_mover_poll(struct kv_mover *m, uint64_t now_ns)
{
	int work = m->tier->ops->poll(m->tier, now_ns);

	work += fetches_run(m);
	work += reclaim(m);
	return work;
}

uint64_t wfi_mover_next_event_ns(const struct kv_mover *m)
{
	uint64_t next = m->tier->ops->next_event_ns(m->tier, m->kv->now_ns);

	for (const struct wfi_fetch *f = m->fetches; f; f = f->next) {
		next = wfi_min(next, f->o.deadline_ns);
		if (f->room_ns > m->kv->now_ns)
			next = wfi_min(next, f->room_ns);
	}
	return next;
}

int wfi_kv_tier_flush(struct wfi_kv *kv)
{
	return kv->mover ? kv->mover->tier->ops->flush(kv->mover->tier) : 0;
}

bool wfi_kv_has_tier(const struct wfi_kv *kv)
{
	return kv->mover != NULL;
}

uint64_t wfi_kv_tier_fetch_ns(const struct wfi_kv *kv, uint64_t bytes)
{
	return kv->mover ? kv->mover->tier->ops->fetch_ns(kv->mover->tier, bytes) : UINT64_MAX;
}

int wfi_kv_tier_speed(const struct wfi_kv *kv, struct wfi_tier_speed *out)
{
	return kv->mover ? kv->mover->tier->ops->speed(kv->mover->tier, out) : -ENOENT;
}

int wfi_kv_tier_stat(const struct wfi_kv *kv, const char **name, struct wfi_tier_stat *out)
{
	if (!kv->mover)
		return -ENOENT;
	*name = kv->mover->tier->ops->name;
	kv->mover->tier->ops->stat(kv->mover->tier, out);
	return 0;
}

uint32_t wfi_mover_each(const struct kv_mover *m, const struct kv_space *space, uint32_t from,
			uint32_t nr, void (*fn)(void *ctx, const struct wfi_tier_block *b),
			void *ctx)
{
	return m->tier->ops->each(m->tier, space->info.tag, from, nr, fn, ctx);
}

struct wfi_tier *wfi_mover_tier(const struct kv_mover *m)
{
	return m->tier;
}

enum weft_tier wfi_mover_kind(const struct kv_mover *m)
{
	return m->tier->ops->kind;
}

int wfi_kv_tier_resize(struct wfi_kv *kv, uint64_t bytes)
{
	return kv->mover ? kv->mover->tier->ops->resize(kv->mover->tier, bytes) : -ENOENT;
}

/* ---- set-up ---- */

static void counters_init(struct kv_mover *m, struct wfi_metrics *metrics)
{
	static const struct {
		const char *name, *help;
	} table[NR_MOVER_COUNTERS] = {
		[C_REFUSED] = { "weft_tier_refused", "Blocks not worth a write to the tier" },
		[C_LOST] = { "weft_tier_lost", "Blocks whose write to the tier failed" },
		[C_PROMOTED] = { "weft_tier_promoted", "Blocks brought back into memory" },
		[C_AHEAD] = { "weft_tier_read_ahead",
			      "Blocks brought back into memory before they were asked for" },
		[C_UNWRITTEN] = { "weft_tier_unwritten",
				  "Blocks evicted for a claim before they could be written" },
		[C_NOT_PAID] = { "weft_tier_not_paid",
				 "Blocks left in the tier: too slow for a get's budget" },
	};

	for (unsigned i = 0; i < NR_MOVER_COUNTERS; i++) {
		m->count[i] =
			metrics ? wfi_metrics_counter(metrics, table[i].name, "", "", table[i].help)
				: NULL;
		if (!m->count[i])
			m->count[i] = &m->scratch[i];
	}
}

int wfi_kv_tier_add(struct wfi_kv *kv, struct wfi_tier *tier, const struct wfi_kv_tier_opts *o)
{
	struct kv_mover *m;

	if (kv->mover)
		return -EEXIST;
	m = wfi_alloc(kv->env, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->kv = kv;
	m->tier = tier;
	m->write_bps = o->write_bps;
	m->tokens = o->write_bps;
	m->tokens_ns = kv->now_ns;
	for (uint32_t i = NR_WRITES; i--;) {
		m->writes[i].m = m;
		m->writes[i].slot = WFI_SLOT_NONE;
		m->writes[i].next = m->free_write;
		m->free_write = &m->writes[i];
	}
	counters_init(m, o->metrics);
	/* where the memory is taken for good anyway, the drive may know it */
	for (uint32_t i = 0; o->lend_arenas && i < kv->nr_tenants; i++)
		tier->ops->lend(tier, kv->tenants[i]->arena.addr, kv->tenants[i]->arena.len);
	for (uint32_t i = 0; i < kv->nr_spaces; i++)
		if (kv->spaces[i])
			wfi_mover_share(m, kv->spaces[i]);
	kv->mover = m;
	m->watch = (struct wfi_tier_watch){ .held = wfi_watch_below_held,
					    .gone = wfi_watch_below_gone,
					    .anew = wfi_watch_below_anew,
					    .ctx = kv };
	tier->ops->watch(tier, &m->watch);
	return 0;
}

void wfi_mover_destroy(struct kv_mover *m)
{
	struct waiter *w;

	if (!m)
		return;
	m->tier->ops->watch(m->tier, NULL);
	m->tier->ops->close(m->tier);
	for (uint32_t i = 0; i < NR_MOVES; i++)
		if (m->moves[i].state != MOVE_FREE)
			move_tell(m, &m->moves[i], WFI_SLOT_NONE);
	while (m->fetches) {
		struct wfi_fetch *f = m->fetches;

		m->fetches = f->next;
		wfi_free(m->kv->env, f, sizeof(*f));
	}
	while ((w = m->free_waiter)) {
		m->free_waiter = w->next;
		wfi_free(m->kv->env, w, sizeof(*w));
	}
	wfi_free(m->kv->env, m, sizeof(*m));
}
