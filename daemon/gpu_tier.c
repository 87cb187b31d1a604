/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_tier.c - the tiers in the memory of GPUs: one for each that engines have regions on
 *
 * A tier is opened behind the first region of its GPU, by the control thread, since that takes
 * long; the worker gets what came of it. One that can't be had is not asked for again, and its
 * engines are served from memory. One that has failed is opened again, and empty, behind the next
 * region, or when it is to have another size.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/log.h"
#include "weft_internal/tier_gpu.h"

#define TIER_MAX (1ull << 40)
#define TIER_GROWS 4u /* times its first size */

struct tier_call {
	struct node_gpu_tier *t;
	int ret;
};

static unsigned long long mib(uint64_t bytes)
{
	return bytes >> 20;
}

static const struct weft_mr *arena_of(void *ctx, const struct wfi_tenant *t)
{
	const struct node *node = ctx;
	unsigned i;

	for (i = 0; i < node->gpu.nr_arenas; i++)
		if (node->tenants[i] == t)
			return node->gpu.arenas[i];
	return NULL;
}

/* ---- opening: worker's part ---- */

static void run_ep(struct node *node, void *arg)
{
	struct tier_call *c = arg;
	const struct weft_ep_opts opts = {
		.size = sizeof(opts),
		.send_cq = node->gpu.send_cq,
		.recv_cq = node->gpu.recv_cq,
		.flags = WEFT_EP_MEM,
		.ctx = &c->t->owner,
	};

	c->t->owner = (struct ep_owner){ .kind = EP_TIER };
	c->ret = node->gpu.transport->ep_create(node->gpu.dev, &opts, &c->t->ep);
}

static void run_create(struct node *node, void *arg)
{
	struct tier_call *c = arg;
	struct node_gpu_tier *t = c->t;
	const struct wfi_tier_gpu_opts opts = {
		.env = node->env,
		.metrics = node->metrics,
		.kv = node->kv,
		.xfer = node->xfer,
		.gpu = t->memory.ordinal,
		.ep = t->ep,
		.rkey = t->rkey,
		.mr = t->mr,
		.arena = arena_of,
		.ctx = node,
		.bytes = t->memory.len,
		.chunk_bytes = t->memory.part ? t->memory.part : wfi_tier_gpu_chunk(t->memory.len),
		.write_bps = node->gpu_tier_write_bps,
		.timeout_ns = node->op_timeout_ns,
	};

	c->ret = wfi_tier_gpu_create(&opts, &t->tier);
}

/* what there is of it */
static void run_close(struct node *node, void *arg)
{
	const struct weft_transport *transport = node->gpu.transport;
	struct node_gpu_tier *t = arg;

	wfi_tier_gpu_destroy(t->tier);
	transport->mr_dereg(t->mr);
	transport->rkey_destroy(t->rkey);
	transport->ep_destroy(t->ep);
	t->tier = NULL;
	t->shrinks = false;
	t->mr = NULL;
	t->rkey = NULL;
	t->ep = NULL;
}

static void run_show(struct node *node, void *arg)
{
	node->gpu_tiers[node->nr_gpu_tiers++] = arg;
}

/* .ret: whether it is closed now */
static void run_reap(struct node *node, void *arg)
{
	struct tier_call *c = arg;
	unsigned i;

	if (!c->t->tier)
		return;
	/* others may have found that before it did */
	for (i = 0; i < node->nr_gpus; i++)
		if (node->gpus[i].lost && node->gpus[i].ordinal == c->t->memory.ordinal)
			wfi_tier_gpu_lose(c->t->tier);
	if (!wfi_tier_gpu_over(c->t->tier))
		return;
	run_close(node, c->t);
	c->ret = 1;
}

/* ---- opening ---- */

static int memory_reach(struct node *node, struct node_gpu_tier *t)
{
	const struct weft_transport *transport = node->gpu.transport;
	struct wfi_gpu_source from = {
		.memory = { .kind = WFI_GPU_EXPORT_OWN,
			    .addr = t->memory.addr,
			    .len = t->memory.max_len },
	};
	const struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_GPU,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
		.fd = -1,
		.pid = getpid(),
		.blob = &from,
		.blob_len = sizeof(from),
	};
	const struct weft_mr_opts mr = {
		.size = sizeof(mr),
		.addr = (void *)(uintptr_t)t->memory.addr,
		.len = t->memory.max_len,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.kind = WEFT_MR_GPU,
	};
	int ret;

	memcpy(from.memory.uuid, t->uuid, sizeof(from.memory.uuid));
	ret = transport->rkey_import(t->ep, &src, &t->rkey);
	return ret ? ret : transport->mr_reg(node->gpu.dev, &mr, &t->mr);
}

