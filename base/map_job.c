/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_job.c - pages of mappings, which come and go behind a worker's back
 *
 * One thread of the process does it, born with the first job and asleep without any: a thread for
 * each job would be born on the worker's core and take time from it. It does 2 MiB of one job,
 * then of the next. Where it can't be had, pages come as they are touched, and go while the caller
 * waits.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/os.h"
#include "weft_internal/guard.h"

#define SLICE_BYTES (2ul << 20)
#define SHARED_SLICE_BYTES (8ul << 20) /* of a memfd, in one call */
#define SHARED_STEP_BYTES (128ul << 10)
#define PAGE_BYTES 4096u /* the smallest there is */
#define STACK_BYTES (64ul << 10)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* of .end */
#define JOB_DONE (1ull << 63) /* by the thread: the job is the owner's */
#define JOB_LEFT (1ull << 62) /* by the owner: map and job are the thread's */
#define JOB_BYTES (JOB_LEFT - 1)

struct wfi_map_job {
	struct wfi_map map; /* the thread's copy */
	size_t len; /* to be mapped first, with these flags; 0: it is */
	unsigned flags;
	bool later;
	size_t off; /* pages before have come. Atomic */
	uint64_t end; /* and where it stops, with what has become of it; 0: not mapped. Atomic */
	struct wfi_map_job *next;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct queue {
		struct wfi_map_job *first, **last;
	} soon, later; /* pages that somebody is about to touch go first */
	bool running;
} helper = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.more = PTHREAD_COND_INITIALIZER,
	.soon = { NULL, &helper.soon.first },
	.later = { NULL, &helper.later.first },
};

static void push(struct wfi_map_job *job)
{
	struct queue *q = job->later ? &helper.later : &helper.soon;

	job->next = NULL;
	*q->last = job;
	q->last = &job->next;
}

/* Return: NULL when there is none */
static struct wfi_map_job *pop(void)
{
	struct queue *q = helper.soon.first ? &helper.soon : &helper.later;
	struct wfi_map_job *job = q->first;

	if (!job)
		return NULL;
	q->first = job->next;
	if (!q->first)
		q->last = &q->first;
	return job;
}

/* Return: whether somebody has come as far as the end of @addr's slice */
static bool overtaken(char *addr, size_t len)
{
	unsigned char there;

	return !mincore(addr + len - PAGE_BYTES, PAGE_BYTES, &there) && there & 1;
}

/*
 * Pages of a memfd: huge ones, see base/map.c, or small ones, little by little, since
 * MADV_POPULATE_WRITE locks all of the process's memory map for as long as it takes. To collapse
 * pages waits for the kernel's threads on all cores, the busy worker's too, once a call: for
 * milliseconds where the worker has touched a new page of late, so that one huge page a call came
 * too late, and more and more so.
 * Return: false when there is no space: then touching would kill
 */
static bool bring_shared(char *addr, size_t len)
{
	const size_t huge = (uintptr_t)addr & (SLICE_BYTES - 1) ? 0 : len & ~(SLICE_BYTES - 1);
	size_t begun = 0;

	while (begun < huge && !madvise(addr + begun, PAGE_BYTES, MADV_POPULATE_WRITE))
		begun += SLICE_BYTES;
	if (begun && begun == len && !madvise(addr, len, MADV_COLLAPSE))
		return true;
	for (size_t off = 0; off < len; off += SHARED_STEP_BYTES)
		if (madvise(addr + off, wfi_min(SHARED_STEP_BYTES, len - off), MADV_POPULATE_WRITE))
			return false;
	return true;
}

/*
 * Private pages come by being touched, which locks no more than their area. Shared ones are touched
 * as well: under a hypervisor without nested paging a page that the kernel has made is one that the
 * first to touch it still waits for
 */
static size_t bring(const struct wfi_map_job *job, uint64_t end)
{
	const bool shared = job->map.fd >= 0;
	char *addr = (char *)job->map.addr + job->off;
	size_t len = wfi_min(SLICE_BYTES, end - job->off);

	/* to make one page of many that are in use would take long, and fall behind */
	if (shared && overtaken(addr, len))
		return len;
	if (shared)
		len = wfi_min(SHARED_SLICE_BYTES, end - job->off);
	if (shared && !bring_shared(addr, len))
		return len;
	for (size_t off = 0; off < len; off += PAGE_BYTES)
		wfi_touch(addr + off);
	return len;
}

static void map_now(struct wfi_map_job *job)
{
	/* logged, and seen by the owner: there is no address */
	if (!wfi_os_map(job->len, job->flags, &job->map))
		/* release: pairs with the owner's load in learn() */
		__atomic_fetch_or(&job->end, job->map.len, __ATOMIC_RELEASE);
	job->len = 0;
	job->later = true;
}

/* a slice of @job. A page that can't be had now comes, or kills, when it is touched, as ever.
 * Return: true when there is more to do */
