/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schedule.c - which faults, of whom, from when to when
 *
 * A schedule is some faults that may overlap. It goes through the moments where one begins or ends,
 * and brings the cluster to what those that last want: a node that two want dead is started when
 * both are over. At the end all is healed.
 */
#include <poll.h>
#include "tests/chaos/chaos.h"

#define FAULTS_MAX 5u
#define BEGIN_MAX_MS 200u
#define LAST_MAX_MS 250u
#define LONG_MS                                                                                    \
	1800u /* one in LONG_OF lasts up to that: past the patience with peers, and leases */
#define LONG_OF 10u

enum kind {
	NODE_KILL,
	NODE_LEAVE,
	NODE_DRAIN,
	NODE_FREEZE,
	ETCD_KILL,
	ETCD_WIPE,
	ETCD_FREEZE,
	LINK_DOWN, /* a plug is pulled */
	LINK_ISOLATE, /* the same, and nobody is told */
	LINK_PAIR, /* two nodes don't reach each other */
	LINK_ONE_WAY, /* one of the ways */
	LINK_STORE, /* a node and etcd */
	LINK_LOSS, /* some of what a node gets and sends */
	CERT_RENEW, /* in a moment; of clusters with TLS. The last one */
	NR_KINDS,
};

static const char *const kind_names[NR_KINDS] = {
	"node killed",	"node stops",	       "node drains",
	"node frozen",	"etcd killed",	       "etcd killed and emptied",
	"etcd frozen",	"link down",	       "cut off",
	"pair cut",	"one way cut",	       "cut from etcd",
	"packets lost", "certificate renewed",
};

struct fault {
	enum kind kind;
	unsigned a, b; /* hosts */
	unsigned percent;
	uint64_t begin_ms, end_ms; /* from the schedule's start */
};

struct schedule {
	struct fault faults[FAULTS_MAX];
	unsigned nr;
	uint64_t begin_ns;
	uint32_t seed;
	bool wiped;
};

/* ---- the plan ---- */

static uint64_t below(uint64_t *rand, uint64_t n)
{
	return test_rand(rand) % n;
}

static void fault_make(const struct chaos *c, struct fault *f, uint64_t *rand)
{
	f->kind = (enum kind)below(rand, c->tls ? NR_KINDS : CERT_RENEW);
	f->a = (unsigned)below(rand, c->nr);
	f->b = (f->a + 1 + (unsigned)below(rand, c->nr - 1)) % c->nr;
	f->percent = 1 + (unsigned)below(rand, 30);
	f->begin_ms = below(rand, BEGIN_MAX_MS);
	f->end_ms = f->begin_ms + 5 + below(rand, below(rand, LONG_OF) ? LAST_MAX_MS : LONG_MS);
}

static void schedule_make(struct chaos *c, struct schedule *s, uint64_t seed)
{
	uint64_t rand = seed;
	unsigned i;

	*s = (struct schedule){ .nr = 1 + (unsigned)below(&rand, FAULTS_MAX) };
	s->seed = (uint32_t)test_rand(&rand);
	chaos_log(c, "---- schedule %llu", (unsigned long long)seed);
	for (i = 0; i < s->nr; i++) {
		struct fault *f = &s->faults[i];

		fault_make(c, f, &rand);
		chaos_log(c, "from %u to %u ms: %s (%u, %u, %u %%)", (unsigned)f->begin_ms,
			  (unsigned)f->end_ms, kind_names[f->kind], f->a, f->b, f->percent);
	}
}

/* ---- what lasts ---- */

struct wanted {
	bool killed[CHAOS_NODES_MAX], left[CHAOS_NODES_MAX], frozen[CHAOS_NODES_MAX];
	unsigned drained[CHAOS_NODES_MAX]; /* and the per cent of who wants it */
	bool etcd_killed, etcd_wiped, etcd_frozen;
	bool down[HOSTS_MAX];
	unsigned loss[HOSTS_MAX][HOSTS_MAX]; /* [from][to] */
};

static void lose(struct wanted *w, unsigned from, unsigned to, unsigned percent)
{
	w->loss[from][to] = wfi_max(w->loss[from][to], percent);
}

static void lose_all(struct wanted *w, unsigned host, unsigned percent)
{
	unsigned i;

	for (i = 0; i < HOSTS_MAX; i++) {
		lose(w, host, i, percent);
		lose(w, i, host, percent);
	}
}

static void want_link(const struct chaos *c, struct wanted *w, const struct fault *f)
{
	switch (f->kind) {
	case LINK_DOWN:
		w->down[f->a] = true;
		break;
	case LINK_ISOLATE:
		lose_all(w, f->a, HOST_CUT);
		break;
	case LINK_PAIR:
		lose(w, f->b, f->a, HOST_CUT);
		lose(w, f->a, f->b, HOST_CUT);
		break;
	case LINK_ONE_WAY:
		lose(w, f->a, f->b, HOST_CUT);
		break;
	case LINK_STORE:
		lose(w, f->a, c->nr, HOST_CUT);
		lose(w, c->nr, f->a, HOST_CUT);
		break;
	default:
		lose_all(w, f->a, f->percent);
	}
}

