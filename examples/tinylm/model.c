/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"
#include "kernels.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TILE 32u /* tokens that go through a layer together: their scratch stays in the cache */
#define ROPE_THETA_LN 13.122363377404328 /* ln 500000 */
#define VOCAB_COLS ((TLM_VOCAB + TLM_PANEL - 1) / TLM_PANEL * TLM_PANEL)

struct tensor {
	size_t off; /* of layer 0, in floats */
	uint32_t rows;
	uint32_t cols; /* multiple of TLM_PANEL */
	uint32_t nr_layers;
};

struct tlm {
	const struct tlm_config *cfg;
	const struct tlm_kernels *kernels;
	struct tensor tensors[TLM_NR_TENSORS];
	float *weights;
	float *cos; /* [position][head_dim / 2] */
	float *sin;
};

struct tlm_run {
	const struct tlm *m;
	void *const *blocks;
	uint32_t first;
	uint32_t nr;
	uint32_t layer; /* the next */
	float *x; /* the residual stream: [token][dim] */
	float *placed; /* by the caller; NULL: in .own */
	float *own;
	uint32_t max; /* tokens that .own has room for */
	float *scratch;
	/* in scratch; [token of a tile][...] */
	float *norm;
	float *q;
	float *k;
	float *v;
	float *mixed;
	float *gate;
	float *up;
	/* in scratch; one KV head's context as f32: [position][head_dim] */
	float *keys;
	float *values;
	float *scores;
	float *logits;
};

static const struct tlm_config configs[] = {
	{ "tiny", 4, 128, 384, 4, 2, 32 },
	{ "small", 8, 256, 768, 8, 4, 64 },
	{ "kv8b", 32, 64, 128, 16, 8, 128 },
};

const struct tlm_config *tlm_config_find(const char *name)
{
	for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++)
		if (!strcmp(configs[i].name, name))
			return &configs[i];
	return NULL;
}

static size_t kv_row(const struct tlm_config *cfg)
{
	return (size_t)cfg->nr_kv_heads * cfg->head_dim;
}

uint64_t tlm_layer_bytes(const struct tlm_config *cfg)
{
	return 2 * TLM_BLOCK_TOKENS * kv_row(cfg) * sizeof(uint16_t);
}

uint64_t tlm_block_bytes(const struct tlm_config *cfg)
{
	return cfg->nr_layers * tlm_layer_bytes(cfg);
}

