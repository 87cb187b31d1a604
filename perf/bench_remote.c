/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_remote.c - what another node has: found, and fetched, over shared memory; found over TCP
 *
 * The holder is a node of its own, in a process on the node's core. The asking node is polled by
 * this thread, between its engine's submissions and completions, since there are two cores.
 * Nothing that was fetched is kept, so that each get goes to the holder.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "perf/near.h"
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

#define CHAIN 64u
#define CHAINS 16u /* more than caches hold */
#define BLOCK_BYTES (64ull << 10)
#define ARENA_BYTES (CHAINS * CHAIN * BLOCK_BYTES + (64ull << 20))
#define NEAR_BYTES (64ull << 20)
#define TRIPS 20000u
#define GETS 200u
#define MSG_BYTES 64u
#define MATCH_US 1000000u /* on a busy machine too */
#define SOON_NS (10 * WFI_NSEC_PER_SEC)

struct remote_bench {
	struct wfi_perf_rig far;
	struct wfi_perf_near near;
	struct weft *w;
	struct weft_ring *ring;
	struct weft_space *space;
	struct wfi_perf_region region;
	struct weft_key keys[CHAINS][CHAIN];
	uint32_t nr_trips, nr_gets, turn;
	bool tcp; /* the nodes meet over it */
};

/* ---- set-up ---- */

static int fill_far(struct remote_bench *b)
{
	static uint8_t bytes[BLOCK_BYTES];
	const void *bufs[CHAIN];
	struct weft_space *space;
	uint32_t i;
	int ret;

	ret = wfi_perf_space_open(b->far.w, "remote", BLOCK_BYTES, &space);
	if (ret)
		return ret;
	for (i = 0; i < CHAIN; i++)
		bufs[i] = bytes;
	for (i = 0; i < CHAINS; i++) {
		memset(bytes, (int)i + 1, sizeof(bytes));
		wfi_perf_keys(b->keys[i], (uint64_t)i * CHAIN, CHAIN);
		ret = weft_put(b->far.ring, space, NULL, b->keys[i], CHAIN, bufs);
		if (ret != (int)CHAIN)
			return wfi_perf_fail(ret < 0 ? ret : -EIO, "remote: %s", weft_why());
	}
	return 0;
}

static int engine_open(struct remote_bench *b)
{
	int ret = wfi_perf_near_engine(&b->near, &b->w, &b->ring);

	if (!ret)
		ret = wfi_perf_space_open(b->w, "remote", BLOCK_BYTES, &b->space);
	if (!ret)
		ret = wfi_perf_region_open(b->w, &b->region, CHAIN * BLOCK_BYTES, false);
	return ret;
}

/* all of it has been announced */
static int wait_for_far(struct remote_bench *b)
{
	const uint64_t end_ns = wfi_perf_now_ns() + SOON_NS;
	uint32_t i;

	for (i = 0; i < CHAINS;) {
		i += weft_match(b->ring, b->space, b->keys[i], CHAIN) == (int)CHAIN;
		if (wfi_perf_now_ns() > end_ns)
			return wfi_perf_fail(-ETIMEDOUT, "remote: the nodes do not meet");
	}
	return 0;
}

/* ---- match ---- */

static int match_ns(void *ctx, double *ns)
{
	struct remote_bench *b = ctx;
	struct weft_op op = {
		.op = WEFT_OP_MATCH, .nr = CHAIN, .space = b->space, .timeout_us = MATCH_US
	};
	const uint64_t start_ns = wfi_perf_now_ns();
	uint32_t i;
	int ret;

	for (i = 0; i < b->nr_trips; i++) {
		op.keys = b->keys[b->turn++ % CHAINS];
		ret = wfi_perf_near_call(&b->near, b->ring, &op);
		if (ret != (int)CHAIN)
			return ret < 0 ? ret : -EIO;
	}
	*ns = (double)(wfi_perf_now_ns() - start_ns) / b->nr_trips;
	return 0;
}

/* ---- a bare round trip: two endpoints, a thread that answers ---- */

struct bare_end {
	struct weft_device *dev;
	struct weft_cq *cq[2];
	struct weft_ep *ep;
	struct weft_ep_addr addr;
};

struct bare {
	const struct weft_transport *t;
	struct wfi_env env;
	struct bare_end end[2];
	uint32_t nr_trips;
	_Atomic bool over;
};

static int end_open(struct bare *b, struct bare_end *e)
{
	struct weft_device_opts dev = { .size = sizeof(dev) };
	struct weft_cq_opts cq = { .size = sizeof(cq) };
	struct weft_ep_opts ep = { .size = sizeof(ep) };
	int ret = b->t->device_open(b->t, &b->env, &dev, &e->dev);

	if (!ret)
		ret = b->t->cq_create(e->dev, &cq, &e->cq[0]);
	if (!ret)
		ret = b->t->cq_create(e->dev, &cq, &e->cq[1]);
	if (ret)
		return ret;
	ep.send_cq = e->cq[0];
	ep.recv_cq = e->cq[1];
	ret = b->t->ep_create(e->dev, &ep, &e->ep);
	return ret ? ret : b->t->ep_addr(e->ep, &e->addr);
}

