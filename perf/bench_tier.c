/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_tier.c - the SSD tier beside fio and beside plain reads, on one file
 *
 * The file lies in WEFT_PERF_DIR, else in /var/tmp: a disk, not memory. Blocks that are read are
 * checked, as always; fio checks nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "kvcache/tier_ssd.h"
#include "perf/perf.h"

#define BLOCK (2u << 20)
#define DEPTH 16u
#define TAG 1u
#define SMALL 4096u

struct tier_bench {
	struct wfi_env env;
	struct wfi_tier *tier;
	char path[256];
	struct wfi_map bufs; /* DEPTH blocks */
	uint32_t crc; /* of what is in each */
	uint32_t nr; /* blocks */
	uint32_t *order;
	uint64_t turn; /* names of new blocks begin here */
	uint32_t in_flight;
	int failed;
	bool busy[DEPTH];
	const char *rw; /* fio's */
	uint64_t bytes, off; /* that fio works in */
};

struct io_ctx {
	struct tier_bench *b;
	uint32_t buf;
};

static void wait_open(struct tier_bench *b)
{
	struct wfi_tier_stat st;

	do {
		b->tier->ops->poll(b->tier, wfi_now(&b->env));
		b->tier->ops->stat(b->tier, &st);
	} while (st.state == WFI_TIER_OPENING);
}

static int tier_open(struct tier_bench *b, uint64_t bytes, uint32_t chunk_bytes)
{
	const struct wfi_tier_ssd_opts o = {
		.env = &b->env,
		.path = b->path,
		.bytes = bytes,
		.node = 1,
		.chunk_bytes = chunk_bytes,
	};
	int ret = wfi_tier_ssd_open(&o, &b->tier);

	if (!ret)
		wait_open(b);
	return ret;
}

static void tier_close(struct tier_bench *b)
{
	if (b->tier)
		b->tier->ops->close(b->tier);
	b->tier = NULL;
}

/* ---- blocks of 2 MiB ---- */

static struct io_ctx ctxs[DEPTH];

static void io_done(void *ctx, int res)
{
	struct io_ctx *c = ctx;

	c->b->busy[c->buf] = false;
	c->b->in_flight--;
	if (res)
		c->b->failed = res;
}

static uint8_t *buf_of(const struct tier_bench *b, uint32_t i)
{
	return (uint8_t *)b->bufs.addr + (size_t)i * BLOCK;
}

static struct io_ctx *buf_take(struct tier_bench *b)
{
	uint32_t i = 0;

	while (b->in_flight == DEPTH && !b->failed)
		b->tier->ops->poll(b->tier, wfi_now(&b->env));
	if (b->failed)
		return NULL;
	while (b->busy[i])
		i++;
	b->busy[i] = true;
	b->in_flight++;
	ctxs[i] = (struct io_ctx){ b, i };
	return &ctxs[i];
}

static void drain(struct tier_bench *b)
{
	struct wfi_tier_stat st;

	do {
		b->tier->ops->poll(b->tier, wfi_now(&b->env));
		b->tier->ops->stat(b->tier, &st);
	} while (b->in_flight || st.queued);
}

static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ wfi_perf_rand(n), n + 1 };
}

/* in the place of an older one, whose number @in_place_of is, or anywhere */
static int put_one(struct tier_bench *b, uint64_t n, const uint64_t *in_place_of)
{
	const struct wfi_tier_block block = {
		.key = key_of(n), .space_tag = TAG, .len = BLOCK, .crc = b->crc
	};
	struct io_ctx *c = buf_take(b);
	struct weft_key old;
	int ret;

	if (!c)
		return b->failed;
	if (in_place_of) {
		old = key_of(*in_place_of);
		b->tier->ops->drop(b->tier, TAG, &old);
	}
	while ((ret = b->tier->ops->put(b->tier, &block, buf_of(b, c->buf), io_done, c)) == -EAGAIN)
		b->tier->ops->poll(b->tier, wfi_now(&b->env));
	if (ret)
		io_done(c, ret);
	return ret;
}

static double rate(const struct tier_bench *b, uint64_t start_ns)
{
	return (double)b->nr * BLOCK / (double)(wfi_perf_now_ns() - start_ns);
}

static int put_round(void *ctx, double *out)
{
	struct tier_bench *b = ctx;
	const uint64_t start_ns = wfi_perf_now_ns();
	const bool random = b->rw[0] == 'r';
	int ret = 0;

	for (uint32_t i = 0; i < b->nr && !ret; i++) {
		const uint64_t old = b->turn + b->order[i];

		ret = put_one(b, random ? b->turn + b->nr + b->order[i] : b->turn + b->nr + i,
			      random ? &old : NULL);
	}
	drain(b);
	*out = rate(b, start_ns);
	b->turn += b->nr;
	return ret ? ret : b->failed;
}

