/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_verbs.c - the RDMA provider beside perftest, UCX and rdma_cm by hand, between two processes
 * on one device, or two hosts. tests/vm/run gives it Soft-RoCE, where only ratios mean something.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "perf/verbs_rig.h"
#include "weft_internal/util.h"
#include "weft_internal/xfer.h"

#define STRIDE 2048u /* from one scattered piece to the next */
#define SCATTER_BYTES 1024u
#define SCATTER_MAX 4096u
#define BW_EACH 32u
#define MIB 1048576.0

/* what the cases share */
struct run {
	const struct wfi_perf *p;
	struct wfi_vrig_place place;
};

/* perftest wants five at least */
static uint32_t fewer(const struct run *r, uint32_t nr)
{
	return r->p->quick ? (uint32_t)wfi_max(nr / 8, 5) : nr;
}

/* ---- bandwidth: a window of posts of one piece each ---- */

struct bw {
	struct wfi_vrig_side s;
	uint32_t bytes, iters;
	bool read;
};

static int bw_round(void *ctx, double *out)
{
	struct bw *b = ctx;
	struct weft_piece piece = { b->s.mem, 0, b->bytes, b->s.end.rkey };
	struct weft_post post = { .pieces = &piece, .nr_pieces = 1, .local_mr = b->s.end.mr };
	uint64_t start_ns = wfi_perf_now_ns();
	uint32_t posted = 0, done = 0;
	struct weft_wc wcs[16];
	int i, nr, ret;
	bool loud;

	while (done < b->iters) {
		ret = 0;
		while (posted < b->iters && posted - done < WFI_END_DEPTH && !ret) {
			/* perftest, too, asks for one completion in many */
			loud = (posted + 1) % BW_EACH == 0 || posted + 1 == b->iters;
			post.flags = loud ? 0 : WEFT_POST_QUIET;
			post.cookie = posted + 1;
			ret = b->read ? weft_ep_post_read(b->s.end.ep, &post)
				      : weft_ep_post_write(b->s.end.ep, &post);
			posted += !ret;
		}
		if (ret && ret != -EAGAIN)
			return ret;
		nr = weft_cq_poll(b->s.end.send_cq, wcs, 16);
		for (i = 0; i < nr; i++) {
			if (wcs[i].status)
				return wcs[i].status;
			done = (uint32_t)wcs[i].cookie;
		}
	}
	*out = (double)b->iters * b->bytes / MIB / ((double)(wfi_perf_now_ns() - start_ns) / 1e9);
	return 0;
}

static int bw_case(const struct run *r, const char *name, bool read, uint32_t bytes, uint32_t iters)
{
	const struct wfi_perf_case c = { "verbs", name, "MiB/s", true };
	struct wfi_vrig_order order = { .op = WFI_VRIG_LOOK };
	struct bw b = { .bytes = bytes, .iters = fewer(r, iters), .read = read };
	struct wfi_vrig_perftest peer = { .place = &r->place,
					  .program = read ? "ib_read_bw" : "ib_write_bw",
					  .bytes = bytes,
					  .iters = b.iters,
					  .column = 3 };
	struct wfi_perf_side sides[] = { { NULL, bw_round, &b, NULL },
					 { peer.program, wfi_vrig_perftest_round, &peer,
					   wfi_vrig_perftest_why(peer.program) } };
	int sock = wfi_vrig_dial(&r->place, &order), ret = sock;

	if (sock < 0)
		return sock;
	ret = wfi_vrig_open(&b.s, &r->place, sock);
	if (!ret)
		ret = wfi_vrig_meet(&b.s);
	if (!ret)
		ret = wfi_perf_compare(r->p, &c, sides, 2);
	wfi_vrig_close(&b.s);
	close(sock);
	return ret;
}

/* ---- latency: half of a round trip ---- */

struct lat {
	struct wfi_vrig_side s;
	uint64_t *ns;
	uint32_t iters;
	bool send;
};

