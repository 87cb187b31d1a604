/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - a ring of events, from the worker to one reader
 *
 * The place of an event follows from its number, and numbers go on where events are lost: the
 * number that an entry carries tells whether it is the one that was looked for. An entry is written
 * anew only once the reader has let it go, so that what is read never changes.
 */
#include <errno.h>
#include <stdatomic.h>
#include "kvcache/kv_private.h"
#include "weft_internal/events.h"

#define WALK_MAX 256u /* slots, a call of wfi_kv_walk() */

struct wfi_events {
	struct wfi_events_opts o;
	struct wfi_kv *kv;
	struct wfi_kv_watch watch;

	/* the worker's */
	_Alignas(WFI_CACHELINE) _Atomic uint64_t head; /* number of the next event */
	/* the reader's */
	_Alignas(WFI_CACHELINE) _Atomic uint64_t tail; /* those below were let go */
	_Atomic bool armed; /* taken back by the worker */

	_Alignas(WFI_CACHELINE) struct wfi_event ring[WFI_EVENTS_MAX];
};

static void event_make(const struct wfi_kv *kv, uint32_t slot, struct wfi_event *out)
{
	const struct kv_space *space = kv_run(kv, slot)->space;

	*out = (struct wfi_event){
		.tenant = space->tenant,
		.space = space->info.id,
		.key = kv->headers[slot].key,
	};
}

/* of a block of the SSD tier. Return: false: nobody has opened its space here */
static bool below_make(const struct wfi_kv *kv, uint32_t slot, struct wfi_event *out)
{
	struct wfi_tier_block b;
	uint32_t i;

	wfi_kv_below_block(kv, slot, &b);
	for (i = 0; i < kv->nr_spaces; i++)
		if (kv->spaces[i] && kv->spaces[i]->info.tag == b.space_tag)
			break;
	if (i == kv->nr_spaces)
		return false;
	*out = (struct wfi_event){
		.tenant = kv->spaces[i]->tenant,
		.space = kv->spaces[i]->info.id,
		.key = b.key,
		.parent = b.parent,
		.below = true,
	};
	return true;
}

static void parent_set(const struct wfi_kv *kv, uint32_t parent, const struct weft_key *key,
		       struct wfi_event *out)
{
	if (parent != WFI_SLOT_NONE)
		key = &kv->headers[parent].key;
	if (key)
		out->parent = *key;
}

/* ---- the worker ---- */

/* Return: NULL: there is no room, the event is lost */
static struct wfi_event *room(struct wfi_events *e, uint64_t seq)
{
	/* pairs with the release in wfi_events_keep(): the reader is done with what it let go */
	if (seq - atomic_load_explicit(&e->tail, memory_order_acquire) >= WFI_EVENTS_MAX)
		return NULL;
	return &e->ring[seq & (WFI_EVENTS_MAX - 1)];
}

static void publish(struct wfi_events *e, uint64_t seq)
{
	/*
	 * Releases the entry to wfi_events_next(). Sequentially consistent, as is all of
	 * wfi_events_arm(): either this thread sees that the reader is to be woken, or the reader
	 * sees the event
	 */
	atomic_store(&e->head, seq + 1);
	if (wfi_unlikely(atomic_load(&e->armed))) {
		atomic_store(&e->armed, false);
		e->o.wake(e->o.ctx);
	}
}

static void on_held(void *ctx, uint32_t slot, uint32_t parent, const struct weft_key *parent_key)
{
	struct wfi_events *e = ctx;
	const uint64_t seq = atomic_load_explicit(&e->head, memory_order_relaxed);
	struct wfi_event *ev = room(e, seq);

	if (wfi_likely(ev != NULL)) {
		event_make(e->kv, slot, ev);
		parent_set(e->kv, parent, parent_key, ev);
		ev->seq = seq;
	}
	publish(e, seq);
}

static void on_gone(void *ctx, uint32_t slot)
{
	struct wfi_events *e = ctx;
	const uint64_t seq = atomic_load_explicit(&e->head, memory_order_relaxed);
	struct wfi_event *ev = room(e, seq);

	if (wfi_likely(ev != NULL)) {
		event_make(e->kv, slot, ev);
		ev->gone = true;
		ev->seq = seq;
	}
	publish(e, seq);
}

/* @what: all but its number */
static void tell(struct wfi_events *e, const struct wfi_event *what)
{
	const uint64_t seq = atomic_load_explicit(&e->head, memory_order_relaxed);
	struct wfi_event *ev = room(e, seq);

	if (wfi_likely(ev != NULL)) {
		*ev = *what;
		ev->seq = seq;
	}
	publish(e, seq);
}

