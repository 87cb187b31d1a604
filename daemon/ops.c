/* SPDX-License-Identifier: Apache-2.0 */
/* ops.c - what each ring operation asks of the KV manager, the transfers and the handoffs */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node.h"
#include "weft_internal/log.h"

#define TAKE_MAX 32u

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
};

static const uint8_t op_flags[WEFT_OP_NR] = {
	[WEFT_OP_PUT] = WEFT_F_COPY,
	[WEFT_OP_MATCH] = WEFT_F_LEASE | WEFT_F_WHERE,
	[WEFT_OP_GET] = WEFT_F_VERIFY,
	[WEFT_OP_MAP] = WEFT_F_VERIFY,
};

/* ---- open operations and their buffers: allocated once, then recycled ---- */

static const uint32_t buf_blocks[OP_BUF_CLASSES] = { 64, 1024, 8192, WEFT_OP_BLOCKS_MAX };

/* what an operation keeps while bytes move */
struct op_buf {
	struct wfi_piece *pieces;
	struct weft_key *keys; /* [0] is the parent, then nr keys */
	struct weft_slot *slots;
	uint32_t *idx;
	int32_t *results;
};

static size_t buf_bytes(uint32_t nr)
{
	return sizeof(struct weft_key) +
	       nr * (sizeof(struct wfi_piece) + sizeof(struct weft_key) + sizeof(struct weft_slot) +
		     sizeof(uint32_t) + sizeof(int32_t));
}

static struct op_buf buf_of(const struct node_op *op)
{
	uint32_t nr = buf_blocks[op->buf_class];
	struct op_buf b;

	b.pieces = op->buf;
	b.keys = (struct weft_key *)(b.pieces + nr);
	b.slots = (struct weft_slot *)(b.keys + nr + 1);
	b.idx = (uint32_t *)(b.slots + nr);
	b.results = (int32_t *)(b.idx + nr);
	return b;
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

static struct node_op *op_open(struct node *node, struct node_ring *r, const struct weft_sqe *sqe,
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

static void op_close(struct node_op *op)
{
	struct session *s = op->session;
	struct node *node = s->node;

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
static void ring_post(struct node_ring *r, const struct weft_cqe *cqe)
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
		     uint64_t value, uint64_t start_ns)
{
	struct op_metrics *m = &node->op_metrics[sqe->op];
	struct weft_cqe cqe = {
		.res = res,
		.user_data = sqe->user_data,
		.op = sqe->op,
		.value = value,
	};

	ring_post(r, &cqe);
	if (res < 0)
		wfi_count(m->errors, 1);
	wfi_hist_add(m->time, wfi_now(node->env) - start_ns);
}

static void op_complete(struct node_op *op, int res, uint64_t value)
{
	struct node *node = op->session->node;

	if (op->ring)
		complete(node, op->ring, &op->sqe, res, value, op->start_ns);
	op_close(op);
}

static uint64_t op_deadline(const struct node *node, const struct weft_sqe *sqe, uint64_t now_ns)
{
	return now_ns +
	       (sqe->timeout_us ? sqe->timeout_us * WFI_NSEC_PER_USEC : node->op_timeout_ns);
}

/* ---- operations that complete at once; each returns the completion's res ---- */

struct op_ctx {
	struct node *node;
	struct node_ring *r;
	struct session *s;
	const struct weft_sqe *sqe;
	uint64_t now_ns;
	uint64_t value; /* completion's .value */
};

/* an operation that stays open returns this: its completion comes later */
#define OP_OPEN INT32_MIN

static int op_stat(struct op_ctx *c)
{
	struct weft_stat st;

	wfi_kv_stat(c->node->kv, c->s->tenant, &st);
	return wfi_ring_args_write(c->r->ring, c->sqe->arg_off, &st, sizeof(st));
}

static int op_claim(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_slot);
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, len))
		return -EFAULT;
	ret = wfi_kv_claim(c->node->kv, &c->s->owner, c->sqe->space, c->sqe->nr, c->node->slots,
			   c->now_ns);
	if (ret < 0)
		return ret;
	wfi_ring_args_write(c->r->ring, c->sqe->arg_off, c->node->slots, len);
	return ret;
}

