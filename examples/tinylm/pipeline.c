/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipeline.c - tinylm in two processes, each with half of the layers, joined by two channels
 *
 * The first stage turns tokens into states and runs its layers over them, the second runs the rest
 * and draws the next token. A run of tokens is one message: one slot, in which the states lie while
 * either stage works on them. No stage copies a state, and while the second is at work on one part
 * of a prompt the first is at the next. Back comes a message a token, with the token as its tag.
 *
 * The stages may be engines of one node or of two.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/weft.h>

#include "model.h"

#define PART 128u /* tokens of a message */
#define MESSAGES 4u /* that may be under way */
#define WANTS_TOKEN (1ull << 63) /* in a tag: the last part, to be answered by a token */

static const char usage[] =
	"usage: tinylm-pipeline --prompt TEXT [options]\n"
	"\n"
	"tinylm in two processes, each with half of the layers. Prints the tokens of the answer,\n"
	"which are those that tinylm gives.\n"
	"\n"
	"  -p, --prompt TEXT\n"
	"  -n, --max-tokens N   length of the answer (32)\n"
	"  -s, --size SIZE      tiny (default), small, or kv8b\n"
	"      --seed N         of the weights (1)\n"
	"  -S, --socket PATH    of the node (weft's default)\n"
	"  -T, --second PATH    of the second stage's node (the first one's)\n"
	"  -h, --help\n"
	"\n"
	"example:\n"
	"  tinylm-pipeline --prompt 'Once upon a time' --max-tokens 16\n";

struct options {
	const char *prompt;
	const char *size;
	const char *sockets[2];
	uint32_t max_tokens;
	uint64_t seed;
};

/* what both stages have */
struct stage {
	const struct tlm_config *cfg;
	struct tlm *model;
	struct tlm_run *run;
	struct weft *weft;
	struct weft_space *space; /* a slot holds the states of PART tokens */
	struct weft_ring *ring;
	uint64_t in, out; /* channels */
	void **blocks; /* KV of all tokens; of the other stage's layers nothing is written */
};

static int complain(int ret, const char *what)
{
	fprintf(stderr, "tinylm-pipeline: %s: %s\n", what, weft_why());
	return ret;
}

/* ---- set-up ---- */

static int kv_open(struct stage *st)
{
	const uint32_t nr = TLM_TOKENS_MAX / TLM_BLOCK_TOKENS;
	const size_t block = tlm_block_bytes(st->cfg);
	char *kv = NULL;

	st->blocks = calloc(nr, sizeof(*st->blocks));
	if (st->blocks)
		kv = aligned_alloc(64, nr * block); /* touched as far as it is used */
	if (!kv)
		return -ENOMEM;
	for (uint32_t i = 0; i < nr; i++)
		st->blocks[i] = kv + i * block;
	return 0;
}

static int attach(struct stage *st, const char *socket)
{
	const struct weft_opts how = { .size = sizeof(how), .socket = socket };
	const struct weft_space_opts geometry = {
		.size = sizeof(geometry),
		.block_bytes = PART * tlm_state_bytes(st->cfg),
		.model = st->cfg->name,
		.layout = "states",
		.tokens_per_block = PART,
		.dtype = WEFT_DTYPE_F32,
	};
	int ret = weft_open(&how, &st->weft);

	if (!ret)
		ret = weft_space_open(st->weft, &geometry, &st->space);
	if (!ret)
		ret = weft_ring_open(st->weft, NULL, &st->ring);
	return ret ? complain(ret, "no node") : 0;
}

static int stage_open(struct stage *st, const struct options *o, const char *socket)
{
	int ret;

	*st = (struct stage){ .cfg = tlm_config_find(o->size) };
	ret = tlm_create(st->cfg, o->seed, &st->model);
	if (!ret)
		ret = tlm_run_create(st->model, &st->run);
	if (!ret)
		ret = kv_open(st);
	return ret ? ret : attach(st, socket);
}

static void stage_close(struct stage *st)
{
	weft_close(st->weft);
	tlm_run_destroy(st->run);
	tlm_destroy(st->model);
	if (st->blocks)
		free(st->blocks[0]);
	free(st->blocks);
}

