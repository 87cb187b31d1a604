/* SPDX-License-Identifier: Apache-2.0 */
/**
 * channel.h - ordered streams of messages from one engine to another, with credits
 *
 * The receiver's node keeps a channel; its ticket names it. Whoever shows the ticket is its sender,
 * one at a time. A message is up to WFI_MESSAGE_SLOTS slots of one space, which the sender claimed
 * and filled, a length and a tag. Inside a node the slots change hands and no byte moves. To
 * another node goes a message with the places of the bytes and a CRC32C of each piece; the receiver
 * READs them into slots of its own and checks. Either engine reads and writes in place.
 *
 * A channel lends what it can hold: so many messages, so many bytes, both counted from the moment
 * that they are on their way until the receiver releases them. A sender without credit waits.
 *
 * A sender that is lost breaks the stream between two messages. The receiver takes what has
 * arrived, then hears of it; who joins next is told which message is wanted, so that none is lost
 * and none comes twice. A receiver that is gone ends its channel and its ticket.
 *
 * Context: the node's worker thread. Callbacks may come from within the call that they belong to,
 * and do not call in here.
 */
#ifndef WFI_CHANNEL_H
#define WFI_CHANNEL_H

#include <stdint.h>
#include "weft_internal/handoff.h"

#define WFI_MESSAGE_SLOTS 64u
#define WFI_CHANNEL_MSGS_MAX 1024u

/* little-endian, on the peers' message path */
enum wfi_channel_msg_type {
	WFI_MSG_CHANNEL_JOIN = 32, /* sender to receiver */
	WFI_MSG_CHANNEL_JOINED = 33, /* receiver to sender: the answer */
	WFI_MSG_CHANNEL_MESSAGE = 34, /* sender to receiver: please READ this */
	WFI_MSG_CHANNEL_STATE = 35, /* receiver to sender: what arrived, and what was released */
	WFI_MSG_CHANNEL_END = 36, /* either to the other: nothing more follows */
};

struct wfi_msg_channel_join {
	uint32_t type;
	uint32_t reserved;
	uint64_t channel; /* from the ticket */
	uint64_t incarnation;
	uint64_t secret[2];
	uint64_t space_tag;
	uint64_t sender; /* the sender's name for itself, comes back in answers */
};

struct wfi_msg_channel_joined {
	uint32_t type;
	int32_t res;
	uint64_t sender;
	uint64_t next_seq; /* of the message that is wanted first */
	uint64_t max_bytes; /* of the channel */
	uint64_t bytes; /* credit to begin with */
	uint32_t nr_msgs;
	uint32_t reserved;
};

struct wfi_msg_channel_message {
	uint32_t type;
	uint32_t nr; /* struct wfi_msg_piece that follow */
	uint64_t channel;
	uint64_t sender;
	uint64_t seq;
	uint64_t tag;
	uint64_t bytes; /* in all pieces; each but the last is a whole block */
	uint32_t timeout_us;
	uint32_t reserved;
};

/* counts since the sender joined: the last one says all that those before it said */
struct wfi_msg_channel_state {
	uint32_t type;
	uint32_t reserved;
	uint64_t sender;
	uint64_t taken; /* all messages before this one have arrived */
	uint64_t freed_msgs;
	uint64_t freed_bytes;
};

struct wfi_msg_channel_end {
	uint32_t type;
	int32_t res; /* 0: all was sent; else why not */
	uint64_t channel; /* to a receiver */
	uint64_t sender;
	uint32_t to_sender; /* 1, or 0 */
	uint32_t reserved;
};

_Static_assert(sizeof(struct wfi_msg_channel_join) == 56, "wire");
_Static_assert(sizeof(struct wfi_msg_channel_joined) == 48, "wire");
_Static_assert(sizeof(struct wfi_msg_channel_message) == 56, "wire");
_Static_assert(sizeof(struct wfi_msg_channel_state) == 40, "wire");
_Static_assert(sizeof(struct wfi_msg_channel_end) == 32, "wire");

struct wfi_channels;

struct wfi_channels_opts {
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_xfer_engine *xfer;
	struct wfi_metrics *metrics;
	uint64_t node; /* id that tickets carry */
	uint64_t slice_bytes; /* most that one poll checksums; 0: 1 MiB */
};

int wfi_channels_create(const struct wfi_channels_opts *opts, struct wfi_channels **out);
/* all owners and peers are gone (owner_gone, peer_lost). Takes NULL */
void wfi_channels_destroy(struct wfi_channels *cs);
/* Return: work done */
int wfi_channels_poll(struct wfi_channels *cs, uint64_t now_ns);
uint64_t wfi_channels_next_event_ns(const struct wfi_channels *cs);

/* ---- the receiver ---- */