/* private copy of keys that stand first in the arguments */
static int take_keys(struct op_ctx *c, uint64_t out_len)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_key);
	struct wfi_space_info space;
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, len + out_len))
		return -EFAULT;
	return wfi_ring_args_read(c->r->ring, c->sqe->arg_off, c->node->keys, len);
}

static uint64_t after_keys(const struct op_ctx *c)
{
	return c->sqe->arg_off + c->sqe->nr * sizeof(struct weft_key);
}

/* blocks found one after the other, from the first on; checked where asked */
static int lookup_prefix(struct op_ctx *c, uint32_t nr, bool verify)
{
	uint32_t n;

	wfi_kv_lookup(c->node->kv, c->sqe->space, c->node->keys, nr, c->node->idx, c->now_ns);
	for (n = 0; n < nr && c->node->idx[n] != WFI_SLOT_NONE; n++)
		if (verify && wfi_kv_verify(c->node->kv, c->node->idx[n]))
			break;
	return (int)n;
}

static bool wants_verify(const struct op_ctx *c)
{
	struct wfi_space_info space;

	if (c->sqe->flags & WEFT_F_VERIFY)
		return true;
	return !wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space) && space.verify;
}

static int lease_prefix(struct op_ctx *c, uint32_t nr)
{
	if (!nr)
		return 0;
	return wfi_kv_lease(c->node->kv, &c->s->owner, c->node->idx, nr,
			    c->now_ns + c->node->lease_ns, &c->value);
}

static int op_match(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr, i;
	int n, ret;

	ret = take_keys(c, c->sqe->flags & WEFT_F_WHERE ? nr * sizeof(uint32_t) : 0);
	if (ret)
		return ret;
	n = wfi_kv_match(c->node->kv, c->sqe->space, c->node->keys, nr);
	if (n < 0)
		return n;
	if (c->sqe->flags & WEFT_F_WHERE) {
		for (i = 0; i < nr; i++)
			c->node->idx[i] = i < (uint32_t)n ? WEFT_TIER_DRAM : WEFT_TIER_NONE;
		wfi_ring_args_write(c->r->ring, after_keys(c), c->node->idx, nr * sizeof(uint32_t));
	}
	if (c->sqe->flags & WEFT_F_LEASE) {
		n = lookup_prefix(c, (uint32_t)n, false);
		ret = lease_prefix(c, (uint32_t)n);
		if (ret)
			return ret;
	}
	return n;
}

static int op_map(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(struct weft_slot);
	int n, i, ret;

	ret = take_keys(c, len);
	if (ret)
		return ret;
	n = lookup_prefix(c, c->sqe->nr, wants_verify(c));
	ret = lease_prefix(c, (uint32_t)n);
	if (ret)
		return ret;
	for (i = 0; i < n; i++)
		wfi_kv_slot_ref(c->node->kv, c->node->idx[i], &c->node->slots[i]);
	wfi_ring_args_write(c->r->ring, after_keys(c), c->node->slots,
			    (uint64_t)n * sizeof(struct weft_slot));
	return n;
}

static int op_release(struct op_ctx *c)
{
	int ret;

	if (c->sqe->handle)
		return wfi_kv_release(c->node->kv, &c->s->owner, c->sqe->handle);
	ret = wfi_ring_args_read(c->r->ring, c->sqe->arg_off, c->node->slots,
				 c->sqe->nr * sizeof(struct weft_slot));
	if (ret)
		return ret;
	return wfi_kv_unclaim(c->node->kv, &c->s->owner, c->node->slots, c->sqe->nr);
}

/* one tier so far: what is there is in the fastest one, and a touch keeps it there */
static int op_prefetch(struct op_ctx *c)
{
	int ret = take_keys(c, 0);

	return ret ? ret : lookup_prefix(c, c->sqe->nr, false);
}

static int op_drop(struct op_ctx *c)
{
	uint64_t len = c->sqe->nr * sizeof(int32_t);
	int n, ret;

	ret = take_keys(c, len);
	if (ret)
		return ret;
	n = wfi_kv_drop(c->node->kv, c->sqe->space, c->node->keys, c->sqe->nr, c->node->results);
	if (n >= 0)
		wfi_ring_args_write(c->r->ring, after_keys(c), c->node->results, len);
	return n;
}

/* ---- put ---- */

