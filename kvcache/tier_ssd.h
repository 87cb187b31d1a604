/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tier_ssd.h - what lies in the file of an SSD tier, and what the node keeps of it in memory
 *
 *   page 0, 1     the superblock, two copies: each change goes to the older one
 *   header area   pages of 32 slot headers, read at the start in one sweep
 *   data area     chunks; a chunk belongs to blocks of one size, and is cut into slots of it
 *
 * A slot's header is written after its bytes, and nothing waits for the drive's cache: after a
 * crash either may be missing, torn or old. The header says which file, slot, chunk and size it is
 * for, has a checksum of its own and one of the bytes. A header that is not whole, or that another
 * with a higher sequence contradicts, is dropped at the start; bytes that are not what the header
 * says are found by their first reader, or by the scrubber, and are a miss.
 *
 * tier_ssd.c          opening, recovery, resizing, the table of operations
 * tier_ssd_slots.c    chunks, slots, the index, the clock that evicts
 * tier_ssd_share.c    whose blocks may go for whose
 * tier_ssd_io.c       requests: bytes, header pages, checks, the scrubber
 *
 * Eviction is a clock (second chance, up to three): it needs no order, so none has to be found
 * again at the start, and it frees neighbours, so that writes stay sequential and a header page is
 * written once for many of them.
 */
#ifndef WFI_TIER_SSD_H
#define WFI_TIER_SSD_H

#include "kvcache/index.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/tier.h"
#include "weft_internal/util.h"

#define SSD_MAGIC 0x5245495454464557ull /* "WEFTTIER" */
#define SSD_SLOT_MAGIC 0x544f4c5354464557ull /* "WEFTSLOT" */
#define SSD_VERSION 1u
#define SSD_PAGE 4096u
#define SSD_PAGE_SLOTS 32u
#define SSD_SUPER_PAGES 2u
#define SSD_CHUNK_BYTES (64u << 20)
#define SSD_MIN_CHUNKS 16u /* a smaller file gets smaller chunks */
#define SSD_GROW 4u /* times that a file may grow beyond its first size */
#define SSD_CLASSES 16u
#define SSD_NONE UINT32_MAX
#define SSD_VISITS_MAX 3u
#define SSD_SEQ_BITS 48 /* of writes over a file's life */
#define SSD_KEPT_MAX ((1u << (64 - SSD_SEQ_BITS)) - 1)

/* little-endian, as all of Weft's shared structs */
struct ssd_super {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes;
	uint64_t file; /* random, made with the file: binds headers to it */
	uint64_t node;
	uint64_t chunk_bytes;
	uint64_t nr_chunks; /* now */
	uint64_t max_chunks;
	uint64_t nr_pages; /* of the header area */
	uint64_t used_pages; /* headers lie in none behind these */
	uint64_t seq; /* the higher of two copies is the newer */
	uint64_t reserved[5];
	uint32_t reserved2;
	uint32_t crc; /* CRC32C of what is before */
};

struct ssd_header {
	uint64_t magic; /* 0: the slot is free */
	uint32_t version;
	uint32_t slot;
	uint64_t file;
	uint64_t node;
	struct weft_key key;
	struct weft_key parent;
	uint64_t space_tag;
	uint64_t seq; /* of the write, over the file's life */
	uint32_t len;
	uint32_t gen; /* of the slot */
	uint32_t chunk;
	uint32_t idx; /* slot in the chunk */
	uint32_t stride; /* bytes from slot to slot there */
	uint32_t depth;
	uint32_t chain; /* 0: not known */
	uint32_t reserved[3];
	uint32_t body_crc; /* CRC32C of the bytes */
	uint32_t crc; /* CRC32C of what is before */
};

WEFT_STATIC_ASSERT(sizeof(struct ssd_super) == 128, "format");
WEFT_STATIC_ASSERT(offsetof(struct ssd_super, crc) == 124, "format");
WEFT_STATIC_ASSERT(sizeof(struct ssd_header) == SSD_PAGE / SSD_PAGE_SLOTS, "format");
WEFT_STATIC_ASSERT(offsetof(struct ssd_header, crc) == 124, "format");

