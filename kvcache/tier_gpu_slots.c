/* SPDX-License-Identifier: Apache-2.0 */
/* tier_gpu_slots.c - where copies lie in a GPU's memory, and which go */
#include <errno.h>

#include "kvcache/tier_gpu.h"

#define BLOCK_SHIFT 12u
#define CHUNK_MIN (2ull << 20)
#define CHUNK_MAX (64ull << 20)
#define CHUNKS_LIKED 64u /* so many, if they are not too small */
#define CLOCK_STEPS 64u
#define SHRINK_STEPS 64u /* chunks in a turn */

WEFT_STATIC_ASSERT(WFI_TIER_GPU_BLOCK_MIN == 1u << BLOCK_SHIFT, "numbers count these");

/* what .where says: two bits, and below a generation's last ones or a copy's number */
enum where { NOTHING, WANTED, PUT_DOWN, COPIED };
#define WHERE_BITS 30u
#define WHERE_MASK ((1u << WHERE_BITS) - 1)

static uint32_t where(enum where what, uint32_t low)
{
	return (uint32_t)what << WHERE_BITS | (low & WHERE_MASK);
}

static unsigned copy_shift(const struct gpu_slots *s)
{
	return s->chunk_shift - BLOCK_SHIFT;
}

static struct gpu_chunk *chunk_of(const struct gpu_slots *s, uint32_t copy)
{
	return &s->chunks[copy >> copy_shift(s)];
}

static uint32_t copy_of(const struct gpu_slots *s, uint32_t chunk, uint32_t at)
{
	return (chunk << copy_shift(s)) + at;
}

uint64_t wfi_gpu_slots_off(const struct gpu_slots *s, uint32_t copy)
{
	const uint32_t chunk = copy >> copy_shift(s);

	return ((uint64_t)chunk << s->chunk_shift) +
	       (uint64_t)(copy - copy_of(s, chunk, 0)) * s->chunks[chunk].stride;
}

/* ---- rings of chunks ---- */

/* as the last one from *@ring on, which is GPU_NONE when it has none: a hand comes by it last, and
 * what is nobody's is given away in the order in which it came */
static void ring_join(struct gpu_slots *s, enum gpu_ring kind, uint32_t *ring, uint32_t chunk)
{
	struct gpu_link *link = &s->chunks[chunk].links[kind], *at;

	if (*ring == GPU_NONE) {
		*link = (struct gpu_link){ chunk, chunk };
		*ring = chunk;
		return;
	}
	at = &s->chunks[*ring].links[kind];
	*link = (struct gpu_link){ .next = *ring, .prev = at->prev };
	s->chunks[at->prev].links[kind].next = chunk;
	at->prev = chunk;
}

static void ring_leave(struct gpu_slots *s, enum gpu_ring kind, uint32_t *ring, uint32_t chunk)
{
	const struct gpu_link link = s->chunks[chunk].links[kind];

	s->chunks[link.prev].links[kind].next = link.next;
	s->chunks[link.next].links[kind].prev = link.prev;
	if (*ring == chunk)
		*ring = link.next == chunk ? GPU_NONE : link.next;
}

/* ---- set-up ---- */

uint64_t wfi_tier_gpu_chunk(uint64_t bytes)
{
	uint64_t chunk = CHUNK_MAX;

	while (chunk > CHUNK_MIN && bytes / chunk < CHUNKS_LIKED)
		chunk /= 2;
	return chunk;
}

int wfi_gpu_slots_init(struct gpu_slots *s, const struct wfi_tier_gpu_opts *o)
{
	uint32_t i;
	int ret;

	s->env = o->env;
	s->kv = o->kv;
	s->chunk_shift = (unsigned)__builtin_ctzll(o->chunk_bytes);
	s->max_chunks = (uint32_t)(o->rkey->len >> s->chunk_shift);
	s->free = GPU_NONE;
	ret = wfi_table_init(o->env, &s->where_table, wfi_kv_max_slots(o->kv) * sizeof(*s->where),
			     0);
	if (!ret)
		ret = wfi_table_init(
			o->env, &s->copy_table,
			((uint64_t)s->max_chunks << copy_shift(s)) * sizeof(*s->copies), 0);
	s->where = s->where_table.addr;
	s->copies = s->copy_table.addr;
	if (!ret)
		s->chunks = wfi_alloc(o->env, (s->max_chunks + 1) * sizeof(*s->chunks));
	if (!s->chunks)
		return ret ? ret : -ENOMEM;
	for (i = 0; i < s->max_chunks; i++)
		s->chunks[i].class = GPU_NONE;
	wfi_gpu_slots_resize(s, o->bytes);
	return 0;
}

