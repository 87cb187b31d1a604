/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/integration/gpu_side.h"

#define GEOMETRY(layer, name)                                                                      \
	{                                                                                          \
		.size = sizeof(struct weft_space_opts), .block_bytes = (uint64_t)NL * (layer),     \
		.model = (name), .layout = "test", .tokens_per_block = 16, .nr_layers = NL,        \
	}

const struct weft_space_opts side_geometry = GEOMETRY(LAYER, "gpu-handoff");
const struct weft_space_opts side_large = GEOMETRY(LARGE, "gpu-handoff-large");

static uint64_t mem_of(const struct side *s)
{
	return 2 * NB * NL * s->layer;
}

static void region_open(struct side *s)
{
	struct weft_region_opts opts = { .size = sizeof(opts), .len = mem_of(s), .fd = -1 };

	if (s->kind == MEMORY) {
		s->mem = mmap(NULL, opts.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);
		test_must(s->mem != MAP_FAILED);
	} else {
		if (s->kind == GPU_OTHER)
			test_gpu_enter(1);
		s->mem = test_gpu_alloc(opts.len);
		opts.kind = WEFT_REGION_GPU;
	}
	opts.addr = s->mem;
	if (s->kind == GPU_LAYERS) {
		opts.nr_segments = NL;
		opts.segment_bytes = s->layer;
		opts.segment_stride = opts.len / NL;
		opts.block_stride = s->layer;
	}
	test_must(!weft_region_reg(s->e->w, &opts, &s->region));
	if (s->kind == GPU_OTHER)
		test_gpu_leave(1);
}

void side_open(struct side *s, struct test_engine *e, enum kind kind, uint64_t layer)
{
	*s = (struct side){ .e = e, .kind = kind, .layer = layer };
	if (kind != SLOTS)
		region_open(s);
	/* every second one, the last first: as pages lie */
	for (unsigned i = 0; i < NB; i++)
		s->places[i] = (struct weft_place){ .off = 2 * (NB - 1 - i) * NL * layer,
						    .region = s->region };
}

void side_close(struct side *s)
{
	if (s->kind == SLOTS)
		return;
	assert_int_equal(weft_region_dereg(s->e->w, s->region), 0);
	if (s->kind == MEMORY)
		munmap(s->mem, mem_of(s));
	else
		test_gpu_free(s->mem);
}

char *layer_of(const struct side *s, unsigned block, unsigned layer)
{
	const uint64_t off = s->places[block].off;

	if (s->kind == SLOTS)
		return (char *)weft_arena(s->e->w) + s->slots[block].off + layer * s->layer;
	if (s->kind == GPU_LAYERS)
		return s->mem + layer * (mem_of(s) / NL) + off / NL;
	return s->mem + off + layer * s->layer;
}

void claim(struct side *s)
{
	const struct weft_op op = {
		.op = WEFT_OP_CLAIM, .space = s->e->space, .nr = NB, .slots = s->slots
	};

	assert_int_equal(weft_call(s->e->ring, &op, NULL), NB);
}

void unclaim(struct side *s)
{
	const struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = NB, .slots = s->slots };

	assert_int_equal(weft_call(s->e->ring, &op, NULL), NB);
}

/* ---- one handoff ---- */

uint64_t side_seed(const struct handoff *h, unsigned block, unsigned layer)
{
	return h->name * 1000 + block * NL + layer;
}

void expect_with(struct handoff *h, struct side *to, uint8_t flags, uint32_t timeout_us,
		 struct weft_signal *signal)
{
	static uint64_t names = 1000;
	struct weft_op op = {
		.op = WEFT_OP_HANDOFF_EXPECT,
		.flags = flags,
		.space = to->e->space,
		.nr = NB,
		.nr_layers = NL,
		.keys = h->keys,
		.slots = to->slots,
		.places = to->places,
		.ticket = &h->ticket,
		.timeout_us = timeout_us,
		.signal = signal,
	};
	struct weft_completion cpl;

	*h = (struct handoff){ .to = to, .name = names += 100 };
	if (to->kind != SLOTS)
		op.flags |= WEFT_F_COPY;
	test_keys(to->e, h->name, NB, h->keys);
	test_must(weft_submit(to->e->ring, &op, 1) == 1);
	test_next(to->e->ring, &cpl);
	test_must(cpl.flags == (WEFT_CQE_MORE | WEFT_CQE_TICKET));
	h->handle = cpl.handle;
}

void expect(struct handoff *h, struct side *to)
{
	expect_with(h, to, 0, 60000000, NULL);
}

struct weft_op push_of(struct side *from, struct weft_ticket *ticket, unsigned layer)
{
	return (struct weft_op){
		.op = WEFT_OP_HANDOFF_PUSH,
		.flags = from->kind == SLOTS ? 0 : WEFT_F_COPY,
		.space = from->e->space,
		.nr = NB,
		.slots = from->slots,
		.places = from->places,
		.ticket = ticket,
		.layer = layer,
		.nr_layers = 1,
	};
}

int push(struct side *from, struct handoff *h, unsigned layer)
{
	const struct weft_op op = push_of(from, &h->ticket, layer);

	return weft_call(from->e->ring, &op, NULL);
}

void fill(struct side *from, const struct handoff *h, unsigned layer)
{
	for (unsigned i = 0; i < NB; i++)
		test_fill(layer_of(from, i, layer), from->layer, side_seed(h, i, layer));
}

