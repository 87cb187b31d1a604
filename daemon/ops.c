/* SPDX-License-Identifier: Apache-2.0 */
/* ops.c - submissions taken and led to their operations; open ones, and their completions */
#include <errno.h>
#include <stdio.h>

#include "ops.h"
#include "weft_internal/log.h"

#define TAKE_MAX 32u /* of one ring in a turn */
#define TURN_NS (50 * WFI_NSEC_PER_USEC) /* after this much, no other is begun */

static const char *const op_names[WEFT_OP_NR] = {
	"nop",
	"stat",
	"claim",
	"put",
	"match",
	"get",
	"map",
	"release",
	"prefetch",
	"drop",
	"handoff_expect",
	"handoff_push",
	"handoff_cancel",
	"channel_open",
	"channel_join",
	"channel_send",
	"channel_recv",
	"channel_release",
	"channel_close",
	"route",
};

static const uint8_t op_flags[WEFT_OP_NR] = {
	[WEFT_OP_PUT] = WEFT_F_COPY,
	[WEFT_OP_MATCH] = WEFT_F_LEASE | WEFT_F_WHERE,
	[WEFT_OP_GET] = WEFT_F_VERIFY | WEFT_F_SIGNAL,
	[WEFT_OP_MAP] = WEFT_F_VERIFY | WEFT_F_PEEK,
	[WEFT_OP_HANDOFF_EXPECT] = WEFT_F_LAYOUT | WEFT_F_COPY | WEFT_F_VERIFY | WEFT_F_SIGNAL,
	[WEFT_OP_HANDOFF_PUSH] = WEFT_F_LAYOUT | WEFT_F_COPY,
};

/* ---- open operations and their buffers: allocated once, then recycled ---- */

static const uint32_t buf_blocks[OP_BUF_CLASSES] = { 64, 1024, 8192, WEFT_OP_BLOCKS_MAX };

static size_t buf_bytes(uint32_t nr)
{
	return sizeof(struct weft_key) +
	       nr * (sizeof(struct wfi_piece) + sizeof(struct weft_key) + sizeof(struct weft_slot) +
		     2 * sizeof(uint32_t) + sizeof(int32_t));
}

struct op_buf op_buf_at(const struct node_op *op, void *buf)
{
	uint32_t nr = buf_blocks[op->buf_class];
	struct op_buf b;

	b.pieces = buf;
	b.keys = (struct weft_key *)(b.pieces + nr);
	b.slots = (struct weft_slot *)(b.keys + nr + 1);
	b.idx = (uint32_t *)(b.slots + nr);
	b.results = (int32_t *)(b.idx + nr);
	b.sums = (uint32_t *)(b.results + nr);
	b.places = (void **)b.slots;
	return b;
}

struct op_buf op_buf_of(const struct node_op *op)
{
	return op_buf_at(op, op->buf);
}

static void *buf_get(struct node *node, unsigned class)
{
	void *buf = node->free_bufs[class];

	if (!buf)
		return wfi_alloc(node->env, buf_bytes(buf_blocks[class]));
	node->free_bufs[class] = *(void **)buf;
	return buf;
}

static void buf_put(struct node *node, unsigned class, void *buf)
{
	*(void **)buf = node->free_bufs[class];
	node->free_bufs[class] = buf;
}

void *op_buf_get(const struct node_op *op)
{
	return buf_get(op->session->node, op->buf_class);
}

void op_buf_put(const struct node_op *op, void *buf)
{
	buf_put(op->session->node, op->buf_class, buf);
}

struct node_op *op_open(struct node *node, struct node_ring *r, const struct weft_sqe *sqe,
			uint64_t now_ns)
{
	struct session *s = r->session;
	struct node_op *op = node->free_ops;
	unsigned class = 0;

	if (op)
		node->free_ops = op->next;
	else
		op = wfi_alloc(node->env, sizeof(*op));
	if (!op)
		return NULL;
	while (sqe->nr > buf_blocks[class])
		class ++;
	*op = (struct node_op){
		.session = s,
		.ring = r,
		.ring_id = r->id,
		.sqe = *sqe,
		.start_ns = now_ns,
		.nr = sqe->nr,
		.buf_class = class,
		.buf = buf_get(node, class),
		.next = s->ops,
	};
	if (!op->buf) {
		op->next = node->free_ops;
		node->free_ops = op;
		return NULL;
	}
	if (s->ops)
		s->ops->prev = op;
	s->ops = op;
	s->nr_ops++;
	node->nr_open++;
	return op;
}

