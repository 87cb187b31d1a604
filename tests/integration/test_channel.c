/* SPDX-License-Identifier: Apache-2.0 */
/* channels: in a node and between two, in order and within credit, and when a side goes away */
#include <errno.h>
#include "tests/integration/node.h"

#define BLOCK 8192u
#define SLOTS_MAX 5u
#define CREDIT 8u
#define END_MS 1000 /* an end is known to the other side within this */

static struct test_node near, far; /* the sender's and the receiver's; near has far as a peer */

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "channel",
	.layout = "test",
	.tokens_per_block = 16,
};

/* a channel between two engines of this process */
struct line {
	struct test_engine *from, *to;
	struct weft_ticket ticket;
	uint64_t out, in; /* handles */
};

/* ---- messages ---- */

/* how message @seq looks: bytes, slots */
static uint64_t bytes_of(uint64_t seq)
{
	uint64_t state = seq;

	return 1 + test_rand(&state) % (SLOTS_MAX * BLOCK);
}

static unsigned slots_of(uint64_t bytes)
{
	return (unsigned)((bytes + BLOCK - 1) / BLOCK);
}

static void claim(struct test_engine *e, struct weft_slot *slots, unsigned nr)
{
	struct weft_op op = { .op = WEFT_OP_CLAIM, .space = e->space, .nr = nr, .slots = slots };

	test_must(weft_call(e->ring, &op, NULL) == (int)nr);
}

static int unclaim(struct test_engine *e, struct weft_slot *slots, unsigned nr)
{
	struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = nr, .slots = slots };

	return weft_call(e->ring, &op, NULL);
}

static uint64_t in_slot(uint64_t bytes, unsigned i)
{
	return wfi_min(bytes - (uint64_t)i * BLOCK, BLOCK);
}

/* Return: slots, filled for message @seq */
static unsigned make(struct test_engine *e, uint64_t seq, struct weft_slot *slots)
{
	const uint64_t bytes = bytes_of(seq);
	const unsigned nr = slots_of(bytes);
	unsigned i;

	claim(e, slots, nr);
	for (i = 0; i < nr; i++)
		test_fill((char *)weft_arena(e->w) + slots[i].off, in_slot(bytes, i),
			  seq * SLOTS_MAX + i);
	return nr;
}

static int send_one(struct test_engine *e, uint64_t channel, uint64_t seq,
		    struct weft_slot slots[SLOTS_MAX])
{
	const unsigned nr = make(e, seq, slots);
	const int ret = weft_channel_send(e->ring, channel, slots, nr, bytes_of(seq), ~seq);

	if (ret < 0)
		test_must(unclaim(e, slots, nr) == (int)nr);
	return ret;
}

static bool is_message(struct test_engine *e, uint64_t seq, const struct weft_message *m, int nr,
		       const struct weft_slot *slots)
{
	unsigned i;

	if (m->seq != seq || m->tag != ~seq || m->bytes != bytes_of(seq) ||
	    nr != (int)slots_of(m->bytes))
		return false;
	for (i = 0; i < (unsigned)nr; i++)
		if (!test_filled((char *)weft_arena(e->w) + slots[i].off, in_slot(m->bytes, i),
				 seq * SLOTS_MAX + i))
			return false;
	return true;
}

/* takes message @seq. Return: for weft_channel_release() */
static uint64_t take(struct test_engine *e, uint64_t channel, uint64_t seq)
{
	struct weft_slot slots[SLOTS_MAX];
	struct weft_message m;
	uint64_t message;
	int nr = weft_channel_recv(e->ring, channel, slots, SLOTS_MAX, &m, &message);

	if (nr <= 0)
		fail_msg("message %u: %d, %s", (unsigned)seq, nr, nr ? weft_why() : "end");
	assert_true(is_message(e, seq, &m, nr, slots));
	return message;
}

static void take_all(struct test_engine *e, uint64_t channel, uint64_t from, uint64_t to)
{
	for (; from < to; from++)
		assert_true(weft_channel_release(e->ring, take(e, channel, from)) > 0);
}

