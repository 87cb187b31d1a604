/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wire.h - what nodes tell each other about blocks; on the peers' message path, beside handoffs
 *
 * A message is a head, a fixed part, and items. All is little-endian, holes are named and zero, and
 * the head says the whole length. cluster_msg_take() is the one way in: it copies a message once,
 * and what it accepts has a known type, a version, flags and lengths that fit together. Numbers
 * within are for whoever uses them to check.
 *
 *	LEASE       keys: lend me these blocks             answered by LEASED
 *	LEASED      proofs: where they are, as many as there were keys
 *	RELEASE     leases that are no more needed
 *	LOOKUP      tags: who has these?                   answered by LOOKED
 *	LOOKED      runs
 *	WHO         tags: all who have any of these?       answered by HELD
 *	HELD        runs, of each holder in order
 *	PROBE       sources: how long would these take you?  answered by PROBED
 *	PROBED      that, and how busy who answers is
 *	ANNOUNCE    changes: what I have and have no more; the head's id counts up from 0
 *	ANNOUNCED   the same id; with CLUSTER_F_AGAIN: say all of it again
 *	OFFER       keys, in the order of a chain: hold these as well
 *	TAKEN       an offer is over, whatever came of it
 *	SPEED       how long what lies in my SSD tier takes to come
 */
#ifndef WFI_CLUSTER_WIRE_H
#define WFI_CLUSTER_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft_internal/cluster.h"
#include "weft_internal/handoff.h"

#define CLUSTER_VERSION 3u
#define CLUSTER_TYPE_FIRST WFI_CLUSTER_MSG_FIRST

enum cluster_type {
	CLUSTER_LEASE = CLUSTER_TYPE_FIRST,
	CLUSTER_LEASED,
	CLUSTER_RELEASE,
	CLUSTER_LOOKUP,
	CLUSTER_LOOKED,
	CLUSTER_ANNOUNCE,
	CLUSTER_ANNOUNCED,
	CLUSTER_OFFER,
	CLUSTER_TAKEN,
	CLUSTER_WHO,
	CLUSTER_HELD,
	CLUSTER_PROBE,
	CLUSTER_PROBED,
	CLUSTER_SPEED,
	CLUSTER_TYPE_END,
};

enum cluster_flags {
	CLUSTER_F_FIRST = 1u << 0, /* ANNOUNCE: forget what I said before. The id is 0 */
	CLUSTER_F_AGAIN = 1u << 1, /* ANNOUNCED */
};

struct cluster_head {
	uint32_t type;
	uint16_t version;
	uint16_t nr; /* items */
	uint32_t len; /* of the whole message */
	uint32_t flags;
	uint64_t id; /* of who asks; comes back in the answer */
};

struct cluster_lease {
	struct cluster_head head;
	uint64_t incarnation; /* of the life that is asked */
	uint64_t space_tag;
	uint32_t lease_us; /* for how long */
	uint32_t fetch_us; /* what lies in its SSD tier and takes longer to come is not wanted */
	struct weft_key keys[];
};

/* a block that is held, by its header: kvcache.h */
struct cluster_proof {
	uint64_t off; /* in the tenant's arena */
	uint32_t gen; /* 0: not lent */
	uint32_t born;
	uint32_t crc;
	uint32_t flags;
};

enum cluster_proof_flags {
	CLUSTER_PROOF_LATE = 1u << 0, /* not lent: it lies in the SSD tier, and would come late */
};

struct cluster_leased {
	struct cluster_head head;
	uint64_t incarnation;
	uint64_t lease; /* 0: none */
	int32_t res; /* blocks lent, or negative errno */
	uint32_t lease_us;
	struct cluster_proof proofs[];
};

struct cluster_release {
	struct cluster_head head;
	uint64_t leases[];
};

struct cluster_tags { /* LOOKUP, WHO; ANNOUNCE: with marks of directory.h */
	struct cluster_head head;
	uint64_t tags[];
};

enum cluster_run_flags {
	CLUSTER_RUN_SSD = 1u << 0, /* .node has them in its SSD tier */
	CLUSTER_RUN_OTHER_SSD = 1u << 1,
};

struct cluster_run {
	uint64_t node;
	uint64_t other; /* one more that has all of them, 0: none, or of HELD */
	uint16_t first;
	uint16_t nr;
	uint16_t flags;
	uint16_t reserved;
};

