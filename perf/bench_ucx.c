/* SPDX-License-Identifier: Apache-2.0 */
/* bench_ucx.c - the UCX provider beside ucx_perftest, between two processes of this host */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "perf/pair.h"
#include "perf/peers.h"
#include "perf/perf.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

#define MIB 1048576.0
#define WINDOW 16u
#define LAT_ITERS 20000u
#define LAT_BYTES 4096u

struct place {
	const char *name; /* in the cases' */
	const char *device;
	const char *tls;
};

static const struct place places[] = {
	{ "shm", "posix", "posix,self" },
	{ "tcp", "tcp@lo", "tcp,self" },
};

struct bw_case {
	const char *name;
	const char *test; /* of the peer */
	bool read;
	uint32_t bytes;
	uint32_t iters;
};

static const struct bw_case bw_cases[] = {
	{ "put_bw_64KiB", "ucp_put_bw", false, 64u << 10, 2000 },
	{ "put_bw_1MiB", "ucp_put_bw", false, 1u << 20, 200 },
	{ "get_bw_64KiB", "ucp_get", true, 64u << 10, 2000 },
	{ "get_bw_1MiB", "ucp_get", true, 1u << 20, 200 },
};

struct moves {
	const char *device;
	uint64_t bytes; /* of memory on each side */
	const struct bw_case *c; /* NULL: messages */
	uint32_t iters;
	struct wfi_pair *pair;
};

/* Return: completions, -errno of one */
static int completions_take(struct weft_ep *ep)
{
	struct weft_wc wcs[WINDOW];
	int i, nr = weft_cq_poll(ep->send_cq, wcs, WINDOW);

	for (i = 0; i < nr; i++)
		if (wcs[i].status)
			return wcs[i].status;
	return nr;
}

/* what the peer does, too, before the time counts */
static uint32_t warmup(uint32_t iters)
{
	return iters / WFI_PEER_UCX_WARMUP + 1;
}

static int bw_window(const struct moves *m, uint32_t iters)
{
	struct weft_piece piece = { wfi_pair_here(m->pair), 0, m->c->bytes,
				    wfi_pair_rkey(m->pair) };
	const struct weft_post post = { .pieces = &piece, .nr_pieces = 1 };
	struct weft_ep *ep = wfi_pair_ep(m->pair);
	uint32_t posted = 0, done = 0;
	int ret = 0;

	while (done < iters) {
		while (posted < iters && posted - done < WINDOW && !ret) {
			ret = m->c->read ? weft_ep_post_read(ep, &post)
					 : weft_ep_post_write(ep, &post);
			posted += !ret;
		}
		if (ret && ret != -EAGAIN)
			return ret;
		ret = completions_take(ep);
		if (ret < 0)
			return ret;
		done += (uint32_t)ret;
		ret = 0;
	}
	return 0;
}

static int ping_pong(const struct moves *m, uint32_t iters)
{
	struct weft_ep *ep = wfi_pair_ep(m->pair);
	uint64_t value = 0;
	struct weft_wc wc;
	int ret = 0, nr;
	uint32_t i;

	for (i = 0; i < iters && !ret; i++) {
		ret = weft_ep_post_send(ep, &value, sizeof(value), 0, WEFT_POST_QUIET);
		do
			nr = weft_cq_poll(ep->recv_cq, &wc, 1);
		while (!ret && !nr);
		if (!ret && wc.op != WEFT_WC_RECV)
			ret = -ECONNRESET;
	}
	return ret;
}

static int move(const struct moves *m, uint32_t iters)
{
	return m->c ? bw_window(m, iters) : ping_pong(m, iters);
}

/* how long all of it takes. With new processes and memory, as the peer has each time: which caches
 * a line meets in depends on where it lies. Return: 0, -errno */
