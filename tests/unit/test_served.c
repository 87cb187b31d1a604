/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames as a peer might send them: right ones, one by one, and noise. The wire is this test: what
 * it sends is looked at, what arrives is made up.
 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "tests/rnd.h"
#include "transport/served.h"
#include "weft_internal/xfer.h"

#define MEM 65536u
#define GUARD 4096u

struct rig {
	struct wfi_env env;
	struct wfi_srv_device dev;
	struct weft_transport table; /* a name for the log */
	struct weft_cq *cq;
	struct weft_cq *recv_cq;
	struct wfi_srv_ep *ep;
	struct weft_mr *mr;
	struct wfi_srv_rkey_blob right; /* to all but the guards */
	uint8_t mem[MEM];
	struct wfi_srv_frame last; /* that was sent */
	unsigned nr_sent;
	unsigned nr_darts; /* of these */
	bool darts; /* there is a short way now */
	bool holds; /* frames stay on their way */
	struct wfi_srv_tx *held;
	unsigned lingers; /* turns that it takes to stop */
	unsigned nr_stops;
	unsigned nr_coming; /* messages that the next poll finds, each of a byte */
	uint8_t coming;
};

static struct rig *rig;

/* ---- the wire ---- */

static void message_comes(uint8_t byte);

static void wire_progress(struct wfi_srv_device *dev)
{
	(void)dev;
	for (; rig->nr_coming; rig->nr_coming--)
		message_comes(rig->coming++);
	if (!rig->ep->stopping || (rig->lingers && rig->lingers--))
		return;
	if (rig->held)
		wfi_srv_tx_done(rig->ep, rig->held);
	rig->held = NULL;
	wfi_srv_stopped(rig->ep);
}

static int wire_arm(struct wfi_srv_device *dev, struct weft_wait *wait)
{
	(void)dev;
	(void)wait;
	return -EAGAIN;
}

static int wire_init(struct wfi_srv_ep *ep)
{
	(void)ep;
	return 0;
}

static void wire_end(struct wfi_srv_ep *ep)
{
	(void)ep;
}

static int wire_addr(struct wfi_srv_ep *ep, uint8_t *buf, size_t len)
{
	(void)ep;
	(void)len;
	buf[0] = 1;
	return 1;
}

static int wire_connect(struct wfi_srv_ep *ep, const uint8_t *addr, uint32_t len)
{
	(void)ep;
	return len == 1 && addr[0] == 1 ? 0 : -EINVAL;
}

static void wire_push(struct wfi_srv_ep *ep, struct wfi_srv_tx *tx)
{
	memcpy(&rig->last, tx->head, (size_t)wfi_min(tx->iov[0].iov_len, sizeof(rig->last)));
	rig->nr_sent++;
	if (rig->holds)
		rig->held = tx;
	else
		wfi_srv_tx_done(ep, tx);
}

static void wire_stop(struct wfi_srv_ep *ep)
{
	(void)ep;
	rig->nr_stops++;
}

static bool wire_dart(struct wfi_srv_ep *ep, const void *head, size_t len)
{
	(void)ep;
	if (!rig->darts)
		return false;
	memcpy(&rig->last, head, (size_t)wfi_min(len, sizeof(rig->last)));
	rig->nr_sent++;
	rig->nr_darts++;
	return true;
}

static const struct wfi_srv_wire wire = {
	.name = "test",
	.ep_size = sizeof(struct wfi_srv_ep),
	.head_max = WFI_SRV_HEAD_MAX,
	.progress = wire_progress,
	.arm = wire_arm,
	.init = wire_init,
	.fini = wire_end,
	.addr = wire_addr,
	.connect = wire_connect,
	.push = wire_push,
	.dart = wire_dart,
	.stop = wire_stop,
};

