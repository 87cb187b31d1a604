/* SPDX-License-Identifier: Apache-2.0 */
/* verbs_agent.c - the other side of `weft-perf verbs`: does what the connections say */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "perf/verbs_rig.h"
#include "weft_internal/xfer.h"

/* ---- Weft's side of the cases ---- */

/* "do @nr" is answered at once, and then done */
static int turns(struct wfi_vrig_side *s, uint32_t op)
{
	uint32_t nr;
	int ret;

	for (;;) {
		ret = wfi_end_hear(s->end.sock, &nr, sizeof(nr));
		if (ret || !nr)
			return ret;
		ret = wfi_end_tell(s->end.sock, &nr, sizeof(nr));
		if (!ret && op == WFI_VRIG_PINGPONG)
			ret = wfi_vrig_pingpong(s, nr, false, NULL);
		if (!ret && op == WFI_VRIG_ECHO)
			ret = wfi_vrig_echo(s, nr, false, NULL);
		if (ret)
			return ret;
	}
}

/* until the socket says something more */
static int gather_serve(struct wfi_vrig_side *s, struct wfi_xfer_engine *eng)
{
	struct weft_wc wcs[16];
	unsigned polls = 0;
	int i, nr, ret;
	char c;

	for (;;) {
		wfi_xfer_poll(eng, wfi_perf_now_ns());
		nr = weft_cq_poll(s->end.recv_cq, wcs, 16);
		for (i = 0; i < nr; i++) {
			ret = wfi_gather_event(s->end.link, &wcs[i]);
			s->end.is_closed |= wcs[i].op == WEFT_WC_CLOSED;
			if (ret < 0 || s->end.is_closed)
				return -ECONNRESET;
		}
		if (++polls % 1024 == 0 && recv(s->end.sock, &c, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
			return 0;
	}
}

static int gather_turns(struct wfi_vrig_side *s)
{
	struct wfi_xfer_engine_opts opts = { .env = &s->end.env };
	struct wfi_xfer_engine *eng;
	struct wfi_gather_name name;
	uint32_t nr = 0;
	int ret = wfi_xfer_engine_create(&opts, &eng);

	if (ret)
		return ret;
	ret = wfi_gather_open(eng, s->end.ep, 0, &s->end.link);
	if (!ret)
		ret = wfi_gather_serve(s->end.link, s->end.mr, NULL, &name);
	if (!ret)
		ret = wfi_end_tell(s->end.sock, &name, sizeof(name));
	while (!ret) {
		ret = wfi_end_hear(s->end.sock, &nr, sizeof(nr));
		if (ret || !nr)
			break;
		ret = wfi_end_tell(s->end.sock, &nr, sizeof(nr));
		if (!ret)
			ret = gather_serve(s, eng);
	}
	wfi_end_ep_close(&s->end);
	wfi_gather_close(s->end.link);
	wfi_xfer_engine_destroy(eng);
	return ret;
}

static int connect_turns(struct wfi_vrig_side *s)
{
	char go;
	int ret;

	for (;;) {
		if (wfi_end_hear(s->end.sock, &go, 1))
			return 0;
		ret = wfi_vrig_meet(s);
		if (!ret)
			ret = wfi_end_hear(s->end.sock, &go, 1);
		wfi_end_ep_close(&s->end);
		if (!ret)
			ret = wfi_end_tell(s->end.sock, &go, 1);
		if (ret)
			return ret;
	}
}

static int weft_session(const struct wfi_vrig_place *place, int sock, uint32_t op)
{
	struct wfi_vrig_side s;
	int ret = wfi_vrig_open(&s, place, sock);

	if (ret)
		return ret;
	if (op != WFI_VRIG_CONNECT)
		ret = wfi_vrig_meet(&s);
	if (!ret && op == WFI_VRIG_CONNECT)
		ret = connect_turns(&s);
	else if (!ret && op == WFI_VRIG_GATHER)
		ret = gather_turns(&s);
	else if (!ret)
		ret = turns(&s, op);
	wfi_vrig_close(&s);
	return ret;
}

/* ---- programs ---- */

static bool listens(unsigned port)
{
	static const char *const tables[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	char line[256];
	unsigned i, at, state;
	bool found = false;
	FILE *f;

	for (i = 0; i < 2 && !found; i++) {
		f = fopen(tables[i], "re");
		while (f && !found && fgets(line, sizeof(line), f))
			found = sscanf(line, " %*u: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x", &at,
				       &state) == 2 &&
				at == port && state == 0x0a;
		if (f)
			fclose(f);
	}
	return found;
}

/* starts it, says when it listens, and waits for its end */
static int spawn(const struct wfi_vrig_order *order, int sock)
{
	int status, ret, null;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		dup2(null, 2);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execl("/bin/sh", "sh", "-c", order->text, (char *)NULL);
		_exit(127);
	}
	while (!listens(order->port) && waitpid(pid, &status, WNOHANG) == 0)
		wfi_perf_sleep_ns(2000000);
	ret = wfi_end_tell(sock, "", 1);
	/* it ends when its client does; one whose client failed is ended here */
	if (!ret)
		wfi_end_hear(sock, &status, 1);
	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	return ret;
}

/* ---- connections ---- */

static int session(const struct wfi_vrig_place *place, int sock, const struct wfi_vrig_order *order)
{
	switch (order->op) {
	case WFI_VRIG_RDMACM:
		return wfi_peer_rdmacm_serve(place, sock);
	case WFI_VRIG_UCX:
		return wfi_peer_ucx_serve(place, sock);
	case WFI_VRIG_SPAWN:
		return spawn(order, sock);
	default:
		return weft_session(place, sock, order->op);
	}
}

static int listen_at(const struct wfi_vrig_place *place)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(WFI_VRIG_PORT) };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || inet_pton(AF_INET, place->addr, &at.sin_addr) != 1 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 16))
		return wfi_perf_fail(-errno, "can't listen on %s port %u: %s", place->addr,
				     WFI_VRIG_PORT, strerror(errno));
	return fd;
}

static int serve_on(const struct wfi_vrig_place *place, int fd)
{
	struct wfi_vrig_order order;
	int sock, one = 1;
	pid_t pid;

	for (;;) {
		sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0)
			return -errno;
		setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (wfi_end_hear(sock, &order, sizeof(order)))
			order.op = WFI_VRIG_LOOK;
		order.text[sizeof(order.text) - 1] = '\0';
		if (order.op == WFI_VRIG_QUIT)
			return 0;
		pid = fork();
		if (!pid) {
			signal(SIGCHLD, SIG_DFL);
			_exit(session(place, sock, &order) < 0);
		}
		close(sock);
	}
}

int wfi_vrig_serve(const struct wfi_vrig_place *place)
{
	int fd = listen_at(place), ret;

	if (fd < 0)
		return fd;
	signal(SIGCHLD, SIG_IGN);
	ret = serve_on(place, fd);
	close(fd);
	return ret;
}

int wfi_vrig_fork(const struct wfi_vrig_place *place)
{
	int fd = listen_at(place);
	pid_t pid;

	if (fd < 0)
		return fd;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		signal(SIGCHLD, SIG_IGN);
		if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
			wfi_perf_pin(WFI_PERF_NODE_CPU);
		_exit(serve_on(place, fd) < 0);
	}
	close(fd);
	return pid < 0 ? wfi_perf_fail(-errno, "no agent: %s", strerror(errno)) : 0;
}
