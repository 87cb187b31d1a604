/* SPDX-License-Identifier: Apache-2.0 */
/* node.c - the worker: one poll loop over rings, transfers, handoffs and peers */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "doze.h"
#include "node.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"
#include "weft_internal/transport_registry.h"

#define RING_BYTES_DEFAULT (256ull << 20)
#define METRICS_BYTES (2u << 20)
/* powers of two: turns from one look at what rings and peers of this host do not show to the next,
 * when the last one found nothing to do */
#define NET_TURNS 4u /* messages come over other links */
#define HOST_TURNS 64u
#define ALONE_TURNS 256u /* no peers, and nothing open */
#define LOOK_TURNS 64u /* idle ones from one look at the clock to the next */
#define NET_LOOK_TURNS 16u /* these take longer */
#define HOT_TURNS 2048u /* idle ones without a pause, which would be noticed in what comes next */
#define FLUSH_MAX_NS (10 * WFI_NSEC_PER_SEC) /* longer than this a stop waits for no drive */
#define COPIES_MAX_NS WFI_NSEC_PER_SEC /* nor longer than this for copies to GPUs */
#define FLUSH_POLL_NS (50 * WFI_NSEC_PER_USEC)

/* ---- set-up ---- */

/* names a tenant to other nodes without giving its salt away */
static uint64_t tenant_tag(const struct wfi_tenant_opts *t)
{
	static const struct weft_space_opts nothing = {
		.size = sizeof(nothing),
		.model = "weft tenant tag",
		.layout = "",
	};

	return wfi_space_tag(t->salt, &nothing);
}

int node_tenant_add(struct node *node, const struct wfi_tenant_opts *opts)
{
	const unsigned i = node->nr_tenants;
	const struct wfi_map *arena;
	unsigned k;
	int ret;

	if (i == NODE_TENANTS_MAX || node->tenants_cut)
		return -EINVAL;
	ret = wfi_kv_tenant_add(node->kv, opts, &node->tenants[i]);
	if (ret)
		return ret;
	arena = wfi_tenant_arena(node->tenants[i]);
	ret = link_arena_add(&node->host, arena);
	/* a device that is away gets all arenas when it is back */
	for (k = 0; !ret && k < node->nr_nets; k++)
		if (!node->nets[k].lost)
			ret = link_arena_add(&node->nets[k], arena);
	if (!ret && node->gpu.dev)
		ret = link_arena_add(&node->gpu, arena);
	if (ret) {
		/* arenas lie in the tenants' order: there can't be another one */
		node->tenants_cut = true;
		wfi_kv_tenant_close(node->tenants[i], true);
		return ret;
	}
	node->tags[i] = tenant_tag(opts);
	node->nr_tenants++;
	return 0;
}

static int tenants_create(struct node *node, const struct node_opts *opts)
{
	unsigned i;
	int ret = opts->nr_tenants ? 0 : -EINVAL;

	for (i = 0; i < opts->nr_tenants && !ret; i++)
		ret = node_tenant_add(node, &opts->tenants[i]);
	return ret;
}

/* the one that was asked for; "auto": RDMA where it is, else TCP, and not in silence */
static const struct weft_transport *net_transport(struct node *node, const char *name)
{
	const struct weft_transport *t = wfi_transport_find(node->env->transports, name);
	struct weft_probe probe;

	if (t || strcmp(name, "auto") != 0)
		return t;
	t = wfi_transport_find(node->env->transports, "verbs");
	if (t && !t->probe(t, node->env, &probe))
		return t;
	wfi_warn_once("transport auto: no RDMA here (%s), falling back to TCP: all nodes have to, "
		      "set transport = \"tcp\" if that is meant",
		      t ? probe.why : "not built in");
	node->net_fell_back = true;
	return wfi_transport_find(node->env->transports, "tcp");
}

