/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/socket.h>
#include "perf/end.h"

#define CQ_DEPTH 4096u

int wfi_end_tell(int sock, const void *buf, size_t len)
{
	return send(sock, buf, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -ECONNRESET;
}

int wfi_end_hear(int sock, void *buf, size_t len)
{
	return recv(sock, buf, len, MSG_WAITALL) == (ssize_t)len ? 0 : -ECONNRESET;
}

int wfi_end_open(struct wfi_end *e, const struct weft_transport *t,
		 const struct weft_device_opts *dev, const struct weft_mr_opts *mr)
{
	const struct weft_cq_opts cq = { .size = sizeof(cq), .depth = CQ_DEPTH };
	int ret = t->device_open(t, &e->env, dev, &e->dev);

	if (!ret)
		ret = t->mr_reg(e->dev, mr, &e->mr);
	if (!ret)
		ret = t->mr_export(e->mr, NULL, &e->right);
	if (!ret)
		ret = t->cq_create(e->dev, &cq, &e->send_cq);
	return ret ? ret : t->cq_create(e->dev, &cq, &e->recv_cq);
}

void wfi_end_close(struct wfi_end *e)
{
	const struct weft_transport *t;

	if (!e->dev)
		return;
	t = e->dev->transport;
	wfi_end_ep_close(e);
	t->cq_destroy(e->send_cq);
	t->cq_destroy(e->recv_cq);
	t->mr_dereg(e->mr);
	t->device_close(e->dev);
	e->dev = NULL;
}

int wfi_end_ep_open(struct wfi_end *e, uint32_t recv_bytes, struct weft_ep_addr *mine)
{
	const struct weft_transport *t = e->dev->transport;
	const struct weft_ep_opts opts = { .size = sizeof(opts),
					   .send_cq = e->send_cq,
					   .recv_cq = e->recv_cq,
					   .depth = WFI_END_DEPTH,
					   .recv_bytes = recv_bytes };
	int ret = t->ep_create(e->dev, &opts, &e->ep);

	e->is_closed = false;
	return ret ? ret : t->ep_addr(e->ep, mine);
}

int wfi_end_ep_join(struct wfi_end *e, const struct weft_ep_addr *addr,
		    const struct weft_export *right, pid_t pid)
{
	const struct weft_transport *t = e->dev->transport;
	const struct weft_ep_peer peer = { .size = sizeof(peer),
					   .blob = addr->blob,
					   .blob_len = addr->blob_len,
					   .nr_fds = addr->nr_fds,
					   .fds = addr->fds,
					   .pid = pid };
	const struct weft_rkey_src src = { .size = sizeof(src),
					   .fd = right->fd,
					   .blob = right->blob,
					   .blob_len = right->blob_len };
	int ret = t->ep_connect(e->ep, &peer);

	return ret ? ret : t->rkey_import(e->ep, &src, &e->rkey);
}

void wfi_end_ep_close(struct wfi_end *e)
{
	const struct weft_transport *t = e->dev->transport;
	struct weft_wc wc;

	if (!e->ep)
		return;
	t->ep_shutdown(e->ep);
	while (!e->is_closed) {
		weft_cq_poll(e->send_cq, &wc, 1);
		if (weft_cq_poll(e->recv_cq, &wc, 1) != 1)
			continue;
		e->is_closed = wc.op == WEFT_WC_CLOSED;
		if (e->link)
			wfi_gather_event(e->link, &wc);
	}
	t->rkey_destroy(e->rkey);
	t->ep_destroy(e->ep);
	e->ep = NULL;
	e->rkey = NULL;
}
