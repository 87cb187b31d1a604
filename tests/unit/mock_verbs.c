/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "mock_verbs.h"

#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define EVENTS 8u

struct mock mock;

static struct ibv_device device = { .name = "mock0", .node_type = IBV_NODE_CA };
static struct ibv_wc cqes[MOCK_WRS];
static unsigned cqe_head, cqe_tail;
static uint64_t bufs[MOCK_WRS];
static unsigned buf_head, buf_tail;
static struct ibv_async_event events[EVENTS];
static unsigned event_head, event_tail;
static uint32_t last_key;

void mock_reset(void)
{
	memset(&mock, 0, sizeof(mock));
	mock.nr_devices = 1;
	mock.state = IBV_PORT_ACTIVE;
	mock.max_cqe = 1 << 20;
	mock.max_sge = 4;
	mock.max_sge_rd = 2;
	mock.max_inline = 256;
	cqe_head = cqe_tail = buf_head = buf_tail = event_head = event_tail = 0;
}

static void cqe_add(uint64_t wr_id, uint32_t qpn, enum ibv_wc_status status)
{
	cqes[cqe_tail++ % MOCK_WRS] =
		(struct ibv_wc){ .wr_id = wr_id, .qp_num = qpn, .status = status };
}

void mock_done(unsigned nr)
{
	while (nr-- && mock.head != mock.tail) {
		const struct mock_wr *wr = &mock.wrs[mock.head++ % MOCK_WRS];

		if (wr->flags & IBV_SEND_SIGNALED)
			cqe_add(wr->wr_id, wr->qpn, IBV_WC_SUCCESS);
	}
}

void mock_fail(enum ibv_wc_status status)
{
	while (mock.head != mock.tail) {
		const struct mock_wr *wr = &mock.wrs[mock.head++ % MOCK_WRS];

		cqe_add(wr->wr_id, wr->qpn, status);
		status = IBV_WC_WR_FLUSH_ERR;
	}
}

void mock_receive(uint32_t qpn, enum ibv_wc_opcode opcode, uint32_t len, bool with_imm,
		  uint32_t imm)
{
	struct ibv_wc *wc;

	cqe_add(bufs[buf_head++ % MOCK_WRS], qpn, IBV_WC_SUCCESS);
	wc = &cqes[(cqe_tail - 1) % MOCK_WRS];
	wc->opcode = opcode;
	wc->byte_len = len;
	wc->wc_flags = with_imm ? IBV_WC_WITH_IMM : 0;
	wc->imm_data = htobe32(imm);
}

void mock_event(enum ibv_event_type type, void *element)
{
	struct ibv_async_event *event = &events[event_tail++ % EVENTS];

	event->event_type = type;
	event->element.qp = element;
}

/* ---- hot ops, through the context's table ---- */

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	int i;

	/* a device that writes to itself, to see what that costs */
	if (!qp->srq) {
		*bad = wr;
		if (!mock.loopback)
			return EOPNOTSUPP;
		for (; wr->next; wr = wr->next)
			;
		cqe_add(wr->wr_id, qp->qp_num, IBV_WC_SUCCESS);
		return 0;
	}
	mock.nr_doorbells++;
	for (; wr; wr = wr->next) {
		struct mock_wr *kept = &mock.wrs[mock.tail % MOCK_WRS];

		if (mock.refuse_at && !--mock.refuse_at) {
			*bad = wr;
			return ENOMEM;
		}
		if (mock.complete_ctl &&
		    (wr->opcode == IBV_WR_BIND_MW || wr->opcode == IBV_WR_LOCAL_INV)) {
			mock.last_ctl = wr->opcode;
			cqe_add(wr->wr_id, qp->qp_num, IBV_WC_SUCCESS);
			continue;
		}
		if (mock.fast) {
			if (wr->send_flags & IBV_SEND_SIGNALED)
				cqe_add(wr->wr_id, qp->qp_num, IBV_WC_SUCCESS);
			continue;
		}
		mock.tail++;
		kept->wr_id = wr->wr_id;
		kept->opcode = wr->opcode;
		kept->flags = wr->send_flags;
		kept->num_sge = wr->num_sge;
		kept->remote = wr->wr.rdma.remote_addr;
		kept->qpn = qp->qp_num;
		kept->len = 0;
		for (i = 0; i < wr->num_sge; i++)
			kept->len += wr->sg_list[i].length;
	}
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wcs)
{
	int n = 0;

	(void)cq;
	while (n < max && cqe_head != cqe_tail)
		wcs[n++] = cqes[cqe_head++ % MOCK_WRS];
	return n;
}

