/* SPDX-License-Identifier: Apache-2.0 */
/* client_poll.c - completions: taken, waited for, or made up when the node is gone */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include "ring/bell.h"
#include "ring/client_priv.h"
#include "ring/entry.h"

#define SPIN_NS 30000u
#define SPIN_HOT                                                                                   \
	512u /* polls without a pause: the answer of a node that is awake comes within them */
#define ROUND_NS 100000000u /* asleep, the socket is looked at this often */
#define CHECK_NS 1000000u /* polling, this often */
#define SHOW_EMPTIES 256u /* polls in a row that found nothing */
#define AHEAD 24u /* completions: a dozen lines, about as many as a core calls for at once */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

__attribute__((cold)) int wfi_ring_broken(struct weft_ring *ring)
{
	__atomic_store_n(&ring->w->attached, 0, __ATOMIC_RELEASE);
	return wfi_client_fail(-ECONNRESET, "the node broke the ring's protocol: call "
					    "weft_reattach()");
}

void wfi_ring_show(struct weft_ring *ring)
{
	ring->cq_shown = ring->cq_pos;
	/* pairs with the node's acquire: it may fill the entries again, our copies are made */
	__atomic_store_n(&ring->engine->head, ring->cq_pos, __ATOMIC_RELEASE);
	wfi_bell_fence();
	if (wfi_bell_wanted(ring->node))
		wfi_bell_ring(ring->engine);
}

/* ---- one completion ---- */

static uint32_t min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void copy_slots(const struct weft_ring *ring, const struct wfi_flight *f, uint32_t first,
		       uint32_t nr)
{
	const size_t size = sizeof(struct weft_slot);

	memcpy((char *)f->out + first * size, ring->arg + f->out_off + first * size, nr * size);
}

/* the last completion's arrays, from the segment to where the caller wants them */
static void copy_out(const struct weft_ring *ring, const struct wfi_flight *f, int32_t res)
{
	const char *from = ring->arg + f->out_off;

	switch (f->out_kind) {
	case WFI_ARG_SLOTS_OUT:
		copy_slots(ring, f, 0, min32((uint32_t)res, f->nr));
		break;
	case WFI_ARG_RESULTS:
	case WFI_ARG_WHERE:
		memcpy(f->out, from, f->nr * sizeof(int32_t));
		break;
	case WFI_ARG_STAT:
		memcpy(f->out, from, sizeof(struct weft_stat));
		break;
	case WFI_ARG_ROUTE:
		memcpy(f->out, from + sizeof(struct weft_arg_route),
		       min32((uint32_t)res, f->nr_routes) * sizeof(struct weft_route));
		break;
	}
}

/* what operations of channels answer with beside slots */
static __attribute__((noinline)) void copy_channel(const struct weft_ring *ring,
						   const struct wfi_flight *f)
{
	const char *from = ring->arg + f->arg_off;
	struct weft_arg_channel channel;
	struct weft_arg_message message;

	if (f->op == WEFT_OP_CHANNEL_RECV) {
		memcpy(&message, from, sizeof(message));
		*f->message = (struct weft_message){ .seq = message.seq,
						     .tag = message.tag,
						     .bytes = message.bytes };
	} else if (f->op == WEFT_OP_CHANNEL_OPEN) {
		memcpy(f->ticket, from, sizeof(*f->ticket));
	} else if (f->op == WEFT_OP_CHANNEL_JOIN && f->message) {
		memcpy(&channel, from, sizeof(channel));
		f->message->seq = channel.seq;
	}
}

/* an operation that failed as a whole has failed for each of its blocks */
static void fail_results(const struct wfi_flight *f, int32_t res)
{
	int32_t *results = f->out;
	uint32_t i;

	for (i = 0; f->out_kind == WFI_ARG_RESULTS && i < f->nr; i++)
		results[i] = res;
}

/* one of several completions of an operation. Return: false when it makes no sense */
static bool take_event(const struct weft_ring *ring, const struct wfi_flight *f,
		       const struct weft_cqe *cqe, struct weft_completion *out)
{
	if (f->op != WEFT_OP_HANDOFF_EXPECT)
		return false;
	if (cqe->flags & WEFT_CQE_TICKET) {
		if (f->ticket)
			memcpy(f->ticket, ring->arg + f->arg_off, sizeof(*f->ticket));
		return true;
	}
	out->handle = 0;
	out->first_block = (uint32_t)cqe->value;
	out->nr_blocks = (uint32_t)(cqe->value >> 32);
	if (!wfi_range_ok(out->first_block, out->nr_blocks, f->nr))
		return false;
	if (f->out_kind == WFI_ARG_SLOTS_OUT)
		copy_slots(ring, f, out->first_block, out->nr_blocks);
	return true;
}

