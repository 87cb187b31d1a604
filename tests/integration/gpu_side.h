/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gpu_side.h - handoffs whose blocks lie in slots, in memory, or on a GPU, on either side
 *
 * NB blocks of NL layers, by engines of one node or of two. Each layer of each block has bytes of
 * its own.
 */
#ifndef TEST_GPU_SIDE_H
#define TEST_GPU_SIDE_H

#include "tests/integration/gpu.h"

#define NB 12u /* blocks of a handoff */
#define NL 4u /* layers of a block */
#define LAYER 4096u /* bytes of one, or: */
#define LARGE 65536u /* of all blocks more than one message names */
#define BLOCK ((uint64_t)NL * LAYER)
#define MEM (2 * NB * BLOCK) /* of a side with LAYER */
#define END_MS 1000 /* an end is known to the other side within this */

extern const struct weft_space_opts side_geometry, side_large;

/* GPU_LAYERS: as a tensor for each layer, in one allocation. GPU_OTHER: the second one */
enum kind { SLOTS, MEMORY, GPU, GPU_LAYERS, GPU_OTHER, NR_KINDS };

/* an engine's blocks, somewhere */
struct side {
	struct test_engine *e;
	enum kind kind;
	uint64_t layer; /* bytes of one */
	char *mem;
	uint32_t region;
	struct weft_slot slots[NB];
	struct weft_place places[NB];
};

/* @layer: as the space of @e has it */
void side_open(struct side *s, struct test_engine *e, enum kind kind, uint64_t layer);
void side_close(struct side *s);
char *layer_of(const struct side *s, unsigned block, unsigned layer);
void claim(struct side *s);
void unclaim(struct side *s);

/* what is expected at one */
struct handoff {
	struct side *to;
	struct weft_key keys[NB];
	struct weft_ticket ticket;
	uint64_t handle;
	uint64_t name; /* its bytes follow from that */
};

/* what stands in a layer follows from this */
uint64_t side_seed(const struct handoff *h, unsigned block, unsigned layer);
void expect_with(struct handoff *h, struct side *to, uint8_t flags, uint32_t timeout_us,
		 struct weft_signal *signal);
/* ThreadSanitizer takes seconds to look at what arrived: with a minute */
void expect(struct handoff *h, struct side *to);
struct weft_op push_of(struct side *from, struct weft_ticket *ticket, unsigned layer);
/* Return: its result */
int push(struct side *from, struct handoff *h, unsigned layer);
void fill(struct side *from, const struct handoff *h, unsigned layer);
void assert_filled(const struct handoff *h, unsigned layer);
/* all blocks of a layer are told, in one event or several, and are right */
void hear_layer(const struct handoff *h, unsigned layer);
/* Return: res of the last completion, which comes in time. @lease: or NULL */
int hear_end(const struct handoff *h, uint64_t since_ms, uint64_t *lease);
/* every layer arrives, is told, and nothing is held afterwards that is not the receiver's */
void whole(struct side *from, struct side *to, uint8_t flags);

/* ---- engines in processes of their own, for test_child_start(). @ctx: their node ---- */

/* what prefill is told to push, behind events that are registered with nothing before them or
 * without; it says a byte when that is with decode, or under way */
struct prefill {
	struct weft_ticket ticket;
	uint64_t name;
	uint32_t nr_layers;
	bool event;
};
void prefill_run(int in, int out, void *ctx);
/* expects into its GPU memory, and says the handoff */
void decode_run(int in, int out, void *ctx);

/* an event in the stream of nobody, as the engine of @s has registered it */
void event_open(struct side *s, struct CUevent_st **event, uint32_t *number);
/* a push of a layer behind the event @number, which does not come yet */
void push_waits(struct side *from, struct weft_ticket *ticket, uint32_t number);
/* prefill gives that event back: both sides hear so */
void event_back(struct side *from, const struct handoff *h, uint32_t number);

#endif
