/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers whose small pieces go in messages: two engines, a costly provider between them (any
 * one, behind the fault injector, which says that its pieces cost), pieces of all sizes mixed.
 * Then each side at its worst: messages made of noise, answers that come late, twice or never, a
 * peer that takes none, and one that is killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "conf.h"
#include "tests/rnd.h"
#include "transport/gather.h"
#include "weft_internal/transport_registry.h"

#define NR 400u
#define PIECE_MAX (64u << 10)
#define GUARD 4096u /* at both ends of what is served: nobody may touch it */
#define LONG_NS (20 * WFI_NSEC_PER_SEC)

static const struct weft_transport *provider;

struct end {
	struct wfi_xfer_engine *eng;
	struct wfi_gather *link;
	bool closed;
	int broken; /* what wfi_gather_event() said of the peer */
};

struct duo {
	struct weft_transport *t;
	struct pair p;
	struct end a, b;
	struct weft_rkey *rkeys[2]; /* b's heap but for the guards, with all rights; to read only */
	struct wfi_gather_name names[2];
	struct wfi_piece pieces[NR];
	int32_t results[NR];
	unsigned nr_done;
	int res;
	bool lend; /* pieces are read from where they lie, where the provider can */
};

static void fill(uint8_t *mem, size_t len)
{
	uint64_t word;
	size_t i;

	for (i = 0; i + 8 <= len; i += 8) {
		word = rnd();
		memcpy(mem + i, &word, 8);
	}
}

static bool all(const uint8_t *p, size_t len, uint8_t value)
{
	return p[0] == value && !memcmp(p, p + 1, len - 1);
}

static void end_open(struct end *e, struct wfi_env *env, struct weft_ep *ep)
{
	struct wfi_xfer_engine_opts o = { .env = env, .grace_ns = 5 * WFI_NSEC_PER_MSEC };

	memset(e, 0, sizeof(*e));
	assert_int_equal(wfi_xfer_engine_create(&o, &e->eng), 0);
	assert_int_equal(wfi_gather_open(e->eng, ep, 0, &e->link), 0);
	assert_true(wfi_gather_threshold(e->link) > 64);
}

static void end_close(struct end *e)
{
	wfi_gather_close(e->link);
	wfi_xfer_engine_destroy(e->eng);
}

static struct weft_transport *costly(const struct weft_transport *t)
{
	struct wfi_fault_opts o = { .seed = 1, .cost_per_piece_ns = 3000 };
	struct weft_transport *out = NULL;

	assert_int_equal(wfi_fault_create(t, &o, &out), 0);
	return out;
}

static int setup(void **state)
{
	struct weft_export_opts part = {
		.size = sizeof(part),
		.off = GUARD,
		.len = SIDE_MEM - 2 * GUARD,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
	};
	struct duo *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	d->t = costly(provider);
	pair_open(&d->p, d->t, 256, 64);
	end_open(&d->a, &d->p.env, d->p.a.ep);
	end_open(&d->b, &d->p.env, d->p.b.ep);
	d->rkeys[0] = import(d->p.a.ep, d->p.b.heap_mr, &part);
	d->rkeys[1] = import(d->p.a.ep, d->p.b.mr, &part);
	assert_int_equal(wfi_gather_serve(d->b.link, d->p.b.heap_mr, &part, &d->names[0]), 0);
	part.access = WEFT_ACCESS_REMOTE_READ;
	assert_int_equal(wfi_gather_serve(d->b.link, d->p.b.mr, &part, &d->names[1]), 0);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct duo *d = *state;

	end_close(&d->a);
	end_close(&d->b);
	d->p.a.t->rkey_destroy(d->rkeys[0]);
	d->p.a.t->rkey_destroy(d->rkeys[1]);
	pair_close(&d->p);
	wfi_fault_destroy(d->t);
	free(d);
	return 0;
}