void wfi_gpu_slots_fini(struct gpu_slots *s)
{
	if (!s->env)
		return;
	if (s->chunks)
		wfi_free(s->env, s->chunks, (s->max_chunks + 1) * sizeof(*s->chunks));
	wfi_table_fini(s->env, &s->where_table);
	wfi_table_fini(s->env, &s->copy_table);
}

/* ---- what is known of a slot's block ---- */

/* Return: the copy that was made of it, if it has not gone; GPU_NONE */
static uint32_t copied(const struct gpu_slots *s, uint32_t slot, uint32_t gen)
{
	const uint32_t w = s->where[slot], copy = w & WHERE_MASK;
	const struct gpu_copy *c = &s->copies[copy];
	const struct gpu_chunk *chunk;

	if (w >> WHERE_BITS != COPIED)
		return GPU_NONE;
	chunk = chunk_of(s, copy);
	if (copy - copy_of(s, copy >> copy_shift(s), 0) >= chunk->fresh || c->slot != slot ||
	    c->gen != gen || c->state == GPU_COPY_FREE || c->state == GPU_COPY_GONE)
		return GPU_NONE;
	return copy;
}

uint32_t wfi_gpu_slots_find(const struct gpu_slots *s, uint32_t slot, uint32_t gen)
{
	const uint32_t copy = copied(s, slot, gen);

	return copy != GPU_NONE && s->copies[copy].state == GPU_COPY_GOOD ? copy : GPU_NONE;
}

bool wfi_gpu_slots_note(struct gpu_slots *s, uint32_t slot, uint32_t gen)
{
	const uint32_t w = s->where[slot];

	if (w == where(WANTED, gen))
		return true;
	if (w == where(PUT_DOWN, gen) || copied(s, slot, gen) != GPU_NONE)
		return false;
	wfi_table_use(s->env, &s->where_table, (slot + 1ull) * sizeof(*s->where));
	s->where[slot] = where(WANTED, gen);
	return false;
}

void wfi_gpu_slots_put_down(struct gpu_slots *s, uint32_t slot, uint32_t gen)
{
	s->where[slot] = where(PUT_DOWN, gen);
}

void wfi_gpu_slots_put_off(struct gpu_slots *s, uint32_t slot, uint32_t gen)
{
	s->where[slot] = where(WANTED, gen);
}

/* ---- pins, and the way out ---- */

void wfi_gpu_slots_pin(struct gpu_slots *s, uint32_t copy)
{
	struct gpu_copy *c = &s->copies[copy];
	struct gpu_chunk *chunk = chunk_of(s, copy);

	chunk->nr_pinned += !c->pins++;
	chunk->used = true;
	c->used = true;
}

void wfi_gpu_slots_good(struct gpu_slots *s, uint32_t copy)
{
	struct gpu_copy *c = &s->copies[copy];

	/* unless all were lost meanwhile */
	if (c->state == GPU_COPY_FILLING)
		c->state = GPU_COPY_GOOD;
}

static void copy_free(struct gpu_slots *s, uint32_t copy)
{
	const uint32_t chunk = copy >> copy_shift(s);
	struct gpu_chunk *ch = &s->chunks[chunk];
	struct gpu_copy *c = &s->copies[copy];

	c->state = GPU_COPY_FREE;
	c->next = ch->free;
	ch->free = copy;
	s->nr_copies--;
	s->bytes_held -= ch->stride;
	if (ch->nr_copies-- == ch->nr)
		ring_join(s, GPU_ROOM, &s->classes[ch->class].room, chunk);
}

/* one less in a chunk that has left */
static void left_unpin(struct gpu_slots *s, struct gpu_chunk *ch)
{
	ch->nr_copies--;
	s->nr_copies--;
	s->bytes_held -= ch->stride;
	s->nr_left -= !ch->nr_copies;
}

