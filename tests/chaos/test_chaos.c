/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_chaos.c - clusters side by side, each under one seeded schedule of faults after the other
 *
 *	test_chaos [--schedules N] [--seed S] [--nodes N] [--clusters N] [--seconds N]
 *	           [--tls | --plain]
 *
 * Schedules have the seeds S, S + 1, ...; a cluster goes on after each of them as it is. Clusters
 * have three and five nodes in turn, or as many as is said, and half of them speak TLS. After so
 * many seconds no schedule is begun any more. What fails is said with the command that runs this
 * schedule again, on a fresh cluster; logs are kept then.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/chaos/chaos.h"

#define OPS_A_LATE_ONE 100000u
#define SKIP 77
#define CLUSTERS_MAX 16u

/* shared by the processes of all clusters */
struct shared {
	atomic_uint_fast64_t next, done;
	atomic_bool failed;
	atomic_uint_fast64_t counts[CHAOS_NR_COUNTS];
	atomic_uint_fast64_t heal_sum_ms, heal_max_ms;
};

struct options {
	uint64_t schedules, seed, seconds;
	unsigned nodes, clusters;
	int tls; /* of all clusters; -1: of some */
};

static struct shared *shared;
static uint64_t begin_ns;

void chaos_log(struct chaos *c, const char *fmt, ...)
{
	char path[96];
	va_list ap;
	FILE *out;

	snprintf(path, sizeof(path), "%s/log", c->dir);
	out = fopen(path, "ae");
	if (!out)
		return;
	fprintf(out, "%8.3f ", (double)(chaos_now() - begin_ns) / WFI_NSEC_PER_SEC);
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	fputc('\n', out);
	fclose(out);
}

void chaos_breach(struct chaos *c, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&c->lock);
	if (!atomic_load(&c->failed)) {
		va_start(ap, fmt);
		vsnprintf(c->what, sizeof(c->what), fmt, ap);
		va_end(ap);
		atomic_store(&c->failed, true);
	}
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

/* ---- one cluster ---- */

static void one_schedule(struct chaos *c, uint64_t seed)
{
	uint64_t ms, max;

	ms = health_answers(c, schedule_run(c, seed)) / WFI_NSEC_PER_MSEC;
	chaos_log(c, "answers after %u ms", (unsigned)ms);
	atomic_fetch_add(&shared->heal_sum_ms, ms);
	max = atomic_load(&shared->heal_max_ms);
	while (ms > max && !atomic_compare_exchange_weak(&shared->heal_max_ms, &max, ms))
		;
	if (!atomic_load(&c->failed))
		engines_park(c);
	if (!atomic_load(&c->failed))
		health_conserved(c);
	engines_resume(c);
}

static int report_failure(const struct chaos *c, uint64_t seed)
{
	printf("FAILED: seed %" PRIu64 ": %s\n"
	       "  again: test_chaos --nodes %u --%s --schedules 1 --seed %" PRIu64 "\n"
	       "  logs: %s\n",
	       seed, c->what, c->nr, c->tls ? "tls" : "plain", seed, c->dir);
	fflush(stdout);
	return 1;
}

static int run_cluster(const struct options *o, unsigned nr_nodes, bool tls)
{
	static struct chaos c;
	char why[160];
	uint64_t i;
	unsigned k;

	if (!cluster_init(&c, nr_nodes, tls, why, sizeof(why))) {
		printf("%s\n", why);
		fflush(stdout);
		return SKIP;
	}
	if (tls && !c.tls)
		printf("no TLS here: %s\n", why);
	if (c.hosts.no_loss)
		printf("no packet is lost here, links only go down: %s\n", c.hosts.no_loss);
	engines_start(&c, o->seed);
	(void)health_answers(&c, chaos_now());
	while (!atomic_load(&shared->failed)) {
		i = atomic_fetch_add(&shared->next, 1);
		if (i >= o->schedules ||
		    (o->seconds && chaos_now() - begin_ns > o->seconds * WFI_NSEC_PER_SEC))
			break;
		one_schedule(&c, o->seed + i);
		if (atomic_load(&c.failed)) {
			atomic_store(&shared->failed, true);
			return report_failure(&c, o->seed + i);
		}
		atomic_fetch_add(&shared->done, 1);
	}
	engines_stop(&c);
	cluster_fini(&c);
	for (k = 0; k < CHAOS_NR_COUNTS; k++)
		atomic_fetch_add(&shared->counts[k], atomic_load(&c.counts[k]));
	return 0;
}

/* ---- all of them ---- */

