/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_channel.c - engines that stream messages to each other
 *
 * A message's tag tells what is in it. Tags of a stream grow from message to message, so one that
 * came twice or overtook another is seen; numbers have no gaps, so one that was lost is seen, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/sim/sim.h"

static void odd(struct sim_engine *e, const struct sim_op *op, int64_t res)
{
	sim_fail(e->sim, "engine %u: channel operation %u has the result %" PRId64, e->idx,
		 op->code, res);
}

static uint64_t in_slot(const struct sim_engine *e, uint64_t bytes, uint32_t i)
{
	return wfi_min(bytes - i * e->info.block_bytes, e->info.block_bytes);
}

static struct weft_key key_of(uint64_t tag)
{
	return (struct weft_key){ tag, ~0ull };
}

static void check(struct sim_engine *e, const struct sim_letter *l)
{
	const struct weft_key key = key_of(l->tag);
	uint32_t i;

	e->sim->report->blocks_checked += l->nr;
	for (i = 0; i < l->nr; i++)
		if (!sim_holds(e->tenant, &key, engine_slot(e, &l->slots[i]),
			       i * e->info.block_bytes, in_slot(e, l->bytes, i)))
			sim_fail(e->sim, "engine %u: message %#" PRIx64 " has wrong bytes", e->idx,
				 l->tag);
}

/* ---- receiving ---- */

static void ask_open(struct sim_engine *e)
{
	const struct weft_arg_channel arg = { .bytes = SIM_RUN * e->info.block_bytes };
	struct sim_op *op = engine_op(e, WEFT_OP_CHANNEL_OPEN, NULL);

	if (!op)
		return;
	memcpy(engine_args(e, op), &arg, sizeof(arg));
	e->inbox.busy = true;
	engine_submit(e, op, 1 + (uint32_t)sim_rand(e->sim, 4), 0);
}

static void done_open(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct sim *sim = e->sim;
	struct sim_stream *s = &sim->streams[sim->next_stream % SIM_STREAMS];

	e->inbox.busy = false;
	if (cqe->res) {
		if (cqe->res != -ENOMEM && cqe->res != -EAGAIN)
			odd(e, op, cqe->res);
		return;
	}
	e->inbox = (struct sim_inbox){ .handle = cqe->value };
	*s = (struct sim_stream){
		.uid = ++sim->next_stream, .used = true, .tenant = e->tenant, .space = e->space
	};
	memcpy(&s->ticket, engine_args(e, op), sizeof(s->ticket));
}

static void ask_recv(struct sim_engine *e)
{
	const struct sim_run run = { .nr = 1 + (uint32_t)sim_rand(e->sim, SIM_RUN) };
	struct sim_op *op;

	/* each may bring a message that has to be kept */
	if (e->inbox.nr_letters + e->inbox.nr_recvs == SIM_LETTERS)
		return;
	op = engine_op(e, WEFT_OP_CHANNEL_RECV, &run);
	if (!op)
		return;
	op->handle = e->inbox.handle;
	e->inbox.nr_recvs++;
	engine_submit(e, op, run.nr, op->handle);
}

static void done_recv(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct sim_inbox *in = &e->inbox;
	struct weft_arg_message m;
	struct sim_letter *l;

	in->nr_recvs--;
	if (cqe->res <= 0) {
		if (cqe->res && cqe->res != -ECONNRESET && cqe->res != -ETIMEDOUT &&
		    cqe->res != -EMSGSIZE && cqe->res != -ECANCELED && cqe->res != -ENOMEM &&
		    cqe->res != -ENOENT)
			odd(e, op, cqe->res);
		return;
	}
	if (cqe->res > (int32_t)op->run.nr) {
		odd(e, op, cqe->res);
		return;
	}
	memcpy(&m, engine_args(e, op), sizeof(m));
	/* the channel may be closed by now, and the message gone with it */
	if (op->handle != in->handle)
		return;
	l = &in->letters[in->nr_letters++];
	*l = (struct sim_letter){
		.handle = cqe->value, .tag = m.tag, .bytes = m.bytes, .nr = (uint32_t)cqe->res
	};
	memcpy(l->slots, (uint8_t *)engine_args(e, op) + sizeof(m), l->nr * sizeof(*l->slots));
	if (m.seq != in->next_seq++ || m.tag <= in->last_tag)
		sim_fail(e->sim,
			 "engine %u: message %" PRIu64 " with tag %#" PRIx64 " comes where %" PRIu64
			 " is due, after tag %#" PRIx64,
			 e->idx, m.seq, m.tag, in->next_seq - 1, in->last_tag);
	in->last_tag = m.tag;
	check(e, l);
	e->sim->report->messages++;
}

static void ask_release_letter(struct sim_engine *e)
{
	struct sim_inbox *in = &e->inbox;
	struct sim_letter *l = &in->letters[sim_rand(e->sim, in->nr_letters)];
	const struct sim_run run = { .nr = l->nr };
	struct sim_op *op = engine_op(e, WEFT_OP_CHANNEL_RELEASE, &run);

	if (!op)
		return;
	/* to the very end */
	check(e, l);
	engine_submit(e, op, 0, l->handle);
	*l = in->letters[--in->nr_letters];
}

static void ask_close_inbox(struct sim_engine *e)
{
	struct sim_op *op = engine_op(e, WEFT_OP_CHANNEL_CLOSE, NULL);

	if (!op)
		return;
	engine_submit(e, op, 0, e->inbox.handle);
	e->inbox = (struct sim_inbox){ .nr_recvs = e->inbox.nr_recvs };
}