static int post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)srq;
	(void)bad;
	for (; wr; wr = wr->next, mock.nr_srq++)
		bufs[buf_tail++ % MOCK_WRS] = wr->wr_id;
	return 0;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited)
{
	(void)cq;
	(void)solicited;
	return 0;
}

static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct ibv_mw *mw = calloc(1, sizeof(*mw));

	if (!mw)
		return NULL;
	mw->context = pd->context;
	mw->pd = pd;
	mw->type = type;
	mw->rkey = ++last_key << 8;
	mock.nr_mws++;
	return mw;
}

static int dealloc_mw(struct ibv_mw *mw)
{
	mock.nr_mws--;
	free(mw);
	return 0;
}

/* ---- cold ones ---- */

struct ibv_device **ibv_get_device_list(int *nr)
{
	const unsigned there = __atomic_load_n(&mock.nr_devices, __ATOMIC_ACQUIRE);
	struct ibv_device **list = calloc(2, sizeof(*list));

	__atomic_add_fetch(&mock.nr_lists, 1, __ATOMIC_RELEASE);
	if (nr)
		*nr = (int)there;
	if (list && there)
		list[0] = &device;
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *dev)
{
	return dev->name;
}

struct ibv_context *ibv_open_device(struct ibv_device *dev)
{
	struct ibv_context *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return NULL;
	ctx->device = dev;
	ctx->async_fd = eventfd(0, EFD_NONBLOCK);
	ctx->ops.post_send = post_send;
	ctx->ops.poll_cq = poll_cq;
	ctx->ops.post_srq_recv = post_srq_recv;
	ctx->ops.req_notify_cq = req_notify_cq;
	ctx->ops.alloc_mw = alloc_mw;
	ctx->ops.dealloc_mw = dealloc_mw;
	return ctx;
}

int ibv_close_device(struct ibv_context *ctx)
{
	close(ctx->async_fd);
	free(ctx);
	return 0;
}

int ibv_query_device(struct ibv_context *ctx, struct ibv_device_attr *attr)
{
	(void)ctx;
	*attr = (struct ibv_device_attr){
		.max_qp_wr = 16384,
		.max_sge = mock.max_sge,
		.max_sge_rd = mock.max_sge_rd,
		.device_cap_flags = mock.windows ? IBV_DEVICE_MEM_WINDOW_TYPE_2B : 0,
		.max_cqe = mock.max_cqe,
		.max_srq = 64,
		.max_srq_wr = 16384,
		.max_qp_rd_atom = 16,
		.max_qp_init_rd_atom = 16,
		.phys_port_cnt = 1,
	};
	return 0;
}

int ibv_query_port(struct ibv_context *ctx, uint8_t num, struct _compat_ibv_port_attr *out)
{
	struct ibv_port_attr *attr = (struct ibv_port_attr *)out;

	(void)ctx;
	(void)num;
	attr->state = mock.state;
	attr->active_mtu = IBV_MTU_4096;
	attr->max_msg_sz = 1u << 23;
	attr->active_speed = 32;
	attr->active_width = 2;
	attr->link_layer = IBV_LINK_LAYER_ETHERNET;
	return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *ctx, struct ibv_gid_entry *entries, size_t max,
			     uint32_t flags, size_t size)
{
	static const uint8_t v4[16] = { [10] = 0xff, [11] = 0xff, 10, 99, 0, 1 };
	static const uint8_t local[16] = { 0xfe, 0x80, [15] = 1 };

	(void)ctx;
	(void)max;
	(void)flags;
	(void)size;
	entries[0] = (struct ibv_gid_entry){ .port_num = 1, .gid_type = IBV_GID_TYPE_ROCE_V1 };
	entries[1] = (struct ibv_gid_entry){ .gid_index = 1, .port_num = 1 };
	entries[2] = (struct ibv_gid_entry){ .gid_index = 2, .port_num = 1 };
	memcpy(entries[0].gid.raw, v4, 16);
	memcpy(entries[1].gid.raw, local, 16);
	memcpy(entries[2].gid.raw, v4, 16);
	entries[1].gid_type = IBV_GID_TYPE_ROCE_V2;
	entries[2].gid_type = IBV_GID_TYPE_ROCE_V2;
	return mock.no_gid ? 1 : 3;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *ctx)
{
	struct ibv_pd *pd = calloc(1, sizeof(*pd));

	if (pd)
		pd->context = ctx;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	free(pd);
	return 0;
}

