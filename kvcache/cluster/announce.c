/* SPDX-License-Identifier: Apache-2.0 */
/* announce.c - what this node has, told to the shards; what others have, heard by its own */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"
#include "weft_internal/log.h"

#define WINDOW 4u /* messages that a shard has not answered */
#define ANSWER_NS WFI_NSEC_PER_SEC /* then it is told everything anew */
#define RETRY_NS WFI_NSEC_PER_MSEC
#define TELL_NS (20 * WFI_NSEC_PER_MSEC) /* from one word on the SSD tier's speed to the next */
#define SPEED_MIN 1024u /* bytes a ms: what others say is slower is not */
#define SWEEP_SLOTS 64u /* of a stream, a poll */
#define CLIMB_BELOW 4096u /* ancestors in the SSD tier: as deep as chains are told apart */

/* ---- heads of chains ---- */

static uint32_t *head_of(const struct wfi_cluster *c, uint32_t slot)
{
	return (uint32_t *)c->heads.addr + slot;
}

static uint64_t slot_tag(const struct wfi_cluster *c, uint32_t slot)
{
	return wfi_block_tag(wfi_kv_slot_space_tag(c->o.kv, slot),
			     &wfi_kv_slot_header(c->o.kv, slot)->key);
}

static bool no_key(const struct weft_key *key)
{
	return !key || !(key->lo | key->hi);
}

/* a block whose parent is not here: who looked for its chain has left a hint */
static uint32_t hint_head(const struct wfi_cluster *c, uint64_t space_tag,
			  const struct weft_key *key, const struct weft_key *parent)
{
	const uint64_t tag = wfi_block_tag(space_tag, key);
	uint32_t head = cl_chain_seen(c, tag);
	uint64_t up;

	if (head)
		return head;
	if (no_key(parent))
		return cl_head(tag);
	up = wfi_block_tag(space_tag, parent);
	head = cl_chain_seen(c, up);
	return head ? head : cl_head(up);
}

/* or it comes from the SSD tier, or hangs under what lies there */
static uint32_t head_guess(struct wfi_cluster *c, uint32_t slot, const struct weft_key *parent)
{
	const uint64_t space_tag = wfi_kv_slot_space_tag(c->o.kv, slot);
	const struct weft_key *key = &wfi_kv_slot_header(c->o.kv, slot)->key;
	uint32_t below = WFI_SLOT_NONE;

	if (wfi_kv_has_tier(c->o.kv)) {
		below = wfi_kv_below_find(c->o.kv, space_tag, key);
		if (below == WFI_SLOT_NONE && !no_key(parent))
			below = wfi_kv_below_find(c->o.kv, space_tag, parent);
	}
	return below == WFI_SLOT_NONE ? hint_head(c, space_tag, key, parent)
				      : wfi_cl_head_below(c, below);
}

static void climb_step(struct wfi_cluster *c)
{
	struct climb *k = &c->climb;
	const uint32_t head = *head_of(c, k->at), up = wfi_kv_slot_parent(c->o.kv, k->at);

	c->climbed++;
	if (k->head && !head) {
		*head_of(c, k->at) = k->head;
		k->at = up;
	} else if (k->head) {
		k->at = WFI_SLOT_NONE;
	} else if (head || up == WFI_SLOT_NONE) {
		k->head = head ? head : head_guess(c, k->at, NULL);
		k->at = k->slot;
	} else {
		k->at = up;
	}
	if (k->at == WFI_SLOT_NONE)
		k->slot = WFI_SLOT_NONE;
}

/* of a block that was here before anybody watched, a chain may be as deep as there are slots */
uint32_t wfi_cl_head_find(struct wfi_cluster *c, uint32_t slot)
{
	while (!*head_of(c, slot)) {
		if (c->climbed >= CL_CLIMBS)
			return 0;
		if (c->climb.slot == WFI_SLOT_NONE)
			c->climb = (struct climb){ .slot = slot, .at = slot };
		climb_step(c);
	}
	return *head_of(c, slot);
}

