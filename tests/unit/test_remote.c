/* SPDX-License-Identifier: Apache-2.0 */
/* blocks of other nodes, with messages that get lost, come late, or lie */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/cluster/cluster_private.h"
#include "tests/unit/remote_world.h"

#define MANY 1024u /* slots: more than a node has */

static void test_get(void **state)
{
	struct fixture *f = *state;
	struct wfi_cluster_stat st;
	uint32_t n;

	put_chain(f, 1);
	for (n = 0; n < NODES; n += 2)
		assert_int_equal(get(f, n), CHAIN);
	wfi_cluster_stat(f->nodes[1].cluster, &st);
	assert_int_equal(st.lent, 2 * CHAIN);
	assert_int_equal(f->nr_sent[CLUSTER_LEASE], 2);
	assert_true(f->nr_sent[CLUSTER_RELEASE] >= 1);
}

/* who is asked each so often is awake when the next request is due, asleep before, and not for long
 * when none comes */
static void test_pace(void **state)
{
	const uint64_t apart_ns = 400 * WFI_NSEC_PER_USEC;
	struct fixture *f = *state;
	const struct wfi_cluster *holder = f->nodes[1].cluster;
	struct wish w;
	uint32_t i;

	put_chain(f, 1);
	assert_true(wfi_cluster_awaited_ns(holder) <= now(f));
	for (i = 0; i < 3; i++) {
		want(f, 0, &w, DEADLINE_NS);
		turns(f, apart_ns);
		assert_int_equal(came(&w), CHAIN);
		assert_int_equal(wfi_cluster_awaited_ns(holder) > now(f), i > 0);
	}
	want(f, 0, &w, DEADLINE_NS);
	turns(f, 0);
	/* it sleeps, but not over the next one */
	assert_true(wfi_cluster_awaited_ns(holder) < now(f) + apart_ns / 4);
	assert_true(wfi_cluster_next_event_ns(holder) < now(f) + apart_ns);
	turns(f, 4 * apart_ns);
	assert_true(wfi_cluster_awaited_ns(holder) < now(f));
	assert_true(wfi_cluster_next_event_ns(holder) > now(f));
}

static void test_share(void **state)
{
	struct fixture *f = *state;
	struct wish w[4];
	uint32_t i;

	put_chain(f, 1);
	for (i = 0; i < 4; i++)
		want(f, 0, &w[i], DEADLINE_NS);
	turns(f, DEADLINE_NS);
	for (i = 0; i < 4; i++)
		assert_int_equal(came(&w[i]), CHAIN);
	assert_int_equal(f->nr_sent[CLUSTER_LEASE], 1);
}

/* who asks when to poll next does not sleep over what has come and is not handed on yet */
static void test_share_in_slices(void **state)
{
	struct fixture *f = *state;
	struct wfi_cluster *c = f->nodes[0].cluster;
	struct wish w[8];
	uint32_t i;

	put_chain(f, 1);
	c->o.slice_bytes = 1;
	for (i = 0; i < WFI_ARRAY_SIZE(w); i++)
		want(f, 0, &w[i], DEADLINE_NS);
	turns(f, 0);
	assert_false(w[0].done);
	assert_int_equal(wfi_cluster_next_event_ns(c), 0);
	turns(f, DEADLINE_NS / 2);
	for (i = 0; i < WFI_ARRAY_SIZE(w); i++)
		assert_int_equal(came(&w[i]), CHAIN);
	assert_true(wfi_cluster_next_event_ns(c) > now(f));
}

static bool lose_first_lease(struct fixture *f, struct letter *l)
{
	return l->msg.head.type != CLUSTER_LEASED || f->odd++;
}

/* who waits for a fetch that was given up fetches by itself */
static void test_share_outlives(void **state)
{
	struct fixture *f = *state;
	struct wish first, second;

	put_chain(f, 1);
	f->tamper = lose_first_lease;
	want(f, 0, &first, DEADLINE_NS);
	turns(f, 0);
	want(f, 0, &second, DEADLINE_NS);
	turns(f, 0);
	wfi_cluster_cancel(f->nodes[0].cluster, first.pull);
	turns(f, DEADLINE_NS);
	assert_int_equal(came(&first), 0);
	assert_int_equal(came(&second), CHAIN);
}

