/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "gpu/error.h"
#include "transport/cuda/cuda.h"
#include "weft_internal/log.h"

#define PAUSE_MIN_NS WFI_NSEC_PER_SEC
#define PAUSE_MAX_NS (64 * WFI_NSEC_PER_SEC)

int wfi_cuda_lost_errno(const struct wfi_cuda_gpu *g)
{
	return g->gpu->reach == WFI_CUDA_PROCESS || g->doubt ? -ENOTRECOVERABLE : -EIO;
}

void wfi_cuda_lose(struct wfi_cuda_gpu *g)
{
	if (!g->lost)
		wfi_err("gpu %d: all regions in its memory are lost; %s", g->gpu->ordinal,
			wfi_cuda_lost_errno(g) == -EIO
				? "the next one that is registered opens it anew"
				: "restart the node to use it again");
	g->lost = true;
}

bool wfi_cuda_look(struct wfi_cuda_gpu *g)
{
	if (g->gpu->reach >= WFI_CUDA_CONTEXT)
		wfi_cuda_lose(g);
	else if (g->gpu->reach == WFI_CUDA_DOUBT)
		g->doubt = true;
	return g->lost || g->doubt;
}

int wfi_cuda_failed(struct wfi_cuda_gpu *g, const char *what, int res)
{
	int ret = wfi_cuda_errno(res);

	/* what is waited for is looked at again and again, and says the same */
	if (!g->doubt || wfi_cuda_fences(res))
		ret = wfi_gpu_failed(g->gpu, what, res);
	wfi_cuda_look(g);
	return ret;
}

/* ---- GPUs ---- */

int wfi_cuda_streams_create(struct wfi_gpu *gpu, struct CUstream_st *streams[WFI_CUDA_WAYS])
{
	int res = 0;
	unsigned i;

	for (i = 0; i < WFI_CUDA_WAYS && !res; i++)
		res = gpu->cuda->cuStreamCreate(&streams[i], WFI_CUDA_STREAM_NON_BLOCKING);
	return res;
}

void wfi_cuda_streams_destroy(struct wfi_gpu *gpu, struct CUstream_st *streams[WFI_CUDA_WAYS])
{
	unsigned i;

	/* a context that is lost takes all that was in it along */
	if (wfi_gpu_enter(gpu))
		return;
	for (i = 0; i < WFI_CUDA_WAYS; i++)
		if (streams[i])
			gpu->cuda->cuStreamDestroy(streams[i]);
	wfi_gpu_leave(gpu);
}

/* what it has of its own in its context goes, and the context */
static void gpu_give_up(struct wfi_cuda_gpu *g)
{
	wfi_cuda_streams_destroy(g->gpu, g->streams);
	wfi_cuda_sums_close(g);
	wfi_gpu_unpin(g->gpu, g->items);
	wfi_gpu_unpin(g->gpu, g->bounces);
	wfi_gpu_give_up(g->gpu);
}

static void gpu_free(struct wfi_cuda_gpu *g)
{
	struct wfi_env *env = g->gpu->env;

	wfi_gpu_close(g->gpu);
	wfi_free(env, g, sizeof(*g));
}

static void gpu_close(struct wfi_cuda_gpu *g)
{
	if (!g)
		return;
	gpu_give_up(g);
	gpu_free(g);
}

static int gpu_start(struct wfi_env *env, struct wfi_cuda_gpu *g)
{
	void *items;
	int res = wfi_gpu_enter(g->gpu), ret;

	if (!res) {
		res = wfi_cuda_streams_create(g->gpu, g->streams);
		wfi_gpu_leave(g->gpu);
	}
	if (res)
		return wfi_gpu_failed(g->gpu, "no streams", res);
	ret = wfi_gpu_pin(g->gpu, WFI_CUDA_TABLES * WFI_CUDA_ITEMS * sizeof(*g->items), &items);
	if (ret)
		return ret;
	g->items = items;
	g->free_tables = UINT32_MAX;
	res = wfi_gpu_enter(g->gpu);
	if (res)
		return wfi_gpu_failed(g->gpu, "no sums", res);
	ret = wfi_cuda_sums_open(g);
	wfi_gpu_leave(g->gpu);
	return ret ? ret : wfi_cuda_tune(env, g);
}