enum ssd_slot_state {
	SSD_FREE, /* in its class's free list */
	SSD_WRITING, /* found, but its bytes are on their way */
	SSD_HELD,
	SSD_DYING, /* forgotten, but being read or written, or leased */
	SSD_RETIRED,
};

struct ssd_slot {
	struct weft_key key;
	struct weft_key parent;
	union {
		struct {
			uint64_t seq : SSD_SEQ_BITS;
			uint64_t kept : 64 - SSD_SEQ_BITS; /* leases */
		};
		struct {
			uint32_t next_free;
			uint32_t prev_free; /* itself: on no list */
		};
	};
	uint64_t space_tag;
	uint32_t len;
	uint32_t crc;
	uint32_t gen;
	uint32_t depth : 12;
	uint32_t state : 3;
	uint32_t visits : 2;
	uint32_t pins : 15;
};

WEFT_STATIC_ASSERT(sizeof(struct ssd_slot) == WFI_CACHELINE, "one line a slot");

struct ssd_chunk {
	uint64_t max_seq; /* of its headers, at the start */
	uint32_t first; /* slot */
	uint32_t nr; /* slots; 0: the chunk is free */
	uint32_t nr_held;
	uint32_t class;
};

/* blocks of one size, rounded up to pages */
struct ssd_class {
	uint32_t stride; /* 0: unused */
	uint32_t nr_chunks;
	uint32_t nr_kept; /* slots */
	uint32_t free; /* list of slots */
	uint32_t hand_chunk; /* where the clock looks next */
	uint32_t hand;
};

enum ssd_io_kind { SSD_IO_READ, SSD_IO_WRITE, SSD_IO_SCRUB };

struct ssd_io {
	struct ssd_io *next;
	enum ssd_io_kind kind;
	uint32_t slot;
	uint32_t len; /* of the block */
	uint32_t padded; /* what moves */
	uint32_t moved;
	uint32_t checked;
	uint32_t crc;
	bool alone; /* nothing else was under way when it began */
	uint8_t *buf; /* aligned: the caller's or the bounce buffer */
	void *user; /* the caller's, when it needs bouncing */
	uint64_t start_ns;
	wfi_tier_done done;
	void *ctx;
	struct wfi_map bounce;
};

struct ssd_fifo {
	struct ssd_io *head, **tail;
	uint32_t nr;
};

/* bytes a second, and the time that one request takes by itself */
struct ssd_meter {
	uint64_t bytes, busy_ns, last_ns;
	uint64_t bps;
	uint64_t latency_ns;
	uint32_t flying;
};

#define SSD_NR_IOS 256u
#define SSD_NR_HEADER_IOS 16u
#define SSD_RECOVER_BYTES (256u << 10)
#define SSD_RECOVER_DEPTH 32u
#define SSD_RECOVER_BATCH 2u /* of those answers looked at before more is asked for */
#define SSD_MAX_WRITES 16u /* under way at once: reads are waited for */
#define SSD_MAX_READS 32u

/* what a page of headers is doing */
enum { SSD_PAGE_QUEUED = 1, SSD_PAGE_FLYING = 2 };

enum ssd_counter {
	SSD_C_PUT,
	SSD_C_GET,
	SSD_C_EVICTED,
	SSD_C_READ_BYTES,
	SSD_C_WRITE_BYTES,
	SSD_C_SCRUBBED,
	SSD_C_BAD, /* and WFI_TIER_NR_BAD of them */
	SSD_G_BLOCKS = SSD_C_BAD + WFI_TIER_NR_BAD,
	SSD_G_BYTES_HELD,
	SSD_G_BYTES,
	SSD_G_RETIRED,
	SSD_G_LEASED,
	SSD_G_STATE,
	SSD_NR_COUNTERS,
};

/* steps of opening */
enum ssd_phase {
	SSD_READ_SUPER,
	SSD_WRITE_SUPER,
	SSD_RECOVER,
	SSD_RUN,
};

struct ssd_drop {
	uint64_t space_tag;
	struct weft_key key;
};

struct ssd {
	struct wfi_tier base;
	struct wfi_env *env;
	struct wfi_disk *disk;
	char *path;
	size_t path_len;
	uint64_t want_bytes;
	uint64_t now_ns;
	enum wfi_tier_state state;
	char why[200];