static void end_poll(struct end *e, struct side *s)
{
	struct weft_wc wcs[16];
	int i, ret, n = weft_cq_poll(s->recv_cq, wcs, 16);

	for (i = 0; i < n; i++) {
		ret = wfi_gather_event(e->link, &wcs[i]);
		if (ret < 0)
			e->broken = ret;
		e->closed |= wcs[i].op == WEFT_WC_CLOSED;
	}
	wfi_xfer_poll(e->eng, wfi_now(s->dev->env));
}

static void poll_both(struct duo *d)
{
	end_poll(&d->a, &d->p.a);
	end_poll(&d->b, &d->p.b);
}

static void on_done(void *ctx, int res)
{
	struct duo *d = ctx;

	d->nr_done++;
	d->res = res;
}

static struct wfi_xfer *submit(struct duo *d, enum wfi_xfer_dir dir, unsigned nr, uint64_t ns)
{
	struct wfi_xfer_opts o = {
		.ep = d->p.a.ep,
		.dir = dir,
		.local_mr = d->lend ? d->p.a.heap_mr : NULL,
		.rkeys = d->rkeys,
		.nr_rkeys = 2,
		.pieces = d->pieces,
		.nr_pieces = nr,
		.nr_blocks = nr,
		.results = d->results,
		.deadline_ns = wfi_now(&d->p.env) + ns,
		.done = on_done,
		.ctx = d,
		.gather = d->a.link,
		.names = d->names,
	};
	struct wfi_xfer *x = NULL;

	d->nr_done = 0;
	assert_int_equal(wfi_xfer_submit(d->a.eng, &o, &x), 0);
	return x;
}

static void run(struct duo *d)
{
	while (!d->nr_done)
		poll_both(d);
	assert_int_equal(d->nr_done, 1);
}

/* pieces of 0 .. 64 KiB, most of them small, one behind the other here, shuffled there */
static unsigned pieces_draw(struct duo *d, uint32_t rkey, bool merge)
{
	uint64_t local = 0, remote = 0, room = SIDE_MEM - 2 * GUARD;
	unsigned i;

	for (i = 0; i < NR; i++) {
		uint64_t len = rnd() % (rnd() % 4 ? 3000 : PIECE_MAX + 1);

		if (remote + len + 64 > room)
			break;
		d->pieces[i] = (struct wfi_piece){
			.local = d->p.a.heap + local,
			.remote = remote,
			.rkey = rkey,
			.block = i,
			.len = len,
		};
		local += len;
		remote += len + (merge && rnd() % 2 ? 0 : rnd() % 64);
		/* the same block goes on, right behind it: both may come as one */
		if (merge && i && rnd() % 3)
			d->pieces[i].block = d->pieces[i - 1].block;
	}
	return i;
}

static uint8_t *there(struct duo *d, const struct wfi_piece *p)
{
	return (p->rkey ? d->p.b.mem : d->p.b.heap) + GUARD + p->remote;
}

static void test_mixed(void **state)
{
	struct duo *d = *state;
	unsigned i, round, nr;

	for (round = 0; round < 60; round++) {
		enum wfi_xfer_dir dir = round % 2 ? WFI_XFER_READ : WFI_XFER_WRITE;

		d->lend = round % 5 < 3;
		nr = pieces_draw(d, dir == WFI_XFER_READ && round % 4 == 1, round % 3 == 0);
		fill(d->p.a.heap, SIDE_MEM);
		fill(d->p.b.mem, SIDE_MEM);
		memset(d->p.b.heap, 0x5a, SIDE_MEM);
		submit(d, dir, nr, LONG_NS);
		run(d);
		assert_int_equal(d->res, 0);
		for (i = 0; i < nr; i++) {
			const struct wfi_piece *p = &d->pieces[i];

			assert_memory_equal(p->local, there(d, p), p->len);
			assert_int_equal(d->results[i], 0);
		}
		assert_true(all(d->p.b.heap, GUARD, 0x5a));
		assert_true(all(d->p.b.heap + SIDE_MEM - GUARD, GUARD, 0x5a));
	}
	assert_false(d->a.broken || d->b.broken);
	assert_true(d->a.link->serial > 100);
	assert_int_equal(d->a.link->nr_busy, 0);
}

