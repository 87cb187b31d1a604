/* SPDX-License-Identifier: Apache-2.0 */
/* copies of blocks in a GPU's memory: which are made, which are believed, which go */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "tests/unit/cuda_rig.h"
#include "tests/unit/kv_rig.h"
#include "weft_internal/tier_gpu.h"

#define BLOCK 4096u
#define CHUNK (64u << 10)
#define PER_CHUNK (CHUNK / BLOCK)
#define CHUNKS 4u
#define ROOM (CHUNKS * PER_CHUNK)
#define ARENA (8u << 20)
#define TENANTS 2u
#define MANY 200u

struct fx {
	struct rig *r;
	struct wfi_kv *kv;
	struct wfi_xfer_engine *xfer;
	struct wfi_tenant *tenants[TENANTS];
	struct weft_mr *arenas[TENANTS];
	struct wfi_space_info spaces[TENANTS], large; /* of the first tenant's */
	struct wfi_owner owners[TENANTS];
	uint64_t mem;
	struct weft_ep *ep;
	struct weft_rkey *rkey;
	struct weft_mr *mr;
	struct wfi_tier_gpu *tier;
	uint64_t now;
};

static const struct weft_mr *arena(void *ctx, const struct wfi_tenant *t)
{
	struct fx *f = ctx;

	return f->arenas[t == f->tenants[1]];
}

static struct weft_mr *reg(struct fx *f, void *addr, uint64_t len, uint32_t kind)
{
	const struct weft_mr_opts opts = {
		.size = sizeof(opts),
		.addr = addr,
		.len = len,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.kind = kind,
	};
	struct weft_mr *mr;

	assert_int_equal(f->r->t->mr_reg(f->r->dev, &opts, &mr), 0);
	return mr;
}

static void tier_new_of(struct fx *f, uint64_t bytes, uint64_t write_bps)
{
	const struct wfi_tier_gpu_opts opts = {
		.env = &f->r->env,
		.kv = f->kv,
		.xfer = f->xfer,
		.ep = f->ep,
		.rkey = f->rkey,
		.mr = f->mr,
		.arena = arena,
		.ctx = f,
		.bytes = bytes,
		.chunk_bytes = CHUNK,
		.write_bps = write_bps,
		.timeout_ns = WFI_NSEC_PER_SEC,
	};

	wfi_tier_gpu_destroy(f->tier);
	assert_int_equal(wfi_tier_gpu_create(&opts, &f->tier), 0);
}

static void tier_new(struct fx *f, uint64_t write_bps)
{
	tier_new_of(f, CHUNKS * CHUNK, write_bps);
}

static int fx_setup(void **state)
{
	struct fx *f = calloc(1, sizeof(*f));
	struct wfi_xfer_engine_opts eng = { 0 };
	struct wfi_kv_opts kv = { .extent_bytes = 1 << 20, .max_slots = 1 << 16 };
	void *rig;

	assert_non_null(f);
	setup(&rig);
	f->r = rig;
	f->now = 1000;
	kv.env = eng.env = &f->r->env;
	eng.send_cqs[0] = f->r->cqs[0];
	assert_int_equal(wfi_kv_create(&kv, &f->kv), 0);
	assert_int_equal(wfi_xfer_engine_create(&eng, &f->xfer), 0);
	for (unsigned i = 0; i < TENANTS; i++) {
		const struct wfi_map *map;

		f->tenants[i] = kv_rig_tenant(f->kv, i ? "b" : "a", ARENA);
		f->spaces[i] = kv_rig_space(f->kv, f->tenants[i], "m", BLOCK);
		assert_int_equal(wfi_owner_init(f->kv, &f->owners[i], f->tenants[i]), 0);
		map = wfi_tenant_arena(f->tenants[i]);
		f->arenas[i] = reg(f, map->addr, map->len, WEFT_MR_HOST);
	}
	f->large = kv_rig_space(f->kv, f->tenants[0], "large", 4 * BLOCK);
	f->mem = alloc_on(f->r, 0, CHUNKS * CHUNK);
	f->ep = ep_new(f->r, 0);
	assert_int_equal(import_at(f->r, f->ep, f->mem, CHUNKS * CHUNK, NULL, &f->rkey), 0);
	f->mr = reg(f, at(f->mem), CHUNKS * CHUNK, WEFT_MR_GPU);
	tier_new(f, 0);
	*state = f;
	return 0;
}

