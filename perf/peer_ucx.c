/* SPDX-License-Identifier: Apache-2.0 */
/* peer_ucx.c - scattered writes through UCP over rc_verbs: a put for each piece, and a flush */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <ucp/api/ucp.h>
#include <unistd.h>
#include "perf/verbs_rig.h"

#define BLOB_MAX 2048u

struct blob {
	uint32_t len;
	uint8_t bytes[BLOB_MAX];
};

/* what the serving side tells */
struct ucx_intro {
	struct blob worker, rkey;
	uint64_t addr;
};

struct wfi_peer_ucx {
	ucp_context_h context;
	ucp_worker_h worker;
	ucp_mem_h memh;
	ucp_ep_h ep;
	ucp_rkey_h rkey;
	uint8_t *mem;
	uint64_t remote;
	const uint32_t *order;
	uint32_t nr, bytes, stride;
	int sock;
};

const char *wfi_peer_ucx_why(void)
{
	return NULL;
}

static int context_open(struct wfi_peer_ucx *u, const struct wfi_vrig_place *place)
{
	ucp_params_t params = { .field_mask = UCP_PARAM_FIELD_FEATURES,
				.features = UCP_FEATURE_RMA };
	ucp_config_t *config;
	ucs_status_t st;
	char device[80];

	snprintf(device, sizeof(device), "%s:1", place->device);
	/* rc_verbs alone can't connect itself; its helper times out on an IPv4 GID */
	setenv("UCX_TLS", "rc_verbs,ud_verbs", 1);
	setenv("UCX_NET_DEVICES", device, 1);
	setenv("UCX_IB_GID_INDEX", "0", 1);
	st = ucp_config_read(NULL, NULL, &config);
	if (st != UCS_OK)
		return -EIO;
	st = ucp_init(&params, config, &u->context);
	ucp_config_release(config);
	return st == UCS_OK ? 0 : -EIO;
}

static int side_open(struct wfi_peer_ucx *u, const struct wfi_vrig_place *place)
{
	ucp_worker_params_t worker = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
				       .thread_mode = UCS_THREAD_MODE_SINGLE };
	ucp_mem_map_params_t map = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH,
		.length = WFI_VRIG_MEM,
	};
	int ret = context_open(u, place);

	if (ret)
		return ret;
	u->mem = aligned_alloc(4096, WFI_VRIG_MEM);
	if (!u->mem)
		return -ENOMEM;
	memset(u->mem, 0, WFI_VRIG_MEM);
	map.address = u->mem;
	if (ucp_worker_create(u->context, &worker, &u->worker) != UCS_OK ||
	    ucp_mem_map(u->context, &map, &u->memh) != UCS_OK)
		return -EIO;
	return 0;
}

static int wait_for(struct wfi_peer_ucx *u, ucs_status_ptr_t req)
{
	ucs_status_t st;

	if (!UCS_PTR_IS_PTR(req))
		return UCS_PTR_STATUS(req) == UCS_OK ? 0 : -EIO;
	do
		ucp_worker_progress(u->worker);
	while ((st = ucp_request_check_status(req)) == UCS_INPROGRESS);
	ucp_request_free(req);
	return st == UCS_OK ? 0 : -EIO;
}

void wfi_peer_ucx_close(struct wfi_peer_ucx *u)
{
	if (!u)
		return;
	if (u->rkey)
		ucp_rkey_destroy(u->rkey);
	if (u->ep)
		wait_for(u, ucp_ep_close_nb(u->ep, UCP_EP_CLOSE_MODE_FORCE));
	if (u->memh)
		ucp_mem_unmap(u->context, u->memh);
	if (u->worker)
		ucp_worker_destroy(u->worker);
	if (u->context)
		ucp_cleanup(u->context);
	free(u->mem);
	if (u->sock >= 0)
		close(u->sock);
	free(u);
}

static int blob_fill(struct blob *blob, const void *from, size_t len)
{
	if (len > sizeof(blob->bytes))
		return -EMSGSIZE;
	blob->len = (uint32_t)len;
	memcpy(blob->bytes, from, len);
	return 0;
}

