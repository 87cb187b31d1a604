/* SPDX-License-Identifier: Apache-2.0 */
/* channel.c - the receiving half of channels: messages on their way, here, and lent */
#include <errno.h>
#include <string.h>

#include "channel_private.h"
#include "weft_internal/log.h"

/* ---- messages: allocated once, then recycled by their channel ---- */

static struct arrival *arrival_get(struct channel *ch)
{
	struct arrival *a = ch->spare;

	if (a)
		ch->spare = a->next;
	else
		a = wfi_alloc(ch->cs->opts.env, sizeof(*a));
	if (!a)
		return NULL;
	a->ch = ch;
	a->next = NULL;
	a->read = (struct wfi_peer_read){ 0 };
	a->serial = ++ch->cs->serial;
	return a;
}

static void list_del(struct arrival **list, const struct arrival *a)
{
	while (*list != a)
		list = &(*list)->next;
	*list = a->next;
}

/* its slots go back, and it counts no more */
static void arrival_put(struct channel *ch, struct arrival *a)
{
	wfi_kv_unclaim(ch->cs->opts.kv, &ch->claims, a->slots, a->nr);
	ch->nr_msgs--;
	ch->bytes -= a->bytes;
	a->next = ch->spare;
	ch->spare = a;
}

static uint64_t arrival_handle(const struct arrival *a)
{
	return channel_name(a->serial, a->ch->idx);
}

/* ---- the life of a channel ---- */

static struct channel *channel_at(struct wfi_channels *cs, uint64_t name)
{
	uint32_t idx = (uint32_t)name;
	struct channel *ch = idx < cs->hi_channels ? cs->channels[idx] : NULL;

	return ch && ch->gen == name >> 32 && ch->state == CHANNEL_OPEN ? ch : NULL;
}

static struct channel *channel_claim(struct wfi_channels *cs)
{
	struct channel *ch;
	uint32_t i;

	for (i = 0; i < NR_CHANNELS; i++) {
		ch = cs->channels[i];
		if (!ch) {
			ch = wfi_alloc(cs->opts.env, sizeof(*ch));
			if (!ch)
				return NULL;
			ch->cs = cs;
			ch->idx = i;
			cs->channels[i] = ch;
			cs->hi_channels = i + 1;
		}
		if (ch->state == CHANNEL_FREE)
			return ch;
	}
	return NULL;
}

int wfi_channel_open(struct wfi_channels *cs, const struct wfi_channel_opts *o,
		     struct weft_ticket *ticket, uint64_t *handle)
{
	struct wfi_space_info space;
	uint64_t secret[2];
	struct channel *ch;
	uint32_t gen;
	int ret = wfi_kv_space_get(cs->opts.kv, o->owner->tenant, o->space, &space);

	if (ret)
		return ret;
	if (!o->nr_msgs || o->nr_msgs > WFI_CHANNEL_MSGS_MAX || o->bytes < space.block_bytes)
		return -EINVAL;
	ret = cs->opts.env->rng->bytes(cs->opts.env, secret, sizeof(secret));
	if (ret)
		return ret;
	ch = channel_claim(cs);
	if (!ch)
		return -EAGAIN;
	gen = (ch->gen + 1) & GEN_MASK;
	*ch = (struct channel){
		.cs = cs,
		.idx = ch->idx,
		.gen = gen,
		.owner = o->owner,
		.tenant = o->owner->tenant,
		.space = space,
		.secret = { secret[0], secret[1] },
		.max_bytes = o->bytes,
		.max_msgs = o->nr_msgs,
		.queue_end = &ch->queue,
		.receipts_end = &ch->receipts,
	};
	ret = wfi_owner_init(cs->opts.kv, &ch->claims, ch->tenant);
	if (ret)
		return ret;
	ch->state = CHANNEL_OPEN;
	*handle = channel_name(gen, ch->idx);
	*ticket = (struct weft_ticket){
		.node = cs->opts.node,
		.incarnation = wfi_kv_incarnation(cs->opts.kv),
		.handoff = *handle,
		.secret = { secret[0], secret[1] },
		.nr_blocks = o->nr_msgs,
		.expires_ns = UINT64_MAX,
	};
	return 0;
}

