/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_gpu.c - copies of blocks in a GPU's memory: what is copied there, and what is proved
 *
 * What is put down is copied from its slot in memory, behind the gets that wanted it: from the
 * place that a get has just filled it would be nearer, but that is the engine's, to write to and to
 * take away. A batch at a time, and no more bytes a second than it may be, since the same bus
 * carries what engines wait for. A copy is good when the GPU's sum of it is what the block's header
 * says.
 */
#include <errno.h>
#include <stdio.h>

#include "kvcache/tier_gpu.h"
#include "weft_internal/log.h"

#define QUEUE 512u
#define BATCH 64u /* blocks */
#define BATCH_BYTES (4ull << 20) /* or one block */

struct wanted {
	uint32_t slot;
	uint32_t gen;
};

/* one batch on its way */
struct fill {
	struct wfi_xfer *xfer; /* NULL: none */
	uint32_t nr;
	uint32_t slots[BATCH];
	uint32_t copies[BATCH];
	struct wfi_piece pieces[BATCH];
	int32_t results[BATCH];
	uint32_t sums[BATCH];
};

enum {
	C_PUT,
	C_GET,
	C_EVICTED,
	C_READ_BYTES,
	C_WRITE_BYTES,
	C_BAD,
	G_COPIES,
	G_BYTES_HELD,
	G_BYTES,
	G_STATE,
	NR_FIGURES,
};

struct wfi_tier_gpu {
	struct wfi_tier_gpu_opts o;
	struct gpu_slots s;
	struct wanted queue[QUEUE];
	uint32_t head, tail;
	struct fill fill;
	uint64_t next_ns; /* of the next batch */
	bool lost;
	uint64_t nr_evicted; /* counted so far: figures go on from those of an earlier tier */
	struct wfi_counter *count[NR_FIGURES];
	struct wfi_counter scratch[NR_FIGURES];
};

static uint32_t gen_of(const struct wfi_tier_gpu *t, uint32_t slot)
{
	return kv_slot(t->o.kv, slot)->gen;
}

static uint64_t bytes_of(const struct wfi_tier_gpu *t, uint32_t nr_chunks)
{
	return (uint64_t)nr_chunks << t->s.chunk_shift;
}

static void figures_show(struct wfi_tier_gpu *t)
{
	wfi_count(t->count[C_EVICTED], t->s.nr_evicted - t->nr_evicted);
	t->nr_evicted = t->s.nr_evicted;
	wfi_gauge_set(t->count[G_COPIES], t->s.nr_copies);
	wfi_gauge_set(t->count[G_BYTES_HELD], t->s.bytes_held);
	wfi_gauge_set(t->count[G_BYTES], bytes_of(t, t->s.nr_chunks));
	wfi_gauge_set(t->count[G_STATE], t->lost ? WFI_TIER_FAILED : WFI_TIER_OK);
}

void wfi_tier_gpu_lose(struct wfi_tier_gpu *t)
{
	if (t->lost)
		return;
	t->lost = true;
	t->head = t->tail;
	wfi_gpu_slots_clear(&t->s);
	figures_show(t);
	wfi_err("gpu %d: its tier is lost: what it had is served from memory; the next region that "
		"is registered there opens it anew",
		t->o.gpu);
}

bool wfi_tier_gpu_over(const struct wfi_tier_gpu *t)
{
	/* what was not pinned has gone */
	return (t->lost || !(t->s.want_chunks || wfi_tier_gpu_shrinks(t))) && !t->s.nr_copies &&
	       !t->fill.nr;
}

bool wfi_tier_gpu_busy(const struct wfi_tier_gpu *t)
{
	return t->fill.nr;
}

void wfi_tier_gpu_resize(struct wfi_tier_gpu *t, uint64_t bytes)
{
	wfi_gpu_slots_resize(&t->s, bytes);
	wfi_gpu_slots_shrink(&t->s);
	figures_show(t);
}

