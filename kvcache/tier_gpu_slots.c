/* SPDX-License-Identifier: Apache-2.0 */
/* tier_gpu_slots.c - where copies lie in a GPU's memory, and which go */
#include <errno.h>

#include "kvcache/tier_gpu.h"

#define BLOCK_SHIFT 12u
#define CHUNK_MIN (1ull << 20)
#define CHUNK_MAX (64ull << 20)
#define CHUNKS_LIKED 64u /* so many, if they are not too small */
#define CLOCK_STEPS 64u

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
	       (copy - copy_of(s, chunk, 0)) * s->classes[s->chunks[chunk].class].stride;
}

/* ---- set-up ---- */

static unsigned chunk_shift_of(const struct wfi_tier_gpu_opts *o)
{
	uint64_t bytes = CHUNK_MAX;

	if (o->chunk_bytes)
		return (unsigned)__builtin_ctzll(o->chunk_bytes);
	while (bytes > CHUNK_MIN && o->rkey->len / bytes < CHUNKS_LIKED)
		bytes /= 2;
	return (unsigned)__builtin_ctzll(bytes);
}

int wfi_gpu_slots_init(struct gpu_slots *s, const struct wfi_tier_gpu_opts *o)
{
	uint32_t i;
	int ret;

	s->env = o->env;
	s->kv = o->kv;
	s->chunk_shift = chunk_shift_of(o);
	s->nr_chunks = (uint32_t)(o->rkey->len >> s->chunk_shift);
	ret = wfi_table_init(o->env, &s->where_table, wfi_kv_max_slots(o->kv) * sizeof(*s->where),
			     0);
	if (!ret)
		ret = wfi_table_init(o->env, &s->copy_table,
				     ((uint64_t)s->nr_chunks << copy_shift(s)) * sizeof(*s->copies),
				     0);
	s->where = s->where_table.addr;
	s->copies = s->copy_table.addr;
	if (!ret)
		s->chunks = wfi_alloc(o->env, (s->nr_chunks + 1) * sizeof(*s->chunks));
	if (!s->chunks)
		return ret ? ret : -ENOMEM;
	for (i = 0; i < s->nr_chunks; i++)
		s->chunks[i].class = GPU_NONE;
	s->nr_free = s->nr_chunks;
	return 0;
}

void wfi_gpu_slots_fini(struct gpu_slots *s)
{
	if (!s->env)
		return;
	if (s->chunks)
		wfi_free(s->env, s->chunks, (s->nr_chunks + 1) * sizeof(*s->chunks));
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
	struct gpu_chunk *chunk = chunk_of(s, copy);
	struct gpu_class *class = &s->classes[chunk->class];
	struct gpu_copy *c = &s->copies[copy];

	c->state = GPU_COPY_FREE;
	c->next = chunk->free;
	chunk->free = copy;
	chunk->nr_copies--;
	class->room++;
	s->nr_copies--;
	s->bytes_held -= class->stride;
}

void wfi_gpu_slots_unpin(struct gpu_slots *s, uint32_t copy)
{
	struct gpu_copy *c = &s->copies[copy];

	if (--c->pins)
		return;
	chunk_of(s, copy)->nr_pinned--;
	if (c->state == GPU_COPY_GONE)
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

static void class_join(struct gpu_slots *s, uint32_t class, uint32_t chunk, uint64_t stride)
{
	struct gpu_class *c = &s->classes[class];
	struct gpu_chunk *ch = &s->chunks[chunk];

	*ch = (struct gpu_chunk){
		.class = class,
		.next = c->nr_chunks ? s->chunks[c->chunk].next : chunk,
		.nr = (uint32_t)((1ull << s->chunk_shift) / stride),
		.free = GPU_NONE,
		.used = true,
	};
	if (c->nr_chunks++)
		s->chunks[c->chunk].next = chunk;
	else
		*c = (struct gpu_class){ .stride = stride, .nr_chunks = 1, .chunk = chunk };
	c->room += ch->nr;
	s->nr_free--;
	wfi_table_use(s->env, &s->copy_table,
		      (uint64_t)copy_of(s, chunk, ch->nr) * sizeof(*s->copies));
}

/* it has no pinned copy */
static void class_leave(struct gpu_slots *s, uint32_t chunk)
{
	struct gpu_chunk *ch = &s->chunks[chunk];
	struct gpu_class *c = &s->classes[ch->class];
	uint32_t prev = chunk;

	while (s->chunks[prev].next != chunk)
		prev = s->chunks[prev].next;
	s->chunks[prev].next = ch->next;
	if (c->chunk == chunk) {
		c->chunk = ch->next;
		c->at = 0;
	}
	c->nr_chunks--;
	c->room -= ch->nr - ch->nr_copies;
	s->nr_copies -= ch->nr_copies;
	s->bytes_held -= ch->nr_copies * c->stride;
	*ch = (struct gpu_chunk){ .class = GPU_NONE };
	s->nr_free++;
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
			class_leave(s, i);
	}
}

/* a chunk for this class: one that is nobody's, or the one that the hand is at, if it was not used
 * since the last time. Return: whether there is one */
static bool chunk_get(struct gpu_slots *s, uint32_t class, uint64_t stride)
{
	struct gpu_chunk *ch;
	uint32_t i;

	for (i = 0; s->nr_free && s->chunks[i].class != GPU_NONE; i++)
		;
	if (!s->nr_free) {
		i = s->hand;
		s->hand = (s->hand + 1) % s->nr_chunks;
		ch = &s->chunks[i];
		if (ch->used || ch->nr_pinned || ch->class == class) {
			ch->used = false;
			return false;
		}
		s->nr_evicted += ch->nr_copies;
		class_leave(s, i);
	}
	class_join(s, class, i, stride);
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
	uint32_t i = c->chunk, copy;
	struct gpu_chunk *ch;

	while (s->chunks[i].nr_copies == s->chunks[i].nr)
		i = s->chunks[i].next;
	ch = &s->chunks[i];
	copy = ch->free;
	if (copy != GPU_NONE)
		ch->free = s->copies[copy].next;
	else
		copy = copy_of(s, i, ch->fresh++);
	ch->nr_copies++;
	c->room--;
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
			c->chunk = ch->next;
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
	if ((c->nr_chunks && c->room) || chunk_get(s, class, stride))
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
