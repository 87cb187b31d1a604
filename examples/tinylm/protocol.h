/* SPDX-License-Identifier: Apache-2.0 */
/**
 * protocol.h - the JSON lines between tinylm and whoever routes requests to it
 *
 * A request is a line {"id": any, "prompt": "text"} and, where wanted, "max_tokens", "temperature",
 * "sample_seed" instead of the options' values. Each gets an answer with its id:
 *
 *   both      {"id", "tokens": [..], figures}
 *   decode    two: first {"id", "ticket": "hex", "first_block"}: write both to prefill, with the
 *             prompt. An empty ticket: decode holds all it needs. Then as both
 *   prefill   its request also has "ticket" and "first_block"; without, it only fills the cache.
 *             {"id", figures}, when the blocks have landed
 *
 * A request that fails is answered {"id", "error": "text"}, and the next is taken. So a router is:
 * read decode's ticket, write it to prefill, read decode's tokens.
 */
#ifndef TINYLM_PROTOCOL_H
#define TINYLM_PROTOCOL_H

#include <jansson.h>

#include "engine.h"

/* @req.prompt and @id live as long as @root */
struct message {
	struct request req;
	json_t *root;
	json_t *id;
};

/**
 * message_parse - read a request
 * @line_nr: its id, if it has none
 *
 * Return: 0, to be ended with message_fini(); -EINVAL and a sentence in @why.
 */
int message_parse(const char *line, unsigned line_nr, const struct request *defaults,
		  struct message *msg, char *why, size_t why_len);
void message_fini(struct message *msg);

/* each writes one line to standard output */
void answer_result(json_t *id, const char *role, const struct result *res);
void answer_ticket(json_t *id, const struct weft_ticket *ticket, uint32_t first_block);
void answer_error(json_t *id, const char *what);

#endif