static int setup(void **state)
{
	struct weft_mr_opts mr = { .size = sizeof(mr), .len = MEM, .fd = -1 };
	struct weft_export_opts part = { .size = sizeof(part),
					 .off = GUARD,
					 .len = MEM - 2 * GUARD,
					 .access = WEFT_ACCESS_REMOTE_READ |
						   WEFT_ACCESS_REMOTE_WRITE };
	struct weft_ep_opts o = { .size = sizeof(o), .recv_bytes = 8192 };
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	struct weft_ep_addr addr;
	struct weft_export ex;
	struct weft_ep *ep;

	rig = calloc(1, sizeof(*rig));
	assert_non_null(rig);
	assert_int_equal(wfi_env_real_init(&rig->env), 0);
	rig->table.name = "test";
	rig->table.rkey_ptr = wfi_srv_rkey_ptr;
	assert_int_equal(wfi_srv_device_init(&rig->dev, &rig->table, &rig->env, &wire, 0), 0);
	mr.addr = rig->mem;
	mr.access = WEFT_ACCESS_LOCAL_WRITE | part.access;
	assert_int_equal(wfi_srv_mr_reg(&rig->dev.base, &mr, &rig->mr), 0);
	assert_int_equal(wfi_srv_mr_export(rig->mr, &part, &ex), 0);
	memcpy(&rig->right, ex.blob, sizeof(rig->right));
	assert_int_equal(wfi_srv_cq_create(&rig->dev.base, NULL, &rig->cq), 0);
	assert_int_equal(wfi_srv_cq_create(&rig->dev.base, NULL, &rig->recv_cq), 0);
	o.send_cq = rig->cq;
	o.recv_cq = rig->recv_cq;
	assert_int_equal(wfi_srv_ep_create(&rig->dev.base, &o, &ep), 0);
	rig->ep = wfi_srv_ep(ep);
	/* it talks to itself, as far as it knows */
	assert_int_equal(wfi_srv_ep_addr(&rig->ep->base, &addr), 0);
	peer.blob = addr.blob;
	peer.blob_len = addr.blob_len;
	assert_int_equal(wfi_srv_ep_connect(&rig->ep->base, &peer), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	wfi_srv_ep_destroy(&rig->ep->base);
	wfi_srv_cq_destroy(rig->cq);
	wfi_srv_cq_destroy(rig->recv_cq);
	wfi_srv_mr_dereg(rig->mr);
	wfi_srv_device_fini(&rig->dev);
	free(rig);
	return 0;
}

/* ---- what arrives ---- */

static struct wfi_srv_frame frame(enum wfi_srv_kind kind, uint16_t nr, uint64_t bytes)
{
	return (struct wfi_srv_frame){ .h.to = rig->ep->id,
				       .h.magic = WFI_SRV_FRAME_MAGIC,
				       .h.kind = (uint8_t)kind,
				       .h.nr = nr,
				       .bytes = bytes };
}

static struct wfi_srv_desc desc(uint64_t off, uint32_t len)
{
	return (struct wfi_srv_desc){ .off = off,
				      .secret = rig->right.secret,
				      .len = len,
				      .export_idx = rig->right.export_idx };
}

/* all of these kinds but a message's bytes */
static bool is_short(uint8_t kind)
{
	return kind == WFI_SRV_SEND || kind == WFI_SRV_CREDIT || kind == WFI_SRV_BYE;
}

/* Return: as wfi_srv_rx_begin(); @bytes end where their memory ends */
static int arrive_bytes(const void *bytes, size_t len)
{
	uint8_t *copy = malloc(len);
	int ret;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	ret = wfi_srv_rx_begin(rig->ep, copy, len);
	free(copy);
	return ret;
}

/* Return: the same, of a head */
static int arrive(const struct wfi_srv_frame *f, const struct wfi_srv_desc *descs)
{
	const size_t size = is_short(f->h.kind) ? sizeof(f->h) : sizeof(*f);
	const size_t nr = is_short(f->h.kind) ? 0 : f->h.nr;
	uint8_t head[sizeof(*f) + 8 * sizeof(*descs)];

	assert_true(nr <= 8);
	memcpy(head, f, size);
	if (descs)
		memcpy(head + size, descs, nr * sizeof(*descs));
	assert_int_equal(arrive_bytes(head, sizeof(f->h) - 1), 0);
	return arrive_bytes(head, size + nr * sizeof(*descs));
}

static void message_comes(uint8_t byte)
{
	const struct wfi_srv_frame f = frame(WFI_SRV_SEND, 1, 0);
	uint8_t bytes[sizeof(f.h) + 1];

	memcpy(bytes, &f.h, sizeof(f.h));
	bytes[sizeof(f.h)] = byte;
	assert_int_equal(arrive_bytes(bytes, sizeof(bytes)), sizeof(bytes));
}

static void poll_all(void)
{
	struct weft_wc wcs[64];

	weft_cq_poll(rig->recv_cq, wcs, 64);
	weft_cq_poll(rig->cq, wcs, 64);
}

static void write_is(const struct wfi_srv_desc *d, int status)
{
	struct wfi_srv_frame f = frame(WFI_SRV_WRITE, 3, d[0].len + d[1].len + d[2].len);
	uint8_t bytes[192];

	memset(bytes, 0x77, sizeof(bytes));
	assert_true(arrive(&f, d) > 0);
	assert_int_equal(wfi_srv_rx_bytes(rig->ep, bytes, sizeof(bytes)), f.bytes);
	poll_all();
	assert_int_equal(rig->last.h.kind, WFI_SRV_ACK);
	assert_int_equal(rig->last.status, status);
	if (status)
		assert_int_equal(rig->last.idx, 1);
}

/* rights, ranges and names are ours to hold: pieces before the bad one land, no others */
static void test_held(void **state)
{
	struct wfi_srv_desc d[3] = { desc(0, 64), desc(128, 64), desc(256, 64) };

	(void)state;
	write_is(d, 0);
	assert_int_equal(rig->mem[GUARD + 300], 0x77);
	d[1].off = MEM - 2 * GUARD - 63;
	write_is(d, -ERANGE);
	d[1].off = UINT64_MAX - 10;
	write_is(d, -ERANGE);
	d[1] = desc(128, 64);
	d[1].secret ^= 1;
	write_is(d, -ESTALE);
	d[1] = desc(128, 64);
	d[1].export_idx = 1u << 30;
	memset(rig->mem, 0, MEM);
	write_is(d, -ESTALE);
	assert_int_equal(rig->mem[GUARD], 0x77);
	assert_int_equal(rig->mem[GUARD + 128], 0);
	assert_int_equal(rig->mem[GUARD + 256], 0);
}

/* a region goes while a frame is on its way into it: not one byte more lands there */
static void test_dereg_midway(void **state)
{
	struct wfi_srv_desc d[2] = { desc(0, 1000), desc(2000, 1000) };
	struct wfi_srv_frame f = frame(WFI_SRV_WRITE, 2, 2000);
	uint8_t bytes[2000];

	(void)state;
	memset(bytes, 0x77, sizeof(bytes));
	assert_true(arrive(&f, d) > 0);
	assert_int_equal(wfi_srv_rx_bytes(rig->ep, bytes, 1500), 1500);
	assert_int_equal(wfi_srv_mr_revoke(rig->mr, rig->right.secret), 0);
	memset(rig->mem, 0, MEM);
	assert_int_equal(wfi_srv_rx_bytes(rig->ep, bytes, 500), 500);
	assert_int_equal(rig->mem[GUARD + 2000 + 600], 0);
	poll_all();
	assert_int_equal(rig->last.h.kind, WFI_SRV_ACK);
	assert_int_equal(rig->last.status, -ESTALE);
	assert_int_equal(rig->last.idx, 1);
}

static uint64_t fast_now_ns(struct wfi_env *env)
{
	static uint64_t now_ns;

	(void)env;
	return now_ns += WFI_NSEC_PER_MSEC;
}

/* a region goes while an endpoint that lends its bytes is slow to end: it is told so once */
static void test_dereg_while_ending(void **state)
{
	static const struct wfi_clock_ops fast = { .now_ns = fast_now_ns };
	struct wfi_srv_frame f = frame(WFI_SRV_READ, 1, 0);
	struct wfi_srv_desc d = desc(0, 64);

	(void)state;
	rig->env.clock = &fast;
	rig->holds = true;
	assert_true(arrive(&f, &d) > 0);
	poll_all();
	assert_non_null(rig->held);
	rig->lingers = 1000;
	wfi_srv_lost(rig->ep, -ECONNRESET);
	poll_all();
	assert_int_equal(rig->nr_stops, 1);
	assert_int_equal(wfi_srv_mr_revoke(rig->mr, rig->right.secret), 0);
	assert_true(rig->ep->stopped);
	assert_int_equal(rig->nr_stops, 1);
}

/* messages beyond the room promised, requests beyond what may be open, answers to nothing */
static void test_rules(void **state)
{
	struct wfi_srv_frame f = frame(WFI_SRV_SEND, 4096, 0);
	struct wfi_srv_desc d = desc(0, 64);
	uint8_t bytes[4096] = { 0 };
	unsigned nr = 0;
	int ret;

	(void)state;
	while ((ret = arrive(&f, NULL)) > 0) {
		wfi_srv_rx_bytes(rig->ep, bytes, sizeof(bytes));
		nr++;
	}
	assert_int_equal(ret, -EPROTO);
	assert_true(nr >= 1 && nr <= 2);
	f = frame(WFI_SRV_READ, 1, 0);
	for (nr = 0; (ret = arrive(&f, &d)) > 0; nr++)
		;
	assert_int_equal(ret, -EPROTO);
	assert_int_equal(nr, WFI_SRV_READS);
	f = frame(WFI_SRV_ACK, 0, 0);
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(WFI_SRV_DATA, 0, 64);
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(WFI_SRV_WRITE, 1, 65);
	assert_int_equal(arrive(&f, &d), -EPROTO);
	f = frame(WFI_SRV_CREDIT, 0, 0);
	f.h.credit = 64;
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(0, 0, 0);
	assert_int_equal(arrive(&f, NULL), -EPROTO);
}

/* one answer speaks for all writes before it, and for no read */
static void test_answers(void **state)
{
	struct weft_rkey_src src = {
		.size = sizeof(src), .fd = -1, .blob = &rig->right, .blob_len = sizeof(rig->right)
	};
	struct weft_piece piece = { rig->mem, 0, 64, NULL };
	struct weft_post post = { .pieces = &piece, .nr_pieces = 1 };
	struct wfi_srv_frame f = frame(WFI_SRV_ACK, 0, 0);
	struct weft_rkey *rkey = NULL;
	struct weft_wc wcs[8];
	unsigned i;

	(void)state;
	assert_int_equal(wfi_srv_rkey_import(&rig->ep->base, &src, &rkey), 0);
	piece.rkey = rkey;
	for (i = 0; i < 4; i++) {
		post.cookie = i;
		assert_int_equal(i == 3 ? weft_ep_post_read(&rig->ep->base, &post)
					: weft_ep_post_write(&rig->ep->base, &post),
				 0);
	}
	f.serial = 1;
	assert_true(arrive(&f, NULL) > 0);
	assert_int_equal(weft_cq_poll(rig->cq, wcs, 8), 2);
	assert_int_equal(wcs[1].cookie, 1);
	assert_int_equal(wcs[1].status, 0);
	f.serial = 3;
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(WFI_SRV_DATA, 0, 63);
	f.serial = 3;
	f.idx = 1;
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f.bytes = 64;
	assert_true(arrive(&f, NULL) > 0);
	memset(rig->mem, 0, 64);
	memset(rig->mem + 100, 5, 64);
	wfi_srv_rx_bytes(rig->ep, rig->mem + 100, 64);
	assert_int_equal(rig->mem[63], 5);
	assert_int_equal(weft_cq_poll(rig->cq, wcs, 8), 2);
	assert_int_equal(wcs[1].op, WEFT_WC_READ);
	assert_int_equal(wcs[1].status, 0);
	wfi_srv_rkey_destroy(rkey);
}

/* posts that need no answer come and go in any number before one that does */
static void test_unanswered(void **state)
{
	struct weft_rkey_src src = {
		.size = sizeof(src), .fd = -1, .blob = &rig->right, .blob_len = sizeof(rig->right)
	};
	struct weft_piece piece = { rig->mem, 0, 64, NULL };
	struct weft_post post = { .pieces = &piece, .nr_pieces = 1, .cookie = 7 };
	struct wfi_srv_frame f = frame(WFI_SRV_CREDIT, 0, 0);
	struct weft_rkey *rkey = NULL;
	struct weft_wc wc;
	unsigned i;

	(void)state;
	assert_int_equal(wfi_srv_rkey_import(&rig->ep->base, &src, &rkey), 0);
	piece.rkey = rkey;
	for (i = 0; i < 3 * rig->ep->depth / 2; i++) {
		assert_int_equal(weft_ep_post_send(&rig->ep->base, "some", 4, i, 0), 0);
		f.h.credit += WFI_SRV_RECORD + 4;
		assert_true(arrive(&f, NULL) > 0);
		assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
		assert_int_equal(wc.cookie, i);
	}
	assert_int_equal(weft_ep_post_write(&rig->ep->base, &post), 0);
	f = frame(WFI_SRV_ACK, 0, 0);
	f.serial = i;
	f.h.credit = rig->ep->msg_credit;
	assert_true(arrive(&f, NULL) > 0);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
	assert_int_equal(wc.cookie, 7);
	assert_int_equal(wc.status, 0);
	wfi_srv_rkey_destroy(rkey);
}

/* what a poll had no place for, the next one tells, though nothing has come since; and posts that
 * nobody is told of leave room, whichever queue is polled */
static void test_left_over(void **state)
{
	struct wfi_srv_frame f = frame(WFI_SRV_SEND, 64, 0);
	uint8_t bytes[64];
	struct weft_wc wc;
	unsigned i;

	(void)state;
	for (i = 0; i < 3; i++) {
		memset(bytes, (int)i, sizeof(bytes));
		assert_true(arrive(&f, NULL) > 0);
		wfi_srv_rx_bytes(rig->ep, bytes, sizeof(bytes));
	}
	for (i = 0; i < 3; i++) {
		assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 1);
		assert_int_equal(*(const uint8_t *)wc.data, i);
	}
	assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 0);
	f = frame(WFI_SRV_CREDIT, 0, 0);
	for (i = 0; i < 3 * rig->ep->depth; i++) {
		assert_int_equal(weft_ep_post_send(&rig->ep->base, "some", 4, i, WEFT_POST_QUIET),
				 0);
		f.h.credit += WFI_SRV_RECORD + 4;
		assert_true(arrive(&f, NULL) > 0);
		assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 0);
	}
	wfi_srv_lost(rig->ep, -ECONNRESET);
	/* stopped, settled, told */
	for (i = 0; i < 3; i++)
		poll_all();
	assert_int_equal(rig->ep->state, WFI_EP_CLOSED);
}