	struct ssd_super super;
	uint64_t data_off;
	uint32_t limit_chunks; /* new blocks go below; less than nr_chunks while shrinking */
	enum ssd_phase phase;
	uint8_t *super_buf; /* two pages */
	bool super_flying, super_dirty;

	struct wfi_map slot_map, chain_map, page_map, owner_map, queue_map, chunk_map;
	struct ssd_slot *slots;
	uint32_t *chains; /* of slots' blocks; 0: not known */
	uint8_t *pages; /* SSD_PAGE_QUEUED, SSD_PAGE_FLYING */
	uint32_t *owners; /* chunk of a page, + 1 */
	uint32_t *queue; /* ring of pages to be written */
	uint32_t queue_head, queue_nr;
	uint64_t flush_ns; /* when the queue is written at the latest */
	bool flushing; /* the end is near: all goes out at once, and is tried once */
	struct ssd_chunk *chunks;
	struct ssd_class classes[SSD_CLASSES];
	uint32_t page_hint;
	uint32_t nr_free_chunks;
	struct wfi_index index;
	struct index_salt salt;
	uint64_t seq; /* last one given */
	uint64_t first_seq; /* of this life */
	uint64_t nr_held, bytes_held, nr_retired, nr_kept;
	const struct wfi_tier_watch *watch; /* NULL: none */
	struct ssd_shares *shares;
	uint32_t steal_at; /* chunk that is looked at next when a class is to lose one */

	struct ssd_io *ios;
	struct ssd_io *free_io;
	struct ssd_fifo reads, writes, checks;
	uint32_t reads_flying, writes_flying;
	uint64_t queued_bytes; /* of reads that were asked for */
	struct wfi_map header_map; /* buffers of header pages */
	uint32_t header_page[SSD_NR_HEADER_IOS]; /* SSD_NONE: the buffer is free */
	uint32_t headers_flying;
	struct ssd_meter read_meter, write_meter;
	uint32_t errors_in_row;
	uint64_t retry_ns, retry_step_ns;

	struct ssd_drop *drops; /* blocks that were dropped before they were found */
	uint32_t nr_drops, max_drops;
	bool drop_all; /* there was no memory for more of these: then none is worth finding */
	struct wfi_map recover_map;
	uint64_t recover_next; /* page */
	uint64_t recover_start_ns, recover_ns, recovered;
	uint32_t recover_flying;
	uint32_t recover_at[SSD_RECOVER_DEPTH], recover_len[SSD_RECOVER_DEPTH]; /* pages */

	uint64_t scrub_bps, scrub_due_ns;
	uint32_t scrub_at;
	struct ssd_io *scrub;

	struct wfi_counter *count[SSD_NR_COUNTERS];
	struct wfi_counter scratch[SSD_NR_COUNTERS];
};

static inline struct ssd *to_ssd(const struct wfi_tier *t)
{
	return wfi_container_of(t, struct ssd, base);
}

static inline struct ssd_chunk *ssd_chunk_of(const struct ssd *s, uint32_t slot)
{
	return &s->chunks[s->owners[slot / SSD_PAGE_SLOTS] - 1];
}

static inline uint64_t ssd_slot_off(const struct ssd *s, uint32_t slot)
{
	const uint32_t chunk = s->owners[slot / SSD_PAGE_SLOTS] - 1;
	const struct ssd_chunk *c = &s->chunks[chunk];

	return s->data_off + chunk * s->super.chunk_bytes +
	       (uint64_t)(slot - c->first) * s->classes[c->class].stride;
}

static inline struct index_tag ssd_tag(const struct ssd *s, uint64_t space_tag,
				       const struct weft_key *key)
{
	const struct weft_key mixed = { .lo = key->lo ^ space_tag,
					.hi = key->hi ^ (space_tag << 32 | space_tag >> 32) };

	return index_tag(&s->salt, &mixed);
}

static inline void ssd_count(struct ssd *s, unsigned c, uint64_t n)
{
	wfi_count(s->count[c], n);
}