/* Return: what a receive that finds no message says */
static int take_none(struct test_engine *e, uint64_t channel, uint32_t timeout_us)
{
	struct weft_slot slots[SLOTS_MAX];
	struct weft_message m;
	const struct weft_op op = { .op = WEFT_OP_CHANNEL_RECV,
				    .handle = channel,
				    .nr = SLOTS_MAX,
				    .slots = slots,
				    .message = &m,
				    .timeout_us = timeout_us };

	return weft_call(e->ring, &op, NULL);
}

static void open_line(struct line *l, struct test_engine *from, struct test_engine *to)
{
	uint64_t next = 99;

	*l = (struct line){ .from = from, .to = to };
	assert_int_equal(weft_channel_open(to->ring, to->space, CREDIT, CREDIT * SLOTS_MAX * BLOCK,
					   &l->ticket, &l->in),
			 0);
	assert_int_equal(weft_channel_join(from->ring, from->space, &l->ticket, &l->out, &next), 0);
	assert_int_equal(next, 0);
}

/* ---- what holds inside a node and between two ---- */

static void stream(struct test_engine *from, struct test_engine *to, unsigned nr)
{
	const struct weft_stat from_was = test_stat(from->ring), to_was = test_stat(to->ring);
	uint64_t sent = 0, got = 0, held[CREDIT], state = 1;
	struct weft_slot slots[SLOTS_MAX];
	struct line l;
	unsigned i, nr_held = 0;

	open_line(&l, from, to);
	while (got < nr) {
		if (sent < nr && sent - got + nr_held < CREDIT && test_rand(&state) % 3) {
			assert_true(send_one(from, l.out, sent, slots) > 0);
			sent++;
		} else if (got < sent) {
			held[nr_held++] = take(to, l.in, got++);
		}
		/* released in any order */
		while (nr_held && (nr_held == CREDIT || test_rand(&state) % 2)) {
			i = (unsigned)(test_rand(&state) % nr_held);
			assert_true(weft_channel_release(to->ring, held[i]) > 0);
			assert_int_equal(weft_channel_release(to->ring, held[i]), -ENOENT);
			held[i] = held[--nr_held];
		}
	}
	assert_int_equal(weft_channel_close(from->ring, l.out), 0);
	assert_int_equal(take_none(to, l.in, 0), 0);
	assert_int_equal(take_none(to, l.in, 0), 0);
	assert_int_equal(send_one(from, l.out, 0, slots), -ENOENT);
	assert_int_equal(weft_channel_close(to->ring, l.in), 0);
	assert_int_equal(weft_channel_close(to->ring, l.in), -ENOENT);
	assert_true(test_stat_settles(from->ring, &from_was, END_MS));
	assert_true(test_stat_settles(to->ring, &to_was, END_MS));
}

/* a sender without credit waits, for messages as for bytes */
static void credit(struct test_engine *from, struct test_engine *to)
{
	struct weft_slot slots[SLOTS_MAX];
	struct weft_completion cpl;
	struct weft_message m;
	struct weft_op op;
	struct line l;
	uint64_t message, seq;

	open_line(&l, from, to);
	for (seq = 0; seq < CREDIT; seq++)
		assert_true(send_one(from, l.out, seq, slots) > 0);
	m.bytes = bytes_of(seq);
	m.tag = ~seq;
	op = (struct weft_op){ .op = WEFT_OP_CHANNEL_SEND,
			       .handle = l.out,
			       .nr = make(from, seq, slots),
			       .slots = slots,
			       .message = &m,
			       .timeout_us = 20000 };
	/* nothing was sent of one that had to wait too long */
	assert_int_equal(weft_call(from->ring, &op, NULL), -ETIMEDOUT);
	op.timeout_us = 0;
	assert_int_equal(weft_submit(from->ring, &op, 1), 1);
	message = take(to, l.in, 0);
	assert_int_equal(weft_wait(from->ring, &cpl, 1, 20000), 0);
	assert_true(weft_channel_release(to->ring, message) > 0);
	test_next(from->ring, &cpl);
	assert_int_equal(cpl.res, op.nr);
	take_all(to, l.in, 1, CREDIT + 1);
	assert_int_equal(take_none(to, l.in, 1000), -ETIMEDOUT);
	assert_int_equal(weft_channel_close(to->ring, l.in), 0);
	/* the sender hears of it */
	while (send_one(from, l.out, 0, slots) > 0)
		;
	assert_int_equal(send_one(from, l.out, 0, slots), -EPIPE);
	assert_int_equal(weft_channel_close(from->ring, l.out), 0);
}

