/* SPDX-License-Identifier: Apache-2.0 */
/* blocks of other nodes, with messages that get lost, come late, or lie */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "kvcache/cluster/wire.h"
#include "weft_internal/cluster.h"
#include "weft_internal/directory.h"
#include "weft_internal/env.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

#define NODES 3u
#define BLOCK_BYTES 512u
#define CHAIN 6u
#define QUEUE 512u
#define PATIENCE_NS (20 * WFI_NSEC_PER_MSEC)
#define DEADLINE_NS (100 * WFI_NSEC_PER_MSEC)

struct fixture;

/* what one node knows of another */
struct link {
	struct wfi_peer base;
	struct fixture *f;
	uint32_t from, to;
	bool stuck; /* takes nothing */
	struct weft_ep *ep;
	struct weft_rkey *rkey;
	struct wfi_peer_arena arena;
};

struct test_node {
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner engine;
	struct wfi_xfer_engine *xfer;
	struct weft_device *dev;
	struct weft_cq *send_cq, *recv_cq;
	struct wfi_cluster *cluster;
	struct link links[NODES];
};

struct letter {
	uint32_t from, to;
	size_t len;
	uint64_t at_ns; /* delivered from then on */
	union cluster_msg msg;
};

struct fixture {
	struct wfi_sim *sim;
	struct test_node nodes[NODES];
	struct letter queue[QUEUE];
	uint32_t head, tail;
	/* changes a message on its way. Return: false: it gets lost */
	bool (*tamper)(struct fixture *f, struct letter *l);
	uint32_t nr_sent[CLUSTER_TYPE_END];
	uint32_t odd; /* of a tamper */
	struct weft_key keys[CHAIN];
};

struct wish {
	uint32_t slots[CHAIN];
	uint8_t bytes[CHAIN][BLOCK_BYTES];
	void *places[CHAIN];
	int32_t results[CHAIN];
	bool done;
	struct wfi_pull *pull;
};

static uint64_t now(const struct fixture *f)
{
	return wfi_now(f->nodes[0].env);
}

/* ---- the world ---- */

static int link_send(struct wfi_peer *base, const void *msg, size_t len)
{
	struct link *l = wfi_container_of(base, struct link, base);
	struct fixture *f = l->f;
	struct letter *to = &f->queue[f->tail % QUEUE];

	if (l->stuck || f->tail - f->head == QUEUE)
		return -EAGAIN;
	to->from = l->from;
	to->to = l->to;
	to->len = len;
	to->at_ns = 0;
	memcpy(&to->msg, msg, len);
	f->nr_sent[to->msg.head.type]++;
	if (!f->tamper || f->tamper(f, to))
		f->tail++;
	return 0;
}

static const struct wfi_peer_arena *link_arena(struct wfi_peer *base,
					       const struct wfi_tenant *tenant)
{
	(void)tenant;
	return &wfi_container_of(base, struct link, base)->arena;
}

static void node_open(struct fixture *f, uint32_t n)
{
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = BLOCK_BYTES,
					       .model = "remote",
					       .layout = "test",
					       .tokens_per_block = 16 };
	const struct wfi_tenant_opts tenant = { .name = "t", .token = "", .arena_bytes = 1 << 18 };
	const struct weft_transport *loop = wfi_transport_find(NULL, "loop");
	struct weft_device_opts dev = { .size = sizeof(dev) };
	struct weft_cq_opts cq = { .size = sizeof(cq) };
	struct wfi_kv_opts kv = { .extent_bytes = 4096, .max_slots = 16384 };
	struct wfi_xfer_engine_opts x = { 0 };
	struct test_node *node = &f->nodes[n];
	struct wfi_cluster_opts o = { .node = n + 1,
				      .lease_ns = WFI_NSEC_PER_SEC,
				      .patience_ns = PATIENCE_NS,
				      .directory_bytes = 4096,
				      .copy_after = WFI_COPY_NEVER };

	node->env = kv.env = x.env = o.env = wfi_sim_node(f->sim, n);
	assert_int_equal(wfi_kv_create(&kv, &node->kv), 0);
	assert_int_equal(wfi_kv_tenant_add(node->kv, &tenant, &node->tenant), 0);
	assert_int_equal(wfi_kv_space_open(node->kv, node->tenant, &space, &node->space, NULL), 0);
	assert_int_equal(wfi_owner_init(node->kv, &node->engine, node->tenant), 0);
	assert_int_equal(loop->device_open(loop, node->env, &dev, &node->dev), 0);
	assert_int_equal(loop->cq_create(node->dev, &cq, &node->send_cq), 0);
	assert_int_equal(loop->cq_create(node->dev, &cq, &node->recv_cq), 0);
	x.send_cqs[0] = node->send_cq;
	assert_int_equal(wfi_xfer_engine_create(&x, &node->xfer), 0);
	o.kv = node->kv;
	o.xfer = node->xfer;
	assert_int_equal(wfi_cluster_create(&o, &node->cluster), 0);
}