static void channel_free(struct channel *ch)
{
	struct wfi_env *env = ch->cs->opts.env;
	struct arrival *a;

	wfi_owner_fini(ch->cs->opts.kv, &ch->claims, false);
	while ((a = ch->spare)) {
		ch->spare = a->next;
		wfi_free(env, a, sizeof(*a));
	}
	ch->state = CHANNEL_FREE;
}

/* ---- receipts ---- */

static struct receipt *receipt_pop(struct channel *ch)
{
	struct receipt *r = ch->receipts;

	ch->receipts = r->next;
	if (!ch->receipts)
		ch->receipts_end = &ch->receipts;
	r->next = ch->cs->free_receipts;
	ch->cs->free_receipts = r;
	return r;
}

static void receipts_end(struct channel *ch, int res)
{
	struct wfi_channel_recv_opts o;

	while (ch->receipts) {
		o = receipt_pop(ch)->opts;
		o.done(o.ctx, res, NULL);
	}
}

static void lend(struct channel *ch, struct arrival *a, const struct wfi_channel_recv_opts *o)
{
	const struct wfi_message msg = { .handle = arrival_handle(a),
					 .seq = a->seq,
					 .tag = a->tag,
					 .bytes = a->bytes,
					 .nr = a->nr,
					 .slots = a->slots };

	ch->queue = a->next;
	if (!ch->queue)
		ch->queue_end = &ch->queue;
	a->state = ARRIVAL_LENT;
	a->next = ch->lent;
	ch->lent = a;
	wfi_count(ch->cs->nr_messages, 1);
	o->done(o->ctx, (int)a->nr, &msg);
}

/* whoever waits gets what is here */
static void deliver(struct channel *ch)
{
	struct wfi_channel_recv_opts o;

	while (ch->receipts && ch->queue && ch->queue->state == ARRIVAL_READY) {
		o = receipt_pop(ch)->opts;
		if (ch->queue->nr > o.max)
			o.done(o.ctx, -EMSGSIZE, NULL);
		else
			lend(ch, ch->queue, &o);
	}
	if (!ch->receipts || ch->queue || !ch->ended)
		return;
	/* an end is an end until somebody joins; a loss is told to those who wait */
	ch->ended = !ch->end_res;
	receipts_end(ch, ch->end_res);
}

