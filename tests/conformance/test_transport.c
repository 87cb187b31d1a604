/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every provider must do. Run as: test_transport PROVIDER [DEVICE], where PROVIDER is a name
 * from the registry, or fault:NAME for the fault injector (which injects nothing here) around it.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "conf.h"
#include "tests/rnd.h"
#include "weft_internal/transport_registry.h"

static const struct weft_transport *provider;

static void fill(uint8_t *mem, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		mem[i] = (uint8_t)rnd();
}

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	pair_open(p, provider, 256, 64);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	pair_close(*state);
	free(*state);
	return 0;
}

static struct weft_post post_of(const struct pair *p, const struct weft_piece *pieces, uint32_t nr,
				uint64_t cookie)
{
	return (struct weft_post){
		.pieces = pieces,
		.nr_pieces = nr,
		.local_mr = p->a.dev->caps.flags & WEFT_CAP_LOCAL_MR ? p->a.mr : NULL,
		.cookie = cookie,
	};
}

/* a contract that the table itself must keep */
static void test_table(void **state)
{
	struct pair *p = *state;
	const struct weft_transport *t = provider;
	void *const *op = (void *const *)&t->probe;
	void *const *end = (void *const *)((const char *)t + sizeof(*t));
	const struct weft_caps *caps = &p->a.dev->caps;
	struct weft_probe probe;

	assert_int_equal(t->size, sizeof(*t));
	for (; op < end; op++)
		assert_non_null(*op);
	assert_int_equal(t->probe(t, &p->env, &probe), 0);
	assert_true(probe.nr_devices >= 1);
	assert_true(caps->max_pieces >= 1 && caps->max_depth >= 1);
	assert_true(caps->max_piece_bytes >= 4096 && caps->max_post_bytes >= caps->max_piece_bytes);
	t->mr_dereg(NULL);
	t->rkey_destroy(NULL);
	t->cq_destroy(NULL);
	t->ep_destroy(NULL);
	t->port_close(NULL);
	t->device_close(NULL);
}

/* where there are no ports, ops say so; where there are, bad addresses are refused */
static void test_ports(void **state)
{
	struct pair *p = *state;
	const struct weft_transport *t = provider;
	const int no = p->a.dev->caps.flags & WEFT_CAP_PORT ? -EINVAL : -EOPNOTSUPP;
	struct weft_port_opts po = { .size = sizeof(po), .addr = "nowhere" };
	struct weft_dial_opts o = { .size = sizeof(o), .addr = "nowhere" };
	struct weft_port *port = NULL;

	assert_int_equal(t->port_open(p->a.dev, &po, &port), no);
	assert_int_equal(t->ep_dial(p->a.ep, &o), no);
	assert_null(port);
}

static void one_write_read(struct pair *p, struct weft_rkey *rkey, uint8_t *remote, size_t off,
			   size_t skew, size_t len)
{
	struct weft_piece piece = { p->a.mem + skew, off, len, rkey };
	struct weft_post post = post_of(p, &piece, 1, 7);
	uint8_t before = remote[off + len], behind;
	struct weft_wc wc;

	fill(p->a.mem + skew, len);
	assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
	wc = expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, 0);
	assert_int_equal(wc.cookie, 7);
	assert_int_equal(wc.idx, 1);
	assert_memory_equal(remote + off, p->a.mem + skew, len);
	assert_int_equal(remote[off + len], before);

	fill(remote + off, len);
	behind = p->a.mem[skew + len];
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, 0);
	assert_memory_equal(remote + off, p->a.mem + skew, len);
	assert_int_equal(p->a.mem[skew + len], behind);
}

static void test_sizes(void **state)
{
	static const size_t lens[] = { 0,    1,	   7,	  63,	 64,	65,	  255,	   1024,
				       4095, 4096, 16383, 16384, 65537, 1u << 20, 3u << 20 };
	struct pair *p = *state;
	size_t i;

	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		one_write_read(p, p->rkey, p->b.mem, 0, 0, lens[i]);
		one_write_read(p, p->rkey, p->b.mem, 13, 5, lens[i]);
		one_write_read(p, p->heap_rkey, p->b.heap, 64, 3, lens[i]);
	}
}