static int get_round(void *ctx, double *out)
{
	struct tier_bench *b = ctx;
	const uint64_t start_ns = wfi_perf_now_ns();
	const bool random = b->rw[0] == 'r' && b->rw[1] == 'a';

	for (uint32_t i = 0; i < b->nr; i++) {
		const struct weft_key key = key_of(b->turn + (random ? b->order[i] : i));
		struct io_ctx *c = buf_take(b);
		uint32_t slot;
		int ret;

		if (!c)
			return b->failed;
		b->tier->ops->find(b->tier, TAG, &key, 1, &slot);
		ret = slot == WFI_SLOT_NONE
			      ? -ENOENT
			      : b->tier->ops->get(b->tier, slot, buf_of(b, c->buf), io_done, c);
		if (ret)
			io_done(c, ret);
	}
	drain(b);
	*out = rate(b, start_ns);
	return b->failed;
}

/*
 * 10^9 bytes a second, as fio says. Its buffers lie on huge pages and are registered, as Weft's:
 * with small ones each request is cut in pieces, and fio is half as fast
 */
static int fio_round(void *ctx, double *out)
{
	const struct tier_bench *b = ctx;
	char cmd[1024], text[8192], *at = text;
	const int field = strstr(b->rw, "write") ? 47 : 6;
	FILE *pipe;
	size_t len;

	snprintf(cmd, sizeof(cmd),
		 "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 "
		 "fio --name=weft --filename='%s' --rw=%s --bs=%u --iodepth=%u --direct=1 "
		 "--ioengine=io_uring --registerfiles --fixedbufs --norandommap --randrepeat=0 "
		 "--iomem=malloc --iomem_align=2m "
		 "--size=%llu --offset=%llu --output-format=terse --terse-version=3 2>/dev/null",
		 b->path, b->rw, BLOCK, DEPTH, (unsigned long long)b->bytes,
		 (unsigned long long)b->off);
	pipe = popen(cmd, "r");
	if (!pipe)
		return -errno;
	len = fread(text, 1, sizeof(text) - 1, pipe);
	text[len] = '\0';
	if (pclose(pipe))
		return -EIO;
	for (int i = 0; i < field && at; i++)
		at = strchr(at + 1, ';');
	if (!at)
		return -EPROTO;
	*out = strtod(at + 1, NULL) * 1024 / 1e9;
	return *out > 0 ? 0 : -EPROTO;
}

static const char *fio_skipped(void)
{
	static int found = -1;

	if (found < 0)
		found = !system("command -v fio >/dev/null 2>&1");
	return found ? NULL : "fio is not installed";
}

static int one_case(const struct wfi_perf *p, struct tier_bench *b, const char *name,
		    const char *rw, int (*round)(void *ctx, double *out))
{
	const struct wfi_perf_case c = { "tier", name, "GB/s", true };
	const struct wfi_perf_side sides[] = {
		{ NULL, round, b, NULL },
		{ "fio", fio_round, b, fio_skipped() },
	};

	b->rw = rw;
	return wfi_perf_compare(p, &c, sides, 2);
}

static int blocks_cases(const struct wfi_perf *p, struct tier_bench *b)
{
	double ignored;
	int ret;

	b->bytes = (uint64_t)b->nr * BLOCK;
	ret = tier_open(b, b->bytes + b->bytes / 32, 0);
	if (ret)
		return wfi_perf_fail(ret, "%s cannot be used", b->path);
	/* exactly as many as there is room for, so that each round writes all of it */
	b->nr = (uint32_t)(to_ssd(b->tier)->super.nr_chunks *
			   (to_ssd(b->tier)->super.chunk_bytes / BLOCK));
	b->bytes = (uint64_t)b->nr * BLOCK;
	b->off = to_ssd(b->tier)->data_off;
	b->tier->ops->lend(b->tier, b->bufs.addr, b->bufs.len);
	b->order = malloc(b->nr * sizeof(*b->order));
	if (!b->order)
		return -ENOMEM;
	wfi_perf_shuffle(b->order, b->nr);
	b->rw = "write";
	ret = put_round(b, &ignored);
	if (!ret)
		ret = one_case(p, b, "seq_2MiB_read", "read", get_round);
	if (!ret)
		ret = one_case(p, b, "rand_2MiB_read", "randread", get_round);
	if (!ret)
		ret = one_case(p, b, "seq_2MiB_write", "write", put_round);
	if (!ret)
		ret = one_case(p, b, "rand_2MiB_write", "randwrite", put_round);
	tier_close(b);
	return ret;
}

/* ---- recovery ---- */

