/* SPDX-License-Identifier: Apache-2.0 */
/* where copies lie in a GPU's memory, by itself: nothing of it is touched */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/tier_gpu.h"
#include "tests/unit/kv_rig.h"

#define BLOCK 4096u
#define CHUNK (64u << 10)
#define PER_CHUNK (CHUNK / BLOCK)
#define MANY 200u

#define MODEL_CHUNKS 12u
#define MODEL_PINS 40u
#define MODEL_STEPS 200000u

struct model {
	struct kv_rig r;
	struct gpu_slots s;
	uint64_t rand;
	uint32_t slots[MANY];
	struct {
		uint32_t copy, slot;
		uint64_t off, stride;
	} pins[MODEL_PINS];
	uint32_t nr_pins;
};

static int model_setup(void **state)
{
	struct model *m = kv_rig_create(sizeof(*m), 1);
	const struct wfi_kv_opts opts = { .env = m->r.env };
	struct wfi_space_info space;
	struct wfi_tenant *t;
	struct wfi_owner owner;
	struct weft_slot slots[MANY];

	m->rand = 1;
	assert_int_equal(wfi_kv_create(&opts, &m->r.kv), 0);
	t = kv_rig_tenant(m->r.kv, "t", 8u << 20);
	space = kv_rig_space(m->r.kv, t, "m", BLOCK);
	assert_int_equal(wfi_owner_init(m->r.kv, &owner, t), 0);
	assert_int_equal(wfi_kv_claim(m->r.kv, &owner, space.id, MANY, slots, 1), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		const struct weft_key key = { .hi = 1, .lo = i };
		int32_t result;

		m->slots[i] = slots[i].idx;
		assert_int_equal(wfi_kv_put(m->r.kv, &owner, space.id, NULL, &key, &slots[i], 1,
					    NULL, &result, 1),
				 1);
	}
	wfi_owner_fini(m->r.kv, &owner, false);
	*state = m;
	return 0;
}

static uint32_t model_rand(struct model *m, uint32_t below)
{
	m->rand = m->rand * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(m->rand >> 33) % below;
}

static uint64_t model_stride(uint32_t slot)
{
	return (uint64_t)BLOCK << slot % 4;
}

/* it overlaps none that is pinned, and lies where there is memory */
static void model_pin(struct model *m, uint32_t copy, uint32_t slot, bool fresh)
{
	const uint64_t off = wfi_gpu_slots_off(&m->s, copy), stride = model_stride(slot);

	assert_true(off + stride <= (uint64_t)m->s.nr_chunks * CHUNK);
	for (uint32_t i = 0; i < m->nr_pins; i++)
		if (m->pins[i].copy != copy || fresh)
			assert_true(off + stride <= m->pins[i].off ||
				    m->pins[i].off + m->pins[i].stride <= off);
	m->pins[m->nr_pins].copy = copy;
	m->pins[m->nr_pins].slot = slot;
	m->pins[m->nr_pins].off = off;
	m->pins[m->nr_pins++].stride = stride;
}

static void model_want(struct model *m)
{
	const uint32_t slot = m->slots[model_rand(m, MANY)], gen = kv_slot(m->r.kv, slot)->gen;
	uint32_t copy = wfi_gpu_slots_find(&m->s, slot, gen);
	const bool fresh = copy == GPU_NONE;

	/* one that is being filled is not wanted again */
	for (uint32_t i = 0; i < m->nr_pins; i++)
		if (m->pins[i].slot == slot && fresh)
			return;
	if (fresh && !wfi_gpu_slots_note(&m->s, slot, gen))
		return;
	if (fresh)
		copy = wfi_gpu_slots_take(&m->s, model_stride(slot), slot, gen);
	else
		wfi_gpu_slots_pin(&m->s, copy);
	if (copy != GPU_NONE)
		model_pin(m, copy, slot, fresh);
}

static void model_let_go(struct model *m)
{
	const uint32_t i = model_rand(m, m->nr_pins);

	/* what is pinned lies where it lay, whatever has become of its chunk */
	assert_int_equal(wfi_gpu_slots_off(&m->s, m->pins[i].copy), m->pins[i].off);
	if (model_rand(m, 4))
		wfi_gpu_slots_good(&m->s, m->pins[i].copy);
	else
		wfi_gpu_slots_drop(&m->s, m->pins[i].copy);
	wfi_gpu_slots_unpin(&m->s, m->pins[i].copy);
	m->pins[i] = m->pins[--m->nr_pins];
}

static void model_step(struct model *m)
{
	const uint32_t what = model_rand(m, 1000);

	if (what < 2 && !wfi_gpu_slots_shrinks(&m->s))
		wfi_gpu_slots_resize(&m->s, (uint64_t)model_rand(m, MODEL_CHUNKS + 1) * CHUNK);
	else if (what < 3)
		wfi_gpu_slots_clear(&m->s);
	else if (what < 50)
		wfi_gpu_slots_shrink(&m->s);
	else if (m->nr_pins == MODEL_PINS || (m->nr_pins && what < 500))
		model_let_go(m);
	else
		model_want(m);
	assert_true(m->s.nr_copies >= m->nr_pins / 4);
	assert_true(m->s.bytes_held <= (uint64_t)(m->s.nr_chunks + m->s.nr_left) * CHUNK);
}