static struct ibv_mr *reg(struct ibv_pd *pd, void *addr, size_t len, unsigned access)
{
	struct ibv_mr *mr;

	mock.access = access;

	if (mock.reg_errno) {
		errno = mock.reg_errno;
		mock.reg_errno = 0;
		return NULL;
	}
	mr = calloc(1, sizeof(*mr));
	if (!mr)
		return NULL;
	mr->context = pd->context;
	mr->pd = pd;
	mr->addr = addr;
	mr->length = len;
	mr->lkey = mr->rkey = ++last_key;
	mock.nr_mrs++;
	return mr;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access)
{
	return reg(pd, addr, len, (unsigned)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
				unsigned int access)
{
	(void)iova;
	return reg(pd, addr, len, access);
}

struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t off, size_t len, uint64_t iova, int fd,
				 int access)
{
	errno = mock.dmabuf ? EBADF : EOPNOTSUPP;
	if (!mock.dmabuf || fd < 0)
		return NULL;
	mock.dmabuf_off = off;
	return reg(pd, (void *)(uintptr_t)iova, len, (unsigned)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	mock.nr_mrs--;
	free(mr);
	return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ctx)
{
	struct ibv_comp_channel *chan = calloc(1, sizeof(*chan));

	if (chan) {
		chan->context = ctx;
		chan->fd = eventfd(0, EFD_NONBLOCK);
	}
	return chan;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *chan)
{
	close(chan->fd);
	free(chan);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *ctx, int cqe, void *cq_ctx,
			     struct ibv_comp_channel *chan, int vector)
{
	struct ibv_cq *cq = calloc(1, sizeof(*cq));

	(void)cq_ctx;
	(void)vector;
	if (!cq)
		return NULL;
	cq->context = ctx;
	cq->channel = chan;
	cq->cqe = cqe;
	mock.nr_cqs++;
	return cq;
}

int ibv_resize_cq(struct ibv_cq *cq, int cqe)
{
	cq->cqe = cqe;
	return 0;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
	mock.nr_cqs--;
	free(cq);
	return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *chan, struct ibv_cq **cq, void **ctx)
{
	(void)chan;
	(void)cq;
	(void)ctx;
	errno = EAGAIN;
	return -1;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int nr)
{
	(void)cq;
	(void)nr;
}

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct ibv_srq *srq = calloc(1, sizeof(*srq));

	(void)attr;
	if (!srq)
		return NULL;
	srq->context = pd->context;
	mock.nr_srqs++;
	return srq;
}

int ibv_destroy_srq(struct ibv_srq *srq)
{
	mock.nr_srqs--;
	free(srq);
	return 0;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	static uint32_t last_qpn = 16;
	struct ibv_qp *qp;

	if (attr->cap.max_inline_data > mock.max_inline ||
	    attr->cap.max_send_sge > (uint32_t)mock.max_sge) {
		errno = EINVAL;
		return NULL;
	}
	qp = calloc(1, sizeof(*qp));
	if (!qp)
		return NULL;
	qp->context = pd->context;
	qp->send_cq = attr->send_cq;
	qp->recv_cq = attr->recv_cq;
	qp->srq = attr->srq;
	qp->qp_num = ++last_qpn;
	mock.nr_qps++;
	return qp;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	(void)qp;
	(void)mask;
	mock.qp_state = attr->qp_state;
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
	mock.nr_qps--;
	free(qp);
	return 0;
}

int ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *event)
{
	(void)ctx;
	if (event_head == event_tail)
		return -1;
	*event = events[event_head++ % EVENTS];
	return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

const char *ibv_event_type_str(enum ibv_event_type type)
{
	(void)type;
	return "event";
}

const char *ibv_wc_status_str(enum ibv_wc_status status)
{
	(void)status;
	return "status";
}