/* a lie in each field of an answer, one after the other */
static bool lie(struct fixture *f, struct letter *l)
{
	struct cluster_leased *m = &l->msg.leased;

	if (m->head.type != CLUSTER_LEASED || m->res <= 0)
		return true;
	switch (f->odd) {
	case 0:
		m->proofs[2].gen++;
		break;
	case 1:
		m->proofs[2].born ^= 1;
		break;
	case 2:
		m->proofs[2].crc ^= 1u << 31;
		break;
	case 3:
		m->proofs[2].off += 64;
		break;
	case 4:
		m->proofs[2].off = UINT64_MAX - 8;
		break;
	case 5:
		m->proofs[2].off = ~(uint64_t)BLOCK_BYTES;
		break;
	case 6:
		m->proofs[2] = m->proofs[3];
		break;
	case 7:
		m->proofs[2].gen = 0;
		break;
	case 8:
		m->incarnation++;
		break;
	case 9:
		m->lease = 0;
		break;
	case 10:
		m->res = INT32_MIN;
		break;
	case 11:
		m->head.nr--;
		m->head.len -= sizeof(m->proofs[0]);
		l->len = m->head.len;
		break;
	case 12:
		m->lease_us = 0;
		break;
	default:
		m->head.id ^= 1ull << 40;
		break;
	}
	return true;
}

static void test_lies(void **state)
{
	struct fixture *f = *state;

	put_chain(f, 1);
	f->tamper = lie;
	for (f->odd = 0; f->odd < 14; f->odd++) {
		const uint32_t want_nr = f->odd < 8 ? CHAIN - 1 : 0;
		const uint32_t n = get(f, 0);

		if (n != want_nr && f->odd != 12)
			fail_msg("lie %u: %u blocks came", f->odd, n);
	}
	f->tamper = NULL;
	assert_int_equal(get(f, 0), CHAIN);
}

/* holders and ranges that there are not */
static bool lie_of_holders(struct fixture *f, struct letter *l)
{
	struct cluster_looked *m = &l->msg.looked;

	if (m->head.type != CLUSTER_LOOKED || !m->head.nr)
		return true;
	switch (f->odd) {
	case 0:
		m->runs[0].node = 77;
		m->runs[0].other = 0;
		break;
	case 1:
		m->runs[0].first = UINT16_MAX - 2;
		break;
	case 2:
		m->runs[0].nr = UINT16_MAX;
		break;
	case 3:
		m->runs[0].node = l->to + 1;
		break;
	default:
		return false;
	}
	return true;
}

static void test_wrong_holders(void **state)
{
	struct fixture *f = *state;
	uint32_t n, asked;

	/* whoever has the shard: two of three have to ask for it */
	for (n = 0; n < NODES; n++) {
		put_chain(f, n);
		f->tamper = lie_of_holders;
		for (f->odd = 0; f->odd < 5; f->odd++)
			for (asked = 0; asked < NODES; asked++)
				if (asked != n)
					(void)get(f, asked);
		f->tamper = NULL;
	}
}

/* who has the shard of a chain knows at once what the others ask it for */
static void test_look(void **state)
{
	struct fixture *f = *state;
	struct wfi_found found;
	uint32_t n, i, known = 0;

	for (n = 0; n < NODES; n++)
		put_chain(f, n);
	for (n = 0; n < NODES; n++) {
		const struct wfi_seek_opts o = { .space = f->nodes[n].space.id,
						 .nr = CHAIN,
						 .from = 1,
						 .keys = f->keys,
						 .now_ns = now(f) };

		if (!wfi_cluster_look(f->nodes[n].cluster, &o, &found))
			continue;
		known++;
		assert_int_equal(found.reached, CHAIN - 1);
		assert_false(found.partial);
		for (i = 0; i < CHAIN - 1; i++)
			assert_int_not_equal(wfi_cluster_node(f->nodes[n].cluster, found.peers[i]),
					     0);
	}
	assert_int_equal(known, 1);
}

static bool look_at(struct fixture *f, uint32_t n, struct wfi_found *found)
{
	const struct wfi_seek_opts o = {
		.space = f->nodes[n].space.id, .nr = CHAIN, .keys = f->keys, .now_ns = now(f)
	};

	return wfi_cluster_look(f->nodes[n].cluster, &o, found);
}