static int net_create(struct node *node, const struct node_opts *opts)
{
	const struct weft_transport *t = net_transport(node, opts->transport);
	const unsigned nr = opts->nr_devices ? opts->nr_devices : 1;
	struct weft_device_opts dev = { .size = sizeof(dev), .silent_ms = opts->silent_ms };
	int ret = 0;

	if (!t) {
		wfi_err("transport %s is not built in: weft doctor shows those that are",
			opts->transport);
		return -EOPNOTSUPP;
	}
	for (; !ret && node->nr_nets < nr; node->nr_nets += !ret) {
		dev.name = opts->devices[node->nr_nets];
		dev.addr = opts->addrs[node->nr_nets];
		ret = link_open(&node->nets[node->nr_nets], node->env, t, &dev);
		if (ret)
			wfi_err("transport %s does not open %s: %s; weft doctor says more", t->name,
				dev.name ? dev.name : "a device", strerror(-ret));
	}
	return ret;
}

static int transports_create(struct node *node, const struct node_opts *opts)
{
	const struct weft_transport *shm = wfi_transport_find(node->env->transports, "shm");
	struct wfi_xfer_engine_opts x = { .env = node->env, .metrics = node->metrics };
	unsigned i;
	int ret;

	/* a simulated world has only what it simulates */
	if (!shm)
		shm = node->env->transports[0];
	if (!shm)
		return -EOPNOTSUPP;
	ret = link_open(&node->host, node->env, shm, NULL);
	if (!ret && opts->transport)
		ret = net_create(node, opts);
	if (ret)
		return ret;
	/* failed messages to peers complete there too, and hold back the end of their endpoint */
	x.send_cqs[0] = node->host.send_cq;
	for (i = 0; i < node->nr_nets; i++)
		x.send_cqs[1 + i] = node->nets[i].send_cq;
	return wfi_xfer_engine_create(&x, &node->xfer);
}

static int kv_create(struct node *node, const struct node_opts *opts)
{
	struct wfi_kv_opts o = {
		.env = node->env,
		.metrics = node->metrics,
		.memory_bytes = opts->memory_bytes,
		.idle_ns = opts->tenant_idle_ns,
	};

	if (opts->policy) {
		o.policy = wfi_evict_find(opts->policy);
		if (!o.policy) {
			wfi_err("there is no eviction policy '%s'", opts->policy);
			return -EINVAL;
		}
	}
	return wfi_kv_create(&o, &node->kv);
}

/* a node whose tier cannot be had serves without it, and says so */
static void tier_create(struct node *node, const struct node_opts *opts)
{
	const struct wfi_tier_ssd_opts o = {
		.env = node->env,
		.metrics = node->metrics,
		.path = opts->tier_path,
		.bytes = opts->tier_bytes,
		.node = node->id,
		.scrub_bps = opts->tier_scrub_bps,
	};
	struct wfi_kv_tier_opts k = { .metrics = node->metrics, .write_bps = opts->tier_write_bps };
	struct wfi_tier *tier;
	int ret;

	if (!opts->tier_path || !*opts->tier_path)
		return;
	for (unsigned i = 0; i < opts->nr_tenants; i++)
		k.lend_arenas |= !!(opts->tenants[i].map_flags & WFI_MAP_PREFAULT);
	ret = wfi_tier_ssd_open(&o, &tier);
	if (!ret) {
		ret = wfi_kv_tier_add(node->kv, tier, &k);
		if (ret)
			tier->ops->close(tier);
	}
	if (!ret)
		return;
	snprintf(node->tier_why, sizeof(node->tier_why), "%s: %s", opts->tier_path,
		 ret == -EBUSY ? "another node has it, or it is mounted" : strerror(-ret));
	wfi_warn("node: serves without its SSD tier: %s", node->tier_why);
}

int node_tier_resize(struct node *node, uint64_t bytes, char *why, size_t why_len)
{
	const int ret = wfi_kv_tier_resize(node->kv, bytes);
	struct wfi_tier_stat st = { 0 };
	const char *name;

	if (!ret)
		return 0;
	wfi_kv_tier_stat(node->kv, &name, &st);
	if (ret == -ENOENT)
		snprintf(why, why_len, "this node has no SSD tier: %s",
			 *node->tier_why ? node->tier_why : "tier_path names none");
	else if (ret == -EINVAL)
		snprintf(why, why_len,
			 "the tier's file may have %llu to %llu MiB: more takes a new file",
			 (unsigned long long)(st.min_bytes + (1u << 20) - 1) >> 20,
			 (unsigned long long)st.max_bytes >> 20);
	else if (ret == -EBUSY)
		snprintf(why, why_len, "the tier is %s",
			 st.state == WFI_TIER_OK ? "still getting smaller: try again when it is"
						 : wfi_tier_state_name(st.state));
	else
		snprintf(why, why_len, "the tier's file cannot have %llu bytes: %s",
			 (unsigned long long)bytes, strerror(-ret));
	return ret;
}