static int fx_teardown(void **state)
{
	struct fx *f = *state;
	const struct weft_transport *t = f->r->t;
	void *rig = f->r;
	struct CUctx_st *ctx;

	mock_cuda.fail_call = NULL;
	wfi_tier_gpu_destroy(f->tier);
	wfi_xfer_engine_destroy(f->xfer);
	t->mr_dereg(f->mr);
	t->rkey_destroy(f->rkey);
	t->ep_destroy(f->ep);
	f->r->cuda->cuCtxPushCurrent(f->r->ctx[0]);
	assert_int_equal(f->r->cuda->cuMemFree(f->mem), 0);
	f->r->cuda->cuCtxPopCurrent(&ctx);
	for (unsigned i = 0; i < TENANTS; i++) {
		t->mr_dereg(f->arenas[i]);
		wfi_owner_fini(f->kv, &f->owners[i], false);
	}
	wfi_kv_destroy(f->kv);
	free(f);
	return teardown(&rig);
}

/* ---- blocks ---- */

static struct weft_key key_of(unsigned name)
{
	return (struct weft_key){ .hi = 77, .lo = name };
}

/* a block of that name. Return: its slot */
static uint32_t publish(struct fx *f, unsigned tenant, const struct wfi_space_info *space,
			unsigned name)
{
	const struct weft_key key = key_of(name);
	struct weft_slot slot;
	int32_t result;

	assert_int_equal(wfi_kv_claim(f->kv, &f->owners[tenant], space->id, 1, &slot, f->now), 1);
	fill(wfi_kv_slot_addr(f->kv, slot.idx), space->block_bytes, name);
	assert_int_equal(wfi_kv_put(f->kv, &f->owners[tenant], space->id, NULL, &key, &slot, 1,
				    NULL, &result, f->now),
			 1);
	return slot.idx;
}

static void drop(struct fx *f, const struct wfi_space_info *space, unsigned name)
{
	const struct weft_key key = key_of(name);
	int32_t result;

	assert_int_equal(wfi_kv_drop(f->kv, space->id, &key, 1, &result), 1);
	wfi_kv_poll(f->kv, ++f->now);
}

/* until nothing goes on there */
static void settle(struct fx *f)
{
	const uint64_t end = wfi_now(&f->r->env) + 10 * WFI_NSEC_PER_SEC;

	while (wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)) +
		       wfi_xfer_poll(f->xfer, wfi_now(&f->r->env)) ||
	       wfi_cuda_device(f->r->dev)->nr_open || !wfi_xfer_next_event_ns(f->xfer) ||
	       wfi_tier_gpu_next_event_ns(f->tier) != UINT64_MAX)
		assert_true(wfi_now(&f->r->env) < end);
}

/* wanted for a place, which gets it if there is a copy. Return: whether there is */
static bool want(struct fx *f, uint32_t slot)
{
	const uint32_t copy = wfi_tier_gpu_take(f->tier, slot);
	const uint64_t len = wfi_kv_slot_header(f->kv, slot)->len;
	uint32_t crc;
	int ret;

	if (copy == WFI_SLOT_NONE)
		return false;
	crc = wfi_crc32c(0, wfi_tier_gpu_addr(f->tier, copy), len);
	ret = wfi_tier_gpu_check(f->tier, copy, slot, crc);
	if (!ret)
		assert_memory_equal(wfi_tier_gpu_addr(f->tier, copy), wfi_kv_slot_addr(f->kv, slot),
				    len);
	wfi_tier_gpu_put(f->tier, copy);
	return !ret;
}

/* as often as it takes */
static void keep(struct fx *f, uint32_t slot)
{
	assert_false(want(f, slot));
	assert_false(want(f, slot));
	settle(f);
}

