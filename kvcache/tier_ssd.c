/* SPDX-License-Identifier: Apache-2.0 */
/* the SSD tier: opening, recovery, growing and shrinking, and the table of operations */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "kvcache/tier_ssd.h"
#include "weft_internal/log.h"

#define ERRORS_MAX 8u /* answers in a row that are errors: then the device has failed */
#define RETRY_NS WFI_NSEC_PER_SEC
#define RETRY_MAX_NS (60 * WFI_NSEC_PER_SEC)
#define SMALL_BLOCK (256u << 10) /* headers are made for blocks of this size on average */
#define FIND_BATCH 32u
#define GUESS_BPS (1ull << 30) /* of a device that was never measured */
#define GUESS_LATENCY_NS (200 * WFI_NSEC_PER_USEC)

/* ---- state ---- */

const char *wfi_tier_state_name(enum wfi_tier_state state)
{
	static const char *const names[] = {
		[WFI_TIER_OPENING] = "opening", [WFI_TIER_OK] = "ok",
		[WFI_TIER_FULL] = "full",	[WFI_TIER_FAILED] = "failed",
		[WFI_TIER_REFUSED] = "refused",
	};

	return names[state];
}

void wfi_ssd_set_state(struct ssd *s, enum wfi_tier_state state, const char *why)
{
	if (s->state == state)
		return;
	s->state = state;
	snprintf(s->why, sizeof(s->why), "%s", why);
	wfi_gauge_set(s->count[SSD_G_STATE], state);
	if (state == WFI_TIER_OK)
		wfi_info("tier %s: in use", s->path);
	else if (state != WFI_TIER_OPENING)
		wfi_warn("tier %s: %s: %s", s->path, wfi_tier_state_name(state), why);
}

static void back_off(struct ssd *s)
{
	s->retry_step_ns = wfi_min(wfi_max(2 * s->retry_step_ns, RETRY_NS), RETRY_MAX_NS);
	s->retry_ns = s->now_ns + s->retry_step_ns;
}

void wfi_ssd_answered(struct ssd *s, int ret)
{
	if (!ret) {
		s->errors_in_row = 0;
		return;
	}
	if (ret == -ENOSPC && s->state == WFI_TIER_OK) {
		wfi_ssd_set_state(s, WFI_TIER_FULL,
				  "no space left on the device: free some, or make tier_bytes "
				  "smaller");
		back_off(s);
	}
	if (ret == -ENOSPC || ++s->errors_in_row < ERRORS_MAX || s->state == WFI_TIER_FAILED ||
	    s->phase != SSD_RUN)
		return;
	wfi_ssd_set_state(s, WFI_TIER_FAILED,
			  ret == -ENODATA ? "the file ends where blocks should be: was it cut?"
					  : "the device answers errors: see the kernel's log");
	back_off(s);
}

void wfi_ssd_probe_done(struct ssd *s, int64_t res)
{
	s->super_flying = false;
	if (res < (int64_t)SSD_PAGE) {
		back_off(s);
		return;
	}
	s->errors_in_row = 0;
	s->retry_step_ns = 0;
	wfi_ssd_set_state(s, WFI_TIER_OK, "");
}

/* a device that failed may have come back; a full one may have room */
static void retry(struct ssd *s)
{
	if (s->now_ns < s->retry_ns || s->super_flying)
		return;
	if (s->state == WFI_TIER_FULL) {
		wfi_ssd_set_state(s, WFI_TIER_OK, "");
	} else if (s->state == WFI_TIER_FAILED) {
		s->super_flying =
			!s->env->disk->read(s->disk, 0, s->super_buf, SSD_PAGE, SSD_COOKIE_PROBE);
	}
}

/* ---- the superblock ---- */

static uint32_t super_crc(const struct ssd_super *super)
{
	return wfi_crc32c(0, super, offsetof(struct ssd_super, crc));
}

void wfi_ssd_super_dirty(struct ssd *s)
{
	s->super_dirty = true;
}

static void super_write(struct ssd *s)
{
	const uint64_t page = s->super.seq & 1;

	if (!s->super_dirty || s->super_flying)
		return;
	s->super.crc = super_crc(&s->super);
	memset(s->super_buf, 0, SSD_PAGE);
	memcpy(s->super_buf, &s->super, sizeof(s->super));
	if (s->env->disk->write(s->disk, page * SSD_PAGE, s->super_buf, SSD_PAGE, SSD_COOKIE_SUPER))
		return;
	s->super.seq++;
	s->super_dirty = false;
	s->super_flying = true;
	wfi_point(s->env, "open.super.sent");
}