/* SplitMix64 (Steele, Lea, Flood 2014), as a function of its counter */
static uint64_t draw(uint64_t seed, uint64_t counter)
{
	uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* 0 .. 1, with the 24 bits that a float holds exactly */
static float draw_unit(uint64_t seed, uint64_t counter)
{
	return (float)(draw(seed, counter) >> 40) * 0x1p-24f;
}

static size_t tensors_init(struct tlm *m)
{
	const struct tlm_config *cfg = m->cfg;
	uint32_t q = cfg->nr_heads * cfg->head_dim, kv = cfg->nr_kv_heads * cfg->head_dim;
	size_t off = 0;

	m->tensors[TLM_EMBED] = (struct tensor){ 0, TLM_VOCAB, cfg->dim, 1 };
	m->tensors[TLM_WQ] = (struct tensor){ 0, cfg->dim, q, cfg->nr_layers };
	m->tensors[TLM_WK] = (struct tensor){ 0, cfg->dim, kv, cfg->nr_layers };
	m->tensors[TLM_WV] = (struct tensor){ 0, cfg->dim, kv, cfg->nr_layers };
	m->tensors[TLM_WO] = (struct tensor){ 0, q, cfg->dim, cfg->nr_layers };
	m->tensors[TLM_GATE] = (struct tensor){ 0, cfg->dim, cfg->hidden, cfg->nr_layers };
	m->tensors[TLM_UP] = (struct tensor){ 0, cfg->dim, cfg->hidden, cfg->nr_layers };
	m->tensors[TLM_DOWN] = (struct tensor){ 0, cfg->hidden, cfg->dim, cfg->nr_layers };
	m->tensors[TLM_HEAD] = (struct tensor){ 0, cfg->dim, VOCAB_COLS, 1 };
	for (unsigned i = 0; i < TLM_NR_TENSORS; i++) {
		struct tensor *t = &m->tensors[i];

		t->off = off;
		off += (size_t)t->rows * t->cols * t->nr_layers;
	}
	return off;
}

/*
 * Uniform, with the variance that keeps activations near 1. Queries and the head get more, for
 * attention that prefers some tokens, and logits that are not all alike.
 */
static void weights_fill(struct tlm *m, uint64_t seed)
{
	static const float gains[TLM_NR_TENSORS] = { [TLM_WQ] = 2, [TLM_HEAD] = 3 };

	for (unsigned i = 0; i < TLM_NR_TENSORS; i++) {
		const struct tensor *t = &m->tensors[i];
		size_t nr = (size_t)t->rows * t->cols * t->nr_layers;
		float gain = gains[i] > 0 ? gains[i] : 1;
		float bound = gain * sqrtf(3.0f / (i == TLM_EMBED ? 1 : (float)t->rows));
		uint64_t key = draw(seed, i);

		for (size_t j = 0; j < nr; j++)
			m->weights[t->off + j] = (2 * draw_unit(key, j) - 1) * bound;
	}
}

/*
 * Angles by multiplication of complex numbers, in double, from Taylor series: libm's sin and pow
 * may differ between machines. The error after TLM_TOKENS_MAX steps is about 1e-12.
 */
static void rope_fill(struct tlm *m)
{
	uint32_t half = m->cfg->head_dim / 2;
	double ratio = 1, freq = 1, term = 1;

	for (int n = 1; n < 30; n++) {
		term *= -ROPE_THETA_LN / half / n;
		ratio += term;
	}
	for (uint32_t i = 0; i < half; i++, freq *= ratio) {
		double step_cos = 1, step_sin = freq, c = 1, s = 0, even = 1, odd = freq;

		for (int n = 2; n < 30; n += 2) {
			even *= -freq * freq / ((n - 1) * n);
			odd *= -freq * freq / (n * (n + 1));
			step_cos += even;
			step_sin += odd;
		}
		for (size_t pos = 0; pos < TLM_TOKENS_MAX; pos++) {
			double next = c * step_cos - s * step_sin;

			m->cos[pos * half + i] = (float)c;
			m->sin[pos * half + i] = (float)s;
			s = s * step_cos + c * step_sin;
			c = next;
		}
	}
}

int tlm_create(const struct tlm_config *cfg, uint64_t seed, struct tlm **out)
{
	size_t nr_angles = (size_t)TLM_TOKENS_MAX * cfg->head_dim / 2;
	struct tlm *m;

	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->cfg = cfg;
	m->kernels = tlm_kernels_best();
	m->weights = malloc(tensors_init(m) * sizeof(float));
	m->cos = malloc(nr_angles * sizeof(float));
	m->sin = malloc(nr_angles * sizeof(float));
	if (!m->weights || !m->cos || !m->sin) {
		tlm_destroy(m);
		return -ENOMEM;
	}
	weights_fill(m, seed);
	rope_fill(m);
	*out = m;
	return 0;
}

void tlm_destroy(struct tlm *m)
{
	if (!m)
		return;
	free(m->sin);
	free(m->cos);
	free(m->weights);
	free(m);
}

static const float *weights_of(const struct tlm *m, enum tlm_tensor tensor, uint32_t layer)
{
	const struct tensor *t = &m->tensors[tensor];

	return m->weights + t->off + (size_t)layer * t->rows * t->cols;
}

/* TLM_PANEL weights of one row */
static const float *panel_row(const struct tlm *m, enum tlm_tensor tensor, uint32_t layer,
			      uint32_t row, uint32_t panel)
{
	size_t rows = m->tensors[tensor].rows;

	return weights_of(m, tensor, layer) + (panel * rows + row) * TLM_PANEL;
}

float tlm_weight(const struct tlm *m, enum tlm_tensor tensor, uint32_t layer, uint32_t row,
		 uint32_t col)
{
	return panel_row(m, tensor, layer, row, col / TLM_PANEL)[col % TLM_PANEL];
}

/* points @part at the next @nr floats, or only counts them while there is no @slab */
static void carve(float **part, float *slab, size_t *used, size_t nr)
{
	if (slab)
		*part = slab + *used;
	*used += nr;
}

static size_t scratch_carve(struct tlm_run *run)
{
	const struct tlm_config *cfg = run->m->cfg;
	size_t q = (size_t)cfg->nr_heads * cfg->head_dim, used = 0;
	float *slab = run->scratch;

	carve(&run->norm, slab, &used, (size_t)TILE * cfg->dim);
	carve(&run->q, slab, &used, TILE * q);
	carve(&run->k, slab, &used, TILE * kv_row(cfg));
	carve(&run->v, slab, &used, TILE * kv_row(cfg));
	carve(&run->mixed, slab, &used, TILE * q);
	carve(&run->gate, slab, &used, (size_t)TILE * cfg->hidden);
	carve(&run->up, slab, &used, (size_t)TILE * cfg->hidden);
	carve(&run->keys, slab, &used, (size_t)TLM_TOKENS_MAX * cfg->head_dim);
	carve(&run->values, slab, &used, (size_t)TLM_TOKENS_MAX * cfg->head_dim);
	carve(&run->scores, slab, &used, TLM_TOKENS_MAX);
	carve(&run->logits, slab, &used, VOCAB_COLS);
	return used;
}

int tlm_run_create(const struct tlm *m, struct tlm_run **out)
{
	struct tlm_run *run;

	run = calloc(1, sizeof(*run));
	if (!run)
		return -ENOMEM;
	run->m = m;
	/* zeroed: rows past the last key are read, and their scores thrown away */
	run->scratch = calloc(scratch_carve(run), sizeof(float));
	if (!run->scratch) {
		free(run);
		return -ENOMEM;
	}
	scratch_carve(run);
	*out = run;
	return 0;
}

void tlm_run_destroy(struct tlm_run *run)
{
	if (!run)
		return;
	free(run->scratch);
	free(run->own);
	free(run);
}

int tlm_run_begin(struct tlm_run *run, const uint32_t *tokens, uint32_t nr, uint32_t first,
		  void *const *blocks)
{
	const struct tlm *m = run->m;
	uint32_t dim = m->cfg->dim;

	if (!nr)
		return -EINVAL;
	if (nr > TLM_TOKENS_MAX || first > TLM_TOKENS_MAX - nr)
		return -E2BIG;
	for (uint32_t t = 0; t < nr; t++)
		if (tokens[t] >= TLM_VOCAB)
			return -EINVAL;
	if (nr > run->max && !run->placed) {
		float *x = realloc(run->own, (size_t)nr * dim * sizeof(*x));

		if (!x)
			return -ENOMEM;
		run->own = x;
		run->max = nr;
	}
	run->x = run->placed ? run->placed : run->own;
	for (uint32_t t = 0; t < nr; t++)
		for (uint32_t p = 0; p < dim / TLM_PANEL; p++)
			memcpy(run->x + (size_t)t * dim + p * TLM_PANEL,
			       panel_row(m, TLM_EMBED, 0, tokens[t], p), TLM_PANEL * sizeof(float));
	run->blocks = blocks;
	run->first = first;
	run->nr = nr;
	run->layer = 0;
	return 0;
}

void tlm_run_place(struct tlm_run *run, float *x)
{
	run->placed = x;
}

uint64_t tlm_state_bytes(const struct tlm_config *cfg)
{
	return cfg->dim * sizeof(float);
}

int tlm_run_resume(struct tlm_run *run, uint32_t nr, uint32_t first, void *const *blocks,
		   uint32_t layer)
{
	if (!nr || !run->placed || layer > run->m->cfg->nr_layers)
		return -EINVAL;
	if (nr > TLM_TOKENS_MAX || first > TLM_TOKENS_MAX - nr)
		return -E2BIG;
	run->x = run->placed;
	run->blocks = blocks;
	run->first = first;
	run->nr = nr;
	run->layer = layer;
	return 0;
}

static void multiply(const struct tlm_run *run, enum tlm_tensor tensor, float *y, const float *x,
		     uint32_t nr)
{
	const struct tensor *t = &run->m->tensors[tensor];
	uint32_t layer = t->nr_layers == 1 ? 0 : run->layer;

	run->m->kernels->matmul(y, t->cols, x, t->rows, weights_of(run->m, tensor, layer), nr,
				t->rows, t->cols);
}

static void normalize(const struct tlm_run *run, const float *x, uint32_t nr)
{
	uint32_t dim = run->m->cfg->dim;

	for (uint32_t t = 0; t < nr; t++)
		run->m->kernels->rmsnorm(run->norm + (size_t)t * dim, x + (size_t)t * dim, dim);
}

/* where K of a position lies in this layer; V lies half a layer's piece further */
static uint16_t *kv_at(const struct tlm_run *run, uint32_t pos)
{
	const struct tlm_config *cfg = run->m->cfg;
	char *block = run->blocks[pos / TLM_BLOCK_TOKENS];

	return (uint16_t *)(block + run->layer * tlm_layer_bytes(cfg)) +
	       pos % TLM_BLOCK_TOKENS * kv_row(cfg);
}

static size_t v_off(const struct tlm_config *cfg)
{
	return TLM_BLOCK_TOKENS * kv_row(cfg);
}

static void rotate_and_store(struct tlm_run *run, uint32_t first, uint32_t nr)
{
	const struct tlm *m = run->m;
	const struct tlm_config *cfg = m->cfg;
	uint32_t dim = cfg->head_dim;

	for (uint32_t t = 0; t < nr; t++) {
		const float *cos = m->cos + (size_t)(first + t) * dim / 2;
		const float *sin = m->sin + (size_t)(first + t) * dim / 2;
		float *q = run->q + (size_t)t * cfg->nr_heads * dim;
		float *k = run->k + t * kv_row(cfg);
		uint16_t *kv = kv_at(run, first + t);

		for (uint32_t h = 0; h < cfg->nr_heads; h++)
			m->kernels->rope(q + (size_t)h * dim, cos, sin, dim);
		for (uint32_t h = 0; h < cfg->nr_kv_heads; h++)
			m->kernels->rope(k + (size_t)h * dim, cos, sin, dim);
		m->kernels->to_bf16(kv, k, kv_row(cfg));
		m->kernels->to_bf16(kv + v_off(cfg), run->v + t * kv_row(cfg), kv_row(cfg));
	}
}

/* reads this tile's own K and V back from the blocks too: rounded as everyone else sees them */
static void context_load(struct tlm_run *run, uint32_t kv_head, uint32_t nr)
{
	const struct tlm_config *cfg = run->m->cfg;
	uint32_t dim = cfg->head_dim;

	for (uint32_t pos = 0; pos < nr; pos += TLM_BLOCK_TOKENS) {
		uint32_t rows = nr - pos < TLM_BLOCK_TOKENS ? nr - pos : TLM_BLOCK_TOKENS;
		const uint16_t *k = kv_at(run, pos) + (size_t)kv_head * dim;

		run->m->kernels->from_bf16(run->keys + (size_t)pos * dim, k, kv_row(cfg), rows,
					   dim);
		run->m->kernels->from_bf16(run->values + (size_t)pos * dim, k + v_off(cfg),
					   kv_row(cfg), rows, dim);
	}
}

static void attention(struct tlm_run *run, uint32_t first, uint32_t nr)
{
	const struct tlm_config *cfg = run->m->cfg;
	uint32_t group = cfg->nr_heads / cfg->nr_kv_heads, dim = cfg->head_dim;
	float scale = 1.0f / sqrtf((float)dim);

	for (uint32_t kv_head = 0; kv_head < cfg->nr_kv_heads; kv_head++) {
		context_load(run, kv_head, first + nr);
		for (uint32_t t = 0; t < nr; t++)
			for (uint32_t g = 0; g < group; g++) {
				size_t head = (size_t)t * cfg->nr_heads + kv_head * group + g;

				run->m->kernels->attend(run->mixed + head * dim,
							run->q + head * dim, run->keys, run->values,
							run->scores, scale, first + t + 1, dim);
			}
	}
}

static void run_tile(struct tlm_run *run, float *x, uint32_t first, uint32_t nr)
{
	const struct tlm_config *cfg = run->m->cfg;
	const struct tlm_kernels *kernels = run->m->kernels;

	normalize(run, x, nr);
	multiply(run, TLM_WQ, run->q, run->norm, nr);
	multiply(run, TLM_WK, run->k, run->norm, nr);
	multiply(run, TLM_WV, run->v, run->norm, nr);
	rotate_and_store(run, first, nr);
	attention(run, first, nr);
	multiply(run, TLM_WO, run->norm, run->mixed, nr);
	kernels->add(x, run->norm, nr * cfg->dim);

	normalize(run, x, nr);
	multiply(run, TLM_GATE, run->gate, run->norm, nr);
	multiply(run, TLM_UP, run->up, run->norm, nr);
	kernels->swiglu(run->gate, run->up, nr * cfg->hidden);
	multiply(run, TLM_DOWN, run->norm, run->gate, nr);
	kernels->add(x, run->norm, nr * cfg->dim);
}

void tlm_run_layer(struct tlm_run *run)
{
	uint32_t nr;

	for (uint32_t t = 0; t < run->nr; t += nr) {
		nr = run->nr - t < TILE ? run->nr - t : TILE;
		run_tile(run, run->x + (size_t)t * run->m->cfg->dim, run->first + t, nr);
	}
	run->layer++;
}

const float *tlm_run_logits(struct tlm_run *run)
{
	normalize(run, run->x + (size_t)(run->nr - 1) * run->m->cfg->dim, 1);
	multiply(run, TLM_HEAD, run->logits, run->norm, 1);
	return run->logits;
}

uint32_t tlm_sample(const float *logits, float temperature, uint64_t seed, uint32_t pos)
{
	float probs[VOCAB_COLS], left;
	uint32_t best = 0;

	for (uint32_t i = 1; i < TLM_VOCAB; i++)
		if (logits[i] > logits[best])
			best = i;
	if (temperature <= 0)
		return best;
	for (uint32_t i = 0; i < TLM_VOCAB; i++)
		probs[i] = logits[i] / temperature;
	left = tlm_kernels_base.exp_sum(probs, TLM_VOCAB) * draw_unit(seed, pos);
	for (uint32_t i = 0; i < TLM_VOCAB; i++) {
		left -= probs[i];
		if (left < 0)
			return i;
	}
	return best; /* rounding left a crumb */
}