static int tier_open(struct node *node, struct node_gpu_tier *t, uint64_t bytes)
{
	struct tier_call c = { .t = t };
	const char *why;
	const struct wfi_cuda *cuda = wfi_cuda_load(&why);
	int ret = cuda ? wfi_gpu_memory_open(node->env, cuda, t->uuid, bytes,
					     wfi_min(TIER_GROWS * bytes, TIER_MAX),
					     wfi_tier_gpu_chunk(bytes), &t->memory)
		       : -ENODEV;

	if (ret)
		return ret;
	node_call(node, run_ep, &c);
	ret = c.ret ? c.ret : memory_reach(node, t);
	if (!ret) {
		node_call(node, run_create, &c);
		ret = c.ret;
	}
	if (ret) {
		node_call(node, run_close, t);
		wfi_gpu_memory_close(&t->memory);
		return ret;
	}
	t->want = t->memory.len;
	t->closed = false;
	wfi_info("gpu %d: %llu MiB are its tier", t->memory.ordinal, mib(t->want));
	return 0;
}

static const char *why_not(int ret)
{
	if (ret == -EOPNOTSUPP)
		return "this weftd was built without kernels, and nothing there could be proved: "
		       "build it with nvcc";
	if (ret == -ENOMEM)
		return "the GPU, or the host, has no memory left for it: leave it some, or set a "
		       "smaller gpu_tier_bytes";
	return "it can't be had there: see the node's log";
}

/* none comes but from this thread. Return: NULL: there is none */
static struct node_gpu_tier *tier_find(const struct node *node, const uint8_t uuid[16])
{
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++)
		if (!memcmp(node->gpu_tiers[i]->uuid, uuid, sizeof(node->gpu_tiers[i]->uuid)))
			return node->gpu_tiers[i];
	return NULL;
}

/* whether it works is known afterwards: it is not tried again */
static void tier_try(struct node *node, struct node_gpu_tier *t)
{
	const int ret = tier_open(node, t, node->gpu_tier_bytes);

	t->closed = false;
	if (!ret)
		return;
	snprintf(t->why, sizeof(t->why), "%s", why_not(ret));
	wfi_warn("node: serves a GPU without a tier: %s", t->why);
}

struct node_gpu_tier *gpu_tier_get(struct node *node, const uint8_t uuid[16])
{
	struct node_gpu_tier *t = tier_find(node, uuid);
	const bool is_new = !t && node->nr_gpu_tiers < SESSION_GPUS_MAX;

	if (is_new)
		t = wfi_alloc(node->env, sizeof(*t));
	if (!t)
		return NULL;
	if (is_new) {
		memcpy(t->uuid, uuid, sizeof(t->uuid));
		t->closed = true;
	}
	if (t->closed && node->gpu_tier_bytes)
		tier_try(node, t);
	if (is_new)
		node_call(node, run_show, t);
	return t;
}

/* the worker has nothing of it any more */
static void tier_closed(struct node_gpu_tier *t)
{
	wfi_gpu_memory_close(&t->memory);
	t->want = 0;
	t->closed = true;
}

bool gpu_tier_reap(struct node *node, const uint8_t uuid[16])
{
	struct tier_call c = { .t = tier_find(node, uuid) };

	if (!c.t)
		return false;
	node_call(node, run_reap, &c);
	if (!c.ret)
		return false;
	tier_closed(c.t);
	snprintf(c.t->why, sizeof(c.t->why),
		 "the GPU has failed, and is to be opened anew behind the next region there");
	return true;
}

/* ---- another size ---- */

struct resize {
	struct node *node;
	uint64_t bytes;
	char *why;
	size_t why_len;
	bool reaped[SESSION_GPUS_MAX]; /* these had failed, and are closed now */
	bool lost[SESSION_GPUS_MAX]; /* these have, and something there is still under way */
	uint64_t had[SESSION_GPUS_MAX];
};

