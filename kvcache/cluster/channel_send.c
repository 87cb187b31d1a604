/* SPDX-License-Identifier: Apache-2.0 */
/* channel_send.c - the sending half of channels, and what both halves are made and polled by */
#include <errno.h>
#include <string.h>

#include "channel_private.h"
#include "weft_internal/log.h"

/* after its deadline a receiver may still be in the middle of a READ for this long */
#define FENCE_GRACE_NS (100 * WFI_NSEC_PER_MSEC)
#define RETRY_NS WFI_NSEC_PER_MSEC /* from one try to say something to the next */

/* ---- all channels of a node ---- */

static struct wfi_counter *counter(struct wfi_channels *cs, const char *name, const char *labels,
				   const char *unit, const char *help)
{
	struct wfi_counter *c = NULL;

	if (cs->opts.metrics)
		c = wfi_metrics_counter(cs->opts.metrics, name, labels, unit, help);
	return c ? c : &cs->scratch;
}

int wfi_channels_create(const struct wfi_channels_opts *opts, struct wfi_channels **out)
{
	struct wfi_channels *cs = wfi_alloc(opts->env, sizeof(*cs));

	if (!cs)
		return -ENOMEM;
	cs->opts = *opts;
	if (!cs->opts.slice_bytes)
		cs->opts.slice_bytes = 1u << 20;
	cs->next_event_ns = UINT64_MAX;
	cs->nr_messages = counter(cs, "weft_channel_messages", "", "", "Messages received");
	cs->bytes_read = counter(cs, "weft_channel_read", "", "bytes",
				 "Bytes of messages read from other nodes");
	cs->bytes_by_ref = counter(cs, "weft_channel_by_reference", "", "bytes",
				   "Bytes of messages that no byte was moved for");
	cs->bad = counter(cs, "weft_verify_failures", "kind=\"channel\"", "",
			  "Blocks whose check failed");
	cs->nr_broken = counter(cs, "weft_channel_breaks", "", "",
				"Streams that broke between two messages");
	*out = cs;
	return 0;
}

void wfi_channels_destroy(struct wfi_channels *cs)
{
	if (!cs)
		return;
	senders_drop(cs);
	channels_drop(cs);
	wfi_free(cs->opts.env, cs, sizeof(*cs));
}

int wfi_channels_poll(struct wfi_channels *cs, uint64_t now_ns)
{
	int work = 0;

	if (cs->busy) {
		cs->busy = false;
		work += channels_say(cs);
		work += senders_say(cs, now_ns);
	}
	if (now_ns >= cs->next_event_ns) {
		cs->next_event_ns = UINT64_MAX;
		channels_expire(cs, now_ns);
		senders_expire(cs, now_ns);
	}
	return work;
}

uint64_t wfi_channels_next_event_ns(const struct wfi_channels *cs)
{
	/* nobody rings when a peer takes messages again */
	if (cs->busy)
		return wfi_min(cs->next_event_ns, wfi_now(cs->opts.env) + RETRY_NS);
	return cs->next_event_ns;
}

int wfi_channels_message(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg,
			 size_t len, uint64_t now_ns)
{
	struct wfi_msg_channel_end end;
	uint32_t type;

	if (len < sizeof(type))
		return -EPROTO;
	memcpy(&type, msg, sizeof(type));
	if (type == WFI_MSG_CHANNEL_JOINED || type == WFI_MSG_CHANNEL_STATE)
		return sender_answer(cs, peer, msg, len);
	if (type == WFI_MSG_CHANNEL_END && len == sizeof(end)) {
		memcpy(&end, msg, sizeof(end));
		if (end.to_sender)
			return sender_answer(cs, peer, msg, len);
	}
	return channel_answer(cs, peer, msg, len, now_ns);
}

/* ---- messages to send: allocated once, then recycled ---- */

static struct outgoing *outgoing_get(struct wfi_channels *cs)
{
	struct outgoing *o = cs->free_outgoing;

	if (!o)
		return wfi_alloc(cs->opts.env, sizeof(*o));
	cs->free_outgoing = o->next;
	return o;
}