/* 10^5 pieces that do not overlap, cut at random, in shuffled order, against a byte map */
static void test_random_pieces(void **state)
{
	enum { NR = 100000, BATCH = 1000 };
	struct pair *p = *state;
	uint32_t max = p->a.dev->caps.max_pieces, i, n;
	struct weft_piece *pieces = calloc(NR, sizeof(*pieces));
	uint64_t at = 0, len;

	assert_non_null(pieces);
	fill(p->b.mem, SIDE_MEM);
	for (i = 0; i < NR; i++) {
		len = rnd() % 80;
		assert_true(at + len <= SIDE_MEM);
		pieces[i].local = p->a.mem + at;
		pieces[i].remote = at;
		pieces[i].len = len;
		pieces[i].rkey = p->rkey;
		at += len;
	}
	for (i = NR - 1; i > 0; i--) {
		struct weft_piece tmp = pieces[i];
		uint32_t j = (uint32_t)(rnd() % (i + 1));

		pieces[i] = pieces[j];
		pieces[j] = tmp;
	}
	for (i = 0; i < NR; i += n) {
		struct weft_post post;

		n = max < BATCH ? max : BATCH;
		n = NR - i < n ? NR - i : n;
		post = post_of(p, pieces + i, n, i);
		assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
		assert_int_equal(expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, 0).idx, n);
	}
	assert_memory_equal(p->a.mem, p->b.mem, at);
	for (i = 0; i < NR; i++)
		pieces[i].rkey = p->heap_rkey;
	for (i = 0; i < NR; i += n) {
		struct weft_post post;

		n = max < BATCH ? max : BATCH;
		n = NR - i < n ? NR - i : n;
		post = post_of(p, pieces + i, n, i);
		assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
		assert_int_equal(expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, 0).idx, n);
	}
	assert_memory_equal(p->a.mem, p->b.heap, at);
	free(pieces);
}

static void test_write_then_imm(void **state)
{
	struct pair *p = *state;
	struct weft_piece piece = { p->a.mem, 4096, 100000, p->rkey };
	struct weft_post post = post_of(p, &piece, 1, 1);
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < 100; i++) {
		fill(p->a.mem, 100000);
		post.nr_pieces = 1;
		post.imm = i;
		post.cookie = i;
		if (i & 1) {
			assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
			post.nr_pieces = 0;
		}
		assert_int_equal(weft_ep_post_write_imm(p->a.ep, &post), 0);
		wc = expect_wc(&p->b, p->b.recv_cq, WEFT_WC_RECV_IMM, 0);
		assert_int_equal(wc.imm, i);
		assert_memory_equal(p->b.mem + 4096, p->a.mem, 100000);
		if (i & 1)
			assert_int_equal(expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, 0).cookie,
					 i);
		assert_int_equal(expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, 0).cookie, i);
	}
}

static void test_messages(void **state)
{
	struct pair *p = *state;
	uint32_t max = p->a.dev->caps.max_msg, sent = 0, got = 0, i, len;
	uint8_t *buf = malloc(max), *want = malloc(max);
	struct weft_wc wcs[7];
	int ret, n;

	assert_non_null(buf);
	assert_non_null(want);
	assert_int_equal(weft_ep_post_send(p->a.ep, buf, 0, 0, 0), -EINVAL);
	assert_int_equal(weft_ep_post_send(p->a.ep, buf, max + 1, 0, 0), -EINVAL);
	while (got < 3000) {
		len = sent % 3 ? 1 + sent * 37 % 200 : max - sent % 100;
		memset(buf, (int)sent, len);
		ret = sent < 3000 ? weft_ep_post_send(p->a.ep, buf, len, sent, WEFT_POST_QUIET)
				  : -EAGAIN;
		sent += ret == 0;
		assert_true(ret == 0 || ret == -EAGAIN);
		n = weft_cq_poll(p->a.send_cq, wcs, 7);
		assert_int_equal(n, 0);
		/* the receiver falls behind from time to time */
		if (ret == 0 && got % 64)
			continue;
		n = weft_cq_poll(p->b.recv_cq, wcs, 7);
		for (i = 0; i < (uint32_t)n; i++, got++) {
			len = got % 3 ? 1 + got * 37 % 200 : max - got % 100;
			assert_int_equal(wcs[i].op, WEFT_WC_RECV);
			assert_int_equal(wcs[i].len, len);
			memset(want, (int)got, len);
			assert_memory_equal(wcs[i].data, want, len);
		}
	}
	expect_none(&p->b);
	free(buf);
	free(want);
}