static void test_model(void **state)
{
	struct model *m = *state;
	struct weft_rkey rkey = { .len = MODEL_CHUNKS * CHUNK };
	const struct wfi_tier_gpu_opts opts = { .env = m->r.env,
						.kv = m->r.kv,
						.rkey = &rkey,
						.bytes = rkey.len,
						.chunk_bytes = CHUNK };

	assert_int_equal(wfi_gpu_slots_init(&m->s, &opts), 0);
	for (unsigned i = 0; i < MODEL_STEPS; i++)
		model_step(m);
	/* nothing is lost on the way: all of it can be had by each size */
	while (m->nr_pins)
		model_let_go(m);
	while (wfi_gpu_slots_shrinks(&m->s))
		wfi_gpu_slots_shrink(&m->s);
	wfi_gpu_slots_clear(&m->s);
	assert_int_equal(m->s.nr_copies, 0);
	assert_int_equal(m->s.bytes_held, 0);
	assert_int_equal(m->s.nr_left, 0);
	wfi_gpu_slots_resize(&m->s, rkey.len);
	for (unsigned i = 0; i < MODEL_CHUNKS * PER_CHUNK; i++)
		assert_int_not_equal(wfi_gpu_slots_take(&m->s, BLOCK, m->slots[i], 1), GPU_NONE);
	assert_int_equal(m->s.bytes_held, rkey.len);
	wfi_gpu_slots_fini(&m->s);
}

/* a bounded number of chunks in a turn, whatever the size */
static void test_shrink_slices(void **state)
{
	struct model *m = *state;
	struct weft_rkey rkey = { .len = 1000 * CHUNK };
	const struct wfi_tier_gpu_opts opts = { .env = m->r.env,
						.kv = m->r.kv,
						.rkey = &rkey,
						.bytes = rkey.len,
						.chunk_bytes = CHUNK };
	struct gpu_slots s = { .env = NULL };
	unsigned turns = 0, was;

	assert_int_equal(wfi_gpu_slots_init(&s, &opts), 0);
	assert_int_equal(s.nr_chunks, 1000);
	wfi_gpu_slots_resize(&s, 0);
	while (wfi_gpu_slots_shrinks(&s)) {
		was = s.nr_chunks;
		assert_int_equal(wfi_gpu_slots_shrink(&s), 1);
		assert_true(was - s.nr_chunks <= 64);
		turns++;
	}
	assert_int_equal(turns, (1000 + 63) / 64);
	assert_int_equal(wfi_gpu_slots_shrink(&s), 0);
	wfi_gpu_slots_fini(&s);
}

static uint32_t slots_fill(struct model *m, struct gpu_slots *s, uint32_t i, uint32_t stride)
{
	const uint32_t slot = m->slots[i], gen = kv_slot(m->r.kv, slot)->gen;
	const uint32_t copy = wfi_gpu_slots_take(s, stride, slot, gen);

	assert_int_not_equal(copy, GPU_NONE);
	wfi_gpu_slots_good(s, copy);
	wfi_gpu_slots_unpin(s, copy);
	return copy;
}

/* from the front on: a smaller size takes what nobody uses, while there is some */
static void test_front_first(void **state)
{
	struct model *m = *state;
	struct weft_rkey rkey = { .len = 8 * CHUNK };
	const struct wfi_tier_gpu_opts opts = { .env = m->r.env,
						.kv = m->r.kv,
						.rkey = &rkey,
						.bytes = rkey.len,
						.chunk_bytes = CHUNK };
	struct gpu_slots s = { .env = NULL };
	uint32_t i = 0, nr;

	assert_int_equal(wfi_gpu_slots_init(&s, &opts), 0);
	for (nr = 3; nr <= 8; nr++) {
		for (; i < nr * PER_CHUNK; i++)
			assert_int_equal(wfi_gpu_slots_off(&s, slots_fill(m, &s, i, BLOCK)),
					 (uint64_t)i * BLOCK);
		wfi_gpu_slots_resize(&s, (uint64_t)nr * CHUNK);
		while (wfi_gpu_slots_shrink(&s))
			;
		assert_int_equal(s.nr_evicted, 0);
		assert_int_equal(s.nr_copies, i);
		wfi_gpu_slots_resize(&s, rkey.len);
	}
	for (i = 0; i < 8 * PER_CHUNK; i++)
		assert_int_not_equal(wfi_gpu_slots_find(&s, m->slots[i],
							kv_slot(m->r.kv, m->slots[i])->gen),
				     GPU_NONE);
	wfi_gpu_slots_fini(&s);
}

/* a large tier takes memory of the host for what is used of it */
static void test_host_memory(void **state)
{
	struct model *m = *state;
	struct weft_rkey rkey = { .len = 64ull << 30 };
	const struct wfi_tier_gpu_opts opts = { .env = m->r.env,
						.kv = m->r.kv,
						.rkey = &rkey,
						.bytes = rkey.len,
						.chunk_bytes = wfi_tier_gpu_chunk(rkey.len) };
	struct gpu_slots s = { .env = NULL };

	assert_int_equal(wfi_gpu_slots_init(&s, &opts), 0);
	/* each has a chunk of its own */
	for (uint32_t i = 0; i < 4; i++)
		slots_fill(m, &s, i, BLOCK << i);
	assert_true(s.copy_table.called <= 4 * WFI_TABLE_AHEAD_BYTES);
	wfi_gpu_slots_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_model, model_setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(test_shrink_slices, model_setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(test_front_first, model_setup, kv_rig_teardown),
		cmocka_unit_test_setup_teardown(test_host_memory, model_setup, kv_rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