static struct wfi_tier_gpu_stat stat_of(const struct fx *f)
{
	struct wfi_tier_gpu_stat st;

	wfi_tier_gpu_stat(f->tier, &st);
	return st;
}

/* ---- tests ---- */

static void test_second_want(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);
	struct wfi_tier_gpu_stat st;

	assert_false(want(f, slot));
	settle(f);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	assert_int_equal(stat_of(f).copies, 0);
	/* put down once, however often it is wanted until it is there */
	assert_false(want(f, slot));
	assert_false(want(f, slot));
	assert_int_equal(wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)), 1);
	assert_false(want(f, slot));
	settle(f);
	assert_true(wfi_tier_gpu_holds(f->tier, slot));
	assert_true(want(f, slot));
	assert_true(want(f, slot));
	st = stat_of(f);
	assert_int_equal(st.copies, 1);
	assert_int_equal(st.kept, 1);
	assert_int_equal(st.hits, 2);
	assert_int_equal(st.hit_bytes, 2 * BLOCK);
	assert_int_equal(st.bytes_held, BLOCK);
	assert_int_equal(st.bytes, CHUNKS * CHUNK);
	assert_int_equal(st.state, WFI_TIER_OK);
}

/* nothing of a block is left where its slot has another */
static void test_slot_reused(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);
	uint32_t again;

	keep(f, slot);
	assert_true(want(f, slot));
	drop(f, &f->spaces[0], 1);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	again = publish(f, 0, &f->spaces[0], 2);
	assert_int_equal(again, slot);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	/* it is not the second time either */
	assert_false(want(f, slot));
	settle(f);
	assert_false(want(f, slot));
	/* nor is one copied that goes while it waits for that */
	drop(f, &f->spaces[0], 2);
	assert_int_equal(publish(f, 0, &f->spaces[0], 3), slot);
	settle(f);
	assert_int_equal(stat_of(f).kept, 1);
	keep(f, slot);
	assert_true(want(f, slot));
}

/* it goes while it is copied: its slot waits, and the copy is nobody's */
static void test_dropped_meanwhile(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);

	assert_false(want(f, slot));
	assert_false(want(f, slot));
	assert_int_equal(wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)), 1);
	drop(f, &f->spaces[0], 1);
	assert_int_not_equal(publish(f, 0, &f->spaces[0], 2), slot);
	settle(f);
	assert_int_equal(publish(f, 0, &f->spaces[0], 3), slot);
	assert_false(want(f, slot));
}

static void test_evict(void **state)
{
	struct fx *f = *state;
	uint32_t slots[MANY], pinned, held = 0;
	unsigned i;

	for (i = 0; i < MANY; i++)
		slots[i] = publish(f, 0, &f->spaces[0], i);
	for (i = 0; i < ROOM; i++)
		keep(f, slots[i]);
	assert_int_equal(stat_of(f).copies, ROOM);
	pinned = wfi_tier_gpu_take(f->tier, slots[3]);
	assert_int_not_equal(pinned, WFI_SLOT_NONE);
	/* what is used stays while there is something else */
	for (i = ROOM; i < MANY; i++) {
		assert_true(want(f, slots[7]));
		keep(f, slots[i]);
	}
	assert_true(want(f, slots[7]));
	assert_memory_equal(wfi_tier_gpu_addr(f->tier, pinned), wfi_kv_slot_addr(f->kv, slots[3]),
			    BLOCK);
	wfi_tier_gpu_put(f->tier, pinned);
	for (i = 0; i < MANY; i++)
		held += wfi_tier_gpu_holds(f->tier, slots[i]);
	assert_int_equal(held, ROOM);
	assert_int_equal(stat_of(f).copies, ROOM);
	assert_int_equal(stat_of(f).evicted, MANY - ROOM);
	assert_int_equal(stat_of(f).bytes_held, CHUNKS * CHUNK);
}

