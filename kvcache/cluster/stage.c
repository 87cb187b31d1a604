/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage.c - pushes to other nodes out of memory of engines' own
 *
 * Parts of a push are copied to slots that are claimed for it, with the sums that the device made
 * of what it read, and sent as any message: the receiver READs them there. So one part is copied
 * out while others are on their way. Slots of a part go back with the receiver's answer, or when it
 * may lawfully read no more. Of the pushes of one handoff the first in line copies, and those
 * behind it wait: what is staged is bounded by the messages that a connection may have open.
 */
#include <errno.h>
#include <string.h>

#include "stage.h"
#include "weft_internal/log.h"

enum part_state { PART_FREE, PART_COPIES, PART_READY, PART_SENT };

struct stage_part {
	struct stage_part *next; /* free */
	struct wfi_handoffs *hs;
	struct push *push;
	struct wfi_xfer *xfer;
	enum part_state state;
	uint32_t idx; /* in .parts of the push */
	uint32_t first, nr; /* blocks of the push */
	uint32_t nr_slots;
	struct weft_slot slots[MSG_PIECES_MAX];
	struct wfi_piece pieces[MSG_PIECES_MAX];
	struct shape_list list; /* the same with a layout */
	int32_t results[MSG_PIECES_MAX];
	uint32_t crc[MSG_PIECES_MAX];
};

static uint64_t layer_bytes(const struct push *p)
{
	return p->opts.layout ? p->told.layer_stride : p->space.block_bytes / p->ticket.nr_layers;
}

static uint64_t piece_bytes(const struct push *p)
{
	return layer_bytes(p) * p->opts.nr_layers;
}

/* ---- parts ---- */

static struct stage_part *part_get(struct wfi_handoffs *hs)
{
	struct stage_part *part = hs->free_parts;

	if (part)
		hs->free_parts = part->next;
	else
		part = wfi_alloc(hs->opts.env, sizeof(*part));
	return part;
}

static void part_put(struct stage_part *part)
{
	struct wfi_handoffs *hs = part->hs;
	struct push *p = part->push;

	if (part->nr_slots)
		wfi_kv_unclaim(hs->opts.kv, &p->stage, part->slots, part->nr_slots);
	hs->nr_staged -= part->nr_slots;
	p->parts[part->idx] = NULL;
	part->state = PART_FREE;
	part->next = hs->free_parts;
	hs->free_parts = part;
}

static void part_copied(void *ctx, int res)
{
	struct stage_part *part = ctx;
	struct push *p = part->push;

	part->xfer = NULL;
	part->state = PART_READY;
	p->nr_copies--;
	if (p->state != PUSH_ENDING) {
		if (res && !p->res)
			p->res = res;
		return;
	}
	part_put(part);
	if (!p->nr_copies)
		wfi_push_copied(part->hs, p);
}

static void part_late(void *ctx, int res)
{
	const struct stage_part *part = ctx;

	wfi_push_late(part->hs, part->push, res);
}

/* where block @i of the part stops, as an offset in its slots */
static uint32_t slot_of(const struct stage_part *part, uint32_t i, uint64_t *off)
{
	const uint64_t bytes = piece_bytes(part->push);
	const uint32_t per_slot = (uint32_t)(part->push->space.block_bytes / bytes);

	*off = i % per_slot * bytes;
	return i / per_slot;
}

/* layers of each block, or with a layout the block that they are in, and where they stop */
static void part_blocks(struct stage_part *part)
{
	const struct push *p = part->push;
	const uint64_t bytes = piece_bytes(p);
	const uint64_t layers = layer_bytes(p) * p->opts.layer;
	uint64_t off;
	uint32_t i;

	for (i = 0; i < part->nr; i++) {
		const struct wfi_piece *from = &p->from.blocks[part->first + i];
		const bool whole = from->len == p->space.block_bytes && !p->opts.layout;
		const uint32_t slot = part->slots[slot_of(part, i, &off)].idx;

		part->pieces[i] = (struct wfi_piece){
			.local = (char *)wfi_kv_slot_addr(part->hs->opts.kv, slot) + off,
			.remote = from->remote + (whole ? layers : 0),
			.rkey = from->rkey,
			.block = i,
			.len = bytes,
		};
	}
}

/* Return: 0, -errno */
static int part_pack(struct stage_part *part)
{
	const struct push *p = part->push;
	const struct shape_pack pack = {
		.layout = &p->layout,
		.layer = p->opts.layer,
		.nr_layers = p->opts.nr_layers,
		.first = p->opts.first_block + part->first,
		.nr = part->nr,
		.end = p->ticket.nr_tokens,
		.blocks = part->pieces,
		.list = &part->list,
	};

	return wfi_shape_pack(part->hs, &pack);
}

static int part_copy(struct stage_part *part)
{
	struct wfi_handoffs *hs = part->hs;
	struct push *p = part->push;
	struct wfi_xfer_opts x = {
		.ep = p->from.ep,
		.dir = WFI_XFER_READ,
		.local_mr = p->from.arena,
		.rkeys = p->from.rkeys,
		.nr_rkeys = p->from.nr_rkeys,
		.pieces = part->pieces,
		.nr_pieces = part->nr,
		.nr_blocks = part->nr,
		.results = part->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = part->crc,
		.batch_bytes = piece_bytes(p) * p->opts.nr,
		.deadline_ns = p->opts.deadline_ns,
		.done = part_copied,
		.late = part_late,
		.ctx = part,
	};
	struct wfi_xfer *xfer;
	int ret;

	part_blocks(part);
	if (p->opts.layout) {
		ret = part_pack(part);
		if (ret)
			return ret;
		x.pieces = part->list.pieces;
		x.nr_pieces = part->list.nr;
	}
	part->state = PART_COPIES;
	p->nr_copies++;
	ret = wfi_xfer_submit(hs->opts.xfer, &x, &xfer);
	if (ret)
		p->nr_copies--;
	else if (xfer)
		part->xfer = xfer;
	return ret;
}

