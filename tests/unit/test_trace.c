/* SPDX-License-Identifier: Apache-2.0 */
/* traces of requests: reading with broken lines, generating, bytes of blocks */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "cli/trace.h"
#include "weft_internal/log.h"

struct fixture {
	char path[64];
	char last_line[512];
	unsigned nr_logged;
};

static void keep_line(void *ctx, enum wfi_log_level level, const char *line)
{
	struct fixture *f = ctx;

	(void)level;
	f->nr_logged++;
	snprintf(f->last_line, sizeof(f->last_line), "%s", line);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	if (!f)
		return -1;
	strcpy(f->path, "/tmp/weft-trace-XXXXXX");
	fd = mkstemp(f->path);
	if (fd < 0)
		return -1;
	close(fd);
	wfi_log_set_sink(keep_line, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	wfi_log_set_sink(NULL, NULL);
	unlink(f->path);
	free(f);
	return 0;
}

static struct wfi_trace *open_text(struct fixture *f, const char *text, size_t len)
{
	FILE *out = fopen(f->path, "w");
	struct wfi_trace *t;

	assert_non_null(out);
	assert_int_equal(fwrite(text, 1, len, out), len);
	fclose(out);
	assert_int_equal(wfi_trace_open(f->path, &t), 0);
	return t;
}

#define GOOD(id)                                                                                   \
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [" id "]}\n"

static void test_good_lines(void **state)
{
	static const char text[] =
		"{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52,"
		" \"hash_ids\": [46, 47, 9223372036854775807]}\n\n  \r\n" GOOD("") GOOD("5");
	struct wfi_trace_request r;
	struct wfi_trace *t = open_text(*state, text, sizeof(text) - 2);

	assert_int_equal(wfi_trace_next(t, &r), 1);
	assert_int_equal(r.timestamp_ms, 27482);
	assert_int_equal(r.input_length, 6955);
	assert_int_equal(r.output_length, 52);
	assert_int_equal(r.nr_ids, 3);
	assert_int_equal(r.hash_ids[2], INT64_MAX);
	assert_int_equal(wfi_trace_next(t, &r), 1);
	assert_int_equal(r.nr_ids, 0);
	assert_int_equal(wfi_trace_line(t), 4);
	/* the last line has no end */
	assert_int_equal(wfi_trace_next(t, &r), 1);
	assert_int_equal(r.hash_ids[0], 5);
	assert_int_equal(wfi_trace_next(t, &r), 0);
	assert_int_equal(wfi_trace_next(t, &r), 0);
	assert_int_equal(wfi_trace_broken(t), 0);
	wfi_trace_close(t);
}

static const char *const broken[] = {
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [1",
	"nonsense",
	"[1, 2]",
	"{}",
	"17",
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [-1]}",
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [1.5]}",
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [\"1\"]}",
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": {}}",
	"{\"timestamp\": -1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [1]}",
	"{\"timestamp\": 1, \"input_length\": \"2\", \"output_length\": 3, \"hash_ids\": [1]}",
	"{\"timestamp\": 1, \"timestamp\": 1, \"input_length\": 2, \"output_length\": 3,"
	" \"hash_ids\": [1]}",
	"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3,"
	" \"hash_ids\": [99999999999999999999]}",
	"\xff\xfe\x80",
};

static void test_csv(void **state)
{
	static const char text[] = "timestamp,input_length,output_length,hash_ids\n"
				   "27482,6955,52,46 47 9223372036854775807\r\n"
				   "27483,10,1,\n"
				   "27483,10,1\n"
				   "27483,x,1,5\n"
				   "27483,10,1,5 -6\n"
				   "27483,10,99999999999999999999999,5\n"
				   "1,2,3,5  6";
	struct fixture *f = *state;
	struct wfi_trace *t = open_text(f, text, sizeof(text) - 1);
	struct wfi_trace_request req;

	assert_int_equal(wfi_trace_next(t, &req), 1);
	assert_int_equal(req.timestamp_ms, 27482);
	assert_int_equal(req.input_length, 6955);
	assert_int_equal(req.output_length, 52);
	assert_int_equal(req.nr_ids, 3);
	assert_int_equal(req.hash_ids[1], 47);
	assert_int_equal(req.hash_ids[2], INT64_MAX);
	assert_int_equal(wfi_trace_next(t, &req), 1);
	assert_int_equal(req.nr_ids, 0);
	assert_int_equal(wfi_trace_next(t, &req), 1);
	assert_int_equal(req.nr_ids, 2);
	assert_int_equal(req.hash_ids[1], 6);
	assert_int_equal(wfi_trace_next(t, &req), 0);
	assert_int_equal(wfi_trace_broken(t), 4);
	wfi_trace_close(t);
}