/* a message in parts arrives as one, whether its pieces are copied or lent, and of any number */
static void test_msg_parts(void **state)
{
	static const uint8_t head[] = "a head";
	struct pair *p = *state;
	struct weft_piece pieces[40];
	struct weft_msg msg = { .head = head, .head_len = sizeof(head), .pieces = pieces };
	struct weft_wc wc;
	unsigned round, i;

	fill(p->a.mem, SIDE_MEM);
	for (round = 0; round < 80; round++) {
		const uint8_t *at;

		msg.local_mr = round % 2 ? p->a.mr : NULL;
		msg.cookie = round;
		msg.nr_pieces = round / 2;
		for (i = 0; i < msg.nr_pieces; i++)
			pieces[i] = (struct weft_piece){ .local = p->a.mem + 4096ull * i + round,
							 .len = (i + round) * 31 % 97 };
		assert_int_equal(weft_ep_post_msg(p->a.ep, &msg), 0);
		wc = expect_wc(&p->b, p->b.recv_cq, WEFT_WC_RECV, 0);
		at = wc.data;
		assert_memory_equal(at, head, sizeof(head));
		at += sizeof(head);
		for (i = 0; i < msg.nr_pieces; at += pieces[i++].len)
			assert_memory_equal(at, pieces[i].local, pieces[i].len);
		assert_int_equal(wc.len, at - (const uint8_t *)wc.data);
		assert_int_equal(expect_wc(&p->a, p->a.send_cq, WEFT_WC_SEND, 0).cookie, round);
	}
	pieces[0].len = p->a.dev->caps.max_msg;
	assert_int_equal(weft_ep_post_msg(p->a.ep, &msg), -EINVAL);
	pieces[0] = (struct weft_piece){ .local = p->a.mem + SIDE_MEM - 1, .len = 2 };
	assert_int_equal(weft_ep_post_msg(p->a.ep, &msg), -EINVAL);
	msg.head_len = 0;
	msg.nr_pieces = 0;
	assert_int_equal(weft_ep_post_msg(p->a.ep, &msg), -EINVAL);
	expect_none(&p->b);
}

static void test_queue_full(void **state)
{
	struct pair p;
	struct weft_piece piece;
	struct weft_post post;
	unsigned posted = 0, i;

	(void)state;
	pair_open(&p, provider, 4, 64);
	piece = (struct weft_piece){ p.a.mem, 0, 1, p.rkey };
	post = post_of(&p, &piece, 1, 0);
	while (posted < 100) {
		post.cookie = posted;
		if (weft_ep_post_write(p.a.ep, &post) == -EAGAIN)
			break;
		posted++;
	}
	assert_true(posted >= 1 && posted <= 64);
	for (i = 0; i < posted; i++)
		assert_int_equal(expect_wc(&p.a, p.a.send_cq, WEFT_WC_WRITE, 0).cookie, i);
	expect_none(&p.a);
	assert_int_equal(weft_ep_post_write(p.a.ep, &post), 0);
	expect_wc(&p.a, p.a.send_cq, WEFT_WC_WRITE, 0);
	pair_close(&p);

	pair_open(&p, provider, 64, 2);
	piece = (struct weft_piece){ p.a.mem, 0, 1, p.rkey };
	post = post_of(&p, &piece, 1, 0);
	assert_int_equal(weft_ep_post_write(p.a.ep, &post), 0);
	assert_int_equal(weft_ep_post_write(p.a.ep, &post), 0);
	assert_int_equal(weft_ep_post_write(p.a.ep, &post), -EAGAIN);
	pair_close(&p);
}

/* Return: true when the endpoint broke: a NIC refuses what it must in no other way */
static bool fails_at(struct pair *p, struct weft_piece *pieces, uint32_t nr, uint32_t idx,
		     int status, int write)
{
	struct weft_post post = post_of(p, pieces, nr, 3);
	struct weft_wc wc;
	bool broke;

	assert_int_equal(
		write ? weft_ep_post_write(p->a.ep, &post) : weft_ep_post_read(p->a.ep, &post), 0);
	wc = expect_wc(&p->a, p->a.send_cq, write ? WEFT_WC_WRITE : WEFT_WC_READ, status);
	if (wc.scope == WEFT_SCOPE_OP)
		assert_int_equal(wc.idx, idx);
	broke = wc.scope == WEFT_SCOPE_EP;
	if (broke)
		assert_int_not_equal(expect_wc(&p->a, p->a.recv_cq, WEFT_WC_CLOSED, status).scope,
				     0);
	return broke;
}

static void test_out_of_range(void **state)
{
	struct pair *p = *state;
	uint8_t *m = p->a.mem;
	struct weft_piece good = { m, 0, 8, p->rkey };
	struct weft_piece bad[] = {
		{ m, SIDE_MEM, 1, p->rkey },	    { m, SIDE_MEM - 7, 8, p->rkey },
		{ m, UINT64_MAX, 1, p->rkey },	    { m, UINT64_MAX - 3, 8, p->rkey },
		{ m, 1ull << 63, 8, p->heap_rkey },
	};
	unsigned i, write;

	for (write = 0; write < 2; write++) {
		for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			struct weft_piece pieces[] = { good, good, bad[i], good };

			memset(m, 1, 8);
			memset(p->b.mem, 2, 8);
			fails_at(p, pieces, 4, 2, -ERANGE, (int)write);
			assert_int_equal(m[0], write ? 1 : 2);
			assert_int_equal(p->b.mem[0], write ? 1 : 2);
		}
	}
	/* the endpoint goes on */
	one_write_read(p, p->rkey, p->b.mem, 0, 0, 4096);
}

