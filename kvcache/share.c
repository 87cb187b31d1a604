/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share.c - who has more than its share
 *
 * A tenant's arena is its quota. Where all arenas together are more than memory_bytes, tenants
 * share that: a floor is kept for its tenant whether it is used or not; what is above the floors is
 * for whoever wants it, first come, until it is all used. From then on who wants more takes runs
 * from the tenant that uses most for its weight, as long as that one still has no less for its
 * weight afterwards: under equal pressure tenants end up with what their weights say. Who was not
 * used for idle_ns has no share, and loses all that is above its floor to those who want it.
 *
 * Between the spaces of one tenant the same holds, without floors and with equal weights.
 *
 * All of it is looked at for a run, never for a block, and costs as much as there are spaces.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "kvcache/kv_private.h"
#include "weft_internal/log.h"

#define SLICE_BYTES (64ull << 10) /* on small pages about 20 us */
#define MAX_WEIGHT 1000u

static uint64_t charge(const struct wfi_tenant *t)
{
	return wfi_max(t->used_bytes, t->floor_bytes);
}

/* @left: of what all share. Return: 0, -EINVAL: logged */
static int share_check(const struct wfi_tenant *t, uint64_t floor_bytes, uint32_t weight,
		       uint64_t left)
{
	if (floor_bytes <= left && weight <= MAX_WEIGHT)
		return 0;
	wfi_err("tenant '%s': a floor of %" PRIu64 " bytes where %" PRIu64
		" are left of what all share, or a weight of %u where %u is the most",
		t->name, floor_bytes, left, weight, MAX_WEIGHT);
	return -EINVAL;
}

int wfi_share_join(struct wfi_kv *kv, struct wfi_tenant *t, const struct wfi_tenant_opts *opts)
{
	t->floor_bytes = opts->floor_bytes;
	t->tier_floor_bytes = opts->tier_floor_bytes;
	t->weight = opts->weight ? opts->weight : 1;
	if (share_check(t, t->floor_bytes, t->weight, kv->memory_bytes - kv->charged_bytes))
		return -EINVAL;
	kv->charged_bytes += t->floor_bytes;
	kv->weights += t->weight;
	return 0;
}

int wfi_share_change(struct wfi_tenant *t, const struct wfi_tenant_opts *opts)
{
	const uint32_t weight = opts->weight ? opts->weight : 1;
	struct wfi_kv *kv = t->kv;

	/* what it uses above its floor is others' to take, and not a floor's to count on */
	if (share_check(t, wfi_max(opts->floor_bytes, t->used_bytes), weight,
			kv->memory_bytes - kv->charged_bytes + charge(t)))
		return -EINVAL;
	kv->charged_bytes -= charge(t);
	t->floor_bytes = opts->floor_bytes;
	kv->charged_bytes += charge(t);
	kv->weights += weight - t->weight;
	t->weight = weight;
	return 0;
}

static void used_change(struct wfi_tenant *t, uint64_t used_bytes)
{
	t->kv->charged_bytes -= charge(t);
	t->used_bytes = used_bytes;
	t->kv->charged_bytes += charge(t);
}

void wfi_share_gain(struct kv_run *run)
{
	struct wfi_tenant *t = run->space->tenant;

	used_change(t, t->used_bytes + kv_run_bytes(run->space));
	t->nr_granules += kv_run_granules(run->space);
	t->kv->used_granules += kv_run_granules(run->space);
}

void wfi_share_lose(struct kv_run *run)
{
	struct wfi_tenant *t = run->space->tenant;

	used_change(t, t->used_bytes - kv_run_bytes(run->space));
	t->nr_granules -= kv_run_granules(run->space);
	t->kv->used_granules -= kv_run_granules(run->space);
}

uint64_t wfi_share_room(const struct wfi_tenant *t)
{
	const uint64_t reserved = charge(t) - t->used_bytes;

	return t->kv->memory_bytes - t->kv->charged_bytes + reserved;
}

bool wfi_share_numbers(const struct wfi_tenant *t, uint32_t nr)
{
	const struct wfi_kv *kv = t->kv;
	const uint64_t half = kv->nr_granules / 2;
	uint64_t wanted = nr;

	for (uint32_t i = 0; i < kv->nr_tenants; i++) {
		const struct wfi_tenant *u = kv->tenants[i];
		const uint64_t kept = half * u->weight / kv->weights;

		if (u != t && u->nr_granules < kept)
			wanted += kept - u->nr_granules;
	}
	return wanted <= kv->nr_granules - kv->used_granules;
}

