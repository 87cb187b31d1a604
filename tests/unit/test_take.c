/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nodes that are made up push into places, and into slots, of this one: every way that it
 * goes, and every end that it can have
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "gpu/error.h"
#include "kvcache/cluster/shape.h"
#include "tests/unit/handoff_world.h"

#define MS WFI_NSEC_PER_MSEC
#define LATE_NS (100 * MS) /* from a deadline to when who waits hears that nothing ends */
#define NBL (NB / 4) /* blocks, with layouts */

/* keys and values, heads within tokens; 16 tokens a block, as the receiver has them */
static const struct weft_layout nhd = {
	.nr_layers = NL,
	.nr_kv = 2,
	.nr_tokens = 16,
	.nr_heads = 2,
	.head_bytes = 64,
	.layer_stride = LAYER,
	.kv_stride = 2048,
	.token_stride = 128,
	.head_stride = 64,
};
/* the same with pages of twice as many tokens */
static const struct weft_layout nhd32 = {
	.nr_layers = NL,
	.nr_kv = 2,
	.nr_tokens = 32,
	.nr_heads = 2,
	.head_bytes = 64,
	.layer_stride = 2 * LAYER,
	.kv_stride = 4096,
	.token_stride = 128,
	.head_stride = 64,
};
/* one of its heads, tokens within heads */
static const struct weft_layout one_head = {
	.nr_layers = NL,
	.nr_kv = 2,
	.nr_tokens = 16,
	.nr_heads = 1,
	.head_bytes = 64,
	.layer_stride = LAYER / 2,
	.kv_stride = 1024,
	.token_stride = 64,
	.head_stride = 1024,
};
static const struct weft_layout other_head = {
	.nr_layers = NL,
	.nr_kv = 2,
	.nr_tokens = 16,
	.nr_heads = 1,
	.head_bytes = 64,
	.first_head = 1,
	.layer_stride = LAYER / 2,
	.kv_stride = 1024,
	.token_stride = 64,
	.head_stride = 1024,
};

/* where a handoff's blocks go, and how */
struct way {
	enum kind kind;
	bool reached; /* the NIC reaches it */
	bool slots; /* no places at all */
	bool shaped;
};

static const struct way ways[] = {
	{ .kind = GPU, .reached = true },
	{ .kind = GPU_LAYERS, .reached = true },
	{ .kind = GPU },
	{ .kind = HOST },
	{ .slots = true },
	{ .kind = GPU, .reached = true, .shaped = true },
	{ .kind = GPU_LAYERS, .reached = true, .shaped = true },
	{ .kind = GPU_LAYERS, .shaped = true },
	{ .kind = HOST, .shaped = true },
	{ .slots = true, .shaped = true },
};

#define WAYS WFI_ARRAY_SIZE(ways)

static const struct weft_layout *layout_of(const struct way *way)
{
	return way->shaped ? &nhd : NULL;
}

static struct place_memory *memory_of(struct world *w, const struct way *way)
{
	struct place_memory *m = &w->memory[way->kind];

	if (way->slots)
		return NULL;
	m->nics[0] = way->reached ? &m->nic : NULL;
	memset(m->mem, 0xee, MEM);
	return m;
}

static void begin(struct world *w, const struct way *way, struct heard *h, uint64_t timeout_ns)
{
	struct peer *p = &w->peers[0];

	if (way->shaped)
		peer_fill_shaped(p, &nhd, NBL);
	else
		peer_fill(p);
	expect(w, h, memory_of(w, way), layout_of(way), timeout_ns);
}

static uint32_t blocks_of(const struct way *way)
{
	return way->shaped ? NBL : NB;
}

static void says_layer(struct world *w, const struct way *way, const struct heard *h,
		       uint32_t layer)
{
	says(w, &w->peers[0], h, layout_of(way), layer, layer, 0, blocks_of(way));
}

static bool filled(struct world *w, const struct way *way)
{
	struct place_memory *m = &w->memory[way->kind];

	if (way->slots)
		return true;
	return way->shaped ? shaped_filled(m, &nhd, NBL) : place_filled(m, NL);
}

static void expect_whole(struct world *w, const struct way *way, const struct heard *h)
{
	assert_true(h->done);
	assert_int_equal(h->res, blocks_of(way));
	for (uint32_t l = 0; l < NL; l++)
		assert_int_equal(h->layers[l], (1u << blocks_of(way)) - 1);
	assert_true(filled(w, way));
}