/* who begins in the middle of a chain finds its head, though other chains have taken the place of
 * a block's note; and who looks at it all now and then puts that right */
static void test_seen(void **state)
{
	struct fixture *f = *state;
	struct wfi_found found;
	struct wfi_space_info *space;
	struct wfi_cluster *c;
	uint32_t n, i, k, head;
	uint64_t tag;

	for (n = 0; !look_at(f, n, &found); n++)
		assert_in_range(n, 0, NODES - 2);
	put_chain(f, (n + 1) % NODES);
	assert_true(look_at(f, n, &found));
	assert_int_equal(found.reached, CHAIN);
	c = f->nodes[n].cluster;
	space = &f->nodes[n].space;
	head = wfi_cl_chain_head(c, space, f->keys, CHAIN);
	for (i = 0; i < CHAIN; i++) {
		tag = wfi_block_tag(space->tag, &f->keys[i]);
		cl_chain_note(c, tag, 0);
		if (i < CHAIN - 1)
			assert_int_equal(wfi_cl_chain_head(c, space, &f->keys[i], CHAIN - i), head);
		for (k = 0; k < 8 * CHAIN && !cl_chain_seen(c, tag); k++)
			assert_true(look_at(f, n, &found));
		assert_int_equal(cl_chain_seen(c, tag), head);
	}
}

static bool lose_leased(struct fixture *f, struct letter *l)
{
	(void)f;
	return l->msg.head.type != CLUSTER_LEASED;
}

/* in time, and without a word of the holder */
static void test_no_answer(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	put_chain(f, 1);
	f->tamper = lose_leased;
	want(f, 0, &w, 10 * WFI_NSEC_PER_MSEC);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
	want(f, 0, &w, WFI_NSEC_PER_SEC);
	turns(f, PATIENCE_NS + WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
}

static bool delay_leased_of_1(struct fixture *f, struct letter *l)
{
	if (l->msg.head.type == CLUSTER_LEASED && l->from == 1)
		l->at_ns = now(f) + 15 * WFI_NSEC_PER_MSEC;
	return true;
}

/* the second holder is asked when the first is slow, whose lease goes back when it comes */
static void test_hedge(void **state)
{
	struct fixture *f = *state;
	struct wfi_cluster_stat st;
	uint32_t i, hedged = 0;
	struct weft_stat kv;
	struct wish w;

	put_chain(f, 1);
	put_chain(f, 2);
	f->tamper = delay_leased_of_1;
	/* which of them is the first to be asked changes */
	for (i = 0; i < 6; i++) {
		want(f, 0, &w, DEADLINE_NS);
		turns(f, 10 * WFI_NSEC_PER_MSEC);
		assert_int_equal(came(&w), CHAIN);
		turns(f, 200 * WFI_NSEC_PER_MSEC);
		wfi_cluster_stat(f->nodes[0].cluster, &st);
		hedged = (uint32_t)st.hedged;
	}
	assert_true(hedged > 0);
	wfi_kv_stat(f->nodes[1].kv, f->nodes[1].tenant, &kv);
	assert_int_equal(kv.slots_leased, 0);
}

/* READs that no shutdown ends are waited for by the pull that lent them memory, and no other: who
 * wants the same blocks, then or later, has them of another holder */
static void test_read_hangs(void **state)
{
	struct fixture *f = *state;
	struct wish first, waiter, later;
	uint32_t hung;

	put_chain(f, 1);
	put_chain(f, 2);
	hold(f, true);
	want(f, 0, &first, 10 * DEADLINE_NS);
	turns(f, WFI_NSEC_PER_MSEC);
	hung = wfi_cluster_reads_of(f->nodes[0].cluster, f->nodes[0].links[1].ep) ? 1 : 2;
	hold_link(f, 0, hung);
	want(f, 0, &waiter, 10 * DEADLINE_NS);
	/* until a second holder is tried, and twice the grace of a transfer */
	turns(f, 110 * WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&waiter), CHAIN);
	want(f, 0, &later, DEADLINE_NS);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&later), CHAIN);
	assert_false(first.done);
	hold(f, false);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&first), CHAIN);
}

/* of requests for leases: the longest; and with .odd the first of them takes a second */
static uint32_t longest_us;