void wfi_gpu_slots_unpin(struct gpu_slots *s, uint32_t copy)
{
	struct gpu_chunk *ch = chunk_of(s, copy);
	struct gpu_copy *c = &s->copies[copy];

	if (--c->pins)
		return;
	ch->nr_pinned--;
	if (wfi_unlikely(ch->class == GPU_NONE))
		left_unpin(s, ch);
	else if (c->state == GPU_COPY_GONE)
		copy_free(s, copy);
}

void wfi_gpu_slots_drop(struct gpu_slots *s, uint32_t copy)
{
	struct gpu_copy *c = &s->copies[copy];

	if (c->state == GPU_COPY_FREE || c->state == GPU_COPY_GONE)
		return;
	if (c->pins)
		c->state = GPU_COPY_GONE;
	else
		copy_free(s, copy);
}

/* ---- chunks ---- */

/* of those that are nobody's */
static void class_join(struct gpu_slots *s, uint32_t class, uint64_t stride)
{
	struct gpu_class *c = &s->classes[class];
	const uint32_t chunk = s->free;
	struct gpu_chunk *ch = &s->chunks[chunk];

	ring_leave(s, GPU_RING, &s->free, chunk);
	*ch = (struct gpu_chunk){
		.class = class,
		.stride = (uint32_t)stride,
		.nr = (uint32_t)((1ull << s->chunk_shift) / stride),
		.free = GPU_NONE,
		.used = true,
	};
	if (!c->nr_chunks)
		*c = (struct gpu_class){ .stride = stride, .chunk = GPU_NONE, .room = GPU_NONE };
	c->nr_chunks++;
	ring_join(s, GPU_RING, &c->chunk, chunk);
	ring_join(s, GPU_ROOM, &c->room, chunk);
	wfi_table_use(s->env, &s->copy_table,
		      (uint64_t)copy_of(s, chunk, ch->nr) * sizeof(*s->copies));
}

/* what nobody pins there has gone; it is of no ring any more */
static void class_leave(struct gpu_slots *s, uint32_t chunk)
{
	struct gpu_chunk *ch = &s->chunks[chunk];
	struct gpu_class *c = &s->classes[ch->class];

	if (c->chunk == chunk)
		c->at = 0;
	ring_leave(s, GPU_RING, &c->chunk, chunk);
	if (ch->nr_copies < ch->nr)
		ring_leave(s, GPU_ROOM, &c->room, chunk);
	c->nr_chunks--;
	s->nr_copies -= ch->nr_copies - ch->nr_pinned;
	s->bytes_held -= (uint64_t)(ch->nr_copies - ch->nr_pinned) * ch->stride;
	*ch = (struct gpu_chunk){
		.class = GPU_NONE,
		.stride = ch->stride,
		.nr_copies = ch->nr_pinned,
		.nr_pinned = ch->nr_pinned,
	};
}

static void chunk_free(struct gpu_slots *s, uint32_t chunk)
{
	class_leave(s, chunk);
	ring_join(s, GPU_RING, &s->free, chunk);
}

void wfi_gpu_slots_resize(struct gpu_slots *s, uint64_t bytes)
{
	s->want_chunks = (uint32_t)wfi_min(bytes >> s->chunk_shift, s->max_chunks);
	for (; s->nr_chunks < s->want_chunks; s->nr_chunks++)
		ring_join(s, GPU_RING, &s->free, s->nr_chunks);
}

/* the last one is no more */
static void chunk_shrink(struct gpu_slots *s)
{
	const uint32_t chunk = --s->nr_chunks;
	struct gpu_chunk *ch = &s->chunks[chunk];

	if (s->hand >= s->nr_chunks)
		s->hand = 0;
	if (ch->class == GPU_NONE) {
		ring_leave(s, GPU_RING, &s->free, chunk);
		return;
	}
	s->nr_evicted += ch->nr_copies - ch->nr_pinned;
	class_leave(s, chunk);
	s->nr_left += ch->nr_pinned > 0;
}

int wfi_gpu_slots_shrink(struct gpu_slots *s)
{
	uint32_t i;

	for (i = 0; i < SHRINK_STEPS && s->nr_chunks > s->want_chunks; i++)
		chunk_shrink(s);
	return i > 0;
}

