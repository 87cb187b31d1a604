/* SPDX-License-Identifier: Apache-2.0 */
/* client_space.c - spaces, and regions of the engine's own memory */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ring/client_priv.h"

/* ---- spaces ---- */

static int copy_name(char to[WEFT_NAME_MAX], const char *from, const char *what)
{
	if (strlen(from) >= WEFT_NAME_MAX) {
		wfi_client_why("%s of a space has at most %d bytes", what, WEFT_NAME_MAX - 1);
		return -EINVAL;
	}
	memcpy(to, from, strlen(from));
	return 0;
}

static int space_request(struct weft_ctl_req *req, const struct weft_space_opts *opts)
{
	int ret;

	if (!opts->model || !*opts->model)
		return wfi_client_fail(-EINVAL, "a space needs the name of its model");
	if (opts->reserved)
		return wfi_client_fail(-EINVAL, "weft_space_opts.reserved is not 0");
	req->type = WEFT_CTL_SPACE_OPEN;
	req->u.space.block_bytes = opts->block_bytes;
	req->u.space.max_blocks = opts->max_blocks;
	req->u.space.replicas = opts->replicas;
	req->u.space.tokens_per_block = opts->tokens_per_block;
	req->u.space.nr_layers = opts->nr_layers;
	req->u.space.dtype = opts->dtype;
	req->u.space.verify = opts->verify;
	ret = copy_name(req->u.space.model, opts->model, "the model");
	if (!ret)
		ret = copy_name(req->u.space.layout, opts->layout ? opts->layout : "",
				"the layout");
	return ret;
}

int weft_space_open(struct weft *w, const struct weft_space_opts *in, struct weft_space **out)
{
	struct wfi_ctl_call call = { .fd_in = -1 };
	struct weft_space_opts opts;
	struct weft_space *space;
	int ret;

	if (!in)
		return wfi_client_fail(-EINVAL, "a space has no default geometry");
	ret = wfi_client_opts(&opts, sizeof(opts), in, sizeof(opts), "struct weft_space_opts");
	if (ret < 0)
		return ret;
	ret = space_request(&call.req, &opts);
	if (ret < 0)
		return ret;
	space = calloc(1, sizeof(*space));
	if (!space)
		return wfi_client_fail(-ENOMEM, "no memory for a space");
	space->w = w;
	space->req = call.req;
	space->block_bytes = opts.block_bytes;
	space->tokens_per_block = opts.tokens_per_block;

	pthread_mutex_lock(&w->lock);
	ret = wfi_client_ctl(w, &call, WFI_CTL_TIMEOUT_MS);
	if (ret < 0)
		goto err_free;
	space->id = call.rep.id;
	memcpy(space->secret, call.rep.secret, sizeof(space->secret));
	space->next = w->spaces;
	w->spaces = space;
	pthread_mutex_unlock(&w->lock);
	*out = space;
	return 0;

err_free:
	pthread_mutex_unlock(&w->lock);
	free(space);
	return ret;
}

int wfi_space_reopen(struct weft_space *space)
{
	struct wfi_ctl_call call = { .req = space->req, .fd_in = -1 };
	int ret = wfi_client_ctl(space->w, &call, WFI_CTL_TIMEOUT_MS);

	if (ret < 0)
		return ret;
	/* keys that the engine keeps would name other blocks */
	if (memcmp(space->secret, call.rep.secret, sizeof(space->secret)))
		return wfi_client_fail(-EPROTO,
				       "the tenant's salt changed with the node's restart: "
				       "start this engine again");
	space->id = call.rep.id;
	return 0;
}

void weft_space_close(struct weft_space *space)
{
	struct weft_space **p;

	if (!space)
		return;
	pthread_mutex_lock(&space->w->lock);
	for (p = &space->w->spaces; *p != space; p = &(*p)->next)
		;
	*p = space->next;
	pthread_mutex_unlock(&space->w->lock);
	free(space);
}

uint64_t weft_space_block_bytes(const struct weft_space *space)
{
	return space->block_bytes;
}

const uint8_t *wfi_space_secret_bytes(const struct weft_space *space)
{
	return space->secret;
}

uint32_t wfi_space_tokens_per_block(const struct weft_space *space)
{
	return space->tokens_per_block;
}

/* ---- regions ---- */

