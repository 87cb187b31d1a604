/* SPDX-License-Identifier: Apache-2.0 */
/* client_channel.c - the blocking calls of channels */
#include <errno.h>
#include "ring/client_priv.h"

int weft_channel_open(struct weft_ring *ring, const struct weft_space *space, unsigned nr,
		      uint64_t bytes, struct weft_ticket *ticket, uint64_t *channel)
{
	struct weft_message message = { .bytes = bytes };
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_OPEN,
				    .space = space,
				    .nr = nr,
				    .ticket = ticket,
				    .message = &message };
	struct weft_completion cpl;
	int ret = weft_call(ring, &op, &cpl);

	if (ret >= 0)
		*channel = cpl.handle;
	return ret;
}

int weft_channel_join(struct weft_ring *ring, const struct weft_space *space,
		      const struct weft_ticket *ticket, uint64_t *channel, uint64_t *next_seq)
{
	struct weft_message message = { 0 };
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_JOIN,
				    .space = space,
				    /* only read */
				    .ticket = (struct weft_ticket *)(uintptr_t)ticket,
				    .message = &message };
	struct weft_completion cpl;
	int ret = weft_call(ring, &op, &cpl);

	if (ret < 0)
		return ret;
	*channel = cpl.handle;
	if (next_seq)
		*next_seq = message.seq;
	return ret;
}

int weft_channel_send(struct weft_ring *ring, uint64_t channel, const struct weft_slot *slots,
		      unsigned nr, uint64_t bytes, uint64_t tag)
{
	struct weft_message message = { .bytes = bytes, .tag = tag };
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_SEND,
				    .handle = channel,
				    .nr = nr,
				    /* only read */
				    .slots = (struct weft_slot *)(uintptr_t)slots,
				    .message = &message };

	return weft_call(ring, &op, NULL);
}

int weft_channel_recv(struct weft_ring *ring, uint64_t channel, struct weft_slot *slots,
		      unsigned nr, struct weft_message *info, uint64_t *message)
{
	struct weft_message none;
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_RECV,
				    .handle = channel,
				    .nr = nr,
				    .slots = slots,
				    .message = info ? info : &none };
	struct weft_completion cpl;
	int ret = weft_call(ring, &op, &cpl);

	if (ret >= 0)
		*message = cpl.handle;
	return ret;
}

int weft_channel_release(struct weft_ring *ring, uint64_t message)
{
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_RELEASE, .handle = message };

	return weft_call(ring, &op, NULL);
}

int weft_channel_close(struct weft_ring *ring, uint64_t channel)
{
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_CLOSE, .handle = channel };

	return weft_call(ring, &op, NULL);
}
