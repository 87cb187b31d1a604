/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "conf.h"

#define POLLS_MAX 20000000u
#define MEET_TURNS 2000u

static void side_ep(struct side *s)
{
	struct weft_ep_opts ep = { .size = sizeof(ep), .depth = s->depth };

	ep.send_cq = s->send_cq;
	ep.recv_cq = s->recv_cq;
	ep.ctx = s;
	assert_int_equal(s->t->ep_create(s->dev, &ep, &s->ep), 0);
	assert_ptr_equal(s->ep->ctx, s);
}

struct weft_device_opts side_device_opts = { .size = sizeof(side_device_opts) };

void side_open(struct side *s, const struct weft_transport *t, struct wfi_env *env,
	       uint32_t cq_depth, uint32_t depth)
{
	struct weft_cq_opts cq = { .size = sizeof(cq), .depth = cq_depth };
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = SIDE_MEM };

	memset(s, 0, sizeof(*s));
	s->t = t;
	assert_int_equal(t->device_open(t, env, &side_device_opts, &s->dev), 0);
	assert_int_equal(t->cq_create(s->dev, &cq, &s->send_cq), 0);
	assert_int_equal(t->cq_create(s->dev, &cq, &s->recv_cq), 0);
	s->depth = depth;
	side_ep(s);

	assert_int_equal(env->mem->map(env, SIDE_MEM, WFI_MAP_SHARED_FD, &s->map), 0);
	s->mem = s->map.addr;
	s->heap = calloc(1, SIDE_MEM);
	assert_non_null(s->heap);
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	mr.addr = s->heap;
	mr.fd = -1;
	assert_int_equal(t->mr_reg(s->dev, &mr, &s->heap_mr), 0);
	mr.addr = s->mem;
	mr.kind = WEFT_MR_MEMFD;
	mr.fd = s->map.fd;
	assert_int_equal(t->mr_reg(s->dev, &mr, &s->mr), 0);
}

void side_close(struct side *s, struct wfi_env *env)
{
	s->t->ep_destroy(s->ep);
	s->t->cq_destroy(s->recv_cq);
	s->t->cq_destroy(s->send_cq);
	s->t->mr_dereg(s->mr);
	s->t->mr_dereg(s->heap_mr);
	env->mem->unmap(env, &s->map);
	free(s->heap);
	s->t->device_close(s->dev);
}

void connect_to(struct weft_ep *ep, const struct weft_ep_addr *addr, int pid)
{
	struct weft_ep_peer peer = {
		.size = sizeof(peer),
		.blob = addr->blob,
		.blob_len = addr->blob_len,
		.nr_fds = addr->nr_fds,
		.fds = addr->fds,
		.pid = pid,
	};

	assert_int_equal(ep->dev->transport->ep_connect(ep, &peer), 0);
}

struct weft_rkey *import_export(struct weft_ep *ep, const struct weft_export *ex)
{
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_BLOB,
		.blob = ex->blob,
		.blob_len = ex->blob_len,
		.fd = ex->fd,
	};
	struct weft_rkey *rkey = NULL;

	assert_int_equal(ep->dev->transport->rkey_import(ep, &src, &rkey), 0);
	return rkey;
}

struct weft_rkey *import(struct weft_ep *ep, struct weft_mr *mr,
			 const struct weft_export_opts *opts)
{
	struct weft_rkey *rkey;
	struct weft_export ex;

	assert_int_equal(mr->dev->transport->mr_export(mr, opts, &ex), 0);
	rkey = import_export(ep, &ex);
	if (ex.fd >= 0)
		close(ex.fd);
	return rkey;
}

static void pair_connect(struct pair *p)
{
	const struct weft_transport *t = p->a.t;
	struct weft_ep_addr addr;
	unsigned i;

	assert_int_equal(t->ep_addr(p->b.ep, &addr), 0);
	connect_to(p->a.ep, &addr, getpid());
	assert_int_equal(t->ep_addr(p->a.ep, &addr), 0);
	connect_to(p->b.ep, &addr, getpid());
	p->rkey = import(p->a.ep, p->b.mr, NULL);
	p->heap_rkey = import(p->a.ep, p->b.heap_mr, NULL);
	/* both have turns, as two nodes would, until they have met */
	for (i = 0; i < MEET_TURNS; i++) {
		side_turn(&p->a);
		side_turn(&p->b);
	}
}

void pair_reconnect(struct pair *p)
{
	p->a.t->rkey_destroy(p->rkey);
	p->a.t->rkey_destroy(p->heap_rkey);
	p->a.t->ep_destroy(p->a.ep);
	p->b.t->ep_destroy(p->b.ep);
	side_ep(&p->a);
	side_ep(&p->b);
	pair_connect(p);
}

void pair_open(struct pair *p, const struct weft_transport *t, uint32_t cq_depth, uint32_t depth)
{
	memset(p, 0, sizeof(*p));
	assert_int_equal(wfi_env_real_init(&p->env), 0);
	side_open(&p->a, t, &p->env, cq_depth, depth);
	side_open(&p->b, t, &p->env, cq_depth, depth);
	p->a.peer = &p->b;
	p->b.peer = &p->a;
	pair_connect(p);
}

void pair_close(struct pair *p)
{
	p->a.t->rkey_destroy(p->rkey);
	p->a.t->rkey_destroy(p->heap_rkey);
	side_close(&p->a, &p->env);
	side_close(&p->b, &p->env);
}

void side_turn(struct side *s)
{
	weft_cq_poll(s->send_cq, NULL, 0);
}

struct weft_wc wait_wc(struct side *s, struct weft_cq *cq)
{
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < POLLS_MAX; i++) {
		if (weft_cq_poll(cq, &wc, 1) == 1)
			return wc;
		if (s->peer)
			side_turn(s->peer);
	}
	fail_msg("no completion on %s", s->t->name);
	memset(&wc, 0, sizeof(wc));
	return wc;
}

struct weft_wc expect_wc(struct side *s, struct weft_cq *cq, enum weft_wc_op op, int status)
{
	struct weft_wc wc = wait_wc(s, cq);

	assert_ptr_equal(wc.ep, s->ep);
	assert_int_equal(wc.op, op);
	assert_int_equal(wc.status, status);
	return wc;
}

void expect_none(struct side *s)
{
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < 5000; i++) {
		assert_int_equal(weft_cq_poll(s->send_cq, &wc, 1), 0);
		assert_int_equal(weft_cq_poll(s->recv_cq, &wc, 1), 0);
		if (s->peer)
			side_turn(s->peer);
	}
}

void send_fds(int sock, const void *buf, size_t len, const int *fds, unsigned nr)
{
	char ctl[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (nr) {
		msg.msg_control = ctl;
		msg.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &msg, 0), len);
}

void recv_fds(int sock, void *buf, size_t len, int *fds, unsigned nr)
{
	char ctl[CMSG_SPACE(8 * sizeof(int))];
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	msg.msg_control = ctl;
	msg.msg_controllen = sizeof(ctl);
	assert_int_equal(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC), len);
	c = CMSG_FIRSTHDR(&msg);
	if (!nr)
		return;
	assert_non_null(c);
	assert_int_equal(c->cmsg_len, CMSG_LEN(nr * sizeof(int)));
	memcpy(fds, CMSG_DATA(c), nr * sizeof(int));
}