static void test_broken_lines(void **state)
{
	struct fixture *f = *state;
	struct wfi_trace_request r;
	struct wfi_trace *t;
	char text[512], where[96];
	size_t i;

	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		snprintf(text, sizeof(text), GOOD("1") "%s\n" GOOD("2"), broken[i]);
		t = open_text(f, text, strlen(text));
		f->nr_logged = 0;
		assert_int_equal(wfi_trace_next(t, &r), 1);
		assert_int_equal(wfi_trace_next(t, &r), 1);
		assert_int_equal(r.hash_ids[0], 2);
		assert_int_equal(wfi_trace_next(t, &r), 0);
		assert_int_equal(wfi_trace_broken(t), 1);
		assert_int_equal(f->nr_logged, 1);
		snprintf(where, sizeof(where), "%s:2: ", f->path);
		assert_non_null(strstr(f->last_line, where));
		wfi_trace_close(t);
	}
}

static void test_zero_bytes(void **state)
{
	static const char text[] = "a\0b\n" GOOD("3");
	struct wfi_trace *t = open_text(*state, text, sizeof(text) - 1);
	struct wfi_trace_request r;

	assert_int_equal(wfi_trace_next(t, &r), 1);
	assert_int_equal(r.hash_ids[0], 3);
	assert_int_equal(wfi_trace_broken(t), 1);
	wfi_trace_close(t);
}

static void test_many_broken_lines(void **state)
{
	struct fixture *f = *state;
	struct wfi_trace_request r;
	struct wfi_trace *t;
	FILE *out = fopen(f->path, "w");
	unsigned i;

	assert_non_null(out);
	for (i = 0; i < 10000; i++)
		fputs("{\n", out);
	fclose(out);
	assert_int_equal(wfi_trace_open(f->path, &t), 0);
	assert_int_equal(wfi_trace_next(t, &r), 0);
	assert_int_equal(wfi_trace_broken(t), 10000);
	assert_true(f->nr_logged < 1000);
	wfi_trace_close(t);
}

static void test_long_line(void **state)
{
	const size_t len = WFI_TRACE_LINE_MAX + 4096;
	static const char tail[] = "\n" GOOD("7");
	char *text = malloc(len + sizeof(tail));
	struct wfi_trace_request r;
	struct wfi_trace *t;

	assert_non_null(text);
	memset(text, '[', len);
	memcpy(text + len, tail, sizeof(tail));
	t = open_text(*state, text, len + sizeof(tail) - 1);
	free(text);
	assert_int_equal(wfi_trace_next(t, &r), 1);
	assert_int_equal(r.hash_ids[0], 7);
	assert_int_equal(wfi_trace_broken(t), 1);
	wfi_trace_close(t);
}

static void test_no_such_file(void **state)
{
	struct wfi_trace *t;

	(void)state;
	assert_int_equal(wfi_trace_open("/nonexistent/trace", &t), -ENOENT);
}

static char *generate(uint64_t seed, size_t *len)
{
	const struct wfi_trace_gen gen = { .seed = seed, .nr_requests = 2000, .mean_gap_ms = 20 };
	char *text = NULL;
	FILE *out = open_memstream(&text, len);

	assert_non_null(out);
	assert_int_equal(wfi_trace_generate(&gen, out), 0);
	fclose(out);
	return text;
}

