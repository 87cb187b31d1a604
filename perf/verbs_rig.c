/* SPDX-License-Identifier: Apache-2.0 */
/* verbs_rig.c - one end of a connection between two processes, and what both ends do alike */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "perf/verbs_rig.h"
#include "weft_internal/transport_registry.h"

#define MSG_BYTES 8u
#define SILENT_MS 10000u /* guests of a busy host are slow, not dead */
#define LIMIT_NS (20 * 1000000000ull) /* nothing here takes longer */

/* what the two tell each other first */
struct intro {
	struct weft_ep_addr addr;
	struct weft_export mem;
};

int wfi_vrig_tell(int sock, const void *buf, size_t len)
{
	return send(sock, buf, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -ECONNRESET;
}

int wfi_vrig_hear(int sock, void *buf, size_t len)
{
	return recv(sock, buf, len, MSG_WAITALL) == (ssize_t)len ? 0 : -ECONNRESET;
}

int wfi_vrig_dial(const struct wfi_vrig_place *place, const struct wfi_vrig_order *order)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(WFI_VRIG_PORT) };
	uint64_t end_ns = wfi_perf_now_ns() + LIMIT_NS;
	int sock, one = 1, ret;

	if (inet_pton(AF_INET, place->addr, &to.sin_addr) != 1)
		return wfi_perf_fail(-EINVAL, "%s is no IPv4 address", place->addr);
	for (;;) {
		sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (sock < 0)
			return wfi_perf_fail(-errno, "no socket: %s", strerror(errno));
		if (!connect(sock, (struct sockaddr *)&to, sizeof(to)))
			break;
		ret = -errno;
		close(sock);
		/* the other side may still be on its way up */
		if (ret != -ECONNREFUSED || wfi_perf_now_ns() > end_ns)
			return wfi_perf_fail(ret, "no agent at %s: %s", place->addr,
					     strerror(-ret));
		wfi_perf_sleep_ns(10000000);
	}
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ret = wfi_vrig_tell(sock, order, sizeof(*order));
	if (ret) {
		close(sock);
		return wfi_perf_fail(ret, "the agent hung up");
	}
	return sock;
}

int wfi_vrig_go(int sock, uint32_t nr)
{
	int ret = wfi_vrig_tell(sock, &nr, sizeof(nr));

	return ret ? ret : wfi_vrig_hear(sock, &nr, sizeof(nr));
}

static int memory_open(struct wfi_vrig_side *s)
{
	struct weft_mr_opts mr = { .size = sizeof(mr),
				   .len = WFI_VRIG_MEM,
				   .access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ |
					     WEFT_ACCESS_REMOTE_WRITE };
	int ret;

	s->mem = wfi_alloc(&s->env, WFI_VRIG_MEM);
	if (!s->mem)
		return -ENOMEM;
	memset(s->mem, 0, WFI_VRIG_MEM);
	mr.addr = s->mem;
	ret = s->dev->transport->mr_reg(s->dev, &mr, &s->mr);
	return ret ? ret : s->dev->transport->mr_export(s->mr, NULL, &s->mem_right);
}

int wfi_vrig_open(struct wfi_vrig_side *s, const struct wfi_vrig_place *place, int sock)
{
	const struct weft_transport *t = wfi_transport_find(wfi_transports, "verbs");
	struct weft_device_opts dev = { .size = sizeof(dev),
					.name = place->device,
					.silent_ms = SILENT_MS };
	struct weft_cq_opts cq = { .size = sizeof(cq), .depth = 4096 };
	int ret;

	*s = (struct wfi_vrig_side){ .sock = sock };
	ret = t ? wfi_env_real_init(&s->env) : -EOPNOTSUPP;
	if (!ret)
		ret = t->device_open(t, &s->env, &dev, &s->dev);
	if (ret)
		return wfi_perf_fail(ret, "verbs device %s: %s", place->device, strerror(-ret));
	ret = t->cq_create(s->dev, &cq, &s->send_cq);
	if (!ret)
		ret = t->cq_create(s->dev, &cq, &s->recv_cq);
	if (!ret)
		ret = memory_open(s);
	if (ret) {
		wfi_vrig_close(s);
		return wfi_perf_fail(ret, "verbs: %s", strerror(-ret));
	}
	return 0;
}

void wfi_vrig_close(struct wfi_vrig_side *s)
{
	const struct weft_transport *t;

	if (!s->dev)
		return;
	t = s->dev->transport;
	wfi_vrig_ep_close(s);
	t->mr_dereg(s->mr);
	t->cq_destroy(s->send_cq);
	t->cq_destroy(s->recv_cq);
	t->device_close(s->dev);
	if (s->mem)
		wfi_free(&s->env, s->mem, WFI_VRIG_MEM);
	s->dev = NULL;
}

static int ep_open(struct wfi_vrig_side *s, struct intro *mine)
{
	const struct weft_transport *t = s->dev->transport;
	struct weft_ep_opts opts = { .size = sizeof(opts),
				     .send_cq = s->send_cq,
				     .recv_cq = s->recv_cq,
				     .depth = WFI_VRIG_DEPTH };
	int ret = t->ep_create(s->dev, &opts, &s->ep);

	s->is_closed = false;
	memset(mine, 0, sizeof(*mine));
	mine->mem = s->mem_right;
	return ret ? ret : t->ep_addr(s->ep, &mine->addr);
}