/* headers of blocks whose bytes nobody reads */
static int fill_headers(struct tier_bench *b, uint32_t nr)
{
	struct ssd *s = to_ssd(b->tier);
	int ret = 0;

	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t slot = wfi_ssd_slot_alloc(s, TAG, SMALL, &ret);
		const struct weft_key key = key_of(i);
		const struct index_tag tag = ssd_tag(s, TAG, &key);

		if (slot == SSD_NONE)
			return ret;
		ret = wfi_index_insert(&s->index, &tag, slot);
		if (ret)
			return ret;
		s->slots[slot] = (struct ssd_slot){ .key = key,
						    .seq = ++s->seq,
						    .space_tag = TAG,
						    .len = SMALL,
						    .state = SSD_HELD };
		s->nr_held++;
		s->bytes_held += SMALL;
		ssd_chunk_of(s, slot)->nr_held++;
		wfi_ssd_page_dirty(s, slot / SSD_PAGE_SLOTS);
		if (!(i % 4096))
			drain(b);
	}
	drain(b);
	return 0;
}

static int recover_round(void *ctx, double *ms)
{
	struct tier_bench *b = ctx;
	const uint64_t start_ns = wfi_perf_now_ns();
	int ret = tier_open(b, 1u << 30, 0);

	*ms = (double)(wfi_perf_now_ns() - start_ns) / 1e6;
	if (!ret && to_ssd(b->tier)->recovered != b->nr)
		ret = -EPROTO;
	tier_close(b);
	return ret;
}

/* the same bytes in the same way, and nothing is done with them */
static int read_round(void *ctx, double *ms)
{
	struct tier_bench *b = ctx;
	const uint64_t start_ns = wfi_perf_now_ns();
	const struct wfi_disk_ops *ops = b->env.disk;
	struct wfi_disk *disk;
	uint64_t cookies[32], sent = 0, done = 0;
	int64_t res[32];
	int ret = ops->open(&b->env, b->path, b->off + b->bytes, &disk);

	if (ret)
		return ret;
	while (done < b->bytes && !ret) {
		while (sent < b->bytes && sent - done < SSD_RECOVER_DEPTH * SSD_RECOVER_BYTES) {
			const size_t len = (size_t)wfi_min(SSD_RECOVER_BYTES, b->bytes - sent);

			if (ops->read(disk, b->off + sent,
				      (uint8_t *)b->bufs.addr + sent % (DEPTH * (size_t)BLOCK), len,
				      0))
				break;
			sent += len;
		}
		for (int i = 0, nr = ops->poll(disk, cookies, res, 32); i < nr; i++) {
			ret = res[i] < 0 ? (int)res[i] : ret;
			done += res[i] > 0 ? (uint64_t)res[i] : 0;
		}
	}
	ops->close(disk);
	*ms = (double)(wfi_perf_now_ns() - start_ns) / 1e6;
	return ret;
}

static int recover_case(const struct wfi_perf *p, struct tier_bench *b)
{
	const uint32_t nr = p->quick ? 1u << 15 : 1u << 20;
	const struct wfi_perf_case c = { "tier", p->quick ? "recover_32k" : "recover_1M", "ms",
					 false };
	const struct wfi_perf_side sides[] = {
		{ NULL, recover_round, b, NULL },
		{ "read", read_round, b, NULL },
	};
	int ret;

	unlink(b->path);
	/* chunks whose headers are one page, so that no more of them are read than there are */
	ret = tier_open(b, (uint64_t)nr * SMALL * 5 / 4, SMALL * SSD_PAGE_SLOTS);
	if (!ret)
		ret = fill_headers(b, nr);
	if (ret) {
		tier_close(b);
		return wfi_perf_fail(ret, "%s cannot be filled: %s", b->path, strerror(-ret));
	}
	b->nr = nr;
	b->off = SSD_SUPER_PAGES * SSD_PAGE;
	b->bytes = to_ssd(b->tier)->super.used_pages * SSD_PAGE;
	tier_close(b);
	return wfi_perf_compare(p, &c, sides, 2);
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	const char *dir = getenv("WEFT_PERF_DIR");
	struct tier_bench b = { .nr = p->quick ? 64 : 512 };
	int ret;

	(void)nr_args;
	(void)args;
	wfi_env_real_init(&b.env);
	snprintf(b.path, sizeof(b.path), "%s/weft-perf-tier.%d", dir ? dir : "/var/tmp",
		 (int)getpid());
	ret = b.env.mem->map(&b.env, (size_t)DEPTH * BLOCK, WFI_MAP_HUGE | WFI_MAP_PREFAULT,
			     &b.bufs);
	if (ret)
		return wfi_perf_fail(ret, "no memory");
	memset(b.bufs.addr, 0x5a, b.bufs.len);
	b.crc = wfi_crc32c(0, b.bufs.addr, BLOCK);
	ret = blocks_cases(p, &b);
	tier_close(&b);
	if (!ret)
		ret = recover_case(p, &b);
	unlink(b.path);
	free(b.order);
	b.env.mem->unmap(&b.env, &b.bufs);
	return ret;
}

const struct wfi_perf_bench wfi_perf_tier = {
	.name = "tier",
	.summary = "blocks to an SSD and back, and finding them again at the start",
	.run = run,
};