static void refused(struct test_engine *from, struct test_engine *to)
{
	struct weft_slot slots[SLOTS_MAX], twice[2];
	struct weft_ticket wrong;
	struct weft_message m;
	uint64_t handle, message;
	struct line l;

	assert_int_equal(weft_channel_open(to->ring, to->space, 2, BLOCK - 1, &l.ticket, &l.in),
			 -EINVAL);
	assert_int_equal(weft_channel_open(to->ring, to->space, 1025, BLOCK, &l.ticket, &l.in),
			 -EINVAL);
	assert_int_equal(weft_channel_open(to->ring, to->space, 2, 2 * BLOCK, &l.ticket, &l.in), 0);
	wrong = l.ticket;
	wrong.secret[1]++;
	assert_int_equal(weft_channel_join(from->ring, from->space, &wrong, &handle, NULL), -EPERM);
	wrong = l.ticket;
	wrong.incarnation++;
	assert_int_equal(weft_channel_join(from->ring, from->space, &wrong, &handle, NULL),
			 -ESTALE);
	wrong = l.ticket;
	wrong.handoff++;
	assert_int_equal(weft_channel_join(from->ring, from->space, &wrong, &handle, NULL),
			 -ESTALE);
	wrong = l.ticket;
	wrong.node++;
	assert_int_equal(weft_channel_join(from->ring, from->space, &wrong, &handle, NULL),
			 -EHOSTUNREACH);
	assert_int_equal(weft_channel_join(from->ring, from->space, &l.ticket, &l.out, NULL), 0);
	assert_int_equal(weft_channel_join(from->ring, from->space, &l.ticket, &handle, NULL),
			 -EBUSY);
	claim(from, slots, 3);
	/* lengths that do not fit the slots, and more than the channel ever holds */
	assert_int_equal(weft_channel_send(from->ring, l.out, slots, 1, 0, 0), -EINVAL);
	assert_int_equal(weft_channel_send(from->ring, l.out, slots, 1, BLOCK + 1, 0), -EINVAL);
	assert_int_equal(weft_channel_send(from->ring, l.out, slots, 2, BLOCK, 0), -EINVAL);
	assert_int_equal(weft_channel_send(from->ring, l.out, slots, 3, 3 * BLOCK, 0), -EMSGSIZE);
	assert_int_equal(weft_channel_send(from->ring, l.in + 7, slots, 1, 1, 0), -ENOENT);
	slots[0].gen++;
	assert_int_equal(weft_channel_send(from->ring, l.out, slots, 1, 1, 0), -ESTALE);
	slots[0].gen--;
	/* a message that has more slots than there is room for stays where it is */
	test_fill((char *)weft_arena(from->w) + slots[0].off, BLOCK, 1);
	test_fill((char *)weft_arena(from->w) + slots[1].off, BLOCK, 2);
	assert_int_equal(weft_channel_send(from->ring, l.out, slots, 2, 2 * BLOCK, 5), 2);
	assert_int_equal(weft_channel_recv(to->ring, l.in, twice, 1, &m, &message), -EMSGSIZE);
	assert_int_equal(weft_channel_recv(to->ring, l.in, twice, 2, &m, &message), 2);
	assert_true(m.seq == 0 && m.tag == 5 && m.bytes == 2 * BLOCK);
	assert_true(test_filled((char *)weft_arena(to->w) + twice[1].off, BLOCK, 2));
	/* what was sent is not the sender's any more */
	assert_int_equal(unclaim(from, slots, 2), 0);
	assert_int_equal(unclaim(from, slots + 2, 1), 1);
	assert_int_equal(weft_channel_release(from->ring, message), from == to ? 2 : -ENOENT);
	assert_int_equal(weft_channel_close(to->ring, l.in), 0);
	assert_int_equal(weft_channel_join(from->ring, from->space, &l.ticket, &handle, NULL),
			 -ESTALE);
}