static void on_below_held(void *ctx, uint32_t slot)
{
	struct wfi_events *e = ctx;
	struct wfi_event what;

	if (below_make(e->kv, slot, &what))
		tell(e, &what);
}

static void on_below_gone(void *ctx, uint32_t slot)
{
	struct wfi_events *e = ctx;
	struct wfi_event what;

	if (!below_make(e->kv, slot, &what))
		return;
	what.gone = true;
	what.parent = (struct weft_key){ 0 };
	tell(e, &what);
}

static void on_below_anew(void *ctx)
{
	tell(ctx, &(struct wfi_event){ .below = true, .anew = true });
}

void wfi_events_start(struct wfi_events *e, struct wfi_kv *kv)
{
	e->kv = kv;
	wfi_kv_watch(kv, &e->watch);
}

void wfi_events_stop(struct wfi_events *e)
{
	wfi_kv_unwatch(e->kv, &e->watch);
}

static uint32_t walk_below(struct wfi_kv *kv, const struct wfi_tenant *tenant, uint32_t *at,
			   uint32_t max, struct wfi_event *out)
{
	uint32_t slots[WALK_MAX], below = *at & ~WFI_SLOT_BELOW, nr, i, n = 0;

	nr = wfi_kv_below_walk(kv, &below, wfi_min(max, WALK_MAX), slots);
	for (i = 0; i < nr; i++)
		if (below_make(kv, slots[i], &out[n]) && out[n].tenant == tenant)
			n++;
	*at = below ? below | WFI_SLOT_BELOW : 0;
	return n;
}

uint32_t wfi_events_walk(struct wfi_kv *kv, const struct wfi_tenant *tenant, uint32_t *at,
			 uint32_t max, struct wfi_event *out)
{
	uint32_t slots[WALK_MAX], nr, i, n = 0;

	if (*at & WFI_SLOT_BELOW)
		return walk_below(kv, tenant, at, max, out);
	nr = wfi_kv_walk(kv, at, wfi_min(max, WALK_MAX), slots);
	for (i = 0; i < nr; i++) {
		if (kv_run(kv, slots[i])->space->tenant != tenant)
			continue;
		event_make(kv, slots[i], &out[n]);
		parent_set(kv, wfi_kv_slot_parent(kv, slots[i]), NULL, &out[n]);
		n++;
	}
	if (!*at && wfi_kv_has_tier(kv))
		*at = WFI_SLOT_BELOW;
	return n;
}

/* ---- the reader ---- */

uint64_t wfi_events_next(const struct wfi_events *e)
{
	/* pairs with the store in publish(): entries below the number are whole */
	return atomic_load_explicit(&e->head, memory_order_acquire);
}

uint64_t wfi_events_first(const struct wfi_events *e)
{
	return atomic_load_explicit(&e->tail, memory_order_relaxed);
}

const struct wfi_event *wfi_events_get(const struct wfi_events *e, uint64_t seq)
{
	const struct wfi_event *ev = &e->ring[seq & (WFI_EVENTS_MAX - 1)];
	const uint64_t first = wfi_events_first(e);

	/* behind a full ring there is nothing of that number, and what is there is being read */
	if (seq < first || seq - first >= WFI_EVENTS_MAX || seq >= wfi_events_next(e))
		return NULL;
	return ev->seq == seq ? ev : NULL;
}

void wfi_events_keep(struct wfi_events *e, uint64_t nr)
{
	const uint64_t next = wfi_events_next(e), first = wfi_events_first(e);

	if (next - first > nr)
		/* pairs with the acquire in room() */
		atomic_store_explicit(&e->tail, next - nr, memory_order_release);
}

bool wfi_events_arm(struct wfi_events *e, uint64_t seq)
{
	atomic_store(&e->armed, true);
	/* see publish() */
	return atomic_load(&e->head) <= seq;
}

/* ---- beginning and end ---- */

int wfi_events_create(const struct wfi_events_opts *opts, struct wfi_events **out)
{
	struct wfi_events *e = wfi_alloc(opts->env, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->o = *opts;
	e->watch = (struct wfi_kv_watch){ .held = on_held,
					  .gone = on_gone,
					  .below_held = on_below_held,
					  .below_gone = on_below_gone,
					  .below_anew = on_below_anew,
					  .ctx = e };
	atomic_init(&e->head, opts->first);
	atomic_init(&e->tail, opts->first);
	*out = e;
	return 0;
}

void wfi_events_destroy(struct wfi_events *e)
{
	if (e)
		wfi_free(e->o.env, e, sizeof(*e));
}