void wfi_gpu_slots_clear(struct gpu_slots *s)
{
	uint32_t i, k;

	for (i = 0; i < s->nr_chunks; i++) {
		struct gpu_chunk *ch = &s->chunks[i];

		if (ch->class == GPU_NONE)
			continue;
		for (k = 0; ch->nr_pinned && k < ch->fresh; k++)
			wfi_gpu_slots_drop(s, copy_of(s, i, k));
		if (!ch->nr_pinned)
			chunk_free(s, i);
	}
}

/* a chunk for this class: one that is nobody's, or the one that the hand is at, if it was not used
 * since the last time. Return: whether there is one */
static bool chunk_get(struct gpu_slots *s, uint32_t class, uint64_t stride)
{
	if (s->free == GPU_NONE) {
		const uint32_t i = s->hand;
		struct gpu_chunk *ch = &s->chunks[i];

		s->hand = (s->hand + 1) % s->nr_chunks;
		if (ch->used || ch->nr_pinned || ch->class == class) {
			ch->used = false;
			return false;
		}
		s->nr_evicted += ch->nr_copies;
		chunk_free(s, i);
	}
	class_join(s, class, stride);
	return true;
}

/* Return: the class of that size, or one that is free, or GPU_CLASSES */
static uint32_t class_of(const struct gpu_slots *s, uint64_t stride)
{
	uint32_t i, out = GPU_CLASSES;

	for (i = 0; i < GPU_CLASSES; i++) {
		if (!s->classes[i].nr_chunks)
			out = i;
		else if (s->classes[i].stride == stride)
			return i;
	}
	return out;
}

/* ---- places ---- */

static uint32_t place_free(struct gpu_slots *s, struct gpu_class *c)
{
	const uint32_t chunk = c->room;
	struct gpu_chunk *ch = &s->chunks[chunk];
	uint32_t copy = ch->free;

	if (copy != GPU_NONE)
		ch->free = s->copies[copy].next;
	else
		copy = copy_of(s, chunk, ch->fresh++);
	if (++ch->nr_copies == ch->nr)
		ring_leave(s, GPU_ROOM, &c->room, chunk);
	s->nr_copies++;
	s->bytes_held += c->stride;
	return copy;
}

/* Return: a copy that went, or GPU_NONE: all that were looked at were used */
static uint32_t place_evict(struct gpu_slots *s, struct gpu_class *c)
{
	uint32_t i, copy;

	for (i = 0; i < CLOCK_STEPS; i++) {
		const struct gpu_chunk *ch = &s->chunks[c->chunk];
		struct gpu_copy *e;

		if (c->at >= ch->fresh) {
			c->chunk = ch->links[GPU_RING].next;
			c->at = 0;
			continue;
		}
		copy = copy_of(s, c->chunk, c->at++);
		e = &s->copies[copy];
		if (e->state != GPU_COPY_GOOD || e->pins)
			continue;
		if (!e->used || !wfi_kv_slot_held(s->kv, e->slot, e->gen)) {
			s->nr_evicted++;
			return copy;
		}
		e->used = false;
	}
	return GPU_NONE;
}

uint32_t wfi_gpu_slots_take(struct gpu_slots *s, uint64_t stride, uint32_t slot, uint32_t gen)
{
	const uint32_t class = class_of(s, stride);
	struct gpu_class *c = &s->classes[class];
	uint32_t copy;

	if (stride < WFI_TIER_GPU_BLOCK_MIN || stride > 1ull << s->chunk_shift || !s->nr_chunks ||
	    class == GPU_CLASSES)
		return GPU_NONE;
	if ((c->nr_chunks && c->room != GPU_NONE) || chunk_get(s, class, stride))
		copy = place_free(s, c);
	else
		copy = c->nr_chunks ? place_evict(s, c) : GPU_NONE;
	if (copy == GPU_NONE)
		return copy;
	s->copies[copy] = (struct gpu_copy){ .slot = slot, .gen = gen, .state = GPU_COPY_FILLING };
	wfi_gpu_slots_pin(s, copy);
	/* that was no use: the hand comes by in a while */
	s->copies[copy].used = false;
	s->where[slot] = where(COPIED, copy);
	return copy;
}
