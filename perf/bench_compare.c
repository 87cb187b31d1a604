/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_compare.c - the work that other systems do, done by them and by Weft in turn
 *
 * The other systems are programs (perf/compare/run starts this with them); bare TCP is not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "perf/pair.h"
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/store.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

enum peer {
	PEER_NIXL,
	PEER_MOONCAKE,
	PEER_STORE,
	PEER_NR,
};

static const char *const peer_names[PEER_NR] = { "nixl", "mooncake", "mooncake_store" };

/* scattered pieces from one process to another */
struct pieces_case {
	const char *name;
	bool tcp;
	bool read;
	uint32_t nr;
	uint32_t bytes;
	unsigned ops; /* of a peer's round */
};

static const struct pieces_case pieces_cases[] = {
	{ "shm_write_256x1KiB", false, false, 256, 1u << 10, 200 },
	{ "shm_write_4096x1KiB", false, false, 4096, 1u << 10, 20 },
	{ "shm_write_256x64KiB", false, false, 256, 64u << 10, 20 },
	{ "tcp_write_256x1KiB", true, false, 256, 1u << 10, 50 },
	{ "tcp_read_256x1KiB", true, true, 256, 1u << 10, 50 },
	{ "tcp_write_256x64KiB", true, false, 256, 64u << 10, 20 },
	{ "tcp_read_256x64KiB", true, true, 256, 64u << 10, 20 },
};

struct run {
	const struct wfi_perf *p;
	const char *commands[PEER_NR]; /* NULL: not given */
	const char *tcp; /* Weft's transport over TCP, or NULL */
	const char *only; /* cases whose names begin so, or NULL */
	unsigned nr_wanted; /* that there were */
};

static unsigned ops_of(const struct run *r, unsigned ops)
{
	return r->p->quick ? 3 : ops;
}

/* ---- a peer that is a program ---- */

struct program {
	struct wfi_peer_program *peer;
	const char *name; /* of the case */
	unsigned ops;
};

static int program_round(void *ctx, double *us)
{
	const struct program *g = ctx;

	return wfi_peer_program_ask(g->peer, g->name, g->ops, us);
}

/* Return: 0, -errno (said). Its end is the caller's */
static int program_side(const struct run *r, enum peer which, const char *name, unsigned ops,
			struct program *g, struct wfi_perf_side *side)
{
	*side = (struct wfi_perf_side){ peer_names[which], program_round, g, NULL };
	*g = (struct program){ NULL, name, ops_of(r, ops) };
	if (!r->commands[which])
		side->skipped = "not given: perf/compare/run installs it";
	else if (wfi_peer_program_open(r->commands[which], &g->peer))
		return wfi_perf_fail(-EIO, "%s does not start", r->commands[which]);
	return 0;
}

/* ---- pieces: Weft ---- */

struct pieces {
	const struct pieces_case *c;
	struct wfi_pair *pair;
	struct wfi_piece *list;
	unsigned ops;
	uint8_t salt;
};

static uint8_t *piece_there(const struct pieces *s, uint32_t i)
{
	return wfi_pair_there(s->pair) + s->list[i].remote;
}

static int pieces_move(void *ctx)
{
	const struct pieces *s = ctx;

	return wfi_pair_move(s->pair, s->c->read ? WFI_XFER_READ : WFI_XFER_WRITE, s->list,
			     s->c->nr);
}

/* each piece has bytes of its own, and the place where they go has others */
static void pieces_fill(struct pieces *s)
{
	uint32_t i;

	s->salt++;
	for (i = 0; i < s->c->nr; i++) {
		uint8_t *from = s->c->read ? piece_there(s, i) : s->list[i].local;
		uint8_t *to = s->c->read ? s->list[i].local : piece_there(s, i);

		memset(from, (int)(i + s->salt), s->c->bytes);
		memcpy(from, &i, sizeof(i));
		memset(to, (int)(i + s->salt + 1), s->c->bytes);
	}
}

static int pieces_check(const struct pieces *s)
{
	uint32_t i;

	for (i = 0; i < s->c->nr; i++)
		if (memcmp(s->list[i].local, piece_there(s, i), s->c->bytes))
			return wfi_perf_fail(-EBADMSG, "%s: piece %u has other bytes", s->c->name,
					     i);
	return 0;
}

static int pieces_round(void *ctx, double *us)
{
	struct pieces *s = ctx;
	struct wfi_perf_timed timed = { NULL, pieces_move, s, s->ops };
	int ret;

	pieces_fill(s);
	ret = wfi_pair_begin(s->pair);
	if (!ret)
		ret = pieces_move(s);
	if (!ret)
		ret = pieces_check(s);
	if (!ret)
		ret = wfi_perf_timed_us(&timed, us);
	return ret ? ret : wfi_pair_end(s->pair);
}

/* from one piece to the next is twice its length, so that none are neighbours */
static int pieces_open(struct pieces *s, const char *transport)
{
	static uint32_t order[4096];
	uint64_t stride = 2ull * s->c->bytes;
	uint32_t i;
	int ret = wfi_pair_open(transport, NULL, s->c->nr * stride, &s->pair);

	if (ret)
		return ret;
	s->list = calloc(s->c->nr, sizeof(*s->list));
	if (!s->list)
		return -ENOMEM;
	wfi_perf_shuffle(order, s->c->nr);
	for (i = 0; i < s->c->nr; i++)
		s->list[i] = (struct wfi_piece){ .local = wfi_pair_here(s->pair) + i * stride,
						 .remote = order[i] * stride,
						 .len = s->c->bytes };
	return 0;
}