void wfi_tenant_share(const struct wfi_tenant *t, struct wfi_tenant_share *out)
{
	*out = (struct wfi_tenant_share){
		.used_bytes = t->used_bytes,
		.floor_bytes = t->floor_bytes,
		.weight = t->weight,
	};
}

/* ---- who goes first ---- */

static bool space_idle(const struct kv_space *s)
{
	return s->tenant->kv->now_ns - s->used_ns >= s->tenant->kv->idle_ns;
}

bool wfi_share_idle(const struct wfi_tenant *t)
{
	for (const struct kv_space *s = t->spaces; s; s = s->next)
		if (!space_idle(s))
			return false;
	return true;
}

/* what nobody has a block in is for who has one, before any block goes */
static bool space_empty(const struct kv_space *s)
{
	return s->nr_free == s->nr_slots;
}

static uint64_t space_bytes(const struct kv_space *s)
{
	return s->nr_runs * kv_run_bytes(s);
}

/* whether a run of @from may become one of @to, of another tenant */
static bool tenant_may_lose(const struct kv_space *from, const struct kv_space *to)
{
	const struct wfi_tenant *f = from->tenant, *t = to->tenant;

	if (f->used_bytes < f->floor_bytes + kv_run_bytes(from))
		return false;
	return space_empty(from) || wfi_share_idle(f) ||
	       (f->used_bytes - kv_run_bytes(from)) * t->weight >=
		       (t->used_bytes + kv_run_bytes(to)) * f->weight;
}

static bool space_may_lose(const struct kv_space *from, const struct kv_space *to, bool must)
{
	return must || space_empty(from) || space_idle(from) ||
	       space_bytes(from) - kv_run_bytes(from) >= space_bytes(to) + kv_run_bytes(to);
}

/* Return: true when @a is to lose a run rather than @b */
static bool goes_first(const struct kv_space *a, const struct kv_space *b)
{
	const struct wfi_tenant *ta = a->tenant, *tb = b->tenant;

	if (space_empty(a) != space_empty(b))
		return space_empty(a);
	if (ta == tb && space_idle(a) != space_idle(b))
		return space_idle(a);
	if (ta == tb)
		return space_bytes(a) > space_bytes(b);
	if (wfi_share_idle(ta) != wfi_share_idle(tb))
		return wfi_share_idle(ta);
	return ta->used_bytes * tb->weight > tb->used_bytes * ta->weight;
}

struct kv_space *wfi_share_victim(struct wfi_kv *kv, const struct kv_space *space, bool own,
				  bool must)
{
	struct kv_space *found = NULL;

	for (uint32_t i = 0; i < kv->nr_spaces; i++) {
		struct kv_space *s = kv->spaces[i];
		const bool ours = s && s->tenant == space->tenant;

		if (!s)
			continue;
		if (s == space || s->leaving || !s->nr_runs || s->stamp == kv->stamp ||
		    (own && !ours))
			continue;
		if (!(ours ? space_may_lose(s, space, must) : tenant_may_lose(s, space)))
			continue;
		if (!found || goes_first(s, found))
			found = s;
	}
	return found;
}

/* ---- pages that go back ---- */

void wfi_share_leave(struct wfi_kv *kv, struct kv_run *run)
{
	run->next = NULL;
	*kv->last_leaving = run;
	kv->last_leaving = &run->next;
}

bool wfi_share_leaves(const struct wfi_kv *kv, const struct kv_space *space)
{
	const struct kv_run *run = kv->leaving;

	while (run && run->space != space)
		run = run->next;
	return run;
}

int wfi_share_poll(struct wfi_kv *kv)
{
	struct kv_run *run = kv->leaving;
	struct wfi_tenant *t = run->space->tenant;
	const uint64_t slice = wfi_max(SLICE_BYTES, t->arena.page_bytes);
	const uint64_t len = wfi_min(slice, kv_run_bytes(run->space) - run->discarded);
	const int ret = kv->env->mem->discard(kv->env, &t->arena, run->off + run->discarded, len);

	if (ret)
		wfi_warn_once("tenant '%s': memory does not go back to the system: %s", t->name,
			      strerror(-ret));
	run->discarded += len;
	if (run->discarded < kv_run_bytes(run->space))
		return 1;
	wfi_extents_free(t, run->extent, run->space->run_extents);
	kv->leaving = run->next;
	if (!kv->leaving)
		kv->last_leaving = &kv->leaving;
	wfi_free(kv->env, run, sizeof(*run));
	return 1;
}

void wfi_share_fini(struct wfi_kv *kv)
{
	struct kv_run *run, *next;

	for (run = kv->leaving; run; run = next) {
		next = run->next;
		wfi_free(kv->env, run, sizeof(*run));
	}
	kv->leaving = NULL;
}