/* a message that is here with its head, one that is not, and one that is a byte short; each whole,
 * of what length it may be, and the next frame where it ends */
static void test_messages(void **state)
{
	static const uint16_t lens[] = { 1, 7, 8, 9, 16, 17, 64, 600, WFI_SRV_MSG };
	uint8_t bytes[sizeof(struct wfi_srv_head) + WFI_SRV_MSG + 1];
	struct wfi_srv_frame f;
	struct weft_wc wc;
	unsigned i, here;
	uint16_t k;

	(void)state;
	for (i = 0; i < 3 * WFI_ARRAY_SIZE(lens); i++) {
		f = frame(WFI_SRV_SEND, lens[i / 3], 0);
		memcpy(bytes, &f.h, sizeof(f.h));
		for (k = 0; k <= f.h.nr; k++)
			bytes[sizeof(f.h) + k] = (uint8_t)(k * 7 + i);
		here = i % 3 == 0 ? f.h.nr + 1u : i % 3 == 1 ? 0 : f.h.nr - 1u;
		assert_int_equal(arrive_bytes(bytes, sizeof(f.h) + here),
				 sizeof(f.h) + (here > f.h.nr ? f.h.nr : 0));
		assert_int_equal(wfi_srv_rx_left(rig->ep), here > f.h.nr ? 0 : f.h.nr);
		if (here < f.h.nr) {
			assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 0);
			assert_int_equal(wfi_srv_rx_bytes(rig->ep, bytes + sizeof(f.h),
							  f.h.nr + 1u),
					 f.h.nr);
		}
		assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 1);
		assert_int_equal(wc.op, WEFT_WC_RECV);
		assert_int_equal(wc.len, f.h.nr);
		assert_memory_equal(wc.data, bytes + sizeof(f.h), f.h.nr);
	}
	f = frame(WFI_SRV_SEND, 0, 0);
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(WFI_SRV_SEND, WFI_SRV_MSG + 1, 0);
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(WFI_SRV_CREDIT, 1, 0);
	assert_int_equal(arrive(&f, NULL), -EPROTO);
	f = frame(WFI_SRV_READ, WFI_SRV_PIECES + 1, 0);
	assert_int_equal(arrive_bytes(&f, sizeof(f)), -EPROTO);
}