static void test_generate_is_deterministic(void **state)
{
	size_t la, lb, lc;
	char *a = generate(1, &la), *b = generate(1, &lb), *c = generate(2, &lc);

	(void)state;
	assert_int_equal(la, lb);
	assert_memory_equal(a, b, la);
	assert_true(la != lc || memcmp(a, c, la));
	free(a);
	free(b);
	free(c);
}

/* each id has one predecessor, a fair part of blocks repeats, lengths fit the ids */
static void test_generated_chains(void **state)
{
	enum { IDS = 1 << 20 };
	uint64_t *parent = malloc(IDS * sizeof(*parent));
	uint64_t last_ms = 0, hits = 0, blocks = 0, want;
	struct wfi_trace_request r;
	struct wfi_trace *t;
	unsigned nr = 0;
	uint32_t i;
	size_t len;
	char *text = generate(3, &len);

	t = open_text(*state, text, len);
	free(text);
	assert_non_null(parent);
	memset(parent, 0xff, IDS * sizeof(*parent));
	for (; wfi_trace_next(t, &r) == 1; nr++) {
		assert_true(r.timestamp_ms >= last_ms);
		last_ms = r.timestamp_ms;
		assert_int_equal(r.nr_ids, (r.input_length + 511) / 512);
		for (i = 0; i < r.nr_ids; i++) {
			assert_true(r.hash_ids[i] < IDS);
			want = i ? r.hash_ids[i - 1] : IDS;
			if (parent[r.hash_ids[i]] == UINT64_MAX)
				parent[r.hash_ids[i]] = want;
			else
				hits++;
			assert_int_equal(parent[r.hash_ids[i]], want);
		}
		blocks += r.nr_ids;
	}
	assert_int_equal(nr, 2000);
	assert_int_equal(wfi_trace_broken(t), 0);
	assert_true(hits * 100 > blocks * 30 && hits * 100 < blocks * 95);
	free(parent);
	wfi_trace_close(t);
}

static void test_bytes(void **state)
{
	uint8_t a[1001], b[1001];

	(void)state;
	wfi_trace_fill(1, a, sizeof(a));
	wfi_trace_fill(2, b, sizeof(b));
	assert_int_equal(wfi_trace_check(1, a, sizeof(a)), 0);
	assert_true(wfi_trace_check(1, b, sizeof(b)) > 900);
	a[0] ^= 1;
	a[500] ^= 0x80;
	a[1000] ^= 0x10;
	assert_int_equal(wfi_trace_check(1, a, sizeof(a)), 3);
	assert_int_equal(wfi_trace_check(1, a, 1000), 2);
	assert_int_equal(wfi_trace_check(1, a, 0), 0);
}

/* the trace that was released, where this machine has it */
static void test_conversation_trace(void **state)
{
	const char *dir = getenv("WEFT_TRACES");
	struct wfi_trace_request r;
	uint64_t blocks = 0, nr = 0;
	struct wfi_trace *t;
	char path[1024];

	(void)state;
	if (dir)
		snprintf(path, sizeof(path), "%s/conversation_trace.jsonl", dir);
	else
		snprintf(path, sizeof(path), "%.*s/../../../shared/traces/conversation_trace.jsonl",
			 (int)(strrchr(__FILE__, '/') - __FILE__), __FILE__);
	if (wfi_trace_open(path, &t)) {
		print_message("no %s: set WEFT_TRACES\n", path);
		skip();
	}
	for (; wfi_trace_next(t, &r) == 1; nr++)
		blocks += r.nr_ids;
	assert_int_equal(nr, 12031);
	assert_int_equal(blocks, 288500);
	assert_int_equal(wfi_trace_broken(t), 0);
	wfi_trace_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_csv, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zero_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_broken_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_line, setup, teardown),
		cmocka_unit_test(test_no_such_file),
		cmocka_unit_test(test_generate_is_deterministic),
		cmocka_unit_test_setup_teardown(test_generated_chains, setup, teardown),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test_setup_teardown(test_conversation_trace, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