/* Return: the slot of a block in memory, or WFI_SLOT_NONE */
static uint32_t memory_find(const struct wfi_cluster *c, uint64_t space_tag,
			    const struct weft_key *key)
{
	struct wfi_space_info space;
	uint32_t slot;

	if (wfi_kv_space_by_tag(c->o.kv, space_tag, &space))
		return WFI_SLOT_NONE;
	/* nobody asked for it: it counts neither as a use nor as a look */
	return wfi_kv_peek(c->o.kv, space.id, key, 1, &slot) == 1 ? slot : WFI_SLOT_NONE;
}

/*
 * The block of the SSD tier that @slot's head follows from: its first ancestor in memory may have
 * come up from there. Return: 0 and @b, or the head
 */
static uint32_t climb_memory(struct wfi_cluster *c, uint32_t slot, uint32_t *left,
			     struct wfi_tier_block *b)
{
	const struct weft_key *key;
	uint64_t space_tag;
	uint32_t up;

	while (!*head_of(c, slot) && *left) {
		up = wfi_kv_slot_parent(c->o.kv, slot);
		if (up == WFI_SLOT_NONE)
			break;
		slot = up;
		--*left;
		c->climbed++;
	}
	if (*head_of(c, slot))
		return *head_of(c, slot);
	space_tag = wfi_kv_slot_space_tag(c->o.kv, slot);
	key = &wfi_kv_slot_header(c->o.kv, slot)->key;
	slot = wfi_kv_below_find(c->o.kv, space_tag, key);
	if (slot == WFI_SLOT_NONE)
		return hint_head(c, space_tag, key, NULL);
	wfi_kv_below_block(c->o.kv, slot, b);
	return 0;
}

/* by its ancestors, where nobody has said it yet. Engines name parents as they like: a chain may
 * bite its own tail */
static uint32_t climb_below(struct wfi_cluster *c, const struct wfi_tier_block *block)
{
	uint32_t slot, head, left = CLIMB_BELOW;
	struct wfi_tier_block b = *block;

	while (!b.chain && !no_key(&b.parent) && left) {
		left--;
		c->climbed++;
		slot = memory_find(c, b.space_tag, &b.parent);
		if (slot != WFI_SLOT_NONE) {
			head = climb_memory(c, slot, &left, &b);
			if (head)
				return head;
			continue;
		}
		slot = wfi_kv_below_find(c->o.kv, b.space_tag, &b.parent);
		if (slot == WFI_SLOT_NONE)
			break;
		wfi_kv_below_block(c->o.kv, slot, &b);
	}
	return b.chain ? b.chain : hint_head(c, b.space_tag, &b.key, &b.parent);
}

uint32_t wfi_cl_head_below(struct wfi_cluster *c, uint32_t slot)
{
	struct wfi_tier_block b;
	uint32_t head, i;

	wfi_kv_below_block(c->o.kv, slot, &b);
	if (b.chain)
		return b.chain;
	head = climb_below(c, &b);
	/* the ancestors need not climb any more */
	for (i = 0; i < CLIMB_BELOW && slot != WFI_SLOT_NONE && !b.chain; i++) {
		wfi_kv_below_set_chain(c->o.kv, slot, head);
		slot = no_key(&b.parent) ? WFI_SLOT_NONE
					 : wfi_kv_below_find(c->o.kv, b.space_tag, &b.parent);
		if (slot != WFI_SLOT_NONE)
			wfi_kv_below_block(c->o.kv, slot, &b);
	}
	return head;
}

/* ---- streams ---- */

static struct stream *stream_of(struct wfi_cluster *c, uint8_t owner)
{
	return owner == SELF ? c->stream : c->peers[owner].stream;
}

static void stream_begin(struct wfi_cluster *c, struct stream *s)
{
	s->epoch++;
	s->seq = 0;
	s->nr_open = 0;
	s->nr = 0;
	s->at = s->below_at = 0;
	s->sweeping = s->sweeping_below = true;
	s->lost = false;
	cl_count(c, CL_C_AGAIN, 1);
	cl_event(c, c->now_ns);
}

