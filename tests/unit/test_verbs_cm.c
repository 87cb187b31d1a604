/* SPDX-License-Identifier: Apache-2.0 */
/* Meeting a peer through a connection manager that says what it is told: both sides, and lies */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "mock_rdmacm.h"
#include "mock_verbs.h"
#include "transport/verbs/cm.h"
#include "weft_internal/log.h"

struct rig {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct weft_device *dev;
	struct weft_cq *cq;
	struct weft_ep *ep;
	struct weft_port *port;
	struct rdma_cm_id *listener;
};

static const struct weft_transport *const t = &wfi_transport_verbs;
static char lines[4096];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	size_t len = strlen(lines);

	(void)ctx;
	(void)level;
	snprintf(lines + len, sizeof(lines) - len, "%s\n", line);
}

static int setup(void **state)
{
	struct weft_cq_opts cq = { .size = sizeof(cq) };
	struct weft_ep_opts ep = { .size = sizeof(ep) };
	struct weft_port_opts port = { .size = sizeof(port), .addr = "10.99.0.1:7471" };
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	mock_reset();
	mock_cm_reset();
	lines[0] = '\0';
	wfi_log_set_sink(sink, NULL);
	assert_int_equal(wfi_sim_create(7, &r->sim), 0);
	r->env = wfi_sim_node(r->sim, 0);
	assert_int_equal(t->device_open(t, r->env, NULL, &r->dev), 0);
	assert_true(r->dev->caps.flags & WEFT_CAP_PORT);
	assert_int_equal(t->cq_create(r->dev, &cq, &r->cq), 0);
	ep.send_cq = r->cq;
	ep.recv_cq = r->cq;
	assert_int_equal(t->ep_create(r->dev, &ep, &r->ep), 0);
	assert_int_equal(t->port_open(r->dev, &port, &r->port), 0);
	r->listener = mock_cm.last;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	t->ep_destroy(r->ep);
	t->port_close(r->port);
	t->cq_destroy(r->cq);
	t->device_close(r->dev);
	assert_int_equal(mock.nr_mrs + mock.nr_qps + mock.nr_cqs + mock.nr_srqs, 0);
	assert_int_equal(mock_cm.nr_ids, 0);
	wfi_sim_destroy(r->sim);
	wfi_log_set_sink(NULL, NULL);
	free(r);
	return 0;
}

/* Return: how many completions, the last in @wc */
static int polls(struct rig *r, struct weft_wc *wc)
{
	unsigned i;
	int n = 0;

	for (i = 0; i < 64; i++)
		n += weft_cq_poll(r->cq, wc, 1);
	return n;
}

static void dial(struct rig *r)
{
	struct weft_dial_opts o = { .size = sizeof(o), .addr = "10.99.0.2:7471", .ticket = "t" };

	assert_int_equal(t->ep_dial(r->ep, &o), 0);
	assert_int_equal(t->ep_dial(r->ep, &o), -EISCONN);
}

/* dials, and takes what was sent to the peer */
static struct wfi_verbs_hello dial_until_asked(struct rig *r)
{
	struct wfi_verbs_hello h;
	struct weft_wc wc;

	dial(r);
	assert_int_equal(polls(r, &wc), 0);
	assert_int_equal(mock_cm.nr_connects, 1);
	assert_int_equal(mock_cm.said_len, sizeof(h));
	memcpy(&h, mock_cm.said, sizeof(h));
	return h;
}

static void seal(struct wfi_verbs_hello *h)
{
	h->check = 0;
	h->check = wfi_blob_check(h, sizeof(*h));
}

/* a hello of another node */
static struct wfi_verbs_hello hello(enum wfi_verbs_hello_kind kind, uint64_t nonce)
{
	struct wfi_verbs_hello h = {
		.magic = WFI_VERBS_HELLO_MAGIC,
		.version = WFI_VERBS_VERSION,
		.kind = (uint8_t)kind,
		.credits_log2 = 5,
		.incarnation = 77,
		.nonce = nonce,
		.ticket = "the ticket",
	};

	seal(&h);
	return h;
}

static void respond(const struct wfi_verbs_hello *h)
{
	mock_cm_event(mock_cm.last, RDMA_CM_EVENT_CONNECT_RESPONSE, 0, h, sizeof(*h));
}

