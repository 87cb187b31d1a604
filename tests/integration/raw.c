/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/integration/node.h"
#include "tests/integration/raw.h"

#define ANSWER_MS 10000

/* ---- the socket ---- */

void raw_connect(struct raw *r, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	memset(r, 0, sizeof(*r));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	r->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	test_must(r->fd >= 0);
	test_must(!connect(r->fd, (struct sockaddr *)&addr, sizeof(addr)));
}

static void raw_hang_up(struct raw *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
}

bool raw_send(struct raw *r, const struct raw_msg *m)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(RAW_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)m->buf, .iov_len = m->len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (m->nr_fds) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(m->nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(m->nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), m->fds, m->nr_fds * sizeof(int));
	}
	return r->fd >= 0 && sendmsg(r->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

size_t raw_recv(struct raw *r, void *buf, size_t len, int fds[RAW_FDS_MAX], unsigned *nr_fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(RAW_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	struct pollfd pfd = { .fd = r->fd, .events = POLLIN };
	struct cmsghdr *c;
	ssize_t got;

	*nr_fds = 0;
	if (r->fd < 0)
		return 0;
	test_must(poll(&pfd, 1, ANSWER_MS) == 1);
	got = recvmsg(r->fd, &msg, MSG_CMSG_CLOEXEC);
	if (got <= 0) {
		raw_hang_up(r);
		return 0;
	}
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS) {
		*nr_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *nr_fds * sizeof(int));
	}
	return (size_t)got;
}

int raw_request(struct raw *r, struct weft_ctl_req *req, int fd, struct weft_ctl_rep *rep,
		int *fd_out)
{
	struct raw_msg m = { .buf = req, .len = sizeof(*req), .fds = { fd }, .nr_fds = fd >= 0 };
	int fds[RAW_FDS_MAX], keep = -1;
	unsigned nr, i;

	req->magic = WEFT_CTL_MAGIC;
	req->version = WEFT_ABI_VERSION;
	if (!raw_send(r, &m) || raw_recv(r, rep, sizeof(*rep), fds, &nr) != sizeof(*rep))
		return -ECONNRESET;
	test_must(rep->magic == WEFT_CTL_MAGIC && rep->type == req->type);
	test_must(rep->nr_fds == nr && nr <= 1);
	test_must(memchr(rep->why, 0, sizeof(rep->why)));
	for (i = 0; i < nr; i++) {
		if (fd_out && rep->status == 0)
			keep = fds[i];
		else
			close(fds[i]);
	}
	if (fd_out)
		*fd_out = keep;
	return rep->status;
}

void raw_close(struct raw *r)
{
	raw_hang_up(r);
	if (r->seg)
		munmap(r->seg, r->hdr.len);
	r->seg = NULL;
}

/* ---- a session ---- */

static void raw_hello(struct raw *r, const char *token)
{
	struct weft_ctl_req req = { .type = WEFT_CTL_HELLO };
	struct weft_ctl_rep rep;
	int arena;

	snprintf(req.u.hello.token, sizeof(req.u.hello.token), "%s", token);
	snprintf(req.u.hello.name, sizeof(req.u.hello.name), "raw");
	test_must(raw_request(r, &req, -1, &rep, &arena) == 0);
	test_must(arena >= 0);
	close(arena);
	r->arena_bytes = rep.len;
}

int raw_ring_open(struct raw *r, uint32_t depth, uint32_t arg_bytes)
{
	struct weft_ctl_req req = { .type = WEFT_CTL_RING_OPEN };
	struct weft_ctl_rep rep;
	int fd = -1, ret;

	req.u.ring.sq_depth = depth;
	req.u.ring.arg_bytes = arg_bytes;
	ret = raw_request(r, &req, -1, &rep, &fd);
	if (ret)
		return ret;
	r->seg = mmap(NULL, rep.len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	test_must(r->seg != MAP_FAILED);
	close(fd);
	memcpy(&r->hdr, r->seg, sizeof(r->hdr));
	test_must(r->hdr.magic == WEFT_RING_MAGIC && r->hdr.len == rep.len);
	r->ring = rep.id;
	return 0;
}

void raw_attach(struct raw *r, const char *socket, const char *token)
{
	struct weft_ctl_req req = { .type = WEFT_CTL_SPACE_OPEN };
	struct weft_ctl_rep rep;

	raw_connect(r, socket);
	raw_hello(r, token);
	req.u.space.block_bytes = 4096;
	req.u.space.tokens_per_block = 16;
	req.u.space.nr_layers = 4;
	snprintf(req.u.space.model, sizeof(req.u.space.model), "raw");
	test_must(raw_request(r, &req, -1, &rep, NULL) == 0);
	r->space = rep.id;
	test_must(raw_ring_open(r, 64, 1 << 20) == 0);
}

/* ---- the ring ---- */

void raw_store(void *to, const void *from, size_t len)
{
	uint64_t *word = to, value;
	size_t i;

	for (i = 0; i < len / sizeof(value); i++) {
		memcpy(&value, (const char *)from + i * sizeof(value), sizeof(value));
		__atomic_store_n(&word[i], value, __ATOMIC_RELAXED);
	}
}

bool raw_submit(struct raw *r, const struct weft_sqe *sqe)
{
	const struct weft_ring_line *node =
		(const struct weft_ring_line *)(r->seg + WEFT_RING_NODE_OFF);
	uint64_t *to = (uint64_t *)(r->seg + r->hdr.sq_off) +
		       (size_t)(r->sq_pos & (r->hdr.sq_depth - 1)) * 8;
	struct weft_sqe copy = *sqe;
	uint64_t first;

	/* pairs with the node's release of its head */
	if (r->sq_pos - __atomic_load_n(&node->head, __ATOMIC_ACQUIRE) >= r->hdr.sq_depth)
		return false;
	copy.seq = r->sq_pos + 1;
	raw_store(to + 1, (const char *)&copy + 8, sizeof(copy) - 8);
	memcpy(&first, &copy, sizeof(first));
	/* pairs with the node's acquire of .seq */
	__atomic_store_n(to, first, __ATOMIC_RELEASE);
	r->sq_pos++;
	return true;
}

bool raw_take(struct raw *r, struct weft_cqe *cqe)
{
	const uint64_t *from = (const uint64_t *)(r->seg + r->hdr.cq_off) +
			       (size_t)(r->cq_pos & (r->hdr.cq_depth - 1)) * 4;
	uint64_t words[4];
	unsigned i;

	/* pairs with the node's release of .seq */
	words[0] = __atomic_load_n(from, __ATOMIC_ACQUIRE);
	if ((uint32_t)words[0] != r->cq_pos + 1)
		return false;
	for (i = 1; i < 4; i++)
		words[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
	memcpy(cqe, words, sizeof(*cqe));
	r->cq_pos++;
	/* pairs with the node's acquire of our head */
	__atomic_store_n(&raw_line(r)->head, r->cq_pos, __ATOMIC_RELEASE);
	return true;
}

void raw_ring_bell(struct raw *r)
{
	__atomic_fetch_add(&raw_line(r)->bell, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &raw_line(r)->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool raw_next(struct raw *r, struct weft_cqe *cqe)
{
	const uint64_t end_ms = test_now_ms() + ANSWER_MS;
	struct pollfd pfd = { .fd = r->fd, .events = POLLIN };

	while (!raw_take(r, cqe)) {
		test_must(test_now_ms() < end_ms);
		if (poll(&pfd, 1, 0) == 1)
			return false;
		sched_yield();
	}
	return true;
}