static uint64_t data_off(const struct ssd_super *super)
{
	return wfi_align_up((SSD_SUPER_PAGES + super->nr_pages) * SSD_PAGE, 64u << 10);
}

static uint64_t file_bytes(const struct ssd_super *super, uint64_t nr_chunks)
{
	return data_off(super) + nr_chunks * super->chunk_bytes;
}

/* a header page for each 32 blocks of the average size, in as large a file as it may become */
static int super_plan(struct ssd *s, uint32_t chunk_bytes)
{
	struct ssd_super *super = &s->super;
	uint64_t chunk = chunk_bytes ? chunk_bytes : SSD_CHUNK_BYTES;
	uint64_t nr;
	int ret;

	while (!chunk_bytes && chunk > SSD_PAGE && s->want_bytes / chunk < SSD_MIN_CHUNKS)
		chunk /= 2;
	ret = s->env->rng->bytes(s->env, &super->file, sizeof(super->file));
	if (ret)
		return ret;
	nr = s->want_bytes / chunk;
	super->magic = SSD_MAGIC;
	super->version = SSD_VERSION;
	super->header_bytes = sizeof(struct ssd_header);
	super->chunk_bytes = chunk;
	super->max_chunks = wfi_max(nr * SSD_GROW, 1);
	super->nr_pages =
		super->max_chunks * wfi_max(1, wfi_min(chunk / SMALL_BLOCK, 64) / SSD_PAGE_SLOTS);
	super->used_pages = wfi_min(super->nr_pages, 64);
	if (s->want_bytes <= data_off(super) || s->want_bytes - data_off(super) < chunk) {
		wfi_err("tier %s: %" PRIu64 " bytes are too few for one chunk of %" PRIu64, s->path,
			s->want_bytes, chunk);
		return -EINVAL;
	}
	super->nr_chunks = (s->want_bytes - data_off(super)) / chunk;
	return super->max_chunks >= UINT32_MAX || super->nr_pages > INDEX_SLOT_MAX / SSD_PAGE_SLOTS
		       ? -EINVAL
		       : 0;
}

static bool super_sane(const struct ssd_super *super)
{
	return super->header_bytes == sizeof(struct ssd_header) &&
	       wfi_is_pow2(super->chunk_bytes) && super->chunk_bytes >= SSD_PAGE &&
	       super->chunk_bytes <= 1u << 30 && super->max_chunks < UINT32_MAX &&
	       super->nr_chunks && super->nr_chunks <= super->max_chunks && super->nr_pages &&
	       super->nr_pages <= INDEX_SLOT_MAX / SSD_PAGE_SLOTS && super->used_pages &&
	       super->used_pages <= super->nr_pages;
}

/* Return: the newer of two copies that are whole, or NULL */
static const struct ssd_super *super_pick(const uint8_t *head)
{
	const struct ssd_super *best = NULL;

	for (unsigned i = 0; i < SSD_SUPER_PAGES; i++) {
		const struct ssd_super *super = (const struct ssd_super *)(head + i * SSD_PAGE);

		if (super->magic != SSD_MAGIC || super->crc != super_crc(super))
			continue;
		if (!best || super->seq > best->seq)
			best = super;
	}
	return best;
}

/* zeros, or what a crash has left of a superblock: a torn one still begins as it should */
static bool super_blank(const uint8_t *head)
{
	const uint64_t *words = (const uint64_t *)head;
	uint64_t any = 0;

	for (unsigned i = 0; i < SSD_SUPER_PAGES; i++)
		if (words[i * SSD_PAGE / sizeof(*words)] == SSD_MAGIC)
			return true;
	for (size_t i = 0; i < SSD_SUPER_PAGES * SSD_PAGE / sizeof(*words); i++)
		any |= words[i];
	return !any;
}

static enum wfi_tier_file head_judge(const uint8_t *head, uint64_t node, char *why, size_t why_len)
{
	const struct ssd_super *super = super_pick(head);

	if (!super && super_blank(head))
		return WFI_TIER_FILE_NEW;
	if (!super) {
		snprintf(
			why, why_len,
			"what is in it is no tier: name another, or remove the file (wipefs -a and "
			"zeros in the first 8 KiB of a device)");
		return WFI_TIER_FILE_REFUSED;
	}
	if (super->version != SSD_VERSION || !super_sane(super)) {
		snprintf(why, why_len,
			 "the file is of format version %u, this node writes %u: move it away, or "
			 "name another",
			 super->version, SSD_VERSION);
		return WFI_TIER_FILE_REFUSED;
	}
	if (super->node == node)
		return WFI_TIER_FILE_OURS;
	snprintf(why, why_len,
		 "the file holds blocks of node %#" PRIx64 ", this is %#" PRIx64
		 ": move it away, or set node_id",
		 (uint64_t)super->node, node);
	return WFI_TIER_FILE_REFUSED;
}

