/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - sockets, messages and deaths; what concerns the worker goes through node_call() */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control_private.h"
#include "listen.h"
#include "weft_internal/ctl.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define CONNS_MAX 1024u
#define DEREG_POLL_MS 1
#define EVENTS_PER_WAIT 16
#define BLOCKS_PAGE 4096u /* blocks in one answer, about, and slices that it takes at most */
#define BLOCKS_SLICES 1024u

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* in what epoll's data points to: the end of the connection's process, not its socket */
#define OF_PROCESS 1u

/* what it points to when it is not a connection */
static char tag_listen, tag_link, tag_stop, tag_signal, tag_inbox, tag_poke;

bool conn_is_keeper(const struct conn *k)
{
	return k->uid == geteuid() || k->uid == 0;
}

/* ---- connections ---- */

static int epoll_add(struct control *c, int fd, void *ptr)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = ptr };

	return epoll_ctl(c->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int peer_credentials(struct conn *k)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int pidfd = -1;

	if (getsockopt(k->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return -errno;
	k->pid = cred.pid;
	k->uid = cred.uid;
	len = sizeof(pidfd);
	/* before Linux 6.5 the pid may have been reused meanwhile: then we watch somebody else, and
	 * the hang-up of the socket alone tells of the end */
	if (getsockopt(k->fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len))
		pidfd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	k->pidfd = pidfd;
	return 0;
}

struct conn *conn_add(struct control *c, int fd)
{
	struct conn *k = c->nr_conns < CONNS_MAX ? wfi_alloc(c->env, sizeof(*k)) : NULL;

	if (!k) {
		wfi_warn("control: no room for another connection (%u are open)", c->nr_conns);
		close(fd);
		return NULL;
	}
	k->fd = fd;
	k->pidfd = k->watch = -1;
	/* who does not read its answers is hung up on, and keeps nobody waiting */
	if (fcntl(fd, F_SETFL, O_NONBLOCK) || peer_credentials(k) || epoll_add(c, fd, k)) {
		wfi_free(c->env, k, sizeof(*k));
		close(fd);
		return NULL;
	}
	k->next = c->conns;
	c->conns = k;
	c->nr_conns++;
	return k;
}

/* others may have the same file open, a child of fork() or a session: closing ours does not end
 * epoll's interest */
static void unwatch(struct control *c, int fd)
{
	if (fd < 0)
		return;
	epoll_ctl(c->epfd, EPOLL_CTL_DEL, fd, NULL);
	close(fd);
}

static void conn_free(struct control *c, struct conn *k)
{
	struct conn **p = &c->conns;

	while (*p != k)
		p = &(*p)->next;
	*p = k->next;
	c->nr_conns--;
	if (k->dial)
		c->dials[k->dial - 1].open = false;
	if (k->stream) {
		stream_fini(k->stream);
		wfi_free(c->env, k->stream, sizeof(*k->stream));
	}
	unwatch(c, k->fd);
	unwatch(c, k->watch);
	if (k->pidfd >= 0)
		close(k->pidfd);
	wfi_free(c->env, k, sizeof(*k));
}

/* ---- calls that the worker runs ---- */

struct detach_call {
	struct conn *k;
	bool may_write;
};

static void run_detach(struct node *node, void *arg)
{
	struct detach_call *d = arg;

	(void)node;
	if (d->k->session) {
		d->k->owner_id = d->k->session->owner.id;
		session_detach(d->k->session, d->may_write);
	}
	if (d->k->peer)
		peer_detach(d->k->peer);
	d->k->session = NULL;
	d->k->peer = NULL;
}

static void run_gone(struct node *node, void *arg)
{
	session_gone(node, ((struct conn *)arg)->owner_id);
}

static bool process_lives(const struct conn *k, int pidfd)
{
	if (pidfd >= 0)
		return !syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0);
	return !kill(k->pid, 0) || errno != ESRCH;
}

/* a socket hangs up when the last process that has it does: one forked from the engine may live on
 */
static void process_watch(struct control *c, struct conn *k)
{
	if (k->pid == getpid() || k->pidfd < 0 || k->watch >= 0)
		return;
	k->watch = fcntl(k->pidfd, F_DUPFD_CLOEXEC, 0);
	if (k->watch < 0 || !epoll_add(c, k->watch, (char *)k + OF_PROCESS))
		return;
	close(k->watch);
	k->watch = -1;
}

/* over: what it held goes back; its claims only once its process can't write any more */
static void conn_close(struct control *c, struct conn *k)
{
	struct detach_call d = { .k = k };

	if (k->kind == CONN_ENGINE) {
		d.may_write = !k->bye && k->pid != getpid() && process_lives(k, k->watch);
		c->nr_engines--;
	}
	if (k->session || k->peer)
		node_call(c->node, run_detach, &d);
	if (d.may_write && k->watch < 0)
		node_call(c->node, run_gone, k);
	if (!d.may_write || k->watch < 0) {
		conn_free(c, k);
		return;
	}
	unwatch(c, k->fd);
	k->fd = -1;
	k->kind = CONN_DEAD_ENGINE;
	k->closing = false;
	k->dereg = 0;
}

/* ---- requests of engines ---- */

struct request {
	struct control *c;
	struct conn *k;
	struct weft_ctl_req req;
	struct weft_ctl_rep rep;
	int fd_in; /* beside the request, or -1 */
	int fd_out; /* beside the answer, or -1 */
	bool close_out;
	bool later; /* no answer yet */
	struct wfi_ring *ring;
	uint64_t held; /* by the tenant's rings, in bytes */
	struct wfi_tenant *tenant;
	char *text;
	json_t *dials, *network; /* of STATUS */
	struct node_slice slice;
	bool more;
};

__attribute__((format(printf, 3, 4))) static void refuse(struct request *q, int status,
							 const char *fmt, ...)
{
	va_list ap;

	q->rep.status = status;
	va_start(ap, fmt);
	vsnprintf(q->rep.why, sizeof(q->rep.why), fmt, ap);
	va_end(ap);
}

static void run_attach(struct node *node, void *arg)
{
	struct request *q = arg;

	q->rep.status = session_attach(node, q->tenant, q->k->pid, q->k->pidfd, q->req.u.hello.name,
				       &q->k->session);
	if (q->rep.status)
		refuse(q, q->rep.status, "the node has no room for another engine");
	else
		q->k->pidfd = -1;
}

static void on_hello(struct request *q)
{
	struct node *node = q->c->node;
	const struct wfi_map *arena;

	q->req.u.hello.name[WEFT_NAME_MAX - 1] = 0;
	if (node->draining) {
		refuse(q, -ESHUTDOWN, "the node is draining and takes no new engine");
		return;
	}
	q->tenant = wfi_kv_tenant_find(node->kv, q->req.u.hello.token);
	if (!q->tenant) {
		wfi_warn("engine %d gave a token that no tenant has", (int)q->k->pid);
		refuse(q, -EACCES,
		       "no tenant has this token: set WEFT_TOKEN to one in the node's "
		       "configuration");
		return;
	}
	arena = wfi_tenant_arena(q->tenant);
	if (wfi_guard_hit(arena->addr)) {
		refuse(q, -EIO,
		       "pages of the tenant's arena are gone: some engine of the tenant punched "
		       "holes into it, or memory failed. Restart the node");
		return;
	}
	process_watch(q->c, q->k);
	node_call(node, run_attach, q);
	if (q->rep.status)
		return;
	q->k->kind = CONN_ENGINE;
	q->c->nr_engines++;
	q->c->had_engine = true;
	q->rep.len = arena->len;
	q->rep.incarnation = wfi_kv_incarnation(node->kv);
	q->rep.node = node->id;
	q->fd_out = arena->fd;
}

static void run_ring_add(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_ring_add(q->k->session, q->ring, &q->rep.id);
}

static void run_ring_held(struct node *node, void *arg)
{
	struct request *q = arg;
	unsigned i;

	for (i = 0; i < node->nr_rings; i++)
		if (node->rings[i]->session->tenant == q->k->session->tenant)
			q->held += wfi_ring_len(node->rings[i]->ring);
}

static void on_ring_open(struct request *q)
{
	struct wfi_ring_opts opts = {
		.sq_depth = q->req.u.ring.sq_depth,
		.cq_depth = q->req.u.ring.cq_depth,
		.arg_bytes = q->req.u.ring.arg_bytes,
	};
	const uint64_t max = q->c->node->ring_bytes;
	int ret;

	/* before its memory is taken, which nobody is to wait long for */
	node_call(q->c->node, run_ring_held, q);
	if (q->held + wfi_ring_need(&opts) > max) {
		refuse(q, -EDQUOT,
		       "the tenant's rings would take more than %llu MiB: open fewer, with fewer "
		       "argument bytes, or raise ring_bytes in the node's configuration",
		       (unsigned long long)(max >> 20));
		return;
	}
	ret = wfi_ring_create(q->c->env, &opts, &q->ring);
	if (ret) {
		refuse(q, ret,
		       ret == -EINVAL ? "depths are powers of two up to 32768, argument bytes a "
					"multiple of 4096 up to 1 GiB"
				      : "no shared memory for the ring (%s): open it with fewer "
					"argument bytes, or see the node's log",
		       strerror(-ret));
		return;
	}
	node_call(q->c->node, run_ring_add, q);
	if (q->rep.status) {
		wfi_ring_destroy(q->ring);
		refuse(q, q->rep.status, "an engine has at most %u rings", SESSION_RINGS_MAX);
		return;
	}
	q->rep.len = wfi_ring_len(q->ring);
	q->fd_out = wfi_ring_fd(q->ring);
}

static void run_ring_close(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_ring_close(q->k->session, q->req.id);
}

static void on_ring_close(struct request *q)
{
	node_call(q->c->node, run_ring_close, q);
}

static void run_space_open(struct node *node, void *arg)
{
	struct request *q = arg;
	struct wfi_space_info info;
	struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = q->req.u.space.block_bytes,
		.model = q->req.u.space.model,
		.layout = q->req.u.space.layout,
		.tokens_per_block = q->req.u.space.tokens_per_block,
		.nr_layers = q->req.u.space.nr_layers,
		.dtype = q->req.u.space.dtype,
		.verify = q->req.u.space.verify,
		.max_blocks = q->req.u.space.max_blocks,
	};

	q->rep.status =
		wfi_kv_space_open(node->kv, q->k->session->tenant, &opts, &info, q->rep.why);
	if (q->rep.status)
		return;
	q->rep.id = info.id;
	q->rep.len = info.stride;
	memcpy(q->rep.secret, info.secret, sizeof(q->rep.secret));
}