static int ep_join(struct wfi_vrig_side *s, const struct intro *theirs)
{
	const struct weft_transport *t = s->dev->transport;
	struct weft_ep_peer peer = { .size = sizeof(peer),
				     .blob = theirs->addr.blob,
				     .blob_len = theirs->addr.blob_len };
	struct weft_rkey_src src = { .size = sizeof(src),
				     .fd = -1,
				     .blob = theirs->mem.blob,
				     .blob_len = theirs->mem.blob_len };
	int ret = t->ep_connect(s->ep, &peer);

	return ret ? ret : t->rkey_import(s->ep, &src, &s->rkey);
}

void wfi_vrig_ep_close(struct wfi_vrig_side *s)
{
	const struct weft_transport *t = s->dev->transport;
	struct weft_wc wc;

	if (!s->ep)
		return;
	t->ep_shutdown(s->ep);
	while (!s->is_closed) {
		s->is_closed = weft_cq_poll(s->recv_cq, &wc, 1) == 1 && wc.op == WEFT_WC_CLOSED;
		weft_cq_poll(s->send_cq, &wc, 1);
	}
	t->rkey_destroy(s->rkey);
	t->ep_destroy(s->ep);
	s->ep = NULL;
	s->rkey = NULL;
}

int wfi_vrig_meet(struct wfi_vrig_side *s)
{
	struct intro mine, theirs;
	char ready = 0;
	int ret = ep_open(s, &mine);

	if (!ret)
		ret = wfi_vrig_tell(s->sock, &mine, sizeof(mine));
	if (!ret)
		ret = wfi_vrig_hear(s->sock, &theirs, sizeof(theirs));
	if (!ret)
		ret = ep_join(s, &theirs);
	/* what is written to a queue pair that is not ready is lost, and sent anew much later */
	if (!ret)
		ret = wfi_vrig_tell(s->sock, &ready, 1);
	if (!ret)
		ret = wfi_vrig_hear(s->sock, &ready, 1);
	return ret ? wfi_perf_fail(ret, "verbs: no connection: %s", strerror(-ret)) : 0;
}

int wfi_vrig_wait(struct wfi_vrig_side *s)
{
	struct weft_wc wc;

	while (!weft_cq_poll(s->send_cq, &wc, 1))
		;
	return wc.status;
}

/* what the other side writes lands in the first byte of the second half, ours leaves the first */
static int write_mark(struct wfi_vrig_side *s, uint8_t mark)
{
	struct weft_piece piece = { s->mem, WFI_VRIG_MEM / 2, MSG_BYTES, s->rkey };
	struct weft_post post = {
		.pieces = &piece, .nr_pieces = 1, .local_mr = s->mr, .flags = WEFT_POST_QUIET
	};
	struct weft_wc wc;
	int ret;

	s->mem[MSG_BYTES - 1] = mark;
	while ((ret = weft_ep_post_write(s->ep, &post)) == -EAGAIN)
		if (weft_cq_poll(s->send_cq, &wc, 1) && wc.status)
			return wc.status;
	return ret;
}

int wfi_vrig_pingpong(struct wfi_vrig_side *s, uint32_t nr, bool first, uint64_t *out)
{
	const volatile uint8_t *mark = &s->mem[WFI_VRIG_MEM / 2 + MSG_BYTES - 1]; /* the NIC's */
	uint64_t start_ns = wfi_perf_now_ns(), now_ns;
	uint32_t i;
	int ret;

	for (i = 0; i < nr; i++) {
		if (first) {
			ret = write_mark(s, (uint8_t)(i + 1));
			if (ret)
				return ret;
		}
		while (*mark != (uint8_t)(i + 1))
			;
		if (!first) {
			ret = write_mark(s, (uint8_t)(i + 1));
			if (ret)
				return ret;
		}
		if (out) {
			now_ns = wfi_perf_now_ns();
			out[i] = now_ns - start_ns;
			start_ns = now_ns;
		}
	}
	/* the next run begins from zero again, on both sides */
	s->mem[WFI_VRIG_MEM / 2 + MSG_BYTES - 1] = 0;
	return 0;
}

static int send_one(struct wfi_vrig_side *s)
{
	struct weft_wc wc;
	int ret;

	while ((ret = weft_ep_post_send(s->ep, s->mem, MSG_BYTES, 0, WEFT_POST_QUIET)) == -EAGAIN)
		if (weft_cq_poll(s->send_cq, &wc, 1) && wc.status)
			return wc.status;
	return ret;
}

int wfi_vrig_echo(struct wfi_vrig_side *s, uint32_t nr, bool first, uint64_t *out)
{
	uint64_t start_ns = wfi_perf_now_ns(), now_ns;
	struct weft_wc wc;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < nr && !ret; i++) {
		if (first)
			ret = send_one(s);
		while (!ret && !weft_cq_poll(s->recv_cq, &wc, 1))
			;
		if (!ret && wc.op != WEFT_WC_RECV)
			ret = wc.status ? wc.status : -EPROTO;
		if (!first && !ret)
			ret = send_one(s);
		if (out) {
			now_ns = wfi_perf_now_ns();
			out[i] = now_ns - start_ns;
			start_ns = now_ns;
		}
	}
	return ret;
}
