/* SPDX-License-Identifier: Apache-2.0 */
/* client_res.c - what a completion's error means for the operation that it ends, and what to do */
#include <errno.h>
#include <string.h>
#include "weft_internal/client.h"
#include "weft_internal/util.h"

#define OP(name) (1u << WEFT_OP_##name)
#define CHANNELS                                                                                   \
	(OP(CHANNEL_OPEN) | OP(CHANNEL_JOIN) | OP(CHANNEL_SEND) | OP(CHANNEL_RECV) |               \
	 OP(CHANNEL_RELEASE) | OP(CHANNEL_CLOSE))
#define TICKETS (OP(HANDOFF_PUSH) | OP(CHANNEL_JOIN))
#define SLOTS (OP(PUT) | OP(CHANNEL_SEND))
#define ANY (~0u)

static const struct {
	uint32_t ops;
	int err;
	const char *why;
} reasons[] = {
	{ OP(CLAIM) | OP(PUT), ENOSPC,
	  "no slot is free and nothing can be evicted: blocks are leased or claimed, or the arena "
	  "is too small" },
	{ OP(PUT), EINVAL,
	  "a key of zeros names no block; or a place, or the event, is not this session's" },
	{ OP(PUT), EAGAIN, "too many puts wait for events: take completions, then put again" },
	{ OP(GET), EINVAL,
	  "a place is not in a region of this session, ends behind it, has not a block's length, "
	  "or places are in host memory and on a GPU at once" },
	{ OP(MATCH) | OP(MAP), EDQUOT,
	  "more is leased than this engine, or its tenant, may have: release what is not needed, "
	  "or match without a lease" },
	{ OP(RELEASE), ENOENT, "there is no such lease: it was released, or has ended by itself" },
	{ SLOTS, ESTALE,
	  "a slot is not claimed by this session: what was published, sent or "
	  "released is not the engine's any more" },
	{ OP(HANDOFF_EXPECT), EINVAL,
	  "nr_layers is 0 or does not divide a block's bytes, there are more than 8192 blocks, or "
	  "a place or the layout does not fit the space" },
	{ OP(HANDOFF_EXPECT), EAGAIN,
	  "too many handoffs are expected in this node: wait for some" },
	{ OP(HANDOFF_PUSH), EINVAL,
	  "blocks and layers are not among those that the ticket's engine expects: each block's "
	  "layers come once, in order, from one slot" },
	{ OP(HANDOFF_PUSH), ESTALE,
	  "the handoff has ended, or its node has, or a slot is neither claimed nor leased by this "
	  "session: have the receiver expect anew" },
	{ OP(HANDOFF_CANCEL), ENOENT, "there is no such handoff: it has ended" },
	{ OP(HANDOFF_EXPECT) | OP(HANDOFF_PUSH), ECANCELED,
	  "the receiver has given the handoff up" },
	{ TICKETS, EPERM, "the ticket's secret is wrong: hand tickets on as they were given" },
	{ TICKETS, EHOSTUNREACH,
	  "the ticket's node is not connected to this one: weft status shows its peers" },
	{ TICKETS, EXDEV,
	  "the ticket is of another space or tenant: both engines open the space with "
	  "equal options" },
	{ OP(CHANNEL_OPEN), EINVAL,
	  "a channel takes 1 to 1024 messages, and at least a block's bytes" },
	{ OP(CHANNEL_OPEN), EAGAIN, "too many channels are open in this node: close some" },
	{ OP(CHANNEL_JOIN), ESTALE, "the channel was closed, or its node has ended" },
	{ OP(CHANNEL_JOIN), EBUSY, "the channel has a sender: one at a time" },
	{ OP(CHANNEL_RELEASE), ENOENT, "there is no such message: it was released" },
	{ CHANNELS, ENOENT, "this session has no such channel, or its other end: it was closed" },
	{ OP(CHANNEL_SEND), EINVAL,
	  "a message has 1 to 64 slots, and bytes that fill all but the last" },
	{ OP(CHANNEL_RECV), EINVAL, "a message has 1 to 64 slots: give room for so many" },
	{ OP(CHANNEL_SEND), EMSGSIZE,
	  "the message is larger than the channel: have the receiver open it with more bytes" },
	{ OP(CHANNEL_RECV), EMSGSIZE,
	  "the message has more slots than there is room for: it waits" },
	{ OP(CHANNEL_SEND), ENOSPC, "the receiver's node has no room: join anew later" },
	{ OP(CHANNEL_SEND), ETIMEDOUT,
	  "no credit came by the deadline: the receiver has not released what it has" },
	{ OP(CHANNEL_SEND) | OP(CHANNEL_JOIN), EPIPE, "the receiver has closed the channel" },
	{ OP(CHANNEL_RECV), ETIMEDOUT, "no message came by the deadline" },
	{ OP(CHANNEL_RECV), ECONNRESET, "the sender was lost: another may join, and goes on" },
	{ OP(CHANNEL_SEND), ECONNRESET,
	  "the receiver was lost, or the node: close, and join anew" },
	{ ANY, ETIMEDOUT,
	  "it was not done by its deadline: weft_op.timeout_us, else op_timeout_ms of the node" },
	{ ANY, ECANCELED, "it was cancelled" },
	{ ANY, ECONNRESET, "the node is gone: weft_reattach()" },
	{ ANY, ENOENT, "the space was removed: open it again" },
	{ ANY, ENOMEM, "the node has no memory for it: its log says more" },
	{ ANY, EFAULT, "its arguments are not in the ring's argument area" },
	{ ANY, EOPNOTSUPP, "this node has no such operation, or not with these places" },
	{ ANY, EINVAL, "a field or flag is not as weft/ring.h says for this opcode" },
};

const char *weft_completion_why(const struct weft_completion *completion)
{
	const uint32_t op = 1u << (completion->op % 32);
	const char *text = NULL;
	unsigned i;

	if (completion->res >= 0)
		return "no error";
	for (i = 0; i < WFI_ARRAY_SIZE(reasons); i++)
		if (completion->res == -reasons[i].err && reasons[i].ops & op)
			return reasons[i].why;
	/* whatever a node says is no reason to overflow; and strerror() writes some of its texts
	 * anew with each call */
	if (completion->res > INT32_MIN)
		text = strerrordesc_np(-completion->res);
	return text ? text : "the node gave an error that this host does not know";
}