static int gpu_open(struct wfi_cuda_device *dev, int ordinal, const uint8_t uuid[16])
{
	struct wfi_env *env = dev->base.env;
	struct wfi_cuda_gpu *g = wfi_alloc(env, sizeof(*g));
	int ret;

	if (!g)
		return -ENOMEM;
	ret = wfi_gpu_open_any(env, dev->cuda, ordinal, &g->gpu);
	if (ret) {
		wfi_free(env, g, sizeof(*g));
		return ret;
	}
	memcpy(g->uuid, uuid, sizeof(g->uuid));
	ret = gpu_start(env, g);
	if (ret) {
		gpu_close(g);
		return ret;
	}
	g->opened_ns = wfi_now(env);
	dev->seats[ordinal].gpu = g;
	return 0;
}

/* ---- GPUs that were lost ---- */

/* who still points to it finds it lost. Return: 0 its seat is free; -ENOTRECOVERABLE */
static int gpu_replace(struct wfi_cuda_device *dev, struct wfi_cuda_seat *seat)
{
	struct wfi_cuda_gpu *g = seat->gpu;

	if (wfi_cuda_lost_errno(g) != -EIO)
		return -ENOTRECOVERABLE;
	gpu_give_up(g);
	/* what served for long begins anew */
	if (wfi_now(dev->base.env) - g->opened_ns > 2 * PAUSE_MAX_NS)
		seat->pause_ns = 0;
	if (!seat->pause_ns) {
		seat->pause_ns = PAUSE_MIN_NS;
		seat->next_ns = 0;
	}
	seat->gpu = NULL;
	g->next = dev->replaced;
	dev->replaced = g;
	return 0;
}

/* it takes up to a second: what is lost again and again is not tried by each who asks */
static int gpu_open_paced(struct wfi_cuda_device *dev, int ordinal, const uint8_t uuid[16])
{
	struct wfi_cuda_seat *seat = &dev->seats[ordinal];
	const uint64_t now_ns = wfi_now(dev->base.env);

	int ret;

	if (now_ns < seat->next_ns)
		return -EAGAIN;
	ret = gpu_open(dev, ordinal, uuid);
	if (ret == -EIO && !seat->pause_ns)
		seat->pause_ns = PAUSE_MIN_NS;
	if (!seat->pause_ns)
		return ret;
	if (!ret)
		wfi_info("gpu %d: opened anew, after it was lost", ordinal);
	seat->next_ns = now_ns + seat->pause_ns;
	seat->pause_ns = wfi_min(2 * seat->pause_ns, PAUSE_MAX_NS);
	return ret;
}

static void replaced_free(struct wfi_cuda_device *dev)
{
	struct wfi_cuda_gpu *g, **link = &dev->replaced;

	while ((g = *link)) {
		if (g->users) {
			link = &g->next;
			continue;
		}
		*link = g->next;
		gpu_free(g);
	}
}

/* Return: the driver's number of it; -ENODEV, as wfi_cuda_errno(), logged */
static int gpu_find(const struct wfi_cuda_device *dev, const uint8_t uuid[16])
{
	struct wfi_gpu_info info;
	int i = wfi_gpu_find(dev->cuda, uuid, &info), nr;

	if (i >= 0 && i < (int)WFI_CUDA_GPUS_MAX)
		return i;
	if (i < 0 && i != -ENODEV)
		return i;
	nr = wfi_gpu_count(dev->cuda);
	wfi_err("gpu: a region is in the memory of a GPU that this process does not see (%d are): "
		"see CUDA_VISIBLE_DEVICES and, in containers, /dev/nvidia*",
		nr > 0 ? nr : 0);
	return -ENODEV;
}

int wfi_cuda_gpu_get(struct wfi_cuda_device *dev, const uint8_t uuid[16], struct wfi_cuda_gpu **out)
{
	int i, ret = 0;

	pthread_mutex_lock(&dev->lock);
	replaced_free(dev);
	i = gpu_find(dev, uuid);
	if (i < 0)
		ret = i;
	else if (dev->seats[i].gpu && dev->seats[i].gpu->lost)
		ret = gpu_replace(dev, &dev->seats[i]);
	else if (dev->seats[i].gpu && dev->seats[i].gpu->doubt)
		ret = -ENOTRECOVERABLE;
	if (!ret && !dev->seats[i].gpu)
		ret = gpu_open_paced(dev, i, uuid);
	if (!ret) {
		wfi_cuda_mrs_pin(dev, dev->seats[i].gpu);
		*out = dev->seats[i].gpu;
	}
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

/* ---- the device ---- */

static int cuda_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	const char *why;
	const struct wfi_cuda *cuda = wfi_cuda_load(&why);
	int nr = cuda ? wfi_gpu_count(cuda) : -ENODEV;

	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	if (nr > 0)
		out->nr_devices = (uint32_t)nr;
	else
		snprintf(out->why, sizeof(out->why), "%s", cuda ? "there is no GPU" : why);
	return nr > 0 ? 0 : -ENODEV;
}