/* what was taken is told once it is much, and in passing with whatever leaves */
static void test_credit(void **state)
{
	struct wfi_srv_frame f = frame(WFI_SRV_SEND, 64, 0);
	uint8_t bytes[sizeof(f.h) + 64] = { 0 };
	struct weft_wc wc;
	uint32_t taken = 0;

	(void)state;
	memcpy(bytes, &f.h, sizeof(f.h));
	while (!rig->nr_sent && taken <= rig->ep->room) {
		assert_true(arrive_bytes(bytes, sizeof(bytes)) > 0);
		assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 1);
		assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 0);
		taken += WFI_SRV_RECORD + 64;
	}
	assert_int_equal(rig->last.h.kind, WFI_SRV_CREDIT);
	assert_int_equal(rig->last.h.credit, taken);
	assert_in_range(taken, rig->ep->room / 4, rig->ep->room / 2);
	assert_true(arrive_bytes(bytes, sizeof(bytes)) > 0);
	assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 1);
	assert_int_equal(weft_cq_poll(rig->recv_cq, &wc, 1), 0);
	assert_int_equal(rig->nr_sent, 1);
	assert_int_equal(weft_ep_post_send(&rig->ep->base, "some", 4, 0, WEFT_POST_QUIET), 0);
	assert_int_equal(rig->last.h.kind, WFI_SRV_SEND);
	assert_int_equal(rig->last.h.nr, 4);
	assert_int_equal(rig->last.h.credit, taken + WFI_SRV_RECORD + 64);
}

