/* SPDX-License-Identifier: Apache-2.0 */
/* client_post.c - submissions: arguments into the segment, entries into the queue. All of it hot */
#include <errno.h>
#include <string.h>
#include "ring/bell.h"
#include "ring/client_priv.h"
#include "ring/entry.h"

static const uint16_t shapes[WEFT_OP_NR] = {
	[WEFT_OP_NOP] = 0,
	[WEFT_OP_STAT] = WFI_ARG_STAT,
	[WEFT_OP_CLAIM] = WFI_ARG_SPACE | WFI_ARG_SLOTS_OUT,
	[WEFT_OP_PUT] = WFI_ARG_SPACE | WFI_ARG_PARENT | WFI_ARG_KEYS | WFI_ARG_SLOTS_IN |
			WFI_ARG_RESULTS,
	[WEFT_OP_MATCH] = WFI_ARG_SPACE | WFI_ARG_KEYS,
	[WEFT_OP_GET] = WFI_ARG_SPACE | WFI_ARG_KEYS | WFI_ARG_PLACES | WFI_ARG_RESULTS,
	[WEFT_OP_MAP] = WFI_ARG_SPACE | WFI_ARG_KEYS | WFI_ARG_SLOTS_OUT,
	[WEFT_OP_RELEASE] = 0,
	[WEFT_OP_PREFETCH] = WFI_ARG_SPACE | WFI_ARG_KEYS,
	[WEFT_OP_DROP] = WFI_ARG_SPACE | WFI_ARG_KEYS | WFI_ARG_RESULTS,
	[WEFT_OP_HANDOFF_EXPECT] = WFI_ARG_SPACE | WFI_ARG_EXPECT | WFI_ARG_KEYS |
				   WFI_ARG_SLOTS_OUT,
	[WEFT_OP_HANDOFF_PUSH] = WFI_ARG_SPACE | WFI_ARG_PUSH | WFI_ARG_SLOTS_IN,
	[WEFT_OP_HANDOFF_CANCEL] = 0,
	[WEFT_OP_CHANNEL_OPEN] = WFI_ARG_SPACE | WFI_ARG_CHANNEL,
	[WEFT_OP_CHANNEL_JOIN] = WFI_ARG_SPACE | WFI_ARG_CHANNEL,
	[WEFT_OP_CHANNEL_SEND] = WFI_ARG_MESSAGE | WFI_ARG_SLOTS_IN,
	[WEFT_OP_CHANNEL_RECV] = WFI_ARG_MESSAGE | WFI_ARG_SLOTS_OUT,
	[WEFT_OP_CHANNEL_RELEASE] = 0,
	[WEFT_OP_CHANNEL_CLOSE] = 0,
	[WEFT_OP_ROUTE] = WFI_ARG_SPACE | WFI_ARG_KEYS | WFI_ARG_ROUTE,
};

#define PREFETCH_MAX 32u /* entries: more than the misses that a core can have under way */
#define ARGS_OF_16 ((unsigned)WFI_ARG_PLACES | WFI_ARG_SLOTS_IN | WFI_ARG_SLOTS_OUT)

static unsigned shape_of(const struct weft_op *op)
{
	unsigned shape = shapes[op->op];

	if (op->flags & WEFT_F_COPY && shape & (WFI_ARG_PARENT | WFI_ARG_EXPECT | WFI_ARG_PUSH))
		shape = (shape & ~(unsigned)(WFI_ARG_SLOTS_IN | WFI_ARG_SLOTS_OUT)) |
			WFI_ARG_PLACES;
	else if (op->op == WEFT_OP_MATCH && op->flags & WEFT_F_WHERE)
		shape |= WFI_ARG_WHERE;
	else if (op->op == WEFT_OP_RELEASE && !op->handle)
		shape |= WFI_ARG_SLOTS_IN;
	if (shape & (WFI_ARG_EXPECT | WFI_ARG_PUSH) && op->flags & WEFT_F_LAYOUT)
		shape |= WFI_ARG_LAYOUT;
	if ((op->op == WEFT_OP_GET || shape & WFI_ARG_EXPECT) && op->flags & WEFT_F_SIGNAL)
		shape |= WFI_ARG_SIGNAL;
	return shape;
}