static void outgoing_put(struct wfi_channels *cs, struct outgoing *o)
{
	o->next = cs->free_outgoing;
	cs->free_outgoing = o;
}

static struct outgoing *outgoing_pop(struct sender *s)
{
	struct outgoing *o = s->queue;

	s->queue = o->next;
	if (!s->queue)
		s->queue_end = &s->queue;
	return o;
}

/* tells the engine. @safe: the receiver reads no more; else its slots stay pinned for a while */
static void outgoing_end(struct sender *s, struct outgoing *o, int res, bool safe)
{
	struct wfi_channels *cs = s->cs;
	void (*done)(void *ctx, int res) = o->done;
	void *ctx = o->ctx;

	if (s->peer && res > 0)
		wfi_kv_unclaim(cs->opts.kv, s->owner, o->slots, o->nr);
	if (o->state == OUTGOING_SENT && !safe) {
		o->state = OUTGOING_FENCED;
		o->deadline_ns += FENCE_GRACE_NS;
		channels_note_event(cs, o->deadline_ns);
		o->next = s->fenced;
		s->fenced = o;
	} else {
		if (o->pinned)
			wfi_kv_unpin(cs->opts.kv, o->idx, o->nr);
		outgoing_put(cs, o);
	}
	done(ctx, res);
}

/* ---- the life of a sender ---- */

static struct sender *sender_at(struct wfi_channels *cs, uint64_t handle)
{
	uint32_t idx = (uint32_t)handle;
	struct sender *s = idx < cs->hi_senders ? cs->senders[idx] : NULL;

	return s && s->state != SENDER_FREE && (s->gen | 1u << 31) == handle >> 32 ? s : NULL;
}

static uint64_t sender_handle(const struct sender *s)
{
	return SENDER_HANDLE | channel_name(s->gen, s->idx);
}

static struct sender *sender_claim(struct wfi_channels *cs)
{
	struct sender *s;
	uint32_t i;

	for (i = 0; i < NR_SENDERS; i++) {
		s = cs->senders[i];
		if (!s) {
			s = wfi_alloc(cs->opts.env, sizeof(*s));
			if (!s)
				return NULL;
			s->cs = cs;
			s->idx = i;
			cs->senders[i] = s;
			cs->hi_senders = i + 1;
		}
		if (s->state == SENDER_FREE)
			return s;
	}
	return NULL;
}

/* when nothing is left that needs it */
static void sender_settle(struct sender *s)
{
	if (s->state == SENDER_CLOSING && !s->queue && !s->fenced && !s->owe_end && !s->local)
		s->state = SENDER_FREE;
}

static void say_end(struct sender *s, int res)
{
	s->say_end = (struct wfi_msg_channel_end){ .type = WFI_MSG_CHANNEL_END,
						   .res = res,
						   .channel = s->ticket.handoff,
						   .sender = sender_handle(s) };
	s->owe_end = true;
	s->cs->busy = true;
}

/* what was sent has arrived, and nothing more will come */
static void sender_finish(struct sender *s)
{
	struct channel *ch = s->local;

	if (s->state != SENDER_CLOSING || s->queue)
		return;
	s->local = NULL;
	if (ch)
		channel_sender_gone(ch, 0);
	else if (s->peer && !s->end_res)
		say_end(s, 0);
	s->end_res = -EPIPE; /* said */
	sender_settle(s);
}

/* those that are late; @safe: all */
static void fences_end(struct sender *s, uint64_t now_ns, bool safe)
{
	struct outgoing **at = &s->fenced, *o;

	while ((o = *at)) {
		if (!safe && o->deadline_ns > now_ns) {
			channels_note_event(s->cs, o->deadline_ns);
			at = &o->next;
			continue;
		}
		*at = o->next;
		wfi_kv_unpin(s->cs->opts.kv, o->idx, o->nr);
		outgoing_put(s->cs, o);
	}
	if (!s->fenced && !s->owe_end &&
	    (s->state == SENDER_BROKEN || s->state == SENDER_CLOSING) && !s->queue)
		s->peer = NULL;
	sender_settle(s);
}

