/* SPDX-License-Identifier: Apache-2.0 */
/* bench_ring.c - what it costs to ask the node anything: round trips, batches, waking, idleness */
#include <errno.h>
#include <string.h>
#include <time.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "perf/rig.h"

#define BATCH WFI_PEER_URING_BATCH
#define TRIPS 50000u
#define WAKES 10u
/*
 * at least 100 ms; a sleeping node looks around each 100 ms of its own accord, and must not be
 * met awake
 */
#define IDLE_NS (130 * WFI_NSEC_PER_MSEC)

struct ring_bench {
	struct wfi_perf_rig rig;
	struct wfi_peer_trips trips;
	struct wfi_peer_trips wakes;
	struct wfi_peer_uring *uring;
	const char *uring_skipped;
};

static int nop_rtt(void *ctx, double *ns)
{
	const struct ring_bench *b = ctx;
	struct weft_op op = { .op = WEFT_OP_NOP };
	uint64_t start_ns;
	uint32_t i;
	int ret;

	ret = wfi_perf_call(b->rig.ring, &op); /* the node is awake */
	start_ns = wfi_perf_now_ns();
	for (i = 0; i < b->trips.nr && !ret; i++)
		ret = wfi_perf_call(b->rig.ring, &op);
	*ns = (double)(wfi_perf_now_ns() - start_ns) / b->trips.nr;
	return ret;
}

/* takes what is there, until no more than @most of *@nr_open are left */
static int take(struct weft_ring *ring, unsigned *nr_open, unsigned most)
{
	struct weft_completion done[BATCH];
	int ret;

	do {
		ret = weft_poll(ring, done, BATCH);
		if (ret < 0)
			return ret;
		*nr_open -= (unsigned)ret;
	} while (*nr_open > most);
	return 0;
}

/* the next batch is posted while the ones before are under way, as a busy engine does */
static int batches(struct weft_ring *ring, uint32_t nr)
{
	struct weft_op ops[BATCH];
	unsigned nr_open = 0;
	uint32_t i;
	int ret = 0;

	memset(ops, 0, sizeof(ops));
	for (i = 0; i < nr && !ret; i++) {
		ret = weft_submit(ring, ops, BATCH);
		if (ret != (int)BATCH)
			return ret < 0 ? ret : -EIO;
		nr_open += BATCH;
		ret = take(ring, &nr_open, (WFI_PEER_URING_OPEN - 1) * BATCH);
	}
	return ret ? ret : take(ring, &nr_open, 0);
}

static int nop_batch(void *ctx, double *rate)
{
	const struct ring_bench *b = ctx;
	uint64_t start_ns;
	int ret;

	ret = batches(b->rig.ring, 1); /* the node is awake */
	start_ns = wfi_perf_now_ns();
	if (!ret)
		ret = batches(b->rig.ring, b->trips.nr);
	*rate = BATCH * 1e3 * b->trips.nr / (double)(wfi_perf_now_ns() - start_ns);
	return ret;
}

static int wake(void *ctx, double *us)
{
	const struct ring_bench *b = ctx;
	struct weft_op op = { .op = WEFT_OP_NOP };
	uint64_t sum_ns = 0, start_ns;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < b->wakes.nr && !ret; i++) {
		wfi_perf_sleep_ns(b->wakes.idle_ns);
		start_ns = wfi_perf_now_ns();
		ret = weft_call(b->rig.ring, &op, NULL);
		sum_ns += wfi_perf_now_ns() - start_ns;
	}
	*us = (double)sum_ns / 1e3 / b->wakes.nr;
	return ret;
}

static int peer_wake(void *ctx, double *us)
{
	int ret = wfi_peer_futex_round(ctx, us);

	*us /= 1e3;
	return ret;
}