/* Return: 0, or -EINVAL with what is missing */
static int op_check(const struct weft_ring *ring, const struct weft_op *op, unsigned shape)
{
	if (shape & (WFI_ARG_KEYS | ARGS_OF_16) && (!op->nr || op->nr > WEFT_OP_BLOCKS_MAX))
		return wfi_client_fail(-EINVAL, "weft_op.nr is 0, or above WEFT_OP_BLOCKS_MAX");
	if (shape & WFI_ARG_SPACE && (!op->space || op->space->w != ring->w))
		return wfi_client_fail(-EINVAL, "the operation needs a space of this session");
	if (shape & WFI_ARG_KEYS && !op->keys)
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.keys");
	if (shape & WFI_ARG_PLACES && !op->places)
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.places");
	if (shape & (WFI_ARG_SLOTS_IN | WFI_ARG_SLOTS_OUT) && !op->slots)
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.slots");
	if (shape & (WFI_ARG_PUSH | WFI_ARG_CHANNEL) && !op->ticket)
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.ticket");
	if (shape & WFI_ARG_LAYOUT && !op->layout)
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.layout");
	if ((shape & WFI_ARG_MESSAGE || op->op == WEFT_OP_CHANNEL_OPEN) && !op->message)
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.message");
	if (shape & WFI_ARG_SIGNAL && (!op->signal || !ring->signals))
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.signal, and its ring "
						"weft_signals_open()");
	if (shape & WFI_ARG_ROUTE &&
	    (!op->routes || !op->nr_routes || op->nr_routes > WEFT_ROUTES_MAX))
		return wfi_client_fail(-EINVAL, "the operation needs weft_op.routes, up to "
						"WEFT_ROUTES_MAX of them");
	return 0;
}

static uint32_t args_len(unsigned shape, const struct weft_op *op)
{
	const uint32_t nr = op->nr;
	uint32_t len = 0;

	if (shape & WFI_ARG_PARENT)
		len += sizeof(struct weft_key);
	if (shape & WFI_ARG_EXPECT)
		len += sizeof(struct weft_arg_expect);
	if (shape & WFI_ARG_PUSH)
		len += sizeof(struct weft_arg_push);
	if (shape & WFI_ARG_LAYOUT)
		len += sizeof(struct weft_layout);
	if (shape & WFI_ARG_CHANNEL)
		len += sizeof(struct weft_arg_channel);
	if (shape & WFI_ARG_MESSAGE)
		len += sizeof(struct weft_arg_message);
	if (shape & WFI_ARG_STAT)
		len += sizeof(struct weft_stat);
	if (shape & WFI_ARG_KEYS)
		len += nr * (uint32_t)sizeof(struct weft_key);
	if (shape & ARGS_OF_16)
		len += nr * 16u;
	if (shape & (WFI_ARG_RESULTS | WFI_ARG_WHERE))
		len += nr * 4u;
	if (shape & WFI_ARG_ROUTE)
		len += (uint32_t)(sizeof(struct weft_arg_route) +
				  op->nr_routes * sizeof(struct weft_route));
	if (shape & WFI_ARG_SIGNAL)
		len = (uint32_t)wfi_align_up(len, 8) + (uint32_t)sizeof(struct weft_arg_signal);
	return len;
}

/* numbers of regions differ between this node's life and the one in which they were given */
static __attribute__((cold, noinline)) void
write_places(const struct weft *w, char *to, const struct weft_place *places, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		struct weft_place place = places[i];

		place.region =
			place.region < WFI_REGIONS_MAX
				? __atomic_load_n(&w->region_ids[place.region], __ATOMIC_RELAXED)
				: UINT32_MAX;
		/* what was given back, or never given, may not become the arena */
		if (!place.region && places[i].region)
			place.region = UINT32_MAX;
		memcpy(to + i * sizeof(place), &place, sizeof(place));
	}
}

/* the node's number for an event; what is none stays none */
static __attribute__((cold, noinline)) uint64_t event_id(const struct weft *w, uint64_t number)
{
	uint32_t id = 0;

	if (number < WFI_REGIONS_MAX)
		id = __atomic_load_n(&w->region_ids[number], __ATOMIC_RELAXED);
	return id ? id : UINT64_MAX;
}

