/* SPDX-License-Identifier: Apache-2.0 */
/* handoff_private.h - what the receiving (handoff.c) and the sending half (push.c) share */
#ifndef WFI_HANDOFF_PRIVATE_H
#define WFI_HANDOFF_PRIVATE_H

#include <errno.h>
#include "kvcache/cluster/pace.h"
#include "kvcache/cluster/peer_read.h"
#include "weft_internal/handoff.h"
#include "weft_internal/util.h"

#define NR_HANDOFFS 1024u
#define NR_PUSHES 1024u
#define NR_READS 256u
#define NR_OUTBOUND 1024u
#define MSG_PIECES_MAX                                                                             \
	((WFI_PEER_MSG_MAX - sizeof(struct wfi_msg_shaped)) / sizeof(struct wfi_msg_piece))
/* bounds how long one message's checksums keep the worker from others, and the receiver from
 * beginning to read */
#define MSG_BYTES_MAX (512u << 10)
#define FEEDERS_MAX 64u

/* layers of a handoff come as evenly as they are computed */
struct layer_pace {
	struct pace pace;
	uint32_t layer; /* the last one */
};

enum handoff_state { HANDOFF_FREE, HANDOFF_OPEN, HANDOFF_ENDING };

/* receiver: what is expected */
struct handoff {
	uint32_t gen;
	enum handoff_state state;
	int end_res;
	bool late; /* and told so */
	uint32_t nr_reads; /* in flight */
	struct wfi_expect_opts opts; /* .keys points into mem */
	struct wfi_space_info space;
	struct wfi_tenant *tenant;
	uint64_t secret[2];
	uint64_t left; /* blocks x layers still to land */
	struct wfi_owner claims; /* slots filled by READs */
	struct wfi_peer *feeders[FEEDERS_MAX]; /* connections that push; of shapes, their sources */
	uint32_t nr_feeders;
	uint32_t nr_takes; /* of take.c, under way */
	struct layer_pace pace; /* of its pushes */
	void *mem;
	size_t mem_len;
	struct weft_key *keys;
	struct weft_slot *refs;
	uint32_t *slots; /* WFI_SLOT_NONE until the first push names the block */
	uint32_t *pushers; /* owner id of the local engine whose slot it is, 0: none */
	uint32_t *copied; /* owner id of the local engine that it is copied from, 0: none */
	uint32_t *crc; /* of the layers landed so far */
	uint16_t *named; /* next layer that a push may name */
	int32_t *results;
	struct shape *shape; /* of its blocks, when pushes of other layouts are taken; or NULL */
	struct wfi_handoff_places places; /* where .opts.places is not NULL */
};

/* receiver: one message's pieces on their way */
struct read_job {
	struct wfi_handoffs *hs;
	struct handoff *h; /* stays until its reads are over */
	struct wfi_peer *peer; /* NULL: lost meanwhile, nobody to answer */
	struct wfi_peer_read read;
	struct read_job *next_free;
	uint64_t push;
	uint32_t layer;
	uint32_t nr_layers;
	uint32_t first;
	uint32_t nr;
	bool busy;
	struct wfi_piece pieces[MSG_PIECES_MAX];
	uint32_t crc[MSG_PIECES_MAX];
	uint32_t sums[MSG_PIECES_MAX]; /* of what came */
	int32_t results[MSG_PIECES_MAX];
};

#define PUSH_PARTS 4u /* of a push out of places: on their way at once */

/* PUSH_ENDING: its engine hears of it when no copy out of its places is under way any more */
enum push_state { PUSH_FREE, PUSH_SENDING, PUSH_WAITING, PUSH_ENDING, PUSH_FENCED };

/* the sum of a block's part, as far as it has come */
struct part_sum {
	uint32_t crc;
	uint32_t layer, run; /* with a layout: where it goes on, */
	uint64_t off; /* and in that run; else in the part */
};

/* sender: one HANDOFF_PUSH for another node */
struct push {
	uint32_t gen;
	enum push_state state;
	int res;
	uint64_t serial; /* of all pushes to other nodes */
	uint32_t before; /* the place of the last one of its handoff that was sent then, */
	uint64_t before_serial; /* and its serial; 0: none */
	uint32_t sent; /* blocks named in messages so far */
	struct part_sum sum; /* of the next one, where it goes alone */
	uint32_t open_msgs; /* sent and not answered */
	struct wfi_push_opts opts; /* .slots is not used */
	struct weft_layout layout; /* where .opts.layout is not NULL */
	struct weft_layout told; /* the same, or as it is packed in slots: the receiver's to know */
	struct weft_ticket ticket;
	struct wfi_space_info space;
	uint64_t fence_ns; /* PUSH_FENCED: the receiver reads no more after this */
	struct weft_slot *slots;
	uint32_t *idx;
	void *mem;
	size_t mem_len;
	/* where .opts.places is not NULL: instead of .slots (stage.c) */
	struct wfi_handoff_places from;
	bool waits; /* for the engine's event */
	bool late; /* and told so */
	uint32_t begun; /* blocks that are in parts, or were */
	uint32_t nr_copies; /* under way */
	struct wfi_owner stage; /* claims of its parts */
	struct stage_part *parts[PUSH_PARTS];
};

