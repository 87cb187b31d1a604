/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "mock_rdmacm.h"
#include "mock_verbs.h"

#define EVENTS 32u

struct mock_cm mock_cm;

static struct ibv_device *device;
static struct ibv_context context;
static struct {
	struct rdma_cm_event event;
	uint8_t data[64];
} queue[EVENTS];
static unsigned head, tail;

void mock_cm_reset(void)
{
	memset(&mock_cm, 0, sizeof(mock_cm));
	head = tail = 0;
}

void mock_cm_event(struct rdma_cm_id *id, enum rdma_cm_event_type type, int status,
		   const void *data, uint8_t len)
{
	struct rdma_cm_event *event = &queue[tail % EVENTS].event;

	memset(event, 0, sizeof(*event));
	event->id = id;
	event->event = type;
	event->status = status;
	event->param.conn.responder_resources = 16;
	if (data) {
		memcpy(queue[tail % EVENTS].data, data, len);
		event->param.conn.private_data = queue[tail % EVENTS].data;
		event->param.conn.private_data_len = len;
	}
	tail++;
}

struct rdma_cm_id *mock_cm_ask(struct rdma_cm_id *listener, const void *data, uint8_t len)
{
	struct rdma_cm_id *id = calloc(1, sizeof(*id));

	mock_cm.nr_ids++;
	id->context = listener->context;
	mock_cm_event(id, RDMA_CM_EVENT_CONNECT_REQUEST, 0, data, len);
	queue[(tail - 1) % EVENTS].event.listen_id = listener;
	return id;
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
	struct rdma_event_channel *channel;

	if (mock_cm.none) {
		errno = ENODEV;
		return NULL;
	}
	channel = calloc(1, sizeof(*channel));
	if (channel)
		channel->fd = eventfd(0, EFD_NONBLOCK);
	return channel;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
	close(channel->fd);
	free(channel);
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **out, void *ctx,
		   enum rdma_port_space ps)
{
	struct rdma_cm_id *id = calloc(1, sizeof(*id));

	if (!id)
		return -1;
	id->channel = channel;
	id->context = ctx;
	id->ps = ps;
	mock_cm.nr_ids++;
	mock_cm.last = *out = id;
	return 0;
}

int rdma_destroy_id(struct rdma_cm_id *id)
{
	mock_cm.nr_ids--;
	free(id);
	return 0;
}

/* the way leads through the device of the mock, or through another */
int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int ms)
{
	static struct ibv_device other = { .name = "other0" };
	struct ibv_device **list = ibv_get_device_list(NULL);

	(void)to;
	(void)ms;
	mock_cm.from_family = from ? from->sa_family : 0;
	device = list[0];
	ibv_free_device_list(list);
	context.device = mock_cm.elsewhere ? &other : device;
	id->verbs = &context;
	id->port_num = 1;
	mock_cm_event(id, RDMA_CM_EVENT_ADDR_RESOLVED, 0, NULL, 0);
	return 0;
}

int rdma_resolve_route(struct rdma_cm_id *id, int ms)
{
	(void)ms;
	mock_cm_event(id, RDMA_CM_EVENT_ROUTE_RESOLVED, 0, NULL, 0);
	return 0;
}

static int said(const struct rdma_conn_param *param)
{
	mock_cm.said_len = param->private_data_len;
	memcpy(mock_cm.said, param->private_data, param->private_data_len);
	return 0;
}

int rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	(void)id;
	mock_cm.nr_connects++;
	return said(param);
}

int rdma_accept(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	(void)id;
	mock_cm.nr_accepts++;
	return said(param);
}

int rdma_reject(struct rdma_cm_id *id, const void *data, uint8_t len)
{
	struct rdma_conn_param param = { .private_data = data, .private_data_len = len };

	(void)id;
	mock_cm.nr_rejects++;
	return said(&param);
}

int rdma_establish(struct rdma_cm_id *id)
{
	(void)id;
	mock_cm.nr_established++;
	return 0;
}

int rdma_disconnect(struct rdma_cm_id *id)
{
	(void)id;
	return 0;
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *addr)
{
	(void)id;
	(void)addr;
	errno = mock_cm.bind_errno;
	return mock_cm.bind_errno ? -1 : 0;
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
	(void)id;
	(void)backlog;
	return 0;
}

int rdma_init_qp_attr(struct rdma_cm_id *id, struct ibv_qp_attr *attr, int *mask)
{
	(void)id;
	(void)attr;
	*mask = IBV_QP_STATE;
	return 0;
}

int rdma_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **event)
{
	(void)channel;
	if (head == tail) {
		errno = EAGAIN;
		return -1;
	}
	*event = &queue[head++ % EVENTS].event;
	return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
	(void)event;
	return 0;
}

__be16 rdma_get_src_port(struct rdma_cm_id *id)
{
	(void)id;
	return htons(7471);
}