int wfi_channel_recv(struct wfi_channels *cs, const struct wfi_channel_recv_opts *opts)
{
	struct channel *ch = channel_at(cs, opts->handle);
	struct receipt *r = cs->free_receipts;

	if (!ch || ch->owner != opts->owner)
		return -ENOENT;
	if (r)
		cs->free_receipts = r->next;
	else
		r = wfi_alloc(cs->opts.env, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->opts = *opts;
	r->next = NULL;
	*ch->receipts_end = r;
	ch->receipts_end = &r->next;
	channels_note_event(cs, opts->deadline_ns);
	deliver(ch);
	return 0;
}

/* ---- credit ---- */

static void owe(struct channel *ch, bool *what)
{
	*what = true;
	ch->cs->busy = true;
}

static void credit(struct channel *ch, uint64_t bytes)
{
	ch->freed_msgs++;
	ch->freed_bytes += bytes;
	if (!ch->joined)
		return;
	if (ch->local)
		sender_credit(ch->local, ch->freed_msgs, ch->freed_bytes);
	else
		owe(ch, &ch->owe_state);
}

int wfi_channel_release(struct wfi_channels *cs, const struct wfi_owner *owner, uint64_t message)
{
	const uint32_t idx = (uint32_t)message;
	struct channel *ch = idx < cs->hi_channels ? cs->channels[idx] : NULL;
	struct arrival *a;
	uint64_t bytes;
	uint32_t nr;

	if (!ch || ch->state != CHANNEL_OPEN || ch->owner != owner)
		return -ENOENT;
	for (a = ch->lent; a && a->serial != message >> 32; a = a->next)
		;
	if (!a)
		return -ENOENT;
	list_del(&ch->lent, a);
	bytes = a->bytes;
	nr = a->nr;
	arrival_put(ch, a);
	/* a sender that waits for this may take the place at once */
	credit(ch, bytes);
	return (int)nr;
}

static bool has_room(const struct channel *ch, uint64_t bytes)
{
	return ch->nr_msgs < ch->max_msgs && bytes <= ch->max_bytes - ch->bytes;
}

static void append(struct channel *ch, struct arrival *a)
{
	*ch->queue_end = a;
	ch->queue_end = &a->next;
	ch->nr_msgs++;
	ch->bytes += a->bytes;
	ch->next_seq = a->seq + 1;
}

/* ---- the end of a sender ---- */

static void say_end(struct channel *ch, int res)
{
	if (!ch->peer)
		return;
	ch->say_end = (struct wfi_msg_channel_end){
		.type = WFI_MSG_CHANNEL_END, .res = res, .sender = ch->sender, .to_sender = 1
	};
	ch->end_peer = ch->peer;
	owe(ch, &ch->owe_end);
}

static void part(struct channel *ch)
{
	ch->joined = ch->owe_joined = ch->owe_state = false;
	ch->local = NULL;
	ch->peer = NULL;
}

/* from the first message that is not here on, all are of no use: who joins next sends them again */
static void cut_queue(struct channel *ch)
{
	struct arrival **at = &ch->queue, *rest, *a;

	while (*at && (*at)->state == ARRIVAL_READY)
		at = &(*at)->next;
	rest = *at;
	*at = NULL;
	ch->queue_end = at;
	if (rest)
		ch->next_seq = rest->seq;
	while ((a = rest)) {
		rest = a->next;
		if (a->state != ARRIVAL_READING) {
			arrival_put(ch, a);
			continue;
		}
		/* its end may come at once, and frees it */
		a->state = ARRIVAL_DOOMED;
		a->next = ch->doomed;
		ch->doomed = a;
		wfi_peer_read_cancel(ch->cs->opts.xfer, &a->read);
	}
}

/* the stream is broken between two messages; the sender hears of it, where there is one */
static void channel_break(struct channel *ch, int res)
{
	if (!ch->joined)
		return;
	wfi_count(ch->cs->nr_broken, 1);
	if (ch->local)
		sender_break(ch->local, res, true);
	say_end(ch, res);
	part(ch);
	ch->ended = true;
	ch->end_res = -ECONNRESET;
	cut_queue(ch);
	deliver(ch);
}

void channel_sender_gone(struct channel *ch, int res)
{
	part(ch);
	ch->ended = true;
	ch->end_res = res ? -ECONNRESET : 0;
	cut_queue(ch);
	deliver(ch);
}

/* the receiver has had enough. @res: of what waits here */
static void channel_close(struct channel *ch, int res)
{
	struct arrival *a;

	if (ch->local)
		sender_break(ch->local, -EPIPE, true);
	say_end(ch, -EPIPE);
	part(ch);
	cut_queue(ch);
	receipts_end(ch, res);
	while ((a = ch->queue)) {
		ch->queue = a->next;
		arrival_put(ch, a);
	}
	while ((a = ch->lent)) {
		ch->lent = a->next;
		arrival_put(ch, a);
	}
	ch->owner = NULL;
	ch->state = CHANNEL_ENDING;
	if (!ch->nr_reads && !ch->owe_end)
		channel_free(ch);
}

int wfi_channel_close(struct wfi_channels *cs, const struct wfi_owner *owner, uint64_t handle)
{
	struct channel *ch;

	if (handle & SENDER_HANDLE)
		return sender_close(cs, owner, handle);
	ch = channel_at(cs, handle);
	if (!ch || ch->owner != owner)
		return -ENOENT;
	channel_close(ch, -ECANCELED);
	return 0;
}

/* ---- joining ---- */

static int channel_for(struct wfi_channels *cs, uint64_t name, uint64_t incarnation,
		       const uint64_t secret[2], struct channel **out)
{
	struct channel *ch;

	if (incarnation != wfi_kv_incarnation(cs->opts.kv))
		return -ESTALE;
	ch = channel_at(cs, name);
	if (!ch)
		return -ESTALE;
	/* both words in any case: no early exit that tells how much of a guess was right */
	if ((ch->secret[0] ^ secret[0]) | (ch->secret[1] ^ secret[1]))
		return -EPERM;
	*out = ch;
	return 0;
}

static void welcome(struct channel *ch)
{
	ch->joined = true;
	ch->ended = false;
	ch->freed_msgs = ch->freed_bytes = 0;
}

int channel_join_local(struct wfi_channels *cs, struct sender *s,
		       const struct wfi_channel_join_opts *o)
{
	const struct weft_ticket *t = o->ticket;
	struct channel *ch;
	int ret = channel_for(cs, t->handoff, t->incarnation, t->secret, &ch);

	if (ret)
		return ret;
	if (ch->tenant != o->owner->tenant || ch->space.id != o->space)
		return -EXDEV;
	if (ch->joined)
		return -EBUSY;
	welcome(ch);
	ch->local = s;
	s->local = ch;
	s->next_seq = ch->next_seq;
	s->max_bytes = ch->max_bytes;
	s->bytes = ch->max_bytes - ch->bytes;
	s->nr_msgs = ch->max_msgs - ch->nr_msgs;
	return 0;
}

int channel_take_local(struct channel *ch, struct outgoing *o)
{
	struct wfi_channels *cs = ch->cs;
	struct arrival *a = arrival_get(ch);
	int ret;

	if (!a)
		return -ENOMEM;
	ret = wfi_kv_give(cs->opts.kv, ch->local->owner, &ch->claims, ch->space.id, o->slots,
			  o->nr);
	if (ret) {
		a->next = ch->spare;
		ch->spare = a;
		return ret;
	}
	a->state = ARRIVAL_READY;
	a->nr = o->nr;
	a->seq = o->seq;
	a->tag = o->tag;
	a->bytes = o->bytes;
	memcpy(a->slots, o->slots, o->nr * sizeof(*a->slots));
	append(ch, a);
	wfi_count(cs->bytes_by_ref, o->bytes);
	deliver(ch);
	return 0;
}

/* what is no channel's to keep: a peer that takes nothing hears of it by its deadline */
static void say_now(struct wfi_peer *peer, const void *msg, size_t len)
{
	if (peer->send(peer, msg, len))
		wfi_warn_once("channel: an answer to peer %#llx is lost: it takes no messages",
			      (unsigned long long)peer->node);
}

static int message_join(struct wfi_channels *cs, struct wfi_peer *peer,
			const struct wfi_msg_channel_join *m)
{
	struct wfi_msg_channel_joined say = { .type = WFI_MSG_CHANNEL_JOINED, .sender = m->sender };
	struct channel *ch;

	say.res = channel_for(cs, m->channel, m->incarnation, m->secret, &ch);
	if (!say.res && (ch->space.tag != m->space_tag || !peer->arena(peer, ch->tenant)))
		say.res = -EXDEV;
	if (!say.res && (ch->joined || ch->owe_end))
		say.res = -EBUSY;
	if (say.res) {
		say_now(peer, &say, sizeof(say));
		return 0;
	}
	welcome(ch);
	ch->peer = peer;
	ch->sender = m->sender;
	say.next_seq = ch->next_seq;
	say.max_bytes = ch->max_bytes;
	say.bytes = ch->max_bytes - ch->bytes;
	say.nr_msgs = ch->max_msgs - ch->nr_msgs;
	ch->say_joined = say;
	owe(ch, &ch->owe_joined);
	return 0;
}

/* ---- messages of a peer ---- */

static void arrival_end(struct arrival *a)
{
	struct channel *ch = a->ch;
	uint64_t bytes = a->bytes;

	list_del(&ch->doomed, a);
	arrival_put(ch, a);
	credit(ch, bytes);
	if (ch->state == CHANNEL_ENDING && !ch->nr_reads && !ch->owe_end)
		channel_free(ch);
}

static int arrival_verify(const struct arrival *a)
{
	uint32_t i;

	for (i = 0; i < a->nr; i++)
		if (a->sums[i] != a->crc[i])
			return -EBADMSG;
	return 0;
}

static void arrival_read(void *ctx, int res)
{
	struct arrival *a = ctx;
	struct channel *ch = a->ch;
	struct wfi_channels *cs = ch->cs;

	wfi_kv_unpin(cs->opts.kv, a->idx, a->nr);
	a->read = (struct wfi_peer_read){ 0 };
	ch->nr_reads--;
	if (a->state == ARRIVAL_DOOMED) {
		arrival_end(a);
		return;
	}
	if (!res && arrival_verify(a)) {
		wfi_count(cs->bad, 1);
		wfi_warn("channel: message %llu from peer %#llx fails its checksum",
			 (unsigned long long)a->seq, (unsigned long long)ch->peer->node);
		res = -EBADMSG;
	}
	if (res) {
		a->state = ARRIVAL_FAILED;
		channel_break(ch, res);
		return;
	}
	wfi_count(cs->bytes_read, a->bytes);
	a->state = ARRIVAL_READY;
	owe(ch, &ch->owe_state);
	deliver(ch);
}

static int arrival_start(struct channel *ch, struct wfi_peer *peer,
			 const struct wfi_msg_channel_message *m,
			 const struct wfi_msg_piece *pieces, uint64_t now_ns)
{
	struct wfi_channels *cs = ch->cs;
	struct arrival *a = arrival_get(ch);
	struct wfi_xfer_opts x;
	uint64_t left = m->bytes;
	uint32_t i;
	int ret;

	if (!a)
		return -ENOMEM;
	ret = wfi_kv_claim(cs->opts.kv, &ch->claims, ch->space.id, m->nr, a->slots, now_ns);
	if (ret < 0) {
		a->next = ch->spare;
		ch->spare = a;
		return ret;
	}
	a->state = ARRIVAL_READING;
	a->nr = m->nr;
	a->seq = m->seq;
	a->tag = m->tag;
	a->bytes = m->bytes;
	for (i = 0; i < m->nr; i++) {
		a->idx[i] = a->slots[i].idx;
		a->crc[i] = pieces[i].crc;
		a->sums[i] = 0;
		a->pieces[i] = (struct wfi_piece){
			.local = wfi_kv_slot_addr(cs->opts.kv, a->idx[i]),
			.remote = pieces[i].off,
			.block = i,
			.len = wfi_min(left, ch->space.block_bytes),
		};
		left -= a->pieces[i].len;
	}
	wfi_kv_pin(cs->opts.kv, a->idx, a->nr);
	append(ch, a);
	ch->nr_reads++;
	x = (struct wfi_xfer_opts){
		.pieces = a->pieces,
		.nr_pieces = a->nr,
		.nr_blocks = a->nr,
		.results = a->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = a->sums,
		.deadline_ns = now_ns + m->timeout_us * WFI_NSEC_PER_USEC,
		.done = arrival_read,
		.ctx = a,
	};
	ret = wfi_peer_read(cs->opts.xfer, peer, ch->tenant, NULL, &x, &a->read);
	if (ret) {
		wfi_kv_unpin(cs->opts.kv, a->idx, a->nr);
		ch->nr_reads--;
		a->state = ARRIVAL_FAILED;
	}
	return ret;
}

/* a sender that is to hear of its end needs no other answer: that one would overtake it */
static bool end_is_owed(const struct wfi_channels *cs, const struct wfi_peer *peer,
			const struct wfi_msg_channel_message *m)
{
	const uint32_t idx = (uint32_t)m->channel;
	const struct channel *ch = idx < cs->hi_channels ? cs->channels[idx] : NULL;

	return ch && ch->gen == m->channel >> 32 && ch->owe_end && ch->end_peer == peer &&
	       ch->say_end.sender == m->sender;
}

static int message_message(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg,
			   size_t len, uint64_t now_ns)
{
	struct wfi_msg_piece pieces[WFI_MESSAGE_SLOTS];
	struct wfi_msg_channel_message m;
	struct wfi_msg_channel_end say = { .type = WFI_MSG_CHANNEL_END, .to_sender = 1 };
	struct channel *ch;
	int ret;

	if (len < sizeof(m))
		return -EPROTO;
	memcpy(&m, msg, sizeof(m));
	if (!m.nr || m.nr > WFI_MESSAGE_SLOTS || len != sizeof(m) + m.nr * sizeof(pieces[0]))
		return -EPROTO;
	memcpy(pieces, (const char *)msg + sizeof(m), m.nr * sizeof(pieces[0]));
	if (end_is_owed(cs, peer, &m))
		return 0;
	ch = channel_at(cs, m.channel);
	if (!ch || ch->peer != peer || ch->sender != m.sender) {
		/* sent before our end came there, or by who never joined */
		say.res = -ESTALE;
		say.sender = m.sender;
		say_now(peer, &say, sizeof(say));
		return 0;
	}
	if (m.seq != ch->next_seq || !has_room(ch, m.bytes) ||
	    m.bytes <= (m.nr - 1) * ch->space.block_bytes || m.bytes > m.nr * ch->space.block_bytes)
		return -EPROTO;
	ret = arrival_start(ch, peer, &m, pieces, now_ns);
	if (ret)
		channel_break(ch, ret);
	return 0;
}

static void message_end(struct wfi_channels *cs, const struct wfi_peer *peer,
			const struct wfi_msg_channel_end *m)
{
	struct channel *ch = channel_at(cs, m->channel);

	if (!ch || ch->peer != peer || ch->sender != m->sender)
		return;
	/* it waits for us to read no more of what it had sent */
	if (m->res)
		say_end(ch, m->res);
	channel_sender_gone(ch, m->res);
}

int channel_answer(struct wfi_channels *cs, struct wfi_peer *peer, const void *msg, size_t len,
		   uint64_t now_ns)
{
	struct wfi_msg_channel_join join;
	struct wfi_msg_channel_end end;
	uint32_t type;

	memcpy(&type, msg, sizeof(type));
	switch (type) {
	case WFI_MSG_CHANNEL_JOIN:
		if (len != sizeof(join))
			return -EPROTO;
		memcpy(&join, msg, sizeof(join));
		return message_join(cs, peer, &join);
	case WFI_MSG_CHANNEL_MESSAGE:
		return message_message(cs, peer, msg, len, now_ns);
	case WFI_MSG_CHANNEL_END:
		if (len != sizeof(end))
			return -EPROTO;
		memcpy(&end, msg, sizeof(end));
		message_end(cs, peer, &end);
		return 0;
	default:
		return -EPROTO;
	}
}

/* ---- what is owed to peers ---- */

static uint64_t taken(const struct channel *ch)
{
	const struct arrival *a;

	for (a = ch->queue; a && a->state == ARRIVAL_READY; a = a->next)
		;
	return a ? a->seq : ch->next_seq;
}

/* Return: whether it went */
static bool pay(struct wfi_peer *peer, bool *owed, const void *msg, size_t len)
{
	if (!*owed || peer->send(peer, msg, len) == -EAGAIN)
		return false;
	*owed = false;
	return true;
}

static int channel_say(struct channel *ch)
{
	struct wfi_msg_channel_state state = { .type = WFI_MSG_CHANNEL_STATE,
					       .sender = ch->sender,
					       .freed_msgs = ch->freed_msgs,
					       .freed_bytes = ch->freed_bytes };
	int work = 0;

	/* says, too, that nothing of the sender's is read any more */
	if (!ch->nr_reads)
		work += pay(ch->end_peer, &ch->owe_end, &ch->say_end, sizeof(ch->say_end));
	work += pay(ch->peer, &ch->owe_joined, &ch->say_joined, sizeof(ch->say_joined));
	if (ch->owe_state && !ch->owe_joined) {
		state.taken = taken(ch);
		work += pay(ch->peer, &ch->owe_state, &state, sizeof(state));
	}
	ch->cs->busy |= ch->owe_end | ch->owe_joined | ch->owe_state;
	if (ch->state == CHANNEL_ENDING && !ch->nr_reads && !ch->owe_end)
		channel_free(ch);
	return work;
}

int channels_say(struct wfi_channels *cs)
{
	int work = 0;
	uint32_t i;

	for (i = 0; i < cs->hi_channels; i++)
		if (cs->channels[i]->state != CHANNEL_FREE)
			work += channel_say(cs->channels[i]);
	return work;
}

/* ---- ends ---- */

/* those with @ctx, or, NULL, those that are late */
static void receipts_cut(struct channel *ch, const void *ctx, uint64_t now_ns)
{
	struct wfi_channels *cs = ch->cs;
	struct receipt **at = &ch->receipts, *r;
	struct wfi_channel_recv_opts o;

	while ((r = *at)) {
		if (ctx ? r->opts.ctx != ctx : r->opts.deadline_ns > now_ns) {
			channels_note_event(cs, r->opts.deadline_ns);
			at = &r->next;
			continue;
		}
		*at = r->next;
		if (!*at)
			ch->receipts_end = at;
		o = r->opts;
		r->next = cs->free_receipts;
		cs->free_receipts = r;
		o.done(o.ctx, ctx ? -ECANCELED : -ETIMEDOUT, NULL);
	}
}

void channels_expire(struct wfi_channels *cs, uint64_t now_ns)
{
	uint32_t i;

	for (i = 0; i < cs->hi_channels; i++)
		if (cs->channels[i]->state == CHANNEL_OPEN)
			receipts_cut(cs->channels[i], NULL, now_ns);
}

void wfi_channel_cancel(struct wfi_channels *cs, const void *ctx)
{
	uint32_t i;

	for (i = 0; i < cs->hi_channels; i++)
		if (cs->channels[i]->state == CHANNEL_OPEN)
			receipts_cut(cs->channels[i], ctx, 0);
	senders_cancel(cs, ctx);
}

void wfi_channels_owner_gone(struct wfi_channels *cs, const struct wfi_owner *owner)
{
	uint32_t i;

	senders_owner_gone(cs, owner);
	for (i = 0; i < cs->hi_channels; i++)
		if (cs->channels[i]->state == CHANNEL_OPEN && cs->channels[i]->owner == owner)
			channel_close(cs->channels[i], -ECONNRESET);
}

uint32_t wfi_channels_in(const struct wfi_channels *cs, uint32_t space)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < cs->hi_channels; i++)
		nr += cs->channels[i]->state != CHANNEL_FREE && cs->channels[i]->space.id == space;
	for (uint32_t i = 0; i < cs->hi_senders; i++)
		nr += cs->senders[i]->state != SENDER_FREE && cs->senders[i]->space.id == space;
	return nr;
}