/* each opens the channel that it reads, and joins the other's. @sock: to carry the tickets */
static int stage_join(struct stage *st, int sock)
{
	struct weft_ticket mine, theirs;
	int ret = weft_channel_open(st->ring, st->space, MESSAGES,
				    MESSAGES * weft_space_block_bytes(st->space), &mine, &st->in);

	if (ret)
		return complain(ret, "no channel");
	if (write(sock, &mine, sizeof(mine)) != sizeof(mine) ||
	    recv(sock, &theirs, sizeof(theirs), MSG_WAITALL) != sizeof(theirs))
		return -ECONNRESET;
	ret = weft_channel_join(st->ring, st->space, &theirs, &st->out, NULL);
	return ret ? complain(ret, "cannot join the other stage's channel") : 0;
}

/* ---- messages ---- */

static void *slot_addr(const struct stage *st, const struct weft_slot *slot)
{
	return (char *)weft_arena(st->weft) + slot->off;
}

static int claim(struct stage *st, struct weft_slot *slot)
{
	const struct weft_op op = {
		.op = WEFT_OP_CLAIM, .nr = 1, .space = st->space, .slots = slot
	};
	int ret = weft_call(st->ring, &op, NULL);

	return ret < 0 ? complain(ret, "no slot") : 0;
}

static void unclaim(struct stage *st, struct weft_slot *slot)
{
	const struct weft_op op = {
		.op = WEFT_OP_RELEASE, .nr = 1, .space = st->space, .slots = slot
	};

	if (weft_call(st->ring, &op, NULL) < 0)
		complain(0, "a slot does not go back");
}

/* the slot goes, one way or the other */
static int send_slot(struct stage *st, struct weft_slot *slot, uint64_t bytes, uint64_t tag)
{
	int ret = weft_channel_send(st->ring, st->out, slot, 1, bytes, tag);

	if (ret > 0)
		return 0;
	ret = complain(ret, "the other stage is gone");
	unclaim(st, slot);
	return ret;
}

/* ---- the first stage ---- */

static int first_part(struct stage *st, const uint32_t *tokens, uint32_t nr, uint32_t first,
		      bool last)
{
	struct weft_slot slot;
	int ret = claim(st, &slot);

	if (ret)
		return ret;
	tlm_run_place(st->run, slot_addr(st, &slot));
	ret = tlm_run_begin(st->run, tokens, nr, first, st->blocks);
	if (ret) {
		unclaim(st, &slot);
		return ret;
	}
	for (uint32_t l = 0; l < st->cfg->nr_layers / 2; l++)
		tlm_run_layer(st->run);
	return send_slot(st, &slot, nr * tlm_state_bytes(st->cfg),
			 first | (last ? WANTS_TOKEN : 0));
}

/* Return: the token, or negative errno */
static int64_t first_token(struct stage *st)
{
	struct weft_message info;
	struct weft_slot slot;
	uint64_t message;
	int ret = weft_channel_recv(st->ring, st->in, &slot, 1, &info, &message);

	if (ret <= 0)
		return complain(ret ? ret : -EPIPE, "no token comes");
	ret = weft_channel_release(st->ring, message);
	return ret < 0 ? ret : (int64_t)(info.tag % TLM_VOCAB);
}

static int first_run(struct stage *st, const struct options *o)
{
	static uint32_t tokens[TLM_TOKENS_MAX];
	uint32_t nr = 1, done = 0, part, answer;
	int64_t token;
	int ret;

	tokens[0] = TLM_BOS;
	for (const char *at = o->prompt; *at; at++)
		tokens[nr++] = (unsigned char)*at;
	for (answer = 0; answer < o->max_tokens; answer++) {
		for (; done < nr; done += part) {
			part = nr - done < PART ? nr - done : PART;
			ret = first_part(st, tokens + done, part, done, done + part == nr);
			if (ret)
				return ret;
		}
		token = first_token(st);
		if (token < 0)
			return (int)token;
		printf("%s%u", answer ? " " : "", (unsigned)token);
		fflush(stdout);
		tokens[nr++] = (uint32_t)token;
		if (token == TLM_EOS)
			break;
	}
	putchar('\n');
	return weft_channel_close(st->ring, st->out);
}

