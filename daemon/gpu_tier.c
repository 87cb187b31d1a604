/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_tier.c - the tiers in the memory of GPUs: one for each that engines have regions on
 *
 * A tier is opened behind the first region of its GPU, by the control thread, since that takes
 * long; the worker gets what came of it. One that can't be had is not asked for again, and its
 * engines are served from memory. One that has failed is opened again, and empty, behind the next
 * region.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/log.h"
#include "weft_internal/tier_gpu.h"

struct tier_call {
	struct node_gpu_tier *t;
	int ret;
};

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
		.memory = { .kind = WFI_GPU_EXPORT_IPC,
			    .addr = t->memory.addr,
			    .len = t->memory.len },
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
		.len = t->memory.len,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.kind = WEFT_MR_GPU,
	};
	int ret;

	memcpy(from.memory.uuid, t->uuid, sizeof(from.memory.uuid));
	ret = transport->rkey_import(t->ep, &src, &t->rkey);
	return ret ? ret : transport->mr_reg(node->gpu.dev, &mr, &t->mr);
}

static int tier_open(struct node *node, struct node_gpu_tier *t)
{
	struct tier_call c = { .t = t };
	const char *why;
	const struct wfi_cuda *cuda = wfi_cuda_load(&why);
	int ret = cuda ? wfi_gpu_memory_open(node->env, cuda, t->uuid, node->gpu_tier_bytes,
					     &t->memory)
		       : -ENODEV;

	if (ret)
		return ret;
	node_call(node, run_ep, &c);
	ret = c.ret ? c.ret : memory_reach(node, t);
	if (!ret) {
		node_call(node, run_create, &c);
		ret = c.ret;
	}
	if (!ret)
		return 0;
	node_call(node, run_close, t);
	wfi_gpu_memory_close(&t->memory);
	return ret;
}

static void say_why(struct node_gpu_tier *t, int ret)
{
	const char *text = "it can't be had there: see the node's log";

	if (ret == -EOPNOTSUPP)
		text = "this weftd was built without kernels, and nothing there could be proved: "
		       "build it with nvcc";
	else if (ret == -ENOMEM)
		text = "the GPU, or the host, has no memory left for it: leave it some, or set a "
		       "smaller gpu_tier_bytes";
	snprintf(t->why, sizeof(t->why), "%s", text);
	wfi_warn("node: serves a GPU without a tier: %s", text);
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

static void tier_try(struct node *node, struct node_gpu_tier *t)
{
	const int ret = tier_open(node, t);

	t->reaped = false;
	if (ret)
		say_why(t, ret);
	else
		wfi_info("gpu %d: %llu MiB are its tier", t->memory.ordinal,
			 (unsigned long long)t->memory.len >> 20);
}

struct node_gpu_tier *gpu_tier_get(struct node *node, const uint8_t uuid[16])
{
	struct node_gpu_tier *t = tier_find(node, uuid);

	if (t && t->reaped)
		tier_try(node, t);
	if (t || !node->gpu_tier_bytes || node->nr_gpu_tiers == SESSION_GPUS_MAX)
		return t;
	t = wfi_alloc(node->env, sizeof(*t));
	if (!t)
		return NULL;
	memcpy(t->uuid, uuid, sizeof(t->uuid));
	tier_try(node, t);
	node_call(node, run_show, t);
	return t;
}

void gpu_tier_reap(struct node *node, const uint8_t uuid[16])
{
	struct tier_call c = { .t = tier_find(node, uuid) };

	if (!c.t)
		return;
	node_call(node, run_reap, &c);
	if (!c.ret)
		return;
	wfi_gpu_memory_close(&c.t->memory);
	c.t->reaped = true;
	snprintf(c.t->why, sizeof(c.t->why),
		 "the GPU has failed, and is to be opened anew behind the next region there");
}

/* ---- the worker's ---- */

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
	}
	return work;
}

uint64_t gpu_tiers_next_event_ns(const struct node *node)
{
	uint64_t at_ns = UINT64_MAX;
	unsigned i;

	for (i = 0; i < node->nr_gpu_tiers; i++)
		if (node->gpu_tiers[i]->tier)
			at_ns = wfi_min(at_ns,
					wfi_tier_gpu_next_event_ns(node->gpu_tiers[i]->tier));
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

void gpu_tiers_destroy(struct node *node)
{
	while (node->nr_gpu_tiers) {
		struct node_gpu_tier *t = node->gpu_tiers[--node->nr_gpu_tiers];

		run_close(node, t);
		wfi_gpu_memory_close(&t->memory);
		wfi_free(node->env, t, sizeof(*t));
	}
}