static int put_in_place(struct op_ctx *c, const struct wfi_space_info *space)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off;
	struct weft_key parent;
	struct wfi_ring *ring = c->r->ring;
	int n;

	(void)space;
	if (wfi_ring_args_read(ring, off, &parent, sizeof(parent)) ||
	    wfi_ring_args_read(ring, off + 16, c->node->keys, nr * sizeof(struct weft_key)) ||
	    wfi_ring_args_read(ring, off + 16 + nr * 16ull, c->node->slots,
			       nr * sizeof(struct weft_slot)))
		return -EFAULT;
	n = wfi_kv_put(c->node->kv, &c->s->owner, c->sqe->space, &parent, c->node->keys,
		       c->node->slots, nr, NULL, c->node->results, c->now_ns);
	if (n >= 0)
		wfi_ring_args_write(ring, off + 16 + nr * 32ull, c->node->results,
				    nr * sizeof(int32_t));
	return n;
}

/* once for each run of pieces in one region */
static void region_hold(struct session *s, const struct wfi_piece *pieces, uint32_t nr, int by)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (!i || pieces[i].rkey != pieces[i - 1].rkey)
			s->regions[pieces[i].rkey].nr_ops += (uint32_t)by;
}

/* a block's piece in the engine's memory; Return: 0, -EINVAL with nothing written */
static int place_check(const struct session *s, const struct weft_place *p, uint64_t block_bytes,
		       struct wfi_piece *piece)
{
	const struct region *g;
	uint64_t len = p->len ? p->len : block_bytes;

	if (p->region >= SESSION_REGIONS_MAX || len != block_bytes)
		return -EINVAL;
	g = &s->regions[p->region];
	if (!g->rkey || g->closing || !wfi_range_ok(p->off, len, g->len))
		return -EINVAL;
	piece->remote = p->off;
	piece->rkey = p->region;
	piece->len = len;
	return 0;
}

static void put_copy_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = buf_of(op);
	uint32_t nr = op->nr, i, end;
	int held = 0, n;

	(void)res;
	region_hold(s, b.pieces, nr, -1);
	wfi_kv_unpin(node->kv, b.idx, nr);
	for (i = 0; i < nr; i = end) {
		for (end = i; end < nr && !b.results[end]; end++)
			;
		if (end > i) {
			n = wfi_kv_put(node->kv, &s->owner, op->sqe.space, &b.keys[i],
				       &b.keys[i + 1], &b.slots[i], end - i, NULL, &b.results[i],
				       wfi_now(node->env));
			held += n > 0 ? n : 0;
			continue;
		}
		wfi_kv_unclaim(node->kv, &s->owner, &b.slots[i], 1);
		end = i + 1;
	}
	wfi_count(node->bytes_in, (uint64_t)held * b.pieces[0].len);
	if (op->ring)
		wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + 16 + nr * 32ull, b.results,
				    nr * sizeof(int32_t));
	op_complete(op, held, 0);
}

/* starts the bytes of an operation. Return: OP_OPEN, or the error that ends it at once */
static int op_transfer(struct node_op *op, enum wfi_xfer_dir dir, void (*done)(void *ctx, int res),
		       uint32_t nr_pieces)
{
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = buf_of(op);
	struct wfi_xfer_opts x = {
		.ep = s->ep,
		.dir = dir,
		.rkeys = s->rkeys,
		.nr_rkeys = SESSION_REGIONS_MAX,
		.pieces = b.pieces,
		.nr_pieces = nr_pieces,
		.nr_blocks = op->nr,
		.results = b.results,
		.deadline_ns = op_deadline(node, &op->sqe, op->start_ns),
		.done = done,
		.ctx = op,
	};
	int ret;

	region_hold(s, b.pieces, nr_pieces, 1);
	ret = wfi_xfer_submit(node->xfer, &x, &op->xfer);
	if (!ret)
		return OP_OPEN;
	region_hold(s, b.pieces, nr_pieces, -1);
	return ret;
}