static void run_lost(struct node *node, void *arg)
{
	struct resize *r = arg;
	struct wfi_tier_gpu_stat st;
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++) {
		if (!node->gpu_tiers[i]->tier)
			continue;
		wfi_tier_gpu_stat(node->gpu_tiers[i]->tier, &st);
		r->lost[i] = st.state == WFI_TIER_FAILED;
	}
}

/* .ret: whether it has that size already */
static void run_resize(struct node *node, void *arg)
{
	struct tier_call *c = arg;

	(void)node;
	wfi_tier_gpu_resize(c->t->tier, c->t->want);
	c->t->shrinks = wfi_tier_gpu_shrinks(c->t->tier);
	c->ret = !c->t->shrinks;
}

/* .ret: whether it has no bytes, and is closed now */
static void run_empty(struct node *node, void *arg)
{
	struct tier_call *c = arg;

	c->ret = c->t->tier && wfi_tier_gpu_over(c->t->tier);
	if (c->ret)
		run_close(node, c->t);
}

/* nothing touches what it has lost any more */
static void tier_trim(struct node *node, struct node_gpu_tier *t)
{
	struct tier_call c = { .t = t };

	if (!t->want)
		node_call(node, run_empty, &c);
	if (c.ret)
		tier_closed(t);
	else
		wfi_gpu_memory_trim(&t->memory, t->want);
}

void gpu_tiers_trim(struct node *node)
{
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++)
		if (atomic_exchange_explicit(&node->gpu_tiers[i]->shrunk, false,
					     memory_order_acquire))
			tier_trim(node, node->gpu_tiers[i]);
}

/* Return: 0, or why no memory could make it that large, or that small */
static int size_check(const struct resize *r, unsigned i)
{
	const struct node_gpu_tier *t = r->node->gpu_tiers[i];
	const struct wfi_gpu_memory *m = &t->memory;

	if (r->lost[i]) {
		snprintf(r->why, r->why_len,
			 "the tier of gpu %d has failed, and a copy there is still under way: try "
			 "again when it has ended, or restart the node",
			 m->ordinal);
		return -EBUSY;
	}
	if (m->len != t->want) {
		snprintf(r->why, r->why_len,
			 "the tier of gpu %d is still getting smaller: try again when it is",
			 m->ordinal);
		return -EBUSY;
	}
	if (!t->tier || !r->bytes || r->bytes == m->len)
		return 0;
	if (!m->part) {
		snprintf(r->why, r->why_len,
			 "gpu %d gives no memory in parts: make its tier 0, then as large as it is "
			 "to be",
			 m->ordinal);
		return -EOPNOTSUPP;
	}
	if (r->bytes <= m->max_len)
		return 0;
	snprintf(r->why, r->why_len,
		 "the tier of gpu %d may grow to %llu MiB, four times what it began with: make it "
		 "0, then as large as it is to be",
		 m->ordinal, mib(m->max_len));
	return -EINVAL;
}

static int sizes_check(const struct resize *r)
{
	unsigned i;
	int ret = 0;

	if (r->bytes > TIER_MAX) {
		snprintf(r->why, r->why_len, "a GPU's tier has at most %llu MiB", mib(TIER_MAX));
		return -EINVAL;
	}
	for (i = 0; i < r->node->nr_gpu_tiers && !ret; i++)
		ret = size_check(r, i);
	return ret;
}

/* its memory, before it is used */
static int tier_enlarge(const struct resize *r, unsigned i)
{
	struct node_gpu_tier *t = r->node->gpu_tiers[i];
	int ret = 0;

	if (!t->tier && r->bytes)
		ret = tier_open(r->node, t, r->bytes);
	else if (r->bytes > t->memory.len)
		ret = wfi_gpu_memory_grow(&t->memory, r->bytes);
	/* its GPU may be no better, which says nothing against the others' size */
	if (ret && ret != -ENOMEM && r->reaped[i]) {
		wfi_warn("node: serves a GPU without a tier: %s", t->why);
		return 0;
	}
	if (ret)
		snprintf(r->why, r->why_len, "%s; nothing was changed", why_not(ret));
	return ret;
}