static bool measure_leases(struct fixture *f, struct letter *l)
{
	if (l->msg.head.type == CLUSTER_LEASED)
		return false;
	if (l->msg.head.type != CLUSTER_LEASE)
		return true;
	longest_us = wfi_max(longest_us, l->msg.lease.lease_us);
	if (f->odd)
		f->nodes[0].cluster->now_ns += WFI_NSEC_PER_SEC;
	f->odd = 0;
	return true;
}

/* node 0 wants the beginning of .keys */
static void want_some(struct fixture *f, struct wish *w, uint32_t nr)
{
	const struct test_node *node = &f->nodes[0];
	const struct wfi_pull_opts o = { .tenant = node->tenant,
					 .space = node->space.id,
					 .nr = nr,
					 .keys = f->keys,
					 .slots = w->slots,
					 .places = w->places,
					 .results = w->results,
					 .now_ns = now(f),
					 .deadline_ns = now(f) + DEADLINE_NS,
					 .done = wish_done,
					 .ctx = w };
	uint32_t i;

	*w = (struct wish){ .done = false };
	memset(w->slots, 0xff, sizeof(w->slots));
	for (i = 0; i < CHAIN; i++)
		w->places[i] = w->bytes[i];
	assert_int_equal(wfi_cluster_pull(node->cluster, &o, &w->pull), 0);
}

/* time goes on while others are hedged: a lease past its pull's deadline is asked of nobody */
static void test_hedge_too_late(void **state)
{
	struct fixture *f = *state;
	struct wish w[2];

	put_chain(f, 1);
	put_chain(f, 2);
	f->tamper = measure_leases;
	longest_us = 0;
	want_some(f, &w[0], CHAIN / 2);
	turns(f, 0);
	want_some(f, &w[1], CHAIN);
	turns(f, 0);
	assert_int_equal(f->nr_sent[CLUSTER_LEASE], 2);
	f->odd = 1;
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	assert_int_equal(f->odd, 0);
	assert_true(w[0].done && w[1].done);
	assert_true(longest_us <= DEADLINE_NS / WFI_NSEC_PER_USEC);
}

/* what is left on node 0: an engine fills it */
static struct weft_slot taken[MANY];
static uint32_t nr_taken;

static void take_all(struct fixture *f)
{
	struct test_node *node = &f->nodes[0];
	struct weft_slot *s = taken;

	while (wfi_kv_claim(node->kv, &node->engine, node->space.id, 1, s, now(f)) == 1) {
		memset(wfi_kv_slot_addr(node->kv, s->idx), 0xaa, BLOCK_BYTES);
		s++;
		assert_true(s < taken + MANY);
	}
	nr_taken = (uint32_t)(s - taken);
}

/* what the first holder lends fails its check; before the second lends, nothing is free any more */
static bool spoil_then_take(struct fixture *f, struct letter *l)
{
	struct cluster_leased *m = &l->msg.leased;
	uint32_t i;

	if (m->head.type != CLUSTER_LEASED || m->res <= 0)
		return true;
	if (f->odd++)
		take_all(f);
	else
		for (i = 0; i < m->head.nr; i++)
			m->proofs[i].crc ^= 1u << 31;
	return true;
}

/* slots that were claimed for a try are not written to by the next one */
static void test_no_room_again(void **state)
{
	struct fixture *f = *state;
	struct test_node *node = &f->nodes[0];
	struct wish w = { 0 };
	struct wfi_pull_opts o = { .tenant = node->tenant,
				   .space = node->space.id,
				   .nr = CHAIN,
				   .keys = f->keys,
				   .slots = w.slots,
				   .results = w.results,
				   .done = wish_done,
				   .ctx = &w };
	uint32_t i, k;

	put_chain(f, 1);
	put_chain(f, 2);
	memset(w.slots, 0xff, sizeof(w.slots));
	f->tamper = spoil_then_take;
	o.now_ns = now(f);
	o.deadline_ns = now(f) + DEADLINE_NS;
	assert_int_equal(wfi_cluster_pull(node->cluster, &o, &w.pull), 0);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	assert_true(w.done);
	assert_int_equal(f->odd, 2);
	assert_true(nr_taken > CHAIN);
	for (i = 0; i < CHAIN; i++)
		assert_int_equal(w.results[i], -ENOENT);
	for (i = 0; i < nr_taken; i++) {
		const uint8_t *bytes = wfi_kv_slot_addr(node->kv, taken[i].idx);

		for (k = 0; k < BLOCK_BYTES; k++)
			assert_int_equal(bytes[k], 0xaa);
	}
	assert_int_equal(wfi_kv_unclaim(node->kv, &node->engine, taken, nr_taken), nr_taken);
}

