/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_store.c - blocks put, found and fetched, beside Mooncake's store
 *
 * Two nodes, each in a process of its own, meet over TCP. The engine, in this process, is one of
 * the first node's; what it finds and gets is the second's. What it puts stays with its own node,
 * as it does in use. Nothing is pinned: there are three processes, as Mooncake's are, and two
 * cores. What comes has bare TCP beside it, from one core to the other.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"
#include "perf/store.h"

#define BLOCK_BYTES (64ull << 10)
#define BLOCKS 32u
#define CHAIN 64u
#define ARENA_BYTES (256ull << 20)
#define MATCH_US 1000000u /* on a busy machine too */
#define SOON_NS 10000000000ull

struct store {
	struct wfi_perf_rig near, far;
	struct weft_space *space;
	struct wfi_perf_region region;
	struct weft_key keys[CHAIN]; /* of what the other node holds */
	struct weft_key fresh[BLOCKS]; /* of what is put */
	uint64_t nr_fresh;
	struct wfi_peer_tcp *bare;
};

/* a case of it: see struct wfi_perf_timed */
struct store_case {
	const char *name;
	int (*prepare)(void *ctx);
	int (*op)(void *ctx);
	unsigned ops;
	bool bare; /* bare TCP moves as many bytes beside it */
};

/* ---- operations ---- */

static int call(struct store *s, const struct weft_op *op, int want)
{
	struct weft_completion done;
	const int ret = weft_call(s->near.ring, op, &done);

	return ret == want ? 0 : ret < 0 ? ret : -EIO;
}

static void places_fill(const struct store *s, struct weft_place places[BLOCKS])
{
	uint32_t i;

	for (i = 0; i < BLOCKS; i++)
		places[i] = (struct weft_place){ .region = s->region.id, .off = i * BLOCK_BYTES };
}

static int get(void *ctx)
{
	struct store *s = ctx;
	struct weft_place places[BLOCKS];
	int32_t results[BLOCKS];
	const struct weft_op op = { .op = WEFT_OP_GET,
				    .nr = BLOCKS,
				    .space = s->space,
				    .keys = s->keys,
				    .places = places,
				    .results = results };

	places_fill(s, places);
	return call(s, &op, BLOCKS);
}

/* keys that nobody has put yet; those of the time before go, as they do from Mooncake's store */
static int put_prepare(void *ctx)
{
	struct store *s = ctx;
	int ret = 0;

	if (s->nr_fresh)
		ret = weft_drop(s->near.ring, s->space, s->fresh, BLOCKS);
	wfi_perf_keys(s->fresh, 1000000 + s->nr_fresh, BLOCKS);
	s->nr_fresh += BLOCKS;
	return ret < 0 ? ret : 0;
}

static int put(void *ctx)
{
	struct store *s = ctx;
	struct weft_place places[BLOCKS];
	int32_t results[BLOCKS];
	const struct weft_op op = { .op = WEFT_OP_PUT,
				    .flags = WEFT_F_COPY,
				    .nr = BLOCKS,
				    .space = s->space,
				    .keys = s->fresh,
				    .places = places,
				    .results = results };

	places_fill(s, places);
	return call(s, &op, BLOCKS);
}

static int match(void *ctx)
{
	struct store *s = ctx;
	const struct weft_op op = { .op = WEFT_OP_MATCH,
				    .nr = CHAIN,
				    .space = s->space,
				    .keys = s->keys,
				    .timeout_us = MATCH_US };

	return call(s, &op, CHAIN);
}

/* ---- set-up ---- */

static uint8_t byte_of(uint32_t block)
{
	return (uint8_t)(block + 1);
}

static int fill_far(struct store *s)
{
	static uint8_t bytes[CHAIN][BLOCK_BYTES];
	const void *bufs[CHAIN];
	struct weft_space *space;
	uint32_t i;
	int ret = wfi_perf_space_open(s->far.w, "store", BLOCK_BYTES, &space);

	for (i = 0; i < CHAIN; i++) {
		memset(bytes[i], byte_of(i), BLOCK_BYTES);
		bufs[i] = bytes[i];
	}
	wfi_perf_keys(s->keys, 0, CHAIN);
	if (!ret)
		ret = weft_put(s->far.ring, space, NULL, s->keys, CHAIN, bufs) - (int)CHAIN;
	return ret ? wfi_perf_fail(-EIO, "store: %s", weft_why()) : 0;
}

static int wait_for_far(struct store *s)
{
	const uint64_t end_ns = wfi_perf_now_ns() + SOON_NS;

	while (match(s))
		if (wfi_perf_now_ns() > end_ns)
			return wfi_perf_fail(-ETIMEDOUT, "store: the nodes do not meet");
	return 0;
}

