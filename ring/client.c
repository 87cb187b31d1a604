/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - the session: attach, control messages, the node's end, attach again */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "ring/client_priv.h"
#include "weft_internal/ctl.h"

int wfi_client_gone(void)
{
	return wfi_client_fail(-ECONNRESET,
			       "the node is gone, or detached this engine (see its log): call "
			       "weft_reattach()");
}

/* ---- what a child made by fork() does not get ---- */

bool wfi_client_ours(const struct weft *w)
{
	return w->pid == getpid();
}

void wfi_client_keep(void *addr, uint64_t len)
{
	madvise(addr, (size_t)len, MADV_DONTFORK);
}

void wfi_client_unmap(const struct weft *w, void *addr, uint64_t len)
{
	if (addr && wfi_client_ours(w))
		munmap(addr, (size_t)len);
}

/* ---- the socket ---- */

static void session_end(struct weft *w)
{
	__atomic_store_n(&w->attached, 0, __ATOMIC_RELEASE);
}

/* out of step: neither side can go on with this socket */
static void session_abort(struct weft *w)
{
	session_end(w);
	shutdown(w->fd, SHUT_RDWR);
}

bool wfi_client_check(struct weft *w)
{
	struct pollfd pfd = { .fd = w->fd, .events = POLLRDHUP };

	if (!wfi_client_alive(w))
		return false;
	if (poll(&pfd, 1, 0) > 0 && pfd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL))
		session_end(w);
	return wfi_client_alive(w);
}

uint64_t wfi_client_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Return: 0 the socket is ready, -ETIMEDOUT, other -errno */
static int await(const struct weft *w, short events, uint64_t end_ms)
{
	struct pollfd pfd = { .fd = w->fd, .events = events };
	int ret;

	do {
		uint64_t now = wfi_client_now_ms();

		ret = poll(&pfd, 1, now < end_ms ? (int)(end_ms - now) : 0);
	} while (ret < 0 && errno == EINTR);
	if (ret > 0)
		return 0;
	return ret ? -errno : -ETIMEDOUT;
}

/* a node that reads nothing has no room at last. Return: 0, -ETIMEDOUT, other -errno */
static int send_request(const struct weft *w, const struct wfi_ctl_call *call, uint64_t end_ms)
{
	int fds[2], ret;
	unsigned nr = 0;

	if (call->fd_in >= 0)
		fds[nr++] = call->fd_in;
	if (call->req.type == WEFT_CTL_REGION_REG && call->req.u.region.has_dmabuf)
		fds[nr++] = call->dmabuf;
	while ((ret = wfi_ctl_send(w->fd, &call->req, sizeof(call->req), fds, nr)) == -EAGAIN) {
		ret = await(w, POLLOUT, end_ms);
		if (ret)
			break;
	}
	return ret;
}

static int recv_answer(const struct weft *w, struct weft_ctl_rep *rep, int *fd_out, uint64_t end_ms)
{
	unsigned nr_fds;
	int fd = -1;
	int ret = await(w, POLLIN, end_ms);

	if (ret)
		return ret;
	ret = wfi_ctl_recv(w->fd, rep, sizeof(*rep), &fd, 1, &nr_fds);
	if (ret < 0)
		return ret;
	*fd_out = nr_fds ? fd : -1;
	return ret == sizeof(*rep) && rep->magic == WEFT_CTL_MAGIC && rep->status <= 0 ? 0
										       : -EPROTO;
}

/* the answer to @call, past those that an earlier call gave up on */
static int wait_answer(struct weft *w, struct wfi_ctl_call *call, uint64_t end_ms)
{
	for (;;) {
		int ret = recv_answer(w, &call->rep, &call->fd_out, end_ms);

		w->stale += ret == -ETIMEDOUT;
		if (ret < 0)
			return ret;
		if (!w->stale)
			return call->rep.type == call->req.type ? 0 : -EPROTO;
		w->stale--;
		if (call->fd_out >= 0)
			close(call->fd_out);
		call->fd_out = -1;
	}
}

static int session_failed(struct weft *w, int ret)
{
	w->silent = ret == -ETIMEDOUT;
	if (w->silent)
		return wfi_client_fail(ret,
				       "the node does not answer: is it stopped, or overloaded?");
	session_abort(w);
	if (ret == -EPROTO)
		return wfi_client_fail(ret,
				       "the node's answer makes no sense: use libweft and weftd "
				       "of one release");
	return wfi_client_gone();
}