static int put_copied(struct op_ctx *c, const struct wfi_space_info *space)
{
	uint32_t nr = c->sqe->nr, i;
	uint64_t off = c->sqe->arg_off;
	struct node_op *op;
	struct op_buf b;
	int ret;

	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	b = buf_of(op);
	ret = -EFAULT;
	if (wfi_ring_args_read(c->r->ring, off, b.keys, (nr + 1ull) * sizeof(struct weft_key)) ||
	    wfi_ring_args_read(c->r->ring, off + 16 + nr * 16ull, c->node->places,
			       nr * sizeof(struct weft_place)))
		goto err_close;
	for (i = 0; i < nr; i++) {
		ret = place_check(c->s, &c->node->places[i], space->block_bytes, &b.pieces[i]);
		if (ret)
			goto err_close;
	}
	ret = wfi_kv_claim(c->node->kv, &c->s->owner, c->sqe->space, nr, b.slots, c->now_ns);
	if (ret < 0)
		goto err_close;
	for (i = 0; i < nr; i++) {
		b.pieces[i].local = wfi_kv_slot_addr(c->node->kv, b.slots[i].idx);
		b.pieces[i].block = i;
		b.idx[i] = b.slots[i].idx;
	}
	/* an engine may guess its slots and release them: not while bytes land there */
	wfi_kv_pin(c->node->kv, b.idx, nr);
	ret = op_transfer(op, WFI_XFER_READ, put_copy_done, nr);
	if (ret == OP_OPEN)
		return ret;
	wfi_kv_unpin(c->node->kv, b.idx, nr);
	wfi_kv_unclaim(c->node->kv, &c->s->owner, b.slots, nr);
err_close:
	op_close(op);
	return ret;
}

static int op_put(struct op_ctx *c)
{
	struct wfi_space_info space;
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	if (!wfi_ring_args_ok(c->r->ring, c->sqe->arg_off, 16 + c->sqe->nr * 36ull))
		return -EFAULT;
	if (c->sqe->flags & WEFT_F_COPY)
		return put_copied(c, &space);
	return put_in_place(c, &space);
}

/* ---- get ---- */

/* results of blocks that have no piece: the transfer knows nothing of them, and calls them good */
static void get_misses(const struct node_op *op, const struct op_buf *b)
{
	uint32_t i, n = 0;

	for (i = 0; i < op->nr; i++) {
		if (n < op->nr_pieces && b->pieces[n].block == i)
			n++;
		else
			b->results[i] = -ENOENT;
	}
}

static void get_done(void *ctx, int res)
{
	struct node_op *op = ctx;
	struct session *s = op->session;
	struct node *node = s->node;
	struct op_buf b = buf_of(op);
	uint32_t i, arrived = op->nr_pieces;

	if (op->nr_pieces < op->nr)
		get_misses(op, &b);
	if (res < 0)
		for (i = 0, arrived = 0; i < op->nr; i++)
			arrived += b.results[i] == 0;
	region_hold(s, b.pieces, op->nr_pieces, -1);
	wfi_kv_unpin(node->kv, b.idx, op->nr_pieces);
	if (arrived)
		wfi_count(node->bytes_out, (uint64_t)arrived * b.pieces[0].len);
	if (op->ring)
		wfi_ring_args_write(op->ring->ring, op->sqe.arg_off + op->nr * 32ull, b.results,
				    op->nr * sizeof(int32_t));
	op_complete(op, (int)arrived, 0);
}

/* pieces of the blocks that are here, and their slots without gaps; the others are misses.
 * Return: 0 or -EINVAL */
static int get_plan(struct op_ctx *c, struct node_op *op, const struct op_buf *b,
		    const struct wfi_space_info *space)
{
	bool verify = wants_verify(c);
	uint32_t i, slot, n = 0;
	int ret;

	for (i = 0; i < op->nr; i++) {
		struct wfi_piece *p = &b->pieces[n];

		ret = place_check(c->s, &c->node->places[i], space->block_bytes, p);
		if (ret)
			return ret;
		slot = b->idx[i];
		if (slot == WFI_SLOT_NONE || (verify && wfi_kv_verify(c->node->kv, slot)))
			continue;
		p->local = wfi_kv_slot_addr(c->node->kv, slot);
		p->block = i;
		b->idx[n++] = slot;
	}
	op->nr_pieces = n;
	return 0;
}