static void link_open(struct fixture *f, uint32_t a, uint32_t b)
{
	struct test_node *node = &f->nodes[a];
	const struct wfi_map *theirs = wfi_tenant_arena(f->nodes[b].tenant);
	const struct weft_transport *t = node->dev->transport;
	struct weft_ep_opts ep = { .size = sizeof(ep),
				   .send_cq = node->send_cq,
				   .recv_cq = node->recv_cq,
				   .flags = WEFT_EP_MEM };
	struct weft_rkey_src src = { .size = sizeof(src),
				     .kind = WEFT_RKEY_PROCESS,
				     .access = WEFT_ACCESS_REMOTE_READ,
				     .fd = -1,
				     .pid = getpid(),
				     .addr = (uintptr_t)theirs->addr,
				     .len = theirs->len };
	struct link *l = &node->links[b];

	*l = (struct link){ .f = f, .from = a, .to = b };
	l->base = (struct wfi_peer){ .node = b + 1, .send = link_send, .arena = link_arena };
	assert_int_equal(t->ep_create(node->dev, &ep, &l->ep), 0);
	assert_int_equal(t->rkey_import(l->ep, &src, &l->rkey), 0);
	l->base.ep = l->ep;
	l->arena.rkey = l->rkey;
	assert_int_equal(wfi_cluster_peer_add(node->cluster, &l->base,
					      wfi_kv_incarnation(f->nodes[b].kv)),
			 0);
}

static void link_close(struct fixture *f, uint32_t a, uint32_t b)
{
	struct test_node *node = &f->nodes[a];
	const struct weft_transport *t = node->dev->transport;
	struct link *l = &node->links[b];
	struct weft_wc wc;

	if (!l->ep)
		return;
	wfi_cluster_peer_lost(node->cluster, &l->base);
	t->ep_shutdown(l->ep);
	while (weft_cq_poll(node->recv_cq, &wc, 1) > 0)
		;
	t->rkey_destroy(l->rkey);
	t->ep_destroy(l->ep);
	l->ep = NULL;
}

/* letters that are due, and one turn of each node */
static void turn(struct fixture *f)
{
	uint32_t left = f->tail - f->head, n;

	while (left--) {
		struct letter l = f->queue[f->head++ % QUEUE];

		if (l.at_ns > now(f)) {
			f->queue[f->tail++ % QUEUE] = l;
			continue;
		}
		assert_int_equal(wfi_cluster_message(f->nodes[l.to].cluster,
						     &f->nodes[l.to].links[l.from].base, &l.msg,
						     l.len, now(f)),
				 0);
	}
	for (n = 0; n < NODES; n++) {
		wfi_xfer_poll(f->nodes[n].xfer, now(f));
		wfi_cluster_poll(f->nodes[n].cluster, now(f));
		wfi_kv_poll(f->nodes[n].kv, now(f));
	}
}