/* the shard here: nothing is sent, and nothing gets lost */
static int stream_flush_self(struct wfi_cluster *c, struct stream *s)
{
	int ret;

	if (!s->seq) {
		if (c->holder) {
			wfi_directory_leave(c->directory, c->holder);
			c->holder_peers[wfi_dir_pair(c->holder)] = WFI_PEER_NONE;
			c->holder = 0;
		}
		ret = wfi_directory_join(c->directory, c->o.node);
		if (ret < 0)
			return 0;
		c->holder = (uint8_t)ret;
		c->holder_peers[wfi_dir_pair(c->holder)] = SELF;
		s->seq = 1;
	}
	if (!s->nr)
		return 0;
	wfi_directory_update(c->directory, c->holder, s->changes, s->nr);
	s->nr = 0;
	return 1;
}

/* one message. Return: 1 sent, 0 not now */
static int stream_flush(struct wfi_cluster *c, struct cluster_peer *p)
{
	struct stream *s = p->stream;
	union cluster_msg m;

	if ((!s->nr && s->seq) || s->nr_open == WINDOW)
		return 0;
	/* few changes wait for more while others are on their way */
	if (s->seq && s->nr_open && s->nr < CLUSTER_TAGS_MAX &&
	    (s->sweeping || s->sweeping_below || s->nr_open > 1))
		return 0;
	memcpy(m.tags.tags, s->changes, s->nr * sizeof(s->changes[0]));
	cluster_msg_head(&m, CLUSTER_ANNOUNCE, s->nr, (uint64_t)s->epoch << 32 | s->seq);
	if (!s->seq)
		m.head.flags = CLUSTER_F_FIRST;
	if (p->conns[0]->send(p->conns[0], &m, m.head.len)) {
		cl_event(c, c->now_ns + RETRY_NS);
		return 0;
	}
	if (!s->nr_open)
		s->answer_ns = c->now_ns + ANSWER_NS;
	cl_event(c, s->answer_ns);
	s->seq++;
	s->nr_open++;
	s->nr = 0;
	return 1;
}

static void stream_add(struct wfi_cluster *c, uint8_t owner, uint64_t change)
{
	struct stream *s = stream_of(c, owner);

	if (s->nr == CLUSTER_TAGS_MAX) {
		if (owner == SELF)
			stream_flush_self(c, s);
		else if (c->peers[owner].nr_conns)
			stream_flush(c, &c->peers[owner]);
	}
	if (s->nr == CLUSTER_TAGS_MAX) {
		s->lost = true;
		return;
	}
	if (!s->nr)
		cl_event(c, c->now_ns);
	s->changes[s->nr++] = change;
	cl_count(c, CL_C_ANNOUNCED, 1);
}

/* those that have passed it say it when they come to it again */
static void sweep_again(struct stream *s, uint32_t slot)
{
	if (!s->sweeping || s->at > slot)
		s->at = slot;
	s->sweeping = true;
}

static void on_held(void *ctx, uint32_t slot, uint32_t parent, const struct weft_key *parent_key)
{
	struct wfi_cluster *c = ctx;
	const uint32_t head = parent != WFI_SLOT_NONE ? wfi_cl_head_find(c, parent)
						      : head_guess(c, slot, parent_key);
	unsigned i;

	*head_of(c, slot) = head;
	if (wfi_unlikely(!head)) {
		sweep_again(c->stream, slot);
		for (i = 0; i < c->hi_peers; i++)
			if (c->peers[i].node)
				sweep_again(c->peers[i].stream, slot);
		cl_event(c, c->now_ns);
		return;
	}
	stream_add(c, wfi_cl_owner(c, head), slot_tag(c, slot));
	wfi_cl_offer_replicas(c, slot, head);
}

/* its head stays until another block has the slot: it may be on its way to the SSD tier */
static void on_gone(void *ctx, uint32_t slot)
{
	struct wfi_cluster *c = ctx;
	const uint32_t head = *head_of(c, slot);

	if (c->climb.slot == slot)
		c->climb.slot = WFI_SLOT_NONE;
	/* whose it is nobody has looked for yet: nobody was told of it */
	if (head)
		stream_add(c, wfi_cl_owner(c, head), slot_tag(c, slot) | WFI_TAG_GONE);
}