static int op_get(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	struct wfi_space_info space;
	struct node_op *op;
	struct op_buf b;
	int ret;

	ret = wfi_kv_space_get(c->node->kv, c->s->tenant, c->sqe->space, &space);
	if (ret)
		return ret;
	ret = take_keys(c, nr * (sizeof(struct weft_place) + sizeof(int32_t)));
	if (ret)
		return ret;
	ret = wfi_ring_args_read(c->r->ring, after_keys(c), c->node->places,
				 nr * sizeof(struct weft_place));
	if (ret)
		return ret;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	b = buf_of(op);
	wfi_kv_lookup(c->node->kv, c->sqe->space, c->node->keys, nr, b.idx, c->now_ns);
	ret = get_plan(c, op, &b, &space);
	if (ret)
		goto err_close;
	wfi_kv_pin(c->node->kv, b.idx, op->nr_pieces);
	if (!op->nr_pieces) {
		get_done(op, 0);
		return OP_OPEN;
	}
	ret = op_transfer(op, WFI_XFER_WRITE, get_done, op->nr_pieces);
	if (ret == OP_OPEN)
		return ret;
	wfi_kv_unpin(c->node->kv, b.idx, op->nr_pieces);
err_close:
	op_close(op);
	return ret;
}

/* ---- handoff ---- */

static void expect_landed(void *ctx, uint32_t layer, uint32_t nr_layers, uint32_t first,
			  uint32_t nr, const struct weft_slot *slots)
{
	struct node_op *op = ctx;
	uint64_t off;
	struct weft_cqe cqe = {
		.res = (int32_t)nr,
		.user_data = op->sqe.user_data,
		.op = op->sqe.op,
		.flags = WEFT_CQE_MORE,
		.layer = (uint16_t)layer,
		.nr_layers = (uint16_t)nr_layers,
		.value = first | (uint64_t)nr << 32,
	};

	if (!op->ring)
		return;
	off = op->sqe.arg_off + sizeof(struct weft_arg_expect) + op->nr * 16ull + first * 16ull;
	wfi_ring_args_write(op->ring->ring, off, slots, nr * sizeof(*slots));
	ring_post(op->ring, &cqe);
}

static void expect_done(void *ctx, int res, uint64_t lease, const struct weft_slot *slots)
{
	struct node_op *op = ctx;
	uint64_t off = op->sqe.arg_off + sizeof(struct weft_arg_expect) + op->nr * 16ull;

	if (res > 0 && op->ring)
		wfi_ring_args_write(op->ring->ring, off, slots, op->nr * sizeof(*slots));
	op_complete(op, res, lease);
}

static int op_expect(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	uint64_t off = c->sqe->arg_off;
	struct weft_arg_expect arg;
	struct weft_cqe cqe = { .flags = WEFT_CQE_MORE | WEFT_CQE_TICKET };
	struct wfi_expect_opts o;
	struct node_op *op;
	int ret;

	if (!wfi_ring_args_ok(c->r->ring, off, sizeof(arg) + nr * 32ull) ||
	    wfi_ring_args_read(c->r->ring, off, &arg, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, off + sizeof(arg), c->node->keys, nr * 16ull))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_expect_opts){
		.owner = &c->s->owner,
		.space = c->sqe->space,
		.nr_blocks = nr,
		.nr_layers = arg.nr_layers,
		.keys = c->node->keys,
		.parent = arg.parent,
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.landed = expect_landed,
		.done = expect_done,
		.ctx = op,
	};
	ret = wfi_handoff_expect(c->node->handoffs, &o, &arg.ticket, &op->handoff);
	if (ret) {
		op_close(op);
		return ret;
	}
	wfi_ring_args_write(c->r->ring, off, &arg.ticket, sizeof(arg.ticket));
	cqe.user_data = c->sqe->user_data;
	cqe.op = c->sqe->op;
	cqe.value = op->handoff;
	ring_post(c->r, &cqe);
	return OP_OPEN;
}

static void push_done(void *ctx, int res)
{
	op_complete(ctx, res, 0);
}

