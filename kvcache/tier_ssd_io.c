/* SPDX-License-Identifier: Apache-2.0 */
/* requests of an SSD tier: bytes, pages of headers, checks a slice at a time, the scrubber */
#include <errno.h>
#include <string.h>
#include "kvcache/tier_ssd.h"
#include "weft_internal/log.h"

#define CHECK_BYTES (512u << 10) /* of CRC in one poll: some 50 us */
#define FLUSH_NS (2 * WFI_NSEC_PER_MSEC) /* a page of headers waits this long for more of them */
#define METER_NS (20 * WFI_NSEC_PER_MSEC)
#define POLL_NS (50 * WFI_NSEC_PER_USEC) /* while the drive works, a sleeper looks this often */
#define POLL_MAX 32u

/* ---- lists ---- */

static void fifo_init(struct ssd_fifo *f)
{
	f->head = NULL;
	f->tail = &f->head;
	f->nr = 0;
}

static void fifo_add(struct ssd_fifo *f, struct ssd_io *io)
{
	io->next = NULL;
	*f->tail = io;
	f->tail = &io->next;
	f->nr++;
}

static struct ssd_io *fifo_take(struct ssd_fifo *f, struct ssd_io **at)
{
	struct ssd_io *io = *at;

	*at = io->next;
	if (!io->next)
		f->tail = at;
	f->nr--;
	return io;
}

/* ---- speed ---- */

/* the time that passed counts while something is under way */
static void meter_run(struct ssd_meter *m, uint64_t now_ns)
{
	uint64_t bps;

	if (m->flying)
		m->busy_ns += now_ns - m->last_ns;
	m->last_ns = now_ns;
	if (m->busy_ns < METER_NS || !m->bytes)
		return;
	bps = (uint64_t)((double)m->bytes * (double)WFI_NSEC_PER_SEC / (double)m->busy_ns);
	m->bps = m->bps ? (3 * m->bps + bps) / 4 : bps;
	m->bytes = 0;
	m->busy_ns = 0;
}

static void meter_start(struct ssd *s, struct ssd_meter *m, struct ssd_io *io)
{
	meter_run(m, s->now_ns);
	io->start_ns = s->now_ns;
	io->alone = !m->flying++;
}

static void meter_end(struct ssd *s, struct ssd_meter *m, const struct ssd_io *io)
{
	uint64_t ns;

	meter_run(m, s->now_ns);
	m->flying--;
	m->bytes += io->len;
	if (!io->alone || !m->bps)
		return;
	ns = s->now_ns - io->start_ns;
	ns -= wfi_min(ns, (uint64_t)io->len * WFI_NSEC_PER_SEC / m->bps);
	m->latency_ns = m->latency_ns ? (7 * m->latency_ns + ns) / 8 : ns;
}

/* ---- requests ---- */

bool wfi_ssd_io_room(const struct ssd *s)
{
	return s->free_io != NULL;
}

/* where its bytes are aligned they go straight; else through memory of the tier's own */
static int io_buffer(struct ssd *s, struct ssd_io *io, void *bytes)
{
	int ret;

	io->user = NULL;
	io->buf = bytes;
	if (bytes && !(((uintptr_t)bytes | io->len) & (WFI_DISK_ALIGN - 1)))
		return 0;
	if (io->bounce.len < io->padded) {
		s->env->mem->unmap(s->env, &io->bounce);
		ret = s->env->mem->map(s->env, io->padded, 0, &io->bounce);
		if (ret)
			return ret;
	}
	io->user = bytes;
	io->buf = io->bounce.addr;
	return 0;
}

static int io_create(struct ssd *s, enum ssd_io_kind kind, uint32_t slot, void *bytes,
		     struct ssd_io **out)
{
	struct ssd_io *io = s->free_io;
	int ret;

	if (!io)
		return -EAGAIN;
	io->kind = kind;
	io->slot = slot;
	io->len = s->slots[slot].len;
	io->padded = (uint32_t)wfi_align_up(io->len, SSD_PAGE);
	io->moved = 0;
	io->checked = 0;
	io->crc = 0;
	ret = io_buffer(s, io, bytes);
	if (ret)
		return ret;
	s->free_io = io->next;
	s->slots[slot].pins++;
	*out = io;
	return 0;
}

