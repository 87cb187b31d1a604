/* SPDX-License-Identifier: Apache-2.0 */
/* what nodes are worth for a chain, also where peers lie or say nothing */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/cluster/cluster_private.h"
#include "tests/unit/remote_world.h"

struct asked {
	struct weft_route routes[WEFT_ROUTES_MAX];
	struct wfi_route *route;
	int res;
	bool done;
};

static void on_route(void *ctx, int res)
{
	struct asked *a = ctx;

	assert_false(a->done);
	a->done = true;
	a->res = res;
}

static int ask(struct fixture *f, uint32_t n, struct asked *a, uint32_t nr_routes)
{
	const struct test_node *node = &f->nodes[n];
	const struct wfi_route_opts o = { .space = node->space.id,
					  .nr = CHAIN,
					  .keys = f->keys,
					  .here_memory = held(f, n),
					  .routes = a->routes,
					  .nr_routes = nr_routes,
					  .now_ns = now(f),
					  .deadline_ns = now(f) + DEADLINE_NS,
					  .done = on_route,
					  .ctx = a };

	a->done = false;
	return wfi_cluster_route(node->cluster, &o, &a->route);
}

/* of all nodes */
static void route(struct fixture *f, uint32_t n, struct asked *a)
{
	memset(a, 0, sizeof(*a));
	assert_int_equal(ask(f, n, a, WEFT_ROUTES_MAX), 0);
	assert_false(a->done);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	assert_true(a->done);
}

static const struct weft_route *of_node(const struct asked *a, uint32_t n)
{
	int i;

	for (i = 0; i < a->res; i++)
		if (a->routes[i].node == n + 1)
			return &a->routes[i];
	fail_msg("nothing is said of node %u", n);
	return NULL;
}

/* wherever the question is asked, and wherever the shard is */
static void test_who_has_it(void **state)
{
	struct fixture *f = *state;
	const struct weft_route *w;
	struct asked a;
	uint32_t n, k;

	put_chain(f, 1);
	for (n = 0; n < NODES; n++) {
		route(f, n, &a);
		assert_int_equal(a.res, NODES);
		assert_int_equal(a.routes[0].node, 2);
		for (k = 0; k < NODES; k++) {
			w = of_node(&a, k);
			assert_int_equal(w->nr_memory, k == 1 ? CHAIN : 0);
			assert_int_equal(w->nr_fetch, k == 1 ? 0 : CHAIN);
			assert_int_equal(!w->fetch_us, k == 1);
			assert_int_equal(w->nr_ssd, 0);
			assert_int_equal(w->flags, k == n ? WEFT_ROUTE_SELF : 0);
			assert_int_equal(!w->cost_us, k == 1);
		}
	}
	/* nothing was used or fetched */
	assert_int_equal(f->nr_sent[CLUSTER_LEASE], 0);
}

static void test_nobody_has_it(void **state)
{
	struct fixture *f = *state;
	struct asked a;
	int i;

	route(f, 0, &a);
	assert_int_equal(a.res, NODES);
	for (i = 0; i < a.res; i++) {
		assert_int_equal(a.routes[i].nr_memory + a.routes[i].nr_fetch, 0);
		assert_int_equal(a.routes[i].cost_us, CHAIN * 1000);
	}
}

/* a beginning is worth something, and the rest of it is to be had */
static void test_beginning(void **state)
{
	struct fixture *f = *state;
	int32_t results[CHAIN];
	struct asked a;

	put_chain(f, 1);
	put_chain(f, 2);
	/* the last two are node 1's alone */
	assert_int_equal(wfi_kv_drop(f->nodes[2].kv, f->nodes[2].space.id, f->keys + CHAIN - 2, 2,
				     results),
			 2);
	turns(f, WFI_NSEC_PER_MSEC);
	route(f, 2, &a);
	assert_int_equal(of_node(&a, 2)->nr_memory, CHAIN - 2);
	assert_int_equal(of_node(&a, 2)->nr_fetch, 2);
	assert_int_equal(of_node(&a, 0)->nr_fetch, CHAIN);
	assert_int_equal(a.routes[0].node, 2);
	assert_int_equal(a.routes[1].node, 3);
}