static void on_space_open(struct request *q)
{
	if (!memchr(q->req.u.space.model, 0, WEFT_NAME_MAX) ||
	    !memchr(q->req.u.space.layout, 0, WEFT_NAME_MAX)) {
		refuse(q, -EINVAL, "names of models and layouts have at most %d bytes",
		       WEFT_NAME_MAX - 1);
		return;
	}
	node_call(q->c->node, run_space_open, q);
}

static void run_region_reg(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_region_reg(q->k->session, q->fd_in, q->req.u.region.addr,
					   q->req.u.region.off, q->req.u.region.len, &q->rep.id,
					   q->rep.why);
}

static void on_region_reg(struct request *q)
{
	uint64_t end;

	if (!q->req.u.region.len || !!q->req.u.region.has_fd != (q->fd_in >= 0) ||
	    wfi_add_overflows(q->req.u.region.has_fd ? q->req.u.region.off : q->req.u.region.addr,
			      q->req.u.region.len, &end)) {
		refuse(q, -EINVAL, "a region has a length, and a file beside it when it says so");
		return;
	}
	node_call(q->c->node, run_region_reg, q);
}

static void run_region_dereg(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_region_dereg(q->k->session, q->req.id);
}

/* requests are answered in order: none is read while one waits */
static void conn_read(struct control *c, struct conn *k, bool on)
{
	struct epoll_event ev = { .events = EPOLLRDHUP, .data.ptr = k };

	if (on)
		ev.events |= EPOLLIN;
	epoll_ctl(c->epfd, EPOLL_CTL_MOD, k->fd, &ev);
}