/* ---- the second stage ---- */

static int second_token(struct stage *st, uint32_t pos)
{
	const uint32_t token = tlm_sample(tlm_run_logits(st->run), 0, 0, pos);
	struct weft_slot slot;
	int ret = claim(st, &slot);

	return ret ? ret : send_slot(st, &slot, 1, token);
}

static int second_part(struct stage *st, const struct weft_message *info,
		       const struct weft_slot *slot)
{
	const uint32_t nr = (uint32_t)(info->bytes / tlm_state_bytes(st->cfg));
	const uint32_t first = (uint32_t)info->tag;
	int ret;

	tlm_run_place(st->run, slot_addr(st, slot));
	ret = tlm_run_resume(st->run, nr, first, st->blocks, st->cfg->nr_layers / 2);
	if (ret)
		return ret;
	for (uint32_t l = st->cfg->nr_layers / 2; l < st->cfg->nr_layers; l++)
		tlm_run_layer(st->run);
	return info->tag & WANTS_TOKEN ? second_token(st, first + nr) : 0;
}

/* until the first stage closes */
static int second_run(struct stage *st)
{
	struct weft_message info;
	struct weft_slot slot;
	uint64_t message;
	int ret;

	for (;;) {
		ret = weft_channel_recv(st->ring, st->in, &slot, 1, &info, &message);
		if (!ret)
			return 0;
		if (ret == -ETIMEDOUT)
			continue; /* the first stage thinks */
		if (ret < 0)
			return complain(ret, "the first stage is gone");
		ret = second_part(st, &info, &slot);
		if (!ret)
			ret = weft_channel_release(st->ring, message);
		if (ret < 0)
			return ret;
	}
}

/* ---- both ---- */

static int run(const struct options *o, unsigned which, int sock)
{
	struct stage st;
	int ret = stage_open(&st, o, o->sockets[which]);

	if (!ret)
		ret = stage_join(&st, sock);
	if (!ret)
		ret = which ? second_run(&st) : first_run(&st, o);
	stage_close(&st);
	return ret < 0;
}

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "prompt", required_argument, NULL, 'p' },
		{ "max-tokens", required_argument, NULL, 'n' },
		{ "size", required_argument, NULL, 's' },
		{ "seed", required_argument, NULL, 'd' },
		{ "socket", required_argument, NULL, 'S' },
		{ "second", required_argument, NULL, 'T' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "p:n:s:S:T:h", options, NULL)) != -1) {
		switch (opt) {
		case 'p':
			o->prompt = optarg;
			break;
		case 'n':
			o->max_tokens = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			o->size = optarg;
			break;
		case 'd':
			o->seed = strtoull(optarg, NULL, 0);
			break;
		case 'S':
			o->sockets[0] = optarg;
			break;
		case 'T':
			o->sockets[1] = optarg;
			break;
		case 'h':
			return 1;
		default:
			return -EINVAL;
		}
	}
	if (!o->sockets[1])
		o->sockets[1] = o->sockets[0];
	return o->prompt && optind == argc && tlm_config_find(o->size) && o->max_tokens &&
			       o->max_tokens < TLM_TOKENS_MAX &&
			       strlen(o->prompt) + o->max_tokens < TLM_TOKENS_MAX
		       ? 0
		       : -EINVAL;
}

int main(int argc, char **argv)
{
	struct options o = { .size = "tiny", .max_tokens = 32, .seed = 1 };
	int socks[2], status, failed, ret = parse(&o, argc, argv);
	pid_t pid;

	if (ret) {
		fputs(usage, ret > 0 ? stdout : stderr);
		return ret > 0 ? 0 : 2;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks)) {
		perror("tinylm-pipeline");
		return 1;
	}
	pid = fork();
	if (pid < 0) {
		perror("tinylm-pipeline");
		return 1;
	}
	if (!pid) {
		close(socks[0]);
		return run(&o, 1, socks[1]);
	}
	close(socks[1]);
	failed = run(&o, 0, socks[0]);
	close(socks[0]);
	waitpid(pid, &status, 0);
	return failed || status;
}