enum wfi_tier_file wfi_tier_ssd_look(const void *head, uint64_t node, uint64_t *bytes, char *why,
				     size_t why_len)
{
	const enum wfi_tier_file file = head_judge(head, node, why, why_len);
	const struct ssd_super *super = super_pick(head);

	if (file == WFI_TIER_FILE_OURS)
		*bytes = file_bytes(super, super->nr_chunks);
	return file;
}

/* Return: whether the file is ours to use; what it says is taken then */
static bool super_take(struct ssd *s)
{
	char why[sizeof(s->why)];

	switch (head_judge(s->super_buf, s->super.node, why, sizeof(why))) {
	case WFI_TIER_FILE_NEW:
		return true;
	case WFI_TIER_FILE_OURS:
		s->super = *super_pick(s->super_buf);
		/* the next writing goes to the other copy */
		s->super.seq++;
		return true;
	default:
		wfi_ssd_set_state(s, WFI_TIER_REFUSED, why);
		return false;
	}
}

/* ---- opening, step by step ---- */

static void opening_failed(struct ssd *s, int ret, const char *what)
{
	char why[sizeof(s->why)];

	snprintf(why, sizeof(why), "%s: %s", what, strerror(-ret));
	wfi_ssd_set_state(s, WFI_TIER_REFUSED, why);
}

static void recover_end(struct ssd *s)
{
	s->env->mem->unmap(s->env, &s->recover_map);
	s->phase = SSD_RUN;
	wfi_ssd_slots_settle(s);
	wfi_ssd_drops_settle(s);
	wfi_point(s->env, "recover.settled");
	s->first_seq = s->seq + 1;
	s->recovered = s->nr_held;
	s->recover_ns = wfi_now(s->env) - s->recover_start_ns;
	wfi_info("tier %s: %" PRIu64 " blocks found in %" PRIu64 " us", s->path, s->recovered,
		 (uint64_t)(s->recover_ns / WFI_NSEC_PER_USEC));
	wfi_ssd_set_state(s, WFI_TIER_OK, "");
	if (s->watch && s->nr_held)
		s->watch->anew(s->watch->ctx);
	wfi_point(s->env, "recover.done");
}

static void recover_send(struct ssd *s)
{
	const uint32_t step = SSD_RECOVER_BYTES / SSD_PAGE;

	for (uint32_t i = 0; i < SSD_RECOVER_DEPTH && s->recover_next < s->super.used_pages; i++) {
		const uint64_t nr = wfi_min(step, s->super.used_pages - s->recover_next);

		if (s->recover_len[i])
			continue;
		if (s->env->disk->read(s->disk, (SSD_SUPER_PAGES + s->recover_next) * SSD_PAGE,
				       (uint8_t *)s->recover_map.addr + i * SSD_RECOVER_BYTES,
				       nr * SSD_PAGE, SSD_COOKIE_RECOVER | i))
			return;
		s->recover_at[i] = (uint32_t)s->recover_next;
		s->recover_len[i] = (uint32_t)nr;
		s->recover_next += nr;
		s->recover_flying++;
		wfi_point(s->env, "recover.sent");
	}
}

void wfi_ssd_recover_done(struct ssd *s, uint32_t idx, int64_t res)
{
	const uint8_t *buf = (uint8_t *)s->recover_map.addr + idx * SSD_RECOVER_BYTES;
	const uint32_t nr = res > 0 ? (uint32_t)(res / SSD_PAGE) : 0;

	if (nr < s->recover_len[idx])
		ssd_count(s, SSD_C_BAD + (res < 0 ? WFI_TIER_BAD_READ : WFI_TIER_BAD_SHORT), 1);
	for (uint32_t i = 0; i < nr; i++)
		wfi_ssd_page_take(s, s->recover_at[idx] + i,
				  (const struct ssd_header *)(buf + i * SSD_PAGE));
	wfi_point(s->env, "recover.pages");
	s->recover_len[idx] = 0;
	s->recover_flying--;
	/* pages that could not be read are written anew with the first block that comes there */
	if (s->recover_next >= s->super.used_pages && !s->recover_flying)
		recover_end(s);
	else
		recover_send(s);
}