/* what goes to the SSD tier is in the chain that it was in */
static uint32_t on_chain(void *ctx, uint32_t slot)
{
	return *head_of(ctx, slot);
}

static uint64_t below_tag(const struct wfi_tier_block *b)
{
	return wfi_block_tag(b->space_tag, &b->key) | WFI_TAG_SSD;
}

static void on_below_held(void *ctx, uint32_t slot)
{
	struct wfi_cluster *c = ctx;
	struct wfi_tier_block b;

	wfi_kv_below_block(c->o.kv, slot, &b);
	stream_add(c, wfi_cl_owner(c, wfi_cl_head_below(c, slot)), below_tag(&b));
}

static void on_below_gone(void *ctx, uint32_t slot)
{
	struct wfi_cluster *c = ctx;
	struct wfi_tier_block b;

	wfi_kv_below_block(c->o.kv, slot, &b);
	/* of a space that is not open here, say: nobody was told of it */
	if (b.chain)
		stream_add(c, wfi_cl_owner(c, b.chain), below_tag(&b) | WFI_TAG_GONE);
}

static void sweep_below(struct stream *s)
{
	s->below_at = 0;
	s->sweeping_below = true;
}

/* nothing that was said is wrong: the rest is said as well */
static void on_below_anew(void *ctx)
{
	struct wfi_cluster *c = ctx;
	unsigned i;

	sweep_below(c->stream);
	for (i = 0; i < c->hi_peers; i++)
		if (c->peers[i].node)
			sweep_below(c->peers[i].stream);
	cl_event(c, c->now_ns);
}

/* what lies in the SSD tier, of spaces that are open: of others nothing could be lent */
static int stream_sweep_below(struct wfi_cluster *c, uint8_t owner)
{
	struct stream *s = stream_of(c, owner);
	uint32_t slots[SWEEP_SLOTS], n, i;
	struct wfi_space_info space = { 0 };
	struct wfi_tier_block b;

	if (!s->seq || s->nr + SWEEP_SLOTS > CLUSTER_TAGS_MAX)
		return 0;
	n = wfi_kv_below_walk(c->o.kv, &s->below_at, SWEEP_SLOTS, slots);
	for (i = 0; i < n; i++) {
		wfi_kv_below_block(c->o.kv, slots[i], &b);
		if (b.space_tag != space.tag && wfi_kv_space_by_tag(c->o.kv, b.space_tag, &space))
			continue;
		if (!b.chain && c->climbed >= CL_CLIMBS) {
			s->below_at = slots[i];
			return 1;
		}
		if (wfi_cl_owner(c, wfi_cl_head_below(c, slots[i])) == owner)
			stream_add(c, owner, below_tag(&b));
	}
	s->sweeping_below = s->below_at != 0;
	return 1;
}

/* goes on saying what there is. Return: work */
static int stream_sweep(struct wfi_cluster *c, uint8_t owner)
{
	struct stream *s = stream_of(c, owner);
	uint32_t slots[SWEEP_SLOTS], n, i, head;

	if (!s->seq || s->nr + SWEEP_SLOTS > CLUSTER_TAGS_MAX)
		return 0;
	n = wfi_kv_walk(c->o.kv, &s->at, SWEEP_SLOTS, slots);
	for (i = 0; i < n; i++) {
		head = wfi_cl_head_find(c, slots[i]);
		if (!head) {
			s->at = slots[i];
			return 1;
		}
		if (wfi_cl_owner(c, head) == owner)
			stream_add(c, owner, slot_tag(c, slots[i]));
	}
	s->sweeping = s->at != 0;
	return 1;
}