/* it is over, and what it took has come back */
static void expect_free(struct world *w)
{
	assert_int_equal(wfi_handoffs_in(w->hs, w->space.id), 0);
	assert_int_equal(slots_free(w), w->nr_free);
	for (uint32_t i = 0; i < PEERS; i++)
		if (w->peers[i].ep)
			assert_int_equal(wfi_handoffs_reads_of(w->hs, w->peers[i].ep), 0);
}

/* ---- what goes where ---- */

static void test_ways(void **state)
{
	struct world *w = *state;
	struct heard h;

	for (unsigned i = 0; i < WAYS; i++) {
		const struct way *way = &ways[i];
		const uint64_t straight = counted(w, "weft_handoff_straight");
		const uint64_t read = counted(w, "weft_handoff_read");
		const uint64_t bytes = (uint64_t)blocks_of(way) * BLOCK;
		const unsigned copies = mock_cuda.copies, flushed = mock_cuda.flushed;

		begin(w, way, &h, DEADLINE_NS);
		/* what goes straight needs no slot */
		if (way->reached)
			slots_take(w, 0);
		for (uint32_t l = 0; l < NL; l++) {
			says_layer(w, way, &h, l);
			turns(w, MS);
			assert_int_equal(w->peers[0].done[l], 1);
			assert_int_equal(h.layers[l], (1u << blocks_of(way)) - 1);
		}
		slots_give(w);
		expect_whole(w, way, &h);
		expect_free(w);
		assert_int_equal(counted(w, "weft_handoff_read") - read, bytes);
		assert_int_equal(counted(w, "weft_handoff_straight") - straight,
				 way->reached ? bytes : 0);
		if (!way->reached)
			continue;
		assert_int_equal(mock_cuda.copies, copies);
		/* the GPU is asked to see them before each sum */
		assert_true(mock_cuda.flushed >= flushed + NL);
	}
}

/* pages of another size, and heads of two peers: each as its pieces are */
static void test_layouts(void **state)
{
	struct world *w = *state;
	struct place_memory *m = &w->memory[GPU];
	uint64_t straight;
	struct heard h;

	for (unsigned i = 0; i < 2; i++) {
		m->nics[0] = i ? NULL : &m->nic;
		memset(m->mem, 0xee, MEM);
		peer_fill_shaped(&w->peers[0], &nhd32, NBL / 2);
		expect(w, &h, m, &nhd, DEADLINE_NS);
		straight = counted(w, "weft_handoff_straight");
		for (uint32_t l = 0; l < NL; l++)
			says(w, &w->peers[0], &h, &nhd32, l, l, 0, NBL / 2);
		turns(w, MS);
		assert_int_equal(h.res, NBL);
		assert_true(shaped_filled(m, &nhd, NBL));
		assert_int_equal(counted(w, "weft_handoff_straight") - straight,
				 i ? 0 : NBL * BLOCK);
		memset(m->mem, 0xee, MEM);
		peer_fill_shaped(&w->peers[0], &one_head, NBL);
		peer_fill_shaped(&w->peers[1], &other_head, NBL);
		expect(w, &h, m, &nhd, DEADLINE_NS);
		for (uint32_t l = 0; l < NL; l++) {
			says(w, &w->peers[0], &h, &one_head, l, l, 0, NBL);
			says(w, &w->peers[1], &h, &other_head, l, l, 0, NBL);
		}
		turns(w, MS);
		assert_int_equal(h.res, NBL);
		assert_true(shaped_filled(m, &nhd, NBL));
		assert_int_equal(slots_free(w), w->nr_free);
	}
}