/* copies of what memory has no more go first */
static void test_evict_gone(void **state)
{
	struct fx *f = *state;
	uint32_t slots[ROOM], more[PER_CHUNK];
	unsigned i;

	for (i = 0; i < ROOM; i++) {
		slots[i] = publish(f, 0, &f->spaces[0], i);
		keep(f, slots[i]);
		assert_true(want(f, slots[i]));
	}
	for (i = 0; i < PER_CHUNK; i++)
		more[i] = publish(f, 0, &f->spaces[0], MANY + i);
	for (i = ROOM - PER_CHUNK; i < ROOM; i++)
		drop(f, &f->spaces[0], i);
	for (i = 0; i < PER_CHUNK; i++)
		keep(f, more[i]);
	for (i = 0; i < ROOM - PER_CHUNK; i++)
		assert_true(wfi_tier_gpu_holds(f->tier, slots[i]));
	for (i = 0; i < PER_CHUNK; i++)
		assert_true(want(f, more[i]));
}

/* blocks of another size get chunks that are not used, and never one with a pinned copy */
static void test_sizes(void **state)
{
	struct fx *f = *state;
	uint32_t small[ROOM], large[ROOM], pinned;
	unsigned i, k;

	for (i = 0; i < ROOM; i++) {
		small[i] = publish(f, 0, &f->spaces[0], i);
		keep(f, small[i]);
	}
	pinned = wfi_tier_gpu_take(f->tier, small[0]);
	assert_int_not_equal(pinned, WFI_SLOT_NONE);
	for (i = 0; i < ROOM; i++)
		large[i] = publish(f, 0, &f->large, 1000 + i);
	for (k = 0; k < 4; k++)
		for (i = 0; i < ROOM; i++)
			if (!want(f, large[i]))
				settle(f);
	assert_true(wfi_tier_gpu_holds(f->tier, small[0]));
	assert_memory_equal(wfi_tier_gpu_addr(f->tier, pinned), wfi_kv_slot_addr(f->kv, small[0]),
			    BLOCK);
	wfi_tier_gpu_put(f->tier, pinned);
	for (i = 0, k = 0; i < ROOM; i++)
		k += wfi_tier_gpu_holds(f->tier, large[i]);
	assert_int_equal(k, (CHUNKS - 1) * PER_CHUNK / 4);
	for (i = 0, k = 0; i < ROOM; i++)
		k += want(f, large[i]);
	assert_true(k > 0);
}

/* too small for a place of its own, and larger than a chunk */
static void test_no_place(void **state)
{
	struct fx *f = *state;
	const struct wfi_space_info small = kv_rig_space(f->kv, f->tenants[0], "s", BLOCK / 2);
	const struct wfi_space_info huge = kv_rig_space(f->kv, f->tenants[0], "h", CHUNK + 64);
	uint32_t slots[2];

	slots[0] = publish(f, 0, &small, 1);
	slots[1] = publish(f, 0, &huge, 2);
	for (unsigned i = 0; i < 2; i++) {
		keep(f, slots[i]);
		assert_false(want(f, slots[i]));
		settle(f);
	}
	assert_int_equal(stat_of(f).copies, 0);
}

/* bits that are others: on the way there, and at rest */
static void test_flipped(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);
	uint32_t copy;

	wfi_cuda_ep(f->ep)->gpu->small[WFI_CUDA_TO_GPU] = 0;
	mock_cuda.flip = true;
	keep(f, slot);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	assert_int_equal(stat_of(f).bad, 1);
	assert_int_equal(stat_of(f).copies, 0);
	/* the next time it is copied once more */
	assert_false(want(f, slot));
	settle(f);
	assert_true(want(f, slot));
	copy = wfi_tier_gpu_take(f->tier, slot);
	((uint8_t *)wfi_tier_gpu_addr(f->tier, copy))[77] ^= 8;
	wfi_tier_gpu_put(f->tier, copy);
	assert_false(want(f, slot));
	assert_int_equal(stat_of(f).bad, 2);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	assert_int_equal(stat_of(f).copies, 0);
	/* of the block in memory nothing is wrong */
	assert_int_equal(wfi_kv_verify(f->kv, slot), 0);
	keep(f, slot);
	assert_true(want(f, slot));
}