static void flight_free(struct weft_ring *ring, struct wfi_flight *f)
{
	if (f->arg_class != WFI_ARGS_NONE)
		wfi_args_put(&ring->args, f->arg_off, f->arg_class);
	if (wfi_unlikely(ring->signals != NULL))
		wfi_signal_end(ring, (uint32_t)(f - ring->flights));
	f->state = WFI_FLIGHT_FREE;
	f->gen++;
	f->next = ring->first_free;
	ring->first_free = (uint32_t)(f - ring->flights);
	ring->nr_open--;
}

/* Return: false when the node's entry belongs to no open operation, or makes no sense */
static bool deliver(struct weft_ring *ring, const struct weft_cqe *cqe, struct weft_completion *out)
{
	uint32_t idx = (uint32_t)cqe->user_data;
	struct wfi_flight *f;

	if (wfi_unlikely(idx >= ring->nr_flights))
		return false;
	f = &ring->flights[idx];
	if (wfi_unlikely(f->gen != cqe->user_data >> 32 || f->state != WFI_FLIGHT_OPEN))
		return false;
	*out = (struct weft_completion){ .user_data = f->user_data,
					 .res = cqe->res,
					 .op = f->op,
					 .flags = cqe->flags,
					 .layer = cqe->layer,
					 .nr_layers = cqe->nr_layers,
					 .handle = cqe->value };
	if (wfi_unlikely(cqe->flags & WEFT_CQE_MORE))
		return take_event(ring, f, cqe, out);
	if (f->out_kind && f->out) {
		if (cqe->res >= 0)
			copy_out(ring, f, cqe->res);
		else
			fail_results(f, cqe->res);
	}
	if (wfi_unlikely(f->op >= WEFT_OP_CHANNEL_OPEN && cqe->res >= 0))
		copy_channel(ring, f);
	flight_free(ring, f);
	return true;
}

/* ---- polling ---- */

static const uint64_t *cq_entry(const struct weft_ring *ring, uint32_t pos)
{
	return ring->cq + (size_t)(pos & ring->cq_mask) * WFI_CQE_WORDS;
}

static int take(struct weft_ring *ring, struct weft_completion *out, unsigned max)
{
	unsigned nr;

	for (nr = 0; nr < max; nr++) {
		uint32_t pos = ring->cq_pos;
		const uint64_t *entry = cq_entry(ring, pos);
		uint64_t first = wfi_entry_peek(entry);
		struct weft_cqe cqe;

		if ((uint32_t)first != pos + 1)
			break;
		/* where the next submission goes, mostly: the node has looked at that line since */
		wfi_prefetch_write(ring->sq +
				   (size_t)(ring->sq_pos & ring->sq_mask) * WFI_SQE_WORDS);
		/* written by a node that is ahead; else it is here from the lap before */
		__builtin_prefetch(cq_entry(ring, pos + AHEAD));
		wfi_entry_take(&cqe, entry, first, WFI_CQE_WORDS);
		if (wfi_unlikely(!deliver(ring, &cqe, &out[nr]))) {
			wfi_ring_broken(ring);
			break;
		}
		ring->cq_pos = pos + 1;
	}
	if (wfi_unlikely(ring->cq_pos - ring->cq_shown >= ring->cq_quarter))
		wfi_ring_show(ring);
	return (int)nr;
}

/* operations of a node that is gone */
static __attribute__((cold, noinline)) int take_lost(struct weft_ring *ring,
						     struct weft_completion *out, unsigned max)
{
	unsigned nr = 0;
	uint32_t i;

	for (i = 0; i < ring->nr_flights && ring->nr_lost && nr < max; i++) {
		struct wfi_flight *f = &ring->flights[i];

		if (f->state != WFI_FLIGHT_LOST)
			continue;
		out[nr++] = (struct weft_completion){ .user_data = f->user_data,
						      .res = -ECONNRESET,
						      .op = f->op };
		if (f->out_kind && f->out)
			fail_results(f, -ECONNRESET);
		/* its argument area went with the ring */
		f->arg_class = WFI_ARGS_NONE;
		flight_free(ring, f);
		ring->nr_lost--;
	}
	return (int)nr;
}