int wfi_client_ctl(struct weft *w, struct wfi_ctl_call *call, int timeout_ms)
{
	const uint64_t end_ms = wfi_client_now_ms() + (uint64_t)timeout_ms;
	int ret;

	call->fd_out = -1;
	if (!wfi_client_ours(w))
		session_end(w); /* the child's view of it: not a word to the node */
	if (!wfi_client_alive(w))
		return wfi_client_gone();
	call->req.magic = WEFT_CTL_MAGIC;
	call->req.version = WEFT_ABI_VERSION;
	ret = send_request(w, call, end_ms);
	if (!ret)
		ret = wait_answer(w, call, end_ms);
	if (ret < 0)
		goto err_close;
	w->silent = false;
	if (call->rep.status < 0) {
		call->rep.why[sizeof(call->rep.why) - 1] = 0;
		wfi_client_why("%s",
			       call->rep.why[0] ? call->rep.why : strerror(-call->rep.status));
		if (call->fd_out >= 0)
			close(call->fd_out);
		call->fd_out = -1;
		return call->rep.status;
	}
	if (call->wants_fd != (call->fd_out >= 0)) {
		ret = -EPROTO;
		goto err_close;
	}
	return 0;

err_close:
	if (call->fd_out >= 0)
		close(call->fd_out);
	call->fd_out = -1;
	return session_failed(w, ret);
}

int wfi_client_ctl_locked(struct weft *w, struct wfi_ctl_call *call, int timeout_ms)
{
	int ret;

	pthread_mutex_lock(&w->lock);
	ret = wfi_client_ctl(w, call, timeout_ms);
	pthread_mutex_unlock(&w->lock);
	return ret;
}

/* ---- attach ---- */

static int map_arena(int fd, uint64_t len, void **out)
{
	struct stat st;
	void *addr;

	if (!len || len > SIZE_MAX || fstat(fd, &st) || (uint64_t)st.st_size < len)
		return wfi_client_fail(-EPROTO, "the node's arena is shorter than it says");
	addr = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED) {
		int ret = -errno;

		wfi_client_why("the arena of %llu bytes can't be mapped: %s (ulimit -v?)",
			       (unsigned long long)len, strerror(-ret));
		return ret;
	}
	wfi_client_keep(addr, len);
	*out = addr;
	return 0;
}

static void read_credentials(struct weft *w)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	w->node_pid = getsockopt(w->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ? 0 : cred.pid;
}

/* a socket, HELLO, and the arena in @arena; on failure the session is over */
static int session_begin(struct weft *w, void **arena, uint64_t *arena_bytes)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_HELLO, .fd_in = -1, .wants_fd = true };
	int ret = w->connector->connect(w->connector);

	if (ret < 0)
		return ret;
	w->fd = ret;
	w->stale = 0;
	read_credentials(w);
	__atomic_store_n(&w->attached, 1, __ATOMIC_RELEASE);
	memcpy(call.req.u.hello.token, w->token, sizeof(w->token));
	memcpy(call.req.u.hello.name, w->name, sizeof(w->name));
	ret = wfi_client_ctl(w, &call, WFI_CTL_TIMEOUT_MS);
	if (ret == -ECONNRESET)
		ret = wfi_client_fail(-ENOENT, "the node hung up while attaching: is it stopping, "
					       "or of an older release than libweft?");
	if (ret < 0)
		goto err_end;
	ret = map_arena(call.fd_out, call.rep.len, arena);
	close(call.fd_out);
	if (ret < 0)
		goto err_end;
	*arena_bytes = call.rep.len;
	w->incarnation = call.rep.incarnation;
	return 0;

err_end:
	session_end(w);
	close(w->fd);
	w->fd = -1;
	return ret;
}

static int copy_names(struct weft *w, const struct weft_opts *opts)
{
	const char *token = opts->token ? opts->token : getenv("WEFT_TOKEN");
	const char *name = opts->name ? opts->name : program_invocation_short_name;

	if (token && strlen(token) > sizeof(w->token)) {
		wfi_client_why("a token has at most %d bytes", WEFT_TOKEN_MAX);
		return -EINVAL;
	}
	if (token)
		memcpy(w->token, token, strlen(token));
	snprintf(w->name, sizeof(w->name), "%s", name);
	return 0;
}

