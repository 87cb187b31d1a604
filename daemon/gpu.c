/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu.c - engines' memory on GPUs: the link there, and a session's endpoints, one for each GPU
 *
 * What takes long, the driver's start, a GPU's context and the opening of a region, happens in the
 * control thread; the worker gets what came of it. A node that no engine gives GPU memory never
 * loads a driver.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"
#include "weft_internal/transport_registry.h"

#define WHY_LEN sizeof(((struct weft_ctl_rep *)0)->why)

struct gpu_call {
	struct session *s;
	struct node_link *link; /* to be the node's */
	unsigned idx; /* in .gpus */
	struct region region; /* to be the session's */
	const struct node_gpu_tier *tier; /* of its GPU */
	uint32_t id;
	char *why;
	int ret;
};

static void gpu_why(char *why, int ret)
{
	const char *text = "the GPU memory can't be used: see the node's log";

	if (ret == -ESTALE)
		text = "the GPU memory is not there: its process has ended, or freed it";
	else if (ret == -ENODEV)
		text = "the node does not see this GPU, or can't use it: give weftd the same "
		       "CUDA_VISIBLE_DEVICES and, in containers, /dev/nvidia*";
	else if (ret == -EIO)
		text = "this GPU has failed: see the node's log, and dmesg for Xid; "
		       "register again, and the node opens it anew";
	else if (ret == -EAGAIN)
		text = "this GPU fails again and again: the node waits up to a minute before it "
		       "opens it anew; see its log, and dmesg for Xid";
	else if (ret == -ENOTRECOVERABLE)
		text = "this GPU has failed in a way that only a new process gets over: see the "
		       "node's log, and dmesg for Xid; restart the node";
	else if (ret == -ENOMEM)
		text = "no memory is left to open it, on the GPU or the host: see nvidia-smi";
	else if (ret == -EINVAL)
		text = "the region is more than its allocation, or its segments do not fit in it";
	else if (ret == -EBADF)
		text = "the region's file descriptor is missing, or not one of the node's driver";
	else if (ret == -EPROTO)
		text = "engine and node use drivers of two versions: give both the same "
		       "libcuda.so.1";
	else if (ret == -EMFILE)
		text = "an engine's regions are on too many GPUs, or some of theirs have failed: "
		       "deregister those";
	snprintf(why, WHY_LEN, "%s", text);
}

/* ---- the link ---- */

/* its queue is polled even when no transfer is open: what waits for an event may have had none */
static void run_link_give(struct node *node, void *arg)
{
	struct gpu_call *c = arg;

	c->ret = wfi_xfer_queue_add(node->xfer, c->link->send_cq);
	if (!c->ret)
		node->gpu = *c->link;
}

/* the driver is loaded, and all arenas are to be pinned when regions are opened */
static int link_get(struct node *node, char *why)
{
	const struct weft_transport *t = wfi_transport_find(node->env->transports, "cuda");
	struct node_link link = { .dev = NULL };
	struct gpu_call c = { .link = &link };
	struct weft_probe probe = { .why = "this node has no provider for GPUs" };
	unsigned i;
	int ret;

	if (node->gpu.dev)
		return 0;
	ret = t ? t->probe(t, node->env, &probe) : -ENODEV;
	if (ret) {
		snprintf(why, WHY_LEN, "no way to GPU memory: %s", probe.why);
		return ret;
	}
	ret = link_open(&link, node->env, t, NULL);
	for (i = 0; i < node->nr_tenants && !ret; i++)
		ret = link_arena_add(&link, wfi_tenant_arena(node->tenants[i]));
	if (!ret) {
		node_call(node, run_link_give, &c);
		ret = c.ret;
	}
	if (!ret)
		return 0;
	link_close(&link);
	gpu_why(why, ret);
	return ret;
}

const struct weft_mr *gpu_mr(const struct session *s, const struct weft_ep *ep)
{
	const struct node *node = s->node;
	unsigned i = 0;

	if (wfi_likely(ep == s->ep))
		return NULL;
	while (node->tenants[i] != s->tenant)
		i++;
	return node->gpu.arenas[i];
}