/* the NIC's own measure says when pieces are too short for it */
static void test_costs(void **state)
{
	static const struct way way = { .kind = GPU, .reached = true, .shaped = true };
	struct world *w = *state;
	uint64_t straight;
	struct heard h;

	/* a MiB takes as long as 512 pieces do: those of 2 KiB are just long enough */
	w->nic->caps.cost_per_mib_ns = 512000;
	for (unsigned ns = 1000; ns <= 1001; ns++) {
		w->nic->caps.cost_per_piece_ns = ns;
		straight = counted(w, "weft_handoff_straight");
		peer_fill_shaped(&w->peers[0], &nhd32, NBL / 2);
		expect(w, &h, memory_of(w, &way), &nhd, DEADLINE_NS);
		for (uint32_t l = 0; l < NL; l++)
			says(w, &w->peers[0], &h, &nhd32, l, l, 0, NBL / 2);
		turns(w, MS);
		expect_whole(w, &way, &h);
		assert_int_equal(counted(w, "weft_handoff_straight") - straight,
				 ns == 1000 ? NBL * BLOCK : 0);
	}
	/* or there are too many: a segment is a byte */
	w->nic->caps.cost_per_piece_ns = 0;
	straight = counted(w, "weft_handoff_straight");
	begin(w, &way, &h, DEADLINE_NS);
	w->memory[GPU].nic.shape = (struct wfi_gpu_shape){
		.segment_bytes = 4, .segment_stride = 4, .block_stride = MEM, .nr_segments = MEM / 4
	};
	for (uint32_t l = 0; l < NL; l++)
		says_layer(w, &way, &h, l);
	turns(w, MS);
	expect_whole(w, &way, &h);
	assert_int_equal(counted(w, "weft_handoff_straight"), straight);
	w->memory[GPU].nic.shape = (struct wfi_gpu_shape){ .nr_segments = 0 };
}

/* ---- how often it is planned ---- */

static unsigned plans;

int __real_wfi_shape_plan(const struct shape_plan *p);
int __wrap_wfi_shape_plan(const struct shape_plan *p);

int __wrap_wfi_shape_plan(const struct shape_plan *p)
{
	plans++;
	return __real_wfi_shape_plan(p);
}

/* what can't go straight and waits for slots is not looked at anew with each that comes or ends */
static void test_planned_once(void **state)
{
	static const struct way way = { .kind = GPU, .reached = true, .shaped = true };
	struct world *w = *state;
	struct heard h;

	w->nic->caps.cost_per_mib_ns = 1;
	w->nic->caps.cost_per_piece_ns = 1000000;
	begin(w, &way, &h, DEADLINE_NS);
	/* a layer's */
	slots_take(w, 2);
	plans = 0;
	for (uint32_t l = 0; l < NL; l++)
		says_layer(w, &way, &h, l);
	/* those behind the first that waits have not been looked at */
	assert_int_equal(plans, 2);
	turns(w, MS);
	/* and for their copies */
	assert_int_equal(plans, 2 * NL);
	slots_give(w);
	expect_whole(w, &way, &h);
	expect_free(w);
}

/* ---- bits that are others ---- */

/* at the peer, after it has summed up, or on the way: it ends the handoff, and nothing else */
static void test_flipped(void **state)
{
	const struct wfi_fault_opts corrupt = { .corrupt_ppm = 1000000 };
	struct world *w = *state;
	struct peer *p = &w->peers[0];
	struct heard h, other;

	for (unsigned i = 0; i < 2 * WAYS; i++) {
		const struct way *way = &ways[i / 2];

		begin(w, way, &h, DEADLINE_NS);
		expect(w, &other, NULL, NULL, DEADLINE_NS);
		says_layer(w, way, &h, 0);
		turns(w, MS);
		assert_int_equal(p->done[0], 1);
		says_layer(w, way, &h, 1);
		if (i % 2)
			faults(w, &corrupt);
		else
			p->mem[2 * BLOCK + LAYER + 77] ^= 4;
		turns(w, MS);
		faults(w, NULL);
		assert_int_equal(p->done[1], -EBADMSG);
		assert_true(h.done);
		assert_int_equal(h.res, -EBADMSG);
		assert_int_equal(h.layers[1], 0);
		/* its other layers have nowhere to go */
		says_layer(w, way, &h, 2);
		assert_int_equal(p->done[2], -ESTALE);
		peer_fill(p);
		for (uint32_t l = 0; l < NL; l++)
			says(w, p, &other, NULL, l, l, 0, NB);
		turns(w, MS);
		assert_int_equal(other.res, NB);
		expect_free(w);
	}
}

/* ---- ends, with a layer that is half on its way ---- */

/* nothing of the NIC's completes from here on; what is under way is */
static void hold(struct world *w)
{
	const struct wfi_fault_opts never = { .never = true };

	faults(w, &never);
}

enum end { END_PEER, END_ABORT, END_CANCEL, END_OWNER, END_TIME, END_DROP, ENDS };