void assert_filled(const struct handoff *h, unsigned layer)
{
	for (unsigned i = 0; i < NB; i++)
		assert_true(test_filled(layer_of(h->to, i, layer), h->to->layer,
					side_seed(h, i, layer)));
}

void hear_layer(const struct handoff *h, unsigned layer)
{
	struct weft_completion cpl;
	uint32_t told = 0;

	while (told != (1u << NB) - 1) {
		test_next(h->to->e->ring, &cpl);
		assert_int_equal(cpl.flags, WEFT_CQE_MORE);
		assert_int_equal(cpl.res, cpl.nr_blocks);
		assert_int_equal(cpl.layer, layer);
		assert_int_equal(cpl.nr_layers, 1);
		for (uint32_t i = 0; i < cpl.nr_blocks; i++) {
			assert_in_range(cpl.first_block + i, 0, NB - 1);
			assert_false(told & 1u << (cpl.first_block + i));
			told |= 1u << (cpl.first_block + i);
		}
	}
	assert_filled(h, layer);
}

int hear_end(const struct handoff *h, uint64_t since_ms, uint64_t *lease)
{
	struct weft_completion cpl;

	do
		test_next(h->to->e->ring, &cpl);
	while (cpl.flags & WEFT_CQE_MORE);
	assert_in_range(test_now_ms() - since_ms, 0, END_MS);
	if (lease)
		*lease = cpl.handle;
	return cpl.res;
}

void whole(struct side *from, struct side *to, uint8_t flags)
{
	const struct weft_stat was[2] = { test_stat(from->e->ring), test_stat(to->e->ring) };
	struct handoff h;
	uint64_t lease;

	expect_with(&h, to, flags, 0, NULL);
	if (from->kind == SLOTS)
		claim(from);
	for (unsigned layer = 0; layer < NL; layer++) {
		fill(from, &h, layer);
		assert_int_equal(push(from, &h, layer), NB);
		hear_layer(&h, layer);
	}
	assert_int_equal(hear_end(&h, test_now_ms(), &lease), NB);
	for (unsigned layer = 0; layer < NL; layer++)
		assert_filled(&h, layer);
	if (from->kind == SLOTS)
		unclaim(from);
	assert_int_equal(lease != 0, to->kind == SLOTS);
	if (to->kind == SLOTS && from->kind != SLOTS) {
		assert_int_equal(weft_match(to->e->ring, to->e->space, h.keys, NB), NB);
		assert_int_equal(weft_drop(to->e->ring, to->e->space, h.keys, NB), NB);
	}
	if (lease)
		assert_int_equal(weft_release(to->e->ring, lease), NB);
	assert_true(test_stat_settles(from->e->ring, &was[0], END_MS));
	assert_true(test_stat_settles(to->e->ring, &was[1], END_MS));
}

/* ---- engines in processes of their own ---- */

void event_open(struct side *s, struct CUevent_st **event, uint32_t *number)
{
	test_must(!cuda->cuEventCreate(event, WFI_CUDA_EVENT_NO_TIMING | WFI_CUDA_EVENT_IPC));
	test_must(!weft_event_reg(s->e->w, *event, s->region, number));
}

void push_waits(struct side *from, struct weft_ticket *ticket, uint32_t number)
{
	struct weft_op op = push_of(from, ticket, 0);
	struct weft_completion done;

	op.handle = number;
	assert_int_equal(weft_submit(from->e->ring, &op, 1), 1);
	assert_int_equal(weft_wait(from->e->ring, &done, 1, 20000), 0);
}

void event_back(struct side *from, const struct handoff *h, uint32_t number)
{
	const uint64_t ms = test_now_ms();
	struct weft_completion done;

	assert_int_equal(weft_region_dereg(from->e->w, number), 0);
	test_next(from->e->ring, &done);
	assert_int_equal(done.res, -EINVAL);
	assert_int_equal(hear_end(h, ms, NULL), -EINVAL);
}

void prefill_run(int in, int out, void *ctx)
{
	struct handoff h = { .to = NULL };
	struct CUevent_st *event;
	struct test_engine e;
	struct prefill p;
	uint32_t number;
	struct weft_op op;
	struct side s;
	char byte = 0;

	test_engine_open(&e, ctx, NULL, &side_geometry);
	side_open(&s, &e, GPU_LAYERS, LAYER);
	test_must(test_hear(in, &p, sizeof(p)));
	h.ticket = p.ticket;
	h.name = p.name;
	for (unsigned layer = 0; layer < p.nr_layers; layer++) {
		fill(&s, &h, layer);
		op = push_of(&s, &h.ticket, layer);
		if (p.event) {
			event_open(&s, &event, &number);
			op.handle = number;
			test_must(weft_submit(e.ring, &op, 1) == 1);
		} else {
			test_must(weft_call(e.ring, &op, NULL) == (int)NB);
		}
	}
	test_must(test_say(out, &byte, 1));
	test_hear(in, &byte, 1);
	_exit(0);
}

void decode_run(int in, int out, void *ctx)
{
	struct test_engine e;
	struct handoff h;
	struct side s;
	char byte;

	test_engine_open(&e, ctx, NULL, &side_geometry);
	side_open(&s, &e, GPU, LAYER);
	expect(&h, &s);
	test_must(test_say(out, &h, sizeof(h)));
	test_hear(in, &byte, 1);
	_exit(0);
}
