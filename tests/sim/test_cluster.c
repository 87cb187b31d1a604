/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cluster.c - many small clusters, each from a seed
 *
 * WEFT_SIM_SEEDS=N runs N seeds, however long it takes, from WEFT_SIM_FROM (1) on; WEFT_SIM_SEED=S
 * runs that one alone, with the nodes' log on stderr. With "members" as argument nodes find each
 * other by a store of members that has mishaps of its own.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "tests/sim/sim.h"
#include "weft_internal/log.h"

#define STEPS 6000u
#define SEEDS 1000u
#define BUDGET_S 20 /* of seeds that nobody asked for */
#define BUDGET_MEMBERS_S 12
#define STEPS_MEMBERS 2000u
#define LEAST_MEMBERS 40u /* of these seeds, however long they take: in fewer not all happens */
#define REPEATED 10u /* each such seed runs twice */

static bool with_members;

static void hush(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)line;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void add(struct sim_report *sum, const struct sim_report *r)
{
	unsigned i;

	for (i = 0; i < WEFT_OP_NR; i++) {
		sum->completions[i] += r->completions[i];
		sum->good[i] += r->good[i];
	}
	sum->blocks_checked += r->blocks_checked;
	sum->messages += r->messages;
	sum->messages_remote += r->messages_remote;
	sum->handoffs_local += r->handoffs_local;
	sum->handoffs_remote += r->handoffs_remote;
	sum->handoffs_placed += r->handoffs_placed;
	sum->hangups += r->hangups;
	sum->refits += r->refits;
	sum->lost_links += r->lost_links;
	sum->crashes += r->crashes;
	sum->drains += r->drains;
	sum->drained += r->drained;
	sum->railed_bytes += r->railed_bytes;
	sum->fetched += r->fetched;
	sum->missed += r->missed;
	sum->shared += r->shared;
	sum->kept += r->kept;
	sum->hedged += r->hedged;
	sum->resyncs += r->resyncs;
	sum->matched_afar += r->matched_afar;
	sum->matched_below += r->matched_below;
	sum->matched_below_afar += r->matched_below_afar;
	sum->recovered += r->recovered;
	sum->raised += r->raised;
	sum->routed_afar += r->routed_afar;
	sum->twins += r->twins;
	sum->fenced += r->fenced;
	sum->unlinked += r->unlinked;
	sum->store_mishaps += r->store_mishaps;
	sum->faults.delayed += r->faults.delayed;
	sum->faults.eagain += r->faults.eagain;
	sum->faults.op += r->faults.op;
	sum->faults.ep += r->faults.ep;
	sum->faults.device += r->faults.device;
	sum->faults.dropped += r->faults.dropped;
	sum->faults.stopped += r->faults.stopped;
	sum->faults.late += r->faults.late;
	sum->faults.late_at_end += r->faults.late_at_end;
	sum->faults.late_lost += r->faults.late_lost;
	sum->faults.duplicated += r->faults.duplicated;
	sum->faults.truncated += r->faults.truncated;
	sum->faults.corrupted += r->faults.corrupted;
}

/* a breach is printed by whoever found it; a crash has its seed on the line before */
static void run_seed(uint64_t seed, struct sim_report *out)
{
	const struct sim_opts opts = { .seed = seed,
				       .steps = with_members ? STEPS_MEMBERS : STEPS,
				       .members = with_members };

	fprintf(stderr, "sim: seed %" PRIu64 "\n", seed);
	if (!sim_run(&opts, out))
		fail_msg("WEFT_SIM_SEED=%" PRIu64 " shows it again", seed);
}

static void print_sum(uint64_t seeds, const struct sim_report *sum)
{
	unsigned i;

	printf("%" PRIu64 " seeds; completions (good ones) by operation:", seeds);
	for (i = 0; i < WEFT_OP_NR; i++)
		printf(" %" PRIu64 "(%" PRIu64 ")", sum->completions[i], sum->good[i]);
	printf("\n%" PRIu64 " blocks checked, %" PRIu64 " pushes by reference, %" PRIu64
	       " to other nodes, %" PRIu64 " engines, %" PRIu64 " links and %" PRIu64
	       " nodes lost; of %" PRIu64 " that drained %" PRIu64 " have left\n",
	       sum->blocks_checked, sum->handoffs_local, sum->handoffs_remote, sum->hangups,
	       sum->lost_links, sum->crashes, sum->drains, sum->drained);
	printf("%" PRIu64 " messages, %" PRIu64 " sent to other nodes\n", sum->messages,
	       sum->messages_remote);
	printf("%" PRIu64 " KiB came over one of several rails\n", sum->railed_bytes >> 10);
	printf("%" PRIu64 " blocks of other nodes came, %" PRIu64 " did not, %" PRIu64
	       " were shared, %" PRIu64 " kept; %" PRIu64 " hedges, %" PRIu64 " resyncs, %" PRIu64
	       " matches went on elsewhere, %" PRIu64 " routes led there\n",
	       sum->fetched, sum->missed, sum->shared, sum->kept, sum->hedged, sum->resyncs,
	       sum->matched_afar, sum->routed_afar);
	printf("matches found %" PRIu64 " blocks in their node's SSD tier, %" PRIu64
	       " in those of others, which lent %" PRIu64 "; %" PRIu64
	       " were there for another life\n",
	       sum->matched_below, sum->matched_below_afar, sum->raised, sum->recovered);
	if (with_members)
		printf("%" PRIu64 " lives began under others' names, %" PRIu64
		       " looks found names lost to others; %" PRIu64
		       " mishaps of the store, %" PRIu64 " links ended for what it said\n",
		       sum->twins, sum->fenced, sum->store_mishaps, sum->unlinked);
}