/* blocks over a region that was taken back fail, those beside them arrive */
static void test_unserved(void **state)
{
	struct duo *d = *state;
	unsigned i, dir;

	wfi_gather_unserve(d->b.link, d->names[1]);
	for (dir = WFI_XFER_READ; dir <= WFI_XFER_WRITE; dir++) {
		fill(d->p.b.heap, SIDE_MEM);
		memset(d->p.a.heap, 7, SIDE_MEM);
		for (i = 0; i < NR; i++)
			d->pieces[i] = (struct wfi_piece){ .local = d->p.a.heap + i * 128ull,
							   .remote = i * 200ull,
							   .rkey = i % 5 == 4,
							   .block = i,
							   .len = 100 };
		submit(d, dir, NR, LONG_NS);
		run(d);
		assert_int_equal(d->res, -ESTALE);
		for (i = 0; i < NR; i++) {
			assert_int_equal(d->results[i], i % 5 == 4 ? -ESTALE : 0);
			if (i % 5 != 4)
				assert_memory_equal(d->pieces[i].local, there(d, &d->pieces[i]),
						    100);
		}
	}
	/* its place is given to the next, under another name */
	assert_int_equal(wfi_gather_serve(d->b.link, d->p.b.mr, NULL, &d->names[1]), 0);
	submit(d, WFI_XFER_READ, NR, LONG_NS);
	run(d);
	assert_int_equal(d->res, 0);
	assert_false(d->a.broken || d->b.broken);
}

/* rights and ranges of the serving side hold, whatever our rkeys say */
static void test_refused(void **state)
{
	struct duo *d = *state;

	/* names are exchanged: what may be read only stands for what may be written */
	d->pieces[0] = (struct wfi_piece){ .local = d->p.a.heap, .len = 64 };
	d->names[0] = d->names[1];
	memset(d->p.b.mem, 1, SIDE_MEM);
	submit(d, WFI_XFER_WRITE, 1, LONG_NS);
	run(d);
	assert_int_equal(d->results[0], -EACCES);
	assert_true(all(d->p.b.mem, SIDE_MEM, 1));
}

/* a READ that is cancelled is over at once, and its answer lands nowhere; the link goes on */
static void test_late_answers(void **state)
{
	struct duo *d = *state;
	struct wfi_xfer *x;
	unsigned i, round;

	for (i = 0; i < NR; i++)
		d->pieces[i] = (struct wfi_piece){ .local = d->p.a.heap + i * 128ull,
						   .remote = i * 200ull,
						   .block = i,
						   .len = 100 };
	memset(d->p.b.heap, 9, SIDE_MEM);
	for (round = 0; round < 20; round++) {
		memset(d->p.a.heap, 3, SIDE_MEM);
		x = submit(d, WFI_XFER_READ, NR, round % 2 ? 1 : LONG_NS);
		end_poll(&d->a, &d->p.a);
		assert_true(round % 2 || d->a.link->nr_busy > 4);
		if (!d->nr_done && !(round % 2))
			wfi_xfer_cancel(d->a.eng, x);
		wfi_xfer_poll(d->a.eng, wfi_now(&d->p.env));
		assert_int_equal(d->nr_done, 1);
		assert_int_equal(d->res, round % 2 ? -ETIMEDOUT : -ECANCELED);
		for (i = 0; i < 100; i++)
			poll_both(d);
		assert_int_equal(d->a.link->nr_busy, 0);
		assert_true(all(d->p.a.heap, SIDE_MEM, 3));
		assert_int_equal(d->nr_done, 1);
	}
	submit(d, WFI_XFER_READ, NR, LONG_NS);
	run(d);
	assert_int_equal(d->res, 0);
	assert_true(all(d->p.a.heap, 100, 9));
}

