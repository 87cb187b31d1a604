/* SPDX-License-Identifier: Apache-2.0 */
/* bench_copy.c - blocks from the arena to scattered places of an engine: one GET, asked and
 * answered */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"

#define SLEEP_BYTES (16ull << 20)
#define ARENA_BYTES (512ull << 20)
#define PUT_BATCH 32u

/* what is copied in a case */
struct shape {
	const char *name;
	uint64_t len;
	uint32_t nr;
	uint32_t spread; /* places for each piece */
	uint32_t nr_repeats; /* in a round */
	bool is_private;
};

struct copy_bench {
	struct shape shape;
	uint8_t flags; /* of the GETs */
	struct wfi_perf_rig *rig;
	struct weft_space *space;
	struct wfi_perf_region region;
	struct weft_key *keys;
	struct weft_place *places;
	/* the peers': as many bytes in memory of the same kind, copied to the same places, so that
	 * the luck of pages in caches is the same */
	struct wfi_perf_region peer_src;
	struct wfi_peer_copy peer;
	void **dst;
	const void **src;
};

/* a process whose memory process_vm_writev writes to */
struct victim {
	pid_t pid;
	char *addr;
};

/* ---- Weft's side ---- */

static int get(const struct copy_bench *b)
{
	struct weft_op op = {
		.op = WEFT_OP_GET,
		.flags = b->flags,
		.nr = b->shape.nr,
		.space = b->space,
		.keys = b->keys,
		.places = b->places,
	};
	/* what takes milliseconds is slept for, as engines do: who spins takes from the node's core
	 * where the two share one */
	int ret = b->shape.nr * b->shape.len > SLEEP_BYTES ? weft_call(b->rig->ring, &op, NULL)
							   : wfi_perf_call(b->rig->ring, &op);

	if (ret >= 0 && (uint32_t)ret != b->shape.nr)
		return -EIO;
	return ret < 0 ? ret : 0;
}

static int get_us(void *ctx, double *us)
{
	const struct copy_bench *b = ctx;
	uint64_t start_ns;
	uint32_t i;
	int ret;

	ret = get(b); /* the node is awake */
	start_ns = wfi_perf_now_ns();
	for (i = 0; i < b->shape.nr_repeats && !ret; i++)
		ret = get(b);
	*us = (double)(wfi_perf_now_ns() - start_ns) / 1e3 / b->shape.nr_repeats;
	return ret;
}

static int get_rate(void *ctx, double *rate)
{
	const struct copy_bench *b = ctx;
	double us;
	int ret = get_us(ctx, &us);

	*rate = (double)b->shape.nr * (double)b->shape.len / us / 1e3;
	return ret;
}

static int put_blocks(const struct copy_bench *b)
{
	const char *src = b->peer_src.map.addr;
	const void *bufs[PUT_BATCH];
	uint32_t i, n, nr;
	int ret;

	for (i = 0; i < b->shape.nr; i += nr) {
		nr = b->shape.nr - i < PUT_BATCH ? b->shape.nr - i : PUT_BATCH;
		for (n = 0; n < nr; n++)
			bufs[n] = src + (i + n) * b->shape.len;
		ret = weft_put(b->rig->ring, b->space, i ? &b->keys[i - 1] : NULL, &b->keys[i], nr,
			       bufs);
		if (ret < 0 || (uint32_t)ret != nr)
			return wfi_perf_fail(ret < 0 ? ret : -EIO, "put: %s", weft_why());
	}
	return 0;
}

static int check_bytes(const struct copy_bench *b)
{
	const char *got = b->region.map.addr, *want = b->peer_src.map.addr;
	uint32_t i;
	int ret = get(b);

	for (i = 0; i < b->shape.nr && !ret; i++)
		if (memcmp(got + b->places[i].off, want + i * b->shape.len, b->shape.len))
			ret = -EBADMSG;
	return ret ? wfi_perf_fail(ret, "%s: what arrived is not what was put: %s", b->shape.name,
				   strerror(-ret))
		   : 0;
}

/* ---- set-up ---- */

static int arrays_alloc(struct copy_bench *b)
{
	uint32_t nr = b->shape.nr;

	b->keys = calloc(nr, sizeof(*b->keys));
	b->places = calloc(nr, sizeof(*b->places));
	b->dst = calloc(nr, sizeof(*b->dst));
	b->src = calloc(nr, sizeof(*b->src));
	return b->keys && b->places && b->dst && b->src ? 0 : wfi_perf_fail(-ENOMEM, "no memory");
}

