/* SPDX-License-Identifier: Apache-2.0 */
/* what a replay has measured, as a table or as JSON */
#include <inttypes.h>
#include <stdio.h>
#include "cli/replay.h"
#include "weft_internal/env.h"

double wfi_replay_hit_rate(const struct wfi_replay_totals *t)
{
	return t->blocks ? (double)t->hits / (double)t->blocks : 0;
}

double wfi_replay_gb_per_s(const struct wfi_replay_totals *t)
{
	return t->move_ns ? (double)(t->bytes_got + t->bytes_put) / (double)t->move_ns : 0;
}

static void show_hist(const char *name, const struct wfi_hist *h)
{
	char p50[WFI_TEXT], p99[WFI_TEXT], p999[WFI_TEXT];

	if (!h->nr) {
		printf("%-22s -\n", name);
		return;
	}
	printf("%-22s %s / %s / %s\n", name, wfi_text_ns(wfi_hist_quantile(h, 0.50), p50),
	       wfi_text_ns(wfi_hist_quantile(h, 0.99), p99),
	       wfi_text_ns(wfi_hist_quantile(h, 0.999), p999));
}

static void show_bytes(const char *name, uint64_t bytes)
{
	char text[WFI_TEXT];

	printf("%-22s %s\n", name, wfi_text_bytes((double)bytes, text));
}

static void show_count(const char *name, uint64_t count)
{
	printf("%-22s %" PRIu64 "\n", name, count);
}

int wfi_replay_show(const struct wfi_replay_totals *t)
{
	show_count("requests", t->requests);
	show_count("blocks", t->blocks);
	printf("%-22s %.2f%%\n", "prefix-hit rate", 100 * wfi_replay_hit_rate(t));
	show_count("blocks from below", t->hits_below);
	printf("%-22s %" PRIu64 " of %" PRIu64 "\n", "prefill tokens saved", t->tokens_saved,
	       t->tokens);
	show_bytes("bytes got", t->bytes_got);
	show_bytes("bytes put", t->bytes_put);
	printf("%-22s %.2f (in get and put)\n", "GB/s", wfi_replay_gb_per_s(t));
	printf("%-22s %.2fs\n", "time", (double)t->wall_ns / (double)WFI_NSEC_PER_SEC);
	show_hist("match p50/p99/p99.9", &t->match);
	show_hist("get p50/p99/p99.9", &t->get);
	show_hist("put p50/p99/p99.9", &t->put);
	show_count("evicted before get", t->vanished);
	show_count("blocks without room", t->refused);
	show_count("wrong bytes", t->wrong_bytes);
	show_count("broken lines", t->broken_lines);
	return fflush(stdout) ? WFI_EXIT_FAILED : WFI_EXIT_OK;
}

static json_t *hist_json(const struct wfi_hist *h)
{
	return json_pack("{s:I,s:I,s:I,s:I}", "calls", (json_int_t)h->nr, "p50_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.50), "p99_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.99), "p999_ns",
			 (json_int_t)wfi_hist_quantile(h, 0.999));
}

int wfi_replay_show_json(const struct wfi_replay_totals *t)
{
	json_t *root;

	root = json_pack("{s:I,s:I,s:I,s:f,s:I,s:I,s:I,s:I,s:f,s:f}", "requests",
			 (json_int_t)t->requests, "blocks", (json_int_t)t->blocks, "hits",
			 (json_int_t)t->hits, "hit_rate", wfi_replay_hit_rate(t), "tokens",
			 (json_int_t)t->tokens, "tokens_saved", (json_int_t)t->tokens_saved,
			 "bytes_got", (json_int_t)t->bytes_got, "bytes_put",
			 (json_int_t)t->bytes_put, "gb_per_s", wfi_replay_gb_per_s(t), "seconds",
			 (double)t->wall_ns / (double)WFI_NSEC_PER_SEC);
	json_object_set_new(root, "match", hist_json(&t->match));
	json_object_set_new(root, "get", hist_json(&t->get));
	json_object_set_new(root, "put", hist_json(&t->put));
	json_object_set_new(root, "hits_below", json_integer((json_int_t)t->hits_below));
	json_object_set_new(root, "vanished", json_integer((json_int_t)t->vanished));
	json_object_set_new(root, "refused", json_integer((json_int_t)t->refused));
	json_object_set_new(root, "wrong_bytes", json_integer((json_int_t)t->wrong_bytes));
	json_object_set_new(root, "broken_lines", json_integer((json_int_t)t->broken_lines));
	return wfi_cli_print_json(root, 0);
}