static int handoffs_create(struct node *node)
{
	struct wfi_handoffs_opts o = {
		.env = node->env,
		.kv = node->kv,
		.xfer = node->xfer,
		.metrics = node->metrics,
		.node = node->id,
		.lease_ns = node->lease_ns,
	};

	return wfi_handoffs_create(&o, &node->handoffs);
}

static int channels_create(struct node *node)
{
	struct wfi_channels_opts o = {
		.env = node->env,
		.kv = node->kv,
		.xfer = node->xfer,
		.metrics = node->metrics,
		.node = node->id,
	};

	return wfi_channels_create(&o, &node->channels);
}

/* of 1000, over the last second or two. A worker that nobody runs here is never busy */
static void node_load(void *ctx, struct wfi_cluster_load *out)
{
	struct node *node = ctx;
	const struct node_load *l = &node->load;
	const uint64_t ns = wfi_now(node->env) - l->since_ns[0];
	const uint64_t idle_ns = l->idle_ns - l->was_idle_ns[0];

	*out = (struct wfi_cluster_load){ .nr_ops = node->nr_open };
	if (l->since_ns[0] && ns > idle_ns)
		out->busy = (uint32_t)((ns - idle_ns) * 1000 / ns);
}

static int cluster_create(struct node *node, const struct node_opts *opts)
{
	const struct wfi_cluster_opts o = {
		.env = node->env,
		.kv = node->kv,
		.xfer = node->xfer,
		.metrics = node->metrics,
		.node = node->id,
		.lease_ns = node->lease_ns,
		.directory_bytes = opts->directory_bytes,
		.copy_after = opts->copy_after,
		.load = node_load,
		.load_ctx = node,
	};

	return wfi_cluster_create(&o, &node->cluster);
}

static void gauges_create(struct node *node)
{
	struct wfi_metrics *m = node->metrics;
	struct wfi_counter *info = wfi_metrics_gauge(m, "weft_version",
						     "version=\"" WEFT_VERSION "\"", "",
						     "1, labelled with the version of the node");

	if (info)
		wfi_gauge_set(info, 1);
	node->engines = wfi_metrics_gauge(m, "weft_engines", "", "", "Engines attached");
	if (!node->engines)
		node->engines = &node->scratch_counter;
	node->peers_up = wfi_metrics_gauge(m, "weft_peers_connected", "", "",
					   "Connections to other nodes that are up");
	if (!node->peers_up)
		node->peers_up = &node->scratch_counter;
}

static void counters_create(struct node *node)
{
	static const struct {
		size_t off;
		const char *name, *unit, *help;
	} table[] = {
		{ offsetof(struct node, bytes_out), "weft_get", "bytes",
		  "Bytes copied to engines" },
		{ offsetof(struct node, bytes_in), "weft_put", "bytes",
		  "Bytes copied from engines" },
		{ offsetof(struct node, bad_rings), "weft_bad_rings", "",
		  "Engines detached because their ring broke the protocol" },
		{ offsetof(struct node, gpu_direct), "weft_gpu_regions_direct", "",
		  "Regions in GPU memory that a NIC reads and writes itself, since the start" },
		{ offsetof(struct node, gpu_staged), "weft_gpu_regions_staged", "",
		  "Regions in GPU memory for which blocks stop in host memory, since the start" },
		{ offsetof(struct node, gpus_lost), "weft_gpus_lost", "",
		  "Times that a GPU failed, and all regions on it" },
		{ offsetof(struct node, wakeups), "weft_wakeups", "", "Times the worker woke up" },
	};
	struct wfi_counter **c;
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(table); i++) {
		c = (struct wfi_counter **)((char *)node + table[i].off);
		*c = wfi_metrics_counter(node->metrics, table[i].name, "", table[i].unit,
					 table[i].help);
		if (!*c)
			*c = &node->scratch_counter;
	}
}

