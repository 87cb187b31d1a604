/* SPDX-License-Identifier: Apache-2.0 */
/**
 * model.h - tinylm: a small decoder of the Llama architecture with a paged KV cache
 *
 * RMSNorm, rotary positions, grouped-query attention, SwiGLU, byte tokens; weights drawn from a
 * seed, f32 arithmetic, K and V stored as bf16 (rounded to nearest, ties to even). The model knows
 * nothing of weft: it reads and writes KV through an array of block pointers, wherever those lie.
 *
 * A block holds TLM_BLOCK_TOKENS tokens of all layers, as [layer][K, V][token][KV head][dim], so
 * that each layer of a block is one contiguous piece.
 *
 * Each value is made by one fixed order of f32 operations that does not depend on how the tokens
 * were cut into runs, on the vector width, or on libm. So KV and logits are equal bit for bit
 * whoever computed them: in one run or token by token, here or in another process.
 */
#ifndef TINYLM_MODEL_H
#define TINYLM_MODEL_H

#include <stdint.h>

#define TLM_BLOCK_TOKENS 16u
#define TLM_TOKENS_MAX 8192u /* longest context */

enum tlm_token {
	TLM_BOS = 256, /* 0 .. 255 are bytes */
	TLM_EOS = 257,
	TLM_VOCAB = 258,
};

/**
 * struct tlm_config - a size of the model
 *
 * "tiny" and "small" are what they say. "kv8b" has the KV geometry of an 8B model (Llama-3.1-8B: 32
 * layers, 8 KV heads of 128, bf16: 2 MiB a block) and the cost of it in attention and in bytes
 * moved; its other dimensions are cut down so that it runs on two CPU cores.
 */
struct tlm_config {
	const char *name;
	uint32_t nr_layers;
	uint32_t dim;
	uint32_t hidden;
	uint32_t nr_heads;
	uint32_t nr_kv_heads;
	uint32_t head_dim;
};

enum tlm_tensor {
	TLM_EMBED, /* rows: tokens */
	TLM_WQ,
	TLM_WK,
	TLM_WV,
	TLM_WO,
	TLM_GATE,
	TLM_UP,
	TLM_DOWN,
	TLM_HEAD,
	TLM_NR_TENSORS,
};

struct tlm; /* weights: read-only, any number of threads */
struct tlm_run; /* a run of tokens through the layers, and its scratch: one thread */

/* Return: the configuration, or NULL when there is none of that name */
const struct tlm_config *tlm_config_find(const char *name);
uint64_t tlm_layer_bytes(const struct tlm_config *cfg); /* of one block */
uint64_t tlm_block_bytes(const struct tlm_config *cfg);

/* @cfg: kept by reference. Return: 0, -ENOMEM */
int tlm_create(const struct tlm_config *cfg, uint64_t seed, struct tlm **out);
void tlm_destroy(struct tlm *m);

/**
 * tlm_weight - one weight, as in y[col] = sum over row of x[row] * w(row, col)
 * @layer: 0 for TLM_EMBED and TLM_HEAD
 */
float tlm_weight(const struct tlm *m, enum tlm_tensor tensor, uint32_t layer, uint32_t row,
		 uint32_t col);

int tlm_run_create(const struct tlm *m, struct tlm_run **out);
void tlm_run_destroy(struct tlm_run *run);

/**
 * tlm_run_begin - start to run tokens through the model
 * @tokens: lent for the call
 * @first: position of tokens[0]; the KV of the positions before it is in @blocks already
 * @blocks: block i, aligned to 16 bytes, holds positions i * TLM_BLOCK_TOKENS and on. Lent until
 *          the last layer has run. Only positions from @first on are written
 *
 * Return: 0; -EINVAL no tokens, or one that is none; -E2BIG past TLM_TOKENS_MAX; -ENOMEM.
 */
int tlm_run_begin(struct tlm_run *run, const uint32_t *tokens, uint32_t nr, uint32_t first,
		  void *const *blocks);

/**
 * tlm_run_place - where the states of tokens lie in the runs to come
 * @x: room for the tokens of a run, tlm_state_bytes() each, aligned to 64; lent until the run is
 *     over. NULL: memory of the run's own, as at first
 */
void tlm_run_place(struct tlm_run *run, float *x);
uint64_t tlm_state_bytes(const struct tlm_config *cfg); /* of one token between two layers */

/**
 * tlm_run_resume - go on with a run where another has left it, as tlm_run_begin()
 * @layer: the next to run; states as the layers before it left them lie where tlm_run_place() said
 *
 * Return: 0, -EINVAL, -E2BIG
 */
int tlm_run_resume(struct tlm_run *run, uint32_t nr, uint32_t first, void *const *blocks,
		   uint32_t layer);

/**
 * tlm_run_layer - run the next layer over all tokens of the run
 *
 * Call it nr_layers times. When it returns, that layer's KV of these tokens is final; of the
 * positions before them, it reads this layer only, so that they may arrive layer by layer too.
 */
void tlm_run_layer(struct tlm_run *run);

/* after the last layer. Return: TLM_VOCAB logits of the last token, good until the next run */
const float *tlm_run_logits(struct tlm_run *run);

/**
 * tlm_sample - choose a token
 * @temperature: 0: the likeliest, the first of equals
 * @seed, @pos: of the request, and the position that the token will have: the same draw, wherever
 *              it is made
 */
uint32_t tlm_sample(const float *logits, float temperature, uint64_t seed, uint32_t pos);

#endif