static int stream_poll(struct wfi_cluster *c, uint8_t owner)
{
	struct cluster_peer *p = owner == SELF ? NULL : &c->peers[owner];
	struct stream *s = stream_of(c, owner);
	int work = 0;

	if (p && !p->nr_conns)
		return 0;
	if (s->lost || (s->nr_open && c->now_ns >= s->answer_ns))
		stream_begin(c, s);
	if (s->sweeping)
		work += stream_sweep(c, owner);
	else if (s->sweeping_below)
		work += stream_sweep_below(c, owner);
	work += p ? stream_flush(c, p) : stream_flush_self(c, s);
	if (s->nr_open)
		cl_event(c, s->answer_ns);
	if ((s->nr || s->sweeping || s->sweeping_below) && (!p || s->nr_open < WINDOW))
		cl_event(c, p && s->nr_open ? c->now_ns + RETRY_NS : c->now_ns);
	return work;
}

/* ---- how fast the SSD tier is ---- */

static void speed_measure(const struct wfi_cluster *c, struct speed *out)
{
	struct wfi_tier_speed v;

	*out = (struct speed){ 0 };
	if (wfi_kv_tier_speed(c->o.kv, &v))
		return;
	out->bytes_per_ms = wfi_max(1, v.bps / 1000);
	out->latency_ns = v.latency_ns;
	out->free_ns = c->now_ns + v.queued_bytes * 1000 / out->bytes_per_ms * 1000;
}

static bool differs(uint64_t a, uint64_t b, uint64_t least)
{
	const uint64_t more = wfi_max(a, b), less = wfi_min(a, b);

	return more - less > wfi_max(more / 8, least);
}

/* whether others would judge wrongly by what they were told */
static bool speed_news(const struct wfi_cluster *c, const struct speed *told, const struct speed *v)
{
	const uint64_t now_ns = c->now_ns;

	return !v->bytes_per_ms != !told->bytes_per_ms ||
	       differs(v->bytes_per_ms, told->bytes_per_ms, 0) ||
	       differs(v->latency_ns, told->latency_ns, 50 * WFI_NSEC_PER_USEC) ||
	       differs(wfi_max(v->free_ns, now_ns) - now_ns,
		       wfi_max(told->free_ns, now_ns) - now_ns, WFI_NSEC_PER_MSEC);
}

static int speed_tell(struct wfi_cluster *c)
{
	struct speed v;
	union cluster_msg m;
	int work = 0;
	unsigned i;

	c->tell_ns = c->now_ns + TELL_NS;
	speed_measure(c, &v);
	m.speed = (struct cluster_speed){
		.bytes_per_ms = v.bytes_per_ms,
		.queued_bytes =
			(wfi_max(v.free_ns, c->now_ns) - c->now_ns) / 1000 * v.bytes_per_ms / 1000,
		.latency_us = (uint32_t)wfi_min(v.latency_ns / WFI_NSEC_PER_USEC, UINT32_MAX),
	};
	cluster_msg_head(&m, CLUSTER_SPEED, 0, 0);
	for (i = 0; i < c->hi_peers; i++) {
		struct cluster_peer *p = &c->peers[i];

		if (!p->nr_conns || !speed_news(c, &p->told, &v) ||
		    p->conns[0]->send(p->conns[0], &m, m.head.len))
			continue;
		p->told = v;
		work++;
	}
	return work;
}

/* input: what is told beyond reason is taken for what is at its end */
void wfi_cl_heard_speed(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m)
{
	struct cluster_peer *p = &c->peers[peer];
	const uint64_t queued = wfi_min(m->speed.queued_bytes, 1ull << 40);

	p->ssd_fails = !m->speed.bytes_per_ms;
	p->ssd_bytes_per_ms = wfi_max(SPEED_MIN, wfi_min(m->speed.bytes_per_ms, 1ull << 40));
	p->ssd_latency_ns = m->speed.latency_us * WFI_NSEC_PER_USEC;
	p->ssd_free_ns = c->now_ns + queued * 1000 / p->ssd_bytes_per_ms * 1000;
}

int wfi_cl_announce_poll(struct wfi_cluster *c)
{
	unsigned i;
	int work;

	c->climbed = 0;
	work = stream_poll(c, SELF);
	for (i = 0; i < c->hi_peers; i++)
		if (c->peers[i].node)
			work += stream_poll(c, (uint8_t)i);
	if (c->now_ns >= c->tell_ns && wfi_kv_has_tier(c->o.kv))
		work += speed_tell(c);
	return work;
}

