/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels.h"
#include "model.h"

#define NR_TOKENS 75u
#define MAX_BLOCKS 16u

/* a model with blocks of its own; the blocks start as garbage, as slots of an arena do */
struct bench {
	const struct tlm_config *cfg;
	struct tlm *m;
	struct tlm_run *run;
	void *blocks[MAX_BLOCKS];
	float logits[TLM_VOCAB];
};

static void bench_init(struct bench *b, const char *size)
{
	memset(b, 0, sizeof(*b));
	b->cfg = tlm_config_find(size);
	assert_non_null(b->cfg);
	assert_int_equal(tlm_create(b->cfg, 1, &b->m), 0);
	assert_int_equal(tlm_run_create(b->m, &b->run), 0);
	for (unsigned i = 0; i < MAX_BLOCKS; i++) {
		b->blocks[i] = malloc(tlm_block_bytes(b->cfg));
		assert_non_null(b->blocks[i]);
		memset(b->blocks[i], 0xff, tlm_block_bytes(b->cfg)); /* NaN */
	}
}

static void bench_fini(struct bench *b)
{
	for (unsigned i = 0; i < MAX_BLOCKS; i++)
		free(b->blocks[i]);
	tlm_run_destroy(b->run);
	tlm_destroy(b->m);
}

static void forward(struct bench *b, const uint32_t *tokens, uint32_t nr, uint32_t first)
{
	assert_int_equal(tlm_run_begin(b->run, tokens, nr, first, b->blocks), 0);
	for (uint32_t l = 0; l < b->cfg->nr_layers; l++)
		tlm_run_layer(b->run);
	memcpy(b->logits, tlm_run_logits(b->run), sizeof(b->logits));
}

static void prompt_fill(uint32_t *tokens, uint32_t nr)
{
	tokens[0] = TLM_BOS;
	for (uint32_t i = 1; i < nr; i++)
		tokens[i] = (i * 37 + i * i * 11) % 256;
}

static void assert_same_kv(const struct bench *a, const struct bench *b, uint32_t nr_tokens)
{
	for (uint32_t i = 0; i < nr_tokens / TLM_BLOCK_TOKENS; i++)
		assert_memory_equal(a->blocks[i], b->blocks[i], tlm_block_bytes(a->cfg));
}

/* ---- one result, however the tokens are cut ---- */

static void check_chunks(const char *size, uint32_t nr_tokens, uint32_t chunk)
{
	uint32_t tokens[NR_TOKENS];
	struct bench whole, cut;

	prompt_fill(tokens, nr_tokens);
	bench_init(&whole, size);
	bench_init(&cut, size);
	forward(&whole, tokens, nr_tokens, 0);
	for (uint32_t t = 0; t < nr_tokens; t += chunk)
		forward(&cut, tokens + t, nr_tokens - t < chunk ? nr_tokens - t : chunk, t);
	assert_memory_equal(whole.logits, cut.logits, sizeof(whole.logits));
	assert_same_kv(&whole, &cut, nr_tokens);
	bench_fini(&whole);
	bench_fini(&cut);
}

static void test_token_by_token(void **state)
{
	(void)state;
	check_chunks("tiny", NR_TOKENS, 1);
	check_chunks("small", 40, 1);
	check_chunks("kv8b", 20, 1);
}

static void test_chunks(void **state)
{
	static const uint32_t chunks[] = { 2, 7, 16, 31, 33, 64 };

	(void)state;
	for (unsigned i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++)
		check_chunks("tiny", NR_TOKENS, chunks[i]);
	check_chunks("small", NR_TOKENS, 33);
	check_chunks("kv8b", 40, 17);
}

static void test_prefix_reuse(void **state)
{
	uint32_t tokens[NR_TOKENS];
	struct bench full, reuse;

	(void)state;
	prompt_fill(tokens, NR_TOKENS);
	bench_init(&full, "tiny");
	bench_init(&reuse, "tiny");
	forward(&full, tokens, NR_TOKENS, 0);
	for (uint32_t held = 1; held <= NR_TOKENS / TLM_BLOCK_TOKENS; held++) {
		uint32_t first = held * TLM_BLOCK_TOKENS;

		for (uint32_t i = 0; i < held; i++)
			memcpy(reuse.blocks[i], full.blocks[i], tlm_block_bytes(full.cfg));
		forward(&reuse, tokens + first, NR_TOKENS - first, first);
		assert_memory_equal(full.logits, reuse.logits, sizeof(full.logits));
		assert_same_kv(&full, &reuse, NR_TOKENS);
	}
	bench_fini(&full);
	bench_fini(&reuse);
}