static void on_region_dereg(struct request *q)
{
	node_call(q->c->node, run_region_dereg, q);
	if (q->rep.status == -EBUSY) {
		q->k->dereg = q->req.id;
		q->later = true;
		conn_read(q->c, q->k, false);
	}
}

/* whose figures a connection may see: NULL, all of them */
static const struct wfi_tenant *only_of(const struct request *q)
{
	return conn_is_keeper(q->k) ? NULL : q->k->session->tenant;
}

static void run_status(struct node *node, void *arg)
{
	struct request *q = arg;

	q->text = q->req.type == WEFT_CTL_LS
			  ? node_ls_json(node, only_of(q))
			  : node_status_json(node, only_of(q), q->dials, q->network);
}

/* q->text goes beside the answer, and is freed */
static void answer_text(struct request *q)
{
	const size_t len = q->text ? strlen(q->text) : 0;

	q->fd_out = len ? memfd_create("weft-status", MFD_CLOEXEC) : -1;
	if (q->fd_out < 0 || write(q->fd_out, q->text, len) != (ssize_t)len)
		refuse(q, -ENOMEM, "no memory for the answer");
	q->close_out = true;
	q->rep.len = len;
	free(q->text);
}

static void on_status(struct request *q)
{
	if (q->req.type == WEFT_CTL_STATUS) {
		q->dials = peer_dials_json(q->c);
		q->network = only_of(q) ? NULL : net_json(q->c);
	}
	node_call(q->c->node, run_status, q);
	answer_text(q);
}