/* a simulation in which nothing happens finds nothing */
static void assert_lively(const struct sim_report *sum)
{
	unsigned i;

	for (i = 0; i < WEFT_OP_NR; i++)
		assert_true(sum->completions[i]);
	for (i = WEFT_OP_CLAIM; i < WEFT_OP_HANDOFF_CANCEL; i++)
		assert_true(sum->good[i]);
	for (i = WEFT_OP_CHANNEL_SEND; i < WEFT_OP_CHANNEL_CLOSE; i++)
		assert_true(sum->good[i]);
	assert_true(sum->messages && sum->messages_remote);
	assert_true(sum->blocks_checked && sum->handoffs_local && sum->handoffs_remote);
	assert_true(sum->handoffs_placed);
	assert_true(sum->hangups && sum->refits && sum->lost_links && sum->crashes && sum->drains &&
		    sum->drained && sum->railed_bytes);
	assert_true(sum->fetched && sum->missed && sum->shared && sum->kept && sum->hedged &&
		    sum->resyncs && sum->matched_afar && sum->routed_afar);
	assert_true(sum->matched_below && sum->matched_below_afar && sum->raised && sum->recovered);
	assert_true(sum->faults.delayed && sum->faults.eagain && sum->faults.op && sum->faults.ep);
	assert_true(sum->faults.device && sum->faults.dropped && sum->faults.stopped);
	assert_true(sum->faults.late && sum->faults.late_at_end && sum->faults.late_lost);
	assert_true(sum->faults.duplicated && sum->faults.truncated && sum->faults.corrupted);
}

static void test_seeds(void **state)
{
	const uint64_t asked = env_number("WEFT_SIM_SEEDS", 0), nr = asked ? asked : SEEDS;
	const uint64_t first = env_number("WEFT_SIM_FROM", 1);
	const uint64_t least = asked ? asked : with_members ? LEAST_MEMBERS : 0;
	const time_t end = time(NULL) + (with_members ? BUDGET_MEMBERS_S : BUDGET_S);
	struct sim_report sum = { 0 }, r;
	uint64_t seed;

	(void)state;
	if (getenv("WEFT_SIM_SEED")) {
		run_seed(env_number("WEFT_SIM_SEED", 0), &r);
		print_sum(1, &r);
		return;
	}
	for (seed = first; seed - first < least || (seed - first < nr && time(NULL) < end);
	     seed++) {
		run_seed(seed, &r);
		add(&sum, &r);
	}
	print_sum(seed - first, &sum);
	if (with_members && seed - first >= LEAST_MEMBERS)
		assert_true(sum.twins && sum.fenced && sum.unlinked && sum.store_mishaps &&
			    sum.fetched && sum.drained && sum.crashes);
	/* on a slow or busy machine the budget is over sooner */
	if (!with_members && seed - first >= 200)
		assert_lively(&sum);
}

static void test_same_seed_same_trace(void **state)
{
	struct sim_report first, second;
	uint64_t seed;

	(void)state;
	if (getenv("WEFT_SIM_SEED"))
		skip();
	for (seed = 1; seed <= REPEATED; seed++) {
		run_seed(seed, &first);
		run_seed(seed, &second);
		assert_int_equal(first.trace, second.trace);
	}
	run_seed(seed, &second);
	assert_int_not_equal(first.trace, second.trace);
}

/* Return: node_create()'s, with the @nth allocation from then on failing */
static int create_with_failure(uint32_t nth)
{
	const struct weft_transport *transports[] = { wfi_transport_find(NULL, "loop"), NULL };
	const struct wfi_sim_faults faults = { .alloc_fail_nth = nth };
	const struct wfi_tenant_opts tenant = { .name = "t", .token = "", .arena_bytes = 65536 };
	struct node_opts opts = { .name = "node", .tenants = &tenant, .nr_tenants = 1 };
	struct wfi_sim *world;
	struct node *node;
	int ret;

	assert_int_equal(wfi_sim_create(1, &world), 0);
	wfi_sim_set_faults(world, &faults);
	opts.env = wfi_sim_node(world, 0);
	opts.env->transports = transports;
	ret = node_create(&opts, &node);
	if (!ret)
		node_destroy(node);
	wfi_sim_destroy(world);
	return ret;
}

/* whatever is missing, a node that can't be made leaves nothing behind (the leak checker looks) */
static void test_create_out_of_memory(void **state)
{
	uint32_t nth = 0;
	int ret;

	(void)state;
	if (getenv("WEFT_SIM_SEED"))
		skip();
	do {
		ret = create_with_failure(++nth);
		assert_true(!ret || ret == -ENOMEM);
	} while (ret);
	assert_true(nth > 10);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_create_out_of_memory),
	};

	with_members = argc > 1 && !strcmp(argv[1], "members");
	wfi_log_init(WFI_LOG_INFO, "sim");
	if (!getenv("WEFT_SIM_SEED"))
		wfi_log_set_sink(hush, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