static int intro_fill(struct wfi_peer_ucx *u, struct ucx_intro *intro)
{
	ucp_address_t *addr;
	void *rkey;
	size_t len;
	int ret;

	memset(intro, 0, sizeof(*intro));
	intro->addr = (uintptr_t)u->mem;
	if (ucp_worker_get_address(u->worker, &addr, &len) != UCS_OK)
		return -EIO;
	ret = blob_fill(&intro->worker, addr, len);
	ucp_worker_release_address(u->worker, addr);
	if (ret || ucp_rkey_pack(u->context, u->memh, &rkey, &len) != UCS_OK)
		return ret ? ret : -EIO;
	ret = blob_fill(&intro->rkey, rkey, len);
	ucp_rkey_buffer_release(rkey);
	return ret;
}

int wfi_peer_ucx_serve(const struct wfi_vrig_place *place, int sock)
{
	struct wfi_peer_ucx *u = calloc(1, sizeof(*u));
	struct ucx_intro intro;
	uint32_t nr;
	int ret = u ? side_open(u, place) : -ENOMEM;

	if (u)
		u->sock = sock;
	if (!ret)
		ret = intro_fill(u, &intro);
	if (!ret)
		ret = wfi_end_tell(sock, &intro, sizeof(intro));
	/* what a put needs of this side is the NIC's work, once the connection stands */
	while (!ret && recv(sock, &nr, sizeof(nr), MSG_DONTWAIT) < 0)
		ucp_worker_progress(u->worker);
	while (!ret && !wfi_end_tell(sock, &nr, sizeof(nr)) && !wfi_end_hear(sock, &nr, sizeof(nr)))
		;
	wfi_peer_ucx_close(u);
	return ret;
}

static int ep_open(struct wfi_peer_ucx *u, const struct ucx_intro *intro)
{
	ucp_ep_params_t params = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
				   .address = (const ucp_address_t *)intro->worker.bytes };

	if (ucp_ep_create(u->worker, &params, &u->ep) != UCS_OK ||
	    ucp_ep_rkey_unpack(u->ep, intro->rkey.bytes, &u->rkey) != UCS_OK)
		return -EIO;
	u->remote = intro->addr;
	return 0;
}

int wfi_peer_ucx_open(const struct wfi_vrig_place *place, uint32_t nr, uint32_t bytes,
		      uint32_t stride, const uint32_t *order, struct wfi_peer_ucx **out)
{
	struct wfi_vrig_order what = { .op = WFI_VRIG_UCX };
	struct wfi_peer_ucx *u = calloc(1, sizeof(*u));
	struct ucx_intro intro;
	double first;
	int ret;

	if (!u)
		return -ENOMEM;
	u->nr = nr;
	u->bytes = bytes;
	u->stride = stride;
	u->order = order;
	u->sock = wfi_vrig_dial(place, &what);
	ret = u->sock < 0 ? u->sock : side_open(u, place);
	if (!ret)
		ret = wfi_end_hear(u->sock, &intro, sizeof(intro));
	if (!ret)
		ret = ep_open(u, &intro);
	/* the first puts connect; then the other side may rest */
	if (!ret)
		ret = wfi_peer_ucx_round(u, &first);
	if (!ret)
		ret = wfi_vrig_go(u->sock, 1);
	if (ret) {
		wfi_peer_ucx_close(u);
		return wfi_perf_fail(ret, "ucx: no connection: %s", strerror(-ret));
	}
	*out = u;
	return 0;
}

int wfi_peer_ucx_round(void *ctx, double *out)
{
	const ucp_request_param_t param = { 0 };
	struct wfi_peer_ucx *u = ctx;
	uint64_t start_ns = wfi_perf_now_ns();
	ucs_status_ptr_t req;
	uint32_t i;
	int ret;

	for (i = 0; i < u->nr; i++) {
		req = ucp_put_nbx(u->ep, u->mem + (size_t)i * u->stride, u->bytes,
				  u->remote + (uint64_t)u->order[i] * u->stride, u->rkey, &param);
		if (UCS_PTR_IS_ERR(req))
			return -EIO;
		if (UCS_PTR_IS_PTR(req))
			ucp_request_free(req);
	}
	ret = wait_for(u, ucp_worker_flush_nbx(u->worker, &param));
	*out = (double)(wfi_perf_now_ns() - start_ns) / 1000;
	return ret;
}