static void recover_begin(struct ssd *s)
{
	int ret;

	s->phase = SSD_RECOVER;
	ret = wfi_ssd_slots_init(s);
	if (!ret)
		ret = s->env->mem->map(s->env, SSD_RECOVER_DEPTH * SSD_RECOVER_BYTES, WFI_MAP_HUGE,
				       &s->recover_map);
	if (ret) {
		opening_failed(s, ret, "no memory for what is in the file");
		return;
	}
	wfi_gauge_set(s->count[SSD_G_BYTES], s->super.nr_chunks * s->super.chunk_bytes);
	wfi_point(s->env, "recover.begin");
	recover_send(s);
}

static void super_read_done(struct ssd *s, int64_t res)
{
	int ret = 0;

	wfi_point(s->env, "open.super.read");
	if (res < 0) {
		opening_failed(s, (int)res, "the superblock cannot be read");
		return;
	}
	memset(s->super_buf + res, 0, SSD_SUPER_PAGES * SSD_PAGE - (size_t)res);
	if (!super_take(s))
		return;
	wfi_point(s->env, "open.super.taken");
	s->data_off = data_off(&s->super);
	ret = s->env->disk->resize(s->disk, file_bytes(&s->super, s->super.nr_chunks));
	if (ret) {
		opening_failed(s, ret,
			       "no room for the file: make some, or set tier_bytes to less");
		return;
	}
	wfi_point(s->env, "open.resized");
	wfi_ssd_super_dirty(s);
	s->phase = SSD_WRITE_SUPER;
	super_write(s);
}

void wfi_ssd_super_done(struct ssd *s, int64_t res)
{
	s->super_flying = false;
	wfi_point(s->env, "open.super.written");
	if (s->phase == SSD_READ_SUPER) {
		super_read_done(s, res);
		return;
	}
	if (res != SSD_PAGE) {
		ssd_count(s, SSD_C_BAD + (res == -ENOSPC ? WFI_TIER_BAD_SPACE : WFI_TIER_BAD_WRITE),
			  1);
		wfi_ssd_answered(s, res < 0 ? (int)res : -EIO);
		if (!s->flushing)
			wfi_ssd_super_dirty(s);
	}
	if (s->phase == SSD_WRITE_SUPER)
		recover_begin(s);
}

/* ---- shrinking ---- */

/* one chunk behind the new end a turn, until none is in use */
static int shrink_step(struct ssd *s)
{
	uint32_t last = (uint32_t)s->super.nr_chunks - 1;
	int ret;

	if (wfi_ssd_chunk_release(s, last))
		return 0;
	s->super.nr_chunks--;
	s->nr_free_chunks--;
	wfi_point(s->env, "resize.chunk");
	if (s->super.nr_chunks > s->limit_chunks)
		return 1;
	wfi_ssd_super_dirty(s);
	ret = s->env->disk->resize(s->disk, file_bytes(&s->super, s->super.nr_chunks));
	wfi_gauge_set(s->count[SSD_G_BYTES], s->super.nr_chunks * s->super.chunk_bytes);
	wfi_point(s->env, "resize.cut");
	if (!ret)
		wfi_info("tier %s: %" PRIu64 " bytes now", s->path,
			 file_bytes(&s->super, s->super.nr_chunks));
	return 1;
}

static int ssd_resize(struct wfi_tier *t, uint64_t bytes)
{
	struct ssd *s = to_ssd(t);
	uint64_t nr;
	int ret;

	if (s->phase != SSD_RUN || s->limit_chunks < s->super.nr_chunks)
		return -EBUSY;
	nr = bytes > s->data_off ? (bytes - s->data_off) / s->super.chunk_bytes : 0;
	if (!nr || nr > s->super.max_chunks) {
		return -EINVAL;
	}
	if (nr > s->super.nr_chunks) {
		ret = s->env->disk->resize(s->disk, file_bytes(&s->super, nr));
		if (ret)
			return ret;
		s->nr_free_chunks += (uint32_t)(nr - s->super.nr_chunks);
		s->super.nr_chunks = nr;
		wfi_point(s->env, "resize.grown");
		wfi_ssd_super_dirty(s);
		wfi_gauge_set(s->count[SSD_G_BYTES], nr * s->super.chunk_bytes);
	}
	s->limit_chunks = (uint32_t)nr;
	return 0;
}

/* ---- operations ---- */