/* ---- deaths ---- */

struct role {
	const struct test_node *node;
	struct weft_ticket ticket;
	unsigned nr;
};

/* sends until it is killed; says how many arrived */
static void run_sender(int in, int out, void *ctx)
{
	struct role *role = ctx;
	struct weft_slot slots[SLOTS_MAX];
	struct test_engine e;
	uint64_t channel, seq;
	char c;

	test_engine_open(&e, role->node, NULL, &geometry);
	test_must(test_hear(in, &role->ticket, sizeof(role->ticket)));
	test_must(!weft_channel_join(e.ring, e.space, &role->ticket, &channel, &seq));
	for (; seq < role->nr; seq++)
		test_must(send_one(&e, channel, seq, slots) > 0);
	test_must(test_say(out, &seq, sizeof(seq)));
	test_hear(in, &c, 1);
}

/* takes so many, keeps the last, and waits for its end */
static void run_receiver(int in, int out, void *ctx)
{
	struct role *role = ctx;
	struct test_engine e;
	uint64_t channel, seq;
	char c;

	test_engine_open(&e, role->node, NULL, &geometry);
	test_must(!weft_channel_open(e.ring, e.space, CREDIT, CREDIT * SLOTS_MAX * BLOCK,
				     &role->ticket, &channel));
	test_must(test_say(out, &role->ticket, sizeof(role->ticket)));
	for (seq = 0; seq < role->nr; seq++)
		take(&e, channel, seq);
	test_must(test_say(out, &seq, sizeof(seq)));
	test_hear(in, &c, 1);
}

/* @from is another engine of the sender's node: it goes on where the one that died has ended */
static void sender_dies(const struct test_node *at, struct test_engine *from,
			struct test_engine *to)
{
	const struct weft_stat from_was = test_stat(from->ring), to_was = test_stat(to->ring);
	struct role role = { .node = at, .nr = 5 };
	struct weft_slot slots[SLOTS_MAX];
	struct test_child child;
	uint64_t in, out, next, seq;

	test_child_start(&child, run_sender, &role);
	assert_int_equal(weft_channel_open(to->ring, to->space, CREDIT, CREDIT * SLOTS_MAX * BLOCK,
					   &role.ticket, &in),
			 0);
	assert_true(test_say(child.to, &role.ticket, sizeof(role.ticket)));
	assert_true(test_hear(child.from, &seq, sizeof(seq)));
	take_all(to, in, 0, 2);
	test_child_kill(&child);
	/* what has arrived is there, then comes the news, once */
	take_all(to, in, 2, 5);
	assert_int_equal(take_none(to, in, END_MS * 1000), -ECONNRESET);
	assert_int_equal(take_none(to, in, 1000), -ETIMEDOUT);
	assert_int_equal(weft_channel_join(from->ring, from->space, &role.ticket, &out, &next), 0);
	assert_int_equal(next, 5);
	for (; next < 9; next++)
		assert_true(send_one(from, out, next, slots) > 0);
	assert_int_equal(weft_channel_close(from->ring, out), 0);
	take_all(to, in, 5, 9);
	assert_int_equal(take_none(to, in, 0), 0);
	assert_int_equal(weft_channel_close(to->ring, in), 0);
	assert_true(test_stat_settles(to->ring, &to_was, END_MS));
	assert_true(test_stat_settles(from->ring, &from_was, END_MS));
}

static void receiver_dies(const struct test_node *at, struct test_engine *from,
			  struct test_engine *watch)
{
	const struct weft_stat from_was = test_stat(from->ring), to_was = test_stat(watch->ring);
	struct role role = { .node = at, .nr = 3 };
	struct weft_slot slots[SLOTS_MAX];
	struct test_child child;
	uint64_t out, seq, killed_ms;
	int ret;