int wfi_client_attach(const struct weft_opts *in, struct wfi_connector *c, struct weft **out)
{
	struct weft_opts opts = { .size = sizeof(opts) };
	struct weft *w = NULL;
	int ret = 0;

	if (in)
		ret = wfi_client_opts(&opts, sizeof(opts), in, WFI_OPTS_LEAST, "struct weft_opts");
	if (ret < 0)
		goto err_free;
	w = calloc(1, sizeof(*w));
	if (!w) {
		ret = wfi_client_fail(-ENOMEM, "no memory for a session");
		goto err_free;
	}
	w->fd = -1;
	w->connector = c;
	w->pid = getpid();
	ret = copy_names(w, &opts);
	if (ret < 0)
		goto err_free;
	ret = session_begin(w, &w->arena, &w->arena_bytes);
	if (ret < 0)
		goto err_free;
	pthread_mutex_init(&w->lock, NULL);
	*out = w;
	return 0;

err_free:
	free(w);
	c->destroy(c);
	return ret;
}

/* a node that has not answered is not waited for again with each ring and region */
static void hang_up_if_silent(struct weft *w)
{
	if (w->silent && wfi_client_alive(w))
		session_abort(w);
}

void weft_close(struct weft *w)
{
	struct wfi_ctl_call bye = { .req.type = WEFT_CTL_BYE, .fd_in = -1 };

	if (!w)
		return;
	/* another thread of the parent's may have held it at the fork */
	if (!wfi_client_ours(w))
		pthread_mutex_init(&w->lock, NULL);
	while (w->rings) {
		weft_ring_close(w->rings);
		hang_up_if_silent(w);
	}
	while (w->regions) {
		struct region *region = w->regions;

		/* one that can't be taken back now goes with the session */
		if (weft_region_dereg(w, region->number) < 0)
			wfi_region_forget(w, region);
		hang_up_if_silent(w);
	}
	if (w->watch)
		wfi_watch_stop(w);
	while (w->spaces)
		weft_space_close(w->spaces);
	wfi_client_unmap(w, w->arena, w->arena_bytes);
	wfi_client_unmap(w, w->old_arena, w->old_arena_bytes);
	wfi_client_ctl_locked(w, &bye, WFI_CTL_TIMEOUT_MS);
	if (w->fd >= 0)
		close(w->fd);
	w->connector->destroy(w->connector);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* ---- the node's next life ---- */

static int reopen_all(struct weft *w)
{
	struct weft_space *space;
	struct weft_ring *ring;
	struct region *region;
	int ret = 0;

	for (space = w->spaces; space && !ret; space = space->next)
		ret = wfi_space_reopen(space);
	for (region = w->regions; region && !ret; region = region->next)
		ret = wfi_region_reopen(w, region);
	for (ring = w->rings; ring && !ret; ring = ring->next)
		ret = wfi_ring_reopen(ring);
	return ret;
}

static int reattach(struct weft *w)
{
	struct weft_ring *ring;
	uint64_t arena_bytes;
	void *arena;
	int ret;

	if (wfi_client_check(w))
		return 0;
	for (ring = w->rings; ring; ring = ring->next)
		wfi_ring_lose(ring);
	if (w->watch)
		wfi_watch_socket(w, -1);
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	ret = session_begin(w, &arena, &arena_bytes);
	if (ret < 0)
		return ret;
	ret = reopen_all(w);
	if (ret < 0)
		goto err_end;
	if (w->watch)
		wfi_watch_socket(w, w->fd);
	wfi_client_unmap(w, w->old_arena, w->old_arena_bytes);
	w->old_arena = w->arena;
	w->old_arena_bytes = w->arena_bytes;
	w->arena_bytes = arena_bytes;
	__atomic_store_n(&w->arena, arena, __ATOMIC_RELEASE);
	return 0;

err_end:
	wfi_client_unmap(w, arena, arena_bytes);
	session_end(w);
	close(w->fd);
	w->fd = -1;
	return ret;
}

int weft_reattach(struct weft *w)
{
	int ret;

	if (!wfi_client_ours(w))
		return wfi_client_fail(-EINVAL, "a child made by fork() has no session: call "
						"weft_open()");
	pthread_mutex_lock(&w->lock);
	ret = reattach(w);
	pthread_mutex_unlock(&w->lock);
	return ret;
}

int weft_attached(const struct weft *w)
{
	return __atomic_load_n(&w->attached, __ATOMIC_ACQUIRE) != 0;
}

void *weft_arena(const struct weft *w)
{
	return __atomic_load_n(&w->arena, __ATOMIC_ACQUIRE);
}

uint64_t weft_arena_bytes(const struct weft *w)
{
	return w->arena_bytes;
}

/* ---- watching a node ---- */

static int read_text(int fd, uint64_t len, char **out)
{
	struct stat st;
	uint64_t done = 0;
	char *text;

	if (fstat(fd, &st) || (uint64_t)st.st_size < len)
		return wfi_client_fail(-EPROTO, "the node's text is shorter than it says");
	text = malloc((size_t)len + 1);
	if (!text)
		return wfi_client_fail(-ENOMEM, "no memory for the node's text");
	while (done < len) {
		ssize_t ret = pread(fd, text + done, (size_t)(len - done), (off_t)done);

		if (ret <= 0) {
			free(text);
			return wfi_client_fail(-EIO, "the node's text can't be read");
		}
		done += (uint64_t)ret;
	}
	text[len] = 0;
	*out = text;
	return 0;
}

static int call_text(struct weft *w, struct wfi_ctl_call *call, char **out)
{
	int ret = wfi_client_ctl_locked(w, call, WFI_CTL_TIMEOUT_MS);

	if (ret < 0)
		return ret;
	ret = read_text(call->fd_out, call->rep.len, out);
	close(call->fd_out);
	return ret;
}

static int get_text(struct weft *w, uint32_t type, char **out)
{
	struct wfi_ctl_call call = { .req.type = type, .fd_in = -1, .wants_fd = true };

	return call_text(w, &call, out);
}

int weft_status_json(struct weft *w, char **out)
{
	return get_text(w, WEFT_CTL_STATUS, out);
}

int weft_ls_json(struct weft *w, char **out)
{
	return get_text(w, WEFT_CTL_LS, out);
}

int weft_stat_json(struct weft *w, char **out)
{
	return get_text(w, WEFT_CTL_STAT, out);
}

int weft_blocks_json(struct weft *w, uint32_t space_id, uint64_t from, char **out)
{
	struct wfi_ctl_call call = {
		.req.type = WEFT_CTL_BLOCKS,
		.req.id = space_id,
		.req.u.blocks.from = from,
		.fd_in = -1,
		.wants_fd = true,
	};

	return call_text(w, &call, out);
}

int weft_metrics_fd(struct weft *w)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_METRICS, .fd_in = -1, .wants_fd = true };
	int ret = wfi_client_ctl_locked(w, &call, WFI_CTL_TIMEOUT_MS);

	return ret < 0 ? ret : call.fd_out;
}

int weft_drain(struct weft *w)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_DRAIN, .fd_in = -1 };

	return wfi_client_ctl_locked(w, &call, WFI_CTL_TIMEOUT_MS);
}

int weft_space_remove(struct weft *w, uint32_t space_id)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_SPACE_REMOVE,
				     .req.id = space_id,
				     .fd_in = -1 };

	return wfi_client_ctl_locked(w, &call, WFI_CTL_REMOVE_MS);
}

static int tier_resize(struct weft *w, uint32_t type, uint64_t bytes, int timeout_ms)
{
	struct wfi_ctl_call call = { .req.type = type, .req.u.tier.bytes = bytes, .fd_in = -1 };

	return wfi_client_ctl_locked(w, &call, timeout_ms);
}

int weft_tier_resize(struct weft *w, uint64_t bytes)
{
	return tier_resize(w, WEFT_CTL_TIER_RESIZE, bytes, WFI_CTL_TIMEOUT_MS);
}

int weft_gpu_tier_resize(struct weft *w, uint64_t bytes)
{
	return tier_resize(w, WEFT_CTL_GPU_TIER_RESIZE, bytes, WFI_CTL_DRIVER_MS);
}

const char *weft_version(void)
{
	return WEFT_VERSION;
}
