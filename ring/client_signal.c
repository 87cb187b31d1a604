/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_signal.c - ends of gets, as words that streams of a GPU wait for
 *
 * Each place for an open operation has a word, in memory that the node maps as a region. A get that
 * is to signal takes the word's next value; whoever ends it stores that: the node, or, where the
 * node can't, this library: the ring's thread when it takes the completion, or a thread that looks
 * after deadlines and the socket, since the engine itself may be waiting for its stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "ring/client_priv.h"

#define GRACE_MS 500 /* after a deadline: the node was to have ended the get */

/* one line each: a GPU reads them again and again */
struct word {
	uint32_t word;
	uint32_t reserved[15];
};

struct wfi_signals {
	struct wfi_signals *next; /* of the session's watch */
	struct wfi_gpu_words gpu;
	struct word *words;
	uint64_t *open; /* atomic, one a word: see pack(). 0: no get waits */
	uint32_t *last; /* values given out; the ring's thread alone */
	uint32_t nr;
	uint32_t region;
};

/* .lock guards all of it */
struct wfi_watch {
	pthread_mutex_t lock;
	pthread_t thread;
	const struct weft *w;
	struct wfi_signals *signals;
	int socket; /* our own name for it; -1: there is none */
	int bell; /* eventfd: look again */
	bool stop;
};

/* may wrap */
static uint32_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint32_t)((uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000);
}

/* a value and when it is overdue, which are read as one. Values are not 0 */
static uint64_t pack(uint32_t value, uint32_t end_ms)
{
	return (uint64_t)value << 32 | end_ms;
}

