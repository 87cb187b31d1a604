/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/unit/remote_world.h"
#include "weft_internal/transport_registry.h"

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

void node_open_space(struct fixture *f, uint32_t n)
{
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = BLOCK_BYTES,
					       .model = "remote",
					       .layout = "test",
					       .tokens_per_block = 16 };
	struct test_node *node = &f->nodes[n];

	assert_int_equal(wfi_kv_space_open(node->kv, node->tenant, &space, &node->space, NULL), 0);
}

static void tier_open(struct test_node *node)
{
	const struct wfi_tier_ssd_opts ssd = { .env = node->env,
					       .path = TIER_PATH,
					       .bytes = 1 << 20,
					       .node = 7,
					       .chunk_bytes = 1 << 16 };
	const struct wfi_kv_tier_opts o = { 0 };

	assert_int_equal(wfi_tier_ssd_open(&ssd, &node->tier), 0);
	assert_int_equal(wfi_kv_tier_add(node->kv, node->tier, &o), 0);
}

void node_open(struct fixture *f, uint32_t n)
{
	const struct wfi_tenant_opts tenant = { .name = "t",
						.token = "",
						.arena_bytes = f->tiers ? 1 << 15 : 1 << 18 };
	const struct weft_transport *t = f->fault ? f->fault : wfi_transport_find(NULL, "loop");
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

	if (f->tiers)
		kv.policy = wfi_evict_find("lru");
	node->env = kv.env = x.env = o.env = wfi_sim_node(f->sim, n);
	assert_int_equal(wfi_kv_create(&kv, &node->kv), 0);
	assert_int_equal(wfi_kv_tenant_add(node->kv, &tenant, &node->tenant), 0);
	if (f->tiers)
		tier_open(node);
	assert_int_equal(wfi_owner_init(node->kv, &node->engine, node->tenant), 0);
	assert_int_equal(t->device_open(t, node->env, &dev, &node->dev), 0);
	assert_int_equal(t->cq_create(node->dev, &cq, &node->send_cq), 0);
	assert_int_equal(t->cq_create(node->dev, &cq, &node->recv_cq), 0);
	x.send_cqs[0] = node->send_cq;
	assert_int_equal(wfi_xfer_engine_create(&x, &node->xfer), 0);
	o.kv = node->kv;
	o.xfer = node->xfer;
	assert_int_equal(wfi_cluster_create(&o, &node->cluster), 0);
}

void link_open(struct fixture *f, uint32_t a, uint32_t b)
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

void link_close(struct fixture *f, uint32_t a, uint32_t b)
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

void turns(struct fixture *f, uint64_t ns)
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

static int setup(void **state, bool tiers, bool faults)
{
	static const struct wfi_fault_opts calm = { .seed = 1 };
	struct fixture *f = calloc(1, sizeof(*f));
	uint32_t a, b, i;

	assert_non_null(f);
	f->tiers = tiers;
	if (faults)
		assert_int_equal(
			wfi_fault_create(wfi_transport_find(NULL, "loop"), &calm, &f->fault), 0);
	assert_int_equal(wfi_sim_create(5, &f->sim), 0);
	for (a = 0; a < NODES; a++) {
		node_open(f, a);
		node_open_space(f, a);
	}
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

int world_setup(void **state)
{
	return setup(state, false, false);
}

int world_setup_tiers(void **state)
{
	return setup(state, true, false);
}

int world_setup_faults(void **state)
{
	return setup(state, false, true);
}

void hold(struct fixture *f, bool on)
{
	const struct wfi_fault_opts o = { .never = on };

	wfi_fault_set(f->fault, &o);
}

void hold_link(struct fixture *f, uint32_t a, uint32_t b)
{
	const struct wfi_fault_opts o = { .never = true, .never_ep = f->nodes[a].links[b].ep };

	wfi_fault_set(f->fault, &o);
}

void node_close(struct fixture *f, uint32_t n)
{
	struct test_node *node = &f->nodes[n];
	const struct weft_transport *t = node->dev->transport;

	wfi_cluster_destroy(node->cluster);
	wfi_xfer_engine_destroy(node->xfer);
	t->cq_destroy(node->send_cq);
	t->cq_destroy(node->recv_cq);
	t->device_close(node->dev);
	wfi_kv_destroy(node->kv);
	node->tier = NULL;
}

int world_teardown(void **state)
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
		struct weft_stat st;

		/* nothing is lent, claimed or pinned any more */
		wfi_kv_stat(n->kv, n->tenant, &st);
		assert_int_equal(st.slots_leased, 0);
		assert_int_equal(st.slots_filling, 0);
		node_close(f, a);
	}
	wfi_fault_destroy(f->fault);
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