/* a WRITE is awaited; a peer that never answers costs the endpoint, by the deadline plus grace */
static void test_deadline(void **state)
{
	struct duo *d = *state;
	unsigned i;

	for (i = 0; i < NR; i++)
		d->pieces[i] = (struct wfi_piece){
			.local = d->p.a.heap, .remote = i * 200ull, .block = i, .len = 100
		};
	d->lend = true;
	submit(d, WFI_XFER_WRITE, NR, 5 * WFI_NSEC_PER_MSEC);
	while (!d->nr_done)
		end_poll(&d->a, &d->p.a);
	assert_int_equal(d->res, -ETIMEDOUT);
	for (i = 0; i < NR; i++)
		assert_int_equal(d->results[i], -ETIMEDOUT);
	while (!d->a.closed)
		end_poll(&d->a, &d->p.a);
	submit(d, WFI_XFER_WRITE, NR, LONG_NS);
	while (!d->nr_done)
		end_poll(&d->a, &d->p.a);
	assert_int_equal(d->res, -ENOTCONN);
}

/* a WRITE that is answered before the provider gave its pieces back is over when it did */
static void test_sent_last(void **state)
{
	struct duo *d = *state;
	struct weft_wc wc;

	d->pieces[0] = (struct wfi_piece){ .local = d->p.a.heap, .len = 100 };
	d->lend = true;
	submit(d, WFI_XFER_WRITE, 1, LONG_NS);
	wfi_xfer_poll(d->a.eng, wfi_now(&d->p.env));
	assert_int_equal(d->a.link->nr_busy, 1);
	do
		end_poll(&d->b, &d->p.b);
	while (!weft_cq_poll(d->p.a.recv_cq, &wc, 1));
	assert_int_equal(wfi_gather_event(d->a.link, &wc), 1);
	/* its sender has one answer, and no more */
	assert_int_equal(wfi_gather_event(d->a.link, &wc), -EPROTO);
	assert_int_equal(d->a.link->nr_busy, 1);
	assert_int_equal(d->nr_done, 0);
	run(d);
	assert_int_equal(d->res, 0);
	assert_int_equal(d->a.link->nr_busy, 0);
}

static void test_peer_lost(void **state)
{
	struct duo *d = *state;
	struct weft_wc wc;
	unsigned i;

	for (i = 0; i < NR; i++)
		d->pieces[i] = (struct wfi_piece){ .local = d->p.a.heap + i * 128ull,
						   .remote = i * 200ull,
						   .block = i,
						   .len = 100 };
	submit(d, WFI_XFER_READ, NR, LONG_NS);
	end_poll(&d->a, &d->p.a);
	assert_true(d->a.link->nr_busy > 4);
	wc = wait_wc(&d->p.b, d->p.b.recv_cq);
	assert_int_equal(wfi_gather_event(d->b.link, &wc), 1);
	d->p.b.t->ep_shutdown(d->p.b.ep);
	while (!d->nr_done || !d->a.closed || !d->b.closed)
		poll_both(d);
	assert_int_equal(d->nr_done, 1);
	assert_int_equal(d->res, -ECONNRESET);
	assert_int_equal(d->results[0], 0); /* it was answered in time */
	assert_int_equal(d->results[NR - 1], -ECONNRESET);
}

/* answers that find the queue full are kept, and go when there is room */
static void test_owing(void **state)
{
	struct duo *d = *state;
	uint8_t junk[4000] = { 0 };
	struct weft_wc wc;
	unsigned i, sent = 0;

	while (weft_ep_post_send(d->p.b.ep, junk, sizeof(junk), 0, WEFT_POST_QUIET) == 0) {
		wfi_xfer_poll(d->b.eng, wfi_now(&d->p.env));
		sent++;
	}
	assert_true(sent > 16);
	for (i = 0; i < NR; i++)
		d->pieces[i] = (struct wfi_piece){ .local = d->p.a.heap + i * 128ull,
						   .remote = i * 200ull,
						   .block = i,
						   .len = 100 };
	submit(d, WFI_XFER_READ, NR, LONG_NS);
	wfi_xfer_poll(d->a.eng, wfi_now(&d->p.env));
	for (i = 0; i < 50; i++)
		end_poll(&d->b, &d->p.b);
	assert_true(d->b.link->nr_owed > 4);
	assert_true(wfi_xfer_next_event_ns(d->b.eng) <= wfi_now(&d->p.env) + WFI_NSEC_PER_MSEC);
	assert_int_equal(d->nr_done, 0);
	while (sent) {
		wc = wait_wc(&d->p.a, d->p.a.recv_cq);
		assert_int_equal(wfi_gather_event(d->a.link, &wc), 0);
		sent--;
	}
	run(d);
	assert_int_equal(d->res, 0);
	assert_int_equal(d->b.link->nr_owed, 0);
}