static void test_holder_lost(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	put_chain(f, 1);
	f->tamper = lose_leased;
	want(f, 0, &w, DEADLINE_NS);
	turns(f, 0);
	link_close(f, 0, 1);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), 0);
	f->tamper = NULL;
	/* the other side hears of it, too */
	link_close(f, 1, 0);
	link_open(f, 0, 1);
	link_open(f, 1, 0);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(get(f, 0), CHAIN);
}

/* a message that takes no peer is tried again */
static void test_stuck(void **state)
{
	struct fixture *f = *state;
	struct wish w;

	put_chain(f, 1);
	f->nodes[0].links[1].stuck = f->nodes[0].links[2].stuck = true;
	want(f, 0, &w, DEADLINE_NS);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_false(w.done);
	f->nodes[0].links[1].stuck = f->nodes[0].links[2].stuck = false;
	turns(f, 2 * WFI_NSEC_PER_MSEC);
	assert_int_equal(came(&w), CHAIN);
}

/* ---- announcements ---- */

static bool lose_some_announcements(struct fixture *f, struct letter *l)
{
	return l->msg.head.type != CLUSTER_ANNOUNCE || f->odd++ % 3 != 1;
}

static bool double_announcements(struct fixture *f, struct letter *l)
{
	struct letter *next;

	if (l->msg.head.type == CLUSTER_ANNOUNCE && f->tail + 1 - f->head < QUEUE) {
		next = &f->queue[++f->tail % QUEUE];
		*next = *l;
	}
	return true;
}

/* what was missed is said again; found is what there is */
static void announce_through(struct fixture *f, bool (*tamper)(struct fixture *, struct letter *))
{
	int32_t results[CHAIN];
	struct wfi_cluster_stat st;
	uint32_t round;

	f->tamper = tamper;
	for (round = 0; round < 6; round++) {
		put_chain(f, 1);
		turns(f, 3 * WFI_NSEC_PER_SEC);
		assert_int_equal(get(f, 0), CHAIN);
		assert_int_equal(get(f, 2), CHAIN);
		wfi_kv_drop(f->nodes[1].kv, f->nodes[1].space.id, f->keys, CHAIN, results);
		turns(f, 3 * WFI_NSEC_PER_SEC);
		assert_int_equal(get(f, 0), 0);
	}
	wfi_cluster_stat(f->nodes[1].cluster, &st);
	assert_true(st.resyncs > 0);
}

static void test_lost_announcements(void **state)
{
	announce_through(*state, lose_some_announcements);
}

static void test_double_announcements(void **state)
{
	announce_through(*state, double_announcements);
}

/* ---- more than one holder ---- */

static void replicas_set(struct fixture *f, uint32_t replicas)
{
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = BLOCK_BYTES,
					       .model = "remote",
					       .layout = "test",
					       .tokens_per_block = 16,
					       .replicas = replicas };
	struct test_node *node = &f->nodes[0];

	assert_int_equal(wfi_kv_space_open(node->kv, node->tenant, &space, &node->space, NULL), 0);
}

static void test_replicas(void **state)
{
	struct fixture *f = *state;

	replicas_set(f, 2);
	put_chain(f, 0);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(held(f, 0), CHAIN);
	assert_int_equal(held(f, 1) + held(f, 2), CHAIN);
	assert_true(!held(f, 1) || !held(f, 2));
	/* the first holder may go now */
	link_close(f, 1, 0);
	link_close(f, 2, 0);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(get(f, held(f, 1) ? 2 : 1), CHAIN);
}

static void test_replicas_everywhere(void **state)
{
	struct fixture *f = *state;

	replicas_set(f, 8);
	put_chain(f, 0);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(held(f, 1), CHAIN);
	assert_int_equal(held(f, 2), CHAIN);
	assert_true(f->nr_sent[CLUSTER_OFFER] <= 4);
}

static bool lose_taken(struct fixture *f, struct letter *l)
{
	(void)f;
	return l->msg.head.type != CLUSTER_TAKEN;
}