/* a read of no bytes, which nobody hears of */
static int event_read(struct session *s, uint64_t event, struct weft_ep *ep, uint32_t flags)
{
	const struct weft_mr *mr = gpu_mr(s, ep);
	const struct region *g = event < SESSION_REGIONS_MAX ? &s->regions[event] : NULL;
	struct weft_piece piece = { .len = 0 };
	const struct weft_post post = {
		.pieces = &piece,
		.nr_pieces = 1,
		.flags = WEFT_POST_QUIET | flags,
		.local_mr = mr,
		.cookie = UINT64_MAX,
	};

	/* an event has no bytes, and is the only thing that has none */
	if (!mr || !g || !g->rkey || g->closing || g->len || g->rkey->ep != ep)
		return -EINVAL;
	piece.local = mr->addr;
	piece.rkey = g->rkey;
	return weft_ep_post_read(ep, &post);
}

int gpu_wait(struct session *s, uint64_t event, struct weft_ep *ep)
{
	return event_read(s, event, ep, 0);
}

int gpu_come(struct session *s, uint64_t event, struct weft_ep *ep)
{
	return event_read(s, event, ep, WEFT_POST_TRY);
}

/* ---- endpoints ---- */

static void ep_put(struct session_gpu *g)
{
	g->ep->dev->transport->ep_destroy(g->ep);
	g->ep = NULL;
}

static void run_ep(struct node *node, void *arg)
{
	struct gpu_call *c = arg;
	struct session_gpu *g = &c->s->gpus[c->idx];
	const struct weft_ep_opts opts = {
		.size = sizeof(opts),
		.send_cq = node->gpu.send_cq,
		.recv_cq = node->gpu.recv_cq,
		.flags = WEFT_EP_MEM,
		.ctx = &g->owner,
	};

	/* it was closed after its last region had gone */
	if (g->ep && g->owner.closed && !g->nr_regions)
		ep_put(g);
	if (g->ep)
		return;
	g->owner = (struct ep_owner){ .kind = EP_GPU };
	c->ret = node->gpu.transport->ep_create(node->gpu.dev, &opts, &g->ep);
}

void gpu_region_gone(struct session *s, const struct weft_ep *ep)
{
	struct session_gpu *g = s->gpus;

	while (g->ep != ep)
		g++;
	g->nr_regions--;
	if (!g->nr_regions && g->owner.closed)
		ep_put(g);
}

void gpu_eps_shutdown(struct session *s)
{
	unsigned i;

	for (i = 0; i < SESSION_GPUS_MAX; i++)
		if (s->gpus[i].ep)
			s->gpus[i].ep->dev->transport->ep_shutdown(s->gpus[i].ep);
}

bool gpu_eps_closed(const struct session *s)
{
	unsigned i;

	for (i = 0; i < SESSION_GPUS_MAX; i++)
		if (s->gpus[i].ep && !s->gpus[i].owner.closed)
			return false;
	return true;
}

void gpu_eps_destroy(struct session *s)
{
	unsigned i;

	for (i = 0; i < SESSION_GPUS_MAX; i++)
		if (s->gpus[i].ep)
			ep_put(&s->gpus[i]);
}

void gpu_ep_closed(struct node *node, struct ep_owner *owner, int status)
{
	const struct session_gpu *g = wfi_container_of(owner, struct session_gpu, owner);

	struct node_gpu *gpu = status && g->gpu ? &node->gpus[g->gpu - 1] : NULL;

	if (!gpu)
		return;
	wfi_count(node->gpus_lost, !gpu->lost);
	gpu->lost = true;
	gpu->needs_restart |= status == -ENOTRECOVERABLE;
}

/* ---- regions ---- */

static void run_give(struct node *node, void *arg)
{
	struct gpu_call *c = arg;

	c->s->gpus[c->idx].tier = c->tier;
	c->ret = session_region_give(c->s, &c->region, c->idx, &c->id, c->why);
	if (c->ret) {
		gpu_direct_close(c->region.direct);
		node->gpu.transport->rkey_destroy(c->region.rkey);
		return;
	}
	if (!c->region.gpu)
		return;
	node->gpus[c->region.gpu - 1].lost = false;
	node->gpus[c->region.gpu - 1].needs_restart = false;
	wfi_count(c->region.direct ? node->gpu_direct : node->gpu_staged, 1);
}

