/* SPDX-License-Identifier: Apache-2.0 */
#include "engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SEQ_BLOCKS_MAX (TLM_TOKENS_MAX / TLM_BLOCK_TOKENS)
#define SEQ_LAYERS_MAX 32u
#define HANDOFF_TIMEOUT_US 60000000u

/**
 * struct seq - one request's tokens and the blocks that hold their KV
 * @nr_shared: full blocks of the prompt, but for its last token
 * @nr_held: blocks [0, nr_held) were in the cache
 * @claim_first, @claim_end: blocks that are ours to fill
 * @landed: per layer, how many of the @nr_expected blocks have arrived
 * @pushes: each layer goes to @ticket when it is computed, blocks from @push_first on
 * @nr_open: operations whose last completion has not come
 */
struct seq {
	uint32_t tokens[TLM_TOKENS_MAX];
	struct weft_key keys[SEQ_BLOCKS_MAX];
	struct weft_slot slots[SEQ_BLOCKS_MAX];
	void *blocks[SEQ_BLOCKS_MAX];
	uint32_t nr_tokens;
	uint32_t nr_prompt;
	uint32_t nr_keys;
	uint32_t nr_shared;
	uint32_t nr_held;
	uint32_t claim_first;
	uint32_t claim_end;
	uint64_t leases[2];
	uint32_t nr_leases;
	bool pushes;
	uint32_t push_first;
	struct weft_ticket ticket;
	bool ticket_ready;
	uint64_t handoff;
	uint32_t nr_expected;
	uint32_t landed[SEQ_LAYERS_MAX];
	uint32_t nr_open;
	int error;
	uint64_t start_us;
	uint64_t wait_us;
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- completions ---- */

static void seq_locate(const struct engine *e, struct seq *s, uint32_t first, uint32_t end)
{
	char *arena = weft_arena(e->weft);

	for (uint32_t i = first; i < end; i++)
		s->blocks[i] = arena + s->slots[i].off;
}

static void expect_event(const struct engine *e, struct seq *s, const struct weft_completion *c)
{
	uint32_t first = s->nr_held + c->first_block;

	if (c->flags & WEFT_CQE_TICKET) {
		s->handoff = c->handle;
		s->ticket_ready = true;
	} else if (c->flags & WEFT_CQE_MORE) {
		seq_locate(e, s, first, first + c->nr_blocks);
		for (uint32_t l = c->layer; l < (uint32_t)c->layer + c->nr_layers; l++)
			s->landed[l] += c->nr_blocks;
	} else if (c->res > 0) {
		s->leases[s->nr_leases++] = c->handle;
	}
}

/* takes completions, and sleeps for the first when told to. Return: 0; errors stand in s->error */
static int seq_reap(const struct engine *e, struct seq *s, bool wait)
{
	struct weft_completion done[16];
	int nr;

	nr = wait ? weft_wait(e->ring, done, 16, 0) : weft_poll(e->ring, done, 16);
	for (int i = 0; i < nr; i++) {
		if (done[i].op == WEFT_OP_HANDOFF_EXPECT)
			expect_event(e, s, &done[i]);
		if (!(done[i].flags & WEFT_CQE_MORE))
			s->nr_open--;
		if (done[i].res < 0 && !s->error)
			s->error = done[i].res;
	}
	return nr < 0 ? nr : 0;
}

/* every accepted operation completes, at the latest at its deadline: this ends */
static int seq_drain(const struct engine *e, struct seq *s)
{
	int ret = 0;

	while (s->nr_open && !ret)
		ret = seq_reap(e, s, true);
	return ret < 0 ? ret : s->error;
}

static int seq_submit(const struct engine *e, struct seq *s, const struct weft_op *op)
{
	int ret = weft_submit(e->ring, op, 1);

	while (ret == -EAGAIN) {
		ret = seq_reap(e, s, true);
		if (!ret)
			ret = weft_submit(e->ring, op, 1);
	}
	if (ret < 0)
		return ret;
	s->nr_open++;
	return 0;
}

/* ---- the steps ---- */

static int seq_extend_keys(const struct engine *e, struct seq *s, uint32_t nr_keys)
{
	uint32_t have = s->nr_keys, first = have * TLM_BLOCK_TOKENS;
	int nr;

	if (have >= nr_keys)
		return 0;
	nr = weft_key_chain(e->space, have ? &s->keys[have - 1] : NULL, s->tokens + first,
			    s->nr_tokens - first, s->keys + have, nr_keys - have);
	if (nr < 0)
		return nr;
	s->nr_keys += (uint32_t)nr;
	return 0;
}

static int seq_begin(const struct engine *e, struct seq *s, const struct request *req)
{
	size_t len = strlen(req->prompt);

	memset(s, 0, sizeof(*s));
	s->start_us = now_us();
	if (len >= TLM_TOKENS_MAX || req->max_tokens >= TLM_TOKENS_MAX - len)
		return -E2BIG;
	s->tokens[0] = TLM_BOS;
	for (size_t i = 0; i < len; i++)
		s->tokens[i + 1] = (unsigned char)req->prompt[i];
	s->nr_prompt = s->nr_tokens = (uint32_t)len + 1;
	s->nr_shared = (s->nr_prompt - 1) / TLM_BLOCK_TOKENS;
	return seq_extend_keys(e, s, s->nr_shared);
}

static int seq_map(const struct engine *e, struct seq *s, struct result *res)
{
	uint64_t start_us = now_us();
	int nr;

	if (!s->nr_shared || e->no_reuse)
		return 0;
	nr = weft_map(e->ring, e->space, s->keys, s->nr_shared, s->slots, &s->leases[0]);
	if (nr < 0)
		return nr;
	s->nr_leases = nr > 0;
	s->nr_held = (uint32_t)nr;
	seq_locate(e, s, 0, s->nr_held);
	res->map_us = now_us() - start_us;
	res->prefix_tokens = s->nr_held * TLM_BLOCK_TOKENS;
	return 0;
}

static int seq_claim(const struct engine *e, struct seq *s, uint32_t first, uint32_t end)
{
	const struct weft_op op = {
		.op = WEFT_OP_CLAIM,
		.nr = end - first,
		.space = e->space,
		.slots = s->slots + first,
	};
	int ret;

	s->claim_first = s->claim_end = first;
	if (first == end)
		return 0;
	ret = weft_call(e->ring, &op, NULL);
	if (ret < 0)
		return ret;
	s->claim_end = end;
	seq_locate(e, s, first, end);
	return 0;
}

/* blocks [.., end) of those that we claimed are full: from now on nobody may write them */
static int seq_publish(const struct engine *e, struct seq *s, uint32_t end)
{
	uint32_t first = s->claim_first;
	struct weft_op op = {
		.op = WEFT_OP_PUT,
		.nr = end - first,
		.space = e->space,
		.parent = first ? &s->keys[first - 1] : NULL,
		.keys = s->keys + first,
		.slots = s->slots + first,
	};
	int ret;

	if (first >= end)
		return 0;
	ret = seq_extend_keys(e, s, end);
	if (ret < 0)
		return ret;
	ret = weft_call(e->ring, &op, NULL);
	if (ret < 0)
		return ret;
	s->claim_first = end;
	return 0;
}

static void keep_first_error(int *ret, int err)
{
	if (*ret >= 0)
		*ret = err < 0 ? err : 0;
}

/* on every way out: nothing stays open, claimed or leased. Return: @ret, or the first error here */
static int seq_end(const struct engine *e, struct seq *s, int ret)
{
	const struct weft_op cancel = { .op = WEFT_OP_HANDOFF_CANCEL, .handle = s->handoff };
	const struct weft_op unclaim = {
		.op = WEFT_OP_RELEASE,
		.nr = s->claim_end - s->claim_first,
		.space = e->space,
		.slots = s->slots + s->claim_first,
	};

	if (s->nr_open && s->handoff)
		keep_first_error(&ret, seq_submit(e, s, &cancel));
	keep_first_error(&ret, seq_drain(e, s));
	if (unclaim.nr)
		keep_first_error(&ret, weft_call(e->ring, &unclaim, NULL));
	for (uint32_t i = 0; i < s->nr_leases; i++)
		keep_first_error(&ret, weft_release(e->ring, s->leases[i]));
	return ret;
}

/* ---- handoff ---- */

/* layers of blocks [first, end), or of those among them that the ticket stands for */
static int seq_push(const struct engine *e, struct seq *s, uint32_t layer, uint32_t nr_layers,
		    uint32_t first, uint32_t end)
{
	struct weft_op op = {
		.op = WEFT_OP_HANDOFF_PUSH,
		.space = e->space,
		.ticket = &s->ticket,
		.timeout_us = HANDOFF_TIMEOUT_US,
		.layer = layer,
		.nr_layers = nr_layers,
	};

	if (first < s->push_first)
		first = s->push_first;
	if (!s->pushes || first >= end)
		return 0;
	op.nr = end - first;
	op.slots = s->slots + first;
	op.first_block = first - s->push_first;
	return seq_submit(e, s, &op);
}

static int seq_expect(const struct engine *e, struct seq *s)
{
	const struct weft_op op = {
		.op = WEFT_OP_HANDOFF_EXPECT,
		.nr = s->nr_shared - s->nr_held,
		.space = e->space,
		.parent = s->nr_held ? &s->keys[s->nr_held - 1] : NULL,
		.keys = s->keys + s->nr_held,
		.slots = s->slots + s->nr_held,
		.ticket = &s->ticket,
		.timeout_us = HANDOFF_TIMEOUT_US,
		.nr_layers = e->cfg->nr_layers,
	};
	int ret;

	if (!op.nr)
		return 0;
	s->nr_expected = op.nr;
	ret = seq_submit(e, s, &op);
	while (!ret && !s->ticket_ready && !s->error)
		ret = seq_reap(e, s, true);
	return ret < 0 ? ret : s->error;
}

static int seq_await_layer(const struct engine *e, struct seq *s, uint32_t layer)
{
	uint64_t start_us;
	int ret = 0;

	if (s->landed[layer] >= s->nr_expected)
		return 0;
	start_us = now_us();
	while (!ret && !s->error && s->landed[layer] < s->nr_expected)
		ret = seq_reap(e, s, true);
	s->wait_us += now_us() - start_us;
	return ret < 0 ? ret : s->error;
}

/* ---- running the model ---- */

/*
 * Tokens [first, end) through all layers. Decode enters a layer when the prompt's part of it has
 * landed; prefill pushes a layer on when it has left it. Either overlaps with the other's work.
 */
static int seq_forward(const struct engine *e, struct seq *s, uint32_t first, uint32_t end)
{
	int ret;

	ret = tlm_run_begin(e->run, s->tokens + first, end - first, first, s->blocks);
	for (uint32_t l = 0; !ret && l < e->cfg->nr_layers; l++) {
		ret = seq_await_layer(e, s, l);
		if (ret < 0)
			break;
		tlm_run_layer(e->run);
		ret = seq_push(e, s, l, 1, s->claim_first, s->claim_end);
	}
	return ret;
}

/* the prompt from @first on, then the answer */
static int seq_generate(const struct engine *e, struct seq *s, const struct request *req,
			struct result *res, uint32_t first)
{
	uint32_t token;
	int ret;

