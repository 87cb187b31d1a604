/* SPDX-License-Identifier: Apache-2.0 */
/**
 * handoff_world.h - one node's handoffs among nodes that are made up, in one thread
 *
 * The NIC is the loop transport behind the fault injector; a peer is what the test says in its
 * name, and memory that the node READs. Places lie in host memory, or in a GPU's, over a mocked
 * driver. What stands in a block follows from the layer, and from where in it a byte belongs.
 */
#ifndef HANDOFF_WORLD_H
#define HANDOFF_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include "tests/unit/mock_cuda.h"
#include "weft_internal/directory.h"
#include "weft_internal/env.h"
#include "weft_internal/handoff.h"
#include "weft_internal/transport_registry.h"
#include "weft_internal/util.h"

#define HERE 1u /* the node's id; peers have those that follow */
#define PEERS 12u
#define NB 24u /* blocks of a handoff, without a layout */
#define NL 4u /* layers */
#define LAYER 4096u /* bytes of one of a block */
#define BLOCK (NL * LAYER)
#define MEM (2u * NB * BLOCK) /* of a region, and of a peer */
#define DEADLINE_NS (500 * WFI_NSEC_PER_MSEC)
#define MSGS 256u /* that are kept of those that a peer was sent */

struct world;

struct peer {
	struct wfi_peer base;
	uint8_t *mem;
	struct weft_ep *ep; /* NULL: gone */
	bool lost;
	struct weft_rkey *rkey;
	struct wfi_peer_arena arena;
	bool stuck; /* takes no message */
	/* what it was sent: answers, by the names of pushes, and the rest */
	unsigned nr_done, nr_aborts, nr_msgs;
	int32_t done[MSGS];
	struct wfi_msg_shaped msgs[MSGS];
	struct wfi_msg_piece pieces[MSGS][MSGS];
};

enum kind { HOST, GPU, GPU_LAYERS, KINDS };

/* memory of an engine's */
struct place_memory {
	enum kind kind;
	uint8_t *mem;
	struct weft_rkey *rkeys[1];
	struct wfi_piece blocks[NB];
	struct wfi_nic_memory nic;
	const struct wfi_nic_memory *nics[1]; /* NULL: no NIC reaches it */
	struct wfi_handoff_places places;
};

struct world {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_kv *kv;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner engine;
	struct wfi_metrics *metrics;
	struct wfi_xfer_engine *xfer;
	struct wfi_handoffs *hs;
	struct weft_transport *fault;
	struct weft_device *nic, *cpu, *gpu;
	struct weft_cq *nic_cqs[2], *cpu_cqs[2], *gpu_cqs[2];
	struct weft_ep *cpu_ep, *gpu_ep; /* to memory of engines' */
	struct weft_mr *arena, *gpu_arena; /* as the NIC and the GPU have it */
	struct CUctx_st *ctx;
	struct place_memory memory[KINDS];
	struct peer peers[PEERS];
	uint64_t nr_free; /* slots, when nothing is open */
	struct weft_slot taken[1024];
	unsigned nr_taken;
};

/* of cmocka; at the end nothing is held any more */
int world_setup(void **state);
/* with so many transfers at a time */
int world_setup_few(void **state);
int world_teardown(void **state);

static inline uint64_t now(const struct world *w)
{
	return wfi_now(w->env);
}

/* polls, and lets @ns pass */
void turns(struct world *w, uint64_t ns);
/* faults of the NIC from here on; NULL: none */
void faults(struct world *w, const struct wfi_fault_opts *f);
/* the driver's: @call ends with @res from here on; NULL: it does not */
void cuda_fails(const char *call, int res);
uint64_t counted(const struct world *w, const char *name);
uint64_t slots_free(const struct world *w);
/* all slots but @but are an engine's from here on; or no more */
void slots_take(struct world *w, unsigned but);
void slots_give(struct world *w);

/* the connection goes: as its owner does it. Its end is one of turns() */
void peer_lose(struct world *w, struct peer *p);
/* a new one, of a node that has just begun */
void peer_again(struct world *w, struct peer *p);

/* ---- bytes ---- */

uint8_t byte_of(uint32_t block, uint32_t layer, uint64_t off);
/* the same of an element, whatever layout it is in */
uint8_t byte_at(uint32_t layer, uint32_t kv, uint64_t token, uint32_t head, uint32_t byte);
/* where byte @off of layer @layer of a block lies */
uint8_t *place_byte(struct place_memory *m, uint32_t block, uint32_t layer, uint64_t off);
void place_fill(struct place_memory *m);
/* the same, in a layout */
void shaped_fill(struct place_memory *m, const struct weft_layout *l, uint32_t nr_blocks);
/* Return: whether all layers of all blocks stand there */
bool place_filled(struct place_memory *m, uint32_t nr_layers);
bool shaped_filled(struct place_memory *m, const struct weft_layout *l, uint32_t nr_blocks);
/* the peer has all blocks, one behind the other */
void peer_fill(struct peer *p);
void peer_fill_shaped(struct peer *p, const struct weft_layout *l, uint32_t nr_blocks);

/* ---- both halves ---- */

/* what was heard of an operation */
struct heard {
	struct world *w;
	bool done;
	int res;
	int late; /* 0: not told */
	uint32_t layers[NL]; /* blocks that have landed, by layer */
	uint64_t handle;
	struct weft_key keys[NB];
	struct weft_ticket ticket;
};

/* @m: NULL: into slots. @l: or NULL */
void expect(struct world *w, struct heard *h, struct place_memory *m, const struct weft_layout *l,
	    uint64_t timeout_ns);
/* peer @p pushes layers of blocks of its memory; @l: in this layout, or NULL. Its answer, or 0 as
 * long as there is none, is p->done[@push] */
void says(struct world *w, struct peer *p, const struct heard *h, const struct weft_layout *l,
	  uint32_t push, uint32_t layer, uint32_t first, uint32_t nr);
void says_abort(struct world *w, struct peer *p, const struct heard *h, int res);
/* the engine pushes a layer of its places to @p, who made the ticket */
int push(struct world *w, struct heard *h, struct peer *p, struct place_memory *m,
	 const struct weft_layout *l, uint32_t layer, uint64_t timeout_ns);
/* @p says of its message @msg that it has READ it, or why not */
void answers(struct world *w, struct peer *p, unsigned msg, int res);

#endif