static void join_end(struct sender *s, int res)
{
	struct wfi_channel_join_opts o = s->join;

	s->owe_join = false;
	s->state = res ? SENDER_FREE : SENDER_OPEN;
	o.done(o.ctx, res, res ? 0 : sender_handle(s), s->next_seq);
}

void sender_break(struct sender *s, int res, bool safe)
{
	struct outgoing *o, *all = s->queue;

	if (s->state == SENDER_JOINING) {
		join_end(s, res);
		return;
	}
	s->queue = NULL;
	s->queue_end = &s->queue;
	s->local = NULL;
	if (s->state == SENDER_OPEN)
		s->state = SENDER_BROKEN;
	s->end_res = res;
	while ((o = all)) {
		all = o->next;
		outgoing_end(s, o, res, safe);
	}
	fences_end(s, 0, safe);
}

/* we end it: the other side hears of it. @res: of what is under way */
static void sender_abort(struct sender *s, int res)
{
	struct channel *ch = s->local;

	if (s->peer)
		say_end(s, res);
	sender_break(s, res, false);
	if (ch)
		channel_sender_gone(ch, res);
}

/* ---- joining ---- */

static int join_local(struct wfi_channels *cs, struct sender *s,
		      const struct wfi_channel_join_opts *o)
{
	int ret = channel_join_local(cs, s, o);

	if (ret) {
		s->state = SENDER_FREE;
		return ret;
	}
	join_end(s, 0);
	return 0;
}

int wfi_channel_join(struct wfi_channels *cs, const struct wfi_channel_join_opts *o)
{
	const bool local = o->ticket->node == cs->opts.node;
	struct wfi_space_info space;
	struct sender *s;
	uint32_t gen;
	int ret = wfi_kv_space_get(cs->opts.kv, o->owner->tenant, o->space, &space);

	if (ret)
		return ret;
	if (!local && !o->peer)
		return -EHOSTUNREACH;
	s = sender_claim(cs);
	if (!s)
		return -EAGAIN;
	gen = (s->gen + 1) & GEN_MASK;
	*s = (struct sender){ .cs = cs,
			      .idx = s->idx,
			      .gen = gen,
			      .state = SENDER_JOINING,
			      .owner = o->owner,
			      .space = space,
			      .ticket = *o->ticket,
			      .peer = local ? NULL : o->peer,
			      .queue_end = &s->queue,
			      .join = *o };
	s->join.ticket = &s->ticket;
	if (local)
		return join_local(cs, s, o);
	s->owe_join = true;
	cs->busy = true;
	channels_note_event(cs, o->deadline_ns);
	return 0;
}

/* ---- sending ---- */

static bool has_credit(const struct sender *s, const struct outgoing *o)
{
	return s->nr_msgs && s->bytes >= o->bytes;
}

static void spend(struct sender *s, struct outgoing *o)
{
	o->seq = s->next_seq++;
	s->nr_msgs--;
	s->bytes -= o->bytes;
}

/* as many as there is credit for. One that can't be taken fails alone: nothing was sent of it */
static void send_local(struct sender *s)
{
	struct outgoing *o;
	int ret;

	while (s->local && s->queue && has_credit(s, s->queue)) {
		o = outgoing_pop(s);
		o->seq = s->next_seq;
		ret = channel_take_local(s->local, o);
		if (!ret)
			spend(s, o);
		outgoing_end(s, o, ret ? ret : (int)o->nr, true);
	}
	sender_finish(s);
}

void sender_credit(struct sender *s, uint64_t freed_msgs, uint64_t freed_bytes)
{
	s->nr_msgs += freed_msgs - s->freed_msgs;
	s->bytes += freed_bytes - s->freed_bytes;
	s->freed_msgs = freed_msgs;
	s->freed_bytes = freed_bytes;
	if (s->local)
		send_local(s);
	else
		s->cs->busy = true;
}

