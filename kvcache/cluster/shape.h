/* SPDX-License-Identifier: Apache-2.0 */
/* shape.h - what pushes of one layout into blocks of another take, on both sides */
#ifndef WFI_SHAPE_H
#define WFI_SHAPE_H

#include "handoff_private.h"

#define SHAPE_RUNS_MAX 16384u /* of a layer of a block */

/* elements lie inside the block, and none on another. Return: 0, -EINVAL */
int wfi_shape_check(const struct weft_layout *l, uint64_t block_bytes);
/* one layer of a block whose first token is @token of the handoff's, cut to @kv_first .. + @nr_kv,
 * and to tokens before @end */
struct wfi_layout wfi_shape_layer(const struct weft_layout *l, uint64_t token, uint64_t end,
				  uint32_t kv_first, uint32_t nr_kv);

/* as @l, with the elements of a layer in the same order and nothing between them; layers are
 * .layer_stride apart */
struct weft_layout wfi_shape_packed(const struct weft_layout *l);

/* pieces of a transfer, and of each which layer of which block of ours it is for. Zero: none */
struct shape_list {
	struct wfi_piece *pieces;
	uint32_t *to;
	uint32_t nr, max;
};

/* Return: 0, -ENOMEM, -E2BIG */
int wfi_shape_list_room(struct wfi_env *env, struct shape_list *l, uint64_t nr);
void wfi_shape_list_fini(struct wfi_env *env, struct shape_list *l);

/* layers of some blocks, between where they lie in a layout and where they are packed */
struct shape_pack {
	const struct weft_layout *layout;
	uint32_t layer, nr_layers;
	uint32_t first, nr; /* blocks */
	uint64_t end; /* tokens of all of them */
	const struct wfi_piece *blocks; /* .remote, .rkey; .local of their first layers, packed */
	struct shape_list *list; /* out, but for .to: in the order that sums have */
};

/* hs->runs is there. Return: 0, -errno */
int wfi_shape_pack(struct wfi_handoffs *hs, const struct shape_pack *p);

/* ---- sender ---- */

/* goes on with the sum of @len bytes that lie together, by up to *@budget, which it takes from
 * that. Return: whether it is whole */
bool wfi_shape_run_sum(const char *at, uint64_t len, struct part_sum *sum, uint64_t *budget);

/* layers of a block at .base whose first token is .token */
struct shape_part {
	const struct weft_layout *layout;
	const void *base;
	uint64_t token, end;
	uint32_t layer, nr_layers;
};

/* the same of what a message says. @runs: scratch */
bool wfi_shape_sum(const struct shape_part *p, struct wfi_run *runs, struct part_sum *sum,
		   uint64_t *budget);

/* ---- receiver: what a handoff keeps ---- */

#define NR_PATTERNS 8u /* of one source: distances between the starts of its blocks and of ours */

/* runs of one layer between a block of a source and one of ours */
struct pattern {
	int64_t distance; /* tokens from the start of ours to that of the source's */
	bool packed; /* the source's layer, as wfi_shape_packed() has it */
	uint32_t nr;
	struct wfi_run *runs; /* .src in ours, .dst at the source: ascending there */
};

struct source {
	struct weft_layout layout, packed;
	struct wfi_peer *peer; /* that pushed last */
	/* id of the local engine that pushed last straight from its places; 0: none */
	uint32_t owner;
	uint32_t nr_blocks;
	uint16_t *named; /* of each of its blocks: the next layer that a push may name */
	uint32_t nr_patterns;
	struct pattern patterns[NR_PATTERNS];
};

/* layers of some blocks of a source's, to where they belong in ours */
struct shape_plan {
	struct wfi_handoffs *hs;
	struct handoff *h;
	struct source *source;
	uint32_t layer, nr_layers;
	uint32_t first, nr; /* blocks of the source's */
	/* the start of each: .remote, for handoffs into slots, and, with .rkey, for .straight ones;
	 * else .local */
	const struct wfi_piece *blocks;
	bool packed; /* .local is that of the first layer, packed */
	bool straight; /* from places to places */
	struct shape_list *list; /* out */
};

/* Return: 0, -errno */
int wfi_shape_plan(const struct shape_plan *p);
/* that layout's, where these layers are what comes next of these blocks. Return: 0, -errno */
int wfi_shape_source(struct wfi_handoffs *hs, struct handoff *h, const struct weft_layout *l,
		     uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr,
		     struct source **out);
/* now they have come, or are under way */
void wfi_shape_named(struct source *s, uint32_t layer, uint32_t nr_layers, uint32_t first,
		     uint32_t nr);
/* a plan's bytes are there: layers that are whole now are told. Return: whether all are */
bool wfi_shape_landed(struct handoff *h, const struct shape_list *list, uint32_t layer,
		      uint32_t nr_layers);

struct shape;

int wfi_shape_open(struct wfi_handoffs *hs, struct handoff *h, const struct weft_layout *layout);
/* that all blocks of a handoff hold; 0: it has no shape */
uint64_t wfi_shape_tokens(const struct handoff *h);
void wfi_shape_close(struct wfi_handoffs *hs, struct handoff *h);
/* a message. Return: 0, it will be answered; or what to answer */
int wfi_shape_message(struct wfi_handoffs *hs, struct wfi_peer *peer, struct handoff *h,
		      const struct wfi_msg_shaped *m, const struct wfi_msg_piece *pieces,
		      uint64_t now_ns);
void wfi_shape_cancel(struct wfi_handoffs *hs, const struct handoff *h);
/* READs from it are answered to nobody */
void wfi_shape_peer_lost(struct wfi_handoffs *hs, const struct wfi_peer *peer);
bool wfi_shape_fed_by(const struct handoff *h, const struct wfi_peer *peer);
/* the same of a local engine, by its owner's id */
bool wfi_shape_fed_from(const struct handoff *h, uint32_t owner);
uint32_t wfi_shape_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep);
void wfi_shape_fini(struct wfi_handoffs *hs);

#endif
