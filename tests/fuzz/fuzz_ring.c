/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_ring.c - the node's side of a ring against an engine that does anything
 *
 * An input is a script of steps of both sides. As long as the engine keeps to the protocol, entries
 * must arrive whole and in order; afterwards nothing may break but the ring. For libFuzzer:
 * LLVMFuzzerTestOneInput(). Built with -DFUZZ_STANDALONE, it runs seeded scripts:
 *
 *	fuzz_ring [MILLISECONDS [SEED]]
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "tests/fuzz/fuzz.h"
#include "weft_internal/env.h"
#include "weft_internal/log.h"
#include "weft_internal/ring_server.h"
#include "weft_internal/util.h"

#define DEPTH 8u
#define CQ_DEPTH 16u
#define ARGS 4096u

struct script {
	const uint8_t *at, *end;
};

struct world {
	struct wfi_ring *ring;
	char *seg;
	size_t len;
	struct weft_ring_hdr hdr;
	uint32_t posted, taken, finished; /* operations */
	uint32_t published, reaped; /* completions */
	uint32_t shown; /* the engine's head, while it is honest */
	bool honest, broken;
};

static uint64_t next(struct script *s, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes-- && s->at < s->end)
		v = v << 8 | *s->at++;
	return v;
}

/* ---- the engine ---- */

static struct weft_ring_line *line(struct world *w, uint32_t off)
{
	return (struct weft_ring_line *)(w->seg + off);
}

static void engine_post(struct world *w, struct script *s)
{
	struct weft_sqe *sqe = (struct weft_sqe *)(w->seg + w->hdr.sq_off) + w->posted % DEPTH;

	if (w->posted - line(w, WEFT_RING_NODE_OFF)->head >= DEPTH)
		return;
	sqe->op = (uint8_t)next(s, 1);
	sqe->handle = next(s, 8);
	sqe->user_data = w->posted;
	__atomic_store_n(&sqe->seq, w->posted + 1, __ATOMIC_RELEASE);
	w->posted++;
}

static void engine_reap(struct world *w)
{
	const struct weft_cqe *cqe =
		(const struct weft_cqe *)(w->seg + w->hdr.cq_off) + w->reaped % CQ_DEPTH;

	if (w->honest)
		CHECK((cqe->seq == w->reaped + 1) == (w->reaped != w->published));
	if (cqe->seq != w->reaped + 1)
		return;
	if (w->honest)
		CHECK(cqe->user_data == w->reaped && cqe->res == (int32_t)w->reaped);
	w->reaped++;
}

static void engine_show(struct world *w)
{
	w->shown = w->reaped;
	__atomic_store_n(&line(w, WEFT_RING_ENGINE_OFF)->head, w->reaped, __ATOMIC_RELEASE);
}

/* any byte of the segment, any value */
static void engine_scribble(struct world *w, struct script *s)
{
	uint64_t off = next(s, 3) % (w->hdr.arg_off + 64);

	w->honest = false;
	w->seg[off] = (char)next(s, 1);
}

static void engine_lie(struct world *w, struct script *s)
{
	w->honest = false;
	line(w, WEFT_RING_ENGINE_OFF)->head = w->reaped + (uint32_t)(int8_t)next(s, 1);
}

static void engine_forge_seq(struct world *w, struct script *s)
{
	struct weft_sqe *sqe =
		(struct weft_sqe *)(w->seg + w->hdr.sq_off) + (w->taken + next(s, 1)) % DEPTH;

	w->honest = false;
	sqe->seq = w->taken + (uint32_t)(int8_t)next(s, 1);
}

/* ---- the node ---- */

static void saw(struct world *w, int ret)
{
	if (w->broken)
		CHECK(ret == -EPROTO);
	if (ret != -EPROTO)
		return;
	CHECK(!w->honest);
	w->broken = true;
}

static void node_take(struct world *w, struct script *s)
{
	struct weft_sqe sqes[DEPTH];
	unsigned max = (unsigned)next(s, 1) % (DEPTH + 1);
	int nr = wfi_ring_take(w->ring, sqes, max), i;

	saw(w, nr);
	if (nr < 0)
		return;
	CHECK((unsigned)nr <= max);
	for (i = 0; i < nr && w->honest; i++)
		CHECK(sqes[i].user_data == w->taken + (uint32_t)i);
	w->taken += (uint32_t)nr;
	CHECK(w->taken - w->finished <= CQ_DEPTH);
	if (!w->honest)
		return;
	CHECK(w->taken <= w->posted);
	/* all that is owed has room behind all that was not shown to be read */
	CHECK(w->published - w->shown + w->taken - w->finished <= CQ_DEPTH);
}

