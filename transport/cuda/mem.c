/* SPDX-License-Identifier: Apache-2.0 */
/* mem.c - host memory, pinned; and regions of engines in the memory of GPUs */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "gpu/error.h"
#include "transport/cuda/cuda.h"
#include "weft_internal/log.h"

/* ---- the host's ---- */

/* what is pinned in another context has its home there */
static void home_set(struct wfi_cuda_mr *mr, struct wfi_cuda_gpu *g)
{
	struct wfi_cuda_gpu *was = mr->home;

	g->users++;
	mr->home = g;
	if (was)
		was->users--;
}

static void mr_pin(struct wfi_cuda_mr *mr, struct wfi_cuda_gpu *g)
{
	const struct wfi_cuda *cuda = g->gpu->cuda;
	int direct = 0, res = wfi_gpu_enter(g->gpu);

	mr->tried = true;
	if (!res) {
		/* a driver may not have noticed that the context has gone */
		if (mr->home)
			cuda->cuMemHostUnregister(mr->base.addr);
		res = cuda->cuMemHostRegister(mr->base.addr, mr->base.len,
					      WFI_CUDA_HOST_PORTABLE | WFI_CUDA_HOST_MAPPED);
		wfi_gpu_leave(g->gpu);
	}
	if (res) {
		wfi_warn_once("cuda: host memory can't be pinned (%s): what goes to and from GPUs "
			      "stops in memory that is, and is slow; see ulimit -l",
			      wfi_cuda_why(res));
		__atomic_store_n(&mr->base.slow, 1, __ATOMIC_RELAXED);
		mr->stops = true;
		return;
	}
	mr->stops = false;
	home_set(mr, g);
	/* kernels use its address as it is */
	mr->pinned =
		!cuda->cuDeviceGetAttribute(&direct, WFI_CUDA_ATTR_HOST_POINTERS, g->gpu->dev) &&
		direct;
}

void wfi_cuda_mrs_pin(struct wfi_cuda_device *dev, struct wfi_cuda_gpu *g)
{
	struct wfi_cuda_mr *mr;
	bool stops = false;

	for (mr = dev->mrs; mr; mr = mr->next) {
		if (!mr->tried || (mr->home && mr->home->lost))
			mr_pin(mr, g);
		stops |= mr->stops;
	}
	/* each GPU has its own, this one perhaps since just now. Without them the driver copies */
	if (stops)
		(void)!wfi_cuda_bounces_open(g);
}

/* in the memory of which GPU that is open it begins: it is this process's, which knows how much
 * there is, now or later. Context: .lock is held. Return: 0; -ENOTCONN of none, logged */
static int gpu_of(const struct wfi_cuda_device *dev, const struct weft_mr_opts *o,
		  struct wfi_cuda_gpu **out)
{
	const uint64_t addr = (uintptr_t)o->addr;
	int ordinal, res;
	unsigned i;

	for (i = 0; i < WFI_CUDA_GPUS_MAX; i++) {
		struct wfi_cuda_gpu *g = dev->seats[i].gpu;
		struct wfi_gpu *gpu = g ? g->gpu : NULL;

		if (!gpu || g->lost || wfi_gpu_enter(gpu))
			continue;
		res = gpu->cuda->cuPointerGetAttribute(&ordinal, WFI_CUDA_POINTER_ORDINAL, addr);
		wfi_gpu_leave(gpu);
		if (res || ordinal != gpu->ordinal)
			continue;
		*out = g;
		return 0;
	}
	wfi_err("cuda: memory that is to be registered is of no GPU that is in use");
	return -ENOTCONN;
}

static int far_check(const struct weft_device *dev, const struct weft_mr_opts *o)
{
	return o->addr || o->len || o->reserved || o->fd_off ||
			       o->access != WEFT_ACCESS_LOCAL_WRITE || !o->rkey ||
			       o->rkey->ep->dev != dev || !o->rkey->len ||
			       !(o->rkey->access & WEFT_ACCESS_REMOTE_WRITE)
		       ? -EINVAL
		       : 0;
}

/* nothing is pinned: it is on no list */
static int far_reg(struct weft_device *dev, const struct weft_mr_opts *o, struct weft_mr **out)
{
	struct wfi_cuda_mr *mr;
	int ret = far_check(dev, o);

	if (ret)
		return ret;
	mr = wfi_alloc(dev->env, sizeof(*mr));
	if (!mr)
		return -ENOMEM;
	mr->far = wfi_cuda_rkey(o->rkey);
	mr->base = (struct weft_mr){
		.dev = dev,
		.addr = (void *)(uintptr_t)mr->far->region.addr,
		.len = o->rkey->len,
		.access = o->access,
	};
	*out = &mr->base;
	return 0;
}