static uint32_t ssd_find(struct wfi_tier *t, uint64_t space_tag, const struct weft_key *keys,
			 uint32_t nr, uint32_t *slots)
{
	const struct ssd *s = to_ssd(t);
	struct index_tag tags[FIND_BATCH];
	uint32_t found = 0;

	for (uint32_t at = 0; at < nr; at += FIND_BATCH) {
		const uint32_t n = (uint32_t)wfi_min(FIND_BATCH, nr - at);

		for (uint32_t i = 0; s->phase == SSD_RUN && i < n; i++) {
			tags[i] = ssd_tag(s, space_tag, &keys[at + i]);
			wfi_index_prefetch(&s->index, &tags[i]);
		}
		for (uint32_t i = 0; i < n; i++) {
			slots[at + i] =
				s->phase == SSD_RUN
					? wfi_ssd_slot_find(s, space_tag, &keys[at + i], &tags[i])
					: SSD_NONE;
			found += slots[at + i] != SSD_NONE;
		}
	}
	return found;
}

static void ssd_block(const struct wfi_tier *t, uint32_t slot, struct wfi_tier_block *out)
{
	const struct ssd_slot *st = &to_ssd(t)->slots[slot];

	*out = (struct wfi_tier_block){
		.key = st->key,
		.parent = st->parent,
		.space_tag = st->space_tag,
		.len = st->len,
		.crc = st->crc,
		.depth = st->depth,
		.chain = to_ssd(t)->chains[slot],
		.visits = st->visits,
	};
}

/* chains are evicted from the tail, so that a block's child often lies in front of it */
static uint32_t ssd_next(const struct wfi_tier *t, uint32_t slot)
{
	const struct ssd *s = to_ssd(t);
	const struct ssd_slot *st = &s->slots[slot], *near;
	const struct ssd_chunk *c = ssd_chunk_of(s, slot);

	for (uint32_t i = 0; i < 2; i++) {
		const uint32_t other = i ? slot + 1 : slot - 1;

		if (other - c->first >= c->nr)
			continue;
		near = &s->slots[other];
		if (near->state == SSD_HELD && near->space_tag == st->space_tag &&
		    near->parent.lo == st->key.lo && near->parent.hi == st->key.hi)
			return other;
	}
	return WFI_SLOT_NONE;
}

static void ssd_touch(struct wfi_tier *t, uint32_t slot)
{
	struct ssd_slot *st = &to_ssd(t)->slots[slot];

	if (st->visits < SSD_VISITS_MAX)
		st->visits++;
}

static int ssd_put(struct wfi_tier *t, const struct wfi_tier_block *b, const void *bytes,
		   wfi_tier_done done, void *ctx)
{
	struct ssd *s = to_ssd(t);
	struct ssd_slot *st;
	struct index_tag tag;
	uint32_t slot;
	int ret = 0;

	if (s->phase != SSD_RUN || s->state != WFI_TIER_OK)
		return s->state == WFI_TIER_OPENING ? -EAGAIN : -EIO;
	tag = ssd_tag(s, b->space_tag, &b->key);
	slot = wfi_ssd_slot_find(s, b->space_tag, &b->key, &tag);
	if (slot != SSD_NONE) {
		ssd_touch(t, slot);
		return -EEXIST;
	}
	if (!wfi_ssd_io_room(s))
		return -EAGAIN;
	slot = wfi_ssd_slot_alloc(s, b->space_tag, b->len, &ret);
	if (slot == SSD_NONE)
		return ret;
	wfi_point(s->env, "writeback.slot");
	st = &s->slots[slot];
	*st = (struct ssd_slot){
		.key = b->key,
		.parent = b->parent,
		.seq = ++s->seq,
		.space_tag = b->space_tag,
		.len = b->len,
		.crc = b->crc,
		.gen = st->gen + 1,
		.depth = (uint32_t)wfi_min(b->depth, (1u << 12) - 1),
		.state = SSD_WRITING,
	};
	s->chains[slot] = b->chain;
	ret = wfi_index_insert(&s->index, &tag, slot);
	if (!ret)
		ret = wfi_ssd_io_put(s, slot, bytes, done, ctx);
	if (ret) {
		wfi_ssd_slot_forget(s, slot, false);
		return ret;
	}
	wfi_point(s->env, "writeback.queued");
	if (s->watch)
		s->watch->held(s->watch->ctx, slot);
	ssd_count(s, SSD_C_PUT, 1);
	return 0;
}

static int ssd_get(struct wfi_tier *t, uint32_t slot, void *bytes, wfi_tier_done done, void *ctx)
{
	struct ssd *s = to_ssd(t);
	int ret;

	if (s->state == WFI_TIER_FAILED || s->state == WFI_TIER_REFUSED)
		return -EIO;
	if (s->slots[slot].state != SSD_HELD && s->slots[slot].state != SSD_WRITING)
		return -ENOENT;
	ret = wfi_ssd_io_get(s, slot, bytes, done, ctx);
	if (!ret)
		ssd_count(s, SSD_C_GET, 1);
	return ret;
}