/* forward only: the get that has the word next may be over already */
static void give(struct word *w, uint32_t value)
{
	uint32_t now = __atomic_load_n(&w->word, __ATOMIC_RELAXED);

	while ((int32_t)(value - now) > 0 &&
	       !__atomic_compare_exchange_n(&w->word, &now, value, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
}

/* ---- gets ---- */

void wfi_signal_begin(struct weft_ring *ring, uint32_t flight, const struct weft_op *op, char *to)
{
	struct wfi_signals *s = ring->signals;
	const uint32_t timeout_us = op->timeout_us ? op->timeout_us : WFI_SIGNAL_TIMEOUT_US;
	const uint64_t off = flight * sizeof(struct word);
	struct weft_arg_signal arg = {
		.off = off,
		.region = __atomic_load_n(&ring->w->region_ids[s->region], __ATOMIC_RELAXED),
	};

	s->last[flight] += s->last[flight] == UINT32_MAX ? 2 : 1;
	arg.value = s->last[flight];
	memcpy(to, &arg, sizeof(arg));
	*op->signal = (struct weft_signal){ .addr = s->gpu.addr + off, .value = arg.value };
	__atomic_store_n(&s->open[flight],
			 pack(arg.value, now_ms() + timeout_us / 1000 + 1 + GRACE_MS),
			 __ATOMIC_RELAXED);
}

void wfi_signal_end(struct weft_ring *ring, uint32_t flight)
{
	struct wfi_signals *s = ring->signals;
	const uint64_t open = __atomic_load_n(&s->open[flight], __ATOMIC_RELAXED);

	if (!open)
		return;
	give(&s->words[flight], (uint32_t)(open >> 32));
	__atomic_store_n(&s->open[flight], 0, __ATOMIC_RELAXED);
}

/* ---- what the node does not end ---- */

/* Return: ms until the next is overdue, at most @max */
static int give_overdue(struct wfi_signals *s, bool all, int max)
{
	const uint32_t now = now_ms();
	uint32_t i;

	for (i = 0; i < s->nr; i++) {
		const uint64_t open = __atomic_load_n(&s->open[i], __ATOMIC_RELAXED);
		const int32_t left = (int32_t)((uint32_t)open - now);

		if (open && (all || left <= 0))
			give(&s->words[i], (uint32_t)(open >> 32));
		else if (open && left < max)
			max = left;
	}
	return max;
}

static bool watch_gone(const struct wfi_watch *watch)
{
	struct pollfd pfd = { .fd = watch->socket, .events = POLLRDHUP };

	return watch->socket < 0 || !wfi_client_alive(watch->w) || poll(&pfd, 1, 0) > 0;
}

/* until the socket hangs up, the bell rings, or the time to look at deadlines has come */
static void watch_wait(struct wfi_watch *watch, bool gone, int timeout_ms)
{
	struct pollfd pfds[] = {
		{ .fd = watch->bell, .events = POLLIN },
		{ .fd = gone ? -1 : watch->socket, .events = POLLRDHUP },
	};
	eventfd_t rung;

	pthread_mutex_unlock(&watch->lock);
	if (poll(pfds, 2, timeout_ms) > 0 && pfds[0].revents)
		eventfd_read(watch->bell, &rung);
	pthread_mutex_lock(&watch->lock);
}

static void *watch_run(void *arg)
{
	struct wfi_watch *watch = arg;
	struct wfi_signals *s;
	bool gone;
	int ms;

	pthread_mutex_lock(&watch->lock);
	while (!watch->stop) {
		gone = watch_gone(watch);
		/* gets that begin meanwhile are not overdue before that */
		ms = GRACE_MS;
		for (s = watch->signals; s; s = s->next)
			ms = give_overdue(s, gone, ms);
		watch_wait(watch, gone, ms);
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}

void wfi_watch_socket(struct weft *w, int fd)
{
	struct wfi_watch *watch = w->watch;

	pthread_mutex_lock(&watch->lock);
	if (watch->socket >= 0)
		close(watch->socket);
	watch->socket = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
	eventfd_write(watch->bell, 1);
	pthread_mutex_unlock(&watch->lock);
}

/* signals are the program's: none is handled in this thread. Return: 0, -errno */
static int thread_start(struct wfi_watch *watch)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&watch->thread, NULL, watch_run, watch);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/* Context: .lock of the session is held */
static int watch_start(struct weft *w)
{
	struct wfi_watch *watch = calloc(1, sizeof(*watch));
	int ret = -ENOMEM;

	if (!watch)
		return ret;
	watch->w = w;
	watch->socket = fcntl(w->fd, F_DUPFD_CLOEXEC, 3);
	watch->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&watch->lock, NULL);
	if (watch->socket >= 0 && watch->bell >= 0)
		ret = thread_start(watch);
	if (!ret) {
		w->watch = watch;
		return 0;
	}
	if (watch->socket >= 0)
		close(watch->socket);
	if (watch->bell >= 0)
		close(watch->bell);
	free(watch);
	return ret;
}

void wfi_watch_stop(struct weft *w)
{
	struct wfi_watch *watch = w->watch;

	/* a child made by fork() has no such thread */
	if (wfi_client_ours(w)) {
		pthread_mutex_lock(&watch->lock);
		watch->stop = true;
		eventfd_write(watch->bell, 1);
		pthread_mutex_unlock(&watch->lock);
		pthread_join(watch->thread, NULL);
	}
	if (watch->socket >= 0)
		close(watch->socket);
	close(watch->bell);
	free(watch);
	w->watch = NULL;
}

static void watch_add(struct wfi_watch *watch, struct wfi_signals *s)
{
	pthread_mutex_lock(&watch->lock);
	s->next = watch->signals;
	watch->signals = s;
	pthread_mutex_unlock(&watch->lock);
}

static void watch_drop(struct wfi_watch *watch, struct wfi_signals *s)
{
	struct wfi_signals **link;

	pthread_mutex_lock(&watch->lock);
	for (link = &watch->signals; *link != s; link = &(*link)->next)
		;
	*link = s->next;
	pthread_mutex_unlock(&watch->lock);
}

/* ---- open and close ---- */

static void signals_free(const struct weft *w, struct wfi_signals *s)
{
	wfi_client_unmap(w, s->words, s->nr * sizeof(*s->words));
	free(s->open);
	free(s->last);
	free(s);
}

/* words that the node maps, too. Return: 0, -errno with the sentence */
static int words_create(struct weft *w, struct wfi_signals *s)
{
	struct weft_region_opts opts = {
		.size = sizeof(opts),
		.len = s->nr * sizeof(*s->words),
		.fd = memfd_create("weft-signals", MFD_CLOEXEC | MFD_ALLOW_SEALING),
	};
	void *mem = MAP_FAILED;
	int ret;

	if (opts.fd < 0)
		return wfi_client_fail(-errno, "no memfd for signals");
	if (!ftruncate(opts.fd, (off_t)opts.len))
		mem = mmap(NULL, opts.len, PROT_READ | PROT_WRITE, MAP_SHARED, opts.fd, 0);
	if (mem != MAP_FAILED) {
		wfi_client_keep(mem, opts.len);
		s->words = opts.addr = mem;
		ret = weft_region_reg(w, &opts, &s->region);
	} else {
		ret = wfi_client_fail(-ENOMEM, "no memory for signals");
	}
	close(opts.fd);
	return ret;
}

static int signals_create(struct weft *w, uint32_t nr, struct wfi_signals **out)
{
	struct wfi_signals *s = calloc(1, sizeof(*s));
	int ret = -ENOMEM;

	if (s) {
		s->nr = nr;
		s->open = calloc(nr, sizeof(*s->open));
		s->last = calloc(nr, sizeof(*s->last));
	}
	if (!s || !s->open || !s->last)
		wfi_client_why("no memory for signals");
	else
		ret = words_create(w, s);
	if (!ret)
		*out = s;
	else if (s)
		signals_free(w, s);
	return ret;
}

/* the words are the GPU's to see. Return: 0, -errno with the sentence */
static int signals_show(struct weft *w, struct wfi_signals *s, uint32_t number)
{
	const char *no_driver;
	const struct wfi_cuda *cuda = wfi_cuda_load(&no_driver);
	const struct region *beside;
	char why[WFI_GPU_WHY_MAX];
	int ret;

	if (!cuda) {
		wfi_client_why("there is no GPU here: %s", no_driver);
		return -ENODEV;
	}
	pthread_mutex_lock(&w->lock);
	beside = wfi_region_find(w, number);
	ret = beside && beside->kind == WEFT_REGION_GPU ? 0 : -EINVAL;
	if (!ret)
		ret = wfi_gpu_words_open(cuda, (uintptr_t)beside->addr, s->words,
					 s->nr * sizeof(*s->words), &s->gpu, why);
	else
		snprintf(why, sizeof(why), "they need a region of this session in its memory");
	if (!ret && !w->watch) {
		ret = watch_start(w);
		snprintf(why, sizeof(why), "no thread can be started");
		if (ret)
			wfi_gpu_words_close(&s->gpu);
	}
	if (!ret)
		watch_add(w->watch, s);
	pthread_mutex_unlock(&w->lock);
	if (ret)
		wfi_client_why("streams of this GPU can't wait: %s", why);
	return ret;
}

int weft_signals_open(struct weft_ring *ring, uint32_t region)
{
	struct weft *w = ring->w;
	struct wfi_signals *s;
	int ret;

	if (ring->signals)
		return wfi_client_fail(-EALREADY, "the ring has signals already");
	if (w->node_pid == getpid())
		return wfi_client_fail(-EOPNOTSUPP,
				       "streams can't wait for a node in their own process, whose "
				       "copies CUDA may put behind them: attach to a weftd");
	ret = signals_create(w, ring->nr_flights, &s);
	if (ret)
		return ret;
	ret = signals_show(w, s, region);
	if (!ret) {
		ring->signals = s;
		return 0;
	}
	/* the sentence is about what came first */
	wfi_region_drop(w, s->region);
	signals_free(w, s);
	return ret;
}

void wfi_signals_close(struct weft_ring *ring)
{
	struct wfi_signals *s = ring->signals;
	struct weft *w = ring->w;

	ring->signals = NULL;
	if (wfi_client_ours(w)) {
		watch_drop(w->watch, s);
		give_overdue(s, true, GRACE_MS);
		wfi_gpu_words_close(&s->gpu);
		wfi_region_drop(w, s->region);
	}
	signals_free(w, s);
}

int weft_signal_wait(struct weft_ring *ring, const struct weft_signal *signal, void *stream)
{
	char why[WFI_GPU_WHY_MAX];
	int ret;

	if (!ring->signals || !signal)
		return wfi_client_fail(-EINVAL, "the ring has no signals: weft_signals_open()");
	ret = wfi_gpu_words_wait(&ring->signals->gpu, stream, signal->addr, signal->value, why);
	if (ret)
		wfi_client_why("the stream can't wait: %s", why);
	return ret;
}