/* all that its memory has, or less */
static void tier_set(const struct resize *r, struct node_gpu_tier *t, uint64_t bytes)
{
	const uint64_t was = t->want;
	struct tier_call c = { .t = t };

	if (!t->tier)
		return;
	t->want = t->memory.part ? wfi_align_up(bytes, t->memory.part) : bytes;
	if (t->want != was)
		wfi_info("gpu %d: %llu MiB are to be its tier, which has %llu", t->memory.ordinal,
			 mib(t->want), mib(was));
	node_call(r->node, run_resize, &c);
	if (c.ret)
		tier_trim(r->node, t);
}

int gpu_tiers_resize(struct node *node, uint64_t bytes, char *why, size_t why_len)
{
	struct resize r = { .node = node, .bytes = bytes, .why = why, .why_len = why_len };
	unsigned i, nr = 0;
	int ret;

	for (i = 0; i < node->nr_gpu_tiers; i++)
		r.reaped[i] = gpu_tier_reap(node, node->gpu_tiers[i]->uuid);
	node_call(node, run_lost, &r);
	ret = sizes_check(&r);
	for (; nr < node->nr_gpu_tiers && !ret; nr++) {
		r.had[nr] = node->gpu_tiers[nr]->want;
		ret = tier_enlarge(&r, nr);
	}
	if (!ret)
		node->gpu_tier_bytes = bytes;
	for (i = 0; i < nr; i++)
		tier_set(&r, node->gpu_tiers[i], ret ? r.had[i] : bytes);
	return ret;
}

/* ---- the worker's ---- */

/* there may be more memory than it has room for */
static void tier_shrunk(struct node *node, struct node_gpu_tier *t)
{
	t->shrinks = false;
	/* pairs with the acquire in gpu_tiers_trim() */
	atomic_store_explicit(&t->shrunk, true, memory_order_release);
	node_poke(node);
}

int gpu_tiers_poll(struct node *node, uint64_t now_ns)
{
	unsigned i;
	int work = 0;

	for (i = 0; i < node->nr_gpu_tiers; i++) {
		struct node_gpu_tier *t = node->gpu_tiers[i];

		if (!t->tier)
			continue;
		if (wfi_unlikely(t->owner.closed))
			wfi_tier_gpu_lose(t->tier);
		work += wfi_tier_gpu_poll(t->tier, now_ns);
		if (wfi_unlikely(t->shrinks) && !wfi_tier_gpu_shrinks(t->tier))
			tier_shrunk(node, t);
	}
	return work;
}

uint64_t gpu_tiers_next_event_ns(const struct node *node)
{
	uint64_t at_ns = UINT64_MAX;
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++) {
		const struct node_gpu_tier *t = node->gpu_tiers[i];

		if (!t->tier)
			continue;
		if (t->shrinks && !wfi_tier_gpu_shrinks(t->tier))
			return 0;
		at_ns = wfi_min(at_ns, wfi_tier_gpu_next_event_ns(t->tier));
	}
	return at_ns;
}

struct wfi_tier_gpu *gpu_tier_of(const struct session *s, const struct weft_ep *ep)
{
	const struct session_gpu *g = s->gpus;

	if (ep == s->ep)
		return NULL;
	while (g->ep != ep)
		g++;
	return g->tier ? g->tier->tier : NULL;
}

uint32_t gpu_tiers_holding(const struct node *node, uint32_t slot)
{
	uint32_t gpus = 0;
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++) {
		const struct node_gpu_tier *t = node->gpu_tiers[i];

		if (t->tier && wfi_tier_gpu_holds(t->tier, slot))
			gpus |= 1u << t->memory.ordinal;
	}
	return gpus;
}

bool gpu_tiers_near(const struct session *s, uint32_t slot)
{
	const struct session_gpu *g;

	for (g = s->gpus; g < s->gpus + SESSION_GPUS_MAX; g++)
		if (g->ep && g->tier && g->tier->tier && wfi_tier_gpu_holds(g->tier->tier, slot))
			return true;
	return false;
}

bool gpu_tiers_busy(const struct node *node)
{
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++)
		if (node->gpu_tiers[i]->tier && wfi_tier_gpu_busy(node->gpu_tiers[i]->tier))
			return true;
	return false;
}

void gpu_tiers_destroy(struct node *node)
{
	while (node->nr_gpu_tiers) {
		struct node_gpu_tier *t = node->gpu_tiers[--node->nr_gpu_tiers];

		run_close(node, t);
		wfi_gpu_memory_close(&t->memory);
		wfi_free(node->env, t, sizeof(*t));
	}
}