static void expect_end(struct rig *r, int status)
{
	struct weft_wc wc;

	assert_int_equal(polls(r, &wc), 1);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.status, status);
}

/* ---- dialing ---- */

static void test_dial(void **state)
{
	struct rig *r = *state;
	struct wfi_verbs_hello h = dial_until_asked(r);
	struct weft_wc wc;

	assert_int_equal(mock_cm.from_family, AF_INET);
	assert_int_equal(h.magic, WFI_VERBS_HELLO_MAGIC);
	assert_int_equal(h.version, WFI_VERBS_VERSION);
	assert_int_equal(h.incarnation, wfi_verbs_device(r->dev)->incarnation);
	assert_string_equal((const char *)h.ticket, "t");
	h = hello(WFI_VERBS_HELLO_ANSWER, h.nonce);
	respond(&h);
	assert_int_equal(polls(r, &wc), 1);
	assert_int_equal(wc.op, WEFT_WC_OPEN);
	assert_int_equal(mock_cm.nr_established, 1);
	assert_int_equal(mock.qp_state, IBV_QPS_RTS);
	assert_int_equal(weft_ep_post_send(r->ep, "x", 1, 0, WEFT_POST_QUIET), 0);
	/* its process died: the kernel says goodbye for it */
	mock_done(1);
	mock_cm_event(mock_cm.last, RDMA_CM_EVENT_DISCONNECTED, 0, NULL, 0);
	wfi_sim_advance(r->sim, 20 * WFI_NSEC_PER_MSEC);
	t->cq_disarm(r->cq);
	polls(r, &wc);
	mock_fail(IBV_WC_WR_FLUSH_ERR);
	expect_end(r, -ECONNRESET);
}

static void test_answer_garbled(void **state)
{
	struct rig *r = *state;
	struct wfi_verbs_hello h = dial_until_asked(r);

	h = hello(WFI_VERBS_HELLO_ANSWER, h.nonce);
	h.credit_addr ^= 1;
	respond(&h);
	expect_end(r, -EBADMSG);
	assert_non_null(strstr(lines, "the peer's answer is not one: what was sent is garbled"));
}

static void test_answer_replayed(void **state)
{
	struct rig *r = *state;
	struct wfi_verbs_hello h = dial_until_asked(r);

	h = hello(WFI_VERBS_HELLO_ANSWER, h.nonce + 1);
	respond(&h);
	expect_end(r, -ESTALE);
	assert_non_null(strstr(lines, "seen before, or belongs to another asking"));
}

static void test_answer_other_version(void **state)
{
	struct rig *r = *state;
	struct wfi_verbs_hello h = dial_until_asked(r);

	h = hello(WFI_VERBS_HELLO_ANSWER, h.nonce);
	h.version++;
	seal(&h);
	respond(&h);
	expect_end(r, -EPROTONOSUPPORT);
	assert_non_null(strstr(lines, "run one release on both"));
}

static void reject(struct rig *r, int reason, int status)
{
	struct wfi_verbs_refusal no = { .magic = WFI_VERBS_HELLO_MAGIC, .version = 9 };

	no.reason = (uint8_t)reason;
	dial_until_asked(r);
	mock_cm_event(mock_cm.last, RDMA_CM_EVENT_REJECTED, 28, &no, sizeof(no));
	expect_end(r, status);
}

static void test_refused(void **state)
{
	reject(*state, 1, -EACCES);
	assert_non_null(strstr(lines, "its ticket is not known"));
}

static void test_refused_garbled(void **state)
{
	reject(*state, 2, -EBADMSG);
	assert_non_null(strstr(lines, "refused: what was sent is garbled"));
}

static void test_refused_version(void **state)
{
	reject(*state, 3, -EPROTONOSUPPORT);
	assert_non_null(strstr(lines, "speaks version 9"));
}

static void test_refused_replayed(void **state)
{
	reject(*state, 4, -ESTALE);
	assert_non_null(strstr(lines, "refused: what was sent has been seen before"));
}

static void test_nobody_listens(void **state)
{
	struct rig *r = *state;

	dial_until_asked(r);
	mock_cm_event(mock_cm.last, RDMA_CM_EVENT_REJECTED, 8, NULL, 0);
	expect_end(r, -ECONNREFUSED);
}