int wfi_ssd_io_put(struct ssd *s, uint32_t slot, const void *bytes, wfi_tier_done done, void *ctx)
{
	struct ssd_io *io;
	int ret;

	/* only read from */
	ret = io_create(s, SSD_IO_WRITE, slot, (void *)(uintptr_t)bytes, &io);
	if (ret)
		return ret;
	io->done = done;
	io->ctx = ctx;
	if (io->user) {
		memcpy(io->buf, bytes, io->len);
		memset(io->buf + io->len, 0, io->padded - io->len);
	}
	fifo_add(&s->writes, io);
	wfi_point(s->env, "writeback.copied");
	return 0;
}

int wfi_ssd_io_get(struct ssd *s, uint32_t slot, void *bytes, wfi_tier_done done, void *ctx)
{
	struct ssd_io *io;
	int ret;

	ret = io_create(s, SSD_IO_READ, slot, bytes, &io);
	if (ret)
		return ret;
	io->done = done;
	io->ctx = ctx;
	fifo_add(&s->reads, io);
	s->queued_bytes += io->len;
	return 0;
}

/* Return: false when the disk takes no more now */
static bool io_send(struct ssd *s, struct ssd_io *io)
{
	const struct wfi_disk_ops *disk = s->env->disk;
	const uint64_t off = ssd_slot_off(s, io->slot) + io->moved;
	const uint64_t cookie = (uint64_t)(io - s->ios);
	const size_t len = io->padded - io->moved;
	int ret;

	if (io->kind == SSD_IO_WRITE)
		ret = disk->write(s->disk, off, io->buf + io->moved, len, cookie);
	else
		ret = disk->read(s->disk, off, io->buf + io->moved, len, cookie);
	return !ret;
}

static enum wfi_tier_bad bad_kind(const struct ssd_io *io, int res)
{
	if (res == -EBADMSG)
		return WFI_TIER_BAD_BODY;
	if (res == -ENOSPC)
		return WFI_TIER_BAD_SPACE;
	if (res == -ENODATA)
		return WFI_TIER_BAD_SHORT;
	return io->kind == SSD_IO_WRITE ? WFI_TIER_BAD_WRITE : WFI_TIER_BAD_READ;
}

/* a slot is not used again when the drive is to blame: bytes of an earlier life may be torn by a
 * crash, and a file that ended early or a full one may have room again */
static bool slot_bad(const struct ssd *s, const struct ssd_io *io, int res)
{
	if (res == -ENOSPC || res == -ENODATA || res == -ECANCELED)
		return false;
	return res != -EBADMSG || s->slots[io->slot].seq >= s->first_seq;
}

static void write_end(struct ssd *s, struct ssd_io *io)
{
	struct ssd_slot *st = &s->slots[io->slot];

	if (st->state != SSD_WRITING)
		return;
	wfi_point(s->env, "writeback.landed");
	st->state = SSD_HELD;
	s->nr_held++;
	s->bytes_held += st->len;
	wfi_ssd_share_count(s, st->space_tag, st->len);
	ssd_chunk_of(s, io->slot)->nr_held++;
	wfi_ssd_page_dirty(s, io->slot / SSD_PAGE_SLOTS);
	ssd_count(s, SSD_C_WRITE_BYTES, io->len);
	wfi_point(s->env, "writeback.held");
}

static void io_end(struct ssd *s, struct ssd_io *io, int res)
{
	struct ssd_slot *st = &s->slots[io->slot];
	const wfi_tier_done done = io->done;
	void *ctx = io->ctx;

	if (res && res != -ECANCELED && res != -ENOENT)
		ssd_count(s, SSD_C_BAD + bad_kind(io, res), 1);
	if (!res && io->kind == SSD_IO_WRITE)
		write_end(s, io);
	if (!res && io->kind == SSD_IO_READ)
		ssd_count(s, SSD_C_READ_BYTES, io->len);
	if (io->kind == SSD_IO_READ)
		s->queued_bytes -= io->len;
	if (res && (st->state == SSD_WRITING || (st->state == SSD_HELD && res != -ECANCELED)))
		wfi_ssd_slot_forget(s, io->slot, slot_bad(s, io, res));
	if (!res && io->kind == SSD_IO_READ && io->user)
		memcpy(io->user, io->buf, io->len);
	if (io->kind == SSD_IO_SCRUB) {
		s->scrub = NULL;
		wfi_point(s->env, "scrub.checked");
		ssd_count(s, SSD_C_SCRUBBED, 1);
	}
	wfi_ssd_slot_unpin(s, io->slot);
	io->next = s->free_io;
	s->free_io = io;
	if (done)
		done(ctx, res == -ENODATA || res == -ECANCELED ? -EIO : res);
}