static int by_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int lat_round(void *ctx, double *out)
{
	struct lat *l = ctx;
	int ret = wfi_vrig_go(l->s.end.sock, l->iters);

	if (!ret)
		ret = l->send ? wfi_vrig_echo(&l->s, l->iters, true, l->ns)
			      : wfi_vrig_pingpong(&l->s, l->iters, true, l->ns);
	qsort(l->ns, l->iters, sizeof(*l->ns), by_ns);
	*out = (double)l->ns[l->iters / 2] / 2000;
	return ret;
}

static int lat_case(const struct run *r, const char *name, bool send)
{
	const struct wfi_perf_case c = { "verbs", name, "us", false };
	struct wfi_vrig_order order = { .op = send ? WFI_VRIG_ECHO : WFI_VRIG_PINGPONG };
	struct lat l = { .iters = fewer(r, 2000), .send = send };
	struct wfi_vrig_perftest peer = { .place = &r->place,
					  .program = send ? "ib_send_lat" : "ib_write_lat",
					  .bytes = 8,
					  .iters = l.iters,
					  .column = 4 };
	struct wfi_perf_side sides[] = { { NULL, lat_round, &l, NULL },
					 { peer.program, wfi_vrig_perftest_round, &peer,
					   wfi_vrig_perftest_why(peer.program) } };
	int sock = wfi_vrig_dial(&r->place, &order), ret = sock;

	if (sock < 0)
		return sock;
	l.ns = calloc(l.iters, sizeof(*l.ns));
	ret = l.ns ? wfi_vrig_open(&l.s, &r->place, sock) : -ENOMEM;
	if (!ret)
		ret = wfi_vrig_meet(&l.s);
	if (!ret)
		ret = wfi_perf_compare(r->p, &c, sides, 2);
	wfi_vrig_close(&l.s);
	free(l.ns);
	close(sock);
	return ret;
}

/* ---- scattered pieces, one plan ---- */

struct scatter {
	struct wfi_vrig_side s;
	struct wfi_xfer_engine *eng;
	struct wfi_gather_name name;
	struct wfi_piece *pieces;
	uint32_t nr;
};

static void scatter_done(void *ctx, int res)
{
	*(int *)ctx = res;
}

static int scatter_round(void *ctx, double *out)
{
	struct scatter *sc = ctx;
	int32_t result;
	int res = 1, i, nr, ret = wfi_vrig_go(sc->s.end.sock, 1);
	struct wfi_xfer_opts opts = { .ep = sc->s.end.ep,
				      .dir = WFI_XFER_WRITE,
				      .local_mr = sc->s.end.mr,
				      .rkeys = &sc->s.end.rkey,
				      .nr_rkeys = 1,
				      .pieces = sc->pieces,
				      .nr_pieces = sc->nr,
				      .nr_blocks = 1,
				      .results = &result,
				      .done = scatter_done,
				      .ctx = &res,
				      .gather = sc->s.end.link,
				      .names = &sc->name };
	uint64_t start_ns = wfi_perf_now_ns();
	struct wfi_xfer *x;
	struct weft_wc wcs[16];

	opts.deadline_ns = start_ns + 20 * WFI_NSEC_PER_SEC;
	if (!ret)
		ret = wfi_xfer_submit(sc->eng, &opts, &x);
	while (!ret && res == 1) {
		wfi_xfer_poll(sc->eng, wfi_perf_now_ns());
		nr = weft_cq_poll(sc->s.end.recv_cq, wcs, 16);
		for (i = 0; i < nr; i++) {
			sc->s.end.is_closed |= wcs[i].op == WEFT_WC_CLOSED;
			if (wfi_gather_event(sc->s.end.link, &wcs[i]) < 0)
				ret = -EPROTO;
		}
	}
	*out = (double)(wfi_perf_now_ns() - start_ns) / 1000;
	return ret ? ret : res;
}