/* as decode does while prefill still runs: layer l of the tail before layer l + 1 of the prefix */
static void test_layers_arrive(void **state)
{
	const uint32_t first = 4 * TLM_BLOCK_TOKENS;
	uint32_t tokens[NR_TOKENS];
	struct bench full, late;
	size_t bytes;

	(void)state;
	prompt_fill(tokens, NR_TOKENS);
	bench_init(&full, "tiny");
	bench_init(&late, "tiny");
	forward(&full, tokens, NR_TOKENS, 0);
	bytes = tlm_layer_bytes(full.cfg);
	assert_int_equal(
		tlm_run_begin(late.run, tokens + first, NR_TOKENS - first, first, late.blocks), 0);
	for (uint32_t l = 0; l < full.cfg->nr_layers; l++) {
		for (uint32_t i = 0; i < first / TLM_BLOCK_TOKENS; i++)
			memcpy((char *)late.blocks[i] + l * bytes,
			       (char *)full.blocks[i] + l * bytes, bytes);
		tlm_run_layer(late.run);
	}
	assert_memory_equal(full.logits, tlm_run_logits(late.run), sizeof(full.logits));
	bench_fini(&full);
	bench_fini(&late);
}

static void test_seed_and_context_matter(void **state)
{
	uint32_t tokens[NR_TOKENS];
	struct bench a, b;

	(void)state;
	prompt_fill(tokens, NR_TOKENS);
	bench_init(&a, "tiny");
	bench_init(&b, "tiny");
	forward(&a, tokens, NR_TOKENS, 0);
	tokens[1] ^= 1;
	forward(&b, tokens, NR_TOKENS, 0);
	assert_memory_not_equal(a.logits, b.logits, sizeof(a.logits));
	assert_int_equal(memcmp(a.blocks[0], b.blocks[0], 2), 0); /* BOS looks at itself alone */
	assert_memory_not_equal(a.blocks[1], b.blocks[1], tlm_block_bytes(a.cfg));
	bench_fini(&a);
	bench_fini(&b);
}

/* ---- the mathematics, against loops that are as plain as can be ---- */

struct naive {
	const struct tlm *m;
	const struct tlm_config *cfg;
	double *k; /* [layer][pos][KV row] */
	double *v;
	uint32_t pos;
};