void ask_inbox(struct sim_engine *e)
{
	struct sim_inbox *in = &e->inbox;

	if (in->busy)
		return;
	if (!in->handle)
		ask_open(e);
	else if (sim_chance(e->sim, 1))
		ask_close_inbox(e);
	else if (in->nr_letters && sim_chance(e->sim, 60))
		ask_release_letter(e);
	else
		ask_recv(e);
}

/* ---- sending ---- */

static struct sim_stream *stream_of(struct sim *sim, uint64_t uid)
{
	struct sim_stream *s = &sim->streams[(uid - 1) % SIM_STREAMS];

	return s->uid == uid ? s : NULL;
}

static void ask_join(struct sim_engine *e)
{
	struct sim *sim = e->sim;
	struct weft_arg_channel arg = { 0 };
	struct sim_stream *s = NULL;
	struct sim_op *op;
	uint32_t i;

	for (i = (uint32_t)sim_rand(sim, SIM_STREAMS); i < 2 * SIM_STREAMS; i++) {
		s = &sim->streams[i % SIM_STREAMS];
		if (s->used && s->tenant == e->tenant && s->space == e->space)
			break;
	}
	if (i == 2 * SIM_STREAMS)
		return;
	arg.ticket = s->ticket;
	op = engine_op(e, WEFT_OP_CHANNEL_JOIN, NULL);
	if (!op)
		return;
	op->forged = sim_chance(sim, 5);
	arg.ticket.secret[0] ^= op->forged;
	memcpy(engine_args(e, op), &arg, sizeof(arg));
	e->outbox = (struct sim_outbox){ .busy = true, .uid = s->uid };
	engine_submit(e, op, 0, 0);
}

static void done_join(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct sim_stream *s = stream_of(e->sim, e->outbox.uid);
	struct weft_arg_channel arg;

	e->outbox.busy = false;
	if (cqe->res) {
		if ((cqe->res == -ESTALE || cqe->res == -EBUSY) && s)
			s->used = false;
		return;
	}
	if (op->forged)
		odd(e, op, cqe->res);
	e->outbox.handle = cqe->value;
	e->outbox.remote = s && s->ticket.node != e->session->node->id;
	memcpy(&arg, engine_args(e, op), sizeof(arg));
	if (s && arg.seq < s->acked)
		sim_fail(e->sim,
			 "engine %u: %" PRIu64 " messages have arrived, and number %" PRIu64
			 " is wanted",
			 e->idx, s->acked, arg.seq);
}

static void ask_send(struct sim_engine *e)
{
	struct sim_run run = { .nr = 1 + (uint32_t)sim_rand(e->sim, SIM_RUN) };
	const uint64_t block = e->info.block_bytes;
	struct weft_arg_message m = {
		.bytes = (run.nr - 1) * block + 8 * (1 + sim_rand(e->sim, block / 8)),
		.tag = ++e->sim->next_tag,
	};
	const struct weft_key key = key_of(m.tag);
	struct sim_op *op = engine_op(e, WEFT_OP_CHANNEL_SEND, &run);
	uint8_t *at;
	uint32_t i;

	if (!op || !claims_take(e, op->slots, run.nr))
		return;
	for (i = 0; i < run.nr; i++)
		sim_fill(e->tenant, &key, engine_slot(e, &op->slots[i]), i * block,
			 in_slot(e, m.bytes, i));
	at = engine_args(e, op);
	memcpy(at, &m, sizeof(m));
	memcpy(at + sizeof(m), op->slots, run.nr * sizeof(*op->slots));
	op->handle = e->outbox.handle;
	engine_submit(e, op, run.nr, op->handle);
}

static void done_send(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	struct sim_stream *s = stream_of(e->sim, e->outbox.uid);
	uint32_t i;

	if (cqe->res < 0) {
		claims_return(e, op->slots, op->run.nr);
		if (cqe->res != -ETIMEDOUT && op->handle == e->outbox.handle)
			e->outbox.broken = true;
		return;
	}
	if (cqe->res != (int32_t)op->run.nr)
		odd(e, op, cqe->res);
	for (i = 0; i < op->run.nr; i++)
		claim_remove(e, &op->slots[i]);
	if (op->handle != e->outbox.handle)
		return;
	if (s)
		s->acked++;
	e->sim->report->messages_remote += e->outbox.remote;
}

static void ask_close_outbox(struct sim_engine *e)
{
	struct sim_op *op = engine_op(e, WEFT_OP_CHANNEL_CLOSE, NULL);

	if (!op)
		return;
	engine_submit(e, op, 0, e->outbox.handle);
	e->outbox.handle = 0;
}

void ask_outbox(struct sim_engine *e)
{
	struct sim_outbox *out = &e->outbox;

	if (out->busy)
		return;
	if (!out->handle)
		ask_join(e);
	else if (out->broken || sim_chance(e->sim, 2))
		ask_close_outbox(e);
	else
		ask_send(e);
}

void channel_done(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe)
{
	switch (op->code) {
	case WEFT_OP_CHANNEL_OPEN:
		done_open(e, op, cqe);
		break;
	case WEFT_OP_CHANNEL_JOIN:
		done_join(e, op, cqe);
		break;
	case WEFT_OP_CHANNEL_SEND:
		done_send(e, op, cqe);
		break;
	case WEFT_OP_CHANNEL_RECV:
		done_recv(e, op, cqe);
		break;
	case WEFT_OP_CHANNEL_RELEASE:
		/* of a channel that was closed behind it: nothing is left to release */
		if (cqe->res != (int32_t)op->run.nr && cqe->res != -ENOENT)
			odd(e, op, cqe->res);
		break;
	default:
		if (cqe->res && cqe->res != -ENOENT)
			odd(e, op, cqe->res);
		break;
	}
}
