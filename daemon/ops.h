/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ops.h - what the files of the ring's operations share; private to the worker
 *
 * ops.c          taking, dispatch, open operations and their buffers, completions
 * ops_find.c     what ends at once: stat, claim, match, map, release, prefetch, drop
 * ops_put.c      put, in place and copied
 * ops_get.c      get
 * ops_hot.c      what of a get the tier of a GPU has
 * ops_fetch.c    what of a get or a map lies in a slower tier
 * ops_afar.c     what of a match, a get or a map other nodes have
 * ops_handoff.c  expectations and pushes
 * ops_channel.c  channels
 * ops_route.c    which node is best for a chain
 * ops_move.c     places of engines, and the transfers to and from them
 */
#ifndef WEFTD_OPS_H
#define WEFTD_OPS_H

#include "node.h"

/* an operation that stays open returns this: its completion comes later */
#define OP_OPEN INT32_MIN

/* one operation that was just taken */
struct op_ctx {
	struct node *node;
	struct node_ring *r;
	struct session *s;
	const struct weft_sqe *sqe;
	uint64_t now_ns;
	uint64_t value; /* completion's .value */
	struct op_signal signal; /* given before the completion */
};

/* what an open operation keeps while bytes move */
struct op_buf {
	struct wfi_piece *pieces;
	struct weft_key *keys; /* [0] is the parent, then nr keys */
	struct weft_slot *slots;
	uint32_t *idx;
	int32_t *results;
	uint32_t *sums; /* CRC32C of blocks */
	/* of a get of other nodes' blocks, in the room of .slots: where each is to lie; then NULL
	 * for those that have not come */
	void **places;
};

/* ---- ops.c ---- */

/* Return: on the session's list, with a buffer for @sqe->nr blocks; NULL no memory */
struct node_op *op_open(struct node *node, struct node_ring *r, const struct weft_sqe *sqe,
			uint64_t now_ns);
void op_close(struct node_op *op);
struct op_buf op_buf_of(const struct node_op *op);
/* another one of that size. Return: NULL no memory */
void *op_buf_get(const struct node_op *op);
void op_buf_put(const struct node_op *op, void *buf);
struct op_buf op_buf_at(const struct node_op *op, void *buf);
/* the last completion of an operation; closes it */
void op_complete(struct node_op *op, int res, uint64_t value);
/* the engine hears of the end now, with WEFT_CQE_UNFENCED; the operation holds what it holds until
 * it ends, and is nobody's then. One whose ring is closed has nobody to tell */
void op_tell_late(struct node_op *op, int res);
/* one completion; what finds no room waits for it */
void op_post(struct node_ring *r, const struct weft_cqe *cqe);
uint64_t op_deadline(const struct node *node, const struct weft_sqe *sqe, uint64_t now_ns);

/* ---- operations; each returns the completion's res, or OP_OPEN ---- */

int op_stat(struct op_ctx *c);
int op_claim(struct op_ctx *c);
int op_match(struct op_ctx *c);
int op_map(struct op_ctx *c);
int op_release(struct op_ctx *c);
int op_prefetch(struct op_ctx *c);
int op_drop(struct op_ctx *c);
int op_put(struct op_ctx *c);
int op_get(struct op_ctx *c);
int op_expect(struct op_ctx *c);
int op_push(struct op_ctx *c);
int op_cancel_handoff(struct op_ctx *c);
int op_channel_open(struct op_ctx *c);
int op_channel_join(struct op_ctx *c);
int op_channel_send(struct op_ctx *c);
int op_channel_recv(struct op_ctx *c);
int op_channel_release(struct op_ctx *c);
int op_channel_close(struct op_ctx *c);
int op_route(struct op_ctx *c);

/* ---- ops_find.c: what others need of it ---- */

/* a private copy of the keys that stand first in the arguments, which go on for @out_len bytes.
 * Return: 0, -ENOENT no such space, -EFAULT */
int op_take_keys(struct op_ctx *c, uint64_t out_len, struct wfi_space_info *space);
static inline uint64_t op_after_keys(const struct op_ctx *c)
{
	return c->sqe->arg_off + c->sqe->nr * sizeof(struct weft_key);
}

/* ---- ops_get.c, ops_fetch.c ---- */

/* the transfer of a get has ended: results, pins, completion */
void op_get_done(void *ctx, int res);
/* a get that misses something in memory; @op has the slots of the rest. Return: OP_OPEN, or the
 * error that ends it at once */
int op_get_fetch(struct op_ctx *c, struct node_op *op, const struct wfi_space_info *space);

/* to @out: what is known of each block while what moves, @res, has not ended */
void op_get_results(const struct node_op *op, int32_t *out, int res);
/* (ops_hot.c) starts the bytes of a get, from copies on its GPU and from memory; op_get_done() ends
 * it. Return: as op_transfer() */