static int check_shared(const struct weft_region_opts *opts)
{
	const int want = F_SEAL_SHRINK | F_SEAL_GROW;
	uint64_t end;
	struct stat st;
	int seals;

	if (fstat(opts->fd, &st))
		return wfi_client_fail(-EBADF, "the region's fd is not open");
	if (wfi_add_overflows(opts->fd_off, opts->len, &end) || end > (uint64_t)st.st_size)
		return wfi_client_fail(-EINVAL, "the region ends behind the end of its memfd");
	seals = fcntl(opts->fd, F_GET_SEALS);
	if (seals < 0)
		return wfi_client_fail(-EINVAL, "the region's fd is not a memfd: make it with "
						"memfd_create(), or give fd -1 for private memory");
	if ((seals & want) == want || !fcntl(opts->fd, F_ADD_SEALS, want))
		return 0;
	return wfi_client_fail(-EINVAL,
			       "the region's memfd can't be sealed against shrinking: make "
			       "it with MFD_ALLOW_SEALING");
}

static int check_region(const struct weft_region_opts *opts)
{
	uint64_t end;

	if (!opts->len)
		return wfi_client_fail(-EINVAL, "the region has no length");
	if (opts->kind > WEFT_REGION_GPU || opts->reserved)
		return wfi_client_fail(-EINVAL, "the region is of no kind that this library knows");
	if (opts->kind == WEFT_REGION_GPU && opts->fd >= 0)
		return wfi_client_fail(-EINVAL, "GPU memory has no fd: give -1");
	if (opts->kind == WEFT_REGION_MEMORY && (opts->nr_segments || opts->segment_bytes ||
						 opts->segment_stride || opts->block_stride))
		return wfi_client_fail(-EINVAL, "only regions of GPU memory have segments");
	if (opts->fd >= 0)
		return check_shared(opts);
	if (!opts->addr || wfi_add_overflows((uintptr_t)opts->addr, opts->len, &end))
		return wfi_client_fail(-EINVAL,
				       "the region has no address, or ends behind the last");
	return 0;
}

/* where Yama restricts ptrace, a process names who may reach its memory */
static void allow_node(const struct weft *w)
{
	if (w->node_pid > 0 && w->node_pid != getpid())
		prctl(PR_SET_PTRACER, (unsigned long)w->node_pid, 0, 0, 0);
}

static int region_call_gpu(struct weft *w, const struct region *region, uint32_t *id)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_REGION_REG };
	int ret = wfi_region_export(region, &call.req, &call.fd_in, &call.dmabuf);

	if (ret)
		return ret;
	/* the node opens the GPU, the first time, and pins its arenas */
	ret = wfi_client_ctl(w, &call, WFI_CTL_END_TIMEOUT_MS);
	if (call.fd_in >= 0)
		close(call.fd_in);
	if (call.req.u.region.has_dmabuf)
		close(call.dmabuf);
	if (ret < 0)
		return ret;
	*id = call.rep.id;
	return 0;
}

/* Return: 0 and the node's number */
static int region_call(struct weft *w, const struct region *region, uint32_t *id)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_REGION_REG, .fd_in = region->fd };
	int ret;

	if (region->kind != WEFT_REGION_MEMORY)
		return region_call_gpu(w, region, id);
	call.req.u.region.addr = (uintptr_t)region->addr;
	call.req.u.region.len = region->len;
	call.req.u.region.off = region->fd >= 0 ? region->fd_off : 0;
	call.req.u.region.has_fd = region->fd >= 0;
	if (region->fd < 0)
		allow_node(w);
	ret = wfi_client_ctl(w, &call, WFI_CTL_TIMEOUT_MS);
	if (ret < 0)
		return ret;
	*id = call.rep.id;
	return 0;
}

static void set_id(struct weft *w, uint32_t number, uint32_t id)
{
	__atomic_store_n(&w->region_ids[number], id, __ATOMIC_RELAXED);
	if (id != number)
		__atomic_store_n(&w->regions_moved, 1, __ATOMIC_RELEASE);
}

struct region *wfi_region_find(struct weft *w, uint32_t number)
{
	struct region *r;

	for (r = w->regions; r && r->number != number; r = r->next)
		;
	return r;
}

/* the node's own number where it is free, so that places need no translation. 0: none is left */
static uint32_t pick_number(struct weft *w, uint32_t id)
{
	uint32_t number;

	if (id && id < WFI_REGIONS_MAX && !wfi_region_find(w, id))
		return id;
	for (number = WFI_REGIONS_MAX - 1; number && wfi_region_find(w, number); number--)
		;
	return number;
}

static int region_dereg_call(struct weft *w, uint32_t id)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_REGION_DEREG, .req.id = id, .fd_in = -1 };

	return wfi_client_ctl(w, &call, WFI_CTL_END_TIMEOUT_MS);
}