/* blocks that a peer has of half(), and in which layout */
static const struct weft_layout *half_layout(const struct way *way, uint32_t peer)
{
	const struct weft_layout *const heads[] = { &one_head, &other_head };

	return way->shaped ? heads[peer] : NULL;
}

static void half_says(struct world *w, const struct way *way, const struct heard *h, uint32_t peer,
		      uint32_t layer)
{
	const uint32_t nr = way->shaped ? NBL : NB / 2;

	says(w, &w->peers[peer], h, half_layout(way, peer), layer, layer,
	     way->shaped ? 0 : peer * nr, nr);
}

/* peers 0 and 1 have a half each: peer 0's first layer has come, peer 1's is on its way */
static void half(struct world *w, const struct way *way, struct heard *h)
{
	for (uint32_t i = 0; i < 2; i++)
		if (way->shaped)
			peer_fill_shaped(&w->peers[i], half_layout(way, i), NBL);
		else
			peer_fill(&w->peers[i]);
	expect(w, h, memory_of(w, way), layout_of(way), DEADLINE_NS);
	half_says(w, way, h, 0, 0);
	turns(w, MS);
	assert_int_equal(w->peers[0].done[0], 1);
	half_says(w, way, h, 1, 0);
	hold(w);
	turns(w, MS);
	assert_int_equal(w->peers[1].done[0], 0);
	assert_int_equal(wfi_handoffs_reads_of(w->hs, w->peers[1].ep), 1);
}

/* Return: with what the handoff ends */
static int end_it(struct world *w, const struct way *way, enum end end, const struct heard *h)
{
	const struct wfi_fault_opts drop = { .drop_ppm = 1000000, .never = true };

	switch (end) {
	case END_PEER:
		peer_lose(w, &w->peers[1]);
		return -ECONNRESET;
	case END_ABORT:
		says_abort(w, &w->peers[1], h, -EINVAL);
		return -EINVAL;
	case END_CANCEL:
		assert_int_equal(wfi_handoff_cancel(w->hs, &w->engine, h->handle), 0);
		return -ECANCELED;
	case END_OWNER:
		wfi_handoffs_owner_gone(w->hs, &w->engine);
		return -ECONNRESET;
	case END_TIME:
		turns(w, DEADLINE_NS);
		return -ETIMEDOUT;
	default:
		/* the connection breaks with the post of the next layer */
		faults(w, &drop);
		half_says(w, way, h, 1, 1);
		turns(w, MS);
		return -ECONNRESET;
	}
}

static void expect_ended(struct world *w, const struct way *way, const struct heard *h, int res)
{
	uint8_t *mem = w->memory[way->kind].mem;

	assert_true(h->done);
	assert_int_equal(h->res, res);
	expect_free(w);
	/* nothing lands there any more */
	memset(mem, 0x55, MEM);
	turns(w, DEADLINE_NS + LATE_NS);
	for (uint32_t i = 0; i < MEM; i++)
		assert_int_equal(mem[i], 0x55);
}

static void test_ends(void **state)
{
	struct world *w = *state;
	struct heard h;
	int res;

	for (unsigned i = 0; i < WAYS * ENDS; i++) {
		const struct way *way = &ways[i % WAYS];
		const enum end end = i / WAYS;

		half(w, way, &h);
		res = end_it(w, way, end, &h);
		assert_int_equal(h.late, 0);
		faults(w, NULL);
		turns(w, MS);
		expect_ended(w, way, &h, res);
		assert_int_equal(w->peers[1].done[0] < 0, end != END_PEER);
		if (end == END_PEER || end == END_DROP)
			peer_again(w, &w->peers[1]);
	}
}

/* a READ that no shutdown ends: who waits hears so in time, and what it touches is kept */
static void test_never(void **state)
{
	struct world *w = *state;
	struct heard h;
	int res;

	for (unsigned i = 0; i < WAYS * END_DROP; i++) {
		const struct way *way = &ways[i % WAYS];
		const enum end end = i / WAYS;
		uint64_t held;

		half(w, way, &h);
		held = w->nr_free - slots_free(w);
		assert_int_equal(held > 0, !way->reached);
		res = end_it(w, way, end, &h);
		turns(w, LATE_NS - 10 * MS);
		assert_int_equal(h.late, 0);
		turns(w, 15 * MS);
		assert_int_equal(h.late, res);
		assert_false(h.done);
		/* its pusher's slots are read still: no answer says that they are not */
		assert_int_equal(w->peers[1].done[0], 0);
		assert_int_equal(wfi_handoffs_reads_of(w->hs, w->peers[1].ep), 1);
		assert_int_equal(w->nr_free - slots_free(w), held);
		faults(w, NULL);
		turns(w, MS);
		expect_ended(w, way, &h, res);
		peer_again(w, &w->peers[1]);
	}
}