void wfi_channels_peer_lost(struct wfi_channels *cs, struct wfi_peer *peer)
{
	uint32_t i;

	senders_peer_lost(cs, peer);
	for (i = 0; i < cs->hi_channels; i++) {
		struct channel *ch = cs->channels[i];

		if (ch->owe_end && ch->end_peer == peer)
			ch->owe_end = false;
		if (ch->state == CHANNEL_OPEN && ch->peer == peer) {
			wfi_count(cs->nr_broken, 1);
			channel_sender_gone(ch, -ECONNRESET);
		} else if (ch->state == CHANNEL_ENDING && !ch->nr_reads && !ch->owe_end) {
			channel_free(ch);
		}
	}
}

uint32_t wfi_channels_reads_of(const struct wfi_channels *cs, const struct weft_ep *ep)
{
	const struct arrival *a;
	uint32_t i, n = 0;

	for (i = 0; i < cs->hi_channels; i++) {
		for (a = cs->channels[i]->queue; a; a = a->next)
			n += a->read.ep == ep;
		for (a = cs->channels[i]->doomed; a; a = a->next)
			n += a->read.ep == ep;
	}
	return n;
}

void channels_drop(struct wfi_channels *cs)
{
	struct receipt *r;
	uint32_t i;

	for (i = 0; i < cs->hi_channels; i++) {
		if (cs->channels[i]->state != CHANNEL_FREE)
			channel_free(cs->channels[i]);
		wfi_free(cs->opts.env, cs->channels[i], sizeof(*cs->channels[i]));
	}
	while ((r = cs->free_receipts)) {
		cs->free_receipts = r->next;
		wfi_free(cs->opts.env, r, sizeof(*r));
	}
}