void op_close(struct node_op *op)
{
	struct session *s = op->session;
	struct node *node = s->node;

	if (wfi_unlikely(op->signal.word != NULL))
		s->regions[op->signal.region].nr_ops--;
	buf_put(node, op->buf_class, op->buf);
	if (op->prev)
		op->prev->next = op->next;
	else
		s->ops = op->next;
	if (op->next)
		op->next->prev = op->prev;
	s->nr_ops--;
	node->nr_open--;
	op->next = node->free_ops;
	node->free_ops = op;
}

/* ---- completions ---- */

/* final completions always have room, but never overtake events that wait for it */
void op_post(struct node_ring *r, const struct weft_cqe *cqe)
{
	r->dirty = true;
	if (r->ev_head == r->ev_tail && !wfi_ring_complete(r->ring, cqe))
		return;
	if (r->ev_tail - r->ev_head < RING_EVENTS_MAX)
		r->events[r->ev_tail++ % RING_EVENTS_MAX].cqe = *cqe;
	else
		r->session->broken = true;
}

static int ring_post_events(struct node_ring *r)
{
	int work = 0;

	while (r->ev_head != r->ev_tail &&
	       !wfi_ring_complete(r->ring, &r->events[r->ev_head % RING_EVENTS_MAX].cqe)) {
		r->ev_head++;
		work++;
	}
	if (work)
		r->dirty = true;
	return work;
}

static void complete(struct node *node, struct node_ring *r, const struct weft_sqe *sqe, int res,
		     uint8_t flags, uint64_t value, uint64_t start_ns)
{
	struct op_metrics *m = &node->op_metrics[sqe->op];
	struct weft_cqe cqe = {
		.res = res,
		.user_data = sqe->user_data,
		.op = sqe->op,
		.flags = flags,
		.value = value,
	};

	op_post(r, &cqe);
	if (res < 0)
		wfi_count(m->errors, 1);
	wfi_hist_add(m->time, wfi_now(node->env) - start_ns);
}

static void op_tell(struct node_op *op, int res, uint64_t value)
{
	if (!op->ring)
		return;
	op_signal_give(&op->signal);
	complete(op->session->node, op->ring, &op->sqe, res, op->cqe_flags, value, op->start_ns);
}

void op_complete(struct node_op *op, int res, uint64_t value)
{
	op_tell(op, res, value);
	op_close(op);
}

void op_tell_late(struct node_op *op, int res)
{
	if (op->ring)
		wfi_err("a transfer of \"%s\" does not end: its engine hears so, and what it "
			"touches is kept until it does; see dmesg for Xid, or for the NIC",
			op->session->name);
	op->late = true;
	op->cqe_flags |= WEFT_CQE_UNFENCED;
	op_tell(op, res, 0);
	if (op->ring)
		op->ring_id = OP_RING_NONE;
	op->ring = NULL;
}

uint64_t op_deadline(const struct node *node, const struct weft_sqe *sqe, uint64_t now_ns)
{
	return now_ns +
	       (sqe->timeout_us ? sqe->timeout_us * WFI_NSEC_PER_USEC : node->op_timeout_ns);
}

static int op_nop(struct op_ctx *c)
{
	(void)c;
	return 0;
}

/* ---- dispatch ---- */

static int (*const op_table[WEFT_OP_NR])(struct op_ctx *c) = {
	[WEFT_OP_NOP] = op_nop,
	[WEFT_OP_STAT] = op_stat,
	[WEFT_OP_CLAIM] = op_claim,
	[WEFT_OP_PUT] = op_put,
	[WEFT_OP_MATCH] = op_match,
	[WEFT_OP_GET] = op_get,
	[WEFT_OP_MAP] = op_map,
	[WEFT_OP_RELEASE] = op_release,
	[WEFT_OP_PREFETCH] = op_prefetch,
	[WEFT_OP_DROP] = op_drop,
	[WEFT_OP_HANDOFF_EXPECT] = op_expect,
	[WEFT_OP_HANDOFF_PUSH] = op_push,
	[WEFT_OP_HANDOFF_CANCEL] = op_cancel_handoff,
	[WEFT_OP_CHANNEL_OPEN] = op_channel_open,
	[WEFT_OP_CHANNEL_JOIN] = op_channel_join,
	[WEFT_OP_CHANNEL_SEND] = op_channel_send,
	[WEFT_OP_CHANNEL_RECV] = op_channel_recv,
	[WEFT_OP_CHANNEL_RELEASE] = op_channel_release,
	[WEFT_OP_CHANNEL_CLOSE] = op_channel_close,
	[WEFT_OP_ROUTE] = op_route,
};