int op_get_transfer(struct node_op *op);
/* in op_get_done(): the results of what had copies; their slots and regions may go */
void op_hot_end(struct node_op *op, const struct op_buf *b);
/* in op_get_results(): of those that come from copies */
void op_hot_results(const struct node_op *op, int32_t *out, int res);

/* (ops_fetch.c) pieces of all places, in the engine's memory. Return: 0, -EINVAL, -EFAULT */
int op_get_places(struct op_ctx *c, struct node_op *op, const struct wfi_space_info *space);
/* of the first @nr in .idx, those that are there: before anything else can run, the transfer or
 * the lease that follows in this turn pins them itself. What was dropped meanwhile goes */
void op_unpin(struct node_op *op, uint32_t nr);
/* what is here by now goes to the engine, and the get ends; what is pinned in .idx is let go */
void op_get_fetched(struct node_op *op);

/* ---- ops_afar.c ---- */

/* a match whose first @n blocks are here, where node->where says if that is asked for: who has the
 * rest? Return: OP_OPEN, or how far it goes, where nobody is to be asked */
int op_match_afar(struct op_ctx *c, uint32_t n);
/* a get whose .idx says what is here, with pieces of all places: the rest is fetched. Return:
 * OP_OPEN, or 0: nobody is to be asked. What is here is pinned then, and the regions are held */
int op_get_afar(struct node_op *op, uint64_t now_ns);
/* a map whose first @n blocks are here. Return: OP_OPEN, or 0: nobody is to be asked */
int op_map_afar(struct node_op *op, uint32_t n);
/* of a map that has waited: op_unpin(). Return: the length of the prefix that is still here, in
 * .idx */
uint32_t op_map_unpin(struct node_op *op, uint32_t nr);

/* a map whose first @n blocks are in memory, in node->idx. Return: OP_OPEN, an error, or 0: nothing
 * has to be waited for */
int op_map_fetch(struct op_ctx *c, const struct wfi_space_info *space, uint32_t n);
/* (ops_find.c) the first @n blocks of a map are here, for this turn: what is left of it */
void op_map_fetched(struct node_op *op, uint32_t n);

/* ---- ops_move.c ---- */

/* @len bytes in the engine's memory. Return: 0, -EINVAL with nothing written. Hot */
static inline int op_place_take(const struct session *s, const struct weft_place *p, uint64_t len,
				struct wfi_piece *piece)
{
	const struct region *g;

	if (wfi_unlikely(p->region >= SESSION_REGIONS_MAX))
		return -EINVAL;
	g = &s->regions[p->region];
	if (wfi_unlikely(!g->rkey || g->closing || !wfi_range_ok(p->off, len, g->len)))
		return -EINVAL;
	piece->remote = p->off;
	piece->rkey = p->region;
	piece->len = len;
	return 0;
}

/* the same of a block */
static inline int op_place_check(const struct session *s, const struct weft_place *p,
				 uint64_t block_bytes, struct wfi_piece *piece)
{
	if (wfi_unlikely(p->len && p->len != block_bytes))
		return -EINVAL;
	return op_place_take(s, p, block_bytes, piece);
}

/* a piece that is only read here */
static inline void op_piece_local(const struct node *node, uint32_t slot, uint32_t block,
				  uint64_t len, struct wfi_piece *piece)
{
	*piece = (struct wfi_piece){
		.local = wfi_kv_slot_addr(node->kv, slot),
		.block = block,
		.len = len,
	};
}

/* forward only: the engine may have given it, and the word be another session's, which waits for
 * more */
void op_signal_move(const struct op_signal *signal);
/* what WEFT_F_SIGNAL asks for, behind @args bytes of other arguments, to @c->signal. Return: 0,
 * -EINVAL, -EFAULT */
int op_signal_take(struct op_ctx *c, uint64_t args);
/* what moved is there. Pairs with the acquire of whoever waits: a GPU's stream */
static inline void op_signal_give(const struct op_signal *signal)
{
	if (wfi_unlikely(signal->word != NULL))
		op_signal_move(signal);
}

/* the regions of pieces, @by 1 or -1 */
void op_regions_hold(struct session *s, const struct wfi_piece *pieces, uint32_t nr, int by);
/* starts the bytes of .nr_pieces pieces, summed up where .summed says so. What goes on beyond this
 * turn is kept: the slots in .idx, one for each piece, and the regions. @done: may be called before
 * this returns. Return: OP_OPEN, or the error that ends it at once */
int op_transfer(struct node_op *op, enum wfi_xfer_dir dir, void (*done)(void *ctx, int res));
/* as wfi_xfer_opts.late, of GET and PUT */
void op_late(void *ctx, int res);
/* in @done: what was kept may go */
void op_let_go(struct node_op *op, const struct op_buf *b);

#endif