int wfi_cuda_mr_reg(struct weft_device *base, const struct weft_mr_opts *opts, struct weft_mr **out)
{
	struct wfi_cuda_device *dev = wfi_cuda_device(base);
	struct weft_mr_opts o;
	struct wfi_cuda_mr *mr;
	bool on_gpu;
	int ret;

	ret = wfi_opts_read(&o, sizeof(o), opts);
	if (!ret && o.kind == WEFT_MR_RKEY)
		return far_reg(base, &o, out);
	on_gpu = !ret && o.kind == WEFT_MR_GPU;
	if (on_gpu)
		o.kind = WEFT_MR_HOST; /* to be checked as that */
	if (!ret)
		ret = wfi_mr_opts_check(&o);
	if (ret)
		return ret;
	mr = wfi_alloc(base->env, sizeof(*mr));
	if (!mr)
		return -ENOMEM;
	wfi_mr_init(&mr->base, base, &o);
	mr->tried = on_gpu;
	pthread_mutex_lock(&dev->lock);
	ret = on_gpu ? gpu_of(dev, &o, &mr->on) : 0;
	if (ret) {
		pthread_mutex_unlock(&dev->lock);
		wfi_free(base->env, mr, sizeof(*mr));
		return ret;
	}
	if (on_gpu)
		mr->on->users++;
	mr->next = dev->mrs;
	dev->mrs = mr;
	pthread_mutex_unlock(&dev->lock);
	*out = &mr->base;
	return 0;
}

void wfi_cuda_mr_dereg(struct weft_mr *base)
{
	struct wfi_cuda_device *dev;
	struct wfi_cuda_gpu *home;
	struct wfi_cuda_mr *mr, **link;

	if (!base)
		return;
	dev = wfi_cuda_device(base->dev);
	mr = wfi_container_of(base, struct wfi_cuda_mr, base);
	if (mr->far) {
		wfi_free(base->dev->env, mr, sizeof(*mr));
		return;
	}
	pthread_mutex_lock(&dev->lock);
	for (link = &dev->mrs; *link != mr; link = &(*link)->next)
		;
	*link = mr->next;
	home = mr->home;
	if (home && !wfi_gpu_enter(home->gpu)) {
		dev->cuda->cuMemHostUnregister(base->addr);
		wfi_gpu_leave(home->gpu);
	}
	if (home)
		home->users--;
	if (mr->on)
		mr->on->users--;
	pthread_mutex_unlock(&dev->lock);
	wfi_free(base->dev->env, mr, sizeof(*mr));
}

/* ---- the engines' ---- */

static int bad_shape(void)
{
	wfi_err("gpu: a region's segments are none, or do not fit in it: a block is nr_segments of "
		"segment_bytes, segment_stride apart, and the next begins block_stride behind it");
	return -EINVAL;
}

/* Return: 0 with *@len in bytes of whole blocks; -EINVAL, logged */
static int shape_check(const struct wfi_gpu_shape *s, uint64_t room, uint64_t *len)
{
	uint64_t tail, block;

	if (!s->nr_segments || !s->segment_bytes || !s->block_stride ||
	    __builtin_mul_overflow(s->segment_stride, s->nr_segments - 1, &tail) ||
	    wfi_add_overflows(tail, s->segment_bytes, &tail) || tail > room ||
	    __builtin_mul_overflow(s->segment_bytes, s->nr_segments, &block) ||
	    __builtin_mul_overflow(block, (room - tail) / s->block_stride + 1, len))
		return bad_shape();
	return 0;
}

uint64_t wfi_cuda_run(const struct wfi_cuda_rkey *k, uint64_t off, uint64_t *addr)
{
	const uint64_t len = wfi_gpu_shape_run(&k->shape, off, addr);

	*addr += k->region.addr;
	return len;
}

/* from its first region on, an endpoint is for one GPU. Return: 0, as wfi_cuda_errno(), logged */
static int ep_bind(struct wfi_cuda_ep *ep, struct wfi_cuda_gpu *g)
{
	int res;

	if (ep->gpu)
		return 0;
	if (g->sums.powers && !ep->sums)
		ep->sums = wfi_alloc(ep->base.dev->env, WFI_CUDA_SUMS_BYTES(ep));
	if (!ep->rest.pieces)
		ep->rest.pieces = wfi_alloc(ep->base.dev->env, WFI_CUDA_REST_BYTES(ep));
	if ((g->sums.powers && !ep->sums) || !ep->rest.pieces)
		return -ENOMEM;
	res = wfi_gpu_enter(g->gpu);
	if (!res) {
		res = wfi_cuda_streams_create(g->gpu, ep->streams);
		wfi_gpu_leave(g->gpu);
	}
	if (res) {
		wfi_cuda_streams_destroy(g->gpu, ep->streams);
		memset(ep->streams, 0, sizeof(ep->streams));
		return wfi_cuda_failed(g, "no streams", res);
	}
	g->users++;
	ep->gpu = g;
	return 0;
}