/* Return: false when it goes on */
static bool io_moved(struct ssd *s, struct ssd_io *io, int64_t res, int *end)
{
	const uint32_t step = res > 0 ? (uint32_t)res & ~(SSD_PAGE - 1) : 0;

	if (res < 0)
		*end = (int)res;
	else if (io->moved + step >= io->padded)
		*end = 0;
	else if (!step)
		*end = -ENODATA;
	else {
		/* short: the rest, from the last whole page on */
		io->moved += step;
		fifo_add(io->kind == SSD_IO_WRITE ? &s->writes : &s->reads, io);
		return false;
	}
	return true;
}

static void io_done(struct ssd *s, struct ssd_io *io, int64_t res)
{
	const bool write = io->kind == SSD_IO_WRITE;
	int end;

	if (write)
		s->writes_flying--;
	else
		s->reads_flying--;
	meter_end(s, write ? &s->write_meter : &s->read_meter, io);
	if (!io_moved(s, io, res, &end))
		return;
	wfi_ssd_answered(s, end);
	if (end || write)
		io_end(s, io, end);
	else
		fifo_add(&s->checks, io);
	wfi_point(s->env, "promote.landed");
}

/* Return: work done */
static int checks_run(struct ssd *s)
{
	uint32_t left = CHECK_BYTES;
	int work = 0;

	while (s->checks.head && left) {
		struct ssd_io *io = s->checks.head;
		const uint32_t part = (uint32_t)wfi_min(left, io->len - io->checked);

		io->crc = wfi_crc32c(io->crc, io->buf + io->checked, part);
		io->checked += part;
		left -= part;
		work++;
		if (io->checked < io->len)
			break;
		fifo_take(&s->checks, &s->checks.head);
		wfi_point(s->env, "promote.checked");
		if (s->slots[io->slot].state != SSD_HELD)
			io_end(s, io, -ENOENT);
		else
			io_end(s, io, io->crc == s->slots[io->slot].crc ? 0 : -EBADMSG);
	}
	return work;
}

static int reads_send(struct ssd *s)
{
	struct ssd_io **at = &s->reads.head, *io;
	int work = 0;

	while (*at && s->reads_flying < SSD_MAX_READS) {
		/* asked for while its bytes are still on their way out */
		if (s->slots[(*at)->slot].state == SSD_WRITING) {
			at = &(*at)->next;
			continue;
		}
		/* forgotten before it was read: what lies there may be another's */
		if (s->slots[(*at)->slot].state != SSD_HELD && !(*at)->moved) {
			io_end(s, fifo_take(&s->reads, at), -ENOENT);
			work++;
			continue;
		}
		if (!io_send(s, *at))
			break;
		io = fifo_take(&s->reads, at);
		s->reads_flying++;
		wfi_point(s->env, "promote.sent");
		meter_start(s, &s->read_meter, io);
		work++;
	}
	return work;
}

static int writes_send(struct ssd *s)
{
	int work = 0;

	while (s->writes.head && s->writes_flying < SSD_MAX_WRITES) {
		struct ssd_io *io = s->writes.head;

		if (!io_send(s, io))
			break;
		fifo_take(&s->writes, &s->writes.head);
		s->writes_flying++;
		wfi_point(s->env, "writeback.sent");
		meter_start(s, &s->write_meter, io);
		work++;
	}
	return work;
}

/* ---- pages of headers ---- */

void wfi_ssd_page_dirty(struct ssd *s, uint32_t page)
{
	if (s->pages[page] & SSD_PAGE_QUEUED)
		return;
	s->pages[page] |= SSD_PAGE_QUEUED;
	if (!s->queue_nr)
		s->flush_ns = s->now_ns + FLUSH_NS;
	s->queue[(s->queue_head + s->queue_nr++) % s->super.nr_pages] = page;
}