static void node_complete(struct world *w, uint8_t flags)
{
	const struct weft_cqe cqe = { .user_data = w->published,
				      .res = (int32_t)w->published,
				      .flags = flags };
	int ret;

	if (!flags && w->taken == w->finished)
		return;
	ret = wfi_ring_complete(w->ring, &cqe);
	saw(w, ret);
	if (!flags)
		w->finished++;
	CHECK(!ret || ret == -EPROTO || (flags && ret == -EAGAIN));
	w->published += !ret;
	if (w->honest)
		CHECK(w->published - w->shown <= CQ_DEPTH);
}

/* near the area's end, near the end of 64 bits, or anywhere */
static uint64_t edge(struct script *s)
{
	unsigned mode = (unsigned)next(s, 1) % 3;
	uint64_t v = next(s, 8);

	if (mode == 0)
		return v % (2 * ARGS);
	return mode == 1 ? UINT64_MAX - v % (2 * ARGS) : v;
}

static void node_args(struct world *w, struct script *s)
{
	uint64_t off = edge(s), len = edge(s);
	static char buf[ARGS];
	bool ok;

	ok = off <= ARGS && len <= ARGS - off;
	CHECK(wfi_ring_args_ok(w->ring, off, len) == ok);
	CHECK(wfi_ring_args_read(w->ring, off, buf, len) == (ok ? 0 : -EFAULT));
	CHECK(wfi_ring_args_write(w->ring, off, buf, len) == (ok ? 0 : -EFAULT));
}

static void node_sleep(struct world *w)
{
	const uint32_t *futex;
	uint32_t val;
	bool work = wfi_ring_sleep(w->ring, &futex, &val);

	if (w->honest && work)
		CHECK(w->taken != w->posted || w->published - w->reaped < CQ_DEPTH);
	if (!work)
		wfi_ring_awake(w->ring);
}

static void step(struct world *w, struct script *s)
{
	switch (next(s, 1) % 16) {
	case 0:
	case 1:
	case 2:
		engine_post(w, s);
		break;
	case 3:
	case 4:
		engine_reap(w);
		break;
	case 5:
		engine_show(w);
		break;
	case 6:
		node_args(w, s);
		break;
	case 7:
		node_sleep(w);
		break;
	case 8:
		node_complete(w, WEFT_CQE_MORE);
		break;
	case 9:
	case 10:
		node_complete(w, 0);
		break;
	case 11:
	case 12:
		node_take(w, s);
		break;
	case 13:
		wfi_ring_flush(w->ring);
		if (w->honest)
			CHECK(w->taken - line(w, WEFT_RING_NODE_OFF)->head < DEPTH / 4);
		break;
	case 14:
		line(w, WEFT_RING_ENGINE_OFF)->sleeping = next(s, 1) & 1;
		break;
	default:
		/* once in a while: most scripts should stay honest for long */
		switch (next(s, 1)) {
		case 0:
			engine_scribble(w, s);
			break;
		case 1:
			engine_lie(w, s);
			break;
		case 2:
			engine_forge_seq(w, s);
			break;
		}
	}
}

static void drop_line(void *ctx, enum wfi_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	(void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct wfi_ring_opts opts = { DEPTH, CQ_DEPTH, ARGS };
	struct script s = { data, data + len };
	struct world w = { .honest = true };
	struct wfi_env env;

	wfi_log_set_sink(drop_line, NULL);
	CHECK(!wfi_env_real_init(&env));
	CHECK(!wfi_ring_create(&env, &opts, &w.ring));
	w.len = wfi_ring_len(w.ring);
	w.seg = mmap(NULL, w.len, PROT_READ | PROT_WRITE, MAP_SHARED, wfi_ring_fd(w.ring), 0);
	CHECK(w.seg != MAP_FAILED);
	memcpy(&w.hdr, w.seg, sizeof(w.hdr));
	while (s.at < s.end)
		step(&w, &s);
	munmap(w.seg, w.len);
	wfi_ring_destroy(w.ring);
	return 0;
}

#ifdef FUZZ_STANDALONE

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t rnd(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

int main(int argc, char **argv)
{
	uint64_t end_ms = now_ms() + (argc > 1 ? strtoull(argv[1], NULL, 0) : 2000);
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, runs = 0;
	static uint8_t script[4096];
	size_t i;

	do {
		uint64_t state = seed + runs;

		for (i = 0; i < sizeof(script); i++)
			script[i] = (uint8_t)rnd(&state);
		LLVMFuzzerTestOneInput(script, 64 + rnd(&state) % (sizeof(script) - 64));
		runs++;
	} while (now_ms() < end_ms);
	printf("%llu scripts from seed %llu\n", (unsigned long long)runs, (unsigned long long)seed);
	return 0;
}

#endif