static void run_stat(struct node *node, void *arg)
{
	struct request *q = arg;

	q->more = node_stat_slice(node, only_of(q), &q->slice);
}

static void on_stat(struct request *q)
{
	json_t *root;

	q->slice.list = json_array();
	do {
		node_call(q->c->node, run_stat, q);
	} while (q->more);
	root = json_pack("{s:o}", "spaces", q->slice.list);
	q->text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	answer_text(q);
}

struct blocks_call {
	struct node_blocks b;
	const struct wfi_tenant *only;
};

static void run_blocks(struct node *node, void *arg)
{
	struct blocks_call *call = arg;
	const struct wfi_tenant *t = wfi_kv_space_tenant(node->kv, call->b.space);

	call->b.nr = -ENOENT;
	if (t && (!call->only || call->only == t))
		call->b.nr = wfi_kv_blocks(node->kv, call->b.space, &call->b.at, wfi_now(node->env),
					   call->b.blocks);
}

/* a page of slices, between which the worker serves */
static void on_blocks(struct request *q)
{
	struct blocks_call call = { .b.space = q->req.id, .only = only_of(q) };
	json_t *list = json_array(), *root;
	unsigned slices = 0;

	call.b.at = q->req.u.blocks.from;
	do {
		node_call(q->c->node, run_blocks, &call);
		node_blocks_json(&call.b, list);
	} while (call.b.nr >= 0 && call.b.at && json_array_size(list) < BLOCKS_PAGE &&
		 ++slices < BLOCKS_SLICES);
	if (call.b.nr < 0) {
		json_decref(list);
		refuse(q, -ENOENT, "there is no such space");
		return;
	}
	root = json_pack("{s:o}", "blocks", list);
	if (call.b.at)
		json_object_set_new(root, "next", json_integer((json_int_t)call.b.at));
	q->text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	answer_text(q);
}

static void on_metrics(struct request *q)
{
	q->fd_out = wfi_metrics_fd(q->c->node->metrics);
}

static void on_drain(struct request *q)
{
	if (!conn_is_keeper(q->k)) {
		refuse(q, -EPERM, "only the node's own user, or root, may drain it");
		return;
	}
	wfi_info("draining: no new engines; the node stops when the last has left");
	q->c->node->draining = true;
	peers_tell_state(q->c);
}

static void run_tier_resize(struct node *node, void *arg)
{
	struct request *q = arg;

	q->rep.status = node_tier_resize(node, q->req.u.tier.bytes, q->rep.why, sizeof(q->rep.why));
}

static void on_tier_resize(struct request *q)
{
	if (!conn_is_keeper(q->k))
		refuse(q, -EPERM, "only the node's own user, or root, may resize its tier");
	else
		node_call(q->c->node, run_tier_resize, q);
}

static void on_bye(struct request *q)
{
	q->k->bye = true;
}

static void (*const on_request[])(struct request *q) = {
	[WEFT_CTL_HELLO] = on_hello,
	[WEFT_CTL_RING_OPEN] = on_ring_open,
	[WEFT_CTL_RING_CLOSE] = on_ring_close,
	[WEFT_CTL_SPACE_OPEN] = on_space_open,
	[WEFT_CTL_REGION_REG] = on_region_reg,
	[WEFT_CTL_REGION_DEREG] = on_region_dereg,
	[WEFT_CTL_STATUS] = on_status,
	[WEFT_CTL_LS] = on_status,
	[WEFT_CTL_STAT] = on_stat,
	[WEFT_CTL_BLOCKS] = on_blocks,
	[WEFT_CTL_METRICS] = on_metrics,
	[WEFT_CTL_DRAIN] = on_drain,
	[WEFT_CTL_BYE] = on_bye,
	[WEFT_CTL_TIER_RESIZE] = on_tier_resize,
};