/* the same places on both sides. @dst: of the peers, here or in another process */
static int scatter(struct copy_bench *b, char *dst)
{
	const struct shape *s = &b->shape;
	uint32_t *order = calloc((size_t)s->nr * s->spread, sizeof(*order));
	const char *src = b->peer_src.map.addr;
	uint32_t i;

	if (!order)
		return wfi_perf_fail(-ENOMEM, "no memory");
	wfi_perf_shuffle(order, s->nr * s->spread);
	for (i = 0; i < s->nr; i++) {
		b->places[i] =
			(struct weft_place){ .off = order[i] * s->len, .region = b->region.id };
		b->dst[i] = dst + order[i] * s->len;
		b->src[i] = src + i * s->len;
	}
	free(order);
	return 0;
}

static void fill(void *buf, uint64_t len)
{
	uint64_t *words = buf, i;

	for (i = 0; i < len / sizeof(*words); i++)
		words[i] = wfi_perf_rand(i);
}

static void bench_close(struct copy_bench *b)
{
	wfi_perf_region_close(b->rig->w, &b->region);
	wfi_perf_region_close(b->rig->w, &b->peer_src);
	weft_space_close(b->space);
	free(b->keys);
	free(b->places);
	free(b->dst);
	free(b->src);
}

static int bench_open(struct copy_bench *b, const struct victim *victim)
{
	const struct shape *s = &b->shape;
	uint64_t len = s->nr * s->len;
	int ret;

	ret = arrays_alloc(b);
	if (!ret)
		ret = wfi_perf_space_open(b->rig->w, s->name, s->len, &b->space);
	if (!ret)
		ret = wfi_perf_region_open(b->rig->w, &b->region, len * s->spread, s->is_private);
	if (!ret)
		ret = wfi_perf_region_open(b->rig->w, &b->peer_src, len, false);
	if (!ret)
		ret = scatter(b, s->is_private ? victim->addr : b->region.map.addr);
	if (ret)
		return ret;
	b->peer = (struct wfi_peer_copy){
		.dst = b->dst,
		.src = b->src,
		.nr = s->nr,
		.nr_repeats = s->nr_repeats,
		.len = s->len,
		.pid = victim->pid,
	};
	fill(b->peer_src.map.addr, len);
	wfi_perf_keys(b->keys, 0, s->nr);
	ret = put_blocks(b);
	return ret ? ret : check_bytes(b);
}

/* ---- the other process ---- */

static void victim_main(int ready, uint64_t len)
{
	struct wfi_env env;
	struct wfi_map map;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!wfi_env_real_init(&env) &&
	    !env.mem->map(&env, len, WFI_MAP_PREFAULT | WFI_MAP_HUGE, &map) &&
	    write(ready, &map.addr, sizeof(map.addr)) == sizeof(map.addr))
		for (;;)
			pause();
	_exit(1);
}

static int victim_open(struct victim *v, uint64_t len)
{
	int ready[2], ret = 0;

	if (pipe(ready))
		return wfi_perf_fail(-errno, "no pipe: %s", strerror(errno));
	fflush(NULL);
	v->pid = fork();
	if (!v->pid) {
		close(ready[0]);
		victim_main(ready[1], len);
	}
	close(ready[1]);
	if (v->pid < 0 || read(ready[0], &v->addr, sizeof(v->addr)) != sizeof(v->addr))
		ret = wfi_perf_fail(-ECHILD, "no second process to write to");
	close(ready[0]);
	return ret;
}

static void victim_close(struct victim *v)
{
	if (v->pid <= 0)
		return;
	kill(v->pid, SIGKILL);
	waitpid(v->pid, NULL, 0);
}

/* ---- cases ---- */

static int run_scatter(const struct wfi_perf *p, struct copy_bench *b)
{
	const struct wfi_perf_case c = { "copy", b->shape.name, "us", false };
	const struct wfi_perf_side sides[] = {
		{ NULL, get_us, b, NULL },
		{ "memcpy", wfi_peer_memcpy_us, &b->peer, NULL },
	};

	return wfi_perf_compare(p, &c, sides, 2);
}

