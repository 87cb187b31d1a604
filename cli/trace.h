/* SPDX-License-Identifier: Apache-2.0 */
/**
 * trace.h - traces of requests, one a line: JSON objects in Mooncake's form, or CSV
 *
 *	{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
 *	27482,6955,52,46 47
 *
 * CSV has the same fields in this order, ids with spaces between; a line with their names
 * (timestamp,input_length,output_length,hash_ids) may stand above. Timestamps are milliseconds.
 * Each of hash_ids stands for a block of 512 tokens and all blocks before it, so that two requests
 * share the blocks of their common ids.
 *
 * Context: one thread a reader; no other state.
 */
#ifndef WFI_TRACE_H
#define WFI_TRACE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define WFI_TRACE_BLOCK_TOKENS 512u
#define WFI_TRACE_IDS_MAX 65536u /* of one request: 32 million tokens */
#define WFI_TRACE_LINE_MAX (4u << 20) /* bytes; longer lines are broken lines */

/* @hash_ids: lent until the next wfi_trace_next() or wfi_trace_close() */
struct wfi_trace_request {
	uint64_t timestamp_ms;
	uint64_t input_length;
	uint64_t output_length;
	const uint64_t *hash_ids;
	uint32_t nr_ids;
};

struct wfi_trace;

/* @path: a file, "-" is the standard input. Return: 0, -errno of open(2), -ENOMEM */
int wfi_trace_open(const char *path, struct wfi_trace **out);
void wfi_trace_close(struct wfi_trace *trace);
/**
 * wfi_trace_next - the next request
 *
 * Lines that are no request are skipped, counted, and said in the log with file and line; empty
 * lines are nothing.
 *
 * Return: 1 and a request, 0 at the end, -EIO, -ENOMEM.
 */
int wfi_trace_next(struct wfi_trace *trace, struct wfi_trace_request *out);
/* number of the last line read, from 1 */
uint64_t wfi_trace_line(const struct wfi_trace *trace);
uint64_t wfi_trace_broken(const struct wfi_trace *trace);

/**
 * struct wfi_trace_gen - what to generate
 * @seed: equal seeds give equal traces, on every machine
 * @nr_requests: lines
 * @mean_gap_ms: between requests, on average
 */
struct wfi_trace_gen {
	uint64_t seed;
	uint64_t nr_requests;
	uint64_t mean_gap_ms;
};

/**
 * wfi_trace_generate - write a trace of sessions of several turns
 *
 * Each session starts with one of a few system prompts that sessions share; each turn repeats all
 * of the session so far and adds to it.
 *
 * Return: 0, -EIO, -ENOMEM.
 */
int wfi_trace_generate(const struct wfi_trace_gen *gen, FILE *out);

/* the bytes that a block has for one id: a stream of their own for each id */
void wfi_trace_fill(uint64_t id, void *buf, size_t len);
/* Return: how many bytes of @buf differ from those of wfi_trace_fill() */
uint64_t wfi_trace_check(uint64_t id, const void *buf, size_t len);

#endif