/* operations for which nr = 0 means something */
static bool op_nr_ok(const struct weft_sqe *sqe)
{
	switch (sqe->op) {
	case WEFT_OP_NOP:
	case WEFT_OP_STAT:
	case WEFT_OP_RELEASE:
	case WEFT_OP_HANDOFF_CANCEL:
	case WEFT_OP_CHANNEL_JOIN:
	case WEFT_OP_CHANNEL_RELEASE:
	case WEFT_OP_CHANNEL_CLOSE:
		return sqe->nr <= WEFT_OP_BLOCKS_MAX;
	default:
		return sqe->nr && sqe->nr <= WEFT_OP_BLOCKS_MAX;
	}
}

static int sqe_check(const struct weft_sqe *sqe)
{
	if (sqe->op >= WEFT_OP_NR)
		return -EOPNOTSUPP;
	if (sqe->reserved || sqe->flags & ~op_flags[sqe->op] || !op_nr_ok(sqe) ||
	    sqe->arg_off % WEFT_ARG_ALIGN)
		return -EINVAL;
	return 0;
}

/* Return: when it was taken */
static uint64_t op_run(struct node *node, struct node_ring *r, struct weft_sqe *sqe)
{
	struct op_ctx c = { .node = node, .r = r, .s = r->session, .sqe = sqe };
	int ret;

	c.now_ns = wfi_now(node->env);
	ret = sqe_check(sqe);
	if (!ret)
		ret = op_table[sqe->op](&c);
	if (sqe->op < WEFT_OP_NR)
		wfi_count(node->op_metrics[sqe->op].nr, 1);
	if (ret == OP_OPEN)
		return c.now_ns;
	if (sqe->op >= WEFT_OP_NR)
		sqe->op = WEFT_OP_NOP;
	op_signal_give(&c.signal);
	complete(node, r, sqe, ret, 0, c.value, c.now_ns);
	return c.now_ns;
}

/* the shortest path there is: what it costs to ask the node anything */
static void nop_run(struct node_ring *r, const struct weft_sqe *sqe)
{
	struct weft_cqe cqe = { .user_data = sqe->user_data, .op = WEFT_OP_NOP };

	op_post(r, &cqe);
}

/* each is answered before the next is looked at: nobody waits for who came later. Return: how many,
 * -EPROTO */
static int ring_run(struct node *node, struct node_ring *r)
{
	uint64_t now_ns, end_ns = 0;
	struct weft_sqe sqe;
	unsigned nops = 0;
	int n, ret = 0;

	for (n = 0; n < (int)TAKE_MAX; n++) {
		ret = wfi_ring_take(r->ring, &sqe, 1);
		if (ret <= 0)
			break;
		if (wfi_likely(sqe.op == WEFT_OP_NOP && !sqe_check(&sqe))) {
			nop_run(r, &sqe);
			nops++;
			continue;
		}
		/* the last one may have taken long: then it is the turn of others */
		now_ns = op_run(node, r, &sqe);
		if (!end_ns)
			end_ns = now_ns + TURN_NS;
		else if (wfi_unlikely(now_ns > end_ns))
			break;
	}
	if (nops)
		wfi_count(node->op_metrics[WEFT_OP_NOP].nr, nops);
	return ret < 0 ? ret : n;
}

int ops_poll_ring(struct node *node, struct node_ring *r)
{
	int nr, work = 0;

	if (wfi_unlikely(r->ev_head != r->ev_tail))
		work = ring_post_events(r);
	nr = ring_run(node, r);
	if (wfi_unlikely(nr < 0)) {
		if (!r->session->broken)
			wfi_count(node->bad_rings, 1);
		r->session->broken = true;
		return 0;
	}
	if (nr || r->dirty) {
		r->dirty = false;
		wfi_ring_flush(r->ring);
	}
	return work + nr;
}

