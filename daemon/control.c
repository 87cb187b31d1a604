/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - sockets and deaths; what concerns the worker goes through node_call() */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control_private.h"
#include "listen.h"
#include "weft_internal/accept.h"
#include "weft_internal/log.h"

#define HAND_ON_MS 10 /* from one look at whether others have this node's blocks to the next */
#define STOP_MAX_NS (10 * WFI_NSEC_PER_SEC)
#define CONNS_MAX 1024u
#define EVENTS_PER_WAIT 16
#define DIAL_NS (500 * WFI_NSEC_PER_MSEC) /* to a host that does not answer */
#define HELLO_NS (5 * WFI_NSEC_PER_SEC)
#define REFUSED_NS (1 * WFI_NSEC_PER_SEC) /* for who was told why */
#define STRANGERS_MAX 64u /* of this host, and as many of others */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* in what epoll's data points to: the end of the connection's process, not its socket */
#define OF_PROCESS 1u

/* what it points to when it is not a connection */
static char tag_listen, tag_news, tag_stop, tag_signal, tag_inbox, tag_poke, tag_guest;

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
	k->since_ns = wfi_now(c->env);
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

/* ---- strangers ---- */

/* who has not said who it is, or was refused for it: it holds a place for a while only */
static bool is_stranger(const struct conn *k)
{
	return k->kind == CONN_NEW || k->kind == CONN_PEER_WAIT || k->kind == CONN_REFUSED;
}

/* Return: it takes too long */
static bool stranger_overdue(const struct control *c, const struct conn *k)
{
	const uint64_t age_ns = wfi_now(c->env) - k->since_ns;

	if (k->kind == CONN_REFUSED)
		return age_ns > REFUSED_NS;
	return age_ns > HELLO_NS || (k->stream && !k->stream->connected && age_ns > DIAL_NS);
}

void strangers_bound(struct control *c, bool net)
{
	struct conn *k, *oldest = NULL;
	unsigned nr = 0;

	for (k = c->conns; k; k = k->next) {
		if (!is_stranger(k) || !k->stream == net || k->dial || k->closing)
			continue;
		if (!oldest || k->since_ns < oldest->since_ns)
			oldest = k;
		nr++;
	}
	if (nr < STRANGERS_MAX)
		return;
	wfi_warn("%u connections have not said who they are: the oldest is hung up on", nr);
	oldest->closing = true;
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
void process_watch(struct control *c, struct conn *k)
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
	k->dereg = k->removes = k->closes = 0;
}

/* ---- events ---- */

/* one message of a connection that has not hung up. Return: 0, or why it is to be closed */
static int conn_message(struct control *c, struct conn *k)
{
	return k->kind >= CONN_PEER_WAIT ? peer_hear(c, k) : engine_hear(c, k);
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

static void local_accept(struct control *c, int fd)
{
	strangers_bound(c, false);
	conn_add(c, fd);
}

static void on_accept(struct control *c, int listen_fd)
{
	int fd = wfi_accept(listen_fd, SOCK_CLOEXEC, &c->spare_fd);

	if (fd == -EMFILE || fd == -ENFILE)
		wfi_warn(
			"control: no descriptor is left for another connection: raise LimitNOFILE");
	else if (fd < 0 && fd != -EAGAIN && fd != -ECONNABORTED && fd != -EINTR)
		wfi_warn("control: accept: %s", strerror(-fd));
	if (fd < 0)
		return;
	if (c->stopping)
		close(fd);
	else if (listen_fd != c->listen_fd)
		net_accept(c, fd, listen_fd);
	else
		local_accept(c, fd);
}

static void on_inbox(struct control *c)
{
	int fd;

	if (read(c->inbox[0], &fd, sizeof(fd)) == sizeof(fd))
		conn_add(c, fd);
}

/* the worker says that some session or peer is broken, or that a GPU's tier has got smaller */
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
	gpu_tiers_trim(c->node);
}

/* a terminal that closes is a stop like any other, but not to who renews certificates */
static bool is_stop(struct control *c, uint32_t signo)
{
	if (signo != SIGHUP)
		return true;
	if (nets_reload(c))
		return false;
	if (c->certificates)
		wfi_warn(
			"SIGHUP: no certificates are read: transport is \"none\", and nothing uses "
			"them");
	return !c->certificates;
}

static void on_signal(struct control *c)
{
	struct signalfd_siginfo info;

	if (read(c->signal_fd, &info, sizeof(info)) == sizeof(info) && is_stop(c, info.ssi_signo))
		c->stopping = true;
}

static void dispatch(struct control *c, const struct epoll_event *ev)
{
	void *p = ev->data.ptr;

	if (p == &tag_listen)
		on_accept(c, c->listen_fd);
	else if ((int *)p >= c->net_fds && (int *)p < c->net_fds + NODE_NETS_MAX)
		on_accept(c, *(int *)p);
	else if (p == &tag_news)
		node_news(c->node);
	else if (p == &tag_inbox)
		on_inbox(c);
	else if (p == &tag_poke)
		on_poke(c);
	else if (p == &tag_stop)
		c->stopping = true;
	else if (p == &tag_guest)
		; /* it runs in each turn */
	else if (p == &tag_signal)
		on_signal(c);
	else if ((uintptr_t)p & OF_PROCESS)
		process_event(c, (struct conn *)((char *)p - OF_PROCESS));
	else
		conn_event(c, p, ev->events);
}

