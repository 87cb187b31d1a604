/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map_job.c - mappings whose pages come and go behind a worker's back
 *
 * A thread of its own for each: they are as rare as tables are that grow. Where there is none to be
 * had, the caller does the work itself, as map and unmap do.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/os.h"
#include "weft_internal/log.h"

#define SLICE_BYTES (2ul << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum job_state {
	JOB_RUNNING,
	JOB_DONE, /* the owner frees it */
	JOB_ABANDONED, /* the thread unmaps and frees */
};

struct wfi_map_job {
	struct wfi_map map; /* the thread's copy */
	int state; /* enum job_state. Atomic; the exchange says who comes last */
};

/* the worker may be bound to one core, and this thread was born bound to it as well: there it
 * would take the time that it is to save */
static void leave_core(void)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
}

static void *unmap_thread(void *arg)
{
	struct wfi_map_job *job = arg;

	leave_core();
	wfi_os_unmap(&job->map);
	free(job);
	return NULL;
}

/* a page that can't be had now comes, or kills, when it is touched, as ever */
static void *populate_thread(void *arg)
{
	struct wfi_map_job *job = arg;
	char *addr = job->map.addr;
	size_t off;

	leave_core();
	for (off = 0; off < job->map.len; off += SLICE_BYTES) {
		if (__atomic_load_n(&job->state, __ATOMIC_RELAXED) == JOB_ABANDONED)
			break;
		madvise(addr + off, wfi_min(SLICE_BYTES, job->map.len - off), MADV_POPULATE_WRITE);
	}
	/* release: pairs with the acquire of who sees it done. Acquire: with the one who left it */
	if (__atomic_exchange_n(&job->state, JOB_DONE, __ATOMIC_ACQ_REL) == JOB_ABANDONED)
		return unmap_thread(job);
	return NULL;
}

/* Return: 0 when @fn has taken over */
static int start(void *(*fn)(void *), struct wfi_map_job *job)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	if (pthread_attr_init(&attr))
		return -ENOMEM;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* signals are for the threads that their process knows of */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(&thread, &attr, fn, job);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -ret;
}

int wfi_os_map_begin(size_t len, unsigned flags, struct wfi_map *out)
{
	struct wfi_map map;
	int ret;

	ret = wfi_os_map(len, flags & WFI_MAP_HUGE, &map);
	if (ret)
		return ret;
	*out = map;
	/* so little comes as it is touched */
	if (map.len <= SLICE_BYTES)
		return 0;
	out->job = calloc(1, sizeof(*out->job));
	if (!out->job)
		return 0;
	out->job->map = map;
	if (start(populate_thread, out->job)) {
		free(out->job);
		out->job = NULL;
	}
	return 0;
}

bool wfi_os_map_ready(struct wfi_map *map)
{
	if (!map->job)
		return true;
	/* acquire: pairs with the thread's exchange, after which it doesn't look at the job */
	if (__atomic_load_n(&map->job->state, __ATOMIC_ACQUIRE) != JOB_DONE)
		return false;
	free(map->job);
	map->job = NULL;
	return true;
}

void wfi_os_unmap_begin(struct wfi_map *map)
{
	struct wfi_map_job *job = map->job;

	if (job &&
	    __atomic_exchange_n(&job->state, JOB_ABANDONED, __ATOMIC_ACQ_REL) == JOB_RUNNING) {
		*map = (struct wfi_map){ .fd = -1 };
		return;
	}
	if (!job && map->len > SLICE_BYTES)
		job = calloc(1, sizeof(*job));
	map->job = NULL;
	if (job) {
		job->map = *map;
		if (!start(unmap_thread, job)) {
			*map = (struct wfi_map){ .fd = -1 };
			return;
		}
		free(job);
	}
	wfi_os_unmap(map);
}