int wfi_channel_send(struct wfi_channels *cs, const struct wfi_channel_send_opts *opts)
{
	struct sender *s = sender_at(cs, opts->handle);
	struct outgoing *o;
	uint32_t i;
	int ret;

	if (!s || s->owner != opts->owner || s->state == SENDER_JOINING ||
	    s->state == SENDER_CLOSING)
		return -ENOENT;
	if (s->state == SENDER_BROKEN)
		return s->end_res;
	if (!opts->nr || opts->nr > WFI_MESSAGE_SLOTS ||
	    opts->bytes <= (opts->nr - 1) * s->space.block_bytes ||
	    opts->bytes > opts->nr * s->space.block_bytes)
		return -EINVAL;
	if (opts->bytes > s->max_bytes)
		return -EMSGSIZE;
	ret = wfi_kv_give(cs->opts.kv, s->owner, NULL, s->space.id, opts->slots, opts->nr);
	if (ret)
		return ret;
	o = outgoing_get(cs);
	if (!o)
		return -ENOMEM;
	o->next = NULL;
	o->state = OUTGOING_WAITING;
	o->pinned = false;
	o->nr = opts->nr;
	o->summed = 0;
	o->bytes = opts->bytes;
	o->tag = opts->tag;
	o->deadline_ns = opts->deadline_ns;
	o->done = opts->done;
	o->ctx = opts->ctx;
	for (i = 0; i < o->nr; i++) {
		o->idx[i] = opts->slots[i].idx;
		wfi_kv_slot_ref(cs->opts.kv, o->idx[i], &o->slots[i]);
	}
	*s->queue_end = o;
	s->queue_end = &o->next;
	channels_note_event(cs, o->deadline_ns);
	if (s->local) {
		send_local(s);
		return 0;
	}
	wfi_kv_pin(cs->opts.kv, o->idx, o->nr);
	o->pinned = true;
	cs->busy = true;
	return 0;
}

/* Return: whether all is summed up */
static bool sum_some(struct sender *s, struct outgoing *o, uint64_t *budget)
{
	uint64_t len;

	while (o->summed < o->nr && *budget) {
		len = wfi_min(o->bytes - o->summed * s->space.block_bytes, s->space.block_bytes);
		o->crc[o->summed] =
			wfi_crc32c(0, wfi_kv_slot_addr(s->cs->opts.kv, o->idx[o->summed]), len);
		*budget -= wfi_min(*budget, len);
		o->summed++;
	}
	return o->summed == o->nr;
}

static int message_send(struct sender *s, struct outgoing *o, uint64_t now_ns)
{
	struct {
		struct wfi_msg_channel_message m;
		struct wfi_msg_piece pieces[WFI_MESSAGE_SLOTS];
	} msg;
	uint32_t i;

	msg.m = (struct wfi_msg_channel_message){
		.type = WFI_MSG_CHANNEL_MESSAGE,
		.nr = o->nr,
		.channel = s->ticket.handoff,
		.sender = sender_handle(s),
		.seq = s->next_seq,
		.tag = o->tag,
		.bytes = o->bytes,
		.timeout_us = (uint32_t)wfi_min((o->deadline_ns - now_ns) / 1000, UINT32_MAX),
	};
	for (i = 0; i < o->nr; i++)
		msg.pieces[i] = (struct wfi_msg_piece){ .off = o->slots[i].off, .crc = o->crc[i] };
	return s->peer->send(s->peer, &msg, sizeof(msg.m) + o->nr * sizeof(msg.pieces[0]));
}

/* the first that waits, while there is credit, and time for its checksums */
static int send_remote(struct sender *s, uint64_t now_ns, uint64_t *budget)
{
	struct outgoing *o;
	int work = 0, ret;

	for (o = s->queue; o && o->state == OUTGOING_SENT; o = o->next)
		;
	for (; o && has_credit(s, o); o = o->next) {
		if (o->deadline_ns <= now_ns)
			return work; /* expires in this turn */
		if (!sum_some(s, o, budget)) {
			s->cs->busy = true;
			return work + 1;
		}
		ret = message_send(s, o, now_ns);
		if (ret) {
			s->cs->busy |= ret == -EAGAIN;
			return work;
		}
		spend(s, o);
		o->state = OUTGOING_SENT;
		work++;
	}
	return work;
}