static int check_get(struct store *s)
{
	const uint8_t *bytes = s->region.map.addr;
	uint32_t i;
	int ret;

	memset(s->region.map.addr, 0, BLOCKS * BLOCK_BYTES);
	ret = get(s);
	for (i = 0; i < BLOCKS * BLOCK_BYTES && !ret; i++)
		if (bytes[i] != byte_of((uint32_t)(i / BLOCK_BYTES)))
			ret = -EBADMSG;
	return ret ? wfi_perf_fail(ret, "store: what came is not what was put") : 0;
}

static int store_open(struct store *s)
{
	char addr[32];
	struct wfi_perf_node far = { .arena_bytes = ARENA_BYTES,
				     .map_flags = WFI_MAP_HUGE | WFI_MAP_PREFAULT,
				     .name = "far",
				     .id = 1,
				     .transport = "tcp",
				     .listen = addr,
				     .unpinned = true };
	struct wfi_perf_node near = { .arena_bytes = ARENA_BYTES,
				      .map_flags = WFI_MAP_HUGE | WFI_MAP_PREFAULT,
				      .name = "near",
				      .id = 2,
				      .transport = "tcp",
				      .peer = addr,
				      .peer_name = "far",
				      .unpinned = true };
	int ret = wfi_peer_tcp_open(&s->bare);

	if (!ret)
		ret = wfi_perf_free_port(addr, sizeof(addr));
	if (!ret)
		ret = wfi_perf_rig_open_node(&s->far, &far);
	if (!ret)
		ret = wfi_perf_rig_open_node(&s->near, &near);
	if (!ret)
		ret = fill_far(s);
	if (!ret)
		ret = wfi_perf_space_open(s->near.w, "store", BLOCK_BYTES, &s->space);
	if (!ret)
		ret = wfi_perf_region_open(s->near.w, &s->region, BLOCKS * BLOCK_BYTES, false);
	if (!ret)
		ret = wait_for_far(s);
	return ret ? ret : check_get(s);
}

static void store_close(struct store *s)
{
	if (s->near.w)
		wfi_perf_region_close(s->near.w, &s->region);
	wfi_perf_rig_close(&s->near);
	wfi_perf_rig_close(&s->far);
	wfi_peer_tcp_close(s->bare);
}

/* ---- bare TCP ---- */

static int bare_move(void *ctx)
{
	return wfi_peer_tcp_move(ctx, 1, BLOCKS * BLOCK_BYTES);
}

/* its other end is pinned to the node's core */
static int bare_round(void *ctx, double *us)
{
	int ret = wfi_perf_pin(WFI_PERF_ENGINE_CPU);

	if (!ret)
		ret = wfi_perf_timed_us(ctx, us);
	return ret ? ret : wfi_perf_unpin();
}

/* ---- cases ---- */

static int run_case(const struct wfi_perf *p, struct store *s, const struct store_case *c,
		    const struct wfi_perf_side *peer)
{
	const struct wfi_perf_case row = { "compare", c->name, "us", false };
	const unsigned ops = p->quick ? 3 : c->ops;
	struct wfi_perf_timed timed = { c->prepare, c->op, s, ops };
	struct wfi_perf_timed bare = { NULL, bare_move, s->bare, ops };
	const struct wfi_perf_side sides[] = { { NULL, wfi_perf_timed_us, &timed, NULL },
					       *peer,
					       { "bare_tcp", bare_round, &bare, NULL } };

	return wfi_perf_compare(p, &row, sides, c->bare ? 3 : 2);
}

int wfi_perf_store(const struct wfi_perf *p,
		   int (*peer)(void *ctx, const char *name, unsigned ops,
			       struct wfi_perf_side *out),
		   void *ctx)
{
	static const struct store_case cases[] = {
		{ "store_get_32x64KiB", NULL, get, 50, true },
		{ "store_put_32x64KiB", put_prepare, put, 50, false },
		{ "store_match_64", NULL, match, 100, false },
	};
	static struct store s;
	struct wfi_perf_side side;
	unsigned i;
	int ret = wfi_perf_unpin();

	if (!ret)
		ret = store_open(&s);
	for (i = 0; i < sizeof(cases) / sizeof(*cases) && !ret; i++) {
		ret = peer(ctx, cases[i].name, cases[i].ops, &side);
		if (!ret)
			ret = run_case(p, &s, &cases[i], &side);
	}
	store_close(&s);
	return ret ? ret : wfi_perf_pin(WFI_PERF_ENGINE_CPU);
}