static void xfers_cancel(struct node *node, const struct node_op *op)
{
	if (op->xfer)
		wfi_xfer_cancel(node->xfer, op->xfer);
	if (op->hot.xfer)
		wfi_xfer_cancel(node->xfer, op->hot.xfer);
}

/* a push ends by its deadline */
static void op_cancel(struct session *s, struct node_op *op)
{
	struct node *node = s->node;

	if (op->route)
		wfi_cluster_route_cancel(node->cluster, op->route);
	else if (op->sqe.op >= WEFT_OP_CHANNEL_OPEN)
		wfi_channel_cancel(node->channels, op);
	else if (op->sqe.op == WEFT_OP_HANDOFF_EXPECT)
		wfi_handoff_cancel(node->handoffs, &s->owner, op->handoff);
	else if (op->fetch)
		wfi_kv_fetch_cancel(node->kv, op->fetch, -ECANCELED);
	else if (op->pull)
		wfi_cluster_cancel(node->cluster, op->pull);
	else if (op->sqe.op != WEFT_OP_HANDOFF_PUSH)
		xfers_cancel(node, op);
}

void ops_cancel(struct session *s, const struct node_ring *only)
{
	struct node_op *op;

	for (op = s->ops; op; op = op->next) {
		op->cancel = !only || op->ring == only;
		if (op->cancel)
			op->ring = NULL;
	}
	/* each may end, and free itself and others, in the call: so from the start each time */
	for (op = s->ops; op;) {
		if (!op->cancel) {
			op = op->next;
			continue;
		}
		op->cancel = false;
		op_cancel(s, op);
		op = s->ops;
	}
}

/* ---- set-up ---- */

static int scratch_create(struct node *node)
{
	uint32_t n = WEFT_OP_BLOCKS_MAX;

	node->keys = wfi_alloc(node->env, (n + 1) * sizeof(*node->keys));
	node->places = wfi_alloc(node->env, n * sizeof(*node->places));
	node->slots = wfi_alloc(node->env, n * sizeof(*node->slots));
	node->idx = wfi_alloc(node->env, n * sizeof(*node->idx));
	node->where = wfi_alloc(node->env, n * sizeof(*node->where));
	node->results = wfi_alloc(node->env, n * sizeof(*node->results));
	if (!node->keys || !node->places || !node->slots || !node->idx || !node->where ||
	    !node->results)
		return -ENOMEM;
	return 0;
}

static void op_metrics_create(struct node *node, unsigned op)
{
	struct op_metrics *m = &node->op_metrics[op];
	char label[48];

	snprintf(label, sizeof(label), "op=\"%s\"", op_names[op]);
	m->nr = wfi_metrics_counter(node->metrics, "weft_ops", label, "", "Operations taken");
	m->errors = wfi_metrics_counter(node->metrics, "weft_op_errors", label, "",
					"Operations that failed as a whole");
	m->time = wfi_metrics_hist(node->metrics, "weft_op", label, "seconds",
				   "From the take of a submission to its completion");
	if (!m->nr)
		m->nr = &node->scratch_counter;
	if (!m->errors)
		m->errors = &node->scratch_counter;
	if (!m->time)
		m->time = &node->scratch_hist;
}

int ops_create(struct node *node)
{
	unsigned op;

	for (op = 0; op < WEFT_OP_NR; op++)
		op_metrics_create(node, op);
	return scratch_create(node);
}

void ops_destroy(struct node *node)
{
	uint32_t n = WEFT_OP_BLOCKS_MAX;
	struct node_op *op;
	unsigned class;

	while ((op = node->free_ops)) {
		node->free_ops = op->next;
		wfi_free(node->env, op, sizeof(*op));
	}
	for (class = 0; class < OP_BUF_CLASSES; class ++)
		while (node->free_bufs[class])
			wfi_free(node->env, buf_get(node, class), buf_bytes(buf_blocks[class]));
	wfi_free(node->env, node->keys, (n + 1) * sizeof(*node->keys));
	wfi_free(node->env, node->places, n * sizeof(*node->places));
	wfi_free(node->env, node->slots, n * sizeof(*node->slots));
	wfi_free(node->env, node->idx, n * sizeof(*node->idx));
	wfi_free(node->env, node->where, n * sizeof(*node->where));
	wfi_free(node->env, node->results, n * sizeof(*node->results));
}
