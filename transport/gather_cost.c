/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When is a piece cheaper in a message? Posted by itself it costs what the provider says, and its
 * bytes on the wire. In a message it costs two copies, a descriptor, and its share of the message
 * and of the answer, which cost about a post each.
 */
#include <errno.h>
#include <string.h>
#include "transport/gather.h"

#define AREA (256u << 10) /* as large as what lies around in a cache of second level */
#define SMALL 64u
#define PAGE 4096u
#define ROUNDS 3u
#define MIB_LOG2 20u

/* ns for all of the area, in pieces of @len that come from far apart; the best of some rounds */
static uint64_t time_copies(struct wfi_env *env, uint8_t *to, const uint8_t *from, uint32_t len)
{
	uint64_t start_ns, best = UINT64_MAX;
	uint32_t round, off, page;

	for (round = 0; round < ROUNDS; round++) {
		start_ns = wfi_now(env);
		for (off = 0; off < PAGE; off += len)
			for (page = 0; page < AREA; page += PAGE, to += len)
				memcpy(to, from + page + off, len);
		best = wfi_min(best, wfi_now(env) - start_ns);
		to -= AREA;
	}
	return best;
}

int wfi_gather_measure(struct wfi_env *env, uint64_t *ns_per_piece, uint64_t *ns_per_mib)
{
	uint8_t *area = wfi_alloc(env, 2ull * AREA);

	if (!area)
		return -ENOMEM;
	*ns_per_piece = time_copies(env, area, area + AREA, SMALL) / (AREA / SMALL);
	*ns_per_mib = time_copies(env, area, area + AREA, PAGE / 4) * ((1u << MIB_LOG2) / AREA);
	wfi_free(env, area, 2ull * AREA);
	return 0;
}

uint32_t wfi_gather_limit(const struct weft_caps *caps, uint32_t room, uint64_t ns_per_piece,
			  uint64_t ns_per_mib)
{
	const uint64_t sane = 1ull << 40, desc = sizeof(struct wfi_gather_desc);
	/* ns per MiB, all of them */
	uint64_t share = ((2ull * caps->cost_per_piece_ns) << MIB_LOG2) / room;
	uint64_t per_desc = share + wfi_min(caps->cost_per_mib_ns, sane);
	uint64_t per_byte = share + 2 * wfi_min(ns_per_mib, sane);
	uint64_t gain = (uint64_t)caps->cost_per_piece_ns << MIB_LOG2;
	uint64_t loss = (wfi_min(ns_per_piece, sane >> MIB_LOG2) << MIB_LOG2) + desc * per_desc;

	return gain > loss ? (uint32_t)wfi_min((gain - loss) / per_byte, room - desc) : 0;
}