int wfi_cuda_device_create(const struct weft_transport *t, struct wfi_env *env,
			   const struct wfi_cuda *cuda, struct weft_device **out)
{
	struct wfi_cuda_device *dev = wfi_alloc(env, sizeof(*dev));

	if (!dev)
		return -ENOMEM;
	dev->base.transport = t;
	dev->base.env = env;
	dev->base.caps = (struct weft_caps){
		.flags = WEFT_CAP_LOCAL_MR | WEFT_CAP_MEM_EP | WEFT_CAP_WAIT |
			 (wfi_gpu_image() ? WEFT_CAP_SUMS : 0),
		.max_pieces = WFI_CUDA_PIECES,
		.max_depth = WFI_MAX_DEPTH,
		.max_piece_bytes = WFI_CUDA_POST_BYTES,
		.max_post_bytes = WFI_CUDA_POST_BYTES,
	};
	dev->cuda = cuda;
	wfi_cuda_powers_init(dev);
	pthread_mutex_init(&dev->lock, NULL);
	*out = &dev->base;
	return 0;
}

static int cuda_device_open(const struct weft_transport *t, struct wfi_env *env,
			    const struct weft_device_opts *opts, struct weft_device **out)
{
	struct weft_device_opts o;
	const struct wfi_cuda *cuda;
	const char *why;

	if (wfi_opts_read(&o, sizeof(o), opts))
		return -EINVAL;
	if (o.name && strcmp(o.name, "cuda") != 0)
		return -ENODEV;
	cuda = wfi_cuda_load(&why);
	if (cuda)
		return wfi_cuda_device_create(t, env, cuda, out);
	wfi_err("cuda: %s", why);
	return -ENODEV;
}

static void cuda_device_close(struct weft_device *base)
{
	struct wfi_cuda_device *dev;
	unsigned i;

	if (!base)
		return;
	dev = wfi_cuda_device(base);
	for (i = 0; i < WFI_CUDA_GPUS_MAX; i++)
		gpu_close(dev->seats[i].gpu);
	replaced_free(dev);
	pthread_mutex_destroy(&dev->lock);
	wfi_free(base->env, dev, sizeof(*dev));
}

static int cuda_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
			  struct weft_export *out)
{
	(void)mr;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP; /* what engines export comes by libweft */
}

static int cuda_mr_revoke(struct weft_mr *mr, uint64_t id)
{
	(void)mr;
	(void)id;
	return -EOPNOTSUPP;
}

static void *cuda_rkey_ptr(const struct weft_rkey *rkey)
{
	(void)rkey;
	return NULL;
}

static int cuda_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out)
{
	(void)ep;
	(void)out;
	return -EOPNOTSUPP;
}

static int cuda_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer)
{
	(void)ep;
	(void)peer;
	return -EISCONN;
}

const struct weft_transport wfi_transport_cuda = {
	.size = sizeof(struct weft_transport),
	.name = "cuda",
	.probe = cuda_probe,
	.device_open = cuda_device_open,
	.device_close = cuda_device_close,
	.mr_reg = wfi_cuda_mr_reg,
	.mr_dereg = wfi_cuda_mr_dereg,
	.mr_export = cuda_mr_export,
	.mr_revoke = cuda_mr_revoke,
	.rkey_import = wfi_cuda_rkey_import,
	.rkey_destroy = wfi_cuda_rkey_destroy,
	.rkey_ptr = cuda_rkey_ptr,
	.cq_create = wfi_cuda_cq_create,
	.cq_destroy = wfi_cuda_cq_destroy,
	.cq_arm = wfi_cuda_cq_arm,
	.cq_disarm = wfi_cuda_cq_disarm,
	.ep_create = wfi_cuda_ep_create,
	.ep_addr = cuda_ep_addr,
	.ep_connect = cuda_ep_connect,
	.ep_shutdown = wfi_cuda_ep_shutdown,
	.ep_destroy = wfi_cuda_ep_destroy,
	.port_open = wfi_no_port_open,
	.port_close = wfi_no_port_close,
	.port_addr = wfi_no_port_addr,
	.port_poll = wfi_no_port_poll,
	.port_accept = wfi_no_port_accept,
	.port_refuse = wfi_no_port_refuse,
	.ep_dial = wfi_no_ep_dial,
};