static bool ssd_drop(struct wfi_tier *t, uint64_t space_tag, const struct weft_key *key)
{
	struct ssd *s = to_ssd(t);
	uint32_t slot;

	if (s->phase != SSD_RUN) {
		if (s->state == WFI_TIER_OPENING)
			wfi_ssd_drop_later(s, space_tag, key);
		return false;
	}
	ssd_find(t, space_tag, key, 1, &slot);
	if (slot == SSD_NONE)
		return false;
	wfi_ssd_slot_forget(s, slot, false);
	return true;
}

static int ssd_poll(struct wfi_tier *t, uint64_t now_ns)
{
	struct ssd *s = to_ssd(t);
	int work;

	s->now_ns = wfi_max(s->now_ns, now_ns);
	if (s->state == WFI_TIER_REFUSED)
		return 0;
	work = wfi_ssd_io_poll(s);
	super_write(s);
	if (s->phase != SSD_RUN)
		return work;
	wfi_index_step(&s->index, 64);
	if (wfi_unlikely(s->limit_chunks < s->super.nr_chunks))
		work += shrink_step(s);
	if (wfi_unlikely(s->state != WFI_TIER_OK))
		retry(s);
	wfi_gauge_set(s->count[SSD_G_BLOCKS], s->nr_held);
	wfi_gauge_set(s->count[SSD_G_BYTES_HELD], s->bytes_held);
	wfi_gauge_set(s->count[SSD_G_RETIRED], s->nr_retired);
	wfi_gauge_set(s->count[SSD_G_LEASED], s->nr_kept);
	return work;
}

static int ssd_flush(struct wfi_tier *t)
{
	struct ssd *s = to_ssd(t);

	s->flushing = true;
	if (s->phase != SSD_RUN || s->state == WFI_TIER_FAILED)
		return 0;
	return s->writes.nr || s->writes_flying || s->queue_nr || s->headers_flying ||
			       s->super_dirty || s->super_flying
		       ? -EAGAIN
		       : 0;
}

static uint64_t ssd_next_event_ns(const struct wfi_tier *t, uint64_t now_ns)
{
	const struct ssd *s = to_ssd(t);
	uint64_t next = s->state == WFI_TIER_REFUSED ? UINT64_MAX : wfi_ssd_io_next_ns(s);

	if (s->state == WFI_TIER_FULL || s->state == WFI_TIER_FAILED)
		next = wfi_min(next, wfi_max(s->retry_ns, now_ns + WFI_NSEC_PER_MSEC));
	if (s->super_dirty || s->limit_chunks < s->super.nr_chunks)
		next = wfi_min(next, now_ns + WFI_NSEC_PER_MSEC);
	return next;
}

static int ssd_speed(const struct wfi_tier *t, struct wfi_tier_speed *out)
{
	const struct ssd *s = to_ssd(t);
	const struct ssd_meter *m = &s->read_meter;

	if (s->state == WFI_TIER_FAILED || s->state == WFI_TIER_REFUSED)
		return -EIO;
	*out = (struct wfi_tier_speed){
		.bps = m->bps ? m->bps : GUESS_BPS,
		.latency_ns = m->latency_ns ? m->latency_ns : GUESS_LATENCY_NS,
		.queued_bytes = s->queued_bytes,
	};
	return 0;
}

static uint64_t ssd_fetch_ns(const struct wfi_tier *t, uint64_t bytes)
{
	struct wfi_tier_speed v;

	if (ssd_speed(t, &v))
		return UINT64_MAX;
	return v.latency_ns + (uint64_t)((double)(v.queued_bytes + bytes) *
					 (double)WFI_NSEC_PER_SEC / (double)v.bps);
}

static uint32_t ssd_each(const struct wfi_tier *t, uint64_t space_tag, uint32_t from, uint32_t nr,
			 void (*fn)(void *ctx, const struct wfi_tier_block *b), void *ctx)
{
	const struct ssd *s = to_ssd(t);
	const uint64_t all = s->phase == SSD_RUN ? s->super.used_pages * SSD_PAGE_SLOTS : 0;
	const uint64_t end = wfi_min(all, (uint64_t)from + nr);
	struct wfi_tier_block b;

	for (uint64_t slot = from; slot < end; slot++) {
		if (s->slots[slot].state != SSD_HELD || s->slots[slot].space_tag != space_tag)
			continue;
		ssd_block(t, (uint32_t)slot, &b);
		fn(ctx, &b);
	}
	return end < all ? (uint32_t)end : 0;
}

static void ssd_watch(struct wfi_tier *t, const struct wfi_tier_watch *watch)
{
	to_ssd(t)->watch = watch;
}