/* Return: a free buffer's number, or SSD_NR_HEADER_IOS */
static uint32_t header_buffer(const struct ssd *s)
{
	uint32_t i = 0;

	while (i < SSD_NR_HEADER_IOS && s->header_page[i] != SSD_NONE)
		i++;
	return i;
}

static int headers_send(struct ssd *s)
{
	uint32_t turns = s->queue_nr, page, i;
	int work = 0;

	if (!turns || (s->now_ns < s->flush_ns && turns < SSD_NR_HEADER_IOS && !s->flushing))
		return 0;
	for (; turns; turns--) {
		i = header_buffer(s);
		if (i == SSD_NR_HEADER_IOS)
			break;
		page = s->queue[s->queue_head];
		s->queue_head = (s->queue_head + 1) % (uint32_t)s->super.nr_pages;
		s->queue_nr--;
		s->pages[page] &= (uint8_t)~SSD_PAGE_QUEUED;
		/* one writing of a page at a time, else the drive could take them in any order */
		if (s->pages[page] & SSD_PAGE_FLYING) {
			wfi_ssd_page_dirty(s, page);
			continue;
		}
		wfi_point(s->env, "writeback.header.begin");
		wfi_ssd_page_make(s, page, (void *)((uint8_t *)s->header_map.addr + i * SSD_PAGE));
		if (s->env->disk->write(s->disk, (SSD_SUPER_PAGES + page) * (uint64_t)SSD_PAGE,
					(uint8_t *)s->header_map.addr + i * SSD_PAGE, SSD_PAGE,
					SSD_COOKIE_HEADER | i)) {
			wfi_ssd_page_dirty(s, page);
			break;
		}
		s->pages[page] |= SSD_PAGE_FLYING;
		s->header_page[i] = page;
		s->headers_flying++;
		wfi_point(s->env, "writeback.header.sent");
		work++;
	}
	return work;
}

static void header_done(struct ssd *s, uint32_t i, int64_t res)
{
	const uint32_t page = s->header_page[i];

	s->header_page[i] = SSD_NONE;
	s->headers_flying--;
	s->pages[page] &= (uint8_t)~SSD_PAGE_FLYING;
	wfi_point(s->env, "writeback.header.written");
	if (res == SSD_PAGE) {
		wfi_ssd_answered(s, 0);
		return;
	}
	wfi_ssd_answered(s, res < 0 ? (int)res : -ENODATA);
	ssd_count(s, SSD_C_BAD + (res == -ENOSPC ? WFI_TIER_BAD_SPACE : WFI_TIER_BAD_WRITE), 1);
	/* what it says of these blocks is lost at a restart, if no later writing succeeds */
	if (s->flushing)
		return;
	wfi_ssd_page_dirty(s, page);
	s->flush_ns = s->now_ns + 100 * WFI_NSEC_PER_MSEC;
}

/* ---- the scrubber ---- */

static int scrub_run(struct ssd *s)
{
	const uint32_t end = (uint32_t)(s->super.used_pages * SSD_PAGE_SLOTS);
	uint32_t looked = 0;
	bool found = false;

	if (!s->scrub_bps || s->scrub || s->now_ns < s->scrub_due_ns || !s->nr_held)
		return 0;
	for (; looked < SSD_PAGE_SLOTS * 8; looked++, s->scrub_at++) {
		if (s->scrub_at >= end)
			s->scrub_at = 0;
		found = s->slots[s->scrub_at].state == SSD_HELD;
		if (found)
			break;
	}
	s->scrub_due_ns = s->now_ns + WFI_NSEC_PER_MSEC;
	if (!found || io_create(s, SSD_IO_SCRUB, s->scrub_at, NULL, &s->scrub))
		return 0;
	s->scrub->done = NULL;
	fifo_add(&s->reads, s->scrub);
	wfi_point(s->env, "scrub.sent");
	s->scrub_due_ns = s->now_ns + (uint64_t)s->scrub->len * WFI_NSEC_PER_SEC / s->scrub_bps;
	s->scrub_at++;
	return 1;
}

