/* SPDX-License-Identifier: Apache-2.0 */
/* peer_rdmacm.c - rdma_cm by hand: resolve, connect, write once */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "perf/verbs_rig.h"

#define PORT 7473
#define RESOLVE_MS 2000
#define BYTES 8u

/* both sides; where the listener's memory is, in the private data */
struct wfi_peer_rdmacm {
	struct rdma_event_channel *chan;
	struct rdma_cm_id *listener;
	struct ibv_context **devices;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct sockaddr_in addr;
	uint8_t mem[64];
	unsigned nr;
	int sock;
};

struct where {
	uint64_t addr;
	uint32_t rkey;
};

static int side_open(struct wfi_peer_rdmacm *r, const struct wfi_vrig_place *place)
{
	unsigned i;

	r->addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(PORT) };
	if (inet_pton(AF_INET, place->addr, &r->addr.sin_addr) != 1)
		return -EINVAL;
	r->chan = rdma_create_event_channel();
	r->devices = rdma_get_devices(NULL);
	if (!r->chan || !r->devices)
		return -errno;
	for (i = 0; r->devices[i]; i++)
		if (!strcmp(ibv_get_device_name(r->devices[i]->device), place->device))
			break;
	if (!r->devices[i])
		return -ENODEV;
	r->pd = ibv_alloc_pd(r->devices[i]);
	r->cq = ibv_create_cq(r->devices[i], 16, NULL, NULL, 0);
	if (!r->pd || !r->cq)
		return -ENOMEM;
	r->mr = ibv_reg_mr(r->pd, r->mem, sizeof(r->mem),
			   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return r->mr ? 0 : -errno;
}

void wfi_peer_rdmacm_close(struct wfi_peer_rdmacm *r)
{
	if (!r)
		return;
	if (r->listener)
		rdma_destroy_id(r->listener);
	if (r->mr)
		ibv_dereg_mr(r->mr);
	if (r->cq)
		ibv_destroy_cq(r->cq);
	if (r->pd)
		ibv_dealloc_pd(r->pd);
	if (r->devices)
		rdma_free_devices(r->devices);
	if (r->chan)
		rdma_destroy_event_channel(r->chan);
	if (r->sock >= 0)
		close(r->sock);
	free(r);
}

/* Return: the event, which must be @want, to be acknowledged; NULL */
static struct rdma_cm_event *next_event(struct wfi_peer_rdmacm *r, enum rdma_cm_event_type want)
{
	struct rdma_cm_event *ev;

	if (rdma_get_cm_event(r->chan, &ev))
		return NULL;
	if (ev->event == want)
		return ev;
	rdma_ack_cm_event(ev);
	return NULL;
}

static int expect(struct wfi_peer_rdmacm *r, enum rdma_cm_event_type want)
{
	struct rdma_cm_event *ev = next_event(r, want);

	return ev ? rdma_ack_cm_event(ev) : -EPROTO;
}