/* closes what is marked, asks again for what is waited for. Return: ms until it must be called
 * again */
static int conns_sweep(struct control *c)
{
	int timeout = c->nr_peers || c->nr_net_fds ? REDIAL_MS : -1;
	struct conn *k, *next;

	for (k = c->conns; k; k = next) {
		next = k->next;
		if (engine_waits(k) && !k->closing)
			engine_poll(c, k);
		if (engine_waits(k))
			timeout = ENGINE_POLL_MS;
		if (k->more && !k->closing)
			net_event(c, k, 0);
		if (k->more)
			timeout = 0;
		if (is_stranger(k)) {
			k->closing |= stranger_overdue(c, k);
			timeout = timeout < 0 ? REDIAL_MS : timeout;
		}
		if (k->closing || (c->stopping && k->kind != CONN_DEAD_ENGINE))
			conn_close(c, k);
	}
	return timeout;
}

static void run_stop(struct node *node, void *arg)
{
	(void)arg;
	wfi_kv_stop(node->kv);
}

static void run_count(struct node *node, void *arg)
{
	*(unsigned *)arg = node->nr_sessions + node->nr_peers + node->nr_ending;
}

/* each transfer ends by its deadline, but for copies of a GPU that hangs */
static void sessions_wait(struct control *c)
{
	const uint64_t end_ns = wfi_now(c->env) + STOP_MAX_NS;
	struct timespec ms = { .tv_nsec = 1000000 };
	unsigned nr = 1;

	while (true) {
		node_call(c->node, run_count, &nr);
		if (!nr)
			return;
		if (wfi_now(c->env) > end_ns)
			break;
		nanosleep(&ms, NULL);
	}
	c->stuck = true;
	wfi_err("control: copies to or from %u engines or peers do not end: the node goes without. "
		"If a GPU hangs, see the kernel's log for Xid",
		nr);
}

bool control_is_stuck(const struct control *c)
{
	return c->stuck;
}

static void run_drain(struct node *node, void *arg)
{
	*(bool *)arg = wfi_cluster_drain(node->cluster, wfi_now(node->env));
}

/* Return: what this node has of use to others is theirs. The last engine is gone */
static bool handed_on(struct control *c)
{
	bool done = false;

	node_call(c->node, run_drain, &done);
	return done;
}

struct status_call {
	json_t *dials, *network;
	char *text;
};

static void run_status(struct node *node, void *arg)
{
	struct status_call *call = arg;

	call->text = node_status_json(node, NULL, call->dials, call->network);
}

char *control_status_json(struct control *c)
{
	struct status_call call = { .dials = peer_dials_json(c), .network = net_json(c) };

	node_call(c->node, run_status, &call);
	return call.text;
}

/* Return: ms until the next turn at the latest, -1: no limit */
static int guest_run(struct control *c, int timeout)
{
	const int ms = c->guest ? c->guest->run(c->guest->ctx, c) : -1;

	return ms >= 0 && (timeout < 0 || ms < timeout) ? ms : timeout;
}

void control_run(struct control *c)
{
	struct epoll_event evs[EVENTS_PER_WAIT];
	int timeout, nr, i;

	while (!c->stopping) {
		nets_poll(c);
		timeout = conns_sweep(c);
		if (c->node->draining && !c->nr_engines) {
			if (handed_on(c))
				break;
			timeout = HAND_ON_MS;
		}
		timeout = guest_run(c, timeout);
		nr = epoll_wait(c->epfd, evs, EVENTS_PER_WAIT, timeout);
		/* an event frees at most the connection it came for */
		for (i = 0; i < nr; i++)
			dispatch(c, &evs[i]);
	}
	c->stopping = true;
	if (c->guest)
		c->guest->stop(c->guest->ctx);
	node_call(c->node, run_stop, NULL);
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
	c->spare_fd = wfi_accept_spare();
	if (c->epfd < 0 || c->stop_fd < 0 || c->spare_fd < 0 || pipe2(c->inbox, O_CLOEXEC))
		return -errno;
	ret = epoll_add(c, c->stop_fd, &tag_stop);
	if (!ret)
		ret = epoll_add(c, c->inbox[0], &tag_inbox);
	if (!ret)
		ret = epoll_add(c, c->node->poke_fd, &tag_poke);
	if (!ret)
		ret = epoll_add(c, c->node->news_fd, &tag_news);
	return ret;
}

int control_create(const struct control_opts *opts, struct control **out)
{
	struct wfi_env *env = opts->node->env;
	struct control *c = wfi_alloc(env, sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	c->node = opts->node;
	c->env = env;
	c->listen_fd = c->signal_fd = c->epfd = c->stop_fd = c->spare_fd = -1;
	c->inbox[0] = c->inbox[1] = -1;
	c->secure = opts->secure;
	c->certificates = opts->certificates;
	c->guest = opts->guest;
	ret = fds_create(c);
	if (!ret && opts->socket)
		ret = listen_on(c, opts->socket);
	if (!ret)
		ret = nets_listen(c, opts);
	if (!ret && opts->signals)
		ret = signals_watch(c);
	if (!ret && opts->guest)
		ret = epoll_add(c, opts->guest->fd, &tag_guest);
	if (!ret)
		ret = peers_init(c, opts);
	if (ret) {
		control_destroy(c);
		return ret;
	}
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
	peers_fini(c);
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