/* the next blocks that go together. Return: 0; -EAGAIN no room now; or why the push ends */
static int part_begin(struct wfi_handoffs *hs, struct push *p, uint32_t idx)
{
	const uint64_t bytes = piece_bytes(p);
	const uint32_t per_slot = (uint32_t)(p->space.block_bytes / bytes);
	const uint64_t some = wfi_min(wfi_max(1, MSG_BYTES_MAX / bytes), MSG_PIECES_MAX);
	const uint32_t nr = (uint32_t)wfi_min(p->opts.nr - p->begun, some);
	const uint32_t nr_slots = (nr + per_slot - 1) / per_slot;
	struct stage_part *part = part_get(hs);
	int ret;

	if (!part)
		return -ENOMEM;
	part->hs = hs;
	part->push = p;
	part->xfer = NULL;
	part->idx = idx;
	part->first = p->begun;
	part->nr = nr;
	part->nr_slots = 0;
	p->parts[idx] = part;
	ret = wfi_kv_claim(hs->opts.kv, &p->stage, p->opts.space, nr_slots, part->slots,
			   wfi_now(hs->opts.env));
	if (ret > 0) {
		part->nr_slots = nr_slots;
		hs->nr_staged += nr_slots;
		ret = part_copy(part);
	}
	if (!ret) {
		p->begun += nr;
		return 0;
	}
	part_put(part);
	/* what others have staged comes back */
	return ret == -ENOSPC && hs->nr_staged ? -EAGAIN : ret;
}

static int part_send(struct stage_part *part)
{
	const struct push *p = part->push;
	/* with a layout the start of a block is told, which may lie before the arena: it wraps */
	const uint64_t before = p->opts.layout ? layer_bytes(p) * p->opts.layer : 0;
	struct wfi_msg_piece pieces[MSG_PIECES_MAX];
	uint64_t off;
	uint32_t i;
	int ret;

	for (i = 0; i < part->nr; i++) {
		const struct weft_slot *s = &part->slots[slot_of(part, i, &off)];

		pieces[i] = (struct wfi_msg_piece){
			.off = s->off + off - before,
			.crc = part->crc[i],
		};
	}
	ret = wfi_push_send(part->hs, part->push, part->idx, part->first, part->nr, pieces);
	if (!ret)
		part->state = PART_SENT;
	return ret;
}

/* ---- pushes ---- */

int64_t wfi_stage_go(struct wfi_handoffs *hs, struct push *p)
{
	const struct wfi_peer *peer = p->opts.peer;
	int64_t bytes = 0;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < PUSH_PARTS && p->begun < p->opts.nr && !p->res && !ret; i++) {
		if (p->parts[i] || peer->open_msgs >= WFI_PEER_CREDITS)
			continue;
		ret = part_begin(hs, p, i);
		if (!ret)
			bytes += (int64_t)(p->parts[i]->nr * piece_bytes(p));
	}
	for (i = 0; i < PUSH_PARTS && !p->res && (!ret || ret == -EAGAIN); i++) {
		struct stage_part *part = p->parts[i];

		if (!part || part->state != PART_READY || peer->open_msgs >= WFI_PEER_CREDITS)
			continue;
		ret = part_send(part);
		if (!ret)
			bytes += (int64_t)(part->nr * piece_bytes(p));
	}
	if (p->res)
		return p->res;
	if (ret && ret != -EAGAIN)
		return ret;
	return bytes ? bytes : -EAGAIN;
}

bool wfi_stage_answered(struct push *p, uint32_t part)
{
	if (part >= PUSH_PARTS || !p->parts[part] || p->parts[part]->state != PART_SENT)
		return false;
	part_put(p->parts[part]);
	return true;
}

void wfi_stage_cancel(struct wfi_handoffs *hs, struct push *p)
{
	uint32_t i, nr = p->nr_copies;

	for (i = 0; i < PUSH_PARTS; i++)
		if (p->parts[i] && p->parts[i]->state == PART_READY)
			part_put(p->parts[i]);
	/* the last one may take the push along */
	for (i = 0; i < PUSH_PARTS && nr; i++) {
		if (!p->parts[i] || !p->parts[i]->xfer)
			continue;
		nr--;
		wfi_xfer_cancel(hs->opts.xfer, p->parts[i]->xfer);
	}
}

void wfi_stage_free(struct wfi_handoffs *hs, struct push *p)
{
	uint32_t i;

	for (i = 0; i < PUSH_PARTS; i++)
		if (p->parts[i])
			part_put(p->parts[i]);
	wfi_owner_fini(hs->opts.kv, &p->stage, false);
}

void wfi_stages_fini(struct wfi_handoffs *hs)
{
	struct stage_part *part;

	while ((part = hs->free_parts)) {
		hs->free_parts = part->next;
		wfi_shape_list_fini(hs->opts.env, &part->list);
		wfi_free(hs->opts.env, part, sizeof(*part));
	}
}