/* what was used of late is others' when a node is ready to go; it then lends nothing */
static void test_drain(void **state)
{
	struct fixture *f = *state;
	uint32_t i;

	put_chain(f, 0);
	assert_false(wfi_cluster_drain(f->nodes[0].cluster, now(f)));
	for (i = 0; i < 100 && !wfi_cluster_drain(f->nodes[0].cluster, now(f)); i++)
		turns(f, WFI_NSEC_PER_MSEC);
	assert_true(i < 100);
	assert_int_equal(held(f, 1) + held(f, 2), CHAIN);
	for (i = 1; i < NODES; i++)
		link_close(f, i, 0);
	turns(f, 10 * WFI_NSEC_PER_MSEC);
	assert_int_equal(get(f, held(f, 1) ? 2 : 1), CHAIN);
}

/* nobody waits for ever for peers that say nothing */
static void test_drain_ends(void **state)
{
	struct fixture *f = *state;

	f->tamper = lose_taken;
	put_chain(f, 0);
	assert_false(wfi_cluster_drain(f->nodes[0].cluster, now(f)));
	turns(f, 6 * WFI_NSEC_PER_SEC);
	assert_true(wfi_cluster_drain(f->nodes[0].cluster, now(f)));
}

/* blocks that come for a space that is no more have nowhere to stay */
static void test_space_goes(void **state)
{
	struct fixture *f = *state;
	uint32_t slots[CHAIN];
	int32_t results[CHAIN];
	struct wish w = { .done = false };
	const struct wfi_pull_opts o = { .tenant = f->nodes[0].tenant,
					 .space = f->nodes[0].space.id,
					 .nr = CHAIN,
					 .keys = f->keys,
					 .slots = slots,
					 .results = results,
					 .now_ns = now(f),
					 .deadline_ns = now(f) + DEADLINE_NS,
					 .done = wish_done,
					 .ctx = &w };

	put_chain(f, 1);
	memset(slots, 0xff, sizeof(slots));
	assert_int_equal(wfi_cluster_pull(f->nodes[0].cluster, &o, &w.pull), 0);
	assert_int_equal(wfi_kv_space_remove(f->nodes[0].kv, o.space, NULL), 0);
	turns(f, DEADLINE_NS);
	assert_true(w.done);
	node_open_space(f, 0);
	assert_int_equal(held(f, 0), 0);
	assert_int_equal(get(f, 0), CHAIN);
}

/* random messages from a peer that is one: nothing but their words is wrong */
static void test_garbage(void **state)
{
	struct fixture *f = *state;
	union cluster_msg m;
	uint32_t i, k;
	size_t len;

	put_chain(f, 0);
	for (i = 0; i < 20000; i++) {
		const uint32_t nr = (uint32_t)(wfi_sim_rand(f->sim) % 20);
		const uint32_t type =
			CLUSTER_TYPE_FIRST +
			(uint32_t)(wfi_sim_rand(f->sim) % (CLUSTER_TYPE_END - CLUSTER_TYPE_FIRST));

		for (k = 0; k < 128; k++)
			m.words[k] = wfi_sim_rand(f->sim) >> (wfi_sim_rand(f->sim) % 64);
		len = cluster_msg_head(&m, (enum cluster_type)type,
				       type == CLUSTER_ANNOUNCED || type == CLUSTER_TAKEN ||
						       type == CLUSTER_PROBED ||
						       type == CLUSTER_SPEED
					       ? 0
					       : nr,
				       wfi_sim_rand(f->sim) % 4096);
		if (type == CLUSTER_LEASE && i % 2) {
			m.lease.incarnation = wfi_kv_incarnation(f->nodes[0].kv);
			m.lease.space_tag = f->nodes[0].space.tag;
			for (k = 0; k < nr; k++)
				m.lease.keys[k] = f->keys[k % CHAIN];
		}
		assert_int_equal(wfi_cluster_message(f->nodes[0].cluster,
						     &f->nodes[0].links[1].base, &m, len, now(f)),
				 0);
		if (!(i % 16))
			turns(f, 0);
	}
	turns(f, 3 * WFI_NSEC_PER_SEC);
	assert_int_equal(get(f, 2), CHAIN);
}