	ret = seq_forward(e, s, first, s->nr_tokens);
	while (!ret) {
		token = tlm_sample(tlm_run_logits(e->run), req->temperature, req->sample_seed,
				   s->nr_tokens);
		if (!res->nr_tokens)
			res->ttft_us = now_us() - s->start_us;
		s->tokens[s->nr_tokens++] = token;
		res->tokens[res->nr_tokens++] = token;
		if (token == TLM_EOS || res->nr_tokens >= req->max_tokens)
			break;
		ret = seq_forward(e, s, s->nr_tokens - 1, s->nr_tokens);
	}
	return ret;
}

static void result_finish(const struct seq *s, struct result *res)
{
	res->prompt_tokens = s->nr_prompt;
	res->wait_us = s->wait_us;
	res->total_us = now_us() - s->start_us;
}

/* blocks for the KV of all tokens but the last, which is never run */
static uint32_t blocks_needed(const struct seq *s, const struct request *req)
{
	return (s->nr_prompt + req->max_tokens - 2) / TLM_BLOCK_TOKENS + 1;
}

/* ---- the roles ---- */

int engine_both(struct engine *e, const struct request *req, struct result *res)
{
	struct seq s;
	int ret;

	memset(res, 0, sizeof(*res));
	ret = seq_begin(e, &s, req);
	if (!ret)
		ret = seq_map(e, &s, res);
	if (!ret)
		ret = seq_claim(e, &s, s.nr_held, blocks_needed(&s, req));
	if (!ret)
		ret = seq_generate(e, &s, req, res, res->prefix_tokens);
	if (!ret)
		ret = seq_publish(e, &s, (s.nr_tokens - 1) / TLM_BLOCK_TOKENS);
	res->prefill_tokens = s.nr_prompt - res->prefix_tokens;
	result_finish(&s, res);
	return seq_end(e, &s, ret);
}

/* what we have found in the cache is complete: all its layers at once */
static int prefill_push_prefix(struct engine *e, struct seq *s, const struct request *req,
			       struct result *res)
{
	if (!req->has_ticket)
		return 0;
	if (req->first_block > s->nr_shared)
		return -EINVAL;
	s->pushes = true;
	s->push_first = req->first_block;
	s->ticket = req->ticket;
	res->handoff_tokens = (s->nr_shared - req->first_block) * TLM_BLOCK_TOKENS;
	return seq_push(e, s, 0, e->cfg->nr_layers, 0, s->nr_held);
}

int engine_prefill(struct engine *e, const struct request *req, struct result *res)
{
	struct seq s;
	int ret;

	memset(res, 0, sizeof(*res));
	ret = seq_begin(e, &s, req);
	if (!ret)
		ret = seq_map(e, &s, res);
	if (!ret)
		ret = seq_claim(e, &s, s.nr_held, s.nr_shared);
	if (!ret)
		ret = prefill_push_prefix(e, &s, req, res);
	if (!ret && s.nr_held < s.nr_shared)
		ret = seq_forward(e, &s, s.nr_held * TLM_BLOCK_TOKENS,
				  s.nr_shared * TLM_BLOCK_TOKENS);
	if (!ret) {
		s.wait_us = now_us();
		ret = seq_drain(e, &s);
		s.wait_us = now_us() - s.wait_us;
	}
	res->ttft_us = now_us() - s.start_us;
	if (!ret)
		ret = seq_publish(e, &s, s.nr_shared);
	res->prefill_tokens = (s.nr_shared - s.nr_held) * TLM_BLOCK_TOKENS;
	result_finish(&s, res);
	return seq_end(e, &s, ret);
}

int engine_decode(struct engine *e, const struct request *req, struct result *res,
		  void (*ticket_ready)(void *ctx, const struct weft_ticket *ticket,
				       uint32_t first_block),
		  void *ctx)
{
	struct seq s;
	int ret;

	memset(res, 0, sizeof(*res));
	ret = seq_begin(e, &s, req);
	if (!ret)
		ret = seq_map(e, &s, res);
	if (!ret)
		ret = seq_claim(e, &s, s.nr_shared, blocks_needed(&s, req));
	if (!ret)
		ret = seq_expect(e, &s);
	if (!ret) {
		ticket_ready(ctx, s.nr_expected ? &s.ticket : NULL, s.nr_held);
		ret = seq_generate(e, &s, req, res, s.nr_shared * TLM_BLOCK_TOKENS);
	}
	if (!ret)
		ret = seq_drain(e, &s); /* the handoff's last completion brings its lease */
	if (!ret)
		ret = seq_publish(e, &s, (s.nr_tokens - 1) / TLM_BLOCK_TOKENS);
	res->handoff_tokens = s.nr_expected * TLM_BLOCK_TOKENS;
	res->prefill_tokens = s.nr_prompt - s.nr_shared * TLM_BLOCK_TOKENS;
	result_finish(&s, res);
	return seq_end(e, &s, ret);
}

/* ---- attaching ---- */

static int attach(const struct engine_opts *opts, struct engine *e)
{
	const struct weft_opts how = {
		.size = sizeof(how),
		.mode = opts->embedded ? WEFT_EMBEDDED : WEFT_ATTACH,
		.socket = opts->socket,
	};
	char model[WEFT_NAME_MAX];
	const struct weft_space_opts geometry = {
		.size = sizeof(geometry),
		.block_bytes = tlm_block_bytes(e->cfg),
		.model = model,
		.layout = "nhd",
		.tokens_per_block = TLM_BLOCK_TOKENS,
		.nr_layers = e->cfg->nr_layers,
		.dtype = WEFT_DTYPE_BF16,
	};
	int ret;

	/* other weights make other KV: the seed is part of every key */
	snprintf(model, sizeof(model), "tinylm-%s@%llu", e->cfg->name,
		 (unsigned long long)opts->seed);
	ret = weft_open(&how, &e->weft);
	if (!ret)
		ret = weft_space_open(e->weft, &geometry, &e->space);
	if (!ret)
		ret = weft_ring_open(e->weft, NULL, &e->ring);
	if (ret < 0)
		fprintf(stderr, "tinylm: %s\n", weft_why());
	return ret;
}

int engine_open(const struct engine_opts *opts, struct engine *e)
{
	int ret;

	memset(e, 0, sizeof(*e));
	e->no_reuse = opts->no_reuse;
	e->cfg = tlm_config_find(opts->size);
	if (!e->cfg) {
		fprintf(stderr, "tinylm: no size '%s': tiny, small or kv8b\n", opts->size);
		return -EINVAL;
	}
	ret = tlm_create(e->cfg, opts->seed, &e->model);
	if (!ret)
		ret = tlm_run_create(e->model, &e->run);
	if (ret < 0)
		fprintf(stderr, "tinylm: no memory for the model\n");
	else
		ret = attach(opts, e);
	if (ret < 0)
		engine_close(e);
	return ret;
}

void engine_close(struct engine *e)
{
	weft_close(e->weft); /* its ring and space too */
	tlm_run_destroy(e->run);
	tlm_destroy(e->model);
}