static int end_connect(struct bare *b, struct bare_end *e, const struct bare_end *to)
{
	struct weft_ep_peer peer = {
		.size = sizeof(peer),
		.blob = to->addr.blob,
		.blob_len = to->addr.blob_len,
		.nr_fds = to->addr.nr_fds,
		.fds = to->addr.fds,
		.pid = getpid(),
	};

	return b->t->ep_connect(e->ep, &peer);
}

static int bare_open(struct bare *b)
{
	int ret = wfi_env_real_init(&b->env), i;

	for (i = 0; i < 2 && !ret; i++)
		ret = end_open(b, &b->end[i]);
	for (i = 0; i < 2 && !ret; i++)
		ret = end_connect(b, &b->end[i], &b->end[!i]);
	return ret ? wfi_perf_fail(ret, "remote: no endpoints: %s", strerror(-ret)) : 0;
}

static void bare_close(struct bare *b)
{
	struct weft_wc wc;
	int i;

	for (i = 0; i < 2; i++)
		b->t->ep_shutdown(b->end[i].ep);
	for (i = 0; i < 2; i++) {
		do
			while (weft_cq_poll(b->end[i].cq[1], &wc, 1) <= 0)
				;
		while (wc.op != WEFT_WC_CLOSED);
		b->t->ep_destroy(b->end[i].ep);
		b->t->cq_destroy(b->end[i].cq[0]);
		b->t->cq_destroy(b->end[i].cq[1]);
		b->t->device_close(b->end[i].dev);
	}
}

/* Return: whether a message came */
static bool bare_recv(struct bare_end *e)
{
	struct weft_wc wc;

	return weft_cq_poll(e->cq[1], &wc, 1) > 0 && wc.op == WEFT_WC_RECV && wc.len == MSG_BYTES;
}

static void bare_send(struct bare_end *e)
{
	static const uint8_t msg[MSG_BYTES];

	while (weft_ep_post_send(e->ep, msg, sizeof(msg), 0, WEFT_POST_QUIET) == -EAGAIN)
		;
}

static void *echo_main(void *arg)
{
	struct bare *b = arg;

	while (!atomic_load_explicit(&b->over, memory_order_relaxed))
		if (bare_recv(&b->end[1]))
			bare_send(&b->end[1]);
	return NULL;
}

static int bare_ns(void *ctx, double *ns)
{
	struct bare *b = ctx;
	uint64_t start_ns;
	pthread_t echo;
	uint32_t i;
	int ret;

	atomic_store(&b->over, false);
	ret = wfi_perf_partner(&echo, echo_main, b);
	if (ret)
		return ret;
	start_ns = wfi_perf_now_ns();
	for (i = 0; i < b->nr_trips; i++) {
		bare_send(&b->end[0]);
		while (!bare_recv(&b->end[0]))
			;
	}
	*ns = (double)(wfi_perf_now_ns() - start_ns) / b->nr_trips;
	atomic_store(&b->over, true);
	pthread_join(echo, NULL);
	return 0;
}

static int run_match(const struct wfi_perf *p, struct remote_bench *b)
{
	const struct wfi_perf_case c = { "remote", b->tcp ? "match64_tcp" : "match64_shm", "ns",
					 false };
	static struct bare bare;
	const struct wfi_perf_side sides[] = {
		{ NULL, match_ns, b, NULL },
		{ "bare_round_trip_64B", bare_ns, &bare, NULL },
	};
	int ret;

	bare.t = wfi_transport_find(wfi_transports, b->tcp ? "tcp" : "shm");
	ret = bare_open(&bare);
	if (ret)
		return ret;
	bare.nr_trips = b->nr_trips;
	ret = wfi_perf_compare(p, &c, sides, 2);
	bare_close(&bare);
	return ret;
}

/* ---- get ---- */