static double round_bf16(double x)
{
	float f = (float)x;
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

static void naive_multiply(const struct naive *n, enum tlm_tensor tensor, uint32_t layer, double *y,
			   const double *x, uint32_t rows, uint32_t cols)
{
	for (uint32_t c = 0; c < cols; c++) {
		y[c] = 0;
		for (uint32_t r = 0; r < rows; r++)
			y[c] += x[r] * tlm_weight(n->m, tensor, layer, r, c);
	}
}

static void naive_norm(double *y, const double *x, uint32_t nr)
{
	double sum = 0;

	for (uint32_t i = 0; i < nr; i++)
		sum += x[i] * x[i];
	for (uint32_t i = 0; i < nr; i++)
		y[i] = x[i] / sqrt(sum / nr + 1e-5);
}

static void naive_rope(double *x, uint32_t pos, uint32_t dim)
{
	for (uint32_t i = 0; i < dim / 2; i++) {
		double angle = pos * pow(500000, -2.0 * i / dim);
		double a = x[i], b = x[i + dim / 2];

		x[i] = a * cos(angle) - b * sin(angle);
		x[i + dim / 2] = b * cos(angle) + a * sin(angle);
	}
}

static void naive_head(const struct naive *n, double *out, const double *q, const double *k,
		       const double *v, size_t stride)
{
	uint32_t dim = n->cfg->head_dim;
	double sum = 0;

	memset(out, 0, dim * sizeof(*out));
	for (uint32_t j = 0; j <= n->pos; j++) {
		double score = 0;

		for (uint32_t i = 0; i < dim; i++)
			score += q[i] * k[j * stride + i];
		score = exp(score / sqrt(dim));
		sum += score;
		for (uint32_t i = 0; i < dim; i++)
			out[i] += score * v[j * stride + i];
	}
	for (uint32_t i = 0; i < dim; i++)
		out[i] /= sum;
}

static void naive_attention(struct naive *n, uint32_t layer, double *x)
{
	const struct tlm_config *cfg = n->cfg;
	uint32_t dim = cfg->head_dim, q_row = cfg->nr_heads * dim, kv_row = cfg->nr_kv_heads * dim;
	double *k = n->k + (size_t)layer * NR_TOKENS * kv_row;
	double *v = n->v + (size_t)layer * NR_TOKENS * kv_row;
	double norm[128], q[128], mixed[128], out[128];

	naive_norm(norm, x, cfg->dim);
	naive_multiply(n, TLM_WQ, layer, q, norm, cfg->dim, q_row);
	naive_multiply(n, TLM_WK, layer, k + n->pos * kv_row, norm, cfg->dim, kv_row);
	naive_multiply(n, TLM_WV, layer, v + n->pos * kv_row, norm, cfg->dim, kv_row);
	for (uint32_t h = 0; h < cfg->nr_kv_heads; h++)
		naive_rope(k + n->pos * kv_row + h * dim, n->pos, dim);
	for (uint32_t i = 0; i < kv_row; i++) {
		k[n->pos * kv_row + i] = round_bf16(k[n->pos * kv_row + i]);
		v[n->pos * kv_row + i] = round_bf16(v[n->pos * kv_row + i]);
	}
	for (uint32_t h = 0; h < cfg->nr_heads; h++) {
		uint32_t kv_head = h * cfg->nr_kv_heads / cfg->nr_heads;

		naive_rope(q + h * dim, n->pos, dim);
		naive_head(n, mixed + h * dim, q + h * dim, k + kv_head * dim, v + kv_head * dim,
			   kv_row);
	}
	naive_multiply(n, TLM_WO, layer, out, mixed, q_row, cfg->dim);
	for (uint32_t i = 0; i < cfg->dim; i++)
		x[i] += out[i];
}

static void naive_mlp(struct naive *n, uint32_t layer, double *x)
{
	const struct tlm_config *cfg = n->cfg;
	double norm[128], gate[384], up[384], out[128];

	naive_norm(norm, x, cfg->dim);
	naive_multiply(n, TLM_GATE, layer, gate, norm, cfg->dim, cfg->hidden);
	naive_multiply(n, TLM_UP, layer, up, norm, cfg->dim, cfg->hidden);
	for (uint32_t i = 0; i < cfg->hidden; i++)
		gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
	naive_multiply(n, TLM_DOWN, layer, out, gate, cfg->hidden, cfg->dim);
	for (uint32_t i = 0; i < cfg->dim; i++)
		x[i] += out[i];
}

static void naive_forward(struct naive *n, uint32_t token, double *logits)
{
	double x[128], norm[128];

	for (uint32_t i = 0; i < n->cfg->dim; i++)
		x[i] = tlm_weight(n->m, TLM_EMBED, 0, token, i);
	for (uint32_t l = 0; l < n->cfg->nr_layers; l++) {
		naive_attention(n, l, x);
		naive_mlp(n, l, x);
	}
	naive_norm(norm, x, n->cfg->dim);
	naive_multiply(n, TLM_HEAD, 0, logits, norm, n->cfg->dim, TLM_VOCAB);
	n->pos++;
}

static void test_against_naive(void **state)
{
	uint32_t tokens[NR_TOKENS];
	double logits[TLM_VOCAB], worst = 0, spread = 0;
	struct naive n = { 0 };
	struct bench b;
	size_t kv;

	(void)state;
	prompt_fill(tokens, NR_TOKENS);
	bench_init(&b, "tiny");
	n.m = b.m;
	n.cfg = b.cfg;
	kv = (size_t)b.cfg->nr_layers * NR_TOKENS * b.cfg->nr_kv_heads * b.cfg->head_dim;
	n.k = calloc(kv, sizeof(*n.k));
	n.v = calloc(kv, sizeof(*n.v));
	assert_non_null(n.k);
	assert_non_null(n.v);
	for (uint32_t t = 0; t < 40; t++) {
		naive_forward(&n, tokens[t], logits);
		forward(&b, tokens + t, 1, t);
		for (uint32_t i = 0; i < TLM_VOCAB; i++) {
			worst = fmax(worst, fabs(logits[i] - (double)b.logits[i]));
			spread = fmax(spread, fabs(logits[i]));
		}
	}
	/* what is left: K and V that fall on the two sides of a bf16 boundary */
	assert_true(spread > 3);
	assert_true(worst < 0.02 * spread);
	free(n.k);
	free(n.v);
	bench_fini(&b);
}

/* ---- kernels ---- */

/* the widest build against the plain one, on shapes with every remainder */
static void test_kernels_agree(void **state)
{
	enum { K = 64, COLS = 48, TOKENS = 7 };
	const struct tlm_kernels *best = tlm_kernels_best(), *base = &tlm_kernels_base;
	float x[TOKENS * K], w[K * COLS], a[TOKENS * COLS], b[TOKENS * COLS];
	float sum_a, sum_b;

	(void)state;
	for (unsigned i = 0; i < TOKENS * K; i++)
		x[i] = sinf((float)i) * 3;
	for (unsigned i = 0; i < K * COLS; i++)
		w[i] = cosf((float)i * 1.7f);
	best->matmul(a, COLS, x, K, w, TOKENS, K, COLS);
	base->matmul(b, COLS, x, K, w, TOKENS, K, COLS);
	assert_memory_equal(a, b, sizeof(a));
	for (uint32_t nr = 1; nr <= 40; nr++) {
		float scores_a[40], scores_b[40];

		best->attend(a, x, w, w + K, scores_a, 0.125f, nr, K);
		base->attend(b, x, w, w + K, scores_b, 0.125f, nr, K);
		assert_memory_equal(a, b, K * sizeof(float));
	}
	memcpy(a, x, sizeof(a));
	memcpy(b, x, sizeof(b));
	best->swiglu(a, x, TOKENS * COLS);
	base->swiglu(b, x, TOKENS * COLS);
	assert_memory_equal(a, b, sizeof(a));
	sum_a = best->exp_sum(a, 41);
	sum_b = base->exp_sum(b, 41);
	assert_memory_equal(&sum_a, &sum_b, sizeof(sum_a));
	assert_memory_equal(a, b, sizeof(a));
}

static void test_exp(void **state)
{
	float x[8] = { 0, -0.1f, -1, -5.5f, -20, -80, -86.9f, -1000 };
	float in[8], sum;
	double want = 0;

	(void)state;
	memcpy(in, x, sizeof(in));
	sum = tlm_kernels_base.exp_sum(x, 8);
	for (unsigned i = 0; i < 8; i++) {
		double e = exp((double)fmaxf(in[i], -87));

		want += e;
		assert_true(fabs((double)x[i] - e) <= 3e-7 * e);
	}
	assert_true(fabs((double)sum - want) < 1e-6 * want);
}

/* ---- sampling and arguments ---- */

static void test_sample(void **state)
{
	float logits[TLM_VOCAB] = { 0 };
	unsigned hits[2] = { 0 };

	(void)state;
	for (unsigned i = 0; i < TLM_VOCAB; i++)
		logits[i] = -30;
	logits[7] = logits[9] = 2;
	assert_int_equal(tlm_sample(logits, 0, 1, 0), 7);
	for (uint32_t pos = 0; pos < 1000; pos++) {
		uint32_t token = tlm_sample(logits, 1, 42, pos);

		assert_true(token == 7 || token == 9);
		assert_int_equal(token, tlm_sample(logits, 1, 42, pos));
		hits[token == 9]++;
	}
	assert_in_range(hits[0], 400, 600);
	logits[9] = 3; /* e times likelier */
	hits[0] = hits[1] = 0;
	for (uint32_t pos = 0; pos < 1000; pos++)
		hits[tlm_sample(logits, 1, 42, pos) == 9]++;
	assert_in_range(hits[1], 680, 780);
}

static void test_arguments(void **state)
{
	uint32_t tokens[2] = { 5, TLM_VOCAB };
	struct bench b;

	(void)state;
	assert_null(tlm_config_find("huge"));
	bench_init(&b, "tiny");
	assert_int_equal(tlm_run_begin(b.run, tokens, 0, 0, b.blocks), -EINVAL);
	assert_int_equal(tlm_run_begin(b.run, tokens, 2, 0, b.blocks), -EINVAL);
	assert_int_equal(tlm_run_begin(b.run, tokens, 1, TLM_TOKENS_MAX, b.blocks), -E2BIG);
	assert_int_equal(tlm_run_begin(b.run, tokens, 1, UINT32_MAX, b.blocks), -E2BIG);
	bench_fini(&b);
}

/* the geometry that "kv8b" promises: 128 KiB a token, 2 MiB a block, 32 pieces of 64 KiB */
static void test_kv_geometry(void **state)
{
	const struct tlm_config *cfg = tlm_config_find("kv8b");

	(void)state;
	assert_int_equal(tlm_block_bytes(cfg), 2 << 20);
	assert_int_equal(tlm_layer_bytes(cfg), 64 << 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_token_by_token),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_prefix_reuse),
		cmocka_unit_test(test_layers_arrive),
		cmocka_unit_test(test_seed_and_context_matter),
		cmocka_unit_test(test_against_naive),
		cmocka_unit_test(test_kernels_agree),
		cmocka_unit_test(test_exp),
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_kv_geometry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