/* sender: a remote handoff that is under way, so that its end can be told */
struct outbound {
	bool busy;
	uint32_t owner;
	struct wfi_peer *peer;
	uint64_t handoff;
	uint64_t incarnation;
	uint64_t secret[2];
	uint64_t left;
	uint64_t expires_ns;
	struct layer_pace pace;
};

/* an answer or an abort that met a full message queue */
struct outbox {
	struct wfi_peer *peer;
	struct wfi_msg_layers abort; /* .type ABORT: header only */
	struct wfi_msg_done done;
	uint32_t type;
};

#define NR_OUTBOX 1024u

struct wfi_handoffs {
	struct wfi_handoffs_opts opts;
	struct handoff handoffs[NR_HANDOFFS];
	struct push pushes[NR_PUSHES];
	struct outbound outbound[NR_OUTBOUND];
	struct read_job reads[NR_READS];
	struct read_job *free_reads;
	struct outbox outbox[NR_OUTBOX];
	uint32_t outbox_head, outbox_tail;
	uint32_t hi_handoffs, hi_pushes, hi_outbound; /* first never used: bounds scans */
	uint32_t nr_sending; /* pushes in PUSH_SENDING */
	uint64_t push_serial; /* the last one */
	uint64_t next_event_ns;
	uint64_t awaited_ns; /* until then a layer may come at any moment */
	struct shape_job *jobs; /* of shape.c, busy or not */
	struct place_job *copies; /* of place.c, all under way */
	uint32_t nr_copies;
	uint32_t nr_waiting; /* of those, and of pushes: for their engines' events */
	uint32_t look; /* serial of the last look at those */
	uint64_t look_ns; /* of the next one */
	struct stage_part *free_parts; /* of stage.c */
	uint32_t nr_staged; /* its slots, in use */
	struct take *takes, *free_takes; /* of take.c, as they came */
	uint32_t nr_takes, nr_taken; /* and its slots, in use */
	bool taking;
	struct wfi_run *runs; /* its scratch; NULL: no layout was asked for yet */
	struct wfi_counter *bytes_read, *bytes_straight, *bytes_by_ref, *bytes_copied;
	struct wfi_counter *pieces_bad, *nr_failed;
	struct wfi_counter scratch;
};

static inline uint64_t handoff_name(const struct wfi_handoffs *hs, const struct handoff *h)
{
	return ((uint64_t)h->gen << 32) | (uint32_t)(h - hs->handoffs);
}

static inline void wfi_handoffs_note_event(struct wfi_handoffs *hs, uint64_t when_ns)
{
	if (when_ns < hs->next_event_ns)
		hs->next_event_ns = when_ns;
}

/* what an engine is told: what did not reach its peer any more tells of the loss as what was cut
 * short does */
static inline int handoff_end_res(int res)
{
	return res == -ENOTCONN ? -ECONNRESET : res;
}

/* receiver half, called by push.c for pushes inside the node. With a layout only where they go
 * straight */
bool wfi_handoff_shapes_straight(struct wfi_handoffs *hs, const struct wfi_push_opts *opts);
int wfi_handoff_push_local(struct wfi_handoffs *hs, const struct wfi_push_opts *opts);
/* for shape.c: all layers of all blocks have landed, and .crc is known */
void wfi_handoff_whole(struct wfi_handoffs *hs, struct handoff *h, uint64_t now_ns);
/* layers are here */
void wfi_handoff_landed(struct wfi_handoffs *hs, struct handoff *h, uint32_t layer,
			uint32_t nr_layers, uint32_t first, uint32_t nr, uint64_t now_ns);
/* a READ, or a copy, that was counted in .nr_reads is over, without success */
void wfi_handoff_read_failed(struct wfi_handoffs *hs, struct handoff *h, int res);
/* a READ, or a copy, that is counted in .nr_reads does not end */
void wfi_handoff_late(struct wfi_handoffs *hs, struct handoff *h, int res);
/* slots for blocks that no push has named before. Return: 0, -errno */
int wfi_handoff_claim_slots(struct wfi_handoffs *hs, struct handoff *h, uint32_t first, uint32_t nr,
			    uint64_t now_ns);
void wfi_handoffs_answer(struct wfi_handoffs *hs, struct wfi_peer *peer, uint64_t push, int res);
/* a layer comes, or is pushed; and a look at when the next one will */
void wfi_handoff_pace(struct wfi_handoffs *hs, struct layer_pace *pace, uint32_t layer,
		      uint64_t now_ns);
void wfi_handoff_await(struct wfi_handoffs *hs, const struct pace *pace, uint64_t now_ns);
/* sends, or keeps it until the peer takes it */
void wfi_handoffs_post(struct wfi_handoffs *hs, struct wfi_peer *peer, const struct outbox *msg);

/* sender half, called by handoff.c's poll and dispatch */
int wfi_pushes_poll(struct wfi_handoffs *hs);
/* at the events that pushes wait for. Return: work done */
int wfi_pushes_look(struct wfi_handoffs *hs);
void wfi_pushes_expire(struct wfi_handoffs *hs, uint64_t now_ns);
void wfi_pushes_answer(struct wfi_handoffs *hs, struct wfi_peer *peer,
		       const struct wfi_msg_done *msg);
void wfi_pushes_owner_gone(struct wfi_handoffs *hs, uint32_t owner);
void wfi_pushes_peer_lost(struct wfi_handoffs *hs, struct wfi_peer *peer);
void wfi_pushes_fini(struct wfi_handoffs *hs);

#endif
