/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gather.h - messages of small pieces: their form, and what the engine asks of a link
 *
 * A request is a struct wfi_gather_hdr, a struct wfi_gather_desc for each piece, and for a WRITE
 * the bytes of all pieces, one behind the other. Its answer is a header with what became of it, and
 * for a READ the bytes of all pieces, or of those before the one that failed. Little-endian.
 */
#ifndef WFI_TRANSPORT_GATHER_H
#define WFI_TRANSPORT_GATHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "transport/engine.h"
#include "weft_internal/gather.h"

#define WFI_GATHER_MAGIC 0x31414757u /* "WGA1" */
#define WFI_GATHER_PIECES WFI_XFER_BATCH /* a message */

enum wfi_gather_kind {
	WFI_GATHER_READ = 1,
	WFI_GATHER_WRITE = 2,
	WFI_GATHER_ANSWER = 3,
};

struct wfi_gather_hdr {
	uint32_t magic;
	uint16_t kind;
	uint16_t nr; /* pieces; answer: those before the one that failed */
	uint32_t serial; /* of the request, at its sender */
	uint32_t slot; /* of the request in the window of its sender */
	int32_t status; /* answer */
	uint32_t reserved;
};

struct wfi_gather_desc {
	uint64_t off;
	uint32_t len;
	struct wfi_gather_name name;
};

_Static_assert(sizeof(struct wfi_gather_hdr) == 24, "abi");
_Static_assert(offsetof(struct wfi_gather_hdr, status) == 16, "abi");
_Static_assert(sizeof(struct wfi_gather_desc) == 16, "abi");
_Static_assert(offsetof(struct wfi_gather_desc, name) == 12, "abi");

/* a request of ours that is not over: it was not answered yet, or its pieces may still be read */
struct wfi_gather_slot {
	uint64_t cookie; /* of the op, which may be over before its answer comes */
	uint32_t serial;
	bool busy;
	bool lent; /* until the provider says that the message is sent */
	bool answered; /* .answer waits for that */
	struct weft_wc answer;
};

/* a request of the peer's whose answer found no room */
struct wfi_gather_debt {
	struct wfi_gather_hdr hdr; /* answer to a WRITE, or the READ itself */
	struct wfi_gather_desc *descs; /* of a READ */
	bool owed;
};

struct wfi_gather_region {
	uint8_t *mem;
	uint64_t len;
	uint32_t access; /* 0: not served */
	uint16_t gen;
};

struct wfi_gather {
	struct wfi_xfer_engine *eng;
	struct weft_ep *ep;
	struct wfi_link waiting; /* transfers that wait for an answer to free a place */
	struct wfi_link owing; /* on wfi_xfer_engine.owing */
	uint32_t cq_idx; /* answers are posted when no transfer is open, too */
	uint32_t threshold;
	uint32_t msg_bytes;
	uint32_t max_pieces;
	uint32_t serial;
	uint32_t nr_busy;
	uint32_t nr_owed;
	bool lost; /* what still arrives is too late */
	uint8_t *head; /* of a message, built here, sent at once */
	struct wfi_gather_desc *descs; /* all of .debts */
	struct wfi_gather_slot slots[WFI_GATHER_WINDOW];
	struct wfi_gather_debt debts[WFI_GATHER_WINDOW]; /* by the peer's slot */
	struct wfi_gather_region regions[WFI_GATHER_REGIONS];
};

static inline bool wfi_gather_full(const struct wfi_gather *g)
{
	return g->nr_busy == WFI_GATHER_WINDOW;
}

/**
 * wfi_gather_batch - the next pieces of a range that make one message, into the engine's batch
 *
 * Moves .at on, as wfi_plan_gather() does. Return: pieces, 0 when there are none
 */
unsigned wfi_gather_batch(struct wfi_xfer *x, struct wfi_plan_range *r, uint64_t *bytes);
/* sends the @nr pieces in the engine's batch. Return: as weft_ep_post_send() */
int wfi_gather_send(struct wfi_xfer *x, unsigned nr, uint64_t cookie);
/* the message of an op is not read by the provider any more, or failed */
void wfi_gather_sent(struct wfi_gather *g, const struct weft_wc *wc);
/* a transfer ends: of its READs that are under way nothing lands any more */
void wfi_gather_forget(struct wfi_xfer *x);
/* the endpoint is gone: all that is under way ends, each transfer with @status */
void wfi_gather_lost(struct wfi_gather *g, int status);
/* answers that found no room. Return: how many went */
int wfi_gather_pay(struct wfi_xfer_engine *eng);

/* what copying costs here, for the threshold. Return: 0, -ENOMEM */
int wfi_gather_measure(struct wfi_env *env, uint64_t *ns_per_piece, uint64_t *ns_per_mib);
/* Return: bytes below which a piece is cheaper in a message with others than posted by itself */
uint32_t wfi_gather_limit(const struct weft_caps *caps, uint32_t msg_bytes, uint64_t ns_per_piece,
			  uint64_t ns_per_mib);

#endif