int node_create(const struct node_opts *opts, struct node **out)
{
	struct node *node = wfi_alloc(opts->env, sizeof(*node));
	int ret;

	if (!node)
		return -ENOMEM;
	node->env = opts->env;
	node->id = opts->node_id;
	node->spin_ns = opts->spin_ns;
	node->lease_ns = opts->lease_ns;
	node->op_timeout_ns = opts->op_timeout_ns;
	node->ring_bytes = opts->ring_bytes ? opts->ring_bytes : RING_BYTES_DEFAULT;
	node->memfds_only = opts->memfds_only;
	node->gpu_tier_bytes = opts->gpu_tier_bytes;
	node->gpu_tier_write_bps = opts->gpu_tier_write_bps;
	node->start_ns = wfi_now(opts->env);
	snprintf(node->name, sizeof(node->name), "%s", opts->name);
	node->poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	node->news_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = node->poke_fd < 0 || node->news_fd < 0 ? -errno : 0;
	if (!ret)
		ret = wfi_metrics_create(opts->env, METRICS_BYTES, &node->metrics);
	if (!ret)
		ret = transports_create(node, opts);
	if (!ret)
		ret = kv_create(node, opts);
	if (!ret)
		ret = tenants_create(node, opts);
	if (!ret)
		tier_create(node, opts);
	if (!ret)
		ret = handoffs_create(node);
	if (!ret)
		ret = channels_create(node);
	if (!ret)
		ret = cluster_create(node, opts);
	if (!ret)
		ret = ops_create(node);
	if (ret) {
		node_destroy(node);
		return ret;
	}
	gauges_create(node);
	counters_create(node);
	*out = node;
	return 0;
}

/* takes a node that node_create() left half made, too */
void node_destroy(struct node *node)
{
	if (!node)
		return;
	/* they read its arenas, and write to memory that would be unmapped under them */
	if (gpu_tiers_busy(node)) {
		wfi_err("node: a copy to the tier of a GPU does not end: all memory of the node "
			"stays as it is until this process ends. If the GPU hangs, see the "
			"kernel's log for Xid");
		return;
	}
	ops_destroy(node);
	wfi_cluster_destroy(node->cluster);
	wfi_channels_destroy(node->channels);
	wfi_handoffs_destroy(node->handoffs);
	self_destroy(node);
	rails_fini(node);
	wfi_xfer_engine_destroy(node->xfer);
	if (node->shard)
		node->host.transport->mr_dereg(node->shard);
	link_close(&node->host);
	gpu_tiers_destroy(node);
	link_close(&node->gpu);
	while (node->nr_nets)
		link_close(&node->nets[--node->nr_nets]);
	wfi_kv_destroy(node->kv);
	wfi_metrics_destroy(node->metrics);
	if (node->poke_fd >= 0)
		close(node->poke_fd);
	if (node->news_fd >= 0)
		close(node->news_fd);
	wfi_free(node->env, node, sizeof(*node));
}

/* ---- the control thread's calls ---- */

static long futex(const void *addr, int op, uint32_t val, const struct timespec *timeout)
{
	return syscall(SYS_futex, addr, op, val, timeout, NULL, 0);
}

void node_ring_bell(struct node *node)
{
	/* pairs with the acquire in node_sleep(): whoever sees the new bell sees what it rang
	 * for */
	atomic_fetch_add_explicit(&node->bell, 1, memory_order_release);
	futex(&node->bell, FUTEX_WAKE_PRIVATE, 1, NULL);
}

void node_call(struct node *node, void (*run)(struct node *node, void *arg), void *arg)
{
	struct node_call call = { .run = run, .arg = arg };

	/* pairs with the acquire in call_run() */
	atomic_store_explicit(&node->call, &call, memory_order_release);
	node_ring_bell(node);
	while (!atomic_load_explicit(&call.done, memory_order_acquire))
		futex(&call.done, FUTEX_WAIT_PRIVATE, 0, NULL);
}