bool wfi_tier_gpu_shrinks(const struct wfi_tier_gpu *t)
{
	return wfi_gpu_slots_shrinks(&t->s);
}

/* ---- what it gives ---- */

void *wfi_tier_gpu_addr(const struct wfi_tier_gpu *t, uint32_t copy)
{
	return (char *)t->o.mr->addr + wfi_gpu_slots_off(&t->s, copy);
}

const struct weft_mr *wfi_tier_gpu_mr(const struct wfi_tier_gpu *t)
{
	return t->o.mr;
}

bool wfi_tier_gpu_holds(const struct wfi_tier_gpu *t, uint32_t slot)
{
	return wfi_gpu_slots_find(&t->s, slot, gen_of(t, slot)) != GPU_NONE;
}

/* it may come too late, and is then wanted another time */
static void put_down(struct wfi_tier_gpu *t, uint32_t slot, uint32_t gen)
{
	if (t->tail - t->head == QUEUE)
		return;
	t->queue[t->tail++ % QUEUE] = (struct wanted){ slot, gen };
	wfi_gpu_slots_put_down(&t->s, slot, gen);
}

uint32_t wfi_tier_gpu_take(struct wfi_tier_gpu *t, uint32_t slot)
{
	const uint32_t gen = gen_of(t, slot), copy = wfi_gpu_slots_find(&t->s, slot, gen);

	if (t->lost)
		return WFI_SLOT_NONE;
	if (copy != GPU_NONE) {
		wfi_gpu_slots_pin(&t->s, copy);
		return copy;
	}
	if (wfi_gpu_slots_note(&t->s, slot, gen))
		put_down(t, slot, gen);
	return WFI_SLOT_NONE;
}

void wfi_tier_gpu_put(struct wfi_tier_gpu *t, uint32_t copy)
{
	wfi_gpu_slots_unpin(&t->s, copy);
}

int wfi_tier_gpu_check(struct wfi_tier_gpu *t, uint32_t copy, uint32_t slot, uint32_t crc)
{
	if (!wfi_kv_crc_check(t->o.kv, slot, crc)) {
		wfi_count(t->count[C_GET], 1);
		wfi_count(t->count[C_READ_BYTES], kv_run(t->o.kv, slot)->space->info.block_bytes);
		return 0;
	}
	wfi_count(t->count[C_BAD], 1);
	wfi_gpu_slots_drop(&t->s, copy);
	return -EBADMSG;
}

/* ---- what is copied there ---- */

/* nothing of what is in the batch stays pinned */
static void fill_end(struct wfi_tier_gpu *t)
{
	struct fill *f = &t->fill;

	for (uint32_t i = 0; i < f->nr; i++)
		wfi_gpu_slots_unpin(&t->s, f->copies[i]);
	wfi_kv_unpin(t->o.kv, f->slots, f->nr);
	f->nr = 0;
	f->xfer = NULL;
	figures_show(t);
}

static void fill_failed(struct wfi_tier_gpu *t, uint32_t i)
{
	const struct fill *f = &t->fill;

	wfi_gpu_slots_drop(&t->s, f->copies[i]);
	wfi_gpu_slots_put_off(&t->s, f->slots[i], gen_of(t, f->slots[i]));
}

static void fill_done(void *ctx, int res)
{
	struct wfi_tier_gpu *t = ctx;
	const struct fill *f = &t->fill;

	for (uint32_t i = 0; i < f->nr; i++) {
		if (!f->results[i] && !wfi_kv_crc_check(t->o.kv, f->slots[i], f->sums[i])) {
			wfi_gpu_slots_good(&t->s, f->copies[i]);
			wfi_count(t->count[C_PUT], 1);
			wfi_count(t->count[C_WRITE_BYTES], f->pieces[i].len);
			continue;
		}
		wfi_count(t->count[C_BAD], !f->results[i]);
		fill_failed(t, i);
	}
	fill_end(t);
	if (res == -EIO || res == -ENOTCONN || res == -ETIMEDOUT)
		wfi_tier_gpu_lose(t);
}

