/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "cli/trace.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define GOLDEN 0x9e3779b97f4a7c15ull

struct wfi_trace {
	FILE *in;
	char *path;
	char *line;
	size_t line_room;
	uint64_t line_nr;
	uint64_t nr_broken;
	uint64_t *ids;
};

/* splitmix64 */
static uint64_t mix(uint64_t v)
{
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
	return v ^ (v >> 31);
}

int wfi_trace_open(const char *path, struct wfi_trace **out)
{
	struct wfi_trace *t;
	int ret = -ENOMEM;

	t = calloc(1, sizeof(*t));
	if (!t)
		return ret;
	t->path = strdup(strcmp(path, "-") ? path : "standard input");
	t->ids = malloc(WFI_TRACE_IDS_MAX * sizeof(t->ids[0]));
	if (!t->path || !t->ids)
		goto err_free;
	t->in = strcmp(path, "-") ? fopen(path, "re") : stdin;
	if (!t->in) {
		ret = -errno;
		goto err_free;
	}
	*out = t;
	return 0;

err_free:
	free(t->ids);
	free(t->path);
	free(t);
	return ret;
}

void wfi_trace_close(struct wfi_trace *t)
{
	if (!t)
		return;
	if (t->in != stdin)
		fclose(t->in);
	free(t->line);
	free(t->ids);
	free(t->path);
	free(t);
}

uint64_t wfi_trace_line(const struct wfi_trace *t)
{
	return t->line_nr;
}

uint64_t wfi_trace_broken(const struct wfi_trace *t)
{
	return t->nr_broken;
}

/* getline() has no bound, and one line without an end must not take all memory.
 * Return: 1 and the bytes in @len (more than the bound when it was too long), 0 at the end */
static int read_line(struct wfi_trace *t, size_t *len)
{
	size_t used = 0, room;
	char *grown;
	int c;

	while ((c = getc_unlocked(t->in)) != EOF && c != '\n') {
		if (used > WFI_TRACE_LINE_MAX)
			continue;
		/* one more than the line, for a zero */
		if (used + 1 >= t->line_room) {
			room = t->line_room ? 2 * t->line_room : 4096;
			grown = realloc(t->line, room);
			if (!grown)
				return -ENOMEM;
			t->line = grown;
			t->line_room = room;
		}
		t->line[used++] = (char)c;
	}
	if (ferror(t->in))
		return -EIO;
	if (c == EOF && !used)
		return 0;
	t->line_nr++;
	*len = used;
	return 1;
}