	test_child_start(&child, run_receiver, &role);
	assert_true(test_hear(child.from, &role.ticket, sizeof(role.ticket)));
	assert_int_equal(weft_channel_join(from->ring, from->space, &role.ticket, &out, NULL), 0);
	for (seq = 0; seq < 5; seq++)
		assert_true(send_one(from, out, seq, slots) > 0);
	assert_true(test_hear(child.from, &seq, sizeof(seq)));
	test_child_kill(&child);
	killed_ms = test_now_ms();
	/* goes on until credit or the stream ends */
	for (seq = 5; (ret = send_one(from, out, seq, slots)) > 0; seq++)
		;
	assert_int_equal(ret, -EPIPE);
	assert_true(test_now_ms() - killed_ms < END_MS);
	assert_int_equal(weft_channel_close(from->ring, out), 0);
	assert_int_equal(weft_channel_join(from->ring, from->space, &role.ticket, &out, NULL),
			 -ESTALE);
	assert_true(test_stat_settles(watch->ring, &to_was, END_MS));
	assert_true(test_stat_settles(from->ring, &from_was, END_MS));
}

/* ---- one node ---- */

static void test_one_node(void **state)
{
	struct test_engine a, b;
	uint64_t by_reference;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &near, NULL, &geometry);
	by_reference = test_counter(a.w, "weft_channel_by_reference");
	stream(&a, &b, 500);
	assert_true(test_counter(a.w, "weft_channel_by_reference") > by_reference);
	assert_int_equal(test_counter(a.w, "weft_channel_read"), 0);
	credit(&a, &b);
	refused(&a, &b);
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_deaths_in_one_node(void **state)
{
	struct test_engine a, b;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &near, NULL, &geometry);
	sender_dies(&near, &a, &b);
	receiver_dies(&near, &a, &b);
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_embedded(void **state)
{
	struct test_engine e;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	stream(&e, &e, 100);
	refused(&e, &e);
	test_engine_close(&e);
}

/* ---- two nodes ---- */

static bool joins(void *ctx)
{
	struct line *l = ctx;
	const int ret = weft_channel_join(l->from->ring, l->from->space, &l->ticket, &l->out, NULL);

	if (ret && ret != -EHOSTUNREACH)
		fail_msg("join: %s", weft_why());
	return !ret;
}

static void wait_for_peer(struct test_engine *from, struct test_engine *to)
{
	struct line l = { .from = from, .to = to };

	assert_int_equal(weft_channel_open(to->ring, to->space, 1, BLOCK, &l.ticket, &l.in), 0);
	assert_true(test_until(10000, joins, &l));
	assert_int_equal(weft_channel_close(to->ring, l.in), 0);
	assert_int_equal(weft_channel_close(from->ring, l.out), 0);
}

static void test_two_nodes(void **state)
{
	struct test_engine a, b;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &far, NULL, &geometry);
	wait_for_peer(&a, &b);
	stream(&a, &b, 500);
	assert_true(test_counter(b.w, "weft_channel_read") > 0);
	stream(&b, &a, 100);
	credit(&a, &b);
	refused(&a, &b);
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_deaths_in_two_nodes(void **state)
{
	struct test_engine a, b;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &far, NULL, &geometry);
	wait_for_peer(&a, &b);
	sender_dies(&near, &a, &b);
	receiver_dies(&far, &a, &b);
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_node_of_sender_dies(void **state)
{
	struct weft_slot slots[SLOTS_MAX];
	struct test_engine a, b;
	struct line l;
	uint64_t next;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &far, NULL, &geometry);
	wait_for_peer(&a, &b);
	open_line(&l, &a, &b);
	for (next = 0; next < 4; next++)
		assert_true(send_one(&a, l.out, next, slots) > 0);
	test_node_kill(&near);
	take_all(&b, l.in, 0, 4);
	assert_int_equal(take_none(&b, l.in, END_MS * 1000), -ECONNRESET);
	assert_int_equal(weft_channel_send(a.ring, l.out, slots, 1, 1, 0), -ECONNRESET);
	test_engine_close(&a);
	test_node_start(&near);
	test_engine_open(&a, &near, NULL, &geometry);
	/* the next life goes on where the last one ended */
	wait_for_peer(&a, &b);
	assert_int_equal(weft_channel_join(a.ring, a.space, &l.ticket, &l.out, &next), 0);
	assert_int_equal(next, 4);
	assert_true(send_one(&a, l.out, 4, slots) > 0);
	take_all(&b, l.in, 4, 5);
	test_engine_close(&a);
	test_engine_close(&b);
}

