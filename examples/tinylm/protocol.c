/* SPDX-License-Identifier: Apache-2.0 */
#include "protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICKET_DIGITS (2 * sizeof(struct weft_ticket))

static void ticket_to_hex(const struct weft_ticket *ticket, char *hex)
{
	const unsigned char *bytes = (const unsigned char *)ticket;

	for (size_t i = 0; i < sizeof(*ticket); i++)
		sprintf(hex + 2 * i, "%02x", bytes[i]);
}

static int ticket_from_hex(const char *hex, struct weft_ticket *ticket)
{
	unsigned char *bytes = (unsigned char *)ticket;

	if (strlen(hex) != TICKET_DIGITS || strspn(hex, "0123456789abcdef") != TICKET_DIGITS)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(*ticket); i++)
		sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
	return 0;
}

static int message_check(struct message *msg, json_int_t max_tokens, json_int_t first_block,
			 const char *ticket, char *why, size_t why_len)
{
	struct request *req = &msg->req;

	if (max_tokens < 1 || max_tokens > TLM_TOKENS_MAX) {
		snprintf(why, why_len, "max_tokens must be 1 .. %u", TLM_TOKENS_MAX);
		return -EINVAL;
	}
	if (first_block < 0 || first_block > TLM_TOKENS_MAX / TLM_BLOCK_TOKENS) {
		snprintf(why, why_len, "first_block is past the context");
		return -EINVAL;
	}
	req->max_tokens = (uint32_t)max_tokens;
	req->first_block = (uint32_t)first_block;
	req->has_ticket = *ticket;
	if (req->has_ticket && ticket_from_hex(ticket, &req->ticket) < 0) {
		snprintf(why, why_len, "a ticket has %zu hexadecimal digits", TICKET_DIGITS);
		return -EINVAL;
	}
	return 0;
}

int message_parse(const char *line, unsigned line_nr, const struct request *defaults,
		  struct message *msg, char *why, size_t why_len)
{
	json_int_t max_tokens = defaults->max_tokens, first_block = 0;
	json_int_t sample_seed = (json_int_t)defaults->sample_seed;
	double temperature = (double)defaults->temperature;
	const char *ticket = "";
	json_error_t error;
	int ret = 0;

	memset(msg, 0, sizeof(*msg));
	msg->root = json_loads(line, 0, &error);
	if (!msg->root ||
	    json_unpack_ex(msg->root, &error, 0, "{s?o, s:s, s?I, s?F, s?I, s?s, s?I}", "id",
			   &msg->id, "prompt", &msg->req.prompt, "max_tokens", &max_tokens,
			   "temperature", &temperature, "sample_seed", &sample_seed, "ticket",
			   &ticket, "first_block", &first_block) < 0) {
		snprintf(why, why_len, "line %u, column %d: %s", line_nr, error.column, error.text);
		ret = -EINVAL;
	} else {
		ret = message_check(msg, max_tokens, first_block, ticket, why, why_len);
	}
	msg->req.temperature = (float)temperature;
	msg->req.sample_seed = (uint64_t)sample_seed;
	msg->id = msg->id ? json_incref(msg->id) : json_integer(line_nr);
	return ret;
}

void message_fini(struct message *msg)
{
	json_decref(msg->id);
	json_decref(msg->root);
}

/* takes @answer. A whole line at once: routers read lines */
static void print_line(json_t *answer)
{
	char *line = answer ? json_dumps(answer, JSON_COMPACT) : NULL;

	json_decref(answer);
	if (!line) {
		fprintf(stderr, "tinylm: no memory for an answer\n");
		return;
	}
	puts(line);
	fflush(stdout);
	free(line);
}

void answer_result(json_t *id, const char *role, const struct result *res)
{
	json_t *tokens = json_array();

	for (uint32_t i = 0; i < res->nr_tokens; i++)
		json_array_append_new(tokens, json_integer(res->tokens[i]));
	print_line(json_pack(
		"{s:O, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id", id, "role", role,
		"tokens", tokens, "prompt_tokens", (json_int_t)res->prompt_tokens,
		"prefix_tokens_hit", (json_int_t)res->prefix_tokens, "prefill_tokens",
		(json_int_t)res->prefill_tokens, "handoff_tokens", (json_int_t)res->handoff_tokens,
		"map_us", (json_int_t)res->map_us, "wait_us", (json_int_t)res->wait_us, "ttft_us",
		(json_int_t)res->ttft_us, "total_us", (json_int_t)res->total_us));
}

void answer_ticket(json_t *id, const struct weft_ticket *ticket, uint32_t first_block)
{
	char hex[TICKET_DIGITS + 1] = "";

	if (ticket)
		ticket_to_hex(ticket, hex);
	print_line(json_pack("{s:O, s:s, s:I}", "id", id, "ticket", hex, "first_block",
			     (json_int_t)first_block));
}

void answer_error(json_t *id, const char *what)
{
	print_line(json_pack("{s:O, s:s}", "id", id, "error", what));
}