static int answer(struct conn *k, struct request *q)
{
	bool has_fd = q->fd_out >= 0 && !q->rep.status;

	q->rep.magic = WEFT_CTL_MAGIC;
	q->rep.type = q->req.type;
	q->rep.nr_fds = has_fd;
	return wfi_ctl_send(k->fd, &q->rep, sizeof(q->rep), &q->fd_out, has_fd);
}

static int engine_request(struct control *c, struct conn *k, struct request *q)
{
	uint32_t type = q->req.type;
	int ret = 0;

	q->c = c;
	q->k = k;
	q->fd_out = -1;
	if (type >= WFI_ARRAY_SIZE(on_request) || !on_request[type])
		refuse(q, -EOPNOTSUPP, "no request has the type %u", type);
	else if ((type == WEFT_CTL_HELLO) != (k->kind == CONN_NEW))
		refuse(q, -EPROTO, "HELLO comes first, and once");
	else
		on_request[type](q);
	if (!q->later)
		ret = answer(k, q);
	if (q->close_out && q->fd_out >= 0)
		close(q->fd_out);
	return ret;
}

/* operations on a region that goes have ended, perhaps */
static void dereg_poll(struct control *c, struct conn *k)
{
	struct request q = { .c = c, .k = k, .fd_out = -1 };

	q.req.type = WEFT_CTL_REGION_DEREG;
	q.req.id = k->dereg;
	node_call(c->node, run_region_dereg, &q);
	if (q.rep.status == -EBUSY)
		return;
	k->dereg = 0;
	conn_read(c, k, true);
	if (answer(k, &q))
		k->closing = true;
}

/* ---- events ---- */

/* one message of a connection that has not hung up. Return: 0, or why it is to be closed */
static int conn_message(struct control *c, struct conn *k)
{
	struct request q = { .fd_in = -1 };
	unsigned nr_fds = 0;
	int ret;

	if (k->kind >= CONN_PEER_WAIT)
		return peer_hear(c, k);
	ret = wfi_ctl_recv(k->fd, &q.req, sizeof(q.req), &q.fd_in, 1, &nr_fds);
	if (ret <= 0)
		return ret ? ret : -ECONNRESET;
	if (!nr_fds)
		q.fd_in = -1;
	if (ret != sizeof(q.req) || q.req.magic != WEFT_CTL_MAGIC) {
		ret = -EPROTO;
	} else if (q.req.version != WEFT_ABI_VERSION) {
		q.fd_out = -1;
		refuse(&q, -EPROTO, "this node speaks version %u, the engine %u: use one release",
		       WEFT_ABI_VERSION, q.req.version);
		answer(k, &q);
		ret = -EPROTO;
	} else if (q.req.type == WEFT_CTL_PEER_HELLO && k->kind == CONN_NEW) {
		ret = peer_accept(c, k);
	} else {
		ret = engine_request(c, k, &q);
	}
	if (q.fd_in >= 0)
		close(q.fd_in);
	return ret;
}

/* nobody is left who could write to its claims, or take completions */
static void process_event(struct control *c, struct conn *k)
{
	if (k->kind != CONN_DEAD_ENGINE) {
		k->closing = true;
		return;
	}
	node_call(c->node, run_gone, k);
	conn_free(c, k);
}

static void conn_event(struct control *c, struct conn *k, uint32_t events)
{
	int ret;

	if (k->stream) {
		net_event(c, k, events);
		return;
	}
	/* read what was said before the hang-up, a BYE above all */
	if (events & EPOLLIN) {
		ret = conn_message(c, k);
		if (!ret || ret == -EAGAIN)
			return;
		if (ret == -EPROTO)
			wfi_warn("process %d broke the control protocol: detached", (int)k->pid);
		k->closing = true;
	}
	if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
		k->closing = true;
}