static int op_push(struct op_ctx *c)
{
	uint32_t nr = c->sqe->nr;
	struct weft_arg_push arg;
	struct wfi_push_opts o;
	struct node_op *op;
	int ret;

	if (wfi_ring_args_read(c->r->ring, c->sqe->arg_off, &arg, sizeof(arg)) ||
	    wfi_ring_args_read(c->r->ring, c->sqe->arg_off + sizeof(arg), c->node->slots,
			       nr * 16ull))
		return -EFAULT;
	op = op_open(c->node, c->r, c->sqe, c->now_ns);
	if (!op)
		return -ENOMEM;
	o = (struct wfi_push_opts){
		.owner = &c->s->owner,
		.space = c->sqe->space,
		.ticket = &arg.ticket,
		.layer = arg.layer,
		.nr_layers = arg.nr_layers,
		.first_block = arg.first_block,
		.nr = nr,
		.slots = c->node->slots,
		.peer = peer_find(c->node, arg.ticket.node),
		.now_ns = c->now_ns,
		.deadline_ns = op_deadline(c->node, c->sqe, c->now_ns),
		.done = push_done,
		.ctx = op,
	};
	ret = wfi_handoff_push(c->node->handoffs, &o);
	if (!ret)
		return OP_OPEN;
	op_close(op);
	return ret;
}

static int op_cancel_handoff(struct op_ctx *c)
{
	return wfi_handoff_cancel(c->node->handoffs, &c->s->owner, c->sqe->handle);
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
};

/* operations for which nr = 0 means something */
static bool op_nr_ok(const struct weft_sqe *sqe)
{
	switch (sqe->op) {
	case WEFT_OP_NOP:
	case WEFT_OP_STAT:
	case WEFT_OP_RELEASE:
	case WEFT_OP_HANDOFF_CANCEL:
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

static void op_run(struct node *node, struct node_ring *r, struct weft_sqe *sqe)
{
	struct op_ctx c = { .node = node, .r = r, .s = r->session, .sqe = sqe };
	int ret;

	c.now_ns = wfi_now(node->env);
	ret = sqe_check(sqe);
	if (!ret)
		ret = op_table[sqe->op](&c);
	if (ret == OP_OPEN)
		return;
	if (sqe->op >= WEFT_OP_NR)
		sqe->op = WEFT_OP_NOP;
	complete(node, r, sqe, ret, c.value, c.now_ns);
}

/* the shortest path there is: what it costs to ask the node anything */
static void nop_run(struct node_ring *r, const struct weft_sqe *sqe)
{
	struct weft_cqe cqe = { .user_data = sqe->user_data, .op = WEFT_OP_NOP };

	ring_post(r, &cqe);
}

int ops_poll_ring(struct node *node, struct node_ring *r)
{
	struct weft_sqe sqes[TAKE_MAX];
	int nr, i, work = 0;

	if (wfi_unlikely(r->ev_head != r->ev_tail))
		work = ring_post_events(r);
	nr = wfi_ring_take(r->ring, sqes, TAKE_MAX);
	if (wfi_unlikely(nr < 0)) {
		if (!r->session->broken)
			wfi_count(node->bad_rings, 1);
		r->session->broken = true;
		return 0;
	}
	for (i = 0; i < nr; i++) {
		if (sqes[i].op == WEFT_OP_NOP && !sqe_check(&sqes[i]))
			nop_run(r, &sqes[i]);
		else
			op_run(node, r, &sqes[i]);
	}
	if (nr) {
		for (i = 0; i < nr; i++)
			if (sqes[i].op < WEFT_OP_NR)
				wfi_count(node->op_metrics[sqes[i].op].nr, 1);
		r->dirty = true;
	}
	if (r->dirty) {
		r->dirty = false;
		wfi_ring_flush(r->ring);
	}
	return work + nr;
}

void ops_cancel(struct session *s, const struct node_ring *only)
{
	struct node_op *op, *next;

	for (op = s->ops; op; op = next) {
		next = op->next;
		if (only && op->ring != only)
			continue;
		op->ring = NULL;
		/* each may end, and free itself, in the call; a push ends by its deadline */
		if (op->sqe.op == WEFT_OP_HANDOFF_EXPECT)
			wfi_handoff_cancel(s->node->handoffs, &s->owner, op->handoff);
		else if (op->sqe.op != WEFT_OP_HANDOFF_PUSH)
			wfi_xfer_cancel(s->node->xfer, op->xfer);
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
	node->results = wfi_alloc(node->env, n * sizeof(*node->results));
	if (!node->keys || !node->places || !node->slots || !node->idx || !node->results)
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
	wfi_free(node->env, node->results, n * sizeof(*node->results));
}