void wfi_cl_announce_all(struct wfi_cluster *c)
{
	unsigned i;

	stream_begin(c, c->stream);
	for (i = 0; i < c->hi_peers; i++)
		if (c->peers[i].node)
			stream_begin(c, c->peers[i].stream);
}

void wfi_cl_heard_announced(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m)
{
	struct stream *s = c->peers[peer].stream;

	if (m->head.id >> 32 != s->epoch || !s->nr_open)
		return;
	if (m->head.flags & CLUSTER_F_AGAIN) {
		stream_begin(c, s);
		return;
	}
	s->nr_open--;
	s->answer_ns = c->now_ns + ANSWER_NS;
	cl_event(c, c->now_ns);
}

/* ---- the shard here ---- */

/* Return: whether the holder has a number from here on, and has said nothing yet */
static bool holder_begin(struct wfi_cluster *c, uint8_t peer)
{
	struct cluster_peer *p = &c->peers[peer];
	int ret;

	if (p->holder) {
		c->holder_peers[wfi_dir_pair(p->holder)] = WFI_PEER_NONE;
		wfi_directory_leave(c->directory, p->holder);
		p->holder = 0;
	}
	ret = wfi_directory_join(c->directory, p->node);
	if (ret < 0)
		return false;
	p->holder = (uint8_t)ret;
	c->holder_peers[wfi_dir_pair(p->holder)] = peer;
	return true;
}

void wfi_cl_heard_announce(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			   const union cluster_msg *m)
{
	struct cluster_peer *p = &c->peers[peer];
	union cluster_msg reply;

	cluster_msg_head(&reply, CLUSTER_ANNOUNCED, 0, m->head.id);
	if (m->head.flags & CLUSTER_F_FIRST) {
		/* all numbers are in use, by holders that came and went: it will ask again */
		if (!holder_begin(c, peer))
			return;
		p->heard = m->head.id;
	}
	if (!p->holder || m->head.id != p->heard) {
		reply.head.flags = CLUSTER_F_AGAIN;
		wfi_cl_answer(c, conn, &reply);
		return;
	}
	p->heard++;
	wfi_directory_update(c->directory, p->holder, m->tags.tags, m->head.nr);
	cl_count(c, CL_C_HEARD, m->head.nr);
	wfi_cl_answer(c, conn, &reply);
}

static uint64_t holder_node(const struct wfi_cluster *c, uint8_t holder)
{
	const uint8_t peer = c->holder_peers[wfi_dir_pair(holder)];

	return peer == SELF ? c->o.node : wfi_cluster_node(c, peer);
}

static void runs_say(const struct wfi_cluster *c, const struct wfi_dir_run *runs, uint32_t nr,
		     union cluster_msg *reply)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		reply->looked.runs[i] = (struct cluster_run){
			.node = holder_node(c, runs[i].holder),
			.other = holder_node(c, runs[i].other),
			.first = (uint16_t)runs[i].first,
			.nr = (uint16_t)runs[i].nr,
			.flags = (uint16_t)((runs[i].holder & WFI_DIR_SSD ? CLUSTER_RUN_SSD : 0) |
					    (runs[i].other & WFI_DIR_SSD ? CLUSTER_RUN_OTHER_SSD
									 : 0)),
		};
}

void wfi_cl_heard_lookup(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			 const union cluster_msg *m)
{
	struct wfi_dir_run runs[CLUSTER_RUNS_MAX];
	union cluster_msg reply;
	uint32_t n;

	n = wfi_directory_find(c->directory, m->tags.tags, m->head.nr, c->peers[peer].holder,
			       c->turn++, runs, CLUSTER_RUNS_MAX);
	runs_say(c, runs, n, &reply);
	cluster_msg_head(&reply, CLUSTER_LOOKED, n, m->head.id);
	wfi_cl_answer(c, conn, &reply);
}