/* who waits in the backlog would keep the listener ready, and this thread busy, for ever */
static void accept_refused(struct control *c, int listen_fd)
{
	wfi_warn("control: no descriptor is left for another connection: raise LimitNOFILE");
	close(c->spare_fd);
	c->spare_fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (c->spare_fd >= 0)
		close(c->spare_fd);
	c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_accept(struct control *c, int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			accept_refused(c, listen_fd);
		else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			wfi_warn("control: accept: %s", strerror(errno));
		return;
	}
	if (c->stopping)
		close(fd);
	else if (listen_fd != c->listen_fd)
		net_accept(c, fd, listen_fd);
	else
		conn_add(c, fd);
}

static void on_inbox(struct control *c)
{
	int fd;

	if (read(c->inbox[0], &fd, sizeof(fd)) == sizeof(fd))
		conn_add(c, fd);
}

/* the worker says that some session or peer is broken */
static void on_poke(struct control *c)
{
	uint64_t n;
	struct conn *k;

	if (read(c->node->poke_fd, &n, sizeof(n)) < 0)
		return;
	for (k = c->conns; k; k = k->next) {
		if (k->session && k->session->broken) {
			wfi_warn("engine %d is detached: its ring or its memory can't be used",
				 (int)k->pid);
			k->closing = true;
		}
		if (k->peer && k->peer->broken)
			k->closing = true;
	}
}

/* a terminal that closes is a stop like any other, unless the signal has another meaning here */
static void on_signal(struct control *c)
{
	struct signalfd_siginfo info;

	if (read(c->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo != SIGHUP || !nets_reload(c))
		c->stopping = true;
}

static void dispatch(struct control *c, const struct epoll_event *ev)
{
	void *p = ev->data.ptr;

	if (p == &tag_listen)
		on_accept(c, c->listen_fd);
	else if ((int *)p >= c->net_fds && (int *)p < c->net_fds + NODE_NETS_MAX)
		on_accept(c, *(int *)p);
	else if (p == &tag_link)
		node_wake(c->node);
	else if (p == &tag_inbox)
		on_inbox(c);
	else if (p == &tag_poke)
		on_poke(c);
	else if (p == &tag_stop)
		c->stopping = true;
	else if (p == &tag_signal)
		on_signal(c);
	else if ((uintptr_t)p & OF_PROCESS)
		process_event(c, (struct conn *)((char *)p - OF_PROCESS));
	else
		conn_event(c, p, ev->events);
}

/* closes what is marked, asks again for regions. Return: ms until it must be called again */
static int conns_sweep(struct control *c)
{
	int timeout = c->nr_peers || c->nr_net_fds ? REDIAL_MS : -1;
	struct conn *k, *next;

	for (k = c->conns; k; k = next) {
		next = k->next;
		if (k->dereg && !k->closing)
			dereg_poll(c, k);
		if (k->dereg)
			timeout = DEREG_POLL_MS;
		if (k->more && !k->closing)
			net_event(c, k, 0);
		if (k->more)
			timeout = 0;
		if (peer_overdue(c, k))
			k->closing = true;
		if (k->closing || (c->stopping && k->kind != CONN_DEAD_ENGINE))
			conn_close(c, k);
	}
	return timeout;
}

static void run_count(struct node *node, void *arg)
{
	*(unsigned *)arg = node->nr_sessions + node->nr_peers + node->nr_ending;
}

/* each transfer ends by its deadline, so this ends */
static void sessions_wait(struct control *c)
{
	struct timespec ms = { .tv_nsec = 1000000 };
	unsigned nr = 1;

	while (true) {
		node_call(c->node, run_count, &nr);
		if (!nr)
			return;
		nanosleep(&ms, NULL);
	}
}

void control_run(struct control *c)
{
	struct epoll_event evs[EVENTS_PER_WAIT];
	int timeout, nr, i;

	while (!c->stopping) {
		nets_poll(c);
		timeout = conns_sweep(c);
		if (c->node->draining && !c->nr_engines)
			break;
		nr = epoll_wait(c->epfd, evs, EVENTS_PER_WAIT, timeout);
		/* an event frees at most the connection it came for */
		for (i = 0; i < nr; i++)
			dispatch(c, &evs[i]);
	}
	c->stopping = true;
	conns_sweep(c);
	sessions_wait(c);
	node_stop(c->node);
}

/* ---- set-up ---- */

static int listen_on(struct control *c, const char *path)
{
	c->listen_fd = unix_listen(path);
	if (c->listen_fd < 0)
		return c->listen_fd;
	snprintf(c->socket, sizeof(c->socket), "%s", path);
	return epoll_add(c, c->listen_fd, &tag_listen);
}

/* each arrival on an armed queue is told once; the worker asks its queue what it was */
int link_watch(struct control *c, struct node_link *link)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.ptr = &tag_link };
	int fds[LINK_WAITS_MAX];
	unsigned nr = link_wait_fds(link, fds), i;

	for (i = 0; i < nr; i++)
		if (epoll_ctl(c->epfd, EPOLL_CTL_ADD, fds[i], &ev))
			return -errno;
	return 0;
}