/* ---- hostile ---- */

static struct wfi_gather_desc desc_draw(const struct wfi_gather_name *names)
{
	static const uint64_t odd[] = { 0,	  1,	    UINT32_MAX,	      UINT64_MAX,
					SIDE_MEM, 1u << 31, SIDE_MEM - GUARD, UINT64_MAX - 63 };
	struct wfi_gather_desc desc = {
		.off = rnd() % 8 ? rnd() % (SIDE_MEM - 2 * GUARD - 64) : odd[rnd() % 8],
		.len = (uint32_t)(rnd() % 16 ? rnd() % 64 : odd[rnd() % 8]),
		.name = names[rnd() % 2],
	};

	if (!(rnd() % 8))
		desc.name.gen ^= (uint16_t)rnd();
	if (!(rnd() % 8))
		desc.name.region ^= (uint16_t)rnd();
	return desc;
}

/* a message that is right but for a few words. Return: its length */
static uint32_t message_draw(uint8_t *buf, const struct wfi_gather *link,
			     const struct wfi_gather_name *names)
{
	struct wfi_gather_hdr hdr = {
		.magic = WFI_GATHER_MAGIC,
		.kind = (uint16_t)(1 + rnd() % 3),
		.nr = (uint16_t)(1 + rnd() % 16),
		.slot = (uint32_t)(rnd() % 17),
		.status = rnd() % 2 ? 0 : (int32_t) - (rnd() % 5000),
	};
	uint32_t i, bytes = 0, len = sizeof(hdr);

	hdr.serial = rnd() % 8 ? link->slots[hdr.slot % 16].serial : (uint32_t)rnd();
	for (i = 0; i < hdr.nr && hdr.kind != WFI_GATHER_ANSWER; i++, len += 16) {
		struct wfi_gather_desc desc = desc_draw(names);

		memcpy(buf + len, &desc, sizeof(desc));
		if (hdr.kind == WFI_GATHER_WRITE)
			bytes += desc.len % 64;
	}
	if (hdr.kind == WFI_GATHER_ANSWER)
		bytes = hdr.status ? 100u * hdr.nr : 4072;
	if (hdr.kind == WFI_GATHER_ANSWER && !hdr.status)
		hdr.nr = 41;
	len = rnd() % 8 ? len + bytes : 4 + (uint32_t)(rnd() % 4000);
	if (!(rnd() % 8))
		hdr.nr = (uint16_t)rnd();
	memcpy(buf, &hdr, sizeof(hdr));
	return len;
}

/* noise goes into the link of @e as if its peer had sent it. Return: how many were refused */
static unsigned fuzz(struct duo *d, struct end *e, struct side *s, unsigned rounds)
{
	uint8_t *buf, msg[4096];
	unsigned i, refused = 0;
	uint32_t len;
	int ret;

	for (i = 0; i < rounds; i++) {
		struct weft_wc wc = { .ep = s->ep, .op = WEFT_WC_RECV };

		fill(msg, sizeof(msg));
		len = message_draw(msg, e->link, d->names);
		buf = malloc(len); /* the end of the message is the end of the memory */
		assert_non_null(buf);
		memcpy(buf, msg, len);
		wc.data = buf;
		wc.len = len;
		ret = wfi_gather_event(e->link, &wc);
		assert_true(ret == 1 || ret == -EPROTO);
		refused += ret < 0;
		free(buf);
		/* answers to noise, which nobody asked for */
		while (weft_cq_poll((s == &d->p.a ? &d->p.b : &d->p.a)->recv_cq, &wc, 1) == 1)
			;
		wfi_xfer_poll(e->eng, wfi_now(&d->p.env));
	}
	return refused;
}