void node_poke(struct node *node)
{
	uint64_t one = 1;

	if (write(node->poke_fd, &one, sizeof(one)) < 0)
		wfi_warn("node: the control thread can't be woken: %s", strerror(errno));
}

static void session_poke(struct session *s)
{
	if (s->poked)
		return;
	s->poked = true;
	node_poke(s->node);
}

static int rings_poll(struct node *node)
{
	unsigned i;
	int work = 0;

	for (i = 0; i < node->nr_rings; i++) {
		struct node_ring *r = node->rings[i];

		if (wfi_unlikely(r->session->broken)) {
			session_poke(r->session);
			continue;
		}
		work += ops_poll_ring(node, r);
	}
	return work;
}

static __attribute__((noinline)) int call_run(struct node *node)
{
	struct node_call *call = atomic_load_explicit(&node->call, memory_order_acquire);

	/* what an engine submitted before it asked comes before what it asked for */
	rings_poll(node);
	call->run(node, call->arg);
	atomic_store_explicit(&node->call, NULL, memory_order_relaxed);
	/* pairs with the acquire in node_call(); call is gone once it is seen, its address is
	 * not */
	atomic_store_explicit(&call->done, 1, memory_order_release);
	futex(&call->done, FUTEX_WAKE_PRIVATE, 1, NULL);
	return 1;
}

void node_stop(struct node *node)
{
	atomic_store_explicit(&node->stop, true, memory_order_release);
	node_ring_bell(node);
}

/* ---- one turn ---- */

static void endings_poll(struct node *node)
{
	struct session **s = &node->ending_sessions;
	struct node_peer **p = &node->ending_peers;

	while (*s) {
		struct session *next = (*s)->next_ending;

		if (session_end_poll(*s))
			*s = next;
		else
			s = &(*s)->next_ending;
	}
	while (*p) {
		struct node_peer *next = (*p)->next_ending;

		if (peer_end_poll(*p))
			*p = next;
		else
			p = &(*p)->next_ending;
	}
}

static __attribute__((cold, noinline)) void mappings_lost(struct node *node)
{
	node->guard_hits = wfi_guard_hits();
	peers_guard(node);
	if (sessions_guard(node))
		node_poke(node);
}

/* what need not be looked at in each turn, but is while operations are open */
static int housekeeping(struct node *node)
{
	uint64_t now_ns = wfi_now(node->env);
	int work;

	work = wfi_xfer_poll(node->xfer, now_ns);
	work += rails_poll(node, now_ns);
	work += wfi_handoffs_poll(node->handoffs, now_ns);
	if (node->self)
		work += self_poll(node);
	work += wfi_channels_poll(node->channels, now_ns);
	work += peers_poll(node);
	work += wfi_cluster_poll(node->cluster, now_ns);
	work += wfi_kv_poll(node->kv, now_ns);
	if (wfi_unlikely(node->nr_gpu_tiers))
		work += gpu_tiers_poll(node, now_ns);
	if (wfi_unlikely(node->nr_ending))
		endings_poll(node);
	if (wfi_unlikely(node->guard_hits != wfi_guard_hits()))
		mappings_lost(node);
	return work;
}

int node_poll(struct node *node)
{
	unsigned turns = ALONE_TURNS;
	int work = 0, heard = 0;

	if (wfi_unlikely(atomic_load_explicit(&node->call, memory_order_relaxed) != NULL))
		work = call_run(node);
	work += rings_poll(node);
	/* peers of this host are heard as engines are: a look is one load for each */
	if (node->nr_peers)
		heard = peers_hear(node, &node->host);
	if (node->nr_peers | node->nr_open | node->nr_ending)
		turns = node->busy ? 1 : node->nr_nets ? NET_TURNS : HOST_TURNS;
	if (!(++node->turn & (turns - 1))) {
		node->busy = housekeeping(node) != 0;
		work += node->busy;
	}
	/* what came may have begun something */
	node->busy |= heard > 0 || (work && node->nr_open);
	return work + heard;
}

/* ---- the loop ---- */