/* ---- the GPU's part ---- */

static const struct way straight_way = { .kind = GPU, .reached = true };

/* what can't be summed up there goes by way of slots, and so does what can't be read there */
static void test_detour(void **state)
{
	static const struct wfi_fault_opts fails = { .op_ppm = 1000000 };
	struct world *w = *state;
	struct heard h;

	for (unsigned i = 0; i < 3; i++) {
		begin(w, &straight_way, &h, DEADLINE_NS);
		says_layer(w, &straight_way, &h, 0);
		if (i == 0)
			cuda_fails("cuLaunchKernel", WFI_CUDA_LAUNCH_RESOURCES);
		else if (i == 1)
			faults(w, &fails);
		else
			cuda_fails("cuFlushGPUDirectRDMAWrites", WFI_CUDA_OUT_OF_MEMORY);
		/* one look: what failed is READ anew in the next ones */
		wfi_xfer_poll(w->xfer, now(w));
		faults(w, NULL);
		wfi_xfer_poll(w->xfer, now(w));
		wfi_xfer_poll(w->xfer, now(w));
		cuda_fails(NULL, 0);
		turns(w, MS);
		assert_int_equal(w->peers[0].done[0], 1);
		assert_int_equal(counted(w, "weft_handoff_straight"), 3ull * i * NB * LAYER);
		for (uint32_t l = 1; l < NL; l++)
			says_layer(w, &straight_way, &h, l);
		turns(w, MS);
		expect_whole(w, &straight_way, &h);
		expect_free(w);
	}
	/* where that does not help either, what was wrong first is told */
	begin(w, &straight_way, &h, DEADLINE_NS);
	slots_take(w, 0);
	faults(w, &fails);
	says_layer(w, &straight_way, &h, 0);
	turns(w, MS);
	slots_give(w);
	assert_int_equal(h.res, -EIO);
	assert_int_equal(w->peers[0].done[0], -EIO);
}

/* the registration goes with its NIC, and comes back: layers go as they can */
static void test_nic_goes(void **state)
{
	struct world *w = *state;
	struct place_memory *m = &w->memory[GPU];
	struct weft_mr *mr = m->nic.mrs[1];
	struct heard h;

	begin(w, &straight_way, &h, DEADLINE_NS);
	for (uint32_t l = 0; l < NL; l++) {
		m->nic.mrs[1] = l % 2 ? NULL : mr;
		says_layer(w, &straight_way, &h, l);
		turns(w, MS);
	}
	m->nic.mrs[1] = mr;
	expect_whole(w, &straight_way, &h);
	assert_int_equal(counted(w, "weft_handoff_straight"), NB * BLOCK / 2);
	expect_free(w);
}

/* sums that do not end: as with copies, and the pusher's slots are read no more */
static void sums_never(struct world *w, bool cancelled)
{
	const int res = cancelled ? -ECANCELED : -ETIMEDOUT;
	struct heard h;

	begin(w, &straight_way, &h, DEADLINE_NS);
	cuda_fails("cuEventQuery", WFI_CUDA_NOT_READY);
	says_layer(w, &straight_way, &h, 0);
	turns(w, MS);
	if (cancelled)
		wfi_handoff_cancel(w->hs, &w->engine, h.handle);
	else
		turns(w, DEADLINE_NS);
	turns(w, LATE_NS + 5 * MS);
	assert_int_equal(h.late, res);
	assert_int_equal(w->peers[0].done[0], res);
	assert_false(h.done);
	cuda_fails(NULL, 0);
	turns(w, MS);
	expect_ended(w, &straight_way, &h, res);
}

static void test_sums_never(void **state)
{
	sums_never(*state, false);
}

static void test_sums_cancelled(void **state)
{
	sums_never(*state, true);
}