/* ---- pieces: bare TCP ---- */

struct bare {
	struct wfi_peer_tcp *tcp;
	const struct pieces_case *c;
	unsigned ops;
};

static int bare_move(void *ctx)
{
	const struct bare *b = ctx;
	uint32_t bytes = b->c->nr * b->c->bytes;

	return wfi_peer_tcp_move(b->tcp, b->c->read ? 1 : bytes, b->c->read ? bytes : 1);
}

static int bare_round(void *ctx, double *us)
{
	struct bare *b = ctx;
	struct wfi_perf_timed timed = { NULL, bare_move, b, b->ops };

	return wfi_perf_timed_us(&timed, us);
}

static int run_pieces(const struct run *r, const struct pieces_case *c)
{
	const struct wfi_perf_case row = { "compare", c->name, "us", false };
	const char *transport = c->tcp ? r->tcp : "shm";
	struct pieces weft = { .c = c, .ops = ops_of(r, c->ops) };
	struct bare bare = { .c = c, .ops = ops_of(r, c->ops) };
	struct program programs[PEER_NR] = { { NULL, NULL, 0 } };
	struct wfi_perf_side sides[2 + PEER_NR] = { { NULL, pieces_round, &weft, NULL } };
	unsigned nr = 1, i;
	int ret = 0;

	if (!transport)
		return wfi_perf_fail(0, "%s: this build has no transport over TCP", c->name);
	/* programs first: they are children that need not have what follows */
	for (i = 0; i < PEER_STORE && !ret; i++)
		if (i == PEER_NIXL || c->bytes == 64u << 10)
			if (c->tcp || i == PEER_NIXL)
				ret = program_side(r, i, c->name, c->ops, &programs[i],
						   &sides[nr++]);
	if (!ret && c->tcp) {
		sides[nr++] = (struct wfi_perf_side){ "bare_tcp", bare_round, &bare, NULL };
		ret = wfi_peer_tcp_open(&bare.tcp);
	}
	if (!ret)
		ret = pieces_open(&weft, transport);
	if (!ret)
		ret = wfi_perf_compare(r->p, &row, sides, nr);
	wfi_pair_close(weft.pair);
	free(weft.list);
	wfi_peer_tcp_close(bare.tcp);
	for (i = 0; i < PEER_NR; i++)
		wfi_peer_program_close(programs[i].peer);
	return ret;
}

/* ---- the store ---- */

/* one program for all its cases */
struct store_peer {
	const struct run *r;
	struct program program;
};

static int store_side(void *ctx, const char *name, unsigned ops, struct wfi_perf_side *out)
{
	struct store_peer *s = ctx;

	if (!s->program.peer)
		return program_side(s->r, PEER_STORE, name, ops, &s->program, out);
	s->program.name = name;
	s->program.ops = ops_of(s->r, ops);
	*out = (struct wfi_perf_side){ peer_names[PEER_STORE], program_round, &s->program, NULL };
	return 0;
}

static int run_store(const struct run *r)
{
	struct store_peer s = { .r = r };
	const int ret = wfi_perf_store(r->p, store_side, &s);

	wfi_peer_program_close(s.program.peer);
	return ret;
}

static bool is_wanted(struct run *r, const char *name)
{
	const bool yes = !r->only || !strncmp(name, r->only, strlen(r->only));

	r->nr_wanted += yes;
	return yes;
}

/* NAME=COMMAND, or with what the names of cases begin */
static int parse_arg(struct run *r, const char *arg)
{
	size_t i, len = strcspn(arg, "=");

	if (!arg[len]) {
		r->only = arg;
		return 0;
	}
	for (i = 0; i < PEER_NR; i++)
		if (len == strlen(peer_names[i]) && !strncmp(arg, peer_names[i], len)) {
			r->commands[i] = arg + len + 1;
			return 0;
		}
	return wfi_perf_fail(
		-EINVAL, "%s is not nixl=COMMAND, mooncake=COMMAND or mooncake_store=COMMAND", arg);
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	static const char *const over_tcp[] = { "tcp", "ucx" }; /* the faster one first */
	struct run r = { .p = p };
	size_t i;
	int n, ret = 0;

	for (i = WFI_ARRAY_SIZE(over_tcp); i-- > 0;)
		if (wfi_transport_find(wfi_transports, over_tcp[i]))
			r.tcp = over_tcp[i];
	for (n = 0; n < nr_args && !ret; n++)
		ret = parse_arg(&r, args[n]);
	for (i = 0; i < WFI_ARRAY_SIZE(pieces_cases) && !ret; i++)
		if (is_wanted(&r, pieces_cases[i].name))
			ret = run_pieces(&r, &pieces_cases[i]);
	/* these are measured together */
	if (r.only && !strncmp(r.only, "store", strlen("store")))
		r.only = "store";
	if (!ret && is_wanted(&r, "store"))
		ret = run_store(&r);
	return ret || r.nr_wanted ? ret : wfi_perf_fail(-EINVAL, "no case begins with %s", r.only);
}

const struct wfi_perf_bench wfi_perf_compare_systems = {
	.name = "compare",
	.summary = "the work of NIXL and Mooncake, beside them (perf/compare/run installs them)",
	.takes_files = true,
	.run = run,
};