struct wfi_channel_opts {
	struct wfi_owner *owner;
	uint32_t space;
	uint32_t nr_msgs; /* 1 .. WFI_CHANNEL_MSGS_MAX */
	uint64_t bytes; /* at least a block of the space */
};
/* Return: 0; -EINVAL, -ENOENT (space), -EAGAIN too many channels, -ENOMEM */
int wfi_channel_open(struct wfi_channels *cs, const struct wfi_channel_opts *opts,
		     struct weft_ticket *ticket, uint64_t *handle);

/* a message, the receiver's until wfi_channel_release() */
struct wfi_message {
	uint64_t handle;
	uint64_t seq; /* 0, 1, ... */
	uint64_t tag;
	uint64_t bytes;
	uint32_t nr;
	const struct weft_slot *slots; /* lent for the callback */
};

struct wfi_channel_recv_opts {
	struct wfi_owner *owner;
	uint64_t handle;
	uint32_t max; /* slots that there is room for */
	uint64_t deadline_ns;
	/* once when 0 was returned. @res: slots; 0 the sender has ended the stream; -ECONNRESET it
	 * was lost, and another may join; -EMSGSIZE the next message has more slots and is still
	 * there; -ETIMEDOUT, -ECANCELED. @msg: when @res > 0 */
	void (*done)(void *ctx, int res, const struct wfi_message *msg);
	void *ctx;
};
/* Return: 0; -ENOENT no channel of this owner, -ENOMEM */
int wfi_channel_recv(struct wfi_channels *cs, const struct wfi_channel_recv_opts *opts);
/* Return: slots that went back, -ENOENT not a message of this owner's */
int wfi_channel_release(struct wfi_channels *cs, const struct wfi_owner *owner, uint64_t message);

/* ---- the sender ---- */

struct wfi_channel_join_opts {
	struct wfi_owner *owner;
	uint32_t space;
	const struct weft_ticket *ticket; /* copied */
	struct wfi_peer *peer; /* of ticket->node, NULL when it is not connected */
	uint64_t now_ns;
	uint64_t deadline_ns;
	/* once when 0 was returned. @res: 0, and the number of the message that is wanted first; or
	 * as wfi_channel_join() */
	void (*done)(void *ctx, int res, uint64_t handle, uint64_t next_seq);
	void *ctx;
};
/**
 * Return: 0; -EPERM wrong secret; -ESTALE ticket of an earlier life, or a channel that is closed;
 * -EBUSY it has a sender; -EXDEV another space or tenant; -EHOSTUNREACH no connection to that node;
 * -EAGAIN too many senders; -ENOENT no such space
 */
int wfi_channel_join(struct wfi_channels *cs, const struct wfi_channel_join_opts *opts);

struct wfi_channel_send_opts {
	struct wfi_owner *owner;
	uint64_t handle;
	uint32_t nr; /* 1 .. WFI_MESSAGE_SLOTS */
	const struct weft_slot *slots; /* claimed by the owner; copied */
	uint64_t bytes; /* in all slots; all but the last are full */
	uint64_t tag;
	uint64_t now_ns;
	uint64_t deadline_ns;
	/* once when 0 was returned. @res: @nr, and the slots are the sender's no more; or an error
	 * (-ECONNRESET, -EPIPE the receiver has closed, -ETIMEDOUT, -ECANCELED, -EBADMSG) and they
	 * still are. After an error but -ETIMEDOUT for want of credit and -ECANCELED the stream is
	 * broken: join anew */
	void (*done)(void *ctx, int res);
	void *ctx;
};
/* Return: 0; -EINVAL; -EMSGSIZE more than the channel ever holds; -ESTALE slots that are not the
 * owner's claims in the channel's space; -ENOENT; -ENOMEM; or what broke the stream */
int wfi_channel_send(struct wfi_channels *cs, const struct wfi_channel_send_opts *opts);

/* ---- both ---- */

/* of a sender: what it has sent arrives first. Return: 0, -ENOENT */
int wfi_channel_close(struct wfi_channels *cs, const struct wfi_owner *owner, uint64_t handle);
/* nobody waits for the operation with this ctx any more: it ends now, or, sent already, by its
 * deadline */
void wfi_channel_cancel(struct wfi_channels *cs, const void *ctx);
/* an engine is gone: its operations end with -ECONNRESET. Its owner lives until that is done */
void wfi_channels_owner_gone(struct wfi_channels *cs, const struct wfi_owner *owner);
void wfi_channels_peer_lost(struct wfi_channels *cs, struct wfi_peer *peer);
/* Return: ends of channels in a space */
uint32_t wfi_channels_in(const struct wfi_channels *cs, uint32_t space);
/* READs over @ep that have not completed yet: it must not be destroyed before there are none */
uint32_t wfi_channels_reads_of(const struct wfi_channels *cs, const struct weft_ep *ep);
/* one message from a peer of one of the types above; input: copied by the caller, checked here.
 * Return: 0, -EPROTO drop the peer */
int wfi_channels_message(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg,
			 size_t len, uint64_t now_ns);

#endif