/* two use a copy that is bad: it is free when both have let it go */
static void test_bad_while_pinned(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);
	uint32_t a, b;

	keep(f, slot);
	a = wfi_tier_gpu_take(f->tier, slot);
	b = wfi_tier_gpu_take(f->tier, slot);
	assert_int_equal(a, b);
	assert_int_equal(wfi_tier_gpu_check(f->tier, a, slot, 5), -EBADMSG);
	assert_int_equal(wfi_tier_gpu_check(f->tier, b, slot, 5), -EBADMSG);
	assert_int_equal(wfi_tier_gpu_take(f->tier, slot), WFI_SLOT_NONE);
	wfi_tier_gpu_put(f->tier, a);
	assert_int_equal(stat_of(f).copies, 1);
	wfi_tier_gpu_put(f->tier, b);
	assert_int_equal(stat_of(f).copies, 0);
}

/* what can't be copied now is another time, and nothing is held for it */
static void test_copies_fail(void **state)
{
	static const struct {
		const char *call;
		int res;
	} rows[] = {
		{ "cuMemcpyAsync", WFI_CUDA_OUT_OF_MEMORY },
		{ "cuEventCreate", WFI_CUDA_OUT_OF_MEMORY },
		{ "cuLaunchKernel", WFI_CUDA_LAUNCH_RESOURCES },
	};
	struct fx *f = *state;
	struct wfi_cuda_gpu *g = wfi_cuda_ep(f->ep)->gpu;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);
	unsigned i;

	g->small[WFI_CUDA_TO_GPU] = 0;
	assert_false(want(f, slot));
	for (i = 0; i < WFI_ARRAY_SIZE(rows) + 1; i++) {
		mock_cuda.fail_call = i < WFI_ARRAY_SIZE(rows) ? rows[i].call : NULL;
		mock_cuda.fail_res = i < WFI_ARRAY_SIZE(rows) ? rows[i].res : 0;
		/* and no table for sums */
		g->free_tables = mock_cuda.fail_call ? UINT32_MAX : 0;
		assert_false(want(f, slot));
		settle(f);
		assert_false(wfi_tier_gpu_holds(f->tier, slot));
		assert_int_equal(stat_of(f).copies, 0);
		assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	}
	g->free_tables = UINT32_MAX;
	assert_false(want(f, slot));
	settle(f);
	assert_true(want(f, slot));
	assert_int_equal(stat_of(f).bad, 0);
	drop(f, &f->spaces[0], 1);
	/* nothing was left pinned */
	assert_int_equal(publish(f, 0, &f->spaces[0], 2), slot);
}

static void test_lost(void **state)
{
	struct fx *f = *state;
	const uint32_t a = publish(f, 0, &f->spaces[0], 1), b = publish(f, 0, &f->spaces[0], 2);
	uint32_t copy;

	keep(f, a);
	copy = wfi_tier_gpu_take(f->tier, a);
	assert_false(want(f, b));
	assert_false(want(f, b));
	assert_int_equal(wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)), 1);
	mock_cuda.fail_call = "cuEventQuery";
	mock_cuda.fail_res = WFI_CUDA_LAUNCH_FAILED;
	settle(f);
	mock_cuda.fail_call = NULL;
	assert_non_null(strstr(said, "its tier is lost"));
	assert_int_equal(stat_of(f).state, WFI_TIER_FAILED);
	assert_int_equal(wfi_tier_gpu_take(f->tier, a), WFI_SLOT_NONE);
	assert_false(wfi_tier_gpu_holds(f->tier, a));
	assert_int_equal(stat_of(f).copies, 1);
	wfi_tier_gpu_put(f->tier, copy);
	assert_int_equal(stat_of(f).copies, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_false(want(f, b));
	assert_int_equal(wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)), 0);
	assert_int_equal(wfi_tier_gpu_next_event_ns(f->tier), UINT64_MAX);
	/* blocks are in memory as they were, and no pin is left */
	assert_int_equal(wfi_kv_verify(f->kv, a), 0);
	drop(f, &f->spaces[0], 2);
	assert_int_equal(publish(f, 0, &f->spaces[0], 3), b);
}