static void test_no_answer(void **state)
{
	struct rig *r = *state;
	struct weft_wc wc;

	dial_until_asked(r);
	wfi_sim_advance(r->sim, 4000 * WFI_NSEC_PER_MSEC);
	assert_int_equal(t->cq_arm(r->cq, &(struct weft_wait){ 0 }, 1), -EAGAIN);
	assert_int_equal(weft_cq_poll(r->cq, &wc, 1), 1);
	assert_int_equal(wc.status, -ETIMEDOUT);
}

static void test_elsewhere(void **state)
{
	struct rig *r = *state;

	mock_cm.elsewhere = true;
	dial(r);
	expect_end(r, -EHOSTUNREACH);
	assert_non_null(strstr(lines, "leads through other0"));
}

static void test_bad_addr(void **state)
{
	static const char *const bad[] = { "",
					   ":1",
					   "10.0.0.1",
					   "10.0.0.1:",
					   "10.0.0.1:70000",
					   "node7:7471",
					   "[fd00::1:7471",
					   "fd00::1:7471" };
	struct weft_dial_opts o = { .size = sizeof(o) };
	struct weft_port_opts p = { .size = sizeof(p) };
	struct weft_port *port = NULL;
	struct rig *r = *state;
	unsigned i;

	assert_int_equal(t->ep_dial(r->ep, &o), -EINVAL);
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		o.addr = p.addr = bad[i];
		assert_int_equal(t->ep_dial(r->ep, &o), -EINVAL);
		assert_int_equal(t->port_open(r->dev, &p, &port), -EINVAL);
	}
	p.addr = "[fd00::1]:7471";
	mock_cm.bind_errno = ENODEV;
	assert_int_equal(t->port_open(r->dev, &p, &port), -EADDRNOTAVAIL);
	assert_non_null(strstr(lines, "can't listen on [fd00::1]:7471"));
}

/* ---- a port ---- */

static uint64_t asked(struct rig *r, const struct wfi_verbs_hello *h)
{
	struct weft_ask ask;

	mock_cm_ask(r->listener, h, sizeof(*h));
	assert_int_equal(t->port_poll(r->port, &ask), 1);
	assert_int_equal(ask.incarnation, 77);
	assert_string_equal((const char *)ask.ticket, "the ticket");
	assert_int_equal(t->port_poll(r->port, &ask), 0);
	return ask.id;
}

static void test_accept(void **state)
{
	struct wfi_verbs_hello h = hello(WFI_VERBS_HELLO_ASK, 1), answer;
	struct rig *r = *state;
	uint64_t id = asked(r, &h);
	struct weft_wc wc;
	uint32_t qpn = wfi_verbs_ep(r->ep)->qp->qp_num;

	assert_int_equal(t->port_accept(r->port, id + 1, r->ep), -ENOENT);
	assert_int_equal(t->port_accept(r->port, id, r->ep), 0);
	assert_int_equal(t->port_accept(r->port, id, r->ep), -EISCONN);
	assert_int_equal(mock_cm.nr_accepts, 1);
	memcpy(&answer, mock_cm.said, sizeof(answer));
	assert_int_equal(answer.nonce, 1);
	assert_int_equal(answer.kind, WFI_VERBS_HELLO_ANSWER);
	assert_int_equal(polls(r, &wc), 0);
	/* the peer's first message is faster than the end of the handshake */
	mock_receive(qpn, IBV_WC_RECV, 5, false, 0);
	assert_int_equal(weft_cq_poll(r->cq, &wc, 1), 1);
	assert_int_equal(wc.op, WEFT_WC_OPEN);
	assert_int_equal(weft_cq_poll(r->cq, &wc, 1), 1);
	assert_int_equal(wc.op, WEFT_WC_RECV);
	assert_int_equal(wfi_verbs_device(r->dev)->nr_dialing, 0);
}

static void expect_refused(struct rig *r, const void *data, uint8_t len, int reason)
{
	struct wfi_verbs_refusal no;
	struct weft_ask ask;
	unsigned before = mock_cm.nr_rejects;

	mock_cm_ask(r->listener, data, len);
	assert_int_equal(t->port_poll(r->port, &ask), 0);
	assert_int_equal(mock_cm.nr_rejects, before + 1);
	memcpy(&no, mock_cm.said, sizeof(no));
	assert_int_equal(no.reason, reason);
	assert_int_equal(no.version, WFI_VERBS_VERSION);
}