static pid_t cluster_fork(const struct options *o, unsigned idx)
{
	const unsigned nr = o->nodes ? o->nodes : idx % 2 ? 5 : 3;
	/* half of them, of either size */
	const bool tls = o->tls < 0 ? __builtin_parity(idx) != 0 : o->tls > 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(run_cluster(o, nr, tls));
	}
	return pid;
}

static int report(const struct options *o)
{
	const uint64_t done = atomic_load(&shared->done);
	const uint64_t took_s = (chaos_now() - begin_ns) / WFI_NSEC_PER_SEC;
	const atomic_uint_fast64_t *n = shared->counts;

	printf("%" PRIu64 " of %" PRIu64 " schedules in %" PRIu64 " s, seeds from %" PRIu64 " on\n"
	       "answered %" PRIu64 " ms after healing on average, %" PRIu64 " ms at worst\n"
	       "%" PRIu64 " operations, of which %" PRIu64 " ended with their node and %" PRIu64
	       " with another error; %" PRIu64 " were late\n"
	       "%" PRIu64 " blocks right, %" PRIu64 " of them from other nodes; %" PRIu64
	       " handoffs and %" PRIu64 " messages between nodes\n"
	       "%" PRIu64 " nodes drained, %" PRIu64 " certificates were renewed\n",
	       done, o->schedules, took_s, o->seed,
	       done ? atomic_load(&shared->heal_sum_ms) / done : 0,
	       atomic_load(&shared->heal_max_ms), n[CHAOS_OPS], n[CHAOS_RESETS], n[CHAOS_FAILURES],
	       n[CHAOS_LATE], n[CHAOS_BLOCKS], n[CHAOS_REMOTE], n[CHAOS_HANDOFFS],
	       n[CHAOS_MESSAGES], n[CHAOS_DRAINED], n[CHAOS_RENEWED]);
	if (n[CHAOS_LATE] > 1 + n[CHAOS_OPS] / OPS_A_LATE_ONE) {
		printf("FAILED: more than one operation in %u is late\n", OPS_A_LATE_ONE);
		return 1;
	}
	if (o->seconds || done == o->schedules)
		return 0;
	printf("FAILED: not all schedules were run\n");
	return 1;
}

static int run_all(const struct options *o)
{
	pid_t pids[CLUSTERS_MAX];
	int status, ret = 0;
	unsigned i;

	for (i = 0; i < o->clusters; i++)
		pids[i] = cluster_fork(o, i);
	for (i = 0; i < o->clusters; i++) {
		if (pids[i] < 0 || waitpid(pids[i], &status, 0) < 0)
			return 1;
		if (!WIFEXITED(status)) {
			printf("FAILED: the process of a cluster ended with signal %d\n",
			       WTERMSIG(status));
			ret = 1;
		} else if (WEXITSTATUS(status) && ret != 1) {
			ret = WEXITSTATUS(status);
		}
	}
	return ret;
}

static bool options_parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "schedules", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "nodes", required_argument, NULL, 'N' },
		{ "clusters", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 't' },
		{ "tls", no_argument, NULL, 'T' },
		{ "plain", no_argument, NULL, 'P' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		const uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		if (opt == 'n')
			o->schedules = value;
		else if (opt == 's')
			o->seed = value;
		else if (opt == 'N')
			o->nodes = (unsigned)value;
		else if (opt == 'c')
			o->clusters = (unsigned)value;
		else if (opt == 't')
			o->seconds = value;
		else if (opt == 'T' || opt == 'P')
			o->tls = opt == 'T' ? 1 : 0;
		else
			return false;
	}
	o->clusters = (unsigned)wfi_min(o->clusters, o->schedules);
	return optind == argc && o->clusters && o->clusters <= CLUSTERS_MAX &&
	       (!o->nodes || (o->nodes > 1 && o->nodes <= CHAOS_NODES_MAX));
}

int main(int argc, char **argv)
{
	struct options o = { .schedules = 500, .seed = 1, .clusters = 6, .tls = -1 };
	const char *missing = test_etcd_missing();
	int ret;

	if (!options_parse(argc, argv, &o)) {
		fprintf(stderr,
			"usage: %s [--schedules N] [--seed S] [--nodes 2..%u] "
			"[--clusters 1..%u] [--seconds N] [--tls | --plain]\n",
			argv[0], CHAOS_NODES_MAX, CLUSTERS_MAX);
		return 2;
	}
	if (missing) {
		printf("%s\n", missing);
		return SKIP;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return 1;
	begin_ns = chaos_now();
	ret = run_all(&o);
	return ret ? ret : report(&o);
}
