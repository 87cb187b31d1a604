/* SPDX-License-Identifier: Apache-2.0 */
/**
 * engine.h - an inference engine on weft: tinylm with its KV blocks in weft's arena
 *
 * This is the part to copy. A request goes through these steps (engine.c):
 *
 *   keys     the prompt's full blocks get their keys (weft_key_chain)
 *   map      the longest prefix that is held is leased and used where it lies
 *   claim    slots for the rest; the model fills them in place
 *   push     prefill: each layer, as soon as the model has left it, to whoever holds the ticket
 *   expect   decode: names the blocks that are missing, gets the ticket, waits layer by layer
 *   publish  what was filled gets its keys, for those who come later
 *   release  leases and unused slots go back
 *
 * Only full blocks have keys. The prompt's last 1 .. 16 tokens are left to decode, which has to run
 * at least the last one anyway, to get the first logits.
 */
#ifndef TINYLM_ENGINE_H
#define TINYLM_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <weft/weft.h>

#include "model.h"

struct engine_opts {
	const char *size;
	const char *socket; /* NULL: weft's default */
	uint64_t seed;
	bool embedded; /* the node in this process */
	bool no_reuse; /* look for no prefix */
};

struct engine {
	const struct tlm_config *cfg;
	struct tlm *model;
	struct tlm_run *run;
	struct weft *weft;
	struct weft_space *space;
	struct weft_ring *ring;
	bool no_reuse;
};

/**
 * struct request - what to do
 * @ticket: prefill: where the blocks go, with @has_ticket
 * @first_block: prefill: first block that the ticket stands for; decode holds those before it
 */
struct request {
	const char *prompt;
	uint32_t max_tokens;
	float temperature;
	uint64_t sample_seed;
	bool has_ticket;
	uint32_t first_block;
	struct weft_ticket ticket;
};

/**
 * struct result - what came of it
 * @prefix_tokens: found in the cache
 * @prefill_tokens: of the prompt, computed here
 * @handoff_tokens: pushed (prefill), received (decode)
 * @map_us: the search for the prefix
 * @wait_us: prefill: from the last layer computed to all layers landed; decode: for layers
 * @ttft_us: to the first token, from the moment the request was taken; prefill: until all landed
 */
struct result {
	uint32_t prompt_tokens;
	uint32_t prefix_tokens;
	uint32_t prefill_tokens;
	uint32_t handoff_tokens;
	uint64_t map_us;
	uint64_t wait_us;
	uint64_t ttft_us;
	uint64_t total_us;
	uint32_t nr_tokens;
	uint32_t tokens[TLM_TOKENS_MAX];
};

/* Return: 0 or negative errno; says why on stderr */
int engine_open(const struct engine_opts *opts, struct engine *e);
void engine_close(struct engine *e);

/* the roles. Return: 0 or negative errno; -E2BIG: prompt and answer are longer than the context */
int engine_both(struct engine *e, const struct request *req, struct result *res);
int engine_prefill(struct engine *e, const struct request *req, struct result *res);
/**
 * engine_decode - expect what is missing of the prompt's blocks, then decode
 * @ticket_ready: called once, before any block arrives: hand the ticket to prefill; NULL when there
 *                is nothing left to hand over
 */
int engine_decode(struct engine *e, const struct request *req, struct result *res,
		  void (*ticket_ready)(void *ctx, const struct weft_ticket *ticket,
				       uint32_t first_block),
		  void *ctx);

#endif