static int join_send(struct sender *s)
{
	const struct wfi_msg_channel_join m = {
		.type = WFI_MSG_CHANNEL_JOIN,
		.channel = s->ticket.handoff,
		.incarnation = s->ticket.incarnation,
		.secret = { s->ticket.secret[0], s->ticket.secret[1] },
		.space_tag = s->space.tag,
		.sender = sender_handle(s),
	};

	return s->peer->send(s->peer, &m, sizeof(m));
}

int senders_say(struct wfi_channels *cs, uint64_t now_ns)
{
	uint64_t budget = cs->opts.slice_bytes;
	int work = 0;
	uint32_t i;

	for (i = 0; i < cs->hi_senders; i++) {
		struct sender *s = cs->senders[i];

		if (s->state == SENDER_FREE || !s->peer)
			continue;
		if (s->owe_join)
			s->owe_join = join_send(s) == -EAGAIN;
		if (s->state == SENDER_OPEN || (s->state == SENDER_CLOSING && s->queue))
			work += send_remote(s, now_ns, &budget);
		if (s->owe_end &&
		    s->peer->send(s->peer, &s->say_end, sizeof(s->say_end)) != -EAGAIN) {
			s->owe_end = false;
			fences_end(s, now_ns, false);
		}
		cs->busy |= s->owe_join | s->owe_end;
	}
	return work;
}

/* ---- answers ---- */

static void answer_joined(struct sender *s, const struct wfi_msg_channel_joined *m)
{
	if (s->state != SENDER_JOINING)
		return;
	s->next_seq = m->next_seq;
	s->max_bytes = m->max_bytes;
	s->bytes = m->bytes;
	s->nr_msgs = m->nr_msgs;
	join_end(s, m->res > 0 ? -EPROTO : m->res);
}

/* Return: 0, -EPROTO it says what can't be */
static int answer_state(struct sender *s, const struct wfi_msg_channel_state *m)
{
	struct outgoing *o;

	if (s->state != SENDER_OPEN && s->state != SENDER_CLOSING)
		return 0;
	if (m->taken > s->next_seq || m->freed_msgs < s->freed_msgs ||
	    m->freed_bytes < s->freed_bytes)
		return -EPROTO;
	while (s->queue && s->queue->state == OUTGOING_SENT && s->queue->seq < m->taken) {
		o = outgoing_pop(s);
		outgoing_end(s, o, (int)o->nr, true);
	}
	sender_credit(s, m->freed_msgs, m->freed_bytes);
	sender_finish(s);
	return 0;
}

int sender_answer(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg, size_t len)
{
	union {
		uint32_t type;
		struct wfi_msg_channel_joined joined;
		struct wfi_msg_channel_state state;
		struct wfi_msg_channel_end end;
	} m;
	struct sender *s;
	uint64_t name;

	if (len > sizeof(m))
		return -EPROTO;
	memcpy(&m, msg, len);
	if ((m.type == WFI_MSG_CHANNEL_JOINED && len != sizeof(m.joined)) ||
	    (m.type == WFI_MSG_CHANNEL_STATE && len != sizeof(m.state)) ||
	    (m.type == WFI_MSG_CHANNEL_END && len != sizeof(m.end)))
		return -EPROTO;
	name = m.type == WFI_MSG_CHANNEL_JOINED	 ? m.joined.sender
	       : m.type == WFI_MSG_CHANNEL_STATE ? m.state.sender
						 : m.end.sender;
	s = sender_at(cs, name);
	/* it may be over, or a peer invents one */
	if (!s || s->peer != peer)
		return 0;
	if (m.type == WFI_MSG_CHANNEL_JOINED)
		answer_joined(s, &m.joined);
	else if (m.type == WFI_MSG_CHANNEL_STATE)
		return answer_state(s, &m.state);
	else if (s->state == SENDER_CLOSING && !s->queue)
		fences_end(s, 0, true);
	else
		sender_break(s, m.end.res < 0 ? m.end.res : -EPIPE, true);
	return 0;
}