/* ---- a chain as long as memory, which was there before anybody asked whose it is ---- */

#define DEEP (1u << 18)
#define DEEP_BYTES 64u
#define DEEP_STACK (256u << 10)

struct deep {
	struct wfi_cluster *cluster;
	struct wfi_peer peer;
	uint64_t now_ns;
	uint32_t most; /* ancestors looked at in one turn */
	uint64_t sum; /* and in all */
	int ret;
};

static int takes_nothing(struct wfi_peer *peer, const void *msg, size_t len)
{
	(void)peer;
	(void)msg;
	(void)len;
	return -EAGAIN;
}

/* no turn looks at more than CL_CLIMBS ancestors, and few look at any: two looks for each block */
static void *deep_sweep(void *arg)
{
	struct deep *d = arg;
	uint32_t i;

	d->ret = wfi_cluster_peer_add(d->cluster, &d->peer, 1);
	for (i = 0; i < DEEP / 32 && !d->ret; i++) {
		wfi_cluster_poll(d->cluster, d->now_ns + i * WFI_NSEC_PER_USEC);
		d->most = wfi_max(d->most, d->cluster->climbed);
		d->sum += d->cluster->climbed;
	}
	return NULL;
}

/* the tail lies in the first slot, which is looked at first */
static void deep_put(struct wfi_kv *kv, struct wfi_owner *owner, uint32_t space)
{
	struct weft_slot *slots = calloc(2 * DEEP, sizeof(*slots)), *last_first = slots + DEEP;
	struct weft_key *keys = calloc(DEEP, sizeof(*keys));
	int32_t *results = calloc(DEEP, sizeof(*results));
	uint32_t i;

	assert_int_equal(wfi_kv_claim(kv, owner, space, DEEP, slots, 1), DEEP);
	for (i = 0; i < DEEP; i++) {
		keys[i] = (struct weft_key){ .lo = wfi_mix64(i), .hi = i + 1 };
		last_first[DEEP - 1 - slots[i].idx] = slots[i];
	}
	assert_int_equal(
		wfi_kv_put(kv, owner, space, NULL, keys, last_first, DEEP, NULL, results, 1), DEEP);
	free(results);
	free(keys);
	free(slots);
}

static void test_deep_chain(void **state)
{
	const struct wfi_tenant_opts tenant = { .name = "t",
						.token = "",
						.arena_bytes = DEEP * DEEP_BYTES };
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = DEEP_BYTES,
					       .model = "deep",
					       .layout = "test",
					       .tokens_per_block = 1 };
	struct deep d = { .peer = { .node = 2, .send = takes_nothing } };
	struct wfi_cluster_opts o = { .node = 1, .directory_bytes = 4096 };
	struct wfi_kv_opts opts = { .max_slots = DEEP };
	struct wfi_space_info info;
	struct wfi_owner owner;
	struct wfi_tenant *t;
	struct wfi_sim *sim;
	const uint32_t *heads;
	pthread_attr_t attr;
	pthread_t thread;
	uint32_t i;

	(void)state;
	assert_int_equal(wfi_sim_create(5, &sim), 0);
	opts.env = o.env = wfi_sim_node(sim, 0);
	assert_int_equal(wfi_kv_create(&opts, &o.kv), 0);
	assert_int_equal(wfi_kv_tenant_add(o.kv, &tenant, &t), 0);
	assert_int_equal(wfi_kv_space_open(o.kv, t, &space, &info, NULL), 0);
	assert_int_equal(wfi_owner_init(o.kv, &owner, t), 0);
	deep_put(o.kv, &owner, info.id);
	assert_int_equal(wfi_cluster_create(&o, &d.cluster), 0);
	d.now_ns = wfi_now(o.env);
	assert_int_equal(pthread_attr_init(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, DEEP_STACK), 0);
	assert_int_equal(pthread_create(&thread, &attr, deep_sweep, &d), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
	assert_int_equal(d.ret, 0);
	assert_in_range(d.most, 1, CL_CLIMBS);
	assert_true(d.sum <= 2 * DEEP + 2);
	heads = d.cluster->heads.addr;
	for (i = 0; i < DEEP; i++)
		assert_int_equal(heads[i], heads[DEEP - 1]);
	assert_int_not_equal(heads[0], 0);
	wfi_cluster_peer_lost(d.cluster, &d.peer);
	wfi_cluster_destroy(d.cluster);
	wfi_kv_destroy(o.kv);
	wfi_sim_destroy(sim);
}