static void turns(struct fixture *f, uint64_t ns)
{
	const uint64_t end_ns = now(f) + ns;
	uint32_t i;

	for (i = 0; i < 20; i++)
		turn(f);
	while (now(f) < end_ns) {
		wfi_sim_advance(f->sim, 100 * WFI_NSEC_PER_USEC);
		turn(f);
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	uint32_t a, b, i;

	assert_non_null(f);
	assert_int_equal(wfi_sim_create(5, &f->sim), 0);
	for (a = 0; a < NODES; a++)
		node_open(f, a);
	for (a = 0; a < NODES; a++)
		for (b = 0; b < NODES; b++)
			if (a != b)
				link_open(f, a, b);
	for (i = 0; i < CHAIN; i++)
		f->keys[i] = (struct weft_key){ .lo = wfi_mix64(i + 1), .hi = wfi_mix64(~i) };
	turns(f, WFI_NSEC_PER_MSEC);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	uint32_t a, b;

	f->tamper = NULL;
	for (a = 0; a < NODES; a++)
		for (b = 0; b < NODES; b++)
			link_close(f, a, b);
	turns(f, WFI_NSEC_PER_SEC);
	for (a = 0; a < NODES; a++) {
		struct test_node *n = &f->nodes[a];
		const struct weft_transport *t = n->dev->transport;
		struct weft_stat st;

		/* nothing is lent, claimed or pinned any more */
		wfi_kv_stat(n->kv, n->tenant, &st);
		assert_int_equal(st.slots_leased, 0);
		assert_int_equal(st.slots_filling, 0);
		wfi_cluster_destroy(n->cluster);
		wfi_xfer_engine_destroy(n->xfer);
		t->cq_destroy(n->send_cq);
		t->cq_destroy(n->recv_cq);
		t->device_close(n->dev);
		wfi_kv_destroy(n->kv);
	}
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

/* ---- blocks ---- */

static void put_chain(struct fixture *f, uint32_t n)
{
	struct test_node *node = &f->nodes[n];
	struct weft_slot slots[CHAIN];
	int32_t results[CHAIN];
	uint32_t i;

	assert_int_equal(
		wfi_kv_claim(node->kv, &node->engine, node->space.id, CHAIN, slots, now(f)), CHAIN);
	for (i = 0; i < CHAIN; i++)
		memset(wfi_kv_slot_addr(node->kv, slots[i].idx), (int)i + 1, BLOCK_BYTES);
	assert_int_equal(wfi_kv_put(node->kv, &node->engine, node->space.id, NULL, f->keys, slots,
				    CHAIN, NULL, results, now(f)),
			 CHAIN);
	turns(f, WFI_NSEC_PER_MSEC);
}

static void on_done(void *ctx)
{
	struct wish *w = ctx;

	assert_false(w->done);
	w->done = true;
	w->pull = NULL;
}

static void want(struct fixture *f, uint32_t n, struct wish *w, uint64_t deadline_ns)
{
	struct wfi_pull_opts o = { .tenant = f->nodes[n].tenant,
				   .space = f->nodes[n].space.id,
				   .nr = CHAIN,
				   .keys = f->keys,
				   .slots = w->slots,
				   .places = w->places,
				   .results = w->results,
				   .now_ns = now(f),
				   .deadline_ns = now(f) + deadline_ns,
				   .done = on_done,
				   .ctx = w };
	uint32_t i;

	memset(w, 0, sizeof(*w));
	memset(w->slots, 0xff, sizeof(w->slots));
	memset(w->bytes, 0xee, sizeof(w->bytes));
	for (i = 0; i < CHAIN; i++)
		w->places[i] = w->bytes[i];
	assert_int_equal(wfi_cluster_pull(f->nodes[n].cluster, &o, &w->pull), 0);
}

/* Return: how many have come; each of them is right */
static uint32_t came(const struct wish *w)
{
	uint32_t i, n = 0;

	assert_true(w->done);
	for (i = 0; i < CHAIN; i++) {
		const uint8_t *b = w->bytes[i];

		assert_true(!w->results[i] || w->results[i] == -ENOENT);
		if (w->results[i])
			continue;
		n++;
		assert_int_equal(b[0], i + 1);
		assert_memory_equal(b, b + 1, BLOCK_BYTES - 1);
	}
	return n;
}

static uint32_t get(struct fixture *f, uint32_t n)
{
	struct wish w;

	want(f, n, &w, DEADLINE_NS);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	return came(&w);
}

/* ---- tests ---- */

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

static uint32_t held(struct fixture *f, uint32_t n)
{
	struct test_node *node = &f->nodes[n];

	return (uint32_t)wfi_kv_match(node->kv, node->space.id, f->keys, CHAIN, NULL);
}

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
				       type == CLUSTER_ANNOUNCED || type == CLUSTER_TAKEN ? 0 : nr,
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_get),
		TEST(test_share),
		TEST(test_share_outlives),
		TEST(test_lies),
		TEST(test_wrong_holders),
		TEST(test_no_answer),
		TEST(test_hedge),
		TEST(test_holder_lost),
		TEST(test_stuck),
		TEST(test_lost_announcements),
		TEST(test_double_announcements),
		TEST(test_replicas),
		TEST(test_replicas_everywhere),
		TEST(test_drain),
		TEST(test_drain_ends),
		TEST(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