static uint32_t ssd_walk(const struct wfi_tier *t, uint32_t *at, uint32_t max, uint32_t *out)
{
	const struct ssd *s = to_ssd(t);
	const uint64_t all = s->phase == SSD_RUN ? s->super.used_pages * SSD_PAGE_SLOTS : 0;
	const uint64_t end = wfi_min(all, (uint64_t)*at + max);
	uint32_t n = 0;

	for (uint64_t slot = *at; slot < end; slot++)
		if (s->slots[slot].state == SSD_HELD || s->slots[slot].state == SSD_WRITING)
			out[n++] = (uint32_t)slot;
	*at = end < all ? (uint32_t)end : 0;
	return n;
}

static void ssd_set_chain(struct wfi_tier *t, uint32_t slot, uint32_t chain)
{
	to_ssd(t)->chains[slot] = chain;
}

static void ssd_lend(struct wfi_tier *t, void *addr, uint64_t len)
{
	struct ssd *s = to_ssd(t);

	s->env->disk->lend(s->disk, addr, len);
}

static void ssd_stat(const struct wfi_tier *t, struct wfi_tier_stat *out)
{
	const struct ssd *s = to_ssd(t);

	*out = (struct wfi_tier_stat){
		.state = s->state,
		.why = s->why,
		.bytes = s->phase == SSD_RUN ? s->super.nr_chunks * s->super.chunk_bytes : 0,
		.bytes_held = s->bytes_held,
		.blocks = s->nr_held,
		.leased = s->nr_kept,
		.retired = s->nr_retired,
		.evicted = s->count[SSD_C_EVICTED]->value,
		.queued = s->reads.nr + s->writes.nr + s->checks.nr + s->reads_flying +
			  s->writes_flying + s->headers_flying + s->super_flying + s->super_dirty +
			  (s->state == WFI_TIER_FAILED ? 0 : s->queue_nr),
		.read_bps = s->read_meter.bps,
		.write_bps = s->write_meter.bps,
		.recovered = s->recovered,
		.recover_ns = s->recover_ns,
		.scrubbed = s->count[SSD_C_SCRUBBED]->value,
	};
	if (s->phase == SSD_RUN) {
		out->file_bytes = file_bytes(&s->super, s->super.nr_chunks);
		out->want_bytes = file_bytes(&s->super, s->limit_chunks);
		out->min_bytes = file_bytes(&s->super, 1);
		out->max_bytes = file_bytes(&s->super, s->super.max_chunks);
	}
	for (unsigned i = 0; i < WFI_TIER_NR_BAD; i++)
		out->bad[i] = s->count[SSD_C_BAD + i]->value;
}

/* ---- open, close ---- */

static void ssd_close(struct wfi_tier *t)
{
	struct ssd *s;

	if (!t)
		return;
	s = to_ssd(t);
	s->env->disk->close(s->disk);
	wfi_ssd_io_fini(s);
	wfi_ssd_slots_fini(s);
	wfi_ssd_shares_fini(s);
	s->env->mem->unmap(s->env, &s->recover_map);
	wfi_free(s->env, s->path, s->path_len);
	wfi_free(s->env, s, sizeof(*s));
}

static const struct wfi_tier_ops ssd_ops = {
	.name = "ssd",
	.kind = WEFT_TIER_SSD,
	.close = ssd_close,
	.find = ssd_find,
	.block = ssd_block,
	.next = ssd_next,
	.touch = ssd_touch,
	.put = ssd_put,
	.get = ssd_get,
	.keep = wfi_ssd_slot_keep,
	.unkeep = wfi_ssd_slot_unkeep,
	.drop = ssd_drop,
	.poll = ssd_poll,
	.flush = ssd_flush,
	.next_event_ns = ssd_next_event_ns,
	.fetch_ns = ssd_fetch_ns,
	.speed = ssd_speed,
	.each = ssd_each,
	.watch = ssd_watch,
	.walk = ssd_walk,
	.set_chain = ssd_set_chain,
	.lend = ssd_lend,
	.resize = ssd_resize,
	.share = wfi_ssd_share,
	.stat = ssd_stat,
};