/* Return: how many of at most @max a poll told of; those of @first and after it, in order */
static unsigned come(unsigned max, uint8_t first)
{
	struct weft_wc wcs[8];
	int i, nr;

	memset(wcs, 0xee, sizeof(wcs));
	nr = weft_cq_poll(rig->recv_cq, wcs, max);
	for (i = 0; i < nr; i++) {
		assert_ptr_equal(wcs[i].ep, &rig->ep->base);
		assert_int_equal(wcs[i].op, WEFT_WC_RECV);
		assert_int_equal(wcs[i].status, 0);
		assert_int_equal(wcs[i].cookie, 0);
		assert_int_equal(wcs[i].len, 1);
		assert_int_equal(*(const uint8_t *)wcs[i].data, (uint8_t)(first + i));
	}
	return (unsigned)nr;
}

/* what comes in a poll is told by it, behind what came before, as far as there are places; a poll
 * of another queue tells nothing of it, and nobody hears of it who has shut the endpoint */
static void test_at_once(void **state)
{
	struct weft_wc wc;

	(void)state;
	assert_int_equal(come(8, 0), 0);
	rig->nr_coming = 3;
	assert_int_equal(come(8, 0), 3);
	assert_int_equal(rig->ep->nr_msgs, 0);
	rig->nr_coming = 5;
	assert_int_equal(come(2, 3), 2);
	assert_int_equal(rig->ep->nr_msgs, 3);
	rig->nr_coming = 2;
	assert_int_equal(come(2, 5), 2);
	assert_int_equal(come(8, 7), 3);
	assert_int_equal(come(8, 0), 0);
	rig->nr_coming = 1;
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	rig->nr_coming = 1;
	assert_int_equal(come(8, 10), 2);
	assert_int_equal(come(8, 0), 0);
	/* all was taken, and so it is credited */
	assert_int_equal(rig->ep->msg_taken, 12 * (WFI_SRV_RECORD + 1));
	wfi_srv_ep_shutdown(&rig->ep->base);
	rig->nr_coming = 1;
	assert_int_equal(come(8, 0), 0);
}