static uint64_t cpu_time_ns(clockid_t clock)
{
	struct timespec ts = { 0 };

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * WFI_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* share of a core that both processes use while neither has anything to do */
static int idle_cpu(const struct wfi_perf *p, struct ring_bench *b)
{
	static const struct wfi_perf_case c = { "ring", "idle_cpu", "%", false };
	const uint64_t wait_ns = (p->quick ? 1 : 5) * WFI_NSEC_PER_SEC;
	struct weft_completion done;
	uint64_t start_ns, used_ns;
	clockid_t node_clock;
	int ret;

	ret = clock_getcpuclockid(b->rig.pid, &node_clock);
	if (ret)
		return wfi_perf_fail(-ret, "no CPU clock of the node: %s", strerror(ret));
	wfi_perf_sleep_ns(WFI_NSEC_PER_MSEC);
	used_ns = cpu_time_ns(node_clock) + cpu_time_ns(CLOCK_PROCESS_CPUTIME_ID);
	start_ns = wfi_perf_now_ns();
	ret = weft_wait(b->rig.ring, &done, 1, wait_ns / WFI_NSEC_PER_USEC);
	used_ns = cpu_time_ns(node_clock) + cpu_time_ns(CLOCK_PROCESS_CPUTIME_ID) - used_ns;
	if (ret)
		return wfi_perf_fail(ret, "an idle engine waits: %s", weft_why());
	wfi_perf_fact(p, &c, 1e2 * (double)used_ns / (double)(wfi_perf_now_ns() - start_ns));
	return 0;
}

static int run_cases(const struct wfi_perf *p, struct ring_bench *b)
{
	const struct wfi_perf_case rtt = { "ring", "nop_rtt", "ns", false };
	const struct wfi_perf_side rtt_sides[] = {
		{ NULL, nop_rtt, b, NULL },
		{ "cacheline_pingpong", wfi_peer_line_round, &b->trips, NULL },
		{ "rte_ring", wfi_peer_rte_ring_round, &b->trips, wfi_peer_rte_ring_skipped() },
		{ "io_uring_nop", wfi_peer_uring_nop_round, b->uring, b->uring_skipped },
	};
	const struct wfi_perf_case rate = { "ring", "nop_batch32", "M/s", true };
	const struct wfi_perf_side rate_sides[] = {
		{ NULL, nop_batch, b, NULL },
		{ "io_uring_nop_batch32", wfi_peer_uring_batch_round, b->uring, b->uring_skipped },
	};
	const struct wfi_perf_case wakes = { "ring", "wake", "us", false };
	const struct wfi_perf_side wake_sides[] = {
		{ NULL, wake, b, NULL },
		{ "futex_wake", peer_wake, &b->wakes, NULL },
	};
	int ret;

	ret = wfi_perf_compare(p, &rtt, rtt_sides, 4);
	if (!ret)
		ret = wfi_perf_compare(p, &rate, rate_sides, 2);
	if (!ret)
		ret = wfi_perf_compare(p, &wakes, wake_sides, 2);
	return ret ? ret : idle_cpu(p, b);
}

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	struct ring_bench b = {
		.trips = { p->quick ? TRIPS / 10 : TRIPS, 0 },
		.wakes = { p->quick ? 1 : WAKES, IDLE_NS },
	};
	int ret;

	(void)nr_args;
	(void)args;
	ret = wfi_perf_rig_open(&b.rig, 64ull << 20, WFI_MAP_HUGE);
	if (ret)
		return ret;
	ret = wfi_peer_uring_create(&b.trips, &b.uring);
	if (ret)
		b.uring_skipped = ret == -EOPNOTSUPP ? "built without liburing"
						     : "the system has no io_uring for us";
	ret = run_cases(p, &b);
	wfi_peer_uring_destroy(b.uring);
	wfi_perf_rig_close(&b.rig);
	return ret;
}

const struct wfi_perf_bench wfi_perf_ring = {
	.name = "ring",
	.summary = "asking the node anything: round trips, batches, waking up, idleness",
	.run = run,
};
