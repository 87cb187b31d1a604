/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay: plays a trace of requests against nodes, with real bytes. What an id stands for has bytes
 * of its own, so that each block that comes back can be checked to the last byte.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/replay.h"
#include "cli/trace.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define CHUNK_BYTES (16ull << 20)
#define CHUNK_BLOCKS 256u
#define PROGRESS_NS (500 * WFI_NSEC_PER_MSEC)

struct target {
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
	uint32_t region;
};

struct replay {
	const struct wfi_replay_opts *opts;
	struct target targets[WFI_CLI_SOCKETS];
	unsigned nr_targets;
	struct wfi_trace *trace;
	uint8_t *buf; /* one memfd, a region of every node */
	size_t buf_len;
	unsigned chunk; /* blocks that it holds */
	struct weft_key *keys; /* of the request at hand */
	uint32_t *where;
	uint64_t start_ns;
	uint64_t progress_ns;
	struct wfi_replay_totals *totals;
};

/* ---- setting up ---- */

static int buf_create(struct replay *r, int *fd)
{
	const uint64_t block_bytes = r->opts->space.block_bytes;
	void *addr;

	r->chunk = (unsigned)wfi_min(wfi_max(1, CHUNK_BYTES / block_bytes), CHUNK_BLOCKS);
	r->buf_len = wfi_align_up(r->chunk * block_bytes, 4096);
	*fd = memfd_create("weft-replay", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return -errno;
	if (ftruncate(*fd, (off_t)r->buf_len) ||
	    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		goto err_close;
	addr = mmap(NULL, r->buf_len, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (addr == MAP_FAILED)
		goto err_close;
	r->buf = addr;
	return 0;

err_close:
	close(*fd);
	return -errno;
}

static int target_open(struct replay *r, unsigned idx, int fd)
{
	const struct weft_region_opts ro = {
		.size = sizeof(ro),
		.addr = r->buf,
		.len = r->buf_len,
		.fd = fd,
	};
	struct target *t = &r->targets[idx];
	int ret;

	ret = wfi_cli_open(&r->opts->common, idx, &t->w);
	if (ret)
		return ret;
	r->nr_targets = idx + 1;
	ret = wfi_cli_space_open(t->w, &r->opts->space, "replay", &t->space);
	if (ret)
		return ret;
	ret = weft_ring_open(t->w, NULL, &t->ring);
	if (ret)
		return wfi_cli_failed("opening a ring", ret);
	ret = weft_region_reg(t->w, &ro, &t->region);
	return ret ? wfi_cli_failed("registering memory", ret) : WFI_EXIT_OK;
}

static int replay_open(struct replay *r)
{
	const unsigned nr = r->opts->common.nr_sockets ? r->opts->common.nr_sockets : 1;
	unsigned i;
	int ret, fd;

	ret = wfi_trace_open(r->opts->trace, &r->trace);
	if (ret) {
		fprintf(stderr, "weft: %s: %s\n", r->opts->trace, strerror(-ret));
		return WFI_EXIT_FAILED;
	}
	r->keys = malloc(WFI_TRACE_IDS_MAX * sizeof(r->keys[0]));
	r->where = malloc(WFI_TRACE_IDS_MAX * sizeof(r->where[0]));
	ret = r->keys && r->where ? buf_create(r, &fd) : -ENOMEM;
	if (ret) {
		fprintf(stderr, "weft: replay: memory for the blocks: %s\n", strerror(-ret));
		return WFI_EXIT_FAILED;
	}
	for (i = 0; i < nr && !ret; i++)
		ret = target_open(r, i, fd);
	close(fd);
	return ret;
}

static void replay_close(struct replay *r)
{
	unsigned i;

	for (i = 0; i < r->nr_targets; i++)
		weft_close(r->targets[i].w);
	if (r->buf)
		munmap(r->buf, r->buf_len);
	free(r->where);
	free(r->keys);
	wfi_trace_close(r->trace);
}

/* ---- one request ---- */

/* a session's requests begin with the same ids; the first one alone is often everybody's */
static unsigned route(const struct replay *r, const struct wfi_trace_request *req)
{
	uint64_t h;

	if (r->opts->round_robin || !req->nr_ids)
		return (unsigned)(r->totals->requests % r->nr_targets);
	h = req->hash_ids[0] * 0x9e3779b97f4a7c15ull;
	h ^= req->hash_ids[req->nr_ids > 1 ? 1 : 0];
	h *= 0xbf58476d1ce4e5b9ull;
	return (unsigned)((h >> 32) % r->nr_targets);
}

/* the key of what a trace's id stands for. Return: 0, -errno */
static int key_of(const struct weft_space *space, uint64_t id, struct weft_key *out)
{
	const uint64_t le = htole64(id);

	return weft_key_from_hash(space, &le, sizeof(le), out);
}

static int make_keys(struct replay *r, const struct target *t, const struct wfi_trace_request *req)
{
	int ret = 0;

	for (uint32_t i = 0; i < req->nr_ids && !ret; i++)
		ret = key_of(t->space, req->hash_ids[i], &r->keys[i]);
	return ret;
}

static int timed_call(struct target *t, const struct weft_op *op, struct wfi_hist *hist,
		      uint64_t *sum_ns)
{
	const uint64_t start = wfi_cli_now_ns();
	uint64_t ns;
	int ret;

	ret = weft_call(t->ring, op, NULL);
	ns = wfi_cli_now_ns() - start;
	if (ret >= 0) {
		wfi_hist_add(hist, ns);
		*sum_ns += ns;
	}
	return ret;
}

static void make_places(const struct replay *r, const struct target *t, struct weft_place *places,
			unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++) {
		places[i].off = i * r->opts->space.block_bytes;
		places[i].region = t->region;
		places[i].len = 0;
	}
}

/* Return: how many blocks of a chunk came, from its first on, or -errno */
static int get_chunk(struct replay *r, struct target *t, const uint64_t *ids,
		     const struct weft_key *keys, unsigned nr)
{
	const uint64_t block_bytes = r->opts->space.block_bytes;
	struct weft_place places[CHUNK_BLOCKS];
	int32_t results[CHUNK_BLOCKS];
	const struct weft_op op = {
		.op = WEFT_OP_GET,
		.flags = WEFT_F_VERIFY,
		.nr = nr,
		.space = t->space,
		.keys = keys,
		.places = places,
		.results = results,
	};
	unsigned i;
	int ret;

	make_places(r, t, places, nr);
	ret = timed_call(t, &op, &r->totals->get, &r->totals->move_ns);
	if (ret < 0)
		return ret;
	for (i = 0; i < nr && !results[i]; i++)
		r->totals->wrong_bytes +=
			wfi_trace_check(ids[i], r->buf + i * block_bytes, block_bytes);
	r->totals->bytes_got += i * block_bytes;
	return (int)i;
}

/* Return: how many blocks of a chunk are now held, or -errno */
static int put_chunk(struct replay *r, struct target *t, const uint64_t *ids,
		     const struct weft_key *keys, const struct weft_key *parent, unsigned nr)
{
	const uint64_t block_bytes = r->opts->space.block_bytes;
	struct weft_place places[CHUNK_BLOCKS];
	const struct weft_op op = {
		.op = WEFT_OP_PUT,
		.flags = WEFT_F_COPY,
		.nr = nr,
		.space = t->space,
		.parent = parent,
		.keys = keys,
		.places = places,
	};
	unsigned i;
	int ret;

	for (i = 0; i < nr; i++)
		wfi_trace_fill(ids[i], r->buf + i * block_bytes, block_bytes);
	make_places(r, t, places, nr);
	ret = timed_call(t, &op, &r->totals->put, &r->totals->move_ns);
	if (ret > 0)
		r->totals->bytes_put += (unsigned)ret * block_bytes;
	return ret;
}

/* the prefix that is held, checked. Return: its length, or -errno */
static int get_prefix(struct replay *r, struct target *t, const struct wfi_trace_request *req)
{
	const struct weft_op op = {
		.op = WEFT_OP_MATCH,
		.flags = WEFT_F_WHERE,
		.nr = req->nr_ids,
		.space = t->space,
		.keys = r->keys,
		.where = r->where,
	};
	unsigned done, n;
	int held, ret;

	held = timed_call(t, &op, &r->totals->match, &r->totals->match_ns);
	if (held < 0)
		return held;
	for (done = 0; done < (unsigned)held; done += n) {
		n = (unsigned)wfi_min((unsigned)held - done, r->chunk);
		ret = get_chunk(r, t, req->hash_ids + done, r->keys + done, n);
		if (ret < 0)
			return ret;
		if (ret == (int)n)
			continue;
		/* evicted since the match: a miss */
		done += (unsigned)ret;
		r->totals->vanished += (unsigned)held - done;
		break;
	}
	for (n = 0; n < done; n++)
		r->totals->hits_below += WEFT_WHERE_TIER(r->where[n]) > WEFT_TIER_DRAM;
	return (int)done;
}

/* blocks from @done on. A node that has no room keeps what it has: counted, not an error */
static int put_rest(struct replay *r, struct target *t, const struct wfi_trace_request *req,
		    unsigned done)
{
	unsigned n;
	int ret;

	for (; done < req->nr_ids; done += n) {
		n = (unsigned)wfi_min(req->nr_ids - done, r->chunk);
		ret = put_chunk(r, t, req->hash_ids + done, r->keys + done,
				done ? &r->keys[done - 1] : NULL, n);
		if (ret < 0 && ret != -ENOSPC)
			return ret;
		if (ret != (int)n) {
			r->totals->refused += req->nr_ids - done - (unsigned)(ret > 0 ? ret : 0);
			return 0;
		}
	}
	return 0;
}

static int play(struct replay *r, const struct wfi_trace_request *req)
{
	struct target *t = &r->targets[route(r, req)];
	int ret = 0;

	if (req->nr_ids) {
		ret = make_keys(r, t, req);
		if (!ret)
			ret = get_prefix(r, t, req);
		if (ret < 0)
			return ret;
		r->totals->hits += (unsigned)ret;
		r->totals->tokens_saved +=
			wfi_min((uint64_t)ret * WFI_TRACE_BLOCK_TOKENS, req->input_length);
		ret = put_rest(r, t, req, (unsigned)ret);
	}
	r->totals->requests++;
	r->totals->blocks += req->nr_ids;
	r->totals->tokens += req->input_length;
	return ret;
}

/* ---- all of them ---- */

static void progress(struct replay *r, bool last)
{
	const uint64_t now = wfi_cli_now_ns();

	if (!isatty(STDERR_FILENO) || (!last && now - r->progress_ns < PROGRESS_NS))
		return;
	r->progress_ns = now;
	fprintf(stderr,
		"\r%" PRIu64 " requests, %.1f%% of %" PRIu64 " blocks hit, %.2f GB/s\033[K%s",
		r->totals->requests, 100 * wfi_replay_hit_rate(r->totals), r->totals->blocks,
		wfi_replay_gb_per_s(r->totals), last ? "\n" : "");
}

static int play_all(struct replay *r)
{
	struct wfi_trace_request req;
	uint64_t first_ms = 0;
	int ret;

	r->start_ns = wfi_cli_now_ns();
	while (!wfi_cli_stopped() && (!r->opts->limit || r->totals->requests < r->opts->limit)) {
		ret = wfi_trace_next(r->trace, &req);
		if (ret < 0) {
			fprintf(stderr, "weft: %s: %s\n", r->opts->trace, strerror(-ret));
			return WFI_EXIT_FAILED;
		}
		if (!ret)
			break;
		if (!r->totals->requests)
			first_ms = req.timestamp_ms;
		if (r->opts->rate > 0 && req.timestamp_ms > first_ms)
			wfi_cli_sleep_until(r->start_ns +
					    (uint64_t)((double)(req.timestamp_ms - first_ms) * 1e6 /
						       r->opts->rate));
		ret = play(r, &req);
		if (ret >= 0 && r->opts->played)
			ret = r->opts->played(r->opts->ctx, wfi_cli_now_ns());
		if (ret < 0)
			return wfi_cli_failed("replay", ret);
		progress(r, false);
	}
	progress(r, true);
	return WFI_EXIT_OK;
}

int wfi_replay_run(const struct wfi_replay_opts *opts, struct wfi_replay_totals *totals)
{
	struct replay r = { .opts = opts, .totals = totals };
	int ret;

	memset(totals, 0, sizeof(*totals));
	wfi_cli_stop_on(SIGINT);
	ret = replay_open(&r);
	if (!ret) {
		ret = play_all(&r);
		totals->wall_ns = wfi_cli_now_ns() - r.start_ns;
		totals->broken_lines = wfi_trace_broken(r.trace);
	}
	replay_close(&r);
	return ret;
}