static void test_bad_asks(void **state)
{
	struct wfi_verbs_hello h = hello(WFI_VERBS_HELLO_ASK, 1), bad;
	struct rig *r = *state;
	unsigned i;

	expect_refused(r, NULL, 0, 2);
	assert_non_null(strstr(lines, "garbled"));
	bad = h;
	bad.version++;
	expect_refused(r, &bad, sizeof(bad), 3);
	assert_non_null(strstr(lines, "another version"));
	/* each bit is looked at */
	for (i = 0; i < 8 * sizeof(h); i++) {
		memcpy(&bad, &h, sizeof(bad));
		((uint8_t *)&bad)[i / 8] ^= (uint8_t)(1u << i % 8);
		expect_refused(r, &bad, sizeof(bad), i / 8 == 4 ? 3 : 2);
	}
	expect_refused(r, &h, sizeof(h) - 1, 2);
	/* an answer is no question, and nobody has so many buffers */
	h = hello(WFI_VERBS_HELLO_ANSWER, 1);
	expect_refused(r, &h, sizeof(h), 2);
	h = hello(WFI_VERBS_HELLO_ASK, 1);
	h.credits_log2 = 31;
	seal(&h);
	expect_refused(r, &h, sizeof(h), 2);
}

static void test_replayed(void **state)
{
	struct wfi_verbs_hello h = hello(WFI_VERBS_HELLO_ASK, 1);
	struct rig *r = *state;
	uint64_t id = asked(r, &h);

	expect_refused(r, &h, sizeof(h), 4);
	assert_non_null(strstr(lines, "seen before"));
	assert_int_equal(t->port_refuse(r->port, id), 0);
	assert_int_equal(t->port_refuse(r->port, id), -ENOENT);
	/* the same peer, asking anew */
	h = hello(WFI_VERBS_HELLO_ASK, 2);
	asked(r, &h);
}

/* who gives up before it is answered is forgotten */
static void test_gave_up(void **state)
{
	struct wfi_verbs_hello h = hello(WFI_VERBS_HELLO_ASK, 1);
	struct rig *r = *state;
	struct rdma_cm_id *id = mock_cm_ask(r->listener, &h, sizeof(h));
	struct weft_ask ask;

	assert_int_equal(t->port_poll(r->port, &ask), 1);
	mock_cm_event(id, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, NULL, 0);
	assert_int_equal(t->port_poll(r->port, &ask), 0);
	assert_int_equal(t->port_accept(r->port, ask.id, r->ep), -ENOENT);
}

static void test_removed(void **state)
{
	struct weft_ask ask;
	struct rig *r = *state;
	struct weft_wc wc;

	mock_cm_event(r->listener, RDMA_CM_EVENT_DEVICE_REMOVAL, 0, NULL, 0);
	assert_int_equal(t->port_poll(r->port, &ask), -EIO);
	assert_int_equal(polls(r, &wc), 1);
	assert_int_equal(wc.op, WEFT_WC_CLOSED);
	assert_int_equal(wc.scope, WEFT_SCOPE_DEVICE);
}

static void test_no_manager(void **state)
{
	struct weft_device *dev = NULL;
	struct rig *r = *state;

	mock_cm.none = true;
	assert_int_equal(t->device_open(t, r->env, NULL, &dev), 0);
	assert_false(dev->caps.flags & WEFT_CAP_PORT);
	assert_non_null(strstr(lines, "modprobe rdma_ucm"));
	t->device_close(dev);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(dial),
		TEST(answer_garbled),
		TEST(answer_replayed),
		TEST(answer_other_version),
		TEST(refused),
		TEST(refused_garbled),
		TEST(refused_version),
		TEST(refused_replayed),
		TEST(nobody_listens),
		TEST(no_answer),
		TEST(elsewhere),
		TEST(bad_addr),
		TEST(accept),
		TEST(replayed), /* its log line has a limit a second, so it comes first */
		TEST(bad_asks),
		TEST(gave_up),
		TEST(removed),
		TEST(no_manager),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