static int moves_time(struct moves *m, double *ns)
{
	uint64_t start_ns;
	int ret;

	m->pair = NULL;
	ret = wfi_pair_open("ucx", m->device, m->bytes, &m->pair);
	if (!ret)
		ret = wfi_pair_begin(m->pair);
	if (!ret)
		ret = move(m, warmup(m->iters));
	start_ns = wfi_perf_now_ns();
	if (!ret)
		ret = move(m, m->iters);
	*ns = (double)(wfi_perf_now_ns() - start_ns);
	if (!ret)
		ret = wfi_pair_end(m->pair);
	wfi_pair_close(m->pair);
	return ret;
}

static int bw_round(void *ctx, double *out)
{
	struct moves *m = ctx;
	double ns;
	int ret = moves_time(m, &ns);

	*out = (double)m->iters * m->c->bytes / MIB / (ns / 1e9);
	return ret;
}

/* half of a round trip of a message */
static int lat_round(void *ctx, double *out)
{
	struct moves *m = ctx;
	double ns;
	int ret = moves_time(m, &ns);

	*out = ns / 2000 / m->iters;
	return ret;
}

static int bw_run(const struct wfi_perf *p, const struct place *place, const struct bw_case *c)
{
	char name[48];
	const struct wfi_perf_case row = { "ucx", name, "MiB/s", true };
	struct moves m = { .device = place->device,
			   .bytes = c->bytes,
			   .c = c,
			   .iters = p->quick ? c->iters / 50 : c->iters };
	struct wfi_peer_ucx_perftest peer = {
		.tls = place->tls,
		.test = c->test,
		.bytes = c->bytes,
		.iters = m.iters,
		.window = WINDOW,
	};
	const struct wfi_perf_side sides[] = { { NULL, bw_round, &m, NULL },
					       { "ucx_perftest", wfi_peer_ucx_perftest_round, &peer,
						 wfi_peer_ucx_perftest_skipped() } };

	snprintf(name, sizeof(name), "%s_%s", c->name, place->name);
	if (!wfi_perf_wanted(name))
		return 0;
	return wfi_perf_compare(p, &row, sides, WFI_ARRAY_SIZE(sides));
}

static int lat_run(const struct wfi_perf *p, const struct place *place)
{
	char name[48];
	const struct wfi_perf_case row = { "ucx", name, "us", false };
	struct moves m = { .device = place->device,
			   .bytes = LAT_BYTES,
			   .iters = p->quick ? LAT_ITERS / 50 : LAT_ITERS };
	struct wfi_peer_ucx_perftest peer = {
		.tls = place->tls,
		.test = "ucp_am_lat",
		.bytes = 8,
		.iters = m.iters,
		.window = 1,
		.latency = true,
	};
	const struct wfi_perf_side sides[] = { { NULL, lat_round, &m, NULL },
					       { "ucx_perftest", wfi_peer_ucx_perftest_round, &peer,
						 wfi_peer_ucx_perftest_skipped() } };

	snprintf(name, sizeof(name), "am_lat_8B_%s", place->name);
	if (!wfi_perf_wanted(name))
		return 0;
	return wfi_perf_compare(p, &row, sides, WFI_ARRAY_SIZE(sides));
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	const struct weft_transport *t = wfi_transport_find(wfi_transports, "ucx");
	struct weft_probe probe = { 0 };
	struct wfi_env env;
	size_t i, k;
	int ret = wfi_env_real_init(&env);

	(void)nr_args;
	(void)args;
	if (ret || t->probe(t, &env, &probe))
		return wfi_perf_fail(ret, "ucx: %s", probe.why);
	for (k = 0; k < WFI_ARRAY_SIZE(places) && !ret; k++) {
		for (i = 0; i < WFI_ARRAY_SIZE(bw_cases) && !ret; i++)
			ret = bw_run(p, &places[k], &bw_cases[i]);
		if (!ret)
			ret = lat_run(p, &places[k]);
	}
	return ret;
}

const struct wfi_perf_bench wfi_perf_ucx = {
	.name = "ucx",
	.summary = "writes, reads and messages through UCX, beside ucx_perftest",
	.run = run,
};