static char *put_head(char *to, const struct weft_op *op, unsigned shape)
{
	static const struct weft_key none;
	const struct weft_key *parent = op->parent ? op->parent : &none;

	if (shape & WFI_ARG_PARENT)
		return mempcpy(to, parent, sizeof(*parent));
	if (shape & WFI_ARG_EXPECT) {
		struct weft_arg_expect expect = { .parent = *parent, .nr_layers = op->nr_layers };

		to = mempcpy(to, &expect, sizeof(expect));
	}
	if (shape & WFI_ARG_PUSH) {
		struct weft_arg_push push = { .ticket = *op->ticket,
					      .layer = op->layer,
					      .nr_layers = op->nr_layers,
					      .first_block = op->first_block };

		to = mempcpy(to, &push, sizeof(push));
	}
	if (shape & WFI_ARG_LAYOUT)
		return mempcpy(to, op->layout, sizeof(*op->layout));
	if (shape & WFI_ARG_CHANNEL) {
		struct weft_arg_channel channel = { .bytes = op->message ? op->message->bytes : 0 };

		if (op->op == WEFT_OP_CHANNEL_JOIN)
			channel.ticket = *op->ticket;
		return mempcpy(to, &channel, sizeof(channel));
	}
	if (shape & WFI_ARG_MESSAGE) {
		struct weft_arg_message message = { .bytes = op->message->bytes,
						    .tag = op->message->tag };

		return mempcpy(to, &message, sizeof(message));
	}
	return to;
}

static void put_routes(char *to, const struct weft_op *op)
{
	const struct weft_arg_route arg = { .nr_routes = op->nr_routes, .block_us = op->block_us };

	to = mempcpy(to, &arg, sizeof(arg));
	memcpy(to, op->routes, op->nr_routes * sizeof(*op->routes));
}

/* the arguments in order; what is out is left as it lies. Return: where the out array starts */
static uint32_t put_args(const struct weft_ring *ring, const struct weft_op *op, unsigned shape,
			 uint32_t off)
{
	char *to = put_head(ring->arg + off, op, shape);

	if (shape & WFI_ARG_KEYS)
		to = mempcpy(to, op->keys, op->nr * sizeof(*op->keys));
	if (shape & WFI_ARG_SLOTS_IN)
		to = mempcpy(to, op->slots, op->nr * sizeof(*op->slots));
	if (shape & WFI_ARG_PLACES) {
		if (wfi_unlikely(__atomic_load_n(&ring->w->regions_moved, __ATOMIC_RELAXED)))
			write_places(ring->w, to, op->places, op->nr);
		else
			memcpy(to, op->places, op->nr * sizeof(*op->places));
		to += op->nr * sizeof(*op->places);
	}
	if (wfi_unlikely(shape & WFI_ARG_ROUTE))
		put_routes(to, op);
	return (uint32_t)(to - ring->arg);
}

static void *out_of(const struct weft_op *op, unsigned shape)
{
	if (shape & WFI_ARG_SLOTS_OUT)
		return op->slots;
	if (shape & WFI_ARG_RESULTS)
		return op->results;
	if (shape & WFI_ARG_WHERE)
		return op->where;
	if (shape & WFI_ARG_ROUTE)
		return op->routes;
	return shape & WFI_ARG_STAT ? op->stat : NULL;
}

static int flight_args(struct weft_ring *ring, struct wfi_flight *f, const struct weft_op *op,
		       unsigned shape)
{
	uint32_t len = args_len(shape, op);
	int ret = op_check(ring, op, shape);

	if (wfi_unlikely(ret < 0))
		return ret;
	if (wfi_unlikely(len > wfi_args_max(&ring->args)))
		return wfi_client_fail(-EINVAL,
				       "the operation's arguments do not fit into the ring's: "
				       "open it with more weft_ring_opts.arg_bytes");
	ret = wfi_args_get(&ring->args, len, &f->arg_off, &f->arg_class);
	if (wfi_unlikely(ret < 0))
		return wfi_client_fail(ret, "the argument area is full: poll, then retry");
	f->out_off = put_args(ring, op, shape, f->arg_off);
	if (wfi_unlikely(shape & WFI_ARG_SIGNAL))
		wfi_signal_begin(ring, (uint32_t)(f - ring->flights), op,
				 ring->arg + f->arg_off + len - sizeof(struct weft_arg_signal));
	f->out_kind = (uint16_t)(shape & WFI_ARG_OUT);
	f->out = out_of(op, shape);
	f->ticket = shape & (WFI_ARG_EXPECT | WFI_ARG_CHANNEL) ? op->ticket : NULL;
	f->message = op->message;
	f->nr_routes = (uint8_t)op->nr_routes;
	return 0;
}

/* looks at the node's line, which moves it: only when the queue seems full */
static int sq_refresh(struct weft_ring *ring)
{
	/* pairs with the node's release of its head: it has made its copies */
	uint32_t head = __atomic_load_n(&ring->node->head, __ATOMIC_ACQUIRE);

	if (wfi_unlikely(head - ring->sq_head > ring->sq_pos - ring->sq_head))
		return wfi_ring_broken(ring);
	ring->sq_head = head;
	if (ring->sq_pos - head > ring->sq_mask)
		return wfi_client_fail(-EAGAIN, "the submission queue is full: poll, then retry");
	return 0;
}