/* ---- the same chain, which is handed on before all of it was looked at ---- */

struct offered {
	uint32_t head; /* of the chain */
	uint32_t nr, nr_wrong; /* blocks */
	uint32_t open;
};

static struct offered offered;

static int takes_offers(struct wfi_peer *peer, const void *msg, size_t len)
{
	union cluster_msg m;

	(void)peer;
	assert_int_equal(cluster_msg_take(&m, msg, len), 0);
	if (m.head.type != CLUSTER_OFFER)
		return 0;
	offered.nr += m.head.nr;
	offered.nr_wrong += m.offer.chain != offered.head ? m.head.nr : 0;
	offered.open++;
	return 0;
}

static void test_deep_drain(void **state)
{
	const struct wfi_tenant_opts tenant = { .name = "t",
						.token = "",
						.arena_bytes = DEEP * DEEP_BYTES };
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = DEEP_BYTES,
					       .model = "deep",
					       .layout = "test",
					       .tokens_per_block = 1 };
	const struct weft_key first = { .lo = wfi_mix64(0), .hi = 1 };
	struct wfi_peer peer = { .node = 2, .send = takes_offers };
	struct wfi_cluster_opts o = { .node = 1, .directory_bytes = 4096 };
	struct wfi_kv_opts opts = { .max_slots = DEEP };
	struct wfi_space_info info;
	struct wfi_cluster *c;
	struct wfi_owner owner;
	struct wfi_tenant *t;
	struct wfi_sim *sim;
	union cluster_msg m;
	uint64_t now_ns;

	(void)state;
	assert_int_equal(wfi_sim_create(5, &sim), 0);
	opts.env = o.env = wfi_sim_node(sim, 0);
	assert_int_equal(wfi_kv_create(&opts, &o.kv), 0);
	assert_int_equal(wfi_kv_tenant_add(o.kv, &tenant, &t), 0);
	assert_int_equal(wfi_kv_space_open(o.kv, t, &space, &info, NULL), 0);
	assert_int_equal(wfi_owner_init(o.kv, &owner, t), 0);
	deep_put(o.kv, &owner, info.id);
	assert_int_equal(wfi_cluster_create(&o, &c), 0);
	now_ns = wfi_now(o.env);
	assert_int_equal(wfi_cluster_peer_add(c, &peer, 1), 0);
	offered = (struct offered){ .head = cl_head(wfi_block_tag(info.tag, &first)) };
	while (!wfi_cluster_drain(c, now_ns) && offered.nr < DEEP / 16) {
		wfi_cluster_poll(c, now_ns++);
		for (; offered.open; offered.open--) {
			cluster_msg_head(&m, CLUSTER_TAKEN, 0, 0);
			assert_int_equal(wfi_cluster_message(c, &peer, &m, m.head.len, now_ns), 0);
		}
	}
	print_message("%u of %u blocks were offered with another chain's head\n", offered.nr_wrong,
		      offered.nr);
	assert_true(offered.nr >= DEEP / 16);
	assert_int_equal(offered.nr_wrong, 0);
	wfi_cluster_peer_lost(c, &peer);
	wfi_cluster_destroy(c);
	wfi_kv_destroy(o.kv);
	wfi_sim_destroy(sim);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_get),
		TEST(test_pace),
		TEST(test_share),
		TEST(test_share_in_slices),
		TEST(test_share_outlives),
		TEST(test_lies),
		TEST(test_wrong_holders),
		TEST(test_look),
		TEST(test_seen),
		TEST(test_no_answer),
		TEST(test_hedge),
		TEST(test_hedge_too_late),
		cmocka_unit_test_setup_teardown(test_read_hangs, world_setup_faults,
						world_teardown),
		TEST(test_no_room_again),
		TEST(test_holder_lost),
		TEST(test_stuck),
		TEST(test_lost_announcements),
		TEST(test_double_announcements),
		TEST(test_replicas),
		TEST(test_replicas_everywhere),
		TEST(test_drain),
		TEST(test_drain_ends),
		TEST(test_space_goes),
		TEST(test_deep_chain),
		TEST(test_deep_drain),
		TEST(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