struct cluster_looked { /* LOOKED, HELD */
	struct cluster_head head;
	struct cluster_run runs[];
};

enum cluster_offer_flags {
	CLUSTER_OFFER_SSD = 1u << 0, /* they lie in the SSD tier of who offers them */
};

struct cluster_offer {
	struct cluster_head head;
	struct wfi_geometry geometry; /* the space may not be open where they go */
	uint32_t chain; /* what its place in the directory follows from */
	uint32_t flags; /* others are of no meaning */
	struct weft_key parent; /* of the first, or zero */
	struct weft_key keys[];
};

/* bytes that a node would have to get of another one, some of them out of its SSD tier */
struct cluster_source {
	uint64_t node;
	uint64_t bytes;
	uint64_t ssd_bytes;
};

struct cluster_probe {
	struct cluster_head head;
	uint64_t ssd_bytes; /* and of its own */
	struct cluster_source sources[];
};

struct cluster_speed {
	struct cluster_head head;
	uint64_t bytes_per_ms; /* 0: it gives nothing now */
	uint64_t queued_bytes; /* that were asked for before */
	uint32_t latency_us;
	uint32_t reserved;
};

enum cluster_probed_flags {
	CLUSTER_PROBED_DRAINING = 1u << 0,
};

struct cluster_probed {
	struct cluster_head head;
	uint64_t reached; /* a bit for each source that it is connected to */
	uint64_t bytes_per_s; /* of the links to them, as measured; 0: not yet */
	uint32_t fetch_us; /* all of these sources */
	uint32_t ssd_us;
	uint32_t load; /* of 1000 */
	uint32_t nr_ops;
	uint32_t flags;
	uint32_t reserved;
};

_Static_assert(sizeof(struct wfi_geometry) == 304, "wire");
_Static_assert(sizeof(struct cluster_offer) == 352, "wire");
_Static_assert(sizeof(struct cluster_head) == 24, "wire");
_Static_assert(sizeof(struct cluster_lease) == 48, "wire");
_Static_assert(sizeof(struct cluster_proof) == 24, "wire");
_Static_assert(sizeof(struct cluster_leased) == 48, "wire");
_Static_assert(sizeof(struct cluster_release) == 24, "wire");
_Static_assert(sizeof(struct cluster_tags) == 24, "wire");
_Static_assert(sizeof(struct cluster_run) == 24, "wire");
_Static_assert(sizeof(struct cluster_source) == 24, "wire");
_Static_assert(sizeof(struct cluster_probe) == 32, "wire");
_Static_assert(sizeof(struct cluster_probed) == 64, "wire");
_Static_assert(sizeof(struct cluster_speed) == 48, "wire");

/* one message, whatever it is */
union cluster_msg {
	struct cluster_head head;
	struct cluster_lease lease;
	struct cluster_leased leased;
	struct cluster_release release;
	struct cluster_tags tags;
	struct cluster_looked looked;
	struct cluster_offer offer;
	struct cluster_probe probe;
	struct cluster_probed probed;
	struct cluster_speed speed;
	uint64_t words[WFI_PEER_MSG_MAX / sizeof(uint64_t)];
};

#define CLUSTER_ROOM(fixed, item) ((WFI_PEER_MSG_MAX - sizeof(fixed)) / sizeof(item))
/* blocks of one lease: what its answer has room for */
#define CLUSTER_LEASE_MAX CLUSTER_ROOM(struct cluster_leased, struct cluster_proof)
#define CLUSTER_TAGS_MAX CLUSTER_ROOM(struct cluster_tags, uint64_t)
#define CLUSTER_RUNS_MAX CLUSTER_ROOM(struct cluster_looked, struct cluster_run)
#define CLUSTER_OFFER_MAX 128u
#define CLUSTER_SOURCES_MAX WFI_CLUSTER_PEERS
#define CLUSTER_RELEASES_MAX CLUSTER_ROOM(struct cluster_release, uint64_t)

/* fills the head of @type with @nr items; what is between it and the items is the caller's.
 * Return: bytes of the whole message */
size_t cluster_msg_head(union cluster_msg *m, enum cluster_type type, uint32_t nr, uint64_t id);
/* a message that has come: copied, then checked. Hot. Return: 0, -EPROTO */
int cluster_msg_take(union cluster_msg *m, const void *msg, size_t len);

#endif
