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
	ret = wfi_end_tell(sock, order, sizeof(*order));
	if (ret) {
		close(sock);
		return wfi_perf_fail(ret, "the agent hung up");
	}
	return sock;
}

int wfi_vrig_go(int sock, uint32_t nr)
{
	int ret = wfi_end_tell(sock, &nr, sizeof(nr));

	return ret ? ret : wfi_end_hear(sock, &nr, sizeof(nr));
}

int wfi_vrig_open(struct wfi_vrig_side *s, const struct wfi_vrig_place *place, int sock)
{
	const struct weft_transport *t = wfi_transport_find(wfi_transports, "verbs");
	const struct weft_device_opts dev = { .size = sizeof(dev),
					      .name = place->device,
					      .silent_ms = SILENT_MS };
	struct weft_mr_opts mr = { .size = sizeof(mr),
				   .len = WFI_VRIG_MEM,
				   .access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ |
					     WEFT_ACCESS_REMOTE_WRITE };
	int ret;

	*s = (struct wfi_vrig_side){ .end.sock = sock };
	ret = t ? wfi_env_real_init(&s->end.env) : -EOPNOTSUPP;
	if (!ret) {
		s->mem = wfi_alloc(&s->end.env, WFI_VRIG_MEM);
		ret = s->mem ? 0 : -ENOMEM;
	}
	if (!ret) {
		memset(s->mem, 0, WFI_VRIG_MEM);
		mr.addr = s->mem;
		ret = wfi_end_open(&s->end, t, &dev, &mr);
	}
	if (ret) {
		wfi_vrig_close(s);
		return wfi_perf_fail(ret, "verbs device %s: %s", place->device, strerror(-ret));
	}
	return 0;
}

void wfi_vrig_close(struct wfi_vrig_side *s)
{
	wfi_end_close(&s->end);
	if (s->mem)
		wfi_free(&s->end.env, s->mem, WFI_VRIG_MEM);
	s->mem = NULL;
}

int wfi_vrig_meet(struct wfi_vrig_side *s)
{
	struct wfi_end *e = &s->end;
	struct intro mine = { .mem = e->right }, theirs;
	char ready = 0;
	int ret = wfi_end_ep_open(e, 0, &mine.addr);

	if (!ret)
		ret = wfi_end_tell(e->sock, &mine, sizeof(mine));
	if (!ret)
		ret = wfi_end_hear(e->sock, &theirs, sizeof(theirs));
	if (!ret)
		ret = wfi_end_ep_join(e, &theirs.addr, &theirs.mem, 0);
	/* what is written to a queue pair that is not ready is lost, and sent anew much later */
	if (!ret)
		ret = wfi_end_tell(e->sock, &ready, 1);
	if (!ret)
		ret = wfi_end_hear(e->sock, &ready, 1);
	return ret ? wfi_perf_fail(ret, "verbs: no connection: %s", strerror(-ret)) : 0;
}

int wfi_vrig_wait(struct wfi_vrig_side *s)
{
	struct weft_wc wc;

	while (!weft_cq_poll(s->end.send_cq, &wc, 1))
		;
	return wc.status;
}

/* what the other side writes lands in the first byte of the second half, ours leaves the first */
static int write_mark(struct wfi_vrig_side *s, uint8_t mark)
{
	struct weft_piece piece = { s->mem, WFI_VRIG_MEM / 2, MSG_BYTES, s->end.rkey };
	struct weft_post post = {
		.pieces = &piece, .nr_pieces = 1, .local_mr = s->end.mr, .flags = WEFT_POST_QUIET
	};
	struct weft_wc wc;
	int ret;

	s->mem[MSG_BYTES - 1] = mark;
	while ((ret = weft_ep_post_write(s->end.ep, &post)) == -EAGAIN)
		if (weft_cq_poll(s->end.send_cq, &wc, 1) && wc.status)
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

	while ((ret = weft_ep_post_send(s->end.ep, s->mem, MSG_BYTES, 0, WEFT_POST_QUIET)) ==
	       -EAGAIN)
		if (weft_cq_poll(s->end.send_cq, &wc, 1) && wc.status)
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
		while (!ret && !weft_cq_poll(s->end.recv_cq, &wc, 1))
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