/* somebody else finds that the GPU is lost, while a copy is under way */
static void test_lost_meanwhile(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);

	assert_false(want(f, slot));
	assert_false(want(f, slot));
	assert_int_equal(wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)), 1);
	wfi_tier_gpu_lose(f->tier);
	wfi_tier_gpu_lose(f->tier);
	settle(f);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	assert_int_equal(stat_of(f).copies, 0);
}

/* copies that do not end: the endpoint is closed behind them */
static void test_hangs(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);
	const uint64_t now = wfi_now(&f->r->env);

	wfi_cuda_ep(f->ep)->gpu->small[WFI_CUDA_TO_GPU] = 0;
	assert_false(want(f, slot));
	assert_false(want(f, slot));
	mock_cuda.hold = true;
	assert_int_equal(wfi_tier_gpu_poll(f->tier, now), 1);
	wfi_xfer_poll(f->xfer, now);
	wfi_xfer_poll(f->xfer, now + 2 * WFI_NSEC_PER_SEC);
	wfi_xfer_poll(f->xfer, now + 4 * WFI_NSEC_PER_SEC);
	/* nobody takes a copy back: until it ends, its slot is not another's */
	drop(f, &f->spaces[0], 1);
	assert_int_not_equal(publish(f, 0, &f->spaces[0], 2), slot);
	assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	/* nor is it waited for any longer */
	wfi_xfer_poll(f->xfer, now + 6 * WFI_NSEC_PER_SEC);
	assert_int_equal(stat_of(f).state, WFI_TIER_FAILED);
	assert_int_not_equal(publish(f, 0, &f->spaces[0], 4), slot);
	mock_cuda.hold = false;
	mock_cuda_release();
	settle(f);
	assert_int_equal(publish(f, 0, &f->spaces[0], 3), slot);
	keep(f, slot);
	assert_int_equal(stat_of(f).state, WFI_TIER_FAILED);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
}

/* no more bytes a second than it may be */
static void test_pace(void **state)
{
	struct fx *f = *state;
	const uint64_t now = wfi_now(&f->r->env);
	uint64_t next;
	uint32_t slots[2];

	tier_new(f, BLOCK);
	for (unsigned i = 0; i < 2; i++) {
		slots[i] = publish(f, 0, &f->spaces[0], i);
		assert_false(want(f, slots[i]));
		assert_false(want(f, slots[i]));
		if (!i)
			assert_int_equal(wfi_tier_gpu_poll(f->tier, now), 1);
		while (!i && !wfi_tier_gpu_holds(f->tier, slots[0]))
			wfi_xfer_poll(f->xfer, wfi_now(&f->r->env));
	}
	assert_true(want(f, slots[0]));
	next = wfi_tier_gpu_next_event_ns(f->tier);
	assert_int_equal(next, now + WFI_NSEC_PER_SEC);
	assert_int_equal(wfi_tier_gpu_poll(f->tier, next - 1), 0);
	assert_int_equal(wfi_tier_gpu_poll(f->tier, next), 1);
	settle(f);
	assert_true(want(f, slots[1]));
}

/* keys of two tenants are two blocks here as well, and one's memory is not the other's */
static void test_tenants(void **state)
{
	struct fx *f = *state;
	uint32_t slots[2 * PER_CHUNK];
	unsigned i;

	for (i = 0; i < 2 * PER_CHUNK; i++) {
		slots[i] = publish(f, i % 2, &f->spaces[i % 2], i / 2);
		assert_false(want(f, slots[i]));
		assert_false(want(f, slots[i]));
	}
	settle(f);
	for (i = 0; i < 2 * PER_CHUNK; i++)
		assert_true(want(f, slots[i]));
	assert_int_equal(stat_of(f).copies, 2 * PER_CHUNK);
}

