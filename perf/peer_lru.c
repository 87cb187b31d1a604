/* SPDX-License-Identifier: Apache-2.0 */
/* peer_lru.c - the textbook's cache: a uthash table, and a list in order of use */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "weft/kv.h"

struct entry {
	struct weft_block_header header; /* header.key is the table's key */
	UT_hash_handle hh;
	struct entry *prev, *next; /* of the list, used last at its end */
};

struct wfi_peer_lru {
	struct entry *table;
	struct entry *list;
	struct entry *entries;
	uint64_t turn;
	uint32_t nr_puts;
};

static void fill(struct entry *e, const struct weft_key *key, uint32_t gen)
{
	e->header = (struct weft_block_header){
		.incarnation = 1,
		.key = *key,
		.space_tag = 1,
		.gen = gen,
		.version = 1,
		.len = 64,
	};
}

/* the entry evicted becomes the new one: memory is never asked for */
static void put(struct wfi_peer_lru *lru, const struct weft_key *key, struct entry *fresh)
{
	struct entry *e;

	HASH_FIND(hh, lru->table, key, sizeof(*key), e);
	if (e) {
		DL_DELETE(lru->list, e);
		DL_APPEND(lru->list, e);
		return;
	}
	e = fresh;
	if (!e) {
		e = lru->list;
		HASH_DELETE(hh, lru->table, e);
		DL_DELETE(lru->list, e);
	}
	fill(e, key, e->header.gen + 1);
	HASH_ADD(hh, lru->table, header.key, sizeof(*key), e);
	DL_APPEND(lru->list, e);
}

static struct weft_key next_key(struct wfi_peer_lru *lru)
{
	uint64_t n = lru->turn++;

	return (struct weft_key){ wfi_perf_rand(2 * n), wfi_perf_rand(2 * n + 1) };
}

int wfi_peer_lru_create(uint32_t nr_blocks, uint32_t nr_puts, struct wfi_peer_lru **out)
{
	struct wfi_peer_lru *lru = calloc(1, sizeof(*lru));
	struct weft_key key;
	uint32_t i;

	if (!lru)
		return -ENOMEM;
	lru->nr_puts = nr_puts;
	lru->entries = calloc(nr_blocks, sizeof(*lru->entries));
	if (!lru->entries) {
		free(lru);
		return -ENOMEM;
	}
	for (i = 0; i < nr_blocks; i++) {
		key = next_key(lru);
		put(lru, &key, &lru->entries[i]);
	}
	*out = lru;
	return 0;
}

void wfi_peer_lru_destroy(struct wfi_peer_lru *lru)
{
	if (!lru)
		return;
	HASH_CLEAR(hh, lru->table);
	free(lru->entries);
	free(lru);
}

int wfi_peer_lru_round(void *ctx, double *ns)
{
	struct wfi_peer_lru *lru = ctx;
	struct weft_key key;
	uint64_t start_ns = wfi_perf_now_ns();
	uint32_t i;

	for (i = 0; i < lru->nr_puts; i++) {
		key = next_key(lru);
		put(lru, &key, NULL);
	}
	*ns = (double)(wfi_perf_now_ns() - start_ns) / lru->nr_puts;
	return 0;
}