static void test_too_much(void **state)
{
	struct pair *p = *state;
	const struct weft_caps *caps = &p->a.dev->caps;
	struct weft_piece *pieces = calloc(caps->max_pieces + 1, sizeof(*pieces));
	struct weft_post post = post_of(p, pieces, caps->max_pieces + 1, 0);
	uint32_t i;

	assert_non_null(pieces);
	for (i = 0; i <= caps->max_pieces; i++)
		pieces[i] = (struct weft_piece){ p->a.mem + i, i, 1, p->rkey };
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), -EINVAL);
	post.nr_pieces--;
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, 0);
	free(pieces);
}

static void test_rights(void **state)
{
	struct pair *p = *state;
	struct weft_export_opts opts = { .size = sizeof(opts), .off = 4096, .len = 8192 };
	struct weft_rkey_src src = { .size = sizeof(src) };
	struct weft_rkey *ro, *wo, *rkey = NULL;
	struct weft_piece piece = { p->a.mem, 0, 64, NULL };
	struct weft_export ex;

	opts.access = WEFT_ACCESS_REMOTE_READ;
	ro = import(p->a.ep, p->b.mr, &opts);
	opts.access = WEFT_ACCESS_REMOTE_WRITE;
	wo = import(p->a.ep, p->b.mr, &opts);
	assert_int_equal(ro->len, 8192);
	fill(p->b.mem, 16384);
	piece.rkey = ro;
	fails_at(p, &piece, 1, 1, 0, 0);
	assert_memory_equal(p->a.mem, p->b.mem + 4096, 64);
	fails_at(p, &piece, 1, 0, -EACCES, 1);
	piece.rkey = wo;
	fails_at(p, &piece, 1, 1, 0, 1);
	fails_at(p, &piece, 1, 0, -EACCES, 0);
	piece.remote = 8192;
	fails_at(p, &piece, 1, 0, -ERANGE, 1);

	/* what was granted for reading can't be imported for writing */
	opts.access = WEFT_ACCESS_REMOTE_READ;
	assert_int_equal(provider->mr_export(p->b.mr, &opts, &ex), 0);
	src.blob = ex.blob;
	src.blob_len = ex.blob_len;
	src.fd = ex.fd;
	src.access = WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(provider->rkey_import(p->a.ep, &src, &rkey), -EACCES);
	if (ex.fd >= 0)
		close(ex.fd);

	opts.off = SIDE_MEM;
	opts.len = 1;
	assert_int_equal(provider->mr_export(p->b.mr, &opts, &ex), -ERANGE);
	provider->rkey_destroy(ro);
	provider->rkey_destroy(wo);
}

/* an rkey of another endpoint is refused, whatever it names */
static void test_foreign_rkey(void **state)
{
	struct pair *p = *state, other;
	struct weft_piece piece;

	pair_open(&other, provider, 16, 16);
	piece = (struct weft_piece){ p->a.mem, 0, 64, other.rkey };
	fails_at(p, &piece, 1, 0, -EACCES, 1);
	piece.rkey = NULL;
	fails_at(p, &piece, 1, 0, -EACCES, 0);
	pair_close(&other);
}

/* who is given an address may use it in place of posts, and is given none when they are refused */
static void test_rkey_ptr(void **state)
{
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = 4096, .fd = -1 };
	struct pair *p = *state;
	uint8_t *ptr = provider->rkey_ptr(p->rkey);
	struct weft_mr *region = NULL;
	struct weft_rkey *rkey;
	struct weft_export ex;

	if (ptr) {
		p->b.mem[77] = 0x5a;
		assert_int_equal(ptr[77], 0x5a);
		ptr[4099] = 0x5b;
		assert_int_equal(p->b.mem[4099], 0x5b);
	}
	mr.addr = p->b.heap;
	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(provider->mr_reg(p->b.dev, &mr, &region), 0);
	assert_int_equal(provider->mr_export(region, NULL, &ex), 0);
	rkey = import_export(p->a.ep, &ex);
	provider->mr_dereg(region);
	assert_null(provider->rkey_ptr(rkey));
	provider->rkey_destroy(rkey);
	if (ex.fd >= 0)
		close(ex.fd);
	provider->ep_shutdown(p->a.ep);
	assert_null(provider->rkey_ptr(p->rkey));
}