static int get_rate(void *ctx, double *rate)
{
	struct remote_bench *b = ctx;
	struct weft_place places[CHAIN];
	int32_t results[CHAIN];
	struct weft_op op = { .op = WEFT_OP_GET,
			      .nr = CHAIN,
			      .space = b->space,
			      .places = places,
			      .results = results };
	const uint8_t *bytes = b->region.map.addr;
	uint64_t start_ns, sum_ns = 0;
	uint32_t i, chain;
	int ret;

	for (i = 0; i < CHAIN; i++)
		places[i] = (struct weft_place){ .region = b->region.id, .off = i * BLOCK_BYTES };
	for (i = 0; i < b->nr_gets; i++) {
		chain = b->turn++ % CHAINS;
		op.keys = b->keys[chain];
		start_ns = wfi_perf_now_ns();
		ret = wfi_perf_near_call(&b->near, b->ring, &op);
		sum_ns += wfi_perf_now_ns() - start_ns;
		if (ret != (int)CHAIN || bytes[CHAIN * BLOCK_BYTES - 1] != chain + 1)
			return ret < 0 ? ret : -EIO;
	}
	*rate = (double)b->nr_gets * CHAIN * BLOCK_BYTES / (double)sum_ns;
	return 0;
}

/* the copy alone, of as many bytes from as much memory of another file */
struct copies {
	struct wfi_map map;
	struct wfi_peer_copy copy;
	void *dst[CHAINS * CHAIN];
	const void *src[CHAINS * CHAIN];
};

static int run_get(const struct wfi_perf *p, struct remote_bench *b)
{
	const struct wfi_perf_case c = { "remote", "get_64x64KiB_shm", "GB/s", true };
	static struct copies copies;
	const struct wfi_perf_side sides[] = {
		{ NULL, get_rate, b, NULL },
		{ "copy_alone", wfi_peer_best_copy_rate, &copies.copy, NULL },
	};
	const uint64_t len = CHAINS * CHAIN * BLOCK_BYTES;
	struct wfi_env *env = &b->near.env;
	uint32_t i;
	int ret;

	ret = env->mem->map(env, len, WFI_MAP_HUGE | WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT,
			    &copies.map);
	if (ret)
		return wfi_perf_fail(ret, "remote: no memory: %s", strerror(-ret));
	memset(copies.map.addr, 1, len);
	for (i = 0; i < CHAINS * CHAIN; i++) {
		copies.src[i] = (uint8_t *)copies.map.addr + i * BLOCK_BYTES;
		copies.dst[i] = (uint8_t *)b->region.map.addr + i % CHAIN * BLOCK_BYTES;
	}
	copies.copy = (struct wfi_peer_copy){ .dst = copies.dst,
					      .src = copies.src,
					      .nr = CHAINS * CHAIN,
					      .nr_repeats = (b->nr_gets + CHAINS - 1) / CHAINS,
					      .len = BLOCK_BYTES };
	wfi_peer_best_copy_find(&copies.copy);
	ret = wfi_perf_compare(p, &c, sides, 2);
	env->mem->unmap(env, &copies.map);
	return ret;
}

static int run_cases(const struct wfi_perf *p, struct remote_bench *b)
{
	int ret;

	ret = fill_far(b);
	if (!ret)
		ret = engine_open(b);
	if (!ret)
		ret = wait_for_far(b);
	if (ret)
		return ret;
	wfi_perf_near_hold(&b->near);
	if (wfi_perf_wanted(b->tcp ? "match64_tcp" : "match64_shm"))
		ret = run_match(p, b);
	if (!ret && !b->tcp && wfi_perf_wanted("get_64x64KiB_shm"))
		ret = run_get(p, b);
	return wfi_perf_near_let(&b->near) ? -EAGAIN : ret;
}

static int run_over(const struct wfi_perf *p, struct remote_bench *b)
{
	char addr[32];
	const struct wfi_perf_node far = { .arena_bytes = ARENA_BYTES,
					   .map_flags = WFI_MAP_HUGE | WFI_MAP_PREFAULT,
					   .name = "far",
					   .id = 1,
					   .transport = b->tcp ? "tcp" : NULL,
					   .listen = b->tcp ? addr : NULL };
	int ret = b->tcp ? wfi_perf_free_port(addr, sizeof(addr)) : 0;

	if (!ret)
		ret = wfi_perf_rig_open_node(&b->far, &far);
	if (ret)
		return ret;
	ret = wfi_perf_near_open(&b->near, &b->far, far.listen, NEAR_BYTES, 0);
	if (!ret) {
		ret = run_cases(p, b);
		wfi_perf_region_close(b->w, &b->region);
		weft_close(b->w);
		wfi_perf_near_close(&b->near);
	}
	wfi_perf_rig_close(&b->far);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	static struct remote_bench over[2] = { { .tcp = false }, { .tcp = true } };
	unsigned i;
	int ret = 0;

	(void)nr_args;
	(void)args;
	for (i = 0; i < 2 && !ret; i++) {
		over[i].nr_trips = p->quick ? TRIPS / 400 : TRIPS;
		over[i].nr_gets = p->quick ? GETS / 50 : GETS;
		ret = run_over(p, &over[i]);
	}
	return ret;
}

const struct wfi_perf_bench wfi_perf_remote = {
	.name = "remote",
	.summary = "blocks of another node, found and fetched",
	.run = run,
};