/* lost operations come first, then what the node completed before its end, then the rest */
static __attribute__((cold, noinline)) int poll_slow(struct weft_ring *ring,
						     struct weft_completion *out, unsigned max)
{
	int nr = ring->nr_lost ? take_lost(ring, out, max) : take(ring, out, max);

	if (nr || wfi_client_alive(ring->w))
		return nr;
	wfi_ring_lose(ring);
	return take_lost(ring, out, max);
}

static __attribute__((noinline)) void poll_idle(struct weft_ring *ring)
{
	uint64_t now;

	ring->empties = 0;
	if (ring->cq_shown != ring->cq_pos)
		wfi_ring_show(ring);
	now = now_ns();
	if (now - ring->checked_ns < CHECK_NS)
		return;
	ring->checked_ns = now;
	wfi_client_check(ring->w);
}

int weft_poll(struct weft_ring *ring, struct weft_completion *out, unsigned max)
{
	int nr;

	if (wfi_unlikely(ring->nr_lost || !wfi_client_alive(ring->w)))
		return poll_slow(ring, out, max);
	nr = take(ring, out, max);
	if (nr)
		ring->empties = 0;
	else if (wfi_unlikely(++ring->empties == SHOW_EMPTIES))
		poll_idle(ring);
	return nr;
}

/* ---- waiting ---- */

/* Return: completions, 0 when the other side was to be slept for, and perhaps was */
static int sleep_once(struct weft_ring *ring, struct weft_completion *out, unsigned max,
		      uint64_t round_ns)
{
	uint32_t bell = wfi_bell_read(ring->node);
	int nr;

	wfi_bell_sleeping(ring->engine, 1);
	wfi_ring_show(ring); /* fences between the flag and the look at the ring */
	nr = weft_poll(ring, out, max);
	if (!nr) {
		wfi_bell_wait(ring->node, bell, round_ns);
		nr = weft_poll(ring, out, max);
	}
	wfi_bell_sleeping(ring->engine, 0);
	if (!nr && !wfi_client_check(ring->w))
		nr = weft_poll(ring, out, max);
	return nr;
}

/* Return: completions that came within a few polls, mostly of a node that is awake */
static int spin_hot(struct weft_ring *ring, struct weft_completion *out, unsigned max)
{
	unsigned i;
	int nr;

	for (i = 0; i < SPIN_HOT; i++) {
		nr = weft_poll(ring, out, max);
		if (nr)
			return nr;
	}
	return 0;
}

static int spin(struct weft_ring *ring, struct weft_completion *out, unsigned max, uint64_t end_ns)
{
	unsigned i;
	int nr;

	do {
		for (i = 0; i < 32; i++) {
			nr = weft_poll(ring, out, max);
			if (nr)
				return nr;
			wfi_cpu_relax();
		}
		/* the answer may wait for the very core that waits for it */
		sched_yield();
	} while (now_ns() < end_ns);
	return 0;
}

static int spin_some(struct weft_ring *ring, struct weft_completion *out, unsigned max,
		     uint64_t end_ns)
{
	int nr = spin_hot(ring, out, max);

	if (nr || !wfi_spin_begin(&ring->spin))
		return nr;
	nr = spin(ring, out, max, end_ns);
	wfi_spin_end(&ring->spin, nr != 0);
	return nr;
}

/* the end may have been noticed after the last poll: what was open completes first */
static int wait_gone(struct weft_ring *ring, struct weft_completion *out, unsigned max)
{
	int nr = weft_poll(ring, out, max);

	return nr ? nr : wfi_client_gone();
}

int weft_wait(struct weft_ring *ring, struct weft_completion *out, unsigned max,
	      uint64_t timeout_us)
{
	uint64_t now, end_ns;
	int nr = weft_poll(ring, out, max);

	if (nr)
		return nr;
	if (!wfi_client_alive(ring->w))
		return wait_gone(ring, out, max);
	if (!max || (!timeout_us && !ring->nr_open))
		return wfi_client_fail(-EINVAL,
				       "nothing can come: no operation is open, or no room "
				       "for its completion");
	now = now_ns();
	end_ns = timeout_us && timeout_us < (UINT64_MAX - now) / 1000 ? now + timeout_us * 1000
								      : UINT64_MAX;
	nr = spin_some(ring, out, max, wfi_min(now + SPIN_NS, end_ns));
	while (!nr) {
		if (!wfi_client_alive(ring->w))
			return wait_gone(ring, out, max);
		now = now_ns();
		if (now >= end_ns)
			return 0;
		nr = sleep_once(ring, out, max, wfi_min(ROUND_NS, end_ns - now));
	}
	return nr;
}