/* what it is of, and where it goes, stays pinned until it ends */
static void fill_late(void *ctx, int res)
{
	(void)res;
	wfi_tier_gpu_lose(ctx);
}

static int fill_submit(struct wfi_tier_gpu *t, const struct wfi_tenant *of, uint64_t now_ns)
{
	struct fill *f = &t->fill;
	const struct wfi_xfer_opts x = {
		.ep = t->o.ep,
		.dir = WFI_XFER_WRITE,
		.local_mr = t->o.arena(t->o.ctx, of),
		.rkeys = &t->o.rkey,
		.nr_rkeys = 1,
		.pieces = f->pieces,
		.nr_pieces = f->nr,
		.nr_blocks = f->nr,
		.results = f->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = f->sums,
		.device_sums = true,
		.deadline_ns = now_ns + t->o.timeout_ns,
		.done = fill_done,
		.late = fill_late,
		.ctx = t,
	};

	return x.local_mr ? wfi_xfer_submit(t->o.xfer, &x, &f->xfer) : -EOPNOTSUPP;
}

/* one more block, if it is still there and there is room for it. Return: its bytes */
static uint64_t fill_add(struct wfi_tier_gpu *t, const struct wanted *w)
{
	const struct kv_space *space = kv_run(t->o.kv, w->slot)->space;
	struct fill *f = &t->fill;
	uint32_t copy;

	copy = wfi_gpu_slots_take(&t->s, space->info.stride, w->slot, w->gen);
	if (copy == GPU_NONE) {
		wfi_gpu_slots_put_off(&t->s, w->slot, w->gen);
		return 0;
	}
	f->slots[f->nr] = w->slot;
	f->copies[f->nr] = copy;
	f->pieces[f->nr] = (struct wfi_piece){
		.local = wfi_kv_slot_addr(t->o.kv, w->slot),
		.remote = wfi_gpu_slots_off(&t->s, copy),
		.block = f->nr,
		.len = space->info.block_bytes,
	};
	f->nr++;
	return space->info.block_bytes;
}

/* of one tenant: its memory is registered by itself. Return: bytes; *@of: whose */
static uint64_t fill_collect(struct wfi_tier_gpu *t, const struct wfi_tenant **of)
{
	struct fill *f = &t->fill;
	uint64_t bytes = 0;

	for (; t->head != t->tail && f->nr < BATCH; t->head++) {
		const struct wanted *w = &t->queue[t->head % QUEUE];
		const struct kv_space *space;

		if (!wfi_kv_slot_held(t->o.kv, w->slot, w->gen))
			continue;
		space = kv_run(t->o.kv, w->slot)->space;
		if (f->nr &&
		    (space->tenant != *of || bytes + space->info.block_bytes > BATCH_BYTES))
			break;
		*of = space->tenant;
		bytes += fill_add(t, w);
	}
	return bytes;
}

int wfi_tier_gpu_poll(struct wfi_tier_gpu *t, uint64_t now_ns)
{
	const struct wfi_tenant *of = NULL;
	struct fill *f = &t->fill;
	uint64_t bytes;
	uint32_t i;

	if (wfi_unlikely(t->s.nr_chunks != t->s.want_chunks)) {
		wfi_gpu_slots_shrink(&t->s);
		figures_show(t);
		return 1;
	}
	if (f->nr || t->head == t->tail || now_ns < t->next_ns)
		return 0;
	bytes = fill_collect(t, &of);
	if (!f->nr)
		return 1;
	wfi_kv_pin(t->o.kv, f->slots, f->nr);
	if (fill_submit(t, of, now_ns)) {
		for (i = 0; i < f->nr; i++)
			fill_failed(t, i);
		fill_end(t);
		return 1;
	}
	if (t->o.write_bps)
		t->next_ns = now_ns + bytes * WFI_NSEC_PER_SEC / t->o.write_bps;
	return 1;
}