/* by turns at once and later, around the end of the ring */
static void test_around(void **state)
{
	uint8_t seen = 0;
	unsigned i;

	(void)state;
	for (i = 0; i < 20000; i++) {
		rig->nr_coming = rnd() % 4;
		if (rnd() % 2)
			wfi_srv_stir(rig->ep);
		seen = (uint8_t)(seen + come(1 + rnd() % 3, seen));
		while (rig->ep->nr_msgs > 6)
			seen = (uint8_t)(seen + come(8, seen));
	}
}

/* a message that has a short way takes no frame; one that finds it closed takes the long one */
static void test_darts(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 3; i++) {
		rig->darts = i != 1;
		assert_int_equal(weft_ep_post_send(&rig->ep->base, "some", 4, i, WEFT_POST_QUIET),
				 0);
		assert_int_equal(rig->nr_sent, i + 1);
		assert_int_equal(rig->nr_darts, i < 2 ? 1 : 2);
		assert_int_equal(rig->last.h.to, rig->ep->peer_id);
		assert_int_equal(rig->last.h.magic, WFI_SRV_FRAME_MAGIC);
		assert_int_equal(rig->last.h.kind, WFI_SRV_SEND);
		assert_int_equal(rig->last.h.nr, 4);
		assert_memory_equal((uint8_t *)&rig->last + sizeof(rig->last.h), "some", 4);
		assert_int_equal(rig->ep->nr_free, WFI_SRV_TX);
	}
	assert_int_equal(rig->ep->msg_sent, 3 * (WFI_SRV_RECORD + 4));
}

/* ---- parts of a read ---- */

#define PART_READ (4 * WFI_SRV_PART)

static struct weft_rkey *right_import(void)
{
	struct weft_rkey_src src = { .size = sizeof(src),
				     .access = WEFT_ACCESS_REMOTE_READ,
				     .fd = -1,
				     .blob = &rig->right,
				     .blob_len = sizeof(rig->right) };
	struct weft_rkey *rkey;