void wfi_cl_who(struct wfi_cluster *c, const uint64_t *tags, uint32_t nr, uint64_t id,
		union cluster_msg *reply)
{
	struct wfi_dir_run runs[CLUSTER_RUNS_MAX];
	const uint32_t n = wfi_directory_holders(c->directory, tags, nr, runs, CLUSTER_RUNS_MAX);

	runs_say(c, runs, n, reply);
	cluster_msg_head(reply, CLUSTER_HELD, n, id);
}

void wfi_cl_heard_who(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
		      const union cluster_msg *m)
{
	union cluster_msg reply;

	(void)peer;
	wfi_cl_who(c, m->tags.tags, m->head.nr, m->head.id, &reply);
	wfi_cl_answer(c, conn, &reply);
}

/* the number of a holder's peer, and the tier that it has it in */
static uint8_t holder_peer(const struct wfi_cluster *c, uint8_t holder)
{
	const uint8_t peer = c->holder_peers[wfi_dir_pair(holder)];

	return holder & WFI_DIR_SSD && peer != WFI_PEER_NONE ? peer | WFI_PEER_SSD : peer;
}

void wfi_cl_find(struct wfi_cluster *c, const uint64_t *tags, uint32_t nr, uint8_t *peers,
		 uint8_t *others)
{
	struct wfi_dir_run runs[CLUSTER_RUNS_MAX];
	uint32_t i, n;

	n = wfi_directory_find(c->directory, tags, nr, c->holder, c->turn++, runs,
			       CLUSTER_RUNS_MAX);
	for (i = 0; i < n; i++) {
		memset(peers + runs[i].first, holder_peer(c, runs[i].holder), runs[i].nr);
		memset(others + runs[i].first, holder_peer(c, runs[i].other), runs[i].nr);
	}
}

/* ---- beginning and end ---- */

int wfi_cl_activate(struct wfi_cluster *c)
{
	const struct wfi_directory_opts o = { .env = c->o.env, .bytes = c->o.directory_bytes };
	int ret;

	if (c->active)
		return 0;
	c->stream = wfi_alloc(c->o.env, sizeof(*c->stream));
	c->hints = wfi_alloc(c->o.env, NR_HINTS * sizeof(*c->hints));
	c->chains = wfi_alloc(c->o.env, NR_CHAINS * sizeof(*c->chains));
	ret = c->stream && c->hints && c->chains ? 0 : -ENOMEM;
	if (!ret)
		ret = wfi_table_init(c->o.env, &c->heads,
				     wfi_kv_max_slots(c->o.kv) * sizeof(uint32_t), 0);
	if (!ret)
		ret = wfi_directory_create(&o, &c->directory);
	if (ret) {
		wfi_cl_announce_fini(c);
		return ret;
	}
	memset(c->holder_peers, WFI_PEER_NONE, sizeof(c->holder_peers));
	c->climb.slot = WFI_SLOT_NONE;
	c->watch = (struct wfi_kv_watch){ .held = on_held,
					  .gone = on_gone,
					  .below_held = on_below_held,
					  .below_gone = on_below_gone,
					  .below_anew = on_below_anew,
					  .chain = on_chain,
					  .ctx = c };
	wfi_kv_watch(c->o.kv, &c->watch);
	c->active = true;
	return 0;
}

void wfi_cl_announce_fini(struct wfi_cluster *c)
{
	if (c->active)
		wfi_kv_unwatch(c->o.kv, &c->watch);
	c->active = false;
	wfi_directory_destroy(c->directory);
	c->directory = NULL;
	if (c->heads.addr)
		wfi_table_fini(c->o.env, &c->heads);
	if (c->hints)
		wfi_free(c->o.env, c->hints, NR_HINTS * sizeof(*c->hints));
	c->hints = NULL;
	if (c->chains)
		wfi_free(c->o.env, c->chains, NR_CHAINS * sizeof(*c->chains));
	c->chains = NULL;
	if (c->stream)
		wfi_free(c->o.env, c->stream, sizeof(*c->stream));
	c->stream = NULL;
}