static int region_add(struct weft *w, struct region *region)
{
	uint32_t id;
	int ret = region_call(w, region, &id);

	if (ret < 0)
		return ret;
	region->number = pick_number(w, id);
	if (!region->number) {
		ret = region_dereg_call(w, id);
		return ret < 0 ? ret
			       : wfi_client_fail(-ENOSPC, "too many regions: register larger "
							  "ones");
	}
	set_id(w, region->number, id);
	region->next = w->regions;
	w->regions = region;
	return 0;
}

int weft_region_reg(struct weft *w, const struct weft_region_opts *in, uint32_t *out)
{
	struct weft_region_opts opts;
	struct region *region;
	int ret;

	if (!in)
		return wfi_client_fail(-EINVAL, "a region has no default");
	ret = wfi_client_opts(&opts, sizeof(opts), in,
			      offsetof(struct weft_region_opts, segment_bytes),
			      "struct weft_region_opts");
	if (!ret)
		ret = check_region(&opts);
	if (ret < 0)
		return ret;
	region = calloc(1, sizeof(*region));
	if (!region)
		return wfi_client_fail(-ENOMEM, "no memory for a region");
	*region = (struct region){
		.addr = opts.addr,
		.len = opts.len,
		.fd = -1,
		.kind = opts.kind,
		.shape = { opts.segment_bytes, opts.segment_stride, opts.block_stride,
			   opts.nr_segments, 0 },
	};
	if (opts.fd >= 0) {
		region->fd_off = opts.fd_off;
		region->fd = fcntl(opts.fd, F_DUPFD_CLOEXEC, 3);
		if (region->fd < 0) {
			ret = wfi_client_fail(-errno, "no descriptor is left: raise ulimit -n");
			goto err_free;
		}
	}
	pthread_mutex_lock(&w->lock);
	ret = region_add(w, region);
	pthread_mutex_unlock(&w->lock);
	if (ret < 0)
		goto err_free;
	*out = region->number;
	return 0;

err_free:
	if (region->fd >= 0)
		close(region->fd);
	free(region);
	return ret;
}

/* Context: .lock is held */
static int event_add(struct weft *w, void *event, uint32_t number, uint32_t *out)
{
	const struct region *beside = number ? wfi_region_find(w, number) : NULL;
	struct region *region;
	int ret;

	if (!beside || beside->kind != WEFT_REGION_GPU || !event)
		return wfi_client_fail(-EINVAL, "an event needs a region of this session in the "
						"memory of a GPU");
	region = calloc(1, sizeof(*region));
	if (!region)
		return wfi_client_fail(-ENOMEM, "no memory for an event");
	*region = (struct region){
		.addr = event,
		.fd = -1,
		.kind = WFI_REGION_EVENT,
		.beside = (uintptr_t)beside->addr,
	};
	ret = region_add(w, region);
	if (ret < 0)
		free(region);
	else
		*out = region->number;
	return ret;
}

int weft_event_reg(struct weft *w, void *event, uint32_t region, uint32_t *out)
{
	int ret;

	pthread_mutex_lock(&w->lock);
	ret = event_add(w, event, region, out);
	pthread_mutex_unlock(&w->lock);
	return ret;
}

int wfi_region_reopen(struct weft *w, struct region *region)
{
	uint32_t id;
	int ret = region_call(w, region, &id);

	if (!ret)
		set_id(w, region->number, id);
	return ret;
}

void wfi_region_forget(struct weft *w, struct region *region)
{
	struct region **p;

	for (p = &w->regions; *p != region; p = &(*p)->next)
		;
	*p = region->next;
	__atomic_store_n(&w->region_ids[region->number], 0, __ATOMIC_RELAXED);
	if (region->fd >= 0)
		close(region->fd);
	free(region);
}

void wfi_region_drop(struct weft *w, uint32_t number)
{
	struct region *region;

	pthread_mutex_lock(&w->lock);
	region = wfi_region_find(w, number);
	/* without an answer the node is gone, or lets it go with the session */
	region_dereg_call(w, w->region_ids[number]);
	wfi_region_forget(w, region);
	pthread_mutex_unlock(&w->lock);
}

int weft_region_dereg(struct weft *w, uint32_t number)
{
	struct region *region;
	int ret;

	pthread_mutex_lock(&w->lock);
	region = wfi_region_find(w, number);
	if (region) {
		ret = region_dereg_call(w, w->region_ids[number]);
		/* a node that is gone copies nothing any more */
		if (!ret || ret == -ECONNRESET) {
			wfi_region_forget(w, region);
			ret = 0;
		}
	} else {
		ret = wfi_client_fail(-ENOENT, "no region has this number");
	}
	pthread_mutex_unlock(&w->lock);
	return ret;
}