static void test_stale_rkey(void **state)
{
	struct pair *p = *state;
	struct weft_mr_opts mr = { .size = sizeof(mr), .addr = p->b.heap, .len = 4096, .fd = -1 };
	struct weft_mr *region = NULL;
	struct weft_piece piece = { p->a.mem, 0, 64, NULL };
	struct weft_rkey *rkey;
	struct weft_export ex;
	unsigned i;
	bool broke;

	mr.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	for (i = 0; i < 3; i++) {
		assert_int_equal(provider->mr_reg(p->b.dev, &mr, &region), 0);
		assert_int_equal(provider->mr_export(region, NULL, &ex), 0);
		rkey = import_export(p->a.ep, &ex);
		piece.rkey = rkey;
		fails_at(p, &piece, 1, 1, 0, 1);
		provider->mr_dereg(region);
		if (fails_at(p, &piece, 1, 0, -ESTALE, 1)) {
			provider->rkey_destroy(rkey);
			pair_reconnect(p);
			rkey = import_export(p->a.ep, &ex);
			piece.rkey = rkey;
		}
		/* the same region, registered anew, does not revive it */
		assert_int_equal(provider->mr_reg(p->b.dev, &mr, &region), 0);
		broke = fails_at(p, &piece, 1, 0, -ESTALE, 0);
		provider->mr_dereg(region);
		provider->rkey_destroy(rkey);
		if (broke)
			pair_reconnect(p);
		if (ex.fd >= 0)
			close(ex.fd);
	}
}

static void test_revoke(void **state)
{
	struct pair *p = *state;
	struct weft_piece piece = { p->a.mem, 0, 64, NULL };
	struct weft_rkey *rkey;
	struct weft_export ex;
	bool broke;

	assert_int_equal(provider->mr_export(p->b.mr, NULL, &ex), 0);
	if (!(p->b.dev->caps.flags & WEFT_CAP_REVOKE)) {
		assert_int_equal(provider->mr_revoke(p->b.mr, ex.id), -EOPNOTSUPP);
		if (ex.fd >= 0)
			close(ex.fd);
		return;
	}
	rkey = import_export(p->a.ep, &ex);
	if (ex.fd >= 0)
		close(ex.fd);
	assert_int_equal(provider->mr_revoke(p->b.mr, ex.id), 0);
	assert_int_equal(provider->mr_revoke(p->b.mr, ex.id), -ENOENT);
	piece.rkey = rkey;
	broke = fails_at(p, &piece, 1, 0, -ESTALE, 0);
	provider->rkey_destroy(rkey);
	if (broke)
		pair_reconnect(p);
	piece.rkey = p->rkey;
	fails_at(p, &piece, 1, 1, 0, 0);
}

/* given to one endpoint's peer: it reaches its part and no more, and not after it was taken back */
static void test_export_for_one(void **state)
{
	struct weft_export_opts o = { .size = sizeof(o), .off = 4096, .len = 4096 };
	struct pair *p = *state;
	struct weft_piece piece = { p->a.mem, 0, 64, NULL };
	struct weft_post post;
	struct weft_export ex;
	bool broke;

	o.access = WEFT_ACCESS_REMOTE_WRITE;
	o.ep = p->b.ep;
	assert_int_equal(provider->mr_export(p->b.mr, &o, &ex), 0);
	piece.rkey = import_export(p->a.ep, &ex);
	memset(p->a.mem, 0x77, 64);
	memset(p->b.mem, 0, 8192);
	post = post_of(p, &piece, 1, 9);
	assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, 0);
	assert_int_equal(p->b.mem[4096], 0x77);
	assert_int_equal(p->b.mem[4096 + 64], 0);
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, -EACCES);
	if (ex.fd >= 0)
		close(ex.fd);
	if (!(p->b.dev->caps.flags & WEFT_CAP_REVOKE)) {
		provider->rkey_destroy((struct weft_rkey *)piece.rkey);
		return;
	}
	assert_int_equal(provider->mr_revoke(p->b.mr, ex.id), 0);
	memset(p->a.mem, 0x78, 64);
	assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
	broke = expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, -ESTALE).scope == WEFT_SCOPE_EP;
	assert_int_equal(p->b.mem[4096], 0x77);
	provider->rkey_destroy((struct weft_rkey *)piece.rkey);
	if (broke)
		pair_reconnect(p);
}