/* a stop keeps what went to the tier: all of it is there for the next life */
static void tier_flush(struct node *node)
{
	const struct timespec pause = { .tv_nsec = FLUSH_POLL_NS };
	uint64_t now_ns = wfi_now(node->env), end_ns = now_ns + FLUSH_MAX_NS;

	while (wfi_kv_tier_flush(node->kv)) {
		if (now_ns >= end_ns) {
			wfi_warn("node: the SSD tier does not take its last blocks: they are lost");
			return;
		}
		if (!wfi_kv_poll(node->kv, now_ns))
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		now_ns = wfi_now(node->env);
	}
}

/* what is copied to GPUs' tiers ends before their memory goes: nobody else waits for it */
static void gpu_tiers_settle(struct node *node)
{
	const struct timespec pause = { .tv_nsec = FLUSH_POLL_NS };
	uint64_t now_ns = wfi_now(node->env), end_ns = now_ns + COPIES_MAX_NS;

	while (gpu_tiers_busy(node) && now_ns < end_ns) {
		if (!wfi_xfer_poll(node->xfer, now_ns))
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		now_ns = wfi_now(node->env);
	}
}

/* since there was work last */
struct idle {
	unsigned turns;
	bool spins;
	bool slept; /* before all that */
	uint64_t since_ns; /* 0: too short to be looked at */
};

static void load_begin(struct node *node)
{
	node->load.since_ns[0] = node->load.since_ns[1] = wfi_now(node->env);
}

/* there is work again, or the worker has slept */
static __attribute__((noinline)) void load_idle(struct node *node, uint64_t since_ns)
{
	const uint64_t now_ns = wfi_now(node->env);
	struct node_load *l = &node->load;

	l->idle_ns += now_ns - since_ns;
	if (now_ns - l->since_ns[1] < WFI_NSEC_PER_SEC)
		return;
	l->since_ns[0] = l->since_ns[1];
	l->was_idle_ns[0] = l->was_idle_ns[1];
	l->since_ns[1] = now_ns;
	l->was_idle_ns[1] = l->idle_ns;
}

/* Return: false the worker has slept */
static __attribute__((noinline)) bool idle_look(struct node *node, struct idle *i)
{
	const uint64_t now_ns = wfi_now(node->env);

	if (!i->since_ns) {
		i->since_ns = now_ns;
		i->spins = node->spin_ns && wfi_spin_begin(&node->spin);
	}
	if ((i->spins && now_ns - i->since_ns < node->spin_ns) ||
	    now_ns < wfi_handoffs_awaited_ns(node->handoffs) ||
	    now_ns < wfi_cluster_awaited_ns(node->cluster))
		return true;
	if (i->spins)
		wfi_spin_end(&node->spin, false);
	node_sleep(node);
	load_idle(node, i->since_ns);
	return false;
}

static void idle_over(struct node *node, const struct idle *i)
{
	if (i->spins)
		wfi_spin_end(&node->spin, true);
	load_idle(node, i->since_ns);
}

void node_run(struct node *node)
{
	/* a look at the clock each so many idle turns: spinning costs nothing but the core */
	const unsigned looks = node->nr_nets ? NET_LOOK_TURNS : LOOK_TURNS;
	struct idle i = { .turns = 0 };

	load_begin(node);
	if (node->nr_nets)
		node->doze = doze_open(node->env);
	while (!atomic_load_explicit(&node->stop, memory_order_relaxed)) {
		if (node_poll(node)) {
			if (i.since_ns)
				idle_over(node, &i);
			/* links that this turn has closed are to be closed */
			if (i.slept && node->doze)
				doze_leave(node->doze);
			i = (struct idle){ .turns = 0 };
		} else if (++i.turns & (looks - 1)) {
			if (i.turns > HOT_TURNS)
				wfi_cpu_relax();
		} else if (!idle_look(node, &i)) {
			i = (struct idle){ .slept = true };
		} else if (node->nr_nets || i.turns > HOT_TURNS) {
			/* what is waited for may need this core */
			sched_yield();
		}
	}
	doze_close(node->doze);
	node->doze = NULL;
	tier_flush(node);
	gpu_tiers_settle(node);
}