static void test_hostile_requests(void **state)
{
	struct duo *d = *state;
	unsigned refused;

	memset(d->p.b.heap, 0x5a, SIDE_MEM);
	memset(d->p.b.mem, 0xa5, SIDE_MEM);
	refused = fuzz(d, &d->b, &d->p.b, 20000);
	assert_true(refused > 100 && refused < 20000);
	/* one is writable, but for its guards; the other is not */
	assert_true(all(d->p.b.heap, GUARD, 0x5a));
	assert_true(all(d->p.b.heap + SIDE_MEM - GUARD, GUARD, 0x5a));
	assert_false(all(d->p.b.heap, SIDE_MEM, 0x5a));
	assert_true(all(d->p.b.mem, SIDE_MEM, 0xa5));
}

/* a holder that answers with noise while we read: a result for each block, no byte beside them */
static void test_hostile_answers(void **state)
{
	struct duo *d = *state;
	unsigned i, round, good = 0;

	for (round = 0; round < 200; round++) {
		memset(d->p.a.heap, 3, SIDE_MEM);
		for (i = 0; i < 200; i++)
			d->pieces[i] = (struct wfi_piece){ .local = d->p.a.heap + i * 128ull,
							   .remote = i * 200ull,
							   .block = i,
							   .len = 100 };
		submit(d, WFI_XFER_READ, 200, LONG_NS);
		wfi_xfer_poll(d->a.eng, wfi_now(&d->p.env));
		fuzz(d, &d->a, &d->p.a, 300);
		while (!d->nr_done) {
			wfi_gather_lost(d->a.link, -ECONNRESET);
			wfi_xfer_poll(d->a.eng, wfi_now(&d->p.env));
		}
		d->a.link->lost = false;
		assert_int_equal(d->nr_done, 1);
		for (i = 0; i < 200; i++)
			assert_true(all(d->p.a.heap + i * 128 + 100, 28, 3));
		for (i = 0; i < 200; i++)
			good += !d->results[i];
		assert_true(all(d->p.a.heap + 200 * 128, SIDE_MEM - 200 * 128, 3));
	}
	assert_true(good > 100); /* some of the noise was as it should be, but for the bytes */
}

/* ---- the threshold ---- */

static void test_threshold(void **state)
{
	struct weft_caps caps = { .cost_per_piece_ns = 1000, .cost_per_mib_ns = 50000 };
	uint32_t last = 0, limit, ns;

	(void)state;
	limit = wfi_gather_limit(&caps, 4072, 5, 100000);
	assert_true(limit > 500 && limit < 2036);
	/* dearer copies, fewer pieces; dearer pieces, more; never more than half a message */
	assert_true(wfi_gather_limit(&caps, 4072, 5, 1000000) < limit);
	assert_true(wfi_gather_limit(&caps, 65512, 5, 100000) > limit);
	for (ns = 1; ns < 1u << 31; ns *= 2) {
		caps.cost_per_piece_ns = ns;
		limit = wfi_gather_limit(&caps, 4072, 5, 100000);
		assert_true(limit >= last && limit <= 2036);
		last = limit;
	}
	caps.cost_per_piece_ns = 3;
	assert_int_equal(wfi_gather_limit(&caps, 4072, 5, 100000), 0);
	caps = (struct weft_caps){ .cost_per_piece_ns = UINT32_MAX, .cost_per_mib_ns = UINT64_MAX };
	wfi_gather_limit(&caps, 232, UINT64_MAX, UINT64_MAX);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mixed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unserved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_late_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sent_last, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peer_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_answers, setup, teardown),
		cmocka_unit_test(test_threshold),
	};

	provider = argc == 2 ? wfi_transport_find(NULL, argv[1]) : NULL;
	if (!provider) {
		fprintf(stderr, "usage: %s PROVIDER\n", argv[0]);
		return 2;
	}
	return cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
}