static void test_node_of_receiver_dies(void **state)
{
	struct weft_slot slots[SLOTS_MAX];
	const struct weft_stat *was;
	struct weft_stat st;
	struct test_engine a, b;
	struct line l;
	uint64_t killed_ms, seq;
	int ret;

	(void)state;
	test_engine_open(&a, &near, NULL, &geometry);
	test_engine_open(&b, &far, NULL, &geometry);
	wait_for_peer(&a, &b);
	st = test_stat(a.ring);
	was = &st;
	open_line(&l, &a, &b);
	assert_true(send_one(&a, l.out, 0, slots) > 0);
	test_node_kill(&far);
	killed_ms = test_now_ms();
	for (seq = 1; (ret = send_one(&a, l.out, seq, slots)) > 0; seq++)
		;
	assert_int_equal(ret, -ECONNRESET);
	assert_true(test_now_ms() - killed_ms < 2 * END_MS);
	assert_int_equal(weft_channel_close(a.ring, l.out), 0);
	assert_true(test_stat_settles(a.ring, was, END_MS));
	test_engine_close(&b);
	test_node_start(&far);
	test_engine_open(&b, &far, NULL, &geometry);
	wait_for_peer(&a, &b);
	assert_int_equal(weft_channel_join(a.ring, a.space, &l.ticket, &l.out, NULL), -ESTALE);
	stream(&a, &b, 20);
	test_engine_close(&a);
	test_engine_close(&b);
}

/* ---- a tenant that is taken away ---- */

static char members_file[160]; /* the setting, and the file's path behind "file:" */

static void members_write(const char *tenants)
{
	const char *path = strchr(members_file, ':') + 1;
	char next[192];
	FILE *out;

	snprintf(next, sizeof(next), "%s.next", path);
	out = fopen(next, "we");
	assert_non_null(out);
	fprintf(out,
		"{ \"members\": [ { \"name\": \"near\", \"socket\": \"%s\" }, "
		"{ \"name\": \"far\", \"socket\": \"%s\" } ], \"tenants\": { %s } }",
		near.socket, far.socket, tenants);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(rename(next, path), 0);
}

struct entry {
	const struct test_node *node;
	const char *token;
};

static bool is_let_in(void *ctx)
{
	const struct entry *n = ctx;
	const struct weft_opts opts = {
		.size = sizeof(opts), .socket = n->node->socket, .token = n->token, .name = "test"
	};
	struct weft *w;

	if (weft_open(&opts, &w))
		return false;
	weft_close(w);
	return true;
}

static bool is_sent_away(void *ctx)
{
	return !is_let_in(ctx);
}

static void both_until(bool (*cond)(void *ctx), const char *token)
{
	struct entry n = { .node = &near, .token = token }, f = { .node = &far, .token = token };

	assert_true(test_until(10000, cond, &n));
	assert_true(test_until(10000, cond, &f));
}

/* its engines go on, and so do their streams; and what peers' new connection does to a stream, it
 * does to theirs as to others': it breaks, both sides hear of it, and it goes on where it was */