/* more than can be put down: the rest another time. Those of a block are never two */
static void test_many(void **state)
{
	struct fx *f = *state;
	uint32_t slots[700];
	unsigned i, k;

	for (i = 0; i < 700; i++)
		slots[i] = publish(f, 0, &f->spaces[0], i);
	for (k = 0; k < 6; k++) {
		for (i = 0; i < 700; i++)
			want(f, slots[i]);
		settle(f);
		assert_true(stat_of(f).copies <= ROOM);
	}
	for (i = 0, k = 0; i < 700; i++)
		k += wfi_tier_gpu_holds(f->tier, slots[i]);
	assert_int_equal(k, stat_of(f).copies);
	assert_int_equal(k, ROOM);
	assert_int_equal(stat_of(f).bad, 0);
}

/* ---- another size ---- */

/* those with copies, which are right */
static uint32_t held(struct fx *f, const uint32_t *slots, unsigned nr)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < nr; i++) {
		if (!wfi_tier_gpu_holds(f->tier, slots[i]))
			continue;
		assert_true(want(f, slots[i]));
		n++;
	}
	return n;
}

static void keep_all(struct fx *f, uint32_t *slots, unsigned nr, unsigned name)
{
	for (unsigned i = 0; i < nr; i++) {
		slots[i] = publish(f, 0, &f->spaces[0], name + i);
		keep(f, slots[i]);
	}
}

static void test_grow(void **state)
{
	struct fx *f = *state;
	uint32_t slots[ROOM];

	tier_new_of(f, CHUNK, 0);
	assert_int_equal(stat_of(f).bytes, CHUNK);
	keep_all(f, slots, PER_CHUNK, 0);
	assert_int_equal(held(f, slots, PER_CHUNK), PER_CHUNK);
	wfi_tier_gpu_resize(f->tier, CHUNKS * CHUNK);
	assert_false(wfi_tier_gpu_shrinks(f->tier));
	assert_int_equal(stat_of(f).bytes, CHUNKS * CHUNK);
	/* nothing went for what came */
	keep_all(f, slots + PER_CHUNK, ROOM - PER_CHUNK, PER_CHUNK);
	assert_int_equal(held(f, slots, ROOM), ROOM);
	assert_int_equal(stat_of(f).evicted, 0);
}

/* what is pinned behind the new end is what it was until it is let go; nothing new goes there */
static void test_shrink(void **state)
{
	struct fx *f = *state;
	uint32_t slots[ROOM], more[PER_CHUNK], pins[CHUNKS], pinned[CHUNKS];
	uint32_t nr = 0, kept;
	bool has[CHUNKS] = { false };

	keep_all(f, slots, ROOM, 0);
	for (unsigned i = 0; i < ROOM; i++) {
		const uint32_t copy = wfi_tier_gpu_take(f->tier, slots[i]);
		const char *lies = wfi_tier_gpu_addr(f->tier, copy);
		const uint64_t chunk = (uint64_t)(lies - (char *)at(f->mem)) / CHUNK;

		/* one in each chunk */
		if (has[chunk]) {
			wfi_tier_gpu_put(f->tier, copy);
			continue;
		}
		has[chunk] = true;
		pins[chunk] = copy;
		pinned[chunk] = slots[i];
		nr++;
	}
	assert_int_equal(nr, CHUNKS);
	wfi_tier_gpu_resize(f->tier, CHUNK + CHUNK / 2);
	assert_true(wfi_tier_gpu_shrinks(f->tier));
	assert_int_equal(stat_of(f).want_bytes, CHUNK);
	assert_int_equal(stat_of(f).copies, PER_CHUNK + CHUNKS - 1);
	assert_int_equal(held(f, slots, ROOM), PER_CHUNK);
	for (unsigned i = 0; i < CHUNKS; i++)
		assert_memory_equal(wfi_tier_gpu_addr(f->tier, pins[i]),
				    wfi_kv_slot_addr(f->kv, pinned[i]), BLOCK);
	keep_all(f, more, PER_CHUNK, 500);
	for (unsigned i = 0; i < CHUNKS; i++) {
		assert_true(wfi_tier_gpu_shrinks(f->tier));
		assert_memory_equal(wfi_tier_gpu_addr(f->tier, pins[i]),
				    wfi_kv_slot_addr(f->kv, pinned[i]), BLOCK);
		wfi_tier_gpu_put(f->tier, pins[i]);
	}
	assert_false(wfi_tier_gpu_shrinks(f->tier));
	assert_int_equal(stat_of(f).copies, PER_CHUNK);
	assert_int_equal(stat_of(f).bytes_held, CHUNK);
	/* they were copied to where there is room */
	kept = held(f, slots, ROOM) + held(f, more, PER_CHUNK);
	assert_int_equal(kept, PER_CHUNK);
	/* and what was there before is not there again with the memory */
	wfi_tier_gpu_resize(f->tier, CHUNKS * CHUNK);
	assert_int_equal(held(f, slots, ROOM) + held(f, more, PER_CHUNK), kept);
	for (unsigned i = 0; i < PER_CHUNK; i++)
		if (!wfi_tier_gpu_holds(f->tier, more[i]))
			keep(f, more[i]);
	assert_int_equal(held(f, more, PER_CHUNK), PER_CHUNK);
}