static int scatter_open(struct scatter *sc, const uint32_t *order)
{
	struct wfi_xfer_engine_opts opts = { .env = &sc->s.end.env };
	uint32_t i;
	int ret;

	sc->pieces = calloc(sc->nr, sizeof(*sc->pieces));
	ret = sc->pieces ? wfi_xfer_engine_create(&opts, &sc->eng) : -ENOMEM;
	if (!ret)
		ret = wfi_gather_open(sc->eng, sc->s.end.ep, 0, &sc->s.end.link);
	if (!ret)
		ret = wfi_end_hear(sc->s.end.sock, &sc->name, sizeof(sc->name));
	for (i = 0; i < sc->nr && !ret; i++)
		sc->pieces[i] = (struct wfi_piece){ .local = sc->s.mem + (size_t)i * STRIDE,
						    .remote = (uint64_t)order[i] * STRIDE,
						    .len = SCATTER_BYTES };
	return ret;
}

static int scatter_case(const struct run *r, const char *name, uint32_t nr)
{
	static uint32_t order[SCATTER_MAX];
	const struct wfi_perf_case c = { "verbs", name, "us", false };
	struct wfi_vrig_order what = { .op = WFI_VRIG_GATHER };
	struct scatter sc = { .nr = nr };
	struct wfi_peer_ucx *ucx = NULL;
	struct wfi_perf_side sides[] = { { NULL, scatter_round, &sc, NULL },
					 { "ucx_rc_verbs", wfi_peer_ucx_round, NULL,
					   wfi_peer_ucx_why() } };
	int sock = wfi_vrig_dial(&r->place, &what), ret = sock;

	if (sock < 0)
		return sock;
	wfi_perf_shuffle(order, nr);
	ret = wfi_vrig_open(&sc.s, &r->place, sock);
	if (!ret)
		ret = wfi_vrig_meet(&sc.s);
	if (!ret)
		ret = scatter_open(&sc, order);
	if (!ret && !sides[1].skipped)
		ret = wfi_peer_ucx_open(&r->place, nr, SCATTER_BYTES, STRIDE, order, &ucx);
	sides[1].ctx = ucx;
	if (!ret)
		ret = wfi_perf_compare(r->p, &c, sides, 2);
	wfi_peer_ucx_close(ucx);
	close(sock);
	if (sc.s.end.dev)
		wfi_end_ep_close(&sc.s.end);
	wfi_gather_close(sc.s.end.link);
	wfi_xfer_engine_destroy(sc.eng);
	wfi_vrig_close(&sc.s);
	free(sc.pieces);
	return ret;
}

/* ---- from nothing to the first byte ---- */

struct first {
	struct wfi_vrig_side s;
	uint32_t nr;
};

static int first_one(struct wfi_vrig_side *s, uint64_t *ns)
{
	uint64_t start_ns = wfi_perf_now_ns();
	struct weft_piece piece = { s->mem, 0, 8, NULL };
	struct weft_post post = { .pieces = &piece, .nr_pieces = 1, .local_mr = s->end.mr };
	char go = 0;
	/* both make theirs at once, and join at once */
	int ret = wfi_end_tell(s->end.sock, &go, 1);

	if (!ret)
		ret = wfi_vrig_meet(s);
	piece.rkey = s->end.rkey;
	if (!ret)
		ret = weft_ep_post_write(s->end.ep, &post);
	if (!ret)
		ret = wfi_vrig_wait(s);
	*ns += wfi_perf_now_ns() - start_ns;
	if (!ret)
		ret = wfi_end_tell(s->end.sock, &go, 1);
	wfi_end_ep_close(&s->end);
	return ret ? ret : wfi_end_hear(s->end.sock, &go, 1);
}

static int first_round(void *ctx, double *out)
{
	struct first *f = ctx;
	uint64_t ns = 0;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < f->nr && !ret; i++)
		ret = first_one(&f->s, &ns);
	*out = (double)ns / 1000 / f->nr;
	return ret;
}