	assert_int_equal(wfi_srv_rkey_import(&rig->ep->base, &src, &rkey), 0);
	/* more than there is: the peer is this test, and does not look */
	rkey->len = PART_READ;
	return rkey;
}

/* the bytes of the read that arrives */
static void bytes_arrive(const uint8_t *from, size_t len)
{
	assert_int_equal(wfi_srv_rx_bytes(rig->ep, from, len), len);
}

static void read_post(const struct weft_rkey *rkey, uint8_t *to, uint32_t flags)
{
	const struct weft_piece pieces[2] = {
		{ .local = to, .len = PART_READ / 2, .rkey = rkey },
		{ .local = to + PART_READ / 2,
		  .remote = PART_READ / 2,
		  .len = PART_READ / 2,
		  .rkey = rkey },
	};
	const struct weft_post post = {
		.pieces = pieces, .nr_pieces = 2, .flags = flags, .cookie = 77
	};

	assert_int_equal(weft_ep_post_read(&rig->ep->base, &post), 0);
	assert_int_equal(rig->last.h.kind, WFI_SRV_READ);
}

static void answer_begins(int32_t status, uint32_t idx)
{
	struct wfi_srv_frame f = frame(WFI_SRV_DATA, 0, idx * (uint64_t)(PART_READ / 2));

	f.serial = rig->last.serial;
	f.status = status;
	f.idx = idx;
	assert_true(arrive(&f, NULL) > 0);
}

/* what has landed of a read is told before the rest is here, to who asked for that */
static void test_parts(void **state)
{
	uint8_t *from = calloc(1, PART_READ), *to = calloc(1, PART_READ);
	struct weft_rkey *rkey = right_import();
	struct weft_wc wc;

	(void)state;
	read_post(rkey, to, WEFT_POST_PARTS);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	answer_begins(0, 2);
	bytes_arrive(from, WFI_SRV_PART - 1);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	bytes_arrive(from, 10);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
	assert_int_equal(wc.op, WEFT_WC_PART);
	assert_int_equal(wc.cookie, 77);
	assert_int_equal(wc.len, WFI_SRV_PART + 9);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	bytes_arrive(from, PART_READ - WFI_SRV_PART - 9);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
	assert_int_equal(wc.op, WEFT_WC_READ);
	assert_int_equal(wc.status, 0);
	/* the second piece is nowhere: the first one is told of as it comes */
	read_post(rkey, to, WEFT_POST_PARTS);
	answer_begins(-ERANGE, 1);
	bytes_arrive(from, WFI_SRV_PART);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
	assert_int_equal(wc.len, WFI_SRV_PART);
	bytes_arrive(from, PART_READ / 2 - WFI_SRV_PART);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
	assert_int_equal(wc.status, -ERANGE);
	assert_int_equal(wc.idx, 1);
	/* nobody asked */
	read_post(rkey, to, 0);
	answer_begins(0, 2);
	bytes_arrive(from, PART_READ - 1);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 0);
	bytes_arrive(from, 1);
	assert_int_equal(weft_cq_poll(rig->cq, &wc, 1), 1);
	assert_int_equal(wc.op, WEFT_WC_READ);
	wfi_srv_rkey_destroy(rkey);
	free(from);
	free(to);
}

static uint64_t bytes_summed;

static uint32_t sum_bytes(uint32_t sum, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	for (bytes_summed += len; len--; p++)
		sum = sum * 31 + *p + 1;
	return sum;
}

static void sum_done(void *ctx, int res)
{
	*(int *)ctx = res;
}