uint64_t wfi_tier_gpu_next_event_ns(const struct wfi_tier_gpu *t)
{
	if (t->s.nr_chunks != t->s.want_chunks)
		return 0;
	return t->fill.nr || t->head == t->tail ? UINT64_MAX : t->next_ns;
}

/* ---- set-up ---- */

static void figures_init(struct wfi_tier_gpu *t)
{
	static const struct {
		const char *name, *unit, *help;
	} table[NR_FIGURES] = {
		[C_PUT] = { "weft_tier_put", "", "Blocks written to a tier" },
		[C_GET] = { "weft_tier_get", "", "Blocks asked of a tier" },
		[C_EVICTED] = { "weft_tier_evicted", "", "Blocks evicted from a tier" },
		[C_READ_BYTES] = { "weft_tier_read", "bytes", "Bytes read from a tier" },
		[C_WRITE_BYTES] = { "weft_tier_written", "bytes", "Bytes written to a tier" },
		[C_BAD] = { "weft_tier_bad", "", "What went bad in a tier" },
		[G_COPIES] = { "weft_tier_blocks", "", "Blocks held in a tier" },
		[G_BYTES_HELD] = { "weft_tier_held", "bytes",
				   "Bytes of the blocks held in a tier" },
		[G_BYTES] = { "weft_tier_size", "bytes", "Room for blocks in a tier" },
		[G_STATE] = { "weft_tier_state", "",
			      "0 opening, 1 ok, 2 full, 3 failed, 4 refused" },
	};
	struct wfi_metrics *m = t->o.metrics;
	char labels[64];

	for (unsigned i = 0; i < NR_FIGURES; i++) {
		struct wfi_counter *c = NULL;

		snprintf(labels, sizeof(labels), "tier=\"gpu\",gpu=\"%d\"%s", t->o.gpu,
			 i == C_BAD ? ",kind=\"body\"" : "");
		if (m && i < G_COPIES)
			c = wfi_metrics_counter(m, table[i].name, labels, table[i].unit,
						table[i].help);
		else if (m)
			c = wfi_metrics_gauge(m, table[i].name, labels, table[i].unit,
					      table[i].help);
		t->count[i] = c ? c : &t->scratch[i];
	}
	figures_show(t);
}

int wfi_tier_gpu_create(const struct wfi_tier_gpu_opts *opts, struct wfi_tier_gpu **out)
{
	struct wfi_tier_gpu *t = wfi_alloc(opts->env, sizeof(*t));
	int ret;

	if (!t)
		return -ENOMEM;
	t->o = *opts;
	ret = wfi_gpu_slots_init(&t->s, opts);
	if (ret) {
		wfi_tier_gpu_destroy(t);
		return ret;
	}
	figures_init(t);
	*out = t;
	return 0;
}

void wfi_tier_gpu_destroy(struct wfi_tier_gpu *t)
{
	if (!t)
		return;
	wfi_gpu_slots_fini(&t->s);
	wfi_free(t->o.env, t, sizeof(*t));
}

void wfi_tier_gpu_stat(const struct wfi_tier_gpu *t, struct wfi_tier_gpu_stat *out)
{
	*out = (struct wfi_tier_gpu_stat){
		.state = t->lost ? WFI_TIER_FAILED : WFI_TIER_OK,
		.bytes = bytes_of(t, t->s.nr_chunks),
		.want_bytes = bytes_of(t, t->s.want_chunks),
		.bytes_held = t->s.bytes_held,
		.copies = t->s.nr_copies,
		.hits = t->count[C_GET]->value,
		.hit_bytes = t->count[C_READ_BYTES]->value,
		.kept = t->count[C_PUT]->value,
		.evicted = t->s.nr_evicted,
		.bad = t->count[C_BAD]->value,
	};
}