static int links_watch(struct control *c)
{
	unsigned i;
	int ret = 0;

	for (i = 0; i < c->node->nr_nets && !ret; i++)
		ret = link_watch(c, &c->node->nets[i]);
	return ret;
}

static int signals_watch(struct control *c)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signal_fd < 0)
		return -errno;
	return epoll_add(c, c->signal_fd, &tag_signal);
}

static int fds_create(struct control *c)
{
	int ret;

	c->epfd = epoll_create1(EPOLL_CLOEXEC);
	c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (c->epfd < 0 || c->stop_fd < 0 || c->spare_fd < 0 || pipe2(c->inbox, O_CLOEXEC))
		return -errno;
	ret = epoll_add(c, c->stop_fd, &tag_stop);
	if (!ret)
		ret = epoll_add(c, c->inbox[0], &tag_inbox);
	if (!ret)
		ret = epoll_add(c, c->node->poke_fd, &tag_poke);
	return ret;
}

int control_create(const struct control_opts *opts, struct control **out)
{
	struct wfi_env *env = opts->node->env;
	struct control *c = wfi_alloc(env, sizeof(*c));
	unsigned i;
	int ret;

	if (!c)
		return -ENOMEM;
	c->node = opts->node;
	c->env = env;
	c->listen_fd = c->signal_fd = c->epfd = c->stop_fd = c->spare_fd = -1;
	c->inbox[0] = c->inbox[1] = -1;
	c->nr_peers = opts->nr_peers;
	c->peers = wfi_alloc(env, (opts->nr_peers + 1) * sizeof(*c->peers));
	c->dials = wfi_alloc(env, (opts->nr_peers + 1) * sizeof(*c->dials));
	c->secure = opts->secure;
	ret = c->peers && c->dials ? fds_create(c) : -ENOMEM;
	if (!ret && opts->socket)
		ret = listen_on(c, opts->socket);
	if (!ret)
		ret = links_watch(c);
	if (!ret)
		ret = nets_listen(c, opts);
	if (!ret && opts->signals)
		ret = signals_watch(c);
	if (ret) {
		control_destroy(c);
		return ret;
	}
	for (i = 0; i < opts->nr_peers; i++)
		c->peers[i] = opts->peers[i];
	*out = c;
	return 0;
}

void control_destroy(struct control *c)
{
	int *fds[] = { &c->listen_fd, &c->signal_fd, &c->epfd,	  &c->stop_fd,
		       &c->spare_fd,  &c->inbox[0],  &c->inbox[1] };
	unsigned i;

	while (c->conns)
		conn_free(c, c->conns);
	for (i = 0; i < WFI_ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(*fds[i]);
	while (c->nr_net_fds)
		close(c->net_fds[--c->nr_net_fds]);
	if (c->socket[0])
		unlink(c->socket);
	if (c->peers)
		wfi_free(c->env, c->peers, (c->nr_peers + 1) * sizeof(*c->peers));
	if (c->dials)
		wfi_free(c->env, c->dials, (c->nr_peers + 1) * sizeof(*c->dials));
	wfi_free(c->env, c, sizeof(*c));
}

void control_stop(struct control *c)
{
	uint64_t one = 1;

	if (write(c->stop_fd, &one, sizeof(one)) < 0)
		wfi_err("control: can't be stopped: %s", strerror(errno));
}

int control_add(struct control *c, int fd)
{
	if (write(c->inbox[1], &fd, sizeof(fd)) != sizeof(fd)) {
		close(fd);
		return -EIO;
	}
	return 0;
}