/* ---- blocks ---- */

void put_chain(struct fixture *f, uint32_t n)
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

void wish_done(void *ctx)
{
	struct wish *w = ctx;

	assert_false(w->done);
	w->done = true;
	w->pull = NULL;
}

void want(struct fixture *f, uint32_t n, struct wish *w, uint64_t deadline_ns)
{
	want_within(f, n, w, 0, deadline_ns);
}

void want_within(struct fixture *f, uint32_t n, struct wish *w, uint64_t budget_ns,
		 uint64_t deadline_ns)
{
	struct wfi_pull_opts o = { .tenant = f->nodes[n].tenant,
				   .space = f->nodes[n].space.id,
				   .nr = CHAIN,
				   .keys = f->keys,
				   .slots = w->slots,
				   .places = w->places,
				   .results = w->results,
				   .budget_ns = budget_ns,
				   .now_ns = now(f),
				   .deadline_ns = now(f) + deadline_ns,
				   .done = wish_done,
				   .ctx = w };
	uint32_t i;

	*w = (struct wish){ .budget_ns = budget_ns };
	memset(w->slots, 0xff, sizeof(w->slots));
	memset(w->bytes, 0xee, sizeof(w->bytes));
	for (i = 0; i < CHAIN; i++)
		w->places[i] = w->bytes[i];
	assert_int_equal(wfi_cluster_pull(f->nodes[n].cluster, &o, &w->pull), 0);
}

uint32_t came(const struct wish *w)
{
	uint32_t i, n = 0;

	assert_true(w->done);
	for (i = 0; i < CHAIN; i++) {
		const uint8_t *b = w->bytes[i];

		assert_true(!w->results[i] || w->results[i] == -ENOENT ||
			    (w->budget_ns && w->results[i] == -ETIME));
		if (w->results[i])
			continue;
		n++;
		assert_int_equal(b[0], i + 1);
		assert_memory_equal(b, b + 1, BLOCK_BYTES - 1);
	}
	return n;
}

uint32_t get(struct fixture *f, uint32_t n)
{
	struct wish w;

	want(f, n, &w, DEADLINE_NS);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	return came(&w);
}

uint32_t held(struct fixture *f, uint32_t n)
{
	struct test_node *node = &f->nodes[n];

	return (uint32_t)wfi_kv_match(node->kv, node->space.id, f->keys, CHAIN, NULL);
}

uint32_t below(struct fixture *f, uint32_t n)
{
	const struct test_node *node = &f->nodes[n];
	uint32_t i, nr = 0;

	for (i = 0; i < CHAIN; i++)
		nr += wfi_kv_below_find(node->kv, node->space.tag, &f->keys[i]) != WFI_SLOT_NONE;
	return nr;
}

static bool any_held(struct fixture *f, uint32_t n)
{
	const struct test_node *node = &f->nodes[n];
	uint32_t slots[CHAIN];

	return wfi_kv_peek(node->kv, node->space.id, f->keys, CHAIN, slots) != 0;
}

void put_others(struct fixture *f, uint32_t n, uint32_t nr)
{
	struct test_node *node = &f->nodes[n];
	struct weft_slot slot;
	struct weft_key key;
	int32_t result;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		key = (struct weft_key){ .lo = wfi_mix64(++f->nr_others), .hi = 77 };
		assert_int_equal(
			wfi_kv_claim(node->kv, &node->engine, node->space.id, 1, &slot, now(f)), 1);
		memset(wfi_kv_slot_addr(node->kv, slot.idx), 0xdd, BLOCK_BYTES);
		assert_int_equal(wfi_kv_put(node->kv, &node->engine, node->space.id, NULL, &key,
					    &slot, 1, NULL, &result, now(f)),
				 1);
		turns(f, WFI_NSEC_PER_MSEC);
	}
}

void flood(struct fixture *f, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < 1000 && any_held(f, n); i++)
		put_others(f, n, 1);
	assert_false(any_held(f, n));
	turns(f, 5 * WFI_NSEC_PER_MSEC);
}