static void test_local_mr(void **state)
{
	struct pair *p = *state;
	struct weft_piece piece = { p->a.mem, 0, 64, p->rkey };
	struct weft_post post = post_of(p, &piece, 1, 9);

	post.local_mr = p->a.mr;
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, 0);
	piece.local = p->a.mem + SIDE_MEM - 63;
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, -EFAULT);
	piece.local = p->a.mem - 1;
	assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, -EFAULT);
}

/* hostile addresses and exports: an error each, never more */
static void test_bad_blobs(void **state)
{
	struct pair *p = *state;
	struct weft_ep_addr addr;
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	struct weft_ep_opts ep_opts = { .size = sizeof(ep_opts) };
	struct weft_rkey_src src = { .size = sizeof(src), .fd = -1 };
	struct weft_rkey *rkey;
	struct weft_ep *ep = NULL;
	struct weft_export ex;
	unsigned i, n;

	ep_opts.send_cq = p->a.send_cq;
	ep_opts.recv_cq = p->a.recv_cq;
	assert_int_equal(provider->mr_export(p->b.mr, NULL, &ex), 0);
	assert_int_equal(provider->ep_addr(p->b.ep, &addr), 0);
	for (i = 0; i < 2000; i++) {
		uint8_t blob[WEFT_RKEY_BLOB_MAX];
		int ret;

		memcpy(blob, ex.blob, sizeof(blob));
		for (n = 1 + (unsigned)(rnd() % 4); n; n--)
			blob[rnd() % ex.blob_len] ^= (uint8_t)(1u << rnd() % 8);
		src.blob = blob;
		src.blob_len = rnd() % 8 ? ex.blob_len : rnd() % (ex.blob_len + 2);
		src.fd = rnd() % 4 ? ex.fd : -1;
		ret = provider->rkey_import(p->a.ep, &src, &rkey);
		if (!ret)
			provider->rkey_destroy(rkey);
		assert_true(ret <= 0);
	}
	for (i = 0; i < 200; i++) {
		uint8_t blob[WEFT_EP_ADDR_MAX];

		assert_int_equal(provider->ep_create(p->a.dev, &ep_opts, &ep), 0);
		memcpy(blob, addr.blob, sizeof(blob));
		for (n = 1 + (unsigned)(rnd() % 4); n; n--)
			blob[rnd() % 8] ^= (uint8_t)(1u << rnd() % 8);
		peer.blob = blob;
		peer.blob_len = addr.blob_len - (uint32_t)(i & 1);
		peer.fds = addr.fds;
		peer.nr_fds = addr.nr_fds;
		if (memcmp(blob, addr.blob, addr.blob_len) || (i & 1))
			assert_true(provider->ep_connect(ep, &peer) < 0);
		provider->ep_destroy(ep);
	}
	if (ex.fd >= 0)
		close(ex.fd);
	/* option structs: a tail that nobody knows */
	{
		struct {
			struct weft_cq_opts o;
			uint64_t tail;
		} big = { .o = { .size = sizeof(big) }, .tail = 0 };
		struct weft_cq *cq = NULL;

		assert_int_equal(provider->cq_create(p->a.dev, &big.o, &cq), 0);
		provider->cq_destroy(cq);
		big.tail = 1;
		assert_int_equal(provider->cq_create(p->a.dev, &big.o, &cq), -EINVAL);
	}
}

static void test_not_connected(void **state)
{
	struct pair *p = *state;
	struct weft_ep_opts opts = { .size = sizeof(opts) };
	struct weft_piece piece = { p->a.mem, 0, 8, p->rkey };
	struct weft_post post = post_of(p, &piece, 1, 0);
	struct weft_wc wc;
	struct weft_ep *ep = NULL;

	opts.send_cq = p->a.send_cq;
	opts.recv_cq = p->a.recv_cq;
	assert_int_equal(provider->ep_create(p->a.dev, &opts, &ep), 0);
	assert_int_equal(weft_ep_post_read(ep, &post), -ENOTCONN);
	assert_int_equal(weft_ep_post_write(ep, &post), -ENOTCONN);
	assert_int_equal(weft_ep_post_write_imm(ep, &post), -ENOTCONN);
	assert_int_equal(weft_ep_post_send(ep, "x", 1, 0, 0), -ENOTCONN);
	provider->ep_shutdown(ep);
	wc = wait_wc(&p->a, p->a.recv_cq);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_ptr_equal(wc.ep, ep);
	provider->ep_destroy(ep);
}