/* a copy that is on its way lands where nobody looks for it, and holds the memory meanwhile */
static void test_shrink_behind_fill(void **state)
{
	struct fx *f = *state;
	const uint32_t slot = publish(f, 0, &f->spaces[0], 1);

	wfi_cuda_ep(f->ep)->gpu->small[WFI_CUDA_TO_GPU] = 0;
	assert_false(want(f, slot));
	assert_false(want(f, slot));
	mock_cuda.hold = true;
	assert_int_equal(wfi_tier_gpu_poll(f->tier, wfi_now(&f->r->env)), 1);
	wfi_tier_gpu_resize(f->tier, 0);
	assert_true(wfi_tier_gpu_shrinks(f->tier));
	assert_false(wfi_tier_gpu_over(f->tier));
	mock_cuda.hold = false;
	mock_cuda_release();
	settle(f);
	assert_false(wfi_tier_gpu_shrinks(f->tier));
	assert_true(wfi_tier_gpu_over(f->tier));
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	assert_int_equal(stat_of(f).copies, 0);
	/* of no bytes it keeps nothing */
	keep(f, slot);
	assert_false(wfi_tier_gpu_holds(f->tier, slot));
	wfi_tier_gpu_resize(f->tier, CHUNK);
	assert_false(wfi_tier_gpu_over(f->tier));
	keep(f, slot);
	assert_true(want(f, slot));
}

/* the GPU fails while it gets smaller */
static void test_shrink_lost(void **state)
{
	struct fx *f = *state;
	uint32_t slots[ROOM], copy;

	keep_all(f, slots, ROOM, 0);
	copy = wfi_tier_gpu_take(f->tier, slots[ROOM - 1]);
	wfi_tier_gpu_resize(f->tier, 0);
	wfi_tier_gpu_lose(f->tier);
	assert_int_equal(stat_of(f).copies, 1);
	assert_false(wfi_tier_gpu_over(f->tier));
	wfi_tier_gpu_put(f->tier, copy);
	assert_int_equal(stat_of(f).copies, 0);
	assert_int_equal(stat_of(f).bytes_held, 0);
	assert_true(wfi_tier_gpu_over(f->tier));
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(second_want),
		TEST(slot_reused),
		TEST(dropped_meanwhile),
		TEST(evict),
		TEST(evict_gone),
		TEST(sizes),
		TEST(no_place),
		TEST(flipped),
		TEST(bad_while_pinned),
		TEST(copies_fail),
		TEST(lost),
		TEST(lost_meanwhile),
		TEST(hangs),
		TEST(pace),
		TEST(tenants),
		TEST(many),
		TEST(grow),
		TEST(shrink),
		TEST(shrink_behind_fill),
		TEST(shrink_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