static void test_named(void **state)
{
	struct fixture *f = *state;
	struct asked a = { .res = 0 };

	put_chain(f, 1);
	a.routes[0].node = 3;
	a.routes[1].node = 99;
	a.routes[2].node = 2;
	assert_int_equal(ask(f, 0, &a, 3), 0);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_true(a.done);
	assert_int_equal(a.res, 3);
	assert_int_equal(a.routes[0].node, 2);
	assert_int_equal(a.routes[1].node, 3);
	assert_int_equal(a.routes[2].node, 99);
	assert_int_equal(a.routes[2].flags, WEFT_ROUTE_DEAD);
	assert_int_equal(ask(f, 0, &a, 0), -EINVAL);
	assert_int_equal(ask(f, 0, &a, WEFT_ROUTES_MAX + 1), -EINVAL);
	/* less room than there are nodes */
	memset(&a, 0, sizeof(a));
	assert_int_equal(ask(f, 0, &a, 2), 0);
	turns(f, WFI_NSEC_PER_MSEC);
	assert_int_equal(a.res, 2);
}

static bool mute_1(struct fixture *f, struct letter *l)
{
	(void)f;
	return l->from != 1;
}

/* who says nothing is said to be dead, and holds up nobody for longer than patience lasts */
static void test_dead(void **state)
{
	struct fixture *f = *state;
	struct asked a = { .res = 0 };
	uint64_t end_ns;

	put_chain(f, 1);
	f->tamper = mute_1;
	assert_int_equal(ask(f, 0, &a, WEFT_ROUTES_MAX), 0);
	end_ns = now(f) + 2 * PATIENCE_NS + WFI_NSEC_PER_MSEC;
	while (!a.done && now(f) < end_ns)
		turns(f, 100 * WFI_NSEC_PER_USEC);
	assert_true(a.done);
	assert_int_equal(a.res, NODES);
	assert_int_equal(a.routes[NODES - 1].node, 2);
	assert_int_equal(a.routes[NODES - 1].flags, WEFT_ROUTE_DEAD);
	assert_int_equal(of_node(&a, 2)->flags, 0);
	f->tamper = NULL;
}

/* lost in the middle; and nobody takes the question */
static void test_lost(void **state)
{
	struct fixture *f = *state;
	struct asked a = { .res = 0 };

	f->tamper = mute_1;
	assert_int_equal(ask(f, 0, &a, WEFT_ROUTES_MAX), 0);
	turns(f, 0);
	link_close(f, 0, 1);
	turns(f, 30 * WFI_NSEC_PER_MSEC);
	assert_true(a.done);
	assert_int_equal(of_node(&a, 2)->flags, 0);
	f->tamper = NULL;
	f->nodes[0].links[2].stuck = true;
	memset(&a, 0, sizeof(a));
	assert_int_equal(ask(f, 0, &a, WEFT_ROUTES_MAX), 0);
	turns(f, DEADLINE_NS + WFI_NSEC_PER_MSEC);
	assert_true(a.done);
	assert_int_equal(a.res, 2);
	assert_int_equal(of_node(&a, 2)->flags, WEFT_ROUTE_DEAD);
	f->nodes[0].links[2].stuck = false;
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct asked a[2];
	uint32_t n;

	memset(a, 0, sizeof(a));
	/* while the shard is asked, and while candidates are: one of them has the shard */
	for (n = 0; n < NODES; n++) {
		assert_int_equal(ask(f, n, &a[0], WEFT_ROUTES_MAX), 0);
		assert_int_equal(ask(f, n, &a[1], WEFT_ROUTES_MAX), 0);
		wfi_cluster_route_cancel(f->nodes[n].cluster, a[0].route);
		assert_true(a[0].done);
		assert_int_equal(a[0].res, -ECANCELED);
		turns(f, WFI_NSEC_PER_MSEC);
		assert_true(a[1].done);
		assert_int_equal(a[1].res, NODES);
		memset(a, 0, sizeof(a));
	}
}

