/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "daemon/value.h"
#include "perf/perf.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define ROUNDS 7
#define ROUNDS_QUICK 3

static const struct wfi_perf_bench *const benches[] = {
	&wfi_perf_ring,	     &wfi_perf_copy,   &wfi_perf_get,	&wfi_perf_match,
	&wfi_perf_put,	     &wfi_perf_index,  &wfi_perf_tier,	&wfi_perf_handoff,
	&wfi_perf_directory, &wfi_perf_remote, &wfi_perf_evict, &wfi_perf_trace,
	&wfi_perf_verbs,     &wfi_perf_ucx,    &wfi_perf_gpu,	&wfi_perf_compare_systems,
};

static void overview(FILE *out)
{
	size_t i;

	fputs("usage: weft-perf BENCH [--json] [--rounds N] [--quick]\n"
	      "       weft-perf trace [--json] [--capacity N,...] [--policy NAME,...]\n"
	      "                       [--plot PNG] FILE...\n"
	      "       weft-perf trace --live [--json] [--socket PATH] [--block-bytes SIZE]\n"
	      "                       [--speed X] FILE...\n"
	      "       weft-perf verbs [--json] [[serve] ADDR]\n"
	      "       weft-perf gpu [--json] [CASE]\n"
	      "       weft-perf compare [--json] [CASE] [NAME=COMMAND...]\n"
	      "\n"
	      "Measures Weft beside its peers, in turns, on CPUs 0 and 1; prints medians.\n"
	      "A ratio over 1 means that Weft is better.\n"
	      "\n"
	      "benches:\n",
	      out);
	for (i = 0; i < WFI_ARRAY_SIZE(benches); i++)
		fprintf(out, "  %-8s %s\n", benches[i]->name, benches[i]->summary);
	fprintf(out,
		"  all      each of these but those that take arguments, one after the other\n"
		"\n"
		"  --json      one object a line\n"
		"  --rounds N  rounds of each side (default %u)\n"
		"  --quick     less of everything: shows that it runs; no figures to quote\n"
		"  -h, --help  this text\n"
		"\n"
		"of trace, which takes Mooncake's JSONL, or CSV lines\n"
		"timestamp_ms,input_tokens,output_tokens,ids with spaces between:\n"
		"  --capacity N,...   blocks (default 1000,5000,10000,20000,30000)\n"
		"  --policy NAME,...  the first is compared with the rest (default: all)\n"
		"  --plot FILE.png    hit shares by capacity; wants gnuplot\n"
		"  --live             ask a running node, with real bytes, all checked; beside\n"
		"                     what its policy finds in the simulation\n"
		"  --socket PATH      of that node (default: as for weft)\n"
		"  --block-bytes SIZE bytes of a block there (default 64K)\n"
		"  --speed X          times the trace's; 0: as fast as it goes (default)\n"
		"\n"
		"examples:\n"
		"  weft-perf ring\n"
		"  weft-perf copy --json | jq -r '[.case, .peer, .ratio] | @tsv'\n"
		"  weft-perf all --json --rounds 11 > figures.jsonl\n"
		"  weft-perf trace conversation.jsonl\n"
		"  weft-perf trace --capacity 2000,8000 --plot hits.png a.csv\n"
		"  weft-perf trace --live --block-bytes 1M conversation.jsonl\n",
		ROUNDS);
}

static int usage(const char *text, const char *what)
{
	fprintf(stderr, "weft-perf: %s%s; try weft-perf --help\n", text, what);
	return 2;
}

/* Return: -1 go on, else the exit status */
static int parse_number(int opt, const char *text, struct wfi_perf *p)
{
	unsigned long rounds;
	char *end;

	switch (opt) {
	case 'b':
		if (wfi_value_size(text, &p->block_bytes) || p->block_bytes < 64 ||
		    p->block_bytes > 1ull << 30)
			return usage("--block-bytes takes 64 to 1G, not ", text);
		break;
	case 'x':
		p->speed = strtod(text, &end);
		if (*end || !(p->speed >= 0) || p->speed > 1e9)
			return usage("--speed takes a factor, not ", text);
		break;
	default:
		rounds = strtoul(text, &end, 10);
		if (*end || !rounds || rounds > WFI_PERF_ROUNDS_MAX)
			return usage("--rounds takes 1 to 1000, not ", text);
		p->rounds = (unsigned)rounds;
	}
	return -1;
}