/* open posts complete once each, then CLOSED, then nothing; the peer learns of it */
static void test_shutdown(void **state)
{
	struct pair *p = *state;
	struct weft_piece piece = { p->a.mem, 0, 4096, p->rkey };
	struct weft_post post = post_of(p, &piece, 1, 0);
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < 10; i++) {
		post.cookie = i;
		assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
	}
	assert_int_equal(weft_ep_post_send(p->a.ep, "last", 4, 10, 0), 0);
	provider->ep_shutdown(p->a.ep);
	provider->ep_shutdown(p->a.ep);
	assert_int_equal(weft_ep_post_write(p->a.ep, &post), -ENOTCONN);
	/* not closed before the posts are polled */
	assert_int_equal(weft_cq_poll(p->a.recv_cq, &wc, 1), 0);
	for (i = 0; i < 11; i++) {
		wc = wait_wc(&p->a, p->a.send_cq);
		assert_int_equal(wc.cookie, i);
		assert_true(wc.status == 0 || wc.status == -ECANCELED);
	}
	expect_wc(&p->a, p->a.recv_cq, WEFT_WC_CLOSED, 0);
	expect_none(&p->a);

	wc = wait_wc(&p->b, p->b.recv_cq);
	if (wc.op == WEFT_WC_RECV) {
		assert_int_equal(wc.len, 4);
		assert_memory_equal(wc.data, "last", 4);
		wc = wait_wc(&p->b, p->b.recv_cq);
	}
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, -ECONNRESET);
	assert_int_equal(weft_ep_post_send(p->b.ep, "x", 1, 0, 0), -ENOTCONN);
	expect_none(&p->b);
}

static void test_peer_destroyed(void **state)
{
	struct pair *p = *state;
	struct weft_ep_opts opts = { .size = sizeof(opts) };

	opts.send_cq = p->b.send_cq;
	opts.recv_cq = p->b.recv_cq;
	provider->ep_destroy(p->b.ep);
	expect_wc(&p->a, p->a.recv_cq, WEFT_WC_CLOSED, -ECONNRESET);
	assert_int_equal(provider->ep_create(p->b.dev, &opts, &p->b.ep), 0);
}

/* memory endpoints: what a process or a memfd gives, with no peer at all */
static void test_mem_ep(void **state)
{
	struct pair *p = *state;
	struct weft_ep_opts opts = { .size = sizeof(opts), .flags = WEFT_EP_MEM };
	struct weft_rkey_src src = { .size = sizeof(src), .fd = -1 };
	struct weft_rkey *rkey = NULL;
	struct weft_piece piece = { p->a.mem, 100, 5000, NULL };
	struct weft_post post = post_of(p, &piece, 1, 0);
	struct side s = p->a;

	if (!(p->a.dev->caps.flags & WEFT_CAP_MEM_EP))
		skip();
	opts.send_cq = p->a.send_cq;
	opts.recv_cq = p->a.recv_cq;
	assert_int_equal(provider->ep_create(p->a.dev, &opts, &s.ep), 0);
	src.kind = WEFT_RKEY_PROCESS;
	src.pid = getpid();
	src.addr = (uintptr_t)p->b.heap;
	src.len = 8192;
	src.access = WEFT_ACCESS_REMOTE_WRITE | WEFT_ACCESS_REMOTE_READ;
	assert_int_equal(provider->rkey_import(p->a.ep, &src, &rkey), -EOPNOTSUPP);
	assert_int_equal(provider->rkey_import(s.ep, &src, &rkey), 0);
	piece.rkey = rkey;
	fill(p->a.mem, 5000);
	assert_int_equal(weft_ep_post_write(s.ep, &post), 0);
	expect_wc(&s, s.send_cq, WEFT_WC_WRITE, 0);
	assert_memory_equal(p->b.heap + 100, p->a.mem, 5000);
	assert_int_equal(weft_ep_post_write_imm(s.ep, &post), -EOPNOTSUPP);
	assert_int_equal(weft_ep_post_send(s.ep, "x", 1, 0, 0), -EOPNOTSUPP);
	provider->rkey_destroy(rkey);

	src.kind = WEFT_RKEY_MEMFD;
	src.fd = p->b.map.fd;
	src.addr = 4100;
	src.access = WEFT_ACCESS_REMOTE_READ;
	if (provider->rkey_import(s.ep, &src, &rkey) == 0) {
		piece.rkey = rkey;
		fill(p->b.mem, 16384);
		assert_int_equal(weft_ep_post_read(s.ep, &post), 0);
		expect_wc(&s, s.send_cq, WEFT_WC_READ, 0);
		assert_memory_equal(p->b.mem + 4200, p->a.mem, 5000);
		assert_int_equal(weft_ep_post_write(s.ep, &post), 0);
		expect_wc(&s, s.send_cq, WEFT_WC_WRITE, -EACCES);
		provider->rkey_destroy(rkey);
		src.addr = p->b.map.len - 8191;
		assert_int_equal(provider->rkey_import(s.ep, &src, &rkey), -ERANGE);
		src.addr = UINT64_MAX - 100;
		assert_int_equal(provider->rkey_import(s.ep, &src, &rkey), -ERANGE);
	}
	provider->ep_shutdown(s.ep);
	expect_wc(&s, s.recv_cq, WEFT_WC_CLOSED, 0);
	provider->ep_destroy(s.ep);
}