static void counters_init(struct ssd *s, struct wfi_metrics *m)
{
	static const struct {
		const char *name, *labels, *unit, *help;
	} table[SSD_NR_COUNTERS] = {
		[SSD_C_PUT] = { "weft_tier_put", "", "", "Blocks written to a tier" },
		[SSD_C_GET] = { "weft_tier_get", "", "", "Blocks asked of a tier" },
		[SSD_C_EVICTED] = { "weft_tier_evicted", "", "", "Blocks evicted from a tier" },
		[SSD_C_READ_BYTES] = { "weft_tier_read", "", "bytes", "Bytes read from a tier" },
		[SSD_C_WRITE_BYTES] = { "weft_tier_written", "", "bytes",
					"Bytes written to a tier" },
		[SSD_C_SCRUBBED] = { "weft_tier_scrubbed", "", "",
				     "Blocks checked by the scrubber" },
		[SSD_C_BAD + WFI_TIER_BAD_HEADER] = { "weft_tier_bad", ",kind=\"header\"", "",
						      "What went bad in a tier" },
		[SSD_C_BAD + WFI_TIER_BAD_BODY] = { "weft_tier_bad", ",kind=\"body\"", "",
						    "What went bad in a tier" },
		[SSD_C_BAD + WFI_TIER_BAD_READ] = { "weft_tier_bad", ",kind=\"read\"", "",
						    "What went bad in a tier" },
		[SSD_C_BAD + WFI_TIER_BAD_WRITE] = { "weft_tier_bad", ",kind=\"write\"", "",
						     "What went bad in a tier" },
		[SSD_C_BAD + WFI_TIER_BAD_SHORT] = { "weft_tier_bad", ",kind=\"short\"", "",
						     "What went bad in a tier" },
		[SSD_C_BAD + WFI_TIER_BAD_SPACE] = { "weft_tier_bad", ",kind=\"space\"", "",
						     "What went bad in a tier" },
		[SSD_G_BLOCKS] = { "weft_tier_blocks", "", "", "Blocks held in a tier" },
		[SSD_G_BYTES_HELD] = { "weft_tier_held", "", "bytes",
				       "Bytes of the blocks held in a tier" },
		[SSD_G_BYTES] = { "weft_tier_size", "", "bytes", "Room for blocks in a tier" },
		[SSD_G_RETIRED] = { "weft_tier_retired", "", "",
				    "Slots not used again until the next start" },
		[SSD_G_LEASED] = { "weft_tier_leased", "", "",
				   "Blocks in a tier that leases keep there" },
		[SSD_G_STATE] = { "weft_tier_state", "", "",
				  "0 opening, 1 ok, 2 full, 3 failed, 4 refused" },
	};
	char labels[64];

	for (unsigned i = 0; i < SSD_NR_COUNTERS; i++) {
		struct wfi_counter *c = NULL;

		snprintf(labels, sizeof(labels), "tier=\"ssd\"%s", table[i].labels);
		if (m && i < SSD_G_BLOCKS)
			c = wfi_metrics_counter(m, table[i].name, labels, table[i].unit,
						table[i].help);
		else if (m)
			c = wfi_metrics_gauge(m, table[i].name, labels, table[i].unit,
					      table[i].help);
		s->count[i] = c ? c : &s->scratch[i];
	}
}

int wfi_tier_ssd_open(const struct wfi_tier_ssd_opts *opts, struct wfi_tier **out)
{
	struct wfi_env *env = opts->env;
	struct ssd *s = wfi_alloc(env, sizeof(*s));
	int ret = -ENOMEM;

	if (!s)
		return -ENOMEM;
	s->base.ops = &ssd_ops;
	s->env = env;
	s->path_len = strlen(opts->path) + 1;
	s->path = wfi_alloc(env, s->path_len);
	if (!s->path)
		goto err_free;
	memcpy(s->path, opts->path, s->path_len);
	s->index.env = env;
	s->want_bytes = opts->bytes;
	s->super.node = opts->node;
	s->scrub_bps = opts->scrub_bps;
	s->now_ns = wfi_now(env);
	s->recover_start_ns = s->now_ns;
	counters_init(s, opts->metrics);
	ret = super_plan(s, opts->chunk_bytes);
	if (!ret)
		ret = env->disk->open(env, s->path, SSD_SUPER_PAGES * SSD_PAGE, &s->disk);
	if (ret)
		goto err_free;
	ret = wfi_ssd_shares_init(s);
	if (!ret)
		ret = wfi_ssd_io_init(s);
	if (ret)
		goto err_close;
	wfi_point(s->env, "open.locked");
	ret = env->disk->read(s->disk, 0, s->super_buf, SSD_SUPER_PAGES * SSD_PAGE,
			      SSD_COOKIE_SUPER);
	if (ret)
		goto err_close;
	s->super_flying = true;
	*out = &s->base;
	return 0;

err_close:
	ssd_close(&s->base);
	return ret;
err_free:
	if (s->path)
		wfi_free(env, s->path, s->path_len);
	wfi_free(env, s, sizeof(*s));
	return ret;
}