static int qp_open(struct wfi_peer_rdmacm *r, struct rdma_cm_id *id)
{
	struct ibv_qp_init_attr attr = {
		.send_cq = r->cq,
		.recv_cq = r->cq,
		.cap = { .max_send_wr = 8, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC,
	};

	return rdma_create_qp(id, r->pd, &attr) ? -errno : 0;
}

/* ---- the agent ---- */

static int accept_one(struct wfi_peer_rdmacm *r)
{
	struct where here = { (uintptr_t)r->mem, r->mr->rkey };
	struct rdma_conn_param param = { .private_data = &here, .private_data_len = sizeof(here) };
	struct rdma_cm_event *ev = next_event(r, RDMA_CM_EVENT_CONNECT_REQUEST);
	struct rdma_cm_id *id;
	int ret;

	if (!ev)
		return -EPROTO;
	id = ev->id;
	rdma_ack_cm_event(ev);
	ret = qp_open(r, id);
	if (!ret && rdma_accept(id, &param))
		ret = -errno;
	if (!ret)
		ret = expect(r, RDMA_CM_EVENT_ESTABLISHED);
	if (!ret)
		ret = expect(r, RDMA_CM_EVENT_DISCONNECTED);
	rdma_disconnect(id);
	rdma_destroy_qp(id);
	rdma_destroy_id(id);
	return ret;
}

int wfi_peer_rdmacm_serve(const struct wfi_vrig_place *place, int sock)
{
	struct wfi_peer_rdmacm *r = calloc(1, sizeof(*r));
	uint32_t nr = 0, i;
	int ret = r ? side_open(r, place) : -ENOMEM;

	if (r)
		r->sock = sock;
	if (!ret && (rdma_create_id(r->chan, &r->listener, NULL, RDMA_PS_TCP) ||
		     rdma_bind_addr(r->listener, (struct sockaddr *)&r->addr) ||
		     rdma_listen(r->listener, 8)))
		ret = -errno;
	while (!ret && !wfi_end_hear(sock, &nr, sizeof(nr)) && nr) {
		ret = wfi_end_tell(sock, &nr, sizeof(nr));
		for (i = 0; i < nr && !ret; i++)
			ret = accept_one(r);
	}
	wfi_peer_rdmacm_close(r);
	return ret;
}

/* ---- the side that measures ---- */

int wfi_peer_rdmacm_open(const struct wfi_vrig_place *place, unsigned nr,
			 struct wfi_peer_rdmacm **out)
{
	struct wfi_vrig_order order = { .op = WFI_VRIG_RDMACM };
	struct wfi_peer_rdmacm *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	r->nr = nr;
	r->sock = wfi_vrig_dial(place, &order);
	ret = r->sock < 0 ? r->sock : side_open(r, place);
	if (ret) {
		wfi_peer_rdmacm_close(r);
		return wfi_perf_fail(ret, "rdma_cm: %s", strerror(-ret));
	}
	*out = r;
	return 0;
}

static int dial(struct wfi_peer_rdmacm *r, struct rdma_cm_id *id, struct where *there)
{
	struct rdma_conn_param param = { .retry_count = 6, .rnr_retry_count = 6 };
	struct rdma_cm_event *ev;
	int ret;

	if (rdma_resolve_addr(id, NULL, (struct sockaddr *)&r->addr, RESOLVE_MS))
		return -errno;
	ret = expect(r, RDMA_CM_EVENT_ADDR_RESOLVED);
	if (!ret && rdma_resolve_route(id, RESOLVE_MS))
		ret = -errno;
	if (!ret)
		ret = expect(r, RDMA_CM_EVENT_ROUTE_RESOLVED);
	if (!ret)
		ret = qp_open(r, id);
	if (!ret && rdma_connect(id, &param))
		ret = -errno;
	if (ret)
		return ret;
	ev = next_event(r, RDMA_CM_EVENT_ESTABLISHED);
	if (!ev)
		return -EPROTO;
	memcpy(there, ev->param.conn.private_data, sizeof(*there));
	return rdma_ack_cm_event(ev);
}

static int write_once(struct wfi_peer_rdmacm *r, struct ibv_qp *qp, const struct where *there)
{
	struct ibv_sge sge = { (uintptr_t)r->mem, BYTES, r->mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge,
				  .num_sge = 1,
				  .opcode = IBV_WR_RDMA_WRITE,
				  .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { there->addr, there->rkey } };
	struct ibv_send_wr *bad;
	struct ibv_wc wc;

	if (ibv_post_send(qp, &wr, &bad))
		return -EIO;
	while (!ibv_poll_cq(r->cq, 1, &wc))
		;
	return wc.status ? -EIO : 0;
}

static int connect_one(struct wfi_peer_rdmacm *r, uint64_t *ns)
{
	uint64_t start_ns = wfi_perf_now_ns();
	struct rdma_cm_id *id;
	struct where there;
	int ret;

	if (rdma_create_id(r->chan, &id, NULL, RDMA_PS_TCP))
		return -errno;
	ret = dial(r, id, &there);
	if (!ret)
		ret = write_once(r, id->qp, &there);
	*ns += wfi_perf_now_ns() - start_ns;
	rdma_disconnect(id);
	if (!ret)
		ret = expect(r, RDMA_CM_EVENT_DISCONNECTED);
	if (id->qp)
		rdma_destroy_qp(id);
	rdma_destroy_id(id);
	return ret;
}

int wfi_peer_rdmacm_round(void *ctx, double *out)
{
	struct wfi_peer_rdmacm *r = ctx;
	uint64_t ns = 0;
	unsigned i;
	int ret = wfi_vrig_go(r->sock, r->nr);

	for (i = 0; i < r->nr && !ret; i++)
		ret = connect_one(r, &ns);
	*out = (double)ns / 1000 / r->nr;
	return ret;
}