/* Return: the same */
static int parse_options(int argc, char **argv, struct wfi_perf *p)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "quick", no_argument, NULL, 'q' },
		{ "capacity", required_argument, NULL, 'c' },
		{ "policy", required_argument, NULL, 'p' },
		{ "plot", required_argument, NULL, 'o' },
		{ "live", no_argument, NULL, 'l' },
		{ "socket", required_argument, NULL, 's' },
		{ "block-bytes", required_argument, NULL, 'b' },
		{ "speed", required_argument, NULL, 'x' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt, ret;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (opt) {
		case 'j':
			p->json = true;
			break;
		case 'q':
			p->quick = true;
			break;
		case 'c':
			p->capacities = optarg;
			break;
		case 'p':
			p->policies = optarg;
			break;
		case 'o':
			p->plot = optarg;
			break;
		case 'l':
			p->live = true;
			break;
		case 's':
			p->socket = optarg;
			break;
		case 'b':
		case 'x':
		case 'r':
			ret = parse_number(opt, optarg, p);
			if (ret >= 0)
				return ret;
			break;
		case 'h':
			overview(stdout);
			return 0;
		default:
			return usage("wrong option", "");
		}
	}
	if (!p->rounds)
		p->rounds = p->quick ? ROUNDS_QUICK : ROUNDS;
	return -1;
}

static const struct wfi_perf_bench *find_bench(const char *name)
{
	size_t i;

	for (i = 0; i < WFI_ARRAY_SIZE(benches); i++)
		if (!strcmp(benches[i]->name, name))
			return benches[i];
	return NULL;
}

/* Return: an option that only trace takes, or NULL */
static const char *of_trace(const struct wfi_perf *p)
{
	return p->capacities	? "--capacity"
	       : p->policies	? "--policy"
	       : p->plot	? "--plot"
	       : p->live	? "--live"
	       : p->socket	? "--socket"
	       : p->block_bytes ? "--block-bytes"
	       : p->speed > 0	? "--speed"
				: NULL;
}

static int run_all(const struct wfi_perf *p)
{
	size_t i;
	int failed = 0;

	for (i = 0; i < WFI_ARRAY_SIZE(benches); i++)
		if (!benches[i]->takes_files && benches[i]->run(p, 0, NULL) < 0)
			failed = 1;
	return failed;
}

/* What reads JSON reads nothing else: libraries that talk on standard output, as UCX does, keep the
 * stream that they began with. Return: 0, -errno */
static int rows_apart(void)
{
	const int fd = dup(STDOUT_FILENO);
	FILE *rows = fd < 0 ? NULL : fdopen(fd, "w");

	if (!rows || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return -errno;
	stdout = rows;
	return 0;
}

int main(int argc, char **argv)
{
	struct wfi_perf p = { 0 };
	const struct wfi_perf_bench *bench;
	int status;

	wfi_log_init(WFI_LOG_WARN, "weft-perf");
	status = parse_options(argc, argv, &p);
	if (status >= 0)
		return status;
	if (p.json && rows_apart()) {
		wfi_err("standard output: %s", strerror(errno));
		return 1;
	}
	if (optind == argc) {
		overview(stderr);
		return 2;
	}
	bench = find_bench(argv[optind]);
	if (!bench && strcmp(argv[optind], "all"))
		return usage("there is no bench ", argv[optind]);
	if (argc - optind > 1 && (!bench || !bench->takes_files))
		return usage("unexpected ", argv[optind + 1]);
	if (bench != &wfi_perf_trace && of_trace(&p))
		return usage(of_trace(&p), " is an option of trace alone");
	if (!p.live && (p.socket || p.block_bytes || p.speed > 0))
		return usage("--socket, --block-bytes and --speed want --live", "");
	if (!p.block_bytes)
		p.block_bytes = 64 << 10;
	if (wfi_perf_pin(WFI_PERF_ENGINE_CPU))
		return 1;
	if (!bench)
		return run_all(&p);
	status = bench->run(&p, argc - optind - 1, argv + optind + 1);
	return status == -EINVAL ? 2 : status < 0;
}