/* Return: 0, or what is wrong with it */
static const char *get_number(const json_t *obj, const char *key, uint64_t *out)
{
	const json_t *v = json_object_get(obj, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return key;
	*out = (uint64_t)json_integer_value(v);
	return NULL;
}

static const char *parse_ids(struct wfi_trace *t, const json_t *array, uint32_t *nr)
{
	const json_t *v;
	size_t i;

	if (!json_is_array(array))
		return "hash_ids";
	if (json_array_size(array) > WFI_TRACE_IDS_MAX)
		return "hash_ids (too many)";
	for (i = 0; i < json_array_size(array); i++) {
		v = json_array_get(array, i);
		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return "hash_ids";
		t->ids[i] = (uint64_t)json_integer_value(v);
	}
	*nr = (uint32_t)i;
	return NULL;
}

static const char *parse_request(struct wfi_trace *t, const json_t *obj,
				 struct wfi_trace_request *out)
{
	struct wfi_trace_request r = { .hash_ids = t->ids };
	const char *bad;

	bad = get_number(obj, "timestamp", &r.timestamp_ms);
	if (!bad)
		bad = get_number(obj, "input_length", &r.input_length);
	if (!bad)
		bad = get_number(obj, "output_length", &r.output_length);
	if (!bad)
		bad = parse_ids(t, json_object_get(obj, "hash_ids"), &r.nr_ids);
	if (!bad)
		*out = r;
	return bad;
}

static bool is_blank(const char *line, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

/* Return: 0, or what is wrong; @at moves on past the number and one @after */
static const char *csv_number(const char **at, char after, const char *what, uint64_t *out)
{
	char *end;

	if (**at < '0' || **at > '9')
		return what;
	errno = 0;
	*out = strtoull(*at, &end, 10);
	if (errno || *end != after)
		return what;
	*at = end + 1;
	return NULL;
}

static const char *csv_ids(struct wfi_trace *t, const char *at, uint32_t *nr)
{
	char *end;

	for (*nr = 0; *at; at = end + strspn(end, " ")) {
		if (*nr == WFI_TRACE_IDS_MAX)
			return "hash_ids (too many)";
		if (*at < '0' || *at > '9')
			return "hash_ids";
		errno = 0;
		t->ids[(*nr)++] = strtoull(at, &end, 10);
		if (errno || (*end && *end != ' '))
			return "hash_ids";
	}
	return NULL;
}

/* @line ends in a zero. Return: 0, or what is wrong with it */
static const char *parse_csv(struct wfi_trace *t, const char *line, struct wfi_trace_request *out)
{
	struct wfi_trace_request r = { .hash_ids = t->ids };
	const char *bad;

	bad = csv_number(&line, ',', "timestamp", &r.timestamp_ms);
	if (!bad)
		bad = csv_number(&line, ',', "input_length", &r.input_length);
	if (!bad)
		bad = csv_number(&line, ',', "output_length", &r.output_length);
	if (!bad)
		bad = csv_ids(t, line, &r.nr_ids);
	if (!bad)
		*out = r;
	return bad;
}

/* Return: true when the line in t->line was a request */
static bool csv_line(struct wfi_trace *t, size_t len, struct wfi_trace_request *out)
{
	const char *bad;

	while (len && strchr(" \r", t->line[len - 1]))
		len--;
	/* there is room: a line that fills it was grown */
	t->line[len] = '\0';
	bad = parse_csv(t, t->line, out);
	if (bad)
		wfi_warn("%s:%" PRIu64 ": %s is missing or out of range; skipped", t->path,
			 t->line_nr, bad);
	return !bad;
}

static bool is_csv_heading(const struct wfi_trace *t, size_t len)
{
	static const char heading[] = "timestamp,";

	return len >= sizeof(heading) - 1 && !memcmp(t->line, heading, sizeof(heading) - 1);
}

/* Return: true when the line in t->line was a request */
static bool parse_line(struct wfi_trace *t, size_t len, struct wfi_trace_request *out)
{
	const char *bad;
	json_error_t err;
	json_t *obj;

	if (len > WFI_TRACE_LINE_MAX) {
		wfi_warn("%s:%" PRIu64 ": longer than %u bytes; skipped", t->path, t->line_nr,
			 WFI_TRACE_LINE_MAX);
		return false;
	}
	if (t->line[0] >= '0' && t->line[0] <= '9')
		return csv_line(t, len, out);
	obj = json_loadb(t->line, len, JSON_REJECT_DUPLICATES, &err);
	if (!obj) {
		wfi_warn("%s:%" PRIu64 ": no JSON object: %s; skipped", t->path, t->line_nr,
			 err.text);
		return false;
	}
	bad = parse_request(t, obj, out);
	json_decref(obj);
	if (bad)
		wfi_warn("%s:%" PRIu64 ": %s is missing or out of range; skipped", t->path,
			 t->line_nr, bad);
	return !bad;
}

int wfi_trace_next(struct wfi_trace *t, struct wfi_trace_request *out)
{
	size_t len;
	int ret;

	while ((ret = read_line(t, &len)) == 1) {
		if (is_blank(t->line, len) || is_csv_heading(t, len))
			continue;
		if (parse_line(t, len, out))
			return 1;
		t->nr_broken++;
	}
	return ret;
}

/* ---- bytes of a block ---- */

static uint64_t word_at(uint64_t id, size_t idx)
{
	return mix(mix(id + GOLDEN) + (uint64_t)(idx + 1) * GOLDEN);
}

void wfi_trace_fill(uint64_t id, void *buf, size_t len)
{
	uint8_t *out = buf;
	uint64_t word;
	size_t i;

	for (i = 0; i < len; i += sizeof(word)) {
		word = word_at(id, i);
		memcpy(out + i, &word, wfi_min(sizeof(word), len - i));
	}
}

uint64_t wfi_trace_check(uint64_t id, const void *buf, size_t len)
{
	const uint8_t *in = buf;
	uint64_t word, got, wrong = 0;
	size_t i, j, n;

	for (i = 0; i < len; i += sizeof(word)) {
		n = wfi_min(sizeof(word), len - i);
		word = word_at(id, i);
		got = word;
		memcpy(&got, in + i, n);
		for (j = 0; wfi_unlikely(got != word) && j < n; j++)
			wrong += ((got ^ word) >> (8 * j) & 0xff) != 0;
	}
	return wrong;
}

/* ---- generating ---- */

#define GEN_SYSTEMS 8
#define GEN_SYSTEM_BLOCKS 4
#define GEN_SESSIONS 32
#define GEN_BLOCKS_MAX 64 /* a session ends when it would outgrow this context */

struct gen_session {
	uint64_t ids[GEN_BLOCKS_MAX];
	uint64_t tokens; /* of all turns so far, answers included */
	uint64_t fixed; /* tokens that the next turn has in common with what was sent */
	unsigned turns_left; /* 0: over */
};

struct gen {
	uint64_t rng;
	uint64_t next_id;
	uint64_t now_ms;
	uint64_t system_tokens[GEN_SYSTEMS];
	uint64_t system_ids[GEN_SYSTEMS][GEN_SYSTEM_BLOCKS];
	struct gen_session sessions[GEN_SESSIONS];
};

static uint64_t gen_below(struct gen *g, uint64_t bound)
{
	g->rng += GOLDEN;
	return mix(g->rng) % bound;
}

static void gen_systems(struct gen *g)
{
	unsigned i, j;

	for (i = 0; i < GEN_SYSTEMS; i++) {
		g->system_tokens[i] =
			WFI_TRACE_BLOCK_TOKENS +
			gen_below(g, (GEN_SYSTEM_BLOCKS - 1) * WFI_TRACE_BLOCK_TOKENS);
		for (j = 0; j < GEN_SYSTEM_BLOCKS; j++)
			g->system_ids[i][j] = g->next_id++;
	}
}

static void gen_session_start(struct gen *g, struct gen_session *s)
{
	/* the lower of two draws: some system prompts are much used, some hardly */
	const unsigned a = (unsigned)gen_below(g, GEN_SYSTEMS);
	const unsigned b = (unsigned)gen_below(g, GEN_SYSTEMS);
	const unsigned system = a < b ? a : b;

	memcpy(s->ids, g->system_ids[system], sizeof(g->system_ids[system]));
	s->tokens = g->system_tokens[system];
	s->fixed = s->tokens;
	s->turns_left = 1 + (unsigned)gen_below(g, 8);
}

/* one turn of a session, as a line. Return: 0, -EIO */
static int gen_turn(struct gen *g, struct gen_session *s, FILE *out)
{
	const uint64_t question = 20 + gen_below(g, gen_below(g, 4) ? 300 : 6000);
	const uint64_t answer = 16 + gen_below(g, 500);
	uint64_t input, nr_ids, i;

	if ((s->tokens + question + answer) / WFI_TRACE_BLOCK_TOKENS >= GEN_BLOCKS_MAX)
		s->turns_left = 0;
	if (!s->turns_left)
		gen_session_start(g, s);
	input = s->tokens + question;
	nr_ids = (input + WFI_TRACE_BLOCK_TOKENS - 1) / WFI_TRACE_BLOCK_TOKENS;
	for (i = s->fixed / WFI_TRACE_BLOCK_TOKENS; i < nr_ids; i++)
		s->ids[i] = g->next_id++;
	fprintf(out,
		"{\"timestamp\": %" PRIu64 ", \"input_length\": %" PRIu64
		", \"output_length\": %" PRIu64 ", \"hash_ids\": [",
		g->now_ms, input, answer);
	for (i = 0; i < nr_ids; i++)
		fprintf(out, "%s%" PRIu64, i ? ", " : "", s->ids[i]);
	fputs("]}\n", out);
	s->fixed = input;
	s->tokens = input + answer;
	s->turns_left--;
	return ferror(out) ? -EIO : 0;
}

int wfi_trace_generate(const struct wfi_trace_gen *opts, FILE *out)
{
	struct gen *g = calloc(1, sizeof(*g));
	uint64_t i;
	int ret = 0;

	if (!g)
		return -ENOMEM;
	g->rng = mix(opts->seed + GOLDEN);
	gen_systems(g);
	for (i = 0; i < opts->nr_requests && !ret; i++) {
		ret = gen_turn(g, &g->sessions[gen_below(g, GEN_SESSIONS)], out);
		g->now_ms += gen_below(g, 2 * opts->mean_gap_ms + 1);
	}
	free(g);
	if (!ret && fflush(out))
		ret = -EIO;
	return ret;
}