static bool job_step(struct wfi_map_job *job)
{
	/* acquire: pairs with the owner's fetch_or in wfi_os_unmap_begin() */
	uint64_t end = __atomic_load_n(&job->end, __ATOMIC_ACQUIRE);

	if (end & JOB_LEFT) {
		wfi_os_unmap(&job->map);
		free(job);
		return false;
	}
	if (job->len) {
		map_now(job);
		return true;
	}
	if (job->off < end) {
		/* relaxed: says how far it is, and nothing about what is there */
		__atomic_store_n(&job->off, job->off + bring(job, end), __ATOMIC_RELAXED);
		return true;
	}
	/* release: pairs with the owner's loads; from then on the job is its own. Fails when there
	 * is more to do after all */
	return !__atomic_compare_exchange_n(&job->end, &end, end | JOB_DONE, false,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

static void *helper_run(void *arg)
{
	struct wfi_map_job *job;
	bool more;

	pthread_mutex_lock(&helper.lock);
	for (;;) {
		while (!(job = pop()))
			pthread_cond_wait(&helper.more, &helper.lock);
		pthread_mutex_unlock(&helper.lock);
		more = job_step(job);
		pthread_mutex_lock(&helper.lock);
		if (more)
			push(job);
	}
	return arg;
}

/* a forked child has no helper; its jobs, and what they are for, are the parent's */
static void helper_forget(void)
{
	pthread_mutex_init(&helper.lock, NULL);
	pthread_cond_init(&helper.more, NULL);
	helper.soon = (struct queue){ NULL, &helper.soon.first };
	helper.later = (struct queue){ NULL, &helper.later.first };
	helper.running = false;
}

/* Return: 0, or an error of pthread_create() */
static int helper_create(const cpu_set_t *cpus)
{
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	ret = pthread_attr_init(&attr);
	if (ret)
		return ret;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setaffinity_np(&attr, sizeof(*cpus), cpus);
	ret = pthread_create(&thread, &attr, helper_run, NULL);
	pthread_attr_destroy(&attr);
	return ret;
}

/* Return: 0, -errno */
static int helper_start(void)
{
	const int cpu = sched_getcpu();
	static bool watched;
	sigset_t all, before;
	cpu_set_t cpus;
	int ret;

	/* signals are for the threads that their process knows of */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* anywhere, whatever core the worker is bound to: but not there, if there is another */
	memset(&cpus, 0xff, sizeof(cpus));
	if (cpu >= 0 && cpu < CPU_SETSIZE)
		CPU_CLR((unsigned)cpu, &cpus);
	ret = helper_create(&cpus);
	if (ret == EINVAL) {
		memset(&cpus, 0xff, sizeof(cpus));
		ret = helper_create(&cpus);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!ret && !watched)
		watched = !pthread_atfork(NULL, NULL, helper_forget);
	return -ret;
}

/* Return: 0 when the thread has taken over */
static int start(struct wfi_map_job *job)
{
	int ret = 0;

	pthread_mutex_lock(&helper.lock);
	if (!helper.running)
		ret = helper_start();
	helper.running = !ret;
	if (!ret) {
		push(job);
		pthread_cond_signal(&helper.more);
	}
	pthread_mutex_unlock(&helper.lock);
	return ret;
}

/* Return: true when a job under way goes on to @end */
static bool extend(struct wfi_map *map, uint64_t end)
{
	uint64_t old;

	if (!map->job)
		return false;
	old = __atomic_load_n(&map->job->end, __ATOMIC_RELAXED);
	do {
		if (old & JOB_DONE)
			return false;
	} while (!__atomic_compare_exchange_n(&map->job->end, &old, wfi_max(old, end), false,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

void wfi_os_map_begin(size_t len, unsigned flags, struct wfi_map *out)
{
	struct wfi_map_job *job = calloc(1, sizeof(*job));

	*out = (struct wfi_map){ .fd = -1 };
	if (job) {
		job->map.fd = -1;
		job->len = len;
		job->flags = flags;
		if (!start(job)) {
			out->job = job;
			return;
		}
		free(job);
	}
	(void)!wfi_os_map(len, flags, out);
}

/* @end: of the map's job. Where the thread has mapped it, if it has by now */
static void learn(struct wfi_map *map, uint64_t end)
{
	struct wfi_map_job *job = map->job;

	if (map->addr || !(end & JOB_BYTES))
		return;
	*map = job->map;
	map->job = job;
}

void wfi_os_populate(struct wfi_map *map, size_t off, size_t len)
{
	const size_t end = (size_t)wfi_min(map->len, wfi_align_up(off + len, SLICE_BYTES));
	struct wfi_map_job *job;

	if (extend(map, end))
		return;
	/* one that is done gives way */
	(void)wfi_os_populated(map);
	job = calloc(1, sizeof(*job));
	if (!job)
		return;
	job->map = *map;
	job->off = off & ~(SLICE_BYTES - 1);
	job->end = end;
	map->job = job;
	if (start(job)) {
		map->job = NULL;
		free(job);
	}
}

size_t wfi_os_populated(struct wfi_map *map)
{
	uint64_t end;

	if (!map->job)
		return SIZE_MAX;
	/* acquire: pairs with map_now(); and with the thread's exchange, after which it doesn't
	 * look at the job */
	end = __atomic_load_n(&map->job->end, __ATOMIC_ACQUIRE);
	learn(map, end);
	if (!(end & JOB_DONE))
		return __atomic_load_n(&map->job->off, __ATOMIC_RELAXED);
	free(map->job);
	map->job = NULL;
	return SIZE_MAX;
}

void wfi_os_unmap_begin(struct wfi_map *map)
{
	struct wfi_map_job *job = map->job;
	uint64_t end;

	wfi_guard_del(map->addr);
	if (job) {
		/* acquire: pairs with the thread's exchange; release: with its load */
		end = __atomic_fetch_or(&job->end, JOB_LEFT, __ATOMIC_ACQ_REL);
		if (!(end & JOB_DONE)) {
			*map = (struct wfi_map){ .fd = -1 };
			return;
		}
		learn(map, end);
		map->job = NULL;
	} else if (map->len > SLICE_BYTES) {
		job = calloc(1, sizeof(*job));
	}
	if (job) {
		job->map = *map;
		job->end = JOB_LEFT;
		if (!start(job)) {
			*map = (struct wfi_map){ .fd = -1 };
			return;
		}
		free(job);
	}
	wfi_os_unmap(map);
}