/* a transfer sums up what has landed of its read while the rest comes */
static void test_summed_along(void **state)
{
	static const struct wfi_sum_ops ops = { .sum = sum_bytes };
	uint8_t *from = malloc(PART_READ), *to = calloc(1, PART_READ);
	struct weft_rkey *rkey = right_import();
	struct wfi_xfer_engine_opts eng_opts = { .env = &rig->env };
	struct wfi_piece pieces[2] = {
		{ .local = to, .len = PART_READ / 2 },
		{ .local = to + PART_READ / 2,
		  .remote = PART_READ / 2,
		  .len = PART_READ / 2,
		  .block = 1 },
	};
	int32_t results[2];
	uint32_t sums[2], i;
	int res = 1;
	struct wfi_xfer_opts o = { .ep = &rig->ep->base,
				   .rkeys = &rkey,
				   .nr_rkeys = 1,
				   .pieces = pieces,
				   .nr_pieces = 2,
				   .nr_blocks = 2,
				   .results = results,
				   .sum_ops = &ops,
				   .sums = sums,
				   .deadline_ns = UINT64_MAX,
				   .done = sum_done,
				   .ctx = &res };
	struct wfi_xfer_engine *eng;
	struct wfi_xfer *x;

	(void)state;
	for (i = 0; i < PART_READ; i++)
		from[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(wfi_xfer_engine_create(&eng_opts, &eng), 0);
	assert_int_equal(wfi_xfer_submit(eng, &o, &x), 0);
	wfi_xfer_poll(eng, wfi_now(&rig->env));
	answer_begins(0, 2);
	bytes_summed = 0;
	wfi_xfer_poll(eng, wfi_now(&rig->env));
	assert_int_equal(bytes_summed, 0);
	bytes_arrive(from, WFI_SRV_PART + 100);
	wfi_xfer_poll(eng, wfi_now(&rig->env));
	assert_int_equal(bytes_summed, WFI_SRV_PART + 100);
	bytes_arrive(from + WFI_SRV_PART + 100, 2 * WFI_SRV_PART);
	wfi_xfer_poll(eng, wfi_now(&rig->env));
	assert_int_equal(bytes_summed, 3 * WFI_SRV_PART + 100);
	assert_int_equal(res, 1);
	/* what is left is too little to be told of before the end */
	bytes_arrive(from + 3 * WFI_SRV_PART + 100, WFI_SRV_PART - 100);
	for (i = 0; i < 4 && res == 1; i++)
		wfi_xfer_poll(eng, wfi_now(&rig->env));
	assert_int_equal(res, 0);
	assert_int_equal(bytes_summed, PART_READ);
	assert_memory_equal(from, to, PART_READ);
	for (i = 0; i < 2; i++) {
		assert_int_equal(results[i], 0);
		assert_int_equal(sums[i], sum_bytes(0, pieces[i].local, PART_READ / 2));
	}
	wfi_xfer_engine_destroy(eng);
	wfi_srv_rkey_destroy(rkey);
	free(from);
	free(to);
}

/* right but for a word or two, or all wrong: nothing outside of what was exported is touched */
static void test_noise(void **state)
{
	static const uint64_t odd[] = { 0, 1, 64, UINT32_MAX, UINT64_MAX, MEM, MEM - GUARD };
	struct wfi_srv_desc d[4];
	uint8_t bytes[512];
	unsigned i, k, good = 0;
	uint32_t n;

	(void)state;
	memset(rig->mem, 0x5a, MEM);
	memset(bytes, 0xa5, sizeof(bytes));
	for (i = 0; i < 200000; i++) {
		struct wfi_srv_frame f = frame(1 + rnd() % 7, (uint16_t)(rnd() % 5), 0);
		uint8_t *word = (uint8_t *)&f + rnd() % sizeof(f);

		/* what breaks an endpoint is known to; it goes on here for the sake of the noise */
		rig->ep->bye = false;
		for (k = 0; k < f.h.nr; k++) {
			d[k] = desc(rnd() % 3 ? rnd() % MEM : odd[rnd() % 7],
				    (uint32_t)(rnd() % 8 ? rnd() % 100 : odd[rnd() % 7]));
			f.bytes += f.h.kind == WFI_SRV_WRITE ? d[k].len : 0;
		}
		f.h.nr = f.h.kind > WFI_SRV_READ ? 0 : f.h.nr;
		if (f.h.kind == WFI_SRV_SEND)
			f.h.nr = (uint16_t)(rnd() % 600);
		if (!(rnd() % 4))
			*word ^= (uint8_t)rnd();
		if ((f.h.nr > 4 && !is_short(f.h.kind)) || arrive(&f, d) <= 0)
			continue;
		good++;
		while (wfi_srv_rx_left(rig->ep) && wfi_srv_rx_left(rig->ep) < 4096) {
			n = (uint32_t)(1 + rnd() % sizeof(bytes));
			wfi_srv_rx_bytes(rig->ep, bytes, n);
		}
		if (wfi_srv_rx_left(rig->ep))
			rig->ep->rx.left = 0;
		poll_all();
	}
	assert_true(good > 1000);
	for (i = 0; i < GUARD; i++) {
		assert_int_equal(rig->mem[i], 0x5a);
		assert_int_equal(rig->mem[MEM - 1 - i], 0x5a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dereg_midway, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dereg_while_ending, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unanswered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_credit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_around, setup, teardown),
		cmocka_unit_test_setup_teardown(test_darts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_summed_along, setup, teardown),
		cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