/* in the process that made it an event can't be opened, and need not */
static int event_open(struct wfi_cuda_rkey *k, struct wfi_cuda_ep *ep,
		      const struct weft_rkey_src *src, const struct wfi_gpu_export *e)
{
	int ret = wfi_cuda_held_open(ep);

	if (ret)
		return ret;
	k->foreign = src->pid != getpid();
	if (k->foreign)
		return wfi_gpu_event_import(ep->gpu->gpu, e, &k->event);
	k->event = (struct CUevent_st *)(uintptr_t)e->addr;
	return k->event ? 0 : -EINVAL;
}

/* what it has of memory is for its owner to know */
static void own_open(struct wfi_cuda_rkey *k, const struct wfi_cuda_gpu *g,
		     const struct wfi_gpu_export *e)
{
	k->region = (struct wfi_gpu_region){ .gpu = g->gpu, .addr = e->addr, .len = e->len };
}

static int rkey_open(struct wfi_cuda_rkey *k, struct wfi_cuda_ep *ep,
		     const struct weft_rkey_src *src, const struct wfi_gpu_source *from)
{
	struct wfi_cuda_gpu *g = ep->gpu;
	int ret;

	if (g && memcmp(g->uuid, from->memory.uuid, sizeof(g->uuid)) != 0)
		return -EXDEV;
	ret = wfi_cuda_gpu_get(wfi_cuda_device(ep->base.dev), from->memory.uuid, &g);
	/* what this endpoint is for was lost, and is no more */
	if (!ret && ep->gpu && ep->gpu != g)
		return -ENOTCONN;
	if (!ret)
		ret = ep_bind(ep, g);
	if (!ret && g->bounces)
		ret = wfi_cuda_held_open(ep);
	if (ret)
		return ret;
	if (from->memory.kind == WFI_GPU_EXPORT_EVENT)
		ret = event_open(k, ep, src, &from->memory);
	else if (src->pid == getpid() && from->memory.kind == WFI_GPU_EXPORT_OWN)
		own_open(k, g, &from->memory);
	else if (src->pid == getpid())
		ret = wfi_gpu_region_here(g->gpu, &from->memory, &k->region);
	else
		ret = wfi_gpu_import(g->gpu, &from->memory, src->fd, &k->region);
	return ret && wfi_cuda_look(g) ? wfi_cuda_lost_errno(g) : ret;
}

int wfi_cuda_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			 struct weft_rkey **out)
{
	struct wfi_gpu_source from;
	struct weft_rkey_src s;
	struct wfi_cuda_rkey *k;
	int ret = 0;

	if (wfi_opts_read(&s, sizeof(s), src) || s.kind != WEFT_RKEY_GPU || !s.blob ||
	    s.blob_len != sizeof(from) || !s.access || (s.access & ~WFI_REMOTE_ACCESS) ||
	    s.pid <= 0)
		return -EINVAL;
	if (wfi_cuda_ep(ep)->state != WFI_EP_CONNECTED)
		return -ENOTCONN;
	memcpy(&from, s.blob, sizeof(from));
	k = wfi_alloc(ep->dev->env, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->base.ep = ep;
	k->base.access = s.access;
	k->base.len = from.memory.kind == WFI_GPU_EXPORT_EVENT ? 0 : from.memory.len;
	/* an event has no bytes that could lie anywhere */
	if (k->base.len && from.shape.nr_segments) {
		k->shape = from.shape;
		ret = shape_check(&k->shape, from.memory.len, &k->base.len);
	}
	if (!ret)
		ret = rkey_open(k, wfi_cuda_ep(ep), &s, &from);
	if (ret) {
		wfi_free(ep->dev->env, k, sizeof(*k));
		return ret;
	}
	*out = &k->base;
	return 0;
}

void wfi_cuda_rkey_destroy(struct weft_rkey *base)
{
	struct wfi_cuda_rkey *k;

	if (!base)
		return;
	k = wfi_container_of(base, struct wfi_cuda_rkey, base);
	if (k->event)
		wfi_cuda_gates_open(wfi_cuda_ep(base->ep), k->event);
	if (k->foreign)
		wfi_gpu_event_close(wfi_cuda_ep(base->ep)->gpu->gpu, k->event);
	wfi_gpu_region_close(&k->region);
	wfi_free(base->ep->dev->env, k, sizeof(*k));
}
