/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "perf/end.h"
#include "perf/pair.h"
#include "perf/perf.h"
#include "weft_internal/gather.h"
#include "weft_internal/transport_registry.h"

#define LIMIT_NS (20 * 1000000000ull) /* nothing here takes longer */
#define RECV_BYTES (4u << 20)
#define ORDER_POLLS 1024u /* between looks for an order: a system call */
#define MEMORY (WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT | WFI_MAP_HUGE)

/* what the two tell each other first */
struct intro {
	struct weft_ep_addr addr;
	struct weft_export mem;
	struct wfi_gather_name name;
	uint32_t max_msg;
};

struct end {
	struct wfi_end b;
	struct wfi_xfer_engine *eng;
	struct wfi_gather_name name; /* of the other's memory */
	bool echoes;
};

struct wfi_pair {
	struct end end;
	struct wfi_env env; /* of the memory */
	struct wfi_map here, there; /* as a node's arena, which peers may map and NICs read */
	pid_t pid;
};

/* ---- the socket between the two ---- */

/* the file of the export comes last */
static int tell_intro(int sock, struct intro *intro)
{
	union {
		struct cmsghdr hdr;
		uint8_t space[CMSG_SPACE(sizeof(int) * (WEFT_EP_FDS_MAX + 1))];
	} control = { 0 };
	struct iovec iov = { intro, sizeof(*intro) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[WEFT_EP_FDS_MAX + 1];
	size_t nr = intro->addr.nr_fds;

	memcpy(fds, intro->addr.fds, nr * sizeof(int));
	if (intro->mem.fd >= 0)
		fds[nr++] = intro->mem.fd;
	if (nr) {
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		control.hdr.cmsg_level = SOL_SOCKET;
		control.hdr.cmsg_type = SCM_RIGHTS;
		control.hdr.cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(&control.hdr), fds, nr * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(*intro) ? 0 : -ECONNRESET;
}

static int hear_intro(int sock, struct intro *intro)
{
	union {
		struct cmsghdr hdr;
		uint8_t space[CMSG_SPACE(sizeof(int) * (WEFT_EP_FDS_MAX + 1))];
	} control = { 0 };
	struct iovec iov = { intro, sizeof(*intro) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.space,
			      .msg_controllen = sizeof(control.space) };
	int fds[WEFT_EP_FDS_MAX + 1];
	size_t nr = 0;

	if (recvmsg(sock, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*intro))
		return -ECONNRESET;
	if (msg.msg_controllen) {
		nr = (control.hdr.cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(&control.hdr), nr * sizeof(int));
	}
	if (nr != intro->addr.nr_fds + (intro->mem.fd >= 0))
		return -EPROTO;
	memcpy(intro->addr.fds, fds, intro->addr.nr_fds * sizeof(int));
	if (intro->mem.fd >= 0)
		intro->mem.fd = fds[nr - 1];
	return 0;
}

/* ---- one end ---- */

static int end_create(struct end *e, const struct weft_transport *t, const char *device,
		      const struct wfi_map *m)
{
	const struct weft_device_opts dev = { .size = sizeof(dev), .name = device };
	const struct weft_mr_opts mr = { .size = sizeof(mr),
					 .addr = m->addr,
					 .len = m->len,
					 .access = WEFT_ACCESS_LOCAL_WRITE |
						   WEFT_ACCESS_REMOTE_READ |
						   WEFT_ACCESS_REMOTE_WRITE,
					 .kind = WEFT_MR_MEMFD,
					 .fd = m->fd };
	const struct wfi_xfer_engine_opts eng = { .env = &e->b.env };
	int ret = wfi_env_real_init(&e->b.env);

	if (!ret)
		ret = wfi_end_open(&e->b, t, &dev, &mr);
	return ret ? ret : wfi_xfer_engine_create(&eng, &e->eng);
}

static int end_join(struct end *e, const struct intro *theirs, pid_t pid)
{
	int ret = wfi_end_ep_join(&e->b, &theirs->addr, &theirs->mem, pid);
	uint32_t i;

	for (i = 0; i < theirs->addr.nr_fds; i++)
		close(theirs->addr.fds[i]);
	if (theirs->mem.fd >= 0)
		close(theirs->mem.fd);
	e->name = theirs->name;
	return ret;
}

/* both at once. @pid: of the other */
static int end_meet(struct end *e, pid_t pid)
{
	struct intro mine = { 0 }, theirs;
	char ready = 0;
	int ret = wfi_end_ep_open(&e->b, RECV_BYTES, &mine.addr);

	mine.mem = e->b.right;
	mine.max_msg = e->b.dev->caps.max_msg;
	if (!ret && e->b.dev->caps.cost_per_piece_ns)
		ret = wfi_gather_open(e->eng, e->b.ep, 0, &e->b.link);
	if (!ret && e->b.link)
		ret = wfi_gather_serve(e->b.link, e->b.mr, NULL, &mine.name);
	if (!ret)
		ret = tell_intro(e->b.sock, &mine);
	if (!ret)
		ret = hear_intro(e->b.sock, &theirs);
	if (!ret)
		ret = end_join(e, &theirs, pid);
	/* what is sent to an endpoint that is not ready may be lost */
	if (!ret)
		ret = wfi_end_tell(e->b.sock, &ready, 1);
	return ret ? ret : wfi_end_hear(e->b.sock, &ready, 1);
}

/* Return: 0, -ECONNRESET the other side is gone */
static int end_hear(struct end *e)
{
	struct weft_wc wcs[16];
	int i, nr;

	nr = weft_cq_poll(e->b.recv_cq, wcs, 16);
	for (i = 0; i < nr; i++) {
		if (e->b.link && wfi_gather_event(e->b.link, &wcs[i]) < 0)
			return -EPROTO;
		e->b.is_closed |= wcs[i].op == WEFT_WC_CLOSED;
		if (e->echoes && wcs[i].op == WEFT_WC_RECV)
			weft_ep_post_send(e->b.ep, wcs[i].data, (uint32_t)wcs[i].len, 0,
					  WEFT_POST_QUIET);
	}
	return e->b.is_closed ? -ECONNRESET : 0;
}

static int end_poll(struct end *e)
{
	wfi_xfer_poll(e->eng, wfi_perf_now_ns());
	return end_hear(e);
}

static void end_close(struct end *e)
{
	if (!e->b.dev)
		return;
	wfi_end_ep_close(&e->b);
	wfi_gather_close(e->b.link);
	wfi_xfer_engine_destroy(e->eng);
	wfi_end_close(&e->b);
}

/* ---- the target ---- */

static int target_poll(struct end *e)
{
	unsigned polls = 0;
	char c;

	for (;;) {
		/* without a link there is nothing to move: it serves and echoes */
		if (e->b.link ? end_poll(e) : end_hear(e))
			return -ECONNRESET;
		if (++polls % ORDER_POLLS == 0 && recv(e->b.sock, &c, 1, MSG_DONTWAIT) >= 0)
			return wfi_end_tell(e->b.sock, &c, 1);
	}
}

static int target(const struct weft_transport *t, const char *device, const struct wfi_map *m,
		  int sock)
{
	struct end e = { .b.sock = sock };
	char order;
	int ret = wfi_perf_pin(WFI_PERF_NODE_CPU);

	if (!ret)
		ret = end_create(&e, t, device, m);
	if (!ret)
		ret = end_meet(&e, getppid());
	e.echoes = !e.b.link;
	while (!ret && !wfi_end_hear(sock, &order, 1)) {
		ret = wfi_end_tell(sock, &order, 1);
		if (!ret)
			ret = target_poll(&e);
	}
	end_close(&e);
	return ret ? 1 : 0;
}

/* ---- the initiator ---- */

int wfi_pair_open(const char *transport, const char *device, uint64_t bytes, struct wfi_pair **out)
{
	const struct weft_transport *t = wfi_transport_find(wfi_transports, transport);
	struct wfi_pair *p = calloc(1, sizeof(*p));
	int socks[2], ret;

	if (!p)
		return -ENOMEM;
	p->end.b.sock = -1;
	ret = t ? wfi_env_real_init(&p->env) : -EOPNOTSUPP;
	if (!ret)
		ret = p->env.mem->map(&p->env, bytes, MEMORY, &p->here);
	if (!ret)
		ret = p->env.mem->map(&p->env, bytes, MEMORY, &p->there);
	if (!ret && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		ret = -errno;
	if (ret)
		goto err;
	p->pid = fork();
	if (!p->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(socks[0]);
		_exit(target(t, device, &p->there, socks[1]));
	}
	close(socks[1]);
	p->end.b.sock = socks[0];
	ret = p->pid < 0 ? -errno : end_create(&p->end, t, device, &p->here);
	if (!ret)
		ret = end_meet(&p->end, p->pid);
	if (ret)
		goto err;
	*out = p;
	return 0;
err:
	wfi_pair_close(p);
	return ret == -EOPNOTSUPP && !t ? ret
					: wfi_perf_fail(ret, "%s: %s", transport, strerror(-ret));
}

void wfi_pair_close(struct wfi_pair *p)
{
	if (!p)
		return;
	if (p->end.b.sock >= 0)
		shutdown(p->end.b.sock, SHUT_RDWR);
	end_close(&p->end);
	if (p->pid > 0)
		waitpid(p->pid, NULL, 0);
	if (p->end.b.sock >= 0)
		close(p->end.b.sock);
	if (p->env.mem) {
		p->env.mem->unmap(&p->env, &p->here);
		p->env.mem->unmap(&p->env, &p->there);
	}
	free(p);
}

uint8_t *wfi_pair_here(struct wfi_pair *p)
{
	return p->here.addr;
}

uint8_t *wfi_pair_there(struct wfi_pair *p)
{
	return p->there.addr;
}

static int order(struct wfi_pair *p, char what)
{
	int ret = wfi_end_tell(p->end.b.sock, &what, 1);

	return ret ? ret : wfi_end_hear(p->end.b.sock, &what, 1);
}

int wfi_pair_begin(struct wfi_pair *p)
{
	return order(p, 'p');
}

int wfi_pair_end(struct wfi_pair *p)
{
	return order(p, 's');
}

struct weft_ep *wfi_pair_ep(struct wfi_pair *p)
{
	return p->end.b.ep;
}

const struct weft_rkey *wfi_pair_rkey(const struct wfi_pair *p)
{
	return p->end.b.rkey;
}

static void moved(void *ctx, int res)
{
	*(int *)ctx = res;
}

int wfi_pair_move(struct wfi_pair *p, enum wfi_xfer_dir dir, const struct wfi_piece *pieces,
		  uint32_t nr)
{
	struct end *e = &p->end;
	int32_t result;
	int res = 1, ret;
	const struct wfi_xfer_opts opts = { .ep = e->b.ep,
					    .dir = dir,
					    .local_mr = e->b.mr,
					    .rkeys = &e->b.rkey,
					    .nr_rkeys = 1,
					    .pieces = pieces,
					    .nr_pieces = nr,
					    .nr_blocks = 1,
					    .results = &result,
					    .deadline_ns = wfi_perf_now_ns() + LIMIT_NS,
					    .done = moved,
					    .ctx = &res,
					    .gather = e->b.link,
					    .names = e->b.link ? &e->name : NULL };
	struct wfi_xfer *x;

	ret = wfi_xfer_submit(e->eng, &opts, &x);
	while (!ret && res == 1)
		ret = end_poll(e);
	return ret ? ret : res;
}