static uint64_t *sq_entry(const struct weft_ring *ring, uint32_t pos)
{
	return ring->sq + (size_t)(pos & ring->sq_mask) * WFI_SQE_WORDS;
}

static uint32_t timeout_of(const struct weft_op *op)
{
	if (wfi_unlikely(op->flags & WEFT_F_SIGNAL) && !op->timeout_us)
		return WFI_SIGNAL_TIMEOUT_US;
	return op->timeout_us;
}

/* all of it but the first word. Return: the first word */
static uint64_t put_entry(struct weft_ring *ring, const struct weft_op *op,
			  const struct wfi_flight *f, uint32_t idx)
{
	uint32_t pos = ring->sq_pos;
	uint64_t *entry = sq_entry(ring, pos);
	uint64_t head = (uint64_t)op->op << 32 | (uint64_t)op->flags << 40 | (pos + 1);

	entry[1] = (uint64_t)f->gen << 32 | idx;
	entry[2] = (uint64_t)op->nr << 32 | (op->space ? op->space->id : 0);
	entry[3] = (uint64_t)timeout_of(op) << 32 | f->arg_off;
	entry[4] = op->handle;
	if (wfi_unlikely(op->handle && (op->op == WEFT_OP_PUT || (op->op == WEFT_OP_HANDOFF_PUSH &&
								  op->flags & WEFT_F_COPY))))
		entry[4] = event_id(ring->w, op->handle);
	if (wfi_unlikely(op->trace != NULL)) {
		memcpy(entry + 5, op->trace, 24);
		head |= (uint64_t)op->trace[24] << 48;
	} else {
		entry[5] = 0;
		entry[6] = 0;
		entry[7] = 0;
	}
	return head;
}

static int post(struct weft_ring *ring, const struct weft_op *op, uint64_t *first)
{
	uint32_t idx = ring->first_free;
	struct wfi_flight *f;
	unsigned shape;
	int ret;

	if (wfi_unlikely(op->op >= WEFT_OP_NR))
		return wfi_client_fail(-EINVAL, "no operation has this opcode");
	if (wfi_unlikely(ring->sq_pos - ring->sq_head > ring->sq_mask)) {
		ret = sq_refresh(ring);
		if (ret < 0)
			return ret;
	}
	if (wfi_unlikely(idx == WFI_NO_FLIGHT))
		return wfi_client_fail(-EAGAIN, "too many operations are open: poll, then retry");
	f = &ring->flights[idx];
	f->arg_class = WFI_ARGS_NONE;
	f->arg_off = 0;
	f->out_kind = 0;
	shape = shape_of(op);
	if (shape) {
		ret = flight_args(ring, f, op, shape);
		if (wfi_unlikely(ret < 0))
			return ret;
	}
	f->user_data = op->user_data;
	f->nr = op->nr;
	f->op = op->op;
	f->state = WFI_FLIGHT_OPEN;
	ring->first_free = f->next;
	ring->nr_open++;
	*first = put_entry(ring, op, f, idx);
	return 0;
}

int weft_submit(struct weft_ring *ring, const struct weft_op *ops, unsigned nr)
{
	uint64_t *entry = sq_entry(ring, ring->sq_pos);
	uint64_t first = 0, later = 0;
	unsigned done;
	int ret;

	if (wfi_unlikely(!wfi_client_alive(ring->w)))
		return wfi_client_gone();
	if (wfi_unlikely(!nr))
		return 0;
	for (done = 1; done < nr && done < PREFETCH_MAX; done++)
		wfi_prefetch_write(sq_entry(ring, ring->sq_pos + done));
	ret = post(ring, &ops[0], &first);
	if (wfi_unlikely(ret < 0))
		return ret;
	ring->sq_pos++;
	for (done = 1; done < nr; done++) {
		if (wfi_unlikely(post(ring, &ops[done], &later) < 0))
			break;
		wfi_entry_publish(sq_entry(ring, ring->sq_pos), later);
		ring->sq_pos++;
	}
	/* the first goes last: the node looks at it all the time, and would pull the lines of the
	 * rest away while they are written */
	wfi_entry_publish(entry, first);
	wfi_bell_fence();
	if (wfi_unlikely(wfi_bell_wanted(ring->node)))
		wfi_bell_ring(ring->engine);
	return (int)done;
}