/* the GPU is lost while it sums up: nobody waits, and nothing is held */
static void test_gpu_lost(void **state)
{
	struct world *w = *state;
	struct heard h;

	begin(w, &straight_way, &h, DEADLINE_NS);
	says_layer(w, &straight_way, &h, 0);
	cuda_fails("cuEventQuery", WFI_CUDA_CONTEXT_DESTROYED);
	turns(w, MS);
	cuda_fails(NULL, 0);
	assert_int_equal(w->peers[0].done[0], -EIO);
	expect_ended(w, &straight_way, &h, -EIO);
}

/* ---- many of them ---- */

static uint32_t rnd(void)
{
	static uint64_t n;

	return (uint32_t)(wfi_mix64(++n) >> 32);
}

/* nodes have a few blocks each, and push as they come to it; slots are few */
static void test_many(void **state)
{
	static const struct wfi_fault_opts slow = { .seed = 5,
						    .delay_ppm = 700000,
						    .delay_max_ns = 3 * MS };
	struct world *w = *state;
	struct heard h;

	faults(w, &slow);
	for (unsigned i = 0; i < 30; i++) {
		const struct way *way = &ways[i % 5];
		uint32_t said[PEERS] = { 0 }, left = PEERS * NL;

		for (uint32_t n = 0; n < PEERS; n++)
			peer_fill(&w->peers[n]);
		expect(w, &h, memory_of(w, way), NULL, DEADLINE_NS);
		if (!way->slots && i % 2)
			slots_take(w, 2);
		while (left) {
			const uint32_t n = rnd() % PEERS, layer = said[n];

			if (layer == NL)
				continue;
			says(w, &w->peers[n], &h, NULL, layer, layer, n * (NB / PEERS), NB / PEERS);
			said[n]++;
			left--;
			if (rnd() % 4 == 0)
				turns(w, MS);
		}
		turns(w, DEADLINE_NS / 2);
		slots_give(w);
		expect_whole(w, way, &h);
		expect_free(w);
		for (uint32_t n = 0; n < PEERS; n++)
			for (uint32_t l = 0; l < NL; l++)
				assert_int_equal(w->peers[n].done[l], 1);
	}
}

/* the same, and one of them dies in the middle */
static void test_many_less_one(void **state)
{
	struct world *w = *state;
	struct heard h;

	for (unsigned i = 0; i < 5; i++) {
		const struct way *way = &ways[i];

		for (uint32_t n = 0; n < PEERS; n++)
			peer_fill(&w->peers[n]);
		expect(w, &h, memory_of(w, way), NULL, DEADLINE_NS);
		hold(w);
		for (uint32_t n = 0; n < PEERS; n++)
			says(w, &w->peers[n], &h, NULL, 0, 0, n * (NB / PEERS), NB / PEERS);
		turns(w, MS);
		peer_lose(w, &w->peers[rnd() % PEERS]);
		turns(w, MS);
		faults(w, NULL);
		turns(w, MS);
		expect_ended(w, way, &h, -ECONNRESET);
		for (uint32_t n = 0; n < PEERS; n++) {
			if (!w->peers[n].lost)
				assert_true(w->peers[n].done[0] < 0);
			peer_again(w, &w->peers[n]);
		}
	}
}

/* more than the transfer engine takes at a time: the handoff ends, and is not forgotten */
static void test_busy(void **state)
{
	struct world *w = *state;
	struct heard h;

	for (unsigned i = 0; i < WAYS; i++) {
		const struct way *way = &ways[i];

		begin(w, way, &h, DEADLINE_NS);
		for (uint32_t l = 0; l < NL; l++)
			says_layer(w, way, &h, l);
		turns(w, MS);
		assert_true(h.done);
		assert_true(h.res == (int)blocks_of(way) || h.res == -EAGAIN);
		for (uint32_t l = 0; l < NL; l++)
			assert_int_not_equal(w->peers[0].done[l], 0);
		expect_free(w);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ways),
		TEST(layouts),
		TEST(costs),
		TEST(planned_once),
		TEST(flipped),
		TEST(ends),
		TEST(never),
		TEST(detour),
		TEST(nic_goes),
		TEST(sums_never),
		TEST(sums_cancelled),
		TEST(gpu_lost),
		TEST(many),
		TEST(many_less_one),
		cmocka_unit_test_setup_teardown(test_busy, world_setup_few, world_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