/* ---- polling ---- */

static void answer(struct ssd *s, uint64_t cookie, int64_t res)
{
	if (cookie & SSD_COOKIE_HEADER)
		header_done(s, (uint32_t)cookie, res);
	else if (cookie & SSD_COOKIE_SUPER)
		wfi_ssd_super_done(s, res);
	else if (cookie & SSD_COOKIE_RECOVER)
		wfi_ssd_recover_done(s, (uint32_t)cookie, res);
	else if (cookie & SSD_COOKIE_PROBE)
		wfi_ssd_probe_done(s, res);
	else
		io_done(s, &s->ios[cookie], res);
}

/* what was not sent yet ends: nobody waits for a device that has failed */
static int give_up(struct ssd *s)
{
	int work = 0;

	for (; s->reads.head; work++)
		io_end(s, fifo_take(&s->reads, &s->reads.head), -ECANCELED);
	for (; s->writes.head; work++)
		io_end(s, fifo_take(&s->writes, &s->writes.head), -ECANCELED);
	return work;
}

int wfi_ssd_io_poll(struct ssd *s)
{
	uint64_t cookies[POLL_MAX];
	int64_t res[POLL_MAX];
	unsigned max = s->phase == SSD_RUN ? POLL_MAX : SSD_RECOVER_BATCH;
	int nr, work = 0;

	if (s->phase == SSD_RUN && s->state != WFI_TIER_FAILED && s->state != WFI_TIER_REFUSED) {
		work += checks_run(s);
		work += headers_send(s);
		work += scrub_run(s);
		work += reads_send(s);
		work += writes_send(s);
	} else if (s->phase == SSD_RUN) {
		work += checks_run(s) + give_up(s);
	}
	do {
		nr = s->env->disk->poll(s->disk, cookies, res, max);
		for (int i = 0; i < nr; i++)
			answer(s, cookies[i], res[i]);
		work += nr;
	} while (nr == (int)max);
	if (!s->read_meter.flying)
		s->read_meter.last_ns = s->now_ns;
	return work;
}

uint64_t wfi_ssd_io_next_ns(const struct ssd *s)
{
	uint64_t next = UINT64_MAX;

	if (s->checks.head || s->reads_flying || s->writes_flying || s->headers_flying ||
	    s->recover_flying || s->super_flying || s->reads.head || s->writes.head)
		return s->now_ns + POLL_NS;
	if (s->queue_nr)
		next = s->flush_ns;
	if (s->scrub_bps && s->nr_held)
		next = wfi_min(next, s->scrub_due_ns);
	return next;
}

/* ---- set-up ---- */

int wfi_ssd_io_init(struct ssd *s)
{
	int ret;

	fifo_init(&s->reads);
	fifo_init(&s->writes);
	fifo_init(&s->checks);
	for (uint32_t i = 0; i < SSD_NR_HEADER_IOS; i++)
		s->header_page[i] = SSD_NONE;
	s->ios = wfi_alloc(s->env, SSD_NR_IOS * sizeof(*s->ios));
	if (!s->ios)
		return -ENOMEM;
	for (uint32_t i = SSD_NR_IOS; i--;) {
		s->ios[i].next = s->free_io;
		s->free_io = &s->ios[i];
	}
	/* the superblock's two pages come behind those of the headers */
	ret = s->env->mem->map(s->env, (SSD_NR_HEADER_IOS + SSD_SUPER_PAGES) * SSD_PAGE, 0,
			       &s->header_map);
	if (ret)
		return ret;
	s->super_buf = (uint8_t *)s->header_map.addr + SSD_NR_HEADER_IOS * SSD_PAGE;
	s->env->disk->lend(s->disk, s->header_map.addr, s->header_map.len);
	return 0;
}

void wfi_ssd_io_fini(struct ssd *s)
{
	for (uint32_t i = 0; s->ios && i < SSD_NR_IOS; i++)
		s->env->mem->unmap(s->env, &s->ios[i].bounce);
	if (s->ios)
		wfi_free(s->env, s->ios, SSD_NR_IOS * sizeof(*s->ios));
	s->env->mem->unmap(s->env, &s->header_map);
}