/* ---- ends ---- */

int sender_close(struct wfi_channels *cs, const struct wfi_owner *owner, uint64_t handle)
{
	struct sender *s = sender_at(cs, handle);

	if (!s || s->owner != owner || s->state == SENDER_JOINING || s->state == SENDER_CLOSING)
		return -ENOENT;
	s->state = SENDER_CLOSING;
	sender_finish(s);
	return 0;
}

/* one that waits for credit is not missed by those behind it; one that was sent is */
static void outgoing_cut(struct sender *s, struct outgoing **at, int res)
{
	struct outgoing *o = *at;

	if (o->state == OUTGOING_SENT) {
		sender_abort(s, res);
		return;
	}
	*at = o->next;
	if (!*at)
		s->queue_end = at;
	outgoing_end(s, o, res, true);
	sender_finish(s);
}

static void sender_expire(struct sender *s, uint64_t now_ns)
{
	struct outgoing **at = &s->queue, *o;

	while ((o = *at)) {
		if (o->deadline_ns <= now_ns) {
			outgoing_cut(s, at, -ETIMEDOUT);
			at = &s->queue;
			continue;
		}
		channels_note_event(s->cs, o->deadline_ns);
		at = &o->next;
	}
	if (s->state == SENDER_JOINING) {
		if (s->join.deadline_ns <= now_ns) {
			say_end(s, -ETIMEDOUT);
			join_end(s, -ETIMEDOUT);
			s->state = SENDER_CLOSING;
		} else {
			channels_note_event(s->cs, s->join.deadline_ns);
		}
	}
	fences_end(s, now_ns, false);
}

void senders_expire(struct wfi_channels *cs, uint64_t now_ns)
{
	uint32_t i;

	for (i = 0; i < cs->hi_senders; i++)
		if (cs->senders[i]->state != SENDER_FREE)
			sender_expire(cs->senders[i], now_ns);
}

void senders_cancel(struct wfi_channels *cs, const void *ctx)
{
	struct outgoing **at;
	uint32_t i;

	for (i = 0; i < cs->hi_senders; i++) {
		for (at = &cs->senders[i]->queue; *at && (*at)->ctx != ctx; at = &(*at)->next)
			;
		if (*at && (*at)->state == OUTGOING_WAITING) {
			outgoing_cut(cs->senders[i], at, -ECANCELED);
			return;
		}
	}
}

void senders_owner_gone(struct wfi_channels *cs, const struct wfi_owner *owner)
{
	uint32_t i;

	for (i = 0; i < cs->hi_senders; i++) {
		struct sender *s = cs->senders[i];

		if (s->state == SENDER_FREE || s->owner != owner)
			continue;
		if (s->state == SENDER_JOINING) {
			say_end(s, -ECONNRESET);
			join_end(s, -ECONNRESET);
		} else if (s->state != SENDER_BROKEN &&
			   !(s->state == SENDER_CLOSING && s->owe_end)) {
			sender_abort(s, -ECONNRESET);
		}
		s->owner = NULL;
		s->state = SENDER_CLOSING;
		sender_settle(s);
	}
}

void senders_peer_lost(struct wfi_channels *cs, struct wfi_peer *peer)
{
	uint32_t i;

	for (i = 0; i < cs->hi_senders; i++) {
		struct sender *s = cs->senders[i];

		if (s->state == SENDER_FREE || s->peer != peer)
			continue;
		s->owe_end = false;
		/* it can't read without its connection; and what it reads it checks */
		sender_break(s, -ECONNRESET, true);
		s->peer = NULL;
		sender_settle(s);
	}
}

void senders_drop(struct wfi_channels *cs)
{
	struct outgoing *o;
	uint32_t i;

	for (i = 0; i < cs->hi_senders; i++) {
		fences_end(cs->senders[i], 0, true);
		wfi_free(cs->opts.env, cs->senders[i], sizeof(*cs->senders[i]));
	}
	while ((o = cs->free_outgoing)) {
		cs->free_outgoing = o->next;
		wfi_free(cs->opts.env, o, sizeof(*o));
	}
}