static void test_tenant_taken_away(void **state)
{
	struct weft_slot slots[SLOTS_MAX];
	struct weft_stat a_was, b_was;
	struct test_engine a, b;
	struct line l;
	uint64_t begin_ms, sent = 0;
	int ret;

	(void)state;
	both_until(is_let_in, "azure");
	test_engine_open(&a, &near, "azure", &geometry);
	test_engine_open(&b, &far, "azure", &geometry);
	wait_for_peer(&a, &b);
	a_was = test_stat(a.ring);
	b_was = test_stat(b.ring);
	open_line(&l, &a, &b);
	for (; sent < 4; sent++)
		assert_true(send_one(&a, l.out, sent, slots) > 0);
	members_write("");
	both_until(is_sent_away, "azure");
	take_all(&b, l.in, 0, 4);
	assert_true(send_one(&a, l.out, sent++, slots) > 0);
	take_all(&b, l.in, 4, 5);
	/* one that peers do not know yet: they connect anew */
	members_write("\"green\": { \"token\": \"grass\", \"arena_bytes\": \"8M\" }");
	assert_int_equal(take_none(&b, l.in, 10000000), -ECONNRESET);
	begin_ms = test_now_ms();
	while ((ret = send_one(&a, l.out, sent, slots)) > 0)
		assert_true(test_now_ms() - begin_ms < END_MS);
	assert_int_equal(ret, -ECONNRESET);
	assert_int_equal(weft_channel_close(a.ring, l.out), 0);
	assert_true(test_stat_settles(a.ring, &a_was, END_MS));
	both_until(is_let_in, "grass");
	assert_true(test_until(10000, joins, &l));
	assert_true(send_one(&a, l.out, sent, slots) > 0);
	take_all(&b, l.in, sent, sent + 1);
	assert_int_equal(weft_channel_close(a.ring, l.out), 0);
	assert_int_equal(take_none(&b, l.in, 0), 0);
	assert_int_equal(weft_channel_close(b.ring, l.in), 0);
	assert_true(test_stat_settles(a.ring, &a_was, END_MS));
	assert_true(test_stat_settles(b.ring, &b_was, END_MS));
	/* and it is let in again when somebody names it */
	members_write("\"blue\": { \"token\": \"azure\", \"arena_bytes\": \"16M\" }");
	both_until(is_let_in, "azure");
	wait_for_peer(&a, &b);
	stream(&a, &b, 20);
	test_engine_close(&a);
	test_engine_close(&b);
}

/* ---- set-up ---- */

static int start_members(void **state)
{
	const char *const near_sets[] = { "name=near", "arena_bytes=16M", "hugepages=false",
					  members_file, NULL };
	const char *const far_sets[] = { "name=far", "arena_bytes=16M", "hugepages=false",
					 members_file, NULL };

	(void)state;
	test_node_init(&near, near_sets);
	test_node_init(&far, far_sets);
	snprintf(members_file, sizeof(members_file), "membership=file:%s/members", near.dir);
	members_write("\"blue\": { \"token\": \"azure\", \"arena_bytes\": \"16M\" }");
	test_node_start(&far);
	test_node_start(&near);
	return 0;
}

static int start_one(void **state)
{
	const char *const sets[] = { "arena_bytes=64M", "hugepages=false", NULL };

	(void)state;
	test_node_init(&near, sets);
	test_node_start(&near);
	return 0;
}

static int start_two(void **state)
{
	(void)state;
	test_pair_start(&near, &far);
	return 0;
}

static int stop_nodes(void **state)
{
	(void)state;
	test_pair_fini(&near, &far);
	return 0;
}

int main(void)
{
	const struct CMUnitTest one[] = {
		cmocka_unit_test(test_one_node),
		cmocka_unit_test(test_deaths_in_one_node),
		cmocka_unit_test(test_embedded),
	};
	const struct CMUnitTest two[] = {
		cmocka_unit_test(test_two_nodes),
		cmocka_unit_test(test_deaths_in_two_nodes),
		cmocka_unit_test(test_node_of_sender_dies),
		cmocka_unit_test(test_node_of_receiver_dies),
	};
	const struct CMUnitTest members[] = { cmocka_unit_test(test_tenant_taken_away) };
	int ret = cmocka_run_group_tests_name("one node", one, start_one, stop_nodes);

	ret += cmocka_run_group_tests_name("two nodes", two, start_two, stop_nodes);
	return ret + cmocka_run_group_tests_name("members", members, start_members, stop_nodes);
}