static bool lie(struct fixture *f, struct letter *l)
{
	struct cluster_probed *p = &l->msg.probed;
	struct cluster_run *r = l->msg.looked.runs;

	if (l->msg.head.type == CLUSTER_PROBED) {
		memset(&p->reached, 0xff, sizeof(*p) - offsetof(struct cluster_probed, reached));
		return true;
	}
	if (l->msg.head.type != CLUSTER_HELD || !l->msg.head.nr)
		return true;
	switch (f->odd) {
	case 0:
		r->nr = UINT16_MAX;
		break;
	case 1:
		r->first = UINT16_MAX - 2;
		break;
	case 2:
		r->node = 77;
		break;
	case 3:
		r->nr = 0;
		break;
	case 4:
		l->msg.head.type = CLUSTER_LOOKED;
		break;
	default:
		r->node = l->to + 1;
		break;
	}
	return true;
}

/* no more is believed than there can be */
static void test_lies(void **state)
{
	struct fixture *f = *state;
	struct asked a;
	uint32_t n;
	int i;

	put_chain(f, 1);
	f->tamper = lie;
	for (f->odd = 0; f->odd < 6; f->odd++)
		for (n = 0; n < NODES; n++) {
			route(f, n, &a);
			assert_int_equal(a.res, NODES);
			for (i = 0; i < a.res; i++) {
				const struct weft_route *w = &a.routes[i];

				assert_true(w->nr_memory + w->nr_ssd + w->nr_fetch <= CHAIN);
				assert_true(w->load <= 1000);
			}
		}
	f->tamper = NULL;
}

/* node 1 is asked by node 0 what @source would take it, and @ssd_bytes of its own */
static struct cluster_probed probe(struct fixture *f, const struct cluster_source *source,
				   uint64_t ssd_bytes)
{
	union cluster_msg m;

	m.probe.ssd_bytes = ssd_bytes;
	m.probe.sources[0] = *source;
	cluster_msg_head(&m, CLUSTER_PROBE, 1, 9);
	assert_int_equal(wfi_cluster_message(f->nodes[1].cluster, &f->nodes[1].links[0].base, &m,
					     m.head.len, now(f)),
			 0);
	m = f->queue[(f->tail - 1) % QUEUE].msg;
	assert_int_equal(m.head.type, CLUSTER_PROBED);
	return m.probed;
}

/* what takes longer than can be said is not said to take no time */
static void test_endless(void **state)
{
	struct fixture *f = *state;
	struct wfi_cluster *c = f->nodes[1].cluster;
	struct cluster_source s = { .node = 3, .bytes = UINT64_MAX, .ssd_bytes = UINT64_MAX };
	const uint8_t peer = wfi_cl_peer_of(c, s.node);
	struct cluster_probed p;

	/* it has no SSD tier */
	p = probe(f, &s, 1);
	assert_int_equal(p.ssd_us, UINT32_MAX - 1);
	assert_int_equal(p.reached, 1);
	/* as slow as can be measured */
	for (c->peers[peer].bytes_per_ms = 1; c->peers[peer].bytes_per_ms < 64;
	     c->peers[peer].bytes_per_ms++) {
		assert_true(wfi_cl_expected_ns(c, peer, 1ull << 46) >=
			    wfi_cl_expected_ns(c, peer, 1ull << 40));
		p = probe(f, &s, 0);
		assert_true(p.fetch_us >= 3600u * 1000 * 1000);
	}
}

/* with nobody else there */
static void test_alone(void **state)
{
	struct fixture *f = *state;
	struct asked a;
	uint32_t i;

	put_chain(f, 0);
	for (i = 1; i < NODES; i++) {
		link_close(f, 0, i);
		link_close(f, i, 0);
	}
	route(f, 0, &a);
	assert_int_equal(a.res, 1);
	assert_int_equal(a.routes[0].nr_memory, CHAIN);
	assert_int_equal(a.routes[0].cost_us, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_who_has_it), TEST(test_nobody_has_it), TEST(test_beginning),
		TEST(test_named),      TEST(test_dead),		 TEST(test_lost),
		TEST(test_cancel),     TEST(test_lies),		 TEST(test_alone),
		TEST(test_endless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