static int run_unmapped(const struct wfi_perf *p, struct copy_bench *b)
{
	const struct wfi_perf_case c = { "copy", b->shape.name, "us", false };
	const struct wfi_perf_side sides[] = {
		{ NULL, get_us, b, NULL },
		{ "process_vm_writev", wfi_peer_vm_writev_us, &b->peer, NULL },
	};

	return wfi_perf_compare(p, &c, sides, 2);
}

static int run_large(const struct wfi_perf *p, struct copy_bench *b)
{
	const struct wfi_perf_case c = { "copy", b->shape.name, "GB/s", true };
	const struct wfi_perf_side sides[] = {
		{ NULL, get_rate, b, NULL },
		{ "best_copy", wfi_peer_best_copy_rate, &b->peer, NULL },
		{ "memcpy", wfi_peer_memcpy_rate, &b->peer, NULL },
	};

	wfi_peer_best_copy_find(&b->peer);
	return wfi_perf_compare(p, &c, sides, 3);
}

/* beside itself, the checksums left alone */
static int run_verified(const struct wfi_perf *p, struct copy_bench *b)
{
	const struct wfi_perf_case c = { "get", b->shape.name, "GB/s", true };
	struct copy_bench plain = *b;
	const struct wfi_perf_side sides[] = {
		{ NULL, get_rate, b, NULL },
		{ "plain_copy", get_rate, &plain, NULL },
	};

	b->flags = WEFT_F_VERIFY;
	return wfi_perf_compare(p, &c, sides, 2);
}

static int run_shape(const struct wfi_perf *p, const struct shape *shape, struct wfi_perf_rig *rig,
		     const struct victim *victim,
		     int (*cases)(const struct wfi_perf *p, struct copy_bench *b))
{
	struct copy_bench b = { .shape = *shape, .rig = rig };
	int ret;

	if (p->quick)
		b.shape.nr_repeats = 1 + b.shape.nr_repeats / 20;
	ret = bench_open(&b, victim);
	if (!ret)
		ret = cases(p, &b);
	bench_close(&b);
	return ret;
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	static const struct shape few = { "scatter_256x1KiB", 1u << 10, 256, 4, 1000, false };
	static const struct shape many = { "scatter_4096x1KiB", 1u << 10, 4096, 4, 100, false };
	static const struct shape unmapped = { "unmapped_256x1KiB", 1u << 10, 256, 4, 400, true };
	static const struct shape large = { "large_2MiB_pieces", 2u << 20, 64, 1, 4, false };
	struct victim victim = { 0 };
	struct wfi_perf_rig rig;
	int ret;

	(void)nr_args;
	(void)args;
	/* both processes first: a fork later would turn our own pages into copies on write */
	ret = wfi_perf_rig_open(&rig, ARENA_BYTES, WFI_MAP_HUGE | WFI_MAP_PREFAULT);
	if (ret)
		return ret;
	ret = victim_open(&victim, unmapped.nr * unmapped.len * unmapped.spread);
	if (!ret)
		ret = run_shape(p, &few, &rig, &victim, run_scatter);
	if (!ret)
		ret = run_shape(p, &many, &rig, &victim, run_scatter);
	if (!ret)
		ret = run_shape(p, &unmapped, &rig, &victim, run_unmapped);
	if (!ret)
		ret = run_shape(p, &large, &rig, &victim, run_large);
	victim_close(&victim);
	wfi_perf_rig_close(&rig);
	return ret;
}

const struct wfi_perf_bench wfi_perf_copy = {
	.name = "copy",
	.summary =
		"blocks into an engine's memory: scattered small ones, large ones, unmapped memory",
	.run = run,
};

static int run_get(const struct wfi_perf *p, int nr_args, char **args)
{
	static const struct shape verified = { "verified_2MiB", 2u << 20, 64, 1, 4, false };
	const struct victim none = { 0 };
	struct wfi_perf_rig rig;
	int ret;

	(void)nr_args;
	(void)args;
	ret = wfi_perf_rig_open(&rig, ARENA_BYTES, WFI_MAP_HUGE | WFI_MAP_PREFAULT);
	if (ret)
		return ret;
	ret = run_shape(p, &verified, &rig, &none, run_verified);
	wfi_perf_rig_close(&rig);
	return ret;
}

const struct wfi_perf_bench wfi_perf_get = {
	.name = "get",
	.summary = "blocks into an engine's memory, their checksums verified on the way",
	.run = run_get,
};