static void want(const struct chaos *c, struct wanted *w, const struct fault *f)
{
	switch (f->kind) {
	case NODE_KILL:
		w->killed[f->a] = true;
		break;
	case NODE_LEAVE:
		w->left[f->a] = true;
		break;
	case NODE_DRAIN:
		w->drained[f->a] = f->percent;
		break;
	case CERT_RENEW:
		break;
	case NODE_FREEZE:
		w->frozen[f->a] = true;
		break;
	case ETCD_WIPE:
		w->etcd_wiped = true;
		/* fallthrough */
	case ETCD_KILL:
		w->etcd_killed = true;
		break;
	case ETCD_FREEZE:
		w->etcd_frozen = true;
		break;
	default:
		want_link(c, w, f);
	}
}

/* ---- what is ---- */

static void bring_links(struct chaos *c, const struct schedule *s, const struct wanted *w)
{
	unsigned i, k;

	for (i = 0; i <= c->nr; i++) {
		for (k = 0; k <= c->nr; k++)
			hosts_lose(&c->hosts, i, k, w->loss[i][k], s->seed + i * HOSTS_MAX + k);
		hosts_unplug(&c->hosts, i, w->down[i]);
	}
}

static void bring_etcd(struct chaos *c, struct schedule *s, const struct wanted *w)
{
	if (!w->etcd_killed) {
		s->wiped = false;
		if (w->etcd_frozen)
			etcd_freeze(c);
		else
			etcd_up(c);
		return;
	}
	etcd_kill(c);
	if (w->etcd_wiped && !s->wiped)
		test_etcd_wipe(&c->etcd);
	s->wiped |= w->etcd_wiped;
}

static void bring_node(struct chaos *c, const struct wanted *w, unsigned i)
{
	if (w->killed[i])
		node_kill(c, i);
	else if (w->left[i])
		node_leave(c, i);
	else if (w->drained[i])
		node_drain(c, i, w->drained[i] % 2);
	else if (w->frozen[i])
		node_freeze(c, i);
	else
		node_up(c, i);
}

static void bring(struct chaos *c, struct schedule *s, uint64_t at_ms)
{
	struct wanted w = { .etcd_killed = false };
	bool goes[CHAOS_NODES_MAX];
	unsigned i;

	for (i = 0; i < s->nr; i++) {
		const struct fault *f = &s->faults[i];

		if (f->begin_ms <= at_ms && f->end_ms > at_ms)
			want(c, &w, f);
		if (f->begin_ms == at_ms && f->kind == CERT_RENEW)
			certs_renew(c, f->a, f->percent % 2);
	}
	bring_links(c, s, &w);
	bring_etcd(c, s, &w);
	/* before one that drains is waited for, which none that stands still may hold up */
	for (i = 0; i < c->nr; i++)
		if (!w.frozen[i])
			node_thaw(c, i);
	for (i = 0; i < c->nr; i++) {
		goes[i] = node_goes(c, i);
		if (!goes[i])
			bring_node(c, &w, i);
	}
	/* who is waited for may have to hand on to the others */
	for (i = 0; i < c->nr; i++)
		if (goes[i])
			bring_node(c, &w, i);
}

/* Return: when a fault begins or ends next, after @at_ms; UINT64_MAX: never */
static uint64_t next_ms(const struct schedule *s, uint64_t at_ms)
{
	uint64_t next = UINT64_MAX;
	unsigned i;

	for (i = 0; i < s->nr; i++) {
		if (s->faults[i].begin_ms > at_ms)
			next = wfi_min(next, s->faults[i].begin_ms);
		if (s->faults[i].end_ms > at_ms)
			next = wfi_min(next, s->faults[i].end_ms);
	}
	return next;
}

uint64_t schedule_run(struct chaos *c, uint64_t seed)
{
	const uint64_t begin_ns = chaos_now();
	uint64_t at_ms = 0, now_ms;
	struct schedule s;

	schedule_make(c, &s, seed);
	while (at_ms != UINT64_MAX && !atomic_load(&c->failed)) {
		now_ms = (chaos_now() - begin_ns) / WFI_NSEC_PER_MSEC;
		if (at_ms > now_ms)
			poll(NULL, 0, (int)(at_ms - now_ms));
		bring(c, &s, at_ms);
		cluster_check_alive(c);
		at_ms = next_ms(&s, at_ms);
	}
	chaos_log(c, "healed");
	return chaos_now();
}