/* ---- tier_ssd.c ---- */
/* the device answered; @ret: 0 or what it said */
void wfi_ssd_answered(struct ssd *s, int ret);
void wfi_ssd_set_state(struct ssd *s, enum wfi_tier_state state, const char *why);
/* the superblock goes to the older of its copies, when the last writing of it is over */
void wfi_ssd_super_dirty(struct ssd *s);

/* ---- tier_ssd_slots.c ---- */
int wfi_ssd_slots_init(struct ssd *s);
void wfi_ssd_slots_fini(struct ssd *s);
/* Return: a slot in state SSD_FREE that is in no list; or SSD_NONE and @ret */
uint32_t wfi_ssd_slot_alloc(struct ssd *s, uint64_t space_tag, uint32_t len, int *ret);
/* Return: the slot that holds the key, or SSD_NONE */
uint32_t wfi_ssd_slot_find(const struct ssd *s, uint64_t space_tag, const struct weft_key *key,
			   const struct index_tag *tag);
/* out of the index; free when nobody reads or writes it. @retire: never used again in this life */
void wfi_ssd_slot_forget(struct ssd *s, uint32_t slot, bool retire);
void wfi_ssd_slot_unpin(struct ssd *s, uint32_t slot);
int wfi_ssd_slot_keep(struct wfi_tier *t, uint32_t slot, uint64_t most);
void wfi_ssd_slot_unkeep(struct wfi_tier *t, uint32_t slot);
/* Return: whether a header is whole, and of this place in this file */
bool wfi_ssd_header_ok(const struct ssd *s, uint32_t slot, const struct ssd_header *h);
/* takes what a page of the header area says */
void wfi_ssd_page_take(struct ssd *s, uint32_t page, const struct ssd_header *h);
void wfi_ssd_page_make(const struct ssd *s, uint32_t page, struct ssd_header *h);
/* all headers are taken: what is not held is free */
void wfi_ssd_slots_settle(struct ssd *s);
/* a block that may be found later is to be forgotten then: when all are found */
void wfi_ssd_drop_later(struct ssd *s, uint64_t space_tag, const struct weft_key *key);
void wfi_ssd_drops_settle(struct ssd *s);
/* makes a chunk free, with all that is in it. Return: 0, -EBUSY */
int wfi_ssd_chunk_release(struct ssd *s, uint32_t chunk);

/* ---- tier_ssd_share.c ---- */
int wfi_ssd_shares_init(struct ssd *s);
void wfi_ssd_shares_fini(struct ssd *s);
/* bytes of a space came or went */
void wfi_ssd_share_count(struct ssd *s, uint64_t space_tag, int64_t bytes);
/* bytes of a space are kept from eviction, or no more. Return: of its group, those that are now */
uint64_t wfi_ssd_share_keep(struct ssd *s, uint64_t space_tag, int64_t bytes);
uint64_t wfi_ssd_share(struct wfi_tier *t, uint64_t space_tag, const struct wfi_tier_share *share);
/* whether @len bytes of one space may go for as many of another. Hot */
bool wfi_ssd_share_yields(struct ssd *s, uint64_t space_tag, uint64_t to_tag, uint64_t len);

/* ---- tier_ssd_io.c ---- */
int wfi_ssd_io_init(struct ssd *s);
void wfi_ssd_io_fini(struct ssd *s);
int wfi_ssd_io_put(struct ssd *s, uint32_t slot, const void *bytes, wfi_tier_done done, void *ctx);
int wfi_ssd_io_get(struct ssd *s, uint32_t slot, void *bytes, wfi_tier_done done, void *ctx);
bool wfi_ssd_io_room(const struct ssd *s);
void wfi_ssd_page_dirty(struct ssd *s, uint32_t page);
/* Return: work done */
int wfi_ssd_io_poll(struct ssd *s);
uint64_t wfi_ssd_io_next_ns(const struct ssd *s);

#define SSD_COOKIE_HEADER (1ull << 32)
#define SSD_COOKIE_SUPER (1ull << 33)
#define SSD_COOKIE_RECOVER (1ull << 34)
#define SSD_COOKIE_PROBE (1ull << 35)
void wfi_ssd_super_done(struct ssd *s, int64_t res);
void wfi_ssd_recover_done(struct ssd *s, uint32_t idx, int64_t res);
void wfi_ssd_probe_done(struct ssd *s, int64_t res);

#endif