/* the other side is at work meanwhile. Return: 1, 0 it never was */
static int readable(int fd, struct side *other)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	unsigned i;

	for (i = 0; i < 10000; i++) {
		side_turn(other);
		if (poll(&pfd, 1, 1) == 1)
			return 1;
	}
	return 0;
}

/* something is on its way to @cq from @other, and who goes to sleep over it is woken or told not
 * to */
static void arm_until_busy(struct weft_cq *cq, struct side *other)
{
	struct weft_wait wait;
	int ret;

	while ((ret = provider->cq_arm(cq, &wait, 1)) == 1) {
		assert_true(wait.fd >= 0);
		assert_int_equal(readable(wait.fd, other), 1);
		provider->cq_disarm(cq);
	}
	assert_int_equal(ret, -EAGAIN);
}

/* who is about to sleep finds nothing left to do, sooner or later */
static void arm_when_idle(struct weft_cq *cq, struct side *other, struct weft_wait *wait)
{
	unsigned i;

	for (i = 0; i < 10000; i++) {
		side_turn(other);
		if (provider->cq_arm(cq, wait, 1) == 1)
			return;
	}
	fail_msg("never idle");
}

static void test_arm(void **state)
{
	struct pair *p = *state;
	struct weft_wait wait;

	if (!(p->a.dev->caps.flags & WEFT_CAP_WAIT)) {
		assert_int_equal(provider->cq_arm(p->b.recv_cq, &wait, 1), -EOPNOTSUPP);
		return;
	}
	arm_when_idle(p->b.recv_cq, &p->a, &wait);
	provider->cq_disarm(p->b.recv_cq);
	assert_int_equal(provider->cq_arm(p->b.recv_cq, &wait, 0), -ENOSPC);
	assert_int_equal(weft_ep_post_send(p->a.ep, "hi", 2, 0, 0), 0);
	arm_until_busy(p->b.recv_cq, &p->a);
	expect_wc(&p->b, p->b.recv_cq, WEFT_WC_RECV, 0);

	/* armed first, then sent: the word that it sleeps on moves */
	arm_when_idle(p->b.recv_cq, &p->a, &wait);
	assert_int_equal(weft_ep_post_send(p->a.ep, "ho", 2, 0, 0), 0);
	if (wait.fd < 0)
		assert_int_not_equal(__atomic_load_n(wait.futex, __ATOMIC_ACQUIRE), wait.val);
	else
		assert_int_equal(readable(wait.fd, &p->a), 1);
	provider->cq_disarm(p->b.recv_cq);
	expect_wc(&p->b, p->b.recv_cq, WEFT_WC_RECV, 0);
	arm_until_busy(p->a.send_cq, &p->b);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_then_imm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msg_parts, setup, teardown),
		cmocka_unit_test(test_queue_full),
		cmocka_unit_test_setup_teardown(test_out_of_range, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_much, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
		cmocka_unit_test_setup_teardown(test_foreign_rkey, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rkey_ptr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_rkey, setup, teardown),
		cmocka_unit_test_setup_teardown(test_revoke, setup, teardown),
		cmocka_unit_test_setup_teardown(test_export_for_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_local_mr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_blobs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_connected, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shutdown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peer_destroyed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mem_ep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_arm, setup, teardown),
	};
	const char *name = argc > 1 ? argv[1] : "loop";
	struct wfi_fault_opts none = { .seed = 1 };
	struct weft_transport *fault = NULL;
	struct weft_probe probe;
	struct wfi_env env;
	int wrapped = !strncmp(name, "fault:", 6), ret;

	side_device_opts.name = argc > 2 ? argv[2] : NULL;
	provider = wfi_transport_find(NULL, wrapped ? name + 6 : name);
	if (!provider) {
		printf("no provider %s in this build\n", name);
		return 77;
	}
	if (wfi_env_real_init(&env) || provider->probe(provider, &env, &probe)) {
		printf("%s can't run here: %s\n", provider->name, probe.why);
		return 77;
	}
	if (wrapped) {
		if (wfi_fault_create(provider, &none, &fault))
			return 1;
		provider = fault;
	}
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	wfi_fault_destroy(fault);
	return ret;
}
