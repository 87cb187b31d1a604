/* SPDX-License-Identifier: Apache-2.0 */
/* channel_private.h - what the receiving (channel.c) and the sending half (channel_send.c) share */
#ifndef WFI_CHANNEL_PRIVATE_H
#define WFI_CHANNEL_PRIVATE_H

#include <stdbool.h>
#include "kvcache/cluster/peer_read.h"
#include "weft_internal/channel.h"
#include "weft_internal/util.h"

#define NR_CHANNELS 1024u
#define NR_SENDERS 1024u
#define GEN_MASK 0x7fffffffu
#define SENDER_HANDLE (1ull << 63) /* set in handles of senders, not in those of channels */

struct sender;
struct channel;

/* receiver: one message */
enum arrival_state {
	ARRIVAL_READING,
	ARRIVAL_READY,
	ARRIVAL_FAILED,
	ARRIVAL_LENT, /* the engine reads it */
	ARRIVAL_DOOMED, /* of no use any more, and not fenced yet */
};

struct arrival {
	struct channel *ch;
	struct arrival *next; /* on a list of the channel */
	enum arrival_state state;
	uint32_t serial; /* makes its handle one that was not used before */
	uint32_t nr;
	uint64_t seq;
	uint64_t tag;
	uint64_t bytes;
	struct wfi_peer_read read;
	struct weft_slot slots[WFI_MESSAGE_SLOTS];
	uint32_t idx[WFI_MESSAGE_SLOTS];
	struct wfi_piece pieces[WFI_MESSAGE_SLOTS];
	int32_t results[WFI_MESSAGE_SLOTS];
	uint32_t crc[WFI_MESSAGE_SLOTS]; /* as the sender says */
	uint32_t sums[WFI_MESSAGE_SLOTS]; /* as it came */
};

/* receiver: an operation that waits for a message */
struct receipt {
	struct receipt *next;
	struct wfi_channel_recv_opts opts;
};

enum channel_state { CHANNEL_FREE, CHANNEL_OPEN, CHANNEL_ENDING };

struct channel {
	struct wfi_channels *cs;
	uint32_t idx;
	uint32_t gen;
	enum channel_state state;
	struct wfi_owner *owner;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner claims; /* the slots of all messages */
	uint64_t secret[2];
	uint64_t max_bytes, bytes; /* in use */
	uint32_t max_msgs, nr_msgs;
	uint32_t nr_reads; /* that are not fenced yet */
	uint64_t next_seq; /* of the message to come */
	struct arrival *queue, **queue_end; /* by .seq: on their way, or here */
	struct arrival *lent;
	struct arrival *doomed;
	struct arrival *spare;
	struct receipt *receipts, **receipts_end;
	bool ended; /* nobody sends: to be told behind the queue */
	int end_res;
	/* the sender, while there is one: local, or .peer with a name */
	bool joined;
	struct sender *local;
	struct wfi_peer *peer;
	uint64_t sender;
	uint64_t freed_msgs, freed_bytes; /* since it joined */
	/* to be said to the peer as soon as it takes it */
	bool owe_joined, owe_state, owe_end;
	struct wfi_peer *end_peer;
	struct wfi_msg_channel_joined say_joined;
	struct wfi_msg_channel_end say_end;
};

/* sender: one message */
enum outgoing_state { OUTGOING_WAITING, OUTGOING_SENT, OUTGOING_FENCED };

struct outgoing {
	struct outgoing *next;
	enum outgoing_state state;
	bool pinned;
	uint32_t nr;
	uint32_t summed; /* slots that have a checksum */
	uint64_t seq;
	uint64_t bytes;
	uint64_t tag;
	uint64_t deadline_ns;
	void (*done)(void *ctx, int res);
	void *ctx;
	struct weft_slot slots[WFI_MESSAGE_SLOTS];
	uint32_t idx[WFI_MESSAGE_SLOTS];
	uint32_t crc[WFI_MESSAGE_SLOTS];
};

enum sender_state { SENDER_FREE, SENDER_JOINING, SENDER_OPEN, SENDER_BROKEN, SENDER_CLOSING };

struct sender {
	struct wfi_channels *cs;
	uint32_t idx;
	uint32_t gen;
	enum sender_state state;
	struct wfi_owner *owner; /* NULL: gone */
	struct wfi_space_info space;
	struct weft_ticket ticket;
	struct channel *local; /* or .peer */
	struct wfi_peer *peer;
	int end_res; /* SENDER_BROKEN: why */
	uint64_t next_seq;
	uint64_t max_bytes;
	uint64_t bytes, nr_msgs; /* credit */
	uint64_t freed_msgs, freed_bytes; /* as the receiver said last */
	struct outgoing *queue, **queue_end; /* sent ones first */
	struct outgoing *fenced; /* over for the engine; the receiver may still read */
	struct wfi_channel_join_opts join; /* SENDER_JOINING */
	bool owe_join, owe_end;
	struct wfi_msg_channel_end say_end;
};

struct wfi_channels {
	struct wfi_channels_opts opts;
	struct channel *channels[NR_CHANNELS];
	struct sender *senders[NR_SENDERS];
	uint32_t hi_channels, hi_senders; /* first never used */
	uint32_t serial;
	struct receipt *free_receipts;
	struct outgoing *free_outgoing;
	bool busy; /* something is to be said, or summed up */
	uint64_t next_event_ns;
	struct wfi_counter *nr_messages, *bytes_read, *bytes_by_ref, *bad, *nr_broken;
	struct wfi_counter scratch;
};

static inline uint64_t channel_name(uint32_t gen, uint32_t idx)
{
	return (uint64_t)gen << 32 | idx;
}

static inline void channels_note_event(struct wfi_channels *cs, uint64_t when_ns)
{
	if (when_ns < cs->next_event_ns)
		cs->next_event_ns = when_ns;
}

/* ---- channel.c: the receiving half ---- */

/* a sender of this node joins. Return: 0, and the channel with @s as its sender; -errno */
int channel_join_local(struct wfi_channels *cs, struct sender *s,
		       const struct wfi_channel_join_opts *o);
/* a message whose slots are claims of the sender's. Return: 0, -errno */
int channel_take_local(struct channel *ch, struct outgoing *o);
/* the local sender is gone: 0 it has sent all, else why not */
void channel_sender_gone(struct channel *ch, int res);
int channel_answer(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg, size_t len,
		   uint64_t now_ns);
int channels_say(struct wfi_channels *cs);
void channels_expire(struct wfi_channels *cs, uint64_t now_ns);
void channels_drop(struct wfi_channels *cs);

/* ---- channel_send.c: the sending half ---- */

/* what the local receiver has released */
void sender_credit(struct sender *s, uint64_t freed_msgs, uint64_t freed_bytes);
/* the stream is broken, or its receiver has closed it; nothing is said there. @safe: the receiver
 * reads no more */
void sender_break(struct sender *s, int res, bool safe);
int sender_answer(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg, size_t len);
int senders_say(struct wfi_channels *cs, uint64_t now_ns);
void senders_expire(struct wfi_channels *cs, uint64_t now_ns);
int sender_close(struct wfi_channels *cs, const struct wfi_owner *owner, uint64_t handle);
void senders_cancel(struct wfi_channels *cs, const void *ctx);
void senders_owner_gone(struct wfi_channels *cs, const struct wfi_owner *owner);
void senders_peer_lost(struct wfi_channels *cs, struct wfi_peer *peer);
void senders_drop(struct wfi_channels *cs);

#endif