/* what the region is beside memory that is copied: known to some NICs */
static void direct(struct gpu_call *c, const struct weft_ctl_req *req, int dmabuf,
		   const struct wfi_gpu_source *source)
{
	const int gpu = source->memory.kind == WFI_GPU_EXPORT_EVENT
				? -ENOENT
				: gpu_look(c->s->node, source->memory.uuid);

	if (gpu < 0)
		return;
	c->region.gpu = (uint8_t)(gpu + 1);
	c->region.direct = gpu_direct_open(c->s->node, (unsigned)gpu, dmabuf,
					   req->u.region.dmabuf_off, source, c->region.rkey);
}

static void source_of(const struct weft_ctl_req *req, struct wfi_gpu_source *out)
{
	*out = (struct wfi_gpu_source){
		.memory = {
			.kind = req->u.region.kind,
			.driver = req->u.region.driver,
			.addr = req->u.region.addr,
			.off = req->u.region.off,
			.len = req->u.region.len,
			.size = req->u.region.size,
		},
		.shape = {
			.segment_bytes = req->u.region.segment_bytes,
			.segment_stride = req->u.region.segment_stride,
			.block_stride = req->u.region.block_stride,
			.nr_segments = req->u.region.nr_segments,
		},
	};
	memcpy(out->memory.uuid, req->u.region.gpu, sizeof(out->memory.uuid));
	memcpy(out->memory.handle, req->u.region.handle, sizeof(out->memory.handle));
}

static void run_give_up(struct node *node, void *arg)
{
	struct node_gpu *gpu = &node->gpus[((struct gpu_call *)arg)->idx];

	wfi_count(node->gpus_lost, !gpu->lost);
	gpu->lost = true;
	gpu->needs_restart = true;
}

/* regions there can't be opened in this life any more: no endpoint may have said so */
static void give_up(struct gpu_call *c, const uint8_t uuid[16])
{
	const int gpu = gpu_look(c->s->node, uuid);

	if (gpu < 0)
		return;
	c->idx = (unsigned)gpu;
	node_call(c->s->node, run_give_up, c);
}

/* over the session's endpoint to that GPU, or another one. Return: 0, -errno */
static int import(struct gpu_call *c, const struct weft_rkey_src *src)
{
	struct session *s = c->s;
	const struct weft_transport *t = s->node->gpu.transport;
	int ret = -EXDEV;

	for (c->idx = 0; c->idx < SESSION_GPUS_MAX; c->idx++) {
		node_call(s->node, run_ep, c);
		if (c->ret)
			return c->ret;
		ret = t->rkey_import(s->gpus[c->idx].ep, src, &c->region.rkey);
		/* it is for another GPU, or for one that failed */
		if (ret != -EXDEV && ret != -ENOTCONN)
			return ret;
	}
	return -EMFILE;
}

/* what it exports is another process's, but which one no pid says here */
static int no_pid(const struct session *s, char *why)
{
	static const char text[] =
		"engine and node are in two pid namespaces, where GPU memory can't be passed: run "
		"both in one (hostPID, or docker run --pid=host)";

	wfi_err("gpu: \"%s\" registers a region: %s", s->name, text);
	snprintf(why, WHY_LEN, "%s", text);
	return -ESRCH;
}

int gpu_region_reg(struct session *s, const struct weft_ctl_req *req, int fd, int dmabuf,
		   uint32_t *id, char *why)
{
	struct wfi_gpu_source source;
	const struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_GPU,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
		.fd = fd,
		.pid = s->pid,
		.blob = &source,
		.blob_len = sizeof(source),
	};
	struct gpu_call c = { .s = s, .why = why };
	int ret;

	if (s->pid <= 0)
		return no_pid(s, why);
	ret = link_get(s->node, why);
	if (ret)
		return ret;
	source_of(req, &source);
	/* what it has in a context that is lost would keep that one */
	gpu_tier_reap(s->node, source.memory.uuid);
	ret = import(&c, &src);
	if (ret == -ENOTRECOVERABLE)
		give_up(&c, source.memory.uuid);
	if (ret) {
		gpu_why(why, ret);
		return ret;
	}
	/* its GPU is open now */
	c.tier = gpu_tier_get(s->node, source.memory.uuid);
	direct(&c, req, dmabuf, &source);
	node_call(s->node, run_give, &c);
	if (!c.ret)
		*id = c.id;
	return c.ret;
}