static int first_case(const struct run *r, const char *name, uint32_t nr)
{
	const struct wfi_perf_case c = { "verbs", name, "us", false };
	struct wfi_vrig_order order = { .op = WFI_VRIG_CONNECT };
	struct first f = { .nr = fewer(r, nr) };
	struct wfi_peer_rdmacm *cm = NULL;
	struct wfi_perf_side sides[] = { { NULL, first_round, &f, NULL },
					 { "rdma_cm", wfi_peer_rdmacm_round, NULL, NULL } };
	int sock = wfi_vrig_dial(&r->place, &order), ret = sock;

	if (sock < 0)
		return sock;
	ret = wfi_vrig_open(&f.s, &r->place, sock);
	if (!ret)
		ret = wfi_peer_rdmacm_open(&r->place, f.nr, &cm);
	sides[1].ctx = cm;
	if (!ret)
		ret = wfi_perf_compare(r->p, &c, sides, 2);
	wfi_peer_rdmacm_close(cm);
	wfi_vrig_close(&f.s);
	close(sock);
	return ret;
}

/* ---- all of them ---- */

static int bw_any(const struct run *r, const char *name, uint32_t arg)
{
	return bw_case(r, name, name[0] == 'r', arg, arg > 65536 ? 16 : arg > 4096 ? 256 : 2048);
}

static int lat_any(const struct run *r, const char *name, uint32_t arg)
{
	return lat_case(r, name, arg);
}

static const struct {
	const char *name;
	int (*run)(const struct run *r, const char *name, uint32_t arg);
	uint32_t arg;
} cases[] = {
	{ "write_bw_4KiB", bw_any, 4096 },
	{ "write_bw_64KiB", bw_any, 65536 },
	{ "write_bw_1MiB", bw_any, 1 << 20 },
	{ "read_bw_4KiB", bw_any, 4096 },
	{ "read_bw_64KiB", bw_any, 65536 },
	{ "read_bw_1MiB", bw_any, 1 << 20 },
	{ "write_lat_8B", lat_any, 0 },
	{ "send_lat_8B", lat_any, 1 },
	{ "scatter_256x1KiB", scatter_case, 256 },
	{ "scatter_4096x1KiB", scatter_case, SCATTER_MAX },
	{ "connect_first_write", first_case, 8 },
};

/* one that fails leaves the others their turns */
static int measure(const struct run *r)
{
	unsigned i;
	int ret = 0, err;

	for (i = 0; i < WFI_ARRAY_SIZE(cases); i++) {
		if (!wfi_perf_wanted(cases[i].name))
			continue;
		err = cases[i].run(r, cases[i].name, cases[i].arg);
		ret = ret ? ret : err;
	}
	return ret;
}

static const char *setting(const char *name, const char *fallback)
{
	const char *value = getenv(name);

	return value && *value ? value : fallback;
}

/* in a guest of tests/vm/run the first of two serves; else the arguments say who does what */
static int verbs_run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct run r = { .p = p };
	struct wfi_vrig_order quit = { .op = WFI_VRIG_QUIT };
	bool two = !strcmp(setting("WEFT_VM_HOSTS", "1"), "2");
	bool serve = two && !strcmp(setting("WEFT_VM_HOST", "1"), "1");
	int sock, ret = 0;

	r.place.addr = setting("WEFT_VM_ADDR_1", NULL);
	r.place.device = setting("WEFT_PERF_DEVICE", "rxe0");
	r.place.gid = (unsigned)strtoul(setting("WEFT_PERF_GID", "1"), NULL, 10);
	if (nr_args) {
		serve = !strcmp(args[0], "serve");
		two = serve || nr_args == 1;
		r.place.addr = args[nr_args - 1];
	}
	if (!r.place.addr || nr_args > 2 || (nr_args == 1 && serve))
		return wfi_perf_fail(
			-EINVAL, "verbs [serve] ADDR: the address of the side that serves, on an "
				 "RDMA device WEFT_PERF_DEVICE; or run it in tests/vm/run");
	if (serve)
		return wfi_vrig_serve(&r.place);
	if (!two)
		ret = wfi_vrig_fork(&r.place);
	if (!ret)
		ret = measure(&r);
	sock = wfi_vrig_dial(&r.place, &quit);
	if (sock >= 0)
		close(sock);
	return ret;
}

const struct wfi_perf_bench wfi_perf_verbs = {
	.name = "verbs",
	.summary = "RDMA: bandwidth, latency, scattered pieces, connecting",
	.takes_files = true,
	.run = verbs_run,
};
